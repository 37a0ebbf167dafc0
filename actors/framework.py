"""What a framework's author subclasses: offers come in, tasks go out, updates come back.

Override the `on_…` callbacks; inside them, read `now_s`, `rng`, `tasks`, `kept`; act with `accept`, `decline`, `kill`
and the rest. Callbacks are synchronous, one at a time. The same class runs on a cluster (`mesos_actor.run`), inside an
asyncio program (`mesos_actor.running`) and in the simulator (`FrameworkActor`), unchanged; `docs/frameworks.md` is the
guide. Delivery of updates is at least once, so `on_update` must stand a repeat.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

from mesos_actor.actors.callbacks import Callbacks
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import (
    AgentId,
    ExecutorId,
    FrameworkId,
    OfferId,
    OperationId,
    Role,
    TaskId,
    role_error,
)
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import Instruction, OperationResult
from mesos_actor.actors.messages.values import (
    NO_LIMITS,
    Command,
    ContainerSpec,
    Demand,
    ExecutorInfo,
    FrameworkInfo,
    Launch,
    Offer,
    RLimit,
    Status,
    Task,
    TaskLimits,
    Uri,
)
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

DEFAULT_REFUSE_S = 5.0
"""How long the rest of an accepted or declined offer is not offered again (Mesos: Filters.refuse_seconds)."""


class KnownTask(NamedTuple):
    """A task of this framework that has not ended, as far as is known here."""

    agent_id: AgentId
    state: TaskState


class SchedulingActions(Protocol):
    """What the driver does for a framework; the methods of `Framework` of the same names say what each means."""

    def accept(
        self,
        offers: Sequence[Offer | OfferId],
        operations: Sequence[Launch],
        refuse_ms: int,
    ) -> None: ...
    def decline(self, offers: Sequence[Offer | OfferId], refuse_ms: int, why: str) -> None: ...
    def revive(self, roles: Sequence[Role]) -> None: ...
    def suppress(self, roles: Sequence[Role]) -> None: ...
    def kill(self, task_id: TaskId, agent_id: AgentId, grace_ms: int, operation_id: OperationId) -> None: ...
    def acknowledge(self, status: Status) -> None: ...
    def reconcile(self, tasks: Mapping[TaskId, AgentId] | None) -> None: ...
    def message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None: ...
    def request_demand(self, demands: Sequence[Demand]) -> None: ...
    def persist(self, key: str, data: bytes | None) -> None: ...
    def read_file(
        self, status: Status, path: str, offset_bytes: int, length_bytes: int, operation_id: OperationId
    ) -> None: ...
    def answer(self, instruction: Instruction, ok: bool, reason: str, text: str, data: bytes) -> None: ...
    def stop(self, failover: bool, outcome: str) -> None: ...


class Framework(Callbacks):
    """A scheduler. Class attributes say how it presents itself; set them on the class or, per object, before the run.

    A callback that raises ends the run with that exception, and nothing that the callback asked for is done.
    """

    name: str = ""
    """What people see; empty: the name of the class."""
    roles: Sequence[str] = ("*",)
    """The roles it takes offers in."""
    failover_timeout_s: float = 0.0
    """How long its tasks live on while it is away; 0: they end as soon as it disconnects."""
    user: str = ""
    """The Unix user its tasks run as; empty: the agent's own."""
    labels: Mapping[str, str] = {}
    hostname: str = ""
    webui_url: str = ""
    manual_acknowledge: ClassVar[bool] = False
    """True: `on_update` does not imply `acknowledge(status)`; until that is called the next update is held back."""

    #: Known while and after the run; empty before the first registration.
    framework_id: FrameworkId
    #: Whether a leading master answers now.
    connected: bool
    #: Task id to its agent and newest state, for tasks that have not ended.
    tasks: Mapping[TaskId, KnownTask]
    #: What `persist` kept, by key: from former runs with the same state directory and from this one.
    kept: Mapping[str, bytes]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        author = super().__new__(cls, *args, **kwargs)
        author.framework_id, author.connected = FrameworkId(""), False
        author.tasks, author.kept = {}, {}
        return author

    # -- callbacks --------------------------------------------------------------------------------------------------

    def on_registered(self, framework_id: FrameworkId) -> None:
        """A leading master took us in: at first, and again after every lost connection."""

    def on_offers(self, offers: Sequence[Offer]) -> None:
        """New offers. Each is held back from everybody else until it is accepted, declined, or times out.

        The default declines them."""
        self.decline(offers)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        """These offers are void; accepting one drops its tasks."""

    def on_update(self, status: Status) -> None:
        """News of a task. Acknowledged when this returns, after all that it persisted is safe."""

    def on_operation(self, result: OperationResult) -> None:
        """The answer to an operation that was given an id. Reason `unknown`: the connection broke meanwhile."""

    def on_message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        """Bytes from a custom executor."""

    def on_agent_lost(self, agent_id: AgentId) -> None:
        """An agent is unreachable or gone; updates tell about its tasks."""

    def on_executor_lost(
        self, agent_id: AgentId, executor_id: ExecutorId, exit_status: int | None, signal: int | None
    ) -> None:
        """A custom executor ended, with this exit code or by this signal, when either is known."""

    def on_file(self, file: FileData) -> None:
        """The answer to `read_file`; `file.error` says why there is none."""

    def on_instruction(self, instruction: Instruction) -> None:
        """An operator asks for something in this framework's own words; reply with `answer`. By default: a refusal."""
        text = f"{self.name or type(self).__name__} takes no instructions"
        self.answer(instruction, ok=False, reason="invalid", text=text)

    def on_disconnected(self) -> None:
        """The leading master is gone; all offers are void. A new one is looked for already."""

    def on_error(self, reason: str, text: str) -> None:
        """The master refused something. When it refused the framework itself, the run ends with a PeerError next."""

    # -- actions ----------------------------------------------------------------------------------------------------

    def accept(
        self,
        offers: Offer | OfferId | Iterable[Offer | OfferId],
        tasks: Iterable[Task] = (),
        *,
        operations: Iterable[Launch] = (),
        refuse_s: float = DEFAULT_REFUSE_S,
        operation_id: str = "",
    ) -> None:
        """Launch `tasks` (and then `operations`) on these offers, all of one agent; what is left over goes back and is
        not offered again for `refuse_s`. Each task gets an update, whatever happens; with an `operation_id` the launch
        is answered by `on_operation` too. Without any task this is `decline`.

        Raises LocalError for offers of several agents, or a task id that is in use by a live task.
        """
        driver = self._driving()
        asked = tuple(operations)
        launched = tuple(tasks)
        if launched:
            asked = (Launch(launched, OperationId(operation_id)), *asked)
        driver.accept(_as_offers(offers), asked, _ms("refuse_s", refuse_s))

    def decline(
        self,
        offers: Offer | OfferId | Iterable[Offer | OfferId],
        refuse_s: float = DEFAULT_REFUSE_S,
        why: str = "",
    ) -> None:
        """Give offers back; nothing like them comes from that agent for `refuse_s`, unless `revive` is called. `why` is
        shown to whoever asks `mesos-actor why`."""
        self._driving().decline(_as_offers(offers), _ms("refuse_s", refuse_s), why)

    def revive(self, roles: Iterable[str] = ()) -> None:
        """Forget filters and suppression and have offers again, for these roles or for all."""
        self._driving().revive([Role(role) for role in roles])

    def suppress(self, roles: Iterable[str] = ()) -> None:
        """Have no offers for these roles, or for any, until `revive`."""
        self._driving().suppress([Role(role) for role in roles])

    def request_demand(self, demands: Iterable[Demand]) -> None:
        """Say what is waited for, replacing what was said before; the wait for offers is bounded then."""
        self._driving().request_demand(tuple(demands))

    def kill(
        self, task_id: str, agent_id: str | None = None, grace_s: float | None = None, operation_id: str = ""
    ) -> None:
        """End a task; `grace_s` from TERM to KILL, by default the task's own. Repeated until the task has ended."""
        grace_ms = -1 if grace_s is None else _ms("grace_s", grace_s)
        self._driving().kill(TaskId(task_id), AgentId(agent_id or ""), grace_ms, OperationId(operation_id))

    def acknowledge(self, status: Status) -> None:
        """Say that an update is taken note of; only needed with `manual_acknowledge`. Harmless twice."""
        self._driving().acknowledge(status)

    def reconcile(self, tasks: Iterable[str] | Mapping[str, str] | None = None) -> None:
        """Have `on_update` called with the present state of these tasks (ids, or a map from id to agent id); with None,
        of all tasks the master knows of us. Repeated until answered. Done by itself after every re-registration and
        each quarter of an hour for the tasks in `self.tasks`."""
        if tasks is None:
            self._driving().reconcile(None)
            return
        known = tasks if isinstance(tasks, Mapping) else dict.fromkeys(tasks, "")
        self._driving().reconcile({TaskId(task): AgentId(agent) for task, agent in known.items()})

    def message(self, agent_id: str, executor_id: str, data: bytes) -> None:
        """Send bytes to a custom executor, at most once."""
        self._driving().message(AgentId(agent_id), ExecutorId(executor_id), data)

    def read_file(
        self, status: Status, path: str, offset_bytes: int = 0, length_bytes: int = 262_144, operation_id: str = ""
    ) -> None:
        """Read from the sandbox of the task that `status` is about; answered by `on_file`, at most once. `path` is
        relative (`stdout`); at most 256 KiB come at a time; a negative offset counts from the end. Asking again under
        the same id repeats the question; there is one answer."""
        self._driving().read_file(status, path, offset_bytes, length_bytes, OperationId(operation_id))

    def answer(
        self, instruction: Instruction, ok: bool = True, reason: str = "", text: str = "", data: bytes = b""
    ) -> None:
        """Reply to an operator's instruction, once."""
        self._driving().answer(instruction, ok, reason, text, data)

    def persist(self, key: str, data: bytes | None) -> None:
        """Keep `data` under `key` in the state directory, or forget the key. Whatever is sent after this leaves only
        when it is on disk. Raises LocalError past the bounds of key, record or number."""
        self._driving().persist(key, data)

    def stop(self, failover: bool = False, outcome: str = "finished") -> None:
        """End the run. By default the framework is torn down, its tasks are killed and the cluster remembers `outcome`
        (`finished`, `failed: <why>`); with `failover` they live on for `failover_timeout_s`, for the next run with the
        same state directory. No callback comes after this one."""
        self._driving().stop(failover, outcome)

    # -- for the driver ---------------------------------------------------------------------------------------------

    def info(self) -> FrameworkInfo:
        """How it presents itself. Raises ConfigError for attributes that cannot be used."""
        if isinstance(self.roles, str) or not self.roles:
            raise ConfigError(f"roles: {self.roles!r} is not a list of roles; write roles = ('name',)")
        for role in self.roles:
            if text := role_error(role):
                raise ConfigError(f"roles: {text}; choose another name")
        if not 0 <= self.failover_timeout_s <= 10 * 365 * 86_400:
            raise ConfigError(f"failover_timeout_s: {self.failover_timeout_s!r} is not a time from 0 to ten years")
        return FrameworkInfo(
            name=self.name or type(self).__name__,
            user=self.user,
            roles=tuple(Role(role) for role in self.roles),
            failover_timeout_ms=round(self.failover_timeout_s * 1000),
            hostname=self.hostname,
            webui_url=self.webui_url,
            labels=dict(self.labels),
        )

    def _driving(self) -> SchedulingActions:
        # Only FrameworkActor ever drives a Framework; it names this class, so the other way round it is a Protocol.
        return cast(SchedulingActions, self._acting())


def command_task(
    task_id: str,
    command: str | Sequence[str],
    resources: Resources,
    *,
    name: str = "",
    env: Mapping[str, str] | None = None,
    uris: Iterable[Uri] = (),
    labels: Mapping[str, str] | None = None,
    max_completion_s: float = 0.0,
    limits: TaskLimits = NO_LIMITS,
    container: ContainerSpec | None = None,
    rlimits: Iterable[RLimit] = (),
) -> Task:
    """A task that runs a command: a list is the argument vector, a string goes through `/bin/sh -c`; empty, with a
    container's image: the image's own program."""
    shell = isinstance(command, str)
    argv = (command,) if isinstance(command, str) else tuple(command)
    return Task(
        task_id=TaskId(task_id),
        resources=resources,
        command=Command(
            argv=argv,
            shell=shell,
            env=dict(env or {}),
            uris=tuple(uris),
            container=container,
            rlimits=tuple(rlimits),
        ),
        name=name or task_id,
        labels=dict(labels or {}),
        max_completion_ms=_ms("max_completion_s", max_completion_s),
        limits=limits,
    )


def executor_task(
    task_id: str, executor: ExecutorInfo, resources: Resources, data: bytes = b"", limits: TaskLimits = NO_LIMITS
) -> Task:
    """A task for a custom executor, which is started on the agent unless it runs there already."""
    name = TaskId(task_id)
    return Task(task_id=name, resources=resources, executor=executor, name=task_id, data=data, limits=limits)


def _as_offers(offers: Offer | OfferId | Iterable[Offer | OfferId]) -> tuple[Offer | OfferId, ...]:
    if isinstance(offers, Offer):
        return (offers,)
    if isinstance(offers, str):
        return (OfferId(offers),)
    return tuple(offers)


def _ms(field: str, seconds: float) -> int:
    """Seconds as whole milliseconds; infinity becomes the largest that the wire carries."""
    if not seconds >= 0:
        raise ValueError(f"{field}: {seconds!r} is not a number of seconds from 0 on")
    return round(min(seconds, 365 * 86_400) * 1000)
