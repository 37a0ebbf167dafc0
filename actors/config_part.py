"""What a process is in its cluster, by the settings of `start`: a master, an agent or both, and where it listens."""

from __future__ import annotations

import socket
from collections.abc import Collection
from typing import TYPE_CHECKING, Literal, NamedTuple

from mesos_actor.actors.config_values import (
    DEFAULT_MASTER_PORT,
    check_replicas,
    host_and_port,
    join_host_port,
    refused,
)
from mesos_actor.actors.errors import ConfigError

if TYPE_CHECKING:
    from mesos_actor.actors.config import StartConfig

RoleAs = Literal["auto", "master", "agent", "both"]


class Part(NamedTuple):
    """What a process is in the cluster and where it listens."""

    role: Literal["master", "agent", "both"]
    port: int
    """0: any free one."""


def part_of(config: StartConfig, own: Collection[str]) -> Part:
    """What `config` makes this process; `own`: the hosts of `config.masters` that are this host (`own_hosts`).

    Without masters: both. With them: a master when its own address is in the list, else an agent. Its own address is
    its host with the port it was given, or, when it was given none, the only entry of its host. Raises ConfigError,
    also when it was told to begin a registry that it will not have.
    """
    part = _part_of(config, own)
    for name, given in (("initialize", config.initialize), ("replace", config.replace)):
        if given and part.role == "agent":
            why = f"is none of {', '.join(config.masters)}" if config.role_as == "auto" else "was started --as agent"
            raise refused(name, given, f"is for masters, and this process {why}", f"leave it out, or {_BE_A_MASTER}")
    if config.replace and len(config.masters) <= 1:
        raise refused(
            "replace",
            config.replace,
            "needs other masters to learn from",
            "restore a backup with `mesos-actor registry import`, or begin anew with --initialize",
        )
    return part


_BE_A_MASTER = "name this host's own address and --port in --masters"


def _part_of(config: StartConfig, own: Collection[str]) -> Part:
    ports = [number for name, number in (host_and_port("masters", one) for one in config.masters) if name in own]
    role = config.role_as
    if role == "agent" and not config.masters:
        raise refused("as", role, "has no master to join", "add --masters HOST:PORT")
    if role == "auto" and not config.masters:
        role = "both"
    elif role == "auto" and config.port is not None:
        role = "master" if config.port in ports else "agent"
    elif role == "auto":
        role = "master" if ports else "agent"
    if config.port is not None:
        return Part(role, config.port)
    if role == "agent":
        return Part(role, 0)
    if len(ports) > 1:
        raise ConfigError(
            f"masters: {', '.join(config.masters)} names this host {len(ports)} times; say which one this is with "
            "--port, or --as agent"
        )
    return Part(role, ports[0] if ports else DEFAULT_MASTER_PORT)


def own_master(config: StartConfig, part: Part, own: Collection[str]) -> str:
    """The entry, `host:port`, of `config.masters` that is this process: a master, or a cluster of this host alone.

    Raises ConfigError when the list is none for masters (their number: odd, and at most MAX_REPLICAS), or does not say
    which of them this is. `part` and `own` as from `part_of` and `own_hosts`.
    """
    masters = config.masters
    if not masters:
        return join_host_port("127.0.0.1", part.port)
    check_replicas(masters)
    if len(masters) == 1:
        return masters[0]
    if part.role == "both":
        raise refused("as", part.role, "is a cluster of this host alone", "start a master and an agent apart")
    advertised = config.advertise.lower()
    entries = [
        one
        for one, (name, port) in zip(masters, (host_and_port("masters", one) for one in masters), strict=True)
        if port == part.port and (name == advertised if advertised else name in own)
    ]
    if len(entries) != 1:
        here = config.advertise or "this host"
        problem = "has no entry for" if not entries else f"has {len(entries)} entries for"
        raise ConfigError(
            f"masters: {','.join(masters)} {problem} {here} with port {part.port}; give each master the same "
            "list, with its own address and --port in it once"
        )
    return entries[0]


def own_hosts(masters: Collection[str]) -> frozenset[str]:
    """Those hosts of `masters` (`host:port` each) that are this host: by name, by address, or by what they resolve
    to. A name that does not resolve is not this host."""
    import psutil

    addresses = {a.address.partition("%")[0] for nic in psutil.net_if_addrs().values() for a in nic}
    names = {socket.gethostname().lower(), "localhost"} | addresses
    return frozenset(
        name
        for name, _ in (host_and_port("masters", one) for one in masters)
        if name in names or not addresses.isdisjoint(_resolved(name))
    )


def _resolved(name: str) -> set[str]:
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, proto=socket.IPPROTO_TCP)}
    except (OSError, UnicodeError):
        return set()
