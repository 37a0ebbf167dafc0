"""Histories with something planted in them: the judge finds exactly that, and nothing in those that are well."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from mesos_actor.actors.chaos.judge import Verdict, judge, runs_in
from mesos_actor.actors.chaos.ledger import TaskRecord, Told
from mesos_actor.actors.chaos.load import History, Instance, read_histories, write_histories
from mesos_actor.actors.task import Reason, TaskState

S, R = TaskState, Reason
RUNNING = Told(S.RUNNING, R.NONE, None, "u0")
FINISHED = Told(S.FINISHED, R.NONE, 0, "u1")
FAILED = Told(S.FAILED, R.COMMAND_FAILED, 3, "u1")
FULL = Told(S.FAILED, R.STORAGE_FULL, None, "u1")
KILLED = Told(S.KILLED, R.NONE, None, "u1")
DROPPED = Told(S.DROPPED, R.INVALID_OFFERS, None, "")
UNREACHABLE = Told(S.UNREACHABLE, R.AGENT_REMOVED, None, "")
GONE = Told(S.GONE, R.RECONCILIATION, None, "")
UNKNOWN = Told(S.UNKNOWN, R.RECONCILIATION, None, "")
FAILED_SOMEHOW = Told(S.FAILED, R.RECONCILIATION, None, "")
FINISHED_SOMEHOW = Told(S.FINISHED, R.AGENT_REREGISTERED, None, "")


def found(verdict: Verdict) -> set[str]:
    return {name for name in ("lost", "twice", "untrue") if getattr(verdict, name)}


@pytest.mark.parametrize(
    ("told", "runs", "violation"),
    [
        ([RUNNING, FINISHED], 1, ""),
        ([FINISHED_SOMEHOW, FINISHED], 1, ""),
        ([RUNNING, UNREACHABLE, RUNNING, FINISHED], 1, ""),
        ([DROPPED], 0, ""),
        ([FULL], 0, ""),
        ([GONE, DROPPED], 0, ""),
        ([RUNNING, FINISHED, UNKNOWN], 1, ""),
        ([UNKNOWN, FINISHED], 1, "untrue"),
        ([GONE, RUNNING, FINISHED], 1, "untrue"),
        ([FINISHED, KILLED], 1, "untrue"),
        ([FAILED_SOMEHOW, FULL], 0, ""),
        ([RUNNING, FINISHED], 2, "twice"),
        ([FINISHED], 0, "untrue"),
        ([FAILED], 1, "untrue"),
        ([Told(S.FINISHED, R.NONE, 1, "u1")], 1, "untrue"),
        ([RUNNING], 1, "lost"),
        ([RUNNING, UNREACHABLE], 1, "lost"),
        ([FAILED_SOMEHOW], 0, "lost"),
        ([], 0, "lost"),
        ([DROPPED], 1, "untrue"),
        ([FULL], 1, "untrue"),
        ([KILLED], 1, "untrue"),
        ([UNKNOWN, RUNNING], 1, "untrue"),
        ([FINISHED, GONE], 1, "untrue"),
        ([GONE, DROPPED], 1, "untrue"),
    ],
)
def test_a_task_of_the_ledger(told: list[Told], runs: int, violation: str) -> None:
    """It is the first attempt of a job whose second one was well."""
    tasks = {"l-0.0": TaskRecord("agent", told), "l-0.1": TaskRecord("agent", [FINISHED])}
    ran = {"l-0.0": runs, "l-0.1": 1}

    verdict = judge([History("l", "ledger", ["f"], "finished", tasks)], lambda name: ran[name])

    assert found(verdict) == ({violation} if violation else set())


def test_a_job_of_the_ledger_of_which_no_attempt_ran_is_lost() -> None:
    tasks = {"l-0.0": TaskRecord("agent", [DROPPED])}

    verdict = judge([History("l", "ledger", ["f"], "finished", tasks)], lambda name: 0)

    assert verdict.lost == ["job 0 of l never ran to its end"]
    assert verdict.reasons == {"DROPPED INVALID_OFFERS": 1}


def test_a_framework_that_was_given_two_ids_is_told() -> None:
    assert found(judge([History("l", "ledger", ["f", "g"])], lambda name: 0)) == {"untrue"}


def batch(state: str, last: int, told: Mapping[str, list[Told]], outcome: str = "finished") -> History:
    records = {task_id: TaskRecord("a", states) for task_id, states in told.items()}
    return History("b", "batch", [], outcome, records, [Instance("map", 1, state, last)])


@pytest.mark.parametrize(
    ("history", "runs", "violation"),
    [
        (batch("done", 0, {"map.1": [RUNNING, FINISHED]}), {"b-map.1": 1}, ""),
        (batch("done", 1, {"map.1": [FAILED], "map.1.1": [FINISHED]}), {"b-map.1": 1, "b-map.1.1": 1}, ""),
        (batch("done", 1, {"map.1": [UNREACHABLE], "map.1.1": [FINISHED]}), {"b-map.1": 1, "b-map.1.1": 1}, ""),
        (batch("done", 1, {"map.1": [UNREACHABLE], "map.1.1": [FINISHED]}), {"b-map.1": 2, "b-map.1.1": 1}, "twice"),
        (batch("done", 1, {"map.1.1": [FINISHED]}), {"b-map.1": 0, "b-map.1.1": 1}, "lost"),
        (batch("done", 0, {"map.1": [FAILED]}), {"b-map.1": 1}, "untrue"),
        (batch("done", 0, {"map.1": [FINISHED]}), {"b-map.1": 0}, "untrue"),
        (batch("launched", 0, {"map.1": [FINISHED]}), {"b-map.1": 1}, "lost"),
        (batch("done", 0, {"map.1": [FINISHED]}, "failed: x"), {"b-map.1": 1}, "untrue"),
    ],
)
def test_a_batch(history: History, runs: Mapping[str, int], violation: str) -> None:
    verdict = judge([history], lambda name: runs[name])

    assert found(verdict) == ({violation} if violation else set())


def service(state: str, told: list[list[Told]], outcome: str = "removed") -> History:
    records = {f"s.0.{generation}": TaskRecord("a", states) for generation, states in enumerate(told, 1)}
    return History("s", "service", [], outcome, records, [Instance("", 0, state, len(told))])


@pytest.mark.parametrize(
    ("history", "runs", "violation"),
    [
        (service("", [[FINISHED], [KILLED]]), 1, ""),
        (service("", [[UNREACHABLE], [KILLED]]), 1, ""),
        (service("", [[FINISHED], [RUNNING]]), 1, "lost"),
        (service("s.0.1", [[FINISHED]]), 1, "lost"),
        (service("", [[FINISHED]]), 2, "twice"),
        (service("", [[FINISHED]]), 0, "untrue"),
        (service("", [[FINISHED]], ""), 1, "untrue"),
    ],
)
def test_a_service(history: History, runs: int, violation: str) -> None:
    verdict = judge([history], lambda name: runs)

    assert found(verdict) == ({violation} if violation else set())


def test_histories_and_runs_are_read_as_they_were_written(tmp_path: Path) -> None:
    histories = [batch("done", 0, {"map.1": [RUNNING, FINISHED]}), service("", [[KILLED]])]
    write_histories(tmp_path, "b", histories)
    (tmp_path / "ran").mkdir()
    (tmp_path / "ran" / "b-map.1").write_text("run\nrun\n")

    assert read_histories(tmp_path / "b.history") == histories
    assert [runs_in(tmp_path)(name) for name in ("b-map.1", "b-map.2")] == [2, 0]
