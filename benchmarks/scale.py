"""Task-launch overhead against the number of agents, as figure 10 of the Mesos paper (NSDI 2011), by simulation.

    python benchmarks/scale.py [--agents 50000] [--frameworks 200] [--points 6] [--probes 5] [--quick] [--svg FILE]

Two hundred frameworks launch all the time, tasks of N(30 s, 10 s), at most two an agent; then a new framework with one
task of ten seconds is timed: what it takes beyond those, on average of five. The cluster is simulated on virtual time
(scale_world.py says what is real and what is a model), and the master's own CPU time, measured, moves its virtual
clock: so this is the one simulation here whose numbers depend on the machine and differ from run to run.
"""

from __future__ import annotations

import argparse
import gc
import random
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from scale_load import AlwaysLaunching, Counts, Probe, add_framework
from scale_plot import Curve, plot
from scale_world import MESSAGE_US, SECOND_US, SLOTS, Charged, add_agents

from mesos_actor.transport.sim.cluster import cluster

PAPER = (
    *((1_000, 0.13), (5_000, 0.18), (10_000, 0.22), (15_000, 0.27)),
    *((20_000, 0.38), (30_000, 0.38), (40_000, 0.53), (50_000, 0.75)),
)
"""Agents and seconds, read off figure 10 (5 % either way): 99 machines of 8 cores, the master on one of its own."""
QUICK = {"agents": 5_000, "points": 3, "probes": 3}
FILL_LIMIT_S = 40
"""After the last agent has come: a master that has not filled the slots by then cannot, as its row tells."""
STEADY_S = 10
BETWEEN_PROBES_S = 0.7
PROBE_LIMIT_S = 120
AGENTS_A_SECOND = 1_000
"""How quickly agents come at the beginning."""
FULL = 0.98
"""Of all slots in use: filled."""


@dataclass
class Point:
    """One size of the cluster."""

    agents: int
    overheads_s: list[float]
    launches_per_s: float
    busy: float
    """Part of its time that the master was busy, while the probes ran."""
    messages_per_s: float
    in_use: float
    """Part of all slots that ran tasks when the first probe came."""
    took_s: float

    @property
    def mean_s(self) -> float:
        return statistics.mean(self.overheads_s)


def measure(agents: int, frameworks: int, probes: int, message_us: int = MESSAGE_US, seed: int = 0) -> Point:
    """Bring a cluster of this size to its steady load, and time so many probes. Raises RuntimeError when these do not
    come to their end."""
    began_s = time.monotonic()
    rng = random.Random(f"{seed}/{agents}")
    sim = cluster(agents=0, seed=seed, invariants=False, agent=None)
    world, master = sim.world, sim.masters[0]
    # Neither a trace nor a digest is wanted: they would cost more than the agents.
    world._happened = lambda *_, **__: None  # type: ignore[method-assign]
    assert master.host.process is not None
    charged = Charged(world, master.host.process, message_us)
    counts, slots = Counts(), SLOTS * agents
    for number in range(frameworks):
        name = f"load{number}"
        add_framework(world, master.address, AlwaysLaunching(name, rng, counts))
    sim.run(2)
    coming_us = max(1, agents * SECOND_US // AGENTS_A_SECOND)
    add_agents(world, master.address, agents, coming_us, rng)
    latest_s = sim.now_s + coming_us / SECOND_US + FILL_LIMIT_S
    gc.freeze()
    gc.disable()
    try:
        while counts.running < FULL * slots and sim.now_s < latest_s:
            sim.run(0.5)
        sim.run(STEADY_S)
        in_use = counts.running / slots
        launched, spent_us, messages, at_s = counts.launched, charged.spent_us, charged.messages, sim.now_s
        started = [Probe(f"probe{n}", lambda: world.now_us) for n in range(probes)]
        for probe in started:
            add_framework(world, master.address, probe)
            sim.run(BETWEEN_PROBES_S)
        while any(probe.overhead_s is None for probe in started):
            sim.run(0.5)
            if sim.now_s - at_s > PROBE_LIMIT_S + BETWEEN_PROBES_S * probes:
                raise RuntimeError(f"the probes have not ended after {sim.now_s - at_s:g} s: the master is overloaded")
    finally:
        gc.enable()
        gc.unfreeze()
    if counts.failed:
        raise RuntimeError(f"{counts.failed} tasks did not finish well")
    lasted_s = sim.now_s - at_s
    return Point(
        agents,
        [probe.overhead_s for probe in started if probe.overhead_s is not None],
        (counts.launched - launched) / lasted_s,
        (charged.spent_us - spent_us) / lasted_s / SECOND_US,
        (charged.messages - messages) / lasted_s,
        in_use,
        time.monotonic() - began_s,
    )


def paper_at(agents: int) -> float:
    """The paper's overhead in seconds, between its points by a straight line; before the first as there."""
    before = PAPER[0]
    for after in PAPER:
        if agents <= after[0]:
            part = (agents - before[0]) / (after[0] - before[0]) if after != before else 1.0
            return before[1] + max(0.0, part) * (after[1] - before[1])
        before = after
    return before[1]


def sizes(most: int, points: int) -> list[int]:
    """Evenly spaced up to the most, in whole thousands where there are thousands, and a tenth of it before them."""
    even = [most * n // points for n in range(1, points + 1)]
    return sorted({most // 10, *even} if points > 1 else set(even))


def row(point: Point) -> str:
    spread = f"{min(point.overheads_s):.3f} to {max(point.overheads_s):.3f}"
    ratio = paper_at(point.agents) / point.mean_s
    return (
        f"{point.agents:7,}  {point.mean_s:7.3f} s ({spread:>14})  paper {paper_at(point.agents):.2f} s, "
        f"{ratio:5.1f} times ours  {point.launches_per_s:6,.0f} launches/s  {point.messages_per_s:7,.0f} messages/s  "
        f"master busy {point.busy:4.0%}, slots {point.in_use:4.0%}  (took {point.took_s:.0f} s)"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agents", type=int, default=50_000, help="the most (default 50,000)")
    parser.add_argument("--frameworks", type=int, default=200, help="that always launch (default 200)")
    parser.add_argument("--points", type=int, default=5, help="sizes up to the most, and a tenth of it (default 5)")
    parser.add_argument("--probes", type=int, default=5, help="to take the mean of (default 5)")
    parser.add_argument("--message-us", type=int, default=MESSAGE_US, help="charged for each message of the master")
    parser.add_argument("--seed", type=int, default=0, help="of the lengths of tasks and the network")
    parser.add_argument("--quick", action="store_true", help="5,000 agents, 3 sizes, 3 probes: half a minute")
    parser.add_argument("--svg", type=Path, default=None, help="write the plot there")
    options = parser.parse_args()
    for name, value in QUICK.items() if options.quick else ():
        setattr(options, name, value)
    for name in ("agents", "frameworks", "points", "probes"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: give at least 1")
    points = []
    print("agents   overhead, mean (least to most)", flush=True)
    for agents in sizes(options.agents, options.points):
        try:
            point = measure(agents, options.frameworks, options.probes, options.message_us, options.seed)
        except RuntimeError as error:
            print(f"{agents:7,}  {error}", flush=True)
            break
        points.append(point)
        print(row(point), flush=True)
    print(
        "simulated: agents are light models, the network and disks too; real, and charged with measured CPU: the master"
    )
    if options.svg is not None and points:
        ours = Curve("mesos-actor, simulated, one core", [(p.agents, p.mean_s) for p in points])
        paper = Curve("Apache Mesos 2011, 99 EC2 machines (read off the figure)", list(PAPER))
        options.svg.write_text(plot([ours, paper], "agents", "task-launch overhead, s"))
        print(f"plot: {options.svg}")
    return 0 if len(points) == len(sizes(options.agents, options.points)) else 1


if __name__ == "__main__":
    sys.exit(main())
