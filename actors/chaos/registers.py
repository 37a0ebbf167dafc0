"""Writes and reads of role weights through any master, and whether such a history could be that of one register.

With unique values that is a matter of intervals: Gibbons and Korach, "Testing shared memories", 1997 (zones).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import math
import random
import time
from collections.abc import Sequence
from typing import Literal

import msgspec

from mesos_actor.actors.client import Client, credentials, new_id
from mesos_actor.actors.client_registry import read_registry
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.actors.ids import Role
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.registry import WeightRecord
from mesos_actor.raft.backup import decode_backup


class Op(msgspec.Struct, frozen=True):
    """One write or read of a role's weight, with monotonic times. A read that brought nothing is not recorded; a write
    is `fail` when it cannot ever happen, `unknown` when it may have, or still may."""

    kind: Literal["write", "read"]
    role: str
    value: int
    start_s: float
    end_s: float
    outcome: Literal["ok", "fail", "unknown"] = "ok"


class Weights:
    """Writers, each of one role with rising values, and a reader of all; each question goes to any of the masters."""

    def __init__(self, masters: str, key_dir: str, roles: int, rng: random.Random, timeout_s: float = 4.0) -> None:
        self.addresses, self.keys = credentials(masters, key_dir, False)
        self.roles = [f"w{number}" for number in range(roles)]
        self.timeout_s = timeout_s
        self.rng = rng
        self.history: list[Op] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.clients: list[Client] = []
        self.over = False

    async def __aenter__(self) -> Weights:
        for first in self.addresses:
            client = Client((first, *(one for one in self.addresses if one != first)), self.keys, self.timeout_s)
            self.clients.append(await client.__aenter__())
        self.tasks = [asyncio.create_task(self.write(role)) for role in self.roles]
        self.tasks.append(asyncio.create_task(self.read()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()
        for client in self.clients:
            await client.__aexit__(None, None, None)

    async def finish(self) -> None:
        """Begin nothing new, and wait for what is on its way. (Cancelled, it might be neither done nor undone: before
        Python 3.12 `wait_for` may lose a cancellation.)"""
        self.over = True
        await asyncio.gather(*self.tasks)

    async def write(self, role: str) -> None:
        value = 0
        while not self.over:
            value += 1
            start_s, outcome, end_s = time.monotonic(), "unknown", math.inf
            try:
                await self.rng.choice(self.clients).order(SetRoleWeight(new_id(), Role(role), value))
                outcome, end_s = "ok", time.monotonic()
            except MesosActorError as error:
                # A refusal by the rules is final; one for want of a leader or of time is not.
                outcome = "fail" if "must be" in str(error) else "unknown"
            self.history.append(Op("write", role, value, start_s, end_s, outcome))  # type: ignore[arg-type]
            await asyncio.sleep(self.rng.random() * 0.1)

    async def read(self) -> None:
        while not self.over:
            await self.read_once(self.rng.choice(self.clients))
            await asyncio.sleep(self.rng.random() * 0.1)

    async def read_once(self, client: Client) -> bool:
        """Read all roles; whether there was an answer."""
        start_s = time.monotonic()
        try:
            text = await read_registry(client)
        except MesosActorError:
            return False
        end_s = time.monotonic()
        weights = {r.role: r.weight_milli for r in decode_backup(text.data).records if isinstance(r, WeightRecord)}
        self.history += (Op("read", role, weights.get(Role(role), 0), start_s, end_s) for role in self.roles)
        return True


def zone_errors(history: Sequence[Op]) -> list[str]:
    """What in this history no single register, written and read one at a time, could have done; 0 is its beginning.
    A write whose outcome is unknown may take place at any time after it was begun, or never."""
    return [text for role in sorted({op.role for op in history}) for text in _errors_of(role, history)]


def _errors_of(role: str, history: Sequence[Op]) -> list[str]:
    writes = {op.value: op for op in history if op.role == role and op.kind == "write"}
    writes[0] = Op("write", role, 0, -math.inf, -math.inf)
    #: value -> first end and last start of whatever touched it
    zones = {v: (op.end_s, op.start_s) for v, op in writes.items() if op.outcome == "ok"}
    errors = []
    for op in history:
        if op.role != role or op.kind != "read":
            continue
        write = writes.get(op.value)
        if write is None or op.end_s < write.start_s:
            errors.append(f"{role}: {op.value} was read before it was written")
        elif write.outcome == "fail":
            errors.append(f"{role}: {op.value} was read, and its write had been refused")
        else:
            first_end, last_start = zones.get(op.value, (math.inf, write.start_s))
            zones[op.value] = (min(first_end, op.end_s), max(last_start, op.start_s))
    held = sorted((first_end, last_start, v) for v, (first_end, last_start) in zones.items() if first_end < last_start)
    for (_, until, value), (begins, _, other) in itertools.pairwise(held):
        if begins < until:
            errors.append(f"{role}: {other} was in force while {value} was, and before it again")
    for value, (first_end, last_start) in zones.items():
        at = bisect.bisect_left(held, (last_start, -math.inf, 0)) - 1
        if first_end >= last_start and at >= 0 and first_end < held[at][1]:
            errors.append(f"{role}: {value} was written and lost while {held[at][2]} was in force all the time")
    return errors
