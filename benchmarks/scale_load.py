"""The frameworks of scale.py: two hundred that always launch, and the probe whose one task is timed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

from scale_world import EACH, SLOTS

from mesos_actor import Framework, Offer, Status, Task, TaskState, command_task, is_terminal
from mesos_actor.actors.ids import Address
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.transport.sim.world import World

MEAN_S, DEVIATION_S, LEAST_S = 30.0, 10.0, 1.0
"""How long tasks take: N(30 s, 10 s), as in the paper, and never less than LEAST_S."""
PROBE_S = 10.0
REFUSE_S = 1.0


class AlwaysLaunching(Framework):
    """Takes every offer and fills it. The first task in a slot has only a part of its time left, so that as many end
    each second from then on as would after hours."""

    def __init__(self, name: str, rng: random.Random, counts: Counts) -> None:
        self.name, self.draw, self.counts = name, rng, counts
        self.number = 0

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free = offer.resources
            tasks: list[Task] = []
            while (share := free.take(EACH)) is not None:
                free -= share
                seconds = max(LEAST_S, self.draw.gauss(MEAN_S, DEVIATION_S))
                if self.counts.is_first(offer.agent_id):
                    seconds *= self.draw.random()
                self.number += 1
                tasks.append(command_task(f"{self.name}-{self.number}", ["sleep", f"{seconds:.3f}"], share))
            self.accept(offer, tasks, refuse_s=REFUSE_S)
            self.counts.launched += len(tasks)
            self.counts.running += len(tasks)

    def on_update(self, status: Status) -> None:
        if is_terminal(status.state):
            self.counts.running -= 1
            self.counts.failed += status.state is not TaskState.FINISHED


class Counts:
    """Of all frameworks that always launch."""

    def __init__(self) -> None:
        self.launched = 0
        self.running = 0
        self.failed = 0
        """Ended otherwise than FINISHED."""
        self._slots: Counter[str] = Counter()

    def is_first(self, agent_id: str) -> bool:
        """Whether the next task of this agent is the first in its slot; counts it."""
        self._slots[agent_id] += 1
        return self._slots[agent_id] <= SLOTS


class Probe(Framework):
    """A new framework with one task of ten seconds. `overhead_s` is all beyond those: registering, waiting for an
    offer, accepting, launching, and the report of the end; None until that has come."""

    def __init__(self, name: str, now_us: Callable[[], int]) -> None:
        self.name, self.now_us = name, now_us
        self.began_us = 0
        self.launched = False
        self.overhead_s: float | None = None

    def on_start(self) -> None:
        self.began_us = self.now_us()

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            share = None if self.launched else offer.resources.take(EACH)
            if share is None:
                self.decline(offer)
            else:
                self.launched = True
                self.accept(offer, [command_task(self.name, ["sleep", f"{PROBE_S}"], share)], refuse_s=60)
        if self.launched:
            self.suppress()

    def on_update(self, status: Status) -> None:
        if is_terminal(status.state):
            assert status.state is TaskState.FINISHED, f"the probe's task: {status}"
            self.overhead_s = (self.now_us() - self.began_us) / 1e6 - PROBE_S
            self.stop()


def add_framework(world: World, master: Address, framework: Framework) -> None:
    """Run it in a simulated process of its own, under the driver that real ones have."""
    host = world.add_host(framework.name, principal=framework.name)
    host.retired = True
    host.spawn("framework", lambda: FrameworkActor(framework, [master]), durable=True, restart="temporary").start()
