"""The log of a replica: entries, term and vote, in one write-ahead log made of segments (segment.py).

Nothing is safe until `sync`, and whoever sends a message or answers anybody calls that first. The rules:

- Nothing is ever rewritten in place. A segment begins only after all before it is synced, so only the last one can end
  in a torn record; and each says in its header where the log ended then, so the segments from any one on are a log.
- Cutting the log's end off is written down by the entry that takes the place; until then the old ones may come back,
  which Raft allows (they were never committed).
- Dropping its beginning only removes whole segments, the oldest first. A crash may bring the last ones back.
- What is damaged is refused, never repaired: only the end of the last segment can be the trace of a crash.

It has the methods that pysyncobj's engine calls on a journal, under pysyncobj's names.
"""

from __future__ import annotations

import re
from typing import overload

import msgspec

from mesos_actor.actors.errors import InternalError, LocalError, StorageError
from mesos_actor.raft.files import Files
from mesos_actor.raft.sealed import Newer, Unusable, seal, unseal
from mesos_actor.raft.segment import (
    MAX_COMMAND_BYTES,
    MAX_VOTE_BYTES,
    REPAIR,
    AnyRecord,
    Entry,
    EntryRecord,
    Header,
    Replayed,
    VoteRecord,
    decode_header,
    encode_header,
    encode_record,
    good_records,
    refuse,
    segment_name,
    segment_sequences,
)

__all__ = ["MAX_COMMAND_BYTES", "SEGMENT_BYTES", "Entry", "Identity", "Journal", "read_identity", "write_identity"]

SEGMENT_BYTES = 8 << 20
"""A segment is finished when it has this size or more; by at most one turn's writes more."""
ENTRY_OVERHEAD_BYTES = 32
"""What an entry counts in `entries` besides its command."""

_IDENTITY_NAME = "identity"
_IDENTITY_MAGIC = b"mactid\n\0"
_IDENTITY_VERSION = 1
_STORAGE_ID = re.compile(r"[0-9a-f]{32}")


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose directory this is."""

    member: str
    """Its replica's name, as `10.0.0.1:5050`."""
    members: tuple[str, ...]
    """All replicas' names, sorted."""
    storage_id: str
    """Of this disk: 32 hex digits, and never used again."""
    founding: bool = False
    """It was initialized and its cluster is not founded yet."""
    base_digest: str = ""
    """Of the backup that this was restored from; empty for none."""
    learner: bool = False
    """Its predecessor's disk was lost: it must not vote before the others have taken it in."""
    founders: tuple[tuple[str, str], ...] = ()
    """All members with their disks, once each is known to know all others: from then on it may vote."""
    key_fingerprint: str | None = None
    """Of the key that the cluster was founded with, empty for none; None: this disk is no member yet."""


def read_identity(files: Files) -> Identity | None:
    """Whose directory this is; None when nobody has said so yet. Raises StorageError when it is damaged or of a newer
    release."""
    if _IDENTITY_NAME not in files.names():
        return None
    try:
        body = unseal(_IDENTITY_MAGIC, _IDENTITY_VERSION, files.read(_IDENTITY_NAME))
        identity = msgspec.msgpack.decode(body, type=Identity)
    except Newer as error:
        raise StorageError(f"{_IDENTITY_NAME}: {error}; run that release") from None
    except (Unusable, msgspec.DecodeError) as error:
        refuse(_IDENTITY_NAME, 0, f"it is damaged: {error}")
    return identity


def write_identity(files: Files, identity: Identity) -> None:
    """Say, safely, whose directory this is. Raises StorageError."""
    files.replace(_IDENTITY_NAME, seal(_IDENTITY_MAGIC, _IDENTITY_VERSION, msgspec.msgpack.encode(_checked(identity))))


def _checked(identity: Identity) -> Identity:
    if _STORAGE_ID.fullmatch(identity.storage_id) is None:
        raise LocalError(f"storage_id {identity.storage_id!r}: must be 32 hex digits")
    return identity


class _Segment:
    """A file of the log."""

    __slots__ = ("header", "size_bytes")

    def __init__(self, header: Header, size_bytes: int) -> None:
        self.header = header
        self.size_bytes = size_bytes

    @property
    def name(self) -> str:
        return segment_name(self.header.sequence)


class _Run:
    """Records that go into one segment: the current one, or a new one with this header."""

    __slots__ = ("batch", "header", "new", "records", "seed")

    def __init__(self, header: Header, begin_bytes: int = 0) -> None:
        self.header = header
        self.new = not begin_bytes
        self.batch = begin_bytes
        """Where what is synced with these records begins; a new segment's header is synced with them."""
        self.seed = header.seed
        self.records: list[bytes] = []


class Journal:
    """Made by `create` and `open`. Entry 0 is the base: the last one that the snapshot covers, without its command.

    After a StorageError of `sync`, `reset` or `trim` the process must end."""

    def __init__(self, files: Files, storage_id: bytes, segment_bytes: int, replayed: Replayed) -> None:
        self._files = files
        self._storage_id = storage_id
        self._segment_bytes = segment_bytes
        self._entries = replayed.entries
        self._current_term, self._vote = replayed.current_term, replayed.vote
        #: The files, the oldest first; all are synced.
        self._segments: list[_Segment] = []
        #: What waits for `sync`; never empty, and all runs but the first are new segments.
        self._runs: list[_Run] = []
        self.cut_bytes = 0
        """How much was cut off at `open` because a crash had torn it."""

    @staticmethod
    def create(files: Files, identity: Identity, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """A new log, safe on the disk. Raises StorageError when there is one already."""
        found = segment_sequences(files.names())
        if found:
            raise StorageError(
                f"{segment_name(found[0])}: there is a log here already, and nothing that says whose it is; {REPAIR}"
            )
        journal = Journal(files, bytes.fromhex(_checked(identity).storage_id), segment_bytes, Replayed())
        journal._begin_anew(sequence=1, index=1, term=0)
        return journal

    @staticmethod
    def open(files: Files, identity: Identity, segment_bytes: int = SEGMENT_BYTES) -> Journal:
        """The log that is there. Raises StorageError when there is none, when it belongs to another disk or a newer
        release, or is damaged; a record torn by a crash is cut off (`cut_bytes`)."""
        found, replayed = segment_sequences(files.names()), Replayed()
        journal = Journal(files, bytes.fromhex(_checked(identity).storage_id), segment_bytes, replayed)
        begun = [journal._replay(replayed, sequence, last=sequence == found[-1]) for sequence in found]
        if not journal._segments:
            raise StorageError(f"{segment_name(1)}: there is an identity here and no log; {REPAIR}")
        journal._entries = replayed.entries
        journal._current_term, journal._vote = replayed.current_term, replayed.vote
        if not begun[-1]:
            # Begin it now. Were it removed, a crash could bring it back behind a segment that was torn meanwhile.
            files.truncate(segment_name(found[-1]), 0)
            journal._begin(journal._header(found[-1], journal.last_index, journal.last_term), b"")
        journal._start_run()
        return journal

    def _replay(self, replayed: Replayed, sequence: int, last: bool) -> bool:
        """Take up one file; False when it is the last and was never begun."""
        name = segment_name(sequence)
        if self._segments and self._segments[-1].header.sequence != sequence - 1:
            missing = segment_name(self._segments[-1].header.sequence + 1)
            raise StorageError(f"{missing}: is missing between the segments before and after it; {REPAIR}")
        data = self._files.read(name)
        header = decode_header(name, data)
        if header is None:
            if not last:
                refuse(name, 0, "the segment's header is cut short, and there are later segments")
            seed = Header(self._storage_id, sequence, reset=False, index=0, term=0, current_term=0, vote=None).seed
            if any(batch for _, batch in good_records(data, 0, seed)):
                refuse(name, 0, "the segment's header is gone, and there are records that were synced after it")
            self.cut_bytes += len(data)
            return False
        if header.storage_id != self._storage_id:
            raise StorageError(
                f"{name}: is of another disk ({header.storage_id.hex()[:8]}, this one is "
                f"{self._storage_id.hex()[:8]}); files of two registries were mixed: {REPAIR}"
            )
        if header.sequence != sequence:
            refuse(name, 0, f"it was written as {segment_name(header.sequence)}")
        replayed.begin(name, header)
        good = replayed.read(name, header, data, last)
        if good < len(data):
            self._files.truncate(name, good)
            self.cut_bytes += len(data) - good
        self._segments.append(_Segment(header, good))
        return True

    # -- what is in it ------------------------------------------------------------------------------------------------

    @property
    def first_index(self) -> int:
        """Of the base."""
        return self._entries[0][1]

    @property
    def last_index(self) -> int:
        return self._entries[-1][1]

    @property
    def last_term(self) -> int:
        return self._entries[-1][2]

    @property
    def size_bytes(self) -> int:
        """Of its files."""
        return sum(segment.size_bytes for segment in self._segments)

    @property
    def dirty(self) -> bool:
        """Whether something waits for `sync`."""
        return any(run.records for run in self._runs)

    def term_at(self, index: int) -> int | None:
        """Of the entry, or the base; None when the log does not have it."""
        at = index - self._entries[0][1]
        return self._entries[at][2] if 0 <= at < len(self._entries) else None

    def entries(self, from_index: int, max_bytes: int) -> list[Entry]:
        """Those from `from_index` on, at most so many bytes but at least one; none behind the end. Raises InternalError
        for the base and what is before it."""
        at = from_index - self._entries[0][1]
        if at < 1:
            raise InternalError(f"entry {from_index} was asked for, and the log begins after {self.first_index}")
        end, left = at, max_bytes
        for end in range(at, len(self._entries)):
            left -= len(self._entries[end][0]) + ENTRY_OVERHEAD_BYTES
            if left < 0 and end > at:
                return self._entries[at:end]
        return self._entries[at : end + 1]

    @overload
    def __getitem__(self, at: int) -> Entry: ...
    @overload
    def __getitem__(self, at: slice) -> list[Entry]: ...
    def __getitem__(self, at: int | slice) -> Entry | list[Entry]:
        """By place, not by index."""
        return self._entries[at]

    def __len__(self) -> int:
        return len(self._entries)

    def getCurrentTerm(self) -> int:
        return self._current_term

    def getVotedForNodeId(self) -> str | None:
        return self._vote

    def getRaftCommitIndex(self) -> int:
        """Nothing is known to be committed: that is volatile, as in the Raft paper."""
        return 1

    # -- writing ------------------------------------------------------------------------------------------------------

    def add(self, command: bytes, idx: int, term: int) -> None:
        """Append an entry. Raises LocalError when the command is too large, InternalError when it leaves a hole."""
        if len(command) > MAX_COMMAND_BYTES:
            raise LocalError(f"command: has {len(command)} bytes; at most {MAX_COMMAND_BYTES} can be kept")
        if idx != self.last_index + 1:
            raise InternalError(f"entry {idx} was to follow entry {self.last_index}")
        if idx <= self._runs[-1].header.index:
            self._start_run(new=True)  # within a segment entries do not go back before its beginning
        self._record(EntryRecord(idx, term, command))
        self._entries.append((command, idx, term))

    def deleteEntriesFrom(self, pos: int) -> None:
        """Cut off the entries from this place on; the base stays. Raises InternalError for the base."""
        if pos < 1:
            raise InternalError("the base of the log was to be cut off; it is covered by the snapshot")
        del self._entries[pos:]

    def setCurrentTerm(self, term: int, voted_for: str | None) -> None:
        """Take note of the term, and of the vote in it. Raises InternalError when either would be taken back,
        LocalError for a name that is too long."""
        if (term, voted_for) == (self._current_term, self._vote):
            return
        if term < self._current_term or (term == self._current_term and self._vote is not None):
            raise InternalError(
                f"term {term} with vote {voted_for!r} was to follow term {self._current_term} with {self._vote!r}"
            )
        if voted_for is not None and len(voted_for.encode()) > MAX_VOTE_BYTES:
            raise LocalError(f"vote {voted_for[:80]!r}: has more than {MAX_VOTE_BYTES} bytes")
        self._current_term, self._vote = term, voted_for
        self._record(VoteRecord(term, voted_for))

    def sync(self) -> None:
        """Make safe all that was added: one write and one fdatasync, but for the rare log that is cut back before the
        segment's beginning. Raises StorageError."""
        for run in self._runs:
            if not run.records:
                continue
            data = b"".join(run.records)
            if run.new:
                self._begin(run.header, data)
            else:
                segment = self._segments[-1]
                self._files.append(segment.name, data)
                self._files.sync()
                segment.size_bytes += len(data)
        self._runs.clear()
        self._start_run()

    def trim(self, index: int, keep: int) -> None:
        """The snapshot is safe and covers everything up to `index`: drop the entries before, but for the last `keep`.
        Files go when all they have is dropped. Raises InternalError when the log does not have that entry."""
        if not self.first_index <= index <= self.last_index:
            raise InternalError(f"entry {index} was to be the base of a log of {self.first_index} to {self.last_index}")
        base = index - keep
        if base <= self.first_index:
            return
        del self._entries[: base - self.first_index]
        self._entries[0] = (b"", base, self._entries[0][2])
        needed = max(at for at, segment in enumerate(self._segments) if at == 0 or segment.header.index <= base)
        self._drop(needed)

    def reset(self, index: int, term: int) -> None:
        """A snapshot that the log does not lead to is safe: begin the log anew behind its last entry. Term and vote
        stay. Raises StorageError."""
        self._runs.clear()  # its entries are void, and term and vote go into the header
        self._begin_anew(self._segments[-1].header.sequence + 1, index, term)
        self._drop(len(self._segments) - 1)

    # -- segments -----------------------------------------------------------------------------------------------------

    def _record(self, record: AnyRecord) -> None:
        run = self._runs[-1]
        run.records.append(encode_record(record, run.seed, run.batch))

    def _start_run(self, new: bool = False) -> None:
        """What comes goes into the last segment, or into a `new` one when that is large enough."""
        last = self._segments[-1]
        if not new and last.size_bytes < self._segment_bytes:
            self._runs.append(_Run(last.header, last.size_bytes))
            return
        if self._runs and not self._runs[-1].records:
            self._runs.pop()  # a segment nobody needs
        sequence = (self._runs[-1].header if self._runs else last.header).sequence + 1
        self._runs.append(_Run(self._header(sequence, self.last_index, self.last_term)))

    def _header(self, sequence: int, index: int, term: int, reset: bool = False) -> Header:
        return Header(self._storage_id, sequence, reset, index, term, self._current_term, self._vote)

    def _begin_anew(self, sequence: int, index: int, term: int) -> None:
        self._begin(self._header(sequence, index, term, reset=True), b"")
        self._entries = [(b"", index, term)]
        self._start_run()

    def _begin(self, header: Header, records: bytes) -> None:
        """Make a segment, safely; all before it must be safe already."""
        segment = _Segment(header, 0)
        data = encode_header(header) + records
        self._files.append(segment.name, data)
        self._files.sync()
        segment.size_bytes = len(data)
        self._segments.append(segment)

    def _drop(self, count: int) -> None:
        """Remove the oldest segments, one after the other: those that are left at any moment are a log."""
        for _ in range(count):
            self._files.remove(self._segments.pop(0).name)

    # -- not needed, but called or declared ---------------------------------------------------------------------------

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        """Volatile."""

    def onOneSecondTimer(self) -> None:
        """Nothing is left for later."""

    def clear(self) -> None:
        raise InternalError("a log is never cleared; see `reset`")

    def deleteEntriesTo(self, pos: int) -> None:
        raise InternalError("a log's beginning is dropped by `trim`")

    def _destroy(self) -> None:
        self.sync()
