"""A custom executor: what its author subclasses, and the driver that speaks for it to the agent.

An executor is a process that an agent starts for the first task that names it; it runs as many tasks as it is given,
until it stops, is shut down, or its framework ends. Override `on_launch` and report each task's states with `update`.
The driver registers and registers again, repeats updates until the agent has kept them, and lives through an agent's
restart. Source: Mesos docs/executor-http-api.md, src/executor/executor.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol, Self, cast

from msgspec.structs import replace

from mesos_actor.actors.actor import SECOND_US, Context, handles
from mesos_actor.actors.callbacks import CallbackActor, Callbacks, Host
from mesos_actor.actors.errors import LocalError, PeerError
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    TaskId,
    UpdateId,
    node_of,
)
from mesos_actor.actors.messages.executors import (
    ExecutorAcknowledged,
    ExecutorRegistered,
    ExecutorUpdate,
    KillExecutorTask,
    LaunchTasks,
    ReconcileExecutor,
    RegisterExecutor,
    ShutdownYourself,
)
from mesos_actor.actors.messages.scheduler import FromExecutor, Posted, Refused, ToExecutor
from mesos_actor.actors.messages.values import Status, Task
from mesos_actor.actors.task import TERMINAL, Source, TaskState

REGISTRATION_BACKOFF_US = SECOND_US
"""The longest pause between two attempts to register: half of what an agent that restarted waits for its executors
(Mesos: both 2 s, MESOS_SUBSCRIPTION_BACKOFF_MAX and --executor_reregistration_timeout, which is a race)."""
RECOVERY_TIMEOUT_US = 900 * SECOND_US
"""How long an executor waits for its agent to come back before it shuts down (Mesos: --recovery_timeout, 15 min)."""
UPDATE_RETRY_US = 5 * SECOND_US
"""First repeat of updates without an answer, then doubled; a lost link repeats them sooner."""
UPDATE_RETRY_MAX_US = 60 * SECOND_US
STOP_LINGER_US = 3 * SECOND_US
"""How long `stop` waits for the agent to keep the last updates."""
GRACE_PERMILLE = 800
"""The part of the shutdown grace that tasks may use; the rest is for the last updates to be kept."""
LONELY_GRACE_MS = 5_000
"""The shutdown grace without an agent to give one (Mesos: MESOS_EXECUTOR_SHUTDOWN_GRACE_PERIOD, 5 s)."""
MAX_TASKS = 100_000
"""Tasks of one executor that have not ended; further ones are answered with FAILED."""
MAX_UNACKNOWLEDGED = 100_000
"""Updates without an answer; past it `update` raises LocalError."""
MAX_REGISTRATION_BYTES = 4 << 20
"""Data of updates that a registration carries; the rest follows as messages of their own."""


class ExecutorActions(Protocol):
    """What the driver does for an executor."""

    def update(self, status: Status) -> None: ...
    def message(self, data: bytes) -> None: ...
    def stop(self) -> None: ...


class Executor(Callbacks):
    """Runs tasks. A callback that raises ends the process with that exception, and with it all its tasks."""

    #: Known from `on_registered` on.
    agent_id: AgentId
    framework_id: FrameworkId
    executor_id: ExecutorId
    #: What the framework put into `ExecutorInfo.data`.
    data: bytes
    #: Task id to task, for tasks that have not ended.
    tasks: Mapping[TaskId, Task]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        author = super().__new__(cls, *args, **kwargs)
        author.agent_id, author.framework_id, author.executor_id = AgentId(""), FrameworkId(""), ExecutorId("")
        author.data, author.tasks = b"", {}
        return author

    # -- callbacks --------------------------------------------------------------------------------------------------

    def on_registered(self) -> None:
        """The agent took us in: at first, and again after each of its restarts."""

    def on_launch(self, task: Task) -> None:
        """Run this task: report RUNNING if it takes a while, and exactly one terminal state. Must be overridden; must
        not block (work in a thread and `post` its result)."""
        raise NotImplementedError(f"{type(self).__name__} does not say how to launch a task; override on_launch")

    def on_kill(self, task_id: TaskId, grace_s: float) -> None:
        """End this task within the grace and report a terminal state. The default reports KILLED at once, which is
        right only for tasks that are nothing but an entry in this process."""
        self.update(task_id, TaskState.KILLED)

    def on_message(self, data: bytes) -> None:
        """Bytes from the framework."""

    def on_disconnected(self) -> None:
        """The agent is away; tasks go on, updates wait for it."""

    def on_shutdown(self, grace_s: float) -> None:
        """End all tasks within the grace, then `stop`. The default reports KILLED for each and stops."""
        for task_id in list(self.tasks):
            self.update(task_id, TaskState.KILLED, "the executor was shut down")
        self.stop()

    # -- actions ----------------------------------------------------------------------------------------------------

    def update(
        self,
        task_id: str,
        state: TaskState,
        message: str = "",
        data: bytes = b"",
        healthy: bool | None = None,
        exit_status: int | None = None,
        signal: int | None = None,
    ) -> None:
        """Tell the framework about a task, reliably. Raises LocalError for a task that was never given to us or has
        ended, and for a state that only an agent or a master may tell."""
        self._running().update(
            Status(
                TaskId(task_id),
                state,
                Source.EXECUTOR,
                message=message,
                data=data,
                healthy=healthy,
                exit_status=exit_status,
                signal=signal,
            )
        )

    def message(self, data: bytes) -> None:
        """Send bytes to the framework, at most once."""
        self._running().message(data)

    def stop(self) -> None:
        """End the process, after the agent has kept the updates so far or a short while. No callback comes after it."""
        self._running().stop()

    def _running(self) -> ExecutorActions:
        return cast(ExecutorActions, self._acting())


_TELLABLE = frozenset(
    {
        TaskState.STARTING,
        TaskState.RUNNING,
        TaskState.KILLING,
        TaskState.FINISHED,
        TaskState.FAILED,
        TaskState.KILLED,
        TaskState.ERROR,
    }
)


class ExecutorActor(CallbackActor):
    """Runs `executor` under the agent with the mailbox `agent`."""

    author: Executor

    def __init__(
        self,
        executor: Executor,
        agent: Address,
        framework_id: FrameworkId,
        executor_id: ExecutorId,
        container_id: ContainerId,
        host: Host | None = None,
    ) -> None:
        super().__init__(executor, host)
        self.agent = agent
        self.connected = False
        self.container_id = container_id
        self.tasks: dict[TaskId, Task] = {}
        #: Updates that the agent has not kept yet, in order.
        self.unacknowledged: dict[UpdateId, Status] = {}
        #: Tasks of which the agent has kept no update yet.
        self.unheard: dict[TaskId, None] = {}
        #: Tasks that were asked to end and have not, to the shortest grace given.
        self.kills: dict[TaskId, int] = {}
        self.stopping = False
        self._shutting_down = False
        self._updates = 0
        self._pause_us = UPDATE_RETRY_US
        executor.framework_id, executor.executor_id = framework_id, executor_id
        executor.tasks = MappingProxyType(self.tasks)

    # -- registration -----------------------------------------------------------------------------------------------

    def on_start(self, ctx: Context) -> None:
        if self._call(ctx, "on_start"):
            ctx.set_timer("give-up", RECOVERY_TIMEOUT_US)
            self._register(ctx)

    def _register(self, ctx: Context) -> None:
        ctx.watch(node_of(self.agent))
        fitting: list[Status] = []
        size = 0
        for status in self.unacknowledged.values():
            size += len(status.data) + len(status.message)
            if size > MAX_REGISTRATION_BYTES:
                break
            fitting.append(status)
        author = self.author
        message = RegisterExecutor(
            author.framework_id, author.executor_id, self.container_id, tuple(self.unheard), tuple(fitting)
        )
        ctx.send(self.agent, message)
        ctx.set_timer("register", ctx.rng.randrange(REGISTRATION_BACKOFF_US // 4, REGISTRATION_BACKOFF_US))

    @handles(ExecutorRegistered)
    def on_registered(self, ctx: Context, sender: Address, message: ExecutorRegistered) -> None:
        """Updates are repeated at once: the former link may have lost them."""
        if not self._is_agent(ctx, sender):
            return
        again, self.connected = self.connected, True
        ctx.cancel_timer("register")
        ctx.cancel_timer("give-up")
        self.author.agent_id, self.author.data = message.agent_id, message.executor.data
        self._pause_us = UPDATE_RETRY_US
        if again or self._silent() or self._call(ctx, "on_registered"):
            self._repeat(ctx)

    @handles(ReconcileExecutor)
    def on_reconcile(self, ctx: Context, sender: Address, message: ReconcileExecutor) -> None:
        """The agent waits for news of something: it is told what we have, and gives us the rest."""
        if self._is_agent(ctx, sender) and not self._silent():
            self._register(ctx)

    def _link_lost(self, ctx: Context, node: Node) -> None:
        if node == node_of(self.agent) and self.connected:
            self.connected = False
            ctx.set_timer("give-up", RECOVERY_TIMEOUT_US)
            ctx.set_timer("register", ctx.rng.randrange(REGISTRATION_BACKOFF_US // 4))
            self._call(ctx, "on_disconnected")

    @handles(Refused)
    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        ctx.warn("refused", about=message.about, reason=message.reason, text=message.text)
        if message.fatal and sender == self.agent:
            self.failure = PeerError(f"{message.reason}: {message.text}")
            self._end(ctx, message.reason)

    # -- tasks ------------------------------------------------------------------------------------------------------

    @handles(LaunchTasks)
    def on_launch(self, ctx: Context, sender: Address, message: LaunchTasks) -> None:
        """A task that is delivered again is not run again."""
        if not self._is_agent(ctx, sender) or self._silent():
            return
        for task in message.tasks:
            if task.task_id in self.tasks or task.task_id in self.unheard:
                continue
            self.unheard[task.task_id] = None
            if len(self.tasks) >= MAX_TASKS:
                text = f"the executor has {MAX_TASKS} tasks already"
                self._tell(ctx, Status(task.task_id, TaskState.FAILED, Source.EXECUTOR, message=text))
                continue
            self.tasks[task.task_id] = task
            if not self._call(ctx, "on_launch", task):
                return

    @handles(KillExecutorTask)
    def on_kill(self, ctx: Context, sender: Address, message: KillExecutorTask) -> None:
        """A repeat that does not shorten the grace never troubles the author."""
        task_id, grace_ms = message.task_id, max(0, message.grace_ms)
        if not self._is_agent(ctx, sender) or task_id not in self.tasks:
            return
        if grace_ms < self.kills.get(task_id, grace_ms + 1):
            self.kills[task_id] = grace_ms
            self._call(ctx, "on_kill", task_id, grace_ms / 1000)

    @handles(ToExecutor)
    def on_to_executor(self, ctx: Context, sender: Address, message: ToExecutor) -> None:
        if self._is_agent(ctx, sender):
            self._call(ctx, "on_message", message.data)

    @handles(ShutdownYourself)
    def on_shutdown(self, ctx: Context, sender: Address, message: ShutdownYourself) -> None:
        if self._is_agent(ctx, sender):
            self._shut_down(ctx, max(0, message.grace_ms))

    def _shut_down(self, ctx: Context, grace_ms: int) -> None:
        if self._shutting_down or self._silent():
            return
        self._shutting_down = True
        usable_ms = grace_ms * GRACE_PERMILLE // 1000
        ctx.set_timer("shutdown", usable_ms * 1_000)
        self._call(ctx, "on_shutdown", usable_ms / 1000)

    @handles(Posted)
    def on_posted(self, ctx: Context, sender: Address, message: Posted) -> None:
        """Only wakes: what was posted is handed over after every event."""

    # -- updates ----------------------------------------------------------------------------------------------------

    def update(self, status: Status) -> None:
        """See `Executor.update`."""
        self._going_on()
        if status.task_id not in self.tasks:
            raise LocalError(f"update: task {status.task_id!r} is not here, or a terminal state was reported already")
        if status.state not in _TELLABLE:
            raise LocalError(f"update: an executor cannot report {status.state}; use one of {sorted(_TELLABLE)}")
        if len(self.unacknowledged) >= MAX_UNACKNOWLEDGED:
            raise LocalError(f"update: {MAX_UNACKNOWLEDGED} updates wait for the agent already")
        self._tell(self.ctx, status)

    def _tell(self, ctx: Context, status: Status) -> None:
        """Name the update, remember it and send it."""
        self._updates += 1
        name = UpdateId(f"{self.container_id}:e{self._updates}")
        author = self.author
        named = replace(
            status,
            agent_id=author.agent_id,
            executor_id=author.executor_id,
            container_id=self.container_id,
            timestamp_us=ctx.now_us,
            update_id=name,
        )
        if status.state in TERMINAL:
            self.tasks.pop(status.task_id, None)
            self.kills.pop(status.task_id, None)
        first = not self.unacknowledged
        self.unacknowledged[name] = named
        if self.connected:
            ctx.send(self.agent, ExecutorUpdate(author.framework_id, author.executor_id, named))
            if ctx.sometimes("executor-update-sent-twice"):
                ctx.send(self.agent, ExecutorUpdate(author.framework_id, author.executor_id, named))
            if first:
                ctx.set_timer("repeat", self._pause_us)

    @handles(ExecutorAcknowledged)
    def on_acknowledged(self, ctx: Context, sender: Address, message: ExecutorAcknowledged) -> None:
        if not self._is_agent(ctx, sender):
            return
        if self.unacknowledged.pop(UpdateId(message.update_id), None) is not None:
            self.unheard.pop(message.task_id, None)
            self._pause_us = UPDATE_RETRY_US
            if not self.unacknowledged:
                ctx.cancel_timer("repeat")
                if self.stopping:
                    self._end(ctx, "stopped")

    def _repeat(self, ctx: Context) -> None:
        """All updates that were not answered, in order."""
        if self.connected and self.unacknowledged:
            for status in self.unacknowledged.values():
                ctx.send(self.agent, ExecutorUpdate(self.author.framework_id, self.author.executor_id, status))
            ctx.set_timer("repeat", self._pause_us)
            self._pause_us = min(UPDATE_RETRY_MAX_US, self._pause_us * 2)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def message(self, data: bytes) -> None:
        """See `Executor.message`."""
        self._going_on()
        author = self.author
        if self.connected:
            self.ctx.send(self.agent, FromExecutor(author.framework_id, author.agent_id, author.executor_id, data))

    def stop(self) -> None:
        """See `Executor.stop`."""
        self._going_on()
        self._stop(self.ctx)

    def _stop(self, ctx: Context) -> None:
        self.stopping = True
        if self.unacknowledged:
            ctx.set_timer("linger", STOP_LINGER_US)
        else:
            self._end(ctx, "stopped")

    def _own_timer(self, ctx: Context, name: str) -> None:
        if name == "register" and not self.connected:
            self._register(ctx)
        elif name == "repeat":
            self._repeat(ctx)
        elif name == "give-up" and not self.connected:
            ctx.warn("agent_did_not_return", agent=self.agent)
            self._shut_down(ctx, LONELY_GRACE_MS)
        elif name == "shutdown" and not self.stopping:
            self._stop(ctx)
        elif name == "linger":
            self._end(ctx, f"stopped; {len(self.unacknowledged)} updates were not kept")

    def _stop_asked(self, ctx: Context, failover: bool) -> None:
        self._shut_down(ctx, LONELY_GRACE_MS)

    def _going_on(self) -> None:
        if self.ended or self.stopping:
            raise LocalError("the executor was stopped; nothing can be asked for after stop()")

    def _silent(self) -> bool:
        return self.stopping

    def _is_agent(self, ctx: Context, sender: Address) -> bool:
        if sender == self.agent:
            return True
        ctx.warn("not_our_agent", sender=sender)
        return False
