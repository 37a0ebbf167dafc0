"""Who takes part and what runs where: agents, frameworks, tasks, executors, and whose resources they hold.

Rule 1: what a task or an executor holds is in its agent's `used` from the moment it is entered until it is released,
and a release is counted once. Rule 2: the allocator hears of releases in `flush`, summed over the turn, and of
everything else at once. `consistency.py` checks both.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import TypeVar

from mesos_actor.actors.core.allocation import Allocator
from mesos_actor.actors.core.entries import AgentEntry, ExecutorEntry, FrameworkEntry, TaskEntry
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ExecutorId,
    FrameworkId,
    Node,
    Role,
    TaskId,
    UpdateId,
    node_of,
)
from mesos_actor.actors.messages.registry import AgentRecord, FrameworkRecord
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.resources import Resources, total
from mesos_actor.actors.task import TERMINAL, TRANSITIONS, Reason, TaskState

__all__ = ["AgentEntry", "ExecutorEntry", "FrameworkEntry", "Roster", "TaskEntry"]

MAX_WAITING = 32
"""Unacknowledged updates kept for a task, to tell a framework that comes back at once; the agent repeats the others."""
MAX_KILLS = 10_000
"""Kills remembered for a silent agent's tasks that are not known yet; more are not kept: the framework repeats them."""

Key = tuple[FrameworkId, AgentId, Role]
K = TypeVar("K")
V = TypeVar("V")


class Roster:
    """See the module's text. Every lookup is a dictionary's."""

    def __init__(self, settings: MasterSettings, allocator: Allocator) -> None:
        self.settings = settings
        self.allocator = allocator
        self.agents: dict[AgentId, AgentEntry] = {}
        #: unreachable and gone agents
        self.absent: dict[AgentId, AgentRecord] = {}
        #: agent -> its tasks that are out of reach; their frameworks have them in `unreachable`
        self.out_of_reach: dict[AgentId, dict[TaskEntry, None]] = {}
        self.frameworks: dict[FrameworkId, FrameworkEntry] = {}
        self.removed: dict[FrameworkId, FrameworkRecord] = {}
        #: agents that have not said yet what they run
        self.silent: dict[AgentId, None] = {}
        self.completed: deque[FrameworkEntry] = deque(maxlen=settings.max_completed_frameworks)
        self.weights: dict[Role, int] = {}
        self.agent_at: dict[Address, AgentEntry] = {}
        self.framework_at: dict[Address, FrameworkEntry] = {}
        self.agents_on: dict[Node, dict[AgentEntry, None]] = {}
        self.frameworks_on: dict[Node, dict[FrameworkEntry, None]] = {}
        self.agent_with: dict[str, AgentEntry] = {}
        self._freed: dict[Key, list[Resources]] = {}
        self._number = 0

    def next_number(self) -> int:
        self._number += 1
        return self._number

    # -- agents

    def admit_agent(self, record: AgentRecord) -> AgentEntry:
        """The registry knows it; it has not said yet what it runs. An entry that exists already gets the new info."""
        self.absent.pop(record.agent_id, None)
        entry = self.agents.get(record.agent_id)
        if entry is None:
            entry = AgentEntry(self.next_number(), record)
            self.agents[record.agent_id] = entry
            self.agent_with[record.registration] = entry
            self.silent[record.agent_id] = None
        entry.info = record.info
        return entry

    def connect_agent(self, entry: AgentEntry, where: Address) -> None:
        """It can be reached at `where`, and nobody else can any more."""
        self._unbind_agent(entry)
        former = self.agent_at.get(where)
        if former is not None:
            self._unbind_agent(former)
            former.connected = False
        entry.address, entry.connected = where, True
        self.agent_at[where] = entry
        self.agents_on.setdefault(node_of(where), {})[entry] = None

    def _unbind_agent(self, entry: AgentEntry) -> None:
        if self.agent_at.get(entry.address) is entry:
            del self.agent_at[entry.address]
        _discard(self.agents_on, node_of(entry.address), entry)
        entry.address = Address("")

    def forget_agent(self, entry: AgentEntry, record: AgentRecord | None) -> None:
        """It is unreachable or gone (`record`), or left. Its tasks must have been taken off it."""
        assert not entry.tasks
        self._unbind_agent(entry)
        entry.connected = False
        del self.agents[entry.agent_id]
        self.silent.pop(entry.agent_id, None)
        if self.agent_with.get(entry.registration) is entry:
            del self.agent_with[entry.registration]
        if record is not None:
            self.absent[entry.agent_id] = record
        for key in [key for key in self._freed if key[1] == entry.agent_id]:
            del self._freed[key]
        entry.used = {}
        if entry.registered:
            self.allocator.remove_agent(entry.agent_id)

    def in_use(self, entry: AgentEntry) -> Resources:
        return total(entry.used.values())

    # -- frameworks

    def admit_framework(self, record: FrameworkRecord) -> FrameworkEntry:
        """It takes part, not connected yet, and gets no offers until it is."""
        entry = self.frameworks.get(record.framework_id)
        if entry is None:
            limit = self.settings.max_completed_tasks_per_framework
            entry = FrameworkEntry(self.next_number(), record, limit)
            self.frameworks[record.framework_id] = entry
            self.allocator.add_framework(entry.framework_id, record.info.roles, ())
            self.allocator.set_framework_active(entry.framework_id, False)
        return entry

    def connect_framework(self, entry: FrameworkEntry, where: Address) -> None:
        self.disconnect_framework(entry)
        entry.address, entry.connected, entry.deadline_us = where, True, 0
        self.framework_at[where] = entry
        self.frameworks_on.setdefault(node_of(where), {})[entry] = None

    def disconnect_framework(self, entry: FrameworkEntry) -> None:
        if self.framework_at.get(entry.address) is entry:
            del self.framework_at[entry.address]
        _discard(self.frameworks_on, node_of(entry.address), entry)
        entry.address, entry.connected = Address(""), False

    def forget_framework(self, entry: FrameworkEntry, record: FrameworkRecord) -> None:
        """It is removed. Its tasks and executors must have been taken off their agents."""
        assert not entry.tasks
        self.disconnect_framework(entry)
        for task_id in list(entry.unreachable):
            self.reach(entry, task_id)
        del self.frameworks[entry.framework_id]
        self.removed[entry.framework_id] = record
        self.completed.append(entry)
        self.flush()
        self.allocator.remove_framework(entry.framework_id)

    # -- tasks

    def enter_task(self, framework: FrameworkEntry, agent: AgentEntry, task: TaskEntry) -> None:
        """It is this framework's and this agent's from now on; what it holds is counted by `hold`."""
        framework.tasks[task.task_id] = task
        agent.tasks[task] = None

    def hold(self, agent: AgentEntry, framework: FrameworkId, role: Role, resources: Resources) -> None:
        """Count this as used. The caller marks the tasks and executors it is for as `held`."""
        key = (framework, role)
        before = agent.used.get(key)
        agent.used[key] = resources if before is None else before + resources

    def release(self, agent: AgentId, held: TaskEntry | ExecutorEntry, framework: FrameworkId) -> None:
        """What it held is free, at the next flush. Nothing when it holds nothing."""
        if held.held:
            held.held = False
            resources = held.resources if isinstance(held, TaskEntry) else held.info.resources
            if resources:
                self._freed.setdefault((framework, agent, held.role), []).append(resources)

    def flush(self) -> None:
        """Tell the allocator what was released since the last time."""
        if not self._freed:
            return
        freed, self._freed = self._freed, {}
        for (framework, agent, role), bundles in freed.items():
            resources = bundles[0] if len(bundles) == 1 else total(bundles)
            entry = self.agents.get(agent)
            if entry is not None:
                rest = entry.used[framework, role] - resources
                if rest:
                    entry.used[framework, role] = rest
                else:
                    del entry.used[framework, role]
                self.allocator.recover(framework, agent, role, resources)

    def unflushed(self) -> Iterable[tuple[Key, list[Resources]]]:
        return self._freed.items()

    def change(self, task: TaskEntry, state: TaskState, now_us: int, reason: str, message: str) -> bool:
        """Move a task to a state that may follow its own. True when it has just come to an end or out of reach: then
        its resources are free."""
        task.state = state
        task.note(now_us, state, reason, message)
        if task.held and (state in TERMINAL or state is TaskState.UNREACHABLE):
            self.release(task.agent_id, task, task.framework_id)
            return True
        return False

    def observe(self, task: TaskEntry, status: Status, latest: TaskState, now_us: int) -> tuple[bool, bool]:
        """Take note of an update by the task's agent, whose newest state is `latest`. The first terminal state stays.

        Returns (whether that freed resources, whether no update is missing before this one).
        """
        is_next = self._keep_waiting(task, status, now_us)
        if task.executor_id and latest is not TaskState.DROPPED:
            self._saw_executor(task)
        if status.container_id:
            task.container_id = status.container_id
        if latest is task.state or latest not in TRANSITIONS[task.state]:
            return False, is_next
        task.state = latest
        if latest not in TERMINAL or not task.held:
            return False, is_next
        self.release(task.agent_id, task, task.framework_id)
        if task.executor_id and latest is TaskState.DROPPED:
            self._settle_executor(task)
        return True, is_next

    def _keep_waiting(self, task: TaskEntry, status: Status, now_us: int) -> bool:
        """Remember an update until it is acknowledged. False when the one before it was lost: both come again."""
        waiting, update_id, after = task.waiting, status.update_id, status.after_update_id
        if task.acknowledged and self.is_acknowledged(task, update_id):
            return False
        is_next = not after or after == task.acknowledged
        for known in waiting:
            if known.update_id == update_id:
                return True
            is_next = is_next or known.update_id == after
        task.note(now_us, status.state, status.reason, status.message)
        if update_id and is_next and len(waiting) < MAX_WAITING:
            waiting.append(status)
        return is_next

    def _saw_executor(self, task: TaskEntry) -> None:
        executor = self.agents[task.agent_id].executors.get(task.framework_id, {}).get(task.executor_id)
        if executor is not None:
            executor.seen = True

    def _settle_executor(self, task: TaskEntry) -> None:
        """A task was dropped before it ran: an executor that was to be started for it alone never was."""
        agent = self.agents[task.agent_id]
        executor = agent.executors.get(task.framework_id, {}).get(task.executor_id)
        if executor is not None and not executor.seen:
            mine = [t for t in agent.tasks if t.executor_id == task.executor_id and t.framework_id == task.framework_id]
            if all(t.state is TaskState.DROPPED for t in mine):
                self.forget_executor(agent, task.framework_id, task.executor_id)

    def is_acknowledged(self, task: TaskEntry, update_id: UpdateId) -> bool:
        """Whether the framework has this update: it, or a later one of the same launch, was acknowledged. The agent did
        not hear of that, and repeats it."""
        run, _, number = update_id.rpartition(":")
        known_run, _, known_number = task.acknowledged.rpartition(":")
        return run == known_run and number.isdecimal() and known_number.isdecimal() and int(number) <= int(known_number)

    def acknowledge(self, task: TaskEntry, update_id: UpdateId) -> None:
        """The framework has this update and all before it. With its end acknowledged a task is forgotten."""
        waiting = task.waiting
        for at, status in enumerate(waiting):
            if status.update_id == update_id:
                del waiting[: at + 1]
                task.acknowledged = update_id
                if status.state in TERMINAL:
                    self.forget_task(task)
                return

    def forget_task(self, task: TaskEntry) -> None:
        """Nobody needs it any more: its end was acknowledged, or its agent or framework went. It stays in a ring."""
        framework = self.frameworks.get(task.framework_id)
        agent = self.agents.get(task.agent_id)
        if agent is not None:
            agent.tasks.pop(task, None)
            if agent.kills:
                agent.kills.pop((task.framework_id, task.task_id), None)
        task.waiting = []
        if framework is None:
            return
        if framework.tasks.get(task.task_id) is task:
            del framework.tasks[task.task_id]
        if task.state is TaskState.UNREACHABLE:
            framework.unreachable[task.task_id] = task
            self.out_of_reach.setdefault(task.agent_id, {})[task] = None
            if len(framework.unreachable) > self.settings.max_completed_tasks_per_framework:
                self.reach(framework, next(iter(framework.unreachable)))
        else:
            framework.completed.append(task)

    def reach(self, framework: FrameworkEntry, task_id: TaskId) -> TaskEntry | None:
        """It is not out of reach any more: it is back, or gone for good. Returns its entry, if it was."""
        task = framework.unreachable.pop(task_id, None)
        if task is not None:
            _discard(self.out_of_reach, task.agent_id, task)
        return task

    def end_out_of_reach(
        self, agent_id: AgentId, state: TaskState, now_us: int, reason: Reason, message: str
    ) -> list[TaskEntry]:
        """What was out of reach with this agent has come to this end; returns it."""
        tasks = list(self.out_of_reach.get(agent_id, ()))
        for task in tasks:
            framework = self.frameworks[task.framework_id]
            self.reach(framework, task.task_id)
            self.change(task, state, now_us, reason, message)
            framework.completed.append(task)
        return tasks

    # -- executors

    def enter_executor(self, agent: AgentEntry, framework: FrameworkId, executor: ExecutorEntry) -> None:
        agent.executors.setdefault(framework, {})[executor.info.executor_id] = executor

    def is_wanted(self, agent: AgentEntry, framework: FrameworkId, executor: ExecutorId) -> bool:
        """Whether an executor that ended is started again: its agent ended all its tasks before it said so, and tasks
        that are left were launched meanwhile."""
        return any(
            task.executor_id == executor and task.framework_id == framework and task.state not in TERMINAL
            for task in agent.tasks
        )

    def forget_executor(self, agent: AgentEntry, framework: FrameworkId, executor: ExecutorId) -> ExecutorEntry | None:
        """It has ended; what it held is free."""
        mine = agent.executors.get(framework)
        entry = None if mine is None else mine.pop(executor, None)
        if mine is not None and not mine:
            del agent.executors[framework]
        if entry is not None:
            self.release(agent.agent_id, entry, framework)
        return entry


def _discard(index: dict[K, dict[V, None]], key: K, value: V) -> None:
    mine = index.get(key)
    if mine is not None:
        mine.pop(value, None)
        if not mine:
            del index[key]
