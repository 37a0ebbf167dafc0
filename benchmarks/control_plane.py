"""What one master can do: tasks through it, agents on it, measured with emulated agents in other processes.

    python benchmarks/control_plane.py tasks [--tasks 5000 20000] [--agents 100] [--rounds 3]
    python benchmarks/control_plane.py register [--agents 10000] [--processes 4]
    python benchmarks/control_plane.py register --separate --agents 1000

`tasks`: from `post` to the last FINISHED of tasks that end at once; the master's CPU a task beside it. `register`:
the master's CPU from its start to the last registration, and its memory then; with `--separate` every agent has a
connection of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from pathlib import Path

from local_cluster import LocalCluster, cpu_s, local_cluster, memory_mib, quiet
from tasks import Trues

from mesos_actor.actors.run import running

MESOS_TASKS_PER_S = 575
"""Apache Mesos 1.11 on such a machine, with 100 fake agents and 5,000 tasks that finish at once."""
HERE = Path(__file__).resolve().parent


def start_agents(
    cluster: LocalCluster, agents: int, processes: int, separate: bool, hold: bool = False
) -> list[subprocess.Popen[str]]:
    """Emulated agents, all of them registered; with `hold`, their tasks do not end."""
    started = []
    for number in range(processes):
        part = agents // processes + (number < agents % processes)
        command = [sys.executable, str(HERE / "emulated_agents.py"), cluster.masters, cluster.key_dir, f"e{number}"]
        command += [str(part), *(["--separate"] if separate else []), *(["--hold"] if hold else [])]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in started:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            sys.exit("the emulated agents did not register")
    return started


def stop_agents(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.communicate("")


async def run_tasks(cluster: LocalCluster, tasks: int) -> tuple[float, float]:
    """Tasks a second, and milliseconds of the master's CPU a task."""
    framework = Trues()
    async with running(framework, cluster.masters, key_dir=cluster.key_dir):
        await asyncio.wait_for(framework.ready.wait(), 30)
        before, started = cpu_s(cluster.pids["master"]), time.monotonic()
        framework.post(tasks)
        await asyncio.wait_for(framework.over.wait(), 300)
        took_s = time.monotonic() - started
        spent_s = cpu_s(cluster.pids["master"]) - before
    return tasks / took_s, 1000 * spent_s / tasks


def tasks(options: argparse.Namespace) -> None:
    for count in options.tasks:
        rates, costs = [], []
        for _ in range(options.rounds):
            with local_cluster() as cluster:
                agents = start_agents(cluster, options.agents, 1, False)
                rate, cost = asyncio.run(run_tasks(cluster, count))
                stop_agents(agents)
            rates.append(rate)
            costs.append(cost)
            print(f"  {count} tasks on {options.agents} agents: {rate:.0f}/s, master {cost:.4f} ms a task", flush=True)
        rate, cost = statistics.median(rates), statistics.median(costs)
        beside = f"{rate / MESOS_TASKS_PER_S:.1f} times Apache Mesos' {MESOS_TASKS_PER_S}/s"
        print(f"{count} tasks, median: {rate:.0f}/s ({beside}), master's CPU {cost:.4f} ms a task")


def register(options: argparse.Namespace) -> None:
    with local_cluster() as cluster:
        started = time.monotonic()
        agents = start_agents(cluster, options.agents, options.processes, options.separate)
        took_s = time.monotonic() - started
        master = cluster.pids["master"]
        how = "a connection each" if options.separate else f"{options.processes} connections"
        cost = f"master's CPU {cpu_s(master):.2f} s, its RSS {memory_mib(master, 'Rss'):.0f} MiB"
        beside = "Apache Mesos, 10,000: 7.3 s, 467 MB"
        print(f"{options.agents} agents, {how}: {cost}, {took_s:.1f} s until the last was registered ({beside})")
        stop_agents(agents)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("tasks")
    one.add_argument("--tasks", type=int, nargs="+", default=[5_000, 20_000])
    one.add_argument("--agents", type=int, default=100)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=tasks)
    two = commands.add_parser("register")
    two.add_argument("--agents", type=int, default=10_000)
    two.add_argument("--processes", type=int, default=4)
    two.add_argument("--separate", action="store_true")
    two.set_defaults(run=register)
    options = parser.parse_args()
    print(quiet())
    options.run(options)


if __name__ == "__main__":
    main()
