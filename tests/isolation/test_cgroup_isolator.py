"""What a launch asks for, as the kernel is asked for it; and what is refused before a cgroup is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import UNLIMITED, Command, HugePages, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup import CgroupTree
from mesos_actor.isolation.cgroup_isolator import CgroupIsolator, limits_of
from mesos_actor.isolation.disk_device import Disk, NoDisk
from mesos_actor.isolation.isolator import IsolatorError
from mesos_actor.isolation.limits import Write, writes_of

MIB = 1 << 20


def launch(limits: TaskLimits) -> LaunchContainer:
    return LaunchContainer(ContainerId("a"), FrameworkId("f"), Command(("true",)), Resources(), limits=limits)


def test_disk_swap_and_pages_are_written_as_asked() -> None:
    pages = HugePages(2 * MIB, 4 * MIB)
    asked = TaskLimits(io_read_bytes=5, io_writes=6, mem_swap_bytes=MIB, hugetlb=(pages,))

    writes = writes_of(limits_of(launch(asked), disk=Disk(8, 16, "/dev/sdb")))

    assert Write("io", "io.max", "8:16 rbps=5 wbps=max riops=max wiops=6") in writes
    assert Write("memory", "memory.swap.max", str(MIB)) in writes
    assert Write("hugetlb", "hugetlb.2MB.max", str(4 * MIB)) in writes
    assert Write("hugetlb", "hugetlb.2MB.rsvd.max", str(4 * MIB)) in writes


@pytest.mark.parametrize(("swap", "written"), [(None, "0"), (0, "0"), (UNLIMITED, "max")])
def test_swap_is_none_unless_asked_for(swap: int | None, written: str) -> None:
    assert Write("memory", "memory.swap.max", written) in writes_of(limits_of(launch(TaskLimits(mem_swap_bytes=swap))))


def test_rate_on_no_disk_fails_the_launch(tmp_path: Path) -> None:
    def find(path: str) -> Disk:
        raise NoDisk(f"{path} is on a tape")

    isolator = CgroupIsolator(CgroupTree(str(tmp_path), ("io",)), find_disk=find)

    with pytest.raises(
        IsolatorError, match="limits: io_reads: /box is on a tape; leave it out, or use an agent with a"
    ):
        isolator.prepare(launch(TaskLimits(io_reads=1)), "/box")
    assert list(tmp_path.iterdir()) == []


def test_rate_without_the_controller_fails_the_launch(tmp_path: Path) -> None:
    isolator = CgroupIsolator(CgroupTree(str(tmp_path), ("cpu", "memory", "pids")), find_disk=lambda _: Disk(8, 0, ""))

    with pytest.raises(IsolatorError, match="limits: the cgroup controllers io are not available on this agent"):
        isolator.prepare(launch(TaskLimits(io_reads=1)), "/box")
