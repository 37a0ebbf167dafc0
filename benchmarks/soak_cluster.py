"""The real processes of soak.py: killed and started again, told by their logs, cut off in namespaces of their own."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

START_LIMIT_S = 30.0
LOOK_S = 0.02
NETWORK = "10.213.0."
"""Of --cut; seen inside its own namespace only."""


# -- processes --------------------------------------------------------------------------------------------------------


class Part:
    """A process that is killed and started again."""

    def __init__(self, kind: str, name: str, directory: Path, command: list[str], env: dict[str, str]) -> None:
        self.kind, self.name = kind, name
        self.command, self.env = command, env
        self.directory = directory
        self.log = directory / f"{name}.log"
        self.ready = directory / f"{name}.ready"
        self.popen: subprocess.Popen[bytes] | None = None
        self.away = True
        """Killed, stopped, cut off, or not ready yet."""

    def start(self, *arguments: str) -> None:
        self.ready.unlink(missing_ok=True)
        with open(self.log, "ab") as log:
            command, start = [*self.command, *arguments], {"stdout": log, "stderr": log, "start_new_session": True}
            self.popen = subprocess.Popen(command, env=self.env, cwd=self.directory, **start)  # type: ignore[call-overload]

    def is_alive(self) -> bool:
        return self.popen is not None and self.popen.poll() is None

    def signal(self, number: int) -> None:
        if self.popen is not None:
            self.popen.send_signal(number)

    def kill(self) -> None:
        if self.popen is not None:
            self.popen.kill()
            self.popen.wait()

    async def until_ready(self) -> None:
        """A framework is ready at once. Raises Trouble when the process has ended instead."""
        deadline = time.monotonic() + START_LIMIT_S
        while self.kind != "framework" and not self.ready.exists():
            if not self.is_alive() or time.monotonic() > deadline:
                raise Trouble(f"{self.name} did not start again:\n{self.tail()}")
            await asyncio.sleep(LOOK_S)
        self.away = False

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-1500:]


class Trouble(Exception):
    """The run cannot go on."""


class Lead(NamedTuple):
    """A line of a master's log: from then on it led."""

    at_s: float
    term: int
    name: str


class Leads:
    """Who has led since when, read from the masters' logs as they grow."""

    def __init__(self, masters: list[Part]) -> None:
        self.masters = masters
        self.read_bytes = dict.fromkeys((m.name for m in masters), 0)
        self.all: list[Lead] = []

    def look(self) -> None:
        for master in self.masters:
            if not master.log.exists():
                continue
            with open(master.log, "rb") as log:
                log.seek(self.read_bytes[master.name])
                text = log.read()
            whole = text.rpartition(b"\n")[0]
            self.read_bytes[master.name] += len(whole) + 1 if whole else 0
            for line in whole.splitlines():
                if b'"registry_leads"' in line:
                    row = json.loads(line)
                    at_s = datetime.datetime.fromisoformat(row["time"]).timestamp()
                    self.all.append(Lead(at_s, row["term"], master.name))
        self.all.sort()

    def leader(self) -> str:
        """The name of the master that was the last to lead; empty when none was."""
        self.look()
        return max(self.all, key=lambda lead: lead.term).name if self.all else ""

    def gap_s(self, after_s: float, limit_s: float = 1e9) -> float | None:
        """How long after that moment the next one led."""
        following = [lead.at_s - after_s for lead in self.all if after_s < lead.at_s < after_s + limit_s]
        return min(following, default=None)

    def doubles(self) -> list[str]:
        by_term: dict[int, set[str]] = {}
        for lead in self.all:  # a master may tell one term twice: its actor has asked again
            by_term.setdefault(lead.term, set()).add(lead.name)
        return [f"term {term}: {', '.join(names)}" for term, names in by_term.items() if len(names) > 1]


# -- the network of --cut ---------------------------------------------------------------------------------------------


def enter_namespaces() -> None:
    """Go on in network and mount namespaces of our own, which end with the last process in them."""
    missing = [tool for tool in ("ip", "unshare", "nsenter") if shutil.which(tool) is None]
    if missing or os.geteuid() != 0:
        what = f"the commands {', '.join(missing)} (Debian: iproute2, util-linux)" if missing else "root"
        sys.exit(f"soak: --cut needs {what}; without --cut everything else is tried")
    tried = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        sys.exit(f"soak: --cut needs network namespaces, and they may not be made here: {tried.stderr.strip()}")
    os.execvp("unshare", ["unshare", "--net", "--mount", sys.executable, *sys.argv, "--inside"])


def make_network(masters: int) -> None:
    """A bridge, and a namespace at it for each master."""
    names = Path("/run/netns")
    names.mkdir(exist_ok=True)
    do(f"mount -t tmpfs tmpfs {names}")
    do("ip link set lo up")
    do("ip link add hub type bridge")
    do(f"ip addr add {NETWORK}1/24 dev hub")
    do("ip link set hub up")
    for n in range(1, masters + 1):
        enter = f"nsenter --net={names}/m{n}"
        do(f"ip netns add m{n}")
        do(f"ip link add m{n} type veth peer name eth0 netns m{n}")
        do(f"ip link set m{n} master hub up")
        do(f"{enter} ip addr add {NETWORK}{10 + n}/24 dev eth0")
        do(f"{enter} ip link set eth0 up")
        do(f"{enter} ip link set lo up")


def do(line: str) -> None:
    done = subprocess.run(line.split(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"soak: --cut: {line}: {done.stderr.strip()}")


def free_ports(count: int, rng: random.Random) -> list[int]:
    """Ports that nobody uses, below those that the kernel gives to connections while a master is down."""
    found: list[int] = []
    while len(found) < count:
        port = rng.randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found += [port] if port not in found else []
    return found


def pids_with(mark: bytes) -> list[int]:
    """Living processes that have this in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found
