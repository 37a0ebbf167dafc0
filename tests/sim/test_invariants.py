"""Each invariant fires when what it watches for is broken, and only then."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mesos_actor.actors.framework import Framework
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Offer, Status
from mesos_actor.actors.task import TaskState
from mesos_actor.testing import ClusterInvariant, InvariantViolation, NotReached, Plan, Run, SimCluster, cluster
from mesos_actor.transport.sim.invariants import STANDARD
from mesos_actor.transport.sim.order_invariants import ORDERS
from mesos_actor.transport.sim.registry_invariants import REGISTRY
from mesos_actor.transport.sim.task_invariants import TASKS
from tests.sim import bugs, days
from tests.sim.test_cluster_life import running, sleep
from tests.sim.workloads import Holder, Jobs, One, posted


def work() -> None:
    """More tasks than fit, then calm."""
    sim = cluster(agents=2, seed=3)
    sim.add_framework(lambda: Jobs(20, 2))
    sim.run(20)
    sim.check()


def kill() -> None:
    """A task that takes its time to die, and somebody who waits for its place."""
    sim = cluster(agents=1, resources="cpus:1;mem:64", runs=ignoring_term)
    mine = running(sim)
    sim.add_framework(lambda: One(sleep(1)))
    posted(mine, lambda f: f.kill("t", grace_s=5))
    sim.run(20)


def ignoring_term(launch: LaunchContainer) -> Run:
    return Run(duration_us=100_000_000, ignores_term=True)


def lost_order() -> None:
    """The order to run a task gets lost, and its agent comes back at the same moment; another one is down."""
    sim = cluster(agents=2)
    mine = sim.add_framework(Holder)
    sim.until(lambda: len(mine.framework.held) == 2, 10)
    sim.agents[1].crash()
    offer = next(o for o in mine.framework.held.values() if o.agent_id == sim.agents[0].agent_id)
    posted(mine, lambda f: f.accept(offer, [sleep(5)]))
    sim.until(lambda: "t" in sim.leader.roster.frameworks[mine.framework.framework_id].tasks, 5)
    sim.world.break_links("master", "agent0")
    sim.run(10)
    sim.check()


def lost_order_of_a_dying_leader() -> None:
    """The order to run a task gets lost, and the leader that had given it dies."""
    sim = cluster(agents=1, masters=3)
    mine = sim.add_framework(Holder)
    sim.until(lambda: bool(mine.framework.held), 10)
    leader = sim.leading_host()
    assert leader is not None
    sim.world.cut(leader.name, "agent0", one_way=True)
    (offer,) = mine.framework.held.values()
    posted(mine, lambda f: f.accept(offer, [sleep(5)]))
    sim.until(lambda: "t" in sim.leader.roster.frameworks[mine.framework.framework_id].tasks, 5)
    leader.crash()
    sim.run(10)
    sim.check()


def lost_acknowledgement() -> None:
    """An acknowledgement is lost on the way to the master, so the agent repeats itself."""
    sim = cluster(agents=1, plan=acknowledgements_lost())
    mine = sim.add_framework(lambda: One(sleep(2)))
    sim.until(lambda: len(mine.states("t")) == 2, 10)
    sim.run(30)


def acknowledgements_lost() -> Plan:
    return Plan({("framework0", "master", n): () for n in range(2, 6)})


def restart() -> None:
    """An agent is killed and started again while a task runs, and once more after it has ended."""
    sim = cluster(agents=1)
    mine = sim.add_framework(lambda: One(sleep(10), 600))
    sim.until(lambda: bool(mine.states("t")), 10)
    sim.run(1)
    for _ in range(2):
        sim.agents[0].crash()
        sim.run(1)
        sim.agents[0].start()
        sim.run(20)
    sim.check()


@pytest.mark.parametrize(
    ("bug", "day", "invariant"),
    [
        (bugs.accepted_resources_are_offered_again, work, "nothing-promised-twice"),
        (bugs.a_kill_frees_at_once, kill, "nothing-promised-twice"),
        (bugs.a_missing_task_is_forgotten, lost_order, "no-task-lost"),
        (bugs.orders_that_got_lost_are_not_asked_about, lost_order_of_a_dying_leader, "no-task-lost"),
        (bugs.the_driver_forgets_what_it_has_heard, lost_acknowledgement, "no-step-back"),
        (bugs.tasks_are_not_recovered, restart, "nothing-kept-is-forgotten"),
        (bugs.an_ended_task_stays_on_disk, restart, "nothing-kept-is-forgotten"),
        (bugs.unstarted_tasks_are_launched_anew, restart, "no-task-run-twice"),
        (bugs.agents_that_speak_count_as_silent, work, "tables-agree"),
        (bugs.old_leaders_are_obeyed, days.an_old_leader_speaks, "only-the-leader-is-obeyed"),
        (bugs.executors_are_left_running, days.executors_die, "nothing-outlives-its-container"),
        (bugs.tasks_of_a_dead_executor_go_on, days.executors_die, "nothing-outlives-its-container"),
        (bugs.groups_are_opened_twice, days.a_batch_comes_back_between_two_groups, "no-instance-twice"),
        (bugs.the_second_framework_is_passed_over, days.two_share, "nobody-is-left-waiting"),
        (bugs.votes_are_given_twice, days.leaders_die, "one-leader-a-term"),
        (bugs.syncs_do_nothing, days.all_lose_power, "one-history"),
        (bugs.reads_are_answered_at_once, days.the_registry_is_read, "registry-is-linearizable"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_a_planted_bug_is_found(
    bug: bugs.Bug, day: Callable[[], None], invariant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    day()  # nothing fires without the bug
    bug(monkeypatch)

    with pytest.raises(InvariantViolation, match=f"^{invariant}: "):
        day()


def test_every_invariant_has_been_seen_to_fire() -> None:
    cases = test_a_planted_bug_is_found.pytestmark[0].args[1]  # type: ignore[attr-defined]

    watched: tuple[type[ClusterInvariant], ...] = (*STANDARD, *TASKS, *ORDERS, *REGISTRY)
    assert {kind.name for kind in watched} == {case[2] for case in cases}


class Again(Framework):
    """Launches a task once more the moment it hears of its end, when its id is still in use: it is refused."""

    def __init__(self) -> None:
        self.held: Offer | None = None
        self.launches = 0
        self.told: list[TaskState] = []

    def on_offers(self, offers: Sequence[Offer]) -> None:
        self.held = offers[-1]
        if not self.launches:
            self._launch()

    def on_update(self, status: Status) -> None:
        self.told.append(status.state)
        if status.state is TaskState.FINISHED and self.launches == 1:
            self._launch()

    def _launch(self) -> None:
        assert self.held is not None
        self.launches += 1
        self.accept(self.held, [sleep(2)], refuse_s=0)


def test_a_task_whose_id_is_used_too_soon_is_not_taken_for_lost() -> None:
    sim = cluster(agents=1)
    mine = sim.add_framework(Again)
    sim.run(20)
    sim.world.break_links("master", "agent0")
    sim.run(10)
    sim.check()

    assert mine.framework.told == [TaskState.RUNNING, TaskState.FINISHED, TaskState.ERROR]


def test_what_breaks_no_rule_but_never_ends_is_found_by_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs.every_order_is_ignored(monkeypatch)
    sim: SimCluster = cluster(agents=1)
    sim.add_framework(lambda: One(sleep(1)))
    sim.run(5)

    with pytest.raises(NotReached):
        sim.settle(60)


def test_the_world_remembers_what_was_broken_and_keeps_quiet_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    bugs.agents_that_speak_count_as_silent(monkeypatch)
    sim = cluster(agents=1)

    with pytest.raises(InvariantViolation):
        sim.run(60)

    assert isinstance(sim.world.violation, InvariantViolation)
    sim.check()  # the first error is the one to read
