"""One life of a host's process in the simulation: the same Crew as under the real runtime, on virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mesos_actor.actors.crew import LOCAL, Cell, Crew, Write
from mesos_actor.actors.errors import ConfigError, MesosActorError, StorageError
from mesos_actor.actors.ids import Address, Node, Principal, actor_of, node_of
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.scheduler import Refused
from mesos_actor.actors.ports import LinkListener, Port
from mesos_actor.actors.supervisor import Supervisor
from mesos_actor.transport.codec import decode_message, encode_message
from mesos_actor.transport.sim.files import ProcessOver
from mesos_actor.transport.sim.plan import FAILED

if TYPE_CHECKING:
    from mesos_actor.transport.sim.host import Host

LOCAL_HOP_US = 10
"""What a message inside one process takes: more than nothing, so that actors that flood each other move the clock."""
LAST_WORDS_US = 10_000
"""How long a graceful stop gives each actor's last messages before the next one stops."""


class Process(Crew):
    """Ends by a crash, by `stop`, when its last actor has ended, or when its supervisor gave up."""

    def __init__(self, host: Host, supervisor: Supervisor, node: Node) -> None:
        super().__init__(supervisor)
        self.host = host
        self.over = False
        self.ports: dict[str, Port] = {}
        self.started = False
        self._world = host.world
        self._schedule = host.world.schedule
        self._own_node = node
        self._mark = 0
        self._bereft = False
        """Whether an actor has ended for good: it may have been the last one."""
        #: actor -> the number of the last batch it wrote
        self._last_batch: dict[str, int] = {}
        #: (batch, cell, cause, to, message): leaves once that batch is synced
        self._held: list[tuple[int, Cell, str, Address, Message]] = []
        #: local messages on their way
        self._in_flight = 0
        self.transport = host.world.network.attach(host.name, node, host.principal, self._deliver, self._link_lost)

    # -- life -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start the actors; the ports have been started."""
        self.started = True
        self._start_all()
        self._finish()

    def end(self, keep_unsynced: int = 0) -> None:
        """It is gone, at once; what it had not synced too."""
        self.over = True
        self._running = False
        for cell in self.cells.values():
            self._discard(cell)
        self.transport._queue.clear()
        self._world.network.detach(self.transport)
        self.host.disk.crash(keep_unsynced)
        self.host.files.crash()

    def stop(self) -> None:
        """Gracefully: `on_stop` in reverse start order, each with time for its last words."""
        self._ending = True
        self._stop_next(list(self.cells.values()))

    def _stop_next(self, left: list[Cell]) -> None:
        if self._in_flight or self.host.disk.written > self.host.disk.synced:
            self._after(LAST_WORDS_US, self._stop_next, left)
        elif left:
            cell = left.pop()
            self._happened("stop", cell.spec.name)
            self._stop(cell)
            self._finish()
            self._after(LAST_WORDS_US, self._stop_next, left)
        else:
            for name, port in reversed(list(self.ports.items())):
                self.guarded(name, port.close)  # which may be the last thing, at its disk
            if not self.over:
                self.transport.close()
                self.host._down("exit")

    def _after(self, delay_us: int, call: Callable[..., None], *args: Any) -> None:
        self._schedule.after(delay_us, self._enter, call, args)

    def _enter(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Everything that happens to the process passes here: nothing reaches one that is over, and one that is paused
        gets it, in order, when it goes on."""
        if self.over:
            return
        if self._schedule.now_us < self.host.paused_until_us:
            self._schedule.at(self.host.paused_until_us, self._enter, call, args)
            return
        call(*args)

    def _finish(self) -> None:
        """The end of a turn."""
        if self.over:
            return
        self.transport.flush()
        if self._bereft and self._running and not self._ending and not self.alive():
            self._ending = True
            self._stop_next([])

    # -- messages in ----------------------------------------------------------------------------------------------

    def _deliver(self, name: str, sender: Address, principal: Principal, cause: str, message: Message) -> None:
        if self._ending:
            return  # as the real one: a process that ends takes nothing more from outside
        if self._schedule.now_us < self.host.paused_until_us:
            self._enter(self._receive_from, (name, sender, principal, cause, message))
        elif not self.over:
            self._receive_from(name, sender, principal, cause, message)

    def _receive_from(self, name: str, sender: Address, principal: Principal, cause: str, message: Message) -> None:
        cell = self.cells.get(name)
        if cell is not None and cell.actor is not None:
            self._world._happened("message", self.host.name, name, sender, cause, message)
            cell.ctx.principal = principal
            self._call(cell, cause, cell.actor.on_message, sender, message)
        elif (port := self.ports.get(name)) is not None:
            self._happened("message", name, sender, cause, message)
            self.guarded(name, lambda: port.on_message(sender, cause, principal, message))
            self.guarded(name, port.on_flush)
        else:
            self._dead_letter(name, sender, cause, message)
        self._finish()

    def guarded(self, name: str, call: Callable[[], object]) -> None:
        """Call into a port. A StorageError ends the process; anything else is its bug."""
        if self.over:
            return
        try:
            call()
        except StorageError as error:
            self.host.failure = error
            self._log("error", "process_failing", {"kind": "StorageError", "text": str(error)}, name, "")
            self.host._down("failed")
        except ProcessOver:
            return
        except AssertionError:
            raise
        except Exception as error:  # noqa: BLE001 whatever it was, it is the port's failure
            self._world._actor_failed(self.host.name, name, error)

    def _arrive_locally(self, name: str, sender: Address, cause: str, data: bytes) -> None:
        self._in_flight -= 1
        self._receive_from(name, sender, LOCAL, cause, decode_message(data))

    def _dead_letter(self, name: str, sender: Address, cause: str, message: Message) -> None:
        kind = type(message).__name__
        if self._ending and not node_of(sender):
            return
        self._log("warning", "dead_letter", {"to": name, "kind": kind, "sender": sender}, "", cause)
        if node_of(sender) and not isinstance(message, Refused):
            text = f"there is no actor {name!r} in {self._own_node}"
            self.transport.send(sender, name, cause, Refused(reason="unknown-actor", text=text, about=kind))

    def _link_lost(self, node: Node) -> None:
        if not self._ending:
            self._enter(self._lose_links, (node,))

    def _lose_links(self, node: Node) -> None:
        self._happened("link_lost", "", detail=node)
        for name, port in self.ports.items():
            if isinstance(port, LinkListener):
                self.guarded(name, lambda port=port: port.on_link_lost(node))  # type: ignore[misc]
                self.guarded(name, port.on_flush)
        for cell in list(self.cells.values()):
            self._lose_link(cell, node)
        self._finish()

    def _timer_due(self, cell: Cell, name: str, mark: int) -> None:
        if cell.actor is not None and cell.timers.get(name) == mark and not self._ending:
            self._happened("timer", cell.spec.name, detail=name)
            self._fire(cell, name, mark)
            self._finish()

    def _happened(
        self, kind: str, actor: str, sender: str = "", cause: str = "", message: Message | None = None, detail: str = ""
    ) -> None:
        self._world._happened(kind, self.host.name, actor, sender, cause, message, detail)

    # -- messages out ---------------------------------------------------------------------------------------------

    def send_from(self, name: str, sender: Address, cause: str, to: Address, message: Message) -> None:
        """A message of our actor or port `name` to anybody."""
        node = node_of(to)
        for told in self._world.listeners.get(type(message), ()):
            told(self.host.name, message)
        if node and node != self._own_node:
            self.transport.refused = ""
            self.transport.send(to, name, cause, message)
            if self.transport.refused:
                fields = {"to": to, "kind": type(message).__name__, "text": self.transport.refused}
                self._log("error", "send_failed", fields, name, cause)
        else:
            self._in_flight += 1
            self._after(LOCAL_HOP_US, self._arrive_locally, actor_of(to), sender, cause, encode_message(message))

    def _route(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        self.send_from(cell.spec.name, cell.address, cause, to, message)

    def _hold(self, cell: Cell, cause: str, to: Address, message: Message) -> None:
        self._held.append((self._last_batch[cell.spec.name], cell, cause, to, message))

    # -- the disk -------------------------------------------------------------------------------------------------

    def _load(self, name: str) -> Mapping[str, Record]:
        return self.host.disk.load(name)

    def _keep(self, cell: Cell, writes: list[Write]) -> None:
        disk = self.host.disk
        batch = disk.write(writes)
        cell.holding = True
        self._last_batch[cell.spec.name] = batch
        fate = self.host.next_sync()
        sync_us = self._world.settings.sync_us
        if not fate:
            self._schedule.after(sync_us // 2, self.host._die_at_disk, self)
            return
        if fate == FAILED:
            self._schedule.after(sync_us, self.host._refused_by_disk, self)
            return
        disk.free_at_us = max(self._schedule.now_us, disk.free_at_us) + sync_us + fate[0]
        self._schedule.at(disk.free_at_us, self._synced, batch)

    def _synced(self, batch: int) -> None:
        """The disk does its work while the process is paused; the process hears of it afterwards."""
        if not self.over:
            self.host.disk.sync(batch)
            self._enter(self._release, (batch,))

    def _release(self, batch: int) -> None:
        self._happened("synced", "", detail=str(batch))
        for cell in self.cells.values():
            if cell.holding and self._last_batch[cell.spec.name] <= batch:
                cell.holding = False
        held, self._held = self._held, []
        for item in held:
            if item[0] <= batch:
                self._route(*item[1:])
            else:
                self._held.append(item)
        self._finish()

    # -- what Crew leaves open ------------------------------------------------------------------------------------

    def _node(self) -> Node:
        return self._own_node

    def _now_us(self) -> int:
        return self.host.clock_us()

    def _rng(self, name: str, incarnation: int) -> random.Random:
        return random.Random(f"{self._world.seed}/{self.host.name}/{name}/{self.host.incarnation}/{incarnation}")

    def _sometimes(self, name: str) -> Callable[[str], bool] | None:
        return self._world.plan.sometimes

    def _arm(self, cell: Cell, name: str, delay_us: int) -> None:
        self._mark += 1
        cell.timers[name] = self._mark
        self._after(self.host.true_us(delay_us), self._timer_due, cell, name, self._mark)

    def _watch(self, node: Node) -> None:
        self.transport.watch(node)

    def _log(self, level: str, event: str, fields: Mapping[str, Any], actor: str, cause: str) -> None:
        self._world._logged(self.host.name, level, event, fields, actor, cause)

    def _failed(self, cell: Cell, error: Exception) -> None:
        self._world._actor_failed(self.host.name, cell.spec.name, error)

    def _gave_up(self, error: MesosActorError) -> None:
        self.host.failure = error
        if isinstance(error, StorageError):
            self._after(0, self.host._down, "failed")
        else:
            self._after(0, self.stop)

    def _added(self, cell: Cell) -> None:
        """Nothing to do: mailboxes are found by name."""

    def _ended(self, cell: Cell) -> None:
        self._bereft = True

    def _check_name(self, name: str) -> None:
        super()._check_name(name)
        if name in self.ports:
            raise ConfigError(f"actor {name!r}: this name is taken in this process; choose another")
