"""Renders frames, each a task, and renders again what was lost: python examples/three_worlds/render.py 20"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import mesos_actor
from mesos_actor import Offer, Resources, Status, TaskState, command_task

EACH = Resources.of(cpus=0.5, mem=32)


class Render(mesos_actor.Framework):
    failover_timeout_s = 86_400
    """Its tasks live on for so long while it and the masters cannot hear each other; without it, both end at once."""

    def __init__(self, frames: int) -> None:
        self.waiting = [f"frame-{number}" for number in range(frames)]
        self.attempts = 0
        #: The task that renders a frame now.
        self.running: dict[str, str] = {}
        self.rendered: set[str] = set()
        self.frames = frames

    @property
    def done(self) -> bool:
        return len(self.rendered) == self.frames

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free, tasks = offer.resources, []
            while self.waiting and (share := free.take(EACH)) is not None:
                free -= share
                frame = self.waiting.pop(0)
                self.attempts += 1
                task = command_task(f"{frame}.{self.attempts}", ["sleep", "0.1"], share)
                self.running[task.task_id] = frame
                tasks.append(task)
            self.accept(offer, tasks, refuse_s=1)

    def on_update(self, status: Status) -> None:
        frame = self.running.get(status.task_id)
        if frame is None or status.state in (TaskState.RUNNING, TaskState.STARTING):
            return
        if status.state is TaskState.FINISHED:
            self.rendered.add(frame)
        elif frame not in self.rendered:  # it failed, or nobody can reach its agent: somewhere else, then
            self.waiting.append(frame)
        del self.running[status.task_id]
        if self.done:
            self.stop()


if __name__ == "__main__":
    print(sorted(mesos_actor.run(Render(int(sys.argv[1]))).rendered))
