"""What a transport promises, whichever one it is.

**At most once, in order within an epoch, may lose.** A reconnect or a restarted peer is a new epoch; both sides are
told. Nothing above the link assumes more. No delivery after `close`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from mesos_actor.actors.ids import Address, Node, Principal
from mesos_actor.actors.messages.base import Message

Deliver = Callable[[str, Address, Principal, str, Message], None]
"""`(actor, sender, principal, cause, message)`: a decoded message for the mailbox `actor` of this process."""

LinkLost = Callable[[Node], None]
"""`(node)`: the epoch with that peer is over, or could not begin within the time given. Told once."""


class Transport(Protocol):
    """One per process. `node` is what peers call it."""

    node: Node

    def send(self, to: Address, sender: str, cause: str, message: Message) -> None:
        """Queue `message` from our actor `sender` for another process. Never blocks and never raises for the peer's
        sake; past the bound the newest is dropped and counted."""

    def flush(self) -> None:
        """Put what was queued since the last call on its way: one frame per peer."""

    def watch(self, node: Node) -> None:
        """Open a link to `node`, so that its loss will be told."""

    def close(self) -> None:
        """Hand over what can be handed over within the linger bound, then stop for good."""
