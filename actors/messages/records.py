"""What agents, frameworks and executors keep on their own disks. The registry's records stand in `registry.py`."""

from __future__ import annotations

from mesos_actor.actors.ids import FrameworkId
from mesos_actor.actors.messages.base import Record


class SubscriptionRecord(Record, frozen=True):
    """A framework's own key `subscription`: the id under which it may come back."""

    framework_id: FrameworkId


class UserRecord(Record, frozen=True):
    """A framework's key `user/<key>`: what its author asked to have kept, opaque to us."""

    data: bytes
