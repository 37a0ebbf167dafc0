"""Messages a second between two actors: in one process, and in the simulator.

    python benchmarks/actors.py [--seconds 2] [--repeats 3]

One process: two actors pass 64 messages to and fro under the real runtime, frozen messages handed over as they are.
Durable: the same, each message kept in SQLite before it is passed on, one synced commit a turn. Simulator: every
message is encoded, framed, numbered, carried, judged and decoded; between two hosts, and within one. The best of the
repeats is printed for each, by our CPU time and by the clock on the wall: the first is what the code costs, the second
also tells what else the machine was doing.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.ids import Address, Term, local
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.store import SqliteStore
from mesos_actor.testing import Event, World

IN_FLIGHT = 64
BALL = Ping(Term(1))
Rate = tuple[int, float, float]
"""Messages, our CPU time, and time on the wall, in seconds."""


class Player(Actor):
    """Passes every ball on."""

    def __init__(self, to: Address, serves: int = 0, durable: bool = False) -> None:
        self.to = to
        self.serves = serves
        self.durable = durable
        self.count = 0

    def on_start(self, ctx: Context) -> None:
        for _ in range(self.serves):
            ctx.send(self.to, BALL)

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        self.count += 1
        if self.durable:
            ctx.persist(f"k{self.count % 1_000}", UserRecord(b"x" * 100))
        ctx.send(self.to, message)


async def _one_process(seconds: float, directory: Path | None) -> Rate:
    store = None if directory is None else SqliteStore(directory / f"{os.urandom(4).hex()}.db")
    runtime = Runtime(store=store, log=MemoryLog())
    durable = store is not None
    one, other = Player(local("other"), IN_FLIGHT, durable), Player(local("one"), 0, durable)
    runtime.spawn("one", lambda: one, durable=durable)
    runtime.spawn("other", lambda: other, durable=durable)
    await runtime.start()
    begin, cpu, wall = one.count + other.count, time.process_time(), time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (one.count + other.count - begin, time.process_time() - cpu, time.perf_counter() - wall)
    await runtime.stop(drain_s=0)
    return rate


def one_process(seconds: float) -> Rate:
    return asyncio.run(_one_process(seconds, None))


def durable(seconds: float) -> Rate:
    with tempfile.TemporaryDirectory() as directory:
        return asyncio.run(_one_process(seconds, Path(directory)))


def _nothing_wrong(_world: World, event: Event) -> None:
    assert event.number


def simulated(seconds: float, *, hosts: int = 2, invariants: int = 0) -> Rate:
    world = World(invariants=[_nothing_wrong] * invariants)
    second = world.add_host("second", node="tcp://10.0.0.2:5050")
    first = second if hosts == 1 else world.add_host("first", node="tcp://10.0.0.1:5050")
    second.spawn("other", lambda: Player(first.address("one")))
    first.spawn("one", lambda: Player(second.address("other"), IN_FLIGHT))
    second.start()
    first.start()
    begin, cpu, wall = world.events, time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < seconds:
        world.run(1_000)
    return world.events - begin, time.process_time() - cpu, time.perf_counter() - wall


CASES: dict[str, tuple[Callable[[float], Rate], str]] = {
    "one process": (one_process, "500,000/s"),
    "one process, kept in SQLite first": (durable, "-"),
    "simulator, two hosts": (simulated, "50,000/s"),
    "simulator, two hosts, 2 invariants": (lambda s: simulated(s, invariants=2), "50,000/s"),
    "simulator, one host": (lambda s: simulated(s, hosts=1), "50,000/s"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    print(f"{'messages a second':36} {'by our CPU':>12} {'by the wall':>12} {'aim':>12}")
    for name, (case, aim) in CASES.items():
        rates = [case(options.seconds) for _ in range(options.repeats)]
        by_cpu = max(count / cpu for count, cpu, _ in rates)
        by_wall = max(count / wall for count, _, wall in rates)
        print(f"{name:36} {by_cpu:12,.0f} {by_wall:12,.0f} {aim:>12}")


if __name__ == "__main__":
    main()
