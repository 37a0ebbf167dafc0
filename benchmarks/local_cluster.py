"""A cluster of real processes for the benchmarks: started by the command line, encrypted, measured from /proc."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
START_LIMIT_S = 30.0


def cpu_s(pid: int) -> float:
    """User and system time of one process, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mib(pid: int, kind: str = "Pss") -> float:
    """Proportional (`Pss`) or resident (`Rss`) memory of one process."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{kind}:"))


class LocalCluster:
    """Masters and some agents. `masters` and `key_dir` are what a framework needs."""

    def __init__(self, directory: Path, masters: int = 1) -> None:
        self.directory = directory
        self.key_dir = str(directory / "keys")
        self.masters = ""
        self.pids: dict[str, int] = {}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._run("init", "--key-dir", self.key_dir)
        if masters == 1:
            self.masters = self._start("master", "--as", "master", "--port", "0", "--initialize")
        else:
            self.masters = ",".join(f"127.0.0.1:{port}" for port in free_ports(masters))
            for number in range(masters):
                self.start_master(number, "--initialize")

    def start_master(self, number: int, *arguments: str) -> None:
        """Start one of several masters (`master0`, `master1`, ...), again without `--initialize`."""
        port = self.masters.split(",")[number].rpartition(":")[2]
        (self.directory / f"master{number}.ready").unlink(missing_ok=True)
        self._start(f"master{number}", "--masters", self.masters, "--port", port, *arguments)

    def master_at(self, address: str) -> int:
        """The number of the master at `tcp://host:port/master`."""
        return self.masters.split(",").index(address.removeprefix("tcp://").partition("/")[0])

    def add_agent(self, name: str, resources: str) -> str:
        """Start an agent; returns its `host:port`. Its launcher is in `pids` as `<name>.launcher`."""
        options = ["--as", "agent", "--masters", self.masters, "--resources", resources, "--hostname", name]
        options += ["--isolation", "process"]  # as all figures so far; benchmarks/isolation.py compares the two
        where = self._start(name, *options)
        self.pids[f"{name}.launcher"] = self._launcher(name)
        return where

    def _run(self, *arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "mesos_actor", *arguments], check=True, stdout=subprocess.DEVNULL)

    def _start(self, name: str, *arguments: str) -> str:
        ready = self.directory / f"{name}.ready"
        with open(self.directory / f"{name}.log", "wb") as log:
            command = [sys.executable, "-m", "mesos_actor", "start", *arguments, "--key-dir", self.key_dir]
            command += ["--work-dir", str(self.directory / name), "--ready-file", str(ready)]
            process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        self._processes.append(process)
        deadline = time.monotonic() + START_LIMIT_S
        while not ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{name} did not start:\n{(self.directory / f'{name}.log').read_text()}")
            time.sleep(0.01)
        self.pids[name] = process.pid
        return str(json.loads(ready.read_text())["address"])

    def _launcher(self, name: str) -> int:
        """The launcher's process id, found by its working files."""
        wanted = str(self.directory / name)
        deadline = time.monotonic() + START_LIMIT_S
        while time.monotonic() < deadline:
            for entry in Path("/proc").iterdir():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
                    # The one that stays has been handed to init; before, it is the agent's own short-lived child.
                    parent = (entry / "stat").read_text().rpartition(")")[2].split()[1] if words else ""
                    if b"launcher" in words and wanted.encode() in words and parent == "1":
                        return int(entry.name)
            time.sleep(0.01)
        sys.exit(f"{name} has no launcher")

    def cpu_s(self) -> dict[str, float]:
        """CPU time so far of each process of the cluster."""
        return {name: cpu_s(pid) for name, pid in self.pids.items()}

    def stop(self) -> None:
        for process in reversed(self._processes):
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses now."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


@contextlib.contextmanager
def local_cluster(masters: int = 1) -> Iterator[LocalCluster]:
    """Masters in a fresh directory. Directories go when the whole benchmark ends: on ext4, deleting thousands of
    sandboxes beside the making of new ones halves the rate of the latter."""
    directory = Path(tempfile.mkdtemp(prefix="mesos-actor-bench-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    os.sync()
    cluster = LocalCluster(directory, masters)
    try:
        yield cluster
    finally:
        cluster.stop()


def quiet() -> str:
    """How busy the machine is with other things: a line for the head of every table."""
    return f"load average {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
