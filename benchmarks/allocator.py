"""How long the allocator takes, beside a naive one in the same run: `python benchmarks/allocator.py`.

A cycle: every agent has something to give and is offered. Agents have cpus, mem, disk and ports, every second one is
half used, roles have weights from 1 to 5.75. The naive one keeps its accounts as dictionaries and sorts roles and
frameworks anew for every agent; it knows no reservations, filters or demand, of which there are none here. It is run
over NAIVE_AGENTS and its time is scaled up.
An event: resources of one agent come back and are offered again, both calls together.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from functools import partial

from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Attributes, Resources

CASES = [(1_000, 100, 20), (10_000, 1_000, 20), (50_000, 200, 20), (10_000, 1_000, 1)]
LIMITS_MS = {1_000: 30, 10_000: 300, 50_000: 1_000}
ROUNDS = 3
EVENTS = 5_000
NAIVE_AGENTS = 500

TOTALS = [
    Resources.parse(f"cpus:{cpus};mem:{cpus * gb}GiB;disk:{cpus * 100};ports:[31000-32000]")
    for cpus in (8, 16, 32, 64)
    for gb in (2, 4, 8)
]
HALVES = [
    Resources.of(cpus=total.scalar("cpus") // 2_000, mem=total.scalar("mem") // 2_000, disk=200) for total in TOTALS
]


class Naive:
    """Weighted dominant shares of roles, then of frameworks, everything sorted before every agent."""

    def __init__(self) -> None:
        self.weights: dict[Role, int] = {}
        self.frameworks: dict[Role, list[FrameworkId]] = {}
        self.held: dict[tuple[Role, FrameworkId | None], dict[str, int]] = {}
        self.totals: dict[str, int] = {}
        self.free: dict[AgentId, Resources] = {}

    def hold(self, role: Role, framework: FrameworkId, resources: Resources) -> None:
        for key in ((role, None), (role, framework)):
            held = self.held.setdefault(key, {})
            for name, amount in resources.scalars().items():
                held[name] = held.get(name, 0) + amount

    def share(self, role: Role, framework: FrameworkId | None) -> float:
        held = self.held.get((role, framework), {})
        return max((amount / self.totals[name] for name, amount in held.items()), default=0.0)

    def allocate_some(self, rng: random.Random) -> list[Allocation]:
        """Offers of NAIVE_AGENTS at most: more of them take proportionally longer, and minutes."""
        agents = list(self.free)
        rng.shuffle(agents)
        offers = []
        for agent in agents[:NAIVE_AGENTS]:
            role = min(self.frameworks, key=lambda role: (self.share(role, None) / self.weights[role], role))
            framework = min(self.frameworks[role], key=lambda name: (self.share(role, name), name))
            resources = self.free.pop(agent)
            self.hold(role, framework, resources)
            offers.append(Allocation(framework, agent, role, resources))
        return offers


def build(agents: int, frameworks: int, roles: int) -> tuple[DrfAllocator, Naive]:
    ours, naive, rng = DrfAllocator(), Naive(), random.Random(1)
    names = [Role(f"role-{number:02d}") for number in range(roles)]
    for number, role in enumerate(names):
        ours.set_weight(role, 1_000 + 250 * number)
        naive.weights[role] = 1_000 + 250 * number
    for number in range(frameworks):
        framework, role = FrameworkId(f"framework-{number:04d}"), names[number % roles]
        ours.add_framework(framework, (role,), ())
        naive.frameworks.setdefault(role, []).append(framework)
    for number in range(agents):
        agent, kind, user = AgentId(f"agent-{number:05d}"), rng.randrange(len(TOTALS)), rng.randrange(frameworks)
        framework, role, total = FrameworkId(f"framework-{user:04d}"), names[user % roles], TOTALS[kind]
        used = {(framework, role): HALVES[kind]} if number % 2 else {}
        ours.add_agent(agent, total, Attributes(), used)
        naive.free[agent] = total - HALVES[kind] if used else total
        if used:
            naive.hold(role, framework, HALVES[kind])
        for name, amount in total.scalars().items():
            naive.totals[name] = naive.totals.get(name, 0) + amount
    ours.shares()  # the tree is ordered once the cluster stands
    return ours, naive


def timed_ms(step: Callable[[], list[Allocation]]) -> tuple[float, list[Allocation]]:
    gc.collect()
    gc.freeze()
    before = time.perf_counter()
    offers = step()
    spent_ms = (time.perf_counter() - before) * 1_000
    gc.unfreeze()
    return spent_ms, offers


def event_us(ours: DrfAllocator, offers: list[Allocation]) -> float:
    """All of one offer comes back and goes out again."""
    rng = random.Random(3)
    before = time.perf_counter()
    for number in range(EVENTS):
        offer = offers[number % len(offers)]
        ours.recover(offer.framework_id, offer.agent_id, offer.role, offer.resources)
        (offers[number % len(offers)],) = ours.allocate(0, rng)
    return (time.perf_counter() - before) / EVENTS * 1e6


def idle_ms(ours: DrfAllocator, offers: list[Allocation]) -> float:
    """Every framework declines every agent it is offered, for long; then the batch run."""
    while offers:
        for offer in offers:
            ours.recover(offer.framework_id, offer.agent_id, offer.role, offer.resources, 10**15)
        offers = ours.allocate(0, random.Random(4))
    return min(timed_ms(lambda: ours.allocate_all(0, random.Random(5)))[0] for _ in range(ROUNDS))


def main() -> None:
    print(" agents frameworks roles  ours ms   limit  naive ms  ratio  event us")
    for agents, frameworks, roles in CASES:
        ours_ms, event = [], []
        for _ in range(ROUNDS):
            ours, _ = build(agents, frameworks, roles)
            spent_ms, offers = timed_ms(partial(ours.allocate_all, 0, random.Random(2)))
            assert len(offers) == agents
            ours_ms.append(spent_ms)
            event.append(event_us(ours, offers))
        _, naive = build(agents, frameworks, roles)
        spent_ms, offers = timed_ms(partial(naive.allocate_some, random.Random(2)))
        best_ms, naive_ms = min(ours_ms), spent_ms * agents / len(offers)
        print(f"{agents:7,} {frameworks:10,} {roles:5} {best_ms:8.1f} {LIMITS_MS[agents]:7,}", end="")
        print(f" {naive_ms:9,.0f} {naive_ms / best_ms:6.0f} {min(event):9.1f}")
    ours, _ = build(1_000, 100, 20)
    spent_ms = idle_ms(ours, ours.allocate_all(0, random.Random(2)))
    print(f"1,000 agents, each declined by each of 100 frameworks: a batch run takes {spent_ms:.1f} ms")


if __name__ == "__main__":
    main()
