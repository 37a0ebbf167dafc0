"""Replicas on links that keep no promise at all: every message may be lost, doubled, late by any number of others.

The simulated cluster's links drop what is doubled or late (transport/link.py), so that a replica never sees it there;
here it does. Steps are small: a delivery, a turn, a submitted command, a power cut in the middle of a turn.
`run_wild(seed)` is one run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mesos_actor.actors.ids import OperationId
from mesos_actor.actors.messages.raft import Vote
from mesos_actor.raft import progress as progress_module
from mesos_actor.raft.engine import Timing
from mesos_actor.raft.files import MemoryFiles
from mesos_actor.raft.replica import Replica
from tests.raft.group import TIMING, Group, Letter, founded

STEPS = 2_500
HASTY = Timing(election_min_ms=60, election_max_ms=120, heartbeat_ms=15, fallback_ms=120)
MAX_QUEUE = 400


class Unsafe(AssertionError):
    """A property of Raft does not hold."""


@dataclass(frozen=True)
class Weather:
    """How bad it is."""

    size: int
    compact_entries: int
    keep_entries: int
    segment_bytes: int
    batch_bytes: int
    chunk_bytes: int
    in_order: bool
    drop: float
    double: float
    crash: float
    cut: float
    submit: float
    wipe: bool = False
    hasty: bool = False
    """Elections are begun so soon that several are at once."""


def weather(seed: int) -> Weather:
    rng = random.Random(f"weather {seed}")
    return Weather(
        size=(3, 5)[seed % 2],
        compact_entries=(3, 25, 1 << 30)[seed // 2 % 3],
        keep_entries=rng.choice((0, 2, 10)),
        segment_bytes=rng.choice((600, 2_000, 1 << 20)),
        batch_bytes=rng.choice((1, 300, 1 << 20)),
        chunk_bytes=rng.choice((50, 1 << 18)),
        in_order=seed // 6 % 2 == 0,
        drop=rng.choice((0, 0.02, 0.1)),
        double=rng.choice((0, 0.05, 0.2)),
        crash=rng.choice((0, 0.002, 0.01)),
        cut=rng.choice((0, 0.005, 0.02)),
        submit=rng.choice((0.05, 0.2)),
        wipe=rng.random() < 0.2,
        hasty=rng.random() < 0.3,
    )


class Wild:
    """A founded group, and everything that happens to it."""

    def __init__(self, seed: int, chosen: Weather | None = None, group: Group | None = None) -> None:
        self.weather = how = chosen or weather(seed)
        self.rng = random.Random(f"wild {seed}")
        self.group = group or founded(
            how.size,
            seed,
            compact_entries=how.compact_entries,
            keep_entries=how.keep_entries,
            segment_bytes=how.segment_bytes,
            timing=HASTY if how.hasty else TIMING,
        )
        self.leaders: dict[int, str] = {}
        """Term -> who led in it."""
        self.crashes = 0
        self._next_weight = 10
        self._last_committed = 0
        self._wiped = ""

    def run(self, steps: int = STEPS) -> None:
        for _ in range(steps):
            self.step()
            self.look()
        self.heal()

    # -- steps --------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        rng, group, how = self.rng, self.group, self.weather
        group.now_s += rng.uniform(0, 0.02)
        roll = rng.random()
        if roll < how.crash:
            self._crash(rng.choice(group.names))
        elif roll < how.crash + how.cut:
            self._cut()
        elif roll < how.crash + how.cut + how.submit:
            for name in list(group.up):
                if group.up[name].leadership.ready:
                    self._next_weight += 1
                    group.submit(name, self._next_weight)
                    group.flush(name)
                    if rng.random() < 0.8:
                        self._turn(name)
        elif group.queue and roll < 0.85:
            self._deliver()
        elif group.up:
            self._turn(rng.choice(list(group.up)))
        if len(group.queue) > MAX_QUEUE:
            del group.queue[: MAX_QUEUE // 2]

    def _deliver(self) -> None:
        rng, queue = self.rng, self.group.queue
        at = 0 if self.weather.in_order else rng.randrange(min(len(queue), rng.choice((1, 3, 30, MAX_QUEUE))))
        letter = queue[at]
        if rng.random() >= self.weather.double:
            del queue[at]
        if rng.random() < self.weather.drop:
            return
        self.group.receive(letter)
        if letter.destination in self.group.up and rng.random() < 0.7:
            self._turn(letter.destination)

    def _turn(self, name: str) -> None:
        """Sometimes the power goes just after something was promised."""
        group, sent = self.group, len(self.group.queue)
        group.settle(name)
        messages = [letter.message for letter in group.queue[sent:]]
        promised = any(isinstance(message, Vote) and message.granted and not message.pre for message in messages)
        if promised and self.rng.random() < self.weather.crash * 10:
            self._crash(name)

    def _crash(self, name: str) -> None:
        """A power cut, with any piece of what was being written left; the next process comes at once or later."""
        rng, group = self.rng, self.group
        if name in group.up:
            self.crashes += 1
            self._tear(name)
            late = [letter for letter in group.queue if letter.destination == name]
            group.crash(name)
            group.queue += late  # the next process gets them
            if self.weather.wipe and not self._wiped and rng.random() < 0.3:
                self._wiped = name
                group.files[name] = MemoryFiles()
                group.start(name, "replace")
                return
        if rng.random() < 0.6 or len(group.up) * 2 < len(group.names):
            for other in group.names:
                if other not in group.up:
                    group.start(other)

    def _tear(self, name: str) -> None:
        replica, files = self.group.up[name], self.group.files[name]
        run = replica.journal._runs[0]
        if run.records and not run.new and self.rng.random() < 0.5:
            files.append(replica.journal._segments[-1].name, b"".join(run.records))
        files.tear(self.rng)

    def _cut(self) -> None:
        rng, group = self.rng, self.group
        if group.cut and rng.random() < 0.5:
            group.cut.clear()
            return
        name = rng.choice(group.names)
        if rng.random() < 0.3:
            group.cut.add((name, rng.choice(group.names)))
        elif rng.random() < 0.5:
            group.isolate(name)
        else:
            group.isolate(name, rng.choice(group.names))
        other = rng.choice(group.names)
        if other in group.up and rng.random() < 0.5:
            for peer in group.names:
                if rng.random() < 0.3:
                    group.up[other].lost_link(peer, group.now_s)

    # -- what must hold -----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Election safety, votes and terms that never go back, leader completeness."""
        committed = max((r.engine.commit_index for r in self.group.up.values()), default=0)
        self._last_committed = max(self._last_committed, committed)
        for name, replica in self.group.up.items():
            engine = replica.engine
            if engine.leads and self.leaders.setdefault(engine.term, name) != name:
                raise Unsafe(f"{name} and {self.leaders[engine.term]} both lead in term {engine.term}")
            if engine.applied_index > engine.commit_index or engine.commit_index > replica.journal.last_index:
                raise Unsafe(f"{name} has applied {engine.applied_index} of {engine.commit_index}")

    def heal(self) -> None:
        """From now on links keep everything, and all are up: they agree within ten seconds."""
        group = self.group
        group.heal()
        for name in group.names:
            if name not in group.up:
                group.start(name)
        group.until(lambda: any(replica.leadership.ready for replica in group.up.values()), within_s=20)
        group.until(lambda: not any(replica.members.waiting for replica in group.up.values()), within_s=20)
        self._is_served(within_s=20)
        group.until(group.same, within_s=20)
        self.look()
        group.check()
        self._same_logs()

    def _is_served(self, within_s: float) -> None:
        """Writes, asked again of every new leader, are acknowledged."""
        group, asked, end_s = self.group, set[OperationId](), self.group.now_s + within_s
        while not asked & set(group.answers):
            if group.now_s > end_s:
                raise Unsafe(f"no write was acknowledged within {within_s} s")
            if any(replica.leadership.ready for replica in group.up.values()):
                asked.add(group.submit(group.leader.name, 5))
            group.run(0.5)

    def _same_logs(self) -> None:
        """Log matching, at the end of all."""
        replicas: list[Replica] = list(self.group.up.values())
        first = max(replica.journal.first_index for replica in replicas)
        logs = {tuple(replica.journal[first - replica.journal.first_index + 1 :]) for replica in replicas}
        if len(logs) != 1:
            raise Unsafe("logs differ")


def run_wild(seed: int, chosen: Weather | None = None) -> Wild:
    """One run. Raises AssertionError when something does not hold, and whatever a replica raises."""
    wild = Wild(seed, chosen)
    before = progress_module.MAX_BATCH_BYTES, progress_module.CHUNK_BYTES
    progress_module.MAX_BATCH_BYTES, progress_module.CHUNK_BYTES = wild.weather.batch_bytes, wild.weather.chunk_bytes
    try:
        wild.run()
    finally:
        progress_module.MAX_BATCH_BYTES, progress_module.CHUNK_BYTES = before
    return wild


__all__ = ["Letter", "Unsafe", "Weather", "Wild", "run_wild", "weather"]
