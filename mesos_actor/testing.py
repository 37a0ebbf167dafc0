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

from typing import TYPE_CHECKING, Any

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.store import MemoryStore
from mesos_actor.isolation.fake import Run, run_of
from mesos_actor.raft.engine import Timing
from mesos_actor.raft.node import NodeSettings
from mesos_actor.transport.sim import faults, workload
from mesos_actor.transport.sim.agents import SimAgent
from mesos_actor.transport.sim.cluster import SimCluster, cluster
from mesos_actor.transport.sim.faults import Fate, Key
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.guards import NondeterminismError
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.invariants import ClusterInvariant, Watch
from mesos_actor.transport.sim.masters import SimMaster
from mesos_actor.transport.sim.network import NetworkSettings
from mesos_actor.transport.sim.plan import NORMAL, Chances, Plan, SeededPlan
from mesos_actor.transport.sim.planner import Faults
from mesos_actor.transport.sim.schedule import START_US
from mesos_actor.transport.sim.trial import Shape, Trial, draw_trial, play
from mesos_actor.transport.sim.world import (
    ActorFailed,
    Event,
    Invariant,
    InvariantViolation,
    NotReached,
    World,
    WorldSettings,
)

if TYPE_CHECKING:
    from mesos_actor.transport.sim.local_cluster import LocalCluster
    from mesos_actor.transport.sim.strategies import SIM_SETTINGS, ClusterMachine, fault_plans, workloads

_LATER = {
    "LocalCluster": "mesos_actor.transport.sim.local_cluster",
    **dict.fromkeys(
        ("SIM_SETTINGS", "ClusterMachine", "fault_plans", "workloads"), "mesos_actor.transport.sim.strategies"
    ),
}
"""Loaded when first used: the former needs ZeroMQ, the latter hypothesis."""


def __getattr__(name: str) -> Any:
    home = _LATER.get(name)
    if home is None:
        raise AttributeError(f"module 'mesos_actor.testing' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(home), name)


__all__ = [
    "NORMAL",
    "SECOND_US",
    "SIM_SETTINGS",
    "START_US",
    "ActorFailed",
    "Chances",
    "ClusterInvariant",
    "ClusterMachine",
    "Event",
    "Fate",
    "Faults",
    "Host",
    "Invariant",
    "InvariantViolation",
    "Key",
    "LocalCluster",
    "MemoryLog",
    "MemoryStore",
    "NetworkSettings",
    "NodeSettings",
    "NondeterminismError",
    "NotReached",
    "Plan",
    "Run",
    "SeededPlan",
    "Shape",
    "SimAgent",
    "SimCluster",
    "SimFramework",
    "SimMaster",
    "Timing",
    "Trial",
    "Watch",
    "World",
    "WorldSettings",
    "cluster",
    "draw_trial",
    "fault_plans",
    "faults",
    "play",
    "run_of",
    "workload",
    "workloads",
]
