"""What an agent is told of a container, made from what its containerizer knows."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mesos_actor.actors.ids import ContainerId, Principal
from mesos_actor.actors.messages.containers import ContainerExited, RecoveredContainer
from mesos_actor.isolation.isolator import Ending, Limitation

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
        limitation=exited.limitation,
        statistics=exited.statistics,
    )


def with_cause(exited: ContainerExited, ending: Ending, limited: Limitation | None) -> ContainerExited:
    """The same with what isolators know of the end: which limit caused it, and what was used in all. `limited`: what
    one of them had it killed for."""
    limitation = ending.limitation or limited
    texts = (exited.text, limitation.text if limitation is not None else "", ending.note)
    return replace(
        exited,
        text="; ".join(text for text in texts if text),
        limitation=limitation.kind if limitation is not None else "",
        statistics=ending.statistics,
    )
