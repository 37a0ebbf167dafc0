"""Containers and sandboxes for simulations: virtual time, no process, no file, and a plan that decides what happens.

What a real launcher and a real disk keep while the agent is down is in `Survivors`, which the test holds: give the same
object to the ports of the next incarnation and they find the containers again, ended meanwhile or still running.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Any, Protocol

import msgspec

from mesos_actor.actors.core.container_network import published_error
from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    CollectGarbage,
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    FileData,
    ForgetContainer,
    GarbageCollected,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    ReadFile,
    RecoverContainers,
    UpdateContainer,
    Usage,
)
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.answers import NOT_KNOWN, OWN_PROCESS, recovered_of
from mesos_actor.isolation.ends import Ends

SPAWN_US = 1_000
"""From a launch to ContainerStarted, and from a signal to the end."""

MAX_READ_BYTES = 256 << 10
_FOREVER_US = 1 << 62
_SIGKILL, _SIGSEGV, _SIGTERM = 9, 11, 15
LONGEST_HALF_LIFE_US = 60_000_000
"""What dies half-way does so within half of this, however long it was to last."""
_UNKNOWN = "the launcher that watched it died; exit status cannot be known"


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """How one command behaves."""

    duration_us: int | None = 0
    """None: until it is killed."""
    exit_status: int = 0
    signal: int | None = None
    """Set: it is ended by this signal instead."""
    ignores_term: bool = False
    fails: str = ""
    """Not empty: it never runs; a reason of ContainerFailed."""
    text: str = ""
    stdout: bytes = b""
    rss_bytes: int = 1 << 20


class Fate(Enum):
    """What the plan may do to the n-th launch of a host, whatever the command is."""

    FAIL = "fail"
    """It cannot be started."""
    OOM = "oom"
    """The kernel kills it for want of memory, half-way."""
    LOST_EXIT = "lost_exit"
    """The first ContainerExited gets lost; the repetition comes."""
    UNKNOWN_EXIT = "unknown_exit"
    """Nobody can tell how it ended: the launcher died."""
    HANG = "hang"
    """It does nothing, and ignores SIGTERM, until `FakeContainerizer.go_on`. An executor's process stands still."""
    DIE = "die"
    """It dies half-way, by SIGSEGV; an executor after a while."""


def run_of(launch: LaunchContainer) -> Run:
    """What a command does by default: `true`, `false`, `sleep SECONDS`, `echo WORDS`, `exit STATUS`,
    `no-such-program`; anything else ends well at once. An executor runs until it is killed."""
    argv = launch.command.argv
    program = argv[0].rpartition("/")[2] if argv else ""
    words = argv[0].split() if launch.command.shell and argv else list(argv)
    if launch.command.shell and words:
        program = words[0]
    if launch.executor:
        return Run(duration_us=None)
    if program == "false":
        return Run(exit_status=1)
    if program == "sleep":
        return Run(duration_us=int(float(words[1]) * 1_000_000))
    if program == "exit":
        return Run(exit_status=int(words[1]))
    if program == "echo":
        return Run(stdout=" ".join(words[1:]).encode() + b"\n")
    if program == "no-such-program":
        return Run(fails="spawn", text="no such program: 'no-such-program'")
    return Run()


class FakeContainer(msgspec.Struct, kw_only=True):
    """One container as the launcher of a simulated host knows it."""

    launch: LaunchContainer
    run: Run
    pid: int
    started_us: int
    ends_us: int
    exited: ContainerExited
    """What will be told at `ends_us`."""
    killed: bool = False
    lose_notice: bool = False
    hangs: bool = False
    ended: bool = False


class Survivors:
    """What outlives an agent's crash on its host. `launches` counts them, for the fates.

    `true_us` tells the time by which processes live, where the clock that the agent sees may be set; None: the agent's.
    """

    def __init__(self, true_us: Callable[[], int] | None = None) -> None:
        self.true_us = true_us
        self.containers: dict[ContainerId, FakeContainer] = {}
        self.launches = 0
        #: (framework, container) -> path -> content, of containers that live or ended.
        self.files: dict[tuple[FrameworkId, ContainerId], dict[str, bytes]] = {}
        #: When each container ended, for the garbage collection.
        self.ended_us: dict[ContainerId, int] = {}
        #: Share of the disk that is free, in thousandths.
        self.free_permille = 1_000


class Processes(Protocol):
    """Who makes processes of executors, so that they speak with the agent; `process_ended` is told when one ends."""

    def begin(self, launch: LaunchContainer) -> None:
        """The executor's process begins."""

    def end(self, container_id: ContainerId) -> None:
        """Its container is gone, and so must its process be, if it is not already."""

    def hang(self, container_id: ContainerId) -> None:
        """The process that has just begun stands still."""


class FakeContainerizer:
    """The `containerizer` port under virtual time.

    `runs` says how a command behaves; `fates` maps the number of a launch on this host (the first is 0) to a Fate, and
    is asked once a launch. Without `processes` an executor is silent. `processors` is how many there are to be pinned;
    None: any number.
    """

    def __init__(
        self,
        survivors: Survivors,
        runs: Callable[[LaunchContainer], Run] = run_of,
        fates: Mapping[int, Fate] | None = None,
        processes: Processes | None = None,
        processors: int | None = None,
    ) -> None:
        self._survivors = survivors
        self._runs = runs
        self._fates = {} if fates is None else fates
        self._processes = processes
        self._processors = processors
        self._closed = False

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._ends = Ends(outlet, self._exits)
        self._closed = False
        for container_id in list(self._survivors.containers):
            self._watch(container_id)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        handler = self._ends.handler_of(sender, principal, message, self._HANDLERS)
        if handler is None:
            return
        handler(self, message)

    def on_flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """The containers go on, in `Survivors`."""
        self._closed = True
        self._ends.close()

    def is_live(self, container_id: ContainerId) -> bool:
        """Whether the container is known here and has not ended."""
        container = self._survivors.containers.get(container_id)
        return container is not None and not container.ended

    def process_ended(self, container_id: ContainerId, exit_status: int | None, signal: int | None) -> None:
        """An executor's process ended by itself: its container ends now."""
        container = self._survivors.containers.get(container_id)
        if container is not None and not container.ended:
            container.exited = ContainerExited(container_id, exit_status, signal, container.killed)
            container.ends_us = self._true_us()
            self._end_if_due(container_id)

    def go_on(self) -> None:
        """What hangs does what it was to do, as if it had begun now. (The processes of executors are not ours.)"""
        for container_id, container in self._survivors.containers.items():
            if container.hangs and not container.ended and not container.killed:
                container.hangs = False
                if container.run.duration_us is not None:
                    container.ends_us = self._true_us() + container.run.duration_us
                    self._watch(container_id)

    def _true_us(self) -> int:
        """The time by which containers end, whatever the host's clock is set to."""
        true_us = self._survivors.true_us
        return self._outlet.now_us() if true_us is None else true_us()

    # -- launching and ending ---------------------------------------------------------------------------------------

    def _on_launch(self, message: LaunchContainer) -> None:
        container_id = message.container_id
        known = self._survivors.containers.get(container_id)
        if failed := self._ends.failed(container_id):
            self._ends.tell(failed)
        elif known is not None:
            self._ends.tell(ContainerStarted(container_id, known.pid))
            if known.ended:
                self._ends.tell(known.exited)
        else:
            self._launch(message)

    def _launch(self, message: LaunchContainer) -> None:
        container_id = message.container_id
        fate = self._fates.get(self._survivors.launches)
        self._survivors.launches += 1
        run = self._runs(message)
        if fate is Fate.FAIL:
            run = Run(fails="spawn", text="failed by the plan")
        elif self._lacks_processors(message.limits.pinned_cpus):
            run = Run(fails="processors", text="limits: pinned_cpus: too few processors are left")
        elif problem := published_error(message.command.container, message.resources):
            run = Run(fails="spawn", text=f"container: {problem}")
        if run.fails:
            failed = self._ends.remember(ContainerFailed(container_id, run.fails, run.text))
            self._later(SPAWN_US, lambda: self._ends.tell(failed))
            return
        now_us = self._outlet.now_us()
        duration_us = _FOREVER_US if run.duration_us is None else run.duration_us
        exited = ContainerExited(
            container_id,
            exit_status=None if run.signal is not None else run.exit_status,
            signal=run.signal,
            text=run.text,
        )
        if fate is Fate.OOM or fate is Fate.DIE:
            duration_us = min(duration_us, LONGEST_HALF_LIFE_US) // 2
            exited = ContainerExited(container_id, signal=_SIGSEGV)
            if fate is Fate.OOM:
                exited = ContainerExited(container_id, signal=_SIGKILL, text="out of memory", limitation="memory")
        elif fate is Fate.UNKNOWN_EXIT:
            exited = ContainerExited(container_id, text=_UNKNOWN)
        elif fate is Fate.HANG:
            duration_us = _FOREVER_US
            run = msgspec.structs.replace(run, ignores_term=True)
        self._survivors.containers[container_id] = FakeContainer(
            launch=message,
            run=run,
            pid=1_000 + self._survivors.launches,
            started_us=now_us,
            ends_us=self._true_us() + SPAWN_US + duration_us,
            exited=exited,
            lose_notice=fate is Fate.LOST_EXIT,
            hangs=fate is Fate.HANG,
        )
        self._survivors.files[message.framework_id, container_id] = {"stdout": run.stdout, "stderr": b""}
        self._later(SPAWN_US, lambda: self._started(container_id))

    def _lacks_processors(self, wanted: int) -> bool:
        """As the linux containerizer: one stays for those that pin none."""
        live = [one.launch.limits.pinned_cpus for one in self._survivors.containers.values() if not one.ended]
        free = (self._processors or 0) - sum(live)
        shared = wanted if wanted and 0 not in live else wanted + 1
        return self._processors is not None and free < shared

    def _started(self, container_id: ContainerId) -> None:
        container = self._survivors.containers.get(container_id)
        if container is not None:
            self._ends.tell(ContainerStarted(container_id, container.pid))
            self._watch(container_id)
            if container.launch.executor and self._processes is not None and not container.ended:
                self._processes.begin(container.launch)
                if container.hangs:
                    self._processes.hang(container_id)

    def _watch(self, container_id: ContainerId) -> None:
        """Call back when the container is due to end; call again whenever that has changed."""
        container = self._survivors.containers[container_id]
        if not container.ended and container.ends_us < _FOREVER_US:
            left_us = max(0, container.ends_us - self._true_us())
            self._later(left_us, lambda: self._end_if_due(container_id))

    def _end_if_due(self, container_id: ContainerId) -> None:
        container = self._survivors.containers.get(container_id)
        if container is None or container.ended:
            return
        if container.ends_us > self._true_us():
            self._watch(container_id)  # the host's clock was set, or runs too fast
            return
        self._set_ended(container)
        if not container.lose_notice:
            self._ends.tell(container.exited)
        self._ends.repeat_later()

    def _set_ended(self, container: FakeContainer) -> None:
        container_id = container.launch.container_id
        container.ended = True
        self._survivors.ended_us[container_id] = container.ends_us
        if container.launch.executor and self._processes is not None:
            self._processes.end(container_id)

    def _exits(self) -> Iterable[ContainerExited]:
        return (container.exited for container in self._survivors.containers.values() if container.ended)

    def _later(self, delay_us: int, call: Callable[[], None]) -> None:
        self._outlet.call_later(delay_us, lambda: None if self._closed else call())

    # -- the rest ---------------------------------------------------------------------------------------------------

    def _on_kill(self, message: KillContainer) -> None:
        container_id = message.container_id
        container = self._survivors.containers.get(container_id)
        if failed := self._ends.failed(container_id):
            self._ends.tell(failed)
        elif container is None:
            self._ends.tell(ContainerExited(container_id, killed=True, text=NOT_KNOWN))
        elif container.ended:
            self._ends.tell(container.exited)
        else:
            self._kill(container_id, container, max(0, message.grace_ms) * 1_000)

    def _kill(self, container_id: ContainerId, container: FakeContainer, grace_us: int) -> None:
        number = _SIGKILL if container.run.ignores_term or not grace_us else _SIGTERM
        delay_us = grace_us if container.run.ignores_term else 0
        at_us = self._true_us() + delay_us + SPAWN_US
        container.killed = True
        if at_us < container.ends_us:
            container.ends_us = at_us
            container.exited = ContainerExited(container_id, signal=number, killed=True)
            self._watch(container_id)
        else:
            container.exited = msgspec.structs.replace(container.exited, killed=True)

    def _on_update(self, message: UpdateContainer) -> None:
        container = self._survivors.containers.get(message.container_id)
        if container is not None and not container.ended:
            container.launch = msgspec.structs.replace(
                container.launch, resources=message.resources, limits=message.limits
            )

    def _on_forget(self, message: ForgetContainer) -> None:
        self._ends.forget(message.container_id)
        container = self._survivors.containers.get(message.container_id)
        if container is not None and container.ended:
            del self._survivors.containers[message.container_id]

    def _on_recover(self, message: RecoverContainers) -> None:
        asked = set(message.container_ids)
        found = []
        for container_id, container in list(self._survivors.containers.items()):
            if not container.ended and container.ends_us <= self._true_us():
                self._set_ended(container)
            if container_id not in asked:
                container.ends_us = min(container.ends_us, self._true_us())
                if not container.ended:
                    self._set_ended(container)
                del self._survivors.containers[container_id]
            else:
                exited = container.exited if container.ended else None
                found.append(recovered_of(container_id, container.pid, exited))
        self._ends.tell(ContainersRecovered(tuple(found)))
        self._ends.repeat_later()

    def _on_measure(self, message: MeasureContainers) -> None:
        now_us = self._outlet.now_us()
        usages = []
        for container_id in message.container_ids:
            container = self._survivors.containers.get(container_id)
            if container is not None and not container.ended:
                cpu_ms = (now_us - container.started_us) // 1_000
                usages.append(Usage(container_id, 1, cpu_ms, container.run.rss_bytes, now_us))
        self._ends.tell(ContainerUsage(tuple(usages), message.operation_id))

    _HANDLERS: dict[type[Message], Callable[[Any, Any], None]] = {
        LaunchContainer: _on_launch,
        UpdateContainer: _on_update,
        KillContainer: _on_kill,
        ForgetContainer: _on_forget,
        RecoverContainers: _on_recover,
        MeasureContainers: _on_measure,
    }


class FakeSandbox:
    """The `sandbox` port over the files that `Survivors` holds."""

    def __init__(self, survivors: Survivors) -> None:
        self._survivors = survivors

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        if isinstance(message, ReadFile) and principal == OWN_PROCESS:
            self._outlet.send(sender, self._read(message))
        elif isinstance(message, CollectGarbage) and principal == OWN_PROCESS:
            self._outlet.send(sender, self._collect(message))
        else:
            self._outlet.log("unexpected_message", level="warning", kind=type(message).__name__, sender=sender)

    def on_flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Nothing is held."""

    def _read(self, message: ReadFile) -> FileData:
        files = self._survivors.files.get((message.framework_id, message.container_id), {})
        content = files.get(message.path)
        if content is None:
            error = f"path: cannot read {message.path!r}: No such file or directory"
            return FileData(message.operation_id, message.offset_bytes, 0, error=error)
        begin = message.offset_bytes
        if begin < 0:
            begin = max(0, len(content) + begin)
        piece = content[begin : begin + min(max(0, message.length_bytes), MAX_READ_BYTES)]
        return FileData(message.operation_id, begin, len(content), piece)

    def _collect(self, message: CollectGarbage) -> GarbageCollected:
        free_permille = self._survivors.free_permille
        age_us = message.max_age_ms * 1_000 * max(0, free_permille - 100) // 900
        oldest_us = self._outlet.now_us() - age_us
        removed = [
            container_id
            for container_id, ended_us in self._survivors.ended_us.items()
            if ended_us < oldest_us and container_id not in message.keep
        ]
        for container_id in removed:
            del self._survivors.ended_us[container_id]
            for key in [key for key in self._survivors.files if key[1] == container_id]:
                del self._survivors.files[key]
        return GarbageCollected(tuple(removed), free_permille)
