"""benchmarks/scale.py: its parts, and a small run of it."""

from __future__ import annotations

import time
from xml.etree import ElementTree

import pytest
from scale import PAPER, measure, paper_at, sizes  # pyright: ignore[reportMissingImports]
from scale_plot import Curve, plot, step_of  # pyright: ignore[reportMissingImports]
from scale_world import Charged  # pyright: ignore[reportMissingImports]

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.ids import Address, Term
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.transport.sim.world import World, WorldSettings

WORK_US = 3_000


class Busy(Actor):
    """Computes for WORK_US at each Ping, and passes it on."""

    def __init__(self, to: Address) -> None:
        self.to = to

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        until_ns = time.thread_time_ns() + WORK_US * 1_000
        while time.thread_time_ns() < until_ns:
            pass
        ctx.send(self.to, message)


class Listener(Actor):
    """Notes which Ping came when."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, int]] = []

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        self.heard.append((message.term, ctx.now_us))


@pytest.mark.parametrize("charge", [False, True])
def test_what_a_process_computes_holds_up_its_messages_and_keeps_their_order(charge: bool) -> None:
    world = World(settings=WorldSettings())
    listener = Listener()
    one = world.add_host("one", node="tcp://10.0.0.1:1")
    two = world.add_host("two", node="tcp://10.0.0.2:1")
    one.spawn("busy", lambda: Busy(two.address("listener"))).start()
    two.spawn("listener", lambda: listener).start()
    assert one.process is not None
    charged = Charged(world, one.process, message_us=0) if charge else None
    began_us = world.now_us
    for term in range(5):
        two.process.send_from("test", Address("/test"), "", one.address("busy"), Ping(Term(term)))  # type: ignore[union-attr]
    two.process.transport.flush()  # type: ignore[union-attr]
    world.run(1_000_000)

    assert [term for term, _ in listener.heard] == [0, 1, 2, 3, 4]
    times_us = [at_us - began_us for _, at_us in listener.heard]
    if charged is None:
        assert max(times_us) < WORK_US
    else:
        assert all(at_us >= (n + 1) * WORK_US for n, at_us in enumerate(times_us))
        assert charged.spent_us >= 5 * WORK_US
        assert charged.messages == 10


def test_the_papers_curve_is_read_between_its_points() -> None:
    assert [paper_at(agents) for agents in (100, 1_000, 5_000, 50_000, 60_000)] == [0.13, 0.13, 0.18, 0.75, 0.75]
    assert paper_at(45_000) == pytest.approx(0.64)
    assert list(PAPER) == sorted(PAPER)


def test_sizes_end_with_the_most() -> None:
    assert sizes(50_000, 5) == [5_000, 10_000, 20_000, 30_000, 40_000, 50_000]
    assert sizes(300, 1) == [300]


def test_a_plot_has_every_point_inside_its_axes() -> None:
    text = plot([Curve("a < b", [(0, 0), (50_000, 0.75)]), Curve("c", [(10, 0.1)])], "x", "y & z")
    circles = [e for e in ElementTree.fromstring(text).iter() if e.tag.endswith("circle") and e.get("r") == "3.5"]

    assert len(circles) == 3
    assert all(70 <= float(c.get("cx", 0)) <= 700 and 20 <= float(c.get("cy", 0)) <= 360 for c in circles)
    assert (circles[0].get("cx"), circles[0].get("cy")) == ("70.0", "360.0")
    assert [step_of(most) for most in (0.75, 1, 50_000, 7)] == [0.2, 0.2, 10_000, 2]


def test_nothing_to_plot_is_said() -> None:
    with pytest.raises(ValueError, match="no point above 0"):
        plot([Curve("a", [(0, 0)])], "x", "y")


@pytest.mark.slow
def test_a_small_cluster_reaches_its_load_and_its_probes_are_timed() -> None:
    point = measure(agents=200, frameworks=8, probes=2)

    assert len(point.overheads_s) == 2
    # At least two hops and two checkpoints each way; at most what a master that is not overloaded could ever need.
    assert all(0.008 < overhead_s < 1 for overhead_s in point.overheads_s)
    # 400 slots, 30 s a task.
    assert 8 < point.launches_per_s < 20
    assert 0 < point.busy < 1
