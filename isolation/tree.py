"""Processes and their families, as /proc shows them: who is whose child, who carries a container's mark.

Standard library only: the launcher imports this. Where a process vanishes while it is looked at, the answer is None or
leaves it out; nothing here raises for that.

`/proc/<pid>/task/<tid>/children` is exact for our own children, because a child leaves that list only when we reap it,
and we are not reaping while we read (Documentation/filesystems/proc.rst: "reliable only if all the child processes are
stopped" is about other people's children). For the rest, callers look again after each round.
"""

# ruff: noqa: PTH115, PTH208
from __future__ import annotations

import os
import signal
import time

MARKER_PREFIX = b"MESOS_CONTAINER_ID="
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_ENVIRON_BYTES = 2 << 20


class Stat:
    """A line of /proc/<pid>/stat. `start_ticks` counts from the boot, in clock ticks."""

    __slots__ = ("group", "parent", "session", "start_ticks", "state")

    def __init__(self, line: bytes) -> None:
        fields = line[line.rindex(b")") + 2 :].split()
        self.state = fields[0]
        self.parent = int(fields[1])
        self.group = int(fields[2])
        self.session = int(fields[3])
        self.start_ticks = int(fields[19])

    @property
    def alive(self) -> bool:
        """False for a zombie: it holds a pid and nothing else."""
        return self.state not in (b"Z", b"X", b"x")


def _read(path: str, limit: int = 65536) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, limit):
            parts.append(part)
            if sum(map(len, parts)) >= limit:
                break
        return b"".join(parts)
    finally:
        os.close(descriptor)


def stat_of(pid: int) -> Stat | None:
    """What the kernel says of `pid`, or None when there is no such process."""
    try:
        return Stat(_read(f"/proc/{pid}/stat", 4096))
    except (OSError, ValueError, IndexError):
        return None


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def children_of(pid: int) -> list[int]:
    """The children of every thread of `pid`; empty when it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        pass  # gone, and its children are somebody else's now: the caller's next round finds them
    return found


def descendants_of(pid: int) -> list[int]:
    """Children, their children and so on, nearest first; at most as many as there are processes."""
    found: list[int] = []
    seen = {pid}
    waiting = [pid]
    while waiting:
        for child in children_of(waiting.pop()):
            if child not in seen:
                seen.add(child)
                found.append(child)
                waiting.append(child)
    return found


class OwnChildren:
    """The children of this single-threaded process, living and dead, that were not reaped yet."""

    def __init__(self) -> None:
        path = f"/proc/self/task/{os.getpid()}/children"
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def _listing(self) -> bytes:
        text = os.pread(self._descriptor, 65536, 0)
        if len(text) < 2048:
            return text
        while more := os.pread(self._descriptor, 65536, len(text)):
            text += more
        return text

    def count(self) -> int:
        return self._listing().count(b" ")

    def pids(self) -> list[int]:
        return list(map(int, self._listing().split()))

    def close(self) -> None:
        os.close(self._descriptor)


def marker_of(pid: int) -> str | None:
    """The container that the process says it belongs to, by the environment it was started with."""
    try:
        environment = _read(f"/proc/{pid}/environ", _ENVIRON_BYTES)
    except OSError:
        return None
    for entry in environment.split(b"\0"):
        if entry.startswith(MARKER_PREFIX):
            return os.fsdecode(entry[len(MARKER_PREFIX) :])
    return None


def places_of(pid: int) -> list[str]:
    """Where the process stands and writes: working directory and standard streams, as far as they can be read."""
    places = []
    for link in ("cwd", "fd/1", "fd/2", "fd/0"):
        try:
            places.append(os.readlink(f"/proc/{pid}/{link}"))
        except OSError:
            continue
    return places


def boot_id() -> str:
    """The kernel's name for this boot."""
    return _read("/proc/sys/kernel/random/boot_id").decode().strip()


def boot_ticks() -> int:
    """Now, on the clock of `Stat.start_ticks`, rounded down."""
    return int(time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _TICKS_PER_S // 1_000_000_000)


def marked(container_ids: set[str]) -> dict[str, list[int]]:
    """Every living process on this host that carries one of these marks, by container. Reads all of /proc."""
    found: dict[str, list[int]] = {}
    for pid in all_pids():
        container_id = marker_of(pid)
        if container_id in container_ids:
            stat = stat_of(pid)
            if stat is not None and stat.alive:
                found.setdefault(container_id, []).append(pid)
    return found


def family_of(pid: int, times: tuple[int, int], container_id: str) -> dict[int, Stat]:
    """The living processes of a container that are not our own children: `pid`, its session, whoever carries the mark,
    and their descendants. `times` are the clock ticks between which `pid` was made. Reads all of /proc."""
    everybody = {p: stat for p in all_pids() if (stat := stat_of(p)) is not None}
    everybody.pop(os.getpid(), None)
    leader = everybody.get(pid)
    # A session's number is not given away while anybody is in it: a younger leader means that the old family is gone.
    session = pid if leader is None or times[0] <= leader.start_ticks <= times[1] else -1
    found = {}
    for p, stat in everybody.items():
        mark = marker_of(p)
        if mark == container_id or (mark is None and stat.session == session):
            found[p] = stat
    grew = True
    while grew:
        more = {p: s for p, s in everybody.items() if s.parent in found and p not in found}
        found.update(more)
        grew = bool(more)
    return {p: stat for p, stat in found.items() if stat.alive}


def signal_if_same(pid: int, stat: Stat, number: int) -> bool:
    """Signal `pid` if it still is the process that `stat` tells of; whether it was. Raises PermissionError."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        now = stat_of(pid)
        if now is None or now.start_ticks != stat.start_ticks:
            return False
        signal.pidfd_send_signal(handle, number)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
