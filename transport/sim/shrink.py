"""Making a failing run smaller: delta debugging (Zeller and Hildebrandt 2002) over the workload, then over the faults,
which first go in groups: all of one host, one kind, one link.

A smaller run counts when it breaks the same thing: the same invariant, or liveness again. Faults are counted per link
and per disk, so taking one out leaves the others where they are; that is why this usually ends with one or two. Where
it does not, many small delays bring about what one fault in the right place would: then runs with one or two faults are
drawn, made of those that are left: like them, elsewhere, or the plainer misfortune that would do the same to the same
hosts. Such draws come first as well, for a run with many faults takes many runs to be made smaller step by step.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from mesos_actor.actors.ids import Address, node_of
from mesos_actor.transport.sim.faults import (
    COUNTED,
    AnyFault,
    Break,
    Crash,
    Cut,
    Delay,
    DieAtSync,
    Drop,
    Duplicate,
    FailSync,
    Reorder,
    SlowSync,
    Stall,
    Timed,
    hosts_of,
    key_of,
)
from mesos_actor.transport.sim.schedule import START_US
from mesos_actor.transport.sim.trial import Broken, Run, Shape, Trial, play
from mesos_actor.transport.sim.workload import AnyStep, Submit

T = TypeVar("T")
MAX_RUNS = 600
"""Runs spent on one shrink; then the smallest found so far is given."""
MAX_EVENTS = 6_000_000
"""Events of these runs together, likewise: some three minutes. A run that never comes to rest is hundreds of times as
long as one that breaks early."""
FEW = 2
"""So many faults are few enough."""
DRAWS = 100
"""Runs that are drawn with one fault, and as many with each number of faults up to FEW, when nothing else helps."""
FIRST_DRAWS = 25
"""The same, before anything else is tried."""
DIRECTED = 120
"""Messages of the run without faults that one fault is put in the way of, each in a run."""
BEFORE_US = 2_000
"""So long before its arrival the fault strikes: it is on its way then, or about to be."""
STRETCHES = (0.25, 1, 1, 4, 16)
"""How much longer a drawn cut, pause or delay is than the one it is made of."""
LASTING_S = (0.05, 0.3, 1.0, 4.0, 15.0)
"""How long a cut or the absence of a host lasts that is drawn in place of what befell a message or a sync."""


class Spent(Exception):
    """The budget of runs is used up."""


class Shrinker:
    """`best` is the smallest trial so far that breaks what `broken` says."""

    def __init__(
        self,
        trial: Trial,
        broken: Broken,
        *,
        max_runs: int = MAX_RUNS,
        max_events: int = MAX_EVENTS,
        run: Callable[[Trial], Run] = play,
        told: Callable[[int, Trial], None] = lambda runs, best: None,
    ) -> None:
        """`told` is called with the runs spent and the best trial, whenever there is a better one."""
        self.best = trial
        self.broken = broken
        self.runs = 0
        self.events = 0
        #: when the best one breaks: what strikes later has not brought that about
        self._end_us = trial.bad_us
        self._max_runs = max_runs
        self._max_events = max_events
        self._run = run
        self._told = told

    def shrink(self) -> Trial:
        """The smallest trial found."""
        try:
            before = None
            self._groups()
            self._draw(FIRST_DRAWS)
            self._direct()
            while before != self.best:  # a smaller workload may need fewer faults, and the other way round
                before = self.best
                self._shape()
                self._work()
                self._groups()
                self._direct()
                minimize(self.best.faults, self._with_faults)
                self._values()
                if before == self.best:
                    self._draw(DRAWS)
        except Spent:
            pass
        return self.best

    def still_breaks(self, trial: Trial) -> bool:
        """Play it; when it breaks the same, it is the best from now on."""
        if self.runs >= self._max_runs or self.events >= self._max_events:
            raise Spent
        self.runs += 1
        run = self._run(trial)
        self.events += run.sim.world.events if run.sim is not None else 0
        broken = run.broken
        if broken is None or broken.what != self.broken.what:
            return False
        self.best, self.broken = trial, broken
        self._end_us = run.sim.world.elapsed_us if run.sim is not None else trial.bad_us
        self._told(self.runs, trial)
        return True

    def _with_faults(self, faults: Sequence[AnyFault]) -> bool:
        return self.still_breaks(msgspec.structs.replace(self.best, faults=tuple(faults)))

    def _groups(self) -> None:
        """Without all faults, without all of a host, of a kind, of a link: most have nothing to do with what broke."""
        if self.best.faults and self._with_faults(()):
            return
        for groups_of in (hosts_of, lambda fault: (fault.kind,), lambda fault: (hosts_of(fault),)):
            tried: set[object] = set()
            while group := min(
                {group for fault in self.best.faults for group in groups_of(fault)} - tried, key=repr, default=None
            ):
                tried.add(group)
                self._with_faults([fault for fault in self.best.faults if group not in groups_of(fault)])

    def _direct(self) -> None:
        """One fault alone, in the way of each kind of message that the run without faults sends, on each link: what
        many small ones bring about together is often that one message came late (as Alvaro, Rosen and Hellerstein
        2015, who look for the messages that matter)."""
        if len(self.best.faults) <= FEW:
            return
        self.runs += 1
        calm = self._run(msgspec.structs.replace(self.best, faults=()))
        sent = _sent(calm)
        rng = random.Random(f"direct {self.best.seed} {self.runs}")
        for kind in rng.sample(sorted(sent), min(len(sent), DIRECTED)):
            _, source, destination = kind
            at_us = max(0, rng.choice(sent[kind]) - BEFORE_US)
            lasts_us = rng.choice((1_000_000, 4_000_000))
            fault = rng.choice(
                (
                    *(Stall(source, destination, at_us, lasts_us), Stall(source, destination, at_us, 5_000_000)),
                    *(Cut(source, destination, at_us, lasts_us, one_way=True), Break(source, destination, at_us)),
                )
            )
            if self._with_faults((fault,)):
                return

    def _draw(self, draws: int) -> None:
        """Runs with fewer faults, made of those that are left, until one breaks the same."""
        left, rng = self.best.faults, random.Random(f"shrink {self.best.seed} {draws}")
        where: dict[tuple[str, ...], list[AnyFault]] = {}
        for fault in left:  # most of them are between masters, which speak most
            where.setdefault(hosts_of(fault), []).append(fault)
        places, bad_us = list(where.values()), max(1, min(self.best.bad_us, self._end_us))
        for size in range(1, min(FEW, len(left) - 1) + 1):
            for _ in range(draws):
                alike = [rng.choice(rng.choice(places)) for _ in range(size)]
                drawn = tuple(likened(rng, fault, bad_us) for fault in alike)
                seed = rng.choice((self.best.seed, rng.randrange(1_000)))
                struck = {key_of(fault) if isinstance(fault, COUNTED) else fault for fault in drawn}
                if len(struck) == size and self.still_breaks(
                    msgspec.structs.replace(self.best, seed=seed, faults=drawn)
                ):
                    return

    def _shape(self) -> None:
        """An ordinary cluster, as far as that will do: links in order first, for then faults must say what is not."""
        plain = Shape()
        for name in ("fifo", "sync_us", "compact_entries", "cpus"):
            value = getattr(plain, name)
            if getattr(self.best.shape, name) != value:
                shape = msgspec.structs.replace(self.best.shape, **{name: value})
                self.still_breaks(msgspec.structs.replace(self.best, shape=shape))

    def _work(self) -> None:
        def attempt(work: Sequence[AnyStep]) -> bool:
            return self.still_breaks(msgspec.structs.replace(self.best, work=tuple(work)))

        minimize(self.best.work, attempt)
        for place, step in enumerate(self.best.work):
            if isinstance(step, Submit):
                for tasks in (1, 2, step.tasks // 2):
                    if 0 < tasks < step.tasks:
                        smaller = msgspec.structs.replace(step, tasks=tasks, staged=False)
                        if attempt((*self.best.work[:place], smaller, *self.best.work[place + 1 :])):
                            break

    def _values(self) -> None:
        """Round delays, in milliseconds, as small as will do."""
        for place, fault in enumerate(self.best.faults):
            for simpler in _simpler(fault):
                faults = (*self.best.faults[:place], simpler, *self.best.faults[place + 1 :])
                if self.still_breaks(msgspec.structs.replace(self.best, faults=faults)):
                    break


def _sent(run: Run) -> dict[tuple[str, str, str], list[int]]:
    """(class, source, destination) -> when such messages arrived, since the begin; without clockwork, and without what
    masters tell each other."""
    sent: dict[tuple[str, str, str], list[int]] = {}
    for event in run.sim.world.history() if run.sim is not None else ():
        if event.message is not None and event.tells and run.sim is not None:
            source = run.sim.world.nodes.get(node_of(Address(event.sender)), event.host)
            if source != event.host and not (run.sim.is_master(source) and run.sim.is_master(event.host)):
                key = (type(event.message).__name__, source, event.host)
                sent.setdefault(key, []).append(event.time_us - START_US)
    return sent


def _simpler(fault: AnyFault) -> list[AnyFault]:
    if isinstance(fault, Duplicate) and fault.late_us != (0, 0):
        return [msgspec.structs.replace(fault, late_us=(0, 0))]
    if isinstance(fault, Delay | Reorder | SlowSync):
        rounded = [by_us for by_us in (10_000, 100_000, 1_000_000) if by_us < fault.by_us]
        return [msgspec.structs.replace(fault, by_us=by_us) for by_us in rounded]
    return []


def likened(rng: random.Random, fault: AnyFault, bad_us: int) -> AnyFault:
    """One that may do the same: moved, or what does more to the same link or host at once."""
    if isinstance(fault, Timed) or rng.random() < 0.5:
        return moved(rng, fault, bad_us)
    at_us = rng.randrange(bad_us)
    if isinstance(fault, Drop | Duplicate | Delay | Reorder):
        one, other = fault.source, fault.destination
        lasts_us = round(rng.choice(LASTING_S) * 1_000_000)
        cut = Cut(one, other, at_us, lasts_us, one_way=rng.random() < 0.5)
        return rng.choice((Break(one, other, at_us), Stall(one, other, at_us, lasts_us), cut))
    if isinstance(fault, DieAtSync | SlowSync | FailSync):
        return Crash(fault.host, at_us, round(rng.choice(LASTING_S) * 1_000_000))
    return moved(rng, fault, bad_us)


def moved(rng: random.Random, fault: AnyFault, bad_us: int) -> AnyFault:
    """One like it, elsewhere on its link, disk or host, or at another time, and perhaps longer."""
    changes: dict[str, Any] = {}
    if isinstance(fault, Timed):
        changes["at_us"] = rng.choice((fault.at_us, rng.randrange(bad_us)))
    else:
        changes["nth"] = rng.choice((fault.nth, rng.randrange(fault.nth + 1), rng.randrange(2 * fault.nth + 10)))
    for name in ("lasts_us", "restart_after_us", "by_us"):
        if (value := getattr(fault, name, None)) is not None:
            changes[name] = max(1, min(bad_us, round(value * rng.choice(STRETCHES))))
    return msgspec.structs.replace(fault, **changes)


def minimize(items: Sequence[T], attempt: Callable[[Sequence[T]], bool]) -> list[T]:
    """The smallest part of `items`, in order, for which `attempt` is true, as far as delta debugging finds it: no one
    of them can be left out. `attempt(items)` is taken to be true."""
    kept = list(items)
    if kept and attempt([]):
        return []
    size = -(-len(kept) // 2)
    while len(kept) > 1:
        begin, before = 0, len(kept)
        while begin < len(kept) and len(kept) > 1:
            rest = kept[:begin] + kept[begin + size :]
            if rest and attempt(rest):
                kept = rest  # what came behind stands here now
            else:
                begin += size
        if size == 1 and len(kept) == before:
            break
        size = max(1, size // 2)
    return kept
