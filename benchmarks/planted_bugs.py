"""How many drawn runs it takes to find each planted bug, and how few faults are left of the run that found it.

python benchmarks/planted_bugs.py              the median over 10 starts, for each bug of tests/sim/bugs.py
python benchmarks/planted_bugs.py --starts 1 --write tests/sim/regressions NAME ...
                                               also writes the smallest run of each as a regression file
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mesos_actor.transport.sim.replay import Replay
from mesos_actor.transport.sim.shrink import Shrinker
from mesos_actor.transport.sim.swarm import play_seed
from tests.sim import bugs

MOST_RUNS = 600
BETWEEN_STARTS = 10_000
"""Seeds from one start to the next."""


def all_bugs() -> list[str]:
    """The names of the planted bugs."""
    return [name for name, what in vars(bugs).items() if callable(what) and what.__module__ == bugs.__name__]


def find(bug: str, start: int) -> tuple[int, Replay] | None:
    """(Runs until it was found from this seed on, the smallest run that breaks the same); None when it was not."""
    for number in range(MOST_RUNS):
        run = play_seed(start + number)
        if run.broken is not None:
            recorded = run.recorded()
            shrinker = Shrinker(recorded, run.broken)
            shrinker.still_breaks(recorded)
            best = shrinker.shrink()
            return number + 1, Replay(broken=shrinker.broken, trial=best, bug=bug)
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=10)
    parser.add_argument("--write", type=Path)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    print(f"{'bug':42} {'runs until found':>20} {'faults left':>14}  what broke")
    for name in options.names or all_bugs():
        patch = pytest.MonkeyPatch()
        getattr(bugs, name)(patch)
        found = [find(name, start * BETWEEN_STARTS) for start in range(options.starts)]
        patch.undo()
        hits = [one for one in found if one is not None]
        runs = [one[0] if one is not None else MOST_RUNS for one in found]
        left = [len(one[1].trial.faults) for one in hits if one[1].trial is not None]
        what = ", ".join(sorted({one[1].broken.what for one in hits}))
        shown = f"{statistics.median(runs):g} ({min(runs)}-{max(runs)})"
        fewest = f"{statistics.median(left):g} ({min(left)}-{max(left)})" if left else "not found"
        print(f"{name:42} {shown:>20} {fewest:>14}  {what}", flush=True)
        if options.write is not None and hits:
            (options.write / f"{name}.json").write_text(hits[0][1].to_json())


if __name__ == "__main__":
    main()
