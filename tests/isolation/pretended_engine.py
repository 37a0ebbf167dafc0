"""An engine in memory: what a DockerContainerizer asks of it, and what its containers do when they are told."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator
from typing import IO, Any

from mesos_actor.isolation.docker_engine import EngineError
from mesos_actor.isolation.docker_spec import AGENT_LABEL, EngineState

TERM, KILL = 15, 9
DEADLINE_S = 10.0


class PretendedContainer:
    def __init__(self, engine_id: str, name: str, parameters: dict[str, Any]) -> None:
        self.engine_id = engine_id
        self.name = name
        self.parameters = parameters
        self.status = "created"
        self.exit_code = 0
        self.oom = False
        self.signals: list[str] = []
        self.output: dict[str, bytes] = {"stdout": b"", "stderr": b""}
        self.ended = threading.Event()

    def end(self, exit_code: int, oom: bool = False) -> None:
        self.status, self.exit_code, self.oom = "exited", exit_code, oom
        self.ended.set()


class PretendedEngine:
    """One for all threads. `away`: it cannot be reached. Programs: those of the conformance suite, by their name."""

    def __init__(self) -> None:
        self.containers: dict[str, PretendedContainer] = {}
        self.images = {"docker.io/library/app:latest"}
        self.registry = {"docker.io/library/remote:latest"}
        self.pulled: list[str] = []
        self.loaded: list[bytes] = []
        self.away = False
        self.hasty = False
        """A log that is followed ends before the container's last word (as podman's)."""
        self.says = {"stdout": b"", "stderr": b""}
        """What a container says: two bytes at once, the rest at its end."""
        self.followed: list[str] = []
        """The streams that were asked for while their container ran."""
        self._lock = threading.Lock()
        self._number = 0

    def close(self) -> None:
        """All threads have the same one."""

    def _reach(self) -> None:
        if self.away:
            raise EngineError("away", "the engine cannot be reached: pretended")

    def _get(self, name: str) -> PretendedContainer:
        self._reach()
        with self._lock:
            for container in self.containers.values():
                if name in (container.engine_id, container.name):
                    return container
        raise EngineError("missing", f"no such container: {name}")

    def ping(self) -> str:
        self._reach()
        return "0"

    def has_image(self, name: str) -> bool:
        self._reach()
        return name in self.images

    def pull(self, name: str, cancelled: threading.Event) -> None:
        self._reach()
        if name not in self.registry:
            raise EngineError("image", f"manifest for {name} not found")
        self.pulled.append(name)
        self.images.add(name)

    def load(self, file: IO[bytes], cancelled: threading.Event) -> str:
        self.loaded.append(file.read())
        return "loaded:1"

    def create(self, name: str, parameters: dict[str, Any]) -> str:
        self._reach()
        with self._lock:
            if any(container.name == name for container in self.containers.values()):
                raise EngineError("conflict", f"the name {name} is taken")
            self._number += 1
            engine_id = f"e{self._number}"
            self.containers[engine_id] = PretendedContainer(engine_id, name, parameters)
        return engine_id

    def start(self, engine_id: str) -> None:
        container = self._get(engine_id)
        argv = container.parameters.get("Cmd", ["true"])
        if argv[0] == "no-such-program":
            raise EngineError("refused", "no such program: 'no-such-program'")
        container.output = dict(self.says)
        container.status = "running"
        if argv[0] in ("true", "false"):
            container.end(int(argv[0] == "false"))
        elif argv[0] == "signal-9":
            container.end(128 + KILL)
        elif argv[0] == "oom":
            container.end(128 + KILL, oom=True)
        elif argv[0] == "echo":
            container.output = {"stdout": argv[1].encode(), "stderr": b"err"}
            container.end(0)

    def update(self, engine_id: str, limits: dict[str, Any]) -> None:
        self._get(engine_id).parameters["HostConfig"].update(limits)

    def inspect(self, engine_id: str) -> EngineState:
        found = self._get(engine_id)
        pid = os.getpid() if found.status == "running" else 0
        limit = found.parameters["HostConfig"].get("Memory", 0)
        labels = found.parameters["Labels"]
        return EngineState(found.engine_id, found.status, pid or 77, found.exit_code, found.oom, "", "", labels, limit)

    def listed(self, key: str) -> list[str]:
        self._reach()
        with self._lock:
            return [c.engine_id for c in self.containers.values() if c.parameters["Labels"][AGENT_LABEL] == key]

    def follow(self, engine_id: str, stream: str) -> Generator[bytes, None, None]:
        container = self._get(engine_id)
        is_followed = not container.ended.is_set()
        if is_followed:
            self.followed.append(stream)
        yield container.output[stream][:2]
        container.ended.wait(DEADLINE_S)
        if self.hasty and is_followed:
            return
        yield container.output[stream][2:]

    def wait(self, engine_id: str) -> None:
        self._get(engine_id).ended.wait(DEADLINE_S)
        self._reach()

    def kill(self, engine_id: str, signal: str) -> None:
        container = self._get(engine_id)
        container.signals.append(signal)
        if container.ended.is_set():
            return
        if signal == "SIGKILL":
            container.end(128 + KILL)
        elif container.parameters["Cmd"][0] != "ignores-term":
            container.end(128 + TERM)

    def remove(self, engine_id: str) -> None:
        self._reach()
        with self._lock:
            for key, container in list(self.containers.items()):
                if engine_id in (key, container.name):
                    container.ended.set()
                    del self.containers[key]
