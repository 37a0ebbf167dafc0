"""The table `container` of a batch's or service's spec, and the same from options of the command line.

[task.container]
image = "python:3.12"
volumes = ["/srv/data:/data:ro"]
network = "none"
"""

from __future__ import annotations

import msgspec

from mesos_actor.actors.core.container_spec import container_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import ContainerSpec, Volume
from mesos_actor.actors.resource_text import shown

_MODES = {"ro": True, "rw": False}


class ContainerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What surrounds a command (messages/values.py, ContainerSpec); `volumes` as people write them."""

    image: str = ""
    type: str = ""
    volumes: tuple[str, ...] = ()
    """`HOST:CONTAINER`, absolute paths both; `:ro` after it: it cannot be written to."""
    network: str = "host"
    pull: str = "missing"
    read_only_root: bool = False

    def to_spec(self, where: str) -> ContainerSpec:
        """Raises InvalidInput naming the field, the value and the fix."""
        spec = ContainerSpec(
            image=self.image,
            type=self.type,
            volumes=tuple(parse_volume(text, f"{where}.volumes") for text in self.volumes),
            network=self.network,
            pull=self.pull,
            read_only_root=self.read_only_root,
        )
        if problem := container_error(spec):
            raise InvalidInput(f"{where}: {problem}")
        return spec


def parse_volume(text: str, where: str) -> Volume:
    """`HOST:CONTAINER`, `HOST:CONTAINER:ro` or `HOST:CONTAINER:rw`. Raises InvalidInput."""
    parts = text.split(":")
    mode = parts.pop() if len(parts) == 3 else "rw"
    if len(parts) != 2 or mode not in _MODES or not all(part.startswith("/") for part in parts):
        raise InvalidInput(
            f"{where}: {shown(text)} is no volume; write HOST:CONTAINER or HOST:CONTAINER:ro, absolute paths without a "
            "colon"
        )
    return Volume(parts[0], parts[1], _MODES[mode])
