"""Calls of an engine off the loop: a few threads, each with its own connection, and the way back onto the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mesos_actor.isolation.docker_engine import Engine, EngineError
from mesos_actor.isolation.docker_spec import EngineState

CALL_THREADS = 8


class EngineCalls:
    """Made on the loop. `refused` hears, on the loop, what the engine will not do, whenever it is asked."""

    def __init__(self, open_engine: Callable[[], Engine], pause_s: float, refused: Callable[[str, str], None]) -> None:
        self._open = open_engine
        self._pause_s = pause_s
        self._refused = refused
        self._loop = asyncio.get_running_loop()
        self._pool = ThreadPoolExecutor(CALL_THREADS, thread_name_prefix="docker-call")
        self._own = threading.local()
        self._opened: list[Engine] = []
        self.closed = threading.Event()

    def close(self) -> None:
        """At once; the connections are closed when the calls that are on their way have ended."""
        self.closed.set()
        threading.Thread(target=self._end, name="docker-end", daemon=True).start()

    def _end(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        for engine in self._opened:
            engine.close()

    def on_thread(self, call: Callable[[], None]) -> None:
        self._pool.submit(call)

    def on_loop(self, call: Callable[[], None]) -> None:
        """From any thread; nothing happens after `close`."""

        def unless_closed() -> None:
            if not self.closed.is_set():
                call()

        if not self.closed.is_set():
            try:
                self._loop.call_soon_threadsafe(unless_closed)
            except RuntimeError:
                self.closed.set()  # the loop has ended before this thread

    def later(self, what: str, call: Callable[[Engine], None]) -> None:
        """Ask the engine on a thread, again and again while it is away."""

        def work() -> None:
            while not self.closed.is_set():
                try:
                    call(self._engine())
                    return
                except EngineError as error:
                    if error.kind != "away":
                        self._tell_refused(what, str(error))
                        return
                    self.closed.wait(self._pause_s)

        self.on_thread(work)

    def _tell_refused(self, what: str, text: str) -> None:
        self.on_loop(lambda: self._refused(what, text))

    def list(self, key: str, found: Callable[[dict[str, EngineState]], None], away: Callable[[str], None]) -> None:
        """What the engine holds under this key, by its id there: asked until it answers. `away` hears why not yet."""

        def tell_away(text: str) -> None:
            self.on_loop(lambda: away(text))

        def tell_found(states: dict[str, EngineState]) -> None:
            self.on_loop(lambda: found(states))

        def work() -> None:
            while not self.closed.is_set():
                try:
                    states = self._states(key)
                except EngineError as error:
                    tell_away(f"Docker Engine: {error}")
                    self.closed.wait(self._pause_s)
                else:
                    tell_found(states)
                    return

        self.on_thread(work)

    def _engine(self) -> Engine:
        """The calling thread's own."""
        if not hasattr(self._own, "engine"):
            self._own.engine = self._open()
            self._opened.append(self._own.engine)
        engine: Engine = self._own.engine
        return engine

    def _states(self, key: str) -> dict[str, EngineState]:
        engine = self._engine()
        engine.ping()
        states = {}
        for engine_id in engine.listed(key):
            try:
                states[engine_id] = engine.inspect(engine_id)
            except EngineError as error:
                if error.kind != "missing":
                    raise
        return states
