"""`submit` and `wait`: batches that go on without their terminal."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from tests.cluster.real_cluster import Cluster, gate, until

TWO_STAGES = """
name = "count"
[[task]]
name = "map"
shell = "echo $MESOS_ACTOR_INDEX > $DIR/part-$MESOS_ACTOR_INDEX"
instances = 3
cpus = 0.1
env = { DIR = "@" }
[[task]]
name = "reduce"
after = ["map"]
command = ["sh", "-c", "cat $DIR/part-* > $DIR/total"]
cpus = 0.1
env = { DIR = "@" }
"""


def test_a_batch_in_two_stages_finishes_and_wait_says_so(shared: Cluster, tmp_path: Path) -> None:
    framework_id = shared.ok("submit", shared.file("two.toml", TWO_STAGES.replace("@", str(tmp_path)))).strip()
    ended = shared.cli("wait", framework_id)

    assert (ended.status, ended.out) == (0, f"{framework_id} finished\n"), ended
    assert sorted((tmp_path / "total").read_text().split()) == ["0", "1", "2"]


def test_a_batch_whose_task_fails_fails_wait(shared: Cluster) -> None:
    framework_id = shared.batch("bad", shell="exit 4", group="broken")
    ended = shared.cli("wait", framework_id)

    assert ended.status == 1, ended
    assert ended.out == f"{framework_id} failed: broken[0] FAILED: Command exited with status 4\n"


def test_a_failed_task_is_tried_again_as_often_as_asked(shared: Cluster, tmp_path: Path) -> None:
    line = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -eq 3 ]"
    framework_id = shared.batch("again", shell=line, retries=2)

    assert shared.cli("wait", framework_id).status == 0
    assert (tmp_path / "tries").read_text() == "x\n" * 3


def test_wait_works_from_another_home_with_the_same_keys(shared: Cluster, tmp_path: Path) -> None:
    framework_id = shared.batch("elsewhere", shell=gate(tmp_path / "go"))
    waiting = shared.spawn("wait", framework_id, env={"HOME": str(tmp_path)})
    impatient = shared.cli("wait", "--for", "0.1", framework_id)
    (tmp_path / "go").touch()

    assert impatient.status == 1
    assert "still running after 0.1 s" in impatient.err
    assert waiting.ended().status == 0


def test_a_batch_goes_on_after_its_scheduler_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    line = f"echo $MESOS_ACTOR_INDEX >> {tmp_path}/ran; {gate(tmp_path / 'go')}"
    framework_id = cluster.batch("long", shell=line, instances=3, cpus=2)
    until(lambda: (tmp_path / "ran").exists() and len((tmp_path / "ran").read_text().split()) == 2, "two tasks run")
    (scheduler,) = cluster.pids_with("mesos_actor.actors.cli.scheduler")
    os.kill(scheduler, signal.SIGKILL)
    until(lambda: cluster.framework(framework_id)["state"] == "disconnected", "the master has noticed")

    assert len(cluster.rows("tasks", state="RUNNING")) == 2
    assert cluster.ok("submit", "--resume", framework_id).strip() == framework_id
    (tmp_path / "go").touch()
    assert cluster.cli("wait", framework_id).out == f"{framework_id} finished\n"
    assert sorted((tmp_path / "ran").read_text().split()) == ["0", "1", "2"]


def test_a_batch_whose_scheduler_runs_is_left_alone(shared: Cluster, tmp_path: Path) -> None:
    framework_id = shared.batch("alone", shell=gate(tmp_path / "go"), group="alone")
    directory = shared.home / ".local/state/mesos-actor/schedulers" / framework_id
    before = {name: (directory / name).read_bytes() for name in ("spec.json", "ready.json")}
    ended = shared.cli("submit", "--resume", framework_id, "--masters", f"{shared.masters},127.0.0.1:1")
    (tmp_path / "go").touch()

    assert (ended.status, ended.out) == (2, ""), ended
    assert "its scheduler runs already, as process" in ended.err
    assert {name: (directory / name).read_bytes() for name in before} == before
    assert shared.cli("wait", framework_id).out == f"{framework_id} finished\n"


def test_a_finished_batch_that_is_resumed_does_not_run_again(shared: Cluster, tmp_path: Path) -> None:
    framework_id = shared.batch("once", shell=f"echo x >> {tmp_path}/ran")
    assert shared.cli("wait", framework_id).status == 0
    ended = shared.cli("submit", "--resume", framework_id)

    assert "Traceback" not in ended.err
    assert (tmp_path / "ran").read_text() == "x\n"


def test_submit_without_a_master_leaves_no_scheduler(shared: Cluster) -> None:
    spec = json.dumps({"name": "lost", "task": [{"name": "t", "command": ["true"]}]})
    ended = shared.cli("submit", "--masters", "127.0.0.1:1", "--timeout", "2", shared.file("lost.json", spec))

    assert ended.status == 1, ended
    assert "no master took the framework in within 2 s" in ended.err
    until(lambda: not shared.pids_with("127.0.0.1:1"), "no process of the submission is left")
