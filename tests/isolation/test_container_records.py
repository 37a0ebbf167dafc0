"""Records of containers, kept for the agent's next life."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from mesos_actor.actors.ids import ContainerId
from mesos_actor.isolation import container_records
from mesos_actor.isolation.container_records import ContainerRecords

A, B = ContainerId("a"), ContainerId("../b\udc80")


class Kept(msgspec.Struct, frozen=True):
    container_id: str
    number: int


@pytest.fixture
def records(tmp_path: Path) -> ContainerRecords[Kept]:
    made = ContainerRecords(tmp_path / "kept", Kept, (".txt",))
    made.start()
    return made


def test_what_is_written_last_is_read(records: ContainerRecords[Kept], tmp_path: Path) -> None:
    records.write(A, Kept("a", 1))
    records.write(B, Kept("b", 2))
    records.write(A, Kept("a", 3))

    assert sorted(one.number for one in records.read()) == [2, 3]
    assert {path.parent for path in tmp_path.rglob("*") if path.is_file()} == {tmp_path / "kept"}


def test_nothing_is_left_of_what_was_removed(records: ContainerRecords[Kept], tmp_path: Path) -> None:
    records.write(A, Kept("a", 1))
    beside = Path(records.write_beside(A, ".txt", "for its users"))
    assert (beside.read_text(), beside.stat().st_mode & 0o777) == ("for its users", 0o644)

    records.remove(A)
    records.remove(A)

    assert list((tmp_path / "kept").iterdir()) == []


def test_what_was_only_begun_is_no_record(records: ContainerRecords[Kept], tmp_path: Path) -> None:
    records.write(A, Kept("a", 1))
    (path,) = (tmp_path / "kept").iterdir()
    path.with_name("torn").write_bytes(path.read_bytes()[:-1])
    path.with_name("begun.new").write_bytes(b"")
    records.write_beside(A, ".txt", "not a record either")

    assert list(records.read()) == [Kept("a", 1)]
    assert sorted(p.suffix for p in (tmp_path / "kept").iterdir()) == ["", ".txt"]


def test_one_that_cannot_be_read_stays_and_is_told(records: ContainerRecords[Kept], tmp_path: Path) -> None:
    """A directory in its place stands for a disk that fails; root may read all else."""
    in_the_way = tmp_path / "kept" / "0123"
    in_the_way.mkdir()

    with pytest.raises(OSError, match="0123"):
        list(records.read())
    assert in_the_way.exists()


def test_one_that_is_too_long_leaves_the_one_before(
    records: ContainerRecords[Kept], monkeypatch: pytest.MonkeyPatch
) -> None:
    records.write(A, Kept("a", 1))
    monkeypatch.setattr(container_records, "MAX_RECORD_BYTES", 30)

    with pytest.raises(OSError, match="30 at most"):
        records.write(A, Kept("a" * 30, 2))
    assert list(records.read()) == [Kept("a", 1)]
