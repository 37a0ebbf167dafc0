"""A batch, walked through by hand and at random."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesos_actor.actors.core.validation import task_error
from mesos_actor.actors.frameworks import batch_state
from mesos_actor.actors.frameworks.batch_state import INDEX, MAX_LOSSES, BatchState
from mesos_actor.actors.frameworks.specs import batch_spec
from mesos_actor.actors.ids import AgentId, OfferId, Role, TaskId
from mesos_actor.actors.messages.values import Offer, Status, Task
from mesos_actor.actors.resources import Attributes, Resources
from mesos_actor.actors.task import Source, TaskState


def offer(text: str = "cpus:4;mem:1024;ports:[100-199]", attributes: str = "") -> Offer:
    return Offer(
        offer_id=OfferId("o"),
        agent_id=AgentId("a"),
        hostname="h",
        role=Role("*"),
        resources=Resources.parse(text),
        attributes=Attributes.parse(attributes) if attributes else Attributes(),
    )


def status(task: Task | TaskId, state: TaskState, message: str = "") -> Status:
    task_id = task.task_id if isinstance(task, Task) else task
    return Status(task_id=task_id, state=state, source=Source.AGENT, message=message)


def state(*tasks: dict[str, Any], kept: dict[str, bytes] | None = None) -> BatchState:
    return BatchState(batch_spec({"name": "b", "task": [{"command": ["x"], "mem": 0, **t} for t in tasks]}), kept)


def ids(tasks: list[Task]) -> list[str]:
    return [task.task_id for task in tasks]


def test_instances_fill_an_offer_and_the_rest_waits() -> None:
    batch = state({"name": "t", "instances": 6})

    first = batch.place(offer())

    assert ids(first) == ["t.0", "t.1", "t.2", "t.3"]
    assert first[1].command is not None and first[1].command.env == {INDEX: "1"}
    assert batch.wants_offers()
    assert ids(batch.place(offer())) == ["t.4", "t.5"]
    assert not batch.wants_offers()


def test_a_group_waits_for_the_groups_it_comes_after() -> None:
    batch = state({"name": "map", "instances": 2}, {"name": "reduce", "after": ["map"]})
    maps = batch.place(offer())

    batch.note(status(maps[0], TaskState.FINISHED))

    assert batch.place(offer()) == []
    batch.note(status(maps[1], TaskState.FINISHED))
    (reduce,) = batch.place(offer())
    batch.note(status(reduce, TaskState.FINISHED))
    assert batch.outcome == "finished"
    assert batch.progress() == [("map", 2, 0, 2), ("reduce", 1, 0, 1)]


def test_a_failure_is_tried_again_as_often_as_allowed() -> None:
    batch = state({"name": "t", "retries": 1})
    (first,) = batch.place(offer())

    batch.note(status(first, TaskState.FAILED, "status 1"))
    (second,) = batch.place(offer())
    batch.note(status(second, TaskState.FAILED, "status 2"))

    assert ids([first, second]) == ["t.0", "t.0.1"]
    assert batch.outcome == "failed: t[0] FAILED: status 2"
    assert not batch.wants_offers()


def test_a_lost_task_is_tried_again_without_counting() -> None:
    batch = state({"name": "t"})
    for lost in (TaskState.DROPPED, TaskState.UNREACHABLE, TaskState.GONE, TaskState.UNKNOWN):
        (task,) = batch.place(offer())
        assert batch.note(status(task, lost))

    (task,) = batch.place(offer())
    batch.note(status(task, TaskState.FINISHED))
    assert batch.outcome == "finished"


def test_a_former_attempt_that_comes_back_is_not_wanted() -> None:
    batch = state({"name": "t"})
    (first,) = batch.place(offer())
    batch.note(status(first, TaskState.UNREACHABLE))
    batch.place(offer())

    assert not batch.note(status(first, TaskState.RUNNING))


def test_published_ports_are_the_tasks() -> None:
    publish = ["PORT1:80", "PORT0:81/udp", "150:82", "101:83"]
    container = {"network": "bridge", "publish": publish}
    batch = state({"name": "t", "instances": 2, "ports": 2, "container": container})
    (task,) = batch.place(offer("cpus:4;mem:1024;ports:[100-199]"))  # the second one would need 150 too

    assert task.command is not None
    assert task.command.container is not None
    assert task.resources == Resources.parse("cpus:1;ports:[100-102,150-150]")
    assert [(one.host_port, one.container_port, one.protocol) for one in task.command.container.ports] == [
        (102, 80, "tcp"),
        (100, 81, "udp"),
        (150, 82, "tcp"),
        (101, 83, "tcp"),
    ]
    assert {name: value for name, value in task.command.env.items() if name.startswith("PORT")} == {
        "PORT0": "100",
        "PORT1": "102",
    }
    assert task_error(task, (), ()) is None
    elsewhere = state({"name": "t", "container": {"network": "bridge", "publish": ["250:1"]}})
    assert elsewhere.place(offer()) == []
    reserved = elsewhere.place(offer("cpus(web):4;ports:[100-199];ports(web):[250-250]"))
    assert [str(task.resources) for task in reserved] == ["cpus(web):1;ports(web):[250-250]"]


def test_constraints_and_ports_are_kept() -> None:
    batch = state({"name": "t", "constraints": ["rack==r1"], "ports": 2})

    assert batch.place(offer(attributes="rack:r2")) == []
    assert batch.refusal(offer(attributes="rack:r2")) == "rack==r1: the agent has rack r2"
    (task,) = batch.place(offer(attributes="rack:r1"))
    assert task.command is not None
    assert task.command.env == {INDEX: "0", "PORT0": "100", "PORT1": "101"}
    assert task.resources == Resources.parse("cpus:1;ports:[100-101]")


def test_limits_are_kept_for_an_agent_that_keeps_them() -> None:
    batch = state({"name": "t", "limits": {"cpus": 2}}, {"name": "free"})
    bare, walled = (replace(offer(), isolation=isolation) for isolation in ("process", "cgroups"))

    assert ids(batch.place(bare)) == ["free.0"]
    assert batch.refusal(bare) == "isolation!=process: the agent has isolation process"
    assert ids(batch.place(walled)) == ["t.0"]


def test_a_scheduler_that_comes_back_asks_about_what_it_had_launched() -> None:
    batch = state({"name": "t", "instances": 3})
    tasks = batch.place(offer("cpus:2"))
    batch.note(status(tasks[0], TaskState.FINISHED))

    again = state({"name": "t", "instances": 3}, kept=dict(batch.take_changes()))

    assert again.launched() == [("t.1", "a")]
    assert ids(again.place(offer())) == ["t.2"]
    again.note(status(tasks[1], TaskState.UNKNOWN))
    assert ids(again.place(offer())) == ["t.1.1"]


def test_a_scheduler_that_comes_back_between_two_groups_launches_the_second_once() -> None:
    """Found by `mesos-actor chaos`: each of its instances was launched twice, by attempts of their own."""
    groups = {"name": "a"}, {"name": "b", "instances": 2, "after": ["a"]}
    batch = state(*groups)
    (task,) = batch.place(offer())
    batch.note(status(task, TaskState.FINISHED))

    again = state(*groups, kept=dict(batch.take_changes()))

    assert ids(again.place(offer())) == ["b.0", "b.1"]


@given(st.data())
def test_whatever_happens_each_instance_finishes_exactly_once(data: st.DataObject) -> None:
    batch = state({"name": "a", "instances": 3, "retries": 1000}, {"name": "b", "instances": 2, "after": ["a"]})
    kept: dict[str, bytes] = {}
    finished: list[tuple[str, int]] = []
    for _ in range(200):
        if batch.outcome:
            break
        batch.place(offer(data.draw(st.sampled_from(["cpus:1", "cpus:2", "cpus:8"]))))
        kept.update(batch.take_changes())
        if data.draw(st.booleans()) and batch.running:
            task_id = data.draw(st.sampled_from(sorted(batch.running)))
            outcomes = [TaskState.FINISHED, TaskState.GONE, TaskState.RUNNING]
            if task_id.startswith("a"):
                outcomes.append(TaskState.FAILED)
            new = data.draw(st.sampled_from(outcomes))
            if new is TaskState.FINISHED:
                finished.append(batch.running[task_id])
            batch.note(status(task_id, new))
            kept.update(batch.take_changes())
        if data.draw(st.integers(0, 9)) == 0:
            batch = BatchState(batch.spec, kept)
        assert len(set(batch.running.values())) == len(batch.running), "an instance runs once at a time"

    assert len(finished) == len(set(finished))
    if batch.outcome:
        assert batch.outcome == "finished"
        assert sorted(finished) == [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("b", 1)]


def test_no_more_is_launched_at_once_than_one_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_state, "MAX_TASKS_BYTES", 10_000)
    batch = state({"name": "t", "instances": 3, "command": ["x", "y" * 4_000]})

    assert ids(batch.place(offer())) == ["t.0", "t.1"]
    assert batch.cut_short and batch.wants_offers()
    assert ids(batch.place(offer())) == ["t.2"]
    assert not batch.cut_short


def test_a_task_that_no_message_holds_fails_the_batch_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_state, "MAX_TASKS_BYTES", 10_000)
    batch = state({"name": "s"}, {"name": "t", "command": ["x", "y" * 10_001]})

    assert ids(batch.place(offer())) == ["s.0"]
    assert batch.outcome.startswith("failed: t[0] ERROR: its task takes 10")
    assert batch.outcome.endswith("put large arguments into files that the agents can read")
    assert not batch.wants_offers()


def test_an_instance_that_is_always_lost_fails_the_batch() -> None:
    batch = state({"name": "t"})

    for _ in range(MAX_LOSSES):
        (task,) = batch.place(offer())
        batch.note(status(task, TaskState.GONE))
    batch = state({"name": "t"}, kept=dict(batch.take_changes()))  # a restart forgets no loss
    assert batch.outcome == ""
    batch.note(status(TaskId(f"t.0.{MAX_LOSSES - 1}"), TaskState.GONE))

    assert batch.outcome.startswith(f"failed: t[0] was lost {MAX_LOSSES + 1} times in a row; last GONE")
