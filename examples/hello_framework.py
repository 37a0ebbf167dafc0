"""Runs `echo hello` ten times anywhere on the cluster: python examples/hello_framework.py"""

from __future__ import annotations

from collections.abc import Sequence

import mesos_actor
from mesos_actor import Offer, Resources, Status, TaskState, command_task

EACH = Resources.of(cpus=0.5, mem=32)


class Hello(mesos_actor.Framework):
    def __init__(self, count: int) -> None:
        self.waiting = [f"hello-{number}" for number in range(count)]
        self.running: set[str] = set()

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            free, tasks = offer.resources, []
            while self.waiting and (share := free.take(EACH)) is not None:
                free -= share
                tasks.append(command_task(self.waiting.pop(), ["echo", "hello"], share))
            self.running.update(task.task_id for task in tasks)
            self.accept(offer, tasks)

    def on_update(self, status: Status) -> None:
        print(status.task_id, status.state, status.message)
        if mesos_actor.is_terminal(status.state) and status.task_id in self.running:
            self.running.remove(status.task_id)
            if status.state is not TaskState.FINISHED:
                self.waiting.append(status.task_id + "-again")
            if not self.waiting and not self.running:
                self.stop()


if __name__ == "__main__":
    mesos_actor.run(Hello(10))
