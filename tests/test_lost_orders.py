"""Master and agent find out about orders that never arrived: what each asks, and what the other answers."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.agent import END_POLLS
from mesos_actor.actors.core.doubts import STAGING_DOUBT_US
from mesos_actor.actors.ids import AgentId, ContainerId, ExecutorId, FrameworkId, OperationId, TaskId, Term
from mesos_actor.actors.messages.agents import (
    AcknowledgeUpdate,
    KillTask,
    Ping,
    Pong,
    ReconcileTasks,
    RunTasks,
    ShutdownAgent,
    ShutdownFramework,
)
from mesos_actor.actors.messages.clients import MarkAgentGone
from mesos_actor.actors.messages.containers import ContainerExited, KillContainer
from mesos_actor.actors.messages.executors import (
    ExecutorRegistered,
    KillExecutorTask,
    LaunchTasks,
    ReconcileExecutor,
    RegisterExecutor,
)
from mesos_actor.actors.messages.scheduler import ExecutorLost, Kill, Update
from mesos_actor.actors.messages.values import Command, ExecutorInfo
from mesos_actor.actors.task import TaskState
from tests.master_world import World, task
from tests.test_agent import EXECUTOR, M1, Bench, F, command, custom, launch, only, registered, run, start

A = "tcp://a:1/agent"
FRAMEWORK = "peer:f/framework"


# -- the master asks ---------------------------------------------------------------------------------------------------


def test_a_task_that_stays_staging_is_asked_about() -> None:
    world = World()
    framework, _ = world.run()

    world.advance(STAGING_DOUBT_US // 1_000 - 1_000)
    assert world.take(A, ReconcileTasks) == []
    world.advance(6_000)

    asked = world.take(A, ReconcileTasks)
    assert {message.tasks for message in asked} == {((framework, TaskId("t")),)}


def test_a_task_that_runs_is_not_asked_about() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING)

    world.advance(60_000)

    assert world.take(A, ReconcileTasks) == []


def test_an_executor_without_tasks_is_asked_about_and_forgotten_when_it_is_gone() -> None:
    world = World()
    agent_id, framework = world.agent(), world.framework()
    executor = ExecutorInfo(ExecutorId("e"), Command(("run",)))
    world.launch(framework, world.offers(), task("t", executor=executor))
    world.update(framework, agent_id, TaskState.FINISHED)
    world.take(A, RunTasks)

    world.advance(6_000)

    asked = world.take(A, ReconcileTasks)
    assert {message.executors for message in asked} == {((framework, ExecutorId("e")),)}
    world.deliver(A, ExecutorLost(agent_id, ExecutorId("e"), framework_id=framework))
    assert world.master.roster.agents[agent_id].executors == {}


def test_a_kill_is_repeated_with_the_pings_until_the_task_has_ended() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING)
    world.deliver(FRAMEWORK, Kill(framework, TaskId("t"), grace_ms=7))
    world.take(A, KillTask)

    world.advance(5_500)
    assert KillTask(world.master.term, framework, TaskId("t"), 7) in world.take(A, KillTask)
    world.update(framework, agent_id, TaskState.KILLED, number=1, after=0)
    world.acknowledge(framework, agent_id, number=1)
    world.advance(20_000)

    assert world.take(A, KillTask) == []


def test_an_agent_that_serves_a_removed_framework_is_told_again() -> None:
    world = World()
    framework, agent_id = world.run()

    world.deliver(A, Pong(agent_id, (framework,)))
    assert world.take(A, ShutdownFramework) == []
    world.deliver(A, Pong(agent_id, (framework, FrameworkId("gone"))))

    assert world.take(A, ShutdownFramework) == [ShutdownFramework(world.master.term, FrameworkId("gone"))]


def test_an_update_that_was_acknowledged_is_answered_for_the_framework() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING)
    world.acknowledge(framework, agent_id)
    world.take(A, AcknowledgeUpdate)
    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)
    world.updates()

    world.update(framework, agent_id, TaskState.RUNNING, latest="FINISHED")  # the agent never heard of it

    assert [message.update_id for message in world.take(A, AcknowledgeUpdate)] == ["t.c:0"]
    assert world.updates() == []
    world.framework("f", framework, node="peer:new")
    assert [status.state for status in world.updates("new")] == [TaskState.FINISHED]


def test_an_agent_that_is_marked_gone_shall_end_its_tasks() -> None:
    world = World()
    agent_id = world.agent()

    world.deliver("peer:cli/client", MarkAgentGone(OperationId("o"), agent_id))

    assert world.one(A, ShutdownAgent).end_tasks


# -- the agent answers -------------------------------------------------------------------------------------------------


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.tell(M1, registered())
    return bench


def test_an_agent_owns_up_to_what_it_lacks_and_says_nothing_of_what_it_has(bench: Bench) -> None:
    start(bench, command("here"))

    question = ReconcileTasks(Term(3), ((F, TaskId("here")), (F, TaskId("lost"))), ((F, ExecutorId("e")),))
    messages = bench.tell(M1, question)

    told = [m.status for m in messages if isinstance(m, Update)]
    assert [(status.task_id, status.state) for status in told] == [("lost", TaskState.DROPPED)]
    assert told[0].update_id
    assert only(ExecutorLost, messages).executor_id == "e"
    assert [m for m in bench.tell(M1, question) if isinstance(m, Update)] == []  # that is under way


def test_an_agent_names_whom_it_serves_in_its_answer_to_a_ping(bench: Bench) -> None:
    start(bench, command("t"))

    assert bench.tell(M1, Ping(Term(3))) == [Pong(AgentId("c-S1"), (F,))]
    bench.tell(M1, ShutdownFramework(Term(3), F))
    assert bench.tell(M1, Ping(Term(3))) == [Pong(AgentId("c-S1"))]


def test_an_agent_that_was_written_off_ends_its_tasks_and_then_itself(bench: Bench) -> None:
    container = start(bench, command("t"))

    messages = bench.tell(M1, ShutdownAgent("gone", end_tasks=True))

    assert only(KillContainer, messages).container_id == container
    assert bench.stopped() == []
    bench.fire("end")
    assert bench.stopped() == []
    bench.port(ContainerExited(container, signal=15, killed=True))
    bench.fire("end")
    assert bench.stopped() == ["gone"]


def test_an_agent_does_not_wait_for_ever_for_its_tasks_to_end(bench: Bench) -> None:
    start(bench, command("t"))
    bench.tell(M1, ShutdownAgent("gone", end_tasks=True))
    assert bench.tell(M1, run(command("more"))) == []

    for _ in range(END_POLLS - 1):
        bench.fire("end")
        assert bench.stopped() == []
    bench.fire("end")

    assert bench.stopped() == ["gone"]


def register(container: ContainerId, *unheard: str) -> RegisterExecutor:
    return RegisterExecutor(F, ExecutorId("e"), container, tuple(map(TaskId, unheard)))


def test_an_executor_that_says_nothing_is_asked_and_given_what_it_lacks(bench: Bench) -> None:
    container = launch(bench, custom("t"))
    bench.tell(EXECUTOR, register(container), f"executor:{container}")
    doubt = f"doubt/{container}"

    assert bench.fire(doubt) == [ReconcileExecutor()]
    answered = bench.tell(EXECUTOR, register(container), f"executor:{container}")
    assert [type(message) for message in answered] == [ExecutorRegistered, LaunchTasks]
    answered = bench.tell(EXECUTOR, register(container, "t"), f"executor:{container}")
    assert [type(message) for message in answered] == [ExecutorRegistered]


def test_an_executor_is_asked_until_a_killed_task_has_ended(bench: Bench) -> None:
    container = launch(bench, custom("t"))
    bench.tell(EXECUTOR, register(container), f"executor:{container}")
    bench.tell(M1, KillTask(Term(3), F, TaskId("t"), 100))

    assert bench.fire(f"doubt/{container}") == [ReconcileExecutor()]
    answered: list[Any] = bench.tell(EXECUTOR, register(container, "t"), f"executor:{container}")
    assert KillExecutorTask(TaskId("t"), 100) in answered
