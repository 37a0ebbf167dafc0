"""What the simulated cluster is given to do: frameworks and executors that use every part of the public API."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mesos_actor.actors.actor import SECOND_US, Actor, Context, handles
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import Address, AgentId, FrameworkId, OfferId, OperationId, Role, TaskId
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
from mesos_actor.actors.messages.scheduler import OperationResult
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.task import TaskState
from mesos_actor.testing import SimCluster, SimFramework
from mesos_actor.transport.sim.chores import HALF_CPU, ONE_CPU, Chores, Worker, has_failed, worker

__all__ = [
    "HALF_CPU",
    "ONE_CPU",
    "Chores",
    "Holder",
    "Jobs",
    "One",
    "Operator",
    "Worker",
    "posted",
    "task_ids",
    "worker",
]


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
        elif self.launched.get(name) == status.task_id and has_failed(status.state):
            del self.launched[name]
            self.persist(f"launched/{name}", None)
        if self.done():
            self.stop()


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
