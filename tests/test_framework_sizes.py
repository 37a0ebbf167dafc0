"""What a framework asks for and cannot be sent: refused by name, before anything is recorded."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest

from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import AgentId, ExecutorId
from mesos_actor.actors.messages.scheduler import Accept, Reconcile, Refused, ToExecutor
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_sizes import MAX_ACCEPT_BYTES, MAX_ORDER_BYTES
from mesos_actor.transport.codec import MAX_MESSAGE_BYTES
from tests.test_framework_driver import AGENT, Bench, offer, sent, task

SHARE = Resources.of(cpus=1, mem=32)


def refused(bench: Bench, act: Callable[[Framework], None]) -> str:
    """The words of the LocalError that `act` gets; nothing may be sent or remembered."""
    texts = []

    def trying(framework: Framework) -> None:
        with pytest.raises(LocalError) as caught:
            act(framework)
        texts.append(str(caught.value))

    assert sent(bench.acting(trying)) == []
    driver = bench.driver
    assert not (driver.tasks or driver.silent or driver.kills or driver.operations or driver.demands)
    return texts[0]


def test_the_bounds_are_below_that_of_the_transport() -> None:
    assert 2 * MAX_ACCEPT_BYTES <= MAX_MESSAGE_BYTES
    assert MAX_ORDER_BYTES < MAX_MESSAGE_BYTES


def test_an_accept_that_is_too_long_is_refused_and_the_offer_stays() -> None:
    bench = Bench()
    bench.register()
    big = [command_task(f"t{i}", ["echo", "x" * (1 << 20)], SHARE) for i in range(9)]
    bench.driver._note_offer(offer())

    text = refused(bench, lambda f: f.accept(offer(), big, operation_id="o"))

    assert text.startswith("accept: the message is 943") and f"at most {MAX_ACCEPT_BYTES} can be sent" in text
    assert sent(bench.acting(lambda f: f.accept(offer(), [task()])), Accept)


@pytest.mark.parametrize(
    ("argv", "text"),
    [(b"x", "Expected `array`"), (["\ud800"], "surrogates not allowed"), ([7], "Expected `str`")],
)
def test_an_accept_that_the_master_could_not_read_is_refused(argv: Any, text: str) -> None:
    bench = Bench()
    bench.register()
    good = command_task("t", ["true"], SHARE)
    assert good.command is not None
    bad = type(good)(good.task_id, SHARE, command=type(good.command)(cast("Any", argv)))

    assert text in refused(bench, lambda f: f.accept(offer(), [bad]))


def test_tasks_of_a_refused_accept_are_asked_about_at_once() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.accept(offer(), [task()]))

    effects = bench.get(Refused("malformed", "Accept cannot be read: ...", about="Accept"))

    assert sent(effects, Reconcile) == [Reconcile(bench.driver.framework_id, (("t1", AGENT),))]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("kill", lambda f: f.kill("\ud800", operation_id="o")),
        ("message", lambda f: f.message("a", "e", bytes(20_000_000))),
        ("message", lambda f: f.message("\ud800", "e", b"")),
    ],
)
def test_other_orders_that_cannot_be_sent_are_refused(name: str, act: Callable[[Framework], None]) -> None:
    bench = Bench()
    bench.register()

    assert refused(bench, act).startswith(f"{name}: ")


def test_the_longest_message_is_sent() -> None:
    bench = Bench()
    bench.register()
    data = bytes(MAX_ORDER_BYTES - 1_000)

    effects = bench.acting(lambda f: f.message("a", "e", data))

    assert sent(effects, ToExecutor) == [ToExecutor(bench.driver.framework_id, AgentId("a"), ExecutorId("e"), data)]


@pytest.mark.parametrize("delay_s", [math.inf, math.nan, -1.0, 1e300])
def test_a_timer_that_no_clock_can_hold_is_refused(delay_s: float) -> None:
    bench = Bench()
    bench.register()

    assert repr(delay_s) in refused(bench, lambda f: f.set_timer("t", delay_s))
