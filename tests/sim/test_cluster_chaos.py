"""Drawn faults of every kind, then calm: nothing that must hold is ever broken, and everything comes to its end.

`SIM_SEEDS=2000 pytest tests/sim/test_cluster_chaos.py` tries more days than the everyday few; `SIM_FIRST_SEED=...`
tries others.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from mesos_actor.testing import Key, Plan
from tests.sim.chaos import BAD_S, KINDS, Blow, chores_day, jobs_day, planned_day

FIRST = int(os.environ.get("SIM_FIRST_SEED", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("SIM_SEEDS", "30")))

REGRESSIONS = {
    48: "an acknowledgement was lost, and the master replayed RUNNING after FINISHED to a framework that was back",
    45: "a process died while its framework was torn down, and took that for a refusal",
    746: "after a restart, the repeat of an update that the former process had seen was taken for news",
    1461: "a subscription of a dead process arrived late and drove out its successor",
}
REGRESSIONS_OF_CHORES = {
    712: "what was revived while no master was there stayed suppressed",
}


@pytest.mark.parametrize("seed", sorted({*SEEDS, *REGRESSIONS}))
def test_a_bad_day_of_commands_ends_well(seed: int) -> None:
    jobs_day(seed)


@pytest.mark.parametrize("seed", sorted({*SEEDS, *REGRESSIONS_OF_CHORES}))
def test_a_bad_day_of_everything_ends_well(seed: int) -> None:
    chores_day(seed)


HOSTS = ("master", "agent0", "agent1", "agent2", "framework0", "framework1")
LINKS = st.tuples(st.sampled_from(HOSTS), st.sampled_from(HOSTS), st.integers(0, 120))
FATES = st.one_of(st.just(()), st.just((0, 0)), st.tuples(st.integers(0, 3_000_000)))
DISKS = st.tuples(st.just("disk"), st.sampled_from(HOSTS), st.integers(0, 60))


@st.composite
def fault_plans(draw: st.DrawFn) -> Plan:
    """A plan as a dictionary from where to what: without faults it is calm, so a failing one shrinks to few."""
    fates: dict[Key, tuple[int, ...]] = {}
    fates |= draw(st.dictionaries(LINKS, FATES, max_size=12))
    fates |= draw(st.dictionaries(DISKS, st.sampled_from([(), (300_000,)]), max_size=3))
    return Plan(fates)


@st.composite
def drawn_blows(draw: st.DrawFn) -> Blow:
    who, other = draw(st.permutations(HOSTS))[:2]
    at_s = draw(st.integers(0, int(BAD_S) - 1))
    return Blow(at_s, draw(st.sampled_from(KINDS)), who, other, draw(st.sampled_from([0.2, 1.0, 4.0, 15.0])))


@settings(
    max_examples=settings().max_examples // 2,
    phases=[phase for phase in Phase if phase is not Phase.explain],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=fault_plans(), day=st.lists(drawn_blows(), max_size=4))
def test_a_planned_bad_day_ends_well(plan: Plan, day: list[Blow]) -> None:
    planned_day(plan, sorted(day, key=lambda blow: blow.at_s))


def test_a_bad_day_can_be_lived_again() -> None:
    one, again = jobs_day(7), jobs_day(7)
    replayed = jobs_day(8)

    assert one.world.digest == again.world.digest
    assert one.world.digest != replayed.world.digest
