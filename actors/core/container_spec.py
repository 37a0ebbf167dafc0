"""What a ContainerSpec may ask for: each rule with its text. Pure; the master and the agent both ask."""

from __future__ import annotations

from mesos_actor.actors.core.container_network import NETWORKS, ports_error
from mesos_actor.actors.core.image_reference import DOCKER_ARCHIVE, parse_image_reference
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import ContainerSpec, Volume

DOCKER, LINUX = "docker", "linux"
TYPES = ("", DOCKER, LINUX)
PULLS = ("missing", "always", "never")
MAX_VOLUMES = 1_000
MAX_PATH_BYTES = 4_095
"""PATH_MAX without its NUL."""

OURS = ("/proc", "/sys", "/dev")
"""A volume over one of these, or over the root, would take a container's own world from it."""


def container_error(spec: ContainerSpec) -> str | None:
    """Why no agent can make such a container, naming the field, the value and the fix; None: one may."""
    for field, value, allowed in (
        ("type", spec.type, TYPES),
        ("network", spec.network, NETWORKS),
        ("pull", spec.pull, PULLS),
    ):
        if value not in allowed:
            return f"'{field}' must be one of {', '.join(map(repr, allowed))}, not {value!r}"
    if spec.image:
        try:
            reference = parse_image_reference(spec.image)
        except InvalidInput as error:
            return str(error)
        if spec.type == DOCKER and reference.is_on_disk and reference.transport != DOCKER_ARCHIVE:
            return f"'image' {spec.image!r}: Docker Engine loads docker-archive: tarballs only; use 'type' 'linux'"
    elif spec.type == DOCKER:
        return "'image' is empty, but 'type' is 'docker': name an image"
    if len(spec.volumes) > MAX_VOLUMES:
        return f"{len(spec.volumes)} 'volumes'; at most {MAX_VOLUMES} are accepted"
    seen: set[str] = set()
    for volume in spec.volumes:
        if problem := _volume_error(volume):
            return problem
        where = _plain(volume.container_path)
        if where in seen:
            return f"volume: two volumes have 'container_path' {volume.container_path!r}"
        seen.add(where)
    return ports_error(spec)


def _volume_error(volume: Volume) -> str | None:
    for field, path in (("host_path", volume.host_path), ("container_path", volume.container_path)):
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            return f"volume: '{field}' must be an absolute path without '..', not {path!r}"
        if len(path.encode("utf-8", "surrogatepass")) > MAX_PATH_BYTES:
            return f"volume: '{field}' has more than {MAX_PATH_BYTES} bytes"
    inside = _plain(volume.container_path)
    if inside == "/" or any(inside == own or inside.startswith(own + "/") for own in OURS):
        return f"volume: 'container_path' {volume.container_path!r} is the container's own; choose another place"
    return None


def _plain(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
