"""Who may connect: ZeroMQ's authentication protocol (rfc.zeromq.org/spec/27), answered on our own loop.

Default deny: a connection whose key is not known is refused by ZeroMQ before any of its frames exists for us. Each
transport has a ZeroMQ context of its own, so each has its own list.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import zmq
from zmq.utils import z85

from mesos_actor.actors.errors import SecurityError
from mesos_actor.actors.ids import ContainerId, Principal
from mesos_actor.transport.security import CLUSTER, Keys, executor_keys, read_authorized

MAX_UNKNOWN_KEYS = 1_000
"""Each refused key is logged once; past so many they are counted only."""

_ADDRESS = "inproc://zeromq.zap.01"
_PARTS = 8  # routing id, empty, version, request id, domain, address, identity, mechanism; then the credentials
_TURN = 64  # handshakes answered before others get their turn; each costs the peer a Curve25519 exchange

Report = Callable[[str, Mapping[str, object]], None]
"""`(event, fields)`: something an operator should know."""


class Authenticator:
    """Maps public keys to principals and answers ZeroMQ's question about each connection."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        keys: Keys,
        max_executors: int,
        counters: Counter[str],
        report: Report,
    ) -> None:
        self._keys = keys
        self._max_executors = max_executors
        self._counters = counters
        self._report = report
        #: Public key -> container, and the other way round.
        self._executors: dict[bytes, ContainerId] = {}
        self._public_keys: dict[ContainerId, bytes] = {}
        #: Public key -> client, as the directory was at `_authorized_stamp`.
        self._authorized: dict[bytes, Principal] = {}
        self._authorized_stamp = 0
        #: Refused keys that were logged.
        self._unknown: set[bytes] = set()
        if keys.authorized is not None:
            self._authorized_stamp = _stamp(keys.authorized)
            self._authorized = read_authorized(keys.authorized)
        self._loop = asyncio.get_running_loop()
        self._socket = context.socket(zmq.ROUTER)
        self._socket.linger = 0
        self._socket.bind(_ADDRESS)
        self._descriptor = self._socket.fileno()
        self._loop.add_reader(self._descriptor, self._drain)
        self._loop.call_soon(self._drain_again)

    def authorize_executor(self, container_id: ContainerId) -> Keys:
        """Let the executor of `container_id` connect, as principal `executor:<container_id>`; returns its keys.

        Raises SecurityError past the bound.
        """
        keys = executor_keys(self._keys, container_id)
        if keys.public not in self._executors and len(self._executors) >= self._max_executors:
            raise SecurityError(f"{len(self._executors)} executors hold a key already (max_executor_keys)")
        self._executors[keys.public] = container_id
        self._public_keys[container_id] = keys.public
        return keys

    def revoke_executor(self, container_id: ContainerId) -> bool:
        """Refuse the executor of `container_id` from now on. False: it had no key."""
        public = self._public_keys.pop(container_id, None)
        if public is not None:
            del self._executors[public]
        return public is not None

    def principal_of(self, public_key: bytes) -> Principal | None:
        """Whose key (Z85) this is; None when nobody's."""
        if public_key == self._keys.server_public:
            return CLUSTER
        container_id = self._executors.get(public_key)
        if container_id is not None:
            return Principal(f"executor:{container_id}")
        self._reload()
        return self._authorized.get(public_key)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._socket.close()

    def _reload(self) -> None:
        directory = self._keys.authorized
        if directory is None:
            return
        stamp = _stamp(directory)
        if stamp == self._authorized_stamp:
            return
        self._authorized_stamp = stamp
        try:
            self._authorized = read_authorized(directory, self._report_bad)
        except (SecurityError, OSError) as error:  # too many files, or an operator is at work there
            self._report_bad(error)

    def _report_bad(self, error: Exception) -> None:
        self._report("authorized_key_unusable", {"error": str(error)})

    def _drain(self) -> None:
        for _ in range(_TURN):
            try:
                parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._answer(parts)
        # The descriptor tells of changes only, and there may be more: come back after the others.
        self._loop.call_soon(self._drain_again)

    def _drain_again(self) -> None:
        if not self._socket.closed:
            self._drain()

    def _answer(self, parts: list[bytes]) -> None:
        if len(parts) < _PARTS:  # only ZeroMQ itself can reach this socket
            self._report("authentication_malformed", {"parts": len(parts)})
            return
        routing_id, empty, version, request_id, _domain, where, _identity, mechanism, *credentials = parts
        principal = None
        if mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
            key = z85.encode(credentials[0])
            principal = self.principal_of(key)
            if principal is None:
                self._refused(key, where)
        status, text = (b"400", b"unknown key") if principal is None else (b"200", b"OK")
        user = b"" if principal is None else principal.encode()
        self._socket.send_multipart([routing_id, empty, version, request_id, status, text, user, b""], zmq.NOBLOCK)

    def _refused(self, key: bytes, where: bytes) -> None:
        self._counters["refused.unknown-key"] += 1
        if key not in self._unknown and len(self._unknown) < MAX_UNKNOWN_KEYS:
            self._unknown.add(key)
            self._report("unknown_key", {"key": key.decode(), "address": where.decode(errors="replace")})


def _stamp(directory: Path) -> int:
    """Changes with every key file that is added, removed, replaced or edited in place."""
    try:
        files = [(entry.name, entry.stat()) for entry in os.scandir(directory) if entry.name.endswith(".pub")]
    except OSError:
        return 0
    return hash(tuple(sorted((name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for name, stat in files)))
