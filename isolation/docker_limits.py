"""Requests and limits as Docker Engine takes them. Pure.

Requests of processors are shares, as in Mesos; memory is a limit, without swap on top of it. What the engine has no way
to keep is refused, never left out. The disk is one such thing, but as a request: the engine does not limit it.

Source: Docker Engine API v1.41, HostConfig and ContainerUpdate.
"""

from __future__ import annotations

from typing import Any

from mesos_actor.actors.messages.values import TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.limits import MEM_MIN_BYTES, PERIOD_US, QUOTA_MIN_US, UNLIMITED

SHARES_A_CPU = 1_024
SHARES_MIN = 2
_NOT_KEPT = ("cpus_burst_us", "mem_high_bytes", "io_weight")
NO_QUOTA = -1
"""As a quota, or a number of processes: none."""


def engine_limits(resources: Resources, limits: TaskLimits, pids_limit: int = 0) -> dict[str, int]:
    """The fields of HostConfig. `pids_limit` is for whoever names none; 0: no limit. Raises CommandError for what the
    engine cannot keep."""
    for field in _NOT_KEPT:
        value = getattr(limits, field)
        if value is not None:
            raise CommandError(
                f"limits: {field} is {value}, which Docker Engine cannot keep; leave it out, or use container.type "
                "'linux'"
            )
    found: dict[str, int] = {}
    if millicpus := resources.millicpus():
        found["CpuShares"] = max(SHARES_MIN, millicpus * SHARES_A_CPU // 1_000)
    if limits.cpus_milli is not None and limits.cpus_milli != UNLIMITED:
        found["CpuPeriod"] = PERIOD_US
        found["CpuQuota"] = max(QUOTA_MIN_US, limits.cpus_milli * PERIOD_US // 1_000)
    mem_bytes = resources.mem_bytes() if limits.mem_bytes is None else limits.mem_bytes
    if mem_bytes and mem_bytes != UNLIMITED:
        found["Memory"] = found["MemorySwap"] = max(MEM_MIN_BYTES, mem_bytes)
    pids = limits.pids if limits.pids is not None else resources.scalar("pids") // 1_000 or pids_limit
    if pids > 0:
        found["PidsLimit"] = pids
    return found


def engine_update(resources: Resources, limits: TaskLimits, pids_limit: int = 0) -> dict[str, Any]:
    """The body of ContainerUpdate: as engine_limits, and what is not limited any more is said to be so."""
    none = {"CpuQuota": NO_QUOTA, "MemorySwap": NO_QUOTA, "PidsLimit": NO_QUOTA}
    return none | engine_limits(resources, limits, pids_limit)
