"""Agents, frameworks and operators in any order, with lost links, restarts and nonsense in between.

After every turn the world compares the master's tables with each other and with what the allocator believes
(tests/master_world.py), so these tests state only who does what.
"""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    OfferId,
    OperationId,
    Role,
    TaskId,
    UpdateId,
)
from mesos_actor.actors.messages.agents import LeaveAgent, Pong, RegisterAgent
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import KillByOperator, MarkAgentGone, Query, SetRoleWeight
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    Decline,
    ExecutorLost,
    Kill,
    Reconcile,
    RequestDemand,
    Revive,
    Subscribe,
    Suppress,
    Teardown,
    Unsubscribe,
    Update,
)
from mesos_actor.actors.messages.values import (
    Command,
    Demand,
    ExecutorInfo,
    ExecutorReport,
    Filters,
    FrameworkInfo,
    Launch,
    Status,
    Task,
    TaskReport,
)
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Source, TaskState
from tests.master_world import FOUR, ONE, World
from tests.strategies import messages

QUICK = MasterSettings(
    ping_interval_ms=1_000,
    max_missed_pings=2,
    reregister_window_ms=5_000,
    offer_timeout_ms=4_000,
    max_completed_tasks_per_framework=2,
    max_completed_frameworks=2,
    max_pending_operations=4,
    registry_max_age_ms=3_600_000,
)
NAMES = st.sampled_from("abc")
NODES = st.sampled_from(["tcp://a:1", "tcp://b:1", "peer:x"])
SIZES = st.sampled_from([ONE, ONE + ONE, FOUR, Resources.parse("cpus:0.5"), Resources()])
TASKS = st.sampled_from([TaskId(f"t{n}") for n in range(4)])
NUMBERS = st.integers(0, 3)
TRUE = Command(("true",))
EXECUTOR = ExecutorInfo(ExecutorId("e"), Command(("run",)), Resources.parse("cpus:0.5"))


class Cluster(RuleBasedStateMachine):
    """Every rule may meet any state of the cluster; what is impossible must be refused, not raise."""

    allocator: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.world = World(QUICK, self.allocator)
        for name in "ab":
            self.world.agent(name)
            self.world.framework(name, failover_ms=3_000)

    def agents(self) -> list[AgentId]:
        roster = self.world.master.roster
        return list(roster.agents) or [*roster.absent, AgentId("x-S0")]

    def frameworks(self) -> list[FrameworkId]:
        roster = self.world.master.roster
        return list(roster.frameworks) or [*roster.removed, FrameworkId("x-0000")]

    def where(self, framework: FrameworkId) -> Address:
        """Where it is subscribed from, if it is."""
        entry = self.world.master.roster.frameworks.get(framework)
        return entry.address if entry is not None and entry.address else Address("peer:nobody/framework")

    def agent_at(self, agent: AgentId) -> Address:
        entry = self.world.master.roster.agents.get(agent)
        return entry.address if entry is not None and entry.address else Address("peer:nobody/agent")

    # -- agents

    @rule(data=st.data(), name=NAMES, node=NODES, size=st.sampled_from([FOUR, ONE]), named=st.booleans())
    def register(self, data: st.DataObject, name: str, node: str, size: Resources, named: bool) -> None:
        agent = data.draw(st.sampled_from(self.agents())) if named else AgentId("")
        tasks: list[TaskReport] = []
        executors: list[ExecutorReport] = []
        if named:
            pairs = st.tuples(st.sampled_from(self.frameworks()), TASKS)
            for framework, task in data.draw(st.lists(pairs, max_size=3, unique=True)):
                state = data.draw(st.sampled_from([TaskState.RUNNING, TaskState.FINISHED, TaskState.STAGING]))
                report = TaskReport(framework, task, ONE, Role("*"), state, container_id=ContainerId("c"))
                tasks.append(report)
            if data.draw(st.booleans()):
                framework = data.draw(st.sampled_from(self.frameworks()))
                executors.append(ExecutorReport(framework, EXECUTOR, Role("*")))
        known = self.world.master.roster.agents.get(agent) or self.world.master.roster.absent.get(agent)
        registration = known.registration if known is not None else f"reg-{name}"
        info = self.world.agent_info(known.info.hostname if known is not None else name, size)
        message = RegisterAgent(
            info, registration, agent, tasks=tuple(tasks), executors=tuple(executors), term=self.world.master.term
        )
        self.world.deliver(f"{node}/agent", message)

    @rule()
    def answer_pings(self) -> None:
        for agent in self.agents():
            self.world.deliver(self.agent_at(agent), Pong(agent))

    @rule()
    def launch(self) -> None:
        """Everybody uses every offer for what fits and is new."""
        for outstanding in list(self.world.master.offers.all()):
            framework = outstanding.framework_id
            known = self.world.master.roster.frameworks[framework]
            names = [TaskId(f"t{n}") for n in range(4) if f"t{n}" not in {*known.tasks, *known.unreachable}]
            tasks = tuple(Task(name, ONE, None, EXECUTOR) if name == "t3" else Task(name, ONE, TRUE) for name in names)
            accept = Accept(framework, (outstanding.offer.offer_id,), (Launch(tasks[:2]),), Filters(0))
            self.world.deliver(known.address, accept)

    @rule(data=st.data(), end=st.booleans(), acknowledge=st.booleans())
    def progress(self, data: st.DataObject, end: bool, acknowledge: bool) -> None:
        """Some task goes on, as its agent and its framework see it."""
        tasks = [task for f in self.world.master.roster.frameworks.values() for task in f.tasks.values()]
        if tasks:
            task = data.draw(st.sampled_from(tasks))
            state = TaskState.FINISHED if end else TaskState.RUNNING
            update_id = UpdateId(f"{task.task_id}.c:{int(end)}")
            status = Status(task.task_id, state, Source.AGENT, agent_id=task.agent_id, update_id=update_id)
            self.world.deliver(self.agent_at(task.agent_id), Update(task.framework_id, status))
            if acknowledge:
                message = Acknowledge(task.framework_id, task.agent_id, task.task_id, update_id)
                self.world.deliver(self.where(task.framework_id), message)

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        """Everybody who is away returns, agents with what they had."""
        roster = self.world.master.roster
        for agent in list(roster.agents.values()):
            if not agent.connected:
                tasks = tuple(
                    TaskReport(t.framework_id, t.task_id, t.resources, t.role, t.state, t.executor_id)
                    for t in agent.tasks
                    if data.draw(st.booleans())
                )
                message = RegisterAgent(
                    agent.info, agent.registration, agent.agent_id, tasks=tasks, term=self.world.master.term
                )
                self.world.deliver(agent.info.address, message)
        for framework in list(roster.frameworks.values()):
            if not framework.connected:
                self.world.deliver(
                    f"peer:{framework.info.name}/framework", Subscribe(framework.info, framework.framework_id)
                )

    @rule(data=st.data(), task=TASKS, state=st.sampled_from(TaskState), latest=st.sampled_from(["", *TaskState, "?"]))
    def update(self, data: st.DataObject, task: TaskId, state: TaskState, latest: str) -> None:
        agent = data.draw(st.sampled_from(self.agents()))
        framework = data.draw(st.sampled_from(self.frameworks()))
        update_id = UpdateId(f"{task}.c:{data.draw(NUMBERS)}")
        status = Status(task, state, Source.AGENT, agent_id=agent, update_id=update_id)
        self.world.deliver(self.agent_at(agent), Update(framework, status, str(latest)))

    @rule(data=st.data())
    def lose_executor(self, data: st.DataObject) -> None:
        agent = data.draw(st.sampled_from(self.agents()))
        framework = data.draw(st.sampled_from(self.frameworks()))
        message = ExecutorLost(agent, ExecutorId("e"), framework_id=framework)
        self.world.deliver(self.agent_at(agent), message)

    # -- frameworks

    @rule(data=st.data(), name=NAMES, node=NODES, again=st.booleans(), failover_ms=st.sampled_from([0, 3_000]))
    def subscribe(self, data: st.DataObject, name: str, node: str, again: bool, failover_ms: int) -> None:
        framework = data.draw(st.sampled_from(self.frameworks())) if again else FrameworkId("")
        roles = data.draw(st.sampled_from([(), (Role("*"),), (Role("*"), Role("ads"))]))
        info = FrameworkInfo(name, roles=roles, failover_timeout_ms=failover_ms)
        self.world.deliver(f"{node}/framework", Subscribe(info, framework, operation_id=OperationId(name)))

    @rule(data=st.data(), refuse_ms=st.sampled_from([-1, 0, 2_000, 10**18]), stale=st.booleans())
    def accept(self, data: st.DataObject, refuse_ms: int, stale: bool) -> None:
        framework = data.draw(st.sampled_from(self.frameworks()))
        offers: list[OfferId] = self.world.master.offers.of_framework(framework)[: data.draw(st.integers(0, 2))]
        if stale:
            offers = [*offers, *(o.offer.offer_id for o in self.world.master.offers.all()), OfferId("m-O1")][:3]
        tasks = []
        for task in data.draw(st.lists(TASKS, max_size=3)):
            executor = EXECUTOR if data.draw(st.booleans()) else None
            command = None if executor else TRUE
            tasks.append(Task(task, data.draw(SIZES), command, executor))
        operations = (Launch(tuple(tasks), OperationId("o")),) * data.draw(st.integers(0, 2))
        filters = Filters(refuse_ms)
        if data.draw(st.booleans()) and not tasks:
            self.world.deliver(self.where(framework), Decline(framework, tuple(offers), filters))
        else:
            self.world.deliver(self.where(framework), Accept(framework, tuple(offers), operations, filters))

    @rule(data=st.data(), task=TASKS, number=NUMBERS)
    def speak(self, data: st.DataObject, task: TaskId, number: int) -> None:
        framework = data.draw(st.sampled_from(self.frameworks()))
        agent = data.draw(st.sampled_from([*self.agents(), AgentId("")]))
        message: Message = data.draw(
            st.sampled_from(
                [
                    Acknowledge(framework, agent, task, UpdateId(f"{task}.c:{number}")),
                    Kill(framework, task, agent, operation_id=OperationId("k")),
                    Reconcile(framework),
                    Reconcile(framework, ((task, agent),)),
                    Revive(framework),
                    Suppress(framework),
                    RequestDemand(framework, (Demand(Role("*"), ONE, number),)),
                    Unsubscribe(framework),
                ]
            )
        )
        self.world.deliver(self.where(framework), message)

    # -- operators and the world

    @rule(data=st.data(), task=TASKS, what=st.sampled_from(["status", "agents", "frameworks", "tasks", "roles", "why"]))
    def operate(self, data: st.DataObject, task: TaskId, what: str) -> None:
        framework = data.draw(st.sampled_from(self.frameworks()))
        agent = data.draw(st.sampled_from(self.agents()))
        message: Message = data.draw(
            st.sampled_from(
                [
                    KillByOperator(OperationId("k"), task),
                    Query(OperationId("q"), what, {"framework_id": framework} if what == "why" else {}),
                    Query(OperationId("q"), "why", {"task_id": task}),
                    SetRoleWeight(OperationId("w"), Role("ads"), 2_000),
                    Teardown(framework, OperationId("t")),
                    MarkAgentGone(OperationId("g"), agent),
                    LeaveAgent(agent),
                ]
            )
        )
        self.world.deliver(self.agent_at(agent) if isinstance(message, LeaveAgent) else "peer:cli/client", message)

    @rule(node=st.sampled_from(["tcp://a:1", "tcp://b:1", "peer:a", "peer:b", "peer:x"]))
    def lose_link(self, node: str) -> None:
        self.world.lose_link(node)

    @rule(ms=st.sampled_from([1, 100, 1_100, 2_500, 6_000]))
    def wait(self, ms: int) -> None:
        self.world.advance(ms)

    @rule(what=st.sampled_from(["restart", "silence", "answer", "answer"]))
    def trouble(self, what: str) -> None:
        if what == "restart":
            self.world.start()
        self.world.registry_answers = what != "silence"

    def teardown(self) -> None:
        """Left alone, the cluster settles: nothing waits for ever once the registry answers."""
        self.world.registry_answers = True
        self.world.advance(30_000)
        assert len(self.world.master.pending) == 0


class DrfCluster(Cluster):
    """The same against the allocator that ships."""

    allocator = DrfAllocator


@pytest.mark.slow
def test_any_order_with_strict_accounting() -> None:
    run_state_machine_as_test(Cluster, settings=settings(max_examples=20, stateful_step_count=25))


@pytest.mark.slow
def test_any_order_with_the_allocator_that_ships() -> None:
    run_state_machine_as_test(DrfCluster, settings=settings(max_examples=10, stateful_step_count=25))


SENDERS = st.sampled_from(["peer:f/framework", "tcp://a:1/agent", "peer:x/y", "/registry", "/master", "", "nonsense"])
PRINCIPALS = st.sampled_from(["cluster", "bob", "executor:c", "anonymous", ""])


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.tuples(SENDERS, messages(), PRINCIPALS), max_size=6))
def test_no_message_from_anybody_makes_the_master_raise(crowd: list[tuple[str, Message, str]]) -> None:
    world = World()
    world.run()

    for sender, message, principal in crowd:
        world.deliver(sender, message, principal)
