"""What a master believes of an agent without having heard of it: perhaps it was lost on the way, so it is asked about.

Messages may be lost while a link stands, and then nobody is told. An agent repeats what nobody acknowledged; this is
the other half: what never reached it, it cannot repeat. (Mesos relies on TCP and on re-registration for this.)
"""

from __future__ import annotations

from mesos_actor.actors.core.entries import AgentEntry
from mesos_actor.actors.ids import ExecutorId, FrameworkId, TaskId
from mesos_actor.actors.task import TERMINAL, TaskState

STAGING_DOUBT_US = 10_000_000
"""A task that was launched this long ago and of which nothing was heard is asked about."""
MAX_DOUBTS = 1_000
"""Tasks, executors and kills of one agent that are brought up at one ping, each; the others have their turn later."""


def doubtful_tasks(agent: AgentEntry, now_us: int) -> list[tuple[FrameworkId, TaskId]]:
    """The tasks of which the agent has said nothing for too long, those never asked about first."""
    since_us = now_us - STAGING_DOUBT_US
    found = [
        task
        for task in agent.tasks
        if task.state is TaskState.STAGING and max(task.history[-1][0], task.asked_us) <= since_us
    ]
    found.sort(key=lambda task: task.asked_us)
    for task in found[:MAX_DOUBTS]:
        task.asked_us = now_us
    return [(task.framework_id, task.task_id) for task in found[:MAX_DOUBTS]]


def idle_executors(agent: AgentEntry) -> list[tuple[FrameworkId, ExecutorId]]:
    """The executors without a task: one that has ended holds its resources until that is heard of."""
    if not agent.executors:
        return []
    busy = {(task.framework_id, task.executor_id) for task in agent.tasks if task.state not in TERMINAL}
    idle = [(f, e) for f, executors in agent.executors.items() for e in executors if (f, e) not in busy]
    return idle[:MAX_DOUBTS]


def due_kills(agent: AgentEntry) -> list[tuple[FrameworkId, TaskId, int]]:
    """The kills to repeat at this ping: of tasks that have not ended, with their grace."""
    due = [(framework, task, grace_ms) for (framework, task), grace_ms in list(agent.kills.items())[:MAX_DOUBTS]]
    for framework, task, grace_ms in due if len(due) < len(agent.kills) else ():
        del agent.kills[framework, task]  # to the end, so that the others have their turn
        agent.kills[framework, task] = grace_ms
    return due
