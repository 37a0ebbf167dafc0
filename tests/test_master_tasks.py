"""The life of a task as the master sees it: offers, accept, launch, updates, acknowledgement, kill, reconciliation."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.core.allocator import DrfAllocator
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, AgentId, ExecutorId, FrameworkId, OfferId, OperationId, Role, TaskId
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, KillTask, Ping, RunTasks, ShutdownFramework
from mesos_actor.actors.messages.clients import KillByOperator
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Decline,
    ExecutorLost,
    FromExecutor,
    Kill,
    Offers,
    OperationResult,
    Reconcile,
    Refused,
    RequestDemand,
    Rescind,
    Revive,
    Subscribe,
    Suppress,
    ToExecutor,
    Update,
)
from mesos_actor.actors.messages.values import Command, Demand, ExecutorInfo, Filters, FrameworkInfo, Launch, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Reason, Source, TaskState
from tests.master_world import FOUR, ONE, World, status_of, task

F, A = "peer:f/framework", "tcp://a:1/agent"
HALF = Resources.parse("cpus:0.5;mem:64")


def executor(name: str = "e", **fields: Any) -> ExecutorInfo:
    return ExecutorInfo(ExecutorId(name), Command(("run",)), fields.pop("resources", HALF), **fields)


# -- the whole way


@pytest.mark.parametrize("allocator", [None, DrfAllocator])
def test_a_task_lives_from_offer_to_acknowledged_end(allocator: Any) -> None:
    world = World(allocator=allocator)
    agent_id = world.agent()
    framework = world.framework()
    [offer] = world.offers()
    assert (agent_id, "a", "*", FOUR) == (offer.agent_id, offer.hostname, offer.role, offer.resources)

    world.launch(framework, [offer], task("t"))
    run = world.one(A, RunTasks)
    assert ((task("t"),), "*", 1) == (run.tasks, run.role, run.term)

    world.update(framework, agent_id, TaskState.RUNNING, number=0)
    assert [s.state for s in world.updates()] == [TaskState.RUNNING]
    world.acknowledge(framework, agent_id, number=0)
    world.update(framework, agent_id, TaskState.FINISHED, number=1)
    [end] = world.updates()
    assert (end.state, end.update_id) == (TaskState.FINISHED, "t.c:1")
    world.acknowledge(framework, agent_id, number=1)

    acknowledged = [m.update_id for m in world.take(A, AcknowledgeUpdate)]
    assert acknowledged == ["t.c:0", "t.c:1"]
    assert world.master.roster.frameworks[framework].tasks == {}
    assert [row["state"] for row in world.ask("tasks")] == ["FINISHED"]
    assert world.ask("status")[0]["used"] == {}


def test_what_a_launch_leaves_over_is_offered_again_in_the_same_turn() -> None:
    world = World()
    world.agent()
    framework = world.framework()

    world.launch(framework, world.offers(), task("t"))

    assert [offer.resources for offer in world.offers()] == [FOUR - ONE]


def test_resources_come_free_with_the_latest_state_and_are_offered_in_the_same_turn() -> None:
    world = World()
    agent_id = world.agent(resources=ONE)
    framework = world.framework()
    world.launch(framework, world.offers(), task("t"))

    world.update(framework, agent_id, TaskState.RUNNING, latest="FINISHED")

    sent = world.inbox[Address(F)]
    update = next(m for m in sent if isinstance(m, Update))
    assert (update.status.state, update.latest_state) == (TaskState.RUNNING, "")
    assert [offer.resources for offer in world.offers()] == [ONE]
    assert len(world.master.roster.frameworks[framework].tasks) == 1


# -- offers


def test_an_offer_nobody_answers_is_rescinded() -> None:
    world = World(MasterSettings(offer_timeout_ms=1_000))
    world.agent()
    world.framework()
    [offer] = world.offers()

    world.advance(1_100)

    rescind = world.one(F, Rescind)
    assert ((offer.offer_id,), "timed-out") == (rescind.offer_ids, rescind.reason)
    world.advance(5_100)
    assert len(world.offers()) == 1


def test_decline_filters_for_as_long_as_it_says() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()

    world.deliver(F, Decline(framework, (offer.offer_id,), Filters(3_000)))

    world.advance(2_900)
    assert world.offers() == []
    world.advance(200)
    assert len(world.offers()) == 1


def test_decline_ignores_offers_that_are_void_or_of_others() -> None:
    world = World()
    world.agent()
    framework, other = world.framework(), world.framework("g")
    [offer] = world.offers()

    world.deliver("peer:g/framework", Decline(other, (offer.offer_id, OfferId("nonsense"))))

    assert len(world.master.offers) == 1
    world.deliver(F, Decline(framework, (offer.offer_id,), Filters(0)))
    assert len(world.offers()) == 1


def test_suppress_and_revive() -> None:
    world = World()
    framework = world.framework()
    world.deliver(F, Suppress(framework))
    world.agent()
    assert world.offers() == []

    world.deliver(F, Revive(framework))

    assert len(world.offers()) == 1


@pytest.mark.parametrize("kind", [Suppress, Revive])
def test_suppress_and_revive_refuse_roles_of_others(kind: Any) -> None:
    world = World()
    framework = world.framework()

    world.deliver(F, kind(framework, (Role("ads"),)))

    assert world.one(F, Refused).text == "Role 'ads' is not one of the framework's roles"


def test_demand_reaches_the_allocator_or_is_refused_by_name() -> None:
    world = World()
    framework = world.framework()
    good = Demand(Role("*"), ONE, 3)
    world.deliver(F, RequestDemand(framework, (good,)))
    assert (good,) == world.allocator.demands[framework]

    world.deliver(F, RequestDemand(framework, (Demand(Role("*"), ONE, -1),)))

    assert world.one(F, Refused).text == "Demand's 'count' must be from 0 to 1000000000, not -1"


# -- accept: the offer list


def drops(world: World) -> list[tuple[str, str, str, str]]:
    return [(s.task_id, s.state.value, s.reason.value, s.message) for s in world.updates()]


def test_no_offers() -> None:
    world = World()
    framework = world.framework()

    world.accept(framework, (), task())

    text = "Task launched with invalid offers: No offers specified"
    assert [("t", "DROPPED", "INVALID_OFFERS", text)] == drops(world)


def test_an_offer_cannot_be_used_twice() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()
    world.launch(framework, [offer], task("t1"))

    world.launch(framework, [offer], task("t2"), task("t3"))

    text = f"Task launched with invalid offers: Offer {offer.offer_id} is no longer valid"
    assert [("t2", "DROPPED", "INVALID_OFFERS", text), ("t3", "DROPPED", "INVALID_OFFERS", text)] == drops(world)


def test_a_repeated_accept_does_not_drop_what_the_first_one_launched() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()
    world.launch(framework, [offer], task("t"))

    world.launch(framework, [offer], task("t"))

    assert [state for _, state, _, _ in drops(world)] == ["STAGING"]


def test_valid_offers_of_an_invalid_list_come_back_without_a_filter() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()

    world.accept(framework, (offer.offer_id, OfferId("x")), task(), refuse_ms=60_000, operation_id="o")

    sent = world.inbox[Address(F)]
    text = "Task launched with invalid offers: Offer x is no longer valid"
    assert [OperationResult(OperationId("o"), False, "invalid", text)] == [
        m for m in sent if isinstance(m, OperationResult)
    ]
    assert [o.resources for m in sent if isinstance(m, Offers) for o in m.offers] == [FOUR]


def test_offers_of_another_framework_stay_with_it() -> None:
    world = World()
    world.agent()
    world.framework()
    other = world.framework("g")
    [offer] = world.offers()

    world.accept(other, (offer.offer_id,), task(), name="g")

    [status] = world.updates("g")
    assert status.message == (
        f"Task launched with invalid offers: Offer {offer.offer_id} has invalid framework {offer_framework(world)}"
        f" while framework {other} is expected"
    )
    assert len(world.master.offers) == 1


def offer_framework(world: World) -> FrameworkId:
    return next(iter(world.master.offers.all())).framework_id


def test_offers_of_two_agents_cannot_be_aggregated() -> None:
    world = World()
    one, two = world.agent("a"), world.agent("b")
    framework = world.framework()
    first, second = world.offers()

    world.launch(framework, [first, second], task())

    assert [
        "Task launched with invalid offers: Aggregated offers must belong to one single agent."
        f" Offer {second.offer_id} uses agent {two} and agent {one}"
    ] == [text for _, _, _, text in drops(world)]


def test_offers_of_one_agent_are_used_together() -> None:
    world = World()
    world.agent(resources=Resources.parse("cpus:1;mem:128"))
    framework = world.framework()
    [first] = world.offers()
    bigger = Resources.parse("cpus:3;mem:384")
    world.master.allocator.update_agent(first.agent_id, bigger, None)  # type: ignore[arg-type]
    world.advance(1_100)
    [second] = world.offers()

    world.launch(framework, [first, second], task("t", bigger))

    assert tuple(t.task_id for t in world.one(A, RunTasks).tasks) == ("t",)


@pytest.mark.parametrize(
    ("lose", "reason", "text"),
    [
        ("link", Reason.AGENT_DISCONNECTED, "Agent disconnected"),
        ("pings", Reason.AGENT_REMOVED, "Agent removed"),
    ],
)
def test_an_accept_that_crosses_the_loss_of_its_agent_is_told_so(lose: str, reason: Reason, text: str) -> None:
    world = World(MasterSettings(max_missed_pings=1, ping_interval_ms=100))
    world.agent()
    framework = world.framework()
    [offer] = world.offers()
    world.lose_link("tcp://a:1") if lose == "link" else world.advance(300)
    world.take(F, Rescind)

    world.launch(framework, [offer], task())

    assert [("t", "DROPPED", reason.value, text)] == drops(world)


# -- accept: the tasks


def test_a_bad_task_is_an_error_and_the_others_are_launched() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()

    world.accept(framework, (offer.offer_id,), task("good"), task("bad", Resources()), task("fine"), operation_id="o")

    sent = list(world.inbox[Address(F)])
    assert [t.task_id for t in world.one(A, RunTasks).tasks] == ["good", "fine"]
    text = "1 of 3 tasks refused: Task uses no resources"
    assert OperationResult(OperationId("o"), False, "invalid", text) in sent
    [(task_id, state, reason, message)] = drops(world)
    assert (task_id, state, reason, message) == ("bad", "ERROR", "TASK_INVALID", "Task uses no resources")
    assert [row["text"] for row in world.ask("why", task_id="bad")] == ["Task uses no resources"]


def test_a_valid_launch_with_an_id_is_answered() -> None:
    world = World()
    world.agent()
    framework = world.framework()
    [offer] = world.offers()

    world.accept(framework, (offer.offer_id,), task(), operation_id="o")

    assert OperationResult(OperationId("o"), True) == world.one(F, OperationResult)


def test_duplicate_ids_are_errors() -> None:
    world = World()
    world.agent()
    framework = world.framework()

    world.launch(framework, world.offers(), task("t"), task("t"))

    assert drops(world) == [("t", "ERROR", "TASK_INVALID", "Task has duplicate ID: t")]


def test_more_than_the_offer_holds_is_an_error() -> None:
    world = World()
    world.agent(resources=ONE)
    framework = world.framework()

    world.launch(framework, world.offers(), task("t1"), task("t2", Resources.parse("cpus:0.1")))

    assert [text for _, _, _, text in drops(world)] == [
        "Total resources cpus:0.1 required by task and its executor is more than available "
    ]


def test_too_many_tasks_of_one_framework_are_errors() -> None:
    world = World(MasterSettings(max_tasks_per_framework=1))
    world.agent()
    framework = world.framework()

    world.launch(framework, world.offers(), task("t1"), task("t2"))

    assert [text for _, _, _, text in drops(world)] == ["Framework has 1 tasks, the most it may"]


# -- custom executors


def test_an_executor_is_counted_once_and_offered_as_running() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.launch(framework, world.offers(), task("t1", executor=executor()), task("t2", executor=executor()))

    [offer] = world.offers()
    assert (offer.resources, offer.executor_ids) == (FOUR - ONE - ONE - HALF, ("e",))
    for task_id in ("t1", "t2"):
        world.update(framework, agent_id, TaskState.FAILED, task_id)
    world.deliver(A, ExecutorLost(agent_id, ExecutorId("e"), 1, framework_id=framework))
    assert [more.resources for more in world.offers()] == [ONE, ONE, HALF]


def test_another_executor_under_the_same_id_is_an_error() -> None:
    world = World()
    world.agent()
    framework = world.framework()

    other = task("t2", executor=executor(data=b"x"))
    world.launch(framework, world.offers(), task("t1", executor=executor()), other)

    [(task_id, state, _, text)] = drops(world)
    assert (task_id, state) == ("t2", "ERROR")
    assert text == "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID: 'e'"


def test_messages_pass_between_framework_and_executor() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    there = ToExecutor(framework, agent_id, ExecutorId("e"), b"ping")
    back = FromExecutor(framework, agent_id, ExecutorId("e"), b"pong")

    world.deliver(F, there)
    world.deliver(A, back)

    assert there == world.one(A, ToExecutor)
    assert back == world.one(F, FromExecutor)


def test_an_executor_that_is_needed_again_stays_counted() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.launch(framework, world.offers(), task("t1", executor=executor()))
    world.launch(framework, world.offers(), task("t2", executor=executor()))
    world.update(framework, agent_id, TaskState.FAILED, "t1")

    world.deliver(A, ExecutorLost(agent_id, ExecutorId("e"), 1, framework_id=framework))

    assert world.master.roster.in_use(world.master.roster.agents[agent_id]) == ONE + HALF
    assert len(world.take(F, ExecutorLost)) == 1


def test_an_executor_that_was_never_started_is_not_counted() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.launch(framework, world.offers(), task("t1", executor=executor()), task("t2", executor=executor()))

    world.update(framework, agent_id, TaskState.DROPPED, "t1")
    assert world.master.roster.in_use(world.master.roster.agents[agent_id]) == ONE + HALF
    world.update(framework, agent_id, TaskState.DROPPED, "t2")

    assert world.master.roster.agents[agent_id].used == {}


def test_an_executor_that_ran_is_counted_although_a_later_task_was_dropped() -> None:
    world = World()
    agent_id = world.agent()
    framework = world.framework()
    world.launch(framework, world.offers(), task("t1", executor=executor()))
    world.update(framework, agent_id, TaskState.FINISHED, "t1")
    world.acknowledge(framework, agent_id, "t1")
    world.launch(framework, world.offers()[:1], task("t2", executor=executor()))

    world.update(framework, agent_id, TaskState.DROPPED, "t2")

    assert world.master.roster.in_use(world.master.roster.agents[agent_id]) == HALF


# -- updates


def test_the_first_terminal_state_stays() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.FAILED, number=0)

    world.update(framework, agent_id, TaskState.RUNNING, number=1)

    assert world.master.roster.frameworks[framework].tasks[TaskId("t")].state == TaskState.FAILED


def test_an_update_of_an_unknown_process_is_answered_with_register_again() -> None:
    world = World()
    framework, agent_id = world.run()

    world.deliver("tcp://evil:1/agent", Update(framework, status_of("t", TaskState.FINISHED, agent_id)))

    assert not world.one("tcp://evil:1/agent", Ping).connected
    assert world.updates() == []


def test_an_update_in_another_agents_name_is_ignored() -> None:
    world = World()
    framework, agent_id = world.run()
    world.agent("b")

    world.deliver("tcp://b:1/agent", Update(framework, status_of("t", TaskState.FINISHED, agent_id)))
    world.deliver("tcp://b:1/agent", Update(framework, status_of("t", TaskState.FINISHED, AgentId(""))))

    assert world.master.roster.frameworks[framework].tasks[TaskId("t")].state == TaskState.STAGING
    assert world.updates() == []


@pytest.mark.parametrize("state", [TaskState.UNREACHABLE, TaskState.UNKNOWN])
def test_states_that_only_a_master_can_know_are_ignored(state: TaskState) -> None:
    world = World()
    framework, agent_id = world.run()

    world.update(framework, agent_id, state)

    assert world.updates() == []
    world.update(framework, agent_id, TaskState.RUNNING, latest=state)
    assert world.master.roster.frameworks[framework].tasks[TaskId("t")].state is TaskState.RUNNING


def test_an_update_for_a_removed_framework_ends_it_on_the_agent() -> None:
    world = World()
    agent_id = world.agent()

    world.update(FrameworkId("nobody"), agent_id, TaskState.RUNNING)

    assert world.one(A, ShutdownFramework).framework_id == "nobody"


def test_a_framework_that_comes_back_hears_at_once_what_it_has_not_acknowledged() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING, number=0)
    world.acknowledge(framework, agent_id, number=0)
    world.lose_link("peer:f")
    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)
    assert [s.state for s in world.updates()] == [TaskState.RUNNING]

    world.framework(framework_id=framework)

    [status] = world.updates()
    assert (status.state, status.update_id, status.after_update_id) == (TaskState.FINISHED, "t.c:1", "")


def test_an_end_that_is_told_once_waits_for_the_framework() -> None:
    """(Found by simulation.) It was told STAGING of a task that its agent had refused, and nothing more."""
    world = World()
    framework, agent_id = world.run()
    world.lose_link("peer:f")
    refused = Status(TaskId("t"), TaskState.DROPPED, Source.AGENT, agent_id=agent_id)
    world.deliver(A, Update(framework, refused))

    world.framework(framework_id=framework)
    world.deliver(F, Reconcile(framework, ((TaskId("t"), agent_id),)))

    assert [status.state for status in world.updates()] == [TaskState.DROPPED]


def test_an_update_that_overtook_another_waits_for_it() -> None:
    """(Found by simulation.) The framework heard FINISHED, then asked, and was told RUNNING."""
    world = World()
    framework, agent_id = world.run()

    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)
    assert world.updates() == []
    assert world.master.roster.frameworks[framework].tasks[TaskId("t")].state is TaskState.FINISHED

    world.update(framework, agent_id, TaskState.RUNNING, number=0, latest=TaskState.FINISHED)
    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)
    assert [status.state for status in world.updates()] == [TaskState.RUNNING, TaskState.FINISHED]


def test_acknowledging_a_later_update_acknowledges_the_earlier_ones() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING, number=0)
    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)

    world.acknowledge(framework, agent_id, number=1)

    assert world.master.roster.frameworks[framework].tasks == {}


def test_an_update_whose_forerunner_was_lost_is_not_taken_for_told() -> None:
    world = World()
    framework, agent_id = world.run()

    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)

    entry = world.master.roster.frameworks[framework].tasks[TaskId("t")]
    assert (entry.state, entry.forwarded, entry.waiting) == (TaskState.FINISHED, TaskState.STAGING, [])
    world.update(framework, agent_id, TaskState.RUNNING, number=0)
    world.update(framework, agent_id, TaskState.FINISHED, number=1, after=0)
    assert (entry.forwarded, len(entry.waiting)) == (TaskState.FINISHED, 2)


def test_a_repeated_update_is_passed_on_but_noted_once() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING)

    world.update(framework, agent_id, TaskState.RUNNING)

    assert len(world.updates()) == 2
    entry = world.master.roster.frameworks[framework].tasks[TaskId("t")]
    assert (len(entry.waiting), len(entry.history)) == (1, 2)


# -- kill


def test_kill_goes_to_the_agent_and_is_repeated_when_it_returns() -> None:
    world = World()
    framework, agent_id = world.run()
    world.deliver(F, Kill(framework, TaskId("t"), grace_ms=7, operation_id=OperationId("k")))
    assert world.one(A, KillTask).grace_ms == 7
    assert world.one(F, OperationResult).ok

    world.lose_link("tcp://a:1")
    world.agent(agent_id=agent_id, tasks=[])

    assert world.one(A, KillTask).grace_ms == 7


def test_kill_while_the_agent_is_away_waits_for_it() -> None:
    world = World()
    framework, agent_id = world.run()
    world.lose_link("tcp://a:1")

    world.deliver(F, Kill(framework, TaskId("t")))

    assert world.take(A, KillTask) == []
    world.agent(agent_id=agent_id)
    assert world.one(A, KillTask).grace_ms == -1


def test_kill_of_an_unknown_task_is_answered_like_a_question() -> None:
    world = World()
    framework = world.framework()

    world.deliver(F, Kill(framework, TaskId("t"), operation_id=OperationId("k")))

    sent = world.inbox[Address(F)]
    assert next(m.reason for m in sent if isinstance(m, OperationResult)) == "unknown-task"
    [status] = world.updates()
    assert (status.state, status.reason, status.update_id) == (TaskState.UNKNOWN, Reason.RECONCILIATION, "")


def test_kill_with_the_wrong_agent_is_ignored() -> None:
    world = World()
    framework, _ = world.run()

    world.deliver(F, Kill(framework, TaskId("t"), AgentId("other")))

    assert world.take(A, KillTask) == []


def test_an_operator_kills_by_task_id() -> None:
    world = World()
    world.run()

    world.deliver("peer:cli/client", KillByOperator(OperationId("k"), TaskId("t"), grace_ms=0))

    assert world.one("peer:cli/client", OperationResult).ok
    assert world.one(A, KillTask).grace_ms == 0


def test_an_operator_must_say_which_of_two() -> None:
    world = World()
    framework, _ = world.run("t", "f", "a")
    world.deliver(F, Suppress(framework))
    world.run("t", "g", "b")

    world.deliver("peer:cli/client", KillByOperator(OperationId("k"), TaskId("t")))

    assert world.one("peer:cli/client", OperationResult).reason == "ambiguous"


@pytest.mark.parametrize(("principal", "reason"), [("f-key", ""), ("cluster", ""), ("other", "unauthorized")])
def test_killing_takes_the_owners_or_the_clusters_key(principal: str, reason: str) -> None:
    world = World()
    world.agent()
    world.deliver(F, Subscribe(FrameworkInfo("f")), "f-key")
    [offer] = world.offers()
    framework = offer_framework(world)
    world.deliver(F, Accept(framework, (offer.offer_id,), (Launch((task(),)),)), "f-key")

    world.deliver("peer:cli/client", KillByOperator(OperationId("k"), TaskId("t")), principal)

    assert reason == world.one("peer:cli/client", OperationResult).reason


# -- reconciliation


def ask(world: World, framework: FrameworkId, *tasks: tuple[str, str]) -> list[tuple[str, str]]:
    world.deliver(F, Reconcile(framework, tuple((TaskId(t), AgentId(a)) for t, a in tasks)))
    statuses = world.updates()
    assert all(s.reason is Reason.RECONCILIATION and not s.update_id for s in statuses)
    assert all(s.source is Source.MASTER for s in statuses)
    return [(s.task_id, s.state.value) for s in statuses]


def test_implicit_reconciliation_tells_the_last_state_told() -> None:
    world = World()
    framework, agent_id = world.run()
    world.update(framework, agent_id, TaskState.RUNNING, latest="FINISHED")
    world.updates()

    assert ask(world, framework) == [("t", "RUNNING")]


def test_implicit_reconciliation_comes_in_portions() -> None:
    world = World()
    world.agent(resources=Resources.parse("cpus:4000"))
    framework = world.framework()
    small = Resources.parse("cpus:1")
    world.launch(framework, world.offers(), *(task(f"t{n}", small) for n in range(1_200)))

    assert [f"t{n}" for n in range(1_200)] == [task_id for task_id, _ in ask(world, framework)]


def test_explicit_reconciliation_by_rule() -> None:
    world = World(MasterSettings(max_missed_pings=1, ping_interval_ms=100))
    lost = world.agent("lost")
    world.advance(300)
    framework, agent_id = world.run()

    assert ask(world, framework, ("t", ""), ("gone", agent_id), ("away", lost), ("who", ""), ("where", "nowhere")) == [
        ("t", "STAGING"),
        ("gone", "GONE"),
        ("away", "UNREACHABLE"),
        ("who", "UNKNOWN"),
        ("where", "UNKNOWN"),
    ]


def test_explicit_reconciliation_stays_silent_while_the_agent_is_expected() -> None:
    world = World()
    framework, agent_id = world.run()
    world.start()
    world.framework(framework_id=framework)

    assert ask(world, framework, ("t", agent_id), ("t", "")) == []


def test_nothing_is_done_in_the_name_of_somebody_else() -> None:
    world = World()
    framework, _ = world.run()

    for message in (Kill(framework, TaskId("t")), Accept(framework, ()), Reconcile(framework), Revive(framework)):
        world.deliver("peer:evil/framework", message, principal="evil")

        refused = world.one("peer:evil/framework", Refused)
        assert ("not-subscribed", type(message).__name__) == (refused.reason, refused.about)
    assert world.take(A, KillTask) == []
