"""The state of one batch: which instance waits, runs, is done; pure, so that a test can walk through it by hand.

An instance goes `waiting -> ready -> launched -> done`, back to `ready` when its task was lost or may be tried again,
or to `failed`, which fails the batch. What must survive the scheduler is one small record an instance, written before
the launch that depends on it leaves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping

import msgspec

from mesos_actor.actors.core.constraints import Constraint, first_unmet
from mesos_actor.actors.core.placement import fill
from mesos_actor.actors.frameworks.specs import BatchSpec, TaskSpec, duration_ms
from mesos_actor.actors.ids import AgentId, TaskId
from mesos_actor.actors.messages.values import Command, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_sizes import MAX_TASKS_BYTES, task_bytes, too_long
from mesos_actor.actors.task import TaskState

INDEX = "MESOS_ACTOR_INDEX"
"""The variable that tells an instance its number."""

LOST = frozenset(
    {
        TaskState.DROPPED,
        TaskState.GONE,
        TaskState.GONE_BY_OPERATOR,
        TaskState.UNKNOWN,
        TaskState.UNREACHABLE,
    }
)
"""Not the task's own fault: tried again without counting it as a failure."""

MAX_LOSSES = 50
"""An instance that was lost more often than this in a row fails the batch: something is wrong that trying again does
not mend, and a batch that never ends would hide it."""


class Kept(msgspec.Struct, frozen=True, array_like=True):
    """What is kept of one instance."""

    state: str
    """`launched`, `done` or `failed`."""
    attempt: int
    failures: int
    agent_id: AgentId = AgentId("")
    losses: int = 0
    """In a row."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Kept)


class Group:
    """One group of the batch at work."""

    __slots__ = (
        "command",
        "constraints",
        "grace_ms",
        "limit_ms",
        "limits",
        "ready",
        "remaining",
        "resources",
        "spec",
        "waits",
    )

    def __init__(self, spec: TaskSpec) -> None:
        where = f"task ({spec.name})"
        self.spec = spec
        self.command: Command = spec.to_command()
        self.resources: Resources = spec.resources(where)
        self.constraints: tuple[Constraint, ...] = spec.parsed_constraints(where)
        self.grace_ms = duration_ms(spec.kill_grace, where)
        self.limits = spec.task_limits(where)
        self.limit_ms = duration_ms(spec.time_limit, where)
        self.waits = set(spec.after)
        #: Indexes that may be launched now; empty while the group waits for others.
        self.ready: deque[int] = deque()
        #: Instances that are not done yet.
        self.remaining = spec.instances

    def refusal(self, offer: Offer) -> str | None:
        """Why this group cannot use the offer, or None."""
        return first_unmet(self.constraints, offer)


class BatchState:
    """All of one batch. `changed` collects what must be kept since it was last taken."""

    def __init__(self, spec: BatchSpec, kept: Mapping[str, bytes] | None = None) -> None:
        self.spec = spec
        self.groups: dict[str, Group] = {group.name: Group(group) for group in spec.task}
        #: (group, index) -> what is known of the instance; absent: never launched.
        self.instances: dict[tuple[str, int], Kept] = {}
        #: The task that is the instance's present attempt -> the instance.
        self.running: dict[TaskId, tuple[str, int]] = {}
        #: What to keep: key -> record. Emptied by `take_changes`.
        self.changed: dict[str, bytes] = {}
        self.outcome = ""
        #: How many instances have come back, to be launched again.
        self.returned = 0
        #: Whether the last `place` stopped because one message holds no more; the rest of the offer is still useful.
        self.cut_short = False
        self._restore(kept or {})
        for group in self.groups.values():
            self._open(group)

    def _restore(self, kept: Mapping[str, bytes]) -> None:
        for key, data in kept.items():
            kind, _, rest = key.partition("/")
            name, _, index = rest.rpartition("/")
            group = self.groups.get(name)
            if kind != "instance" or group is None:
                continue
            instance = (name, int(index))
            record = _DECODER.decode(data)
            self.instances[instance] = record
            if record.state == "done":
                group.remaining -= 1
            elif record.state == "failed":
                self.outcome = f"failed: {name}[{index}] failed before"
            else:
                self.running[self._task_id(instance, record.attempt)] = instance
        for name, group in self.groups.items():
            if group.remaining == 0:
                self._finish_group(name)

    def _open(self, group: Group) -> None:
        """Make a group ready that waits for nobody, but for what is launched or done already. Once: of two reasons to
        open it, as after a restart, the second changes nothing."""
        if group.waits or group.remaining == 0 or group.ready:
            return
        name = group.spec.name
        group.ready.extend(i for i in range(group.spec.instances) if (name, i) not in self.instances)

    # -- launching -------------------------------------------------------------------------------------------------

    def place(self, offer: Offer) -> list[Task]:
        """The tasks to launch on this offer; they count as launched from now on. No more than one message holds."""
        tasks: list[Task] = []
        available, room = offer.resources, MAX_TASKS_BYTES
        self.cut_short = False
        for group in self.groups.values():
            if not group.ready or group.refusal(offer) is not None:
                continue
            bundles, available = fill(
                available, group.resources, group.spec.ports, len(group.ready), group.spec.fixed_ports()
            )
            for bundle in bundles:
                instance = (group.spec.name, group.ready[0])
                record = self._next_attempt(instance, offer.agent_id)
                task = self._task(group, instance, record, bundle)
                size = task_bytes(task)
                if size > MAX_TASKS_BYTES:
                    self._never_fits(instance, record, size)
                    return tasks
                if size > room:
                    self.cut_short = True
                    return tasks
                room -= size
                group.ready.popleft()
                self._keep(instance, record)
                self.running[task.task_id] = instance
                tasks.append(task)
        return tasks

    def refusal(self, offer: Offer) -> str:
        """Why what waits cannot use the offer; empty where it is only too small, or nothing waits."""
        problems = (group.refusal(offer) for group in self.groups.values() if group.ready)
        return next((problem for problem in problems if problem is not None), "")

    def _next_attempt(self, instance: tuple[str, int], agent_id: AgentId) -> Kept:
        before = self.instances.get(instance)
        if before is None:
            return Kept("launched", 0, 0, agent_id)
        return Kept("launched", before.attempt + 1, before.failures, agent_id, before.losses)

    def _never_fits(self, instance: tuple[str, int], record: Kept, size: int) -> None:
        self._keep(instance, Kept("failed", record.attempt, record.failures + 1))
        self.abandon(f"failed: {instance[0]}[{instance[1]}] ERROR: {too_long('its task', size)}")

    def _task(self, group: Group, instance: tuple[str, int], record: Kept, resources: Resources) -> Task:
        task_id = self._task_id(instance, record.attempt)
        command, _ = group.spec.port_command(group.command, resources)
        command.env[INDEX] = str(instance[1])
        return Task(
            task_id=task_id,
            name=f"{self.spec.name}/{group.spec.name}",
            resources=resources,
            command=command,
            kill_grace_ms=group.grace_ms,
            max_completion_ms=group.limit_ms,
            limits=group.limits,
        )

    @staticmethod
    def _task_id(instance: tuple[str, int], attempt: int) -> TaskId:
        name, index = instance
        return TaskId(f"{name}.{index}" if attempt == 0 else f"{name}.{index}.{attempt}")

    # -- news ------------------------------------------------------------------------------------------------------

    def note(self, status: Status) -> bool:
        """Take note of an update. False: the task is none of this batch's present attempts and should not run."""
        instance = self.running.get(status.task_id)
        if instance is None:
            return False
        record = self.instances[instance]
        if status.state is TaskState.FINISHED:
            self._ended(status.task_id, instance, Kept("done", record.attempt, record.failures))
            group = self.groups[instance[0]]
            group.remaining -= 1
            if group.remaining == 0:
                self._finish_group(instance[0])
        elif status.state in LOST:
            self._lost(status, instance, record)
        elif status.state in (TaskState.FAILED, TaskState.KILLED, TaskState.ERROR):
            self._failed(status, instance, record)
        return True

    def _lost(self, status: Status, instance: tuple[str, int], record: Kept) -> None:
        losses = record.losses + 1
        if losses <= MAX_LOSSES:
            self._ended(status.task_id, instance, msgspec.structs.replace(record, losses=losses))
            self._again(instance)
            return
        self._ended(status.task_id, instance, Kept("failed", record.attempt, record.failures))
        why = f"{status.state}: {status.message or status.reason}"
        self.abandon(f"failed: {instance[0]}[{instance[1]}] was lost {losses} times in a row; last {why}")

    def _failed(self, status: Status, instance: tuple[str, int], record: Kept) -> None:
        group = self.groups[instance[0]]
        failures = record.failures + 1
        if failures <= group.spec.retries and status.state is not TaskState.ERROR:
            self._ended(status.task_id, instance, Kept("launched", record.attempt, failures))
            self._again(instance)
            return
        self._ended(status.task_id, instance, Kept("failed", record.attempt, failures))
        self.abandon(f"failed: {instance[0]}[{instance[1]}] {status.state}: {status.message or status.reason}")

    def _ended(self, task_id: TaskId, instance: tuple[str, int], record: Kept) -> None:
        del self.running[task_id]
        self._keep(instance, record)

    def _again(self, instance: tuple[str, int]) -> None:
        self.groups[instance[0]].ready.append(instance[1])
        self.returned += 1

    def _finish_group(self, name: str) -> None:
        for group in self.groups.values():
            if name in group.waits:
                group.waits.discard(name)
                self._open(group)
        if not self.outcome and all(group.remaining == 0 for group in self.groups.values()):
            self.outcome = "finished"

    def _keep(self, instance: tuple[str, int], record: Kept) -> None:
        self.instances[instance] = record
        self.changed[f"instance/{instance[0]}/{instance[1]}"] = _ENCODER.encode(record)

    def take_changes(self) -> Iterator[tuple[str, bytes]]:
        """What must be kept since the last call, before anything that depends on it leaves."""
        changed, self.changed = self.changed, {}
        return iter(changed.items())

    def abandon(self, outcome: str) -> None:
        """Launch nothing more; the batch ends with `outcome`."""
        self.outcome = self.outcome or outcome
        for group in self.groups.values():
            group.ready.clear()

    # -- questions -------------------------------------------------------------------------------------------------

    def launched(self) -> list[tuple[TaskId, AgentId]]:
        """Tasks thought to run: what a scheduler that comes back asks about."""
        return [(task_id, self.instances[instance].agent_id) for task_id, instance in self.running.items()]

    def wants_offers(self) -> bool:
        return not self.outcome and any(group.ready for group in self.groups.values())

    def progress(self) -> list[tuple[str, int, int, int]]:
        """(group, done, running, instances) for each group, in the order of the spec."""
        running: dict[str, int] = {}
        for name, _ in self.running.values():
            running[name] = running.get(name, 0) + 1
        return [
            (name, group.spec.instances - group.remaining, running.get(name, 0), group.spec.instances)
            for name, group in self.groups.items()
        ]
