"""What is particular to the ZeroMQ transport: bounds, ports, restarts, and peers that die for real."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, Node, Principal, Term, address, node_of
from mesos_actor.actors.messages.agents import Ping, Pong
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.scheduler import FromExecutor
from mesos_actor.transport.security import Keys
from tests.transport.conformance import pings
from tests.transport.zmq_world import QUICK, ZmqEnd, ZmqWorld, cluster_keys, free_port

pytestmark = pytest.mark.zmq


@pytest.fixture
def world() -> Iterator[ZmqWorld]:
    world = ZmqWorld()
    yield world
    world.close()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return cluster_keys(tmp_path / "keys")


def bulk(size_bytes: int) -> Message:
    return FromExecutor(FrameworkId("f"), AgentId("a"), ExecutorId("e"), b"x" * size_bytes)


def hello(world: ZmqWorld, client: ZmqEnd, master: ZmqEnd) -> Address:
    count = len(master.delivered)
    client.send(address(master.node, "master"), Pong(AgentId("hello")))
    world.run_until(lambda: len(master.delivered) > count)
    return master.delivered[-1].sender


def test_a_turn_is_one_frame(world: ZmqWorld, keys: Keys) -> None:
    master, client = world.listening(keys), world.end(keys)
    hello(world, client, master)
    before = client.transport.counters["frames_sent"]
    client.send(address(master.node, "master"), *pings(1_000))
    world.run_until(lambda: len(master.delivered) == 1_001)

    assert client.transport.counters["frames_sent"] == before + 1
    assert client.transport.counters["messages_sent"] == 1_001 == master.transport.counters["messages_received"]
    assert client.transport.counters["bytes_sent"] == master.transport.counters["bytes_received"]


def test_a_bulk_turn_is_split_and_stays_in_order(world: ZmqWorld, keys: Keys) -> None:
    master, client = world.listening(keys), world.end(keys)
    sent = [bulk(400_000 + n) for n in range(12)]
    client.send(address(master.node, "master"), *sent)
    world.run_until(lambda: len(master.delivered) == len(sent))

    assert master.messages == sent
    assert client.transport.counters["frames_sent"] == 4


def test_a_full_socket_is_tried_again_and_order_kept(world: ZmqWorld, keys: Keys) -> None:
    tight = msgspec.structs.replace(QUICK, high_water_frames=2, turn_messages=1)
    master, client = world.listening(keys, settings=tight), world.end(keys, settings=tight)
    sender = hello(world, client, master)
    for n in range(50):  # 20 MB: more than the kernel holds for a connection
        client.send(address(master.node, "master"), Ping(Term(n)), bulk(400_000))
        master.send(sender, Ping(Term(n)))
    assert client.transport.queued_messages(master.node) > 0
    world.run_until(lambda: len(master.delivered) == 101 and len(client.delivered) == 50)

    assert [m for m in master.messages if isinstance(m, Ping)] == pings(50)
    assert client.messages == pings(50)
    assert client.transport.queued_messages(master.node) == 0


def test_past_the_bound_the_newest_is_dropped_and_counted(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys)
    few = world.end(keys, settings=msgspec.structs.replace(QUICK, max_queued_messages=3))
    few.send(address(master.node, "master"), *pings(5))
    little = world.end(keys, settings=msgspec.structs.replace(QUICK, max_queued_bytes=1_000))
    little.send(address(master.node, "master"), *[bulk(600) for _ in range(5)])
    world.run_until(lambda: len(master.delivered) == 5)

    assert [m for m in master.messages if isinstance(m, Ping)] == pings(3)
    assert (few.transport.counters["dropped.full"], little.transport.counters["dropped.full"]) == (2, 3)


def test_links_that_we_open_are_bounded(world: ZmqWorld, keys: Keys) -> None:
    first, second = world.listening(keys), world.listening(keys)
    client = world.end(keys, settings=msgspec.structs.replace(QUICK, max_dialled=1))
    hello(world, client, first)
    client.send(address(second.node, "master"), Ping(Term(1)))
    client.transport.watch(second.node)
    world.run_until(lambda: bool(client.lost))

    assert client.lost == [second.node]
    assert client.transport.counters["dropped.max-dialled"] == 2


def test_connections_from_others_are_bounded(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys, settings=msgspec.structs.replace(QUICK, max_connections=1))
    first, second = world.end(keys), world.end(keys)
    hello(world, first, master)
    second.send(address(master.node, "master"), Ping(Term(1)))
    world.run_until(lambda: bool(second.lost))

    assert master.transport.counters["refused.full"] == 1
    assert first.lost == master.lost == []


def test_a_port_that_is_taken_is_named_with_the_fix(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys)
    with pytest.raises(ConfigError, match=rf"listen: {master.node} is taken: stop the process .* another port"):
        world.end(keys, listen=master.node)


@pytest.mark.parametrize(
    ("listen", "says"),
    [
        ("tcp://192.0.2.1:0", "is not an address of this host"),
        ("tcp://0.0.0.0:0", "is every interface: name the host"),
        ("ipc:///tmp/x:0", r"not of the form tcp://host:port"),
        ("tcp://127.0.0.1:many", "must be tcp://host:port"),
    ],
)
def test_a_listen_address_that_is_none_is_named(world: ZmqWorld, keys: Keys, listen: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        world.end(keys, listen=listen)


def test_every_interface_under_a_given_name(world: ZmqWorld, keys: Keys) -> None:
    master = world.end(keys, listen="tcp://0.0.0.0:0", advertise_host="localhost")
    client = world.end(keys)
    assert master.node.startswith("tcp://localhost:")
    hello(world, client, master)


def test_no_port_stays_bound_after_close(world: ZmqWorld, keys: Keys) -> None:
    port = free_port()
    for _ in range(5):
        master = world.end(keys, listen=f"tcp://127.0.0.1:{port}")
        client = world.end(keys)
        hello(world, client, master)
        master.transport.close()


def test_our_own_node_is_served_without_the_wire(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys)
    master.send(address(master.node, "registry"), Ping(Term(1)))
    world.run_until(lambda: bool(master.delivered))

    assert master.delivered[0].principal == "local"
    assert master.transport.counters["frames_sent"] == 0


def test_two_listening_processes_that_dial_each_other_at_once(world: ZmqWorld, keys: Keys) -> None:
    left, right = world.listening(keys), world.listening(keys)
    for _ in range(3):
        left.send(address(right.node, "a"), *pings(10))
        right.send(address(left.node, "b"), *pings(10))
    world.run_until(lambda: len(left.delivered) == len(right.delivered) == 30)
    assert left.messages == right.messages == pings(10) * 3
    assert left.lost == right.lost == []

    port = right.node.rpartition(":")[2]
    right.transport.close()
    world.run_until(lambda: bool(left.lost))
    again = world.end(keys, listen=f"tcp://127.0.0.1:{port}")
    hello(world, left, again)
    hello(world, again, left)
    world.settle()
    assert left.lost == [right.node]
    assert again.lost == []


def test_a_restarted_listener_that_dials_us_is_a_new_epoch(world: ZmqWorld, keys: Keys) -> None:
    """The agent comes back before the master has noticed that it was gone: loss first, then the new one's words."""
    master, agent = world.listening(keys), world.listening(keys)
    hello(world, agent, master)
    # The old process hangs on to its connection; the new one has its name.
    again = world.listening(keys)
    again.transport.node = agent.node
    hello(world, again, master)
    world.run_until(lambda: bool(agent.lost))

    assert [s if isinstance(s, str) else s.message for s in master.story] == [
        Pong(AgentId("hello")),
        agent.node,
        Pong(AgentId("hello")),
    ]
    master.send(master.delivered[-1].sender, Ping(Term(9)))
    world.run_until(lambda: bool(again.delivered))
    assert agent.delivered == []


def test_a_link_nobody_uses_or_watches_is_closed_and_told(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys)
    idle = msgspec.structs.replace(QUICK, idle_ms=60, sweep_ms=20)
    careless, watching = world.end(keys, settings=idle), world.end(keys, settings=idle)
    watching.transport.watch(master.node)
    hello(world, watching, master)
    hello(world, careless, master)
    world.run_until(lambda: bool(careless.lost and master.lost))

    assert (careless.lost, master.lost, watching.lost) == ([master.node], [careless.node], [])
    hello(world, careless, master)


def test_zeromqs_own_reconnect_does_not_carry_an_epoch_over(world: ZmqWorld, keys: Keys) -> None:
    """A loop too busy to see its link break: ZeroMQ connects again under it, to a process that knows nothing."""
    port = free_port()
    master, client = world.end(keys, listen=f"tcp://127.0.0.1:{port}"), world.end(keys)
    hello(world, client, master)
    link = client.transport._links[master.node]
    assert link.dialled is not None
    client.transport._loop.remove_reader(link.dialled.monitor._descriptor)  # so busy
    master.transport.close()
    again = world.end(keys, listen=f"tcp://127.0.0.1:{port}")

    def lost_while_sending() -> bool:
        if not client.lost:  # what is sent after that is a new epoch's, and arrives
            client.send(address(again.node, "master"), Ping(Term(1)))
        return bool(client.lost)

    world.run_until(lost_while_sending)

    assert client.lost == [again.node]
    assert again.delivered == []
    assert again.transport.counters["refused.not-first"] == 1
    hello(world, client, again)


def test_a_callback_that_raises_does_not_stop_what_comes_after(world: ZmqWorld, keys: Keys) -> None:
    master, client = world.listening(keys), world.end(keys)
    errors: list[object] = []
    world.loop.set_exception_handler(lambda loop, context: errors.append(context.get("exception")))

    def fail(actor: str, sender: Address, principal: Principal, cause: str, message: Message) -> None:
        raise ZeroDivisionError

    deliver, master.transport._deliver = master.transport._deliver, fail
    client.send(address(master.node, "master"), Ping(Term(1)))
    world.run_until(lambda: bool(errors))
    master.transport._deliver = deliver
    hello(world, client, master)

    assert [type(e) for e in errors] == [ZeroDivisionError]


_PEER = """
import asyncio, sys
from pathlib import Path
from mesos_actor.actors.ids import Address, Term, address
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.transport.security import load_keys
from mesos_actor.transport.settings import TransportSettings
from mesos_actor.transport.zmq import ZmqTransport

async def main(keys, master):
    settings = TransportSettings(heartbeat_interval_ms=100, heartbeat_timeout_ms=300)
    transport = ZmqTransport(security=load_keys(Path(keys)), on_deliver=lambda *a: None, on_link_lost=print,
        listen="tcp://127.0.0.1:0", settings=settings)
    transport.send(Address(master), "agent", "", Ping(Term(1)))
    transport.flush()
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.parametrize(("how", "within_s"), [(signal.SIGKILL, 1.0), (signal.SIGSTOP, 2.0)])
@pytest.mark.parametrize("dial_back", [False, True], ids=["it dialled us", "both dialled"])
def test_a_process_that_dies_or_freezes_is_told(
    world: ZmqWorld, tmp_path: Path, how: signal.Signals, within_s: float, dial_back: bool
) -> None:
    keys = cluster_keys(tmp_path / "keys")
    beating = msgspec.structs.replace(QUICK, heartbeat_interval_ms=100, heartbeat_timeout_ms=300)
    master = world.listening(keys, settings=beating)
    observer = world.end(keys, settings=beating)
    command = [sys.executable, "-c", _PEER, str(tmp_path / "keys"), address(master.node, "master")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as peer:
        try:
            world.run_until(lambda: bool(master.delivered))
            node = node_of(master.delivered[0].sender)
            if dial_back:
                observer.transport.watch(Node(node))
                world.run_until(lambda: observer.transport._links[node].path is not None)
            os.kill(peer.pid, how)
            start_s = time.monotonic()
            world.run_until(lambda: bool(master.lost and (observer.lost or not dial_back)))
            took_s = time.monotonic() - start_s
        finally:
            peer.kill()

    assert master.lost == [node]
    assert observer.lost == ([node] if dial_back else [])
    assert took_s < within_s
