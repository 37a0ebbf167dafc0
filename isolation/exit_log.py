"""The launcher's memory: an append-only file that says which containers were started and how they ended.

A record is its length, its crc32 (both little-endian, 4 bytes) and a msgpack array. What is written survives the
launcher's death at once (the page cache does) and the host's after `sync`. A torn tail is cut; damage in
the middle is kept aside under `<name>.damaged` and said. Standard library and msgpack only: the launcher imports this.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable
from typing import Any

import msgpack

from mesos_actor.isolation.launcher_wire import MAX_FRAME_BYTES, pack

MAGIC = b"mesos-actor exits 1\n"
_HEAD_BYTES = 8
COMPACT_ABOVE_BYTES = 8 << 20
"""Rewritten past this size, when at least half of it is about forgotten containers."""


class LogDamaged(Exception):
    """The file is not one of ours."""


def _frame(record: list[Any]) -> bytes:
    body = pack(record)
    return len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body


def parse(data: bytes) -> tuple[list[list[Any]], int]:
    """The whole records of `data`, and how many bytes they and the magic take: the rest is torn or damaged.

    Raises LogDamaged when the magic is not ours.
    """
    if not data.startswith(MAGIC):
        if MAGIC.startswith(data):
            return [], 0
        raise LogDamaged(f"it starts with {data[: len(MAGIC)]!r}, expected {MAGIC!r}")
    records: list[list[Any]] = []
    at = len(MAGIC)
    while at + _HEAD_BYTES <= len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        body = data[at + _HEAD_BYTES : at + _HEAD_BYTES + size]
        if size > MAX_FRAME_BYTES or len(body) < size:
            break
        if zlib.crc32(body) != int.from_bytes(data[at + 4 : at + 8], "little"):
            break
        try:
            record = msgpack.unpackb(body, raw=False, unicode_errors="surrogateescape")
        except ValueError:
            break
        if not isinstance(record, list) or not record:
            break
        records.append(record)
        at += _HEAD_BYTES + size
    return records, at


class ExitLog:
    """One open log in a directory given by descriptor. Raises LogDamaged and OSError when it cannot be opened."""

    def __init__(self, directory: int, name: str) -> None:
        self._directory = directory
        self._name = name
        self._pending = bytearray()
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._descriptor = os.open(name, flags, 0o600, dir_fd=directory)
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            data = file.read()
        self.recovered, good = parse(data)
        #: Bytes that were cut off because they were no whole record.
        self.cut_bytes = len(data) - good
        if self.cut_bytes:
            self._keep_aside(data[good:])
        if good == 0:
            os.pwrite(self._descriptor, MAGIC, 0)
            good = len(MAGIC)
        os.ftruncate(self._descriptor, good)
        os.fdatasync(self._descriptor)
        os.fsync(directory)
        self.size_bytes = good

    def _keep_aside(self, tail: bytes) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(f"{self._name}.damaged", flags, 0o600, dir_fd=self._directory)
        try:
            os.write(descriptor, tail)
        finally:
            os.close(descriptor)

    def add(self, record: list[Any]) -> None:
        """Append `record` at the next `flush`."""
        self._pending += _frame(record)

    def flush(self) -> None:
        """Write what was added. Raises OSError (a full disk, mostly): nothing is lost then, the next flush tries
        again."""
        if self._pending:
            try:
                written = os.pwrite(self._descriptor, self._pending, self.size_bytes)
                if written < len(self._pending):
                    written += os.pwrite(self._descriptor, self._pending[written:], self.size_bytes + written)
                if written < len(self._pending):
                    raise OSError(28, "no space left for the launcher's log")
            except OSError:
                os.ftruncate(self._descriptor, self.size_bytes)
                raise
            self.size_bytes += written
            self._pending.clear()

    def sync(self) -> None:
        """Have what was written reach the disk. Raises OSError."""
        os.fdatasync(self._descriptor)

    @property
    def pending_bytes(self) -> int:
        """How much waits for the next `flush`."""
        return len(self._pending)

    def drop_after(self, pending_bytes: int) -> None:
        """Give up what was added since there were so many bytes waiting."""
        del self._pending[pending_bytes:]

    def rewrite(self, records: Iterable[list[Any]]) -> None:
        """Put `records` in place of everything, atomically. Raises OSError and leaves the old file then."""
        temporary = f"{self._name}.new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=self._directory)
        try:
            data = MAGIC + b"".join(map(_frame, records))
            with os.fdopen(os.dup(descriptor), "wb") as file:
                file.write(data)
            os.fsync(descriptor)
            os.rename(temporary, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
            os.fsync(self._directory)
        except OSError:
            os.close(descriptor)
            raise
        os.close(self._descriptor)
        self._descriptor = descriptor
        self.size_bytes = len(data)

    def close(self) -> None:
        os.close(self._descriptor)
