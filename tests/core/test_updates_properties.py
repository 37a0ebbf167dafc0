"""The laws of update streams, under any loss, any restart, any order of acknowledgements.

Safety: a framework that drops repeats, and ignores what comes after something it never saw, sees the updates of a task
in order; what was acknowledged and saved is never sent again. Liveness: once the network heals, every update has been
seen and the stream is closed.
"""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.updates import Stream, UpdateStreams, Verdict
from mesos_actor.actors.ids import ContainerId, FrameworkId, TaskId, UpdateId
from mesos_actor.actors.messages.records import StreamRecord
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Source, TaskState

F, T, RUN = FrameworkId("f"), TaskId("t"), ContainerId("r")
STEPS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "news",
                "end",
                "deliver",
                "lose",
                "answer",
                "lose-answer",
                "wait",
                "save",
                "pause",
                "resume",
                "crash",
                "framework-crash",
            ]
        ),
    ),
    max_size=60,
)


class Link:
    """An agent's streams, a framework, and two first-in first-out links that lose what the test wants lost."""

    def __init__(self) -> None:
        self.now_us = 0
        self.record: StreamRecord | None = None
        self.forgotten = False
        self.to_framework: deque[Update] = deque()
        self.to_agent: deque[UpdateId] = deque()
        self.made: list[UpdateId] = []
        self.seen_ever: set[UpdateId] = set()
        self.seen: list[UpdateId] = []
        self.safely_acknowledged = -1
        self.acknowledged = -1
        self.streams, self.stream = self.fresh()
        self.streams.resume(0)

    def fresh(self) -> tuple[UpdateStreams, Stream]:
        streams = UpdateStreams(10, 40)
        stream = streams.restore(self.record) if self.record is not None else streams.open(F, T, RUN)
        return streams, stream

    def send(self, updates: list[Update]) -> None:
        for update in updates:
            assert self.made.index(update.status.update_id) > self.safely_acknowledged
        self.to_framework.extend(updates)

    def save(self) -> None:
        self.record = self.streams.save(self.stream)
        self.safely_acknowledged = self.acknowledged

    def tell(self, state: TaskState) -> None:
        if self.streams.verdict(self.stream, state, "") is not Verdict.NEW:
            return
        update_id = self.stream.next_update_id()
        self.made.append(update_id)
        status = Status(T, state, Source.AGENT, update_id=update_id)
        update = self.streams.add(self.stream, status, self.now_us)
        self.save()
        self.send([update] if update is not None else [])

    def deliver(self) -> None:
        if self.to_framework:
            status = self.to_framework.popleft().status
            if status.after_update_id and status.after_update_id not in self.seen:
                return
            if status.update_id not in self.seen:
                self.seen.append(status.update_id)
                self.seen_ever.add(status.update_id)
            self.to_agent.append(status.update_id)

    def answer(self) -> None:
        if self.to_agent and not self.forgotten:
            update_id = self.to_agent.popleft()
            updates = self.streams.acknowledge(self.stream, update_id, self.now_us)
            if updates is None:
                return
            self.acknowledged = max(self.acknowledged, self.made.index(update_id))
            self.send(updates)
            if self.stream.closed:
                self.streams.drop(self.stream)
                self.record, self.forgotten = None, True
                self.safely_acknowledged = self.acknowledged

    def step(self, what: str) -> None:
        if what == "news":
            self.tell(TaskState.RUNNING)
        elif what == "end":
            self.tell(TaskState.FINISHED)
        elif what == "deliver":
            self.deliver()
        elif what == "lose" and self.to_framework:
            self.to_framework.popleft()
        elif what == "answer":
            self.answer()
        elif what == "lose-answer" and self.to_agent:
            self.to_agent.popleft()
        elif what == "wait":
            self.now_us += 10
            self.send(self.streams.repeat(self.now_us))
        elif what == "save" and self.stream.key in self.streams.unsaved:
            self.save()
        elif what == "pause":
            self.streams.pause()
        elif what == "resume":
            self.send(self.streams.resume(self.now_us))
        elif what == "crash" and self.record is not None:
            self.streams, self.stream = self.fresh()
            self.acknowledged = self.safely_acknowledged
            self.send(self.streams.resume(self.now_us))
        elif what == "framework-crash":
            self.seen = []

    def check(self) -> None:
        assert sorted(self.seen, key=self.made.index) == self.seen


@given(STEPS)
def test_every_update_is_seen_in_order_and_nothing_acknowledged_comes_again(steps: list[str]) -> None:
    link = Link()
    for step in steps:
        link.step(step)
        link.check()

    link.step("end")
    link.send(link.streams.resume(link.now_us))
    for _ in range(200):
        for step in ("deliver", "answer", "wait"):
            link.step(step)
            link.check()

    assert link.forgotten
    assert set(link.made) == link.seen_ever


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["add", "ack", "repeat"])), max_size=80))
def test_one_timer_is_enough_for_all_streams(steps: list[tuple[int, str]]) -> None:
    """As long as something is in flight, `next_due_us` says so, and never later than its due time."""
    streams = UpdateStreams(10, 40)
    streams.resume(0)
    all_streams = [streams.open(F, TaskId(str(n)), ContainerId(str(n))) for n in range(5)]
    for now_us, (n, what) in enumerate(steps):
        stream = all_streams[n]
        if what == "add" and streams.verdict(stream, TaskState.RUNNING, "") is Verdict.NEW:
            status = Status(stream.task_id, TaskState.RUNNING, Source.AGENT, update_id=stream.next_update_id())
            streams.add(stream, status, now_us)
        elif what == "ack" and stream.pending:
            streams.acknowledge(stream, stream.pending[0].update_id, now_us)
        elif what == "repeat":
            streams.repeat(now_us)
        waiting = [s.due_us for s in all_streams if s.pending]
        due = streams.next_due_us()

        assert not waiting or (due is not None and due <= min(waiting))
