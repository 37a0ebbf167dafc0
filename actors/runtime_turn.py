"""Turns: what arrived is handled, kept, and only then shown.

A **turn** handles at most `turn_messages` timers and as many messages, then commits all their Persists as one
transaction, then releases the Sends that waited for it, then lets ports and transport put what they gathered on its
way. So one sync and one frame per peer serve up to 64 messages, and nothing is shown to anybody before it is safe.

**When the disk refuses, the process stops.** What the actors believe and what is kept no longer agree, so nothing more
may leave: the Sends of the turn are dropped, no `on_stop` runs, and `wait` raises the StorageError. For an agent that
is safe as well as simple: its tasks belong to the launcher, they run on, and the agent that is started again finds
what was committed and asks the launcher for the rest. For a master it is a failover. Carrying on without the disk
would be neither.
"""

from __future__ import annotations

import random
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from mesos_actor.actors.actor import Send
from mesos_actor.actors.crew import LOCAL, Cell, Crew, Write
from mesos_actor.actors.errors import ConfigError, InternalError, MesosActorError, StorageError, Unavailable
from mesos_actor.actors.ids import Address, Node, Principal, actor_of, address, local, node_of
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.scheduler import Refused
from mesos_actor.actors.ports import LinkListener, Port, Urgent
from mesos_actor.actors.runtime_timers import Timers
from mesos_actor.actors.store import Store
from mesos_actor.actors.supervisor import Supervisor
from mesos_actor.transport.clock import Clock
from mesos_actor.transport.transport import Transport


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Every bound of the loop."""

    turn_messages: int = 64
    """Timers and messages handled before the next commit (limits-and-peers.md E: 32 gained 11 to 28 %)."""
    wake_ms: int = 10
    """How long turns may follow each other before sockets, timers of others and coroutines get their share."""
    slow_handler_ms: int = 100
    """A handler that took longer is named in the log."""
    pace_ms: int = 0
    """Where the process owns its loop: how long a busy one sleeps after a wake, so that what arrives meanwhile is one
    turn, one commit and one frame a peer instead of many. 0: never. An idle process never sleeps."""
    pace_above: int = 30
    """More messages than this within `PACE_WINDOW_NS` (10 ms) is busy. One task after another on an idle cluster must
    stay below it: it makes about 22 an agent, 11 a master."""
    max_inbox: int = 1_000_000
    """Messages waiting in this process. From other processes: the newest is dropped and counted (a link may lose).
    From its own actors: an InternalError ends the process, for actors that flood each other never come to rest."""
    max_thread_calls: int = 10_000
    """Calls from other threads that wait for the loop; past it `call_threadsafe` raises Unavailable."""
    drain_ms: int = 5_000
    """How long a graceful stop may take before actors are ended without their `on_stop`."""


class PortCell:
    """A port's place in its process."""

    __slots__ = ("address", "name", "port", "started", "urgent")

    def __init__(self, name: str, port: Port) -> None:
        self.name = name
        self.address = local(name)
        self.port = port
        self.urgent = isinstance(port, Urgent) and port.urgent
        self.started = False


class LostLink:
    """In the inbox: tell this actor, or port that listens, that the link with `node` is lost."""

    __slots__ = ("cell", "node")

    def __init__(self, cell: Cell | PortCell, node: Node) -> None:
        self.cell = cell
        self.node = node


_NO_MESSAGE = Refused(reason="link-lost", text="")
"""Fills the message's place beside a LostLink."""
_Target = Cell | PortCell | LostLink


class Turns(Crew):
    """The actors and ports of one process, and the messages on their way between them. See the module's text."""

    def __init__(
        self, store: Store | None, log: Log, supervisor: Supervisor, settings: RuntimeSettings, clock: Clock
    ) -> None:
        super().__init__(supervisor)
        self.settings = settings
        self.log = log
        self.counts = {"dead_letters": 0, "dropped": 0, "send_failures": 0, "slow_handlers": 0}
        """What was lost or late since the start, for metrics."""
        self.transport: Transport | None = None
        self._store = store
        self._clock = clock
        self._offset_us = clock.now_us() - time.monotonic_ns() // 1_000
        self._seeds = random.SystemRandom()
        self._timers = Timers()
        self._inbox: deque[tuple[_Target, Address, Principal, str, Message]] = deque()
        #: what waits for urgent ports
        self._urgent: deque[tuple[PortCell | LostLink, Address, Principal, str, Message]] = deque()
        #: actor or port name -> who it is
        self._names: dict[str, Cell | PortCell] = {}
        #: every address of this process's own actors and ports -> who it is
        self._routes: dict[Address, Cell | PortCell] = {}
        #: ports in the order in which they were added
        self._ports: list[PortCell] = []
        #: ports that had a message in this turn
        self._to_flush: list[PortCell] = []
        #: cells whose Persists wait for the end of the turn
        self._unsynced: list[Cell] = []
        self._held: list[tuple[Cell, str, Address, Message]] = []
        self._failure: MesosActorError | None = None
        self._stopping = False
        #: messages handled since the start
        self._handled = 0

    @abstractmethod
    def _schedule(self) -> None:
        """Have a turn soon, if none is coming anyway."""

    @abstractmethod
    def _fail(self, error: MesosActorError) -> None:
        """The process ends with this error; the first one counts."""

    # -- ways in --------------------------------------------------------------------------------------------------

    def post(self, actor: str, message: Message, *, sender: str = "post", cause: str = "") -> None:
        """Put a message into an actor's or port's mailbox, from this process, as sent by `/<sender>`. Loop's thread
        only. Raises Unavailable when there is no such mailbox, or no longer, or the inbox is full."""
        target = self._names.get(actor)
        if target is None or self._stopping or not self._running:
            raise Unavailable(f"actor {actor!r}: does not run in this process")
        if len(self._inbox) >= self.settings.max_inbox:
            raise Unavailable(f"actor {actor!r}: {len(self._inbox)} messages wait already; try again later")
        self._inbox.append((target, local(sender), LOCAL, cause, message))
        self._schedule()

    def _deliver(self, actor: str, sender: Address, principal: Principal, cause: str, message: Message) -> None:
        target = self._names.get(actor)
        if self._stopping or self._failure is not None:
            self.counts["dropped"] += 1
        elif target is None:
            self._dead_letter(actor, sender, cause, message)
            self._schedule()
        elif len(self._inbox) >= self.settings.max_inbox:
            self.counts["dropped"] += 1
            self._log("warning", "inbox_full", {"sender": sender, "kind": type(message).__name__}, actor, cause)
        elif isinstance(target, PortCell) and target.urgent:
            self._urgent.append((target, sender, principal, cause, message))
            self._schedule()
        else:
            self._inbox.append((target, sender, principal, cause, message))
            self._schedule()

    def _link_lost(self, node: Node) -> None:
        listening: list[Cell | PortCell] = [cell for cell in self._ports if isinstance(cell.port, LinkListener)]
        for cell in [*listening, *self.cells.values()]:
            waiting = self._urgent if isinstance(cell, PortCell) and cell.urgent else self._inbox
            waiting.append((LostLink(cell, node), Address(""), LOCAL, "", _NO_MESSAGE))
        self._schedule()

    # -- turns ----------------------------------------------------------------------------------------------------

    def _fire_due(self) -> None:
        started_us = time.monotonic_ns() // 1_000
        for _ in range(self.settings.turn_messages):
            entry = self._timers.pop_due(started_us)
            if entry is None or not self._running:
                return
            _, mark, cell, name = entry
            before_ns = time.monotonic_ns()
            self._fire(cell, name, mark)
            self._check_slow(cell, f"timer {name}", time.monotonic_ns() - before_ns)

    def _turn(self) -> None:
        """The hot loop: what it does per message is what a message costs."""
        while self._urgent:
            self._turn_rarer(*self._urgent.popleft())
        inbox = self._inbox
        routes = self._routes
        monotonic_ns = time.monotonic_ns
        slow_ns = self.settings.slow_handler_ms * 1_000_000
        offset_us = self._offset_us
        started_ns = monotonic_ns()
        count = min(self.settings.turn_messages, len(inbox))
        self._handled += count
        for _ in range(count):
            target, sender, principal, cause, message = inbox.popleft()
            if not isinstance(target, Cell):
                self._turn_rarer(target, sender, principal, cause, message)
                continue
            actor = target.actor
            if actor is None:
                self._dead_letter(target.spec.name, sender, cause, message)
                continue
            ctx = target.ctx
            ctx.principal = principal
            ctx.cause = cause
            ctx.now_us = started_ns // 1_000 + offset_us
            try:
                actor.on_message(ctx, sender, message)
                effects = ctx.effects
                if effects:
                    first = effects[0]
                    if len(effects) == 1 and type(first) is Send and not target.holding and first.to in routes:
                        inbox.append((routes[first.to], target.address, LOCAL, cause, first.message))
                    else:
                        self._carry_out(target, effects)
                    effects.clear()
            except Exception as error:  # noqa: BLE001 whatever it was, it is the actor's failure
                self._crashed(target, error)
                if not self._running:
                    break
            ended_ns = monotonic_ns()
            if ended_ns - started_ns > slow_ns:
                self._check_slow(target, type(message).__name__, ended_ns - started_ns)
            started_ns = ended_ns
        self._finish_turn()

    def _turn_rarer(
        self, target: PortCell | LostLink, sender: Address, principal: Principal, cause: str, message: Message
    ) -> None:
        cell = target.cell if isinstance(target, LostLink) else target
        if isinstance(cell, Cell):
            assert isinstance(target, LostLink)
            self._lose_link(cell, target.node)
            return
        if cell not in self._to_flush:
            self._to_flush.append(cell)
        port = cell.port
        if not isinstance(target, LostLink):
            self._guarded(cell.name, lambda: port.on_message(sender, cause, principal, message))
        elif isinstance(port, LinkListener):
            self._guarded(cell.name, lambda: port.on_link_lost(target.node))

    def _finish_turn(self) -> None:
        """One commit, then what waited for it, then one flush."""
        if self._unsynced and not self._commit():
            return
        ports, self._to_flush = self._to_flush, []
        for cell in ports:
            self._guarded(cell.name, cell.port.on_flush)
        if self.transport is not None:
            self.transport.flush()
        if len(self._inbox) > self.settings.max_inbox:
            self._fail(InternalError(f"{len(self._inbox)} messages wait in this process: its actors flood each other"))

    def _commit(self) -> bool:
        """Whether what was asked to be kept is now safe; if so, its Sends are on their way."""
        assert self._store is not None
        held, self._held = self._held, []
        try:
            self._store.commit()
        except StorageError as error:
            self._fail(error)
            return False
        for cell in self._unsynced:
            cell.holding = False
        self._unsynced.clear()
        for cell, cause, to, message in held:
            self._route(cell, cause, to, message)
        return True

    def _guarded(self, name: str, call: Callable[[], object]) -> None:
        """Call into a port, or a caller's function: what it raises is logged, a StorageError ends the process."""
        try:
            call()
        except StorageError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 a port has no supervisor: see ports.py
            self._log("error", "port_failed", {"error": error}, name, "")

    def _check_slow(self, cell: Cell, what: str, took_ns: int) -> None:
        if took_ns > self.settings.slow_handler_ms * 1_000_000:
            self.counts["slow_handlers"] += 1
            fields = {"handler": what, "took_ms": took_ns // 1_000_000}
            self._log("warning", "slow_handler", fields, cell.spec.name, "")

    # -- messages that leave, or find nobody ----------------------------------------------------------------------

    def _send_from(self, name: str, sender: Address, cause: str, to: Address, message: Message) -> None:
        """A message of our own actor or port `name` to anybody."""
        target = self._routes.get(to)
        node = node_of(to)
        if target is not None:
            self._inbox.append((target, sender, LOCAL, cause, message))
        elif not node or node == self._node() or self.transport is None:
            self._dead_letter(actor_of(to) if not node or self.transport else to, sender, cause, message)
        else:
            try:
                self.transport.send(to, name, cause, message)
            except MesosActorError as error:
                self.counts["send_failures"] += 1
                fields = {"to": to, "kind": type(message).__name__, "text": str(error)}
                self._log("error", "send_failed", fields, name, cause)

    def _dead_letter(self, name: str, sender: Address, cause: str, message: Message) -> None:
        """Nobody of that name is here: a sender in another process is told so."""
        if self._ending and not node_of(sender):
            return  # the last words between actors of a process that ends
        self.counts["dead_letters"] += 1
        kind = type(message).__name__
        self._log("warning", "dead_letter", {"to": name, "kind": kind, "sender": sender}, "", cause)
        if node_of(sender) and self.transport is not None and not isinstance(message, Refused):
            text = f"there is no actor {name!r} in {self._node()}"
            self.transport.send(sender, name, cause, Refused(reason="unknown-actor", text=text, about=kind))

    # -- what Crew leaves open ------------------------------------------------------------------------------------

    def _node(self) -> Node:
        return Node("") if self.transport is None else self.transport.node

    def _now_us(self) -> int:
        return time.monotonic_ns() // 1_000 + self._offset_us

    def _rng(self, name: str, incarnation: int) -> random.Random:
        return random.Random(self._seeds.getrandbits(64))

    def _sometimes(self, name: str) -> Callable[[str], bool] | None:
        return None

    def _load(self, name: str) -> Mapping[str, Record]:
        if self._store is None:
            raise StorageError(f"actor {name!r}: is durable, but this process was given no store")
        return self._store.load(name)

    def _keep(self, cell: Cell, writes: list[Write]) -> None:
        assert self._store is not None, "_load has refused durable actors without a store"
        self._store.apply(writes)
        if not cell.holding:
            cell.holding = True
            self._unsynced.append(cell)

    def _hold(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        self._held.append((cell, cause, to, message))

    def _route(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        target = self._routes.get(to)
        if target is not None:
            self._inbox.append((target, cell.address, LOCAL, cause, message))
        else:
            self._send_from(cell.spec.name, cell.address, cause, to, message)

    def _arm(self, cell: Cell, name: str, delay_us: int) -> None:
        self._timers.arm(cell, name, time.monotonic_ns() // 1_000 + delay_us)

    def _watch(self, node: Node) -> None:
        if self.transport is not None:
            self.transport.watch(node)

    def _log(self, level: str, event: str, fields: Mapping[str, Any], actor: str, cause: str) -> None:
        self.log.event(level, event, fields, actor=actor, cause=cause)

    def _failed(self, cell: Cell, error: Exception) -> None:
        """Nothing to add: Crew has logged it."""

    def _gave_up(self, error: MesosActorError) -> None:
        self._fail(error)

    def _added(self, cell: Cell) -> None:
        self._names[cell.spec.name] = cell
        self._add_routes(cell.spec.name, cell)

    def _add_routes(self, name: str, target: Cell | PortCell) -> None:
        self._routes[local(name)] = target
        if self.transport is not None:
            self._routes[address(self.transport.node, name)] = target

    def _ended(self, cell: Cell) -> None:
        name = cell.spec.name
        del self._names[name]
        for route in [route for route, target in self._routes.items() if target is cell]:
            del self._routes[route]

    def _check_name(self, name: str) -> None:
        super()._check_name(name)
        if name in self._names:
            raise ConfigError(f"actor {name!r}: this name is taken in this process; choose another")
