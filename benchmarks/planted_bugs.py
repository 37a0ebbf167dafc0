"""How many drawn runs it takes to find each planted bug, and how few faults are left of the run that found it.

python benchmarks/planted_bugs.py              the median over 10 starts, for each bug of tests/sim/bugs.py
python benchmarks/planted_bugs.py --jobs 2     the same, two bugs at once
python benchmarks/planted_bugs.py --shrinks 3  only the first 3 runs that found it are made smaller, which takes longest
python benchmarks/planted_bugs.py --starts 1 --write tests/sim/regressions NAME ...
                                               also writes the smallest run of each as a regression file
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mesos_actor.transport.sim.replay import Replay
from mesos_actor.transport.sim.swarm import play_seed, shrink_seed
from tests.sim import bugs

MOST_RUNS = 600
BETWEEN_STARTS = 10_000
"""Seeds from one start to the next."""


def all_bugs() -> list[str]:
    """The names of the planted bugs."""
    return [name for name, what in vars(bugs).items() if callable(what) and what.__module__ == bugs.__name__]


class Outcome(NamedTuple):
    """What the starts of one bug came to."""

    name: str
    runs: list[int]
    """Runs until it was found, one a start; MOST_RUNS + 1 where it was not."""
    shrunk: list[Replay]

    def line(self) -> str:
        """A row of the table."""
        left = [len(one.trial.faults) for one in self.shrunk if one.trial is not None]
        what = ", ".join(sorted({one.broken.what for one in self.shrunk}))
        return f"{self.name:42} {_spread(self.runs):>20} {_spread(left):>14}  {what}"


def _spread(numbers: list[int]) -> str:
    return f"{statistics.median(numbers):g} ({min(numbers)}-{max(numbers)})" if numbers else "not found"


def find(start: int) -> int | None:
    """The first seed from this one on whose run breaks something; None: none of MOST_RUNS."""
    seeds = range(start, start + MOST_RUNS)
    return next((seed for seed in seeds if play_seed(seed).broken is not None), None)


def shrink(bug: str, seed: int) -> Replay:
    """The smallest run found that breaks the same."""
    found = shrink_seed(seed)
    return Replay(broken=found.broken, trial=found.trial, bug=bug)


def measure(bug: str, starts: int, shrinks: int) -> Outcome:
    """Plant it, and look for it from each start on."""
    with pytest.MonkeyPatch.context() as patch:
        getattr(bugs, bug)(patch)
        begins = [start * BETWEEN_STARTS for start in range(starts)]
        found = [find(begin) for begin in begins]
        runs = [MOST_RUNS + 1 if at is None else at - begin + 1 for begin, at in zip(begins, found, strict=True)]
        hits = [seed for seed in found if seed is not None]
        return Outcome(bug, runs, [shrink(bug, seed) for seed in hits[:shrinks]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--shrinks", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--write", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    print(f"{'bug':42} {'runs until found':>20} {'faults left':>14}  what broke")
    with concurrent.futures.ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(measure, name, options.starts, options.shrinks) for name in options.names or all_bugs()]
        for one in concurrent.futures.as_completed(waiting):
            outcome = one.result()
            print(outcome.line(), flush=True)
            if options.write is not None and outcome.shrunk:
                (options.write / f"{outcome.name}.json").write_text(outcome.shrunk[0].to_json())


if __name__ == "__main__":
    main()
