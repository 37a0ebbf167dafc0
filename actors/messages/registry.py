"""Between a master and the registry of its process: the part of the state that outlives the leader.

The master sends `Propose` and goes on; the answer is `Committed`, `ProposalRefused`, or silence, which the master turns
into "unknown" at a deadline of its own. That a Raft group stands behind these messages, the master does not know. Every
command is deterministic data: the proposer puts the time into it.
"""

from __future__ import annotations

from mesos_actor.actors.ids import Address, AgentId, ClusterId, FrameworkId, OperationId, Role, Term
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.values import AgentInfo, FrameworkInfo

# -- what is kept ---------------------------------------------------------------------------------------------------


class ClusterRecord(Record, frozen=True):
    """Key `cluster`. `next_agent` and `next_framework` are the numbers of the next ids; they never go back."""

    cluster_id: ClusterId
    next_agent: int = 0
    next_framework: int = 0
    key_fingerprint: str = ""
    """Of the cluster's public key; empty for a cluster without keys."""


class MemberRecord(Record, frozen=True):
    """Key `member/<host:port>`: which disk speaks for this master. Another one under its name has lost what it
    promised."""

    name: str
    storage_id: str
    since_us: int = 0


class AgentRecord(Record, frozen=True):
    """Key `agent/<id>`. `state`: `admitted`, `unreachable` or `gone`."""

    agent_id: AgentId
    info: AgentInfo
    registration: str
    state: str = "admitted"
    since_us: int = 0


class FrameworkRecord(Record, frozen=True):
    """Key `framework/<id>`. `deadline_us` 0: connected when last heard of; else removed when the wall clock passes it.
    `removed`: kept for a bounded time, so that a removed framework that comes back is told so."""

    framework_id: FrameworkId
    info: FrameworkInfo
    deadline_us: int = 0
    removed: bool = False
    since_us: int = 0
    operation_id: OperationId = OperationId("")
    """The operation that admitted it: a repeated Subscribe gets the same id."""
    outcome: str = ""
    """How it ended, in its own words, once removed."""


class WeightRecord(Record, frozen=True):
    """Key `weight/<role>`. Thousandths: 1000 is the default weight of 1."""

    role: Role
    weight_milli: int


ClusterRecords = tuple[ClusterRecord | MemberRecord | AgentRecord | FrameworkRecord | WeightRecord, ...]

# -- commands: what may be proposed ---------------------------------------------------------------------------------


class FoundCluster(Message, frozen=True):
    """The first command of all, by the first leader; and the first after the registry was restored from a backup, whose
    cluster id it keeps. `members`: (name, storage id) each; they take the place of those known before."""

    cluster_id: ClusterId
    members: tuple[tuple[str, str], ...]
    key_fingerprint: str
    now_us: int


class ReplaceMember(Message, frozen=True):
    """The master of that name has another disk from now on."""

    name: str
    storage_id: str
    now_us: int


class AdmitAgent(Message, frozen=True):
    """A new agent gets the next id; a repeated `registration` gets the id it already has."""

    info: AgentInfo
    registration: str
    now_us: int


class UpdateAgent(Message, frozen=True):
    """An agent came back, from unreachable too, or changed its info."""

    agent_id: AgentId
    info: AgentInfo
    now_us: int


class MarkUnreachable(Message, frozen=True):
    """An agent did not answer for too long; it may come back."""

    agent_id: AgentId
    now_us: int


class MarkGone(Message, frozen=True):
    """Banned for ever: this id may never register again."""

    agent_id: AgentId
    now_us: int


class RemoveAgent(Message, frozen=True):
    """It said goodbye."""

    agent_id: AgentId


class AdmitFramework(Message, frozen=True):
    """A new framework gets the next id, unless `operation_id` was seen before."""

    info: FrameworkInfo
    operation_id: OperationId
    now_us: int


class UpdateFramework(Message, frozen=True):
    """It subscribed again (`deadline_us` 0), changed its info, or disconnected (`deadline_us` set)."""

    framework_id: FrameworkId
    info: FrameworkInfo
    deadline_us: int = 0


class RemoveFramework(Message, frozen=True):
    """It was torn down, or its failover deadline has passed."""

    framework_id: FrameworkId
    now_us: int
    outcome: str = ""


class SetWeight(Message, frozen=True):
    """A role counts for so much from now on."""

    role: Role
    weight_milli: int


class CollectRecords(Message, frozen=True):
    """Forget what is older than `before_us`: unreachable agents and removed frameworks."""

    before_us: int


Command = (
    FoundCluster
    | ReplaceMember
    | AdmitAgent
    | UpdateAgent
    | MarkUnreachable
    | MarkGone
    | RemoveAgent
    | AdmitFramework
    | UpdateFramework
    | RemoveFramework
    | SetWeight
    | CollectRecords
)

# -- the port -------------------------------------------------------------------------------------------------------


class Propose(Message, frozen=True):
    """Make `command` part of the state, if `term` is still the leader's. The operation id makes a repeat harmless.
    `request_id` names the wish behind it, whichever master it was told: it is carried out once, also when a copy of it
    reaches a later leader."""

    operation_id: OperationId
    term: Term
    command: Command
    request_id: str = ""


class Committed(Message, frozen=True):
    """It is safe. `records` are the records it changed, as they now are; `removed` the keys it dropped."""

    operation_id: OperationId
    index: int
    records: ClusterRecords = ()
    removed: tuple[str, ...] = ()


class ProposalRefused(Message, frozen=True):
    """It changed nothing. Reasons: `not-leading`, `stale-term`, `unknown-agent`, `unknown-framework`, `gone`,
    `removed`, `invalid`, `full`, `storage`."""

    operation_id: OperationId
    reason: str
    text: str
    leader: Address = Address("")


class Leading(Message, frozen=True):
    """You lead from now on, in this term, and this is the state: all that was ever committed."""

    term: Term
    cluster_id: ClusterId
    records: ClusterRecords = ()


class Following(Message, frozen=True):
    """You do not lead. `leader` is the address of the master that does, empty when unknown."""

    term: Term
    leader: Address = Address("")
