"""The public names for tests: a cluster in one thread, on virtual time, with faults as data.

    from mesos_actor.testing import Plan, World

See `mesos_actor.transport.sim.world` for what a world is and `mesos_actor.transport.sim.plan` for how faults are
written.
"""

from __future__ import annotations

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.store import MemoryStore
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.network import NetworkSettings
from mesos_actor.transport.sim.plan import NORMAL, Chances, Fate, Key, Plan, SeededPlan
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
    "Event",
    "Fate",
    "Host",
    "Invariant",
    "InvariantViolation",
    "Key",
    "MemoryLog",
    "MemoryStore",
    "NetworkSettings",
    "NotReached",
    "Plan",
    "SeededPlan",
    "World",
    "WorldSettings",
]
