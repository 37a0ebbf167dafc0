"""The one registry of messages: `AnyMessage` is all that may travel, `AnyRecord` all that may be kept.

Codec, documentation and the round-trip test go through these two, so a class that is declared is a class that is
encoded, documented and tested.
"""

from __future__ import annotations

import inspect
from types import ModuleType

from mesos_actor.actors.messages import (
    agents,
    clients,
    containers,
    executors,
    raft,
    records,
    registry,
    scheduler,
    values,
)
from mesos_actor.actors.messages.base import Message, Record, Value

__all__ = ["MESSAGES", "RECORDS", "Message", "Record", "Value"]

_MODULES: tuple[ModuleType, ...] = (scheduler, agents, executors, containers, registry, raft, clients, records, values)


def _declared(root: type[Message] | type[Record]) -> dict[str, type]:
    found: dict[str, type] = {}
    for module in _MODULES:
        for name, cls in vars(module).items():
            if inspect.isclass(cls) and issubclass(cls, root) and cls.__module__ == module.__name__:
                found[name] = cls
    return found


MESSAGES: dict[str, type[Message]] = _declared(Message)
"""Every message class by its tag."""

RECORDS: dict[str, type[Record]] = _declared(Record)
"""Every record class by its tag."""
