"""Messages a second, one way, between two processes on loopback: our transport beside raw pyzmq, in one run.

    python benchmarks/messages.py [--messages 300000] [--repeats 3]

Ours: typed messages, encoded, encrypted (CURVE), authenticated, numbered, decoded, validated and given to a callback,
gathered `turn` messages at a time as the runtime does. Raw: opaque frames of the same length through a bare DEALER and
ROUTER, one message a frame, blocking receive, with and without CURVE. The best of the repeats is printed for each.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import zmq

from mesos_actor.actors.ids import AgentId, ContainerId, FrameworkId, Node, TaskId, Term, UpdateId, address
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.codec import encode_message
from mesos_actor.transport.security import create_cluster_key, load_keys
from mesos_actor.transport.zmq import ZmqTransport

TURNS = (1, 32, 256)
MAX_WAITING = 10_000
"""The sender pauses while so many messages wait for the network."""

SMALL: Message = Ping(Term(7))
UPDATE: Message = Update(
    FrameworkId("4f5e6a7b8c9d0e1f-0001"),
    Status(
        TaskId("word-count-17"),
        TaskState.RUNNING,
        Source.AGENT,
        agent_id=AgentId("4f5e6a7b8c9d0e1f-S3"),
        container_id=ContainerId("word-count-17.0123456789ab"),
        timestamp_us=1_760_000_000_000_000,
        update_id=UpdateId("word-count-17.0123456789ab:1"),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="Messages a second between two processes.")
    parser.add_argument("--messages", type=int, default=300_000, help="how many a run (default 300,000)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each kind; the best counts (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        key_dir = Path(directory) / "keys"
        create_cluster_key(key_dir)
        for name, message in (("Ping", SMALL), ("Update", UPDATE)):
            _compare(name, message, key_dir, options.messages, options.repeats)


def _compare(name: str, message: Message, key_dir: Path, count: int, repeats: int) -> None:
    length = len(encode_message(message))
    raw = {curve: max(_raw(curve, length, key_dir, count) for _ in range(repeats)) for curve in (False, True)}
    print(f"{name}, {length} bytes")
    print(f"  raw pyzmq                        {raw[False]:>10,.0f}/s")
    print(f"  raw pyzmq, CURVE                 {raw[True]:>10,.0f}/s")
    for turn in TURNS:
        ours = max(_ours(message, turn, key_dir, count) for _ in range(repeats))
        print(f"  transport, CURVE, {turn:>3} a turn     {ours:>10,.0f}/s   {ours / raw[True]:.2f} of raw with CURVE")


# -- ours -----------------------------------------------------------------------------------------------------------


def _ours(message: Message, turn: int, key_dir: Path, count: int) -> float:
    """Messages a second, from the first send to the last delivery."""
    here, there = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=_receive_ours, args=(there, key_dir, count))
    receiver.start()
    took_s = asyncio.run(_send_ours(here, message, turn, key_dir, count))
    receiver.join()
    return count / took_s


async def _send_ours(pipe: Connection, message: Message, turn: int, key_dir: Path, count: int) -> float:
    transport = ZmqTransport(security=load_keys(key_dir), on_deliver=lambda *_: None, on_link_lost=print)
    node: Node = pipe.recv()
    to = address(node, "master")
    transport.send(to, "agent", "", message)  # opens the link; not counted
    transport.flush()
    await asyncio.to_thread(pipe.recv)
    start_s = time.monotonic()
    sent = 0
    while sent < count:
        for _ in range(min(turn, count - sent)):
            transport.send(to, "agent", "c17", message)
        sent += turn
        transport.flush()
        await asyncio.sleep(0.001 if transport.queued_messages(node) > MAX_WAITING else 0)
    end_s: float = await asyncio.to_thread(pipe.recv)
    transport.close()
    return end_s - start_s


def _receive_ours(pipe: Connection, key_dir: Path, count: int) -> None:
    asyncio.run(_count_ours(pipe, key_dir, count))


async def _count_ours(pipe: Connection, key_dir: Path, count: int) -> None:
    done = asyncio.Event()
    received = 0

    def on_deliver(_actor: str, _sender: str, _principal: str, _cause: str, _message: Message) -> None:
        nonlocal received
        received += 1
        if received == 1:
            pipe.send("ready")
        elif received == count + 1:
            pipe.send(time.monotonic())
            done.set()

    transport = ZmqTransport(
        security=load_keys(key_dir),
        on_deliver=on_deliver,
        on_link_lost=lambda _node: None,
        listen="tcp://127.0.0.1:0",
    )
    pipe.send(transport.node)
    await done.wait()
    transport.close()


# -- raw ------------------------------------------------------------------------------------------------------------


def _raw(curve: bool, length: int, key_dir: Path, count: int) -> float:
    here, there = multiprocessing.Pipe()
    receiver = multiprocessing.Process(target=_receive_raw, args=(there, curve, key_dir, count))
    receiver.start()
    keys = load_keys(key_dir)
    with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
        if curve:
            socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = (
                keys.public,
                keys.public,
                keys.secret,
            )
        socket.connect(here.recv())
        body = b"x" * length
        socket.send(body)
        here.recv()
        start_s = time.monotonic()
        for _ in range(count):
            socket.send(body)
        end_s: float = here.recv()
    receiver.join()
    return count / (end_s - start_s)


def _receive_raw(pipe: Connection, curve: bool, key_dir: Path, count: int) -> None:
    keys = load_keys(key_dir)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as socket:
        if curve:
            socket.curve_server = True
            socket.curve_secretkey = keys.secret
        port = socket.bind_to_random_port("tcp://127.0.0.1")
        pipe.send(f"tcp://127.0.0.1:{port}")
        socket.recv_multipart()
        pipe.send("ready")
        for _ in range(count):
            socket.recv_multipart()
        pipe.send(time.monotonic())


if __name__ == "__main__":
    main()
