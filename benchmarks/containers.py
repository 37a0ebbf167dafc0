"""What a container costs: launches of `true`, one after another and many at once, with and without a cgroup.

    scripts/vm -- python benchmarks/containers.py          on any machine: the ratio counts, not the times
    python benchmarks/containers.py                        as root on a host with cgroup v2

From LaunchContainer to the taken-over end, through the real launcher. Rounds alternate, the best of each counts.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Node, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ForgetContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.cgroup import Unusable
from mesos_actor.isolation.linux import LinuxContainerizer
from mesos_actor.isolation.process import ProcessContainerizer

MOST = 1.5
"""What a cgroup may cost, as a multiple."""
SMALL = Resources.of(cpus=0.1, mem=64)


class Agent:
    """The pretended agent, as an Outlet: forgets what has ended and counts it."""

    name = "containerizer"
    node = Node("")

    def __init__(self, containerizer: ProcessContainerizer) -> None:
        self.rng = random.Random(0)
        self.containerizer = containerizer
        self.loop = asyncio.get_running_loop()
        self.left = 0
        self.done = asyncio.Event()
        containerizer.start(self)
        self.give(RecoverContainers(()))

    def now_us(self) -> int:
        return time.time_ns() // 1_000

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        return self.loop.call_later(delay_us / 1e6, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        if level != "info":
            print(event, fields, file=sys.stderr)

    def give(self, *messages: Message) -> None:
        for message in messages:
            self.containerizer.on_message(Address("/agent"), "", Principal("local"), message)
        self.containerizer.on_flush()

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        if isinstance(message, ContainerFailed):
            sys.exit(f"a launch failed: {message.text}")
        if isinstance(message, ContainerExited):
            self.loop.call_soon(self.give, ForgetContainer(message.container_id))
            self.left -= 1
            if not self.left:
                self.done.set()

    async def run(self, prefix: str, count: int, at_once: int) -> float:
        """Milliseconds a container."""
        start = time.perf_counter()
        for first in range(0, count, at_once):
            names = range(first, min(first + at_once, count))
            self.left = len(names)
            self.done.clear()
            command, framework = Command(("true",)), FrameworkId("f")
            self.give(*(LaunchContainer(ContainerId(f"{prefix}.{name}"), framework, command, SMALL) for name in names))
            await self.done.wait()
        return 1_000 * (time.perf_counter() - start) / count


async def measure(count: int, rounds: int) -> bool:
    """Print a table; whether a cgroup costs no more than it may."""
    with tempfile.TemporaryDirectory() as directory:
        agents = {
            "process": Agent(ProcessContainerizer(Path(directory, "process"), launcher_idle_s=1)),
            "cgroups": Agent(LinuxContainerizer(Path(directory, "cgroups"), launcher_idle_s=1, pids_limit=100)),
        }
        for agent in agents.values():
            await agent.run("warm", 8, 8)  # the launcher is there and has loaded what it needs
        good = True
        for at_once in (1, 32):
            best = dict.fromkeys(agents, float("inf"))
            for number in range(rounds):
                for name, agent in agents.items():
                    best[name] = min(best[name], await agent.run(f"r{at_once}-{number}", count, at_once))
            ratio = best["cgroups"] / best["process"]
            good &= ratio <= MOST
            figures = "  ".join(f"{name} {ms:8.2f} ms" for name, ms in best.items())
            print(f"{at_once:3} at once: {figures}  ratio {ratio:.2f} (at most {MOST})", flush=True)
        await asyncio.sleep(1)
        for agent in agents.values():
            agent.containerizer.close()
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=96, help="containers a round")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    try:
        sys.exit(0 if asyncio.run(measure(options.count, options.rounds)) else 1)
    except Unusable as error:
        sys.exit(f"this host has no cgroups for us: {error}; run it as scripts/vm -- python benchmarks/containers.py")


if __name__ == "__main__":
    main()
