"""A worker of `ClusterExecutor`: runs pickled calls in threads and reports what they return or raise.

Started by an agent as `python -m mesos_actor.actors.callable_executor`. The pickles come from the user's own client, in
task data; no actor ever opens one. A call that is killed ends this whole process, because a thread cannot be ended:
with one slot, the default, nothing else is hit.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec

from mesos_actor.actors.callable_framework import (
    FAILURE,
    FILE,
    FORGET,
    VALUE,
    WRONG_PYTHON,
    Failure,
    FileNote,
    WorkerSettings,
)
from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.executor import Executor
from mesos_actor.actors.ids import TaskId
from mesos_actor.actors.messages.values import Task
from mesos_actor.actors.run import run_executor
from mesos_actor.actors.task import TaskState

TELL_RUNNING_AFTER_S = 0.5
"""Shorter calls report their end only: one update fewer to keep, forward and acknowledge."""
RESULTS = "results"
"""Directory of long results in the sandbox."""
MAX_MESSAGE_CHARS = 500


class CallableExecutor(Executor):
    """`results` is the directory for long results, relative to the sandbox."""

    def __init__(self, sandbox: Path) -> None:
        self.sandbox = sandbox
        self.settings = WorkerSettings((0, 0), 1)
        self.refusal = ""
        self.calls: queue.SimpleQueue[tuple[TaskId, bytes]] = queue.SimpleQueue()
        self.threads = 0

    def on_registered(self) -> None:
        self.settings = msgspec.msgpack.decode(self.data, type=WorkerSettings)
        ours, theirs = sys.version_info[:2], self.settings.python
        if ours != tuple(theirs):
            self.refusal = (
                f"runs Python {ours[0]}.{ours[1]}, the calls were pickled by Python {theirs[0]}.{theirs[1]}; "
                "use the same minor version on both sides"
            )

    def on_launch(self, task: Task) -> None:
        if self.refusal:
            self.update(task.task_id, TaskState.FAILED, self.refusal, WRONG_PYTHON + self.refusal.encode())
            return
        self.set_timer(task.task_id, TELL_RUNNING_AFTER_S)
        if self.threads < self.settings.slots:
            self.threads += 1
            threading.Thread(target=self._work, name=f"slot-{self.threads}", daemon=True).start()
        self.calls.put((task.task_id, task.data))

    def on_timer(self, name: str) -> None:
        if name in self.tasks:
            self.update(name, TaskState.RUNNING)

    def on_posted(self, value: Any) -> None:
        task_id, result, message = value
        self.cancel_timer(task_id)
        if task_id in self.tasks:
            state = TaskState.FAILED if message else TaskState.FINISHED
            self.update(task_id, state, message[:MAX_MESSAGE_CHARS], result)

    def on_kill(self, task_id: TaskId, grace_s: float) -> None:
        self.update(task_id, TaskState.KILLED)
        for other in list(self.tasks):
            self.update(other, TaskState.FAILED, f"the worker ended because its call {task_id} was killed")
        self.stop()

    def on_message(self, data: bytes) -> None:
        if data[:1] == FORGET:
            with contextlib.suppress(FileNotFoundError):
                self._file(data[1:].decode()).unlink()

    # -- in the slots' threads --------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            task_id, data = self.calls.get()
            outcome = self._outcome(task_id, data)
            try:
                self.post((task_id, *outcome))
            except LocalError:
                return  # the worker has been stopped meanwhile; its calls were told of

    def _outcome(self, task_id: TaskId, data: bytes) -> tuple[bytes, str]:
        """The result as it travels, and the error's one line when there is one."""
        try:
            function, args, kwargs = cloudpickle.loads(data)
            result, message = VALUE + _pickled(function(*args, **kwargs)), ""
        except BaseException as error:  # noqa: BLE001 - also SystemExit: the call's end is not the worker's
            result, message = _failure(error)
        try:
            return self._fitting(task_id, result), message
        except OSError as error:
            return _failure(error)

    def _fitting(self, task_id: TaskId, result: bytes) -> bytes:
        """The result itself, or a note of the file it went to."""
        if len(result) <= self.settings.inline_result_bytes:
            return result
        if len(result) > self.settings.max_result_bytes:
            text = f"the result has {len(result)} bytes, at most {self.settings.max_result_bytes} can be sent home"
            return _failure(ValueError(text))[0]
        path = self._file(task_id)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(result)
        note = FileNote(str(path.relative_to(self.sandbox)), len(result))
        return FILE + msgspec.msgpack.encode(note)

    def _file(self, task_id: str) -> Path:
        return self.sandbox / RESULTS / Path(task_id).name


def _pickled(value: Any) -> bytes:
    """With the plain pickler where it will do: it is several times faster."""
    try:
        return pickle.dumps(value, protocol=5)
    except Exception:  # noqa: BLE001 - whatever it cannot do, cloudpickle may
        pickled: bytes = cloudpickle.dumps(value, protocol=5)
        return pickled


def _failure(error: BaseException) -> tuple[bytes, str]:
    """An exception as it travels, with the traceback's text, and its one line."""
    lines = traceback.format_exception(error)
    text = "".join(traceback.format_exception_only(error)).strip()
    try:
        pickled = _pickled(error)
    except Exception:  # noqa: BLE001 - then its text must do
        pickled = b""
    return FAILURE + msgspec.msgpack.encode(Failure(pickled, text, "".join(lines))), text


if __name__ == "__main__":
    run_executor(CallableExecutor(Path.cwd()))
