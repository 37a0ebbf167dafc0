"""The thread of one Docker container: from its image to its end. Docker's own client is a process for as long; this is
a thread, which waits for the engine nearly always.

It says what happens by `tell`, which may be called from any thread. The engine may go away at any time and come back:
then it is asked again, and a log is read from the beginning, what the sandbox has of it already being skipped.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from mesos_actor.actors.core.image_reference import DOCKER_ARCHIVE, parse_image_reference
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.isolation.command import CommandError, owner_of
from mesos_actor.isolation.disk_device import NoDisk, disk_for
from mesos_actor.isolation.docker_engine import Engine, EngineError
from mesos_actor.isolation.docker_spec import create_parameters, spec_of, volume_error
from mesos_actor.isolation.fetch import FetchError, Reader, fetch
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_source import open_regular

ENGINE_PAUSE_S = 1.0
"""Before an engine that cannot be reached is asked again."""
LOG_DRAIN_S = 5.0
"""For the rest of a container's output, once it has ended."""
READ_AGAIN_BYTES = 16 << 20
"""A longer log is not read once more after the end, for the engine would send all of it."""
NOBODY = 65_534
STREAMS = ("stdout", "stderr")
"""Of a container, and names of files in its sandbox."""
MAX_PULLS = 4
"""Images fetched at the same time; the others wait."""
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


class LaunchFailed(Exception):
    """`reason` is one of ContainerFailed's."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class WatchOptions(msgspec.Struct, frozen=True):
    key: str
    volume_roots: tuple[str, ...] = ()
    init: bool = False
    pids_limit: int = 0
    pause_s: float = ENGINE_PAUSE_S


class Watch:
    """`launch` None: it was made by a former life of the agent. `tell(kind, what)`: `started` and `ended` with the
    EngineState, `failed` with a LaunchFailed, `removed` when the engine has lost it."""

    def __init__(
        self,
        open_engine: Callable[[], Engine],
        options: WatchOptions,
        name: str,
        sandbox: str,
        tell: Callable[[str, Any], None],
        pulls: threading.Semaphore,
        launch: LaunchContainer | None = None,
        extra: dict[str, str] | None = None,
    ) -> None:
        self._open = open_engine
        self._options = options
        self._name = name
        self._sandbox = sandbox
        self._tell = tell
        self._pulls = pulls
        self._launch = launch
        self._extra = extra or {}
        #: The launch is not wanted any more; nothing is started after that.
        self.cancelled = threading.Event()
        #: The agent ends: leave the container alone.
        self.closed = threading.Event()

    def begin(self) -> None:
        threading.Thread(target=self._run, name="docker", daemon=True).start()

    def _run(self) -> None:
        try:
            with closing(self._open()) as self._engine:
                self._watch(self._prepare() if self._launch is not None else self._name)
        except LaunchFailed as failed:
            self._tell("failed", failed)
        except EngineError as error:
            self._tell("failed", LaunchFailed("spawn", str(error)))
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the launch without an answer
            self._tell("failed", LaunchFailed("spawn", f"internal error in the container's thread: {error!r}"))

    # -- before -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> str:
        """Image, files, container. Returns the engine's id of what was started."""
        launch = self._launch
        assert launch is not None
        try:
            self._fetch(launch)
            image = self._image(launch)
            options = self._options
            disk = disk_for(launch.limits, self._sandbox)
            parameters = create_parameters(
                launch,
                image,
                self._sandbox,
                options.key,
                self._extra,
                options.init,
                options.pids_limit,
                None if disk is None else disk.path,
            )
            self._check_volumes(parameters)
            self._stop_if_cancelled()
            engine_id = self._create(parameters)
            if not self._engine.inspect(engine_id).has_started:
                self._stop_if_cancelled(engine_id)
                self._start(engine_id)
        except (CommandError, ImageError, NoDisk) as error:
            raise LaunchFailed("full" if getattr(error, "full", False) else "spawn", str(error)) from None
        except FetchError as error:
            raise LaunchFailed("full" if error.full else "fetch", str(error)) from None
        except EngineError as error:
            text = f"image: {error}" if error.kind == "image" else str(error)
            raise LaunchFailed("fetch" if error.kind == "image" else "spawn", text) from None
        return engine_id

    def _fetch(self, launch: LaunchContainer) -> None:
        if launch.command.uris:
            fetch(launch.command.uris, self._sandbox, self.cancelled, rights_of(launch.command.user))

    def _image(self, launch: LaunchContainer) -> str:
        """Have the image there, as the pull policy says. Returns its name in the engine."""
        spec = spec_of(launch.command)
        reference = parse_image_reference(spec.image)
        on_disk = reference.transport == DOCKER_ARCHIVE
        name = reference.tag if on_disk else str(reference)
        if reference.digest:
            name = f"{reference.registry}/{reference.repository}@{reference.digest}"
        if spec.pull != "always" and name and self._engine.has_image(name):
            return name
        if spec.pull == "never":
            raise LaunchFailed("fetch", f"image {spec.image!r} is not on this host, and 'pull' is 'never'")
        while not self._pulls.acquire(timeout=0.2):
            self._stop_if_cancelled()
        try:
            self._stop_if_cancelled()
            if not on_disk:
                self._engine.pull(name, self.cancelled)
                return name
            rights = rights_of(launch.command.user)
            with open_regular(reference.path, rights[2] if rights else None) as file:
                loaded = self._engine.load(file, self.cancelled)
            return name or loaded
        finally:
            self._pulls.release()

    def _check_volumes(self, parameters: dict[str, Any]) -> None:
        """Let the engine have no path but those that the operator allowed, links resolved."""
        launch = self._launch
        assert launch is not None
        volumes = spec_of(launch.command).volumes
        for volume, mount in zip(volumes, parameters["HostConfig"]["Mounts"][1:], strict=True):
            real = os.path.realpath(volume.host_path)
            problem = volume_error(msgspec.structs.replace(volume, host_path=real), self._options.volume_roots)
            if problem is None and not os.path.lexists(real):
                problem = f"volume: 'host_path' {volume.host_path!r} does not exist on this host"
            if problem is not None:
                raise LaunchFailed("sandbox", problem)
            mount["Source"] = real

    def _create(self, parameters: dict[str, Any]) -> str:
        try:
            return self._engine.create(self._name, parameters)
        except EngineError as error:
            if error.kind != "conflict":
                raise
        # Made by a former life of the agent, which died before it heard of it. The name is nobody else's.
        return self._engine.inspect(self._name).engine_id

    def _start(self, engine_id: str) -> None:
        try:
            self._engine.start(engine_id)
        except EngineError:
            self._engine.remove(engine_id)
            raise

    def _stop_if_cancelled(self, engine_id: str = "") -> None:
        if self.cancelled.is_set() or self.closed.is_set():
            if engine_id:
                self._engine.remove(engine_id)
            raise LaunchFailed("cancelled", "cancelled")

    # -- while it runs ----------------------------------------------------------------------------------------------

    def _watch(self, engine_id: str) -> None:
        state = self._until_told(lambda: self._engine.inspect(engine_id))
        if state is None:
            return
        self._tell("started", state)
        logs = [threading.Thread(target=self._copy_log, args=(engine_id, stream), daemon=True) for stream in STREAMS]
        for log in logs:
            log.start()
        while state is not None and not state.has_ended:
            self._until_told(lambda: self._engine.wait(engine_id))
            if self.closed.is_set():
                return
            state = self._until_told(lambda: self._engine.inspect(engine_id))
        for log in logs:
            log.join(LOG_DRAIN_S)
        if state is not None:
            self._tell("ended", state)

    def _until_told(self, ask: Callable[[], Any]) -> Any:
        """The engine's answer, however long it is away; None when it does not know the container any more."""
        while not self.closed.is_set():
            try:
                return ask()
            except EngineError as error:
                if error.kind == "missing":
                    self._tell("removed", str(error))
                    return None
                self.closed.wait(self._options.pause_s)
        return None

    def _copy_log(self, engine_id: str, stream: str) -> None:
        """Append to the sandbox's file what it does not have yet. Ends with the container, or when the disk is full.

        A log that is followed may end a little before its container has said its last word (podman's does), so what an
        ended container said is read once more, unless it was much.
        """
        has_ended = False
        with closing(self._open()) as engine:
            while not self.closed.is_set():
                try:
                    self._copy_from_start(engine, engine_id, stream)
                    if has_ended:
                        return
                    has_ended = engine.inspect(engine_id).has_ended
                    if not has_ended:
                        self.closed.wait(self._options.pause_s)  # the engine went away in the middle
                    elif Path(self._sandbox, stream).stat().st_size > READ_AGAIN_BYTES:
                        return
                except EngineError as error:
                    if error.kind != "away":
                        return
                    self.closed.wait(self._options.pause_s)
                except OSError as error:
                    self._tell("log", f"{stream}: {error.strerror}")
                    return

    def _copy_from_start(self, engine: Engine, engine_id: str, stream: str) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        with os.fdopen(os.open(f"{self._sandbox}/{stream}", flags, 0o644), "wb", buffering=0) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a file any more")
            skipped = found.st_size
            with closing(engine.follow(engine_id, stream)) as pieces:
                for piece in pieces:
                    if self.closed.is_set():
                        return  # the next agent copies the rest
                    new, skipped = piece[skipped:], max(0, skipped - len(piece))
                    view = memoryview(new)
                    while view:
                        view = view[file.write(view) :]


def rights_of(user: str) -> tuple[int, int, Reader] | None:
    """Whose rights decide what a task may read of this host, and whose its files are: the host's user of that name or
    number, else nobody's. None: the agent's own, when it runs as nobody else or is not root."""
    if not user or os.geteuid() != 0:
        return None
    name, _, group = user.partition(":")
    try:
        owner = owner_of(name)
        return (owner.user_id, owner.group_id, owner.reader()) if owner is not None else None
    except CommandError:
        uid = int(name) if name.isdecimal() and len(name) < 10 else NOBODY
        gid = int(group) if group.isdecimal() and len(group) < 10 else NOBODY
        return uid, gid, Reader(uid, ())
