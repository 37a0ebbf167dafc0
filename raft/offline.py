"""A replica's directory while no process has it open: read what survived, or prepare one from a backup."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from mesos_actor.actors.core.registry import AnyClusterRecord
from mesos_actor.actors.errors import ConfigError, InvalidInput, StorageError
from mesos_actor.actors.ids import Term
from mesos_actor.actors.messages.registry import ClusterRecord, ClusterRecords, FrameworkRecord, MemberRecord
from mesos_actor.raft.backup import Backup, digest
from mesos_actor.raft.directory import names_of
from mesos_actor.raft.files import DirectoryFiles, Files
from mesos_actor.raft.journal import Identity, Journal, read_identity, write_identity
from mesos_actor.raft.machine import Image, Machine, encode_image
from mesos_actor.raft.snapshot import Snapshot, SnapshotStore

SEGMENT_BYTES = 8 << 20
ID_GAP = 100_000
"""Agents and frameworks that may have been admitted after the backup: their ids are not given out again."""
FIRST_INDEX = 2
"""Of the state that an imported registry begins with: one after the empty log's."""


def export_directory(path: Path, now_us: int) -> Backup:
    """What the replica in `path` has: its snapshot and every entry of its log, whether it was committed or not. Raises
    StorageError when it is in use or damaged, InvalidInput when there is none or it holds nothing."""
    if not path.is_dir():
        raise InvalidInput(f"{path}: there is no registry here; name the work directory of a stopped master")
    files = DirectoryFiles(path)
    try:
        return _read(path, files, now_us)
    finally:
        files.close()


def _read(path: Path, files: Files, now_us: int) -> Backup:
    identity = read_identity(files)
    if identity is None:
        raise InvalidInput(f"{path}: there is no registry here; name the work directory of a stopped master")
    journal, machine = Journal.open(files, identity, SEGMENT_BYTES), Machine()
    snapshot, fell_back = SnapshotStore(files).load()
    applied, of_term = journal.first_index, 0
    if snapshot is not None:
        machine.restore(snapshot.state)
        applied, of_term = snapshot.index, snapshot.term
    if journal.first_index > applied or (snapshot is None and fell_back):
        raise StorageError(f"{path}: the log begins after entry {journal.first_index}, and no snapshot reaches so far")
    if snapshot is None or journal.term_at(applied) == of_term:
        for data, index, term in journal.entries(journal.first_index + 1, 1 << 62):
            if index > applied:
                machine.apply(term, data)
                applied, of_term = index, term
    # Else it died between keeping the snapshot of a leader and beginning the log anew: that log is void, as it is for
    # the replica itself.
    records = machine.state.records()
    if machine.state.cluster is None:
        raise InvalidInput(f"{path}: this registry was never used; there is nothing to export")
    return Backup(machine.state.cluster.cluster_id, applied, Term(of_term), now_us, records)


def _begun_anew(records: ClusterRecords) -> ClusterRecords:
    """Without the former disks, and with the numbers of the next ids past any that were given out after the backup.
    Frameworks that were away then may have come back: all have their failover time anew."""
    kept: list[AnyClusterRecord] = []
    for record in records:
        if isinstance(record, ClusterRecord):
            numbers = {"next_agent": record.next_agent + ID_GAP, "next_framework": record.next_framework + ID_GAP}
            kept.append(msgspec.structs.replace(record, **numbers))
        elif isinstance(record, FrameworkRecord) and not record.removed:
            kept.append(msgspec.structs.replace(record, deadline_us=0))
        elif not isinstance(record, MemberRecord):
            kept.append(record)
    return tuple(kept)


def import_directory(path: Path, backup: Backup, member: str, members: tuple[str, ...], now_us: int) -> None:
    """Make `path`, which must be empty or missing, the directory of a master of a cluster that begins with `backup`.

    All its masters must be prepared so, from the same backup, before one is started; their disks are new ones, so those
    of the former masters are refused. Its terms begin at the second of the import: agents refuse orders of an older
    term than they have seen, and no cluster has held an election each second of its life. Raises ConfigError when
    something is in `path`, StorageError."""
    if path.exists() and any(path.iterdir()):
        raise ConfigError(f"work_dir: {path} is not empty; a registry is imported into a new directory only")
    me, group = names_of(member, members)
    files = DirectoryFiles(path)
    try:
        identity = Identity(me, group, secrets.token_hex(16), founding=True, base_digest=digest(backup))
        term = max(1, backup.term)
        SnapshotStore(files).save(Snapshot(FIRST_INDEX, term, encode_image(Image(_begun_anew(backup.records)))))
        journal = Journal.create(files, identity, SEGMENT_BYTES)
        journal.setCurrentTerm(max(term, now_us // 1_000_000), None)
        journal.sync()
        journal.reset(FIRST_INDEX, term)
        write_identity(files, identity)
    finally:
        files.close()
