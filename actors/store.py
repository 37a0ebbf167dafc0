"""What actors asked to have kept, on this process's own disk.

One SQLite file in WAL mode with `synchronous=FULL`: what was committed survives a crash of the process and of the
machine. One writer, held by a lock file beside it. All Persists of a loop turn are one transaction: one sync (the
measured difference is 2 times the throughput of a whole agent).

A disk that refuses is a StorageError, and the process that gets one stops (see runtime.py).
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from mesos_actor.actors.errors import LocalError, StorageError
from mesos_actor.actors.messages.base import Record
from mesos_actor.transport.codec import decode_record, encode_record

Write = tuple[str, str, Record | None]
"""`(actor, key, record)`: keep the record under the key of this actor; None forgets the key."""

SCHEMA_VERSION = 1
APPLICATION_ID = 0x6D616374
"""In the file's header, so that no other program's database is taken for ours ("mact")."""
MAX_KEY_CHARS = 1_024
MAX_RECORD_BYTES = 64 * 1024 * 1024
"""A larger record is a mistake of the actor: SQLite would take it, no reader would be happy with it."""
WAL_PAGES = 1_000
"""Pages of 4 KiB in the log before they are moved to the database (SQLite's default)."""


class Store(Protocol):
    """What a runtime needs of a store. Use from one thread only."""

    def load(self, actor: str) -> dict[str, Record]:
        """Everything kept for `actor`, by key in key order, applied but uncommitted writes included. Raises
        StorageError."""
        ...

    def apply(self, writes: Iterable[Write]) -> None:
        """Take these writes into the open transaction: all of them, or none and LocalError when a record or key cannot
        be kept. Touches no disk."""

    def commit(self) -> None:
        """Make all that was applied durable. Raises StorageError; then nothing that was applied since the last commit
        may be relied on, and the store takes nothing more."""

    def close(self) -> None:
        """Give back the file and the lock. What was applied and not committed is lost."""


class MemoryStore:
    """Keeps encoded records in memory: for tests, and for processes that keep nothing. `rows` outlives the object when
    given, as a disk outlives a process."""

    def __init__(self, rows: dict[tuple[str, str], bytes] | None = None) -> None:
        #: (actor, key) -> the encoded record, as committed
        self.rows: dict[tuple[str, str], bytes] = {} if rows is None else rows
        #: (actor, key) -> the encoded record or None for forgotten, since the last commit
        self._open: dict[tuple[str, str], bytes | None] = {}
        self.commits = 0

    def load(self, actor: str) -> dict[str, Record]:
        kept = {key: data for (owner, key), data in self.rows.items() if owner == actor}
        return _overlaid(actor, kept, self._open)

    def apply(self, writes: Iterable[Write]) -> None:
        self._open.update(encode_writes(writes))

    def commit(self) -> None:
        for where, data in self._open.items():
            if data is None:
                self.rows.pop(where, None)
            else:
                self.rows[where] = data
        self._open.clear()
        self.commits += 1

    def close(self) -> None:
        self._open.clear()


class SqliteStore:
    """The store of a real process, at `path`; its directory is made when missing.

    Raises StorageError when another process holds it, when it is damaged or of a newer version, or when it cannot be
    opened; the text says what to do.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: (actor, key) -> the encoded record or None for forgotten, since the last commit
        self._open: dict[tuple[str, str], bytes | None] = {}
        self._failed = ""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = lock_directory(path.with_name(path.name + ".lock"))
        except OSError as error:
            raise StorageError(
                f"{path}: cannot be opened: {error.strerror or error}; check that the directory may be written"
            ) from error
        try:
            self._database = _opened(path)
        except BaseException:
            os.close(self._lock)
            raise

    def load(self, actor: str) -> dict[str, Record]:
        query = "SELECT key, record FROM kept WHERE actor = ? ORDER BY key"
        try:
            rows = self._database.execute(query, (actor,)).fetchall()
        except sqlite3.Error as error:
            raise self._refused(error) from error
        return _overlaid(actor, dict(rows), self._open)

    def apply(self, writes: Iterable[Write]) -> None:
        self._open.update(encode_writes(writes))

    def commit(self) -> None:
        if self._failed:
            raise StorageError(self._failed)
        if not self._open:
            return
        kept = [(actor, key, data) for (actor, key), data in self._open.items() if data is not None]
        gone = [where for where, data in self._open.items() if data is None]
        database = self._database
        try:
            database.execute("BEGIN IMMEDIATE")
            if kept:
                database.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?)", kept)
            if gone:
                database.executemany("DELETE FROM kept WHERE actor = ? AND key = ?", gone)
            database.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._refused(error) from error
        self._open.clear()

    def close(self) -> None:
        """Also moves the log into the database, so that one file is left."""
        self._open.clear()
        try:
            self._database.close()
        finally:
            os.close(self._lock)

    def _refused(self, error: sqlite3.Error) -> StorageError:
        """From here on nothing is taken: what the disk holds and what the actors believe may differ."""
        self._failed = _explained(self.path, error)
        return StorageError(self._failed)


def lock_directory(path: Path) -> int:
    """The descriptor that holds the directory of the lock file `path`, until it is closed. It is not inherited by
    programs started from here; a plain fork would share it. Raises StorageError naming the process that holds it,
    OSError when it cannot be made."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise StorageError(
            f"{path.parent}: in use by process {holder}: two processes on one work directory would destroy each "
            f"other's state; stop that one, or give this one a directory of its own"
        ) from None
    except OSError:
        os.close(descriptor)
        raise
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return descriptor


def _opened(path: Path) -> sqlite3.Connection:
    """The database, checked and with its table. Raises StorageError."""
    try:
        # Environments of tasks are in it: nobody else may read. SQLite gives its side files the same mode.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        database = sqlite3.connect(path, isolation_level=None)
    except OSError as error:
        raise StorageError(f"{path} cannot be opened: {error.strerror}; make it writable for this user") from error
    except sqlite3.Error as error:
        raise StorageError(_explained(path, error)) from error
    try:
        version = _checked_version(database, path)
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        if version == 0:
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "CREATE TABLE kept (actor TEXT, key TEXT, record BLOB NOT NULL, PRIMARY KEY (actor, key)) WITHOUT ROWID"
            )
            database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            database.execute("COMMIT")
    except sqlite3.Error as error:
        database.close()
        raise StorageError(_explained(path, error)) from error
    except BaseException:
        database.close()
        raise
    return database


def _checked_version(database: sqlite3.Connection, path: Path) -> int:
    """The schema's version, 0 for a new file. Raises StorageError for what is not ours, newer, or damaged."""
    version: int = database.execute("PRAGMA user_version").fetchone()[0]
    ours: int = database.execute("PRAGMA application_id").fetchone()[0]
    tables: int = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if tables and ours != APPLICATION_ID:
        raise StorageError(f"{path}: is a database of another program; give this process a directory of its own")
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"{path}: was written by a newer release (schema {version}, this one knows {SCHEMA_VERSION}); "
            f"run that release, or move the file away to begin anew"
        )
    found: str = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StorageError(f"{path}: is damaged ({' '.join(found.split())}); {_REPAIR}")
    return version


_REPAIR = "restore it from a backup, or move it and its -wal file away to begin anew without what it held"


def _explained(path: Path, error: sqlite3.Error) -> str:
    """What went wrong and what to do about it."""
    name = getattr(error, "sqlite_errorname", "") or ""
    if name.startswith("SQLITE_FULL"):
        return f"{path}: the disk is full; free some space, then start this process again"
    if name.startswith("SQLITE_IOERR"):
        return f"{path}: the disk reports an error ({name}); check its health and free space, then start again"
    if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return f"{path}: is damaged ({error}); {_REPAIR}"
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_PERM")):
        return f"{path}: cannot be written ({error}); check the owner and mode of the file and its directory"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return f"{path}: another program has the file open and locked; close it, then start this process again"
    return f"{path}: {error} ({name or type(error).__name__})"


def _overlaid(actor: str, kept: dict[str, bytes], still_open: dict[tuple[str, str], bytes | None]) -> dict[str, Record]:
    for (owner, key), data in still_open.items():
        if owner != actor:
            continue
        if data is None:
            kept.pop(key, None)
        else:
            kept[key] = data
    return decode_rows(kept)


def decode_rows(kept: dict[str, bytes]) -> dict[str, Record]:
    """Records in key order. Raises StorageError."""
    return {key: decode_record(kept[key]) for key in sorted(kept)}


def encode_writes(writes: Iterable[Write]) -> dict[tuple[str, str], bytes | None]:
    """The writes by (actor, key), encoded, the last of a key winning; None where it is forgotten. Raises LocalError."""
    found: dict[tuple[str, str], bytes | None] = {}
    for actor, key, record in writes:
        if not key or len(key) > MAX_KEY_CHARS:
            raise LocalError(f"key {key[:80]!r} of actor {actor!r}: must have 1 to {MAX_KEY_CHARS} characters")
        try:
            data = None if record is None else encode_record(record)
        except LocalError as error:
            raise LocalError(f"record {key!r} of actor {actor!r}: {error}") from error
        if data is not None and len(data) > MAX_RECORD_BYTES:
            raise LocalError(
                f"record {key!r} of actor {actor!r}: has {len(data)} bytes; at most {MAX_RECORD_BYTES} can be kept"
            )
        found[actor, key] = data
    return found
