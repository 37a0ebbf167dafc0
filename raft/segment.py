"""One file of the log, as bytes: a header of fixed size, then records.

    header  magic (8)  version (4)  crc32 (4)  length (2)  msgpack of Header, padded with zeros to 512 bytes in all
    record  magic (2)  crc32 (4)  length (4)  batch (4)  msgpack: ["e", index, term, command] or ["v", term, vote]

A header's size is fixed, so that one cut short by a crash is told from one that was damaged. A record's checksum covers
its length and begins with a number of its own for each disk and segment: blocks of other files that turn up here, and
commands that contain what looks like a record, are not taken for one.

`batch` is where in the file the records begin that were synced together with this one. A power cut may leave any of the
sectors of one unsynced write and none of the others, which then read as zeros. So a record that cannot be read, with
good ones behind it, is the trace of a power cut when all of those are of a batch that began before it, and there is an
empty sector in between: then nobody was ever told of any of them. Everything else is damage.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NoReturn

import msgspec

from mesos_actor.actors.errors import LocalError, StorageError
from mesos_actor.raft.sealed import HEAD_BYTES, Newer, Unusable, seal, unseal

Entry = tuple[bytes, int, int]
"""`(command, index, term)`"""

FORMAT_VERSION = 2
HEADER_BYTES = 512
MAX_COMMAND_BYTES = 1 << 20
"""A larger command is refused: it would hold up the replication of all others (etcd's default is 1.5 MiB)."""
MAX_VOTE_BYTES = 300
"""Of a member's name: a host name of 253 and a port, so that a header holds it."""
MAX_BODY_BYTES = MAX_COMMAND_BYTES + 64
"""Of a record: no longer length is believed."""

_MAGIC = b"mactlog\n"
_RECORD_MAGIC = b"\xd5R"
_RECORD = struct.Struct("<2sIII")
_RECORD_BYTES = _RECORD.size
_CHECKED_FROM = 6
"""The checksum covers a record from here on: its length, its batch and its body."""
SECTOR_BYTES = 512
"""What a disk writes whole or not at all; a header is one."""
_LENGTH = struct.Struct("<H")
_LENGTH_AND_BATCH = struct.Struct("<II")
_SEED = struct.Struct("<16sQ")
_NAME = re.compile(r"log-([0-9a-f]{16})")

REPAIR = (
    "keep this directory for a report and start this master with --replace on an empty one while the other masters "
    "run; see docs/operations.md"
)


class Header(msgspec.Struct, frozen=True, array_like=True):
    """What held when the segment began: the log ended with the entry `index` of `term`, and `vote` was given in
    `current_term`. `reset`: everything before this segment is void, and that entry is in a snapshot."""

    storage_id: bytes
    sequence: int
    reset: bool
    index: int
    term: int
    current_term: int
    vote: str | None

    @property
    def seed(self) -> int:
        """What the checksums of the segment's records begin with."""
        return zlib.crc32(_SEED.pack(self.storage_id, self.sequence))


class EntryRecord(msgspec.Struct, frozen=True, array_like=True, tag="e", gc=False):
    """An entry; all that the log had from `index` on is void."""

    index: int
    term: int
    command: bytes


class VoteRecord(msgspec.Struct, frozen=True, array_like=True, tag="v", gc=False):
    """The current term, and whom this disk has voted for in it."""

    term: int
    vote: str | None


AnyRecord = EntryRecord | VoteRecord

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(AnyRecord)
_HEADER_DECODER = msgspec.msgpack.Decoder(Header)


def segment_name(sequence: int) -> str:
    return f"log-{sequence:016x}"


def segment_sequences(names: list[str]) -> list[int]:
    """Of the segments among `names`, in order."""
    return sorted(int(match[1], 16) for name in names if (match := _NAME.fullmatch(name)) is not None)


def encode_header(header: Header) -> bytes:
    """The segment's first bytes. Raises LocalError for a vote that does not fit."""
    packed = _ENCODER.encode(header)
    room = HEADER_BYTES - HEAD_BYTES - _LENGTH.size
    if len(packed) > room:
        raise LocalError(f"vote {str(header.vote)[:80]!r}: has more than {MAX_VOTE_BYTES} bytes")
    return seal(_MAGIC, FORMAT_VERSION, _LENGTH.pack(len(packed)) + packed.ljust(room, b"\0"))


def decode_header(name: str, data: bytes) -> Header | None:
    """The header of the file `name`; None when a crash kept it from being written. Raises StorageError when it is
    damaged or of another release."""
    if len(data) < HEADER_BYTES or not any(data[:HEADER_BYTES]):
        return None
    try:
        body = unseal(_MAGIC, FORMAT_VERSION, data[:HEADER_BYTES])
        if data[:HEADER_BYTES] != seal(_MAGIC, FORMAT_VERSION, bytes(body)):
            raise StorageError(
                f"{name}: it was written by an earlier release, whose logs this one cannot read; {REPAIR}"
            )
        (length,) = _LENGTH.unpack_from(body)
        return _HEADER_DECODER.decode(body[_LENGTH.size : _LENGTH.size + length])
    except Newer as error:
        raise StorageError(f"{name}: {error}; run that release") from None
    except (Unusable, msgspec.DecodeError) as error:
        refuse(name, 0, f"the segment's header is damaged: {error}")


def encode_record(record: AnyRecord, seed: int, batch: int) -> bytes:
    """One record of the segment whose seed it is; its `batch` began there."""
    body = _ENCODER.encode(record)
    length = len(body)
    checksum = zlib.crc32(body, zlib.crc32(_LENGTH_AND_BATCH.pack(length, batch), seed))
    return _RECORD.pack(_RECORD_MAGIC, checksum, length, batch) + body


class Replayed:
    """What the segments read so far amount to. `entries[0]` is the base."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.current_term = 0
        self.vote: str | None = None

    def begin(self, name: str, header: Header) -> None:
        """Take up a segment. Raises StorageError when it does not go on where the ones before ended."""
        entries = self.entries
        if not entries or header.reset:
            if header.current_term < self.current_term:
                refuse(name, 0, f"it goes back from term {self.current_term} to {header.current_term}")
            self.current_term, self.vote = header.current_term, header.vote
            self.entries = [(b"", header.index, header.term)]
            return
        if (header.current_term, header.vote) != (self.current_term, self.vote):
            refuse(name, 0, f"a record of term {header.current_term} is missing before it")
        base, last = entries[0][1], entries[-1][1]
        if header.index > last:
            refuse(name, 0, f"the entries {last + 1} to {header.index} are missing before it")
        if header.index < base:  # entries before it were dropped, then cut off: none of ours is left
            self.entries = [(b"", header.index, header.term)]
        elif entries[header.index - base][2] != header.term:
            refuse(name, 0, f"it contradicts entry {header.index} before it")
        else:
            del entries[header.index - base + 1 :]

    def read(self, name: str, header: Header, data: bytes, last: bool) -> int:
        """Take the records of a segment, up to the end or a torn tail, which only the `last` may have; the bytes that
        are good. Raises StorageError for every other thing that is not as it was written."""
        entries, seed, size = self.entries, header.seed, len(data)
        view, unpack, crc32, decode = memoryview(data), _RECORD.unpack_from, zlib.crc32, _DECODER.decode
        at, next_index, lowest = HEADER_BYTES, entries[-1][1] + 1, header.index + 1
        while at + _RECORD_BYTES <= size:
            magic, checksum, length, _ = unpack(data, at)
            begin = at + _RECORD_BYTES
            end = begin + length
            if magic != _RECORD_MAGIC or length > MAX_BODY_BYTES or end > size:
                break
            if crc32(view[at + _CHECKED_FROM : end], seed) != checksum:
                break
            try:
                record = decode(view[begin:end])
            except msgspec.DecodeError as error:
                refuse(name, at, f"a record of an unknown kind ({error})")
            if type(record) is EntryRecord:
                index = record.index
                if index != next_index:
                    if not lowest <= index < next_index:
                        refuse(name, at, f"entry {index} follows entry {next_index - 1}")
                    del entries[index - entries[0][1] :]
                entries.append((record.command, index, record.term))
                next_index = index + 1
            else:
                self._vote(name, at, record)
            at = end
        if at < size:
            _check_tail(name, data, at, seed, last)
        return at

    def _vote(self, name: str, at: int, record: AnyRecord) -> None:
        assert isinstance(record, VoteRecord)
        if record.term < self.current_term:
            refuse(name, at, f"it goes back from term {self.current_term} to {record.term}")
        self.current_term, self.vote = record.term, record.vote


def _check_tail(name: str, data: bytes, at: int, seed: int, last: bool) -> None:
    """Raises StorageError unless what is not readable from `at` on can be what a crash left of the last write."""
    if not last:
        refuse(name, at, "a damaged record, and there are later segments")
    for found, batch in good_records(data, at + 1, seed):
        if batch > at or not _has_hole(data, at, found):
            refuse(name, at, f"a damaged record, and there is a good one behind it at byte {found}")


def good_records(data: bytes, begin: int, seed: int) -> Iterator[tuple[int, int]]:
    """Where there are undamaged records from `begin` on, and where their batches began."""
    view = memoryview(data)
    found = data.find(_RECORD_MAGIC, begin)
    while found >= 0 and found + _RECORD_BYTES <= len(data):
        _, checksum, length, batch = _RECORD.unpack_from(data, found)
        end = found + _RECORD_BYTES + length
        fits = length <= MAX_BODY_BYTES and end <= len(data)
        if fits and zlib.crc32(view[found + _CHECKED_FROM : end], seed) == checksum:
            yield found, batch
        found = data.find(_RECORD_MAGIC, found + 1)


def _has_hole(data: bytes, begin: int, end: int) -> bool:
    """Whether a sector, or what of it is behind `begin`, was never written."""
    while begin < end:
        next_sector = (begin // SECTOR_BYTES + 1) * SECTOR_BYTES
        if not any(data[begin:next_sector]):
            return True
        begin = next_sector
    return False


def refuse(name: str, offset_bytes: int, what: str) -> NoReturn:
    """Raises StorageError: where it is, what is wrong, and what to do."""
    raise StorageError(f"{name}, byte {offset_bytes}: {what}; {REPAIR}")
