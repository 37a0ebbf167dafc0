"""What stands in the tree of roles (drf.py): roles, their virtual leaves, and frameworks with what they declined."""

from __future__ import annotations

from typing import TypeAlias

from mesos_actor.actors.core.demand import Wanted
from mesos_actor.actors.core.vectors import Vector
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Resources

DEFAULT_WEIGHT_MILLI = 1_000

Entry: TypeAlias = "tuple[int, int, str, Node]"
"""(weighted share, times chosen, name, node): how siblings are sorted. Names differ, so nodes are never compared."""


class Node:
    """Something that competes with its siblings."""

    __slots__ = ("amounts", "entry", "name", "parent", "picks", "weight_milli")

    def __init__(self, name: str, parent: Group | None, amounts: Vector) -> None:
        self.name = name
        self.parent = parent
        self.amounts = amounts
        """What it and all below it hold, unanswered offers included."""
        self.picks = 0
        """How often it was chosen."""
        self.weight_milli = DEFAULT_WEIGHT_MILLI
        self.entry: Entry | None = None
        """Its place in `parent.order`; None while nobody below it can be offered anything."""


class Group(Node):
    """A node that stands for others. `order`: its live children, the next one first."""

    __slots__ = ("order",)

    def __init__(self, name: str, parent: Group | None, amounts: Vector) -> None:
        super().__init__(name, parent, amounts)
        self.order: list[Entry] = []


class RoleNode(Group):
    """A role. `own` is where its frameworks are: the role itself, or its virtual leaf when there are roles below."""

    __slots__ = ("children", "clients", "own", "path")

    def __init__(self, path: str, parent: Group | None, amounts: Vector) -> None:
        super().__init__(path.rpartition("/")[2], parent, amounts)
        self.path = path
        self.children: dict[str, RoleNode] = {}
        self.clients: dict[FrameworkId, Client] = {}
        self.own: Group = self


class Client(Node):
    """A framework in one of its roles."""

    __slots__ = ("filters", "framework_id", "holds", "role", "scopes", "unanswered", "waits_since", "walled", "wanted")

    def __init__(self, framework_id: FrameworkId, role: Role, parent: Group, amounts: Vector) -> None:
        super().__init__(framework_id, parent, amounts)
        self.framework_id = framework_id
        self.role = role
        parts = role.split("/")
        self.scopes = frozenset(["*", *("/".join(parts[:n]) for n in range(1, len(parts) + 1))])
        """The roles whose reservations it may use."""
        self.holds = 0
        """On how many agents it holds anything; changed by AgentPool alone."""
        self.filters: dict[AgentId, list[Filter]] = {}
        """What it declined; changed by FilterBook alone."""
        self.wanted: Wanted | None = None
        """What it asked for, if it did."""
        self.unanswered: dict[AgentId, Vector] = {}
        """What its unanswered offers hold; kept only while hoarding is bounded."""
        self.waits_since = 0
        """The run in which it was last offered anything, or began to wait."""
        self.walled = -1
        """The allocator's count of growth when filters blocked every agent; valid while the count stands."""


class Filter:
    """What a client refused of an agent."""

    __slots__ = ("agent", "client", "is_dropped", "resources", "seen", "until_us")

    def __init__(self, client: Client, agent: AgentId, resources: Resources, until_us: int) -> None:
        self.client = client
        self.agent = agent
        self.is_dropped = False
        self.resources = resources
        self.until_us = until_us
        self.seen = -1
        """The agent's version for which it was found to block."""

    def blocks(self, resources: Resources, version: int) -> bool:
        """Whether it forbids to offer `resources`, all that the agent has for the client in this version of it."""
        if self.seen != version:
            if not self.resources.contains(resources):
                return False
            self.seen = version
        return True


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
