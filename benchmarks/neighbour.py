"""A well-behaved neighbour: the same small piece of work again and again, and how long each took.

    python benchmarks/neighbour.py ROUNDS PERIOD_MS [MEMORY_MIB]

A piece is due every PERIOD_MS; each line of the output has when it was due and how long after that it was done, both in
microseconds of the monotonic clock. So a piece that waited for a processor has taken that long, as whoever waits for a
server would say. It holds MEMORY_MIB of memory and looks at all of it now and then.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path

PAGE_BYTES = 4096
LINES_A_WRITE = 10


def work(rounds: int) -> int:
    """The same amount of computing each time."""
    total = 0
    for number in range(rounds):
        total += number * number % 7
    return total


def calibrated(target_ms: float) -> int:
    """How many rounds take that long here, when nothing disturbs: by the quickest of some tries."""
    rounds = 1_000
    quickest_s = min(_timed(rounds) for _ in range(50))
    return max(100, round(rounds * target_ms / 1_000 / quickest_s))


def _timed(rounds: int) -> float:
    begin = time.perf_counter()
    work(rounds)
    return time.perf_counter() - begin


def latencies_ms(output: Path, begin_us: int, end_us: int) -> list[float]:
    """Of those pieces that were due in this window, sorted."""
    found = []
    for line in output.read_text().splitlines()[:-1]:  # the last may be half written
        due_us, took_us = line.split()
        if begin_us <= int(due_us) < end_us:
            found.append(int(took_us) / 1_000)
    return sorted(found)


def percentiles(values: list[float]) -> tuple[float, float, float]:
    """Median, 95th, 99th."""
    if len(values) < 20:
        raise SystemExit(f"only {len(values)} pieces of work were done in the window: make it longer by --window")
    cuts = statistics.quantiles(values, n=100)
    return cuts[49], cuts[94], cuts[98]


def main(rounds: int, period_ms: float, memory_mib: int) -> None:
    memory = bytearray(memory_mib << 20)
    for at in range(0, len(memory), PAGE_BYTES):
        memory[at] = 1
    period_s = period_ms / 1_000
    due = time.monotonic()
    lines = []
    while True:
        time.sleep(max(0.0, due - time.monotonic()))
        work(rounds)
        done = time.monotonic()
        lines.append(f"{int(due * 1e6)} {int((done - due) * 1e6)}\n")
        if len(lines) >= LINES_A_WRITE or done - due > period_s:
            sys.stdout.write("".join(lines))
            sys.stdout.flush()
            lines = []
        due = max(due, done) + period_s  # what is late delays the next, and does not pile up


if __name__ == "__main__":
    main(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0)
