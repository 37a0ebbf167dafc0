"""Which master to ask next, and when: one after the other, with a random, doubling pause, following hints.

Pure: random numbers come from the caller. Source of the shape: Mesos src/sched/sched.cpp `doReliableRegistration`
(a random part of a doubling interval, capped).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from mesos_actor.actors.ids import Address

FIRST_PAUSE_US = 500_000
"""The longest first pause between two attempts; then doubled."""

MAX_PAUSE_US = 15_000_000
"""The longest pause between two attempts (Mesos: 1 min; a framework that waits idles its user)."""

FIRST_RETRY_US, MAX_RETRY_US = 200_000, 2_000_000
"""The longest pause after an answer that nobody leads, first and at most: an election takes a fraction of a second."""

PATIENCE = 3
"""Silences of a master that others say leads before the next one is asked: it is busy, for had it died the link would
have said so. One whose link broke gets none: until the others find out they name it, and to find out that nobody is
there takes a connection longer than all of them together."""

MAX_HINTS = 4
"""Hints followed at once in a row: two masters that point at each other must not make a storm."""


class LeaderSearch:
    """`current` is the master to ask now."""

    def __init__(self, masters: Sequence[Address]) -> None:
        if not masters:
            raise ValueError("masters: at least one address is needed")
        self.masters = tuple(masters)
        self.current = self.masters[0]
        self._index = 0
        self._attempts = 0
        self._hints = 0
        self._leaderless = 0
        #: whose link broke, and whether it is passed over: for one round, for it may be back and lead again
        self._lost, self._passed_over = Address(""), False
        #: how often another one was asked since then
        self._others_asked = 0
        self._patience = 0

    def lost(self) -> None:
        """The link with `current` broke: others who still name it are not believed for one round."""
        self._lost, self._passed_over = self.current, True
        self._others_asked = self._patience = 0

    def heard(self, master: Address) -> None:
        """`master` speaks: it is there, whatever became of its link."""
        if master == self._lost:
            self._passed_over = False

    def retry_us(self, rng: random.Random) -> int:
        """How long to wait after `current` has answered that it does not lead and knows nobody who does."""
        longest = min(MAX_RETRY_US, FIRST_RETRY_US << min(self._leaderless, 10))
        self._leaderless += 1
        return rng.randrange(longest // 4, longest + 1)

    def pause_us(self, rng: random.Random) -> int:
        """How long to wait for an answer of `current`: random, longer with every attempt, never less than a tenth
        of the longest."""
        longest = min(MAX_PAUSE_US, FIRST_PAUSE_US << min(self._attempts // len(self.masters), 10))
        self._attempts += 1
        return rng.randrange(longest // 10, longest + 1)

    def advance(self) -> None:
        """`current` did not answer: go on to the next of the list. One that others say leads gets some more time."""
        self._hints = 0
        if self._patience:
            self._patience -= 1
            return
        self._index = (self._index + 1) % len(self.masters)
        self._others_asked += 1
        if self._others_asked > len(self.masters):  # a round is over, also for one that stands in no list
            self._passed_over = False
        if self._passed_over and self.masters[self._index] == self._lost:
            self._passed_over = False
            self._index = (self._index + 1) % len(self.masters)
        self.current = self.masters[self._index]

    def follow(self, leader: Address) -> bool:
        """A master named `leader`. True: ask it at once; False: wait for the pause to end, then go on."""
        lost = leader == self._lost
        if not leader or (lost and self._passed_over) or self._hints >= MAX_HINTS:
            return False
        self._hints += 1
        self._patience = 0 if lost else PATIENCE
        self.current = leader
        return True

    def found(self) -> None:
        """`current` answered as the leader: the next search starts from the shortest pause, with this master."""
        self._attempts = self._hints = self._leaderless = self._patience = 0
        self._lost, self._passed_over = Address(""), False
        if self.current in self.masters:
            self._index = self.masters.index(self.current)
