"""Ports: mailboxes whose insides are in the shell.

An actor sends to a port as to any actor (`ctx.send(local("containerizer"), LaunchContainer(...))`) and gets its answers
as messages. What is behind it may touch the world: files, processes, descriptors. The same port object runs under the
real runtime and, when it is a fake that keeps to its `Outlet`, under the simulated world with virtual time.

How a port lives:

1. `start(outlet)`, before any actor of the process has started, in the order in which ports were added. Under the real
   runtime the asyncio loop is running then, so a port may watch descriptors with `asyncio.get_running_loop()`.
2. `on_message` for each message, `on_flush` once at the end of every loop turn in which it had some. All calls come
   from the one loop, one at a time; a port that blocks, blocks the process.
3. `close()` at a graceful stop, in reverse order, after every actor's `on_stop` and what it sent were handled. A killed
   process calls nothing.

A port that raises loses the message it was handling and is logged with its traceback; it is not restarted, for its
state is the world's. Only a StorageError ends the process: nothing that waits for that disk may be shown to anybody.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from mesos_actor.actors.ids import Address, Node, Principal
from mesos_actor.actors.messages.base import Message


class TimerHandle(Protocol):
    """What `call_later` returns. asyncio's TimerHandle is one."""

    def cancel(self) -> None:
        """Forget the call; nothing happens when it was made already."""


class Outlet(Protocol):
    """What a port is given to reach actors and time. Use it from the loop's thread only."""

    @property
    def name(self) -> str:
        """The port's own name: what actors send to."""
        ...

    @property
    def node(self) -> Node:
        """The process the port lives in."""
        ...

    @property
    def rng(self) -> random.Random:
        """Seeded in a simulation, from the operating system otherwise."""
        ...

    def now_us(self) -> int:
        """The wall clock in microseconds since 1970, never going back within one incarnation of the process."""
        ...

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        """Give `message` to `to`, from this port. It is delivered in a later step, never inside this call."""

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        """Call `fn` after `delay_us`, on the loop; 0 means soon, never inside this call."""
        ...

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """One structured log line. Levels: `debug`, `info`, `warning`, `error`."""


class Port(Protocol):
    """See the module's text."""

    def start(self, outlet: Outlet) -> None:
        """The process begins (again): keep the outlet. Raising ends the process with that error."""

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        """`sender` asks for something. Messages that this port does not know are logged and dropped. Whoever can reach
        the process can reach its ports: what only its own actors may ask for needs the `principal` `local`."""

    def on_flush(self) -> None:
        """The turn's messages are all handed over: do now what is cheaper done for many at once."""

    def close(self) -> None:
        """Give back what is held, within a short bound. `outlet` must not be used afterwards."""


@runtime_checkable
class Urgent(Protocol):
    """A port whose messages from other processes, and news of lost links, are handled before all else that waits, in
    their own order: a leader that hears its followers late believes itself alone."""

    urgent: bool


@runtime_checkable
class LinkListener(Protocol):
    """A port that wants to hear of lost links, as all actors do. `on_flush` follows."""

    def on_link_lost(self, node: Node) -> None:
        """The link with `node` ended, or the process behind it was restarted."""
