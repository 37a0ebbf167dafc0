"""Benches as fixtures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesos_actor.actors.messages.containers import LaunchContainer
from tests.isolation.benches import Bench, FakeBench, RealBench, launch, wait_for_end


@pytest.fixture
def work_dir(tmp_path: Path) -> Path:
    return tmp_path / "agent"


@pytest.fixture
def real(work_dir: Path) -> Iterator[RealBench]:
    bench = RealBench(work_dir)
    try:
        yield bench
    finally:
        bench.close()


@pytest.fixture
def fake() -> FakeBench:
    return FakeBench()


@pytest.fixture(params=["fake", pytest.param("process", marks=pytest.mark.cluster)])
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
    else:
        yield request.getfixturevalue("real")


@pytest.fixture
def until_ended() -> Callable[[int], None]:
    return wait_for_end


@pytest.fixture
def make_launch() -> Callable[..., LaunchContainer]:
    return launch


@pytest.fixture
def real_bench() -> type[RealBench]:
    return RealBench


@pytest.fixture
def fake_bench() -> type[FakeBench]:
    return FakeBench
