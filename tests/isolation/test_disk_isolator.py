"""Disk limits of sandboxes: looked at or counted, over a restart, when lowered; time and the thread are pretended."""

from __future__ import annotations

import errno
import heapq
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import LaunchContainer, Usage
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation import disk_watch
from mesos_actor.isolation.disk_isolator import WALK_EVERY, DiskIsolator
from mesos_actor.isolation.disk_limit import FIRST_PROJECT, HEADROOM_BYTES
from mesos_actor.isolation.disk_quota import ProjectQuotas, QuotaError
from mesos_actor.isolation.disk_watch import Round, Target
from mesos_actor.isolation.isolator import Contribution, IsolatorError, Limitation

MIB = 1 << 20
A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
FRAMEWORK = FrameworkId("f")
T = TypeVar("T")


class Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class PretendedSchedule:
    """Time goes on when it is told to; work takes `work_s` and is done at once."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.work_s = 0.0
        self.closed = False
        self.started_s: list[float] = []
        self._number = 0
        self._heap: list[tuple[float, int, Timer, Callable[[], None]]] = []

    def now_s(self) -> float:
        return self.time_s

    def call_later(self, delay_s: float, fn: Callable[[], None]) -> TimerHandle:
        self._number += 1
        timer = Timer()
        heapq.heappush(self._heap, (self.time_s + delay_s, self._number, timer, fn))
        return timer

    def on_thread(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        self.started_s.append(self.time_s)
        found = work()

        def done() -> None:
            then(found)

        self.call_later(self.work_s, done)

    def close(self) -> None:
        self.closed = True

    def advance(self, seconds: float) -> None:
        end_s = self.time_s + seconds
        while self._heap and self._heap[0][0] <= end_s:
            self.time_s, _, timer, fn = heapq.heappop(self._heap)
            if not timer.cancelled:
                fn()
        self.time_s = end_s


class PretendedQuotas(ProjectQuotas):
    """Counts what a test says. One file system for all that are opened."""

    used: dict[int, int]
    limits: dict[int, int]
    projects: dict[str, int]

    def __init__(self) -> None:
        self.used, self.limits, self.projects = {}, {}, {}

    def close(self) -> None:
        return

    def assign(self, path: str, project: int) -> None:
        self.projects[path] = project

    def set_limit(self, project: int, limit_bytes: int) -> None:
        self.limits[project] = limit_bytes

    def used_bytes(self, project: int) -> int:
        return self.used.get(project, 0)


class Bench:
    """An isolator with a pretended containerizer."""

    def __init__(self, work_dir: Path, quotas: PretendedQuotas | None) -> None:
        self.work_dir = work_dir
        self.quotas = quotas
        self.start()

    def start(self) -> None:
        self.limited: list[tuple[str, Limitation]] = []
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.schedule = PretendedSchedule()
        self.isolator = DiskIsolator(self.work_dir, schedule=lambda: self.schedule, open_quotas=self._open)
        self.isolator.start(self)

    def restart(self) -> None:
        self.isolator.close()
        self.start()

    def _open(self, path: str) -> ProjectQuotas:
        if self.quotas is None:
            raise QuotaError(f"{path}: its file system does not count projects")
        return self.quotas

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        self.limited.append((container_id, limitation))

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.logged.append((event, fields))

    def sandbox(self, container_id: str) -> Path:
        return self.work_dir / "sandboxes" / FRAMEWORK / container_id

    def prepare(self, container_id: ContainerId, disk_mib: int, **fields: Any) -> Contribution:
        self.sandbox(container_id).mkdir(parents=True, exist_ok=True)
        return self.isolator.prepare(launch(container_id, disk_mib, **fields), str(self.sandbox(container_id)))

    def run(self, container_id: ContainerId, disk_mib: int, **fields: Any) -> None:
        self.prepare(container_id, disk_mib, **fields)
        self.isolator.started(container_id, 7)

    def fill(self, container_id: str, size_mib: int, name: str = "data/file") -> None:
        path = self.sandbox(container_id) / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(os.urandom(size_mib * MIB))
        os.sync()

    def usage(self, container_id: ContainerId) -> tuple[int, int]:
        found = self.isolator.usage(Usage(container_id, 1, 2, 3, 4))
        return found.disk_bytes, found.disk_limit_bytes


def launch(container_id: ContainerId, disk_mib: int, **fields: Any) -> LaunchContainer:
    resources = Resources.of(cpus=1, mem=32, disk=disk_mib)
    return LaunchContainer(container_id, FRAMEWORK, Command(("true",)), resources, **fields)


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    (tmp_path / "sandboxes").mkdir()
    return tmp_path


@pytest.fixture
def bench(work_dir: Path) -> Bench:
    return Bench(work_dir, None)


@pytest.fixture
def counted(work_dir: Path) -> Bench:
    return Bench(work_dir, PretendedQuotas())


def quotas_of(bench: Bench) -> PretendedQuotas:
    assert bench.quotas is not None
    return bench.quotas


# -- looking --------------------------------------------------------------------------------------------------------


def test_sandbox_past_its_limit_is_ended_at_the_next_look(bench: Bench) -> None:
    bench.run(A, 2)
    bench.run(B, 2)
    bench.fill(A, 3)
    bench.fill(B, 1)
    bench.schedule.advance(14.9)
    assert bench.limited == []
    bench.schedule.advance(0.1)

    ((container_id, limitation),) = bench.limited
    assert (container_id, limitation.kind) == (A, "disk")
    assert limitation.text.startswith("disk limit of 2 MiB exceeded, in use 30")
    assert limitation.text.endswith(" KiB, biggest directory 'data' with 3 MiB")
    bench.schedule.advance(60)
    assert len(bench.limited) == 1
    assert bench.isolator.ended(A).limitation == limitation
    assert bench.isolator.ended(B).limitation is None


def test_whoever_asked_for_no_disk_has_no_limit_and_is_not_looked_at(bench: Bench) -> None:
    assert bench.prepare(A, 0) == Contribution()
    bench.isolator.started(A, 7)
    bench.fill(A, 1)
    bench.schedule.advance(60)

    assert bench.schedule.started_s == []
    assert bench.usage(A) == (0, 0)
    assert list((bench.work_dir / "disk").iterdir()) == []


def test_usage_is_that_of_the_last_look(bench: Bench) -> None:
    bench.run(A, 10)
    bench.fill(A, 1)
    assert bench.usage(A) == (0, 10 * MIB)
    bench.schedule.advance(15)

    used, limit = bench.usage(A)
    assert (MIB <= used < MIB + 100_000, limit) == (True, 10 * MIB)


def test_looking_takes_at_most_half_the_time(bench: Bench) -> None:
    bench.run(A, 10)
    bench.schedule.work_s = 20
    bench.schedule.advance(100)
    assert bench.schedule.started_s == [15, 55, 95]


def test_nobody_is_looked_at_once_all_have_ended(bench: Bench) -> None:
    bench.run(A, 1)
    bench.isolator.ended(A)
    bench.fill(A, 2)
    bench.schedule.advance(100)

    assert bench.limited == []
    assert len(bench.schedule.started_s) <= 1


def test_sandbox_that_cannot_be_measured_is_too_big(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    bench.run(A, 1)
    monkeypatch.setattr(disk_watch, "DiskWalk", refuse)
    bench.schedule.advance(15)

    assert bench.limited[0][1].text == (
        "disk limit of 1 MiB cannot be kept: what is in use cannot be measured, because the sandbox cannot be read: "
        "Permission denied"
    )


def test_want_of_descriptors_ends_nobody(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    bench.run(A, 1)
    with monkeypatch.context() as patch:
        patch.setattr(disk_watch, "DiskWalk", refuse)
        bench.schedule.advance(15)
    assert bench.limited == []
    bench.fill(A, 2)
    bench.schedule.advance(15)
    assert [name for name, _ in bench.limited] == [A]


def test_many_are_looked_at_side_by_side_and_everything_is_let_go(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk_watch, "ENTRIES_A_SLICE", 32)
    targets = []
    for number in range(40):
        path = work_dir / str(number)
        path.mkdir()
        for name in range(50 if number == 0 else 2):
            (path / str(name)).touch()
        targets.append(Target(ContainerId(str(number)), str(path), 1 << 30))
    before = len(list(Path("/proc/self/fd").iterdir()))
    looking = Round(targets)
    order: list[str] = []
    most = 0
    while not looking.done:
        order += [look.container_id for look in looking.step()]
        most = max(most, len(list(Path("/proc/self/fd").iterdir())) - before)

    assert sorted(order, key=int) == [str(number) for number in range(40)]
    assert order[-1] == "0"
    assert most <= 2 * disk_watch.MAX_WALKS
    unfinished = Round(targets)
    unfinished.step()
    unfinished.close()
    assert unfinished.done
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# -- changes --------------------------------------------------------------------------------------------------------


def test_limit_grows_at_once(bench: Bench) -> None:
    bench.run(A, 1)
    bench.fill(A, 2)
    bench.isolator.update(A, launch(A, 4))
    bench.schedule.advance(15)

    assert bench.limited == []
    assert bench.usage(A)[1] == 4 * MIB


def test_lower_limit_comes_once_less_is_in_use(bench: Bench) -> None:
    """Nobody is ended for having shrunk."""
    bench.run(A, 4)
    bench.fill(A, 3)
    bench.isolator.update(A, launch(A, 2))
    bench.schedule.advance(15)
    assert (bench.limited, bench.usage(A)[1]) == ([], 4 * MIB)
    bench.fill(A, 1)
    bench.schedule.advance(15)
    assert (bench.limited, bench.usage(A)[1]) == ([], 2 * MIB)
    bench.fill(A, 3)
    bench.schedule.advance(15)
    assert [name for name, _ in bench.limited] == [A]


def test_executor_gets_a_limit_with_its_first_task_and_loses_it_with_the_last(bench: Bench) -> None:
    bench.run(A, 0, executor=True)
    bench.schedule.advance(60)
    assert bench.schedule.started_s == []
    bench.isolator.update(A, launch(A, 1))
    bench.schedule.advance(15)
    assert bench.usage(A)[1] == MIB
    bench.isolator.update(A, launch(A, 0))
    bench.fill(A, 3)
    bench.schedule.advance(60)
    assert (bench.limited, bench.usage(A)[1]) == ([], 0)


def test_command_that_gets_a_limit_later_is_looked_at(bench: Bench) -> None:
    bench.run(A, 0)
    bench.isolator.update(A, launch(A, 1))
    bench.schedule.advance(15)
    bench.fill(A, 3)
    bench.schedule.advance(15)
    assert [name for name, _ in bench.limited] == [A]


# -- restarts -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("has_quotas", [False, True])
def test_limits_are_kept_by_the_next_life(work_dir: Path, has_quotas: bool) -> None:
    bench = Bench(work_dir, PretendedQuotas() if has_quotas else None)
    bench.run(A, 4)
    bench.isolator.update(A, launch(A, 2))
    bench.schedule.advance(15)
    bench.restart()
    bench.isolator.started(A, 7)
    assert bench.isolator.recover([A]) == []
    bench.fill(A, 3)
    if has_quotas:
        quotas_of(bench).used[FIRST_PROJECT] = 3 * MIB
    bench.schedule.advance(15)

    ((container_id, limitation),) = bench.limited
    assert container_id == A
    assert "disk limit of 2 MiB exceeded" in limitation.text
    assert "biggest directory 'data' with 3 MiB" in limitation.text


def test_next_life_knows_why_it_was_ended(bench: Bench) -> None:
    bench.run(A, 1)
    bench.fill(A, 2)
    bench.schedule.advance(15)
    bench.restart()

    assert bench.isolator.ended(A).limitation is not None
    bench.isolator.cleanup(A)
    bench.restart()
    assert bench.isolator.ended(A).limitation is None


def test_what_no_container_belongs_to_is_found_and_cleaned_up(counted: Bench) -> None:
    counted.run(A, 1)
    counted.run(B, 1)
    (counted.work_dir / "disk" / "torn").write_bytes(b"\x93")
    counted.restart()

    assert counted.isolator.recover([B]) == [A]
    counted.isolator.cleanup(A)
    counted.isolator.cleanup(A)
    counted.isolator.cleanup(ContainerId("never"))
    assert counted.isolator.recover([B]) == []
    assert len(list((counted.work_dir / "disk").iterdir())) == 1
    assert quotas_of(counted).limits == {FIRST_PROJECT: 0, FIRST_PROJECT + 1: MIB + HEADROOM_BYTES}


# -- projects -------------------------------------------------------------------------------------------------------


def test_counted_sandbox_is_a_project_with_what_was_fetched(counted: Bench) -> None:
    counted.sandbox(A).mkdir(parents=True)
    counted.fill(A, 1)
    counted.run(A, 2)

    paths = (counted.sandbox(A), counted.sandbox(A) / "data", counted.sandbox(A) / "data" / "file")
    assert quotas_of(counted).projects == dict.fromkeys(map(str, paths), FIRST_PROJECT)
    assert quotas_of(counted).limits == {FIRST_PROJECT: 2 * MIB + HEADROOM_BYTES}


def test_counted_sandbox_is_ended_for_what_its_file_system_says(counted: Bench) -> None:
    counted.run(A, 2)
    quotas_of(counted).used[FIRST_PROJECT] = 2 * MIB
    counted.schedule.advance(15)
    assert (counted.limited, counted.usage(A)) == ([], (2 * MIB, 2 * MIB))
    quotas_of(counted).used[FIRST_PROJECT] = 12 * MIB
    counted.schedule.advance(15)

    assert counted.limited == [(A, Limitation("disk", "disk limit of 2 MiB exceeded, in use 12 MiB"))]


def test_counted_sandbox_that_ended_past_its_limit_is_told_as_such(counted: Bench) -> None:
    """A write was refused, and its program gave up before anybody looked."""
    counted.run(A, 2)
    quotas_of(counted).used[FIRST_PROJECT] = 12 * MIB

    assert counted.isolator.ended(A).limitation == Limitation("disk", "disk limit of 2 MiB exceeded, in use 12 MiB")


def test_files_that_were_given_to_no_project_are_found_all_the_same(counted: Bench) -> None:
    counted.run(A, 1)
    counted.fill(A, 2)
    counted.schedule.advance(15 * (WALK_EVERY - 1))
    assert counted.limited == []
    counted.schedule.advance(15)
    assert [name for name, _ in counted.limited] == [A]


def test_project_that_still_counts_something_is_given_to_nobody(counted: Bench) -> None:
    quotas_of(counted).used = dict.fromkeys(range(FIRST_PROJECT, FIRST_PROJECT + 5), 1)
    counted.run(A, 1)
    assert quotas_of(counted).projects == {str(counted.sandbox(A)): FIRST_PROJECT + 5}


def test_without_a_free_project_it_is_looked_at(counted: Bench) -> None:
    quotas_of(counted).used = dict.fromkeys(range(1 << 14), 1)
    counted.run(A, 1)
    assert counted.logged == [("disk_not_counted", {"container": A, "why": "all project ids are in use"})]
    counted.fill(A, 2)
    counted.schedule.advance(15)
    assert [name for name, _ in counted.limited] == [A]


def test_fetched_files_that_are_too_much_fail_the_launch(counted: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, project: int) -> None:
        raise OSError(errno.EDQUOT, "Disk quota exceeded", path)

    monkeypatch.setattr(quotas_of(counted), "assign", refuse)
    with pytest.raises(IsolatorError) as caught:
        counted.prepare(A, 1)

    assert caught.value.reason == "full"
    assert "disk: the limit cannot be set: " in caught.value.text
    counted.isolator.cleanup(A)
    assert quotas_of(counted).limits == {FIRST_PROJECT: 0}


def test_without_quotas_the_agent_says_so(bench: Bench) -> None:
    assert [event for event, _ in bench.logged] == ["disk_not_counted"]
    assert bench.logged[0][1]["text"] == "sandboxes are looked at every 15 s instead"
