"""Several isolators as one: their order, what they contribute, what is undone, what goes wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import ContainerId, OperationId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    UpdateContainer,
    Usage,
)
from mesos_actor.actors.messages.values import Command, Statistics, TaskLimits, Uri
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.isolator import (
    BaseIsolator,
    Contribution,
    Ending,
    Isolation,
    IsolatorError,
    Limitation,
    Watch,
)
from mesos_actor.isolation.process import ProcessContainerizer
from tests.isolation.benches import RealBench, launch

if TYPE_CHECKING:
    from collections.abc import Collection

A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
SLEEP = Command(("sleep", "100"))


class Diary(BaseIsolator):
    """Writes down what it is asked for. `fails`: what it refuses."""

    def __init__(self, name: str, diary: list[str], fails: str = "", adds: Contribution | None = None) -> None:
        self.name = name
        self.diary = diary
        self.fails = fails
        self.adds = adds or Contribution()
        self.ending = Ending()
        self.is_slow = False
        self.left: tuple[ContainerId, ...] = ()
        self.watch: Watch | None = None

    def _note(self, what: str) -> None:
        self.diary.append(f"{self.name} {what}")
        if self.fails == what.split()[0]:
            raise IsolatorError("full", f"{self.name} cannot {what}")

    def start(self, watch: Watch) -> None:
        self.watch = watch

    def slow(self, launch: LaunchContainer) -> bool:
        return self.is_slow

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        self._note("prepare")
        return self.adds

    def started(self, container_id: ContainerId, pid: int) -> None:
        self._note("started")

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        self._note(f"update {launch.resources}")

    def usage(self, usage: Usage) -> Usage:
        return Usage(usage.container_id, 7, usage.cpu_time_ms, usage.rss_bytes, usage.timestamp_us)

    def ended(self, container_id: ContainerId) -> Ending:
        return self.ending

    def cleanup(self, container_id: ContainerId) -> None:
        self._note(f"cleanup {container_id}")

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        return [name for name in self.left if name not in kept]


def test_contributions_add_up_in_order() -> None:
    chain = Isolation(
        [
            Diary("1", [], adds=Contribution(env={"A": "1", "B": "1"}, argv=["x"], fields={"confine": {"root": "/r"}})),
            Diary("2", [], adds=Contribution(env={"B": "2"}, defaults={"C": "2"}, fields={"confine": {"user": [1]}})),
        ]
    )

    added = chain.prepare(launch(A, SLEEP), "/sandbox")

    assert added == Contribution(
        env={"A": "1", "B": "2"},
        defaults={"C": "2"},
        argv=["x"],
        fields={"confine": {"root": "/r", "user": [1]}},
    )


def test_what_one_refuses_is_undone_in_reverse() -> None:
    diary: list[str] = []
    chain = Isolation([Diary("1", diary), Diary("2", diary, fails="prepare"), Diary("3", diary)])

    with pytest.raises(IsolatorError) as caught:
        chain.prepare(launch(A, SLEEP), "/sandbox")

    assert (caught.value.reason, caught.value.text) == ("full", "2 cannot prepare")
    assert diary == ["1 prepare", "2 prepare", f"2 cleanup {A}", f"1 cleanup {A}"]


def test_what_cannot_be_undone_is_said_and_the_rest_is_undone() -> None:
    diary: list[str] = []
    chain = Isolation([Diary("1", diary), Diary("2", diary, fails="cleanup"), Diary("3", diary, fails="prepare")])

    with pytest.raises(IsolatorError, match=r"3 cannot prepare; 2: not taken back: 2 cannot cleanup"):
        chain.prepare(launch(A, SLEEP), "/sandbox")
    assert diary[-1] == f"1 cleanup {A}"


def test_two_that_give_the_same_another_value_fail_the_launch() -> None:
    one, two = (Contribution(fields={"confine": {"root": f"/{n}"}}) for n in range(2))

    with pytest.raises(IsolatorError, match="2: confine 'root' is given by another isolator already"):
        Isolation([Diary("1", [], adds=one), Diary("2", [], adds=two)]).prepare(launch(A, SLEEP), "/s")


def test_update_that_one_refuses_leaves_all_as_they_were() -> None:
    diary: list[str] = []
    before = launch(A, SLEEP)
    chain = Isolation([Diary("1", diary), Diary("2", diary, fails="update")])

    with pytest.raises(IsolatorError, match="2: 2 cannot update"):
        chain.update(before, LaunchContainer(A, before.framework_id, SLEEP, Resources.parse("cpus:2")))
    assert diary == ["1 update cpus:2", "2 update cpus:2", "1 update "]


def test_limits_that_nobody_keeps_fail_the_launch() -> None:
    with pytest.raises(IsolatorError, match=r"limits: this agent cannot keep any .*--isolation cgroups"):
        Isolation([Diary("1", [])]).prepare(launch(A, SLEEP, limits=TaskLimits(pids=1)), "/s")


# -- in the pipeline, with real processes ---------------------------------------------------------------------------

Made = Callable[..., RealBench]


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Made]:
    """Makes a bench with these isolators."""
    benches: list[RealBench] = []

    def make(*isolators: Any) -> RealBench:
        def port(path: Path) -> ProcessContainerizer:
            return ProcessContainerizer(path, launcher_idle_s=5, exit_repeat_us=100_000, isolators=isolators)

        benches.append(RealBench(tmp_path / "agent", port))
        return benches[-1]

    yield make
    for bench in benches:
        bench.close()


@pytest.mark.cluster
def test_container_lives_with_its_isolators(made: Made) -> None:
    diary: list[str] = []
    statistics = Statistics(cpu_time_ms=9)
    one = Diary("1", diary, adds=Contribution(env={"X": "won"}, defaults={"X": "lost", "Y": "kept"}))
    one.ending = Ending(note="a remark", statistics=statistics)
    bench = made(one, Diary("2", diary))
    bench.send(RecoverContainers(()))
    bench.send(launch(A, Command(("echo $X $Y; exec sleep 100",), shell=True, env={"X": "own"})))
    bench.expect(ContainerStarted, A)
    bench.wait_for_file(bench.sandbox(A) / "stdout", "won kept")
    bench.send(UpdateContainer(A, Resources.parse("cpus:2")), UpdateContainer(A, Resources.parse("cpus:2")))
    bench.send(MeasureContainers((A,), OperationId("m")))
    assert [usage.processes for usage in bench.expect(ContainerUsage).usages] == [7]
    bench.send(KillContainer(A, 10_000))

    exited = bench.expect(ContainerExited, A)
    bench.send(ForgetContainer(A))
    bench.until(lambda: len(diary) == 8, f"cleaned up; {diary}")

    assert exited == ContainerExited(A, signal=15, killed=True, text="a remark", statistics=statistics)
    steps = ["prepare", "started", "update cpus:2"]
    cleaned = [f"2 cleanup {A}", f"1 cleanup {A}"]
    assert diary == [*(f"{n} {step}" for step in steps for n in (1, 2)), *cleaned]


@pytest.mark.cluster
def test_isolator_ends_what_went_past_a_limit_of_its_own(made: Made) -> None:
    one = Diary("1", [])
    bench = made(one)
    bench.send(launch(A, Command(("trap '' TERM; while :; do sleep 0.05; done",), shell=True)))
    bench.expect(ContainerStarted, A)
    watch = one.watch
    assert watch is not None
    bench.do(lambda: watch.limit(A, Limitation("disk", "disk limit of 1 MiB exceeded")))
    bench.do(lambda: watch.limit(B, Limitation("disk", "of nobody")))

    exited = bench.expect(ContainerExited, A)
    assert (exited.signal, exited.limitation, exited.text) == (9, "disk", "disk limit of 1 MiB exceeded")


@pytest.mark.cluster
def test_failed_launches_are_taken_back(made: Made) -> None:
    diary: list[str] = []
    bench = made(Diary("1", diary))
    bench.send(launch(A, Command(("no-such-program",))), launch(B, Command(())))
    bench.expect(ContainerFailed, A)
    bench.expect(ContainerFailed, B)

    bench.until(lambda: {f"1 cleanup {A}", f"1 cleanup {B}"} <= set(diary), f"cleaned up; {diary}")


@pytest.mark.cluster
def test_kill_during_a_slow_preparation_takes_it_back_afterwards(made: Made) -> None:
    diary: list[str] = []
    one = Diary("1", diary)
    one.is_slow = True
    bench = made(one)
    bench.send(launch(A, SLEEP), KillContainer(A, 0), ForgetContainer(A))

    assert bench.expect(ContainerExited, A).text == "killed before its command ran"
    port: Any = bench.port
    bench.until(lambda: port._preparing == 0 and f"1 cleanup {A}" in diary, f"taken back; {diary}")
    assert diary.count(f"1 cleanup {A}") >= ("1 prepare" in diary)
    assert bench.inbox.take(ContainerStarted, A) is None


@pytest.mark.cluster
def test_limits_changed_during_a_slow_preparation_are_applied_after_it(made: Made) -> None:
    diary: list[str] = []
    one = Diary("1", diary)
    one.is_slow = True
    bench = made(one)
    bench.send(launch(A, SLEEP), UpdateContainer(A, Resources.parse("cpus:3")))
    bench.expect(ContainerStarted, A)

    assert diary[:2] == ["1 prepare", "1 update cpus:3"]


@pytest.mark.cluster
def test_what_cannot_be_taken_back_is_tried_again(made: Made) -> None:
    diary: list[str] = []
    one = Diary("1", diary, fails="cleanup")
    bench = made(one)
    bench.send(launch(A, Command(("true",))))
    bench.expect(ContainerExited, A)
    bench.send(ForgetContainer(A))
    bench.until(lambda: any(event == "not_cleaned_up" for event, _ in bench.inbox.logged), "it is logged")
    one.fails = ""
    tried = diary.count(f"1 cleanup {A}")
    bench.until(lambda: diary.count(f"1 cleanup {A}") > tried, "it is tried again")


@pytest.mark.cluster
def test_leftovers_of_a_former_life_are_cleaned_up(made: Made) -> None:
    diary: list[str] = []
    one = Diary("1", diary)
    one.left = (A, ContainerId("left.000000000009"))
    bench = made(one)
    bench.send(launch(A, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.send(RecoverContainers((A,)))

    bench.until(lambda: "1 cleanup left.000000000009" in diary, f"cleaned up; {diary}")
    assert f"1 cleanup {A}" not in diary


@pytest.mark.cluster
def test_limits_fail_a_launch_of_the_process_containerizer(made: Made, tmp_path: Path) -> None:
    bench = made()
    bench.send(launch(A, SLEEP, limits=TaskLimits(mem_bytes=1 << 30)))
    bench.send(launch(B, Command(("cat", "x"), uris=(Uri(str(tmp_path / "x")),)), limits=TaskLimits(pids=3)))
    (tmp_path / "x").touch()

    assert "limits: this agent cannot keep any" in bench.expect(ContainerFailed, A).text
    assert bench.expect(ContainerFailed, B).reason in ("spawn", "fetch")
