"""`ClusterExecutor` and its worker, against a master that runs the worker's code itself."""

from __future__ import annotations

import asyncio
import operator
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor, wait
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesos_actor.actors.actor import Actor, Context, Send, SetTimer, Stop, handles
from mesos_actor.actors.callable_executor import CallableExecutor
from mesos_actor.actors.callable_framework import FAILURE, FILE, FORGET, VALUE, WRONG_PYTHON, FileNote, WorkerSettings
from mesos_actor.actors.cluster_executor import ClusterExecutor, RemoteError, RemoteTraceback, WorkerLost
from mesos_actor.actors.errors import ConfigError, InvalidInput
from mesos_actor.actors.executor import ExecutorActor
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    OfferId,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.executors import (
    ExecutorRegistered,
    ExecutorUpdate,
    KillExecutorTask,
    LaunchTasks,
)
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Offers,
    OperationResult,
    Posted,
    Refused,
    Revive,
    Subscribe,
    Subscribed,
    Teardown,
    ToExecutor,
    Update,
)
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

FRAMEWORK, AGENT = FrameworkId("c0-0001"), AgentId("c0-S1")
PYTHON = (sys.version_info[0], sys.version_info[1])


# -- the whole, with a small master -----------------------------------------------------------------------------------


class InstantCluster(Actor):
    """Offers on demand, runs every call at once with a worker's own code; `die` in a call's data loses the worker."""

    def __init__(self, sandbox: Path) -> None:
        self.worker = CallableExecutor(sandbox)
        self.worker.settings = WorkerSettings(PYTHON, 1)
        self.offers = 0
        self.client = Address("")
        self.hold = False
        self.refuse = False

    def offer(self, ctx: Context) -> None:
        self.offers += 1
        resources = Resources.of(cpus=4, mem=4096)
        offer = Offer(OfferId(f"o{self.offers}"), AGENT, "h", Role("*"), resources)
        ctx.send(self.client, Offers((offer,)))

    @handles(Subscribe)
    def on_subscribe(self, ctx: Context, sender: Address, message: Subscribe) -> None:
        self.client = sender
        if self.refuse:
            ctx.send(sender, Refused("unauthorized", "not you", fatal=True))
        else:
            ctx.send(sender, Subscribed(FRAMEWORK, ClusterId("c0"), Term(1), message.operation_id))
            self.offer(ctx)

    @handles(Revive)
    def on_revive(self, ctx: Context, sender: Address, message: Revive) -> None:
        if not self.hold:
            self.offer(ctx)

    @handles(Accept)
    def on_accept(self, ctx: Context, sender: Address, message: Accept) -> None:
        for task in message.operations[0].tasks:
            if b"never_returns" in task.data:
                state, result = TaskState.FAILED, b""
            else:
                result, raised = self.worker._outcome(task.task_id, task.data)
                state = TaskState.FAILED if raised else TaskState.FINISHED
            update = UpdateId(f"{task.task_id}:1")
            status = Status(task.task_id, state, Source.EXECUTOR, agent_id=AGENT, update_id=update, data=result)
            ctx.send(sender, Update(FRAMEWORK, status))
        self.offer(ctx)

    @handles(Teardown)
    def on_teardown(self, ctx: Context, sender: Address, message: Teardown) -> None:
        ctx.send(sender, OperationResult(message.operation_id, True))


class Served:
    """The small cluster in a thread of its own."""

    def __init__(self, cluster: InstantCluster) -> None:
        self.cluster = cluster
        self.ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self.main()))
        self.thread.start()
        assert self.ready.wait(10)

    async def main(self) -> None:
        def transport(deliver: Deliver, lost: LinkLost) -> Transport:
            return ZmqTransport(security=None, on_deliver=deliver, on_link_lost=lost, listen="tcp://127.0.0.1:0")

        self.runtime = Runtime(transport=transport, log=MemoryLog())
        self.runtime.spawn("master", lambda: self.cluster)
        async with self.runtime:
            assert self.runtime.transport is not None
            self.node = self.runtime.transport.node
            self.ready.set()
            await self.runtime.wait()

    def close(self) -> None:
        self.runtime.call_threadsafe(self.runtime.request_stop)
        self.thread.join(10)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    made = Served(InstantCluster(tmp_path))
    yield made
    made.close()


def executor(served: Served, **options: Any) -> ClusterExecutor:
    return ClusterExecutor(served.node, insecure=True, log=MemoryLog(), **options)


def fails(text: str) -> None:
    raise LookupError(text)


class Awkward(Exception):
    """Cannot be unpickled: its arguments are not those of its base."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def awkward() -> None:
    raise Awkward(1, 2)


def never_returns() -> None:
    raise SystemExit


@pytest.mark.zmq
def test_results_come_back(served: Served) -> None:
    factor = 3
    with executor(served) as pool:
        futures = [pool.submit(lambda x: x * factor, number) for number in range(20)]

        assert [future.result(10) for future in futures] == [number * 3 for number in range(20)]
        assert pool.submit(pow, 2, exp=5).result(10) == 32


@pytest.mark.zmq
def test_exceptions_come_back_with_the_traceback_of_the_worker(served: Served) -> None:
    with executor(served) as pool:
        error = pool.submit(fails, "gone").exception(10)
        strange = pool.submit(awkward).exception(10)

    assert isinstance(error, LookupError) and error.args == ("gone",)
    assert isinstance(error.__cause__, RemoteTraceback)
    assert "in fails" in str(error.__cause__)
    assert isinstance(strange, RemoteError) and "Awkward: 1 and 2" in str(strange)


@pytest.mark.zmq
@pytest.mark.parametrize("chunksize", [1, 7])
def test_map_keeps_the_order(served: Served, chunksize: int) -> None:
    with executor(served) as pool:
        result = list(pool.map(operator.add, range(20), range(100, 120), chunksize=chunksize))

    assert result == [100 + 2 * number for number in range(20)]


@pytest.mark.zmq
def test_a_lost_worker_breaks_its_own_call_only(served: Served) -> None:
    with executor(served) as pool:
        lost, fine = pool.submit(never_returns), pool.submit(abs, -1)

        assert isinstance(lost.exception(10), WorkerLost)
        assert isinstance(lost.exception(), BrokenExecutor)
        assert fine.result(10) == 1
        assert pool.submit(abs, -2).result(10) == 2


@pytest.mark.zmq
def test_waiting_calls_can_be_cancelled(served: Served) -> None:
    with executor(served) as pool:
        assert pool.submit(abs, 0).result(10) == 0
        served.cluster.hold = True
        waiting = [pool.submit(abs, number) for number in range(40)]
        cancelled = [future.cancel() for future in waiting]
        pool.shutdown(cancel_futures=True)

    assert sum(cancelled) > 0
    assert wait(waiting, 1).not_done == set()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)


@pytest.mark.zmq
def test_submit_waits_while_too_many_calls_are_unfinished(served: Served) -> None:
    with executor(served, max_pending=2) as pool:
        futures = [pool.submit(abs, number) for number in range(30)]
        done, _ = wait(futures, 10)

    assert len(done) == 30


@pytest.mark.zmq
def test_a_scheduler_that_is_refused_breaks_everything_with_the_reason(served: Served) -> None:
    served.cluster.refuse = True
    with executor(served) as pool:
        try:
            error = pool.submit(abs, 1).exception(10)
        except BrokenExecutor as raised:
            error = raised
        assert isinstance(error, BrokenExecutor)
        assert "unauthorized: not you" in str(error)
        with pytest.raises(BrokenExecutor, match="not you"):
            pool.submit(abs, 2)


@pytest.mark.zmq
def test_calls_that_cannot_be_sent_say_why(served: Served) -> None:
    with executor(served) as pool:
        with pytest.raises(InvalidInput, match="at most"):
            pool.submit(len, bytes(5 << 20))
        with pytest.raises(TypeError, match="pickle"):
            pool.submit(id, threading.Lock())
        with pytest.raises(ValueError, match="chunksize"):
            pool.map(abs, [1], chunksize=0)


def test_wrong_options_are_named() -> None:
    wrong: list[dict[str, Any]] = [{"slots": 0}, {"retries": -1}, {"max_pending": 0}]
    for options in wrong:
        with pytest.raises(InvalidInput, match=next(iter(options))):
            ClusterExecutor(insecure=True, **options)
    with pytest.raises(ConfigError, match="roles"):
        ClusterExecutor(insecure=True, role="bad role", log=MemoryLog())


# -- the worker -------------------------------------------------------------------------------------------------------

INFO = ExecutorInfo(ExecutorId("calls-0"), Command(("python3",)))
SIDE = Address("tcp://10.0.1.1:5051/agent")


class Worker:
    """A worker's driver without a world."""

    def __init__(self, sandbox: Path, settings: WorkerSettings) -> None:
        self.executor = CallableExecutor(sandbox)
        self.driver = ExecutorActor(self.executor, SIDE, FRAMEWORK, INFO.executor_id, ContainerId("c"))
        self.ctx = Context("executor", Node("peer:e"), 1, random.Random(1))
        self.driver.on_start(self.ctx)
        info = msgspec.structs.replace(INFO, data=msgspec.msgpack.encode(settings))
        self.get(ExecutorRegistered(AGENT, info, FrameworkInfo("f")))

    def get(self, message: Message, sender: Address = SIDE) -> list[Any]:
        self.ctx.effects = []
        self.driver.on_message(self.ctx, sender, message)
        assert self.driver.failure is None
        return self.ctx.effects

    def launch(self, name: str, *call: Any) -> list[Any]:
        import cloudpickle

        return self.get(LaunchTasks((Task(TaskId(name), Resources(), executor=INFO, data=cloudpickle.dumps(call)),)))

    def result(self) -> Status:
        """What is told when the call's thread has posted."""
        while not self.executor._posted:
            threading.Event().wait(0.001)
        (told,) = [e.message for e in self.get(Posted(), Address("/x")) if isinstance(e, Send)]
        assert isinstance(told, ExecutorUpdate)
        return told.status


def hold(executor: CallableExecutor, gate: threading.Event) -> None:
    """Calls take until the gate opens."""

    def outcome(task_id: TaskId, data: bytes) -> tuple[bytes, str]:
        return (VALUE if gate.wait(10) else b"", "")

    executor._outcome = outcome  # type: ignore[method-assign]


def told_by(effects: list[Any]) -> list[Status]:
    return [e.message.status for e in effects if isinstance(e, Send) and isinstance(e.message, ExecutorUpdate)]


def test_a_worker_runs_a_call_in_a_thread_and_tells_the_end(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings(PYTHON, 1))

    effects = worker.launch("t1", threading.get_ident, (), {})
    assert [e for e in effects if isinstance(e, Send)] == []
    assert SetTimer("user/t1", 500_000) in effects
    status = worker.result()

    assert status.state is TaskState.FINISHED
    assert status.data[:1] == VALUE and str(threading.get_ident()).encode() not in status.data


def test_a_call_that_takes_longer_is_told_to_run(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings(PYTHON, 1))
    gate = threading.Event()
    hold(worker.executor, gate)
    worker.launch("t1", abs, (1,), {})
    worker.ctx.effects = []

    worker.driver.on_timer(worker.ctx, "user/t1")
    gate.set()

    (told,) = [e.message for e in worker.ctx.effects if isinstance(e, Send)]
    assert isinstance(told, ExecutorUpdate) and told.status.state is TaskState.RUNNING
    assert worker.result().state is TaskState.FINISHED


def test_a_worker_of_another_python_refuses_by_name(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings((3, 1), 1))

    (status,) = told_by(worker.launch("t1", abs, (1,), {}))

    assert status.data[:1] == WRONG_PYTHON
    assert f"runs Python {PYTHON[0]}.{PYTHON[1]}" in status.message and "Python 3.1;" in status.message


def test_a_long_result_goes_to_a_file_until_it_is_fetched(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings(PYTHON, 1, inline_result_bytes=100))
    worker.launch("t1", bytes, (200,), {})

    status = worker.result()
    note = msgspec.msgpack.decode(status.data[1:], type=FileNote)
    assert status.data[:1] == FILE and status.state is TaskState.FINISHED
    assert (tmp_path / note.path).stat().st_size == note.size_bytes > 200
    worker.get(ToExecutor(FRAMEWORK, AGENT, INFO.executor_id, FORGET + b"t1"))
    worker.get(ToExecutor(FRAMEWORK, AGENT, INFO.executor_id, FORGET + b"../../etc/passwd"))

    assert list((tmp_path / "results").iterdir()) == []


def test_a_result_past_every_bound_fails_by_name(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings(PYTHON, 1, inline_result_bytes=100, max_result_bytes=150))
    worker.launch("t1", bytes, (200,), {})

    status = worker.result()

    assert status.data[:1] == FAILURE and b"at most 150" in status.data


def test_killing_a_call_ends_the_worker(tmp_path: Path) -> None:
    worker = Worker(tmp_path, WorkerSettings(PYTHON, 2))
    gate = threading.Event()
    hold(worker.executor, gate)
    worker.launch("t1", abs, (1,), {})
    worker.launch("t2", abs, (1,), {})

    effects = worker.get(KillExecutorTask(TaskId("t1"), 0))
    gate.set()

    assert [(status.task_id, status.state) for status in told_by(effects)] == [
        ("t1", TaskState.KILLED),
        ("t2", TaskState.FAILED),
    ]
    assert worker.driver.stopping
    worker.ctx.effects = []
    worker.driver.on_timer(worker.ctx, "linger")
    assert isinstance(worker.ctx.effects[-1], Stop)
