"""One chaos run: a cluster of real processes is brought up, disturbed under load, put in order, and judged."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from mesos_actor.actors.chaos import hosts
from mesos_actor.actors.chaos.faults import WEIGHTS, Fault, Faults, has_history
from mesos_actor.actors.chaos.judge import judge, runs_in
from mesos_actor.actors.chaos.leads import Leads
from mesos_actor.actors.chaos.ledger import RAN_DIRECTORY, STOP_FILE
from mesos_actor.actors.chaos.load import read_histories
from mesos_actor.actors.chaos.order import disagreement, open_tasks, tasks_left
from mesos_actor.actors.chaos.processes import LOOK_S, Kind, Part, Trouble, free_ports, kill_marked
from mesos_actor.actors.chaos.registers import Weights, zone_errors
from mesos_actor.actors.chaos.report import Findings, Report, make_report
from mesos_actor.actors.errors import InvalidInput

FRAMEWORKS = ("ledger-0", "ledger-1", "batch-0", "service-0")
ROLES = 3
"""Whose weights are written and read."""
ORDER_LIMIT_S = 90.0
"""For the last task to end and the masters to agree, once nothing is disturbed any more."""
TOLD_EVERY_S = 10.0
RESOURCES = "cpus:4;mem:1024;disk:1024;ports:[31000-31009]"
MAX_MASTERS = 9
MAX_AGENTS = 50
QUICK = {
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF": "100ms",
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF_MAX": "300ms",
    "MESOS_ACTOR_AGENT_UPDATE_RETRY": "500ms",
    "MESOS_ACTOR_MASTER_PING_INTERVAL": "500ms",
}
"""Waits that are for thousands of hosts, made short for one: an agent that is stopped or cut off for long is marked
unreachable, and comes back."""


@dataclass
class Options:
    """What to do. Raises InvalidInput, naming the option, when it cannot be done."""

    duration_s: float = 60.0
    kills: int = 0
    """Disturb until so many processes were killed, instead of for a time; 0: for a time."""
    kill: frozenset[Kind] = frozenset({"master", "agent", "framework"})
    pause: bool = False
    cut: bool = False
    disk_full: bool = False
    masters: int = 3
    agents: int = 3
    seed: int = field(default_factory=lambda: random.randrange(1_000_000))
    keep: Path | None = None
    """Logs and state are left here. None: in a temporary directory, which is removed when all is well."""

    def check(self) -> None:
        if not 1 <= self.masters <= MAX_MASTERS or self.masters % 2 == 0:
            raise InvalidInput(f"--masters {self.masters}: give an odd number from 1 to {MAX_MASTERS}")
        if not 1 <= self.agents <= MAX_AGENTS:
            raise InvalidInput(f"--agents {self.agents}: give a number from 1 to {MAX_AGENTS}")
        if not self.faults():
            raise InvalidInput("no fault is asked for: give some of --kill, --pause, --cut, --disk-full")
        if self.kills and not self.kill:
            raise InvalidInput(f"--kills {self.kills}: nothing is killed without --kill")
        if self.keep is not None and self.keep.exists() and any(self.keep.iterdir()):
            raise InvalidInput(f"--keep {self.keep}: is not empty; name a directory that is, or a new one")

    def faults(self) -> list[tuple[Fault, Kind]]:
        """What may be done to what."""
        on = {"pause": self.pause, "cut": self.cut, "disk-full": self.disk_full}
        return [
            (fault, kind) for fault, kind in WEIGHTS if (kind in self.kill if fault.startswith("kill") else on[fault])
        ]


class Chaos:
    """One run; `run` does all of it. No process of it is left behind, whatever happens short of kill -9."""

    def __init__(self, options: Options, directory: Path, say: Callable[[str], None]) -> None:
        self.options, self.directory, self.say = options, directory, say
        self.rng = random.Random(options.seed)
        self.keys = str(directory / "keys")
        self.home = directory / "home"
        self.mark = f"HOME={self.home}".encode()
        self.findings = Findings()
        self.began_s = time.monotonic()
        for path in (self.home, directory / RAN_DIRECTORY):
            path.mkdir()
        self.host_of: dict[str, int] = {}
        self.disk_of: dict[str, Path] = {}
        self.parts = self._make_parts()
        self.masters = [part for part in self.parts if part.kind == "master"]
        self.agents = [part for part in self.parts if part.kind == "agent"]
        self.frameworks = [part for part in self.parts if part.kind == "framework"]
        self.leads = Leads([(part.name, part.log) for part in self.masters])
        chosen = options.faults()
        self.faults = Faults(self.parts, self.leads, self.rng, chosen, self.host_of, self.disk_of)
        init = [sys.executable, "-m", "mesos_actor", "init", "--key-dir", self.keys]
        subprocess.run(init, check=True, stdout=subprocess.DEVNULL, env=self.environment)
        self.weights = Weights(self.addresses, self.keys, ROLES, self.rng)

    # -- its processes ------------------------------------------------------------------------------------------------

    def _make_parts(self) -> list[Part]:
        """All processes, not started yet; with their hosts and disks when those are asked for."""
        count = self.options.masters
        names: list[tuple[Kind, str]] = [("master", f"master-{n}") for n in range(1, count + 1)]
        names.extend(("agent", f"agent-{n}") for n in range(1, self.options.agents + 1))
        names.extend(("framework", name) for name in FRAMEWORKS)
        if self.options.cut:
            self.host_of.update((name, n) for n, (_, name) in enumerate(names, 1))
            hosts.make_network(len(names))
            places = [f"{hosts.address(n)}:5050" for n in range(1, count + 1)]
        else:
            places = [f"127.0.0.1:{port}" for port in free_ports(count, random.Random())]
        self.addresses = ",".join(places)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("MESOS_ACTOR_", "XDG_"))}
        self.environment = environment | {"HOME": str(self.home)}
        made = []
        for kind, name in names:
            number = int(name.rpartition("-")[2])
            if kind == "framework":
                made.append(self._framework(name))
            elif kind == "master":
                made.append(self._served(kind, name, "--as", "master", "--port", places[number - 1].rpartition(":")[2]))
            else:
                # It is about what is lost, not about limits; every host can do this.
                more = ("--isolation", "process", "--resources", RESOURCES, "--hostname", f"host-{number}")
                made.append(self._served(kind, name, "--as", "agent", *more))
        return made

    def _part(self, kind: Kind, name: str, command: Sequence[str], environment: dict[str, str]) -> Part:
        inside = hosts.inside_host(self.host_of[name]) if name in self.host_of else []
        return Part(kind, name, self.directory, [*inside, *command], environment)

    def _framework(self, name: str) -> Part:
        load = [sys.executable, "-m", "mesos_actor.actors.chaos.load", str(self.directory)]
        return self._part("framework", name, [*load, name, self.addresses, self.keys], self.environment)

    def _served(self, kind: Kind, name: str, *more: str) -> Part:
        work_dir = self.directory / name
        if self.options.disk_full:
            work_dir = self.disk_of[name] = self.directory / "disks" / name
            hosts.make_disk(work_dir)
        start = [sys.executable, "-m", "mesos_actor", "start", "--masters", self.addresses, "--key-dir", self.keys]
        start += ["--log-json", "--work-dir", str(work_dir), "--ready-file", str(self.directory / f"{name}.ready")]
        return self._part(kind, name, [*start, *more], self.environment | QUICK)

    # -- the run ------------------------------------------------------------------------------------------------------

    async def run(self) -> Report:
        """Everything, to the report. Raises nothing that the cluster does wrong: that is in the report."""
        try:
            await self._bring_up()
            async with self.weights:
                await self._disturb()
                await self._put_in_order()
        except Trouble as trouble:
            self.findings.troubles.append(str(trouble))
        self._judge()
        self.leads.look()
        return make_report(self.options.seed, self.began_s, self.findings, self.faults, self.leads)

    async def _bring_up(self) -> None:
        for part in self.parts:
            part.start(*(("--initialize",) if part.kind == "master" else ()))
        for part in self.parts:
            await part.until_ready()
        await self._until(lambda: all(map(self._has_run, self.frameworks)), "each framework has run a task")
        many = f"{len(self.masters)} masters at {self.addresses}, {len(self.agents)} agents"
        self.say(f"{many}, {len(self.frameworks)} frameworks")

    def _has_run(self, framework: Part) -> bool:
        return next((self.directory / RAN_DIRECTORY).glob(f"{framework.name}-*"), None) is not None

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + ORDER_LIMIT_S
        while not condition():
            self.faults.look_for_trouble()
            if time.monotonic() > deadline:
                raise Trouble(f"not within {ORDER_LIMIT_S:g} s: {what}")
            await asyncio.sleep(LOOK_S)

    async def _disturb(self) -> None:
        options = self.options
        began_s = told_s = time.monotonic()
        while self.faults.killed < options.kills if options.kills else time.monotonic() - began_s < options.duration_s:
            await self.faults.one()
            if time.monotonic() - told_s > TOLD_EVERY_S:
                told_s = time.monotonic()
                done = ", ".join(f"{what} {count}" for what, count in sorted(self.faults.done.items()))
                self.say(f"{told_s - began_s:5.0f} s: {done}")
        await self.faults.repaired()

    # -- afterwards ---------------------------------------------------------------------------------------------------

    async def _put_in_order(self) -> None:
        """Nothing is disturbed any more: the frameworks end, the writers stop, the masters agree."""
        began_s = time.monotonic()
        (self.directory / STOP_FILE).touch()
        try:
            await self._until(self._frameworks_ended, "every task has ended")
        except Trouble as trouble:
            raise Trouble(f"{trouble}\n{await open_tasks(self.addresses, self.keys)}") from None
        await self.weights.finish()
        for client in self.weights.clients:
            if not await self.weights.read_once(client):
                self.findings.troubles.append("the registry cannot be read at the end")
        await self._in_time("the masters do not agree", self._disagreement)
        await self._in_time("", self._left)
        self.findings.order_s = time.monotonic() - began_s

    def _frameworks_ended(self) -> bool:
        return all(map(has_history, self.frameworks))

    async def _disagreement(self) -> str:
        return await disagreement(self.addresses, self.keys, len(self.masters), len(self.agents))

    async def _left(self) -> str:
        """Tasks whose frameworks are gone must end soon, too."""
        self.findings.left = tasks_left(self.mark)
        return "; ".join(self.findings.left)

    async def _in_time(self, what: str, problem: Callable[[], Awaitable[str]]) -> None:
        deadline = time.monotonic() + ORDER_LIMIT_S
        while text := await problem():
            if time.monotonic() > deadline:
                if what:
                    raise Trouble(f"{what} after {ORDER_LIMIT_S:g} s: {text}")
                return
            await asyncio.sleep(0.1)

    def _judge(self) -> None:
        """The verdict on those that have ended; the others are in `troubles` then."""
        histories = []
        for framework in self.frameworks:
            path = self.directory / f"{framework.name}.history"
            histories += read_histories(path) if path.exists() else []
        self.findings.verdict = judge(histories, runs_in(self.directory))
        self.findings.history = self.weights.history
        self.findings.register_errors = zone_errors(self.weights.history)
        with open(self.directory / "weights.jsonl", "wb") as file:
            file.writelines(msgspec.json.encode(op) + b"\n" for op in self.weights.history)

    def end(self) -> None:
        """No process of this run stays, whoever its parent is."""
        if left := kill_marked(self.mark, self.parts):
            self.say(f"processes {left} cannot be ended")

    def keep_disks(self) -> None:
        """Bring what is on the small disks, which end with this process, to the directory."""
        for name, disk in self.disk_of.items():
            hosts.make_room(disk)
            shutil.copytree(disk, self.directory / name, symlinks=True, ignore=_special, dirs_exist_ok=True)


def _special(directory: str, names: list[str]) -> list[str]:
    """Sockets and pipes, which cannot be copied."""
    return [name for name in names if (path := Path(directory, name)).is_socket() or path.is_fifo()]


def chaos(options: Options, say: Callable[[str], None]) -> Report:
    """Do a run. `hosts.enter` comes first. Raises InvalidInput for options that cannot be followed.

    The directory is kept when it was named, or when something was wrong; the report says where it is."""
    options.check()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = _directory(options)
    say(f"seed {options.seed}")
    run = None
    passed = False
    try:
        run = Chaos(options, directory, say)
        report = asyncio.run(run.run())
        passed = report.passed
    finally:
        if run is not None:
            run.end()
            if options.keep is not None or not passed:
                run.keep_disks()
        if options.keep is None and passed:
            shutil.rmtree(directory, ignore_errors=True)
    report.directory = "" if options.keep is None and passed else str(directory)
    if report.directory:
        (directory / "report.json").write_text(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    return report


def _directory(options: Options) -> Path:
    if options.keep is None:
        return Path(tempfile.mkdtemp(prefix="mesos-actor-chaos-"))
    options.keep.mkdir(parents=True, exist_ok=True)
    return options.keep.absolute()
