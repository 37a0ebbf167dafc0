"""One resource, and what can be said of one or two of them, or of a heap of them. Bundles are in `resources.py`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from mesos_actor.actors import resource_ranges, resource_text
from mesos_actor.actors.ids import role_error

MILLI = 1_000
MAX_SCALAR_MILLI = 10**15
"""The most of one scalar that is accepted from outside, in thousandths: an exabyte of disk. Up to here a JSON number
holds it exactly, and the sum over ten thousand agents still fits in a message."""
MAX_ITEMS = 10_000
"""The most items that one set from outside may have."""

_SCALARS = frozenset({"cpus", "mem", "disk", "gpus"})
_USUAL = _SCALARS | {"ports"}


class Resource(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An amount of one thing for one role. Exactly one of `scalar`, `ranges` and `items` says how much."""

    name: str
    scalar: int = 0
    """Thousandths."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Closed, sorted, disjoint and not adjacent."""
    items: tuple[str, ...] = ()
    """Sorted, without repeats."""
    role: str = "*"

    def __str__(self) -> str:
        """As in the text form: `cpus:4`, `ports(ads):[1-5]`."""
        name = self.name if self.role == "*" else f"{self.name}({self.role})"
        if self.ranges:
            return f"{name}:{resource_text.ranges_text(self.ranges)}"
        if self.items:
            return f"{name}:{resource_text.items_text(self.items)}"
        return f"{name}:{resource_text.scalar_text(self.scalar)}"

    def error(self) -> str | None:
        """Why this, from outside, cannot be used, or None when it can."""
        name, role = self.name, self.role
        if name not in _USUAL and (problem := resource_text.name_error(name)):
            return f"Resource name {resource_text.shown(name)} {problem}"
        if role != "*":
            if problem := role_error(role):
                return f"Resource '{name}': {problem}"
            if problem := resource_text.role_text_error(role):
                return f"Resource '{name}': role {resource_text.shown(role)} {problem}"
        kinds = (self.scalar != 0) + bool(self.ranges) + bool(self.items)
        if kinds != 1:
            return f"Resource '{name}' has {'no value' if kinds == 0 else 'several kinds of value'}"
        if self.scalar:
            return self._scalar_error()
        if name in _SCALARS:
            return f"Resource '{name}' must be a scalar"
        if self.items:
            return self._items_error()
        if problem := resource_ranges.error(self.ranges):
            return f"Resource '{name}' {problem}"
        return None

    def _scalar_error(self) -> str | None:
        name, milli = self.name, self.scalar
        if milli < 0:
            return f"Resource '{name}' is negative: {resource_text.scalar_text(milli)}"
        if milli > MAX_SCALAR_MILLI:
            return f"Resource '{name}' is above {MAX_SCALAR_MILLI // MILLI}: {resource_text.scalar_text(milli)}"
        if name == "ports":
            return "Resource 'ports' must be ranges"
        if name == "gpus" and milli % MILLI:
            return f"The 'gpus' resource must be an unsigned integer, not {resource_text.scalar_text(milli)}"
        return None

    def _items_error(self) -> str | None:
        name, items = self.name, self.items
        if name == "ports":
            return "Resource 'ports' must be ranges"
        if len(items) > MAX_ITEMS:
            return f"Resource '{name}' has {len(items)} items; at most {MAX_ITEMS} are accepted"
        previous = ""
        for item in items:
            if problem := resource_text.item_error(item):
                return f"Resource '{name}' has the item {resource_text.shown(item)}, which {problem}"
            if item <= previous:
                return f"Resource '{name}' has the item {resource_text.shown(item)} twice or out of order"
            previous = item
        return None


# -- one entry with another of the same name, role and kind


def kind_of(entry: Resource) -> int:
    return 0 if entry.scalar else 1 if entry.ranges else 2


def key_of(entry: Resource) -> tuple[str, str, int]:
    return (entry.name, entry.role, kind_of(entry))


def reserved_first(entry: Resource) -> tuple[bool, int, str]:
    return (entry.role == "*", -entry.role.count("/"), entry.role)


def holds(entry: Resource, other: Resource) -> bool:
    """Whether the ranges or items of `other` are in `entry`."""
    if other.ranges:
        return resource_ranges.contains(entry.ranges, other.ranges)
    return frozenset(entry.items).issuperset(other.items)


def reduced(entry: Resource, taken: Resource) -> Resource:
    if taken.ranges:
        return Resource(entry.name, 0, resource_ranges.subtract(entry.ranges, taken.ranges), (), entry.role)
    gone = frozenset(taken.items)
    return Resource(entry.name, 0, (), tuple(item for item in entry.items if item not in gone), entry.role)


def joined(x: Resource, y: Resource) -> Resource:
    if x.scalar:
        return Resource(x.name, x.scalar + y.scalar, (), (), x.role)
    if x == y:
        return x
    items = tuple(sorted({*x.items, *y.items}))
    return Resource(x.name, 0, resource_ranges.union(x.ranges, y.ranges), items, x.role)


# -- many entries


def merged(left: tuple[Resource, ...], right: tuple[Resource, ...]) -> tuple[Resource, ...]:
    """The sum of two sorted sequences of entries."""
    both: list[Resource] = []
    position, count = 0, len(left)
    for y in right:
        name = y.name
        while position < count:
            x = left[position]
            if x.name == name:
                x_key, y_key = (x.role, kind_of(x)), (y.role, kind_of(y))
                if x_key == y_key:
                    position += 1
                    y = joined(x, y)
                    break
                if x_key > y_key:
                    break
            elif x.name > name:
                break
            both.append(x)
            position += 1
        both.append(y)
    both.extend(left[position:])
    return tuple(both)


def summed(entries: Iterable[Resource]) -> tuple[Resource, ...]:
    """Canonical entries of any number of entries in any order; inverted ranges and empty entries vanish."""
    scalars: dict[tuple[str, str], int] = {}
    ranges: dict[tuple[str, str], list[tuple[int, int]]] = {}
    items: dict[tuple[str, str], set[str]] = {}
    for entry in entries:
        key = (entry.name, entry.role)
        if entry.scalar:
            scalars[key] = scalars.get(key, 0) + entry.scalar
        if entry.ranges:
            ranges.setdefault(key, []).extend(entry.ranges)
        if entry.items:
            items.setdefault(key, set()).update(entry.items)
    whole = [Resource(name, amount, (), (), role) for (name, role), amount in scalars.items() if amount]
    whole += [
        Resource(name, 0, united, (), role)
        for (name, role), found in ranges.items()
        if (united := resource_ranges.canonical(found))
    ]
    whole += [Resource(name, 0, (), tuple(sorted(found)), role) for (name, role), found in items.items()]
    return tuple(sorted(whole, key=key_of))


def json_of(entry: Resource) -> dict[str, Any]:
    if entry.ranges:
        return {
            "name": entry.name,
            "type": "RANGES",
            "ranges": resource_text.ranges_json(entry.ranges),
            "role": entry.role,
        }
    if entry.items:
        return {"name": entry.name, "type": "SET", "set": {"item": list(entry.items)}, "role": entry.role}
    value = resource_text.scalar_json(entry.scalar)
    return {"name": entry.name, "type": "SCALAR", "scalar": {"value": value}, "role": entry.role}
