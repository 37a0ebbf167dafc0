"""Between an agent and the master. (Mesos: src/messages/messages.proto)"""

from __future__ import annotations

from mesos_actor.actors.ids import AgentId, ClusterId, ExecutorId, FrameworkId, Role, TaskId, Term, UpdateId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.values import AgentInfo, ExecutorReport, FrameworkInfo, Task, TaskReport

# -- agent to master ------------------------------------------------------------------------------------------------


class RegisterAgent(Message, frozen=True):
    """Let me offer my resources. Without an id: as a new agent; with one: as the one I was, with all that I run."""

    info: AgentInfo
    registration: str
    """A random name of this agent's work directory, made once and kept: a repeat is recognised, a clash refused."""
    agent_id: AgentId = AgentId("")
    cluster_id: ClusterId = ClusterId("")
    """The cluster this agent belongs to since its first registration; another cluster's master refuses it."""
    tasks: tuple[TaskReport, ...] = ()
    executors: tuple[ExecutorReport, ...] = ()
    frameworks: tuple[tuple[FrameworkId, FrameworkInfo], ...] = ()
    attempt: int = 0
    """A random number, another one each time. The answer repeats it."""
    term: Term = Term(0)
    """Of the leader that it is meant for, as far as this agent knows. The leader of another one refuses it: on its way
    for long, it may tell of what was before the agent took part in a term between."""


class Pong(Message, frozen=True):
    """I live. Answer to a Ping."""

    agent_id: AgentId
    frameworks: tuple[FrameworkId, ...] = ()
    """Whose tasks and executors I have, so that the end of a framework is heard of here even if it was told in vain."""


class LeaveAgent(Message, frozen=True):
    """I stop for good and have ended my tasks: remove me without waiting for missed pings."""

    agent_id: AgentId


# -- master to agent ------------------------------------------------------------------------------------------------


class Registered(Message, frozen=True):
    """You take part under this id. If no Ping comes for `ping_timeout_ms`, look for the leader again."""

    agent_id: AgentId
    cluster_id: ClusterId
    term: Term
    ping_timeout_ms: int
    missing_tasks: tuple[tuple[FrameworkId, TaskId], ...] = ()
    """Tasks the master thinks you have but you did not name: if you lack them, say so with a reliable DROPPED."""
    attempt: int = 0
    """That of the RegisterAgent which this answers: what it said of you is what the master believes."""


class Ping(Message, frozen=True):
    """Do you live? `connected` False: you are not registered with me, register again."""

    term: Term
    connected: bool = True


class RunTasks(Message, frozen=True):
    """Launch these tasks of one framework. Acted on only if `term` is not older than one seen before."""

    term: Term
    framework_id: FrameworkId
    framework: FrameworkInfo
    role: Role
    tasks: tuple[Task, ...]


class ReconcileTasks(Message, frozen=True):
    """Do you have these, of which nothing was heard? Of a task you lack, say so with a reliable DROPPED; of an
    executor, with ExecutorLost. What you have needs no answer: its news is repeated until acknowledged."""

    term: Term
    tasks: tuple[tuple[FrameworkId, TaskId], ...] = ()
    executors: tuple[tuple[FrameworkId, ExecutorId], ...] = ()


class KillTask(Message, frozen=True):
    """End this task. `grace_ms` < 0: the task's own."""

    term: Term
    framework_id: FrameworkId
    task_id: TaskId
    grace_ms: int = -1


class AcknowledgeUpdate(Message, frozen=True):
    """The framework has taken note of this update."""

    framework_id: FrameworkId
    task_id: TaskId
    update_id: UpdateId


class ShutdownFramework(Message, frozen=True):
    """The framework is removed: end all it runs here."""

    term: Term
    framework_id: FrameworkId


class ShutdownExecutor(Message, frozen=True):
    """End one custom executor of a framework."""

    term: Term
    framework_id: FrameworkId
    executor_id: ExecutorId


class ShutdownAgent(Message, frozen=True):
    """You may not take part (marked gone, another cluster's, same directory twice): end, with this text in the log."""

    text: str
    end_tasks: bool = False
    """Everybody was told that your tasks are gone: end them all before you end."""
