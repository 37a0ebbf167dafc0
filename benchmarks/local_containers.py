"""Containers on this host for the benchmarks: a real containerizer with its launcher, and this program for an agent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Node, local
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import NO_LIMITS, Command, TaskLimits
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.answers import OWN_PROCESS
from mesos_actor.isolation.cgroup_host import find
from mesos_actor.isolation.isolator import Isolator
from mesos_actor.isolation.launcher_wire import OUTPUT_NAME
from mesos_actor.isolation.linux import LinuxContainerizer, tree_name
from mesos_actor.isolation.process import ProcessContainerizer

FRAMEWORK = FrameworkId("benchmark")
PATIENCE_S = 300.0
"""How long what must happen may take; the emulated machine is slow and its host may be busy."""
LOOK_AGAIN_S = 0.01

HOG_PROCESSES = 64
HOG = Command(
    ("sh", "-c", f"for i in $(seq {HOG_PROCESSES}); do setsid sh -c 'while :; do :; done' & done; echo; wait")
)
"""Each in a session of its own: the kernel's autogroups would else already share the processors between sessions."""

_TICKS = os.sysconf("SC_CLK_TCK")

Made = tuple[ProcessContainerizer, Path | None]
"""A containerizer, and the directory that holds its containers' cgroups where it has one."""
Make = Callable[[Path], Made]


class LocalContainers:
    """Launches, waits and kills. Made by `local_containers`; it is the containerizer's Outlet too."""

    name = "containerizer"
    node = Node("")

    def __init__(self, port: ProcessContainerizer, tree: Path | None, work_dir: Path) -> None:
        self.port = port
        self.tree = tree
        self.work_dir = work_dir
        self.rng = random.Random(0)
        #: What was told of each container, until it is forgotten.
        self._started: dict[ContainerId, int] = {}
        self._ended: dict[ContainerId, ContainerExited] = {}
        self._recovered = False
        self._news = asyncio.Event()

    # -- the containerizer's outlet -----------------------------------------------------------------------------------

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        return asyncio.get_running_loop().call_later(delay_us / 1e6, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        if level != "info" and event not in ("container_oom_killed", "leftover_of_a_former_life"):  # both on purpose
            print(level, event, fields, flush=True)

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        if isinstance(message, ContainerFailed):
            raise SystemExit(f"{message.container_id} did not start: {message.text}")
        if isinstance(message, ContainerStarted):
            self._started[message.container_id] = message.pid
        elif isinstance(message, ContainerExited):
            self._ended[message.container_id] = message
        elif isinstance(message, ContainersRecovered):
            self._recovered = True
        self._news.set()

    # -- for the benchmark --------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Start the launcher and wait until it can be told to launch."""
        self.port.start(self)
        self.tell(RecoverContainers(()))
        await self._until(lambda: self._recovered, "a launcher")

    def tell(self, *messages: Message) -> None:
        """Hand these over, as one turn of an agent."""
        for message in messages:
            self.port.on_message(local("agent"), "", OWN_PROCESS, message)
        self.port.on_flush()

    def launch(self, name: str, command: Command, resources: Resources, limits: TaskLimits = NO_LIMITS) -> None:
        """Ask for one; its program is killed with all its family by `end`."""
        self.tell(LaunchContainer(ContainerId(name), FRAMEWORK, command, resources, limits=limits))

    async def started(self, name: str) -> int:
        """The pid of its main process, once it runs."""
        await self._until(lambda: name in self._started, f"the start of {name}")
        return self._started[ContainerId(name)]

    async def ended(self, name: str) -> ContainerExited:
        """How it ended, once nobody of it is left."""
        await self._until(lambda: name in self._ended, f"the end of {name}")
        return self._ended[ContainerId(name)]

    def has_ended(self, name: str) -> bool:
        return name in self._ended

    def forget(self, name: str) -> None:
        """Take over its end."""
        container_id = ContainerId(name)
        self._started.pop(container_id, None)
        del self._ended[container_id]
        self.tell(ForgetContainer(container_id))

    async def end(self, *names: str) -> None:
        """Kill these and wait until they are gone and forgotten."""
        self.tell(*(KillContainer(ContainerId(name), grace_ms=0) for name in names if not self.has_ended(name)))
        for name in names:
            await self.ended(name)
            self.forget(name)

    def sandbox(self, name: str) -> Path:
        return self.work_dir / "sandboxes" / FRAMEWORK / name

    def cgroups(self) -> list[str]:
        """The names of its containers that have a cgroup."""
        return sorted(path.name for path in self.tree.iterdir() if path.is_dir()) if self.tree is not None else []

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            said = [f"{path}: {path.read_text(errors='replace')}" for path in self.work_dir.rglob(OUTPUT_NAME)]
            raise TimeoutError(f"{what} did not come within {PATIENCE_S:g} s; {said or 'no launcher wrote'}") from None


@contextlib.asynccontextmanager
async def local_containers(make: Make) -> AsyncIterator[LocalContainers]:
    """A containerizer in a fresh work directory, and its end: nothing of it stays, and whatever would is an error."""
    work_dir = Path(tempfile.mkdtemp(prefix="containers-"))
    try:
        containers = LocalContainers(*make(work_dir / "agent"), work_dir / "agent")
        await containers.begin()
        launcher = containers.port.launcher_pid
        try:
            yield containers
        finally:
            containers.tell(RecoverContainers(()))  # whoever still runs is nobody's, and killed
            await until(lambda: not containers.cgroups(), "the end of its cgroups")
            containers.port.close()
            await asyncio.get_running_loop().shutdown_default_executor()
        await until(lambda: not is_alive(launcher), "the launcher's end")
        if containers.tree is not None:
            containers.tree.rmdir()  # empty, or this fails
    finally:
        shutil.rmtree(work_dir, ignore_errors=True)


def processes(work_dir: Path) -> Made:
    """Not isolated."""
    return ProcessContainerizer(work_dir, launcher_idle_s=30), None


def isolated(work_dir: Path, more: Sequence[Isolator] = ()) -> Made:
    """A cgroup for each."""
    tree = Path(find().own, tree_name(work_dir))
    return LinuxContainerizer(work_dir, launcher_idle_s=30, more=more), tree


async def until(condition: Callable[[], bool], what: str) -> None:
    """Look until it is so. For what nobody tells of."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(LOOK_AGAIN_S)


def is_alive(pid: int) -> bool:
    """Whether the process is there, and is not a dead one that nobody has collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def family_cpu_s(pid: int) -> float:
    """What a process and the children it waited for have used, in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15]) / _TICKS
