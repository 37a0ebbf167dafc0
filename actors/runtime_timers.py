"""The timers of one process: one heap, and marks instead of removals.

Arming gives a new mark; whoever arms again or cancels simply forgets the old one, and an entry whose mark is no longer
the standing one is skipped when its time comes. Forgotten entries are swept once they are most of the heap.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from mesos_actor.actors.crew import Cell

MIN_SWEEP = 1_024
"""Below so many entries the heap is not worth sweeping."""

Entry = tuple[int, int, Cell, str]
"""`(due in monotonic microseconds, mark, cell, name)`; marks are unique, so cells are never compared."""


class Timers:
    """See the module's text."""

    __slots__ = ("_heap", "_mark", "_swept_length")

    def __init__(self) -> None:
        self._heap: list[Entry] = []
        self._mark = 0
        self._swept_length = MIN_SWEEP

    def __len__(self) -> int:
        return len(self._heap)

    def arm(self, cell: Cell, name: str, due_us: int) -> None:
        """`cell.timers[name]` becomes the mark of this arming."""
        self._mark += 1
        cell.timers[name] = self._mark
        heappush(self._heap, (due_us, self._mark, cell, name))
        if len(self._heap) > 2 * self._swept_length:
            self._sweep()

    def next_due_us(self) -> int | None:
        """When the next standing timer is due; None when there is none."""
        heap = self._heap
        while heap and heap[0][2].timers.get(heap[0][3]) != heap[0][1]:
            heappop(heap)
        return heap[0][0] if heap else None

    def pop_due(self, now_us: int) -> Entry | None:
        """The earliest standing timer that is due, taken out of the heap but still noted in its cell."""
        due_us = self.next_due_us()
        return heappop(self._heap) if due_us is not None and due_us <= now_us else None

    def _sweep(self) -> None:
        self._heap = [entry for entry in self._heap if entry[2].timers.get(entry[3]) == entry[1]]
        heapify(self._heap)
        self._swept_length = max(MIN_SWEEP, len(self._heap))
