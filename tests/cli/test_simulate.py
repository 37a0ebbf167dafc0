"""sim and replay on the command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesos_actor.transport.sim.replay import Replay
from mesos_actor.transport.sim.trial import Broken, draw_trial
from tests.cluster.real_cluster import Ended

REGRESSIONS = Path(__file__).resolve().parents[1] / "sim" / "regressions"
FILE = REGRESSIONS / "tasks_are_not_recovered.json"


def command(*arguments: str, cwd: Path) -> Ended:
    process = subprocess.run(
        [sys.executable, "-m", "mesos_actor", *arguments],
        cwd=cwd,
        env=dict(os.environ),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ended(process.returncode, process.stdout, process.stderr)


@pytest.mark.slow
def test_runs_are_counted_with_what_came_about(tmp_path: Path) -> None:
    ended = command("sim", "--runs", "6", "--jobs", "2", "--seed", "3", cwd=tmp_path)

    assert ended.status == 0, ended
    assert ended.out.startswith("6 runs, ")
    assert "faults that came about: " in ended.out and "rare branches taken: " in ended.out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_breaks_something_ends_with_its_story_and_a_file(tmp_path: Path) -> None:
    program = (
        "import sys, pytest; from tests.sim import bugs; bugs.tasks_are_not_recovered(pytest.MonkeyPatch())\n"
        "from mesos_actor.actors.cli import main; sys.argv = ['mesos-actor', 'sim', '--runs', '20']; main()"
    )
    root = Path(__file__).resolve().parents[2]
    process = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert process.returncode == 1, process.stderr
    assert "nothing-kept-is-forgotten" in process.stdout
    assert "again: mesos-actor replay .sim-failures/" in process.stdout
    assert len(list((tmp_path / ".sim-failures").glob("*.json"))) == 1


def test_a_replay_that_ends_well_says_so(tmp_path: Path) -> None:
    ended = command("replay", str(FILE), "--svg", "picture.svg", cwd=tmp_path)

    assert ended.status == 0, ended
    assert "with the planted bug tasks_are_not_recovered" in ended.err
    assert (tmp_path / "picture.svg").read_text().startswith("<svg")


def test_where_a_run_parts_from_the_calm_one_is_shown(tmp_path: Path) -> None:
    ended = command("replay", str(FILE), "--diff", "calm", "--until", "4.5", cwd=tmp_path)

    assert "differs:" in ended.out and "\n+ " in ended.out, ended


def test_a_diagram_and_a_trace_are_printed(tmp_path: Path) -> None:
    ended = command("replay", str(FILE), "--mermaid", "--trace", "--until", "3", cwd=tmp_path)

    assert "0.000000 start master" in ended.out, ended
    assert "sequenceDiagram" in ended.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("sim", "--runs", "0"), "not a whole number"),
        (("replay", "nowhere.json"), "cannot be read"),
        (("replay", str(FILE), "--diff", "other"), "the run without faults"),
        (("replay", str(FILE), "--pdb"), "--until"),
        (("replay", "README.json"), "is not a replay file"),
        (("replay", "test.json", "--diff", "calm"), "which pytest plays"),
        (("replay", "old.json"), "format 99"),
    ],
)
def test_bad_words_are_refused_with_the_fix(options: tuple[str, ...], told: str, tmp_path: Path) -> None:
    (tmp_path / "README.json").write_text("[]")
    trial, _ = draw_trial(0)
    test = Replay(broken=Broken("liveness", "x"), test="test_mine.py::test_it")
    old = Replay(broken=Broken("liveness", "x"), trial=trial, format=99)
    (tmp_path / "test.json").write_text(test.to_json())
    (tmp_path / "old.json").write_text(old.to_json())

    ended = command(*options, cwd=tmp_path)

    assert ended.status == 2, ended
    assert told in ended.err.replace("\n", " ")
