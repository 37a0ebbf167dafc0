"""Between a client (the CLI, a script) and a master or agent: questions and their answers.

Every answer is paged: no question makes the master serialise more than `MAX_PAGE` rows in one turn. Rows are JSON text
made from typed rows, because their readers are people and programs of other versions.
"""

from __future__ import annotations

from mesos_actor.actors.ids import Address, AgentId, FrameworkId, OperationId, Role, TaskId
from mesos_actor.actors.messages.base import Message

MAX_PAGE = 1_000
"""The most rows one answer holds."""


class Query(Message, frozen=True):
    """`what`: `status`, `agents`, `frameworks`, `tasks`, `offers`, `roles`, `why`. `match` narrows by field equality
    (`{"framework_id": …, "task_id": …, "state": …}`). Answer: QueryResult, or Refused."""

    operation_id: OperationId
    what: str
    match: dict[str, str] = {}
    after: str = ""
    """The `next` of the page before; empty: from the start."""
    limit: int = MAX_PAGE


class QueryResult(Message, frozen=True):
    """`rows`: one JSON object each. `next`: where to go on, empty at the end."""

    operation_id: OperationId
    rows: tuple[str, ...] = ()
    next: str = ""


class SetRoleWeight(Message, frozen=True):
    """Operator: a role's weight in thousandths. Answer: OperationResult."""

    operation_id: OperationId
    role: Role
    weight_milli: int


class MarkAgentGone(Message, frozen=True):
    """Operator: this agent never comes back. Answer: OperationResult."""

    operation_id: OperationId
    agent_id: AgentId


class KillByOperator(Message, frozen=True):
    """Operator: end this task whatever its framework wants. Answer: OperationResult."""

    operation_id: OperationId
    task_id: TaskId
    framework_id: FrameworkId = FrameworkId("")
    grace_ms: int = -1


class Instruct(Message, frozen=True):
    """Ask a framework for something in its own words (the built-in service: scale, replace); the master passes it on
    as an Instruction. Answer: OperationResult with the framework's words, or `unavailable`."""

    operation_id: OperationId
    framework_id: FrameworkId
    data: bytes


class WhoLeads(Message, frozen=True):
    """Where is the leading master? Any master answers with Leader."""

    operation_id: OperationId = OperationId("")


class Leader(Message, frozen=True):
    """The leading master is here; empty when none is known. Answer to WhoLeads."""

    address: Address
    operation_id: OperationId = OperationId("")
