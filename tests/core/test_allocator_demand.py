"""Declared demand, the bound on waiting, and the bound on unanswered offers."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.core.allocation import Allocation
from mesos_actor.actors.core.allocation_run import STARVATION_RUNS
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.demand import MAX_SHAPES_PER_ROLE, Wanted
from mesos_actor.actors.core.vectors import Kinds
from mesos_actor.actors.ids import AgentId, FrameworkId, Role
from mesos_actor.actors.messages.values import Demand
from mesos_actor.actors.resources import Attributes, Resources

F1, F2, F3 = FrameworkId("f1"), FrameworkId("f2"), FrameworkId("f3")
A1, A2, A3 = AgentId("a1"), AgentId("a2"), AgentId("a3")
ENG, OPS = Role("eng"), Role("ops")
SMALL, BIG = "cpus:1;mem:100", "cpus:8;mem:800"
parse = Resources.parse


def cluster(*totals: str, bound_permille: int = 1_000) -> DrfAllocator:
    """Agents a1, a2, ... and the framework f1 in `eng`."""
    allocator = DrfAllocator(bound_permille)
    allocator.add_framework(F1, (ENG,), ())
    for number, total in enumerate(totals, 1):
        allocator.add_agent(AgentId(f"a{number}"), parse(total), Attributes(), {})
    return allocator


def run(allocator: DrfAllocator, now_us: int = 0) -> list[Allocation]:
    made = allocator.allocate(now_us, random.Random(1))
    allocator.check()
    return made


def agents(allocator: DrfAllocator, now_us: int = 0) -> list[str]:
    return sorted(offer.agent_id for offer in run(allocator, now_us))


def demand(shape: str, count: int = 1, role: Role = ENG) -> Demand:
    return Demand(role, parse(shape), count)


def reasons(allocator: DrfAllocator, framework: FrameworkId) -> list[tuple[str, str]]:
    return [(r.agent_id, r.reason) for r in allocator.explain(framework, 0)]


def test_an_agent_that_holds_no_task_of_any_shape_is_not_offered() -> None:
    allocator = cluster(SMALL, BIG)
    allocator.set_demand(F1, [demand("cpus:2", 9), demand("mem:200", 9)])

    assert agents(allocator) == ["a2"]
    assert reasons(allocator, F1) == [("a1", "too-small"), ("a2", "taken")]
    assert "holds no task that it still asks for" in allocator.explain(F1, 0)[0].text


def test_no_more_agents_are_offered_than_the_demand_takes() -> None:
    allocator = cluster(BIG, BIG, BIG)
    allocator.set_demand(F1, [demand("cpus:4", 3)])

    assert len(run(allocator)) == 2
    assert {"demand"} == {reason for _, reason in reasons(allocator, F1)}


def test_what_is_declined_is_missing_again() -> None:
    allocator = cluster(BIG, BIG)
    allocator.set_demand(F1, [demand("cpus:4", 1)])
    (offer,) = run(allocator)

    allocator.recover(F1, offer.agent_id, ENG, offer.resources, 1_000_000)

    assert [{"a1": "a2", "a2": "a1"}[offer.agent_id]] == agents(allocator)


def test_what_is_launched_is_missing_no_more_and_what_is_left_over_is() -> None:
    allocator = cluster(BIG, BIG, BIG, BIG)
    allocator.set_demand(F1, [demand("cpus:4", 2)])
    (offer,) = run(allocator)

    allocator.accepted(F1, offer.agent_id, ENG, parse("cpus:4"))
    allocator.recover(F1, offer.agent_id, ENG, parse("cpus:4;mem:800"), 1_000_000)
    (offer,) = run(allocator)
    allocator.accepted(F1, offer.agent_id, ENG, parse("cpus:4"))
    allocator.recover(F1, offer.agent_id, ENG, parse("cpus:4;mem:800"))

    assert run(allocator) == []


def test_demand_is_replaced_as_a_whole_and_may_be_withdrawn() -> None:
    allocator = cluster(BIG, BIG, BIG)
    allocator.set_demand(F1, [demand("cpus:1", 0), demand("cpus:8", 1)])
    assert len(run(allocator)) == 1

    allocator.set_demand(F1, [demand("mem:800", 1)])
    assert len(run(allocator)) == 1

    allocator.set_demand(F1, [])
    assert len(run(allocator)) == 1


def test_demand_is_of_one_role() -> None:
    allocator = cluster(SMALL)
    allocator.update_framework(F1, (ENG, OPS), ())
    allocator.set_demand(F1, [demand(BIG), demand(SMALL, role=Role("unknown"))])

    assert [offer.role for offer in run(allocator)] == [OPS]


def test_what_no_agent_has_fits_nowhere_until_one_has_it() -> None:
    allocator = cluster(BIG, BIG)
    allocator.set_demand(F1, [demand("gpus:1")])
    assert run(allocator) == []

    allocator.add_agent(A3, parse("cpus:1;gpus:2"), Attributes(), {})
    assert agents(allocator) == ["a3"]


def test_others_are_offered_what_does_not_fit() -> None:
    allocator = cluster(*[SMALL] * 10)
    allocator.set_demand(F1, [demand(BIG)])
    allocator.add_framework(F2, (ENG,), ())

    assert {F2} == {offer.framework_id for offer in run(allocator)}


def test_an_agent_that_goes_takes_its_part_of_the_demand_along() -> None:
    allocator = cluster(BIG)
    allocator.set_demand(F1, [demand(BIG)])
    assert agents(allocator) == ["a1"]
    allocator.remove_agent(A1)
    allocator.add_agent(A2, parse(BIG), Attributes(), {})

    assert agents(allocator) == ["a2"]


def test_shapes_are_packed_in_the_order_given() -> None:
    wanted = Wanted([demand("cpus:3", 2), demand("cpus:1", 5)], Kinds())
    wanted.cover(A1, (10_000, 0, 0))  # two of three cpus, four of one
    assert [wanted.fits((999, 9, 9)), wanted.fits((1_000, 0, 0))] == [False, True]

    wanted.cover(A1, (1_000, 0, 0))
    was_met = wanted.is_met
    wanted.launched(A1, (4_000, 0, 0))  # one of each
    assert (was_met, wanted.is_met) == (True, False)
    assert [wanted.fits((1_000, 9, 9)), wanted.fits((999, 0, 0))] == [True, False]


def test_shapes_beyond_the_bound_are_not_waited_for() -> None:
    wanted = Wanted([demand(f"cpus:{number}") for number in range(1, MAX_SHAPES_PER_ROLE + 2)][::-1], Kinds())

    assert not wanted.fits((1_000, 0, 0))
    assert wanted.fits((2_000, 0, 0))


def test_who_waits_too_long_goes_first_once() -> None:
    """f1 holds nearly everything, so that every share is against it."""
    allocator = cluster("cpus:100;mem:1")
    run(allocator)
    allocator.add_agent(A2, parse(SMALL), Attributes(), {})
    allocator.add_framework(F2, (OPS,), ())
    allocator.set_demand(F1, [demand(SMALL, 5)])

    served = []
    for _ in range(2 * STARVATION_RUNS + 2):
        (offer,) = run(allocator)
        served.append(offer.framework_id)
        allocator.recover(offer.framework_id, A2, offer.role, offer.resources)

    assert [index for index, name in enumerate(served) if name == F1] == [STARVATION_RUNS, 2 * STARVATION_RUNS + 1]


def test_runs_that_offer_nothing_are_not_waited_for() -> None:
    allocator = cluster("cpus:100;mem:1")
    run(allocator)
    allocator.add_framework(F2, (OPS,), ())
    allocator.set_demand(F1, [demand(SMALL, 5)])
    for _ in range(3 * STARVATION_RUNS):
        allocator.allocate_all(0, random.Random(1))
    allocator.add_agent(A2, parse(SMALL), Attributes(), {})

    assert [offer.framework_id for offer in run(allocator)] == [F2]


@pytest.mark.slow
@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(0, 3), st.randoms(use_true_random=False))
def test_nobody_whose_demand_fits_waits_for_ever(waiting: int, others: int, rng: random.Random) -> None:
    """Whatever the weights and who holds what: at most STARVATION_RUNS for each who waits, and their own turns."""
    allocator = DrfAllocator()
    names = [FrameworkId(f"w{number}") for number in range(waiting)]
    for name in names:
        role = Role(f"r-{name}")
        allocator.add_framework(name, (role,), ())
        allocator.set_weight(role, rng.choice([1, 1_000, 1_000_000]))
        allocator.set_demand(name, [Demand(role, parse(rng.choice(["cpus:1", "mem:50", "cpus:2;mem:100"])), 1_000)])
        used = {(name, role): parse(f"cpus:{rng.randrange(1, 100)}")}
        allocator.add_agent(AgentId(f"held-{name}"), parse("cpus:100"), Attributes(), used)
        allocator.set_agent_active(AgentId(f"held-{name}"), False)
    for number in range(others):
        allocator.add_framework(FrameworkId(f"o{number}"), (OPS,), ())
    allocator.add_agent(A1, parse("cpus:2;mem:100"), Attributes(), {})
    allocator.add_agent(A2, parse("cpus:0.5;mem:40"), Attributes(), {})

    last = dict.fromkeys(names, 0)
    bound = STARVATION_RUNS * waiting + waiting
    for number in range(1, 4 * bound):
        for offer in allocator.allocate(0, rng):
            last[offer.framework_id] = number
            allocator.recover(offer.framework_id, offer.agent_id, offer.role, offer.resources)
        assert all(number - last[name] <= bound for name in names)


def test_unanswered_offers_of_one_framework_are_bounded() -> None:
    allocator = cluster(*["cpus:1;mem:32"] * 10, bound_permille=300)

    assert len(run(allocator)) == 3
    assert run(allocator) == []
    assert {"hoarding"} == {reason for _, reason in reasons(allocator, F1)}

    allocator.add_framework(F2, (OPS,), ())
    assert {F2: len(run(allocator))} == {F2: 3}


def test_an_answer_makes_room_for_another_offer() -> None:
    allocator = cluster(*["cpus:1;mem:32"] * 10, bound_permille=300)
    first, second, _ = run(allocator)

    allocator.accepted(F1, first.agent_id, ENG, parse("cpus:1;mem:32"))
    assert len(run(allocator)) == 1
    allocator.recover(F1, second.agent_id, ENG, second.resources, 1_000_000)
    (offer,) = run(allocator)
    assert offer.agent_id != second.agent_id
    allocator.add_agent(offer.agent_id, parse("cpus:1;mem:32"), Attributes(), {})
    assert len(run(allocator)) == 1


def test_an_offer_that_would_pass_the_bound_waits_for_an_answer() -> None:
    allocator = cluster("cpus:4", "cpus:4", "cpus:92", bound_permille=50)
    allocator.set_agent_active(A3, False)
    (offer,) = run(allocator)
    other = A2 if offer.agent_id == A1 else A1
    assert [(other, "hoarding")] == [entry for entry in reasons(allocator, F1) if entry[1] == "hoarding"]

    allocator.accepted(F1, offer.agent_id, ENG, offer.resources)

    assert [other] == agents(allocator)


def test_the_first_offer_may_pass_the_bound() -> None:
    allocator = cluster(BIG, bound_permille=1)

    assert agents(allocator) == ["a1"]


def test_a_cluster_that_grows_makes_room() -> None:
    allocator = cluster(BIG, BIG, bound_permille=500)
    assert len(run(allocator)) == 1
    allocator.add_agent(A3, parse("cpus:100;mem:9000;gpus:1"), Attributes(), {})
    allocator.set_agent_active(A3, False)

    assert len(run(allocator)) == 1


def test_a_framework_that_goes_while_its_offers_are_full() -> None:
    allocator = cluster(BIG, BIG, bound_permille=500)
    (offer,) = run(allocator)
    allocator.remove_framework(F1)
    allocator.recover(F1, offer.agent_id, ENG, offer.resources)

    assert allocator.shares() == []
    assert run(allocator) == []


def test_one_role_fills_up_while_another_has_declined_everything() -> None:
    allocator = cluster(*["cpus:1;mem:32"] * 20, bound_permille=100)
    while made := run(allocator):
        for offer in made:
            allocator.recover(F1, offer.agent_id, ENG, offer.resources, 1_000_000)
    allocator.update_framework(F1, (ENG, OPS), ())

    assert [offer.role for offer in run(allocator)] == [OPS, OPS]
    assert run(allocator, 2_000_000) == []


def test_an_agent_goes_on_which_a_removed_framework_holds_offers_in_two_roles() -> None:
    allocator = cluster("cpus:1;cpus(ops):1", "cpus:8", bound_permille=200)
    allocator.set_agent_active(A2, False)
    allocator.update_framework(F1, (ENG, OPS), ())
    assert [offer.role for offer in run(allocator)] == [ENG, OPS]
    allocator.remove_framework(F1)
    allocator.remove_agent(A1)

    assert allocator.shares() == []
    assert run(allocator) == []
