"""What the master answers to questions, page by page."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mesos_actor.actors.core import queries
from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.entries import MAX_WHY
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, ExecutorId, FrameworkId, OperationId
from mesos_actor.actors.messages.clients import Instruct, Query
from mesos_actor.actors.messages.scheduler import (
    Decline,
    Instruction,
    InstructionDone,
    OperationResult,
    Refused,
    Suppress,
    Teardown,
)
from mesos_actor.actors.messages.values import AgentInfo, Command, ExecutorInfo, Filters
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState
from tests.master_world import FOUR, ONE, World, task

F, A, CLI = "peer:f/framework", "tcp://a:1/agent", "peer:cli/client"


def test_amounts_for_people_and_programs() -> None:
    resources = Resources.parse("cpus:1.5;cpus(ads):2;ports:[1-2,5-5];zones:{a,b}")

    assert {
        key: value.replace(",", ", ").replace(",  ", ", ") if isinstance(value, str) else value
        for key, value in queries.amounts(resources).items()
    } == {"cpus": 1.5, "cpus(ads)": 2, "ports": "[1-2, 5-5]", "zones": "{a, b}"}


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_status_in_one_row(allocator: Any) -> None:
    world = World(allocator=allocator)
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING)

    [row] = world.ask("status")

    assert {
        "cluster_id": world.master.cluster_id,
        "leader": "tcp://m:1/master",
        "agents": {"active": 1, "disconnected": 0, "recovering": 0, "unreachable": 0, "gone": 0},
        "frameworks": {"active": 1, "disconnected": 0, "removed": 0},
        "tasks": {"RUNNING": 1},
        "offers": 1,
        "resources": queries.amounts(FOUR),
        "used": queries.amounts(ONE),
        "offered": queries.amounts(FOUR - ONE),
    }.items() <= row.items()


def test_what_operators_should_know_is_shown_for_as_long_as_it_is_so() -> None:
    world = World()
    plain = world.agent_info

    def warned(name: str, resources: Resources = FOUR) -> AgentInfo:
        text = "" if name == "good" else "tasks are not kept apart" if name < "h5" else f"{name} is odd"
        return replace(plain(name, resources), isolation="process", warning=text)

    world.agent_info = warned  # type: ignore[method-assign]
    for name in ("good", "h1", "h2", "h3", "h4", *(f"h{number}" for number in range(50, 60))):
        world.agent(name)

    [row] = world.ask("status")
    assert row["warnings"][0] == "h1, h2, h3 and 1 more: tasks are not kept apart"
    assert (len(row["warnings"]), row["warnings"][-1]) == (11, "and 1 other warnings: see `agents --json`")
    assert {agent["isolation"] for agent in world.ask("agents")} == {"process"}
    for name in ("h1", "h2", "h3", "h4"):
        world.lose_link(f"tcp://{name}:1")
    assert not [text for text in world.ask("status")[0]["warnings"] if "kept apart" in text]


def test_what_cannot_be_reached_is_no_capacity() -> None:
    world = World()
    framework, _ = world.run()
    world.agent("b")
    before = world.ask("status")[0]
    world.lose_link("tcp://a:1")

    [row] = world.ask("status")

    assert (before["resources"], before["used"]) == (queries.amounts(FOUR + FOUR), queries.amounts(ONE))
    assert row["agents"] == {"active": 1, "disconnected": 1, "recovering": 0, "unreachable": 0, "gone": 0}
    assert (row["resources"], row["used"]) == (queries.amounts(FOUR), {})
    assert [task["framework_id"] for task in world.ask("tasks")] == [framework]


def test_agents_of_every_state() -> None:
    world = World(MasterSettings(ping_interval_ms=100, max_missed_pings=1))
    lost = world.agent("lost")
    world.advance(300)
    executor = ExecutorInfo(ExecutorId("e"), Command(("run",)), ONE)
    agent_id = world.agent("a")
    framework = world.framework()
    world.launch(framework, world.offers(), task("t", executor=executor))

    rows = world.ask("agents")

    assert [(lost, "unreachable"), (agent_id, "active")] == [(row["agent_id"], row["state"]) for row in rows]
    assert (1, 1, queries.amounts(ONE + ONE)) == (rows[1]["tasks"], rows[1]["executors"], rows[1]["used"])
    assert [lost] == [row["agent_id"] for row in world.ask("agents", state="unreachable")]


def test_frameworks_of_every_state() -> None:
    world = World()
    for name in ("a", "b", "c"):
        world.framework(name)
    ids = [row["framework_id"] for row in world.ask("frameworks")]
    world.lose_link("peer:a")
    world.deliver("peer:b/framework", Teardown(FrameworkId(ids[1]), outcome="finished"))

    rows = world.ask("frameworks")

    assert [row["state"] for row in rows] == ["disconnected", "removed", "active"]
    assert rows[1]["outcome"] == "finished"
    assert [row["name"] for row in world.ask("frameworks", name="c")] == ["c"]


def test_offers_and_roles() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework(roles=("ads", "web"))

    [offer] = world.ask("offers")
    roles = world.ask("roles")

    assert (framework, agent_id, "ads", queries.amounts(FOUR)) == (
        offer["framework_id"],
        offer["agent_id"],
        offer["role"],
        offer["resources"],
    )
    assert [(r["role"], r["weight_milli"], r["frameworks"]) for r in roles] == [("ads", 1_000, 1), ("web", 1_000, 1)]


def crowd(count: int = 10) -> tuple[World, FrameworkId]:
    """Some tasks live, some ended, some unreachable."""
    world = World()
    agent_id = world.agent("a", Resources.parse("cpus:100"))
    framework = world.framework()
    cpu = Resources.parse("cpus:1")
    world.launch(framework, world.offers(), *(task(f"t{n}", cpu) for n in range(count)))
    for n in range(0, count, 2):
        world.update(framework, agent_id, TaskState.FINISHED, f"t{n}")
        world.acknowledge(framework, agent_id, f"t{n}")
    return world, framework


@pytest.mark.parametrize("limit", [1, 3, 1_000])
def test_pages_show_every_task_once(limit: int) -> None:
    world, _ = crowd()

    pages = list(world.pages("tasks", limit))

    rows = [row for page in pages for row in page]
    assert sorted(f"t{n}" for n in range(10)) == sorted(row["task_id"] for row in rows)
    assert all(len(page) <= limit for page in pages)


def test_tasks_come_and_go_between_pages_without_loss_or_repeat() -> None:
    world, framework = crowd()
    agent_id = next(iter(world.master.roster.agents))
    seen = []
    for at, page in enumerate(world.pages("tasks", 2)):
        seen += [row["task_id"] for row in page if row["state"] == "STAGING"]
        if at == 0:
            world.update(framework, agent_id, TaskState.FAILED, "t1")
            world.acknowledge(framework, agent_id, "t1")

    assert seen == ["t1", "t3", "t5", "t7", "t9"]


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"state": "FINISHED"}, ["t0", "t2", "t4", "t6", "t8"]),
        ({"task_id": "t3"}, ["t3"]),
        ({"task_id": "t3", "state": "FINISHED"}, []),
        ({"framework_id": "nobody"}, []),
        ({"colour": "red"}, []),
    ],
)
def test_matching_tasks(match: dict[str, str], expected: list[str]) -> None:
    world, _ = crowd()

    assert expected == [row["task_id"] for row in world.ask("tasks", "", 1_000, **match)]


def test_no_question_looks_at_more_than_its_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queries, "MAX_SCAN", 3)
    world, _ = crowd()

    pages = list(world.pages("tasks", 1_000, hostname="nowhere"))

    assert pages == [[], [], [], []]


@pytest.mark.parametrize("what", ["status", "agents", "frameworks", "tasks", "offers", "roles", "why"])
def test_paging_ends_for_every_question(what: str) -> None:
    world, framework = crowd(4)
    world.framework("g", roles=("ads",))

    match: dict[str, Any] = {"framework_id": framework} if what == "why" else {}
    pages = list(world.pages(what, 1, **match))

    assert 0 < len(pages) < 12


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (
            Query(OperationId("q"), "moon"),
            "Query.what must be one of status, agents, frameworks, tasks, offers, roles, why, not 'moon'",
        ),
        (Query(OperationId("q"), "tasks", limit=0), "Query.limit must be positive, not 0"),
        (Query(OperationId("q"), "agents", after="x"), "Query.after must be the 'next' of a page before, not 'x'"),
        (Query(OperationId("q"), "tasks", after="1.2"), "Query.after must be the 'next' of a page before, not '1.2'"),
        (
            Query(OperationId("q"), "offers", after="m-Ox"),
            "Query.after must be the 'next' of a page before, not 'm-Ox'",
        ),
        (Query(OperationId("q"), "why", after="y"), "Query.after must be the 'next' of a page before, not 'y'"),
    ],
)
def test_bad_questions(query: Query, text: str) -> None:
    world = World()

    world.deliver(CLI, query)

    refused = world.one(CLI, Refused)
    assert ("invalid", text, "q") == (refused.reason, refused.text, refused.operation_id)


# -- why


def test_why_tells_a_tasks_history() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING, number=0)
    world.update(framework, agent_id, TaskState.FAILED, number=1)

    [row] = world.ask("why", task_id="t")

    assert (row["kind"], row["state"]) == ("task", "FAILED")
    assert [step["state"] for step in row["history"]] == ["STAGING", "RUNNING", "FAILED"]


def test_why_of_nobody_is_empty() -> None:
    world = World()

    assert [] == world.ask("why", task_id="t") == world.ask("why", framework_id="f") == world.ask("why")


def test_why_tells_what_stands_in_a_frameworks_way() -> None:
    world = World()
    framework = world.framework()
    standing = [world.ask("why", framework_id=framework)[0]["text"]]
    world.agent()
    standing.append(world.ask("why", framework_id=framework)[0]["text"])
    world.launch(framework, world.offers(), task("t", FOUR))
    rows = world.ask("why", framework_id=framework)
    standing.append(rows[0]["text"])
    world.deliver(F, Suppress(framework))
    standing.append(world.ask("why", framework_id=framework)[0]["text"])
    world.lose_link("peer:f")
    standing.append(world.ask("why", framework_id=framework)[0]["text"])

    assert standing == [
        "No agent is active",
        "It has 1 offers to answer",
        "It takes part; see each agent for what stands in the way",
        "It has suppressed offers for all its roles: it must revive to get some",
        "It is not connected: nothing is offered until it subscribes again",
    ]
    assert [(row["kind"], row["hostname"], row["reason"]) for row in rows[1:]] == [("agent", "a", "taken")]


def test_why_tells_why_a_framework_declined() -> None:
    world = World(allocator=DrfAllocator)
    framework = world.framework()
    world.agent()

    def decline(why: str) -> str:
        (offer,) = world.offers()
        world.deliver(F, Decline(framework, (offer.offer_id,), Filters(5_000), why))
        (row,) = world.ask("why", framework_id=framework)[1:]
        world.advance(6_000)
        return str(row["text"])

    assert decline("x" * 1_000) == f"it declined this agent; asked again in 5.0 s ({'x' * MAX_WHY})"
    assert decline("") == "it declined this agent; asked again in 5.0 s"


def test_why_a_framework_without_roles_gets_nothing_and_a_removed_one_ended() -> None:
    world = World()
    framework = world.framework(roles=())
    assert world.ask("why", framework_id=framework)[0]["text"] == "It has no roles: nothing can be offered to it"

    world.deliver(F, Teardown(framework, outcome="failed: disk"))

    assert world.ask("why", framework_id=framework)[0]["text"] == "It was removed: failed: disk"


# -- instructions


def test_an_instruction_reaches_its_framework_and_the_answer_its_asker() -> None:
    world = World()
    framework = world.framework()

    world.deliver(CLI, Instruct(OperationId("i"), framework, b"scale 3"))
    assert Instruction(OperationId("i"), Address(CLI), b"scale 3") == world.one(F, Instruction)
    answer = InstructionDone(framework, Address("tcp://victim:1/master"), OperationId("i"), True, "", "3 now", b"x")
    world.deliver(F, answer)
    world.deliver(F, answer)

    assert OperationResult(OperationId("i"), True, "", "3 now", b"x") == world.one(CLI, OperationResult)
    assert world.take("tcp://victim:1/master", OperationResult) == []


def test_an_instruction_to_nobody_is_unavailable() -> None:
    world = World()
    framework = world.framework()

    world.deliver(CLI, Instruct(OperationId("i"), FrameworkId("x"), b""))
    assert world.one(CLI, OperationResult).reason == "unavailable"
    world.deliver(CLI, Instruct(OperationId("i"), framework, b""))
    world.lose_link("peer:f")

    assert world.one(CLI, OperationResult).reason == "unavailable"


def test_an_instruction_takes_the_owners_or_the_clusters_key() -> None:
    world = World()
    framework = world.framework()

    world.deliver(CLI, Instruct(OperationId("i"), framework, b""), "bob")

    assert world.one(CLI, OperationResult).reason == "unauthorized"
