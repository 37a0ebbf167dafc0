"""An agent says what it runs: how that and what the master believes become one.

Source: Mesos src/master/master.cpp `_reregisterSlave`, `reconcileKnownSlave`; mesos-semantics 2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.core.entries import AgentEntry, ExecutorEntry, FrameworkEntry, TaskEntry
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.ids import ExecutorId, FrameworkId, Role, TaskId
from mesos_actor.actors.messages.values import ExecutorReport, TaskReport
from mesos_actor.actors.resources import Resources, total
from mesos_actor.actors.task import TERMINAL, Reason, TaskState, may_follow


class Rejoined:
    """What is left to do once the two views are one."""

    def __init__(self) -> None:
        #: tasks that the master has, or had when the agent went out of reach, and the agent did not name
        self.missing: list[tuple[FrameworkId, TaskId]] = []
        #: frameworks that the agent serves and that are no more
        self.orphans: dict[FrameworkId, None] = {}
        #: tasks whose id runs on another agent by now: to be killed here
        self.doubles: list[tuple[FrameworkId, TaskId]] = []
        #: tasks the master did not have
        self.returned: list[TaskEntry] = []
        #: executors that the master had and the agent did not name
        self.lost: list[tuple[FrameworkId, ExecutorId]] = []
        #: what turned out to be in use: (framework, role) -> resources
        self.added: dict[tuple[FrameworkId, Role], Resources] = {}


def rejoin(
    roster: Roster, agent: AgentEntry, tasks: Sequence[TaskReport], executors: Sequence[ExecutorReport], now_us: int
) -> Rejoined:
    """Make the roster agree with the agent, which knows better what runs. The allocator is told by the caller."""
    result = Rejoined()
    held: dict[tuple[FrameworkId, Role], list[Resources]] = {}
    for report in tasks:
        framework = roster.frameworks.get(report.framework_id)
        if framework is None:
            result.orphans[report.framework_id] = None
        else:
            _take_task(roster, agent, framework, report, now_us, result, held)
    for executor in executors:
        if executor.framework_id not in roster.frameworks:
            result.orphans[executor.framework_id] = None
        else:
            _take_executor(roster, agent, executor, held)
    _find_missing(roster, agent, tasks, executors, result)
    _find_gone(roster, agent, result, now_us)
    for (framework_id, role), bundles in held.items():
        resources = total(bundles)
        if resources:
            result.added[framework_id, role] = resources
            roster.hold(agent, framework_id, role, resources)
    return result


def _take_task(
    roster: Roster,
    agent: AgentEntry,
    framework: FrameworkEntry,
    report: TaskReport,
    now_us: int,
    result: Rejoined,
    held: dict[tuple[FrameworkId, Role], list[Resources]],
) -> None:
    task = framework.tasks.get(report.task_id)
    if task is not None and task.agent_id != agent.agent_id:
        result.doubles.append((framework.framework_id, report.task_id))
        return
    if task is not None:
        if report.state is not task.state and may_follow(task.state, report.state):
            roster.change(task, report.state, now_us, "", "")
    else:
        task = TaskEntry(
            roster.next_number(),
            framework.framework_id,
            report.task_id,
            agent.agent_id,
            report.role,
            report.resources,
            report.executor_id,
            report.name,
            report.labels,
            now_us,
            report.state,
        )
        former = roster.reach(framework, report.task_id)
        if former is not None:
            task.history = [*former.history[-1:], *task.history]
        roster.enter_task(framework, agent, task)
        result.returned.append(task)
        if report.state not in TERMINAL:
            task.held = True
            held.setdefault((framework.framework_id, report.role), []).append(report.resources)
    task.container_id = report.container_id or task.container_id


def _take_executor(
    roster: Roster, agent: AgentEntry, report: ExecutorReport, held: dict[tuple[FrameworkId, Role], list[Resources]]
) -> None:
    known = agent.executors.get(report.framework_id, {}).get(report.executor.executor_id)
    if known is not None:
        known.container_id, known.seen = report.container_id, True
        return
    entry = ExecutorEntry(report.executor, report.role, report.container_id)
    entry.held = entry.seen = True
    roster.enter_executor(agent, report.framework_id, entry)
    held.setdefault((report.framework_id, report.role), []).append(report.executor.resources)


def _find_missing(
    roster: Roster,
    agent: AgentEntry,
    tasks: Sequence[TaskReport],
    executors: Sequence[ExecutorReport],
    result: Rejoined,
) -> None:
    named = {(report.framework_id, report.task_id) for report in tasks}
    expected: set[tuple[FrameworkId, ExecutorId]] = {(r.framework_id, r.executor.executor_id) for r in executors}
    for task in list(agent.tasks):
        if (task.framework_id, task.task_id) in named:
            continue
        if task.state in TERMINAL:
            roster.forget_task(task)  # its end was acknowledged to the agent, which has forgotten it
        else:
            result.missing.append((task.framework_id, task.task_id))
            expected.add((task.framework_id, task.executor_id))  # launched with it, perhaps still on its way
    for framework_id, mine in agent.executors.items():
        result.lost += [(framework_id, executor) for executor in mine if (framework_id, executor) not in expected]
    for framework_id, executor in result.lost:
        roster.forget_executor(agent, framework_id, executor)


def _find_gone(roster: Roster, agent: AgentEntry, result: Rejoined, now_us: int) -> None:
    """What was out of reach with this agent, and did not come back with it: the agent says that reliably."""
    text = "The agent came back without it"
    for task in roster.end_out_of_reach(agent.agent_id, TaskState.DROPPED, now_us, Reason.RECONCILIATION, text):
        if task.task_id not in roster.frameworks[task.framework_id].tasks:  # else its id is in use elsewhere by now
            result.missing.append((task.framework_id, task.task_id))
