"""Exact resource arithmetic: scalars in thousandths, ranges of integers, sets of names, each reserved for a role.

A scalar is a whole number of thousandths of its unit, as Mesos compares them (src/common/values.cpp: fixed point with
three decimals), so sums never drift: `cpus` in millicpus; `mem` and `disk` in thousandths of a MB, where a MB is a
mebibyte, as in Mesos. `role` `*` means unreserved. Nothing here is a float.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

MILLI = 1_000
MIB = 1 << 20


class Resource(msgspec.Struct, frozen=True, omit_defaults=True):
    """An amount of one thing for one role. Exactly one of `scalar`, `ranges` and `items` says how much."""

    name: str
    scalar: int = 0
    """Thousandths."""
    ranges: tuple[tuple[int, int], ...] = ()
    """Closed, sorted, disjoint and not adjacent."""
    items: tuple[str, ...] = ()
    """Sorted, without repeats."""
    role: str = "*"


class Resources(msgspec.Struct, frozen=True, omit_defaults=True):
    """A bundle of resources. `entries` are sorted by (name, role), one per pair, none empty.

    What comes off the wire may break that rule: `error()` says how, and nothing may be computed with it before that
    has been asked.
    """

    entries: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.entries)


class Attribute(msgspec.Struct, frozen=True, omit_defaults=True):
    """A fact about an agent. Exactly one of the three is set. (Mesos docs/attributes-resources.md)"""

    name: str
    text: str = ""
    scalar: int | None = None
    """Thousandths."""
    ranges: tuple[tuple[int, int], ...] = ()


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True):
    entries: tuple[Attribute, ...] = ()

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.entries)


def total(bundles: Iterable[Resources]) -> Resources:
    """The sum of them all."""
    raise NotImplementedError
