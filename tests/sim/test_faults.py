"""Faults as data: written and read again, and each does what it says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.errors import ConfigError, InvalidInput
from mesos_actor.actors.task import TaskState
from mesos_actor.testing import Chances, Plan, SeededPlan, SimCluster, cluster, draw_trial, fault_plans, play, workload
from mesos_actor.testing import faults as F
from mesos_actor.transport.sim.replay import Replay, read_replay
from mesos_actor.transport.sim.trial import Broken
from mesos_actor.transport.sim.world import TAIL, NotReached
from tests.sim.workloads import Jobs, One

ROOT = Path(__file__).resolve().parents[2]
SECOND_US = 1_000_000


def busy(**arguments: object) -> SimCluster:
    """A batch of twenty tasks on two agents."""
    sim = cluster(agents=2, **arguments)  # type: ignore[arg-type]
    sim.play([workload.Submit(0, 20, 1_000)])
    sim.run(0.01)
    return sim


def done(sim: SimCluster) -> None:
    sim.calm()
    sim.until(lambda: sim.frameworks[0].ended, within_s=1_500)
    sim.check()


@settings(max_examples=40)
@given(fault_plans())
def test_a_plan_is_written_and_read_again(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())

    assert again.faults() == plan.faults()
    assert (again.fates, again.words, again.timed) == (plan.fates, plan.words, list(again.timed))


def test_what_a_seed_has_drawn_is_written_down_and_repeats_the_run() -> None:
    trial, plan = draw_trial(3)
    run = play(trial, plan)
    again = play(trial, Plan.from_json(plan.to_json()))

    assert run.sim is not None and again.sim is not None
    assert run.sim.world.digest == again.sim.world.digest
    assert len(plan.faults()) > 20


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"fault": "dropp"}]', "dropp"),
        ('[{"fault": "drop", "source": "a", "destination": "b"}]', "nth"),
        ('[{"fault": "drop", "source": "a", "destination": "b", "nth": 1, "by": 2}]', "by"),
        ("{", "faults"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        Plan.from_json(text)


def test_two_faults_at_one_place_are_refused() -> None:
    with pytest.raises(ConfigError, match="same place"):
        Plan.of([F.Drop("a", "b", 1), F.Delay("a", "b", 1, 5)])


@pytest.mark.parametrize(
    "fault",
    [
        F.Crash("agent1", 3 * SECOND_US, 5 * SECOND_US),
        F.Crash("agent1", 3 * SECOND_US, 5 * SECOND_US, machine=True),
        F.Crash("agent1", 3 * SECOND_US),
        F.Stop("agent1", 3 * SECOND_US, SECOND_US),
        F.Pause("agent1", 3 * SECOND_US, 2 * SECOND_US),
        F.Pause("framework0", 3 * SECOND_US),
        F.Cut("master", "agent1", 3 * SECOND_US, SECOND_US),
        F.Isolate("agent1", 3 * SECOND_US, None),
        F.Isolate("framework0", 3 * SECOND_US, SECOND_US, one_way=True),
        F.Stall("agent1", "master", 3 * SECOND_US, 2 * SECOND_US),
        F.Break("master", "framework0", 3 * SECOND_US),
        F.FullDisk("agent1", 3 * SECOND_US, SECOND_US),
        F.FullDisk("master", 3 * SECOND_US, SECOND_US),
        F.Clock("agent1", 3 * SECOND_US, -SECOND_US, 50_000),
        F.DieAtSync("agent1", 3),
        F.FailSync("agent1", 3),
        F.SlowSync("agent1", 3, SECOND_US),
        F.Reorder("master", "agent1", 5, 10_000),
        F.Launch("agent1", 2, "hang"),
        F.Launch("agent1", 2, "die"),
        F.Sometimes("offers-rescinded-at-once", 2),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_fault_comes_about_is_told_and_is_got_over(fault: F.AnyFault) -> None:
    sim = busy(plan=Plan.of([fault]))
    sim.run(12)

    assert sim.faults.unmet() == ()
    assert isinstance(fault, F.Sometimes) or fault.text() in "\n".join(sim.world.trace())
    done(sim)


def test_a_full_disk_ends_the_process_until_there_is_space() -> None:
    sim = cluster(agents=1, plan=Plan.of([F.FullDisk("agent0", SECOND_US, 5 * SECOND_US)]))
    mine = sim.add_framework(lambda: One())
    sim.run(0.5)
    sim.add_framework(lambda: Jobs(5, 1))
    sim.run(2)
    assert sim.agents[0].host.disk_full
    sim.run(8)

    assert sim.agents[0].up
    sim.until(lambda: bool(mine.states("t")), 60)


def test_a_sync_that_fails_keeps_nothing_and_ends_the_process() -> None:
    sim = cluster(agents=1)
    sim.run(2)
    sim.faults.fail_sync("agent-0", nth=sim.world.plan.asked(F.FailSync("agent0", 0)))
    mine = sim.add_framework(lambda: One())
    sim.until(lambda: sim.agents[0].host.incarnation == 2, within_s=10)

    assert "Input/output error" in "".join(event.detail for event in sim.world.history() if event.kind == "failed") or (
        sim.agents[0].host.failure is None
    )
    assert any(event.kind == "failed" and event.host == "agent0" for event in sim.world.history())
    sim.until(lambda: bool(mine.states("t")), within_s=120)


def test_a_host_that_never_returns_stays_away_when_all_is_calm() -> None:
    sim = busy(plan=Plan.of([F.Crash("agent1", SECOND_US)]))
    sim.run(2)
    sim.calm()
    sim.run(10)

    assert not sim.agents[1].up


def test_a_framework_that_does_not_answer_goes_on_when_all_is_calm() -> None:
    sim = busy()
    sim.faults.pause("framework-0", at_s=2)
    sim.run(20)
    before = len(sim.frameworks[0].statuses)
    sim.run(20)

    assert len(sim.frameworks[0].statuses) == before
    done(sim)


def test_a_clock_that_drifts_moves_timers_and_never_goes_back() -> None:
    sim = busy()
    host = sim.agents[0].host
    sim.faults.clock("agent-0", drift_ppm=100_000)
    sim.run(10)
    ahead_us = host.clock_us() - sim.world.now_us
    sim.faults.clock("agent-0", offset_s=-100, at_s=sim.now_s)
    before_us = host.clock_us()
    sim.run(0.001)

    assert ahead_us == pytest.approx(SECOND_US, rel=0.01)
    assert host.clock_us() >= before_us
    sim.agents[0].crash()
    sim.agents[0].start()
    assert host.clock_us() < sim.world.now_us


def test_names_are_taken_with_and_without_a_hyphen_and_from_what_runs_there() -> None:
    sim = cluster(agents=2, masters=3)
    mine = sim.spawn(Jobs(1, 1))
    sim.faults.drop("master-1", mine, nth=50)
    sim.faults.drop(sim.agents[0], "agent1", nth=50)

    assert sim.world.plan.faults() == (F.Drop("agent0", "agent1", 50), F.Drop("master1", "framework0", 50))


@pytest.mark.parametrize(
    ("add", "told"),
    [
        (lambda sim: sim.faults.crash("agnet-1", at_s=1), "there are agent0"),
        (lambda sim: sim.faults.crash("agent-1", at_s=1), "s already; choose a later"),
        (lambda sim: sim.faults.drop("master-0", "agent-0", nth=0), "have passed already"),
        (lambda sim: sim.faults.launch("agent-0", nth=0, fate="explode"), "oom"),
        (lambda sim: sim.faults.launch(sim.mine, nth=0, fate="oom"), "containers are launched on agents"),
        (
            lambda sim: sim.faults.sometimes("update-sent-once", nth=0),
            "one of agent-registers-again, .*update-sent-twice",
        ),
        (lambda sim: sim.faults.crash(sim.mine, at_s=9), "give `sim.spawn` its class"),
        (lambda sim: sim.faults.drop(Jobs(1, 1), "agent-0", nth=9), "sim.spawn"),
    ],
)
def test_what_cannot_be_is_refused_with_the_fix(add: object, told: str) -> None:
    sim = cluster(agents=2)
    sim.mine = sim.spawn(Jobs(1, 1))  # type: ignore[attr-defined]
    sim.run(5)

    with pytest.raises(ConfigError, match=told):
        add(sim)  # type: ignore[operator]


def test_the_rare_branches_that_can_be_named_are_those_of_the_code() -> None:
    sources = (ROOT / "actors").rglob("*.py")
    named = {site for path in sources for site in re.findall(r'ctx\.sometimes\("([^"]+)"\)', path.read_text())}

    assert named == set(F.SITES)


def test_what_was_not_reached_is_told_without_clockwork() -> None:
    sim = busy(masters=3)
    with pytest.raises(NotReached) as caught:
        sim.until(lambda: False, within_s=100)
    _, *tail = str(caught.value).splitlines()

    assert len(tail) == TAIL
    assert any("Update(" in line for line in tail)
    assert not any(word in line for line in tail for word in (" timer ", "AppendEntries(", "Ping(", "WhoLeads("))


def test_no_drawn_fault_ends_a_process_that_cannot_be_followed_by_another() -> None:
    plan = SeededPlan(1, Chances(disk_death=1.0, drop=0, double=0, delay=0, slow_disk=0), [F.Crash("framework0", 10)])
    sim = cluster(agents=0, plan=plan, invariants=False)
    sim.spawn(Jobs(1, 1))
    sim.run(1)

    assert sim.frameworks[0].host.incarnation == 1


def test_a_hanging_task_ends_when_all_is_calm() -> None:
    sim = cluster(agents=1, plan=Plan.of([F.Launch("agent0", 0, "hang")]))
    mine = sim.add_framework(lambda: One())
    sim.run(60)
    assert mine.states("t") == [TaskState.RUNNING]
    sim.calm()
    sim.run(20)

    assert mine.states("t")[-1] is TaskState.FINISHED


@given(st.integers(0, 500))
@settings(max_examples=20)
def test_a_replay_file_is_written_and_read_again(seed: int) -> None:
    import tempfile
    from pathlib import Path

    trial, _ = draw_trial(seed)
    replay = Replay(broken=Broken("liveness", "never"), trial=trial)
    with tempfile.TemporaryDirectory() as directory:
        assert read_replay(replay.write(Path(directory))) == replay
