"""Names of things: what each identifier looks like and who mints it.

Every id is a plain string on the wire. The NewTypes exist so that a type checker refuses an agent's id where a task's
belongs; they cost nothing at run time.

| id            | form                          | minted by                                               |
|---------------|-------------------------------|---------------------------------------------------------|
| ClusterId     | 16 hex digits                 | the registry, when the cluster is initialized           |
| AgentId       | `<cluster>-S<n>`              | the registry, when it admits an agent                   |
| FrameworkId   | `<cluster>-<nnnn>`            | the registry, when it admits a framework                |
| MasterId      | 16 hex digits                 | a master, each time it starts to lead                   |
| OfferId       | `<master id>-O<n>`            | the leading master                                      |
| TaskId        | the framework's choice        | the framework; unique among its live tasks              |
| ExecutorId    | the framework's choice        | the framework; unique on one agent                      |
| ContainerId   | `<task or executor>.<12 hex>` | the agent, for each launch                              |
| UpdateId      | `<container id>:<n>`          | the agent, one for each reliable status update          |
| OperationId   | the caller's choice           | whoever asks; the answer repeats it                     |

The shapes follow Mesos (`<master-id>-S<n>` and so on, src/master/master.cpp `newSlaveId`), with the cluster's id in
place of the leader's, because ours survive the leader.
"""

from __future__ import annotations

from typing import NewType

ClusterId = NewType("ClusterId", str)
MasterId = NewType("MasterId", str)
AgentId = NewType("AgentId", str)
FrameworkId = NewType("FrameworkId", str)
OfferId = NewType("OfferId", str)
TaskId = NewType("TaskId", str)
ExecutorId = NewType("ExecutorId", str)
ContainerId = NewType("ContainerId", str)
UpdateId = NewType("UpdateId", str)
OperationId = NewType("OperationId", str)
Role = NewType("Role", str)
Principal = NewType("Principal", str)
Term = NewType("Term", int)

Node = NewType("Node", str)
"""A process on the network: `tcp://host:port` when others may connect to it, `peer:<hex>` when it only connects out."""

Address = NewType("Address", str)
"""A mailbox: `<node>/<actor>`. With an empty node, `/<actor>`, it is in the sender's own process."""


def address(node: Node, actor: str) -> Address:
    """The address of `actor` in the process `node`."""
    return Address(f"{node}/{actor}")


def local(actor: str) -> Address:
    """The address of `actor` in the process of whoever uses it."""
    return Address(f"/{actor}")


def node_of(where: Address) -> Node:
    """The node part of an address; empty for a local one."""
    return Node(where.rpartition("/")[0])


def actor_of(where: Address) -> str:
    """The actor part of an address."""
    return where.rpartition("/")[2]


def agent_id(cluster: ClusterId, number: int) -> AgentId:
    return AgentId(f"{cluster}-S{number}")


def framework_id(cluster: ClusterId, number: int) -> FrameworkId:
    return FrameworkId(f"{cluster}-{number:04d}")


def offer_id(master: MasterId, number: int) -> OfferId:
    return OfferId(f"{master}-O{number}")


def update_id(container: ContainerId, number: int) -> UpdateId:
    return UpdateId(f"{container}:{number}")


_MAX_ID_LENGTH = 255  # Mesos, src/common/validation.cpp: ids become file names


def id_error(text: str) -> str | None:
    """Why `text` cannot be a task, executor or framework id, in Mesos' words, or None when it can.

    Source: Mesos src/common/validation.cpp `validateID`.
    """
    if not text:
        return "ID must not be empty"
    if len(text.encode("utf-8", "surrogatepass")) > _MAX_ID_LENGTH:
        return f"ID must not be greater than {_MAX_ID_LENGTH} characters"
    if text in (".", ".."):
        return f"'{text}' is disallowed"
    if any(ord(c) < 32 or ord(c) == 127 or c in "/\\" or 0xD800 <= ord(c) <= 0xDFFF for c in text):
        return f"{text!r} contains invalid characters"
    return None


def role_error(role: str) -> str | None:
    """Why `role` cannot be a role's name, or None when it can. Source: Mesos docs/roles.md, src/common/roles.cpp."""
    if role == "*":
        return None
    if not role:
        return "Role name must not be empty"
    if role.startswith("/") or role.endswith("/"):
        return f"Role '{role}' cannot start or end with a slash"
    for part in role.split("/"):
        if not part:
            return f"Role '{role}' cannot contain two adjacent slashes"
        if part in (".", "..", "*"):
            return f"Role '{role}' cannot use '{part}' as a path element"
        if part.startswith("-"):
            return f"Role path element '{part}' is invalid because it starts with a dash"
        if any(c.isspace() or ord(c) < 32 or ord(c) == 127 for c in part):
            return f"Role path element '{part}' contains invalid characters"
    return None
