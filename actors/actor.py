"""What an actor is, and all it may touch.

The one rule: an actor never touches the world. It gets a message, a timer or the news of a lost link, changes its own
state, and asks for effects. The runtime carries the effects out after the handler has returned, so a handler that
raises has no effect at all, and a unit test is three lines: make a Context, call the handler, compare `ctx.effects`.

The order of two lines is the durability contract: **a Send leaves only after the sync of every Persist that the same
actor asked for before it**, in this handler or an earlier one (after etcd's Ready, raft/node.go: "saved to stable
storage BEFORE Messages are sent").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, TypeVar

import msgspec

from mesos_actor.actors.ids import Address, Node, Principal
from mesos_actor.actors.messages.base import Message, Record

SECOND_US = 1_000_000
"""Microseconds in a second: every time inside an actor is a whole number of microseconds."""


class Send(msgspec.Struct, frozen=True, gc=False):
    """Give `message` to the mailbox `to`, at most once; it may be lost on the way to another process."""

    to: Address
    message: Message


class SetTimer(msgspec.Struct, frozen=True, gc=False):
    """Call `on_timer(name)` after `delay_us`. Setting a name again replaces its former deadline."""

    name: str
    delay_us: int


class CancelTimer(msgspec.Struct, frozen=True, gc=False):
    """Forget the timer `name`; nothing happens when there is none."""

    name: str


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Keep `record` under `key` in this actor's durable store, or forget the key when `record` is None."""

    key: str
    record: Record | None


class Stop(msgspec.Struct, frozen=True, gc=False):
    """End this actor normally, once everything before it is carried out. `reason` goes to the log."""

    reason: str = ""


class Log(msgspec.Struct, frozen=True, gc=False):
    """One structured log line: a constant event name, a level and its fields (`task`, `agent`, `offer`, ...)."""

    event: str
    level: str
    fields: dict[str, Any]


class Watch(msgspec.Struct, frozen=True, gc=False):
    """Open a link to `node` if there is none, so that `on_link_lost` tells of its end even if nothing is ever sent."""

    node: Node


Effect = Send | SetTimer | CancelTimer | Persist | Stop | Log | Watch


class Context:
    """All an actor may touch: its names, its clock, its random numbers, what survived, and its effects.

    `now_us` is this host's wall clock in microseconds since 1970, which never goes back within one incarnation: it is
    read once at start and then advanced by the monotonic clock. `principal` says who sent the message being handled,
    as the link authenticated it (`local` inside one process). `cause` names what set the present handler off; every
    message sent carries it on. `recovered` holds the records that the former incarnations kept, by key.
    """

    __slots__ = ("cause", "effects", "name", "node", "now_us", "principal", "recovered", "rng", "sometimes")

    def __init__(
        self,
        name: str,
        node: Node,
        now_us: int,
        rng: random.Random,
        recovered: Mapping[str, Record] | None = None,
        sometimes: Callable[[str], bool] | None = None,
    ) -> None:
        self.name = name
        self.node = node
        self.now_us = now_us
        self.rng = rng
        self.recovered: Mapping[str, Record] = recovered or {}
        self.principal = Principal("local")
        self.cause = ""
        self.effects: list[Effect] = []
        #: A rare branch asked for by name: always False in production, drawn by the plan in a simulation. Whatever it
        #: leads to must be allowed: a race that is seldom, a repeat, a wait.
        self.sometimes: Callable[[str], bool] = sometimes or _never

    def send(self, to: Address, message: Message) -> None:
        self.effects.append(Send(to, message))

    def set_timer(self, name: str, delay_us: int) -> None:
        self.effects.append(SetTimer(name, delay_us))

    def cancel_timer(self, name: str) -> None:
        self.effects.append(CancelTimer(name))

    def persist(self, key: str, record: Record | None) -> None:
        self.effects.append(Persist(key, record))

    def stop(self, reason: str = "") -> None:
        self.effects.append(Stop(reason))

    def watch(self, node: Node) -> None:
        self.effects.append(Watch(node))

    def log(self, event: str, **fields: Any) -> None:
        self.effects.append(Log(event, "info", fields))

    def warn(self, event: str, **fields: Any) -> None:
        self.effects.append(Log(event, "warning", fields))

    def sent(self) -> list[tuple[Address, Message]]:
        """The messages asked for so far, in order: what most unit tests look at."""
        return [(e.to, e.message) for e in self.effects if isinstance(e, Send)]


def _never(_site: str) -> bool:
    return False


class ActorLike(Protocol):
    """What a runtime, real or simulated, needs of an actor."""

    def on_start(self, ctx: Context) -> None: ...
    def on_message(self, ctx: Context, sender: Address, message: Message) -> None: ...
    def on_timer(self, ctx: Context, name: str) -> None: ...
    def on_link_lost(self, ctx: Context, node: Node) -> None: ...
    def on_stop(self, ctx: Context) -> None: ...


Handler = Callable[[Any, Context, Address, Any], None]
H = TypeVar("H", bound=Handler)


def handles(*kinds: type[Message]) -> Callable[[H], H]:
    """Mark a method `(self, ctx, sender, message)` as the handler of these message classes."""

    def mark(method: H) -> H:
        method.__handles__ = kinds  # type: ignore[attr-defined]
        return method

    return mark


class Actor:
    """An actor whose handlers are found by the class of the message; every callback may be overridden.

    `on_start` runs once an incarnation, before any message. `on_stop` runs at a graceful stop only. A message without
    a handler is logged and dropped: a peer's mistake never brings an actor down.
    """

    handlers: ClassVar[dict[type[Message], Handler]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.handlers = dict(cls.handlers)
        for attribute in vars(cls).values():
            for kind in getattr(attribute, "__handles__", ()):
                cls.handlers[kind] = attribute

    def on_start(self, ctx: Context) -> None:
        """Called first, with what survived in `ctx.recovered`."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        handler = self.handlers.get(type(message))
        if handler is None:
            ctx.warn("unexpected_message", kind=type(message).__name__, sender=sender)
        else:
            handler(self, ctx, sender, message)

    def on_timer(self, ctx: Context, name: str) -> None:
        """A timer set by this incarnation has run out."""

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        """The link with `node` ended, or the process behind it was restarted: what was on its way may be lost."""

    def on_stop(self, ctx: Context) -> None:
        """The process is asked to end; effects asked for here are still carried out, within the drain bound."""
