"""The master: who takes part, which offers stand, which operations are valid, what state each task is in.

The file reads in the order of a task's life: lead, offer, accept, launch, update, acknowledge, kill, reconcile, then
what operators ask. What comes before a task stands in the classes below this one: master_leading.py (registry),
master_losses.py, master_agents.py, master_frameworks.py, master_offers.py, master_operators.py. Decisions are in core/;
here they become messages.
"""

from __future__ import annotations

from mesos_actor.actors.actor import Context, handles
from mesos_actor.actors.core import validation
from mesos_actor.actors.core.entries import AgentEntry, ExecutorEntry, FrameworkEntry, TaskEntry
from mesos_actor.actors.core.reconcile import explicit, known
from mesos_actor.actors.core.roster import MAX_KILLS
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, Node, Role, TaskId
from mesos_actor.actors.master_frameworks import may_act_for
from mesos_actor.actors.master_leading import REGISTRY, on_timer_named
from mesos_actor.actors.master_operators import MasterOperators
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, KillTask, RunTasks, ShutdownFramework
from mesos_actor.actors.messages.clients import KillByOperator
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    FrameworkRecord,
    Leading,
    WeightRecord,
)
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    ExecutorLost,
    FromExecutor,
    Kill,
    OperationResult,
    Reconcile,
    ToExecutor,
    Update,
)
from mesos_actor.actors.messages.values import Launch, Status, Task
from mesos_actor.actors.resources import Resources, total
from mesos_actor.actors.task import TERMINAL, Reason, Source, TaskState

ANSWERS_PER_TURN = 500
"""Reconciliation answers sent in one turn; the rest follow in the next."""

_REPORTED = {state.value: state for state in sorted(validation.REPORTED_STATES)}
_VOIDED = {
    "agent-lost": (Reason.AGENT_REMOVED, "Agent removed"),
    "disconnected": (Reason.AGENT_DISCONNECTED, "Agent disconnected"),
}


class Master(MasterOperators):
    """`Master(settings, allocator)`: name it `master`, next to an actor `registry` in the same process."""

    # -- leading

    @handles(Leading)
    def on_leading(self, ctx: Context, sender: Address, message: Leading) -> None:
        """Take up the cluster as the registry knows it. Agents and frameworks are expected back; tasks come with the
        agents."""
        if sender != REGISTRY or ctx.principal != "local" or (self.leading and message.term <= self.term):
            return
        self.begin_term(ctx, message)
        for record in message.records:
            match record:
                case AgentRecord():
                    self.agent_recovered(ctx, record)
                case FrameworkRecord():
                    self.framework_recovered(ctx, record)
                case WeightRecord():
                    self.set_weight(record)
                case _:
                    pass  # the cluster's own record: its id and term stand in the message
        self.expect_agents(ctx)
        self.arm(ctx, "ping", 0)
        self.arm(ctx, "batch", self.settings.allocation_interval_ms * 1_000)
        ctx.log("leading", term=self.term, cluster=self.cluster_id, agents=len(self.roster.agents))

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        if self.leading:
            self.pending.forget_node(node)
            self.agents_away(ctx, node)
            self.frameworks_away(ctx, node)

    # -- accepting and launching

    @handles(Accept)
    def on_accept(self, ctx: Context, sender: Address, message: Accept) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None:
            return
        problem = validation.offers_error(message.offer_ids, framework.framework_id, self.offers)
        if problem is not None:
            self._drop(ctx, framework, message, problem)
            return
        agent, role, offered = self._take(message)
        rest = offered
        for launch in message.operations:
            rest = self._launch(ctx, framework, agent, role, launch, rest)
        if rest is not offered:
            used = offered - rest
            self.roster.hold(agent, framework.framework_id, role, used)
            self.allocator.accepted(framework.framework_id, agent.agent_id, role, used)
        if rest:
            refuse_us = validation.refuse_us(message.filters)
            until_us = ctx.now_us + refuse_us if refuse_us else 0
            self.allocator.recover(framework.framework_id, agent.agent_id, role, rest, until_us)
            self.want_allocation(ctx)

    def _take(self, message: Accept) -> tuple[AgentEntry, Role, Resources]:
        """The accepted offers, no longer outstanding: their agent, their role and what they hold together."""
        taken = [self.offers.take(offer_id) for offer_id in message.offer_ids]
        offers = [outstanding.offer for outstanding in taken if outstanding is not None]
        first = offers[0]
        resources = first.resources if len(offers) == 1 else total(offer.resources for offer in offers)
        return self.roster.agents[first.agent_id], first.role, resources

    def _launch(
        self,
        ctx: Context,
        framework: FrameworkEntry,
        agent: AgentEntry,
        role: Role,
        launch: Launch,
        rest: Resources,
    ) -> Resources:
        """Launch what is valid of this, and return what is left of `rest`."""
        executors = {key: entry.info for key, entry in agent.executors.get(framework.framework_id, {}).items()}
        started: list[Task] = []
        first_problem = ""
        for task in launch.tasks:
            problem = validation.task_error(task, framework.tasks, framework.unreachable)
            if problem is None and len(framework.tasks) >= self.settings.max_tasks_per_framework:
                problem = f"Framework has {len(framework.tasks)} tasks, the most it may"
            if problem is None:
                rest, problem = validation.fits(task, executors, rest)
            if problem is None:
                started.append(task)
                self._start(ctx, framework, agent, role, task)
                if task.executor is not None:
                    executors[task.executor.executor_id] = task.executor
                continue
            first_problem = first_problem or problem
            status = self._failed(ctx, framework, agent.agent_id, task, TaskState.ERROR, Reason.TASK_INVALID, problem)
            ctx.send(framework.address, Update(framework.framework_id, status))
        if started:
            run = RunTasks(self.term, framework.framework_id, framework.info, role, tuple(started))
            ctx.send(agent.address, run)
        if launch.operation_id:
            refused = len(launch.tasks) - len(started)
            text = f"{refused} of {len(launch.tasks)} tasks refused: {first_problem}" if refused else ""
            result = OperationResult(launch.operation_id, not refused, "invalid" if refused else "", text)
            ctx.send(framework.address, result)
        return rest

    def _start(self, ctx: Context, framework: FrameworkEntry, agent: AgentEntry, role: Role, task: Task) -> None:
        executor = task.executor
        entry = TaskEntry(
            self.roster.next_number(),
            framework.framework_id,
            task.task_id,
            agent.agent_id,
            role,
            task.resources,
            ExecutorId("") if executor is None else executor.executor_id,
            task.name,
            task.labels,
            ctx.now_us,
        )
        entry.held = True
        self.roster.enter_task(framework, agent, entry)
        if executor is not None:
            known_here = agent.executors.get(framework.framework_id, {})
            if executor.executor_id not in known_here:
                new = ExecutorEntry(executor, role)
                new.held = True
                self.roster.enter_executor(agent, framework.framework_id, new)

    def _drop(self, ctx: Context, framework: FrameworkEntry, message: Accept, problem: str) -> None:
        """No task of this accept is launched, and its offers that still stand come back without a filter."""
        reason, text = Reason.INVALID_OFFERS, f"Task launched with invalid offers: {problem}"
        agent_id = AgentId("")
        for offer_id in message.offer_ids:
            reason, text = _VOIDED.get(self.offers.void_reason(offer_id), (reason, text))
            outstanding = self.offers.get(offer_id)
            if outstanding is not None and outstanding.framework_id == framework.framework_id:
                agent_id = outstanding.offer.agent_id
        self._give_back(ctx, framework, message.offer_ids)
        for launch in message.operations:
            for task in launch.tasks:
                running = framework.tasks.get(task.task_id)
                if running is not None:  # this accept is a repeat: the task was launched by the one before
                    status = known(running, ctx.now_us)
                else:
                    status = self._failed(ctx, framework, agent_id, task, TaskState.DROPPED, reason, text)
                ctx.send(framework.address, Update(framework.framework_id, status))
            if launch.operation_id:
                result = OperationResult(launch.operation_id, False, "invalid", text)
                ctx.send(framework.address, result)

    def _failed(
        self,
        ctx: Context,
        framework: FrameworkEntry,
        agent_id: AgentId,
        task: Task,
        state: TaskState,
        reason: Reason,
        text: str,
    ) -> Status:
        """A task that never was: remembered for whoever asks why."""
        framework.refusals.append((ctx.now_us, agent_id, task.task_id, text))
        executor_id = ExecutorId("") if task.executor is None else task.executor.executor_id
        return Status(
            task_id=task.task_id,
            state=state,
            source=Source.MASTER,
            reason=reason,
            message=text,
            agent_id=agent_id,
            executor_id=executor_id,
            timestamp_us=ctx.now_us,
        )

    # -- updates and their acknowledgement

    @handles(Update)
    def on_update(self, ctx: Context, sender: Address, message: Update) -> None:
        """From an agent: note it and pass it on. What cannot be passed on now, the agent repeats."""
        agent = self.agent_of(ctx, sender, "Update")
        if agent is None:
            return
        status = message.status
        framework = self.roster.frameworks.get(message.framework_id)
        if framework is None:
            ctx.send(sender, ShutdownFramework(self.term, message.framework_id))
            return
        if status.state not in validation.REPORTED_STATES or status.agent_id not in (agent.agent_id, ""):
            ctx.warn("invalid_update", agent=agent.agent_id, task=status.task_id, state=status.state)
            return
        task = framework.tasks.get(status.task_id)
        if task is not None:
            if task.agent_id != agent.agent_id:
                self._silence(ctx, agent, message)
                return
            latest = _REPORTED.get(message.latest_state, status.state)
            freed, is_next = self.roster.observe(task, status, latest, ctx.now_us)
            if freed:
                self.want_allocation(ctx)
            if not is_next:
                if self.roster.is_acknowledged(task, status.update_id):
                    ctx.send(sender, AcknowledgeUpdate(message.framework_id, task.task_id, task.acknowledged))
                return  # else it overtook the one before it: both come again, and until then nobody is told
            # What has no id comes once: a framework that is away cannot be told, and hears of it when it asks.
            if (framework.connected or not status.update_id) and task.forwarded not in TERMINAL:
                task.forwarded = status.state
        if framework.connected:
            ctx.send(framework.address, Update(message.framework_id, status, agent_address=agent.info.address))

    def _silence(self, ctx: Context, agent: AgentEntry, message: Update) -> None:
        """News of an old task whose id was used again elsewhere: nobody wants it, so the agent may forget it."""
        status = message.status
        ctx.warn("stale_task", agent=agent.agent_id, task=status.task_id, state=status.state)
        if status.update_id:
            acknowledge = AcknowledgeUpdate(message.framework_id, status.task_id, status.update_id)
            ctx.send(agent.address, acknowledge)

    @handles(Acknowledge)
    def on_acknowledge(self, ctx: Context, sender: Address, message: Acknowledge) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None:
            return
        agent = self.roster.agents.get(message.agent_id)
        if agent is None or not agent.connected:
            return  # the agent repeats the update when it is back
        ctx.send(agent.address, AcknowledgeUpdate(message.framework_id, message.task_id, message.update_id))
        task = framework.tasks.get(message.task_id)
        if task is not None and task.agent_id == message.agent_id:
            self.roster.acknowledge(task, message.update_id)

    # -- kill

    @handles(Kill)
    def on_kill(self, ctx: Context, sender: Address, message: Kill) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None:
            return
        task = framework.tasks.get(message.task_id)
        ok, reason, text = True, "", ""
        if task is None:
            ok, reason, text = False, "unknown-task", f"Task '{message.task_id}' is not known"
            self._kill_unknown(ctx, framework, message)
        elif message.agent_id and message.agent_id != task.agent_id:
            ok, reason = False, "invalid"
            text = f"Task '{message.task_id}' is on agent {task.agent_id}, not on {message.agent_id}"
            ctx.warn("kill_ignored", framework=framework.framework_id, task=message.task_id, text=text)
        else:
            self._kill(ctx, task, message.grace_ms)
        if message.operation_id:
            ctx.send(sender, OperationResult(message.operation_id, ok, reason, text))

    def _kill(self, ctx: Context, task: TaskEntry, grace_ms: int) -> None:
        """Remembered until the task has ended: it is repeated when its agent registers again."""
        agent = self.roster.agents[task.agent_id]
        if task.state not in TERMINAL:
            grace_ms = max(-1, min(grace_ms, validation.MAX_DURATION_MS))
            agent.kills[task.framework_id, task.task_id] = grace_ms
            if agent.connected:
                ctx.send(agent.address, KillTask(self.term, task.framework_id, task.task_id, grace_ms))

    def _kill_unknown(self, ctx: Context, framework: FrameworkEntry, message: Kill) -> None:
        """An agent that is still expected may have the task; otherwise the framework hears what became of it."""
        agent = self.roster.agents.get(message.agent_id)
        if agent is not None and not agent.registered and len(agent.kills) < MAX_KILLS:
            agent.kills[framework.framework_id, message.task_id] = max(-1, message.grace_ms)
            return
        status = explicit(self.roster, framework, message.task_id, message.agent_id, ctx.now_us)
        if status is not None:
            ctx.send(framework.address, Update(framework.framework_id, status))

    @handles(KillByOperator)
    def on_kill_by_operator(self, ctx: Context, sender: Address, message: KillByOperator) -> None:
        found = self._tasks_named(message.framework_id, message.task_id)
        allowed = [task for task in found if self._may_touch(ctx, task.framework_id)]
        if len(allowed) == 1:
            self._kill(ctx, allowed[0], message.grace_ms)
            result = OperationResult(message.operation_id, True)
        elif len(allowed) > 1:
            text = f"Task '{message.task_id}' exists in {len(allowed)} frameworks; say which: " + ", ".join(
                task.framework_id for task in allowed
            )
            result = OperationResult(message.operation_id, False, "ambiguous", text)
        elif found:
            text = f"Task '{message.task_id}' belongs to another principal than '{ctx.principal}'"
            result = OperationResult(message.operation_id, False, "unauthorized", text)
        else:
            text = f"Task '{message.task_id}' is not known"
            result = OperationResult(message.operation_id, False, "unknown-task", text)
        ctx.send(sender, result)

    def _tasks_named(self, framework_id: FrameworkId, task_id: TaskId) -> list[TaskEntry]:
        frameworks = self.roster.frameworks
        some = [frameworks[framework_id]] if framework_id in frameworks else []
        found = [f.tasks.get(task_id) for f in (some if framework_id else frameworks.values())]
        return [task for task in found if task is not None]

    def _may_touch(self, ctx: Context, framework_id: FrameworkId) -> bool:
        return may_act_for(self.roster.frameworks[framework_id].info.principal, ctx.principal)

    # -- reconciliation

    @handles(Reconcile)
    def on_reconcile(self, ctx: Context, sender: Address, message: Reconcile) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None:
            return
        if not message.tasks:
            self.backlog.ask_all(framework)
        elif not self.backlog.ask(framework.framework_id, message.tasks):
            text = f"Too many tasks wait for reconciliation; {len(message.tasks)} more are refused: ask again later"
            self.refuse(ctx, sender, message, "full", text)
        self.want_answers(ctx)

    @on_timer_named("answers")
    def answer(self, ctx: Context, _rest: str) -> None:
        for framework, status in self.backlog.answers(self.roster, ANSWERS_PER_TURN, ctx.now_us):
            if status.update_id:
                task = framework.tasks.get(status.task_id)
                if task is not None and task.forwarded not in TERMINAL:
                    task.forwarded = status.state
            agent = self.roster.agents.get(status.agent_id)
            where = agent.info.address if agent is not None else Address("")
            ctx.send(framework.address, Update(framework.framework_id, status, agent_address=where))
        self.want_answers(ctx)

    # -- custom executors

    @handles(ToExecutor)
    def on_to_executor(self, ctx: Context, sender: Address, message: ToExecutor) -> None:
        framework = self.subscribed(ctx, sender, message)
        agent = self.roster.agents.get(message.agent_id)
        if framework is not None and agent is not None and agent.connected:
            ctx.send(agent.address, message)

    @handles(FromExecutor)
    def on_from_executor(self, ctx: Context, sender: Address, message: FromExecutor) -> None:
        framework = self.roster.frameworks.get(message.framework_id)
        agent = self.agent_of(ctx, sender, "FromExecutor")
        if framework is not None and framework.connected and agent is not None:
            ctx.send(framework.address, message)

    @handles(ExecutorLost)
    def on_executor_lost(self, ctx: Context, sender: Address, message: ExecutorLost) -> None:
        agent = self.agent_of(ctx, sender, "ExecutorLost")
        if agent is None:
            return
        if not self.roster.is_wanted(agent, message.framework_id, message.executor_id):
            self.roster.forget_executor(agent, message.framework_id, message.executor_id)
            self.want_allocation(ctx)
        self.tell(ctx, message.framework_id, message)
