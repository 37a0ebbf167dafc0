"""The only loop: a process's actors and ports on asyncio.

Turns (runtime_turn.py) follow each other for at most `wake_ms`; then descriptors and other users of the asyncio loop
get their share. A process that owns its loop calls `run()`; inside an asyncio program the runtime is an async context
manager.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mesos_actor.actors.errors import ConfigError, InternalError, MesosActorError, StorageError, Unavailable
from mesos_actor.actors.ids import Address, Node, local
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.ports import Port
from mesos_actor.actors.runtime_turn import PortCell, RuntimeSettings, Turns
from mesos_actor.actors.store import Store
from mesos_actor.actors.supervisor import Supervisor
from mesos_actor.transport.clock import Clock, SystemClock
from mesos_actor.transport.transport import Deliver, LinkLost, Transport

__all__ = ["Runtime", "RuntimeSettings", "TransportFactory"]

PACE_WINDOW_NS = 10_000_000
"""Over how long the rate of messages is measured that decides whether a process is busy."""

TransportFactory = Callable[[Deliver, LinkLost], Transport]
"""Makes this process's transport when the runtime starts, on its loop. It calls the two back on that loop's thread."""


class Runtime(Turns):
    """All actors and ports of one process, on asyncio.

    Add actors with `spawn` and ports with `add_port`, then either `run()`, or `async with runtime: await
    runtime.wait()` inside a running asyncio loop. Everything but `call_threadsafe` belongs to the loop's thread.

    The process ends when `stop` is called, when its last actor has ended, or by an error: a StorageError, or an
    InternalError when the supervisor gave up.
    """

    def __init__(
        self,
        *,
        transport: TransportFactory | None = None,
        store: Store | None = None,
        log: Log | None = None,
        supervisor: Supervisor | None = None,
        settings: RuntimeSettings | None = None,
        clock: Clock | None = None,
    ) -> None:
        """`store` is needed by durable actors only, and closed at the end."""
        super().__init__(
            store, log or Log(), supervisor or Supervisor(), settings or RuntimeSettings(), clock or SystemClock()
        )
        self._make_transport = transport
        self._loop: asyncio.AbstractEventLoop | None = None
        self._done = asyncio.Event()
        self._failure_told = False
        self._scheduled = False
        self._closed = False
        self._alarm: asyncio.TimerHandle | None = None
        self._busy = False
        self._window_ns = 0
        self._window_handled = 0
        self._thread_lock = threading.Lock()
        self._thread_calls: deque[Callable[[], object]] = deque()

    # -- set-up and life ------------------------------------------------------------------------------------------

    def add_port(self, name: str, port: Port) -> None:
        """Add a mailbox whose insides are in the shell. Before the start only. Raises ConfigError."""
        self._check_name(name)
        if self._running:
            raise ConfigError(f"port {name!r}: ports are added before the process starts")
        cell = PortCell(name, port)
        self._ports.append(cell)
        self._names[name] = cell

    async def start(self) -> None:
        """Open the transport, start the ports, then the actors. Raises what any of them raises, all closed again."""
        self._loop = asyncio.get_running_loop()
        try:
            if self._make_transport is not None:
                self.transport = self._make_transport(self._deliver, self._link_lost)
            for name, target in self._names.items():
                self._add_routes(name, target)
            for port_cell in self._ports:
                port_cell.port.start(RuntimeOutlet(self, self._loop, port_cell.name))
                port_cell.started = True
            self._start_all()
            self._finish_turn()
        except BaseException:
            self._close()
            raise
        self._schedule()

    async def wait(self) -> None:
        """Return when the process should end. Raises the error that ended it."""
        await self._done.wait()
        if self._failure is not None:
            self._failure_told = True
            raise self._failure

    async def stop(self, drain_s: float | None = None) -> None:
        """End gracefully: `on_stop` in reverse start order, each actor's effects carried out and what they set off in
        this process handled before the next one stops, then the ports, then the transport. Nothing from outside is
        taken meanwhile. Past `drain_s` (default: `drain_ms`) the rest ends without `on_stop`. Again: does nothing."""
        if self._stopping:
            return
        self._stopping = True
        limit_s = self.settings.drain_ms / 1000 if drain_s is None else drain_s
        deadline_ns = time.monotonic_ns() + int(limit_s * 1e9)
        try:
            if not isinstance(self._failure, StorageError) and not self._closed and self._loop is not None:
                self._drain(deadline_ns)
        finally:
            self._close()
            self._done.set()

    def request_stop(self) -> None:
        """Make `wait` return, so that whoever waits stops the process; for signal handlers."""
        self._done.set()

    def run(self) -> int:
        """Run to the end in an asyncio loop of its own, with SIGTERM and SIGINT as the wish to stop. Returns the exit
        status: 0, or 1 after an error, which has been logged."""
        try:
            asyncio.run(self._main())
        except MesosActorError as error:
            self.log.event("error", "process_failed", {"kind": type(error).__name__, "text": str(error)})
            return 1
        finally:
            self.log.close()
        return 0

    async def _main(self) -> None:
        async with self:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.request_stop)
            await self.wait()

    async def __aenter__(self) -> Runtime:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        if error is None and self._failure is not None and not self._failure_told:
            raise self._failure

    # -- the loop -------------------------------------------------------------------------------------------------

    def call_threadsafe(self, call: Callable[..., object], *args: object) -> None:
        """Have the loop call `call(*args)` soon: the one way in from other threads. Raises Unavailable when the process
        does not run or too many calls wait."""
        with self._thread_lock:
            if self._loop is None or self._closed:
                raise Unavailable("the runtime does not run")
            if len(self._thread_calls) >= self.settings.max_thread_calls:
                raise Unavailable(f"{len(self._thread_calls)} calls from other threads wait already; try again later")
            self._thread_calls.append(lambda: call(*args))
            if len(self._thread_calls) == 1:
                try:
                    self._loop.call_soon_threadsafe(self._take_thread_calls)
                except RuntimeError as error:
                    raise Unavailable("the runtime's loop is closed") from error

    def _take_thread_calls(self) -> None:
        with self._thread_lock:
            calls, self._thread_calls = self._thread_calls, deque()
        for call in calls:
            self._guarded("call_threadsafe", call)

    def _schedule(self) -> None:
        if not self._scheduled and self._loop is not None:
            self._scheduled = True
            self._loop.call_soon(self._wake)

    def _wake(self) -> None:
        self._scheduled = False
        if self._stopping or self._failure is not None:
            return
        deadline_ns = time.monotonic_ns() + self.settings.wake_ms * 1_000_000
        try:
            while True:
                self._fire_due()
                self._turn()
                if not self._running:
                    return
                due_us = self._timers.next_due_us()
                now_ns = time.monotonic_ns()
                if not self._inbox and not self._urgent and (due_us is None or due_us > now_ns // 1_000):
                    break
                if now_ns > deadline_ns:
                    self._schedule()
                    return
            self._pace(now_ns, due_us)
            self._set_alarm(due_us)
            if self.cells and not self.alive():
                self._done.set()
        except Exception as error:  # noqa: BLE001 a bug of ours: nothing may go on as if it had not happened
            self._log("error", "runtime_failed", {"error": error}, "", "")
            self._fail(InternalError(f"the runtime failed: {error!r}"))

    def _pace(self, now_ns: int, due_us: int | None) -> None:
        """Let more arrive before the next wake when many messages came lately; never past a timer that is due.

        Measured with 2,000 `true` tasks on 64 slots: without it every exit of a task set off a chain of wakes, frames
        and commits of its own through three processes."""
        pace_ms = self.settings.pace_ms
        if not pace_ms:
            return
        elapsed_ns = now_ns - self._window_ns
        if elapsed_ns >= PACE_WINDOW_NS:
            came = self._handled - self._window_handled
            self._busy = came * PACE_WINDOW_NS > self.settings.pace_above * elapsed_ns
            self._window_ns, self._window_handled = now_ns, self._handled
        if self._busy and (due_us is None or due_us * 1_000 > now_ns + pace_ms * 1_000_000):
            time.sleep(pace_ms / 1_000)

    def _set_alarm(self, due_us: int | None) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if due_us is not None and self._loop is not None:
            delay_us = max(0, due_us - time.monotonic_ns() // 1_000)
            self._alarm = self._loop.call_later(delay_us / 1e6, self._schedule)

    # -- ending ---------------------------------------------------------------------------------------------------

    def _fail(self, error: MesosActorError) -> None:
        self._running = False
        if self._failure is None:
            self._failure = error
            self._log("error", "process_failing", {"kind": type(error).__name__, "text": str(error)}, "", "")
        self._done.set()

    def _drain(self, deadline_ns: int) -> None:
        self._ending = True
        for name in reversed(list(self.cells)):
            if time.monotonic_ns() > deadline_ns:
                self._log("warning", "drain_cut_short", {"actors": " ".join(self.alive())}, "", "")
                return
            self._stop(self.cells[name])
            self._finish_turn()
            while self._inbox and not isinstance(self._failure, StorageError) and time.monotonic_ns() < deadline_ns:
                self._turn()

    def _close(self) -> None:
        """Everything given back, in reverse order; what refuses is logged."""
        with self._thread_lock:
            self._closed = True
            self._thread_calls.clear()
        self._running = False
        self._stopping = True
        if self._alarm is not None:
            self._alarm.cancel()
        for cell in reversed(self._ports):
            if cell.started:
                self._guarded(cell.name, cell.port.close)
        if self.transport is not None:
            self._guarded("transport", self.transport.close)
        if self._store is not None:
            self._guarded("store", self._store.close)


class RuntimeOutlet:
    """What a port is given: see ports.Outlet."""

    def __init__(self, runtime: Runtime, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._runtime = runtime
        self._loop = loop
        self._address = local(name)
        self.name = name
        self.rng = runtime._rng(name, 0)

    @property
    def node(self) -> Node:
        return self._runtime._node()

    def now_us(self) -> int:
        return self._runtime._now_us()

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        self._runtime._send_from(self.name, self._address, cause, to, message)
        self._runtime._schedule()

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(max(0, delay_us) / 1e6, self._runtime._guarded, self.name, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self._runtime._log(level, event, fields, self.name, "")
