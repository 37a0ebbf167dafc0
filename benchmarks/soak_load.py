"""The load of soak.py: a framework that remembers everything, and clients that write weights and read them back.

    python benchmarks/soak_load.py DIRECTORY NAME MASTERS KEY_DIR      the framework, as a process that may be killed

A job is one attempt after the other, each a task with an id of its own, until one of them has run. Every task adds a
line to a file of its own, so that a task that runs twice is seen. `zone_errors` says whether a history of reads and
writes could be that of one register (Gibbons and Korach: with unique values that is a matter of intervals).
"""

from __future__ import annotations

import asyncio
import bisect
import itertools
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import msgspec

import mesos_actor
from mesos_actor import Framework, Offer, Resources, Status, TaskState, command_task, is_terminal
from mesos_actor.actors.client import Client, credentials, new_id
from mesos_actor.actors.client_registry import read_registry
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.actors.ids import FrameworkId, Role
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.registry import WeightRecord
from mesos_actor.raft.backup import decode_backup

STOP_FILE = "stop"
"""Its appearance in the directory means: begin nothing new, end when all has ended."""
RAN = ("FINISHED", "FAILED")
"""States that say that the task ran, once."""
WIDTH = 24
"""Tasks of one framework that run at a time."""
EACH = Resources.of(cpus="0.1", mem=8)
REFUSE_S = 0.3
LOOK_S = 0.2


def exit_status(job: int) -> int:
    """What the tasks of a job end with."""
    return 3 if job % 7 == 3 else 0


# -- the framework ----------------------------------------------------------------------------------------------------


class TaskRecord(msgspec.Struct):
    """What the framework knows of one task: kept before it is launched, and before each update is acknowledged."""

    agent: str
    #: state, reason, exit status, update id
    states: list[tuple[str, str, int | None, str]] = []

    def told(self) -> str:
        """The state that settles it: how it ended, or that nobody knows it; empty while that is open."""
        final = (name for name, *_ in self.states if name == "UNKNOWN" or is_terminal(TaskState[name]))
        return next(final, "")


def decode_record(data: bytes) -> TaskRecord:
    return msgspec.json.decode(data, type=TaskRecord)


class Load(Framework):
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
            if key.startswith("task/"):
                record = decode_record(data)
                job, attempt = self.parts(key.removeprefix("task/"))
                if not record.told():
                    self.live[key.removeprefix("task/")] = record
                if job not in latest or latest[job][0] < attempt:
                    latest[job] = (attempt, record)
        self.next_job = max(latest, default=-1) + 1
        self.again = [(job, n + 1) for job, (n, record) in latest.items() if record.told() not in ("", *RAN)]
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

    def task(self, job: int, attempt: int, offer: Offer, share: Resources) -> mesos_actor.Task:
        task_id = f"{self.name}-{job}.{attempt}"
        record = self.live[task_id] = TaskRecord(offer.agent_id)
        self.keep(task_id, record)
        seconds = self.rng.choice((0.02, 0.1, 0.3, 1.0, 4.0))
        line = f"echo {task_id} >> {self.directory}/ran/{task_id}; sleep {seconds}; exit {exit_status(job)}"
        return command_task(task_id, line, share)

    def keep(self, task_id: str, record: TaskRecord) -> None:
        self.persist(f"task/{task_id}", msgspec.json.encode(record))

    def on_update(self, status: Status) -> None:
        task_id = str(status.task_id)
        data = self.kept.get(f"task/{task_id}")
        record = self.live.get(task_id) or (decode_record(data) if data is not None else TaskRecord(""))
        entry = (status.state.name, status.reason.name, status.exit_status, str(status.update_id))
        if entry in record.states:
            return  # a repeat
        settled = bool(record.told())
        record.states.append(entry)
        self.keep(task_id, record)
        if record.told() and not settled:
            self.live.pop(task_id, None)
            if record.told() not in RAN:
                job, attempt = self.parts(task_id)
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

    @staticmethod
    def parts(task_id: str) -> tuple[int, int]:
        """Job and attempt."""
        job, _, attempt = task_id.rpartition("-")[2].partition(".")
        return int(job), int(attempt)


def main(directory: Path, name: str, masters: str, key_dir: str) -> None:
    framework = Load(name, directory)
    mesos_actor.run(framework, masters, state_dir=directory / name, key_dir=key_dir)
    partial = directory / f"{name}.partial"
    partial.write_text(json.dumps({key: data.decode() for key, data in framework.kept.items()}))
    partial.replace(directory / f"{name}.history")


# -- the weights ------------------------------------------------------------------------------------------------------


class Op(msgspec.Struct, frozen=True):
    """One write or read of a role's weight, with monotonic times. A read that brought nothing is not recorded; a write
    is `fail` when it cannot ever happen, `unknown` when it may have, or still may."""

    kind: Literal["write", "read"]
    role: str
    value: int
    start_s: float
    end_s: float
    outcome: Literal["ok", "fail", "unknown"] = "ok"


class Weights:
    """Writers, each of one role with rising values, and a reader of all; each question goes to any of the masters."""

    def __init__(self, masters: str, key_dir: str, roles: int, rng: random.Random, timeout_s: float = 4.0) -> None:
        self.addresses, self.keys = credentials(masters, key_dir, False)
        self.roles = [f"w{number}" for number in range(roles)]
        self.timeout_s = timeout_s
        self.rng = rng
        self.history: list[Op] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.clients: list[Client] = []
        self.over = False

    async def __aenter__(self) -> Weights:
        for first in self.addresses:
            client = Client((first, *(one for one in self.addresses if one != first)), self.keys, self.timeout_s)
            self.clients.append(await client.__aenter__())
        self.tasks = [asyncio.create_task(self.write(role)) for role in self.roles]
        self.tasks.append(asyncio.create_task(self.read()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.finish()
        for client in self.clients:
            await client.__aexit__(None, None, None)

    async def finish(self) -> None:
        """Begin nothing new, and wait for what is on its way. (Cancelled, it might be neither done nor undone: before
        Python 3.12 `wait_for` may lose a cancellation.)"""
        self.over = True
        await asyncio.gather(*self.tasks)

    async def write(self, role: str) -> None:
        value = 0
        while not self.over:
            value += 1
            start_s, outcome, end_s = time.monotonic(), "unknown", math.inf
            try:
                await self.rng.choice(self.clients).order(SetRoleWeight(new_id(), Role(role), value))
                outcome, end_s = "ok", time.monotonic()
            except MesosActorError as error:
                # A refusal by the rules is final; one for want of a leader or of time is not.
                outcome = "fail" if "must be" in str(error) else "unknown"
            self.history.append(Op("write", role, value, start_s, end_s, outcome))  # type: ignore[arg-type]
            await asyncio.sleep(self.rng.random() * 0.1)

    async def read(self) -> None:
        while not self.over:
            await self.read_once(self.rng.choice(self.clients))
            await asyncio.sleep(self.rng.random() * 0.1)

    async def read_once(self, client: Client) -> bool:
        """Read all roles; whether there was an answer."""
        start_s = time.monotonic()
        try:
            text = await read_registry(client)
        except MesosActorError:
            return False
        end_s = time.monotonic()
        weights = {r.role: r.weight_milli for r in decode_backup(text.data).records if isinstance(r, WeightRecord)}
        self.history += (Op("read", role, weights.get(Role(role), 0), start_s, end_s) for role in self.roles)
        return True


def zone_errors(history: Sequence[Op]) -> list[str]:
    """What in this history no single register, written and read one at a time, could have done; 0 is its beginning.
    A write whose outcome is unknown may take place at any time after it was begun, or never."""
    return [text for role in sorted({op.role for op in history}) for text in _errors_of(role, history)]


def _errors_of(role: str, history: Sequence[Op]) -> list[str]:
    writes = {op.value: op for op in history if op.role == role and op.kind == "write"}
    writes[0] = Op("write", role, 0, -math.inf, -math.inf)
    #: value -> first end and last start of whatever touched it
    zones = {v: (op.end_s, op.start_s) for v, op in writes.items() if op.outcome == "ok"}
    errors = []
    for op in history:
        if op.role != role or op.kind != "read":
            continue
        write = writes.get(op.value)
        if write is None or op.end_s < write.start_s:
            errors.append(f"{role}: {op.value} was read before it was written")
        elif write.outcome == "fail":
            errors.append(f"{role}: {op.value} was read, and its write had been refused")
        else:
            first_end, last_start = zones.get(op.value, (math.inf, write.start_s))
            zones[op.value] = (min(first_end, op.end_s), max(last_start, op.start_s))
    held = sorted((first_end, last_start, v) for v, (first_end, last_start) in zones.items() if first_end < last_start)
    for (_, until, value), (begins, _, other) in itertools.pairwise(held):
        if begins < until:
            errors.append(f"{role}: {other} was in force while {value} was, and before it again")
    for value, (first_end, last_start) in zones.items():
        at = bisect.bisect_left(held, (last_start, -math.inf, 0)) - 1
        if first_end >= last_start and at >= 0 and first_end < held[at][1]:
            errors.append(f"{role}: {value} was written and lost while {held[at][2]} was in force all the time")
    return errors


# -- the verdict on the tasks -----------------------------------------------------------------------------------------


class Verdict(msgspec.Struct):
    """What became of the tasks of one framework."""

    launched: int = 0
    ended: int = 0
    told_lost: int = 0
    """The framework was told that they do not run and never will, and launched their jobs again."""
    lost: list[str] = []
    twice: list[str] = []
    untrue: list[str] = []
    """What was told of them is not what happened."""
    reasons: dict[str, int] = {}


def judge(history: dict[str, str], directory: Path) -> Verdict:
    """Compare what a framework was told with the lines that its tasks wrote."""
    verdict = Verdict()
    settled: dict[int, bool] = {}
    for key, text in history.items():
        if not key.startswith("task/"):
            continue
        task_id, record = key.removeprefix("task/"), decode_record(text.encode())
        job, _ = Load.parts(task_id)
        path = directory / "ran" / task_id
        runs = len(path.read_text().splitlines()) if path.exists() else 0
        verdict.launched += 1
        _judge_task(verdict, task_id, record, job, runs)
        settled[job] = settled.get(job, False) or record.told() in RAN
    verdict.lost += [f"job {job} never ran to its end" for job, well in settled.items() if not well]
    return verdict


def _judge_task(verdict: Verdict, task_id: str, record: TaskRecord, job: int, runs: int) -> None:
    told = record.told()
    names = [name for name, *_ in record.states]
    if runs > 1:
        verdict.twice.append(f"{task_id} ran {runs} times: {record.states}")
    if not told:
        verdict.lost.append(f"{task_id} has no end, and ran {runs} times: {record.states}")
        return
    verdict.ended += 1
    ends = [entry for entry in record.states if entry[0] != "UNKNOWN" and is_terminal(TaskState[entry[0]])]
    if told in RAN:
        wanted = exit_status(job)
        statuses = {entry[2] for entry in ends if entry[1] != "RECONCILIATION"}  # which tells the state only
        if runs == 0 or not statuses <= {wanted} or (told == "FINISHED") != (wanted == 0):
            verdict.untrue.append(f"{task_id} ran {runs} times and ends with {wanted}: {record.states}")
    else:
        verdict.told_lost += 1
        reason = f"{told} {next(entry[1] for entry in record.states if entry[0] == told)}"
        verdict.reasons[reason] = verdict.reasons.get(reason, 0) + 1
        if runs or names.index(told) != len(names) - 1:
            verdict.untrue.append(f"{task_id} was told {told}, and ran {runs} times: {record.states}")
    if len({entry[0] for entry in ends}) > 1:
        verdict.untrue.append(f"{task_id} ended in two ways: {record.states}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:5])
