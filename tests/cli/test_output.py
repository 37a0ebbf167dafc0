"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
import time

import pytest

from mesos_actor.actors.cli.output import Column, age, fail, print_object, print_rows

COLUMNS = (Column("NAME", "name"), Column("COUNT", "count", right=True), Column("TAGS", "tags"))
ROWS = [{"name": "a", "count": 5, "tags": ["x", "y"]}, {"name": "longer", "count": 12, "tags": []}]


def test_a_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, False, "none")

    assert capsys.readouterr().out == "NAME    COUNT  TAGS\na           5  x,y\nlonger     12  -\n"


def test_json_is_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, COLUMNS, True, "none")

    assert json.loads(capsys.readouterr().out) == ROWS


def test_no_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([], COLUMNS, False, "nothing here")
    assert tuple(capsys.readouterr()) == ("", "nothing here\n")
    print_rows([], COLUMNS, True, "nothing here")
    assert tuple(capsys.readouterr()) == ("[]\n", "")


def test_what_a_peer_sent_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows([{"name": "a\x1b[2Jb\nc", "count": 1, "tags": ()}], COLUMNS, False, "none")

    assert "a?[2Jb?c" in capsys.readouterr().out


def test_an_object_a_field_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_object({"one": 1, "another_name": True}, False)

    assert capsys.readouterr().out == "one           1\nanother name  yes\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59, "59s"), (61, "1m1s"), (3_600, "1h0m"), (90_061, "1d1h"), (-5, "0s")],
)
def test_an_age_in_its_two_largest_units(monkeypatch: pytest.MonkeyPatch, seconds: int, text: str) -> None:
    monkeypatch.setattr(time, "time", lambda: 2_000_000_000.5)

    assert age((2_000_000_000 - seconds) * 1_000_000) == text
    assert age(0) == "-"


def test_a_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        fail("several\nlines of  text", 3)

    assert stopped.value.code == 3
    assert capsys.readouterr().err == "mesos-actor: several lines of text\n"
