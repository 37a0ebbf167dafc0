"""The driver of frameworks, one event at a time: what it sends, when it calls back, what it never does."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from mesos_actor.actors.actor import CancelTimer, Context, Persist, Send, SetTimer, Stop, Watch
from mesos_actor.actors.core.leader_search import LeaderSearch
from mesos_actor.actors.core.validation import command_error
from mesos_actor.actors.errors import ConfigError, LocalError, PeerError
from mesos_actor.actors.framework import Framework, command_task
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    OfferId,
    OperationId,
    Role,
    TaskId,
    Term,
    UpdateId,
    node_of,
)
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.containers import FileData, ReadFile
from mesos_actor.actors.messages.records import SubscriptionRecord, UserRecord
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    AgentLost,
    Decline,
    ExecutorLost,
    FromExecutor,
    Instruction,
    InstructionDone,
    Kill,
    Offers,
    OperationResult,
    Posted,
    Reconcile,
    Refused,
    RequestDemand,
    Rescind,
    Revive,
    Subscribe,
    Subscribed,
    Suppress,
    Teardown,
    ToExecutor,
    Unsubscribe,
    Update,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, Demand, Offer, Status, Task
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling import SUBSCRIPTION, FrameworkActor
from mesos_actor.actors.task import Reason, Source, TaskState

M1 = Address("tcp://10.0.0.1:5050/master")
M2 = Address("tcp://10.0.0.2:5050/master")
FRAMEWORK = FrameworkId("c0-0001")
AGENT = AgentId("c0-S1")


class Recorder(Framework):
    """Notes each callback; `do` maps a callback's name to what it does then."""

    name = "recorder"

    def __init__(self, **do: Callable[..., None]) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.do = do

    def note(self, name: str, *args: Any) -> None:
        self.calls.append((name, *args))
        if name in self.do:
            self.do[name](self, *args)

    def named(self, name: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == name]

    def on_start(self) -> None:
        self.note("on_start")

    def on_registered(self, framework_id: FrameworkId) -> None:
        self.note("on_registered", framework_id)

    def on_offers(self, offers: Sequence[Offer]) -> None:
        self.note("on_offers", *offers)

    def on_rescinded(self, offer_ids: Sequence[OfferId]) -> None:
        self.note("on_rescinded", *offer_ids)

    def on_update(self, status: Status) -> None:
        self.note("on_update", status)

    def on_operation(self, result: OperationResult) -> None:
        self.note("on_operation", result)

    def on_message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self.note("on_message", agent_id, executor_id, data)

    def on_agent_lost(self, agent_id: AgentId) -> None:
        self.note("on_agent_lost", agent_id)

    def on_executor_lost(
        self, agent_id: AgentId, executor_id: ExecutorId, exit_status: int | None, signal: int | None
    ) -> None:
        self.note("on_executor_lost", agent_id, executor_id, exit_status, signal)

    def on_file(self, file: FileData) -> None:
        self.note("on_file", file)

    def on_disconnected(self) -> None:
        self.note("on_disconnected")

    def on_error(self, reason: str, text: str) -> None:
        self.note("on_error", reason, text)

    def on_timer(self, name: str) -> None:
        self.note("on_timer", name)

    def on_posted(self, value: Any) -> None:
        self.note("on_posted", value)


class Bench:
    """A driver with its context, without a world: each call returns the effects of that one event."""

    def __init__(
        self,
        framework: Framework | None = None,
        masters: Sequence[Address] = (M1,),
        recovered: dict[str, Record] | None = None,
    ) -> None:
        self.framework = framework or Recorder()
        self.ctx = Context("framework", Node("peer:f1"), 1_000_000, random.Random(1), recovered)
        self.driver = FrameworkActor(self.framework, masters)

    @property
    def calls(self) -> list[tuple[Any, ...]]:
        assert isinstance(self.framework, Recorder)
        return self.framework.calls

    def effects(self, event: Callable[[], None]) -> list[Any]:
        self.ctx.effects = []
        event()
        return self.ctx.effects

    def start(self) -> list[Any]:
        return self.effects(lambda: self.driver.on_start(self.ctx))

    def get(self, message: Message, sender: Address = M1) -> list[Any]:
        return self.effects(lambda: self.driver.on_message(self.ctx, sender, message))

    def timer(self, name: str) -> list[Any]:
        return self.effects(lambda: self.driver.on_timer(self.ctx, name))

    def lose(self, node: str = "tcp://10.0.0.1:5050") -> list[Any]:
        return self.effects(lambda: self.driver.on_link_lost(self.ctx, Node(node)))

    def register(self) -> list[Any]:
        self.start()
        return self.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(1)))

    def acting(self, act: Callable[[Framework], None]) -> list[Any]:
        """The effects of a callback that does `act`."""
        assert isinstance(self.framework, Recorder)
        self.framework.do["on_timer"] = lambda framework, _name: act(framework)
        return self.timer("user/act")


def sent(effects: list[Any], kind: type[Message] | None = None) -> list[Message]:
    return [e.message for e in effects if isinstance(e, Send) and (kind is None or isinstance(e.message, kind))]


def offer(number: int = 1, agent: AgentId = AGENT) -> Offer:
    return Offer(
        OfferId(f"m-O{number}"),
        agent,
        "host1",
        Role("*"),
        Resources.of(cpus=4, mem=1024),
        agent_address=Address("tcp://10.0.1.1:5051/agent"),
    )


def task(name: str = "t1") -> Task:
    return command_task(name, ["true"], Resources.of(cpus=1, mem=32))


def status(name: str = "t1", state: TaskState = TaskState.RUNNING, update: str = "t1.c:1") -> Status:
    return Status(TaskId(name), state, Source.EXECUTOR, agent_id=AGENT, update_id=UpdateId(update))


def update(*args: str, state: TaskState = TaskState.RUNNING) -> Update:
    name, number = (*args, "t1", "t1.c:1")[:2] if args else ("t1", "t1.c:1")
    return Update(FRAMEWORK, status(name, state, number))


# -- subscribing ------------------------------------------------------------------------------------------------------


def test_the_name_of_the_subscription_is_kept_before_it_is_sent() -> None:
    bench = Bench()

    effects = bench.start()

    kinds = [type(effect) for effect in effects]
    assert [Persist, Watch, Send, SetTimer] == kinds
    (message,) = sent(effects)
    assert isinstance(message, Subscribe)
    record = SubscriptionRecord(FrameworkId(""), message.operation_id, incarnation=1)
    assert effects[0] == Persist(SUBSCRIPTION, record)
    assert message.operation_id


def test_the_id_is_kept_before_the_author_hears_of_it_and_acts() -> None:
    bench = Bench(Recorder(on_registered=lambda f, _id: f.revive()))

    effects = bench.register()

    assert bench.calls[-1] == ("on_registered", FRAMEWORK)
    where = [i for i, e in enumerate(effects) if isinstance(e, Persist)]
    assert where and where[0] < effects.index(Send(M1, Revive(FRAMEWORK, (), OperationId("driver-1"))))
    assert isinstance(effects[where[0]].record, SubscriptionRecord)
    assert effects[where[0]].record.framework_id == FRAMEWORK
    assert bench.framework.connected
    assert not sent(effects, Reconcile)


def test_after_a_restart_it_comes_back_under_its_id_with_its_records() -> None:
    kept: dict[str, Record] = {
        SUBSCRIPTION: SubscriptionRecord(FRAMEWORK, OperationId("subscribe-1"), incarnation=4),
        "user/jobs": UserRecord(b"12"),
    }
    bench = Bench(recovered=kept)

    (message,) = sent(bench.start())

    assert message == Subscribe(bench.driver.info, FRAMEWORK, (), OperationId("subscribe-1"), 5)
    assert bench.framework.kept == {"jobs": b"12"}
    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(1), OperationId("subscribe-1")))
    assert sent(effects, Reconcile) == [Reconcile(FRAMEWORK)]


def test_masters_are_asked_in_turn_and_a_hint_is_followed_at_once() -> None:
    bench = Bench(masters=(M1, M2))
    bench.start()

    effects = bench.timer("subscribe")
    assert [e.to for e in effects if isinstance(e, Send)] == [M2]
    effects = bench.get(Refused("not-leading", "no", leader=M1), sender=M2)
    assert [e.to for e in effects if isinstance(e, Send)] == [M1]


@pytest.mark.parametrize("dies", [False, True])
def test_a_named_leader_that_dies_while_it_is_asked_is_not_waited_for(dies: bool) -> None:
    bench = Bench(masters=(M1, M2))
    bench.start()
    bench.get(Refused("not-leading", "no", leader=M2))
    if dies:
        bench.lose(node_of(M2))

    effects = bench.timer("subscribe")

    assert [e.to for e in effects if isinstance(e, Send)] == [M1 if dies else M2]


def test_masters_that_point_at_each_other_make_no_storm() -> None:
    bench = Bench(masters=(M1, M2))
    bench.start()
    here, there = M1, M2

    asked = 0
    for _ in range(50):
        effects = bench.get(Refused("not-leading", "no", leader=there), sender=here)
        if not sent(effects, Subscribe):
            break
        asked, here, there = asked + 1, there, here
    assert asked == 4


def test_the_pause_between_attempts_grows_up_to_its_limit() -> None:
    search, rng = LeaderSearch([M1]), random.Random(3)

    pauses = [search.pause_us(rng) for _ in range(40)]

    assert max(pauses[:1]) <= 500_000
    assert max(pauses) <= 15_000_000
    assert max(pauses[20:]) > 5_000_000
    assert min(pauses) >= 50_000


def test_an_answer_of_an_older_term_is_ignored() -> None:
    bench = Bench(masters=(M1, M2))
    bench.start()
    bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(7)))
    bench.lose()

    bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(6)), sender=M2)

    assert not bench.framework.connected


def test_another_id_than_ours_is_not_taken() -> None:
    bench = Bench(recovered={SUBSCRIPTION: SubscriptionRecord(FRAMEWORK, OperationId("subscribe-1"))})
    bench.start()

    bench.get(Subscribed(FrameworkId("c0-0009"), ClusterId("c0"), Term(1)))

    assert not bench.framework.connected
    assert bench.framework.framework_id == FRAMEWORK


def test_roles_that_cannot_be_used_end_the_run_by_name() -> None:
    framework = Recorder()
    framework.roles = ("bad role",)
    bench = Bench(framework)

    with pytest.raises(ConfigError, match="roles"):
        bench.start()
    assert isinstance(bench.driver.failure, ConfigError)


# -- offers and tasks -------------------------------------------------------------------------------------------------


def test_accept_launches_and_the_tasks_are_known() -> None:
    bench = Bench(Recorder(on_offers=lambda f, o: f.accept(o, [task()], refuse_s=2)))
    bench.register()

    (message,) = sent(bench.get(Offers((offer(),))))

    assert isinstance(message, Accept)
    assert message.offer_ids == (OfferId("m-O1"),)
    assert message.operations[0].tasks == (task(),)
    assert message.filters.refuse_ms == 2_000
    assert bench.framework.tasks[TaskId("t1")] == (AGENT, TaskState.STAGING)
    assert not bench.driver.offers


def test_accept_without_tasks_declines() -> None:
    bench = Bench(Recorder(on_offers=lambda f, o: f.accept(o, [])))
    bench.register()

    assert [Decline] == [type(m) for m in sent(bench.get(Offers((offer(),))))]


def test_offers_of_two_agents_are_not_accepted_together() -> None:
    bench = Bench(Recorder(on_offers=lambda f, *offers: f.accept(offers, [task()])))
    bench.register()

    with pytest.raises(LocalError, match="2 agents"):
        bench.get(Offers((offer(1), offer(2, AgentId("c0-S2")))))


def test_a_task_id_in_use_is_refused_before_it_is_sent() -> None:
    def twice(framework: Framework, one: Offer, two: Offer) -> None:
        framework.accept(one, [task()])
        with pytest.raises(LocalError, match="has not ended"):
            framework.accept(two, [task()])

    bench = Bench(Recorder(on_offers=twice))
    bench.register()

    assert len(sent(bench.get(Offers((offer(1), offer(2)))), Accept)) == 1
    assert bench.driver.failure is None


def test_a_lost_link_voids_offers_and_operations_and_searches_again() -> None:
    bench = Bench(Recorder(on_offers=lambda f, o, *_: f.accept(o, [task()], operation_id="op1")))
    bench.register()
    bench.get(Offers((offer(1), offer(2))))

    effects = bench.lose()

    assert [call[0] for call in bench.calls[-3:]] == ["on_rescinded", "on_operation", "on_disconnected"]
    assert bench.calls[-3][1:] == (OfferId("m-O2"),)
    assert (bench.calls[-2][1].ok, bench.calls[-2][1].reason) == (False, "unknown")
    assert [e.name for e in effects if isinstance(e, SetTimer)] == ["subscribe"]
    assert not bench.framework.connected


def test_tasks_accepted_without_a_master_are_dropped_with_a_status() -> None:
    bench = Bench()
    bench.register()
    bench.get(Offers((offer(),)))
    bench.lose()

    effects = bench.acting(lambda f: f.accept(offer(), [task()]))
    assert not sent(effects)
    bench.timer("owed")

    (dropped,) = bench.calls[-1][1:]
    assert (dropped.task_id, dropped.state, dropped.reason) == ("t1", TaskState.DROPPED, Reason.INVALID_OFFERS)
    assert not bench.framework.tasks


def test_a_rescinded_offer_that_was_used_is_not_reported() -> None:
    bench = Bench(Recorder(on_offers=lambda f, o, *_: f.decline(o)))
    bench.register()
    bench.get(Offers((offer(1), offer(2))))

    bench.get(Rescind((OfferId("m-O1"), OfferId("m-O2")), "timed-out"))

    assert bench.calls[-1] == ("on_rescinded", OfferId("m-O2"))


def test_messages_of_others_than_the_leader_are_not_acted_on() -> None:
    bench = Bench()
    bench.register()

    for message in (Offers((offer(),)), update(), Rescind((OfferId("x"),)), AgentLost(AGENT)):
        bench.get(message, sender=M2)

    assert [call[0] for call in bench.calls] == ["on_start", "on_registered"]


# -- updates ----------------------------------------------------------------------------------------------------------


def test_an_update_is_acknowledged_after_the_callback_and_what_it_kept() -> None:
    bench = Bench(Recorder(on_update=lambda f, s: f.persist("seen", s.task_id.encode())))
    bench.register()

    effects = bench.get(update())

    assert effects == [
        Persist("user/seen", UserRecord(b"t1")),
        Send(M1, Acknowledge(FRAMEWORK, AGENT, TaskId("t1"), UpdateId("t1.c:1"))),
    ]


def test_a_repeat_is_acknowledged_again_but_told_once() -> None:
    bench = Bench()
    bench.register()

    bench.get(update())
    effects = bench.get(update())

    assert [Acknowledge] == [type(m) for m in sent(effects)]
    assert len([call for call in bench.calls if call[0] == "on_update"]) == 1


def test_manual_acknowledgement_waits_for_the_author() -> None:
    class Manual(Recorder):
        manual_acknowledge = True

    bench = Bench(Manual())
    bench.register()

    assert not sent(bench.get(update()))
    assert not sent(bench.get(update()))
    assert [Acknowledge] == [type(m) for m in sent(bench.acting(lambda f: f.acknowledge(status())))]
    assert [Acknowledge] == [type(m) for m in sent(bench.get(update()))]


def test_updates_without_an_id_are_never_acknowledged() -> None:
    bench = Bench()
    bench.register()

    assert not sent(bench.get(update("t1", "")))
    assert not sent(bench.acting(lambda f: f.acknowledge(status(update=""))))


def test_a_terminal_update_ends_the_knowledge_of_a_task() -> None:
    bench = Bench()
    bench.register()
    bench.get(update())
    assert bench.framework.tasks == {"t1": (AGENT, TaskState.RUNNING)}

    bench.get(update("t1", "t1.c:2", state=TaskState.FINISHED))

    assert not bench.framework.tasks


def test_a_rescinded_offer_that_was_accepted_has_its_tasks_asked_about() -> None:
    """The Accept was lost, or crossed the Rescind: either way the master says what became of the tasks."""
    bench = Bench(Recorder(on_offers=lambda f, o: f.accept(o, [task()])))
    bench.register()
    bench.get(Offers((offer(),)))

    effects = bench.get(Rescind((OfferId("m-O1"),), "timed-out"))

    assert sent(effects) == [Reconcile(FRAMEWORK, ((TaskId("t1"), AGENT),))]
    assert bench.calls[-1][0] == "on_offers"


# -- reconciliation and kills -----------------------------------------------------------------------------------------


def test_reconciliation_asks_until_answered_after_every_return() -> None:
    bench = Bench()
    bench.register()
    bench.get(update("t1", "a:1"))
    bench.get(update("t2", "b:1"))
    bench.lose()

    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(2)), sender=M1)
    asked = ((TaskId("t1"), AGENT), (TaskId("t2"), AGENT))
    assert sent(effects, Reconcile) == [Reconcile(FRAMEWORK), Reconcile(FRAMEWORK, asked)]
    bench.get(update("t1", ""))
    assert sent(bench.timer("reconcile")) == [Reconcile(FRAMEWORK, (asked[1],))]
    bench.get(update("t2", "", state=TaskState.GONE))
    assert bench.timer("reconcile") == []


def test_reconciliation_comes_back_every_quarter_of_an_hour() -> None:
    bench = Bench()
    bench.register()
    bench.get(update())

    effects = bench.timer("reconcile-all")

    assert sent(effects) == [Reconcile(FRAMEWORK, ((TaskId("t1"), AGENT),))]
    assert SetTimer("reconcile-all", 900_000_000) in effects


def test_a_large_reconciliation_is_asked_in_pieces() -> None:
    bench = Bench()
    bench.register()

    effects = bench.acting(lambda f: f.reconcile(f"t{n}" for n in range(2_500)))

    assert [len(m.tasks) for m in sent(effects) if isinstance(m, Reconcile)] == [1_000, 1_000, 500]


def test_a_kill_is_repeated_after_a_return_until_the_task_ended() -> None:
    bench = Bench()
    bench.register()
    bench.get(update())
    kill = Kill(FRAMEWORK, TaskId("t1"), AGENT, 1_500)
    assert sent(bench.acting(lambda f: f.kill("t1", grace_s=1.5))) == [kill]
    bench.lose()

    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(2)))
    assert sent(effects, Kill) == [kill]

    bench.get(update("t1", "t1.c:2", state=TaskState.KILLED))
    bench.lose()
    assert not sent(bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(3))), Kill)


# -- the other actions and callbacks ----------------------------------------------------------------------------------


def test_what_was_declared_is_said_again_after_a_return() -> None:
    demand = Demand(Role("*"), Resources.of(cpus=1), 3)
    bench = Bench()
    bench.register()

    def declare(framework: Framework) -> None:
        framework.request_demand([demand])
        framework.suppress()

    effects = bench.acting(declare)
    wishes = [RequestDemand(FRAMEWORK, (demand,), OperationId("driver-1"))]
    assert sent(effects) == [*wishes, Suppress(FRAMEWORK, (), OperationId("driver-2"))]
    bench.lose()

    (subscribe,) = sent(bench.timer("subscribe"))
    assert isinstance(subscribe, Subscribe) and subscribe.suppressed_roles == (Role("*"),)
    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(2)))
    assert sent(effects, RequestDemand) == [RequestDemand(FRAMEWORK, (demand,), OperationId("driver-3"))]


def test_each_message_reaches_its_callback() -> None:
    executor = ExecutorId("e")
    bench = Bench()
    bench.register()

    bench.get(FromExecutor(FRAMEWORK, AGENT, executor, b"hi"))
    bench.get(ExecutorLost(AGENT, executor, None, 9))
    bench.get(AgentLost(AGENT))
    bench.get(Refused("invalid", "no such role", about="Suppress"))

    assert bench.calls[2:] == [
        ("on_message", AGENT, executor, b"hi"),
        ("on_executor_lost", AGENT, executor, None, 9),
        ("on_agent_lost", AGENT),
        ("on_error", "invalid", "no such role"),
    ]
    effects = bench.acting(lambda f: f.message(AGENT, "e", b"yo"))
    assert sent(effects) == [ToExecutor(FRAMEWORK, AGENT, executor, b"yo")]


def test_an_instruction_is_refused_unless_the_author_takes_it() -> None:
    instruction = Instruction(OperationId("i1"), Address("peer:cli/client"), b"scale 3")
    bench = Bench()
    bench.register()
    (refusal,) = sent(bench.get(instruction))
    assert isinstance(refusal, InstructionDone) and not refusal.ok

    (done,) = sent(bench.acting(lambda f: f.answer(instruction, text="scaled")))
    assert done == InstructionDone(
        FRAMEWORK, instruction.reply_to, OperationId("i1"), ok=True, reason="", text="scaled"
    )


def test_an_operation_is_answered_once() -> None:
    bench = Bench(Recorder(on_offers=lambda f, o: f.accept(o, [task()], operation_id="op1")))
    bench.register()
    bench.get(Offers((offer(),)))
    answer = OperationResult(OperationId("op1"), True)

    bench.get(answer)
    bench.get(answer)

    assert [("on_operation", answer)] == [call for call in bench.calls if call[0] == "on_operation"]


def test_a_file_is_read_from_the_agent_that_the_offer_named() -> None:
    bench = Bench()
    bench.register()
    bench.get(Offers((offer(),)))
    about = Status(TaskId("t"), TaskState.RUNNING, Source.EXECUTOR, agent_id=AGENT, container_id=ContainerId("t.c"))

    effects = bench.acting(lambda f: f.read_file(about, "stdout", operation_id="r1"))
    sandbox = Address("tcp://10.0.1.1:5051/agent")
    asked = ReadFile(ContainerId("t.c"), FRAMEWORK, "stdout", 0, 262_144, OperationId("r1"))
    assert Send(sandbox, asked) in effects
    answer = FileData(OperationId("r1"), 0, 2, b"hi")
    bench.get(answer, sender=M2)
    bench.get(answer, sender=sandbox)
    bench.get(answer, sender=sandbox)
    assert [("on_file", answer)] == [call for call in bench.calls if call[0] == "on_file"]


def test_a_file_read_is_answered_with_an_error_when_the_link_ends_or_the_agent_is_unknown() -> None:
    bench = Bench()
    bench.register()
    bench.get(Offers((offer(),)))
    bench.acting(lambda f: f.read_file(status(), "stdout", operation_id="r1"))

    bench.lose("tcp://10.0.1.1:5051")
    assert bench.calls[-1][1].error
    bench.get(AgentLost(AGENT))
    bench.acting(lambda f: f.read_file(status(), "stdout", operation_id="r2"))
    bench.timer("owed")
    assert bench.calls[-1][1].operation_id == "r2" and "no offer told" in bench.calls[-1][1].error


def test_timers_of_the_author_have_a_name_of_their_own() -> None:
    def plan(framework: Framework, _id: FrameworkId) -> None:
        framework.set_timer("subscribe", 1.5)
        framework.cancel_timer("x")

    bench = Bench(Recorder(on_registered=plan))

    effects = bench.register()

    assert SetTimer("user/subscribe", 1_500_000) in effects
    assert CancelTimer("user/x") in effects
    bench.timer("user/subscribe")
    assert bench.calls[-1] == ("on_timer", "subscribe")


def test_posted_values_come_back_in_order_before_or_after_the_start() -> None:
    bench = Bench()
    bench.framework.post(1)
    bench.framework.post(2)
    bench.register()
    bench.framework.post(3)
    bench.get(Posted(), sender=Address("/shell"))

    assert [call[1] for call in bench.calls if call[0] == "on_posted"] == [1, 2, 3]


def test_many_posted_values_are_spread_over_turns() -> None:
    bench = Bench()
    bench.register()
    for number in range(100):
        bench.framework.post(number)

    effects = bench.get(Posted(), sender=Address("/shell"))
    assert effects == [SetTimer("posted", 0)]
    assert bench.timer("posted") == []
    assert len([call for call in bench.calls if call[0] == "on_posted"]) == 100


def test_post_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesos_actor.actors.callbacks.MAX_POSTED", 2)
    framework = Recorder()
    framework.post(1)
    framework.post(2)

    with pytest.raises(LocalError, match="2 values wait"):
        framework.post(3)


def test_what_is_kept_is_bounded_and_read_back() -> None:
    def act(framework: Framework) -> None:
        framework.persist("a", b"1")
        assert framework.kept == {"a": b"1"}
        framework.persist("a", None)
        assert framework.kept == {}
        for key, data in (("", b""), ("k" * 256, b""), ("k", bytes((1 << 20) + 1))):
            with pytest.raises(LocalError):
                framework.persist(key, data)

    bench = Bench()
    bench.register()

    assert bench.acting(act) == [Persist("user/a", UserRecord(b"1")), Persist("user/a", None)]
    assert bench.driver.failure is None


# -- the rules of acting ----------------------------------------------------------------------------------------------


def test_acting_outside_a_callback_is_a_local_error() -> None:
    bench = Bench()
    bench.register()

    for act in (bench.framework.revive, bench.framework.stop, lambda: bench.framework.now_s):
        with pytest.raises(LocalError, match="only inside callbacks"):
            act()
    assert bench.ctx.effects == [e for e in bench.ctx.effects if not isinstance(e, Stop)]


def test_acting_in_another_thread_during_a_callback_is_a_local_error() -> None:
    class Elsewhere:
        def call(self, name: str, callback: Callable[[], None]) -> None:
            callback()

        def acting_here(self) -> bool:
            return False

        def wake(self) -> None:
            return

    framework = Recorder(on_start=lambda f: f.revive())
    driver = FrameworkActor(framework, [M1], host=Elsewhere())

    with pytest.raises(LocalError, match="only inside callbacks"):
        driver.on_start(Context("framework", Node("peer:f1"), 1, random.Random(1)))


def test_a_callback_that_raises_ends_the_run() -> None:
    """The runtime forgets the effects of an event whose handler raised: nothing half-done is sent."""

    def half(framework: Framework, first: Offer) -> None:
        framework.accept(first, [task()])
        raise ZeroDivisionError("the author's bug")

    bench = Bench(Recorder(on_offers=half))
    bench.register()

    with pytest.raises(ZeroDivisionError):
        bench.get(Offers((offer(),)))
    assert isinstance(bench.driver.failure, ZeroDivisionError)
    assert bench.get(Offers((offer(2),))) == []
    assert not bench.framework.connected
    with pytest.raises(LocalError, match="over"):
        bench.framework.post(1)


# -- the end ----------------------------------------------------------------------------------------------------------


def test_stop_tears_down_and_forgets_the_id_once_confirmed() -> None:
    bench = Bench()
    bench.register()

    (teardown,) = sent(bench.acting(lambda f: f.stop(outcome="failed: no work")))
    assert isinstance(teardown, Teardown) and teardown.outcome == "failed: no work"
    calls = len(bench.calls)
    assert [Decline] == [type(m) for m in sent(bench.get(Offers((offer(),))))]
    assert sent(bench.timer("teardown")) == [teardown]
    effects = bench.get(OperationResult(teardown.operation_id, True))
    assert effects == [Persist(SUBSCRIPTION, None), Stop("torn down")]
    assert len(bench.calls) == calls
    assert bench.driver.failure is None


def test_stop_ends_when_nobody_confirms() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.stop())
    bench.lose()

    effects = bench.timer("teardown-limit")

    assert isinstance(effects[-1], Stop)
    (kept,) = [e.record for e in effects if isinstance(e, Persist)]
    assert isinstance(kept, SubscriptionRecord)
    assert (kept.framework_id, kept.ending) == (FRAMEWORK, False)  # it may be taken up again


def test_a_run_that_died_while_it_was_torn_down_sees_that_through() -> None:
    record = SubscriptionRecord(FRAMEWORK, OperationId("subscribe-1"), True, "failed: it rained")
    bench = Bench(recovered={SUBSCRIPTION: record})

    effects = bench.start()

    assert [call[0] for call in bench.calls] == ["on_start"]
    assert [type(message) for message in sent(effects)] == [Subscribe]
    effects = bench.get(Refused("removed", "Framework has been removed", fatal=True))
    assert isinstance(effects[-1], Stop)
    assert bench.driver.failure is None
    assert Persist(SUBSCRIPTION, None) in effects

    again = Bench(recovered={SUBSCRIPTION: record})
    again.start()
    effects = again.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(1)))
    (teardown,) = sent(effects)
    assert isinstance(teardown, Teardown)
    assert teardown.outcome == "failed: it rained"


def test_the_wish_to_be_torn_down_is_kept_before_it_is_told() -> None:
    bench = Bench()
    bench.register()

    effects = bench.acting(lambda f: f.stop(outcome="finished"))

    kinds = [type(effect) for effect in effects if isinstance(effect, Persist | Send)]
    assert kinds == [Persist, Send]


def test_stop_reaches_a_master_that_was_away() -> None:
    bench = Bench()
    bench.register()
    bench.lose()
    assert not sent(bench.acting(lambda f: f.stop()))

    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(2)))

    assert [Teardown] == [type(m) for m in sent(effects)]


def test_stop_for_failover_leaves_the_tasks_alone() -> None:
    bench = Bench()
    bench.register()

    effects = bench.acting(lambda f: f.stop(failover=True))

    assert sent(effects) == [Unsubscribe(FRAMEWORK)]
    assert isinstance(effects[-1], Stop)
    assert not [e for e in effects if isinstance(e, Persist)]


def test_nothing_can_be_asked_for_after_stop() -> None:
    def act(framework: Framework) -> None:
        framework.stop()
        with pytest.raises(LocalError, match="after stop"):
            framework.revive()

    bench = Bench()
    bench.register()
    bench.acting(act)

    assert bench.driver.failure is None


def test_a_fatal_refusal_is_told_and_ends_the_run() -> None:
    bench = Bench()
    bench.register()

    effects = bench.get(Refused("removed", "Framework has been removed", fatal=True))

    assert bench.calls[-1] == ("on_error", "removed", "Framework has been removed")
    assert isinstance(bench.driver.failure, PeerError)
    assert effects == [Persist(SUBSCRIPTION, None), Stop("removed")]


def test_a_failed_over_framework_keeps_its_record() -> None:
    bench = Bench()
    bench.register()

    effects = bench.get(Refused("failed-over", "Framework failed over", fatal=True))

    assert effects == [Stop("failed-over")]


def test_a_master_that_forgot_us_is_subscribed_to_again() -> None:
    bench = Bench()
    bench.register()

    effects = bench.get(Refused("not-subscribed", "who are you"))

    assert bench.calls[-1] == ("on_disconnected",)
    assert [e.name for e in effects if isinstance(e, SetTimer)] == ["subscribe"]


def test_a_graceful_stop_says_goodbye() -> None:
    bench = Bench()
    bench.register()

    effects = bench.effects(lambda: bench.driver.on_stop(bench.ctx))

    assert sent(effects) == [Unsubscribe(FRAMEWORK)]


def test_command_task_may_be_an_images_own_program() -> None:
    container = ContainerSpec("app:1", network="none")
    task = command_task("a", [], Resources.of(cpus=1), container=container)

    assert task.command == Command((), container=container)
    assert task.command is not None
    assert command_error(task.command, "a task") is None
