"""Frameworks, custom executors and `ClusterExecutor` on a cluster of real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.cluster_executor import ClusterExecutor, RemoteTraceback, WorkerLost
from mesos_actor.actors.framework import Framework, command_task, executor_task
from mesos_actor.actors.ids import AgentId, ExecutorId, FrameworkId
from mesos_actor.actors.messages.values import Command, ExecutorInfo, Offer, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import run
from mesos_actor.actors.task import TERMINAL, TaskState
from tests.cluster.real_cluster import LIMIT_S, Cluster, until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
PATH = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture
def started(bare: Cluster) -> Cluster:
    bare.master = bare.start_master()
    bare.agent = bare.start_agent(env=PATH)
    return bare


@pytest.fixture
def pool(started: Cluster) -> Iterator[ClusterExecutor]:
    with ClusterExecutor(started.masters, key_dir=started.keys, cpus=0.5, mem_mb=64) as made:
        yield made


def test_the_example_framework_runs_as_written(shared: Cluster) -> None:
    program = [sys.executable, str(EXAMPLES / "hello_framework.py")]

    done = subprocess.run(program, env=shared.environment(), capture_output=True, text=True, timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("FINISHED") == 10


class Greeting(Framework):
    """Three greetings by one executor process."""

    def __init__(self) -> None:
        command = Command((sys.executable, str(EXAMPLES / "hello_executor.py")))
        self.executor = ExecutorInfo(ExecutorId("greeter"), command, Resources.of(cpus=0.1, mem=64))
        self.names = ["ada", "grace", "barbara"]
        self.answers: list[bytes] = []
        self.lost: list[ExecutorId] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        tasks = []
        if not self.tasks and not self.answers:
            share = Resources.of(cpus=0.1, mem=16)
            tasks = [executor_task(name, self.executor, share, name.encode()) for name in self.names]
        self.accept(offers[0], tasks)
        self.decline(offers[1:])

    def on_update(self, status: Status) -> None:
        assert status.state is not TaskState.FAILED, status
        if status.state is TaskState.FINISHED:
            self.answers.append(status.data)
        if len(self.answers) == len(self.names):
            self.stop()


def test_the_example_executor_serves_its_tasks(shared: Cluster) -> None:
    framework = run(Greeting(), shared.masters, key_dir=shared.keys)

    assert sorted(framework.answers) == [b"greeted ada", b"greeted barbara", b"greeted grace"]
    until(lambda: not shared.pids_with("hello_executor.py"), "the executor has gone with its framework")


class Resumed(Framework):
    """Starts a task, leaves, and finds it again."""

    failover_timeout_s = 60

    def __init__(self, leave: bool) -> None:
        self.leave = leave
        self.ended: list[Status] = []

    def on_registered(self, framework_id: FrameworkId) -> None:
        if not self.leave:
            self.kill("t")

    def on_offers(self, offers: Sequence[Offer]) -> None:
        wanted = Resources.of(cpus=0.1, mem=16)
        if self.leave and not self.tasks:
            self.accept(offers[0], [command_task("t", ["sleep", "600"], wanted)])

    def on_update(self, status: Status) -> None:
        if self.leave and status.state is TaskState.RUNNING:
            self.stop(failover=True)
        elif status.state in TERMINAL:
            self.ended.append(status)
            self.stop()


def test_a_framework_that_comes_back_finds_its_tasks(shared: Cluster, tmp_path: Path) -> None:
    first = run(Resumed(leave=True), shared.masters, key_dir=shared.keys, state_dir=tmp_path)
    shared.until_task("t", "RUNNING")

    second = run(Resumed(leave=False), shared.masters, key_dir=shared.keys, state_dir=tmp_path)

    assert second.framework_id == first.framework_id
    assert [status.state for status in second.ended] == [TaskState.KILLED]


def test_a_framework_outlives_its_master(started: Cluster) -> None:
    class Patient(Framework):
        failover_timeout_s = 60
        times = 0

        def on_registered(self, framework_id: FrameworkId) -> None:
            self.times += 1
            registered.set()
            if self.times == 2:
                self.stop()

    registered = threading.Event()
    framework = Patient()
    thread = threading.Thread(target=lambda: run(framework, started.masters, key_dir=started.keys))
    thread.start()
    assert registered.wait(LIMIT_S)
    started.master.kill()
    started.start_master(port=started.masters.rpartition(":")[2])
    thread.join(LIMIT_S)

    assert framework.times == 2


def test_ctrl_c_ends_a_framework_and_its_tasks(started: Cluster) -> None:
    program = started.file(
        "endless.py",
        "import mesos_actor\n"
        "from mesos_actor import Resources, command_task\n"
        "class Endless(mesos_actor.Framework):\n"
        "    launched = False\n"
        "    def on_offers(self, offers):\n"
        "        if not self.launched:\n"  # the rest of the agent is offered again while the task runs
        "            self.launched = True\n"
        "            task = command_task('e', ['sleep', '600'], Resources.of(cpus=0.1, mem=16))\n"
        "            self.accept(offers[0], [task])\n"
        "mesos_actor.run(Endless())\n",
    )
    env = started.environment()

    def as_in_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell starts what it runs in the background with it ignored

    process = subprocess.Popen(
        [sys.executable, program], env=env, stderr=subprocess.PIPE, text=True, preexec_fn=as_in_a_terminal
    )
    started.until_task("e", "RUNNING")

    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=LIMIT_S)

    assert process.returncode == -signal.SIGINT, stderr
    assert "KeyboardInterrupt" in stderr
    until(lambda: not started.pids_with("sleep 600"), "its task was ended")


# -- callables --------------------------------------------------------------------------------------------------------


def test_callables_run_on_the_cluster(pool: ClusterExecutor) -> None:
    """Functions of a module that the agents lack travel by value when they are local ones."""
    offset = 7

    def fails(text: str) -> None:
        raise LookupError(text)

    pids: Callable[[int], tuple[int, int]] = lambda n: (n + offset, os.getpid())  # noqa: E731 - a closure, on purpose

    results = list(pool.map(pids, range(30), chunksize=3))

    assert [value for value, _ in results] == list(range(7, 37))
    assert os.getpid() not in {pid for _, pid in results}
    assert len(pool.submit(bytes, 3_000_000).result(LIMIT_S)) == 3_000_000
    error = pool.submit(fails, "gone").exception(LIMIT_S)
    assert isinstance(error, LookupError) and isinstance(error.__cause__, RemoteTraceback)


def test_a_worker_that_dies_breaks_its_call_only(pool: ClusterExecutor) -> None:
    exit_at_once: Any = os._exit

    error = pool.submit(exit_at_once, 3).exception(LIMIT_S)

    assert isinstance(error, WorkerLost) and "status 3" in str(error)
    assert pool.submit(abs, -5).result(LIMIT_S) == 5


def test_calls_outlive_the_agent_and_the_master(started: Cluster, pool: ClusterExecutor) -> None:
    path = str(started.directory / "go")

    def waits_for(path: str) -> str:
        while not os.path.exists(path):  # noqa: PTH110 - without imports of its own in the worker
            time.sleep(0.02)
        return path

    assert pool.submit(abs, -1).result(LIMIT_S) == 1
    waiting = [pool.submit(waits_for, path) for _ in range(3)]
    until(lambda: all(future.running() for future in waiting), "the calls run")

    port = started.ready("h1")["address"].rpartition(":")[2]
    started.agent.kill()
    started.master.kill()
    started.start_master(port=started.masters.rpartition(":")[2])
    started.start_agent("h1", "--port", port, env=PATH)
    Path(path).touch()

    assert [future.result(LIMIT_S) for future in waiting] == [path] * 3


def test_the_workers_end_with_the_pool(started: Cluster) -> None:
    with ClusterExecutor(started.masters, key_dir=started.keys, cpus=0.5, mem_mb=64) as pool:
        assert pool.submit(abs, -1).result(LIMIT_S) == 1
        assert started.pids_with("callable_executor")

    until(lambda: not started.pids_with("callable_executor"), "the workers have gone")
    assert AgentId(started.rows("agents")[0]["agent_id"])
