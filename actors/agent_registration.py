"""How an agent finds the leading master, registers, and notices that it must do so again.

Source: Mesos src/slave/slave.cpp `doReliableRegistration`, `registered`, `ping`, `pingTimeout`.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mesos_actor.actors.actor import Context
from mesos_actor.actors.core.leader_search import LeaderSearch
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import UpdateStreams
from mesos_actor.actors.ids import Address, AgentId, FrameworkId, Node, Principal, Term, node_of
from mesos_actor.actors.messages.agents import Ping, Pong, RegisterAgent, Registered
from mesos_actor.actors.messages.records import AgentIdentityRecord
from mesos_actor.actors.messages.scheduler import ASK_ELSEWHERE, OTHER_TERM, Refused

IDENTITY_KEY = "identity"
REGISTER_TIMER = "register"
PING_TIMER = "ping"

MASTER_PRINCIPALS = frozenset({Principal("cluster"), Principal("local"), Principal("anonymous")})
"""Who may speak as a master: a holder of the cluster key, an actor of the same process, and anybody when the cluster
runs without keys."""

UNKNOWN_TERM = Term(0)
_MIN_PING_TIMEOUT_MS = 100
"""A master that asks to be missed sooner than this is not obeyed."""


class Registration:
    """Who the agent is, who its master is, and whether it takes part now (`connected`)."""

    def __init__(
        self,
        settings: AgentSettings,
        streams: UpdateStreams,
        describe: Callable[[Context, Registration], RegisterAgent],
    ) -> None:
        self.identity = AgentIdentityRecord("")
        #: The newest term seen; orders of an older one are refused.
        self.term = Term(0)
        self.master = Address("")
        self.connected = False
        self.seeking = False
        self._settings = settings
        self._streams = streams
        self._describe = describe
        self._search = LeaderSearch(settings.masters)
        self._asked = False
        #: Of the newest RegisterAgent. Until that is answered nothing that it said of us may change: see on_registered.
        self._attempt = 0
        self._backoff_us = settings.registration_backoff_ms * 1_000
        self._ping_timeout_us = 0

    @property
    def agent_id(self) -> AgentId:
        return self.identity.agent_id

    def load(self, ctx: Context, identity: AgentIdentityRecord | None) -> None:
        """Be who the record says, or, without one, mint a registration and keep it before anybody hears of it."""
        if identity is None:
            identity = AgentIdentityRecord(f"{ctx.rng.getrandbits(128):032x}")
            ctx.persist(IDENTITY_KEY, identity)
        self.identity = identity
        self.term = identity.term

    def obeys(self, ctx: Context, sender: Address, term: Term | None = None) -> bool:
        """Whether an order of `sender` counts: it is the master this agent has registered with, and the order's term
        is not older than one seen before. Others are logged."""
        if sender != self.master or ctx.principal not in MASTER_PRINCIPALS:
            ctx.warn("not_from_master", sender=sender, principal=ctx.principal, master=self.master)
            return False
        if term is not None:
            if term < self.term:
                ctx.warn("stale_term", sender=sender, term=term, newest_term=self.term)
                return False
            self.term = term
        return True

    def answers(self, ctx: Context, sender: Address) -> bool:
        """Whether `sender` is our master, or may be one that we asked to register with. Others are logged."""
        if ctx.principal in MASTER_PRINCIPALS and (self._asked or sender == self.master):
            return True
        ctx.warn("not_from_master", sender=sender, principal=ctx.principal, master=self.master)
        return False

    def stale(self, ctx: Context, term: Term) -> bool:
        """Whether this comes from a master, but of an older term than one seen before."""
        return term < self.term and ctx.principal in MASTER_PRINCIPALS

    def seek(self, ctx: Context, at_once: bool) -> None:
        """Look for the leader: now, or after a random part of the first back-off, lest 10,000 agents come at once."""
        self.connected = False
        self.seeking = True
        self._streams.pause()
        self._asked = False
        self._backoff_us = self._settings.registration_backoff_ms * 1_000
        ctx.cancel_timer(PING_TIMER)
        if at_once:
            self._ask(ctx)
        else:
            ctx.set_timer(REGISTER_TIMER, ctx.rng.randrange(self._backoff_us + 1))

    def _ask(self, ctx: Context, term: Term = UNKNOWN_TERM) -> None:
        """Ask the current candidate, as the leader of `term` if that is news. From then on no older one is believed:
        what we tell it must stay true until it has heard it, however late that is."""
        self._asked = True
        self.term = max(self.term, term)
        self._attempt = ctx.rng.getrandbits(53)
        described = self._describe(ctx, self)
        ctx.send(self._search.current, msgspec.structs.replace(described, attempt=self._attempt, term=self.term))
        ctx.set_timer(REGISTER_TIMER, ctx.rng.randrange(self._backoff_us // 2, self._backoff_us + 1))
        self._backoff_us = min(self._backoff_us * 2, self._settings.registration_backoff_max_ms * 1_000)

    def on_register_timer(self, ctx: Context) -> None:
        """Nobody answered: the next master, with a longer pause."""
        if self.connected or not self.seeking:
            return
        if self._asked:
            self._search.advance()
        self._ask(ctx)

    def on_registered(self, ctx: Context, sender: Address, message: Registered) -> bool:
        """Take part under the id given, which is kept before anything depends on it. False: not a valid answer.

        Nor is one to an earlier attempt than the last: the later one is still on its way, and by it the master will
        believe of us what was true when it was sent. A task whose end is acknowledged in between, and which we forget,
        would be going on for the master for ever."""
        if not self.answers(ctx, sender):
            return False
        if message.attempt != self._attempt:
            ctx.log("registered_late", sender=sender, term=message.term)
            if self._asked and sender == self._search.current:
                ctx.set_timer(REGISTER_TIMER, self._backoff_us)  # it is slow, and the last question is on its way
            return False
        known = self.identity
        if known.agent_id and (known.agent_id, known.cluster_id) != (message.agent_id, message.cluster_id):
            text = (
                f"the master takes this agent for {message.agent_id} of cluster {message.cluster_id}, but its work "
                f"directory belongs to {known.agent_id} of cluster {known.cluster_id}: use another work directory"
            )
            self.give_up(ctx, text)
            return False
        if message.term < self.term or not message.agent_id:
            ctx.warn("registered_ignored", sender=sender, term=message.term, newest_term=self.term)
            return False
        self.term = message.term
        identity = AgentIdentityRecord(known.registration, message.agent_id, message.cluster_id, message.term)
        if identity != known:
            self.identity = identity
            ctx.persist(IDENTITY_KEY, identity)
        self.master = self._search.current = sender
        self._search.found()
        self.connected, self.seeking, self._asked = True, False, False
        self._ping_timeout_us = max(message.ping_timeout_ms, _MIN_PING_TIMEOUT_MS) * 1_000
        ctx.cancel_timer(REGISTER_TIMER)
        ctx.set_timer(PING_TIMER, self._ping_timeout_us)
        ctx.watch(node_of(sender))
        ctx.log("registered", agent=message.agent_id, master=sender, term=message.term)
        return True

    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        """Go to the leader that was named; give up when this agent may never take part; else try again later."""
        if not self.answers(ctx, sender):
            return
        if message.fatal or message.reason == "unauthorized":
            self.give_up(ctx, message.text or message.reason)
        elif message.reason == OTHER_TERM:
            self._on_other_term(ctx, sender, message.term)
        elif message.reason in ASK_ELSEWHERE:
            if self.connected:
                self.seek(ctx, at_once=False)
            if self._asks(message.leader, message.term):
                return  # already: the master that we left refuses each of our messages
            outdated = 0 < message.term < self.term
            if self.seeking and not outdated and self._search.follow(message.leader):
                self._backoff_us = self._settings.registration_backoff_ms * 1_000
                self._ask(ctx, message.term)
            elif self.seeking:
                self._backoff_us = self._settings.registration_backoff_ms * 1_000
                ctx.set_timer(REGISTER_TIMER, self._search.retry_us(ctx.rng))
        else:
            ctx.warn("refused", sender=sender, reason=message.reason, text=message.text, about=message.about)

    def _on_other_term(self, ctx: Context, sender: Address, term: Term) -> None:
        """The master that we ask leads, in another term than we thought. Its answer is not a hint that may be passed
        over: it is there, by this name, whatever it calls itself."""
        if self.connected or not self._asked:
            return  # of a question of long ago
        if term > self.term:
            self._search.current = sender
            self._ask(ctx, term)
        elif term < self.term:
            text = "it leads in an older term than this agent has heard of: another one leads, or its disk was put back"
            ctx.warn("master_of_the_past", sender=sender, term=term, newest_term=self.term, text=text)

    def on_ping(self, ctx: Context, sender: Address, message: Ping, serving: tuple[FrameworkId, ...] = ()) -> None:
        """Say that we live, and whom we serve. A master that does not know us, or a newer one, is registered with at
        once."""
        if ctx.principal not in MASTER_PRINCIPALS or message.term < self.term:
            ctx.warn("ping_ignored", sender=sender, principal=ctx.principal, term=message.term, newest_term=self.term)
            return
        self._search.heard(sender)
        if not self.agent_id:
            return
        ctx.send(sender, Pong(self.agent_id, serving))
        if self.connected and sender == self.master and message.connected:
            self.term = message.term
            ctx.set_timer(PING_TIMER, self._ping_timeout_us)
            if ctx.sometimes("agent-registers-again"):
                self.seek(ctx, at_once=True)
        elif not message.connected and (self.connected or self.seeking) and not self._asks(sender, message.term):
            if self.connected:
                self.seek(ctx, at_once=False)
            if self._search.follow(sender):
                self._ask(ctx, message.term)

    def _asks(self, leader: Address, term: Term) -> bool:
        """Whether that is whom we ask, as the leader of that term or a newer one."""
        return self._asked and self._search.current == leader and term <= self.term

    def on_ping_timer(self, ctx: Context) -> None:
        """The master has been silent for too long: look for the leader again."""
        if self.connected:
            ctx.warn("master_silent", master=self.master)
            self.seek(ctx, at_once=True)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        """The link to the master broke, or its process was restarted: register again. One that is being asked will not
        answer: the next one is, when its time is over."""
        if self.connected and node == node_of(self.master):
            ctx.warn("master_lost", master=self.master)
            self._search.lost()
            self._search.advance()
            self.seek(ctx, at_once=False)
        elif self._asked and node == node_of(self._search.current):
            self._search.lost()

    def leave(self, ctx: Context) -> None:
        """Take part no longer, and obey nobody."""
        self.connected = self.seeking = self._asked = False
        self.master = Address("")
        self._streams.pause()
        ctx.cancel_timer(REGISTER_TIMER)
        ctx.cancel_timer(PING_TIMER)

    def give_up(self, ctx: Context, text: str) -> None:
        """This agent may not take part: say why and end the process."""
        self.leave(ctx)
        ctx.warn("agent_refused", text=text)
        ctx.stop(text)
