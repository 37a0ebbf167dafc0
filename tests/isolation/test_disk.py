"""What a sandbox takes of the disk, and what follows from it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mesos_actor.isolation import disk_usage
from mesos_actor.isolation.disk_limit import ProjectIds, disk_limitation
from mesos_actor.isolation.disk_quota import ProjectQuotas, QuotaError
from mesos_actor.isolation.disk_usage import DiskUsage, DiskWalk, measured
from mesos_actor.isolation.isolator import Limitation

MIB = 1 << 20


def blocks(*paths: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in paths)


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    path = tmp_path / "sandbox"
    (path / "d" / "e").mkdir(parents=True)
    (path / "a").write_bytes(b"x" * 100_000)
    (path / "d" / "e" / "b").write_bytes(b"y" * 50_000)
    os.sync()
    return path


def test_usage_is_that_of_all_files_and_directories(sandbox: Path) -> None:
    found = measured(str(sandbox))

    everything = [sandbox, *sandbox.rglob("*")]
    assert found == DiskUsage(blocks(*everything), 4, "", "", blocks(sandbox / "a"))
    assert found.used_bytes >= 150_000


def test_names_of_one_file_count_once_and_holes_not_at_all(sandbox: Path) -> None:
    before = measured(str(sandbox)).used_bytes
    (sandbox / "again").hardlink_to(sandbox / "a")
    with (sandbox / "hole").open("wb") as file:
        file.truncate(1 << 40)

    assert measured(str(sandbox)).used_bytes - before < 100_000


def test_links_are_not_followed(sandbox: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "big").write_bytes(b"z" * 1_000_000)
    (sandbox / "out").symlink_to(tmp_path / "outside")
    (sandbox / "loop").symlink_to(".")

    assert measured(str(sandbox)).used_bytes < 1_000_000
    (tmp_path / "link").symlink_to(sandbox)
    with pytest.raises(NotADirectoryError):
        DiskWalk(str(tmp_path / "link"))


def test_walk_goes_on_where_it_stopped_and_lets_go_of_everything(sandbox: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    walk = DiskWalk(str(sandbox))
    steps = 0
    while (found := walk.step(1)) is None:
        steps += 1

    assert steps > 4
    assert found == measured(str(sandbox))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
    unfinished = DiskWalk(str(sandbox))
    unfinished.step(2)
    unfinished.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_walk_ends_as_soon_as_it_is_enough(sandbox: Path) -> None:
    (sandbox / "more").mkdir()
    for number in range(50):
        (sandbox / "more" / str(number)).write_bytes(b"x" * 10_000)
    os.sync()

    found = measured(str(sandbox), enough_bytes=120_000)
    assert found.used_bytes > 120_000
    assert found.incomplete == "it was not looked at to its end"


def test_sandbox_that_cannot_be_measured_is_told_as_such(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = DiskWalk(str(sandbox), max_entries=2)
    found = walk.step()
    assert found is not None
    assert found.incomplete == "it has more than 2 files and directories"

    monkeypatch.setattr(disk_usage, "MAX_DEPTH", 2)
    assert measured(str(sandbox)).incomplete == "it is more than 2 directories deep"


def test_directory_that_vanishes_meanwhile_is_no_error(sandbox: Path) -> None:
    walk = DiskWalk(str(sandbox))
    walk.step(1)
    for path in sorted(sandbox.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()

    assert walk.step() is not None


def test_biggest_directory_is_the_one_with_the_most_in_its_own_files(sandbox: Path) -> None:
    (sandbox / "d" / "e" / "c").write_bytes(b"y" * 90_000)
    (sandbox / "d" / "f").write_bytes(b"y" * 50_000)
    os.sync()

    found = measured(str(sandbox))
    assert found.biggest == "d/e"
    assert found.biggest_bytes == blocks(sandbox / "d" / "e" / "b", sandbox / "d" / "e" / "c")


def test_what_the_agent_may_not_read_cannot_hide(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A task of the agent's own user can make a directory unreadable, or one whose files only have names."""

    class Entry:
        name = "x"

        def stat(self, follow_symlinks: bool) -> os.stat_result:
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", lambda descriptor: iter([Entry()]))
    assert measured(str(sandbox)).incomplete == "something in it cannot be read: Permission denied"


def test_want_of_descriptors_is_not_the_tasks_fault(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise OSError(24, "Too many open files")

    walk = DiskWalk(str(sandbox))
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        walk.step()
    walk.close()


def test_decision() -> None:
    assert disk_limitation(1024, DiskUsage(1024, 1)) is None
    found = DiskUsage(101 * MIB, 1, "", "data/cache", 60 * MIB + MIB // 2)
    assert disk_limitation(64 * MIB, found) == Limitation(
        "disk", "disk limit of 64 MiB exceeded, in use 101 MiB, biggest directory 'data/cache' with 60.5 MiB"
    )
    limitation = disk_limitation(1024, DiskUsage(5, 1, "it is deep"))
    assert limitation is not None
    assert limitation.text == (
        "disk limit of 1 KiB cannot be kept: what is in use cannot be measured, because it is deep"
    )


@pytest.mark.parametrize(
    ("name", "shown"),
    [("", "'.'"), ("a" * 300, f"'...{'a' * 200}'"), (os.fsdecode(b"\xff"), "'\ufffd'"), ("a\nb", "'a\\nb'")],
)
def test_name_that_a_task_chose_is_shown_as_text(name: str, shown: str) -> None:
    limitation = disk_limitation(1024, DiskUsage(1536, 1, "", name, 1024))

    assert limitation is not None
    assert limitation.text == f"disk limit of 1 KiB exceeded, in use 2 KiB, biggest directory {shown} with 1 KiB"
    limitation.text.encode()


def test_project_ids_are_used_again_last() -> None:
    ids = ProjectIds(10, 13, used=[11, 99])

    assert [ids.take(), ids.take()] == [10, 12]
    ids.release(10)
    ids.release(77)
    assert [ids.take(), ids.take(), ids.take()] == [13, 10, None]
    with pytest.raises(ValueError, match="is not a range above 0"):
        ProjectIds(0, 5)


def test_file_system_without_project_quotas_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(QuotaError) as caught:
        ProjectQuotas("/proc")
    assert str(caught.value).startswith("/proc: ")
    assert any(word in str(caught.value) for word in ("prjquota", "quotactl_fd", "only root"))
