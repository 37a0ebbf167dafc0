"""One run of the allocator: for each agent that has something to give, who is given it.

Agents are visited in random order; whoever is next (drf.py) and may have it is given all that it may take of an agent;
then the next one, while anything allocatable is left. (Mesos: hierarchical.cpp `__generateOffers`)
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.competition import Competition
from mesos_actor.actors.core.nodes import Client

STARVATION_RUNS = 10
"""A framework whose declared demand was passed over in so many runs that made offers, times the number of those that
wait with it, goes before all others, the longest waiting first. Times the number, because where a run has one agent to
give, even a fair turn comes only every so many runs."""

PARK_FROM_AGENTS = 8
"""From so many agents in a run on, clients that can get none of them are taken out of the order first."""


def run(state: Competition, candidates: list[AgentPool], rng: random.Random) -> list[Allocation]:
    """Every offer that can be made of `candidates`, which are open; their order is changed."""
    rng.shuffle(candidates)
    parked = _park(state, candidates)
    hasty = _starving(state)
    offers: list[Allocation] = []
    first, charge, is_bounded, still_open = state.tree.first, state.tree.charge, state.hoarding.is_set, state.open
    for pool in candidates:
        client = first()
        if client is None:
            break
        if pool.is_plain and not (client.filters or client.wanted or hasty or is_bounded):
            # What `_visit` comes to for nearly every agent of a big run, without its questions.
            resources, vector = pool.take_all(client)
            charge(client, vector, 1)
            del still_open[pool]
            offers.append(Allocation(client.framework_id, pool.agent_id, client.role, resources))
        else:
            _visit(state, pool, hasty, offers)
    for client in parked:
        if state.may_compete(client):
            state.tree.enter(client)
    state.runs += bool(offers)
    return offers


def _visit(state: Competition, pool: AgentPool, hasty: list[Client], offers: list[Allocation]) -> None:
    """Offer what is free of one agent, to one after the other."""
    while pool in state.open:
        for client in _contenders(state, pool, hasty):
            bundle = pool.offerable(client)
            if not state.obstacle(client, pool, bundle):
                break
        else:
            return
        state.grant(pool, client, bundle)
        offers.append(Allocation(client.framework_id, pool.agent_id, client.role, bundle[0]))
        if client in hasty:
            hasty.remove(client)


def _contenders(state: Competition, pool: AgentPool, hasty: list[Client]) -> Iterator[Client]:
    """Who may come into question, the next one first. Nothing may change before the last one that is asked for."""
    yield from hasty
    if pool.is_plain or state.is_allocatable(pool.unreserved_vector()):
        yield from state.tree.walk()
    else:
        yield from state.tree.walk_roles(role for role in pool.free.roles() if role != "*")


def _starving(state: Competition) -> list[Client]:
    """Those whose demand was passed over too often, the longest waiting first."""
    latest = state.runs - STARVATION_RUNS * len(state.waiting)
    late = [client for client in state.waiting if client.waits_since <= latest and client.entry is not None]
    return sorted(late, key=lambda client: (client.waits_since, client.framework_id, client.role))


def _park(state: Competition, candidates: list[AgentPool]) -> list[Client]:
    """Take those out of the order who can get none of these agents, so that they cost nothing for each of them."""
    if len(candidates) < PARK_FROM_AGENTS:
        return []
    most = tuple(map(max, *(pool.free_vector for pool in candidates))) if state.waiting else ()
    parked = [
        client
        for client in state.tree.walk()
        if (client.wanted is not None and not client.wanted.fits(most))
        or (len(client.filters) >= len(candidates) and _is_walled(state, client, candidates))
    ]
    for client in parked:
        state.tree.leave(client)
    return parked


def _is_walled(state: Competition, client: Client, candidates: list[AgentPool]) -> bool:
    """Whether filters block all of these agents. What they have only shrinks during a run, so it stays true."""
    if client.walled == state.growth:
        return True
    filters = client.filters
    for pool in candidates:
        there = filters.get(pool.agent_id)
        if there is None:
            return False
        if there[0].seen != pool.version:
            resources, _ = pool.offerable(client)
            if not any(one.blocks(resources, pool.version) for one in there):
                return False
    if len(candidates) == len(state.open):
        client.walled = state.growth
    return True
