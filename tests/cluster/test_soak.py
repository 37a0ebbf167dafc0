"""benchmarks/soak.py: a short run of it, and that its checks find what they are for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from soak_load import Op, TaskRecord, judge, zone_errors  # pyright: ignore[reportMissingImports]

ROOT = Path(__file__).resolve().parents[2]


def test_a_short_soak_loses_nothing() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--kills", "8", "--seed", "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "\ntasks lost: 0\n" in done.stdout and done.stdout.endswith("PASSED\n")


def write(value: int, start_s: float, end_s: float, outcome: str = "ok") -> Op:
    return Op("write", "r", value, start_s, end_s, outcome)  # type: ignore[arg-type]


def read(value: int, start_s: float, end_s: float) -> Op:
    return Op("read", "r", value, start_s, end_s)


INF = float("inf")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [read(0, 0, 1), write(1, 2, 3), read(1, 4, 5), write(2, 6, 7), read(2, 8, 9)],
        # Both may be seen while one is being written over the other.
        [write(1, 0, 1), write(2, 2, 9), read(2, 3, 8), read(1, 3, 8)],
        # What is unknown may never happen, may have happened, and may happen late.
        [write(1, 0, 1), write(2, 2, INF, "unknown"), read(1, 3, 4), read(1, 5, 6)],
        [write(1, 0, 1), write(2, 2, INF, "unknown"), read(1, 3, 4), read(2, 5, 6)],
        [write(1, 0, 1), write(2, 2, INF, "unknown"), write(3, 3, 4), read(3, 5, 6), read(2, 7, 8)],
        [write(1, 0, 1, "fail"), read(0, 2, 3)],
    ],
)
def test_histories_of_a_register(history: list[Op]) -> None:
    assert zone_errors(history) == []


@pytest.mark.parametrize(
    "history",
    [
        [write(1, 0, 1), read(0, 2, 3)],  # lost
        [write(1, 0, 1), read(1, 2, 3), write(2, 4, 5), read(1, 6, 7)],  # lost, and the old value is back
        [write(1, 0, 1), write(2, 2, 3), read(2, 4, 5), read(1, 6, 7), read(2, 8, 9)],  # a read that is stale
        [write(2, 2, INF, "unknown"), read(2, 3, 4), read(0, 5, 6)],  # unknown, in force, then lost
        [write(1, 0, 1, "fail"), read(1, 2, 3)],
        [read(1, 0, 1), write(1, 2, 3)],
        [read(7, 0, 1)],
    ],
)
def test_histories_of_no_register(history: list[Op]) -> None:
    assert zone_errors(history) != []


State = tuple[str, str, int | None, str]


@pytest.mark.parametrize(
    ("states", "runs", "field"),
    [
        ([("RUNNING", "NONE", None, "u0"), ("FINISHED", "NONE", 0, "u1")], 1, ""),
        ([("RUNNING", "NONE", None, "u0"), ("FINISHED", "NONE", 0, "u1")], 2, "twice"),
        ([("FINISHED", "NONE", 0, "u1")], 0, "untrue"),
        ([("FAILED", "COMMAND_FAILED", 3, "u1")], 1, "untrue"),
        ([("RUNNING", "NONE", None, "u0")], 1, "lost"),
        ([], 0, "lost"),
        ([("DROPPED", "INVALID_OFFERS", None, "")], 1, "untrue"),
        ([("UNKNOWN", "RECONCILIATION", None, ""), ("RUNNING", "NONE", None, "u0")], 1, "untrue"),
    ],
)
def test_verdicts_on_a_task(tmp_path: Path, states: list[State], runs: int, field: str) -> None:
    """It is the first attempt of a job whose second one was well."""
    (tmp_path / "ran").mkdir()
    (tmp_path / "ran" / "load-0-0.0").write_text("load-0-0.0\n" * runs)
    (tmp_path / "ran" / "load-0-0.1").write_text("load-0-0.1\n")
    well = TaskRecord("agent", [("FINISHED", "NONE", 0, "u")])
    records = {"task/load-0-0.0": TaskRecord("agent", states), "task/load-0-0.1": well, "id/f": None}
    history = {key: msgspec.json.encode(record).decode() for key, record in records.items()}

    verdict = judge(json.loads(json.dumps(history)), tmp_path)

    assert {name for name in ("lost", "twice", "untrue") if getattr(verdict, name)} == ({field} if field else set())
