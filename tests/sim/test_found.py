"""Bugs that the simulation has found, each as the shortest run that shows it."""

from __future__ import annotations

from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.specs import BatchSpec, TaskSpec
from mesos_actor.actors.messages.scheduler import Kill
from mesos_actor.actors.task import TaskState
from mesos_actor.testing import Run, cluster


def test_a_batch_is_offered_what_must_be_run_again() -> None:
    """It had declared three tasks and launched three; that two had failed meanwhile, and were ready again, changed
    no group's name, so nothing was declared anew, and its demand was met."""
    sim = cluster(agents=1, resources="cpus:1;mem:512")
    spec = BatchSpec(name="b", task=(TaskSpec(name="t", command=("true",), cpus=1, mem=32, instances=3, retries=5),))
    for nth in range(2):
        sim.faults.launch("agent-0", nth=nth, fate="fail")
    mine = sim.add_framework(lambda: Batch(spec))

    sim.until(lambda: mine.ended, within_s=60)

    assert mine.framework.state.outcome == "finished"


def test_a_batch_does_not_go_on_killing_what_cannot_be_reached() -> None:
    """Each kill of an unreachable task was answered by UNREACHABLE, which was answered by the next kill, for ever."""
    sim = cluster(agents=2, resources="cpus:1;mem:512", runs=lambda launch: Run(duration_us=30_000_000))
    spec = BatchSpec(name="b", task=(TaskSpec(name="t", command=("sleep",), cpus=1, mem=32, instances=2),))
    mine = sim.add_framework(lambda: Batch(spec))
    sim.until(lambda: len(mine.statuses) == 2, within_s=10)
    sim.faults.crash("agent-0", at_s=sim.now_s)
    sim.until(lambda: any(known.state is TaskState.UNREACHABLE for known in mine.driver.tasks.values()), within_s=600)

    sim.faults.break_links("framework-0", "master-0", at_s=sim.now_s)  # on its return it asks about all its tasks
    sim.run(10)

    assert sum(isinstance(event.message, Kill) for event in sim.world.history()) <= 1
    sim.until(lambda: mine.ended, within_s=120)
