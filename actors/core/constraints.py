"""Constraints on agents: what an offer's host name and attributes must be like for a task to run there.

| text               | is met when                                                                          |
|--------------------|--------------------------------------------------------------------------------------|
| `rack==r1`         | the attribute `rack` is there and is `r1`                                            |
| `rack!=r1`         | it is anything else, or is not there                                                 |
| `os=~ubuntu.*`     | it is there and the whole of its text matches the regular expression                 |
| `os!~ubuntu.*`     | its text does not match, or it is not there                                          |
| `exists(gpu)`      | it is there, with any value                                                          |
| `!exists(gpu)`     | it is not                                                                            |

`hostname`, `agent` (the agent's id) and `isolation` (`cgroups`, `process`) may stand in an attribute's place. Numbers
are compared as numbers: `2.0` is `2`. What holds for absent attributes follows Mesos' offer constraints
(include/mesos/scheduler/scheduler.proto, `AttributeConstraint`).

A regular expression comes from the framework's author and is run in the framework's own process, on texts of at most
255 bytes. Python's matcher can still take very long over one with nested repetitions, like `(a+)+b`; its length is
bounded, its shape is not.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable

import msgspec

from mesos_actor.actors import resource_text
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import Offer
from mesos_actor.actors.resources import Attribute

MAX_TEXT_CHARS = 1_000
"""Longer constraints are refused."""
MAX_PATTERN_CHARS = 256
"""Longer regular expressions are refused (RE2 in Mesos is bounded by memory instead)."""

_COMPARISON = re.compile(r"\s*([^=!~]*?)\s*(==|!=|=~|!~)\s*(.*?)\s*", re.DOTALL)
_EXISTENCE = re.compile(r"\s*(!?)\s*exists\s*\(\s*(.*?)\s*\)\s*", re.DOTALL)
_FIX = "write NAME==VALUE, NAME!=VALUE, NAME=~REGEX, NAME!~REGEX, exists(NAME) or !exists(NAME)"


class Operator(enum.StrEnum):
    EQUALS = "=="
    DIFFERS = "!="
    MATCHES = "=~"
    MATCHES_NOT = "!~"
    EXISTS = "exists"
    EXISTS_NOT = "!exists"


class Constraint(msgspec.Struct, frozen=True):
    """One constraint; `parse_constraint` makes it."""

    name: str
    """An attribute, or `hostname`, `agent`, `isolation`."""
    operator: Operator
    value: str = ""
    """The canonical value, or the regular expression; empty for (non-)existence."""

    def __str__(self) -> str:
        if self.operator in (Operator.EXISTS, Operator.EXISTS_NOT):
            return f"{self.operator}({self.name})"
        return f"{self.name}{self.operator}{self.value}"

    def matches(self, offer: Offer) -> str | None:
        """None when the offer's agent meets this, else the reason why not, fit for a person."""
        found = self._value_in(offer)
        match self.operator:
            case Operator.EXISTS:
                met = found is not None
            case Operator.EXISTS_NOT:
                met = found is None
            case Operator.EQUALS:
                met = found == self.value
            case Operator.DIFFERS:
                met = found != self.value
            case Operator.MATCHES:
                met = found is not None and re.fullmatch(self.value, found) is not None
            case Operator.MATCHES_NOT:
                met = found is None or re.fullmatch(self.value, found) is None
        if met:
            return None
        return f"{self}: the agent has {f'{self.name} {found}' if found is not None else f'no {self.name}'}"

    def _value_in(self, offer: Offer) -> str | None:
        match self.name:
            case "hostname":
                return offer.hostname
            case "agent":
                return offer.agent_id
            case "isolation":
                return offer.isolation
        attribute = offer.attributes.get(self.name)
        return None if attribute is None else attribute.value


KEEPS_LIMITS = Constraint("isolation", Operator.DIFFERS, "process")
"""What a task with limits needs of its agent."""


def first_unmet(constraints: Iterable[Constraint], offer: Offer) -> str | None:
    """Why a task with these constraints cannot use the offer, or None."""
    return next((problem for one in constraints if (problem := one.matches(offer)) is not None), None)


def parse_constraint(text: str) -> Constraint:
    """The constraint written in `text`. Raises InvalidInput, naming the value and the fix."""
    if len(text) > MAX_TEXT_CHARS:
        raise resource_text.invalid("constraint", text, f"is longer than {MAX_TEXT_CHARS} characters", "shorten it")
    if existence := _EXISTENCE.fullmatch(text):
        operator = Operator.EXISTS_NOT if existence[1] else Operator.EXISTS
        return Constraint(_checked_name(text, existence[2]), operator)
    comparison = _COMPARISON.fullmatch(text)
    if not comparison:
        raise resource_text.invalid("constraint", text, "is not a constraint", _FIX)
    name, operator, value = _checked_name(text, comparison[1]), Operator(comparison[2]), comparison[3]
    if not value:
        raise resource_text.invalid("constraint", text, "has no value", _FIX)
    if operator in (Operator.MATCHES, Operator.MATCHES_NOT):
        return Constraint(name, operator, _checked_pattern(text, value))
    if name in ("hostname", "agent", "isolation"):
        return Constraint(name, operator, value)
    try:
        return Constraint(name, operator, _canonical(name, value))
    except InvalidInput as problem:
        raise resource_text.invalid("constraint", text, "has a value that no attribute has", str(problem)) from None


def _checked_name(text: str, name: str) -> str:
    if problem := resource_text.name_error(name):
        raise resource_text.invalid("constraint", text, f"names an attribute that {problem}", _FIX)
    return name


def _checked_pattern(text: str, pattern: str) -> str:
    if len(pattern) > MAX_PATTERN_CHARS:
        problem = f"has a regular expression longer than {MAX_PATTERN_CHARS} characters"
        raise resource_text.invalid("constraint", text, problem, "shorten it")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as problem:
        fix = f"correct it: {problem}"
        raise resource_text.invalid("constraint", text, "has a bad regular expression", fix) from problem
    return pattern


def _canonical(name: str, value: str) -> str:
    """`value` as an attribute of that value would print it."""
    read = resource_text.parse_attribute(name, value)
    return Attribute(name, read.text, read.scalar, read.ranges).value
