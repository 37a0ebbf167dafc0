"""Users of the registry in a simulated cluster, who remember what they were told: weights of roles are its registers.

Strong reads and acknowledged writes of all users together must be the history of one register for each role, whatever
masters die, are cut off or stand still meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.ids import Address, OperationId, Role
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.raft import ReadRegistry, RegistryPiece
from mesos_actor.actors.messages.registry import WeightRecord
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from mesos_actor.raft.backup import decode_backup
from mesos_actor.transport.sim.linearize import Call, contradiction

ROLES = tuple(Role(name) for name in ("red", "green", "blue"))
INITIAL = 0
"""What a role's weight counts as before anybody has written it."""
PATIENCE_US = (150_000, 500_000, 2_000_000)
"""A user that is not answered by then does not know what became of it. Impatient ones find new leaders soon, while
patient ones still wait for the old."""
PACE_US = (10_000, 40_000, 150_000)
"""The usual pause between two calls."""


@dataclass
class Asked:
    """A call of a user. `outcome`: `ok`, `failed` (it changed nothing, for certain) or `unknown`."""

    operation_id: OperationId
    who: str
    role: Role | None
    """None: a read, of all roles."""
    value: int
    began_us: int
    ended_us: int = 0
    outcome: str = "unknown"
    read: dict[Role, int] = field(default_factory=dict)


class History:
    """What all users asked, and were told, on the true clock."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.next_value = INITIAL

    def begin(self, who: str, role: Role | None, now_us: int) -> Asked:
        self.next_value += 1
        asked = Asked(OperationId(f"{who}-{self.next_value}"), who, role, self.next_value, now_us)
        self.asked.append(asked)
        return asked

    def count(self, outcome: str, reads: bool = False) -> int:
        return sum(asked.outcome == outcome and (asked.role is None) == reads for asked in self.asked)

    def calls(self, role: Role) -> list[Call]:
        """Of one register."""
        found = []
        for asked in self.asked:
            known = asked.ended_us if asked.outcome == "ok" else None
            if asked.role == role and asked.outcome != "failed":
                found.append(Call("write", asked.value, asked.began_us, known, asked.who))
            elif asked.role is None and known is not None:
                found.append(Call("read", asked.read.get(role, INITIAL), asked.began_us, known, asked.who))
        return found

    def contradiction(self) -> str:
        """Empty when the registry may have been one register for each role; else what cannot be."""
        for role in ROLES:
            if problem := contradiction(self.calls(role), INITIAL):
                return f"{role}: {problem}"
        return ""


def registry_of(master: Address) -> Address:
    """The replica of the registry beside a master."""
    return Address(master.removesuffix("/master") + "/registry")


class RegistryUser(Actor):
    """One call after the other: a weight of its own or a read, at whom it takes for the leader."""

    def __init__(self, history: History, masters: tuple[Address, ...], pace_us: int, patience_us: int) -> None:
        self._history = history
        self._masters = masters
        self._pace_us = pace_us
        self._patience_us = patience_us
        self._target = masters[0]
        self._asked: Asked | None = None
        self._serial = 0
        self.resting = False
        """True: nothing new is asked."""

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("next", self._pace_us)

    def on_timer(self, ctx: Context, name: str) -> None:
        if name == "next" and self._asked is None and not self.resting:
            self._ask(ctx)
        elif name == f"patience {self._serial}" and self._asked is not None:
            self._target = ctx.rng.choice(self._masters)
            self._end(ctx, "unknown")

    def _ask(self, ctx: Context) -> None:
        self._serial += 1
        if ctx.rng.random() < 0.1:
            self._target = ctx.rng.choice(self._masters)  # one that led before may think so still
        if ctx.rng.random() < 0.6:
            role = ctx.rng.choice(ROLES)
            asked = self._asked = self._history.begin(ctx.node, role, ctx.now_us)
            ctx.send(self._target, SetRoleWeight(asked.operation_id, role, asked.value))
        else:
            asked = self._asked = self._history.begin(ctx.node, None, ctx.now_us)
            ctx.send(registry_of(self._target), ReadRegistry(asked.operation_id))
        ctx.set_timer(f"patience {self._serial}", self._patience_us)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        asked = self._asked
        if asked is None or getattr(message, "operation_id", "") != asked.operation_id:
            return  # of a call that was given up
        if isinstance(message, OperationResult):
            self._end(ctx, "ok" if message.ok else "failed")
        elif isinstance(message, RegistryPiece):
            assert len(message.data) == message.total_bytes
            for record in decode_backup(message.data).records:
                if isinstance(record, WeightRecord):
                    asked.read[record.role] = record.weight_milli
            self._end(ctx, "ok")
        elif isinstance(message, Refused):
            self._target = message.leader or ctx.rng.choice(self._masters)
            unsure = message.reason in ("unavailable", "deposed")
            self._end(ctx, "unknown" if unsure else "failed")

    def _end(self, ctx: Context, outcome: str) -> None:
        assert self._asked is not None
        self._asked.outcome, self._asked.ended_us = outcome, ctx.now_us
        self._asked = None
        ctx.set_timer("next", 1 + int(self._pace_us * ctx.rng.uniform(0.2, 1.8)))
