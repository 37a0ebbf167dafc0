"""The state of one service: which copy runs what version, waits, or is being replaced; pure.

A copy is a numbered place, 0 to N-1. In each place at most one task lives; when it ends, the place waits out its
back-off and is filled again. A new version of the spec replaces old tasks place by place, never with more than
`update.parallel` places short of a task that has run for `update.healthy_after`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from mesos_actor.actors.core.constraints import first_unmet
from mesos_actor.actors.core.placement import fill
from mesos_actor.actors.frameworks.batch_state import INDEX
from mesos_actor.actors.frameworks.specs import MAX_INSTANCES, ServiceSpec, duration_ms
from mesos_actor.actors.ids import AgentId, TaskId
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_sizes import MAX_TASKS_BYTES, task_bytes
from mesos_actor.actors.task import TaskState, is_terminal

_GONE_FOR_US = frozenset({TaskState.UNREACHABLE, TaskState.UNKNOWN})
"""Not terminal for Mesos, but the place must be filled again."""


NUMBERS_BYTES = 256
"""What a task has beside its command and its resources: numbers in its id and its environment."""
PORT_BYTES = 32
"""One variable of the environment that names a port."""


class Copy(msgspec.Struct, array_like=True):
    """One place. `task_id` empty: no task lives there."""

    index: int
    generation: int = 0
    """How many tasks have lived here; part of the next one's id."""
    task_id: TaskId = TaskId("")
    agent_id: AgentId = AgentId("")
    version: int = 0
    failures: int = 0
    """In a row, for the back-off."""
    not_before_us: int = 0
    running_since_us: int = 0
    ending: bool = False
    """We have asked for its end."""
    ports: tuple[int, ...] = ()


class Desired(msgspec.Struct, array_like=True, frozen=True):
    """What is kept under `desired`."""

    spec: ServiceSpec
    version: int
    removing: bool = False


_ENCODER = msgspec.msgpack.Encoder()


class ServiceState:
    """All of one service. `changed` collects what must be kept since it was last taken."""

    def __init__(self, spec: ServiceSpec, kept: Mapping[str, bytes] | None = None) -> None:
        kept = kept or {}
        desired = msgspec.msgpack.decode(kept["desired"], type=Desired) if "desired" in kept else Desired(spec, 0)
        self.removing = desired.removing
        self.version = desired.version
        #: index -> the place. Places beyond `instances` stay, so that no task id is ever used twice.
        self.copies: dict[int, Copy] = {}
        for key, data in kept.items():
            if key.startswith("copy/"):
                copy = msgspec.msgpack.decode(data, type=Copy)
                # Whether a kill arrived is not known after a restart; what should end is told so again.
                copy.ending = False
                self.copies[copy.index] = copy
        self.by_task: dict[TaskId, Copy] = {c.task_id: c for c in self.copies.values() if c.task_id}
        self.changed: dict[str, bytes] = {}
        self._use(desired.spec)
        if "desired" not in kept:
            self._keep_desired()

    def _use(self, spec: ServiceSpec) -> None:
        where = f"service ({spec.name})"
        self.spec = spec
        self.command = spec.to_command()
        self.resources = spec.resources(where)
        self.constraints = spec.parsed_constraints(where)
        self.backoff_us = duration_ms(spec.backoff, where) * 1_000
        self.backoff_max_us = duration_ms(spec.backoff_max, where) * 1_000
        self.healthy_us = duration_ms(spec.update.healthy_after, where) * 1_000
        self.grace_ms = duration_ms(spec.kill_grace, where)
        self.limits = spec.task_limits(where)
        for index in range(spec.instances):
            self.copies.setdefault(index, Copy(index, version=self.version))

    # -- what is wanted ---------------------------------------------------------------------------------------------

    def apply(self, spec: ServiceSpec) -> bool:
        """Want this from now on. True when running copies must be replaced; a new count alone replaces nothing."""
        same = msgspec.structs.replace(spec, instances=0, update=self.spec.update) == msgspec.structs.replace(
            self.spec, instances=0
        )
        if not same:
            self.version += 1
        self._use(spec)
        self._keep_desired()
        return not same

    def scale(self, instances: int) -> None:
        spec = msgspec.structs.replace(self.spec, instances=instances)
        spec.check()
        self._use(spec)
        self._keep_desired()

    def remove(self) -> None:
        """End every copy; `finished` is True when the last one has gone."""
        self.removing = True
        self._keep_desired()

    @property
    def finished(self) -> bool:
        return self.removing and not self.by_task

    # -- what to do now ---------------------------------------------------------------------------------------------

    def to_kill(self, now_us: int) -> list[tuple[TaskId, AgentId]]:
        """The tasks to end now: surplus ones, and as many old ones as the update rule allows. Each is named once."""
        chosen: list[Copy] = []
        wanted = 0 if self.removing else self.spec.instances
        for copy in self.copies.values():
            if copy.task_id and not copy.ending and copy.index >= wanted:
                chosen.append(copy)
        if not self.removing:
            places = [self.copies[i] for i in range(self.spec.instances)]
            short = sum(1 for copy in places if not self._healthy(copy, now_us))
            old = [c for c in places if c.task_id and not c.ending and c.version != self.version]
            # An old copy that is not healthy is short already: replacing it costs nothing.
            old.sort(key=lambda c: (self._healthy(c, now_us), c.index))
            for copy in old:
                if self._healthy(copy, now_us):
                    if short >= self.spec.update.parallel:
                        break
                    short += 1
                chosen.append(copy)
        for copy in chosen:
            copy.ending = True
            self._keep(copy)
        return [(copy.task_id, copy.agent_id) for copy in chosen]

    def _healthy(self, copy: Copy, now_us: int) -> bool:
        return bool(
            copy.task_id
            and not copy.ending
            and copy.running_since_us
            and now_us - copy.running_since_us >= self.healthy_us
        )

    def empty_places(self, now_us: int) -> list[Copy]:
        """Places that may be filled now."""
        if self.removing:
            return []
        return [
            copy
            for copy in (self.copies[i] for i in range(self.spec.instances))
            if not copy.task_id and copy.not_before_us <= now_us
        ]

    def next_wake_us(self, now_us: int) -> int:
        """When something changes by itself: a back-off ends, a copy becomes healthy. 0: never."""
        times = []
        for copy in self.copies.values():
            if not copy.task_id and copy.index < self.spec.instances and copy.not_before_us > now_us:
                times.append(copy.not_before_us)
            if copy.task_id and copy.running_since_us and not self._healthy(copy, now_us) and not copy.ending:
                times.append(copy.running_since_us + self.healthy_us)
        return min(times, default=0)

    def refusal(self, offer: Offer) -> str | None:
        return first_unmet(self.constraints, offer)

    def place(self, offer: Offer, now_us: int, most: int = MAX_INSTANCES) -> list[Task]:
        """The tasks to launch on this offer, at most `most`."""
        empty = self.empty_places(now_us)[:most]
        if not empty or self.refusal(offer) is not None:
            return []
        bundles, _ = fill(offer.resources, self.resources, self.spec.ports, len(empty), self.spec.fixed_ports())
        if bundles:
            # All copies are alike, but for numbers and ports. One alone always fits: the spec was kept, and what is
            # kept is shorter than a message (MAX_KEPT_BYTES).
            bundles = bundles[: max(1, MAX_TASKS_BYTES // self._most_bytes(bundles))]
        return [self._launch(copy, bundle, offer.agent_id) for copy, bundle in zip(empty, bundles, strict=False)]

    def _most_bytes(self, bundles: Sequence[Resources]) -> int:
        """What one task on any of these can take of a message."""
        nothing = Resources(())
        plain = Task(TaskId(""), nothing, self.command, name=self.spec.name, limits=self.limits)
        size = task_bytes(plain) + NUMBERS_BYTES + len(self.spec.name) + self.spec.ports * PORT_BYTES
        return size + max(task_bytes(Task(task_id=TaskId(""), resources=bundle)) for bundle in bundles)

    def _launch(self, copy: Copy, resources: Resources, agent_id: AgentId) -> Task:
        copy.generation += 1
        copy.task_id = TaskId(f"{self.spec.name}.{copy.index}.{copy.generation}")
        copy.agent_id, copy.version, copy.ending, copy.running_since_us = agent_id, self.version, False, 0
        command, copy.ports = self.spec.port_command(self.command, resources)
        self.by_task[copy.task_id] = copy
        self._keep(copy)
        command.env[INDEX] = str(copy.index)
        return Task(
            task_id=copy.task_id,
            name=self.spec.name,
            resources=resources,
            command=command,
            kill_grace_ms=self.grace_ms,
            limits=self.limits,
        )

    # -- news -------------------------------------------------------------------------------------------------------

    def note(self, status: Status, now_us: int) -> bool:
        """Take note of an update. False: the task is in no place and should not run."""
        copy = self.by_task.get(status.task_id)
        if copy is None:
            return False
        if status.state is TaskState.RUNNING and not copy.running_since_us:
            copy.running_since_us = now_us
            self._keep(copy)
        elif is_terminal(status.state) or status.state in _GONE_FOR_US:
            self._ended(copy, status, now_us)
        return True

    def failures(self, copy: Copy, now_us: int) -> int:
        """How often in a row it has ended by its own fault; what has lived for long has not failed lately."""
        lived_us = now_us - copy.running_since_us if copy.running_since_us else 0
        return 0 if lived_us > self.backoff_max_us else copy.failures

    def _ended(self, copy: Copy, status: Status, now_us: int) -> None:
        del self.by_task[copy.task_id]
        asked = copy.ending
        own_fault = status.state in (TaskState.FAILED, TaskState.FINISHED, TaskState.ERROR) and not asked
        copy.failures = self.failures(copy, now_us) if own_fault else 0
        if own_fault:
            wait_us = min(self.backoff_max_us, self.backoff_us << min(copy.failures, 30))
            copy.failures += 1
            copy.not_before_us = now_us + wait_us
        else:
            copy.not_before_us = 0
        copy.task_id, copy.agent_id, copy.running_since_us, copy.ending = TaskId(""), AgentId(""), 0, False
        copy.ports = ()
        self._keep(copy)

    def _keep(self, copy: Copy) -> None:
        self.changed[f"copy/{copy.index}"] = _ENCODER.encode(copy)

    def _keep_desired(self) -> None:
        self.changed["desired"] = _ENCODER.encode(Desired(self.spec, self.version, self.removing))

    def take_changes(self) -> Iterator[tuple[str, bytes]]:
        """What must be kept since the last call, before anything that depends on it leaves."""
        changed, self.changed = self.changed, {}
        return iter(changed.items())

    def launched(self) -> list[tuple[TaskId, AgentId]]:
        return [(copy.task_id, copy.agent_id) for copy in self.by_task.values()]
