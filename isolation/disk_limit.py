"""Whether a sandbox takes more disk than its container was given, and which project counts it. Pure.

Source: Mesos src/slave/containerizer/mesos/isolators/{posix/disk,xfs/disk}.cpp.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from mesos_actor.isolation.disk_usage import DiskUsage

REASON = "CONTAINER_LIMITATION_DISK"
"""Mesos: REASON_CONTAINER_LIMITATION_DISK."""
FIRST_PROJECT, LAST_PROJECT = 5_000, 10_000
"""Project ids that are the agent's own unless its operator says otherwise (Mesos: --xfs_project_range)."""


class DiskLimitation(msgspec.Struct, frozen=True):
    """A container must end for what it takes of the disk."""

    text: str
    used_bytes: int
    limit_bytes: int
    reason: str = REASON


def disk_limitation(limit_bytes: int, usage: DiskUsage) -> DiskLimitation | None:
    """None: it may go on. A sandbox that cannot be measured is taken for too big: else that would be the way round."""
    if usage.used_bytes > limit_bytes:
        text = f"Disk usage ({usage.used_bytes} bytes) exceeds quota ({limit_bytes} bytes)"
        return DiskLimitation(text, usage.used_bytes, limit_bytes)
    if usage.incomplete:
        text = f"Disk usage cannot be measured ({usage.incomplete}), so the quota of {limit_bytes} bytes cannot be kept"
        return DiskLimitation(text, usage.used_bytes, limit_bytes)
    return None


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
