"""The launcher's memory survives torn writes and full disks, and never invents a record."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.isolation.container import Container, replay
from mesos_actor.isolation.exit_log import MAGIC, ExitLog, LogDamaged, _frame, parse

NAME = "exits.log"
RECORDS = st.lists(st.lists(st.text(max_size=8) | st.integers(-99, 99) | st.none(), min_size=1, max_size=4), max_size=6)


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    yield descriptor
    os.close(descriptor)


def test_records_come_back(directory: int) -> None:
    log = ExitLog(directory, NAME)
    log.add(["intent", "a", "/x"])
    log.add(["exited", "a", -9, True, ""])
    log.flush()
    log.close()

    again = ExitLog(directory, NAME)
    assert again.recovered == [["intent", "a", "/x"], ["exited", "a", -9, True, ""]]
    assert again.cut_bytes == 0
    again.close()


def test_torn_tail_is_cut_kept_aside_and_written_over(directory: int, tmp_path: Path) -> None:
    log = ExitLog(directory, NAME)
    log.add(["forget", "a"])
    log.flush()
    log.close()
    with (tmp_path / NAME).open("ab") as file:
        file.write(_frame(["forget", "b"])[:-2])

    again = ExitLog(directory, NAME)
    assert again.recovered == [["forget", "a"]]
    assert again.cut_bytes > 0
    assert (tmp_path / "exits.log.damaged").stat().st_size == again.cut_bytes
    again.add(["forget", "c"])
    again.flush()
    again.close()
    assert parse((tmp_path / NAME).read_bytes())[0] == [["forget", "a"], ["forget", "c"]]


def test_foreign_file_is_refused(directory: int, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else altogether, and long enough")

    with pytest.raises(LogDamaged, match="something else"):
        ExitLog(directory, NAME)


def test_link_in_its_place_is_refused(directory: int, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(MAGIC)
    (tmp_path / NAME).symlink_to("elsewhere")

    with pytest.raises(OSError, match="symbolic"):
        ExitLog(directory, NAME)


def test_rewrite_replaces_everything_and_goes_on(directory: int, tmp_path: Path) -> None:
    log = ExitLog(directory, NAME)
    for number in range(50):
        log.add(["forget", str(number)])
    log.flush()
    log.rewrite([["boot", "b"]])
    log.add(["forget", "z"])
    log.flush()
    log.close()

    assert parse((tmp_path / NAME).read_bytes())[0] == [["boot", "b"], ["forget", "z"]]


def test_full_disk_loses_nothing(directory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = ExitLog(directory, NAME)
    really = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: really(fd, data[:5], at) if at else 0)
    log.add(["exited", "a", 0, False, ""])
    with pytest.raises(OSError, match="no space"):
        log.flush()
    assert (tmp_path / NAME).read_bytes() == MAGIC
    monkeypatch.undo()
    log.flush()
    log.close()

    assert parse((tmp_path / NAME).read_bytes())[0] == [["exited", "a", 0, False, ""]]


@given(records=RECORDS, cut=st.integers(0, 400))
def test_any_prefix_gives_a_prefix_of_the_records(records: list[list[Any]], cut: int) -> None:
    data = (MAGIC + b"".join(map(_frame, records)))[:cut]

    found, good = parse(data)

    assert found == records[: len(found)]
    assert good <= len(data)


@given(records=RECORDS, at=st.integers(len(MAGIC), 400), byte=st.integers(0, 255))
def test_any_changed_byte_gives_a_prefix_of_the_records(records: list[list[Any]], at: int, byte: int) -> None:
    data = bytearray(MAGIC + b"".join(map(_frame, records)))
    if at < len(data):
        data[at] = byte

    found, _ = parse(bytes(data))

    assert found == records[: len(found)]


def test_replay_gives_what_was_written_down() -> None:
    running, ended = Container("r", "/r"), Container("e", "/e")
    running.pid, running.times, running.killed, running.deadline = 7, (1, 2), True, 0.0
    ended.ended, ended.code, ended.text = True, -15, "words"

    found, boots = replay([["boot", "x"], *running.records(), *ended.records(), ["kill", "unheard of", 1]])

    assert boots == {"r": "x", "e": "x"}
    assert (found["r"].pid, found["r"].times, found["r"].killed, found["r"].ended) == (7, (1, 2), True, False)
    assert (found["e"].ended, found["e"].code, found["e"].text) == (True, -15, "words")
    assert set(found) == {"r", "e"}
