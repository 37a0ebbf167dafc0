"""Limits as people write them: in specs, and by options of the command line. Pure.

`cpus:2;mem:1GiB;io_read:10MiB;hugetlb:2MiB=64MiB` for limits of the whole container (messages/values.py, TaskLimits),
`nofile:1024:4096;core:0` for limits of each process (RLimit); as mappings, the same names and values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal

from mesos_actor.actors.core.rlimits import rlimits_error
from mesos_actor.actors.core.task_limits import range_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import UNLIMITED, HugePages, RLimit, TaskLimits
from mesos_actor.actors.resource_text import milli_of, shown
from mesos_actor.actors.resources import MIB

NAMES = (
    *("cpus", "mem", "pids", "cpus_burst", "mem_high", "io_weight"),
    *("io_read", "io_write", "io_reads", "io_writes", "mem_swap", "hugetlb", "pinned_cpus"),
)
"""What may be limited, as people write it."""

NONE_WORDS = frozenset({"none", "unlimited", "max", "inf", "infinity"})
"""How people write that there shall be no limit; only where leaving it out would mean one."""

Amount = int | float | str

_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*(?:([KMGTP])i?)?(B)?", re.IGNORECASE | re.ASCII)
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40, "P": 50}
_WHOLE = re.compile(r"[0-9]{1,19}")


def parse_limits(given: str | Mapping[str, Amount], field: str = "limits") -> TaskLimits:
    """`cpus:2;mem:512MiB;pids:100` or a mapping of the same. cpus: processors; mem, mem_high and mem_swap: MB, or with
    a unit, as io_read and io_write, which are a second; io_reads and io_writes: operations a second; cpus_burst:
    thousandths of a second; hugetlb: PAGE=LIMIT, several with commas; pinned_cpus: whole processors; `none` for no
    limit at all on cpus, mem, pids or mem_swap.

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
        io_read_bytes=_bytes("io_read", pairs.get("io_read"), field),
        io_write_bytes=_bytes("io_write", pairs.get("io_write"), field),
        io_reads=_whole("io_reads", pairs.get("io_reads"), field),
        io_writes=_whole("io_writes", pairs.get("io_writes"), field),
        mem_swap_bytes=_bytes("mem_swap", pairs.get("mem_swap"), field),
        hugetlb=_huge_pages(pairs.get("hugetlb"), field),
        pinned_cpus=_whole("pinned_cpus", pairs.get("pinned_cpus"), field) or 0,
    )
    problem = range_error(limits)
    if problem is not None:
        raise InvalidInput(f"{field}: {problem}")
    return limits


def parse_rlimits(given: str | Mapping[str, Amount], field: str = "rlimits") -> tuple[RLimit, ...]:
    """`nofile:1024:4096;core:0` or a mapping of the same: SOFT:HARD, or one number for both; `none`: no limit. In the
    kernel's own unit of each kind.

    Raises InvalidInput naming the field, the value and the fix.
    """
    pairs = limit_pairs(given, field) if isinstance(given, str) else dict(given)
    found = tuple(_rlimit(kind, value, field) for kind, value in pairs.items())
    if problem := rlimits_error(found):
        raise InvalidInput(f"{field}: {problem}")
    return found


def limit_pairs(text: str, field: str) -> dict[str, Amount]:
    """`cpus:2;pids:100` as a mapping of texts, which the two above read. Raises InvalidInput."""
    found: dict[str, Amount] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        name, colon, value = (word.strip() for word in part.partition(":"))
        if not colon or not value:
            raise InvalidInput(f"{field}: cannot read {shown(part)}; write NAME:VALUE, several with ';' between")
        if name in found:
            raise InvalidInput(f"{field}: {name} is given twice; give it once")
        found[name] = value
    return found


def _rlimit(kind: str, value: Amount, field: str) -> RLimit:
    soft, colon, hard = _text(value).partition(":")
    ends = [soft.strip(), hard.strip() if colon else soft.strip()]
    numbers: list[int] = []
    for end in ends:
        if not _is_none(end) and not _WHOLE.fullmatch(end):
            raise InvalidInput(
                f"{field}: {shown(kind)}: {shown(value)} is no limit; write SOFT:HARD or one whole number, or 'none'"
            )
        numbers.append(UNLIMITED if _is_none(end) else int(end))
    return RLimit(kind, numbers[0], numbers[1])


def _text(value: Amount) -> str:
    """As written; of a number too large for any limit, words that are none."""
    return shown(value) if isinstance(value, int) and value.bit_length() > 64 else str(value)


def _is_none(value: Amount) -> bool:
    return isinstance(value, str) and value.strip().lower() in NONE_WORDS


def _cpus(value: Amount | None, field: str) -> int | None:
    if value is None:
        return None
    return UNLIMITED if _is_none(value) else milli_of(f"{field}: cpus", value)


def _bytes(name: str, value: Amount | None, field: str) -> int | None:
    if value is None:
        return None
    if _is_none(value) and name in ("mem", "mem_swap"):
        return UNLIMITED
    return _size(f"{field}: {name}", value)


def _size(where: str, value: Amount) -> int:
    """Bytes, exactly. Resources are counted in thousandths of a MB, which no small rate or page can be written in."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or not (match[2] or match[3]):
        return milli_of(where, value, sized=True) * MIB // 1_000
    exact = Decimal(match[1]) * (1 << _SHIFTS[(match[2] or "").upper()])
    if not match[3] or exact != exact.to_integral_value():
        raise InvalidInput(f"{where}: {shown(value)} is no whole number of bytes; write one with a unit: 512KiB, 10MiB")
    return int(exact)


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


def _huge_pages(value: Amount | None, field: str) -> tuple[HugePages, ...]:
    if value is None:
        return ()
    found = []
    for part in _text(value).split(","):
        page, equals, limit = (word.strip() for word in part.partition("="))
        if not equals or not page or not limit:
            raise InvalidInput(
                f"{field}: hugetlb: {shown(value)} is no limit of huge pages; write PAGE=LIMIT, like 2MiB=64MiB, "
                "several with commas between"
            )
        found.append(HugePages(_size(f"{field}: hugetlb", page), _size(f"{field}: hugetlb", limit)))
    return tuple(found)
