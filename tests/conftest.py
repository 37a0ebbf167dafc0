"""Settings that every test shares."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

from mesos_actor.isolation.choice import possible_here

hypothesis.settings.register_profile(
    "ci", deadline=None, derandomize=True, database=None, max_examples=60, print_blob=True
)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2_000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_report_header() -> str:
    """Which isolation the real clusters of these tests use."""
    choice = possible_here()
    return f"real clusters: --isolation {choice.name}{f' ({choice.warning})' if choice.warning else ''}"


@pytest.fixture(autouse=True)
def _own_home(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keys, state and configuration of the person who runs the tests are never read nor written."""
    home: Path = tmp_path_factory.getbasetemp() / "home"
    home.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name in list(os.environ):
        if name.startswith("MESOS_ACTOR_"):
            monkeypatch.delenv(name)
