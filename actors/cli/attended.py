"""`mesos-actor run`: a batch with its output on this terminal and its exit status as ours."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Sequence
from types import FrameType

from mesos_actor.actors.cli.output import note
from mesos_actor.actors.cli.work import EXIT_NEVER_RAN, exit_status, signal_name
from mesos_actor.actors.errors import LocalError, Unavailable
from mesos_actor.actors.frameworks.batch_state import LOST
from mesos_actor.actors.frameworks.follow import INTERRUPT, MAX_FOLLOWED, Emit, FollowedBatch
from mesos_actor.actors.frameworks.specs import BatchSpec
from mesos_actor.actors.ids import FrameworkId, TaskId
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.run import run
from mesos_actor.actors.task import TaskState, is_terminal

NO_MASTER = "no-master"
"""The timer that ends a run which no master takes in."""
NOTHING_FITS = "nothing-fits"
NOTHING_FITS_S = 3.0
"""When nothing was launched by then, a line says how to find out why."""
PROGRESS_S = 1.0
"""Between two lines about a large run."""


class AttendedBatch(FollowedBatch):
    """A followed batch that talks to the person who waits for it."""

    def __init__(self, spec: BatchSpec, emit: Emit, timeout_s: float) -> None:
        super().__init__(spec, emit)
        self.timeout_s = timeout_s
        self.told_s = 0.0
        #: The run was given up because no master took it in.
        self.unanswered = False
        self.launched = False

    def on_start(self) -> None:
        super().on_start()
        self.set_timer(NO_MASTER, self.timeout_s)

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.cancel_timer(NO_MASTER)
        self.set_timer(NOTHING_FITS, NOTHING_FITS_S)
        super().on_registered(framework_id)

    def on_timer(self, name: str) -> None:
        if name == NO_MASTER:
            self.unanswered = True
            self.stop()
        elif name == NOTHING_FITS:
            if not self.state.running and not self.ended and not self.state.outcome:
                note(f"mesos-actor: waiting for an agent that fits; see: mesos-actor why {self.framework_id}")
        else:
            super().on_timer(name)

    def on_disconnected(self) -> None:
        running = len(self.state.running)
        told = "none of its tasks runs now" if self.launched else "nothing of this run was launched yet"
        if running:
            told = "the task runs on" if running == 1 else f"{running} tasks run on"
        note(f"mesos-actor: the master is gone; {told}; looking for the next master")

    def on_launched(self, tasks: Sequence[Task], offer: Offer) -> None:
        self.launched = True
        if self.follow:
            for task in tasks:
                note(f"mesos-actor: {task.task_id} on {offer.hostname}")

    def on_progress(self, status: Status) -> None:
        super().on_progress(status)
        if status.state in LOST and not self.state.outcome:
            note(f"mesos-actor: {status.task_id} is lost, {status.state}; it is run again elsewhere")
            self.set_timer(NOTHING_FITS, NOTHING_FITS_S)
        if self.follow or not is_terminal(status.state) or self.now_s - self.told_s < PROGRESS_S:
            return
        self.told_s = self.now_s
        ((_, done, running, instances),) = self.state.progress()
        note(f"mesos-actor: {done} of {instances} done, {running} running")


def run_attended(spec: BatchSpec, masters: str, key_dir: str, insecure: bool, timeout_s: float) -> int:
    """Run the batch, return the exit status: the task's own, or that of the first of several that failed."""
    instances = sum(group.instances for group in spec.task)
    writer = _Writer(several=instances > 1)

    def emit(task_id: TaskId, path: str, data: bytes) -> None:
        writer.write(task_id, path, data)
        if writer.unread and not batch.interrupted:
            batch.post(INTERRUPT)

    batch = AttendedBatch(spec, emit, timeout_s)
    if not batch.follow:
        note(f"mesos-actor: the output of more than {MAX_FOLLOWED} tasks stays with them: mesos-actor logs TASK")

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        try:
            batch.post(INTERRUPT)
        except LocalError:
            raise KeyboardInterrupt from None

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    started = time.monotonic()
    try:
        # Warnings about links and late answers are for operators; who waits here is told by notes.
        run(batch, masters=masters or None, key_dir=key_dir or None, insecure=insecure, log=Log(level="error"))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        writer.finish()
    if batch.unanswered:
        raise Unavailable(
            f"no master answered within {timeout_s:g} s; is one running (mesos-actor start), and is this its key?"
        )
    if not batch.follow:
        note(f"mesos-actor: {instances} tasks in {time.monotonic() - started:.2f} s, {batch.state.outcome}")
    return 128 + signal.SIGPIPE if writer.unread else _verdict(batch)


def _verdict(batch: FollowedBatch) -> int:
    """The exit status, and one line about an abnormal end."""
    if batch.interrupted:
        note("mesos-actor: interrupted; the tasks were ended")
        return 128 + signal.SIGINT
    bad = next((s for s in batch.ended.values() if s.state is not TaskState.FINISHED), None)
    if batch.state.outcome == "finished" or bad is None:
        return 0 if batch.state.outcome == "finished" else EXIT_NEVER_RAN
    failed = next((s for s in reversed(batch.ended.values()) if s.state is not TaskState.FINISHED), bad)
    words = failed.message or failed.reason or str(failed.state)
    if failed.signal is not None:
        words = f"{words} ({signal_name(failed.signal)})" if signal_name(failed.signal) not in words else words
    plain_exit = failed.state is TaskState.FAILED and failed.exit_status
    if not plain_exit or len(batch.ended) > 1:
        note(f"mesos-actor: {failed.task_id} {failed.state}: {words}")
    return exit_status(failed.exit_status, failed.signal)


class _Writer:
    """Puts the bytes of tasks on our own standard output and error; several tasks' lines are told apart."""

    def __init__(self, several: bool) -> None:
        self.several = several
        #: (task, path) -> an unfinished line.
        self.partial: dict[tuple[TaskId, str], bytes] = {}
        #: Whoever read us has gone (`| head`): what comes is thrown away.
        self.unread = False

    def write(self, task_id: TaskId, path: str, data: bytes) -> None:
        """Hand `data` on; once nobody reads it any more, `unread` is set and nothing is written."""
        if self.unread:
            return
        try:
            self._write(task_id, path, data)
        except BrokenPipeError:
            self.unread = True

    def _write(self, task_id: TaskId, path: str, data: bytes) -> None:
        out = sys.stdout.buffer if path == "stdout" else sys.stderr.buffer
        if not self.several:
            out.write(data)
        else:
            whole, newline, rest = (self.partial.pop((task_id, path), b"") + data).rpartition(b"\n")
            for line in whole.split(b"\n") if newline else ():
                out.write(b"[" + task_id.encode() + b"] " + line + b"\n")
            if rest:
                self.partial[task_id, path] = rest
        out.flush()

    def finish(self) -> None:
        """Lines that never ended are shown with an end."""
        if self.unread:
            # The interpreter would try once more to write at its end, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return
        for (task_id, path), rest in self.partial.items():
            out = sys.stdout.buffer if path == "stdout" else sys.stderr.buffer
            out.write(b"[" + task_id.encode() + b"] " + rest + b"\n")
            out.flush()
        self.partial.clear()
