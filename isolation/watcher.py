"""The launcher's containers: started, watched, killed with their whole family, and remembered until forgotten.

Rules, all of them here:

1. A container is one session leader and everything that descends from it. The launcher is a child subreaper, so a
   descendant whose parent died becomes our child: a *stray*. Whoever is left of a container is therefore always below
   one of our own children, and the kernel's list of those is exact (tree.py). No scan of /proc is needed to know that
   a container is gone; the usual case costs one read a turn.
2. A stray belongs to the container whose session it is in, whose mark its environment carries, or in whose sandbox it
   stands or writes. One that hides all of this is killed when nothing runs any more. Where a container has a cgroup
   there is nothing to hide: whoever is in it belongs to it, and is killed by cgroup.kill.
3. A container has ended when its main process was reaped and no stray of it is left; with a cgroup, when that was
   reaped and the kernel says that the cgroup is empty, of which it wakes us. What is left when the main
   process ends is killed at once, unless a kill's grace is still running: then it has the rest of the grace.
4. A status is told only after it is on disk. What was running when a former launcher died is adopted (adoption.py).
"""

from __future__ import annotations

import heapq
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from mesos_actor.isolation import cgroup_family, tree
from mesos_actor.isolation.adoption import Adoption
from mesos_actor.isolation.container import Container, replay, signal_one
from mesos_actor.isolation.exit_log import COMPACT_ABOVE_BYTES, ExitLog
from mesos_actor.isolation.launcher_wire import MAX_CONTAINERS
from mesos_actor.isolation.spawn import Program, SpawnError, spawn

SYNC_AFTER_S = 0.05
"""How long an exit may be in memory and the page cache only, while an agent is expected to take it over."""
LOG_RETRY_S = 1.0
"""How often a disk that refused the exit log is tried again."""

_RECORDS_BYTES = 400
"""About what the records of one container take."""


class Watcher:
    """All containers of one launcher. `events` are messages for the agent, good to send after `flush` said True."""

    def __init__(self, log: ExitLog, say: Callable[[str], None]) -> None:
        self._log = log
        self._say = say
        #: Every container not yet forgotten, by its id. At most MAX_CONTAINERS.
        self.containers: dict[str, Container] = {}
        #: How many of them have not ended.
        self.running = 0
        #: Our own children that are main processes, by pid.
        self._mains: dict[int, Container] = {}
        #: Our other children, with the container each belongs to; None where nothing tells.
        self._strays: dict[int, Container | None] = {}
        #: Containers to look at in the next `_settle`.
        self._changed: dict[str, Container] = {}
        self._deadlines: list[tuple[float, str]] = []
        self._children = tree.OwnChildren()
        self.adoption = Adoption(self._end, say)
        #: cgroup.events -> the container that waits for it to say that nobody is left. To be polled for POLLPRI.
        self.emptying: dict[int, Container] = {}
        #: The last two names of each running container's cgroup -> the container.
        self._cgroups: dict[tuple[str, str], Container] = {}
        self._log_retry_at: float | None = None
        self._sync_at: float | None = None
        self.events: list[dict[str, Any]] = []

    def recover(self) -> None:
        """Take up what the log tells. Call once, before anything else."""
        self.containers, boots = replay(self._log.recovered)
        self._log.recovered = []
        self._log.add(["boot", tree.boot_id()])
        still_open = [c for c in self.containers.values() if not c.ended]
        self.running = len(still_open)
        for container in still_open:
            if container.cgroup:
                self._cgroups[cgroup_family.key_of(container.cgroup)] = container
        self.adoption.take_up(still_open, boots)
        for container in still_open:
            if container.pid and not container.ended:
                for record in container.records():
                    self._log.add(record)  # under this boot, and with a pid if that was found only now
            if container.deadline is not None:
                heapq.heappush(self._deadlines, (container.deadline, container.id))

    # -- launching --------------------------------------------------------------------------------------------------

    def launch(self, container_id: str, program: Program) -> None:
        """Start one. Its id must not be known yet.

        It is written down before it is made, in one write with the outcome of the one before: whenever this process
        dies, there is at most one of which nobody knows whether it ran.
        """
        mark = self._log.pending_bytes
        self._log.add(Container(container_id, program.cwd, program.cgroup_directory).intent())
        if self._write():
            self._launch_one(container_id, program)
            return
        self._log.drop_after(mark)
        text = "no space left on the agent's disk for the launcher's log"
        self.events.append({"k": "failed", "id": container_id, "reason": "full", "text": text})

    def _launch_one(self, container_id: str, program: Program) -> None:
        before = tree.boot_ticks()
        try:
            if len(self.containers) >= MAX_CONTAINERS:
                raise SpawnError("spawn", f"the launcher holds {MAX_CONTAINERS} containers, its bound")
            pid = spawn(program)
        except SpawnError as error:
            self._log.add(["forget", container_id])
            self.events.append({"k": "failed", "id": container_id, "reason": error.reason, "text": error.text})
            return
        container = Container(container_id, program.cwd, program.cgroup_directory)
        if container.cgroup:
            self._cgroups[cgroup_family.key_of(container.cgroup)] = container
        container.pid = pid
        container.times = (before, tree.boot_ticks() + 1)
        self.containers[container_id] = container
        self._mains[pid] = container
        self.running += 1
        self._log.add(["started", container_id, pid, *container.times])
        self.events.append({"k": "started", "id": container_id, "pid": pid})

    def answer_again(self, container: Container) -> None:
        """Tell what is known of a container whose launch was asked for again."""
        if container.pid > 0:
            self.events.append({"k": "started", "id": container.id, "pid": container.pid})
        if container.ended:
            self.events.append(container.exit_event())

    def never_ran(self, container_id: str) -> None:
        """Keep and tell that the container was killed before its command ran."""
        container = Container(container_id, "")
        container.killed = True
        container.main_gone = True
        container.text = "killed before its command ran"
        self.containers[container_id] = container
        self._log.add(["intent", container_id, ""])
        self.running += 1
        self._end(container)

    # -- reaping ----------------------------------------------------------------------------------------------------

    def reap(self) -> None:
        """Collect whoever died, until there is nobody left to collect."""
        somebody = False
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            somebody = True
            container = self._mains.pop(pid, None)
            if container is not None:
                container.main_gone = True
                container.code = os.waitstatus_to_exitcode(status)
            else:
                container = self._strays.pop(pid, None)
                if container is not None:
                    container.strays.discard(pid)
            if container is not None:
                self._changed[container.id] = container
        if somebody:
            self._settle()

    def _settle(self) -> None:
        """End the containers of which nobody is left; kill who is left of those that should be gone."""
        self._find_strays()
        changed, self._changed = self._changed, {}
        for container in changed.values():
            if not container.main_gone or container.ended:
                continue
            if not self._await_emptiness(container) if container.cgroup else not container.strays:
                self._end(container)
                continue
            if not container.main_noted:
                container.main_noted = True
                self._log.add(["main", container.id, container.code])
            if container.is_due():
                self._signal_family(container, signal.SIGKILL)
        if not self.running:
            for pid, owner in self._strays.items():
                if owner is None:
                    self._kill_child(pid)

    def _await_emptiness(self, container: Container) -> bool:
        """Whether somebody is left in its cgroup; then the kernel will wake us when nobody is."""
        if container.emptying < 0:
            try:
                container.emptying = os.open(f"{container.cgroup}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                return False  # gone, so nobody is in it
        if not cgroup_family.says_populated(container.emptying):
            return False
        self.emptying[container.emptying] = container
        return True

    def on_emptied(self, descriptor: int) -> None:
        """The kernel has news of a cgroup that should become empty."""
        container = self.emptying.get(descriptor)
        if container is not None:
            self._changed[container.id] = container
            self._settle()

    def _end(self, container: Container) -> None:
        if container.emptying >= 0:
            self.emptying.pop(container.emptying, None)
            os.close(container.emptying)
            container.emptying = -1
        if container.cgroup:
            self._cgroups.pop(cgroup_family.key_of(container.cgroup), None)
        container.ended = True
        container.deadline = None
        self.running -= 1
        self._log.add(["exited", container.id, container.code, container.killed, container.text])
        if self._sync_at is None:
            self._sync_at = time.monotonic() + SYNC_AFTER_S
        self.events.append(container.exit_event())

    def _find_strays(self) -> None:
        """Learn of children that we did not start. Looks again until there is nothing new, because one that died
        while we looked has left its own children to us."""
        dead: set[int] = set()
        while self._children.count() != len(self._mains) + len(self._strays) + len(dead):
            listed = self._children.pids()
            new = [p for p in listed if p not in self._mains and p not in self._strays and p not in dead]
            if not new:
                return
            for pid in new:
                stat = tree.stat_of(pid)
                if stat is None or not stat.alive:
                    dead.add(pid)  # the next reap collects it
                else:
                    self._take_in(pid, self._owner(pid, stat))

    def _take_in(self, pid: int, owner: Container | None) -> None:
        self._strays[pid] = owner
        if owner is None:
            self._say(f"process {pid} belongs to no container by session, mark or place; killed when nothing runs")
        elif owner.ended:
            self._kill_child(pid)
        else:
            owner.strays.add(pid)
            self._changed[owner.id] = owner

    def _owner(self, pid: int, stat: tree.Stat) -> Container | None:
        if self._cgroups:
            for key in cgroup_family.keys_in(cgroup_family.place_of(pid)):
                if key in self._cgroups:
                    return self._cgroups[key]
        leader = self._mains.get(stat.session)
        if leader is not None:
            return leader
        marked = self.containers.get(tree.marker_of(pid) or "")
        if marked is not None:
            return marked
        places = tree.places_of(pid)
        for candidate in self.containers.values():
            if candidate.pid == stat.session and not candidate.ended:
                return candidate
            inside = candidate.cwd + "/"
            if candidate.cwd and any(place == candidate.cwd or place.startswith(inside) for place in places):
                return candidate
        return None

    # -- killing ----------------------------------------------------------------------------------------------------

    def kill(self, container: Container, grace_s: float) -> None:
        """TERM to the family now, KILL after the grace; asked again, only an earlier end counts."""
        if container.ended:
            self.events.append(container.exit_event())
            return
        deadline = time.monotonic() + grace_s
        if container.deadline is None or deadline < container.deadline:
            container.deadline = deadline
            if len(self._deadlines) > 1_000 + 2 * len(self.containers):
                self._deadlines = [(d, i) for i, c in self.containers.items() if (d := c.deadline) is not None]
                heapq.heapify(self._deadlines)
            heapq.heappush(self._deadlines, (deadline, container.id))
        if not container.killed:
            container.killed = True
            self._log.add(["kill", container.id, int(grace_s * 1000)])
            if grace_s > 0:
                self._find_strays()
                self._signal_family(container, signal.SIGTERM)

    def on_time(self) -> None:
        """Send the KILLs that are due, and whatever else is."""
        now = time.monotonic()
        looked = False
        while self._deadlines and self._deadlines[0][0] <= now:
            _, container_id = heapq.heappop(self._deadlines)
            container = self.containers.get(container_id)
            if container is None or container.ended or not container.is_due():
                continue
            if not looked:
                self._find_strays()
                looked = True
            self._signal_family(container, signal.SIGKILL)
        self.adoption.on_time()
        if self._sync_at is not None and self._sync_at <= now:
            self._sync()

    def _sync(self) -> None:
        """Put on disk what no agent has taken over within SYNC_AFTER_S: as long as an agent is there, its checkpoint
        is what must not be lost, and it is synced before anybody is told."""
        self._sync_at = None
        if len(self.containers) == self.running:
            return
        try:
            self._log.sync()
        except OSError as error:
            self._say(f"cannot sync the exit log: {error}")

    def next_time(self) -> float | None:
        """When `on_time` or `flush` is due, on the monotonic clock."""
        times = [t for t in (self.adoption.look_again_at, self._log_retry_at, self._sync_at) if t is not None]
        if self._deadlines:
            times.append(self._deadlines[0][0])
        return min(times, default=None)

    def _signal_family(self, container: Container, number: int) -> None:
        if container.adopted:
            self.adoption.signal(container, number)
            return
        if container.cgroup:
            self._signal_cgroup(container, number)
            return
        self._signal_strays(container, number)
        if container.main_gone:
            return
        family = [(p, stat) for p in tree.descendants_of(container.pid) if (stat := tree.stat_of(p)) is not None]
        try:
            os.killpg(container.pid, number)  # not reaped yet, so the number is still its own
        except PermissionError:
            self._say(f"{container.id}: process {container.pid} took another user's identity and cannot be killed")
        for pid, stat in family:
            if stat.group != container.pid:
                signal_one(container, pid, stat, number, self._say)

    def _signal_cgroup(self, container: Container, number: int) -> None:
        if number == signal.SIGKILL:
            refused = cgroup_family.kill_all(container.cgroup)
            if refused and container.note(f"its cgroup cannot be killed: {refused}"):
                self._say(f"{container.id}: {container.cgroup}/cgroup.kill: {refused}")
            return
        for pid in cgroup_family.pids_in(container.cgroup):
            stat = tree.stat_of(pid)
            if stat is not None and stat.alive:
                signal_one(container, pid, stat, number, self._say)

    def _signal_strays(self, container: Container, number: int) -> None:
        for stray in list(container.strays):
            for pid in (stray, *tree.descendants_of(stray)):
                stat = tree.stat_of(pid)
                if stat is None or not stat.alive or signal_one(container, pid, stat, number, self._say):
                    continue
                if pid in container.strays:
                    container.strays.discard(pid)
                    self._strays[pid] = None
                    self._changed[container.id] = container

    def _kill_child(self, pid: int) -> None:
        """KILL a child of ours; not reaped yet, so the number is still its own."""
        try:
            os.kill(pid, signal.SIGKILL)
        except PermissionError:
            self._say(f"process {pid} took another user's identity and cannot be killed")

    # -- memory -----------------------------------------------------------------------------------------------------

    def forget(self, container_id: str) -> None:
        """Drop an ended container; a running one stays."""
        container = self.containers.get(container_id)
        if container is not None and container.ended:
            del self.containers[container_id]
            self._log.add(["forget", container_id])

    def _write(self) -> bool:
        try:
            self._log.flush()
        except OSError as error:
            if self._log_retry_at is None:
                self._say(f"cannot write the exit log, exits are held back until it can: {error}")
            self._log_retry_at = time.monotonic() + LOG_RETRY_S
            return False
        self._log_retry_at = None
        return True

    def flush(self) -> bool:
        """Write down what happened. False: the disk refuses, nothing may be told yet; try again at `next_time`."""
        if not self._write():
            return False
        if self._log.size_bytes > COMPACT_ABOVE_BYTES + 2 * _RECORDS_BYTES * len(self.containers):
            records = [["boot", tree.boot_id()]]
            records += [record for container in self.containers.values() for record in container.records()]
            try:
                self._log.rewrite(records)
            except OSError as error:
                self._say(f"cannot rewrite the exit log, it stays long: {error}")
        return True
