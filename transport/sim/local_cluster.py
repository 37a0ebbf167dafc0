"""A small real cluster for a test: processes on this host, real ZeroMQ, encrypted, real time. Or one that runs already.

It has the words of `SimCluster` that make sense for real processes, so that one test serves for both. It ends only
processes that it has started, and what those have started.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self, TypeVar

from mesos_actor.actors.errors import ConfigError, Unavailable
from mesos_actor.actors.framework import Framework
from mesos_actor.actors.run import Session, running

F = TypeVar("F", bound=Framework)
START_LIMIT_S = 30.0
"""How long a process may take until it takes part."""
END_LIMIT_S = 10.0
LOOK_AGAIN_S = 0.01
LOG_LINES = 12
"""Of each process, in the report of a test that failed."""
AGENTS = 2
RESOURCES = "cpus:2;mem:512"
QUICK = {
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF": "100ms",
    "MESOS_ACTOR_AGENT_REGISTRATION_BACKOFF_MAX": "300ms",
    "MESOS_ACTOR_AGENT_UPDATE_RETRY": "500ms",
}
"""Waits that are for thousands of hosts, made short for one."""


class LocalProcess:
    """A master or an agent: one `mesos-actor start`."""

    def __init__(self, cluster: LocalCluster, name: str, arguments: list[str]) -> None:
        self.name = name
        self._cluster = cluster
        self._arguments = arguments
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def up(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    def start(self) -> None:
        """Begin a process, if none runs, and wait until it takes part. Raises Unavailable with its last words."""
        if self.up:
            return
        ready, log = self._cluster.file(f"{self.name}.ready"), self._cluster.file(f"{self.name}.log")
        ready.unlink(missing_ok=True)
        command = [sys.executable, "-m", "mesos_actor", "start", "--ready-file", str(ready), *self._arguments]
        with open(log, "ab") as output:
            self._popen = subprocess.Popen(
                command,
                env=self._cluster.environment(),
                cwd=self._cluster.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        if not _wait(lambda: ready.exists() or not self.up, START_LIMIT_S) or not self.up:
            words = log.read_text(errors="replace")[-2_000:]
            raise Unavailable(f"{self.name} does not take part after {START_LIMIT_S:g} s; its last words:\n{words}")

    def address(self) -> str:
        """host:port, once it takes part."""
        found: str = json.loads(self._cluster.file(f"{self.name}.ready").read_text())["address"]
        return found

    def crash(self) -> None:
        """kill -9. What an agent runs goes on."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, and wait for its end."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self._popen is not None and self.up:
            self._popen.send_signal(number)
            try:
                self._popen.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                self._popen.kill()
                self._popen.wait(END_LIMIT_S)


class LocalCluster:
    """One master and some agents below `directory`; with `masters` (`host:port[,…]`) a cluster that runs already, of
    which nothing is started or ended. A context manager."""

    def __init__(self, directory: Path, *, masters: str = "", agents: int = AGENTS, resources: str = RESOURCES) -> None:
        self.directory = directory / "cluster"
        self.masters = masters
        self.key_dir: Path | None = None if masters else self.directory / "keys"
        self.agents: list[LocalProcess] = []
        self.master: LocalProcess | None = None
        self._wanted = 0 if masters else agents
        self._resources = resources
        self._home = self.directory / "home"
        self._frameworks: list[_Thread] = []

    def __enter__(self) -> Self:
        if not self.masters:
            self._home.mkdir(parents=True)
            try:
                self._begin()
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what SimCluster has too ------------------------------------------------------------------------------------

    def spawn(self, framework: F) -> F:
        """Run a framework in a thread of its own; returns it."""
        if not isinstance(framework, Framework):
            raise ConfigError(f"spawn: {framework!r} is no Framework object; a real cluster runs one, not its class")
        thread = _Thread(framework, self.masters, self.key_dir)
        self._frameworks.append(thread)
        thread.start()
        return framework

    def until(self, reached: Callable[[], bool], within_s: float = 60) -> None:
        """Wait until it is true. Raises AssertionError when it is not within this time, and what has ended a
        framework."""

        def over() -> bool:
            for thread in self._frameworks:
                if thread.failure is not None:
                    raise thread.failure
            return reached()

        if not _wait(over, within_s):
            raise AssertionError(f"not reached within {within_s:g} s; the logs are below {self.directory}")

    def run(self, for_s: float) -> None:
        """Let so much time pass."""
        time.sleep(for_s)

    def check(self) -> None:
        """As `SimCluster.check`: raises what has ended a framework. (Nobody can look into real processes.)"""
        self.until(lambda: True, 1)

    def last_words(self) -> str:
        """What there is to read when a test has failed: the tasks as an operator sees them, and of each process whether
        it runs and the end of its log."""
        lines = ["mesos-actor tasks", *self._tasks().splitlines()]
        for process in (*([self.master] if self.master is not None else []), *self.agents):
            log = self.file(f"{process.name}.log")
            told = log.read_text(errors="replace").splitlines() if log.exists() else []
            lines += ["", f"{process.name}, which {'runs' if process.up else 'has ended'}: {log}", *told[-LOG_LINES:]]
        return "\n".join(lines)

    def _tasks(self) -> str:
        where = ["--masters", self.masters] if self.masters else []
        env = self.environment() if self.key_dir is not None else None
        command = [sys.executable, "-m", "mesos_actor", "tasks", *where]
        try:
            asked = subprocess.run(
                command, env=env, capture_output=True, text=True, errors="replace", timeout=END_LIMIT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"({error})"
        return (asked.stdout + asked.stderr).strip()

    # -- its processes ----------------------------------------------------------------------------------------------

    def file(self, name: str) -> Path:
        return self.directory / name

    def environment(self) -> dict[str, str]:
        """That of its processes: of the tester's own settings nothing is left."""
        env = {name: value for name, value in os.environ.items() if not name.startswith(("MESOS_ACTOR_", "XDG_"))}
        return env | QUICK | {"HOME": str(self._home), "MESOS_ACTOR_KEY_DIR": str(self.key_dir)}

    def _begin(self) -> None:
        init = [sys.executable, "-m", "mesos_actor", "init", "--key-dir", str(self.key_dir)]
        subprocess.run(init, env=self.environment(), check=True, stdout=subprocess.DEVNULL)
        work = str(self.file("master"))
        self.master = LocalProcess(
            self, "master", ["--as", "master", "--port", "0", "--initialize", "--work-dir", work]
        )
        self.master.start()
        self.masters = self.master.address()
        for number in range(self._wanted):
            name = f"agent{number}"
            # Limits are not what these tests are about, and every host can do this.
            where = ["--as", "agent", "--isolation", "process", "--masters", self.masters]
            where += ["--work-dir", str(self.file(name))]
            agent = LocalProcess(self, name, [*where, "--hostname", name, "--resources", self._resources])
            self.agents.append(agent)
            agent.start()

    def close(self) -> None:
        """End the frameworks and every process that was started for this cluster, its launchers and tasks too."""
        for thread in self._frameworks:
            thread.stop()
        if self.key_dir is None:
            return
        for process in (*self.agents, *([self.master] if self.master is not None else [])):
            process.stop()
        _wait(self._kill_rest, END_LIMIT_S)

    def _kill_rest(self) -> bool:
        """Launchers and tasks outlive their agents. True when none is left."""
        pids = list(self._pids())
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not pids

    def _pids(self) -> Iterator[int]:
        """Living processes with this cluster's HOME, which nobody else has."""
        mark = f"HOME={self._home}".encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    state = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:1]
                    if state != [b"Z"] and mark in (entry / "environ").read_bytes().split(b"\0"):
                        yield int(entry.name)


class _Thread(threading.Thread):
    """A framework with an asyncio loop of its own."""

    def __init__(self, framework: Framework, masters: str, key_dir: Path | None) -> None:
        super().__init__(name=f"framework {type(framework).__name__}", daemon=True)
        self.failure: BaseException | None = None
        self._framework = framework
        self._masters = masters
        self._key_dir = key_dir
        self._loop: asyncio.AbstractEventLoop | None = None
        self._session: Session[Framework] | None = None

    def run(self) -> None:
        try:
            asyncio.run(self._main())
        except Exception as error:  # noqa: BLE001 told by `until`, in the thread of the test
            self.failure = error

    async def _main(self) -> None:
        async with running(self._framework, self._masters, key_dir=self._key_dir) as session:
            self._loop, self._session = asyncio.get_running_loop(), session
            await session.wait()

    def stop(self) -> None:
        """Tear it down, if it still runs."""
        if self._loop is not None and self._session is not None:
            with contextlib.suppress(RuntimeError):  # its loop has ended meanwhile
                self._loop.call_soon_threadsafe(self._session.request_stop)
        self.join(END_LIMIT_S)


def _wait(reached: Callable[[], bool], limit_s: float) -> bool:
    deadline_s = time.monotonic() + limit_s
    while not reached():
        if time.monotonic() > deadline_s:
            return False
        time.sleep(LOOK_AGAIN_S)
    return True
