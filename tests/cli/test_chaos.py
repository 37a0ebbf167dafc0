"""`mesos-actor chaos` refuses what it cannot do, before it starts anything."""

from __future__ import annotations

import os

import pytest

from mesos_actor.actors.cli import app


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kill", "hosts"], "--kill: 'hosts' is not one of masters, agents, frameworks"),
        (["--kill", ","], "--kill: nothing is named"),
        (["--duration", "soon"], "--duration: cannot read 'soon' as a duration"),
        (["--duration", "10ms"], "--duration: '10ms' is not from 1s to 7d"),
        (["--masters", "4"], "--masters 4: give an odd number from 1 to 9"),
        (["--agents", "0"], "'0' is not a whole number from 1"),
        (["--seed", "x"], "'x' is not a whole number from 0"),
        (["--keep", "/"], "--keep /: is not empty"),
    ],
)
def test_bad_words_are_refused(capfd: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        app.run(["chaos", *words])

    assert stopped.value.code == 2
    assert said in capfd.readouterr().err


@pytest.mark.parametrize("option", ["--cut", "--disk-full"])
def test_what_takes_root_is_refused_to_others(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    monkeypatch.setattr("shutil.which", lambda tool: tool)

    with pytest.raises(SystemExit) as stopped:
        app.run(["chaos", option])

    assert stopped.value.code == 2
    error = capfd.readouterr().err
    assert f"{option} needs" in error and "only root may make that" in error
    assert error.count("\n") == 1
