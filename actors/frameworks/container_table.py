"""The table `container` of a batch's or service's spec, and the same from options of the command line.

[task.container]
image = "python:3.12"
volumes = ["/srv/data:/data:ro"]
network = "bridge"
publish = ["PORT0:8080", "31053:53/udp"]
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from mesos_actor.actors.core.container_network import MAX_PORT, MAX_PORTS
from mesos_actor.actors.core.container_spec import container_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import Command, ContainerSpec, PortMapping, Volume
from mesos_actor.actors.resource_text import shown

_MODES = {"ro": True, "rw": False}
_PUBLISHED = re.compile(r"(PORT)?([0-9]{1,5}):([0-9]{1,5})(?:/(tcp|udp))?", re.ASCII).fullmatch


class ContainerTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What surrounds a command (messages/values.py, ContainerSpec); `volumes` as people write them."""

    image: str = ""
    type: str = ""
    volumes: tuple[str, ...] = ()
    """`HOST:CONTAINER`, absolute paths both; `:ro` after it: it cannot be written to."""
    network: str = "host"
    pull: str = "missing"
    read_only_root: bool = False
    publish: tuple[str, ...] = ()
    """`HOST:CONTAINER`, `/udp` after it for datagrams: a port of the host that leads into the container. HOST is a
    number, which is taken from the offer, or `PORT0`, `PORT1`, ...: whichever the task gets by `ports`."""

    def to_spec(self, where: str) -> ContainerSpec:
        """Raises InvalidInput naming the field, the value and the fix."""
        stand_ins = self._stand_ins(where)
        spec = ContainerSpec(
            image=self.image,
            type=self.type,
            volumes=tuple(parse_volume(text, f"{where}.volumes") for text in self.volumes),
            network=self.network,
            pull=self.pull,
            read_only_root=self.read_only_root,
            ports=tuple(self._mapping(one, f"{where}.publish", stand_ins) for one in self.publish),
        )
        if problem := container_error(spec):
            raise InvalidInput(f"{where}: {problem}")
        return spec

    def fixed_ports(self, where: str) -> tuple[int, ...]:
        """The host's ports that are named by number, ascending. Raises InvalidInput."""
        found = [_parts(text, where) for text in self.publish]
        return tuple(sorted({number for is_fixed, number, _, _ in found if is_fixed}))

    def most_ports(self, where: str) -> int:
        """How many `ports` a task needs for those that it names `PORT0` and so on. Raises InvalidInput."""
        found = [_parts(text, where) for text in self.publish]
        return max((number + 1 for is_fixed, number, _, _ in found if not is_fixed), default=0)

    def at(self, command: Command, held: Sequence[int]) -> Command:
        """The command, to be launched where its `PORT0`, `PORT1`, ... are these."""
        if command.container is None or not self.publish:
            return command
        ports = tuple(self._mapping(text, "publish", held) for text in self.publish)
        return msgspec.structs.replace(command, container=msgspec.structs.replace(command.container, ports=ports))

    def _stand_ins(self, where: str) -> Sequence[int]:
        """In place of ports that are not known yet: each another, and none that is named. Raises InvalidInput for one
        that leads to two places."""
        seen: set[tuple[bool, int, str]] = set()
        for text in self.publish:
            is_fixed, number, _, protocol = _parts(text, f"{where}.publish")
            if (is_fixed, number, protocol) in seen:
                port = shown(text.partition(":")[0])
                raise InvalidInput(f"{where}.publish: {port} is there twice for {protocol}: let each lead to one place")
            seen.add((is_fixed, number, protocol))
        named = {number for is_fixed, number, _ in seen if is_fixed}
        return [port for port in range(MAX_PORT, MAX_PORT - 2 * MAX_PORTS - 1, -1) if port not in named]

    @staticmethod
    def _mapping(text: str, where: str, held: Sequence[int]) -> PortMapping:
        is_fixed, number, inside, protocol = _parts(text, where)
        if not is_fixed:
            if number >= len(held):
                raise InvalidInput(f"{where}: {shown(text)} needs {number + 1} ports, and the task has {len(held)}")
            number = held[number]
        return PortMapping(number, inside, protocol)


def _parts(text: str, where: str) -> tuple[bool, int, int, str]:
    """Whether it is a port's number, or that of one of the task's; the container's port; the protocol."""
    match = _PUBLISHED(text)
    if match is None:
        raise InvalidInput(
            f"{where}: {shown(text)} is no published port; write HOST:CONTAINER or HOST:CONTAINER/udp, with numbers, "
            "or PORT0, PORT1, ... for HOST"
        )
    is_fixed, number = match[1] is None, int(match[2])
    if not is_fixed and number >= MAX_PORTS:
        raise InvalidInput(
            f"{where}: {shown(text)}: a task has at most {MAX_PORTS} ports, PORT0 to PORT{MAX_PORTS - 1}"
        )
    return is_fixed, number, int(match[3]), match[4] or "tcp"


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
