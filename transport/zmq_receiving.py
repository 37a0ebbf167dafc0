"""The receiving half of the ZeroMQ transport: who speaks to us, as whom, and in which epoch."""

from __future__ import annotations

import asyncio

import zmq

from mesos_actor.actors.errors import PeerError
from mesos_actor.actors.ids import Address, Node, Principal, address
from mesos_actor.transport.codec import Batch, Frame, Unreadable, read_frame
from mesos_actor.transport.link import Verdict
from mesos_actor.transport.security import ANONYMOUS, CLUSTER
from mesos_actor.transport.zmq_links import Connection, Link, is_dialable, is_node
from mesos_actor.transport.zmq_sending import SendingHalf
from mesos_actor.transport.zmq_sockets import Dialled

_CLOSING_MAX_US = 1_000_000
"""A connection that ended is forgotten after this even if we never get to read all of it."""


class ReceivingHalf(SendingHalf):
    """Everything that makes messages arrive."""

    #: Connections of which no frame has left yet; see `_sweep`.
    _unproven: list[Connection]
    _flush_handle: asyncio.Handle | None = None

    # -- connections that we made --------------------------------------------------------------------------------------

    def _on_dialled_event(self, dialled: Dialled, event: int) -> None:
        link = self._links.get(dialled.node)
        if link is None or link.dialled is not dialled:
            return
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            dialled.up = True
            if link.path is None:
                link.path = dialled
                if not link.batches:
                    link.batches.append(Batch())  # an empty frame tells the other side who we are
                self._transmit(link)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            self._count("refused.by-peer", node=dialled.node, text="our key is not known there")
            self._lose(link, "not-admitted")  # ZeroMQ would not try again by itself
        elif event != zmq.EVENT_DISCONNECTED:
            self._count("handshakes_failed", node=dialled.node)
        elif dialled.up:
            self._loop.call_soon(self._on_dialled_ended, dialled)

    def _on_dialled_ended(self, dialled: Dialled) -> None:
        self._drain_dialled(dialled, budget=1 << 30)  # what came before the end; ZeroMQ holds at most a high-water mark
        link = self._links.get(dialled.node)
        if link is not None and link.dialled is dialled:
            self._lose(link, "disconnected")

    def _on_dialled_readable(self, dialled: Dialled) -> None:
        drained = False
        try:
            drained = self._drain_dialled(dialled, self._settings.turn_messages)
        finally:
            if not drained:
                self._loop.call_soon(self._on_dialled_readable, dialled)
        if self._blocked:
            self._retry_blocked()

    def _drain_dialled(self, dialled: Dialled, budget: int) -> bool:
        """Take what came, about `budget` messages; True when nothing is left."""
        socket = dialled.socket
        while budget > 0:
            if socket.closed:
                return True
            try:
                data = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return True
            budget -= self._on_dialled_frame(dialled, data)
        return False

    def _on_dialled_frame(self, dialled: Dialled, data: bytes) -> int:
        frame = self._read(data, dialled.node)
        link = self._links.get(dialled.node)
        if frame is None or link is None or link.dialled is not dialled:
            return 1
        # The peer is whom we dialled, under the name we dialled: it may know itself by another.
        return self._take(link, dialled, *frame)

    # -- connections that others made ----------------------------------------------------------------------------------

    def _on_listener_event(self, event: int, descriptor: int) -> None:
        if event == zmq.EVENT_DISCONNECTED:
            connection = self._connections.disconnected(descriptor)
            if connection is not None:
                self._on_ended(connection)
        elif event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._count("handshakes_refused")

    def _on_ended(self, connection: Connection) -> None:
        self._connections.closing(connection, self._clock.monotonic_us())
        self._loop.call_soon(self._finish_closing)

    def _finish_closing(self) -> None:
        if self._closed:
            return
        late = self._clock.monotonic_us() - self._connections.closing_since_us > _CLOSING_MAX_US
        if not self._drain_router(self._settings.turn_messages) and not late:
            self._loop.call_soon(self._finish_closing)
            return
        for connection in self._connections.take_closed():
            link, connection.link = connection.link, None
            if link is not None and link.route is connection:
                link.route = None
                self._lose(link, "disconnected")

    def _on_router_readable(self) -> None:
        drained = False
        try:
            drained = self._drain_router(self._settings.turn_messages)
        finally:
            if not drained:
                self._loop.call_soon(self._on_router_readable)
        if self._blocked:
            self._retry_blocked()

    def _drain_router(self, budget: int) -> bool:
        """Take what came, about `budget` messages; True when nothing is left."""
        assert self._listener is not None
        socket = self._listener.socket
        while budget > 0:
            if self._closed:
                return True
            try:
                routing_id = socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return True
            connection = self._connections.get(routing_id)
            part = socket.recv(zmq.NOBLOCK, copy=False)
            if part.more:  # ours are never in parts: and the next must not be taken for a routing id
                while socket.getsockopt(zmq.RCVMORE):
                    socket.recv(zmq.NOBLOCK)
                self._count("dropped.undecodable", error="frame in several parts")
                continue
            budget -= self._on_routed_frame(routing_id, connection, part)
        return False

    def _on_routed_frame(self, routing_id: bytes, connection: Connection | None, part: zmq.Frame) -> int:
        found = self._read(part.bytes, "" if connection is None else connection.node)
        if found is None:
            return 1
        if connection is None:
            connection = self._meet(routing_id, part, found[0])
            if connection is None:
                return 1
        if connection.link is None:
            self._count("dropped.late", node=connection.node)
            return 1
        if found[0].node != connection.node:
            self._count("dropped.spoofed", node=connection.node, claimed=found[0].node)
            return 1
        return self._take(connection.link, connection, *found)

    def _meet(self, routing_id: bytes, part: zmq.Frame, frame: Frame) -> Connection | None:
        """Take note of a connection at its first frame, and give it its link unless something speaks against it."""
        assert self._listener is not None
        if len(routing_id) != 5 or routing_id[0] or not is_node(frame.node):
            self._count("dropped.bad-node", node=frame.node[:100])
            return None
        # Ends of former connections with the same descriptor come first.
        self._listener.monitor.drain()
        principal = ANONYMOUS if self._keys is None else Principal(str(part.get("User-Id")))
        descriptor = part.get(zmq.SRCFD)
        assert isinstance(descriptor, int)
        epoch = self._mint.next(self._clock.now_us())
        connection = Connection(routing_id, descriptor, principal, frame.node, epoch, self._clock.monotonic_us())
        if len(self._connections) >= self._settings.max_connections:
            objection = "full"
        else:
            self._connections.add(connection)
            objection = self._claim(connection) if frame.sequence == 1 else "not-first"
        if objection:
            self._count(f"refused.{objection}", node=frame.node, principal=principal)
            self._refuse(connection, objection)
        else:
            self._unproven.append(connection)
            self._sweep_later()
        return connection

    def _claim(self, connection: Connection) -> str:
        """Give `connection` the link of its node; returns the objection, empty when there is none."""
        node = connection.node
        if node == self.node:
            return "my-name"
        if self._keys is not None and is_dialable(node) and connection.principal != CLUSTER:
            return "not-cluster"  # only holders of the cluster's key can listen, so only they have such names
        link = self._links.get(node)
        if link is not None and link.dialled is not None and link.dialled.up:
            link.dialled.monitor.drain()  # its end may be why the peer connects to us now
            link = self._links.get(node)
        if link is not None and link.route is not None:
            if link.route.principal != connection.principal:
                return "claimed"
            if connection.older_than(link.route):
                return "late"
            self._lose(link, "replaced")  # the peer was started again, or opened a new epoch
            link = self._links.get(node)  # whoever was told may have begun to dial it
        if link is None:
            link = self._links[node] = Link(node, self._clock.monotonic_us())
        if link.path is None:
            self._hang_up(link, 0)  # it did not come up yet; what waits leaves by the peer's connection
            link.path = connection
        link.route = connection
        connection.link = link
        self._transmit(link)
        return ""

    # -- frames in -----------------------------------------------------------------------------------------------------

    def _read(self, data: bytes, node: str) -> tuple[Frame, list[Unreadable]] | None:
        self.counters["frames_received"] += 1
        self.counters["bytes_received"] += len(data)
        try:
            return read_frame(data)
        except PeerError as error:
            self._count("dropped.undecodable", node=node, error=str(error))
            return None

    def _take(self, link: Link, source: Dialled | Connection, frame: Frame, bad: list[Unreadable]) -> int:
        """Deliver `frame` if it is its turn; returns about how many messages that was."""
        fresh = source.incoming.epoch is None
        verdict = source.incoming.judge(frame.epoch, frame.sequence)
        if verdict is Verdict.LATE:
            self._count("dropped.late", node=link.node)
            return 1
        if verdict is Verdict.NEW_EPOCH and (not fresh or frame.sequence != 1):
            self._lose(link, "new-epoch")
            return 1
        if frame.notice:
            self._lose(link, f"peer:{frame.notice[:100]}")
            return 1
        link.used_us = self._clock.monotonic_us()
        node, principal, deliver = link.node, source.principal, self._deliver
        for envelope in frame.envelopes:
            if self._closed:
                return 1
            if "/" in envelope.sender:
                self._count("dropped.malformed", node=node)
                continue
            deliver(envelope.to, Address(f"{node}/{envelope.sender}"), principal, envelope.cause, envelope.message)
        self.counters["messages_received"] += len(frame.envelopes)
        for item in bad:
            self._answer(node, item)
        return 1 + len(frame.envelopes) + len(bad)

    def _answer(self, node: Node, item: Unreadable) -> None:
        self._count(f"dropped.{item.reason}", node=node, about=item.about, error=item.text)
        refusal = item.refusal()
        if refusal is not None and "/" not in item.sender:
            self.send(address(node, item.sender), item.to, item.cause, refusal)
            if self._flush_handle is None:
                self._flush_handle = self._loop.call_soon(self._flush_answers)

    def _flush_answers(self) -> None:
        self._flush_handle = None
        self.flush()
