"""What an agent is told of a container, made from what its containerizer knows."""

from __future__ import annotations

from typing import Any

from mesos_actor.actors.ids import ContainerId, Principal
from mesos_actor.actors.messages.containers import ContainerExited, RecoveredContainer

OWN_PROCESS = Principal("local")
"""Who may give a host's ports orders: the agent in their own process. Executors can reach these mailboxes too, and they
are users' programs."""

NOT_KNOWN = "no such container is known here"
NEVER_RAN = "killed before its command ran"


def exit_of(told: dict[str, Any]) -> ContainerExited:
    """The message for what the launcher told of an end: `code` is a status, a negative signal number, or None."""
    code = told["code"]
    return ContainerExited(
        ContainerId(told["id"]),
        exit_status=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        killed=told["killed"],
        text=told["text"],
    )


def recovered_of(container_id: ContainerId, pid: int, exited: ContainerExited | None) -> RecoveredContainer:
    """What became of a container; `exited` None: it runs."""
    if exited is None:
        return RecoveredContainer(container_id, running=True, pid=pid)
    return RecoveredContainer(
        container_id,
        running=False,
        pid=pid,
        exit_status=exited.exit_status,
        signal=exited.signal,
        killed=exited.killed,
        text=exited.text,
    )
