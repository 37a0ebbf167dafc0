"""The pipeline of a `containerizer` port: what is known of each container, and the launcher behind it.

`process` is this pipeline without isolators, `linux` (linux.py) with them. What comes before a launch stands in
preparation.py, isolators' work after it in isolator.py. The agent's own process never forks: a launch is one mkdir and
one message to the launcher; only one that must wait for something goes through a thread first. Exits are told again
until ForgetContainer, for the agent may have died between hearing of one and keeping it. What is left of a command's
process tree when the command itself ends is killed before its exit is told; see watcher.py for what "tree" means and
launcher.py for what survives what.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil
from msgspec.structs import replace

from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    UpdateContainer,
)
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.answers import NEVER_RAN, NOT_KNOWN, exit_of, recovered_of, with_cause
from mesos_actor.isolation.cleaner import Cleaner
from mesos_actor.isolation.ends import EXIT_REPEAT_US, Ends
from mesos_actor.isolation.isolator import Contribution, Isolation, Isolator, IsolatorError, Limitation
from mesos_actor.isolation.launcher_client import IDLE_S, LauncherClient
from mesos_actor.isolation.paths import LONG_NAME, directory_name, sandboxes_of
from mesos_actor.isolation.preparation import NotPrepared, Preparation, Sandbox
from mesos_actor.isolation.threads import Threads
from mesos_actor.isolation.usage import measure

MAX_CONTAINERS = 100_000
"""Known at once; a launch past that fails. (AgentSettings.max_tasks is the same.)"""

MAX_PREPARING = 1_000
"""Containers whose preparation is on a thread; a launch past that fails."""

PREPARE_THREADS = 4
MAX_MEASUREMENTS_WAITING = 4
"""Past that, a MeasureContainers is answered with nothing: the former ones are not done yet."""


NO_FRAMEWORK = FrameworkId("")
NO_COMMAND = Command(())


class _Container:
    """`exit` is set when it has ended, `pid` while it runs; neither: it is being prepared or launched."""

    __slots__ = ("cancelled", "exit", "launch", "limitation", "orphan", "pid", "preparing", "recovery")

    def __init__(self, launch: LaunchContainer | None, recovery: int = 0) -> None:
        self.launch = launch
        #: How many RecoverContainers had come when it was asked for: those do not judge it.
        self.recovery = recovery
        self.pid = 0
        self.exit: ContainerExited | None = None
        #: On a thread, before the launcher has heard of it.
        self.preparing = False
        self.cancelled = threading.Event()
        #: What an isolator had it killed for.
        self.limitation: Limitation | None = None
        #: Killed because nobody asked for it; told to nobody.
        self.orphan = False


class ProcessContainerizer:
    """Containers that are process trees in sessions of their own. See actors/ports.py for how a port lives.

    `executor_environment` gives what a custom executor needs to reach and convince its agent (address, keys). The
    launcher's directory is `<work_dir>/launcher`; two agents never share a work directory.
    """

    def __init__(
        self,
        work_dir: Path,
        executor_environment: Callable[[ContainerId], dict[str, str]] | None = None,
        launcher_idle_s: float = IDLE_S,
        exit_repeat_us: int = EXIT_REPEAT_US,
        isolators: Sequence[Isolator] = (),
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._isolation = Isolation(isolators)
        self._preparation = Preparation(self._work_dir, self._isolation, executor_environment)
        self._exit_repeat_us = exit_repeat_us
        self._client = LauncherClient(self._work_dir / "launcher", self._on_event, self._on_listed, launcher_idle_s)
        #: By id, in the order in which they were asked for or found. At most MAX_CONTAINERS.
        self._containers: dict[ContainerId, _Container] = {}
        self._forgotten: list[str] = []
        #: Whether the launcher has said what it holds, since our start.
        self._listed = False
        self._recovered = False
        self._waiting: RecoverContainers | None = None
        self._recoveries = 0
        self._preparing = 0
        self._measuring = 0
        self._closed = False

    # -- the port ---------------------------------------------------------------------------------------------------

    def start(self, outlet: Outlet) -> None:
        """Find or start the launcher. Raises OSError when the work directory cannot be used, MesosActorError when an
        isolator cannot work on this host."""
        self._outlet = outlet
        self._ends = Ends(outlet, self._exits, self._exit_repeat_us)
        self._ends.hold_back(True)
        loop = asyncio.get_running_loop()
        self._threads = Threads(loop, PREPARE_THREADS, "containerizer", lambda: self._closed)
        self._cleaner = Cleaner(self._isolation, outlet, loop, self._exit_repeat_us, lambda: self._closed)
        sandboxes_of(self._work_dir).mkdir(mode=0o711, parents=True, exist_ok=True)
        self._isolation.start(self)
        self._client.start(outlet)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        handler = self._ends.handler_of(sender, principal, message, self._HANDLERS)
        if handler is None:
            return
        handler(self, message)

    def on_flush(self) -> None:
        if self._forgotten:
            self._client.forget(self._forgotten)
            self._forgotten = []
        self._client.flush()

    def close(self) -> None:
        """Let go of the launcher, which goes on while anything runs."""
        self.on_flush()
        self._closed = True
        self._ends.close()
        for container in self._containers.values():
            container.cancelled.set()
        self._threads.close()
        self._cleaner.close()
        self._isolation.close()
        self._client.close()

    @property
    def launcher_pid(self) -> int:
        """The launcher's process id; 0 while there is none."""
        return self._client.pid

    def is_live(self, container_id: ContainerId) -> bool:
        """Whether the sandbox of that name may be in use: its container has not ended, or nothing is known yet. May be
        asked from any thread, by the name of the sandbox's directory too, which is shorter than a very long id."""
        if not self._listed:
            return True
        container = self._containers.get(container_id)
        if container is None and len(container_id) > LONG_NAME:
            for known_id, known in list(self._containers.items()):
                if len(known_id) > LONG_NAME and directory_name("container_id", known_id) == container_id:
                    container = known
        return container is not None and container.exit is None

    # -- launching --------------------------------------------------------------------------------------------------

    def _on_launch(self, message: LaunchContainer) -> None:
        container_id = message.container_id
        failed = self._ends.failed(container_id)
        known = self._containers.get(container_id)
        if failed is not None:
            self._ends.tell(failed)
        elif known is not None:
            known.launch = known.launch or message
            self._tell_what_is_known(container_id, known)
        elif len(self._containers) >= MAX_CONTAINERS:
            self._fail(container_id, "spawn", f"this agent holds {MAX_CONTAINERS} containers, its bound")
        else:
            self._containers[container_id] = _Container(message, self._recoveries)
            self._prepare(message)

    def _tell_what_is_known(self, container_id: ContainerId, container: _Container) -> None:
        if container.pid:
            self._ends.tell(ContainerStarted(container_id, container.pid))
        if container.exit is not None:
            self._ends.tell(container.exit)

    def _prepare(self, message: LaunchContainer) -> None:
        """Make what it needs and launch it, on a thread first when that may wait."""
        try:
            sandbox = self._preparation.make_sandbox(message)
            if self._preparation.is_slow(message):
                self._prepare_slowly(message, sandbox)
            else:
                self._launch(message, sandbox, self._preparation.contribution(message, sandbox))
        except NotPrepared as error:
            self._fail(message.container_id, error.reason, error.text)

    def _launch(self, message: LaunchContainer, sandbox: Sandbox, added: Contribution) -> None:
        try:
            self._client.launch(message.container_id, self._preparation.fields(message, sandbox, added))
        except (NotPrepared, ValueError) as error:
            reason = error.reason if isinstance(error, NotPrepared) else "spawn"
            self._fail(message.container_id, reason, str(error))

    def _prepare_slowly(self, message: LaunchContainer, sandbox: Sandbox) -> None:
        if self._preparing >= MAX_PREPARING:
            raise NotPrepared("fetch", f"{MAX_PREPARING} containers wait for their files already")
        container = self._containers[message.container_id]
        container.preparing = True
        self._preparing += 1

        def work() -> Contribution | NotPrepared:
            try:
                return self._preparation.slowly(message, sandbox, container.cancelled)
            except NotPrepared as error:
                return error

        self._threads.run(work, lambda done: self._on_prepared(message, sandbox, container, done))

    def _on_prepared(
        self, message: LaunchContainer, sandbox: Sandbox, container: _Container, done: Contribution | NotPrepared
    ) -> None:
        self._preparing -= 1
        container.preparing = False
        container_id = message.container_id
        if self._containers.get(container_id) is not container or container.exit is not None:
            self._cleaner.add(container_id)  # killed or forgotten meanwhile
        elif isinstance(done, NotPrepared):
            self._fail(container_id, done.reason, done.text)
        else:
            self._launch(container.launch or message, sandbox, done)
            if container.launch is not None and container.launch != message:
                self._apply_update(message, container.launch)  # its limits were changed while it was prepared

    def _fail(self, container_id: ContainerId, reason: str, text: str) -> None:
        self._containers.pop(container_id, None)
        self._cleaner.add(container_id)
        self._ends.tell_failed(container_id, reason, text)

    # -- killing and forgetting -------------------------------------------------------------------------------------

    def _on_kill(self, message: KillContainer) -> None:
        container = self._containers.get(message.container_id)
        if container is None:
            failed = self._ends.failed(message.container_id)
            if failed is not None:
                self._ends.tell(failed)
            elif self._listed:
                self._ends.tell(ContainerExited(message.container_id, killed=True, text=NOT_KNOWN))
            else:
                self._client.kill(message.container_id, message.grace_ms)
        elif container.exit is not None:
            self._ends.tell(container.exit)
        elif container.preparing:
            container.cancelled.set()
            self._ended(container, ContainerExited(message.container_id, killed=True, text=NEVER_RAN))
        else:
            self._client.kill(message.container_id, max(0, message.grace_ms))

    def _on_forget(self, message: ForgetContainer) -> None:
        self._ends.forget(message.container_id)
        container = self._containers.get(message.container_id)
        if container is None:
            return
        if container.exit is None:
            self._outlet.log("forget_of_a_running_container", level="warning", container=message.container_id)
            return
        del self._containers[message.container_id]
        self._forgotten.append(message.container_id)
        self._cleaner.add(message.container_id)

    # -- limits, and what isolators ask for -------------------------------------------------------------------------

    def _on_update(self, message: UpdateContainer) -> None:
        container = self._containers.get(message.container_id)
        if container is None or container.exit is not None or container.orphan:
            return
        # After a restart of the agent nobody remembers its launch; isolators look at its resources and limits alone.
        before = container.launch or LaunchContainer(message.container_id, NO_FRAMEWORK, NO_COMMAND, message.resources)
        now = replace(before, resources=message.resources, limits=message.limits)
        if container.preparing or (now != container.launch and self._apply_update(before, now)):
            container.launch = now

    def _apply_update(self, before: LaunchContainer, now: LaunchContainer) -> bool:
        try:
            self._isolation.update(before, now)
        except IsolatorError as error:
            self._outlet.log("update_refused", level="warning", container=now.container_id, text=error.text)
            self.limit(now.container_id, Limitation("update", error.text))
            return False
        return True

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        """For isolators: end a container that went past a limit of theirs; its end will say so."""
        container = self._containers.get(container_id)
        if container is not None and container.exit is None and container.limitation is None:
            container.limitation = limitation
            self._client.kill(container_id, 0)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """For isolators: one structured log line."""
        self._outlet.log(event, level, **fields)

    # -- what the launcher says -------------------------------------------------------------------------------------

    def _on_event(self, event: dict[str, Any]) -> None:
        container_id = ContainerId(event["id"])
        container = self._containers.get(container_id)
        kind = event["k"]
        if kind == "started":
            if container is None:
                self._outlet.log("orphan_killed", level="warning", container=container_id, pid=event["pid"])
                self._client.kill(container_id, 0)
            elif not container.orphan:
                container.pid = event["pid"]
                self._isolation.started(container_id, container.pid)
                self._ends.tell(ContainerStarted(container_id, container.pid))
        elif kind == "failed":
            if container is not None and container.orphan:
                del self._containers[container_id]
            elif container is not None:
                self._fail(container_id, event["reason"], event["text"])
        elif kind == "exited":
            if container is None:
                self._forget_soon(container_id)
                if event["text"] == NOT_KNOWN:
                    self._ends.tell(exit_of(event))
            else:
                self._ended(container, exit_of(event))

    def _ended(self, container: _Container, exited: ContainerExited) -> None:
        if container.orphan:
            del self._containers[exited.container_id]
            self._forget_soon(exited.container_id)
            return
        exited = self._with_cause(container, exited)
        container.exit = exited
        container.launch = None
        self._ends.tell_end(exited)

    def _with_cause(self, container: _Container, exited: ContainerExited) -> ContainerExited:
        return with_cause(exited, self._isolation.ended(exited.container_id), container.limitation)

    def _exits(self) -> Iterable[ContainerExited]:
        return (c.exit for c in self._containers.values() if c.exit is not None and not c.orphan)

    def _forget_soon(self, container_id: ContainerId) -> None:
        if not self._forgotten:
            self._outlet.call_later(0, self.on_flush)
        self._forgotten.append(container_id)
        self._cleaner.add(container_id)

    def _on_listed(self, listing: list[dict[str, Any]]) -> None:
        """A launcher is connected and holds exactly these."""
        held = {entry["id"] for entry in listing}
        for container_id, container in list(self._containers.items()):
            if container.pid and container.exit is None and container_id not in held:
                text = "the launcher has no record of it; exit status cannot be known"
                self._ended(container, ContainerExited(container_id, text=text))
        for entry in listing:
            self._on_entry(ContainerId(entry["id"]), entry)
        self._listed = True
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._recover(waiting)

    def _on_entry(self, container_id: ContainerId, entry: dict[str, Any]) -> None:
        container = self._containers.get(container_id)
        if container is None and self._recovered:
            # Forgotten, and the launcher did not hear of it; or somebody else's doing.
            container = _Container(None)
            container.orphan = True
            self._containers[container_id] = container
            if not entry["ended"]:
                self._client.kill(container_id, 0)
        elif container is None:
            container = self._containers[container_id] = _Container(None)
        elif not container.pid and container.exit is None and entry["pid"] and container.launch is not None:
            self._ends.tell(ContainerStarted(container_id, entry["pid"]))
        container.pid = entry["pid"]
        if container.pid and not entry["ended"] and not container.orphan:
            self._isolation.started(container_id, container.pid)
        if entry["ended"] and container.exit is None:
            if container.launch is None and not container.orphan and not self._recovered:
                container.exit = self._with_cause(container, exit_of(entry))  # told when it is asked for
            else:
                self._ended(container, exit_of(entry))

    # -- recovering and measuring -----------------------------------------------------------------------------------

    def _on_recover(self, message: RecoverContainers) -> None:
        self._recoveries += 1
        if self._listed:
            self._recover(message)
        else:
            self._waiting = message

    def _recover(self, message: RecoverContainers) -> None:
        self._recovered = True
        self._ends.hold_back(False)
        asked = set(message.container_ids)
        for container_id, container in list(self._containers.items()):
            judged = container.recovery < self._recoveries and not container.orphan
            if judged and container_id not in asked:
                self._make_orphan(container_id, container)
        found = []
        for container_id in message.container_ids:
            known = self._containers.get(container_id)
            if known is not None and (known.pid or known.exit is not None):
                found.append(recovered_of(container_id, known.pid, known.exit))
        for left in self._isolation.recover(tuple(self._containers)):
            self._outlet.log("leftover_of_a_former_life", level="warning", container=left)
            self._cleaner.add(left)
        self._ends.tell(ContainersRecovered(tuple(found)))
        self._ends.repeat_later()

    def _make_orphan(self, container_id: ContainerId, container: _Container) -> None:
        container.orphan = True
        if container.exit is not None:
            self._ended(container, container.exit)
        elif container.preparing:
            container.cancelled.set()
            del self._containers[container_id]
        else:
            self._outlet.log("orphan_killed", level="warning", container=container_id, pid=container.pid)
            self._client.kill(container_id, 0)

    def _on_measure(self, message: MeasureContainers) -> None:
        if self._measuring >= MAX_MEASUREMENTS_WAITING:
            self._ends.tell(ContainerUsage((), message.operation_id))
            return
        pids = {
            container_id: container.pid
            for container_id in message.container_ids
            if (container := self._containers.get(container_id)) is not None and container.exit is None
        }
        now_us = self._outlet.now_us()
        self._measuring += 1

        def work() -> ContainerUsage:
            try:
                usages = tuple(self._isolation.usage(usage) for usage in measure(pids, now_us))
            except (OSError, psutil.Error):
                usages = ()  # the host would not tell; the next measurement may be luckier
            return ContainerUsage(usages, message.operation_id)

        self._threads.run(work, self._on_measured)

    def _on_measured(self, usage: ContainerUsage) -> None:
        self._measuring -= 1
        self._ends.tell(usage)

    _HANDLERS: dict[type[Message], Callable[[Any, Any], None]] = {
        LaunchContainer: _on_launch,
        UpdateContainer: _on_update,
        KillContainer: _on_kill,
        ForgetContainer: _on_forget,
        RecoverContainers: _on_recover,
        MeasureContainers: _on_measure,
    }
