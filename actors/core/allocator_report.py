"""What can be seen of the allocator: shares, why somebody is offered nothing, and whether its accounts agree."""

from __future__ import annotations

from operator import add

from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.allocation import Refusal
from mesos_actor.actors.core.competition import Competition
from mesos_actor.actors.core.drf import RoleTree
from mesos_actor.actors.core.nodes import Client, FrameworkState, Group, RoleNode
from mesos_actor.actors.core.vectors import Vector
from mesos_actor.actors.ids import FrameworkId, Role
from mesos_actor.actors.resources import total as sum_of


def shares(tree: RoleTree) -> list[tuple[Role, FrameworkId | None, int]]:
    """See `Allocator.shares`: without weights, so that they can be compared with what the weights promise."""
    found: list[tuple[Role, FrameworkId | None, int]] = []
    for path in sorted(tree.roles):
        node, role = tree.roles[path], Role(path)
        found.append((role, None, tree.share_of(node.amounts)))
        found += [(role, name, tree.share_of(node.clients[name].amounts)) for name in sorted(node.clients)]
    return found


def explain(state: Competition, framework: FrameworkId, now_us: int) -> list[Refusal]:
    """See `Allocator.explain`."""
    known = state.frameworks.get(framework)
    if known is None or not known.is_known:
        return []
    refusals = []
    for pool in state.agents.values():
        for role in sorted(known.roles):
            reason, text = _why(state, known, known.clients[role], pool, now_us)
            refusals.append(Refusal(pool.agent_id, role, reason, text))
    return refusals


def _why(
    state: Competition, framework: FrameworkState, client: Client, pool: AgentPool, now_us: int
) -> tuple[str, str]:
    """Reason and text; the widest cause first."""
    if not framework.is_active:
        return "inactive-framework", "the framework is not connected"
    if client.role in framework.suppressed:
        return "suppressed", f"the framework suppressed offers for the role '{client.role}'"
    if not pool.active:
        return "inactive-agent", "the agent is not connected"
    if client.wanted is not None and client.wanted.is_met:
        return "demand", "its unanswered offers and its launches make up all that it asked for"
    if framework.is_full:
        return "hoarding", "its unanswered offers hold as much of the cluster as they may"
    if not any(pool.free_vector):
        return "taken", f"nothing is free: {_holders(pool)}"
    bundle = pool.offerable(client)
    if not any(bundle[1]):
        roles = ", ".join(sorted(pool.free.roles()))
        return "reserved", f"what is free ({pool.free}) is reserved for {roles}"
    if not state.is_allocatable(bundle[1]):
        return "too-small", f"{bundle[0]} is less than the least that is offered"
    if client.wanted is not None and not client.wanted.fits(bundle[1]):
        return "too-small", f"{bundle[0]} holds no task that it still asks for"
    obstacle = state.obstacle(client, pool, bundle)
    if obstacle == "hoarding":
        return "hoarding", "with this agent its unanswered offers would hold more of the cluster than they may"
    if obstacle == "filtered":
        until_us = max(one.until_us for one in client.filters[pool.agent_id] if one.blocks(bundle[0], pool.version))
        if until_us > now_us:
            return "filtered", f"it declined this agent; asked again in {(until_us - now_us) / 1_000_000:.1f} s"
    return "share", "it is open to the framework; others with a smaller share go first"


def _holders(pool: AgentPool) -> str:
    names = sorted(f"{client.framework_id} ({client.role})" for client in pool.taken)
    if not names:
        return "the agent has nothing to give"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"held by {', '.join(names[:3])}{more}"


# -- cross-references


def check(state: Competition) -> None:
    """Raises AssertionError when anything that is kept twice differs."""
    zero = state.kinds.zero
    totals = zero
    held: dict[Client, tuple[Vector, int]] = dict.fromkeys(state.tree.clients(), (zero, 0))
    for agent_id, pool in state.agents.items():
        assert pool.agent_id == agent_id
        _check_pool(state, pool)
        totals = tuple(map(add, totals, pool.total_vector))
        for client, (_, vector) in pool.taken.items():
            amounts, count = held[client]
            held[client] = (tuple(map(add, amounts, vector)), count + 1)
    assert totals == state.totals, f"totals are {totals}, kept {state.totals}"
    assert all(pool.agent_id in state.agents for pool in [*state.open, *state.dirty])
    for client, (amounts, count) in held.items():
        assert amounts == client.amounts, f"{client.name} holds {amounts}, kept {client.amounts}"
        assert count == client.holds, f"{client.name} holds something on {count} agents, kept {client.holds}"
    _check_frameworks(state)
    state.filters.check(state.tree.clients())
    _check_roles(state.tree, zero)


def _check_pool(state: Competition, pool: AgentPool) -> None:
    vector = state.kinds.vector
    name = pool.agent_id
    for resources, amounts in [(pool.free, pool.free_vector), (pool.total, pool.total_vector)]:
        assert amounts == vector(resources), f"{name}: {resources} is kept as {amounts}"
    assert min(pool.free_vector, default=0) >= 0
    taken = sum_of(resources for resources, _ in pool.taken.values())
    if not pool.is_short:
        assert sum_of([taken, pool.free]) == pool.total, f"{name}: {taken} and {pool.free} are not {pool.total}"
        for resources, amounts in pool.taken.values():
            assert amounts == vector(resources), f"{name}: {resources} is kept as {amounts}"
    assert pool.total.contains(pool.free)
    should_be_open = pool.active and state.is_allocatable(pool.free_vector)
    assert (pool in state.open) == should_be_open, f"{name}: open is {not should_be_open}"


def _check_frameworks(state: Competition) -> None:
    clients = set(state.tree.clients())
    for name, framework in state.frameworks.items():
        assert framework.is_known or framework.clients, f"{name} is unknown and holds nothing"
        assert framework.is_known or not framework.is_active
        assert framework.roles <= framework.clients.keys()
        outstanding = state.kinds.zero
        for role, client in framework.clients.items():
            clients.remove(client)
            assert (client.framework_id, client.role) == (name, role)
            assert role in framework.roles or client.holds, f"{name} is in {role} for nothing"
            assert (client.entry is not None) == state.may_compete(client), f"{name} in {role}: competes wrongly"
            is_waiting = client.entry is not None and client.wanted is not None
            assert (client in state.waiting) == is_waiting
            for vector in client.unanswered.values():
                outstanding = tuple(map(add, outstanding, vector))
        assert outstanding == framework.outstanding, f"{name} has {outstanding} in offers, kept {framework.outstanding}"
    assert not clients, "clients of frameworks that do not exist"


def _check_roles(tree: RoleTree, zero: Vector) -> None:
    _check_order(tree, tree.root)
    for path, role in tree.roles.items():
        assert role.path == path
        assert role.clients or role.children, f"the role {path} stands for nobody"
        assert (role.own is role) == (not role.children)
        own = zero
        for client in role.clients.values():
            assert client.parent is role.own
            own = tuple(map(add, own, client.amounts))
        assert own == role.own.amounts if role.children else True
        amounts = own
        for child in role.children.values():
            assert child.parent is role
            amounts = tuple(map(add, amounts, child.amounts))
        assert amounts == role.amounts, f"the role {path} holds {amounts}, kept {role.amounts}"
        _check_order(tree, role)
        if role.children:
            _check_order(tree, role.own)


def _check_order(tree: RoleTree, group: Group) -> None:
    assert group.order == sorted(group.order), f"{group.name} is out of order"
    for entry in group.order:
        node = entry[3]
        assert node.entry is entry and node.parent is group
        assert entry == tree.entry_of(node), f"{node.name} stands at {entry[:3]}, should at {tree.entry_of(node)[:3]}"
    assert group.parent is None or (group.entry is not None) == bool(group.order)
    if isinstance(group, RoleNode):
        assert group.path.rpartition("/")[2] == group.name
