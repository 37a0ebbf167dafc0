"""A bound on what one framework's unanswered offers may hold: one that never answers cannot lock the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from operator import add, sub

from mesos_actor.actors.core.nodes import Client, FrameworkState
from mesos_actor.actors.core.vectors import Vector
from mesos_actor.actors.ids import AgentId


class HoardingBound:
    """The most of the cluster, in thousandths of each scalar kind, that unanswered offers of one framework may hold.

    What comes back of an agent counts as unanswered first: when a task ends while an offer of the same agent is out,
    the framework is offered more for a while, never less.
    """

    def __init__(self, permille: int) -> None:
        self._permille = permille
        self.is_set = permille < 1_000

    def promise(self, state: FrameworkState, client: Client, agent: AgentId, vector: Vector) -> None:
        """An offer was made that counts until it is answered."""
        before = client.unanswered.get(agent)
        client.unanswered[agent] = vector if before is None else tuple(map(add, before, vector))
        state.outstanding = tuple(map(add, state.outstanding, vector))

    def answer(self, state: FrameworkState, client: Client, agent: AgentId, vector: Vector | None) -> None:
        """So much of `agent` came back or was accepted, or all of it (None)."""
        before = client.unanswered.pop(agent, None)
        if before is not None:
            gone = before if vector is None else tuple(map(min, before, vector))
            rest = tuple(map(sub, before, gone))
            if any(rest):
                client.unanswered[agent] = rest
            state.outstanding = tuple(map(sub, state.outstanding, gone))

    def is_reached(self, state: FrameworkState, totals: Vector) -> bool:
        """Whether nothing more may be offered before something is answered."""
        return any(state.outstanding) and self._is_above(state.outstanding, totals, 0)

    def forbids(self, state: FrameworkState, vector: Vector, totals: Vector) -> bool:
        """Whether an offer of so much more would be too much. The first never is, or big agents would go to nobody."""
        return any(state.outstanding) and self._is_above(map(add, state.outstanding, vector), totals, 1)

    def _is_above(self, amounts: Iterable[int], totals: Vector, excess: int) -> bool:
        return any(
            amount * 1_000 >= self._permille * total + excess
            for amount, total in zip(amounts, totals, strict=True)
            if total > 0
        )
