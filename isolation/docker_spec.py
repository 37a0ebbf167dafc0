"""A launch as Docker Engine wants it, and an end as it tells it. Pure.

Source: Docker Engine API v1.41, ContainerCreate and ContainerInspect; Mesos src/docker/docker.cpp, src/slave/flags.cpp
(`--sandbox_directory`).
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from mesos_actor.actors.core import environment
from mesos_actor.actors.core.container_network import BRIDGE, ports_text, published_error
from mesos_actor.actors.core.container_spec import container_error
from mesos_actor.actors.core.image_reference import DOCKER_ARCHIVE, parse_image_reference
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import ContainerExited, LaunchContainer
from mesos_actor.actors.messages.values import Command, ContainerSpec, Volume
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.docker_limits import engine_limits, engine_ulimits

SANDBOX_INSIDE = "/mnt/mesos/sandbox"
"""Where a container sees its sandbox (Mesos: the same)."""
CONTAINER_LABEL, FRAMEWORK_LABEL, AGENT_LABEL = "mesos-actor.container", "mesos-actor.framework", "mesos-actor.agent"
MAX_NAME = 63
_NETWORKS = {"host": "host", "none": "none", "own": "bridge", BRIDGE: "bridge"}
_UNSAFE = re.compile(r"[^a-zA-Z0-9_.-]").sub


class EngineState(msgspec.Struct, frozen=True):
    """What the engine knows of one container now."""

    engine_id: str
    status: str
    """`created`, `running`, `paused`, `exited`, `dead` ..."""
    pid: int = 0
    exit_code: int = 0
    oom: bool = False
    error: str = ""
    stop_signal: str = ""
    labels: dict[str, str] = {}
    mem_limit_bytes: int = 0

    @property
    def has_started(self) -> bool:
        return self.status not in ("created", "configured", "initialized")

    @property
    def has_ended(self) -> bool:
        return self.status in ("exited", "dead", "removing", "stopped")


def agent_key(work_dir: str) -> str:
    """What tells this agent's containers from those of others on the same engine."""
    return hashlib.sha256(os.fsencode(work_dir)).hexdigest()[:16]


def engine_name(key: str, container_id: ContainerId) -> str:
    """A container's name in the engine: readable, and no other container's."""
    digest = hashlib.sha256(f"{key}/{container_id}".encode()).hexdigest()[:16]
    return f"mesos-actor-{_UNSAFE('-', container_id)[:MAX_NAME]}-{digest}"


def spec_of(command: Command) -> ContainerSpec:
    """What a Docker container is to be. Raises CommandError for a command that does not describe one."""
    spec = command.container
    if spec is None or not spec.image:
        raise CommandError("container.image: is empty; name the image that the container is made of")
    if problem := container_error(spec):
        raise CommandError(f"container: {problem}")
    reference = parse_image_reference(spec.image)
    if reference.is_on_disk and reference.transport != DOCKER_ARCHIVE:
        raise CommandError(f"container.image: {spec.image!r}: Docker Engine loads docker-archive: tarballs only")
    return spec


def volume_error(volume: Volume, roots: Iterable[str]) -> str | None:
    """Why a host's path, links resolved, is not one that the agent's operator lets tasks use."""
    roots = tuple(roots)
    path = volume.host_path
    if any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots):
        return None
    allowed = ", ".join(roots) or "no directory at all"
    return f"volume: this agent lets tasks use {allowed}, not {path!r}"


def create_parameters(
    launch: LaunchContainer,
    image: str,
    sandbox: str,
    key: str,
    extra: Mapping[str, str],
    init: bool = False,
    pids_limit: int = 0,
    disk: str | None = None,
) -> dict[str, Any]:
    """The body of ContainerCreate. `pids_limit`: for whoever names none; `disk`: the node of the sandbox's. Raises
    CommandError."""
    command, spec = launch.command, spec_of(launch.command)
    if problem := published_error(spec, launch.resources):
        raise CommandError(f"container: {problem}")
    env = {name: value for name, value in command.env.items() if name not in environment.RESERVED}
    env.update(launch.env)
    env.update(extra)
    env[environment.SANDBOX] = SANDBOX_INSIDE
    env[environment.CONTAINER_ID] = launch.container_id
    if spec.ports:
        env[environment.PORTS] = ports_text(spec.ports)
    for name, value in env.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise CommandError(f"env: {name!r} cannot be set: names are not empty and have no '=', nothing has a NUL")
    mounts = [_mount(sandbox, SANDBOX_INSIDE, False)]
    mounts += [_mount(volume.host_path, volume.container_path, volume.read_only) for volume in spec.volumes]
    host: dict[str, Any] = {
        "NetworkMode": _NETWORKS[spec.network],
        "Mounts": mounts,
        "ReadonlyRootfs": spec.read_only_root,
        "RestartPolicy": {"Name": "no"},
    }
    if init:
        host["Init"] = True
    host |= engine_limits(launch.resources, launch.limits, pids_limit, disk)
    if command.rlimits:
        host["Ulimits"] = engine_ulimits(command.rlimits)
    body: dict[str, Any] = {
        "Image": image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": {
            CONTAINER_LABEL: launch.container_id,
            FRAMEWORK_LABEL: launch.framework_id,
            AGENT_LABEL: key,
        },
        "HostConfig": host,
        "OpenStdin": False,
        "Tty": False,
    }
    if spec.ports:
        inside = [f"{mapping.container_port}/{mapping.protocol}" for mapping in spec.ports]
        body["ExposedPorts"] = {port: {} for port in inside}
        bindings: dict[str, list[dict[str, str]]] = {port: [] for port in inside}
        for port, mapping in zip(inside, spec.ports, strict=True):
            bindings[port].append({"HostIp": "", "HostPort": str(mapping.host_port)})
        host["PortBindings"] = bindings
    if command.user:
        body["User"] = command.user
    if command.shell:
        body["Entrypoint"] = ["/bin/sh", "-c"]
        body["Cmd"] = list(command.argv)
    elif command.argv:
        body["Cmd"] = list(command.argv)
    return body


def _mount(source: str, target: str, read_only: bool) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": target, "ReadOnly": read_only}


def exited_of(container_id: ContainerId, state: EngineState, killed: bool) -> ContainerExited:
    """How it ended. The engine tells a signal as 128 and its number, as a shell does; `exit 137` cannot be told from
    it."""
    code = state.exit_code
    if state.oom:
        limit = f" of {state.mem_limit_bytes} bytes" if state.mem_limit_bytes else ""
        text = f"out of memory: it went past its limit{limit}"
        signal = code - 128 if code > 128 else 9
        return ContainerExited(container_id, signal=signal, killed=killed, text=text, limitation="memory")
    if 128 < code <= 128 + 64:
        return ContainerExited(container_id, signal=code - 128, killed=killed, text=state.error)
    if not 0 <= code <= 255:
        return ContainerExited(container_id, killed=killed, text=f"the engine tells the exit status {code}")
    return ContainerExited(container_id, exit_status=code, killed=killed, text=state.error)
