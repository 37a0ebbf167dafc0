"""Who gets through to an actor over real sockets, and as whom."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from mesos_actor.actors.errors import SecurityError
from mesos_actor.actors.ids import ContainerId, Node, Term, address
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.transport.codec import Batch
from mesos_actor.transport.security import Keys, create_client_key, load_keys
from mesos_actor.transport.settings import TransportSettings
from tests.transport.zmq_world import QUICK, ZmqEnd, ZmqWorld, cluster_keys

pytestmark = pytest.mark.zmq


@pytest.fixture
def world() -> Iterator[ZmqWorld]:
    world = ZmqWorld()
    yield world
    world.close()


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return cluster_keys(tmp_path / "keys")


def hello(world: ZmqWorld, client: ZmqEnd, master: ZmqEnd) -> None:
    count = len(master.delivered)
    client.send(address(master.node, "master"), Ping(Term(1)))
    world.run_until(lambda: len(master.delivered) > count)


def refused(world: ZmqWorld, client: ZmqEnd, master: ZmqEnd) -> None:
    """The client is not let in: it is told that there is no link, and nothing of it arrives."""
    client.send(address(master.node, "master"), Ping(Term(1)))
    world.run_until(lambda: bool(client.lost))
    assert client.lost == [master.node]
    assert master.story == []


def test_a_holder_of_the_clusters_key_is_cluster_on_both_sides(world: ZmqWorld, keys: Keys) -> None:
    master, client = world.listening(keys), world.end(keys)
    hello(world, client, master)
    master.send(master.delivered[0].sender, Ping(Term(2)))
    world.run_until(lambda: bool(client.delivered))

    assert master.delivered[0].principal == client.delivered[0].principal == "cluster"


def test_an_unknown_key_never_reaches_an_actor(world: ZmqWorld, keys: Keys) -> None:
    master = world.listening(keys)
    public, secret = zmq.curve_keypair()
    refused(world, world.end(Keys(keys.public, public, secret)), master)
    refused(world, world.end(Keys(keys.public, public, secret)), master)

    assert master.transport.counters["refused.unknown-key"] >= 2
    assert [fields["key"] for event, fields in master.reports if event == "unknown_key"] == [public.decode()]


@pytest.mark.slow
def test_another_clusters_key_never_reaches_an_actor(world: ZmqWorld, keys: Keys, tmp_path: Path) -> None:
    refused(world, world.end(cluster_keys(tmp_path / "other")), world.listening(keys))


@pytest.mark.slow
def test_a_client_without_encryption_never_reaches_an_actor(world: ZmqWorld, keys: Keys) -> None:
    refused(world, world.end(None), world.listening(keys))


@pytest.mark.slow
def test_a_client_with_keys_does_not_speak_to_a_process_without(world: ZmqWorld, keys: Keys) -> None:
    refused(world, world.end(keys), world.listening(None))


def test_security_off_makes_everybody_anonymous(world: ZmqWorld) -> None:
    master, client = world.listening(None), world.end(None)
    hello(world, client, master)

    assert master.delivered[0].principal == "anonymous"


def test_an_authorized_client_has_the_name_of_its_file(world: ZmqWorld, keys: Keys, tmp_path: Path) -> None:
    public = create_client_key(tmp_path / "client")
    (tmp_path / "client" / "cluster.pub").write_bytes(keys.public)
    client_keys = load_keys(tmp_path / "client")
    master = world.listening(keys)
    refused(world, world.end(client_keys), master)

    assert keys.authorized is not None
    (keys.authorized / "alice.pub").write_text(public)  # noticed without a restart
    hello(world, world.end(client_keys), master)
    assert master.delivered[0].principal == "alice"

    (keys.authorized / "alice.pub").unlink()
    master.story.clear()
    refused(world, world.end(client_keys), master)


def test_a_damaged_authorized_key_leaves_the_others_valid(world: ZmqWorld, keys: Keys, tmp_path: Path) -> None:
    public = create_client_key(tmp_path / "client")
    assert keys.authorized is not None
    (keys.authorized / "alice.pub").write_text(public)
    master = world.listening(keys)
    (keys.authorized / "bob.pub").write_text("not a key")
    (tmp_path / "client" / "cluster.pub").write_bytes(keys.public)
    hello(world, world.end(load_keys(tmp_path / "client")), master)

    assert master.delivered[0].principal == "alice"
    assert "bob.pub" in str(dict(master.reports)["authorized_key_unusable"]["error"])


def test_a_damaged_key_keeps_nobody_in_whose_key_is_gone(world: ZmqWorld, keys: Keys, tmp_path: Path) -> None:
    public = create_client_key(tmp_path / "client")
    (tmp_path / "client" / "cluster.pub").write_bytes(keys.public)
    client_keys = load_keys(tmp_path / "client")
    assert keys.authorized is not None
    (keys.authorized / "alice.pub").write_text(public)
    master = world.listening(keys)
    hello(world, world.end(client_keys), master)
    (keys.authorized / "bob.pub").write_text("not a key")
    (keys.authorized / "alice.pub").unlink()
    master.story.clear()

    refused(world, world.end(client_keys), master)


def test_a_key_replaced_in_its_file_counts_at_once(world: ZmqWorld, keys: Keys, tmp_path: Path) -> None:
    publics = [create_client_key(tmp_path / name) for name in ("old", "new")]
    for name in ("old", "new"):
        (tmp_path / name / "cluster.pub").write_bytes(keys.public)
    assert keys.authorized is not None
    (keys.authorized / "alice.pub").write_text(publics[0])
    master = world.listening(keys)
    hello(world, world.end(load_keys(tmp_path / "old")), master)
    (keys.authorized / "alice.pub").write_text(f"{publics[1]}\n")
    hello(world, world.end(load_keys(tmp_path / "new")), master)
    master.story.clear()

    refused(world, world.end(load_keys(tmp_path / "old")), master)


@pytest.mark.parametrize("container_id", ["t.0123456789ab", "x" * 255 + ".0123456789ab"])
def test_an_executor_is_known_by_its_container_until_it_is_revoked(
    world: ZmqWorld, keys: Keys, container_id: ContainerId
) -> None:
    agent = world.listening(keys)
    executor_keys = agent.transport.authorize_executor(container_id)
    assert executor_keys is not None
    executor = world.end(executor_keys)
    hello(world, executor, agent)
    assert agent.delivered[0].principal == f"executor:{container_id}"

    agent.transport.revoke_executor(container_id)
    world.run_until(lambda: bool(executor.lost))
    assert agent.lost == [executor.node]
    agent.story.clear()
    executor.lost.clear()
    refused(world, executor, agent)


def test_executors_are_bounded(world: ZmqWorld, keys: Keys) -> None:
    agent = world.listening(keys, settings=TransportSettings(max_executor_keys=1))
    agent.transport.authorize_executor(ContainerId("a.1"))
    agent.transport.authorize_executor(ContainerId("a.1"))
    with pytest.raises(SecurityError, match="max_executor_keys"):
        agent.transport.authorize_executor(ContainerId("a.2"))
    agent.transport.revoke_executor(ContainerId("a.1"))
    agent.transport.authorize_executor(ContainerId("a.2"))


def test_a_client_cannot_listen(world: ZmqWorld, keys: Keys) -> None:
    client = msgspec.structs.replace(keys, cluster_secret=None)
    with pytest.raises(SecurityError, match=r"needs cluster.key"):
        world.listening(client)
    with pytest.raises(SecurityError, match="does not listen"):
        world.end(keys).transport.authorize_executor(ContainerId("a.1"))


def test_a_name_belongs_to_whom_has_it(world: ZmqWorld, keys: Keys) -> None:
    """The same node claimed by another principal is refused; the first one's link stays."""
    agent = world.listening(keys)
    mine = world.end(agent.transport.authorize_executor(ContainerId("mine.1")))
    thief = world.end(agent.transport.authorize_executor(ContainerId("thief.1")))
    hello(world, mine, agent)
    thief.transport.node = mine.node
    thief.send(address(agent.node, "agent"), Ping(Term(666)))
    world.run_until(lambda: bool(thief.lost))

    assert agent.transport.counters["refused.claimed"] == 1
    agent.send(agent.delivered[0].sender, Ping(Term(2)))
    world.run_until(lambda: bool(mine.delivered))
    assert [d.principal for d in agent.delivered] == ["executor:mine.1"]
    assert (agent.lost, thief.delivered) == ([], [])


@pytest.mark.parametrize("name", ["tcp://127.0.0.1:5051", "nonsense", "peer:XYZ", "", "tcp://[::1]:5/x"])
def test_an_executor_cannot_call_itself_a_listening_process_or_nonsense(world: ZmqWorld, keys: Keys, name: str) -> None:
    agent = world.listening(keys)
    executor = world.end(agent.transport.authorize_executor(ContainerId("mine.1")))
    executor.transport.node = Node(name)
    executor.send(address(agent.node, "agent"), Ping(Term(666)))
    world.run_until(
        lambda: agent.transport.counters["refused.not-cluster"] + agent.transport.counters["dropped.bad-node"] == 1
    )

    assert agent.story == []


def test_nobody_can_call_himself_by_our_name(world: ZmqWorld, keys: Keys) -> None:
    agent, other = world.listening(keys), world.end(keys)
    other.transport.node = agent.node
    other.transport.node = Node(agent.node)
    where = address(agent.node, "agent")
    # To itself, by its name, it would not connect at all: by another name for the same place it does.
    other.send(where.replace("127.0.0.1", "localhost"), Ping(Term(666)))  # type: ignore[arg-type]
    world.run_until(lambda: bool(other.lost))

    assert agent.transport.counters["refused.my-name"] == 1
    assert agent.story == []


def test_a_connection_cannot_change_its_name(world: ZmqWorld, keys: Keys) -> None:
    agent, other = world.listening(keys), world.end(keys)
    hello(world, other, agent)
    name, other.transport.node = other.node, Node("peer:ffff")
    other.send(address(agent.node, "agent"), Ping(Term(666)))
    world.run_until(lambda: agent.transport.counters["dropped.spoofed"] == 1)

    assert [d.sender for d in agent.delivered] == [address(name, "here")]


def test_a_sender_cannot_smuggle_a_node_into_its_actors_name(world: ZmqWorld, keys: Keys) -> None:
    agent, other = world.listening(keys), world.end(keys)
    other.transport.send(address(agent.node, "agent"), "x/agent", "", Ping(Term(666)))
    hello(world, other, agent)

    assert [d.message for d in agent.delivered] == [Ping(Term(1))]
    assert agent.transport.counters["dropped.malformed"] == 1


def raw_client(keys: Keys, node: Node) -> tuple[zmq.Context[zmq.Socket[bytes]], zmq.Socket[bytes]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 1_000
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = keys.public, keys.public, keys.secret
    socket.connect(node)
    return context, socket


def test_a_frame_in_parts_cannot_pass_for_another_connection(world: ZmqWorld, keys: Keys) -> None:
    agent, victim = world.listening(keys), world.end(keys)
    hello(world, victim, agent)
    victims_routing_id = next(iter(agent.transport._connections._by_routing_id))
    forged = Batch()
    forged.add("agent", "here", "", Ping(Term(666)))
    context, socket = raw_client(keys, agent.node)
    socket.send_multipart([b"x", victims_routing_id, forged.frame(victim.node, 1 << 62, 1)])
    world.run_until(lambda: agent.transport.counters["dropped.undecodable"] == 1)
    hello(world, victim, agent)

    assert agent.messages == [Ping(Term(1))] * 2
    socket.close()
    context.term()


def test_garbage_on_an_authenticated_connection_is_dropped_and_counted(world: ZmqWorld, keys: Keys) -> None:
    agent = world.listening(keys)
    garbage = [b"", b"\xc1", b"\x91" * 100_000, b"\x96\x01", bytes(range(256)), b"\x96\x07" + b"\x00" * 50]
    context, socket = raw_client(keys, agent.node)
    for data in garbage:
        socket.send(data)
    world.run_until(lambda: agent.transport.counters["dropped.undecodable"] == len(garbage))
    hello(world, world.end(keys, settings=QUICK), agent)

    assert agent.messages == [Ping(Term(1))]
    socket.close()
    context.term()
