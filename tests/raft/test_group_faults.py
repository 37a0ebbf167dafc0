"""Three and five masters under every fault at once: what operators were told holds, and all get well again.

`tests.raft.faults.run_seed(seed)` is one run; seeds go through all sizes, links and compactions.
"""

from __future__ import annotations

import pytest

from mesos_actor.actors.ids import Role
from mesos_actor.transport.sim.registers import ROLES, History
from tests.raft.faults import KINDS, HistoryError, Trial, run_seed, setting

EVERYDAY = (4, 6, 9)
SLOW = (*range(11), *range(12, 24), 1003)
"""(1003: a master dies at its disk while it stops.)"""


@pytest.mark.parametrize("seed", EVERYDAY)
def test_a_few_bad_days(seed: int) -> None:
    trial = run_seed(seed)
    assert trial.history.count("ok") > 3


@pytest.mark.slow
@pytest.mark.parametrize("seed", SLOW)
def test_a_bad_day(seed: int) -> None:
    run_seed(seed)


@pytest.mark.slow
def test_a_seed_is_a_whole_run() -> None:
    """The same seed is the same run, to the last event."""
    assert run_seed(4).sim.world.digest == run_seed(4).sim.world.digest


def test_seeds_go_through_all_combinations() -> None:
    found = {(s.masters, s.fifo, s.compact_entries) for s in map(setting, range(12))}
    assert len(found) == 2 * 2 * 3
    assert {kind for seed in range(12) for kind in setting(seed).kinds} == set(KINDS)
    assert {setting(seed).early for seed in range(24)} == {True, False}


# -- the judge itself -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calm() -> Trial:
    """A run that went well."""
    trial = run_seed(4)
    assert trial.history.count("ok") > 3
    return trial


def _an_acknowledged_write(history: History) -> int:
    return next(at for at, asked in enumerate(history.asked) if asked.outcome == "ok" and asked.role is not None)


def test_a_lost_write_is_found(calm: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = calm.history.asked[_an_acknowledged_write(calm.history)]
    monkeypatch.setattr(asked, "value", 999_999)
    with pytest.raises(HistoryError, match="999999 was acknowledged and is lost"):
        calm.judge()


def test_a_write_that_was_refused_and_applied_is_found(calm: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = calm.history.asked[_an_acknowledged_write(calm.history)]
    monkeypatch.setattr(asked, "outcome", "failed")
    with pytest.raises(HistoryError, match="failed, and was applied"):
        calm.judge()


def test_a_stale_read_is_found(calm: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    read = [asked for asked in calm.history.asked if asked.role is None and asked.outcome == "ok"][-1]
    monkeypatch.setattr(read, "read", dict.fromkeys(ROLES, 0))
    with pytest.raises(HistoryError, match="none of these can follow"):
        calm.judge()


def test_an_order_that_goes_back_is_found(calm: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = [asked for asked in calm.history.asked if asked.role is not None and asked.outcome == "ok"]
    first, last = writes[0], writes[-1]
    monkeypatch.setattr(first, "began_us", last.ended_us + 10)
    monkeypatch.setattr(first, "ended_us", last.ended_us + 20)
    with pytest.raises(HistoryError, match="came before one that was acknowledged"):
        calm.judge()


def test_a_master_that_differs_is_found(calm: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = calm.sim.masters[0].replica.machine.state.weights
    monkeypatch.setitem(weights, Role("red"), None)
    monkeypatch.delitem(weights, Role("red"))
    with pytest.raises(AssertionError, match=r"differ|the log says"):
        calm.judge()
