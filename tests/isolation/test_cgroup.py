"""Reading, writing and watching a cgroup's files, on plain directories with the same files. What only a kernel can show
is in tests/cgroup."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.cgroup import Cgroup, CgroupError, CgroupTree
from mesos_actor.isolation.cgroup_files import CgroupNode, Stall
from mesos_actor.isolation.cgroup_usage import CgroupTotals, DeviceUsage
from mesos_actor.isolation.events import (
    CgroupEvents,
    Counts,
    Emptied,
    ForkRefused,
    Frozen,
    OomGroupKilled,
    OomKilled,
)
from mesos_actor.isolation.limits import Write

CPU_STAT = "usage_usec 5000\nuser_usec 3000\nsystem_usec 2000\nnr_periods 7\nnr_throttled 3\nthrottled_usec 900\n"
PRESSURE = "some avg10=12.50 avg60=0.00 avg300=0.00 total=4000\nfull avg10=1.25 avg60=0.00 avg300=0.00 total=1000\n"
FILES = {
    "cgroup.events": "populated 1\nfrozen 0\n",
    "cgroup.procs": "10\n11\n",
    "cgroup.freeze": "0\n",
    "cpu.stat": CPU_STAT,
    "cpu.max": "max 100000\n",
    "cpu.weight": "100\n",
    "cpu.pressure": PRESSURE,
    "cpuset.cpus": "0-2,5\n",
    "memory.current": "4096\n",
    "memory.max": "max\n",
    "memory.low": "0\n",
    "memory.events": "low 0\nhigh 1\nmax 2\noom 0\noom_kill 0\noom_group_kill 0\n",
    "pids.current": "2\n",
    "pids.max": "max\n",
    "pids.events": "max 0\n",
    "io.stat": "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n7:0 \n",
    "io.max": "8:0 rbps=max wbps=1048576 riops=max wiops=max\n",
    "hugetlb.2MB.max": "max\n",
}


@pytest.fixture
def cgroup(tmp_path: Path) -> Cgroup:
    return make(tmp_path / "task")


def make(directory: Path) -> Cgroup:
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_text(content)
    return Cgroup(directory.name, str(directory))


def put(cgroup: Cgroup, file: str, content: str) -> None:
    """Write over a file in place, as the kernel would."""
    with Path(cgroup.directory, file).open("r+") as opened:
        opened.write(content)
        opened.truncate()


# -- files ----------------------------------------------------------------------------------------------------------


def test_each_format_is_read(cgroup: Cgroup) -> None:
    node = cgroup.node

    assert node.core.procs == [10, 11]
    assert node.core.freeze is False
    assert node.cpu.max == (None, 100_000)
    assert node.cpu.weight == 100
    assert node.cpu.pressure == Stall(4_000, 1_000, 125, 12)
    assert node.cpuset.cpus == {0, 1, 2, 5}
    assert (node.memory.current, node.memory.max) == (4_096, None)
    assert node.memory.events["max"] == 2
    assert node.io.max == {"8:0": {"rbps": None, "wbps": 1_048_576, "riops": None, "wiops": None}}
    assert node.huge_pages("2MB").max is None


def test_each_format_is_written(cgroup: Cgroup) -> None:
    node = cgroup.node
    node.cpu.max = (50_000, 100_000)
    node.memory.max = 1 << 30
    node.core.freeze = True
    node.core.procs = 4_711
    node.cpuset.cpus = {1, 2, 3, 7}

    assert (node.cpu.max, node.memory.max, node.core.freeze) == ((50_000, 100_000), 1 << 30, True)
    assert node.read("cgroup.procs").startswith("4711")
    assert node.read("cpuset.cpus").startswith("1-3,7")


def test_read_only_files_are_not_written(cgroup: Cgroup) -> None:
    with pytest.raises(RuntimeError, match="readonly"):
        cgroup.node.pids.current = 3


@pytest.mark.parametrize("content", ["", "\n", "populated\n", "x y z\n"])
def test_damaged_counters_are_no_error(cgroup: Cgroup, content: str) -> None:
    put(cgroup, "cgroup.events", content)

    assert cgroup.node.core.events == {}
    assert not cgroup.is_populated()


def test_writing_makes_no_file_that_the_kernel_has_not(cgroup: Cgroup) -> None:
    with pytest.raises(FileNotFoundError):
        cgroup.node.write("memory.peak", "0")


def test_usage_is_what_the_files_say(cgroup: Cgroup) -> None:
    usage = cgroup.usage()

    assert usage is not None
    assert (usage.cpu_us, usage.cpu_user_us, usage.cpu_system_us) == (5_000, 3_000, 2_000)
    assert (usage.periods, usage.throttled_periods, usage.throttled_us) == (7, 3, 900)
    assert (usage.memory_bytes, usage.memory_peak_bytes) == (4_096, None)
    assert (usage.memory_high_events, usage.memory_max_events) == (1, 2)
    assert usage.devices == (DeviceUsage("8:0", 1, 2, 3, 4),)
    assert (usage.cpu_stall, usage.io_stall) == (Stall(4_000, 1_000, 125, 12), None)
    assert Cgroup("gone", f"{cgroup.directory}/gone").usage() is None


# -- limits ---------------------------------------------------------------------------------------------------------


def test_limits_are_written(cgroup: Cgroup) -> None:
    cgroup.apply((Write("cpu", "cpu.weight", "200"), Write("memory", "memory.swap.max", "0")))

    assert cgroup.node.cpu.weight == 200


def test_refused_one_takes_the_others_back(cgroup: Cgroup) -> None:
    device = "8:0 rbps=1 wbps=max riops=max wiops=max"
    writes = (
        Write("cpu", "cpu.weight", "900"),
        Write("io", "io.max", device),
        Write("io", "io.max", "8:16 rbps=1 wbps=max riops=max wiops=max"),
        Write("memory", "memory.high", "1"),
    )

    with pytest.raises(CgroupError) as caught:
        cgroup.apply(writes)
    path = f"{cgroup.directory}/memory.high"
    assert str(caught.value) == f"{path}: this kernel has no such file, or controller memory is not enabled"
    assert cgroup.node.cpu.weight == 100
    # Each device gets its own former line, last first; a plain file keeps only the last of them.
    assert cgroup.node.read("io.max") == FILES["io.max"].strip()


def test_what_cannot_be_taken_back_is_told(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    write = CgroupNode.write

    def refusing(self: CgroupNode, file: str, content: str) -> None:
        if content in ("100", "bad"):
            raise OSError(22, "Invalid argument")
        write(self, file, content)

    monkeypatch.setattr(CgroupNode, "write", refusing)
    with pytest.raises(CgroupError, match=r"refused 'bad' Invalid argument; and these stay changed: cpu\.weight \(Inv"):
        cgroup.apply((Write("cpu", "cpu.weight", "300"), Write("pids", "pids.max", "bad")))


def test_list_that_cannot_be_emptied_is_what_the_one_above_has(cgroup: Cgroup, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(cgroup.directory).parent.joinpath("cpuset.cpus.effective").write_text("0-7\n")
    write = CgroupNode.write

    def refusing(self: CgroupNode, file: str, content: str) -> None:
        if content == "\n":
            raise OSError(28, "No space left on device")
        write(self, file, content)

    monkeypatch.setattr(CgroupNode, "write", refusing)
    cgroup.apply((Write("cpuset", "cpuset.cpus", "\n"),))
    assert cgroup.node.cpuset.cpus == set(range(8))


def test_what_a_new_cgroup_holds_anyhow_is_not_written(cgroup: Cgroup) -> None:
    cgroup.apply_fresh((Write("cpu", "cpu.max.burst", "0"), Write("cpu", "cpu.weight", "7")))

    assert cgroup.node.cpu.weight == 7
    assert not Path(cgroup.directory, "cpu.max.burst").exists()
    with pytest.raises(CgroupError, match="no such file"):
        cgroup.apply_fresh((Write("cpu", "cpu.max.burst", "1"),))


# -- names ----------------------------------------------------------------------------------------------------------

NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0\n"), min_size=1, max_size=300)


@given(st.sets(NAMES.filter(lambda name: name not in (".", "..")), min_size=2, max_size=4))
def test_two_ids_are_two_directories_and_none_is_a_file_of_the_kernel(names: set[str]) -> None:
    tree = CgroupTree("/nowhere", ())
    directories = {Path(tree.of(name).directory).name for name in names}

    assert len(directories) == len(names)
    assert all(len(name.encode()) <= 255 for name in directories)
    assert not directories & set(FILES)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\0b"])
def test_id_that_leads_elsewhere_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="container_id: "):
        CgroupTree("/nowhere", ()).of(name)


def test_names_are_the_ids_again(tmp_path: Path) -> None:
    tree = CgroupTree(str(tmp_path), ())
    ids = ("_x", "a.1", "cpu.max", "memory")
    for name in ids:
        Path(tree.of(name).directory).mkdir()
    (tmp_path / "cgroup.procs").touch()

    assert tree.names() == ids
    with pytest.raises(CgroupError, match="No such file"):
        CgroupTree(f"{tmp_path}/gone", ()).names()


# -- events ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def events() -> Iterator[CgroupEvents]:
    watcher = CgroupEvents()
    yield watcher
    watcher.close()


def read(events: CgroupEvents) -> list[object]:
    return list(events.read()) if select.select([events], [], [], 5)[0] else []


def test_counts_of_the_moment_are_handed_back(cgroup: Cgroup, events: CgroupEvents) -> None:
    put(cgroup, "memory.events", "oom_kill 4\noom_group_kill 1\n")

    assert events.watch(cgroup) == Counts(populated=True, oom_kills=4, oom_group_kills=1)
    assert events.read() == []


def test_reason_is_told_before_the_end(cgroup: Cgroup, events: CgroupEvents) -> None:
    """Whichever the kernel notified first."""
    events.watch(cgroup)
    put(cgroup, "cgroup.events", "populated 0\nfrozen 0\n")
    put(cgroup, "pids.events", "max 3\n")
    put(cgroup, "memory.events", "oom_kill 2\noom_group_kill 1\n")

    told = read(events)
    assert told[:4] == [OomKilled("task", 2), OomGroupKilled("task"), ForkRefused("task", 3), Emptied("task")]
    assert set(map(type, told[4:])) <= {Emptied}


def test_difference_is_told_once(cgroup: Cgroup, events: CgroupEvents) -> None:
    events.watch(cgroup)
    put(cgroup, "pids.events", "max 1\n")
    assert read(events) == [ForkRefused("task", 1)]
    put(cgroup, "pids.events", "max 5\n")

    assert read(events) == [ForkRefused("task", 4)]


def test_freezing_is_no_end(cgroup: Cgroup, events: CgroupEvents) -> None:
    events.watch(cgroup)
    put(cgroup, "cgroup.events", "populated 1\nfrozen 1\n")

    assert read(events) == [Frozen("task", True)]


def test_full_queue_makes_it_look_at_everything(cgroup: Cgroup, tmp_path: Path, events: CgroupEvents) -> None:
    other = make(tmp_path / "other")
    events.watch(cgroup)
    events.watch(other)
    put(cgroup, "pids.events", "max 1\n")
    files = [os.open(f"{other.directory}/{file}", os.O_WRONLY) for file in ("memory.events", "cgroup.events")]
    for _ in range(int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())):
        for file in files:
            os.pwrite(file, b" ", 200)  # one by one in turn: the kernel merges equal ones
    for file in files:
        os.close(file)
    put(cgroup, "memory.events", "oom_kill 1\n")

    told = read(events)
    while more := read_now(events):
        told += more
    assert set(told) == {ForkRefused("task", 1), OomKilled("task", 1)}


def read_now(events: CgroupEvents) -> list[object]:
    return list(events.read()) if select.select([events], [], [], 0)[0] else []


def test_what_is_forgotten_is_silent(cgroup: Cgroup, events: CgroupEvents) -> None:
    events.watch(cgroup)
    put(cgroup, "pids.events", "max 1\n")
    events.unwatch("task")
    events.unwatch("task")
    put(cgroup, "memory.events", "oom_kill 1\n")

    assert events.read() == []


def test_controller_that_is_not_enabled_is_not_watched(cgroup: Cgroup, events: CgroupEvents) -> None:
    Path(cgroup.directory, "pids.events").unlink()
    events.watch(cgroup)
    put(cgroup, "memory.events", "oom_kill 1\n")

    assert read(events) == [OomKilled("task", 1)]


def test_what_is_not_there_cannot_be_watched(tmp_path: Path, events: CgroupEvents) -> None:
    with pytest.raises(CgroupError, match=r"cgroup\.events: cannot be watched: No such file"):
        events.watch(Cgroup("gone", f"{tmp_path}/gone"))


def test_closed_one_may_be_closed_again() -> None:
    watcher = CgroupEvents()
    watcher.close()
    watcher.close()

    assert watcher.fileno() == -1


def test_totals_are_read_from_what_is_there(cgroup: Cgroup) -> None:
    directory = Path(cgroup.directory)
    for path in directory.iterdir():
        path.unlink()
    (directory / "cpu.stat").write_text("usage_usec 31\nuser_usec 1\nnr_periods 2\nthrottled_usec 7\n")

    assert cgroup.totals() == CgroupTotals(
        cpu_us=31,
        throttled_us=7,
        memory_peak_bytes=0,
        memory_max_events=0,
        oom_kills=0,
        pids_max_events=0,
        read_bytes=0,
        write_bytes=0,
    )
    (directory / "memory.events").write_text("low 0\nhigh 3\nmax 4\noom 1\noom_kill 2\noom_group_kill 1\n")
    (directory / "memory.peak").write_text("4096\n")
    (directory / "pids.events").write_text("max 6\n")
    (directory / "io.stat").write_text(
        "8:0 rbytes=10 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:16 rbytes=1 wbytes=2\n"
    )

    totals = cgroup.totals()
    assert totals is not None
    assert (totals.memory_peak_bytes, totals.memory_max_events, totals.oom_kills) == (4_096, 4, 2)
    assert (totals.pids_max_events, totals.read_bytes, totals.write_bytes) == (6, 11, 22)
    shutil.rmtree(directory)
    assert cgroup.totals() is None
