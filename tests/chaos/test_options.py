"""What a run may be asked for, and what is done to what."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesos_actor.actors.chaos.faults import WEIGHTS
from mesos_actor.actors.chaos.run import Options
from mesos_actor.actors.errors import InvalidInput


def test_every_fault_that_is_asked_for_may_be_drawn_and_no_other() -> None:
    assert Options(kill=frozenset({"agent"})).faults() == [("kill", "agent")]
    assert Options(kill=frozenset(), pause=True).faults() == [
        ("pause", "master"),
        ("pause", "agent"),
        ("pause", "framework"),
    ]
    assert Options(pause=True, cut=True, disk_full=True).faults() == list(WEIGHTS)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (Options(masters=2), "--masters 2: give an odd number from 1 to 9"),
        (Options(masters=11), "--masters 11: give an odd number from 1 to 9"),
        (Options(agents=51), "--agents 51: give a number from 1 to 50"),
        (Options(kill=frozenset()), "no fault is asked for"),
        (Options(kill=frozenset(), pause=True, kills=3), "--kills 3: nothing is killed"),
    ],
)
def test_bad_options_are_refused_by_name(options: Options, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        options.check()


def test_a_directory_that_holds_something_is_not_used(tmp_path: Path) -> None:
    Options(keep=tmp_path).check()
    Options(keep=tmp_path / "new").check()
    (tmp_path / "file").touch()

    with pytest.raises(InvalidInput, match="is not empty"):
        Options(keep=tmp_path).check()


def test_seeds_differ() -> None:
    assert len({Options().seed for _ in range(20)}) > 1
