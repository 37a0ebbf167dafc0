"""What `Framework` and `Executor` share: an author's object, called back one event at a time.

Acting is legal only inside a callback, because only there the effects of one event are collected and carried out
together, or, when the callback raises, not at all. Other threads and coroutines hand a value to `post`; it comes back
as `on_posted`, in the callbacks' own thread. The same objects run on a real cluster and in the simulator, so nothing
here knows a clock, a thread or a socket; what the surrounding world adds comes through a `Host`.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, Self

from mesos_actor.actors.actor import SECOND_US, Actor, Context
from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.ids import Address, Node
from mesos_actor.actors.messages.base import Message

MAX_POSTED = 100_000
"""Posted values that may wait; `post` raises LocalError past it, because dropping one silently would be a lie."""

POSTED_A_TURN = 64
"""Posted values handled before the loop may look at its sockets again."""

MAX_DELAY_S = 100 * 365 * 86_400.0
"""The longest timer of an author; a longer one, or infinity, is taken for a mistake."""

AUTHORS_TIMER = "user/"
"""Prefix of the author's timers, so that they never meet the driver's own."""

_POSTED_TIMER = "posted"


class Host(Protocol):
    """What the world around adds: a process measures, checks threads and wakes its loop; a simulation need not."""

    def call(self, name: str, callback: Callable[[], None]) -> None:
        """Run one callback of the author, called `name`, and let its exception through."""

    def acting_here(self) -> bool:
        """Whether the caller stands in the thread that runs the callbacks."""
        ...

    def wake(self) -> None:
        """Values were posted: have the driver handle any event soon. Called from any thread."""


class QuietHost:
    """The host of a test or a simulation: nothing is measured; what was posted waits for the actor's next event."""

    def call(self, name: str, callback: Callable[[], None]) -> None:
        callback()

    def acting_here(self) -> bool:
        return True

    def wake(self) -> None:
        return


class StopRequest(NamedTuple):
    """Posted by the surroundings, not by authors: end the run as `stop` would."""

    failover: bool = False


class Callbacks:
    """Base of what authors subclass. `__new__` makes the attributes: forgetting `super().__init__()` is harmless."""

    _driver: CallbackActor | None
    _host: Host
    _posted: deque[Any]
    _over: bool

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        author = super().__new__(cls)
        author._driver = None
        author._host = QuietHost()
        author._posted = deque()
        author._over = False
        return author

    # -- overridden by the author -----------------------------------------------------------------------------------

    def on_start(self) -> None:
        """Called once, first, before anything was sent."""

    def on_timer(self, name: str) -> None:
        """A timer set by `set_timer` has run out."""

    def on_posted(self, value: Any) -> None:
        """A value that another thread or coroutine gave to `post`."""

    # -- read inside callbacks --------------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Seconds since 1970 on this host's clock, fixed for the time of one callback."""
        return self._acting().ctx.now_us / SECOND_US

    @property
    def rng(self) -> random.Random:
        """Random numbers that a simulation can repeat."""
        return self._acting().ctx.rng

    # -- act inside callbacks ---------------------------------------------------------------------------------------

    def set_timer(self, name: str, delay_s: float) -> None:
        """Have `on_timer(name)` called after `delay_s` seconds. Setting a name again replaces its deadline."""
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise LocalError(f"set_timer: delay_s is {delay_s!r}; give a number of seconds from 0 to {MAX_DELAY_S:.0f}")
        self._acting().ctx.set_timer(AUTHORS_TIMER + name, round(delay_s * SECOND_US))

    def cancel_timer(self, name: str) -> None:
        """Forget the timer `name`; nothing happens when there is none."""
        self._acting().ctx.cancel_timer(AUTHORS_TIMER + name)

    # -- from anywhere ----------------------------------------------------------------------------------------------

    def post(self, value: Any) -> None:
        """Have `on_posted(value)` called soon. For other threads and coroutines; legal anywhere, also before the run.

        Raises LocalError when `MAX_POSTED` values wait already, or when the run is over.
        """
        if self._over:
            raise LocalError(f"post: the run of {type(self).__name__} is over")
        if len(self._posted) >= MAX_POSTED:
            raise LocalError(f"post: {MAX_POSTED} values wait already; post less, or make on_posted quicker")
        self._posted.append(value)
        self._host.wake()

    def _acting(self) -> CallbackActor:
        driver = self._driver
        if driver is None or not self._host.acting_here():
            raise LocalError("acting is legal only inside callbacks; use post() to get there from elsewhere")
        return driver


class CallbackActor(Actor):
    """The driver's half that does not depend on the protocol: calls back, collects effects, drains posted values.

    An exception in a callback is the author's bug. It goes on to whoever runs the actor, which forgets the effects of
    the whole event, so nothing half-done is sent; `failure` holds it for whoever started the run, which is over. In a
    simulation it stops the world.
    """

    def __init__(self, author: Callbacks, host: Host | None = None) -> None:
        self.author = author
        self.failure: Exception | None = None
        self.ended = False
        #: The context of the callback that runs now; meaningless outside one.
        self.ctx: Context
        author._host = host if host is not None else QuietHost()

    # -- for the drivers --------------------------------------------------------------------------------------------

    def _call(self, ctx: Context, name: str, *args: Any) -> bool:
        """Call back, unless the run is over. False: it is over, now or before."""
        if self.ended or self._silent():
            return False
        author = self.author
        self.ctx, author._driver = ctx, self
        try:
            author._host.call(name, lambda: getattr(author, name)(*args))
        except Exception as error:
            self._fail(error)
            raise
        finally:
            author._driver = None
        return not self.ended

    def _fail(self, error: Exception) -> None:
        """The run is over because of `error`."""
        self.failure = error
        self.ended = True
        self.author._over = True

    def _end(self, ctx: Context, reason: str) -> None:
        self.ended = True
        self.author._over = True
        ctx.stop(reason)

    def _depart(self, ctx: Context) -> None:
        """What peers are told when the run ends without having been finished."""

    def _stop_asked(self, ctx: Context, failover: bool) -> None:
        """The surroundings want the run to end."""

    def _silent(self) -> bool:
        """Whether callbacks are over although the actor still has something to see to."""
        return False

    def _own_timer(self, ctx: Context, name: str) -> None:
        """One of the driver's timers has run out."""

    # -- the actor --------------------------------------------------------------------------------------------------

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if self.ended:
            return
        super().on_message(ctx, sender, message)
        if self.author._posted:
            self._drain(ctx)

    def on_timer(self, ctx: Context, name: str) -> None:
        if self.ended:
            return
        if name.startswith(AUTHORS_TIMER):
            self._call(ctx, "on_timer", name.removeprefix(AUTHORS_TIMER))
        elif name != _POSTED_TIMER:
            self._own_timer(ctx, name)
        if self.author._posted:
            self._drain(ctx)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        if not self.ended:
            self._link_lost(ctx, node)

    def _link_lost(self, ctx: Context, node: Node) -> None:
        """The link with `node` ended while the run goes on."""

    def on_stop(self, ctx: Context) -> None:
        if not self.ended:
            self._depart(ctx)
            self.ended = True
            self.author._over = True

    def _drain(self, ctx: Context) -> None:
        """Hand over posted values, a bounded number a turn."""
        posted = self.author._posted
        for _ in range(POSTED_A_TURN):
            if not posted:
                return
            value = posted.popleft()
            if isinstance(value, StopRequest):
                self._stop_asked(ctx, value.failover)
            elif not self._call(ctx, "on_posted", value):
                posted.clear()
                return
        if posted:
            ctx.set_timer(_POSTED_TIMER, 0)
