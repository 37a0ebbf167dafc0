"""A host's disk: what is written is seen at once by the process that wrote it, and survives a crash once it is synced.

The unit is the batch: all Persists of one handler, as the SQLite store commits them in one transaction. A crash loses
whole batches from the end, never a part of one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mesos_actor.actors.crew import Write
from mesos_actor.actors.messages.base import Record
from mesos_actor.actors.store import decode_rows, encode_writes

Rows = dict[tuple[str, str], bytes]
Batch = dict[tuple[str, str], bytes | None]


class Disk:
    """Batches are numbered from 1 in the order in which they were written."""

    def __init__(self, rows: Rows | None = None) -> None:
        self.rows: Rows = {} if rows is None else rows
        """What is synced: (actor, key) -> the encoded record."""
        self.synced = 0
        """The number of the last batch that is."""
        self.written = 0
        self.free_at_us = 0
        """When the sync that was asked for last will be done: syncs follow each other."""
        #: as `rows`, with what is not synced yet
        self._cache: Rows = dict(self.rows)
        #: the batches from `synced` + 1 on
        self._unsynced: deque[Batch] = deque()

    def write(self, writes: Iterable[Write]) -> int:
        """The number of the batch these writes make. Raises LocalError, and writes nothing, when one cannot be kept."""
        batch = encode_writes(writes)
        _apply(batch, self._cache)
        self._unsynced.append(batch)
        self.written += 1
        return self.written

    def load(self, actor: str) -> dict[str, Record]:
        """What the running process sees."""
        return decode_rows({key: data for (owner, key), data in self._cache.items() if owner == actor})

    def sync(self, batch: int) -> None:
        """Everything up to `batch` is safe."""
        while self.synced < batch:
            _apply(self._unsynced.popleft(), self.rows)
            self.synced += 1

    def crash(self, keep_unsynced: int = 0) -> int:
        """Lose what is not synced, but for the first `keep_unsynced` batches, which happened to get there in time.
        Returns how many were lost."""
        self.sync(min(self.synced + keep_unsynced, self.written))
        lost = len(self._unsynced)
        self._unsynced.clear()
        self.written = self.synced
        self.free_at_us = 0
        self._cache = dict(self.rows)
        return lost


def _apply(batch: Batch, rows: Rows) -> None:
    for where, data in batch.items():
        if data is None:
            rows.pop(where, None)
        else:
            rows[where] = data
