"""A framework that remembers everything: what it launched, and what it was told, each before anything depends on it.

A job is one attempt after the other, each a task with an id of its own, until one of them has run. Every task adds a
line to a file of its own, so that a task that runs twice is seen. The built-in frameworks do the same in load.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import FrameworkId
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Reason, TaskState, is_terminal

STOP_FILE = "stop"
"""Its appearance in the directory means: begin nothing new, end when all has ended."""
RAN_DIRECTORY = "ran"
"""One file a task, one line a run of it."""
NEVER_RAN = frozenset({Reason.STORAGE_FULL, Reason.CONTAINER_LAUNCH_FAILED})
"""A task that FAILED for one of these was not begun."""
STATE_ONLY = frozenset({Reason.RECONCILIATION, Reason.AGENT_REREGISTERED, Reason.AGENT_REMOVED})
"""A master that says how things stand tells the state of a task, not why or with which status it ended; the agent's own
update follows until it is acknowledged."""
WIDTH = 24
"""Tasks of one framework that run at a time."""
EACH = Resources.of(cpus="0.1", mem=8)
REFUSE_S = 0.3
LOOK_S = 0.2


def exit_status(job: int) -> int:
    """What the tasks of a job end with."""
    return 3 if job % 7 == 3 else 0


class Told(msgspec.Struct, frozen=True, array_like=True):
    """One update, as the framework was given it."""

    state: TaskState
    reason: Reason
    exit_status: int | None
    update_id: str

    def __str__(self) -> str:
        return " ".join(str(part) for part in (self.state, self.reason, self.exit_status) if part not in ("", None))

    @property
    def settles(self) -> bool:
        """How it ended, or that nobody knows it. Of a failure the state alone is not enough: it does not say whether
        the task was begun."""
        if self.state is TaskState.FAILED and self.reason in STATE_ONLY:
            return False
        return self.state is TaskState.UNKNOWN or is_terminal(self.state)

    @property
    def says_it_never_ran(self) -> bool:
        """It was not begun and never will be, or nobody knows of it. Such ends may follow one another: who asks while
        an order is on its way is told GONE, and DROPPED when it has arrived in vain."""
        return self.settles and not self.says_it_ran and self.state is not TaskState.KILLED

    @property
    def says_it_ran(self) -> bool:
        """It came to an end, and was begun once."""
        if self.state is TaskState.FAILED:
            return self.reason not in NEVER_RAN
        return self.state is TaskState.FINISHED


def told_of(status: Status) -> Told:
    return Told(status.state, status.reason, status.exit_status, str(status.update_id))


class TaskRecord(msgspec.Struct):
    """What the framework knows of one task: kept before it is launched, and before each update is acknowledged."""

    agent: str
    told: list[Told] = []

    def settled(self) -> Told | None:
        """What settles it; None while that is open."""
        return next((told for told in self.told if told.settles), None)


def encode_record(record: TaskRecord) -> bytes:
    return msgspec.json.encode(record)


def decode_record(data: bytes | str) -> TaskRecord:
    return msgspec.json.decode(data, type=TaskRecord)


def parts(task_id: str) -> tuple[int, int]:
    """Job and attempt of a task of the ledger."""
    job, _, attempt = task_id.rpartition("-")[2].partition(".")
    return int(job), int(attempt)


class Ledger(Framework):
    """Keeps launching short tasks, and ends when the directory says so and everything has ended."""

    failover_timeout_s = 3_600

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        # The weight of w0 is written all the time, so that offers of it are taken back: for one framework in two.
        self.roles = ("w0",) if name.endswith("0") else ("steady",)
        self.directory = directory
        self.live: dict[str, TaskRecord] = {}
        self.again: list[tuple[int, int]] = []
        """Jobs to be launched once more, with the number of the attempt."""
        self.next_job = 0
        self.thirsty = False
        """Offers were declined although more tasks may come."""

    def on_start(self) -> None:
        latest: dict[int, tuple[int, TaskRecord]] = {}
        for key, data in self.kept.items():
            if not key.startswith("task/"):
                continue
            task_id, record = key.removeprefix("task/"), decode_record(data)
            job, attempt = parts(task_id)
            if record.settled() is None:
                self.live[task_id] = record
            if job not in latest or latest[job][0] < attempt:
                latest[job] = (attempt, record)
        self.next_job = max(latest, default=-1) + 1
        for job, (attempt, record) in latest.items():
            settled = record.settled()
            if settled is not None and not settled.says_it_ran:
                self.again.append((job, attempt + 1))
        self.set_timer("look", LOOK_S)

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.persist(f"id/{framework_id}", b"")
        if self.live:
            self.reconcile({task_id: record.agent for task_id, record in self.live.items()})

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free, tasks = offer.resources, []
            while len(self.live) < WIDTH and (share := free.take(EACH)) is not None and (job := self.take_job()):
                free -= share
                tasks.append(self.task(*job, offer, share))
            self.accept(offer, tasks, refuse_s=REFUSE_S)
            self.thirsty |= not tasks

    def take_job(self) -> tuple[int, int] | None:
        if self.again:
            return self.again.pop(0)
        if self.stopping:
            return None
        self.next_job += 1
        return self.next_job - 1, 0

    def task(self, job: int, attempt: int, offer: Offer, share: Resources) -> Task:
        task_id = f"{self.name}-{job}.{attempt}"
        record = self.live[task_id] = TaskRecord(offer.agent_id)
        self.keep(task_id, record)
        seconds = self.rng.choice((0.02, 0.1, 0.3, 1.0, 4.0))
        line = f"echo {task_id} >> {self.directory}/{RAN_DIRECTORY}/{task_id}; sleep {seconds}; exit {exit_status(job)}"
        return command_task(task_id, line, share)

    def keep(self, task_id: str, record: TaskRecord) -> None:
        self.persist(f"task/{task_id}", encode_record(record))

    def on_update(self, status: Status) -> None:
        task_id, told = str(status.task_id), told_of(status)
        data = self.kept.get(f"task/{task_id}")
        record = self.live.get(task_id) or (decode_record(data) if data is not None else TaskRecord(""))
        if told in record.told:
            return  # a repeat
        before = record.settled()
        record.told.append(told)
        self.keep(task_id, record)
        if before is None and told.settles:
            self.live.pop(task_id, None)
            if not told.says_it_ran:
                job, attempt = parts(task_id)
                self.again.append((job, attempt + 1))
            if self.thirsty and not self.stopping:
                self.thirsty = False
                self.revive()

    def on_timer(self, name: str) -> None:
        self.set_timer("look", LOOK_S)
        if self.stopping and not self.live and not self.again:
            self.stop()
        elif self.stopping and self.again:
            self.revive()

    @property
    def stopping(self) -> bool:
        return (self.directory / STOP_FILE).exists()
