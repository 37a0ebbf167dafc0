"""The real transport: one ROUTER that listens, one DEALER for each peer we connect to, on an asyncio loop.

* Whoever connected to us is answered through the ROUTER, never by a socket of its own.
* Plain sockets; their descriptors are watched and drained until empty (zmq.asyncio is 14 times slower). A descriptor
  tells of a change only once and a send may swallow that news: after each send the socket is asked itself.
* `send` queues and encodes, `flush` makes one frame per peer: the runtime calls it at the end of each of its turns.
* A link lives as long as its connections. When one breaks, both sides are told once, everything queued is dropped,
  both forget the rest of the link, and the next use begins a new epoch over a new connection.
* Each connection numbers its frames from 1. One that does not begin with 1 is ZeroMQ's own reconnect to a process
  that has never heard of the frames before: refused, which ends the epoch on the other side too.
"""

from __future__ import annotations

import asyncio
import time

import zmq

from mesos_actor.actors.errors import ConfigError, SecurityError
from mesos_actor.actors.ids import ContainerId, Node, Principal
from mesos_actor.transport.clock import Clock, SystemClock
from mesos_actor.transport.security import Keys
from mesos_actor.transport.settings import TransportSettings
from mesos_actor.transport.transport import Deliver, LinkLost
from mesos_actor.transport.zap import Authenticator, Report
from mesos_actor.transport.zmq_links import Connection, empty_frame, is_dialable
from mesos_actor.transport.zmq_receiving import ReceivingHalf
from mesos_actor.transport.zmq_sockets import Listener

_WILDCARDS = ("0.0.0.0", "*", "[::]")
_PROVE_AFTER_US = 100_000  # by then ZeroMQ knows whether the connection of a first frame still stands


class ZmqTransport(ReceivingHalf):
    """One per process; see `transport.Transport` for the promises.

    `counters` counts frames, bytes and messages each way, and drops and refusals by reason (`dropped.full`, ...).
    """

    def __init__(
        self,
        *,
        security: Keys | None,
        on_deliver: Deliver,
        on_link_lost: LinkLost,
        listen: str = "",
        advertise_host: str = "",
        settings: TransportSettings | None = None,
        clock: Clock | None = None,
        report: Report | None = None,
    ) -> None:
        """Must be called inside the running loop.

        `security` None switches encryption and authentication off: everybody is `anonymous`. `listen`
        (`tcp://host:port`, port 0: any free one) empty: nobody can connect to us. `advertise_host` is the host in our
        own node's name, needed when `listen` names every interface. `report(event, fields)` gets what an operator
        should know, by default as warnings of the logger `mesos_actor.transport`.

        Raises ConfigError when `listen` cannot be used, SecurityError when we lack the key to listen.
        """
        super().__init__(
            security, on_deliver, on_link_lost, settings or TransportSettings(), clock or SystemClock(), report
        )
        self._unproven = []
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._authenticator: Authenticator | None = None
        if listen:
            try:
                self._listen(listen, advertise_host)
            except BaseException:
                self.close()
                raise

    def _listen(self, listen: str, advertise_host: str) -> None:
        host = listen.removeprefix("tcp://").rpartition(":")[0]
        if host in _WILDCARDS and not advertise_host:
            raise ConfigError(f"listen: {listen} is every interface: name the host that others reach us by (advertise)")
        if not is_dialable(f"tcp://{advertise_host or host}:1") or not listen.startswith("tcp://"):
            raise ConfigError(
                f"listen: {listen} with host '{advertise_host or host}' is not of the form tcp://host:port"
            )
        if self._keys is not None:
            if self._keys.cluster_secret is None:
                raise SecurityError(f"listen: {listen} needs cluster.key: copy it from another master's key directory")
            self._authenticator = Authenticator(
                self._context, self._keys, self._settings.max_executor_keys, self.counters, self._report_to
            )
        self._listener = Listener(
            self._context,
            self._loop,
            listen,
            self._keys,
            self._settings,
            self._on_listener_event,
            self._on_router_readable,
        )
        self.node = Node(f"tcp://{advertise_host or host}:{self._listener.port}")

    def watch(self, node: Node) -> None:
        if self._closed or node in ("", self.node):
            return
        link = self._links.get(node) or self._open(node)
        if link is None:  # it cannot be opened: that is a loss too
            self._loop.call_soon(self._tell_unless_closed, node)
        else:
            link.watched = True

    def close(self) -> None:
        if self._closed:
            return
        self.flush()
        self._send_the_rest(time.monotonic() + self._settings.linger_ms / 1_000)
        self._closed = True
        self._blocked.clear()
        for handle in (self._retry, self._sweep_timer, self._flush_handle):
            if handle is not None:
                handle.cancel()
        if self._authenticator is not None:
            self._authenticator.close()
        for link in self._links.values():
            self.counters["dropped.closed"] += link.queued_messages
            if link.dialled is not None:
                link.dialled.close(self._settings.linger_ms)
        if self._listener is not None:
            self._listener.close(self._settings.linger_ms)
        self._context.term()  # returns when everything has left or the linger is over: no port stays bound

    def _send_the_rest(self, deadline_s: float) -> None:
        """Wait for room for what is queued on links that stand, until the deadline."""
        while self._blocked and time.monotonic() < deadline_s:
            time.sleep(self._settings.retry_ms / 1_000)
            self._retry_blocked()

    def _tell_unless_closed(self, node: Node) -> None:
        if not self._closed:
            self._tell_lost(node)

    # -- more than the promises ----------------------------------------------------------------------------------------

    def queued_messages(self, node: Node) -> int:
        """How many messages wait here for `node`."""
        link = self._links.get(node)
        return 0 if link is None else link.queued_messages

    def authorize_executor(self, container_id: ContainerId) -> Keys | None:
        """Let the executor of that container connect as `executor:<container id>`; returns its keys, None when
        security is off. Raises SecurityError past the bound or when we do not listen."""
        if self._keys is None:
            return None
        if self._authenticator is None:
            raise SecurityError("a process that does not listen cannot admit an executor")
        return self._authenticator.authorize_executor(container_id)

    def revoke_executor(self, container_id: ContainerId) -> None:
        """Refuse that executor from now on, and end its links."""
        if self._authenticator is None or not self._authenticator.revoke_executor(container_id):
            return
        for connection in self._connections.of(Principal(f"executor:{container_id}")):
            self._refuse(connection, "revoked")

    # -- time ----------------------------------------------------------------------------------------------------------

    def _sweep_later(self) -> None:
        if self._sweep_timer is None:
            self._sweep_timer = self._loop.call_later(self._settings.sweep_ms / 1_000, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        now_us = self._clock.monotonic_us()
        for link in list(self._dialled.values()):
            if link.path is None and now_us - link.opened_us > self._settings.connect_timeout_ms * 1_000:
                self._lose(link, "connect-timeout")
            elif not link.watched and now_us - link.used_us > self._settings.idle_ms * 1_000:
                self._lose(link, "idle", self._settings.linger_ms)
        unproven, self._unproven = self._unproven, []
        for connection in unproven:
            if now_us - connection.born_us < _PROVE_AFTER_US:
                self._unproven.append(connection)
            else:
                self._prove(connection)
        self._look_after_sending()
        if self._dialled or self._unproven:
            self._sweep_later()

    def _prove(self, connection: Connection) -> None:
        """Send an empty frame, once: a connection whose end came before its first frame was read is found out."""
        link = connection.link
        if link is None or link.ready_frame is not None:  # a frame that waits for room finds it out as well
            return
        try:
            self._send_to(connection, empty_frame(self.node, connection.outgoing))
        except zmq.Again:  # full, so something has left it
            return
        except zmq.ZMQError:
            self._on_ended(connection)
