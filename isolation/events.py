"""What the kernel tells of containers' cgroups: somebody was killed for memory, a fork was refused, nobody is left.

One inotify descriptor for all containers, to be read when an epoll or asyncio loop finds it readable; nothing is
polled. The kernel marks cgroup.events, memory.events and pids.events as modified; what changed is the difference of
their counters. It merges notifications that come within 10 ms, so a count may grow by more than one, and Emptied may
come for a process that came and went, or twice. The reason is told before the end: when a cgroup is empty, its other
files are read first, for their own notifications may be late.

inotify by ctypes: three system calls of libc, as long as any Linux here.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec

from mesos_actor.isolation.cgroup import Cgroup, CgroupError
from mesos_actor.isolation.cgroup_files import CgroupNode

READ_BYTES = 65_536
MAX_READS = 64
"""Reads of the descriptor in one turn; it stays readable when there is more."""

_IN_MODIFY = 0x2
_IN_DELETE_SELF = 0x400
_IN_Q_OVERFLOW = 0x4000
_IN_IGNORED = 0x8000
_HEADER = struct.Struct("iIII")


class Emptied(msgspec.Struct, frozen=True):
    """No process is left in it or below it."""

    container_id: str


class OomKilled(msgspec.Struct, frozen=True):
    """The kernel killed so many of its processes, because memory.max was reached or the host has no memory left."""

    container_id: str
    processes: int


class OomGroupKilled(msgspec.Struct, frozen=True):
    """It was killed as a whole for memory; OomKilled counts the processes."""

    container_id: str


class ForkRefused(msgspec.Struct, frozen=True):
    """pids.max was reached so many times."""

    container_id: str
    times: int


class Frozen(msgspec.Struct, frozen=True):
    """Everybody in it stands still, or goes on again."""

    container_id: str
    frozen: bool


Event = Emptied | OomKilled | OomGroupKilled | ForkRefused | Frozen


class Counts(msgspec.Struct, frozen=True):
    """What the files said; handed back by `watch`, so that what happened before is not lost."""

    populated: bool = False
    frozen: bool = False
    oom_kills: int = 0
    oom_group_kills: int = 0
    forks_refused: int = 0


class _Watched:
    """One container: its files' watches and what they said last."""

    __slots__ = ("counts", "files", "name", "node")

    def __init__(self, cgroup: Cgroup) -> None:
        self.name = cgroup.name
        self.node = cgroup.node
        #: inotify's number of each watched file, by the file's name.
        self.files: dict[str, int] = {}
        self.counts = Counts()


class CgroupEvents:
    """Watches cgroups. `fileno` becomes readable when `read` has something to say; not for use by several threads."""

    def __init__(self) -> None:
        """Raises CgroupError when this user has too many inotify instances."""
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = int(self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._descriptor < 0:
            raise _error("inotify", "raise sysctl fs.inotify.max_user_instances")
        #: Watched cgroups by the container's id.
        self._watched: dict[str, _Watched] = {}
        #: Whose file it is, and which, by inotify's number.
        self._files: dict[int, tuple[_Watched, str]] = {}

    def fileno(self) -> int:
        return self._descriptor

    def close(self) -> None:
        """Stop watching everything."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
        self._watched.clear()
        self._files.clear()

    def watch(self, cgroup: Cgroup, *, limits_only: bool = False) -> Counts:
        """Watch one and return what its files say at this moment; only what comes later is told by `read`. Watching it
        again is the same as reading its counts. With `limits_only` it is never told Emptied or Frozen, and nobody is
        woken when it fills and empties. Raises CgroupError."""
        known = self._watched.get(cgroup.name)
        if known is not None:
            return known.counts
        watched = _Watched(cgroup)
        try:
            for file in _LIMITS if limits_only else _READERS:
                self._add(watched, file)
            watched.counts = _counts(watched.node, Counts(), tuple(watched.files))
        except OSError as error:
            self._drop(watched)
            raise CgroupError(f"{cgroup.directory}: cannot be watched: {error.strerror}") from None
        except CgroupError:
            self._drop(watched)
            raise
        self._watched[cgroup.name] = watched
        return watched.counts

    def unwatch(self, container_id: str) -> None:
        """Forget one, before or after its cgroup is removed."""
        watched = self._watched.pop(container_id, None)
        if watched is not None:
            self._drop(watched)

    def read(self) -> list[Event]:
        """What happened since the last time; empty when nothing did. Never blocks."""
        changed: dict[tuple[str, str], None] = {}
        for _ in range(MAX_READS):
            try:
                data = os.read(self._descriptor, READ_BYTES)
            except BlockingIOError:
                break
            self._take(data, changed)
            if len(data) < READ_BYTES // 2:
                break
        events: list[Event] = []
        for container_id, file in changed:
            watched = self._watched.get(container_id)
            if watched is None:
                continue
            if file == "cgroup.events":
                for other in _READERS:
                    if other != file and other in watched.files:
                        events += _news(watched, other)
            events += _news(watched, file)
        return events

    def _take(self, data: bytes, changed: dict[tuple[str, str], None]) -> None:
        at = 0
        while at < len(data):
            number, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            if mask & _IN_Q_OVERFLOW:
                # The kernel's queue was full (fs.inotify.max_queued_events): look at everything.
                changed.update(((w.name, file), None) for w in self._watched.values() for file in w.files)
                continue
            entry = self._files.get(number)
            if entry is None:
                continue  # of a watch that is gone
            watched, file = entry
            if mask & _IN_IGNORED:
                del self._files[number]
                watched.files.pop(file, None)
            else:
                changed[watched.name, file] = None

    def _add(self, watched: _Watched, file: str) -> None:
        path = f"{watched.node.directory}/{file}"
        number = self._libc.inotify_add_watch(self._descriptor, os.fsencode(path), _IN_MODIFY | _IN_DELETE_SELF)
        if number >= 0:
            self._files[number] = (watched, file)
            watched.files[file] = number
        elif file == "cgroup.events" or ctypes.get_errno() != errno.ENOENT:  # the controller may not be enabled
            raise _error(path, "raise sysctl fs.inotify.max_user_watches; three are used for each container")

    def _drop(self, watched: _Watched) -> None:
        for number in watched.files.values():
            self._files.pop(number, None)
            self._libc.inotify_rm_watch(self._descriptor, number)
        watched.files.clear()


def _error(path: str, fix: str) -> CgroupError:
    number = ctypes.get_errno()
    advice = f"; {fix}" if number in (errno.ENOSPC, errno.EMFILE) else ""
    return CgroupError(f"{path}: cannot be watched: {os.strerror(number)}{advice}")


def _cgroup_events(node: CgroupNode, before: Counts) -> Counts:
    found = node.core.events
    populated, frozen = found.get("populated") == 1, found.get("frozen") == 1
    return msgspec.structs.replace(before, populated=populated, frozen=frozen)


def _memory_events(node: CgroupNode, before: Counts) -> Counts:
    found = node.memory.events
    kills, groups = found.get("oom_kill", 0), found.get("oom_group_kill", 0)
    return msgspec.structs.replace(before, oom_kills=kills, oom_group_kills=groups)


def _pids_events(node: CgroupNode, before: Counts) -> Counts:
    return msgspec.structs.replace(before, forks_refused=node.pids.events.get("max", 0))


_READERS: dict[str, Callable[[CgroupNode, Counts], Counts]] = {
    "memory.events": _memory_events,
    "pids.events": _pids_events,
    "cgroup.events": _cgroup_events,
}

_LIMITS = ("memory.events", "pids.events")


def _counts(node: CgroupNode, before: Counts, files: tuple[str, ...]) -> Counts:
    for file in files:
        before = _READERS[file](node, before)
    return before


def _news(watched: _Watched, file: str) -> list[Event]:
    """What one file says that it did not say before."""
    name, before = watched.name, watched.counts
    try:
        now = _counts(watched.node, before, (file,))
    except OSError:
        # Removed by somebody: nobody can be in it.
        if file != "cgroup.events" or not before.populated or Path(watched.node.directory).exists():
            return []
        now = msgspec.structs.replace(before, populated=False, frozen=False)
    watched.counts = now
    events: list[Event] = []
    if now.oom_kills > before.oom_kills:
        events.append(OomKilled(name, now.oom_kills - before.oom_kills))
    if now.oom_group_kills > before.oom_group_kills:
        events.append(OomGroupKilled(name))
    if now.forks_refused > before.forks_refused:
        events.append(ForkRefused(name, now.forks_refused - before.forks_refused))
    if file == "cgroup.events":
        if now.frozen != before.frozen:
            events.append(Frozen(name, now.frozen))
        if not now.populated and (before.populated or now.frozen == before.frozen):
            events.append(Emptied(name))
    return events
