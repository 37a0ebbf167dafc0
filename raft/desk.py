"""What a replica answers operators: how it stands, giving the lead away, the whole registry in pieces."""

from __future__ import annotations

from mesos_actor.actors.ids import Address, OperationId, address
from mesos_actor.actors.messages.raft import (
    DescribeMember,
    MemberDescription,
    Peer,
    ReadRegistry,
    RegistryPiece,
    TransferLeadership,
)
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from mesos_actor.actors.ports import Outlet
from mesos_actor.raft.backup import encode_backup
from mesos_actor.raft.replica import Replica

NOBODY = Address("")
PIECE_BYTES = 1 << 20
MAX_KEPT = 2
"""Texts of the registry kept for readers that are half through; the oldest goes, and its reader begins anew."""
MAX_READERS = 100
"""Readers that wait for their first piece; more are refused."""
MAX_TRANSFERS = 100
"""Operators that wait for a transfer; more are refused."""


class Desk:
    """One a process."""

    def __init__(self, replica: Replica, outlet: Outlet) -> None:
        self._replica = replica
        self._outlet = outlet
        #: index -> the text as of then
        self._texts: dict[int, bytes] = {}
        #: operation -> who asked
        self._readers: dict[OperationId, Address] = {}
        #: operation -> (who asked, our term then)
        self._transfers: dict[OperationId, tuple[Address, int]] = {}

    def describe(self, message: DescribeMember, leader: Address, now_s: float) -> MemberDescription:
        """How this replica stands."""
        replica = self._replica
        engine, journal = replica.engine, replica.journal
        peers: tuple[Peer, ...] = ()
        if engine.leads:
            leader = address(self._outlet.node, "master")
            peers = tuple(
                Peer(name, progress.match_index, int((now_s - progress.answered_s) * 1_000))
                for name, progress in replica.leadership.progress.items()
            )
        return MemberDescription(
            operation_id=message.operation_id,
            name=self._outlet.node.removeprefix("tcp://"),
            state=replica.state,
            origin=replica.origin,
            leader=leader,
            first_index=journal.first_index,
            last_index=journal.last_index,
            commit_index=engine.commit_index,
            applied_index=engine.applied_index,
            snapshot_index=replica.snapshot_index,
            log_bytes=journal.size_bytes,
            silent_ms=self._silent_ms(now_s),
            missing=replica.members.missing,
            peers=peers,
        )

    def _silent_ms(self, now_s: float) -> int:
        silent_s = self._replica.silent_s(now_s)
        return -1 if silent_s is None else int(silent_s * 1_000)

    # -- giving the lead away -----------------------------------------------------------------------------------------

    def transfer(self, sender: Address, message: TransferLeadership, leader: Address) -> None:
        """Begin; the answer follows when this replica no longer leads, or has given up."""
        if not self._replica.engine.leads:
            text = "This master does not lead; ask the leader"
            self._refuse(sender, message.operation_id, "not-leading", text, leader)
            return
        refusal = (
            f"{MAX_TRANSFERS} operators wait already"
            if len(self._transfers) >= MAX_TRANSFERS
            else self._replica.leadership.transfer(message.to)
        )
        if refusal:
            self._outlet.send(sender, OperationResult(message.operation_id, False, "invalid", refusal))
        else:
            self._transfers[message.operation_id] = (sender, self._replica.engine.term)

    # -- reading ------------------------------------------------------------------------------------------------------

    def read(self, sender: Address, message: ReadRegistry, leader: Address, now_s: float) -> None:
        """The piece asked for; the first of a leader only once it is sure to lead still."""
        replica = self._replica
        if message.index:
            text = self._texts.get(message.index)
            if text is None:
                self._refuse(sender, message.operation_id, "gone", "This state is no longer kept; begin anew")
            else:
                self._send_piece(sender, message.operation_id, message.index, text, message.offset_bytes)
        elif replica.machine.state.cluster is None and (message.stale or replica.leadership.ready):
            text_ = "This master knows of no cluster yet: it waits for the others; see: mesos-actor masters"
            self._refuse(sender, message.operation_id, "unavailable", text_)
        elif message.stale:
            self._send_first(sender, message.operation_id)
        elif len(self._readers) < MAX_READERS and replica.leadership.read(message.operation_id):
            self._readers[message.operation_id] = sender
        else:
            text_ = "This master does not lead; ask the leader, or this one with --stale"
            self._refuse(sender, message.operation_id, "not-leading", text_, leader)

    def settle(self) -> None:
        """The replica has gone on: answer whoever can be answered now."""
        replica = self._replica
        for token in replica.leadership.ready_reads():
            sender = self._readers.pop(OperationId(token), None)
            if sender is not None:
                self._send_first(sender, OperationId(token))
        if self._readers and not replica.engine.leads:
            for operation_id, sender in self._readers.items():
                self._refuse(sender, operation_id, "not-leading", "This master no longer leads; ask again")
            self._readers.clear()
        for operation_id, (sender, term) in list(self._transfers.items()):
            leads = replica.engine.leads and replica.engine.term == term
            if not leads or not replica.leadership.transferring:
                text = "" if not leads else "The other master did not take over in time; this one still leads"
                self._outlet.send(
                    sender, OperationResult(operation_id, not leads, "unavailable" if leads else "", text)
                )
                del self._transfers[operation_id]

    def _send_first(self, sender: Address, operation_id: OperationId) -> None:
        replica = self._replica
        index = replica.engine.applied_index
        if index not in self._texts:
            term = replica.journal.term_at(index) or 0
            records = replica.machine.state.records()
            self._texts[index] = encode_backup(records, index, term, self._outlet.now_us())
            while len(self._texts) > MAX_KEPT:
                del self._texts[next(iter(self._texts))]
        self._send_piece(sender, operation_id, index, self._texts[index], 0)

    def _send_piece(self, sender: Address, operation_id: OperationId, index: int, text: bytes, offset: int) -> None:
        leader = self._replica.engine.leader
        here = address(self._outlet.node, "master")
        self._outlet.send(
            sender,
            RegistryPiece(
                operation_id=operation_id,
                index=index,
                total_bytes=len(text),
                offset_bytes=offset,
                data=text[offset : offset + PIECE_BYTES] if offset >= 0 else b"",
                leader=here if self._replica.engine.leads else Address(f"tcp://{leader}/master" if leader else ""),
                silent_ms=self._silent_ms(self._outlet.now_us() / 1_000_000),
            ),
        )

    def _refuse(self, to: Address, operation_id: OperationId, reason: str, text: str, leader: Address = NOBODY) -> None:
        self._outlet.send(to, Refused(reason, text, leader=leader, operation_id=operation_id))
