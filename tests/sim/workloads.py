"""What the simulated cluster is given to do: frameworks and executors that use every part of the public API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mesos_actor.actors.actor import SECOND_US, Actor, Context, handles
from mesos_actor.actors.executor import Executor
from mesos_actor.actors.framework import Framework, command_task, executor_task
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, OfferId, OperationId, Role, TaskId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import (
    Instruct,
    KillByOperator,
    Leader,
    MarkAgentGone,
    Query,
    QueryResult,
    SetRoleWeight,
    WhoLeads,
)
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import Instruction, OperationResult
from mesos_actor.actors.messages.values import Command, Demand, ExecutorInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TERMINAL, TaskState
from mesos_actor.testing import SimCluster, SimFramework

ONE_CPU = Resources.of(cpus=1, mem=64)
HALF_CPU = Resources.of(cpus=0.5, mem=32)


class Jobs(Framework):
    """Runs `count` sleeps to their end, each under a new task id when it has to be run again; what was launched and
    what has ended is in its store."""

    def __init__(self, count: int, seconds: float, failover_timeout_s: float = 600) -> None:
        self.names = [f"job{number}" for number in range(count)]
        self.seconds = seconds
        self.failover_timeout_s = failover_timeout_s
        #: Job to the task that runs it.
        self.launched: dict[str, str] = {}

    def done(self) -> bool:
        return all(name in self.kept for name in self.names)

    def on_start(self) -> None:
        for key, task_id in self.kept.items():
            if key.startswith("launched/"):
                self.launched[key.removeprefix("launched/")] = task_id.decode()

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.reconcile(sorted(task_id for name, task_id in self.launched.items() if name not in self.kept))

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free, tasks = offer.resources, []
            for name in [name for name in self.names if name not in self.launched]:
                share = free.take(ONE_CPU)
                if share is None:
                    break
                free -= share
                task_id = f"{name}.{self.rng.getrandbits(32):08x}"
                tasks.append(command_task(task_id, ["sleep", str(self.seconds)], share))
                self.persist(f"launched/{name}", task_id.encode())
                self.launched[name] = task_id
            self.accept(offer, tasks, refuse_s=1)

    def on_update(self, status: Status) -> None:
        name = status.task_id.rpartition(".")[0]
        if status.state is TaskState.FINISHED:
            self.persist(name, b"done")
        elif self.launched.get(name) == status.task_id and _has_failed(status.state):
            del self.launched[name]
            self.persist(f"launched/{name}", None)
        if self.done():
            self.stop()


def _has_failed(state: TaskState) -> bool:
    return state in TERMINAL or state is TaskState.UNKNOWN


class One(Framework):
    """Launches one task, once, whatever comes; its store knows that it did."""

    def __init__(self, task: Task | None = None, failover_timeout_s: float = 0.0) -> None:
        self.task = task or command_task("t", ["sleep", "5"], ONE_CPU)
        self.failover_timeout_s = failover_timeout_s
        self.lost: list[AgentId] = []
        self.rescinded: list[OfferId] = []
        self.results: list[OperationResult] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            if "launched" in self.kept or not offer.resources.contains(self.task.resources):
                self.decline(offer)
            else:
                self.persist("launched", b"")
                self.accept(offer, [self.task])

    def on_agent_lost(self, agent_id: AgentId) -> None:
        self.lost.append(agent_id)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        self.rescinded += offer_ids

    def on_operation(self, result: OperationResult) -> None:
        self.results.append(result)

    def on_posted(self, value: Any) -> None:
        value(self)


class Holder(Framework):
    """Takes offers and keeps them in `held`, until a test says what to do with them."""

    def __init__(self) -> None:
        self.held: dict[OfferId, Offer] = {}
        self.rescinded: list[OfferId] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        self.held.update((offer.offer_id, offer) for offer in offers)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        self.rescinded += offer_ids
        for offer_id in offer_ids:
            self.held.pop(offer_id, None)

    def on_posted(self, value: Any) -> None:
        value(self)


def posted(mine: SimFramework, action: Any) -> None:
    """Have `action(framework)` done inside a callback of a framework that calls what is posted."""
    from mesos_actor.actors.messages.scheduler import Posted

    mine.framework.post(action)
    mine.host.post("framework", Posted())


# -- custom executors --------------------------------------------------------------------------------------------------


class Worker(Executor):
    """Runs a task until it is told `end` by a message, and stops itself when it has none left."""

    def on_launch(self, task: Task) -> None:
        self.update(task.task_id, TaskState.RUNNING)

    def on_message(self, data: bytes) -> None:
        for task_id in [task_id for task_id in self.tasks if not task_id.startswith("endless-")]:
            self.update(task_id, TaskState.FINISHED, data=data)
        self.message(b"ended")
        if self.data == b"quits" and not self.tasks:
            self.stop()


def worker(executor_id: str, quits: bool = False) -> ExecutorInfo:
    data = b"quits" if quits else b""
    return ExecutorInfo(ExecutorId(executor_id), Command(("worker",)), HALF_CPU, 2_000, data)


class Chores(Framework):
    """Does once, and until it has succeeded, each thing that a framework can do; then it stops. A process of it that is
    started again begins anew, and ends what the one before has left."""

    failover_timeout_s = 600
    NUDGE_S = 2.0
    TASKS = ("sleeper", "quick", "a0", "a1", "endless-b")

    def __init__(self, instructed: bool = False) -> None:
        #: what is to be launched: name -> its task
        self.waiting: dict[str, Task] = {}
        #: name -> the id of its newest task
        self.newest: dict[str, str] = {}
        self.ended: dict[str, TaskState] = {}
        self.replies: set[ExecutorId] = set()
        self.output = b""
        self.held: list[Offer] = []
        self.rests = False
        self.silent_until_s = 0.0
        self.offered_after_silence = False
        self.instructed = instructed
        """Whether there is no instruction to wait for (any more)."""

    def _want(self, name: str) -> None:
        task_id = self.newest[name] = f"{name}.{self.rng.getrandbits(32):08x}"
        if name == "sleeper":
            self.waiting[name] = command_task(task_id, ["sleep", "100000"], ONE_CPU)
        elif name == "quick":
            self.waiting[name] = command_task(task_id, ["echo", "hello"], ONE_CPU)
        else:
            executor = worker("a", quits=True) if name.startswith("a") else worker("b")
            self.waiting[name] = executor_task(task_id, executor, HALF_CPU)

    def missing(self) -> list[str]:
        """What is left to do."""
        left = [name for name in self.TASKS if name not in self.ended]
        left += [] if self.output else ["output"]
        left += [] if self.offered_after_silence else ["offers after silence"]
        left += [] if self.instructed else ["instruction"]
        return left

    # -- callbacks --------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        for name in self.TASKS:
            self._want(name)

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.request_demand([Demand(Role("*"), ONE_CPU, 3)])
        self.reconcile(None)
        self.set_timer("nudge", self.NUDGE_S)

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            if self.rests and self.now_s > self.silent_until_s:
                self.offered_after_silence = True
            tasks, free = [], offer.resources
            for name, task in list(self.waiting.items()):
                whole = task.resources + (task.executor.resources if task.executor is not None else Resources())
                if free.contains(whole):
                    free -= whole
                    tasks.append(task)
                    del self.waiting[name]
            if tasks:
                self.accept(offer, tasks, refuse_s=1)
            elif not self.held:
                self.held.append(offer)
            else:
                self.decline(offer, refuse_s=1)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        self.held = [offer for offer in self.held if offer.offer_id not in offer_ids]

    def on_update(self, status: Status) -> None:
        name, state = status.task_id.partition(".")[0], status.state
        if status.task_id != self.newest[name]:
            if state not in TERMINAL and state not in (TaskState.UNKNOWN, TaskState.KILLING):
                self.kill(status.task_id, status.agent_id)
        elif state is TaskState.RUNNING and name in ("sleeper", "endless-b"):
            self.kill(status.task_id, status.agent_id)
        elif state is (TaskState.KILLED if name in ("sleeper", "endless-b") else TaskState.FINISHED):
            self.ended[name] = state
            if name == "quick" and not self.output:
                self.read_file(status, "stdout")
        elif _has_failed(state) and name not in self.ended:
            self._want(name)
            self.request_demand([])  # what was asked for was had; now anything will do

    def on_message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self.replies.add(executor_id)

    def on_file(self, file: FileData) -> None:
        self.output = file.data or b"(lost)"

    def on_instruction(self, instruction: Instruction) -> None:
        self.instructed = True
        self.answer(instruction, data=b"done")

    def on_timer(self, name: str) -> None:
        for task_id, known in self.tasks.items():
            if known.state is TaskState.RUNNING and task_id.startswith("a"):
                self.message(known.agent_id, "a", b"end")
        if not self.rests and self.now_s % 100 > 12:
            self.rests = True
            self.silent_until_s = self.now_s + 4
            self.suppress()
            self.set_timer("wake", 4)
        if name == "wake":
            self.request_demand([])
            self.revive()
        for offer in [offer for offer in self.held if self.now_s % 100 > 60]:
            self.decline(offer)
        if not self.missing():
            self.stop()
        else:
            self.set_timer("nudge", self.NUDGE_S)


class Operator(Actor):
    """Asks the master everything an operator can, and each thing until it is answered."""

    EVERY_US = 2 * SECOND_US

    def __init__(self, sim: SimCluster, master: Address) -> None:
        self.sim = sim
        self.master = master
        self.answered: dict[str, Message] = {}

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("ask", 5 * SECOND_US)

    def on_timer(self, ctx: Context, name: str) -> None:
        ctx.set_timer("ask", self.EVERY_US)
        for question in self._questions():
            if question.operation_id not in self.answered:
                ctx.send(self.master, question)

    def _questions(self) -> list[Any]:
        questions: list[Any] = [
            WhoLeads(OperationId("who")),
            Query(OperationId("query"), "tasks"),
            SetRoleWeight(OperationId("weight"), Role("*"), 2_000),
            KillByOperator(OperationId("kill"), TaskId("never-was")),
        ]
        framework_id = self.sim.frameworks[0].framework.framework_id
        if framework_id:
            questions.append(Instruct(OperationId("instruct"), framework_id, b"please"))
        gone = self.sim.agents[-1]
        if self.sim.now_s > 8 and gone.up:
            questions.append(MarkAgentGone(OperationId("gone"), gone.agent_id))
        return questions

    @handles(OperationResult, QueryResult, Leader)
    def on_result(self, ctx: Context, sender: Address, message: OperationResult | QueryResult | Leader) -> None:
        if not isinstance(message, OperationResult) or message.ok or message.operation_id == "kill":
            self.answered[message.operation_id] = message


def task_ids(statuses: Sequence[Status]) -> set[TaskId]:
    return {status.task_id for status in statuses}
