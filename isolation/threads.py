"""Work off the loop whose result comes back onto it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Threads:
    """A pool that is made when it is first needed. Use it from the loop's thread only.

    How much waits in it is bounded by whoever hands work in. `closed` says that results are not wanted any more.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int, name: str, closed: Callable[[], bool]) -> None:
        self._loop = loop
        self._count = count
        self._name = name
        self._closed = closed
        self._pool: ThreadPoolExecutor | None = None

    def run(self, work: Callable[[], T], then: Callable[[T], None]) -> None:
        """Call `work` on a thread, then `then` with its result on the loop, unless we are closed by then. `work` must
        not raise: nobody would hear of it."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._count, thread_name_prefix=self._name)

        def working() -> None:
            result = work()
            if not self._closed():
                try:
                    self._loop.call_soon_threadsafe(deliver, result)
                except RuntimeError:
                    return  # the loop has ended before this thread

        def deliver(result: T) -> None:
            if not self._closed():
                then(result)

        self._pool.submit(working)

    def close(self) -> None:
        """Drop what has not begun; do not wait for what has."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
