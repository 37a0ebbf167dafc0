"""Limits apart from requests: judged against the request, summed for an executor. Pure.

limit_text.py reads them as people write them.

Source: Mesos src/master/validation.cpp (`validateLimits` of tasks), src/slave/slave.cpp (limits of executors); Mesos
has cpus and mem, the others are of the kernel's cgroups (isolation/limits.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace

from mesos_actor.actors.messages.values import NO_LIMITS, UNLIMITED, HugePages, TaskLimits
from mesos_actor.actors.resources import Resource, Resources

MAX_CPUS_MILLI = 8_192_000
MIN_BYTES = 1
MAX_BYTES = 1 << 60
MAX_PIDS = 4_194_304
MAX_IO_WEIGHT = 10_000
MAX_IOPS = 1 << 31
PERIOD_US = 100_000
MAX_PAGE_SIZES = 8
MIN_PAGE_BYTES, MAX_PAGE_BYTES = 1 << 14, 1 << 40
"""The kernel's bounds, as isolation/limits.py has them and says why."""

OWN_ONLY = {
    "cpus_burst_us": "cpus_burst",
    "mem_high_bytes": "mem_high",
    "io_weight": "io_weight",
    "io_read_bytes": "io_read",
    "io_write_bytes": "io_write",
    "io_reads": "io_reads",
    "io_writes": "io_writes",
    "mem_swap_bytes": "mem_swap",
    "hugetlb": "hugetlb",
    "pinned_cpus": "pinned_cpus",
}
"""What an executor and its tasks cannot have the sum of: field -> as people write it."""


def limits_error(limits: TaskLimits, resources: Resources) -> str | None:
    """Why these cannot be the limits beside this request, or None."""
    if limits == NO_LIMITS:
        return None
    problem = range_error(limits)
    if problem is not None:
        return problem
    requested = (("cpus", limits.cpus_milli, resources.millicpus()), ("mem", limits.mem_bytes, resources.mem_bytes()))
    for name, limit, request in requested:
        if limit is None or limit == UNLIMITED:
            continue
        if not request:
            return f"'{name}' has a limit but no request; request some {name} too"
        if limit < request:
            unit = "thousandths" if name == "cpus" else "bytes"
            return f"'{name}' limit of {limit} {unit} is below its request of {request}; raise it or request less"
    if limits.pinned_cpus * 1_000 > resources.millicpus():
        return f"'pinned_cpus' is {limits.pinned_cpus}, more than the cpus requested; request as many, or pin fewer"
    return None


def executor_task_error(limits: TaskLimits) -> str | None:
    """Why these cannot be limits of one of an executor's tasks, which are in its container, or None."""
    for field, name in OWN_ONLY.items():
        if getattr(limits, field) != getattr(NO_LIMITS, field):
            return f"'{name}' is of a whole container, and this task's is its executor's; limit the executor instead"
    return None


class Total:
    """The requests and limits of an executor and its tasks, together: what its container gets. It changes by a step for
    each task that comes or goes, however many there are.

    A limit that none has, the sum has not either. Where one has it, the others count with their request (cpus, mem),
    and one without any limit makes the sum unlimited. What cannot be summed (OWN_ONLY) is the executor's
    own, `own`, and its mem_high stays as far above what all request as it was above its own request.
    (Mesos: src/slave/slave.cpp, executors' limits)
    """

    def __init__(self, resources: Resources, own: TaskLimits) -> None:
        self._own = own
        self._own_mem_bytes = resources.mem_bytes()
        self._amounts: Counter[str] = Counter()
        #: For cpus, mem and pids: how much is limited, how many say a limit, and how many of these say: none.
        self._limited = [0, 0, 0]
        self._named = [0, 0, 0]
        self._unlimited = [0, 0, 0]
        self.add(resources, own)

    def add(self, resources: Resources, limits: TaskLimits, sign: int = 1) -> None:
        """One more; with `sign` -1, one less of those that were added."""
        for name, milli in resources.scalars().items():
            self._amounts[name] += sign * milli
        requests = (resources.millicpus(), resources.mem_bytes(), 0)
        for kind, limit in enumerate((limits.cpus_milli, limits.mem_bytes, limits.pids)):
            if limit == UNLIMITED:
                self._unlimited[kind] += sign
            else:
                self._limited[kind] += sign * (requests[kind] if limit is None else limit)
            if limit is not None:
                self._named[kind] += sign

    def now(self) -> tuple[Resources, TaskLimits]:
        """What the container gets: the scalars, without role, and the limits."""
        bundle = Resources(tuple(Resource(name, milli) for name, milli in sorted(self._amounts.items()) if milli > 0))
        cpus, mem, pids = (self._limit(kind) for kind in range(3))
        high = self._own.mem_high_bytes
        if high is not None:
            high += bundle.mem_bytes() - self._own_mem_bytes
        return bundle, replace(self._own, cpus_milli=cpus, mem_bytes=mem, pids=pids, mem_high_bytes=high)

    def _limit(self, kind: int) -> int | None:
        if not self._named[kind]:
            return None
        return UNLIMITED if self._unlimited[kind] else self._limited[kind]


def range_error(limits: TaskLimits) -> str | None:
    """Why these cannot be limits beside any request, or None."""
    bounds = (
        ("cpus", limits.cpus_milli, 1, MAX_CPUS_MILLI, True),
        ("mem", limits.mem_bytes, MIN_BYTES, MAX_BYTES, True),
        ("pids", limits.pids, 1, MAX_PIDS, True),
        ("cpus_burst", limits.cpus_burst_us, 0, MAX_CPUS_MILLI * PERIOD_US // 1_000, False),
        ("mem_high", limits.mem_high_bytes, MIN_BYTES, MAX_BYTES, False),
        ("io_weight", limits.io_weight, 1, MAX_IO_WEIGHT, False),
        ("io_read", limits.io_read_bytes, 1, MAX_BYTES, False),
        ("io_write", limits.io_write_bytes, 1, MAX_BYTES, False),
        ("io_reads", limits.io_reads, 1, MAX_IOPS, False),
        ("io_writes", limits.io_writes, 1, MAX_IOPS, False),
        ("mem_swap", limits.mem_swap_bytes, 0, MAX_BYTES, True),
        ("pinned_cpus", limits.pinned_cpus, 0, MAX_CPUS_MILLI // 1_000, False),
    )
    for name, value, least, most, may_be_none in bounds:
        if value is None or (may_be_none and value == UNLIMITED):
            continue
        if not least <= value <= most:
            return f"'{name}' limit of {value}{_UNITS.get(name, '')} is out of range; give one from {least} to {most}"
    if limits.cpus_burst_us:
        if limits.cpus_milli is None or limits.cpus_milli == UNLIMITED:
            return "'cpus_burst' goes past a limit on 'cpus', and there is none; set that too"
        if limits.cpus_burst_us > limits.cpus_milli * PERIOD_US // 1_000:
            return f"'cpus_burst' of {limits.cpus_burst_us} us is above what 'cpus' gives in {PERIOD_US} us; lower it"
    return _huge_pages_error(limits.hugetlb)


_UNITS = {
    "cpus": " thousandths",
    "cpus_burst": " us",
    **dict.fromkeys(("mem", "mem_high", "mem_swap"), " bytes"),
    **dict.fromkeys(("io_read", "io_write"), " bytes a second"),
}


def _huge_pages_error(sizes: Sequence[HugePages]) -> str | None:
    if len(sizes) > MAX_PAGE_SIZES:
        return f"'hugetlb' names {len(sizes)} sizes of pages; name at most {MAX_PAGE_SIZES}"
    seen: set[int] = set()
    for pages in sizes:
        size, limit = pages.page_bytes, pages.limit_bytes
        if not MIN_PAGE_BYTES <= size <= MAX_PAGE_BYTES or size & (size - 1):
            return f"'hugetlb' pages of {size} bytes cannot be; give a power of two, as in /sys/kernel/mm/hugepages"
        if size in seen:
            return f"'hugetlb' names pages of {size} bytes twice; name each size once"
        seen.add(size)
        if not 0 <= limit <= MAX_BYTES or limit % size:
            return f"'hugetlb' limit of {limit} bytes is no whole number of pages of {size}; give a multiple, or 0"
    return None
