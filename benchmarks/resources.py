"""What one step of resource arithmetic costs, in microseconds: `python benchmarks/resources.py`.

An agent's bundle (cpus, disk, mem, ports) and a task's (cpus, mem), our own CPU time, the best of five rounds each.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable

import msgspec

from mesos_actor import Resources
from mesos_actor.actors.resources import total

ROUNDS = 5
CALLS = 50_000

agent = Resources.parse("cpus:64;mem:256GiB;disk:1TiB;ports:[31000-32000]")
busy = Resources.parse("cpus:8;mem:16GiB;disk:10GiB;ports:[31000-31009]")
scalars = Resources.parse("cpus:64;mem:256GiB;disk:1TiB;gpus:8")
fewer = Resources.parse("cpus:8;mem:16GiB;disk:10GiB;gpus:1")
task = Resources.of(cpus="0.5", mem=32)
reserved = agent + Resources.parse("cpus(eng):8;mem(eng):1024")
encoded = msgspec.msgpack.encode(agent)
decoder = msgspec.msgpack.Decoder(Resources)
agents = [agent] * 1_000

STEPS: dict[str, Callable[[], object]] = {
    "4 scalars + 4 scalars": lambda: scalars + fewer,
    "4 scalars - 4 scalars": lambda: scalars - fewer,
    "4 scalars contain 4 scalars": lambda: scalars.contains(fewer),
    "agent + task": lambda: agent + task,
    "agent - task": lambda: agent - task,
    "agent contains task": lambda: agent.contains(task),
    "take a bundle with ports, put it back": lambda: (agent - busy) + busy,
    "agent - bundle with ports": lambda: agent - busy,
    "error() of a task": task.error,
    "error() of an agent": agent.error,
    "take, nothing reserved": lambda: agent.take(task),
    "take, some reserved": lambda: reserved.take(task),
    "for_role, nothing reserved": lambda: agent.for_role("eng"),
    "decode from msgpack": lambda: decoder.decode(encoded),
    "Resources.of(cpus, mem)": lambda: Resources.of(cpus="0.5", mem=32),
}


def main() -> None:
    for name, step in STEPS.items():
        seconds = min(timeit.repeat(step, timer=time.process_time, number=CALLS, repeat=ROUNDS))
        print(f"{name:40} {seconds / CALLS * 1e6:8.2f} us")
    seconds = min(timeit.repeat(lambda: total(agents), timer=time.process_time, number=20, repeat=ROUNDS))
    print(f"{'total of 1,000 agents':40} {seconds / 20 * 1e6:8.0f} us")


if __name__ == "__main__":
    main()
