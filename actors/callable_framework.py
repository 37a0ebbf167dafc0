"""The scheduler behind `ClusterExecutor`: which call goes to which worker. Pure: calls and results are opaque bytes.

A worker is a long-lived executor process of the agent's interpreter with a fixed number of slots; one call is one task.
A call that never started is given to another worker; one whose worker died is given `retries` more chances, because it
may have had effects. Results arrive in the terminal update, or, past `INLINE_RESULT_BYTES`, in a file of the worker's
sandbox, which is read from the agent piece by piece.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from mesos_actor.actors.framework import DEFAULT_REFUSE_S, Framework, executor_task
from mesos_actor.actors.ids import AgentId, ExecutorId
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.values import ExecutorInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_sizes import MAX_TASKS_BYTES, task_bytes, too_long
from mesos_actor.actors.task import TERMINAL, TaskState

INLINE_RESULT_BYTES = 512 << 10
"""The longest result that travels in a status update."""
MAX_RESULT_BYTES = 1 << 30
"""The longest result at all; a longer one fails its call."""
PIECE_BYTES = 256 << 10
"""Read from a result file at a time."""
MAX_READS = 8
"""Result files read at the same time; further ones wait."""
READ_RETRY_S = 5.0
MAX_READ_ATTEMPTS = 6
"""A piece that did not come after so many questions fails its call."""
MAX_STARTS = 10
"""A call that never started is launched so often; then it fails with what the cluster said last."""
REFUSAL_WAIT_S = 10.0
"""How long calls wait for an agent with our Python version after another was refused."""
BAD_AGENT_REFUSE_S = 3_600.0

VALUE, FAILURE, FILE, WRONG_PYTHON = b"V", b"E", b"F", b"P"
"""First byte of a result: a pickled value, a `Failure`, a `FileNote`, a text that names both Python versions."""
FORGET = b"D"
"""First byte of a message to a worker: remove the result file of the task named by the rest."""


class WorkerSettings(msgspec.Struct, frozen=True):
    """What a worker is told in `ExecutorInfo.data`."""

    python: tuple[int, int]
    slots: int
    inline_result_bytes: int = INLINE_RESULT_BYTES
    max_result_bytes: int = MAX_RESULT_BYTES


class Failure(msgspec.Struct, frozen=True):
    """An exception that a call raised. `pickled` is empty when it could not be pickled."""

    pickled: bytes
    text: str
    traceback: str


class FileNote(msgspec.Struct, frozen=True):
    """Where a long result lies in the worker's sandbox; its content begins as any result does."""

    path: str
    size_bytes: int


class Submitted(NamedTuple):
    """Posted: run this call."""

    number: int
    data: bytes


class Cancelled(NamedTuple):
    """Posted: forget this call if it still waits."""

    number: int


class Closing(NamedTuple):
    """Posted: nothing more comes; stop when all is done. `drop`: forget the calls that wait."""

    drop: bool


class _Call:
    """A call on its way. `number` is its name towards the submitter, `task_id` that of its present attempt."""

    __slots__ = ("data", "lost", "number", "starts", "task_id", "worker")

    def __init__(self, number: int, data: bytes) -> None:
        self.number = number
        self.data = data
        self.starts = 0
        self.lost = 0
        self.task_id = ""
        self.worker: _Worker | None = None

    def next_id(self) -> str:
        """The task id of its next attempt."""
        return f"call-{self.number}" + (f"-{self.starts}" if self.starts else "")


class _Worker:
    """An executor process. `info` is the same for all its tasks, as the master demands."""

    __slots__ = ("busy", "info")

    def __init__(self, info: ExecutorInfo) -> None:
        self.info = info
        #: Task ids of the calls it has now.
        self.busy: dict[str, None] = {}


class _Read:
    """A long result on its way home."""

    __slots__ = ("attempts", "error", "number", "pieces", "size_bytes", "status", "taken_bytes")

    def __init__(self, number: int, status: Status, size_bytes: int) -> None:
        self.number = number
        self.status = status
        self.size_bytes = size_bytes
        self.pieces: list[bytes] = []
        self.taken_bytes = 0
        self.attempts = 0
        self.error = "no answer"


Claim = Callable[[int], bool]
"""`(number)`: this call is about to start; False when it was cancelled and must not."""
Settle = Callable[[int, bytes, str], None]
"""`(number, result, error)`: the call is over, with a result that begins with VALUE or FAILURE, or, when `error` is
set, because of the cluster."""


class CallableFramework(Framework):
    """`share` is what each call takes, `worker` the pattern of its executors."""

    failover_timeout_s = 60
    """A master that is started again, or a short cut of the network, ends no call."""

    def __init__(
        self, worker: ExecutorInfo, share: Resources, slots: int, retries: int, claim: Claim, settle: Settle
    ) -> None:
        self.pattern = worker
        self.share = share
        self.slots = slots
        self.retries = retries
        self.claim = claim
        self.settle = settle
        #: Calls without a worker, the next one first, by number.
        self.waiting: OrderedDict[int, _Call] = OrderedDict()
        #: Task id to call, for calls that a worker has.
        self.launched: dict[str, _Call] = {}
        #: Agent to its workers, by executor id.
        self.workers: dict[AgentId, dict[ExecutorId, _Worker]] = {}
        #: Agents that run another Python, to what they said.
        self.refused: dict[AgentId, str] = {}
        #: Task id to the result that is read, and those whose turn comes.
        self.reads: dict[str, _Read] = {}
        self.reads_waiting: deque[_Read] = deque()
        self.closing = False
        self.workers_made = 0
        self.resting = False
        #: Whether calls were left over from the last offer because one message holds no more.
        self.cut_short = False
        self.anything_ran = False

    # -- calls come in ----------------------------------------------------------------------------------------------

    def on_posted(self, value: Any) -> None:
        if isinstance(value, Submitted):
            self.waiting[value.number] = _Call(value.number, value.data)
            self._wake_up()
        elif isinstance(value, Cancelled):
            self.waiting.pop(value.number, None)
            self._rest_if_idle()
        elif isinstance(value, Closing):
            self.closing = True
            if value.drop:
                self.waiting.clear()
        self._stop_if_done()

    def on_registered(self, framework_id: str) -> None:
        self.resting = False
        self._rest_if_idle()

    def _wake_up(self) -> None:
        if self.resting and self.waiting:
            self.resting = False
            self.revive()

    def _rest_if_idle(self) -> None:
        """No offers while nothing waits: they would be kept from others for nothing."""
        if not self.waiting and not self.resting and self.connected:
            self.resting = True
            self.suppress()

    def _stop_if_done(self) -> None:
        if self.closing and not (self.waiting or self.launched or self.reads or self.reads_waiting):
            self.stop()

    # -- calls go out -----------------------------------------------------------------------------------------------

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            if offer.agent_id in self.refused:
                self.decline(offer, BAD_AGENT_REFUSE_S)
            else:
                tasks = self._fill(offer)
                # What did not fit into one message goes with the next, so the rest is wanted back at once.
                self.accept(offer, tasks, refuse_s=0 if self.cut_short else DEFAULT_REFUSE_S)
        self._rest_if_idle()
        self._stop_if_done()

    def _fill(self, offer: Offer) -> list[Task]:
        """As many waiting calls as fit: in free slots of the agent's workers first, then in new workers."""
        tasks: list[Task] = []
        free, room = offer.resources, MAX_TASKS_BYTES
        self.cut_short = False
        while self.waiting:
            worker, rest = self._worker_on(offer.agent_id, free)
            share = rest.take(self.share) if worker is not None else None
            if worker is None or share is None:
                break
            call = next(iter(self.waiting.values()))
            size = task_bytes(executor_task(call.next_id(), worker.info, share, call.data))
            if size > room and tasks:
                self.cut_short = True
                break
            del self.waiting[call.number]
            if size > room:
                self.settle(call.number, b"", too_long("the call", size))
                continue
            if not call.starts and not self.claim(call.number):
                continue
            free, room = rest - share, room - size
            tasks.append(self._launch(call, offer.agent_id, worker, share))
        return tasks

    def _worker_on(self, agent: AgentId, free: Resources) -> tuple[_Worker | None, Resources]:
        """A worker with a free slot, and what is left of `free` beside it; a new one takes its own part."""
        for worker in self.workers.get(agent, {}).values():
            if len(worker.busy) < self.slots:
                return worker, free
        part = free.take(self.pattern.resources)
        if part is None:
            return None, free
        info = replace(self.pattern, executor_id=ExecutorId(f"calls-{self.workers_made}"), resources=part)
        return _Worker(info), free - part

    def _launch(self, call: _Call, agent: AgentId, worker: _Worker, share: Resources) -> Task:
        executor_id = worker.info.executor_id
        known = self.workers.setdefault(agent, {})
        if executor_id not in known:
            known[executor_id] = worker
            self.workers_made += 1
        call.task_id = call.next_id()
        call.starts += 1
        call.worker = worker
        worker.busy[call.task_id] = None
        self.launched[call.task_id] = call
        return executor_task(call.task_id, worker.info, share, call.data)

    # -- results come home ------------------------------------------------------------------------------------------

    def on_update(self, status: Status) -> None:
        call = self.launched.get(status.task_id)
        if call is None or (status.state not in TERMINAL and status.state is not TaskState.UNKNOWN):
            return
        del self.launched[status.task_id]
        if call.worker is not None:
            call.worker.busy.pop(status.task_id, None)
            call.worker = None
        self._end(call, status)
        self._wake_up()
        self._rest_if_idle()
        self._stop_if_done()

    def _end(self, call: _Call, status: Status) -> None:
        kind = status.data[:1]
        if kind in (VALUE, FAILURE):
            self.anything_ran = True
            self.settle(call.number, status.data, "")
        elif kind == FILE:
            self.anything_ran = True
            self._fetch(call, status)
        elif kind == WRONG_PYTHON:
            self._refuse_agent(call, status)
        elif status.state is TaskState.ERROR:
            self.settle(call.number, b"", f"the cluster refused the call: {status.message or status.reason}")
        elif status.state is TaskState.DROPPED and call.starts < MAX_STARTS:
            self._again(call)
        elif status.state is not TaskState.DROPPED and call.lost < self.retries:
            call.lost += 1
            self._again(call)
        else:
            why = status.message or status.reason or "nothing more is known"
            self.settle(call.number, b"", f"the worker was lost on agent {status.agent_id} ({status.state}): {why}")

    def _again(self, call: _Call) -> None:
        """It is the next to get a worker."""
        self.waiting[call.number] = call
        self.waiting.move_to_end(call.number, last=False)

    def _refuse_agent(self, call: _Call, status: Status) -> None:
        """This agent's Python cannot read our pickles: others may."""
        self.refused[status.agent_id] = status.data[1:].decode("utf-8", "replace")
        self.workers.pop(status.agent_id, None)
        self._again(call)
        self.set_timer("refusal", REFUSAL_WAIT_S)

    def on_executor_lost(
        self, agent_id: AgentId, executor_id: ExecutorId, exit_status: int | None, signal: int | None
    ) -> None:
        """Updates tell about its calls; no further one is sent to it."""
        self.workers.get(agent_id, {}).pop(executor_id, None)

    # -- long results -----------------------------------------------------------------------------------------------

    def _fetch(self, call: _Call, status: Status) -> None:
        note = msgspec.msgpack.decode(status.data[1:], type=FileNote)
        read = _Read(call.number, replace(status, message=note.path, data=b""), note.size_bytes)
        if len(self.reads) < MAX_READS:
            self._begin(read)
        else:
            self.reads_waiting.append(read)

    def _begin(self, read: _Read) -> None:
        self.reads[read.status.task_id] = read
        self._ask(read)

    def _ask(self, read: _Read) -> None:
        """The next piece; asked again when it does not come."""
        task_id = read.status.task_id
        read.attempts += 1
        if read.attempts > MAX_READ_ATTEMPTS:
            self._finish_read(read, f"its result cannot be read from agent {read.status.agent_id}: {read.error}")
            return
        piece = f"{task_id}/{read.taken_bytes}"  # so that a late answer is not taken for the next one
        self.read_file(read.status, read.status.message, read.taken_bytes, PIECE_BYTES, piece)
        self.set_timer(f"read/{task_id}", READ_RETRY_S)

    def on_file(self, file: FileData) -> None:
        read = self.reads.get(file.operation_id.rpartition("/")[0])
        if read is None or (not file.error and file.offset_bytes != read.taken_bytes):
            return
        if file.error or not file.data:
            read.error = file.error or "the file ends too early"
            return  # the timer asks again, a few times
        read.attempts = 0
        read.pieces.append(file.data)
        read.taken_bytes += len(file.data)
        if read.taken_bytes < read.size_bytes:
            self._ask(read)
        else:
            self._finish_read(read, "")

    def _finish_read(self, read: _Read, error: str) -> None:
        status = read.status
        del self.reads[status.task_id]
        self.cancel_timer(f"read/{status.task_id}")
        self.message(status.agent_id, status.executor_id, FORGET + status.task_id.encode())
        self.settle(read.number, b"" if error else b"".join(read.pieces), error)
        if self.reads_waiting:
            self._begin(self.reads_waiting.popleft())
        self._stop_if_done()

    # -- time -------------------------------------------------------------------------------------------------------

    def on_timer(self, name: str) -> None:
        if name == "refusal" and not self.anything_ran and self.waiting and not self.launched:
            text = "; ".join(f"agent {agent}: {said}" for agent, said in self.refused.items())
            while self.waiting:
                self.settle(self.waiting.popitem(last=False)[0], b"", text)
            self._stop_if_done()
        elif name.startswith("read/"):
            read = self.reads.get(name.removeprefix("read/"))
            if read is not None:
                self._ask(read)
