"""Tasks that fill their disk, on a real kernel: looked at, and counted by the project quotas of an ext4."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.ids import ContainerId, OperationId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    Usage,
)
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.disk_isolator import DiskIsolator
from mesos_actor.isolation.disk_limit import FIRST_PROJECT
from mesos_actor.isolation.disk_quota import ProjectQuotas
from mesos_actor.isolation.linux import LinuxContainerizer
from tests.isolation.benches import FRAMEWORK, RealBench

pytestmark = pytest.mark.cgroup

MIB = 1 << 20
HOG, NEIGHBOUR, HOLDER = ContainerId("hog.1"), ContainerId("neighbour.2"), ContainerId("holder.3")


class DiskBench(RealBench):
    def __init__(self, work_dir: Path) -> None:
        def make(path: Path) -> LinuxContainerizer:
            return LinuxContainerizer(path, launcher_idle_s=5, exit_repeat_us=10**9, more=[DiskIsolator(path, 0.5)])

        super().__init__(work_dir, make)

    def drop_agent(self) -> None:
        disk = self._disk()
        super().drop_agent()
        disk.close()

    def _disk(self) -> DiskIsolator:
        port: Any = self.port
        (found,) = (one for one in port._isolation._isolators if isinstance(one, DiskIsolator))
        return found

    def shell(self, container_id: ContainerId, disk_mib: int, script: str) -> None:
        resources = Resources.of(cpus=0.1, mem=64, disk=disk_mib)
        self.send(LaunchContainer(container_id, FRAMEWORK, Command((script,), shell=True), resources))
        self.expect(ContainerStarted, container_id)

    def usage(self, container_id: ContainerId) -> Usage:
        self.send(MeasureContainers((container_id,), OperationId("m")))
        (usage,) = self.expect(ContainerUsage).usages
        return usage

    def forget(self, *container_ids: ContainerId) -> None:
        """And wait until its isolators have."""
        self.send(*(ForgetContainer(container_id) for container_id in container_ids))
        kept = self._disk()._kept
        self.until(lambda: not set(container_ids) & set(kept), "taken back")


@pytest.fixture
def make_bench(_only_in_the_machine: None) -> Iterator[Callable[[Path], DiskBench]]:
    made: list[DiskBench] = []

    def make(work_dir: Path) -> DiskBench:
        made.append(DiskBench(work_dir))
        return made[-1]

    yield make
    for bench in made:
        print("launcher:", (bench.work_dir / "launcher" / "launcher.log").read_text())  # shown when the test fails
        bench.close()


@pytest.fixture
def ext4(_only_in_the_machine: None, tmp_path: Path) -> Iterator[Path]:
    """An ext4 that counts projects, in memory."""
    memory, place = tmp_path / "memory", tmp_path / "ext4"
    for path in (memory, place):
        path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "memory", str(memory)], check=True)
    with (memory / "disk").open("wb") as file:
        file.truncate(96 * MIB)
    quota = ["-O", "project,quota", "-E", "quotatype=prjquota"]
    subprocess.run(["mkfs.ext4", "-q", *quota, str(memory / "disk")], check=True)
    for module in ("loop", "ext4", "quota_v2", "quota_tree"):
        subprocess.run(["modprobe", module], check=False)
    subprocess.run(["mount", "-o", "loop,prjquota", str(memory / "disk"), str(place)], check=True)
    yield place
    for path in (place, memory):
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_task_that_fills_its_disk_is_ended_and_its_neighbour_is_not(
    make_bench: Callable[[Path], DiskBench], tmp_path: Path
) -> None:
    bench = make_bench(tmp_path / "agent")
    assert [event for event, _ in bench.inbox.logged if event.startswith("disk")] == ["disk_not_counted"]
    bench.shell(NEIGHBOUR, 4, "head -c 1M /dev/zero >mine; sleep 1000")
    (tmp_path / "big").write_bytes(bytes(6 * MIB))  # it is moved in whole: one that grows is seen when it is too big
    bench.shell(HOG, 4, f"mkdir -p a/b; mv '{tmp_path}/big' a/b/big; sleep 1000")

    exited = bench.expect(ContainerExited, HOG)
    assert (exited.limitation, exited.signal) == ("disk", 9)
    assert "disk limit of 4 MiB exceeded, in use " in exited.text
    assert "biggest directory 'a/b' with 6 MiB" in exited.text
    usage = bench.usage(NEIGHBOUR)
    assert (MIB <= usage.disk_bytes < 2 * MIB, usage.disk_limit_bytes) == (True, 4 * MIB)

    bench.restart_agent()
    bench.send(RecoverContainers((NEIGHBOUR, HOG)))
    recovered = {one.container_id: one for one in bench.expect(ContainersRecovered).containers}
    assert (recovered[NEIGHBOUR].running, recovered[HOG].limitation) == (True, "disk")
    bench.send(KillContainer(NEIGHBOUR, 0))
    assert bench.expect(ContainerExited, NEIGHBOUR).limitation == ""
    bench.forget(NEIGHBOUR, HOG)
    assert list((bench.work_dir / "disk").iterdir()) == []


def test_project_quota_stops_a_hog_and_sees_what_is_deleted(
    ext4: Path, make_bench: Callable[[Path], DiskBench]
) -> None:
    bench = make_bench(ext4 / "agent")
    assert [event for event, _ in bench.inbox.logged if event.startswith("disk")] == []
    bench.shell(HOLDER, 4, "until [ -e go ]; do sleep 0.1; done; exec 3>x; rm x; head -c 6M /dev/zero >&3; sleep 1000")
    bench.shell(NEIGHBOUR, 4, "head -c 1M /dev/zero >mine; sync; sleep 1000")
    bench.restart_agent()
    bench.send(RecoverContainers((HOLDER, NEIGHBOUR)))
    assert all(one.running for one in bench.expect(ContainersRecovered).containers)
    (bench.sandbox(HOLDER) / "go").touch()
    held = bench.expect(ContainerExited, HOLDER)
    assert held.limitation == "disk"
    assert "disk limit of 4 MiB exceeded, in use " in held.text
    assert "biggest" not in held.text

    # Without the capability by which root passes every quota; and near the kernel's limit before anybody looks.
    lesser = "setpriv --inh-caps=-sys_resource --bounding-set=-sys_resource"
    bench.shell(HOG, 4, f"exec {lesser} sh -c 'fallocate -l 13M big; head -c 60M /dev/zero >>big; exit 7'")
    exited = bench.expect(ContainerExited, HOG)
    assert exited.limitation == "disk"
    assert "disk limit of 4 MiB exceeded, in use 1" in exited.text
    assert (bench.sandbox(HOG) / "big").stat().st_size <= 14 * MIB
    assert bench.usage(NEIGHBOUR).disk_limit_bytes == 4 * MIB

    quotas = ProjectQuotas(str(ext4))
    project = quotas.project_of(str(bench.sandbox(HOG)))
    assert project > FIRST_PROJECT
    assert quotas.limit_bytes(project) == 14 * MIB
    bench.send(KillContainer(NEIGHBOUR, 0))
    bench.expect(ContainerExited, NEIGHBOUR)
    bench.forget(HOG, HOLDER, NEIGHBOUR)
    assert quotas.limit_bytes(project) == 0
    quotas.close()
