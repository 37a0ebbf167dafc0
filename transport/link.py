"""Epochs and sequence numbers: turns a wire that may lose, double, delay or reorder into the promise of a link.

Rule 1: within an epoch, what is delivered has strictly rising sequence numbers. Rule 2: an epoch that has been left is
never entered again. Rule 3: whoever learns of a new epoch is told before anything of it is delivered. Pure: no clock,
no socket; the simulated and the real transport use the same three classes.
"""

from __future__ import annotations

import enum


class Verdict(enum.Enum):
    """What to do with a frame."""

    DELIVER = "deliver"
    NEW_EPOCH = "new-epoch"
    """Tell of the end of the epoch before, if there was one, then deliver."""
    LATE = "late"
    """Doubled, overtaken, or of an epoch that is over: drop."""


class EpochMint:
    """Numbers for our own epochs: each larger than all before, in this process and, by the clock, before a restart."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = 0

    def next(self, now_us: int) -> int:
        """The number of the epoch that begins now."""
        self._last = max(self._last + 1, now_us)
        return self._last


class Outgoing:
    """The sending half of a link in one epoch."""

    __slots__ = ("epoch", "sequence")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        #: The number of the last frame stamped; the first of an epoch gets 1.
        self.sequence = 0

    def stamp(self) -> int:
        """The sequence number for the next frame."""
        self.sequence += 1
        return self.sequence


class Incoming:
    """The receiving half of a link. `epoch` is None until the first frame."""

    __slots__ = ("epoch", "sequence")

    def __init__(self) -> None:
        self.epoch: int | None = None
        #: The number of the last frame let through in this epoch.
        self.sequence = 0

    def judge(self, epoch: int, sequence: int) -> Verdict:
        """What to do with a frame that carries these two numbers; a frame not LATE is taken note of."""
        if epoch == self.epoch:
            if sequence <= self.sequence:
                return Verdict.LATE
            self.sequence = sequence
            return Verdict.DELIVER
        if self.epoch is not None and epoch < self.epoch:
            return Verdict.LATE
        self.epoch = epoch
        self.sequence = sequence
        return Verdict.NEW_EPOCH
