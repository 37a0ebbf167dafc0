"""The isolator that gives a container processors of its own (TaskLimits.pinned_cpus), and keeps the others off them.

It comes after the isolator that makes the cgroup. A container that pins gets a cpuset of whole processors which nobody
else of this agent has; while any is pinned, every other container has a cpuset of the rest, those that run already too.
One processor at least stays for the others while there are any, and where all are pinned no other is launched. What is
not this agent's - the agent itself, other agents, Docker Engine's containers - is not kept off.

Writing a cpuset and deciding what is in it happen under one lock, a container at a time, so that whoever comes
meanwhile gets the newest and the loop never waits for a whole round. Who has which is kept in a file a container; it is
taken up at the start, before anything can be launched.

Mesos: src/slave/containerizer/mesos/isolators/cgroups/subsystems/cpuset.cpp. Kernel document:
Documentation/admin-guide/cgroup-v2.rst, "Cpuset Interface Files".
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.isolation.cgroup import CgroupError, CgroupTree
from mesos_actor.isolation.cgroup_files import CgroupNode
from mesos_actor.isolation.container_records import Assigned, ContainerRecords
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, Ending, IsolatorError, Watch
from mesos_actor.isolation.limits import Write, list_of
from mesos_actor.isolation.processors import NotEnoughProcessors, Processor, ProcessorPool, discover

CLEANUP_S = 10.0
"""How long whoever is left of a container may take to die before its processors are another's."""


class ProcessorsIsolator(BaseIsolator):
    """`directory`: where it is kept who has which. `find` is for tests."""

    name = "cpuset"
    keeps_limits = True

    def __init__(
        self,
        tree: CgroupTree,
        directory: Path,
        find: Callable[[Iterable[int]], Sequence[Processor]] = discover,
    ) -> None:
        self._tree = tree
        self._records = ContainerRecords(directory, Assigned)
        self._find = find
        self._lock = threading.Lock()
        self._pool = ProcessorPool(())
        #: How many each that has any was given at its launch; since then it may have lost some. Under the lock.
        self._given: dict[ContainerId, int] = {}
        #: Containers that live or are about to, and have none for themselves. As many as there are. Under the lock.
        self._others: set[ContainerId] = set()
        #: Whether the others may have fewer than are free: of a former life of the agent nobody knows.
        self._narrow = True

    def start(self, watch: Watch) -> None:
        """Raises OSError when the directory cannot be used."""
        self._records.start()
        if "cpuset" in self._tree.controllers:
            self._pool = ProcessorPool(self._find(CgroupNode(self._tree.directory).cpuset.cpus_effective))
        kept = list(self._records.read())
        self._given = {one.container_id: len(one.names) for one in kept}
        for container_id, lost in self._pool.recover({one.container_id: map(int, one.names) for one in kept}).items():
            watch.log("processors_lost", level="warning", container=container_id, processors=list_of(lost))

    def slow(self, launch: LaunchContainer) -> bool:
        """The cpuset of every other container is written."""
        return launch.limits.pinned_cpus > 0

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        try:
            if launch.limits.pinned_cpus > 0:
                self._pin(launch.container_id, launch.limits.pinned_cpus)
            else:
                self._join(launch.container_id)
        except NotEnoughProcessors as error:
            raise IsolatorError("processors", f"limits: pinned_cpus: {error}") from None
        except CgroupError as error:
            raise IsolatorError("spawn", f"limits: pinned_cpus: {error}") from None
        return Contribution()

    def _pin(self, container_id: ContainerId, count: int) -> None:
        if "cpuset" not in self._tree.controllers:
            raise IsolatorError(
                "spawn",
                "limits: pinned_cpus: the cgroup controller cpuset is not available on this agent; leave it out, or "
                "enable it in the cgroup above it",
            )
        with self._lock:
            self._others.discard(container_id)
            numbers = self._pool.assign(container_id, count, keep=1 if self._others else 0)
            self._records.write(container_id, Assigned(container_id, tuple(map(str, numbers))))
            self._given[container_id] = count
            self._write(container_id, numbers)
            self._narrow = True
        self._spread()

    def _join(self, container_id: ContainerId) -> None:
        """One more among the others, on what is left."""
        with self._lock:
            if self._pool.is_whole:
                self._others.add(container_id)
                return
            shared = self._pool.shared
            if not shared:
                raise NotEnoughProcessors("other containers have all the processors of this agent for themselves")
            self._others.add(container_id)
            self._write(container_id, shared)

    def _spread(self) -> None:
        """All others on what is left, one at a time. Raises CgroupError for the first that cannot be."""
        with self._lock:
            others = tuple(self._others)
            self._narrow = False
        for container_id in others:
            with self._lock:
                # Empty: as the cgroup above, which holds for whoever comes later as well.
                shared = () if self._pool.is_whole else self._pool.shared
                if container_id in self._others and (shared or self._pool.is_whole):
                    self._write(container_id, shared)

    def _write(self, container_id: ContainerId, numbers: Sequence[int]) -> None:
        cgroup = self._tree.of(container_id)
        try:
            cgroup.apply((Write("cpuset", "cpuset.cpus", list_of(numbers)),))
        except CgroupError:
            self._narrow = True
            if cgroup.exists():
                raise

    def started(self, container_id: ContainerId, pid: int) -> None:
        """After a restart this is how it is known who lives."""
        with self._lock:
            if not self._pool.held(container_id):
                self._others.add(container_id)

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        """Processors stay as they were given at the launch: what runs may have counted them."""
        with self._lock:
            given = self._given.get(container_id, 0)
        wanted = launch.limits.pinned_cpus
        if wanted != given:
            text = f"pinned_cpus: a running container keeps its {given}, {wanted} are wanted now: launch another one"
            raise IsolatorError("spawn", text)

    def ended(self, container_id: ContainerId) -> Ending:
        """Nobody is left, so another may have its processors at once."""
        self._release(container_id)
        return Ending()

    def cleanup(self, container_id: ContainerId) -> None:
        try:
            cgroup = self._tree.of(container_id)
        except InvalidInput:
            return  # such a name never had any
        try:
            # Of a former life's leftovers somebody may live.
            if self._pool.held(container_id) and cgroup.is_populated() and not cgroup.kill(CLEANUP_S):
                raise IsolatorError(
                    "spawn", f"{container_id}: did not die within {CLEANUP_S:g} s, keeps its processors"
                )
            self._release(container_id)
            if self._narrow:
                self._spread()
        except CgroupError as error:
            raise IsolatorError("spawn", str(error)) from None

    def _release(self, container_id: ContainerId) -> None:
        with self._lock:
            self._others.discard(container_id)
            if self._pool.release(container_id):
                self._narrow = True
            if self._given.pop(container_id, 0):
                self._records.remove(container_id)

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        wanted = set(kept)
        return [one.container_id for one in self._records.read() if one.container_id not in wanted]
