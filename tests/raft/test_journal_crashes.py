"""Any sequence of operations, killed at any step, with any piece of what was not synced left: the log that is found is
one that was, and not older than the last sync."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.raft.files import Died, MemoryFiles
from mesos_actor.raft.journal import Entry, Identity, Journal

ME = Identity("a", ("a", "b", "c"), "0123456789abcdef" * 2)
SEGMENT_BYTES = 620
"""Header and two or three records."""


class Mortal(MemoryFiles):
    """Dies after so many more calls that change something; `sync` counts twice, before and after."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 1 << 30

    def _step(self) -> None:
        if self.left == 0:
            raise Died
        self.left -= 1

    def append(self, name: str, data: bytes) -> None:
        self._step()
        super().append(name, data)

    def sync(self) -> None:
        self._step()
        super().sync()
        self._step()

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)

    def truncate(self, name: str, size_bytes: int) -> None:
        self._step()
        super().truncate(name, size_bytes)


class State:
    """What a log says. `floor`: what a snapshot was installed at; entries up to `base` may be gone."""

    def __init__(self) -> None:
        self.entries: list[Entry] = [(b"", 1, 0)]
        self.term = 0
        self.vote: str | None = None

    def copy(self) -> State:
        new = State()
        new.entries, new.term, new.vote = list(self.entries), self.term, self.vote
        return new

    @property
    def last(self) -> int:
        return self.entries[-1][1]

    def is_shown_by(self, journal: Journal, base: int) -> bool:
        """Whether `journal` is this log, with everything behind `base` and perhaps more."""
        if (journal.getCurrentTerm(), journal.getVotedForNodeId()) != (self.term, self.vote):
            return False
        floor, first = self.entries[0][1], journal.first_index
        if not floor <= first <= max(base, floor) or journal.last_index != self.last:
            return False
        ours = self.entries[first - floor :]
        return journal[0][1:] == ours[0][1:] and journal[1:] == ours[1:]


class Bench:
    """A log beside the list that it should be."""

    def __init__(self) -> None:
        self.files = Mortal()
        self.journal = Journal.create(self.files, ME, SEGMENT_BYTES)
        self.states = [State()]
        """What was true at the last sync, and after each thing done since."""
        self.base = 1
        """Entries behind it must be found."""
        self.serial = 0
        self.crashes = 0

    def change(self) -> State:
        self.states.append(self.states[-1].copy())
        return self.states[-1]

    def add(self) -> None:
        self._put(self.states[-1].last + 1)

    def cut(self, number: int) -> None:
        """A leader's entry in the place of one of ours that is not committed."""
        free = [index for _, index, _ in self.states[-1].entries[1:] if index > self.base]
        if free:
            index = free[number % len(free)]
            self.journal.deleteEntriesFrom(index - self.journal.first_index)
            self._put(index)

    def _put(self, index: int) -> None:
        state = self.change()
        self.serial += 1
        entry = (b"%d" % self.serial * (self.serial % 9), index, self.serial)
        if index <= state.last:
            del state.entries[index - state.entries[0][1] :]
            state = self.change()  # a new segment's header says so before the entry does
        state.entries.append(entry)
        self.journal.add(*entry)

    def vote(self, number: int) -> None:
        state = self.change()
        self.serial += 1
        state.term, state.vote = self.serial, [None, "a", "b"][number % 3]
        self.journal.setCurrentTerm(state.term, state.vote)

    def sync(self) -> None:
        self.journal.sync()
        del self.states[:-1]

    def trim(self, number: int, keep: int) -> None:
        """A snapshot of something that is synced."""
        self.sync()
        index = self.journal.first_index + number % len(self.journal)
        self.base = max(self.base, index)  # committed: never cut off again
        self.journal.trim(index, keep % 4)

    def reset(self, number: int) -> None:
        state = self.states[-1].copy()
        index = state.last + 1 + number % 5
        self.serial += 1
        state.entries = [(b"", index, self.serial)]
        del self.states[1:]  # what was not synced is not written any more
        self.states.append(state)
        self.journal.reset(index, self.serial)
        del self.states[:-1]
        self.base = index

    def crash(self, keep: int, torn: int, undo: int) -> None:
        """Lose what is not safe but for a piece, look, and go on with what is there."""
        self.crashes += 1
        files = self.files
        files.left = 1 << 30
        kept = {name: keep % (tail + 1) for name, tail in files.unsynced_bytes().items()}
        garbage = {name: bytes(torn % 40) for name in kept}
        holes = {name: [sector for sector in range(40) if torn >> (sector % 9) & 1] for name in kept}
        files.crash(kept, garbage, min(undo, len(files._removed)), holes if torn % 2 else None)
        self.journal = Journal.open(files, ME, SEGMENT_BYTES)
        shown = [state for state in self.states if state.is_shown_by(self.journal, self.base)]
        assert shown, "a log that never was"
        self.states = [shown[-1]]

    def do(self, name: str, first: int, second: int, third: int) -> None:
        match name:
            case "add":
                for _ in range(first % 3 + 1):
                    self.add()
            case "cut":
                self.cut(first)
            case "vote":
                self.vote(first)
            case "sync":
                self.sync()
            case "trim":
                self.trim(first, second)
            case "reset":
                self.reset(first)
            case "die soon":
                self.files.left = first % 7
            case _:
                self.crash(first, second, third)

    def run(self, operations: list[tuple[str, int, int, int]]) -> None:
        for name, first, second, third in operations:
            try:
                self.do(name, first, second, third)
            except Died:
                self.crash(first, second, third)
            if name == "crash":
                self.check()
        self.check()

    def check(self) -> None:
        """In memory, it is what the list is."""
        floor = self.states[-1].entries[0][1]
        expected = self.states[-1].entries[self.journal.first_index - floor :]
        assert [entry[1:] for entry in self.journal[:]] == [entry[1:] for entry in expected]
        assert self.journal[1:] == expected[1:]


NUMBER = st.integers(0, 600)
KINDS = ["add", "add", "add", "sync", "sync", "cut", "vote", "trim", "reset", "die soon", "crash"]
OPERATION = st.tuples(st.sampled_from(KINDS), NUMBER, NUMBER, st.integers(0, 3))


@given(operations=st.lists(OPERATION, min_size=8, max_size=24))
def test_what_is_found_is_what_was_and_not_older_than_the_last_sync(
    operations: list[tuple[str, int, int, int]],
) -> None:
    bench = Bench()
    bench.run(operations)
    bench.crash(0, 0, 0)


@pytest.mark.slow
def test_many_long_lives() -> None:
    """The same, of random lives that hypothesis would not make so long."""
    for seed in range(1_000):
        rng, bench = random.Random(seed), Bench()
        bench.run([(rng.choice(KINDS), rng.randrange(601), rng.randrange(601), rng.randrange(4)) for _ in range(200)])
        bench.crash(rng.randrange(999), rng.randrange(99), rng.randrange(4))


def _prepared() -> Bench:
    """Several segments, one of which goes back before its predecessor, with something still unsynced."""
    bench = Bench()
    for number in range(12):
        bench.add()
        bench.vote(number)
        bench.sync()
    bench.cut(6)
    for _ in range(6):
        bench.add()
        bench.sync()
    bench.add()
    bench.vote(1)
    return bench


@pytest.mark.parametrize("keep", [0, 1, 30, 511, 512, 530, 10_000])
@pytest.mark.parametrize("operation", ["sync", "cut", "trim", "reset"])
def test_a_step_that_is_killed_anywhere(operation: str, keep: int) -> None:
    """Everything up to `step` was done; then the host died, `undo` removals were not safe, and it began again."""
    for undo in range(4):
        step, finished = 0, False
        while not finished:
            bench = _prepared()
            bench.files.left = step
            try:
                bench.do(operation, 13 if operation == "trim" else 8, 0, 0)
                bench.sync()
                finished = True
            except Died:
                step += 1
            bench.crash(keep, 0, undo)
            bench.add()
            bench.sync()
            bench.crash(0, 0, 0)
            bench.check()
        assert step >= 2
