"""The life of a task as a table.

Rule 1: what state may follow which stands in `TRANSITIONS`, and nowhere else. Rule 2: the table does not know who asks;
master, agent, framework and simulator judge by the same one. Source: Mesos include/mesos/mesos.proto `TaskState`,
src/master/master.cpp `updateTask` (the first terminal state wins), partition-aware states only.
"""

from __future__ import annotations

import enum


class TaskState(enum.StrEnum):
    """States of a task; the names are Mesos' without `TASK_`. No LOST: every framework is partition-aware."""

    STAGING = "STAGING"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    KILLING = "KILLING"
    FINISHED = "FINISHED"
    FAILED = "FAILED"
    KILLED = "KILLED"
    ERROR = "ERROR"
    DROPPED = "DROPPED"
    GONE = "GONE"
    GONE_BY_OPERATOR = "GONE_BY_OPERATOR"
    UNREACHABLE = "UNREACHABLE"
    UNKNOWN = "UNKNOWN"


class Source(enum.StrEnum):
    """Who made a status update."""

    MASTER = "MASTER"
    AGENT = "AGENT"
    EXECUTOR = "EXECUTOR"


class Reason(enum.StrEnum):
    """Why a task is in its state: machine-readable, Mesos' names without their `REASON_`."""

    NONE = ""
    AGENT_DISCONNECTED = "AGENT_DISCONNECTED"
    AGENT_FULL = "AGENT_FULL"
    AGENT_REMOVED = "AGENT_REMOVED"
    AGENT_REMOVED_BY_OPERATOR = "AGENT_REMOVED_BY_OPERATOR"
    AGENT_REREGISTERED = "AGENT_REREGISTERED"
    AGENT_RESTARTED = "AGENT_RESTARTED"
    AGENT_STALE_TERM = "AGENT_STALE_TERM"
    COMMAND_FAILED = "COMMAND_FAILED"
    CONTAINER_LAUNCH_FAILED = "CONTAINER_LAUNCH_FAILED"
    CONTAINER_LIMITATION = "CONTAINER_LIMITATION"
    CONTAINER_LIMITATION_DISK = "CONTAINER_LIMITATION_DISK"
    CONTAINER_LIMITATION_MEMORY = "CONTAINER_LIMITATION_MEMORY"
    CONTAINER_UPDATE_FAILED = "CONTAINER_UPDATE_FAILED"
    EXECUTOR_REGISTRATION_TIMEOUT = "EXECUTOR_REGISTRATION_TIMEOUT"
    EXECUTOR_REREGISTRATION_TIMEOUT = "EXECUTOR_REREGISTRATION_TIMEOUT"
    EXECUTOR_TERMINATED = "EXECUTOR_TERMINATED"
    EXIT_STATUS_UNKNOWN = "EXIT_STATUS_UNKNOWN"
    FETCH_FAILED = "FETCH_FAILED"
    FRAMEWORK_REMOVED = "FRAMEWORK_REMOVED"
    GC_ERROR = "GC_ERROR"
    INVALID_OFFERS = "INVALID_OFFERS"
    MAX_COMPLETION_TIME_REACHED = "MAX_COMPLETION_TIME_REACHED"
    NO_FREE_PROCESSORS = "NO_FREE_PROCESSORS"
    RECONCILIATION = "RECONCILIATION"
    RESOURCES_UNKNOWN = "RESOURCES_UNKNOWN"
    STORAGE_FULL = "STORAGE_FULL"
    TASK_INVALID = "TASK_INVALID"
    TASK_KILLED_DURING_LAUNCH = "TASK_KILLED_DURING_LAUNCH"
    TASK_UNAUTHORIZED = "TASK_UNAUTHORIZED"


TERMINAL: frozenset[TaskState] = frozenset(
    {
        TaskState.FINISHED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.ERROR,
        TaskState.DROPPED,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
    }
)
"""A task in one of these holds no resources and never changes again."""

_LIVE = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING)
_ENDS = frozenset({TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED, TaskState.GONE, TaskState.GONE_BY_OPERATOR})

TRANSITIONS: dict[TaskState, frozenset[TaskState]] = {
    TaskState.STAGING: _ENDS
    | {
        TaskState.STAGING,
        TaskState.STARTING,
        TaskState.RUNNING,
        TaskState.KILLING,
        TaskState.ERROR,
        TaskState.DROPPED,
        TaskState.UNREACHABLE,
    },
    TaskState.STARTING: _ENDS
    | {TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.DROPPED, TaskState.UNREACHABLE},
    TaskState.RUNNING: _ENDS | {TaskState.RUNNING, TaskState.KILLING, TaskState.DROPPED, TaskState.UNREACHABLE},
    TaskState.KILLING: _ENDS | {TaskState.KILLING, TaskState.DROPPED, TaskState.UNREACHABLE},
    # The agent came back: the task is what the agent says it is.
    TaskState.UNREACHABLE: _ENDS | {*_LIVE, TaskState.DROPPED, TaskState.UNREACHABLE},
    # A reply to a reconciliation only; nothing is kept about such a task.
    TaskState.UNKNOWN: frozenset(),
    **{state: frozenset() for state in TERMINAL},
}
"""What may follow each state. A repeated live state is legal: it carries new data (health, progress)."""


def may_follow(before: TaskState, after: TaskState) -> bool:
    """Whether a task in `before` may move to `after`."""
    return after in TRANSITIONS[before]


def is_terminal(state: TaskState) -> bool:
    return state in TERMINAL


def must_be_killed(state: TaskState) -> bool:
    """Whether a task in this state, unwanted by its framework, is to be killed now: it may live, and whoever is asked
    can do something about it. (A kill of one that is unreachable is answered by UNREACHABLE, and would be repeated at
    once for ever; it is killed when it comes back.)"""
    return state not in TERMINAL and state not in (TaskState.UNREACHABLE, TaskState.UNKNOWN, TaskState.KILLING)
