"""What frameworks were told, compared with what their tasks did. Reads data only, so that it can be tried on any.

`runs` says how often a task was begun, by the lines that it wrote itself, in a place that no fault touches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from mesos_actor.actors.chaos.ledger import NEVER_RAN, RAN_DIRECTORY, STATE_ONLY, TaskRecord, Told, exit_status, parts
from mesos_actor.actors.chaos.load import FLAKY_STATUS, History
from mesos_actor.actors.task import TaskState

Runs = Callable[[str], int]


class Verdict(msgspec.Struct):
    """What became of the tasks of some frameworks."""

    launched: int = 0
    ended: int = 0
    told_lost: int = 0
    """The framework was told that they did not run and never will, and launched others in their place."""
    given_up: int = 0
    """Unreachable when a built-in framework put others in their place; they may have run."""
    batches: int = 0
    lost: list[str] = []
    twice: list[str] = []
    untrue: list[str] = []
    """What was told of them is not what happened."""
    reasons: dict[str, int] = {}


def runs_in(directory: Path) -> Runs:
    """Counts the lines that the tasks of a run wrote."""

    def runs(name: str) -> int:
        path = directory / RAN_DIRECTORY / name
        return len(path.read_text().splitlines()) if path.exists() else 0

    return runs


def judge(histories: Sequence[History], runs: Runs) -> Verdict:
    """The verdict on all of them together."""
    verdict = Verdict()
    for history in histories:
        {"ledger": _judge_ledger, "batch": _judge_batch, "service": _judge_service}[history.kind](
            verdict, history, runs
        )
    return verdict


# -- frameworks -------------------------------------------------------------------------------------------------------


def _judge_ledger(verdict: Verdict, history: History, runs: Runs) -> None:
    """Every job has run to its end, in one of its attempts."""
    settled: dict[int, bool] = {}
    for task_id, record in history.tasks.items():
        job, _ = parts(task_id)
        _judge_task(verdict, task_id, record, runs(task_id), {exit_status(job)}, forgiving=False)
        told = record.settled()
        settled[job] = settled.get(job, False) or (told is not None and told.says_it_ran)
    verdict.lost += [f"job {job} of {history.name} never ran to its end" for job, well in settled.items() if not well]
    if len(history.ids) != 1:
        verdict.untrue.append(f"{history.name} was given not one id, but {history.ids}")


def _judge_batch(verdict: Verdict, history: History, runs: Runs) -> None:
    """Every instance is done, its last attempt ran once and finished; no other ran more than once."""
    verdict.batches += 1
    if history.outcome != "finished":
        verdict.untrue.append(f"batch {history.name} ended as {history.outcome!r}")
    for one in history.instances:
        where = f"{history.name}: {one.group}[{one.index}]"
        if one.state != "done":
            verdict.lost.append(f"{where} is {one.state}, and the batch is over")
        for attempt in range(one.last + 1):
            task_id = f"{one.group}.{one.index}" + (f".{attempt}" if attempt else "")
            record = history.tasks.get(task_id, TaskRecord(""))
            ran, name = runs(f"{history.name}-{task_id}"), f"{history.name}-{task_id}"
            _judge_task(verdict, name, record, ran, {0, FLAKY_STATUS}, forgiving=True)
            finished = any(told.state is TaskState.FINISHED for told in record.told)
            if attempt == one.last and one.state == "done" and not finished:
                verdict.untrue.append(f"{where} is done, and nobody said that {task_id} finished: {_shown(record)}")


def _judge_service(verdict: Verdict, history: History, runs: Runs) -> None:
    """Removed with every copy, and of each task that was ever in a place it is known what became of it."""
    if history.outcome != "removed":
        verdict.untrue.append(f"service {history.name} was not removed")
    for one in history.instances:
        if one.state:
            verdict.lost.append(f"{history.name}: {one.state} is still there, and the service is removed")
        for generation in range(1, one.last + 1):
            task_id = f"{history.name}.{one.index}.{generation}"
            record = history.tasks.get(task_id, TaskRecord(""))
            _judge_task(verdict, task_id, record, runs(f"{history.name}-{task_id}"), {0}, forgiving=True)


# -- one task ---------------------------------------------------------------------------------------------------------


def _judge_task(
    verdict: Verdict, task_id: str, record: TaskRecord, runs: int, statuses: set[int], forgiving: bool
) -> None:
    """`statuses`: what its command may end with. `forgiving`: its framework kills tasks, and puts others in the place
    of those that are unreachable."""
    verdict.launched += 1
    shown = _shown(record)
    if runs > 1:
        verdict.twice.append(f"{task_id} ran {runs} times: {shown}")
    settled = record.settled()
    if settled is None:
        if forgiving and any(told.state is TaskState.UNREACHABLE for told in record.told):
            verdict.given_up += 1
        else:
            verdict.lost.append(f"{task_id} has no end, and ran {runs} times: {shown}")
        return
    verdict.ended += 1
    # A master forgets a task whose end was acknowledged: that it does not know it then says nothing new.
    ends = [told for told in record.told if told.settles and told.state is not TaskState.UNKNOWN]
    if len({"never ran" if told.says_it_never_ran else told.state for told in ends}) > 1:
        verdict.untrue.append(f"{task_id} ended in two ways: {shown}")
    if settled.says_it_ran:
        if runs == 0 or not _is_true(record, statuses):
            verdict.untrue.append(f"{task_id} ran {runs} times and may end with {sorted(statuses)}: {shown}")
    elif settled.state is TaskState.KILLED:
        if not forgiving:
            verdict.untrue.append(f"{task_id} was killed, and nobody asked for it: {shown}")
    else:
        verdict.told_lost += 1
        why = f"{settled.state} {settled.reason}".strip()
        verdict.reasons[why] = verdict.reasons.get(why, 0) + 1
        if runs or not all(told.says_it_never_ran for told in _after(record, settled)):
            verdict.untrue.append(f"{task_id} was told {why}, and ran {runs} times: {shown}")


def _is_true(record: TaskRecord, statuses: set[int]) -> bool:
    """Whether state and exit status of each end that was told fit."""
    for told in record.told:
        if told.state is TaskState.FINISHED and 0 not in statuses:
            return False
        if told.settles and told.says_it_ran and told.reason not in STATE_ONLY:
            wanted = {0} if told.state is TaskState.FINISHED else statuses - {0}
            if told.exit_status not in wanted:
                return False
        if told.state is TaskState.FAILED and (told.reason in NEVER_RAN or not statuses - {0}):
            return False
    return True


def _after(record: TaskRecord, settled: Told) -> list[Told]:
    return record.told[record.told.index(settled) + 1 :]


def _shown(record: TaskRecord) -> str:
    return "; ".join(str(told) for told in record.told) or "nothing was told"
