"""Which reliable updates were delivered already: repeats are answered without troubling anybody twice.

Updates come at least once (mesos-style streams: the sender repeats until acknowledged). What is remembered is bounded;
a repeat that comes after its id was forgotten is delivered again, which receivers must stand anyway after a restart.
"""

from __future__ import annotations

from collections import deque

MAX_REMEMBERED = 100_000
"""Update ids kept; the oldest goes first."""


class Deliveries:
    """Maps each remembered id to whether it was acknowledged."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        self._acknowledged: dict[str, bool] = {}
        self._order: deque[str] = deque()

    def __len__(self) -> int:
        return len(self._acknowledged)

    def is_new(self, update_id: str) -> bool:
        """Whether this id is met for the first time; from then on it is remembered as not acknowledged."""
        if update_id in self._acknowledged:
            return False
        if len(self._order) >= self._limit:
            del self._acknowledged[self._order.popleft()]
        self._order.append(update_id)
        self._acknowledged[update_id] = False
        return True

    def follows(self, after_update_id: str) -> bool:
        """Whether an update that comes after this one may be taken now: it names none, or one that is remembered.
        Otherwise the earlier one was lost on the way; both come again, in order (core/updates.py)."""
        return not after_update_id or after_update_id in self._acknowledged

    def acknowledge(self, update_id: str) -> None:
        """Note that the answer to this id is on its way. Ids that are not remembered are ignored."""
        if update_id in self._acknowledged:
            self._acknowledged[update_id] = True

    def is_acknowledged(self, update_id: str) -> bool:
        return self._acknowledged.get(update_id, False)
