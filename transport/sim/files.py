"""The directory of a simulated replica, as one process sees it: syncs take time, may fail, and may be the last thing.

What a process does to its files after its end reaches nobody. The n-th sync of a host has a fate in the plan, as that
of its actors' disk has: `()` the host dies before it, with a torn piece of what was written left behind; `(200000,)` it
takes so much longer, and the process, which waits for its disk, does nothing meanwhile.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from mesos_actor.actors.errors import StorageError
from mesos_actor.transport.sim.plan import FAILED

if TYPE_CHECKING:
    from mesos_actor.transport.sim.host import Host
    from mesos_actor.transport.sim.process import Process


class ProcessOver(Exception):
    """The process has ended in the middle of a call, which ends with it."""


class SimFiles:
    """A `Files`."""

    def __init__(self, host: Host, process: Process) -> None:
        self._host = host
        self._process = process
        self._disk = host.files
        self._rng = random.Random(f"{host.world.seed}/{host.name}/{host.incarnation}/files")

    def names(self) -> list[str]:
        return self._disk.names()

    def read(self, name: str) -> bytes:
        return self._disk.read(name)

    def append(self, name: str, data: bytes) -> None:
        self._live()
        self._disk.append(name, data)

    def sync(self) -> None:
        self._wait()
        self._disk.sync()

    def replace(self, name: str, data: bytes) -> None:
        self._wait()
        self._disk.replace(name, data)

    def truncate(self, name: str, size_bytes: int) -> None:
        self._live()
        self._disk.truncate(name, size_bytes)

    def remove(self, name: str) -> None:
        self._live()
        self._disk.remove(name)

    def close(self) -> None:
        """The directory stays with the host."""

    def _live(self) -> None:
        if self._process.over:
            raise ProcessOver

    def _wait(self) -> None:
        """Let the disk take its time. Raises ProcessOver when the process does not live to see it."""
        self._live()
        host, world = self._host, self._host.world
        fate = host.next_sync()
        if fate == FAILED:
            host.begin_again_later()
            raise StorageError("the disk: cannot be written: [Errno 5] Input/output error")
        if not fate:
            self._disk.tear(self._rng)
            host._die_at_disk(self._process)
            raise ProcessOver
        now_us = max(world.schedule.now_us, host.paused_until_us)
        host.paused_until_us = now_us + world.settings.sync_us + fate[0]
