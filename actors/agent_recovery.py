"""How an agent that was restarted finds again what it had: first its records, then its containers, then its master.

Order (Mesos: src/slave/slave.cpp `recover`; MESOS-7539 for why registering waits for the containers, and for nothing
else): records -> RecoverContainers -> every task has its true state -> register. Executors come back in their own time.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_executors import CONTAINERIZER, Executors
from mesos_actor.actors.agent_reports import Reports
from mesos_actor.actors.agent_tasks import Tasks
from mesos_actor.actors.core.launches import Outcome, absent_outcome
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import Stream
from mesos_actor.actors.core.workload import Executor, HostedFramework, Run, Workload
from mesos_actor.actors.messages.base import Record
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainersRecovered,
    ForgetContainer,
    RecoverContainers,
    RecoveredContainer,
)
from mesos_actor.actors.messages.records import AgentFrameworkRecord, ExecutorRecord, StreamRecord, TaskRecord
from mesos_actor.actors.task import Reason, TaskState

RECOVER_TIMER = "recover"
REPEAT_US = 5_000_000
"""The containerizer is asked again after this long."""
MAX_ASKED = 24
"""After so many questions without an answer the agent gives up: it must not register without knowing what it runs."""

EXECUTOR_VANISHED = Outcome(
    TaskState.FAILED, Reason.EXECUTOR_TERMINATED, "The agent was restarted and no record of the executor is left"
)


class Recovery:
    """Runs once an incarnation; `running` from the question to the containerizer to its answer."""

    def __init__(
        self, settings: AgentSettings, reports: Reports, tasks: Tasks, executors: Executors, workload: Workload
    ) -> None:
        self._settings = settings
        self._reports = reports
        self._tasks = tasks
        self._executors = executors
        self._workload = workload
        self._asked = 0
        self.running = False

    def load(self, ctx: Context, records: Mapping[str, Record]) -> None:
        """Rebuild frameworks, executors, tasks and streams from their records, then ask for their containers."""
        for record in records.values():
            if isinstance(record, AgentFrameworkRecord):
                framework = HostedFramework(record.framework_id, record.info)
                self._workload.frameworks[record.framework_id] = framework
            elif isinstance(record, StreamRecord):
                self._reports.streams.restore(record)
        for record in records.values():
            if isinstance(record, ExecutorRecord):
                self._load_executor(ctx, record)
        for record in records.values():
            if isinstance(record, TaskRecord):
                self._load_task(ctx, record)
        for framework in list(self._workload.frameworks.values()):
            self._reports.forget_if_empty(ctx, framework)
        self.running = True
        self._ask(ctx)

    def _load_executor(self, ctx: Context, record: ExecutorRecord) -> None:
        framework = self._workload.frameworks.get(record.framework_id)
        if framework is None:
            ctx.warn("record_without_framework", framework=record.framework_id)
            return
        executor = Executor(record.framework_id, record.role, record.executor, record.container_id)
        self._workload.add_executor(framework, executor)

    def _load_task(self, ctx: Context, record: TaskRecord) -> None:
        framework = self._workload.frameworks.get(record.framework_id)
        if framework is None:
            ctx.warn("record_without_framework", framework=record.framework_id, task=record.task.task_id)
            return
        key = (record.framework_id, record.task.task_id)
        stream = self._reports.streams.streams.get(key)
        if stream is None:
            stream = self._reports.streams.open(record.framework_id, record.task.task_id, record.run_id)
        run = Run(record.framework_id, record.role, record.task, record.container_id, stream)
        self._workload.add_run(framework, run)
        if record.task.executor is None:
            if stream.terminal:
                ctx.send(CONTAINERIZER, ForgetContainer(run.container_id))
            else:
                self._workload.containers[run.container_id] = run
        elif not stream.terminal:
            self._join_executor(framework, run)

    def _join_executor(self, framework: HostedFramework, run: Run) -> None:
        """A task whose executor was buried in the moment of the crash is told so when the containers are known."""
        executor = framework.executors.get(run.executor_id)
        if executor is not None and executor.container_id == run.container_id:
            run.executor = executor
            executor.take(run)

    def _ask(self, ctx: Context) -> None:
        self._asked += 1
        if self._asked > MAX_ASKED:
            text = f"the containerizer did not answer RecoverContainers {MAX_ASKED} times"
            ctx.warn("recovery_failed", text=text)
            ctx.stop(text)
            return
        containers = self._workload.containers
        executors = tuple(name for name, entry in containers.items() if isinstance(entry, Executor))
        ctx.send(CONTAINERIZER, RecoverContainers(tuple(containers), executors))
        ctx.set_timer(RECOVER_TIMER, REPEAT_US)

    def on_timer(self, ctx: Context) -> None:
        if self.running:
            ctx.warn("recovery_slow", asked=self._asked)
            self._ask(ctx)

    def on_recovered(self, ctx: Context, message: ContainersRecovered) -> bool:
        """Give every task the state that its container has. True: recovery is over, by this very answer."""
        if not self.running:
            return False
        self.running = False
        ctx.cancel_timer(RECOVER_TIMER)
        found = {container.container_id: container for container in message.containers}
        for container_id, entry in list(self._workload.containers.items()):
            fate = found.get(container_id)
            if isinstance(entry, Executor):
                self._recover_executor(ctx, entry, fate)
            elif fate is None:
                self._reports.end(ctx, entry, absent_outcome(_was_seen(entry.stream)))
            elif fate.running:
                self._recover_running(ctx, entry)
            else:
                self._tasks.on_exited(ctx, _exited(fate))
        for run in list(self._workload.runs()):
            if run.task.executor is not None and run.executor is None and not run.stream.terminal:
                self._reports.end(ctx, run, EXECUTOR_VANISHED)
        ctx.log("recovered", containers=len(found), tasks=self._workload.run_count)
        return True

    def _recover_running(self, ctx: Context, run: Run) -> None:
        """It runs on, silently, unless that was never told or its killing was under way."""
        if run.stream.state is TaskState.KILLING:
            self._tasks.kill(ctx, run, max(0, run.task.kill_grace_ms))
        self._tasks.running(ctx, run)
        if run.stream.running_since_us:
            self._tasks.limit(ctx, run)

    def _recover_executor(self, ctx: Context, executor: Executor, fate: RecoveredContainer | None) -> None:
        if fate is None:
            for run in list(executor.runs.values()):
                self._reports.end(ctx, run, _vanished(run))
            self._executors.bury(ctx, executor, EXECUTOR_VANISHED)
        elif fate.running:
            executor.registered = True
            self._executors.resize(ctx, executor)
            for run in executor.runs.values():
                self._tasks.limit(ctx, run)
            if not executor.address:
                self._executors.await_registration(ctx, executor, self._settings.executor_reregistration_timeout_ms)
        else:
            self._executors.on_exited(ctx, executor, _exited(fate))


def _was_seen(stream: Stream) -> bool:
    return stream.state is not TaskState.STAGING


def _vanished(run: Run) -> Outcome:
    return EXECUTOR_VANISHED if _was_seen(run.stream) else absent_outcome(started=False)


def _exited(fate: RecoveredContainer) -> ContainerExited:
    return ContainerExited(
        fate.container_id,
        fate.exit_status,
        fate.signal,
        fate.killed,
        fate.text,
        fate.limitation,
        fate.statistics,
    )
