"""What the bridge network of an agent looks like in the kernel: names, addresses, links, rules. Pure.

    container                          host
    eth0 172.30.0.2/16  -- veth --  ma<key>-2 ┐
    eth0 172.30.0.3/16  -- veth --  ma<key>-3 ┴ bridge ma<key>-br 172.30.0.1/16  -- forwarded, masqueraded -->

One bridge and one nftables table for each agent, named by its `key`, so that two agents of a host never touch each
other's. The table is always written as a whole, in one transaction: what it says depends on nothing that was there.

A container's names and its MAC address follow from its IP address: whoever gets an address again is found under it at
once, whatever neighbours remember. The bridge has a MAC address of its own, because one that it took from its first
port would change when that goes.

Mesos: src/slave/containerizer/mesos/isolators/network/cni. The rules are those of CNI's bridge, portmap and firewall
plugins (containernetworking/plugins, portmap/README.md), with one map in place of a chain for each container.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable, Sequence

import msgspec

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.values import PortMapping

GATEWAY = 1
"""The bridge's own number in the subnet."""
FIRST = 2
INSIDE = "eth0"
MAX_NAMESERVERS = 3
"""As many as the C library asks (resolv.conf(5), MAXNS)."""


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A container at the bridge; what must be known of it after a restart of the agent."""

    container_id: ContainerId
    number: int
    """Of its address in the subnet."""
    subnet: str
    """Which was the agent's then."""
    ports: tuple[PortMapping, ...] = ()
    made_ns: int
    """When. A port's last owner is the one that it leads to: the one before may not be cleaned up yet."""

    @property
    def address(self) -> str:
        return str(ipaddress.IPv4Network(self.subnet)[self.number])


class Plan(msgspec.Struct, frozen=True):
    """`key`: the agent's, 8 hex digits: an interface's name has at most 15 characters (IFNAMSIZ)."""

    key: str
    subnet: str
    ipv6: bool = True
    """Whether the kernel speaks it: then links are told not to, for there are no rules for it."""

    @property
    def prefix(self) -> str:
        return f"ma{self.key}-"

    @property
    def bridge(self) -> str:
        return f"{self.prefix}br"

    @property
    def table(self) -> str:
        return f"mesos_actor_{self.key}"

    def link(self, number: int) -> str:
        """The host's end of a container's cable; its network namespace has the same name."""
        return f"{self.prefix}{number:x}"

    def address(self, number: int) -> str:
        return str(ipaddress.IPv4Network(self.subnet)[number])

    def _with_length(self, number: int) -> str:
        return f"{self.address(number)}/{ipaddress.IPv4Network(self.subnet).prefixlen}"

    def _quiet(self, link: str) -> list[str]:
        return [f"link set dev {link} addrgenmode none"] if self.ipv6 else []

    # -- for `ip -batch -` --------------------------------------------------------------------------------------------

    def bridge_lines(self) -> list[str]:
        name = self.bridge
        return [
            f"link add name {name} address {_mac(self.address(GATEWAY))} type bridge",
            *self._quiet(name),
            f"address add {self._with_length(GATEWAY)} dev {name}",
            f"link set dev {name} up",
        ]

    def cable_lines(self, number: int) -> list[str]:
        """From the bridge into the namespace, which exists."""
        name = self.link(number)
        peer = f"peer name {INSIDE} address {_mac(self.address(number))} netns {name}"
        return [
            f"link add name {name} type veth {peer}",
            *self._quiet(name),
            f"link set dev {name} master {self.bridge} up",
        ]

    def joining_lines(self, numbers: Iterable[int]) -> list[str]:
        """Ends of cables that are there, to a bridge that is new."""
        return [f"link set dev {self.link(number)} master {self.bridge} up" for number in numbers]

    def inside_lines(self, number: int) -> list[str]:
        """In the namespace."""
        return [
            "link set dev lo up",
            *self._quiet(INSIDE),
            f"address add {self._with_length(number)} dev {INSIDE}",
            f"link set dev {INSIDE} up",
            f"route add default via {self.address(GATEWAY)}",
        ]

    # -- for `nft -f -` -----------------------------------------------------------------------------------------------

    def rules(self, endpoints: Iterable[Endpoint]) -> str:
        """The table as it is to be, whatever it was.

        A published port is that of every address of the host, from outside, from the host itself and from containers:
        the first packet is sent on to the container, answers follow it. The container sees the true sender, but for two
        who would be answered past the host: itself and its neighbours, and 127.0.0.1. What nobody asked for and is not
        for a published port does not reach the bridge; nothing leaves it under an address that is not of the subnet,
        nor gets to what listens on the host's loopback alone.
        """
        published = ", ".join(f"{key} : {target}" for key, target in _elements(endpoints))
        elements = f"\n    elements = {{ {published} }}" if published else ""
        bridge = f'"{self.bridge}"'
        lead = "fib daddr type local dnat ip to meta l4proto . th dport map @published"
        return f"""{self.no_rules()}table ip {self.table} {{
  map published {{
    type inet_proto . inet_service : ipv4_addr . inet_service{elements}
  }}
  chain guard {{
    type filter hook prerouting priority -300; policy accept;
    iifname {bridge} ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{
    type nat hook prerouting priority -100; policy accept;
    {lead}
  }}
  chain output {{
    type nat hook output priority -100; policy accept;
    {lead}
  }}
  chain forward {{
    type filter hook forward priority 0; policy accept;
    iifname {bridge} ip saddr != {self.subnet} drop
    oifname != {bridge} accept
    iifname {bridge} accept
    ct state established,related accept
    ct status dnat accept
    drop
  }}
  chain postrouting {{
    type nat hook postrouting priority 100; policy accept;
    ip saddr {self.subnet} oifname != {bridge} masquerade
    ip saddr {{ {self.subnet}, 127.0.0.0/8 }} oifname {bridge} ct status dnat masquerade
  }}
}}
"""

    def no_rules(self) -> str:
        """No table; it is no error when there was none."""
        return f"add table ip {self.table}\ndelete table ip {self.table}\n"


def _mac(address: str) -> str:
    """Locally administered (IEEE 802: the second bit of the first byte), and no other container's of this network."""
    return "02:6d:" + ":".join(f"{byte:02x}" for byte in ipaddress.IPv4Address(address).packed)


def _elements(endpoints: Iterable[Endpoint]) -> list[tuple[str, str]]:
    found: dict[str, str] = {}
    for endpoint in sorted(endpoints, key=lambda one: one.made_ns):
        for mapping in endpoint.ports:
            key = f"{mapping.protocol} . {mapping.host_port}"
            found[key] = f"{endpoint.address} . {mapping.container_port}"
    return list(found.items())


def free_number(subnet: str, taken: Collection[int], last: int) -> int | None:
    """The next free address after `last`, round and round: one that was just given back is the last to be given out,
    for whoever spoke with its owner may not have noticed yet. None: all are taken."""
    end = ipaddress.IPv4Network(subnet).num_addresses - 1  # the broadcast address
    count = end - FIRST
    for step in range(1, count + 1):
        number = FIRST + (last - FIRST + step) % count
        if number not in taken:
            return number
    return None


def overlap(subnet: str, routes: Iterable[tuple[str, str]], own: str) -> str:
    """The (destination, device) of the host that our subnet would take packets from, as text; empty: none. The default
    route is no such, nor are those of `own` device."""
    ours = ipaddress.IPv4Network(subnet)
    for destination, device in routes:
        try:
            network = ipaddress.IPv4Network(destination, strict=False)
        except ValueError:
            continue  # `default`
        if network.prefixlen and device != own and network.overlaps(ours):
            return f"{destination} dev {device}" if device else destination
    return ""


def resolver(own: str, upstream: str) -> str:
    """The resolv.conf of a container, by its host's `own`; `upstream`: what a resolver on the host's loopback, which no
    container reaches, asks itself (systemd-resolved keeps it so). Empty: no server is known that it could ask."""
    for text in (own, upstream):
        kept: list[str] = []
        servers = 0
        for line in text.splitlines():
            words = line.split()
            if words[:1] == ["nameserver"]:
                if len(words) < 2 or _is_loopback(words[1]) or servers == MAX_NAMESERVERS:
                    continue
                servers += 1
            kept.append(line)
        if servers:
            return "\n".join(kept) + "\n"
    return ""


def _is_loopback(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return False


def described(missing: Sequence[str]) -> str:
    """Why there is no bridge on this host, and what to do about it; empty: nothing is missing."""
    if not missing:
        return ""
    packages = {"ip": "iproute2", "nft": "nftables"}
    needed = " ".join(packages[name] for name in missing)
    programs = " and ".join(f"`{name}`" for name in missing)
    return (
        f"network: 'bridge' needs the program{'s' if len(missing) > 1 else ''} {programs}, not found on this agent's "
        f"PATH nor in /usr/sbin and /sbin; install there (Debian, Fedora: {needed}), or choose 'host', 'own' or 'none'"
    )
