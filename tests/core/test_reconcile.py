"""Portions of answers, and who waits for the registry."""

from __future__ import annotations

import pytest

from mesos_actor.actors.core import reconcile
from mesos_actor.actors.core.entries import MAX_HISTORY, FrameworkEntry, TaskEntry
from mesos_actor.actors.core.liveness import Liveness
from mesos_actor.actors.core.pending import MAX_REQUESTS, Pending, Request
from mesos_actor.actors.core.reconcile import Backlog
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, Node, OperationId, Principal, Role, TaskId
from mesos_actor.actors.messages.clients import WhoLeads
from mesos_actor.actors.messages.registry import CollectRecords
from mesos_actor.actors.messages.scheduler import Teardown
from mesos_actor.actors.task import TaskState
from tests.master_world import ONE, World

COMMAND = CollectRecords(0)


def worlds(*names: str) -> tuple[World, list[FrameworkEntry]]:
    world = World()
    return world, [world.master.roster.frameworks[world.framework(name)] for name in names]


def give(framework: FrameworkEntry, count: int) -> None:
    for n in range(count):
        entry = TaskEntry(
            n, framework.framework_id, TaskId(f"t{n}"), AgentId("a"), Role("*"), ONE, ExecutorId(""), "", {}, 0
        )
        framework.tasks[entry.task_id] = entry


def test_frameworks_share_a_turn() -> None:
    world, [big, small] = worlds("big", "small")
    give(big, 10)
    give(small, 2)
    backlog = Backlog()
    backlog.ask_all(big)
    backlog.ask_all(small)

    turns = []
    while backlog:
        turns.append([f.info.name for f, _ in backlog.answers(world.master.roster, 4, 0)])

    assert turns == [["big", "big", "small", "small"], ["big"] * 4, ["big"] * 4]


def test_a_framework_that_left_is_not_answered() -> None:
    world, [framework] = worlds("f")
    give(framework, 1)
    backlog = Backlog()
    backlog.ask_all(framework)
    backlog.ask(framework.framework_id, [(TaskId("t0"), AgentId(""))])
    world.master.roster.disconnect_framework(framework)

    assert backlog.answers(world.master.roster, 9, 0) == []
    assert not backlog


def test_only_so_many_questions_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "MAX_QUESTIONS", 2)
    world, [framework] = worlds("f")
    backlog = Backlog()
    question = (TaskId("t"), AgentId("a"))

    assert backlog.ask(framework.framework_id, [question] * 2)
    assert not backlog.ask(framework.framework_id, [question])
    assert len(backlog.answers(world.master.roster, 9, 0)) == 2


def test_a_history_keeps_its_beginning_and_its_end() -> None:
    entry = TaskEntry(0, "f", TaskId("t"), AgentId("a"), Role("*"), ONE, ExecutorId(""), "", {}, 0)  # type: ignore[arg-type]

    for n in range(100):
        entry.note(n, TaskState.RUNNING, "", "x" * 1_000)

    assert (
        len(entry.history),
        entry.history[0][1],
        entry.history[-1][0],
        len(entry.history[-1][3]),
    ) == (MAX_HISTORY, "STAGING", 99, 500)


# -- pending


def request(name: str, kind: str = "who") -> Request:
    message = WhoLeads() if kind == "who" else Teardown("f")  # type: ignore[arg-type]
    return Request(Address(f"{name}/x"), Principal("p"), message)


def test_a_repeat_takes_the_place_of_what_was_sent_before() -> None:
    pending = Pending(9, 1_000)
    operation = pending.open("s", OperationId("o"), COMMAND, 0)
    assert operation is not None

    for name, kind in (("a", "who"), ("b", "who"), ("a", "down"), ("a", "who")):
        pending.join(operation, request(name, kind))

    assert [("b/x", WhoLeads), ("a/x", Teardown), ("a/x", WhoLeads)] == [
        (r.sender, type(r.message)) for r in operation.requests
    ]


def test_only_so_many_requests_wait_for_one_operation() -> None:
    pending = Pending(9, 1_000)
    operation = pending.open("s", OperationId("o"), COMMAND, 0)
    assert operation is not None

    for n in range(MAX_REQUESTS + 1):
        pending.join(operation, request(f"n{n}"))

    assert (len(operation.requests), operation.requests[0].sender) == (MAX_REQUESTS, "n1/x")


def test_operations_are_bounded_closed_once_and_overdue_in_order() -> None:
    pending = Pending(2, 1_000)
    first, second = (pending.open(s, OperationId(s), COMMAND, at) for s, at in (("a", 0), ("b", 500)))

    assert pending.open("c", OperationId("c"), COMMAND, 500) is None
    assert (pending.about("a"), 1_000) == (first, pending.next_deadline_us())
    assert [first] == pending.overdue(1_000)
    assert pending.next_deadline_us() == 1_500
    assert (second, None) == (pending.close(OperationId("b")), pending.close(OperationId("b")))
    assert (len(pending), pending.about("b")) == (1, None)


def test_nobody_waits_behind_a_lost_link() -> None:
    pending = Pending(2, 1_000)
    operation = pending.open("s", OperationId("o"), COMMAND, 0)
    assert operation is not None
    pending.join(operation, request("a"))
    pending.join(operation, request("b"))

    pending.forget_node(Node("a"))

    assert [r.sender for r in operation.requests] == ["b/x"]
    pending.dismiss(operation)
    pending.forget_node(Node("b"))
    assert operation.requests == []


# -- windows


def test_windows_pass_in_the_order_they_opened() -> None:
    liveness = Liveness(3)
    for n, name in enumerate("abc"):
        liveness.open_window(AgentId(name), n)
    liveness.watch(AgentId("b"))
    liveness.forget(AgentId("unknown"))

    assert liveness.overdue(2, 1) == ["a"]
    assert liveness.overdue(2, 9) == ["a", "c"]
    assert liveness.missed(AgentId("a")) == 0
