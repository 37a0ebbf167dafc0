"""The isolators of confinement and devices, with a kernel that only remembers what was attached."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup import CgroupError
from mesos_actor.isolation.confinement_plan import Confinement, fields_of
from mesos_actor.isolation.container_records import Assigned, ContainerRecords
from mesos_actor.isolation.device_filter import DEFAULT_RULES, DeviceRule
from mesos_actor.isolation.gpus import Gpu, Node
from mesos_actor.isolation.isolator import Isolation, IsolatorError, Limitation
from mesos_actor.isolation.linux_isolators import GPU_VARIABLE, ConfinementIsolator, DevicesIsolator

GPUS = tuple(
    Gpu(f"0000:0{n}:00.0", "0x1002", "0x73bf", (Node(f"/dev/dri/card{n}", 226, n),), (Node("/dev/kfd", 510, 0),))
    for n in range(2)
)
A, B = ContainerId("a"), ContainerId("b")


class Recorder:
    """Stands for the kernel and for the containerizer."""

    def __init__(self) -> None:
        self.attached: dict[str, Sequence[DeviceRule]] = {}
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.refuses = False

    def attach(self, directory: str, rules: Sequence[DeviceRule]) -> None:
        if self.refuses:
            raise CgroupError(f"{directory}: cannot attach a device filter: not permitted")
        self.attached[directory] = rules

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        raise AssertionError((container_id, limitation))

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.logged.append((event, fields))


@pytest.fixture
def kernel() -> Recorder:
    return Recorder()


def made(kernel: Recorder, tmp_path: Path, gpus: Sequence[Gpu] = GPUS) -> DevicesIsolator:
    isolator = DevicesIsolator(lambda name: f"/cgroup/{name}", tmp_path / "gpus", (), gpus, kernel.attach)
    isolator.start(kernel)
    return isolator


def launch(container_id: ContainerId, gpus: int = 0) -> LaunchContainer:
    resources = Resources.of(cpus=1, gpus=gpus)
    return LaunchContainer(container_id, FrameworkId("f"), Command(argv=("true",)), resources)


def test_gpus_come_with_nodes_rules_and_a_name(kernel: Recorder, tmp_path: Path) -> None:
    isolator = made(kernel, tmp_path)

    assert isolator.prepare(launch(A), "/box").fields == {}
    assert kernel.attached["/cgroup/a"] == DEFAULT_RULES
    contribution = isolator.prepare(launch(B, 2), "/box")
    assert contribution.env == {GPU_VARIABLE: "0000:00:00.0,0000:01:00.0"}
    assert [node[0] for node in contribution.fields["confine"]["devices"]] == [
        "/dev/dri/card0",
        "/dev/kfd",
        "/dev/dri/card1",
    ]
    assert DeviceRule("c", 226, 1, "rw") in kernel.attached["/cgroup/b"]


def test_gpus_of_the_dead_are_free_and_those_of_the_living_are_not(kernel: Recorder, tmp_path: Path) -> None:
    before = made(kernel, tmp_path)
    before.prepare(launch(A, 1), "/box")
    before.prepare(launch(B, 1), "/box")
    after = made(kernel, tmp_path)

    assert after.recover((B,)) == [A]
    after.cleanup(A)
    after.cleanup(A)
    assert after.prepare(launch(A, 1), "/box").env == {GPU_VARIABLE: "0000:00:00.0"}
    with pytest.raises(
        IsolatorError, match=re.escape("gpus: 2 GPUs wanted, 1 of 2 can be had; the others belong to b")
    ):
        after.prepare(launch(A, 2), "/box")
    assert kernel.logged == []


def test_gpu_that_is_gone_after_a_restart_is_told(kernel: Recorder, tmp_path: Path) -> None:
    made(kernel, tmp_path).prepare(launch(A, 2), "/box")

    made(kernel, tmp_path, GPUS[:1]).recover((A,))

    assert kernel.logged == [("gpus_lost", {"container": A, "gpus": "0000:01:00.0"})]


def test_refused_filter_fails_the_launch_and_gives_the_gpus_back(kernel: Recorder, tmp_path: Path) -> None:
    isolator = made(kernel, tmp_path)
    isolation = Isolation((ConfinementIsolator(Confinement()), isolator))
    kernel.refuses = True

    with pytest.raises(IsolatorError, match="devices: /cgroup/a: cannot attach a device filter: not permitted"):
        isolation.prepare(launch(A, 2), "/box")
    kernel.refuses = False
    assert isolator.prepare(launch(B, 2), "/box").env
    assert [one.container_id for one in ContainerRecords(tmp_path / "gpus", Assigned).read()] == [B]


def test_contributions_of_both_are_one(kernel: Recorder, tmp_path: Path) -> None:
    plan = Confinement(mount=True, read_only_root=True)

    merged = Isolation((ConfinementIsolator(plan), made(kernel, tmp_path))).prepare(launch(A, 1), "/box")

    assert merged.fields["confine"].keys() == {*fields_of(plan), "devices"}


def test_running_container_keeps_its_gpus(kernel: Recorder, tmp_path: Path) -> None:
    isolator = made(kernel, tmp_path)
    isolator.prepare(launch(A, 1), "/box")

    isolator.update(A, launch(A, 1))
    with pytest.raises(IsolatorError, match="gpus: a running container keeps its 1, 2 are wanted now: launch another"):
        isolator.update(A, launch(A, 2))


def test_rules_without_sense_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"devices\[14\].kind: 'x' is no kind of device"):
        DevicesIsolator(lambda _: "", tmp_path, (DeviceRule("x", 1, 1, "r"),))
    with pytest.raises(InvalidInput, match="pid: a pid namespace needs"):
        ConfinementIsolator(Confinement(pid=True))
