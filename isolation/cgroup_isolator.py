"""The isolator that gives each container a cgroup: what it gets, what it may never get past, what it used, its end.

A cgroup is made before the launch, with its limits, and entered by the launcher's child before the command's first
instruction. It stays until the agent has taken over the container's end, so whatever killed it can still be read then,
by a later life of the agent too. While it lives, the kernel's news of it (events.py) is logged as it comes.

Mesos: src/slave/containerizer/mesos/isolators/cgroups2/ (cgroups2.cpp; controllers/cpu.cpp, memory.cpp).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from collections.abc import Callable, Collection

from msgspec.structs import replace

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer, Usage
from mesos_actor.actors.messages.values import Statistics, TaskLimits
from mesos_actor.isolation.cgroup import Cgroup, CgroupError, CgroupTree
from mesos_actor.isolation.cgroup_usage import CgroupTotals
from mesos_actor.isolation.disk_device import Disk, NoDisk, disk_for, disk_of
from mesos_actor.isolation.events import CgroupEvents, ForkRefused, OomKilled
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, Ending, IsolatorError, Limitation, Watch
from mesos_actor.isolation.kernel_log import KernelLog
from mesos_actor.isolation.limits import MEM_MIN_BYTES, UNLIMITED, DeviceLimit, Limits, Write, writes_of

MIB = 1 << 20
WATCH_AFTER_S = 1.0
"""The kernel's news of a container is listened to from this age on: most are short, and three watches cost them more
than they tell."""

CLEANUP_S = 10.0
"""How long the end of one container's leftovers may take; then it is said, and tried again later."""


class CgroupIsolator(BaseIsolator):
    """`pids_limit` is for whoever names no other; `sandboxes` is on the disk whose I/O is limited, of those whose own
    sandbox is not known any more.

    The tree must be this agent's alone: what is in it and belongs to no container is ended.
    """

    name = "cgroups"
    keeps_limits = True

    def __init__(
        self,
        tree: CgroupTree,
        pids_limit: int = UNLIMITED,
        sandboxes: str = "/",
        find_disk: Callable[[str], Disk] = disk_of,
    ) -> None:
        self._tree = tree
        self._pids_limit = pids_limit
        self._sandboxes = sandboxes
        self._find_disk = find_disk
        self._events: CgroupEvents | None = None
        self._watch: Watch | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        #: Containers that have started a moment ago. As many as there are.
        self._unwatched: dict[ContainerId, None] = {}
        self._log = KernelLog()

    def start(self, watch: Watch) -> None:
        """Raises CgroupError when this user has too many inotify instances."""
        self._watch = watch
        self._events = CgroupEvents()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._events.fileno(), self._read_events)

    def close(self) -> None:
        if self._events is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended before us
                asyncio.get_running_loop().remove_reader(self._events.fileno())
            self._events.close()
            self._events = None
        self._log.close()

    def _cgroup(self, container_id: ContainerId) -> Cgroup:
        return self._tree.of(container_id)

    # -- launching and limits ---------------------------------------------------------------------------------------

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        writes = _writes(limits_of(launch, self._pids_limit, self._disk(launch, sandbox)))
        self._check_controllers(writes)
        try:
            cgroup = self._made(launch.container_id, writes)
        except CgroupError as error:
            raise IsolatorError("spawn", f"limits: {error}") from None
        return Contribution(fields={"cgroup": cgroup.procs_path})

    def _disk(self, launch: LaunchContainer, path: str) -> Disk | None:
        """The disk of `path`, where the launch limits its I/O. Raises IsolatorError."""
        try:
            return disk_for(launch.limits, path, self._find_disk)
        except NoDisk as error:
            raise IsolatorError("spawn", str(error)) from None

    def started(self, container_id: ContainerId, pid: int) -> None:
        """Watch it, if it lives for a moment: of a shorter one its files tell at its end."""
        if self._loop is None:
            return
        if not self._unwatched:
            self._loop.call_later(WATCH_AFTER_S, self._watch_all)
        self._unwatched[container_id] = None

    def _watch_all(self) -> None:
        unwatched, self._unwatched = self._unwatched, {}
        for container_id in unwatched if self._events is not None else ():
            cgroup = self._cgroup(container_id)
            try:
                if self._events is not None and cgroup.exists():
                    self._events.watch(cgroup, limits_only=True)
            except CgroupError as error:
                # Its end is read from its files all the same; only the news of it comes later.
                self._say("cgroup_not_watched", container=container_id, error=str(error))

    def _made(self, container_id: ContainerId, writes: tuple[Write, ...]) -> Cgroup:
        try:
            return self._tree.create(container_id, writes)
        except CgroupError:
            left = self._tree.of(container_id)
            if not left.exists() or left.is_populated():
                raise
            left.destroy(1.0)  # of a launch that a dead agent had only prepared
            return self._tree.create(container_id, writes)

    def _check_controllers(self, writes: tuple[Write, ...]) -> None:
        absent = sorted({write.controller for write in writes}.difference(self._tree.controllers))
        if absent:
            raise IsolatorError(
                "spawn",
                f"limits: the cgroup controllers {', '.join(absent)} are not available on this agent; leave out what "
                "needs them, or enable them in the cgroup above it",
            )

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        cgroup = self._cgroup(container_id)
        if not cgroup.exists():
            return
        writes = writes_of(limits_of(launch, self._pids_limit, self._disk(launch, self._sandboxes)))
        self._check_controllers(writes)
        try:
            writes = tuple(write for write in writes if not self._would_kill(cgroup, write))
            cgroup.apply(writes)
        except CgroupError as error:
            raise IsolatorError("spawn", f"limits: {error}") from None

    def _would_kill(self, cgroup: Cgroup, write: Write) -> bool:
        """Whether this lowers the memory's limit below what is in use, which would end it for having shrunk: then the
        limit stays, as in Mesos (memory.cpp `update`), and the request alone shrinks."""
        if write.file != "memory.max" or write.content == "max":
            return False
        usage = cgroup.usage()
        if usage is None or usage.memory_bytes is None or usage.memory_bytes < int(write.content):
            return False
        self._say(
            "memory_limit_not_lowered",
            container=cgroup.name,
            in_use_bytes=usage.memory_bytes,
            limit_bytes=int(write.content),
        )
        return True

    # -- what it uses -----------------------------------------------------------------------------------------------

    def usage(self, usage: Usage) -> Usage:
        cgroup = self._cgroup(usage.container_id)
        try:
            found = cgroup.usage()
            if found is None:
                return usage
            quota, period_us = cgroup.node.cpu.max
            most = cgroup.node.memory.max
        except (CgroupError, OSError):
            return usage  # gone in this moment
        return replace(
            usage,
            processes=found.pids if found.pids is not None else usage.processes,
            cpu_time_ms=found.cpu_us // 1_000,
            rss_bytes=found.memory_bytes if found.memory_bytes is not None else usage.rss_bytes,
            memory_peak_bytes=found.memory_peak_bytes or 0,
            memory_limit_bytes=most or 0,
            cpus_limit_milli=quota * 1_000 // period_us if quota is not None else 0,
            throttled_ms=found.throttled_us // 1_000,
            read_bytes=sum(device.read_bytes for device in found.devices),
            write_bytes=sum(device.write_bytes for device in found.devices),
            cpu_stall_ms=found.cpu_stall.some_us // 1_000 if found.cpu_stall is not None else 0,
            memory_stall_ms=found.memory_stall.some_us // 1_000 if found.memory_stall is not None else 0,
            io_stall_ms=found.io_stall.some_us // 1_000 if found.io_stall is not None else 0,
            oom_kills=found.oom_kills,
            forks_refused=found.pids_max_events,
        )

    # -- the end ----------------------------------------------------------------------------------------------------

    def ended(self, container_id: ContainerId) -> Ending:
        self._unwatched.pop(container_id, None)
        if self._events is not None:
            self._events.unwatch(container_id)
        try:
            cgroup = self._cgroup(container_id)
            found = cgroup.totals()
            if found is None:
                return Ending()
            limitation = self._memory_limitation(cgroup, found) if found.oom_kills else None
            note = ""
            if found.pids_max_events:
                most = cgroup.node.pids.max
                note = f"its limit of {most} processes (pids) was reached {_times(found.pids_max_events)}"
        except (CgroupError, InvalidInput, OSError) as error:
            self._say("cgroup_end_not_read", container=container_id, error=str(error))
            return Ending()
        return Ending(limitation, note, _statistics(found))

    def _memory_limitation(self, cgroup: Cgroup, found: CgroupTotals) -> Limitation:
        most = cgroup.node.memory.max
        victims = self._log.victims(cgroup.directory)
        biggest = max(victims, key=lambda victim: victim.rss_bytes, default=None)
        if most is None or not found.memory_max_events:
            text = "the host has no memory left"
        else:
            text = f"memory limit of {_mib(most)} exceeded"
        if found.memory_peak_bytes:
            text += f", peak {_mib(found.memory_peak_bytes)}"
        if biggest is not None:
            text += f", biggest process {biggest.name!r} (pid {biggest.pid}) with {_mib(biggest.rss_bytes)}"
        return Limitation("memory", text)

    def _read_events(self) -> None:
        if self._events is None:
            return
        for event in self._events.read():
            if isinstance(event, OomKilled):
                self._say("container_oom_killed", container=event.container_id, processes=event.processes)
            elif isinstance(event, ForkRefused):
                self._say("container_fork_refused", container=event.container_id, times=event.times)

    def _say(self, event: str, **fields: object) -> None:
        if self._watch is not None:
            self._watch.log(event, level="warning", **fields)

    # -- afterwards -------------------------------------------------------------------------------------------------

    def cleanup(self, container_id: ContainerId) -> None:
        try:
            self._cgroup(container_id).destroy(CLEANUP_S)
        except CgroupError as error:
            raise IsolatorError("spawn", str(error)) from None
        except InvalidInput:
            return  # such a name never had one

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        kept_directories = {self._tree.of(container_id).directory for container_id in kept}
        try:
            names = self._tree.names()
        except CgroupError as error:
            self._say("cgroup_leftovers_not_read", error=str(error))
            return ()
        return [ContainerId(name) for name in names if self._tree.of(name).directory not in kept_directories]


def limits_of(launch: LaunchContainer, pids_limit: int = UNLIMITED, disk: Disk | None = None) -> Limits:
    """What the kernel is asked for: the request from the resources, the limits apart. `disk`: whose I/O is limited;
    None: nobody's. Raises InvalidInput in `writes_of`, for what cannot be."""
    resources, asked = launch.resources, launch.limits
    mem_limit = asked.mem_bytes
    if mem_limit is not None and mem_limit != UNLIMITED:
        mem_limit = max(mem_limit, MEM_MIN_BYTES)
    pids = asked.pids if asked.pids is not None else pids_limit
    return Limits(
        cpus_request_milli=resources.millicpus(),
        cpus_limit_milli=asked.cpus_milli,
        cpus_burst_us=asked.cpus_burst_us or 0,
        mem_request_bytes=resources.mem_bytes(),
        mem_limit_bytes=mem_limit,
        mem_high_bytes=asked.mem_high_bytes,
        pids_limit=pids if pids > 0 else UNLIMITED,
        io_weight=asked.io_weight,
        swap_limit_bytes=asked.mem_swap_bytes or 0,
        huge_pages=asked.hugetlb,
        devices=() if disk is None else (_device_limit(disk, asked),),
    )


def _device_limit(disk: Disk, asked: TaskLimits) -> DeviceLimit:
    return DeviceLimit(
        major=disk.major,
        minor=disk.minor,
        read_bytes=asked.io_read_bytes,
        write_bytes=asked.io_write_bytes,
        reads=asked.io_reads,
        writes=asked.io_writes,
    )


_writes = functools.lru_cache(maxsize=1_000)(writes_of)
"""Tasks of one kind ask for the same."""


def _statistics(found: CgroupTotals) -> Statistics:
    return Statistics(
        cpu_time_ms=found.cpu_us // 1_000,
        memory_peak_bytes=found.memory_peak_bytes,
        throttled_ms=found.throttled_us // 1_000,
        oom_kills=found.oom_kills,
        forks_refused=found.pids_max_events,
        read_bytes=found.read_bytes,
        write_bytes=found.write_bytes,
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.4g} MiB"
