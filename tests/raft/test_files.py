"""What is safe is found again; what is not, may be; and a disk that has refused once is not believed again."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import LocalError, StorageError
from mesos_actor.raft.files import REPLACE_STEPS, Died, DirectoryFiles, Files, MemoryFiles
from mesos_actor.raft.memory_files import SECTOR_BYTES

Open = Callable[[], Files]


def _descriptors() -> set[int]:
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir() if entry.exists()}


@pytest.fixture(params=["memory", "directory"])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Each call ends the process that had the directory, without a crash of the host, and gives it to the next."""
    opened: list[Files] = []
    memory = MemoryFiles()

    def reopen() -> Files:
        if opened:
            opened.pop().close()
        opened.append(memory if request.param == "memory" else DirectoryFiles(tmp_path / "registry"))
        return opened[0]

    yield reopen
    opened.pop().close()


def test_files_come_back(reopen: Open) -> None:
    files = reopen()
    files.append("log-1", b"ab")
    files.append("log-1", b"cd")
    files.replace("identity", b"old")
    files.replace("identity", b"new")
    seen_at_once = files.read("log-1")
    files.sync()
    again = reopen()

    assert seen_at_once == b"abcd"
    assert again.names() == ["identity", "log-1"]
    assert (again.read("log-1"), again.read("identity")) == (b"abcd", b"new")


def test_a_truncated_file_goes_on_where_it_was_cut(reopen: Open) -> None:
    files = reopen()
    files.append("log-1", b"abcdef")
    files.sync()
    files.truncate("log-1", 2)
    files.append("log-1", b"XY")

    assert files.read("log-1") == b"abXY"


def test_appending_goes_on_in_a_replaced_file(reopen: Open) -> None:
    files = reopen()
    files.append("a", b"1")
    files.replace("a", b"2")
    files.append("a", b"3")
    files.sync()

    assert reopen().read("a") == b"23"


def test_removing_what_is_not_there_is_no_error(reopen: Open) -> None:
    files = reopen()
    files.append("a", b"1")
    files.remove("a")
    files.remove("a")
    files.append("a", b"2")

    assert files.read("a") == b"2"


def test_a_missing_file_says_so(reopen: Open) -> None:
    with pytest.raises(StorageError, match=r"identity.*No such file"):
        reopen().read("identity")


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "A", "lock", "x.tmp", "a\n", "a" * 101])
def test_a_name_that_could_be_something_else_is_refused(reopen: Open, name: str) -> None:
    files = reopen()

    for call in (files.read, files.remove, lambda n: files.append(n, b""), lambda n: files.replace(n, b"")):
        with pytest.raises(LocalError, match="file name"):
            call(name)


# -- a real directory -------------------------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[DirectoryFiles]:
    files = DirectoryFiles(tmp_path / "registry")
    yield files
    files.close()


def test_nobody_else_may_read_and_nothing_is_inherited(directory: DirectoryFiles) -> None:
    before = _descriptors()
    directory.append("log-1", b"x")
    directory.replace("identity", b"x")
    opened = _descriptors() - before

    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700
    assert {stat.S_IMODE((directory.path / name).stat().st_mode) for name in ("log-1", "identity", "lock")} == {0o600}
    assert [os.get_inheritable(descriptor) for descriptor in opened] == [False]


def test_a_second_process_is_refused_and_told_who_holds_it(directory: DirectoryFiles) -> None:
    program = (
        "import sys, pathlib\nfrom mesos_actor.raft.files import DirectoryFiles\n"
        "from mesos_actor.actors.errors import StorageError\n"
        "try: DirectoryFiles(pathlib.Path(sys.argv[1]))\nexcept StorageError as error: print(error)"
    )
    said = subprocess.run([sys.executable, "-c", program, directory.path], capture_output=True, text=True, check=True)

    assert f"in use by process {os.getpid()}" in said.stdout


def test_what_was_never_finished_is_removed(directory: DirectoryFiles) -> None:
    directory.close()
    (directory.path / "identity.tmp").write_bytes(b"half")
    (directory.path / "Not Ours.tmp").write_bytes(b"")
    again = DirectoryFiles(directory.path)

    assert again.names() == []
    assert not (directory.path / "identity.tmp").exists()
    assert (directory.path / "Not Ours.tmp").exists()
    again.close()


def test_a_link_in_a_files_place_is_refused(directory: DirectoryFiles, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    (directory.path / "log-1").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(StorageError, match="link"):
        directory.append("log-1", b"x")


def test_descriptors_are_bounded(directory: DirectoryFiles) -> None:
    before = len(_descriptors())
    for number in range(20):
        directory.append(f"log-{number}", b"x")
        directory.sync()

    assert len(_descriptors()) - before <= 4
    directory.append("log-0", b"y")
    directory.sync()
    assert directory.read("log-0") == b"xy"


def _watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is told to the disk, in order, with the name of the file."""
    calls: list[str] = []
    for name in ("fsync", "fdatasync"):
        really = getattr(os, name)

        def watched(fd: int, really: Callable[[int], None] = really, name: str = name) -> None:
            calls.append(f"{name} {Path(f'/proc/self/fd/{fd}').readlink().name}")
            really(fd)

        monkeypatch.setattr(os, name, watched)
    rename = os.rename

    def renamed(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        calls.append("rename")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "rename", renamed)
    return calls


def test_order_of_syncs(directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _watch(monkeypatch)

    directory.append("log-1", b"x")
    directory.append("log-1", b"y")
    directory.sync()
    assert calls == ["fdatasync log-1", "fsync registry"]
    calls.clear()
    directory.append("log-1", b"z")
    directory.sync()
    directory.sync()
    assert calls == ["fdatasync log-1"]
    calls.clear()
    directory.replace("identity", b"x")
    assert calls == ["fsync identity.tmp", "rename", "fsync registry"]


def test_a_new_directory_and_its_parents_are_made_safely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _watch(monkeypatch)
    DirectoryFiles(tmp_path / "a" / "b").close()

    assert calls == ["fsync a", f"fsync {tmp_path.name}", "fsync b"]


def test_opening_syncs_what_a_killed_process_left_in_the_page_cache(
    directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.append("log-1", b"never synced")
    directory.close()
    calls = _watch(monkeypatch)
    again = DirectoryFiles(directory.path)

    assert calls == ["fsync log-1", "fsync registry"]
    again.close()


def test_a_short_write_is_continued(directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    really = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: really(fd, data[:3]))
    directory.append("log-1", b"0123456789")
    directory.replace("identity", b"abcdefg")

    assert (directory.read("log-1"), directory.read("identity")) == (b"0123456789", b"abcdefg")


def _failing(monkeypatch: pytest.MonkeyPatch, function: str, error: int, let_through: int = 0) -> None:
    """`os.<function>` fails for good after so many calls."""
    left, really = [let_through], getattr(os, function)

    def fails(*args: object, **kwargs: object) -> object:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(error, os.strerror(error))
        return really(*args, **kwargs)

    monkeypatch.setattr(os, function, fails)


def _refusals(files: Files) -> list[str]:
    """What everything that changes something says now."""
    said: list[str] = []
    calls: list[Callable[[], None]] = [
        lambda: files.append("log-1", b"x"),
        files.sync,
        lambda: files.replace("identity", b"x"),
        lambda: files.truncate("log-1", 0),
        lambda: files.remove("log-1"),
    ]
    for call in calls:
        with pytest.raises(StorageError) as refusal:
            call()
        said.append(str(refusal.value))
    return said


@pytest.mark.parametrize("function", ["write", "fdatasync"])
def test_after_a_failed_write_or_sync_nothing_more_is_taken(
    directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    directory.append("log-1", b"safe")
    directory.sync()
    _failing(monkeypatch, function, errno.EIO)
    with pytest.raises(StorageError, match=r"registry.*Input/output error.*check its health") as first:
        directory.append("log-1", b"unsafe")
        directory.sync()
    monkeypatch.undo()  # the kernel says next time that all is well

    assert _refusals(directory) == [str(first.value)] * 5
    assert directory.read("log-1") == b"safe", "the next process would believe what only the page cache has"


def test_a_full_disk_says_what_to_do(directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.replace("identity", b"old")
    _failing(monkeypatch, "fsync", errno.ENOSPC)

    with pytest.raises(StorageError, match=r"identity.*free some space, then start this process again"):
        directory.replace("identity", b"new")
    assert directory.read("identity") == b"old"
    assert not (directory.path / "identity.tmp").exists()


def test_a_write_that_stops_half_way_is_cut_off(directory: DirectoryFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    directory.append("log-1", b"safe")
    directory.sync()
    really, calls = os.write, [0]

    def half(fd: int, data: memoryview) -> int:
        calls[0] += 1
        if calls[0] > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return really(fd, data[:2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(StorageError, match="disk is full"):
        directory.append("log-1", b"lost")

    assert directory.read("log-1") == b"safe"


def test_a_place_that_is_no_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(StorageError, match="cannot be opened"):
        DirectoryFiles(tmp_path / "file")


def test_a_refused_directory_leaves_no_descriptor(directory: DirectoryFiles) -> None:
    before = len(_descriptors())
    with pytest.raises(StorageError, match="in use"):
        DirectoryFiles(directory.path)

    assert len(_descriptors()) == before


def test_a_closed_directory_takes_nothing(directory: DirectoryFiles) -> None:
    directory.close()
    directory.close()

    assert all("is closed" in text for text in _refusals(directory))


# -- a directory in memory --------------------------------------------------------------------------------------------


def test_a_crash_takes_what_was_not_synced() -> None:
    files = MemoryFiles()
    files.append("a", b"safe")
    files.sync()
    files.append("a", b"lost")
    files.append("b", b"lost")
    assert files.unsynced_bytes() == {"a": 4, "b": 4}
    files.crash()

    assert (files.names(), files.read("a"), files.unsynced_bytes()) == (["a"], b"safe", {})


def test_a_crash_may_leave_a_piece_of_it() -> None:
    files = MemoryFiles()
    files.append("a", b"safe")
    files.sync()
    files.append("a", b"lost")
    files.append("b", b"lost")
    files.crash({"a": 1, "b": 0}, torn={"b": b"\0\0"})
    files.crash()

    assert (files.read("a"), files.read("b")) == (b"safel", b"\0\0")


@given(seed=st.integers(0, 99))
def test_a_torn_write_leaves_any_prefix_or_any_sectors(seed: int) -> None:
    files, written = MemoryFiles(), b"12" + b"x" * 1_500
    files.append("a", b"12")
    files.sync()
    files.append("a", written[2:])
    files.tear(random.Random(seed))

    found = files.read("a")
    assert found[:2] == b"12"
    assert len(found) == len(written) or written.startswith(found)
    for begin in range(0, len(found), SECTOR_BYTES):
        sector, end = found[begin : begin + SECTOR_BYTES], begin + SECTOR_BYTES
        assert sector == written[begin:end][: len(sector)] or not any(sector[2 if not begin else 0 :])


@pytest.mark.parametrize("before", [b"", b"old"])
@pytest.mark.parametrize("step", REPLACE_STEPS)
def test_a_replacement_that_is_killed_leaves_the_old_or_the_new(step: str, before: bytes) -> None:
    files = MemoryFiles()
    if before:
        files.replace("a", before)
    files.die_in_replace = step
    with pytest.raises(Died):
        files.replace("a", b"new")
    found_at_once = files.read("a") if "a" in files.names() else b""
    files.crash()
    found = files.read("a") if "a" in files.names() else b""

    assert found_at_once == (b"new" if step in ("renamed", "done") else before)
    assert found == (b"new" if step == "done" else before)


def test_removals_come_back_the_last_first() -> None:
    files = MemoryFiles()
    for name in "abc":
        files.replace(name, b"x")
    for name in "abc":
        files.remove(name)
    files.crash(undo_removals=2)

    assert files.names() == ["b", "c"]


def test_removals_are_safe_once_the_directory_is() -> None:
    files = MemoryFiles()
    files.replace("a", b"x")
    files.remove("a")
    files.append("b", b"x")
    files.sync()
    files.crash(undo_removals=1)

    assert files.names() == ["b"]


def test_a_full_memory_refuses_until_the_process_is_over() -> None:
    files = MemoryFiles()
    files.append("log-1", b"safe")
    files.sync()
    files.full = True
    with pytest.raises(StorageError, match="free some space") as first:
        files.append("log-1", b"half")
    files.full = False

    assert _refusals(files) == [str(first.value)] * 5
    assert files.read("log-1") == b"safeha"
    files.crash()
    files.append("log-1", b"!")
    assert files.read("log-1") == b"safe!"


def test_replacing_on_a_full_disk_leaves_the_old_file() -> None:
    files = MemoryFiles()
    files.replace("a", b"old")
    files.full = True
    with pytest.raises(StorageError, match="free some space"):
        files.replace("a", b"new")

    assert files.read("a") == b"old"


def test_the_owner_is_told_of_syncs_before_they_are_safe() -> None:
    def die() -> None:
        raise Died

    files = MemoryFiles(on_sync=die)
    files.append("a", b"x")
    for call in (files.sync, lambda: files.replace("b", b"x")):
        with pytest.raises(Died):
            call()
    files.crash()

    assert files.names() == []


def test_a_changed_byte_stays_changed() -> None:
    files = MemoryFiles()
    files.replace("a", b"abc")
    files.corrupt("a", 1, 0x20)
    files.crash()

    assert files.read("a") == b"aBc"
