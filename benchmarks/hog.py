"""A victim beside a hog, first not isolated, then isolated: a table, and a picture of cpu and memory over time.

    scripts/hog [FILE.svg]

Both times the same: the victim computes a little every few milliseconds; after a while a hog starts 64 busy processes;
when that has been ended another one takes more and more memory. Real containers from the real containerizers: `process`
and `linux`. Needs root and a cgroup v2; scripts/hog runs it in the machine of scripts/vm where this host has none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import time
from pathlib import Path

import msgspec
from chart import Panel, Row, chart
from local_containers import HOG, HOG_PROCESSES, Make, isolated, local_containers, processes
from neighbour import calibrated, latencies_ms, percentiles

from mesos_actor.actors.messages.containers import ContainerExited
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup_host import find

VICTIM, CPU_HOG, MEMORY_HOG = "victim", f"hog: {HOG_PROCESSES} processes", "hog: memory"
PIECE_MS, PERIOD_MS = 6.0, 20.0
SAMPLE_S = 0.5
ALONE_S, CPU_S, PAUSE_S, MEMORY_S = 4.0, 8.0, 2.0, 20.0
EATEN_MIB, ASKED_MIB = 512, 128
MIB = 1 << 20
GLUTTON = Command(("sh", "-c", f"head -c {EATEN_MIB}M /dev/zero | (tail; sleep 100000) | sleep 100000"))
"""tail keeps all of a line that does not end."""

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Seen(msgspec.Struct):
    """One of the two times: samples by container as (seconds, cpus, MiB), moments, and the victim's latencies."""

    samples: dict[str, list[tuple[float, float, float]]] = {}
    moments: list[tuple[float, str]] = []
    windows: dict[str, tuple[int, int]] = {}
    latencies_ms: dict[str, list[float]] = {}
    exited: ContainerExited | None = None


async def show(make: Make, pieces: int) -> Seen:
    """Run it once."""
    seen = Seen()
    async with local_containers(make) as containers:
        program = [sys.executable, str(Path(__file__).with_name("neighbour.py")), str(pieces), f"{PERIOD_MS:g}", "32"]
        containers.launch("victim", Command(tuple(program)), Resources.of(cpus="0.5", mem=ASKED_MIB))
        pids = {VICTIM: await containers.started("victim")}
        output = containers.sandbox("victim") / "stdout"
        while not output.exists() or not output.stat().st_size:
            await asyncio.sleep(0.1)
        sampling = asyncio.get_running_loop().create_task(sample(pids, seen))
        await stage(seen, "alone", ALONE_S)
        containers.launch("cpu", HOG, Resources.of(cpus="0.5", mem=ASKED_MIB))
        pids[CPU_HOG] = await containers.started("cpu")
        await stage(seen, "64 busy processes", CPU_S)
        await containers.end("cpu")
        del pids[CPU_HOG]
        await stage(seen, "alone again", PAUSE_S)
        containers.launch("memory", GLUTTON, Resources.of(cpus="0.5", mem=ASKED_MIB))
        pids[MEMORY_HOG] = await containers.started("memory")
        await stage(seen, "memory without end", MEMORY_S)
        sampling.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sampling
        seen.exited = await containers.ended("memory") if containers.has_ended("memory") else None
        if seen.exited is None:
            await containers.end("memory")
        else:
            containers.forget("memory")
        seen.latencies_ms = {name: latencies_ms(output, *window) for name, window in seen.windows.items()}
        await containers.end("victim")
    return seen


async def stage(seen: Seen, name: str, length_s: float) -> None:
    begin_us = time.monotonic_ns() // 1_000
    seen.moments.append((begin_us / 1e6, name))
    await asyncio.sleep(length_s)
    seen.windows[name] = begin_us, time.monotonic_ns() // 1_000


async def sample(pids: dict[str, int], seen: Seen) -> None:
    """What each family uses, for ever; the same way for both, from /proc."""
    before: dict[str, tuple[float, float]] = {}
    while True:
        for name, pid in list(pids.items()):
            cpu_s, memory_bytes = family_use(pid)
            now = time.monotonic()
            if name in before:
                then, used_s = before[name]
                cpus = max(0.0, cpu_s - used_s) / (now - then)
                seen.samples.setdefault(name, []).append((now, cpus, memory_bytes / MIB))
            before[name] = now, cpu_s
        await asyncio.sleep(SAMPLE_S)


def family_use(pid: int) -> tuple[float, int]:
    """CPU seconds and resident bytes of a process and its descendants; zeros when they are gone."""
    ticks = pages = 0
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            waiting += map(int, Path(f"/proc/{one}/task/{one}/children").read_text().split())
        except OSError:
            continue
        ticks += int(fields[11]) + int(fields[12])
        pages += int(fields[21])
    return ticks / _TICKS, pages * _PAGE_BYTES


def picture(both: dict[str, Seen]) -> str:
    """The SVG."""
    rows = []
    for index, title in ((1, "processors used"), (2, "memory, MiB")):
        panels = []
        for seen in both.values():
            begin = seen.moments[0][0]
            lines = {
                name: [(max(0.0, point[0] - begin), point[index]) for point in points]
                for name, points in seen.samples.items()
            }
            notes = [(moment - begin, name) for moment, name in seen.moments[1:]]
            panels.append(Panel(lines, notes))
        level = (float(ASKED_MIB), f"asked for: {ASKED_MIB}") if index == 2 else None
        rows.append(Row(title, panels, level))
    return chart("A victim beside a hog", list(both), rows)


def table(both: dict[str, Seen]) -> str:
    """What the victim and the hogs got, a line each."""
    lines = [f"{'':34}" + "".join(f"{name:>16}" for name in both)]
    for stage_name in ("alone", "64 busy processes", "memory without end"):
        found = [percentiles(seen.latencies_ms[stage_name]) for seen in both.values()]
        for index, word in ((0, "median"), (1, "p95")):
            label = f"a piece of work, {stage_name}, {word}"
            lines.append(f"{label:48}" + "".join(f"{values[index]:>13.1f} ms" for values in found))
    for name in (VICTIM, CPU_HOG):
        used = [at_most(seen, "64 busy processes", name) for seen in both.values()]
        lines.append(f"{f'processors, 64 busy processes, {name}':48}" + "".join(f"{value:>16.2f}" for value in used))
    most = [max(point[2] for point in seen.samples[MEMORY_HOG]) for seen in both.values()]
    lines.append(
        f"{f'memory at most, {MEMORY_HOG} (asked: {ASKED_MIB})':48}" + "".join(f"{v:>12.0f} MiB" for v in most)
    )
    for name, seen in both.items():
        how = f"{seen.exited.text} ({seen.exited.limitation})" if seen.exited is not None else "nobody stopped it"
        lines.append(f"the memory hog, {name}: {how}")
    return "\n".join([lines[0].replace(" " * 34, " " * 48, 1), *lines[1:]])


def at_most(seen: Seen, stage_name: str, name: str) -> float:
    """Processors on average in a stage."""
    begin_us, end_us = seen.windows[stage_name]
    values = [cpus for at, cpus, _ in seen.samples[name] if begin_us <= (at - SAMPLE_S) * 1e6 and at * 1e6 <= end_us]
    return sum(values) / max(1, len(values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", type=Path, default=Path("hog.svg"), help="where the picture goes")
    given = parser.parse_args()
    missing = find().missing
    if missing:
        raise SystemExit(f"needs cgroup v2: {'; '.join(map(str, missing))}; or run it by scripts/hog")
    pieces = calibrated(PIECE_MS)
    # Whoever looks must not wait behind the hog; what it starts is as everybody.
    os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    both = {
        name: asyncio.run(show(make, pieces)) for name, make in (("not isolated", processes), ("isolated", isolated))
    }
    given.file.write_text(picture(both))
    print(table(both))
    print(f"picture: {given.file}")


if __name__ == "__main__":
    main()
