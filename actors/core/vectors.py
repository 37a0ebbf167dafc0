"""Scalars of a bundle as a tuple of whole numbers, which is what shares are computed with."""

from __future__ import annotations

from typing import TypeAlias

from mesos_actor.actors.resources import Resources

Vector: TypeAlias = tuple[int, ...]
"""Thousandths of each scalar kind over all roles, in the order of `Kinds.index`."""

MAX_SCALAR_KINDS = 64
"""Kinds of scalars that count for shares; those that agents bring up later are shared out, but count for nothing."""


class Kinds:
    """Which scalar stands at which place of a vector."""

    def __init__(self) -> None:
        self.index = {"cpus": 0, "mem": 1, "disk": 2}
        self.zero: Vector = (0, 0, 0)

    def learn(self, resources: Resources) -> bool:
        """Whether there were new kinds in it: every vector made before is then too short."""
        known = len(self.index)
        for entry in resources.entries:
            if entry.scalar and entry.name not in self.index and len(self.index) < MAX_SCALAR_KINDS:
                self.index[entry.name] = len(self.index)
        self.zero = (0,) * len(self.index)
        return len(self.index) > known

    def vector(self, resources: Resources) -> Vector:
        amounts = [0] * len(self.index)
        for entry in resources.entries:
            if entry.scalar:
                place = self.index.get(entry.name)
                if place is not None:
                    amounts[place] += entry.scalar
        return tuple(amounts)
