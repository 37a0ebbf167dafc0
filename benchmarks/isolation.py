"""What isolation keeps and what it costs, as ratios of one run: a processor's limit and shares, a neighbour's latency
beside a hog, the launch of a container, and what many of them leave behind.

    scripts/vm --timeout 1800 -- python benchmarks/isolation.py [shares] [neighbour] [launches] [leftovers]

Needs root and a cgroup v2 with cpu, memory and pids, so it runs in the machine of scripts/vm; without names it does
all four. `launches` runs on a host as well: where that keeps its controllers in cgroup v1, as it says, with cgroups
that limit nothing. Every container is a real one, from the real containerizers and launcher.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from local_containers import (
    HOG,
    HOG_PROCESSES,
    LocalContainers,
    Made,
    Make,
    family_cpu_s,
    isolated,
    local_containers,
    processes,
)
from neighbour import calibrated, latencies_ms, percentiles

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Command, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup import Cgroup, CgroupTree
from mesos_actor.isolation.cgroup_host import find
from mesos_actor.isolation.cgroup_isolator import CgroupIsolator
from mesos_actor.isolation.confinement_plan import Confinement, fields_of
from mesos_actor.isolation.isolator import BaseIsolator, Contribution
from mesos_actor.isolation.limits import Write
from mesos_actor.isolation.process import ProcessContainerizer

BUSY = Command(("sh", "-c", "while :; do :; done"))
BUSY_EIGHT = Command(("sh", "-c", "for i in 1 2 3 4 5 6 7; do (while :; do :; done) & done; while :; do :; done"))

SMALL = Resources.of(cpus="0.1", mem=64)
PIECE_MS = 3.0
PERIOD_MS = 20.0
UNIFIED = Path("/sys/fs/cgroup/unified")


# -- what a processor's limit and shares come to -----------------------------------------------------------------------


async def shares(window_s: float) -> None:
    """cpus 0.2 as a limit; then two hogs that requested 1 and 3."""
    async with local_containers(isolated) as containers:
        containers.launch("limited", BUSY, Resources.of(cpus="0.2", mem=64), TaskLimits(cpus_milli=200))
        (used,) = await cpu_shares(containers, window_s, "limited")
        await containers.end("limited")
        print(f"busy under a limit of 0.2 cpus: {used:.4f} of a processor, {used / 0.2 - 1:+.1%}", flush=True)
        containers.launch("one", BUSY_EIGHT, Resources.of(cpus=1, mem=64))
        containers.launch("three", BUSY_EIGHT, Resources.of(cpus=3, mem=64))
        one, three = await cpu_shares(containers, window_s, "one", "three")
        ratio = three / one
        print(f"hogs with 1 and 3 cpus: {one:.3f} and {three:.3f}, 1:{ratio:.2f}, {ratio / 3 - 1:+.1%}", flush=True)
        await containers.end("one", "three")


async def cpu_shares(containers: LocalContainers, window_s: float, *names: str) -> list[float]:
    """Processors used on average over the same window, by the kernel's count of each cgroup."""
    tree = containers.tree
    assert tree is not None
    for name in names:
        await containers.started(name)
    await asyncio.sleep(1)  # until all of it has begun
    begin, before = time.monotonic(), [used_us(tree / name) for name in names]
    await asyncio.sleep(window_s)
    after, end = [used_us(tree / name) for name in names], time.monotonic()
    return [(b - a) / 1e6 / (end - begin) for a, b in zip(before, after, strict=True)]


def used_us(cgroup: Path) -> int:
    return int((cgroup / "cpu.stat").read_text().split()[1])


# -- a neighbour's latency ---------------------------------------------------------------------------------------------


async def neighbour(window_s: float, rounds: int) -> None:
    """The same neighbour alone and beside the hog, each with cgroups and without, several times in turn."""
    pieces = calibrated(PIECE_MS)
    print(f"a piece of {PIECE_MS:g} ms every {PERIOD_MS:g} ms, alone and beside {HOG_PROCESSES} busy processes")
    kinds: list[tuple[str, Make]] = [("not isolated", processes), ("isolated", isolated)]
    found: dict[str, list[list[float]]] = {name: [[], []] for name, _ in kinds}
    for _ in range(rounds):
        for name, make in kinds:
            async with local_containers(make) as containers:
                for sums, measured in zip(found[name], await beside_hog(containers, pieces, window_s), strict=True):
                    sums += measured
    for name, (alone, beside) in found.items():
        a, b = percentiles(alone), percentiles(beside)
        ratios = ", ".join(f"{after / before:.2f}" for before, after in zip(a, b, strict=True))
        print(f"{name}: alone {words(a)}; beside the hog {words(b)}; ratios {ratios}", flush=True)


async def beside_hog(containers: LocalContainers, pieces: int, window_s: float) -> tuple[list[float], list[float]]:
    """Latencies in milliseconds: alone, and while the hog runs."""
    program = [sys.executable, str(Path(__file__).with_name("neighbour.py")), str(pieces), f"{PERIOD_MS:g}"]
    containers.launch("neighbour", Command(tuple(program)), Resources.of(cpus=1, mem=128))
    await containers.started("neighbour")
    output = containers.sandbox("neighbour") / "stdout"
    while not output.exists() or not output.stat().st_size:
        await asyncio.sleep(0.1)
    alone = await window(window_s)
    containers.launch("hog", HOG, Resources.of(cpus=1, mem=256))
    hog_output = containers.sandbox("hog") / "stdout"
    await containers.started("hog")
    while not hog_output.stat().st_size:
        await asyncio.sleep(0.1)  # until all of its processes are there
    beside = await window(window_s)
    await asyncio.sleep(1)  # what was late is still written
    measured = latencies_ms(output, *alone), latencies_ms(output, *beside)
    await containers.end("hog", "neighbour")
    return measured


async def window(window_s: float) -> tuple[int, int]:
    begin_us = time.monotonic_ns() // 1_000
    await asyncio.sleep(window_s)
    return begin_us, time.monotonic_ns() // 1_000


def words(values: tuple[float, float, float]) -> str:
    return f"median {values[0]:.2f}, p95 {values[1]:.2f}, p99 {values[2]:.2f} ms"


# -- what a launch costs -----------------------------------------------------------------------------------------------


async def launches(count: int, rounds: int, depth: int) -> None:
    """`/bin/true` from launch to forgotten, as processes and with cgroups, several times in turn."""
    kinds: list[tuple[str, Make]] = [("process", processes), ("cgroups", isolated)]
    if find().missing:
        if not (UNIFIED / "cgroup.procs").exists() or not os.access(UNIFIED, os.W_OK):
            raise SystemExit("launches: this host has no cgroup v2 to write to: run it by scripts/vm")
        kinds[1] = ("cgroups that limit nothing, for this host's controllers are in cgroup v1", unlimited)
    walls: dict[str, list[float]] = {name: [] for name, _ in kinds}
    cpus: dict[str, list[float]] = {name: [] for name, _ in kinds}
    for _ in range(rounds):
        for name, make in kinds:
            async with local_containers(make) as containers:
                wall_s, cpu_s = await launched(containers, count, depth)
                walls[name].append(1e3 * wall_s / count)
                cpus[name].append(1e3 * cpu_s / count)
    for name, _ in kinds:
        wall, cpu = statistics.median(walls[name]), statistics.median(cpus[name])
        print(f"a launch, {name}: {wall:.2f} ms, {cpu:.2f} ms of CPU of agent, launcher and command")
    (before, _), (after, _) = kinds
    wall = statistics.median(walls[after]) / statistics.median(walls[before])
    cpu = statistics.median(cpus[after]) / statistics.median(cpus[before])
    print(f"cgroups over process: {wall:.2f} of the time, {cpu:.2f} of the CPU; {depth} in flight", flush=True)


async def launched(containers: LocalContainers, count: int, depth: int) -> tuple[float, float]:
    """Seconds for all of them, and the CPU seconds."""
    launcher = containers.port.launcher_pid
    true = Command(("/bin/true",))
    for number in range(depth):  # whatever is done once is done
        await one(containers, f"warm{number}", true)
    cpu_before = family_cpu_s(launcher) + time.process_time()
    begin = time.perf_counter()
    numbers = iter(range(count))

    async def some() -> None:
        for number in numbers:
            await one(containers, f"t{number}", true)

    await asyncio.gather(*(some() for _ in range(depth)))
    wall_s = time.perf_counter() - begin
    while containers.cgroups():
        await asyncio.sleep(0.01)  # their removal is part of the cost
    return wall_s, family_cpu_s(launcher) + time.process_time() - cpu_before


async def one(containers: LocalContainers, name: str, command: Command) -> None:
    containers.launch(name, command, SMALL)
    await containers.ended(name)
    containers.forget(name)


class NoLimits(CgroupIsolator):
    """Cgroups whose controllers are elsewhere, so that nothing can be limited: what a launch costs is still seen."""

    def _check_controllers(self, writes: tuple[Write, ...]) -> None:
        return

    def _made(self, container_id: ContainerId, writes: tuple[Write, ...]) -> Cgroup:
        return self._tree.create(container_id)


def unlimited(work_dir: Path) -> Made:
    """On a host whose cgroup v2 has no controllers."""
    tree = UNIFIED / f"mesos-actor-benchmark-{os.getpid()}"
    tree.mkdir(exist_ok=True)
    isolator = NoLimits(CgroupTree(str(tree), ()))
    return ProcessContainerizer(work_dir, launcher_idle_s=0.5, isolators=(isolator,)), tree


# -- what many leave behind --------------------------------------------------------------------------------------------


class Apart(BaseIsolator):
    """Namespaces of its own for each container."""

    name = "apart"

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        plan = Confinement(pid=True, mount=True, ipc=True, uts=True, cgroup=True, network="loopback")
        return Contribution(fields={"confine": fields_of(plan)})


async def leftovers(count: int, at_once: int) -> None:
    """Containers with cgroups and namespaces, up and down: what is there afterwards that was not before."""
    before = inventory()
    begin = time.monotonic()
    most: dict[str, int] = {}
    async with local_containers(lambda work_dir: isolated(work_dir, (Apart(),))) as containers:
        for first in range(0, count, at_once):
            names = [f"c{number}" for number in range(first, min(count, first + at_once))]
            for name in names:
                containers.launch(name, Command(("sleep", "100000")), SMALL)
            for name in names:
                await containers.started(name)
            most = {kind: max(most.get(kind, 0), len(now - before[kind])) for kind, now in inventory().items()}
            await containers.end(*names)
        while containers.cgroups():
            await asyncio.sleep(0.05)
    left = {kind: sorted(now - before[kind]) for kind, now in inventory().items()}
    print(f"{count} containers up and down, {at_once} at once, in {time.monotonic() - begin:.0f} s")
    for kind, things in left.items():
        print(f"{kind}: {most[kind]} more while they ran, {len(things)} afterwards {things[:5] or ''}", flush=True)
    if any(left.values()):
        raise SystemExit("leftovers: something has stayed")


def inventory() -> dict[str, set[str]]:
    """Everything that a container could leave on this host."""
    found: dict[str, set[str]] = {"processes": set(), "namespaces": set(), "mounts": set(), "cgroups": set()}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or not (process / "cmdline").exists():
            continue
        with contextlib.suppress(OSError):  # it has ended
            if (process / "cmdline").read_bytes():  # the kernel's own threads come and go
                found["processes"].add(process.name)
            found["namespaces"] |= {str(link.readlink()) for link in (process / "ns").iterdir()}
    found["mounts"] = {" ".join(line.split()[:5]) for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    found["cgroups"] = {str(path) for path in Path("/sys/fs/cgroup").rglob("*") if path.is_dir()}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="shares, neighbour, launches, leftovers; default: all")
    parser.add_argument("--window", type=float, default=8.0, help="seconds that each measurement of a rate takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--launches", type=int, default=100)
    parser.add_argument("--depth", type=int, default=8, help="launches in flight")
    parser.add_argument("--containers", type=int, default=500)
    parser.add_argument("--at-once", type=int, default=100)
    given = parser.parse_args()
    parts: dict[str, Callable[[], Coroutine[Any, Any, None]]] = {
        "shares": lambda: shares(given.window),
        "neighbour": lambda: neighbour(given.window, given.rounds),
        "launches": lambda: launches(given.launches, given.rounds, given.depth),
        "leftovers": lambda: leftovers(given.containers, given.at_once),
    }
    unknown = [name for name in given.what if name not in parts]
    if unknown:
        parser.error(f"there is no {unknown[0]!r}: known are {', '.join(parts)}")
    asked: Iterable[str] = given.what or parts
    missing = find().missing
    if missing and set(asked) != {"launches"}:
        raise SystemExit(f"needs cgroup v2: {'; '.join(map(str, missing))}; or run it by scripts/vm")
    for name in asked:
        asyncio.run(parts[name]())


if __name__ == "__main__":
    main()
