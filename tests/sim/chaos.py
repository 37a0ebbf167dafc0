"""Days on which everything goes wrong: blows as plain data, so that a failing day can be shortened."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mesos_actor.testing import Chances, NetworkSettings, Plan, SeededPlan, SimCluster, WorldSettings, cluster
from tests.sim.workloads import Chores, Jobs, Worker

BAD_S = 40.0
"""For so long things go wrong; then they are calm."""
CALM_BOUND_S = 1_500.0
"""Within so much virtual time after that everything must have come to its end: a quarter of an hour after which a
framework asks about all it has, ten minutes for an agent to come back, and the work itself."""
KINDS = ("crash", "power", "stop", "pause", "cut", "one-way", "break")


@dataclass(frozen=True)
class Blow:
    """`what` happens to `who` (with `other`) at `at_s`, and is undone `lasts_s` later."""

    at_s: float
    what: str
    who: str
    other: str
    lasts_s: float
    keep_unsynced: int = 0


def blows(rng: random.Random, hosts: Sequence[str], count: int) -> list[Blow]:
    """So many blows, drawn by chance. One kind may be left out altogether, as in swarm testing."""
    kinds = [kind for kind in KINDS if rng.random() < 0.7] or list(KINDS)
    drawn = []
    for _ in range(count):
        who, other = rng.sample(list(hosts), 2)
        lasts_s = rng.choice((0.2, 1.0, 4.0, 15.0))
        drawn.append(Blow(rng.uniform(0, BAD_S), rng.choice(kinds), who, other, lasts_s, rng.randrange(3)))
    return sorted(drawn, key=lambda blow: blow.at_s)


def strike(sim: SimCluster, day: Sequence[Blow]) -> None:
    """Live through the bad time."""
    began_s = sim.now_s
    schedule: list[tuple[float, int, bool, Blow]] = []
    for number, blow in enumerate(day):
        schedule.append((blow.at_s, number, True, blow))
        schedule.append((blow.at_s + blow.lasts_s, number, False, blow))
    for at_s, _, begins, blow in sorted(schedule, key=lambda item: item[:3]):
        sim.run(max(0.0, began_s + min(at_s, BAD_S) - sim.now_s))
        (_begin if begins else _undo)(sim, blow)
    sim.run(max(0.0, began_s + BAD_S - sim.now_s))


def _begin(sim: SimCluster, blow: Blow) -> None:
    host = sim.world.hosts.get(blow.who)
    if host is None:
        return  # an executor that was never launched
    agent = next((agent for agent in sim.agents if agent.host is host), None)
    match blow.what:
        case "crash":
            host.crash(keep_unsynced=blow.keep_unsynced)
        case "power":
            if agent is not None:
                agent.crash(machine=True, keep_unsynced=blow.keep_unsynced)
            else:
                host.crash(machine=True, keep_unsynced=blow.keep_unsynced)
        case "stop":
            host.stop()
        case "pause" if host.up:
            host.pause(round(blow.lasts_s * 1_000_000))
        case "cut":
            sim.world.cut(blow.who, blow.other)
        case "one-way":
            sim.world.cut(blow.who, blow.other, one_way=True)
        case "break":
            sim.world.break_links(blow.who, blow.other)


def _undo(sim: SimCluster, blow: Blow) -> None:
    host = sim.world.hosts.get(blow.who)
    if blow.what in ("cut", "one-way"):
        sim.world.heal(blow.who, blow.other)
    elif host is not None and not host.up and not host.retired:
        host.start()


# -- whole days -------------------------------------------------------------------------------------------------------


def chances(rng: random.Random) -> Chances:
    """How bad it is on links and disks; each kind of fault is left out on some days."""
    return Chances(
        drop=rng.choice((0, 0.01, 0.05)),
        double=rng.choice((0, 0.02)),
        delay=rng.choice((0, 0.1, 0.3)),
        delay_max_us=rng.choice((200_000, 2_000_000)),
        disk_death=rng.choice((0, 0.002, 0.01)),
        slow_disk=rng.choice((0, 0.05)),
    )


class LaunchesToo(SeededPlan):
    """Also decides how some launches end."""

    def _word(self, key: tuple[str, str, int]) -> str:
        if key[0] != "isolation" or self._rng.random() > 0.1:
            return super()._word(key)
        word = self.words[key] = self._rng.choice(("fail", "oom", "lost_exit", "unknown_exit"))
        return word


def jobs_day(seed: int) -> SimCluster:
    """Two frameworks with commands to run, on three agents."""
    rng = random.Random(seed)
    sim = cluster(3, seed=seed, plan=SeededPlan(seed, chances(rng)), master={"offer_timeout_ms": 5_000})
    sim.add_framework(lambda: Jobs(15, 3))
    sim.add_framework(lambda: Jobs(25, 1))
    hosts = list(sim.world.hosts)
    live(sim, blows(rng, hosts, rng.randrange(12)))
    return sim


def chores_day(seed: int) -> SimCluster:
    """The whole public API, custom executors, clocks that go wrong, links that overtake, launches that fail."""
    rng = random.Random(seed)
    plan_of = LaunchesToo if rng.random() < 0.3 else SeededPlan
    network = NetworkSettings(fifo=rng.random() < 0.6)
    sim = cluster(
        3,
        seed=seed,
        plan=plan_of(seed, chances(rng)),
        master={"offer_timeout_ms": 5_000},
        settings=WorldSettings(network=network),
    )
    sim.add_executor("a", Worker)
    sim.add_executor("b", Worker)
    sim.add_framework(lambda: Chores(instructed=True))
    sim.add_framework(lambda: Jobs(15, 2))
    hosts = list(sim.world.hosts)
    for host in hosts:
        if rng.random() < 0.3:
            sim.world.hosts[host].skew_us = rng.randrange(-5_000_000_000, 5_000_000_000)
    hosts += [f"agent{number}-executor0" for number in range(3)]
    live(sim, blows(rng, hosts, rng.randrange(12)))
    return sim


def planned_day(plan: Plan, day: Sequence[Blow], seed: int = 0) -> SimCluster:
    """As `jobs_day`, with faults that somebody else has chosen."""
    sim = cluster(3, seed=seed, plan=plan, master={"offer_timeout_ms": 5_000})
    sim.add_framework(lambda: Jobs(10, 3))
    sim.add_framework(lambda: Jobs(10, 1))
    live(sim, day)
    return sim


def live(sim: SimCluster, day: Sequence[Blow]) -> None:
    """The bad time, and then, in bounded calm, the end of everything. Raises what does not hold."""
    sim.run(1)
    strike(sim, day)
    sim.calm()
    sim.until(lambda: all(mine.ended for mine in sim.frameworks) and sim.is_idle(), CALM_BOUND_S)
    sim.check()
    for mine in sim.frameworks:
        assert mine.failure is None
        framework = mine.framework
        if isinstance(framework, Jobs):
            assert framework.done()
        elif mine.host.incarnation == 1:
            assert framework.missing() == []
