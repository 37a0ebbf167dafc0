"""What must hold of the replicated registry in every simulated run: the five properties of the Raft paper's figure 3
that can be seen from outside, after every event of a master's process; and that its users saw one register.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesos_actor.actors.ids import OperationId
from mesos_actor.actors.messages.raft import Appended, AppendEntries, ChunkTaken, InstallChunk, Vote
from mesos_actor.actors.messages.registry import Committed, Leading, Propose
from mesos_actor.raft.machine import decode_proposal
from mesos_actor.transport.sim.invariants import ClusterInvariant
from mesos_actor.transport.sim.world import Event

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster
    from mesos_actor.transport.sim.masters import SimMaster

_STEPS = ("port_timer", "start", AppendEntries, Appended, InstallChunk, ChunkTaken, Vote, Propose, Committed, Leading)


class OneLeaderATerm(ClusterInvariant):
    """Election safety: no two replicas ever lead in the same term."""

    name = "one-leader-a-term"
    looks_at = _STEPS

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        #: term -> the host that led in it
        self._leaders: dict[int, str] = {}

    def look(self, event: Event) -> None:
        for master in self.sim.masters:
            if master.name == event.host and master.up:
                engine = master.replica.engine
                if engine.leads and self._leaders.setdefault(engine.term, event.host) != event.host:
                    self.fail(f"{event.host} and {self._leaders[engine.term]} both lead in term {engine.term}")


class OneHistory(ClusterInvariant):
    """State machine safety and leader completeness: what one replica has applied at an index, every other applies
    there; what was acknowledged stays, and every later leader has it before it acts."""

    name = "one-history"
    looks_at = _STEPS

    def __init__(self, sim: SimCluster) -> None:
        super().__init__(sim)
        #: index -> (term, data, who applied it first)
        self._applied: dict[int, tuple[int, bytes, str]] = {}
        #: host -> how much of its `applied` was compared
        self._seen: dict[str, int] = {}
        #: index -> the operation that was answered as committed there
        self._acknowledged: dict[int, OperationId] = {}
        #: term -> the last index of it that was
        self._last_acknowledged: dict[int, int] = {}

    def look(self, event: Event) -> None:
        for master in self.sim.masters:
            if master.name == event.host:
                self._compare(master)
        message = event.message
        if isinstance(message, Committed) and event.sender == "/registry":
            self._acknowledge(message)
        elif isinstance(message, Leading) and event.sender == "/registry":
            self._judge_leader(event.host, message)

    def _compare(self, master: SimMaster) -> None:
        seen = self._seen.get(master.name, 0)
        for index, term, data in master.applied[seen:]:
            first = self._applied.setdefault(index, (term, data, master.name))
            if first[:2] != (term, data):
                self.fail(
                    f"entry {index} is {data[:60]!r} of term {term} for {master.name}, and was {first[1][:60]!r} of "
                    "term "
                    f"{first[0]} for {first[2]}"
                )
        self._seen[master.name] = len(master.applied)

    def _acknowledge(self, message: Committed) -> None:
        self._acknowledged[message.index] = message.operation_id
        self._judge_acknowledged(message.index)
        term = self._applied[message.index][0]
        self._last_acknowledged[term] = max(self._last_acknowledged.get(term, 0), message.index)

    def _judge_acknowledged(self, index: int) -> None:
        operation_id = self._acknowledged[index]
        found = self._applied.get(index)
        proposal = decode_proposal(found[1]) if found is not None else None
        if proposal is None or proposal.operation_id != operation_id:
            self.fail(f"{operation_id} was acknowledged as entry {index}, and that is {proposal}")

    def _judge_leader(self, host: str, message: Leading) -> None:
        """(It may be news of yesterday: what later terms have acknowledged is not asked of it.)"""
        needed = max((last for term, last in self._last_acknowledged.items() if term <= message.term), default=0)
        for master in self.sim.masters:
            if master.name == host and master.up and master.replica.engine.applied_index < needed:
                self.fail(
                    f"{host} leads in term {message.term} and knows of {master.replica.engine.applied_index} "
                    f"entries, but entry {needed} was acknowledged"
                )

    def finish(self) -> None:
        """Acknowledged operations are in the history once each; replicas that have applied the same have the same."""
        for index in self._acknowledged:
            self._judge_acknowledged(index)
        images: dict[int, tuple[bytes, str]] = {}
        for master in self.sim.masters:
            if master.up:
                replica = master.replica
                first = images.setdefault(replica.engine.applied_index, (replica.machine.image(), master.name))
                if first[0] != replica.machine.image():
                    self.fail(f"{master.name} and {first[1]} have applied the same entries and differ")


class RegistryIsLinearizable(ClusterInvariant):
    """What its users wrote and read, a register for each role, could have happened one call at a time, each at a moment
    between its begin and its end (Herlihy and Wing 1990)."""

    name = "registry-is-linearizable"

    def finish(self) -> None:
        if problem := self.sim.asked.contradiction():
            self.fail(problem)


REGISTRY = (OneLeaderATerm, OneHistory, RegistryIsLinearizable)
"""What `cluster` watches besides."""
