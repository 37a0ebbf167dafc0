"""What was committed is there; what cannot be kept says so, and what to do."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mesos_actor.actors.errors import LocalError, StorageError
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.store import MAX_KEY_CHARS, MemoryStore, SqliteStore, Store

Open = Callable[[], Store]


@pytest.fixture(params=["memory", "sqlite"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Each call closes the store opened before and opens its disk again."""
    opened: list[Store] = []
    rows: dict[tuple[str, str], bytes] = {}

    def reopen() -> Store:
        if opened:
            opened.pop().close()
        opened.append(MemoryStore(rows) if request.param == "memory" else SqliteStore(tmp_path / "state.db"))
        return opened[0]

    yield reopen
    opened.pop().close()


def user(text: str) -> UserRecord:
    return UserRecord(text.encode())


def test_committed_records_come_back_by_key_and_actor(reopen: Open) -> None:
    store = reopen()
    store.apply([("framework", "user/b", user("2")), ("framework", "user/a", user("1")), ("agent", "x", user("3"))])
    store.commit()
    found = reopen()

    assert list(found.load("framework").items()) == [("user/a", user("1")), ("user/b", user("2"))]
    assert found.load("agent") == {"x": user("3")}
    assert found.load("master") == {}


def test_uncommitted_records_do_not_survive(reopen: Open) -> None:
    store = reopen()
    store.apply([("a", "k", user("old"))])
    store.commit()
    store.apply([("a", "k", None), ("a", "l", user("new"))])

    assert store.load("a") == {"l": user("new")}
    assert reopen().load("a") == {"k": user("old")}


def test_none_forgets_the_key(reopen: Open) -> None:
    store = reopen()
    store.apply([("a", "k", user("1")), ("a", "l", user("2"))])
    store.commit()
    store.apply([("a", "k", None), ("a", "never", None)])
    store.commit()

    assert reopen().load("a") == {"l": user("2")}


def test_the_last_write_of_a_turn_wins(reopen: Open) -> None:
    store = reopen()
    store.apply([("a", "k", user("1")), ("a", "k", None), ("a", "l", None)])
    store.apply([("a", "l", user("2"))])
    store.commit()

    assert reopen().load("a") == {"l": user("2")}


def test_a_bad_write_takes_none_of_its_batch(reopen: Open) -> None:
    store = reopen()

    with pytest.raises(LocalError, match="1 to 1024 characters"):
        store.apply([("a", "good", user("1")), ("a", "x" * (MAX_KEY_CHARS + 1), user("2"))])
    with pytest.raises(LocalError, match="'odd' of actor 'a'"):
        store.apply([("a", "good", user("1")), ("a", "odd", UserRecord(object()))])  # type: ignore[arg-type]

    assert store.load("a") == {}


Step = tuple[str, str, bytes | None]


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(
            st.tuples(st.sampled_from("ab"), st.sampled_from("klm"), st.none() | st.binary(max_size=4)), max_size=5
        ),
        max_size=6,
    )
)
def test_both_stores_hold_the_same_after_any_turns(tmp_path: Path, turns: list[list[Step]]) -> None:
    path = tmp_path / os.urandom(8).hex()
    memory, disk = MemoryStore(), SqliteStore(path)
    for turn in turns:
        for store in (memory, disk):
            store.apply([(a, k, None if data is None else UserRecord(data)) for a, k, data in turn])
            store.commit()
    disk.close()
    disk = SqliteStore(path)

    assert {a: disk.load(a) for a in "ab"} == {a: memory.load(a) for a in "ab"}
    disk.close()


def test_a_second_process_is_refused_by_the_first_ones_pid(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")

    with pytest.raises(StorageError, match=f"in use by process {os.getpid()}: two processes on one work directory"):
        SqliteStore(tmp_path / "state.db")
    store.close()
    SqliteStore(tmp_path / "state.db").close()


@pytest.mark.slow
def test_a_killed_process_leaves_its_commits_and_no_lock(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, sys\n"
        "from mesos_actor.actors.store import SqliteStore\n"
        "from mesos_actor.actors.messages.records import UserRecord\n"
        "store = SqliteStore(pathlib.Path(sys.argv[1]))\n"
        "store.apply([('a', 'k', UserRecord(b'1'))]); store.commit()\n"
        "store.apply([('a', 'l', UserRecord(b'2'))])\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path / "state.db")], check=False)
    store = SqliteStore(tmp_path / "state.db")

    assert ended.returncode == -9
    assert store.load("a") == {"k": UserRecord(b"1")}
    store.close()


def test_a_newer_schema_is_left_alone(tmp_path: Path) -> None:
    SqliteStore(tmp_path / "state.db").close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version = 7")
    database.close()

    with pytest.raises(StorageError, match=r"newer release \(schema 7, this one knows 1\)"):
        SqliteStore(tmp_path / "state.db")


def test_a_record_of_a_newer_release_stops_the_reader(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.apply([("a", "k", user("1"))])
    store.commit()
    store.close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("UPDATE kept SET record = ?", (b"\x81\xa1t\xa9FutureOne",))
    database.close()
    store = SqliteStore(tmp_path / "state.db")

    with pytest.raises(StorageError):
        store.load("a")
    store.close()


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("CREATE TABLE mail (body)")
    database.close()

    with pytest.raises(StorageError, match="database of another program"):
        SqliteStore(tmp_path / "state.db")


@pytest.mark.parametrize("damage", ["not a database", "torn page"])
def test_a_damaged_file_says_what_to_do(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.apply([("a", f"k{n}", UserRecord(bytes(1000))) for n in range(200)])
    store.commit()
    store.close()
    data = bytearray(path.read_bytes())
    if damage == "not a database":
        data[:100] = b"?" * 100
    else:
        data[8192:12288] = b"\xff" * 4096
    path.write_bytes(data)

    with pytest.raises(StorageError, match=r"is damaged .*restore it from a backup, or move it"):
        SqliteStore(path)
    path.unlink()
    SqliteStore(path).close()


def test_a_full_disk_is_told_and_nothing_more_is_taken(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    store.apply([("a", "k", user("1"))])
    store.commit()
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own way to SQLITE_FULL
    store.apply([("a", "big", UserRecord(bytes(100_000)))])

    with pytest.raises(StorageError, match="the disk is full; free some space"):
        store.commit()
    with pytest.raises(StorageError, match="the disk is full"):
        store.commit()
    store.close()
    again = SqliteStore(tmp_path / "state.db")

    assert again.load("a") == {"k": user("1")}
    again.close()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="cannot be opened"):
        SqliteStore(tmp_path / "file" / "state.db")
