"""Who led, from the masters' logs."""

from __future__ import annotations

import json
from pathlib import Path

from mesos_actor.actors.chaos.leads import Lead, Leads, doubles


def line(second: int, term: int) -> str:
    return json.dumps({"event": "registry_leads", "time": f"2026-01-01T00:00:{second:02}+00:00", "term": term}) + "\n"


def test_leaders_are_read_as_the_logs_grow(tmp_path: Path) -> None:
    one, two = tmp_path / "one.log", tmp_path / "two.log"
    leads = Leads([("one", one), ("two", two)])
    assert leads.leader() == ""

    one.write_text(line(1, 1) + '{"event": "other"}\n')
    two.write_text(line(5, 2)[:-10])  # not whole yet
    assert leads.leader() == "one"

    two.write_text(line(5, 2))
    assert leads.leader() == "two"
    assert [lead.term for lead in leads.all] == [1, 2]
    at_s = leads.all[0].at_s
    assert (leads.gap_s(at_s), leads.gap_s(at_s, 3), leads.gap_s(at_s + 4)) == (4.0, None, None)


def test_two_leaders_of_one_term_are_found_and_one_that_says_so_twice_is_not() -> None:
    assert doubles([Lead(1, 1, "one"), Lead(2, 1, "one"), Lead(3, 2, "two")]) == []
    assert doubles([Lead(1, 1, "one"), Lead(2, 2, "two"), Lead(3, 1, "two")]) == ["term 1: one, two"]
