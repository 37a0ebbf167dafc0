"""What the master keeps of each task, executor, agent and framework. `Roster` alone changes these.

Source: Mesos src/master/master.hpp `struct Slave`, `struct Framework`.
"""

from __future__ import annotations

from collections import deque

from mesos_actor.actors.ids import Address, AgentId, ContainerId, ExecutorId, FrameworkId, Role, TaskId, UpdateId
from mesos_actor.actors.messages.registry import AgentRecord, FrameworkRecord
from mesos_actor.actors.messages.values import AgentInfo, ExecutorInfo, FrameworkInfo, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

MAX_HISTORY = 20
"""Changes remembered for a task: the first and the newest ones."""
MAX_REFUSALS = 100
MAX_DECLINES = 1_000
"""Agents of which it is kept why a framework declined them; the one longest ago is forgotten."""
MAX_WHY = 200
"""Characters of such a reason."""
"""Refused launches remembered for a framework; the oldest is forgotten."""
MAX_TEXT = 500
"""Characters of a message kept in histories."""


class TaskEntry:
    """A task as the master knows it. It changes by `Roster` only."""

    __slots__ = (
        "acknowledged",
        "agent_id",
        "asked_us",
        "container_id",
        "executor_id",
        "forwarded",
        "framework_id",
        "held",
        "history",
        "labels",
        "name",
        "number",
        "resources",
        "role",
        "state",
        "task_id",
        "waiting",
    )

    def __init__(
        self,
        number: int,
        framework_id: FrameworkId,
        task_id: TaskId,
        agent_id: AgentId,
        role: Role,
        resources: Resources,
        executor_id: ExecutorId,
        name: str,
        labels: dict[str, str],
        now_us: int,
        state: TaskState = TaskState.STAGING,
    ) -> None:
        self.number = number
        self.framework_id = framework_id
        self.task_id = task_id
        self.agent_id = agent_id
        self.role = role
        self.resources = resources
        self.executor_id = executor_id
        self.container_id = ContainerId("")
        self.name = name
        self.labels = labels
        #: the newest state known
        self.state = state
        #: the state the framework was last told
        self.forwarded = state
        #: reliable updates that the framework has not acknowledged yet, oldest first
        self.waiting: list[Status] = []
        #: the newest of those that it has
        self.acknowledged = UpdateId("")
        #: whether its resources are counted in its agent's `used`
        self.held = False
        #: when its agent was last asked whether it has it
        self.asked_us = 0
        #: (when, state, reason, message), oldest first
        self.history: list[tuple[int, str, str, str]] = [(now_us, state, "", "")]

    def note(self, now_us: int, state: TaskState, reason: str, message: str) -> None:
        """Remember a change."""
        if len(self.history) >= MAX_HISTORY:
            del self.history[MAX_HISTORY // 2]
        self.history.append((now_us, state, reason, message[:MAX_TEXT] if message else message))


class ExecutorEntry:
    """A custom executor that runs, or is about to, on one agent."""

    __slots__ = ("container_id", "held", "info", "role", "seen")

    def __init__(self, info: ExecutorInfo, role: Role, container_id: ContainerId = ContainerId("")) -> None:  # noqa: B008
        self.info = info
        self.role = role
        self.container_id = container_id
        self.held = False
        #: whether its agent has told of it, or of a task under it
        self.seen = False


class AgentEntry:
    """An admitted agent. `registered`: it has said what it runs since we lead. `connected`: it can be reached."""

    __slots__ = (
        "address",
        "agent_id",
        "challenge",
        "connected",
        "executors",
        "info",
        "kills",
        "number",
        "registered",
        "registration",
        "tasks",
        "used",
    )

    def __init__(self, number: int, record: AgentRecord) -> None:
        self.number = number
        self.agent_id = record.agent_id
        self.info: AgentInfo = record.info
        self.registration = record.registration
        self.address = Address("")
        self.registered = False
        self.connected = False
        self.tasks: dict[TaskEntry, None] = {}
        self.executors: dict[FrameworkId, dict[ExecutorId, ExecutorEntry]] = {}
        #: (framework, role) -> what its tasks and executors hold here
        self.used: dict[tuple[FrameworkId, Role], Resources] = {}
        #: (framework, task) -> grace: kills to repeat when it registers again
        self.kills: dict[tuple[FrameworkId, TaskId], int] = {}
        #: somebody else came with our registration: (who, since, whether we have answered a ping since)
        self.challenge: tuple[Address, int, bool] | None = None


class FrameworkEntry:
    """A framework that takes part, connected or not."""

    __slots__ = (
        "address",
        "completed",
        "connected",
        "deadline_us",
        "declines",
        "framework_id",
        "incarnation",
        "info",
        "number",
        "recorded_deadline_us",
        "refusals",
        "suppressed",
        "tasks",
        "unreachable",
    )

    def __init__(self, number: int, record: FrameworkRecord, max_completed: int) -> None:
        self.number = number
        self.framework_id = record.framework_id
        self.info: FrameworkInfo = record.info
        self.address = Address("")
        self.connected = False
        #: removed when the clock passes this and it is not connected
        self.deadline_us = record.deadline_us
        #: what the registry says
        self.recorded_deadline_us = record.deadline_us
        #: the newest process that subscribed, by its own count
        self.incarnation = 0
        self.suppressed: tuple[Role, ...] = ()
        self.tasks: dict[TaskId, TaskEntry] = {}
        self.unreachable: dict[TaskId, TaskEntry] = {}
        self.completed: deque[TaskEntry] = deque(maxlen=max_completed)
        #: (when, agent, task, text) of launches that were refused
        self.refusals: deque[tuple[int, AgentId, TaskId, str]] = deque(maxlen=MAX_REFUSALS)
        #: why it declined what was last offered of an agent, where it said so
        self.declines: dict[AgentId, str] = {}

    def declined(self, agent_id: AgentId, why: str) -> None:
        """Keep why, or that no reason was given."""
        self.declines.pop(agent_id, None)
        if why:
            self.declines[agent_id] = why[:MAX_WHY]
            if len(self.declines) > MAX_DECLINES:
                del self.declines[next(iter(self.declines))]
