"""Whole families of processes are ended and no exit is lost, whatever dies: tasks, launcher, agent."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command
from mesos_actor.isolation import tree
from mesos_actor.isolation.exit_log import ExitLog
from mesos_actor.isolation.launcher_wire import LOG_NAME

if TYPE_CHECKING:
    RealBench = Any

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
SLEEP = Command(("sleep", "100"))
Launch = Callable[..., LaunchContainer]


def shell(script: str) -> Command:
    return Command((script,), shell=True)


def is_alive(pid: int) -> bool:
    stat = tree.stat_of(pid)
    return stat is not None and stat.alive


def pids_in(real: RealBench, name: str, count: int = 1) -> list[int]:
    path: Path = real.sandbox(A) / name
    real.until(lambda: path.exists() and path.read_text().count("\n") >= count, f"{count} pids in {path}")
    return [int(word) for word in path.read_text().split()]


FAMILIES = {
    "child": "sleep 100 & echo $! >> pids; wait",
    "grandchild": "(sleep 100 & echo $! >> pids; wait) & wait",
    "own session": "setsid sleep 100 & echo $! >> pids; wait",
    "double fork": "(setsid sh -c 'echo $$ >> pids; exec sleep 100' &) ; sleep 100",
    "double fork without the mark": "(setsid env -i sh -c 'echo $$ >> pids; exec sleep 100' &) ; sleep 100",
    "ignores TERM": "sh -c 'trap \"\" TERM; echo $$ >> pids; while :; do sleep 0.05; done' & wait",
}


@pytest.mark.parametrize("script", FAMILIES.values(), ids=FAMILIES.keys())
def test_kill_ends_the_whole_family(real: RealBench, make_launch: Launch, script: str) -> None:
    real.send(make_launch(A, shell(script)))
    main = real.expect(ContainerStarted, A).pid
    (descendant,) = pids_in(real, "pids")
    real.send(KillContainer(A, grace_ms=100))

    assert real.expect(ContainerExited, A) == ContainerExited(A, signal=15, killed=True)
    assert not is_alive(main)
    assert not is_alive(descendant)


@pytest.mark.parametrize("script", FAMILIES.values(), ids=FAMILIES.keys())
def test_what_is_left_when_the_command_ends_is_killed_before_its_exit_is_told(
    real: RealBench, make_launch: Launch, script: str
) -> None:
    ends = script.replace("; wait", "").replace("& wait", "&").replace("; sleep 100", "")
    real.send(make_launch(A, shell(f"{ends}\nwhile ! test -s pids; do sleep 0.01; done; exit 7")))
    (descendant,) = pids_in(real, "pids")

    assert real.expect(ContainerExited, A) == ContainerExited(A, exit_status=7)
    assert not is_alive(descendant)


def test_descendants_get_the_rest_of_the_grace_when_the_command_ends_first(
    real: RealBench, make_launch: Launch
) -> None:
    gentle = "sh -c 'trap \"sleep 0.1; echo done > late; exit\" TERM; echo $$ >> pids; while :; do sleep 0.01; done'"
    real.send(make_launch(A, shell(f"{gentle} & sleep 100")))
    pids_in(real, "pids")
    real.send(KillContainer(A, grace_ms=60_000))

    assert real.expect(ContainerExited, A) == ContainerExited(A, signal=15, killed=True)
    assert (real.sandbox(A) / "late").read_text() == "done\n"


def test_other_containers_are_left_alone(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, shell("(setsid sleep 100 &); sleep 100")), make_launch(B, shell("(sleep 100 &); exit 0")))
    main = real.expect(ContainerStarted, A).pid

    assert real.expect(ContainerExited, B) == ContainerExited(B, exit_status=0)
    assert is_alive(main)
    assert real.inbox.take(ContainerExited, A) is None


def test_container_outlives_the_agent_and_its_status_is_not_lost(
    real: RealBench, make_launch: Launch, until_ended: Callable[[int], None]
) -> None:
    real.send(make_launch(A, shell("while ! test -e go; do sleep 0.01; done; exit 42")))
    pid = real.expect(ContainerStarted, A).pid
    launcher = real.launcher_pid()
    real.drop_agent()
    (real.sandbox(A) / "go").touch()
    until_ended(pid)
    real.start()
    real.send(RecoverContainers((A,)))

    recovered = real.expect(ContainersRecovered).containers[0]
    if recovered.running:  # the launcher was still writing that down
        assert real.expect(ContainerExited, A).exit_status == 42
    else:
        assert recovered.exit_status == 42
    assert real.launcher_pid() == launcher


def kill_launcher(real: RealBench) -> int:
    pid: int = real.launcher_pid()
    os.kill(pid, signal.SIGKILL)
    real.until(lambda: real.port.launcher_pid not in (0, pid), "a new launcher")
    return pid


def test_running_container_is_adopted_when_its_launcher_was_killed(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, SLEEP), make_launch(B, Command(("false",))))
    pid = real.expect(ContainerStarted, A).pid
    real.expect(ContainerExited, B)
    kill_launcher(real)

    assert is_alive(pid)
    real.send(make_launch(A, SLEEP), make_launch(B, Command(("false",))))
    assert real.expect(ContainerStarted, A).pid == pid
    assert real.expect(ContainerExited, B).exit_status == 1
    real.send(KillContainer(A, grace_ms=60_000))
    exited = real.expect(ContainerExited, A)
    assert (exited.exit_status, exited.signal, exited.killed) == (None, None, True)
    assert "the launcher that watched it died; exit status cannot be known" in exited.text


def test_adopted_family_is_ended_whole(real: RealBench, make_launch: Launch) -> None:
    script = "(setsid sh -c 'echo $$ >> pids; exec sleep 100' &) ; sh -c 'echo $$ >> pids; exec sleep 100' & sleep 100"
    real.send(make_launch(A, shell(script)))
    main = real.expect(ContainerStarted, A).pid
    family = [main, *pids_in(real, "pids", 2)]
    kill_launcher(real)
    os.kill(main, signal.SIGKILL)

    assert "cannot be known" in real.expect(ContainerExited, A).text
    assert [pid for pid in family if is_alive(pid)] == []


def test_container_that_ended_while_no_launcher_watched_is_told_as_that(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, SLEEP))
    main = real.expect(ContainerStarted, A).pid
    launcher = real.launcher_pid()
    os.kill(launcher, signal.SIGSTOP)
    os.kill(main, signal.SIGKILL)
    os.kill(launcher, signal.SIGKILL)

    exited = real.expect(ContainerExited, A)
    assert (exited.exit_status, exited.signal, exited.killed) == (None, None, False)
    assert exited.text == "the launcher that watched it died; exit status cannot be known"


def test_exits_kept_by_a_killed_launcher_are_told_by_the_next(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, Command(("false",))), make_launch(B, Command(("true",))))
    real.expect(ContainerExited, A)
    real.expect(ContainerExited, B)
    real.send(ForgetContainer(B))
    launcher = real.launcher_pid()
    os.kill(launcher, signal.SIGKILL)
    real.restart_agent()
    real.send(RecoverContainers((A, B)))

    recovered = real.expect(ContainersRecovered).containers
    assert (recovered[0].container_id, recovered[0].exit_status) == (A, 1)
    assert real.launcher_pid() != launcher


def log_of_a_dead_launcher(real: RealBench, until_ended: Callable[[int], None], *records: list[Any]) -> None:
    """Kill the agent and the launcher, add `records` to the log that is left, and start the agent again."""
    launcher = real.launcher_pid()
    real.drop_agent()
    os.kill(launcher, signal.SIGKILL)
    until_ended(launcher)
    directory = os.open(real.work_dir / "launcher", os.O_RDONLY)
    log = ExitLog(directory, LOG_NAME)
    for record in records:
        log.add(record)
    log.flush()
    log.close()
    os.close(directory)
    real.start()


def test_launch_that_the_launcher_died_in_is_not_tried_again(
    real: RealBench, make_launch: Launch, until_ended: Callable[[int], None]
) -> None:
    log_of_a_dead_launcher(real, until_ended, ["intent", A, "/nowhere"])
    real.send(make_launch(A, Command(("touch", "ran"))))

    exited = real.expect(ContainerExited, A)
    assert exited.text == "the launcher died while it started it; whether it ran cannot be known"
    assert not (real.sandbox(A) / "ran").exists()


def test_burst_is_answered_whole_and_nothing_runs_twice_though_the_launcher_is_killed(
    real: RealBench, make_launch: Launch
) -> None:
    launcher = real.launcher_pid()
    ids = [ContainerId(f"t{n}.000000000000") for n in range(100)]
    note = Command(("echo $$ >> ran; exit 3",), shell=True)
    real.send(*(make_launch(container_id, note) for container_id in ids))
    real.expect(ContainerStarted)
    os.kill(launcher, signal.SIGKILL)
    exits = [real.expect(ContainerExited, container_id) for container_id in ids]

    assert {e.exit_status for e in exits} <= {3, None}
    assert all("cannot be known" in e.text for e in exits if e.exit_status is None)
    runs = [path.read_text().count("\n") for i in ids if (path := real.sandbox(i) / "ran").exists()]
    assert set(runs) == {1}


def test_container_of_before_a_restart_of_the_host_has_ended(
    real: RealBench, until_ended: Callable[[int], None]
) -> None:
    started = ["started", A, os.getpid(), 0, 1 << 60]
    log_of_a_dead_launcher(real, until_ended, ["boot", "another"], ["intent", A, "/nowhere"], started)
    real.send(RecoverContainers((A,)))

    (recovered,) = real.expect(ContainersRecovered).containers
    assert not recovered.running
    assert recovered.text == "the host was restarted while it ran; exit status cannot be known"


def test_hundreds_at_once_all_end(real: RealBench, make_launch: Launch) -> None:
    ids = [ContainerId(f"t{n}.000000000000") for n in range(150)]
    real.send(*(make_launch(container_id, Command(("true",))) for container_id in ids))

    for container_id in ids:
        assert real.expect(ContainerExited, container_id).exit_status == 0


def test_kill_of_a_launch_still_waiting_for_its_turn(real: RealBench, make_launch: Launch) -> None:
    ids = [ContainerId(f"t{n}.000000000000") for n in range(60)]
    real.launcher_pid()
    real.send(*(make_launch(container_id, SLEEP) for container_id in ids))
    real.send(*(KillContainer(container_id, grace_ms=0) for container_id in ids))

    for container_id in ids:
        assert real.expect(ContainerExited, container_id).killed


def test_task_gets_a_clean_process(real: RealBench, make_launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESOS_ACTOR_SECRET", "s3cret")
    show = (
        "import os, signal, sys\n"
        "print(os.getcwd(), os.getsid(0) == os.getpid(), sorted(os.listdir('/proc/self/fd')), end=' ')\n"
        "print(signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, signal.pthread_sigmask(0, ()), end=' ')\n"
        "print(os.umask(0), os.readlink('/proc/self/fd/0'))\n"
        "print(sorted(os.environ.items()))\n"
    )
    command = Command((sys.executable, "-I", "-c", show), env={"MINE": "1", "BOTH": "command", "MESOS_SANDBOX": "x"})
    real.send(make_launch(A, command, env={"BOTH": "launch"}))
    exited = real.expect(ContainerExited, A)
    sandbox = real.sandbox(A)

    assert exited.exit_status == 0, (sandbox / "stderr").read_text()
    first, second = (sandbox / "stdout").read_text().splitlines()
    assert first == f"{sandbox} True ['0', '1', '2', '3'] True set() 18 /dev/null"
    told = dict(eval(second))  # noqa: S307 - what our own child printed
    assert (told["MINE"], told["BOTH"], told["MESOS_SANDBOX"], told["MESOS_CONTAINER_ID"]) == (
        "1",
        "launch",
        str(sandbox),
        A,
    )
    assert set(told) <= {"MINE", "BOTH", "MESOS_SANDBOX", "MESOS_CONTAINER_ID", "PATH", "HOME", "LANG", "LC_CTYPE"}
