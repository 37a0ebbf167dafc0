"""Running a `Framework` or an `Executor` in a real process: the shell around their drivers.

`run` blocks the caller's thread until the framework has stopped. `running` is the same inside an asyncio program.
`run_executor` is what an executor's program calls. All three make a runtime with the driver as its only actor, an
outgoing ZeroMQ transport, and a store when there is a state directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import zmq

from mesos_actor.actors.callbacks import CallbackActor, Callbacks, StopRequest
from mesos_actor.actors.config_values import host_and_port, join_host_port
from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import ConfigError, InternalError, LocalError, Unavailable
from mesos_actor.actors.executor import Executor, ExecutorActor
from mesos_actor.actors.framework import Framework
from mesos_actor.actors.ids import Address, ContainerId, ExecutorId, FrameworkId
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.scheduler import Posted
from mesos_actor.actors.runtime import Runtime, RuntimeSettings, TransportFactory
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.store import MemoryStore, SqliteStore
from mesos_actor.transport.security import Keys, load_keys, user_key, user_key_dir
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

SLOW_CALLBACK_S = 0.1
"""A callback that took longer is named in the log: nothing else of this process happens meanwhile."""

DEFAULT_MASTERS = "127.0.0.1:5050"
"""This user's one-host cluster."""

STATE_FILE = "framework.db"
_LOOPBACK = ("127.", "localhost:", "[::1]:")

A = TypeVar("A", bound=Callbacks)
F = TypeVar("F", bound=Framework)
Masters = str | Sequence[str] | None


# -- frameworks -------------------------------------------------------------------------------------------------------


def run(
    framework: F,
    masters: Masters = None,
    *,
    state_dir: str | Path | None = None,
    key_dir: str | Path | None = None,
    insecure: bool = False,
    log: Log | None = None,
) -> F:
    """Run `framework` in this thread until it stops; returns it.

    `masters`: `host:port[,host:port…]` or a list of such; by default MESOS_ACTOR_MASTERS, else this user's one-host
    cluster. `state_dir` keeps the framework's id and records, so that the next run takes up where this one ended;
    without it nothing is kept. `key_dir` holds the cluster's keys (default: MESOS_ACTOR_KEY_DIR, else the user's own).
    `insecure` switches encryption and authentication off. `log`: warnings and errors on stderr by default.

    Raises what a callback raised, PeerError when the master refuses the framework for good, ConfigError,
    SecurityError, StorageError. SIGINT and SIGTERM, when nobody else handles them, leave the cluster in order (the
    tasks live on for `failover_timeout_s`) and end as KeyboardInterrupt and SystemExit. Must not be called where an
    asyncio loop runs: there use `running`.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        pass
    else:
        raise LocalError("run() blocks this thread's asyncio loop; use `async with running(framework)` there")
    ours = _signals_nobody_handles()

    async def main() -> F:
        session = _framework_session(framework, masters, state_dir, key_dir, insecure, log)
        await session.run_to_the_end(ours)
        return session.result()

    return asyncio.run(main())


@contextlib.asynccontextmanager
async def running(
    framework: F,
    masters: Masters = None,
    *,
    state_dir: str | Path | None = None,
    key_dir: str | Path | None = None,
    insecure: bool = False,
    failover: bool = False,
    log: Log | None = None,
) -> AsyncIterator[Session[F]]:
    """Run `framework` on the running asyncio loop while the block is executed; callbacks come between its awaits.

    The session's `wait()` returns the framework when it has stopped by itself. Leaving the block stops it: torn down,
    or, with `failover` or after an exception in the block, left to its `failover_timeout_s`. Otherwise as `run`.
    """
    session = _framework_session(framework, masters, state_dir, key_dir, insecure, log)
    async with session.opened():
        try:
            yield session
        except BaseException:
            session.request_stop(failover=True)
            await session.ended()
            raise
        session.request_stop(failover)
        await session.ended()
    session.result()


class Session(Generic[A]):
    """One run of an author's object."""

    def __init__(
        self, author: A, driver: Callable[[LoopHost], CallbackActor], runtime: Runtime, mailbox: str, log: Log
    ) -> None:
        self.author = author
        self._make = driver
        self._runtime = runtime
        self._mailbox = mailbox
        self._log = log
        self._driver: CallbackActor | None = None

    async def wait(self) -> A:
        """Return the author's object when it has stopped. Raises what ended the run."""
        await self.ended()
        return self.result()

    def request_stop(self, failover: bool = False) -> None:
        """Have it stop soon, as its own `stop` would; nothing happens when it has stopped."""
        if not self.author._over:
            self.author.post(StopRequest(failover))

    async def ended(self) -> None:
        """Return when the run is over, whatever its result. Raises what ended the process, such as StorageError."""
        await self._runtime.wait()

    def result(self) -> A:
        """The author's object. Raises what a callback or the master ended the run with."""
        driver = self._driver
        if driver is None or not driver.ended:
            raise InternalError("the driver failed; its error is in the log")
        if driver.failure is not None:
            raise driver.failure
        return self.author

    async def run_to_the_end(self, signals: Sequence[signal.Signals]) -> None:
        """Open, wait, close. One of `signals` ends it gracefully: as KeyboardInterrupt for SIGINT, else SystemExit."""
        caught: list[signal.Signals] = []

        def stop(number: signal.Signals) -> None:
            caught.append(number)
            self._runtime.request_stop()

        async with self.opened():
            loop = asyncio.get_running_loop()
            for number in signals:
                loop.add_signal_handler(number, stop, number)
            try:
                await self.ended()
            finally:
                for number in signals:
                    loop.remove_signal_handler(number)
        if caught:
            raise KeyboardInterrupt if caught[0] is signal.SIGINT else SystemExit(128 + caught[0])

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """The runtime runs during the block."""
        host = LoopHost(self._runtime, self._mailbox, type(self.author).__name__, self._log)
        self._driver = self._make(host)
        driver = self._driver
        self._runtime.spawn(self._mailbox, lambda: driver, durable=True, restart="temporary")
        try:
            async with self._runtime:
                yield
        finally:
            self.author._over = True
            self._log.close()


class LoopHost:
    """What a real process adds to callbacks: a stopwatch, the thread they belong to, and a way to wake the loop."""

    def __init__(self, runtime: Runtime, mailbox: str, author: str, log: Log) -> None:
        self._runtime = runtime
        self._mailbox = mailbox
        self._author = author
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._woken = False

    def call(self, name: str, callback: Callable[[], None]) -> None:
        started_s = time.monotonic()
        try:
            callback()
        finally:
            took_s = time.monotonic() - started_s
            if took_s > SLOW_CALLBACK_S:
                fields = {"callback": f"{self._author}.{name}", "took_s": round(took_s, 3)}
                self._log.event("warning", "slow_callback", fields, actor=self._mailbox)

    def acting_here(self) -> bool:
        return threading.get_ident() == self._thread

    def wake(self) -> None:
        """Also legal in a signal handler: takes no lock of ours."""
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._post)
            except RuntimeError as error:
                raise LocalError(f"post: the run of {self._author} is over") from error

    def _post(self) -> None:
        self._woken = False
        with contextlib.suppress(Unavailable):  # it is stopping: nobody waits for what was posted
            self._runtime.post(self._mailbox, Posted())


# -- executors --------------------------------------------------------------------------------------------------------


def run_executor(executor: Executor, log: Log | None = None) -> None:
    """Run `executor` in this thread until it stops, under the agent that started this process.

    Raises ConfigError when no agent did, and what a callback raised. The keys that the agent put into the environment
    are taken out of it, so that nothing the executor starts inherits them.
    """
    values = {}
    for name in (
        environment.AGENT_ADDRESS,
        environment.FRAMEWORK_ID,
        environment.EXECUTOR_ID,
        environment.CONTAINER_ID,
    ):
        values[name] = os.environ.get(name, "")
        if not values[name]:
            raise ConfigError(f"{name} is not set: an executor is started by an agent, as ExecutorInfo.command")
    secret = os.environ.pop(environment.EXECUTOR_KEY, "").encode()
    public = os.environ.pop(environment.CLUSTER_PUBLIC_KEY, "").encode()
    keys = Keys(public, zmq.curve_public(secret), secret) if secret else None

    def driver(host: LoopHost) -> CallbackActor:
        return ExecutorActor(
            executor,
            Address(values[environment.AGENT_ADDRESS]),
            FrameworkId(values[environment.FRAMEWORK_ID]),
            ExecutorId(values[environment.EXECUTOR_ID]),
            ContainerId(values[environment.CONTAINER_ID]),
            host,
        )

    asyncio.run(_run_executor(executor, driver, keys, log or Log(level="warning")))


async def _run_executor(
    executor: Executor, driver: Callable[[LoopHost], CallbackActor], keys: Keys | None, log: Log
) -> None:
    session = Session(executor, driver, _runtime(keys, None, log), "executor", log)
    async with session.opened():
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, session.request_stop)
        await session.ended()
    session.result()


def _signals_nobody_handles() -> list[signal.Signals]:
    """SIGINT and SIGTERM as far as they are still as Python found them, and only in the thread that may handle them."""
    if threading.current_thread() is not threading.main_thread():
        return []
    untouched = (signal.SIG_DFL, signal.default_int_handler)
    return [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) in untouched]


# -- parts ------------------------------------------------------------------------------------------------------------


def master_addresses(masters: Masters) -> tuple[Address, ...]:
    """The masters' mailboxes. None or empty: MESOS_ACTOR_MASTERS, else the one-host cluster. Raises ConfigError."""
    if not masters:
        masters = os.environ.get("MESOS_ACTOR_MASTERS") or DEFAULT_MASTERS
    listed = masters.split(",") if isinstance(masters, str) else list(masters)
    places = (text.strip().removeprefix("tcp://").removesuffix("/master") for text in listed)
    found = [Address(f"tcp://{join_host_port(*host_and_port('masters', place))}/master") for place in places]
    return tuple(dict.fromkeys(found))


def client_keys(masters: Sequence[Address], key_dir: str | Path | None, insecure: bool, log: Log) -> Keys | None:
    """The keys to speak to these masters with; None when security is off, which is said loudly.

    On loopback this user's own key is made when it is missing. Raises SecurityError.
    """
    if insecure:
        log.event("warning", "insecure", {"text": "no encryption, no authentication: anybody may act as anybody"})
        return None
    key_dir = key_dir or os.environ.get("MESOS_ACTOR_KEY_DIR")
    if key_dir:
        return load_keys(Path(key_dir).expanduser())
    if all(address.removeprefix("tcp://").startswith(_LOOPBACK) for address in masters):
        return user_key()
    return load_keys(user_key_dir())


def _framework_session(
    framework: F,
    masters: Masters,
    state_dir: str | Path | None,
    key_dir: str | Path | None,
    insecure: bool,
    log: Log | None,
) -> Session[F]:
    if isinstance(framework, type):
        raise ConfigError(f"framework: {framework.__name__} is a class; give one object of it, {framework.__name__}(…)")
    if framework._over:
        raise LocalError(f"this {type(framework).__name__} has run already; make a new one for the next run")
    log = log or Log(level="warning")
    addresses = master_addresses(masters)
    keys = client_keys(addresses, key_dir, insecure, log)
    runtime = _runtime(keys, state_dir, log)
    return Session(framework, lambda host: FrameworkActor(framework, addresses, host), runtime, "framework", log)


def _runtime(keys: Keys | None, state_dir: str | Path | None, log: Log) -> Runtime:
    store = SqliteStore(Path(state_dir).expanduser() / STATE_FILE) if state_dir is not None else MemoryStore()
    # The driver's own handlers take microseconds; a slow one is the author's, whom LoopHost names.
    settings = RuntimeSettings(slow_handler_ms=10_000)
    return Runtime(transport=_dialling(keys, log), store=store, log=log, settings=settings)


def _dialling(keys: Keys | None, log: Log) -> TransportFactory:
    def make(deliver: Deliver, lost: LinkLost) -> Transport:
        def report(event: str, fields: Mapping[str, object]) -> None:
            log.event("warning", event, fields, actor="transport")

        return ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, report=report)

    return make
