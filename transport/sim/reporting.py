"""What the pytest plugin says of a test whose simulation failed: the story, and a file to play it again."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesos_actor.actors.errors import StorageError
from mesos_actor.transport.sim import diagram
from mesos_actor.transport.sim.cluster import SimCluster, cluster
from mesos_actor.transport.sim.faults import AnyFault
from mesos_actor.transport.sim.plan import Plan, SeededPlan
from mesos_actor.transport.sim.recording import Recording
from mesos_actor.transport.sim.replay import DIRECTORY, Replay
from mesos_actor.transport.sim.shrink import minimize
from mesos_actor.transport.sim.story import Told, concerning, tell
from mesos_actor.transport.sim.trial import Broken, broken_by, met

STEPS = "by the steps of the state machine that hypothesis tells: they are a test when pasted into one"
MAX_TRACE_LINES = 20_000
SHRINK_RUNS = 200
_ADDRESS = re.compile(r" at 0x[0-9a-f]+\b")
SHRINK_S = 20.0
"""A test that fails is run again so often, and for so long, at most, to find which faults it needs."""


def make_sim(item: Any, seed: int, plan: Plan | None = None) -> SimCluster:
    """The cluster that a test's fixture `sim` is, by its marker."""
    marker = item.get_closest_marker("sim")
    arguments: dict[str, Any] = {"masters": 3, "agents": 3, "seed": seed, **(marker.kwargs if marker else {})}
    chances = arguments.pop("chances", None)
    if plan is not None:
        arguments["plan"] = plan
    elif chances is not None:
        arguments["plan"] = SeededPlan(arguments["seed"], chances)
    return cluster(**arguments)


class Failure:
    """Of one test. (Under hypothesis the newest cluster is that of the smallest example, which is run last.)"""

    def __init__(self, item: pytest.Item, recording: Recording, error: BaseException) -> None:
        self._item = item
        self._recording = recording
        self._sim = recording.sims[-1]
        self._error = _of_simulation(error)
        self._drawn = len(met(self._sim.world.plan))

    def text(self, whole_trace: bool) -> str:
        """The report section. The replay file is written below the root of the tests."""
        if self._may_be_repeated() and len(self._sim.world.plan.faults()) > 1:
            self._shrink()
        world = self._sim.world
        again = [STEPS if self._recording.drawn_steps else self._write_down(world.plan)]
        lines = [tell(world, _words(self._error), met(world.plan), drawn=self._drawn, again=again)]
        if unmet := world.plan.unmet():
            lines.append(f"\n{len(unmet)} faults of the plan did not come about, as: {unmet[0].text()}")
        if whole_trace:
            trace = world.trace()[-MAX_TRACE_LINES:]
            lines += ["", f"the last {len(trace)} events:", *trace]
        return "\n".join(lines)

    def mermaid(self) -> str:
        """The story as a sequence diagram's text."""
        return diagram.mermaid(self._told())

    def svg(self) -> str:
        """The story as a picture."""
        return diagram.svg(self._told())

    def _told(self) -> list[Told]:
        return concerning(self._sim.world, _words(self._error))

    def _may_be_repeated(self) -> bool:
        """Only the fixture is needed to run it again: all that it did before was virtual."""
        item = self._item
        names = set(getattr(item, "_fixtureinfo").argnames) if isinstance(item, pytest.Function) else set()  # noqa: B009
        return names == {"sim"} and self._recording.replay is None

    def _shrink(self) -> None:
        """Leave out faults as long as the test fails alike."""
        began_s, runs, wanted = time.monotonic(), 0, _broken(self._error).what

        def attempt(faults: Sequence[AnyFault]) -> bool:
            nonlocal runs
            runs += 1
            if runs > SHRINK_RUNS or time.monotonic() - began_s > SHRINK_S:
                return False
            sim = make_sim(self._item, self._sim.world.seed, Plan.of(faults))
            sim.faults.fixed = True  # what the test adds is among them, or left out
            try:
                self._item.obj(sim=sim)  # type: ignore[attr-defined]
            except (pytest.skip.Exception, pytest.xfail.Exception):
                return False
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 judged by what it says
                found = _of_simulation(error)
                if _broken(found).what == wanted:
                    self._sim, self._error = sim, found
                    return True
            return False

        minimize(self._sim.world.plan.faults(), attempt)

    def _write_down(self, plan: Plan) -> str:
        work: Any = msgspec.to_builtins(self._recording.work)
        replay = Replay(
            broken=_broken(self._error),
            test=self._recording.test,
            seed=self._sim.world.seed,
            faults=plan.faults(),
            work=tuple(work),
            digest=self._sim.world.digest,
        )
        try:
            path = replay.write(Path(self._item.config.rootpath) / DIRECTORY)
        except StorageError as error:
            return f"(no replay file: {error})"
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        return f"pytest '{self._recording.test}' --sim-replay {shown}"


def _of_simulation(error: BaseException) -> BaseException:
    """Of several errors at once (hypothesis tells of every different one) the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _broken(error: BaseException) -> Broken:
    if isinstance(error, AssertionError):
        found = broken_by(error)
        return Broken(found.what, _ADDRESS.sub("", found.text))
    return Broken(type(error).__name__, _words(error))


def _words(error: BaseException) -> str:
    """What it says, alike each time: without where in memory something is."""
    words = str(error) if isinstance(error, AssertionError) and str(error) else repr(error)
    return _ADDRESS.sub("", words)
