"""The registry on one disk: it keeps before it answers, obeys its own process, and finds everything again."""

from __future__ import annotations

import random

from mesos_actor.actors.actor import Context, Persist, Send
from mesos_actor.actors.ids import Address, FrameworkId, Node, OperationId, Principal, Role, Term
from mesos_actor.actors.messages.base import Record
from mesos_actor.actors.messages.clients import WhoLeads
from mesos_actor.actors.messages.registry import (
    AdmitFramework,
    ClusterRecord,
    CollectRecords,
    Committed,
    Leading,
    ProposalRefused,
    Propose,
    RemoveFramework,
    SetWeight,
    WeightRecord,
)
from mesos_actor.actors.messages.scheduler import Refused
from mesos_actor.actors.messages.values import FrameworkInfo
from mesos_actor.actors.registry import RegistryActor
from tests.master_world import MASTER


def context(kept: dict[str, Record] | None = None, principal: str = "local") -> Context:
    ctx = Context("registry", Node(""), 1_000, random.Random(7), kept)
    ctx.principal = Principal(principal)
    return ctx


def propose(registry: RegistryActor, command: object, term: int = 1) -> Context:
    ctx = context()
    registry.on_message(ctx, MASTER, Propose(OperationId("p"), Term(term), command))  # type: ignore[arg-type]
    return ctx


def started() -> RegistryActor:
    registry = RegistryActor()
    registry.on_start(context())
    return registry


def test_the_first_start_names_the_cluster_and_keeps_that_before_it_leads() -> None:
    registry, ctx = RegistryActor(), context()

    registry.on_start(ctx)

    persist, send, _ = ctx.effects
    assert isinstance(persist, Persist) and isinstance(persist.record, ClusterRecord)
    cluster = persist.record
    assert (len(cluster.cluster_id), cluster.term) == (16, 1)
    assert Send(MASTER, Leading(Term(1), cluster.cluster_id, (cluster,))) == send


def test_a_restart_leads_in_the_next_term_with_all_records() -> None:
    registry = started()
    weight = WeightRecord(Role("ads"), 5)
    cluster = registry.state.cluster
    assert cluster is not None
    again, ctx = RegistryActor(), context({"cluster": cluster, "weight/ads": weight})

    again.on_start(ctx)

    [(_, leading)] = ctx.sent()
    assert isinstance(leading, Leading)
    assert (2, cluster.cluster_id, weight) == (leading.term, leading.cluster_id, leading.records[-1])


def test_what_a_command_changes_is_kept_before_the_answer() -> None:
    registry = started()

    ctx = propose(registry, SetWeight(Role("ads"), 5))

    record = WeightRecord(Role("ads"), 5)
    assert [Persist("weight/ads", record), Send(MASTER, Committed(OperationId("p"), 1, (record,)))] == ctx.effects


def test_what_a_command_drops_is_forgotten_on_the_disk() -> None:
    registry = started()
    propose(registry, AdmitFramework(FrameworkInfo("f"), OperationId("o"), 1))
    framework = next(iter(registry.state.frameworks))
    propose(registry, RemoveFramework(FrameworkId(framework), 2))

    ctx = propose(registry, CollectRecords(3))

    assert Persist(f"framework/{framework}", None) == ctx.effects[0]


def test_a_refusal_keeps_nothing() -> None:
    registry = started()

    ctx = propose(registry, SetWeight(Role("ads"), 0))

    text = "weight_milli 0 must be from 1 to 1000000000 thousandths"
    assert [Send(MASTER, ProposalRefused(OperationId("p"), "invalid", text))] == ctx.effects


def test_an_older_or_newer_term_is_refused() -> None:
    registry = started()

    for term in (0, 2):
        [(_, refused)] = propose(registry, SetWeight(Role("ads"), 5), term).sent()
        assert isinstance(refused, ProposalRefused)
        assert ("stale-term", f"Proposed in term {term}, but it is term 1") == (refused.reason, refused.text)


def test_it_tells_a_restarted_master_what_it_missed() -> None:
    registry, ctx = started(), context()

    registry.on_message(ctx, MASTER, WhoLeads())

    [(_, leading)] = ctx.sent()
    assert isinstance(leading, Leading)


def test_it_obeys_its_own_process_only() -> None:
    registry = started()
    evil = Address("tcp://evil:1/master")

    for message in (WhoLeads(), Propose(OperationId("p"), Term(1), SetWeight(Role("ads"), 5))):
        ctx = context(principal="cluster")
        registry.on_message(ctx, evil, message)

        [(to, refused)] = ctx.sent()
        assert isinstance(refused, Refused)
        assert (evil, "unauthorized", type(message).__name__) == (to, refused.reason, refused.about)
    assert registry.state.weights == {}
