"""What a simulated cluster is given to do, as plain data: steps with a time, so that a failing run can be made smaller
and written down.

The frameworks are those that ship (`Batch`, `Service`), and one that does everything a framework can (chores.py).
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import msgspec

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.service import Service
from mesos_actor.actors.frameworks.specs import BatchSpec, ServiceSpec, TaskSpec
from mesos_actor.actors.ids import Address, OperationId, Role, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import Instruct, KillByOperator, MarkAgentGone, SetRoleWeight
from mesos_actor.actors.messages.raft import TransferLeadership
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from mesos_actor.transport.sim.chores import Chores, Worker
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.registers import PACE_US, PATIENCE_US, RegistryUser, registry_of
from mesos_actor.transport.sim.schedule import START_US

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster

SECOND_US = 1_000_000
ASK_AGAIN_US = SECOND_US // 2
OPERATOR = "operator"


class Step(msgspec.Struct, frozen=True, tag_field="do", tag=lambda name: name.lower(), forbid_unknown_fields=True):
    """The base of all: done at `at_us` since the begin of the world."""

    at_us: int


class Submit(Step, frozen=True):
    """A batch: `tasks` sleeps of `milliseconds` each, and a group of half as many after them if `staged`."""

    tasks: int
    milliseconds: int
    cpus_milli: int = 1_000
    staged: bool = False

    def spec(self, name: str) -> BatchSpec:
        """What the batch is made from."""
        command, cpus = ("sleep", f"{self.milliseconds / 1_000:g}"), self.cpus_milli / 1_000
        groups = [TaskSpec(name="a", command=command, cpus=cpus, mem=32, retries=1_000, instances=self.tasks)]
        if self.staged:
            after = msgspec.structs.replace(groups[0], name="b", instances=max(1, self.tasks // 2), after=("a",))
            groups.append(after)
        return BatchSpec(name=name, task=tuple(groups), failover_timeout="10m")


class Serve(Step, frozen=True):
    """A service of so many copies, removed when all is calm."""

    instances: int


class DoChores(Step, frozen=True):
    """A framework that uses everything: custom executors, messages, kills, reconciliation, files, demand."""


class AddAgent(Step, frozen=True):
    """One more machine."""

    cpus: int = 4


class KillTask(Step, frozen=True):
    """An operator kills one of the tasks that live then."""

    nth: int


class MarkGone(Step, frozen=True):
    """An operator writes an agent off. It must not come back."""

    agent: int


class Weigh(Step, frozen=True):
    """An operator changes the weight of the roles' tree."""

    weight_milli: int


class Transfer(Step, frozen=True):
    """An operator has another master lead, of this number or whichever has most. The one before lives on, and its last
    orders may still be on their way."""

    to: int | None = None


class UseRegistry(Step, frozen=True):
    """So many users write role weights and read them, one call after the other, until all is calm."""

    users: int = 2
    pace_us: int = 40_000
    patience_us: int = 500_000


AnyStep = Submit | Serve | DoChores | AddAgent | KillTask | MarkGone | Weigh | Transfer | UseRegistry


class Operator(Actor):
    """Asks each question, of one master after another, until it is answered for good."""

    def __init__(self, masters: Iterable[Address]) -> None:
        self._masters = list(masters)
        self._at = 0
        self.asked = 0
        #: questions to ask, made anew each time because ids may not be known yet
        self.open: dict[OperationId, Callable[[OperationId], Message | None]] = {}

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("ask", ASK_AGAIN_US)

    def on_timer(self, ctx: Context, name: str) -> None:
        self._at = (self._at + 1) % len(self._masters)
        for operation_id in self.open:
            self._ask(ctx, operation_id)
        ctx.set_timer("ask", ASK_AGAIN_US)

    def _ask(self, ctx: Context, operation_id: OperationId) -> None:
        message, master = self.open[operation_id](operation_id), self._masters[self._at]
        if message is not None:
            ctx.send(registry_of(master) if isinstance(message, TransferLeadership) else master, message)

    @handles(OperationResult)
    def on_result(self, ctx: Context, sender: Address, message: OperationResult) -> None:
        if message.ok or message.reason not in ("unavailable", "unknown-framework"):
            self.open.pop(message.operation_id, None)

    @handles(Refused)
    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        """Another master may know better; the leader that is named does."""
        if message.leader in self._masters and message.operation_id in self.open:
            named = self._masters.index(message.leader)
            if named != self._at:
                self._at = named
                self._ask(ctx, message.operation_id)


class Play:
    """The steps of one workload, done when they are due. Made by `SimCluster.play`. Raises ConfigError for a transfer
    to a master that there is not."""

    def __init__(self, sim: SimCluster, work: Iterable[AnyStep]) -> None:
        self._sim = sim
        self.frameworks: list[SimFramework] = []
        """Of its steps, services too."""
        self.services: list[SimFramework] = []
        self._users: list[RegistryUser] = []
        self._removed: set[str] = set()
        self._gone: set[int] = set()
        self._left = 0
        for step in work:
            _check_step(step, len(sim.masters))
            self._left += 1
            sim.world.schedule.at(max(sim.world.now_us, START_US + step.at_us), self._do, step)

    @property
    def over(self) -> bool:
        """Whether every step is done, and every framework of them has ended that can."""
        return not self._left and next(self.unfinished(), None) is None

    def unfinished(self) -> Iterator[SimFramework]:
        """Those of its frameworks that can end, and have not."""
        return (mine for mine in self.frameworks if not mine.ended and not mine.host.gone)

    def wind_up(self) -> None:
        """Ask the services to end, and the users of the registry to ask no more."""
        for user in self._users:
            user.resting = True
        for service in self.services:
            if service.name not in self._removed and not service.host.gone:
                self._removed.add(service.name)
                self._ask(lambda operation_id, service=service: _removal(operation_id, service))  # type: ignore[misc]

    def _do(self, step: AnyStep) -> None:
        sim = self._sim
        self._left -= 1
        name = f"framework{len(sim.frameworks)}"
        match step:
            case Submit():
                self.frameworks.append(sim.add_framework(lambda: Batch(step.spec(name)), name=name))
            case Serve():
                self.services.append(sim.add_framework(lambda: Service(_service(name, step.instances)), name=name))
                self.frameworks.append(self.services[-1])
                if sim.world.plan.calm:
                    self.wind_up()
            case DoChores():
                sim.add_executor("a", Worker)
                sim.add_executor("b", Worker)
                self.frameworks.append(sim.add_framework(lambda: Chores(instructed=True), name=name))
            case AddAgent():
                sim.add_agent(f"cpus:{step.cpus};mem:1024", settings=sim.agent_settings)
            case KillTask():
                self._kill(step.nth)
            case MarkGone():
                self._write_off(step.agent)
            case Weigh():
                self._ask(lambda operation_id: SetRoleWeight(operation_id, Role("*"), step.weight_milli))
            case Transfer():
                target = "" if step.to is None else node_of(sim.masters[step.to].address).removeprefix("tcp://")
                self._ask(lambda operation_id: TransferLeadership(operation_id, target))
            case UseRegistry():
                self._use_registry(step)

    def _use_registry(self, step: UseRegistry) -> None:
        sim, masters = self._sim, tuple(master.address for master in self._sim.masters)
        for _ in range(step.users):
            user = RegistryUser(sim.asked, masters, step.pace_us, step.patience_us)
            user.resting = sim.world.plan.calm
            host = sim.world.add_host(f"user{sim.users}")
            sim.users += 1
            host.spawn("user", lambda user=user: user).start()  # type: ignore[misc]
            host.restartable = False
            self._users.append(user)

    def _kill(self, nth: int) -> None:
        known = [task_id for mine in self._sim.frameworks if mine.up for task_id in mine.driver.tasks]
        if known:
            task_id = known[nth % len(known)]
            self._ask(lambda operation_id: KillByOperator(operation_id, task_id))

    def _write_off(self, number: int) -> None:
        """Never the last one: somebody must do the work."""
        agents = self._sim.agents
        number %= max(1, len(agents))
        if len(agents) - len(self._gone) < 2 or number in self._gone or not agents[number].agent_id:
            return
        self._gone.add(number)
        agent_id = agents[number].agent_id
        agents[number].host.gone = True
        self._ask(lambda operation_id: MarkAgentGone(operation_id, agent_id))

    def _ask(self, question: Callable[[OperationId], Message | None]) -> None:
        operator = self._sim.operator or self._operator()
        operator.asked += 1
        operator.open[OperationId(f"operator-{operator.asked}")] = question

    def _operator(self) -> Operator:
        """The cluster's one operator begins its work."""
        sim = self._sim
        operator = Operator(master.address for master in sim.masters)
        sim.operator = operator  # pyright: ignore[reportAttributeAccessIssue] (see `cluster`)
        host = sim.world.add_host(OPERATOR, node="tcp://10.0.9.9:1")
        host.spawn("operator", lambda: operator).start()
        host.restartable = False
        return operator


def _check_step(step: AnyStep, masters: int) -> None:
    if isinstance(step, Transfer) and step.to is not None and step.to not in range(masters):
        raise ConfigError(f"to {step.to!r} of a transfer: must be the number of a master, below {masters}, or None")


def _removal(operation_id: OperationId, service: SimFramework) -> Message | None:
    if not service.up or service.ended or not service.framework.framework_id:
        return None
    return Instruct(operation_id, service.framework.framework_id, json.dumps({"do": "remove"}).encode())


def _service(name: str, instances: int) -> ServiceSpec:
    return ServiceSpec(name=name, command=("sleep", "100000"), instances=instances, cpus=0.5, mem=32)


# -- drawn by chance --------------------------------------------------------------------------------------------------


def draw(rng: random.Random, agents: int) -> tuple[AnyStep, ...]:
    """A workload for so many agents."""
    steps: list[AnyStep] = [
        Submit(rng.randrange(3 * SECOND_US), rng.randrange(1, 25), rng.choice((100, 1_000, 3_000)), staged=bool(number))
        for number in range(rng.randrange(1, 3))
    ]
    if rng.random() < 0.5:
        steps.append(DoChores(rng.randrange(3 * SECOND_US)))
    if rng.random() < 0.3:
        steps.append(Serve(rng.randrange(3 * SECOND_US), rng.randrange(1, 5)))
    if rng.random() < 0.3:
        steps.append(AddAgent(rng.randrange(20 * SECOND_US)))
    for _ in range(rng.choice((0, 0, 1, 3))):
        steps.append(KillTask(rng.randrange(25 * SECOND_US), rng.randrange(20)))
    if agents > 2 and rng.random() < 0.15:
        steps.append(MarkGone(rng.randrange(25 * SECOND_US), rng.randrange(agents)))
    if rng.random() < 0.2:
        steps.append(Weigh(rng.randrange(20 * SECOND_US), rng.choice((500, 2_000))))
    for _ in range(rng.choice((0, 0, 1, 2))):
        steps.append(Transfer(rng.randrange(10 * SECOND_US)))
    if rng.random() < 0.25:
        pace_us, patience_us = rng.choice(PACE_US), rng.choice(PATIENCE_US)
        steps.append(UseRegistry(rng.randrange(2 * SECOND_US), rng.randrange(1, 4), pace_us, patience_us))
    return tuple(sorted(steps, key=lambda step: step.at_us))


def framework_names(work: Iterable[AnyStep]) -> list[str]:
    """What the hosts of its frameworks will be called."""
    return list(framework_begins(work))


def framework_begins(work: Iterable[AnyStep]) -> dict[str, int]:
    """The same -> when each of them begins, in microseconds since the begin of the world."""
    times = sorted(step.at_us for step in work if isinstance(step, Submit | Serve | DoChores))
    return {f"framework{number}": at_us for number, at_us in enumerate(times)}
