"""What the command line prints: tables for people, JSON for programs, one line for an error."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NoReturn

Row = Mapping[str, Any]


class Column:
    """One column of a table: its heading, and how a row becomes its text."""

    __slots__ = ("heading", "right", "text")

    def __init__(self, heading: str, text: str | Callable[[Row], Any], right: bool = False) -> None:
        self.heading = heading
        self.text: Callable[[Row], Any] = text if callable(text) else _field(text)
        self.right = right


def _field(name: str) -> Callable[[Row], Any]:
    return lambda row: row.get(name, "")


def print_rows(rows: Sequence[Row], columns: Sequence[Column], as_json: bool, empty: str) -> None:
    """Print rows as a table, or with `as_json` as one JSON array. No rows: `empty` on standard error, and nothing (or
    `[]`) on standard output."""
    if as_json:
        print(json.dumps(list(rows), indent=2, sort_keys=True))
        return
    if not rows:
        print(empty, file=sys.stderr)
        return
    cells = [[c.heading for c in columns], *([_cell(c.text(row)) for c in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    heading = sys.stdout.isatty()
    for number, line in enumerate(cells):
        padded = (
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(line, widths, columns, strict=True)
        )
        text = "  ".join(padded).rstrip()
        print(f"\x1b[1m{text}\x1b[0m" if heading and number == 0 else text)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        value = ",".join(str(item) for item in value)
    # What a peer sent must not move the reader's cursor.
    return "".join(c if c.isprintable() else "?" for c in str(value)) or "-"


def print_object(data: Row, as_json: bool) -> None:
    """Print one object, a field a line, or as JSON."""
    if as_json:
        print(json.dumps(data, indent=2, sort_keys=True))
        return
    width = max((len(name) for name in data), default=0)
    for name, value in data.items():
        print(f"{name.replace('_', ' ').ljust(width)}  {_cell(value)}")


def age(us: int) -> str:
    """How long ago a moment was, in the two largest units: `3d4h`, `12s`."""
    if not us:
        return "-"
    seconds = max(0, int(time.time() - us / 1_000_000))
    for size, unit, smaller, smaller_unit in ((86_400, "d", 3_600, "h"), (3_600, "h", 60, "m"), (60, "m", 1, "s")):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // smaller}{smaller_unit}"
    return f"{seconds}s"


def fail(text: str, status: int = 1) -> NoReturn:
    """End with one line on standard error."""
    print(f"mesos-actor: {' '.join(text.split())}", file=sys.stderr)
    raise SystemExit(status)


def note(text: str) -> None:
    """A line for people that must not mix with what a program reads."""
    print(text, file=sys.stderr, flush=True)


def joined(words: Iterable[str]) -> str:
    return ", ".join(words) or "none"
