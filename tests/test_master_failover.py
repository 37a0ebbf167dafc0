"""A new leader takes up what the old one left, and an old one lets go of it."""

from __future__ import annotations

from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, OperationId, Role, Term
from mesos_actor.actors.messages.agents import Ping, Pong
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.registry import AgentRecord, Following, FrameworkRecord
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from tests.master_world import REGISTRY, World

CLI = Address("peer:c11/client")
NEXT = Address("tcp://10.0.0.2:5050/master")
MINUTE_MS = 60_000


def record_of(world: World, framework_id: str) -> FrameworkRecord:
    record = world.kept[f"framework/{framework_id}"]
    assert isinstance(record, FrameworkRecord)
    return record


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
    assert ("not-leading", NEXT, OperationId("w")) == (refused.reason, refused.leader, refused.operation_id)


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
