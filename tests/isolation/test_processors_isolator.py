"""Pinned containers and the others, on a pretended tree of cgroups: files that remember what was written."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Command, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup import CgroupTree
from mesos_actor.isolation.container_records import Assigned, ContainerRecords
from mesos_actor.isolation.isolator import Ending, IsolatorError, Limitation
from mesos_actor.isolation.processors import Processor
from mesos_actor.isolation.processors_isolator import ProcessorsIsolator

A, B, C, D = (ContainerId(name) for name in "abcd")


class Host:
    """A tree in which containers have cgroups, and an agent that may start again."""

    def __init__(self, tmp_path: Path, cpus: str = "0-3") -> None:
        self.tree = CgroupTree(str(tmp_path / "tree"), ("cpu", "cpuset"))
        self.records = tmp_path / "processors"
        Path(self.tree.directory).mkdir()
        self.set_allowed(cpus)
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.restart()

    def set_allowed(self, cpus: str) -> None:
        (Path(self.tree.directory) / "cpuset.cpus.effective").write_text(f"{cpus}\n")

    def restart(self) -> None:
        def find(allowed: Iterable[int]) -> Sequence[Processor]:
            return tuple(map(Processor, sorted(allowed)))

        self.isolator = ProcessorsIsolator(self.tree, self.records, find)
        self.isolator.start(self)

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        raise AssertionError((container_id, limitation))

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.logged.append((event, fields))

    def launch(self, container_id: ContainerId, pinned: int = 0) -> None:
        """As the isolator of cgroups goes before."""
        folder = Path(self.tree.of(container_id).directory)
        folder.mkdir(exist_ok=True)
        for name in ("cpuset.cpus", "cgroup.events"):
            (folder / name).touch()
        self.isolator.prepare(launch(container_id, pinned), "/box")

    def cpus(self, container_id: ContainerId) -> str:
        return (Path(self.tree.of(container_id).directory) / "cpuset.cpus").read_text().strip()

    def remembered(self) -> dict[str, str]:
        return {one.container_id: "\n".join(one.names) for one in ContainerRecords(self.records, Assigned).read()}


def launch(container_id: ContainerId, pinned: int = 0) -> LaunchContainer:
    limits = TaskLimits(pinned_cpus=pinned)
    return LaunchContainer(container_id, FrameworkId("f"), Command(("true",)), Resources(), limits=limits)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_two_that_pin_have_others_and_the_rest_is_everybodys(host: Host) -> None:
    host.launch(A)
    assert host.cpus(A) == ""
    host.launch(B, 1)
    host.launch(C, 2)
    host.launch(D)

    assert [host.cpus(name) for name in (A, B, C, D)] == ["3", "0", "1-2", "3"]
    assert host.remembered() == {"b": "0", "c": "1\n2"}


def test_last_one_is_left_to_the_others(host: Host) -> None:
    host.launch(A)

    with pytest.raises(
        IsolatorError, match="limits: pinned_cpus: 4 processors wanted, 3 of 4 can be had, for other"
    ) as e:
        host.launch(B, 4)
    assert e.value.reason == "processors"
    assert host.remembered() == {}
    host.isolator.ended(A)
    host.launch(B, 4)
    assert host.cpus(B) == "0-3"
    with pytest.raises(IsolatorError, match="other containers have all the processors of this agent for thems") as e:
        host.launch(C)
    assert e.value.reason == "processors"


def test_ended_one_leaves_its_own_at_once_and_the_others_spread_afterwards(host: Host) -> None:
    host.launch(A)
    host.launch(B, 3)
    assert host.isolator.ended(B) == Ending()
    host.launch(C, 3)
    host.isolator.cleanup(B)
    assert (host.cpus(A), host.cpus(C), host.remembered()) == ("3", "0-2", {"c": "0\n1\n2"})

    host.isolator.ended(C)
    host.isolator.cleanup(C)
    host.isolator.cleanup(C)
    assert (host.cpus(A), host.remembered()) == ("", {})


def test_restarted_agent_knows_who_has_which(host: Host) -> None:
    host.launch(A)
    host.launch(B, 1)
    host.launch(C, 1)
    host.restart()
    host.isolator.started(A, 1)
    host.isolator.started(B, 2)

    assert host.isolator.recover((A, B)) == [C]
    with pytest.raises(IsolatorError, match="3 processors wanted, 1 of 4 can be had"):
        host.launch(D, 3)
    host.isolator.cleanup(C)
    assert (host.cpus(A), host.cpus(B)) == ("1-3", "0")
    host.launch(D, 2)
    assert (host.cpus(D), host.cpus(A)) == ("1-2", "3")


def test_processors_that_are_gone_after_a_restart_are_told(host: Host) -> None:
    host.launch(A, 3)
    host.set_allowed("0-1")
    host.restart()

    assert host.logged == [("processors_lost", {"container": "a", "processors": "2"})]
    host.isolator.update(A, launch(A, 3))  # it is resized as it was launched, and goes on with those that are left
    with pytest.raises(IsolatorError, match="keeps its 3, 2 are wanted"):
        host.isolator.update(A, launch(A, 2))


def test_running_container_keeps_what_it_has(host: Host) -> None:
    host.launch(A, 1)
    host.launch(B)

    host.isolator.update(A, launch(A, 1))
    host.isolator.update(B, launch(B))
    with pytest.raises(IsolatorError, match="pinned_cpus: a running container keeps its 1, 2 are wanted now"):
        host.isolator.update(A, launch(A, 2))


def test_prepared_again_it_has_the_same(host: Host) -> None:
    host.launch(A, 2)
    host.launch(A, 2)

    assert (host.cpus(A), host.remembered()) == ("0-1", {"a": "0\n1"})


def test_agent_without_the_controller_refuses(tmp_path: Path) -> None:
    host = Host(tmp_path)
    host.tree.controllers = ("cpu",)
    host.restart()
    host.launch(A)

    with pytest.raises(
        IsolatorError, match=re.escape("the cgroup controller cpuset is not available on this agent")
    ) as e:
        host.launch(B, 1)
    assert e.value.reason == "spawn"
    host.isolator.cleanup(B)
    assert host.cpus(A) == ""


def test_other_that_cannot_be_kept_off_fails_the_launch(host: Host) -> None:
    host.launch(A)
    (Path(host.tree.of(A).directory) / "cpuset.cpus").unlink()

    with pytest.raises(IsolatorError, match=r"limits: pinned_cpus: .*/a/cpuset.cpus: this kernel has no such file"):
        host.launch(B, 1)
    (Path(host.tree.of(A).directory) / "cpuset.cpus").touch()
    host.isolator.cleanup(B)
    assert (host.cpus(A), host.remembered()) == ("", {})


def test_only_pinning_is_slow(host: Host) -> None:
    assert not host.isolator.slow(launch(A))
    assert host.isolator.slow(launch(A, 1))


def test_whoever_comes_while_others_pin_is_kept_off(tmp_path: Path) -> None:
    """Launches on one thread, pinning on another, as in an agent: no two that live share a pinned processor."""
    host = Host(tmp_path, "0-63")
    plain = [ContainerId(f"p{number}") for number in range(40)]
    pinned = [ContainerId(f"x{number}") for number in range(20)]

    def pin() -> None:
        for container_id in pinned:
            host.launch(container_id, 2)
        for container_id in pinned[::2]:
            host.isolator.ended(container_id)
            host.isolator.cleanup(container_id)

    thread = threading.Thread(target=pin)
    thread.start()
    for container_id in plain:
        host.launch(container_id)
    thread.join()

    left = {host.cpus(container_id) for container_id in plain}
    held = [host.cpus(container_id) for container_id in pinned[1::2]]
    assert held == [f"{4 * number + 2}-{4 * number + 3}" for number in range(10)]
    assert left == {",".join([*(f"{4 * number}-{4 * number + 1}" for number in range(10)), "40-63"])}
