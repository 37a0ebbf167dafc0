"""A cluster of real processes, started and asked by the commands a person types.

Every process of one cluster has the cluster's own HOME in its environment, or works below its directory: that is how
`Cluster.end` finds and kills all of them, launchers, tasks and detached schedulers too, whoever their parents are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from mesos_actor.actors import client
from mesos_actor.actors.ids import FrameworkId
from mesos_actor.actors.messages.clients import Instruct
from mesos_actor.isolation.choice import possible_here

LIMIT_S = 200.0 if os.environ.get("MESOS_ACTOR_IN_VM") == "1" else 30.0
"""No condition that is waited for takes this long on a busy machine; past it the test fails and says what it saw. The
emulated machine of scripts/vm is slow."""
LOOK_AGAIN_S = 0.02

RESOURCES = "cpus:4;mem:1024;disk:1024;ports:[31000-31019]"
QUICK = {
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF": "100ms",
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF_MAX": "300ms",
    "MESOS_ACTOR_AGENT_UPDATE_RETRY": "500ms",
}
"""Waits that are for thousands of hosts, made short for one."""

ISOLATION = possible_here()
"""cgroups where this host can; else these tests ask for process isolation, and pytest's header says so."""

T = TypeVar("T")


def until(condition: Callable[[], T], what: str, limit_s: float = LIMIT_S) -> T:
    """The first true value of `condition`. Fails, naming `what` and the last value, when there is none in time."""
    deadline = time.monotonic() + limit_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s:g} s: {what}; last seen: {value!r}")
        time.sleep(LOOK_AGAIN_S)
    return value


def gate(path: Path) -> str:
    """A line of shell that ends when `path` is there."""
    return f"until [ -e {path} ]; do sleep 0.05; done"


class Ended:
    """How a command ended: `status`, `out`, `err`."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status = status
        self.out = out
        self.err = err

    def __repr__(self) -> str:
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


class Process:
    """One process of ours, its output in files. `through`: a program, with arguments, that executes what follows."""

    def __init__(
        self, arguments: list[str], env: Mapping[str, str], output: Path, cwd: Path, through: Sequence[str] = ()
    ) -> None:
        self.out_file, self.err_file = output.with_suffix(".out"), output.with_suffix(".err")
        with open(self.out_file, "ab") as out, open(self.err_file, "ab") as err:
            self.popen = subprocess.Popen(
                [*through, sys.executable, "-m", "mesos_actor", *arguments],
                env=dict(env),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self.pid = self.popen.pid

    def out(self) -> str:
        return self.out_file.read_text(errors="replace")

    def err(self) -> str:
        return self.err_file.read_text(errors="replace")

    def is_alive(self) -> bool:
        return self.popen.poll() is None

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def kill(self) -> None:
        """kill -9, and wait until it is no more."""
        self.popen.kill()
        self.popen.wait(LIMIT_S)

    def ended(self, limit_s: float = LIMIT_S) -> Ended:
        """Wait for its end."""
        try:
            status = self.popen.wait(limit_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"still runs after {limit_s:g} s\n--- out\n{self.out()}\n--- err\n{self.err()}"
            ) from None
        return Ended(status, self.out(), self.err())


class Cluster:
    """`start_master`, `start_agent`, then `cli`, `json`, `spawn`; all with this cluster's HOME, keys and masters."""

    def __init__(self, directory: Path, keys: Path) -> None:
        self.directory = directory
        self.keys = keys
        self.home = directory / "home"
        self.home.mkdir(parents=True)
        self.masters = ""
        #: Of the fixture `cluster`: its two processes.
        self.master: Process
        self.agent: Process
        self.started: list[Process] = []
        self.spawned = 0

    # -- its processes ----------------------------------------------------------------------------------------------

    def environment(self) -> dict[str, str]:
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MESOS_ACTOR_", "XDG_"))}
        env |= {"HOME": str(self.home), "MESOS_ACTOR_KEY_DIR": str(self.keys), "PYTHONDEVMODE": ""}
        if self.masters:
            env["MESOS_ACTOR_MASTERS"] = self.masters
        if ISOLATION.name == "process":
            env["MESOS_ACTOR_ISOLATION"] = ISOLATION.name
        return env

    def spawn(self, *arguments: str, env: Mapping[str, str] | None = None) -> Process:
        """Start a command and return at once."""
        self.spawned += 1
        process = Process(
            list(arguments),
            self.environment() | dict(env or {}),
            self.directory / f"command-{self.spawned}",
            self.directory,
        )
        self.started.append(process)
        return process

    def spawn_start(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> Process:
        """`mesos-actor start`, without waiting; its output adds to `NAME.out` and `NAME.err`."""
        process = Process(
            ["start", "--ready-file", str(self.directory / f"{name}.ready"), *arguments],
            self.environment() | QUICK | dict(env or {}),
            self.directory / name,
            self.directory,
            through,
        )
        self.started.append(process)
        return process

    def start(
        self, name: str, *arguments: str, env: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> Process:
        """`mesos-actor start`, until it takes part."""
        (self.directory / f"{name}.ready").unlink(missing_ok=True)
        process = self.spawn_start(name, *arguments, env=env, through=through)
        until(
            lambda: (self.directory / f"{name}.ready").exists() or not process.is_alive(), f"{name} is ready or ended"
        )
        assert process.is_alive(), f"{name} ended: {process.ended()}"
        return process

    def ready(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.directory / f"{name}.ready").read_text())
        return found

    def start_master(self, port: str = "0", env: Mapping[str, str] | None = None) -> Process:
        work_dir = self.directory / "master"
        new = () if (work_dir / "master" / "registry").exists() else ("--initialize",)
        options = ("--as", "master", "--port", port, "--work-dir", str(work_dir), *new)
        process = self.start("master", *options, env=env)
        self.masters = self.ready("master")["address"]
        return process

    def start_agent(
        self,
        name: str = "h1",
        *arguments: str,
        resources: str = RESOURCES,
        attributes: str = "rack:r1",
        env: Mapping[str, str] | None = None,
        through: Sequence[str] = (),
    ) -> Process:
        """An agent whose host name is `name`, until a master has taken it in."""
        before = self.registrations(name)
        process = self.start(
            name,
            *("--as", "agent", "--work-dir", str(self.directory / name), "--hostname", name),
            *("--resources", resources, "--attributes", attributes, *arguments),
            env=env,
            through=through,
        )
        until(lambda: self.registrations(name) > before, f"{name} is registered")
        return process

    def registrations(self, name: str) -> int:
        """How often an agent told its log that a master took it in."""
        log = self.directory / f"{name}.err"
        return log.read_text(errors="replace").count(" registered ") if log.exists() else 0

    # -- asking -----------------------------------------------------------------------------------------------------

    def cli(self, *arguments: str, env: Mapping[str, str] | None = None, limit_s: float = LIMIT_S) -> Ended:
        """Run a command to its end."""
        return self.spawn(*arguments, env=env).ended(limit_s)

    def ok(self, *arguments: str) -> str:
        """The standard output of a command that must end well."""
        ended = self.cli(*arguments)
        assert ended.status == 0, f"mesos-actor {' '.join(arguments)}: {ended}"
        return ended.out

    def json(self, *arguments: str) -> Any:
        return json.loads(self.ok(*arguments, "--json"))

    def rows(self, what: str, **match: str) -> list[dict[str, Any]]:
        """What `mesos-actor WHAT --json` prints, asked from this process: for what is asked again and again."""
        return client.query(self.masters, str(self.keys), False, LIMIT_S, what, match)

    def task(self, task_id: str) -> dict[str, Any]:
        """The row of a task; empty when the master does not know it."""
        rows = self.rows("tasks", task_id=task_id)
        return rows[-1] if rows else {}

    def framework(self, framework_id: str) -> dict[str, Any]:
        """The row of a framework; empty when the master does not know it."""
        rows = self.rows("frameworks", framework_id=framework_id)
        return rows[0] if rows else {}

    def service(self, framework_id: str) -> dict[str, Any]:
        """A service as `service list --json` shows it; empty when it is not there."""
        if self.framework(framework_id).get("state") != "active":
            return {}
        message = Instruct(client.new_id(), FrameworkId(framework_id), b'{"do": "show"}')
        answer = client.order(self.masters, str(self.keys), False, LIMIT_S, message)
        found: dict[str, Any] = json.loads(answer.data)
        return found

    def until_task(self, task_id: str, state: str) -> dict[str, Any]:
        """Wait until a task is in a state; its row."""
        seen: dict[str, Any] = {}

        def there() -> bool:
            seen.clear()
            seen.update(self.task(task_id))
            return bool(seen.get("state") == state)

        try:
            until(there, f"{task_id} is {state}")
        except AssertionError as error:
            raise AssertionError(f"{error}: {seen}\n{self.logs()}") from None
        return seen

    def file(self, name: str, text: str) -> str:
        """Write a file beside the cluster; its path."""
        path = self.directory / name
        path.write_text(text)
        return str(path)

    def batch(self, name: str, *, shell: str, group: str = "t", **fields: object) -> str:
        """Submit a batch of one group; its framework's id. The first task is `GROUP.0`."""
        task = {"name": group, "shell": shell, "cpus": 0.1, "mem": 16, **fields}
        return self.ok("submit", self.file(f"{name}.json", json.dumps({"name": name, "task": [task]}))).strip()

    def logs(self) -> str:
        """What the masters and agents had to say, for the message of a test that fails."""
        texts = []
        for path in sorted(self.directory.glob("*.err")) + sorted(self.directory.glob("*.out")):
            if not path.name.startswith("command-"):
                texts.append(f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}")
        return "\n".join(texts)

    # -- its tasks and launchers ------------------------------------------------------------------------------------

    def launcher_pid(self, name: str = "h1") -> int:
        """The launcher of an agent, found by the directory it works in; 0 when there is none."""
        directory = self.directory / name / "agent" / "launcher"
        for pid in _pids():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cwd").readlink() == directory and b"launcher" in _read(pid, "cmdline"):
                    return pid
        return 0

    def pids_with(self, text: str) -> list[int]:
        """Processes of this cluster whose command line holds `text`."""
        needle = text.encode()
        return [pid for pid in self.pids() if needle in _read(pid, "cmdline").replace(b"\0", b" ")]

    def pids(self) -> list[int]:
        """Every living process of this cluster."""
        mark = f"HOME={self.home}".encode()
        found = []
        for pid in _pids():
            try:
                cwd = Path(f"/proc/{pid}/cwd").readlink()
            except OSError:
                cwd = Path("/")
            ours = mark in _read(pid, "environ").split(b"\0") or cwd.is_relative_to(self.directory)
            if ours and _read(pid, "stat").rpartition(b")")[2].split()[:1] != [b"Z"]:
                found.append(pid)
        return found

    def end(self) -> None:
        """Kill every process of this cluster, also those that were not asked to outlive it."""

        def kill_all() -> bool:
            pids = self.pids()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not pids

        until(kill_all, "every process of the cluster has gone")
        for process in self.started:
            process.popen.wait(LIMIT_S)


def _pids() -> Iterator[int]:
    own = os.getpid()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != own:
            yield int(entry.name)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def is_alive(pid: int) -> bool:
    """Whether a process runs, whoever its parent is."""
    return _read(pid, "stat").rpartition(b")")[2].split()[:1] not in ([], [b"Z"])
