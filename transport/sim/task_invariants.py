"""What must hold of every task: it is not lost, and not run twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesos_actor.actors.core.entries import TaskEntry
from mesos_actor.actors.ids import Address, AgentId, ContainerId, FrameworkId, TaskId, Term
from mesos_actor.actors.master import Master
from mesos_actor.actors.messages.agents import RegisterAgent
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.executors import LaunchTasks
from mesos_actor.actors.messages.scheduler import Accept, Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import TERMINAL, TaskState
from mesos_actor.transport.sim.invariants import AGENT, ClusterInvariant, TaskKey
from mesos_actor.transport.sim.world import Event

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster


class NoTaskLost(ClusterInvariant):
    """A task that the master has accepted is somewhere until its framework was told how it ended: with the master, on
    an agent, on its way, or at least among what its framework will ask about. And as long as the same master leads and
    has its agent, it is with one of these two until the master has sent word of the end."""

    name = "no-task-lost"
    looks_at = (Accept, Update, RegisterAgent)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._accepted: dict[TaskKey, None] = {}
        #: agent -> those on it whose end the leader that accepted them has told nobody so far -> that leader, its term
        self._taken: dict[AgentId, dict[TaskKey, tuple[Master, Term]]] = {}
        self._agent_of: dict[TaskKey, AgentId] = {}
        sim.world.listen(Update, self._told)

    def look(self, event: Event) -> None:
        message = event.message
        if isinstance(message, Accept) and self.sim.is_master(event.host):
            master = self.sim.leading()
            framework = master.roster.frameworks.get(message.framework_id) if master is not None else None
            for task in [task for launch in message.operations for task in launch.tasks]:
                entry = framework.tasks.get(task.task_id) if framework is not None else None
                if master is not None and entry is not None:
                    self._accepted[message.framework_id, task.task_id] = None
                    self._take(master, entry)
        elif isinstance(message, RegisterAgent):
            master = self.sim.leading()
            agent = master.roster.agent_at.get(Address(event.sender)) if master is not None else None
            if agent is not None:
                self._judge_taken(agent.agent_id)
        elif isinstance(message, Update) and not self.sim.is_master(event.host) and _is_over(message.status):
            self._accepted.pop((message.framework_id, message.status.task_id), None)

    def _take(self, master: Master, entry: TaskEntry) -> None:
        if entry.state in TERMINAL:
            return  # its id is in use: this launch was refused, and how the former one ended is told
        key = (entry.framework_id, entry.task_id)
        self._drop(key)
        self._taken.setdefault(entry.agent_id, {})[key] = (master, master.term)
        self._agent_of[key] = entry.agent_id

    def _told(self, host: str, message: Message) -> None:
        """Word of a task leaves a host."""
        if isinstance(message, Update) and self.sim.is_master(host) and _is_over(message.status):
            self._drop((message.framework_id, message.status.task_id))

    def _drop(self, key: TaskKey) -> None:
        agent_id = self._agent_of.pop(key, None)
        if agent_id is not None:
            del self._taken[agent_id][key]

    def _judge_taken(self, agent_id: AgentId) -> None:
        """Whether the leader, or the agent, knows what the leader has taken for it."""
        master = self.sim.leading()
        for key, (leader, term) in list(self._taken.get(agent_id, {}).items()):
            framework = leader.roster.frameworks.get(key[0])
            goes_on = leader is master and leader.term == term and agent_id in leader.roster.agents
            if not goes_on or framework is None or not framework.connected:  # one that is away will ask when it is back
                self._drop(key)
            elif not (key[1] in framework.tasks or key[1] in framework.unreachable or self._may_tell(agent_id, key)):
                self.fail(f"the master has forgotten task {key[1]} of {key[0]}, and told nobody how it ended")

    def _may_tell(self, agent_id: AgentId, key: TaskKey) -> bool:
        """Whether the agent still tells of a task, or may when it is up again: one that is down has no name."""
        agent = next((agent for agent in self.sim.agents if agent.agent_id == agent_id), None)
        return agent is None or key in agent.actor.streams.streams

    def finish(self) -> None:
        for agent_id in list(self._taken):
            self._judge_taken(agent_id)
        mine = {one.framework.framework_id: one for one in self.sim.frameworks if one.host.incarnation}
        for framework_id, task_id in self._accepted:
            framework = mine.get(framework_id)
            if framework is None or framework.ended or not framework.up or framework.host.incarnation > 1:
                continue  # whoever forgot may have been its author
            if task_id not in framework.driver.tasks and not self._is_somewhere(framework_id, task_id):
                self.fail(f"task {task_id} of {framework.name} was launched, did not end, and nobody knows it")

    def _is_somewhere(self, framework_id: FrameworkId, task_id: TaskId) -> bool:
        master = self.sim.leading()
        if master is None:
            return True  # nobody can say before there is one
        known = master.roster.frameworks.get(framework_id)
        if known is None or task_id in known.tasks or task_id in known.unreachable:
            return True
        for agent in self.sim.agents:
            if not agent.up or (framework_id, task_id) in agent.actor.streams.streams:
                return True
        name = task_id.encode()
        heap = self.sim.world.schedule.heap
        return any(isinstance(part, bytes) and name in part for entry in heap for part in entry[3])


def _is_over(status: Status) -> bool:
    return status.state in TERMINAL or status.state is TaskState.UNKNOWN


class NoTaskRunTwice(ClusterInvariant):
    """A task is begun at most as often as its framework's accepts of it reached the master."""

    name = "no-task-run-twice"
    looks_at = (Accept, LaunchContainer, LaunchTasks)

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        self._accepts: dict[TaskKey, int] = {}
        self._containers: dict[TaskKey, set[ContainerId]] = {}
        self._seen = 0

    def look(self, event: Event) -> None:
        message = event.message
        if isinstance(message, Accept) and self.sim.is_master(event.host):
            for task in [task for launch in message.operations for task in launch.tasks]:
                key = (message.framework_id, task.task_id)
                self._accepts[key] = self._accepts.get(key, 0) + 1
        elif isinstance(message, LaunchContainer):
            if message.executor or event.sender != AGENT:
                return
            key = (message.framework_id, TaskId(message.env["MESOS_TASK_ID"]))
            begun = self._containers.setdefault(key, set())
            begun.add(message.container_id)
            self._judge(key, len(begun))
        elif isinstance(message, LaunchTasks):
            self._judge_executors()

    def _judge_executors(self) -> None:
        for key in self.sim.launched[self._seen :]:
            self._judge(key, self.sim.launched.count(key))
        self._seen = len(self.sim.launched)

    def _judge(self, key: TaskKey, times: int) -> None:
        accepts = self._accepts.get(key, 0)
        if times > accepts:
            self.fail(f"task {key[1]} of {key[0]} was begun {times} times, and accepted {accepts} times")


TASKS: tuple[type[ClusterInvariant], ...] = (NoTaskLost, NoTaskRunTwice)
"""What `cluster` watches of tasks."""
