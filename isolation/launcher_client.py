"""The agent's end of the launcher: finds a living one or starts one, and says again what was not answered.

Nothing here blocks: a connection to a unix socket succeeds or fails at once, and what must be waited for is tried again
by timer. The launcher is started by posix_spawn, never by a fork of the agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgpack

import mesos_actor
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.launcher_wire import (
    LISTING_CHUNK,
    OUTPUT_NAME,
    READ_BYTES,
    SOCKET_NAME,
    VERSION,
    pack,
    unpacker,
)

IDLE_S = 60.0
"""How long a launcher stays that has nothing to do and no agent."""

FIRST_RETRY_US = 4_000
LONGEST_RETRY_US = 1_000_000
START_AGAIN_US = 5_000_000
"""A launcher that does not answer this long after it was started is started again, then after twice as long each time:
on a host so busy that it needs longer, more of them would only make it busier."""

GIVE_UP_US = 60_000_000
"""Without a launcher for this long, what waits to be launched fails. It is still tried again."""

MAX_LAUNCH_BYTES = 4 << 20
"""The longest launch. The kernel takes 2 MiB of arguments and environment (ARG_MAX); a launch past the launcher's
MAX_FRAME_BYTES would cost the connection, and as it is said again with the next one, every next one too."""

_BOOTSTRAP = """
import ctypes, os, sys
if os.fork(): os._exit(0)
if ctypes.CDLL(None, use_errno=True).prctl(36, 1, 0, 0, 0): sys.exit("PR_SET_CHILD_SUBREAPER refused")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes nobody's child and a child subreaper (both survive the exec), so that the launcher itself need not carry
ctypes in its memory."""


def _command(directory: Path, idle_s: float) -> list[str]:
    paths = dict.fromkeys(str(Path(m.__file__ or "").parents[1]) for m in (mesos_actor, msgpack))
    program = f"import sys; sys.path += {list(paths)!r}; from mesos_actor.isolation.launcher import main; main()"
    lean = [sys.executable, "-I", "-S", "-X", "utf8"]
    return [*lean, "-c", _BOOTSTRAP, *lean, "-c", program, str(directory), repr(idle_s)]


class LauncherClient:
    """`on_event` gets every message of the launcher; `on_listed` all it holds, after each connect, before any event.

    What was asked for is kept until it is answered, and said again to the next launcher: a launch until `started` or
    `failed`, a kill until `exited`.
    """

    def __init__(
        self,
        directory: Path,
        on_event: Callable[[dict[str, Any]], None],
        on_listed: Callable[[list[dict[str, Any]]], None],
        idle_s: float = IDLE_S,
    ) -> None:
        self._directory = directory
        self._on_event = on_event
        self._on_listed = on_listed
        self._idle_s = idle_s
        self._descriptor = -1
        self._socket: socket.socket | None = None
        self._unpacker = unpacker()
        self._unsent = bytearray()
        self._flush_soon = False
        self._closed = False
        #: Whether the launcher has said what it holds, since the last connect.
        self._listed = False
        self._listing: list[dict[str, Any]] = []
        self._retry_us = FIRST_RETRY_US
        self._started_us = 0
        self._start_again_us = START_AGAIN_US
        self._lost_us = 0
        self._bootstrap_pid = 0
        #: Launches and kills not answered yet, packed, by container id. As many as the containerizer lets in.
        self._launches: dict[str, bytes] = {}
        self._kills: dict[str, bytes] = {}
        #: The launcher's process id, 0 when there is none.
        self.pid = 0

    def start(self, outlet: Outlet) -> None:
        """Look for a launcher, from the running asyncio loop. Raises OSError when the directory cannot be used."""
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._lost_us = outlet.now_us()
        self._connect()

    def close(self) -> None:
        """Let go of the launcher: what runs goes on, and it ends when nothing does, unless an agent comes back."""
        if self._listed:
            self._unsent += pack({"k": "shutdown"})
        self.flush()
        self._closed = True
        self._hang_up()
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        self._reap_bootstrap()

    # -- what the containerizer asks --------------------------------------------------------------------------------

    def launch(self, container_id: str, fields: dict[str, Any]) -> None:
        """Ask for a launch. Raises ValueError when `fields` cannot be packed, or are too long for the launcher."""
        packed = pack({"k": "launch", "id": container_id, **fields})
        if len(packed) > MAX_LAUNCH_BYTES:
            raise ValueError(
                f"command: arguments and environment are too long: {len(packed)} bytes with what the agent adds, "
                f"at most {MAX_LAUNCH_BYTES}; put large values into files"
            )
        self._launches[container_id] = packed
        self._say(packed)

    def kill(self, container_id: str, grace_ms: int) -> None:
        packed = pack({"k": "kill", "id": container_id, "grace_ms": grace_ms})
        self._kills[container_id] = packed
        self._say(packed)

    def forget(self, container_ids: list[str]) -> None:
        """Lost with the connection; the next listing shows them again, and they can be forgotten then."""
        for first in range(0, len(container_ids), LISTING_CHUNK):
            self._say(pack({"k": "forget", "ids": container_ids[first : first + LISTING_CHUNK]}))

    def _say(self, packed: bytes) -> None:
        if self._listed:
            self._unsent += packed
            if not self._flush_soon:
                self._flush_soon = True
                self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Give the launcher what waits for it, in one write."""
        self._flush_soon = False
        if self._closed or self._socket is None or not self._unsent:
            return
        try:
            del self._unsent[: self._socket.send(self._unsent)]
        except BlockingIOError:
            pass  # the loop says when there is room
        except OSError:
            self._lost()
            return
        if self._unsent:
            self._loop.add_writer(self._socket, self.flush)
        else:
            self._loop.remove_writer(self._socket)

    # -- finding one ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        if self._closed:
            return
        self._reap_bootstrap()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            # Through the descriptor: the path itself may be longer than the 108 bytes of sun_path.
            connection.connect(f"/proc/self/fd/{self._descriptor}/{SOCKET_NAME}")
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            self._start_one()
            self._try_later()
            return
        except OSError as error:
            connection.close()
            self._outlet.log("launcher_unreachable", level="warning", error=str(error))
            self._try_later()
            return
        self._socket = connection
        self._unpacker = unpacker()
        self._loop.add_reader(connection, self._read)
        self._unsent += pack({"k": "hello", "version": VERSION})
        self.flush()

    def _try_later(self) -> None:
        self._outlet.call_later(self._retry_us, self._connect)
        self._retry_us = min(2 * self._retry_us, LONGEST_RETRY_US)
        if self._launches and self._outlet.now_us() - self._lost_us > GIVE_UP_US:
            text = f"the agent's launcher does not start; see {self._directory / OUTPUT_NAME}"
            for container_id in list(self._launches):
                self._launches.pop(container_id)
                self._on_event({"k": "failed", "id": container_id, "reason": "spawn", "text": text})

    def _start_one(self) -> None:
        now_us = self._outlet.now_us()
        if self._started_us:
            if now_us - self._started_us < self._start_again_us:
                return
            self._start_again_us *= 2
        self._started_us = now_us
        output = str(self._directory / OUTPUT_NAME)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        command = _command(self._directory.absolute(), self._idle_s)
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        try:
            self._bootstrap_pid = os.posix_spawn(
                command[0],
                command,
                kept,
                file_actions=(
                    (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
                    (os.POSIX_SPAWN_DUP2, 1, 2),
                ),
                setsid=True,
                setsigmask=(),
            )
        except OSError as error:
            self._outlet.log("launcher_not_started", level="error", error=str(error), directory=str(self._directory))

    def _reap_bootstrap(self) -> None:
        if self._bootstrap_pid:
            with contextlib.suppress(ChildProcessError):
                pid, _ = os.waitpid(self._bootstrap_pid, os.WNOHANG)
                if not pid:
                    return  # next time
            self._bootstrap_pid = 0

    # -- talking to it ----------------------------------------------------------------------------------------------

    def _read(self) -> None:
        if self._socket is None:
            return
        try:
            data = self._socket.recv(READ_BYTES)
            self._unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, msgpack.BufferFull):
            data = b""
        if not data:
            self._lost()
            return
        try:
            for message in self._unpacker:
                self._on_message(message)
        except (ValueError, KeyError, TypeError, msgpack.UnpackException) as error:
            self._outlet.log("launcher_broke_protocol", level="error", error=repr(error))
            self._lost()

    def _on_message(self, message: dict[str, Any]) -> None:
        kind = message["k"]
        if kind == "listed":
            self._listing += message["containers"]
            if not message["more"]:
                self._on_all_listed()
        elif kind == "welcome":
            self.pid = message["pid"]
            self._retry_us = FIRST_RETRY_US
            self._started_us = 0
            self._start_again_us = START_AGAIN_US
            self._reap_bootstrap()
        elif kind == "bad":
            self._outlet.log("launcher_refused_command", level="error", text=message["text"])
        elif kind == "refused":
            self._outlet.log("launcher_refused_agent", level="error", text=message["text"])
            self._lost()
        elif kind != "pong":
            if kind in ("started", "failed", "exited"):
                self._launches.pop(message["id"], None)
            if kind in ("failed", "exited"):
                self._kills.pop(message["id"], None)
            self._on_event(message)

    def _on_all_listed(self) -> None:
        self._listed = True
        listing, self._listing = self._listing, []
        known = {entry["id"] for entry in listing}
        for container_id in known:
            self._launches.pop(container_id, None)
        for entry in listing:
            if entry["ended"]:
                self._kills.pop(entry["id"], None)
        self._on_listed(listing)
        for container_id in self._kills:
            self._launches.pop(container_id, None)  # killed before it began: the kill alone is answered too
        for waiting in (*self._launches.values(), *self._kills.values()):
            self._unsent += waiting
        self.flush()

    def _lost(self) -> None:
        if self._listed:
            self._lost_us = self._outlet.now_us()
        self._hang_up()
        self._outlet.log("launcher_lost", level="warning", pid=self.pid)
        self.pid = 0
        self._try_later()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket.close()
        self._socket = None
        self._listed = False
        self._listing = []
        self._unsent.clear()
