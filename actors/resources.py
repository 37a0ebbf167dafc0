"""Exact resource arithmetic: scalars in thousandths, ranges of integers, sets of names, each reserved for a role.

A scalar is a whole number of thousandths of its unit, as Mesos compares them (src/common/values.cpp: fixed point with
three decimals), so sums never drift: `cpus` in millicpus; `mem` and `disk` in thousandths of a MB, where a MB is a
mebibyte, as in Mesos. `role` `*` means unreserved. Nothing here is a float.

A task states its resources in one of two ways: with the roles exactly as they were offered, which is what the master
checks with `contains`; or all with `*`, which `take` turns into the former on the framework's side.

What is written and read by people is in `resource_text.py`, ranges are in `resource_ranges.py`, attributes, which are
found here too, in `attributes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import msgspec

from mesos_actor.actors import resource_ranges, resource_text
from mesos_actor.actors.attributes import Attribute, Attributes
from mesos_actor.actors.errors import InvalidInput, LocalError
from mesos_actor.actors.ids import role_error
from mesos_actor.actors.resource_entry import (
    MAX_SCALAR_MILLI,
    MILLI,
    Resource,
    holds,
    joined,
    json_of,
    key_of,
    kind_of,
    merged,
    reduced,
    reserved_first,
    summed,
)
from mesos_actor.actors.resource_text import Amount, Parsed

__all__ = [
    "MAX_ENTRIES",
    "MAX_SCALAR_MILLI",
    "MIB",
    "MILLI",
    "Amount",
    "Attribute",
    "Attributes",
    "Resource",
    "Resources",
    "total",
]

MIB = 1 << 20
MAX_ENTRIES = 1_000
"""The most entries that a bundle from outside may have."""
_SHOWN_CHARS = 300


class Resources(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A bundle of resources. `entries` are sorted by (name, role, kind), one for each, none empty; the kinds are
    scalar, ranges, set, in that order.

    What comes off the wire may break that rule: `error()` says how, and nothing may be computed with it before that
    has been asked. One bundle from outside has one kind for a name; only sums over several agents can have more.
    """

    entries: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.entries)

    @property
    def is_empty(self) -> bool:
        return not self.entries

    # -- made from what people write

    @classmethod
    def of(
        cls,
        *,
        cpus: Amount = 0,
        mem: Amount = 0,
        disk: Amount = 0,
        gpus: Amount = 0,
        role: str = "*",
        **others: Amount,
    ) -> Self:
        """`Resources.of(cpus="0.5", mem="1GiB", ports="[31000-31001]")`, all for `role`.

        Raises InvalidInput for what is not a number, is negative or has more than three decimals.
        """
        usual = {"cpus": cpus, "mem": mem, "disk": disk, "gpus": gpus}
        amounts = {name: amount for name, amount in usual.items() if type(amount) is not int or amount} | others
        for name in others:
            if problem := resource_text.name_error(name):
                raise resource_text.invalid("resources", name, problem, "use a plain name")
        return cls._checked((resource_text.parse_amount(name, role, amount) for name, amount in amounts.items()), role)

    @classmethod
    def parse(cls, text: str, default_role: str = "*") -> Self:
        """From `cpus:4;mem:8GiB;disk(ads):1000;ports:[31000-32000];names:{a,b}`, or from JSON when it begins with `[`.

        What names no role is for `default_role`. Amounts given twice are added, zero ones dropped, as in Mesos.
        Raises InvalidInput.
        """
        if text.lstrip().startswith("["):
            return cls.from_json(resource_text.json_of(text, "resources"), default_role)
        return cls._checked(resource_text.parse_resources_text(text), default_role)

    @classmethod
    def from_json(cls, value: object, default_role: str = "*") -> Self:
        """From a decoded list of Mesos' `Resource` objects. Raises InvalidInput."""
        if not isinstance(value, list | tuple):
            raise resource_text.invalid("resources", value, "is not a list", 'write [{"name": ...}, ...]')
        return cls._checked((resource_text.parse_json_entry(entry, "resources") for entry in value), default_role)

    @classmethod
    def _checked(cls, parsed: Iterable[Parsed], default_role: str) -> Self:
        entries: list[Resource] = []
        for p in parsed:
            role = default_role if p.role is None else p.role
            if problem := role_error(role):
                raise resource_text.invalid(f"resources: {p.name}", role, "is not a role", problem)
            entries.append(Resource(p.name, p.scalar or 0, p.ranges, p.items, role))
        return cls(tuple(entries)).normalized()

    def __str__(self) -> str:
        """The canonical text form; `parse` of it gives the same bundle."""
        return ";".join(map(str, self.entries))

    def to_json(self) -> list[dict[str, Any]]:
        """Mesos' `Resource` objects, ready for any JSON encoder; scalars are exact decimals up to MAX_SCALAR_MILLI."""
        return [json_of(entry) for entry in self.entries]

    # -- judged

    def error(self) -> str | None:
        """Why this bundle, from outside, cannot be used, or None when it is canonical. Never raises."""
        entries = self.entries
        if len(entries) > MAX_ENTRIES:
            return f"Too many resources: {len(entries)}; at most {MAX_ENTRIES} are accepted"
        previous: Resource | None = None
        for entry in entries:
            if problem := entry.error():
                return problem
            if previous is not None and previous.name >= entry.name:
                if previous.name > entry.name or previous.role > entry.role:
                    return f"Resource '{entry}' is out of order: sort by name and role"
                if kind_of(previous) != kind_of(entry):
                    return f"Resources with the same name ('{entry.name}') but different types are not allowed"
                if previous.role == entry.role:
                    return f"Resource '{entry.name}' is given twice for the role '{entry.role}'"
            previous = entry
        return None

    def normalized(self) -> Self:
        """The canonical form of a bundle made by hand: sorted, amounts of the same thing added, empty ones dropped.

        Raises InvalidInput when no canonical form exists: negative amounts, bad names, inverted ranges.
        """
        for entry in self.entries:
            for begin, end in entry.ranges:
                if begin > end:
                    raise InvalidInput(f"resources: {entry.name}: the range [{begin}-{end}] ends before it begins")
            if entry.scalar < 0:
                raise InvalidInput(f"resources: {entry.name}: {entry} is negative; give zero or more")
        canonical = type(self)(summed(self.entries))
        if problem := canonical.error():
            raise InvalidInput(f"resources: {problem}")
        return canonical

    # -- arithmetic

    def __add__(self, other: Resources) -> Resources:
        """Both together. Ranges and sets are united, so adding what is already there changes nothing, as in Mesos."""
        left, right = self.entries, other.entries
        if not right:
            return self
        if not left:
            return other
        if len(left) == len(right):
            added = []
            for x, y in zip(left, right, strict=True):
                name, role, amount, more = x.name, x.role, x.scalar, y.scalar
                if name != y.name or role != y.role:
                    break
                if amount and more:
                    added.append(Resource(name, amount + more, (), (), role))
                elif amount or more or kind_of(x) != kind_of(y):
                    break
                else:
                    added.append(joined(x, y))
            else:
                return Resources(tuple(added))
        return Resources(merged(left, right))

    def __sub__(self, other: Resources) -> Resources:
        """What is left when `other` is taken away. Raises LocalError when it is not contained."""
        rest: list[Resource] = []
        remaining = iter(self.entries)
        for taken in other.entries:
            name, role, amount = taken.name, taken.role, taken.scalar
            for entry in remaining:
                if entry.name == name and entry.role == role:
                    if amount:
                        left = entry.scalar - amount
                        if left > 0:
                            rest.append(Resource(name, left, (), (), role))
                            break
                        if left == 0:
                            break
                        if entry.scalar:
                            raise _not_contained(self, other)
                    elif not entry.scalar and kind_of(entry) == kind_of(taken):
                        if not holds(entry, taken):
                            raise _not_contained(self, other)
                        if entry != taken:
                            rest.append(reduced(entry, taken))
                        break
                rest.append(entry)
            else:
                raise _not_contained(self, other)
        rest.extend(remaining)
        return Resources(tuple(rest))

    def contains(self, other: Resources) -> bool:
        """Whether `other` can be taken away: each of its entries is covered by the entry of the same name and role."""
        remaining = iter(self.entries)
        for wanted in other.entries:
            name, role, amount = wanted.name, wanted.role, wanted.scalar
            for entry in remaining:
                if entry.name == name and entry.role == role:
                    if amount:
                        if entry.scalar >= amount:
                            break
                        if entry.scalar:
                            return False
                    elif not entry.scalar and kind_of(entry) == kind_of(wanted):
                        if not holds(entry, wanted):
                            return False
                        break
            else:
                return False
        return True

    # -- looked at

    def scalar(self, name: str, role: str | None = None) -> int:
        """Thousandths of `name` for `role`, or over all roles when it is None; 0 when there is none."""
        amount = 0
        for entry in self.entries:
            if entry.name == name and (role is None or entry.role == role):
                amount += entry.scalar
        return amount

    def scalars(self) -> dict[str, int]:
        """Name -> thousandths over all roles, for scalars alone."""
        amounts: dict[str, int] = {}
        for entry in self.entries:
            if entry.scalar:
                amounts[entry.name] = amounts.get(entry.name, 0) + entry.scalar
        return amounts

    def ranges(self, name: str, role: str | None = None) -> tuple[tuple[int, int], ...]:
        """The ranges of `name` for `role`, or over all roles when it is None."""
        found: tuple[tuple[int, int], ...] = ()
        for entry in self.entries:
            if entry.name == name and (role is None or entry.role == role):
                found = resource_ranges.union(found, entry.ranges)
        return found

    def millicpus(self) -> int:
        return self.scalar("cpus")

    def mem_bytes(self) -> int:
        """Memory over all roles in bytes, rounded down."""
        return self.scalar("mem") * MIB // MILLI

    def disk_bytes(self) -> int:
        """Disk over all roles in bytes, rounded down."""
        return self.scalar("disk") * MIB // MILLI

    def names(self) -> frozenset[str]:
        return frozenset(entry.name for entry in self.entries)

    def roles(self) -> frozenset[str]:
        """Who anything is reserved for; `*` when something is unreserved."""
        return frozenset(entry.role for entry in self.entries)

    # -- divided by role

    def for_role(self, role: str) -> Resources:
        """What `role` may be offered: unreserved, its own, and reserved for a role above it (`eng` for `eng/web`), by
        Mesos' rule (src/common/resources.cpp `isAllocatableTo`)."""
        kept = tuple(e for e in self.entries if e.role == "*" or e.role == role or role.startswith(f"{e.role}/"))
        return self if len(kept) == len(self.entries) else Resources(kept)

    def unreserved(self) -> Resources:
        kept = tuple(entry for entry in self.entries if entry.role == "*")
        return self if len(kept) == len(self.entries) else Resources(kept)

    def reserved(self, role: str | None = None) -> Resources:
        """What is reserved for exactly `role`; for anybody when it is None."""
        return Resources(tuple(e for e in self.entries if e.role != "*" and (role is None or e.role == role)))

    # -- fitted

    def take(self, amounts: Resources) -> Resources | None:
        """The entries of this bundle that make up `amounts`, or None when it has not so much.

        When all of `amounts` is for `*`, reserved entries are used first (those of the deepest role before the
        others), then unreserved ones. When any of it names a role, it is taken exactly as it stands.
        """
        if all(entry.role == "*" for entry in self.entries) or any(entry.role != "*" for entry in amounts.entries):
            return amounts if self.contains(amounts) else None
        chosen: list[Resource] = []
        for wanted in amounts.entries:
            kind = kind_of(wanted)
            candidates = [entry for entry in self.entries if entry.name == wanted.name and kind_of(entry) == kind]
            picked = _picked(wanted, sorted(candidates, key=reserved_first))
            if picked is None:
                return None
            chosen.extend(picked)
        return Resources(tuple(sorted(chosen, key=key_of)))

    def take_numbers(self, name: str, count: int) -> Resources | None:
        """`count` numbers of the ranges `name` (say, ports), reserved ones first, lowest first; None when too few."""
        chosen: list[Resource] = []
        for entry in sorted((e for e in self.entries if e.name == name and e.ranges), key=reserved_first):
            here = min(count, resource_ranges.size(entry.ranges))
            if here > 0:
                picked = resource_ranges.lowest(entry.ranges, here)
                assert picked, "an entry has as many numbers as its size says"
                chosen.append(Resource(name, 0, picked, (), entry.role))
                count -= here
        return None if count > 0 else Resources(tuple(sorted(chosen, key=key_of)))


def total(bundles: Iterable[Resources]) -> Resources:
    """The sum of them all, in one pass."""
    return Resources(summed(entry for bundle in bundles for entry in bundle.entries))


def _picked(wanted: Resource, candidates: Sequence[Resource]) -> list[Resource] | None:
    """Parts of `candidates`, in their order, that together are `wanted`; None when they do not suffice."""
    missing = Resources((Resource(wanted.name, wanted.scalar, wanted.ranges, wanted.items),))
    chosen: list[Resource] = []
    for candidate in candidates:
        if not missing:
            break
        want = missing.entries[0]
        part = Resource(
            want.name,
            min(want.scalar, candidate.scalar),
            resource_ranges.intersect(candidate.ranges, want.ranges),
            tuple(item for item in want.items if item in candidate.items),
        )
        if part.scalar or part.ranges or part.items:
            missing = missing - Resources((part,))
            chosen.append(Resource(part.name, part.scalar, part.ranges, part.items, candidate.role))
    return None if missing else chosen


def _not_contained(left: Resources, right: Resources) -> LocalError:
    return LocalError(f"cannot take {_cut(right)} out of {_cut(left)}: not contained")


def _cut(bundle: Resources) -> str:
    text = str(bundle)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
