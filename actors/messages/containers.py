"""Between an agent and the ports of its own process: the containerizer and the sandbox files.

These never cross the network in production, but they are messages like any other, so that the simulator can lose the
process, delay a launch, or report an OOM kill.
"""

from __future__ import annotations

from mesos_actor.actors.ids import ContainerId, FrameworkId, OperationId
from mesos_actor.actors.messages.base import Message, Value
from mesos_actor.actors.messages.values import NO_LIMITS, Command, Statistics, TaskLimits
from mesos_actor.actors.resources import Resources

# -- agent to containerizer -----------------------------------------------------------------------------------------


class LaunchContainer(Message, frozen=True):
    """Make the sandbox, fetch the URIs, start the command in a session of its own. Answer: ContainerStarted or
    ContainerFailed, then ContainerExited. Launching an id that is already known answers with what is known of it."""

    container_id: ContainerId
    framework_id: FrameworkId
    command: Command
    resources: Resources
    env: dict[str, str] = {}
    """Added to the command's own environment; wins over it."""
    executor: bool = False
    """True: give the process a key to this agent's mailbox, as principal `executor:<container id>`."""
    limits: TaskLimits = NO_LIMITS
    """A limit that cannot be applied fails the launch."""


class UpdateContainer(Message, frozen=True):
    """Its resources and limits are these now: an executor's grow and shrink with its tasks. Live and silent; of a
    container that does not run any more, nothing comes of it. One whose new limits cannot be kept is killed, with the
    limitation `update`; but a lower memory limit than what it uses now is left as it was. (Mesos: Containerizer::update
    and src/slave/slave.cpp, which destroys a container that cannot be updated)"""

    container_id: ContainerId
    resources: Resources
    limits: TaskLimits = NO_LIMITS


class KillContainer(Message, frozen=True):
    """TERM to every process of the container, KILL after the grace. Repeated: only an earlier deadline counts."""

    container_id: ContainerId
    grace_ms: int


class ForgetContainer(Message, frozen=True):
    """The agent has kept the exit status; the containerizer may drop its own record of it."""

    container_id: ContainerId


class RecoverContainers(Message, frozen=True):
    """After a start: these containers should exist; any other is an orphan: killed. Answer: ContainersRecovered."""

    container_ids: tuple[ContainerId, ...]
    executors: tuple[ContainerId, ...] = ()
    """Those of them that are executors: they connect to the agent, and must be believed again."""


class MeasureContainers(Message, frozen=True):
    """How much do these use? Answer: ContainerUsage."""

    container_ids: tuple[ContainerId, ...]
    operation_id: OperationId = OperationId("")


# -- containerizer to agent -----------------------------------------------------------------------------------------


class ContainerStarted(Message, frozen=True):
    """The command runs as this process."""

    container_id: ContainerId
    pid: int


class ContainerFailed(Message, frozen=True):
    """The command never ran. `reason`: `fetch` (a URI), `sandbox` (directory, file), `spawn` (exec refused, or a limit
    that cannot be kept), `full` (the disk), `processors` (too few are left for one alone, or none for all)."""

    container_id: ContainerId
    reason: str
    text: str


class ContainerExited(Message, frozen=True):
    """The command's own process ended and its whole tree is gone. Both None: the status cannot be known, as told in
    `text`. Repeated until ForgetContainer."""

    container_id: ContainerId
    exit_status: int | None = None
    signal: int | None = None
    killed: bool = False
    """Whether a KillContainer went before the end."""
    text: str = ""
    limitation: str = ""
    """Which limit ended it, as told in `text`: `memory`, `disk`, `update` (one that could not be kept), or whatever
    else was limited. Empty: none did."""
    statistics: Statistics | None = None


class RecoveredContainer(Value, frozen=True):
    """What is known of one container after a restart."""

    container_id: ContainerId
    running: bool
    pid: int = 0
    exit_status: int | None = None
    signal: int | None = None
    killed: bool = False
    text: str = ""
    limitation: str = ""
    statistics: Statistics | None = None


class ContainersRecovered(Message, frozen=True):
    """What became of the containers asked about, one entry each. One that was never started, or of which nothing is
    known, is absent."""

    containers: tuple[RecoveredContainer, ...]


class Usage(Value, frozen=True):
    """What one container uses now. (Mesos: ResourceStatistics)"""

    container_id: ContainerId
    processes: int
    cpu_time_ms: int
    """User and system time of the tree since the start."""
    rss_bytes: int
    """Memory of its processes; with a cgroup, all that is charged to it, its page cache too."""
    timestamp_us: int
    memory_peak_bytes: int = 0
    """This and all below: 0 where nobody counts, as without cgroups."""
    memory_limit_bytes: int = 0
    """0: none."""
    cpus_limit_milli: int = 0
    throttled_ms: int = 0
    """How long it was held back by its limit on processors."""
    read_bytes: int = 0
    write_bytes: int = 0
    cpu_stall_ms: int = 0
    """How long some of its processes waited for a processor (pressure, Documentation/accounting/psi.rst)."""
    memory_stall_ms: int = 0
    io_stall_ms: int = 0
    oom_kills: int = 0
    forks_refused: int = 0
    disk_bytes: int = 0
    """What its sandbox took when that was looked at last. 0 where it has no limit: then nobody looks."""
    disk_limit_bytes: int = 0
    """0: none."""


class ContainerUsage(Message, frozen=True):
    """What the measured containers use; those that are gone are absent."""

    usages: tuple[Usage, ...]
    operation_id: OperationId = OperationId("")


# -- agent and clients to the sandbox port --------------------------------------------------------------------------


class ReadFile(Message, frozen=True):
    """A piece of a file in a container's sandbox. `path` is relative to it (`stdout`, `stderr`, `out/x`); a path that
    leaves the sandbox is refused. Answer: FileData."""

    container_id: ContainerId
    framework_id: FrameworkId
    path: str
    offset_bytes: int
    length_bytes: int
    """At most 256 KiB are returned. `offset_bytes` < 0 counts from the end."""
    operation_id: OperationId = OperationId("")


class FileData(Message, frozen=True):
    """`data` from `offset_bytes`; `size_bytes` is the file's size now. `error` set: nothing could be read, and why."""

    operation_id: OperationId
    offset_bytes: int
    size_bytes: int
    data: bytes = b""
    error: str = ""


class CollectGarbage(Message, frozen=True):
    """Remove the sandboxes of ended containers older than `max_age_ms` at full free space, sooner as the disk fills
    (Mesos: --gc_delay, --gc_disk_headroom). `keep` are never touched. Answer: GarbageCollected."""

    max_age_ms: int
    keep: tuple[ContainerId, ...] = ()


class GarbageCollected(Message, frozen=True):
    """These sandboxes are gone; so much of the file system is free now, in thousandths."""

    removed: tuple[ContainerId, ...]
    free_fraction_permille: int
