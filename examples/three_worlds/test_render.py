"""One suite in three worlds: pytest examples/three_worlds

pytest examples/three_worlds -k simulated                       virtual time, with faults, milliseconds
pytest examples/three_worlds -k real                            processes started on this host, real time
pytest examples/three_worlds -k real --cluster-masters h1:5050  a cluster that runs already
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from render import Render

from mesos_actor.testing import (
    SIM_SETTINGS,
    Chances,
    LocalCluster,
    Plan,
    SimCluster,
    cluster,
    fault_plans,
)


def renders_everything(world: SimCluster | LocalCluster) -> None:
    """What must be true everywhere."""
    render = world.spawn(Render(frames=12))
    world.until(lambda: render.done, within_s=60)
    assert render.rendered == {f"frame-{number}" for number in range(12)}
    world.check()


def test_simulated(sim: SimCluster) -> None:
    renders_everything(sim)


def test_real(cluster: LocalCluster) -> None:
    renders_everything(cluster)


def test_simulated_agent_loses_power(sim: SimCluster) -> None:
    render = sim.spawn(Render(frames=100))
    sim.faults.drop("master-0", render, nth=2)
    sim.faults.crash("agent-1", at_s=1.5, restart_after_s=120, machine=True)
    sim.until(lambda: render.done, within_s=300)


@pytest.mark.sim(chances=Chances(drop=0.02, delay=0.2, disk_death=0.002))
def test_simulated_bad_day(sim: SimCluster) -> None:
    """Try more of them: pytest --sim-runs 100"""
    render = sim.spawn(Render(frames=50))
    sim.run(for_s=60)
    sim.calm()
    sim.until(lambda: render.done, within_s=1_500)
    sim.check()


@settings(SIM_SETTINGS, max_examples=25)
@given(plan=fault_plans(masters=3, agents=3, frameworks=1))
def test_simulated_whatever_goes_wrong(plan: Plan) -> None:
    sim = cluster(masters=3, plan=plan)
    render = sim.spawn(Render(frames=30))
    sim.run(for_s=40)
    sim.calm()
    sim.until(lambda: render.done, within_s=1_500)
    sim.check()
