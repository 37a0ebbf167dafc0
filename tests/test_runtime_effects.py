"""What an actor may rely on, in both worlds: effects, failures, timers, persistence, ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest

from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.errors import ConfigError, InternalError
from mesos_actor.actors.ids import Address, Term, local
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.supervisor import Strategy
from tests.effects_benches import Bench, RealBench, SimBench

Make = Callable[..., Bench]


@pytest.fixture(params=[RealBench, SimBench], ids=["real", "sim"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    made: list[Bench] = []

    def make(strategy: Strategy = "one_for_one", intensity: int = 1) -> Bench:
        made.append(cast(Bench, request.param(strategy, intensity)))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def bench(make: Make) -> Bench:
    return make()


def ping(number: int) -> Ping:
    return Ping(Term(number))


def number_of(message: Message) -> int:
    assert isinstance(message, Ping)
    return message.term


class Scripted(Actor):
    """Does what the test says: `script` maps the number of a Ping to what is done with the context."""

    def __init__(self, journal: list[object], script: dict[int, Callable[[Context], None]], name: str = "") -> None:
        self.journal = journal
        self.script = script
        self.name = name

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.script[number_of(message)](ctx)

    def on_timer(self, ctx: Context, name: str) -> None:
        self.journal.append(f"timer {name}")
        if name in ("boom",):
            raise RuntimeError("boom")

    def on_stop(self, ctx: Context) -> None:
        self.journal.append(f"stop {self.name}")
        ctx.send(local("listener"), ping(99))


class Listener(Actor):
    """Notes what it gets."""

    def __init__(self, journal: list[object]) -> None:
        self.journal = journal

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        self.journal.append(number_of(message))

    def on_stop(self, ctx: Context) -> None:
        self.journal.append("stop listener")


def sends(*numbers: int) -> Callable[[Context], None]:
    def act(ctx: Context) -> None:
        for number in numbers:
            ctx.send(local("listener"), ping(number))

    return act


def scripted(bench: Bench, script: dict[int, Callable[[Context], None]], *, durable: bool = True) -> None:
    """`listener`, and `actor` that follows the script; both run."""
    bench.spawn("listener", lambda: Listener(bench.journal))
    bench.spawn("actor", lambda: Scripted(bench.journal, script, "actor"), durable=durable)
    bench.start()


def numbers(bench: Bench) -> list[object]:
    return [entry for entry in bench.journal if isinstance(entry, int)]


def test_messages_keep_their_order_and_say_who_sent_them_and_why(bench: Bench) -> None:
    seen: list[tuple[str, str, str, int]] = []

    class Witness(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            seen.append((sender, ctx.principal, ctx.cause, number_of(message)))

    bench.spawn("listener", Witness)
    bench.spawn("actor", lambda: Scripted(bench.journal, {0: sends(1, 2, 3)}))
    bench.start()
    bench.post("actor", ping(0), cause="because")
    bench.until(lambda: len(seen) == 3)

    assert seen == [("/actor", "local", "because", n) for n in (1, 2, 3)]


def test_a_handler_that_raises_has_no_effect(bench: Bench) -> None:
    def fail(ctx: Context) -> None:
        ctx.send(local("listener"), ping(1))
        ctx.persist("k", UserRecord(b"1"))
        ctx.set_timer("t", 0)
        raise RuntimeError("no")

    kept: list[dict[str, object]] = []
    scripted(bench, {0: fail, 2: lambda ctx: kept.append(dict(ctx.recovered)), 3: sends(3)})
    for number in (0, 2, 3):
        bench.post("actor", ping(number))
    bench.until(lambda: 3 in bench.journal)
    bench.settle()

    assert bench.journal == [3]
    assert kept == [{}]
    assert [line["actor"] for line in bench.logged("actor_failed")] == ["actor"]
    assert bench.is_running()


def test_a_restarted_actor_begins_with_what_it_asked_to_have_kept(bench: Bench) -> None:
    def fail(ctx: Context) -> None:
        raise RuntimeError("no")

    def change(ctx: Context) -> None:
        ctx.persist("b", UserRecord(b"2"))
        ctx.persist("a", None)

    kept: list[dict[str, object]] = []
    script: dict[int, Callable[[Context], None]] = {
        0: lambda ctx: ctx.persist("a", UserRecord(b"1")),
        1: change,
        2: fail,
        3: lambda ctx: kept.append(dict(ctx.recovered)),
    }
    scripted(bench, script)
    for number in range(4):
        bench.post("actor", ping(number))
    bench.until(lambda: bool(kept))

    assert kept == [{"b": UserRecord(b"2")}]


def test_a_send_waits_for_every_persist_before_it(bench: Bench) -> None:
    def act(ctx: Context) -> None:
        ctx.send(local("listener"), ping(1))
        ctx.persist("k", UserRecord(b"1"))
        ctx.send(local("listener"), ping(2))

    scripted(bench, {0: act})
    bench.post("actor", ping(0))
    bench.until(lambda: 2 in bench.journal)

    assert numbers(bench) == [1, 2]
    assert bench.journal.index("synced") < bench.journal.index(2)


def test_later_sends_do_not_overtake_one_that_waits(make: Make) -> None:
    bench = make()
    if isinstance(bench, RealBench):  # both handlers in one turn, so that the second runs before the commit
        bench.runtime.settings = type(bench.runtime.settings)(turn_messages=64)

    def keep_and_send(ctx: Context) -> None:
        ctx.persist("k", UserRecord(b"1"))
        ctx.send(local("listener"), ping(1))

    scripted(bench, {0: keep_and_send, 2: sends(2)})
    bench.post("actor", ping(0))
    bench.post("actor", ping(2))
    bench.post("listener", ping(3))
    bench.until(lambda: 2 in bench.journal)

    assert bench.journal == [3, "synced", 1, 2]


def test_what_a_failed_incarnation_asked_for_before_is_still_kept_and_sent(make: Make) -> None:
    bench = make()
    if isinstance(bench, RealBench):
        bench.runtime.settings = type(bench.runtime.settings)(turn_messages=64)

    def keep_and_send(ctx: Context) -> None:
        ctx.persist("k", UserRecord(b"1"))
        ctx.send(local("listener"), ping(1))

    def fail(ctx: Context) -> None:
        raise RuntimeError("no")

    def tell(ctx: Context) -> None:
        assert ctx.recovered == {"k": UserRecord(b"1")}
        ctx.send(local("listener"), ping(3))

    scripted(bench, {0: keep_and_send, 2: fail, 3: tell})
    for number in (0, 2, 3):
        bench.post("actor", ping(number))
    bench.until(lambda: 3 in bench.journal)

    assert bench.journal == ["synced", 1, 3]


def test_timers_are_named_and_setting_one_again_replaces_it(bench: Bench) -> None:
    def act(ctx: Context) -> None:
        ctx.set_timer("twice", 1_000)
        ctx.set_timer("twice", 3_000)
        ctx.set_timer("never", 2_000)
        ctx.cancel_timer("never")
        ctx.cancel_timer("unknown")
        ctx.set_timer("first", -5)

    scripted(bench, {0: act})
    bench.post("actor", ping(0))
    bench.settle()

    assert bench.journal == ["timer first", "timer twice"]


def test_a_timer_dies_with_its_incarnation(bench: Bench) -> None:
    def act(ctx: Context) -> None:
        ctx.set_timer("boom", 1_000)
        ctx.set_timer("late", 2_000)

    scripted(bench, {0: act})
    bench.post("actor", ping(0))
    bench.settle()

    assert bench.journal == ["timer boom"]
    assert len(bench.logged("actor_restarted")) == 1


def test_after_stop_nothing_more_is_got_or_carried_out(bench: Bench) -> None:
    def act(ctx: Context) -> None:
        ctx.persist("k", UserRecord(b"1"))
        ctx.send(local("listener"), ping(1))
        ctx.set_timer("t", 0)
        ctx.stop("done")
        ctx.send(local("listener"), ping(2))

    scripted(bench, {0: act, 3: sends(3)})
    bench.post("actor", ping(0))
    bench.settle()

    assert numbers(bench) == [1]
    assert [line["reason"] for line in bench.logged("actor_stopped")] == ["done"]
    assert bench.is_running()


def test_the_process_ends_with_its_last_actor(bench: Bench) -> None:
    bench.spawn("actor", lambda: Scripted(bench.journal, {0: lambda ctx: ctx.stop()}))
    bench.start()
    bench.settle()
    assert bench.is_running()

    bench.post("actor", ping(0))
    bench.settle()
    assert not bench.is_running()
    assert bench.failure is None


def test_a_permanent_actor_comes_back_even_after_stop(bench: Bench) -> None:
    script: dict[int, Callable[[Context], None]] = {0: lambda ctx: ctx.stop(), 1: sends(1)}
    bench.spawn("listener", lambda: Listener(bench.journal))
    bench.spawn("actor", lambda: Scripted(bench.journal, script), restart="permanent")
    bench.start()
    bench.post("actor", ping(0))
    bench.post("actor", ping(1))
    bench.until(lambda: 1 in bench.journal)

    assert len(bench.logged("actor_restarted")) == 1


def test_too_many_failures_end_the_process_and_the_others_gracefully(bench: Bench) -> None:
    def fail(ctx: Context) -> None:
        raise RuntimeError("no")

    scripted(bench, {0: fail})
    bench.post("actor", ping(0))
    bench.post("actor", ping(0))
    bench.settle()
    bench.stop()

    assert isinstance(bench.failure, InternalError)
    assert "actor 'actor' ended once more after 1 restarts within 5 s" in str(bench.failure)
    assert bench.journal == ["stop listener"]
    assert not bench.is_running()


@pytest.mark.parametrize("where", ["factory", "on_start"])
def test_failing_to_start_counts_as_a_failure(bench: Bench, where: str) -> None:
    tries: list[int] = []

    class Broken(Actor):
        def __init__(self) -> None:
            tries.append(1)
            if where == "factory":
                raise RuntimeError("no")

        def on_start(self, ctx: Context) -> None:
            raise RuntimeError("no")

    bench.spawn("actor", Broken)
    bench.start()
    bench.settle()

    assert len(tries) == 2
    assert isinstance(bench.failure, InternalError)


@pytest.mark.parametrize(
    ("strategy", "again"),
    [("one_for_one", ["b"]), ("rest_for_one", ["b", "c"]), ("one_for_all", ["a", "b", "c"])],
)
def test_the_strategy_says_who_starts_again(make: Make, strategy: Strategy, again: list[str]) -> None:
    bench = make(strategy)
    started: list[str] = []

    class Starter(Actor):
        def on_start(self, ctx: Context) -> None:
            started.append(ctx.name)

        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            raise RuntimeError("no")

    for name in "abc":
        bench.spawn(name, Starter)
    bench.start()
    started.clear()
    bench.post("b", ping(0))
    bench.until(lambda: len(started) >= len(again))
    bench.settle()

    assert started == again


def test_a_temporary_actor_is_not_started_again(bench: Bench) -> None:
    def fail(ctx: Context) -> None:
        raise RuntimeError("no")

    bench.spawn("listener", lambda: Listener(bench.journal))
    bench.spawn("actor", lambda: Scripted(bench.journal, {0: fail, 1: sends(1)}), restart="temporary")
    bench.start()
    for number in (0, 1):
        bench.post("actor", ping(number))
    bench.settle()

    assert bench.journal == []
    assert bench.is_running()


def test_a_graceful_stop_goes_in_reverse_and_last_words_arrive(bench: Bench) -> None:
    scripted(bench, {})
    bench.stop()

    assert bench.journal == ["stop actor", 99, "stop listener"]
    assert bench.failure is None


def test_one_that_raises_in_its_last_words_is_not_started_again(bench: Bench) -> None:
    class Bad(Actor):
        def on_stop(self, ctx: Context) -> None:
            ctx.send(local("listener"), ping(1))
            raise RuntimeError("no")

    bench.spawn("listener", lambda: Listener(bench.journal))
    bench.spawn("actor", Bad)
    bench.start()
    bench.stop()

    assert bench.journal == ["stop listener"]
    assert len(bench.logged("actor_failed")) == 1
    assert bench.logged("actor_restarted") == []


def test_persisting_needs_a_durable_actor(bench: Bench) -> None:
    scripted(bench, {0: lambda ctx: ctx.persist("k", UserRecord(b""))}, durable=False)
    bench.post("actor", ping(0))
    bench.settle()

    (line,) = bench.logged("actor_failed")
    assert "was not spawned with durable=True" in str(line["error"])


def test_a_record_that_cannot_be_kept_is_the_actors_failure_and_nothing_is(bench: Bench) -> None:
    def act(ctx: Context) -> None:
        ctx.persist("good", UserRecord(b"1"))
        ctx.persist("", UserRecord(b"1"))
        ctx.send(local("listener"), ping(1))

    kept: list[dict[str, object]] = []
    scripted(bench, {0: act, 2: lambda ctx: kept.append(dict(ctx.recovered))})
    bench.post("actor", ping(0))
    bench.post("actor", ping(2))
    bench.until(lambda: bool(kept))
    bench.settle()

    assert kept == [{}]
    assert numbers(bench) == []


def test_a_letter_to_nobody_is_logged(bench: Bench) -> None:
    scripted(bench, {0: lambda ctx: ctx.send(local("nobody"), ping(1))})
    bench.post("actor", ping(0))
    bench.settle()

    (line,) = bench.logged("dead_letter")
    assert (line["to"], line["kind"], line["sender"]) == ("nobody", "Ping", "/actor")


def test_names_are_checked(bench: Bench) -> None:
    bench.spawn("actor", Actor)
    with pytest.raises(ConfigError, match="'a/b'"):
        bench.spawn("a/b", Actor)
        bench.start()


def test_log_lines_carry_actor_and_cause(bench: Bench) -> None:
    scripted(bench, {0: lambda ctx: ctx.warn("odd", task="t1")})
    bench.post("actor", ping(0), cause="why")
    bench.until(lambda: bool(bench.logged("odd")))

    (line,) = bench.logged("odd")
    assert (line["actor"], line["cause"], line["task"], line["level"]) == ("actor", "why", "t1", "warning")
