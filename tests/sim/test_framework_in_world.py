"""The same framework classes that run on a cluster, in a simulated one: a real master and agents on virtual time."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.agent import Agent
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.settings import AgentSettings, MasterSettings
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import Address, FrameworkId, Node
from mesos_actor.actors.master import Master
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.values import Offer, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.task import TERMINAL, TaskState
from mesos_actor.isolation.fake import FakeContainerizer, FakeSandbox, Survivors
from mesos_actor.raft.node import RegistryPort
from mesos_actor.testing import SECOND_US, ActorFailed, Host, Plan, World
from mesos_actor.transport.sim.faults import Fate, Key
from mesos_actor.transport.sim.plan import NORMAL, Chances, SeededPlan

MASTER = Address("tcp://10.0.0.1:5050/master")
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


class Cluster:
    """One master and some agents of 4 CPUs, and one host for a framework."""

    def __init__(self, agents: int = 2, seed: int = 0, plan: Plan | None = None) -> None:
        self.world = World(plan, seed=seed)
        master = self.world.add_host("master", node="tcp://10.0.0.1:5050")
        master.spawn("master", lambda: Master(MasterSettings(), DrfAllocator()))
        member = "10.0.0.1:5050"
        master.add_port("registry", lambda: RegistryPort(master.open_files, member, (member,), "trial"))
        master.start()
        self.agents = [self.add_agent(number) for number in range(agents)]
        self.frameworks: list[Framework] = []

    def add_agent(self, number: int) -> Host:
        node = Node(f"tcp://10.0.1.{number}:5051")
        settings = AgentSettings(
            hostname=f"host{number}", masters=(MASTER,), resources=Resources.of(cpus=4, mem=4096, disk=10_000)
        )
        survivors = Survivors()
        host = self.world.add_host(f"agent{number}", node=node)
        host.add_port("containerizer", lambda: FakeContainerizer(survivors), survives=True)
        host.add_port("sandbox", lambda: FakeSandbox(survivors))
        return host.spawn("agent", lambda: Agent(settings), durable=True).start()

    def run(self, make: type[Framework], *args: Any) -> Host:
        """A framework in a process of its own; each incarnation is a new object, the last of `frameworks`."""

        def driver() -> FrameworkActor:
            self.frameworks.append(make(*args))
            return FrameworkActor(self.frameworks[-1], [MASTER])

        host = self.world.add_host("framework", principal="alice")
        return host.spawn("framework", driver, durable=True, restart="temporary").start()

    def ended(self) -> bool:
        return self.frameworks[-1]._over


class Jobs(Framework):
    """Runs `count` sleeps to their end, each under a new task id when it has to be run again; what was launched and
    what has ended is in its store."""

    failover_timeout_s = 600

    def __init__(self, count: int, seconds: float) -> None:
        self.names = [f"job{number}" for number in range(count)]
        self.seconds = seconds
        self.seen: list[tuple[str, TaskState]] = []
        #: Job to the task that runs it.
        self.launched: dict[str, str] = {}

    def done(self) -> bool:
        return all(name in self.kept for name in self.names)

    def on_start(self) -> None:
        for key, task_id in self.kept.items():
            if key.startswith("launched/"):
                self.launched[key.removeprefix("launched/")] = task_id.decode()

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.reconcile(sorted(task_id for name, task_id in self.launched.items() if name not in self.kept))

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free, tasks = offer.resources, []
            for name in [name for name in self.names if name not in self.launched]:
                share = free.take(Resources.of(cpus=1, mem=64))
                if share is None:
                    break
                free -= share
                task_id = f"{name}.{self.rng.getrandbits(32):08x}"
                tasks.append(command_task(task_id, ["sleep", str(self.seconds)], share))
                self.persist(f"launched/{name}", task_id.encode())
                self.launched[name] = task_id
            self.accept(offer, tasks, refuse_s=1)

    def on_update(self, status: Status) -> None:
        self.seen.append((status.task_id, status.state))
        name = status.task_id.rpartition(".")[0]
        if status.state is TaskState.FINISHED:
            self.persist(name, b"done")
        elif self.launched.get(name) == status.task_id and (
            status.state in TERMINAL or status.state is TaskState.UNKNOWN
        ):
            del self.launched[name]
            self.persist(f"launched/{name}", None)
        if self.done():
            self.stop()


def test_a_useful_framework_comes_to_its_end() -> None:
    cluster = Cluster()
    cluster.run(Jobs, 20, 10)

    cluster.world.until(cluster.ended, 120 * SECOND_US)

    framework = cluster.frameworks[-1]
    assert isinstance(framework, Jobs)
    assert len([state for _, state in framework.seen if state is TaskState.FINISHED]) == 20
    assert cluster.world.elapsed_us < 60 * SECOND_US


def test_the_example_of_the_guide_runs_in_the_simulator_too() -> None:
    spec = importlib.util.spec_from_file_location("hello_framework", EXAMPLES / "hello_framework.py")
    assert spec is not None and spec.loader is not None
    hello = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hello)
    cluster = Cluster()
    cluster.run(hello.Hello, 10)

    cluster.world.until(cluster.ended, 30 * SECOND_US)


@pytest.mark.parametrize("victim", ["master", "agent0", "framework"])
@pytest.mark.parametrize("seed", range(4))
def test_a_crash_of_anybody_loses_no_job(victim: str, seed: int) -> None:
    cluster = Cluster(seed=seed)
    cluster.run(Jobs, 12, 5)
    cluster.world.run((2 + seed) * SECOND_US)

    cluster.world.hosts[victim].crash()
    cluster.world.run(SECOND_US)
    cluster.world.hosts[victim].start()

    cluster.world.until(cluster.ended, 1_200 * SECOND_US)


class FrameworkFaults(SeededPlan):
    """Loses, doubles and delays what goes to and from the framework, and lets hosts die at their disks."""

    def _fate(self, key: Key) -> Fate:
        fate = super()._fate(key)
        return fate if "framework" in key[:2] or key[0] == "disk" else NORMAL


@pytest.mark.parametrize("seed", range(25))
def test_lost_messages_and_dying_hosts_lose_no_job(seed: int) -> None:
    cluster = Cluster(seed=seed, plan=FrameworkFaults(seed, Chances(drop=0.05)))
    world = cluster.world
    cluster.run(Jobs, 12, 5)
    for _ in range(20):
        world.run(2 * SECOND_US)
        for host in world.hosts.values():
            if not host.up and not (host.name == "framework" and cluster.ended()):
                host.start()
    world.calm()

    framework = cluster.frameworks[-1]
    assert isinstance(framework, Jobs)
    if not framework.done():
        world.until(lambda: all(name in cluster.frameworks[-1].kept for name in framework.names), 2_000 * SECOND_US)


def test_a_cut_network_heals_and_reconciles() -> None:
    cluster = Cluster(agents=1)
    cluster.run(Jobs, 4, 20)
    cluster.world.run(5 * SECOND_US)
    framework = cluster.frameworks[-1]
    assert {known.state for known in framework.tasks.values()} == {TaskState.RUNNING}

    cluster.world.cut("framework", "master")
    cluster.world.run(60 * SECOND_US)
    assert not framework.connected
    cluster.world.heal()

    cluster.world.until(cluster.ended, 120 * SECOND_US)


def test_output_is_read_from_the_sandbox() -> None:
    class Echo(Framework):
        output = b""

        def on_offers(self, offers: Sequence[Offer]) -> None:
            if not self.tasks:
                self.accept(offers[0], [command_task("t", ["echo", "hello"], Resources.of(cpus=1, mem=64))])

        def on_update(self, status: Status) -> None:
            if status.state is TaskState.FINISHED:
                self.read_file(status, "stdout")

        def on_file(self, file: FileData) -> None:
            Echo.output += file.data or file.error.encode()
            self.stop()

    cluster = Cluster(agents=1)
    cluster.run(Echo)

    cluster.world.until(cluster.ended, 30 * SECOND_US)

    assert Echo.output == b"hello\n"


def test_the_authors_bug_stops_the_world() -> None:
    class Buggy(Framework):
        def on_offers(self, offers: Sequence[Offer]) -> None:
            raise ZeroDivisionError("the author's bug")

    cluster = Cluster()

    with pytest.raises(ActorFailed, match="the author's bug"):
        cluster.run(Buggy)
        cluster.world.run(30 * SECOND_US)
