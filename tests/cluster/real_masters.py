"""Clusters of several real masters: each one killed, stopped and started again, and asked by itself."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
from pathlib import Path
from typing import Any

from mesos_actor.actors import client
from mesos_actor.actors.client_registry import Standing, describe_masters, leader_of, registry_text
from mesos_actor.actors.errors import Unavailable
from mesos_actor.actors.ids import Role
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.raft import MemberDescription
from mesos_actor.actors.messages.registry import WeightRecord
from mesos_actor.raft.backup import decode_backup
from tests.cluster.real_cluster import LIMIT_S, Cluster, Process, until

ASK_S = 5.0


def quiet_ports(count: int) -> list[int]:
    """Ports that nobody uses, below those that the kernel gives to connections while a master is down."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randrange(20_000, 31_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.add(port)
    return sorted(found)


class Masters(Cluster):
    """Masters are numbered from 1. `form` makes the cluster; agents, tasks and commands as in any other."""

    def __init__(self, directory: Path, keys: Path, count: int = 3) -> None:
        super().__init__(directory, keys)
        self.names = [f"127.0.0.1:{port}" for port in quiet_ports(count)]
        self.masters = ",".join(self.names)
        self.numbers = range(1, count + 1)
        self.work_dirs = {n: directory / f"master-{n}" for n in self.numbers}
        self.processes: dict[int, Process] = {}

    # -- their processes ----------------------------------------------------------------------------------------------

    def form(self) -> int:
        """Start all for the first time; the number of the one that leads."""
        for n in self.numbers:
            self.spawn_one(n, "--initialize")
        return self.until_leader()

    def spawn_one(self, n: int, *arguments: str, **more: Any) -> Process:
        """Start master `n`, without waiting. What `arguments` say goes before what is said here."""
        options = ["--as", "master", "--port", self.names[n - 1].rpartition(":")[2]]
        options += ["--work-dir", str(self.work_dirs[n])]
        self.processes[n] = self.spawn_start(f"master-{n}", *options, *arguments, **more)
        return self.processes[n]

    def start_one(self, n: int, *arguments: str) -> None:
        """Start master `n` again, until it has all that the leader has."""
        self.spawn_one(n, *arguments)
        self.until_caught_up(n)

    def refused(self, n: int, *arguments: str, **more: Any) -> tuple[int, str]:
        """Start master `n`, which must end by itself; its exit status, and what it said since."""
        log = self.directory / f"master-{n}.err"
        before = len(log.read_bytes()) if log.exists() else 0
        ended = self.spawn_one(n, *arguments, **more).ended()
        said = log.read_bytes()[before:].decode()
        assert "Traceback" not in said, said
        return ended.status, said

    def kill(self, n: int) -> None:
        self.processes[n].kill()

    def stop(self, n: int) -> None:
        self.processes[n].signal(signal.SIGSTOP)

    def go_on(self, n: int) -> None:
        self.processes[n].signal(signal.SIGCONT)

    def registry(self, n: int) -> Path:
        """The directory of its registry."""
        return self.work_dirs[n] / "master" / "registry"

    # -- asking -----------------------------------------------------------------------------------------------------

    def description(self, n: int) -> MemberDescription | None:
        """What master `n` says of itself, asked alone; None when it does not answer."""
        with contextlib.suppress(Unavailable):
            for standing in describe_masters(self.names[n - 1], str(self.keys), False, 0.5):
                if standing.name == self.names[n - 1]:
                    return standing.description
        return None

    def state(self, n: int) -> str:
        found = self.description(n)
        return "" if found is None else found.state

    def leading(self, other_than: int = 0) -> MemberDescription | None:
        """What the one says that leads by the newest term, of those whose processes are there."""
        numbers = [n for n in self.numbers if n != other_than and self.is_running(n)]
        return leader_of([Standing("", self.description(n)) for n in numbers])

    def leader(self, other_than: int = 0) -> int:
        """Its number; 0 while there is none."""
        found = self.leading(other_than)
        return 0 if found is None else self.names.index(found.name) + 1

    def until_leader(self, other_than: int = 0) -> int:
        """Wait until one leads, and answers questions."""
        try:
            number = until(lambda: self.leader(other_than), "a master leads")
            until(lambda: self.rows("status"), "it answers")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None
        return number

    def is_running(self, n: int) -> bool:
        return n in self.processes and self.processes[n].is_alive()

    def followers(self) -> list[int]:
        leader = self.until_leader()
        return [n for n in self.numbers if n != leader]

    def until_caught_up(self, n: int) -> None:
        """Wait until master `n` leads, or follows and has applied what the leader has committed."""

        def there() -> bool:
            assert self.is_running(n), f"master {n} ended\n{self.logs()}"
            own = self.description(n)
            leader = self.leading()
            if own is None or leader is None or own.state not in ("leader", "follower"):
                return False
            return own.origin.term == leader.origin.term and own.applied_index >= leader.commit_index

        until(there, f"master {n} has caught up")

    def set_weight(self, role: str, milli: int) -> None:
        message = SetRoleWeight(client.new_id(), Role(role), milli)
        client.order(self.masters, str(self.keys), False, LIMIT_S, message)

    def weights(self, of: int = 0) -> dict[str, int]:
        """All weights as the leader has them; with `of`, as that master has applied them."""
        asked = self.names[of - 1] if of else self.masters
        text = registry_text(asked, str(self.keys), False, LIMIT_S, stale=bool(of))
        return {str(r.role): r.weight_milli for r in decode_backup(text.data).records if isinstance(r, WeightRecord)}

    def active_agents(self) -> list[str]:
        """The ids of the agents that are there, in order."""
        return sorted(row["agent_id"] for row in self.rows("agents") if row["state"] == "active")


def flip(path: Path, at: int) -> None:
    """Turn over the bits of one byte."""
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)
