"""The pytest plugin: fixtures `sim` and `cluster`, and what a failing simulation says.

Loaded by the entry point `pytest11` in every pytest run of an environment that has mesos-actor, so it imports nothing
of it before a test asks.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster
    from mesos_actor.transport.sim.local_cluster import LocalCluster
    from mesos_actor.transport.sim.recording import Recording
    from mesos_actor.transport.sim.replay import Replay

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
_TOLD: pytest.StashKey[BaseException] = pytest.StashKey()


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
    """A failing simulation is told about, here where what the test prints meanwhile is captured."""
    if _SIMULATOR not in sys.modules:
        return (yield)
    try:
        result = yield
        _look_for_mistakes(item)
        return result
    except (Exception, pytest.fail.Exception) as error:
        for section in _story(item, error):
            item.add_report_section("call", *section)
        raise


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Of tests whose errors are kept from where they are called (a TestCase's, as a ClusterMachine's), of fixtures, and
    of a real cluster."""
    report = yield
    if report.failed and call.excinfo is not None:
        sections = _story(item, call.excinfo.value)
        if (real := item.stash.get(_REAL, None)) is not None and call.when == "call":
            sections += _attempt("cluster", real.last_words)
        report.sections += [(f"Captured {name} {call.when}", text) for name, text in sections]
    return report


def _story(item: pytest.Item, error: BaseException) -> list[tuple[str, str]]:
    """Sections of the report on a test whose newest simulation ended like this; none the second time."""
    recording = item.stash.get(_RECORDING, None)
    if recording is None or not recording.sims or not isinstance(error, Exception | pytest.fail.Exception):
        return []
    if item.stash.get(_TOLD, None) is error:
        return []
    item.stash[_TOLD] = error
    from mesos_actor.transport.sim.reporting import Failure

    failure = Failure(item, recording, error)
    sections = _attempt("simulation", lambda: failure.text(_option(item.config, "--sim-trace")))
    if _option(item.config, "--sim-mermaid"):
        sections += _attempt("sequence diagram", failure.mermaid)
    if (picture := _option(item.config, "--sim-svg")) is not None:
        sections += _attempt("picture", lambda: f"{picture}: {picture.write_text(failure.svg())} characters")
    return sections


def _attempt(name: str, told: Callable[[], str]) -> list[tuple[str, str]]:
    """One section. A test that fails must never end the tests after it because that could not be told."""
    try:
        return [(name, told())]
    except (Exception, pytest.fail.Exception, pytest.skip.Exception) as error:  # noqa: BLE001
        return [(name, f"could not be told: {error!r}")]


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
