"""The checker of histories, against all orders of small ones."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.transport.sim.linearize import Call, TooHard, contradiction


def write(value: int, began: int, ended: int | None) -> Call:
    return Call("write", value, began, ended)


def read(value: int, began: int, ended: int) -> Call:
    return Call("read", value, began, ended)


def test_what_one_client_sees_of_itself() -> None:
    assert contradiction([write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(2, 6, 7)]) == ""
    assert "read" in contradiction([write(1, 0, 1), write(2, 2, 3), read(1, 4, 5)])
    assert contradiction([]) == ""


def test_a_lost_write() -> None:
    assert contradiction([write(1, 0, 1), read(0, 2, 3)]) != ""
    assert contradiction([write(1, 0, 5), read(0, 2, 3), read(1, 6, 7)]) == ""


def test_time_does_not_go_back_between_readers() -> None:
    assert contradiction([write(1, 0, 10), read(1, 1, 2), read(0, 3, 4)]) != ""
    assert contradiction([write(1, 0, 10), read(1, 1, 3), read(0, 2, 4)]) == ""


def test_a_write_of_unknown_outcome_may_come_late_or_never_but_not_twice() -> None:
    assert contradiction([write(1, 0, None), read(0, 5, 6)]) == ""
    assert contradiction([write(1, 0, None), read(0, 5, 6), read(1, 7, 8)]) == ""
    assert contradiction([write(1, 0, None), read(1, 5, 6), read(0, 7, 8)]) != ""
    both = [write(1, 0, None), write(2, 1, 2), read(1, 3, 4), read(2, 5, 6)]
    assert contradiction(both) != ""


def test_a_value_from_nowhere() -> None:
    assert contradiction([read(7, 0, 1)]) == "7 was read, and nobody ever wrote it"


def test_values_that_are_not_unique_are_refused() -> None:
    with pytest.raises(ValueError, match="unique"):
        contradiction([write(1, 0, 1), write(1, 2, 3)])


def test_a_long_history_of_many_clients_is_quick() -> None:
    history = [write(n + 1, 10 * n, 10 * n + 45) for n in range(300)]
    history += [read(n + 1, 10 * n + 20, 10 * n + 30) for n in range(0, 300, 3)]
    history += [write(1_000 + n, 7 * n, None) for n in range(200)]
    assert contradiction(history) == ""


def test_a_search_that_is_too_long_is_given_up() -> None:
    history = [write(n + 1, 0, 1_000) for n in range(30)] + [read(0, 2_000, 2_001)]
    with pytest.raises(TooHard):
        contradiction(history, max_steps=1_000)


def possible(history: list[Call]) -> bool:
    """By trying all orders."""
    certain = [call for call in history if call.ended_us is not None]
    unsure = [call for call in history if call.ended_us is None and call.kind == "write"]
    for count in range(len(unsure) + 1):
        for chosen in itertools.combinations(unsure, count):
            for order in itertools.permutations([*certain, *chosen]):
                if _fits(order):
                    return True
    return False


def _fits(order: tuple[Call, ...]) -> bool:
    value = 0
    for at, call in enumerate(order):
        if any(later.known_us < call.began_us for later in order[at + 1 :]):
            return False
        if call.kind == "write":
            value = call.value
        elif call.value != value:
            return False
    return True


@st.composite
def histories(draw: st.DrawFn) -> list[Call]:
    drawn = []
    for number in range(draw(st.integers(0, 5))):
        began = draw(st.integers(0, 8))
        ended = draw(st.one_of(st.none(), st.integers(began, 9)))
        kind = draw(st.sampled_from(["read", "write"]))
        if kind == "write":
            drawn.append(write(number + 1, began, ended))
        elif ended is not None:
            drawn.append(read(draw(st.integers(0, 5)), began, ended))
    written = {call.value for call in drawn if call.kind == "write"} | {0}
    return [call for call in drawn if call.value in written]


@given(histories())
def test_it_agrees_with_trying_everything(history: list[Call]) -> None:
    assert (contradiction(history) == "") == possible(history)
