"""Short days that show what a planted bug breaks, for what chance alone shows seldom."""

from __future__ import annotations

from mesos_actor.actors.actor import Actor, Context
from mesos_actor.actors.framework import executor_task
from mesos_actor.actors.ids import Address, Role, Term
from mesos_actor.actors.messages.agents import RunTasks
from mesos_actor.actors.messages.values import FrameworkInfo
from mesos_actor.testing import Chances, SeededPlan, cluster, workload
from tests.sim.workloads import HALF_CPU, Jobs, One, Worker, worker


class OldLeader(Actor):
    """Orders a task, as a leader would that does not know of its successor."""

    def __init__(self, agent: Address, order: RunTasks) -> None:
        self.agent = agent
        self.order = order

    def on_start(self, ctx: Context) -> None:
        ctx.send(self.agent, self.order)


def an_old_leader_speaks() -> None:
    """The order of a task gets lost, and an agent that has registered in a later term gets it from an old leader."""
    sim = cluster(agents=1, masters=3)
    mine = sim.add_framework(lambda: One(failover_timeout_s=600))
    sim.until(lambda: bool(sim.agents[0].agent_id), 10)
    leader = sim.leading_host()
    assert leader is not None
    sim.world.cut(leader.name, "agent0", one_way=True)
    sim.until(lambda: bool(mine.driver.tasks), 10)
    sim.run(1)
    info = FrameworkInfo("old", roles=(Role("*"),))
    order = RunTasks(Term(0), mine.framework.framework_id, info, Role("*"), (mine.framework.task,))
    old = sim.world.add_host("old", node="tcp://10.0.7.7:1")
    old.spawn("master", lambda: OldLeader(sim.agents[0].host.address("agent"), order)).start()
    sim.run(5)


def executors_die() -> None:
    """An executor dies while it has a task."""
    sim = cluster(agents=1)
    sim.add_executor("a", Worker)
    sim.faults.launch("agent-0", nth=0, fate="die")
    sim.add_framework(lambda: One(executor_task("endless", worker("a"), HALF_CPU)))
    sim.run(60)


def a_batch_comes_back_between_two_groups() -> None:
    """Its scheduler is killed when the first group is done and before the second one is launched."""
    sim = cluster(agents=1)
    played = sim.play([workload.Submit(0, 2, 100, staged=True)])
    sim.run(0.01)
    (mine,) = played.frameworks
    sim.until(lambda: mine.up and not mine.framework.state.groups["a"].remaining, 60)
    sim.run(0.001)  # it is kept
    mine.crash()
    mine.start()
    sim.settle(100)


def two_share() -> None:
    """Two frameworks, and room for both."""
    sim = cluster(agents=1)
    sim.add_framework(lambda: Jobs(3, 1))
    sim.add_framework(lambda: Jobs(3, 1))
    sim.run(100)


def leaders_die() -> None:
    """Whoever leads is killed, again and again, while messages get lost."""
    for seed in range(3):
        sim = cluster(agents=0, masters=3, seed=seed, plan=SeededPlan(seed, Chances(drop=0.1, disk_death=0)))
        for _ in range(15):
            sim.run(1)
            leader = sim.leading_host()
            if leader is not None:
                leader.crash()
                sim.run(0.5)
                leader.start()


def the_registry_is_read() -> None:
    """By two users at once, while whoever leads is cut off, again and again."""
    sim = cluster(agents=0, masters=3, seed=2)
    sim.play([workload.UseRegistry(0, users=3, pace_us=10_000, patience_us=150_000)])
    for _ in range(5):
        sim.run(2)
        leader = sim.leading_host()
        assert leader is not None
        others = [master.name for master in sim.masters if master is not leader]
        for name in others:
            sim.world.cut(leader.name, name)
        sim.run(2)
        for name in others:
            sim.world.heal(leader.name, name)
    assert sim.asked.count("ok", reads=True) > 100
    assert sim.asked.count("ok") > 100
    sim.check()


def all_lose_power() -> None:
    """All masters at once, after they have acknowledged a lot."""
    sim = cluster(agents=1, masters=3, seed=1)
    sim.play([workload.Weigh(second * 1_000_000, 500 + second) for second in range(3, 20)])
    sim.run(28)
    for master in sim.masters:
        master.host.crash(machine=True)
    for master in sim.masters:
        master.start()
    sim.run(5)
    sim.check()
