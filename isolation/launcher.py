"""The launcher: one small, single-threaded process per agent that starts, watches and outlives what the agent launches.

It is separate so that an agent may be killed and started again while its tasks run on, and so that no big process ever
forks. It imports the standard library and msgpack, nothing else, and stays near 10 MB. Its directory holds:

    launcher.sock   where the agent connects, one at a time, of the same user (SO_PEERCRED)
    launcher.lock   locked while a launcher lives, so that there is one
    launcher.log    what it has to say, bounded
    exits.log       what was started and how it ended (exit_log.py)

One turn of the loop: read what there is, launch a bounded slice, reap everybody who died, write once, answer with one
write. The sync comes a moment later, and only for exits that no agent has taken over by then: an agent that has one
syncs its own checkpoint before it tells anybody. The launcher ends by itself when nothing has run and nobody was
connected for a while; exits that no agent has taken over yet stay in exits.log for the next launcher.
"""

# ruff: noqa: PTH108, PTH208
from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import select
import signal
import socket
import struct
import sys
import time
from collections import OrderedDict
from typing import Any

import msgpack

from mesos_actor.isolation.container import Container
from mesos_actor.isolation.exit_log import ExitLog, LogDamaged
from mesos_actor.isolation.launcher_wire import (
    LISTING_CHUNK,
    LOCK_NAME,
    LOG_NAME,
    MAX_CONTAINERS,
    READ_BYTES,
    SOCKET_NAME,
    VERSION,
    pack,
    unpacker,
)
from mesos_actor.isolation.spawn import Program
from mesos_actor.isolation.watcher import Watcher

LAUNCHES_A_TURN = 24
"""Launches between two looks at who died: a spawn takes half a millisecond and nobody should wait for hundreds."""

HOLD_STARTS_S = 0.002
"""How long the news that something started may wait for its end."""
LAUNCHING_S_A_TURN = 0.02

MAX_UNSENT_BYTES = 64 << 20
"""An agent that does not read is cut off; when it comes back it is told everything again."""

MAX_OUTPUT_BYTES = 1 << 20
"""launcher.log starts again past this."""

EXIT_LOCKED = 3
"""Our exit status when another launcher has the directory."""


LOCK_WAIT_S = 2.0
"""How long a new launcher waits for one that is just ending."""


class Busy(Exception):
    """Another launcher lives in this directory."""


def say(text: str) -> None:
    """One line in launcher.log, which is our standard error."""
    try:
        if os.fstat(2).st_size > MAX_OUTPUT_BYTES:
            os.ftruncate(2, 0)
        os.write(2, f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n".encode(errors="replace"))
    except OSError:
        return  # nowhere left to say it; the agent's disk is full, and the agent says so itself


class Launcher:
    """The loop, the socket and the commands. Raises Busy, LogDamaged or OSError when it cannot begin."""

    def __init__(self, directory: str, idle_s: float) -> None:
        self._idle_s = idle_s
        self._directory = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        os.fchdir(self._directory)
        self._lock = os.open(LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._take_lock(directory)
        self._log = ExitLog(self._directory, LOG_NAME)
        if self._log.cut_bytes:
            say(f"{LOG_NAME} ended in {self._log.cut_bytes} bytes that are no record; kept in {LOG_NAME}.damaged")
        self._poll = select.epoll()
        self._woken, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._stop_when_empty())
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll.register(self._woken, select.EPOLLIN)
        self._watcher = Watcher(self._log, say)
        self._watcher.recover()
        self._polled_pidfds: set[int] = set()
        self._polled_cgroups: dict[int, Container] = {}
        #: Until when starts are held back, on the monotonic clock.
        self._hold_until: float | None = None
        self._listener = self._listen()
        self._poll.register(self._listener, select.EPOLLIN)
        self._agent: socket.socket | None = None
        #: Whether the agent has said hello, and waits for the listing.
        self._greeting = False
        #: Whether it has got that; it is told nothing before.
        self._greeted = False
        self._unpacker = unpacker()
        self._unsent = bytearray()
        self._wants_write = False
        #: Asked for and not started yet, by container id. At most MAX_CONTAINERS, with the known ones.
        self._queue: OrderedDict[str, Program] = OrderedDict()
        self._stopping = False
        self._idle_since = time.monotonic()

    def _take_lock(self, directory: str) -> None:
        until = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise Busy(f"another launcher lives in {directory}") from None
            time.sleep(0.02)

    @staticmethod
    def _listen() -> socket.socket:
        # Relative, after fchdir: an absolute path may be longer than the 108 bytes of sun_path.
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SOCKET_NAME)
        mask = os.umask(0o177)
        try:
            listener.bind(SOCKET_NAME)
        finally:
            os.umask(mask)
        listener.listen(8)
        return listener

    def _stop_when_empty(self) -> None:
        self._stopping = True

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Work until there is nothing to do for long enough, or until told to stop and nothing runs."""
        self._finish_turn()
        while not self._is_done():
            for descriptor, _ in self._poll.poll(self._timeout_s()):
                if descriptor == self._woken:
                    self._drain_wakeups()
                elif descriptor == self._listener.fileno():
                    self._accept()
                elif self._agent is not None and descriptor == self._agent.fileno():
                    self._read()
                elif descriptor in self._watcher.emptying:
                    self._watcher.on_emptied(descriptor)
                else:
                    self._watcher.adoption.on_pidfd(descriptor)
            self._launch_some()
            self._watcher.on_time()
            self._watcher.reap()
            self._finish_turn()
        os.unlink(SOCKET_NAME)

    def _is_done(self) -> bool:
        if self._watcher.running or self._queue:
            self._idle_since = time.monotonic()
            return False
        if self._stopping:
            return not self._unsent
        if self._agent is not None:
            self._idle_since = time.monotonic()
            return False
        return time.monotonic() - self._idle_since >= self._idle_s

    def _timeout_s(self) -> float | None:
        if self._queue:
            return 0
        times = [t for t in (self._watcher.next_time(), self._hold_until) if t is not None]
        if not self._watcher.running and self._agent is None:
            times.append(self._idle_since + self._idle_s)
        return max(0.0, min(times) - time.monotonic()) + 0.0005 if times else None

    def _drain_wakeups(self) -> None:
        try:
            while len(os.read(self._woken, 65536)) == 65536:
                pass
        except BlockingIOError:
            return

    def _launch_some(self) -> None:
        if not self._queue:
            return
        until = time.monotonic() + LAUNCHING_S_A_TURN
        for _ in range(min(LAUNCHES_A_TURN, len(self._queue))):
            self._watcher.launch(*self._queue.popitem(last=False))
            if time.monotonic() >= until:
                break  # the machine is busy: a spawn takes as long as the new process waits for a processor
        os.fchdir(self._directory)  # do not hold a sandbox

    def _finish_turn(self) -> None:
        for descriptor in self._watcher.adoption.pidfds.keys() - self._polled_pidfds:
            self._poll.register(descriptor, select.EPOLLIN)  # closing takes it out again
        self._polled_pidfds = set(self._watcher.adoption.pidfds)
        for descriptor, container in self._watcher.emptying.items():
            if self._polled_cgroups.get(descriptor) is not container:  # a closed one's number may be another's now
                self._poll.register(descriptor, select.EPOLLPRI)
        self._polled_cgroups = dict(self._watcher.emptying)
        if not self._watcher.flush():
            return
        if self._only_starts():
            self._send()
            return
        events, self._watcher.events = self._watcher.events, []
        if self._greeted:
            for event in events:
                self._unsent += pack(event)
        elif self._greeting and not self._queue:
            self._list()
        self._send()

    def _only_starts(self) -> bool:
        """Whether all there is to tell is that something started a moment ago. It waits a little: a short task's end
        then travels with it, as one message, one checkpoint and one update to the framework instead of two."""
        events = self._watcher.events
        if not events or not self._greeted or any(event["k"] != "started" for event in events):
            self._hold_until = None
            return False
        now = time.monotonic()
        if self._hold_until is None:
            self._hold_until = now + HOLD_STARTS_S
        if now < self._hold_until:
            return True
        self._hold_until = None
        return False

    # -- the agent --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return  # gone again
        connection.setblocking(False)
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        pid, uid, _ = struct.unpack("3i", credentials)
        refusal = ""
        if uid != os.geteuid():
            refusal = f"user {uid} is not this launcher's user {os.geteuid()}"
        elif self._agent is not None and not self._is_agent_gone():
            refusal = "another agent is connected to this launcher"
        if refusal:
            say(f"refused process {pid}: {refusal}")
            try:
                connection.send(pack({"k": "refused", "text": refusal}))
            except OSError:
                say(f"process {pid} was gone before it could be told")
            connection.close()
            return
        self._hang_up()
        self._agent = connection
        self._poll.register(connection, select.EPOLLIN)

    def _is_agent_gone(self) -> bool:
        assert self._agent is not None
        try:
            return self._agent.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def _hang_up(self) -> None:
        if self._agent is not None:
            self._agent.close()
        self._agent = None
        self._greeting = self._greeted = False
        self._unsent.clear()
        self._wants_write = False
        self._unpacker = unpacker()

    def _read(self) -> None:
        agent = self._agent
        if agent is None:
            return
        try:
            data = agent.recv(READ_BYTES)
            self._unpacker.feed(data)
        except BlockingIOError:
            return
        except (OSError, msgpack.BufferFull) as error:
            say(f"cut the agent's connection: {error!r}")
            data = b""
        if not data:
            self._hang_up()
            return
        try:
            for message in self._unpacker:
                self._on_message(message)
        except (ValueError, msgpack.UnpackException) as error:
            say(f"cut the agent's connection: what it sent is not msgpack: {error!r}")
            self._hang_up()

    def _send(self) -> None:
        if self._agent is None:
            return
        if self._unsent:
            try:
                del self._unsent[: self._agent.send(self._unsent)]
            except BlockingIOError:
                pass  # said again when it is writable
            except OSError:
                # Gone; but what it said last may still be there to be read, so its end comes from reading.
                self._unsent.clear()
                self._greeting = self._greeted = False
        if len(self._unsent) > MAX_UNSENT_BYTES:
            say("cut the agent's connection: it does not read")
            self._hang_up()
            return
        if bool(self._unsent) != self._wants_write:
            self._wants_write = bool(self._unsent)
            self._poll.modify(self._agent, select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))

    # -- its commands -----------------------------------------------------------------------------------------------

    def _on_message(self, message: Any) -> None:
        try:
            kind = message["k"]
            if kind == "launch":
                self._on_launch(message)
            elif kind == "kill":
                self._on_kill(message["id"], message["grace_ms"] / 1000)
            elif kind == "forget":
                for container_id in message["ids"]:
                    self._watcher.forget(container_id)
            elif kind == "hello":
                self._on_hello(message["version"])
            elif kind == "ping":
                self._unsent += pack({"k": "pong"})
            elif kind == "shutdown":
                self._stopping = True
            else:
                raise ValueError(f"there is no command {kind!r}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            say(f"refused a command: {error!r}")
            self._unsent += pack({"k": "bad", "text": f"refused a command: {error!r}"[:1000]})

    def _on_launch(self, message: dict[str, Any]) -> None:
        container_id = message["id"]
        if not isinstance(container_id, str) or not container_id:
            raise ValueError(f"id: expected a container's id, got {container_id!r}")
        known = self._watcher.containers.get(container_id)
        if known is not None:
            self._watcher.answer_again(known)
        elif container_id not in self._queue:
            text = ""
            if self._stopping:
                text = "the launcher was told to stop"
            elif len(self._watcher.containers) + len(self._queue) >= MAX_CONTAINERS:
                text = f"the launcher holds {MAX_CONTAINERS} containers, its bound"
            try:
                if text:
                    raise ValueError(text)
                self._queue[container_id] = Program(message)
            except (ValueError, TypeError) as error:
                event = {"k": "failed", "id": container_id, "reason": "spawn", "text": str(error)}
                self._watcher.events.append(event)

    def _on_kill(self, container_id: str, grace_s: float) -> None:
        known = self._watcher.containers.get(container_id)
        if known is not None:
            self._watcher.kill(known, max(0.0, grace_s))
        elif self._queue.pop(container_id, None) is not None:
            self._watcher.never_ran(container_id)
        else:
            text = "no such container is known here"
            event = {"k": "exited", "id": container_id, "code": None, "killed": True, "text": text}
            self._watcher.events.append(event)

    def _on_hello(self, version: int) -> None:
        if version != VERSION:
            text = f"this launcher speaks version {VERSION} of its protocol, the agent {version}"
            self._unsent += pack({"k": "refused", "text": f"{text}; it ends when nothing runs"})
            self._stopping = True
            return
        self._stopping = False  # somebody needs us after all
        self._greeting, self._greeted = True, False
        self._unsent += pack({"k": "welcome", "version": VERSION, "pid": os.getpid()})

    def _list(self) -> None:
        """Tell a new agent what there is, when all that the one before asked for has been launched: of what is not
        listed it will say that it never ran, and somebody else will run it."""
        self._greeting, self._greeted = False, True
        known = list(self._watcher.containers.values())
        for start in range(0, max(1, len(known)), LISTING_CHUNK):
            chunk = known[start : start + LISTING_CHUNK]
            more = start + LISTING_CHUNK < len(known)
            self._unsent += pack({"k": "listed", "containers": [c.described() for c in chunk], "more": more})


def _close_inherited() -> None:
    """Close what whoever started the agent left open: a task would get it too."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) > 2:
            with contextlib.suppress(OSError):  # the listing's own
                os.close(int(name))


def main() -> None:
    """Run as `launcher DIRECTORY IDLE_SECONDS`, with stdio where it should go."""
    directory, idle_s = sys.argv[1], float(sys.argv[2])
    os.umask(0o022)
    _close_inherited()
    gc.freeze()
    try:
        Launcher(directory, idle_s).run()
    except Busy:
        sys.exit(EXIT_LOCKED)
    except (LogDamaged, OSError) as error:
        say(f"cannot work in {directory}: {error}")
        sys.exit(1)
