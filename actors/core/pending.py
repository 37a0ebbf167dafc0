"""Requests that wait for the registry: who asked what, under which operation, until when.

One operation at a time for each subject (an agent, a framework, a role); whoever asks about the same subject meanwhile
joins it and is answered with it.
"""

from __future__ import annotations

from collections.abc import Hashable

import msgspec

from mesos_actor.actors.ids import Address, Node, OperationId, Principal, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.registry import Command

MAX_REQUESTS = 16
"""Requests that may wait for one operation; when full, the oldest is forgotten: its sender repeats it."""


class Request(msgspec.Struct, frozen=True):
    """A message that waits for an operation, and who sent it."""

    sender: Address
    principal: Principal
    message: Message


class Operation:
    """One write on its way."""

    __slots__ = ("command", "deadline_us", "operation_id", "request_id", "requests", "subject")

    def __init__(self, subject: Hashable, operation_id: OperationId, command: Command, deadline_us: int) -> None:
        self.subject = subject
        self.operation_id = operation_id
        self.command = command
        self.deadline_us = deadline_us
        self.request_id = ""
        """As in Propose."""
        self.requests: list[Request] = []


class Pending:
    """All operations on their way, oldest first; at most `limit`."""

    def __init__(self, limit: int, deadline_us: int) -> None:
        self.limit = limit
        self.deadline_us = deadline_us
        self._by_id: dict[OperationId, Operation] = {}
        self._by_subject: dict[Hashable, Operation] = {}
        #: node -> the operations that somebody there waits for
        self._by_node: dict[Node, dict[Operation, None]] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def about(self, subject: Hashable) -> Operation | None:
        """The operation that changes this subject, if one is on its way."""
        return self._by_subject.get(subject)

    def open(self, subject: Hashable, operation_id: OperationId, command: Command, now_us: int) -> Operation | None:
        """A new operation, or None when the table is full. The subject must not have one."""
        assert subject not in self._by_subject
        if len(self._by_id) >= self.limit:
            return None
        operation = Operation(subject, operation_id, command, now_us + self.deadline_us)
        self._by_id[operation_id] = operation
        self._by_subject[subject] = operation
        return operation

    def join(self, operation: Operation, request: Request) -> None:
        """Wait with the others; a repeat from the same sender takes the place of what it sent before."""
        kind = type(request.message)
        kept = [r for r in operation.requests if r.sender != request.sender or type(r.message) is not kind]
        operation.requests = [*kept, request][-MAX_REQUESTS:]
        self._by_node.setdefault(node_of(request.sender), {})[operation] = None

    def all(self) -> list[Operation]:
        """Oldest first."""
        return list(self._by_id.values())

    def dismiss(self, operation: Operation) -> None:
        """Nobody waits for it any more."""
        for request in operation.requests:
            self._leave(node_of(request.sender), operation)
        operation.requests = []

    def close(self, operation_id: OperationId) -> Operation | None:
        """It was answered; None when it is not ours."""
        operation = self._by_id.pop(operation_id, None)
        if operation is not None:
            del self._by_subject[operation.subject]
            for request in operation.requests:
                self._leave(node_of(request.sender), operation)
        return operation

    def _leave(self, node: Node, operation: Operation) -> None:
        waiting = self._by_node.get(node)
        if waiting is not None:
            waiting.pop(operation, None)
            if not waiting:
                del self._by_node[node]

    def overdue(self, now_us: int) -> list[Operation]:
        """Those whose deadline has passed, oldest first; each waits one deadline more, under the same id."""
        late = []
        for operation in self._by_id.values():
            if operation.deadline_us > now_us:
                break
            late.append(operation)
        for operation in late:
            operation.deadline_us = now_us + self.deadline_us
            self._by_id[operation.operation_id] = self._by_id.pop(operation.operation_id)
        return late

    def next_deadline_us(self) -> int | None:
        """When the oldest runs out; None when nothing waits."""
        return next((operation.deadline_us for operation in self._by_id.values()), None)

    def forget_node(self, node: Node) -> None:
        """The process behind `node` is away: nobody there waits any more. The operations go on."""
        for operation in self._by_node.pop(node, {}):
            operation.requests = [r for r in operation.requests if node_of(r.sender) != node]
