"""The clocks a runtime reads. Actors never do: they see `Context.now_us`."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Both in whole microseconds."""

    def now_us(self) -> int:
        """Wall clock since 1970. Never goes back, whatever is done to the host's clock meanwhile."""
        ...

    def monotonic_us(self) -> int:
        """For durations only: its zero means nothing."""
        ...


class SystemClock:
    """This host's clock: the wall is read once, here, and then advanced by the monotonic clock.

    So a step of the host's clock (NTP, an operator) neither fires nor freezes a deadline; the price is that a process
    does not follow a correction until it is started again.
    """

    __slots__ = ("_offset_ns",)

    def __init__(self) -> None:
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        return (time.monotonic_ns() + self._offset_ns) // 1_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000
