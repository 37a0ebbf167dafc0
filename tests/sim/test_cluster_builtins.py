"""The built-in schedulers in a simulated cluster that loses agents."""

from __future__ import annotations

import json

import pytest

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.service import Service
from mesos_actor.actors.frameworks.specs import batch_spec, service_spec
from mesos_actor.actors.ids import Address, FrameworkId, OperationId
from mesos_actor.actors.messages.clients import Instruct
from mesos_actor.actors.messages.scheduler import OperationResult
from mesos_actor.actors.task import TaskState
from mesos_actor.testing import SimCluster, cluster
from mesos_actor.transport.sim.workload import Submit, Transfer

BATCH = {
    "name": "counting",
    "task": [
        {"name": "map", "command": ["sleep", "6"], "instances": 30, "cpus": 1, "mem": 64, "retries": 3},
        {"name": "reduce", "command": ["sleep", "1"], "after": ["map"], "cpus": 1, "mem": 64},
    ],
}
SERVICE = {"name": "web", "command": ["sleep", "1000000"], "instances": 6, "cpus": 1, "mem": 64, "backoff": "1s"}


class Asker(Actor):
    """An operator that gives a framework one instruction, until it is answered."""

    def __init__(self, framework_id: FrameworkId, wish: dict[str, object]) -> None:
        self.question = Instruct(OperationId("ask"), framework_id, json.dumps(wish).encode())
        self.result: OperationResult | None = None

    def on_start(self, ctx: Context) -> None:
        self.on_timer(ctx, "ask")

    def on_timer(self, ctx: Context, name: str) -> None:
        if self.result is None:
            ctx.send(Address("tcp://10.0.0.1:5050/master"), self.question)
            ctx.set_timer("ask", 2_000_000)

    @handles(OperationResult)
    def on_result(self, ctx: Context, sender: Address, message: OperationResult) -> None:
        self.result = message


def instruct(sim: SimCluster, framework_id: FrameworkId, **wish: object) -> OperationResult:
    """What an operator is answered."""
    host = sim.world.add_host(f"operator{len(sim.world.hosts)}")
    asker = Asker(framework_id, wish)
    host.spawn("operator", lambda: asker).start()
    sim.until(lambda: asker.result is not None, 30)
    assert asker.result is not None
    return asker.result


@pytest.mark.parametrize("how", ["killed", "power", "killed for good", "power for good"])
def test_a_batch_ends_well_although_an_agent_is_lost(how: str) -> None:
    sim = cluster(agents=3)
    mine = sim.add_framework(lambda: Batch(batch_spec(BATCH)))
    sim.run(4)
    victim = next(agent for agent in sim.agents if agent.running())

    victim.crash(machine="power" in how)
    if "for good" not in how:
        sim.run(3)
        victim.start()
    elif "power" not in how:
        victim.host.retired = True

    sim.until(lambda: mine.ended, 1_500)
    assert (mine.failure, mine.framework.state.outcome) == (None, "finished")
    sim.check()


def test_a_batch_whose_scheduler_dies_goes_on_where_it_was() -> None:
    sim = cluster(agents=3)
    mine = sim.add_framework(lambda: Batch(batch_spec(BATCH)))
    sim.run(8)
    before = sum(agent.survivors.launches for agent in sim.agents)
    assert before >= 12

    mine.crash()
    sim.run(20)
    mine.start()

    sim.until(lambda: mine.ended, 300)
    assert mine.framework.state.outcome == "finished"
    assert sum(agent.survivors.launches for agent in sim.agents) == 31  # nothing was run a second time
    sim.settle()


def copies(sim: SimCluster) -> list[int]:
    return [len(agent.running()) for agent in sim.agents if agent.up]


def test_a_service_replaces_the_copies_of_a_lost_agent() -> None:
    sim = cluster(agents=3)
    mine = sim.add_framework(lambda: Service(service_spec(SERVICE)))
    sim.until(lambda: sum(copies(sim)) == 6, 30)

    max(sim.agents, key=lambda agent: len(agent.running())).crash(machine=True)
    assert sum(copies(sim)) < 6

    sim.until(lambda: sum(copies(sim)) == 6, 120)
    sim.run(30)
    assert sum(copies(sim)) == 6
    assert mine.framework.show(sim.world.now_us)["running"] == 6
    sim.check()


def test_copies_that_come_back_with_their_agent_are_ended_when_they_were_replaced() -> None:
    sim = cluster(agents=3)
    sim.add_framework(lambda: Service(service_spec(SERVICE)))
    sim.until(lambda: sum(copies(sim)) == 6, 30)
    lost = max(sim.agents, key=lambda agent: len(agent.running()))
    sim.world.cut("master", lost.name)
    sim.until(lambda: sum(copies(sim)) == 6 + len(lost.running()) > 6, 120)

    sim.world.heal()

    sim.until(lambda: sum(copies(sim)) == 6, 300)
    sim.run(60)
    assert sum(copies(sim)) == 6
    sim.check()


def test_a_service_obeys_its_operator_and_ends_when_removed() -> None:
    sim = cluster(agents=2)
    mine = sim.add_framework(lambda: Service(service_spec(SERVICE)))
    sim.until(lambda: sum(copies(sim)) == 6, 30)
    framework_id = mine.framework.framework_id

    answer = instruct(sim, framework_id, do="scale", instances=2)
    assert (answer.ok, json.loads(answer.data)["instances"]) == (True, 2)
    sim.until(lambda: sum(copies(sim)) == 2, 60)
    assert not instruct(sim, framework_id, do="dance").ok
    assert instruct(sim, framework_id, do="remove").ok

    sim.until(lambda: mine.ended, 60)
    assert {status.state for status in mine.statuses} <= {TaskState.RUNNING, TaskState.KILLING, TaskState.KILLED}
    sim.settle()


@pytest.mark.parametrize("first", range(3))
def test_a_batch_outlives_two_transfers_of_the_lead(first: int) -> None:
    sim = cluster(agents=3, masters=3, seed=first)
    sim.play([Submit(0, 24, 1_000), Transfer(3_000_000), Transfer(7_000_000)])
    sim.run(12)
    leader = sim.leading_host()
    assert leader is not None
    terms = {master.replica.engine.term for master in sim.masters}

    sim.until(lambda: sim.frameworks[0].ended, 120)

    assert min(terms) >= 3
    sim.check()
