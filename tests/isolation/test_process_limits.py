"""Limits of a command's processes: what the launcher is handed, and what an agent without privileges refuses."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import ContainerExited, ContainerFailed, LaunchContainer
from mesos_actor.actors.messages.values import UNLIMITED, Command, RLimit
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.isolator import Contribution, Isolation
from mesos_actor.isolation.preparation import NotPrepared, Preparation, Sandbox
from mesos_actor.isolation.process_limits import limits_of, may_raise

if TYPE_CHECKING:
    RealBench = Any

A = ContainerId("a.000000000001")


def own(number: int) -> tuple[int, int]:
    return (10, resource.RLIM_INFINITY) if number == resource.RLIMIT_CORE else (10, 100)


def test_what_is_not_above_ones_own_may_be_had_by_everybody() -> None:
    rlimits = (RLimit("nofile", 1, 100), RLimit("core", UNLIMITED, UNLIMITED), RLimit("nproc", 0, 0))

    assert limits_of(rlimits, own, privileged=False) == {"nofile": (1, 100), "core": (-1, -1), "nproc": (0, 0)}
    assert limits_of((), own, privileged=False) == {}


@pytest.mark.parametrize(("hard", "shown"), [(101, "101"), (UNLIMITED, "unlimited")])
def test_raising_needs_a_privilege(hard: int, shown: str) -> None:
    limit = RLimit("nofile", 5, hard)

    with pytest.raises(
        CommandError,
        match=f"rlimits: 'nofile' has a hard limit of {shown}, above this agent's own of 100, and it is not",
    ):
        limits_of((limit,), own, privileged=False)
    assert limits_of((limit,), own, privileged=True) == {"nofile": (5, hard)}


def test_what_nobody_can_have_is_refused() -> None:
    with pytest.raises(CommandError, match="rlimits: there is no resource limit 'wisdom'"):
        limits_of((RLimit("wisdom", 1, 1),))


@pytest.mark.parametrize(
    ("content", "found"),
    [("Name:\tx\nCapEff:\t0000000001000000\n", True), ("CapEff:\t00000000feffffff\n", False), ("", False)],
)
def test_privilege_is_a_capability(tmp_path: Path, content: str, found: bool) -> None:
    (tmp_path / "status").write_text(content)

    assert may_raise(str(tmp_path / "status")) is found
    assert may_raise(str(tmp_path / "none")) is False


def fields(added: Contribution, *rlimits: RLimit) -> dict[str, Any]:
    launch = LaunchContainer(A, FrameworkId("f"), Command(("true",), rlimits=rlimits), Resources())
    return Preparation(Path("/w"), Isolation(), None).fields(launch, Sandbox("/s", None), added)


def test_launcher_is_told_where_they_belong() -> None:
    """In a confined child they are set last: what makes its namespaces must not run into them."""
    core = RLimit("core", 0, 0)
    plain = fields(Contribution(), core)
    confined = fields(Contribution(fields={"confine": {"root": "/r"}}), core)

    assert (plain["limits"], "confine" in plain) == ({"core": (0, 0)}, False)
    assert (confined["confine"], "limits" in confined) == ({"root": "/r", "rlimits": {"core": (0, 0)}}, False)
    assert not {"limits", "confine"} & fields(Contribution()).keys()
    with pytest.raises(NotPrepared, match="rlimits: there is no resource limit 'x'"):
        fields(Contribution(), RLimit("x", 0, 0))


@pytest.mark.cluster
def test_command_sees_its_limits(real: RealBench) -> None:
    command = Command(
        ("ulimit -n; ulimit -Hn; ulimit -c",), shell=True, rlimits=(RLimit("nofile", 64, 65), RLimit("core", 0, 0))
    )
    real.send(LaunchContainer(A, FrameworkId("c1-0001"), command, Resources()))

    assert real.expect(ContainerExited, A).exit_status == 0
    assert (real.sandbox(A) / "stdout").read_text().split() == ["64", "65", "0"]


@pytest.mark.cluster
def test_launch_with_limits_that_cannot_be_had_fails_with_the_reason(real: RealBench) -> None:
    """Whoever refuses it: the agent that may not raise it, or the kernel, which has a bound of its own."""
    command = Command(("true",), rlimits=(RLimit("nofile", 1, 1 << 62),))
    real.send(LaunchContainer(A, FrameworkId("c1-0001"), command, Resources()))

    failed = real.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert "nofile" in failed.text
