"""The `containerizer` port over Docker Engine (or podman's service): the same messages as process.py.

What outlives the agent is the engine's own record: a container bears its id and its agent's key as labels, so an agent
that was restarted finds its containers, ended or not, and removes those that nobody asks for. Exits are told again
until ForgetContainer, which removes the container from the engine.

TERM goes to the container's first process alone, as `docker stop` does; one that has no handler for it does not hear it
and ends by KILL after the grace, unless the containers are made with an `init`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import psutil

from mesos_actor.actors.errors import InvalidInput
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
from mesos_actor.actors.ports import Outlet, TimerHandle
from mesos_actor.isolation.answers import NEVER_RAN, NOT_KNOWN, recovered_of
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.docker_calls import EngineCalls
from mesos_actor.isolation.docker_engine import Engine, open_engine
from mesos_actor.isolation.docker_limits import engine_update
from mesos_actor.isolation.docker_spec import (
    CONTAINER_LABEL,
    FRAMEWORK_LABEL,
    EngineState,
    agent_key,
    engine_name,
    exited_of,
)
from mesos_actor.isolation.docker_watch import FULL_ERRNOS, MAX_PULLS, LaunchFailed, Watch, WatchOptions
from mesos_actor.isolation.ends import EXIT_REPEAT_US, Ends
from mesos_actor.isolation.paths import make_sandbox, sandbox_of, sandboxes_of
from mesos_actor.isolation.usage import measure

MAX_CONTAINERS = 1_000
"""Known at once, three threads each; a launch past that fails."""
MAX_WAITING = 10_000
"""Messages held back until the engine has told what it holds; past that, launches fail and others are dropped."""
MAX_MEASUREMENTS_WAITING = 4


class _Container:
    """`exit` is set when it has ended, `state` once it was started; neither: it is being prepared."""

    def __init__(self, recovery: int) -> None:
        self.watch: Watch | None = None
        self.state: EngineState | None = None
        self.exit: ContainerExited | None = None
        self.killed = False
        self.deadline_us = 0
        self.timer: TimerHandle | None = None
        #: Limits that came while it was being prepared.
        self.update: dict[str, Any] | None = None
        #: How many RecoverContainers had come when it was asked for: those do not judge it.
        self.recovery = recovery
        #: Nobody asked for it; told to nobody.
        self.orphan = False


class DockerContainerizer:
    """Containers of an engine. See actors/ports.py for how a port lives.

    `volume_roots`: the host's directories that tasks may use as volumes. `init`: the engine's own small first process
    passes signals on and reaps. `pids_limit`: for containers that name none; 0: no limit. `engine` is for tests; else
    the one at `url`, or where DOCKER_HOST says.
    """

    def __init__(
        self,
        work_dir: Path,
        executor_environment: Callable[[ContainerId], dict[str, str]] | None = None,
        url: str = "",
        volume_roots: tuple[str, ...] = (),
        init: bool = False,
        engine: Callable[[], Engine] | None = None,
        exit_repeat_us: int = EXIT_REPEAT_US,
        pause_s: float = 1.0,
        pids_limit: int = 0,
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._executor_environment = executor_environment
        self._open = engine or (lambda: open_engine(url))
        self._exit_repeat_us = exit_repeat_us
        self._key = agent_key(str(self._work_dir))
        roots = tuple(os.path.realpath(root) for root in volume_roots)
        self._options = WatchOptions(self._key, roots, init, pids_limit, pause_s)
        self._containers: dict[ContainerId, _Container] = {}
        #: What the engine held of ours at our start and nobody has asked about yet.
        self._found: dict[ContainerId, EngineState] = {}
        self._recoveries = 0
        self._listed = False
        self._away = ""
        self._waiting: list[Message] = []
        self._pulls = threading.Semaphore(MAX_PULLS)
        self._measuring = 0

    # -- the port ---------------------------------------------------------------------------------------------------

    def start(self, outlet: Outlet) -> None:
        """Ask the engine what it holds. An engine that is not there is waited for; launches fail meanwhile."""
        self._outlet = outlet
        self._ends = Ends(outlet, self._exits, self._exit_repeat_us)
        sandboxes_of(self._work_dir).mkdir(mode=0o711, parents=True, exist_ok=True)
        self._calls = EngineCalls(self._open, self._options.pause_s, self._on_refused)
        self._calls.list(self._key, self._on_listed, self._on_away)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        if self._ends.handler_of(sender, principal, message, self._HANDLERS) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        if self._listed:
            self._HANDLERS[type(message)](self, message)
        elif isinstance(message, LaunchContainer) and (self._away or len(self._waiting) >= MAX_WAITING):
            self._fail(message.container_id, "spawn", self._away or f"{MAX_WAITING} messages wait for the engine")
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(message)
        else:
            self._outlet.log("engine_queue_full", level="error", kind=type(message).__name__)

    def on_flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Let go of the engine's containers, which go on."""
        self._calls.close()
        self._ends.close()
        for container in self._containers.values():
            if container.watch is not None:
                container.watch.closed.set()

    def is_live(self, container_id: ContainerId) -> bool:
        """Whether its sandbox may be in use. May be asked from any thread."""
        container = self._containers.get(container_id)
        return not self._listed or (container is not None and container.exit is None)

    # -- the engine -----------------------------------------------------------------------------------------------

    def _on_away(self, text: str) -> None:
        if not self._away:
            self._outlet.log("engine_away", level="warning", text=text)
            waiting, self._waiting = self._waiting, []
            self._away = f"{text}; start it, or launch without 'docker'"
            for message in waiting:
                self._take(message)

    def _on_refused(self, what: str, text: str) -> None:
        self._outlet.log("engine_refused", level="warning", what=what, text=text)

    def _on_listed(self, found: dict[str, EngineState]) -> None:
        for engine_id, state in found.items():
            self._found[ContainerId(state.labels.get(CONTAINER_LABEL, engine_id))] = state
        self._listed = True
        self._away = ""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            self._HANDLERS[type(message)](self, message)

    # -- launching --------------------------------------------------------------------------------------------------

    def _on_launch(self, message: LaunchContainer) -> None:
        container_id = message.container_id
        failed = self._ends.failed(container_id)
        known = self._containers.get(container_id)
        if failed is not None:
            self._ends.tell(failed)
        elif known is not None:
            if known.state is not None:
                self._ends.tell(ContainerStarted(container_id, known.state.pid))
            if known.exit is not None:
                self._ends.tell(known.exit)
        elif len(self._containers) >= MAX_CONTAINERS:
            self._fail(container_id, "spawn", f"this agent holds {MAX_CONTAINERS} Docker containers, its bound")
        else:
            self._launch(message)

    def _launch(self, message: LaunchContainer) -> None:
        container_id = message.container_id
        try:
            sandbox = sandbox_of(self._work_dir, message.framework_id, container_id)
            make_sandbox(sandbox)
            uid, _, gid = message.command.user.partition(":")
            if uid.isdecimal() and os.geteuid() == 0:  # a name is the image's, and may be another's here
                os.chown(sandbox, int(uid), int(gid) if gid.isdecimal() else -1)
        except (InvalidInput, OverflowError) as error:
            self._fail(container_id, "sandbox", str(error))
            return
        except OSError as error:
            reason = "full" if error.errno in FULL_ERRNOS else "sandbox"
            self._fail(container_id, reason, f"cannot make the sandbox: {error.strerror}: {error.filename}")
            return
        extra = {}
        if message.executor and self._executor_environment is not None:
            extra = self._executor_environment(container_id)
        self._found.pop(container_id, None)
        self._begin(container_id, engine_name(self._key, container_id), sandbox, message, extra)

    def _begin(
        self,
        container_id: ContainerId,
        name: str,
        sandbox: str,
        launch: LaunchContainer | None,
        extra: dict[str, str] | None = None,
    ) -> _Container:
        container = _Container(self._recoveries)

        def tell(kind: str, what: Any) -> None:
            self._calls.on_loop(lambda: self._on_watch(container_id, container, kind, what))

        container.watch = Watch(self._open, self._options, name, sandbox, tell, self._pulls, launch, extra)
        self._containers[container_id] = container
        container.watch.begin()
        return container

    def _fail(self, container_id: ContainerId, reason: str, text: str) -> None:
        self._containers.pop(container_id, None)
        self._ends.tell_failed(container_id, reason, text)

    # -- what a container's thread says -----------------------------------------------------------------------------

    def _on_watch(self, container_id: ContainerId, container: _Container, kind: str, what: Any) -> None:
        if kind == "log":
            self._outlet.log("log_not_kept", level="warning", container=container_id, text=what)
        if self._containers.get(container_id) is not container or container.exit is not None or container.orphan:
            if kind == "started":  # killed while it was being prepared
                self._calls.later("remove", lambda engine: engine.remove(what.engine_id))
            return
        if kind == "started":
            first = container.state is None
            container.state = what
            if first:
                self._ends.tell(ContainerStarted(container_id, what.pid))
            limits, container.update = container.update, None
            if limits is not None:
                self._calls.later(f"limits for {container_id}", lambda engine: engine.update(what.engine_id, limits))
            if container.killed:
                self._signal(container_id, container)
        elif kind == "failed" and what.reason != "cancelled":
            assert isinstance(what, LaunchFailed)
            name = engine_name(self._key, container_id)
            self._calls.later(
                "remove", lambda engine: engine.remove(name)
            )  # an engine that went away may have begun it
            self._fail(container_id, what.reason, str(what))
        elif kind == "ended":
            self._ended(container, exited_of(container_id, what, container.killed))
        elif kind == "removed":
            text = "somebody removed it from the engine; exit status cannot be known"
            self._ended(container, ContainerExited(container_id, killed=container.killed, text=text))

    def _ended(self, container: _Container, exited: ContainerExited) -> None:
        if container.timer is not None:
            container.timer.cancel()
        container.exit = exited
        self._ends.tell_end(exited)

    def _exits(self) -> Iterable[ContainerExited]:
        return (container.exit for container in self._containers.values() if container.exit and not container.orphan)

    def _on_update(self, message: UpdateContainer) -> None:
        """Other limits, live. What the engine will not do is logged."""
        container = self._containers.get(message.container_id)
        if container is None or container.exit is not None or container.orphan:
            return
        try:
            limits = engine_update(message.resources, message.limits, self._options.pids_limit)
        except CommandError as error:
            self._outlet.log("update_refused", level="warning", container=message.container_id, text=str(error))
            return
        if container.state is None:
            container.update = limits  # it is being prepared
            return
        engine_id = container.state.engine_id
        self._calls.later(f"limits for {message.container_id}", lambda engine: engine.update(engine_id, limits))

    # -- killing and forgetting -------------------------------------------------------------------------------------

    def _on_kill(self, message: KillContainer) -> None:
        container_id = message.container_id
        container = self._containers.get(container_id)
        if container is None:
            failed = self._ends.failed(container_id)
            self._ends.tell(failed or ContainerExited(container_id, killed=True, text=NOT_KNOWN))
        elif container.exit is not None:
            self._ends.tell(container.exit)
        elif container.state is None and container.watch is not None and not container.watch.cancelled.is_set():
            container.watch.cancelled.set()
            container.killed = True
            self._ended(container, ContainerExited(container_id, killed=True, text=NEVER_RAN))
        else:
            self._kill(container_id, container, max(0, message.grace_ms) * 1_000)

    def _kill(self, container_id: ContainerId, container: _Container, grace_us: int) -> None:
        """TERM at once, KILL at the earliest deadline that was asked for."""
        deadline_us = self._outlet.now_us() + grace_us
        if container.killed and container.deadline_us <= deadline_us:
            return
        first = not container.killed
        container.killed = True
        container.deadline_us = deadline_us
        if first and grace_us:
            self._signal(container_id, container)
        if container.timer is not None:
            container.timer.cancel()
        container.timer = self._outlet.call_later(grace_us, lambda: self._signal(container_id, container))

    def _signal(self, container_id: ContainerId, container: _Container) -> None:
        """KILL when it is time, the signal that the image asks for before."""
        if container.exit is not None or container.state is None or self._calls.closed.is_set():
            return
        is_time = self._outlet.now_us() >= container.deadline_us
        signal = "SIGKILL" if is_time else container.state.stop_signal or "SIGTERM"
        engine_id = container.state.engine_id
        self._calls.later(f"{signal} for {container_id}", lambda engine: engine.kill(engine_id, signal))

    def _on_forget(self, message: ForgetContainer) -> None:
        self._ends.forget(message.container_id)
        container = self._containers.get(message.container_id)
        if container is None:
            return
        if container.exit is None:
            self._outlet.log("forget_of_a_running_container", level="warning", container=message.container_id)
            return
        self._remove(message.container_id, container)

    def _remove(self, container_id: ContainerId, container: _Container) -> None:
        del self._containers[container_id]
        engine_id = container.state.engine_id if container.state else engine_name(self._key, container_id)
        self._calls.later("remove", lambda engine: engine.remove(engine_id))

    # -- recovering and measuring -----------------------------------------------------------------------------------

    def _on_recover(self, message: RecoverContainers) -> None:
        """Take over what is asked for of what the engine held at our start, and remove the rest."""
        self._recoveries += 1
        asked = set(message.container_ids)
        held, self._found = self._found, {}
        for container_id, state in held.items():
            if container_id not in self._containers:
                self._adopt(container_id, state, container_id in asked and state.has_started)
        for container_id, container in list(self._containers.items()):
            if container.recovery < self._recoveries and container_id not in asked and not container.orphan:
                self._make_orphan(container_id, container)
        found = []
        for container_id in message.container_ids:
            known = self._containers.get(container_id)
            if known is not None and not known.orphan and (known.state is not None or known.exit is not None):
                pid = known.state.pid if known.state is not None else 0
                found.append(recovered_of(container_id, pid, known.exit))
        self._ends.tell(ContainersRecovered(tuple(found)))
        self._ends.repeat_later()

    def _adopt(self, container_id: ContainerId, state: EngineState, wanted: bool) -> None:
        framework_id = FrameworkId(state.labels.get(FRAMEWORK_LABEL, ""))
        sandbox = ""
        try:
            sandbox = sandbox_of(self._work_dir, framework_id, container_id)
        except InvalidInput:
            wanted = False  # not ours, whatever its labels say
        if not wanted or state.has_ended:
            container = self._containers[container_id] = _Container(self._recoveries)
        else:
            container = self._begin(container_id, state.engine_id, sandbox, None)
        container.state = state
        if not wanted:
            self._make_orphan(container_id, container)
        elif state.has_ended:
            container.exit = exited_of(container_id, state, False)

    def _make_orphan(self, container_id: ContainerId, container: _Container) -> None:
        """Remove it from the engine. It is known, and its sandbox in use, until that is done."""
        container.orphan = True
        if container.watch is not None:
            container.watch.cancelled.set()
            container.watch.closed.set()
        engine_id = container.state.engine_id if container.state else engine_name(self._key, container_id)
        pid = container.state.pid if container.state else 0
        self._outlet.log("orphan_removed", level="warning", container=container_id, pid=pid)

        def gone() -> None:
            if self._containers.get(container_id) is container:
                del self._containers[container_id]

        def remove(engine: Engine) -> None:
            engine.remove(engine_id)
            self._calls.on_loop(gone)

        self._calls.later("remove", remove)

    def _on_measure(self, message: MeasureContainers) -> None:
        if self._measuring >= MAX_MEASUREMENTS_WAITING:
            self._ends.tell(ContainerUsage((), message.operation_id))
            return
        pids = {
            container_id: container.state.pid
            for container_id in message.container_ids
            if (container := self._containers.get(container_id)) is not None
            and container.exit is None
            and container.state is not None
        }
        now_us = self._outlet.now_us()
        self._measuring += 1

        def work() -> None:
            try:
                usages = measure(pids, now_us)
            except (OSError, psutil.Error):
                usages = ()  # the host would not tell; the next measurement may be luckier
            self._calls.on_loop(lambda: self._on_measured(ContainerUsage(usages, message.operation_id)))

        self._calls.on_thread(work)

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
