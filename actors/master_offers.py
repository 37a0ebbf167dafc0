"""The fifth part of the master: what is offered, and what frameworks say to offers short of accepting them.

An event (resources came free, a framework revived) allocates in the same turn; the batch run is only for filters that
ran out. Source: Mesos src/master/master.cpp `offer`, `decline`, `revive`; mesos-semantics 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.actor import Context, handles
from mesos_actor.actors.core import validation
from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.entries import FrameworkEntry
from mesos_actor.actors.ids import Address, FrameworkId, OfferId
from mesos_actor.actors.master_frameworks import MasterFrameworks
from mesos_actor.actors.master_leading import on_timer_named
from mesos_actor.actors.messages.scheduler import (
    Decline,
    Offers,
    OperationResult,
    RequestDemand,
    Revive,
    Suppress,
)
from mesos_actor.actors.messages.values import DEFAULT_REFUSE_MS, Offer

MAX_OFFERS_PER_MESSAGE = 500
"""More offers for one framework travel in several messages."""
MIN_FILTER_WAIT_US = 1_000
"""Filters that run out within this are handled together."""


class MasterOffers(MasterFrameworks):
    """Offers: allocated, sent, expired, declined; suppressed, revived, demanded."""

    _filters_us = 0
    """When the timer `filters` goes off, while it is set."""

    @on_timer_named("allocate")
    def allocate(self, ctx: Context, _rest: str) -> None:
        """Something changed in the turn before: offer what can be offered now."""
        self.roster.flush()
        self._offer(ctx, self.allocator.allocate(ctx.now_us, ctx.rng))

    @on_timer_named("batch")
    def allocate_all(self, ctx: Context, _rest: str) -> None:
        """For filters that ran out, which is no event."""
        self.arm(ctx, "batch", self.settings.allocation_interval_ms * 1_000)
        self.roster.flush()
        self._offer(ctx, self.allocator.allocate_all(ctx.now_us, ctx.rng))

    def _offer(self, ctx: Context, allocations: list[Allocation]) -> None:
        new: dict[FrameworkId, list[Offer]] = {}
        for allocation in allocations:
            framework = self.roster.frameworks.get(allocation.framework_id)
            agent = self.roster.agents.get(allocation.agent_id)
            if framework is None or agent is None or not (framework.connected and agent.connected):
                self.allocator.recover(
                    allocation.framework_id, allocation.agent_id, allocation.role, allocation.resources
                )
                continue
            executors = tuple(agent.executors.get(allocation.framework_id, ()))
            offer = self.offers.issue(allocation, agent.info, executors, ctx.now_us)
            new.setdefault(allocation.framework_id, []).append(offer)
        for framework_id, offers in new.items():
            where = self.roster.frameworks[framework_id].address
            for at in range(0, len(offers), MAX_OFFERS_PER_MESSAGE):
                ctx.send(where, Offers(tuple(offers[at : at + MAX_OFFERS_PER_MESSAGE])))
        if new:
            self.arm(ctx, "offers", self.offers.timeout_us)
            if ctx.sometimes("offers-rescinded-at-once"):
                self.rescind(ctx, [offer.offer_id for offers in new.values() for offer in offers], "timed-out")
                self.want_allocation(ctx)
        self._watch_filters(ctx)

    def _watch_filters(self, ctx: Context) -> None:
        """A filter that runs out is no message: be there when the first one does."""
        next_us = self.allocator.next_expiry_us()
        if next_us is None or ("filters" in self._armed and self._filters_us <= next_us):
            return
        self._armed.add("filters")
        self._filters_us = next_us
        ctx.set_timer("filters", max(MIN_FILTER_WAIT_US, next_us - ctx.now_us))

    @on_timer_named("filters")
    def filter_ran_out(self, ctx: Context, _rest: str) -> None:
        self.want_allocation(ctx)

    @on_timer_named("offers")
    def expire_offers(self, ctx: Context, _rest: str) -> None:
        """Offers nobody answered come back; who was silent is not offered the same again at once."""
        expired = self.offers.expired(ctx.now_us)
        until_us = ctx.now_us + DEFAULT_REFUSE_MS * 1_000
        if expired:
            self.rescind(ctx, expired, "timed-out", until_us)
            self.want_allocation(ctx)
        next_us = self.offers.next_expiry_us()
        if next_us is not None:
            self.arm(ctx, "offers", max(0, next_us - ctx.now_us))

    @handles(Decline)
    def on_decline(self, ctx: Context, sender: Address, message: Decline) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is not None:
            self._give_back(ctx, framework, message.offer_ids, validation.refuse_us(message.filters), message.text)

    def _give_back(
        self, ctx: Context, framework: FrameworkEntry, offer_ids: Sequence[OfferId], refuse_us: int = 0, why: str = ""
    ) -> None:
        """The framework's own among these offers, whole."""
        until_us = ctx.now_us + refuse_us if refuse_us else 0
        for offer_id in offer_ids:
            outstanding = self.offers.get(offer_id)
            if outstanding is not None and outstanding.framework_id == framework.framework_id:
                offer = outstanding.offer
                self.offers.take(offer.offer_id)
                framework.declined(offer.agent_id, why)
                self.allocator.recover(framework.framework_id, offer.agent_id, offer.role, offer.resources, until_us)
                self.want_allocation(ctx)

    @handles(Revive)
    def on_revive(self, ctx: Context, sender: Address, message: Revive) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None or self._has_bad_roles(ctx, sender, message, framework):
            return
        revived = message.roles or framework.info.roles
        framework.suppressed = tuple(role for role in framework.suppressed if role not in revived)
        self.allocator.revive(framework.framework_id, message.roles)
        self.want_allocation(ctx)
        self._confirm(ctx, sender, message)

    @handles(Suppress)
    def on_suppress(self, ctx: Context, sender: Address, message: Suppress) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None or self._has_bad_roles(ctx, sender, message, framework):
            return
        framework.suppressed = tuple(dict.fromkeys((*framework.suppressed, *(message.roles or framework.info.roles))))
        self.allocator.suppress(framework.framework_id, message.roles)
        self.want_allocation(ctx)
        self._confirm(ctx, sender, message)

    def _has_bad_roles(
        self, ctx: Context, sender: Address, message: Revive | Suppress, framework: FrameworkEntry
    ) -> bool:
        problem = validation.roles_error(message.roles, framework.info)
        if problem:
            self.refuse(ctx, sender, message, "invalid", problem)
        return problem is not None

    @handles(RequestDemand)
    def on_request_demand(self, ctx: Context, sender: Address, message: RequestDemand) -> None:
        framework = self.subscribed(ctx, sender, message)
        if framework is None:
            return
        if problem := validation.demands_error(message.demands, framework.info):
            self.refuse(ctx, sender, message, "invalid", problem)
            return
        self.allocator.set_demand(framework.framework_id, message.demands)
        self.want_allocation(ctx)
        self._confirm(ctx, sender, message)

    def _confirm(self, ctx: Context, sender: Address, message: Revive | Suppress | RequestDemand) -> None:
        if message.operation_id:
            ctx.send(sender, OperationResult(message.operation_id, ok=True))
