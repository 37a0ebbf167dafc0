"""The scheduler of `ClusterExecutor`, one event at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from mesos_actor.actors import callable_framework
from mesos_actor.actors.actor import Context, Send, Stop
from mesos_actor.actors.callable_framework import (
    FILE,
    FORGET,
    MAX_READS,
    MAX_STARTS,
    PIECE_BYTES,
    VALUE,
    WRONG_PYTHON,
    CallableFramework,
    Cancelled,
    Closing,
    FileNote,
    Submitted,
)
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    OfferId,
    OperationId,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import FileData, ReadFile
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Decline,
    ExecutorLost,
    Offers,
    OperationResult,
    Posted,
    Revive,
    Subscribed,
    Suppress,
    Teardown,
    ToExecutor,
    Update,
)
from mesos_actor.actors.messages.values import Command, ExecutorInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.task import Source, TaskState

MASTER = Address("tcp://10.0.0.1:5050/master")
AGENT = AgentId("c0-S1")
SANDBOX = Address("tcp://10.0.1.1:5051/agent")
FRAMEWORK = FrameworkId("c0-0001")
PATTERN = ExecutorInfo(ExecutorId("calls"), Command(("worker",)), Resources.of(cpus=0.1, mem=64), data=b"settings")
SHARE = Resources.of(cpus=1, mem=100)


class Bench:
    def __init__(self, slots: int = 1, retries: int = 0) -> None:
        self.cancelled: set[int] = set()
        self.settled: dict[int, tuple[bytes, str]] = {}
        self.framework = CallableFramework(PATTERN, SHARE, slots, retries, self.claim, self.settle)
        self.driver = FrameworkActor(self.framework, [MASTER])
        self.ctx = Context("framework", Node("peer:f"), 1, random.Random(1))
        self.offers = 0
        self.updates = 0
        self.effects(lambda: self.driver.on_start(self.ctx))
        self.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(1)))

    def claim(self, number: int) -> bool:
        return number not in self.cancelled

    def settle(self, number: int, result: bytes, error: str) -> None:
        assert number not in self.settled
        self.settled[number] = (result, error)

    def effects(self, event: Callable[[], None]) -> list[Any]:
        self.ctx.effects = []
        event()
        assert self.driver.failure is None
        return self.ctx.effects

    def get(self, message: Message, sender: Address = MASTER) -> list[Any]:
        return self.effects(lambda: self.driver.on_message(self.ctx, sender, message))

    def timer(self, name: str) -> list[Any]:
        return self.effects(lambda: self.driver.on_timer(self.ctx, name))

    def post(self, *values: Any) -> list[Any]:
        for value in values:
            self.framework.post(value)
        return self.get(Posted(), Address("/shell"))

    def submit(self, *numbers: int) -> list[Any]:
        return self.post(*(Submitted(number, b"call%d" % number) for number in numbers))

    def offer(self, cpus: float = 4, mem: float = 1000, agent: AgentId = AGENT) -> list[Task]:
        self.offers += 1
        offer = Offer(
            OfferId(f"o{self.offers}"),
            agent,
            "h",
            Role("*"),
            Resources.of(cpus=cpus, mem=mem),
            agent_address=Address("tcp://10.0.1.1:5051/agent"),
        )
        accepted = sent(self.get(Offers((offer,))), Accept)
        return [task for message in accepted for operation in message.operations for task in operation.tasks]

    def update(self, task: Task, state: TaskState, data: bytes = b"", message: str = "") -> list[Any]:
        self.updates += 1
        assert task.executor is not None
        status = Status(
            task.task_id,
            state,
            Source.EXECUTOR,
            message=message,
            agent_id=AGENT,
            executor_id=task.executor.executor_id,
            container_id=ContainerId("w.c"),
            update_id=UpdateId(f"u{self.updates}"),
            data=data,
        )
        return self.get(Update(FRAMEWORK, status))


def sent(effects: list[Any], kind: type[Message]) -> list[Any]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def test_it_takes_no_offers_while_nothing_waits() -> None:
    bench = Bench()

    assert bench.framework.resting
    assert len(sent(bench.submit(1), Revive)) == 1
    (task,) = bench.offer()
    assert bench.framework.resting
    assert task.data == b"call1"
    assert len(sent(bench.submit(2), Revive)) == 1
    assert len(sent(bench.submit(3), Revive)) == 0


def test_calls_fill_an_offer_with_a_worker_for_each_slot() -> None:
    bench = Bench()
    bench.submit(*range(10))

    tasks = bench.offer(cpus=3.5)

    assert len(tasks) == 3
    assert len({task.executor.executor_id for task in tasks if task.executor}) == 3
    assert all(task.resources == SHARE for task in tasks)
    assert bench.offer(cpus=1.05) == []


def test_slots_share_a_worker_and_a_freed_slot_is_used_again() -> None:
    bench = Bench(slots=2)
    bench.submit(1, 2, 3)
    first, second, third = bench.offer()
    assert first.executor == second.executor != third.executor

    bench.update(first, TaskState.FINISHED, VALUE + b"one")
    assert bench.settled == {1: (VALUE + b"one", "")}
    bench.submit(4)
    (fourth,) = bench.offer(cpus=1, mem=100)
    assert fourth.executor == first.executor


def test_a_lost_worker_is_not_used_again() -> None:
    bench = Bench()
    bench.submit(1)
    (task,) = bench.offer()
    bench.update(task, TaskState.FINISHED, VALUE)
    assert task.executor is not None
    bench.get(ExecutorLost(AGENT, task.executor.executor_id, 1))
    bench.submit(2)

    (other,) = bench.offer()

    assert other.executor != task.executor


def test_cancelled_calls_are_not_launched() -> None:
    bench = Bench()
    bench.submit(1, 2, 3)
    bench.cancelled.add(1)
    bench.post(Cancelled(2))

    assert [task.data for task in bench.offer()] == [b"call3"]


@pytest.mark.parametrize("state", [TaskState.FAILED, TaskState.GONE, TaskState.KILLED, TaskState.UNKNOWN])
def test_a_call_whose_worker_died_fails_unless_retries_are_left(state: TaskState) -> None:
    bench = Bench(retries=1)
    bench.submit(1)
    (task,) = bench.offer()

    bench.update(task, state)
    (again,) = bench.offer()
    assert (again.task_id, again.data) == ("call-1-1", b"call1")
    bench.update(again, state, message="the executor has ended")

    assert list(bench.settled) == [1]
    assert "the worker was lost on agent c0-S1" in bench.settled[1][1]
    assert "the executor has ended" in bench.settled[1][1]


def test_a_call_that_never_started_is_launched_again_within_bounds() -> None:
    bench = Bench()
    bench.submit(1)

    for _ in range(MAX_STARTS):
        assert not bench.settled
        (task,) = bench.offer()
        bench.update(task, TaskState.DROPPED, message="offer gone")

    assert "offer gone" in bench.settled[1][1]


def test_a_call_that_the_cluster_refuses_fails_with_its_words() -> None:
    bench = Bench(retries=3)
    bench.submit(1)
    (task,) = bench.offer()

    bench.update(task, TaskState.ERROR, message="Task uses more than available")

    assert "Task uses more than available" in bench.settled[1][1]


def test_an_agent_with_another_python_is_avoided() -> None:
    bench = Bench()
    bench.submit(1)
    (task,) = bench.offer()
    bench.update(task, TaskState.FAILED, WRONG_PYTHON + b"runs Python 3.9, ours is 3.11")

    assert not bench.settled
    assert bench.offer() == []
    (elsewhere,) = bench.offer(agent=AgentId("c0-S2"))
    bench.timer("user/refusal")
    assert not bench.settled
    bench.update(elsewhere, TaskState.FINISHED, VALUE)
    assert list(bench.settled) == [1]


def test_when_every_agent_has_another_python_the_calls_fail_by_name() -> None:
    bench = Bench()
    bench.submit(1, 2)
    for task in bench.offer():
        bench.update(task, TaskState.FAILED, WRONG_PYTHON + b"runs Python 3.9")

    bench.timer("user/refusal")

    assert sorted(bench.settled) == [1, 2]
    assert "agent c0-S1: runs Python 3.9" in bench.settled[1][1]


def note(size: int) -> bytes:
    return FILE + msgspec.msgpack.encode(FileNote("results/call-1", size))


def piece(task: Task, offset: int, data: bytes = b"", error: str = "") -> FileData:
    return FileData(OperationId(f"{task.task_id}/{offset}"), offset, 9, data, error)


def test_a_long_result_is_read_in_pieces_and_then_forgotten() -> None:
    bench = Bench()
    bench.submit(1)
    (task,) = bench.offer()

    (ask,) = sent(bench.update(task, TaskState.FINISHED, note(7)), ReadFile)
    assert (ask.path, ask.offset_bytes, ask.length_bytes) == ("results/call-1", 0, PIECE_BYTES)
    (ask,) = sent(bench.get(piece(task, 0, b"Vabc"), SANDBOX), ReadFile)
    assert ask.offset_bytes == 4
    bench.get(piece(task, 0, b"Vabc"), SANDBOX)
    effects = bench.get(piece(task, 4, b"def"), SANDBOX)

    assert bench.settled == {1: (b"Vabcdef", "")}
    assert [message.data for message in sent(effects, ToExecutor)] == [FORGET + b"call-1"]


def test_a_result_that_cannot_be_read_fails_its_call_after_some_questions() -> None:
    bench = Bench()
    bench.submit(1)
    (task,) = bench.offer()
    bench.update(task, TaskState.FINISHED, note(7))
    bench.get(piece(task, 0, error="no such file"), SANDBOX)

    asked = 0
    while not bench.settled:
        bench.timer("user/read/call-1")
        asked += 1

    assert asked == 6
    assert "no such file" in bench.settled[1][1]


def test_long_results_wait_for_their_turn() -> None:
    bench = Bench()
    bench.submit(*range(MAX_READS + 1))
    tasks = bench.offer(cpus=100, mem=10_000)
    for task in tasks:
        bench.update(task, TaskState.FINISHED, note(1))
    assert len(bench.framework.reads) == MAX_READS

    effects = bench.get(piece(tasks[0], 0, VALUE), SANDBOX)

    assert len(sent(effects, ReadFile)) == 1
    assert len(bench.framework.reads) == MAX_READS


def test_closing_waits_for_what_runs_and_drops_what_waits_on_request() -> None:
    bench = Bench()
    bench.submit(1, 2)
    (task,) = bench.offer(cpus=1.1)
    bench.post(Closing(drop=True))
    assert bench.driver.teardown is None

    effects = bench.update(task, TaskState.FINISHED, VALUE)

    (teardown,) = sent(effects, Teardown)
    assert isinstance(bench.get(OperationResult(teardown.operation_id, True))[-1], Stop)


def test_closing_with_nothing_to_do_stops_at_once() -> None:
    bench = Bench()

    assert len(sent(bench.post(Closing(drop=False)), Teardown)) == 1


def test_nothing_is_offered_in_vain_after_the_last_call(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    bench.submit(1)
    bench.cancelled.add(1)
    bench.offers += 1
    offer = Offer(OfferId("o9"), AGENT, "h", Role("*"), Resources.of(cpus=2, mem=999))

    effects = bench.get(Offers((offer,)))

    assert len(sent(effects, Decline)) == 1
    assert len(sent(effects, Suppress)) == 1
    assert TaskId("call-1") not in bench.framework.launched


def test_no_more_calls_are_launched_at_once_than_one_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callable_framework, "MAX_TASKS_BYTES", 10_000)
    bench = Bench()
    bench.post(*(Submitted(number, bytes(4_000)) for number in range(3)))

    assert [task.task_id for task in bench.offer()] == ["call-0", "call-1"]
    assert bench.framework.cut_short
    assert [task.task_id for task in bench.offer()] == ["call-2"]
    assert not bench.framework.cut_short


def test_a_call_that_no_message_holds_fails_and_the_next_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callable_framework, "MAX_TASKS_BYTES", 10_000)
    bench = Bench()
    bench.post(Submitted(0, bytes(10_001)), Submitted(1, b"small"))

    assert [task.task_id for task in bench.offer()] == ["call-1"]
    assert bench.settled[0][1].startswith("the call takes 10")
