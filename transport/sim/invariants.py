"""What must hold in a simulated cluster after every event, whatever goes wrong.

Each invariant looks only at what the event touched, and at everything when `finish` is called. A test proves of each
that it fires (tests/sim/test_invariants.py): an invariant that nobody has seen fail is a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, ClassVar, NoReturn

from mesos_actor.actors.core.roster import AgentEntry
from mesos_actor.actors.core.workload import Run as AgentRun
from mesos_actor.actors.errors import InternalError
from mesos_actor.actors.ids import FrameworkId, TaskId
from mesos_actor.actors.master import Master
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, RegisterAgent
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import ContainersRecovered, LaunchContainer
from mesos_actor.actors.messages.records import StreamRecord
from mesos_actor.actors.messages.scheduler import Accept, Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.resources import Resources, total
from mesos_actor.actors.task import TERMINAL, TaskState
from mesos_actor.transport.sim.world import Event, InvariantViolation, World

if TYPE_CHECKING:
    from mesos_actor.transport.sim.agents import SimAgent
    from mesos_actor.transport.sim.cluster import SimCluster
    from mesos_actor.transport.sim.frameworks import SimFramework

LOOK_AT_ALL_EVERY = 50
"""Timers of the master between two looks at all of its tables."""
MANY = 1_000

AGENT = "/agent"
"""Who gives a containerizer orders: the agent beside it. Others are not obeyed."""

TaskKey = tuple[FrameworkId, TaskId]


class ClusterInvariant:
    """One property of a SimCluster. Subclasses look at each event and, at the end or when asked, at everything."""

    name: ClassVar[str] = ""
    looks_at: ClassVar[tuple[type[Message] | str, ...]] = ()
    """The classes of messages, and the kinds of other events (`timer`, `start`), that `look` is called with."""

    def __init__(self, sim: SimCluster) -> None:
        self.sim = sim

    def look(self, event: Event) -> None:
        """Judge what this event touched."""

    def finish(self) -> None:
        """Judge everything."""

    def fail(self, text: str) -> NoReturn:
        raise InvariantViolation(f"{self.name}: {text}")

    def agent_on(self, host: str) -> SimAgent | None:
        return next((agent for agent in self.sim.agents if agent.name == host), None)


class Watch:
    """Shows each event of a world to the invariants that look at its like."""

    def __init__(self, invariants: Iterable[ClusterInvariant]) -> None:
        self._lookers: dict[type[Message] | str, list[ClusterInvariant]] = {}
        for invariant in invariants:
            for like in invariant.looks_at:
                self._lookers.setdefault(like, []).append(invariant)

    def __call__(self, world: World, event: Event) -> None:
        like = event.kind if event.message is None else type(event.message)
        for invariant in self._lookers.get(like, ()):
            invariant.look(event)


class NothingPromisedTwice(ClusterInvariant):
    """Used and offered together are no more than an agent has; nor is what really runs on a machine."""

    name = "nothing-promised-twice"
    looks_at = ("timer", Accept, RegisterAgent, Update, LaunchContainer)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._offers_seen = -1
        self._master: Master | None = None

    def look(self, event: Event) -> None:
        if self.sim.is_master(event.host):
            master = self.sim.leading()
            if master is not None:
                for agent in self._touched(master, event):
                    self._judge(master, agent)
        elif isinstance(event.message, LaunchContainer) and event.sender == AGENT:
            machine = self.agent_on(event.host)
            if machine is not None and machine.up:
                self._judge_machine(machine)

    def finish(self) -> None:
        master = self.sim.leading()
        if master is not None:
            for agent in master.roster.agents.values():
                self._judge(master, agent)
        for machine in self.sim.agents:
            if machine.up:
                self._judge_machine(machine)

    def _touched(self, master: Master, event: Event) -> Iterator[AgentEntry]:
        """The agents whose accounts this event may have changed."""
        roster = master.roster
        if master is not self._master:
            self._master, self._offers_seen = master, -1
        for outstanding in master.offers.after(self._offers_seen, MANY):
            self._offers_seen = int(outstanding.offer.offer_id.rpartition("-O")[2])
            yield roster.agents[outstanding.offer.agent_id]
        message = event.message
        if isinstance(message, Accept):
            framework = roster.frameworks.get(message.framework_id)
            for task in [task for launch in message.operations for task in launch.tasks]:
                entry = framework.tasks.get(task.task_id) if framework is not None else None
                if entry is not None:
                    yield roster.agents[entry.agent_id]
        elif isinstance(message, RegisterAgent | Update):
            agent = roster.agent_at.get(event.sender)  # type: ignore[call-overload]
            if agent is not None:
                yield agent

    def _judge(self, master: Master, agent: AgentEntry) -> None:
        offered = [master.offers.get(offer_id) for offer_id in master.offers.of_agent(agent.agent_id)]
        promised = total(one.offer.resources for one in offered if one is not None)
        used = master.roster.in_use(agent)
        if not agent.info.resources.contains(used + promised):
            has = agent.info.resources
            self.fail(f"agent {agent.agent_id} has {has}; used are {used}, and offered {promised}")

    def _judge_machine(self, machine: SimAgent) -> None:
        """Frameworks that were removed do not count: what they ran is free for others while it is being ended."""
        master = self.sim.leading()
        if master is None:
            return
        alive = set(machine.running())
        workload = machine.actor.workload
        held: list[Resources] = []
        for framework in workload.frameworks.values():
            if framework.leaving or framework.framework_id not in master.roster.frameworks:
                continue
            held += [e.info.resources for e in framework.executors.values() if e.container_id in alive]
            held += [run.task.resources for run in framework.runs.values() if _runs(run, alive)]
        if not machine.settings.resources.contains(total(held)):
            self.fail(f"{machine.name} has {machine.settings.resources}, and runs {total(held)}")


def _runs(run: AgentRun, alive: set[str]) -> bool:
    return run.container_id in alive and not run.stream.terminal


class NoStepBack(ClusterInvariant):
    """What one process of a framework is told about one launch of a task goes forward: no update twice, none older
    than one before, and after the end nothing that is alive."""

    name = "no-step-back"
    looks_at = (Update,)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        #: framework's host -> how many of its statuses were judged
        self._judged: dict[str, int] = {}
        #: (framework's host, its incarnation, container, task) -> number of the newest update
        self._newest: dict[tuple[str, int, str, str], int] = {}
        self._over: dict[tuple[str, int, str, str], TaskState] = {}

    def look(self, event: Event) -> None:
        for framework in self.sim.frameworks:
            if framework.name == event.host:
                self._judge(framework)

    def finish(self) -> None:
        for framework in self.sim.frameworks:
            self._judge(framework)

    def _judge(self, framework: SimFramework) -> None:
        statuses = framework.statuses
        for status in statuses[self._judged.get(framework.name, 0) :]:
            key = (framework.name, framework.host.incarnation, status.container_id, status.task_id)
            ended = self._over.get(key)
            if ended is not None and status.container_id and status.state not in TERMINAL:
                self.fail(f"{framework.name} was told that {status.task_id} is {status.state} after it was {ended}")
            if status.state in TERMINAL:
                self._over[key] = status.state
            self._judge_number(framework, status, key)
        self._judged[framework.name] = len(statuses)

    def _judge_number(self, framework: SimFramework, status: Status, key: tuple[str, int, str, str]) -> None:
        number = status.update_id.rpartition(":")[2]
        if not number.isdigit():
            return
        if int(number) <= self._newest.get(key, -1):
            self.fail(f"{framework.name} was told {status.update_id} ({status.state}) again, or too late")
        self._newest[key] = int(number)


class NothingKeptIsForgotten(ClusterInvariant):
    """After any crash an agent still has every task that it ever spoke of and whose end was not acknowledged, and does
    not bring up again what was acknowledged and noted."""

    name = "nothing-kept-is-forgotten"
    looks_at = ("start", Update, AcknowledgeUpdate, ContainersRecovered)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        #: agent -> launches it has spoken of, by the id of the run
        self._told: dict[str, dict[str, TaskKey]] = {}
        #: agent -> runs whose end was acknowledged
        self._closed: dict[str, set[str]] = {}
        #: agent -> updates that were acknowledged
        self._acknowledged: dict[str, set[str]] = {}
        #: agent -> those of them that its disk no longer calls unacknowledged
        self._noted: dict[str, set[str]] = {}

    def look(self, event: Event) -> None:
        message = event.message
        agent = self.agent_on(event.host)
        if isinstance(message, Update) and self.sim.is_master(event.host):
            self._heard(event, message)
        elif agent is None:
            return
        elif isinstance(message, AcknowledgeUpdate):
            self._acknowledge(agent, message)
        elif event.kind == "start":
            self._restarted(agent)
        elif isinstance(message, ContainersRecovered) and agent.up:
            self._recovered(agent)

    def finish(self) -> None:
        for agent in self.sim.agents:
            if agent.up and not agent.actor.recovery.running:
                self._judge_pending(agent)

    def _heard(self, event: Event, message: Update) -> None:
        sender = next((a for a in self.sim.agents if event.sender.startswith(f"{a.host.node}/")), None)
        run, _, number = message.status.update_id.rpartition(":")
        if sender is not None and number and run not in self._closed.get(sender.name, ()):
            self._told.setdefault(sender.name, {})[run] = (message.framework_id, message.status.task_id)

    def _acknowledge(self, agent: SimAgent, message: AcknowledgeUpdate) -> None:
        key = (message.framework_id, message.task_id)
        stream = agent.actor.streams.streams.get(key)
        if stream is None or all(status.update_id != message.update_id for status in stream.pending):
            self._acknowledged.setdefault(agent.name, set()).add(message.update_id)
        if stream is None:
            run = message.update_id.rpartition(":")[0]
            self._told.get(agent.name, {}).pop(run, None)
            self._closed.setdefault(agent.name, set()).add(run)

    def _restarted(self, agent: SimAgent) -> None:
        records = agent.host.disk.load("agent").values()
        waiting = {s.update_id for r in records if isinstance(r, StreamRecord) for s in r.pending}
        acknowledged = self._acknowledged.setdefault(agent.name, set())
        self._noted.setdefault(agent.name, set()).update(acknowledged - waiting)
        acknowledged &= waiting

    def _recovered(self, agent: SimAgent) -> None:
        self._judge_pending(agent)
        for run, (framework_id, task_id) in list(self._told.get(agent.name, {}).items()):
            if (framework_id, task_id) in agent.actor.streams.streams:
                continue
            if self._nobody_asks(agent, framework_id):
                del self._told[agent.name][run]
            else:
                self.fail(f"{agent.name} told of {task_id} ({run}), was restarted, and does not know it any more")

    def _nobody_asks(self, agent: SimAgent, framework_id: FrameworkId) -> bool:
        """Its tasks are to be ended and forgotten, and if it dies meanwhile nobody minds what it has forgotten already:
        the framework was removed, or an operator has marked the agent gone, and everybody was told so."""
        master = self.sim.leading()
        if master is None or framework_id not in master.roster.frameworks:
            return True
        record = master.roster.absent.get(agent.actor.registration.agent_id)
        return record is not None and record.state == "gone"

    def _judge_pending(self, agent: SimAgent) -> None:
        noted = self._noted.get(agent.name, set())
        for stream in agent.actor.streams.streams.values():
            for status in stream.pending:
                if status.update_id in noted and not self._nobody_asks(agent, stream.framework_id):
                    self.fail(f"{agent.name} brings up {status.update_id} again, which was acknowledged before")


class TablesAgree(ClusterInvariant):
    """The master's tables do not contradict each other, nor does the allocator contradict itself."""

    name = "tables-agree"
    looks_at = ("timer",)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._timers = 0

    def look(self, event: Event) -> None:
        if self.sim.is_master(event.host):
            self._timers += 1
            if self._timers % LOOK_AT_ALL_EVERY == 0:
                self.finish()

    def finish(self) -> None:
        master = self.sim.leading()
        if master is None:
            return
        try:
            master.check()
        except (InternalError, AssertionError) as error:
            raise InvariantViolation(f"{self.name}: {error}") from error


STANDARD: tuple[type[ClusterInvariant], ...] = (
    NothingPromisedTwice,
    NoStepBack,
    NothingKeptIsForgotten,
    TablesAgree,
)
"""What `cluster` watches."""
