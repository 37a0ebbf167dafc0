"""The fourth part of the master: frameworks subscribe, take over from themselves, go away and are removed.

Unlike in Mesos, frameworks and their failover deadlines are in the registry, so they survive the master (MESOS-1719,
MESOS-4659). Source otherwise: Mesos src/master/master.cpp `subscribe`, `_failoverFramework`, `removeFramework`;
mesos-semantics 2.4.
"""

from __future__ import annotations

from msgspec.structs import replace

from mesos_actor.actors.actor import SECOND_US, Context, handles
from mesos_actor.actors.core import validation
from mesos_actor.actors.core.entries import FrameworkEntry
from mesos_actor.actors.core.pending import Operation, Request
from mesos_actor.actors.ids import Address, FrameworkId, Node, Principal
from mesos_actor.actors.master_agents import MasterAgents
from mesos_actor.actors.master_leading import TRUSTED, after_commit, after_refusal, on_timer_named, request_of
from mesos_actor.actors.messages.agents import ShutdownFramework
from mesos_actor.actors.messages.registry import (
    AdmitFramework,
    Committed,
    FrameworkRecord,
    ProposalRefused,
    RemoveFramework,
    UpdateFramework,
)
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    Decline,
    Heartbeat,
    InstructionDone,
    Kill,
    OperationResult,
    Reconcile,
    Refused,
    RequestDemand,
    Revive,
    Subscribe,
    Subscribed,
    Suppress,
    Teardown,
    ToExecutor,
    Unsubscribe,
)
from mesos_actor.actors.task import TERMINAL, Reason, TaskState

RECORD_AFTER_US = 10 * SECOND_US
"""Most frameworks find a new leader within seconds: nothing is written about those."""
RETURN_US = 20 * SECOND_US
"""A framework whose time is over by the clock of a new leader has so long to find it (or its failover timeout, if that
is shorter): the leader before wrote the deadline down, and whose clock is right nobody can tell."""
RETRY_US = SECOND_US
"""When a write about a framework cannot be proposed now, it is tried again after this."""

FrameworkMessage = (
    Accept
    | Acknowledge
    | Decline
    | Heartbeat
    | InstructionDone
    | Kill
    | Reconcile
    | RequestDemand
    | Revive
    | Suppress
    | ToExecutor
    | Unsubscribe
)
"""What only a subscribed framework may send."""


class MasterFrameworks(MasterAgents):
    """Frameworks: subscription, failover, disconnection, removal."""

    # -- subscription

    def framework_recovered(self, ctx: Context, record: FrameworkRecord) -> None:
        """The registry knows it from an earlier term. One that was connected then gets at least the time that agents
        get to find this master. The deadline of one that was not goes on counting; but another host's clock wrote it
        down, and where the two differ by more than the failover timeout it would be over, or far away, at once."""
        if record.removed:
            self.roster.removed[record.framework_id] = record
            return
        entry = self.roster.admit_framework(record)
        if entry.deadline_us == 0:
            grace_ms = max(record.info.failover_timeout_ms, self.settings.reregister_window_ms)
            entry.deadline_us = ctx.now_us + grace_ms * 1_000
            self.arm(ctx, f"recovered:{entry.framework_id}", RECORD_AFTER_US)
        else:
            timeout_us = record.info.failover_timeout_ms * 1_000
            left_us = entry.deadline_us - ctx.now_us
            entry.deadline_us = ctx.now_us + min(left_us if left_us > 0 else RETURN_US, timeout_us)
        self._arm_failover(ctx, entry)

    @on_timer_named("recovered")
    def not_back_yet(self, ctx: Context, rest: str) -> None:
        """A framework that was connected when the last leader died has not come back soon: write its deadline down, so
        that it goes on counting when this leader dies too."""
        framework = self.roster.frameworks.get(FrameworkId(rest))
        if framework is None or framework.connected or framework.recorded_deadline_us:
            return
        subject = ("framework", framework.framework_id)
        if self.pending.about(subject) is None:
            command = UpdateFramework(framework.framework_id, framework.info, framework.deadline_us)
            self.propose(ctx, subject, command)
        self.arm(ctx, f"recovered:{rest}", RECORD_AFTER_US)  # until it is written down, or back

    @handles(Subscribe)
    def on_subscribe(self, ctx: Context, sender: Address, message: Subscribe) -> None:
        if ctx.principal.startswith("executor:"):
            text = "An executor's key does not let it subscribe as a framework"
            self.refuse(ctx, sender, message, "unauthorized", text, fatal=True)
        else:
            self._subscribe(ctx, request_of(ctx, sender, message), message)

    def _subscribe(self, ctx: Context, request: Request, message: Subscribe) -> None:
        problem = validation.framework_error(message.info, message.suppressed_roles, request.principal)
        if problem:
            reason = "unauthorized" if "principal" in problem else "invalid"
            self.refuse(ctx, request.sender, message, reason, problem, fatal=True)
        elif message.framework_id:
            self._subscribe_again(ctx, request, message)
        elif len(self.roster.frameworks) >= self.settings.max_frameworks:
            text = f"This cluster has {len(self.roster.frameworks)} frameworks, the most it may (max_frameworks)"
            self.refuse(ctx, request.sender, message, "full", text)
        else:
            info = replace(message.info, principal=request.principal)
            subject = ("subscribe", message.operation_id or request.sender)
            command = AdmitFramework(info, message.operation_id, ctx.now_us)
            self.propose(ctx, subject, command, request)

    def _subscribe_again(self, ctx: Context, request: Request, message: Subscribe) -> None:
        """As the framework it was. The registry is asked first when a deadline or an info of it changes."""
        framework = self.roster.frameworks.get(message.framework_id)
        if framework is None and message.framework_id in self.roster.removed:
            self._refuse_removed(ctx, request)
            return
        if framework is None:
            # It may be known to a later leader; see MasterAgents._register_absent.
            unknown = UpdateFramework(message.framework_id, replace(message.info, principal=request.principal))
            self.propose(ctx, ("framework", message.framework_id), unknown, request)
            return
        if not may_act_for(framework.info.principal, request.principal):
            text = f"Framework {message.framework_id} belongs to another principal than '{request.principal}'"
            self.refuse(ctx, request.sender, message, "unauthorized", text, fatal=True)
            return
        if 0 < message.incarnation < framework.incarnation:
            self.refuse(ctx, request.sender, message, "failed-over", "Framework failed over", fatal=True)
            return
        # As in Mesos, the user cannot change; who it belongs to neither.
        info = replace(message.info, user=framework.info.user, principal=framework.info.principal)
        subject = ("framework", framework.framework_id)
        unchanged = framework.info == info and framework.recorded_deadline_us == 0
        if unchanged and self.pending.about(subject) is None:
            self._connect(ctx, request.sender, message, framework)
        else:
            self.propose(ctx, subject, UpdateFramework(framework.framework_id, info), request)

    def _refuse_removed(self, ctx: Context, request: Request, text: str = "Framework has been removed") -> None:
        self.refuse(ctx, request.sender, request.message, "removed", text, fatal=True)

    @after_commit(AdmitFramework)
    def framework_admitted(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        record = next(r for r in committed.records if isinstance(r, FrameworkRecord))
        framework = self.roster.admit_framework(record)
        for request in operation.requests[-1:]:
            assert isinstance(request.message, Subscribe)
            if not may_act_for(record.info.principal, request.principal):
                text = f"Operation {record.operation_id} is another principal's"
                self.refuse(ctx, request.sender, request.message, "unauthorized", text, fatal=True)
            else:
                again = replace(request.message, framework_id=record.framework_id)
                self._subscribe_again(ctx, request, again)
        if not framework.connected and self.pending.about(("framework", record.framework_id)) is None:
            self._start_failover(ctx, framework)  # whoever asked is away by now

    @after_commit(UpdateFramework)
    def framework_updated(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        """Its info or deadline is safe. Requests that wait for something else begin anew."""
        record = next(r for r in committed.records if isinstance(r, FrameworkRecord))
        framework = self.roster.frameworks.get(record.framework_id)
        if framework is None:
            return
        if record.info.roles != framework.info.roles:
            self.rescind(ctx, self.offers.of_framework(framework.framework_id), "failover")
        framework.info = record.info
        framework.recorded_deadline_us = record.deadline_us
        for request in operation.requests:
            if isinstance(request.message, Subscribe):
                self._subscribe_again(ctx, request, replace(request.message, framework_id=record.framework_id))
            elif isinstance(request.message, Teardown):
                self._tear_down(ctx, request, request.message)
        busy = self.pending.about(("framework", record.framework_id)) is not None
        if not framework.connected and record.deadline_us == 0 and not busy:
            self._start_failover(ctx, framework)  # it went away while this was written

    @after_refusal(AdmitFramework, UpdateFramework)
    def framework_denied(self, ctx: Context, operation: Operation, refused: ProposalRefused) -> bool:
        return self._told_unknown(ctx, operation, refused)

    def _connect(self, ctx: Context, sender: Address, message: Subscribe, framework: FrameworkEntry) -> None:
        """It takes part from `sender` on. A former connection ends; its offers are void and are made again."""
        other = self.roster.framework_at.get(sender)
        if other is not None and other is not framework:
            self._disconnect(ctx, other)
        self.rescind_silently(framework)
        if framework.connected and framework.address != sender:
            refused = Refused("failed-over", "Framework failed over", fatal=True, about="Subscribe")
            ctx.send(framework.address, refused)
        framework.suppressed, framework.incarnation = message.suppressed_roles, message.incarnation
        self.roster.connect_framework(framework, sender)
        ctx.cancel_timer(f"failover:{framework.framework_id}")
        self._armed.discard(f"failover:{framework.framework_id}")
        self.allocator.update_framework(framework.framework_id, framework.info.roles, message.suppressed_roles)
        self.allocator.set_framework_active(framework.framework_id, True)
        ctx.send(sender, Subscribed(framework.framework_id, self.cluster_id, self.term, message.operation_id))
        self.backlog.replay(framework)
        self.want_answers(ctx)
        self.want_allocation(ctx)
        ctx.log("framework_subscribed", framework=framework.framework_id, sender=sender, name=framework.info.name)

    def subscribed(self, ctx: Context, sender: Address, message: FrameworkMessage) -> FrameworkEntry | None:
        """The framework in whose name `sender` acts, if it subscribed from there; otherwise the sender is told."""
        framework = self.roster.frameworks.get(message.framework_id)
        if framework is not None and framework.connected and framework.address == sender:
            return framework
        if message.framework_id in self.roster.removed:
            self.refuse(ctx, sender, message, "removed", "Framework has been removed", fatal=True)
        elif framework is not None and framework.connected and may_act_for(framework.info.principal, ctx.principal):
            # It was told so already, in vain; subscribing again it would drive out its successor.
            self.refuse(ctx, sender, message, "failed-over", "Framework failed over", fatal=True)
        else:
            text = f"Framework {message.framework_id} is not subscribed from here: subscribe first"
            self.refuse(ctx, sender, message, "not-subscribed", text)
        return None

    @handles(Heartbeat)
    def on_heartbeat(self, ctx: Context, sender: Address, message: Heartbeat) -> None:
        if self.subscribed(ctx, sender, message) is not None:
            ctx.send(sender, message)

    # -- going away

    @handles(Unsubscribe)
    def on_unsubscribe(self, ctx: Context, sender: Address, message: Unsubscribe) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is not None:
            self._disconnect(ctx, framework)

    def frameworks_away(self, ctx: Context, node: Node) -> None:
        """The link with a process ended: its frameworks have their failover timeout to come back."""
        for framework in list(self.roster.frameworks_on.get(node, ())):
            self._disconnect(ctx, framework)

    def _disconnect(self, ctx: Context, framework: FrameworkEntry) -> None:
        self.rescind_silently(framework)
        self.roster.disconnect_framework(framework)
        self.allocator.set_framework_active(framework.framework_id, False)
        self._end_connection(ctx, framework)
        ctx.log("framework_disconnected", framework=framework.framework_id)
        self._start_failover(ctx, framework)
        self.want_allocation(ctx)

    def _end_connection(self, ctx: Context, framework: FrameworkEntry) -> None:
        """Nobody is there to be told or to answer any more."""
        self.backlog.forget(framework.framework_id)
        for key in [key for key in self.instructions if key[0] == framework.framework_id]:
            text = f"Framework {framework.framework_id} went away before it answered"
            ctx.send(self.instructions.pop(key), OperationResult(key[1], False, "unavailable", text))

    def rescind_silently(self, framework: FrameworkEntry) -> None:
        """Take back the offers of a connection that ends: nobody is there to be told."""
        for outstanding in self.offers.void(self.offers.of_framework(framework.framework_id), "failover"):
            offer = outstanding.offer
            self.allocator.recover(framework.framework_id, offer.agent_id, offer.role, offer.resources)

    def _start_failover(self, ctx: Context, framework: FrameworkEntry) -> None:
        """From now on it has its failover timeout to come back; the deadline is written down, or it is removed."""
        framework.deadline_us = ctx.now_us + framework.info.failover_timeout_ms * 1_000
        subject = ("framework", framework.framework_id)
        if framework.info.failover_timeout_ms > 0 and self.pending.about(subject) is None:
            command = UpdateFramework(framework.framework_id, framework.info, framework.deadline_us)
            self.propose(ctx, subject, command)
        self._arm_failover(ctx, framework)

    def _arm_failover(self, ctx: Context, framework: FrameworkEntry) -> None:
        self.arm(ctx, f"failover:{framework.framework_id}", max(0, framework.deadline_us - ctx.now_us))

    @on_timer_named("failover")
    def failover_timed_out(self, ctx: Context, rest: str) -> None:
        framework = self.roster.frameworks.get(FrameworkId(rest))
        if framework is None or framework.connected:
            return
        if framework.deadline_us > ctx.now_us:
            self._arm_failover(ctx, framework)
            return
        subject = ("framework", framework.framework_id)
        if self.pending.about(subject) is None:
            self.propose(ctx, subject, RemoveFramework(framework.framework_id, ctx.now_us, "failover timeout"))
        self.arm(ctx, f"failover:{rest}", RETRY_US)  # until it is gone or back

    # -- removal

    @handles(Teardown)
    def on_teardown(self, ctx: Context, sender: Address, message: Teardown) -> None:
        framework = self.roster.frameworks.get(message.framework_id)
        owns = framework is not None and (
            (framework.connected and framework.address == sender)
            or may_act_for(framework.info.principal, ctx.principal)
        )
        request = request_of(ctx, sender, message)
        if owns or framework is None or ctx.principal in TRUSTED:
            self._tear_down(ctx, request, message)
        else:
            text = f"Framework {message.framework_id} belongs to another principal than '{ctx.principal}'"
            self.refuse(ctx, sender, message, "unauthorized", text)

    def _tear_down(self, ctx: Context, request: Request, message: Teardown) -> None:
        if message.framework_id in self.roster.removed:
            self._refuse_removed(ctx, request)
            return
        # Of one that is unknown here the registry says so; see MasterAgents._register_absent.
        command = RemoveFramework(message.framework_id, ctx.now_us, message.outcome)
        self.propose(ctx, ("framework", message.framework_id), command, request)

    @after_commit(RemoveFramework)
    def framework_removed(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        record = next(r for r in committed.records if isinstance(r, FrameworkRecord))
        framework = self.roster.frameworks.get(record.framework_id)
        askers = {request.sender for request in operation.requests}
        if framework is not None:
            if framework.connected and framework.address not in askers:
                refused = Refused("removed", "Framework has been removed", fatal=True)
                ctx.send(framework.address, refused)
            self._remove(ctx, framework, record)
        for request in operation.requests:
            if not isinstance(request.message, Teardown):
                self._refuse_removed(ctx, request)
        self.answer_done(ctx, operation)

    @after_refusal(RemoveFramework)
    def framework_not_removed(self, ctx: Context, operation: Operation, refused: ProposalRefused) -> bool:
        """The registry does not know it: then the tables must not either."""
        assert isinstance(operation.command, RemoveFramework)
        framework = self.roster.frameworks.get(operation.command.framework_id)
        if refused.reason == "unknown-framework" and framework is not None:
            record = FrameworkRecord(framework.framework_id, framework.info, removed=True, since_us=ctx.now_us)
            self._remove(ctx, framework, record)
        return self._told_unknown(ctx, operation, refused)

    def _told_unknown(self, ctx: Context, operation: Operation, refused: ProposalRefused) -> bool:
        if refused.reason not in ("removed", "unknown-framework"):
            return False
        for request in operation.requests:
            unknown = f"{refused.text} here: removed long ago, or of another cluster"
            self._refuse_removed(ctx, request, unknown if refused.reason == "unknown-framework" else refused.text)
        return True

    def _remove(self, ctx: Context, framework: FrameworkEntry, record: FrameworkRecord) -> None:
        """Its agents end all it runs; its tasks are KILLED here and now, its resources free."""
        self.rescind_silently(framework)
        agents = dict.fromkeys(task.agent_id for task in framework.tasks.values())
        for agent in self.roster.agents.values():
            if framework.framework_id in agent.executors:
                agents[agent.agent_id] = None
        for task in list(framework.tasks.values()):
            if task.state not in TERMINAL:
                reason = Reason.FRAMEWORK_REMOVED
                self.roster.change(task, TaskState.KILLED, ctx.now_us, reason, "Framework has been removed")
            self.roster.forget_task(task)
        for agent_id in agents:
            agent = self.roster.agents[agent_id]
            for executor_id in list(agent.executors.get(framework.framework_id, ())):
                self.roster.forget_executor(agent, framework.framework_id, executor_id)
            if agent.connected:
                ctx.send(agent.address, ShutdownFramework(self.term, framework.framework_id))
        ctx.cancel_timer(f"failover:{framework.framework_id}")
        self._armed.discard(f"failover:{framework.framework_id}")
        self._end_connection(ctx, framework)
        self.roster.forget_framework(framework, record)
        self.want_allocation(ctx)
        ctx.log("framework_removed", framework=framework.framework_id, outcome=record.outcome)

    # -- answers in portions

    def want_answers(self, ctx: Context) -> None:
        """Somebody waits for reconciliation or replays: go on in the next turn."""
        if self.backlog:
            self.arm(ctx, "answers", 0)


def may_act_for(owner: Principal, principal: Principal) -> bool:
    """Whether `principal` may act for what belongs to `owner`: it is the same, or holds the cluster's key."""
    return principal == owner or principal in TRUSTED
