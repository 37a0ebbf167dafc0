"""The sending half of the ZeroMQ transport: links, what waits on them, and how they end."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping

import zmq

from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.ids import Address, Node, Principal, address
from mesos_actor.actors.messages.base import Message
from mesos_actor.transport.clock import Clock
from mesos_actor.transport.link import EpochMint
from mesos_actor.transport.security import Keys
from mesos_actor.transport.settings import TransportSettings
from mesos_actor.transport.transport import Deliver, LinkLost
from mesos_actor.transport.zap import Report
from mesos_actor.transport.zmq_links import Connection, Connections, Link, empty_frame, is_dialable, is_node
from mesos_actor.transport.zmq_sockets import Context, Dialled, Listener, is_readable

_log = logging.getLogger("mesos_actor.transport")

_LOCAL = Principal("local")
_ORDINARY_ENDS = ("disconnected", "idle", "peer:idle")


class SendingHalf(ABC):
    """State shared by both halves, and everything that makes frames leave."""

    def __init__(
        self,
        security: Keys | None,
        on_deliver: Deliver,
        on_link_lost: LinkLost,
        settings: TransportSettings,
        clock: Clock,
        report: Report | None,
    ) -> None:
        self.node = Node(f"peer:{os.urandom(8).hex()}")
        self.counters: Counter[str] = Counter()
        self._keys = security
        self._deliver = on_deliver
        self._tell_lost = on_link_lost
        self._settings = settings
        self._clock = clock
        self._report_to = report or _log_event
        self._loop = asyncio.get_running_loop()
        self._mint = EpochMint()
        self._links: dict[Node, Link] = {}
        #: The links of which we made a connection, by node.
        self._dialled: dict[Node, Link] = {}
        self._connections = Connections()
        self._dirty: list[Link] = []
        #: Links whose socket was full, in order.
        self._blocked: dict[Link, None] = {}
        self._retry: asyncio.TimerHandle | None = None
        self._router_used = False
        self._closed = False
        self._listener: Listener | None = None
        self._context: Context = zmq.Context()
        # A DEALER, its monitor, and the monitor's other end.
        self._context.set(zmq.MAX_SOCKETS, 3 * settings.max_dialled + 64)

    @abstractmethod
    def _on_dialled_event(self, dialled: Dialled, event: int) -> None: ...

    @abstractmethod
    def _on_dialled_readable(self, dialled: Dialled) -> None: ...

    @abstractmethod
    def _on_router_readable(self) -> None: ...

    @abstractmethod
    def _on_ended(self, connection: Connection) -> None: ...

    @abstractmethod
    def _sweep_later(self) -> None: ...

    # -- links ---------------------------------------------------------------------------------------------------------

    def send(self, to: Address, sender: str, cause: str, message: Message) -> None:
        if self._closed:
            self._count("dropped.closed", to=to)
            return
        node, _, actor = to.rpartition("/")
        link = self._links.get(Node(node)) or self._open(Node(node))
        if link is None:
            if node in ("", self.node):
                self._loop.call_soon(self._deliver_local, actor, address(self.node, sender), cause, message)
            return
        try:
            if not link.add(self._settings, actor, sender, cause, message):
                self._count("dropped.full", node=node)
                return
        except LocalError as error:
            self._count("dropped.unsendable", node=node, error=str(error))
            return
        if not link.dirty:
            link.dirty = True
            self._dirty.append(link)

    def flush(self) -> None:
        dirty, self._dirty = self._dirty, []
        for link in dirty:
            link.dirty = False
            self._transmit(link)
        self._look_after_sending()

    def _open(self, node: Node) -> Link | None:
        """A new link to `node`, which we dial; None, counted, when there can be none."""
        if node in ("", self.node):
            return None
        if not is_dialable(node):
            self._count("dropped.unreachable" if is_node(node) else "dropped.bad-address", node=node)
            return None
        if len(self._dialled) >= self._settings.max_dialled:
            self._count("dropped.max-dialled", node=node)
            return None
        now_us = self._clock.monotonic_us()
        link = Link(node, now_us)
        epoch = self._mint.next(self._clock.now_us())
        try:
            link.dialled = Dialled(
                self._context,
                self._loop,
                node,
                self._keys,
                self._settings,
                epoch,
                self._on_dialled_event,
                self._on_dialled_readable,
            )
        except zmq.ZMQError as error:
            self._count("dropped.cannot-connect", node=node, error=str(error))
            return None
        self._links[node] = self._dialled[node] = link
        self._sweep_later()
        return link

    def _lose(self, link: Link, reason: str, linger_ms: int = 0) -> None:
        """End the epoch: both sides are told, what waits is dropped, the next use begins anew."""
        if self._closed or self._links.get(link.node) is not link:
            return
        del self._links[link.node]
        self._hang_up(link, linger_ms)
        if link.route is not None:
            self._refuse(link.route, reason)
        self._blocked.pop(link, None)
        self.counters["dropped.link-lost"] += link.queued_messages
        link.batches.clear()
        link.ready_frame = link.path = None
        self.counters["links_lost"] += 1
        if reason not in _ORDINARY_ENDS:
            self._count("link_ended", node=link.node, reason=reason)
        self._tell_lost(link.node)

    def _hang_up(self, link: Link, linger_ms: int) -> None:
        if link.dialled is not None:
            self._dialled.pop(link.node, None)
            link.dialled.close(linger_ms)
            link.dialled = None

    def _refuse(self, connection: Connection, reason: str) -> None:
        """Have nothing more to do with `connection`, and say so to the other end."""
        link, connection.link = connection.link, None
        assert self._listener is not None
        try:
            self._send_to(connection, empty_frame(self.node, connection.outgoing, reason))
        except zmq.ZMQError:  # gone, or so full that it will notice by its silence: its frames are dropped either way
            self.counters["goodbyes_unsent"] += 1
        if link is not None and link.route is connection:
            link.route = None
            self._lose(link, reason)

    # -- frames out ----------------------------------------------------------------------------------------------------

    def _transmit(self, link: Link) -> None:
        path = link.path
        while path is not None and (frame := link.next_frame(self.node)) is not None:
            try:
                self._send_to(path, frame)
            except zmq.Again:
                self._blocked[link] = None
                self._retry_later()
                return
            except zmq.ZMQError as error:
                if not isinstance(path, Connection) or error.errno != errno.EHOSTUNREACH:
                    raise
                self._on_ended(path)
                return
            counters = self.counters
            counters["frames_sent"] += 1
            counters["bytes_sent"] += len(frame)
            counters["messages_sent"] += link.frame_left()
            link.used_us = self._clock.monotonic_us()

    def _send_to(self, path: Dialled | Connection, frame: bytes) -> None:
        if isinstance(path, Dialled):
            path.socket.send(frame, zmq.NOBLOCK)
            if is_readable(path.socket):
                self._loop.call_soon(self._on_dialled_readable, path)
        else:
            assert self._listener is not None
            socket = self._listener.socket
            socket.send(path.routing_id, zmq.NOBLOCK | zmq.SNDMORE)
            socket.send(frame, zmq.NOBLOCK)
            self._router_used = True

    def _look_after_sending(self) -> None:
        if self._router_used and self._listener is not None:
            self._router_used = False
            if is_readable(self._listener.socket):
                self._loop.call_soon(self._on_router_readable)

    def _retry_later(self) -> None:
        if self._retry is None:
            self._retry = self._loop.call_later(self._settings.retry_ms / 1_000, self._retry_blocked)

    def _retry_blocked(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        blocked, self._blocked = self._blocked, {}
        for link in blocked:
            self._transmit(link)
        self._look_after_sending()

    # -- telling -------------------------------------------------------------------------------------------------------

    def _deliver_local(self, actor: str, sender: Address, cause: str, message: Message) -> None:
        if not self._closed:
            self._deliver(actor, sender, _LOCAL, cause, message)

    def _count(self, what: str, **fields: object) -> None:
        """Count it, and report the first, second, fourth, eighth ... so that a flood of it is no flood of lines."""
        self.counters[what] += 1
        count = self.counters[what]
        if not count & (count - 1):
            self._report_to(what, {**fields, "count": count})


def _log_event(event: str, fields: Mapping[str, object]) -> None:
    _log.warning("%s %s", event, " ".join(f"{name}={value}" for name, value in fields.items()))
