"""The `containerizer` port: sandboxes, files, environment, and the launcher behind it.

The agent's own process never forks. A launch is one mkdir and one message to the launcher; only a command with URIs
goes through a thread first. Exits are told again until ForgetContainer, for the agent may have died between hearing of
one and keeping it. What is left of a command's process tree when the command itself ends is killed before its exit is
told; see watcher.py for what "tree" means and launcher.py for what survives what.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import Address, ContainerId, Principal, local
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
)
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.answers import NEVER_RAN, NOT_KNOWN, OWN_PROCESS, exit_of, recovered_of
from mesos_actor.isolation.command import CommandError, Owner, argv_of, environment_of, owner_of
from mesos_actor.isolation.fetch import FetchError, fetch
from mesos_actor.isolation.launcher_client import IDLE_S, LauncherClient
from mesos_actor.isolation.paths import LONG_NAME, directory_name, make_sandbox, sandbox_of, sandboxes_of
from mesos_actor.isolation.usage import measure

MAX_CONTAINERS = 100_000
"""Known at once; a launch past that fails. (AgentSettings.max_tasks is the same.)"""

MAX_FAILED = 10_000
"""Failed launches remembered, so that asking again gets the same answer; the oldest is dropped."""

MAX_FETCHING = 1_000
"""Containers that wait for their files; a launch past that fails."""

FETCH_THREADS = 4
EXIT_REPEAT_US = 10_000_000
"""How often exits that were not taken over are told again."""

EXITS_A_REPEAT = 1_000
MAX_MEASUREMENTS_WAITING = 4
"""Past that, a MeasureContainers is answered with nothing: the former ones are not done yet."""

_FULL = (28, 122)  # ENOSPC, EDQUOT


class _Container:
    """`exit` is set when it has ended, `pid` while it runs; neither: it is being fetched for or launched."""

    __slots__ = ("cancelled", "exit", "fetching", "launch", "orphan", "pid", "recovery")

    def __init__(self, launch: LaunchContainer | None, recovery: int = 0) -> None:
        self.launch = launch
        #: How many RecoverContainers had come when it was asked for: those do not judge it.
        self.recovery = recovery
        self.pid = 0
        self.exit: ContainerExited | None = None
        self.fetching = False
        self.cancelled = threading.Event()
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
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._executor_environment = executor_environment
        self._exit_repeat_us = exit_repeat_us
        self._client = LauncherClient(self._work_dir / "launcher", self._on_event, self._on_listed, launcher_idle_s)
        #: By id, in the order in which they were asked for or found. At most MAX_CONTAINERS.
        self._containers: dict[ContainerId, _Container] = {}
        self._failed: OrderedDict[ContainerId, ContainerFailed] = OrderedDict()
        self._forgotten: list[str] = []
        #: Whether the launcher has said what it holds, since our start.
        self._listed = False
        self._recovered = False
        self._waiting: RecoverContainers | None = None
        self._recoveries = 0
        self._agent = local("agent")
        self._pool: ThreadPoolExecutor | None = None
        self._fetching = 0
        self._measuring = 0
        self._repeat_is_set = False
        self._closed = False

    # -- the port ---------------------------------------------------------------------------------------------------

    def start(self, outlet: Outlet) -> None:
        """Find or start the launcher. Raises OSError when the work directory cannot be used."""
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        sandboxes_of(self._work_dir).mkdir(mode=0o711, parents=True, exist_ok=True)
        self._client.start(outlet)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        handler = self._HANDLERS.get(type(message))
        if principal != OWN_PROCESS:
            self._outlet.log("not_from_agent", level="warning", sender=sender, principal=principal)
            return
        if handler is None:
            self._outlet.log("unexpected_message", level="warning", kind=type(message).__name__, sender=sender)
            return
        self._agent = sender
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
        for container in self._containers.values():
            container.cancelled.set()
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
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
        failed = self._failed.get(container_id)
        known = self._containers.get(container_id)
        if failed is not None:
            self._tell(failed)
        elif known is not None:
            known.launch = known.launch or message
            self._tell_what_is_known(container_id, known)
        elif len(self._containers) >= MAX_CONTAINERS:
            self._fail(container_id, "spawn", f"this agent holds {MAX_CONTAINERS} containers, its bound")
        elif message.command.uris and self._fetching >= MAX_FETCHING:
            self._fail(container_id, "fetch", f"{MAX_FETCHING} containers wait for their files already")
        else:
            self._containers[container_id] = _Container(message, self._recoveries)
            self._prepare(message)

    def _tell_what_is_known(self, container_id: ContainerId, container: _Container) -> None:
        if container.pid:
            self._tell(ContainerStarted(container_id, container.pid))
        if container.exit is not None:
            self._tell(container.exit)

    def _prepare(self, message: LaunchContainer) -> None:
        """Make the sandbox and go on to the files or the launch."""
        container_id = message.container_id
        try:
            sandbox = sandbox_of(self._work_dir, message.framework_id, container_id)
            owner = owner_of(message.command.user)
            make_sandbox(sandbox)
            if owner is not None:
                os.chown(sandbox, owner.user_id, owner.group_id)
        except InvalidInput as error:
            self._fail(container_id, "sandbox", str(error))
        except CommandError as error:
            self._fail(container_id, "spawn", str(error))
        except OSError as error:
            reason = "full" if error.errno in _FULL else "sandbox"
            self._fail(container_id, reason, f"cannot make the sandbox: {error.strerror}: {error.filename}")
        else:
            if message.command.uris:
                self._fetch(message, sandbox, owner)
            else:
                self._launch(message, sandbox)

    def _launch(self, message: LaunchContainer, sandbox: str) -> None:
        container_id = message.container_id
        extra = {}
        if message.executor and self._executor_environment is not None:
            extra = self._executor_environment(container_id)
        try:
            fields: dict[str, Any] = {
                "argv": argv_of(message.command),
                "env": environment_of(message, sandbox, extra),
                "cwd": sandbox,
            }
            if message.command.user:
                fields["user"] = message.command.user if owner_of(message.command.user) else ""
            self._client.launch(container_id, fields)
        except (CommandError, ValueError) as error:
            self._fail(container_id, "spawn", str(error))

    def _fetch(self, message: LaunchContainer, sandbox: str, owner: Owner | None) -> None:
        container = self._containers[message.container_id]
        container.fetching = True
        self._fetching += 1

        def work() -> None:
            error: FetchError | None = None
            try:
                rights = (owner.user_id, owner.group_id, owner.reader()) if owner else None
                fetch(message.command.uris, sandbox, container.cancelled, rights)
            except FetchError as caught:
                error = caught
            except Exception as caught:  # noqa: BLE001 - a bug of ours must not leave the launch without an answer
                error = FetchError(f"internal error while fetching: {caught!r}")
            self._from_thread(lambda: self._on_fetched(message, sandbox, container, error))

        self._threads().submit(work)

    def _on_fetched(
        self, message: LaunchContainer, sandbox: str, container: _Container, error: FetchError | None
    ) -> None:
        self._fetching -= 1
        container.fetching = False
        if self._containers.get(message.container_id) is not container or container.exit is not None:
            return  # killed or forgotten meanwhile
        if error is not None:
            self._fail(message.container_id, "full" if error.full else "fetch", str(error))
        else:
            self._launch(message, sandbox)

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(FETCH_THREADS, thread_name_prefix="containerizer")
        return self._pool

    def _from_thread(self, call: Callable[[], None]) -> None:
        def unless_closed() -> None:
            if not self._closed:
                call()

        if not self._closed:
            try:
                self._loop.call_soon_threadsafe(unless_closed)
            except RuntimeError:
                self._closed = True  # the loop has ended before this thread

    def _fail(self, container_id: ContainerId, reason: str, text: str) -> None:
        self._containers.pop(container_id, None)
        failed = ContainerFailed(container_id, reason, text)
        self._failed[container_id] = failed
        if len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)
        self._tell(failed)

    def _tell(self, message: Message) -> None:
        self._outlet.send(self._agent, message)

    # -- killing and forgetting -------------------------------------------------------------------------------------

    def _on_kill(self, message: KillContainer) -> None:
        container = self._containers.get(message.container_id)
        if container is None:
            failed = self._failed.get(message.container_id)
            if failed is not None:
                self._tell(failed)
            elif self._listed:
                self._tell(ContainerExited(message.container_id, killed=True, text=NOT_KNOWN))
            else:
                self._client.kill(message.container_id, message.grace_ms)
        elif container.exit is not None:
            self._tell(container.exit)
        elif container.fetching:
            container.cancelled.set()
            self._ended(container, ContainerExited(message.container_id, killed=True, text=NEVER_RAN))
        else:
            self._client.kill(message.container_id, max(0, message.grace_ms))

    def _on_forget(self, message: ForgetContainer) -> None:
        self._failed.pop(message.container_id, None)
        container = self._containers.get(message.container_id)
        if container is None:
            return
        if container.exit is None:
            self._outlet.log("forget_of_a_running_container", level="warning", container=message.container_id)
            return
        del self._containers[message.container_id]
        self._forgotten.append(message.container_id)

    # -- what the launcher says -------------------------------------------------------------------------------------

    def _on_event(self, event: dict[str, Any]) -> None:
        container_id = ContainerId(event["id"])
        container = self._containers.get(container_id)
        kind = event["k"]
        if kind == "started":
            if container is not None and not container.orphan:
                container.pid = event["pid"]
                self._tell(ContainerStarted(container_id, container.pid))
        elif kind == "failed":
            if container is not None and container.orphan:
                del self._containers[container_id]
            elif container is not None:
                self._fail(container_id, event["reason"], event["text"])
        elif kind == "exited":
            if container is None:
                self._forget_soon(container_id)
                if event["text"] == NOT_KNOWN:
                    self._tell(exit_of(event))
            else:
                self._ended(container, exit_of(event))

    def _ended(self, container: _Container, exited: ContainerExited) -> None:
        if container.orphan:
            del self._containers[exited.container_id]
            self._forget_soon(exited.container_id)
            return
        container.exit = exited
        container.launch = None
        self._tell(exited)
        if not self._repeat_is_set:
            self._repeat_is_set = True
            self._outlet.call_later(self._exit_repeat_us, self._repeat_exits)

    def _repeat_exits(self) -> None:
        """Tell the oldest exits that nobody has taken over yet once more."""
        self._repeat_is_set = False
        if self._closed:
            return
        exits = [c.exit for c in self._containers.values() if c.exit is not None and not c.orphan]
        for exited in exits[:EXITS_A_REPEAT] if self._recovered else []:
            self._tell(exited)
        if exits:
            self._repeat_is_set = True
            self._outlet.call_later(self._exit_repeat_us, self._repeat_exits)

    def _forget_soon(self, container_id: ContainerId) -> None:
        if not self._forgotten:
            self._outlet.call_later(0, self.on_flush)
        self._forgotten.append(container_id)

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
            self._tell(ContainerStarted(container_id, entry["pid"]))
        container.pid = entry["pid"]
        if entry["ended"] and container.exit is None:
            if container.launch is None and not container.orphan and not self._recovered:
                container.exit = exit_of(entry)  # told when it is asked for
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
        self._tell(ContainersRecovered(tuple(found)))
        if not self._repeat_is_set:
            self._repeat_is_set = True
            self._outlet.call_later(self._exit_repeat_us, self._repeat_exits)

    def _make_orphan(self, container_id: ContainerId, container: _Container) -> None:
        container.orphan = True
        if container.exit is not None:
            self._ended(container, container.exit)
        elif container.fetching:
            container.cancelled.set()
            del self._containers[container_id]
        else:
            self._outlet.log("orphan_killed", level="warning", container=container_id, pid=container.pid)
            self._client.kill(container_id, 0)

    def _on_measure(self, message: MeasureContainers) -> None:
        if self._measuring >= MAX_MEASUREMENTS_WAITING:
            self._tell(ContainerUsage((), message.operation_id))
            return
        pids = {
            container_id: container.pid
            for container_id in message.container_ids
            if (container := self._containers.get(container_id)) is not None and container.exit is None
        }
        now_us = self._outlet.now_us()
        self._measuring += 1

        def work() -> None:
            try:
                usages = measure(pids, now_us)
            except (OSError, psutil.Error):
                usages = ()  # the host would not tell; the next measurement may be luckier
            self._from_thread(lambda: self._on_measured(ContainerUsage(usages, message.operation_id)))

        self._threads().submit(work)

    def _on_measured(self, usage: ContainerUsage) -> None:
        self._measuring -= 1
        self._tell(usage)

    _HANDLERS: dict[type[Message], Callable[[Any, Any], None]] = {
        LaunchContainer: _on_launch,
        KillContainer: _on_kill,
        ForgetContainer: _on_forget,
        RecoverContainers: _on_recover,
        MeasureContainers: _on_measure,
    }
