"""Situations make of chance what they say: who leads changes, a line is held up meanwhile, a framework is away."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.actors.errors import ConfigError
from mesos_actor.testing import cluster, draw_trial, play
from mesos_actor.transport.sim.faults import Clock, Crash, Stall
from mesos_actor.transport.sim.situations import (
    SITUATIONS,
    Scene,
    Situation,
    absence,
    seesaw,
    storm,
)
from mesos_actor.transport.sim.trial import Shape, Trial
from mesos_actor.transport.sim.workload import Submit, Transfer

SCENE = Scene(["master0", "master1", "master2"], ["agent0", "agent1"], {"framework0": 2 * SECOND_US}, 30 * SECOND_US)


@pytest.mark.parametrize("situation", list(SITUATIONS), ids=lambda situation: situation.__name__)
def test_a_situation_names_hosts_of_its_scene_and_keeps_to_its_time(
    situation: Callable[[random.Random, Scene], Situation],
) -> None:
    for seed in range(20):
        steps, faults = situation(random.Random(seed), SCENE)

        assert steps and faults
        assert all(0 <= one.at_us < SCENE.bad_us for one in (*steps, *faults))
        for fault in faults:
            named = {getattr(fault, name) for name in ("host", "source", "destination") if hasattr(fault, name)}
            assert named <= {*SCENE.masters, *SCENE.agents, *SCENE.frameworks}


def test_a_seesaw_passes_the_lead_between_two_while_lines_of_one_of_them_are_held_up() -> None:
    steps, faults = seesaw(random.Random(2), SCENE)

    targets = [step.to for step in steps if isinstance(step, Transfer)]
    assert len(set(targets)) == 2
    (lame,) = {end for fault in faults if isinstance(fault, Stall) for end in (fault.source, fault.destination)} & set(
        SCENE.masters
    )
    assert int(lame.removeprefix("master")) in targets
    assert any(isinstance(step, Submit) for step in steps)

    shape = Shape(masters=3, agents=2)
    run = play(Trial(shape=shape, work=tuple(sorted(steps, key=lambda s: s.at_us)), faults=tuple(faults)))
    assert run.sim is not None and run.broken is None
    terms = [master.newest_term for master in run.sim.masters]
    assert max(terms) > len(targets) // 2, "most transfers have come about"


def test_a_storm_changes_leaders_by_death_and_by_transfer() -> None:
    steps, faults = storm(random.Random(1), SCENE)

    assert any(isinstance(step, Transfer) for step in steps)
    assert any(isinstance(fault, Crash) for fault in faults)
    assert any(isinstance(fault, Stall) for fault in faults)


def test_in_an_absence_the_leader_changes_while_the_framework_is_away() -> None:
    for seed in range(20):
        (transfer,), (away, *clocks) = absence(random.Random(seed), SCENE)

        assert isinstance(away, Crash) and away.restart_after_us is not None
        assert away.host == "framework0" and away.at_us >= SCENE.frameworks["framework0"] + SECOND_US // 2
        assert away.at_us < transfer.at_us < away.at_us + away.restart_after_us
        assert all(isinstance(clock, Clock) and clock.host in SCENE.masters for clock in clocks)


@pytest.mark.parametrize("to", range(3))
def test_the_lead_is_given_to_the_master_that_is_named(to: int) -> None:
    sim = cluster(masters=3)
    sim.play([Transfer(2 * SECOND_US, to)])
    sim.run(5)

    leader = sim.leading_host()
    assert leader is not None and leader.name == f"master{to}"


@pytest.mark.parametrize("to", [3, -1, "1"])
def test_a_master_that_there_is_not_is_refused(to: int) -> None:
    sim = cluster(masters=3)

    with pytest.raises(ConfigError, match=f"to {to!r} of a transfer: must be the number of a master, below 3"):
        sim.play([Transfer(0, to)])


def test_only_runs_with_several_masters_have_situations() -> None:
    trials = [draw_trial(seed)[0] for seed in range(200)]
    seesawing = [trial for trial in trials if any(isinstance(s, Transfer) and s.to is not None for s in trial.work)]

    assert seesawing and any(trial.shape.masters == 1 for trial in trials)
    assert all(trial.shape.masters > 1 for trial in seesawing)
