"""The third part of the master: agents come, and come back.

Source: Mesos src/master/master.cpp `registerSlave`, `reregisterSlave`.
"""

from __future__ import annotations

from mesos_actor.actors.actor import Context, handles
from mesos_actor.actors.core import validation
from mesos_actor.actors.core.entries import AgentEntry
from mesos_actor.actors.core.pending import Operation, Request
from mesos_actor.actors.core.reconcile import status_of
from mesos_actor.actors.core.rejoin import Rejoined, rejoin
from mesos_actor.actors.ids import Address
from mesos_actor.actors.master_leading import (
    after_commit,
    after_refusal,
    request_of,
)
from mesos_actor.actors.master_losses import GONE, MasterLosses
from mesos_actor.actors.messages.agents import (
    KillTask,
    Ping,
    RegisterAgent,
    Registered,
    ShutdownAgent,
    ShutdownFramework,
)
from mesos_actor.actors.messages.registry import (
    AdmitAgent,
    AgentRecord,
    Committed,
    ProposalRefused,
    UpdateAgent,
)
from mesos_actor.actors.messages.scheduler import OTHER_TERM, ExecutorLost
from mesos_actor.actors.task import Reason

_NOT_KNOWN = (
    "Agent {} is not known here with this work directory: it left, was forgotten, or the directory is a copy; start it"
    " with an empty work directory to join as a new agent"
)


class MasterAgents(MasterLosses):
    """Agents: admission and registration."""

    # -- registration

    def agent_recovered(self, ctx: Context, record: AgentRecord) -> None:
        """The registry knows it from an earlier term."""
        if record.state == "admitted":
            self.recovered_agents += 1
            self.roster.admit_agent(record)
            self.liveness.open_window(record.agent_id, ctx.now_us + self.settings.reregister_window_ms * 1_000)
        else:
            self.roster.absent[record.agent_id] = record

    @handles(RegisterAgent)
    def on_register_agent(self, ctx: Context, sender: Address, message: RegisterAgent) -> None:
        if not self.is_operator(ctx, sender, message):
            return
        if problem := validation.registration_error(message):
            ctx.warn("agent_refused", sender=sender, text=problem)
            self.refuse(ctx, sender, message, "invalid", problem)
        elif message.cluster_id and message.cluster_id != self.cluster_id:
            text = (
                f"This agent belongs to cluster {message.cluster_id}, and this master leads {self.cluster_id}:"
                " point the agent at its own masters, or give it an empty work directory"
            )
            self._shut_out(ctx, sender, text)
        elif message.term != self.term and not self._is_first(message):
            if message.term > self.term:
                ctx.warn("agent_of_the_future", sender=sender, term=message.term, own_term=self.term)
            self._ask_anew(ctx, request_of(ctx, sender, message))
        else:
            self._register(ctx, request_of(ctx, sender, message), message)

    def _ask_anew(self, ctx: Context, request: Request) -> None:
        text = f"This was not meant for a leader of term {self.term}: say again what there is"
        self.refuse(ctx, request.sender, request.message, OTHER_TERM, text)

    def _is_first(self, message: RegisterAgent) -> bool:
        """Whether it is of an agent that never took part: it knows no term, and has nothing to tell that can be old."""
        return not (message.term or message.agent_id or message.registration in self.roster.agent_with)

    def _register(self, ctx: Context, request: Request, message: RegisterAgent) -> None:
        """Decide whether the registry must be asked first; an agent that is known and unchanged is let in at once."""
        entry = self.roster.agents.get(message.agent_id) or self.roster.agent_with.get(message.registration)
        if entry is None or entry.registration != message.registration:
            self._register_absent(ctx, request, message)
            return
        if entry.registered and entry.info.hostname != message.info.hostname:
            text = (
                f"Agent attempted to reregister with different hostname '{message.info.hostname}';"
                f" it is known as '{entry.info.hostname}'"
            )
            self._shut_out(ctx, request.sender, text)
            return
        if self._is_double(ctx, entry, request.sender):
            return
        busy = self.pending.about(("agent", entry.agent_id))
        if busy is not None or entry.info != message.info:
            if busy is None or isinstance(busy.command, UpdateAgent):
                command = UpdateAgent(entry.agent_id, message.info, ctx.now_us)
                self.propose(ctx, ("agent", entry.agent_id), command, request)
            return  # it is just being removed or marked: the agent repeats itself and is then judged anew
        self._join(ctx, request.sender, message, entry, "")

    def _register_absent(self, ctx: Context, request: Request, message: RegisterAgent) -> None:
        """A new agent, or one the master counts out."""
        if not message.agent_id:
            if len(self.roster.agents) >= self.settings.max_agents:
                text = f"This cluster has {len(self.roster.agents)} agents, the most it may (max_agents)"
                self.refuse(ctx, request.sender, message, "full", text)
                return
            admit = AdmitAgent(message.info, message.registration, ctx.now_us)
            self.propose(ctx, ("registration", message.registration), admit, request)
            return
        known = self.roster.agents.get(message.agent_id) or self.roster.absent.get(message.agent_id)
        if known is not None and known.registration != message.registration:
            self._shut_out(ctx, request.sender, _NOT_KNOWN.format(message.agent_id))
        elif isinstance(known, AgentRecord) and known.state == "gone":
            self._shut_out(ctx, request.sender, GONE, end_tasks=True)
        else:
            # One that this master has never heard of may have joined under a later leader that it does not know of
            # either, because it stood still. So the registry says who is unknown, which answers true leaders only.
            command = UpdateAgent(message.agent_id, message.info, ctx.now_us)
            self.propose(ctx, ("agent", message.agent_id), command, request)

    def _is_double(self, ctx: Context, entry: AgentEntry, sender: Address) -> bool:
        """Whether two agents live in one work directory. The old one is asked: if it still answers, the newcomer ends;
        if it does not within a ping interval, it is dead, its link just does not know it yet."""
        if not entry.connected or entry.address == sender:
            return False
        challenge = entry.challenge
        if challenge is None or challenge[0] != sender:
            entry.challenge = (sender, ctx.now_us, False)
            ctx.send(entry.address, Ping(self.term))
            return True
        _, since_us, answered = challenge
        if answered:
            text = (
                f"Agent {entry.agent_id} is alive at {entry.address}, and this agent uses the same work directory (or"
                " a copy): give each agent its own"
            )
            self._shut_out(ctx, sender, text)
            return True
        return ctx.now_us - since_us < self.settings.ping_interval_ms * 1_000

    def _shut_out(self, ctx: Context, sender: Address, text: str, end_tasks: bool = False) -> None:
        ctx.warn("agent_shut_out", sender=sender, text=text)
        ctx.send(sender, ShutdownAgent(text, end_tasks))

    @after_commit(AdmitAgent, UpdateAgent)
    def agent_admitted(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        """The registry has it: let in whoever asked and still waits, the newest if several did."""
        record = next(r for r in committed.records if isinstance(r, AgentRecord))
        returning = record.agent_id in self.roster.absent
        before = self.roster.agents.get(record.agent_id)
        if before is not None and before.info != record.info:
            self.rescind(ctx, self.offers.of_agent(record.agent_id), "agent-lost")
        entry = self.roster.admit_agent(record)
        if not entry.registered:
            self.liveness.open_window(record.agent_id, ctx.now_us + self.settings.reregister_window_ms * 1_000)
        for request in operation.requests[-1:]:
            message = request.message
            if not isinstance(message, RegisterAgent) or self._is_double(ctx, entry, request.sender):
                continue
            if returning and not message.agent_id:
                self._ask_anew(ctx, request)  # its first word, which comes when it has taken part and was lost
            elif message.info == record.info:
                back = "Unreachable agent reregistered" if returning else ""
                self._join(ctx, request.sender, message, entry, back)
            else:
                self._register(ctx, request, message)  # it joined an older one's write

    @after_refusal(AdmitAgent, UpdateAgent)
    def agent_denied(self, ctx: Context, operation: Operation, refused: ProposalRefused) -> bool:
        if refused.reason not in ("unknown-agent", "gone"):
            return False
        for request in operation.requests:
            assert isinstance(request.message, RegisterAgent)
            unknown = _NOT_KNOWN.format(request.message.agent_id)
            text = unknown if refused.reason == "unknown-agent" else refused.text
            self._shut_out(ctx, request.sender, text, end_tasks=refused.reason == "gone")
        return True

    def _join(self, ctx: Context, sender: Address, message: RegisterAgent, entry: AgentEntry, back: str) -> None:
        """It takes part: make the two views one and tell whoever must know. `back`: why its tasks are news."""
        other = self.roster.agent_at.get(sender)
        if other is not None and other is not entry:
            self.disconnect_agent(ctx, other)
        self.roster.flush()
        joined = rejoin(self.roster, entry, message.tasks, message.executors, ctx.now_us)
        if joined.added or entry.address != sender:
            self.rescind(ctx, self.offers.of_agent(entry.agent_id), "agent-lost")
        self._tell_allocator(entry, joined)
        self.roster.connect_agent(entry, sender)
        entry.challenge = None
        self.liveness.watch(entry.agent_id)
        ping_timeout_ms = self.settings.ping_interval_ms * self.settings.max_missed_pings
        missing = tuple(joined.missing)
        ctx.send(
            sender,
            Registered(entry.agent_id, self.cluster_id, self.term, ping_timeout_ms, missing, message.attempt),
        )
        for framework_id in joined.orphans:
            ctx.send(sender, ShutdownFramework(self.term, framework_id))
        for framework_id, task_id in joined.doubles:
            ctx.send(sender, KillTask(self.term, framework_id, task_id, 0))
        for (framework_id, task_id), grace_ms in list(entry.kills.items()):
            framework = self.roster.frameworks.get(framework_id)
            if framework is None or task_id not in framework.tasks:
                del entry.kills[framework_id, task_id]  # it was remembered in case the agent had such a task
            else:
                ctx.send(sender, KillTask(self.term, framework_id, task_id, grace_ms))
        for framework_id, executor_id in joined.lost:
            self.tell(ctx, framework_id, ExecutorLost(entry.agent_id, executor_id, framework_id=framework_id))
        if back:
            for task in joined.returned:
                status = status_of(task, task.state, Reason.AGENT_REREGISTERED, back, ctx.now_us)
                self.tell_status(ctx, task, status)
        self.want_allocation(ctx)
        ctx.log("agent_registered", agent=entry.agent_id, sender=sender, tasks=len(entry.tasks))

    def _tell_allocator(self, entry: AgentEntry, joined: Rejoined) -> None:
        agent_id, info = entry.agent_id, entry.info
        if not entry.registered:
            entry.registered = True
            self.roster.silent.pop(agent_id, None)
            self.allocator.add_agent(agent_id, info.resources, info.attributes, dict(entry.used))
            return
        self.allocator.update_agent(agent_id, info.resources, info.attributes)
        for (framework_id, role), resources in joined.added.items():
            self.allocator.add_used(agent_id, framework_id, role, resources)
        if not entry.connected:
            self.allocator.set_agent_active(agent_id, True)
