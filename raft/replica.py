"""One replica of the registry's log: pysyncobj's elections and commit rule, and our own everything else.

Pure but for the journal and the snapshots that it writes: messages and the time come in, messages go to `outbox`, and
committed entries come out of `apply_some`. Nothing here sends, waits or syncs; the owner does (node.py), in this order:

1. hand over what has come (`receive`, `submit`, ...);
2. a leader's AppendEntries may leave at once: followers write while we write;
3. sync the journal; 4. `tick`, and sync again if that wrote; 5. send the rest, apply, answer.

Nothing of the link is needed: messages may be lost, doubled, late and out of order. What stock pysyncobj gets wrong,
and where each is mended: R1 R3 L1 `_on_append`, R7 R10 `_on_chunk` and `restore`, R12 `submit` (positions, never ids),
R13 terms in every answer, L3 refusals carry the term, L7 `_on_vote`. (The dangers are listed in docs/registry.md.)
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable

from mesos_actor.actors.errors import PeerError, StorageError
from mesos_actor.actors.ids import Term
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.raft import (
    Appended,
    AppendEntries,
    ChunkTaken,
    Hello,
    InstallChunk,
    LogEntry,
    Origin,
    RequestVote,
    TakeOver,
    Vote,
)
from mesos_actor.raft.engine import Engine, Timing
from mesos_actor.raft.journal import Identity, Journal
from mesos_actor.raft.leadership import Leadership
from mesos_actor.raft.machine import Machine, Result
from mesos_actor.raft.membership import Membership
from mesos_actor.raft.snapshot import Assembly, Snapshot, SnapshotStore, decode_snapshot, encode_snapshot

PeerMessage = RequestVote | Vote | AppendEntries | Appended | InstallChunk | ChunkTaken | TakeOver | Hello
HELLO_S = 0.5
"""How often a disk that is not a member yet asks the others."""


class Replica:
    """See the module's text. `now_s` is the owner's monotonic clock in seconds; members are called by `host:port`."""

    def __init__(
        self,
        identity: Identity,
        journal: Journal,
        snapshots: SnapshotStore,
        machine: Machine,
        timing: Timing,
        rng: random.Random,
        now_s: float,
        keep_entries: int,
    ) -> None:
        self.journal = journal
        self.machine = machine
        self.members = Membership(identity, machine)
        self.observe: Callable[[int, int, bytes], None] | None = None
        """Told (index, term, data) of every entry that is applied."""
        self.outbox: list[tuple[str, Message]] = []
        """(member, message) that must not leave before the journal is synced."""
        self.now_s = now_s
        self._snapshots = snapshots
        self._timing = timing
        self._rng = rng
        self.engine = Engine(identity.member, self.members.others, journal, self, timing, rng, now_s)
        self.snapshot_index = self._restore(keep_entries)
        # pyright sees this file under two names, here and through the link in mesos_actor/.
        self.leadership = Leadership(self)  # pyright: ignore[reportArgumentType]
        self.heard_s: float | None = None
        """When the leader was heard last."""
        self._link_lost = False
        #: voters of the question or the election of a term, ourselves not counted
        self._granted: set[str] = set()
        self._asked_term = 0
        self._may_campaign = False
        """The question was answered by a majority, or the leader asked us to: the next election is real."""
        self._taking_over = False
        self._hello_at_s = now_s
        if not self.members.others:
            self.engine.election_deadline_s = 0.0
        self._assembly = Assembly()

    def _restore(self, keep_entries: int) -> int:
        """Begin from the newest snapshot; its index, 1 for none. Raises StorageError when log and snapshot leave a
        gap."""
        journal = self.journal
        snapshot, fell_back = self._snapshots.load()
        if snapshot is None:
            if journal.first_index > 1 or fell_back:
                raise StorageError(_gap(f"the log begins after entry {journal.first_index} and there is no snapshot"))
            index = 1
        else:
            if journal.first_index > snapshot.index:
                raise StorageError(_gap(f"the log begins after entry {journal.first_index}, the snapshot ends before"))
            if journal.term_at(snapshot.index) != snapshot.term:
                journal.reset(snapshot.index, snapshot.term)  # we died between keeping it and beginning the log anew
            self.machine.restore(snapshot.state)
            index = snapshot.index
            self.engine.rebase(index)
        journal.trim(index, keep_entries)
        for data, at, _ in journal.entries(journal.first_index + 1, 1 << 62):
            if at > index:
                self.members.appended(at, data)
        self.members.applied(index)
        self.members.check_own_disk()
        return index

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.members.identity.member

    @property
    def origin(self) -> Origin:
        return self.members.origin(self.engine.term)

    @property
    def state(self) -> str:
        """As in MemberDescription."""
        if self.members.waiting and not self.members.may_stand:
            return "founding" if self.members.identity.founding else "learner"
        return self.engine.state

    def silent_s(self, now_s: float) -> float | None:
        """How long ago the leader was heard; 0 for the leader itself, None for never."""
        if self.engine.leads:
            return 0.0
        return None if self.heard_s is None else now_s - self.heard_s

    def next_wake_s(self) -> float:
        """When `tick` must be called at the latest; infinity for a group of one that has its leader."""
        engine = self.engine
        if engine.leads and not engine.others:
            return math.inf
        times = [engine.next_heartbeat_s if engine.leads else engine.election_deadline_s]
        if self.members.waiting:
            times.append(self._hello_at_s)
        return min(times)

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Do what is due. The journal must be synced; it may not be afterwards."""
        self.now_s = now_s
        engine = self.engine
        if self.members.waiting and now_s >= self._hello_at_s:
            self._hello_at_s = now_s + HELLO_S
            for peer in self.members.others:
                self.send(peer, self.members.hello(engine.term))
        if not engine.leads and now_s > engine.election_deadline_s and not self._is_free_to_campaign():
            engine.postpone_election(now_s)
            if self.members.may_stand:
                self._ask_first()
        campaigning = self._taking_over
        engine.tick(now_s)
        if campaigning and engine.state != "follower":
            self._taking_over = False
        self.leadership.look_after(now_s)

    def _is_free_to_campaign(self) -> bool:
        if not self.members.may_stand:
            return False
        free, self._may_campaign = self._may_campaign or not self.members.others, False
        return free

    def _ask_first(self) -> None:
        """The question before an election (dissertation 9.6): nobody's term grows because of one who is cut off."""
        engine = self.engine
        self._asked_term, self._granted = engine.term + 1, set()
        question = RequestVote(self.origin, self.journal.last_index, Term(self.journal.last_term), pre=True)
        for peer in self.members.others:
            self.send(peer, question)

    def lost_link(self, peer: str, now_s: float) -> None:
        """The connection with `peer` broke. If it led, it is probably dead: ask for votes soon."""
        self.now_s = now_s
        if peer == self.engine.leader and not self.engine.leads:
            self._link_lost = True
            wait_s = self._timing.lost_link_ms / 1_000 * self._rng.uniform(0.2, 1)
            self.engine.election_deadline_s = min(self.engine.election_deadline_s, now_s + wait_s)

    def _leader_lives(self) -> bool:
        if self.engine.leads:
            return True
        silent_s = self.silent_s(self.now_s)
        recent = silent_s is not None and silent_s < self._timing.election_min_ms / 1_000
        return bool(self.engine.leader) and recent and not self._link_lost

    # -- messages -----------------------------------------------------------------------------------------------------

    def send(self, peer: str, message: Message) -> None:
        self.outbox.append((peer, message))

    def receive(self, peer: str, message: PeerMessage, now_s: float) -> None:
        """A message of the member `peer`. Raises StorageError when this disk must not go on."""
        self.now_s = now_s
        ours, theirs = self.members.cluster_id, message.origin.cluster_id
        if ours and theirs and ours != theirs:
            self.members.complaints.append(
                f"{peer} belongs to cluster {theirs} and this master to {ours}; check --masters and the work "
                "directories"
            )
            return
        self._HANDLERS[type(message)](self, peer, message)

    def _on_hello(self, peer: str, message: Hello) -> None:
        if self.members.on_hello(peer, message):
            self._hello_at_s = self.now_s  # it waits to hear that it was heard
        if not message.answer:
            self.send(peer, self.members.hello(self.engine.term, peer, message.origin.storage_id))
        if tuple(message.members) != self.members.identity.members:
            return  # another list has other majorities: such a disk must never be let in
        if message.learner and not self.members.counts(peer, message.origin.storage_id):
            self.leadership.replace(peer, message.origin.storage_id)

    # -- votes --------------------------------------------------------------------------------------------------------

    def ask_for_vote(self, peer: str, term: int, last_index: int, last_term: int) -> None:
        """(For the engine.) An election of ours begins."""
        self._asked_term, self._granted = term, set()
        self.send(peer, RequestVote(self.origin, last_index, Term(last_term), transfer=self._taking_over))

    def give_vote(self, peer: str, term: int) -> None:
        """(For the engine.) Our vote of this term, written down already, goes to `peer`."""
        self._link_lost = False
        self.send(peer, Vote(self.origin, Term(term), True))

    def _on_request_vote(self, peer: str, message: RequestVote) -> None:
        engine, term = self.engine, message.origin.term
        if not self.members.may_give_votes or not self.members.knows(peer, message.origin.storage_id):
            return
        if message.pre:
            newer = (message.last_term, message.last_index) >= (self.journal.last_term, self.journal.last_index)
            granted = newer and term >= engine.term and not self._leader_lives()
            self.send(peer, Vote(self.origin, Term(term + 1), granted, pre=True))
        elif term < engine.term:
            self.send(peer, Vote(self.origin, term, False))
        elif self._leader_lives() and not message.transfer:
            return  # it cannot have heard that somebody leads
        elif term == engine.term and engine.voted_for == peer and not engine.leads:
            self.give_vote(peer, term)  # our first answer was lost
        else:
            engine.consider(peer, term, message.last_index, message.last_term, self.now_s)

    def _on_vote(self, peer: str, message: Vote) -> None:
        """Voters are counted, not votes."""
        engine = self.engine
        if message.origin.term > engine.term:
            self.adopt(message.origin.term)
            return
        wanted = message.granted and message.term == self._asked_term and peer not in self._granted
        if not wanted or not self.members.counts(peer, message.origin.storage_id):
            return
        if message.pre and message.term == engine.term + 1 and not engine.leads:
            self._granted.add(peer)
            if (len(self._granted) + 1) * 2 > len(self.members.identity.members) and not self._leader_lives():
                self._may_campaign = True
                engine.election_deadline_s = 0.0
        elif not message.pre and message.term == engine.term and engine.state == "candidate":
            self._granted.add(peer)
            engine.count_vote(peer, message.term, self.now_s)

    def _on_take_over(self, peer: str, message: TakeOver) -> None:
        engine = self.engine
        if message.origin.term == engine.term and peer == engine.leader and self.members.may_stand:
            self._may_campaign = self._taking_over = True
            engine.election_deadline_s = 0.0

    def adopt(self, term: int) -> None:
        """A newer term exists. A learner marks its vote in it as given: its predecessor may have given it."""
        self._may_campaign = self._taking_over = False
        self.engine.adopt_term(term, None if self.members.may_stand else self.name)

    # -- following ----------------------------------------------------------------------------------------------------

    def _follow(self, peer: str, term: int) -> bool:
        """`peer` says that it leads in `term`; False when that is over."""
        engine = self.engine
        if term < engine.term or (term == engine.term and engine.leads):
            return False
        if term > engine.term:
            self.adopt(term)
        if peer != engine.leader:
            self._assembly = Assembly()  # another leader's snapshot may be an older one
        engine.follow(peer, self.now_s)
        self.heard_s, self._link_lost, self._may_campaign = self.now_s, False, False
        return True

    def _on_append(self, peer: str, message: AppendEntries) -> None:
        """What agrees is never cut off, and what is committed never contradicted."""
        if not self._follow(peer, message.origin.term):
            self.send(peer, Appended(self.origin, message.round, 0, False))
            return
        journal, previous, entries = self.journal, message.prev_index, message.entries
        if any(entry.index != previous + 1 + at for at, entry in enumerate(entries)):
            self.members.complaints.append(f"{peer} sent entries with a hole")
            return
        first, last = journal.first_index, journal.last_index
        if previous > last:
            self._refuse(peer, message, last + 1)
            return
        if previous < first:  # that part is committed, and in our snapshot
            entries = tuple(entry for entry in entries if entry.index > first)
            previous = max(first, previous)
        elif journal.term_at(previous) != message.prev_term:
            self._refuse(peer, message, self._before_the_conflict(previous))
            return
        matched = self._write(entries, previous)
        self.engine.commit(max(self.engine.commit_index, min(message.commit_index, matched)))
        self.send(peer, Appended(self.origin, message.round, matched + 1, True))

    def _before_the_conflict(self, previous: int) -> int:
        """Where to go on: our whole term that contradicts is passed over at once."""
        journal, lowest = self.journal, max(self.journal.first_index, self.engine.commit_index) + 1
        wrong = journal.term_at(previous)
        while previous > lowest and journal.term_at(previous - 1) == wrong:
            previous -= 1
        return max(previous, self.engine.commit_index + 1)

    def _write(self, entries: tuple[LogEntry, ...], previous: int) -> int:
        """Put what is new into the log; up to where it agrees with the leader's then."""
        journal = self.journal
        for entry in entries:
            known = journal.term_at(entry.index) if entry.index <= journal.last_index else None
            if known != entry.term:
                if known is not None:
                    self._cut(entry.index)
                journal.add(entry.data, entry.index, entry.term)
                self.members.appended(entry.index, entry.data)
            previous = entry.index
        return previous

    def _cut(self, index: int) -> None:
        if index <= self.engine.commit_index:
            raise StorageError(
                f"registry: the leader contradicts entry {index}, which is committed here; stop this master, keep its "
                "directory for a report, and start it with --replace on an empty one"
            )
        self.journal.deleteEntriesFrom(index - self.journal.first_index)
        self.members.truncated(index)

    def _refuse(self, peer: str, message: AppendEntries, next_index: int) -> None:
        self.send(peer, Appended(self.origin, message.round, next_index, False))

    def _on_chunk(self, peer: str, message: InstallChunk) -> None:
        """A snapshot is used only when all of it is here and its checksum is right, and is never an older one."""
        if not self._follow(peer, message.origin.term):
            self.send(peer, Appended(self.origin, message.round, 0, False))
            return
        if message.index <= self.engine.commit_index:
            self.send(peer, Appended(self.origin, message.round, self.engine.commit_index + 1, True))
            return
        blob = self._assembly.add(
            message.index, message.checksum, message.total_bytes, message.offset_bytes, message.data
        )
        if blob is None:
            taken = self._assembly.received_bytes
            self.send(peer, ChunkTaken(self.origin, message.round, message.index, taken))
            return
        try:
            snapshot = decode_snapshot(blob)
        except PeerError as error:
            self.members.complaints.append(f"the snapshot of {peer} cannot be used: {error}")
            return
        self._install(snapshot)
        self.send(peer, Appended(self.origin, message.round, message.index + 1, True))

    def _install(self, snapshot: Snapshot) -> None:
        journal = self.journal
        self.machine.restore(snapshot.state)
        self._snapshots.save(snapshot)
        if journal.term_at(snapshot.index) != snapshot.term:
            journal.reset(snapshot.index, snapshot.term)
            self.members.truncated(0)
        self.engine.rebase(snapshot.index)
        self.snapshot_index = snapshot.index
        self.members.applied(snapshot.index)
        self.members.changed = False  # that snapshot is kept
        self.members.check_own_disk()

    # -- leading ------------------------------------------------------------------------------------------------------

    def send_entries(self) -> None:
        """(For the engine.) A heartbeat is due, or we have just been elected."""
        self.leadership.broadcast()

    def submit(self, data: bytes) -> int:
        """Write a command into the log as leader; its index. It is committed when `apply_some` returns that index in
        this term."""
        index = self.engine.append(data)
        self.members.appended(index, data)
        return index

    def _on_appended(self, peer: str, message: Appended) -> None:
        if message.origin.term > self.engine.term:
            self.adopt(message.origin.term)
        elif message.origin.term == self.engine.term and self.engine.leads:
            self.leadership.on_appended(peer, message)

    def _on_chunk_taken(self, peer: str, message: ChunkTaken) -> None:
        if message.origin.term == self.engine.term and self.engine.leads:
            self.leadership.on_chunk_taken(peer, message)

    # -- the state ----------------------------------------------------------------------------------------------------

    def apply_some(self, at_most: int) -> list[tuple[int, int, Result | None]]:
        """Apply committed entries, so many at most: (index, term, answer) each."""
        done: list[tuple[int, int, Result | None]] = []
        engine = self.engine
        while engine.applied_index < engine.commit_index and len(done) < at_most:
            index = engine.applied_index + 1
            data, _, term = self.journal[index - self.journal.first_index]
            done.append((index, term, self.machine.apply(term, data)))
            if self.observe is not None:
                self.observe(index, term, data)
            engine.applied_index = index
            self.members.applied(index)
            self.leadership.applied()
        return done

    def take_snapshot(self, keep_entries: int) -> int:
        """Keep the state as of now and drop the log before it, but for so many entries; the snapshot's bytes."""
        index = self.engine.applied_index
        term = self.journal.term_at(index)
        assert term is not None
        image = self.machine.image()
        self._snapshots.save(Snapshot(index, term, image))  # safe before anything of the log goes
        self.snapshot_index = index
        self.members.changed = False
        self.journal.trim(index, keep_entries)
        return len(image)

    def encoded_snapshot(self) -> tuple[int, int, bytes] | None:
        """The newest snapshot as it travels: (index, checksum, bytes); None when there is none."""
        snapshot, _ = self._snapshots.load()
        if snapshot is None:
            return None
        blob = encode_snapshot(snapshot)
        return snapshot.index, zlib.crc32(blob), blob

    _HANDLERS: dict[type, Callable[[Replica, str, PeerMessage], None]] = {
        RequestVote: _on_request_vote,  # type: ignore[dict-item]
        Vote: _on_vote,  # type: ignore[dict-item]
        AppendEntries: _on_append,  # type: ignore[dict-item]
        Appended: _on_appended,  # type: ignore[dict-item]
        InstallChunk: _on_chunk,  # type: ignore[dict-item]
        ChunkTaken: _on_chunk_taken,  # type: ignore[dict-item]
        TakeOver: _on_take_over,  # type: ignore[dict-item]
        Hello: _on_hello,  # type: ignore[dict-item]
    }


def _gap(what: str) -> str:
    return (
        f"registry: {what}: entries are missing; start this master with --replace on an empty directory while all "
        "others "
        "run"
    )
