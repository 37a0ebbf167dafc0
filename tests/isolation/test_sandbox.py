"""Sandbox files are read and deleted, and no path leads out of a sandbox."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Node, OperationId, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import CollectGarbage, FileData, GarbageCollected, ReadFile
from mesos_actor.isolation.paths import directory_name, sandbox_of
from mesos_actor.isolation.sandbox import MAX_READ_BYTES, FileSandbox, allowed_age_ms, remove_tree

FRAMEWORK = FrameworkId("c1-0001")
A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")


class Files:
    """A FileSandbox, its pretended asker, and a loop."""

    name = "sandbox"
    node = Node("")

    def __init__(self, work_dir: Path) -> None:
        self.live: set[ContainerId] = set()
        self.free_permille = 1_000
        self.answers: list[Message] = []
        self.work_dir = work_dir
        self.loop = asyncio.new_event_loop()
        self.port = FileSandbox(work_dir, self.live.__contains__, deletions_per_s=10_000, free_permille=self._free)

        async def start() -> None:
            self.port.start(self)  # type: ignore[arg-type]

        self.loop.run_until_complete(start())

    def _free(self, _: Path) -> int:
        return self.free_permille

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        self.answers.append(message)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.answers.append(FileData(OperationId(event), 0, 0))

    def read(self, path: str, offset: int = 0, length: int = 1_000, container: str = A) -> FileData:
        message = ReadFile(ContainerId(container), FRAMEWORK, path, offset, length, OperationId("r"))
        self.port.on_message(Address("/agent"), "", Principal("local"), message)
        answer = self.answers.pop()
        assert isinstance(answer, FileData)
        return answer

    def collect(self, max_age_ms: int, *keep: ContainerId) -> set[str]:
        async def until_told() -> Message:
            self.port.on_message(Address("/agent"), "", Principal("local"), CollectGarbage(max_age_ms, tuple(keep)))
            while not self.answers:
                await asyncio.sleep(0.001)
            return self.answers.pop()

        answer = self.loop.run_until_complete(asyncio.wait_for(until_told(), 10))
        assert isinstance(answer, GarbageCollected)
        assert answer.free_fraction_permille == self.free_permille
        return set(answer.removed)

    def make(self, container: ContainerId, age_s: float = 0) -> Path:
        sandbox = Path(sandbox_of(self.work_dir, FRAMEWORK, container))
        sandbox.mkdir(parents=True)
        then = time.time() - age_s
        (sandbox / "stdout").write_text("0123456789")
        for path in (sandbox / "stdout", sandbox):
            os.utime(path, (then, then))
        return sandbox


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    bench = Files(tmp_path / "work")
    yield bench
    bench.port.close()
    bench.loop.close()


@pytest.mark.parametrize(
    ("offset", "length", "begin", "data"),
    [
        (0, 4, 0, b"0123"),
        (8, 99, 8, b"89"),
        (-3, 99, 7, b"789"),
        (-99, 2, 0, b"01"),
        (10, 5, 10, b""),
        (99, 5, 99, b""),
    ],
)
def test_piece_of_a_file(files: Files, offset: int, length: int, begin: int, data: bytes) -> None:
    files.make(A)

    assert files.read("stdout", offset, length) == FileData(OperationId("r"), begin, 10, data)


def test_only_the_agent_may_have_sandboxes_removed(files: Files) -> None:
    sandbox = files.make(A, age_s=1_000_000)

    files.port.on_message(Address("peer:1/framework"), "", Principal("cluster"), CollectGarbage(0, ()))

    assert [getattr(answer, "operation_id", "") for answer in files.answers] == ["unexpected_message"]
    assert sandbox.exists()


def test_no_more_than_the_bound_is_returned(files: Files) -> None:
    (files.make(A) / "big").write_bytes(b"x" * (MAX_READ_BYTES + 9))

    assert len(files.read("big", 0, 1 << 40).data) == MAX_READ_BYTES


@pytest.mark.parametrize(
    "path",
    [
        "",
        "..",
        "../b.000000000002/stdout",
        "/etc/passwd",
        "a/../../x",
        "out",
        "folder/x",
        "nope",
        "a\0b",
        "x" * 5_000,
        "pipe",
    ],
)
def test_what_is_not_a_file_of_the_sandbox_is_refused(files: Files, path: str) -> None:
    sandbox = files.make(A)
    files.make(B)
    (sandbox / "out").symlink_to(files.work_dir / "sandboxes" / FRAMEWORK / B / "stdout")
    (sandbox / "folder").symlink_to("/etc")
    os.mkfifo(sandbox / "pipe")

    answer = files.read(path)

    assert answer.error.startswith("path: ")
    assert answer.data == b""


def test_link_that_stays_inside_is_followed(files: Files) -> None:
    (files.make(A) / "latest").symlink_to("stdout")

    assert files.read("latest").size_bytes == 10


@pytest.mark.parametrize("container", ["..", ".", "", "a/b", "a\0"])
def test_container_that_is_no_name_is_refused(files: Files, container: str) -> None:
    assert files.read("stdout", container=container).error.startswith("container_id: ")


def test_old_sandboxes_go_and_the_others_stay(files: Files) -> None:
    old, kept, live, young = (ContainerId(f"{n}.000000000000") for n in ("old", "kept", "live", "young"))
    paths = {c: files.make(c, age_s=100) for c in (old, kept, live)} | {young: files.make(young, age_s=10)}
    files.live.add(live)

    assert files.collect(50_000, kept) == {old}
    assert {c for c, path in paths.items() if path.exists()} == {kept, live, young}


def test_full_disk_makes_every_ended_sandbox_go(files: Files) -> None:
    files.make(A, age_s=5)
    files.make(B, age_s=5)
    files.live.add(B)
    files.free_permille = 100

    assert files.collect(3_600_000) == {A}


def test_links_are_removed_not_followed(files: Files, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").write_text("x")
    sandbox = files.make(A, age_s=100)
    (sandbox / "way").symlink_to(tmp_path / "precious")
    os.utime(sandbox, (0, 0))

    assert files.collect(50_000) == {A}
    assert (tmp_path / "precious" / "x").exists()


def test_closed_directories_are_removed(tmp_path: Path) -> None:
    tree = tmp_path / "t"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "f").write_text("x")
    (tree / "a" / "b").chmod(0)
    (tree / "a").chmod(0o500)

    assert remove_tree(tree)
    assert not tree.exists()


def test_empty_framework_directory_goes_at_the_next_collection(files: Files) -> None:
    sandbox = files.make(A, age_s=100)
    files.collect(50_000)
    os.utime(sandbox.parent, (0, 0))
    files.collect(50_000)

    assert not sandbox.parent.exists()


@given(max_age_ms=st.integers(0, 10**12), free=st.integers(0, 1000))
def test_age_shrinks_with_the_free_space(max_age_ms: int, free: int) -> None:
    assert allowed_age_ms(max_age_ms, 1_000) == max_age_ms
    assert allowed_age_ms(max_age_ms, min(free, 100)) == 0
    assert allowed_age_ms(max_age_ms, free) <= allowed_age_ms(max_age_ms, min(1_000, free + 1))


@given(st.text(max_size=400))
def test_directory_name_never_leads_elsewhere(name: str) -> None:
    try:
        result = directory_name("id", name)
    except InvalidInput as error:
        assert "id: " in str(error)
    else:
        assert result not in (".", "..", "")
        assert "/" not in result
        assert len(result.encode()) <= 255


def test_long_names_stay_different() -> None:
    assert directory_name("id", "x" * 300 + "a") != directory_name("id", "x" * 300 + "b")
