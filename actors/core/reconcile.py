"""What a framework is told about its tasks when it asks, and in what portions.

Source: Mesos docs/reconciliation.md, src/master/master.cpp `reconcile`; mesos-semantics 7. Data and message of the
original update are not repeated, and answers are not reliable: they carry no update id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from msgspec.structs import replace

from mesos_actor.actors.core.entries import FrameworkEntry, TaskEntry
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.ids import AgentId, FrameworkId, TaskId, UpdateId
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Reason, Source, TaskState

MAX_QUESTIONS = 100_000
"""Tasks of one framework that wait for an explicit answer; past that a question is refused."""

Question = tuple[TaskId, AgentId]


def status_of(
    task: TaskEntry, state: TaskState, reason: Reason, message: str, now_us: int, unreachable_since_us: int = 0
) -> Status:
    """News of a task that the master makes itself: unreliable, so without an update id."""
    return Status(
        task_id=task.task_id,
        state=state,
        source=Source.MASTER,
        reason=reason,
        message=message,
        agent_id=task.agent_id,
        executor_id=task.executor_id,
        container_id=task.container_id,
        timestamp_us=now_us,
        unreachable_since_us=unreachable_since_us,
    )


def known(task: TaskEntry, now_us: int) -> Status:
    """The last state the framework was told."""
    return status_of(task, task.forwarded, Reason.RECONCILIATION, "Reconciliation: Latest task state", now_us)


def unacknowledged(task: TaskEntry) -> list[Status]:
    """The reliable updates to tell a framework that is back. The first names no earlier one: that was acknowledged."""
    statuses = list(task.waiting)
    if statuses and statuses[0].after_update_id:
        statuses[0] = replace(statuses[0], after_update_id=UpdateId(""))
    return statuses


def explicit(
    roster: Roster, framework: FrameworkEntry, task_id: TaskId, agent_id: AgentId, now_us: int
) -> Status | None:
    """The state of one task, or None when it cannot be known yet: an agent that may have it is still expected."""
    task = framework.tasks.get(task_id)
    if task is not None:
        return known(task, now_us)
    agent = roster.agents.get(agent_id) if agent_id else None
    if (agent is not None and not agent.registered) or (not agent_id and roster.silent):
        return None
    lost = framework.unreachable.get(task_id)
    since_us = 0
    if agent is not None:
        state, text = TaskState.GONE, "Reconciliation: Task is unknown to the agent"
    elif agent_id in roster.absent:
        record = roster.absent[agent_id]
        if record.state == "gone":
            state, text = TaskState.GONE_BY_OPERATOR, "Reconciliation: Agent has been marked gone"
        else:
            state, text, since_us = TaskState.UNREACHABLE, "Reconciliation: Agent is unreachable", record.since_us
    elif lost is not None:
        agent_id = lost.agent_id
        since_us = roster.absent[agent_id].since_us if agent_id in roster.absent else 0
        state, text = TaskState.UNREACHABLE, "Reconciliation: Agent is unreachable"
    else:
        state, text = TaskState.UNKNOWN, "Reconciliation: Task is unknown"
    return Status(
        task_id=task_id,
        state=state,
        source=Source.MASTER,
        reason=Reason.RECONCILIATION,
        message=text,
        agent_id=agent_id,
        timestamp_us=now_us,
        unreachable_since_us=since_us,
    )


class Backlog:
    """Answers that wait for their portion of a turn. Frameworks take turns, so that a big one delays nobody."""

    def __init__(self) -> None:
        #: framework -> what it is still to be told; `replays` are tasks with unacknowledged updates
        self._replays: dict[FrameworkId, deque[TaskEntry]] = {}
        self._implicit: dict[FrameworkId, deque[TaskEntry]] = {}
        self._explicit: dict[FrameworkId, deque[Question]] = {}

    def __bool__(self) -> bool:
        return bool(self._replays or self._implicit or self._explicit)

    def replay(self, framework: FrameworkEntry) -> None:
        """Tell again all that it has not acknowledged."""
        tasks = deque(task for task in framework.tasks.values() if task.waiting)
        if tasks:
            self._replays[framework.framework_id] = tasks

    def ask_all(self, framework: FrameworkEntry) -> None:
        """Tell the state of all its tasks; a run that was under way starts again."""
        if framework.tasks:
            self._implicit[framework.framework_id] = deque(framework.tasks.values())

    def ask(self, framework: FrameworkId, questions: Sequence[Question]) -> bool:
        """Tell the state of these; False when too many wait already."""
        waiting = self._explicit.setdefault(framework, deque())
        if len(waiting) + len(questions) > MAX_QUESTIONS:
            return False
        waiting.extend(questions)
        return True

    def forget(self, framework: FrameworkId) -> None:
        for part in (self._replays, self._implicit, self._explicit):
            part.pop(framework, None)

    def answers(self, roster: Roster, at_most: int, now_us: int) -> list[tuple[FrameworkEntry, Status]]:
        """The next portion: about `at_most` answers, a share for each framework that waits."""
        waiting = list(dict.fromkeys((*self._replays, *self._implicit, *self._explicit)))
        share = max(1, at_most // max(1, len(waiting)))
        answers: list[tuple[FrameworkEntry, Status]] = []
        for framework_id in waiting:
            if len(answers) >= at_most:
                break
            framework = roster.frameworks.get(framework_id)
            if framework is None or not framework.connected:
                self.forget(framework_id)
                continue
            statuses = self._portion(roster, framework, share, now_us)
            answers += [(framework, status) for status in statuses]
        return answers

    def _portion(self, roster: Roster, framework: FrameworkEntry, share: int, now_us: int) -> list[Status]:
        statuses: list[Status] = []
        for part in (self._replays, self._implicit):
            tasks = part.get(framework.framework_id)
            while tasks and len(statuses) < share:
                task = tasks.popleft()
                if framework.tasks.get(task.task_id) is task:
                    statuses += unacknowledged(task) if part is self._replays else [known(task, now_us)]
            if tasks is not None:
                _turn(part, framework.framework_id, bool(tasks))
        questions = self._explicit.get(framework.framework_id)
        while questions and len(statuses) < share:
            answer = explicit(roster, framework, *questions.popleft(), now_us)
            if answer is not None:
                statuses.append(answer)
        if questions is not None:
            _turn(self._explicit, framework.framework_id, bool(questions))
        return statuses


def _turn(
    part: dict[FrameworkId, deque[TaskEntry]] | dict[FrameworkId, deque[Question]], framework: FrameworkId, more: bool
) -> None:
    """After its portion a framework waits behind the others."""
    rest = part.pop(framework)
    if more:
        part[framework] = rest  # type: ignore[assignment]
