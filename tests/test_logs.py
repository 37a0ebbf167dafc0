"""Logs are lines that people and machines can read, and never a reason to fail."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.logs import BURST, MAX_FIELD_CHARS, MAX_WATCHED, Log


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.25

    def __call__(self) -> float:
        return self.now_s


def written(as_json: bool = False, level: str = "info") -> tuple[Log, io.StringIO, Clock]:
    stream, clock = io.StringIO(), Clock()
    return Log(stream, json=as_json, level=level, wall_s=clock), stream, clock


def test_a_json_line_holds_every_field() -> None:
    log, stream, _ = written(as_json=True)

    log.event("info", "task_launched", {"task": "t 1", "offer": "m-O1"}, actor="master", cause="accept")

    assert json.loads(stream.getvalue()) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "level": "info",
        "event": "task_launched",
        "actor": "master",
        "cause": "accept",
        "task": "t 1",
        "offer": "m-O1",
    }


def test_a_text_line_quotes_what_would_mislead() -> None:
    log, stream, _ = written()

    log.event("warning", "task_lost", {"task": "t 1", "agent": "a-S1"}, actor="master")

    assert stream.getvalue().endswith('.250 warning master        task_lost task="t 1" agent=a-S1\n')


def test_an_error_is_told_with_its_traceback() -> None:
    log, stream, _ = written()

    try:
        raise ValueError("no such offer")
    except ValueError as error:
        log.event("error", "actor_failed", {"error": error}, actor="master")

    assert "Traceback" in stream.getvalue()
    assert "no such offer" in stream.getvalue()


def test_levels_below_are_dropped() -> None:
    log, stream, _ = written(level="warning")

    log.event("info", "quiet")
    log.event("error", "loud")

    assert "quiet" not in stream.getvalue()
    assert "loud" in stream.getvalue()
    with pytest.raises(ConfigError, match="log level 'chatty'"):
        Log(level="chatty")


def test_repeated_events_are_counted_instead() -> None:
    log, stream, clock = written(as_json=True)

    for _ in range(BURST + 7):
        log.event("warning", "message_dropped", {"peer": "x"}, actor="master")
    clock.now_s += 11
    log.event("info", "other")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]

    assert [line["event"] for line in lines] == ["message_dropped"] * BURST + ["repeated", "other"]
    assert lines[-2] | {"time": ""} == {
        "time": "",
        "level": "warning",
        "event": "repeated",
        "actor": "master",
        "field_event": "message_dropped",
        "count": 7,
        "window_s": 10,
    }


def test_close_tells_the_counts_held_back() -> None:
    log, stream, _ = written()

    for _ in range(BURST + 2):
        log.event("info", "again")
    log.close()

    assert "repeated event=again count=2" in stream.getvalue()


def test_what_is_remembered_is_bounded() -> None:
    log, _, _ = written()

    for number in range(MAX_WATCHED + 50):
        log.event("info", "different", {"number": number})

    assert len(log._seen) == MAX_WATCHED


def test_long_values_are_cut() -> None:
    log, stream, _ = written()

    log.event("info", "big", {"data": "x" * (MAX_FIELD_CHARS + 1)})

    assert stream.getvalue().endswith('x... (cut)"\n')


def test_a_closed_stream_is_counted_not_raised() -> None:
    log, stream, _ = written()
    stream.close()

    log.event("info", "nobody_reads_this")

    assert log.lost == 1


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("no")


@given(
    st.booleans(), st.dictionaries(st.text(max_size=5), st.one_of(st.text(), st.binary(), st.integers(), st.floats()))
)
def test_any_field_makes_one_line(as_json: bool, fields: dict[str, Any]) -> None:
    log, stream, _ = written(as_json)

    log.event("info", "event", fields, actor="a")
    log.event("info", "event", {"x": Unprintable()})

    assert log.lost == 1
    if as_json:
        assert json.loads(stream.getvalue().splitlines()[0])["event"] == "event"
