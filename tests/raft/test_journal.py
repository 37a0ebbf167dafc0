"""What was synced is found again, whatever dies when; what is damaged is refused."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InternalError, LocalError, StorageError
from mesos_actor.raft import journal as journal_module
from mesos_actor.raft import segment as segment_module
from mesos_actor.raft.files import REPLACE_STEPS, Died, DirectoryFiles, MemoryFiles
from mesos_actor.raft.journal import MAX_COMMAND_BYTES, Entry, Identity, Journal, read_identity, write_identity
from mesos_actor.raft.segment import HEADER_BYTES, MAX_VOTE_BYTES, EntryRecord, encode_record, segment_name

ME = Identity("10.0.0.1:5050", ("10.0.0.1:5050", "10.0.0.2:5050"), "0123456789abcdef" * 2, founding=True)
FIRST = segment_name(1)


def begun(segment_bytes: int = 1 << 20) -> tuple[MemoryFiles, Journal]:
    files = MemoryFiles()
    return files, Journal.create(files, ME, segment_bytes)


def filled(entries: int, segment_bytes: int = 1 << 20, a_sync: int = 1) -> tuple[MemoryFiles, Journal]:
    """A log of the entries from 2 on, so many of them with a sync each time."""
    files, journal = begun(segment_bytes)
    journal.setCurrentTerm(1, ME.member)
    for index in range(2, entries + 2):
        journal.add(b"command %d" % index, index, 1)
        if index % a_sync == 0:
            journal.sync()
    journal.sync()
    return files, journal


def everything(journal: Journal) -> tuple[list[Entry], int, str | None]:
    return journal[:], journal.getCurrentTerm(), journal.getVotedForNodeId()


# -- one log ----------------------------------------------------------------------------------------------------------


def test_a_new_log_has_its_base_only() -> None:
    _, journal = begun()

    assert everything(journal) == ([(b"", 1, 0)], 0, None)
    assert (journal.first_index, journal.last_index, journal.last_term, len(journal)) == (1, 1, 0, 1)
    assert (journal.dirty, journal.getRaftCommitIndex(), journal.size_bytes) == (False, 1, HEADER_BYTES)


def test_what_was_synced_comes_back() -> None:
    files, journal = begun()
    journal.setCurrentTerm(3, "10.0.0.2:5050")
    journal.add(b"a", 2, 3)
    journal.add(b"", 3, 3)
    dirty = journal.dirty
    journal.sync()
    files.crash()
    again = Journal.open(files, ME)

    assert dirty and not journal.dirty
    assert everything(again) == ([(b"", 1, 0), (b"a", 2, 3), (b"", 3, 3)], 3, "10.0.0.2:5050")
    assert again.cut_bytes == 0
    assert again.size_bytes == journal.size_bytes == len(files.read(FIRST))


def test_a_turn_is_one_write_and_one_sync() -> None:
    files, journal = begun()
    before = files.syncs
    journal.setCurrentTerm(1, None)
    for index in range(2, 50):
        journal.add(b"x", index, 1)
    journal.sync()
    journal.sync()

    assert files.syncs - before == 1


def test_places_are_those_of_a_list() -> None:
    _, journal = filled(5)

    assert journal[-1] == (b"command 6", 6, 1)
    assert journal[1] == (b"command 2", 2, 1)
    assert journal[4:] == [(b"command 5", 5, 1), (b"command 6", 6, 1)]
    with pytest.raises(IndexError):
        journal[6]


def test_terms_are_known_of_what_is_in_the_log_only() -> None:
    _, journal = filled(5)
    journal.trim(4, 0)

    assert [journal.term_at(index) for index in (3, 4, 5, 6, 7)] == [None, 1, 1, 1, None]


def test_entries_come_in_pieces_of_bounded_size() -> None:
    _, journal = begun()
    for index in range(2, 6):
        journal.add(bytes(100), index, 1)
    indexes = [
        [index for _, index, _ in journal.entries(start, limit)]
        for start, limit in ((2, 1 << 62), (4, 1 << 62), (2, 300), (2, 264), (2, 263), (3, 0), (6, 9), (99, 9))
    ]

    assert indexes == [[2, 3, 4, 5], [4, 5], [2, 3], [2, 3], [2], [3], [], []]
    with pytest.raises(InternalError, match="begins after 1"):
        journal.entries(1, 9)


def test_an_entry_in_anothers_place_voids_what_follows() -> None:
    files, journal = filled(6)
    journal.deleteEntriesFrom(3)
    journal.add(b"other", 4, 2)
    journal.sync()

    assert everything(Journal.open(files, ME)) == everything(journal)
    assert [(index, term) for _, index, term in journal[:]] == [(1, 0), (2, 1), (3, 1), (4, 2)]


def test_cutting_back_before_the_segment_is_found_again() -> None:
    files, journal = filled(40, segment_bytes=1024)
    assert len(files.names()) > 2
    journal.deleteEntriesFrom(5)
    journal.add(b"other", 6, 2)
    journal.deleteEntriesFrom(2)
    journal.add(b"another", 3, 3)
    journal.setCurrentTerm(3, None)
    journal.sync()

    assert everything(Journal.open(files, ME, 1024)) == everything(journal)


def test_a_cut_that_nothing_follows_is_in_the_next_segments_header() -> None:
    files, journal = filled(40, segment_bytes=1024)
    journal.deleteEntriesFrom(30)
    journal.setCurrentTerm(2, None)
    while len(files.names()) < 5:
        journal.setCurrentTerm(journal.getCurrentTerm() + 1, None)
        journal.sync()

    assert everything(Journal.open(files, ME, 1024)) == everything(journal)


def test_a_log_goes_on_after_it_was_opened() -> None:
    files, journal = begun(700)
    for index in range(2, 60):
        journal.add(b"x" * index, index, 1)
        journal.sync()
        journal = Journal.open(files, ME, 700)

    assert journal[1:] == [(b"x" * index, index, 1) for index in range(2, 60)]
    assert len(files.names()) > 3


@pytest.mark.parametrize("what", ["hole", "repeated", "base", "clear", "to", "trim", "trim before"])
def test_what_no_caller_may_do_is_a_bug(what: str) -> None:
    _, journal = filled(5)
    journal.trim(3, 0)
    calls: dict[str, Callable[[], None]] = {
        "hole": lambda: journal.add(b"", 8, 1),
        "repeated": lambda: journal.add(b"", 6, 1),
        "base": lambda: journal.deleteEntriesFrom(0),
        "clear": journal.clear,
        "to": lambda: journal.deleteEntriesTo(1),
        "trim": lambda: journal.trim(7, 0),
        "trim before": lambda: journal.trim(2, 0),
    }

    with pytest.raises(InternalError):
        calls[what]()
    assert [index for _, index, _ in journal[:]] == [3, 4, 5, 6]


def test_sizes_are_bounded() -> None:
    files, journal = begun()
    with pytest.raises(LocalError, match="at most 1048576"):
        journal.add(bytes(MAX_COMMAND_BYTES + 1), 2, 1)
    with pytest.raises(LocalError, match="vote"):
        journal.setCurrentTerm(1, "é" * MAX_VOTE_BYTES)
    assert not journal.dirty
    journal.add(bytes(MAX_COMMAND_BYTES), 2, 1 << 62)
    journal.setCurrentTerm(1 << 62, "v" * MAX_VOTE_BYTES)
    journal.sync()
    journal.reset(1 << 62, 1 << 62)

    assert everything(Journal.open(files, ME)) == everything(journal)


def test_a_term_and_a_vote_are_never_taken_back() -> None:
    _, journal = begun()
    journal.setCurrentTerm(4, None)
    journal.setCurrentTerm(4, "a")
    journal.setCurrentTerm(4, "a")
    for term, vote in ((3, None), (4, None), (4, "b")):
        with pytest.raises(InternalError, match="was to follow"):
            journal.setCurrentTerm(term, vote)
    journal.setCurrentTerm(5, None)

    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (5, None)


def test_a_full_disk_stops_the_log() -> None:
    files, journal = filled(3)
    files.full = True
    journal.add(b"lost", 5, 1)
    for _ in range(2):
        with pytest.raises(StorageError, match="free some space"):
            journal.sync()
    assert journal.dirty
    files.full = False
    files.close()
    again = Journal.open(files, ME)

    assert again.last_index == 4
    assert again.cut_bytes > 0


# -- dropping the beginning, and beginning anew -----------------------------------------------------------------------


def test_trimming_removes_whole_files_and_keeps_some_entries() -> None:
    files, journal = filled(100, segment_bytes=1024)
    before = len(files.names())
    journal.trim(80, 10)
    again = Journal.open(files, ME, 1024)

    assert journal[0] == (b"", 70, 1)
    assert (journal.first_index, journal.last_index) == (70, 101)
    assert 1 < len(files.names()) < before
    assert 50 < again.first_index <= 70
    assert again[70 - again.first_index + 1 :] == journal[1:]
    assert journal.size_bytes == again.size_bytes == sum(len(files.read(name)) for name in files.names())


@pytest.mark.parametrize("index", range(2, 42))
def test_trimming_takes_nothing_that_is_needed(index: int) -> None:
    files, journal = filled(40, segment_bytes=600)
    journal.trim(index, 0)
    again = Journal.open(files, ME, 600)

    assert again.first_index <= index
    assert again[index + 1 - again.first_index :] == journal[1:]
    assert again.term_at(index) == 1


def test_trimming_less_than_is_kept_does_nothing() -> None:
    files, journal = filled(20, segment_bytes=600)
    before = files.names(), everything(journal)
    journal.trim(15, 15)

    assert (files.names(), everything(journal)) == before


def test_a_log_begins_anew_behind_a_snapshot() -> None:
    files, journal = filled(40, segment_bytes=600)
    journal.setCurrentTerm(7, "10.0.0.2:5050")
    journal.add(b"never synced", 42, 7)
    journal.reset(1000, 6)
    at_once = everything(Journal.open(files, ME))
    journal.add(b"next", 1001, 7)
    journal.sync()

    assert at_once == ([(b"", 1000, 6)], 7, "10.0.0.2:5050")
    assert len(files.names()) == 1
    assert Journal.open(files, ME)[:] == [(b"", 1000, 6), (b"next", 1001, 7)]


# -- who owns it ------------------------------------------------------------------------------------------------------


def test_identity_comes_back() -> None:
    files = MemoryFiles()
    assert read_identity(files) is None
    write_identity(files, ME)
    files.crash()

    assert read_identity(files) == ME


@pytest.mark.parametrize("step", REPLACE_STEPS)
def test_an_identity_is_the_old_or_the_new_one(step: str) -> None:
    files, new = MemoryFiles(), msgspec.structs.replace(ME, founding=False)
    write_identity(files, ME)
    files.die_in_replace = step
    with pytest.raises(Died):
        write_identity(files, new)
    files.crash()

    assert read_identity(files) == (new if step == "done" else ME)


def test_a_damaged_identity_is_refused() -> None:
    files = MemoryFiles()
    write_identity(files, ME)
    for offset in range(len(files.read("identity"))):
        files.corrupt("identity", offset, 1)
        with pytest.raises(StorageError, match=r"identity.*(damaged|newer)"):
            read_identity(files)
        files.corrupt("identity", offset, 1)
    files.truncate("identity", 11)
    with pytest.raises(StorageError, match="damaged"):
        read_identity(files)


def test_a_newer_release_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_IDENTITY_VERSION", 2)
    monkeypatch.setattr(segment_module, "FORMAT_VERSION", segment_module.FORMAT_VERSION + 1)
    files, _ = begun()
    write_identity(files, ME)
    monkeypatch.undo()

    with pytest.raises(StorageError, match="written by a newer release"):
        read_identity(files)
    with pytest.raises(StorageError, match=r"log-.*written by a newer release"):
        Journal.open(files, ME)


def test_a_log_is_never_begun_over_another_nor_missed() -> None:
    files, _ = begun()
    with pytest.raises(StorageError, match="a log here already"):
        Journal.create(files, ME)
    files.remove(FIRST)
    with pytest.raises(StorageError, match="no log"):
        Journal.open(files, ME)
    files.append(FIRST, b"mactlog")
    with pytest.raises(StorageError, match="no log"):
        Journal.open(files, ME)


def test_a_storage_id_must_be_one() -> None:
    wrong = msgspec.structs.replace(ME, storage_id="0123")
    with pytest.raises(LocalError, match="32 hex digits"):
        Journal.create(MemoryFiles(), wrong)
    with pytest.raises(LocalError, match="32 hex digits"):
        write_identity(MemoryFiles(), wrong)


def test_the_log_of_another_disk_is_refused() -> None:
    files, _ = begun()
    other = msgspec.structs.replace(ME, storage_id="f" * 32)

    with pytest.raises(StorageError, match="is of another disk"):
        Journal.open(files, other)


# -- damage -----------------------------------------------------------------------------------------------------------


def test_a_missing_segment_is_refused() -> None:
    files, _ = filled(60, segment_bytes=600)
    files.remove(segment_name(2))

    with pytest.raises(StorageError, match=rf"{segment_name(2)}: is missing .*--replace"):
        Journal.open(files, ME)


def test_a_segment_under_anothers_name_is_refused() -> None:
    files, _ = filled(20)
    files.append(segment_name(2), files.read(FIRST))

    with pytest.raises(StorageError, match=f"it was written as {FIRST}"):
        Journal.open(files, ME)


def test_a_torn_record_is_cut_off_for_good() -> None:
    files, journal = filled(3)
    size = len(files.read(FIRST))
    files.append(FIRST, files.read(FIRST)[HEADER_BYTES : HEADER_BYTES + 15] + bytes(100))
    files.sync()
    again = Journal.open(files, ME)
    files.crash()

    assert (everything(again), again.cut_bytes) == (everything(journal), 115)
    assert len(files.read(FIRST)) == size


@pytest.mark.parametrize("size_bytes", [0, 1, HEADER_BYTES - 1, HEADER_BYTES + 30])
def test_a_segment_that_a_crash_kept_from_beginning_is_begun_again(size_bytes: int) -> None:
    files, journal = filled(60, segment_bytes=1024)
    last = files.names()[-1]
    following = segment_name(int(last[4:], 16) + 1)
    # The header's prefix, or as much space with nothing in it.
    files.append(following, files.read(last)[:size_bytes] if size_bytes < HEADER_BYTES else bytes(size_bytes))
    again = Journal.open(files, ME, 1024)

    assert len(files.read(following)) == HEADER_BYTES
    assert (everything(again), again.cut_bytes) == (everything(journal), size_bytes)
    assert everything(Journal.open(files, ME, 1024)) == everything(journal)


def test_a_record_in_the_middle_is_not_passed_over() -> None:
    files, _ = filled(5)
    at = HEADER_BYTES + 45
    files.corrupt(FIRST, at, 4)

    with pytest.raises(StorageError, match=rf"{FIRST}, byte \d+: a damaged record.*good one behind.*--replace"):
        Journal.open(files, ME)


def _interrupted(entries: int, holes: set[int]) -> tuple[MemoryFiles, Journal, int]:
    """The power went while the last `entries` of 200 bytes were written in one go; their index before that."""
    files, journal = filled(5)
    before = journal.last_index
    for index in range(before + 1, before + entries + 1):
        journal.add(b"%d" % (index % 10) * 200, index, 1)
    with pytest.raises(Died):
        _die_at_sync(files, journal)
    files.crash(files.unsynced_bytes(), holes={FIRST: holes})
    return files, journal, before


def test_sectors_of_one_write_may_be_missing() -> None:
    """Nobody was told of any entry of it: all from the first hole on are cut off."""
    files, _, before = _interrupted(20, {3, 5})
    again = Journal.open(files, ME)

    assert before < again.last_index < before + 20
    assert again.cut_bytes > 2_000
    assert everything(Journal.open(files, ME)) == everything(again)


def test_the_first_sector_of_a_write_may_be_missing() -> None:
    files, _, before = _interrupted(20, {1})
    assert len(files.read(FIRST)) > 4_000
    assert Journal.open(files, ME).last_index == before


def test_a_hole_before_what_was_synced_later_is_damage() -> None:
    """Somebody was told."""
    files, journal = filled(0)
    for index in range(2, 42):
        journal.add(b"x" * 100, index, 1)
        if index in (21, 41):
            journal.sync()
    data = files.read(FIRST)
    files.truncate(FIRST, 1024)
    files.append(FIRST, bytes(512) + data[1536:])
    files.sync()
    with pytest.raises(StorageError, match=r"a damaged record, and there is a good one behind"):
        Journal.open(files, ME)


def test_a_changed_byte_in_the_last_write_is_damage() -> None:
    """A power cut leaves no such thing."""
    files, _, _ = _interrupted(20, set())
    files.corrupt(FIRST, 1_600, 8)
    with pytest.raises(StorageError, match=r"a damaged record, and there is a good one behind"):
        Journal.open(files, ME)


def test_a_header_that_is_gone_is_missed_when_more_was_synced() -> None:
    files, _ = filled(3)
    data = files.read(FIRST)
    files.truncate(FIRST, 0)
    files.append(FIRST, bytes(HEADER_BYTES) + data[HEADER_BYTES:])
    with pytest.raises(StorageError, match="header is gone, and there are records that were synced after it"):
        Journal.open(files, ME)


def test_a_header_that_was_never_written_is_begun_again() -> None:
    """The power went while header and records of a new segment were written in one go; only the records arrived."""
    files, journal = filled(10, segment_bytes=600)
    journal.add(b"x" * 700, journal.last_index + 1, 1)
    journal.sync()  # that segment is full
    before = journal.last_index
    journal.add(b"y" * 700, before + 1, 1)
    with pytest.raises(Died):
        _die_at_sync(files, journal)
    (new,) = files.unsynced_bytes()
    files.crash(files.unsynced_bytes(), holes={new: {0}})
    files.on_sync = None
    assert len(files.read(new)) > HEADER_BYTES
    again = Journal.open(files, ME, 600)

    assert again.last_index == before
    assert everything(Journal.open(files, ME, 600)) == everything(again)


def test_the_end_of_an_earlier_segment_is_not_cut_off() -> None:
    files, _ = filled(60, segment_bytes=600)
    files.truncate(FIRST, len(files.read(FIRST)) - 1)

    with pytest.raises(StorageError, match=rf"{FIRST}, byte \d+: a damaged record, and there are later segments"):
        Journal.open(files, ME)


def test_whole_entries_that_are_gone_are_missed() -> None:
    """Nothing is damaged; the next header tells."""
    files, _ = filled(60, segment_bytes=600)
    vote_bytes = 14 + len(b"\x93\xa1v\x01\xad" + ME.member.encode())
    files.truncate(FIRST, HEADER_BYTES + vote_bytes)

    with pytest.raises(StorageError, match=r"the entries 2 to \d are missing before it"):
        Journal.open(files, ME)


def test_a_whole_vote_that_is_gone_is_missed() -> None:
    files, journal = filled(3)
    size_bytes = journal.size_bytes
    journal.setCurrentTerm(2, "10.0.0.2:5050")
    journal.sync()
    journal = Journal.open(files, ME, segment_bytes=size_bytes)
    journal.add(b"in a second segment", 5, 2)
    journal.sync()
    files.truncate(FIRST, size_bytes)

    with pytest.raises(StorageError, match="a record of term 2 is missing before it"):
        Journal.open(files, ME)


def _with_record(record: msgspec.Struct) -> MemoryFiles:
    files, journal = filled(3)
    seed = journal._segments[0].header.seed
    files.append(FIRST, encode_record(record, seed, len(files.read(FIRST))))  # type: ignore[arg-type]
    return files


class _Unknown(msgspec.Struct, array_like=True, tag="z"):
    what: int = 1


@pytest.mark.parametrize(
    ("record", "match"),
    [
        (_Unknown(), "a record of an unknown kind"),
        (EntryRecord(6, 1, b""), "entry 6 follows entry 4"),
        (EntryRecord(1, 1, b""), "entry 1 follows entry 4"),
        (segment_module.VoteRecord(0, None), "goes back from term 1 to 0"),
    ],
)
def test_a_record_that_cannot_be_is_refused(record: msgspec.Struct, match: str) -> None:
    with pytest.raises(StorageError, match=match):
        Journal.open(_with_record(record), ME)


def test_a_command_that_looks_like_a_record_is_none() -> None:
    """A torn record is cut off although its command holds a sound record of another disk or segment."""
    files, journal = filled(3)
    other = segment_module.Header(b"\1" * 16, 1, True, 1, 0, 0, None)
    journal.add(encode_record(EntryRecord(5, 1, b"forged"), other.seed, 0) + bytes(50), 5, 1)
    with pytest.raises(Died):
        _die_at_sync(files, journal)
    files.crash({FIRST: 80})

    assert Journal.open(files, ME).last_index == 4


def _die_at_sync(files: MemoryFiles, journal: Journal) -> None:
    def die() -> None:
        raise Died

    files.on_sync = die
    journal.sync()


def _prepared() -> tuple[MemoryFiles, Journal]:
    """Three segments, the last of which voids an entry and ends with a vote."""
    files, journal = filled(22, segment_bytes=800, a_sync=3)
    journal.deleteEntriesFrom(len(journal) - 2)
    journal.add(b"in place of another", journal.last_index + 1, 2)
    journal.setCurrentTerm(2, None)
    journal.sync()
    assert len(files.names()) == 3
    return files, journal


def _outcome(files: MemoryFiles, expected: list[Entry], name: str, offset: int, xor: int) -> str:
    """What becomes of the log with one changed byte: `refused`, or `cut` when only the last record is gone."""
    data = files.read(name)
    files.corrupt(name, offset % len(data), xor)
    try:
        again = Journal.open(files, ME, 800)
    except StorageError as error:
        assert name in str(error) and "--replace" in str(error)
        return "refused"
    else:
        assert (again[:], again.getCurrentTerm(), again.getVotedForNodeId()) == (expected, 1, ME.member)
        assert 0 < again.cut_bytes < 20
        return "cut"
    finally:
        files.replace(name, data)


@given(segment=st.integers(1, 3), offset=st.integers(0, 2_000), xor=st.integers(1, 255))
def test_a_changed_byte_is_refused_or_takes_the_last_record(segment: int, offset: int, xor: int) -> None:
    files, journal = _prepared()
    outcome = _outcome(files, journal[:], segment_name(segment), offset, xor)

    assert outcome == "refused" or segment == 3


@pytest.mark.slow
def test_every_changed_byte_is_refused_or_takes_the_last_record() -> None:
    files, journal = _prepared()
    outcomes = {
        (name, _outcome(files, journal[:], name, offset, 1 << bit))
        for name in files.names()
        for offset in range(len(files.read(name)))
        for bit in range(8)
    }

    assert outcomes == {*((name, "refused") for name in files.names()), (segment_name(3), "cut")}


@pytest.mark.slow
def test_a_large_log_is_replayed_in_less_than_a_second(tmp_path: Path) -> None:
    files = DirectoryFiles(tmp_path / "registry")
    journal = Journal.create(files, ME)
    for index in range(2, 100_002):
        journal.add(b"%0200d" % index, index, 1)
    journal.sync()
    start = time.perf_counter()
    again = Journal.open(files, ME)
    took_s = time.perf_counter() - start
    files.close()

    assert again[:] == journal[:]
    assert took_s < 1
