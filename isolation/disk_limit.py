"""Whether a sandbox takes more disk than its container was given, and which project counts it. Pure.

Source: Mesos src/slave/containerizer/mesos/isolators/{posix/disk,xfs/disk}.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable

from mesos_actor.isolation.disk_usage import DiskUsage
from mesos_actor.isolation.isolator import Limitation

FIRST_PROJECT, LAST_PROJECT = 5_000, 10_000
"""Project ids that are the agent's own (Mesos: --xfs_project_range)."""
HEADROOM_BYTES = 10 << 20
"""So far past the limit a project quota refuses to go; whoever is between the two is ended. (Mesos: the same gap, with
--xfs_kill_containers.) Without it nobody could tell a sandbox that is full from one whose task wanted more."""
MAX_NAME = 200
"""Characters of a directory's name, its end, that are told."""
_MIB = 1 << 20


def disk_limitation(limit_bytes: int, usage: DiskUsage) -> Limitation | None:
    """None: it may go on. A sandbox that cannot be measured is taken for too big: else that would be the way round."""
    limit = _size(limit_bytes)
    if usage.used_bytes > limit_bytes:
        most = f", biggest directory {_shown(usage.biggest)} with {_size(usage.biggest_bytes)}"
        text = f"disk limit of {limit} exceeded, in use {_size(usage.used_bytes)}"
        return Limitation("disk", text + (most if usage.biggest_bytes else ""))
    if usage.incomplete:
        text = f"disk limit of {limit} cannot be kept: what is in use cannot be measured, because {usage.incomplete}"
        return Limitation("disk", text)
    return None


def _size(size_bytes: int) -> str:
    if size_bytes % _MIB and size_bytes < 10 * _MIB:
        return f"{-(-size_bytes // 1_024)} KiB"
    return f"{size_bytes / _MIB:.2f}".rstrip("0").rstrip(".") + " MiB"


def _shown(name: str) -> str:
    """A task chose the name: it may be long, and no text at all."""
    shown = name.encode(errors="surrogateescape").decode(errors="replace") or "."
    return repr(shown if len(shown) <= MAX_NAME else f"...{shown[-MAX_NAME:]}")


class ProjectIds:
    """Which project ids are free. A released one is not given out again before all others were: what is left of a
    sandbox under collection still counts for it."""

    def __init__(self, first: int = FIRST_PROJECT, last: int = LAST_PROJECT, used: Iterable[int] = ()) -> None:
        if not 0 < first <= last < (1 << 32) - 1:
            raise ValueError(f"project ids: {first} to {last} is not a range above 0")
        self._used = {number for number in used if first <= number <= last}
        self._free = dict.fromkeys(number for number in range(first, last + 1) if number not in self._used)

    def take(self) -> int | None:
        """A free one, or None: all are in use."""
        for number in self._free:
            del self._free[number]
            self._used.add(number)
            return number
        return None

    def release(self, number: int) -> None:
        if number in self._used:
            self._used.discard(number)
            self._free[number] = None
