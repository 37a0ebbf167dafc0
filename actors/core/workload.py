"""What runs on one agent: frameworks, their tasks and custom executors, found by their ids and by their containers.

Plain bookkeeping: it decides nothing and asks for nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from mesos_actor.actors.core.launches import Outcome
from mesos_actor.actors.core.task_limits import Total
from mesos_actor.actors.core.updates import Stream
from mesos_actor.actors.ids import Address, ContainerId, ExecutorId, FrameworkId, Role, TaskId, UpdateId
from mesos_actor.actors.messages.records import AgentFrameworkRecord, ExecutorRecord, TaskRecord
from mesos_actor.actors.messages.values import ExecutorInfo, ExecutorReport, FrameworkInfo, Task, TaskLimits, TaskReport
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

MAX_TOLD = 1_000
"""Frameworks named to the master at each ping."""


class Run:
    """One launch of one task, from RunTasks to the acknowledgement of its end. Its state is its stream's."""

    __slots__ = ("container_id", "executor", "framework_id", "kill_grace_ms", "overdue", "role", "stream", "task")

    def __init__(
        self, framework_id: FrameworkId, role: Role, task: Task, container_id: ContainerId, stream: Stream
    ) -> None:
        self.framework_id = framework_id
        self.role = role
        self.task = task
        self.container_id = container_id
        self.stream = stream
        self.executor: Executor | None = None
        #: The grace of the newest request to end it; None: nobody asked.
        self.kill_grace_ms: int | None = None
        #: Its `max_completion_ms` has passed.
        self.overdue = False

    @property
    def record_key(self) -> str:
        return f"task/{self.framework_id}/{self.task.task_id}"

    def record(self) -> TaskRecord:
        return TaskRecord(self.framework_id, self.role, self.task, self.stream.run_id, self.container_id)

    def report(self) -> TaskReport:
        stream = self.stream
        return TaskReport(
            self.framework_id,
            self.task.task_id,
            self.task.resources,
            self.role,
            stream.state,
            self.executor_id,
            self.container_id,
            self.task.name,
            self.task.labels,
            stream.pending[-1].update_id if stream.pending else UpdateId(""),
        )

    @property
    def executor_id(self) -> ExecutorId:
        return self.task.executor.executor_id if self.task.executor is not None else ExecutorId("")


class Executor:
    """One custom executor, from the request for its container to the news of its end."""

    __slots__ = (
        "address",
        "container_id",
        "ending",
        "framework_id",
        "in_doubt",
        "info",
        "registered",
        "role",
        "runs",
        "shrinking",
        "size_told",
        "stopping",
        "total",
    )

    def __init__(self, framework_id: FrameworkId, role: Role, info: ExecutorInfo, container_id: ContainerId) -> None:
        self.framework_id = framework_id
        self.role = role
        self.info = info
        self.container_id = container_id
        #: Where it can be reached; empty before it has registered and while its link is lost.
        self.address = Address("")
        #: It has registered once, perhaps with a former incarnation of the agent.
        self.registered = False
        self.stopping = False
        #: Whether it will be asked what it has, if nothing is heard of something sent to it.
        self.in_doubt = False
        #: What its tasks will be told when its container is gone, if not simply that.
        self.ending: Outcome | None = None
        #: What it and its tasks have together.
        self.total = Total(info.resources, info.limits)
        #: Whether it will be told to shrink, if it has lost a task for good.
        self.shrinking = False
        #: What its container was given last; None: not known since the agent's start.
        self.size_told: tuple[Resources, TaskLimits] | None = None
        #: Its tasks that have not ended; changed by `take` and `let_go` alone.
        self.runs: dict[TaskId, Run] = {}

    def take(self, run: Run) -> None:
        """It runs one more task."""
        self.runs[run.task.task_id] = run
        self.total.add(run.task.resources, run.task.limits)

    def let_go(self, task_id: TaskId) -> None:
        """A task of it has ended."""
        run = self.runs.pop(task_id, None)
        if run is not None:
            self.total.add(run.task.resources, run.task.limits, -1)

    @property
    def record_key(self) -> str:
        return f"executor/{self.framework_id}/{self.info.executor_id}"

    def record(self) -> ExecutorRecord:
        return ExecutorRecord(self.framework_id, self.role, self.info, self.container_id)

    def report(self) -> ExecutorReport:
        return ExecutorReport(self.framework_id, self.info, self.role, self.container_id)


class HostedFramework:
    """A framework that has something here. `leaving`: it was removed, and its containers are being ended."""

    __slots__ = ("executors", "framework_id", "info", "leaving", "runs")

    def __init__(self, framework_id: FrameworkId, info: FrameworkInfo) -> None:
        self.framework_id = framework_id
        self.info = info
        self.leaving = False
        self.runs: dict[TaskId, Run] = {}
        self.executors: dict[ExecutorId, Executor] = {}

    @property
    def record_key(self) -> str:
        return f"framework/{self.framework_id}"

    def record(self) -> AgentFrameworkRecord:
        return AgentFrameworkRecord(self.framework_id, self.info)

    @property
    def empty(self) -> bool:
        return not self.runs and not self.executors


class Completed:
    """A task that ended here and whose end was acknowledged: remembered for whoever looks for its sandbox."""

    __slots__ = ("container_id", "framework_id", "name", "state", "task_id")

    def __init__(self, run: Run) -> None:
        self.framework_id = run.framework_id
        self.task_id = run.task.task_id
        self.name = run.task.name
        self.state: TaskState = run.stream.state
        self.container_id = run.container_id


class Workload:
    """All of it. `containers` holds those whose end is not known yet: command tasks and executors."""

    def __init__(self, max_completed_tasks: int) -> None:
        self.frameworks: dict[FrameworkId, HostedFramework] = {}
        self.containers: dict[ContainerId, Run | Executor] = {}
        #: Runs whose `max_completion_ms` is being counted, by run id.
        self.limited: dict[ContainerId, Run] = {}
        self.run_count = 0
        self.executor_count = 0
        self.completed: deque[Completed] = deque(maxlen=max_completed_tasks)

    def run(self, framework_id: FrameworkId, task_id: TaskId) -> Run | None:
        framework = self.frameworks.get(framework_id)
        return framework.runs.get(task_id) if framework is not None else None

    def executor(self, framework_id: FrameworkId, executor_id: ExecutorId) -> Executor | None:
        framework = self.frameworks.get(framework_id)
        return framework.executors.get(executor_id) if framework is not None else None

    def serving(self) -> tuple[FrameworkId, ...]:
        """The frameworks that have something here and are not leaving; a thousand at most."""
        mine = (name for name, framework in self.frameworks.items() if not framework.leaving)
        return tuple(islice(mine, MAX_TOLD))

    def runs(self) -> Iterator[Run]:
        for framework in self.frameworks.values():
            yield from framework.runs.values()

    def executors(self) -> Iterator[Executor]:
        for framework in self.frameworks.values():
            yield from framework.executors.values()

    def add_run(self, framework: HostedFramework, run: Run) -> None:
        framework.runs[run.task.task_id] = run
        self.run_count += 1

    def remove_run(self, framework: HostedFramework, run: Run) -> None:
        """Forget a run; what has ended joins the `completed`, of which the oldest gives way."""
        if framework.runs.pop(run.task.task_id, None) is not None:
            self.run_count -= 1
            if run.stream.terminal:
                self.completed.append(Completed(run))

    def add_executor(self, framework: HostedFramework, executor: Executor) -> None:
        framework.executors[executor.info.executor_id] = executor
        self.containers[executor.container_id] = executor
        self.executor_count += 1

    def remove_executor(self, framework: HostedFramework, executor: Executor) -> None:
        if framework.executors.pop(executor.info.executor_id, None) is not None:
            self.executor_count -= 1
