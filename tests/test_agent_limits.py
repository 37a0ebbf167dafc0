"""What an agent does about limits: handed to containers, summed for executors, told truthfully when they end a task."""

from __future__ import annotations

import json

import msgspec
import pytest

from mesos_actor.actors.ids import ContainerId, OperationId
from mesos_actor.actors.messages.clients import Query, QueryResult
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    LaunchContainer,
    MeasureContainers,
    RecoveredContainer,
    UpdateContainer,
    Usage,
)
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import NO_LIMITS, Statistics, Status, TaskLimits
from mesos_actor.actors.task import Reason, TaskState
from tests.test_agent import (
    CPUS,
    EXECUTOR,
    M1,
    SETTINGS,
    Bench,
    command,
    custom,
    news,
    only,
    register_executor,
    registered,
    run,
    with_executor,
)

LIMITS = TaskLimits(cpus_milli=2_000, mem_bytes=1 << 30, pids=9)
USED = Statistics(cpu_time_ms=1_500, memory_peak_bytes=1 << 26, throttled_ms=20, oom_kills=2)
OOM = "memory limit of 64 MiB exceeded, peak 64 MiB, biggest process 'tail' (pid 71) with 63.4 MiB"


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.tell(M1, registered())
    return bench


def last(bench: Bench, message: ContainerExited) -> Status:
    return only(Update, bench.port(message)).status


def started(bench: Bench, *tasks: str) -> list[ContainerId]:
    launched = [m for m in bench.tell(M1, run(*map(command, tasks))) if isinstance(m, LaunchContainer)]
    for one in launched:
        bench.port(ContainerStarted(one.container_id, 7))
    return [one.container_id for one in launched]


def test_limits_go_to_the_container(bench: Bench) -> None:
    assert only(LaunchContainer, bench.tell(M1, run(command("a", limits=LIMITS)))).limits == LIMITS


def test_agent_that_keeps_no_limits_drops_what_has_some() -> None:
    bench = Bench(msgspec.structs.replace(SETTINGS, isolation="process"))
    bench.tell(M1, registered())
    limited = msgspec.structs.replace(custom("b").executor, limits=LIMITS)  # type: ignore[type-var]

    pinned = command("d", limits=TaskLimits(pinned_cpus=1))

    messages = bench.tell(M1, run(command("a", limits=LIMITS), custom("b", executor=limited), command("c"), pinned))

    dropped = [m.status for m in messages if isinstance(m, Update)]
    assert [(s.task_id, s.state, s.reason) for s in dropped] == [
        (name, TaskState.DROPPED, Reason.TASK_INVALID) for name in ("a", "b", "d")
    ]
    assert "--isolation process" in dropped[0].message
    assert only(LaunchContainer, messages).env["MESOS_TASK_ID"] == "c"


def test_what_ran_out_of_memory_is_told_so_with_what_it_used(bench: Bench) -> None:
    (name,) = started(bench, "a")

    status = last(bench, ContainerExited(name, None, 9, text=OOM, limitation="memory", statistics=USED))

    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LIMITATION_MEMORY)
    assert status.message == f"Command terminated with signal SIGKILL: {OOM}"
    assert (status.signal, status.statistics) == (9, USED)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("disk", Reason.CONTAINER_LIMITATION_DISK), ("ports", Reason.CONTAINER_LIMITATION)],
)
def test_other_limits_have_reasons_of_their_own(bench: Bench, kind: str, reason: Reason) -> None:
    (name,) = started(bench, "a")

    assert last(bench, ContainerExited(name, None, 9, text="x", limitation=kind)).reason == reason


def test_whoever_was_to_be_killed_is_killed_whatever_limit_came_first(bench: Bench) -> None:
    (name,) = started(bench, "a")

    status = last(bench, ContainerExited(name, None, 9, killed=True, text=OOM, limitation="memory"))
    assert (status.state, OOM in status.message) == (TaskState.KILLED, True)


def test_whoever_ends_well_has_finished_and_says_what_it_used(bench: Bench) -> None:
    (name,) = started(bench, "a")

    status = last(bench, ContainerExited(name, 0, statistics=USED))
    assert (status.state, status.statistics) == (TaskState.FINISHED, USED)


def test_cause_is_told_after_a_restart_too(bench: Bench) -> None:
    (name,) = started(bench, "a")
    again = bench.restart()
    again.port(
        ContainersRecovered(
            (RecoveredContainer(name, running=False, signal=9, text=OOM, limitation="memory", statistics=USED),)
        )
    )

    status = [m for m in again.tell(M1, registered()) if isinstance(m, Update)][-1].status
    assert (status.reason, status.statistics) == (Reason.CONTAINER_LIMITATION_MEMORY, USED)


def test_executor_that_ran_out_of_memory_ends_its_tasks_with_that_reason(bench: Bench) -> None:
    container = with_executor(bench, custom("a"))

    status = last(bench, ContainerExited(container, None, 9, text=OOM, limitation="memory"))
    assert (status.state, status.reason) == (TaskState.FAILED, Reason.CONTAINER_LIMITATION_MEMORY)
    assert OOM in status.message


def test_executors_container_grows_with_its_tasks_and_shrinks_after_them(bench: Bench) -> None:
    first = bench.tell(M1, run(custom("a", limits=LIMITS)))
    container = only(LaunchContainer, first).container_id
    request = CPUS.millicpus()
    assert only(UpdateContainer, first) == UpdateContainer(container, CPUS, LIMITS)

    grown = only(UpdateContainer, bench.tell(M1, run(custom("b"), custom("c"))))
    assert (grown.resources, grown.limits.cpus_milli) == (CPUS + CPUS + CPUS, 2_000 + 2 * request)

    with_registered = bench.tell(EXECUTOR, register_executor(container), f"executor:{container}")
    assert not [m for m in with_registered if isinstance(m, UpdateContainer)]
    for name in ("a", "b"):
        messages = bench.tell(EXECUTOR, news(name, TaskState.FINISHED, name))
        assert not [m for m in messages if isinstance(m, UpdateContainer)]
    assert bench.fire(f"resize/{container}") == [UpdateContainer(container, CPUS, NO_LIMITS)]


def test_executor_that_got_another_task_meanwhile_is_left_alone(bench: Bench) -> None:
    container = with_executor(bench, custom("a"))
    bench.tell(EXECUTOR, news("a", TaskState.FINISHED, "1"))
    assert not [m for m in bench.tell(M1, run(custom("b"))) if isinstance(m, UpdateContainer)]

    assert bench.fire(f"resize/{container}") == []


def test_restarted_agent_says_the_size_of_its_executors_again(bench: Bench) -> None:
    container = with_executor(bench, custom("a", limits=LIMITS))
    again = bench.restart()

    messages = again.port(ContainersRecovered((RecoveredContainer(container, running=True, pid=5),)))
    assert only(UpdateContainer, messages) == UpdateContainer(container, CPUS, LIMITS)


def test_usage_has_what_the_kernel_counts(bench: Bench) -> None:
    (name,) = started(bench, "a")
    question = only(MeasureContainers, bench.tell(M1, Query(OperationId("q"), "usage")))
    measured = Usage(name, 2, 30, 1 << 20, 5, memory_peak_bytes=1 << 21, throttled_ms=4, cpu_stall_ms=6)

    answer = only(QueryResult, bench.port(ContainerUsage((measured,), question.operation_id)))

    row = json.loads(answer.rows[0])
    assert (row["memory_peak_bytes"], row["throttled_ms"], row["cpu_stall_ms"]) == (1 << 21, 4, 6)
    assert set(msgspec.structs.asdict(measured)) <= {*row, *_zero(measured)}


def _zero(usage: Usage) -> list[str]:
    """Fields that a row leaves out."""
    return [name for name, value in msgspec.structs.asdict(usage).items() if not value]
