"""The demo: a cluster of real processes on this host, shared by a batch and a service.

Three masters and three agents are started with `mesos-actor start`, as on six hosts (here they share a file system).
The batch counts the identifiers in every .py file of Python's standard library: map tasks on chunks, then one reduce.
The service keeps three copies of a small web server running; one is killed on purpose, and replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

import mesos_actor
from mesos_actor import Offer, Status, Task, TaskState
from mesos_actor.actors.client import Client, credentials
from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.service import Service
from mesos_actor.actors.frameworks.specs import batch_spec, service_spec
from mesos_actor.isolation.choice import possible_here

HERE = Path(__file__).resolve().parent
CHUNKS = 60
COPIES = 3
AGENTS = 3
MASTERS = 3
START_LIMIT_S = 30
JOB_LIMIT_S = 300
SAMPLE_S = 0.1

console = Console(highlight=False)


def say(text: str) -> None:
    console.print(text, markup=False, soft_wrap=True)


# -- the cluster ------------------------------------------------------------------------------------------------------


class Cluster:
    """The processes of three masters and some agents, started, killed and stopped as an operator would."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.keys = directory / "keys"
        self.masters = ""
        self.isolation = possible_here()
        self.processes: list[tuple[str, subprocess.Popen[str]]] = []

    def start(self) -> None:
        if self.isolation.warning:
            say(f"agents   with --isolation process: {self.isolation.warning}")
        self._command("init", "--key-dir", str(self.keys))
        ports = free_ports(MASTERS)
        self.masters = ",".join(f"127.0.0.1:{port}" for port in ports)
        for number, port in enumerate(ports, 1):
            ready = self.start_master(number, port, "--initialize")
            say(f"master   {number} at {ready['address']}")
        for number in range(1, AGENTS + 1):
            first = 31_000 + 100 * number
            resources = f"cpus:4;mem:2048;disk:4096;ports:[{first}-{first + 9}]"
            ready = self._start(
                f"agent-{number}",
                *("--as", "agent", "--masters", self.masters, "--hostname", f"host-{number}"),
                *("--resources", resources, "--attributes", f"rack:r{number}"),
            )
            say(f"agent    host-{number} at {ready['address']}: {resources}")

    def start_master(self, number: int, port: int, *arguments: str) -> dict[str, Any]:
        """Start one of the masters: the first time with `--initialize`, later without."""
        return self._start(f"master-{number}", "--masters", self.masters, "--port", str(port), *arguments)

    def kill_master(self, address: str) -> tuple[int, int]:
        """kill -9 the master at `host:port`; its number and port."""
        port = int(address.rpartition(":")[2])
        number = self.masters.split(",").index(f"127.0.0.1:{port}") + 1
        name = f"master-{number}"
        process = next(process for known, process in self.processes if known == name)
        process.kill()
        process.wait()
        self.processes = [item for item in self.processes if item[1] is not process]
        return number, port

    def _command(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "mesos_actor", *arguments], check=True, stdout=subprocess.DEVNULL)

    def _start(self, name: str, *arguments: str) -> dict[str, Any]:
        """Start one process and return its ready line, as JSON."""
        ready_file = self.directory / f"{name}.ready"
        with open(self.directory / f"{name}.log", "w") as log:
            command = [
                *(sys.executable, "-m", "mesos_actor", "start", *arguments),
                *("--work-dir", str(self.directory / name), "--key-dir", str(self.keys)),
                *("--ready-file", str(ready_file)),
                *("--isolation", self.isolation.name),
            ]
            process = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
        self.processes.append((name, process))
        deadline = time.monotonic() + START_LIMIT_S
        while not ready_file.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} did not start:\n{(self.directory / f'{name}.log').read_text()}")
            time.sleep(0.02)
        ready: dict[str, Any] = json.loads(ready_file.read_text())
        return ready

    def stop(self) -> bool:
        """SIGTERM to the agents, then to the masters; whether all of them ended well."""
        well = True
        for name, process in reversed(self.processes):
            process.send_signal(signal.SIGTERM)
            try:
                status = process.wait(15)
            except subprocess.TimeoutExpired:
                process.kill()
                status = process.wait()
            if status != 0:
                well = False
                say(f"{name} ended with status {status}:\n{(self.directory / f'{name}.log').read_text()[-2000:]}")
        return well


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


# -- the two frameworks -----------------------------------------------------------------------------------------------


class Identifiers(Batch):
    """The built-in batch, with a bar for each of its groups."""

    def __init__(self, spec: Any, board: Board) -> None:
        super().__init__(spec)
        self.board = board
        self.over = asyncio.Event()

    def on_progress(self, status: Status) -> None:
        for name, done, _running, instances in self.state.progress():
            self.board.show(name, done, instances)

    def on_outcome(self, outcome: str) -> None:
        self.over.set()


class Web(Service):
    """The built-in service, which tells when a copy comes or goes."""

    def __init__(self, spec: Any, board: Board) -> None:
        super().__init__(spec)
        self.board = board
        self.changed = asyncio.Event()
        self.removed = False

    def copies(self) -> list[tuple[int, int]]:
        """(copy, port) of those that run."""
        return [(c.index, c.ports[0]) for c in self.state.copies.values() if c.running_since_us and c.ports]

    def on_launched(self, tasks: Sequence[Task], offer: Offer) -> None:
        for task in tasks:
            self.board.line(f"service: {task.task_id} goes to {offer.hostname}")

    def on_progress(self, status: Status) -> None:
        self.board.show("web copies", len(self.copies()), COPIES)
        if status.state is not TaskState.RUNNING and status.state is not TaskState.STARTING:
            self.board.line(f"service: {status.task_id} {status.state} {status.message}")
        self.changed.set()

    def on_posted(self, value: object) -> None:
        self.state.remove()
        self._go_on()


class Board:
    """Progress: bars on a terminal, lines in a pipe."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description:>12}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Progress(*columns, console=console) if console.is_terminal else None
        self.rows: dict[str, TaskID] = {}
        self.told: dict[str, int] = {}

    def show(self, name: str, done: int, total: int) -> None:
        if self.bars is not None:
            if name not in self.rows:
                self.rows[name] = self.bars.add_task(name, total=total)
            self.bars.update(self.rows[name], completed=done)
        elif self.told.get(name) != done * 10 // total:
            self.told[name] = done * 10 // total
            say(f"{name}: {done} of {total}")

    def line(self, text: str) -> None:
        say(text)


# -- the job ----------------------------------------------------------------------------------------------------------


def sources() -> list[str]:
    """Every .py file of the standard library, without what was installed beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    return sorted(str(p) for p in root.rglob("*.py") if "site-packages" not in p.parts and p.is_file())


def identifiers_spec(directory: Path, files: list[str]) -> Any:
    """Chunks of about equal size, a map task each, and the reduce after them."""
    chunks: list[list[str]] = [[] for _ in range(CHUNKS)]
    sizes = [0] * CHUNKS
    weights = {path: Path(path).stat().st_size for path in files}
    for path in sorted(files, key=lambda p: -weights[p]):
        smallest = sizes.index(min(sizes))
        chunks[smallest].append(path)
        sizes[smallest] += weights[path]
    for number, chunk in enumerate(chunks):
        (directory / f"chunk-{number}.list").write_text("\n".join(chunk))
    count, merge = HERE / "identifiers" / "count.py", HERE / "identifiers" / "merge.py"
    map_line = (
        f'exec {sys.executable} {count} "$DATA/chunk-$MESOS_ACTOR_INDEX.list" "$DATA/part-$MESOS_ACTOR_INDEX.json"'
    )
    return batch_spec(
        {
            "name": "identifiers",
            "role": "batch",
            "task": [
                {
                    "name": "map",
                    "instances": CHUNKS,
                    "cpus": 1,
                    "mem": 128,
                    "retries": 2,
                    "shell": map_line,
                    "env": {"DATA": str(directory)},
                },
                {
                    "name": "reduce",
                    "after": ["map"],
                    "cpus": 1,
                    "mem": 256,
                    "retries": 2,
                    "command": [sys.executable, str(merge), str(directory), str(directory / "total.json")],
                },
            ],
        }
    )


def web_spec() -> Any:
    command = [sys.executable, str(HERE / "web_copy.py")]
    fields = {"instances": COPIES, "cpus": 0.5, "mem": 64, "ports": 1, "backoff": "200ms", "kill_grace": "1s"}
    return service_spec({"name": "web", "role": "services", "command": command, **fields})


def count_here(files: list[str]) -> Counter[str]:
    """The same count by this one process."""
    sys.path.insert(0, str(HERE / "identifiers"))
    from count import count  # type: ignore[import-not-found]

    counted: Counter[str] = count(files)
    return counted


# -- watching ---------------------------------------------------------------------------------------------------------


async def sample_shares(client: Client, samples: list[tuple[float, dict[str, int]]]) -> None:
    """Every so often: thousandths of a cpu in use by each framework."""
    started = time.monotonic()
    while True:
        rows = await client.query("frameworks")
        samples.append(
            (
                time.monotonic() - started,
                {row["name"]: round(1000 * row.get("used", {}).get("cpus", 0)) for row in rows},
            )
        )
        await asyncio.sleep(SAMPLE_S)


def chart(samples: list[tuple[float, dict[str, int]]], total_millicpus: int) -> None:
    """The share of each framework over time, a column a moment."""
    bars = " ▁▂▃▄▅▆▇█"
    width = min(64, len(samples))
    seconds = samples[-1][0] if samples else 0.0
    say(f"\nshare of the cluster's {total_millicpus // 1000} cpus over {seconds:.1f} s")
    for name in ("identifiers", "web"):
        columns = []
        for i in range(width):
            part = samples[i * len(samples) // width : (i + 1) * len(samples) // width]
            columns.append(sum(used.get(name, 0) for _, used in part) / len(part) / total_millicpus)
        line = "".join(bars[min(8, max(1 if share > 0 else 0, round(share * 8)))] for share in columns)
        say(f"{name:>12} |{line}| at most {100 * max(columns, default=0):.0f} %")


async def kill_one_copy(web: Web, batch: Identifiers, board: Board) -> None:
    """Once a third of the map tasks are done: kill a web copy behind the cluster's back, and see it replaced."""
    while batch.state.progress()[0][1] < CHUNKS // 3 or len(web.copies()) < COPIES:
        web.changed.clear()
        await asyncio.wait({asyncio.create_task(web.changed.wait())}, timeout=0.05)
    index, port = web.copies()[0]
    answer = await ask_copy(port)
    board.line(f"killing web copy {index} (process {answer['pid']}) on purpose")
    os.kill(answer["pid"], signal.SIGKILL)
    while True:
        running = dict(web.copies())
        if len(running) == COPIES and (new := await ask_copy(running[index], patient=False)).get("pid") not in (
            None,
            answer["pid"],
        ):
            board.line(f"web copy {index} answers again, as process {new['pid']}")
            return
        await asyncio.sleep(0.05)


async def kill_the_leader(cluster: Cluster, client: Client, batch: Identifiers, board: Board) -> None:
    """Once two thirds of the map tasks are done: kill the leading master, see another lead, start it again."""
    while batch.state.progress()[0][1] < CHUNKS * 2 // 3:
        await asyncio.sleep(0.02)
    leader = (await client.leader()).removeprefix("tcp://").partition("/")[0]
    number, port = cluster.kill_master(leader)
    killed = time.monotonic()
    board.line(f"killing the leading master {number} with kill -9")
    while (now := (await client.leader()).removeprefix("tcp://").partition("/")[0]) in ("", leader):
        await asyncio.sleep(0.01)
    await client.query("status")
    board.line(f"the master at {now} leads, {time.monotonic() - killed:.2f} s after the kill")
    await asyncio.to_thread(cluster.start_master, number, port)
    board.line(f"master {number} is back")


async def ask_copy(port: int, patient: bool = True) -> dict[str, Any]:
    """What the web copy on `port` says of itself; with `patient`, asked until it listens."""

    def get() -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as response:
            answer: dict[str, Any] = json.load(response)
            return answer

    while True:
        try:
            return await asyncio.to_thread(get)
        except OSError:
            if not patient:
                return {}
            await asyncio.sleep(0.05)


async def share_the_cluster(cluster: Cluster, directory: Path, files: list[str]) -> tuple[Identifiers, list[Any], int]:
    board = Board()
    batch, web = Identifiers(identifiers_spec(directory, files), board), Web(web_spec(), board)
    samples: list[tuple[float, dict[str, int]]] = []
    addresses, keys = credentials(cluster.masters, str(cluster.keys), False)
    masters, key_dir = cluster.masters, str(cluster.keys)
    async with Client(addresses, keys) as client:
        (status,) = await client.query("status")
        sampler = asyncio.create_task(sample_shares(client, samples))
        if board.bars is not None:
            board.bars.start()
        try:
            async with (
                mesos_actor.running(web, masters, key_dir=key_dir),
                mesos_actor.running(batch, masters, key_dir=key_dir),
            ):
                killers = kill_one_copy(web, batch, board), kill_the_leader(cluster, client, batch, board)
                await asyncio.wait_for(asyncio.gather(batch.over.wait(), *killers), JOB_LIMIT_S)
                web.post("remove")
                while not web.state.finished:
                    web.changed.clear()
                    await asyncio.wait_for(web.changed.wait(), START_LIMIT_S)
        finally:
            sampler.cancel()
            if board.bars is not None:
                board.bars.stop()
    return batch, samples, round(1000 * status["resources"]["cpus"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="keep the work directory with logs and sandboxes")
    keep = parser.parse_args().keep
    directory = Path(tempfile.mkdtemp(prefix="mesos-actor-demo-"))
    cluster = Cluster(directory)
    files = sources()
    say(f"counting identifiers in {len(files)} files of Python {sys.version.split()[0]}'s standard library")
    well = False
    try:
        cluster.start()
        started = time.monotonic()
        batch, samples, total_millicpus = asyncio.run(share_the_cluster(cluster, directory, files))
        took_s = time.monotonic() - started
        well = report(batch, directory, files, took_s)
        chart(samples, total_millicpus)
    finally:
        stopped = cluster.stop()
        say(f"\n{'every process ended cleanly' if stopped else 'not every process ended cleanly'}")
        if keep or not (well and stopped):
            say(f"logs and sandboxes are in {directory}")
        else:
            shutil.rmtree(directory)
    return 0 if well and stopped else 1


def report(batch: Identifiers, directory: Path, files: list[str], took_s: float) -> bool:
    """The top identifiers, and whether the cluster and one process agree."""
    if batch.state.outcome != "finished":
        say(f"the batch {batch.state.outcome}")
        return False
    total = Counter(json.loads((directory / "total.json").read_text()))
    say(f"\n{sum(total.values()):,} identifiers, {len(total):,} different ones, in {took_s:.1f} s; the most frequent:")
    for word, times in total.most_common(10):
        say(f"{times:>9,}  {word}")
    same = total == count_here(files)
    say("\nchecked: a single process counts the same" if same else "\nWRONG: a single process counts something else")
    return same


if __name__ == "__main__":
    sys.exit(main())
