"""Between a custom executor and its agent. (Mesos: executor.proto; docs/executor-http-api.md)"""

from __future__ import annotations

from mesos_actor.actors.ids import AgentId, ContainerId, ExecutorId, FrameworkId, TaskId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.values import ExecutorInfo, FrameworkInfo, Status, Task


class RegisterExecutor(Message, frozen=True):
    """I am here. After an agent's restart: with what I run and what was never acknowledged."""

    framework_id: FrameworkId
    executor_id: ExecutorId
    container_id: ContainerId
    unacknowledged_tasks: tuple[TaskId, ...] = ()
    unacknowledged_updates: tuple[Status, ...] = ()


class ExecutorRegistered(Message, frozen=True):
    """You take part."""

    agent_id: AgentId
    executor: ExecutorInfo
    framework: FrameworkInfo


class LaunchTasks(Message, frozen=True):
    """Run these tasks."""

    tasks: tuple[Task, ...]


class ReconcileExecutor(Message, frozen=True):
    """Something given to you may have been lost: register once more, with what you have."""


class KillExecutorTask(Message, frozen=True):
    """End this task. Repeated until it has ended; a repeat may only shorten the grace."""

    task_id: TaskId
    grace_ms: int


class ExecutorUpdate(Message, frozen=True):
    """News of a task. `status.update_id` is the executor's own name for it; repeated until the agent answers."""

    framework_id: FrameworkId
    executor_id: ExecutorId
    status: Status


class ExecutorAcknowledged(Message, frozen=True):
    """The agent has kept this update."""

    task_id: TaskId
    update_id: str


class ShutdownYourself(Message, frozen=True):
    """End your tasks and exit within this time; then the container is killed."""

    grace_ms: int
