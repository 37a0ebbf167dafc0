"""The registry's whole state at one entry of the log: on the disk in two generations, and on its way to a follower.

A snapshot is replaced as a whole and never written over, so a crash leaves none half written: a damaged one is the
disk's fault, and that is said.
"""

from __future__ import annotations

import re
import zlib

import msgspec

from mesos_actor.actors.errors import InternalError, LocalError, PeerError, StorageError
from mesos_actor.raft.files import Files
from mesos_actor.raft.sealed import HEAD_BYTES, Newer, Unusable, seal, unseal
from mesos_actor.raft.segment import REPAIR

MAX_SNAPSHOT_BYTES = 1 << 30
"""Encoded. A cluster of 10,000 agents has some MiB."""
GENERATIONS = 2
"""Kept on the disk."""

_VERSION = 1
_MAGIC = b"mactsnp\n"
_NAME = re.compile(r"snapshot-([0-9a-f]{16})")


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state after the entry `index`, which was written in `term`."""

    index: int
    term: int
    state: bytes


def encode_snapshot(snapshot: Snapshot) -> bytes:
    """As it is kept and sent. Raises LocalError when it is too large."""
    size = HEAD_BYTES + len(snapshot.state)
    if size <= MAX_SNAPSHOT_BYTES:
        blob = seal(_MAGIC, _VERSION, msgspec.msgpack.encode(snapshot))
        size = len(blob)
        if size <= MAX_SNAPSHOT_BYTES:
            return blob
    raise LocalError(f"snapshot of entry {snapshot.index}: has {size} bytes; at most {MAX_SNAPSHOT_BYTES} can be kept")


def decode_snapshot(blob: bytes) -> Snapshot:
    """What a peer sent. Raises PeerError when it is damaged or of a newer release."""
    try:
        return _decoded(blob)
    except Unusable as error:
        raise PeerError(f"a snapshot cannot be used: {error}") from None


def _decoded(blob: bytes) -> Snapshot:
    try:
        return msgspec.msgpack.decode(unseal(_MAGIC, _VERSION, blob), type=Snapshot)
    except msgspec.DecodeError as error:
        raise Unusable(f"it is undamaged, and not what a snapshot should be: {error}") from None


class SnapshotStore:
    """The snapshots in a replica's directory."""

    def __init__(self, files: Files) -> None:
        self._files = files
        #: indexes of those that `load` found damaged
        self._damaged: set[int] = set()

    def _indexes(self) -> list[int]:
        """Of the snapshots there, the oldest first."""
        names = self._files.names()
        return sorted(int(match[1], 16) for name in names if (match := _NAME.fullmatch(name)) is not None)

    def save(self, snapshot: Snapshot) -> None:
        """Keep it, safely, and of the others the newest only. Raises StorageError, LocalError when it is too large,
        InternalError when a newer one is there."""
        before = self._indexes()
        sound = [index for index in before if index not in self._damaged]
        if sound and sound[-1] > snapshot.index:
            raise InternalError(f"a snapshot of entry {snapshot.index} was to follow the one of entry {sound[-1]}")
        self._files.replace(snapshot_name(snapshot.index), encode_snapshot(snapshot))
        self._damaged.discard(snapshot.index)
        kept = {*[index for index in sound if index != snapshot.index][1 - GENERATIONS :], snapshot.index}
        for index in before:
            if index not in kept:
                self._files.remove(snapshot_name(index))
                self._damaged.discard(index)

    def load(self) -> tuple[Snapshot | None, bool]:
        """The newest that is sound, None when there was never one; and whether a newer one is damaged. Then the caller
        must check that the log reaches back to the one that it got.

        Raises StorageError when none is sound, or one is of a newer release.
        """
        complaint = ""
        for index in reversed(self._indexes()):
            name = snapshot_name(index)
            try:
                snapshot = _decoded(self._files.read(name))
            except Newer as error:
                raise StorageError(f"{name}: {error}; run that release") from None
            except Unusable as error:
                self._damaged.add(index)
                complaint = complaint or f"{name}: it is damaged: {error}"
                continue
            if snapshot.index != index:
                raise StorageError(f"{name}: it was written as {snapshot_name(snapshot.index)}; {REPAIR}")
            return snapshot, bool(complaint)
        if complaint:
            raise StorageError(f"{complaint}, and there is no sound one before it; {REPAIR}")
        return None, False


def snapshot_name(index: int) -> str:
    return f"snapshot-{index:016x}"


class Assembly:
    """Puts together the snapshot that a leader sends in chunks. Chunks may be lost, doubled, late and of several
    snapshots: what comes out has the checksum that its chunks named, or nothing comes out."""

    def __init__(self) -> None:
        #: (index, checksum, length) of the one on its way
        self._wanted: tuple[int, int, int] | None = None
        self._data = bytearray()

    @property
    def received_bytes(self) -> int:
        """Where to go on with the snapshot of the last chunk; 0 when a new one may begin."""
        return len(self._data)

    def add(self, index: int, checksum: int, total_bytes: int, offset_bytes: int, data: bytes) -> bytes | None:
        """Take a chunk; the whole blob when it was the last that was missing. `checksum` is the blob's CRC32.

        A chunk that does not continue what is there is passed over, as is one of an older snapshot or one that cannot
        be; a chunk of another snapshot that is not older begins anew.
        """
        end_bytes = offset_bytes + len(data)
        if not 0 < total_bytes <= MAX_SNAPSHOT_BYTES or offset_bytes < 0 or end_bytes > total_bytes:
            return None
        wanted = (index, checksum, total_bytes)
        if wanted != self._wanted:
            if self._wanted is not None and index < self._wanted[0]:
                return None
            self._begin(wanted)
        if offset_bytes != len(self._data):
            return None
        self._data += data
        if len(self._data) < total_bytes:
            return None
        blob = bytes(self._data)
        self._begin(None)
        return blob if zlib.crc32(blob) == checksum else None

    def _begin(self, wanted: tuple[int, int, int] | None) -> None:
        self._wanted = wanted
        self._data = bytearray()
