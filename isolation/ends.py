"""How an agent hears of the ends of its containers: once when they come, then again until it has taken them over.

The agent may die between hearing of an end and keeping it, so only ForgetContainer is its word that it has. A launch
that failed is remembered too: whoever asks for the same again, or kills it, gets the same answer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import TypeVar

from mesos_actor.actors.ids import Address, ContainerId, Principal, local
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import ContainerExited, ContainerFailed
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.answers import OWN_PROCESS

H = TypeVar("H")
EXIT_REPEAT_US = 10_000_000
"""How often exits that were not taken over are told again."""

EXITS_A_REPEAT = 1_000
"""At most so many, the oldest, are told again at once."""

MAX_FAILED = 10_000
"""Failed launches remembered, so that asking again gets the same answer; the oldest is dropped."""


class Ends:
    """One containerizer's way to its agent. `waiting`: the exits that are not taken over, oldest first."""

    def __init__(
        self, outlet: Outlet, waiting: Callable[[], Iterable[ContainerExited]], repeat_us: int = EXIT_REPEAT_US
    ) -> None:
        self._outlet = outlet
        self._waiting = waiting
        self._repeat_us = repeat_us
        self._agent = local("agent")
        self._failed: OrderedDict[ContainerId, ContainerFailed] = OrderedDict()
        self._repeat_is_set = False
        self._held_back = self._closed = False

    def handler_of(
        self, sender: Address, principal: Principal, message: Message, handlers: Mapping[type[Message], H]
    ) -> H | None:
        """Which of these is for an order of the agent, who is told everything from now on. None: it is of somebody
        else, or of no class that is handled, which is logged."""
        handler = handlers.get(type(message))
        if principal != OWN_PROCESS:
            self._outlet.log("not_from_agent", level="warning", sender=sender, principal=principal)
            return None
        if handler is None:
            self._outlet.log("unexpected_message", level="warning", kind=type(message).__name__, sender=sender)
            return None
        self._agent = sender
        return handler

    def tell(self, message: Message) -> None:
        """Say it to the agent, once."""
        self._outlet.send(self._agent, message)

    def tell_end(self, exited: ContainerExited) -> None:
        """Say it now, and again while it is among those that wait."""
        self.tell(exited)
        self.repeat_later()

    def tell_failed(self, container_id: ContainerId, reason: str, text: str) -> None:
        """A launch has failed."""
        self.tell(self.remember(ContainerFailed(container_id, reason, text)))

    def remember(self, failed: ContainerFailed) -> ContainerFailed:
        """The answer to every later question about this container; returns it."""
        self._failed[failed.container_id] = failed
        if len(self._failed) > MAX_FAILED:
            self._failed.popitem(last=False)
        return failed

    def failed(self, container_id: ContainerId) -> ContainerFailed | None:
        """How its launch failed, if it did."""
        return self._failed.get(container_id)

    def forget(self, container_id: ContainerId) -> None:
        """The agent knows that its launch failed."""
        self._failed.pop(container_id, None)

    def hold_back(self, held_back: bool) -> None:
        """While the agent has not said which containers it wants, nothing is told again."""
        self._held_back = held_back

    def repeat_later(self) -> None:
        """Tell again what then waits."""
        if not self._repeat_is_set:
            self._repeat_is_set = True
            self._outlet.call_later(self._repeat_us, self._repeat)

    def _repeat(self) -> None:
        self._repeat_is_set = False
        if self._closed:
            return
        waiting = list(islice(self._waiting(), EXITS_A_REPEAT))
        for exited in waiting if not self._held_back else ():
            self.tell(exited)
        if waiting:
            self.repeat_later()

    def close(self) -> None:
        """Nothing is told again."""
        self._closed = True
