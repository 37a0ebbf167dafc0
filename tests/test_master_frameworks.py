"""Frameworks as the master sees them: subscription, takeover, failover deadline, teardown; and who may do what."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, FrameworkId, OperationId, Principal, Role, TaskId
from mesos_actor.actors.messages.agents import ShutdownFramework
from mesos_actor.actors.messages.registry import FrameworkRecord
from mesos_actor.actors.messages.scheduler import (
    OperationResult,
    Reconcile,
    Refused,
    Revive,
    Subscribe,
    Subscribed,
    Teardown,
    Unsubscribe,
)
from mesos_actor.actors.messages.values import FrameworkInfo
from mesos_actor.actors.resources import total
from mesos_actor.actors.task import TaskState
from tests.master_world import FOUR, World, report, task

F, A, CLI = "peer:f/framework", "tcp://a:1/agent", "peer:cli/client"
PATIENT = MasterSettings(ping_interval_ms=10_000_000)


def kept(world: World, framework: FrameworkId) -> FrameworkRecord:
    record = world.kept[f"framework/{framework}"]
    assert isinstance(record, FrameworkRecord)
    return record


def subscribe(world: World, principal: str = "cluster", where: str = F, **fields: Any) -> list[Any]:
    info = FrameworkInfo(**({"name": "f"} | fields.pop("info", {})))
    world.inbox.pop(Address(where), None)
    world.deliver(where, Subscribe(info, **fields), principal)
    return world.inbox.pop(Address(where), [])


# -- subscription


def test_a_framework_gets_the_next_id_and_its_principal_from_the_link() -> None:
    world = World()

    [answer] = subscribe(world, "ann", operation_id=OperationId("o"))

    framework = FrameworkId(f"{world.master.cluster_id}-0000")
    assert Subscribed(framework, world.master.cluster_id, world.master.term, OperationId("o")) == answer
    assert (kept(world, framework).info.principal, kept(world, framework).deadline_us) == ("ann", 0)


def test_a_repeated_subscribe_makes_no_second_framework() -> None:
    world = World()

    [first] = subscribe(world, operation_id=OperationId("o"))
    [second] = subscribe(world, operation_id=OperationId("o"))

    assert first == second
    assert len(world.master.roster.frameworks) == 1


def test_somebody_elses_operation_id_gives_no_access() -> None:
    world = World()
    subscribe(world, "ann", operation_id=OperationId("o"))

    [refused] = subscribe(world, "bob", "peer:bob/framework", operation_id=OperationId("o"))

    assert (refused.reason, refused.fatal) == ("unauthorized", True)


@pytest.mark.parametrize(
    ("info", "suppressed", "text"),
    [
        ({"roles": ("a", "a")}, (), "'FrameworkInfo.roles' contains duplicate items"),
        ({"roles": ("-a",)}, (), "'FrameworkInfo.roles' contains an invalid role: Role path element '-a' is invalid"),
        ({"roles": ("a",)}, ("b",), "Suppressed role 'b' is not one of the framework's roles"),
        ({"failover_timeout_ms": -1}, (), "The framework's 'failover_timeout_ms' must be non-negative, not -1"),
        ({"failover_timeout_ms": 10**20}, (), "The framework's 'failover_timeout_ms' must be at most"),
        ({"user": "a b"}, (), "FrameworkInfo.user 'a b' is not the name of a Unix user"),
        ({"name": "x" * 256}, (), "FrameworkInfo.name must not be longer than 255 characters"),
        ({"roles": tuple(f"r{n}" for n in range(1_001))}, (), "has 1001 roles; at most 1000 are accepted"),
    ],
)
def test_an_invalid_info_is_refused_by_field(info: dict[str, Any], suppressed: tuple[Role, ...], text: str) -> None:
    world = World()

    [refused] = subscribe(world, info=info, suppressed_roles=suppressed)

    assert (refused.reason, refused.fatal) == ("invalid", True)
    assert text in refused.text


def test_a_principal_that_is_claimed_but_not_proven_is_refused() -> None:
    world = World()

    [refused] = subscribe(world, "bob", info={"principal": Principal("ann")})

    assert refused.reason == "unauthorized"
    assert refused.text == "Authenticated principal 'bob' does not match principal 'ann' set in `FrameworkInfo`"


def test_an_executors_key_is_not_a_frameworks() -> None:
    world = World()

    [refused] = subscribe(world, "executor:c1")

    assert refused.reason == "unauthorized"


def test_an_unknown_or_foreign_framework_id_is_refused() -> None:
    world = World()
    [answer] = subscribe(world, "ann")

    [unknown] = subscribe(world, framework_id=FrameworkId("x-0000"))
    [foreign] = subscribe(world, "bob", "peer:bob/framework", framework_id=answer.framework_id)

    assert (unknown.reason, unknown.fatal) == ("removed", True)
    assert (foreign.reason, foreign.fatal) == ("unauthorized", True)


def test_suppressed_roles_get_no_offers() -> None:
    world = World()
    world.agent()

    [answer] = subscribe(world, suppressed_roles=(Role("*"),))

    assert isinstance(answer, Subscribed)


# -- takeover


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_the_newest_connection_wins_and_keeps_the_tasks(allocator: Any) -> None:
    world = World(allocator=allocator)
    framework, _ = world.run()
    [old_offer] = world.offers()

    world.framework("f", framework, node="peer:new")

    refused = world.one(F, Refused)
    assert (refused.reason, refused.fatal, refused.text) == ("failed-over", True, "Framework failed over")
    assert list(world.master.roster.frameworks[framework].tasks) == ["t"]
    [new_offer] = world.offers("new")
    assert (old_offer.resources, False) == (new_offer.resources, new_offer.offer_id == old_offer.offer_id)
    world.deliver(F, Reconcile(framework))
    assert (world.one(F, Refused).reason, refused.fatal) == ("failed-over", True)


def test_a_changed_info_is_written_down_first_and_the_user_stays() -> None:
    world = World()
    framework = world.framework()

    changed = {"roles": ("ads",), "user": "root", "failover_timeout_ms": 5}
    subscribe(world, info=changed, framework_id=framework)

    info = kept(world, framework).info
    assert (info.roles, info.user, info.failover_timeout_ms) == (("ads",), "", 5)
    assert world.allocator.frameworks[framework] == ("ads",)


def test_another_framework_at_the_same_address_replaces_the_former() -> None:
    world = World()
    first = world.framework()

    [answer] = subscribe(world, operation_id=OperationId("other"))

    assert first != answer.framework_id
    assert not world.master.roster.frameworks[first].connected


# -- going away


@pytest.mark.parametrize("how", ["link", "unsubscribe"])
def test_a_framework_that_goes_away_has_its_failover_timeout_to_come_back(how: str) -> None:
    world = World(PATIENT)
    framework, agent_id = world.run()
    world.offers()
    left_us = world.now_us
    world.lose_link("peer:f") if how == "link" else world.deliver(F, Unsubscribe(framework))

    assert left_us + 60_000_000 == kept(world, framework).deadline_us
    assert len(world.master.offers) == 0
    world.advance(59_000)
    assert framework == world.framework(framework_id=framework)
    assert kept(world, framework).deadline_us == 0
    world.advance(60_000)
    assert [agent_id] == [task.agent_id for task in world.master.roster.frameworks[framework].tasks.values()]


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_a_framework_that_does_not_come_back_is_removed_with_its_tasks(allocator: Any) -> None:
    world = World(PATIENT, allocator)
    framework, agent_id = world.run()
    world.framework("g")
    world.lose_link("peer:f")

    world.advance(60_000)

    assert kept(world, framework).removed
    assert framework == world.one(A, ShutdownFramework).framework_id
    assert total(offer.resources for offer in world.offers("g")) == FOUR
    [refused] = subscribe(world, framework_id=framework)
    assert (refused.reason, refused.fatal, refused.text) == ("removed", True, "Framework has been removed")
    assert [(row["task_id"], row["state"], row["reason"]) for row in world.ask("tasks")] == [
        ("t", "KILLED", "FRAMEWORK_REMOVED")
    ]
    assert [agent_id] == [row["agent_id"] for row in world.ask("tasks")]


def test_without_a_failover_timeout_a_framework_ends_with_its_connection() -> None:
    world = World()
    framework = world.framework(failover_ms=0)

    world.lose_link("peer:f")

    assert kept(world, framework).removed


def test_a_framework_that_returns_while_its_removal_is_written_is_told() -> None:
    world = World()
    framework = world.framework(failover_ms=0)
    world.registry_answers = False
    world.lose_link("peer:f")
    world.registry_answers = True

    subscribe(world, framework_id=framework)
    world.advance(21_000)

    assert world.one(F, Refused).reason == "unavailable"
    [refused] = subscribe(world, framework_id=framework)
    assert refused.reason == "removed"


# -- the master's restart


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_a_failover_deadline_survives_the_master(allocator: Any) -> None:
    world = World(PATIENT, allocator)
    framework, agent_id = world.run()
    world.lose_link("peer:f")
    world.advance(30_000)

    world.start()
    world.agent(agent_id=agent_id, tasks=[report(framework)])
    world.advance(29_000)
    assert not kept(world, framework).removed
    world.advance(2_000)

    assert kept(world, framework).removed


def test_a_framework_that_was_connected_gets_time_to_find_the_new_master() -> None:
    world = World(MasterSettings(reregister_window_ms=10_000))
    framework = world.framework(failover_ms=0)
    world.start()

    world.advance(9_000)
    assert not kept(world, framework).removed
    world.advance(2_000)

    assert kept(world, framework).removed


def test_a_message_before_subscribing_to_the_new_master_is_refused() -> None:
    world = World()
    framework = world.framework()
    world.start()

    world.deliver(F, Revive(framework))

    assert world.one(F, Refused).reason == "not-subscribed"


# -- teardown


@pytest.mark.parametrize(("sender", "principal"), [(F, "ann"), (CLI, "cluster"), (CLI, "ann")])
def test_teardown_by_itself_by_an_operator_or_by_its_owner(sender: str, principal: str) -> None:
    world = World()
    [answer, *_] = subscribe(world, "ann")

    world.deliver(sender, Teardown(answer.framework_id, OperationId("t"), "finished"), principal)

    assert OperationResult(OperationId("t"), True) == world.one(sender, OperationResult)
    assert (kept(world, answer.framework_id).removed, kept(world, answer.framework_id).outcome) == (True, "finished")
    assert ([] if sender == F else ["removed"]) == [m.reason for m in world.take(F, Refused)]


def test_nobody_else_tears_down() -> None:
    world = World()
    [answer] = subscribe(world, "ann")

    world.deliver(CLI, Teardown(answer.framework_id), "bob")

    assert world.one(CLI, Refused).reason == "unauthorized"
    assert not kept(world, answer.framework_id).removed


def test_a_repeated_teardown_is_told_that_it_is_done() -> None:
    world = World()
    framework = world.framework()
    world.deliver(F, Teardown(framework))

    world.deliver(F, Teardown(framework, OperationId("t")))
    world.deliver(F, Revive(framework))

    assert [m.reason for m in world.take(F, Refused)] == ["removed", "removed"]


def test_teardown_frees_what_the_framework_held() -> None:
    world = World()
    framework, _ = world.run()
    world.deliver(F, Teardown(framework))
    other = world.framework("g")

    assert [offer.resources for offer in world.offers("g")] == [FOUR]
    world.launch(other, [next(iter(world.master.offers.all())).offer], task("t"), name="g")
    assert world.master.roster.frameworks[other].tasks[TaskId("t")].state == TaskState.STAGING


def test_only_so_many_removed_frameworks_are_remembered_with_their_tasks() -> None:
    world = World(replace(PATIENT, max_completed_frameworks=1))
    for name in ("f", "g"):
        framework = world.framework(name)
        world.deliver(f"peer:{name}/framework", Teardown(framework))

    assert [entry.info.name for entry in world.master.roster.completed] == ["g"]
    assert [row["state"] for row in world.ask("frameworks")] == ["removed", "removed"]


def test_a_late_word_of_a_dead_process_does_not_drive_out_its_successor() -> None:
    world = World()
    framework = world.framework("f")
    info = world.master.roster.frameworks[framework].info
    world.deliver("peer:new/framework", Subscribe(info, framework, incarnation=2))
    assert isinstance(world.one("peer:new/framework", Subscribed), Subscribed)

    world.deliver("peer:old/framework", Subscribe(info, framework, incarnation=1))

    assert world.one("peer:old/framework", Refused).reason == "failed-over"
    assert world.master.roster.frameworks[framework].address == "peer:new/framework"


@pytest.mark.parametrize("message", [Subscribe, Teardown])
def test_only_the_registry_says_which_framework_is_unknown(message: Any) -> None:
    """This master may have stood still while another one led, and let the framework in."""
    world = World()
    unknown = FrameworkId("c0-0009")
    asked = message(FrameworkInfo("f"), framework_id=unknown) if message is Subscribe else message(unknown)
    world.deliver(F, asked)
    refused = world.one(F, Refused)
    assert (refused.reason, refused.fatal) == ("removed", True)
    assert refused.text == "Framework c0-0009 is not known here: removed long ago, or of another cluster"

    world.registry_answers = False
    world.deliver(F, asked)

    assert world.take(F, Refused) == []
