"""A follower's log against a model of twenty lines: any messages, in any order, from leaders that Raft permits."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.ids import OperationId, Role, Term
from mesos_actor.actors.messages.raft import Appended, LogEntry
from mesos_actor.actors.messages.registry import SetWeight
from mesos_actor.raft.machine import Proposal, encode_proposal
from tests.raft.group import Lone

FIRST = 3
"""The first entry that leaders write: those before are the cluster's founding."""


def entry_of(index: int, term: int) -> LogEntry:
    command = SetWeight(Role("r"), 1 + index * 1_000 + term)
    return LogEntry(index, Term(term), encode_proposal(Proposal(OperationId(f"x-P{index}"), Term(term), command)))


FOUNDING = LogEntry(2, Term(1), Lone().replica.journal[1][0])


@dataclass(frozen=True)
class Leader:
    """The log of the leader of a term at its longest: the term of each entry from 2 on, and how many it commits."""

    term: int
    terms: tuple[int, ...]
    committed: int

    @property
    def last(self) -> int:
        return 1 + len(self.terms)

    def term_at(self, index: int) -> int:
        return 0 if index < 2 else self.terms[index - 2]


@st.composite
def reigns(draw: st.DrawFn) -> list[Leader]:
    """Leaders of rising terms. Each has what was committed before it, some prefix of a former log, and its own."""
    found: list[Leader] = []
    committed: tuple[int, ...] = (1,)
    logs: list[tuple[int, ...]] = [(1,)]
    for term in sorted(draw(st.sets(st.integers(1, 9), min_size=1, max_size=5))):
        base = draw(st.sampled_from(logs))
        kept = draw(st.integers(0, len(base)))
        if base[: len(committed)] != committed or kept < len(committed):
            base, kept = committed, len(committed)
        log = base[:kept] + (term,) * draw(st.integers(1, 5))
        until = draw(st.integers(len(committed), len(log)))
        if log[until - 1] == term:
            committed = log[:until]
        logs.append(log)
        found.append(Leader(term, log, 1 + len(committed)))
    return found


class Model:
    """What a follower must have. `terms[i]` is of entry `i + 2`."""

    def __init__(self) -> None:
        self.terms: list[int] = [1]
        self.commit = 1
        self.base = 1
        self.term = 1

    def take(self, leader: Leader, previous: int, count: int, commit: int) -> int | None:
        """The entry up to which it agrees then, None when it refuses."""
        if leader.term < self.term:
            return None
        self.term = leader.term
        last = 1 + len(self.terms)
        known = max(2, self.base) <= previous <= last
        if previous > last or (known and self._at(previous) != leader.term_at(previous)):
            return None
        matched = max(previous, self.base) if previous + count >= self.base else self.base
        for index in range(max(previous, self.base) + 1, previous + count + 1):
            if index > 1 + len(self.terms) or self._at(index) != leader.term_at(index):
                assert index > self.commit, "the model itself contradicts what is committed"
                self.terms[index - 2 :] = [leader.term_at(index)]
            matched = index
        self.commit = max(self.commit, min(commit, matched))
        return matched

    def _at(self, index: int) -> int:
        return self.terms[index - 2]


@settings(max_examples=10)
@given(st.data())
def test_a_follower_is_the_model(data: st.DataObject) -> None:
    follow(data)


@pytest.mark.slow
@settings(max_examples=300)
@given(st.data())
def test_a_follower_is_the_model_for_longer(data: st.DataObject) -> None:
    follow(data)


def follow(data: st.DataObject) -> None:
    """A sequence of messages, compactions and restarts."""
    leaders = data.draw(reigns(), label="leaders")
    lone, model = Lone(), Model()
    for _ in range(data.draw(st.integers(1, 25), label="messages")):
        what = data.draw(st.sampled_from(["append", "append", "append", "hole", "compact", "restart"]))
        leader = data.draw(st.sampled_from(leaders))
        peer = "bc"[leader.term % 2]
        previous = data.draw(st.integers(1, leader.last))
        count = data.draw(st.integers(0, leader.last - previous))
        entries = [entry_of(at, leader.term_at(at)) for at in range(max(previous, 1) + 1, previous + count + 1)]
        entries = [found if found.index >= FIRST else FOUNDING for found in entries]
        before = lone.replica.journal[0:]
        if what == "restart":
            lone.restart()
            model.commit, model.base = lone.replica.snapshot_index, lone.replica.journal.first_index
        elif what == "compact":
            lone.replica.take_snapshot(data.draw(st.integers(0, 3)))
            model.base = lone.replica.journal.first_index
        elif what == "hole" and count > 2:
            entries.pop(data.draw(st.integers(1, count - 2)))
            term = lone.replica.engine.term
            if leader.term >= term:
                lone.hear(peer, lone.append(peer, leader.term, (previous, leader.term_at(previous)), entries))
                lone.settle()
                model.term = max(model.term, leader.term)
                assert lone.replica.journal[0:] == before
                assert "hole" in lone.replica.members.complaints[-1]
        else:
            commit = data.draw(st.integers(1, leader.committed), label="commit")
            message = lone.append(peer, leader.term, (previous, leader.term_at(previous)), entries, commit)
            lone.hear(peer, message)
            answers = [found for _, found in lone.settle() if isinstance(found, Appended)]
            expected = model.take(leader, previous, count, commit)
            (answer,) = answers
            assert answer.ok == (expected is not None)
            if expected is not None:
                assert answer.next_index == expected + 1
            else:
                assert answer.next_index == 0 or model.commit < answer.next_index <= previous
        _compare(lone, model)


def _compare(lone: Lone, model: Model) -> None:
    replica = lone.replica
    journal = replica.journal
    assert [term for _, index, term in journal[1:]] == model.terms[journal.first_index - 1 :]
    assert replica.engine.commit_index == model.commit
    assert replica.engine.term == model.term
    assert lone.log()[1 - len(journal) :] == journal[1:] or len(journal) == 1, "what it answers for is on its disk"
    for data, index, term in journal[1:]:
        if index >= FIRST:
            assert data == entry_of(index, term).data
    first: dict[int, int] = {}
    for index, term, _ in lone.applied:
        assert first.setdefault(index, term) == term, "what was applied once is what is applied after a restart"
