"""A container's network: which there are, which ports of its host may lead into it, and its agent's subnet. Pure.

Mesos: src/slave/containerizer/mesos/isolators/network (cni, port_mapping); ContainerInfo.DockerInfo.PortMapping.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from mesos_actor.actors.messages.values import ContainerSpec, PortMapping
from mesos_actor.actors.resources import Resources

BRIDGE = "bridge"
NETWORKS = ("host", BRIDGE, "own", "none")
PROTOCOLS = ("tcp", "udp")
MAX_PORTS = 100
"""Of one container; as many ports as a task of the built-in frameworks can take."""
MAX_PORT = 65_535

_PRIVATE = tuple(map(ipaddress.IPv4Network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")))
"""(RFC 1918)"""
DEFAULT_SUBNET = "172.30.0.0/16"
"""Private (RFC 1918), and none of those that Docker Engine takes first (172.17 to 172.20) or homes and clouds like."""
WIDEST, NARROWEST = 16, 29
"""Lengths of a subnet's prefix: 65,533 containers, and 5."""


def mapping_text(mapping: PortMapping) -> str:
    """`31000:8080/tcp`, as a task reads it in its environment."""
    return f"{mapping.host_port}:{mapping.container_port}/{mapping.protocol}"


def ports_text(ports: Iterable[PortMapping]) -> str:
    return ",".join(map(mapping_text, ports))


def ports_error(spec: ContainerSpec) -> str | None:
    """Why no agent can publish such ports, naming the field, the value and the fix; None: one may."""
    if not spec.ports:
        return None
    if spec.network != BRIDGE:
        return f"'ports' lead into a network of the container's own: set 'network' to 'bridge', not {spec.network!r}"
    if len(spec.ports) > MAX_PORTS:
        return f"{len(spec.ports)} 'ports'; at most {MAX_PORTS} are accepted: publish fewer"
    seen: set[tuple[int, str]] = set()
    for mapping in spec.ports:
        for field, number in (("host_port", mapping.host_port), ("container_port", mapping.container_port)):
            if not 1 <= number <= MAX_PORT:
                return f"port: '{field}' must be from 1 to {MAX_PORT}, not {number}"
        if mapping.protocol not in PROTOCOLS:
            return f"port: 'protocol' must be one of 'tcp', 'udp', not {mapping.protocol!r}"
        where = mapping.host_port, mapping.protocol
        if where in seen:
            return (
                f"port: two ports have 'host_port' {mapping.host_port}/{mapping.protocol}: let each lead to one place"
            )
        seen.add(where)
    return None


def published_error(spec: ContainerSpec | None, resources: Resources) -> str | None:
    """Why these ports of the host cannot be published by whoever has `resources`; None: all are among them."""
    if spec is None or not spec.ports:
        return None
    ranges = resources.ranges("ports")
    for mapping in spec.ports:
        number = mapping.host_port
        if not any(first <= number <= last for first, last in ranges):
            held = ", ".join(f"{first}-{last}" for first, last in ranges[:MAX_PORTS]) or "none"
            return (
                f"port: 'host_port' {number} is not among the 'ports' resources, which are {held}: "
                "take it from the offer, or publish one of those"
            )
    return None


def parse_subnet(text: str) -> ipaddress.IPv4Network:
    """Where the containers of an agent live. Raises ValueError that names the problem and the fix."""
    fix = f"write a private network like {DEFAULT_SUBNET}"
    try:
        subnet = ipaddress.IPv4Network(text)
    except ValueError as problem:
        raise ValueError(f"is no IPv4 network ({problem}); {fix}") from None
    if not WIDEST <= subnet.prefixlen <= NARROWEST:
        raise ValueError(f"has a prefix of {subnet.prefixlen} bits; {fix}, with {WIDEST} to {NARROWEST} bits")
    if not any(subnet.subnet_of(private) for private in _PRIVATE):
        raise ValueError(f"is not one for private use (RFC 1918); {fix}")
    return subnet
