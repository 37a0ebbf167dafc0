"""Limits apart from requests: read from text, judged against the request, summed for an executor. Pure.

Source: Mesos src/master/validation.cpp (`validateLimits` of tasks), src/slave/slave.cpp (limits of executors); Mesos
has cpus and mem, the others are of the kernel's cgroups (isolation/limits.py).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from msgspec.structs import replace

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import NO_LIMITS, UNLIMITED, TaskLimits
from mesos_actor.actors.resource_text import milli_of, shown
from mesos_actor.actors.resources import MIB, Resource, Resources

NAMES = ("cpus", "mem", "pids", "cpus_burst", "mem_high", "io_weight")
"""What may be limited, as people write it."""

NONE_WORDS = frozenset({"none", "unlimited", "max", "inf", "infinity"})
"""How people write that there shall be no limit; only where leaving it out would mean one."""

MAX_CPUS_MILLI = 8_192_000
MIN_BYTES = 1
MAX_BYTES = 1 << 60
MAX_PIDS = 4_194_304
MAX_IO_WEIGHT = 10_000
PERIOD_US = 100_000
"""The kernel's bounds, as isolation/limits.py has them and says why."""

Amount = int | float | str


def parse_limits(given: str | Mapping[str, Amount], field: str = "limits") -> TaskLimits:
    """`cpus:2;mem:512MiB;pids:100` or a mapping of the same. cpus: processors; mem and mem_high: MB, or with a unit;
    cpus_burst: thousandths of a second; `none` for no limit at all on cpus, mem or pids.

    Raises InvalidInput naming the field, the value and the fix.
    """
    pairs = limit_pairs(given, field) if isinstance(given, str) else dict(given)
    for name in pairs:
        if name not in NAMES:
            raise InvalidInput(f"{field}: {shown(name)} cannot be limited; name one of {', '.join(NAMES)}")
    limits = TaskLimits(
        cpus_milli=_cpus(pairs.get("cpus"), field),
        mem_bytes=_bytes("mem", pairs.get("mem"), field),
        pids=_whole("pids", pairs.get("pids"), field),
        cpus_burst_us=_burst_us(pairs.get("cpus_burst"), field),
        mem_high_bytes=_bytes("mem_high", pairs.get("mem_high"), field),
        io_weight=_whole("io_weight", pairs.get("io_weight"), field),
    )
    problem = _range_error(limits)
    if problem is not None:
        raise InvalidInput(f"{field}: {problem}")
    return limits


def limits_error(limits: TaskLimits, resources: Resources) -> str | None:
    """Why these cannot be the limits beside this request, or None."""
    if limits == NO_LIMITS:
        return None
    problem = _range_error(limits)
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
    return None


class Total:
    """The requests and limits of an executor and its tasks, together: what its container gets. It changes by a step for
    each task that comes or goes, however many there are.

    A limit that none has, the sum has not either. Where one has it, the others count with their request (cpus, mem),
    and one without any limit makes the sum unlimited. What cannot be summed (cpus_burst, io_weight) is the executor's
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


def limit_pairs(text: str, field: str) -> dict[str, Amount]:
    """`cpus:2;pids:100` as a mapping of texts, which `parse_limits` reads. Raises InvalidInput."""
    found: dict[str, Amount] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, value = (word.strip() for word in part.partition(":"))
        if not colon or not value:
            raise InvalidInput(f"{field}: cannot read {shown(part)}; write NAME:VALUE, several with ';' between")
        if name in found:
            raise InvalidInput(f"{field}: {name} is given twice; give it once")
        found[name] = value
    return found


def _is_none(value: Amount) -> bool:
    return isinstance(value, str) and value.strip().lower() in NONE_WORDS


def _cpus(value: Amount | None, field: str) -> int | None:
    if value is None:
        return None
    return UNLIMITED if _is_none(value) else milli_of(f"{field}: cpus", value)


def _bytes(name: str, value: Amount | None, field: str) -> int | None:
    if value is None:
        return None
    if _is_none(value) and name == "mem":
        return UNLIMITED
    return milli_of(f"{field}: {name}", value, sized=True) * MIB // 1_000


def _whole(name: str, value: Amount | None, field: str) -> int | None:
    if value is None:
        return None
    if _is_none(value) and name == "pids":
        return UNLIMITED
    milli = milli_of(f"{field}: {name}", value)
    if milli % 1_000:
        raise InvalidInput(f"{field}: {name}: {shown(value)} is not a whole number; write one")
    return milli // 1_000


def _burst_us(value: Amount | None, field: str) -> int | None:
    return None if value is None else milli_of(f"{field}: cpus_burst", value)


def _range_error(limits: TaskLimits) -> str | None:
    bounds = (
        ("cpus", limits.cpus_milli, 1, MAX_CPUS_MILLI, True),
        ("mem", limits.mem_bytes, MIN_BYTES, MAX_BYTES, True),
        ("pids", limits.pids, 1, MAX_PIDS, True),
        ("cpus_burst", limits.cpus_burst_us, 0, MAX_CPUS_MILLI * PERIOD_US // 1_000, False),
        ("mem_high", limits.mem_high_bytes, MIN_BYTES, MAX_BYTES, False),
        ("io_weight", limits.io_weight, 1, MAX_IO_WEIGHT, False),
    )
    for name, value, least, most, may_be_none in bounds:
        if value is None or (may_be_none and value == UNLIMITED):
            continue
        if not least <= value <= most:
            unit = {"cpus": " thousandths", "mem": " bytes", "mem_high": " bytes", "cpus_burst": " us"}.get(name, "")
            return f"'{name}' limit of {value}{unit} is out of range; give one from {least} to {most}"
    if limits.cpus_burst_us:
        if limits.cpus_milli is None or limits.cpus_milli == UNLIMITED:
            return "'cpus_burst' goes past a limit on 'cpus', and there is none; set that too"
        if limits.cpus_burst_us > limits.cpus_milli * PERIOD_US // 1_000:
            return f"'cpus_burst' of {limits.cpus_burst_us} us is above what 'cpus' gives in {PERIOD_US} us; lower it"
    return None
