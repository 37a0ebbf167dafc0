"""What one agent has: its total, who took what of it, and what is free.

While nobody holds anything, `free` is the very object `total`, and a bundle that is offered whole is the very object
that was free: nothing is copied on the way to an offer.
"""

from __future__ import annotations

from operator import add, sub
from typing import TypeAlias

from mesos_actor.actors.core.nodes import Client
from mesos_actor.actors.core.vectors import Kinds, Vector
from mesos_actor.actors.errors import InternalError
from mesos_actor.actors.ids import AgentId
from mesos_actor.actors.resources import Attributes, Resource, Resources
from mesos_actor.actors.resources import total as sum_of

Bundle: TypeAlias = tuple[Resources, Vector]

NOTHING = Resources()


class AgentPool:
    """One agent. At all times `free` and what is `taken` together make up `total`; when they cannot, because the agent
    became smaller or its reports overlap, `is_short` is set and `free` is what is left of `total` when everything taken
    has been struck out of it."""

    __slots__ = (
        "_kinds",
        "active",
        "agent_id",
        "attributes",
        "free",
        "free_vector",
        "is_plain",
        "is_short",
        "taken",
        "total",
        "total_vector",
        "version",
    )

    def __init__(self, agent_id: AgentId, total: Resources, attributes: Attributes, kinds: Kinds) -> None:
        self._kinds = kinds
        self.agent_id = agent_id
        self.attributes = attributes
        self.active = True
        self.version = 0
        """Counts changes of `free`."""
        self.taken: dict[Client, Bundle] = {}
        self.total = self.free = total
        self.total_vector = self.free_vector = kinds.vector(total)
        self.is_plain = _is_plain(total)
        """Nothing is reserved: what is free is free for everybody."""
        self.is_short = False

    def offerable(self, client: Client) -> Bundle:
        """All that `client` could be given now: unreserved, or reserved for its role or one above."""
        if self.is_plain:
            return self.free, self.free_vector
        entries = self.free.entries
        kept = tuple(entry for entry in entries if entry.role in client.scopes)
        if len(kept) == len(entries):
            return self.free, self.free_vector
        resources = Resources(kept)
        return resources, self._kinds.vector(resources)

    def unreserved_vector(self) -> Vector:
        """The scalars that anybody could be given now."""
        return self._kinds.vector(self.free.unreserved())

    def take_all(self, client: Client) -> Bundle:
        """`client` is given all that is free. Returns that."""
        bundle = (self.free, self.free_vector)
        self.free, self.free_vector = NOTHING, self._kinds.zero
        self.version += 1
        if client in self.taken:
            self._hold(client, *bundle)
        else:
            self.taken[client] = bundle
            client.holds += 1
        return bundle

    def take(self, client: Client, resources: Resources, vector: Vector) -> None:
        """`client` is given `resources`, which must be free."""
        if resources is self.free:
            self.take_all(client)
            return
        self.free = self.free - resources
        self.free_vector = tuple(map(sub, self.free_vector, vector))
        self.version += 1
        self._hold(client, resources, vector)

    def use(self, client: Client, resources: Resources) -> Vector:
        """`client` turns out to use `resources`, free or not. Returns their scalars."""
        vector = self._kinds.vector(resources)
        self._hold(client, resources, vector)
        if not self.is_short and self.free.contains(resources):
            self.free = self.free - resources
            self.free_vector = tuple(map(sub, self.free_vector, vector))
            self.version += 1
        else:
            self.is_short = True
            self._reckon()
        return vector

    def give_back(self, client: Client, resources: Resources) -> Vector:
        """`client` holds so much less. Returns the scalars that came back.

        Raises InternalError when it did not hold so much: the master's count and ours differ.
        """
        held = self.taken.get(client)
        if held is None:
            raise self._never_given(client, resources, NOTHING)
        if resources == held[0]:
            vector = held[1]
            del self.taken[client]
            client.holds -= 1
        else:
            vector = self._kinds.vector(resources)
            rest = tuple(map(sub, held[1], vector))
            if min(rest) < 0 or not (self.is_short or held[0].contains(resources)):
                raise self._never_given(client, resources, held[0])
            left = without(held[0], resources)
            if left or any(rest):
                self.taken[client] = (left, rest)
            else:
                del self.taken[client]
                client.holds -= 1
        if self.is_short or not self.taken:
            self._reckon()
        else:
            self.free = self.free + resources
            self.free_vector = tuple(map(add, self.free_vector, vector))
            self.version += 1
        return vector

    def release(self) -> dict[Client, Bundle]:
        """Nobody holds anything any more. Returns what everybody did."""
        taken, self.taken = self.taken, {}
        for client in taken:
            client.holds -= 1
        self._reckon()
        return taken

    def resize(self, total: Resources, attributes: Attributes) -> None:
        """The agent has this in all now."""
        self.total = total
        self.attributes = attributes
        self.is_plain = _is_plain(total)
        self.remeasure()
        if self.taken and not self.is_short:
            self.is_short = not total.contains(sum_of(resources for resources, _ in self.taken.values()))
        self._reckon()

    def remeasure(self) -> None:
        """Make every vector anew: the kinds have become more, or the total has changed."""
        vector = self._kinds.vector
        self.total_vector = vector(self.total)
        self.free_vector = vector(self.free)
        self.taken = {client: (resources, vector(resources)) for client, (resources, _) in self.taken.items()}

    def _hold(self, client: Client, resources: Resources, vector: Vector) -> None:
        held = self.taken.get(client)
        if held is None:
            self.taken[client] = (resources, vector)
            client.holds += 1
        else:
            self.taken[client] = (held[0] + resources, tuple(map(add, held[1], vector)))

    def _never_given(self, client: Client, resources: Resources, held: Resources) -> InternalError:
        return InternalError(
            f"{client.framework_id} gives back {resources} of {self.agent_id} in {client.role}, "
            f"where it holds {held or 'nothing'}"
        )

    def _reckon(self) -> None:
        """Find out what is free from `total` and `taken` alone."""
        self.version += 1
        if self.taken:
            left = self.total
            for resources, _ in self.taken.values():
                left = without(left, resources)
            self.free, self.free_vector = left, self._kinds.vector(left)
        else:
            self.is_short = False
            self.free, self.free_vector = self.total, self.total_vector


def without(left: Resources, gone: Resources) -> Resources:
    """`left` with everything of `gone` struck out that is in it; the rest of `gone` is ignored."""
    if left.contains(gone):
        return left - gone
    for entry in gone.entries:
        for there in left.entries:
            if there.name == entry.name and there.role == entry.role:
                common = _common(there, entry)
                if common.scalar or common.ranges or common.items:
                    left = left - Resources((common,))
                break
    return left


def _common(there: Resource, entry: Resource) -> Resource:
    """What two entries of the same name and role have in common; an empty entry when they are of different kinds."""
    ranges = tuple(
        (max(begin, other_begin), min(end, other_end))
        for begin, end in there.ranges
        for other_begin, other_end in entry.ranges
        if max(begin, other_begin) <= min(end, other_end)
    )
    items = tuple(item for item in there.items if item in entry.items)
    return Resource(there.name, min(there.scalar, entry.scalar), ranges, items, there.role)


def _is_plain(total: Resources) -> bool:
    return all(entry.role == "*" for entry in total.entries)
