"""Bugs, planted on purpose: the runs of faults.py, the invariants and the directed tests must find each of them.

A bug that nobody finds within its seeds is a hole in the proof, not a success.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest

from mesos_actor.actors.errors import InternalError, StorageError
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.raft import Appended, Hello, LogEntry, Vote
from mesos_actor.raft.engine import Engine
from mesos_actor.raft.journal import Journal
from mesos_actor.raft.leadership import Leadership
from mesos_actor.raft.machine import Machine
from mesos_actor.raft.membership import Membership
from mesos_actor.raft.replica import Replica
from mesos_actor.raft.segment import Header, VoteRecord
from mesos_actor.raft.snapshot import Snapshot
from mesos_actor.testing import Chances, InvariantViolation
from tests.raft import test_dangers, test_membership
from tests.raft.faults import HistoryError, Trial, setting
from tests.raft.group import Group, Lone, NotSoon, entry
from tests.raft.wild import run_wild, weather

CRASHES = ("crash", "power", "power", "isolate", "cut")


def caught(seeds: Iterable[int], **changes: Any) -> str:
    """What the first of these runs of a whole cluster that ends badly says; empty when all end well."""
    for seed in seeds:
        try:
            Trial(seed, replace(setting(seed), **changes)).run()
        except AssertionError as error:
            return f"seed {seed}: {type(error).__name__}: {error}"
    return ""


def caught_in_the_wild(seeds: Iterable[int], **changes: Any) -> str:
    """The same for replicas on links without promises."""
    for seed in seeds:
        try:
            run_wild(seed, replace(weather(seed), **changes))
        except NotSoon:
            continue  # a bug may well hold the group up before it does harm
        except (AssertionError, StorageError, InternalError) as error:
            return f"seed {seed}: {type(error).__name__}: {error}"
    return ""


def lost(text: str) -> bool:
    """Whether the judges of a whole cluster found it, and no assertion of the code itself."""
    return InvariantViolation.__name__ in text or HistoryError.__name__ in text


def harmful(text: str) -> bool:
    """The same for replicas in the wild."""
    return any(what in text for what in ("applied another entry", "both lead in term", "contradicts entry", "was ack"))


def _sync_late(patch: pytest.MonkeyPatch, late: Callable[[Replica], bool]) -> None:
    """Those of whom `late` says so go on at once, and sync when it is convenient."""

    def sync(self: Group, replica: Replica) -> None:
        if replica.members.waiting or not late(replica) or self.rng.random() < 0.05:
            replica.journal.sync()

    patch.setattr(Group, "sync", sync)
    patch.setattr(Journal, "dirty", property(lambda self: False))


@pytest.mark.slow
def test_a_follower_that_answers_before_its_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    _sync_late(monkeypatch, lambda replica: not replica.engine.leads)
    assert harmful(caught_in_the_wild(range(40), crash=0.01, compact_entries=1 << 30))


@pytest.mark.slow
def test_a_leader_that_commits_by_its_own_unsynced_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    _sync_late(monkeypatch, lambda replica: replica.engine.leads)
    found = caught_in_the_wild(range(100), size=3, crash=0.01, compact_entries=1 << 30)
    assert harmful(found)


@pytest.mark.slow
def test_a_vote_that_is_not_written_down(monkeypatch: pytest.MonkeyPatch) -> None:
    def set_current_term(self: Journal, term: int, voted_for: str | None) -> None:
        self._current_term, self._vote = term, voted_for
        self._record(VoteRecord(term, None))

    make_header = Journal._header

    def header(self: Journal, *args: Any, **named: Any) -> Header:
        kept, self._vote = self._vote, None
        try:
            return make_header(self, *args, **named)
        finally:
            self._vote = kept

    monkeypatch.setattr(Journal, "setCurrentTerm", set_current_term)
    monkeypatch.setattr(Journal, "_header", header)
    with pytest.raises(AssertionError):
        test_dangers.test_a_vote_is_given_once_a_term_and_kept_over_a_crash()
    found = caught_in_the_wild(range(300, 340), size=3, hasty=True, crash=0.02, submit=0.02, cut=0.0, drop=0.1)
    assert "both lead in term" in found


def test_acknowledgements_that_count_in_any_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """(Not found at random: it takes five members, two changes of leader, and answers that are late by both.)"""

    def on_appended(self: Replica, peer: str, message: Appended) -> None:
        if message.origin.term > self.engine.term:
            self.adopt(message.origin.term)
        elif self.engine.leads:
            self.leadership.on_appended(peer, message)

    monkeypatch.setitem(Replica._HANDLERS, Appended, on_appended)
    with pytest.raises(AssertionError):
        test_dangers.test_r13_acknowledgements_of_an_earlier_term_do_not_count()


def test_votes_that_are_counted_by_message(monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(set[str]):
        def add(self, _: str) -> None:
            """Who has voted."""

    on_vote = Replica._HANDLERS[Vote]

    def on_vote_anew(self: Replica, peer: str, message: Vote) -> None:
        self._granted = Forgetful()
        on_vote(self, peer, message)

    monkeypatch.setitem(Replica._HANDLERS, Vote, on_vote_anew)
    with pytest.raises(AssertionError):
        test_dangers.test_l7_votes_are_counted_by_voter()


@pytest.mark.slow
def test_a_learner_that_votes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """And whose word counts, as that of any disk under its master's name."""

    def on_hello(self: Replica, peer: str, message: Hello) -> None:
        self.members.on_hello(peer, message)
        if not message.answer:
            self.send(peer, self.members.hello(self.engine.term, peer, message.origin.storage_id))
        if message.learner and self.members.disk_of(peer) != message.origin.storage_id:
            self.leadership.replace(peer, message.origin.storage_id)

    monkeypatch.setitem(Replica._HANDLERS, Hello, on_hello)
    monkeypatch.setattr(Membership, "may_stand", property(lambda self: not self.missing))
    monkeypatch.setattr(Membership, "counts", lambda self, name, storage_id: True)
    monkeypatch.setattr(Membership, "knows", lambda self, name, storage_id: True)
    with pytest.raises(AssertionError):
        test_membership.test_a_learner_has_no_vote_and_does_not_campaign()
    found = caught_in_the_wild(range(40), size=3, crash=0.01, cut=0.02, submit=0.2, wipe=True)
    assert harmful(found)


@pytest.mark.slow
def test_a_snapshot_that_is_saved_after_the_log_was_trimmed(monkeypatch: pytest.MonkeyPatch) -> None:
    def take_snapshot(self: Replica, keep_entries: int) -> int:
        index, image = self.engine.applied_index, self.machine.image()
        term = self.journal.term_at(index)
        assert term is not None
        self.journal.trim(index, keep_entries)
        self._snapshots.save(Snapshot(index, term, image))
        self.snapshot_index = index
        return len(image)

    monkeypatch.setattr(Replica, "take_snapshot", take_snapshot)
    assert caught(
        range(20), compact_entries=3, keep_entries=0, segment_bytes=600, chances=Chances(disk_death=0.03), early=False
    )


@pytest.mark.slow
def test_a_follower_that_cuts_off_what_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(self: Replica, entries: tuple[LogEntry, ...], previous: int) -> int:
        journal = self.journal
        if previous < journal.last_index:
            journal.deleteEntriesFrom(previous + 1 - journal.first_index)
            self.members.truncated(previous + 1)
        for new in entries:
            journal.add(new.data, new.index, new.term)
            self.members.appended(new.index, new.data)
        return previous + len(entries)

    monkeypatch.setattr(Replica, "_write", write)
    with pytest.raises(AssertionError):
        test_dangers.test_r3_an_old_message_cuts_off_nothing()
    assert caught_in_the_wild(range(1, 40), in_order=False, double=0.2)


@pytest.mark.slow
def test_a_leader_that_answers_reads_without_asking_whether_it_still_leads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leadership, "_confirmed_round", lambda self: self._round)
    found = caught(range(40), kinds=("isolate",), faults=40, early=False)
    assert "none of these can follow" in found


@pytest.mark.slow
def test_a_new_leader_that_acts_before_it_knows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def ready(self: Leadership) -> bool:
        return self._replica.engine.leads and self._term == self._replica.engine.term

    monkeypatch.setattr(Leadership, "ready", property(ready))
    assert lost(caught(range(40), kinds=("crash", "transfer", "isolate"), faults=40, early=False))


@pytest.mark.slow
def test_a_commit_of_an_earlier_terms_entries_by_counting_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """(Raft paper, figure 8. At random rare; the directed test is test_r7.)"""
    tick = Engine.tick

    def tick_and_commit(self: Engine, now_s: float) -> None:
        tick(self, now_s)
        if self.leads and self.others:
            matches = sorted((self._get("raftMatchIndex")[peer] for peer in self._peers.values()), reverse=True)
            reached = matches[len(matches) // 2 - 1]
            self.commit(max(self.commit_index, min(reached, self.journal.last_index)))

    monkeypatch.setattr(Engine, "tick", tick_and_commit)
    with pytest.raises(AssertionError):
        figure_8()


def figure_8() -> None:
    """A leader that has an entry of an earlier term on a majority, and none of its own, must not commit it."""
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [entry(3, 1, 5)]))
    lone.settle()
    replica = test_dangers.elected(lone, ("b",))
    lone.hear("b", Appended(lone.origin("b", replica.engine.term), 1, 4, True))
    lone.settle()
    assert replica.engine.commit_index < 3


def test_an_entry_of_an_earlier_term_is_not_committed_by_counting_copies() -> None:
    figure_8()


@pytest.mark.slow
def test_a_machine_that_applies_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """The master proposes again what was not answered in time: found where the answers are late."""
    monkeypatch.setattr(Machine, "_remember", lambda self, client, number, outcome: None)
    from tests.raft import test_machine

    with pytest.raises(AssertionError):
        test_machine.test_a_repeat_gets_the_records_as_they_stand_now()


def test_without_a_bug_nothing_is_caught() -> None:
    """The same settings, with the code as it is."""
    assert caught([4], kinds=CRASHES, faults=10, early=False) == ""
    assert issubclass(Appended, Message)
