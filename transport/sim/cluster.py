"""A whole cluster in one thread, on virtual time: real master, agents, frameworks and executors, simulated hosts.

    from mesos_actor.testing import cluster

    def test_my_framework_survives_its_agents():
        sim = cluster(agents=3, seed=7)
        mine = sim.add_framework(MyFramework)
        sim.run(20)
        sim.agents[0].crash()
        sim.until(lambda: mine.ended, within_s=300)
        sim.check()

The framework and executor classes are those that run on a real cluster, unchanged. Commands are not run: `sleep 3`
takes three virtual seconds, `false` fails, everything else ends well at once, unless `runs` says otherwise. A run is
decided by the arguments, the seed and the plan; what must hold in every run (invariants.py) is watched all the time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, overload

from mesos_actor.actors.core.allocation import Allocator
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.settings import AgentSettings, MasterSettings
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.executor import Executor
from mesos_actor.actors.framework import Framework
from mesos_actor.actors.ids import ContainerId, FrameworkId, TaskId
from mesos_actor.actors.master import Master
from mesos_actor.actors.resources import Attributes, Resources
from mesos_actor.isolation.fake import run_of
from mesos_actor.raft.node import NodeSettings
from mesos_actor.transport.sim import recording
from mesos_actor.transport.sim.agents import Runs, SimAgent
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.invariants import STANDARD, ClusterInvariant, Watch
from mesos_actor.transport.sim.masters import SimMaster
from mesos_actor.transport.sim.order_invariants import ORDERS
from mesos_actor.transport.sim.plan import Plan
from mesos_actor.transport.sim.planner import Faults
from mesos_actor.transport.sim.registers import History
from mesos_actor.transport.sim.registry_invariants import REGISTRY
from mesos_actor.transport.sim.task_invariants import TASKS
from mesos_actor.transport.sim.workload import AnyStep, Operator, Play
from mesos_actor.transport.sim.world import NotReached, World, WorldSettings

F = TypeVar("F", bound=Framework)

MAX_MASTERS = 7
ALONE_US = 5_000
"""What a single master takes to begin its registry and lead, when its disk is well; the agents begin after that."""
SECOND_US = 1_000_000
MAX_UNREST = 6
"""Of what keeps a cluster from being idle, so much is named."""


class SimCluster:
    """Made by `cluster`."""

    def __init__(
        self,
        world: World,
        master_settings: MasterSettings,
        make_allocator: Callable[[], Allocator],
        runs: Runs,
        masters: int = 1,
        registry_settings: NodeSettings | None = None,
    ) -> None:
        if not 0 < masters <= MAX_MASTERS or masters % 2 == 0:
            raise ConfigError(f"masters: {masters} must be an odd number from 1 to {MAX_MASTERS}")
        self.world = world
        self.runs = runs
        self.agent_settings: Mapping[str, Any] = {}
        """Fields of AgentSettings that agents have by default."""
        self.registry_settings = registry_settings or NodeSettings()
        self.agents: list[SimAgent] = []
        self.frameworks: list[SimFramework] = []
        #: executor id -> how to make its executor
        self.executors: dict[str, Callable[[], Executor]] = {}
        #: container -> the host of its executor's process, also after its end
        self.executor_hosts: dict[ContainerId, Host] = {}
        #: (framework, task) of every call of an executor's `on_launch`, in order
        self.launched: list[tuple[FrameworkId, TaskId]] = []
        self.invariants: list[ClusterInvariant] = []
        self.plays: list[Play] = []
        self.operator: Operator | None = None
        """Asks what the workloads have an operator ask; made for the first such question."""
        self.users = 0
        """How many users of the registry the workloads have brought."""
        self.asked = History()
        """What users of the registry asked, and were told (workload.UseRegistry)."""
        self.faults = Faults(self)  # pyright: ignore[reportArgumentType] (see `cluster`)
        """Adds to what goes wrong."""
        self.masters = [
            SimMaster(
                self,  # pyright: ignore[reportArgumentType] (see `cluster`)
                "master" if masters == 1 else f"master{number}",
                number,
                masters,
                lambda: Master(master_settings, make_allocator()),
            )
            for number in range(masters)
        ]
        for master in self.masters:
            master.start()

    # -- set-up -----------------------------------------------------------------------------------------------------

    def add_agent(
        self,
        resources: str | Resources = "cpus:4;mem:1024",
        attributes: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        runs: Runs | None = None,
    ) -> SimAgent:
        """One more machine, running. `settings` are fields of AgentSettings; `runs` says how its commands behave."""
        number = len(self.agents)
        total = resources if isinstance(resources, Resources) else Resources.parse(resources)
        fields: dict[str, Any] = {"attributes": Attributes.parse(_attributes(attributes)), **(settings or {})}
        masters = tuple(master.address for master in self.masters)
        own = AgentSettings(hostname=f"host{number}", masters=masters, resources=total, **fields)
        agent = SimAgent(
            self,  # pyright: ignore[reportArgumentType] (see `cluster`)
            f"agent{number}",
            f"tcp://10.0.1.{number}:5051",
            own,
            runs or self.runs,
        )
        self.agents.append(agent)
        agent.start()
        return agent

    def add_framework(
        self, framework: Framework | Callable[[], Framework], *, name: str = "", principal: str = "", start: bool = True
    ) -> SimFramework:
        """Run a framework in a process of its own: its class, a function that makes one, or, if that process is never
        to be started again, an object. `name` is its host's (by default `framework0`, `framework1`, ...)."""
        name = name or f"framework{len(self.frameworks)}"
        make = _only_once(framework, name) if isinstance(framework, Framework) else framework
        added = SimFramework(self, make, name, principal or name)  # pyright: ignore[reportArgumentType]
        added.host.restartable = not isinstance(framework, Framework)
        self.frameworks.append(added)
        if start:
            added.start()
        return added

    @overload
    def spawn(self, framework: F, *, name: str = "", principal: str = "") -> F: ...
    @overload
    def spawn(self, framework: Callable[[], Framework], *, name: str = "", principal: str = "") -> SimFramework: ...
    def spawn(
        self, framework: Framework | Callable[[], Framework], *, name: str = "", principal: str = ""
    ) -> Framework | SimFramework:
        """Run a framework. An object is returned as it is: it has one process, which no fault ends. For its class, or a
        function that makes one, what is returned is the host, whose `framework` is the newest object."""
        added = self.add_framework(framework, name=name, principal=principal)
        return framework if isinstance(framework, Framework) else added

    def add_executor(self, executor_id: str, make: Callable[[], Executor]) -> None:
        """Whenever an executor of this id is launched, its process runs an object that `make` makes."""
        self.executors[executor_id] = make

    def play(self, work: Iterable[AnyStep]) -> Play:
        """Have the steps of a workload done when they are due."""
        played = Play(self, work)  # pyright: ignore[reportArgumentType] (see `cluster`)
        self.plays.append(played)
        return played

    # -- time -------------------------------------------------------------------------------------------------------

    def run(self, for_s: float) -> None:
        """Let so much virtual time pass."""
        self.world.run(round(for_s * SECOND_US))

    def until(self, reached: Callable[[], bool], within_s: float = 60) -> None:
        """Run until `reached()` is true after some event. Raises NotReached, with the end of the trace, if it is not
        within this virtual time."""
        self.world.until(reached, round(within_s * SECOND_US))

    def calm(self) -> None:
        """From now on nothing goes wrong, and whatever is down begins again, except frameworks that have ended and
        hosts that never return. To found their group masters need all of them (docs/operations.md): while one is still
        at that, all return."""
        if any(master.replica.state == "founding" for master in self.masters if master.up):
            for master in self.masters:
                master.host.gone = False
        self.world.calm()
        for agent in self.agents:
            agent.recover()
        for played in self.plays:
            played.wind_up()

    def settle(self, within_s: float = 1_200) -> None:
        """Calm down, wait until nothing runs or waits any more and the frameworks of workloads have ended, and check.
        Raises NotReached, naming what goes on, when that takes longer.

        The bound covers the slowest remedies: the quarter of an hour after which frameworks ask about all tasks, and
        the ten minutes that a lost agent has to come back.
        """
        self.calm()
        try:
            self.until(lambda: all(played.over for played in self.plays) and self.is_idle(), within_s)
        except NotReached as error:
            waits = "; ".join(self.unrest()[:MAX_UNREST])
            raise NotReached(f"{within_s:g} s after all went well: {waits}\n{error}") from error
        self.check()

    @property
    def now_s(self) -> float:
        """Virtual seconds since the begin."""
        return self.world.elapsed_us / SECOND_US

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def master(self) -> Host:
        """The host of the first master: of the only one, by default."""
        return self.masters[0].host

    def is_master(self, host: str) -> bool:
        """Whether `host` is a master's."""
        return any(master.name == host for master in self.masters)

    @property
    def leader(self) -> Master:
        """The living master; of several, the one that leads. Raises LookupError while there is none."""
        if len(self.masters) == 1:
            return self.masters[0].actor
        found = self.leading()
        if found is None:
            raise LookupError("no master leads")
        return found

    def leading(self) -> Master | None:
        """The master that leads; of two that believe so, the one of the newer term. One that wakes from a long pause
        and has not heard yet that another led since does not, though that other may be dead by now."""
        found = self.leading_host()
        return None if found is None else found.actor

    def leading_host(self) -> SimMaster | None:
        """The same, with its host."""
        newest = max((master.newest_term for master in self.masters), default=0)
        leading = (master for master in self.masters if master.leads and master.actor.term >= newest)
        return max(leading, key=lambda master: master.actor.term, default=None)

    def live_tasks(self) -> Iterator[tuple[str, str]]:
        """(who says so, task) of every task that anybody believes to go on: master, agents, frameworks. What runs on
        a machine whose agent never returns is nobody's any more."""
        leader = self.leading()
        if leader is not None:
            for framework in leader.roster.frameworks.values():
                yield from (("master", task.task_id) for task in framework.tasks.values())
        for agent in self.agents:
            if agent.up:
                yield from ((agent.name, run.task.task_id) for run in agent.actor.workload.runs())
            if not agent.host.gone:
                yield from ((f"{agent.name}'s launcher", container) for container in agent.running())
        for mine in self.frameworks:
            if not mine.ended and mine.up:
                yield from ((mine.name, task_id) for task_id in mine.driver.tasks)

    def in_use(self) -> Resources:
        """What the master counts as used by tasks and executors, on all agents."""
        empty = Resources()
        return sum((self.leader.roster.in_use(agent) for agent in self.leader.roster.agents.values()), empty)

    def is_idle(self) -> bool:
        """Whether no task and no executor is left anywhere, everything is free, and all agents take part."""
        leader = self.leading()
        if leader is None or next(self.live_tasks(), None) is not None:
            return False
        taking_part = sum(agent.connected for agent in leader.roster.agents.values())
        if taking_part != sum(agent.up for agent in self.agents) or self.in_use():
            return False
        return next(self._not_yet_back(leader), None) is None

    def _not_yet_back(self, leader: Master) -> Iterator[SimFramework]:
        """Frameworks that are up and go on, and that the master has not taken in (again)."""
        known = leader.roster.frameworks
        for mine in self.frameworks:
            if mine.up and not mine.ended and not mine.host.gone:
                entry = known.get(mine.framework_id)
                if entry is None or not entry.connected:
                    yield mine

    def unrest(self) -> list[str]:
        """What keeps the cluster from being idle, in words."""
        found = [f"{who} has {task} going on" for who, task in self.live_tasks()]
        found += [f"{mine.name} has not ended" for played in self.plays for mine in played.unfinished()]
        leader = self.leading()
        if leader is None:
            return [*found, "no master leads"]
        for agent in self.agents:
            known = leader.roster.agents.get(agent.agent_id)
            if agent.up and not (known is not None and known.connected):
                found.append(f"{agent.name} is up and not with the master")
        found += [f"{mine.name} is up and not with the master" for mine in self._not_yet_back(leader)]
        for entry in leader.roster.agents.values():
            if used := leader.roster.in_use(entry):
                found.append(f"the master counts {used} of {entry.agent_id} as used")
        return found

    def check(self) -> None:
        """Look at everything once: all invariants, all tables of the master. Raises InvariantViolation."""
        if self.world.violation is None:
            for invariant in self.invariants:
                invariant.finish()


def _only_once(framework: Framework, name: str) -> Callable[[], Framework]:
    left = [framework]

    def make() -> Framework:
        if not left:
            raise ConfigError(
                f"{name}: a framework object serves one process; give its class, or a function that makes one, to let "
                "it be started again"
            )
        return left.pop()

    return make


def _attributes(attributes: Mapping[str, str] | None) -> str:
    return ";".join(f"{name}:{value}" for name, value in (attributes or {}).items())


def cluster(
    agents: int = 3,
    seed: int | None = None,
    plan: Plan | None = None,
    resources: str | Resources = "cpus:4;mem:1024",
    *,
    masters: int = 1,
    registry: NodeSettings | None = None,
    attributes: Mapping[str, str] | None = None,
    master: Mapping[str, Any] | None = None,
    agent: Mapping[str, Any] | None = None,
    allocator: Callable[[], Allocator] = DrfAllocator,
    runs: Runs = run_of,
    settings: WorldSettings | None = None,
    invariants: bool = True,
    tolerate_failures: bool = False,
) -> SimCluster:
    """`masters` masters (an odd number) and `agents` agents of `resources`, running at virtual time 0.

    One master is the host `master`, several are `master0`, `master1`, ... `registry`: how their replicas behave.
    `seed`: by default that of the pytest plugin (`--sim-seed`), or 0. `plan`: what goes wrong, by default nothing; when
    the plugin replays a file (`--sim-replay`), that file's seed and faults count instead.
    `master` and `agent`: fields of MasterSettings and AgentSettings.
    `runs`: how commands behave. `invariants`: watch what must always hold (invariants.py). `tolerate_failures`: restart
    an actor that raises, as in production, instead of stopping the run.
    """
    recorded = recording.current
    if recorded is not None:
        seed = recorded.seed if seed is None or recorded.replay is not None else seed
        plan = recorded.plan() or plan
    world = World(plan, seed=seed or 0, settings=settings, tolerate_failures=tolerate_failures)
    sim = SimCluster(world, MasterSettings(**(master or {})), allocator, runs, masters, registry)
    if recorded is not None:
        recorded.sims.append(sim)  # pyright: ignore[reportArgumentType] (see below)
        sim.faults.fixed = recorded.replay is not None
    if masters == 1:
        world.run(ALONE_US)
    sim.agent_settings = agent or {}
    for _ in range(agents):
        sim.add_agent(resources, attributes, agent)
    if invariants:
        # pyright sees this file under two names, here and through the link in mesos_actor/.
        sim.invariants = [kind(sim) for kind in (*STANDARD, *TASKS, *ORDERS, *REGISTRY)]  # pyright: ignore[reportArgumentType]
        world.invariants.append(Watch(sim.invariants))
    return sim
