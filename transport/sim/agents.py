"""Simulated machines with an agent: its process, its containers, and the processes of the executors on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mesos_actor.actors.agent import Agent
from mesos_actor.actors.core import environment
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.executor import Executor, ExecutorActor
from mesos_actor.actors.ids import Address, AgentId, ContainerId, ExecutorId, FrameworkId, TaskId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Task
from mesos_actor.isolation.fake import FakeContainerizer, FakeSandbox, Fate, Run, Survivors
from mesos_actor.transport.sim.faults import ISOLATION
from mesos_actor.transport.sim.world import World

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster

Runs = Callable[[LaunchContainer], Run]


class SimAgent:
    """A machine with an agent: `host` is its agent's process; containers and files outlive that one."""

    def __init__(self, sim: SimCluster, name: str, node: str, settings: AgentSettings, runs: Runs) -> None:
        self.name = name
        self.settings = settings
        self.survivors = Survivors(lambda: sim.world.schedule.now_us)
        """What its launcher and its disk keep: running containers, sandboxes."""
        self._sim = sim
        self._runs = runs
        self._containerizer: FakeContainerizer | None = None
        self._executors = 0
        self.host = sim.world.add_host(name, node=node)
        self.host.when_power_lost = self._power_lost
        self.host.add_port("containerizer", self._power_on, survives=True)
        self.host.add_port("sandbox", lambda: FakeSandbox(self.survivors))
        self.host.spawn("agent", lambda: Agent(settings), durable=True)

    @property
    def up(self) -> bool:
        """Whether the agent lives."""
        process = self.host.process
        return process is not None and "agent" in process.cells and process.cells["agent"].actor is not None

    @property
    def actor(self) -> Agent:
        """The living agent. Raises LookupError while it is down, or ends."""
        found = self.host.actor("agent")
        assert isinstance(found, Agent)
        return found

    @property
    def agent_id(self) -> AgentId:
        """What the master calls it; empty before its first registration and while it is down."""
        return self.actor.registration.agent_id if self.up else AgentId("")

    def running(self) -> list[str]:
        """The ids of the containers that run on the machine now, whether the agent is up or not."""
        return [name for name, container in self.survivors.containers.items() if not container.ended]

    def crash(self, *, machine: bool = False, keep_unsynced: int = 0) -> None:
        """kill -9 of the agent: what it runs goes on. With `machine` a power cut: that is gone too."""
        self.host.crash(machine=machine, keep_unsynced=keep_unsynced)

    def start(self) -> None:
        """Begin a new process of the agent, if none runs."""
        self.host.start()

    def stop(self) -> None:
        """SIGTERM to the agent."""
        self.host.stop()

    def _power_lost(self) -> None:
        for container in list(self.survivors.containers.values()):
            self.end(container.launch.container_id)
        self.survivors.containers.clear()

    def _power_on(self) -> FakeContainerizer:
        fates = _PlannedFates(self._sim.world, self.name)
        self._containerizer = FakeContainerizer(self.survivors, self._runs, fates, self)
        return self._containerizer

    # -- processes of executors, for the containerizer ---------------------------------------------------------------

    def begin(self, launch: LaunchContainer) -> None:
        """Make the process of an executor that `add_executor` has declared; others are silent."""
        factory = self._sim.executors.get(launch.env[environment.EXECUTOR_ID])
        if factory is None:
            return
        env, container_id = launch.env, launch.container_id
        host = self._sim.world.add_host(f"{self.name}-executor{self._executors}", principal=f"executor:{container_id}")
        self._executors += 1
        host.retired = True  # an executor's process is never begun a second time
        host.when_down = lambda kind: self._executor_down(container_id, kind)
        self._sim.executor_hosts[container_id] = host

        def driver() -> ExecutorActor:
            executor, framework_id = factory(), FrameworkId(env[environment.FRAMEWORK_ID])
            _record_launches(executor, framework_id, self._sim.launched)
            return ExecutorActor(
                executor,
                Address(env[environment.AGENT_ADDRESS]),
                framework_id,
                ExecutorId(env[environment.EXECUTOR_ID]),
                container_id,
            )

        host.spawn("executor", driver, restart="temporary").start()

    def end(self, container_id: ContainerId) -> None:
        """Its container is gone, so its process must be too."""
        host = self._sim.executor_hosts.get(container_id)
        if host is not None:
            host.crash()

    def hang(self, container_id: ContainerId) -> None:
        """The executor's process stands still, until all is calm."""
        host = self._sim.executor_hosts.get(container_id)
        if host is not None:
            host.hang()

    def recover(self) -> None:
        """What hangs on the machine goes on."""
        if self._containerizer is not None:
            self._containerizer.go_on()

    def _executor_down(self, container_id: ContainerId, kind: str) -> None:
        if self._containerizer is not None:
            if kind == "exit":
                self._containerizer.process_ended(container_id, exit_status=0, signal=None)
            else:
                self._containerizer.process_ended(container_id, exit_status=None, signal=9)


class _PlannedFates(Mapping[int, Fate]):
    """Asks the plan for the fate of each launch on a machine: the words of `("isolation", host, n)`."""

    def __init__(self, world: World, host: str) -> None:
        self._world = world
        self._host = host

    def get(self, number: int, default: Any = None) -> Any:
        """The fate of the next launch, whatever its number."""
        word = self._world.plan.word(ISOLATION, self._host)
        if not word:
            return default
        fault = self._world.plan.fault_at(self._world.plan.last(ISOLATION, self._host))
        self._world._happened("fault", self._host, detail=fault.text())
        return Fate(word)

    def __getitem__(self, number: int) -> Fate:
        raise KeyError(number)

    def __iter__(self) -> Iterator[int]:
        return iter(())

    def __len__(self) -> int:
        return 0


def _record_launches(executor: Executor, framework_id: FrameworkId, launched: list[tuple[FrameworkId, TaskId]]) -> None:
    launch = executor.on_launch

    def on_launch(task: Task) -> None:
        launched.append((framework_id, task.task_id))
        launch(task)

    executor.on_launch = on_launch  # type: ignore[method-assign]
