"""The driver asks again for what may have been lost, and answers `unknown` where nobody else does."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from mesos_actor.actors.actor import SECOND_US
from mesos_actor.actors.ids import Address, ClusterId, ContainerId, OperationId, Role, TaskId, Term, UpdateId
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import (
    Acknowledge,
    Heartbeat,
    Kill,
    Offers,
    OperationResult,
    Reconcile,
    Refused,
    RequestDemand,
    Revive,
    Subscribe,
    Subscribed,
    Suppress,
    Update,
)
from mesos_actor.actors.messages.values import Demand
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.scheduling_actions import KILL_REPEAT_US, WISH_REPEAT_US
from mesos_actor.actors.scheduling_doubts import ANSWER_LIMIT_US, HEARTBEAT_US, SILENCE_US
from mesos_actor.actors.task import Reason, Source, TaskState
from tests.test_framework_driver import AGENT, FRAMEWORK, Bench, offer, sent, status, task, update

ONE = Demand(Role("*"), Resources.of(cpus=1), 3)


def later(bench: Bench, delay_us: int) -> list[Any]:
    """What the driver does when it looks again after so long."""
    bench.ctx.now_us += delay_us
    return bench.timer("look")


def with_task(**launch: Any) -> Bench:
    bench = Bench()
    bench.register()
    bench.get(Offers((offer(),)))
    bench.acting(lambda f: f.accept(offer(), [task()], **launch))
    return bench


def test_a_task_of_which_nothing_was_heard_is_reconciled_once_it_is_late() -> None:
    bench = with_task()

    assert sent(later(bench, SILENCE_US - 1), Reconcile) == []
    assert [Reconcile(FRAMEWORK, ((TaskId("t1"), AGENT),))] == sent(later(bench, 1), Reconcile)


def test_a_task_of_which_something_was_heard_is_not() -> None:
    bench = with_task()
    bench.get(update())

    assert later(bench, 10 * SILENCE_US) == []


def test_a_kill_is_repeated_until_its_task_has_ended() -> None:
    bench = with_task()
    bench.get(update())
    bench.acting(lambda f: f.kill("t1", grace_s=2))
    kill = Kill(FRAMEWORK, TaskId("t1"), AGENT, 2_000)

    assert [kill] == sent(later(bench, KILL_REPEAT_US), Kill)
    assert sent(later(bench, KILL_REPEAT_US), Kill) == []
    assert [kill] == sent(later(bench, KILL_REPEAT_US), Kill)
    bench.get(update("t1", "t1.c:2", state=TaskState.KILLED))
    assert later(bench, 100 * KILL_REPEAT_US) == []


def test_a_kill_of_a_task_that_nobody_knows_is_answered_to_the_author() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.kill("never-was"))
    unknown = replace(status("never-was", TaskState.UNKNOWN, ""), reason=Reason.RECONCILIATION, source=Source.MASTER)

    bench.get(Update(FRAMEWORK, unknown))

    assert ("on_update", unknown) == bench.calls[-1]
    assert later(bench, 100 * KILL_REPEAT_US) == []


def test_wishes_are_repeated_until_they_are_confirmed() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.request_demand([ONE]))
    bench.acting(lambda f: f.suppress())

    again = sent(later(bench, WISH_REPEAT_US))

    roles = (Role("*"),)
    wishes = [
        RequestDemand(FRAMEWORK, (ONE,), OperationId("driver-3")),
        Suppress(FRAMEWORK, roles, OperationId("driver-4")),
    ]
    assert wishes == again
    bench.get(OperationResult(OperationId("driver-3"), True))
    bench.get(OperationResult(OperationId("driver-4"), True))
    assert later(bench, 100 * WISH_REPEAT_US) == []
    assert not bench.framework.named("on_operation")  # type: ignore[attr-defined]


def test_only_the_newest_wish_about_a_role_counts() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.suppress())
    bench.acting(lambda f: f.revive())

    bench.get(OperationResult(OperationId("driver-1"), True))  # of the suppress, which was overtaken

    assert [Revive(FRAMEWORK, (Role("*"),), OperationId("driver-3"))] == sent(later(bench, WISH_REPEAT_US))


def test_a_wish_that_is_refused_is_told_once_and_not_repeated() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.revive(["nobody's"]))

    bench.get(Refused("invalid", "not your role", operation_id=OperationId("driver-1"), about="Revive"))

    assert bench.calls[-1] == ("on_error", "invalid", "not your role")
    assert later(bench, 100 * WISH_REPEAT_US) == []


def test_a_lost_connection_ends_the_repeats() -> None:
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.suppress())

    bench.lose()

    assert sent(later(bench, WISH_REPEAT_US)) == []


def test_what_was_wished_while_no_master_was_there_is_made_up_for() -> None:
    """The subscription that is answered was sent while the role was suppressed still."""
    bench = Bench()
    bench.register()
    bench.acting(lambda f: f.suppress())
    bench.lose()
    (subscribe,) = sent(bench.timer("subscribe"), Subscribe)
    assert isinstance(subscribe, Subscribe) and subscribe.suppressed_roles == ("*",)
    bench.acting(lambda f: f.revive())

    effects = bench.get(Subscribed(FRAMEWORK, ClusterId("c0"), Term(1)))

    assert sent(effects, Revive) == [Revive(FRAMEWORK, (Role("*"),), OperationId("driver-2"))]


def test_an_operation_without_an_answer_is_unknown_after_a_minute() -> None:
    bench = with_task(operation_id="launch-1")
    bench.get(update())

    later(bench, ANSWER_LIMIT_US - 1)
    assert bench.framework.named("on_operation") == []  # type: ignore[attr-defined]
    later(bench, 1)

    ((result,),) = bench.framework.named("on_operation")  # type: ignore[attr-defined]
    assert (result.operation_id, result.ok, result.reason) == ("launch-1", False, "unknown")


def test_a_file_that_does_not_come_is_given_up_on_after_a_minute() -> None:
    bench = with_task()
    bench.get(update())
    bench.acting(lambda f: f.read_file(status(), "stdout"))

    later(bench, ANSWER_LIMIT_US)

    name, file = bench.calls[-1]
    assert (name, isinstance(file, FileData) and "did not answer" in file.error) == ("on_file", True)
    late = FileData(file.operation_id, 0, 1, b"x")
    bench.get(late, Address("tcp://10.0.1.1:5051/agent"))
    assert (name, file) == bench.calls[-1]


def test_older_news_of_a_task_that_a_reconciliation_declared_ended_is_only_acknowledged() -> None:
    """Its RUNNING and FINISHED were lost, the master told FINISHED on demand, and now the agent repeats RUNNING."""
    bench = with_task()
    ended = replace(status("t1", TaskState.FINISHED, ""), container_id=ContainerId("t1.c"), source=Source.MASTER)
    bench.get(Update(FRAMEWORK, replace(ended, reason=Reason.RECONCILIATION)))
    calls = len(bench.calls)

    running = replace(status("t1", TaskState.RUNNING, "t1.c:0"), container_id=ContainerId("t1.c"))
    effects = bench.get(Update(FRAMEWORK, running))

    assert [Acknowledge(FRAMEWORK, AGENT, TaskId("t1"), UpdateId("t1.c:0"))] == sent(effects)
    assert calls == len(bench.calls)
    bench.get(Update(FRAMEWORK, replace(ended, update_id=UpdateId("t1.c:1"))))
    assert (bench.calls[-1][0], bench.calls[-1][1].state) == ("on_update", TaskState.FINISHED)


def test_nothing_is_looked_for_when_nothing_is_waited_for() -> None:
    bench = Bench()

    effects = bench.register()

    assert not [effect for effect in effects if getattr(effect, "name", "") == "look"]
    assert SECOND_US < SILENCE_US


def listening(bench: Bench, delay_us: int) -> list[Any]:
    """What the driver does when, so long after, it asks itself whether the leader was heard."""
    bench.ctx.now_us += delay_us
    return bench.timer("heartbeat")


def test_a_silent_leader_is_asked_and_then_given_up() -> None:
    bench = Bench()
    bench.register()

    assert sent(listening(bench, HEARTBEAT_US), Heartbeat) == [Heartbeat(FRAMEWORK)]
    assert bench.driver.leader
    listening(bench, HEARTBEAT_US)

    assert not bench.driver.leader
    assert ("on_disconnected",) in bench.calls
    assert sent(bench.timer("subscribe"), Subscribe) != []


def test_a_leader_that_is_heard_is_not_asked() -> None:
    bench = Bench()
    bench.register()
    bench.ctx.now_us += HEARTBEAT_US - 1
    bench.get(update())

    assert sent(listening(bench, 1), Heartbeat) == []
    assert sent(listening(bench, HEARTBEAT_US - 1), Heartbeat) == [Heartbeat(FRAMEWORK)]


def test_a_leader_that_answers_is_kept() -> None:
    bench = Bench()
    bench.register()
    for _ in range(3):
        assert sent(listening(bench, HEARTBEAT_US), Heartbeat) == [Heartbeat(FRAMEWORK)]
        bench.ctx.now_us += 1_000
        bench.get(Heartbeat(FRAMEWORK))
        assert sent(listening(bench, HEARTBEAT_US - 1_000), Heartbeat) == []

    assert bench.driver.leader


def test_a_master_that_does_not_lead_any_more_says_so_when_it_is_asked() -> None:
    bench = Bench()
    bench.register()
    listening(bench, HEARTBEAT_US)

    bench.get(Refused("not-leading", "This master does not lead", about="Heartbeat"))

    assert not bench.driver.leader
