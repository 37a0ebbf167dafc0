"""Limits hold: each is written, run into, and seen in what the kernel counts."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.messages.values import HugePages
from mesos_actor.isolation.cgroup import CgroupError, CgroupTree
from mesos_actor.isolation.events import CgroupEvents, Emptied, ForkRefused, OomGroupKilled, OomKilled
from mesos_actor.isolation.limits import DeviceLimit, Limits, Write, writes_of

if TYPE_CHECKING:
    Kit = Any
    Run = Any

pytestmark = pytest.mark.cgroup
MIB = 1 << 20
HOG = "while :; do :; done"
GROW = "head -c 400M /dev/zero | tail >/dev/null"
"""Grows until it holds 400 MB: tail keeps a line in memory until it ends."""


def test_hog_under_a_fifth_of_a_cpu_gets_a_fifth(tree: CgroupTree, run: Run, kit: Kit) -> None:
    hog = tree.create("hog", writes_of(Limits(cpus_request_milli=200, cpus_limit_milli=200)))
    run(hog, HOG)
    kit.until(lambda: kit.usage(hog).throttled_periods, "a first throttling")

    (share,) = kit.cpu_share(5, hog)
    usage = hog.usage()
    assert usage is not None
    assert 0.19 <= share <= 0.21
    assert usage.throttled_us > 0
    assert usage.periods >= usage.throttled_periods > 0


def test_two_hogs_share_one_processor_as_one_to_three(tree: CgroupTree, run: Run, kit: Kit) -> None:
    pod = tree.create("pod", writes_of(Limits(cpuset_cpus=(0,))))
    one = tree.create("one", writes_of(Limits(cpus_request_milli=1_000)), pod)
    three = tree.create("three", writes_of(Limits(cpus_request_milli=3_000)), pod)
    assert three.node.cpuset.cpus_effective == {0}
    run(one, HOG)
    run(three, HOG)
    kit.until(lambda: min(kit.usage(one).cpu_us, kit.usage(three).cpu_us) > 100_000, "both run")

    small, large = kit.cpu_share(6, one, three)
    assert large / small == pytest.approx(3, rel=0.05)
    assert small + large <= 1.02
    stall = three.usage()
    assert stall is not None
    assert stall.cpu_stall is not None
    assert stall.cpu_stall.some_us > 0


def test_memory_hog_is_killed_as_a_whole_and_told(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    hog = tree.create("hog", writes_of(Limits(mem_request_bytes=64 * MIB)))
    neighbour = tree.create("neighbour", writes_of(Limits(mem_request_bytes=64 * MIB)))
    events.watch(hog)
    events.watch(neighbour)
    quiet = run(neighbour, "exec sleep 1000")
    process = run(hog, f"sleep 1000 & {GROW}")

    told: list[object] = []
    kit.wait_for(events, Emptied, "hog", told)
    usage = hog.usage()
    assert process.wait(kit.patience_s) == -9  # the shell, which had not grown
    assert usage is not None
    assert usage.memory_peak_bytes is not None
    assert 60 * MIB <= usage.memory_peak_bytes <= 65 * MIB
    assert (usage.oom_group_kills, usage.memory_bytes is not None) == (1, True)
    killed = sum(event.processes for event in told if isinstance(event, OomKilled))
    assert killed == usage.oom_kills >= 4
    kinds = [type(event) for event in told]
    assert kinds.index(OomGroupKilled) < kinds.index(Emptied)
    assert {getattr(event, "container_id", "") for event in told} <= {"hog", "neighbour"}
    assert quiet.poll() is None


def test_memory_is_resized_live(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """A growing limit lets it grow; the write that shrinks it below what is used kills it."""
    cgroup = tree.create("resized", writes_of(Limits(mem_request_bytes=256 * MIB)))
    process = run(cgroup, "(head -c 60M /dev/zero; sleep 1000) | tail >/dev/null")
    kit.until(lambda: kit.usage(cgroup).memory_bytes > 50 * MIB, "50 MB")
    cgroup.apply(writes_of(Limits(mem_request_bytes=300 * MIB)))
    assert cgroup.node.memory.max == 300 * MIB
    assert process.poll() is None

    cgroup.apply(writes_of(Limits(mem_request_bytes=32 * MIB)))

    assert process.wait(kit.patience_s) == -9


def test_fork_bomb_stays_within_its_pids(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    bomb = tree.create("bomb", writes_of(Limits(pids_limit=20, cpus_limit_milli=500)))
    neighbour = tree.create("neighbour", writes_of(Limits(pids_limit=5)))
    events.watch(bomb)
    run(bomb, "bomb() { while :; do bomb & done; }; bomb", stdout=subprocess.DEVNULL)

    assert kit.wait_for(events, ForkRefused, "bomb").times >= 1
    for _ in range(20):
        assert len(bomb.pids()) <= 20
    assert run(neighbour, "/bin/true; exit 5").wait(kit.patience_s) == 5
    assert bomb.kill(kit.patience_s)
    assert kit.wait_for(events, Emptied, "bomb") == Emptied("bomb")
    assert bomb.pids() == ()
    assert kit.usage(bomb).pids_max_events >= 1


def test_writes_to_a_disk_are_throttled(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """2 MB at 1 MB/s take more than a second; without a limit they take no time."""
    subprocess.run(["modprobe", "brd", "rd_nr=1", "rd_size=16384"], check=True)
    number = Path("/dev/ram0").stat().st_rdev
    device = DeviceLimit(major=os.major(number), minor=os.minor(number), write_bytes=MIB)
    slow = tree.create("slow", writes_of(Limits(devices=(device,))))
    free = tree.create("free", writes_of(Limits()))
    copy = "exec dd if=/dev/zero of=/dev/ram0 bs=64k count=32 oflag=direct"

    took_s = []
    for cgroup in (free, slow):
        start = time.monotonic()
        assert run(cgroup, copy).wait(kit.patience_s) == 0
        took_s.append(time.monotonic() - start)
    name = f"{device.major}:{device.minor}"
    assert took_s[1] - took_s[0] > 1
    assert slow.node.io.max[name]["wbps"] == MIB


def test_share_of_the_disk_is_written(tree: CgroupTree) -> None:
    cgroup = tree.create("weighty", writes_of(Limits(io_weight=50)))

    assert cgroup.node.io.weight == "default 50"
    cgroup.apply(writes_of(Limits(io_weight=100)))
    assert cgroup.node.io.weight == "default 100"


def test_processors_are_pinned(tree: CgroupTree, run: Run, kit: Kit) -> None:
    pinned = tree.create("pinned", writes_of(Limits(cpuset_cpus=(1,), cpuset_mems=(0,))))
    process = run(pinned, "exec sleep 1000")
    kit.until(lambda: process.pid in pinned.pids(), "it is in")

    assert os.sched_getaffinity(process.pid) == {1}
    pinned.apply(writes_of(Limits(cpuset_cpus=())))
    assert os.sched_getaffinity(process.pid) == {0, 1}


def test_huge_pages_are_limited(tree: CgroupTree) -> None:
    limits = Limits(huge_pages=(HugePages(page_bytes=2 * MIB, limit_bytes=4 * MIB),))
    files = tree.create("huge", writes_of(limits)).node.huge_pages("2MB")

    assert (files.max, files.reserved_max, files.current) == (4 * MIB, 4 * MIB, 0)


def test_refused_limit_leaves_all_as_they_were(tree: CgroupTree) -> None:
    before = Limits(cpus_request_milli=500, cpus_limit_milli=500, cpus_burst_us=10_000, mem_request_bytes=64 * MIB)
    cgroup = tree.create("kept", writes_of(before))
    files = ("cpu.weight", "cpu.max", "cpu.max.burst", "memory.low", "memory.max", "memory.oom.group", "pids.max")
    was = [cgroup.node.read(file) for file in files]
    after = writes_of(Limits(cpus_request_milli=2_000, mem_request_bytes=128 * MIB, pids_limit=9))

    with pytest.raises(CgroupError, match=r"pids\.max: refused 'many' Invalid argument$"):
        cgroup.apply((*after, Write("pids", "pids.max", "many")))
    assert [cgroup.node.read(file) for file in files] == was
    with pytest.raises(CgroupError, match=r"no such file, or controller rdma is not enabled$"):
        cgroup.apply((*after, Write("rdma", "rdma.max", "mlx4_0 hca_handle=2")))
    assert [cgroup.node.read(file) for file in files] == was


def test_container_whose_limits_are_refused_is_not_made(tree: CgroupTree) -> None:
    with pytest.raises(CgroupError, match="refused"):
        tree.create("half", (Write("memory", "memory.max", "much"),))

    assert tree.names() == ()


def test_every_file_of_what_can_be_asked_is_there(tree: CgroupTree) -> None:
    """As read back: nothing was rounded or left out."""
    limits = Limits(
        cpus_request_milli=1, cpus_limit_milli=10, mem_request_bytes=64 * MIB, mem_high_bytes=64 * MIB, pids_limit=1
    )
    cgroup = tree.create("all", writes_of(limits))

    assert [write for write in writes_of(limits) if cgroup.node.read(write.file) != write.content] == []
    assert Path(cgroup.directory, "io.stat").exists()
