"""The driver of custom executors, one event at a time, and its laws under any order of events."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from mesos_actor.actors.actor import CancelTimer, Context, Send, SetTimer, Stop, Watch
from mesos_actor.actors.errors import LocalError, PeerError
from mesos_actor.actors.executor import Executor, ExecutorActor
from mesos_actor.actors.ids import Address, AgentId, ContainerId, ExecutorId, FrameworkId, Node, TaskId, UpdateId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.executors import (
    ExecutorAcknowledged,
    ExecutorRegistered,
    ExecutorUpdate,
    KillExecutorTask,
    LaunchTasks,
    ReconcileExecutor,
    RegisterExecutor,
    ShutdownYourself,
)
from mesos_actor.actors.messages.scheduler import FromExecutor, Posted, Refused, ToExecutor
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

AGENT = Address("tcp://10.0.1.1:5051/agent")
NODE = Node("tcp://10.0.1.1:5051")
FRAMEWORK, EXECUTOR, CONTAINER = FrameworkId("c0-0001"), ExecutorId("e"), ContainerId("e.c")
INFO = ExecutorInfo(EXECUTOR, Command(("python3",)), data=b"hello")
REGISTERED = ExecutorRegistered(AgentId("c0-S1"), INFO, FrameworkInfo("f"))


class Recorder(Executor):
    def __init__(self, **do: Callable[..., None]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.do = do

    def note(self, name: str, *args: Any) -> bool:
        self.calls.append((name, *args))
        if name in self.do:
            self.do[name](self, *args)
        return name in self.do

    def on_registered(self) -> None:
        self.note("on_registered")

    def on_launch(self, task: Task) -> None:
        self.note("on_launch", task.task_id)

    def on_kill(self, task_id: TaskId, grace_s: float) -> None:
        if not self.note("on_kill", task_id, grace_s):
            super().on_kill(task_id, grace_s)

    def on_message(self, data: bytes) -> None:
        self.note("on_message", data)

    def on_disconnected(self) -> None:
        self.note("on_disconnected")

    def on_shutdown(self, grace_s: float) -> None:
        if not self.note("on_shutdown", grace_s):
            super().on_shutdown(grace_s)

    def on_posted(self, value: Any) -> None:
        self.note("on_posted", value)


class Bench:
    def __init__(self, **do: Callable[..., None]) -> None:
        self.executor = Recorder(**do)
        self.driver = ExecutorActor(self.executor, AGENT, FRAMEWORK, EXECUTOR, CONTAINER)
        self.ctx = Context("executor", Node("peer:e1"), 5, random.Random(1))

    def effects(self, event: Callable[[], None]) -> list[Any]:
        self.ctx.effects = []
        event()
        return self.ctx.effects

    def start(self) -> list[Any]:
        return self.effects(lambda: self.driver.on_start(self.ctx))

    def get(self, message: Message, sender: Address = AGENT) -> list[Any]:
        return self.effects(lambda: self.driver.on_message(self.ctx, sender, message))

    def timer(self, name: str) -> list[Any]:
        return self.effects(lambda: self.driver.on_timer(self.ctx, name))

    def lose(self) -> list[Any]:
        return self.effects(lambda: self.driver.on_link_lost(self.ctx, NODE))

    def register(self) -> list[Any]:
        self.start()
        return self.get(REGISTERED)

    def launch(self, *names: str) -> list[Any]:
        return self.get(LaunchTasks(tuple(task(name) for name in names)))


def task(name: str) -> Task:
    return Task(TaskId(name), Resources(), executor=INFO)


def sent(effects: list[Any], kind: type[Message] = Message) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def tell(state: TaskState) -> Callable[..., None]:
    return lambda executor, task_id, *_: executor.update(task_id, state)


def test_it_registers_again_and_again_until_answered() -> None:
    bench = Bench()

    effects = bench.start()
    assert Watch(NODE) in effects
    assert sent(effects) == [RegisterExecutor(FRAMEWORK, EXECUTOR, CONTAINER)]
    assert sent(bench.timer("register")) == [RegisterExecutor(FRAMEWORK, EXECUTOR, CONTAINER)]
    effects = bench.get(REGISTERED)
    assert CancelTimer("register") in effects
    assert bench.executor.calls == [("on_registered",)]
    assert (bench.executor.data, bench.executor.agent_id) == (b"hello", "c0-S1")
    assert bench.timer("register") == []


def test_a_launch_reports_its_states_once_each() -> None:
    bench = Bench(on_launch=tell(TaskState.RUNNING))
    bench.register()

    (told,) = sent(bench.launch("t1"))

    assert isinstance(told, ExecutorUpdate)
    assert (told.status.task_id, told.status.state) == ("t1", TaskState.RUNNING)
    assert told.status.update_id == "e.c:e1"
    assert list(bench.executor.tasks) == ["t1"]


def test_updates_are_repeated_until_the_agent_has_kept_them() -> None:
    bench = Bench(on_launch=tell(TaskState.RUNNING))
    bench.register()
    effects = bench.launch("t1", "t2")
    assert SetTimer("repeat", 5_000_000) in effects

    again = bench.timer("repeat")
    assert [m.status.task_id for m in sent(again, ExecutorUpdate)] == ["t1", "t2"]
    assert SetTimer("repeat", 5_000_000) in again
    assert SetTimer("repeat", 10_000_000) in bench.timer("repeat")
    bench.get(ExecutorAcknowledged(TaskId("t1"), "e.c:e1"))
    assert bench.get(ExecutorAcknowledged(TaskId("t2"), "e.c:e2")) == [CancelTimer("repeat")]
    assert bench.timer("repeat") == []


def test_a_task_delivered_twice_runs_once() -> None:
    bench = Bench(on_launch=tell(TaskState.FINISHED))
    bench.register()

    bench.launch("t1")
    bench.launch("t1")

    assert [call for call in bench.executor.calls if call[0] == "on_launch"] == [("on_launch", "t1")]


def test_an_agent_that_restarts_is_told_what_it_may_not_know() -> None:
    bench = Bench(on_launch=lambda e, t: e.update(t, TaskState.RUNNING) if t != "t3" else None)
    bench.register()
    bench.launch("t1", "t2", "t3")
    bench.get(ExecutorAcknowledged(TaskId("t1"), "e.c:e1"))

    effects = bench.lose()
    assert [e.name for e in effects if isinstance(e, SetTimer)] == ["give-up", "register"]
    (again,) = sent(bench.timer("register"))
    assert again.unacknowledged_tasks == ("t2", "t3")
    assert [s.update_id for s in again.unacknowledged_updates] == ["e.c:e2"]
    effects = bench.get(REGISTERED)
    assert [m.status.update_id for m in sent(effects, ExecutorUpdate)] == ["e.c:e2"]
    assert [call[0] for call in bench.executor.calls][-2:] == ["on_disconnected", "on_registered"]


def test_a_registration_stays_below_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesos_actor.actors.executor.MAX_REGISTRATION_BYTES", 100)
    bench = Bench(on_launch=lambda e, t: e.update(t, TaskState.FINISHED, data=bytes(60)))
    bench.register()
    bench.launch("t1", "t2")
    bench.lose()

    (again,) = sent(bench.timer("register"))

    assert len(again.unacknowledged_updates) == 1
    assert len(sent(bench.get(REGISTERED), ExecutorUpdate)) == 2


def test_an_agent_that_never_returns_is_given_up() -> None:
    bench = Bench(on_launch=tell(TaskState.RUNNING))
    bench.register()
    bench.launch("t1")
    bench.lose()

    effects = bench.timer("give-up")
    assert ("on_shutdown", 4.0) in bench.executor.calls
    assert SetTimer("linger", 3_000_000) in effects
    assert isinstance(bench.timer("linger")[-1], Stop)


def test_a_repeated_kill_troubles_the_author_only_when_it_leaves_less_time() -> None:
    bench = Bench(on_launch=tell(TaskState.RUNNING), on_kill=lambda *_: None)
    bench.register()
    bench.launch("t1")

    for grace_ms in (3_000, 3_000, 5_000, 1_000, 1_000):
        bench.get(KillExecutorTask(TaskId("t1"), grace_ms))

    assert [call for call in bench.executor.calls if call[0] == "on_kill"] == [
        ("on_kill", "t1", 3.0),
        ("on_kill", "t1", 1.0),
    ]


def test_an_agent_that_doubts_is_told_what_is_here() -> None:
    bench = Bench()
    bench.register()
    bench.launch("t1")

    (message,) = sent(bench.get(ReconcileExecutor()))

    assert message == RegisterExecutor(FRAMEWORK, EXECUTOR, CONTAINER, (TaskId("t1"),))
    assert sent(bench.get(REGISTERED)) == []


def test_a_kill_and_a_message_reach_their_callbacks() -> None:
    bench = Bench()
    bench.register()
    bench.launch("t1")

    bench.get(ToExecutor(FRAMEWORK, AgentId("c0-S1"), EXECUTOR, b"hi"))
    (told,) = sent(bench.get(KillExecutorTask(TaskId("t1"), 1_500)))

    assert bench.executor.calls[-2:] == [("on_message", b"hi"), ("on_kill", "t1", 1.5)]
    assert told.status.state is TaskState.KILLED
    assert bench.get(KillExecutorTask(TaskId("t1"), 1_500)) == []


def test_shutdown_reports_every_task_and_ends_when_the_agent_knows() -> None:
    bench = Bench()
    bench.register()
    bench.launch("t1")

    effects = bench.get(ShutdownYourself(5_000))
    (told,) = sent(effects, ExecutorUpdate)
    assert told.status.state is TaskState.KILLED
    assert bench.executor.calls[-1] == ("on_shutdown", 4.0)
    assert bench.get(ShutdownYourself(5_000)) == []
    assert isinstance(bench.get(ExecutorAcknowledged(TaskId("t1"), "e.c:e1"))[-1], Stop)


def test_a_slow_author_is_stopped_within_the_grace() -> None:
    bench = Bench(on_shutdown=lambda e, _grace: None)
    bench.register()

    assert SetTimer("shutdown", 4_000_000) in bench.get(ShutdownYourself(5_000))
    assert isinstance(bench.timer("shutdown")[-1], Stop)


def test_a_message_goes_to_the_framework_through_the_agent() -> None:
    bench = Bench(on_launch=lambda e, _t: e.message(b"yo"))
    bench.register()

    assert sent(bench.launch("t1")) == [FromExecutor(FRAMEWORK, AgentId("c0-S1"), EXECUTOR, b"yo")]


def test_wrong_updates_are_local_errors() -> None:
    def act(executor: Executor, task_id: TaskId) -> None:
        for name, state in (("other", TaskState.RUNNING), (task_id, TaskState.STAGING), (task_id, TaskState.GONE)):
            with pytest.raises(LocalError):
                executor.update(name, state)
        executor.update(task_id, TaskState.FINISHED)
        with pytest.raises(LocalError, match="reported already"):
            executor.update(task_id, TaskState.FINISHED)

    bench = Bench(on_launch=act)
    bench.register()
    bench.launch("t1")

    assert bench.driver.failure is None


def test_a_callback_that_raises_ends_the_process() -> None:
    class Lazy(Executor):
        pass

    driver = ExecutorActor(Lazy(), AGENT, FRAMEWORK, EXECUTOR, CONTAINER)
    ctx = Context("executor", Node("peer:e1"), 5, random.Random(1))
    driver.on_start(ctx)
    driver.on_message(ctx, AGENT, REGISTERED)

    with pytest.raises(NotImplementedError, match="override on_launch"):
        driver.on_message(ctx, AGENT, LaunchTasks((task("t1"),)))
    assert isinstance(driver.failure, NotImplementedError)


def test_an_executor_that_is_not_admitted_ends() -> None:
    bench = Bench()
    bench.start()

    bench.get(Refused("unauthorized", "principal 'x' may not speak", fatal=True))

    assert isinstance(bench.driver.failure, PeerError)


def test_a_posted_result_ends_its_task() -> None:
    bench = Bench(on_posted=lambda e, name: e.update(name, TaskState.FINISHED))
    bench.register()
    bench.launch("t1")
    bench.executor.post("t1")

    (told,) = sent(bench.get(Posted(), sender=Address("/shell")))

    assert told.status.state is TaskState.FINISHED


NAMES = ["t1", "t2", "t3"]
messages: st.SearchStrategy[Message] = st.one_of(
    st.just(REGISTERED),
    st.lists(st.sampled_from(NAMES), max_size=3).map(lambda names: LaunchTasks(tuple(task(n) for n in names))),
    st.builds(KillExecutorTask, st.sampled_from(NAMES).map(TaskId), st.integers(-1, 5_000)),
    st.builds(ExecutorAcknowledged, st.sampled_from(NAMES).map(TaskId), st.integers(1, 9).map(lambda n: f"e.c:e{n}")),
    st.builds(ToExecutor, st.just(FRAMEWORK), st.just(AgentId("a")), st.just(EXECUTOR), st.binary(max_size=2)),
    st.builds(ShutdownYourself, st.integers(-5, 5_000)),
    st.builds(Refused, st.just("full"), st.just("no")),
)
events: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("message"), messages),
    st.tuples(st.just("message"), messages),
    st.tuples(
        st.just("timer"), st.sampled_from(["register", "repeat", "give-up", "shutdown", "linger", "user/x", "?"])
    ),
    st.tuples(st.just("lost"), st.just(None)),
)


@given(st.lists(events, max_size=30))
def test_any_order_of_events_keeps_the_laws(history: list[tuple[str, Any]]) -> None:
    bench = Bench(on_launch=tell(TaskState.RUNNING))
    bench.start()
    waiting: dict[UpdateId, None] = {}
    for kind, body in history:
        ended = bench.driver.ended
        if kind == "message":
            effects = bench.get(body)
        elif kind == "timer":
            effects = bench.timer(body)
        else:
            effects = bench.lose()

        assert not ended or effects == []
        assert bench.driver.failure is None
        for message in sent(effects, ExecutorUpdate):
            waiting[message.status.update_id] = None
        if isinstance(body, ExecutorAcknowledged):
            waiting.pop(UpdateId(body.update_id), None)
        assert set(waiting) <= set(bench.driver.unacknowledged)
        assert list(bench.driver.tasks) == list(bench.executor.tasks)
