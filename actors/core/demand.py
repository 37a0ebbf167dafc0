"""What a framework asked for: so many tasks of such shapes, less what was launched and what its offers already hold.

Only scalars of a shape are looked at, whatever role they name.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.core.vectors import Kinds, Vector
from mesos_actor.actors.ids import AgentId
from mesos_actor.actors.messages.values import Demand

MAX_SHAPES_PER_ROLE = 100
"""Shapes of one framework in one role that are looked at; those after them are not waited for."""


class Wanted:
    """The demand of one framework in one role."""

    def __init__(self, demands: Sequence[Demand], kinds: Kinds) -> None:
        self._kinds = kinds
        self._demands = [demand for demand in demands if demand.count > 0][:MAX_SHAPES_PER_ROLE]
        self._missing = [demand.count for demand in self._demands]
        """How many of each shape no offer holds yet."""
        self._held: dict[AgentId, list[int]] = {}
        """How many of each shape fit in the unanswered offers of an agent."""
        self._shapes: list[tuple[tuple[int, int], ...]] = []
        self._places = 0
        self._measure()

    @property
    def is_declared(self) -> bool:
        """Whether anything was asked for at all."""
        return bool(self._demands)

    @property
    def is_met(self) -> bool:
        """Whether nothing more needs to be offered."""
        return not any(self._missing)

    def fits(self, vector: Vector) -> bool:
        """Whether one task that is still missing fits in so much."""
        if len(vector) != self._places:
            self._measure()
        return any(
            missing and all(vector[place] >= amount for place, amount in shape)
            for missing, shape in zip(self._missing, self._shapes, strict=True)
        )

    def cover(self, agent: AgentId, vector: Vector) -> None:
        """So much of `agent` was offered."""
        counts = self._packed(vector, self._missing)
        self._missing = [missing - count for missing, count in zip(self._missing, counts, strict=True)]
        held = self._held.get(agent)
        self._held[agent] = counts if held is None else [a + b for a, b in zip(held, counts, strict=True)]

    def launched(self, agent: AgentId, vector: Vector) -> None:
        """So much of what was offered of `agent` is in use: what it does not hold is missing again."""
        held = self._held.pop(agent, None)
        if held is not None:
            counts = self._packed(vector, held)
            self._missing = [m + h - c for m, h, c in zip(self._missing, held, counts, strict=True)]

    def uncover(self, agent: AgentId) -> None:
        """What was offered of `agent` came back."""
        held = self._held.pop(agent, None)
        if held is not None:
            self._missing = [missing + count for missing, count in zip(self._missing, held, strict=True)]

    def _packed(self, vector: Vector, limits: list[int]) -> list[int]:
        """How many of each shape fit in `vector` together, first come first served, at most `limits`."""
        left = list(vector)
        counts = []
        for shape, limit in zip(self._shapes, limits, strict=True):
            count = min([limit, *(left[place] // amount for place, amount in shape)])
            for place, amount in shape:
                left[place] -= count * amount
            counts.append(count)
        return counts

    def _measure(self) -> None:
        """Shapes as (place in a vector, thousandths); one that names a kind no agent has fits nowhere."""
        index = self._kinds.index
        self._places = len(index)
        self._shapes = []
        for demand in self._demands:
            amounts = demand.shape.scalars()
            known = tuple((index[name], amount) for name, amount in amounts.items() if name in index)
            self._shapes.append(known if len(known) == len(amounts) else ((0, NOWHERE),))


NOWHERE = 1 << 200
"""More than any agent has."""
