"""The replicated part of the state: what a command changes, and nothing else decides it.

`apply` is deterministic: the same commands in the same order give the same state everywhere, because time is part of
the command and nothing is drawn or iterated in an order that differs between processes. A command that is repeated
changes nothing and gives the records as they stand, so whoever asks may ask again.
(Mesos: src/master/registry_operations.cpp)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mesos_actor.actors.ids import (
    AgentId,
    FrameworkId,
    OperationId,
    Role,
    agent_id,
    framework_id,
    role_error,
)
from mesos_actor.actors.messages.base import Record
from mesos_actor.actors.messages.registry import (
    AdmitAgent,
    AdmitFramework,
    AgentRecord,
    ClusterRecord,
    CollectRecords,
    Command,
    FoundCluster,
    FrameworkRecord,
    MarkGone,
    MarkUnreachable,
    MemberRecord,
    RemoveAgent,
    RemoveFramework,
    ReplaceMember,
    SetWeight,
    UpdateAgent,
    UpdateFramework,
    WeightRecord,
)

MAX_AGENTS = 100_000
"""Agents of every state; when full, the longest unreachable one is forgotten (Mesos: --registry_max_agent_count)."""
MAX_FRAMEWORKS = 10_000
"""Frameworks that take part; when full, a new one is refused."""
MAX_REMOVED_FRAMEWORKS = 10_000
"""Removed frameworks remembered; when full, the longest removed is forgotten."""
MAX_WEIGHTS = 10_000
"""Roles with a weight; when full, a new one is refused."""
MAX_WEIGHT_MILLI = 1_000_000_000
MAX_STATE_BYTES = 512 << 20
"""Of all records, encoded: a snapshot must hold them. When full, nothing new is admitted and no info changed."""
MAX_OUTCOME_BYTES = 1_024
"""How much of a framework's last words is kept."""

_GROWING = (AdmitAgent, UpdateAgent, AdmitFramework, SetWeight)
"""Commands that are refused when the state is full. (A framework's update also notes when it went away.)"""
_ENCODER = msgspec.msgpack.Encoder()

AnyClusterRecord = ClusterRecord | MemberRecord | AgentRecord | FrameworkRecord | WeightRecord


class Applied(msgspec.Struct, frozen=True, gc=False):
    """`records` as they stand after the command, `removed` the keys it dropped."""

    records: tuple[AnyClusterRecord, ...] = ()
    removed: tuple[str, ...] = ()


class NotApplied(msgspec.Struct, frozen=True, gc=False):
    """Nothing changed. Reasons: those of ProposalRefused."""

    reason: str
    text: str


def key_of(record: AnyClusterRecord) -> str:
    """Where a record is kept."""
    match record:
        case AgentRecord():
            return f"agent/{record.agent_id}"
        case FrameworkRecord():
            return f"framework/{record.framework_id}"
        case WeightRecord():
            return f"weight/{record.role}"
        case MemberRecord():
            return f"member/{record.name}"
        case ClusterRecord():
            return "cluster"


class RegistryState:
    """Everything that was ever committed and not forgotten. Only `apply` changes it."""

    def __init__(self, max_agents: int = MAX_AGENTS, max_frameworks: int = MAX_FRAMEWORKS) -> None:
        self.max_agents = max_agents
        self.max_frameworks = max_frameworks
        self.max_bytes = MAX_STATE_BYTES
        self.cluster: ClusterRecord | None = None
        self.agents: dict[AgentId, AgentRecord] = {}
        self.frameworks: dict[FrameworkId, FrameworkRecord] = {}
        self.weights: dict[Role, WeightRecord] = {}
        #: name of a master, `host:port` -> its disk
        self.members: dict[str, MemberRecord] = {}
        self.live_frameworks = 0
        self.size_bytes = 0
        """Of all agents, frameworks and weights, encoded."""
        #: registration -> the agent that has it
        self.by_registration: dict[str, AgentId] = {}
        #: operation that admitted it -> framework
        self.by_operation: dict[OperationId, FrameworkId] = {}

    @classmethod
    def load(
        cls,
        kept: Mapping[str, Record],
        max_agents: int = MAX_AGENTS,
        max_frameworks: int = MAX_FRAMEWORKS,
        size_bytes: int | None = None,
    ) -> RegistryState:
        """The state that these records make up. `size_bytes` when it is known: to measure it takes time."""
        state = cls(max_agents, max_frameworks)
        for record in kept.values():
            match record:
                case ClusterRecord():
                    state.cluster = record
                case AgentRecord() | FrameworkRecord() | WeightRecord() | MemberRecord():
                    state._enter(record)
                    state.size_bytes += _size(record) if size_bytes is None else 0
                case _:
                    pass  # not ours: the store of another actor's kind cannot be opened under this name
        state.size_bytes += size_bytes or 0
        return state

    def records(self) -> tuple[AnyClusterRecord, ...]:
        """All of it, agents and frameworks by the age of their ids."""
        cluster = (self.cluster,) if self.cluster is not None else ()
        agents = sorted(self.agents.values(), key=lambda r: _number(r.agent_id))
        frameworks = sorted(self.frameworks.values(), key=lambda r: _number(r.framework_id))
        weights = (self.weights[role] for role in sorted(self.weights))
        members = (self.members[name] for name in sorted(self.members))
        return (*cluster, *members, *agents, *frameworks, *weights)

    def _put(self, record: AgentRecord | FrameworkRecord | WeightRecord | MemberRecord) -> None:
        self.size_bytes += _size(record) - _size(self._known(record))
        self._enter(record)

    def _enter(self, record: AgentRecord | FrameworkRecord | WeightRecord | MemberRecord) -> None:
        match record:
            case AgentRecord():
                self.agents[record.agent_id] = record
                self.by_registration[record.registration] = record.agent_id
            case FrameworkRecord():
                before = self.frameworks.get(record.framework_id)
                self.live_frameworks += (not record.removed) - (before is not None and not before.removed)
                self.frameworks[record.framework_id] = record
                if record.operation_id:
                    self.by_operation[record.operation_id] = record.framework_id
            case WeightRecord():
                self.weights[record.role] = record
            case MemberRecord():
                self.members[record.name] = record

    def _known(self, record: AgentRecord | FrameworkRecord | WeightRecord | MemberRecord) -> AnyClusterRecord | None:
        """What is kept in its place."""
        match record:
            case AgentRecord():
                return self.agents.get(record.agent_id)
            case FrameworkRecord():
                return self.frameworks.get(record.framework_id)
            case WeightRecord():
                return self.weights.get(record.role)
            case MemberRecord():
                return self.members.get(record.name)

    def _drop_agent(self, record: AgentRecord) -> str:
        self.size_bytes -= _size(record)
        del self.agents[record.agent_id]
        if self.by_registration.get(record.registration) == record.agent_id:
            del self.by_registration[record.registration]
        return key_of(record)

    def _drop_framework(self, record: FrameworkRecord) -> str:
        self.size_bytes -= _size(record)
        del self.frameworks[record.framework_id]
        self.live_frameworks -= not record.removed
        self.by_operation.pop(record.operation_id, None)
        return key_of(record)


def apply(state: RegistryState, command: Command) -> Applied | NotApplied:
    """Make `command` part of the state. Before FoundCluster, every other command is refused."""
    if isinstance(command, FoundCluster):
        return _found_cluster(state, command)
    if state.cluster is None:
        return NotApplied("not-founded", "The cluster has not been founded yet")
    if isinstance(command, _GROWING) and state.size_bytes >= state.max_bytes:
        text = (
            f"The registry holds {state.size_bytes} bytes, the most that it may; tear down frameworks or remove agents"
        )
        return NotApplied("full", text)
    return _APPLY[type(command)](state, state.cluster, command)


def _size(record: AnyClusterRecord | None) -> int:
    return 0 if record is None or isinstance(record, MemberRecord) else len(_ENCODER.encode(record))


def _number(text: str) -> tuple[int, str]:
    """Ids sort by age: the number at the end counts, not its digits."""
    digits = text.rpartition("-")[2].lstrip("S")
    return (int(digits) if digits.isascii() and digits.isdigit() else 0, text)


def _oldest(records: Iterable[Any], count: int) -> list[Any]:
    return sorted(records, key=lambda r: (r.since_us, key_of(r)))[:count]


# -- the cluster itself ---------------------------------------------------------------------------------------------


def _found_cluster(state: RegistryState, command: FoundCluster) -> Applied:
    """A repeat, or a restored registry, keeps its id and its numbers; members are those of the command."""
    before = state.cluster or ClusterRecord(command.cluster_id)
    state.cluster = msgspec.structs.replace(before, key_fingerprint=command.key_fingerprint)
    members = tuple(MemberRecord(name, storage_id, command.now_us) for name, storage_id in command.members)
    names = {member.name for member in members}
    removed = tuple(key_of(member) for name, member in sorted(state.members.items()) if name not in names)
    state.members = {member.name: member for member in members}
    return Applied((state.cluster, *members), removed)


def _replace_member(state: RegistryState, _cluster: ClusterRecord, command: ReplaceMember) -> Applied | NotApplied:
    before = state.members.get(command.name)
    if before is None:
        return NotApplied("unknown-member", f"{command.name} is not a master of this cluster")
    if before.storage_id == command.storage_id:
        return Applied((before,))
    changed = MemberRecord(command.name, command.storage_id, command.now_us)
    state._put(changed)
    return Applied((changed,))


# -- agents ---------------------------------------------------------------------------------------------------------


def _admit_agent(state: RegistryState, cluster: ClusterRecord, command: AdmitAgent) -> Applied | NotApplied:
    known = state.by_registration.get(command.registration)
    if known is not None:
        return _update_agent(state, cluster, UpdateAgent(known, command.info, command.now_us))
    removed: tuple[str, ...] = ()
    if len(state.agents) >= state.max_agents:
        forgettable = _oldest((r for r in state.agents.values() if r.state == "unreachable"), 1)
        if not forgettable:
            return NotApplied("full", f"The registry holds {len(state.agents)} agents, the most it may")
        removed = (state._drop_agent(forgettable[0]),)
    new = AgentRecord(
        agent_id(cluster.cluster_id, cluster.next_agent), command.info, command.registration, "admitted", command.now_us
    )
    state._put(new)
    state.cluster = msgspec.structs.replace(cluster, next_agent=cluster.next_agent + 1)
    return Applied((new, state.cluster), removed)


def _known_agent(state: RegistryState, agent: AgentId) -> AgentRecord | NotApplied:
    record = state.agents.get(agent)
    if record is None:
        return NotApplied("unknown-agent", f"Agent {agent} is not known")
    if record.state == "gone":
        return NotApplied("gone", "Agent has been marked gone")
    return record


def _update_agent(state: RegistryState, _cluster: ClusterRecord, command: UpdateAgent) -> Applied | NotApplied:
    record = _known_agent(state, command.agent_id)
    if isinstance(record, NotApplied):
        return record
    if record.state == "admitted" and record.info == command.info:
        return Applied((record,))
    since = record.since_us if record.state == "admitted" else command.now_us
    changed = msgspec.structs.replace(record, info=command.info, state="admitted", since_us=since)
    state._put(changed)
    return Applied((changed,))


def _mark_unreachable(state: RegistryState, _cluster: ClusterRecord, command: MarkUnreachable) -> Applied | NotApplied:
    record = _known_agent(state, command.agent_id)
    if isinstance(record, NotApplied):
        return record
    if record.state != "unreachable":
        record = msgspec.structs.replace(record, state="unreachable", since_us=command.now_us)
        state._put(record)
    return Applied((record,))


def _mark_gone(state: RegistryState, _cluster: ClusterRecord, command: MarkGone) -> Applied | NotApplied:
    record = state.agents.get(command.agent_id)
    if record is None:
        return NotApplied("unknown-agent", f"Agent {command.agent_id} is not known")
    if record.state != "gone":
        record = msgspec.structs.replace(record, state="gone", since_us=command.now_us)
        state._put(record)
    return Applied((record,))


def _remove_agent(state: RegistryState, _cluster: ClusterRecord, command: RemoveAgent) -> Applied | NotApplied:
    record = state.agents.get(command.agent_id)
    if record is None:
        return Applied((), (f"agent/{command.agent_id}",))
    if record.state == "gone":
        return NotApplied("gone", "Agent has been marked gone")
    return Applied((), (state._drop_agent(record),))


# -- frameworks -----------------------------------------------------------------------------------------------------


def _admit_framework(state: RegistryState, cluster: ClusterRecord, command: AdmitFramework) -> Applied | NotApplied:
    known = state.by_operation.get(command.operation_id) if command.operation_id else None
    if known is not None:
        record = state.frameworks[known]
        return NotApplied("removed", "Framework has been removed") if record.removed else Applied((record,))
    if state.live_frameworks >= state.max_frameworks:
        return NotApplied("full", f"The registry holds {state.live_frameworks} frameworks, the most it may")
    new = FrameworkRecord(
        framework_id(cluster.cluster_id, cluster.next_framework),
        command.info,
        since_us=command.now_us,
        operation_id=command.operation_id,
    )
    state._put(new)
    state.cluster = msgspec.structs.replace(cluster, next_framework=cluster.next_framework + 1)
    return Applied((new, state.cluster))


def _update_framework(state: RegistryState, _cluster: ClusterRecord, command: UpdateFramework) -> Applied | NotApplied:
    record = state.frameworks.get(command.framework_id)
    if record is None:
        return NotApplied("unknown-framework", f"Framework {command.framework_id} is not known")
    if record.removed:
        return NotApplied("removed", "Framework has been removed")
    changed = msgspec.structs.replace(record, info=command.info, deadline_us=command.deadline_us)
    state._put(changed)
    return Applied((changed,))


def _remove_framework(state: RegistryState, _cluster: ClusterRecord, command: RemoveFramework) -> Applied | NotApplied:
    record = state.frameworks.get(command.framework_id)
    if record is None:
        return NotApplied("unknown-framework", f"Framework {command.framework_id} is not known")
    if record.removed:
        return Applied((record,))
    outcome = command.outcome.encode("utf-8", "replace")[:MAX_OUTCOME_BYTES].decode("utf-8", "ignore")
    changed = msgspec.structs.replace(record, removed=True, deadline_us=0, since_us=command.now_us, outcome=outcome)
    state._put(changed)
    surplus = len(state.frameworks) - state.live_frameworks - MAX_REMOVED_FRAMEWORKS
    dropped = _oldest((r for r in state.frameworks.values() if r.removed), surplus) if surplus > 0 else []
    return Applied((changed,), tuple(state._drop_framework(r) for r in dropped))


# -- policy and forgetting ------------------------------------------------------------------------------------------


def _set_weight(state: RegistryState, _cluster: ClusterRecord, command: SetWeight) -> Applied | NotApplied:
    if problem := role_error(command.role):
        return NotApplied("invalid", problem)
    if not 0 < command.weight_milli <= MAX_WEIGHT_MILLI:
        return NotApplied(
            "invalid", f"weight_milli {command.weight_milli} must be from 1 to {MAX_WEIGHT_MILLI} thousandths"
        )
    if command.role not in state.weights and len(state.weights) >= MAX_WEIGHTS:
        return NotApplied("full", f"{MAX_WEIGHTS} roles have a weight, the most there may be")
    record = WeightRecord(command.role, command.weight_milli)
    state._put(record)
    return Applied((record,))


def _collect(state: RegistryState, _cluster: ClusterRecord, command: CollectRecords) -> Applied | NotApplied:
    before = command.before_us
    agents = [r for r in state.agents.values() if r.state == "unreachable" and r.since_us < before]
    frameworks = [r for r in state.frameworks.values() if r.removed and r.since_us < before]
    removed = [state._drop_agent(r) for r in agents] + [state._drop_framework(r) for r in frameworks]
    return Applied((), tuple(removed))


_APPLY: dict[type, Callable[[RegistryState, ClusterRecord, Any], Applied | NotApplied]] = {
    ReplaceMember: _replace_member,
    AdmitAgent: _admit_agent,
    UpdateAgent: _update_agent,
    MarkUnreachable: _mark_unreachable,
    MarkGone: _mark_gone,
    RemoveAgent: _remove_agent,
    AdmitFramework: _admit_framework,
    UpdateFramework: _update_framework,
    RemoveFramework: _remove_framework,
    SetWeight: _set_weight,
    CollectRecords: _collect,
}
