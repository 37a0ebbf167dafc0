"""What every containerizer promises: one suite for all of them.

A test module imports everything from here and gives a fixture `bench`: test_conformance.py for `fake` and `process`,
tests/cgroup/test_containers.py for `linux`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from mesos_actor.actors.ids import Address, ContainerId, OperationId, Principal
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    UpdateContainer,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, PortMapping
from mesos_actor.actors.resources import Resources

if TYPE_CHECKING:
    Bench = Any

TRUE, FALSE, SLEEP = Command(("true",)), Command(("false",)), Command(("sleep", "100"))
A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
Launch = Callable[..., LaunchContainer]


def ended(bench: Bench, container_id: ContainerId) -> ContainerExited:
    """How it ended, without what it used: that differs, and not everybody counts."""
    exited: ContainerExited = replace(bench.expect(ContainerExited, container_id), statistics=None)
    return exited


@pytest.mark.parametrize(("command", "status"), [(TRUE, 0), (FALSE, 1)])
def test_exit_status_is_told(bench: Bench, make_launch: Launch, command: Command, status: int) -> None:
    bench.send(make_launch(A, command))

    assert bench.expect(ContainerStarted, A).pid > 0
    assert ended(bench, A) == ContainerExited(A, exit_status=status)


def test_orders_of_anybody_but_the_agent_are_refused(bench: Bench, make_launch: Launch) -> None:
    """An executor has a key that reaches this mailbox, and is a user's program."""
    bench.send(make_launch(A, SLEEP))
    bench.expect(ContainerStarted, A)
    orders = (
        make_launch(B, TRUE),
        KillContainer(A, 0),
        UpdateContainer(A, Resources()),
        ForgetContainer(A),
        RecoverContainers(()),
        MeasureContainers((A,)),
    )

    for principal in (f"executor:{A}", "cluster", "anonymous"):
        for order in orders:
            bench.port.on_message(Address("peer:1/executor"), "", Principal(principal), order)

    bench.send(MeasureContainers((A, B)))
    assert [usage.container_id for usage in bench.expect(ContainerUsage).usages] == [A]
    assert not bench.inbox.messages


def test_signal_is_told(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, bench.commands["signal 9"]))

    assert ended(bench, A) == ContainerExited(A, signal=9)


def test_program_that_is_not_there_fails_and_never_starts(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, bench.commands["no such program"]))

    failed = bench.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert "no such program: 'no-such-program'" in failed.text
    assert bench.inbox.take(ContainerStarted, A) is None


def test_port_of_the_host_that_is_not_its_own_is_not_published(bench: Bench, make_launch: Launch) -> None:
    spec = ContainerSpec(network="bridge", ports=(PortMapping(31_000, 80),))
    launch = make_launch(A, TRUE)
    image = "" if launch.command.container is None else launch.command.container.image
    bench.send(replace(launch, command=replace(launch.command, container=replace(spec, image=image))))

    failed = bench.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert failed.text.startswith("container: ")
    assert bench.inbox.take(ContainerStarted, A) is None


def test_failed_launch_asked_again_gets_the_same_answer(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, bench.commands["no such program"]))
    first = bench.expect(ContainerFailed, A)
    bench.send(make_launch(A, TRUE))

    assert bench.expect(ContainerFailed, A) == first


def test_kill_ends_it_by_term(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.send(KillContainer(A, grace_ms=60_000))

    assert ended(bench, A) == ContainerExited(A, signal=15, killed=True)


def test_kill_of_one_that_ignores_term_ends_it_after_the_grace(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, bench.commands["ignores TERM"]))
    bench.expect(ContainerStarted, A)
    if hasattr(bench, "wait_for_file"):
        bench.wait_for_file(bench.sandbox(A) / "stdout", "ready")
    bench.send(KillContainer(A, grace_ms=30))

    assert ended(bench, A) == ContainerExited(A, signal=9, killed=True)


def test_repeated_kill_only_shortens_the_grace(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, bench.commands["ignores TERM"]))
    bench.expect(ContainerStarted, A)
    if hasattr(bench, "wait_for_file"):
        bench.wait_for_file(bench.sandbox(A) / "stdout", "ready")
    bench.send(KillContainer(A, grace_ms=3_600_000))
    bench.send(KillContainer(A, grace_ms=20))
    bench.send(KillContainer(A, grace_ms=3_600_000))

    assert ended(bench, A) == ContainerExited(A, signal=9, killed=True)


def test_kill_without_grace(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.send(KillContainer(A, grace_ms=0))

    assert ended(bench, A) == ContainerExited(A, signal=9, killed=True)


def test_kill_of_an_unknown_container_is_answered(bench: Bench) -> None:
    bench.send(KillContainer(A, grace_ms=0))

    exited = ended(bench, A)
    assert exited == ContainerExited(A, killed=True, text="no such container is known here")


def test_exit_is_told_again_until_forgotten(bench: Bench, make_launch: Launch) -> None:
    bench.send(RecoverContainers(()), make_launch(A, FALSE), make_launch(B, TRUE))
    first = ended(bench, A)
    bench.expect(ContainerExited, B)

    assert ended(bench, A) == first
    bench.send(ForgetContainer(A))
    bench.inbox.messages.clear()
    bench.expect(ContainerExited, B)
    bench.expect(ContainerExited, B)
    assert bench.inbox.take(ContainerExited, A) is None


def test_launch_of_a_known_id_tells_what_is_known(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP), make_launch(B, FALSE))
    started = bench.expect(ContainerStarted, A)
    exited = ended(bench, B)
    bench.inbox.messages.clear()
    bench.send(make_launch(A, SLEEP), make_launch(B, FALSE))

    assert bench.expect(ContainerStarted, A) == started
    assert ended(bench, B) == exited


def test_forget_of_a_running_container_changes_nothing(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.send(ForgetContainer(A), KillContainer(A, grace_ms=0))

    assert bench.expect(ContainerExited, A).killed


def test_restarted_agent_finds_its_containers(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP), make_launch(B, FALSE))
    pid = bench.expect(ContainerStarted, A).pid
    bench.expect(ContainerExited, B)
    bench.restart_agent()
    bench.send(RecoverContainers((A, B, ContainerId("never.000000000003"))))

    recovered = {c.container_id: c for c in bench.expect(ContainersRecovered).containers}
    assert set(recovered) == {A, B}
    assert (recovered[A].running, recovered[A].pid) == (True, pid)
    assert (recovered[B].running, recovered[B].exit_status, recovered[B].killed) == (False, 1, False)
    bench.send(KillContainer(A, grace_ms=60_000))
    assert ended(bench, A) == ContainerExited(A, signal=15, killed=True)


def test_container_that_nobody_asks_for_is_killed(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP), make_launch(B, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.expect(ContainerStarted, B)
    bench.restart_agent()
    bench.send(RecoverContainers((B,)))
    bench.expect(ContainersRecovered)
    if hasattr(bench, "until"):
        bench.until(lambda: not bench.port.is_live(A), "the orphan's end")
    bench.restart_agent()
    bench.send(RecoverContainers((A, B)))

    assert [c.container_id for c in bench.expect(ContainersRecovered).containers] == [B]


def test_forgotten_container_is_not_recovered(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, TRUE), make_launch(B, SLEEP))
    bench.expect(ContainerExited, A)
    bench.send(ForgetContainer(A))
    bench.send(KillContainer(B, grace_ms=0))
    bench.expect(ContainerExited, B)
    bench.restart_agent()
    bench.send(RecoverContainers((A, B)))

    assert [c.container_id for c in bench.expect(ContainersRecovered).containers] == [B]


def test_usage_tells_of_running_containers_only(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP), make_launch(B, TRUE))
    bench.expect(ContainerStarted, A)
    bench.expect(ContainerExited, B)
    bench.send(MeasureContainers((A, B), OperationId("m")))

    usage = bench.expect(ContainerUsage)
    assert (usage.operation_id, [u.container_id for u in usage.usages]) == ("m", [A])
    assert usage.usages[0].processes == 1
    assert usage.usages[0].rss_bytes > 0


def test_update_of_a_running_container_is_silent(bench: Bench, make_launch: Launch) -> None:
    bench.send(make_launch(A, SLEEP), make_launch(B, FALSE))
    bench.expect(ContainerStarted, A)
    bench.expect(ContainerExited, B)
    bench.inbox.messages.clear()
    bench.send(
        UpdateContainer(A, Resources.of(cpus=1, mem=64)),
        UpdateContainer(B, Resources.of(cpus=1, mem=64)),
        UpdateContainer(ContainerId("never.000000000003"), Resources.of(cpus=1)),
        KillContainer(A, grace_ms=60_000),
    )

    assert ended(bench, A) == ContainerExited(A, signal=15, killed=True)
    assert all(isinstance(message, ContainerExited) for message in bench.inbox.messages)
