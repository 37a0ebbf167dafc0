"""Several containerizers as one: each launch goes to the one for its kind of container.

The kind is `command.container.type`, empty for whoever does not care: those go to the first, but with a container to
the first that makes any, which `process` does not. All other messages go to whoever has the container. Questions about
many are asked of all and answered once.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

from mesos_actor.actors.ids import Address, ContainerId, Node, Principal, local
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
    RecoveredContainer,
    UpdateContainer,
    Usage,
)
from mesos_actor.actors.ports import Outlet, TimerHandle
from mesos_actor.isolation.answers import NOT_KNOWN, OWN_PROCESS
from mesos_actor.isolation.containerizer import Containerizer

NO_CONTAINERS = "process"
"""The kind that runs commands on the host only."""

MAX_FAILED = 10_000
"""Launches of unknown kinds remembered, so that asking again gets the same answer; the oldest is dropped."""

MAX_QUESTIONS = 8
"""Measurements under way; one more is answered with what is known: nothing."""


def kind_of(launch: LaunchContainer) -> str:
    """The kind of container that a launch asks for."""
    spec = getattr(launch.command, "container", None)
    return str(getattr(spec, "type", "") or "")


class _Voice:
    """The outlet of one of them: what it says to the agent is heard by us first."""

    def __init__(self, name: str, outer: Outlet, hear: Callable[[str, Address, Message, str], None]) -> None:
        self._kind = name
        self._outer = outer
        self._hear = hear

    @property
    def name(self) -> str:
        return self._outer.name

    @property
    def node(self) -> Node:
        return self._outer.node

    @property
    def rng(self) -> random.Random:
        return self._outer.rng

    def now_us(self) -> int:
        return self._outer.now_us()

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        self._hear(self._kind, to, message, cause)

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        return self._outer.call_later(delay_us, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self._outer.log(event, level, **fields)


class _Question:
    """A question to all: whose answers are missing, and what the others said."""

    def __init__(self, kinds: Mapping[str, object]) -> None:
        self.missing = set(kinds)
        self.containers: list[RecoveredContainer] = []
        self.usages: list[Usage] = []


class ComposingContainerizer:
    """`by_kind` in the order of preference: the first takes launches that name no kind."""

    def __init__(self, by_kind: Mapping[str, Containerizer]) -> None:
        assert by_kind, "at least one"
        self._by_kind = dict(by_kind)
        self._first = next(iter(self._by_kind))
        self._first_for_containers = next((kind for kind in self._by_kind if kind != NO_CONTAINERS), self._first)
        #: Whose each container is, until it is forgotten. As many as they hold together.
        self._owner: dict[ContainerId, str] = {}
        self._failed: dict[ContainerId, ContainerFailed] = {}
        self._recovery: _Question | None = None
        self._measurements: dict[str, _Question] = {}
        self._agent = local("agent")

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet
        for kind, one in self._by_kind.items():
            one.start(_Voice(kind, outlet, self._hear))

    def on_flush(self) -> None:
        for one in self._by_kind.values():
            one.on_flush()

    def close(self) -> None:
        for one in reversed(self._by_kind.values()):
            one.close()

    def is_live(self, container_id: ContainerId) -> bool:
        return any(one.is_live(container_id) for one in self._by_kind.values())

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        if principal != OWN_PROCESS:
            self._outlet.log("not_from_agent", level="warning", sender=sender, principal=principal)
            return
        self._agent = sender
        match message:
            case LaunchContainer():
                self._on_launch(sender, cause, principal, message)
            case KillContainer() | UpdateContainer() | ForgetContainer():
                self._on_one(sender, cause, principal, message)
            case RecoverContainers():
                self._recovery = _Question(self._by_kind)
                self._to_all(sender, cause, principal, message)
            case MeasureContainers():
                self._on_measure(sender, cause, principal, message)
            case _:
                self._outlet.log("unexpected_message", level="warning", kind=type(message).__name__, sender=sender)

    # -- to them ----------------------------------------------------------------------------------------------------

    def _to_all(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        for one in self._by_kind.values():
            one.on_message(sender, cause, principal, message)

    def _on_launch(self, sender: Address, cause: str, principal: Principal, message: LaunchContainer) -> None:
        container_id = message.container_id
        kind = self._owner.get(container_id) or kind_of(message) or self._default_of(message)
        if container_id in self._failed:
            self._outlet.send(sender, self._failed[container_id])
        elif kind not in self._by_kind:
            text = f"container.type: this agent has no {kind!r}, only {', '.join(self._by_kind)}; name one of these"
            if len(self._failed) >= MAX_FAILED:
                del self._failed[next(iter(self._failed))]
            self._failed[container_id] = ContainerFailed(container_id, "spawn", text)
            self._outlet.send(sender, self._failed[container_id])
        else:
            self._owner[container_id] = kind
            self._by_kind[kind].on_message(sender, cause, principal, message)

    def _default_of(self, message: LaunchContainer) -> str:
        return self._first if message.command.container is None else self._first_for_containers

    def _on_one(
        self,
        sender: Address,
        cause: str,
        principal: Principal,
        message: KillContainer | UpdateContainer | ForgetContainer,
    ) -> None:
        container_id = message.container_id
        if container_id in self._failed:
            if isinstance(message, KillContainer):
                self._outlet.send(sender, self._failed[container_id])
            elif isinstance(message, ForgetContainer):
                del self._failed[container_id]
            return
        owner = self._owner.get(container_id, self._first)
        self._by_kind[owner].on_message(sender, cause, principal, message)
        if isinstance(message, ForgetContainer) and not self._by_kind[owner].is_live(container_id):
            self._owner.pop(container_id, None)

    def _on_measure(self, sender: Address, cause: str, principal: Principal, message: MeasureContainers) -> None:
        if message.operation_id in self._measurements or len(self._measurements) >= MAX_QUESTIONS:
            self._outlet.send(sender, ContainerUsage((), message.operation_id))
            return
        self._measurements[message.operation_id] = _Question(self._by_kind)
        self._to_all(sender, cause, principal, message)

    # -- from them --------------------------------------------------------------------------------------------------

    def _hear(self, kind: str, to: Address, message: Message, cause: str) -> None:
        match message:
            case ContainersRecovered():
                self._on_recovered(kind, message)
            case ContainerUsage():
                self._on_usage(kind, message)
            case ContainerExited(text=text) if text == NOT_KNOWN and message.container_id in self._owner:
                if self._owner[message.container_id] == kind:
                    self._outlet.send(to, message, cause)
            case _:
                self._outlet.send(to, message, cause)

    def _on_recovered(self, kind: str, message: ContainersRecovered) -> None:
        question = self._recovery
        for one in message.containers:
            self._owner[one.container_id] = kind
        if question is None:
            return
        question.missing.discard(kind)
        question.containers += message.containers
        if not question.missing:
            self._recovery = None
            self._outlet.send(self._agent, ContainersRecovered(tuple(question.containers)))

    def _on_usage(self, kind: str, message: ContainerUsage) -> None:
        question = self._measurements.get(message.operation_id)
        if question is None or kind not in question.missing:
            return
        question.missing.discard(kind)
        question.usages += message.usages
        if not question.missing:
            del self._measurements[message.operation_id]
            self._outlet.send(self._agent, ContainerUsage(tuple(question.usages), message.operation_id))
