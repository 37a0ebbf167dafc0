"""The agent: what lives on one host, told to the master, never forgotten.

It keeps before it acts and before it tells: a task before its container is asked for, an update before it is forwarded,
an end before the containerizer may forget it. So a killed agent that starts again has every task with its true state.

The handlers stand in the order of a task's life. What they decide is in the modules they call:
`agent_registration` (master), `agent_tasks`, `agent_executors`, `agent_reports` (update streams), `agent_recovery`,
`agent_questions` (clients). Source: Mesos src/slave/slave.cpp.
"""

from __future__ import annotations

from collections.abc import Callable

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.agent_executors import DOUBT_TIMER, REGISTRATION_TIMER, SHUTDOWN_TIMER, Executors
from mesos_actor.actors.agent_questions import SANDBOX, Questions
from mesos_actor.actors.agent_recovery import RECOVER_TIMER, Recovery
from mesos_actor.actors.agent_registration import IDENTITY_KEY, PING_TIMER, REGISTER_TIMER, Registration
from mesos_actor.actors.agent_reports import COMPLETION_TIMER, RESIZE_TIMER, SAVE_TIMER, UPDATES_TIMER, Reports
from mesos_actor.actors.agent_tasks import Tasks
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import UpdateStreams
from mesos_actor.actors.core.workload import Workload
from mesos_actor.actors.ids import Address, ContainerId, Node, address
from mesos_actor.actors.messages.agents import (
    AcknowledgeUpdate,
    KillTask,
    Ping,
    ReconcileTasks,
    RegisterAgent,
    Registered,
    RunTasks,
    ShutdownAgent,
    ShutdownExecutor,
    ShutdownFramework,
)
from mesos_actor.actors.messages.clients import Query
from mesos_actor.actors.messages.containers import (
    CollectGarbage,
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    FileData,
    GarbageCollected,
    ReadFile,
)
from mesos_actor.actors.messages.executors import ExecutorUpdate, RegisterExecutor
from mesos_actor.actors.messages.records import AgentIdentityRecord
from mesos_actor.actors.messages.scheduler import FromExecutor, Refused, ToExecutor
from mesos_actor.actors.messages.values import AgentInfo
from mesos_actor.actors.task import Reason

GC_TIMER = "gc"
END_TIMER = "end"
END_POLL_US = 500_000
END_POLLS = 120
"""An agent that must end all its tasks before it ends looks every half a second, for a minute."""


class Agent(Actor):
    """One host's agent. `settings` are its own; all else it learns from its records, its master and its ports."""

    def __init__(self, settings: AgentSettings) -> None:
        self.settings = settings
        self.workload = Workload(settings.max_completed_tasks)
        self.streams = UpdateStreams(settings.update_retry_ms * 1_000, settings.update_retry_max_ms * 1_000)
        self.registration = Registration(settings, self.streams, self._introduction)
        self.reports = Reports(settings, self.registration, self.streams, self.workload)
        self.executors = Executors(settings, self.registration, self.reports, self.workload)
        self.tasks = Tasks(settings, self.registration, self.reports, self.executors, self.workload)
        self.recovery = Recovery(settings, self.reports, self.tasks, self.executors, self.workload)
        self.questions = Questions(settings, self.workload)
        self._ending = ""
        self._polls_left = 0
        self._timers: dict[str, Callable[[Context], None]] = {
            REGISTER_TIMER: self.registration.on_register_timer,
            PING_TIMER: self.registration.on_ping_timer,
            UPDATES_TIMER: self.reports.on_updates_timer,
            SAVE_TIMER: self.reports.on_save_timer,
            RECOVER_TIMER: self.recovery.on_timer,
            GC_TIMER: self._on_gc_timer,
            END_TIMER: self._end_if_bare,
        }
        self._container_timers: dict[str, Callable[[Context, ContainerId], None]] = {
            COMPLETION_TIMER: self.tasks.on_completion_timer,
            REGISTRATION_TIMER: self.executors.on_registration_timer,
            SHUTDOWN_TIMER: self.executors.on_shutdown_timer,
            DOUBT_TIMER: self.executors.on_doubt_timer,
            RESIZE_TIMER: self.executors.on_resize_timer,
        }

    # -- start, recovery --------------------------------------------------------------------------------------------

    def on_start(self, ctx: Context) -> None:
        """Be who the records say. With a past, ask for its containers first; without, register at once."""
        identity = ctx.recovered.get(IDENTITY_KEY)
        self.registration.load(ctx, identity if isinstance(identity, AgentIdentityRecord) else None)
        ctx.set_timer(GC_TIMER, self.settings.gc_interval_ms * 1_000)
        if ctx.recovered:
            self.recovery.load(ctx, ctx.recovered)
        else:
            self.registration.seek(ctx, at_once=True)

    @handles(ContainersRecovered)
    def on_containers_recovered(self, ctx: Context, sender: Address, message: ContainersRecovered) -> None:
        """Every task has its true state now: register, without waiting for executors."""
        if self._from_port(ctx, sender) and self.recovery.on_recovered(ctx, message):
            self.registration.seek(ctx, at_once=True)

    # -- registration -----------------------------------------------------------------------------------------------

    def _introduction(self, ctx: Context, registration: Registration) -> RegisterAgent:
        """Who this agent is and all that it has."""
        settings = self.settings
        mailbox = address(ctx.node, ctx.name)
        identity = registration.identity
        frameworks = self.workload.frameworks.values()
        return RegisterAgent(
            AgentInfo(
                settings.hostname,
                mailbox,
                settings.resources,
                settings.attributes,
                settings.version,
                settings.isolation,
                settings.isolation_warning,
            ),
            identity.registration,
            identity.agent_id,
            identity.cluster_id,
            tuple(run.report() for framework in frameworks for run in framework.runs.values()),
            tuple(e.report() for framework in frameworks for e in framework.executors.values()),
            tuple((framework.framework_id, framework.info) for framework in frameworks),
        )

    @handles(Registered)
    def on_registered(self, ctx: Context, sender: Address, message: Registered) -> None:
        """Take part: keep the id, send again what nobody has acknowledged, own up to what is missing."""
        repeated = self.registration.connected and sender == self.registration.master
        if self.recovery.running or not self.registration.on_registered(ctx, sender, message):
            return
        if not repeated:
            self.reports.resume(ctx)
        self.tasks.on_missing(ctx, message.missing_tasks)

    @handles(Refused)
    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        """A master, or, about something smaller, anybody else, did not act on a message."""
        self.registration.on_refused(ctx, sender, message)

    @handles(ShutdownAgent)
    def on_shutdown_agent(self, ctx: Context, sender: Address, message: ShutdownAgent) -> None:
        """This agent may not take part: say so loudly and end, if need be without leaving anything behind."""
        if not self.registration.answers(ctx, sender):
            return
        if message.end_tasks and self.workload.containers:
            self.registration.leave(ctx)
            self.tasks.end_all(ctx)
            self._ending = message.text
            self._polls_left = END_POLLS
            ctx.set_timer(END_TIMER, END_POLL_US)
        else:
            self.registration.give_up(ctx, message.text)

    def _end_if_bare(self, ctx: Context) -> None:
        """End when nothing runs here any more, or when that takes too long."""
        self._polls_left -= 1
        if self.workload.containers and self._polls_left > 0:
            ctx.set_timer(END_TIMER, END_POLL_US)
        else:
            self.registration.give_up(ctx, self._ending)

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        """The master wants to know whether this agent lives."""
        self.registration.on_ping(ctx, sender, message, self.workload.serving())

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        """A process this agent spoke with is away: the master's, or an executor's."""
        self.registration.on_link_lost(ctx, node)
        self.executors.on_link_lost(ctx, node)

    # -- launch -----------------------------------------------------------------------------------------------------

    @handles(RunTasks)
    def on_run_tasks(self, ctx: Context, sender: Address, message: RunTasks) -> None:
        """Launch these tasks; those of an older leader, or of one that we have left, are refused to its face."""
        if self.registration.stale(ctx, message.term):
            ctx.warn("stale_term", sender=sender, order="RunTasks", term=message.term)
            self.tasks.refuse(ctx, sender, message, Reason.AGENT_STALE_TERM)
        elif not self.registration.obeys(ctx, sender, message.term):
            return
        elif not self.registration.connected:
            # We have told, or are about to tell, a master what runs here. With one task more that would be untrue, and
            # a new leader answers by it: "gone", of a task that then runs.
            ctx.warn("not_connected", sender=sender, order="RunTasks", term=message.term)
            self.tasks.refuse(ctx, sender, message, Reason.AGENT_DISCONNECTED)
        else:
            self.tasks.on_run(ctx, message)

    @handles(ReconcileTasks)
    def on_reconcile_tasks(self, ctx: Context, sender: Address, message: ReconcileTasks) -> None:
        """The master has not heard of these for long: own up to what is missing here."""
        if self.registration.obeys(ctx, sender, message.term):
            self.tasks.on_missing(ctx, message.tasks)
            self.executors.on_missing(ctx, message.executors)

    @handles(ContainerStarted)
    def on_container_started(self, ctx: Context, sender: Address, message: ContainerStarted) -> None:
        if self._from_port(ctx, sender):
            self.tasks.on_started(ctx, message)

    @handles(ContainerFailed)
    def on_container_failed(self, ctx: Context, sender: Address, message: ContainerFailed) -> None:
        if self._from_port(ctx, sender):
            self.tasks.on_failed(ctx, message)

    # -- custom executors -------------------------------------------------------------------------------------------

    @handles(RegisterExecutor)
    def on_register_executor(self, ctx: Context, sender: Address, message: RegisterExecutor) -> None:
        self.executors.on_register(ctx, sender, message)

    @handles(ExecutorUpdate)
    def on_executor_update(self, ctx: Context, sender: Address, message: ExecutorUpdate) -> None:
        self.executors.on_update(ctx, sender, message)

    @handles(FromExecutor)
    def on_from_executor(self, ctx: Context, sender: Address, message: FromExecutor) -> None:
        self.executors.on_from_executor(ctx, sender, message)

    @handles(ToExecutor)
    def on_to_executor(self, ctx: Context, sender: Address, message: ToExecutor) -> None:
        if self.registration.obeys(ctx, sender):
            self.executors.on_to_executor(ctx, message)

    # -- kill -------------------------------------------------------------------------------------------------------

    @handles(KillTask)
    def on_kill_task(self, ctx: Context, sender: Address, message: KillTask) -> None:
        if self.registration.obeys(ctx, sender, message.term):
            self.tasks.on_kill(ctx, sender, message)

    @handles(ShutdownExecutor)
    def on_shutdown_executor(self, ctx: Context, sender: Address, message: ShutdownExecutor) -> None:
        if self.registration.obeys(ctx, sender, message.term):
            self.executors.on_shutdown(ctx, message)

    @handles(ShutdownFramework)
    def on_shutdown_framework(self, ctx: Context, sender: Address, message: ShutdownFramework) -> None:
        if self.registration.obeys(ctx, sender, message.term):
            self.tasks.on_shutdown_framework(ctx, message)

    # -- the end of a task ------------------------------------------------------------------------------------------

    @handles(ContainerExited)
    def on_container_exited(self, ctx: Context, sender: Address, message: ContainerExited) -> None:
        if self._from_port(ctx, sender):
            self.tasks.on_exited(ctx, message)

    @handles(AcknowledgeUpdate)
    def on_acknowledge(self, ctx: Context, sender: Address, message: AcknowledgeUpdate) -> None:
        """While we register, what runs here stays as we have told it; the update comes again, and so does this."""
        if self.registration.obeys(ctx, sender) and self.registration.connected:
            self.reports.acknowledge(ctx, message)

    # -- clients ----------------------------------------------------------------------------------------------------

    @handles(ReadFile)
    def on_read_file(self, ctx: Context, sender: Address, message: ReadFile) -> None:
        self.questions.on_read(ctx, sender, message)

    @handles(FileData)
    def on_file_data(self, ctx: Context, sender: Address, message: FileData) -> None:
        if self._from_port(ctx, sender):
            self.questions.on_file(ctx, message)

    @handles(Query)
    def on_query(self, ctx: Context, sender: Address, message: Query) -> None:
        self.questions.on_query(ctx, sender, message)

    @handles(ContainerUsage)
    def on_container_usage(self, ctx: Context, sender: Address, message: ContainerUsage) -> None:
        if self._from_port(ctx, sender):
            self.questions.on_usage(ctx, message)

    @handles(GarbageCollected)
    def on_garbage_collected(self, ctx: Context, sender: Address, message: GarbageCollected) -> None:
        if self._from_port(ctx, sender) and message.removed:
            ctx.log("garbage_collected", removed=len(message.removed), free_permille=message.free_fraction_permille)

    def _from_port(self, ctx: Context, sender: Address) -> bool:
        """Whether this comes from a port of the agent's own process. Others are logged."""
        if ctx.principal == "local":
            return True
        ctx.warn("not_from_port", sender=sender, principal=ctx.principal)
        return False

    def on_stop(self, ctx: Context) -> None:
        """Tasks run on without their agent, which does not leave the cluster: it is expected back."""
        self.reports.on_save_timer(ctx)

    # -- timers -----------------------------------------------------------------------------------------------------

    def on_timer(self, ctx: Context, name: str) -> None:
        kind, slash, rest = name.partition("/")
        if slash and (of_container := self._container_timers.get(kind + slash)) is not None:
            of_container(ctx, ContainerId(rest))
        elif (own := self._timers.get(name)) is not None:
            own(ctx)
        else:
            ctx.warn("unknown_timer", name=name)

    def _on_gc_timer(self, ctx: Context) -> None:
        """The sandboxes of what runs are kept; how old the others may get depends on the disk."""
        ctx.send(SANDBOX, CollectGarbage(self.settings.gc_delay_ms, tuple(self.workload.containers)))
        ctx.set_timer(GC_TIMER, self.settings.gc_interval_ms * 1_000)
