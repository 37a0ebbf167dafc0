"""Takes back, on a thread, what isolators made for containers that are not needed any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.isolator import Isolation
from mesos_actor.isolation.threads import Threads

MAX_STUCK = 10_000
"""Containers of which something could not be taken back, tried again and again; past that they are left to the next
start of the agent, which finds them anew."""


class Cleaner:
    """One thread, so that a container is cleaned up once at a time, in the order in which they are handed in.

    As many wait as the containerizer holds containers.
    """

    def __init__(
        self,
        isolation: Isolation,
        outlet: Outlet,
        loop: asyncio.AbstractEventLoop,
        repeat_us: int,
        closed: Callable[[], bool],
    ) -> None:
        self._isolation = isolation
        self._outlet = outlet
        self._repeat_us = repeat_us
        self._closed = closed
        self._threads = Threads(loop, 1, "isolators", closed)
        self._unclean: list[ContainerId] = []
        self._stuck: dict[ContainerId, None] = {}

    def add(self, container_id: ContainerId) -> None:
        """Clean it up soon, together with whatever else comes in this turn."""
        if not self._isolation:
            return
        if not self._unclean:
            self._outlet.call_later(0, self._clean)
        self._unclean.append(container_id)

    def _clean(self) -> None:
        if self._closed() or not self._unclean:
            return
        unclean, self._unclean = self._unclean, []

        def work() -> list[tuple[ContainerId, tuple[str, ...]]]:
            return [(name, lines) for name in unclean if (lines := self._isolation.cleanup(name))]

        self._threads.run(work, self._on_cleaned)

    def _on_cleaned(self, stuck: list[tuple[ContainerId, tuple[str, ...]]]) -> None:
        if stuck and not self._stuck:
            self._outlet.call_later(self._repeat_us, self._again)
        for container_id, lines in stuck:
            self._outlet.log("not_cleaned_up", level="warning", container=container_id, text="; ".join(lines))
            if len(self._stuck) < MAX_STUCK:
                self._stuck[container_id] = None

    def _again(self) -> None:
        stuck, self._stuck = self._stuck, {}
        for container_id in stuck:
            self.add(container_id)

    def close(self) -> None:
        self._threads.close()
