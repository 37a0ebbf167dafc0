"""The allocator's interface: who is offered what. Write your own by keeping to `Allocator`.

The master tells the allocator what exists, what is taken and what came back, and asks `allocate()` whenever something
that could lead to an offer has happened. Everything the allocator hands out counts as taken until `recover()` gives it
back or the agent goes away. It has no clock and no randomness of its own: both are passed in. It never raises for
anything that a framework or an agent can do; an exception is a bug.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.messages.values import Demand
from mesos_actor.actors.resources import Attributes, Resources


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """Offer `resources` of this agent to this framework in this role. `resources` keep the roles they are reserved
    for (`*` when unreserved)."""

    framework_id: FrameworkId
    agent_id: AgentId
    role: Role
    resources: Resources


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Why a framework was not offered an agent when it was last considered.

    `reason`: `filtered` (it declined), `inactive-agent`, `too-small` (less than the smallest allocatable), `taken`
    (nothing free), `suppressed`, `inactive-framework`, `reserved` (free only for another role), `share` (another
    framework with a smaller share went first), `hoarding` (its unanswered offers hold too much), `demand` (its offers
    and launches make up all that it asked for).
    """

    agent_id: AgentId
    role: Role
    reason: str
    text: str


class Allocator(Protocol):
    """See the module's text. All times are microseconds on the master's clock."""

    # -- frameworks
    def add_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None:
        """A framework exists, active. What it already holds comes with `add_agent` and `add_used`."""

    def update_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None: ...

    def remove_framework(self, framework: FrameworkId) -> None:
        """Forget it and its filters; what it held must have been recovered before, or is recovered later all the
        same: `recover` for an unknown framework still frees the agent."""

    def set_framework_active(self, framework: FrameworkId, active: bool) -> None:
        """Inactive frameworks get nothing and keep what they hold."""

    def revive(self, framework: FrameworkId, roles: Sequence[Role]) -> None:
        """Un-suppress these roles (empty: all) and drop the framework's filters for them."""

    def suppress(self, framework: FrameworkId, roles: Sequence[Role]) -> None: ...

    def set_demand(self, framework: FrameworkId, demands: Sequence[Demand]) -> None: ...

    # -- agents
    def add_agent(
        self,
        agent: AgentId,
        total: Resources,
        attributes: Attributes,
        used: Mapping[tuple[FrameworkId, Role], Resources],
    ) -> None:
        """An agent exists, active, with this already in use."""

    def update_agent(self, agent: AgentId, total: Resources, attributes: Attributes) -> None:
        """Its totals changed; filters on it are dropped."""

    def add_used(self, agent: AgentId, framework: FrameworkId, role: Role, resources: Resources) -> None:
        """More of it turned out to be in use (a task came back after the agent was thought lost)."""

    def remove_agent(self, agent: AgentId) -> None:
        """Forget it with all that was taken of it."""

    def set_agent_active(self, agent: AgentId, active: bool) -> None: ...

    # -- what comes back
    def recover(
        self,
        framework: FrameworkId,
        agent: AgentId,
        role: Role,
        resources: Resources,
        refuse_until_us: int = 0,
    ) -> None:
        """These resources are free again. With `refuse_until_us`, do not offer the framework any part of them on
        this agent in this role before then. Unknown agents are ignored."""

    def accepted(self, framework: FrameworkId, agent: AgentId, role: Role, resources: Resources) -> None:
        """So much of what was offered is in use now. Call it when an offer is accepted, before what is left over is
        recovered: demand and the bound on unanswered offers go by it. Unknown ids are ignored."""

    # -- policy
    def set_weight(self, role: Role, weight_milli: int) -> None: ...

    # -- decisions
    def allocate(self, now_us: int, rng: random.Random) -> list[Allocation]:
        """Every offer that can be made now, given what changed since the last call. Cheap when nothing did."""
        raise NotImplementedError

    def allocate_all(self, now_us: int, rng: random.Random) -> list[Allocation]:
        """As `allocate`, over every agent: the batch run, which also drops filters that have run out."""
        raise NotImplementedError

    def next_expiry_us(self) -> int | None:
        """When a filter runs out and `allocate` is worth calling though nothing else happened; None: never."""
        raise NotImplementedError

    def shares(self) -> list[tuple[Role, FrameworkId | None, int]]:
        """(role, framework or None for the role itself, dominant share in millionths), in path order."""
        raise NotImplementedError

    def explain(self, framework: FrameworkId, now_us: int) -> list[Refusal]:
        """Why `framework` is offered nothing on each agent now; computed when asked, bounded by the caller's page."""
        raise NotImplementedError
