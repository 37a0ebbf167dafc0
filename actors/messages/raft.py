"""Between the replicas of the registry (mailbox `registry` of each master's process), and from operators to a replica.

What travels between replicas carries an `Origin`: whose disk speaks, of which cluster, in which term. A replica acts on
nothing that does not come from a member's address with the cluster's key. Any of these may be lost, doubled, late or
out of order; raft/replica.py needs nothing of the link. (Names and fields: Raft paper, figures 2 and 13; dissertation
9.6.)
"""

from __future__ import annotations

import msgspec

from mesos_actor.actors.ids import Address, ClusterId, OperationId, Term
from mesos_actor.actors.messages.base import Message, Value


class Origin(Value, frozen=True):
    """`cluster_id` is empty while the sender does not know it yet; `storage_id` names its disk, not its host."""

    cluster_id: ClusterId
    storage_id: str
    term: Term


class LogEntry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One entry of the log."""

    index: int
    term: Term
    data: bytes


class RequestVote(Message, frozen=True):
    """May I lead in the term of `origin`? `pre`: only a question (dissertation 9.6): nobody's term changes. `transfer`:
    the leader itself asked for this election, so that it does not protect itself."""

    origin: Origin
    last_index: int
    last_term: Term
    pre: bool = False
    transfer: bool = False


class Vote(Message, frozen=True):
    """The answer; `term` is the term that was asked about."""

    origin: Origin
    term: Term
    granted: bool
    pre: bool = False


class AppendEntries(Message, frozen=True):
    """The leader's entries after (`prev_index`, `prev_term`), none for a heartbeat. `round` comes back with the answer
    and says which rounds a majority has confirmed: reads wait for that."""

    origin: Origin
    prev_index: int
    prev_term: Term
    commit_index: int
    round: int
    entries: tuple[LogEntry, ...] = ()


class Appended(Message, frozen=True):
    """`ok`: my log agrees with yours up to `next_index` - 1, safely on disk. Otherwise: go back to `next_index`, or,
    when that is 0, you do not lead in the term of `origin`."""

    origin: Origin
    round: int
    next_index: int
    ok: bool


class InstallChunk(Message, frozen=True):
    """A piece of the leader's snapshot of the entries up to `index`; `checksum` is of the whole."""

    origin: Origin
    round: int
    index: int
    checksum: int
    total_bytes: int
    offset_bytes: int
    data: bytes


class ChunkTaken(Message, frozen=True):
    """So much of the snapshot of `index` is here; go on from there."""

    origin: Origin
    round: int
    index: int
    received_bytes: int


class TakeOver(Message, frozen=True):
    """The leader asks a follower that has everything to be elected now (dissertation 3.10, TimeoutNow)."""

    origin: Origin


class Hello(Message, frozen=True):
    """Who I am, while I found a cluster or replace a lost disk. Whoever gets it answers with its own, `answer` set.

    A member that was initialized takes part only once it knows that all members were: one that finds a cluster whose
    records name another disk under its name has lost its own, and must say so instead of voting."""

    origin: Origin
    members: tuple[str, ...]
    founding: bool
    learner: bool = False
    base_digest: str = ""
    answer: bool = False
    disk: str = ""
    """From a leader to a disk whose word does not count: the one that speaks for that master, as of `index`."""
    index: int = 0
    heard: dict[str, str] = {}
    """From a founder: every master that it has heard of, itself too, with its disk."""
    on_record: bool = False
    """In an answer: the registry says that the disk which has asked speaks for its master."""


# -- from operators -------------------------------------------------------------------------------------------------


class DescribeMember(Message, frozen=True):
    """How does this replica stand? Answer: MemberDescription, about itself, from any replica."""

    operation_id: OperationId


class Peer(Value, frozen=True):
    """What a leader knows of a follower: the last index that is safely there, and how long ago it answered."""

    name: str
    match_index: int
    silent_ms: int


class MemberDescription(Message, frozen=True):
    """`state`: `leader`, `follower`, `candidate`, `founding` (waits for the other members), `learner` (replaces a lost
    disk, has no vote yet). `silent_ms`: how long ago it heard from the leader; -1: never. `peers`: from a leader."""

    operation_id: OperationId
    name: str
    state: str
    origin: Origin
    leader: Address
    first_index: int
    last_index: int
    commit_index: int
    applied_index: int
    snapshot_index: int
    log_bytes: int
    silent_ms: int
    missing: tuple[str, ...] = ()
    """Members that it waits for."""
    peers: tuple[Peer, ...] = ()


class TransferLeadership(Message, frozen=True):
    """Operator, to the leading replica: let the master at `to` (`host:port`; empty: the one that has most) lead.
    Answer: OperationResult once another leads, or with the reason why not."""

    operation_id: OperationId
    to: str = ""


class ReadRegistry(Message, frozen=True):
    """Operator: the whole registry as of now, in pieces; the first with `index` 0, the others with that of the answer.
    From a follower only with `stale`; then as of what it has applied. Answer: RegistryPiece, or Refused."""

    operation_id: OperationId
    stale: bool = False
    index: int = 0
    offset_bytes: int = 0


class RegistryPiece(Message, frozen=True):
    """A piece of the registry as of `index`: JSON text of raft/backup.py in UTF-8. `leader`, `silent_ms`: as in
    MemberDescription; a leader's answer is not older than the question."""

    operation_id: OperationId
    index: int
    total_bytes: int
    offset_bytes: int
    data: bytes
    leader: Address = Address("")
    silent_ms: int = 0
