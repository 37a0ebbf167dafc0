"""What was asked for and not answered yet, and when to ask again: the pause doubles from the first to the longest."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class Repeats(Generic[K]):
    """Keys that wait for an answer. As many as the caller lets in."""

    def __init__(self, first_us: int, longest_us: int) -> None:
        self._first_us = first_us
        self._longest_us = longest_us
        #: key -> when it is due, and the pause that ends then
        self._waiting: dict[K, tuple[int, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, key: K, now_us: int) -> None:
        """It was asked for now; a key that waits already begins anew."""
        self._waiting[key] = (now_us + self._first_us, self._first_us)

    def settle(self, key: K) -> None:
        """It needs no answer any more."""
        self._waiting.pop(key, None)

    def clear(self) -> None:
        self._waiting.clear()

    def due(self, now_us: int) -> list[K]:
        """The keys to ask for again now, in the order in which they came; each is due again later."""
        due = [(key, pause_us) for key, (at_us, pause_us) in self._waiting.items() if at_us <= now_us]
        for key, pause_us in due:
            pause_us = min(pause_us * 2, self._longest_us)
            self._waiting[key] = (now_us + pause_us, pause_us)
        return [key for key, _ in due]
