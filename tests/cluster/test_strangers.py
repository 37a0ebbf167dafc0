"""Who has no key, or the wrong one, and who sends what is no message: the cluster stays up and does nothing for it."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from mesos_actor.actors.ids import FrameworkId, Node, OperationId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import Query
from mesos_actor.actors.messages.scheduler import Subscribe, Teardown
from mesos_actor.actors.messages.values import FrameworkInfo
from mesos_actor.transport.codec import Batch
from mesos_actor.transport.security import create_client_key, create_cluster_key, load_keys
from tests.cluster.real_cluster import Cluster, until


class Stranger:
    """A plain ZeroMQ socket, with whatever keys it was given."""

    def __init__(self, masters: str, server: bytes = b"", public: bytes = b"", secret: bytes = b"") -> None:
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        if secret:
            self.socket.curve_serverkey, self.socket.curve_publickey, self.socket.curve_secretkey = (
                server,
                public,
                secret,
            )
        self.socket.connect(f"tcp://{masters}")
        self.sequence = 0

    def send(self, message: Message) -> None:
        batch = Batch()
        batch.add("master", "framework", "", message)
        self.sequence += 1
        self.put(batch.frame(Node("peer:0123456789abcdef"), 1, self.sequence))

    def put(self, *frames: bytes) -> None:
        """Send, unless we have been refused already: then nothing can be sent."""
        with contextlib.suppress(zmq.Again):
            self.socket.send_multipart(list(frames), zmq.NOBLOCK)

    def hears(self, wait_ms: int) -> bytes:
        """What comes within that time; empty when nothing does."""
        return self.socket.recv() if self.socket.poll(wait_ms) else b""

    def close(self) -> None:
        self.context.destroy(linger=0)


MESSAGES = (
    Query(operation_id=OperationId("q"), what="status"),
    Subscribe(FrameworkInfo(name="intruder"), operation_id=OperationId("s")),
    Teardown(framework_id=FrameworkId("x"), operation_id=OperationId("t")),
)


@pytest.fixture
def strangers() -> Iterator[list[Stranger]]:
    made: list[Stranger] = []
    yield made
    for stranger in made:
        stranger.close()


def test_nobody_without_the_clusters_key_is_heard(shared: Cluster, strangers: list[Stranger]) -> None:
    keys = load_keys(shared.keys)
    public, secret = zmq.curve_keypair()
    strangers += [
        Stranger(shared.masters),
        Stranger(shared.masters, keys.server_public, public, secret),
        Stranger(shared.masters, public, public, secret),
    ]
    before = {row["framework_id"] for row in shared.rows("frameworks")}
    for stranger in strangers:
        for message in MESSAGES:
            stranger.send(message)

    for stranger in strangers:
        assert stranger.hears(300) == b""
    assert {row["name"] for row in shared.rows("frameworks") if row["framework_id"] not in before}.isdisjoint(
        {"intruder"}
    )


def test_a_member_is_heard_by_the_same_means(shared: Cluster, strangers: list[Stranger]) -> None:
    """So that the silence above means something."""
    keys = load_keys(shared.keys)
    member = Stranger(shared.masters, keys.server_public, keys.public, keys.secret)
    strangers.append(member)
    member.send(MESSAGES[0])

    assert b"QueryResult" in member.hears(5_000)


def test_what_is_no_frame_is_thrown_away(shared: Cluster, strangers: list[Stranger]) -> None:
    keys = load_keys(shared.keys)
    agent = shared.rows("agents")[0]["address"].removeprefix("tcp://").removesuffix("/agent")
    (before,) = shared.rows("status")
    rng = random.Random(20_260_101)
    batch = Batch()
    for message in MESSAGES[:1]:
        batch.add("master", "client", "", message)
    valid = batch.frame(Node("peer:0123456789abcdef"), 1, 1)
    for place in (shared.masters, agent):
        for member in (True, False):
            stranger = Stranger(place, *((keys.server_public, keys.public, keys.secret) if member else ()))
            strangers.append(stranger)
            for size in (0, 1, 7, 100, 70_000):
                stranger.put(rng.randbytes(size))
                stranger.put(b"", rng.randbytes(size), b"x")
            for _ in range(200):
                broken = bytearray(valid)
                broken[rng.randrange(len(broken))] = rng.randrange(256)
                stranger.put(bytes(broken)[: rng.randrange(1, len(broken) + 1)])
        host, _, port = place.rpartition(":")
        for words in (b"GET / HTTP/1.1\r\n\r\n", rng.randbytes(5_000), b"\xff" + bytes(8) + b"\x7f\x03" + bytes(53)):
            with socket.create_connection((host, int(port)), timeout=5) as connection:
                connection.sendall(words)

    ended = shared.cli("run", "--", "echo", "still here")
    (after,) = shared.rows("status")
    assert (ended.status, ended.out) == (0, "still here\n"), ended
    assert after["agents"] == before["agents"]
    assert after["term"] == before["term"]


def test_a_client_with_another_clusters_key_is_told_what_to_check(shared: Cluster, tmp_path: Path) -> None:
    create_cluster_key(tmp_path / "other")
    mine = ("--timeout", "1", "--key-dir", str(tmp_path / "other"))
    for arguments in (("status", *mine), ("run", *mine, "--", "true"), ("kill", *mine, "t.0")):
        ended = shared.cli(*arguments)
        assert ended.status == 1, ended
        assert "is this its key" in ended.err, ended
        assert len(ended.err.splitlines()) == 1, ended


def test_an_agent_with_another_clusters_key_keeps_out_and_says_so(shared: Cluster, tmp_path: Path) -> None:
    create_cluster_key(tmp_path / "other")
    agent = shared.spawn_start(
        "intruder",
        *("--as", "agent", "--work-dir", str(tmp_path / "work"), "--hostname", "intruder"),
        *("--key-dir", str(tmp_path / "other"), "--resources", "cpus:1;mem:64"),
    )
    until(lambda: " not_admitted " in agent.err(), "the agent says that it is not admitted")

    assert agent.is_alive(), agent.ended()
    (line,) = [line for line in agent.err().splitlines() if " not_admitted " in line]
    assert " error " in line
    assert f"{tmp_path / 'other'} does not hold this master's key" in line
    assert "start it with the --key-dir" in line
    assert agent.out().startswith("ready: an agent at ")
    assert agent.out().endswith(", looking for a master\n")
    assert [row for row in shared.rows("agents") if row["hostname"] == "intruder"] == []
    agent.kill()


def test_a_user_with_a_key_of_their_own_may_work_and_is_named(bare: Cluster, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    create_cluster_key(keys)
    bare.keys = keys
    public = create_client_key(tmp_path / "alice")
    (tmp_path / "alice" / "cluster.pub").write_bytes((keys / "cluster.pub").read_bytes())
    bare.start_master()
    bare.start_agent()
    mine = ("--key-dir", str(tmp_path / "alice"))
    unknown = bare.cli("status", "--timeout", "0.5", *mine)
    (keys / "authorized" / "alice.pub").write_text(public)
    ended = bare.cli("run", *mine, "--", "echo", "by alice")

    assert unknown.status == 1, unknown
    assert (ended.status, ended.out) == (0, "by alice\n"), ended
    assert json.loads(bare.ok("frameworks", "--json", *mine))[0]["principal"] == "alice"


def test_a_cluster_without_security_says_so_and_takes_only_clients_that_want_none(bare: Cluster) -> None:
    both = bare.start("both", "--insecure", "--port", "0", "--work-dir", str(bare.directory / "w"))
    bare.masters = bare.ready("both")["address"]
    ended = bare.cli("run", "--insecure", "--", "echo", "for anybody")
    secure = bare.cli("status", "--timeout", "1")

    assert "NO ENCRYPTION, NO AUTHENTICATION" in both.err()
    assert (ended.status, ended.out) == (0, "for anybody\n"), ended
    assert secure.status == 1, secure
    assert "--insecure" in secure.err
    assert len(secure.err.splitlines()) == 1, secure


def test_keys_open_to_others_are_refused(bare: Cluster, tmp_path: Path) -> None:
    create_cluster_key(tmp_path / "open")
    (tmp_path / "open" / "cluster.key").chmod(0o644)
    for arguments in (("status", "--masters", "127.0.0.1:1"), ("start", "--port", "0", "--work-dir", str(tmp_path))):
        ended = bare.cli(*arguments, "--key-dir", str(tmp_path / "open"))
        assert ended.status in (1, 2), ended
        assert "chmod 0600" in ended.err, ended
        assert len(ended.err.splitlines()) == 1, ended
