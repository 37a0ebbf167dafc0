"""Replicas on links that keep no promise (wild.py): nothing is lost, nobody leads twice, and all agree afterwards."""

from __future__ import annotations

import pytest

from tests.raft.group import Letter, NotSoon
from tests.raft.wild import Unsafe, Wild, run_wild, weather


@pytest.mark.parametrize("seed", range(4))
def test_a_few_storms(seed: int) -> None:
    wild = run_wild(seed)
    assert wild.group.answers


@pytest.mark.slow
def test_many_storms() -> None:
    acknowledged = crashes = 0
    for seed in range(4, 84):
        wild = run_wild(seed)
        acknowledged += len(wild.group.answers)
        crashes += wild.crashes
    assert acknowledged > 3_000
    assert crashes > 300


def test_a_storm_is_decided_by_its_seed() -> None:
    one, other = run_wild(3), run_wild(3)
    assert one.group.applied == other.group.applied
    assert one.group.now_s == other.group.now_s


def test_weathers_differ() -> None:
    found = [weather(seed) for seed in range(24)]
    assert len({(w.size, w.compact_entries, w.in_order) for w in found}) == 12
    assert {w.wipe for w in found} == {w.hasty for w in found} == {True, False}


# -- the judges -------------------------------------------------------------------------------------------------------


def test_two_leaders_in_a_term_are_found() -> None:
    wild = Wild(0)
    wild.look()
    wild.leaders[wild.group.leader.engine.term] = "somebody else"
    with pytest.raises(Unsafe, match="both lead in term"):
        wild.look()


def test_another_entry_is_found() -> None:
    wild = Wild(0)
    wild.group.applied["b"][0] = (2, 9, b"")
    with pytest.raises(AssertionError, match="applied another entry at 2"):
        wild.group.check()


def test_a_lost_write_is_found() -> None:
    wild = Wild(0)
    operation = wild.group.write("a", 5)
    name, index, result = wild.group.answers[operation]
    wild.group.answers[operation] = (name, index - 1, result)
    with pytest.raises(AssertionError, match="was acknowledged and is not at"):
        wild.group.check()


def test_a_group_that_cannot_work_is_found() -> None:
    wild = Wild(0)
    wild.group.heal = lambda: None  # type: ignore[method-assign]

    def lose(_: Letter) -> bool:
        return True

    wild.group.lose = lose
    wild.group.run(3)
    with pytest.raises(NotSoon):
        wild.heal()
