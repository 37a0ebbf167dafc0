"""Drawn runs: played, counted, shrunk, told; planted bugs are found soon and shrink to one or two faults."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace

from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.testing import (
    SIM_SETTINGS,
    ClusterMachine,
    Plan,
    cluster,
    draw_trial,
    fault_plans,
    play,
    workload,
    workloads,
)
from mesos_actor.transport.sim import diagram, swarm
from mesos_actor.transport.sim.faults import Delay, hosts_of
from mesos_actor.transport.sim.replay import read_replay
from mesos_actor.transport.sim.shrink import Shrinker, likened, minimize, moved
from mesos_actor.transport.sim.story import Told, _excerpt, concerning, first_difference, subjects
from mesos_actor.transport.sim.swarm import play_seed
from mesos_actor.transport.sim.trial import Broken, Run, Trial
from mesos_actor.transport.sim.world import InvariantViolation, NotReached
from tests.sim import bugs
from tests.sim.workloads import ONE_CPU, One


@pytest.mark.slow
def test_seeds_end_well_and_cover_faults_and_rare_branches() -> None:
    seen = swarm.play_seeds(range(20))

    assert seen.failed is None
    assert seen.runs == 20
    assert {"drop", "duplicate", "delay", "reorder", "crash", "cut", "dieatsync", "slowsync"} <= set(seen.faults)
    assert sum(taken for _, taken, _ in seen.sites.values()) > 0


@pytest.mark.parametrize(
    ("bug", "first", "what"),
    [
        (bugs.the_driver_forgets_what_it_has_heard, 1, "no-step-back"),
        (bugs.tasks_are_not_recovered, 1, "nothing-kept-is-forgotten"),
        (bugs.unstarted_tasks_are_launched_anew, 1, "no-task-run-twice"),
        (bugs.accepted_resources_are_offered_again, 0, "nothing-promised-twice"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_planted_bug_is_found_soon_and_shrinks_to_two_faults_or_less(
    bug: bugs.Bug, first: int, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    bug(monkeypatch)
    seed = next(seed for seed in range(first, first + 50) if play_seed(seed).broken is not None)

    found = swarm.shrink_seed(seed)

    assert found.broken.what == what
    assert len(found.trial.faults) <= 2


def forgetful(patch: pytest.MonkeyPatch) -> Trial:
    """A run that breaks something, with the bug that lets it: an agent with tasks dies at a sync."""
    bugs.tasks_are_not_recovered(patch)
    replay = read_replay(Path(__file__).parent / "regressions" / "tasks_are_not_recovered.json")
    assert replay.trial is not None
    return replay.trial


def test_a_failure_is_written_down_and_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trial = forgetful(monkeypatch)
    broken = play(trial).broken
    assert broken is not None
    found = swarm.write_down(swarm.Found(trial, broken, drawn=40, runs=7), tmp_path)

    assert json.loads(Path(found.file).read_text())["broken"]["what"] == "nothing-kept-is-forgotten"
    lines = found.story.splitlines()
    assert lines[0].startswith("nothing-kept-is-forgotten: ")
    assert any(line == "1 of 40 faults was needed:" for line in lines)
    assert any("agent0 dies before its" in line and line.startswith("!!") for line in lines)
    assert f"again: mesos-actor replay {found.file}" in lines


def test_a_long_story_keeps_what_is_telling() -> None:
    long = [Told(n, "a", "b", f"event {n}") for n in range(1_000)]
    told = [replace(one, fault=n == 3, telling=n in (3, 700)) for n, one in enumerate(long)]

    lines = _excerpt(told)

    assert [line.split()[-1] for line in lines if "left" not in line] == ["3", "700", *map(str, range(942, 1_000))]
    assert [line for line in lines if "left" in line] == [f"   ({count} left out)" for count in (3, 696, 241)]
    assert len(_excerpt(told[-60:])) == 60


def test_a_machine_may_hold_a_framework_that_never_ends_and_kill_as_often_as_it_likes() -> None:
    machine = ClusterMachine()
    machine.begin(plan=Plan.of([]))
    machine.sim.spawn(Framework())
    machine.submit(tasks=3, milliseconds=2_000)
    machine.let_pass(seconds=1.0)
    for _ in range(3):
        machine.kill(nth=0)
    machine.teardown()

    assert [mine.ended for mine in machine.sim.frameworks] == [False, True]


def test_what_goes_on_is_named_when_a_cluster_does_not_settle() -> None:
    sim = cluster()
    sim.spawn(One(command_task("t", ["sleep", "1000"], ONE_CPU)))
    sim.run(1)

    with pytest.raises(NotReached, match=r"^20 s after all went well: master has t going on; agent\d has t going on"):
        sim.settle(within_s=20)


def test_diagrams_show_hosts_messages_and_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    run = play(forgetful(monkeypatch))
    assert run.sim is not None and run.broken is not None
    told = concerning(run.sim.world, run.broken.text)

    text, picture = diagram.mermaid(told), diagram.svg(told)

    assert subjects(run.sim.world, run.broken.text)
    assert text.startswith("sequenceDiagram\n    participant agent0\n")
    assert "Note over agent0" in text and "->>" in text
    assert picture.startswith("<svg") and picture.rstrip().endswith("</svg>") and "#b00" in picture


@given(st.lists(st.integers(0, 50), unique=True, max_size=30), st.sets(st.integers(0, 50), max_size=3))
def test_what_is_minimized_holds_what_matters_and_nothing_else(items: list[int], needed: set[int]) -> None:
    needed &= set(items)

    assert minimize(items, lambda part: needed <= set(part)) == [item for item in items if item in needed]


def test_shrinking_keeps_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs.tasks_are_not_recovered(monkeypatch)
    run = next(run for run in map(play_seed, range(1, 50)) if run.broken is not None)
    assert run.broken is not None
    shrinker = Shrinker(run.recorded(), run.broken, max_runs=5)
    shrinker.shrink()

    assert shrinker.runs == 5

    shrinker = Shrinker(run.recorded(), run.broken, max_events=1)
    shrinker.shrink()

    assert shrinker.runs == 1
    assert shrinker.events > 1


@given(fault_plans(), st.randoms(use_true_random=False))
def test_a_fault_that_is_moved_is_one_that_a_plan_can_hold(plan: Plan, rng: random.Random) -> None:
    for fault in plan.faults():
        again = moved(rng, fault, 30_000_000)

        assert again.kind == fault.kind
        assert Plan.of([again]).faults() == (again,)


@given(fault_plans(), st.randoms(use_true_random=False))
def test_a_fault_that_is_likened_befalls_the_same_hosts_in_the_time_there_is(plan: Plan, rng: random.Random) -> None:
    for fault in plan.faults():
        again = likened(rng, fault, 30_000_000)

        assert set(hosts_of(again)) == set(hosts_of(fault))
        assert Plan.of([again]).faults() == (again,)
        assert getattr(again, "at_us", 0) <= max(30_000_000, getattr(fault, "at_us", 0))


def test_many_small_faults_shrink_to_one_that_does_the_same() -> None:
    def run(trial: Trial) -> Run:
        """Breaks when messages are late by a second, all in all."""
        found = Run(Trial(), Plan())
        if sum(fault.by_us for fault in trial.faults if isinstance(fault, Delay)) >= 1_000_000:
            found.error = InvariantViolation("late: by a second")
        return found

    faults = tuple(Delay("a", "b", nth, 250_000) for nth in range(4))
    shrinker = Shrinker(Trial(faults=faults), Broken("late", ""), run=run)

    best = shrinker.shrink()

    assert len(best.faults) == 1
    assert shrinker.broken.what == "late"


def test_where_two_traces_part_is_shown() -> None:
    assert first_difference(["a", "b"], ["a", "b"]) == ""
    assert "event 2 differs" in first_difference(["a", "b"], ["a", "c"])
    assert "goes on" in first_difference(["a"], ["a", "b"])


@pytest.mark.slow
def test_seeds_are_the_same_runs_under_every_hash_seed() -> None:
    assert swarm.check(range(4)) == ""


def test_the_same_seed_is_the_same_run() -> None:
    assert swarm.digest_of(5) == swarm.digest_of(5) != swarm.digest_of(6)


@pytest.mark.slow
@settings(SIM_SETTINGS, max_examples=10)
@given(plan=fault_plans(), work=workloads(max_steps=3))
def test_drawn_plans_and_workloads_end_well(plan: Plan, work: tuple[workload.AnyStep, ...]) -> None:
    sim = cluster(masters=3, plan=plan)
    sim.play(work)
    sim.run(35)
    sim.settle()


@pytest.mark.slow
def test_the_state_machine_runs() -> None:
    run_state_machine_as_test(ClusterMachine, settings=settings(SIM_SETTINGS, max_examples=5, stateful_step_count=12))


def test_a_trial_is_plain_data() -> None:
    import msgspec

    from mesos_actor.transport.sim.trial import decode_trial

    trial, _ = draw_trial(9)

    assert decode_trial(msgspec.to_builtins(trial)) == trial
