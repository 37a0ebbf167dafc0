"""Situations: several faults, and steps of the work, in an order that chance alone seldom brings about.

What goes wrong in a cluster of many machines goes wrong together: the leader changes because the line to it was bad,
and it comes back while what was said to it in its first time is still on its way. Where each of these is drawn by
itself, one run in ten thousand shows what they do together. A drawn trial has each situation of this list with its
chance.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.transport.sim.faults import Clock, Crash, Stall, Timed
from mesos_actor.transport.sim.workload import AnyStep, Submit, Transfer

STORM = 14
"""So many changes of the leader, and so many stalls."""
ROUND_US = 6 * SECOND_US
"""How long a leader goes and comes back, in `seesaw`."""


class Scene(NamedTuple):
    """Where a situation is to arise."""

    masters: list[str]
    agents: list[str]
    frameworks: dict[str, int]
    """Name -> when it begins."""
    bad_us: int


Situation = tuple[list[AnyStep], list[Timed]]
"""Steps of the work, and faults, that are added to those of a trial."""


def storm(rng: random.Random, scene: Scene) -> Situation:
    """Leaders follow each other while the lines to them are bad: what was said to one arrives when others have led."""
    steps: list[AnyStep] = []
    faults: list[Timed] = []
    for _ in range(STORM):
        at_us, master = rng.randrange(scene.bad_us), rng.choice(scene.masters)
        if rng.random() < 0.5:
            steps.append(Transfer(at_us))
        else:
            faults.append(Crash(master, at_us, round(rng.choice((0.3, 1.0)) * SECOND_US)))
        at_us, lasts_us = rng.randrange(scene.bad_us), round(rng.choice((2.0, 5.0)) * SECOND_US)
        faults.append(Stall(rng.choice(scene.agents), rng.choice(scene.masters), at_us, lasts_us))
    return steps, faults


def seesaw(rng: random.Random, scene: Scene) -> Situation:
    """Two masters take the lead from each other while new work comes in, and one line of one of them is held up for
    longer than it leads, or does not lead: both its orders and what it is told belong to another term when they
    arrive."""
    steps: list[AnyStep] = []
    faults: list[Timed] = []
    one, other = rng.sample(range(len(scene.masters)), 2)
    for begin_us in range(SECOND_US, scene.bad_us - ROUND_US + 1, ROUND_US):
        times = sorted(rng.randrange(ROUND_US) for _ in range(3))
        steps += [
            Transfer(begin_us + at_us, to)
            for at_us, to in zip(times, rng.choice(((one, other, one), (other, one, other))), strict=True)
        ]
        steps.append(Submit(begin_us + rng.randrange(ROUND_US), rng.randrange(4, 25), rng.choice((100, 1_000))))
        line = [scene.masters[one], rng.choice(scene.agents)]
        rng.shuffle(line)
        lasts_us = rng.randrange(SECOND_US, ROUND_US)
        faults.append(Stall(line[0], line[1], begin_us + rng.randrange(ROUND_US), lasts_us))
    return steps, faults


def absence(rng: random.Random, scene: Scene) -> Situation:
    """A framework is away for a few seconds, meanwhile the leader changes, and the masters' clocks are far apart."""
    name, begin_us = rng.choice(list(scene.frameworks.items()))
    at_us = begin_us + rng.randrange(SECOND_US // 2, scene.bad_us // 2)
    away = Crash(name, at_us, rng.randrange(2, 6) * SECOND_US)
    clocks: list[Timed] = [
        Clock(master, 0, rng.choice((-1, 1)) * rng.randrange(1_000, 5_000) * SECOND_US, 0)
        for master in scene.masters
        if rng.random() < 0.5
    ]
    return [Transfer(at_us + rng.randrange(SECOND_US // 2, away.restart_after_us or 1))], [away, *clocks]


SITUATIONS: dict[Callable[[random.Random, Scene], Situation], float] = {storm: 0.1, seesaw: 0.2, absence: 0.15}
"""How often each is in a run with several masters."""
