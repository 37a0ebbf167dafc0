"""Virtual time: one heap of what is to be done when."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Any

START_US = 1_000_000_000 * 1_000_000
"""What the clocks of a simulation say at its begin, in microseconds since 1970: a Sunday in September 2001. Not 0,
which means "never" in messages."""


class Schedule:
    """Whole microseconds; what is due at the same time is done in the order in which it was asked for."""

    __slots__ = ("_sequence", "heap", "now_us")

    def __init__(self) -> None:
        self.now_us = START_US
        self._sequence = 0
        self.heap: list[tuple[int, int, Callable[..., Any], tuple[Any, ...]]] = []
        """(when, the order of asking, what, with what); for World's loop, which takes from it directly."""

    def after(self, delay_us: int, call: Callable[..., Any], *args: Any) -> None:
        """Have `call(*args)` made in `delay_us`."""
        self._sequence += 1
        heappush(self.heap, (self.now_us + delay_us, self._sequence, call, args))

    def at(self, time_us: int, call: Callable[..., Any], *args: Any) -> None:
        """Have `call(*args)` made at `time_us`, which is not in the past."""
        self._sequence += 1
        heappush(self.heap, (time_us, self._sequence, call, args))

    def hurry(self, from_us: int) -> None:
        """Have what is due at exactly `from_us` made now, in the same order."""
        late = [entry for entry in self.heap if entry[0] == from_us]
        if late:
            rest = [entry for entry in self.heap if entry[0] != from_us]
            self.heap[:] = rest + [(self.now_us, *entry[1:]) for entry in late]
            heapify(self.heap)

    def next_us(self) -> int | None:
        """When the next call is due; None when nothing is left."""
        return self.heap[0][0] if self.heap else None

    def pop(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        """The next call; the clock moves to it."""
        self.now_us, _, call, args = heappop(self.heap)
        return call, args
