"""The public names for tests: a cluster in one thread, on virtual time, with faults as data.

    from mesos_actor.testing import cluster

    sim = cluster(agents=3, seed=7)
    mine = sim.add_framework(MyFramework)
    sim.until(lambda: mine.ended, within_s=60)
    sim.check()

`docs/testing.md` is the guide. See `mesos_actor.transport.sim.plan` for how faults are written, and
`mesos_actor.transport.sim.world` for worlds of other actors than a cluster's.
"""

from __future__ import annotations

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.store import MemoryStore
from mesos_actor.isolation.fake import Run, run_of
from mesos_actor.raft.engine import Timing
from mesos_actor.raft.node import NodeSettings
from mesos_actor.transport.sim import faults
from mesos_actor.transport.sim.agents import SimAgent
from mesos_actor.transport.sim.cluster import SimCluster, cluster
from mesos_actor.transport.sim.faults import Fate, Key
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.invariants import ClusterInvariant, Watch
from mesos_actor.transport.sim.masters import SimMaster
from mesos_actor.transport.sim.network import NetworkSettings
from mesos_actor.transport.sim.plan import NORMAL, Chances, Plan, SeededPlan
from mesos_actor.transport.sim.schedule import START_US
from mesos_actor.transport.sim.world import (
    ActorFailed,
    Event,
    Invariant,
    InvariantViolation,
    NotReached,
    World,
    WorldSettings,
)

__all__ = [
    "NORMAL",
    "SECOND_US",
    "START_US",
    "ActorFailed",
    "Chances",
    "ClusterInvariant",
    "Event",
    "Fate",
    "Host",
    "Invariant",
    "InvariantViolation",
    "Key",
    "MemoryLog",
    "MemoryStore",
    "NetworkSettings",
    "NodeSettings",
    "NotReached",
    "Plan",
    "Run",
    "SeededPlan",
    "SimAgent",
    "SimCluster",
    "SimFramework",
    "SimMaster",
    "Timing",
    "Watch",
    "World",
    "WorldSettings",
    "cluster",
    "faults",
    "run_of",
]
