"""Real sockets on loopback, driven from a synchronous test: CURVE on, keys of its own, every wait bounded."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from mesos_actor.actors.ids import Node
from mesos_actor.transport.codec import PROTOCOL_VERSION
from mesos_actor.transport.security import Keys, create_cluster_key, load_keys
from mesos_actor.transport.settings import TransportSettings
from mesos_actor.transport.zmq import ZmqTransport
from tests.transport.conformance import End, Pair

PATIENCE_S = 5.0

QUICK = TransportSettings(connect_timeout_ms=600, sweep_ms=50, linger_ms=300, reconnect_ms=20)
"""Short enough for tests, else as in production."""


def cluster_keys(directory: Path) -> Keys:
    create_cluster_key(directory)
    return load_keys(directory)


class ZmqEnd(End):
    """A transport, and what it reported."""

    transport: ZmqTransport

    def __init__(self, loop: asyncio.AbstractEventLoop, keys: Keys | None, **options: Any) -> None:
        super().__init__()
        self.reports: list[tuple[str, dict[str, object]]] = []
        options.setdefault("settings", QUICK)

        async def make() -> ZmqTransport:
            return ZmqTransport(
                security=keys,
                on_deliver=self.on_deliver,
                on_link_lost=self.on_link_lost,
                report=lambda event, fields: self.reports.append((event, dict(fields))),
                **options,
            )

        self.transport = loop.run_until_complete(make())


class ZmqWorld:
    """One loop with any number of ends on it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._ends: list[ZmqEnd] = []

    def end(self, keys: Keys | None, **options: Any) -> ZmqEnd:
        end = ZmqEnd(self.loop, keys, **options)
        self._ends.append(end)
        return end

    def listening(self, keys: Keys | None, **options: Any) -> ZmqEnd:
        return self.end(keys, listen="tcp://127.0.0.1:0", **options)

    def run_until(self, true: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not true():
                await asyncio.sleep(0.001)

        try:
            self.loop.run_until_complete(asyncio.wait_for(wait(), PATIENCE_S))
        except TimeoutError as error:
            stories = [(e.transport.node, e.story[-5:], dict(e.transport.counters), e.reports) for e in self._ends]
            raise AssertionError(f"waited in vain: {stories}") from error

    def settle(self) -> None:
        """Loopback and both loops are through with anything sent after a few of these."""
        self.loop.run_until_complete(asyncio.sleep(0.03))

    def close_ends(self) -> None:
        for end in self._ends:
            end.transport.close()

    def close(self) -> None:
        self.close_ends()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


class Wire:
    """A port that passes bytes on to another, until it is cut."""

    def __init__(self, loop: asyncio.AbstractEventLoop, to_port: int) -> None:
        self._loop = loop
        self._to_port = to_port
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = loop.run_until_complete(asyncio.start_server(self._accept, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._to_port)
        except ConnectionRefusedError:
            writer.close()
            return
        self._writers += [writer, back_writer]
        for source, sink in ((reader, back_writer), (back_reader, writer)):
            task = self._loop.create_task(self._pass(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                sink.write(data)
        except ConnectionError:
            sink.transport.abort()
        finally:
            sink.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def close(self) -> None:
        self.cut()
        self._server.close()
        self._loop.run_until_complete(self._closed())

    async def _closed(self) -> None:
        await self._server.wait_closed()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class ZmqPair(Pair):
    """`left` reaches `right` through a wire that can be cut."""

    left: ZmqEnd
    right: ZmqEnd

    def __init__(self, keys: Keys | None) -> None:
        self._keys = keys
        self._world = ZmqWorld()
        self.left = self._world.end(keys)
        self.right = self._world.end(keys, listen="tcp://127.0.0.1:0")
        self._listen = str(self.right.transport.node)
        self._wire = Wire(self._world.loop, int(self._listen.rpartition(":")[2]))
        self._name_right()

    def _name_right(self) -> None:
        """The wire's port is the name that others know it by, as behind a port mapping."""
        self.right.transport.node = Node(f"tcp://127.0.0.1:{self._wire.port}")

    def run_until(self, true: Callable[[], bool]) -> None:
        self._world.run_until(true)

    def settle(self) -> None:
        self._world.settle()

    def cut(self) -> None:
        self._wire.cut()

    def kill_right(self) -> None:
        """What the other side sees of a kill -9: the connection gone, without a goodbye, and nobody listening."""
        told, self.right.transport._tell_lost = self.right.transport._tell_lost, lambda node: None
        self.right.transport.close()
        self.right.transport._tell_lost = told

    def restart_right(self) -> ZmqEnd:
        self.right = self._world.end(self._keys, listen=self._listen)
        self._name_right()
        return self.right

    def inject(self, body: bytes) -> None:
        dialled = next(iter(self.left.transport._dialled.values())).dialled
        assert dialled is not None
        envelope = ("there", "here", "cause-1", msgspec.Raw(body))
        outgoing = dialled.outgoing
        header = (PROTOCOL_VERSION, self.left.node, outgoing.epoch, outgoing.stamp(), "")
        dialled.socket.send(msgspec.msgpack.encode((*header, [envelope])))

    def close(self) -> None:
        self._world.close_ends()
        self._wire.close()
        self._world.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
