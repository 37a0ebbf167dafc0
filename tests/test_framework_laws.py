"""Laws of the framework's driver under any order of events: it never raises, never acknowledges what it has not kept,
calls back one at a time, and sends only what a callback or the protocol asked for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import hypothesis.strategies as st
from hypothesis import given

from mesos_actor.actors.actor import Context, Persist, Send, Stop
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ExecutorId,
    FrameworkId,
    Node,
    OfferId,
    OperationId,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import (
    Acknowledge,
    AgentLost,
    ExecutorLost,
    FromExecutor,
    Instruction,
    Offers,
    OperationResult,
    Posted,
    Refused,
    Rescind,
    Subscribe,
    Subscribed,
    Update,
)
from mesos_actor.actors.messages.values import Offer, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling import FrameworkActor
from mesos_actor.actors.task import Source, TaskState

MASTERS = (Address("tcp://10.0.0.1:5050/master"), Address("tcp://10.0.0.2:5050/master"))
ME = FrameworkId("c0-0001")
AGENTS = [AgentId("c0-S1"), AgentId("c0-S2")]
NODES = [Node("tcp://10.0.0.1:5050"), Node("tcp://10.0.0.2:5050"), Node("tcp://10.0.1.1:5051")]
TASKS = [TaskId(f"t{n}") for n in range(4)]
UPDATES = [UpdateId(f"u{n}") for n in range(5)] + [UpdateId("")]
OFFERS = [OfferId(f"o{n}") for n in range(4)]
OPERATIONS = [OperationId(f"op{n}") for n in range(3)] + [OperationId("")]


class Busy(Framework):
    """Does something of everything, and keeps each update before it returns."""

    inside = 0
    number = 0

    def on_offers(self, offers: Sequence[Offer]) -> None:
        self.inside += 1
        assert self.inside == 1
        for offer in offers:
            self.number += 1
            self.accept(offer, [command_task(f"mine{self.number}", ["true"], Resources.of(cpus=1))])
        self.inside -= 1

    def on_update(self, status: Status) -> None:
        self.persist(f"seen/{status.update_id or 'none'}", status.task_id.encode())
        if status.state is TaskState.RUNNING:
            self.kill(status.task_id)

    def on_agent_lost(self, agent_id: AgentId) -> None:
        self.reconcile(TASKS)

    def on_message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self.message(agent_id, executor_id, data)

    def on_disconnected(self) -> None:
        self.suppress()

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.revive()

    def on_posted(self, value: Any) -> None:
        if value == "stop":
            self.stop()


statuses = st.builds(
    Status,
    st.sampled_from(TASKS),
    st.sampled_from(list(TaskState)),
    st.sampled_from(list(Source)),
    agent_id=st.sampled_from(AGENTS),
    update_id=st.sampled_from(UPDATES),
)
offers = st.builds(
    lambda i, a: Offer(i, a, "h", Role("*"), Resources.of(cpus=2), agent_address=Address("tcp://10.0.1.1:5051/agent")),
    st.sampled_from(OFFERS),
    st.sampled_from(AGENTS),
)
reasons = st.sampled_from(["not-leading", "not-subscribed", "invalid", "full", "removed", "failed-over"])
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(
        Subscribed, st.sampled_from([ME, FrameworkId("other")]), st.just(ClusterId("c0")), st.integers(1, 3).map(Term)
    ),
    st.builds(Offers, st.lists(offers, max_size=3).map(tuple)),
    st.builds(Rescind, st.lists(st.sampled_from(OFFERS), max_size=3).map(tuple)),
    st.builds(Update, st.just(ME), statuses),
    st.builds(FromExecutor, st.just(ME), st.sampled_from(AGENTS), st.just(ExecutorId("e")), st.binary(max_size=3)),
    st.builds(AgentLost, st.sampled_from(AGENTS)),
    st.builds(ExecutorLost, st.sampled_from(AGENTS), st.just(ExecutorId("e"))),
    st.builds(OperationResult, st.sampled_from(OPERATIONS), st.booleans()),
    st.builds(
        Refused,
        reasons,
        st.just("no"),
        fatal=st.integers(0, 9).map(lambda n: n == 0),
        leader=st.sampled_from([*MASTERS, Address("")]),
        operation_id=st.sampled_from(OPERATIONS),
    ),
    st.builds(Instruction, st.sampled_from(OPERATIONS), st.just(Address("peer:x/c")), st.binary(max_size=3)),
    st.builds(FileData, st.sampled_from(OPERATIONS), st.just(0), st.just(0)),
    st.just(Posted()),
    st.just(Subscribe(info=None)),  # type: ignore[arg-type]
)
timers = st.sampled_from(
    ["subscribe", "reconcile", "reconcile-all", "owed", "teardown", "posted", "user/x", "unheard-of"]
)
events: st.SearchStrategy[tuple[str, Any]] = st.one_of(
    st.tuples(st.just("message"), st.tuples(st.sampled_from(MASTERS), messages)),
    st.tuples(st.just("message"), st.tuples(st.just(MASTERS[0]), messages)),
    st.tuples(st.just("timer"), timers),
    st.tuples(st.just("lost"), st.sampled_from(NODES)),
    st.tuples(st.just("post"), st.sampled_from(["x", "y", "z", "stop"])),
)


def play(driver: FrameworkActor, ctx: Context, kind: str, body: Any) -> None:
    if kind == "message":
        driver.on_message(ctx, *body)
    elif kind == "timer":
        driver.on_timer(ctx, body)
    elif kind == "lost":
        driver.on_link_lost(ctx, body)
    elif not driver.ended:
        driver.author.post(body)


@given(st.lists(events, max_size=40))
def test_any_order_of_events_keeps_the_laws(history: list[tuple[str, Any]]) -> None:
    framework = Busy()
    driver = FrameworkActor(framework, MASTERS)
    ctx = Context("framework", Node("peer:f1"), 1, random.Random(0))
    driver.on_start(ctx)
    driver.on_message(ctx, MASTERS[0], Subscribed(ME, ClusterId("c0"), Term(1)))
    kept: set[str] = set()
    for kind, body in history:
        ended = driver.ended
        ctx.effects = []

        play(driver, ctx, kind, body)

        assert not ended or ctx.effects == []
        for effect in ctx.effects:
            if isinstance(effect, Persist) and effect.record is not None:
                kept.add(effect.key)
            if isinstance(effect, Send) and isinstance(effect.message, Acknowledge):
                assert f"user/seen/{effect.message.update_id}" in kept
                assert effect.message.update_id
                assert effect.to == driver.leader
        assert framework.inside == 0
        assert framework.connected == bool(driver.leader)
        assert driver.ended == any(isinstance(e, Stop) for e in ctx.effects) or ended
        assert framework._driver is None
        assert not driver.failure or "removed" in str(driver.failure) or driver.ended
