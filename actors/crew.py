"""The actors of one process: how a handler is called, what its effects mean, and who is started again.

Pure and abstract: `Runtime` (one process, asyncio, a disk) and the simulator's host (virtual time) fill in how a
message is routed, a record kept, a timer armed. What an actor may rely on is therefore decided here, once:

- A handler that raises has no effect at all. The supervisor starts the actor again from what it asked to have kept;
  its mailbox stays, the message that it raised over is gone, its timers die with it.
- A Send waits for the sync of every earlier Persist of its actor, in this handler or one before; and every Send behind
  a waiting one waits too, so that one actor's messages keep their order.
- The Persists of one handler are kept together or not at all.
- After Stop the actor gets nothing more; what stands after the Stop in the same handler is not carried out.
- All actors of the process hear of a lost link, in start order.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mesos_actor.actors.actor import (
    ActorLike,
    CancelTimer,
    Context,
    Effect,
    Log,
    Persist,
    Send,
    SetTimer,
    Stop,
    Watch,
)
from mesos_actor.actors.errors import ConfigError, InternalError, LocalError, MesosActorError, StorageError
from mesos_actor.actors.ids import Address, Node, Principal, local
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.supervisor import GiveUp, Leave, Restart, RestartType, Supervisor

LOCAL = Principal("local")
"""The principal of everybody inside one process."""

Factory = Callable[[], ActorLike]
Write = tuple[str, str, Record | None]


class Spec(msgspec.Struct, frozen=True):
    """How to make an actor: again after each failure, so `factory` must return a new one at each call."""

    name: str
    factory: Factory
    durable: bool
    """Whether it may persist; its records are kept under its name."""
    restart: RestartType


class Cell:
    """One actor's place in its process, through all its incarnations."""

    __slots__ = ("actor", "address", "ctx", "holding", "incarnation", "spec", "timers")

    def __init__(self, spec: Spec, ctx: Context) -> None:
        self.spec = spec
        self.address = local(spec.name)
        self.ctx = ctx
        self.actor: ActorLike | None = None
        """None: not started yet, or ended."""
        self.incarnation = 0
        #: name of an armed timer -> the mark of its latest arming
        self.timers: dict[str, int] = {}
        self.holding = False
        """Whether a Persist of it waits for its sync, so that its Sends must wait too."""


class Crew(ABC):
    """See the module's text."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        #: name -> the actor's cell, in start order, ended ones included
        self.cells: dict[str, Cell] = {}
        self._running = False
        self._ending = False
        #: counts the supervisor's restarts, so that one inside another ends the outer
        self._round = 0

    def spawn(self, name: str, factory: Factory, *, durable: bool = False, restart: RestartType = "transient") -> None:
        """Add the actor `name`: it starts with the process, after those added before, or now if the process runs.

        Raises ConfigError for a name that is taken or cannot be part of an address."""
        self._check_name(name)
        self.supervisor.add(name, restart)
        spec = Spec(name, factory, durable, restart)
        cell = self.cells[name] = Cell(spec, Context(name, Node(""), 0, self._rng(name, 0)))
        self._added(cell)
        if self._running:
            self._start(cell)

    def alive(self) -> list[str]:
        """The names of the actors that have not ended, in start order."""
        return [name for name, cell in self.cells.items() if cell.actor is not None]

    # -- what the two worlds fill in ------------------------------------------------------------------------------

    @abstractmethod
    def _node(self) -> Node: ...

    @abstractmethod
    def _now_us(self) -> int: ...

    @abstractmethod
    def _rng(self, name: str, incarnation: int) -> random.Random: ...

    @abstractmethod
    def _sometimes(self, name: str) -> Callable[[str], bool] | None: ...

    @abstractmethod
    def _load(self, name: str) -> Mapping[str, Record]:
        """What the actor asked to have kept, whether it is synced yet or not."""

    @abstractmethod
    def _keep(self, cell: Cell, writes: list[Write]) -> None:
        """Keep them and set `cell.holding` until they are synced, or raise LocalError having kept nothing."""

    @abstractmethod
    def _hold(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        """Send it once all is synced that the actor asked to have kept so far."""

    @abstractmethod
    def _route(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        """Send it."""

    @abstractmethod
    def _arm(self, cell: Cell, name: str, delay_us: int) -> None:
        """Set `cell.timers[name]` to a mark never used before, and come back with it after `delay_us`."""

    @abstractmethod
    def _watch(self, node: Node) -> None: ...

    @abstractmethod
    def _log(self, level: str, event: str, fields: Mapping[str, Any], actor: str, cause: str) -> None: ...

    @abstractmethod
    def _failed(self, cell: Cell, error: Exception) -> None:
        """A handler raised; the supervisor is asked next."""

    @abstractmethod
    def _gave_up(self, error: MesosActorError) -> None:
        """The supervisor gave up, or what is kept cannot be read: the process ends."""

    @abstractmethod
    def _added(self, cell: Cell) -> None:
        """From now on messages for it are taken."""

    @abstractmethod
    def _ended(self, cell: Cell) -> None:
        """The actor has ended for good; its timers and address are gone."""

    # -- calling handlers -----------------------------------------------------------------------------------------

    def _call(self, cell: Cell, cause: str, handler: Callable[..., None], *args: Any) -> None:
        """Call a bound handler with the cell's context and carry out what it asked for."""
        ctx = cell.ctx
        ctx.cause = cause
        ctx.now_us = self._now_us()
        try:
            handler(ctx, *args)
            if ctx.effects:
                self._carry_out(cell, ctx.effects)
                ctx.effects.clear()
        except Exception as error:  # noqa: BLE001 whatever it was, it is the actor's failure and the supervisor's case
            self._crashed(cell, error)

    def _fire(self, cell: Cell, name: str, mark: int) -> bool:
        """Call `on_timer` if this arming still stands; whether it did."""
        if cell.actor is None or cell.timers.get(name) != mark:
            return False
        del cell.timers[name]
        cell.ctx.principal = LOCAL
        self._call(cell, f"timer {name}", cell.actor.on_timer, name)
        return True

    def _lose_link(self, cell: Cell, node: Node) -> None:
        if cell.actor is not None:
            cell.ctx.principal = LOCAL
            self._call(cell, f"link lost {node}", cell.actor.on_link_lost, node)

    def _carry_out(self, cell: Cell, effects: list[Effect]) -> None:
        kept = False
        cause = cell.ctx.cause
        for effect in effects:
            if type(effect) is Send:
                if cell.holding:
                    self._hold(cell, cause, effect.to, effect.message)
                else:
                    self._route(cell, cause, effect.to, effect.message)
            elif type(effect) is Persist:
                if not kept:
                    self._keep(cell, _writes(cell, effects))
                    kept = True
            elif type(effect) is Stop:
                self._log("info", "actor_stopped", {"reason": effect.reason}, cell.spec.name, cause)
                self._discard(cell)
                self._decide(cell, normally=True)
                return
            else:
                self._carry_out_rarer(cell, cause, effect)

    def _carry_out_rarer(self, cell: Cell, cause: str, effect: Effect) -> None:
        if type(effect) is SetTimer:
            self._arm(cell, effect.name, max(0, effect.delay_us))
        elif type(effect) is CancelTimer:
            cell.timers.pop(effect.name, None)
        elif type(effect) is Log:
            self._log(effect.level, effect.event, effect.fields, cell.spec.name, cause)
        elif type(effect) is Watch:
            self._watch(effect.node)
        else:
            raise LocalError(f"effect {effect!r}: no such effect; use the methods of Context")

    # -- starting, failing, ending --------------------------------------------------------------------------------

    def _start_all(self) -> None:
        self._running = True
        for cell in list(self.cells.values()):
            if self._running:
                self._start(cell)

    def _start(self, cell: Cell) -> None:
        """A new incarnation: it starts from what it asked to have kept."""
        spec = cell.spec
        cell.incarnation += 1
        cell.timers.clear()
        try:
            recovered = self._load(spec.name) if spec.durable else None
        except StorageError as error:
            self._gave_up(error)
            return
        rng = self._rng(spec.name, cell.incarnation)
        cell.ctx = Context(spec.name, self._node(), self._now_us(), rng, recovered, self._sometimes(spec.name))
        try:
            cell.actor = spec.factory()
        except Exception as error:  # noqa: BLE001 as in _call
            self._crashed(cell, error)
            return
        self._call(cell, "start", cell.actor.on_start)

    def _stop(self, cell: Cell) -> None:
        """Graceful: `on_stop`, its effects, and the end."""
        self._ending = True
        if cell.actor is not None:
            cell.ctx.principal = LOCAL
            self._call(cell, "stop", cell.actor.on_stop)
            self._discard(cell)
            self._ended(cell)

    def _discard(self, cell: Cell) -> None:
        """This incarnation is over."""
        cell.ctx.effects = []
        cell.actor = None
        cell.timers.clear()

    def _crashed(self, cell: Cell, error: Exception) -> None:
        self._log("error", "actor_failed", {"error": error}, cell.spec.name, cell.ctx.cause)
        self._discard(cell)
        self._failed(cell, error)
        self._decide(cell, normally=False)

    def _decide(self, cell: Cell, normally: bool) -> None:
        if self._ending:
            return
        decision = self.supervisor.ended(cell.spec.name, normally, self._now_us())
        if isinstance(decision, GiveUp):
            self._running = False
            self._gave_up(InternalError(decision.text))
        elif isinstance(decision, Leave):
            self._ended(cell)
        else:
            self._restart(decision)

    def _restart(self, decision: Restart) -> None:
        self._round += 1
        mine = self._round
        for name in decision.stop:
            self._discard(self.cells[name])
            if name not in decision.start:
                self._ended(self.cells[name])
        for name in decision.start:
            if mine != self._round or not self._running:
                return  # one of them failed at its start: a later decision has dealt with the rest
            self._log("warning", "actor_restarted", {}, name, "")
            self._start(self.cells[name])

    def _check_name(self, name: str) -> None:
        if not name or "/" in name or not name.isprintable():
            raise ConfigError(f"actor name {name!r}: must be printable, not empty and without '/'")


def _writes(cell: Cell, effects: list[Effect]) -> list[Write]:
    """The Persists that stand before a Stop."""
    if not cell.spec.durable:
        raise LocalError(f"actor {cell.spec.name!r} persists, but was not spawned with durable=True")
    writes: list[Write] = []
    for effect in effects:
        if type(effect) is Persist:
            writes.append((cell.spec.name, effect.key, effect.record))
        elif type(effect) is Stop:
            break
    return writes
