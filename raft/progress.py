"""What a leader knows of one follower, and what it sends it next."""

from __future__ import annotations

from mesos_actor.actors.ids import Term
from mesos_actor.actors.messages.raft import AppendEntries, InstallChunk, LogEntry, Origin
from mesos_actor.raft.journal import Journal

MAX_BATCH_BYTES = 1 << 20
"""Entries in one message; one larger entry still goes alone."""
MAX_IN_FLIGHT_ENTRIES = 20_000
"""Entries sent and not acknowledged; past it a follower gets heartbeats only."""
CHUNK_BYTES = 1 << 18
"""Of a snapshot, in one message; the next goes when this one was taken."""


class Blob:
    """The leader's newest snapshot, as it travels."""

    __slots__ = ("checksum", "data", "index")

    def __init__(self, index: int, checksum: int, data: bytes) -> None:
        self.index = index
        self.checksum = checksum
        self.data = data


class Progress:
    """`match_index`: what is safely there, of our log. `next_index`: what to send next, hoping for the best."""

    __slots__ = ("answered_s", "blob", "counts", "match_index", "next_index", "offset_bytes", "probing", "round")

    def __init__(self, next_index: int, now_s: float) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.probing = False
        """It refused: one message after the other until it agrees. (Of many refusals on their way each would else have
        everything sent again.)"""
        self.round = 0
        """The newest round that it has answered."""
        self.answered_s = now_s
        self.counts = True
        """False for a fresh disk that is not let in yet: it is sent the log and decides nothing."""
        self.blob: Blob | None = None
        """The snapshot that it is being sent."""
        self.offset_bytes = 0

    def acknowledged(self, next_index: int) -> bool:
        """It has everything before `next_index`; whether that is news."""
        self.probing = self.probing and next_index < self.next_index
        self.next_index = max(self.next_index, next_index)
        if next_index - 1 <= self.match_index:
            return False
        self.match_index = next_index - 1
        self.blob = None
        return True

    def refused(self, next_index: int) -> bool:
        """Go back; of many refusals on their way the lowest counts. Whether there is something new to try."""
        wanted = max(self.match_index + 1, min(self.next_index, next_index))
        changed = wanted < self.next_index
        self.next_index = wanted
        self.probing = self.probing or changed
        return changed

    def needs_snapshot(self, journal: Journal) -> bool:
        """Whether the log does not reach back far enough."""
        return self.next_index - 1 < journal.first_index

    def entries(self, journal: Journal, origin: Origin, commit_index: int, round_: int) -> AppendEntries:
        """The next entries, none when there are none or too many are on their way."""
        previous = self.next_index - 1
        found: tuple[LogEntry, ...] = ()
        if previous < journal.last_index and previous - self.match_index < MAX_IN_FLIGHT_ENTRIES:
            taken = journal.entries(self.next_index, MAX_BATCH_BYTES)
            found = tuple(LogEntry(index, Term(term), data) for data, index, term in taken)
            if not self.probing:
                self.next_index = found[-1].index + 1
        previous_term = journal.term_at(previous)
        assert previous_term is not None
        return AppendEntries(origin, previous, Term(previous_term), commit_index, round_, found)

    def chunk(self, blob: Blob, origin: Origin, round_: int) -> InstallChunk:
        """The piece of the snapshot that it waits for."""
        if self.blob is None or self.blob.index != blob.index:
            self.blob, self.offset_bytes = blob, 0
        data = self.blob.data[self.offset_bytes : self.offset_bytes + CHUNK_BYTES]
        return InstallChunk(
            origin, round_, blob.index, self.blob.checksum, len(self.blob.data), self.offset_bytes, data
        )
