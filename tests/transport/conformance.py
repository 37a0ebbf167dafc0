"""What every transport must do, whichever one it is. A transport's own test file gives a `Pair` and runs all of it:

    class TestMine(Conformance):
        def make_pair(self) -> Pair: ...

`left` only connects out; `right` listens at `right.transport.node`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
import pytest

from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, Node, Principal, Term, address, node_of
from mesos_actor.actors.messages.agents import Ping, Pong
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.scheduler import FromExecutor, Refused
from mesos_actor.transport.codec import MAX_MESSAGE_BYTES

NOWHERE = Node("tcp://127.0.0.1:1")
"""Where nobody listens."""


class Delivery(NamedTuple):
    actor: str
    sender: Address
    principal: Principal
    cause: str
    message: Message


class End:
    """One process's transport, with what it was given, in order."""

    #: A Transport; a subclass says which.
    transport: Any

    def __init__(self) -> None:
        self.delivered: list[Delivery] = []
        self.lost: list[Node] = []
        #: Deliveries and losses as they came: a Delivery or a Node.
        self.story: list[Delivery | Node] = []

    @property
    def node(self) -> Node:
        return Node(self.transport.node)

    @property
    def messages(self) -> list[Message]:
        return [d.message for d in self.delivered]

    def on_deliver(self, actor: str, sender: Address, principal: Principal, cause: str, message: Message) -> None:
        delivery = Delivery(actor, sender, principal, cause, message)
        self.delivered.append(delivery)
        self.story.append(delivery)

    def on_link_lost(self, node: Node) -> None:
        self.lost.append(node)
        self.story.append(node)

    def send(self, to: Address, *messages: Message, flush: bool = True) -> None:
        for message in messages:
            self.transport.send(to, "here", "cause-1", message)
        if flush:
            self.transport.flush()


class Pair(ABC):
    """Two processes that can reach each other."""

    #: Each an End; a subclass says which.
    left: Any
    right: Any

    @abstractmethod
    def run_until(self, true: Callable[[], bool]) -> None:
        """Let both run until `true()`; an AssertionError when that takes too long."""

    @abstractmethod
    def settle(self) -> None:
        """Let both run until nothing more can be expected to happen by itself."""

    @abstractmethod
    def cut(self) -> None:
        """Break the connections between the two, as if a router between them had restarted."""

    @abstractmethod
    def kill_right(self) -> None:
        """End `right` as by kill -9: it has no chance to say goodbye."""

    @abstractmethod
    def restart_right(self) -> End:
        """Start another process under the name of the killed `right`; returns it, and makes it `right`."""

    @abstractmethod
    def inject(self, body: bytes) -> None:
        """Send from `left` to `right`'s actor `there` a message whose encoded body is `body`."""

    @abstractmethod
    def close(self) -> None:
        """Close all that is open."""


def pings(count: int, start: int = 0) -> list[Message]:
    return [Ping(Term(start + n)) for n in range(count)]


class Conformance(ABC):
    @abstractmethod
    def make_pair(self) -> Pair: ...

    @pytest.fixture
    def pair(self) -> Iterator[Pair]:
        pair = self.make_pair()
        yield pair
        pair.close()

    def there(self, pair: Pair) -> Address:
        return address(pair.right.node, "there")

    def linked(self, pair: Pair) -> Address:
        """Have a message from left delivered; returns left's address as right sees it."""
        before = len(pair.right.delivered)
        pair.left.send(self.there(pair), Pong(AgentId("hello")))
        pair.run_until(lambda: len(pair.right.delivered) > before)
        return Address(pair.right.delivered[-1].sender)

    def test_a_message_arrives_as_it_was_sent(self, pair: Pair) -> None:
        pair.left.send(self.there(pair), Ping(Term(7), connected=False))
        pair.run_until(lambda: len(pair.right.delivered) == 1)

        actor, sender, principal, cause, message = pair.right.delivered[0]
        assert (actor, sender, cause) == ("there", address(pair.left.node, "here"), "cause-1")
        assert message == Ping(Term(7), connected=False)
        assert principal

    def test_names_tell_who_listens(self, pair: Pair) -> None:
        assert pair.left.node.startswith("peer:")
        assert pair.right.node.startswith("tcp://")

    def test_who_only_connects_out_is_answered(self, pair: Pair) -> None:
        sender = self.linked(pair)
        pair.right.send(sender, *pings(3))
        pair.run_until(lambda: len(pair.left.delivered) == 3)

        assert pair.left.messages == pings(3)
        assert pair.left.delivered[0].actor == "here"
        assert node_of(pair.left.delivered[0].sender) == pair.right.node

    def test_nothing_leaves_before_a_flush(self, pair: Pair) -> None:
        self.linked(pair)
        pair.left.send(self.there(pair), Ping(Term(1)), flush=False)
        pair.settle()
        assert len(pair.right.delivered) == 1

        pair.left.transport.flush()
        pair.run_until(lambda: len(pair.right.delivered) == 2)

    def test_order_is_kept_and_nothing_comes_twice(self, pair: Pair) -> None:
        sender = self.linked(pair)
        for start in range(0, 500, 50):
            pair.left.send(self.there(pair), *pings(50, start))
            pair.right.send(sender, *pings(50, start))
        pair.run_until(lambda: len(pair.right.delivered) == 501 and len(pair.left.delivered) == 500)
        pair.settle()

        assert pair.right.messages[1:] == pings(500)
        assert pair.left.messages == pings(500)

    def test_a_broken_wire_is_told_once_on_both_sides_and_the_next_use_is_a_new_epoch(self, pair: Pair) -> None:
        self.linked(pair)
        pair.cut()
        pair.run_until(lambda: bool(pair.left.lost and pair.right.lost))
        assert (pair.left.lost, pair.right.lost) == ([pair.right.node], [pair.left.node])

        self.linked(pair)
        pair.settle()
        assert (pair.left.lost, pair.right.lost) == ([pair.right.node], [pair.left.node])

    def test_a_killed_peer_is_told(self, pair: Pair) -> None:
        self.linked(pair)
        pair.kill_right()
        pair.run_until(lambda: bool(pair.left.lost))

        assert pair.left.lost == [pair.right.node]

    def test_a_restarted_peer_gets_nothing_of_the_epoch_before(self, pair: Pair) -> None:
        self.linked(pair)
        there = self.there(pair)
        pair.kill_right()
        pair.left.send(there, *pings(3))
        pair.run_until(lambda: bool(pair.left.lost))
        again = pair.restart_right()
        pair.left.send(there, Pong(AgentId("new epoch")))
        pair.run_until(lambda: bool(again.delivered))

        assert again.messages == [Pong(AgentId("new epoch"))]
        assert pair.left.lost == [again.node]

    def test_the_end_of_a_process_that_closes_is_told(self, pair: Pair) -> None:
        self.linked(pair)
        pair.left.send(self.there(pair), Pong(AgentId("last words")))
        pair.left.transport.close()
        pair.run_until(lambda: bool(pair.right.lost))

        assert pair.right.lost == [pair.left.node]
        assert pair.right.messages[-1] == Pong(AgentId("last words"))
        assert pair.right.story[-1] == pair.left.node

    def test_watching_alone_opens_a_link_whose_loss_is_told(self, pair: Pair) -> None:
        pair.left.transport.watch(pair.right.node)
        pair.settle()
        pair.kill_right()
        pair.run_until(lambda: bool(pair.left.lost))

        assert pair.left.lost == [pair.right.node]
        assert pair.left.delivered == []

    @pytest.mark.slow
    def test_a_link_that_cannot_be_opened_is_told_lost(self, pair: Pair) -> None:
        pair.left.transport.watch(NOWHERE)
        pair.left.send(address(NOWHERE, "there"), Ping(Term(1)))
        pair.run_until(lambda: bool(pair.left.lost))

        assert pair.left.lost == [NOWHERE]

    def test_an_unknown_peer_that_cannot_be_dialled_is_told_lost(self, pair: Pair) -> None:
        pair.right.transport.watch(Node("peer:00ff"))
        pair.right.send(address(Node("peer:00ff"), "there"), Ping(Term(1)))
        pair.run_until(lambda: bool(pair.right.lost))

        assert pair.right.lost == [Node("peer:00ff")]

    def test_after_close_nothing_is_delivered_sent_or_told(self, pair: Pair) -> None:
        sender = self.linked(pair)
        pair.left.transport.close()
        before = list(pair.left.story)
        pair.right.send(sender, *pings(3))
        pair.left.send(self.there(pair), *pings(3))
        pair.left.transport.watch(pair.right.node)
        pair.left.transport.close()
        pair.settle()

        assert pair.left.story == before
        assert Ping(Term(0)) not in pair.right.messages

    def test_a_message_too_long_is_refused_here_and_hurts_nobody(self, pair: Pair) -> None:
        self.linked(pair)
        names = (FrameworkId("f"), AgentId("a"), ExecutorId("e"))
        pair.left.send(self.there(pair), Ping(Term(1)), FromExecutor(*names, b"x" * MAX_MESSAGE_BYTES), Ping(Term(2)))
        pair.run_until(lambda: len(pair.right.delivered) == 3)
        pair.settle()

        assert pair.right.messages[1:] == [Ping(Term(1)), Ping(Term(2))]
        assert pair.left.lost == pair.right.lost == []

    @pytest.mark.parametrize(
        ("body", "reason", "about"),
        [
            ({"t": "FromTheFuture", "x": 1}, "unknown-message", "FromTheFuture"),
            ({"t": "Ping", "term": "one"}, "malformed", "Ping"),
        ],
    )
    def test_what_cannot_be_read_is_answered(self, pair: Pair, body: object, reason: str, about: str) -> None:
        self.linked(pair)
        pair.inject(msgspec.msgpack.encode(body))
        pair.run_until(lambda: bool(pair.left.delivered))

        (delivery,) = pair.left.delivered
        assert (delivery.actor, delivery.sender) == ("here", self.there(pair))
        assert isinstance(delivery.message, Refused)
        assert (delivery.message.reason, delivery.message.about) == (reason, about)
        self.linked(pair)
        assert pair.left.lost == pair.right.lost == []

    def test_a_refusal_that_cannot_be_read_is_not_answered(self, pair: Pair) -> None:
        self.linked(pair)
        pair.inject(msgspec.msgpack.encode({"t": "Refused", "reason": 1}))
        self.linked(pair)
        pair.settle()

        assert pair.left.delivered == []

    @pytest.mark.parametrize(
        "where", ["", "nonsense", "ipc:///tmp/x/there", "inproc://zeromq.zap.01/there", "tcp://a/b"]
    )
    def test_an_address_that_is_none_is_no_accident(self, pair: Pair, where: str) -> None:
        pair.left.send(Address(where), Ping(Term(1)))
        self.linked(pair)

        assert len(pair.right.delivered) == 1
