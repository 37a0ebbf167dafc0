"""The leading half of a replica: what followers have, reads that are not stale, giving the lead away, letting a fresh
disk in. All of it is void when the term ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesos_actor.actors.ids import OperationId, Term
from mesos_actor.actors.messages.raft import Appended, ChunkTaken, TakeOver
from mesos_actor.actors.messages.registry import ReplaceMember
from mesos_actor.raft.machine import Proposal, encode_proposal
from mesos_actor.raft.progress import Blob, Progress

if TYPE_CHECKING:
    from mesos_actor.raft.replica import Replica

TRANSFER_S = 2.0
"""A transfer that has not happened by then is given up."""
MAX_READS = 1_000
"""Reads that wait for their round; more are refused."""
REPLACE_SILENT_S = 3.0
"""A fresh disk that has not asked for so long is given up; it asks twice a second."""
MAX_BATCHES_AT_ONCE = 8
"""Messages of entries that one follower is sent in one go; the rest follows its answers."""


class _Read:
    __slots__ = ("index", "round", "token")

    def __init__(self, round_: int, index: int, token: str) -> None:
        self.round = round_
        self.index = index
        self.token = token


class _Transfer:
    __slots__ = ("deadline_s", "sent", "target")

    def __init__(self, target: str, deadline_s: float) -> None:
        self.target = target
        self.deadline_s = deadline_s
        self.sent = False


class _Replacement:
    __slots__ = ("asked_s", "name", "proposed", "round", "storage_id", "wanted_index")

    def __init__(self, name: str, storage_id: str, round_: int, wanted_index: int, now_s: float) -> None:
        self.name = name
        self.storage_id = storage_id
        self.round = round_
        """Enough other members must answer this round or a later one, for they alone commit the change."""
        self.wanted_index = wanted_index
        """The new disk must have the log so far before it takes part, so that it is of use at once."""
        self.asked_s = now_s
        self.proposed = False


class Leadership:
    """Of one replica, for all terms that it leads."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._term = 0
        self.first_index = 0
        """Of our own first entry in this term: once it is applied, so is everything that earlier terms committed."""
        self._round = 0
        self.progress: dict[str, Progress] = {}
        self._reads: list[_Read] = []
        self._transfer: _Transfer | None = None
        self._replacement: _Replacement | None = None
        #: master -> the fresh disk that has asked for its place in this term
        self._asking: dict[str, str] = {}
        self._blob: Blob | None = None

    @property
    def ready(self) -> bool:
        """Whether we lead and know everything that was ever committed."""
        engine = self._replica.engine
        return engine.leads and self._term == engine.term and engine.applied_index >= self.first_index

    @property
    def transferring(self) -> bool:
        """Whether the lead is being given away: nothing new is taken."""
        return self._transfer is not None

    # -- sending ------------------------------------------------------------------------------------------------------

    def broadcast(self) -> None:
        """A heartbeat, with what each follower lacks, in a new round."""
        if self._term != self._replica.engine.term:
            self._begin()
        self._round += 1
        for peer in self.progress:
            self._send(peer)

    def _begin(self) -> None:
        replica = self._replica
        self._term, self.first_index = replica.engine.term, replica.journal.last_index
        self.progress = {peer: Progress(self.first_index, replica.now_s) for peer in replica.members.others}
        self._end()

    def _end(self) -> None:
        self._reads.clear()
        self._asking.clear()
        self._transfer = self._replacement = self._blob = None

    def flush(self) -> None:
        """Send what was submitted since."""
        if self._replica.engine.leads:
            for peer, progress in self.progress.items():
                self._send_entries(peer, progress)

    def _send_entries(self, peer: str, progress: Progress) -> None:
        for _ in range(MAX_BATCHES_AT_ONCE):
            before = progress.next_index
            if before > self._replica.journal.last_index or progress.needs_snapshot(self._replica.journal):
                return
            message = progress.entries(
                self._replica.journal, self._replica.origin, self._replica.engine.commit_index, self._round
            )
            if progress.next_index == before:
                return
            self._replica.send(peer, message)

    def _send(self, peer: str) -> None:
        replica, progress = self._replica, self.progress[peer]
        if not progress.needs_snapshot(replica.journal):
            replica.send(
                peer, progress.entries(replica.journal, replica.origin, replica.engine.commit_index, self._round)
            )
            return
        blob = progress.blob or self._newest_blob()
        if blob is not None:
            replica.send(peer, progress.chunk(blob, replica.origin, self._round))

    def _newest_blob(self) -> Blob | None:
        replica = self._replica
        if self._blob is None or self._blob.index != replica.snapshot_index:
            found = replica.encoded_snapshot()
            self._blob = None if found is None else Blob(*found)
        return self._blob

    # -- answers ------------------------------------------------------------------------------------------------------

    def on_appended(self, peer: str, message: Appended) -> None:
        """An answer in our term. That of a disk that does not speak for its master counts for nothing."""
        progress = self._answered(peer, message.origin.storage_id, message.round)
        if progress is None:
            return
        if not message.ok:
            if message.next_index > 0 and progress.refused(message.next_index):
                self._send(peer)
            return
        news = progress.acknowledged(min(message.next_index, self._replica.journal.last_index + 1))
        if news and progress.counts:
            self._replica.engine.matched(peer, progress.match_index)
        self._send_entries(peer, progress)

    def on_chunk_taken(self, peer: str, message: ChunkTaken) -> None:
        progress = self._answered(peer, message.origin.storage_id, message.round)
        if progress is None or progress.blob is None or progress.blob.index != message.index:
            return
        if progress.offset_bytes != message.received_bytes < len(progress.blob.data):
            progress.offset_bytes = message.received_bytes
            self._send(peer)

    def _answered(self, peer: str, storage_id: str, round_: int) -> Progress | None:
        """The progress of that disk; None when it is not the one that we send to."""
        replica, progress, waiting = self._replica, self.progress.get(peer), self._replacement
        if progress is None:
            return None
        counts = replica.members.counts(peer, storage_id)
        if waiting is not None and waiting.name == peer:
            if storage_id == waiting.storage_id:
                progress.answered_s = replica.now_s
                return progress
            if not counts or round_ < waiting.round:
                return None  # what its predecessor said before
            progress = self._give_up_replacement()
        elif not counts:
            self._refuse_disk(peer, storage_id)
            return None
        replica.engine.heard_from(peer, replica.now_s)
        progress.answered_s = replica.now_s
        progress.round = max(progress.round, round_)
        return progress

    def _refuse_disk(self, peer: str, storage_id: str) -> None:
        """Tell a disk that was replaced, or is of another past, so that it ends instead of following in vain."""
        replica = self._replica
        disk = replica.machine.disk_of(peer)
        if self.ready and disk not in ("", storage_id) and self._asking.get(peer) != storage_id:
            replica.send(peer, replica.members.hello(replica.engine.term, peer, storage_id, disk))
            replica.members.complaints.append(
                f"master {peer} speaks with another disk ({storage_id[:8]}) than the registry knows ({disk[:8]}): if "
                "that one is lost, start it with --replace on an empty directory"
            )

    def _confirmed_round(self) -> int:
        """The newest round that a majority has answered, ourselves counted."""
        rounds = sorted((p.round for p in self.progress.values()), reverse=True)
        needed = (len(rounds) + 1) // 2  # of the others: a majority of all, less ourselves
        return rounds[needed - 1] if needed else self._round

    # -- what operators and the master ask ----------------------------------------------------------------------------

    def read(self, token: str) -> bool:
        """Note a read; `ready_reads` names it once nothing committed before now can be missing. False: not possible
        now. (Dissertation 6.4, ReadIndex.)"""
        if not self.ready or len(self._reads) >= MAX_READS:
            return False
        self._reads.append(_Read(self._round + 1, self._replica.engine.commit_index, token))
        self.broadcast()
        return True

    def ready_reads(self) -> list[str]:
        """The reads that may be answered from the state as it is now."""
        if not self._reads or not self.ready:
            return []
        confirmed, applied = self._confirmed_round(), self._replica.engine.applied_index
        done = [read for read in self._reads if read.round <= confirmed and read.index <= applied]
        self._reads = [read for read in self._reads if read not in done]
        return [read.token for read in done]

    def transfer(self, target: str) -> str:
        """Begin to give the lead to `target`, or to whoever has most; why that cannot be, or empty."""
        replica = self._replica
        if not self.ready:
            return "this master does not lead"
        if not self.progress:
            return "there is no other master"
        if not target:
            target = max(self.progress, key=lambda peer: (self._counted_index(peer), peer))
        if target == replica.name:
            return f"{target} leads already"
        if target not in self.progress:
            return f"{target} is not a master of this cluster"
        if not self.progress[target].counts:
            return f"{target} has a new disk that is not let in yet"
        if self._transfer is not None:
            return f"the lead is just being given to {self._transfer.target}"
        self._transfer = _Transfer(target, replica.now_s + TRANSFER_S)
        self.broadcast()
        return ""

    def _counted_index(self, peer: str) -> int:
        progress = self.progress[peer]
        return progress.match_index if progress.counts else -1

    def replace(self, name: str, storage_id: str) -> None:
        """A fresh disk asks, twice a second, to speak for `name`: see membership.py."""
        replica, waiting = self._replica, self._replacement
        if not self.ready or name not in self.progress:
            return
        self._asking[name] = storage_id
        if waiting is None or (waiting.name == name and waiting.storage_id != storage_id and not waiting.proposed):
            self._replacement = _Replacement(
                name, storage_id, self._round + 1, replica.journal.last_index, replica.now_s
            )
            self._begin_anew(name, counts=False)
            self.broadcast()
        elif (waiting.name, waiting.storage_id) == (name, storage_id):
            waiting.asked_s = replica.now_s
        else:
            replica.members.complaints.append(
                f"{name} waits with its new disk until that of {waiting.name} ({waiting.storage_id[:8]}) is let in"
            )

    def _may_propose(self, waiting: _Replacement) -> bool:
        """Whether it is likely to be committed soon, by the other members, and the new disk to be of use then."""
        answered = sum(peer != waiting.name and p.round >= waiting.round for peer, p in self.progress.items())
        enough = (answered + 1) * 2 > len(self.progress) + 1
        return enough and self.progress[waiting.name].match_index >= waiting.wanted_index

    def _give_up_replacement(self) -> Progress:
        """The new disk is gone, or the former one back."""
        waiting = self._replacement
        assert waiting is not None and not waiting.proposed
        self._replacement = None
        self._asking.pop(waiting.name, None)
        return self._begin_anew(waiting.name, counts=True)

    def _begin_anew(self, name: str, counts: bool) -> Progress:
        """Nothing that another disk of this master acknowledged counts any more."""
        progress = Progress(self._replica.journal.last_index + 1, self._replica.now_s)
        progress.counts = counts
        self.progress[name] = progress
        self._replica.engine.matched(name, 0)
        return progress

    # -- as time goes on ----------------------------------------------------------------------------------------------

    def look_after(self, now_s: float) -> None:
        """Go on with what waits for others."""
        engine = self._replica.engine
        if not engine.leads:
            self._end()
            return
        transfer, waiting = self._transfer, self._replacement
        if transfer is not None and now_s > transfer.deadline_s:
            self._transfer = None
        elif transfer is not None and not transfer.sent and self._has_all(transfer.target):
            transfer.sent = True
            self._replica.send(transfer.target, TakeOver(self._replica.origin))
        if waiting is None or waiting.proposed:
            return
        if now_s - waiting.asked_s > REPLACE_SILENT_S:
            self._replica.members.complaints.append(f"the new disk of {waiting.name} does not ask any more: given up")
            self._give_up_replacement()
        elif self._may_propose(waiting):
            waiting.proposed = True
            command = ReplaceMember(waiting.name, waiting.storage_id, int(now_s * 1_000_000))
            operation_id = OperationId(f"replace {waiting.name} {waiting.storage_id}")
            self._replica.submit(encode_proposal(Proposal(operation_id, Term(engine.term), command)))
            self.flush()

    def _has_all(self, peer: str) -> bool:
        return self.progress[peer].match_index == self._replica.journal.last_index

    def applied(self) -> None:
        """The state has changed: the fresh disk may be a member now."""
        waiting = self._replacement
        if waiting is not None and self._replica.machine.disk_of(waiting.name) == waiting.storage_id:
            self._replacement = None
            progress = self.progress[waiting.name]
            progress.counts = True
            self._replica.engine.matched(waiting.name, progress.match_index)
