"""Opening the directory of a replica: begin a new one, take up the one that is there, or refuse to guess."""

from __future__ import annotations

import random
from typing import Literal

import msgspec

from mesos_actor.actors.errors import ConfigError, StorageError
from mesos_actor.raft.files import Files
from mesos_actor.raft.journal import Identity, Journal, read_identity, write_identity
from mesos_actor.raft.segment import HEADER_BYTES, segment_sequences
from mesos_actor.raft.snapshot import SnapshotStore

Start = Literal["open", "initialize", "replace", "trial"]
"""`initialize`: the first start of a new cluster's master. `replace`: an empty disk in place of a lost one. `trial`:
the one-host cluster, which initializes itself when it is new. `open`: any other."""


ALONE = "single"
"""The name of the only member of a group: it may move to another port or host, for nobody else knows it."""


def names_of(me: str, members: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What this replica and all of its group are called, from their `host:port`."""
    return (ALONE, (ALONE,)) if len(members) <= 1 else (me, tuple(sorted(members)))


class Opened(msgspec.Struct, frozen=True):
    """A replica's durable half."""

    identity: Identity
    journal: Journal
    snapshots: SnapshotStore


def open_directory(
    files: Files, me: str, members: tuple[str, ...], start: Start, segment_bytes: int, rng: random.Random
) -> Opened:
    """What is in `files`, or what begins there. Raises ConfigError when `start` or `members` do not fit what is there,
    StorageError when that is damaged or of a newer release."""
    snapshots = SnapshotStore(files)
    identity = read_identity(files)
    if identity is None:
        _clear_half_made(files)
        identity = _begun(me, members, start, rng)
        journal = Journal.create(files, identity, segment_bytes)
        write_identity(files, identity)
        return Opened(identity, journal, snapshots)
    if start in ("initialize", "replace"):
        raise ConfigError(
            f"{start}: the registry of {identity.member} is in this work directory already; leave out --{start}"
        )
    if identity.members != members or identity.member != me:
        raise ConfigError(
            f"masters: this registry belongs to {identity.member} of {','.join(identity.members)}, and was started "
            f"as {me} "
            f"of {','.join(members)}; start it with the list that it was made with, or move it with: mesos-actor "
            "registry "
            "export and import"
        )
    return Opened(identity, Journal.open(files, identity, segment_bytes), snapshots)


def _clear_half_made(files: Files) -> None:
    """Remove what a first start that was cut short has left: a log that holds nothing yet. Raises StorageError for
    anything else, since nothing says whose it is."""
    names = files.names()
    if not names:
        return
    if len(names) == 1 and segment_sequences(names) and len(files.read(names[0])) <= HEADER_BYTES:
        files.remove(names[0])
        return
    raise StorageError(
        f"registry: its files are there ({', '.join(names[:3])} ...) but not the one that says whose they are "
        "(identity); "
        "restore it, or start this master with --replace on an empty directory"
    )


def _begun(me: str, members: tuple[str, ...], start: Start, rng: random.Random) -> Identity:
    if start == "open":
        raise ConfigError(
            "initialize: there is no registry in this work directory. A new cluster: start each of its masters once "
            "with "
            "--initialize. A master whose disk is lost: start it with --replace. Else: is this the right --work-dir?"
        )
    if start == "replace" and len(members) == 1:
        raise ConfigError(
            "replace: a single master has nobody to learn from; restore a backup with: mesos-actor registry import, or "
            "begin a new cluster with --initialize"
        )
    storage_id = f"{rng.getrandbits(128):032x}"
    return Identity(me, members, storage_id, founding=start != "replace", learner=start == "replace")
