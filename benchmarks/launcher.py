"""How many `/bin/true` a second the launcher starts, watches and durably remembers, beside `xargs -P2`.

    python benchmarks/launcher.py [--tasks 2000] [--rounds 3] [--depth 64]

Each task has a directory of its own with stdout and stderr, as in an agent. Prints one line a round and the medians:
tasks a second of both, their ratio, the launcher's own CPU a task (its user and system time; half a millisecond of it
is the exec itself, spent in posix_spawn), and its memory at idle.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesos_actor.actors.ids import Address, Node
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.isolation.launcher_client import LauncherClient

_TICKS = os.sysconf("SC_CLK_TCK")


class LoopOutlet:
    """Time and timers of the running asyncio loop, for a client outside of an agent."""

    name = "containerizer"
    node = Node("")
    rng = random.Random(0)

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        raise AssertionError(f"nobody to send {message} to")

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(delay_us / 1e6, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        print(level, event, fields)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


async def launched(directory: Path, tasks: int, depth: int) -> tuple[float, float, float]:
    """Seconds for all tasks, the launcher's CPU seconds for them, and its PSS at idle before, in MiB."""
    loop = asyncio.get_running_loop()
    ready, done = loop.create_future(), loop.create_future()
    started = ended = 0

    def one_more() -> None:
        nonlocal started
        if started == tasks:
            return
        sandbox = directory / f"s{started}"
        sandbox.mkdir()
        fields = {"argv": ["/bin/true"], "env": {"PATH": "/usr/bin:/bin"}, "cwd": str(sandbox)}
        client.launch(f"t.{started}", fields)
        started += 1

    def on_event(event: dict[str, Any]) -> None:
        nonlocal ended
        if event["k"] != "exited":
            assert event["k"] == "started", event
            return
        client.forget([event["id"]])
        ended += 1
        one_more()
        if ended == tasks:
            done.set_result(None)

    client = LauncherClient(directory / "launcher", on_event, lambda _: ready.set_result(None), idle_s=1)
    client.start(LoopOutlet())
    await asyncio.wait_for(ready, 10)
    pid, idle_mib = client.pid, pss_mib(client.pid)
    cpu_before, begin = cpu_s(pid), time.perf_counter()
    for _ in range(depth):
        one_more()
    await done
    spent = time.perf_counter() - begin
    cpu = cpu_s(pid) - cpu_before
    client.close()
    return spent, cpu, idle_mib


def xargs(tasks: int) -> float:
    """Seconds that `xargs -P2 -n1 /bin/true` takes."""
    begin = time.perf_counter()
    lines = "\n".join(map(str, range(tasks)))
    subprocess.run(["xargs", "-P2", "-n1", "/bin/true"], input=lines, text=True, check=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--depth", type=int, default=64, help="tasks in flight")
    arguments = parser.parse_args()
    ours, theirs, cpus, idle_mib = [], [], [], 0.0
    for number in range(arguments.rounds):
        directory = Path(tempfile.mkdtemp(prefix="launcher-bench-"))
        try:
            spent, cpu, idle_mib = asyncio.run(launched(directory, arguments.tasks, arguments.depth))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        ours.append(arguments.tasks / spent)
        cpus.append(1000 * cpu / arguments.tasks)
        theirs.append(arguments.tasks / xargs(arguments.tasks))
        print(
            f"round {number + 1}: launcher {ours[-1]:,.0f}/s, xargs {theirs[-1]:,.0f}/s, CPU {cpus[-1]:.3f} ms a task"
        )
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"launcher {a:,.0f}/s   xargs -P2 {b:,.0f}/s   ratio {a / b:.2f}   depth {arguments.depth}")
    print(f"launcher's CPU, exec included: {statistics.median(cpus):.3f} ms a task; PSS at idle {idle_mib:.1f} MiB")


if __name__ == "__main__":
    main()
