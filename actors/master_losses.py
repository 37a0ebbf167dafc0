"""The second part of the master: agents are pinged and called, are away, and are lost; and whoever must be told is.

Source: Mesos src/master/master.cpp `SlaveObserver`, `markUnreachable`, `markGone`, `unregisterSlave`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from mesos_actor.actors.actor import Context, handles
from mesos_actor.actors.core import doubts
from mesos_actor.actors.core.entries import AgentEntry, TaskEntry
from mesos_actor.actors.core.liveness import SLICES
from mesos_actor.actors.core.pending import Operation
from mesos_actor.actors.core.reconcile import status_of
from mesos_actor.actors.ids import Address, AgentId, FrameworkId, Node, OfferId, actor_of
from mesos_actor.actors.master_leading import (
    TRUSTED,
    MasterLeading,
    after_commit,
    after_refusal,
    on_timer_named,
    request_of,
)
from mesos_actor.actors.messages.agents import (
    KillTask,
    LeaveAgent,
    Ping,
    Pong,
    ReconcileTasks,
    ShutdownAgent,
    ShutdownFramework,
)
from mesos_actor.actors.messages.clients import MarkAgentGone
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    Committed,
    MarkGone,
    MarkUnreachable,
    ProposalRefused,
    RemoveAgent,
)
from mesos_actor.actors.messages.scheduler import AgentLost, ExecutorLost, OperationResult, Rescind, Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import TERMINAL, Reason, TaskState

ALLOCATION_LATE_US = 500_000
"""How late an allocation may be in a simulation: offers must not be needed sooner by anybody."""
MAX_MARKED_AT_ONCE = 1_000
"""Agents marked unreachable in one tick because their window has passed; the rest follow in the next."""

CALL_AFTER_US = 1_000_000
"""A new leader calls the agents that have not come to it by then. Where the old one has died they come by themselves;
where it hangs, or cannot reach the others, they do not know that it leads no more."""
CALL_TICK_US = 100_000
CALLS_A_TICK = 100
"""Each may be a new connection, and a handshake costs 2 ms: at most a fifth of a core."""
CALL_ROUNDS = 3
"""Then their own links have fallen silent, and they look for a leader themselves."""

GONE = "Agent has been marked gone"


class MasterLosses(MasterLeading):
    """Agents that are there, are away, are lost."""

    # -- liveness

    @on_timer_named("ping")
    def ping(self, ctx: Context, _rest: str) -> None:
        """One slice of all agents; who has missed too many, and whose window has passed, is marked unreachable."""
        self.arm(ctx, "ping", self.settings.ping_interval_ms * 1_000 // SLICES)
        due, lost = self.liveness.tick()
        here, away = Ping(self.term), Ping(self.term, connected=False)
        for agent_id in due:
            entry = self.roster.agents[agent_id]
            if entry.address:
                ctx.send(entry.address, here if entry.connected else away)
            if entry.connected and (entry.tasks or entry.executors):
                self._ask_again(ctx, entry)
        doomed = [(agent_id, f"{self.settings.max_missed_pings} pings missed") for agent_id in lost]
        doomed += [(agent_id, "it did not register again in time") for agent_id in self._removable(ctx)]
        for agent_id, why in self._in_their_turn(ctx, doomed):
            self._mark_unreachable(ctx, agent_id, why)

    def expect_agents(self, ctx: Context) -> None:
        """This master has begun to lead: agents have a moment to come, then they are called."""
        self.calls, self.call_rounds = deque(self.roster.silent), CALL_ROUNDS
        self.arm(ctx, "call", CALL_AFTER_US)

    @on_timer_named("call")
    def call(self, ctx: Context, _rest: str) -> None:
        """Tell some of those that have not been heard of who leads now. They register with it, if it is so."""
        for _ in range(min(CALLS_A_TICK, len(self.calls))):
            agent_id = self.calls.popleft()
            if agent_id in self.roster.silent:
                ctx.send(self.roster.agents[agent_id].info.address, Ping(self.term, connected=False))
        if self.calls:
            self.arm(ctx, "call", CALL_TICK_US)
        elif self.call_rounds > 1 and self.roster.silent:
            self.calls, self.call_rounds = deque(self.roster.silent), self.call_rounds - 1
            self.arm(ctx, "call", self.settings.ping_interval_ms * 1_000)

    def _removable(self, ctx: Context) -> list[AgentId]:
        """Whose window has passed; without those that a new leader has never heard of, while they are too many."""
        late = self.liveness.overdue(ctx.now_us, len(self.roster.agents))
        silent = self.roster.silent
        limit = self.settings.recovery_removal_limit_permille
        too_many = limit < 1_000 and self.recovered_agents > 0 and len(silent) * 1_000 > limit * self.recovered_agents
        held = sum(agent_id in silent for agent_id in late) if too_many else 0
        if bool(held) != bool(self.held_removals):
            text = f"{len(silent)} of {self.recovered_agents} agents have not come back since this master leads"
            ctx.warn("removals_held" if held else "removals_resumed", text=text, limit_permille=limit)
        self.held_removals = held
        free = [agent_id for agent_id in late if agent_id not in silent] if held else late
        return free[:MAX_MARKED_AT_ONCE]

    def _in_their_turn(self, ctx: Context, doomed: list[tuple[AgentId, str]]) -> list[tuple[AgentId, str]]:
        """Those that may be marked now; the others are named again as long as they do not answer."""
        interval_us = self.settings.agent_removal_interval_ms * 1_000
        if interval_us <= 0:
            return doomed
        waiting = [pair for pair in doomed if self.pending.about(("agent", pair[0])) is None]
        if not waiting or ctx.now_us < self.next_removal_us:
            return []
        self.next_removal_us = ctx.now_us + interval_us
        return waiting[:1]

    def _ask_again(self, ctx: Context, entry: AgentEntry) -> None:
        """Orders may have been lost: bring up what should have been heard of by now."""
        tasks, executors = doubts.doubtful_tasks(entry, ctx.now_us), doubts.idle_executors(entry)
        if tasks or executors:
            ctx.send(entry.address, ReconcileTasks(self.term, tuple(tasks), tuple(executors)))
        for framework_id, task_id, grace_ms in doubts.due_kills(entry):
            ctx.send(entry.address, KillTask(self.term, framework_id, task_id, grace_ms))

    @handles(Pong)
    def on_pong(self, ctx: Context, sender: Address, message: Pong) -> None:
        entry = self.roster.agent_at.get(sender)
        if entry is None or entry.agent_id != message.agent_id:
            return
        self.liveness.answered(message.agent_id)
        if entry.challenge is not None:
            entry.challenge = (entry.challenge[0], entry.challenge[1], True)
        for framework_id in message.frameworks:
            if framework_id not in self.roster.frameworks and entry.connected:
                ctx.send(sender, ShutdownFramework(self.term, framework_id))

    def agents_away(self, ctx: Context, node: Node) -> None:
        """The link with a process ended: its agents are expected back."""
        for entry in list(self.roster.agents_on.get(node, ())):
            if entry.connected:
                self.disconnect_agent(ctx, entry)

    def disconnect_agent(self, ctx: Context, entry: AgentEntry) -> None:
        """Nothing is offered of it nor sent to it until it registers again, for which it has a window."""
        entry.connected = False
        entry.challenge = None
        self.allocator.set_agent_active(entry.agent_id, False)
        self.rescind(ctx, self.offers.of_agent(entry.agent_id), "disconnected")
        self.liveness.open_window(entry.agent_id, ctx.now_us + self.settings.reregister_window_ms * 1_000)
        ctx.log("agent_disconnected", agent=entry.agent_id)

    # -- loss

    def _mark_unreachable(self, ctx: Context, agent_id: AgentId, why: str) -> None:
        if self.pending.about(("agent", agent_id)) is None:
            ctx.warn("agent_unreachable", agent=agent_id, text=why)
            self.propose(ctx, ("agent", agent_id), MarkUnreachable(agent_id, ctx.now_us))

    @after_commit(MarkUnreachable)
    def agent_unreachable(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        record = next(r for r in committed.records if isinstance(r, AgentRecord))
        text = f"Agent {record.agent_id} is unreachable"
        self._lose(ctx, record.agent_id, record, TaskState.UNREACHABLE, Reason.AGENT_REMOVED, text)

    @handles(MarkAgentGone)
    def on_mark_agent_gone(self, ctx: Context, sender: Address, message: MarkAgentGone) -> None:
        if not self.is_operator(ctx, sender, message):
            return
        busy = self.pending.about(("agent", message.agent_id))
        if busy is not None and not isinstance(busy.command, MarkGone):
            text = f"Agent {message.agent_id} is just being registered or removed; ask again"
            ctx.send(sender, OperationResult(message.operation_id, False, "unavailable", text))
            return
        command = MarkGone(message.agent_id, ctx.now_us)
        self.propose(ctx, ("agent", message.agent_id), command, request_of(ctx, sender, message))

    @after_commit(MarkGone)
    def agent_gone(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        record = next(r for r in committed.records if isinstance(r, AgentRecord))
        entry = self.roster.agents.get(record.agent_id)
        text = f"Agent {record.agent_id} was marked gone by an operator"
        if entry is not None and entry.connected:
            ctx.send(entry.address, ShutdownAgent(GONE, end_tasks=True))
        self._tell_unreachable_gone(ctx, record.agent_id, text)
        state, reason = TaskState.GONE_BY_OPERATOR, Reason.AGENT_REMOVED_BY_OPERATOR
        self._lose(ctx, record.agent_id, record, state, reason, text)
        self.answer_done(ctx, operation)

    def _tell_unreachable_gone(self, ctx: Context, agent_id: AgentId, text: str) -> None:
        """Tasks that were unreachable with this agent never come back either."""
        state, reason = TaskState.GONE_BY_OPERATOR, Reason.AGENT_REMOVED_BY_OPERATOR
        for task in self.roster.end_out_of_reach(agent_id, state, ctx.now_us, reason, text):
            self.tell_status(ctx, task, status_of(task, state, reason, text, ctx.now_us))

    @after_refusal(MarkUnreachable, MarkGone, RemoveAgent)
    def agent_not_marked(self, ctx: Context, operation: Operation, refused: ProposalRefused) -> bool:
        """What the registry no longer counts in is nothing for the tables either; an operator is told."""
        command = operation.command
        assert isinstance(command, MarkUnreachable | MarkGone | RemoveAgent)
        if refused.reason == "unknown-agent":
            text = f"Agent {command.agent_id} is not in the registry"
            self._lose(ctx, command.agent_id, None, TaskState.GONE, Reason.AGENT_REMOVED, text)
        return False

    @handles(LeaveAgent)
    def on_leave_agent(self, ctx: Context, sender: Address, message: LeaveAgent) -> None:
        entry = self.roster.agent_at.get(sender)
        if entry is None or entry.agent_id != message.agent_id:
            ctx.warn("unexpected_message", kind="LeaveAgent", sender=sender)
        elif self.pending.about(("agent", message.agent_id)) is None:
            self.propose(ctx, ("agent", message.agent_id), RemoveAgent(message.agent_id))

    @after_commit(RemoveAgent)
    def agent_left(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        assert isinstance(operation.command, RemoveAgent)
        agent_id = operation.command.agent_id
        self._lose(ctx, agent_id, None, TaskState.GONE, Reason.AGENT_REMOVED, f"Agent {agent_id} has left")

    def _lose(
        self,
        ctx: Context,
        agent_id: AgentId,
        record: AgentRecord | None,
        state: TaskState,
        reason: Reason,
        text: str,
    ) -> None:
        """Take an agent out: its offers are void, its tasks are in `state`, and whoever had something there is told."""
        entry = self.roster.agents.get(agent_id)
        if entry is None:
            if record is not None:
                self.roster.absent[agent_id] = record
            return
        concerned: dict[FrameworkId, None] = dict.fromkeys((*entry.executors, *(t.framework_id for t in entry.tasks)))
        for offer_id in self.offers.of_agent(agent_id):
            outstanding = self.offers.get(offer_id)
            if outstanding is not None:
                concerned[outstanding.framework_id] = None
        self.rescind(ctx, self.offers.of_agent(agent_id), "agent-lost")
        for task in list(entry.tasks):
            self._lose_task(ctx, task, state, reason, text, 0 if record is None else record.since_us)
        for framework_id, mine in list(entry.executors.items()):
            for executor_id in list(mine):
                self.roster.forget_executor(entry, framework_id, executor_id)
        self.liveness.forget(agent_id)
        self.roster.forget_agent(entry, record)
        for framework_id in concerned:
            self.tell(ctx, framework_id, AgentLost(agent_id))
        self.want_allocation(ctx)
        ctx.log("agent_removed", agent=agent_id, text=text)

    def _lose_task(
        self, ctx: Context, task: TaskEntry, state: TaskState, reason: Reason, text: str, since_us: int
    ) -> None:
        if task.state not in TERMINAL:
            self.roster.change(task, state, ctx.now_us, reason, text)
        since_us = since_us if task.state is TaskState.UNREACHABLE else 0
        if task.forwarded not in TERMINAL:
            self.tell_status(ctx, task, status_of(task, task.state, reason, text, ctx.now_us, since_us))
        self.roster.forget_task(task)

    # -- telling frameworks

    def tell(self, ctx: Context, framework_id: FrameworkId, message: AgentLost | ExecutorLost) -> None:
        framework = self.roster.frameworks.get(framework_id)
        if framework is not None and framework.connected:
            ctx.send(framework.address, message)

    def tell_status(self, ctx: Context, task: TaskEntry, status: Status) -> None:
        """An update made here: its framework hears it once, if it is connected."""
        task.forwarded = status.state
        framework = self.roster.frameworks.get(task.framework_id)
        if framework is not None and framework.connected:
            ctx.send(framework.address, Update(task.framework_id, status))

    def rescind(self, ctx: Context, offer_ids: Iterable[OfferId], reason: str, refuse_until_us: int = 0) -> None:
        """Take offers back. Their frameworks are told, unless they are not there."""
        told: dict[FrameworkId, list[OfferId]] = {}
        for outstanding in self.offers.void(list(offer_ids), reason):
            offer = outstanding.offer
            self.allocator.recover(
                outstanding.framework_id, offer.agent_id, offer.role, offer.resources, refuse_until_us
            )
            told.setdefault(outstanding.framework_id, []).append(offer.offer_id)
        for framework_id, mine in told.items():
            framework = self.roster.frameworks.get(framework_id)
            if framework is not None and framework.connected:
                ctx.send(framework.address, Rescind(tuple(mine), reason))

    def want_allocation(self, ctx: Context) -> None:
        """Something came free: allocate once this turn's messages are handled."""
        self.arm(ctx, "allocate", ALLOCATION_LATE_US if ctx.sometimes("allocation-late") else 0)

    def agent_of(self, ctx: Context, sender: Address, message_kind: str) -> AgentEntry | None:
        """The connected agent at `sender`. Another trusted process is told to register."""
        entry = self.roster.agent_at.get(sender)
        if entry is not None and entry.connected:
            return entry
        if ctx.principal in TRUSTED and actor_of(sender):
            ctx.send(sender, Ping(self.term, connected=False))
        ctx.warn("not_registered", sender=sender, kind=message_kind)
        return None
