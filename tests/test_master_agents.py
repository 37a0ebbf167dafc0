"""Agents as the master sees them: admission, return, pings, loss, and two in one directory."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.liveness import Liveness
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import AgentId, ClusterId, ContainerId, ExecutorId, FrameworkId, OperationId, Role, TaskId
from mesos_actor.actors.messages.agents import (
    AcknowledgeUpdate,
    KillTask,
    LeaveAgent,
    Ping,
    Pong,
    RegisterAgent,
    Registered,
    RunTasks,
    ShutdownAgent,
    ShutdownFramework,
)
from mesos_actor.actors.messages.clients import MarkAgentGone
from mesos_actor.actors.messages.registry import AgentRecord, FrameworkRecord
from mesos_actor.actors.messages.scheduler import (
    AgentLost,
    ExecutorLost,
    Kill,
    OperationResult,
    Refused,
    Rescind,
    Teardown,
)
from mesos_actor.actors.messages.values import Command, ExecutorInfo, ExecutorReport
from mesos_actor.actors.resources import Resource, Resources
from mesos_actor.actors.task import Reason, TaskState
from tests.master_world import FOUR, ONE, World, report, task

F, A = "peer:f/framework", "tcp://a:1/agent"
QUICK = MasterSettings(ping_interval_ms=1_000, max_missed_pings=3, reregister_window_ms=10_000)


def register(world: World, name: str = "a", **fields: Any) -> RegisterAgent:
    return replace(RegisterAgent(world.agent_info(name), f"reg-{name}", term=world.master.term), **fields)


# -- admission


def test_an_agent_gets_the_next_id_once_the_registry_has_it() -> None:
    world = World()

    first, second = world.agent("a"), world.agent("b")

    cluster = world.master.cluster_id
    assert (f"{cluster}-S0", f"{cluster}-S1") == (first, second)
    registered = world.one(A, Registered)
    assert (cluster, 1, 25_000, ()) == (
        registered.cluster_id,
        registered.term,
        registered.ping_timeout_ms,
        registered.missing_tasks,
    )
    assert kept(world, first).registration == "reg-a"


def kept(world: World, agent_id: AgentId) -> AgentRecord:
    record = world.kept[f"agent/{agent_id}"]
    assert isinstance(record, AgentRecord)
    return record


def test_a_repeated_registration_is_the_same_agent() -> None:
    world = World()

    assert world.agent() == world.agent()
    assert len(world.master.roster.agents) == 1


def test_an_agent_without_the_clusters_key_is_refused() -> None:
    world = World()

    world.deliver(A, register(world), "somebody")

    refused = world.one(A, Refused)
    assert (refused.reason, refused.fatal) == ("unauthorized", True)
    assert refused.text == "RegisterAgent needs the cluster's key; 'somebody' holds another"


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"registration": ""}, "RegisterAgent.registration must be a name of 1 to 255 characters"),
        ({"tasks": (report(FrameworkId("f")),)}, "agent_id is empty, but tasks or executors are reported"),
    ],
)
def test_a_malformed_registration_is_refused_by_field(fields: dict[str, Any], text: str) -> None:
    world = World()

    world.deliver(A, register(world, **fields))

    refused = world.one(A, Refused)
    assert refused.reason == "invalid"
    assert text in refused.text


def test_negative_resources_are_refused() -> None:
    world = World()
    info = replace(world.agent_info("a"), resources=Resources((Resource("cpus", -1),)))

    world.deliver(A, register(world, info=info))

    assert "negative" in world.one(A, Refused).text


def test_an_agent_of_another_cluster_is_shut_out() -> None:
    world = World()

    world.deliver(A, register(world, cluster_id=ClusterId("0123")))

    assert "This agent belongs to cluster 0123" in world.one(A, ShutdownAgent).text


def test_an_unknown_id_or_a_copied_identity_is_shut_out() -> None:
    world = World()
    agent_id = world.agent()

    world.deliver("tcp://b:1/agent", register(world, "b", agent_id=AgentId("x-S9")))
    world.deliver("tcp://c:1/agent", register(world, "c", agent_id=agent_id))

    assert "Agent x-S9 is not known here" in world.one("tcp://b:1/agent", ShutdownAgent).text
    assert "is not known here with this work directory" in world.one("tcp://c:1/agent", ShutdownAgent).text


def test_only_the_registry_says_who_is_unknown() -> None:
    """This master may have stood still while another one led, and let the agent in."""
    world = World()
    world.registry_answers = False

    world.deliver("tcp://b:1/agent", register(world, "b", agent_id=AgentId("x-S9")))

    assert world.take("tcp://b:1/agent", ShutdownAgent) == []


def test_a_changed_hostname_is_shut_out() -> None:
    world = World()
    agent_id = world.agent()
    info = replace(world.agent_info("a"), hostname="z")

    world.deliver(A, register(world, agent_id=agent_id, info=info))

    assert (
        world.one(A, ShutdownAgent).text
    ) == "Agent attempted to reregister with different hostname 'z'; it is known as 'a'"


def test_changed_resources_are_written_down_and_offered() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.offers()

    world.agent(agent_id=agent_id, resources=FOUR + ONE)

    assert kept(world, agent_id).info.resources == FOUR + ONE
    assert [offer.resources for offer in world.offers()] == [FOUR + ONE]
    assert framework


# -- two agents in one work directory


def test_a_second_agent_in_one_work_directory_is_shut_out_when_the_first_still_answers() -> None:
    world = World()
    agent_id = world.agent()
    other = "tcp://b:1/agent"
    copy = register(world, agent_id=agent_id)
    world.take(A, Ping)

    world.deliver(other, copy)
    assert world.take(other, ShutdownAgent) == []
    assert world.one(A, Ping).connected
    world.deliver(A, Pong(agent_id))
    world.deliver(other, copy)

    assert f"Agent {agent_id} is alive at {A}" in world.one(other, ShutdownAgent).text
    assert world.master.roster.agents[agent_id].address == A


def test_a_restarted_agent_takes_over_before_its_old_link_is_known_to_be_dead() -> None:
    world = World(QUICK)
    agent_id = world.agent()
    other = "peer:new/agent"
    copy = register(world, agent_id=agent_id)

    world.deliver(other, copy)
    world.advance(1_000)
    world.deliver(other, copy)

    assert agent_id == world.one(other, Registered).agent_id
    assert other == world.master.roster.agents[agent_id].address


def test_a_lost_link_lets_the_newcomer_in_at_once() -> None:
    world = World()
    agent_id = world.agent()
    world.lose_link("tcp://a:1")

    world.deliver("peer:new/agent", register(world, agent_id=agent_id))

    assert agent_id == world.one("peer:new/agent", Registered).agent_id


def test_a_new_agent_at_an_old_ones_address_puts_the_old_one_away() -> None:
    world = World()
    old = world.agent("a")
    world.framework()

    world.deliver(A, register(world, "b"))

    assert [old] == [a.agent_id for a in world.master.roster.agents.values() if not a.connected]
    world.advance(30_000)
    assert kept(world, old).state == "unreachable"


# -- pings


def test_agents_are_pinged_and_stay_as_long_as_they_answer() -> None:
    world = World(QUICK)
    agent_id = world.agent()
    world.take(A, Ping)

    for _ in range(10):
        world.advance(1_000)
        assert [Ping(world.master.term)] == world.take(A, Ping)
        world.deliver(A, Pong(agent_id))

    assert kept(world, agent_id).state == "admitted"


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_an_agent_that_misses_its_pings_is_unreachable_and_its_tasks_with_it(allocator: Any) -> None:
    world = World(QUICK, allocator)
    framework, agent_id = world.run()
    [_rest] = world.offers()

    world.advance(4_100)

    assert kept(world, agent_id).state == "unreachable"
    sent = list(world.inbox[F])  # type: ignore[index]
    assert [m.reason for m in sent if isinstance(m, Rescind)] == ["agent-lost"]
    assert [agent_id] == [m.agent_id for m in sent if isinstance(m, AgentLost)]
    [status] = world.updates()
    assert (status.state, status.reason, status.update_id) == (TaskState.UNREACHABLE, Reason.AGENT_REMOVED, "")
    assert status.unreachable_since_us == kept(world, agent_id).since_us
    assert world.master.roster.frameworks[framework].tasks == {}
    world.agent("b")
    world.launch(framework, world.offers(), task("t"))
    [status] = world.updates()
    assert status.message == "Task reuses the ID of an unreachable task: t"


def test_liveness_counts_only_unanswered_pings() -> None:
    liveness = Liveness(2)
    liveness.watch(AgentId("a"))

    rounds = []
    for n in range(50):
        due, lost = liveness.tick()
        if due:
            rounds.append((tuple(due), tuple(lost)))
        if n == 15:
            liveness.answered(AgentId("a"))

    assert rounds == [(("a",), ()), (("a",), ()), (("a",), ()), (("a",), ()), (("a",), ("a",))]


# -- a lost link, and the way back


def test_a_lost_link_rescinds_offers_and_opens_a_window() -> None:
    world = World(QUICK)
    agent_id = world.agent()
    world.framework()
    world.offers()

    world.lose_link("tcp://a:1")

    assert world.one(F, Rescind).reason == "disconnected"
    assert world.ask("agents")[0]["state"] == "disconnected"
    world.deliver(A, Pong(agent_id))
    assert kept(world, agent_id).state == "admitted"


def test_an_agent_that_answers_pings_but_never_registers_again_runs_out_of_time() -> None:
    world = World(QUICK)
    agent_id = world.agent()
    world.lose_link("tcp://a:1")
    world.take(A, Ping)

    for _ in range(9):
        world.advance(1_000)
        assert [ping.connected for ping in world.take(A, Ping)] == [False]
        world.deliver(A, Pong(agent_id))
    assert kept(world, agent_id).state == "admitted"
    world.advance(2_000)

    assert kept(world, agent_id).state == "unreachable"


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_an_unreachable_agent_returns_with_its_tasks(allocator: Any) -> None:
    world = World(QUICK, allocator)
    framework, agent_id = world.run()
    world.advance(4_100)
    world.updates()

    world.agent(agent_id=agent_id, tasks=[report(framework)])

    assert kept(world, agent_id).state == "admitted"
    sent = list(world.inbox[F])  # type: ignore[index]
    [status] = world.updates()
    assert (status.state, status.reason) == (TaskState.RUNNING, Reason.AGENT_REREGISTERED)
    assert status.message == "Unreachable agent reregistered"
    assert [o.resources for m in sent for o in getattr(m, "offers", ())] == [FOUR - ONE]


def test_a_task_that_does_not_come_back_with_its_agent_is_asked_for_and_its_id_is_free() -> None:
    world = World(QUICK)
    framework, agent_id = world.run()
    world.advance(4_100)
    world.updates()

    world.agent(agent_id=agent_id)

    assert ((framework, "t"),) == world.one(A, Registered).missing_tasks
    entry = world.master.roster.frameworks[framework]
    assert (dict(entry.unreachable), world.master.roster.out_of_reach) == ({}, {})
    assert [task.state for task in entry.completed] == [TaskState.DROPPED]
    offers = world.offers()
    world.update(framework, agent_id, TaskState.DROPPED)
    assert [status.state for status in world.updates()] == [TaskState.DROPPED]
    world.launch(framework, offers, task("t"))
    assert world.updates() == []
    assert world.one(A, RunTasks).tasks[0].task_id == "t"


def test_tasks_out_of_reach_go_with_their_framework() -> None:
    world = World(QUICK)
    framework, agent_id = world.run()
    world.advance(4_100)
    assert list(world.master.roster.out_of_reach) == [agent_id]

    world.deliver(F, Teardown(framework))

    assert world.master.roster.out_of_reach == {}


def test_a_task_the_agent_does_not_name_is_asked_for_and_keeps_its_resources() -> None:
    world = World()
    framework, agent_id = world.run()
    world.lose_link("tcp://a:1")

    world.agent(agent_id=agent_id)

    assert ((framework, "t"),) == world.one(A, Registered).missing_tasks
    world.update(framework, agent_id, TaskState.DROPPED)
    world.acknowledge(framework, agent_id)
    assert world.master.roster.agents[agent_id].used == {}


def test_an_ended_task_that_the_agent_has_forgotten_was_acknowledged() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.FINISHED)
    world.lose_link("tcp://a:1")

    world.agent(agent_id=agent_id)

    assert world.one(A, Registered).missing_tasks == ()
    assert world.master.roster.frameworks[framework].tasks == {}


def executor(framework: FrameworkId) -> ExecutorReport:
    info = ExecutorInfo(ExecutorId("e"), Command(("run",)), ONE)
    return ExecutorReport(framework, info, Role("*"), ContainerId("e.1"))


def test_executors_return_with_their_agent_and_are_missed_when_they_do_not() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.lose_link("tcp://a:1")

    world.agent(agent_id=agent_id, executors=[executor(framework)])
    assert world.master.roster.agents[agent_id].used[framework, Role("*")] == ONE
    world.take(F, ExecutorLost)
    world.lose_link("tcp://a:1")
    world.agent(agent_id=agent_id)

    assert world.one(F, ExecutorLost).executor_id == "e"
    assert world.master.roster.agents[agent_id].used == {}


def test_what_belongs_to_a_removed_framework_ends() -> None:
    world = World()
    framework, agent_id = world.run()
    world.lose_link("tcp://a:1")
    world.deliver(F, Teardown(framework))

    world.agent(agent_id=agent_id, tasks=[report(framework)], executors=[executor(framework)])

    assert framework == world.one(A, ShutdownFramework).framework_id
    assert world.master.roster.agents[agent_id].used == {}


def test_a_task_whose_id_runs_elsewhere_by_now_is_killed_and_its_news_silenced() -> None:
    world = World(replace(QUICK, max_completed_tasks_per_framework=1))
    framework, old = world.run()
    world.launch(framework, world.offers(), task("u"))
    world.advance(4_100)  # both unreachable; only the newer one is remembered
    new = world.agent("b")
    world.launch(framework, world.offers(), task("t"))
    world.updates()

    world.agent(agent_id=old, tasks=[report(framework)])

    assert world.one(A, KillTask).task_id == "t"
    assert new == world.master.roster.frameworks[framework].tasks[TaskId("t")].agent_id
    world.update(framework, old, TaskState.KILLED)
    assert world.one(A, AcknowledgeUpdate).update_id == "t.c:0"
    assert world.updates() == []


# -- the master's restart


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_a_killed_master_finds_its_cluster_again_and_tasks_run_on(allocator: Any) -> None:
    world = World(QUICK, allocator)
    framework, agent_id = world.run()
    cluster = world.master.cluster_id

    world.start()
    world.advance(5_000)
    assert kept(world, agent_id).state == "admitted"
    assert framework == world.framework(framework_id=framework)
    assert agent_id == world.agent(agent_id=agent_id, tasks=[report(framework)], cluster=cluster)

    assert (cluster, 2) == (world.master.cluster_id, world.master.term)
    assert world.master.roster.frameworks[framework].tasks[TaskId("t")].state == TaskState.RUNNING
    assert [offer.resources for offer in world.offers()] == [FOUR - ONE]
    assert f"{cluster}-S1" == world.agent("b")


def test_agents_that_do_not_return_after_a_restart_are_unreachable_after_the_window() -> None:
    world = World(QUICK)
    agent_id = world.agent()
    world.start()

    world.advance(9_000)
    assert world.ask("agents")[0]["state"] == "recovering"
    world.advance(2_000)

    assert kept(world, agent_id).state == "unreachable"


def test_a_kill_for_an_agent_that_is_still_expected_waits_for_it() -> None:
    world = World()
    framework, agent_id = world.run()
    world.start()
    world.framework(framework_id=framework)

    world.deliver(F, Kill(framework, TaskId("t"), agent_id))
    world.deliver(F, Kill(framework, TaskId("u"), agent_id))
    world.agent(agent_id=agent_id, tasks=[report(framework)])

    assert [m.task_id for m in world.take(A, KillTask)] == ["t"]


# -- gone, left


def test_an_agent_marked_gone_is_shut_down_for_ever() -> None:
    world = World()
    framework, agent_id = world.run()

    world.deliver("peer:cli/client", MarkAgentGone(OperationId("g"), agent_id))

    assert world.one("peer:cli/client", OperationResult).ok
    assert world.one(A, ShutdownAgent).text == "Agent has been marked gone"
    [status] = world.updates()
    assert (status.state, status.reason) == (TaskState.GONE_BY_OPERATOR, Reason.AGENT_REMOVED_BY_OPERATOR)
    world.deliver(A, register(world, agent_id=agent_id))
    assert world.one(A, ShutdownAgent).text == "Agent has been marked gone"
    world.deliver(A, register(world))
    assert world.one(A, ShutdownAgent).text == "Agent has been marked gone"
    assert framework


def test_marking_gone_settles_tasks_that_were_unreachable() -> None:
    world = World(QUICK)
    _, agent_id = world.run()
    world.advance(4_100)
    world.updates()

    world.deliver("peer:cli/client", MarkAgentGone(OperationId("g"), agent_id))

    assert [s.state for s in world.updates()] == [TaskState.GONE_BY_OPERATOR]


def test_marking_an_unknown_agent_gone_is_refused() -> None:
    world = World()

    world.deliver("peer:cli/client", MarkAgentGone(OperationId("g"), AgentId("x")))

    refused = world.one("peer:cli/client", Refused)
    assert (refused.reason, refused.operation_id) == ("unknown-agent", "g")


def test_an_agent_that_leaves_is_forgotten_at_once() -> None:
    world = World()
    framework, agent_id = world.run()

    world.deliver(A, LeaveAgent(agent_id))

    assert f"agent/{agent_id}" not in world.kept
    assert [s.state for s in world.updates()] == [TaskState.GONE]
    assert world.master.roster.agents == {}
    assert framework


def test_nobody_leaves_in_an_agents_name() -> None:
    world = World()
    agent_id = world.agent()

    world.deliver("peer:evil/agent", LeaveAgent(agent_id))

    assert f"agent/{agent_id}" in world.kept


def test_old_unreachable_agents_and_removed_frameworks_are_forgotten() -> None:
    slow = MasterSettings(
        registry_max_age_ms=10_000_000, ping_interval_ms=600_000, max_missed_pings=1, allocation_interval_ms=600_000
    )
    world = World(slow)
    agent_id, framework = world.agent(), world.framework()
    world.deliver(F, Teardown(framework))
    world.advance(3_600_000)
    assert isinstance(world.kept[f"framework/{framework}"], FrameworkRecord)
    assert kept(world, agent_id).state == "unreachable"

    world.advance(4 * 3_600_000)

    assert list(world.kept) == ["starts", "cluster"]
    assert (world.master.roster.absent, world.master.roster.removed) == ({}, {})
