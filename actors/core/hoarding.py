"""A bound on what one framework's unanswered offers may hold: one that never answers cannot lock the cluster."""

from __future__ import annotations

from collections.abc import Iterable
from operator import add, sub

from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.drf import Client, Vector
from mesos_actor.actors.ids import Role


class FrameworkState:
    """A framework, or a stranger that holds something."""

    __slots__ = ("clients", "held_back", "is_active", "is_full", "is_known", "outstanding", "roles", "suppressed")

    def __init__(self, zero: Vector) -> None:
        self.is_known = False
        self.is_active = False
        self.roles: frozenset[Role] = frozenset()
        self.suppressed: set[Role] = set()
        self.clients: dict[Role, Client] = {}
        """One for each of its roles, and for former ones in which it still holds something."""
        self.outstanding = zero
        """What its unanswered offers hold; kept only while hoarding is bounded."""
        self.is_full = False
        """They hold all that they may."""
        self.held_back = False
        """Some agent was not offered because of them."""


class HoardingBound:
    """The most of the cluster, in thousandths of each scalar kind, that unanswered offers of one framework may hold.

    What comes back of an agent counts as unanswered first: when a task ends while an offer of the same agent is out,
    the framework is offered more for a while, never less.
    """

    def __init__(self, permille: int) -> None:
        self._permille = permille
        self.is_set = permille < 1_000

    def promise(self, state: FrameworkState, client: Client, pool: AgentPool, vector: Vector) -> None:
        """An offer was made that counts until it is answered."""
        before = client.unanswered.get(pool)
        client.unanswered[pool] = vector if before is None else tuple(map(add, before, vector))
        state.outstanding = tuple(map(add, state.outstanding, vector))

    def answer(self, state: FrameworkState, client: Client, pool: AgentPool, vector: Vector | None) -> None:
        """So much of `pool` came back or was accepted, or all of it (None)."""
        before = client.unanswered.pop(pool, None)
        if before is not None:
            gone = before if vector is None else tuple(map(min, before, vector))
            rest = tuple(map(sub, before, gone))
            if any(rest):
                client.unanswered[pool] = rest
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
