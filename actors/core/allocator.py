"""The allocator that ships: hierarchical dominant-resource fairness, run on what changed.

It follows Mesos (src/master/allocator/mesos/hierarchical.cpp; quota is not here yet). Where it differs: freed resources
are offered at once, not at the next batch; a framework may declare its demand, and is then offered what fits, on no
more agents than that takes, and is not passed over for ever; unanswered offers may be bounded.

This is the interface; the state is in competition.py, a run in allocation_run.py, the order in drf.py.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from operator import sub

from mesos_actor.actors.core import allocation_run, allocator_report
from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.allocation import Allocation, Refusal
from mesos_actor.actors.core.competition import Competition
from mesos_actor.actors.core.demand import Wanted
from mesos_actor.actors.core.nodes import Client, FrameworkState
from mesos_actor.actors.errors import InternalError
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.messages.values import Demand
from mesos_actor.actors.resources import Attributes, Resources

MIN_ALLOCATABLE_MILLICPUS = 10
MIN_ALLOCATABLE_MEM_MILLI = 32_000
"""An offer holds at least 0.01 cpus or 32 MB (Mesos: --min_allocatable_resources, cpus:0.01|mem:32)."""


class DrfAllocator:
    """See `Allocator`. `max_outstanding_share_permille`: the most of the cluster, by dominant share, that the
    unanswered offers of one framework may hold (its first may be larger); 1,000: no bound."""

    def __init__(
        self,
        max_outstanding_share_permille: int = 1_000,
        min_allocatable_millicpus: int = MIN_ALLOCATABLE_MILLICPUS,
        min_allocatable_mem_milli: int = MIN_ALLOCATABLE_MEM_MILLI,
    ) -> None:
        self._state = Competition(max_outstanding_share_permille, min_allocatable_millicpus, min_allocatable_mem_milli)

    # -- frameworks

    def add_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None:
        state = self._state.frameworks.get(framework)
        if state is None:
            state = self._state.frameworks[framework] = FrameworkState(self._state.kinds.zero)
        state.is_known = state.is_active = True
        self.update_framework(framework, roles, suppressed)

    def update_framework(self, framework: FrameworkId, roles: Sequence[Role], suppressed: Sequence[Role]) -> None:
        state = self._state.frameworks.get(framework)
        if state is not None and state.is_known:
            state.roles = frozenset(roles)
            state.suppressed = set(suppressed)
            for role in sorted(state.roles):
                self._state.client(framework, role)
            self._state.settle_all(state)

    def remove_framework(self, framework: FrameworkId) -> None:
        state = self._state.frameworks.get(framework)
        if state is not None and state.is_known:
            state.is_known = state.is_active = False
            state.roles = frozenset()
            self._state.settle_all(state)
            if not state.clients:
                self._state.frameworks.pop(framework, None)

    def set_framework_active(self, framework: FrameworkId, active: bool) -> None:
        state = self._state.frameworks.get(framework)
        if state is None or not state.is_known:
            return
        state.is_active = active
        for client in state.clients.values():
            if not active:  # whoever comes back may see things differently (Mesos: deactivateFramework)
                self._state.filters.drop_client(client)
            self._state.settle(client)

    def revive(self, framework: FrameworkId, roles: Sequence[Role]) -> None:
        for client in self._clients_in(framework, roles):
            self._state.frameworks[framework].suppressed.discard(client.role)
            self._state.filters.drop_client(client)
            self._state.all_dirty = True
            self._state.settle(client)

    def suppress(self, framework: FrameworkId, roles: Sequence[Role]) -> None:
        for client in self._clients_in(framework, roles):
            self._state.frameworks[framework].suppressed.add(client.role)
            self._state.settle(client)

    def set_demand(self, framework: FrameworkId, demands: Sequence[Demand]) -> None:
        """Replaces what it declared before, in every role; in roles that are not named it takes any offer again."""
        for client in self._clients_in(framework, ()):
            wanted = Wanted([demand for demand in demands if demand.role == client.role], self._state.kinds)
            if client.wanted is None:
                client.waits_since = self._state.runs
            client.wanted = wanted if wanted.is_declared else None
            self._state.all_dirty = True
            self._state.settle(client)

    # -- agents

    def add_agent(
        self,
        agent: AgentId,
        total: Resources,
        attributes: Attributes,
        used: Mapping[tuple[FrameworkId, Role], Resources],
    ) -> None:
        self.remove_agent(agent)
        self._state.learn(total)
        pool = self._state.agents[agent] = AgentPool(agent, total, attributes, self._state.kinds)
        self._state.add_total(pool.total_vector)
        for (framework, role), resources in used.items():
            if resources:
                client = self._state.client(framework, role)
                self._state.tree.charge(client, pool.use(client, resources))
        self._state.touch(pool)

    def update_agent(self, agent: AgentId, total: Resources, attributes: Attributes) -> None:
        pool = self._state.agents.get(agent)
        if pool is None:
            return
        self._state.learn(total)
        before = pool.total_vector
        pool.resize(total, attributes)
        self._state.add_total(tuple(map(sub, pool.total_vector, before)))
        self._state.filters.drop_agent(self._state.tree.clients(), agent)
        self._state.touch(pool)

    def add_used(self, agent: AgentId, framework: FrameworkId, role: Role, resources: Resources) -> None:
        pool = self._state.agents.get(agent)
        if pool is not None and resources:
            client = self._state.client(framework, role)
            self._state.tree.charge(client, pool.use(client, resources))
            self._state.touch(pool)

    def remove_agent(self, agent: AgentId) -> None:
        pool = self._state.agents.pop(agent, None)
        if pool is None:
            return
        self._state.open.pop(pool, None)
        self._state.dirty.pop(pool, None)
        self._state.filters.drop_agent(self._state.tree.clients(), agent)
        self._state.add_total(tuple(map(sub, self._state.kinds.zero, pool.total_vector)))
        released = pool.release()
        for client, (_, vector) in released.items():
            self._state.tree.discharge(client, vector)
        for client in released:
            self._state.answered(client, agent, None)
            self._state.settle(client)

    def set_agent_active(self, agent: AgentId, active: bool) -> None:
        pool = self._state.agents.get(agent)
        if pool is not None:
            pool.active = active
            self._state.touch(pool)

    # -- what comes back

    def recover(
        self,
        framework: FrameworkId,
        agent: AgentId,
        role: Role,
        resources: Resources,
        refuse_until_us: int = 0,
    ) -> None:
        """See `Allocator`. Raises InternalError when so much was never handed out: the two accounts differ."""
        pool = self._state.agents.get(agent)
        if pool is None or not resources:
            return
        state = self._state.frameworks.get(framework)
        client = state.clients.get(role) if state is not None else None
        if state is None or client is None:
            raise InternalError(f"{framework} gives back {resources} of {agent} in {role}, where it holds nothing")
        vector = pool.give_back(client, resources)
        self._state.tree.discharge(client, vector)
        self._state.answered(client, agent, vector)
        if refuse_until_us > 0 and role in state.roles:
            self._state.filters.add(client, agent, resources, refuse_until_us)
        self._state.touch(pool)
        self._state.settle(client)

    def accepted(self, framework: FrameworkId, agent: AgentId, role: Role, resources: Resources) -> None:
        """See `Allocator`."""
        state = self._state.frameworks.get(framework)
        client = state.clients.get(role) if state is not None else None
        if client is None or agent not in self._state.agents:
            return
        vector = self._state.kinds.vector(resources)
        if client.wanted is not None:
            client.wanted.launched(agent, vector)
        self._state.answered(client, agent, vector)
        self._state.settle(client)

    # -- policy

    def set_weight(self, role: Role, weight_milli: int) -> None:
        if weight_milli <= 0:
            raise InternalError(f"the weight of {role} is {weight_milli} thousandths; the master admits none below 1")
        self._state.tree.set_weight(role, weight_milli)

    # -- decisions

    def allocate(self, now_us: int, rng: random.Random) -> list[Allocation]:
        state = self._state
        state.refresh()
        for agent in state.filters.expire(now_us):
            state.dirty[state.agents[agent]] = None
        if state.all_dirty:
            candidates = list(state.open)
        else:
            candidates = [pool for pool in state.dirty if pool in state.open]
        state.dirty = {}
        state.all_dirty = False
        return allocation_run.run(state, candidates, rng) if candidates else []

    def allocate_all(self, now_us: int, rng: random.Random) -> list[Allocation]:
        self._state.all_dirty = True
        return self.allocate(now_us, rng)

    def next_expiry_us(self) -> int | None:
        """When the next filter runs out and `allocate` is worth calling; None when there is no filter."""
        return self._state.filters.next_expiry_us()

    def shares(self) -> list[tuple[Role, FrameworkId | None, int]]:
        self._state.refresh()
        return allocator_report.shares(self._state.tree)

    def explain(self, framework: FrameworkId, now_us: int) -> list[Refusal]:
        self._state.refresh()
        return allocator_report.explain(self._state, framework, now_us)

    def check(self) -> None:
        """Raises AssertionError when anything kept twice differs. Slow; for tests and for a paranoid master."""
        self._state.refresh()
        allocator_report.check(self._state)

    def _clients_in(self, framework: FrameworkId, roles: Sequence[Role]) -> list[Client]:
        """The clients of a known framework in those of its present roles that are named; in all when none is."""
        state = self._state.frameworks.get(framework)
        if state is None:
            return []
        return [state.clients[role] for role in sorted(state.roles) if not roles or role in roles]
