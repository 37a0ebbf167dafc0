"""What agents, frameworks and executors keep on their own disks. The registry's records stand in `registry.py`."""

from __future__ import annotations

from mesos_actor.actors.ids import FrameworkId, OperationId
from mesos_actor.actors.messages.base import Record


class SubscriptionRecord(Record, frozen=True):
    """A framework's own key `subscription`: the id under which it may come back; empty before the first answer."""

    framework_id: FrameworkId
    operation_id: OperationId = OperationId("")
    """The name of its first Subscribe, kept before that is sent: a repeat after a crash makes no second framework."""


class UserRecord(Record, frozen=True):
    """A framework's key `user/<key>`: what its author asked to have kept, opaque to us."""

    data: bytes
