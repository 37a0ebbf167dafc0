"""The pytest plugin: fixtures `sim` and `cluster`, and what a failing simulation says.

Loaded by the entry point `pytest11` in every pytest run of an environment that has mesos-actor, so it imports nothing
of it before a test asks.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster
    from mesos_actor.transport.sim.local_cluster import LocalCluster
    from mesos_actor.transport.sim.recording import Recording
    from mesos_actor.transport.sim.replay import Replay

_SECTION = "Captured simulation call"
_SIMULATOR = "mesos_actor.transport.sim.recording"
"""Loaded as soon as some test module has named the simulator."""
MARK = "sim(**arguments): arguments of mesos_actor.testing.cluster for the fixture `sim`; `chances=` draws faults"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mesos-actor", "simulated clusters (mesos-actor)")
    group.addoption("--sim-seed", type=int, default=0, metavar="N", help="seed of simulated clusters (default 0)")
    group.addoption(
        "--sim-runs", type=int, default=1, metavar="N", help="run each test of `sim` with N seeds, from --sim-seed on"
    )
    group.addoption(
        "--sim-replay",
        type=Path,
        default=None,
        metavar="FILE",
        help="play this replay file's faults; runs its test only",
    )
    group.addoption("--sim-trace", action="store_true", help="show every event of a simulation that fails")
    group.addoption("--sim-mermaid", action="store_true", help="show a failing simulation's story as a diagram's text")
    group.addoption("--sim-svg", type=Path, default=None, metavar="FILE", help="draw a failing simulation's story")
    group.addoption(
        "--cluster-masters",
        default="",
        metavar="HOST:PORT[,…]",
        help="have the fixture `cluster` use this cluster instead of starting one",
    )


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(name)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", MARK)
    if _option(config, "--sim-runs") < 1:
        raise pytest.UsageError(f"--sim-runs {_option(config, '--sim-runs')}: must be at least 1")
    if _option(config, "--sim-replay") is not None:
        config.stash[_REPLAY] = _read(_option(config, "--sim-replay"))


_REPLAY: pytest.StashKey[Replay] = pytest.StashKey()
_RECORDING: pytest.StashKey[Recording] = pytest.StashKey()
_REAL: pytest.StashKey[LocalCluster] = pytest.StashKey()


def _read(path: Path) -> Replay:
    from mesos_actor.actors.errors import InvalidInput
    from mesos_actor.transport.sim.replay import read_replay

    try:
        found = read_replay(path)
    except InvalidInput as error:
        raise pytest.UsageError(f"--sim-replay {error}") from None
    if not found.test:
        raise pytest.UsageError(f"--sim-replay {path}: is no test's; play it by: mesos-actor replay {path}")
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    replay = config.stash.get(_REPLAY, None)
    if replay is None:
        return
    wanted = [item for item in items if item.nodeid == replay.test]
    if not wanted:
        raise pytest.UsageError(f"--sim-replay: the file is of {replay.test}, which is not among the tests collected")
    config.hook.pytest_deselected(items=[item for item in items if item not in wanted])
    items[:] = wanted


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    runs, first = _option(metafunc.config, "--sim-runs"), _option(metafunc.config, "--sim-seed")
    seeds: Sequence[int] = range(first, first + runs) if runs > 1 else ()
    replay = metafunc.config.stash.get(_REPLAY, None)
    if replay is not None and f"seed{replay.seed}" in replay.test.partition("[")[2]:
        seeds = (replay.seed,)  # it was one of several runs
    if "sim" in metafunc.fixturenames and seeds:
        metafunc.parametrize("sim", seeds, indirect=True, ids=[f"seed{seed}" for seed in seeds])


# -- one test ---------------------------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """What a passing test did not do is told."""
    if _SIMULATOR not in sys.modules:
        return (yield)
    result = yield
    _look_for_mistakes(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What a failing simulation says. Here and not where the test is called, for what the tests of a TestCase (a
    ClusterMachine's) raise is kept from there."""
    report = yield
    if call.when == "call" and report.failed and (real := item.stash.get(_REAL, None)) is not None:
        report.sections.append(("Captured cluster call", real.last_words()))
    recording = item.stash.get(_RECORDING, None)
    error = call.excinfo.value if call.excinfo is not None else None
    if call.when != "call" or not report.failed or recording is None or not recording.sims:
        return report
    if isinstance(error, Exception):
        from mesos_actor.transport.sim.reporting import Failure

        failure = Failure(item, recording, error)
        report.sections.append((_SECTION, failure.text(_option(item.config, "--sim-trace"))))
        if _option(item.config, "--sim-mermaid"):
            report.sections.append(("Captured sequence diagram call", failure.mermaid()))
        if (picture := _option(item.config, "--sim-svg")) is not None:
            picture.write_text(failure.svg())
    return report


def _look_for_mistakes(item: pytest.Item) -> None:
    """A test that passes because its faults are for hosts that never were has tested nothing."""
    recording = item.stash.get(_RECORDING, None)
    for made in recording.sims if recording is not None else ():
        if names := made.faults.never_came():
            from mesos_actor.actors.errors import ConfigError

            there = ", ".join(sorted(made.world.hosts))
            raise ConfigError(f"faults for hosts that never were: {', '.join(names)}; there were {there}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    if _SIMULATOR not in sys.modules and "sim" not in getattr(item, "fixturenames", ()):
        return (yield)
    from mesos_actor.transport.sim import recording

    replay = item.config.stash.get(_REPLAY, None)
    seed = replay.seed if replay is not None else _option(item.config, "--sim-seed")
    current = recording.current = item.stash[_RECORDING] = recording.Recording(item.nodeid, seed, replay)
    try:
        return (yield)
    finally:
        current.sims.clear()
        recording.current = None


@pytest.fixture
def sim(request: pytest.FixtureRequest) -> SimCluster:
    """A simulated cluster: three masters, three agents, virtual time; see docs/testing.md.

    `@pytest.mark.sim(agents=5, masters=1, …)` gives other arguments to `mesos_actor.testing.cluster`;
    `chances=Chances(…)` lets the seed draw faults as well.
    """
    from mesos_actor.transport.sim import recording
    from mesos_actor.transport.sim.reporting import make_sim

    current = recording.current
    assert current is not None
    if current.replay is None:
        current.seed = getattr(request, "param", current.seed)
    return make_sim(request.node, current.seed)


@pytest.fixture
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LocalCluster]:
    """A real cluster for one test: one master and two agents as processes on this host, or with `--cluster-masters`
    the one that is named. `spawn`, `until` and `run` are those of `sim`, in real time."""
    from mesos_actor.transport.sim.local_cluster import LocalCluster

    masters = _option(request.config, "--cluster-masters")
    with LocalCluster(tmp_path, masters=masters) as local:
        request.node.stash[_REAL] = local
        yield local
