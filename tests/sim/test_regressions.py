"""Every run that once broke something: with its planted bug it still does, without it ends well.

A file whose bug does not break the same any more has lost its meaning, because messages are counted differently by now:
search for it again with `python benchmarks/planted_bugs.py --starts 1 --write tests/sim/regressions NAME`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mesos_actor.transport.sim.replay import read_replay
from mesos_actor.transport.sim.trial import play
from tests.sim import bugs

FILES = sorted((Path(__file__).parent / "regressions").glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_ends_well(path: Path) -> None:
    replay = read_replay(path)
    assert replay.trial is not None

    assert play(replay.trial).broken is None


@pytest.mark.parametrize("path", [path for path in FILES if read_replay(path).bug], ids=lambda path: path.stem)
def test_with_its_bug_it_breaks_the_same(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replay = read_replay(path)
    assert replay.trial is not None
    getattr(bugs, replay.bug)(monkeypatch)

    broken = play(replay.trial).broken

    assert broken is not None, "search for it again, see above"
    assert broken.what == replay.broken.what


def test_there_are_some() -> None:
    assert len(FILES) >= 6
