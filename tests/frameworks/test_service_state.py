"""A service, walked through by hand."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.frameworks import service_state
from mesos_actor.actors.frameworks.service_state import ServiceState
from mesos_actor.actors.frameworks.specs import ServiceSpec, service_spec
from mesos_actor.actors.ids import AgentId, OfferId, Role, TaskId
from mesos_actor.actors.messages.values import Offer, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_sizes import task_bytes
from mesos_actor.actors.task import Source, TaskState

S = 1_000_000


def spec(**fields: Any) -> ServiceSpec:
    return service_spec({"name": "web", "command": ["serve"], "instances": 3, "mem": 0, "ports": 1, **fields})


def offer() -> Offer:
    resources = Resources.parse("cpus:8;ports:[100-199]")
    return Offer(offer_id=OfferId("o"), agent_id=AgentId("a"), hostname="h", role=Role("*"), resources=resources)


def note(service: ServiceState, task_id: str, state: TaskState, now_us: int) -> bool:
    return service.note(Status(task_id=TaskId(task_id), state=state, source=Source.AGENT), now_us)


def running(**fields: Any) -> ServiceState:
    """Three healthy copies at second 10."""
    service = ServiceState(spec(**fields))
    for task in service.place(offer(), S):
        note(service, task.task_id, TaskState.RUNNING, S)
    return service


def test_every_place_gets_a_task_with_a_port_of_its_own() -> None:
    tasks = ServiceState(spec()).place(offer(), 0)

    assert [task.task_id for task in tasks] == ["web.0.1", "web.1.1", "web.2.1"]
    assert [task.command.env["PORT0"] for task in tasks if task.command] == ["100", "101", "102"]


def test_a_copy_that_dies_is_started_again_after_a_growing_wait() -> None:
    service = running()

    note(service, "web.1.1", TaskState.FAILED, 10 * S)
    assert service.place(offer(), 10 * S) == []
    assert service.next_wake_us(10 * S) == 11 * S
    (second,) = service.place(offer(), 11 * S)
    note(service, second.task_id, TaskState.FAILED, 12 * S)

    assert second.task_id == "web.1.2"
    assert service.next_wake_us(12 * S) == 14 * S


def test_a_copy_that_lives_for_long_has_not_failed_lately() -> None:
    service = running(backoff_max="30s")
    note(service, "web.1.1", TaskState.FAILED, 10 * S)
    (second,) = service.place(offer(), 11 * S)
    (copy,) = (copy for copy in service.copies.values() if copy.task_id == second.task_id)
    note(service, second.task_id, TaskState.RUNNING, 12 * S)

    assert service.failures(copy, 42 * S) == 1
    assert service.failures(copy, 43 * S) == 0
    note(service, second.task_id, TaskState.FAILED, 43 * S)
    assert service.failures(copy, 43 * S) == 1
    assert service.next_wake_us(43 * S) == 44 * S


def test_a_lost_copy_is_replaced_at_once_and_not_wanted_back() -> None:
    service = running()

    note(service, "web.2.1", TaskState.UNREACHABLE, 10 * S)

    assert [task.task_id for task in service.place(offer(), 10 * S)] == ["web.2.2"]
    assert not note(service, "web.2.1", TaskState.RUNNING, 11 * S)


def test_a_changed_service_is_replaced_one_copy_at_a_time() -> None:
    service = running()
    service.apply(spec(env={"V": "2"}))
    replaced = []
    now = 10 * S
    for _ in range(3):
        ((task_id, _agent),) = service.to_kill(now)
        assert service.to_kill(now) == []
        note(service, task_id, TaskState.KILLED, now)
        (new,) = service.place(offer(), now)
        note(service, new.task_id, TaskState.RUNNING, now)
        assert service.to_kill(now + S) == []
        now += 2 * S
        replaced.append(task_id)

    assert replaced == ["web.0.1", "web.1.1", "web.2.1"]
    assert service.to_kill(now) == []


def test_scaling_replaces_nothing_and_ends_only_what_is_too_many() -> None:
    service = running()

    service.scale(1)
    assert service.to_kill(10 * S) == [("web.1.1", "a"), ("web.2.1", "a")]
    for task_id in ("web.1.1", "web.2.1"):
        note(service, task_id, TaskState.KILLED, 11 * S)
    assert service.place(offer(), 11 * S) == []
    service.scale(2)

    assert [task.task_id for task in service.place(offer(), 12 * S)] == ["web.1.2"]


def test_what_is_kept_brings_the_service_back() -> None:
    service = running()
    kept = dict(service.take_changes())

    again = ServiceState(spec(instances=99), kept)

    assert sorted(again.launched()) == [("web.0.1", "a"), ("web.1.1", "a"), ("web.2.1", "a")]
    assert again.spec == spec()
    assert again.place(offer(), 0) == []


def test_removal_ends_every_copy_and_then_the_service() -> None:
    service = running()
    service.remove()
    for task_id, _agent in service.to_kill(10 * S):
        assert not service.finished
        note(service, task_id, TaskState.KILLED, 11 * S)

    assert service.finished
    assert service.place(offer(), 12 * S) == []


def test_no_more_copies_are_launched_at_once_than_one_message_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_state, "MAX_TASKS_BYTES", 10_000)
    service = ServiceState(spec(env={"LONG": "y" * 3_500}))

    first, second = service.place(offer(), 0), service.place(offer(), 0)

    assert [task.task_id for task in first + second] == ["web.0.1", "web.1.1", "web.2.1"]
    assert len(first) == 2
    assert sum(map(task_bytes, first)) <= 10_000
