"""ZeroMQ sockets as the transport uses them: options, the monitor of each, and a watched descriptor.

Measured with libzmq 4.3.5: a message carries the descriptor of its connection (ZMQ_SRCFD), which is the value of the
monitor's DISCONNECTED event; that event comes within a millisecond of a peer's kill -9, and frames that arrived before
it can still be read after it. A routing id that ZeroMQ made is a zero byte and a counter: never used twice, and later
connections have later ones. A DEALER connects again by itself, under the same socket; ZMQ_RECONNECT_STOP does not
prevent that in this version. A descriptor is silent until its socket has once been found empty: each is drained
once after it is made.
"""

from __future__ import annotations

import asyncio
import errno
import struct
from collections.abc import Callable

import zmq

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Node, Principal
from mesos_actor.transport.codec import MAX_FRAME_BYTES
from mesos_actor.transport.link import Incoming, Outgoing
from mesos_actor.transport.security import ANONYMOUS, CLUSTER, Keys
from mesos_actor.transport.settings import TransportSettings

Socket = zmq.Socket[bytes]
Context = zmq.Context[Socket]

_EVENTS = (
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
)
_EVENT = struct.Struct("=HI")
_READINESS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)  # as plain integers: asked at every send

_LISTEN_FIXES = {
    errno.EADDRINUSE: "is taken: stop the process that listens there, or choose another port (0: any free one)",
    errno.EADDRNOTAVAIL: "is not an address of this host: name one that is",
    errno.EACCES: "is not open to this user: choose a port above 1023",
}


class Monitor:
    """What happens to the connections of one socket: `on_event(event, value)`, value being the descriptor."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        watched: Socket,
        name: str,
        on_event: Callable[[int, int], None],
    ) -> None:
        self._watched = watched
        self._on_event = on_event
        where = f"inproc://monitor-{name}"
        watched.monitor(where, _EVENTS)
        self._socket = context.socket(zmq.PAIR)
        self._socket.linger = 0
        self._socket.rcvhwm = 0  # the writer is ZeroMQ's own thread, which must never wait for us
        self._socket.connect(where)
        self._descriptor = self._socket.fileno()
        self._loop = loop
        self._loop.add_reader(self._descriptor, self.drain)
        self._loop.call_soon(self.drain)

    def drain(self) -> None:
        """Tell of everything that has happened so far."""
        while not self._socket.closed:
            try:
                event, _endpoint = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_event(*_EVENT.unpack(event))

    def close(self) -> None:
        if self._socket.closed:
            return
        self._loop.remove_reader(self._descriptor)
        self._watched.disable_monitor()
        self._socket.close()


class Dialled:
    """A DEALER: the link to a peer that we connect to. Used for one epoch, then closed."""

    __slots__ = ("_descriptor", "_loop", "incoming", "monitor", "node", "outgoing", "principal", "socket", "up")

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        node: Node,
        keys: Keys | None,
        settings: TransportSettings,
        epoch: int,
        on_event: Callable[[Dialled, int], None],
        on_readable: Callable[[Dialled], None],
    ) -> None:
        """Raises zmq.ZMQError when the address is no good or a bound of the host is reached."""
        self.node = node
        #: The peer has proved that it holds the cluster's secret.
        self.principal: Principal = ANONYMOUS if keys is None else CLUSTER
        self.incoming = Incoming()
        self.outgoing = Outgoing(epoch)
        #: Whether the peer has accepted us.
        self.up = False
        self._loop = loop
        self.socket = context.socket(zmq.DEALER)
        try:
            _set_common(self.socket, settings)
            self.socket.linger = 0
            self.socket.immediate = True  # nothing is queued for a connection that does not stand
            self.socket.reconnect_ivl = settings.reconnect_ms
            self.socket.reconnect_ivl_max = settings.reconnect_max_ms
            self.socket.connect_timeout = settings.connect_timeout_ms
            self.socket.ipv6 = node.startswith("tcp://[")
            if keys is not None:
                self.socket.curve_serverkey = keys.server_public
                self.socket.curve_publickey = keys.public
                self.socket.curve_secretkey = keys.secret
            self.monitor = Monitor(context, loop, self.socket, str(epoch), lambda event, _value: on_event(self, event))
        except BaseException:
            self.socket.close()
            raise
        try:
            self.socket.connect(node)
            self._descriptor = self.socket.fileno()
            self._loop.add_reader(self._descriptor, on_readable, self)
            self._loop.call_soon(on_readable, self)
        except BaseException:
            self.monitor.close()
            self.socket.close()
            raise

    def close(self, linger_ms: int) -> None:
        """Close; what ZeroMQ already holds may still leave within `linger_ms`."""
        if self.socket.closed:
            return
        self._loop.remove_reader(self._descriptor)
        self.monitor.close()
        self.socket.close(linger_ms)


class Listener:
    """The ROUTER: every connection that others made to us."""

    def __init__(
        self,
        context: Context,
        loop: asyncio.AbstractEventLoop,
        listen: str,
        keys: Keys | None,
        settings: TransportSettings,
        on_event: Callable[[int, int], None],
        on_readable: Callable[[], None],
    ) -> None:
        """Raises ConfigError, naming address and fix, when we cannot listen there."""
        self._loop = loop
        self.socket = context.socket(zmq.ROUTER)
        _set_common(self.socket, settings)
        self.socket.linger = settings.linger_ms
        self.socket.router_mandatory = True  # tells a full peer from a gone one
        self.socket.ipv6 = listen.startswith("tcp://[")
        if keys is not None:
            assert keys.cluster_secret is not None
            self.socket.curve_server = True
            self.socket.curve_publickey = keys.public
            self.socket.curve_secretkey = keys.cluster_secret
            self.socket.zap_domain = b"mesos-actor"  # makes ZeroMQ insist on an answer: default deny
        # The monitor before the port: no connection may come unseen.
        self.monitor = Monitor(context, loop, self.socket, "listener", on_event)
        try:
            self.socket.bind(listen)
        except zmq.ZMQError as error:
            self.monitor.close()
            self.socket.close(0)
            fix = _LISTEN_FIXES.get(error.errno or 0, f"cannot be used ({error}): it must be tcp://host:port")
            raise ConfigError(f"listen: {listen} {fix}") from error
        bound = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        assert isinstance(bound, bytes)
        self.port = int(bound.rstrip(b"\0").rpartition(b":")[2])
        self._descriptor = self.socket.fileno()
        self._loop.add_reader(self._descriptor, on_readable)
        self._loop.call_soon(on_readable)

    def close(self, linger_ms: int) -> None:
        self._loop.remove_reader(self._descriptor)
        self.monitor.close()
        self.socket.close(linger_ms)


def is_readable(socket: Socket) -> bool:
    """Whether something can be received now. Unlike the descriptor, it always knows."""
    return bool(int(socket.getsockopt(_READINESS)) & _READABLE)


def _set_common(socket: Socket, settings: TransportSettings) -> None:
    socket.maxmsgsize = MAX_FRAME_BYTES
    socket.sndhwm = settings.high_water_frames
    socket.rcvhwm = settings.high_water_frames
    socket.handshake_ivl = settings.handshake_timeout_ms
    socket.heartbeat_ivl = settings.heartbeat_interval_ms
    socket.heartbeat_timeout = settings.heartbeat_timeout_ms
    socket.heartbeat_ttl = settings.heartbeat_timeout_ms
