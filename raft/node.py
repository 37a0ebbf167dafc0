"""The `registry` mailbox of a master's process: a replica with its disk, its peers, its master and its operators.

A port (actors/ports.py), so that the same class runs under the real runtime and in the simulator: what it touches is a
`Files` and its outlet. One turn: hand everything over to the replica; let a leader's entries leave; then, in a call of
its own so that they are really on their way, sync once, tick, send the rest, apply and answer. Whatever this replica
says that depends on its disk is said after the sync.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from mesos_actor.actors.core.registry import Applied
from mesos_actor.actors.errors import InvalidInput, StorageError
from mesos_actor.actors.ids import Address, ClusterId, Node, OperationId, Principal, Term, address, local, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import WhoLeads
from mesos_actor.actors.messages.raft import (
    Appended,
    AppendEntries,
    ChunkTaken,
    DescribeMember,
    Hello,
    InstallChunk,
    ReadRegistry,
    RequestVote,
    TakeOver,
    TransferLeadership,
    Vote,
)
from mesos_actor.actors.messages.registry import (
    Committed,
    Following,
    FoundCluster,
    Leading,
    ProposalRefused,
    Propose,
)
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from mesos_actor.actors.ports import Outlet, TimerHandle
from mesos_actor.raft import desk
from mesos_actor.raft.directory import Start, names_of, open_directory
from mesos_actor.raft.engine import Timing
from mesos_actor.raft.files import Files
from mesos_actor.raft.journal import MAX_COMMAND_BYTES, write_identity
from mesos_actor.raft.machine import Machine, Proposal, Result, encode_proposal
from mesos_actor.raft.replica import Replica

PEER_MESSAGES = (RequestVote, Vote, AppendEntries, Appended, InstallChunk, ChunkTaken, TakeOver, Hello)
MAY_SPEAK = frozenset({Principal("cluster"), Principal("local"), Principal("anonymous")})
"""Principals that may be replicas and operators: holders of the cluster's key, this process, and everybody when the
cluster runs without keys."""
NOBODY = Address("")
APPLIED_A_TURN = 2_000
"""Entries applied before other messages get their turn."""
MAX_PENDING = 20_000
"""Proposals in the log that wait to be committed; past it further ones are refused."""


class NodeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a replica behaves."""

    timing: Timing = Timing()
    compact_entries: int = 20_000
    """A snapshot is taken after so many entries."""
    keep_entries: int = 5_000
    """So many stay in the log behind a snapshot, for followers that are a little late."""
    segment_bytes: int = 8 << 20


class RegistryPort:
    """`me` and `members` are `host:port`; of a group of one they do not matter. `open_files` opens its directory.
    `observe(index, term, data)` is told of every entry that is applied."""

    urgent = True
    """(See ports.Urgent.)"""

    def __init__(
        self,
        open_files: Callable[[], Files],
        me: str,
        members: tuple[str, ...],
        start: Start = "open",
        key_fingerprint: str = "",
        settings: NodeSettings | None = None,
        master: Address = local("master"),  # noqa: B008 (a constant string)
        observe: Callable[[int, int, bytes], None] | None = None,
    ) -> None:
        self.me, self._members = names_of(me, members)
        self.settings = settings or NodeSettings()
        self._open_files = open_files
        self._start_how: Start = start
        self._key_fingerprint = key_fingerprint
        self._master = master
        self._observe = observe
        self._names = {Node(f"tcp://{name}"): name for name in self._members if name != self.me}
        #: index -> (term, operation, who asked) of proposals in the log
        self._pending: dict[int, tuple[int, OperationId, Address]] = {}
        self._told: Message | None = None
        """What the master was told last: Leading or Following."""
        self._led_in = 0
        """The term in which the master was told last that it leads."""
        self._founding_in = 0
        """The term in which we proposed to found the cluster."""
        self._settling = False
        self._timer: TimerHandle | None = None
        self._timer_s = 0.0
        self._refused_senders: set[str] = set()
        self._closed = False

    # -- the port -----------------------------------------------------------------------------------------------------

    def start(self, outlet: Outlet) -> None:
        """Open the disk. Raises StorageError and ConfigError with what is wrong and what to do."""
        self._outlet = outlet
        self._files = self._open_files()
        settings = self.settings
        try:
            opened = open_directory(
                self._files, self.me, self._members, self._start_how, settings.segment_bytes, outlet.rng
            )
            machine = Machine()
            self.replica = Replica(
                opened.identity,
                opened.journal,
                opened.snapshots,
                machine,
                settings.timing,
                outlet.rng,
                self._now_s(),
                settings.keep_entries,
            )
            self._check_key()
        except BaseException:
            self._files.close()
            raise
        self.replica.observe = self._observe
        self._desk = desk.Desk(self.replica, outlet)
        if opened.journal.cut_bytes:
            self._log("registry_log_cut", "warning", bytes=opened.journal.cut_bytes)
        self._outlet.call_later(0, self._settle)
        self._settling = True

    def _check_key(self) -> None:
        """It is kept on the disk as soon as the records are those of a cluster that knows this disk (what a backup says
        of its key is void), since a master with another one is never told anything. Raises StorageError."""
        machine, members = self.replica.machine, self.replica.members
        cluster, known = machine.state.cluster, members.identity.key_fingerprint
        if known is None and cluster is not None and machine.disk_of(self.me) == members.identity.storage_id:
            known = cluster.key_fingerprint
            members.identity = msgspec.structs.replace(members.identity, key_fingerprint=known)
            members.unsaved = True
        if known not in (None, self._key_fingerprint):
            raise StorageError(
                f"registry: this cluster has the key {known or '(none)'}, and this master was given "
                f"{self._key_fingerprint or '(none)'}; start it with the cluster's own --key-dir"
            )

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        try:
            self._receive(sender, principal, message)
        except Exception as error:
            self._end_by(error)
            raise

    def _receive(self, sender: Address, principal: Principal, message: Message) -> None:
        if isinstance(message, PEER_MESSAGES):
            name = self._names.get(node_of(sender))
            if name is None or principal not in MAY_SPEAK:
                self._refuse_stranger(sender, principal, message)
            else:
                self.replica.receive(name, message, self._now_s())
        elif isinstance(message, (DescribeMember, TransferLeadership, ReadRegistry)):
            if principal in MAY_SPEAK:
                self._on_operator(sender, message)
            else:
                self._refuse_stranger(sender, principal, message)
        elif principal != "local":
            self._refuse_stranger(sender, principal, message)
        elif isinstance(message, Propose):
            self._on_propose(sender, message)
        elif isinstance(message, WhoLeads):
            if isinstance(self._told, Following):
                self._outlet.send(sender, self._told)
            else:
                self._told = None  # a master that was started again hears everything again, what is under way too
        else:
            self._log("unexpected_message", "warning", kind=type(message).__name__, sender=sender)

    def on_link_lost(self, node: Node) -> None:
        """(See ports.LinkListener.)"""
        name = self._names.get(node)
        if name is not None:
            self.replica.lost_link(name, self._now_s())
            self._arm()

    def on_flush(self) -> None:
        """The turn's messages are in: let a leader's entries go, then settle."""
        try:
            self._flush()
        except Exception as error:
            self._end_by(error)
            raise

    def _flush(self) -> None:
        self.replica.leadership.flush()
        if not self.replica.journal.dirty:
            self._settle()
            return
        early = [item for item in self.replica.outbox if isinstance(item[1], AppendEntries)]
        if early:
            self.replica.outbox = [item for item in self.replica.outbox if not isinstance(item[1], AppendEntries)]
            self._emit(early)
        if not self._settling:
            self._settling = True
            self._outlet.call_later(0, self._settle)

    def close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self.replica.journal.sync()
        self._files.close()

    # -- a turn -------------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """One turn, if there is a process to have it."""
        self._settling = False
        if self._closed:
            return
        try:
            self._turn()
        except Exception as error:
            self._end_by(error)
            raise  # to be logged with its traceback

    def _end_by(self, error: Exception) -> None:
        """A bug ends the process as a bad disk would: a replica that has stopped halfway must not go on, and one that
        is started again knows nothing that is not on its disk."""
        if not isinstance(error, StorageError):
            self._settling = True  # there is no next turn
            text = f"registry: a bug has stopped this replica halfway, and it must not go on: {error!r}"
            self._outlet.call_later(0, lambda: self._end(text))

    @staticmethod
    def _end(text: str) -> None:
        raise StorageError(text)

    def _turn(self) -> None:
        """Everything that was written is safe now; then all that waited for it."""
        replica = self.replica
        self._keep_identity()
        self._sync()
        replica.tick(self._now_s())
        self._sync()
        outbox, replica.outbox = replica.outbox, []
        self._emit(outbox)
        applied = replica.apply_some(APPLIED_A_TURN)
        for index, term, result in applied:
            if index in self._pending:
                self._answer(index, term, result)
        self._compact()
        self._check_key()
        if replica.members.settle():
            self._log("registry_member", disk=replica.members.identity.storage_id[:8])
        self._keep_identity()
        self._found_if_needed()
        self._tell_master()
        self._desk.settle()
        for text in replica.members.complaints:
            self._log("registry_warning", "warning", text=text)
        replica.members.complaints.clear()
        if self._has_more():
            self._settling = True
            self._outlet.call_later(0, self._settle)
        self._arm()

    def _has_more(self) -> bool:
        """Whether there is something to do before anything else comes."""
        engine, journal = self.replica.engine, self.replica.journal
        alone = engine.leads and not engine.others and engine.commit_index < journal.last_index
        return alone or engine.applied_index < engine.commit_index or journal.dirty or bool(self.replica.outbox)

    def _keep_identity(self) -> None:
        """Before anything is said that depends on it."""
        if self.replica.members.unsaved:
            write_identity(self._files, self.replica.members.identity)
            self.replica.members.unsaved = False

    def _sync(self) -> None:
        if self.replica.journal.dirty:
            self.replica.journal.sync()

    def _emit(self, messages: list[tuple[str, Message]]) -> None:
        for name, message in messages:
            self._outlet.send(address(Node(f"tcp://{name}"), self._outlet.name), message)

    def _compact(self) -> None:
        """Keep a snapshot when it is time, or when what it holds must be known at the next start already."""
        replica = self.replica
        due = replica.engine.applied_index - replica.snapshot_index >= self.settings.compact_entries
        if due or replica.members.changed:
            size = replica.take_snapshot(self.settings.keep_entries)
            self._log("registry_snapshot", index=replica.snapshot_index, bytes=size)

    def _arm(self) -> None:
        """Wake up when the replica has something to do."""
        wake_s = self.replica.next_wake_s()
        if self._timer is not None:
            if self._timer_s <= wake_s:
                return
            self._timer.cancel()
            self._timer = None
        if wake_s == math.inf:
            return
        self._timer_s = wake_s
        delay_us = max(0, int((wake_s - self._now_s()) * 1_000_000)) + 1_000
        self._timer = self._outlet.call_later(delay_us, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._now_s() < self.replica.next_wake_s():
            self._arm()  # it was postponed meanwhile, as by every heartbeat
        elif not self._settling:
            self._settle()

    # -- the master ---------------------------------------------------------------------------------------------------

    def _on_propose(self, sender: Address, message: Propose) -> None:
        replica, term = self.replica, self.replica.engine.term
        if not replica.leadership.ready:
            self._refuse(sender, message.operation_id, "not-leading", "This master does not lead", self._leader())
        elif message.term != term:
            text = f"Proposed in term {message.term}, but it is term {term}"
            self._refuse(sender, message.operation_id, "stale-term", text)
        elif replica.leadership.transferring or len(self._pending) >= MAX_PENDING:
            text = f"{len(self._pending)} proposals wait, or the lead is being given away; ask again"
            self._refuse(sender, message.operation_id, "full", text)
        else:
            data = encode_proposal(Proposal(message.operation_id, message.term, message.command, message.request_id))
            if len(data) > MAX_COMMAND_BYTES:
                text = (
                    f"{type(message.command).__name__} has {len(data)} bytes; at most {MAX_COMMAND_BYTES} can be kept"
                )
                self._refuse(sender, message.operation_id, "invalid", text)
            else:
                self._pending[replica.submit(data)] = (term, message.operation_id, sender)

    def _refuse(self, to: Address, operation_id: OperationId, reason: str, text: str, leader: Address = NOBODY) -> None:
        self._outlet.send(to, ProposalRefused(operation_id, reason, text, leader))

    def _answer(self, index: int, term: int, result: Result | None) -> None:
        """The entry at `index` is committed: was it ours, of that term?"""
        expected, operation_id, sender = self._pending.pop(index)
        if term != expected or result is None:
            self._refuse(sender, operation_id, "stale-term", "Another leader wrote this entry", self._leader())
        elif isinstance(result.outcome, Applied):
            committed = Committed(operation_id, index, result.outcome.records, result.outcome.removed)
            self._outlet.send(sender, committed)
        else:
            self._refuse(sender, operation_id, result.outcome.reason, result.outcome.text)

    def _found_if_needed(self) -> None:
        """The first thing that the first leader does."""
        replica = self.replica
        term = replica.engine.term
        if not replica.members.identity.founding or not replica.leadership.ready or self._founding_in == term:
            return
        self._founding_in = term
        command = FoundCluster(
            ClusterId(f"{self._outlet.rng.getrandbits(64):016x}"),
            replica.members.disks,
            self._key_fingerprint,
            self._outlet.now_us(),
        )
        replica.submit(encode_proposal(Proposal(OperationId("found"), Term(term), command)))
        self._settling = True
        self._outlet.call_later(0, self._settle)
        replica.leadership.flush()

    def _tell_master(self) -> None:
        """Whether it leads, when that has changed."""
        replica = self.replica
        engine, cluster = replica.engine, replica.machine.state.cluster
        told = self._told
        if replica.leadership.ready and cluster is not None and not replica.members.identity.founding:
            again = told is None and any(term == engine.term for term, _, _ in self._pending.values())
            if not again and (not isinstance(told, Leading) or told.term != engine.term):
                leading = Leading(Term(engine.term), cluster.cluster_id, replica.machine.state.records())
                self._told = Leading(leading.term, leading.cluster_id)  # without holding on to all records
                self._pending = {index: item for index, item in self._pending.items() if item[0] == engine.term}
                self._outlet.send(self._master, leading)
                if self._led_in != engine.term:
                    self._led_in = engine.term
                    self._log("registry_leads", cluster=cluster.cluster_id, term=engine.term)
        elif not engine.leads:
            following = Following(Term(engine.term), self._leader())
            if following != told and (isinstance(told, Leading) or told is None or following.leader):
                self._told = following
                self._pending.clear()
                self._outlet.send(self._master, following)
                self._log("registry_follows", term=engine.term, leader=following.leader)

    def _leader(self) -> Address:
        """The leading master's mailbox; empty when none is known."""
        leader = self.replica.engine.leader
        return address(Node(f"tcp://{leader}"), "master") if leader and leader != self.me else Address("")

    # -- operators ----------------------------------------------------------------------------------------------------

    def _on_operator(self, sender: Address, message: DescribeMember | TransferLeadership | ReadRegistry) -> None:
        try:
            match message:
                case DescribeMember():
                    self._outlet.send(sender, self._desk.describe(message, self._leader(), self._now_s()))
                case TransferLeadership():
                    self._desk.transfer(sender, message, self._leader())
                case ReadRegistry():
                    self._desk.read(sender, message, self._leader(), self._now_s())
        except InvalidInput as error:
            self._outlet.send(sender, OperationResult(message.operation_id, False, "invalid", str(error)))

    def _refuse_stranger(self, sender: Address, principal: Principal, message: Message) -> None:
        """Logged once a sender and kind; peers' messages of a stranger are not answered."""
        kind = type(message).__name__
        if len(self._refused_senders) < 1_000 and f"{sender} {kind}" not in self._refused_senders:
            self._refused_senders.add(f"{sender} {kind}")
            self._log("unauthorized", "warning", sender=sender, principal=principal, about=kind)
        if not isinstance(message, PEER_MESSAGES):
            operation_id = getattr(message, "operation_id", OperationId(""))
            text = "The registry obeys its own process and holders of the cluster's key only"
            self._outlet.send(sender, Refused("unauthorized", text, operation_id=operation_id, about=kind))

    # -- shared -------------------------------------------------------------------------------------------------------

    def _now_s(self) -> float:
        return self._outlet.now_us() / 1_000_000

    def _log(self, event: str, level: Literal["info", "warning"] = "info", **fields: Any) -> None:
        self._outlet.log(event, level, **fields)
