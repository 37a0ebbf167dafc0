"""One busy run in which nothing goes wrong, and what crossed a link in it: where faults can be put."""

from __future__ import annotations

import functools
from collections import Counter
from dataclasses import dataclass

from mesos_actor.actors.ids import Address, Node, node_of
from mesos_actor.testing import Key, Plan, SimCluster, SimFramework, cluster
from tests.sim.workloads import Chores, Jobs, Operator, Worker

BUSY_S = 7
"""The script lasts so long; then the rest takes its course."""


@dataclass
class Day:
    """Two frameworks with custom executors, killed tasks, a break of one of them, an operator, an agent written off."""

    sim: SimCluster
    chores: SimFramework
    jobs: SimFramework

    def is_over(self) -> bool:
        """Whether everything that was begun has come to its end, everywhere."""
        operator = self.sim.world.hosts["operator"].actor("operator")
        assert isinstance(operator, Operator)
        return self.chores.ended and self.jobs.ended and len(operator.answered) == 6 and self.sim.is_idle()

    def finish(self, within_s: float) -> None:
        """Let it come to its end. Raises NotReached when that takes longer, AssertionError when something failed."""
        self.sim.until(self.is_over, within_s)
        self.sim.check()
        assert self.chores.failure is None and self.jobs.failure is None
        assert self.chores.framework.missing() == []
        assert self.jobs.framework.done()


def begin(plan: Plan | None = None, seed: int = 0) -> Day:
    """The day's first seconds."""
    sim = cluster(4, seed=seed, plan=plan, master={"offer_timeout_ms": 5_000})
    chores = sim.add_framework(Chores, name="chores")
    jobs = sim.add_framework(lambda: Jobs(24, 5), name="jobs")
    sim.add_executor("a", Worker)
    sim.add_executor("b", Worker)
    operator = sim.world.add_host("operator", node="tcp://10.0.9.9:1")
    operator.spawn("operator", lambda: Operator(sim, sim.masters[0].address)).start()
    sim.run(BUSY_S - 2)
    jobs.stop()
    sim.run(2)
    jobs.start()
    return Day(sim, chores, jobs)


@functools.cache
def crossings() -> dict[str, list[Key]]:
    """The class of every message that crossed a link in the calm run, to where: `(source, destination, n)`, in order.

    Nothing is lost and links keep order, so the n-th message that arrives is the n-th that was sent.
    """
    hosts: dict[Node, str] = {}
    day = begin()
    day.finish(60)
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[str, list[Key]] = {}
    for event in day.sim.world.history():
        if event.kind == "start":
            hosts[Node(event.detail.partition(" ")[2])] = event.host
        elif event.message is not None and (source := hosts.get(node_of(Address(event.sender)))) is not None:
            link = (source, event.host)
            found.setdefault(type(event.message).__name__, []).append((*link, counts[link]))
            counts[link] += 1
    return found


def kind_of(host: str) -> str:
    """`agent` of `agent3`, and so on."""
    return host.rstrip("0123456789").removesuffix("-executor")
