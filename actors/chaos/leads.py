"""Who led since when, read from the masters' logs as they grow."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Lead(NamedTuple):
    """A line of a master's log: from then on it led."""

    at_s: float
    term: int
    name: str


class Leads:
    """`look` reads what is new; `all` has what was read, in the order of time."""

    def __init__(self, logs: Sequence[tuple[str, Path]]) -> None:
        self.logs = logs
        self.read_bytes = dict.fromkeys((name for name, _ in logs), 0)
        self.all: list[Lead] = []

    def look(self) -> None:
        for name, path in self.logs:
            if not path.exists():
                continue
            with open(path, "rb") as log:
                log.seek(self.read_bytes[name])
                text = log.read()
            whole = text.rpartition(b"\n")[0]
            self.read_bytes[name] += len(whole) + 1 if whole else 0
            self.all += leads_in(name, whole.splitlines())
        self.all.sort()

    def leader(self) -> str:
        """The name of the master that was the last to lead; empty when none was."""
        self.look()
        return max(self.all, key=lambda lead: lead.term).name if self.all else ""

    def gap_s(self, after_s: float, limit_s: float = 1e9) -> float | None:
        """How long after that moment the next one led; None when none did within the limit."""
        following = [lead.at_s - after_s for lead in self.all if after_s < lead.at_s < after_s + limit_s]
        return min(following, default=None)


def leads_in(name: str, lines: Iterable[bytes]) -> list[Lead]:
    """The lines of a master's log (--log-json) that say that it leads."""
    found = []
    for line in lines:
        if b'"registry_leads"' in line:
            row = json.loads(line)
            found.append(Lead(datetime.datetime.fromisoformat(row["time"]).timestamp(), row["term"], name))
    return found


def doubles(leads: Iterable[Lead]) -> list[str]:
    """The terms in which more than one master led."""
    by_term: dict[int, set[str]] = {}
    for lead in leads:  # a master may tell one term twice: its actor has asked again
        by_term.setdefault(lead.term, set()).add(lead.name)
    return [f"term {term}: {', '.join(sorted(names))}" for term, names in by_term.items() if len(names) > 1]
