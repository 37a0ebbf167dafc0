"""Any bytes on any link of a cluster at work, and its own frames with bytes changed: nobody fails, and work goes on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mesos_actor.actors.ids import Address, Node, node_of
from mesos_actor.transport.codec import Batch, read_frame
from mesos_actor.transport.sim.network import Link, Network, SimTransport
from tests.fuzz.scene import Scene, plausible, scene

fuzzing = settings(
    max_examples=settings().max_examples // 2,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.large_base_example,
        HealthCheck.function_scoped_fixture,  # it makes a new scene at each call
    ],
)


@dataclass
class Wire:
    """One direction of a link, and a frame that went over it."""

    source: SimTransport
    destination: SimTransport
    link: Link
    frame: bytes


@pytest.fixture
def wires(monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[Scene, list[Wire]]]:
    """A scene, and all that crossed its links, which still stand."""

    def make() -> tuple[Scene, list[Wire]]:
        seen: list[Wire] = []
        carry = Network.carry

        def tapped(self: Network, source: SimTransport, destination: SimTransport, link: Link, frame: bytes) -> None:
            seen.append(Wire(source, destination, link, frame))
            carry(self, source, destination, link, frame)

        with monkeypatch.context() as patch:
            patch.setattr(Network, "carry", tapped)
            it = scene(invariants=False)
        return it, seen

    return make


def inject(it: Scene, wire: Wire, data: bytes) -> None:
    """Have these bytes arrive, now."""
    it.sim.world.network._arrive(wire.source, wire.destination, wire.link, data)


@st.composite
def changed(draw: st.DrawFn, frame: bytes) -> bytes:
    """The frame with some bytes replaced, cut out, put in, or cut off."""
    data = bytearray(frame)
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.sampled_from(["set", "flip", "cut", "insert", "end", "repeat"])):
            case "set" if data:
                data[at] = draw(st.integers(0, 255))
            case "flip" if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[at : at + draw(st.integers(1, 8))]
            case "insert":
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "end":
                del data[at:]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 40))]
    return bytes(data)


def renumbered(wire: Wire, frame: bytes) -> bytes:
    """The frame's messages under the next number of their link, so that they are not dropped for being late."""
    good, _ = read_frame(frame)
    batch = Batch()
    for envelope in good.envelopes:
        batch.add(envelope.to, envelope.sender, envelope.cause, envelope.message)
    half = wire.link.halves[wire.source.node]
    return batch.frame(wire.source.node, half.outgoing.epoch, half.outgoing.stamp())


@pytest.mark.slow
@fuzzing
@given(data=st.data())
def test_any_bytes_are_dropped_and_counted(wires: Callable[[], tuple[Scene, list[Wire]]], data: st.DataObject) -> None:
    it, seen = wires()
    for junk in data.draw(st.lists(st.binary(max_size=200), min_size=1, max_size=20)):
        inject(it, data.draw(st.sampled_from(seen)), junk)

    assert it.sim.world.network.counts["unreadable"] >= 1
    it.judge(everybody_lives=True)


@pytest.mark.slow
@fuzzing
@given(data=st.data())
def test_frames_with_changed_bytes_make_nobody_fail(
    wires: Callable[[], tuple[Scene, list[Wire]]], data: st.DataObject
) -> None:
    it, seen = wires()
    for _ in range(data.draw(st.integers(1, 25))):
        wire = data.draw(st.sampled_from(seen))
        inject(it, wire, data.draw(changed(renumbered(wire, wire.frame))))
        it.sim.run(data.draw(st.sampled_from([0.0, 0.01, 1.0])))

    it.judge(everybody_lives=False)


@pytest.mark.slow
@fuzzing
@given(data=st.data())
def test_frames_of_drawn_messages_with_changed_bytes_make_nobody_fail(
    wires: Callable[[], tuple[Scene, list[Wire]]], data: st.DataObject
) -> None:
    """As before, beginning with any message at all, to any mailbox of the process at the other end."""
    it, seen = wires()
    for _ in range(data.draw(st.integers(1, 15))):
        wire = data.draw(st.sampled_from(seen))
        there = [to.rpartition("/")[2] for to in it.mailboxes if node_of(to) == wire.destination.node]
        batch = Batch()
        batch.add(data.draw(st.sampled_from([*there, ""])), "anybody", "", data.draw(plausible(it.known)))
        half = wire.link.halves[wire.source.node]
        frame = batch.frame(wire.source.node, half.outgoing.epoch, half.outgoing.stamp())
        inject(it, wire, data.draw(changed(frame)) if data.draw(st.booleans()) else frame)
        it.sim.run(data.draw(st.sampled_from([0.0, 0.01, 1.0])))

    it.judge(everybody_lives=False)


def test_a_frame_in_another_nodes_name_is_dropped(wires: Callable[[], tuple[Scene, list[Wire]]]) -> None:
    it, seen = wires()
    wire = seen[-1]
    batch = Batch()
    half = wire.link.halves[wire.source.node]
    inject(it, wire, batch.frame(Node("tcp://10.0.0.9:9"), half.outgoing.epoch, half.outgoing.stamp()))

    assert it.sim.world.network.counts["spoofed"] == 1
    assert Address(it.mailboxes[0])
