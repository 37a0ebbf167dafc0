"""What agents, frameworks and executors keep on their own disks. The registry's records stand in `registry.py`."""

from __future__ import annotations

from mesos_actor.actors.ids import AgentId, ClusterId, ContainerId, FrameworkId, OperationId, Role, TaskId, Term
from mesos_actor.actors.messages.base import Record
from mesos_actor.actors.messages.values import ExecutorInfo, FrameworkInfo, Status, Task
from mesos_actor.actors.task import TaskState


class SubscriptionRecord(Record, frozen=True):
    """A framework's own key `subscription`: the id under which it may come back; empty before the first answer."""

    framework_id: FrameworkId
    operation_id: OperationId = OperationId("")
    """The name of its first Subscribe, kept before that is sent: a repeat after a crash makes no second framework."""
    ending: bool = False
    """It has asked to be torn down; whoever starts it again sees that through."""
    outcome: str = ""
    """How it said it ended."""
    incarnation: int = 0
    """How many processes it has had: what an earlier one sent and that comes late is not taken for news."""


class UserRecord(Record, frozen=True):
    """A framework's key `user/<key>`: what its author asked to have kept, opaque to us."""

    data: bytes


class AgentIdentityRecord(Record, frozen=True):
    """An agent's key `identity`: who it is in which cluster, and the newest term it has obeyed."""

    registration: str
    """Minted once for this work directory, before the first RegisterAgent."""
    agent_id: AgentId = AgentId("")
    cluster_id: ClusterId = ClusterId("")
    term: Term = Term(0)


class AgentFrameworkRecord(Record, frozen=True):
    """An agent's key `framework/<framework>`: a framework that has tasks or executors here."""

    framework_id: FrameworkId
    info: FrameworkInfo


class TaskRecord(Record, frozen=True):
    """An agent's key `task/<framework>/<task>`: a task that was accepted; kept until its end is acknowledged."""

    framework_id: FrameworkId
    role: Role
    task: Task
    run_id: ContainerId
    """Minted for this launch of the task: its container's id, or, under an executor, a name in the same form."""
    container_id: ContainerId
    """Where it runs: its own container, or its executor's."""


class ExecutorRecord(Record, frozen=True):
    """An agent's key `executor/<framework>/<executor>`: a custom executor whose container was asked for."""

    framework_id: FrameworkId
    role: Role
    executor: ExecutorInfo
    container_id: ContainerId


class StreamRecord(Record, frozen=True):
    """An agent's key `stream/<framework>/<task>`: the state of a task and the updates nobody has acknowledged yet."""

    framework_id: FrameworkId
    task_id: TaskId
    run_id: ContainerId
    state: TaskState
    next_number: int
    """The number in the next update's id."""
    running_since_us: int = 0
    pending: tuple[Status, ...] = ()
    """Oldest first."""
    received: tuple[str, ...] = ()
    """The executor's own names of its newest updates, to recognise a repeat."""
