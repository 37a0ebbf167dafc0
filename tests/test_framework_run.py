"""Frameworks and executors in real processes' shells, against a master and an agent that are ten lines each."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.callbacks import Callbacks
from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import ConfigError, LocalError, PeerError
from mesos_actor.actors.executor import Executor
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ExecutorId,
    FrameworkId,
    OfferId,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.executors import (
    ExecutorAcknowledged,
    ExecutorRegistered,
    ExecutorUpdate,
    LaunchTasks,
    RegisterExecutor,
    ShutdownYourself,
)
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    Offers,
    OperationResult,
    Refused,
    Subscribe,
    Subscribed,
    Teardown,
    Unsubscribe,
    Update,
)
from mesos_actor.actors.messages.values import Command, ExecutorInfo, FrameworkInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import client_keys, master_addresses, run, run_executor, running
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.security import executor_keys, user_key
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

pytestmark = pytest.mark.zmq
FRAMEWORK = FrameworkId("c0-0001")
EXECUTOR = ExecutorInfo(ExecutorId("e"), Command(("python3",)), data=b"hello")


class SmallMaster(Actor):
    """Admits everybody under one id, offers once, finishes every task at once; `seen` is what it got."""

    def __init__(self, refuse: bool = False) -> None:
        self.seen: list[Message] = []
        self.refuse = refuse

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.seen.append(message)
        super().on_message(ctx, sender, message)

    @handles(Subscribe)
    def on_subscribe(self, ctx: Context, sender: Address, message: Subscribe) -> None:
        if self.refuse:
            ctx.send(sender, Refused("unauthorized", "not you", fatal=True))
            return
        ctx.send(sender, Subscribed(FRAMEWORK, ClusterId("c0"), Term(1), message.operation_id))
        agent, resources = AgentId("c0-S1"), Resources.of(cpus=4, mem=512)
        ctx.send(sender, Offers((Offer(OfferId("m-O1"), agent, "host1", Role("*"), resources),)))

    @handles(Accept)
    def on_accept(self, ctx: Context, sender: Address, message: Accept) -> None:
        for task in message.operations[0].tasks:
            status = Status(
                task.task_id,
                TaskState.FINISHED,
                Source.EXECUTOR,
                agent_id=AgentId("c0-S1"),
                update_id=UpdateId(f"{task.task_id}:1"),
            )
            ctx.send(sender, Update(FRAMEWORK, status))

    @handles(Teardown)
    def on_teardown(self, ctx: Context, sender: Address, message: Teardown) -> None:
        ctx.send(sender, OperationResult(message.operation_id, True))

    @handles(Acknowledge, Unsubscribe)
    def on_quiet(self, ctx: Context, sender: Address, message: Message) -> None:
        """Noted already."""

    def got(self, kind: type[Message]) -> list[Any]:
        return [message for message in self.seen if isinstance(message, kind)]

    def hears(self, kind: type[Message], count: int = 1) -> int:
        """How many it has got, once there are so many: it lives in a thread of its own, and may read a moment later."""
        deadline = time.monotonic() + 10
        while len(self.got(kind)) < count and time.monotonic() < deadline:
            os.sched_yield()
        return len(self.got(kind))


class SmallAgent(Actor):
    """Gives one task to the executor that registers, and ends it when the task has."""

    def __init__(self) -> None:
        self.updates: list[Status] = []
        self.principal = ""

    @handles(RegisterExecutor)
    def on_register(self, ctx: Context, sender: Address, message: RegisterExecutor) -> None:
        self.principal = ctx.principal
        ctx.send(sender, ExecutorRegistered(AgentId("c0-S1"), EXECUTOR, FrameworkInfo("f")))
        ctx.send(sender, LaunchTasks((Task(TaskId("t1"), Resources(), executor=EXECUTOR, data=b"42"),)))

    @handles(ExecutorUpdate)
    def on_update(self, ctx: Context, sender: Address, message: ExecutorUpdate) -> None:
        self.updates.append(message.status)
        ctx.send(sender, ExecutorAcknowledged(message.status.task_id, message.status.update_id))
        if message.status.state is TaskState.FINISHED:
            ctx.send(sender, ShutdownYourself(1_000))


class Peer:
    """An actor that listens on loopback, in a thread and loop of its own."""

    def __init__(self, name: str, actor: Actor, secure: bool) -> None:
        self.name, self.actor, self.secure = name, actor, secure
        self.node = ""
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))
        self._thread.start()
        assert self._ready.wait(10)

    async def _main(self) -> None:
        def transport(deliver: Deliver, lost: LinkLost) -> Transport:
            keys = user_key() if self.secure else None
            made = ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, listen="tcp://127.0.0.1:0")
            if keys is not None:
                made.authorize_executor(CONTAINER)
            return made

        self.runtime = Runtime(transport=transport, log=MemoryLog())
        self.runtime.spawn(self.name, lambda: self.actor)
        async with self.runtime:
            assert self.runtime.transport is not None
            self.node = self.runtime.transport.node
            self._ready.set()
            await self.runtime.wait()

    def close(self) -> None:
        self.runtime.call_threadsafe(self.runtime.request_stop)
        self._thread.join(10)


CONTAINER: Any = "e.c"
Serve = Callable[..., Peer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    peers: list[Peer] = []

    def make(actor: Actor, name: str = "master", secure: bool = True) -> Peer:
        peers.append(Peer(name, actor, secure))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


class One(Framework):
    """Runs one task and stops."""

    failover_timeout_s = 60

    def __init__(self) -> None:
        self.states: list[TaskState] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        self.accept(offers[0], [command_task("t1", ["true"], Resources.of(cpus=1))])

    def on_update(self, status: Status) -> None:
        self.states.append(status.state)
        self.stop()


class Idle(Framework):
    def __init__(self) -> None:
        self.values: list[Any] = []
        self.registered = threading.Event()

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.registered.set()

    def on_posted(self, value: Any) -> None:
        self.values.append((value, threading.get_ident()))
        if value == "slow":
            time.sleep(0.11)
        elif value == "bug":
            raise ZeroDivisionError("the author's bug")
        elif value == "stop":
            self.stop()


@pytest.mark.parametrize("secure", [True, False], ids=["curve", "insecure"])
def test_run_blocks_until_the_framework_stops(serve: Serve, secure: bool) -> None:
    master = SmallMaster()
    node = serve(master, secure=secure).node

    framework = run(One(), masters=node, insecure=not secure, log=MemoryLog())

    assert framework.states == [TaskState.FINISHED]
    assert master.hears(Teardown) == 1
    assert [message.outcome for message in master.got(Teardown)] == ["finished"]
    assert framework.framework_id == FRAMEWORK and not framework.connected


def test_state_survives_between_runs_until_it_is_torn_down(serve: Serve, tmp_path: Path) -> None:
    class Counting(Framework):
        def on_registered(self, framework_id: FrameworkId) -> None:
            runs = int(self.kept.get("runs", b"0")) + 1
            self.persist("runs", str(runs).encode())
            self.stop(failover=runs < 3)

    master = SmallMaster()
    node = serve(master).node

    kept = [run(Counting(), masters=[node], state_dir=tmp_path).kept["runs"] for _ in range(3)]

    assert kept == [b"1", b"2", b"3"]
    subscribed = master.got(Subscribe)
    assert [message.framework_id for message in subscribed] == ["", FRAMEWORK, FRAMEWORK]
    assert len({message.operation_id for message in subscribed}) == 1
    assert (master.hears(Unsubscribe, 2), master.hears(Teardown)) == (2, 1)


def test_inside_an_asyncio_program_callbacks_run_on_its_loop(serve: Serve) -> None:
    master = SmallMaster()
    node = serve(master).node

    async def program() -> Idle:
        async with running(Idle(), masters=node) as session:
            session.author.post(1)
            await asyncio.to_thread(session.author.post, 2)
            session.author.post("stop")
            return await session.wait()

    framework = asyncio.run(program())

    assert framework.values == [(value, threading.get_ident()) for value in (1, 2, "stop")]


def test_leaving_the_block_tears_the_framework_down(serve: Serve) -> None:
    master = SmallMaster()
    node = serve(master).node

    async def program(fail: bool) -> None:
        async with running(Idle(), masters=node) as session:
            await asyncio.to_thread(session.author.registered.wait, 10)
            if fail:
                raise KeyError("in the block")

    asyncio.run(program(fail=False))
    assert (master.hears(Teardown), len(master.got(Unsubscribe))) == (1, 0)
    with pytest.raises(KeyError):
        asyncio.run(program(fail=True))
    assert (master.hears(Unsubscribe), len(master.got(Teardown))) == (1, 1)


def test_the_authors_bug_comes_out_of_run_with_its_traceback(serve: Serve) -> None:
    framework = Idle()
    framework.post("bug")
    log = MemoryLog()

    with pytest.raises(ZeroDivisionError) as caught:
        run(framework, masters=serve(SmallMaster()).node, log=log)

    assert "on_posted" in [entry.name for entry in caught.traceback]
    assert isinstance(log.events("actor_failed")[0]["error"], ZeroDivisionError)


def test_a_slow_callback_is_warned_about_by_name(serve: Serve) -> None:
    framework, log = Idle(), MemoryLog()
    framework.post("slow")
    framework.post("stop")

    run(framework, masters=serve(SmallMaster()).node, log=log)

    assert [line["callback"] for line in log.events("slow_callback")] == ["Idle.on_posted"]


def test_a_refusal_for_good_comes_out_of_run(serve: Serve) -> None:
    with pytest.raises(PeerError, match="unauthorized: not you"):
        run(Idle(), masters=serve(SmallMaster(refuse=True)).node)


def test_sigterm_leaves_in_order(serve: Serve) -> None:
    master = SmallMaster()
    node = serve(master).node
    framework = Idle()

    def terminate() -> None:
        framework.registered.wait(10)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    with pytest.raises(SystemExit) as caught:
        run(framework, masters=node)

    assert caught.value.code == 128 + signal.SIGTERM
    assert master.hears(Unsubscribe) == 1
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_framework_runs_once_and_not_on_a_busy_loop(serve: Serve) -> None:
    framework = Idle()
    framework.post("stop")
    node = serve(SmallMaster()).node
    run(framework, masters=node)

    with pytest.raises(ConfigError, match=r"framework: Idle is a class; give one object of it, Idle\(…\)"):
        run(Idle, masters=node)  # type: ignore[type-var]
    with pytest.raises(LocalError, match="has run already"):
        run(framework, masters=node)

    async def program() -> None:
        run(Idle(), masters=node)

    with pytest.raises(LocalError, match="async with running"):
        asyncio.run(program())


def test_an_executor_program_runs_its_task_as_its_own_principal(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    class Doubling(Executor):
        def on_launch(self, task: Task) -> None:
            threading.Thread(target=lambda: self.post((task.task_id, 2 * int(task.data)))).start()

        def on_posted(self, value: Any) -> None:
            self.update(value[0], TaskState.FINISHED, data=str(value[1]).encode())

    agent = SmallAgent()
    node = serve(agent, "agent").node
    keys = executor_keys(user_key(), CONTAINER)
    for name, value in (
        (environment.AGENT_ADDRESS, f"{node}/agent"),
        (environment.FRAMEWORK_ID, FRAMEWORK),
        (environment.EXECUTOR_ID, "e"),
        (environment.CONTAINER_ID, CONTAINER),
        (environment.EXECUTOR_KEY, keys.secret.decode()),
        (environment.CLUSTER_PUBLIC_KEY, keys.server_public.decode()),
    ):
        monkeypatch.setenv(name, value)

    run_executor(Doubling())

    assert [(status.state, status.data) for status in agent.updates] == [(TaskState.FINISHED, b"84")]
    assert agent.principal == "executor:e.c"
    assert environment.EXECUTOR_KEY not in os.environ


def test_an_executor_without_an_agent_says_what_is_missing() -> None:
    with pytest.raises(ConfigError, match="MESOS_ACTOR_AGENT is not set"):
        run_executor(Executor())


def test_masters_are_read_from_every_form(monkeypatch: pytest.MonkeyPatch) -> None:
    assert master_addresses(None) == ("tcp://127.0.0.1:5050/master",)
    both = ("tcp://10.0.0.1:5050/master", "tcp://h2:1/master")
    assert master_addresses("10.0.0.1:5050, h2:1") == both
    assert master_addresses(["tcp://10.0.0.1:5050", "tcp://h2:1/master", "h2:1"]) == both
    monkeypatch.setenv("MESOS_ACTOR_MASTERS", "h2:1")
    assert master_addresses(None) == both[1:]
    assert master_addresses("h2") == ("tcp://h2:5050/master",)
    for bad in ("h2:", ":5050", "h2:70000", "h2:x", "h2:1,,h3:1", "http://h2:1"):
        with pytest.raises(ConfigError, match="masters"):
            master_addresses(bad)


def test_insecure_says_so() -> None:
    log = MemoryLog()

    assert client_keys([], None, True, log) is None
    assert len(log.events("insecure")) == 1


def test_forgetting_super_init_is_harmless() -> None:
    class Careless(Callbacks):
        def __init__(self) -> None:
            self.mine = 1

    Careless().post(1)
