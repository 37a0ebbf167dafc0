"""Safety properties of the allocator under any sequence of events: something bad never happens."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.messages.values import Demand
from mesos_actor.actors.resources import Attributes, Resources, total

ROLES = [Role(name) for name in ("*", "eng", "eng/web", "ops", "ops/db/x")]
AGENTS = [AgentId(f"a{number}") for number in range(4)]
FRAMEWORKS = [FrameworkId(f"f{number}") for number in range(4)]
TOTALS = [
    Resources.parse(text)
    for text in (
        "cpus:4;mem:400;ports:[1-99]",
        "cpus:2;mem:1000;disk:5;cpus(eng):2;mem(ops):64",
        "cpus:1;gpus:2",
        "mem:10;cpus(eng/web):1;ports(ops/db):[1-9]",
        "cpus:0.001;mem:5",
    )
]
SHAPES = [Resources.parse(text) for text in ("cpus:1", "mem:100", "cpus:3;mem:10", "gpus:1", "")]

roles = st.lists(st.sampled_from(ROLES), max_size=3, unique=True)
agents = st.sampled_from(AGENTS)
frameworks = st.sampled_from(FRAMEWORKS)
a_role = st.sampled_from(ROLES)
totals = st.sampled_from(TOTALS)
Key = tuple[FrameworkId, AgentId, Role]


class Cluster(RuleBasedStateMachine):
    """What a master would know, kept beside what the allocator knows."""

    bound_permille = 1_000

    def __init__(self) -> None:
        super().__init__()
        self.allocator = DrfAllocator(self.bound_permille)
        self.now_us = 0
        self.totals: dict[AgentId, Resources] = {}
        self.held: dict[Key, Resources] = {}
        self.roles: dict[FrameworkId, set[Role]] = {}
        self.silent: set[FrameworkId | tuple[FrameworkId, Role]] = set()
        self.inactive: set[AgentId] = set()
        self.filters: list[tuple[Key, Resources, int]] = []

    # -- frameworks

    @rule(framework=frameworks, wanted=roles, suppressed=roles)
    def add_framework(self, framework: FrameworkId, wanted: list[Role], suppressed: list[Role]) -> None:
        self.allocator.add_framework(framework, wanted, suppressed)
        self.silent.discard(framework)
        self._subscribe(framework, wanted, suppressed)

    @rule(framework=frameworks, wanted=roles, suppressed=roles)
    def update_framework(self, framework: FrameworkId, wanted: list[Role], suppressed: list[Role]) -> None:
        self.allocator.update_framework(framework, wanted, suppressed)
        if framework in self.roles:
            self._subscribe(framework, wanted, suppressed)

    @rule(framework=frameworks)
    def remove_framework(self, framework: FrameworkId) -> None:
        self.allocator.remove_framework(framework)
        if self.roles.pop(framework, None) is not None:
            self._forget(lambda key: key[0] == framework)

    @rule(framework=frameworks, active=st.booleans())
    def set_framework_active(self, framework: FrameworkId, active: bool) -> None:
        self.allocator.set_framework_active(framework, active)
        if framework in self.roles and not active:
            self.silent.add(framework)
            self._forget(lambda key: key[0] == framework)
        elif framework in self.roles:
            self.silent.discard(framework)

    @rule(framework=frameworks, which=roles)
    def revive(self, framework: FrameworkId, which: list[Role]) -> None:
        self.allocator.revive(framework, which)
        for role in which or ROLES:
            self.silent.discard((framework, role))
        self._forget(lambda key: key[0] == framework and (not which or key[2] in which))

    @rule(framework=frameworks, which=roles)
    def suppress(self, framework: FrameworkId, which: list[Role]) -> None:
        self.allocator.suppress(framework, which)
        for role in self.roles.get(framework, set()):
            if not which or role in which:
                self.silent.add((framework, role))

    @rule(
        framework=frameworks,
        demands=st.lists(st.builds(Demand, st.sampled_from(ROLES), st.sampled_from(SHAPES), st.integers(0, 3))),
    )
    def set_demand(self, framework: FrameworkId, demands: list[Demand]) -> None:
        self.allocator.set_demand(framework, demands)

    @rule(role=st.sampled_from(ROLES), weight_milli=st.sampled_from([1, 500, 1_000, 9_000]))
    def set_weight(self, role: Role, weight_milli: int) -> None:
        self.allocator.set_weight(role, weight_milli)

    # -- agents

    @rule(
        agent=agents, resources=totals, framework=frameworks, role=st.sampled_from(ROLES), numerator=st.integers(0, 2)
    )
    def add_agent(
        self, agent: AgentId, resources: Resources, framework: FrameworkId, role: Role, numerator: int
    ) -> None:
        used = {(framework, role): Resources(resources.for_role(role).entries[:numerator])}
        self._lose(agent)
        self.allocator.add_agent(agent, resources, Attributes(), used)
        self.totals[agent] = resources
        if numerator:
            self._hold((framework, agent, role), used[framework, role])

    @rule(agent=agents, resources=totals)
    def update_agent(self, agent: AgentId, resources: Resources) -> None:
        self.allocator.update_agent(agent, resources, Attributes())
        if agent in self.totals:
            self.totals[agent] = resources
            self._forget(lambda key: key[1] == agent)

    @rule(agent=agents)
    def remove_agent(self, agent: AgentId) -> None:
        self.allocator.remove_agent(agent)
        self._lose(agent)

    @rule(agent=agents, active=st.booleans())
    def set_agent_active(self, agent: AgentId, active: bool) -> None:
        self.allocator.set_agent_active(agent, active)
        if agent in self.totals:
            (self.inactive.discard if active else self.inactive.add)(agent)

    @rule(agent=agents, framework=frameworks, role=st.sampled_from(ROLES), resources=st.sampled_from(SHAPES))
    def add_used(self, agent: AgentId, framework: FrameworkId, role: Role, resources: Resources) -> None:
        self.allocator.add_used(agent, framework, role, resources)
        if agent in self.totals and resources:
            self._hold((framework, agent, role), resources)

    # -- offers and answers

    @rule(seed=st.integers(0, 9), batch=st.booleans())
    def allocate(self, seed: int, batch: bool) -> None:
        rng = random.Random(seed)
        make = self.allocator.allocate_all if batch else self.allocator.allocate
        for offer in make(self.now_us, rng):
            self._judge(offer)
            self._hold((offer.framework_id, offer.agent_id, offer.role), offer.resources)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), refuse_us=st.sampled_from([0, 1, 1_000]), accepts=st.booleans())
    def give_back(self, data: Any, refuse_us: int, accepts: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.held)))
        framework, agent, role = key
        held = self.held.pop(key)
        part = Resources(tuple(data.draw(st.lists(st.sampled_from(held.entries), unique=True).map(sorted_entries))))
        rest = held - part
        if rest:
            self.held[key] = rest
            if accepts:
                self.allocator.accepted(framework, agent, role, rest)
        until_us = self.now_us + refuse_us if refuse_us else 0
        self.allocator.recover(framework, agent, role, part, until_us)
        if until_us and part and role in self.roles.get(framework, set()):
            self.filters.append((key, part, until_us))

    @rule(time_us=st.sampled_from([1, 500, 2_000]))
    def wait(self, time_us: int) -> None:
        self.now_us += time_us

    # -- what never happens

    @invariant()
    def accounts_agree(self) -> None:
        self.allocator.check()

    @invariant()
    def shares_are_those_of_what_is_held(self) -> None:
        cluster = total(self.totals.values()).scalars()
        found = {(role, name): share for role, name, share in self.allocator.shares() if name is not None}
        held: dict[tuple[Role, FrameworkId], list[Resources]] = {
            (role, name): [] for name, own in self.roles.items() for role in own
        }
        for (framework, _, role), resources in self.held.items():
            held.setdefault((role, framework), []).append(resources)
        for key, bundles in held.items():
            amounts = total(bundles).scalars()
            shares = [amounts.get(name, 0) * 1_000_000 // amount for name, amount in cluster.items()]
            assert max(shares, default=0) == found.pop(key)
        assert found == {}

    @invariant()
    def explaining_never_fails(self) -> None:
        for framework in FRAMEWORKS:
            found = self.allocator.explain(framework, self.now_us)
            assert len(found) == len(self.totals) * len(self.roles.get(framework, ()))

    def _judge(self, offer: Allocation) -> None:
        framework, agent, role = offer.framework_id, offer.agent_id, offer.role
        assert framework in self.roles and role in self.roles[framework]
        assert framework not in self.silent and (framework, role) not in self.silent
        assert agent in self.totals and agent not in self.inactive
        assert self.totals[agent].contains(offer.resources)
        assert offer.resources.for_role(role) == offer.resources, "reserved for somebody else"
        assert offer.resources.scalar("cpus") >= 10 or offer.resources.scalar("mem") >= 32_000
        for key, refused, until_us in self.filters:
            is_same = key == (framework, agent, role) and self.now_us < until_us
            assert not (is_same and refused.contains(offer.resources)), "it declined that"
        others = total(resources for key, resources in self.held.items() if key[1] == agent)
        if self.totals[agent].contains(others):
            assert (self.totals[agent] - others).contains(offer.resources), "offered twice"

    def _subscribe(self, framework: FrameworkId, wanted: list[Role], suppressed: list[Role]) -> None:
        self.roles[framework] = set(wanted)
        for role in ROLES:
            (self.silent.add if role in suppressed else self.silent.discard)((framework, role))
        self._forget(lambda key: key[0] == framework and key[2] not in wanted)

    def _hold(self, key: Key, resources: Resources) -> None:
        self.held[key] = self.held.get(key, Resources()) + resources

    def _lose(self, agent: AgentId) -> None:
        self.totals.pop(agent, None)
        self.inactive.discard(agent)
        self.held = {key: resources for key, resources in self.held.items() if key[1] != agent}
        self._forget(lambda key: key[1] == agent)

    def _forget(self, matches: Any) -> None:
        self.filters = [entry for entry in self.filters if not matches(entry[0])]


class BoundedCluster(Cluster):
    bound_permille = 300


def sorted_entries(entries: Any) -> Any:
    return sorted(entries, key=lambda entry: (entry.name, entry.role))


TestCluster = pytest.mark.slow(Cluster.TestCase)
TestCluster.settings = settings(max_examples=60, stateful_step_count=40)
TestBoundedCluster = pytest.mark.slow(BoundedCluster.TestCase)
TestBoundedCluster.settings = settings(max_examples=40, stateful_step_count=40)


@pytest.mark.slow
@settings(max_examples=25)
@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.integers(20, 60),
    st.integers(0, 2**32),
)
def test_two_that_take_everything_hold_what_their_weights_say(weights: tuple[int, int], count: int, seed: int) -> None:
    """Within one agent of a whole share."""
    allocator, rng = DrfAllocator(), random.Random(seed)
    for name, role, weight in zip(FRAMEWORKS, ("x", "y/z"), weights, strict=False):
        allocator.add_framework(name, (Role(role),), ())
        allocator.set_weight(Role(role[0]), weight * 1_000)
    for number in range(count):
        allocator.add_agent(AgentId(f"a{number}"), Resources.of(cpus=4, mem=64), Attributes(), {})

    held = allocator.allocate(0, rng)
    for _ in range(3 * count):
        freed = held.pop(rng.randrange(len(held)))
        allocator.recover(freed.framework_id, freed.agent_id, freed.role, freed.resources)
        held += allocator.allocate(0, rng)

        first = sum(offer.framework_id == FRAMEWORKS[0] for offer in held)
        assert abs(first - count * weights[0] / sum(weights)) <= 1


@pytest.mark.slow
@settings(max_examples=15)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_the_same_seed_gives_the_same_offers(seed: int, count: int) -> None:
    def story() -> list[Allocation]:
        allocator, rng, made = DrfAllocator(), random.Random(seed), []
        for number, role in enumerate(ROLES):
            allocator.add_framework(FRAMEWORKS[number % 4], (role,), ())
        for number in range(count):
            allocator.add_agent(AgentId(f"a{number}"), rng.choice(TOTALS), Attributes(), {})
        for _ in range(5):
            made += allocator.allocate(0, rng)
            for offer in rng.sample(made, len(made) // 2):
                if offer in made[-count:]:
                    made.remove(offer)
                    allocator.recover(offer.framework_id, offer.agent_id, offer.role, offer.resources)
        return made

    assert story() == story()
