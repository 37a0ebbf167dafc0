"""One process of the cluster, put together from its settings: a master, an agent, or both.

The only place that knows which actors, ports, store and transport make a master or an agent.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mesos_actor._version import __version__
from mesos_actor.actors.actor import ActorLike
from mesos_actor.actors.config import Part, StartConfig, load_config, own_hosts, own_master, part_of
from mesos_actor.actors.config_values import host_and_port, master_addresses
from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import ConfigError, InternalError, MesosActorError, SecurityError, StorageError
from mesos_actor.actors.ids import Address, ContainerId, Principal, address, node_of
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import ForgetContainer, RecoverContainers
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.runtime import Runtime, RuntimeSettings
from mesos_actor.actors.store import SqliteStore
from mesos_actor.transport.security import Keys, load_keys, user_key, user_key_dir
from mesos_actor.transport.transport import Deliver, LinkLost
from mesos_actor.transport.zmq import ZmqTransport

if TYPE_CHECKING:
    from mesos_actor.isolation.choice import Choice
    from mesos_actor.isolation.containerizer import Containerizer
    from mesos_actor.raft.directory import Start
    from mesos_actor.raft.node import RegistryPort

STORE_FILE = "state.sqlite3"
REGISTRY_DIRECTORY = "registry"
LOOPBACK = "127.0.0.1"
GC_AFTER = 50_000
"""Objects made, less those freed, before the collector looks for cycles."""
KEY_TROUBLE = ("handshakes_failed", "refused.by-peer")
"""What the transport reports when the other side has another key, or none."""
PACE_MS = 8
PACE_ABOVE = {"master": 15, "agent": 30, "both": 45}
"""How long a busy process gathers what arrives, and from how many messages on it is one (RuntimeSettings)."""


class Host:
    """A process to be: `run()` returns its exit status. `ready_file` gets one JSON object when it takes part."""

    def __init__(self, config: StartConfig, ready_file: Path | None = None) -> None:
        self.config = config
        self.ready_file = ready_file
        self.log = Log(json=config.log_json, level=config.log_level)
        self.part: Part = part_of(config, own_hosts(config.masters))
        self.keys = self._keys()
        self.transport: ZmqTransport | None = None
        self.stop_wished = False
        #: Masters of which no failed handshake has been explained yet.
        self._unexplained: set[object] = {node_of(one) for one in master_addresses(config.masters)}

    # -- what follows from the settings -----------------------------------------------------------------------------

    def _on_loopback(self) -> bool:
        if self.config.bind:
            return _is_loopback(self.config.bind)
        return all(_is_loopback(host_and_port("masters", one)[0]) for one in self.config.masters)

    def _keys(self) -> Keys | None:
        """The cluster's keys; None without security, which is said loudly. Raises SecurityError."""
        if self.config.insecure:
            self.log.event(
                "warning",
                "insecure",
                {"text": "NO ENCRYPTION, NO AUTHENTICATION: whoever reaches this port can run anything here"},
            )
            return None
        if self.config.key_dir is not None:
            return load_keys(self.config.key_dir)
        return user_key() if self._on_loopback() else load_keys(user_key_dir())

    def _listen(self, port: int) -> tuple[str, str]:
        """Where to listen, and under which host others reach us: a master's is what the list of masters calls it."""
        if self._on_loopback():
            bind = self.config.bind or LOOPBACK
            return f"tcp://{_bracketed(bind)}:{port}", self.config.advertise or self._listed_host()
        bind = self.config.bind or "0.0.0.0"
        wild = bind in ("0.0.0.0", "::")
        advertise = self.config.advertise or self._listed_host()
        if not advertise and wild:
            advertise = _own_address(self.config.masters)
        return f"tcp://{_bracketed(bind)}:{port}", advertise

    def _listed_host(self) -> str:
        """The host of our own entry in the list of masters, where there are several; else empty."""
        if self.part.role != "master" or len(self.config.masters) < 2:
            return ""
        return _bracketed(
            host_and_port("masters", own_master(self.config, self.part, own_hosts(self.config.masters)))[0]
        )

    # -- putting it together ----------------------------------------------------------------------------------------

    def _open_transport(self, deliver: Deliver, lost: LinkLost) -> ZmqTransport:
        listen, advertise = self._listen(self._remembered_port() or self.part.port)
        try:
            return self._open_at(deliver, lost, listen, advertise)
        except ConfigError:
            if self.part.port != 0 or not self._remembered_port():
                raise
        # Somebody else has taken the port meanwhile; executors that still run will not find us.
        listen, advertise = self._listen(0)
        return self._open_at(deliver, lost, listen, advertise)

    def _remembered_port(self) -> int:
        """The free port that was chosen when this work directory was used last: executors look for the agent there.
        0: a port was asked for, or none was ever chosen."""
        if self.part.port != 0:
            return 0
        try:
            return int(self._port_file().read_text())
        except (OSError, ValueError):
            return 0

    def _port_file(self) -> Path:
        return self._directory() / "port"

    def _open_at(self, deliver: Deliver, lost: LinkLost, listen: str, advertise: str) -> ZmqTransport:
        self.transport = ZmqTransport(
            security=self.keys,
            on_deliver=deliver,
            on_link_lost=lost,
            listen=listen,
            advertise_host=advertise,
            report=self._on_report,
        )
        if self.part.port == 0:
            self._port_file().write_text(self.transport.node.rpartition(":")[2])
        return self.transport

    def _on_report(self, event: str, fields: Mapping[str, object]) -> None:
        """Log what the transport has to say; a key that a master does not share also in words that help."""
        self.log.event("warning", event, fields, actor="transport")
        node = fields.get("node")
        if event not in KEY_TROUBLE or node not in self._unexplained:
            return
        # A master that just ends breaks one handshake as well: the next one tells.
        if event == "handshakes_failed" and fields.get("count") == 1:
            return
        self._unexplained.discard(node)
        self.log.event("error", "not_admitted", {"master": node, "text": self._key_advice()}, actor="transport")

    def _key_advice(self) -> str:
        if self.keys is None:
            return (
                "the handshake failed: this process was started with --insecure, the master without; start it with the "
                "--key-dir that was copied from a master instead"
            )
        return (
            f"the handshake failed: {self.config.key_dir or user_key_dir()} does not hold this master's key; stop this "
            "process and start it with the --key-dir that was copied from a master (is that one --insecure?)"
        )

    def _directory(self) -> Path:
        """What this process keeps, apart from other processes that were given the same work directory."""
        return self.config.work_dir if self.part.role == "both" else self.config.work_dir / self.part.role

    def _check_directory(self) -> None:
        """Raise ConfigError when the work directory was used as something else before: nothing of it would be found."""
        work_dir = self.config.work_dir
        alone = (work_dir / STORE_FILE).exists()
        marks = {"master": work_dir / "master" / REGISTRY_DIRECTORY, "agent": work_dir / "agent" / STORE_FILE}
        apart = [role for role, mark in marks.items() if mark.exists()]
        if alone if self.part.role != "both" else apart:
            was = "a one-host cluster" if alone else " and ".join(apart)
            raise ConfigError(
                f"work_dir: {self.config.work_dir} holds the state of {was}, and this would be "
                f"{'a one-host cluster' if self.part.role == 'both' else self.part.role}; give another --work-dir, or "
                "start it as it was (is MESOS_ACTOR_MASTERS set by mistake?)"
            )

    def _runtime(self) -> Runtime:
        work_dir = self._directory()
        self._check_directory()
        try:
            work_dir.mkdir(parents=True, exist_ok=True, mode=0o711)
            store = None if self.part.role == "master" else SqliteStore(work_dir / STORE_FILE)
        except OSError as error:
            raise ConfigError(
                f"work_dir: {work_dir} cannot be used: {error.strerror}; name a directory this user may write to"
            ) from None
        settings = RuntimeSettings(pace_ms=PACE_MS, pace_above=PACE_ABOVE[self.part.role])
        runtime = Runtime(transport=self._open_transport, store=store, log=self.log, settings=settings)
        if self.part.role in ("master", "both"):
            self._add_master(runtime)
        if self.part.role in ("agent", "both"):
            self._add_agent(runtime, work_dir)
        return runtime

    def _add_master(self, runtime: Runtime) -> None:
        from mesos_actor.actors.core.allocator import DrfAllocator
        from mesos_actor.actors.master import Master

        settings = self.config.master

        def master() -> Master:
            return Master(settings, DrfAllocator(settings.max_outstanding_share_permille))

        runtime.add_port("registry", self._registry())
        runtime.spawn("master", master)

    def _registry(self) -> RegistryPort:
        from mesos_actor.raft.files import DirectoryFiles
        from mesos_actor.raft.node import RegistryPort

        config, directory = self.config, self._directory() / REGISTRY_DIRECTORY
        start: Start = "initialize" if config.initialize else "replace" if config.replace else "open"
        return RegistryPort(
            lambda: DirectoryFiles(directory),
            own_master(config, self.part, own_hosts(config.masters)),
            config.masters,
            "trial" if self.part.role == "both" else start,
            self.keys.fingerprint if self.keys is not None else "",
        )

    def _add_agent(self, runtime: Runtime, work_dir: Path) -> None:
        from mesos_actor.isolation.detect import detect, measure
        from mesos_actor.isolation.sandbox import FileSandbox

        detected = detect(self.config.resources, measure(work_dir), without=sorted(self.config.without))
        for warning in detected.warnings:
            self.log.event("warning", "resources", {"text": warning})

        choice = self._isolation()
        containers = self._containerizer(choice.name, work_dir)
        runtime.add_port("containerizer", KeptKeys(containers, self))
        runtime.add_port("sandbox", FileSandbox(work_dir, containers.is_live))
        runtime.spawn("agent", self._agent_factory(detected.resources, choice), durable=True)

    def _isolation(self) -> Choice:
        """What keeps tasks apart here, said loudly where it is less than people expect. Raises ConfigError."""
        from mesos_actor.isolation.cgroup_host import find
        from mesos_actor.isolation.choice import choose

        asked = self.config.isolation
        missing = () if asked == "process" else find(self.config.cgroup_root).missing
        choice = choose(asked, trial=self.part.role == "both", missing=missing)
        if choice.warning:
            self.log.event("warning", "isolation", {"text": choice.warning})
        return choice

    def _containerizer(self, isolation: str, work_dir: Path) -> Containerizer:
        """The agent's own containerizer, with the others that were asked for beside it. Raises ConfigError."""
        from mesos_actor.isolation.cgroup import CgroupError
        from mesos_actor.isolation.composing import ComposingContainerizer
        from mesos_actor.isolation.containerizer import Surroundings, find

        settings = self.config.agent_settings(Resources())
        surroundings = Surroundings(
            work_dir=work_dir,
            executor_environment=self._executor_environment,
            cgroup_root=self.config.cgroup_root,
            pids_limit=settings.container_pids_limit,
            disk_watch_s=settings.disk_watch_interval_ms / 1_000,
            volume_roots=self.config.volume_roots,
            confine_all=self.config.confine_all,
            images_max_bytes=settings.images_max_bytes,
            container_subnet=self.config.container_subnet,
        )
        names = ("linux" if isolation == "cgroups" else isolation, *self.config.containerizers)
        try:
            made = {name: find(name)(surroundings) for name in names}
        except CgroupError as error:
            raise ConfigError(
                f"isolation: cgroups cannot be used on this host: {error}; or start it with --isolation process, which "
                "keeps no limits"
            ) from None
        return made[names[0]] if len(made) == 1 else ComposingContainerizer(made)

    def _agent_factory(self, resources: Resources, choice: Choice) -> Callable[[], ActorLike]:
        from mesos_actor.actors.agent import Agent

        def agent() -> Agent:
            masters = master_addresses(self.config.masters)
            if self.part.role == "both" and self.transport is not None:
                masters = (address(self.transport.node, "master"),)
            settings = self.config.agent_settings(resources, masters, __version__, choice.name, choice.warning)
            return Agent(settings)

        return agent

    def _executor_environment(self, container_id: ContainerId) -> dict[str, str]:
        """What an executor needs to reach its agent and to be believed."""
        keys = self.transport.authorize_executor(container_id) if self.transport is not None else None
        python = {environment.PYTHON: sys.executable}
        if keys is None:
            return python
        return python | {
            environment.EXECUTOR_KEY: keys.secret.decode(),
            environment.CLUSTER_PUBLIC_KEY: keys.server_public.decode(),
        }

    # -- running ----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Run to the end. Returns 0 after SIGTERM or SIGINT; 1 when it ended for a reason that the log names."""
        try:
            asyncio.run(self._main())
        except (StorageError, InternalError, SecurityError) as error:
            self.log.event("error", "process_failed", {"kind": type(error).__name__, "text": str(error)})
            return 1
        finally:
            self.log.close()
            if self.ready_file is not None:
                self.ready_file.unlink(missing_ok=True)
        return 0 if self.stop_wished else 1

    async def _main(self) -> None:
        runtime = self._runtime()
        loop = asyncio.get_running_loop()
        async with runtime:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._wish_stop, runtime)
            self._tell_ready()
            # What was imported lives for ever, and messages are freed by counting: nothing is won by looking often.
            gc.freeze()
            gc.set_threshold(GC_AFTER)
            await runtime.wait()

    def _wish_stop(self, runtime: Runtime) -> None:
        self.stop_wished = True
        runtime.request_stop()

    def _tell_ready(self) -> None:
        """One line for people, one file for programs: from now on connections are taken."""
        assert self.transport is not None
        where = self.transport.node.removeprefix("tcp://")
        ready = {"address": where, "as": self.part.role, "pid": os.getpid(), "version": __version__}
        for name, variable in sorted(self.config.from_environment().items()):
            self.log.event("info", "setting", {"name": name, "from": variable})
        if self.ready_file is not None:
            partial = self.ready_file.with_name(f"{self.ready_file.name}.{os.getpid()}")
            partial.write_text(json.dumps(ready))
            partial.replace(self.ready_file)
        kind = {"both": "a one-host cluster", "master": "a master", "agent": "an agent"}[self.part.role]
        # An agent takes connections from now on, but takes part only when a master has let it in; the log says so then.
        looking = ", looking for a master" if self.part.role == "agent" else ""
        print(f"ready: {kind} at {where}{looking}", flush=True)


class KeptKeys:
    """The containerizer, before which the keys of executors are kept: those that this agent finds again, or lets go,
    are known to its socket too."""

    def __init__(self, containerizer: Containerizer, host: Host) -> None:
        self._inner = containerizer
        self._host = host
        self.start = containerizer.start
        self.on_flush = containerizer.on_flush
        self.close = containerizer.close

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        transport = self._host.transport
        match message:
            case _ if principal != "local":
                pass  # refused by the containerizer; what a stranger sends must not touch the keys
            case RecoverContainers():
                for container_id in message.executors:
                    self._host._executor_environment(container_id)
            case ForgetContainer() if transport is not None:
                transport.revoke_executor(message.container_id)
            case _:
                pass
        self._inner.on_message(sender, cause, principal, message)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    return False


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def _own_address(masters: tuple[str, ...]) -> str:
    """The address that this host shows to the first master it has a route to, without sending anything."""
    for one in masters:
        host, port = host_and_port("masters", one)
        try:
            family, kind, protocol, _, place = socket.getaddrinfo(host, port or 1, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, kind, protocol) as probe:
                probe.connect(place)
                return _bracketed(str(probe.getsockname()[0]))
        except OSError:
            continue
    raise ConfigError(
        f"advertise: no route to any of {', '.join(masters) or 'no masters'} tells under which address others reach "
        "this host; give it with --advertise"
    )


def main() -> int:
    """`python -m mesos_actor.actors.host OPTIONS`: what `mesos-actor start` becomes, without the command line's own
    memory. OPTIONS is a JSON object of its options; environment and file are read here as well."""
    options = json.loads(sys.argv[1])
    ready_file = options.pop("ready_file", None)
    try:
        return Host(load_config(options), Path(ready_file) if ready_file else None).run()
    except MesosActorError as error:
        print(f"mesos-actor: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1


if __name__ == "__main__":
    sys.exit(main())
