"""Looking at many sandboxes: all of them in turn, on a thread, in slices, so that one with millions of files holds up
neither the others nor the end of the agent."""

from __future__ import annotations

import asyncio
import errno
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, TypeVar

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.isolation.disk_usage import AGENTS_OWN, ENTRIES_A_SLICE, DiskUsage, DiskWalk
from mesos_actor.isolation.threads import Threads

MAX_WALKS = 16
"""Sandboxes that are looked at side by side; the others wait for these."""
LOOKS_A_SLICE = 100
"""Sandboxes that one slice may begin to look at."""

T = TypeVar("T")


class Target(NamedTuple):
    """A sandbox to look at. `counted`: what its file system says is in use, where it counts; `limit_bytes`: below that
    nobody has to look closer."""

    container_id: ContainerId
    sandbox: str
    limit_bytes: int
    counted: Callable[[], int] | None = None


class Look(NamedTuple):
    """What was found in one."""

    container_id: ContainerId
    usage: DiskUsage


class Round:
    """One look at each of these. Call `step` on a thread until `done`."""

    def __init__(self, targets: Iterable[Target]) -> None:
        self._waiting = deque(targets)
        self._walks: deque[tuple[Target, DiskWalk, int | None]] = deque()
        self._lock = threading.Lock()
        self._closed = False

    @property
    def done(self) -> bool:
        """Whether all were looked at. Asked between two steps."""
        return not self._waiting and not self._walks

    def close(self) -> None:
        """Let go of what is open; a step that is under way is waited for, some 20 ms at most."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            while self._walks:
                self._walks.pop()[1].close()

    def step(self) -> list[Look]:
        """Go on for a slice. Returns those that were looked at to their end."""
        with self._lock:
            found = self._begin()
            count = len(self._walks)
            for _ in range(count):
                target, walk, counted = self._walks.popleft()
                try:
                    usage = walk.step(ENTRIES_A_SLICE // count)
                except OSError:
                    walk.close()  # the agent has too little of something; the next round may be luckier
                    continue
                if usage is None:
                    self._walks.append((target, walk, counted))
                else:
                    found.append(_look(target, usage, counted))
            return found

    def _begin(self) -> list[Look]:
        found = []
        for _ in range(LOOKS_A_SLICE):
            if self._closed or not self._waiting or len(self._walks) >= MAX_WALKS:
                break
            target = self._waiting.popleft()
            counted = _counted(target)
            if counted is not None and counted <= target.limit_bytes:
                found.append(Look(target.container_id, DiskUsage(counted, 0)))
                continue
            try:
                self._walks.append((target, DiskWalk(target.sandbox), counted))
            except OSError as error:
                if error.errno in (errno.ENOENT, *AGENTS_OWN):
                    continue  # it was collected just now, or the agent has too little of something
                why = f"the sandbox cannot be read: {error.strerror}"
                found.append(_look(target, DiskUsage(0, 0, why), counted))
        return found


def _counted(target: Target) -> int | None:
    try:
        return target.counted() if target.counted is not None else None
    except OSError:
        return None  # then it is looked at


def _look(target: Target, usage: DiskUsage, counted: int | None) -> Look:
    """What the file system has counted is the truth; the walk tells where it is."""
    if counted is not None:
        usage = DiskUsage(counted, usage.entries, "", usage.biggest, usage.biggest_bytes)
    return Look(target.container_id, usage)


class Schedule(Protocol):
    """Time and a thread."""

    def now_s(self) -> float: ...
    def call_later(self, delay_s: float, fn: Callable[[], None]) -> TimerHandle: ...
    def on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Call `work` on the thread, then `then` with its result on the loop."""

    def close(self) -> None: ...


class LoopSchedule:
    """Of the running asyncio loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._closed = False
        self._threads = Threads(self._loop, 1, "disk", lambda: self._closed)

    def now_s(self) -> float:
        return time.monotonic()

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> TimerHandle:
        return self._loop.call_later(delay_s, fn)

    def on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self._threads.run(work, then)

    def close(self) -> None:
        self._closed = True
        self._threads.close()
