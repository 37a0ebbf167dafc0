"""Only processes that a run has started are touched; all of those are."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesos_actor.actors.chaos.order import tasks_left
from mesos_actor.actors.chaos.processes import Part, Trouble, kill_marked, pids_with, start_ticks

SLEEP = ["sleep", "60"]


@pytest.fixture
def part(tmp_path: Path) -> Iterator[Part]:
    made = Part("framework", "one", tmp_path, SLEEP, os.environ | {"HOME": str(tmp_path)})
    made.start()
    yield made
    assert made.popen is not None
    made.popen.kill()
    made.popen.wait()


def test_a_part_is_killed_and_a_dead_one_is_left_alone(part: Part) -> None:
    assert part.is_alive()

    part.kill()

    assert not part.is_alive()
    part.signal(signal.SIGSTOP)
    part.kill()


def test_a_process_that_began_at_another_time_is_not_touched(part: Part) -> None:
    part.started_ticks += 1

    with pytest.raises(Trouble, match=f"one: process .* began at .*, ours at {part.started_ticks}; it is not ours"):
        part.kill()

    assert part.is_alive()


def test_only_what_has_the_mark_is_ended(part: Part, tmp_path: Path) -> None:
    assert part.popen is not None
    # Popen returns once the program is executed, so its environment is there.
    near = subprocess.Popen(SLEEP, env={"HOME": f"{tmp_path}x", "OTHER": f"HOME={tmp_path}"})
    mark = f"HOME={tmp_path}".encode()
    try:
        assert pids_with(mark) == [part.popen.pid]

        assert kill_marked(mark, [part]) == []

        assert not part.is_alive() and near.poll() is None
    finally:
        near.kill()
        near.wait()


def test_tasks_that_still_run_are_named(part: Part, tmp_path: Path) -> None:
    mark = f"HOME={tmp_path}".encode()
    assert tasks_left(mark) == []

    task = subprocess.Popen(SLEEP, env={"HOME": str(tmp_path), "MESOS_TASK_ID": "map.1"})
    try:
        assert tasks_left(mark) == [f"process {task.pid} of task map.1"]
    finally:
        task.kill()
        task.wait()


def test_there_is_no_start_of_a_process_that_is_not(part: Part) -> None:
    assert part.popen is not None
    part.kill()

    assert start_ticks(part.popen.pid) == 0
