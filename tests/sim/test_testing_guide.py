"""The guide's own examples run: docs/testing.md."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mesos_actor.testing import ClusterInvariant
from mesos_actor.transport.sim.invariants import STANDARD
from mesos_actor.transport.sim.order_invariants import ORDERS
from mesos_actor.transport.sim.planner import Faults
from mesos_actor.transport.sim.registry_invariants import REGISTRY
from mesos_actor.transport.sim.task_invariants import TASKS

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "testing.md").read_text()
PIECES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


@pytest.mark.slow
def test_the_tests_of_the_guide_pass(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "examples" / "three_worlds"))
    for number, piece in enumerate(PIECES):
        if "def test_" in piece or "TestCase" in piece:
            (pytester.path / f"test_guide_{number}.py").write_text(piece)

    pytester.runpytest("-k", "not real").assert_outcomes(passed=6, deselected=1)


def test_the_other_pieces_of_the_guide_mean_something() -> None:
    others = [piece for piece in PIECES if "def test_" not in piece and "TestCase" not in piece]
    for piece in others:
        exec(piece, {})  # noqa: S102

    assert len(others) == 2


def test_every_invariant_and_every_fault_is_explained() -> None:
    watched: tuple[type[ClusterInvariant], ...] = (*STANDARD, *TASKS, *ORDERS, *REGISTRY)
    faults = [
        name for name in vars(Faults) if not name.startswith("_") and name not in ("add", "host", "unmet", "never_came")
    ]

    assert [kind.name for kind in watched if f"`{kind.name}`" not in GUIDE] == []
    assert [name for name in faults if f"`{name}(" not in GUIDE] == []
