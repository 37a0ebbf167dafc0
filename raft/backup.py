"""The registry as one file, for backup and restore: a JSON document that people can read and programs can compare.

    {"format": "mesos-actor registry", "version": 1, "cluster_id": ..., "index": ..., "term": ..., "digest": ...,
     "exported_us": ..., "records": [
    {"t": "ClusterRecord", ...},
    ...
    ]}

One record a line, in the order of `RegistryState.records`. `index` and `term` are those of the last log entry that is
in it: of two exports, the one with the higher (term, index) is the newer one. Fields may be added in any release, and
are ignored by an older one, as everywhere (actors/messages/base.py); a record of an unknown kind, or another `version`,
is refused, never guessed at.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, NoReturn

import msgspec

from mesos_actor.actors.core.registry import MAX_WEIGHT_MILLI, AnyClusterRecord, key_of
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ClusterId, Term, agent_id, framework_id, role_error
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    ClusterRecord,
    ClusterRecords,
    FrameworkRecord,
    MemberRecord,
    WeightRecord,
)

FORMAT = "mesos-actor registry"
VERSION = 1
MAX_BACKUP_BYTES = 1 << 30
"""A larger file is refused unread: 100,000 agents with their attributes are about 40 MB."""
AGENT_STATES = ("admitted", "unreachable", "gone")
DIGEST_BYTES = 8
_SHOWN_CHARS = 60

_BAD_DATA = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
_OTHER_FILE = "give a file that `mesos-actor registry export` has written"
_NEWER = "use the release that exported it, or a newer one"
_DAMAGED = "the file is damaged or was edited; use another export"

Natural = Annotated[int, msgspec.Meta(ge=0)]


class Backup(msgspec.Struct, frozen=True):
    """The whole registry as of `index`."""

    cluster_id: ClusterId
    index: Natural
    term: Annotated[Term, msgspec.Meta(ge=0)]
    exported_us: Natural
    records: ClusterRecords
    digest: str = ""
    """Of term and records (see `digest`): what tells that a record was lost or changed on the way."""


class _Header(msgspec.Struct):
    """What is read first: whether the rest can be."""

    format: str = ""
    version: int = 0


_encoder = msgspec.json.Encoder(order="deterministic")
_headers = msgspec.json.Decoder(_Header)
_backups = msgspec.json.Decoder(Backup)


def encode_backup(records: Iterable[AnyClusterRecord], index: int, term: int, now_us: int) -> bytes:
    """The file. Records without a cluster among them are written too, and are refused when read."""
    lines, cluster_id, kept = [], "", list(records)
    for record in kept:
        if isinstance(record, ClusterRecord):
            cluster_id = record.cluster_id
        lines.append(_encoder.encode(record))
    head = {"format": FORMAT, "version": VERSION, "cluster_id": cluster_id, "index": index, "term": term}
    head["digest"] = _digest(term, kept)
    written = msgspec.json.encode({**head, "exported_us": now_us})
    return b'%s,"records":[\n%s\n]}\n' % (written[:-1], b",\n".join(lines))


def decode_backup(data: bytes) -> Backup:
    """What `encode_backup` wrote, checked. Raises InvalidInput with field, value and fix."""
    if len(data) > MAX_BACKUP_BYTES:
        _refuse("size", f"{len(data)} bytes", f"is more than {MAX_BACKUP_BYTES}", _OTHER_FILE)
    try:
        header = _headers.decode(data)
    except _BAD_DATA as error:
        raise InvalidInput(f"backup: {bytes(data[:_SHOWN_CHARS])!r} is no such JSON ({error}); {_OTHER_FILE}") from None
    if header.format != FORMAT:
        _refuse("format", header.format, f"is not {FORMAT!r}", _OTHER_FILE)
    if header.version > VERSION:
        _refuse("version", header.version, f"is newer than this release, which reads {VERSION}", _NEWER)
    if header.version != VERSION:
        _refuse("version", header.version, f"is not {VERSION}", _OTHER_FILE)
    try:
        backup = _backups.decode(data)
    except _BAD_DATA as error:
        raise _unreadable(str(error)) from None
    check(backup)
    if backup.digest != (found := digest(backup)):
        _refuse("digest", backup.digest, f"is not that of the records, {found}", _DAMAGED)
    return backup


def digest(backup: Backup) -> str:
    """16 hex digits that are the same for two backups from which the same cluster would begin: the same records, in any
    order, with the same term."""
    return _digest(backup.term, backup.records)


def _digest(term: int, records: Iterable[AnyClusterRecord]) -> str:
    state = hashlib.blake2b(f"{VERSION} {term}".encode(), digest_size=DIGEST_BYTES)
    for record in sorted(records, key=key_of):
        state.update(b"\n" + _encoder.encode(record))
    return state.hexdigest()


# -- judging --------------------------------------------------------------------------------------------------------


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[: _SHOWN_CHARS - 4] + " ..."


def _refuse(field: str, value: object, problem: str, fix: str) -> NoReturn:
    raise InvalidInput(f"backup: {field}: {_shown(value)} {problem}; {fix}")


def _unreadable(complaint: str) -> InvalidInput:
    """msgspec's words, with the place first: ``Invalid value 'NoRecord' - at `$.records[3].t` ``."""
    match = re.fullmatch(r"(.*) - at `\$\.?(.*)`", complaint, re.DOTALL)
    problem, field = (match[1], match[2]) if match is not None else (complaint, "document")
    if field.endswith(".t") and problem.startswith("Invalid value"):
        kind = problem.removeprefix("Invalid value ")
        return InvalidInput(f"backup: {field}: {kind} is a kind of record that this release does not know; {_NEWER}")
    return InvalidInput(f"backup: {field}: {problem}; {_DAMAGED}")


def check(backup: Backup) -> None:
    """Raise InvalidInput when no registry can have held these records at once."""
    seen = Counter(map(key_of, backup.records))
    for key, count in seen.items():
        if count > 1:
            _refuse("records", key, f"is there {count} times", _DAMAGED)
    cluster = next((record for record in backup.records if isinstance(record, ClusterRecord)), None)
    if cluster is None:
        _refuse("records", sorted(seen), "hold no cluster", "export a registry whose masters have all been started")
    if not cluster.cluster_id or cluster.cluster_id != backup.cluster_id:
        _refuse("cluster_id", backup.cluster_id, f"is not that of the records, {cluster.cluster_id!r}", _DAMAGED)
    if cluster.next_agent < 0 or cluster.next_framework < 0:
        _refuse("next_agent, next_framework", (cluster.next_agent, cluster.next_framework), "are below 0", _DAMAGED)
    _check_agents(cluster, [record for record in backup.records if isinstance(record, AgentRecord)])
    _check_frameworks(cluster, [record for record in backup.records if isinstance(record, FrameworkRecord)])
    for record in backup.records:
        if isinstance(record, WeightRecord):
            _check_weight(record)
        elif isinstance(record, MemberRecord) and not (record.name and record.storage_id):
            _refuse("member", record.name, f"with disk {record.storage_id!r} is none", _DAMAGED)


def _check_agents(cluster: ClusterRecord, agents: list[AgentRecord]) -> None:
    registrations: dict[str, str] = {}
    for record in agents:
        name = record.agent_id
        number = _number(name.removeprefix(f"{cluster.cluster_id}-S"))
        if number is None or name != agent_id(cluster.cluster_id, number):
            _refuse("agent_id", name, f"is none of cluster {cluster.cluster_id}", _DAMAGED)
        if number >= cluster.next_agent:
            _refuse("agent_id", name, f"was not given yet: next_agent is {cluster.next_agent}", _DAMAGED)
        if record.state not in AGENT_STATES:
            _refuse(f"state of agent {name}", record.state, f"is not one of {', '.join(AGENT_STATES)}", _NEWER)
        other = registrations.setdefault(record.registration, name)
        if other != name:
            _refuse("registration", record.registration, f"is that of both {other} and {name}", _DAMAGED)


def _check_frameworks(cluster: ClusterRecord, frameworks: list[FrameworkRecord]) -> None:
    operations: dict[str, str] = {}
    for record in frameworks:
        name = record.framework_id
        number = _number(name.removeprefix(f"{cluster.cluster_id}-"))
        if number is None or name != framework_id(cluster.cluster_id, number):
            _refuse("framework_id", name, f"is none of cluster {cluster.cluster_id}", _DAMAGED)
        if number >= cluster.next_framework:
            _refuse("framework_id", name, f"was not given yet: next_framework is {cluster.next_framework}", _DAMAGED)
        other = operations.setdefault(record.operation_id or name, name)
        if other != name:
            _refuse("operation_id", record.operation_id, f"admitted both {other} and {name}", _DAMAGED)


def _check_weight(record: WeightRecord) -> None:
    if problem := role_error(record.role):
        _refuse("role", record.role, f"has no weight: {problem}", _DAMAGED)
    if not 0 < record.weight_milli <= MAX_WEIGHT_MILLI:
        _refuse(f"weight_milli of {record.role}", record.weight_milli, f"is not from 1 to {MAX_WEIGHT_MILLI}", _DAMAGED)


def _number(digits: str) -> int | None:
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 20 else None
