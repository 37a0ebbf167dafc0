"""Simulated machines with a master: its process, its replica of the registry, and that replica's disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mesos_actor.actors.ids import Address
from mesos_actor.actors.master import Master
from mesos_actor.raft.directory import Start
from mesos_actor.raft.files import MemoryFiles
from mesos_actor.raft.journal import read_identity
from mesos_actor.raft.node import RegistryPort
from mesos_actor.raft.replica import Replica

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster


class SimMaster:
    """A machine with a master and its replica of the registry: `host` is the process, `host.files` the replica's
    disk."""

    def __init__(self, sim: SimCluster, name: str, number: int, count: int, make: Callable[[], Master]) -> None:
        self.name = name
        self.member = f"10.0.0.{number + 1}:5050"
        self._members = tuple(f"10.0.0.{n + 1}:5050" for n in range(count))
        self._settings = sim.registry_settings
        self._how: Start = "initialize"
        self.applied: list[tuple[int, int, bytes]] = []
        """(index, term, data) of every entry that any of its processes has applied, in order."""
        self.newest_term = 0
        """The newest term of these: whoever leads in it has applied an entry of it before it acts."""
        self.host = sim.world.add_host(name, node=f"tcp://{self.member}")
        self.host.add_port("registry", self._open)
        self.host.spawn("master", make)

    def _open(self) -> RegistryPort:
        how = "open" if read_identity(self.host.files) is not None else self._how
        return RegistryPort(
            self.host.open_files, self.member, self._members, how, settings=self._settings, observe=self._observe
        )

    def _observe(self, index: int, term: int, data: bytes) -> None:
        self.applied.append((index, term, data))
        self.newest_term = max(self.newest_term, term)

    @property
    def address(self) -> Address:
        return Address(f"tcp://{self.member}/master")

    @property
    def up(self) -> bool:
        """Whether its master lives."""
        process = self.host.process
        return process is not None and "master" in process.cells and process.cells["master"].actor is not None

    @property
    def actor(self) -> Master:
        """The living master. Raises LookupError while its host is down."""
        found = self.host.actor("master")
        assert isinstance(found, Master)
        return found

    @property
    def replica(self) -> Replica:
        """The living replica. Raises LookupError while its host is down."""
        found = self.host.port("registry")
        assert isinstance(found, RegistryPort)
        return found.replica

    @property
    def leads(self) -> bool:
        return self.up and self.actor.leading

    def crash(self) -> None:
        """kill -9."""
        self.host.crash()

    def start(self) -> None:
        self.host.start()

    def stop(self) -> None:
        """SIGTERM."""
        self.host.stop()

    def wipe(self) -> None:
        """Its disk is lost, and it with it; started again, it joins with an empty one (`--replace`)."""
        self.host.crash()
        self.host.files = MemoryFiles()
        self._how = "replace"
