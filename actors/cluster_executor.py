"""`ClusterExecutor`: Python callables on the cluster, behind the interface of `concurrent.futures`.

The scheduler runs in a daemon thread with a loop of its own; `submit` may be called from any thread. Functions and
arguments are pickled by the caller, results by the worker; in between they are opaque bytes. Like any pickle, a result
can run code when it is opened: use it only with a cluster whose agents you trust with your account.
"""

from __future__ import annotations

import contextlib
import itertools
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import cloudpickle
import msgspec

from mesos_actor.actors.callable_framework import (
    VALUE,
    CallableFramework,
    Cancelled,
    Closing,
    Failure,
    Submitted,
    WorkerSettings,
)
from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import InvalidInput, LocalError
from mesos_actor.actors.ids import ExecutorId
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.values import Command, ExecutorInfo
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import Masters, client_keys, master_addresses, run

MAX_CALL_BYTES = 4 << 20
"""The longest pickled function with its arguments; larger data belongs into files that the agents can read."""
MAX_PENDING = 10_000
"""Calls that may be unfinished; past it `submit` waits."""
WORKER_MEM_MB = 64
"""What a worker takes beside its calls: a Python with our transport and cloudpickle."""

P = ParamSpec("P")
R = TypeVar("R")


class WorkerLost(BrokenExecutor):
    """The worker ended before the call did, or the cluster refused the call: its effects are unknown. Other calls and
    later ones are not affected."""


class RemoteTraceback(Exception):
    """The cause of an exception that a call raised: its text is the traceback in the worker."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text

    def __str__(self) -> str:
        return f'\n"""\n{self.text}"""'


class RemoteError(Exception):
    """A call raised an exception that cannot be brought here; the text tells which."""


class ClusterExecutor(Executor):
    """Runs calls on the cluster's agents, each on `cpus` and `mem_mb`.

    Workers are processes of the agents' own interpreter, which must be of our minor version; `slots` calls run in one
    worker at the same time, as threads. `retries`: how often a call is run again when its worker was lost; the default
    does not, because the call may have had effects. `max_pending` bounds unfinished calls: past it `submit` waits.
    `masters`, `key_dir`, `insecure`, `log` are those of `run`. Raises InvalidInput, ConfigError, SecurityError.
    """

    def __init__(
        self,
        masters: Masters = None,
        *,
        cpus: float = 1.0,
        mem_mb: float = 256.0,
        slots: int = 1,
        retries: int = 0,
        role: str = "*",
        name: str = "ClusterExecutor",
        max_pending: int = MAX_PENDING,
        key_dir: str | Path | None = None,
        insecure: bool = False,
        log: Log | None = None,
    ) -> None:
        for field, value, least in (("slots", slots, 1), ("retries", retries, 0), ("max_pending", max_pending, 1)):
            if value < least:
                raise InvalidInput(f"{field}: {value} is too small; give at least {least}")
        addresses = master_addresses(masters)
        client_keys(addresses, key_dir, insecure, log or Log(level="error"))  # a mistake is told here, not in a thread
        self._lock = threading.Lock()
        self._room = threading.BoundedSemaphore(max_pending)
        self._max_pending = max_pending
        self._numbers = itertools.count()
        #: Number to future, for calls that are not over.
        self._futures: dict[int, Future[Any]] = {}
        self._shut = False
        self._broken: BaseException | None = None
        settings = WorkerSettings((sys.version_info[0], sys.version_info[1]), slots)
        worker = ExecutorInfo(
            ExecutorId("calls"),
            Command(("/bin/sh", "-c", _worker_command())),
            Resources.of(mem=WORKER_MEM_MB),
            data=msgspec.msgpack.encode(settings),
        )
        share = Resources.of(cpus=cpus, mem=mem_mb)
        self._framework = CallableFramework(worker, share, slots, retries, self._claim, self._settle)
        self._framework.roles = (role,)
        self._framework.name = name
        self._framework.info()  # tells of a role that cannot be used
        options: dict[str, Any] = {"masters": addresses, "key_dir": key_dir, "insecure": insecure, "log": log}
        self._thread = threading.Thread(target=self._run, args=(options,), name=name, daemon=True)
        self._thread.start()

    # -- the interface of concurrent.futures ------------------------------------------------------------------------

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Have `fn(*args, **kwargs)` run on the cluster. Waits while `max_pending` calls are unfinished.

        Raises InvalidInput when the pickled call is too long, what pickling raises, RuntimeError after `shutdown`, and
        BrokenExecutor when the scheduler has failed.
        """
        data = cloudpickle.dumps((fn, args, kwargs), protocol=5)
        if len(data) > MAX_CALL_BYTES:
            raise InvalidInput(
                f"the call has {len(data)} bytes, at most {MAX_CALL_BYTES} can be sent; "
                "put large arguments into files that the agents can read"
            )
        in_callback = threading.current_thread() is self._thread
        if not self._room.acquire(blocking=not in_callback):
            raise RuntimeError(f"{self._max_pending} calls are unfinished, and a done-callback cannot wait for them")
        future: Future[R] = Future()
        try:
            with self._lock:
                self._check_open()
                number = next(self._numbers)
                self._futures[number] = future
                self._framework.post(Submitted(number, data))
        except BaseException:
            self._room.release()
            raise
        future.add_done_callback(partial(self._forget, number))
        return future

    def map(
        self, fn: Callable[..., R], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[R]:
        """As `Executor.map`; with a `chunksize` one call handles so many items."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        items = zip(*iterables, strict=False)
        chunks = iter(lambda: list(itertools.islice(items, chunksize)), [])
        return itertools.chain.from_iterable(super().map(partial(_apply, fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and stop when those unfinished are over; `cancel_futures` cancels those that wait. With
        `wait`, return only then. Workers end with the scheduler."""
        with self._lock:
            first, self._shut = not self._shut, True
            futures = list(self._futures.values())
        if cancel_futures:
            for future in futures:
                future.cancel()
        if first or cancel_futures:
            with contextlib.suppress(LocalError):  # the run is over already
                self._framework.post(Closing(cancel_futures))
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()

    # -- in the scheduler's thread ----------------------------------------------------------------------------------

    def _run(self, options: dict[str, Any]) -> None:
        broken: BaseException = RuntimeError("the scheduler has stopped")
        try:
            run(self._framework, **options)
        except BaseException as error:  # noqa: BLE001 - whatever it was, every waiting caller has to be told
            broken = error
        with self._lock:
            self._broken = broken
            futures = list(self._futures.values())
        for future in futures:
            if not future.done() and (future.running() or future.set_running_or_notify_cancel()):
                failed = BrokenExecutor(f"the scheduler failed: {broken}")
                failed.__cause__ = broken
                future.set_exception(failed)

    def _claim(self, number: int) -> bool:
        future = self._futures.get(number)
        return future is not None and future.set_running_or_notify_cancel()

    def _settle(self, number: int, result: bytes, error: str) -> None:
        future = self._futures.get(number)
        if future is None or not (future.running() or future.set_running_or_notify_cancel()):
            return
        if error:
            future.set_exception(WorkerLost(error))
            return
        value: Any = None
        raised: BaseException | None
        try:
            value, raised = _opened(result)
        except Exception as unpicklable:  # noqa: BLE001 - opening a pickle may raise anything; it is the call's result
            raised = RemoteError(f"the result cannot be unpickled here: {unpicklable!r}")
            raised.__cause__ = unpicklable
        if raised is not None:
            future.set_exception(raised)
        else:
            future.set_result(value)

    # -- shared -----------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if self._broken is not None:
            raise BrokenExecutor(f"the scheduler failed: {self._broken}") from self._broken

    def _forget(self, number: int, future: Future[Any]) -> None:
        with self._lock:
            self._futures.pop(number, None)
        self._room.release()
        if future.cancelled():
            future.set_running_or_notify_cancel()  # so that wait() and as_completed() hear of it at once
            with contextlib.suppress(LocalError):  # the run is over: nothing waits any more
                self._framework.post(Cancelled(number))


def _worker_command() -> str:
    """Runs on the agent's own interpreter, as far as the agent tells which that is."""
    return f'exec "${{{environment.PYTHON}:-python3}}" -m mesos_actor.actors.callable_executor'


def _apply(fn: Callable[..., R], chunk: list[tuple[Any, ...]]) -> list[R]:
    return [fn(*items) for items in chunk]


def _opened(result: bytes) -> tuple[Any, BaseException | None]:
    """The value, or the exception that the call raised."""
    if result[:1] == VALUE:
        return pickle.loads(memoryview(result)[1:]), None  # noqa: S301 - our own worker's answer to our own call
    failure = msgspec.msgpack.decode(memoryview(result)[1:], type=Failure)
    error: BaseException = RemoteError(failure.text)
    if failure.pickled:
        try:
            found = pickle.loads(failure.pickled)  # noqa: S301 - as above
            error = found if isinstance(found, BaseException) else error
        except Exception:  # noqa: BLE001 - exceptions with arguments of their own often cannot be opened; the text can
            error = RemoteError(failure.text)
    error.__cause__ = RemoteTraceback(failure.traceback)
    return None, error
