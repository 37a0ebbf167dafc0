"""What a master brings up because nothing was heard of it."""

from __future__ import annotations

from mesos_actor.actors.core.doubts import MAX_DOUBTS, STAGING_DOUBT_US, doubtful_tasks, due_kills, idle_executors
from mesos_actor.actors.core.entries import AgentEntry, ExecutorEntry, TaskEntry
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, Role, TaskId
from mesos_actor.actors.messages.registry import AgentRecord
from mesos_actor.actors.messages.values import AgentInfo, Command, ExecutorInfo
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

F = FrameworkId("f")
E = ExecutorId("e")


def agent() -> AgentEntry:
    info = AgentInfo("host", Address("tcp://a:1/agent"), Resources.parse("cpus:4"))
    return AgentEntry(1, AgentRecord(AgentId("a"), info, "r"))


def enter(
    agent: AgentEntry, name: str, at_us: int, state: TaskState = TaskState.STAGING, executor: str = ""
) -> TaskEntry:
    ids = F, TaskId(name), agent.agent_id
    task = TaskEntry(1, *ids, Role("*"), Resources(), ExecutorId(executor), name, {}, at_us, state)
    agent.tasks[task] = None
    return task


def test_only_tasks_that_are_silent_for_long_are_asked_about_and_again_after_as_long() -> None:
    a = agent()
    enter(a, "silent", 0)
    enter(a, "young", STAGING_DOUBT_US)
    enter(a, "running", 0, TaskState.RUNNING)

    assert doubtful_tasks(a, STAGING_DOUBT_US) == [(F, "silent")]
    assert doubtful_tasks(a, STAGING_DOUBT_US + 1) == []
    assert doubtful_tasks(a, 2 * STAGING_DOUBT_US) == [(F, "young"), (F, "silent")]


def test_of_very_many_tasks_each_has_its_turn() -> None:
    a = agent()
    for number in range(2 * MAX_DOUBTS):
        enter(a, f"t{number}", 0)

    asked = doubtful_tasks(a, STAGING_DOUBT_US) + doubtful_tasks(a, STAGING_DOUBT_US + 1)

    assert len({task_id for _, task_id in asked}) == 2 * MAX_DOUBTS


def test_an_executor_is_idle_when_no_task_of_it_lives() -> None:
    a = agent()
    assert idle_executors(a) == []
    a.executors[F] = {E: ExecutorEntry(ExecutorInfo(E, Command(("x",))), Role("*"))}
    task = enter(a, "t", 0, TaskState.RUNNING, "e")

    assert idle_executors(a) == []
    task.state = TaskState.FINISHED
    assert idle_executors(a) == [(F, E)]


def test_of_very_many_kills_each_has_its_turn() -> None:
    a = agent()
    for number in range(MAX_DOUBTS + 1):
        a.kills[F, TaskId(f"t{number}")] = number

    first, second = due_kills(a), due_kills(a)

    assert (len(first), first[0]) == (MAX_DOUBTS, (F, "t0", 0))
    assert (F, f"t{MAX_DOUBTS}", MAX_DOUBTS) == second[0]
