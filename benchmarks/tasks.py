"""Command tasks end to end, beside what `xargs` reaches in the same run.

    python benchmarks/tasks.py [--tasks 2000 10000] [--rounds 3] [--slots 64] [--latency 200]

One master, one agent with as many slots as asked for, one framework in this process: real processes, CURVE on, every
launch and update kept before it is told on. Throughput: all tasks submitted at once, until the last FINISHED has
arrived. CPU: of our four processes, not of the tasks. Latency: one task at a time on an idle cluster, from `post` to
FINISHED, with an offer in hand and, `cold`, beginning with `revive`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from local_cluster import LocalCluster, cpu_s, local_cluster, quiet

from mesos_actor import Command, Framework, Offer, Resources, Status, Task, TaskState
from mesos_actor.actors.core.placement import fill
from mesos_actor.actors.run import running

WANTED = Resources.of(cpus=1, mem=1)
TRUE = Command(argv=("/bin/true",))


class Trues(Framework):
    """Runs so many `/bin/true` as are posted, as quickly as it can."""

    roles = ("*",)

    def __init__(self) -> None:
        self.waiting = 0
        self.unfinished = 0
        self.number = 0
        self.over = asyncio.Event()
        self.ready = asyncio.Event()
        self.held: list[Offer] = []
        self.failed = 0
        self.ended_s = 0.0
        #: Milliseconds from a FINISHED to the offer of what it freed.
        self.offered_again_ms: list[float] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        if self.ended_s:
            self.offered_again_ms.append(1000 * (time.perf_counter() - self.ended_s))
            self.ended_s = 0.0
        self.held += offers
        self.ready.set()
        self.place()

    def on_rescinded(self, offer_ids: Sequence[str]) -> None:
        self.held = [offer for offer in self.held if offer.offer_id not in offer_ids]

    def on_posted(self, value: int | str) -> None:
        if value == "cold":
            self.ready.clear()
            self.decline(self.held)
            self.held = []
            self.suppress()
        elif isinstance(value, int):
            self.waiting += value
            self.unfinished += value
            if not self.held:
                self.revive()
            self.place()

    def place(self) -> None:
        while self.held and self.waiting:
            offer = self.held.pop()
            bundles, _ = fill(offer.resources, WANTED, 0, self.waiting)
            tasks = []
            for bundle in bundles:
                self.number += 1
                tasks.append(Task(task_id=f"t{self.number}", resources=bundle, command=TRUE))  # type: ignore[arg-type]
            self.waiting -= len(tasks)
            self.accept(offer, tasks, refuse_s=0)

    def on_update(self, status: Status) -> None:
        if status.state is TaskState.RUNNING:
            return
        if status.state is not TaskState.FINISHED:
            self.failed += 1
            print(status, file=sys.stderr)
        self.unfinished -= 1
        self.ended_s = time.perf_counter()
        if not self.unfinished:
            self.over.set()


def xargs(tasks: int) -> float:
    """`/bin/true` a second by two processes of xargs."""
    lines = "x\n" * tasks
    started = time.monotonic()
    subprocess.run(["xargs", "-P2", "-n1", "/bin/true"], input=lines, text=True, check=True)
    return tasks / (time.monotonic() - started)


async def throughput(cluster: LocalCluster, tasks: int) -> tuple[float, dict[str, float]]:
    """Tasks a second, and CPU milliseconds a task of each of our processes."""
    framework = Trues()
    async with running(framework, cluster.masters, key_dir=cluster.key_dir):
        await asyncio.wait_for(framework.ready.wait(), 30)
        before, own = cluster.cpu_s(), cpu_s(os.getpid())
        started = time.monotonic()
        framework.post(tasks)
        await asyncio.wait_for(framework.over.wait(), 120)
        took_s = time.monotonic() - started
        after = {**cluster.cpu_s(), "framework": cpu_s(os.getpid())}
        before["framework"] = own
    if framework.failed:
        sys.exit(f"{framework.failed} tasks failed")
    return tasks / took_s, {name: 1000 * (after[name] - before[name]) / tasks for name in after}


async def latency(cluster: LocalCluster, tasks: int, cold: bool) -> tuple[list[float], list[float]]:
    """Milliseconds of each of `tasks` single tasks, and from each end to the offer of what it freed; both sorted."""
    framework = Trues()
    took_ms = []
    async with running(framework, cluster.masters, key_dir=cluster.key_dir):
        await asyncio.wait_for(framework.ready.wait(), 30)
        for _ in range(tasks):
            if cold:
                framework.post("cold")
            await asyncio.sleep(0.02)
            framework.over.clear()
            started = time.perf_counter()
            framework.post(1)
            await asyncio.wait_for(framework.over.wait(), 30)
            took_ms.append(1000 * (time.perf_counter() - started))
    return sorted(took_ms), sorted(framework.offered_again_ms)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2_000, 10_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--latency", type=int, default=200)
    options = parser.parse_args()
    print(quiet())
    for tasks in options.tasks:
        ours, theirs, costs = [], [], []
        for _ in range(options.rounds):
            # A fresh directory each time: deleting thousands of sandboxes beside new ones slows ext4 down.
            theirs.append(xargs(tasks))
            with local_cluster() as cluster:
                cluster.add_agent("agent", f"cpus:{options.slots};mem:{options.slots * 4};disk:1000")
                rate, cost = asyncio.run(throughput(cluster, tasks))
            ours.append(rate)
            costs.append(cost)
            print(
                f"  {tasks} tasks: {rate:.0f}/s, xargs -P2 {theirs[-1]:.0f}/s, ratio {rate / theirs[-1]:.2f}; CPU ms a "
                f"task {sum(cost.values()):.3f} ("
                + ", ".join(f"{name} {value:.3f}" for name, value in cost.items())
                + ")",
                flush=True,
            )
        ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
        spent = statistics.median(sum(cost.values()) for cost in costs)
        print(
            f"{tasks} tasks, median: {statistics.median(ours):.0f}/s, {ratio:.2f} of xargs, {spent:.3f} ms of our CPU"
        )
    if options.latency:
        with local_cluster() as cluster:
            cluster.add_agent("agent", f"cpus:{options.slots};mem:{options.slots * 4};disk:1000")
            for cold in (False, True):
                took, again = asyncio.run(latency(cluster, options.latency, cold))
                how = "from revive" if cold else "offer in hand"
                middle, high = took[len(took) // 2], took[len(took) * 95 // 100]
                print(f"one task, idle, {how}: median {middle:.2f} ms, p95 {high:.2f} ms")
                if not cold:
                    middle = again[len(again) // 2]
                    print(f"what it freed offered again: median {middle:.2f} ms after its FINISHED had arrived")


if __name__ == "__main__":
    main()
