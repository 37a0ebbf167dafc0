"""Custom executors on an agent: launched for their first task, registered, fed, relayed to, shut down, mourned.

Source: Mesos src/slave/slave.cpp `subscribe`, `statusUpdate`, `executorTerminated`, `registerExecutorTimeout`.
"""

from __future__ import annotations

from msgspec.structs import replace

from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_registration import Registration
from mesos_actor.actors.agent_reports import RESIZE_TIMER, Reports
from mesos_actor.actors.core.launches import (
    Outcome,
    as_user,
    batches,
    executor_container,
    exit_text,
    limitation_reason,
    run_id,
)
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import Verdict
from mesos_actor.actors.core.workload import Executor, HostedFramework, Run, Workload
from mesos_actor.actors.ids import (
    Address,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    Principal,
    Role,
    address,
    local,
    node_of,
)
from mesos_actor.actors.messages.agents import ShutdownExecutor
from mesos_actor.actors.messages.containers import ContainerExited, ForgetContainer, KillContainer, UpdateContainer
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
from mesos_actor.actors.messages.scheduler import ExecutorLost, FromExecutor, Refused, ToExecutor
from mesos_actor.actors.messages.values import ExecutorInfo, Status, Task
from mesos_actor.actors.task import Reason, Source, TaskState

CONTAINERIZER = local("containerizer")
REGISTRATION_TIMER = "executor/"
"""Followed by the container's id: the executor must have registered by then."""
SHUTDOWN_TIMER = "shutdown/"
"""Followed by the container's id: the executor must have ended by then."""

DOUBT_TIMER = "doubt/"
"""Followed by the container's id: by then something should have been heard of what was given to the executor."""
DOUBT_US = 10_000_000
"""A task that says nothing, or a kill without an end, makes the executor be asked what it has."""

TRUSTED_PRINCIPALS = frozenset({Principal("cluster"), Principal("local"), Principal("anonymous")})
"""May speak for any executor; others only as `executor:<container id>`."""

MAX_UPDATE_NAME = 255
"""Longer names of updates are refused: they are kept to recognise repeats."""

TELLABLE = frozenset(
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
"""States that an executor may report; the others are for agent and master to say."""

NOT_REGISTERED = Outcome(
    TaskState.FAILED, Reason.EXECUTOR_REGISTRATION_TIMEOUT, "The executor did not register with the agent in time"
)
NOT_BACK = Outcome(
    TaskState.GONE, Reason.EXECUTOR_REREGISTRATION_TIMEOUT, "The executor did not come back to the agent in time"
)
KILLED_QUEUED = Outcome(
    TaskState.KILLED, Reason.TASK_KILLED_DURING_LAUNCH, "Killed before it was delivered to the executor"
)


class Executors:
    """The custom executors of this agent."""

    def __init__(
        self, settings: AgentSettings, registration: Registration, reports: Reports, workload: Workload
    ) -> None:
        self._settings = settings
        self._registration = registration
        self._reports = reports
        self._workload = workload

    # -- launch -----------------------------------------------------------------------------------------------------

    def find_or_launch(
        self, ctx: Context, framework: HostedFramework, role: Role, info: ExecutorInfo
    ) -> Executor | str:
        """The executor that shall run one more task, or why there is none. A new one's container is asked for."""
        executor = framework.executors.get(info.executor_id)
        if executor is None:
            if self._workload.executor_count >= self._settings.max_executors:
                return f"The agent runs {self._settings.max_executors} executors already (max_executors)"
            name = run_id(info.executor_id, ctx.rng.getrandbits(48))
            executor = Executor(framework.framework_id, role, info, name)
            self._workload.add_executor(framework, executor)
            ctx.persist(executor.record_key, executor.record())
            mailbox = address(ctx.node, ctx.name)
            agent_id = self._registration.agent_id
            command = as_user(info.command, framework.info)
            ctx.send(CONTAINERIZER, executor_container(executor.framework_id, info, command, name, agent_id, mailbox))
            executor.size_told = executor.total.now()
            self.await_registration(ctx, executor, self._settings.executor_registration_timeout_ms)
        elif executor.stopping:
            return "The executor is being ended"
        elif not executor.address and len(executor.runs) >= self._settings.max_queued_tasks:
            return f"{self._settings.max_queued_tasks} tasks wait for this executor already (max_queued_tasks)"
        return executor

    def resize(self, ctx: Context, executor: Executor) -> None:
        """Its container gets what the executor and its tasks have together, unless it has that already."""
        size = executor.total.now()
        if size != executor.size_told and executor.container_id in self._workload.containers:
            executor.size_told = size
            ctx.send(CONTAINERIZER, UpdateContainer(executor.container_id, *size))

    def on_resize_timer(self, ctx: Context, container_id: ContainerId) -> None:
        executor = self._workload.containers.get(container_id)
        if isinstance(executor, Executor):
            executor.shrinking = False
            self.resize(ctx, executor)

    def await_registration(self, ctx: Context, executor: Executor, timeout_ms: int) -> None:
        """End the executor unless it registers within this time."""
        ctx.set_timer(REGISTRATION_TIMER + executor.container_id, timeout_ms * 1_000)

    def deliver(self, ctx: Context, executor: Executor, tasks: list[Task]) -> None:
        """Give tasks to an executor; one that has not registered gets them when it does."""
        if executor.address:
            for batch in batches(tasks):
                ctx.send(executor.address, LaunchTasks(batch))
            self._doubt(ctx, executor)

    def _doubt(self, ctx: Context, executor: Executor) -> None:
        """What was just sent may be lost: ask, unless there is news in time."""
        if not executor.in_doubt:
            executor.in_doubt = True
            ctx.set_timer(DOUBT_TIMER + executor.container_id, DOUBT_US)

    def on_doubt_timer(self, ctx: Context, container_id: ContainerId) -> None:
        """An executor that is asked registers once more, and then gets what it lacks."""
        executor = self._workload.containers.get(container_id)
        if not isinstance(executor, Executor):
            return
        executor.in_doubt = False
        silent = any(r.stream.state is TaskState.STAGING or r.kill_grace_ms is not None for r in executor.runs.values())
        if silent and executor.address and not executor.stopping:
            ctx.send(executor.address, ReconcileExecutor())
            self._doubt(ctx, executor)

    def on_registration_timer(self, ctx: Context, container_id: ContainerId) -> None:
        executor = self._workload.containers.get(container_id)
        if isinstance(executor, Executor) and not executor.address and not executor.stopping:
            self._destroy(ctx, executor, NOT_BACK if executor.registered else NOT_REGISTERED)

    # -- the executor speaks ----------------------------------------------------------------------------------------

    def on_register(self, ctx: Context, sender: Address, message: RegisterExecutor) -> None:
        """It is here (again): take in what it still has to say, give it what never reached it."""
        if not self._may_speak(ctx, sender, message.container_id):
            return
        executor = self._workload.executor(message.framework_id, message.executor_id)
        if executor is None or executor.container_id != message.container_id or executor.stopping:
            ctx.warn("unknown_executor", sender=sender, executor=message.executor_id, container=message.container_id)
            ctx.send(sender, ShutdownYourself(executor.info.shutdown_grace_ms if executor is not None else 0))
            return
        executor.address = sender
        executor.registered = True
        ctx.cancel_timer(REGISTRATION_TIMER + executor.container_id)
        framework = self._workload.frameworks[executor.framework_id]
        ctx.send(sender, ExecutorRegistered(self._registration.agent_id, executor.info, framework.info))
        for status in message.unacknowledged_updates:
            self._take(ctx, executor, status)
        has = frozenset(message.unacknowledged_tasks)
        runs = list(executor.runs.values())
        lacking = [r.task for r in runs if r.stream.state is TaskState.STAGING and r.task.task_id not in has]
        self.deliver(ctx, executor, lacking)
        for run in runs:
            if run.kill_grace_ms is not None:
                ctx.send(sender, KillExecutorTask(run.task.task_id, run.kill_grace_ms))

    def _may_speak(self, ctx: Context, sender: Address, container_id: ContainerId) -> bool:
        if ctx.principal in TRUSTED_PRINCIPALS or ctx.principal == f"executor:{container_id}":
            return True
        ctx.warn("executor_not_admitted", sender=sender, principal=ctx.principal, container=container_id)
        text = f"principal '{ctx.principal}' may not speak for container '{container_id}'"
        ctx.send(sender, Refused("unauthorized", text, fatal=True, about="RegisterExecutor"))
        return False

    def on_update(self, ctx: Context, sender: Address, message: ExecutorUpdate) -> None:
        executor = self._registered(ctx, sender, self._workload.executor(message.framework_id, message.executor_id))
        if executor is not None:
            self._take(ctx, executor, message.status)

    def _registered(self, ctx: Context, sender: Address, executor: Executor | None) -> Executor | None:
        if executor is not None and sender == executor.address:
            return executor
        ctx.warn("not_from_executor", sender=sender, principal=ctx.principal)
        return None

    def _take(self, ctx: Context, executor: Executor, status: Status) -> None:
        """Keep and forward an executor's news, then answer it. What we refuse for good is answered too, or it would
        come again for ever."""
        name = status.update_id
        if not name or len(name) > MAX_UPDATE_NAME:
            ctx.warn("update_without_name", executor=executor.info.executor_id, task=status.task_id)
            return
        run = executor.runs.get(status.task_id)
        if status.state is TaskState.STAGING:
            ctx.warn("executor_broke_rules", executor=executor.info.executor_id, task=status.task_id, state="STAGING")
            self.shut_down(ctx, executor)
            return
        if run is not None and status.state in TELLABLE:
            verdict = self._reports.streams.verdict(run.stream, status.state, name)
            if verdict is Verdict.FULL:
                return
            if verdict is Verdict.NEW:
                self._apply(ctx, executor, run, status)
            elif verdict is Verdict.TOO_LATE:
                ctx.warn("update_ignored", task=status.task_id, state=status.state, newest_state=run.stream.state)
        elif run is not None:
            ctx.warn("update_ignored", task=status.task_id, state=status.state, newest_state=run.stream.state)
        if executor.address:
            ctx.send(executor.address, ExecutorAcknowledged(status.task_id, name))

    def _apply(self, ctx: Context, executor: Executor, run: Run, told: Status) -> None:
        status = replace(
            told,
            source=Source.EXECUTOR,
            agent_id=self._registration.agent_id,
            executor_id=executor.info.executor_id,
            container_id=executor.container_id,
            timestamp_us=told.timestamp_us or ctx.now_us,
            update_id=run.stream.next_update_id(),
        )
        if run.overdue and status.state is TaskState.KILLED:
            status = replace(status, state=TaskState.FAILED, reason=Reason.MAX_COMPLETION_TIME_REACHED)
        leaving = self._workload.frameworks[run.framework_id].leaving
        if status.state in _ENDS:
            if leaving:
                self._reports.end(ctx, run, KILLED_QUEUED)
            else:
                self._reports.end_as_told(ctx, run, status, told.update_id)
        elif not leaving:
            self._reports.keep(ctx, run.stream, status, told.update_id)

    def on_from_executor(self, ctx: Context, sender: Address, message: FromExecutor) -> None:
        """Relay to the framework, at most once."""
        executor = self._registered(ctx, sender, self._workload.executor(message.framework_id, message.executor_id))
        if executor is not None and self._registration.connected:
            ctx.send(self._registration.master, replace(message, agent_id=self._registration.agent_id))

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        """Executors of that process must register again, in the time that a first registration may take."""
        for executor in self._workload.executors():
            if executor.address and node_of(executor.address) == node:
                executor.address = Address("")
                if not executor.stopping:
                    self.await_registration(ctx, executor, self._settings.executor_registration_timeout_ms)

    # -- the framework speaks ---------------------------------------------------------------------------------------

    def on_to_executor(self, ctx: Context, message: ToExecutor) -> None:
        """Relay to the executor, at most once."""
        executor = self._workload.executor(message.framework_id, message.executor_id)
        if executor is not None and executor.address:
            ctx.send(executor.address, message)

    def kill(self, ctx: Context, executor: Executor, run: Run, grace_ms: int) -> None:
        """End one task. One that was not delivered yet ends at once, and with the last such one its executor."""
        if not executor.registered and not executor.address:
            self._reports.end(ctx, run, KILLED_QUEUED)
            if not executor.runs:
                self.shut_down(ctx, executor)
            return
        run.kill_grace_ms = grace_ms if run.kill_grace_ms is None else min(grace_ms, run.kill_grace_ms)
        if executor.address:
            ctx.send(executor.address, KillExecutorTask(run.task.task_id, grace_ms))
            self._doubt(ctx, executor)

    def on_shutdown(self, ctx: Context, message: ShutdownExecutor) -> None:
        executor = self._workload.executor(message.framework_id, message.executor_id)
        if executor is not None:
            self.shut_down(ctx, executor)

    def shut_down(self, ctx: Context, executor: Executor) -> None:
        """Ask it to end its tasks and itself; after its grace its container is killed."""
        if executor.stopping:
            return
        if not executor.address:
            self._destroy(ctx, executor, None)
            return
        executor.stopping = True
        grace_ms = max(0, executor.info.shutdown_grace_ms)
        ctx.send(executor.address, ShutdownYourself(grace_ms))
        ctx.set_timer(SHUTDOWN_TIMER + executor.container_id, grace_ms * 1_000)

    def on_shutdown_timer(self, ctx: Context, container_id: ContainerId) -> None:
        if container_id in self._workload.containers:
            ctx.send(CONTAINERIZER, KillContainer(container_id, 0))

    def _destroy(self, ctx: Context, executor: Executor, ending: Outcome | None) -> None:
        executor.stopping = True
        executor.ending = ending
        ctx.cancel_timer(REGISTRATION_TIMER + executor.container_id)
        ctx.send(CONTAINERIZER, KillContainer(executor.container_id, 0))

    # -- the end ----------------------------------------------------------------------------------------------------

    def on_exited(self, ctx: Context, executor: Executor, exited: ContainerExited) -> None:
        """Its container is gone, and with it all its tasks."""
        text = f"The executor has ended. {exit_text(exited)}"
        reason = limitation_reason(exited.limitation) if exited.limitation else Reason.EXECUTOR_TERMINATED
        self.bury(ctx, executor, Outcome(TaskState.FAILED, reason, text), exited)

    def bury(self, ctx: Context, executor: Executor, outcome: Outcome, exited: ContainerExited | None = None) -> None:
        """End what it ran as `outcome` says, unless it was ended for a reason of ours, and forget it."""
        self._workload.containers.pop(executor.container_id, None)
        framework = self._workload.frameworks[executor.framework_id]
        for run in list(executor.runs.values()):
            self._reports.end(ctx, run, executor.ending or outcome)
        for timer in (REGISTRATION_TIMER, SHUTDOWN_TIMER, DOUBT_TIMER, RESIZE_TIMER):
            ctx.cancel_timer(timer + executor.container_id)
        ctx.persist(executor.record_key, None)
        ctx.send(CONTAINERIZER, ForgetContainer(executor.container_id))
        self._workload.remove_executor(framework, executor)
        if self._registration.connected and not framework.leaving:
            self._send_lost(ctx, executor, exited)
        self._reports.forget_if_empty(ctx, framework)

    def on_missing(self, ctx: Context, missing: tuple[tuple[FrameworkId, ExecutorId], ...]) -> None:
        """The master believes these to be here: of those that are not, say so."""
        for framework_id, executor_id in missing:
            if self._workload.executor(framework_id, executor_id) is None:
                lost = ExecutorLost(self._registration.agent_id, executor_id, framework_id=framework_id)
                ctx.send(self._registration.master, lost)

    def _send_lost(self, ctx: Context, executor: Executor, exited: ContainerExited | None) -> None:
        lost = ExecutorLost(
            self._registration.agent_id,
            ExecutorId(executor.info.executor_id),
            exited.exit_status if exited is not None else None,
            exited.signal if exited is not None else None,
            executor.framework_id,
            executor.container_id,
        )
        ctx.send(self._registration.master, lost)


_ENDS = TELLABLE - {TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING}
