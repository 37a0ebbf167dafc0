"""Containers of network `bridge`: an address of their own, and ports of the host that lead to them.

Everything is made before the launch, in a network namespace that the launcher's child then joins: a container that runs
has its network, and one whose network cannot be had never runs. What it needs is recorded first, made then, and taken
back in reverse, so that whatever a dead agent left is found. The bridge is there while somebody is at it; when the last
container goes, nothing of it is left on the host but `ip_forward`, which others may have come to rely on.

Comes before RootIsolator, which asks it by `joined` for what the container is to join. For agents of root alone: the
links and rules are the host's.

Mesos: isolators network/cni (with CNI's bridge and portmap plugins), network/port_mapping.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from mesos_actor.actors.core import environment
from mesos_actor.actors.core.container_network import (
    BRIDGE,
    DEFAULT_SUBNET,
    parse_subnet,
    ports_error,
    ports_text,
    published_error,
)
from mesos_actor.actors.core.container_spec import DOCKER
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.isolation.container_records import ContainerRecords
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, IsolatorError, Watch
from mesos_actor.isolation.network_host import NetworkError, NetworkHost
from mesos_actor.isolation.network_plan import FIRST, Endpoint, Plan, described, free_number, resolver

RESOLVER = "/etc/resolv.conf"
UPSTREAM = "/run/systemd/resolve/resolv.conf"
"""What systemd-resolved asks itself (systemd-resolved.service(8))."""
RESOLVER_ENDING = ".resolv"
"""Of the file beside a container's record that is its /etc/resolv.conf."""
_NUMBER = re.compile(r"[0-9a-f]{1,4}")
MAX_NOTES = 100
"""Log lines that wait for the loop; older ones go first."""


class Joined(msgspec.Struct, frozen=True):
    """What a container at the bridge joins and sees."""

    namespace: str
    """The path of its network namespace."""
    resolver: str
    """The host's file that is its /etc/resolv.conf; empty: it keeps what it has."""


class NetworkIsolator(BaseIsolator):
    """`key` tells the agent from others of its host, in 8 hex digits. Raises InvalidInput for a subnet that is none."""

    name = "network"

    def __init__(self, work_dir: Path, key: str, subnet: str = DEFAULT_SUBNET, host: NetworkHost | None = None) -> None:
        try:
            written = str(parse_subnet(subnet))
        except ValueError as problem:
            raise InvalidInput(f"container_subnet: {subnet!r} {problem}") from None
        self._host = NetworkHost() if host is None else host
        self._plan = Plan(key, written, self._host.has_ipv6())
        self._records = ContainerRecords(work_dir / "networks", Endpoint, (RESOLVER_ENDING,))
        #: One change at a time: all share the bridge and the table.
        self._lock = threading.Lock()
        #: Who has an address, or had one that is not taken back yet.
        self._endpoints: dict[ContainerId, Endpoint] = {}
        self._resolvers: dict[ContainerId, str] = {}
        self._last = FIRST - 1
        #: The kernel may have our table.
        self._has_rules = False
        self._watch: Watch | None = None
        self._notes: deque[tuple[str, str, dict[str, str]]] = deque(maxlen=MAX_NOTES)

    def start(self, watch: Watch) -> None:
        """Raises OSError when the records cannot be kept."""
        self._watch = watch
        self._records.start()
        self._endpoints = {one.container_id: one for one in self._records.read()}
        self._has_rules = bool(self._endpoints)
        self._last = max((one.number for one in self._endpoints.values()), default=FIRST - 1)
        if missing := self._host.missing():
            watch.log("no_bridge_network", text=described(missing))

    def slow(self, launch: LaunchContainer) -> bool:
        return _is_ours(launch)

    def joined(self, container_id: ContainerId) -> Joined | None:
        """What a container that was prepared joins."""
        endpoint = self._endpoints.get(container_id)
        if endpoint is None:
            return None
        name = self._plan_of(endpoint).link(endpoint.number)
        return Joined(self._host.namespace_path(name), self._resolvers.get(container_id, ""))

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        spec = launch.command.container
        if spec is None or not _is_ours(launch):
            return Contribution()
        if problem := ports_error(spec) or published_error(spec, launch.resources):
            raise IsolatorError("spawn", f"container: {problem}")
        if missing := self._host.missing():
            raise IsolatorError("spawn", described(missing))
        try:
            with self._lock:
                endpoint = self._allot(launch)
                self._make(endpoint)
        except NetworkError as error:
            raise IsolatorError("spawn", f"network: {error}") from None
        except OSError as error:
            raise IsolatorError("spawn", f"network: cannot write {error.filename}: {error.strerror}") from None
        env = {environment.CONTAINER_IP: endpoint.address}
        if endpoint.ports:
            env[environment.PORTS] = ports_text(endpoint.ports)
        return Contribution(env=env)

    def _allot(self, launch: LaunchContainer) -> Endpoint:
        spec = launch.command.container
        assert spec is not None
        if launch.container_id in self._endpoints:  # of a launch that a dead agent had only prepared
            self._take_back(launch.container_id)
        others = [one for one in self._endpoints.values() if one.subnet != self._plan.subnet]
        if others:
            raise NetworkError(
                f"container_subnet: {self._plan.subnet} is new, and {len(others)} containers at this agent's bridge "
                f"are still in {others[0].subnet}: start the agent with that --container-subnet, or wait for them to "
                "end"
            )
        taken = {one.number for one in self._endpoints.values()}
        number = free_number(self._plan.subnet, taken, self._last)
        if number is None:
            raise NetworkError(
                f"container_subnet: all addresses of {self._plan.subnet} are taken by {len(taken)} containers: start "
                "the agent with a wider --container-subnet, or wait for one to end"
            )
        self._last = number
        endpoint = Endpoint(
            container_id=launch.container_id,
            number=number,
            subnet=self._plan.subnet,
            ports=spec.ports,
            made_ns=max(time.time_ns(), 1 + max((one.made_ns for one in self._endpoints.values()), default=0)),
        )
        self._records.write(endpoint.container_id, endpoint)
        self._endpoints[launch.container_id] = endpoint
        return endpoint

    def _make(self, endpoint: Endpoint) -> None:
        plan = self._plan
        if len(self._endpoints) == 1 or not self._host.has_link(plan.bridge):
            self._sweep(endpoint)
            self._host.remove_link(plan.bridge)
            self._lay_bridge(plan, [one.number for one in self._endpoints.values() if one is not endpoint])
        self._host.attach(plan, endpoint.number)
        self._has_rules = True  # even if it fails: a program that hangs may have done it
        self._host.apply(plan.rules(self._endpoints.values()))
        text = resolver(self._host.text(RESOLVER), self._host.text(UPSTREAM))
        if text:
            path = self._records.write_beside(endpoint.container_id, RESOLVER_ENDING, text)
            self._resolvers[endpoint.container_id] = path
        else:
            self._note("no_nameserver", container=endpoint.container_id, text=f"{RESOLVER} names none that it reaches")

    def _lay_bridge(self, plan: Plan, numbers: Sequence[int]) -> None:
        """A bridge for these, whose cables are there if they have not ended meanwhile."""
        if self._host.make_bridge(plan):
            self._note("forwarding_allowed", text="net.ipv4.ip_forward is 1 now, for containers of network bridge")
        self._host.join(plan, numbers)

    def _sweep(self, newest: Endpoint) -> None:
        """Namespaces of ours that no record tells of: somebody emptied the agent's directory."""
        known = {self._plan.link(one.number) for one in self._endpoints.values() if one is not newest}
        for name in self._host.namespaces(self._plan.prefix):
            number = name.removeprefix(self._plan.prefix)
            if name not in known and _NUMBER.fullmatch(number):  # else somebody else's
                self._host.detach(self._plan, int(number, 16))

    def started(self, container_id: ContainerId, pid: int) -> None:
        self._log_notes()

    def cleanup(self, container_id: ContainerId) -> None:
        if container_id not in self._endpoints:
            return
        try:
            with self._lock:
                self._take_back(container_id)
        except NetworkError as error:
            raise IsolatorError("spawn", f"network: {error}") from None
        except OSError as error:
            raise IsolatorError("spawn", f"network: cannot remove {error.filename}: {error.strerror}") from None

    def _take_back(self, container_id: ContainerId) -> None:
        """First its ports, then its place, last the record of it."""
        endpoint = self._endpoints[container_id]
        plan = self._plan_of(endpoint)
        rest = [one for one in self._endpoints.values() if one is not endpoint]
        if rest and endpoint.ports:
            self._host.apply(plan.rules(rest))
        elif not rest and self._has_rules:
            self._host.apply(plan.no_rules())
            self._has_rules = False
        self._host.detach(plan, endpoint.number)
        if not rest:
            self._host.remove_link(plan.bridge)
        self._records.remove(container_id)
        del self._endpoints[container_id]
        self._resolvers.pop(container_id, None)

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        """Everybody has the address and the ports that it had; what is left of others goes by `cleanup`."""
        wanted = set(kept)
        if not wanted.isdisjoint(self._endpoints):
            self._restore()
        return [name for name in tuple(self._endpoints) if name not in wanted]

    def _restore(self) -> None:
        """What the host may have lost while no agent looked: a restart of nftables.service empties all tables."""
        plan = self._plan_of(next(iter(self._endpoints.values())))
        try:
            with self._lock:
                if not self._host.has_link(plan.bridge):
                    self._lay_bridge(plan, [one.number for one in self._endpoints.values()])
                self._host.apply(plan.rules(self._endpoints.values()))
        except (NetworkError, OSError) as error:
            if self._watch is not None:
                self._watch.log("network_not_restored", level="warning", text=str(error))

    def _plan_of(self, endpoint: Endpoint) -> Plan:
        """As it was when the container came: the agent's subnet may be another one since."""
        return msgspec.structs.replace(self._plan, subnet=endpoint.subnet)

    # -- words for the loop -------------------------------------------------------------------------------------------

    def _note(self, event: str, **fields: str) -> None:
        self._notes.append((event, "info", fields))

    def _log_notes(self) -> None:
        while self._notes and self._watch is not None:
            event, level, fields = self._notes.popleft()
            self._watch.log(event, level, **fields)


def _is_ours(launch: LaunchContainer) -> bool:
    spec = launch.command.container
    return spec is not None and spec.network == BRIDGE and spec.type != DOCKER
