"""An executor that greets: it runs any number of tasks in one process. See docs/frameworks.md for who starts it."""

from __future__ import annotations

import mesos_actor
from mesos_actor import Task, TaskState


class Greeter(mesos_actor.Executor):
    def on_launch(self, task: Task) -> None:
        print("hello", task.data.decode())
        self.update(task.task_id, TaskState.FINISHED, data=b"greeted " + task.data)


if __name__ == "__main__":
    mesos_actor.run_executor(Greeter())
