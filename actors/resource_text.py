"""How amounts are written: text and JSON, both ways, by Mesos' rules (docs/attributes-resources.md).

Text: `cpus:24;mem:24GiB;disk(ads):409600;ports:[21000-24000,30000-34000];bugs(role):{a,b,c}`. JSON: Mesos' `Resource`
and `Attribute` objects. Scalars are whole thousandths here; a number with more than three decimals is refused rather
than rounded. `mem` and `disk` count in MB, which are mebibytes, as in Mesos; they also take a unit: KB, MB, GB, TB, PB
or KiB, MiB, GiB, TiB, PiB, and KB means KiB and so on, again as in Mesos.

Everything raises InvalidInput, whose text names the field, the value and the fix.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import NamedTuple

from mesos_actor.actors import resource_ranges
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.resource_ranges import Ranges

Amount = int | str | Decimal | float
"""A number as people write it. A float counts as the shortest decimal that prints it: 0.1 is one tenth."""

MAX_TEXT_CHARS = 1_000_000
"""Longer texts of resources or attributes are refused."""
_SHOWN_CHARS = 80

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")
_SIZED = re.compile(r"(.*?)\s*([KMGTP])i?B", re.IGNORECASE | re.DOTALL | re.ASCII)
_UNIT_SHIFT = {"K": -10, "M": 0, "G": 10, "T": 20, "P": 30}
_RANGE = re.compile(r"\s*([0-9]{1,20})\s*(?:-\s*([0-9]{1,20})\s*)?")
_MAX_NUMBER_CHARS = 40
_PLAIN_INT = 10**18
SIZED_NAMES = frozenset({"mem", "disk"})
"""Scalars that take a unit of size."""


class Parsed(NamedTuple):
    """One written resource or attribute. `text` is for attributes only; `scalar` is None when it is not one."""

    name: str
    role: str | None
    scalar: int | None = None
    ranges: Ranges = ()
    items: tuple[str, ...] = ()
    text: str = ""


def shown(value: object) -> str:
    """`value` quoted and cut for an error text."""
    if isinstance(value, int) and value.bit_length() > 4 * _SHOWN_CHARS:
        return f"a number of {value.bit_length()} bits"
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def invalid(field: str, value: object, problem: str, fix: str) -> InvalidInput:
    return InvalidInput(f"{field}: {shown(value)} {problem}; {fix}")


# -- scalars


def milli_of(field: str, value: Amount, *, sized: bool = False) -> int:
    """`value` in thousandths. With `sized`, text may carry a unit of size and the result counts MB."""
    if type(value) is int and -_PLAIN_INT < value < _PLAIN_INT:
        return value * 1_000
    shift = 0
    if isinstance(value, str):
        number = value.strip()
        if sized and (match := _SIZED.fullmatch(number)):
            number, shift = match[1], _UNIT_SHIFT[match[2].upper()]
        if len(number) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(number):
            unit = ", with a unit if you like: 512MB, 1.5GiB" if sized else ""
            raise invalid(field, value, "is not a number", f"write digits like 4 or 0.5{unit}")
        exact = Decimal(number)
    elif isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise invalid(field, value, "is not a number", "give an int, a Decimal, or text like '0.5'")
    else:
        exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
        if not exact.is_finite() or exact.adjusted() > _MAX_NUMBER_CHARS:
            raise invalid(field, value, "is not a number in range", "give a finite amount")
    if exact.adjusted() < -_MAX_NUMBER_CHARS or len(exact.as_tuple().digits) > _MAX_NUMBER_CHARS:
        raise _too_fine(field, value)
    top, bottom = exact.as_integer_ratio()
    top *= 1_000
    if shift >= 0:
        top <<= shift
    else:
        bottom <<= -shift
    whole, rest = divmod(top, bottom)
    if rest:
        raise _too_fine(field, value)
    return whole


def _too_fine(field: str, value: object) -> InvalidInput:
    return invalid(field, value, "has more than three decimals", "round it to thousandths, like 0.125")


def scalar_text(milli: int) -> str:
    """The shortest decimal: 1500 is `1.5`."""
    whole, rest = divmod(abs(milli), 1_000)
    sign = "-" if milli < 0 else ""
    return f"{sign}{whole}.{rest:03d}".rstrip("0") if rest else f"{sign}{whole}"


# -- ranges and sets


def ranges_text(ranges: Ranges) -> str:
    return "[" + ",".join(f"{begin}-{end}" for begin, end in ranges) + "]"


def items_text(items: Sequence[str]) -> str:
    return "{" + ",".join(items) + "}"


def parse_ranges(field: str, text: str) -> Ranges:
    """`[1-5,8,10-20]`; overlapping and adjacent ranges are joined, as Mesos does."""
    if not text.endswith("]"):
        raise invalid(field, text, "does not end with ]", "write ranges like [31000-32000,33000-34000]")
    found: list[tuple[int, int]] = []
    for part in text[1:-1].split(","):
        match = _RANGE.fullmatch(part)
        if not match:
            raise invalid(field, part, "is not a range", "write it as BEGIN-END, like [31000-32000]")
        found.append((int(match[1]), int(match[2] if match[2] is not None else match[1])))
    return checked_ranges(field, found)


def checked_ranges(field: str, found: Sequence[tuple[int, int]]) -> Ranges:
    for begin, end in found:
        if begin > end:
            raise invalid(field, f"{begin}-{end}", "ends before it begins", f"write {end}-{begin}")
        if begin < 0 or end > resource_ranges.MAX_RANGE_END:
            raise invalid(
                field, f"{begin}-{end}", "is out of range", f"stay between 0 and {resource_ranges.MAX_RANGE_END}"
            )
    return resource_ranges.canonical(found)


def parse_items(field: str, text: str) -> tuple[str, ...]:
    """`{a,b,c}`, sorted."""
    if not text.endswith("}"):
        raise invalid(field, text, "does not end with }", "write a set like {a,b,c}")
    return checked_items(field, [item.strip() for item in text[1:-1].split(",")])


def checked_items(field: str, items: Sequence[str]) -> tuple[str, ...]:
    for item in items:
        if problem := item_error(item):
            raise invalid(field, item, problem, "write a set like {a,b,c}")
    if len(set(items)) != len(items):
        twice = next(item for item in items if items.count(item) > 1)
        raise invalid(field, twice, "is in the set twice", "name each item once")
    return tuple(sorted(items))


# -- names


_NAME_BREAKERS = frozenset(";:()[]{},=")
_ITEM_BREAKERS = frozenset(";,{}")
_ROLE_BREAKERS = frozenset(";:()")
MAX_NAME_BYTES = 255


def name_error(name: str) -> str | None:
    """Why `name` cannot name a resource or attribute, or None. Such names would not survive the text form."""
    return _word_error(name, _NAME_BREAKERS)


def item_error(item: str) -> str | None:
    """Why `item` cannot be in a set, or None."""
    return _word_error(item, _ITEM_BREAKERS)


def role_text_error(role: str) -> str | None:
    """Why a role that is a good role cannot have resources reserved, or None: the text form could not say it."""
    return _word_error(role, _ROLE_BREAKERS)


def _word_error(word: str, breakers: frozenset[str]) -> str | None:
    if not word:
        return "is empty"
    if len(word) > MAX_NAME_BYTES or len(word.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES:
        return f"is longer than {MAX_NAME_BYTES} bytes"
    if word != word.strip():
        return "begins or ends with a space"
    if not word.isprintable():
        return "contains a control character"
    if not breakers.isdisjoint(word):
        return f"contains one of {' '.join(sorted(breakers))}"
    return None


# -- whole texts


def _pairs(what: str, text: str) -> Iterator[tuple[str, str]]:
    if len(text) > MAX_TEXT_CHARS:
        raise invalid(what, text, f"is longer than {MAX_TEXT_CHARS} characters", "shorten it")
    for part in text.split(";"):
        if not part.strip():
            continue
        head, colon, value = part.partition(":")
        if not colon or not value.strip():
            raise invalid(what, part, "has no value", "write NAME:VALUE pairs divided by ;")
        yield head.strip(), value.strip()


def parse_resources_text(text: str) -> Iterator[Parsed]:
    """Each `name(role):value`; the role is None when none is written."""
    for head, value in _pairs("resources", text):
        name, opened, rest = head.partition("(")
        role: str | None = None
        if opened:
            if not rest.endswith(")"):
                raise invalid("resources", head, "has unmatched parentheses", "write NAME(ROLE):VALUE")
            role = rest[:-1].strip()
        name = name.strip()
        if problem := name_error(name):
            raise invalid("resources", name, problem, "write NAME:VALUE or NAME(ROLE):VALUE")
        yield parse_amount(name, role, value)


def declared_names(text: str) -> frozenset[str]:
    """Every name in the text or JSON form of resources, also of what is zero and so in no bundle."""
    if text.lstrip().startswith("["):
        return frozenset(parse_json_entry(entry, "resources").name for entry in json_of(text, "resources"))
    return frozenset(parsed.name for parsed in parse_resources_text(text))


def parse_amount(name: str, role: str | None, value: Amount) -> Parsed:
    """One amount of `name`: a number, `[ranges]` or `{set}`."""
    field = f"resources: {name}"
    if isinstance(value, str):
        value = value.strip()
        if value.startswith("["):
            return Parsed(name, role, ranges=parse_ranges(field, value))
        if value.startswith("{"):
            return Parsed(name, role, items=parse_items(field, value))
    milli = milli_of(field, value, sized=name in SIZED_NAMES)
    if milli < 0:
        raise invalid(field, value, "is negative", "give zero or more")
    return Parsed(name, role, scalar=milli)


def parse_attributes_text(text: str) -> Iterator[Parsed]:
    for name, value in _pairs("attributes", text):
        if problem := name_error(name):
            raise invalid("attributes", name, problem, "write NAME:VALUE")
        yield parse_attribute(name, value)


def parse_attribute(name: str, value: str) -> Parsed:
    """Ranges, else a number of at most three decimals, else text; Mesos guesses in the same order."""
    field = f"attributes: {name}"
    if value.startswith("["):
        return Parsed(name, None, ranges=parse_ranges(field, value))
    if value.startswith("{"):
        raise invalid(field, value, "is a set, which an attribute cannot be", "write text, a number or [ranges]")
    if problem := attribute_text_error(value):
        raise invalid(field, value, problem, "write plain text")
    if number := number_or_none(value):
        return number._replace(name=name)
    return Parsed(name, None, text=value)


def number_or_none(value: str) -> Parsed | None:
    if len(value) > _MAX_NUMBER_CHARS or not _NUMBER.fullmatch(value):
        return None
    milli = Decimal(value) * 1_000
    return Parsed("", None, scalar=int(milli)) if milli == milli.to_integral_value() else None


def attribute_text_error(text: str) -> str | None:
    return _word_error(text, frozenset(";"))


# -- JSON


def json_of(text: str, what: str) -> list[object]:
    """The list written in `text`, with decimals exact."""
    try:
        value = json.loads(text, parse_float=Decimal) if len(text) <= MAX_TEXT_CHARS else None
    except (ValueError, RecursionError) as problem:
        raise InvalidInput(f"{what}: not JSON ({problem}); write [{{...}}, ...]") from problem
    if not isinstance(value, list):
        raise invalid(what, text, "is not a JSON list within the limits", "write [{...}, ...]")
    return value


_RESOURCE_KEYS = frozenset({"name", "type", "scalar", "ranges", "set", "role", "reservations"})
_ATTRIBUTE_KEYS = frozenset({"name", "type", "scalar", "ranges", "text"})


def parse_json_entry(value: object, what: str) -> Parsed:
    """One Mesos `Resource` (`what` is `resources`) or `Attribute` (`attributes`)."""
    keys = _RESOURCE_KEYS if what == "resources" else _ATTRIBUTE_KEYS
    if not isinstance(value, Mapping):
        raise invalid(what, value, "is not an object", 'write {"name": ..., "type": ..., ...}')
    name = value.get("name")
    if not isinstance(name, str):
        raise invalid(f"{what}: name", name, "is not a string", "give its name")
    if problem := name_error(name):
        raise invalid(f"{what}: name", name, problem, "give a plain name")
    field = f"{what}: {name}"
    for key in value:
        if key not in keys:
            raise invalid(field, key, "is not a known field", f"use only {', '.join(sorted(keys))}")
    kinds = [kind for kind in ("scalar", "ranges", "set", "text") if kind in value]
    kind = kinds[0] if len(kinds) == 1 else ""
    if value.get("type") != kind.upper() or not kind:
        raise invalid(f"{field}: type", value.get("type"), "does not match its value", _TYPE_FIX)
    role = _role_of(field, value)
    body = value[kind]
    if not isinstance(body, Mapping) or len(body) != 1:
        raise invalid(f"{field}: {kind}", body, "is not such a value", _TYPE_FIX)
    if kind == "scalar":
        return Parsed(name, role, scalar=_json_scalar(field, name, body, negative=what == "attributes"))
    if kind == "ranges":
        return Parsed(name, role, ranges=_json_ranges(field, body.get("range")))
    if kind == "set":
        return Parsed(name, role, items=checked_items(field, _strings(field, body.get("item"))))
    text = body.get("value")
    if not isinstance(text, str):
        raise invalid(field, text, "is not a string", "write plain text")
    if problem := attribute_text_error(text):
        raise invalid(field, text, problem, "write plain text")
    return Parsed(name, role, text=text)


_TYPE_FIX = (
    'write "type": "SCALAR", "scalar": {"value": 4}, or "RANGES", "ranges": {"range": [{"begin": 1, "end": 2}]}, '
    'or "SET", "set": {"item": ["a"]}, or for attributes "TEXT", "text": {"value": "a"}'
)


def _role_of(field: str, value: Mapping[object, object]) -> str | None:
    role, reservations = value.get("role"), value.get("reservations")
    if reservations:
        # Mesos' newer form; a stack of one static reservation says the same as `role`.
        only = reservations[0] if isinstance(reservations, list) and len(reservations) == 1 else None
        if not isinstance(only, Mapping) or only.get("type", "STATIC") != "STATIC" or set(only) - {"type", "role"}:
            raise invalid(f"{field}: reservations", reservations, "is not one static reservation", 'use "role"')
        if role is not None and role != only.get("role"):
            raise invalid(f"{field}: role", role, "contradicts reservations", 'use "role" alone')
        role = only.get("role")
    if role is not None and not isinstance(role, str):
        raise invalid(f"{field}: role", role, "is not a string", 'give a role, or "*"')
    return role


def _json_scalar(field: str, name: str, body: Mapping[object, object], *, negative: bool) -> int:
    value = body.get("value")
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        raise invalid(field, value, "is not a number", 'write "scalar": {"value": 4}')
    milli = milli_of(field, value)
    if milli < 0 and not negative:
        raise invalid(field, value, "is negative", "give zero or more")
    return milli


def _json_ranges(field: str, value: object) -> Ranges:
    found: list[tuple[int, int]] = []
    for entry in value if isinstance(value, list) else [None]:
        begin, end = (entry.get("begin"), entry.get("end")) if isinstance(entry, Mapping) else (None, None)
        if type(begin) is not int or type(end) is not int:
            raise invalid(field, entry, "is not a range", 'write {"begin": 31000, "end": 32000}')
        found.append((begin, end))
    return checked_ranges(field, found)


def _strings(field: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise invalid(field, value, "is not a list of strings", 'write "set": {"item": ["a", "b"]}')
    return [str(item) for item in value]


def scalar_json(milli: int) -> int | float:
    """A number that JSON prints as the exact decimal: up to 15 digits a float's shortest form is that."""
    return milli // 1_000 if milli % 1_000 == 0 else milli / 1_000


def ranges_json(ranges: Ranges) -> dict[str, list[dict[str, int]]]:
    return {"range": [{"begin": begin, "end": end} for begin, end in ranges]}
