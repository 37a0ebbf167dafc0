"""What the transport knows of its peers: the connections they made to us, and what waits for each of them."""

from __future__ import annotations

import re
from collections import deque

from mesos_actor.actors.ids import Node, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.transport.codec import Batch
from mesos_actor.transport.link import Incoming, Outgoing
from mesos_actor.transport.settings import TransportSettings
from mesos_actor.transport.zmq_sockets import Dialled

_TCP = re.compile(r"tcp://(?:\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5})")
_PEER = re.compile(r"peer:[0-9a-f]{1,64}")


def is_dialable(node: str) -> bool:
    """Whether `node` is `tcp://host:port`; anything else that ZeroMQ could connect to is not for a peer to name."""
    found = _TCP.fullmatch(node)
    return found is not None and 0 < int(found[1]) < 1 << 16


def is_node(node: str) -> bool:
    """Whether a process may call itself that."""
    return _PEER.fullmatch(node) is not None or is_dialable(node)


def empty_frame(node: Node, outgoing: Outgoing, notice: str = "") -> bytes:
    """A frame without messages: it tells who we are, or why the link ends."""
    return Batch().frame(node, outgoing.epoch, outgoing.stamp(), notice)


class Connection:
    """A connection that somebody made to us. It speaks for one node, as one principal, for its whole life."""

    __slots__ = ("born_us", "descriptor", "incoming", "link", "node", "outgoing", "principal", "routing_id")

    def __init__(
        self, routing_id: bytes, descriptor: int, principal: Principal, node: Node, epoch: int, now_us: int
    ) -> None:
        self.routing_id = routing_id
        self.descriptor = descriptor
        self.principal = principal
        self.node = node
        self.born_us = now_us
        self.incoming = Incoming()
        self.outgoing = Outgoing(epoch)
        #: None: refused, replaced or lost; what still comes from it is dropped.
        self.link: Link | None = None

    def older_than(self, other: Connection) -> bool:
        """Whether it was made before `other`: ZeroMQ numbers them, modulo 2^32."""
        mine, theirs = (int.from_bytes(c.routing_id[1:], "big") for c in (self, other))
        return 0 < (theirs - mine) % (1 << 32) < 1 << 31


class Connections:
    """All connections that others made to us.

    The end of one is known by its descriptor, its frames by its routing id, and both arrive by different ways: so one
    that has ended stays `closing` until all its frames have been read.
    """

    def __init__(self) -> None:
        self._by_routing_id: dict[bytes, Connection] = {}
        self._by_descriptor: dict[int, Connection] = {}
        self._closing: list[Connection] = []
        #: When the first of those closing was noticed.
        self.closing_since_us = 0

    def __len__(self) -> int:
        return len(self._by_routing_id)

    def get(self, routing_id: bytes) -> Connection | None:
        return self._by_routing_id.get(routing_id)

    def of(self, principal: Principal) -> list[Connection]:
        return [c for c in self._by_routing_id.values() if c.principal == principal]

    def add(self, connection: Connection) -> None:
        self._by_routing_id[connection.routing_id] = connection
        self._by_descriptor[connection.descriptor] = connection

    def disconnected(self, descriptor: int) -> Connection | None:
        """The connection whose descriptor was closed; None when it never said anything."""
        return self._by_descriptor.pop(descriptor, None)

    def closing(self, connection: Connection, now_us: int) -> None:
        """Note that `connection` has ended."""
        if not self._closing:
            self.closing_since_us = now_us
        self._closing.append(connection)

    def take_closed(self) -> list[Connection]:
        """Forget, and return, those that have ended."""
        closed, self._closing = self._closing, []
        for connection in closed:
            self._by_routing_id.pop(connection.routing_id, None)
            if self._by_descriptor.get(connection.descriptor) is connection:
                del self._by_descriptor[connection.descriptor]
        return closed


class Link:
    """One epoch with one peer, from the first use until a connection of it breaks.

    Frames leave by `path`, the first way that stood: the peer's connection to us, or the one we made. Those that come
    by either are delivered.
    """

    __slots__ = (
        "batches",
        "dialled",
        "dirty",
        "node",
        "opened_us",
        "path",
        "queued_bytes",
        "queued_messages",
        "ready_frame",
        "route",
        "used_us",
        "watched",
    )

    def __init__(self, node: Node, now_us: int) -> None:
        self.node = node
        self.opened_us = now_us
        self.used_us = now_us
        self.watched = False
        self.dialled: Dialled | None = None
        self.route: Connection | None = None
        #: None until a connection stands: until then everything waits.
        self.path: Dialled | Connection | None = None
        #: Whether the next flush looks at it.
        self.dirty = False
        #: Waiting, oldest first.
        self.batches: deque[Batch] = deque()
        #: The first batch as a frame that found no room yet, already numbered.
        self.ready_frame: bytes | None = None
        self.queued_messages = 0
        self.queued_bytes = 0

    def add(self, settings: TransportSettings, to: str, sender: str, cause: str, message: Message) -> bool:
        """Queue a message; False when the bound is reached. Raises LocalError when it cannot travel at all."""
        if self.queued_messages >= settings.max_queued_messages or self.queued_bytes >= settings.max_queued_bytes:
            return False
        batches = self.batches
        if not batches or batches[-1].full or (self.ready_frame is not None and len(batches) == 1):
            batches.append(Batch())
        try:
            self.queued_bytes += batches[-1].add(to, sender, cause, message)
        finally:
            if not batches[-1].count:
                batches.pop()
        self.queued_messages += 1
        return True

    def next_frame(self, node: Node) -> bytes | None:
        """The frame that should leave now, from us, `node`; the same one until `frame_left` is called."""
        if self.ready_frame is None and self.batches and self.path is not None:
            outgoing = self.path.outgoing
            self.ready_frame = self.batches[0].frame(node, outgoing.epoch, outgoing.stamp())
        return self.ready_frame

    def frame_left(self) -> int:
        """Take that frame off the queue; returns how many messages it held."""
        batch = self.batches.popleft()
        self.ready_frame = None
        self.queued_messages -= batch.count
        self.queued_bytes -= len(batch)
        return batch.count
