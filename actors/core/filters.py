"""What frameworks declined: "not this agent again, for so long, unless it has more than what I saw".

A filter belongs to a framework in a role and to an agent, and blocks an offer that is contained in what was refused.
(Mesos: `RefusedOfferFilter` in src/master/allocator/mesos/hierarchical.cpp)
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator

from mesos_actor.actors.core.nodes import Client, Filter
from mesos_actor.actors.ids import AgentId, FrameworkId
from mesos_actor.actors.resources import Resources

MAX_FILTERS_PER_FRAMEWORK = 200_000
"""Twice the most agents a master admits. Beyond it the framework's oldest filter is dropped: it sees an offer again."""
MAX_FILTERS_PER_AGENT = 4
"""For one framework in one role on one agent; beyond it the oldest is dropped."""

_SLACK = 64
"""Dropped filters that may lie in a queue before it is swept, besides as many as are alive."""


class FilterBook:
    """Every live filter: by client and agent (in `Client.filters`), by age for each framework, and by expiry."""

    def __init__(self, max_per_framework: int = MAX_FILTERS_PER_FRAMEWORK) -> None:
        self._max_per_framework = max_per_framework
        self._expiries: list[tuple[int, int, Filter]] = []
        """A heap of (until, number, filter); dropped ones stay until they are met or swept."""
        self._ages: dict[FrameworkId, deque[Filter]] = {}
        """Oldest first; dropped ones stay until they are met or swept."""
        self._alive: dict[FrameworkId, int] = {}
        """How many of them are alive, for each framework with any."""
        self._all_alive = 0
        self._number = 0

    def add(self, client: Client, agent: AgentId, resources: Resources, until_us: int) -> None:
        """`client` refused `resources` of `agent` until then."""
        there = client.filters.get(agent, [])
        for old in [f for f in there if f.until_us <= until_us and resources.contains(f.resources)]:
            self._drop(old)
        if len(there) >= MAX_FILTERS_PER_AGENT:
            self._drop(there[0])
        name = client.framework_id
        ages = self._ages.setdefault(name, deque())
        while self._alive.get(name, 0) >= self._max_per_framework:
            oldest = ages.popleft()
            if not oldest.is_dropped:
                self._drop(oldest)
        made = Filter(client, agent, resources, until_us)
        client.filters.setdefault(agent, []).append(made)
        self._ages.setdefault(name, ages).append(made)
        self._number += 1
        heapq.heappush(self._expiries, (until_us, self._number, made))
        self._alive[name] = self._alive.get(name, 0) + 1
        self._all_alive += 1
        self._sweep(name)

    def drop_client(self, client: Client) -> None:
        """It wants to see everything again, or is no more."""
        for filters in list(client.filters.values()):
            for one in list(filters):
                self._drop(one)

    def drop_agent(self, clients: Iterable[Client], agent: AgentId) -> None:
        """The agent changed or went: what anybody said of it counts no more."""
        for client in clients:
            for one in list(client.filters.get(agent, ())):
                self._drop(one)

    def expire(self, now_us: int) -> Iterator[AgentId]:
        """Drop those that run out now or ran out before; yields the agents they were about."""
        heap = self._expiries
        while heap and heap[0][0] <= now_us:
            one = heapq.heappop(heap)[2]
            if not one.is_dropped:
                self._drop(one)
                yield one.agent

    def next_expiry_us(self) -> int | None:
        """When the next live filter runs out; None when there is none."""
        heap = self._expiries
        while heap and heap[0][2].is_dropped:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def __len__(self) -> int:
        return self._all_alive

    def check(self, clients: Iterable[Client]) -> None:
        """Every live filter is where it belongs, and counted once."""
        found: dict[FrameworkId, int] = {}
        for client in clients:
            for agent, filters in client.filters.items():
                assert filters, f"{client.framework_id} has an empty list of filters on {agent}"
                assert len(filters) <= MAX_FILTERS_PER_AGENT
                assert all(f.agent == agent and f.client is client for f in filters)
                found[client.framework_id] = found.get(client.framework_id, 0) + len(filters)
        assert found == self._alive, f"filters counted {self._alive}, found {found}"
        assert sum(found.values()) == self._all_alive
        assert sum(not f.is_dropped for _, _, f in self._expiries) == self._all_alive
        for name, ages in self._ages.items():
            assert sum(not f.is_dropped for f in ages) == self._alive.get(name, 0)
        assert self._ages.keys() == self._alive.keys()

    def _drop(self, one: Filter) -> None:
        client = one.client
        assert not one.is_dropped, "a filter is dropped once"
        one.is_dropped = True
        filters = client.filters[one.agent]
        filters.remove(one)
        if not filters:
            del client.filters[one.agent]
        client.walled = -1
        name = client.framework_id
        self._all_alive -= 1
        self._alive[name] -= 1
        if not self._alive[name]:
            del self._alive[name], self._ages[name]

    def _sweep(self, name: FrameworkId) -> None:
        """Throw dropped filters out of the queues when they are the greater part."""
        ages = self._ages[name]
        if len(ages) > 2 * self._alive[name] + _SLACK:
            self._ages[name] = deque(f for f in ages if not f.is_dropped)
        if len(self._expiries) > 2 * self._all_alive + _SLACK:
            self._expiries = [entry for entry in self._expiries if not entry[2].is_dropped]
            heapq.heapify(self._expiries)
