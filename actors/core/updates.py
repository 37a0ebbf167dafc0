"""Status-update streams: every update of a task reaches its framework at least once and in order, across any loss.

One stream per (framework, task): what nobody has acknowledged waits in it, oldest first. The rules (Mesos:
src/slave/task_status_update_manager.cpp), and where we leave them:

1. An update is kept before it is forwarded or acknowledged to an executor: `add`, then Persist `save`, then Send.
2. Mesos has one update of a stream in flight. Here they are pipelined, up to `WINDOW`, because a master that waits for
   the round trip of RUNNING before it sees FINISHED has a slot idle. The link keeps order but may lose, so an update
   that is sent behind an unacknowledged one names it in `status.after_update_id`. A receiver that never saw that one
   ignores this one. The oldest unacknowledged update never names another, so nobody waits for what will not come.
3. An acknowledgement therefore covers all earlier updates of its stream: its sender saw them. Ids that are not waiting
   (repeats, late ones) are ignored.
4. No acknowledgement in time: everything in the window is sent again from the oldest on, and the time doubles.
   While the master is away nothing is sent; when it is back, everything, at once.
5. `latest_state` tells the master the newest state in every copy, so resources come free although an older update is
   still unacknowledged.
6. The acknowledgement of a terminal update closes the stream.

An acknowledgement of an update that is not terminal may be saved a little later (`unsaved`): a crash in between makes
one repeat, which receivers must stand anyway, and a short task is spared a write.
"""

from __future__ import annotations

import enum
import heapq
import itertools
from collections import deque

from msgspec.structs import replace

from mesos_actor.actors.ids import ContainerId, FrameworkId, TaskId, UpdateId
from mesos_actor.actors.messages.records import StreamRecord
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import TERMINAL, TRANSITIONS, TaskState

WINDOW = 16
"""Updates of one stream that may be in flight; more wait for an acknowledgement."""

MAX_PENDING = 32
"""Updates of one stream that may wait. Past that an executor's news is left unanswered, so that it comes again; a
terminal update is always taken."""

MAX_RECEIVED = 64
"""Names of an executor's updates remembered per stream; at least the pending ones."""

TaskKey = tuple[FrameworkId, TaskId]


class Verdict(enum.Enum):
    """What to do with an update that an executor sends."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """Kept already: answer, change nothing."""
    TOO_LATE = "too-late"
    """The task's state does not allow it any more (the first terminal state wins): answer, change nothing."""
    FULL = "full"
    """No room: do not answer, it comes again."""


class Stream:
    """The updates of one launch of one task. `state` is its newest state; changed by UpdateStreams only."""

    __slots__ = (
        "due_us",
        "framework_id",
        "heap_us",
        "in_flight",
        "key",
        "next_number",
        "pending",
        "received",
        "record_key",
        "retry_us",
        "run_id",
        "running_since_us",
        "saved",
        "state",
        "task_id",
    )

    def __init__(self, framework_id: FrameworkId, task_id: TaskId, run_id: ContainerId) -> None:
        self.framework_id = framework_id
        self.task_id = task_id
        self.key: TaskKey = (framework_id, task_id)
        self.record_key = f"stream/{framework_id}/{task_id}"
        self.run_id = run_id
        self.state = TaskState.STAGING
        self.next_number = 0
        self.running_since_us = 0
        self.pending: deque[Status] = deque()
        self.received: deque[str] | None = None
        self.in_flight = 0
        self.retry_us = 0
        self.due_us = 0
        self.heap_us = 0
        self.saved = False

    @property
    def terminal(self) -> bool:
        return self.state in TERMINAL

    @property
    def closed(self) -> bool:
        """Ended, and nobody waits for anything: its records may go."""
        return not self.pending and self.state in TERMINAL

    def next_update_id(self) -> UpdateId:
        """The id that the next status given to `add` must carry."""
        return UpdateId(f"{self.run_id}:{self.next_number}")


class UpdateStreams:
    """All streams of one agent. Methods return what to send; the caller persists first, then sends."""

    def __init__(self, retry_us: int, retry_max_us: int) -> None:
        self._retry_us = retry_us
        self._retry_max_us = retry_max_us
        self._due: list[tuple[int, int, Stream]] = []
        self._ties = itertools.count()
        self.connected = False
        self.streams: dict[TaskKey, Stream] = {}
        self.unsaved: dict[TaskKey, Stream] = {}
        """Streams whose last acknowledgement is not in their record yet."""

    def open(self, framework_id: FrameworkId, task_id: TaskId, run_id: ContainerId) -> Stream:
        """A new stream, in STAGING. Nothing of it need be kept before its first update."""
        stream = Stream(framework_id, task_id, run_id)
        self.streams[stream.key] = stream
        return stream

    def restore(self, record: StreamRecord) -> Stream:
        """The stream that `record` was saved from; whatever was in flight then counts as lost."""
        stream = self.open(record.framework_id, record.task_id, record.run_id)
        stream.state = record.state
        stream.next_number = record.next_number
        stream.running_since_us = record.running_since_us
        stream.pending.extend(record.pending)
        if record.received:
            stream.received = deque(record.received, MAX_RECEIVED)
        stream.saved = True
        return stream

    def verdict(self, stream: Stream, state: TaskState, name: str) -> Verdict:
        """Whether an executor's update, named `name` by it, may be added."""
        if stream.received is not None and name in stream.received:
            return Verdict.DUPLICATE
        if state not in TRANSITIONS[stream.state]:
            return Verdict.TOO_LATE
        if len(stream.pending) >= MAX_PENDING and state not in TERMINAL:
            return Verdict.FULL
        return Verdict.NEW

    def add(self, stream: Stream, status: Status, now_us: int, name: str = "") -> Update | None:
        """Take `status` in as the newest of its stream; what to forward now, if anything.

        The caller has made sure that the state may follow and that `status.update_id` is `next_update_id()`. `name`
        is the executor's own name for it.
        """
        stream.next_number += 1
        stream.state = status.state
        if status.state is TaskState.RUNNING and not stream.running_since_us:
            stream.running_since_us = now_us
        if name:
            if stream.received is None:
                stream.received = deque(maxlen=MAX_RECEIVED)
            stream.received.append(name)
        pending = stream.pending
        pending.append(status)
        if not self.connected or stream.in_flight != len(pending) - 1 or stream.in_flight >= WINDOW:
            return None
        if not stream.in_flight:
            self._arm(stream, now_us, self._retry_us)
        stream.in_flight += 1
        return self._update(stream, len(pending) - 1)

    def save(self, stream: Stream) -> StreamRecord:
        """The record to persist under `stream.record_key`: all that a restart needs."""
        self.unsaved.pop(stream.key, None)
        stream.saved = True
        return StreamRecord(
            stream.framework_id,
            stream.task_id,
            stream.run_id,
            stream.state,
            stream.next_number,
            stream.running_since_us,
            tuple(stream.pending),
            tuple(stream.received) if stream.received is not None else (),
        )

    def acknowledge(self, stream: Stream, update_id: UpdateId, now_us: int) -> list[Update] | None:
        """Drop this update and all before it; what to forward in their place. None: no such update waits.

        Afterwards the stream is either `closed`, then its records may go and `drop` ends it here, or `unsaved`.
        """
        pending = stream.pending
        position: int | None = 0
        if not pending or pending[0].update_id != update_id:
            position = next((i for i, status in enumerate(pending) if status.update_id == update_id), None)
        if position is None:
            return None
        for _ in range(position + 1):
            pending.popleft()
        stream.in_flight = max(0, stream.in_flight - position - 1)
        if stream.closed:
            return []
        self.unsaved[stream.key] = stream
        if not pending or not self.connected:
            return []
        self._arm(stream, now_us, self._retry_us)
        return self._fill(stream)

    def drop(self, stream: Stream) -> None:
        """Forget the stream: it is closed, or its framework is gone."""
        self.streams.pop(stream.key, None)
        self.unsaved.pop(stream.key, None)
        stream.pending.clear()

    def pause(self) -> None:
        """The master is away: nothing is forwarded until `resume`."""
        self.connected = False

    def resume(self, now_us: int) -> list[Update]:
        """The master is back: every waiting update in every window, oldest first, with the shortest repeat time."""
        self.connected = True
        updates: list[Update] = []
        for stream in self.streams.values():
            if stream.pending:
                stream.in_flight = 0
                self._arm(stream, now_us, self._retry_us)
                updates += self._fill(stream)
        return updates

    def next_due_us(self) -> int | None:
        """When to call `repeat`, or None while nothing is in flight. It may turn out that nothing is due then."""
        return self._due[0][0] if self.connected and self._due else None

    def repeat(self, now_us: int) -> list[Update]:
        """The updates of the streams whose time is over, from the oldest on; their time doubles."""
        updates: list[Update] = []
        while self.connected and self._due and self._due[0][0] <= now_us:
            place_us, _, stream = heapq.heappop(self._due)
            if place_us != stream.heap_us:
                continue
            stream.heap_us = 0
            if not stream.pending or self.streams.get(stream.key) is not stream:
                continue
            if stream.due_us > now_us:
                self._push(stream)
                continue
            self._arm(stream, now_us, min(stream.retry_us * 2, self._retry_max_us))
            stream.in_flight = 0
            updates += self._fill(stream)
        return updates

    def _fill(self, stream: Stream) -> list[Update]:
        first = stream.in_flight
        stream.in_flight = min(len(stream.pending), WINDOW)
        return [self._update(stream, position) for position in range(first, stream.in_flight)]

    def _update(self, stream: Stream, position: int) -> Update:
        status = stream.pending[position]
        if position:
            status = replace(status, after_update_id=stream.pending[position - 1].update_id)
        return Update(stream.framework_id, status, stream.state.value)

    def _arm(self, stream: Stream, now_us: int, retry_us: int) -> None:
        stream.retry_us = retry_us
        stream.due_us = now_us + retry_us
        if not stream.heap_us or stream.due_us < stream.heap_us:
            self._push(stream)

    def _push(self, stream: Stream) -> None:
        """Give the stream its one valid place in the heap: where `heap_us` says. A due time that moves on later only
        leaves it there, to be looked at once more."""
        stream.heap_us = stream.due_us
        heapq.heappush(self._due, (stream.due_us, next(self._ties), stream))
