"""The host's clock as a runtime sees it."""

from __future__ import annotations

import time

import pytest

from mesos_actor.transport.clock import SystemClock


def test_it_starts_at_the_wall_clock() -> None:
    before_us = time.time_ns() // 1_000
    now_us = SystemClock().now_us()

    assert before_us - 1_000 <= now_us <= time.time_ns() // 1_000 + 1_000


def test_it_does_not_go_back_when_the_wall_clock_does(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SystemClock()
    before_us = clock.now_us()
    monkeypatch.setattr(time, "time_ns", lambda: 0)

    assert before_us <= clock.now_us() < before_us + 10_000_000
    assert clock.monotonic_us() <= clock.monotonic_us()
