"""What must hold besides: whom agents obey, what ends with a container, and who is not left waiting."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.ids import FrameworkId, TaskId
from mesos_actor.actors.messages.agents import Registered, RunTasks
from mesos_actor.actors.messages.containers import ContainerExited, LaunchContainer
from mesos_actor.actors.messages.executors import LaunchTasks
from mesos_actor.actors.messages.scheduler import Offers
from mesos_actor.transport.sim.invariants import AGENT, ClusterInvariant, TaskKey
from mesos_actor.transport.sim.world import Event

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster

LOOK_EVERY_US = 5_000_000
"""Between two looks at who waits."""
WAITING_BOUND_US = 60_000_000
"""So long nothing that is open to a framework may be kept from it."""
OPEN = "share"
"""What the allocator says of an agent that is open to a framework."""


class OnlyTheLeaderIsObeyed(ClusterInvariant):
    """Fencing: an agent that has heard of a term launches nothing that a leader of an older term has ordered."""

    name = "only-the-leader-is-obeyed"
    looks_at = ("start", Registered, RunTasks, LaunchContainer, LaunchTasks)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        #: agent -> the newest term that its present process has heard of
        self._terms: dict[str, int] = {}
        #: agent -> tasks that only an older leader has ordered -> the term of that
        self._stale: dict[str, dict[TaskKey, int]] = {}

    def look(self, event: Event) -> None:
        message, host = event.message, event.host
        if isinstance(message, LaunchContainer):
            if event.sender == AGENT and not message.executor:
                self._judge(host, (message.framework_id, TaskId(message.env["MESOS_TASK_ID"])))
        elif isinstance(message, LaunchTasks):
            for task in message.tasks:
                self._judge(host.partition("-")[0], (self._framework_of(host), task.task_id))
        elif self.agent_on(host) is None:
            return
        elif event.kind == "start":
            self._terms.pop(host, None)
        elif isinstance(message, RunTasks):
            self._ordered(host, message)
        elif isinstance(message, Registered):
            agent = self.agent_on(host)
            if agent is not None and agent.up and agent.actor.registration.master == event.sender:
                self._terms[host] = max(self._terms.get(host, 0), message.term)

    def _ordered(self, host: str, message: RunTasks) -> None:
        newest, stale = self._terms.get(host, 0), self._stale.setdefault(host, {})
        for task in message.tasks:
            key = (message.framework_id, task.task_id)
            if message.term < newest:
                stale[key] = message.term
            else:
                stale.pop(key, None)

    def _framework_of(self, executor_host: str) -> FrameworkId:
        for container_id, host in self.sim.executor_hosts.items():
            if host.name == executor_host:
                return next(
                    (
                        container.launch.framework_id
                        for agent in self.sim.agents
                        for name, container in agent.survivors.containers.items()
                        if name == container_id
                    ),
                    FrameworkId(""),
                )
        return FrameworkId("")

    def _judge(self, agent: str, key: TaskKey) -> None:
        term = self._stale.get(agent, {}).get(key)
        if term is not None:
            known = self._terms[agent]
            self.fail(f"{agent} begins {key[1]}, which a leader of term {term} ordered; it knows of term {known}")


class NothingOutlivesItsContainer(ClusterInvariant):
    """When a container has ended, so have the process in it and the tasks that ran there."""

    name = "nothing-outlives-its-container"
    looks_at = (ContainerExited,)

    def look(self, event: Event) -> None:
        message, agent = event.message, self.agent_on(event.host)
        if agent is None or not isinstance(message, ContainerExited) or event.sender != "/containerizer":
            return
        host = self.sim.executor_hosts.get(message.container_id)
        if host is not None and host.up:
            self.fail(f"the process in container {message.container_id} of {agent.name} runs on after its end")
        if not agent.up or agent.actor.recovery.running:
            return
        for run in agent.actor.workload.runs():
            if run.container_id == message.container_id and not run.stream.terminal:
                self.fail(f"task {run.task.task_id} on {agent.name} goes on after the end of {message.container_id}")


class NobodyIsLeftWaiting(ClusterInvariant):
    """A connected framework that is not suppressed, and has not declined what is there, is offered something within a
    bound while there is something that it could use."""

    name = "nobody-is-left-waiting"
    looks_at = ("timer", Offers)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._next_us = 0
        #: framework -> since when something is open to it that it is not offered
        self._since_us: dict[FrameworkId, int] = {}
        self._heard: set[str] = set()

    def look(self, event: Event) -> None:
        if isinstance(event.message, Offers):
            self._heard.add(event.host)
        elif self.sim.is_master(event.host) and event.time_us >= self._next_us:
            self._next_us = event.time_us + LOOK_EVERY_US
            self._look(event.time_us)

    def _look(self, now_us: int) -> None:
        master = self.sim.leading()
        waiting: dict[FrameworkId, int] = {}
        for framework in self.sim.frameworks if master is not None else ():
            framework_id = framework.framework_id
            if framework_id and framework.name not in self._heard and self._is_open(framework_id, now_us):
                waiting[framework_id] = self._since_us.get(framework_id, now_us)
        self._heard.clear()
        self._since_us = waiting
        for framework_id, since_us in waiting.items():
            if now_us - since_us > WAITING_BOUND_US:
                self.fail(f"{framework_id} has waited for {(now_us - since_us) / 1e6:g} s for what is open to it")

    def _is_open(self, framework_id: FrameworkId, now_us: int) -> bool:
        master = self.sim.leading()
        entry = None if master is None else master.roster.frameworks.get(framework_id)
        if master is None or entry is None or not entry.connected:
            return False
        return any(refusal.reason == OPEN for refusal in master.allocator.explain(framework_id, now_us))


class NoInstanceTwice(ClusterInvariant):
    """A batch launches no second attempt at an instance while it takes the first one for running."""

    name = "no-instance-twice"
    looks_at = (Offers,)

    def look(self, event: Event) -> None:
        mine = next((one for one in self.sim.frameworks if one.name == event.host), None)
        if mine is None or not mine.up or not isinstance(mine.framework, Batch):
            return
        running = mine.framework.state.running
        if len(running) > len(set(running.values())):
            name, index = next(one for one, count in Counter(running.values()).items() if count > 1)
            tasks = sorted(task_id for task_id, one in running.items() if one == (name, index))
            self.fail(f"{mine.name} has {' and '.join(tasks)} running, both {name}[{index}]")


ORDERS: tuple[type[ClusterInvariant], ...] = (
    OnlyTheLeaderIsObeyed,
    NothingOutlivesItsContainer,
    NobodyIsLeftWaiting,
    NoInstanceTwice,
)
"""What `cluster` watches besides."""
