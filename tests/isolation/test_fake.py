"""The simulated containerizer does what its plan says, in virtual time."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, OperationId, Principal
from mesos_actor.actors.messages.containers import (
    CollectGarbage,
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    FileData,
    GarbageCollected,
    KillContainer,
    LaunchContainer,
    ReadFile,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command, TaskLimits
from mesos_actor.isolation.fake import Fate

if TYPE_CHECKING:
    FakeBench = Any

A = ContainerId("a.000000000001")
Launch = Callable[..., LaunchContainer]


def test_sleep_takes_virtual_time(fake: FakeBench, make_launch: Launch) -> None:
    fake.send(make_launch(A, Command(("sleep", "3600"))))
    fake.advance(3_599_000_000)
    assert fake.inbox.take(ContainerExited, A) is None
    fake.advance(2_000_000)

    assert fake.inbox.take(ContainerExited, A) == ContainerExited(A, exit_status=0)


@pytest.mark.parametrize(
    ("fate", "expected"),
    [
        (Fate.OOM, ContainerExited(A, signal=9, text="out of memory", limitation="memory")),
        (Fate.UNKNOWN_EXIT, ContainerExited(A, text="the launcher that watched it died; exit status cannot be known")),
        (Fate.LOST_EXIT, ContainerExited(A, exit_status=0)),
    ],
)
def test_fates(fake_bench: Callable[..., Any], make_launch: Launch, fate: Fate, expected: ContainerExited) -> None:
    fake = fake_bench(fates={0: fate})
    fake.send(RecoverContainers(()), make_launch(A, Command(("sleep", "1"))))

    assert fake.expect(ContainerExited, A) == expected


def test_processors_are_pinned_while_some_are_left(fake_bench: Callable[..., Any], make_launch: Launch) -> None:
    """As the linux containerizer: one of them is left for whoever pins none."""
    fake = fake_bench(processors=2)
    sleep, pin = Command(("sleep", "100")), TaskLimits(pinned_cpus=1)
    fake.send(make_launch(A, sleep, limits=pin), make_launch("b.0", sleep))
    fake.expect(ContainerStarted, A)
    fake.expect(ContainerStarted, "b.0")
    fake.send(make_launch("c.0", sleep, limits=pin))

    assert fake.expect(ContainerFailed, "c.0").reason == "processors"
    fake.send(KillContainer(A, 0))
    fake.expect(ContainerExited, A)
    fake.send(make_launch("d.0", sleep, limits=pin))
    fake.expect(ContainerStarted, "d.0")


def test_failed_by_the_plan(fake_bench: Callable[..., Any], make_launch: Launch) -> None:
    fake = fake_bench(fates={1: Fate.FAIL})
    fake.send(make_launch(A, Command(("true",))), make_launch("b.0", Command(("true",))))

    assert fake.expect(ContainerFailed).container_id == "b.0"
    assert fake.expect(ContainerExited, A).exit_status == 0


def test_lost_exit_is_told_by_the_repetition_only(fake_bench: Callable[..., Any], make_launch: Launch) -> None:
    fake = fake_bench(fates={0: Fate.LOST_EXIT})
    fake.send(make_launch(A, Command(("true",))))
    fake.advance(5_000_000)
    assert fake.inbox.take(ContainerExited, A) is None
    fake.advance(6_000_000)

    assert fake.inbox.take(ContainerExited, A) == ContainerExited(A, exit_status=0)


def test_one_that_ended_while_the_agent_was_down_has_its_status(fake: FakeBench, make_launch: Launch) -> None:
    fake.send(make_launch(A, Command(("sleep", "10"))))
    fake.expect(ContainerStarted, A)
    fake._heap.clear()
    fake.advance(20_000_000)
    fake.restart_agent()
    fake.send(RecoverContainers((A,)))

    (recovered,) = fake.expect(ContainersRecovered).containers
    assert (recovered.running, recovered.exit_status) == (False, 0)


def test_files_can_be_read_until_they_are_collected(fake: FakeBench, make_launch: Launch) -> None:
    fake.send(make_launch(A, Command(("echo", "some", "words"))))
    fake.expect(ContainerExited, A)

    def ask(message: Any) -> None:
        fake.files.on_message(Address("/agent"), "", Principal("local"), message)

    read = ReadFile(A, FrameworkId("c1-0001"), "stdout", -6, 100, OperationId("r"))
    ask(read)
    assert fake.expect(FileData) == FileData(OperationId("r"), 5, 11, b"words\n")
    fake.advance(60_000_000)
    ask(CollectGarbage(30_000))
    assert fake.expect(GarbageCollected) == GarbageCollected((A,), 1_000)
    ask(read)
    assert "No such file" in fake.expect(FileData).error
