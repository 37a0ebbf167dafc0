"""Equal set-up, seed and plan: equal runs, in this process and in any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.ids import Address, Term
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.testing import SECOND_US, Chances, Fate, Key, Plan, SeededPlan, World

ROUGH = Chances(drop=0.05, delay=0.2, disk_death=0.02, slow_disk=0.1)


class Gossip(Actor):
    """Keeps a rumour and tells it to somebody drawn by chance."""

    def __init__(self, peers: list[Address]) -> None:
        self.peers = peers

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("talk", ctx.rng.randrange(20_000))

    def on_timer(self, ctx: Context, name: str) -> None:
        ctx.send(ctx.rng.choice(self.peers), Ping(Term(ctx.rng.randrange(1_000))))
        ctx.set_timer("talk", 5_000 + ctx.rng.randrange(20_000))

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Ping)
        ctx.persist(f"rumour/{message.term % 7}", UserRecord(sender.encode()))
        if message.term % 3 == 0 or ctx.sometimes("chatty"):
            ctx.send(sender, Ping(Term(message.term // 3)))


def rumours(plan: Plan, seed: int = 1, duration_us: int = SECOND_US) -> World:
    world = World(plan, seed=seed)
    hosts = [world.add_host(f"host-{n}", node=f"tcp://10.0.0.{n}:1") for n in range(4)]
    peers = [host.address("gossip") for host in hosts]
    for host in hosts:
        host.spawn("gossip", lambda: Gossip(peers), durable=True).start()
    world.run(duration_us // 2)
    world.cut("host-0", "host-1")
    hosts[2].crash(keep_unsynced=1)
    hosts[2].start()
    world.run(duration_us // 2)
    return world


def test_the_same_run_has_the_same_digest() -> None:
    one, again = rumours(SeededPlan(3, ROUGH)), rumours(SeededPlan(3, ROUGH))

    assert one.events > 500
    assert one.digest == again.digest
    assert one.trace() == again.trace()


def test_another_seed_is_another_run() -> None:
    assert rumours(Plan(), seed=1).digest != rumours(Plan(), seed=2).digest


def test_a_recorded_plan_repeats_the_run_without_its_seed() -> None:
    drawn = SeededPlan(5, ROUGH)
    run = rumours(drawn)
    replayed = rumours(Plan(drawn.fates, drawn.words))

    assert drawn.fates
    assert replayed.digest == run.digest


FATES = st.one_of(st.just(()), st.tuples(st.integers(0, 100_000)), st.tuples(st.just(0), st.integers(0, 9_000)))
LINKS = st.tuples(
    st.sampled_from(["host-0", "host-1", "disk"]), st.sampled_from(["host-2", "host-3"]), st.integers(0, 9)
)


@settings(deadline=None, max_examples=5)
@given(st.dictionaries(LINKS, FATES, max_size=6))
def test_any_plan_gives_the_same_run_twice(fates: dict[Key, Fate]) -> None:
    assert rumours(Plan(fates), duration_us=200_000).digest == rumours(Plan(fates), duration_us=200_000).digest


def test_logs_are_not_part_of_the_digest_but_of_the_world() -> None:
    class Talker(Actor):
        def on_start(self, ctx: Context) -> None:
            ctx.log("hello", task="t1")

    world = World()
    world.add_host("host").spawn("talker", Talker).start()

    assert world.logged("hello")[0]["task"] == "t1"


@pytest.mark.slow
def test_the_hash_seed_of_the_process_changes_nothing() -> None:
    program = (
        "from tests.sim.test_world_determinism import ROUGH, SeededPlan, rumours\n"
        "print(rumours(SeededPlan(3, ROUGH)).digest)"
    )
    root = Path(__file__).resolve().parents[2]
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("0", "1")
    }

    assert digests == {rumours(SeededPlan(3, ROUGH)).digest}
