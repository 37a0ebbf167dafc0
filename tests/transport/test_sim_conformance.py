"""The promises of a transport, kept by the simulated network."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from mesos_actor.actors.ids import Node, Principal
from mesos_actor.transport.codec import PROTOCOL_VERSION
from mesos_actor.transport.sim.network import Network, NetworkSettings, SimTransport
from mesos_actor.transport.sim.plan import Plan
from mesos_actor.transport.sim.schedule import Schedule
from tests.transport.conformance import Conformance, End, Pair

PATIENCE_US = 20_000_000
SETTLED_US = 100_000


class SimEnd(End):
    transport: SimTransport


class SimPair(Pair):
    left: SimEnd
    right: SimEnd

    def __init__(self, settings: NetworkSettings) -> None:
        self._schedule = Schedule()
        self._network = Network(self._schedule, Plan(), 1, settings)
        self.left = self._start("left", Node("peer:01"))
        self.right = self._start("right", Node("tcp://10.0.0.1:5050"))

    def _start(self, host: str, node: Node) -> SimEnd:
        end = SimEnd()
        end.transport = self._network.attach(host, node, Principal("cluster"), end.on_deliver, end.on_link_lost)
        return end

    def run_until(self, true: Callable[[], bool]) -> None:
        end_us = self._schedule.now_us + PATIENCE_US
        while not true():
            due_us = self._schedule.next_us()
            assert due_us is not None and due_us < end_us, f"waited in vain: {self._network.counts}"
            self._step()

    def settle(self) -> None:
        end_us = self._schedule.now_us + SETTLED_US
        while (due_us := self._schedule.next_us()) is not None and due_us <= end_us:
            self._step()

    def _step(self) -> None:
        call, args = self._schedule.pop()
        call(*args)

    def cut(self) -> None:
        self._network.break_links("left", "right")

    def kill_right(self) -> None:
        self._network.detach(self.right.transport)

    def restart_right(self) -> SimEnd:
        self.right = self._start("right", self.right.node)
        return self.right

    def inject(self, body: bytes) -> None:
        left, right = self.left.transport, self.right.transport
        link = self._network.link(left, right.node)
        assert link is not None
        outgoing = link.halves[left.node].outgoing
        header = (PROTOCOL_VERSION, left.node, outgoing.epoch, outgoing.stamp(), "")
        envelope = ("there", "here", "cause-1", msgspec.Raw(body))
        self._network.carry(left, right, link, msgspec.msgpack.encode((*header, [envelope])))

    def close(self) -> None:
        self.left.transport.close()
        self.right.transport.close()


class TestSim(Conformance):
    def make_pair(self) -> Pair:
        return SimPair(NetworkSettings())


class TestSimWithoutLatency(Conformance):
    """Everything that can happen at the same moment does."""

    def make_pair(self) -> Pair:
        return SimPair(NetworkSettings(latency_us=0, jitter_us=0))
