"""mesos-actor: a cluster manager made of actors.

The public names, loaded when first used, so that `import mesos_actor` and `mesos-actor --version` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mesos_actor._version import __version__

if TYPE_CHECKING:
    from mesos_actor.actors.cluster_executor import ClusterExecutor, WorkerLost
    from mesos_actor.actors.errors import ConfigError, LocalError, MesosActorError, PeerError, Unavailable
    from mesos_actor.actors.executor import Executor, ExecutorActor
    from mesos_actor.actors.framework import Framework, KnownTask, command_task, executor_task
    from mesos_actor.actors.ids import AgentId, ExecutorId, FrameworkId, OfferId, Role, TaskId
    from mesos_actor.actors.messages.scheduler import Instruction, OperationResult
    from mesos_actor.actors.messages.values import (
        UNLIMITED,
        Command,
        ContainerSpec,
        Demand,
        ExecutorInfo,
        HugePages,
        Offer,
        PortMapping,
        RLimit,
        Statistics,
        Status,
        Task,
        TaskLimits,
        Uri,
        Volume,
    )
    from mesos_actor.actors.resources import Attributes, Resource, Resources
    from mesos_actor.actors.run import Session, run, run_executor, running
    from mesos_actor.actors.scheduling import FrameworkActor
    from mesos_actor.actors.task import Reason, Source, TaskState, is_terminal

_HOMES = {
    "KnownTask": "mesos_actor.actors.framework",
    "Role": "mesos_actor.actors.ids",
    "TaskId": "mesos_actor.actors.ids",
    "OfferId": "mesos_actor.actors.ids",
    "FrameworkId": "mesos_actor.actors.ids",
    "ExecutorId": "mesos_actor.actors.ids",
    "AgentId": "mesos_actor.actors.ids",
    "WorkerLost": "mesos_actor.actors.cluster_executor",
    "ClusterExecutor": "mesos_actor.actors.cluster_executor",
    "Session": "mesos_actor.actors.run",
    "run_executor": "mesos_actor.actors.run",
    "running": "mesos_actor.actors.run",
    "run": "mesos_actor.actors.run",
    "Executor": "mesos_actor.actors.executor",
    "ExecutorActor": "mesos_actor.actors.executor",
    "Framework": "mesos_actor.actors.framework",
    "command_task": "mesos_actor.actors.framework",
    "executor_task": "mesos_actor.actors.framework",
    "FrameworkActor": "mesos_actor.actors.scheduling",
    "Command": "mesos_actor.actors.messages.values",
    "ContainerSpec": "mesos_actor.actors.messages.values",
    "Demand": "mesos_actor.actors.messages.values",
    "ExecutorInfo": "mesos_actor.actors.messages.values",
    "HugePages": "mesos_actor.actors.messages.values",
    "Offer": "mesos_actor.actors.messages.values",
    "RLimit": "mesos_actor.actors.messages.values",
    "PortMapping": "mesos_actor.actors.messages.values",
    "Status": "mesos_actor.actors.messages.values",
    "Statistics": "mesos_actor.actors.messages.values",
    "Task": "mesos_actor.actors.messages.values",
    "TaskLimits": "mesos_actor.actors.messages.values",
    "UNLIMITED": "mesos_actor.actors.messages.values",
    "Uri": "mesos_actor.actors.messages.values",
    "Volume": "mesos_actor.actors.messages.values",
    "Instruction": "mesos_actor.actors.messages.scheduler",
    "OperationResult": "mesos_actor.actors.messages.scheduler",
    "Reason": "mesos_actor.actors.task",
    "Source": "mesos_actor.actors.task",
    "TaskState": "mesos_actor.actors.task",
    "is_terminal": "mesos_actor.actors.task",
    "ConfigError": "mesos_actor.actors.errors",
    "LocalError": "mesos_actor.actors.errors",
    "MesosActorError": "mesos_actor.actors.errors",
    "PeerError": "mesos_actor.actors.errors",
    "Unavailable": "mesos_actor.actors.errors",
    "Attributes": "mesos_actor.actors.resources",
    "Resource": "mesos_actor.actors.resources",
    "Resources": "mesos_actor.actors.resources",
}
"""Which module each public name lives in."""

__all__ = [
    "UNLIMITED",
    "AgentId",
    "Attributes",
    "ClusterExecutor",
    "Command",
    "ConfigError",
    "ContainerSpec",
    "Demand",
    "Executor",
    "ExecutorActor",
    "ExecutorId",
    "ExecutorInfo",
    "Framework",
    "FrameworkActor",
    "FrameworkId",
    "HugePages",
    "Instruction",
    "KnownTask",
    "LocalError",
    "MesosActorError",
    "Offer",
    "OfferId",
    "OperationResult",
    "PeerError",
    "PortMapping",
    "RLimit",
    "Reason",
    "Resource",
    "Resources",
    "Role",
    "Session",
    "Source",
    "Statistics",
    "Status",
    "Task",
    "TaskId",
    "TaskLimits",
    "TaskState",
    "Unavailable",
    "Uri",
    "Volume",
    "WorkerLost",
    "__version__",
    "command_task",
    "executor_task",
    "is_terminal",
    "run",
    "run_executor",
    "running",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'mesos_actor' has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)


def __dir__() -> list[str]:
    return sorted(__all__)
