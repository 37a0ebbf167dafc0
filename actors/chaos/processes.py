"""The processes of one chaos run: started, killed, stopped and started again; told by their logs; ended for certain.

No process is signalled that this run did not start. A part is a child of ours that is not reaped before it is
signalled, and its start time is compared besides; what the parts have started themselves (launchers, tasks) is known by
the HOME that only this run gives, and is held by a descriptor while it is looked at, so that its number cannot have
become another's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

START_LIMIT_S = 60.0
"""For a process to take part, on a busy machine."""
END_LIMIT_S = 30.0
"""For every process of a run to be gone after SIGKILL."""
LOOK_S = 0.02
TAIL_CHARS = 1_500
"""Of a log, in the account of what went wrong."""

Kind = Literal["master", "agent", "framework"]


class Trouble(Exception):
    """The run cannot go on."""


class Part:
    """A process that is killed and started again."""

    def __init__(self, kind: Kind, name: str, directory: Path, command: list[str], env: Mapping[str, str]) -> None:
        self.kind, self.name = kind, name
        self.command, self.env = command, env
        self.directory = directory
        self.log = directory / f"{name}.log"
        self.ready = directory / f"{name}.ready"
        self.popen: subprocess.Popen[bytes] | None = None
        #: When its present process was started, in clock ticks since boot.
        self.started_ticks = 0
        self.away = True
        """Killed, stopped, cut off, or not ready yet."""

    def start(self, *arguments: str) -> None:
        """Start it; raises OSError when its program cannot be."""
        self.ready.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                [*self.command, *arguments],
                env=dict(self.env),
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.started_ticks = start_ticks(self.popen.pid)

    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process has ended. Raises Trouble when its number is not ours."""
        if self.popen is None or self.popen.poll() is not None:
            return
        found = start_ticks(self.popen.pid)
        if found != self.started_ticks:
            raise Trouble(
                f"{self.name}: process {self.popen.pid} began at {found}, ours at {self.started_ticks}; it is not ours"
            )
        self.popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is no more."""
        self.signal(signal.SIGKILL)
        if self.popen is not None:
            self.popen.wait()

    async def until_ready(self) -> None:
        """A framework is ready at once. Raises Trouble when the process has ended instead."""
        deadline = time.monotonic() + START_LIMIT_S
        while self.kind != "framework" and not self.ready.exists():
            if not self.is_alive() or time.monotonic() > deadline:
                raise Trouble(f"{self.name} did not start:\n{self.tail()}")
            await asyncio.sleep(LOOK_S)
        self.away = False

    def log_bytes(self) -> int:
        return self.log.stat().st_size if self.log.exists() else 0

    def tail(self, from_bytes: int = 0) -> str:
        """The end of its log, of what was written after `from_bytes`."""
        if not self.log.exists():
            return ""
        with open(self.log, "rb") as log:
            log.seek(from_bytes)
            return log.read().decode(errors="replace")[-TAIL_CHARS:]


# -- any process ------------------------------------------------------------------------------------------------------


def start_ticks(pid: int) -> int:
    """When a process was started, in clock ticks since boot (proc(5), field 22 of stat); 0 when there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def pids_with(mark: bytes) -> list[int]:
    """Living processes, but for this one, with this variable (`NAME=value`) in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and _has_mark(int(entry.name), mark):
            found.append(int(entry.name))
    return found


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def kill_marked(mark: bytes, parts: Iterable[Part]) -> list[int]:
    """SIGKILL every process with this mark until none is left. Returns those that cannot be ended in time."""
    deadline = time.monotonic() + END_LIMIT_S
    while pids := pids_with(mark):
        for pid in pids:
            _kill_if_marked(pid, mark)
        for part in parts:
            part.is_alive()  # reaps it
        if time.monotonic() > deadline:
            return pids
        time.sleep(LOOK_S)
    return []


def _kill_if_marked(pid: int, mark: bytes) -> None:
    """The descriptor stands for one process: the number cannot become another's between the look and the signal."""
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(pid)
        try:
            if _has_mark(pid, mark):
                signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def free_ports(count: int, rng: random.Random) -> list[int]:
    """Ports that nobody uses, below those that the kernel gives to connections while a master is down."""
    found: list[int] = []
    while len(found) < count:
        port = rng.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found
