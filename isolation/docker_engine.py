"""Docker Engine's API: the one module that knows the `docker` package. Every call blocks, and has an end.

podman's service (`podman system service`) answers the same calls. One `Engine` is used by one thread at a time.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from typing import IO, Any, Protocol

from mesos_actor.actors.errors import MesosActorError
from mesos_actor.isolation.docker_spec import AGENT_LABEL, EngineState

CALL_TIMEOUT_S = 120
"""For the engine to answer one call (as kubelet's --runtime-request-timeout; an engine that starts many is slow)."""
WAIT_TIMEOUT_S = 3_600
"""One wait for a container's end, or silence while an image is pulled; then it is asked anew, or has failed."""
MAX_LISTED = 100_000


class EngineError(MesosActorError):
    """The engine refused or did not answer. `kind`: `image` (not to be had), `conflict` (the name is taken), `missing`
    (no such container), `refused` (it will not, whenever it is asked), `away` (it cannot be reached: ask again)."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Engine(Protocol):
    """What a containerizer needs of an engine. Every method raises EngineError."""

    def close(self) -> None: ...
    def ping(self) -> str:
        """Its version."""
        ...

    def has_image(self, name: str) -> bool: ...
    def pull(self, name: str, cancelled: threading.Event) -> None: ...
    def load(self, file: IO[bytes], cancelled: threading.Event) -> str:
        """Load a tarball of `docker save`; the name or id of its first image."""
        ...

    def create(self, name: str, parameters: dict[str, Any]) -> str:
        """The new container's id in the engine."""
        ...

    def start(self, engine_id: str) -> None: ...
    def update(self, engine_id: str, limits: dict[str, Any]) -> None:
        """Other limits for one that runs."""

    def inspect(self, engine_id: str) -> EngineState: ...
    def listed(self, key: str) -> list[str]:
        """The engine's ids of all containers that this agent made."""
        ...

    def follow(self, engine_id: str, stream: str) -> Generator[bytes, None, None]:
        """All of `stdout` or `stderr`, from the beginning to the container's end."""
        ...

    def wait(self, engine_id: str) -> None:
        """Return when it has ended, or after WAIT_TIMEOUT_S."""

    def kill(self, engine_id: str, signal: str) -> None: ...
    def remove(self, engine_id: str) -> None: ...


def open_engine(url: str = "") -> Engine:
    """The engine at `url`, or where DOCKER_HOST says, or at its usual socket. Raises EngineError."""
    try:
        return DockerEngine(url)
    except ImportError:
        raise EngineError("away", "the package 'docker' is missing: pip install 'mesos-actor[docker]'") from None


class DockerEngine:
    """See Engine."""

    def __init__(self, url: str = "") -> None:
        import docker
        import docker.errors
        import docker.utils
        import requests

        self._errors = docker.errors
        self._failures: tuple[type[Exception], ...] = (
            docker.errors.DockerException,
            requests.RequestException,
            OSError,
        )
        options: Any = {"base_url": url} if url else docker.utils.kwargs_from_env()
        try:
            # The oldest version with all that is used; without one, making a client asks the engine.
            self._api: Any = docker.APIClient(version="1.41", timeout=CALL_TIMEOUT_S, **options)
            self._api.trust_env = False  # no ~/.netrc, no proxy: it would be read for every call
        except self._failures as error:
            raise EngineError("away", f"{url or 'DOCKER_HOST'!s}: {error}") from None

    def close(self) -> None:
        self._api.close()

    def _call(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._errors.ImageNotFound as error:
            raise EngineError("image", self._text(error)) from None
        except self._errors.NotFound as error:
            raise EngineError("missing", self._text(error)) from None
        except self._errors.APIError as error:
            status = getattr(error.response, "status_code", 0)
            raise EngineError("conflict" if status == 409 else "refused", self._text(error)) from None
        except self._failures as error:
            raise EngineError("away", f"the engine cannot be reached: {error}") from None

    @staticmethod
    def _text(error: Any) -> str:
        return str(error.explanation or error)[:2_000]

    def ping(self) -> str:
        return str(self._call(self._api.version).get("Version", ""))

    def has_image(self, name: str) -> bool:
        try:
            self._call(lambda: self._api.inspect_image(name))
        except EngineError as error:
            if error.kind in ("image", "missing"):
                return False
            raise
        return True

    def pull(self, name: str, cancelled: threading.Event) -> None:
        self._told(lambda: self._api.pull(name, stream=True, decode=True), cancelled)

    def load(self, file: IO[bytes], cancelled: threading.Event) -> str:
        lines = self._told(lambda: self._api.load_image(file, quiet=True), cancelled)
        for line in lines:
            for start in ("Loaded image ID: ", "Loaded image: "):
                if line.startswith(start):
                    return line.removeprefix(start).strip().partition(",")[0]
        raise EngineError("image", "the engine does not say what it has loaded")

    def _told(self, begin: Callable[[], Any], cancelled: threading.Event) -> list[str]:
        """What the engine tells while it works, the last 100 lines of it."""
        told: list[str] = []

        def read() -> None:
            for line in begin():
                if cancelled.is_set():
                    raise EngineError("image", "cancelled")
                if isinstance(line, dict) and line.get("error"):
                    raise EngineError("image", str(line["error"])[:2_000])
                told.append(str(line.get("stream", "") if isinstance(line, dict) else line))
                del told[:-100]

        try:
            self._call(read)
        except EngineError as error:
            raise EngineError("away" if error.kind == "away" else "image", str(error)) from None
        return told

    def create(self, name: str, parameters: dict[str, Any]) -> str:
        return str(self._call(lambda: self._api.create_container_from_config(parameters, name))["Id"])

    def start(self, engine_id: str) -> None:
        self._call(lambda: self._api.start(engine_id))

    def update(self, engine_id: str, limits: dict[str, Any]) -> None:
        # The package's own method has no word for some of them.
        url = self._api._url("/containers/{0}/update", engine_id)
        self._call(lambda: self._api._result(self._api._post_json(url, data=limits), True))

    def inspect(self, engine_id: str) -> EngineState:
        found = self._call(lambda: self._api.inspect_container(engine_id))
        state, config = found["State"], found.get("Config") or {}
        return EngineState(
            found["Id"],
            str(state.get("Status", "")),
            int(state.get("Pid") or 0),
            int(state.get("ExitCode") or 0),
            bool(state.get("OOMKilled")),
            str(state.get("Error") or ""),
            str(config.get("StopSignal") or ""),
            dict(config.get("Labels") or {}),
            int((found.get("HostConfig") or {}).get("Memory") or 0),
        )

    def listed(self, key: str) -> list[str]:
        wanted = {"label": [f"{AGENT_LABEL}={key}"]}
        found = self._call(lambda: self._api.containers(all=True, limit=MAX_LISTED, filters=wanted))
        return [str(entry["Id"]) for entry in found]

    def follow(self, engine_id: str, stream: str) -> Generator[bytes, None, None]:
        chosen = {"stdout": stream == "stdout", "stderr": stream == "stderr"}
        pieces = self._call(lambda: self._api.logs(engine_id, stream=True, follow=True, **chosen))
        try:
            while (piece := self._call(lambda: next(pieces, None))) is not None:
                yield piece
        finally:
            with contextlib.suppress(AttributeError, OSError):  # of one that is over it finds no socket to close
                pieces.close()

    def wait(self, engine_id: str) -> None:
        try:
            self._call(lambda: self._api.wait(engine_id, timeout=WAIT_TIMEOUT_S))
        except EngineError as error:
            if error.kind != "missing":
                raise

    def kill(self, engine_id: str, signal: str) -> None:
        try:
            self._call(lambda: self._api.kill(engine_id, signal))
        except EngineError as error:
            if error.kind not in ("missing", "conflict"):  # it has ended
                raise

    def remove(self, engine_id: str) -> None:
        try:
            self._call(lambda: self._api.remove_container(engine_id, v=True, force=True))
        except EngineError as error:
            if error.kind not in ("missing", "conflict"):  # or somebody removes it just now
                raise
