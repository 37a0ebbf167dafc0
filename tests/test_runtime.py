"""The loop: turns, one commit and one flush each, ports, ways in, and how it ends."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.errors import ConfigError, InternalError, LocalError, StorageError, Unavailable
from mesos_actor.actors.ids import Address, Node, Principal, Term, address, local
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.messages.scheduler import Refused
from mesos_actor.actors.ports import Outlet
from mesos_actor.actors.runtime import Runtime, RuntimeSettings
from mesos_actor.actors.runtime_timers import MIN_SWEEP, Timers
from mesos_actor.actors.store import MemoryStore
from mesos_actor.transport.transport import Deliver, LinkLost

PEER = Address("tcp://10.0.0.9:5050/peer")
CLUSTER = Principal("cluster")
PATIENCE_S = 5.0


def ping(number: int) -> Ping:
    return Ping(Term(number))


def run(what: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(what, PATIENCE_S))


async def until(reached: Callable[[], bool]) -> None:
    while not reached():
        await asyncio.sleep(0)


class Wire:
    """A transport that writes down what it is asked for; also the factory of itself."""

    def __init__(self, story: list[object] | None = None) -> None:
        self.node = Node("tcp://10.0.0.1:5050")
        self.story: list[object] = [] if story is None else story
        self.deliver: Deliver
        self.link_lost: LinkLost

    def __call__(self, deliver: Deliver, link_lost: LinkLost) -> Wire:
        self.deliver = deliver
        self.link_lost = link_lost
        return self

    def send(self, to: Address, sender: str, cause: str, message: Message) -> None:
        if message == ping(666):
            raise LocalError("666 cannot be encoded")
        self.story.append((to, sender, message))

    def flush(self) -> None:
        self.story.append("flush")

    def watch(self, node: Node) -> None:
        self.story.append(("watch", node))

    def close(self) -> None:
        self.story.append("close")


class Disk(MemoryStore):
    def __init__(self, story: list[object]) -> None:
        super().__init__()
        self.story = story
        self.full = False

    def commit(self) -> None:
        if self.full:
            raise StorageError("state.db: the disk is full; free some space, then start this process again")
        super().commit()
        self.story.append("commit")


class Forwarder(Actor):
    """Keeps, then sends on, every Ping; 13 makes it raise."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Ping)
        if message.term == 13:
            raise RuntimeError("no")
        ctx.persist(str(message.term), UserRecord(b""))
        ctx.send(PEER, message)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        ctx.send(PEER, ping(0))


class Collector(Actor):
    def __init__(self) -> None:
        self.got: list[tuple[Address, str, Message]] = []
        self.lost: list[Node] = []

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.got.append((sender, ctx.principal, message))

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        self.lost.append(node)


def test_a_turn_is_one_commit_then_its_sends_then_one_flush() -> None:
    async def scenario() -> None:
        story: list[object] = []
        wire = Wire(story)
        runtime = Runtime(transport=wire, store=Disk(story), log=MemoryLog())
        runtime.spawn("forwarder", Forwarder, durable=True)
        async with runtime:
            story.clear()
            for number in (1, 2, 3):
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(number))
            await until(lambda: "flush" in story)
            sends = [(PEER, "forwarder", ping(n)) for n in (1, 2, 3)]
            assert story == ["commit", *sends, "flush"]

    run(scenario())


def test_a_turn_is_bounded() -> None:
    async def scenario() -> None:
        story: list[object] = []
        wire = Wire(story)
        settings = RuntimeSettings(turn_messages=10)
        runtime = Runtime(transport=wire, store=Disk(story), log=MemoryLog(), settings=settings)
        runtime.spawn("forwarder", Forwarder, durable=True)
        async with runtime:
            for number in range(100, 125):
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(number))
            await until(lambda: len(story) >= 30)
            assert story.count("commit") == 3

    run(scenario())


def test_a_full_disk_stops_the_process_and_nothing_unsafe_is_shown() -> None:
    story: list[object] = []
    wire, disk, log = Wire(story), Disk(story), MemoryLog()
    runtime: list[Runtime] = []

    class Trigger(Forwarder):
        def on_start(self, ctx: Context) -> None:
            ctx.set_timer("go", 0)

        def on_timer(self, ctx: Context, name: str) -> None:
            disk.full = True
            ctx.persist("k", UserRecord(b""))
            ctx.send(PEER, ping(1))

        def on_stop(self, ctx: Context) -> None:
            ctx.send(PEER, ping(2))

    async def make() -> Runtime:
        runtime.append(Runtime(transport=wire, store=disk, log=log))
        return runtime[0]

    asyncio.run(make())
    runtime[0].spawn("trigger", Trigger, durable=True)

    assert runtime[0].run() == 1
    assert [entry for entry in story if isinstance(entry, tuple)] == []
    assert story[-1] == "close"
    assert log.events("process_failing")[0]["kind"] == "StorageError"
    assert "the disk is full" in log.events("process_failed")[0]["text"]


def test_wait_and_the_context_manager_raise_what_ended_the_process() -> None:
    async def scenario() -> None:
        wire = Wire()
        runtime = Runtime(transport=wire, store=MemoryStore(), log=MemoryLog())
        runtime.spawn("forwarder", Forwarder, durable=True)
        with pytest.raises(InternalError, match="giving up"):
            async with runtime:
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(13))
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(13))
                await runtime.wait()
        silent = Runtime(transport=wire, store=MemoryStore(), log=MemoryLog())
        silent.spawn("forwarder", Forwarder, durable=True)
        with pytest.raises(InternalError, match="giving up"):
            async with silent:
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(13))
                wire.deliver("forwarder", PEER, CLUSTER, "", ping(13))
                await until(lambda: not silent._running)

    run(scenario())


def test_a_letter_to_nobody_is_answered_once() -> None:
    async def scenario() -> None:
        wire = Wire()
        runtime = Runtime(transport=wire, log=MemoryLog())
        runtime.spawn("listener", Collector)
        async with runtime:
            wire.deliver("nobody", PEER, CLUSTER, "", ping(1))
            wire.deliver("nobody", PEER, CLUSTER, "", Refused(reason="x", text=""))
            answers = [entry for entry in wire.story if isinstance(entry, tuple)]
            text = "there is no actor 'nobody' in tcp://10.0.0.1:5050"
            assert answers == [(PEER, "nobody", Refused(reason="unknown-actor", text=text, about="Ping"))]
            assert runtime.counts["dead_letters"] == 2

    run(scenario())


def test_own_node_and_local_addresses_lead_to_the_same_mailbox() -> None:
    class Twice(Actor):
        def on_start(self, ctx: Context) -> None:
            ctx.send(local("listener"), ping(1))
            ctx.send(address(ctx.node, "listener"), ping(2))
            ctx.send(address(ctx.node, "nobody"), ping(3))
            ctx.watch(Node("tcp://x:1"))

    async def scenario() -> None:
        wire, listener = Wire(), Collector()
        runtime = Runtime(transport=wire, log=MemoryLog())
        runtime.spawn("listener", lambda: listener)
        runtime.spawn("twice", Twice)
        async with runtime:
            await until(lambda: len(listener.got) == 2)
            assert listener.got == [(local("twice"), "local", ping(n)) for n in (1, 2)]
            assert [entry for entry in wire.story if isinstance(entry, tuple)] == [("watch", "tcp://x:1")]
            assert runtime.counts["dead_letters"] == 1

    run(scenario())


def test_a_lost_link_is_told_in_order_with_messages() -> None:
    story: list[object] = []

    class Witness(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            story.append(message)

        def on_link_lost(self, ctx: Context, node: Node) -> None:
            story.append(node)

    async def scenario() -> None:
        wire = Wire()
        runtime = Runtime(transport=wire, log=MemoryLog())
        runtime.spawn("witness", Witness)
        async with runtime:
            wire.deliver("witness", PEER, CLUSTER, "", ping(1))
            wire.link_lost(Node("tcp://10.0.0.9:5050"))
            wire.deliver("witness", PEER, CLUSTER, "", ping(2))
            await until(lambda: len(story) == 3)
            assert story == [ping(1), "tcp://10.0.0.9:5050", ping(2)]

    run(scenario())


def test_a_message_that_cannot_be_sent_hurts_nobody() -> None:
    class Sender(Actor):
        def on_start(self, ctx: Context) -> None:
            ctx.send(PEER, ping(666))
            ctx.send(PEER, ping(1))

    async def scenario() -> None:
        wire, log = Wire(), MemoryLog()
        runtime = Runtime(transport=wire, log=log)
        runtime.spawn("sender", Sender)
        async with runtime:
            assert (PEER, "sender", ping(1)) in wire.story
            assert log.events("send_failed")[0]["text"] == "666 cannot be encoded"

    run(scenario())


class EchoPort:
    """Answers each message with itself, soon; notes its life."""

    def __init__(self) -> None:
        self.story: list[object] = []
        self.outlet: Outlet

    def start(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.story.append("start")

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        self.story.append(message)
        if message == ping(13):
            raise RuntimeError("no")
        self.outlet.call_later(0, lambda: self.outlet.send(sender, message, cause))

    def on_flush(self) -> None:
        self.story.append("flush")

    def close(self) -> None:
        self.story.append("close")


def test_a_port_is_a_mailbox() -> None:
    async def scenario() -> None:
        port, listener, log = EchoPort(), Collector(), MemoryLog()
        runtime = Runtime(log=log)
        runtime.spawn("listener", lambda: listener)
        runtime.add_port("echo", port)
        async with runtime:
            for number in (1, 13, 2):
                runtime.post("echo", ping(number), sender="listener", cause="why")
            await until(lambda: len(listener.got) == 2)
            assert port.outlet.name == "echo"
            assert isinstance(port.outlet.rng, random.Random)
            assert port.outlet.now_us() > 1_600_000_000_000_000
            with pytest.raises(ConfigError, match="before the process starts"):
                runtime.add_port("late", EchoPort())
        assert listener.got == [(local("echo"), "local", ping(n)) for n in (1, 2)]
        assert port.story == ["start", ping(1), ping(13), ping(2), "flush", "close"]
        assert len(log.events("port_failed")) == 1

    run(scenario())


def test_a_port_that_cannot_start_ends_the_process_and_closes_the_rest() -> None:
    class Broken(EchoPort):
        def start(self, outlet: Outlet) -> None:
            raise ConfigError("launcher: not found")

    async def scenario() -> None:
        wire, first = Wire(), EchoPort()
        runtime = Runtime(transport=wire, log=MemoryLog())
        runtime.add_port("first", first)
        runtime.add_port("broken", Broken())
        with pytest.raises(ConfigError, match="launcher: not found"):
            await runtime.start()
        assert first.story == ["start", "close"]
        assert wire.story == ["close"]

    run(scenario())


def test_other_threads_have_one_bounded_way_in() -> None:
    async def scenario() -> None:
        listener = Collector()
        runtime = Runtime(log=MemoryLog(), settings=RuntimeSettings(max_thread_calls=2))
        runtime.spawn("listener", lambda: listener)
        refused: list[str] = []

        def call() -> None:
            try:
                for number in range(3):
                    runtime.call_threadsafe(runtime.post, "listener", ping(number))
            except Unavailable as error:
                refused.append(str(error))

        with pytest.raises(Unavailable, match="does not run"):
            runtime.call_threadsafe(print)
        async with runtime:
            thread = threading.Thread(target=call)
            thread.start()
            thread.join()  # the loop is held up meanwhile, so the calls wait
            await until(lambda: len(listener.got) == 2)
            assert refused == ["2 calls from other threads wait already; try again later"]
        with pytest.raises(Unavailable, match="does not run"):
            runtime.call_threadsafe(print)

    run(scenario())


def test_posting_to_nobody_is_the_callers_error() -> None:
    async def scenario() -> None:
        runtime = Runtime(log=MemoryLog())
        runtime.spawn("listener", Collector)
        async with runtime:
            with pytest.raises(Unavailable, match="actor 'nobody'"):
                runtime.post("nobody", ping(1))
        with pytest.raises(Unavailable, match="actor 'listener'"):
            runtime.post("listener", ping(1))

    run(scenario())


def test_what_comes_past_the_bound_is_dropped_and_counted() -> None:
    async def scenario() -> None:
        wire, listener = Wire(), Collector()
        runtime = Runtime(transport=wire, log=MemoryLog(), settings=RuntimeSettings(max_inbox=2))
        runtime.spawn("listener", lambda: listener)
        async with runtime:
            for number in range(5):
                wire.deliver("listener", PEER, CLUSTER, "", ping(number))
            await until(lambda: len(listener.got) == 2)
            assert runtime.counts["dropped"] == 3

    run(scenario())


def test_actors_that_flood_each_other_end_the_process() -> None:
    class Flood(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            ctx.send(local("flood"), message)
            ctx.send(local("flood"), message)

    async def scenario() -> None:
        runtime = Runtime(log=MemoryLog(), settings=RuntimeSettings(max_inbox=1_000))
        runtime.spawn("flood", Flood)
        with pytest.raises(InternalError, match="flood each other"):
            async with runtime:
                runtime.post("flood", ping(1))
                await runtime.wait()

    run(scenario())


def test_the_loop_stays_open_to_others_under_load() -> None:
    class Busy(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            ctx.send(local("busy"), message)

    async def scenario() -> None:
        runtime = Runtime(log=MemoryLog(), settings=RuntimeSettings(wake_ms=1))
        runtime.spawn("busy", Busy)
        async with runtime:
            runtime.post("busy", ping(1))
            for _ in range(5):
                await asyncio.sleep(0.001)
            await runtime.stop(drain_s=0.01)

    run(scenario())


def test_a_slow_handler_is_named() -> None:
    class Slow(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            sum(range(100_000))

    async def scenario() -> None:
        log = MemoryLog()
        runtime = Runtime(log=log, settings=RuntimeSettings(slow_handler_ms=0))
        runtime.spawn("slow", Slow)
        async with runtime:
            runtime.post("slow", ping(1))
            await until(lambda: bool(log.events("slow_handler")))
            assert log.events("slow_handler")[0]["handler"] == "Ping"
            assert log.events("slow_handler")[0]["actor"] == "slow"
            assert runtime.counts["slow_handlers"] == 1

    run(scenario())


def test_a_drain_is_bounded_and_says_who_was_cut_short() -> None:
    async def scenario() -> None:
        log = MemoryLog()
        runtime = Runtime(log=log)
        runtime.spawn("a", Collector)
        runtime.spawn("b", Collector)
        await runtime.start()
        await runtime.stop(drain_s=-1)
        assert log.events("drain_cut_short")[0]["actors"] == "a b"

    run(scenario())


def test_nothing_from_outside_is_taken_during_the_stop() -> None:
    async def scenario() -> None:
        wire, listener = Wire(), Collector()

        class Late(Actor):
            def on_stop(self, ctx: Context) -> None:
                wire.deliver("listener", PEER, CLUSTER, "", ping(1))
                ctx.send(local("listener"), ping(2))

        runtime = Runtime(transport=wire, log=MemoryLog())
        runtime.spawn("listener", lambda: listener)
        runtime.spawn("late", Late)
        async with runtime:
            pass
        assert [message for _, _, message in listener.got] == [ping(2)]

    run(scenario())


def test_sigterm_stops_gracefully() -> None:
    story: list[str] = []

    class Target(Actor):
        def on_start(self, ctx: Context) -> None:
            ctx.set_timer("shoot", 1_000)

        def on_timer(self, ctx: Context, name: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

        def on_stop(self, ctx: Context) -> None:
            story.append("stop")

    async def make() -> Runtime:
        return Runtime(log=MemoryLog())

    runtime = asyncio.run(make())
    runtime.spawn("target", Target)

    assert runtime.run() == 0
    assert story == ["stop"]


def test_a_durable_actor_needs_a_store() -> None:
    async def scenario() -> None:
        runtime = Runtime(log=MemoryLog())
        runtime.spawn("forwarder", Forwarder, durable=True)
        with pytest.raises(StorageError, match="was given no store"):
            async with runtime:
                await runtime.wait()

    run(scenario())


def test_actors_may_be_added_while_the_process_runs() -> None:
    async def scenario() -> None:
        listener = Collector()
        runtime = Runtime(log=MemoryLog())
        runtime.spawn("first", Collector)
        async with runtime:
            runtime.spawn("listener", lambda: listener)
            runtime.post("listener", ping(1))
            await until(lambda: len(listener.got) == 1)

    run(scenario())


def test_timers_that_are_armed_again_and_again_do_not_pile_up() -> None:
    timers = Timers()

    class Cell:
        timers: dict[str, int] = {}

    cell: Any = Cell()
    for number in range(20 * MIN_SWEEP):
        timers.arm(cell, "t", 1_000_000 + number)

    assert len(timers) <= 2 * MIN_SWEEP + 1
    assert timers.next_due_us() == 1_000_000 + 20 * MIN_SWEEP - 1
