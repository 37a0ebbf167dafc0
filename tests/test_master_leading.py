"""Leading, following, and a registry that answers late, never, or no."""

from __future__ import annotations

import random

import pytest

from mesos_actor.actors.actor import Context
from mesos_actor.actors.core.settings import MasterSettings
from mesos_actor.actors.ids import Address, AgentId, ClusterId, Node, OperationId, Principal, Role, Term
from mesos_actor.actors.master import Master
from mesos_actor.actors.messages.agents import RegisterAgent, Registered
from mesos_actor.actors.messages.clients import Leader, MarkAgentGone, Query, QueryResult, SetRoleWeight, WhoLeads
from mesos_actor.actors.messages.registry import Committed, Following, Leading, ProposalRefused, Propose, WeightRecord
from mesos_actor.actors.messages.scheduler import OperationResult, Refused, Rescind, Subscribe, Subscribed
from mesos_actor.actors.messages.values import FrameworkInfo
from tests.master_world import FOUR, ONE, REGISTRY, GreedyAllocator, World

F, A, CLI = "peer:f/framework", "tcp://a:1/agent", "peer:cli/client"


def context(principal: str = "local") -> Context:
    ctx = Context("master", Node("tcp://m:1"), 1_000_000, random.Random(0))
    ctx.principal = Principal(principal)
    return ctx


# -- who leads


def test_a_master_that_has_not_heard_from_its_registry_asks_and_refuses() -> None:
    master = Master(MasterSettings(), GreedyAllocator())
    ctx = context()
    master.on_start(ctx)
    assert [(REGISTRY, WhoLeads())] == ctx.sent()

    ctx = context("cluster")
    master.on_message(ctx, Address(F), Subscribe(FrameworkInfo("f"), operation_id=OperationId("o")))
    master.on_timer(ctx, "ask-registry")

    refused = Refused("not-leading", "This master does not lead", False, Address(""), OperationId("o"), "Subscribe")
    assert [(F, refused), (REGISTRY, WhoLeads())] == ctx.sent()


def test_a_follower_names_the_leader() -> None:
    master = Master(MasterSettings(), GreedyAllocator())
    there = Address("tcp://other:1/master")
    master.on_message(context(), REGISTRY, Following(Term(3), there))

    ctx = context("cluster")
    master.on_message(ctx, Address(CLI), WhoLeads(OperationId("w")))
    master.on_message(ctx, Address(F), Subscribe(FrameworkInfo("f")))

    [(_, leader), (_, refused)] = ctx.sent()
    assert Leader(there, OperationId("w")) == leader
    assert isinstance(refused, Refused)
    assert there == refused.leader


def test_the_leader_names_itself() -> None:
    world = World()

    world.deliver(CLI, WhoLeads())

    assert world.one(CLI, Leader).address == "tcp://m:1/master"


@pytest.mark.parametrize(("sender", "principal"), [("tcp://evil:1/registry", "cluster"), ("/agent", "local")])
def test_only_the_registry_of_the_same_process_makes_a_leader(sender: str, principal: str) -> None:
    master = Master(MasterSettings(), GreedyAllocator())

    master.on_message(context(principal), Address(sender), Leading(Term(9), ClusterId("c")))

    assert not master.leading


def test_only_the_registry_of_the_same_process_commits() -> None:
    world = World()
    world.registry_answers = False
    world.deliver(F, Subscribe(FrameworkInfo("f")))
    operation_id = next(iter(world.master.pending._by_id))

    world.deliver("tcp://evil:1/registry", Committed(operation_id, 1))
    world.deliver("tcp://evil:1/registry", ProposalRefused(operation_id, "not-leading", "ha"))
    world.deliver("tcp://evil:1/registry", Following(Term(99)))

    assert world.master.leading
    assert len(world.master.pending) == 1


def test_a_deposed_master_forgets_and_a_new_term_starts_afresh() -> None:
    world = World()
    agent_id, framework = world.agent(), world.framework()
    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 5_000))

    world.deliver(REGISTRY, Following(Term(2)), "local")

    assert (world.allocator.agents, world.allocator.frameworks, world.allocator.weights["ads"]) == ({}, {}, 1_000)
    world.deliver(A, RegisterAgent(world.agent_info("a"), "reg-a", agent_id, term=world.master.term))
    assert [refused.reason for refused in world.take(A, Refused)] == ["not-leading"] * 2
    records = world.registry.state.records()
    world.deliver(REGISTRY, Leading(Term(3), world.registry.state.cluster.cluster_id, records), "local")  # type: ignore[union-attr]
    assert (agent_id, 3) == (next(iter(world.master.roster.agents)), world.master.term)
    assert framework in world.allocator.frameworks


def test_a_stale_term_deposes() -> None:
    world = World()
    world.registry.on_start(registry_context(world))
    world.deliver(F, Subscribe(FrameworkInfo("f")))

    assert world.one(F, Refused).reason == "not-leading"
    world.advance(1_000)
    assert (world.master.leading, world.master.term) == (True, 2)


def registry_context(world: World) -> Context:
    return Context("registry", Node(""), world.now_us, random.Random(1), world.kept)


# -- a registry that does not answer


def silent(world: World) -> None:
    world.registry_answers = False


def test_repeats_join_the_pending_operation() -> None:
    world = World()
    silent(world)

    for _ in range(3):
        world.deliver(F, Subscribe(FrameworkInfo("f"), operation_id=OperationId("o")))

    assert len(world.master.pending) == 1
    assert len(next(iter(world.master.pending._by_id.values())).requests) == 1


def test_past_the_deadline_the_outcome_is_unknown_and_the_repeat_is_harmless() -> None:
    world = World()
    silent(world)
    world.deliver(F, Subscribe(FrameworkInfo("f"), operation_id=OperationId("o")))

    world.advance(20_000)
    refused = world.one(F, Refused)
    assert (refused.reason, refused.fatal, refused.operation_id) == ("unavailable", False, "o")
    assert refused.text == "The registry did not answer within 20000 ms: the outcome is unknown"
    world.registry_answers = True
    world.advance(20_000)

    assert len(world.master.pending) == 0
    assert len(world.registry.state.frameworks) == 1


def test_a_full_table_refuses_by_name() -> None:
    world = World(MasterSettings(max_pending_operations=1))
    silent(world)
    world.deliver(F, Subscribe(FrameworkInfo("f")))

    world.deliver("peer:g/framework", Subscribe(FrameworkInfo("g")))

    refused = world.one("peer:g/framework", Refused)
    assert (
        refused.reason,
        refused.text,
    ) == ("full", "1 operations wait for the registry, the most that may; ask again")


def test_whoever_went_away_meanwhile_is_not_taken_for_connected() -> None:
    world = World()
    silent(world)
    world.deliver(F, Subscribe(FrameworkInfo("f", failover_timeout_ms=60_000)))
    world.deliver(A, RegisterAgent(world.agent_info("a"), "reg-a", term=world.master.term))
    world.lose_link("peer:f")
    world.lose_link("tcp://a:1")
    world.registry_answers = True

    world.advance(20_000)

    [framework] = world.master.roster.frameworks.values()
    assert not framework.connected
    assert framework.recorded_deadline_us > world.now_us
    [agent] = world.master.roster.agents.values()
    assert not agent.connected
    assert (world.take(F, Subscribed), world.take(A, Registered)) == ([], [])


def test_an_agent_being_marked_is_not_registered_until_that_is_done() -> None:
    world = World()
    agent_id = world.agent()
    silent(world)
    world.deliver(CLI, MarkAgentGone(OperationId("g"), agent_id))

    world.deliver(A, RegisterAgent(world.agent_info("a"), "reg-a", agent_id, term=world.master.term))
    world.deliver(A, RegisterAgent(world.agent_info("a"), "reg-a", term=world.master.term))

    assert len(world.master.pending) == 1


def test_marking_waits_for_a_registration_that_is_being_written() -> None:
    world = World()
    agent_id = world.agent()
    silent(world)
    world.deliver(A, RegisterAgent(world.agent_info("a", FOUR + ONE), "reg-a", term=world.master.term))
    world.deliver(CLI, MarkAgentGone(OperationId("g"), agent_id))

    result = world.one(CLI, OperationResult)
    assert (result.ok, result.reason) == (False, "unavailable")


def test_proposals_carry_the_term_and_an_id_of_this_master() -> None:
    master = Master(MasterSettings(), GreedyAllocator())
    master.on_message(context(), REGISTRY, Leading(Term(4), ClusterId("c"), (WeightRecord(Role("r"), 7),)))
    ctx = context("cluster")

    master.on_message(ctx, Address(F), Subscribe(FrameworkInfo("f")))

    [(to, proposal)] = ctx.sent()
    assert isinstance(proposal, Propose)
    assert (REGISTRY, 4, f"{master.master_id}-P1") == (to, proposal.term, proposal.operation_id)
    assert master.roster.weights[Role("r")] == 7


# -- operators' policy


def test_a_weight_is_written_down_and_offers_of_the_role_are_made_again() -> None:
    world = World()
    world.agent()
    world.framework(roles=("ads/video",))
    world.offers()

    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role("ads"), 2_000))

    assert world.one(CLI, OperationResult).ok
    assert world.allocator.weights["ads"] == 2_000
    assert WeightRecord(Role("ads"), 2_000) == world.kept["weight/ads"]
    assert len(world.one(F, Rescind).offer_ids) == 1
    world.start()
    assert world.allocator.weights["ads"] == 2_000


@pytest.mark.parametrize(("role", "weight"), [("a//b", 1_000), ("a", 0), ("a", 10**12)])
def test_a_bad_weight_is_refused(role: str, weight: int) -> None:
    world = World()

    world.deliver(CLI, SetRoleWeight(OperationId("w"), Role(role), weight))

    assert world.one(CLI, Refused).reason == "invalid"


@pytest.mark.parametrize(
    "message",
    [
        SetRoleWeight(OperationId("w"), Role("a"), 1_000),
        MarkAgentGone(OperationId("g"), AgentId("a")),
    ],
)
def test_operators_need_the_clusters_key(message: SetRoleWeight | MarkAgentGone) -> None:
    world = World()

    world.deliver(CLI, message, "somebody")

    refused = world.one(CLI, Refused)
    assert ("unauthorized", message.operation_id) == (refused.reason, refused.operation_id)


def test_anybody_may_look() -> None:
    world = World()

    world.deliver(CLI, Query(OperationId("q"), "status"), "somebody")

    assert len(world.one(CLI, QueryResult).rows) == 1
