"""Which reliable updates were delivered already: repeats are answered without troubling anybody twice.

Updates come at least once, in the order of their numbers (core/updates.py: an id is `<run>:<n>`, and an acknowledgement
covers all that went before). What is remembered is bounded; a repeat that comes after its run was forgotten is
delivered again, which receivers must stand anyway after a restart.
"""

from __future__ import annotations

MAX_REMEMBERED = 100_000
"""Runs kept; the one met first goes first."""

NONE = -1


class Deliveries:
    """Of each run: the newest update met, and the newest acknowledged."""

    def __init__(self, limit: int = MAX_REMEMBERED) -> None:
        self._limit = limit
        #: run -> [number met, number acknowledged]
        self._runs: dict[str, list[int]] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def is_new(self, update_id: str) -> bool:
        """Whether neither this update nor a later one of its run was met before; from then on it is remembered, as not
        acknowledged. An older one may still come when the one who met it has been restarted: it is history."""
        run, number = _parts(update_id)
        known = self._runs.get(run)
        if known is None:
            if len(self._runs) >= self._limit:
                del self._runs[next(iter(self._runs))]
            self._runs[run] = [number, NONE]
            return True
        if number <= known[0]:
            return False
        known[0] = number
        return True

    def follows(self, after_update_id: str) -> bool:
        """Whether an update that comes after this one may be taken now: it names none, or one that was met.
        Otherwise the earlier one was lost on the way; both come again, in order (core/updates.py)."""
        if not after_update_id:
            return True
        run, number = _parts(after_update_id)
        known = self._runs.get(run)
        return known is not None and number <= known[0]

    def acknowledge(self, update_id: str) -> None:
        """Note that the answer to this id is on its way. Ids that are not remembered are ignored."""
        run, number = _parts(update_id)
        known = self._runs.get(run)
        if known is not None and known[1] < number <= known[0]:
            known[1] = number

    def is_acknowledged(self, update_id: str) -> bool:
        run, number = _parts(update_id)
        known = self._runs.get(run)
        return known is not None and number <= known[1]


def _parts(update_id: str) -> tuple[str, int]:
    """Run and number; an id of another form is a run of its own."""
    run, _, number = update_id.rpartition(":")
    return (run, int(number)) if number.isdecimal() and len(number) < 19 else (update_id, 0)
