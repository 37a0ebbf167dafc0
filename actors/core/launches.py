"""Turns tasks into containers, and what became of containers into what is said about tasks. Pure.

Source of the exit mapping: Mesos src/launcher/executor.cpp `reaped`; of the environment: docs/executor-http-api.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec
from msgspec.structs import replace

from mesos_actor.actors.core import environment
from mesos_actor.actors.ids import Address, AgentId, ContainerId, FrameworkId, id_error
from mesos_actor.actors.messages.containers import ContainerExited, ContainerFailed, LaunchContainer
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Statistics, Task
from mesos_actor.actors.task import Reason, TaskState

CONTAINER_NAME_BYTES = 64
"""As much of a task's or executor's name stands in its container's id, which becomes a directory's name."""

BATCH_TASKS = 100
BATCH_BYTES = 1 << 20
"""One LaunchTasks holds at most this many tasks, and stops growing at this much task data."""

_SIGNALS = {
    1: "SIGHUP",
    2: "SIGINT",
    3: "SIGQUIT",
    4: "SIGILL",
    5: "SIGTRAP",
    6: "SIGABRT",
    7: "SIGBUS",
    8: "SIGFPE",
    9: "SIGKILL",
    10: "SIGUSR1",
    11: "SIGSEGV",
    12: "SIGUSR2",
    13: "SIGPIPE",
    14: "SIGALRM",
    15: "SIGTERM",
    24: "SIGXCPU",
    25: "SIGXFSZ",
    31: "SIGSYS",
}
"""Linux' numbers (signal(7), x86 and ARM), those that end a process by default."""

_PLAIN_ID = re.compile(r"(?!\.)[A-Za-z0-9_.:-]{1,255}").fullmatch
"""What nearly every id looks like, recognised faster than by asking for what may be wrong with it."""

_FAILURES = {
    "fetch": Reason.FETCH_FAILED,
    "full": Reason.STORAGE_FULL,
    "processors": Reason.NO_FREE_PROCESSORS,
    "sandbox": Reason.CONTAINER_LAUNCH_FAILED,
    "spawn": Reason.CONTAINER_LAUNCH_FAILED,
}


_LIMITATIONS = {
    "memory": Reason.CONTAINER_LIMITATION_MEMORY,
    "disk": Reason.CONTAINER_LIMITATION_DISK,
    "update": Reason.CONTAINER_UPDATE_FAILED,
}


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """How a task ended, as its last update will say it."""

    state: TaskState
    reason: Reason
    message: str
    exit_status: int | None = None
    signal: int | None = None
    statistics: Statistics | None = None
    """What its container used in all, where somebody counted."""


def run_id(name: str, bits: int) -> ContainerId:
    """`<name, cut to 64 bytes>.<12 hex digits>` from 48 random bits."""
    short = name[:CONTAINER_NAME_BYTES]
    if not name.isascii():
        short = name.encode("utf-8", "replace")[:CONTAINER_NAME_BYTES].decode("utf-8", "ignore")
    return ContainerId(f"{short}.{bits:012x}")


def task_error(task: Task) -> str | None:
    """Why this task cannot run on any agent, or None. The master has asked more; this is what would hurt here."""
    problem = None if _PLAIN_ID(task.task_id) else id_error(task.task_id)
    if problem is None and (task.command is None) == (task.executor is None):
        problem = "Task should have exactly one of command and executor"
    if problem is None and task.executor is not None:
        problem = id_error(task.executor.executor_id)
    return problem


def as_user(command: Command, framework: FrameworkInfo) -> Command:
    """The command, to be run as its framework's user unless it names one itself."""
    if command.user or not framework.user:
        return command
    return replace(command, user=framework.user)


def command_container(
    framework_id: FrameworkId, task: Task, command: Command, container_id: ContainerId, agent_id: AgentId
) -> LaunchContainer:
    """The container that is a command task."""
    return LaunchContainer(
        container_id,
        framework_id,
        command,
        task.resources,
        {
            environment.TASK_ID: task.task_id,
            environment.FRAMEWORK_ID: framework_id,
            environment.CONTAINER_ID: container_id,
            environment.AGENT_ID: agent_id,
        },
        limits=task.limits,
    )


def executor_container(
    framework_id: FrameworkId,
    info: ExecutorInfo,
    command: Command,
    container_id: ContainerId,
    agent_id: AgentId,
    agent: Address,
) -> LaunchContainer:
    """The container of a custom executor, which finds its agent's mailbox at `agent`. Its tasks are not in it yet: it
    grows for these (core/task_limits.py, `Total`)."""
    return LaunchContainer(
        container_id,
        framework_id,
        command,
        info.resources,
        {
            environment.AGENT_ADDRESS: agent,
            environment.FRAMEWORK_ID: framework_id,
            environment.EXECUTOR_ID: info.executor_id,
            environment.CONTAINER_ID: container_id,
            environment.AGENT_ID: agent_id,
        },
        executor=True,
        limits=info.limits,
    )


def batches(tasks: Iterable[Task]) -> Iterator[tuple[Task, ...]]:
    """The tasks in order, cut so that no message grows past its bounds by more than one task."""
    batch: list[Task] = []
    size = 0
    for task in tasks:
        batch.append(task)
        size += len(task.data)
        if len(batch) >= BATCH_TASKS or size >= BATCH_BYTES:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def exit_text(exited: ContainerExited) -> str:
    """How the command's own process ended, in Mesos' words."""
    if exited.signal is not None:
        text = f"Command terminated with signal {_SIGNALS.get(exited.signal, exited.signal)}"
    elif exited.exit_status is not None:
        text = f"Command exited with status {exited.exit_status}"
    else:
        return f"The exit status of the command is unknown: {exited.text or 'no record of it is left'}"
    return f"{text}: {exited.text}" if exited.text else text


def exit_outcome(exited: ContainerExited, killed: bool, started: bool, overdue: bool) -> Outcome:
    """How a command task ended. `killed`: on request, then `started` says whether it was ever seen running;
    `overdue`: its `max_completion_ms` had passed when it was killed."""
    text = exit_text(exited)
    if exited.exit_status == 0:
        return Outcome(TaskState.FINISHED, Reason.NONE, text, 0, statistics=exited.statistics)
    if exited.limitation and not killed:
        reason = limitation_reason(exited.limitation)
        state = TaskState.FAILED
    elif overdue:
        reason = Reason.MAX_COMPLETION_TIME_REACHED
        state = TaskState.FAILED
        text = f"{text} after its time limit had passed"
    elif killed:
        reason = Reason.NONE if started else Reason.TASK_KILLED_DURING_LAUNCH
        state = TaskState.KILLED
    elif exited.exit_status is None and exited.signal is None:
        reason = Reason.EXIT_STATUS_UNKNOWN
        state = TaskState.FAILED
    else:
        reason = Reason.COMMAND_FAILED
        state = TaskState.FAILED
    return Outcome(state, reason, text, exited.exit_status, exited.signal, exited.statistics)


def limitation_reason(kind: str) -> Reason:
    """The reason for the end of a container that went past a limit. (Mesos: ContainerLimitation.reason)"""
    return _LIMITATIONS.get(kind, Reason.CONTAINER_LIMITATION)


def failure_outcome(failed: ContainerFailed, killed: bool) -> Outcome:
    """How a task ended whose container never ran."""
    if killed:
        return Outcome(TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, failed.text)
    reason = _FAILURES.get(failed.reason, Reason.CONTAINER_LAUNCH_FAILED)
    return Outcome(TaskState.FAILED, reason, failed.text)


def absent_outcome(started: bool) -> Outcome:
    """How a task ended of whose container nothing is known after the agent's restart."""
    if started:
        return Outcome(
            TaskState.FAILED, Reason.EXIT_STATUS_UNKNOWN, "The agent was restarted and no record of the command is left"
        )
    return Outcome(TaskState.DROPPED, Reason.AGENT_RESTARTED, "The agent was restarted before the task was started")
