"""Requests and limits as Docker Engine takes them. Pure.

Requests of processors are shares, as in Mesos; memory is a limit, without swap on top of it. What the engine has no way
to keep is refused, never left out. The disk is one such thing, but as a request: the engine does not limit it.

Source: Docker Engine API v1.41, HostConfig and ContainerUpdate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from mesos_actor.actors.core.rlimits import rlimits_error
from mesos_actor.actors.messages.values import NO_LIMITS, RLimit, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.limits import MEM_MIN_BYTES, PERIOD_US, QUOTA_MIN_US, UNLIMITED

SHARES_A_CPU = 1_024
SHARES_MIN = 2
_NOT_KEPT = ("cpus_burst_us", "mem_high_bytes", "io_weight", "hugetlb", "pinned_cpus")
"""Processors could be named (CpusetCpus), but not kept from others: those of the engine that are not ours."""
_RATES = {
    "io_read_bytes": "BlkioDeviceReadBps",
    "io_write_bytes": "BlkioDeviceWriteBps",
    "io_reads": "BlkioDeviceReadIOps",
    "io_writes": "BlkioDeviceWriteIOps",
}
_NO_ULIMITS = ("as",)
"""Kinds that the engine does not take (go-units, ulimit.go)."""
NO_QUOTA = -1
"""As a quota, or a number of processes: none."""


def engine_limits(
    resources: Resources, limits: TaskLimits, pids_limit: int = 0, disk: str | None = None
) -> dict[str, Any]:
    """The fields of HostConfig. `pids_limit` is for whoever names none; 0: no limit. `disk`: the node of the sandbox's
    disk; None: not asked for. Raises CommandError for what the engine cannot keep."""
    for field in _NOT_KEPT:
        value = getattr(limits, field)
        if value != getattr(NO_LIMITS, field):
            shown = "set" if field == "hugetlb" else value
            raise CommandError(
                f"limits: {field} is {shown}, which Docker Engine cannot keep; leave it out, or use container.type "
                "'linux'"
            )
    found: dict[str, Any] = {}
    if millicpus := resources.millicpus():
        found["CpuShares"] = max(SHARES_MIN, millicpus * SHARES_A_CPU // 1_000)
    if limits.cpus_milli is not None and limits.cpus_milli != UNLIMITED:
        found["CpuPeriod"] = PERIOD_US
        found["CpuQuota"] = max(QUOTA_MIN_US, limits.cpus_milli * PERIOD_US // 1_000)
    found |= _memory(resources, limits)
    pids = limits.pids if limits.pids is not None else resources.scalar("pids") // 1_000 or pids_limit
    if pids > 0:
        found["PidsLimit"] = pids
    for field, name in _RATES.items():
        rate = getattr(limits, field)
        if rate is not None:
            if not disk:
                raise CommandError(f"limits: {field} is {rate}, and the sandbox's disk has no device node to name")
            found[name] = [{"Path": disk, "Rate": rate}]
    return found


def _memory(resources: Resources, limits: TaskLimits) -> dict[str, int]:
    """MemorySwap is both together."""
    swap = limits.mem_swap_bytes or 0
    memory = resources.mem_bytes() if limits.mem_bytes is None else limits.mem_bytes
    if not memory or memory == UNLIMITED:
        if swap > 0:
            raise CommandError(
                f"limits: mem_swap_bytes is {swap}, which Docker Engine keeps beside a limit on memory only; limit mem "
                "too, or use container.type 'linux'"
            )
        return {}
    memory = max(MEM_MIN_BYTES, memory)
    return {"Memory": memory, "MemorySwap": UNLIMITED if swap == UNLIMITED else memory + swap}


def engine_ulimits(rlimits: Sequence[RLimit]) -> list[dict[str, Any]]:
    """HostConfig.Ulimits. The engine's own daemon sets them, so whether it may is its answer. Raises CommandError."""
    if problem := rlimits_error(rlimits):
        raise CommandError(f"rlimits: {problem}")
    for limit in rlimits:
        if limit.kind in _NO_ULIMITS:
            raise CommandError(
                f"rlimits: '{limit.kind}' is none that Docker Engine sets; leave it out, or use container.type 'linux'"
            )
    return [{"Name": limit.kind, "Soft": limit.soft, "Hard": limit.hard} for limit in rlimits]


def engine_update(resources: Resources, limits: TaskLimits, pids_limit: int = 0) -> dict[str, Any]:
    """The body of ContainerUpdate: as engine_limits, and what is not limited any more is said to be so. I/O stays as it
    was at the launch: the engine changes it of no running container, and an executor's own never changes."""
    limits = replace(limits, **dict.fromkeys(_RATES))
    none = {"CpuQuota": NO_QUOTA, "MemorySwap": NO_QUOTA, "PidsLimit": NO_QUOTA}
    return none | engine_limits(resources, limits, pids_limit)
