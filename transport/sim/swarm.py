"""Many runs of our own actors under drawn plans: what a seed draws is played, judged, counted, and shrunk."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from mesos_actor.actors.errors import InternalError
from mesos_actor.transport.sim.replay import DIRECTORY, Replay
from mesos_actor.transport.sim.shrink import MAX_RUNS, Shrinker
from mesos_actor.transport.sim.story import first_difference, tell
from mesos_actor.transport.sim.trial import Broken, Run, Trial, draw_trial, play

CHUNK = 8
"""Seeds that one process is given at a time."""
AHEAD = 4
"""Chunks that wait for each process, so that none is idle."""
HASH_SEEDS = ("0", "1", "2", "3")
CHECK_LIMIT_S = 600
"""How long one process of `check` may take."""


class Seen(msgspec.Struct):
    """What some runs came to."""

    runs: int = 0
    events: int = 0
    virtual_us: int = 0
    faults: dict[str, int] = {}
    """Kind -> how often it came about."""
    sites: dict[str, list[int]] = {}
    """Rare branch -> how often it was asked for, taken, and in how many runs it was taken."""
    failed: int | None = None
    """The first seed that broke something."""

    def add(self, run: Run) -> None:
        """One more."""
        self.runs += 1
        self.faults = dict(Counter(self.faults) + run.plan.coverage())
        if run.sim is not None:
            self.events += run.sim.world.events
            self.virtual_us += run.sim.world.elapsed_us
        for site, (asked, taken) in run.plan.sites.items():
            counts = self.sites.setdefault(site, [0, 0, 0])
            self.sites[site] = [counts[0] + asked, counts[1] + taken, counts[2] + bool(taken)]

    def join(self, other: Seen) -> None:
        """What another process has seen."""
        self.runs += other.runs
        self.events += other.events
        self.virtual_us += other.virtual_us
        self.faults = dict(Counter(self.faults) + Counter(other.faults))
        for site, counts in other.sites.items():
            mine = self.sites.setdefault(site, [0, 0, 0])
            self.sites[site] = [a + b for a, b in zip(mine, counts, strict=True)]
        if other.failed is not None:
            self.failed = other.failed if self.failed is None else min(self.failed, other.failed)


def play_seed(seed: int) -> Run:
    """The run that a seed draws, at its end."""
    trial, plan = draw_trial(seed)
    return play(trial, plan)


def play_seeds(seeds: range) -> Seen:
    """Play them until one fails."""
    seen = Seen()
    for seed in seeds:
        run = play_seed(seed)
        seen.add(run)
        if run.error is not None:
            seen.failed = seed
            break
    return seen


def search(seeds: range, jobs: int, told: Callable[[Seen], None]) -> Seen:
    """Play all seeds, in `jobs` processes, until one breaks something; `told` hears of the progress."""
    seen = Seen()
    for part in _parts(seeds, jobs):
        seen.join(part)
        told(seen)
        if seen.failed is not None:
            break
    return seen


def _parts(seeds: range, jobs: int) -> Iterator[Seen]:
    chunks = (seeds[begin : begin + CHUNK] for begin in range(0, len(seeds), CHUNK))
    if jobs <= 1:
        yield from map(play_seeds, chunks)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, context) as pool:
        waiting: set[concurrent.futures.Future[Seen]] = set()
        for chunk in chunks:
            waiting.add(pool.submit(play_seeds, chunk))
            if len(waiting) >= jobs * AHEAD:
                done, waiting = concurrent.futures.wait(waiting, return_when=concurrent.futures.FIRST_COMPLETED)
                yield from (future.result() for future in done)
        try:
            for future in concurrent.futures.as_completed(waiting):
                yield future.result()
        finally:
            pool.shutdown(cancel_futures=True)


# -- a failure --------------------------------------------------------------------------------------------------------


class Found(msgspec.Struct):
    """A failing run, made smaller."""

    trial: Trial
    broken: Broken
    drawn: int
    """How many faults there were at first."""
    runs: int
    """How many runs making it smaller took."""
    story: str = ""
    file: str = ""


def as_drawn(seed: int) -> Found:
    """Play a seed that fails once more, as it is. Raises InternalError when it does not fail (again)."""
    run = play_seed(seed)
    broken = run.broken
    if broken is None:
        raise InternalError(f"seed {seed} failed before, and does not any more: the simulation is not deterministic")
    trial = run.recorded()
    again = play(trial).broken
    if again is None or again.what != broken.what:
        # what did not come about mattered all the same: a message that was drawn, and then never sent
        trial = msgspec.structs.replace(run.trial, faults=run.plan.faults())
    return Found(trial, broken, len(trial.faults), 1)


def shrink(
    found: Found, max_runs: int = MAX_RUNS, told: Callable[[int, Trial], None] = lambda runs, best: None
) -> Found:
    """The same, made smaller."""
    shrinker = Shrinker(found.trial, found.broken, max_runs=max_runs, told=told)
    trial = shrinker.shrink()
    return Found(trial, shrinker.broken, found.drawn, shrinker.runs)


def shrink_seed(
    seed: int, max_runs: int = MAX_RUNS, told: Callable[[int, Trial], None] = lambda runs, best: None
) -> Found:
    """Play a seed that fails again and make it smaller. Raises InternalError when it does not fail (again)."""
    return shrink(as_drawn(seed), max_runs, told)


def write_down(found: Found, directory: Path = Path(DIRECTORY)) -> Found:
    """Add the replay file and the story. Raises StorageError."""
    run = play(found.trial)
    replay = Replay(broken=found.broken, trial=found.trial, digest=run.sim.world.digest if run.sim else "")
    found.file = str(replay.write(directory))
    if run.sim is not None:
        again = [f"mesos-actor replay {found.file}"]
        found.story = tell(run.sim.world, found.broken.text, found.trial.faults, drawn=found.drawn, again=again)
    return found


# -- is it deterministic? ---------------------------------------------------------------------------------------------


def digest_of(seed: int) -> str:
    """One word for the whole run of a seed, and for how it ended."""
    run = play_seed(seed)
    digest = run.sim.world.digest if run.sim is not None else ""
    return f"{digest} {run.broken.what if run.broken else 'well'}"


def check(seeds: range) -> str:
    """Play each seed in processes that differ by their PYTHONHASHSEED. Empty when all agree; else where two part.
    Raises InternalError when such a process fails."""
    digests = {hash_seed: _in_process(hash_seed, "digest", *map(str, seeds)) for hash_seed in HASH_SEEDS}
    for place, seed in enumerate(seeds):
        words = [digests[hash_seed][place] for hash_seed in HASH_SEEDS]
        if len(set(words)) > 1:
            other = next(at for at, word in enumerate(words) if word != words[0])
            mine = _in_process(HASH_SEEDS[0], "trace", str(seed))
            theirs = _in_process(HASH_SEEDS[other], "trace", str(seed))
            pair = f"PYTHONHASHSEED {HASH_SEEDS[0]} and {HASH_SEEDS[other]}"
            return f"seed {seed} is not the same run under {pair}:\n{first_difference(mine, theirs)}"
    return ""


def _in_process(hash_seed: str, what: str, *arguments: str) -> list[str]:
    command = [sys.executable, "-m", "mesos_actor.transport.sim.swarm", what, *arguments]
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=CHECK_LIMIT_S, check=False)
    if ended.returncode:
        raise InternalError(f"{' '.join(command[1:])} ended with {ended.returncode}: {ended.stderr[-500:]}")
    return ended.stdout.splitlines()


def _main(what: str, seeds: list[int]) -> None:
    for seed in seeds:
        if what == "digest":
            print(digest_of(seed))
        else:
            run = play_seed(seed)
            print("\n".join(run.sim.world.trace() if run.sim is not None else []))


def rate(seen: Seen, since_s: float) -> str:
    """How fast it goes."""
    took_s = max(1e-9, time.perf_counter() - since_s)
    virtual = seen.virtual_us / 1e6 / took_s
    return f"{seen.runs / took_s:.1f} runs/s, {seen.events / took_s:,.0f} events/s, {virtual:,.0f} virtual s/s"


if __name__ == "__main__":
    _main(sys.argv[1], [int(word) for word in sys.argv[2:]])
