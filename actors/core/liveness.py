"""Who still answers: pings for all agents from one timer, and the time that silent ones have left.

The agents are dealt into slices and each tick pings one slice, so 10,000 agents cost a little often instead of a lot at
once. (Mesos: SlaveObserver, src/master/master.cpp, one process an agent.)
"""

from __future__ import annotations

from mesos_actor.actors.ids import AgentId

SLICES = 10
"""Ticks in one ping interval."""


class Liveness:
    """Counts unanswered pings and keeps windows. Knows agents by id only."""

    def __init__(self, max_missed: int) -> None:
        self.max_missed = max_missed
        #: slice -> agent -> pings sent since the last answer
        self._slices: list[dict[AgentId, int]] = [{} for _ in range(SLICES)]
        self._slice_of: dict[AgentId, int] = {}
        self._next_slice = 0
        self._dealt = 0
        #: agent -> when it must be back, oldest deadline first (all windows are equally long)
        self._windows: dict[AgentId, int] = {}

    def watch(self, agent: AgentId) -> None:
        """Ping it from now on; it starts with a clean slate and without a window."""
        self._windows.pop(agent, None)
        at = self._slice_of.get(agent)
        if at is None:
            at = self._slice_of[agent] = self._dealt % SLICES
            self._dealt += 1
        self._slices[at][agent] = 0

    def forget(self, agent: AgentId) -> None:
        self._windows.pop(agent, None)
        at = self._slice_of.pop(agent, None)
        if at is not None:
            del self._slices[at][agent]

    def answered(self, agent: AgentId) -> None:
        at = self._slice_of.get(agent)
        if at is not None:
            self._slices[at][agent] = 0

    def missed(self, agent: AgentId) -> int:
        """Pings since its last answer."""
        at = self._slice_of.get(agent)
        return 0 if at is None else self._slices[at][agent]

    def tick(self) -> tuple[list[AgentId], list[AgentId]]:
        """(whom to ping now, who has missed too many). Those who have are named at every round until forgotten."""
        current = self._slices[self._next_slice]
        self._next_slice = (self._next_slice + 1) % SLICES
        lost = [agent for agent, missed in current.items() if missed >= self.max_missed]
        for agent in current:
            current[agent] += 1
        return list(current), lost

    def open_window(self, agent: AgentId, deadline_us: int) -> None:
        """It must register again before `deadline_us`."""
        self._windows.pop(agent, None)
        self._windows[agent] = deadline_us

    def overdue(self, now_us: int, at_most: int) -> list[AgentId]:
        """Whose window has passed, at most so many; named again until forgotten or watched."""
        late: list[AgentId] = []
        for agent, deadline_us in self._windows.items():
            if deadline_us > now_us or len(late) >= at_most:
                break
            late.append(agent)
        return late
