"""The application is built for one command at a time, and is the same as the whole."""

from __future__ import annotations

import pytest
import typer

from mesos_actor.actors.cli.app import MODULES, application, run


def names(app: typer.Typer) -> list[str]:
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_commands_that_lead_to_it(module: str) -> None:
    for command in MODULES[module]:
        assert sorted(names(application(command))) == sorted(MODULES[module])


def test_a_word_that_is_no_command_gets_all_of_them() -> None:
    everything = [command for commands in MODULES.values() for command in commands]

    assert sorted(names(application("--help"))) == sorted(names(application("bogus"))) == sorted(everything)


def test_a_misspelt_variable_sends_no_command_to_another_cluster(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESOS_ACTOR_MASTRES", "127.0.0.1:1")
    with pytest.raises(SystemExit) as ended:
        run(["status"])

    assert ended.value.code == 2
    assert "'MESOS_ACTOR_MASTRES' is not a setting; did you mean 'MESOS_ACTOR_MASTERS'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["MESOS_ACTOR_AGENT_UPDATE_RETRY", "MESOS_ACTOR_INDEX", "MESOS_ACTOR_IN_VM"])
def test_variables_that_mean_something_to_others_are_none_of_a_commands_business(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    monkeypatch.setenv(name, "1s")
    with pytest.raises(SystemExit) as ended:
        run(["status", "--no-such-option"])

    assert "MESOS_ACTOR" not in capsys.readouterr().err
    assert ended.value.code == 2
