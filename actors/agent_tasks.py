"""The life of a task on an agent: accepted, launched, seen running, killed or not, ended.

Source: Mesos src/slave/slave.cpp `runTask`, `killTask`, `shutdownFramework`; src/launcher/executor.cpp.
"""

from __future__ import annotations

from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_executors import CONTAINERIZER, Executors
from mesos_actor.actors.agent_registration import Registration
from mesos_actor.actors.agent_reports import COMPLETION_TIMER, Reports
from mesos_actor.actors.core.launches import (
    Outcome,
    as_user,
    command_container,
    exit_outcome,
    failure_outcome,
    run_id,
    task_error,
)
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.workload import Executor, HostedFramework, Run, Workload
from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Role, TaskId, id_error
from mesos_actor.actors.messages.agents import KillTask, RunTasks, ShutdownFramework
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
)
from mesos_actor.actors.messages.executors import KillExecutorTask
from mesos_actor.actors.messages.values import NO_LIMITS, Task
from mesos_actor.actors.task import Reason, TaskState

STALE_TERM = "The order is of an older leader's term"
NO_LIMITS_HERE = (
    "The task has limits, and this agent keeps none (it was started with --isolation process): launch it without "
    "limits, or on an agent with cgroups"
)


class Tasks:
    """The tasks of this agent."""

    def __init__(
        self,
        settings: AgentSettings,
        registration: Registration,
        reports: Reports,
        executors: Executors,
        workload: Workload,
    ) -> None:
        self._max_tasks = settings.max_tasks
        self._keeps_limits = settings.isolation != "process"
        self._registration = registration
        self._reports = reports
        self._executors = executors
        self._workload = workload

    # -- accept -----------------------------------------------------------------------------------------------------

    def on_run(self, ctx: Context, message: RunTasks) -> None:
        """Keep each task, then launch it. One that is known already is left as it is."""
        framework_id = message.framework_id
        if id_error(framework_id) is not None:
            ctx.warn("bad_framework_id", framework=framework_id)
            return
        master = self._registration.master
        framework = self._framework(ctx, message)
        for_executors: dict[ContainerId, tuple[Executor, list[Task]]] = {}
        streams = self._reports.streams.streams
        for task in message.tasks:
            if (framework_id, task.task_id) in streams or task.task_id in framework.runs:
                continue
            problem = task_error(task)
            if problem is not None:
                self._reports.drop_once(
                    ctx, master, framework_id, task.task_id, Reason.TASK_INVALID, problem, TaskState.ERROR
                )
            elif framework.leaving:
                text = "The framework was removed and what it ran is being ended"
                self._reports.drop_once(ctx, master, framework_id, task.task_id, Reason.FRAMEWORK_REMOVED, text)
            elif self._workload.run_count >= self._max_tasks:
                text = f"The agent holds {self._max_tasks} tasks already (max_tasks)"
                self._reports.drop(ctx, framework_id, task.task_id, Reason.AGENT_FULL, text)
            elif not self._keeps_limits and _has_limits(task):
                self._reports.drop(ctx, framework_id, task.task_id, Reason.TASK_INVALID, NO_LIMITS_HERE)
            elif task.command is not None:
                self._launch(ctx, framework, message.role, task)
            else:
                self._assign(ctx, framework, message.role, task, for_executors)
        for executor, tasks in for_executors.values():
            self._executors.resize(ctx, executor)
            self._executors.deliver(ctx, executor, tasks)
        self._reports.forget_if_empty(ctx, framework)

    def _framework(self, ctx: Context, message: RunTasks) -> HostedFramework:
        """The framework, with its newest info."""
        framework = self._workload.frameworks.get(message.framework_id)
        if framework is None:
            framework = self._workload.frameworks[message.framework_id] = HostedFramework(
                message.framework_id, message.framework
            )
        elif framework.info == message.framework:
            return framework
        framework.info = message.framework
        ctx.persist(framework.record_key, framework.record())
        return framework

    def _launch(self, ctx: Context, framework: HostedFramework, role: Role, task: Task) -> None:
        """A command task is a container of its own."""
        assert task.command is not None
        name = run_id(task.task_id, ctx.rng.getrandbits(48))
        framework_id = framework.framework_id
        run = Run(framework_id, role, task, name, self._reports.streams.open(framework_id, task.task_id, name))
        self._workload.add_run(framework, run)
        self._workload.containers[name] = run
        ctx.persist(run.record_key, run.record())
        command = as_user(task.command, framework.info)
        agent_id = self._registration.identity.agent_id
        ctx.send(CONTAINERIZER, command_container(framework_id, task, command, name, agent_id))

    def _assign(
        self,
        ctx: Context,
        framework: HostedFramework,
        role: Role,
        task: Task,
        for_executors: dict[ContainerId, tuple[Executor, list[Task]]],
    ) -> None:
        """A task of a custom executor joins those that go to it."""
        assert task.executor is not None
        executor = self._executors.find_or_launch(ctx, framework, role, task.executor)
        if isinstance(executor, str):
            known = framework.executors.get(task.executor.executor_id)
            stopping = known is not None and known.stopping
            reason = Reason.EXECUTOR_TERMINATED if stopping else Reason.AGENT_FULL
            self._reports.drop(ctx, framework.framework_id, task.task_id, reason, executor)
            return
        name = run_id(task.task_id, ctx.rng.getrandbits(48))
        stream = self._reports.streams.open(framework.framework_id, task.task_id, name)
        run = Run(framework.framework_id, role, task, executor.container_id, stream)
        run.executor = executor
        executor.take(run)
        self._workload.add_run(framework, run)
        ctx.persist(run.record_key, run.record())
        self.limit(ctx, run)
        for_executors.setdefault(executor.container_id, (executor, []))[1].append(task)

    def refuse_stale(self, ctx: Context, sender: Address, message: RunTasks) -> None:
        """An order of an older leader's term: tell that one that its tasks are not here."""
        ctx.warn("stale_term", sender=sender, order="RunTasks", term=message.term)
        for task in message.tasks:
            if (message.framework_id, task.task_id) not in self._reports.streams.streams:
                self._reports.drop_once(
                    ctx, sender, message.framework_id, task.task_id, Reason.AGENT_STALE_TERM, STALE_TERM
                )

    # -- running ----------------------------------------------------------------------------------------------------

    def on_started(self, ctx: Context, message: ContainerStarted) -> None:
        """The command runs. A container that nobody knows is killed."""
        run = self._workload.containers.get(message.container_id)
        if run is None:
            ctx.warn("unknown_container", container=message.container_id)
            ctx.send(CONTAINERIZER, KillContainer(message.container_id, 0))
        elif isinstance(run, Run):
            self.running(ctx, run)

    def running(self, ctx: Context, run: Run) -> None:
        """Tell that a command runs, unless that was told before or it is being killed."""
        if run.stream.state is TaskState.STAGING and run.kill_grace_ms is None:
            self._reports.say(ctx, run, TaskState.RUNNING)
            self.limit(ctx, run)

    def limit(self, ctx: Context, run: Run) -> None:
        """Start, or after a restart go on, counting the task's `max_completion_ms`."""
        limit_us = run.task.max_completion_ms * 1_000
        if limit_us > 0:
            since_us = run.stream.running_since_us or ctx.now_us
            self._workload.limited[run.stream.run_id] = run
            ctx.set_timer(COMPLETION_TIMER + run.stream.run_id, max(0, since_us + limit_us - ctx.now_us))

    def on_completion_timer(self, ctx: Context, name: ContainerId) -> None:
        """It has run for too long: killed with its own grace, and told as what it is when it has ended."""
        run = self._workload.limited.pop(name, None)
        if run is None or run.stream.terminal:
            return
        run.overdue = True
        if run.executor is None:
            ctx.send(CONTAINERIZER, KillContainer(run.container_id, max(0, run.task.kill_grace_ms)))
        else:
            run.kill_grace_ms = max(0, run.task.kill_grace_ms)
            if run.executor.address:
                ctx.send(run.executor.address, KillExecutorTask(run.task.task_id, run.kill_grace_ms))

    # -- kill -------------------------------------------------------------------------------------------------------

    def on_kill(self, ctx: Context, sender: Address, message: KillTask) -> None:
        """End a task. Asking again may only shorten the grace (the containerizer and the executor see to that)."""
        run = self._workload.run(message.framework_id, message.task_id)
        if run is None:
            if (message.framework_id, message.task_id) not in self._reports.streams.streams:
                text = "The agent does not know this task"
                self._reports.drop_once(
                    ctx, sender, message.framework_id, message.task_id, Reason.EXECUTOR_TERMINATED, text
                )
            return
        if run.stream.terminal:
            return
        grace_ms = message.grace_ms if message.grace_ms >= 0 else max(0, run.task.kill_grace_ms)
        if run.executor is not None:
            self._executors.kill(ctx, run.executor, run, grace_ms)
        else:
            self.kill(ctx, run, grace_ms)

    def kill(self, ctx: Context, run: Run, grace_ms: int) -> None:
        """End a command task; KILLING is told once, and only of a task that was told to be running."""
        run.kill_grace_ms = grace_ms
        if run.stream.state is TaskState.RUNNING:
            self._reports.say(ctx, run, TaskState.KILLING)
        ctx.send(CONTAINERIZER, KillContainer(run.container_id, grace_ms))

    def on_shutdown_framework(self, ctx: Context, message: ShutdownFramework) -> None:
        self.shut_down_framework(ctx, message.framework_id)

    def shut_down_framework(self, ctx: Context, framework_id: FrameworkId) -> None:
        """The framework is removed: end all it runs here, and tell nobody of its tasks any more."""
        self._reports.forget_framework(ctx, framework_id)
        framework = self._workload.frameworks.get(framework_id)
        if framework is None or framework.leaving:
            return
        framework.leaving = True
        for run in list(framework.runs.values()):
            if run.executor is None:
                grace_ms = max(0, run.task.kill_grace_ms)
                ctx.send(CONTAINERIZER, KillContainer(run.container_id, grace_ms))
        for executor in list(framework.executors.values()):
            self._executors.shut_down(ctx, executor)

    def end_all(self, ctx: Context) -> None:
        """End all that runs here, as if every framework had been removed."""
        for framework_id in list(self._workload.frameworks):
            self.shut_down_framework(ctx, framework_id)

    # -- the end ----------------------------------------------------------------------------------------------------

    def on_failed(self, ctx: Context, message: ContainerFailed) -> None:
        """The command never ran."""
        entry = self._workload.containers.get(message.container_id)
        if entry is None:
            ctx.send(CONTAINERIZER, ForgetContainer(message.container_id))
        elif isinstance(entry, Executor):
            self._executors.bury(ctx, entry, failure_outcome(message, killed=False))
        else:
            self._end(ctx, entry, failure_outcome(message, entry.kill_grace_ms is not None))

    def on_exited(self, ctx: Context, message: ContainerExited) -> None:
        """The container is gone, and how it ended is known, or known to be unknown."""
        entry = self._workload.containers.get(message.container_id)
        if entry is None:
            ctx.send(CONTAINERIZER, ForgetContainer(message.container_id))
        elif isinstance(entry, Executor):
            self._executors.on_exited(ctx, entry, message)
        else:
            stream = entry.stream
            asked = entry.kill_grace_ms is not None
            killed = asked or message.killed
            limit_us = entry.task.max_completion_ms * 1_000
            past = 0 < limit_us <= ctx.now_us - stream.running_since_us if stream.running_since_us else False
            overdue = entry.overdue or (message.killed and not asked and past)
            started = stream.state is not TaskState.STAGING
            self._end(ctx, entry, exit_outcome(message, killed, started, overdue))

    def _end(self, ctx: Context, run: Run, outcome: Outcome) -> None:
        """Keep the end, then let the containerizer forget its own record of it."""
        self._reports.end(ctx, run, outcome)
        ctx.send(CONTAINERIZER, ForgetContainer(run.container_id))

    def on_missing(self, ctx: Context, missing: tuple[tuple[FrameworkId, TaskId], ...]) -> None:
        """The master believes these to be here: of those that are not, say so reliably."""
        from_master = "The master had this task on the agent, but the agent does not know it"
        for framework_id, task_id in missing:
            if self._workload.run(framework_id, task_id) is None and id_error(task_id) is None:
                self._reports.drop(ctx, framework_id, task_id, Reason.RECONCILIATION, from_master)


def _has_limits(task: Task) -> bool:
    return task.limits != NO_LIMITS or (task.executor is not None and task.executor.limits != NO_LIMITS)
