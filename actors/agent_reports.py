"""What an agent tells of its tasks, and when it may forget them.

Every update is persisted and then sent, in this order, in one handler: the runtime holds the message until the disk
has it.
"""

from __future__ import annotations

from msgspec.structs import replace

from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_registration import Registration
from mesos_actor.actors.core.launches import Outcome, run_id
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import Stream, UpdateStreams
from mesos_actor.actors.core.workload import HostedFramework, Run, Workload
from mesos_actor.actors.ids import Address, FrameworkId, TaskId
from mesos_actor.actors.messages.agents import AcknowledgeUpdate
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Reason, Source, TaskState

UPDATES_TIMER = "updates"
SAVE_TIMER = "acknowledgements"
COMPLETION_TIMER = "completion/"
"""Followed by the run's id."""

RESIZE_TIMER = "resize/"
"""Followed by the container's id of an executor that has lost a task."""

SHRINK_AFTER_US = 1_000_000
"""How long its container may keep what the task had: many that end shrink it once, and one that follows not at all."""

SAVE_AFTER_US = 500_000
"""How long an acknowledgement that ends nothing may stay out of the records."""

MAX_STREAMS_PER_TASK = 2
"""Streams kept, in multiples of `max_tasks`: tasks that were dropped have one too. Past that a drop is told once."""


class Reports:
    """The streams of this agent, tied to its disk, its timers and its master."""

    def __init__(
        self, settings: AgentSettings, registration: Registration, streams: UpdateStreams, workload: Workload
    ) -> None:
        self._registration = registration
        self._workload = workload
        self._max_streams = settings.max_tasks * MAX_STREAMS_PER_TASK
        self._armed_us: int | None = None
        self._saving = False
        self.streams = streams

    def say(self, ctx: Context, run: Run, state: TaskState, reason: Reason = Reason.NONE, message: str = "") -> None:
        """A reliable update of a task that goes on. Nobody hears of the tasks of a removed framework."""
        if not self._workload.frameworks[run.framework_id].leaving:
            self._say(ctx, run, Outcome(state, reason, message))

    def _say(self, ctx: Context, run: Run, outcome: Outcome) -> None:
        stream = run.stream
        status = Status(
            stream.task_id,
            outcome.state,
            Source.AGENT,
            outcome.reason,
            outcome.message,
            self._registration.identity.agent_id,
            run.executor_id,
            run.container_id,
            ctx.now_us,
            stream.next_update_id(),
            exit_status=outcome.exit_status,
            signal=outcome.signal,
            statistics=outcome.statistics,
        )
        self.keep(ctx, stream, status)

    def keep(self, ctx: Context, stream: Stream, status: Status, name: str = "") -> None:
        """Persist a new status of a stream, then forward it as soon as its turn comes."""
        update = self.streams.add(stream, status, ctx.now_us, name)
        ctx.persist(stream.record_key, self.streams.save(stream))
        if update is not None:
            ctx.send(self._registration.master, update)
            self._arm(ctx)

    def end(self, ctx: Context, run: Run, outcome: Outcome) -> None:
        """A task has ended: nothing of it runs any more. Its framework is told, unless that was removed."""
        self._ended(ctx, run)
        framework = self._workload.frameworks[run.framework_id]
        if framework.leaving:
            self.forget(ctx, framework, run)
        else:
            self._say(ctx, run, outcome)

    def end_as_told(self, ctx: Context, run: Run, status: Status, name: str) -> None:
        """The same, in the words of the task's executor."""
        self._ended(ctx, run)
        self.keep(ctx, run.stream, status, name)

    def _ended(self, ctx: Context, run: Run) -> None:
        if run.executor is not None:
            run.executor.let_go(run.task.task_id)
            if not run.executor.shrinking:
                run.executor.shrinking = True
                ctx.set_timer(RESIZE_TIMER + run.executor.container_id, SHRINK_AFTER_US)
        else:
            self._workload.containers.pop(run.container_id, None)
        if run.task.max_completion_ms > 0:
            self._workload.limited.pop(run.stream.run_id, None)
            ctx.cancel_timer(COMPLETION_TIMER + run.stream.run_id)

    def forget(self, ctx: Context, framework: HostedFramework, run: Run) -> None:
        """Drop a run that has ended and all records of it; with the last one, its framework's."""
        ctx.persist(run.record_key, None)
        self._forget_stream(ctx, run.stream)
        self._workload.remove_run(framework, run)
        self.forget_if_empty(ctx, framework)

    def _forget_stream(self, ctx: Context, stream: Stream) -> None:
        if stream.saved:
            ctx.persist(stream.record_key, None)
        self.streams.drop(stream)

    def forget_if_empty(self, ctx: Context, framework: HostedFramework) -> None:
        if framework.empty and self._workload.frameworks.pop(framework.framework_id, None) is not None:
            ctx.persist(framework.record_key, None)

    def forget_framework(self, ctx: Context, framework_id: FrameworkId) -> None:
        """A framework was removed: nobody will ask for its updates. What has ended is forgotten here and now."""
        framework = self._workload.frameworks.get(framework_id)
        for stream in [s for s in self.streams.streams.values() if s.framework_id == framework_id]:
            run = framework.runs.get(stream.task_id) if framework is not None else None
            if framework is not None and run is not None and stream.terminal:
                self.forget(ctx, framework, run)
            else:
                self._forget_stream(ctx, stream)

    def drop(self, ctx: Context, framework_id: FrameworkId, task_id: TaskId, reason: Reason, text: str) -> None:
        """Say reliably that this agent does not have this task, of which it keeps nothing but that."""
        if (framework_id, task_id) in self.streams.streams:
            return
        if len(self.streams.streams) >= self._max_streams:
            self.drop_once(ctx, self._registration.master, framework_id, task_id, reason, text)
            return
        name = run_id(task_id, ctx.rng.getrandbits(48))
        stream = self.streams.open(framework_id, task_id, name)
        status = self._dropped(ctx, task_id, reason, text, TaskState.DROPPED)
        status = replace(status, update_id=stream.next_update_id())
        self.keep(ctx, stream, status)

    def drop_once(
        self,
        ctx: Context,
        to: Address,
        framework_id: FrameworkId,
        task_id: TaskId,
        reason: Reason,
        text: str,
        state: TaskState = TaskState.DROPPED,
    ) -> None:
        """Say it once, without an id: if it is lost, registering again or reconciliation tells the same."""
        status = self._dropped(ctx, task_id, reason, text, state)
        ctx.send(to, Update(framework_id, status, state.value))

    def _dropped(self, ctx: Context, task_id: TaskId, reason: Reason, text: str, state: TaskState) -> Status:
        agent_id = self._registration.agent_id
        return Status(task_id, state, Source.AGENT, reason, text, agent_id, timestamp_us=ctx.now_us)

    def acknowledge(self, ctx: Context, message: AcknowledgeUpdate) -> None:
        """The framework has it. With the last update of an ended task, the task is forgotten."""
        stream = self.streams.streams.get((message.framework_id, message.task_id))
        if stream is None:
            return
        updates = self.streams.acknowledge(stream, message.update_id, ctx.now_us)
        if updates is None:
            return
        if stream.closed:
            framework = self._workload.frameworks.get(message.framework_id)
            run = framework.runs.get(message.task_id) if framework is not None else None
            if framework is not None and run is not None:
                self.forget(ctx, framework, run)
            else:
                self._forget_stream(ctx, stream)
            return
        if not self._saving:
            self._saving = True
            ctx.set_timer(SAVE_TIMER, SAVE_AFTER_US)
        if updates:
            self._send(ctx, updates)

    def on_save_timer(self, ctx: Context) -> None:
        self._saving = False
        for stream in list(self.streams.unsaved.values()):
            ctx.persist(stream.record_key, self.streams.save(stream))

    def on_updates_timer(self, ctx: Context) -> None:
        self._armed_us = None
        self._send(ctx, self.streams.repeat(ctx.now_us))

    def resume(self, ctx: Context) -> None:
        """The agent takes part (again): everything that nobody acknowledged is sent."""
        self._send(ctx, self.streams.resume(ctx.now_us))

    def _send(self, ctx: Context, updates: list[Update]) -> None:
        for update in updates:
            ctx.send(self._registration.master, update)
            if ctx.sometimes("update-sent-twice"):
                ctx.send(self._registration.master, update)
        self._arm(ctx)

    def _arm(self, ctx: Context) -> None:
        """One timer for all streams, never set later than the first that is due."""
        due_us = self.streams.next_due_us()
        if due_us is not None and (self._armed_us is None or due_us < self._armed_us):
            self._armed_us = due_us
            ctx.set_timer(UPDATES_TIMER, max(0, due_us - ctx.now_us))
