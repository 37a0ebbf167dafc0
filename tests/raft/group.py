"""Replicas without a network, on a clock that is only moved: every message is in a list, and tests say what becomes of
it. A turn of a member is in the order that raft/replica.py demands; `settle` is the part of it after the early entries.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from mesos_actor.actors.ids import ClusterId, OperationId, Role, Term
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.raft import AppendEntries, LogEntry, Origin
from mesos_actor.actors.messages.registry import Command, FoundCluster, SetWeight
from mesos_actor.raft.directory import Start, open_directory
from mesos_actor.raft.engine import NO_OP, Timing
from mesos_actor.raft.files import MemoryFiles
from mesos_actor.raft.journal import Identity, Journal, write_identity
from mesos_actor.raft.machine import Machine, Proposal, Result, encode_proposal
from mesos_actor.raft.replica import PeerMessage, Replica
from mesos_actor.raft.snapshot import SnapshotStore

TIMING = Timing()
STEP_S = 0.01
CLUSTER = ClusterId("cluster")
NEVER = 1 << 40
FLOOD = 5_000


class NotSoon(AssertionError):
    """What was waited for did not come."""


class Letter:
    """A message on its way."""

    __slots__ = ("destination", "message", "source")

    def __init__(self, source: str, destination: str, message: Message) -> None:
        self.source, self.destination, self.message = source, destination, message

    def __repr__(self) -> str:
        return f"{self.source}>{self.destination} {self.message}"


class Group:
    """`size` masters called `a`, `b`, ..., each with a disk in memory. Nothing happens by itself."""

    def __init__(
        self,
        size: int = 3,
        seed: int = 0,
        *,
        compact_entries: int = NEVER,
        keep_entries: int = 0,
        segment_bytes: int = 1 << 20,
        timing: Timing = TIMING,
        start: bool = True,
    ) -> None:
        self.names = tuple("abcdefg"[:size])
        self.rng = random.Random(seed)
        self.compact_entries, self.keep_entries, self.segment_bytes = compact_entries, keep_entries, segment_bytes
        self.timing = timing
        self.now_s = 1_000.0
        self.files = {name: MemoryFiles() for name in self.names}
        self.up: dict[str, Replica] = {}
        self.queue: list[Letter] = []
        """Everything on its way, in the order in which it was sent."""
        self.cut: set[tuple[str, str]] = set()
        """(source, destination) between which everything is lost."""
        self.lose: Callable[[Letter], bool] = lambda _letter: False
        """Whether a letter is lost when it is sent."""
        self.applied: dict[str, list[tuple[int, int, bytes]]] = {name: [] for name in self.names}
        """(index, term, data) by all lives of a member."""
        self.answers: dict[OperationId, tuple[str, int, Result]] = {}
        """What a leader may answer its clients: operation -> (leader, index, result)."""
        self.complaints: list[tuple[str, str]] = []
        self._pending: dict[str, dict[int, tuple[int, OperationId]]] = {name: {} for name in self.names}
        self._founding: dict[str, int] = {}
        self._operations = 0
        if start:
            for name in self.names:
                self.start(name, "initialize")

    # -- life ---------------------------------------------------------------------------------------------------------

    def start(self, name: str, how: Start = "open") -> Replica:
        """A new process. Raises what the directory or the replica has against it."""
        opened = open_directory(self.files[name], name, self.names, how, self.segment_bytes, self.rng)
        self.up[name] = Replica(
            opened.identity,
            opened.journal,
            opened.snapshots,
            Machine(),
            self.timing,
            random.Random(self.rng.random()),
            self.now_s,
            self.keep_entries,
        )
        self.up[name].observe = lambda index, term, data: self.applied[name].append((index, term, data))
        self._pending[name], self._founding[name] = {}, 0
        return self.up[name]

    def crash(self, name: str) -> None:
        """Power cut: what was not synced is lost, and so is what is on its way to it."""
        self.kill(name)
        self.files[name].crash()

    def kill(self, name: str) -> None:
        """kill -9: the files keep what was written to them."""
        del self.up[name]
        self.files[name].close()
        self.queue = [letter for letter in self.queue if letter.destination != name]

    def restart(self, name: str) -> Replica:
        self.crash(name)
        return self.start(name)

    def isolate(self, name: str, *others: str) -> None:
        """Cut `name` off from `others`, by default from everybody."""
        for other in others or self.names:
            self.cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self.cut.clear()
        self.lose = lambda _letter: False

    # -- turns --------------------------------------------------------------------------------------------------------

    def receive(self, letter: Letter) -> None:
        """Hand a letter over and let early entries go; `settle` is still to come."""
        replica = self.up.get(letter.destination)
        if replica is None or (letter.source, letter.destination) in self.cut:
            return
        message = letter.message
        assert isinstance(message, PeerMessage)
        replica.receive(letter.source, message, self.now_s)
        self.flush(letter.destination)

    def flush(self, name: str) -> None:
        """A leader's entries leave before its own sync."""
        replica = self.up[name]
        replica.leadership.flush()
        early = [item for item in replica.outbox if isinstance(item[1], AppendEntries)]
        replica.outbox = [item for item in replica.outbox if not isinstance(item[1], AppendEntries)]
        self._send(name, early)

    def settle(self, name: str) -> None:
        """Sync, tick, sync, send, apply, answer."""
        replica = self.up[name]
        self.keep_identity(name)
        self.sync(replica)
        replica.tick(self.now_s)
        self.sync(replica)
        outbox, replica.outbox = replica.outbox, []
        self._send(name, outbox)
        for index, term, result in replica.apply_some(NEVER):
            expected, operation = self._pending[name].pop(index, (0, OperationId("")))
            if result is not None and term == expected and result.operation_id == operation:
                self.answers[operation] = (name, index, result)
        due = replica.engine.applied_index - replica.snapshot_index >= self.compact_entries
        if due or replica.members.changed:
            replica.take_snapshot(self.keep_entries)
        replica.members.settle()
        self.keep_identity(name)
        self._found_if_needed(name)
        self.complaints += [(name, text) for text in replica.members.complaints]
        replica.members.complaints.clear()

    def keep_identity(self, name: str) -> None:
        members = self.up[name].members
        if members.unsaved:
            write_identity(self.files[name], members.identity)
            members.unsaved = False

    def sync(self, replica: Replica) -> None:
        """(A place to plant a bug.)"""
        replica.journal.sync()

    def _found_if_needed(self, name: str) -> None:
        replica = self.up[name]
        term = replica.engine.term
        if replica.members.identity.founding and replica.leadership.ready and self._founding[name] != term:
            self._founding[name] = term
            command = FoundCluster(CLUSTER, replica.members.disks, "", 0)
            replica.submit(encode_proposal(Proposal(OperationId("found"), Term(term), command)))

    def _send(self, name: str, messages: list[tuple[str, Message]]) -> None:
        for peer, message in messages:
            letter = Letter(name, peer, message)
            if (name, peer) not in self.cut and not self.lose(letter):
                self.queue.append(letter)

    # -- time ---------------------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Deliver what is on its way, in order, then let every member settle, and move the clock a little."""
        letters, self.queue = self.queue, []
        if len(letters) > FLOOD:
            raise NotSoon(f"{len(letters)} messages are on their way at once")
        for letter in letters:
            self.receive(letter)
        for name in list(self.up):
            self.flush(name)
            self.settle(name)
        self.now_s += STEP_S

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            self.turn()

    def until(self, reached: Callable[[], bool], within_s: float = 30.0) -> None:
        end_s = self.now_s + within_s
        while not reached():
            if self.now_s > end_s:
                raise NotSoon(f"not within {within_s} s; {self.complaints[-3:]}")
            self.turn()

    def elect(self, name: str) -> Replica:
        """Let `name` lead, ready to serve. Whoever leads now must be cut off from the others, or down, or `name`."""

        def leads() -> bool:
            for other, replica in self.up.items():
                if other != name and not replica.engine.leads:
                    replica.engine.election_deadline_s = self.now_s + 5
            return self.up[name].leadership.ready

        self.until(leads)
        return self.up[name]

    # -- shorthands ---------------------------------------------------------------------------------------------------

    @property
    def leader(self) -> Replica:
        """Of those that lead and are ready, the one of the newest term."""
        ready = [replica for replica in self.up.values() if replica.leadership.ready]
        if not ready:
            raise NotSoon("nobody leads")
        return max(ready, key=lambda replica: replica.engine.term)

    def submit(self, name: str, weight_milli: int = 1_000, role: str = "r") -> OperationId:
        """Propose a weight at the leader `name`, without a turn."""
        self._operations += 1
        return self.propose(name, SetWeight(Role(role), weight_milli), f"client-P{self._operations}")

    def propose(self, name: str, command: Command, operation: str) -> OperationId:
        replica, operation_id = self.up[name], OperationId(operation)
        term = replica.engine.term
        index = replica.submit(encode_proposal(Proposal(operation_id, Term(term), command)))
        self._pending[name][index] = (term, operation_id)
        return operation_id

    def write(self, name: str, weight_milli: int = 1_000, role: str = "r") -> OperationId:
        """The same, until it is acknowledged."""
        operation = self.submit(name, weight_milli, role)
        self.until(lambda: operation in self.answers)
        return operation

    def weight(self, name: str, role: str = "r") -> int:
        """What `name` has applied; 0 for none."""
        found = self.up[name].machine.state.weights.get(Role(role))
        return 0 if found is None else found.weight_milli

    def same(self) -> bool:
        """Whether all that are up have applied all of the same log."""
        replicas = list(self.up.values())
        first = replicas[0].engine.applied_index
        return all(replica.engine.applied_index == replica.journal.last_index == first for replica in replicas)

    def check(self) -> None:
        """State machine safety: whatever is applied at an index is the same everywhere, and what was acknowledged is
        there."""
        at: dict[int, tuple[int, bytes]] = {}
        for name, applied in self.applied.items():
            for index, term, data in applied:
                assert at.setdefault(index, (term, data)) == (term, data), f"{name} applied another entry at {index}"
        for operation, (_, index, _) in self.answers.items():
            assert operation.encode() in at[index][1], f"{operation} was acknowledged and is not at {index}"
        images = {replica.engine.applied_index: replica.machine.image() for replica in self.up.values()}
        for replica in self.up.values():
            assert replica.machine.image() == images[replica.engine.applied_index]


def founded(size: int = 3, seed: int = 0, leader: str = "a", **how: Any) -> Group:
    """A group that has been founded and is led by `leader`; everybody has applied everything."""
    group = Group(size, seed, **how)
    group.until(lambda: all(not replica.members.missing for replica in group.up.values()))
    group.elect(leader)
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))
    return group


# -- one replica among peers that tests play -------------------------------------------------------------------------

MEMBERS = ("a", "b", "c")
DISKS = {name: name * 32 for name in "abcdef"}


class Lone:
    """The member `a` of `members`, founded; what it says is in `said`. Tests play the others."""

    def __init__(self, members: tuple[str, ...] = MEMBERS, seed: int = 0, segment_bytes: int = 1 << 20) -> None:
        self.members = members
        self.files = MemoryFiles()
        self.now_s = 1_000.0
        self.seed = seed
        self.segment_bytes = segment_bytes
        identity = Identity("a", members, DISKS["a"])
        journal = Journal.create(self.files, identity, segment_bytes)
        command = FoundCluster(CLUSTER, tuple((name, DISKS[name]) for name in members), "", 0)
        journal.add(encode_proposal(Proposal(OperationId("found"), Term(1), command)), 2, 1)
        journal.setCurrentTerm(1, None)
        journal.sync()
        write_identity(self.files, identity)
        self.said: list[tuple[str, Message]] = []
        self.applied: list[tuple[int, int, bytes]] = []
        self.replica = self.start()

    def start(self) -> Replica:
        opened = open_directory(self.files, "a", self.members, "open", self.segment_bytes, random.Random(self.seed))
        self.replica = Replica(
            opened.identity,
            opened.journal,
            opened.snapshots,
            Machine(),
            TIMING,
            random.Random(self.seed),
            self.now_s,
            0,
        )
        self.replica.observe = lambda index, term, data: self.applied.append((index, term, data))
        return self.replica

    def restart(self) -> Replica:
        self.files.crash()
        return self.start()

    def origin(self, name: str, term: int) -> Origin:
        return Origin(CLUSTER, DISKS[name], Term(term))

    def hear(self, peer: str, message: PeerMessage) -> None:
        """Without a turn."""
        self.replica.receive(peer, message, self.now_s)

    def settle(self) -> list[tuple[str, Message]]:
        """What it says after its sync."""
        replica = self.replica
        replica.leadership.flush()
        replica.journal.sync()
        replica.tick(self.now_s)
        replica.journal.sync()
        said, replica.outbox = replica.outbox, []
        replica.apply_some(NEVER)
        self.said += said
        return said

    def append(
        self, peer: str, term: int, previous: tuple[int, int], entries: list[LogEntry], commit: int = 1
    ) -> AppendEntries:
        return AppendEntries(self.origin(peer, term), previous[0], Term(previous[1]), commit, 1, tuple(entries))

    def log(self) -> list[tuple[bytes, int, int]]:
        """What a restart after a power cut would find."""
        journal = Journal.open(_copied(self.files), self.replica.members.identity, self.segment_bytes)
        return journal[0:]

    @property
    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.files)


def _copied(files: MemoryFiles) -> MemoryFiles:
    copy, unsynced = MemoryFiles(), files.unsynced_bytes()
    for name in files.names():
        data = files.read(name)
        copy.append(name, data[: len(data) - unsynced.get(name, 0)])
    copy.sync()
    return copy


def entry(index: int, term: int, weight_milli: int = 0) -> LogEntry:
    """An entry that sets the weight of role `r`; without one, a no-op."""
    if not weight_milli:
        return LogEntry(index, Term(term), NO_OP)
    command = SetWeight(Role("r"), weight_milli)
    data = encode_proposal(Proposal(OperationId(f"other-P{index * 1_000 + term}"), Term(term), command))
    return LogEntry(index, Term(term), data)
