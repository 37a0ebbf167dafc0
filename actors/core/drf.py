"""Who is next: a tree of roles with frameworks for leaves, kept in order of weighted dominant share.

The share of a node is the largest, over the scalar kinds, of what it holds divided by what the cluster has; what a role
holds includes what the roles below it hold, and every unanswered offer. Siblings are ordered by share divided by
weight, then by how often they were chosen, then by name. A role that has both frameworks of its own and roles below it
keeps its frameworks in a virtual leaf `.`, which competes with those roles and has the default weight.
(Mesos: src/master/allocator/mesos/sorter/drf/sorter.cpp)

Shares are whole numbers, so that equal shares are equal: an amount of kind k is multiplied by lcm(totals) / total of k,
and the weight divides with WEIGHT_SHIFT spare bits, exact for weights below 2**32.

Every group keeps its live children in one sorted list: a change costs two binary searches, the smallest is at the
front, and those behind it can be looked at without taking the list apart, as a heap would ask.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from math import lcm
from operator import add, mul, sub

from mesos_actor.actors.core.nodes import DEFAULT_WEIGHT_MILLI, Client, Entry, Group, Node, RoleNode
from mesos_actor.actors.core.vectors import Kinds, Vector
from mesos_actor.actors.ids import FrameworkId, Role

WEIGHT_SHIFT = 64
MILLIONTHS = 1_000_000


class RoleTree:
    """The tree. `totals` are set by the allocator; `refresh` must be called between a change of them and the next
    question of order."""

    def __init__(self, kinds: Kinds) -> None:
        self._kinds = kinds
        self.root = Group("", None, kinds.zero)
        self.roles: dict[str, RoleNode] = {}
        """Path -> role, for roles that have a framework, or a role below that has."""
        self.weights: dict[str, int] = {}
        """Path -> thousandths, for roles that were given one; they need not exist."""
        self.totals: Vector = kinds.zero
        self._factors: Vector = kinds.zero
        self._whole = 1
        """The share of somebody who holds all of a kind."""

    # -- order

    def first(self) -> Client | None:
        """The client who is next, or None when there is none."""
        group = self.root
        while group.order:
            node = group.order[0][3]
            if isinstance(node, Client):
                return node
            assert isinstance(node, Group)
            group = node
        return None

    def walk(self, group: Group | None = None) -> Iterator[Client]:
        """Live clients in order. The tree must not change before the last one that is asked for."""
        for entry in (group or self.root).order:
            node = entry[3]
            if isinstance(node, Client):
                yield node
            else:
                assert isinstance(node, Group)
                yield from self.walk(node)

    def walk_roles(self, paths: Iterable[str]) -> Iterator[Client]:
        """As `walk`, only those in these roles and below."""
        nodes = [node for path in set(paths) if (node := self.roles.get(path)) is not None and node.entry is not None]
        outer = [node for node in nodes if not any(node.path.startswith(f"{other.path}/") for other in nodes)]
        for node in sorted(outer, key=_rank):
            yield from self.walk(node)

    def charge(self, client: Client, vector: Vector, picks: int = 0) -> None:
        """`client` holds so much more. `picks`: how many times it was chosen for it."""
        factors = self._factors
        node: Node = client
        group = node.parent
        while group is not None:
            old = node.entry
            if len(vector) == 3:  # cpus, mem and disk alone: nearly every cluster; written out, it takes two thirds
                x, y, z = vector
                a, b, c = node.amounts
                node.amounts = (a := a + x, b := b + y, c := c + z)
                x, y, z = factors
                key = a * x
                if (b := b * y) > key:
                    key = b
                if (c := c * z) > key:
                    key = c
            else:
                node.amounts = amounts = tuple(map(add, node.amounts, vector))
                key = max(map(mul, amounts, factors))
            node.picks += picks
            if old is not None:
                if node is not client:
                    key = (key << WEIGHT_SHIFT) // node.weight_milli
                node.entry = entry = (key, node.picks, node.name, node)
                order = group.order
                del order[0 if order[0] is old else bisect_left(order, old)]
                insort(order, entry)
            node, group = group, group.parent

    def discharge(self, client: Client, vector: Vector) -> None:
        """`client` holds so much less."""
        self.charge(client, tuple(map(sub, self._kinds.zero, vector)))

    def refresh(self, totals: Vector) -> None:
        """Order everything anew by these totals."""
        self.totals = totals
        self._whole = lcm(*(amount for amount in totals if amount > 0))
        self._factors = tuple(self._whole // amount if amount > 0 else 0 for amount in totals)
        groups = [self.root]
        for group in groups:
            for _, _, _, node in group.order:
                node.entry = self.entry_of(node)
                if isinstance(node, Group):
                    groups.append(node)
            group.order[:] = sorted(node.entry for _, _, _, node in group.order if node.entry is not None)

    def set_weight(self, path: str, weight_milli: int) -> None:
        self.weights[path] = weight_milli
        node = self.roles.get(path)
        if node is not None:
            node.weight_milli = weight_milli
            self._replace(node)

    # -- who is there

    def enter(self, node: Node) -> None:
        """It competes from now on; so do the roles above it."""
        group = node.parent
        if node.entry is not None or group is None:
            return
        was_empty = not group.order
        node.entry = self.entry_of(node)
        insort(group.order, node.entry)
        if was_empty:
            self.enter(group)

    def leave(self, node: Node) -> None:
        """It does not compete any more; nor do the roles above that only stood for it."""
        group = node.parent
        if node.entry is None or group is None:
            return
        del group.order[bisect_left(group.order, node.entry)]
        node.entry = None
        if not group.order:
            self.leave(group)

    def add_client(self, framework: FrameworkId, role: Role) -> Client:
        """A new client, holding nothing, not yet competing."""
        node = self._role(role)
        client = Client(framework, role, node.own, self._kinds.zero)
        assert framework not in node.clients, f"{framework} is in {role} twice"
        node.clients[framework] = client
        return client

    def remove_client(self, client: Client) -> None:
        """It holds nothing any more; roles that only stood for it go as well."""
        assert not any(client.amounts), f"{client.framework_id} still holds {client.amounts} in {client.role}"
        self.leave(client)
        node = self.roles[client.role]
        del node.clients[client.framework_id]
        while not node.clients and not node.children:
            del self.roles[node.path]
            parent = node.parent
            if not isinstance(parent, RoleNode):
                break
            del parent.children[node.name]
            if not parent.children:
                self._close_leaf(parent)
            node = parent

    def clients(self) -> Iterator[Client]:
        for node in self.roles.values():
            yield from node.clients.values()

    def reset_amounts(self) -> None:
        """Nobody holds anything, in vectors of the present length; the allocator charges everybody anew."""
        zero = self._kinds.zero
        self._factors = self.totals = self.root.amounts = zero
        for role in self.roles.values():
            role.amounts = role.own.amounts = zero
            for client in role.clients.values():
                client.amounts = zero
        self.refresh(zero)

    # -- shares for people

    def share_of(self, vector: Vector) -> int:
        """The dominant share of so much, in millionths, without any weight."""
        dominant: int = max(map(mul, vector, self._factors))
        return dominant * MILLIONTHS // self._whole

    def _role(self, path: str) -> RoleNode:
        node = self.roles.get(path)
        if node is not None:
            return node
        above, slash, _ = path.rpartition("/")
        parent: Group = self._role(above) if slash else self.root
        node = RoleNode(path, parent, self._kinds.zero)
        node.weight_milli = self.weights.get(path, DEFAULT_WEIGHT_MILLI)
        self.roles[path] = node
        if isinstance(parent, RoleNode):
            if not parent.children:
                self._open_leaf(parent)
            parent.children[node.name] = node
        return node

    def _open_leaf(self, role: RoleNode) -> None:
        """The first role below appears: the frameworks move into the virtual leaf."""
        leaf = Group(".", role, role.amounts)
        leaf.picks = role.picks
        leaf.order, role.order, role.own = role.order, [], leaf
        for client in role.clients.values():
            client.parent = leaf
        if leaf.order:
            leaf.entry = self.entry_of(leaf)
            role.order.append(leaf.entry)

    def _close_leaf(self, role: RoleNode) -> None:
        """The last role below has gone: the frameworks move back."""
        role.order, role.own = role.own.order, role
        for client in role.clients.values():
            client.parent = role

    def entry_of(self, node: Node) -> Entry:
        key = max(map(mul, node.amounts, self._factors))
        if isinstance(node, Group):
            key = (key << WEIGHT_SHIFT) // node.weight_milli
        return (key, node.picks, node.name, node)

    def _replace(self, node: Node) -> None:
        if node.entry is not None and node.parent is not None:
            order = node.parent.order
            del order[bisect_left(order, node.entry)]
            node.entry = self.entry_of(node)
            insort(order, node.entry)


def _rank(node: Node) -> list[tuple[int, int, str]]:
    """Where a live node stands in the whole order: nodes that are not above one another compare by it."""
    rank: list[tuple[int, int, str]] = []
    while node.entry is not None and node.parent is not None:
        rank.append(node.entry[:3])
        node = node.parent
    return rank[::-1]
