"""A snapshot is the exact one or none, on the disk and on its way."""

from __future__ import annotations

import random
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InternalError, LocalError, PeerError, StorageError
from mesos_actor.raft import snapshot as module
from mesos_actor.raft.files import REPLACE_STEPS, Died, MemoryFiles
from mesos_actor.raft.sealed import seal
from mesos_actor.raft.snapshot import (
    MAX_SNAPSHOT_BYTES,
    Assembly,
    Snapshot,
    SnapshotStore,
    decode_snapshot,
    encode_snapshot,
    snapshot_name,
)

A, B, C = (Snapshot(index, 3, b"state %d" % index) for index in (20, 40, 60))


def kept(*snapshots: Snapshot) -> MemoryFiles:
    files = MemoryFiles()
    for snapshot in snapshots:
        SnapshotStore(files).save(snapshot)
    return files


# -- on the disk ------------------------------------------------------------------------------------------------------


def test_there_is_none_at_first() -> None:
    assert SnapshotStore(MemoryFiles()).load() == (None, False)


def test_the_newest_comes_back_and_two_are_kept() -> None:
    files = kept(A, B, C)
    files.crash()

    assert SnapshotStore(files).load() == (C, False)
    assert files.names() == [snapshot_name(40), snapshot_name(60)]


def test_the_same_again_takes_nobodys_place() -> None:
    files = kept(A, B, B)

    assert files.names() == [snapshot_name(20), snapshot_name(40)]


@pytest.mark.parametrize("step", REPLACE_STEPS)
def test_saving_that_is_killed_leaves_the_one_before(step: str) -> None:
    files = kept(A, B)
    files.die_in_replace = step
    with pytest.raises(Died):
        SnapshotStore(files).save(C)
    files.crash()

    assert SnapshotStore(files).load() == (C if step == "done" else B, False)


def test_removed_generations_that_come_back_do_no_harm() -> None:
    files = kept(A, B, C)
    files.crash(undo_removals=1)
    assert snapshot_name(20) in files.names()
    later = Snapshot(80, 4, b"later")
    SnapshotStore(files).save(later)

    assert SnapshotStore(files).load() == (later, False)
    assert files.names() == [snapshot_name(60), snapshot_name(80)]


def test_a_damaged_one_is_said_when_the_one_before_is_taken() -> None:
    files = kept(A, B)
    for offset in range(len(files.read(snapshot_name(40)))):
        files.corrupt(snapshot_name(40), offset, 0x10)
        assert SnapshotStore(files).load() == (A, True)
        files.corrupt(snapshot_name(40), offset, 0x10)


@pytest.mark.parametrize("size_bytes", [0, 5, 20])
def test_one_that_is_cut_short_is_damaged(size_bytes: int) -> None:
    files = kept(A, B)
    files.truncate(snapshot_name(40), size_bytes)

    assert SnapshotStore(files).load() == (A, True)


def test_without_a_sound_one_there_is_no_going_on() -> None:
    files = kept(A, B)
    files.corrupt(snapshot_name(20), 20, 1)
    files.corrupt(snapshot_name(40), 20, 1)

    with pytest.raises(StorageError, match=rf"{snapshot_name(40)}: it is damaged.*--replace"):
        SnapshotStore(files).load()


def test_a_damaged_one_goes_with_the_next_that_is_saved() -> None:
    files = kept(A, C)
    files.corrupt(snapshot_name(60), 20, 1)
    store = SnapshotStore(files)
    store.load()
    store.save(B)

    assert files.names() == [snapshot_name(20), snapshot_name(40)]
    assert store.load() == (B, False)


def test_an_older_one_never_follows_a_newer_one() -> None:
    with pytest.raises(InternalError, match="was to follow"):
        SnapshotStore(kept(B)).save(A)


def test_one_under_anothers_name_is_refused() -> None:
    files = kept(A)
    files.replace(snapshot_name(40), files.read(snapshot_name(20)))

    with pytest.raises(StorageError, match=f"it was written as {snapshot_name(20)}"):
        SnapshotStore(files).load()


def test_a_newer_release_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_VERSION", 2)
    files = kept(A)
    monkeypatch.undo()

    with pytest.raises(StorageError, match="written by a newer release"):
        SnapshotStore(files).load()
    with pytest.raises(PeerError, match="written by a newer release"):
        decode_snapshot(files.read(snapshot_name(20)))


def test_a_full_disk_keeps_the_one_before() -> None:
    files = kept(A)
    files.full = True
    with pytest.raises(StorageError, match="free some space"):
        SnapshotStore(files).save(B)

    assert SnapshotStore(files).load() == (A, False)


# -- as bytes ---------------------------------------------------------------------------------------------------------


@given(snapshot=st.builds(Snapshot, st.integers(0, 1 << 63), st.integers(0, 1 << 63), st.binary(max_size=99)))
def test_bytes_come_back_as_they_were(snapshot: Snapshot) -> None:
    assert decode_snapshot(encode_snapshot(snapshot)) == snapshot


@given(blob=st.binary(max_size=60))
def test_any_bytes_are_refused(blob: bytes) -> None:
    with pytest.raises(PeerError, match="cannot be used"):
        decode_snapshot(blob)


@given(offset=st.integers(0, 29), xor=st.integers(1, 255))
def test_any_changed_byte_is_refused(offset: int, xor: int) -> None:
    blob = bytearray(encode_snapshot(A))
    blob[offset % len(blob)] ^= xor

    with pytest.raises(PeerError):
        decode_snapshot(bytes(blob))


def test_what_is_sealed_and_no_snapshot_is_refused() -> None:
    with pytest.raises(PeerError, match="not what a snapshot should be"):
        decode_snapshot(seal(module._MAGIC, module._VERSION, b"\x90"))


def test_the_size_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SNAPSHOT_BYTES", 50)
    encode_snapshot(Snapshot(1, 1, bytes(20)))
    for size in (32, 35, 99):
        with pytest.raises(LocalError, match="at most 50"):
            encode_snapshot(Snapshot(1, 1, bytes(size)))


# -- in chunks --------------------------------------------------------------------------------------------------------

Chunk = tuple[int, int, int, int, bytes]


def chunks(index: int, blob: bytes, size: int) -> list[Chunk]:
    return [
        (index, zlib.crc32(blob), len(blob), offset, blob[offset : offset + size])
        for offset in range(0, len(blob), size)
    ]


def test_chunks_in_order_are_the_blob() -> None:
    assembly, blob = Assembly(), encode_snapshot(A)
    taken = [(assembly.add(*chunk), assembly.received_bytes) for chunk in chunks(20, blob, 10)]

    assert taken == [(None, 10), (None, 20), (blob, 0)]


def test_one_chunk_is_enough() -> None:
    assert Assembly().add(1, zlib.crc32(b"x"), 1, 0, b"x") == b"x"


def test_what_does_not_continue_is_passed_over() -> None:
    assembly, blob = Assembly(), bytes(range(30))
    first, second, third = chunks(20, blob, 10)

    assert assembly.add(*third) is None
    assert assembly.add(*first) is None
    assert assembly.add(*first) is None
    assert assembly.add(*third) is None
    assert assembly.received_bytes == 10
    assert assembly.add(*second) is None
    assert assembly.add(*third) == blob


def test_a_newer_snapshot_takes_the_place_of_an_older_one_and_not_the_reverse() -> None:
    assembly, old, new = Assembly(), bytes(20), bytes(range(20))
    assembly.add(*chunks(20, old, 10)[0])
    assembly.add(*chunks(40, new, 10)[0])

    assert assembly.add(*chunks(20, old, 10)[1]) is None
    assert assembly.received_bytes == 10
    assert assembly.add(*chunks(40, new, 10)[1]) == new


def test_the_same_entrys_snapshot_of_another_leader_begins_anew() -> None:
    assembly, ours, theirs = Assembly(), bytes(20), bytes(range(20))
    assembly.add(*chunks(20, ours, 10)[0])

    assert assembly.add(*chunks(20, theirs, 10)[1]) is None
    assert assembly.received_bytes == 0, "the leader is told to begin again"
    assert [assembly.add(*chunk) for chunk in chunks(20, theirs, 10)] == [None, theirs]


def test_a_damaged_whole_is_thrown_away() -> None:
    assembly, blob = Assembly(), bytes(range(20))
    first, second = chunks(20, blob, 10)
    assembly.add(*first)

    assert assembly.add(*second[:4], b"\0" * 10) is None
    assert assembly.received_bytes == 0
    assert [assembly.add(*chunk) for chunk in (first, second)] == [None, blob]


@pytest.mark.parametrize(
    "chunk",
    [
        (20, 0, MAX_SNAPSHOT_BYTES + 1, 0, b"x"),
        (20, 0, 0, 0, b""),
        (20, 0, -1, 0, b""),
        (20, 0, 10, -1, b"x"),
        (20, 0, 10, 0, b"x" * 11),
        (20, 0, 10, 10, b"x"),
    ],
)
def test_what_cannot_be_is_passed_over(chunk: Chunk) -> None:
    assembly, blob = Assembly(), bytes(range(10))
    first, second = chunks(20, blob, 5)
    assembly.add(*first)

    assert assembly.add(*chunk) is None
    assert assembly.add(*second) == blob


BLOBS = {20: bytes(range(50)), 40: bytes(range(50, 90)), 60: b"\0" * 50}


@given(seed=st.integers(0, 10_000), rounds=st.integers(0, 6))
def test_any_mixture_of_chunks_gives_a_blob_or_nothing(seed: int, rounds: int) -> None:
    """Chunks of three snapshots in two cuts, lost, doubled, out of order and damaged."""
    rng, assembly = random.Random(seed), Assembly()
    pool = [chunk for index, blob in BLOBS.items() for size in (9, 16) for chunk in chunks(index, blob, size)]
    for _ in range(rounds):
        for chunk in rng.sample(pool, rng.randint(1, len(pool))) + sorted(rng.sample(pool, 9)):
            index, checksum, total, offset, data = chunk
            if rng.random() < 0.1:
                data = bytes(rng.randbytes(len(data)))
            if rng.random() < 0.05:
                total = rng.randint(0, 60)
            found = assembly.add(index, checksum, total, offset, data)
            assert found is None or found == BLOBS[index]
            assert assembly.received_bytes <= 60
    newest = max(BLOBS)
    assert [assembly.add(*chunk) for chunk in (*chunks(99, BLOBS[newest], 25),)][-1] == BLOBS[newest]
