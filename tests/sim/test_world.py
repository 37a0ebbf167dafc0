"""The simulated world: time, links, disks, crashes, and the same run each time."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import mesos_actor.transport.sim.world as world_module
from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Address, Node, Principal, Term, local, node_of
from mesos_actor.actors.messages.agents import Ping
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.messages.scheduler import Refused
from mesos_actor.actors.ports import Outlet
from mesos_actor.testing import (
    SECOND_US,
    START_US,
    ActorFailed,
    Event,
    Host,
    InvariantViolation,
    NetworkSettings,
    NotReached,
    Plan,
    World,
    WorldSettings,
)

SERVER = Node("tcp://10.0.0.1:5050")


def ping(number: int) -> Ping:
    return Ping(Term(number))


class Sender(Actor):
    """Sends numbers, from 0, one every `every_us`; notes answers and lost links."""

    def __init__(self, to: Address, count: int = 1_000_000, every_us: int = 10_000) -> None:
        self.to = to
        self.count = count
        self.every_us = every_us
        self.next = 0
        self.got: list[int] = []
        self.refused: list[str] = []
        self.lost: list[tuple[int, Node]] = []

    def on_start(self, ctx: Context) -> None:
        ctx.set_timer("next", 0)

    def on_timer(self, ctx: Context, name: str) -> None:
        if self.next < self.count:
            ctx.send(self.to, ping(self.next))
            self.next += 1
            ctx.set_timer("next", self.every_us)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if isinstance(message, Refused):
            self.refused.append(message.text)
        elif isinstance(message, Ping):
            self.got.append(message.term)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        self.lost.append((ctx.now_us - START_US, node))


class Echo(Actor):
    """Answers every Ping; keeps the number first when `durable`."""

    def __init__(self, durable: bool = False) -> None:
        self.durable = durable
        self.got: list[int] = []
        self.principals: set[Principal] = set()
        self.lost: list[Node] = []
        self.recovered: list[str] = []

    def on_start(self, ctx: Context) -> None:
        self.recovered = sorted(ctx.recovered)

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        assert isinstance(message, Ping)
        self.got.append(message.term)
        self.principals.add(ctx.principal)
        if self.durable:
            ctx.persist(f"{message.term:04d}", UserRecord(b""))
        ctx.send(sender, message)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        self.lost.append(node)


def pair(world: World, *, count: int = 1_000_000, durable: bool = False) -> tuple[Host, Host]:
    """A client that sends to a server; both run."""
    server = world.add_host("server", node=SERVER)
    server.spawn("echo", lambda: Echo(durable), durable=durable).start()
    client = world.add_host("client", principal="alice")
    client.spawn("sender", lambda: Sender(server.address("echo"), count)).start()
    return client, server


def sender(host: Host) -> Sender:
    actor = host.actor("sender")
    assert isinstance(actor, Sender)
    return actor


def echo(host: Host) -> Echo:
    actor = host.actor("echo")
    assert isinstance(actor, Echo)
    return actor


def test_time_passes_only_by_the_schedule() -> None:
    world = World()
    client, server = pair(world, count=3)
    world.run(SECOND_US)

    assert world.elapsed_us == SECOND_US
    assert echo(server).got == [0, 1, 2]
    assert sender(client).got == [0, 1, 2]


def test_the_link_states_who_it_is() -> None:
    world = World()
    client, server = pair(world, count=1)
    world.run(SECOND_US)

    assert echo(server).principals == {"alice"}
    assert client.node.startswith("peer:")


def test_until_stops_at_the_event_and_tells_what_went_before_in_vain() -> None:
    world = World()
    client, _ = pair(world)
    world.until(lambda: sender(client).got == [0, 1], within_us=SECOND_US)

    assert sender(client).got == [0, 1]
    with pytest.raises(NotReached, match=r"within 0\.1 s of virtual time.*(\n.*)*start client 1 peer:"):
        world.until(lambda: False, within_us=SECOND_US // 10)


@pytest.mark.parametrize(
    ("fate", "expected"),
    [((), [0, 2, 3]), ((0,), [0, 1, 2, 3]), ((0, 500), [0, 1, 2, 3]), ((25_000,), [0, 1, 2, 3])],
    ids=["lost", "normal", "doubled", "late"],
)
def test_a_fate_strikes_the_message_it_names(fate: tuple[int, ...], expected: list[int]) -> None:
    world = World(Plan({("client", "server", 1): fate}))
    _, server = pair(world, count=4)
    world.run(SECOND_US)

    assert echo(server).got == expected


def test_on_a_wire_that_reorders_the_overtaken_is_dropped() -> None:
    settings = WorldSettings(network=NetworkSettings(fifo=False))
    world = World(Plan({("client", "server", 1): (25_000,)}), settings=settings)
    _, server = pair(world, count=4)
    world.run(SECOND_US)

    assert echo(server).got == [0, 2, 3]
    assert world.network.counts["doubled_or_late"] == 1


def test_a_crashed_host_is_told_and_comes_back_empty() -> None:
    world = World()
    client, server = pair(world)
    world.run(105_000)
    server.crash()
    world.run(50_000)
    assert [node for _, node in sender(client).lost] == [SERVER]
    with pytest.raises(LookupError, match="'echo' does not run"):
        server.actor("echo")

    server.start()
    world.run(50_000)
    assert echo(server).got == list(range(min(echo(server).got), min(echo(server).got) + len(echo(server).got)))
    assert echo(server).got
    assert server.incarnation == 2


def test_a_client_that_crashes_is_told_and_has_another_name_afterwards() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    before = client.node
    client.crash()
    client.start()
    world.run(50_000)

    assert echo(server).lost == [before]
    assert client.node != before
    assert 0 in sender(client).got


def test_who_listens_nowhere_is_told_lost_after_the_connect_timeout() -> None:
    world = World()
    client = world.add_host("client").spawn("sender", lambda: Sender(Address("tcp://10.9.9.9:1/echo"), 1)).start()
    world.run(10 * SECOND_US)

    assert sender(client).lost == [(5 * SECOND_US + 500, "tcp://10.9.9.9:1")]


def test_what_waits_for_a_host_that_starts_in_time_arrives() -> None:
    world = World()
    server = world.add_host("server", node=SERVER).spawn("echo", Echo)
    client = world.add_host("client").spawn("sender", lambda: Sender(server.address("echo"), 3)).start()
    world.run(2 * SECOND_US)
    server.start()
    world.run(SECOND_US)

    assert sender(client).got == [0, 1, 2]
    assert sender(client).lost == []


def test_a_cut_swallows_and_after_a_silence_ends_the_link_for_both() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.cut("client", "server")
    world.run(SECOND_US)
    silent = len(sender(client).got)
    world.run(7 * SECOND_US)

    assert len(sender(client).got) == silent
    assert [node for _, node in sender(client).lost] == [SERVER]
    assert echo(server).lost == [client.node]

    world.heal()
    world.run(6 * SECOND_US)
    assert len(sender(client).got) > silent


def test_a_short_cut_is_only_a_loss() -> None:
    world = World()
    client, _ = pair(world)
    world.run(50_000)
    world.cut("client", "server", one_way=True)
    world.run(SECOND_US)
    world.heal("server", "client")
    world.run(10 * SECOND_US)

    assert sender(client).lost == []
    assert len(sender(client).got) < sender(client).next - 50


def test_broken_links_are_told_and_used_again() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.break_links("client", "server")
    world.run(SECOND_US)

    assert [node for _, node in sender(client).lost] == [SERVER]
    assert echo(server).lost == [client.node]
    assert sender(client).got[-1] > 80


def test_a_stall_is_only_late() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.stall("client", "server", SECOND_US)
    world.run(2_000)  # for what was on its way
    before = len(echo(server).got)
    world.run(SECOND_US - 10_000)
    assert len(echo(server).got) == before

    world.run(SECOND_US)
    assert sender(client).lost == []
    assert echo(server).got == list(range(len(echo(server).got)))
    assert len(echo(server).got) > sender(client).next - 5


@pytest.mark.parametrize("fifo", [True, False])
def test_a_stall_that_is_healed_is_over(fifo: bool) -> None:
    world = World(settings=WorldSettings(network=NetworkSettings(fifo=fifo)))
    client, server = pair(world)
    world.run(50_000)
    world.stall("client", "server")
    world.run(3 * SECOND_US)
    world.heal()
    world.run(SECOND_US)

    assert sender(client).lost == []
    assert len(echo(server).got) > sender(client).next - 5
    assert len(set(echo(server).got)) == len(echo(server).got)


def test_a_stall_during_another_makes_it_longer_and_one_after_it_is_a_new_one() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.stall("client", "server", 3 * SECOND_US)
    world.run(2 * SECOND_US)
    world.stall("client", "server", 3 * SECOND_US)
    world.run(2_900_000)
    assert len(echo(server).got) < 10

    world.run(200_000)
    assert len(echo(server).got) > 400
    world.stall("client", "server", 4 * SECOND_US)
    world.run(5 * SECOND_US)
    assert sender(client).lost == []
    assert echo(server).got == list(range(len(echo(server).got)))


def test_who_dies_behind_a_stalled_line_is_missed_when_it_is_over_or_silent_for_long() -> None:
    for lasts_us, missed_us in ((2 * SECOND_US, 2_050_000), (60 * SECOND_US, 6_050_000)):
        world = World()
        client, server = pair(world, count=20)
        world.run(50_000)
        world.stall("client", "server", lasts_us)
        world.run(SECOND_US)
        client.crash()
        world.run(missed_us - SECOND_US - 100_000)
        assert (len(echo(server).got), echo(server).lost) == (6, [])
        world.run(200_000)
        assert len(echo(server).lost) == 1
        assert len(echo(server).got) == (20 if lasts_us < missed_us else 6)


def test_who_begins_again_behind_a_stalled_line_is_heard_afterwards() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.stall("client", "server")
    world.run(SECOND_US)
    client.crash()
    client.start()
    world.run(2 * SECOND_US)
    assert len(echo(server).got) == 6

    world.heal()
    world.run(SECOND_US)
    assert len(sender(client).got) > 200


def test_a_long_stall_ends_the_link() -> None:
    world = World()
    client, server = pair(world)
    world.run(50_000)
    world.stall("client", "server", 60 * SECOND_US)
    world.run(7 * SECOND_US)
    assert [node for _, node in sender(client).lost] == [SERVER]
    assert echo(server).lost == [client.node]

    world.heal()
    world.run(SECOND_US)
    assert echo(server).got[-1] > sender(client).next - 5


def test_a_letter_to_nobody_is_answered() -> None:
    world = World()
    world.add_host("server", node=SERVER).spawn("echo", Echo).start()
    client = world.add_host("client").spawn("sender", lambda: Sender(Address(f"{SERVER}/nobody"), 1)).start()
    world.run(SECOND_US)

    assert sender(client).refused == [f"there is no actor 'nobody' in {SERVER}"]


def test_a_pause_delays_everything_and_loses_nothing() -> None:
    world = World()
    client, server = pair(world, count=10)
    world.run(5_000)
    server.pause(SECOND_US)
    world.run(SECOND_US - 10_000)
    assert echo(server).got == [0]

    world.run(SECOND_US)
    assert echo(server).got == list(range(10))
    assert sender(client).got == list(range(10))


@pytest.mark.parametrize("forever", [False, True], ids=["pauses", "hangs"])
def test_who_stands_still_for_long_has_lost_its_links_when_it_goes_on(forever: bool) -> None:
    world = World()
    client, server = pair(world, count=10)
    world.run(5_000)
    if forever:
        server.hang()
    else:
        server.pause(8 * SECOND_US)
    world.run(7 * SECOND_US)
    assert [node for _, node in sender(client).lost] == [SERVER]
    assert (echo(server).got, echo(server).lost) == ([0], [])

    server.wake()
    world.run(2 * SECOND_US)
    assert echo(server).got == list(range(10))
    assert set(echo(server).lost) == {client.node}
    assert sender(client).got == [0]


def test_clocks_may_differ() -> None:
    world = World()
    client, _ = pair(world)
    client.skew_us = 7 * SECOND_US
    world.run(50_000)
    world.break_links("client", "server")
    world.run(50_000)

    assert sender(client).lost[0][0] > 7 * SECOND_US


def answered_are_kept(make: Callable[[], Actor], plan: Plan) -> tuple[list[int], list[str]]:
    """The numbers answered before the server died at its third sync, and the keys that it finds again."""
    world = World(plan)
    server = world.add_host("server", node=SERVER).spawn("echo", make, durable=True).start()
    client = world.add_host("client").spawn("sender", lambda: Sender(server.address("echo"), 3)).start()
    world.until(lambda: server.incarnation == 2 and server.up, within_us=SECOND_US)
    world.run(SECOND_US)
    return sender(client).got, echo(server).recovered


def test_a_host_that_dies_at_its_disk_has_answered_only_what_it_kept() -> None:
    answered, kept = answered_are_kept(lambda: Echo(durable=True), Plan({("disk", "server", 2): ()}))

    assert kept == ["0000", "0001"]
    assert answered == [0, 1]


def test_the_planted_bug_of_answering_before_keeping_is_found() -> None:
    class Hasty(Echo):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            assert isinstance(message, Ping)
            ctx.send(sender, message)
            ctx.persist(f"{message.term:04d}", UserRecord(b""))

    answered, kept = answered_are_kept(Hasty, Plan({("disk", "server", 2): ()}))

    assert kept == ["0000", "0001"]
    assert answered == [0, 1, 2]


def test_a_slow_disk_holds_the_answers_back() -> None:
    world = World(Plan({("disk", "server", 0): (200_000,)}))
    client, _ = pair(world, count=3, durable=True)
    world.run(150_000)
    assert sender(client).got == []

    world.run(SECOND_US)
    assert sender(client).got == [0, 1, 2]


@pytest.mark.parametrize(("keep", "expected"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_a_crash_loses_what_is_not_synced_but_for_what_got_there(keep: int, expected: int) -> None:
    world = World(settings=WorldSettings(sync_us=SECOND_US))
    _, server = pair(world, count=3, durable=True)
    world.run(100_000)
    server.crash(keep_unsynced=keep)
    server.start()

    assert len(echo(server).recovered) == expected


class Launcher:
    """A port that outlives its process: ends a task long after it was asked to."""

    def __init__(self) -> None:
        self.ended = 0
        self.starts = 0
        self.outlet: Outlet

    def start(self, outlet: Outlet) -> None:
        self.outlet = outlet
        self.starts += 1

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        assert isinstance(message, Ping)
        self.outlet.call_later(SECOND_US, self._end)

    def _end(self) -> None:
        self.ended += 1
        self.outlet.send(local("echo"), ping(self.ended))

    def on_flush(self) -> None:
        """Nothing is gathered."""

    def close(self) -> None:
        """Nothing is held."""


@pytest.mark.parametrize(("survives", "machine", "ended"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_a_port_may_outlive_its_process_but_not_its_machine(survives: bool, machine: bool, ended: int) -> None:
    world = World()
    host = world.add_host("agent").spawn("echo", Echo).add_port("launcher", Launcher, survives=survives).start()
    host.post("launcher", ping(1))
    world.run(1_000)
    host.crash(machine=machine)
    host.start()
    world.run(SECOND_US + 500_000)
    port = host.port("launcher")

    assert isinstance(port, Launcher)
    assert port.ended == ended
    assert port.starts == (2 if survives and not machine else 1)
    assert echo(host).got == [1] * ended


def test_a_cancelled_call_is_not_made() -> None:
    world = World()
    host = world.add_host("agent").spawn("echo", Echo).add_port("launcher", Launcher).start()
    port = host.port("launcher")
    assert isinstance(port, Launcher)
    port.outlet.call_later(10, port._end).cancel()
    world.run(SECOND_US)

    assert port.ended == 0


def test_an_actor_that_raises_stops_the_run_unless_tolerated() -> None:
    class Bad(Actor):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            raise RuntimeError("no")

    strict, lenient = World(), World(tolerate_failures=True)
    for world in (strict, lenient):
        world.add_host("host").spawn("bad", Bad).start().post("bad", ping(1))
    with pytest.raises(ActorFailed, match=r"host: actor 'bad' raised RuntimeError\('no'\)"):
        strict.run(SECOND_US)
    lenient.run(SECOND_US)

    assert isinstance(strict.violation, ActorFailed)
    assert [(host, actor) for host, actor, _ in lenient.failures] == [("host", "bad")]


def test_an_invariant_sees_each_event_and_stops_the_run() -> None:
    seen: list[str] = []

    def no_third(world: World, event: Event) -> None:
        seen.append(event.kind)
        if event.message == ping(2):
            raise InvariantViolation("a third message")

    world = World(invariants=[no_third])
    pair(world)
    with pytest.raises(InvariantViolation, match="a third message"):
        world.run(SECOND_US)

    assert world.violation is not None
    assert {"start", "message", "timer"} <= set(seen)


def test_after_calm_nothing_goes_wrong_any_more() -> None:
    world = World(Plan({("client", "server", n): () for n in range(1_000)}))
    client, server = pair(world)
    world.cut("client", "server")
    server.crash()
    world.run(10 * SECOND_US)
    assert sender(client).got == []

    world.calm()
    world.run(6 * SECOND_US)
    assert sender(client).got


def test_a_graceful_end_lets_last_words_arrive() -> None:
    class Polite(Sender):
        def on_stop(self, ctx: Context) -> None:
            ctx.send(self.to, ping(77))

    world = World()
    server = world.add_host("server", node=SERVER).spawn("echo", Echo).start()
    client = world.add_host("client").spawn("sender", lambda: Polite(server.address("echo"), 1)).start()
    world.run(50_000)
    node = client.node
    client.stop()
    world.run(SECOND_US)

    assert not client.up
    assert echo(server).got == [0, 77]
    assert echo(server).lost == [node]


def test_a_standstill_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(world_module, "MAX_STEPS_AT_ONCE", 1_000)

    class Stuck(Actor):
        def on_start(self, ctx: Context) -> None:
            ctx.set_timer("again", 0)

        def on_timer(self, ctx: Context, name: str) -> None:
            ctx.set_timer("again", 0)

    world = World()
    world.add_host("host").spawn("stuck", Stuck).start()
    with pytest.raises(InvariantViolation, match="the clock still says 0 us"):
        world.run(SECOND_US)


def test_bad_set_up_is_named() -> None:
    world = World()
    world.add_host("a").spawn("x", Actor)
    with pytest.raises(ConfigError, match="host 'disk'"):
        world.add_host("disk")
    with pytest.raises(ConfigError, match="host 'a'"):
        world.add_host("a")
    with pytest.raises(ConfigError, match="node 'udp://x'"):
        world.add_host("b", node="udp://x")
    with pytest.raises(ConfigError, match="actor 'x'"):
        world.hosts["a"].spawn("x", Actor)
    with pytest.raises(ConfigError, match="port 'x'"):
        world.hosts["a"].add_port("x", Launcher)
    with pytest.raises(ConfigError, match="a: is down"):
        world.hosts["a"].post("x", ping(1))
    with pytest.raises(ConfigError, match="not less than 0"):
        Plan({("a", "b", 0): (-1,)})


def test_nodes_of_answers_are_the_senders() -> None:
    class Asker(Sender):
        def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
            assert node_of(sender) == SERVER
            super().on_message(ctx, sender, message)

    world = World()
    server = world.add_host("server", node=SERVER).spawn("echo", Echo).start()
    client = world.add_host("client").spawn("sender", lambda: Asker(server.address("echo"), 2)).start()
    world.run(SECOND_US)

    assert sender(client).got == [0, 1]
