"""Simulated processes of frameworks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mesos_actor.actors.framework import Framework
from mesos_actor.actors.ids import FrameworkId
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.task import TaskState

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster


class SimFramework:
    """A framework and the host its process runs on. Each process has a framework object of its own: `framework` is
    that of the newest."""

    def __init__(self, sim: SimCluster, make: Callable[[], Framework], name: str, principal: str) -> None:
        self.name = name
        self._masters = [master.address for master in sim.masters]
        self.statuses: list[Status] = []
        """Every status that `on_update` was called with, in all of its processes."""
        self._make = make
        self._framework: Framework | None = None
        self._driver: FrameworkActor | None = None
        self.host = sim.world.add_host(name, principal=principal)
        self.host.when_down = self._down
        self.host.spawn("framework", self._begin, durable=True, restart="temporary")

    @property
    def framework(self) -> Any:
        """The newest object. (Of a type that only the test knows.)"""
        assert self._framework is not None
        return self._framework

    def is_running(self, framework: Framework) -> bool:
        """Whether this is its newest object."""
        return self._framework is framework

    @property
    def driver(self) -> FrameworkActor:
        """The driver of `framework`."""
        assert self._driver is not None
        return self._driver

    @property
    def framework_id(self) -> FrameworkId:
        """What the master calls it; empty before its first registration."""
        return FrameworkId("") if self._framework is None else self._framework.framework_id

    @property
    def up(self) -> bool:
        return self.host.up

    @property
    def ended(self) -> bool:
        """Whether it has stopped by itself, or failed."""
        return self._driver is not None and self._driver.ended and not self.host.told_to_stop

    @property
    def failure(self) -> Exception | None:
        """What ended it, if that was an error."""
        return self._driver.failure if self._driver is not None else None

    def states(self, task_id: str) -> list[TaskState]:
        """The states of one task, as `on_update` was told them, without repeats in a row."""
        found: list[TaskState] = []
        for status in self.statuses:
            if status.task_id == task_id and found[-1:] != [status.state]:
                found.append(status.state)
        return found

    def crash(self, keep_unsynced: int = 0) -> None:
        """kill -9: its tasks live on for its failover timeout."""
        self.host.crash(keep_unsynced=keep_unsynced)

    def start(self) -> None:
        """Begin a new process with the same state directory, if none runs."""
        self.host.start()

    def stop(self) -> None:
        """SIGTERM: it says that it goes away, and is expected back."""
        self.host.stop()

    def _begin(self) -> FrameworkActor:
        framework = self._make()
        self._framework = framework
        _record(framework, self.statuses)
        self._driver = FrameworkActor(framework, self._masters)
        return self._driver

    def _down(self, kind: str) -> None:
        self.host.retired = kind == "exit" and not self.host.told_to_stop


def _record(framework: Framework, statuses: list[Status]) -> None:
    """Have every status noted on its way to `on_update`."""
    told = framework.on_update

    def on_update(status: Status) -> None:
        statuses.append(status)
        told(status)

    framework.on_update = on_update  # type: ignore[method-assign]
