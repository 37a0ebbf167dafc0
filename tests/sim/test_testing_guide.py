"""The guide's own examples run: docs/testing.md."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from mesos_actor.testing import ClusterInvariant, Plan, Run, cluster

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "docs" / "testing.md").read_text()
PIECES = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)


def test_the_tests_of_the_guide_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    names: dict[str, object] = {"Run": Run}
    exec(PIECES[0], names)  # noqa: S102
    tests = [value for name, value in names.items() if name.startswith("test_")]

    for test in tests:
        assert callable(test)
        test()

    assert len(tests) == 2


def test_the_other_pieces_of_the_guide_mean_something() -> None:
    names: dict[str, object] = {"cluster": cluster}
    for piece in PIECES[1:]:
        exec(piece, names)  # noqa: S102

    assert isinstance(names["plan"], Plan)
    assert len(names["plan"].fates) == 4


def test_every_invariant_is_explained() -> None:
    from mesos_actor.transport.sim.invariants import STANDARD
    from mesos_actor.transport.sim.order_invariants import ORDERS
    from mesos_actor.transport.sim.registry_invariants import REGISTRY

    watched: tuple[type[ClusterInvariant], ...] = (*STANDARD, *ORDERS, *REGISTRY)
    assert [kind.name for kind in watched if f"`{kind.name}`" not in GUIDE] == []
