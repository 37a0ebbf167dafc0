"""Histories of writes and reads that one register could have, and such that none could."""

from __future__ import annotations

from typing import Literal

import pytest

from mesos_actor.actors.chaos.registers import Op, zone_errors


def write(value: int, start_s: float, end_s: float, outcome: Literal["ok", "fail", "unknown"] = "ok") -> Op:
    return Op("write", "r", value, start_s, end_s, outcome)


def read(value: int, start_s: float, end_s: float) -> Op:
    return Op("read", "r", value, start_s, end_s)


INF = float("inf")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(0, 0, 1), write(1, 2, 3), read(1, 4, 5), write(2, 6, 7), read(2, 8, 9)],
        # Both may be seen while one is being written over the other.
        [write(1, 0, 1), write(2, 2, 9), read(2, 3, 8), read(1, 3, 8)],
        # What is unknown may never happen, may have happened, and may happen late.
        [write(1, 0, 1), write(2, 2, INF, "unknown"), read(1, 3, 4), read(1, 5, 6)],
        [write(1, 0, 1), write(2, 2, INF, "unknown"), read(1, 3, 4), read(2, 5, 6)],
        [write(1, 0, 1), write(2, 2, INF, "unknown"), write(3, 3, 4), read(3, 5, 6), read(2, 7, 8)],
        [write(1, 0, 1, "fail"), read(0, 2, 3)],
    ],
)
def test_histories_of_a_register(history: list[Op]) -> None:
    assert zone_errors(history) == []


@pytest.mark.parametrize(
    "history",
    [
        [write(1, 0, 1), read(0, 2, 3)],  # lost
        [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)],  # lost, and the old value is back
        [write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7), read(2, 8, 9)],  # a read that is stale
        [write(2, 2, INF, "unknown"), read(2, 3, 4), read(0, 5, 6)],  # unknown, in force, then lost
        [write(1, 0, 1, "fail"), read(1, 2, 3)],
        [read(1, 0, 1), write(1, 2, 3)],
        [read(7, 0, 1)],
    ],
)
def test_histories_of_no_register(history: list[Op]) -> None:
    assert zone_errors(history) != []
