"""How an agent hears of the ends of its containers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from mesos_actor.actors.ids import Address, ContainerId, Principal
from mesos_actor.actors.messages.containers import ContainerExited, ContainerFailed, ForgetContainer, KillContainer
from mesos_actor.actors.ports import TimerHandle
from mesos_actor.isolation import ends as ends_module
from mesos_actor.isolation.ends import EXITS_A_REPEAT, Ends
from tests.isolation.benches import AGENT, Inbox

REPEAT_US = 1_000


class Timer:
    def cancel(self) -> None:
        raise AssertionError("nothing here is cancelled")


class Desk:
    """Ends that are told to an inbox, and whose timer goes off by hand."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.waiting: list[ContainerExited] = []
        self.inbox = Inbox(lambda: 0, self.call_later)
        self.ends = Ends(self.inbox, lambda: self.waiting, REPEAT_US)
        assert self.ends.handler_of(AGENT, Principal("local"), KillContainer(ContainerId("c"), 0), HANDLERS) == "kill"

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        assert delay_us == REPEAT_US
        self.timers.append(fn)
        return Timer()

    def go_off(self) -> None:
        (timer,) = self.timers
        self.timers.clear()
        timer()

    def told(self) -> list[object]:
        told, self.inbox.messages = self.inbox.messages, []
        return list(told)


HANDLERS: dict[type, str] = {KillContainer: "kill"}


@pytest.fixture
def desk() -> Desk:
    return Desk()


def exited(name: str) -> ContainerExited:
    return ContainerExited(ContainerId(name), exit_status=0)


def test_end_is_told_until_it_waits_no_more(desk: Desk) -> None:
    desk.waiting = [exited("a"), exited("b")]
    for one in desk.waiting:
        desk.ends.tell_end(one)
    assert desk.told() == desk.waiting

    desk.go_off()
    assert desk.told() == desk.waiting
    del desk.waiting[0]
    desk.go_off()
    assert desk.told() == [exited("b")]
    desk.waiting.clear()
    desk.go_off()
    assert (desk.told(), desk.timers) == ([], [])


def test_nothing_is_told_again_while_it_is_held_back_nor_forgotten_by_that(desk: Desk) -> None:
    desk.ends.hold_back(True)
    desk.waiting = [exited("a")]
    desk.ends.repeat_later()
    desk.go_off()
    assert desk.told() == []

    desk.ends.hold_back(False)
    desk.go_off()
    assert desk.told() == [exited("a")]


def test_so_many_at_once_and_the_oldest_first(desk: Desk) -> None:
    desk.waiting = [exited(f"c{number}") for number in range(EXITS_A_REPEAT + 5)]
    desk.ends.repeat_later()
    desk.go_off()

    assert desk.told() == desk.waiting[:EXITS_A_REPEAT]


def test_nothing_is_told_again_when_it_is_closed(desk: Desk) -> None:
    desk.waiting = [exited("a")]
    desk.ends.repeat_later()
    desk.ends.close()
    desk.go_off()

    assert (desk.told(), desk.timers) == ([], [])


def test_failed_launch_has_the_same_answer_until_it_is_forgotten(desk: Desk) -> None:
    name = ContainerId("a")
    desk.ends.tell_failed(name, "spawn", "no such file")
    assert desk.told() == [desk.ends.failed(name)] == [ContainerFailed(name, "spawn", "no such file")]

    desk.ends.forget(name)
    desk.ends.forget(name)
    assert desk.ends.failed(name) is None


def test_oldest_failure_goes_when_there_are_too_many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends_module, "MAX_FAILED", 2)
    for name in "abc":
        desk.ends.tell_failed(ContainerId(name), "spawn", "")

    assert [desk.ends.failed(ContainerId(name)) is not None for name in "abc"] == [False, True, True]


@pytest.mark.parametrize(
    ("principal", "message", "event"),
    [
        ("cluster", KillContainer(ContainerId("c"), 0), "not_from_agent"),
        ("local", ForgetContainer(ContainerId("c")), "unexpected_message"),
    ],
)
def test_who_may_not_give_orders_is_not_answered_either(
    desk: Desk, principal: str, message: KillContainer | ForgetContainer, event: str
) -> None:
    stranger = Address("tcp://10.0.0.9:1/agent")

    assert desk.ends.handler_of(stranger, Principal(principal), message, HANDLERS) is None
    assert [name for name, _ in desk.inbox.logged] == [event]
    desk.ends.tell(exited("a"))  # which the inbox takes for the agent only
    assert desk.told() == [exited("a")]
