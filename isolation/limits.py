"""What a container asks for, turned into what is written to which cgroup v2 file. Pure: nothing here touches a cgroup.

Requests and limits are apart, as in Mesos (TaskInfo.resources and TaskInfo.limits): a request is what the container
gets when everybody wants more than there is, a limit is what it never gets past. By file:

    cpu.weight        request: 100 for a cpu, so that shares under contention are as the requests (Mesos: the same)
    cpu.max           limit: microseconds in each period of 100 ms; `max` without one (Mesos: the same, when enabled)
    cpu.max.burst     what may be saved up in idle periods and used at once
    memory.low        request: below it nothing is reclaimed while others can give
    memory.high       where the kernel begins to slow the container down and to reclaim; `max` unless asked for
    memory.max        limit, or the request when no limit is named (Mesos: the same); past it, the OOM killer
    memory.swap.max   0 unless asked for: a limit on memory that spills to the disk is none
    memory.oom.group  1: the container is killed as a whole, not one process of it
    pids.max, io.max, io.weight, hugetlb.SIZE.max and .rsvd.max, cpuset.cpus, cpuset.mems: only where asked for

Kernel document: Documentation/admin-guide/cgroup-v2.rst. Everything is a whole number: thousandths of a cpu, bytes,
microseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import HugePages

UNLIMITED: Final = -1
"""As a limit: none, where leaving it out would mean something else. (Mesos: infinity)"""

PERIOD_US: Final = 100_000
"""The period of cpu.max, the kernel's own default and Mesos' CPU_CFS_PERIOD."""
QUOTA_MIN_US: Final = 1_000
"""The kernel takes no quota below a millisecond; a smaller limit is raised to it (Mesos: MIN_CPU_CFS_QUOTA)."""
MAX_CPUS_MILLI: Final = 8_192_000
"""The most processors a Linux for x86-64 is built for, NR_CPUS."""

WEIGHT_MIN: Final = 1
WEIGHT_MAX: Final = 10_000
"""Bounds of cpu.weight and io.weight: requests from 100 cpus up weigh the same."""

MEM_MIN_BYTES: Final = 32 << 20
"""A smaller request or limit is raised to it, so that a program can load its libraries (Mesos: MIN_MEMORY)."""
MAX_BYTES: Final = 1 << 60
"""Past any memory or rate there is, and far from where the kernel's 64 bits end."""

MAX_PIDS: Final = 4_194_304
"""The kernel's PID_MAX_LIMIT on 64 bits."""
MAX_IOPS: Final = 1 << 31
MAX_DEVICES: Final = 256
"""Devices with an io.max of their own, in one container."""
MAX_DEVICE_MAJOR: Final = (1 << 12) - 1
MAX_DEVICE_MINOR: Final = (1 << 20) - 1
MAX_CPU: Final = 8_191
MAX_MEMORY_NODE: Final = 1_023
MAX_PAGE_SIZES: Final = 8

NOT_EVERYWHERE: Final = frozenset({"memory.swap.max"})
"""Files whose absence means that there is nothing to limit: a kernel built without swap. Any other one that is absent
is an error, for a limit is never silently dropped."""

DEFAULTS: Final = {
    "cpu.weight": "100",
    "cpu.max": f"max {PERIOD_US}",
    "cpu.max.burst": "0",
    "memory.low": "0",
    "memory.high": "max",
    "memory.max": "max",
    "pids.max": "max",
    "io.weight": "default 100",
    "cpuset.cpus": "\n",
    "cpuset.mems": "\n",
}
"""What these files hold in a cgroup that was just made, so that they need not be written."""


class Write(NamedTuple):
    """`content` goes to `file` of the container's cgroup; the file is there once `controller` is enabled."""

    controller: str
    file: str
    content: str


class DeviceLimit(msgspec.Struct, frozen=True, kw_only=True):
    """At most this much of one block device, a second; None: no limit. (io.max)"""

    major: int
    minor: int
    read_bytes: int | None = None
    write_bytes: int | None = None
    reads: int | None = None
    writes: int | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a container asks for. The defaults ask for nothing: the least share of the processors and no limit."""

    cpus_request_milli: int = 0
    cpus_limit_milli: int | None = None
    """None: whatever is idle."""
    cpus_burst_us: int = 0
    """At most a period's quota; needs a limit."""
    mem_request_bytes: int = 0
    mem_limit_bytes: int | None = None
    """None: as the request. UNLIMITED: none. A request of 0 without a limit is unlimited."""
    mem_high_bytes: int | None = None
    swap_limit_bytes: int = 0
    """UNLIMITED: none. A kernel without swap has nothing to limit."""
    pids_limit: int | None = None
    io_weight: int | None = None
    """1 to 10000; 100 is everybody's. The host's disk scheduler decides whether it counts."""
    devices: tuple[DeviceLimit, ...] = ()
    huge_pages: tuple[HugePages, ...] = ()
    cpuset_cpus: tuple[int, ...] | None = None
    """Run on these processors only. Empty: on all again, as the cgroup above. None: not touched."""
    cpuset_mems: tuple[int, ...] | None = None
    """Memory from these NUMA nodes only; likewise."""


def writes_of(limits: Limits) -> tuple[Write, ...]:
    """What to write, in this order, to make a cgroup as asked, whatever its cpu and memory limits were before. What is
    only written where asked for (pids, io, hugetlb, cpuset) stays as it was: name it to change it back.

    Raises InvalidInput naming the field, its value and the fix.
    """
    return (
        *_cpu(limits),
        *_memory(limits),
        *_pids(limits),
        *_io(limits),
        *_hugetlb(limits),
        *_cpuset(limits),
    )


def controllers_of(writes: Iterable[Write]) -> tuple[str, ...]:
    """The controllers that must be enabled for these writes, sorted."""
    return tuple(sorted({write.controller for write in writes}))


def weight_of(cpus_request_milli: int) -> int:
    """cpu.weight of a request: 100 for each cpu, between 1 and 10000."""
    return min(max(cpus_request_milli // 10, WEIGHT_MIN), WEIGHT_MAX)


def list_of(numbers: Iterable[int]) -> str:
    """Numbers as the kernel's list format has them: `0-3,8`. Nothing: a newline, since an empty write does nothing."""
    parts: list[str] = []
    first = last = -2
    for number in [*sorted(set(numbers)), -1]:
        if number == last + 1 and number > 0:
            last = number
            continue
        if first >= 0:
            parts.append(str(first) if first == last else f"{first}-{last}")
        first = last = number
    return ",".join(parts) or "\n"


def _cpu(limits: Limits) -> list[Write]:
    request, limit, burst = limits.cpus_request_milli, limits.cpus_limit_milli, limits.cpus_burst_us
    _check("cpus_request_milli", request, 0, MAX_CPUS_MILLI)
    writes = [
        Write("cpu", "cpu.weight", str(weight_of(request))),
        # First, because the kernel refuses a quota below the burst that was allowed with the quota before.
        Write("cpu", "cpu.max.burst", "0"),
    ]
    if limit is None or limit == UNLIMITED:
        if burst:
            raise InvalidInput(f"cpus_burst_us: {burst} without a limit to go past: set cpus_limit_milli too")
        return [*writes, Write("cpu", "cpu.max", f"max {PERIOD_US}")]
    _check("cpus_limit_milli", limit, 1, MAX_CPUS_MILLI)
    if limit < request:
        raise InvalidInput(f"cpus_limit_milli: {limit} is below the request of {request}: raise it or ask for less")
    quota = max(limit * PERIOD_US // 1_000, QUOTA_MIN_US)
    _check("cpus_burst_us", burst, 0, quota)
    writes.append(Write("cpu", "cpu.max", f"{quota} {PERIOD_US}"))
    if burst:
        writes.append(Write("cpu", "cpu.max.burst", str(burst)))
    return writes


def _memory(limits: Limits) -> list[Write]:
    request, high = limits.mem_request_bytes, limits.mem_high_bytes
    limit = limits.mem_limit_bytes
    _check("mem_request_bytes", request, 0, MAX_BYTES)
    if limit is None:
        limit = request or UNLIMITED
    if limit != UNLIMITED:
        _check("mem_limit_bytes", limit, 1, MAX_BYTES)
        if limit < request:
            raise InvalidInput(f"mem_limit_bytes: {limit} is below the request of {request}: raise it or ask for less")
        limit = max(limit, MEM_MIN_BYTES)
    low = max(request, MEM_MIN_BYTES) if request else 0
    if high is not None:
        _check("mem_high_bytes", high, max(low, 1), limit if limit != UNLIMITED else MAX_BYTES)
    swap = limits.swap_limit_bytes
    if swap != UNLIMITED:
        _check("swap_limit_bytes", swap, 0, MAX_BYTES)
    return [
        Write("memory", "memory.low", str(low)),
        Write("memory", "memory.high", "max" if high is None else str(high)),
        Write("memory", "memory.swap.max", "max" if swap == UNLIMITED else str(swap)),
        Write("memory", "memory.oom.group", "1"),
        Write("memory", "memory.max", "max" if limit == UNLIMITED else str(limit)),
    ]


def _pids(limits: Limits) -> list[Write]:
    limit = limits.pids_limit
    if limit is None:
        return []
    if limit == UNLIMITED:
        return [Write("pids", "pids.max", "max")]
    _check("pids_limit", limit, 1, MAX_PIDS)
    return [Write("pids", "pids.max", str(limit))]


def _io(limits: Limits) -> list[Write]:
    writes: list[Write] = []
    if limits.io_weight is not None:
        _check("io_weight", limits.io_weight, WEIGHT_MIN, WEIGHT_MAX)
        writes.append(Write("io", "io.weight", f"default {limits.io_weight}"))
    _check_many("devices", limits.devices, MAX_DEVICES)
    seen: set[tuple[int, int]] = set()
    for device in limits.devices:
        name = f"{device.major}:{device.minor}"
        _check("devices.major", device.major, 0, MAX_DEVICE_MAJOR)
        _check("devices.minor", device.minor, 0, MAX_DEVICE_MINOR)
        if (device.major, device.minor) in seen:
            raise InvalidInput(f"devices: {name} is named twice: name each device once")
        seen.add((device.major, device.minor))
        parts = [name]
        for key, field, rate, most in (
            ("rbps", "read_bytes", device.read_bytes, MAX_BYTES),
            ("wbps", "write_bytes", device.write_bytes, MAX_BYTES),
            ("riops", "reads", device.reads, MAX_IOPS),
            ("wiops", "writes", device.writes, MAX_IOPS),
        ):
            if rate is not None:
                _check(f"devices.{field} of {name}", rate, 1, most)
            parts.append(f"{key}={'max' if rate is None else rate}")
        writes.append(Write("io", "io.max", " ".join(parts)))
    return writes


def _hugetlb(limits: Limits) -> list[Write]:
    _check_many("huge_pages", limits.huge_pages, MAX_PAGE_SIZES)
    writes: list[Write] = []
    seen: set[int] = set()
    for pages in limits.huge_pages:
        size = pages.page_bytes
        _check("huge_pages.page_bytes", size, 1 << 14, 1 << 40)
        if size & (size - 1):
            raise InvalidInput(f"huge_pages.page_bytes: {size} is no power of two: see /sys/kernel/mm/hugepages")
        if size in seen:
            raise InvalidInput(f"huge_pages: pages of {size} bytes are named twice: name each size once")
        seen.add(size)
        _check("huge_pages.limit_bytes", pages.limit_bytes, 0, MAX_BYTES)
        if pages.limit_bytes % size:
            raise InvalidInput(
                f"huge_pages.limit_bytes: {pages.limit_bytes} is no whole number of pages: use a multiple of {size}"
            )
        # Reservations too: a program past .max alone is killed by SIGBUS when it touches what mmap had promised.
        for kind in ("rsvd.max", "max"):
            writes.append(Write("hugetlb", f"hugetlb.{page_size_name(size)}.{kind}", str(pages.limit_bytes)))
    return writes


def page_size_name(page_bytes: int) -> str:
    """As the kernel names it in hugetlb's files: 64KB, 2MB, 1GB. (mm/hugetlb_cgroup.c, mem_fmt)"""
    for shift, unit in ((30, "GB"), (20, "MB")):
        if page_bytes >= 1 << shift:
            return f"{page_bytes >> shift}{unit}"
    return f"{page_bytes >> 10}KB"


def _cpuset(limits: Limits) -> list[Write]:
    writes: list[Write] = []
    for field, numbers, most in (
        ("cpuset_cpus", limits.cpuset_cpus, MAX_CPU),
        ("cpuset_mems", limits.cpuset_mems, MAX_MEMORY_NODE),
    ):
        if numbers is None:
            continue
        _check_many(field, numbers, most + 1)
        for number in numbers:
            _check(field, number, 0, most)
        writes.append(Write("cpuset", field.replace("_", "."), list_of(numbers)))
    return writes


def _check(field: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise InvalidInput(f"{field}: {value} is out of range: use a whole number from {least} to {most}")


def _check_many(field: str, values: Sequence[object], most: int) -> None:
    if len(values) > most:
        raise InvalidInput(f"{field}: {len(values)} entries are too many: name at most {most}")
