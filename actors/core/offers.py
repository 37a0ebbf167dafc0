"""Outstanding offers: each is issued once and leaves once.

Rule 1: an offer leaves by `take` (accepted, declined, expired) or `void` (rescinded), never twice, and whoever takes it
answers for its resources. Rule 2: nothing here knows the allocator. Source: Mesos docs/offers, mesos-semantics 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.ids import AgentId, ExecutorId, FrameworkId, MasterId, OfferId, offer_id
from mesos_actor.actors.messages.values import AgentInfo, Offer

MAX_VOIDED = 10_000
"""Rescinded offers remembered with their reason, so that a late accept is told why; the oldest is forgotten."""


class Outstanding(msgspec.Struct, frozen=True):
    """An offer, whose it is and when it lapses."""

    offer: Offer
    framework_id: FrameworkId
    expires_us: int


class Offers:
    """All offers that somebody may still accept, oldest first."""

    def __init__(self, timeout_us: int) -> None:
        self.timeout_us = timeout_us
        self.master_id = MasterId("")
        self._number = 0
        self._all: dict[OfferId, Outstanding] = {}
        self._of_framework: dict[FrameworkId, dict[OfferId, None]] = {}
        self._of_agent: dict[AgentId, dict[OfferId, None]] = {}
        self._voided: dict[OfferId, str] = {}

    def __len__(self) -> int:
        return len(self._all)

    def issue(self, allocation: Allocation, agent: AgentInfo, executors: tuple[ExecutorId, ...], now_us: int) -> Offer:
        """A new offer of what was allocated."""
        number = self._number
        self._number = number + 1
        new = Offer(
            offer_id(self.master_id, number),
            allocation.agent_id,
            agent.hostname,
            allocation.role,
            allocation.resources,
            agent.attributes,
            executors,
            agent.address,
            agent.isolation,
        )
        self._all[new.offer_id] = Outstanding(new, allocation.framework_id, now_us + self.timeout_us)
        self._of_framework.setdefault(allocation.framework_id, {})[new.offer_id] = None
        self._of_agent.setdefault(allocation.agent_id, {})[new.offer_id] = None
        return new

    def get(self, offer: OfferId) -> Outstanding | None:
        return self._all.get(offer)

    def take(self, offer: OfferId) -> Outstanding | None:
        """The offer, which is no longer outstanding; None when it was not."""
        found = self._all.pop(offer, None)
        if found is None:
            return None
        for index, owner in ((self._of_framework, found.framework_id), (self._of_agent, found.offer.agent_id)):
            mine = index[owner]  # type: ignore[index]
            del mine[offer]
            if not mine:
                del index[owner]  # type: ignore[arg-type]
        return found

    def void(self, offers: Sequence[OfferId], reason: str) -> list[Outstanding]:
        """Take these away for a reason of ours, and remember it."""
        gone = []
        for offer in offers:
            found = self.take(offer)
            if found is not None:
                gone.append(found)
                self._voided[offer] = reason
        while len(self._voided) > MAX_VOIDED:
            del self._voided[next(iter(self._voided))]
        return gone

    def void_reason(self, offer: OfferId) -> str:
        """Why it was rescinded; empty when it was not, or too long ago."""
        return self._voided.get(offer, "")

    def of_framework(self, framework: FrameworkId) -> list[OfferId]:
        return list(self._of_framework.get(framework, ()))

    def of_agent(self, agent: AgentId) -> list[OfferId]:
        return list(self._of_agent.get(agent, ()))

    def expired(self, now_us: int) -> list[OfferId]:
        """Those nobody answered in time."""
        late = []
        for offer, outstanding in self._all.items():
            if outstanding.expires_us > now_us:
                break
            late.append(offer)
        return late

    def next_expiry_us(self) -> int | None:
        """When the oldest lapses; None when there is none."""
        return next((outstanding.expires_us for outstanding in self._all.values()), None)

    def all(self) -> Iterable[Outstanding]:
        """Every one, oldest first."""
        return self._all.values()

    def after(self, number: int, at_most: int) -> list[Outstanding]:
        """The offers whose number is higher, oldest first."""
        found = []
        for key, outstanding in self._all.items():
            if int(key.rpartition("-O")[2]) > number:
                found.append(outstanding)
                if len(found) >= at_most:
                    break
        return found
