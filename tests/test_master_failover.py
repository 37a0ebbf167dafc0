"""A new leader takes up what the old one left, and an old one lets go of it."""

from __future__ import annotations

import pytest

from mesos_actor.actors import master_losses
from mesos_actor.actors.actor import SetTimer
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, AgentId, ClusterId, OperationId, Role, TaskId, Term
from mesos_actor.actors.messages.agents import (
    KillTask,
    Ping,
    Pong,
    RegisterAgent,
    Registered,
    ShutdownAgent,
    ShutdownFramework,
)
from mesos_actor.actors.messages.clients import Instruct, SetRoleWeight
from mesos_actor.actors.messages.containers import ContainersRecovered
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    Committed,
    Following,
    FrameworkRecord,
    Leading,
    MemberRecord,
    ProposalRefused,
)
from mesos_actor.actors.messages.scheduler import (
    Instruction,
    Offers,
    OperationResult,
    Reconcile,
    Refused,
    Subscribe,
    Subscribed,
)
from mesos_actor.actors.task import Reason, TaskState
from tests import test_agent as agents
from tests import test_framework_driver as drivers
from tests.master_world import REGISTRY, World, report, task

CLI = Address("peer:c11/client")
NEXT = Address("tcp://10.0.0.2:5050/master")
MINUTE_MS = 60_000


def record_of(world: World, framework_id: str) -> FrameworkRecord:
    record = world.kept[f"framework/{framework_id}"]
    assert isinstance(record, FrameworkRecord)
    return record


def lead(world: World, term: int, *more: MemberRecord) -> None:
    """The registry says that this master leads, in this term."""
    state = world.registry.state
    assert state.cluster is not None
    leading = Leading(Term(term), state.cluster.cluster_id, (*state.records(), *more))
    world.registry.term = Term(term)
    world.deliver(REGISTRY, leading, "local")


def depose(world: World, term: int = 2) -> None:
    world.deliver(REGISTRY, Following(Term(term), NEXT), "local")


def agent_states(world: World) -> list[str]:
    return sorted(record.state for record in world.kept.values() if isinstance(record, AgentRecord))


# -- stepping down ----------------------------------------------------------------------------------------------------


def test_whoever_was_connected_is_told_at_once_who_leads_now() -> None:
    world = World()
    agent_id = world.agent("a")
    framework_id = world.framework("f")
    agent = world.master.roster.agents[agent_id].address
    framework = world.master.roster.frameworks[framework_id].address
    world.inbox.clear()

    world.deliver(REGISTRY, Following(Term(2), NEXT), "local")

    for where in (agent, framework):
        refused = world.one(where, Refused)
        assert (refused.reason, refused.leader, refused.fatal) == ("not-leading", NEXT, False)
    assert not world.master.leading


def test_whoever_waits_for_the_registry_is_answered_when_the_lead_is_lost() -> None:
    world = World()
    world.registry_answers = False
    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 5_000))

    world.deliver(REGISTRY, Following(Term(2), NEXT), "local")

    refused = world.one(CLI, Refused)
    assert ("deposed", NEXT, OperationId("w")) == (refused.reason, refused.leader, refused.operation_id)


def test_a_former_leaders_timers_touch_nothing() -> None:
    world = World()
    world.agent("a")
    world.deliver(REGISTRY, Following(Term(2), NEXT), "local")
    world.registry_answers = False
    world.inbox.clear()

    world.advance(10 * MINUTE_MS)

    assert {where: sent for where, sent in world.inbox.items() if sent} == {}
    assert agent_states(world) == ["admitted"]


def test_a_late_answer_of_the_registry_does_not_disturb_who_follows() -> None:
    world = World()
    world.registry_answers = False
    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 5_000))
    world.deliver(REGISTRY, Following(Term(2), NEXT), "local")
    world.inbox.clear()
    world.registry_answers = True

    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 5_000))

    assert world.take(CLI, OperationResult) == []
    assert world.master.roster.weights == {}


def test_an_operator_who_waits_for_a_framework_is_answered_when_the_lead_is_lost() -> None:
    world = World()
    framework_id = world.framework("f")
    world.deliver(CLI, Instruct(OperationId("i"), framework_id, b""))
    assert len(world.take("peer:f/framework", Instruction)) == 1

    depose(world)

    result = world.one(CLI, OperationResult)
    assert (OperationId("i"), False, "unavailable") == (result.operation_id, result.ok, result.reason)


def test_who_leads_again_without_having_followed_calls_everybody_to_itself() -> None:
    world = World()
    world.agent("a")
    world.framework("f")
    world.inbox.clear()

    lead(world, 2)

    for where in ("tcp://a:1/agent", "peer:f/framework"):
        refused = world.one(where, Refused)
        assert (refused.reason, refused.leader) == ("not-leading", "tcp://m:1/master")
    assert (world.master.leading, world.master.term) == (True, 2)


def test_a_refusal_of_an_earlier_terms_proposal_does_not_depose() -> None:
    world = World()
    depose(world)
    lead(world, 3)

    late = ProposalRefused(OperationId("of-an-earlier-term-P1"), "stale-term", "it is term 3")
    world.deliver(REGISTRY, late, "local")

    assert (world.master.leading, world.master.term) == (True, 3)


def test_a_timer_of_an_earlier_term_does_not_delay_one_of_this_term() -> None:
    world = World()
    framework_id = world.framework("f", failover_ms=20 * MINUTE_MS)
    world.lose_link("peer:f")
    depose(world)
    record = record_of(world, framework_id)
    sooner_us = world.now_us + MINUTE_MS * 1_000
    world.registry.state.frameworks[framework_id] = FrameworkRecord(framework_id, record.info, sooner_us)

    lead(world, 3)
    world.advance(MINUTE_MS + 1_000)

    assert record_of(world, framework_id).removed


def test_records_that_a_master_does_not_need_are_passed_over() -> None:
    world = World()
    depose(world)

    lead(world, 3, MemberRecord("h9:5050", "disk", 5))
    world.deliver(REGISTRY, Committed(OperationId("x"), 9, (), ("member/h9:5050",)), "local")

    assert world.master.leading
    world.agent("a")


def test_offers_of_an_earlier_term_are_void() -> None:
    world = World()
    agent_id, framework_id = world.agent("a"), world.framework("f")
    [old] = world.offers()
    depose(world)
    lead(world, 3)
    world.agent("a", agent_id=agent_id)
    world.framework("f", framework_id=framework_id)
    world.updates()

    world.accept(framework_id, [old.offer_id], task("t"))

    [status] = world.updates()
    assert (status.state, status.reason) == (TaskState.DROPPED, Reason.INVALID_OFFERS)


# -- deadlines of frameworks ------------------------------------------------------------------------------------------


def test_a_connected_framework_that_does_not_come_back_has_its_deadline_written_down() -> None:
    world = World(MasterSettings(reregister_window_ms=MINUTE_MS))
    framework_id = world.framework("f", failover_ms=20 * MINUTE_MS)
    assert record_of(world, framework_id).deadline_us == 0
    began_us = world.now_us

    world.start()
    world.advance(5_000)
    assert record_of(world, framework_id).deadline_us == 0
    world.advance(10_000)

    assert began_us + 20 * MINUTE_MS * 1_000 == record_of(world, framework_id).deadline_us


def test_a_deadline_goes_on_counting_across_leaders() -> None:
    world = World(MasterSettings(reregister_window_ms=MINUTE_MS))
    framework_id = world.framework("f", failover_ms=20 * MINUTE_MS)
    for _ in range(3):
        world.start()
        world.advance(6 * MINUTE_MS)
    assert not record_of(world, framework_id).removed

    world.start()
    world.advance(3 * MINUTE_MS)

    assert record_of(world, framework_id).removed


def test_a_framework_that_is_back_in_time_is_written_nothing_about() -> None:
    world = World()
    framework_id = world.framework("f", failover_ms=20 * MINUTE_MS)
    world.start()
    index = world.registry.index
    world.framework("f", framework_id=framework_id, failover_ms=20 * MINUTE_MS)

    world.advance(60_000)

    assert index == world.registry.index


def test_what_refused_to_be_written_down_is_tried_again() -> None:
    world = World(MasterSettings(reregister_window_ms=MINUTE_MS, max_pending_operations=1))
    framework_id = world.framework("f", failover_ms=20 * MINUTE_MS)
    world.start()
    world.registry_answers = False
    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 5_000))
    world.advance(11_000)
    assert record_of(world, framework_id).deadline_us == 0
    world.registry_answers = True

    world.advance(30_000)

    assert record_of(world, framework_id).deadline_us > 0


def test_a_framework_whose_time_ran_out_while_nobody_led_is_removed_and_its_tasks_end() -> None:
    world = World()
    framework_id, agent_id = world.run("t")
    world.lose_link("peer:f")
    world.now_us += 2 * MINUTE_MS * 1_000
    world.start()
    world.inbox.clear()

    world.agent("a", agent_id=agent_id, tasks=[report(framework_id, "t")])
    world.advance(19_000)
    assert not record_of(world, framework_id).removed
    world.advance(2_000)

    assert record_of(world, framework_id).removed
    assert [framework_id] == [m.framework_id for m in world.take("tcp://a:1/agent", ShutdownFramework)]


@pytest.mark.parametrize("ahead_ms", [-100 * MINUTE_MS, 100 * MINUTE_MS])
def test_a_deadline_that_another_clock_wrote_down_leaves_time_to_come_back_and_not_for_ever(ahead_ms: int) -> None:
    world = World()
    framework_id, _ = world.run("t")
    world.lose_link("peer:f")
    world.now_us += ahead_ms * 1_000  # the next leader's clock

    world.start()
    world.advance(19_000)
    assert not record_of(world, framework_id).removed
    world.advance(2 * MINUTE_MS)

    assert record_of(world, framework_id).removed


# -- agents that stay silent ------------------------------------------------------------------------------------------


def silent_world(limit_permille: int, agents: int, back: int) -> World:
    """A new leader's cluster in which so many of its agents have come back; their windows have passed."""
    world = World(MasterSettings(reregister_window_ms=MINUTE_MS, recovery_removal_limit_permille=limit_permille))
    ids = [world.agent(f"a{n}") for n in range(agents)]
    world.start()
    for n in range(back):
        world.agent(f"a{n}", agent_id=ids[n])
    world.inbox.clear()
    for _ in range(40):
        world.advance(2_000)
        for n in range(back):
            entry = world.master.roster.agents[ids[n]]
            if world.take(entry.address, Ping):
                world.deliver(entry.address, Pong(ids[n]))
    return world


def test_silent_agents_are_unreachable_after_their_window_and_not_before() -> None:
    world = World(MasterSettings(reregister_window_ms=MINUTE_MS))
    world.agent("a")
    world.start()

    world.advance(MINUTE_MS - 1_000)
    assert agent_states(world) == ["admitted"]
    world.advance(2_000)

    assert agent_states(world) == ["unreachable"]


def test_when_too_many_stay_silent_none_is_removed_and_that_is_shown() -> None:
    world = silent_world(limit_permille=500, agents=5, back=2)

    assert agent_states(world) == ["admitted"] * 5
    assert world.ask("status")[0]["held_removals"] == 3


def test_at_the_limit_the_silent_are_removed() -> None:
    world = silent_world(limit_permille=600, agents=5, back=2)

    assert agent_states(world) == ["admitted", "admitted", "unreachable", "unreachable", "unreachable"]
    assert world.ask("status")[0]["held_removals"] == 0


def test_when_enough_are_back_the_others_are_removed() -> None:
    world = silent_world(limit_permille=500, agents=5, back=2)
    third = next(iter(world.master.roster.silent))
    entry = world.master.roster.agents[third]

    world.agent(entry.info.hostname, agent_id=third)
    world.advance(1_000)

    assert agent_states(world) == ["admitted"] * 3 + ["unreachable"] * 2


def test_without_any_tolerance_one_silent_agent_is_held() -> None:
    world = silent_world(limit_permille=0, agents=2, back=1)

    assert agent_states(world) == ["admitted"] * 2


def test_a_new_leader_calls_agents_that_have_not_come_and_no_others() -> None:
    world = World()
    came, silent = world.agent("a0"), world.agent("a1")
    where = world.master.roster.agents[silent].info.address
    depose(world)
    world.inbox.clear()

    lead(world, 3)
    world.agent("a0", agent_id=came)
    world.advance(900)
    assert world.take(where, Ping) == []
    world.advance(100)

    assert world.take(where, Ping) == [Ping(Term(3), connected=False)]
    assert not [ping for ping in world.take(Address("tcp://a0:1/agent"), Ping) if not ping.connected]
    world.advance(10 * MINUTE_MS)
    assert len(world.take(where, Ping)) == master_losses.CALL_ROUNDS - 1


def test_agents_are_called_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(master_losses, "CALLS_A_TICK", 2)
    world = World()
    ids = [world.agent(f"a{n}") for n in range(5)]
    wheres = [world.master.roster.agents[agent_id].info.address for agent_id in ids]
    depose(world)
    world.inbox.clear()
    lead(world, 3)

    called = []
    for wait_ms in (1_000, 100, 100, 100):
        world.advance(wait_ms)
        called.append(sum(len(world.take(where, Ping)) for where in wheres))
    assert called == [2, 2, 1, 0]


def test_what_an_agent_told_another_term_is_not_believed() -> None:
    """Late on its way: since then the agent took part in a term of somebody else, and got a task. Its framework must
    not be told that the task is gone. (Found by the simulation, seed 8337: it was launched again, and ran twice.)"""
    world = World()
    agent_id, framework = world.agent("a"), world.framework("f")
    where = world.master.roster.agents[agent_id].info.address
    late = RegisterAgent(world.agent_info("a"), "reg-a", agent_id, world.master.cluster_id, term=Term(1))
    depose(world, 2)
    lead(world, 3)
    world.inbox.clear()

    world.deliver(where, late)

    refused = world.one(where, Refused)
    assert (refused.reason, refused.leader, refused.term) == ("other-term", "tcp://m:1/master", 3)
    assert not world.master.roster.agents[agent_id].registered
    world.framework("f", framework_id=framework)
    world.deliver("peer:f/framework", Reconcile(framework, ((TaskId("t"), agent_id),)))
    assert world.updates() == [], "nobody knows yet"
    assert world.agent("a", agent_id=agent_id, tasks=[report(framework)]) == agent_id
    world.deliver("peer:f/framework", Reconcile(framework, ((TaskId("t"), agent_id),)))
    assert [status.state for status in world.updates()] == [TaskState.RUNNING]


@pytest.mark.parametrize("term", [0, 2, 4])
def test_neither_an_older_nor_a_newer_terms_registration_is_believed(term: int) -> None:
    world = World()
    agent_id = world.agent("a")
    depose(world, 2)
    lead(world, 3)
    world.inbox.clear()

    message = RegisterAgent(world.agent_info("a"), "reg-a", agent_id, world.master.cluster_id, term=Term(term))
    world.deliver("tcp://a:1/agent", message)

    assert world.one("tcp://a:1/agent", Refused).reason == "other-term"
    assert not world.master.roster.agents[agent_id].registered


def test_an_agent_of_another_cluster_is_told_so_whatever_its_term() -> None:
    world = World()
    world.deliver(
        "tcp://a:1/agent", RegisterAgent(world.agent_info("a"), "r", AgentId("x"), ClusterId("x"), term=Term(9))
    )

    assert "belongs to cluster x" in world.one("tcp://a:1/agent", ShutdownAgent).text


def test_a_follower_names_the_leader_of_the_newest_term() -> None:
    world = World()
    for term in (2, 3):
        depose(world, term)
    world.deliver("tcp://a:1/agent", RegisterAgent(world.agent_info("a"), "reg-a"))

    refused = world.one("tcp://a:1/agent", Refused)
    assert (refused.leader, refused.term) == (NEXT, 3)


def test_the_first_word_of_an_agent_needs_no_term_and_does_not_count_later() -> None:
    world = World()
    first = RegisterAgent(world.agent_info("a"), "reg-a")
    world.deliver("tcp://a:1/agent", first)
    assert world.one("tcp://a:1/agent", Registered).term == 1
    depose(world, 2)
    lead(world, 3)
    world.inbox.clear()

    world.deliver("tcp://a:1/agent", first)

    assert world.one("tcp://a:1/agent", Refused).reason == "other-term"


def test_removals_that_are_held_do_not_keep_others(monkeypatch: pytest.MonkeyPatch) -> None:
    world = silent_world(limit_permille=500, agents=5, back=2)
    monkeypatch.setattr(master_losses, "MAX_MARKED_AT_ONCE", 1)

    world.lose_link("tcp://a0:1")
    world.advance(MINUTE_MS + 1_000)

    assert agent_states(world).count("unreachable") >= 1
    assert world.ask("status")[0]["held_removals"] == 3


def test_agents_are_removed_one_by_one_when_that_is_asked_for() -> None:
    settings = MasterSettings(reregister_window_ms=MINUTE_MS, agent_removal_interval_ms=20_000)
    world = World(settings)
    ids = [world.agent(f"a{n}") for n in range(3)]
    world.start()

    world.advance(MINUTE_MS + 1_000)
    assert agent_states(world).count("unreachable") == 1
    world.agent("a2", agent_id=ids[2])
    world.advance(15_000)
    assert agent_states(world).count("unreachable") == 1
    world.advance(5_500)

    assert agent_states(world) == ["admitted", "unreachable", "unreachable"]
    assert ids[2] in world.master.roster.agents


# -- what agents and frameworks make of it ----------------------------------------------------------------------------


def test_an_agent_refuses_the_orders_of_an_older_leader_after_its_own_restart_too() -> None:
    bench = agents.Bench()
    bench.tell(agents.M1, agents.registered())
    again = bench.restart()
    again.port(ContainersRecovered(()))

    older = Registered(AgentId("c-S1"), ClusterId("c"), Term(2), 25_000)
    again.tell(agents.M1, older)
    assert not again.agent.registration.connected
    assert agents.updates(again.tell(agents.M1, agents.run(agents.command("t"), term=2))) == [
        ("t", "DROPPED", "AGENT_STALE_TERM")
    ]
    for order in (KillTask(Term(2), agents.F, TaskId("t")), ShutdownFramework(Term(2), agents.F), Ping(Term(2))):
        assert again.tell(agents.M1, order) == []


def test_an_agent_that_was_sent_to_the_next_leader_asks_it_once() -> None:
    bench = agents.Bench()
    bench.tell(agents.M1, agents.registered())
    asked = []

    for _ in range(5):
        bench.tell(agents.M1, Refused("not-leading", "", leader=agents.M2))
        asked += [to for to, message in bench.ctx.sent() if isinstance(message, RegisterAgent)]

    assert asked == [agents.M2]


def test_an_agent_asks_soon_again_while_masters_answer_that_nobody_leads_yet() -> None:
    bench = agents.Bench()
    waits = []

    for _ in range(40):
        [(master, _)] = [sent for sent in bench.ctx.sent() if isinstance(sent[1], RegisterAgent)]
        bench.tell(master, Refused("not-leading", ""))
        waits.append(bench.timers["register"] - bench.now_us)
        bench.fire("register")

    assert max(waits[:1]) <= 200_000
    assert max(waits) <= 2_000_000


def test_a_framework_asks_soon_again_while_masters_answer_that_nobody_leads_yet() -> None:
    bench = drivers.Bench(masters=(drivers.M1, drivers.M2))
    bench.start()
    waits = []

    for n in range(40):
        effects = bench.get(Refused("not-leading", ""), sender=(drivers.M1, drivers.M2)[n % 2])
        waits += [e.delay_us for e in effects if isinstance(e, SetTimer) and e.name == "subscribe"]
        bench.timer("subscribe")

    assert len(waits) == 40
    assert waits[0] <= 200_000
    assert max(waits) <= 2_000_000


def test_a_launch_that_a_former_leader_refused_is_asked_about_at_the_next_one() -> None:
    bench = drivers.Bench(masters=(drivers.M1, drivers.M2))
    bench.register()
    bench.get(Offers((drivers.offer(),)))
    bench.acting(lambda f: f.accept([drivers.offer()], [drivers.task("t1")]))

    effects = bench.get(Refused("not-leading", "", leader=drivers.M2, about="Accept"))
    assert drivers.sent(effects, Subscribe)
    effects = bench.get(Subscribed(drivers.FRAMEWORK, ClusterId("c0"), Term(2)), sender=drivers.M2)

    asked = [pair for m in drivers.sent(effects) if isinstance(m, Reconcile) for pair in m.tasks]
    assert [(TaskId("t1"), drivers.AGENT)] == asked
