"""Following the output of a batch: every byte once, whatever comes late, twice or never."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mesos_actor.actors.frameworks.follow import GIVE_UP_AFTER, INTERRUPT, FollowedBatch
from mesos_actor.actors.frameworks.specs import batch_spec
from mesos_actor.actors.ids import AgentId, ContainerId, OfferId, OperationId, Role, TaskId
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Reason, Source, TaskState


class Followed(FollowedBatch):
    """A followed batch whose actions are noted instead of done."""

    def __init__(self) -> None:
        self.output: dict[str, bytes] = {}
        spec = batch_spec({"name": "b", "task": [{"name": "t", "command": ["x"]}]})
        super().__init__(spec, self.note_output)
        #: Reads that wait for an answer: operation id -> (path, offset).
        self.reads: dict[str, tuple[str, int]] = {}
        self.timers: dict[str, float] = {}
        self.reconciled: list[str] = []
        self.killed: list[str] = []
        self.outcome = ""

    def note_output(self, task_id: TaskId, path: str, data: bytes) -> None:
        self.output[path] = self.output.get(path, b"") + data

    def read_file(
        self, status: Status, path: str, offset_bytes: int = 0, length_bytes: int = 0, operation_id: str = ""
    ) -> None:
        self.reads[operation_id] = (path, offset_bytes)

    def set_timer(self, name: str, delay_s: float) -> None:
        self.timers[name] = delay_s

    def cancel_timer(self, name: str) -> None:
        self.timers.pop(name, None)

    def reconcile(self, tasks: Iterable[str] | Mapping[str, str] | None = None) -> None:
        self.reconciled += tasks or ()

    def kill(self, task_id: str, agent_id: str | None = None, *_: Any, **__: Any) -> None:
        self.killed.append(task_id)

    def accept(self, offers: Any, tasks: Iterable[Task] = (), **_: Any) -> None: ...
    def decline(self, offers: Any, refuse_s: float = 0, why: str = "") -> None: ...
    def persist(self, key: str, data: bytes | None) -> None: ...
    def request_demand(self, demands: Any) -> None: ...
    def suppress(self, roles: Iterable[str] = ()) -> None: ...
    def revive(self, roles: Iterable[str] = ()) -> None: ...

    def stop(self, failover: bool = False, outcome: str = "finished") -> None:
        self.outcome = outcome

    # -- what happens

    def launch(self, agent: str = "a") -> str:
        """Offer an agent; the id of the task that went there."""
        offer = Offer(
            offer_id=OfferId("o"),
            agent_id=AgentId(agent),
            hostname=agent,
            role=Role("*"),
            resources=Resources.parse("cpus:4;mem:512"),
        )
        self.on_offers([offer])
        (task_id,) = self.state.running
        return task_id

    def update(self, task_id: str, state: TaskState, reason: Reason = Reason.NONE) -> None:
        self.on_update(
            Status(
                task_id=TaskId(task_id),
                state=state,
                source=Source.AGENT,
                reason=reason,
                agent_id=AgentId("a"),
                container_id=ContainerId(f"{task_id}.c"),
            )
        )

    def bring(self, operation_id: str, content: bytes, piece: int = 100) -> None:
        """The agent answers a read from a file that holds `content`."""
        _, offset = self.reads.pop(operation_id)
        data = content[offset : offset + piece]
        self.on_file(FileData(OperationId(operation_id), offset, len(content), data))

    def answer_all(self, out: bytes, err: bytes = b"", piece: int = 100) -> None:
        """Answer every read, and those that follow from the answers."""
        while self.reads:
            operation_id, (path, _) = next(iter(self.reads.items()))
            self.bring(operation_id, out if path == "stdout" else err, piece)

    def refuse_all(self) -> None:
        for operation_id in list(self.reads):
            del self.reads[operation_id]
            self.on_file(FileData(OperationId(operation_id), 0, 0, error="the link to the agent ended; read again"))

    def fire(self) -> None:
        """Every timer goes off."""
        timers, self.timers = self.timers, {}
        for name in timers:
            self.on_timer(name)

    def wanted(self, path: str) -> list[str]:
        return [operation_id for operation_id, (what, _) in self.reads.items() if what == path]


def followed() -> Followed:
    batch = Followed()
    batch.on_start()
    return batch


def test_both_files_come_whole_in_pieces() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    batch.update(task, TaskState.FINISHED)
    batch.answer_all(b"out" * 100, b"err" * 50, piece=7)

    assert batch.output == {"stdout": b"out" * 100, "stderr": b"err" * 50}
    assert batch.outcome == "finished"
    assert batch.timers == {}


def test_what_was_read_before_the_end_does_not_count_as_the_whole() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    (early,) = batch.wanted("stdout")
    batch.update(task, TaskState.FINISHED)
    batch.bring(early, b"")  # the agent read before the task wrote its last words

    assert batch.outcome == ""
    batch.answer_all(b"last words")
    assert batch.output == {"stdout": b"last words"}
    assert batch.outcome == "finished"


def test_an_answer_that_comes_twice_is_taken_once() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    (first,) = batch.wanted("stdout")
    batch.reads[first], again = batch.reads[first], batch.reads[first]
    batch.bring(first, b"x" * 10, piece=5)
    batch.reads[first] = again
    batch.bring(first, b"x" * 10, piece=5)
    batch.update(task, TaskState.FINISHED)
    batch.answer_all(b"x" * 10)

    assert batch.output == {"stdout": b"x" * 10}


def test_a_file_that_does_not_grow_is_looked_at_less_and_less_often() -> None:
    batch = followed()
    batch.update(batch.launch(), TaskState.RUNNING)
    waits = []
    for _ in range(8):
        batch.answer_all(b"")
        waits.append(batch.timers["stdout/t.0"])
        batch.fire()

    assert waits == [0.05, 0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0]


def test_an_agent_that_is_away_is_asked_again_and_looked_for() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    for _ in range(20):
        batch.refuse_all()
        batch.fire()
    batch.update(task, TaskState.RUNNING, Reason.RECONCILIATION)
    batch.answer_all(b"here again")

    assert set(batch.reconciled) == {task}
    assert batch.output == {"stdout": b"here again"}


def test_the_output_of_a_task_whose_agent_stays_away_is_given_up() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    batch.update(task, TaskState.FINISHED)
    times = 0
    while not batch.outcome:
        batch.reads.clear()
        batch.fire()
        times += 1

    assert 1 < times <= GIVE_UP_AFTER + 1


def test_a_task_that_became_unreachable_runs_elsewhere_and_its_old_output_holds_nobody_up() -> None:
    batch = followed()
    lost = batch.launch("a")
    batch.update(lost, TaskState.RUNNING)
    batch.update(lost, TaskState.UNREACHABLE)
    again = batch.launch("b")
    batch.update(again, TaskState.RUNNING)
    batch.update(again, TaskState.FINISHED)
    for operation_id in [name for name in batch.reads if name.endswith(again)]:
        batch.bring(operation_id, b"")
    for _ in range(GIVE_UP_AFTER + 2):
        batch.refuse_all()
        batch.fire()

    assert again != lost
    assert batch.outcome == "finished"


def test_an_interrupt_kills_first_and_leaves_at_the_second() -> None:
    batch = followed()
    task = batch.launch()
    batch.update(task, TaskState.RUNNING)
    batch.on_posted(INTERRUPT)

    assert batch.killed == [task]
    assert batch.outcome == ""
    batch.on_posted(INTERRUPT)
    assert batch.outcome == "failed: interrupted"
