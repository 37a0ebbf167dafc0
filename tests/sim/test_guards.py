"""Inside a simulation nothing may be asked of the real world, and the error says what to use instead."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from mesos_actor.testing import NondeterminismError, World
from mesos_actor.transport.sim.guards import guarded

FORBIDDEN: list[tuple[str, Callable[[], Any], str]] = [
    ("time.time", time.time_ns, "ctx.now_us"),
    ("sleep", lambda: time.sleep(0), "set_timer"),
    ("random", lambda: random.random(), "rng"),
    ("Random()", lambda: random.Random(), "seed"),
    ("uuid", lambda: uuid.uuid4(), "rng"),
    ("urandom", lambda: os.urandom(1), "rng"),
    ("thread", lambda: threading.Thread(target=print).start(), "one thread"),
    ("socket", lambda: socket.socket(), "send messages"),
]


@pytest.mark.parametrize(("name", "call", "fix"), FORBIDDEN[1:], ids=[item[0] for item in FORBIDDEN[1:]])
def test_it_is_refused_with_the_fix_and_works_again_afterwards(name: str, call: Callable[[], Any], fix: str) -> None:
    def inside() -> None:
        call()

    world = World()
    world.schedule.after(10, inside)
    with pytest.raises(NondeterminismError, match=fix):
        world.run(100)
    found = call()
    if isinstance(found, socket.socket):
        found.close()


def test_it_is_told_though_somebody_has_caught_it() -> None:
    def careless() -> None:
        try:
            time.time()
        except AssertionError:
            return

    world = World()
    world.schedule.after(10, careless)
    with pytest.raises(NondeterminismError, match=r"time\.time"):
        world.run(100)


def test_a_seeded_generator_and_logging_are_free() -> None:
    import logging

    with guarded():
        random.Random("seed").random()
        logging.getLogger("x").warning("hello")


def test_guards_inside_guards_stand_until_the_outer_end() -> None:
    with pytest.raises(NondeterminismError), guarded():
        with guarded():
            pass
        time.time()
    assert time.time() > 0
