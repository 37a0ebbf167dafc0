"""The linux containerizer on a real kernel: all that every containerizer promises, then what only cgroups can."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId, OperationId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    UpdateContainer,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, HugePages, RLimit, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.linux import LinuxContainerizer, tree_name
from tests.isolation.benches import RealBench, launch
from tests.isolation.conformance import *  # noqa: F403 - the tests themselves

if TYPE_CHECKING:
    Kit = Any

pytestmark = pytest.mark.cgroup

TOP = Path("/sys/fs/cgroup")
MIB = 1 << 20
A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
SMALL = Resources.of(cpus=0.1, mem=64)
GROW = "head -c 400M /dev/zero | tail >/dev/null"


class LinuxBench(RealBench):
    """RealBench with cgroups."""

    def __init__(self, work_dir: Path) -> None:
        def make(path: Path) -> LinuxContainerizer:
            return LinuxContainerizer(path, launcher_idle_s=5, exit_repeat_us=400_000, pids_limit=64)

        super().__init__(work_dir, make)
        self.tree = TOP / tree_name(work_dir)

    def cgroup(self, container_id: str) -> Path:
        return self.tree / container_id

    def names(self) -> list[str]:
        """The containers that have a cgroup."""
        return sorted(path.name for path in self.tree.iterdir() if path.is_dir())

    def is_bare(self) -> bool:
        """Whether its containerizer holds nothing."""
        port: Any = self.port
        return not port._containers

    def shell(self, container_id: str, script: str, **limits: Any) -> None:
        command = Command((script,), shell=True)
        self.send(
            LaunchContainer(
                ContainerId(container_id), FrameworkId("c1-0001"), command, SMALL, limits=TaskLimits(**limits)
            )
        )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LinuxBench]:
    """One for all tests: a launcher takes seconds to start here."""
    made = LinuxBench(tmp_path_factory.mktemp("linux") / "agent")
    yield made
    made.close()
    assert made.names() == []
    made.tree.rmdir()


@pytest.fixture
def bench(_only_in_the_machine: None, request: pytest.FixtureRequest) -> Iterator[LinuxBench]:
    """The machine's, with nothing in it."""
    made: LinuxBench = request.getfixturevalue("machine")
    yield made
    print("launcher:", (made.work_dir / "launcher" / "launcher.log").read_text())  # shown when the test fails
    made.send(RecoverContainers(()))
    made.until(lambda: made.is_bare() and made.names() == [], f"all is gone; left: {made.names()}")
    made.send(*(ForgetContainer(name) for name in (A, B)))
    made.inbox.messages.clear()
    shutil.rmtree(made.work_dir / "sandboxes", ignore_errors=True)


@pytest.fixture
def make_launch() -> Callable[..., LaunchContainer]:
    return launch


def alive(pid: int) -> bool:
    """Whether the process lives, and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_limits_are_written_before_the_command_runs(bench: LinuxBench) -> None:
    script = (
        "d=/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup); cat $d/memory.max $d/cpu.max $d/cpu.weight $d/pids.max"
    )
    bench.shell(A, script, cpus_milli=500, mem_bytes=96 * MIB)

    assert bench.expect(ContainerExited, A).exit_status == 0
    assert (bench.sandbox(A) / "stdout").read_text().split() == [str(96 * MIB), "50000", "100000", "10", "64"]


def test_memory_hog_ends_with_the_limit_the_peak_and_the_biggest_process(bench: LinuxBench) -> None:
    bench.shell(B, "sleep 1000")
    bench.shell(A, GROW)

    exited = bench.expect(ContainerExited, A)

    assert (exited.limitation, exited.signal, exited.killed) == ("memory", signal.SIGKILL, False)
    assert "memory limit of 64 MiB exceeded, peak 6" in exited.text
    assert "biggest process 'tail' (pid " in exited.text
    assert exited.statistics is not None
    assert exited.statistics.oom_kills >= 1
    assert 60 * MIB < exited.statistics.memory_peak_bytes <= 65 * MIB
    assert exited.statistics.cpu_time_ms > 0
    bench.send(MeasureContainers((B,), OperationId("m")))
    (usage,) = bench.expect(ContainerUsage).usages
    assert (usage.memory_limit_bytes, usage.cpus_limit_milli, usage.oom_kills) == (64 * MIB, 0, 0)
    assert usage.memory_peak_bytes > 0


def test_fork_bomb_stays_within_its_bound_and_dies_to_the_last(bench: LinuxBench, kit: Kit) -> None:
    bench.shell(A, "trap '' TERM; while :; do (setsid sleep 1000 &) 2>/dev/null; done", pids=30)
    bench.expect(ContainerStarted, A)
    kit.until(lambda: "max 0" not in (bench.cgroup(A) / "pids.events").read_text(), "a fork is refused")
    bench.send(KillContainer(A, grace_ms=100))

    exited = bench.expect(ContainerExited, A)
    assert exited.killed
    assert "its limit of 30 processes (pids) was reached" in exited.text
    assert (bench.cgroup(A) / "cgroup.procs").read_text() == ""
    bench.send(ForgetContainer(A))
    bench.until(lambda: bench.names() == [], "its cgroup is removed")


def test_whoever_forked_away_is_ended_with_the_command(bench: LinuxBench, kit: Kit) -> None:
    """Double-forked, in a session of its own, without our mark, outside of the sandbox: only the cgroup knows it."""
    bench.shell(A, "(cd / && env -i setsid sleep 1000 >/dev/null 2>&1 & echo $! ) ; exit 3")

    exited = bench.expect(ContainerExited, A)

    assert exited.exit_status == 3
    assert not alive(int((bench.sandbox(A) / "stdout").read_text()))


def test_limits_change_live_and_never_kill_by_shrinking(bench: LinuxBench, kit: Kit) -> None:
    bench.shell(A, "head -c 40M /dev/zero | (tail; sleep 1000) | sleep 1000")
    bench.expect(ContainerStarted, A)
    bench.send(UpdateContainer(A, Resources.of(cpus=2, mem=256), TaskLimits(cpus_milli=2_000, pids=9)))

    files = [
        (bench.cgroup(A) / name).read_text().strip() for name in ("memory.max", "cpu.max", "cpu.weight", "pids.max")
    ]
    assert files == [str(256 * MIB), "200000 100000", "200", "9"]
    kit.until(lambda: int((bench.cgroup(A) / "memory.current").read_text()) > 36 * MIB, "it has grown")
    bench.send(UpdateContainer(A, Resources.of(cpus=1, mem=32)))
    now = [
        (bench.cgroup(A) / name).read_text().strip() for name in ("memory.max", "memory.low", "cpu.max", "cpu.weight")
    ]
    assert now == [str(256 * MIB), str(32 * MIB), "max 100000", "100"]
    assert bench.inbox.take(ContainerExited, A) is None


def test_agent_that_was_killed_finds_containers_limits_and_causes(bench: LinuxBench, kit: Kit) -> None:
    """While it was away, one has run out of memory; another goes on; of a third only the cgroup is left."""
    bench.shell(A, "until [ -e go ]; do sleep 0.1; done; " + GROW)
    bench.shell(B, "sleep 1000")
    bench.expect(ContainerStarted, A)
    pid = bench.expect(ContainerStarted, B).pid
    bench.drop_agent()
    left = bench.cgroup("left.000000000009")
    left.mkdir()
    sleeper = os.posix_spawn("/bin/sleep", ["sleep", "1000"], {})
    (left / "cgroup.procs").write_text(str(sleeper))
    (bench.sandbox(A) / "go").touch()
    kit.until(lambda: "oom_kill 0" not in (bench.cgroup(A) / "memory.events").read_text(), "the kernel killed it")
    bench.start()
    bench.send(RecoverContainers((A, B)))

    found = {one.container_id: one for one in bench.expect(ContainersRecovered).containers}
    assert (found[B].running, found[B].pid) == (True, pid)
    ended = found[A] if not found[A].running else bench.expect(ContainerExited, A)
    assert ended.limitation == "memory"
    assert "memory limit of 64 MiB exceeded" in ended.text
    assert os.waitpid(sleeper, 0)[1] == signal.SIGKILL
    bench.send(ForgetContainer(A))
    bench.until(lambda: bench.names() == [B], "leftovers and the forgotten one are gone")
    bench.send(KillContainer(B, grace_ms=10_000))
    assert bench.expect(ContainerExited, B).signal == signal.SIGTERM


def test_launcher_that_was_killed_leaves_nobody_behind(bench: LinuxBench, kit: Kit) -> None:
    """Whoever is adopted is found and ended by its cgroup, too."""
    bench.shell(
        A, "(cd / && env -i setsid sleep 1000 >/dev/null 2>&1 & echo $! ); trap '' TERM; while :; do sleep 1000; done"
    )
    bench.expect(ContainerStarted, A)
    stray = int(bench.wait_for_file(bench.sandbox(A) / "stdout"))
    os.kill(bench.launcher_pid(), signal.SIGKILL)
    bench.until(lambda: getattr(bench.port, "launcher_pid", 0) == 0, "the launcher is missed")
    bench.send(KillContainer(A, grace_ms=50))

    exited = bench.expect(ContainerExited, A)
    assert exited.killed
    assert not alive(stray)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"mem_high_bytes": MIB}, "mem_high_bytes: 1048576 is out of range"),
        ({"cpus_milli": 50}, "cpus_limit_milli: 50 is below the request of 100"),
    ],
)
def test_limit_that_cannot_be_kept_fails_the_launch(bench: LinuxBench, limits: dict[str, int], text: str) -> None:
    bench.shell(A, "true", **limits)

    failed = bench.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert text in failed.text
    bench.until(lambda: bench.names() == [], "nothing of it stays")


def test_command_that_cannot_start_leaves_no_cgroup(bench: LinuxBench) -> None:
    bench.send(launch(A, Command(("no-such-program",))))

    assert "no such program" in bench.expect(ContainerFailed, A).text
    bench.until(lambda: bench.names() == [], "nothing of it stays")


def test_container_killed_while_it_is_set_up_leaves_nothing(bench: LinuxBench) -> None:
    bench.shell(A, "sleep 1000")
    bench.send(KillContainer(A, grace_ms=0))

    exited = bench.expect(ContainerExited, A)
    assert exited.killed
    bench.send(ForgetContainer(A))
    bench.until(lambda: bench.names() == [], "nothing of it stays")


def test_pinned_containers_share_no_processor_with_anybody(bench: LinuxBench, kit: Kit) -> None:
    """Of the machine's two one is for whoever pins none, so there is one to be had; the agent's next life knows."""
    bench.shell(A, "exec sleep 1000")
    bench.shell(B, "exec sleep 1000", pinned_cpus=1)
    plain, pinned = bench.expect(ContainerStarted, A).pid, bench.expect(ContainerStarted, B).pid
    kit.until(lambda: os.sched_getaffinity(plain) == {1}, "the one that runs is moved away")
    assert os.sched_getaffinity(pinned) == {0}
    bench.restart_agent()
    bench.send(RecoverContainers((A, B)))
    bench.expect(ContainersRecovered)
    bench.shell("c.000000000003", "true", pinned_cpus=1)

    failed = bench.expect(ContainerFailed, "c.000000000003")
    assert (failed.reason, "1 processors wanted, 0 of 2 can be had" in failed.text) == ("processors", True)
    bench.shell("d.000000000004", "grep Cpus_allowed_list /proc/self/status")
    assert bench.expect(ContainerExited, "d.000000000004").exit_status == 0
    assert (bench.sandbox("d.000000000004") / "stdout").read_text().split()[-1] == "1"
    bench.send(KillContainer(B, grace_ms=0))
    bench.expect(ContainerExited, B)
    bench.send(*(ForgetContainer(ContainerId(name)) for name in (B, "d.000000000004")))
    kit.until(lambda: os.sched_getaffinity(plain) == {0, 1}, "it may run everywhere again")


def test_two_that_pin_have_different_processors_and_a_third_has_none(bench: LinuxBench) -> None:
    pids = []
    for name in (A, B):
        bench.shell(name, "exec sleep 1000", pinned_cpus=1)
        pids.append(bench.expect(ContainerStarted, name).pid)
    assert [os.sched_getaffinity(pid) for pid in pids] == [{0}, {1}]

    for third, pinned in (("c.000000000003", 1), ("d.000000000004", 0)):
        bench.shell(third, "true", pinned_cpus=pinned, pids=5)
        assert bench.expect(ContainerFailed, third).reason == "processors"
    bench.until(lambda: bench.names() == [A, B], "nothing of them stays")


@pytest.fixture
def on_disk(bench: LinuxBench, tmp_path: Path) -> Iterator[str]:
    """The sandboxes are on an ext4; its device's number."""
    with (tmp_path / "disk").open("wb") as file:
        file.truncate(8 * MIB)
    subprocess.run(["mkfs.ext4", "-q", str(tmp_path / "disk")], check=True)
    for module in ("loop", "ext4"):
        subprocess.run(["modprobe", module], check=False)
    place = bench.work_dir / "sandboxes"
    place.mkdir(exist_ok=True)
    subprocess.run(["mount", "-o", "loop", str(tmp_path / "disk"), str(place)], check=True)
    number = place.stat().st_dev
    yield f"{os.major(number)}:{os.minor(number)}"
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_disk_swap_and_huge_pages_are_limited_as_asked(bench: LinuxBench, on_disk: str) -> None:
    pages = HugePages(2 * MIB, 4 * MIB)
    limits: dict[str, Any] = {"io_read_bytes": MIB, "io_writes": 100, "mem_swap_bytes": 8 * MIB, "hugetlb": (pages,)}
    bench.shell(A, "exec sleep 1000", **limits)
    bench.expect(ContainerStarted, A)

    def files() -> list[str]:
        names = ("io.max", "hugetlb.2MB.max", "hugetlb.2MB.rsvd.max")
        swap = bench.cgroup(A) / "memory.swap.max"
        told = [(bench.cgroup(A) / name).read_text().strip() for name in names]
        return [*told, swap.read_text().strip() if swap.exists() else str(8 * MIB)]

    expected = [f"{on_disk} rbps={MIB} wbps=max riops=max wiops=100", str(4 * MIB), str(4 * MIB), str(8 * MIB)]
    assert files() == expected
    bench.send(UpdateContainer(A, SMALL, TaskLimits(**limits)))
    assert files() == expected


def test_rate_of_what_is_no_disk_fails_the_launch(bench: LinuxBench) -> None:
    """This machine's own files come from its host."""
    bench.shell(A, "true", io_read_bytes=MIB)

    failed = bench.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert (
        f"limits: io_read_bytes: {bench.sandbox(A)} is on no disk that I/O can be limited for: its file" in failed.text
    )


def test_limits_of_processes_are_seen_inside(bench: LinuxBench) -> None:
    """Root may raise them; in a container of its own they are set after everything else."""
    rlimits = (RLimit("nofile", 100, 500_000), RLimit("core", 0, 0), RLimit("stack", -1, -1))
    script = "ulimit -n; ulimit -Hn; ulimit -c; ulimit -s"
    for name, container in ((A, None), (B, ContainerSpec(network="none"))):
        command = Command((script,), shell=True, rlimits=rlimits, container=container)
        bench.send(LaunchContainer(name, FrameworkId("c1-0001"), command, SMALL))
    for name in (A, B):
        assert bench.expect(ContainerExited, name).exit_status == 0
        assert (bench.sandbox(name) / "stdout").read_text().split() == ["100", "500000", "0", "unlimited"]
