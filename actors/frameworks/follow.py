"""A batch whose output is brought home while it runs: what stands behind `mesos-actor run`.

For each task two files are followed, `stdout` and `stderr`. They are read again after a wait that grows while nothing
comes, and once more to their end when the task has ended; the batch is over when the last byte has arrived or its
reading was given up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mesos_actor.actors.frameworks.batch import Batch
from mesos_actor.actors.frameworks.specs import BatchSpec
from mesos_actor.actors.ids import TaskId
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Reason, TaskState, is_terminal

MAX_FOLLOWED = 64
"""The most tasks whose output is followed; a larger run is told to look with `mesos-actor logs`."""

WAIT_LEAST_S = 0.05
WAIT_MOST_S = 1.0
"""Between two looks at a file that does not grow."""

GIVE_UP_S = 5.0
"""An answer not there by then is asked for again; so often at most:"""
GIVE_UP_AFTER = 3

CHUNK_BYTES = 256 * 1024

Emit = Callable[[TaskId, str, bytes], None]
"""`(task, "stdout" or "stderr", bytes)`."""

INTERRUPT = "interrupt"
"""Post this to end every task (Ctrl-C)."""


@dataclass(slots=True)
class _Stream:
    """How far one file has been read."""

    status: Status
    path: str
    offset_bytes: int = 0
    wait_s: float = WAIT_LEAST_S
    asked: int = 0
    """Requests since the last answer."""
    number: int = 0
    """Of the newest request. Only its answer counts: an older one may tell of the file before the task's last words."""
    ended: bool = False
    """The task has ended: read to the end, then be done."""


class FollowedBatch(Batch):
    """Runs a batch, hands on its output as it comes, and remembers how its tasks ended."""

    def __init__(self, spec: BatchSpec, emit: Emit) -> None:
        super().__init__(spec)
        self.emit = emit
        self.follow = sum(group.instances for group in spec.task) <= MAX_FOLLOWED
        self.streams: dict[str, _Stream] = {}
        #: The last status of each ended task, the newest attempt last.
        self.ended: dict[TaskId, Status] = {}
        self.interrupted = False
        self.ending = False

    def on_progress(self, status: Status) -> None:
        ended = is_terminal(status.state) or status.state in (TaskState.UNREACHABLE, TaskState.UNKNOWN)
        if ended:
            self.ended[status.task_id] = status
        if not self.follow or not status.container_id:
            return
        for path in ("stdout", "stderr"):
            key = f"{path}/{status.task_id}"
            stream = self.streams.get(key)
            if stream is None:
                if ended and status.state not in (TaskState.FINISHED, TaskState.FAILED, TaskState.KILLED):
                    continue
                self.streams[key] = stream = _Stream(status, path)
            elif stream.status.container_id == status.container_id:
                stream.status = status
            stream.ended = stream.ended or ended
            if status.reason is not Reason.RECONCILIATION:
                self._ask(key, stream)

    def on_posted(self, value: object) -> None:
        if value != INTERRUPT:
            return
        if self.interrupted:
            self.streams.clear()
            super()._finish()
            return
        self.interrupted = True
        self.state.abandon("failed: interrupted")
        self._finish()

    # -- reading ----------------------------------------------------------------------------------------------------

    def _ask(self, key: str, stream: _Stream) -> None:
        stream.asked += 1
        stream.number += 1
        name = f"{stream.number}/{key}"
        self.read_file(stream.status, stream.path, stream.offset_bytes, CHUNK_BYTES, operation_id=name)
        self.set_timer(key, GIVE_UP_S)

    def on_file(self, file: FileData) -> None:
        number, _, key = file.operation_id.partition("/")
        stream = self.streams.get(key)
        if stream is None or number != str(stream.number):
            return
        if file.error:
            self._failed(key, stream)
            return
        stream.asked = 0
        if file.data:
            stream.offset_bytes += len(file.data)
            stream.wait_s = WAIT_LEAST_S
            self.emit(stream.status.task_id, stream.path, file.data)
        if stream.offset_bytes < file.size_bytes:
            self._ask(key, stream)
        elif stream.ended:
            self._drop(key)
        else:
            self.set_timer(key, stream.wait_s)
            stream.wait_s = min(WAIT_MOST_S, stream.wait_s * 2)

    def _failed(self, key: str, stream: _Stream) -> None:
        """The agent is away, or the file is. The agent may have moved: a reconciled task tells where it is now."""
        if stream.ended and stream.asked > GIVE_UP_AFTER:
            self._drop(key)
            return
        self.reconcile({stream.status.task_id: stream.status.agent_id})
        self.set_timer(key, stream.wait_s)
        stream.wait_s = min(WAIT_MOST_S, stream.wait_s * 2)

    def on_timer(self, name: str) -> None:
        stream = self.streams.get(name)
        if stream is None:
            return
        if stream.asked > GIVE_UP_AFTER and stream.ended:
            self._drop(name)
        else:
            self._ask(name, stream)

    def _drop(self, key: str) -> None:
        del self.streams[key]
        self.cancel_timer(key)
        if self.state.outcome:
            self._finish()

    def _finish(self) -> None:
        """Over is over when every task has ended and its last byte is here. A failed batch ends the rest first."""
        if self.state.running:
            if not self.ending:
                self.ending = True
                for task_id, agent_id in self.state.launched():
                    self.kill(task_id, agent_id)
        elif not self.streams:
            super()._finish()
