"""The life of tasks in a whole cluster on virtual time: they run, are killed, lose their agent, master or framework."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mesos_actor.actors.errors import ConfigError, PeerError
from mesos_actor.actors.framework import command_task, executor_task
from mesos_actor.actors.messages.records import AgentIdentityRecord
from mesos_actor.actors.messages.registry import FrameworkRecord
from mesos_actor.actors.messages.values import Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Reason, TaskState
from mesos_actor.testing import ActorFailed, Host, Plan, Run, SimCluster, SimFramework, cluster, play, run_of
from mesos_actor.transport.sim.faults import Crash, Cut
from mesos_actor.transport.sim.trial import Shape, Trial
from tests.sim.workloads import ONE_CPU, Holder, Jobs, One, Worker, posted, worker

RUNNING, FINISHED, FAILED = TaskState.RUNNING, TaskState.FINISHED, TaskState.FAILED
KILLING, KILLED, UNREACHABLE = TaskState.KILLING, TaskState.KILLED, TaskState.UNREACHABLE


def sleep(seconds: float) -> Task:
    return command_task("t", ["sleep", str(seconds)], ONE_CPU)


def framework_records(sim: SimCluster) -> list[FrameworkRecord]:
    records = sim.masters[0].replica.machine.state.records()
    return [record for record in records if isinstance(record, FrameworkRecord)]


def running(sim: SimCluster, seconds: float = 60, failover_s: float = 0, agents: int = 1) -> SimFramework:
    """A framework whose only task runs."""
    mine = sim.add_framework(lambda: One(sleep(seconds), failover_s))
    sim.until(lambda: mine.states("t") == [RUNNING], 10)
    return mine


def the_agent(sim: SimCluster) -> int:
    """The number of the agent that runs the one task."""
    return next(number for number, agent in enumerate(sim.agents) if agent.running())


# -- a task ------------------------------------------------------------------------------------------------------------


def test_the_life_of_a_task() -> None:
    sim = cluster(agents=1)
    mine = sim.add_framework(One(sleep(5)))

    sim.until(lambda: bool(mine.states("t")), 1)
    assert str(sim.in_use()) == str(ONE_CPU)
    assert len(sim.agents[0].running()) == 1
    sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 10)
    last = mine.statuses[-1]
    assert (last.exit_status, last.signal, last.reason) == (0, None, Reason.NONE)
    assert 5 <= sim.now_s < 5.1

    sim.settle(10)

    assert not sim.agents[0].actor.streams.streams  # every update was acknowledged, and its agent heard of that
    kept = sim.agents[0].host.disk.load("agent").values()
    assert [type(record) for record in kept] == [AgentIdentityRecord]
    (record,) = framework_records(sim)
    assert (record.removed, record.deadline_us) == (False, 0)
    (entry,) = sim.leader.roster.frameworks[mine.framework.framework_id].completed
    assert [state for _, state, _, _ in entry.history] == ["STAGING", "RUNNING", "FINISHED"]


@pytest.mark.parametrize(
    ("argv", "states", "exit_status", "reason"),
    [
        (["true"], [RUNNING, FINISHED], 0, Reason.NONE),
        (["exit", "3"], [RUNNING, FAILED], 3, Reason.COMMAND_FAILED),
        (["no-such-program"], [FAILED], None, Reason.CONTAINER_LAUNCH_FAILED),
    ],
)
def test_how_a_task_ends(argv: list[str], states: list[TaskState], exit_status: int | None, reason: Reason) -> None:
    sim = cluster(agents=1)
    mine = sim.add_framework(One(command_task("t", argv, ONE_CPU)))

    sim.until(lambda: mine.states("t") == states, 10)

    assert (mine.statuses[-1].exit_status, mine.statuses[-1].reason) == (exit_status, reason)
    sim.settle(30)


@pytest.mark.parametrize("word", ["fail", "oom", "lost_exit", "unknown_exit"])
def test_the_plan_decides_how_a_launch_ends(word: str) -> None:
    sim = cluster(agents=1, plan=Plan(words={("isolation", "agent0", 0): word}))
    mine = sim.add_framework(One(sleep(2)))

    sim.until(lambda: bool(mine.statuses) and mine.statuses[-1].state in (FINISHED, FAILED), 30)

    expected = {
        "fail": (FAILED, Reason.CONTAINER_LAUNCH_FAILED),
        "oom": (FAILED, Reason.CONTAINER_LIMITATION_MEMORY),
        "lost_exit": (FINISHED, Reason.NONE),
        "unknown_exit": (FAILED, Reason.EXIT_STATUS_UNKNOWN),
    }
    assert (mine.statuses[-1].state, mine.statuses[-1].reason) == expected[word]
    sim.settle(30)


def test_a_task_that_is_killed_ends_by_the_signal_within_its_grace() -> None:
    sim = cluster(agents=1)
    mine = running(sim)

    posted(mine, lambda f: f.kill("t"))
    sim.until(lambda: mine.states("t") == [RUNNING, KILLING, KILLED], 5)

    assert mine.statuses[-1].signal == 15
    sim.settle(10)


def test_a_task_that_ignores_the_signal_is_killed_after_its_grace() -> None:
    sim = cluster(agents=1, runs=lambda launch: Run(duration_us=None, ignores_term=True))
    mine = running(sim)
    began_s = sim.now_s

    posted(mine, lambda f: f.kill("t", grace_s=4))
    sim.until(lambda: mine.states("t")[-1] is KILLED, 10)

    assert mine.statuses[-1].signal == 9
    assert 4 <= sim.now_s - began_s < 4.1


# -- losing an agent ---------------------------------------------------------------------------------------------------


def test_an_agent_that_is_lost_for_good() -> None:
    sim = cluster(agents=2)
    mine = running(sim, failover_s=600)
    holder = sim.add_framework(Holder)
    sim.until(lambda: len(holder.framework.held) == 2, 10)
    lost = sim.agents[the_agent(sim)]
    lost_id = lost.agent_id
    [offer_id] = [o.offer_id for o in holder.framework.held.values() if o.agent_id == lost_id]

    lost.crash(machine=True)

    sim.until(lambda: offer_id in holder.framework.rescinded, 1)
    sim.until(lambda: mine.states("t") == [RUNNING, UNREACHABLE], 60)
    assert mine.statuses[-1].reason is Reason.AGENT_REMOVED
    sim.run(1)
    assert mine.framework.lost == [lost_id]
    assert not sim.in_use()
    assert lost_id not in sim.leader.roster.agents
    sim.check()


def test_an_agent_that_comes_back_after_it_was_given_up() -> None:
    sim = cluster(agents=2)
    mine = running(sim, seconds=200, failover_s=600)
    lost = sim.agents[the_agent(sim)]
    sim.world.cut("master", lost.name)
    sim.until(lambda: mine.states("t") == [RUNNING, UNREACHABLE], 60)
    assert len(lost.running()) == 1

    sim.world.heal()

    sim.until(lambda: mine.states("t") == [RUNNING, UNREACHABLE, RUNNING], 120)
    assert mine.statuses[-1].reason is Reason.AGENT_REREGISTERED
    assert str(sim.in_use()) == str(ONE_CPU)
    sim.until(lambda: mine.states("t")[-1] is FINISHED, 300)
    sim.settle()


def test_an_agent_that_is_killed_and_started_again_has_its_tasks() -> None:
    sim = cluster(agents=1)
    mine = running(sim, seconds=30, failover_s=600)

    sim.agents[0].crash()
    sim.run(5)
    assert len(sim.agents[0].running()) == 1
    sim.agents[0].start()

    sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 60)
    assert 30 <= sim.now_s < 32
    sim.settle(10)


@pytest.mark.parametrize(("status", "signal"), [(3, None), (0, None), (None, 11)])
def test_an_exit_while_the_agent_was_away_is_told_as_it_was(status: int | None, signal: int | None) -> None:
    run = Run(duration_us=10_000_000, exit_status=status or 0, signal=signal)
    sim = cluster(agents=1, runs=lambda launch: run)
    mine = running(sim, failover_s=600)

    sim.agents[0].crash()
    sim.run(15)
    assert sim.agents[0].running() == []
    sim.agents[0].start()

    sim.until(lambda: len(mine.states("t")) == 2, 20)
    assert (mine.statuses[-1].exit_status, mine.statuses[-1].signal) == (status, signal)
    assert mine.states("t")[-1] is (FINISHED if status == 0 else FAILED)
    sim.settle(10)


def test_what_ran_when_the_power_failed_is_told_as_unknown() -> None:
    sim = cluster(agents=1)
    mine = running(sim, failover_s=600)

    sim.agents[0].crash(machine=True)
    sim.agents[0].start()

    sim.until(lambda: mine.states("t") == [RUNNING, FAILED], 60)
    assert mine.statuses[-1].reason is Reason.EXIT_STATUS_UNKNOWN
    sim.settle(10)


# -- losing the master -------------------------------------------------------------------------------------------------


def test_a_master_that_is_killed_and_started_again_has_its_cluster() -> None:
    sim = cluster(agents=2)
    mine = running(sim, seconds=40, failover_s=600)
    before = sim.leader
    agents = sorted(before.roster.agents)

    sim.master.crash()
    sim.run(5)
    sim.master.start()
    sim.until(lambda: sim.leader.leading and sum(a.connected for a in sim.leader.roster.agents.values()) == 2, 30)

    assert sim.leader is not before
    assert (sim.leader.cluster_id, sorted(sim.leader.roster.agents)) == (before.cluster_id, agents)
    assert sim.leader.term > before.term
    sim.until(lambda: mine.framework.connected, 30)
    assert str(sim.in_use()) == str(ONE_CPU)
    sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 60)
    assert 40 <= sim.now_s < 50
    assert mine.host.incarnation == 1
    sim.settle(30)


def test_agents_of_a_leader_that_stands_still_are_called_by_the_next_one() -> None:
    """Their links to the old one stand, so nothing else tells them for a long time."""
    sim = cluster(agents=3, masters=3)
    sim.until(lambda: all(agent.agent_id for agent in sim.agents), 10)
    old = sim.leading_host()
    assert old is not None
    old.host.pause(60_000_000)
    new = [master for master in sim.masters if master is not old]
    sim.until(lambda: any(master.leads for master in new), 5)
    (leader,) = [master.actor for master in new if master.leads]

    sim.until(lambda: all(agent.connected for agent in leader.roster.agents.values()), 1.1)
    assert len(leader.roster.agents) == 3


def test_the_deadline_of_a_lost_framework_outlives_the_master() -> None:
    sim = cluster(agents=1)
    mine = running(sim, seconds=1_000, failover_s=120)
    mine.crash()
    sim.run(60)

    sim.master.crash()
    sim.run(10)
    sim.master.start()

    sim.run(45)  # 115 s after it went away
    assert len(sim.agents[0].running()) == 1
    sim.run(15)
    assert sim.agents[0].running() == []
    assert framework_records(sim)[0].removed


# -- losing a framework ------------------------------------------------------------------------------------------------


def test_without_a_failover_timeout_the_tasks_end_with_their_framework() -> None:
    sim = cluster(agents=1)
    mine = running(sim, seconds=1_000, failover_s=0)

    mine.crash()
    sim.run(5)

    assert sim.agents[0].running() == []
    assert not sim.in_use()
    assert framework_records(sim)[0].removed


def test_a_framework_that_comes_back_in_time_finds_its_task() -> None:
    sim = cluster(agents=1)
    mine = running(sim, seconds=100, failover_s=60)
    before = mine.framework.framework_id

    mine.crash()
    sim.run(50)
    mine.start()

    sim.until(lambda: mine.framework.connected, 10)
    assert mine.framework.framework_id == before
    sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 100)
    sim.settle()


def test_a_framework_that_comes_back_too_late_is_told_so() -> None:
    sim = cluster(agents=1)
    mine = running(sim, seconds=1_000, failover_s=60)

    mine.crash()
    sim.run(70)
    assert sim.agents[0].running() == []
    mine.start()
    sim.until(lambda: mine.ended, 10)

    assert isinstance(mine.failure, PeerError)
    assert "Framework has been removed" in str(mine.failure)
    sim.run(1)
    mine.start()  # it has forgotten its old id, so now it is a new one
    sim.until(lambda: mine.framework.connected, 10)


def test_of_two_processes_of_a_framework_the_newest_wins() -> None:
    sim = cluster(agents=1)
    old = running(sim, seconds=30, failover_s=600)
    new = sim.add_framework(lambda: One(sleep(1), 600), principal=old.name, start=False)
    new.host.disk.rows.update(old.host.disk.rows)
    new.host.disk.crash()
    new.start()

    sim.until(lambda: old.ended, 10)

    assert "failed-over" in str(old.failure)
    assert new.framework.framework_id == old.framework.framework_id
    sim.until(lambda: new.states("t") == [RUNNING, FINISHED], 60)
    assert sim.leader.roster.frameworks[new.framework.framework_id].connected


# -- offers ------------------------------------------------------------------------------------------------------------


def held(sim: SimCluster) -> tuple[SimFramework, Holder]:
    mine = sim.add_framework(Holder)
    sim.until(lambda: bool(mine.framework.held), 40)
    return mine, mine.framework


def test_an_offer_nobody_answers_goes_to_somebody_else() -> None:
    sim = cluster(agents=1)
    _, first = held(sim)
    _, second = held(sim)

    sim.run(40)

    assert first.rescinded
    assert not first.held or not second.held
    assert sim.now_s > 30
    sim.check()


@pytest.mark.parametrize("delay_us", [0, 600, 1_000, 1_400, 5_000])
def test_an_accept_that_crosses_the_rescind_drops_its_tasks(delay_us: int) -> None:
    """The offer times out 30 s after it was made; the accept leaves just before the news of that can arrive. On its way
    it is 500 to 700 µs."""
    sim = cluster(agents=1)
    mine, holder = held(sim)
    (offer,) = holder.held.values()
    until = next(iter(sim.leader.offers.all())).expires_us
    sim.world.run(until - sim.world.now_us - 800 + delay_us)

    posted(mine, lambda f: f.accept(offer, [sleep(1)]))
    sim.until(lambda: bool(mine.states("t")), 30)

    if mine.states("t")[0] is TaskState.DROPPED:
        assert mine.statuses[-1].reason is Reason.INVALID_OFFERS
        assert sim.agents[0].survivors.launches == 0
        assert delay_us >= 600
    else:
        sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 30)
        assert delay_us < 1_400


def test_an_accept_that_crosses_the_loss_of_its_agent_is_told_why() -> None:
    sim = cluster(agents=1)
    mine, holder = held(sim)
    (offer,) = holder.held.values()

    sim.agents[0].crash()
    posted(mine, lambda f: f.accept(offer, [sleep(1)]))
    sim.until(lambda: bool(mine.statuses), 30)

    assert (mine.statuses[0].state, mine.statuses[0].reason) == (TaskState.DROPPED, Reason.AGENT_DISCONNECTED)


def test_two_frameworks_race_for_what_one_gives_back() -> None:
    """Whatever the order in which decline, accept and rescind cross, nothing is used twice: the invariants watch."""
    sim = cluster(agents=2, master={"offer_timeout_ms": 1_000}, seed=5)
    one = sim.add_framework(lambda: Jobs(30, 0.7))
    other = sim.add_framework(lambda: Jobs(30, 0.9))
    lazy, _ = held(sim)

    sim.until(lambda: one.ended and other.ended, 300)

    assert (one.failure, other.failure) == (None, None)
    assert lazy.framework.rescinded
    sim.check()


# -- custom executors --------------------------------------------------------------------------------------------------


def test_a_task_of_a_custom_executor_lives_through_the_restart_of_its_agent() -> None:
    sim = cluster(agents=1)
    sim.add_executor("w", Worker)
    mine = sim.add_framework(lambda: One(executor_task("t", worker("w"), ONE_CPU), 600))
    sim.until(lambda: mine.states("t") == [RUNNING], 10)
    (executor,) = sim.executor_hosts.values()

    sim.agents[0].crash()
    sim.run(1)
    sim.agents[0].start()
    sim.until(lambda: sim.agents[0].actor.registration.connected, 20)
    sim.run(3)
    posted(mine, lambda f: f.message(sim.agents[0].agent_id, "w", b"result"))

    sim.until(lambda: mine.states("t") == [RUNNING, FINISHED], 20)
    assert mine.statuses[-1].data == b"result"
    assert (executor.incarnation, executor.up, len(sim.launched)) == (1, True, 1)
    sim.check()


def test_the_tasks_of_an_executor_that_dies_fail_and_its_resources_are_free() -> None:
    sim = cluster(agents=1)
    sim.add_executor("w", Worker)
    mine = sim.add_framework(lambda: One(executor_task("t", worker("w"), ONE_CPU)))
    sim.until(lambda: mine.states("t") == [RUNNING], 10)

    next(iter(sim.executor_hosts.values())).crash()

    sim.until(lambda: mine.states("t") == [RUNNING, FAILED], 10)
    assert mine.statuses[-1].reason is Reason.EXECUTOR_TERMINATED
    sim.settle(10)


def test_an_executor_that_says_nothing_is_given_up() -> None:
    sim = cluster(agents=1)
    mine = sim.add_framework(lambda: One(executor_task("t", worker("mute"), ONE_CPU)))

    sim.until(lambda: mine.states("t")[-1:] == [FAILED], 90)

    assert mine.statuses[-1].reason is Reason.EXECUTOR_REGISTRATION_TIMEOUT
    sim.settle(10)


# -- the builder -------------------------------------------------------------------------------------------------------


def test_equal_arguments_make_equal_runs() -> None:
    def digest(seed: int) -> str:
        sim = cluster(agents=3, seed=seed)
        mine = sim.add_framework(lambda: Jobs(10, 2))
        sim.until(lambda: mine.ended, 60)
        return sim.world.digest

    assert digest(1) == digest(1)
    assert digest(1) != digest(2)


def test_machines_may_differ() -> None:
    sim = cluster(agents=0)
    sim.add_agent("cpus:1;mem:64")
    sim.add_agent("cpus:2;mem:256", attributes={"rack": "r1"}, runs=lambda launch: run_of(launch))
    holder = sim.add_framework(Holder)
    sim.until(lambda: len(holder.framework.held) == 2, 10)

    offers = sorted(holder.framework.held.values(), key=lambda offer: offer.hostname)

    assert [offer.resources for offer in offers] == [Resources.of(cpus=1, mem=64), Resources.of(cpus=2, mem=256)]
    assert "rack" in str(offers[1].attributes)


def test_a_framework_object_serves_one_process_only() -> None:
    sim = cluster(agents=1)
    mine = sim.add_framework(One(sleep(100), 600))
    sim.run(2)
    mine.crash()

    with pytest.raises((ConfigError, ActorFailed), match="serves one process"):
        mine.start()


def test_hosts_have_telling_names() -> None:
    sim = cluster(agents=2)
    sim.add_framework(Holder)
    sim.add_framework(Holder, name="mine")

    names: Sequence[str] = list(sim.world.hosts)
    hosts: list[Host] = list(sim.world.hosts.values())

    assert names == ["master", "agent0", "agent1", "framework0", "mine"]
    assert all(host.up for host in hosts)


def test_a_group_that_was_never_founded_gets_its_dead_founder_back() -> None:
    """The first leader is elected when all have heard from each other (docs/operations.md)."""
    faults = (Cut("master1", "master2", 0), Crash("master2", 100_000))

    run = play(Trial(seed=1, shape=Shape(masters=3, agents=1), bad_us=10_000_000, faults=faults))

    assert run.broken is None
    assert run.sim is not None and all(master.up for master in run.sim.masters)
