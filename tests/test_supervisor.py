"""The supervisor follows OTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.supervisor import GiveUp, Leave, Restart, RestartType, Strategy, Supervisor

SECOND = 1_000_000


def family(strategy: Strategy = "one_for_one", restart: RestartType = "permanent", intensity: int = 1) -> Supervisor:
    supervisor = Supervisor(strategy, intensity)
    for name in ("a", "b", "c"):
        supervisor.add(name, restart)
    return supervisor


@pytest.mark.parametrize(
    ("strategy", "again"),
    [("one_for_one", ("b",)), ("one_for_all", ("a", "b", "c")), ("rest_for_one", ("b", "c"))],
)
def test_a_strategy_says_who_goes_with_the_failed_one(strategy: Strategy, again: tuple[str, ...]) -> None:
    decision = family(strategy).ended("b", normally=False, now_us=0)

    assert decision == Restart(stop=again[::-1], start=again)


@pytest.mark.parametrize(
    ("restart", "normally", "expected"),
    [
        ("permanent", True, Restart(("b",), ("b",))),
        ("permanent", False, Restart(("b",), ("b",))),
        ("transient", True, Leave()),
        ("transient", False, Restart(("b",), ("b",))),
        ("temporary", True, Leave()),
        ("temporary", False, Leave()),
    ],
)
def test_a_restart_type_says_who_comes_back(restart: RestartType, normally: bool, expected: Restart | Leave) -> None:
    assert family(restart=restart).ended("b", normally, now_us=0) == expected


def test_the_second_failure_within_five_seconds_is_one_too_many() -> None:
    supervisor = family()

    assert isinstance(supervisor.ended("a", False, 0), Restart)
    decision = supervisor.ended("b", False, 5 * SECOND - 1)

    assert isinstance(decision, GiveUp)
    assert "'b'" in decision.text
    assert "1 restarts within 5 s" in decision.text


def test_failures_far_apart_are_forgiven() -> None:
    supervisor = family()

    for second in range(0, 50, 5):
        assert isinstance(supervisor.ended("a", False, second * SECOND), Restart)


def test_temporary_children_do_not_count() -> None:
    supervisor = Supervisor()
    for name in "abcdef":
        supervisor.add(name, "temporary")

    assert [supervisor.ended(name, False, 0) for name in "abcdef"] == [Leave()] * 6


def test_one_that_was_left_is_not_started_with_the_others() -> None:
    supervisor = Supervisor("one_for_all")
    supervisor.add("a", "permanent")
    supervisor.add("b", "temporary")
    supervisor.ended("b", False, 0)

    assert supervisor.ended("a", False, 0) == Restart(("a",), ("a",))
    assert supervisor.stop_order() == ("a",)


def test_a_temporary_child_ends_with_the_others_and_stays_ended() -> None:
    supervisor = Supervisor("one_for_all")
    supervisor.add("a", "permanent")
    supervisor.add("b", "temporary")

    assert supervisor.ended("a", False, 0) == Restart(stop=("b", "a"), start=("a",))
    assert supervisor.stop_order() == ("a",)


def test_children_stop_in_reverse_order() -> None:
    assert family().stop_order() == ("c", "b", "a")


@given(st.integers(0, 5), st.lists(st.integers(0, 3 * SECOND), max_size=30))
def test_no_period_holds_more_restarts_than_the_intensity(intensity: int, pauses: list[int]) -> None:
    supervisor = family(intensity=intensity)
    now = 0
    restarts = []
    for pause in pauses:
        now += pause
        if isinstance(supervisor.ended("a", False, now), GiveUp):
            break
        restarts.append(now)

    assert all(sum(t - 5 * SECOND < other <= t for other in restarts) <= intensity for t in restarts)


def test_bad_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="strategy 'all'"):
        Supervisor("all")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="intensity -1"):
        Supervisor(intensity=-1)
    with pytest.raises(ConfigError, match="period_us 0"):
        Supervisor(period_us=0)
    with pytest.raises(ConfigError, match="'a'"):
        family().add("a", "permanent")
    with pytest.raises(ConfigError, match="restart 'often'"):
        family().add("d", "often")  # type: ignore[arg-type]
