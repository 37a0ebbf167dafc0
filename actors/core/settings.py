"""What the deciding actors can be told, with defaults. Units stand last; each default names the Mesos one it follows.

Pure data: where the values come from (file, environment, options) is `config.py`'s business.
"""

from __future__ import annotations

import msgspec

from mesos_actor.actors.ids import Address
from mesos_actor.actors.resources import Attributes, Resources


class MasterSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Master. Durations in milliseconds."""

    allocation_interval_ms: int = 1_000
    """Batch allocation, for filters that ran out; events allocate at once (Mesos: --allocation_interval, 1 s)."""
    offer_timeout_ms: int = 30_000
    """An offer nobody answers comes back (Mesos: --offer_timeout, unset; wishes.md 2: hoarding)."""
    ping_interval_ms: int = 5_000
    """(Mesos: --agent_ping_timeout, 15 s.)"""
    max_missed_pings: int = 5
    """(Mesos: --max_agent_ping_timeouts, 5.)"""
    reregister_window_ms: int = 600_000
    """How long agents may stay away after a master's start or a broken link before they are unreachable
    (Mesos: --agent_reregister_timeout, 10 min)."""
    recovery_removal_limit_permille: int = 1_000
    """When more of the agents that the registry knew at a leader's start are still silent at the end of their window,
    none of those is removed: the network is more likely to be broken than they are. The master waits and says so, until
    enough are back (Mesos: --recovery_agent_removal_limit, 100 %; its master exits instead)."""
    agent_removal_interval_ms: int = 0
    """At least so long lies between two agents that are marked unreachable, so that an operator can step in when a
    fault of the network takes many at once; one that answers meanwhile stays. At 0 there is no limit; else at most one
    is marked in each tenth of a ping interval (Mesos: --agent_removal_rate_limit, unset)."""
    max_outstanding_share_permille: int = 1_000
    """The most of the cluster that one framework's unanswered offers may hold."""
    max_agents: int = 100_000
    max_frameworks: int = 10_000
    max_tasks_per_framework: int = 1_000_000
    max_completed_frameworks: int = 50
    """(Mesos: --max_completed_frameworks.)"""
    max_completed_tasks_per_framework: int = 1_000
    """Ended and unreachable tasks remembered, each (Mesos: --max_completed_tasks_per_framework, 1,000)."""
    max_pending_operations: int = 10_000
    proposal_deadline_ms: int = 20_000
    """A registry write not answered by then is `unknown` (Mesos: --registry_store_timeout, 20 s)."""
    registry_max_age_ms: int = 14 * 24 * 3600 * 1000
    """Unreachable agents and removed frameworks are forgotten after this (Mesos: 2 weeks)."""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Agent. Durations in milliseconds."""

    hostname: str
    masters: tuple[Address, ...]
    """Where masters may be found; the first that leads is used."""
    resources: Resources
    attributes: Attributes = Attributes()
    version: str = ""
    isolation: str = ""
    """What keeps its tasks apart (AgentInfo.isolation)."""
    isolation_warning: str = ""
    registration_backoff_ms: int = 1_000
    """First retry after a random time up to this, then doubled (Mesos: --registration_backoff_factor, 1 s)."""
    registration_backoff_max_ms: int = 60_000
    executor_registration_timeout_ms: int = 60_000
    executor_reregistration_timeout_ms: int = 2_000
    update_retry_ms: int = 10_000
    """First repeat of an unacknowledged update, then doubled (Mesos: 10 s)."""
    update_retry_max_ms: int = 600_000
    gc_delay_ms: int = 7 * 24 * 3600 * 1000
    gc_interval_ms: int = 60_000
    max_tasks: int = 100_000
    max_completed_tasks: int = 1_000
    max_executors: int = 1_000
    """Custom executors that live here at a time; a task that needs one more is DROPPED."""
    max_queued_tasks: int = 10_000
    """Tasks that wait for one executor to register; one more is DROPPED."""
    container_pids_limit: int = 4_096
    """Processes and threads of a container that names no limit of its own; 0: no limit. Only with cgroups."""
    disk_watch_interval_ms: int = 15_000
    """How often a sandbox with a limit on its disk is looked at; only with cgroups (Mesos:
    --container_disk_watch_interval, 15 s)."""
    images_max_bytes: int = 20 << 30
    """What images may take on the disk together, unpacked: past it those that no container uses go, the one used
    longest ago first, and an image that is larger alone is refused. What is in use stays. (Mesos: --image_gc_config)"""
    usage_interval_ms: int = 1_000
    """The oldest answer to a question about resource use; an older one is measured anew (Mesos: 15 s)."""
