"""One whole run as plain data: a cluster, a workload, what goes wrong, a seed; and how it is played and judged.

First faults strike, and only what must always hold is judged. Then all is calm, and within a bounded virtual time
everything must come to its end (as TigerBeetle's VOPR: safety, then liveness).
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.raft.node import NodeSettings
from mesos_actor.transport.sim.cluster import SimCluster, cluster
from mesos_actor.transport.sim.faults import (
    AnyFault,
    Break,
    Clock,
    Crash,
    Cut,
    FullDisk,
    Isolate,
    Pause,
    Stall,
    Stop,
    Timed,
    hosts_of,
)
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.network import NetworkSettings
from mesos_actor.transport.sim.plan import Chances, Plan, SeededPlan
from mesos_actor.transport.sim.situations import SITUATIONS, Scene
from mesos_actor.transport.sim.workload import AnyStep, DoChores, draw, framework_begins, framework_names
from mesos_actor.transport.sim.world import ActorFailed, InvariantViolation, NotReached, WorldSettings

SECOND_US = 1_000_000
LONG = (None, 15 * SECOND_US)
"""How long drawn faults last that keep a framework away for longer than it has to come back."""
CALM_BOUND_S = 1_500.0
"""Within so much virtual time after the last fault everything must have come to its end: the quarter of an hour after
which a framework asks about all it has, ten minutes for an agent to come back, and the work itself."""


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The cluster of a trial."""

    masters: int = 3
    agents: int = 3
    cpus: int = 4
    fifo: bool = True
    """False: late messages are overtaken."""
    sync_us: int = 500
    offer_timeout_ms: int = 5_000
    compact_entries: int = 10_000
    """Entries of the registry's log between two snapshots."""

    def build(self, plan: Plan, seed: int) -> SimCluster:
        """The cluster, at the begin of its life."""
        return cluster(
            self.agents,
            seed,
            plan,
            f"cpus:{self.cpus};mem:1024",
            masters=self.masters,
            registry=NodeSettings(compact_entries=self.compact_entries),
            master={"offer_timeout_ms": self.offer_timeout_ms},
            settings=WorldSettings(network=NetworkSettings(fifo=self.fifo), sync_us=self.sync_us),
        )

    def hosts(self) -> list[str]:
        """The names of its masters and agents."""
        masters = ["master"] if self.masters == 1 else [f"master{number}" for number in range(self.masters)]
        return masters + [f"agent{number}" for number in range(self.agents)]


class Trial(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that decides a run, besides the code."""

    seed: int = 0
    shape: Shape = Shape()
    bad_us: int = 30 * SECOND_US
    """For so long things may go wrong."""
    work: tuple[AnyStep, ...] = ()
    faults: tuple[AnyFault, ...] = ()


class Broken(msgspec.Struct, frozen=True):
    """What did not hold: `what` is an invariant's name, `liveness`, `actor-failed` or `outcome`."""

    what: str
    text: str


class Run:
    """A trial being played. `error` is what ended it, None while nothing has."""

    def __init__(self, trial: Trial, plan: Plan | None = None) -> None:
        """`plan` replaces the trial's own faults: one that draws them."""
        self.trial = trial
        self.plan = Plan.of(trial.faults) if plan is None else plan
        self.error: AssertionError | None = None
        self.sim: SimCluster | None = None
        """None when it broke before there were agents."""
        self.calm = False
        try:
            self.sim = trial.shape.build(self.plan, trial.seed)
            self.played = self.sim.play(trial.work)
        except AssertionError as error:  # in the first moments, before there are agents
            self.error = error

    def finish(self) -> Run:
        """Play it to its end; returns itself."""
        if self.error is None and self.sim is not None:
            try:
                self._play(self.sim)
            except AssertionError as error:
                self.error = error
        return self

    def play_until(self, elapsed_us: int) -> None:
        """Play what happens up to this moment since the begin."""
        if self.sim is None or self.error is not None:
            return
        sim, bad_us = self.sim, self.trial.bad_us
        try:
            sim.world.run(max(0, min(elapsed_us, bad_us) - sim.world.elapsed_us))
            if elapsed_us > bad_us:
                self.calm = True
                sim.calm()
                sim.world.run(elapsed_us - bad_us)
        except AssertionError as error:
            self.error = error

    def _play(self, sim: SimCluster) -> None:
        sim.run(max(0.0, self.trial.bad_us / SECOND_US - sim.now_s))
        self.calm = True
        sim.settle(CALM_BOUND_S)
        for mine in sim.frameworks:
            if mine.failure is not None and not mine.host.gone and not self._was_away(mine):
                raise WrongOutcome(f"{mine.name} ended with {mine.failure!r}")

    def _was_away(self, mine: SimFramework) -> bool:
        """Whether it was removed as it had to be: by clocks of masters that differ by more than its timeout it has a
        few seconds to come back (RETURN_US in master_frameworks.py), and it could not for longer."""
        met = [fault for fault in self.plan.met if not isinstance(fault, tuple)]
        clocks = [
            0,
            *(fault.offset_us for fault in met if isinstance(fault, Clock) and fault.host.startswith("master")),
        ]
        differ = max(clocks) - min(clocks) > round(mine.framework.failover_timeout_s * SECOND_US)
        long = any(mine.name in hosts_of(fault) and getattr(fault, "lasts_us", 0) in LONG for fault in met)
        return differ and long and str(mine.failure).startswith("removed")

    @property
    def broken(self) -> Broken | None:
        """What did not hold."""
        return None if self.error is None else broken_by(self.error)

    def recorded(self) -> Trial:
        """The trial with the faults that came about, drawn ones too."""
        return msgspec.structs.replace(self.trial, faults=met(self.plan))


class WrongOutcome(AssertionError):
    """Everything came to its end, and not to the right one."""


def met(plan: Plan) -> tuple[AnyFault, ...]:
    """The plan's faults that have come about."""
    unmet = set(plan.unmet())
    return tuple(fault for fault in plan.faults() if fault not in unmet)


def broken_by(error: AssertionError) -> Broken:
    """A word for what an error of a simulation says."""
    text = str(error)
    if isinstance(error, InvariantViolation):
        name, colon, _ = text.partition(": ")
        return Broken(name if colon and " " not in name else "invariant", text)
    if isinstance(error, NotReached):
        return Broken("liveness", text.partition("\n")[0])
    if isinstance(error, ActorFailed):
        return Broken("actor-failed", text)
    return Broken("outcome", text)


def play(trial: Trial, plan: Plan | None = None) -> Run:
    """Play a trial to its end."""
    return Run(trial, plan).finish()


def decode_trial(data: Any) -> Trial:
    """A trial from plain data. Raises InvalidInput, naming the field."""
    try:
        return msgspec.convert(data, Trial)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"trial: {error}") from error


# -- drawn by chance --------------------------------------------------------------------------------------------------


def draw_trial(seed: int) -> tuple[Trial, SeededPlan]:
    """The trial of a seed, and the plan that draws its counted faults. Which kinds of faults there are at all is drawn
    too (swarm testing): a run with all of them hides what only some of them show."""
    rng = random.Random(f"trial {seed}")
    shape = Shape(
        masters=rng.choice((1, 3, 3, 3, 5)),
        agents=rng.randrange(1, 6),
        cpus=rng.choice((2, 4, 8)),
        fifo=rng.random() < 0.8,
        sync_us=rng.choice((100, 500, 5_000)),
        compact_entries=rng.choice((5, 30, 10_000)),
    )
    work = draw(rng, shape.agents)
    trial = Trial(seed=seed, shape=shape, bad_us=rng.choice((15, 30, 45)) * SECOND_US, work=work)
    timed = _draw_timed(rng, trial)
    trial, timed = _with_situations(rng, trial, timed)
    plan = SeededPlan(seed, _draw_chances(rng), timed)
    return msgspec.structs.replace(trial, faults=tuple(timed)), plan


def _draw_chances(rng: random.Random) -> Chances:
    return Chances(
        drop=rng.choice((0, 0, 0.01, 0.05)),
        double=rng.choice((0, 0, 0.02)),
        delay=rng.choice((0, 0.1, 0.3)),
        delay_max_us=rng.choice((20_000, 200_000, 2_000_000)),
        reorder=rng.choice((0, 0.2)),
        disk_death=rng.choice((0, 0, 0.002, 0.01)),
        slow_disk=rng.choice((0, 0.05)),
        disk_failure=rng.choice((0, 0, 0.002)),
        launch=rng.choice((0, 0, 0.05)),
        site_active=rng.choice((0, 0.25)),
    )


KINDS = (
    *("crash", "power", "stop", "pause", "hang"),
    *("cut", "one-way", "isolate", "deaf", "stall", "break", "full", "clock"),
)


def _draw_timed(rng: random.Random, trial: Trial) -> list[Timed]:
    frameworks = framework_names(trial.work)
    hosts = trial.shape.hosts() + frameworks
    if any(isinstance(step, DoChores) for step in trial.work):
        hosts += [f"agent{number}-executor0" for number in range(trial.shape.agents)]
    kinds = [kind for kind in KINDS if rng.random() < 0.6] or list(KINDS)
    drawn = [_timed(rng, rng.choice(kinds), hosts, trial) for _ in range(rng.randrange(9))]
    if rng.random() < 0.05 and trial.shape.agents > 1:
        drawn.append(Crash(f"agent{rng.randrange(trial.shape.agents)}", rng.randrange(trial.bad_us)))
    if rng.random() < 0.05 and trial.shape.masters > 1:
        drawn.append(Crash(f"master{rng.randrange(trial.shape.masters)}", rng.randrange(trial.bad_us)))
    return sorted(drawn, key=lambda fault: fault.at_us)


def _with_situations(rng: random.Random, trial: Trial, timed: list[Timed]) -> tuple[Trial, list[Timed]]:
    """The same with what is added by situations that are drawn too; all of them are about who leads."""
    hosts, masters = trial.shape.hosts(), trial.shape.masters
    if masters == 1:
        return trial, timed
    scene = Scene(hosts[:masters], hosts[masters:], framework_begins(trial.work), trial.bad_us)
    work, faults = list(trial.work), list(timed)
    for situation, chance in SITUATIONS.items():
        if rng.random() < chance:
            steps, more = situation(rng, scene)
            work += steps
            faults += more
    work.sort(key=lambda step: step.at_us)
    return msgspec.structs.replace(trial, work=tuple(work)), sorted(faults, key=lambda fault: fault.at_us)


def _timed(rng: random.Random, kind: str, hosts: list[str], trial: Trial) -> Timed:
    who, other = rng.sample(hosts, 2)
    at_us = rng.randrange(trial.bad_us)
    lasts_us = round(rng.choice((0.05, 0.3, 1.0, 4.0, 15.0)) * SECOND_US)
    match kind:
        case "crash" | "power":
            return Crash(who, at_us, lasts_us, machine=kind == "power", keep_unsynced=rng.randrange(3))
        case "stop":
            return Stop(who, at_us, lasts_us)
        case "pause" if rng.random() < 0.5:
            # Long enough for another one to lead when it wakes, with yesterday's orders in its hands.
            lasts_us = rng.choice((3, 5, 15)) * SECOND_US
            return Pause(rng.choice(hosts[: trial.shape.masters]), at_us, lasts_us)
        case "pause":
            return Pause(who, at_us, lasts_us)
        case "hang":
            return Pause(rng.choice(hosts[trial.shape.masters :]), at_us, None)
        case "cut" | "one-way":
            return Cut(who, other, at_us, lasts_us, one_way=kind == "one-way")
        case "isolate" | "deaf":
            return Isolate(who, at_us, lasts_us, one_way=kind == "deaf")
        case "stall":
            master, mate = rng.choice(hosts[: trial.shape.masters]), rng.choice(hosts[trial.shape.masters :])
            one_way = (master, mate) if rng.random() < 0.5 else (mate, master)
            return Stall(*one_way, at_us, lasts_us)
        case "break":
            return Break(who, other, at_us)
        case "full":
            return FullDisk(who, at_us, lasts_us)
        case _:
            offset_us = rng.randrange(-5_000 * SECOND_US, 5_000 * SECOND_US)
            return Clock(who, rng.choice((0, at_us)), offset_us, rng.choice((0, 0, 200, -200, 50_000)))
