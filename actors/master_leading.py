"""The first part of the master: does it lead, and what does the registry say.

Read next: master_losses.py, master_agents.py, master_frameworks.py, master.py. Each is the class before it with one
more part of the cluster's life; all share the state that stands here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any, ClassVar, TypeVar

from mesos_actor.actors.actor import SECOND_US, Actor, Context, handles
from mesos_actor.actors.core.allocation import Allocator
from mesos_actor.actors.core.consistency import contradictions
from mesos_actor.actors.core.liveness import Liveness
from mesos_actor.actors.core.offers import Offers
from mesos_actor.actors.core.pending import Operation, Pending, Request
from mesos_actor.actors.core.reconcile import Backlog
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.errors import InternalError
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    FrameworkId,
    MasterId,
    OperationId,
    Principal,
    Term,
    address,
    local,
)
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import Leader, WhoLeads
from mesos_actor.actors.messages.registry import (
    CollectRecords,
    Command,
    Committed,
    Following,
    Leading,
    ProposalRefused,
    Propose,
)
from mesos_actor.actors.messages.scheduler import ASK_ELSEWHERE, OTHER_TERM, OperationResult, Refused

REGISTRY = local("registry")
TRUSTED = frozenset({"cluster", "local", "anonymous"})
"""Principals that may be agents and operators: holders of the cluster's key, actors of this process, and everybody
when the cluster runs without keys."""
ASK_REGISTRY_US = SECOND_US
"""How often a master that has not heard from its registry asks it."""
COLLECT_INTERVAL_US = 3_600 * SECOND_US
"""How often old records are forgotten (Mesos: --registry_gc_interval, 15 min)."""
DEFAULT_WEIGHT_MILLI = 1_000
DEPOSED = "This master no longer leads: whether that was written is not known; ask the leader under the same id"

Outcome = Callable[[Any, Context, Operation, Committed], None]
Denial = Callable[[Any, Context, Operation, ProposalRefused], bool]
M = TypeVar("M", bound=Callable[..., object])


def after_commit(*commands: type[Message]) -> Callable[[M], M]:
    """Mark a method `(self, ctx, operation, committed)` as what happens once these commands are safe."""

    def mark(method: M) -> M:
        method.__commits__ = commands  # type: ignore[attr-defined]
        return method

    return mark


def after_refusal(*commands: type[Message]) -> Callable[[M], M]:
    """Mark a method `(self, ctx, operation, refused) -> bool` as what happens when the registry refuses these commands:
    False means that whoever asked must still be told."""

    def mark(method: M) -> M:
        method.__denials__ = commands  # type: ignore[attr-defined]
        return method

    return mark


def on_timer_named(name: str) -> Callable[[M], M]:
    """Mark a method `(self, ctx, rest)` as what the timer `name` or `name:<rest>` does."""

    def mark(method: M) -> M:
        method.__timer__ = name  # type: ignore[attr-defined]
        return method

    return mark


class MasterLeading(Actor):
    """State shared by all parts, the way to and from the registry, and what to say while somebody else leads."""

    outcomes: ClassVar[dict[type[Message], Outcome]] = {}
    denials: ClassVar[dict[type[Message], Denial]] = {}
    timers: ClassVar[dict[str, Callable[[Any, Context, str], None]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.outcomes, cls.denials, cls.timers = dict(cls.outcomes), dict(cls.denials), dict(cls.timers)
        # All the way down: this class marks methods itself, and no hook runs for it.
        for attribute in [attribute for part in reversed(cls.__mro__) for attribute in vars(part).values()]:
            for command in getattr(attribute, "__commits__", ()):
                cls.outcomes[command] = attribute
            for command in getattr(attribute, "__denials__", ()):
                cls.denials[command] = attribute
            if name := getattr(attribute, "__timer__", ""):
                cls.timers[name] = attribute

    def __init__(self, settings: MasterSettings, allocator: Allocator) -> None:
        self.settings = settings
        self.allocator = allocator
        self.leading = False
        self.leader, self.leader_term = Address(""), Term(0)
        self.term = Term(0)
        self.cluster_id = ClusterId("")
        self.master_id = MasterId("")
        self._armed: set[str] = set()
        self._proposals = 0
        self._clear()

    def _clear(self) -> None:
        settings = self.settings
        self.roster = Roster(settings, self.allocator)
        self.offers = Offers(settings.offer_timeout_ms * 1_000)
        self.pending = Pending(settings.max_pending_operations, settings.proposal_deadline_ms * 1_000)
        self.liveness = Liveness(settings.max_missed_pings)
        self.backlog = Backlog()
        #: agents that have not been heard of since this master leads, to be called in this round of `call_rounds`
        self.calls: deque[AgentId] = deque()
        self.call_rounds = 0
        self.recovered_agents = 0
        """Agents that the registry knew when this master began to lead."""
        self.held_removals = 0
        """Of those, how many are not removed although their window has passed: see recovery_removal_limit_permille."""
        self.next_removal_us = 0
        """No agent is marked unreachable before this: see agent_removal_interval_ms."""
        #: (framework, operation) -> who waits for its answer to an Instruction
        self.instructions: dict[tuple[FrameworkId, OperationId], Address] = {}

    # -- leading

    def on_start(self, ctx: Context) -> None:
        ctx.send(REGISTRY, WhoLeads())
        self.arm(ctx, "ask-registry", ASK_REGISTRY_US)

    @on_timer_named("ask-registry")
    def ask_registry(self, ctx: Context, _rest: str) -> None:
        if not self.leading:
            ctx.send(REGISTRY, WhoLeads())
            self.arm(ctx, "ask-registry", ASK_REGISTRY_US)

    def begin_term(self, ctx: Context, message: Leading) -> None:
        """Lead from nothing: what was known before, in an earlier term, is forgotten. Whoever was connected then must
        come again, to us."""
        self._step_down(ctx, address(ctx.node, ctx.name), message.term)
        self.leading, self.term, self.cluster_id = True, message.term, message.cluster_id
        self.master_id = self.offers.master_id = MasterId(f"{ctx.rng.getrandbits(64):016x}")
        self.arm(ctx, "collect", COLLECT_INTERVAL_US)

    @handles(Following)
    def on_following(self, ctx: Context, sender: Address, message: Following) -> None:
        if sender != REGISTRY or ctx.principal != "local":
            return
        if not self.leading and message.leader == self.leader:
            self.leader_term = message.term
            return
        self._step_down(ctx, message.leader, message.term)
        ctx.log("following", term=message.term, leader=message.leader)

    def _step_down(self, ctx: Context, leader: Address, term: Term) -> None:
        """Somebody else leads, or will: tell whoever waits for an answer, and all that are connected, at once."""
        self.leader, self.leader_term = leader, term
        if self.leading:
            for operation in self.pending.all():
                self.answer_refused(ctx, operation, "deposed", DEPOSED)
            text = "This master no longer leads: whether the framework got this is not known"
            for (_, operation_id), asker in self.instructions.items():
                ctx.send(asker, OperationResult(operation_id, False, "unavailable", text))
            refused = Refused("not-leading", "This master no longer leads", leader=leader, term=term)
            for where in (*self.roster.agent_at, *self.roster.framework_at):
                ctx.send(where, refused)
        self._forget(ctx)

    def _forget(self, ctx: Context) -> None:
        """Forget everything, the allocator's part too: registry and agents tell it again to whoever leads next. No
        timer of this term goes off in another one."""
        for name in sorted(self._armed - {"ask-registry"}):
            ctx.cancel_timer(name)
            self._armed.discard(name)
        for agent in self.roster.agents.values():
            if agent.registered:
                self.allocator.remove_agent(agent.agent_id)
        for framework in self.roster.frameworks:
            self.allocator.remove_framework(framework)
        for role in self.roster.weights:
            self.allocator.set_weight(role, DEFAULT_WEIGHT_MILLI)
        self.leading = False
        self._clear()

    # -- messages and timers

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        handler = self.handlers.get(type(message))
        if handler is None:
            ctx.warn("unexpected_message", kind=type(message).__name__, sender=sender)
        elif self.leading or type(message) in (Leading, Following, WhoLeads):
            handler(self, ctx, sender, message)
        elif sender != REGISTRY:
            self.refuse(ctx, sender, message, "not-leading", "This master does not lead")

    @handles(WhoLeads)
    def on_who_leads(self, ctx: Context, sender: Address, message: WhoLeads) -> None:
        ctx.send(sender, Leader(self.leader, message.operation_id))

    def on_timer(self, ctx: Context, name: str) -> None:
        self._armed.discard(name)
        kind, _, rest = name.partition(":")
        if self.leading or kind == "ask-registry":
            self.timers[kind](self, ctx, rest)

    def arm(self, ctx: Context, name: str, delay_us: int) -> None:
        """Set a timer unless it is set already: the earlier deadline stands."""
        if name not in self._armed:
            self._armed.add(name)
            ctx.set_timer(name, delay_us)

    def refuse(self, ctx: Context, to: Address, about: Message, reason: str, text: str, fatal: bool = False) -> None:
        """Say why a message was not acted on."""
        elsewhere = reason in ASK_ELSEWHERE or reason == OTHER_TERM
        leader, term = (self.leader, self.leader_term) if elsewhere else (Address(""), Term(0))
        operation_id = getattr(about, "operation_id", OperationId(""))
        ctx.send(to, Refused(reason, text, fatal, leader, operation_id, type(about).__name__, term))

    def is_operator(self, ctx: Context, sender: Address, message: Message) -> bool:
        """Whether the sender holds the cluster's key; otherwise it is told that it must."""
        if ctx.principal in TRUSTED:
            return True
        text = f"{type(message).__name__} needs the cluster's key; '{ctx.principal}' holds another"
        ctx.warn("unauthorized", sender=sender, principal=ctx.principal, about=type(message).__name__)
        self.refuse(ctx, sender, message, "unauthorized", text, fatal=True)
        return False

    # -- to the registry and back

    def propose(
        self, ctx: Context, subject: Hashable, command: Command, request: Request | None = None, request_id: str = ""
    ) -> bool:
        """Ask the registry to make `command` part of the state, unless something about `subject` is on its way
        already: then `request` joins that. False when the table is full: the requester is told; others try later."""
        operation = self.pending.about(subject)
        if operation is None:
            self._proposals += 1
            operation_id = OperationId(f"{self.master_id}-P{self._proposals}")
            operation = self.pending.open(subject, operation_id, command, ctx.now_us)
            if operation is None:
                if request is not None:
                    text = f"{len(self.pending)} operations wait for the registry, the most that may; ask again"
                    self.refuse(ctx, request.sender, request.message, "full", text)
                return False
            operation.request_id = request_id
            ctx.send(REGISTRY, Propose(operation_id, self.term, command, request_id))
            self.arm(ctx, "proposals", self.pending.deadline_us)
        if request is not None:
            self.pending.join(operation, request)
        return True

    @handles(Committed)
    def on_committed(self, ctx: Context, sender: Address, message: Committed) -> None:
        if sender != REGISTRY or ctx.principal != "local":
            return
        for key in message.removed:
            kind, _, name = key.partition("/")
            if kind == "agent":
                self.roster.absent.pop(name, None)  # type: ignore[call-overload]
            elif kind == "framework":
                self.roster.removed.pop(name, None)  # type: ignore[call-overload]
        operation = self.pending.close(message.operation_id)
        if operation is not None:
            self.outcomes[type(operation.command)](self, ctx, operation, message)

    @handles(ProposalRefused)
    def on_proposal_refused(self, ctx: Context, sender: Address, message: ProposalRefused) -> None:
        """Reasons that the command's own part does not know are passed on to whoever asked. About a proposal of an
        earlier term nobody waits, and what is said of that term says nothing of this one."""
        if sender != REGISTRY or ctx.principal != "local":
            return
        operation = self.pending.close(message.operation_id)
        if operation is None:
            return
        if message.reason in ("not-leading", "stale-term"):
            self._step_down(ctx, message.leader, Term(0))
            ctx.warn("deposed", reason=message.reason, text=message.text)
            self.arm(ctx, "ask-registry", ASK_REGISTRY_US)
        ctx.warn("proposal_refused", command=type(operation.command).__name__, reason=message.reason, text=message.text)
        denial = self.denials.get(type(operation.command))
        if denial is None or not denial(self, ctx, operation, message):
            self.answer_refused(ctx, operation, message.reason, message.text)

    def answer_refused(self, ctx: Context, operation: Operation, reason: str, text: str) -> None:
        """Tell everybody who waits why it did not happen."""
        reason = {"storage": "unavailable", "stale-term": "not-leading"}.get(reason, reason)
        for request in operation.requests:
            self.refuse(ctx, request.sender, request.message, reason, text)

    def answer_done(self, ctx: Context, operation: Operation) -> None:
        """Tell everybody who waits and gave the operation an id that it happened."""
        for request in operation.requests:
            operation_id = getattr(request.message, "operation_id", OperationId(""))
            if operation_id:
                ctx.send(request.sender, OperationResult(operation_id, ok=True))

    @on_timer_named("proposals")
    def on_unknown(self, ctx: Context, _rest: str) -> None:
        """Past the deadline: whoever waits is told that the outcome is not known, and the registry is asked again
        under the same id, which makes the repeat harmless."""
        for operation in self.pending.overdue(ctx.now_us):
            text = f"The registry did not answer within {self.settings.proposal_deadline_ms} ms: the outcome is unknown"
            self.answer_refused(ctx, operation, "unavailable", text)
            self.pending.dismiss(operation)
            ctx.send(REGISTRY, Propose(operation.operation_id, self.term, operation.command, operation.request_id))
            ctx.warn("proposal_unknown", command=type(operation.command).__name__)
        deadline_us = self.pending.next_deadline_us()
        if deadline_us is not None:
            self.arm(ctx, "proposals", max(0, deadline_us - ctx.now_us))

    @on_timer_named("collect")
    def collect(self, ctx: Context, _rest: str) -> None:
        before_us = ctx.now_us - self.settings.registry_max_age_ms * 1_000
        self.propose(ctx, "collect", CollectRecords(before_us))
        self.arm(ctx, "collect", COLLECT_INTERVAL_US)

    @after_commit(CollectRecords)
    def collected(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        if committed.removed:
            ctx.log("records_collected", count=len(committed.removed))

    # -- for tests and simulations

    def check(self) -> None:
        """Compare the tables with each other. Raises InternalError with every contradiction."""
        found = contradictions(self.roster, self.offers)
        if found:
            raise InternalError("; ".join(found))
        check_allocator = getattr(self.allocator, "check", None)
        if check_allocator is not None:
            check_allocator()


def request_of(ctx: Context, sender: Address, message: Message) -> Request:
    """The message as something that can wait."""
    return Request(sender, Principal(ctx.principal), message)
