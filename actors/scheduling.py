"""The driver of a `Framework`: finds the leading master, keeps the id, and sees to what authors should not have to.

Pure, one per framework process, called `framework`. It subscribes and subscribes again, keeps its id before anything
depends on it, answers reliable updates after the author's callback and all it persisted, drops repeats, voids offers
when the link ends, repeats kills until the task ended, and reconciles after every re-registration and each quarter of
an hour (Mesos docs/reconciliation.md, src/sched/sched.cpp). What the author asks for stands in `scheduling_actions.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from msgspec.structs import replace

from mesos_actor.actors.actor import SECOND_US, Context, handles
from mesos_actor.actors.callbacks import Host
from mesos_actor.actors.core.leader_search import LeaderSearch
from mesos_actor.actors.errors import ConfigError, PeerError
from mesos_actor.actors.framework import Framework, KnownTask
from mesos_actor.actors.ids import Address, AgentId, ClusterId, FrameworkId, Node, OperationId, Term, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.records import SubscriptionRecord, UserRecord
from mesos_actor.actors.messages.scheduler import (
    ASK_ELSEWHERE,
    Accept,
    AgentLost,
    Decline,
    ExecutorLost,
    FromExecutor,
    Instruction,
    Offers,
    OperationResult,
    Posted,
    Reconcile,
    Refused,
    Rescind,
    Subscribe,
    Subscribed,
    Update,
)
from mesos_actor.actors.messages.values import Filters, FrameworkInfo, Offer, Status
from mesos_actor.actors.scheduling_actions import MAX_OUTCOME_LENGTH, MAX_TASKS, TEARDOWN_RETRY_US, USER_KEY
from mesos_actor.actors.scheduling_doubts import FrameworkDoubts
from mesos_actor.actors.task import TERMINAL, Reason, TaskState

SUBSCRIPTION = "subscription"
"""Key of the record that holds the framework's id."""

RECONCILE_EVERY_US = 900 * SECOND_US
"""(Mesos docs/reconciliation.md: about every 15 minutes.)"""

MAX_OFFERS = 100_000
"""Offers that may stand unanswered; further ones are declined at once."""

MAX_OVER = 10_000
"""Tasks remembered whose end only a reconciliation has told; the oldest is forgotten."""

MAX_AGENTS = 100_000
"""Agents whose address is remembered; past it the one first met is forgotten."""


class FrameworkActor(FrameworkDoubts):
    """Runs `framework` against the leading one of `masters` (mailboxes `tcp://host:port/master`)."""

    def __init__(self, framework: Framework, masters: Sequence[Address], host: Host | None = None) -> None:
        super().__init__(framework, host)
        self.search = LeaderSearch(masters)
        self.info = FrameworkInfo(name="")
        self.operation_id = OperationId("")
        self.incarnation = 0
        self.cluster_id = ClusterId("")
        self.term = Term(0)
        framework.tasks = MappingProxyType(self.tasks)
        framework.kept = MappingProxyType(self.kept)

    # -- start and subscription -------------------------------------------------------------------------------------

    def on_start(self, ctx: Context) -> None:
        ending: SubscriptionRecord | None = None
        for key, record in ctx.recovered.items():
            if isinstance(record, UserRecord):
                self.kept[key.removeprefix(USER_KEY)] = record.data
            elif isinstance(record, SubscriptionRecord):
                self.framework_id, self.operation_id = record.framework_id, record.operation_id
                self.incarnation = record.incarnation
                ending = record if record.ending else None
        self.author.framework_id = self.framework_id
        if not self._call(ctx, "on_start"):
            return
        try:
            self.info = self.author.info()
        except ConfigError as error:
            self._fail(error)
            raise
        if not self.operation_id:
            self.operation_id = OperationId(f"subscribe-{ctx.rng.getrandbits(128):032x}")
        self.incarnation += 1
        if ending is not None and self.teardown is None:
            self._tear_down(ctx, ending.outcome)
        ctx.persist(SUBSCRIPTION, self._record())
        self._subscribe(ctx)

    def _record(self) -> SubscriptionRecord:
        ending, outcome = self.teardown is not None, self.teardown.outcome if self.teardown is not None else ""
        return SubscriptionRecord(self.framework_id, self.operation_id, ending, outcome, self.incarnation)

    def _subscribe(self, ctx: Context) -> None:
        """Ask the current candidate; the timer goes on when it does not answer."""
        ctx.watch(node_of(self.search.current))
        suppressed = tuple(self.suppressed)
        subscribe = Subscribe(self.info, self.framework_id, suppressed, self.operation_id, self.incarnation)
        ctx.send(self.search.current, subscribe)
        ctx.set_timer("subscribe", self.search.pause_us(ctx.rng))

    @handles(Subscribed)
    def on_subscribed(self, ctx: Context, sender: Address, message: Subscribed) -> None:
        returning = bool(self.framework_id)
        if message.operation_id not in ("", self.operation_id):
            ctx.warn("foreign_subscription", sender=sender, operation=message.operation_id)
            return
        if returning and message.framework_id != self.framework_id:
            ctx.warn("foreign_subscription", sender=sender, framework=message.framework_id)
            return
        if message.cluster_id == self.cluster_id and message.term < self.term:
            ctx.warn("stale_master", sender=sender, term=message.term, newest=self.term)
            return
        if self.leader and not self._void_offers(ctx):
            return
        again = sender == self.leader
        self.cluster_id, self.term, self.leader = message.cluster_id, message.term, sender
        self.search.current = sender
        self.search.found()
        ctx.cancel_timer("subscribe")
        self._begin_to_listen(ctx)
        if not returning:
            self._keep_id(ctx, message.framework_id)
        self.author.connected = True
        if self.teardown is not None:
            ctx.send(self.leader, self.teardown)
        elif again or self._call(ctx, "on_registered", self.framework_id):
            self._resume(ctx, returning)

    def stop(self, failover: bool, outcome: str) -> None:
        """Being torn down is kept first: a process that dies of it must not take the master's word for a failure."""
        self._going_on()
        if not failover and self.framework_id:
            record = replace(self._record(), ending=True, outcome=outcome[:MAX_OUTCOME_LENGTH])
            self.ctx.persist(SUBSCRIPTION, record)
        super().stop(failover, outcome)

    def _keep_id(self, ctx: Context, framework_id: FrameworkId) -> None:
        """Kept before anything is sent that depends on it."""
        self.framework_id = self.author.framework_id = framework_id
        ctx.persist(SUBSCRIPTION, self._record())

    def _resume(self, ctx: Context, returning: bool) -> None:
        """Say again what the master, which may be another one, cannot know."""
        self._make_up(ctx)
        for kill in self.kills.values():
            ctx.send(self.leader, kill)
        if returning:
            ctx.send(self.leader, Reconcile(self.framework_id))
        self._reconcile_all(ctx)

    def _reconcile_all(self, ctx: Context) -> None:
        """Begin a run over all tasks that have not ended, and plan the next."""
        pending = {task_id: agent for task_id, agent in self.reconciling.remaining.items() if task_id not in self.tasks}
        self.reconciling.start(pending | {task_id: known.agent_id for task_id, known in self.tasks.items()})
        self._ask_again(ctx)
        ctx.set_timer("reconcile-all", SECOND_US if ctx.sometimes("framework-reconciles-soon") else RECONCILE_EVERY_US)

    # -- the link ends ----------------------------------------------------------------------------------------------

    def _link_lost(self, ctx: Context, node: Node) -> None:
        for operation_id in [known for known, (where, _) in self.reads.items() if where == node]:
            del self.reads[operation_id]
            self._call(ctx, "on_file", FileData(operation_id, 0, 0, error="the link to the agent ended; read again"))
        if self.leader and node == node_of(self.leader):
            self.search.lost()
            self._disconnect(ctx)
        elif not self.leader and node == node_of(self.search.current):
            self.search.lost()

    def _disconnect(self, ctx: Context, at_once: bool = False) -> None:
        """The leader is gone: everything that hung on it is void. Looking for it begins, by default after a short
        random pause, because every other framework of the cluster does the same at this moment."""
        self.leader = Address("")
        self.author.connected = False
        ctx.cancel_timer("reconcile")
        ctx.cancel_timer("reconcile-all")
        ctx.cancel_timer("heartbeat")
        if at_once:
            self._subscribe(ctx)
        else:
            ctx.set_timer("subscribe", self.search.pause_us(ctx.rng))
        self.wishes.clear()  # whoever subscribes says how things are
        self.wish_times.clear()
        operations = list(self.operations)
        self.operations.clear()
        if not self._void_offers(ctx):
            return
        text = "the connection to the master ended before it answered"
        for operation_id in operations:
            if not self._call(ctx, "on_operation", OperationResult(operation_id, False, "unknown", text)):
                return
        self._call(ctx, "on_disconnected")

    def _void_offers(self, ctx: Context) -> bool:
        ids = tuple(self.offers)
        self.offers.clear()
        return not ids or self._silent() or self._call(ctx, "on_rescinded", ids)

    # -- refusals ---------------------------------------------------------------------------------------------------

    @handles(Refused)
    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        if self._is_reading(sender, message.operation_id):
            del self.reads[message.operation_id]
            self._call(ctx, "on_file", FileData(message.operation_id, 0, 0, error=message.text))
        elif not self._is_asked(sender):
            ctx.warn("stale_sender", sender=sender, kind="Refused", reason=message.reason)
        elif message.reason in ASK_ELSEWHERE:
            self._follow(ctx, message.leader)
        elif message.fatal:
            self._refused_for_good(ctx, message)
        elif message.reason == "not-subscribed":
            if self.leader:
                self._disconnect(ctx)
        elif message.operation_id in self.operations:
            del self.operations[message.operation_id]
            result = OperationResult(message.operation_id, False, message.reason, message.text)
            self._call(ctx, "on_operation", result)
        else:
            self._wish_answered(message.operation_id)
            if message.about == Accept.__name__:
                self._ask_about_launched(ctx)
            ctx.warn("refused", about=message.about, reason=message.reason, text=message.text)
            self._call(ctx, "on_error", message.reason, message.text)

    def _follow(self, ctx: Context, leader: Address) -> None:
        """The master asked does not lead. A hint is tried at once, a few in a row; else the pause goes on."""
        hinted = self.search.follow(leader)
        if self.leader:
            self._disconnect(ctx, at_once=hinted)
        elif hinted:
            self._subscribe(ctx)
        else:
            ctx.set_timer("subscribe", self.search.retry_us(ctx.rng))

    def _refused_for_good(self, ctx: Context, message: Refused) -> None:
        if message.reason == "removed":
            ctx.persist(SUBSCRIPTION, None)
        if self.teardown is not None:
            self._end(ctx, "torn down")
            return
        if self._call(ctx, "on_error", message.reason, message.text):
            self.failure = PeerError(f"{message.reason}: {message.text}")
            self._end(ctx, message.reason)

    # -- offers and news --------------------------------------------------------------------------------------------

    @handles(Offers)
    def on_offers(self, ctx: Context, sender: Address, message: Offers) -> None:
        if not self._is_leader(ctx, sender, message):
            return
        room = MAX_OFFERS - len(self.offers)
        excess = message.offers[room:]
        if excess or self.teardown is not None:
            ids = tuple(offer.offer_id for offer in (excess if self.teardown is None else message.offers))
            ctx.send(sender, Decline(self.framework_id, ids, Filters()))
        for offer in message.offers[:room]:
            self._note_offer(offer)
        if room > 0:
            self._call(ctx, "on_offers", message.offers[:room])

    def _note_offer(self, offer: Offer) -> None:
        self.offers[offer.offer_id] = offer.agent_id
        self._note_agent(offer.agent_id, offer.agent_address)

    def _note_agent(self, agent_id: AgentId, where: Address) -> None:
        """Where an agent is; one that was started again has moved."""
        if where:
            if agent_id not in self.agents and len(self.agents) >= MAX_AGENTS:
                del self.agents[next(iter(self.agents))]
            self.agents[agent_id] = node_of(where)

    @handles(Rescind)
    def on_rescind(self, ctx: Context, sender: Address, message: Rescind) -> None:
        """An offer that we used and the master still had to take back: our Accept may be lost, so ask about the tasks
        of which nothing was heard yet."""
        if not self._is_leader(ctx, sender, message):
            return
        ids = tuple(i for i in message.offer_ids if self.offers.pop(i, None) is not None)
        if len(ids) < len(message.offer_ids):
            self._ask_about_launched(ctx)
        if ids:
            self._call(ctx, "on_rescinded", ids)

    def _ask_about_launched(self, ctx: Context) -> None:
        """An Accept may have been lost or refused, nobody can tell which: ask at once about the tasks of which nothing
        was heard."""
        silent = {t: known.agent_id for t, known in self.tasks.items() if known.state is TaskState.STAGING}
        self.reconciling.add(silent)
        self._ask_again(ctx)

    @handles(Update)
    def on_update(self, ctx: Context, sender: Address, message: Update) -> None:
        """A repeat is answered again if it was answered before, and never troubles the author."""
        if not self._is_leader(ctx, sender, message):
            return
        status = message.status
        self._note_agent(status.agent_id, message.agent_address)
        if not self.deliveries.follows(status.after_update_id):
            return
        if status.update_id and not self.deliveries.is_new(status.update_id):
            if self.deliveries.is_acknowledged(status.update_id):
                self._acknowledge(ctx, status)
            return
        if self._is_old_news(status):
            self._acknowledge_once(ctx, status)
            return
        self._note_status(status)
        if self._call(ctx, "on_update", status) and not self.author.manual_acknowledge:
            self._acknowledge_once(ctx, status)

    def _is_old_news(self, status: Status) -> bool:
        """Whether this only answers, once more, a question about a task that has ended meanwhile; or tells what went
        before an end that a reconciliation has told of already."""
        if status.update_id:
            return status.state not in TERMINAL and self.over.get(status.task_id) == status.container_id
        return (
            status.reason is Reason.RECONCILIATION
            and status.task_id not in self.tasks
            and status.task_id not in self.kills
            and status.task_id not in self.reconciling.remaining
            and (status.state in TERMINAL or status.state is TaskState.UNKNOWN)
        )

    def _acknowledge_once(self, ctx: Context, status: Status) -> None:
        if status.update_id and not self.deliveries.is_acknowledged(status.update_id):
            self._acknowledge(ctx, status)

    def _note_status(self, status: Status) -> None:
        self.reconciling.heard_of(status.task_id)
        self.silent.pop(status.task_id, None)
        if status.state in TERMINAL or status.state is TaskState.UNKNOWN:
            self.tasks.pop(status.task_id, None)
            if self.kills.pop(status.task_id, None) is not None:
                self.kill_times.settle(status.task_id)
            if not status.update_id and status.container_id:
                if len(self.over) >= MAX_OVER:
                    del self.over[next(iter(self.over))]
                self.over[status.task_id] = status.container_id
        elif status.task_id in self.tasks or len(self.tasks) < MAX_TASKS:
            self.tasks[status.task_id] = KnownTask(status.agent_id, status.state)

    @handles(FromExecutor)
    def on_from_executor(self, ctx: Context, sender: Address, message: FromExecutor) -> None:
        if self._is_leader(ctx, sender, message):
            self._call(ctx, "on_message", message.agent_id, message.executor_id, message.data)

    @handles(AgentLost)
    def on_agent_lost(self, ctx: Context, sender: Address, message: AgentLost) -> None:
        if self._is_leader(ctx, sender, message):
            self.agents.pop(message.agent_id, None)
            self._call(ctx, "on_agent_lost", message.agent_id)

    @handles(ExecutorLost)
    def on_executor_lost(self, ctx: Context, sender: Address, message: ExecutorLost) -> None:
        if self._is_leader(ctx, sender, message):
            lost = (message.agent_id, message.executor_id, message.exit_status, message.signal)
            self._call(ctx, "on_executor_lost", *lost)

    @handles(Instruction)
    def on_instruction(self, ctx: Context, sender: Address, message: Instruction) -> None:
        if self._is_leader(ctx, sender, message):
            self._call(ctx, "on_instruction", message)

    @handles(OperationResult)
    def on_operation_result(self, ctx: Context, sender: Address, message: OperationResult) -> None:
        if not self._is_leader(ctx, sender, message):
            return
        if self.teardown is not None:
            if message.operation_id == self.teardown.operation_id and message.ok:
                ctx.persist(SUBSCRIPTION, None)
                self._end(ctx, "torn down")
        elif message.operation_id in self.operations:
            del self.operations[message.operation_id]
            self._call(ctx, "on_operation", message)
        else:
            self._wish_answered(message.operation_id)

    @handles(FileData)
    def on_file_data(self, ctx: Context, sender: Address, message: FileData) -> None:
        if self._is_reading(sender, message.operation_id):
            del self.reads[message.operation_id]
            self._call(ctx, "on_file", message)

    @handles(Posted)
    def on_posted(self, ctx: Context, sender: Address, message: Posted) -> None:
        """Only wakes: what was posted is handed over after every event."""

    # -- timers -----------------------------------------------------------------------------------------------------

    def _own_timer(self, ctx: Context, name: str) -> None:
        if name == "subscribe" and not self.leader:
            self.search.advance()
            self._subscribe(ctx)
        elif name == "reconcile":
            self._ask_again(ctx)
        elif name == "reconcile-all" and self.leader:
            self._reconcile_all(ctx)
        elif name == "heartbeat" and self.leader and not self._is_heard(ctx):
            self.search.lost()
            self._disconnect(ctx)
        elif name == "look":
            self._look(ctx)
        elif name == "owed":
            self._pay(ctx)
        elif name == "teardown" and self.teardown is not None:
            if self.leader:
                ctx.send(self.leader, self.teardown)
            ctx.set_timer("teardown", TEARDOWN_RETRY_US)
        elif name == "teardown-limit":
            ctx.warn("teardown_unconfirmed", framework=self.framework_id)
            ctx.persist(SUBSCRIPTION, replace(self._record(), ending=False))
            self._end(ctx, "stopped; no master confirmed the teardown")

    def _pay(self, ctx: Context) -> None:
        """Make the callbacks that actions could not make from within a callback."""
        owed, self.owed = self.owed, []
        for callback, argument in owed:
            if isinstance(argument, Status):
                self._note_status(argument)
            if not self._call(ctx, callback, argument):
                return

    # -- shared -----------------------------------------------------------------------------------------------------

    def _is_reading(self, sender: Address, operation_id: OperationId) -> bool:
        """Whether `sender` was asked for a file under this id, and has not answered."""
        node, _ = self.reads.get(operation_id, ("", 0))
        return node == node_of(sender)

    def _is_asked(self, sender: Address) -> bool:
        """Whether `sender` is the master we talk to, or try to."""
        return sender == (self.leader or self.search.current)

    def _is_leader(self, ctx: Context, sender: Address, message: Message) -> bool:
        """Whether `sender` leads, as far as we know; a former leader's words are not acted on."""
        if sender == self.leader:
            return True
        ctx.warn("stale_sender", sender=sender, kind=type(message).__name__)
        return False
