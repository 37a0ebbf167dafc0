"""Who competes for what: every agent, every framework in its roles, and what each holds, kept in step.

The allocator's interface (allocator.py) changes this, a run (allocation_run.py) hands out, and the report
(allocator_report.py) reads. Everything that is kept twice is compared by `allocator_report.check`.
"""

from __future__ import annotations

from operator import add

from mesos_actor.actors.core.agent_pool import AgentPool, Bundle
from mesos_actor.actors.core.drf import RoleTree
from mesos_actor.actors.core.filters import FilterBook
from mesos_actor.actors.core.hoarding import HoardingBound
from mesos_actor.actors.core.nodes import Client, FrameworkState
from mesos_actor.actors.core.vectors import Kinds, Vector
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Resources


class Competition:
    """The allocator's state."""

    def __init__(self, max_outstanding_share_permille: int, min_millicpus: int, min_mem_milli: int) -> None:
        self.kinds = Kinds()
        self.tree = RoleTree(self.kinds)
        self.filters = FilterBook()
        self.hoarding = HoardingBound(max_outstanding_share_permille)
        self.agents: dict[AgentId, AgentPool] = {}
        self.frameworks: dict[FrameworkId, FrameworkState] = {}
        self.open: dict[AgentPool, None] = {}
        """Active agents with something allocatable."""
        self.dirty: dict[AgentPool, None] = {}
        """Agents that changed since the last run."""
        self.all_dirty = False
        """Something changed that may concern any agent."""
        self.waiting: dict[Client, None] = {}
        """Competing clients with declared demand."""
        self.totals: Vector = self.kinds.zero
        """Of all agents, active or not."""
        self.growth = 0
        """Counts the times that any agent had more to give."""
        self.runs = 0
        """Counts the runs that made offers."""
        self._is_stale = False
        """`totals` differ from those that the tree is ordered by."""
        self._min_millicpus = min_millicpus
        self._min_mem_milli = min_mem_milli

    # -- questions

    def is_allocatable(self, vector: Vector) -> bool:
        """Whether so much is worth an offer."""
        return vector[0] >= self._min_millicpus or vector[1] >= self._min_mem_milli

    def may_compete(self, client: Client) -> bool:
        """Whether `client` is to be offered anything at all."""
        state = self.frameworks[client.framework_id]
        return (
            state.is_active
            and client.role in state.roles
            and client.role not in state.suppressed
            and not state.is_full
            and not (client.wanted is not None and client.wanted.is_met)
        )

    def obstacle(self, client: Client, pool: AgentPool, bundle: Bundle) -> str:
        """Why `client` may not be given `bundle`, all that `pool` has for it, in `Refusal`'s words; or empty."""
        resources, vector = bundle
        if not self.is_allocatable(vector):
            return "too-small"
        if client.wanted is not None and not client.wanted.fits(vector):
            return "too-small"
        if self.hoarding.is_set:
            state = self.frameworks[client.framework_id]
            if self.hoarding.forbids(state, vector, self.totals):
                state.held_back = True
                return "hoarding"
        for one in client.filters.get(pool.agent_id, ()):
            if one.blocks(resources, pool.version):
                return "filtered"
        return ""

    # -- clients

    def client(self, framework: FrameworkId, role: Role) -> Client:
        """The client of a framework in a role, made if need be."""
        state = self.frameworks.get(framework)
        if state is None:
            state = self.frameworks[framework] = FrameworkState(self.kinds.zero)
        client = state.clients.get(role)
        if client is None:
            client = state.clients[role] = self.tree.add_client(framework, role)
        return client

    def settle(self, client: Client) -> None:
        """Let `client` compete if it should, and forget it when it neither should nor holds anything."""
        state = self.frameworks.get(client.framework_id)
        if state is None or state.clients.get(client.role) is not client:
            return
        if client.role not in state.roles:
            client.wanted = None
            self.filters.drop_client(client)
        if not self.may_compete(client):
            self.tree.leave(client)
        elif client.entry is None:
            self.tree.enter(client)
            client.waits_since = self.runs
            self.all_dirty = True
        if client.entry is not None and client.wanted is not None:
            self.waiting[client] = None
        else:
            self.waiting.pop(client, None)
        if client.role not in state.roles and not client.holds:
            self.tree.remove_client(client)
            del state.clients[client.role]
            if not state.is_known and not state.clients:
                del self.frameworks[client.framework_id]

    def settle_all(self, state: FrameworkState) -> None:
        for client in list(state.clients.values()):
            self.settle(client)

    # -- agents

    def touch(self, pool: AgentPool) -> None:
        """`pool` has changed: it may have more to give, or nothing."""
        if pool.active and self.is_allocatable(pool.free_vector):
            self.open[pool] = None
            self.dirty[pool] = None
            self.growth += 1
        else:
            self.open.pop(pool, None)

    def add_total(self, vector: Vector) -> None:
        self.totals = tuple(map(add, self.totals, vector))
        self._is_stale = True

    def learn(self, resources: Resources) -> None:
        """Make every vector anew when `resources` have scalars that were unknown."""
        if not self.kinds.learn(resources):
            return
        more = self.kinds.zero[len(self.totals) :]
        self.totals = self.kinds.zero
        self.tree.reset_amounts()
        for pool in self.agents.values():
            pool.remeasure()
            self.add_total(pool.total_vector)
            for client, (_, vector) in pool.taken.items():
                self.tree.charge(client, vector)
        for client in self.tree.clients():
            client.unanswered = {agent: vector + more for agent, vector in client.unanswered.items()}
        for state in self.frameworks.values():
            state.outstanding += more

    def refresh(self) -> None:
        """Order everybody by the present totals."""
        if self._is_stale:
            self._is_stale = False
            self.tree.refresh(self.totals)
            if self.hoarding.is_set:
                for state in list(self.frameworks.values()):
                    self._weigh(state)

    # -- offers and answers

    def grant(self, pool: AgentPool, client: Client, bundle: Bundle) -> None:
        """`client` is offered `bundle`, which must be free."""
        resources, vector = bundle
        pool.take(client, resources, vector)
        self.tree.charge(client, vector, 1)
        if not self.is_allocatable(pool.free_vector):
            del self.open[pool]
        if client.wanted is not None:
            client.waits_since = self.runs + 1
            client.wanted.cover(pool.agent_id, vector)
            self.settle(client)
        if self.hoarding.is_set:
            state = self.frameworks[client.framework_id]
            self.hoarding.promise(state, client, pool.agent_id, vector)
            self._weigh(state)

    def answered(self, client: Client, agent: AgentId, vector: Vector | None) -> None:
        """So much of `agent`, or all of it (None), came back or was accepted: if it was in an offer, it is no more."""
        if client.wanted is not None:
            client.wanted.uncover(agent)
        state = self.frameworks.get(client.framework_id)
        if self.hoarding.is_set and state is not None:  # else it went with an answer in another role just before
            self.hoarding.answer(state, client, agent, vector)
            if state.held_back:
                state.held_back = False
                self.all_dirty = True
            self._weigh(state)

    def _weigh(self, state: FrameworkState) -> None:
        """Find out whether the framework's offers hold all they may."""
        is_full = self.hoarding.is_reached(state, self.totals)
        if is_full != state.is_full:
            state.is_full = is_full
            self.settle_all(state)
