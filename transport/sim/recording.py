"""What a test run decides for the clusters that tests make: seed, replayed faults, whose test it is.

Set by the pytest plugin; without it everything here is idle. One test runs at a time in a process.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from mesos_actor.transport.sim.plan import Plan

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster
    from mesos_actor.transport.sim.replay import Replay
    from mesos_actor.transport.sim.workload import AnyStep

MAX_KEPT = 4
"""The newest clusters of a test that can still be looked at when it has failed."""


class Recording:
    """Of one test."""

    def __init__(self, test: str, seed: int = 0, replay: Replay | None = None) -> None:
        self.test = test
        self.seed = seed
        self.replay = replay
        self.sims: deque[SimCluster] = deque(maxlen=MAX_KEPT)
        """The clusters it made, newest last."""
        self.work: tuple[AnyStep, ...] = ()
        """What `workloads()` drew last."""
        self.drawn_steps = False
        """A state machine drives them: its steps play it again, which hypothesis tells, and not a file of faults."""

    def plan(self) -> Plan | None:
        """The faults of the file that is replayed."""
        return None if self.replay is None else Plan.of(self.replay.faults)

    def replayed_work(self) -> tuple[AnyStep, ...] | None:
        """The workload of the file that is replayed."""
        if self.replay is None:
            return None
        from mesos_actor.transport.sim.workload import AnyStep as Steps

        return msgspec.convert(self.replay.work, tuple[Steps, ...])


current: Recording | None = None
"""That of the test that runs now."""
