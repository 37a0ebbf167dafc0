"""What --cut and --disk-full need, and that nothing is made where it would be the host's own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from mesos_actor.actors.chaos import hosts
from mesos_actor.actors.errors import InvalidInput


def found(tool: str) -> str | None:
    return f"/usr/bin/{tool}"


def works(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 0, "", "")


def refused(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.CompletedProcess(command, 1, "", "unshare failed: Operation not permitted\n")


def test_what_is_missing_is_named() -> None:
    assert hosts.missing("--cut", found, 0, works) == ""
    assert hosts.missing("--disk-full", found, 0, works) == ""
    assert "the commands ip are missing (Debian: iproute2" in hosts.missing(
        "--cut", lambda tool: None if tool == "ip" else tool, 0, works
    )
    assert "only root may make that" in hosts.missing("--disk-full", found, 1_000, works)
    assert "unshare failed: Operation not permitted; without --cut" in hosts.missing("--cut", found, 0, refused)


def test_without_options_nothing_is_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.execvp", lambda *words: pytest.fail(f"executed {words}"))

    hosts.enter(cut=False, disk_full=False)


def test_the_same_command_goes_on_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[list[str]] = []
    monkeypatch.setattr("os.execvp", lambda program, words: executed.append(words))
    monkeypatch.setattr("sys.executable", "/bin/python")
    monkeypatch.setattr("sys.orig_argv", ["python", "-m", "mesos_actor", "chaos", "--cut"])
    monkeypatch.setattr(hosts, "missing", lambda option: "")
    monkeypatch.delenv("MESOS_ACTOR_CHAOS_OUTSIDE", raising=False)

    hosts.enter(cut=True, disk_full=True)

    inside = ["unshare", "--mount", "--net", "/bin/python", "-m", "mesos_actor", "chaos", "--cut"]
    assert executed == [inside]


@pytest.mark.parametrize(
    ("outside", "cut", "well"),
    [
        ("net:[1] mnt:[1]", True, False),
        ("net:[1] mnt:[2]", True, False),
        ("net:[1] mnt:[2]", False, True),
        ("net:[2] mnt:[2]", True, True),
    ],
)
def test_the_namespaces_of_the_host_are_never_taken_for_our_own(outside: str, cut: bool, well: bool) -> None:
    if well:
        hosts.check_inside(outside, "net:[1] mnt:[1]", cut)
    else:
        with pytest.raises(InvalidInput, match="MESOS_ACTOR_CHAOS_OUTSIDE: is set"):
            hosts.check_inside(outside, "net:[1] mnt:[1]", cut)


def test_making_room_on_a_disk_that_was_never_filled_is_harmless(tmp_path: Path) -> None:
    hosts.make_room(tmp_path)

    assert list(tmp_path.iterdir()) == []
