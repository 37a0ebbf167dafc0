"""A master, its registry and an allocator under one virtual clock, for tests: no runtime, no network, no disk.

What the master sends to anybody else lands in `inbox`, by address. After every turn its tables are compared with each
other and with what the allocator believes.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from mesos_actor.actors.actor import CancelTimer, Context, Persist, Send, SetTimer
from mesos_actor.actors.core.allocation import Allocation, Refusal
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    FrameworkId,
    Node,
    OfferId,
    OperationId,
    Principal,
    Role,
    TaskId,
    UpdateId,
    local,
)
from mesos_actor.actors.master import Master
from mesos_actor.actors.messages.agents import RegisterAgent, Registered, RunTasks
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.clients import Query, QueryResult
from mesos_actor.actors.messages.scheduler import Accept, Acknowledge, Offers, Subscribe, Subscribed, Update
from mesos_actor.actors.messages.values import (
    AgentInfo,
    Command,
    Demand,
    ExecutorReport,
    Filters,
    FrameworkInfo,
    Launch,
    Offer,
    Status,
    Task,
    TaskReport,
)
from mesos_actor.actors.resources import Attributes, Resources, total
from mesos_actor.actors.task import Source, TaskState
from tests.one_disk_registry import OneDiskRegistry

M = TypeVar("M", bound=Message)
MASTER, REGISTRY = local("master"), local("registry")
ONE = Resources.parse("cpus:1;mem:128")
FOUR = Resources.parse("cpus:4;mem:4096")
TRUE = Command(("true",))


class GreedyAllocator:
    """Everything free on an agent goes to the first framework that may have it. Counts strictly: giving back what was
    never taken is an AssertionError."""

    def __init__(self) -> None:
        self.frameworks: dict[FrameworkId, tuple[Role, ...]] = {}
        self.active: set[FrameworkId] = set()
        self.suppressed: set[tuple[FrameworkId, Role]] = set()
        self.agents: dict[AgentId, Resources] = {}
        self.inactive_agents: set[AgentId] = set()
        self.taken: dict[tuple[FrameworkId, AgentId, Role], Resources] = {}
        self.filters: dict[tuple[FrameworkId, AgentId, Role], int] = {}
        self.weights: dict[Role, int] = {}
        self.demands: dict[FrameworkId, Sequence[Demand]] = {}
        self.used: dict[tuple[FrameworkId, AgentId, Role], Resources] = {}

    def add_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None:
        assert framework not in self.frameworks
        self.active.add(framework)
        self.frameworks[framework] = ()
        self.update_framework(framework, roles, suppressed)

    def update_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None:
        assert framework in self.frameworks
        self.frameworks[framework] = tuple(roles)
        self.suppressed = {pair for pair in self.suppressed if pair[0] != framework}
        self.suppressed |= {(framework, role) for role in suppressed}

    def remove_framework(self, framework: FrameworkId) -> None:
        del self.frameworks[framework]
        self.active.discard(framework)
        assert not [key for key in self.taken if key[0] == framework and key[1] in self.agents]

    def set_framework_active(self, framework: FrameworkId, active: bool) -> None:
        assert framework in self.frameworks
        (self.active.add if active else self.active.discard)(framework)

    def revive(self, framework: FrameworkId, roles: Sequence[Role]) -> None:
        for role in roles or self.frameworks[framework]:
            self.suppressed.discard((framework, role))
        self.filters = {key: us for key, us in self.filters.items() if key[0] != framework}

    def suppress(self, framework: FrameworkId, roles: Sequence[Role]) -> None:
        self.suppressed |= {(framework, role) for role in roles or self.frameworks[framework]}

    def set_demand(self, framework: FrameworkId, demands: Sequence[Demand]) -> None:
        self.demands[framework] = demands

    def add_agent(
        self,
        agent: AgentId,
        total: Resources,
        attributes: Attributes,
        used: Mapping[tuple[FrameworkId, Role], Resources],
    ) -> None:
        assert agent not in self.agents
        self.agents[agent] = total
        for (framework, role), resources in used.items():
            self.add_used(agent, framework, role, resources)

    def update_agent(self, agent: AgentId, total: Resources, attributes: Attributes) -> None:
        assert agent in self.agents
        self.agents[agent] = total

    def add_used(self, agent: AgentId, framework: FrameworkId, role: Role, resources: Resources) -> None:
        assert agent in self.agents and resources
        key = (framework, agent, role)
        self.taken[key] = self.taken.get(key, Resources()) + resources

    def remove_agent(self, agent: AgentId) -> None:
        del self.agents[agent]
        self.inactive_agents.discard(agent)
        self.taken = {key: resources for key, resources in self.taken.items() if key[1] != agent}

    def set_agent_active(self, agent: AgentId, active: bool) -> None:
        assert agent in self.agents
        (self.inactive_agents.discard if active else self.inactive_agents.add)(agent)

    def recover(
        self, framework: FrameworkId, agent: AgentId, role: Role, resources: Resources, refuse_until_us: int = 0
    ) -> None:
        if agent in self.agents:
            key = (framework, agent, role)
            rest = self.taken[key] - resources  # raises when it was not taken
            if rest:
                self.taken[key] = rest
            else:
                del self.taken[key]
            if refuse_until_us:
                self.filters[key] = refuse_until_us

    def accepted(self, framework: FrameworkId, agent: AgentId, role: Role, resources: Resources) -> None:
        assert self.taken[framework, agent, role].contains(resources)

    def set_weight(self, role: Role, weight_milli: int) -> None:
        self.weights[role] = weight_milli

    def free(self, agent: AgentId) -> Resources:
        taken = total(resources for key, resources in self.taken.items() if key[1] == agent)
        return self.agents[agent] - taken if self.agents[agent].contains(taken) else Resources()

    def allocate(self, now_us: int, rng: random.Random) -> list[Allocation]:
        self.filters = {key: us for key, us in self.filters.items() if us > now_us}
        found = []
        for agent in self.agents:
            free = self.free(agent)
            for framework, roles in self.frameworks.items():
                for role in roles:
                    key = (framework, agent, role)
                    may = framework in self.active and agent not in self.inactive_agents
                    if free and may and (framework, role) not in self.suppressed and key not in self.filters:
                        self.add_used(agent, framework, role, free)
                        found.append(Allocation(framework, agent, role, free))
                        free = Resources()
        return found

    def allocate_all(self, now_us: int, rng: random.Random) -> list[Allocation]:
        return self.allocate(now_us, rng)

    def next_expiry_us(self) -> int | None:
        return min(self.filters.values(), default=None)

    def shares(self) -> list[tuple[Role, FrameworkId | None, int]]:
        return [(role, framework, 0) for framework, roles in self.frameworks.items() for role in roles]

    def explain(self, framework: FrameworkId, now_us: int) -> list[Refusal]:
        return [Refusal(agent, Role("*"), "taken", "Nothing is free") for agent in self.agents]


class World:
    """`deliver` gives the master a message and lets it and the registry finish; `advance` lets time pass."""

    def __init__(self, settings: MasterSettings | None = None, allocator: Any = None, seed: int = 0) -> None:
        self.settings = settings or MasterSettings()
        self.now_us = 1_700_000_000_000_000
        self.rng = random.Random(seed)
        self.kept: dict[str, Record] = {}
        self.inbox: dict[Address, list[Message]] = defaultdict(list)
        self.registry_answers = True
        self.strict = allocator is None
        self._make_allocator = allocator or GreedyAllocator
        self.start()

    def start(self) -> None:
        """Master and registry begin (again) with what was kept, as after a kill -9."""
        self.allocator: Any = self._make_allocator()
        self.master = Master(self.settings, self.allocator)
        self.registry = OneDiskRegistry()
        self.timers: dict[str, int] = {}
        self._turn(self.registry, "on_start")
        self._turn(self.master, "on_start")

    def deliver(self, sender: Address | str, message: Message, principal: str = "cluster") -> None:
        self._turn(self.master, "on_message", Address(sender), message, principal=principal)
        self._run_due()

    def lose_link(self, node: str) -> None:
        self._turn(self.master, "on_link_lost", Node(node))
        self._run_due()

    def advance(self, ms: int) -> None:
        until_us = self.now_us + ms * 1_000
        while self.timers and min(self.timers.values()) <= until_us:
            self.now_us = max(self.now_us, min(self.timers.values()))
            self._run_due()
        self.now_us = until_us

    def take(self, where: Address | str, kind: type[M]) -> list[M]:
        """The messages of this kind sent to `where`; the others sent there are dropped."""
        found = [message for message in self.inbox[Address(where)] if isinstance(message, kind)]
        self.inbox[Address(where)] = []
        return found

    def one(self, where: Address | str, kind: type[M]) -> M:
        found = self.take(where, kind)
        assert len(found) == 1, found
        return found[0]

    def _run_due(self) -> None:
        while due := [(at, name) for name, at in self.timers.items() if at <= self.now_us]:
            _, name = min(due)
            del self.timers[name]
            self._turn(self.master, "on_timer", name)

    def _turn(self, actor: Any, callback: str, *args: Any, principal: str = "local") -> None:
        name = "master" if actor is self.master else "registry"
        ctx = Context(name, Node("tcp://m:1"), self.now_us, self.rng, self.kept if name == "registry" else {})
        ctx.principal = Principal(principal)
        getattr(actor, callback)(ctx, *args)
        for effect in ctx.effects:
            match effect:
                case Send():
                    self._send(Address(f"/{name}"), effect)
                case SetTimer():
                    self.timers[effect.name] = self.now_us + effect.delay_us
                case CancelTimer():
                    self.timers.pop(effect.name, None)
                case Persist():
                    if effect.record is None:
                        self.kept.pop(effect.key, None)
                    else:
                        self.kept[effect.key] = effect.record
                case _:
                    pass
        self.check()

    def _send(self, sender: Address, effect: Send) -> None:
        if effect.to == MASTER and sender == REGISTRY:
            if hasattr(self, "master") and self.registry_answers:
                self._turn(self.master, "on_message", sender, effect.message)
        elif effect.to == REGISTRY:
            self._turn(self.registry, "on_message", sender, effect.message)
        else:
            self.inbox[effect.to].append(effect.message)

    def check(self) -> None:
        """The master agrees with itself, and with the allocator about every resource."""
        self.master.check()
        if not self.strict:
            return
        expected: dict[tuple[FrameworkId, AgentId, Role], list[Resources]] = defaultdict(list)
        for agent in self.master.roster.agents.values():
            for (framework, role), resources in agent.used.items():
                if agent.registered:
                    expected[framework, agent.agent_id, role].append(resources)
        for outstanding in self.master.offers.all():
            offer = outstanding.offer
            expected[outstanding.framework_id, offer.agent_id, offer.role].append(offer.resources)
        assert {key: total(bundles) for key, bundles in expected.items()} == self.allocator.taken

    # -- a cluster's life in few words

    def agent(
        self,
        name: str = "a",
        resources: Resources = FOUR,
        agent_id: AgentId | str = "",
        tasks: Sequence[TaskReport] = (),
        executors: Sequence[ExecutorReport] = (),
        node: str = "",
        cluster: str = "",
    ) -> AgentId:
        """Register an agent and return its id. Its mailbox is `tcp://<name>:1/agent` unless `node` says otherwise."""
        where = Address(f"{node or f'tcp://{name}:1'}/agent")
        self.inbox[where] = [m for m in self.inbox[where] if not isinstance(m, Registered)]
        self.deliver(
            where,
            RegisterAgent(
                self.agent_info(name, resources),
                f"reg-{name}",
                AgentId(agent_id),
                ClusterId(cluster),
                tuple(tasks),
                tuple(executors),
                term=self.master.term,
            ),
        )
        return next(m.agent_id for m in reversed(self.inbox[where]) if isinstance(m, Registered))

    def agent_info(self, name: str, resources: Resources = FOUR) -> AgentInfo:
        return AgentInfo(name, Address(f"tcp://{name}:1/agent"), resources)

    def framework(
        self,
        name: str = "f",
        framework_id: FrameworkId | str = "",
        roles: tuple[str, ...] = ("*",),
        failover_ms: int = 60_000,
        node: str = "",
    ) -> FrameworkId:
        """Subscribe a framework and return its id. Its mailbox is `peer:<name>/framework`."""
        where = Address(f"{node or f'peer:{name}'}/framework")
        info = FrameworkInfo(name, roles=tuple(map(Role, roles)), failover_timeout_ms=failover_ms)
        self.deliver(where, Subscribe(info, FrameworkId(framework_id), operation_id=OperationId(f"op-{name}")))
        return next(m.framework_id for m in reversed(self.inbox[where]) if isinstance(m, Subscribed))

    def offers(self, name: str = "f") -> list[Offer]:
        """What was offered since the last time and still stands."""
        offered = [offer for message in self.take(f"peer:{name}/framework", Offers) for offer in message.offers]
        return [offer for offer in offered if self.master.offers.get(offer.offer_id)]

    def launch(self, framework: FrameworkId, offers: Sequence[Offer], *tasks: Task, name: str = "f") -> None:
        ids = tuple(offer.offer_id for offer in offers)
        self.accept(framework, ids, *tasks, name=name)

    def accept(
        self,
        framework: FrameworkId,
        offer_ids: Sequence[OfferId],
        *tasks: Task,
        name: str = "f",
        refuse_ms: int = 0,
        operation_id: str = "",
    ) -> None:
        launch = (Launch(tasks, OperationId(operation_id)),) if tasks else ()
        accept = Accept(framework, tuple(offer_ids), launch, Filters(refuse_ms))
        self.deliver(f"peer:{name}/framework", accept)

    def run(self, task_id: str = "t", name: str = "f", agent: str = "a") -> tuple[FrameworkId, AgentId]:
        """An agent, a framework, and a task that was launched between them."""
        agent_id = self.agent(agent)
        framework = self.framework(name)
        self.launch(framework, self.offers(name), task(task_id), name=name)
        self.one(f"tcp://{agent}:1/agent", RunTasks)
        return framework, agent_id

    def update(
        self,
        framework: FrameworkId,
        agent_id: AgentId,
        state: TaskState,
        task_id: str = "t",
        agent: str = "a",
        number: int = 0,
        latest: str = "",
        after: int | None = None,
    ) -> None:
        status = status_of(task_id, state, agent_id, number)
        if after is not None:
            status = Status(
                status.task_id,
                state,
                Source.AGENT,
                agent_id=agent_id,
                update_id=status.update_id,
                after_update_id=UpdateId(f"{task_id}.c:{after}"),
            )
        self.deliver(f"tcp://{agent}:1/agent", Update(framework, status, latest))

    def acknowledge(
        self, framework: FrameworkId, agent_id: AgentId, task_id: str = "t", number: int = 0, name: str = "f"
    ) -> None:
        update_id = UpdateId(f"{task_id}.c:{number}")
        self.deliver(f"peer:{name}/framework", Acknowledge(framework, agent_id, TaskId(task_id), update_id))

    def updates(self, name: str = "f") -> list[Status]:
        return [update.status for update in self.take(f"peer:{name}/framework", Update)]

    def ask(self, what: str, after: str = "", limit: int = 1_000, **match: str) -> list[dict[str, Any]]:
        self.deliver("peer:cli/client", Query(OperationId("q"), what, match, after, limit))
        return [json.loads(row) for row in self.one("peer:cli/client", QueryResult).rows]

    def pages(self, what: str, limit: int, **match: str) -> Iterator[list[dict[str, Any]]]:
        after = ""
        while True:
            self.deliver("peer:cli/client", Query(OperationId("q"), what, match, after, limit))
            result = self.one("peer:cli/client", QueryResult)
            yield [json.loads(row) for row in result.rows]
            after = result.next
            if not after:
                return


def task(task_id: str = "t", resources: Resources = ONE, **fields: Any) -> Task:
    fields.setdefault("command", TRUE if "executor" not in fields else None)
    return Task(TaskId(task_id), resources, **fields)


def status_of(task_id: str, state: TaskState, agent_id: AgentId, number: int = 0) -> Status:
    return Status(TaskId(task_id), state, Source.AGENT, agent_id=agent_id, update_id=UpdateId(f"{task_id}.c:{number}"))


def report(
    framework: FrameworkId, task_id: str = "t", state: TaskState = TaskState.RUNNING, **fields: Any
) -> TaskReport:
    fields.setdefault("resources", ONE)
    return TaskReport(framework, TaskId(task_id), role=Role("*"), state=state, **fields)
