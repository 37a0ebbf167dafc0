"""The replicated registry: commits, a new leader after a kill, all agents back after one, and restarts.

    python benchmarks/registry.py commits [--commits 20000] [--in-flight 100] [--rounds 3]
    python benchmarks/registry.py failover [--kills 11]
    python benchmarks/registry.py reregister [--agents 2000] [--tasks 20000] [--rounds 3]
    python benchmarks/registry.py restart [--entries 100000]

Real processes on loopback, CURVE on, an fdatasync before anything is answered. `commits`: three replicas, commands of
200 bytes, proposed in the leader's process; beside it, in the same run, what the disk alone does. `failover`: three
masters; kill -9 of the leader, until another says that it leads, and until a role's weight was set through it.
`reregister`: the same with emulated agents that hold tasks, until the last of them is registered with the new leader
and a framework has an offer of it. `restart`: one replica opens a directory with so many entries, from its log and from
a snapshot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from control_plane import start_agents, stop_agents
from local_cluster import LocalCluster, free_ports, local_cluster, memory_mib, quiet

from mesos_actor import Command, Framework, Offer, Status, Task, TaskState
from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.client import Client, credentials, new_id
from mesos_actor.actors.core.placement import fill
from mesos_actor.actors.ids import Address, ClusterId, OperationId, Role, Term, local
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.registry import (
    AdmitAgent,
    Committed,
    FoundCluster,
    Leading,
    ProposalRefused,
    Propose,
    SetWeight,
)
from mesos_actor.actors.messages.values import AgentInfo
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import running
from mesos_actor.actors.runtime import Runtime
from mesos_actor.raft.directory import open_directory
from mesos_actor.raft.engine import Timing
from mesos_actor.raft.files import DirectoryFiles
from mesos_actor.raft.machine import Machine, Proposal, encode_proposal
from mesos_actor.raft.node import RegistryPort
from mesos_actor.raft.replica import Replica
from mesos_actor.transport.security import create_cluster_key, load_keys
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

SMALL = Resources.parse("cpus:0.1;mem:10")
TRUE = Command(argv=("/bin/true",))
TASKS_AN_AGENT = 10
HERE = Path(__file__).resolve().parent
ALONE = 300
"""Commits one at a time, for the latency."""
SETTLE_S = 0.5


def command(number: int) -> SetWeight:
    """A command of about 200 bytes in the log."""
    return SetWeight(Role(f"team-{number % 100:02d}-" + "x" * 70), 1 + number % 1_000_000)


INFO = AgentInfo("host", Address("tcp://10.0.0.1:5051/agent"), Resources.parse("cpus:8;mem:16384;disk:100000"))


def admission(number: int) -> AdmitAgent:
    """Of a new agent, so that the state grows with the log: about 200 bytes too."""
    return AdmitAgent(INFO, f"{number:032x}", 1_700_000_000_000_000)


# -- commits ----------------------------------------------------------------------------------------------------------


class Flood(Actor):
    """Stands where the master does: when it leads, it proposes so many commands, first one at a time, then many."""

    def __init__(self, commits: int, in_flight: int) -> None:
        self.commits = commits
        self.in_flight = in_flight
        self.term = Term(0)
        self.number = 0
        self.done = 0
        self.sent_ns: dict[OperationId, int] = {}
        self.alone_ms: list[float] = []
        self.began_ns = 0

    @handles(Leading)
    def on_leading(self, ctx: Context, sender: Address, message: Leading) -> None:
        self.term = message.term
        ctx.set_timer("begin", int(SETTLE_S * 1_000_000))

    def on_timer(self, ctx: Context, name: str) -> None:
        self._propose(ctx)

    def _propose(self, ctx: Context) -> None:
        self.number += 1
        operation_id = OperationId(f"bench{self.term}-P{self.number}")
        self.sent_ns[operation_id] = time.monotonic_ns()
        ctx.send(local("registry"), Propose(operation_id, self.term, command(self.number)))

    @handles(Committed)
    def on_committed(self, ctx: Context, sender: Address, message: Committed) -> None:
        took_ns = time.monotonic_ns() - self.sent_ns.pop(message.operation_id)
        self.done += 1
        if self.done <= ALONE:
            self.alone_ms.append(took_ns / 1e6)
            if self.done == ALONE:
                self.began_ns = time.monotonic_ns()
                for _ in range(self.in_flight):
                    self._propose(ctx)
            else:
                self._propose(ctx)
        elif self.done == ALONE + self.commits:
            took_s = (time.monotonic_ns() - self.began_ns) / 1e9
            print(json.dumps({"rate": self.commits / took_s, "alone_ms": self.alone_ms}), flush=True)
        elif self.number < ALONE + self.commits:
            self._propose(ctx)

    @handles(ProposalRefused)
    def on_refused(self, ctx: Context, sender: Address, message: ProposalRefused) -> None:
        raise AssertionError(f"{message.reason}: {message.text}")


def replica(options: argparse.Namespace) -> None:
    """One of the three processes."""
    keys = load_keys(Path(options.directory) / "keys")
    members = tuple(options.members.split(","))

    def transport(deliver: Deliver, lost: LinkLost) -> Transport:
        return ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, listen=f"tcp://{options.me}")

    async def run() -> None:
        runtime = Runtime(transport=transport, log=Log(level="error"))
        where = Path(options.directory) / options.me.replace(":", "-")
        runtime.add_port("registry", RegistryPort(lambda: DirectoryFiles(where), options.me, members, "initialize"))
        runtime.spawn("master", lambda: Flood(options.commits, options.in_flight))
        async with runtime:
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(run())


def disk_rate(directory: Path) -> tuple[float, float]:
    """(appends of 200 bytes with an fdatasync each a second, its median in ms) of the disk alone."""
    took = []
    descriptor = os.open(directory / "probe", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for _ in range(300):
        began = time.monotonic()
        os.write(descriptor, b"x" * 200)
        os.fdatasync(descriptor)
        took.append(time.monotonic() - began)
    os.close(descriptor)
    return 300 / sum(took), 1000 * statistics.median(took)


def commits(options: argparse.Namespace) -> None:
    rates, medians = [], []
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="mesos-actor-bench-") as name:
            directory = Path(name)
            create_cluster_key(directory / "keys")
            members = ",".join(f"127.0.0.1:{port}" for port in free_ports(3))
            fixed = ["--members", members, "--commits", str(options.commits), "--in-flight", str(options.in_flight)]
            processes = [
                subprocess.Popen(
                    [sys.executable, __file__, "replica", "--directory", name, "--me", me, *fixed],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
                for me in members.split(",")
            ]
            found = json.loads(_first_line(processes))
            for process in processes:
                process.communicate("")
            alone = sorted(found["alone_ms"])
            rates.append(found["rate"])
            medians.append(alone[len(alone) // 2])
            per_s, sync_ms = disk_rate(directory)
            size = len(encode_proposal(Proposal(OperationId("bench1-P12345"), Term(1), command(12345))))
            print(
                f"  3 replicas, {size} B: {rates[-1]:.0f}/s with {options.in_flight} in flight; alone median "
                f"{medians[-1]:.2f} ms, p95 {alone[len(alone) * 95 // 100]:.2f} ms; the disk alone {per_s:.0f} "
                "syncs/s, "
                f"median {sync_ms:.2f} ms",
                flush=True,
            )
    print(f"median: {statistics.median(rates):.0f} commits/s; alone {statistics.median(medians):.2f} ms")


def _first_line(processes: list[subprocess.Popen[str]]) -> str:
    import select

    streams = [process.stdout for process in processes if process.stdout is not None]
    ready, _, _ = select.select(streams, [], [], 120)
    if not ready:
        sys.exit("no replica finished within two minutes")
    return str(ready[0].readline())


# -- a new leader -----------------------------------------------------------------------------------------------------


async def _weight(client: Client, value: int) -> None:
    await client.order(SetRoleWeight(new_id(), Role("bench"), value))


def failover(options: argparse.Namespace) -> None:
    leads, writes = [], []
    with local_cluster(3) as cluster:
        for number in range(options.kills):
            time.sleep(SETTLE_S + random.random() * 0.1)
            led_s, wrote_s = asyncio.run(_one_failover(cluster, number + 1))
            leads.append(led_s)
            writes.append(wrote_s)
            print(f"  kill {number + 1}: another leads after {led_s:.3f} s, first write {wrote_s:.3f} s", flush=True)
    print(
        f"{options.kills} kills, median: a new leader after {statistics.median(leads):.3f} s (max {max(leads):.3f}), "
        "first "
        f"durable write {statistics.median(writes):.3f} s (max {max(writes):.3f}) (Apache Mesos with ZooKeeper: 8 to "
        "10 s)"
    )


async def _one_failover(cluster: LocalCluster, value: int) -> tuple[float, float]:
    """Seconds from the kill until another leads, and until a write is acknowledged; the dead one is started again."""
    addresses, keys = credentials(cluster.masters, cluster.key_dir, False)
    async with Client(addresses, keys, timeout_s=30) as client:
        leader = cluster.master_at(await client.leader())
        left = ",".join(m for at, m in enumerate(cluster.masters.split(",")) if at != leader)
        addresses, keys = credentials(left, cluster.key_dir, False)
        async with Client(addresses, keys, timeout_s=30) as other:
            await other.leader()
            os.kill(cluster.pids[f"master{leader}"], signal.SIGKILL)
            began = time.monotonic()
            dead = f"tcp://{cluster.masters.split(',')[leader]}/master"
            while (await other.leader()) in ("", dead):
                await asyncio.sleep(0.002)
            led_s = time.monotonic() - began
            await _weight(other, value)
            wrote_s = time.monotonic() - began
    cluster.start_master(leader)
    return led_s, wrote_s


# -- all agents with the new leader -----------------------------------------------------------------------------------


class Holder(Framework):
    """Launches so many tasks that do not end, and notes when the offers of a new leader come."""

    roles = ("*",)
    failover_timeout_s = 3_600

    def __init__(self, tasks: int) -> None:
        self.left = self.total = tasks
        self.running = 0
        self.all_run = asyncio.Event()
        self.offered_s = 0.0
        self.waiting = False
        self.offered = asyncio.Event()

    def on_offers(self, offers: Sequence[Offer]) -> None:
        if self.waiting:
            self.waiting, self.offered_s = False, time.monotonic()
            self.offered.set()
        for offer in offers:
            bundles, _ = fill(offer.resources, SMALL, 0, min(self.left, TASKS_AN_AGENT))
            tasks = [Task(task_id=f"t{self.left - at}", resources=b, command=TRUE) for at, b in enumerate(bundles)]  # type: ignore[arg-type]
            self.left -= len(tasks)
            self.accept(offer, tasks, refuse_s=0.0 if self.left else 3_600.0)

    def on_update(self, status: Status) -> None:
        self.running += status.state is TaskState.RUNNING
        if self.running == self.total:
            self.all_run.set()

    def on_disconnected(self) -> None:
        self.waiting = True


async def _reregister(options: argparse.Namespace) -> tuple[float, float, float]:
    with local_cluster(3) as cluster:
        agents = start_agents(cluster, options.agents, 4, separate=False, hold=True)
        holder = Holder(options.tasks)
        async with running(holder, cluster.masters, key_dir=cluster.key_dir):
            await asyncio.wait_for(holder.all_run.wait(), 120)
            addresses, keys = credentials(cluster.masters, cluster.key_dir, False)
            async with Client(addresses, keys, timeout_s=30) as client:
                leader = cluster.master_at(await client.leader())
                began = time.monotonic()
                os.kill(cluster.pids[f"master{leader}"], signal.SIGKILL)
                lines = await asyncio.gather(*(asyncio.to_thread(_ready_line, process) for process in agents))
                await asyncio.wait_for(holder.offered.wait(), 60)
                (status,) = await client.query("status")
        stop_agents(agents)
        if status["tasks"].get("RUNNING") != options.tasks:
            sys.exit(f"the new leader knows of {status['tasks']}, and {options.tasks} tasks run")
        rss = memory_mib(cluster.pids[f"master{cluster.master_at(status['leader'])}"], "Rss")
        return max(lines) - began, holder.offered_s - began, rss


def _ready_line(process: subprocess.Popen[str]) -> float:
    """When all agents of this process were with the next leader."""
    assert process.stdout is not None
    word, _, at_s = process.stdout.readline().split()
    assert word == "ready"
    return float(at_s)


def reregister(options: argparse.Namespace) -> None:
    took, offered = [], []
    for _ in range(options.rounds):
        took_s, offered_s, rss = asyncio.run(_reregister(options))
        took.append(took_s)
        offered.append(offered_s)
        print(
            f"  {options.agents} agents with {options.tasks} tasks: all registered {took_s:.2f} s after the kill, "
            "first "
            f"offer {offered_s:.2f} s; the new leader's RSS {rss:.0f} MiB",
            flush=True,
        )
    print(f"median: {statistics.median(took):.2f} s, first offer {statistics.median(offered):.2f} s")


# -- restarts ---------------------------------------------------------------------------------------------------------


def restart(options: argparse.Namespace) -> None:
    rng = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="mesos-actor-bench-") as name:
        files = DirectoryFiles(Path(name))
        opened = open_directory(files, "m", ("m",), "initialize", 8 << 20, rng)
        found = FoundCluster(ClusterId("c"), (), "", 0)
        opened.journal.setCurrentTerm(1, None)
        opened.journal.add(encode_proposal(Proposal(OperationId("found"), Term(1), found)), 2, 1)
        for number in range(options.entries):
            data = encode_proposal(Proposal(OperationId(f"b-P{number}"), Term(1), admission(number)))
            opened.journal.add(data, number + 3, 1)
            if number % 5_000 == 0:
                opened.journal.sync()
        opened.journal.sync()
        files.close()
        took_s = _open(Path(name), rng, snapshot=True)
        print(f"{options.entries} entries: {took_s:.2f} s from the log, until all are applied")
        took_s = _open(Path(name), rng)
        print(f"{options.entries} entries: {took_s:.2f} s from a snapshot")


def _open(directory: Path, rng: random.Random, snapshot: bool = False) -> float:
    """Seconds until everything is applied; with `snapshot`, one is taken then."""
    began = time.monotonic()
    files = DirectoryFiles(directory)
    opened = open_directory(files, "m", ("m",), "open", 8 << 20, rng)
    one = Replica(opened.identity, opened.journal, opened.snapshots, Machine(), Timing(), rng, 1.0, 5_000)
    last = one.journal.last_index
    while one.engine.applied_index < last:
        one.journal.sync()
        one.tick(2.0)
        one.journal.sync()
        one.apply_some(10_000)
    took_s = time.monotonic() - began
    if snapshot:
        one.take_snapshot(0)
    files.close()
    return took_s


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True)
    one = kinds.add_parser("commits")
    one.add_argument("--commits", type=int, default=20_000)
    one.add_argument("--in-flight", type=int, default=100)
    one.add_argument("--rounds", type=int, default=3)
    one.set_defaults(run=commits)
    two = kinds.add_parser("failover")
    two.add_argument("--kills", type=int, default=11)
    two.set_defaults(run=failover)
    four = kinds.add_parser("reregister")
    four.add_argument("--agents", type=int, default=2_000)
    four.add_argument("--tasks", type=int, default=20_000)
    four.add_argument("--rounds", type=int, default=3)
    four.set_defaults(run=reregister)
    three = kinds.add_parser("restart")
    three.add_argument("--entries", type=int, default=100_000)
    three.set_defaults(run=restart)
    inner = kinds.add_parser("replica", help="one process of `commits`")
    inner.add_argument("--directory")
    inner.add_argument("--me")
    inner.add_argument("--members")
    inner.add_argument("--commits", type=int)
    inner.add_argument("--in-flight", type=int)
    inner.set_defaults(run=replica)
    options = parser.parse_args()
    if options.run is not replica:
        print(quiet())
    options.run(options)


if __name__ == "__main__":
    main()
