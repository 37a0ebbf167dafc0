"""One run of explicit reconciliation: which tasks still want an answer, and when to ask again.

The algorithm of Mesos docs/reconciliation.md: ask about all that is not terminal, drop what was heard of since, ask
again with truncated exponential back-off until nothing remains; one run at a time. A master that does not yet know
whether an agent comes back stays silent, which is why asking once is not enough.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesos_actor.actors.ids import AgentId, TaskId

FIRST_PAUSE_US = 2_000_000
MAX_PAUSE_US = 60_000_000
MAX_TASKS_A_MESSAGE = 1_000
"""A larger question is asked in several messages."""

Question = tuple[tuple[TaskId, AgentId], ...]


class ReconcileRun:
    """`remaining` maps each task without news since the run's start to its agent (empty when not known)."""

    def __init__(self) -> None:
        self.remaining: dict[TaskId, AgentId] = {}
        self._pause_us = FIRST_PAUSE_US

    def start(self, tasks: Mapping[TaskId, AgentId]) -> None:
        """Begin anew with these tasks; a run that was under way is replaced."""
        self.remaining = dict(tasks)
        self._pause_us = FIRST_PAUSE_US

    def add(self, tasks: Mapping[TaskId, AgentId]) -> None:
        """Ask about these too."""
        self.remaining.update(tasks)
        self._pause_us = FIRST_PAUSE_US

    def heard_of(self, task_id: TaskId) -> None:
        """There is news of this task, whatever caused it."""
        self.remaining.pop(task_id, None)

    def pause_us(self) -> int:
        """How long to wait before asking again; doubled each time, up to the limit."""
        pause = self._pause_us
        self._pause_us = min(MAX_PAUSE_US, pause * 2)
        return pause

    def questions(self) -> list[Question]:
        """What to ask now, in pieces that fit a message."""
        items = list(self.remaining.items())
        return [
            tuple(items[start : start + MAX_TASKS_A_MESSAGE]) for start in range(0, len(items), MAX_TASKS_A_MESSAGE)
        ]
