"""The isolator that keeps a sandbox to the disk its task asked for: whoever takes more is ended, and told why.

Where the file system of the work directory counts projects (disk_quota.py) each sandbox is one: what is in use is known
at once, what is deleted but open included, and nothing gets more than HEADROOM_BYTES past its limit. Elsewhere each
sandbox is looked at every `interval_s`, and can grow past its limit until then. Who asked for no disk has no limit.

Both ways the same ends: past the limit at a look, or at the container's own end where that can be told. A limit that is
lowered below what is in use stays as it was until less is in use: nobody is ended for having shrunk.

Weaknesses: a task that is not confined may give its own files to no project (FS_IOC_FSSETXATTR asks only for the owner
in the first user namespace), so every WALK_EVERY-th look at a counted sandbox is a walk too. What a task writes outside
its sandbox is not counted.

Source: Mesos src/slave/containerizer/mesos/isolators/posix/disk.cpp, xfs/disk.cpp.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer, Usage
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.isolation.container_records import ContainerRecords
from mesos_actor.isolation.disk_limit import disk_limitation
from mesos_actor.isolation.disk_projects import DiskProjects
from mesos_actor.isolation.disk_quota import ProjectQuotas
from mesos_actor.isolation.disk_usage import DiskUsage
from mesos_actor.isolation.disk_watch import Look, LoopSchedule, Round, Schedule, Target
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, Ending, IsolatorError, Limitation, Watch
from mesos_actor.isolation.paths import sandbox_of, sandboxes_of

INTERVAL_S = 15.0
"""(Mesos: --container_disk_watch_interval, 15 s.)"""
WALK_EVERY = 8
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskRecord(msgspec.Struct, frozen=True):
    """What must be known of a container after a restart of the agent."""

    container_id: ContainerId
    sandbox: bytes
    """Its path."""
    limit_bytes: int | None
    """What it must not go past now; None: it has no limit."""
    wanted_bytes: int | None
    """What was asked for last: lower than the limit while more than that is in use."""
    project: int = 0
    """Its project id; 0: it is looked at."""
    limitation: str = ""
    """Why it was ended; empty: it was not."""


class _Kept:
    """A container that has a limit, or may get one: an executor grows with its tasks."""

    __slots__ = ("looks", "record", "running", "used_bytes")

    def __init__(self, record: DiskRecord) -> None:
        self.record = record
        self.running = False
        #: At the last look.
        self.used_bytes = 0
        self.looks = 0


class DiskIsolator(BaseIsolator):
    """See the module's text. `schedule` and `open_quotas` are for tests."""

    name = "disk"

    def __init__(
        self,
        work_dir: Path,
        interval_s: float = INTERVAL_S,
        *,
        schedule: Callable[[], Schedule] = LoopSchedule,
        open_quotas: Callable[[str], ProjectQuotas] = ProjectQuotas,
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._interval_s = interval_s
        self._new_schedule = schedule
        self._open_quotas = open_quotas
        self._records = ContainerRecords(self._work_dir / "disk", DiskRecord)
        self._projects: DiskProjects | None = None
        self._lock = threading.Lock()
        #: At most as many as the containerizer holds. Under the lock, as its entries.
        self._kept: dict[ContainerId, _Kept] = {}
        self._timer: TimerHandle | None = None
        self._round: Round | None = None

    def start(self, watch: Watch) -> None:
        """Raises OSError when the work directory cannot be used."""
        self._watch = watch
        self._schedule = self._new_schedule()
        self._records.start()
        self._kept = {record.container_id: _Kept(record) for record in self._records.read()}
        used = [kept.record.project for kept in self._kept.values() if kept.record.project]
        try:
            self._projects = DiskProjects(self._open_quotas(str(sandboxes_of(self._work_dir))), used)
        except (InvalidInput, OSError) as error:
            text = f"sandboxes are looked at every {self._interval_s:g} s instead"
            self._watch.log("disk_not_counted", why=str(error), text=text)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._schedule.close()
        if self._round is not None:
            self._round.close()
        with self._lock:
            projects, self._projects = self._projects, None
        if projects is not None:
            projects.close()

    # -- launching and limits ---------------------------------------------------------------------------------------

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        wanted = launch.resources.disk_bytes() or None
        if wanted is None and not launch.executor:
            return Contribution()
        try:
            with self._lock:
                self._keep(launch.container_id, sandbox, wanted)
        except OSError as error:
            reason = "full" if error.errno in _FULL else "spawn"
            raise IsolatorError(reason, f"disk: the limit cannot be set: {error}") from None
        return Contribution()

    def _keep(self, container_id: ContainerId, sandbox: str, wanted: int | None) -> None:
        kept = _Kept(DiskRecord(container_id, os.fsencode(sandbox), wanted, wanted))
        self._kept[container_id] = kept
        if self._projects is not None:
            project = self._projects.give(sandbox, wanted)
            kept.record = replace(kept.record, project=project)
        self._records.write(kept.record.container_id, kept.record)

    def started(self, container_id: ContainerId, pid: int) -> None:
        kept = self._kept.get(container_id)
        if kept is not None:
            kept.running = True
            if self._projects is not None and not kept.record.project:
                self._watch.log("disk_not_counted", container=container_id, why="all project ids are in use")
            self._look_later()

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        wanted = launch.resources.disk_bytes() or None
        with self._lock:
            kept = self._kept.get(container_id)
            if kept is None and wanted is not None:
                kept = self._take_up(container_id, launch)
            if kept is None or kept.record.wanted_bytes == wanted:
                return
            limit = kept.record.limit_bytes
            grows = wanted is None or (limit is not None and wanted >= limit)
            try:
                self._change(kept, wanted, wanted if grows else limit)
            except OSError as error:
                raise IsolatorError("spawn", f"disk: the limit cannot be changed: {error}") from None
            counted = self._counted(kept)
            if counted is not None:
                self._lower(kept, DiskUsage(counted, 0))
        self._look_later()

    def _take_up(self, container_id: ContainerId, launch: LaunchContainer) -> _Kept:
        """A running one that asked for none before. Its files are there already, so it is looked at, not counted."""
        if not launch.framework_id:
            raise IsolatorError("spawn", "disk: it was launched without by a former life of the agent; launch it anew")
        sandbox = sandbox_of(self._work_dir, launch.framework_id, container_id)
        kept = self._kept[container_id] = _Kept(DiskRecord(container_id, os.fsencode(sandbox), None, None))
        kept.running = True
        return kept

    def _change(self, kept: _Kept, wanted: int | None, limit: int | None) -> None:
        """All of it or nothing. Raises OSError."""
        before = kept.record
        after = replace(before, wanted_bytes=wanted, limit_bytes=limit)
        if self._projects is not None and before.project and limit != before.limit_bytes:
            self._projects.limit(before.project, limit)
        self._records.write(after.container_id, after)
        kept.record = after

    # -- looking ----------------------------------------------------------------------------------------------------

    def _look_later(self, delay_s: float | None = None) -> None:
        with self._lock:
            is_needed = any(map(self._is_watched, self._kept.values()))
        if is_needed and self._timer is None and self._round is None:
            self._timer = self._schedule.call_later(self._interval_s if delay_s is None else delay_s, self._look)

    @staticmethod
    def _is_watched(kept: _Kept) -> bool:
        return kept.running and not kept.record.limitation and kept.record.wanted_bytes is not None

    def _look(self) -> None:
        self._timer = None
        with self._lock:
            targets = [self._target(kept) for kept in self._kept.values() if self._is_watched(kept)]
        self._began_s = self._schedule.now_s()
        self._round = Round(targets)
        self._schedule.on_thread(self._round.step, self._on_looked)

    def _target(self, kept: _Kept) -> Target:
        record = kept.record
        kept.looks += 1
        counted = None
        if self._projects is not None and record.project and kept.looks % WALK_EVERY:
            counted = partial(self._projects.used_bytes, record.project)
        assert record.wanted_bytes is not None
        return Target(record.container_id, os.fsdecode(record.sandbox), record.wanted_bytes, counted)

    def _on_looked(self, looks: list[Look]) -> None:
        for look in looks:
            self._judge(look.container_id, look.usage)
        assert self._round is not None
        if not self._round.done:
            self._schedule.on_thread(self._round.step, self._on_looked)
            return
        self._round = None
        # At most half the time is spent looking, whatever there is to look at.
        took_s = self._schedule.now_s() - self._began_s
        self._look_later(max(self._interval_s - took_s, took_s))

    def _judge(self, container_id: ContainerId, usage: DiskUsage) -> None:
        with self._lock:
            kept = self._kept.get(container_id)
            if kept is None or not self._is_watched(kept):
                return
            kept.used_bytes = usage.used_bytes
            self._lower(kept, usage)
            limit = kept.record.limit_bytes
            limitation = None if limit is None else disk_limitation(limit, usage)
            if limitation is None:
                return
            self._note(kept, limitation)
        self._watch.limit(container_id, limitation)

    def _lower(self, kept: _Kept, usage: DiskUsage) -> None:
        """To what was asked for, if it keeps to that by now."""
        wanted, limit = kept.record.wanted_bytes, kept.record.limit_bytes
        if wanted is None or wanted == limit or usage.incomplete or usage.used_bytes > wanted:
            return
        try:
            self._change(kept, wanted, wanted)
        except OSError as error:
            self._watch.log("disk_limit_not_lowered", "warning", container=kept.record.container_id, error=str(error))

    def _note(self, kept: _Kept, limitation: Limitation) -> None:
        """For a later life of the agent, which may be the one that hears of the end."""
        kept.record = replace(kept.record, limitation=limitation.text)
        try:
            self._records.write(kept.record.container_id, kept.record)
        except OSError as error:
            self._watch.log("disk_limitation_not_kept", "warning", container=kept.record.container_id, error=str(error))

    # -- what it uses, and the end ----------------------------------------------------------------------------------

    def usage(self, usage: Usage) -> Usage:
        with self._lock:
            kept = self._kept.get(usage.container_id)
            if kept is None:
                return usage
            counted = self._counted(kept)
            used = kept.used_bytes if counted is None else counted
            return replace(usage, disk_bytes=used, disk_limit_bytes=kept.record.limit_bytes or 0)

    def _counted(self, kept: _Kept) -> int | None:
        if self._projects is None or not kept.record.project:
            return None
        try:
            return self._projects.used_bytes(kept.record.project)
        except OSError:
            return None

    def ended(self, container_id: ContainerId) -> Ending:
        with self._lock:
            kept = self._kept.get(container_id)
            if kept is None:
                return Ending()
            kept.running = False
            limit, counted = kept.record.limit_bytes, self._counted(kept)
            if not kept.record.limitation and limit is not None and counted is not None:
                limitation = disk_limitation(limit, DiskUsage(counted, 0))
                if limitation is not None:
                    self._note(kept, limitation)
            return Ending(Limitation("disk", kept.record.limitation) if kept.record.limitation else None)

    def cleanup(self, container_id: ContainerId) -> None:
        with self._lock:
            kept = self._kept.get(container_id)
            if kept is None:
                return
            self._records.remove(container_id)
            del self._kept[container_id]
            if self._projects is not None and kept.record.project:
                self._projects.take_back(kept.record.project)

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        exists = set(kept)
        with self._lock:
            return [container_id for container_id in self._kept if container_id not in exists]
