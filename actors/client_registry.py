"""Asking the replicas of the registry themselves: how each stands, who is to lead, and the whole of what is kept.

For holders of the cluster's key. The functions at the end do one thing each and block, for scripts and the CLI.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import msgspec

from mesos_actor.actors.client import ASK_AGAIN_S, Client, blocking, new_id
from mesos_actor.actors.config_values import MAX_MASTERS
from mesos_actor.actors.errors import InvalidInput, MesosActorError, Unavailable
from mesos_actor.actors.ids import Address, Node, address, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.raft import (
    DescribeMember,
    MemberDescription,
    ReadRegistry,
    RegistryPiece,
    TransferLeadership,
)
from mesos_actor.actors.messages.scheduler import ASK_ELSEWHERE, OperationResult, Refused
from mesos_actor.raft.backup import MAX_BACKUP_BYTES

DESCRIBE_S = 2.0
"""A replica that has not said how it stands by then is shown as silent."""
LOOK_AGAIN_S = 0.05
MAX_RESTARTS = 10
"""How often a reading is begun anew because the state it was reading is no longer kept."""


class Standing(msgspec.Struct, frozen=True):
    """One master of the cluster: how it stands, or why that is not known."""

    name: str
    """`host:port`, as it calls itself when it answered."""
    description: MemberDescription | None
    problem: str = ""
    """`no answer`, or the words of its refusal."""


class RegistryText(msgspec.Struct, frozen=True):
    """The whole registry, as of `index`."""

    data: bytes
    """See raft/backup.py."""
    index: int
    source: str
    """The master it came from."""
    leader: str
    """Who leads as far as `source` knows; empty when it does not."""
    silent_ms: int
    """How long ago `source` had heard from the leader; -1: never."""


def name_of(master: Address) -> str:
    """`host:port` of a master's mailbox; empty for none."""
    return node_of(master).removeprefix("tcp://")


def _registry(name: str) -> Address:
    return address(Node(f"tcp://{name}"), "registry")


# -- how each stands ------------------------------------------------------------------------------------------------


async def describe(client: Client) -> list[Standing]:
    """How each master stands that the client was told of, or that one of those knows of. Raises Unavailable when none
    answers, MesosActorError when all that answer refuse."""
    found: dict[str, Standing] = {}
    asked: set[str] = set()
    names = [name_of(master) for master in client.masters]
    while names and len(asked) < MAX_MASTERS:
        asked.update(names)
        for name, standing in zip(names, await asyncio.gather(*(_describe(client, n) for n in names)), strict=True):
            found.setdefault(standing.name, standing)
            if standing.name != name:
                asked.add(standing.name)
        known = [standing.description for standing in found.values() if standing.description is not None]
        names = sorted({name for one in known for name in _named_by(one)} - asked)
    answered = [standing for standing in found.values() if standing.description is not None]
    if not answered:
        refusals = [standing.problem for standing in found.values() if standing.problem != "no answer"]
        if refusals:
            raise MesosActorError(f"the masters refuse to say how they stand: {refusals[0]}")
        raise Unavailable(f"no master answered within {_patience_s(client):g} s at {', '.join(found)}; {client.hint()}")
    return sorted(found.values(), key=lambda standing: standing.name)


def _patience_s(client: Client) -> float:
    return min(DESCRIBE_S, client.timeout_s)


def _named_by(one: MemberDescription) -> Iterable[str]:
    return filter(None, (name_of(one.leader), *one.missing, *(peer.name for peer in one.peers)))


async def _describe(client: Client, name: str) -> Standing:
    message = DescribeMember(new_id())
    answer = await client.ask(_registry(name), message, message.operation_id, _patience_s(client))
    if isinstance(answer, MemberDescription):
        return Standing(answer.name, answer)
    return Standing(name, None, "no answer" if answer is None else _words(answer))


def _words(answer: Message) -> str:
    """Why something was refused."""
    if isinstance(answer, Refused | OperationResult):
        return answer.text or answer.reason
    return f"it answered with {type(answer).__name__}"


def leader_of(standings: Iterable[Standing]) -> MemberDescription | None:
    """The leader of the newest term; a deposed one that does not know it yet is of an older one."""
    leaders = (one.description for one in standings if one.description and one.description.state == "leader")
    return max(leaders, key=lambda one: one.origin.term, default=None)


# -- who is to lead -------------------------------------------------------------------------------------------------


async def transfer(client: Client, to: str = "") -> str:
    """Have the master at `to` (`host:port`; empty: the one that has most) lead; returns the name of who leads then.
    Raises InvalidInput with the leader's reason, Unavailable when nobody leads, or nobody is known to afterwards."""
    deadline = time.monotonic() + client.timeout_s
    before = leader_of(await describe(client))
    if before is None:
        raise Unavailable("no master leads now, so that there is nothing to transfer; see: mesos-actor masters")
    message = TransferLeadership(new_id(), to)
    answer = await client.ask(_registry(before.name), message, message.operation_id, client.timeout_s)
    if answer is None:
        raise Unavailable(f"{before.name} did not say within {client.timeout_s:g} s; see: mesos-actor masters")
    if not isinstance(answer, OperationResult) or not answer.ok:
        error = Unavailable if isinstance(answer, OperationResult) and answer.reason == "unavailable" else InvalidInput
        raise error(f"{before.name}: {_words(answer)}")
    while True:
        after = leader_of(await describe(client))
        if after is not None and after.origin.term > before.origin.term:
            return after.name
        if time.monotonic() >= deadline:
            raise Unavailable(f"{before.name} no longer leads, and nobody else yet; see: mesos-actor masters")
        await asyncio.sleep(LOOK_AGAIN_S)


# -- all that is kept -----------------------------------------------------------------------------------------------


async def read_registry(client: Client, stale: bool = False) -> RegistryText:
    """The whole registry as of now, from the leader; with `stale`, as of what any replica has applied. Raises
    Unavailable when nobody answers for the client's timeout, MesosActorError when what comes does not fit together."""
    for _ in range(MAX_RESTARTS):
        source, first = await _first_piece(client, stale)
        data = await _all_pieces(client, source, first)
        if data is not None:
            return RegistryText(data, first.index, source, name_of(first.leader), first.silent_ms)
    raise Unavailable(f"the registry changes faster than it can be read; it was begun {MAX_RESTARTS} times")


async def _first_piece(client: Client, stale: bool) -> tuple[str, RegistryPiece]:
    deadline = time.monotonic() + client.timeout_s
    given = [name_of(master) for master in client.masters]
    name, attempt = given[0], 0
    while (left_s := deadline - time.monotonic()) > 0:
        message = ReadRegistry(new_id(), stale)
        answer = await client.ask(_registry(name), message, message.operation_id, min(ASK_AGAIN_S, left_s))
        if isinstance(answer, RegistryPiece):
            return name, answer
        attempt += 1
        if isinstance(answer, Refused) and answer.reason in ASK_ELSEWHERE:
            name = name_of(answer.leader) or given[attempt % len(given)]
            await asyncio.sleep(min(LOOK_AGAIN_S, left_s))
        elif answer is not None:
            raise InvalidInput(f"{name}: {_words(answer)}")
        else:
            name = given[attempt % len(given)]
    kind = "master" if stale else "leading master"
    advice = "" if stale else ", or with --stale what any of them has"
    raise Unavailable(
        f"no {kind} answered within {client.timeout_s:g} s at {', '.join(given)}; {client.hint()} "
        f"See: mesos-actor masters{advice}"
    )


async def _all_pieces(client: Client, source: str, first: RegistryPiece) -> bytes | None:
    """The text that `first` begins; None when its state is no longer kept."""
    if first.total_bytes > MAX_BACKUP_BYTES:
        raise MesosActorError(f"{source} has {first.total_bytes} bytes, more than {MAX_BACKUP_BYTES}")
    data = bytearray()
    piece = first
    while True:
        fits = piece.index == first.index and piece.total_bytes == first.total_bytes
        if not fits or piece.offset_bytes != len(data) or len(data) + len(piece.data) > first.total_bytes:
            raise MesosActorError(f"{source} answered with pieces that do not fit together; try again")
        data += piece.data
        if len(data) == first.total_bytes:
            return bytes(data)
        if not piece.data:
            raise MesosActorError(f"{source} stopped after {len(data)} of {first.total_bytes} bytes; try again")
        answer = await _piece(client, source, first.index, len(data))
        if isinstance(answer, Refused) and answer.reason == "gone":
            return None
        if not isinstance(answer, RegistryPiece):
            raise InvalidInput(f"{source}: {_words(answer)}")
        piece = answer


async def _piece(client: Client, source: str, index: int, offset_bytes: int) -> Message:
    """The answer to one question, asked again until the client's timeout."""
    deadline = time.monotonic() + client.timeout_s
    while (left_s := deadline - time.monotonic()) > 0:
        message = ReadRegistry(new_id(), index=index, offset_bytes=offset_bytes)
        answer = await client.ask(_registry(source), message, message.operation_id, min(ASK_AGAIN_S, left_s))
        if answer is not None:
            return answer
    raise Unavailable(f"{source} did not go on within {client.timeout_s:g} s; try again, or another master")


# -- one thing each, blocking -----------------------------------------------------------------------------------------


def describe_masters(masters: str, key_dir: str, insecure: bool, timeout_s: float) -> list[Standing]:
    """See `describe`."""
    return blocking(masters, key_dir, insecure, timeout_s, describe)


def transfer_leadership(masters: str, key_dir: str, insecure: bool, timeout_s: float, to: str) -> str:
    """See `transfer`."""
    return blocking(masters, key_dir, insecure, timeout_s, lambda client: transfer(client, to))


def registry_text(masters: str, key_dir: str, insecure: bool, timeout_s: float, stale: bool) -> RegistryText:
    """See `read_registry`."""
    return blocking(masters, key_dir, insecure, timeout_s, lambda client: read_registry(client, stale))
