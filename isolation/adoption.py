"""Containers that a former launcher started: not our children, so they are watched by pidfd and looked for in /proc.

Nobody can learn the exit status of such a process (only its parent may), and that is what gets reported. Everything
here reads all of /proc, which is dear and happens only after a launcher was killed. Standard library only: the launcher
imports this.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from mesos_actor.isolation import cgroup_family, tree
from mesos_actor.isolation.container import Container, signal_one
from mesos_actor.isolation.launcher_wire import TEXT_DIED_STARTING, TEXT_HOST_RESTARTED, TEXT_LAUNCHER_DIED

LOOK_AGAIN_S = 0.05
"""How often the family of an adopted container is looked for while it is being killed."""

_WITHOUT_PIDFD_S = 1.0
"""How often a main process is looked for when there are no descriptors left to watch it by."""


class Adoption:
    """The adopted containers that have not ended. `end(container)` is called for each that has."""

    def __init__(self, end: Callable[[Container], None], say: Callable[[str], None]) -> None:
        self._end = end
        self._say = say
        self._open: dict[str, Container] = {}
        #: pidfd -> its container. Whoever polls these calls `on_pidfd`.
        self.pidfds: dict[int, Container] = {}
        #: When to look for the families of dying containers again, on the monotonic clock.
        self.look_again_at: float | None = None

    def take_up(self, containers: list[Container], boots: dict[str, str]) -> None:
        """Watch those of `containers` that still run and end the others.

        One that was about to be started, and of which nothing is to be seen, has ended too: it may have run, and a
        task that runs twice is worse than one that is lost.
        """
        this_boot = tree.boot_id()
        unplaced = {c.id for c in containers if not c.cgroup}
        families = tree.marked(unplaced) if unplaced else {}
        families |= {c.id: cgroup_family.pids_in(c.cgroup) for c in containers if c.cgroup}
        for container in containers:
            container.adopted = True
            if boots[container.id] != this_boot:
                container.note(TEXT_HOST_RESTARTED)
                self._finish(container)
                continue
            if not container.pid and not self._identify(container, families.get(container.id, [])):
                container.note(TEXT_DIED_STARTING)
                self._finish(container)
                continue
            self._open[container.id] = container
            if not container.main_gone:
                self._watch(container)
            if container.main_gone:
                self._settle(container)

    def _identify(self, container: Container, family: list[int]) -> bool:
        """Find the main process of a launcher that died between making it and writing its number down."""
        stats = {pid: stat for pid in family if (stat := tree.stat_of(pid)) is not None}
        leaders = [pid for pid, stat in stats.items() if stat.session == pid]
        if not stats:
            return False
        container.pid = min(leaders or stats)
        container.times = (stats[container.pid].start_ticks, stats[container.pid].start_ticks)
        return True

    def _watch(self, container: Container) -> None:
        try:
            container.pidfd = os.pidfd_open(container.pid)
        except ProcessLookupError:
            self._main_is_gone(container)
            return
        except OSError:
            self._look_again(_WITHOUT_PIDFD_S)
            return
        if self._is_main(container, tree.stat_of(container.pid)):
            self.pidfds[container.pidfd] = container
        else:
            self._main_is_gone(container)

    @staticmethod
    def _is_main(container: Container, stat: tree.Stat | None) -> bool:
        return stat is not None and stat.alive and container.times[0] <= stat.start_ticks <= container.times[1]

    def _main_is_gone(self, container: Container) -> None:
        if container.pidfd >= 0:
            self.pidfds.pop(container.pidfd, None)
            os.close(container.pidfd)
            container.pidfd = -1
        container.main_gone = True
        container.note(TEXT_LAUNCHER_DIED)

    def on_pidfd(self, descriptor: int) -> None:
        """A main process has ended."""
        container = self.pidfds.get(descriptor)
        if container is not None:
            self._main_is_gone(container)
            self._settle(container)

    def on_time(self) -> None:
        """Look again, when that is due."""
        if self.look_again_at is None or self.look_again_at > time.monotonic():
            return
        self.look_again_at = None
        for container in list(self._open.values()):
            if container.main_gone:
                self._settle(container)
            elif container.pidfd < 0:
                if self._is_main(container, tree.stat_of(container.pid)):
                    self._look_again(_WITHOUT_PIDFD_S)
                else:
                    self._main_is_gone(container)
                    self._settle(container)

    def _look_again(self, delay_s: float) -> None:
        at = time.monotonic() + delay_s
        self.look_again_at = at if self.look_again_at is None else min(at, self.look_again_at)

    def _settle(self, container: Container) -> None:
        """The main process is gone: end the container, or kill who is left of it."""
        family = self._family(container)
        if not family:
            self._finish(container)
            return
        if container.is_due():
            self._signal(container, family, signal.SIGKILL)
        self._look_again(LOOK_AGAIN_S)

    def _family(self, container: Container) -> dict[int, tree.Stat]:
        if container.cgroup:
            found = {pid: tree.stat_of(pid) for pid in cgroup_family.pids_in(container.cgroup)}
            return {pid: stat for pid, stat in found.items() if stat is not None and stat.alive}
        family = tree.family_of(container.pid, container.times, container.id)
        return {pid: stat for pid, stat in family.items() if pid not in container.spared}

    def signal(self, container: Container, number: int) -> None:
        """Signal everybody who belongs to it."""
        self._signal(container, self._family(container), number)

    def _signal(self, container: Container, family: dict[int, tree.Stat], number: int) -> None:
        if container.cgroup and number == signal.SIGKILL:
            cgroup_family.kill_all(container.cgroup)
            return
        for pid, stat in family.items():
            signal_one(container, pid, stat, number, self._say)

    def _finish(self, container: Container) -> None:
        self._open.pop(container.id, None)
        container.main_gone = True
        self._end(container)
