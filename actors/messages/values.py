"""The nouns: offers, tasks, agents, frameworks as they appear inside messages.

Names and meaning follow Mesos' include/mesos/v1/mesos.proto unless said otherwise; units stand last in the names.
"""

from __future__ import annotations

from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    OfferId,
    OperationId,
    Principal,
    Role,
    TaskId,
    UpdateId,
)
from mesos_actor.actors.messages.base import Value
from mesos_actor.actors.resources import Attributes, Resources
from mesos_actor.actors.task import Reason, Source, TaskState

DEFAULT_KILL_GRACE_MS = 3_000
"""TERM to KILL for a command task, unless the task or the kill says otherwise (Mesos: built-in executors, 3 s)."""

DEFAULT_REFUSE_MS = 5_000
"""How long a declined agent is not offered again (Mesos: Filters.refuse_seconds, 5 s)."""

MAX_REFUSE_MS = 365 * 24 * 3600 * 1000
"""Longer filters are cut to this (Mesos: 365 days)."""


class Uri(Value, frozen=True):
    """A local file to copy into the sandbox before the task starts: an absolute path or `file://` URL on the agent."""

    path: str
    output_file: str = ""
    """Its name in the sandbox, a relative path; empty: the last part of `path`."""
    executable: bool = False
    extract: bool = False
    """Unpack a .tar, .tar.gz, .tgz, .tar.bz2, .tar.xz or .zip in the sandbox."""


class Volume(Value, frozen=True):
    """A directory or file of the agent's host, seen inside a container. (Mesos: Volume, SourceType HOST_PATH)"""

    host_path: str
    """Absolute. Which ones may be used is the agent's decision."""
    container_path: str
    """Absolute, in the container's own root."""
    read_only: bool = False


class PortMapping(Value, frozen=True):
    """A port of the agent's host that leads into a container. (Mesos: NetworkInfo.PortMapping)"""

    host_port: int
    """One of the `ports` that its task has, or its executor: offered, and taken from the offer."""
    container_port: int
    """Where the container listens, on its own address."""
    protocol: str = "tcp"
    """`tcp` or `udp`."""


class ContainerSpec(Value, frozen=True):
    """What surrounds a command: its root file system, its volumes, its network. (Mesos: ContainerInfo)"""

    image: str = ""
    """Its root file system, as core/image_reference.py tells; empty: the agent host's own."""
    type: str = ""
    """`linux` (namespaces and cgroups of our own), `docker` (Docker Engine), or empty: whichever the agent prefers."""
    volumes: tuple[Volume, ...] = ()
    network: str = "host"
    """`host`; `bridge`: an address of its own on its agent's bridge, from which it reaches everything and is reached by
    its `ports`; `own`: a namespace with loopback alone, or, of type `docker`, what the Engine connects it to; `none`:
    no network at all."""
    pull: str = "missing"
    """When the registry is asked: `missing` (the image is not here yet), `always`, `never`."""
    read_only_root: bool = False
    ports: tuple[PortMapping, ...] = ()
    """Of network `bridge`: what of it is reached from outside, under its host's addresses."""


UNLIMITED = -1
"""As a limit: none, where leaving it out would mean the request, or what is usual. (Mesos: infinity)"""


class RLimit(Value, frozen=True):
    """One of the kernel's limits on each process of a command: `soft` holds, and may be raised up to `hard` by the
    process itself. (Mesos: RLimitInfo.RLimit)"""

    kind: str
    """As core/rlimits.py names them: getrlimit(2)'s in lower case, without RLIMIT_."""
    soft: int
    """In the kind's own unit; UNLIMITED: none."""
    hard: int
    """Above the agent's own only where the agent has the privilege to raise it."""


class Command(Value, frozen=True):
    """What to execute: an argument vector, or one string for `/bin/sh -c` when `shell` was asked for."""

    argv: tuple[str, ...]
    """May be empty when an image is named that says what to run; else it goes after the image's entrypoint."""
    shell: bool = False
    """True: `argv` has exactly one item, given to /bin/sh -c. Costs one more exec."""
    env: dict[str, str] = {}
    uris: tuple[Uri, ...] = ()
    user: str = ""
    """Unix user to run as; empty: the framework's, else the agent's own. Another user needs an agent run by root."""
    container: ContainerSpec | None = None
    """None: on the agent's host, with whatever isolation the agent gives to all."""
    rlimits: tuple[RLimit, ...] = ()
    """Each kind once; those that are not named are as the agent's own."""


class HugePages(Value, frozen=True):
    """At most so much memory in huge pages of one size."""

    page_bytes: int
    """A power of two; which sizes there are is the agent's host's."""
    limit_bytes: int
    """A whole number of pages; 0: none."""


class TaskLimits(Value, frozen=True):
    """What a task or executor may never get past, apart from what it requests: its resources are what it gets when
    everybody wants more than there is. None: as said at each. (Mesos: TaskInfo.limits, which has cpus and mem)

    An agent that cannot keep a limit refuses the launch.
    """

    cpus_milli: int | None = None
    """None: whatever is idle."""
    mem_bytes: int | None = None
    """Past it, it is killed. None: as the request. UNLIMITED: none."""
    pids: int | None = None
    """Processes and threads. None: the agent's `container_pids_limit`. UNLIMITED: none."""
    cpus_burst_us: int | None = None
    """What may be saved up while idle and used beyond `cpus_milli` at once; at most what that gives in 100 ms."""
    mem_high_bytes: int | None = None
    """Where the kernel begins to slow it down and to take memory back."""
    io_weight: int | None = None
    """1 to 10000, its share of a busy disk; 100 is everybody's."""
    io_read_bytes: int | None = None
    """This and the next three: a second, on the disk that holds the sandbox; past it, it waits. None: no limit. Whole
    disks are counted: a partition's limit is its disk's. What stays in the page cache is no reading of the disk."""
    io_write_bytes: int | None = None
    io_reads: int | None = None
    """Operations."""
    io_writes: int | None = None
    mem_swap_bytes: int | None = None
    """What may be swapped out, beside `mem_bytes`. None: nothing. UNLIMITED: as much as there is."""
    hugetlb: tuple[HugePages, ...] = ()
    """Each page size once; of those that are not named, whatever the host has."""
    pinned_cpus: int = 0
    """So many whole processors for itself, which the agent chooses: it runs on these alone, and nothing else of that
    agent's runs on them. At most as many as its `cpus`. None may be left; then the launch fails with
    NO_FREE_PROCESSORS."""


NO_LIMITS = TaskLimits()


class ExecutorInfo(Value, frozen=True):
    """A custom executor: a program that speaks the executor protocol and runs many tasks."""

    executor_id: ExecutorId
    command: Command
    resources: Resources = Resources()
    shutdown_grace_ms: int = 5_000
    data: bytes = b""
    """Opaque to us; given to the executor when it registers."""
    limits: TaskLimits = NO_LIMITS
    """Of the executor itself; its container's are the sum of these and its tasks'."""


class Task(Value, frozen=True):
    """One task to launch. Exactly one of `command` and `executor` is set. (Mesos: TaskInfo)"""

    task_id: TaskId
    resources: Resources
    command: Command | None = None
    executor: ExecutorInfo | None = None
    name: str = ""
    data: bytes = b""
    """Opaque to us; given to the executor with the task."""
    kill_grace_ms: int = DEFAULT_KILL_GRACE_MS
    max_completion_ms: int = 0
    """Killed with FAILED / MAX_COMPLETION_TIME_REACHED after this long; 0: never."""
    labels: dict[str, str] = {}
    limits: TaskLimits = NO_LIMITS


class Filters(Value, frozen=True):
    """What to do with what an accept or decline leaves over."""

    refuse_ms: int = DEFAULT_REFUSE_MS


class Offer(Value, frozen=True):
    """Resources of one agent, promised to one framework in one role until taken, declined, rescinded or timed out."""

    offer_id: OfferId
    agent_id: AgentId
    hostname: str
    role: Role
    resources: Resources
    attributes: Attributes = Attributes()
    executor_ids: tuple[ExecutorId, ...] = ()
    """Custom executors of this framework that already run on the agent."""
    agent_address: Address = Address("")
    isolation: str = ""
    """What keeps tasks apart on the agent; one with `process` keeps no limits."""


class Launch(Value, frozen=True):
    """Operation: launch these tasks, each judged alone. (Mesos: Offer.Operation.Launch)"""

    tasks: tuple[Task, ...]
    operation_id: OperationId = OperationId("")


class Statistics(Value, frozen=True):
    """What a container used in all, as the kernel counted it. (Mesos: ResourceStatistics)"""

    cpu_time_ms: int = 0
    memory_peak_bytes: int = 0
    """0: not known."""
    throttled_ms: int = 0
    """How long it was held back by its limit on processors."""
    oom_kills: int = 0
    """Processes killed for want of memory."""
    forks_refused: int = 0
    """How often its limit on processes was reached."""
    read_bytes: int = 0
    write_bytes: int = 0


class Status(Value, frozen=True):
    """What is known of a task at one moment. (Mesos: TaskStatus)"""

    task_id: TaskId
    state: TaskState
    source: Source
    reason: Reason = Reason.NONE
    message: str = ""
    agent_id: AgentId = AgentId("")
    executor_id: ExecutorId = ExecutorId("")
    container_id: ContainerId = ContainerId("")
    timestamp_us: int = 0
    """Microseconds since 1970 on the clock of whoever made it."""
    update_id: UpdateId = UpdateId("")
    """Set on reliable updates only: these are repeated until acknowledged."""
    data: bytes = b""
    healthy: bool | None = None
    exit_status: int | None = None
    """The exit code of a command (0..255), when it ended by itself."""
    signal: int | None = None
    """The signal that ended a command, when one did."""
    unreachable_since_us: int = 0
    after_update_id: UpdateId = UpdateId("")
    """Set when an earlier update of this task may still be on its way: whoever never saw that one ignores this one,
    unacknowledged. Both come again, in order (core/updates.py)."""
    statistics: Statistics | None = None
    """With a command task's last update, where its agent can count."""


class FrameworkInfo(Value, frozen=True):
    """How a framework presents itself. (Mesos: FrameworkInfo; capabilities are absent: every framework has them all)"""

    name: str
    user: str = ""
    roles: tuple[Role, ...] = (Role("*"),)
    failover_timeout_ms: int = 0
    """How long tasks live on without their framework; 0: they end as soon as it disconnects."""
    hostname: str = ""
    webui_url: str = ""
    labels: dict[str, str] = {}
    principal: Principal = Principal("")
    """Filled in by the master from the authenticated link; what a framework writes here is checked against it."""


class AgentInfo(Value, frozen=True):
    """How an agent presents itself. (Mesos: SlaveInfo)"""

    hostname: str
    address: Address
    """Where its mailbox is: `tcp://host:port/agent`."""
    resources: Resources
    attributes: Attributes = Attributes()
    version: str = ""
    isolation: str = ""
    """What keeps its tasks apart: `cgroups`, `process`, or another containerizer's name."""
    warning: str = ""
    """Something its operator should know for as long as it runs so; shown by `status` and `agents`."""


class TaskReport(Value, frozen=True):
    """A task as its agent knows it; sent when an agent registers again."""

    framework_id: FrameworkId
    task_id: TaskId
    resources: Resources
    role: Role
    state: TaskState
    """The newest state, acknowledged or not."""
    executor_id: ExecutorId = ExecutorId("")
    container_id: ContainerId = ContainerId("")
    name: str = ""
    labels: dict[str, str] = {}
    update_id: UpdateId = UpdateId("")
    """The id of the newest update of its stream, empty when none is waiting."""


class ExecutorReport(Value, frozen=True):
    """A custom executor as its agent knows it."""

    framework_id: FrameworkId
    executor: ExecutorInfo
    role: Role
    container_id: ContainerId = ContainerId("")


class Demand(Value, frozen=True):
    """What a framework waits for: so many tasks of such a shape. An allocator may use it, never must."""

    role: Role
    shape: Resources
    count: int
