"""Facts about an agent, opaque to us, that travel in its offers: `rack:2;os:ubuntu;ports:[1-5]`.

Source: Mesos docs/attributes-resources.md. A value is ranges, else a number of at most three decimals, else text. One
difference: a name stands once, where Mesos lets it repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Self

import msgspec

from mesos_actor.actors import resource_ranges, resource_text
from mesos_actor.actors.resource_text import Parsed

MAX_ATTRIBUTES = 1_000
"""The most attributes accepted from one agent."""
MAX_SCALAR_MILLI = 10**15
"""Numbers lie between plus and minus this many thousandths: a JSON number still holds them exactly."""


class Attribute(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """A fact about an agent. Exactly one of the three is set. (Mesos docs/attributes-resources.md)"""

    name: str
    text: str = ""
    scalar: int | None = None
    """Thousandths."""
    ranges: tuple[tuple[int, int], ...] = ()

    @property
    def value(self) -> str:
        """The value as the text form writes it: `ubuntu`, `2.5`, `[1-5]`."""
        if self.scalar is not None:
            return resource_text.scalar_text(self.scalar)
        return resource_text.ranges_text(self.ranges) if self.ranges else self.text

    def __str__(self) -> str:
        return f"{self.name}:{self.value}"

    def error(self) -> str | None:
        """Why this, from outside, cannot be used, or None when it can."""
        if problem := resource_text.name_error(self.name):
            return f"Attribute name {resource_text.shown(self.name)} {problem}"
        kinds = (self.scalar is not None) + bool(self.ranges) + bool(self.text)
        if kinds != 1:
            return f"Attribute '{self.name}' has {'no value' if kinds == 0 else 'several kinds of value'}"
        if self.scalar is not None and abs(self.scalar) > MAX_SCALAR_MILLI:
            return f"Attribute '{self.name}' is out of range: {self.value}"
        if self.ranges and (problem := resource_ranges.error(self.ranges)):
            return f"Attribute '{self.name}' {problem}"
        if self.text and (problem := resource_text.attribute_text_error(self.text)):
            return f"Attribute '{self.name}' {problem}"
        return None


class Attributes(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """The attributes of one agent, each name once. `parse` and `from_json` sort them by name."""

    entries: tuple[Attribute, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.entries)

    def __iter__(self) -> Iterator[Attribute]:
        return iter(self.entries)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `rack:2;os:ubuntu;ports:[1-5]`, or from JSON when it begins with `[`. Raises InvalidInput."""
        if text.lstrip().startswith("["):
            return cls.from_json(resource_text.json_of(text, "attributes"))
        return cls._checked(resource_text.parse_attributes_text(text))

    @classmethod
    def from_json(cls, value: object) -> Self:
        """From a decoded list of Mesos' `Attribute` objects. Raises InvalidInput."""
        if not isinstance(value, list | tuple):
            raise resource_text.invalid("attributes", value, "is not a list", 'write [{"name": ...}, ...]')
        return cls._checked(resource_text.parse_json_entry(entry, "attributes") for entry in value)

    @classmethod
    def _checked(cls, parsed: Iterable[Parsed]) -> Self:
        entries = [Attribute(p.name, p.text, p.scalar, p.ranges) for p in parsed]
        attributes = cls(tuple(sorted(entries, key=lambda entry: entry.name)))
        if problem := attributes.error():
            raise resource_text.invalid("attributes", str(attributes), "cannot be used", problem)
        return attributes

    def __str__(self) -> str:
        """The text form; `parse` of it gives the same attributes unless one is text that looks like a number."""
        return ";".join(map(str, self.entries))

    def to_json(self) -> list[dict[str, Any]]:
        """Mesos' `Attribute` objects, ready for any JSON encoder."""
        return [_json_of(entry) for entry in self.entries]

    def get(self, name: str) -> Attribute | None:
        """The attribute of that name, or None."""
        for entry in self.entries:
            if entry.name == name:
                return entry
        return None

    def error(self) -> str | None:
        """Why these, from outside, cannot be used, or None when they can. Never raises."""
        if len(self.entries) > MAX_ATTRIBUTES:
            return f"Too many attributes: {len(self.entries)}; at most {MAX_ATTRIBUTES} are accepted"
        seen: set[str] = set()
        for entry in self.entries:
            if problem := entry.error():
                return problem
            if entry.name in seen:
                return f"Attribute '{entry.name}' is given twice"
            seen.add(entry.name)
        return None


def _json_of(entry: Attribute) -> dict[str, Any]:
    if entry.scalar is not None:
        value = resource_text.scalar_json(entry.scalar)
        return {"name": entry.name, "type": "SCALAR", "scalar": {"value": value}}
    if entry.ranges:
        return {"name": entry.name, "type": "RANGES", "ranges": resource_text.ranges_json(entry.ranges)}
    return {"name": entry.name, "type": "TEXT", "text": {"value": entry.text}}
