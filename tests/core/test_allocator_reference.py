"""The allocator against a naive one that sorts everything, with fractions, before every pick."""

from __future__ import annotations

import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.core.agent_pool import AgentPool
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Attributes, Resources, total

ROLES = ["*", "eng", "eng/web", "eng/web/x", "ops", "ops/db"]
TOTALS = [
    "cpus:4;mem:400",
    "cpus:2;mem:1000;disk:5;ports:[1-9]",
    "cpus:8;mem:64;cpus(eng):1",
    "mem:128;mem(eng/web):64;cpus(ops):2;gpus(ops):1",
    "ports:[1-5];cpus(eng):2;cpus(eng/web):1;cpus(ops/db):1;ports(ops):[7-9]",
    "cpus:0.001;mem:5;mem(eng):28",
]
SECOND_US = 1_000_000


class ByName(random.Random):
    """Agents are visited by name."""

    def shuffle(self, x: Any) -> None:
        x.sort(key=_name_of)


def _name_of(pool: AgentPool) -> str:
    return pool.agent_id


class Naive:
    """The rules of docs/allocator.md but demand and hoarding, written down in the shortest way."""

    def __init__(self) -> None:
        self.totals: dict[str, Resources] = {}
        self.taken: dict[tuple[str, str, str], Resources] = {}
        self.clients: dict[tuple[str, str], bool] = {}
        self.weights: dict[str, int] = {}
        self.picks: dict[str, int] = {}
        self.filters: list[tuple[tuple[str, str, str], Resources, int]] = []

    def free(self, agent: str) -> Resources:
        return self.totals[agent] - total(r for (_, _, a), r in self.taken.items() if a == agent)

    def share(self, path: str) -> Fraction:
        """Of a role with all below it, `role/.` for its own frameworks, or `role/./framework`."""
        cluster = total(self.totals.values()).scalars()
        held = total(r for (f, role, _), r in self.taken.items() if f"{role}/./{f}/".startswith(f"{path}/")).scalars()
        return max((Fraction(held.get(name, 0), amount) for name, amount in cluster.items()), default=Fraction(0))

    def key(self, path: str, name: str, is_role: bool) -> tuple[Fraction, int, str]:
        weight = self.weights.get(path, 1_000) if is_role else 1_000
        return (self.share(path) / weight, self.picks.get(path, 0), name)

    def order(self, above: str = "") -> Iterator[tuple[str, str]]:
        children = {role[len(above) :].split("/")[0] for _, role in self.clients if role.startswith(above)}
        own = [f for f, role in self.clients if above and f"{role}/" == above]
        keys = [self.key(above + child, child, True) for child in children]
        if own and children:
            keys.append(self.key(f"{above}.", ".", False))
        for _, _, name in sorted(keys):
            if name == ".":
                yield from self.own(above, own)
            else:
                yield from self.order(f"{above}{name}/")
        if own and not children:
            yield from self.own(above, own)

    def own(self, above: str, names: list[str]) -> Iterator[tuple[str, str]]:
        for _, _, name in sorted(self.key(f"{above}./{name}", name, False) for name in names):
            if self.clients[name, above[:-1]]:
                yield name, above[:-1]

    def allocate(self, now_us: int) -> list[tuple[str, str, str, Resources]]:
        self.filters = [entry for entry in self.filters if entry[2] > now_us]
        offers = []
        for agent in sorted(self.totals):
            while found := self.pick(agent):
                framework, role, resources = found
                key = (framework, role, agent)
                self.taken[key] = self.taken.get(key, Resources()) + resources
                parts = f"{role}/./{framework}".split("/")
                for end in range(1, len(parts) + 1):
                    path = "/".join(parts[:end])
                    self.picks[path] = self.picks.get(path, 0) + 1
                offers.append((framework, agent, role, resources))
        return offers

    def pick(self, agent: str) -> tuple[str, str, Resources] | None:
        free = self.free(agent)
        for framework, role in self.order():
            resources = free.for_role(role)
            key = (framework, role, agent)
            is_blocked = any(key == k and refused.contains(resources) for k, refused, _ in self.filters)
            if not is_blocked and (resources.millicpus() >= 10 or resources.scalar("mem") >= 32_000):
                return framework, role, resources
        return None


class Both:
    """The same deeds done to both."""

    def __init__(self, frameworks: list[list[str]], totals: list[str]) -> None:
        self.fast, self.naive, self.now_us = DrfAllocator(), Naive(), 0
        for number, roles in enumerate(frameworks):
            name = FrameworkId(f"f{number}")
            self.fast.add_framework(name, [Role(role) for role in roles], ())
            for role in roles:
                self.naive.clients[name, role] = True
        for number, text in enumerate(totals):
            agent, resources = AgentId(f"a{number}"), Resources.parse(text)
            self.fast.add_agent(agent, resources, Attributes(), {})
            self.naive.totals[agent] = resources

    def allocate(self) -> None:
        expected = self.naive.allocate(self.now_us)
        actual = [as_tuple(offer) for offer in self.fast.allocate(self.now_us, ByName())]
        self.fast.check()

        assert expected == actual

    def give_back(self, number: int, half: bool, refuse_us: int) -> None:
        keys = sorted(self.naive.taken)
        if keys:
            framework, role, agent = key = keys[number % len(keys)]
            held = self.naive.taken.pop(key)
            part = Resources(held.entries[::2]) if half else held
            if rest := held - part:
                self.naive.taken[key] = rest
            until = self.now_us + refuse_us if refuse_us else 0
            self.fast.recover(FrameworkId(framework), AgentId(agent), Role(role), part, until)
            if until:
                self.naive.filters.append((key, part, until))

    def weigh(self, role: str, weight_milli: int) -> None:
        self.fast.set_weight(Role(role), weight_milli)
        self.naive.weights[role] = weight_milli

    def suppress(self, number: int) -> None:
        framework, role = sorted(self.naive.clients)[number % len(self.naive.clients)]
        self.fast.suppress(FrameworkId(framework), (Role(role),))
        self.naive.clients[framework, role] = False

    def revive(self, number: int) -> None:
        framework, role = sorted(self.naive.clients)[number % len(self.naive.clients)]
        self.fast.revive(FrameworkId(framework), (Role(role),))
        self.naive.clients[framework, role] = True
        self.naive.filters = [entry for entry in self.naive.filters if entry[0][:2] != (framework, role)]

    def grow(self, number: int, text: str) -> None:
        agent = sorted(self.naive.totals)[number % len(self.naive.totals)]
        grown = self.naive.totals[agent] + Resources.parse(text)
        self.naive.totals[agent] = grown
        self.fast.update_agent(AgentId(agent), grown, Attributes())
        self.naive.filters = [entry for entry in self.naive.filters if entry[0][2] != agent]

    def wait(self, time_us: int) -> None:
        self.now_us += time_us


def as_tuple(offer: Allocation) -> tuple[str, str, str, Resources]:
    return (offer.framework_id, offer.agent_id, offer.role, offer.resources)


numbers = st.integers(0, 11)
deeds = st.one_of(
    st.tuples(st.just("allocate")),
    st.tuples(st.just("give_back"), numbers, st.booleans(), st.sampled_from([0, 0, 1, 5, 20]).map(SECOND_US.__mul__)),
    st.tuples(st.just("weigh"), st.sampled_from(ROLES), st.sampled_from([1, 333, 1_000, 2_000, 7_000])),
    st.tuples(st.just("suppress"), numbers),
    st.tuples(st.just("revive"), numbers),
    st.tuples(st.just("grow"), numbers, st.sampled_from(["cpus:1", "mem(eng):40", "gpus:1;cpus:0.5"])),
    st.tuples(st.just("wait"), st.sampled_from([1, 5, 20]).map(SECOND_US.__mul__)),
)


@pytest.mark.slow
@given(
    st.lists(st.lists(st.sampled_from(ROLES), min_size=1, max_size=3, unique=True), min_size=1, max_size=5),
    st.lists(st.sampled_from(TOTALS), min_size=1, max_size=5),
    st.lists(deeds, max_size=25),
)
def test_the_same_offers_in_the_same_order(
    frameworks: list[list[str]], totals: list[str], steps: list[tuple[Any, ...]]
) -> None:
    """Also: `allocate`, which looks at what changed, finds all that looking at everything would."""
    both = Both(frameworks, totals)
    for name, *arguments in steps:
        getattr(both, name)(*arguments)
        both.fast.check()
    both.allocate()


@pytest.mark.slow
@settings(max_examples=10)
@given(st.integers(8, 14), st.integers(1, 8), st.randoms(use_true_random=False))
def test_the_same_offers_when_runs_are_big_enough_to_park_who_can_get_nothing(
    agents: int, frameworks: int, rng: random.Random
) -> None:
    both = Both([[rng.choice(ROLES)] for _ in range(frameworks)], [rng.choice(TOTALS) for _ in range(agents)])
    both.allocate()
    for _ in range(2):
        for number in range(len(both.naive.taken)):
            both.give_back(number, rng.random() < 0.2, rng.choice([0, 5, 5, 5]) * SECOND_US)
        both.wait(rng.choice([1, 2]) * SECOND_US)
        both.allocate()
        both.allocate()
