"""The agent under any order of events and a crash at any handler: every task ends exactly once, and truly.

A containerizer that answers in any order and outlives the agent, an executor that does likewise, a master that loses
its link, and a disk that keeps what was persisted. A crash comes before a handler's effects, after its records were
kept, or after some of its messages left.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from mesos_actor.actors.actor import CancelTimer, Context, Persist, Send, SetTimer
from mesos_actor.actors.agent import Agent
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    Principal,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, KillTask, RegisterAgent, Registered, RunTasks
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
    RecoveredContainer,
)
from mesos_actor.actors.messages.executors import (
    ExecutorAcknowledged,
    ExecutorUpdate,
    KillExecutorTask,
    LaunchTasks,
    RegisterExecutor,
    ShutdownYourself,
)
from mesos_actor.actors.messages.records import TaskRecord
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Status, Task
from mesos_actor.actors.resources import Resource, Resources
from mesos_actor.actors.task import TERMINAL, Source, TaskState

pytestmark = pytest.mark.slow

MASTER = Address("tcp://m:1/master")
AGENT_NODE = Node("tcp://a:1")
PORT = Address("/containerizer")
F = FrameworkId("f-0000")
CPUS = Resources((Resource("cpus", 1_000),))
SETTINGS = AgentSettings(hostname="h", masters=(MASTER,), resources=CPUS)
RUNNER = ExecutorInfo(ExecutorId("e"), Command(("run",)))


class Container:
    """What the launcher knows of one container; only `running` and `exited` ones outlive the agent's process."""

    def __init__(self, launch: LaunchContainer) -> None:
        self.launch = launch
        self.phase = "preparing"
        self.killed = False
        self.exit_status: int | None = None
        self.signal: int | None = None
        self.executor: ExecutorProcess | None = None

    def exited(self) -> ContainerExited:
        return ContainerExited(self.launch.container_id, self.exit_status, self.signal, self.killed)

    def end(self, exit_status: int | None) -> None:
        self.phase = "exited"
        if exit_status is None:
            self.signal = 15
        else:
            self.exit_status = exit_status


class ExecutorProcess:
    """A custom executor: keeps tasks and updates until they are acknowledged, registers whenever its agent is new."""

    def __init__(self, container_id: ContainerId, number: int) -> None:
        self.container_id = container_id
        self.address = Address(f"peer:{number}/executor")
        self.tasks: dict[TaskId, TaskState] = {}
        self.unacknowledged: dict[str, Status] = {}
        self.names = 0
        self.told: set[TaskId] = set()

    def registration(self) -> RegisterExecutor:
        unheard = tuple(t for t in self.tasks if t not in self.told)
        return RegisterExecutor(F, ExecutorId("e"), self.container_id, unheard, tuple(self.unacknowledged.values()))

    def tell(self, task_id: TaskId, state: TaskState) -> ExecutorUpdate:
        self.names += 1
        self.tasks[task_id] = state
        status = Status(task_id, state, Source.EXECUTOR, update_id=UpdateId(f"u{self.names}"))
        self.unacknowledged[status.update_id] = status
        return ExecutorUpdate(F, ExecutorId("e"), status)


class Cluster(RuleBasedStateMachine):
    """The agent and all that speaks with it."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.now_us = 1_000_000
        self.rng = random.Random(seed)
        self.disk: dict[str, Record] = {}
        self.containers: dict[ContainerId, Container] = {}
        self.true_exit: dict[TaskId, Container] = {}
        self.launched_as: dict[TaskId, ContainerId] = {}
        self.numbers = 0
        # The master and framework, as one.
        self.launched: dict[TaskId, Task] = {}
        self.accepted: set[TaskId] = set()
        self.seen: dict[UpdateId, Status] = {}
        self.ends: dict[TaskId, set[UpdateId]] = {}
        self.order: dict[TaskId, list[UpdateId]] = {}
        self.registered = False
        self.start()
        self.master_takes(lose_answer=False)
        self.agent_hears_the_network(crash=None)

    # -- the agent's process ----------------------------------------------------------------------------------------

    def start(self) -> None:
        self.timers: dict[str, int] = {}
        self.to_agent: deque[tuple[Address, Message]] = deque()
        self.to_port: deque[Message] = deque()
        self.from_port: deque[Message] = deque()
        self.to_master: deque[Message] = deque()
        self.to_executors: deque[tuple[Address, Message]] = deque()
        self.registered = False
        for container_id, container in list(self.containers.items()):
            if container.phase == "preparing":
                del self.containers[container_id]
        self.agent = Agent(SETTINGS)
        ctx = self.context()
        self.agent.on_start(ctx)
        self.carry_out(ctx)
        for container in self.containers.values():
            if container.executor is not None and container.phase == "running":
                self.to_agent.append((container.executor.address, container.executor.registration()))

    def context(self) -> Context:
        ctx = Context("agent", AGENT_NODE, self.now_us, self.rng, dict(self.disk))
        ctx.principal = Principal("local")
        return ctx

    def carry_out(self, ctx: Context, sends: int | None = None, keep: bool = True) -> None:
        """Everything; or, of a handler in which the process dies, nothing, or its records and so many messages."""
        for effect in ctx.effects:
            if isinstance(effect, Persist) and keep:
                if effect.record is None:
                    self.disk.pop(effect.key, None)
                else:
                    self.disk[effect.key] = effect.record
                    if isinstance(effect.record, TaskRecord):
                        self.accepted.add(effect.record.task.task_id)
            elif isinstance(effect, SetTimer):
                self.timers[effect.name] = self.now_us + effect.delay_us
            elif isinstance(effect, CancelTimer):
                self.timers.pop(effect.name, None)
        wanted = [e for e in ctx.effects if isinstance(e, Send)]
        for effect in wanted if sends is None else wanted[:sends]:
            self.route(effect.to, effect.message)

    def route(self, to: Address, message: Message) -> None:
        if to == PORT:
            self.to_port.append(message)
        elif to == MASTER:
            self.to_master.append(message)
        elif to.startswith("peer:"):
            self.to_executors.append((to, message))

    def handle(self, sender: Address, message: Message, crash: int | None = None) -> None:
        """One handler. `crash`: 0 dies before any effect, n after its records and n - 1 messages."""
        ctx = self.context()
        self.agent.on_message(ctx, sender, message)
        self.finish(ctx, crash)

    def finish(self, ctx: Context, crash: int | None) -> None:
        if crash is None:
            self.carry_out(ctx)
            return
        self.carry_out(ctx, sends=max(0, crash - 1), keep=crash > 0)
        # What had left the process reaches those that outlive it.
        while self.to_master:
            self.master_takes(lose_answer=True)
        while self.to_executors:
            self.executor_takes(answer=False)
        self.start()

    # -- the master and the framework -------------------------------------------------------------------------------

    @rule(custom=st.booleans(), limit=st.booleans(), count=st.integers(1, 3))
    @precondition(lambda self: self.registered)
    def launch(self, custom: bool, limit: bool, count: int) -> None:
        tasks = []
        for _ in range(count):
            self.numbers += 1
            name = TaskId(f"t{self.numbers}")
            milliseconds = 1_000 if limit else 0
            task = Task(name, CPUS, executor=RUNNER, max_completion_ms=milliseconds)
            if not custom:
                task = Task(name, CPUS, Command(("true",)), max_completion_ms=milliseconds)
            self.launched[name] = task
            tasks.append(task)
        self.to_agent.append((MASTER, RunTasks(Term(1), F, FrameworkInfo("f"), Role("*"), tuple(tasks))))

    @rule(pick=st.integers(0, 20))
    @precondition(lambda self: self.registered and self.launched)
    def kill(self, pick: int) -> None:
        names = list(self.launched)
        self.to_agent.append((MASTER, KillTask(Term(1), F, names[pick % len(names)])))

    @rule(count=st.integers(1, 6))
    @precondition(lambda self: self.to_master)
    def answers_are_lost(self, count: int) -> None:
        for _ in range(min(count, len(self.to_master))):
            self.master_takes(lose_answer=True)

    def master_takes(self, lose_answer: bool) -> None:
        message = self.to_master.popleft()
        if isinstance(message, RegisterAgent) and not lose_answer:
            held = {report.task_id for report in message.tasks}
            missing = tuple((F, t) for t in self.launched if t not in held and t not in self.ends)
            self.registered = True
            self.to_agent.append(
                (MASTER, Registered(AgentId("S1"), ClusterId("c"), Term(1), 60_000, missing, message.attempt))
            )
        elif isinstance(message, Update):
            self.framework_sees(message.status, lose_answer)

    def framework_sees(self, status: Status, lose_answer: bool) -> None:
        if not status.update_id:
            self.ends.setdefault(status.task_id, set())
            return
        if status.after_update_id and status.after_update_id not in self.seen:
            return
        if status.update_id not in self.seen:
            self.seen[status.update_id] = status
            self.order.setdefault(status.task_id, []).append(status.update_id)
            if status.state in TERMINAL:
                self.ends.setdefault(status.task_id, set()).add(status.update_id)
        if not lose_answer:
            self.to_agent.append((MASTER, AcknowledgeUpdate(F, status.task_id, status.update_id)))

    @rule()
    @precondition(lambda self: self.registered)
    def break_link(self) -> None:
        self.registered = False
        self.to_master.clear()
        self.to_agent = deque((s, m) for s, m in self.to_agent if s != MASTER)
        ctx = self.context()
        self.agent.on_link_lost(ctx, Node("tcp://m:1"))
        self.carry_out(ctx)

    # -- the agent's turn -------------------------------------------------------------------------------------------

    @rule(steps=st.integers(1, 40), seed=st.integers(0, 2**16))
    def life_goes_on(self, steps: int, seed: int) -> None:
        """So many small things happen, of those that can happen now; sooner or later in any order."""
        chance = random.Random(seed)
        for _ in range(steps):
            can = self.possible()
            if not can:
                return
            chance.choice(can)()
            self.no_task_ends_twice()

    def possible(self) -> list[Callable[[], None]]:
        """One step each. Ending and waiting are rarer than the rest, or nothing would ever run."""
        can: list[Callable[[], None]] = []
        if self.to_agent:
            can += [lambda: self.agent_hears_the_network(None)] * 3
        if self.from_port:
            can += [lambda: self.agent_hears_the_containerizer(None)] * 3
        if self.to_port:
            can += [self.containerizer_takes] * 3
        if self.to_executors:
            can += [lambda: self.executor_takes(answer=True)] * 3
        if self.to_master:
            can += [lambda: self.master_takes(lose_answer=False)] * 3
        if any(c.phase == "preparing" for c in self.containers.values()):
            can += [lambda: self.container_starts(0, False)] * 2
        if self.executors():
            can += [lambda: self.executor_tells(0, False), lambda: self.executor_tells(0, True), self.executor_repeats]
        if any(c.phase == "running" for c in self.containers.values()):
            can += [lambda: self.container_ends(0, 1)]
        return can

    @rule(crash=st.integers(0, 4), port=st.booleans())
    @precondition(lambda self: self.to_agent or self.from_port)
    def agent_dies_in_a_handler(self, crash: int, port: bool) -> None:
        if self.from_port and (port or not self.to_agent):
            self.agent_hears_the_containerizer(crash)
        else:
            self.agent_hears_the_network(crash)

    def agent_hears_the_network(self, crash: int | None) -> None:
        sender, message = self.to_agent.popleft()
        self.handle(sender, message, crash)

    def agent_hears_the_containerizer(self, crash: int | None) -> None:
        self.handle(PORT, self.from_port.popleft(), crash)

    @rule(crash=st.one_of(st.none(), st.none(), st.integers(0, 4)))
    @precondition(lambda self: self.timers)
    def time_passes(self, crash: int | None = None) -> None:
        name = min(self.timers, key=lambda n: self.timers[n])
        self.now_us = max(self.now_us, self.timers.pop(name))
        ctx = self.context()
        self.agent.on_timer(ctx, name)
        self.finish(ctx, crash)

    @rule()
    def crash_between_handlers(self) -> None:
        self.start()

    # -- the containerizer ------------------------------------------------------------------------------------------

    def containerizer_takes(self) -> None:
        message = self.to_port.popleft()
        if isinstance(message, LaunchContainer):
            assert message.container_id not in self.containers
            self.containers[message.container_id] = Container(message)
            task_id = TaskId(message.env.get("MESOS_TASK_ID", ""))
            if task_id:
                assert task_id not in self.launched_as, "launched twice"
                self.launched_as[task_id] = message.container_id
                self.true_exit[task_id] = self.containers[message.container_id]
        elif isinstance(message, KillContainer) and message.container_id in self.containers:
            self.containers[message.container_id].killed = True
        elif isinstance(message, ForgetContainer):
            container = self.containers.pop(message.container_id, None)
            assert container is None or container.phase == "exited", "forgotten while it ran"
        elif isinstance(message, RecoverContainers):
            self.recover(message)

    def recover(self, message: RecoverContainers) -> None:
        for container_id, container in list(self.containers.items()):
            if container_id not in message.container_ids:
                assert container.phase != "running", "an orphan: a running container that the agent forgot"
                del self.containers[container_id]
        known = tuple(
            RecoveredContainer(c, found.phase == "running", 1, found.exit_status, found.signal, found.killed)
            for c, found in self.containers.items()
        )
        self.from_port.append(ContainersRecovered(known))

    def pick(self, phase: str, pick: int) -> Container | None:
        found = [c for c in self.containers.values() if c.phase == phase]
        return found[pick % len(found)] if found else None

    @rule(pick=st.integers(0, 5), fail=st.booleans())
    @precondition(lambda self: self.containers)
    def container_starts(self, pick: int, fail: bool) -> None:
        container = self.pick("preparing", pick)
        if container is None:
            return
        container_id = container.launch.container_id
        if container.killed or fail:
            container.end(None)
            self.from_port.append(ContainerFailed(container_id, "spawn", "no"))
            return
        container.phase = "running"
        self.from_port.append(ContainerStarted(container_id, 1))
        if container.launch.executor:
            self.numbers += 1
            container.executor = ExecutorProcess(container_id, self.numbers)
            self.to_agent.append((container.executor.address, container.executor.registration()))

    @rule(pick=st.integers(0, 5), status=st.sampled_from([0, 0, 1, None]))
    @precondition(lambda self: self.containers)
    def container_ends(self, pick: int, status: int | None) -> None:
        container = self.pick("running", pick)
        if container is not None:
            container.end(status)
            if container.executor is not None:
                address = container.executor.address
                self.to_agent = deque((s, m) for s, m in self.to_agent if s != address)
            self.from_port.append(container.exited())

    # -- the executor -----------------------------------------------------------------------------------------------

    def executors(self) -> list[ExecutorProcess]:
        return [c.executor for c in self.containers.values() if c.executor is not None and c.phase == "running"]

    def executor_takes(self, answer: bool) -> None:
        to, message = self.to_executors.popleft()
        for executor in self.executors():
            if executor.address != to:
                continue
            if isinstance(message, LaunchTasks):
                for task in message.tasks:
                    assert task.task_id not in executor.tasks, "delivered twice"
                    executor.tasks[task.task_id] = TaskState.STAGING
            elif isinstance(message, ExecutorAcknowledged):
                if executor.unacknowledged.pop(message.update_id, None) is not None:
                    executor.told.add(message.task_id)
            elif isinstance(message, ShutdownYourself):
                container = self.containers[executor.container_id]
                container.end(0)
                if answer:
                    self.from_port.append(container.exited())
            elif isinstance(message, KillExecutorTask):
                state = executor.tasks.get(message.task_id)
                if state is not None and state not in TERMINAL:
                    update = executor.tell(message.task_id, TaskState.KILLED)
                    if answer:
                        self.to_agent.append((executor.address, update))

    def executor_tells(self, pick: int, end: bool) -> None:
        for executor in self.executors():
            live = [t for t, state in executor.tasks.items() if state not in TERMINAL]
            if live:
                state = TaskState.FINISHED if end else TaskState.RUNNING
                self.to_agent.append((executor.address, executor.tell(live[pick % len(live)], state)))

    def executor_repeats(self) -> None:
        for executor in self.executors():
            for status in executor.unacknowledged.values():
                self.to_agent.append((executor.address, ExecutorUpdate(F, ExecutorId("e"), status)))

    # -- the laws ---------------------------------------------------------------------------------------------------

    @invariant()
    def no_task_ends_twice(self) -> None:
        for task_id, ends in getattr(self, "ends", {}).items():
            assert len(ends) <= 1, task_id

    @invariant()
    def nothing_follows_an_end(self) -> None:
        for ids in getattr(self, "order", {}).values():
            assert all(self.seen[i].state not in TERMINAL for i in ids[:-1])

    @invariant()
    def every_container_has_its_record(self) -> None:
        """Nothing runs here that a restart would not find."""
        kept = {getattr(record, "container_id", None) for record in getattr(self, "disk", {}).values()}
        for container_id, container in getattr(self, "containers", {}).items():
            assert container.phase == "exited" or container_id in kept

    def teardown(self) -> None:
        if not hasattr(self, "agent"):
            return
        for _ in range(400):
            self.drain()
            if self.registered and len(self.disk) == 1 and not self.containers and not self.to_agent:
                break
            self.now_us += 10_000_000
            self.time_passes()
        assert list(self.disk) == ["identity"]
        assert self.containers == {}
        for task_id in self.accepted:
            assert len(self.ends[task_id]) == 1, task_id
        for task_id in self.launched:
            assert task_id in self.ends
        self.check_truth()

    def drain(self) -> None:
        """A quiet, kind world: everything is delivered, everything that runs ends well."""
        for _ in range(1_000):
            if self.to_agent:
                self.agent_hears_the_network(crash=None)
            elif self.from_port:
                self.agent_hears_the_containerizer(crash=None)
            elif self.to_port:
                self.containerizer_takes()
            elif self.to_executors:
                self.executor_takes(answer=True)
            elif self.to_master:
                self.master_takes(lose_answer=False)
            elif any(c.phase == "preparing" for c in self.containers.values()):
                self.container_starts(0, False)
            elif any(c.phase == "running" for c in self.containers.values()):
                self.container_ends(0, 0)
            else:
                return

    def check_truth(self) -> None:
        """What was told of a command that ran is what happened to it."""
        for task_id, container in self.true_exit.items():
            ended = [self.seen[i] for i in self.ends.get(task_id, ())]
            for status in ended:
                if status.state is TaskState.DROPPED:
                    assert container.phase == "preparing"
                elif container.exit_status is not None:
                    assert status.exit_status == container.exit_status
                    assert (status.state is TaskState.FINISHED) == (container.exit_status == 0)
                elif container.phase == "exited":
                    assert status.state in (TaskState.FAILED, TaskState.KILLED)


TestAgent = Cluster.TestCase
TestAgent.settings = settings(max_examples=60, stateful_step_count=15)
