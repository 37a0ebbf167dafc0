"""Update streams: kept before told, in order, repeated until acknowledged."""

from __future__ import annotations

import pytest

from mesos_actor.actors.core.updates import MAX_PENDING, WINDOW, Stream, UpdateStreams, Verdict
from mesos_actor.actors.ids import ContainerId, FrameworkId, TaskId, UpdateId
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import Status
from mesos_actor.actors.task import Source, TaskState

F, T, RUN = FrameworkId("f"), TaskId("t"), ContainerId("t.0")
RETRY = 10


def make(connected: bool = True) -> tuple[UpdateStreams, Stream]:
    streams = UpdateStreams(retry_us=RETRY, retry_max_us=4 * RETRY)
    streams.connected = connected
    return streams, streams.open(F, T, RUN)


def add(streams: UpdateStreams, stream: Stream, state: TaskState, now_us: int = 0, name: str = "") -> Update | None:
    status = Status(T, state, Source.AGENT, update_id=stream.next_update_id())
    return streams.add(stream, status, now_us, name)


def seen(updates: list[Update]) -> list[tuple[str, str]]:
    return [(u.status.update_id, u.status.after_update_id) for u in updates]


def test_updates_are_pipelined_and_name_the_one_before() -> None:
    streams, stream = make()

    first = add(streams, stream, TaskState.RUNNING)
    second = add(streams, stream, TaskState.FINISHED)

    assert first is not None and second is not None
    assert seen([first, second]) == [("t.0:0", ""), ("t.0:1", "t.0:0")]
    assert second.latest_state == "FINISHED"


def test_an_acknowledgement_covers_all_before_it_and_the_last_one_closes() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING)
    add(streams, stream, TaskState.FINISHED)

    assert streams.acknowledge(stream, UpdateId("t.0:1"), 1) == []
    assert stream.closed


def test_an_acknowledgement_of_what_does_not_wait_is_ignored() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING)
    streams.acknowledge(stream, UpdateId("t.0:0"), 1)

    assert streams.acknowledge(stream, UpdateId("t.0:0"), 2) is None
    assert streams.acknowledge(stream, UpdateId("other:7"), 2) is None


def test_repeats_start_at_the_oldest_and_their_time_doubles_up_to_the_longest() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING)
    add(streams, stream, TaskState.FINISHED, now_us=3)
    times = []

    for _ in range(4):
        due = streams.next_due_us()
        assert due is not None
        times.append(due)
        assert seen(streams.repeat(due)) == [("t.0:0", ""), ("t.0:1", "t.0:0")]

    assert times == [10, 30, 70, 110]


def test_an_acknowledgement_starts_the_time_of_the_next_anew() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING)
    streams.repeat(10)
    streams.repeat(30)
    add(streams, stream, TaskState.FINISHED, now_us=40)

    streams.acknowledge(stream, UpdateId("t.0:0"), 41)

    assert streams.repeat(50) == []
    assert seen(streams.repeat(51)) == [("t.0:1", "")]


def test_nothing_is_sent_while_the_master_is_away_and_everything_when_it_is_back() -> None:
    streams, stream = make(connected=False)

    assert add(streams, stream, TaskState.RUNNING) is None
    assert add(streams, stream, TaskState.FINISHED) is None
    assert streams.next_due_us() is None
    assert streams.repeat(1_000) == []
    assert seen(streams.resume(2_000)) == [("t.0:0", ""), ("t.0:1", "t.0:0")]


def test_coming_back_repeats_soon_even_what_had_waited_long() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING)
    streams.repeat(10)
    streams.repeat(30)
    streams.pause()

    streams.resume(31)

    assert streams.next_due_us() == 31 + RETRY


def test_the_window_bounds_what_is_in_flight() -> None:
    streams, stream = make()
    sent = [add(streams, stream, TaskState.RUNNING) for _ in range(WINDOW + 2)]

    assert sent[WINDOW:] == [None, None]
    more = streams.acknowledge(stream, UpdateId("t.0:0"), 1)
    assert more is not None
    assert seen(more) == [("t.0:16", "t.0:15")]


def test_verdicts_on_an_executors_update() -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING, name="a")

    assert Verdict.DUPLICATE is streams.verdict(stream, TaskState.RUNNING, "a")
    assert Verdict.NEW is streams.verdict(stream, TaskState.RUNNING, "b")
    for n in range(MAX_PENDING - 1):
        add(streams, stream, TaskState.RUNNING, name=f"n{n}")
    assert Verdict.FULL is streams.verdict(stream, TaskState.RUNNING, "b")
    assert Verdict.NEW is streams.verdict(stream, TaskState.FINISHED, "b")
    add(streams, stream, TaskState.FINISHED, name="b")
    assert Verdict.TOO_LATE is streams.verdict(stream, TaskState.FAILED, "c")


@pytest.mark.parametrize("name", ["", "x"])
def test_a_restored_stream_goes_on_where_its_record_ends(name: str) -> None:
    streams, stream = make()
    add(streams, stream, TaskState.RUNNING, now_us=5, name=name)
    record = streams.save(stream)
    other = UpdateStreams(RETRY, RETRY)

    again = other.restore(record)

    assert record == other.save(again)
    assert again.next_update_id() == "t.0:1"
    assert again.running_since_us == 5
    assert seen(other.resume(9)) == [("t.0:0", "")]


def test_many_streams_share_the_heap_and_closed_ones_leave_it() -> None:
    streams = UpdateStreams(RETRY, RETRY)
    streams.connected = True
    for n in range(100):
        stream = streams.open(F, TaskId(f"t{n}"), ContainerId(f"r{n}"))
        add(streams, stream, TaskState.FINISHED, now_us=n)
        streams.acknowledge(stream, UpdateId(f"r{n}:0"), n)
        streams.drop(stream)

    assert streams.repeat(1_000) == []
    assert streams.next_due_us() is None
    assert streams.streams == {}
