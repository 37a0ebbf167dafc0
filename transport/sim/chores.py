"""A framework and its executors that use every part of the public API: what simulated clusters are given to do."""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.executor import Executor
from mesos_actor.actors.framework import Framework, command_task, executor_task
from mesos_actor.actors.ids import AgentId, ExecutorId, FrameworkId, OfferId, Role
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import Instruction
from mesos_actor.actors.messages.values import Command, Demand, ExecutorInfo, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TERMINAL, TaskState, must_be_killed

ONE_CPU = Resources.of(cpus=1, mem=64)
HALF_CPU = Resources.of(cpus=0.5, mem=32)


def has_failed(state: TaskState) -> bool:
    """Whether a task in this state must be run again."""
    return state in TERMINAL or state is TaskState.UNKNOWN


class Worker(Executor):
    """Runs a task until it is told `end` by a message, and stops itself when it has none left."""

    def on_launch(self, task: Task) -> None:
        self.update(task.task_id, TaskState.RUNNING)

    def on_message(self, data: bytes) -> None:
        for task_id in [task_id for task_id in self.tasks if not task_id.startswith("endless-")]:
            self.update(task_id, TaskState.FINISHED, data=data)
        self.message(b"ended")
        if self.data == b"quits" and not self.tasks:
            self.stop()


def worker(executor_id: str, quits: bool = False) -> ExecutorInfo:
    data = b"quits" if quits else b""
    return ExecutorInfo(ExecutorId(executor_id), Command(("worker",)), HALF_CPU, 2_000, data)


class Chores(Framework):
    """Does once, and until it has succeeded, each thing that a framework can do; then it stops. A process of it that is
    started again begins anew, and ends what the one before has left."""

    failover_timeout_s = 600
    NUDGE_S = 2.0
    TASKS = ("sleeper", "quick", "a0", "a1", "endless-b")

    def __init__(self, instructed: bool = False) -> None:
        #: what is to be launched: name -> its task
        self.waiting: dict[str, Task] = {}
        #: name -> the id of its newest task
        self.newest: dict[str, str] = {}
        self.ended: dict[str, TaskState] = {}
        self.replies: set[ExecutorId] = set()
        self.output = b""
        self.held: list[Offer] = []
        self.rests = False
        self.registered = False
        self.silent_until_s = 0.0
        self.offered_after_silence = False
        self.instructed = instructed
        """Whether there is no instruction to wait for (any more)."""

    def _want(self, name: str) -> None:
        task_id = self.newest[name] = f"{name}.{self.rng.getrandbits(32):08x}"
        if name == "sleeper":
            self.waiting[name] = command_task(task_id, ["sleep", "100000"], ONE_CPU)
        elif name == "quick":
            self.waiting[name] = command_task(task_id, ["echo", "hello"], ONE_CPU)
        else:
            executor = worker("a", quits=True) if name.startswith("a") else worker("b")
            self.waiting[name] = executor_task(task_id, executor, HALF_CPU)

    def missing(self) -> list[str]:
        """What is left to do."""
        left = [name for name in self.TASKS if name not in self.ended]
        left += [] if self.output else ["output"]
        left += [] if self.offered_after_silence else ["offers after silence"]
        left += [] if self.instructed else ["instruction"]
        return left

    # -- callbacks --------------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        for name in self.TASKS:
            self._want(name)

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.request_demand([] if self.registered else [Demand(Role("*"), ONE_CPU, 3)])
        self.registered = True
        self.reconcile(None)
        self.set_timer("nudge", self.NUDGE_S)

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            if self.rests and self.now_s > self.silent_until_s:
                self.offered_after_silence = True
            tasks, free = [], offer.resources
            for name, task in list(self.waiting.items()):
                whole = task.resources + (task.executor.resources if task.executor is not None else Resources())
                if free.contains(whole):
                    free -= whole
                    tasks.append(task)
                    del self.waiting[name]
            if tasks:
                self.accept(offer, tasks, refuse_s=1)
            elif not self.held:
                self.held.append(offer)
            else:
                self.decline(offer, refuse_s=1)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        self.held = [offer for offer in self.held if offer.offer_id not in offer_ids]

    def on_update(self, status: Status) -> None:
        name, state = status.task_id.partition(".")[0], status.state
        if status.task_id != self.newest[name]:
            if must_be_killed(state):
                self.kill(status.task_id, status.agent_id)
        elif state is TaskState.RUNNING and name in ("sleeper", "endless-b"):
            self.kill(status.task_id, status.agent_id)
        elif state is (TaskState.KILLED if name in ("sleeper", "endless-b") else TaskState.FINISHED):
            self.ended[name] = state
            if name == "quick" and not self.output:
                self.read_file(status, "stdout")
        elif (has_failed(state) or state is TaskState.UNREACHABLE) and name not in self.ended:
            self._want(name)
            self.request_demand([])  # what was asked for was had; now anything will do

    def on_message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self.replies.add(executor_id)

    def on_file(self, file: FileData) -> None:
        self.output = file.data or b"(lost)"

    def on_instruction(self, instruction: Instruction) -> None:
        self.instructed = True
        self.answer(instruction, data=b"done")

    def on_timer(self, name: str) -> None:
        for task_id, known in self.tasks.items():
            if known.state is TaskState.RUNNING and task_id.startswith("a"):
                self.message(known.agent_id, "a", b"end")
        if not self.rests and self.now_s % 100 > 12:
            self.rests = True
            self.silent_until_s = self.now_s + 4
            self.suppress()
            self.set_timer("wake", 4)
        if name == "wake":
            self.request_demand([])
            self.revive()
        for offer in [offer for offer in self.held if self.now_s % 100 > 60]:
            self.decline(offer)
        if not self.missing():
            self.stop()
        else:
            self.set_timer("nudge", self.NUDGE_S)
