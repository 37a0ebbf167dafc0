"""The replicated state machine: log entries in, the registry's state and answers out.

`apply` is total and deterministic: every replica that applies the same entries has the same state and would give the
same answers. What cannot be applied has a refusal as its outcome, never an exception; only what a newer release has
written stops the replica, for guessing would make it differ from the others.

A proposal that is repeated is applied once: its outcome is remembered by client and number for a bounded time (Raft
paper, section 8). A proposal of another term than its entry's is refused: it is the word of a leader that is none.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import msgspec

from mesos_actor.actors.core import registry
from mesos_actor.actors.core.registry import AnyClusterRecord, Applied, NotApplied, RegistryState, key_of
from mesos_actor.actors.errors import StorageError
from mesos_actor.actors.ids import OperationId, Term
from mesos_actor.actors.messages.registry import ClusterRecords, Command, FoundCluster, ReplaceMember

FORMAT_VERSION = 1
"""Of proposals and images. A newer one stops the replica."""
MAX_CLIENTS = 64
"""Clients (terms of masters) whose outcomes are remembered; the one that proposed least recently is forgotten."""
MAX_OUTCOMES = 1_024
"""Outcomes remembered for each; a repeat of an older proposal is refused as `expired`."""
MAX_REQUESTS = 10_000
"""Wishes whose outcomes are remembered, whoever led; the oldest is forgotten. A copy waits for seconds at most."""
MAX_DIGITS = 18
"""Of a proposal's number: more do not fit into a snapshot."""
PROPOSAL = b"\x00"
"""First byte of an entry with a proposal; pysyncobj's no-op is another."""


class Proposal(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What an entry holds. `operation_id` is `<client>-P<number>`; any other is never recognised as a repeat."""

    operation_id: OperationId
    term: Term
    command: Command
    request_id: str = ""
    """As in Propose."""
    version: int = FORMAT_VERSION


class Outcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of a proposal: the keys it changed and dropped, or why it was refused."""

    keys: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reason: str = ""
    text: str = ""


class Client(msgspec.Struct, frozen=True, array_like=True):
    """The outcomes of one client, by number, oldest first."""

    name: str
    outcomes: tuple[tuple[int, Outcome], ...]


class Image(msgspec.Struct, frozen=True):
    """The whole state, as a snapshot holds it."""

    records: ClusterRecords
    clients: tuple[Client, ...] = ()
    requests: tuple[tuple[str, Outcome], ...] = ()
    """The outcomes of wishes, oldest first."""
    size_bytes: int | None = None
    """RegistryState.size_bytes; None: the state did not begin as a replica's."""
    version: int = FORMAT_VERSION


class Result(msgspec.Struct, frozen=True, gc=False):
    """The answer to the proposal of an entry."""

    operation_id: OperationId
    outcome: Applied | NotApplied


_ENCODER = msgspec.msgpack.Encoder()
_PROPOSALS = msgspec.msgpack.Decoder(Proposal)
_IMAGES = msgspec.msgpack.Decoder(Image)
_VERSIONS = msgspec.msgpack.Decoder(msgspec.defstruct("Versioned", [("version", int, FORMAT_VERSION)]))


def encode_proposal(proposal: Proposal) -> bytes:
    """The data of a log entry."""
    return PROPOSAL + _ENCODER.encode(proposal)


def decode_proposal(data: bytes) -> Proposal | None:
    """The proposal of an entry; None for a new leader's no-op. Raises StorageError for what this release cannot
    read."""
    if data[:1] != PROPOSAL:
        return None
    try:
        proposal = _PROPOSALS.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(_newer(f"a command that this release cannot read ({error})")) from error
    if proposal.version > FORMAT_VERSION:
        raise StorageError(_newer(f"commands of version {proposal.version}, and this release knows {FORMAT_VERSION}"))
    return proposal


def encode_image(image: Image) -> bytes:
    """The state of a snapshot."""
    return _ENCODER.encode(image)


class Machine:
    """The registry's state with what is needed to recognise repeats."""

    def __init__(self, max_agents: int = registry.MAX_AGENTS, max_frameworks: int = registry.MAX_FRAMEWORKS) -> None:
        self.max_agents = max_agents
        self.max_frameworks = max_frameworks
        self.state = RegistryState(max_agents, max_frameworks)
        #: client -> number -> outcome, each oldest first
        self._clients: OrderedDict[str, OrderedDict[int, Outcome]] = OrderedDict()
        #: wish -> outcome, oldest first
        self._requests: OrderedDict[str, Outcome] = OrderedDict()

    def apply(self, term: int, data: bytes) -> Result | None:
        """Make an entry of `term` part of the state; the answer to its proposal, None for a no-op."""
        proposal = decode_proposal(data)
        if proposal is None:
            return None
        if proposal.term != term:
            text = f"Proposed in term {proposal.term}, but it came into the log in term {term}"
            return Result(proposal.operation_id, NotApplied("stale-term", text))
        client, number = _client_of(proposal.operation_id)
        known = self._clients.get(client)
        if known is not None and number in known:
            return Result(proposal.operation_id, self._again(known[number]))
        if known and number < next(iter(known)) and len(known) >= MAX_OUTCOMES:
            text = "This operation was proposed so long ago that its outcome is forgotten"
            return Result(proposal.operation_id, NotApplied("expired", text))
        fulfilled = self._requests.get(proposal.request_id)
        if fulfilled is not None:
            return Result(proposal.operation_id, self._again(fulfilled))
        outcome = registry.apply(self.state, proposal.command)
        if isinstance(outcome, Applied):
            kept = Outcome(tuple(key_of(record) for record in outcome.records), outcome.removed)
        else:
            kept = Outcome(reason=outcome.reason, text=outcome.text)
        if client:
            self._remember(client, number, kept)
        if proposal.request_id:
            self._requests[proposal.request_id] = kept
            if len(self._requests) > MAX_REQUESTS:
                self._requests.popitem(last=False)
        return Result(proposal.operation_id, outcome)

    def _remember(self, client: str, number: int, kept: Outcome) -> None:
        mine = self._clients.setdefault(client, OrderedDict())
        self._clients.move_to_end(client)
        mine[number] = kept
        if len(mine) > MAX_OUTCOMES:
            mine.popitem(last=False)
        if len(self._clients) > MAX_CLIENTS:
            self._clients.popitem(last=False)

    def _again(self, outcome: Outcome) -> Applied | NotApplied:
        """The answer to a repeat: the records as they stand now."""
        if outcome.reason:
            return NotApplied(outcome.reason, outcome.text)
        found = tuple(record for key in outcome.keys if (record := self.record(key)) is not None)
        return Applied(found, outcome.removed)

    def record(self, key: str) -> AnyClusterRecord | None:
        """The record kept under `key` (core.registry.key_of)."""
        kind, _, name = key.partition("/")
        state = self.state
        table = {
            "agent": state.agents,
            "framework": state.frameworks,
            "weight": state.weights,
            "member": state.members,
        }.get(kind)
        if table is None:
            return state.cluster
        found: AnyClusterRecord | None = table.get(name)  # type: ignore[attr-defined]
        return found

    def disk_of(self, member: str) -> str:
        """The storage id on record for a master; empty when none is."""
        found = self.state.members.get(member)
        return "" if found is None else found.storage_id

    def image(self) -> bytes:
        """The whole state, for a snapshot."""
        clients = tuple(Client(name, tuple(mine.items())) for name, mine in self._clients.items())
        return encode_image(Image(self.state.records(), clients, tuple(self._requests.items()), self.state.size_bytes))

    def restore(self, image: bytes) -> None:
        """Become what `image` says. Raises StorageError, unchanged, for what this release cannot read."""
        try:
            version = _VERSIONS.decode(image).version  # type: ignore[attr-defined]
            if version > FORMAT_VERSION:
                raise StorageError(_newer(f"a snapshot of version {version}, and this release knows {FORMAT_VERSION}"))
            found = _IMAGES.decode(image)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(_newer(f"a snapshot that this release cannot read ({error})")) from error
        self.restore_records(found.records, found.size_bytes)
        self._clients = OrderedDict((client.name, OrderedDict(client.outcomes)) for client in found.clients)
        self._requests = OrderedDict(found.requests)

    def restore_records(self, records: ClusterRecords, size_bytes: int | None = None) -> None:
        """Become what these records say, with no repeats known."""
        kept = {key_of(record): record for record in records}
        self.state = RegistryState.load(kept, self.max_agents, self.max_frameworks, size_bytes)
        self._clients = OrderedDict()
        self._requests = OrderedDict()


class NamedDisks(NamedTuple):
    """What an entry says of which disk (storage id) speaks for which master. `founding`: of all of them, the first."""

    disks: dict[str, str]
    founding: bool


def disks_named_in(data: bytes) -> NamedDisks | None:
    """Of an entry that changes which disks speak; None for all others."""
    proposal = decode_proposal(data)
    match proposal.command if proposal is not None else None:
        case FoundCluster() as founded:
            return NamedDisks(dict(founded.members), founding=True)
        case ReplaceMember() as replaced:
            return NamedDisks({replaced.name: replaced.storage_id}, founding=False)
        case _:
            return None


def _client_of(operation_id: OperationId) -> tuple[str, int]:
    client, _, number = operation_id.rpartition("-P")
    numbered = number.isascii() and number.isdecimal() and len(number) <= MAX_DIGITS
    return (client, int(number)) if client and numbered else ("", 0)


def _newer(what: str) -> str:
    return f"the registry holds {what}: it was written by a newer release; run that release on this master"
