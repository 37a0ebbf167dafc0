"""Each rule of the allocator, in the words of docs/allocator.md."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

import pytest

from mesos_actor.actors.core.allocation import Allocation, Allocator
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.errors import InternalError
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.resources import Attributes, Resources

F1, F2, F3 = FrameworkId("f1"), FrameworkId("f2"), FrameworkId("f3")
A1, A2, A3 = AgentId("a1"), AgentId("a2"), AgentId("a3")
ANY, ENG, OPS = Role("*"), Role("eng"), Role("ops")
WEB = Role("eng/web")


def parse(text: str) -> Resources:
    return Resources.parse(text)


def add_agent(
    allocator: DrfAllocator,
    agent: AgentId,
    total: str = "cpus:4;mem:4096",
    used: Mapping[tuple[FrameworkId, Role], Resources] | None = None,
) -> None:
    allocator.add_agent(agent, parse(total), Attributes(), used or {})


def add(allocator: DrfAllocator, framework: FrameworkId, *roles: Role) -> None:
    allocator.add_framework(framework, roles or (ANY,), ())


def offers(allocator: DrfAllocator, now_us: int = 0) -> list[tuple[str, str, str, str]]:
    """What `allocate` hands out now, as texts, sorted by agent."""
    made = allocator.allocate(now_us, random.Random(1))
    allocator.check()
    return sorted(text(one) for one in made)


def text(offer: Allocation) -> tuple[str, str, str, str]:
    return (offer.agent_id, offer.framework_id, offer.role, str(offer.resources))


def reasons(allocator: DrfAllocator, framework: FrameworkId, now_us: int = 0) -> list[tuple[str, str, str]]:
    return [(r.agent_id, r.role, r.reason) for r in allocator.explain(framework, now_us)]


def counts(made: Iterable[Allocation]) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in made:
        found[one.framework_id] = found.get(one.framework_id, 0) + 1
    return found


def test_it_is_an_allocator() -> None:
    allocator: Allocator = DrfAllocator()

    assert allocator.allocate(0, random.Random(1)) == []


def test_everything_free_of_an_agent_goes_to_one_framework_and_is_the_same_object() -> None:
    allocator = DrfAllocator()
    total = parse("cpus:4;mem:4096;ports:[1-9]")
    allocator.add_agent(A1, total, Attributes(), {})
    add(allocator, F1)
    add(allocator, F2)

    made = allocator.allocate(0, random.Random(1))

    assert [Allocation(F1, A1, ANY, total)] == made
    assert made[0].resources is total
    assert allocator.allocate_all(0, random.Random(1)) == []


def test_the_framework_with_the_smaller_dominant_share_is_next() -> None:
    allocator = DrfAllocator()
    # Of 10 cpus and 10,000 MB, f1 holds 4 cpus (share 0.4), f2 holds 5,000 MB (share 0.5).
    add(allocator, F1)
    add(allocator, F2)
    used = {(F1, ANY): parse("cpus:4;mem:1"), (F2, ANY): parse("cpus:1;mem:4999")}
    add_agent(allocator, A1, "cpus:5;mem:5000", used)
    add_agent(allocator, A2, "cpus:5;mem:5000")
    allocator.set_agent_active(A1, False)

    assert offers(allocator) == [("a2", "f1", "*", "cpus:5;mem:5000")]


def test_between_equal_shares_whoever_was_chosen_less_often_is_next_and_then_the_name() -> None:
    allocator = DrfAllocator()
    add(allocator, F2)
    add(allocator, F1)
    add_agent(allocator, A1)

    chosen = []
    for _ in range(4):
        (offer,) = allocator.allocate(0, random.Random(1))
        chosen.append(offer.framework_id)
        allocator.recover(offer.framework_id, A1, ANY, offer.resources)

    assert chosen == ["f1", "f2", "f1", "f2"]


def test_what_is_freed_is_offered_again_by_the_next_call() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    add_agent(allocator, A2)
    offers(allocator)

    allocator.recover(F1, A1, ANY, parse("cpus:1;mem:64"))

    assert offers(allocator) == [("a1", "f1", "*", "cpus:1;mem:64")]


@pytest.mark.parametrize(
    ("free", "is_offered"),
    [("cpus:0.01", True), ("cpus:0.009;mem:31.999", False), ("mem:32", True), ("disk:9999;ports:[1-9]", False)],
)
def test_less_than_the_least_is_not_offered(free: str, is_offered: bool) -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1, free)

    assert is_offered == bool(offers(allocator))


def test_weights_divide_shares() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, ENG)
    add(allocator, F2, OPS)
    allocator.set_weight(OPS, 3_000)
    for number in range(100):
        add_agent(allocator, AgentId(f"a{number}"))

    assert counts(allocator.allocate(0, random.Random(1))) == {"f1": 25, "f2": 75}


def test_roles_come_first_and_frameworks_within_them() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, ENG)
    add(allocator, F2, OPS)
    add(allocator, F3, OPS)
    for number in range(8):
        add_agent(allocator, AgentId(f"a{number}"))

    assert counts(allocator.allocate(0, random.Random(1))) == {"f1": 4, "f2": 2, "f3": 2}


def test_own_frameworks_of_a_parent_compete_with_its_children_as_a_virtual_leaf() -> None:
    allocator = DrfAllocator()
    allocator.set_weight(WEB, 3_000)
    allocator.set_weight(ENG, 9_000)  # not the virtual leaf's
    add(allocator, F1, ENG)
    add(allocator, F2, WEB)
    for number in range(8):
        add_agent(allocator, AgentId(f"a{number}"))

    assert counts(allocator.allocate(0, random.Random(1))) == {"f1": 2, "f2": 6}
    assert allocator.shares() == [
        ("eng", None, 1_000_000),
        ("eng", "f1", 250_000),
        ("eng/web", None, 750_000),
        ("eng/web", "f2", 750_000),
    ]


def test_reserved_resources_go_only_to_the_role_and_those_below_it() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, OPS)
    add(allocator, F2, WEB)
    add_agent(allocator, A1, "cpus:1;mem:100;cpus(eng):4;mem(eng):400")
    add_agent(allocator, A2, "cpus(eng/web):4;mem(eng/web):400")
    add_agent(allocator, A3, "cpus(eng/web/x):4;mem(eng/web/x):400")

    assert {("a2", "f2", "eng/web", "cpus(eng/web):4;mem(eng/web):400")} <= set(made := offers(allocator))
    assert {agent for agent, _, _, _ in made} == {"a1", "a2"}
    assert all("(" not in resources for _, framework, _, resources in made if framework == "f1")
    assert ("a3", "ops", "reserved") in reasons(allocator, F1)


def test_what_one_may_not_take_of_an_agent_goes_to_the_next_in_the_same_run() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, ENG)
    add(allocator, F2, OPS)
    add_agent(allocator, A1, "cpus:1;mem:100;cpus(ops):4;mem(ops):400")

    assert offers(allocator) == [
        ("a1", "f1", "eng", "cpus:1;mem:100"),
        ("a1", "f2", "ops", "cpus(ops):4;mem(ops):400"),
    ]


def test_suppressed_roles_and_inactive_frameworks_get_nothing_until_revived() -> None:
    allocator = DrfAllocator()
    allocator.add_framework(F1, (ENG, OPS), (OPS,))
    allocator.suppress(F1, (ENG,))
    add(allocator, F2)
    allocator.set_framework_active(F2, False)
    add_agent(allocator, A1)

    assert offers(allocator) == []
    assert reasons(allocator, F1) == [("a1", "eng", "suppressed"), ("a1", "ops", "suppressed")]
    assert reasons(allocator, F2) == [("a1", "*", "inactive-framework")]

    allocator.revive(F1, (OPS,))
    assert offers(allocator) == [("a1", "f1", "ops", "cpus:4;mem:4096")]
    allocator.recover(F1, A1, OPS, parse("cpus:4;mem:4096"))
    allocator.suppress(F1, ())
    assert offers(allocator) == []
    allocator.set_framework_active(F2, True)
    assert offers(allocator) == [("a1", "f2", "*", "cpus:4;mem:4096")]


def test_revive_without_roles_is_for_all_of_them() -> None:
    allocator = DrfAllocator()
    allocator.add_framework(F1, (ENG, OPS), (ENG, OPS))
    add_agent(allocator, A1)
    offers(allocator)

    allocator.revive(F1, ())

    assert offers(allocator) == [("a1", "f1", "eng", "cpus:4;mem:4096")]


def test_inactive_agents_are_not_offered_but_count_for_shares() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    add_agent(allocator, A2)
    allocator.set_agent_active(A2, False)

    assert offers(allocator) == [("a1", "f1", "*", "cpus:4;mem:4096")]
    assert allocator.shares() == [("*", None, 500_000), ("*", "f1", 500_000)]
    assert reasons(allocator, F1) == [("a1", "*", "taken"), ("a2", "*", "inactive-agent")]

    allocator.set_agent_active(A2, True)
    assert offers(allocator) == [("a2", "f1", "*", "cpus:4;mem:4096")]


def test_an_agent_may_shrink_below_what_is_taken_and_grow_again() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1, "cpus:4;mem:400;ports:[1-9];zones:{a,b}")
    offers(allocator)

    allocator.update_agent(A1, parse("cpus:2;mem:800;ports:[5-20];zones:{b,c}"), Attributes())
    assert offers(allocator) == [("a1", "f1", "*", "mem:400;ports:[10-20];zones:{c}")]

    allocator.recover(F1, A1, ANY, parse("cpus:3"))
    assert offers(allocator) == [("a1", "f1", "*", "cpus:1")]

    allocator.update_agent(A1, parse("cpus:8;mem:800;ports:[1-30];zones:{a,b,c}"), Attributes())
    assert offers(allocator) == [("a1", "f1", "*", "cpus:6;ports:[21-30]")]
    allocator.recover(F1, A1, ANY, parse("cpus:8;mem:800;ports:[1-30];zones:{a,b,c}"))
    assert offers(allocator) == [("a1", "f1", "*", "cpus:8;mem:800;ports:[1-30];zones:{a,b,c}")]


def test_reports_that_overlap_are_borne() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    used = {(F1, ANY): parse("cpus:3;mem:100;ports:[1-5]"), (F2, ENG): parse("cpus:3;mem:100;ports:[5-6]")}
    add_agent(allocator, A1, "cpus:4;mem:400;ports:[1-9]", used)

    assert offers(allocator) == [("a1", "f1", "*", "mem:200;ports:[7-9]")]

    allocator.recover(F2, A1, ENG, parse("cpus:3;mem:100;ports:[5-6]"))
    assert offers(allocator) == [("a1", "f1", "*", "cpus:1;mem:100;ports:[6-6]")]


def test_a_task_that_came_back_is_taken_from_what_is_free() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    allocator.add_used(A1, F2, OPS, parse("cpus:1;mem:96"))
    allocator.add_used(A2, F2, OPS, parse("cpus:1;mem:96"))

    assert offers(allocator) == [("a1", "f1", "*", "cpus:3;mem:4000")]
    assert ("ops", "f2", 250_000) in allocator.shares()


def test_a_removed_framework_holds_what_it_held_until_it_is_recovered() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    offers(allocator)
    allocator.remove_framework(F1)
    add(allocator, F2)

    assert offers(allocator) == []
    assert allocator.explain(F1, 0) == []

    allocator.recover(F1, A1, ANY, parse("cpus:4;mem:4096"))
    assert offers(allocator) == [("a1", "f2", "*", "cpus:4;mem:4096")]
    assert {"f2", None} == {framework for _, framework, _ in allocator.shares()}


def test_a_framework_may_leave_a_role_and_another_may_join() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, ENG)
    add_agent(allocator, A1)
    offers(allocator)

    allocator.update_framework(F1, (OPS,), ())
    add_agent(allocator, A2)
    assert offers(allocator) == [("a2", "f1", "ops", "cpus:4;mem:4096")]
    assert ("eng", "f1", 500_000) in allocator.shares()

    allocator.recover(F1, A1, ENG, parse("cpus:4;mem:4096"))
    assert offers(allocator) == [("a1", "f1", "ops", "cpus:4;mem:4096")]
    assert [role for role, _, _ in allocator.shares()] == ["ops", "ops"]


def test_removing_an_agent_forgets_what_was_taken_of_it() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    offers(allocator)

    allocator.remove_agent(A1)
    allocator.recover(F1, A1, ANY, parse("cpus:4;mem:4096"))

    assert allocator.shares() == [("*", None, 0), ("*", "f1", 0)]
    assert offers(allocator) == []


def test_adding_again_replaces() -> None:
    allocator = DrfAllocator()
    add(allocator, F1, ENG)
    add(allocator, F1, OPS)
    add_agent(allocator, A1)
    offers(allocator)
    add_agent(allocator, A1, "cpus:2;mem:64")

    assert offers(allocator) == [("a1", "f1", "ops", "cpus:2;mem:64")]


def test_unknown_names_are_ignored() -> None:
    allocator = DrfAllocator()
    allocator.update_framework(F1, (ENG,), ())
    allocator.remove_framework(F1)
    allocator.set_framework_active(F1, True)
    allocator.revive(F1, ())
    allocator.suppress(F1, (ENG,))
    allocator.set_demand(F1, ())
    allocator.update_agent(A1, parse("cpus:1"), Attributes())
    allocator.remove_agent(A1)
    allocator.set_agent_active(A1, True)
    allocator.recover(F1, A1, ANY, parse("cpus:1"))
    allocator.accepted(F1, A1, ANY, parse("cpus:1"))
    add(allocator, F1, ENG)
    allocator.remove_framework(F1)
    allocator.add_framework(F2, (), ())
    allocator.remove_framework(F2)

    assert offers(allocator) == []
    assert allocator.shares() == []


@pytest.mark.parametrize(
    ("framework", "role", "resources"),
    [(F1, ANY, "cpus:5"), (F1, ENG, "cpus:1"), (F2, ANY, "cpus:1"), (F1, ANY, "cpus:1;gpus:1")],
)
def test_giving_back_more_than_was_taken_is_our_bug_and_changes_nothing(
    framework: FrameworkId, role: Role, resources: str
) -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1)
    offers(allocator)

    with pytest.raises(InternalError, match="gives back"):
        allocator.recover(framework, A1, role, parse(resources))

    assert offers(allocator) == []
    assert allocator.shares() == [("*", None, 1_000_000), ("*", "f1", 1_000_000)]


def test_a_weight_of_nothing_is_our_bug() -> None:
    with pytest.raises(InternalError, match="weight of eng"):
        DrfAllocator().set_weight(ENG, 0)


def test_scalars_of_a_new_kind_count_from_then_on() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add(allocator, F2)
    add_agent(allocator, A1, "cpus:1;mem:64", {(F1, ANY): parse("cpus:1;mem:64")})
    add_agent(allocator, A2, "cpus:9;mem:640;gpus:2", {(F2, ANY): parse("gpus:1")})

    assert offers(allocator) == [("a2", "f1", "*", "cpus:9;gpus:1;mem:640")]
    assert allocator.shares() == [("*", None, 1_000_000), ("*", "f1", 1_000_000), ("*", "f2", 500_000)]


def test_a_scalar_of_which_nothing_is_left_counts_no_more() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1, "cpus:1;gpus:2")
    add_agent(allocator, A2, "cpus:1")
    allocator.remove_agent(A1)

    assert offers(allocator) == [("a2", "f1", "*", "cpus:1")]
    assert ("*", "f1", 1_000_000) in allocator.shares()


def test_the_batch_run_visits_every_open_agent() -> None:
    allocator = DrfAllocator()
    add_agent(allocator, A1)
    offers(allocator)
    add(allocator, F1)

    assert [text(o) for o in allocator.allocate_all(0, random.Random(1))] == [("a1", "f1", "*", "cpus:4;mem:4096")]


def test_why_a_free_agent_was_not_offered() -> None:
    allocator = DrfAllocator()
    add(allocator, F1)
    add_agent(allocator, A1, "cpus:0.001;mem:1")
    add_agent(allocator, A2)

    assert reasons(allocator, F1) == [("a1", "*", "too-small"), ("a2", "*", "share")]
    offers(allocator)
    assert "held by f1 (*)" in allocator.explain(F1, 0)[1].text
