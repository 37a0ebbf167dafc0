"""What a containerizer is: the port behind which containers are made, limited, measured, ended and found again.

The agent sends it the messages of actors/messages/containers.py, and it answers. The promises, which
tests/isolation/conformance.py holds every one of them to:

launch    LaunchContainer: make the sandbox, fetch the URIs, apply the limits, start the command. Answered with
          ContainerStarted and later ContainerExited, or with ContainerFailed and nothing else. Asked again about an id
          that is known, it tells what is known of it; an id never runs twice. A limit that cannot be applied, a kind of
          container that it does not know, a published port that it does not hold: ContainerFailed with a
          text that names the field and the fix
update    UpdateContainer: new resources and limits, at once and silently. Nobody is killed for having shrunk; one whose
          limits cannot be kept any more is. Of a container that has ended or is unknown, nothing comes
kill      KillContainer: TERM to everybody in it, KILL after the grace to whoever is left; a repeat may only shorten the
          grace. Always answered, if only with the end that was known already
wait      ContainerExited comes when the command's own process has ended *and* nobody else of the container is left;
          whoever is left when the command ends by itself is killed. It says the true status, or that it cannot be
          known and why; which limit ended it; what it used, where that is counted. Repeated until ForgetContainer
usage     MeasureContainers: of each that runs, what it uses; others are left out. Always answered
recover   RecoverContainers, first thing after the agent's start: what became of each; whatever else it holds is an
          orphan, killed and forgotten, told to nobody
cleanup   ForgetContainer: the agent has kept the end; all that was made for the container but its sandbox goes

Containers outlive the agent. Orders come from the agent of the same process alone (`principal` is `local`). Nothing
blocks the loop. Third parties add one by an entry point of the group `mesos_actor.containerizers`: a callable that
takes `Surroundings` and returns a `Containerizer`; `--containerizers NAME` puts it beside the agent's own
(composing.py).

Mesos: src/slave/containerizer/containerizer.hpp.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Protocol, cast

import msgspec

from mesos_actor.actors.core.container_network import DEFAULT_SUBNET
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.ports import Port

IMAGES_MAX_BYTES = 20 << 30
"""Images that nobody uses go, the one used longest ago first, when all take more. (AgentSettings.images_max_bytes)"""
GROUP = "mesos_actor.containerizers"


class Containerizer(Port, Protocol):
    """The port, and the one question that is asked from beside it."""

    def is_live(self, container_id: ContainerId) -> bool:
        """Whether the sandbox of that name may be in use: its container has not ended, or nothing is known yet. Asked
        from any thread, by the name of the sandbox's directory too."""
        ...


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What a containerizer is made with."""

    work_dir: Path
    """The agent's own directory. Sandboxes are below it (paths.py)."""
    executor_environment: Callable[[ContainerId], dict[str, str]]
    """What a custom executor needs to reach and convince its agent."""
    cgroup_root: str = ""
    """The cgroup that was delegated to this agent; empty: the one it was started in."""
    pids_limit: int = 0
    """For containers that name none; 0: no limit."""
    volume_roots: tuple[str, ...] = ()
    """Directories of this host whose insides containers may have as volumes."""
    confine_all: bool = False
    """Whether commands that name no container are confined too."""
    images_max_bytes: int = IMAGES_MAX_BYTES
    """What images on this host may take together."""
    container_subnet: str = DEFAULT_SUBNET
    """Where containers of network `bridge` have their addresses."""
    disk_watch_s: float = 15.0
    """How often a sandbox with a limit on its disk is looked at."""


Make = Callable[[Surroundings], Containerizer]


def _process(surroundings: Surroundings) -> Containerizer:
    from mesos_actor.isolation.process import ProcessContainerizer

    return ProcessContainerizer(surroundings.work_dir, surroundings.executor_environment)


def _linux(surroundings: Surroundings) -> Containerizer:
    from mesos_actor.isolation.disk_isolator import DiskIsolator
    from mesos_actor.isolation.linux import LinuxContainerizer

    return LinuxContainerizer(
        surroundings.work_dir,
        surroundings.executor_environment,
        cgroup_root=surroundings.cgroup_root,
        pids_limit=surroundings.pids_limit,
        volume_roots=surroundings.volume_roots,
        confine_all=surroundings.confine_all,
        images_max_bytes=surroundings.images_max_bytes,
        container_subnet=surroundings.container_subnet,
        more=(DiskIsolator(surroundings.work_dir, surroundings.disk_watch_s),),
    )


def _docker(surroundings: Surroundings) -> Containerizer:
    """Raises ConfigError when no engine answers: whoever asks for Docker at start means to use it."""
    from mesos_actor.isolation.docker import DockerContainerizer
    from mesos_actor.isolation.docker_engine import EngineError, open_engine

    try:
        with closing(open_engine()) as engine:
            engine.ping()
    except EngineError as error:
        raise ConfigError(
            f"containerizers: 'docker' needs Docker Engine or podman's service: {error}; start it, say by DOCKER_HOST "
            "where it listens, or leave 'docker' out"
        ) from None
    return DockerContainerizer(
        surroundings.work_dir,
        surroundings.executor_environment,
        volume_roots=surroundings.volume_roots,
        pids_limit=surroundings.pids_limit,
    )


BUILT_IN: dict[str, Make] = {"process": _process, "linux": _linux, "docker": _docker}


def find(name: str) -> Make:
    """What makes the containerizer of that name, built in or installed. Raises ConfigError."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    installed = {point.name: point for point in metadata.entry_points(group=GROUP)}
    point = installed.get(name)
    if point is None:
        known = ", ".join(sorted({*BUILT_IN, *installed}))
        raise ConfigError(f"containerizers: there is no {name!r}; installed are {known}")
    try:
        made = point.load()
    except Exception as error:
        raise ConfigError(f"containerizers: {name!r} ({point.value}) cannot be loaded: {error!r}") from error
    if not callable(made):
        raise ConfigError(f"containerizers: {name!r} ({point.value}) is no callable that makes a containerizer")
    return cast("Make", made)
