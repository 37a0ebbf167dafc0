"""kill -9 of the master, and its orderly end: the cluster, its agents, frameworks and deadlines are there again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cluster.real_cluster import Cluster, gate, until


def restart_master(cluster: Cluster) -> None:
    cluster.master = cluster.start_master(port=cluster.masters.rpartition(":")[2])


def test_a_master_that_was_killed_knows_its_cluster_again(cluster: Cluster, tmp_path: Path) -> None:
    framework_id = cluster.batch("long", shell=f"echo $$; {gate(tmp_path / 'go')}; exit 0", group="long")
    run = cluster.spawn("run", "--cpus", "0.1", "--shell", "--", f"echo before; {gate(tmp_path / 'go')}; exit 6")
    cluster.until_task("long.0", "RUNNING")
    until(lambda: run.out() == "before\n", "the first line of run")
    (before,) = cluster.rows("status")
    agents = [row["agent_id"] for row in cluster.rows("agents")]

    cluster.master.kill()
    restart_master(cluster)

    until(lambda: [row["state"] for row in cluster.rows("agents")] == ["active"], "the agent is back")
    until(lambda: cluster.framework(framework_id).get("state") == "active", "the framework is back")
    cluster.until_task("long.0", "RUNNING")
    (after,) = cluster.rows("status")
    assert after["cluster_id"] == before["cluster_id"]
    assert after["term"] > before["term"]
    assert [row["agent_id"] for row in cluster.rows("agents")] == agents
    (tmp_path / "go").touch()
    assert cluster.cli("wait", framework_id).status == 0
    ended = run.ended()
    assert (ended.status, ended.out) == (6, "before\n"), ended
    assert "the master is gone; the task runs on" in ended.err
    assert cluster.cli("run", "--", "echo", "new work").out == "new work\n"


def test_a_task_that_ended_without_a_master_is_told_to_the_next(cluster: Cluster, tmp_path: Path) -> None:
    framework_id = cluster.batch("meanwhile", shell=f"{gate(tmp_path / 'go')}; touch {tmp_path}/gone; exit 4")
    cluster.until_task("t.0", "RUNNING")
    cluster.master.kill()
    (tmp_path / "go").touch()
    until((tmp_path / "gone").exists, "the task ends while there is no master")
    restart_master(cluster)
    until(lambda: cluster.framework(framework_id), "the framework is known")

    words = "failed: t[0] FAILED: Command exited with status 4"
    assert cluster.cli("wait", framework_id).out == f"{framework_id} {words}\n"


def test_a_failover_deadline_survives_the_master(cluster: Cluster) -> None:
    spec = '{"name": "late", "failover_timeout": "8s", "task": [{"name": "late", "shell": "exec sleep 86407"}]}'
    framework_id = cluster.ok("submit", cluster.file("late.json", spec)).strip()
    cluster.until_task("late.0", "RUNNING")
    for pid in cluster.pids_with("cli.scheduler"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: cluster.framework(framework_id)["state"] == "disconnected", "the master has noticed")
    deadline_us = cluster.framework(framework_id)["deadline_us"]
    cluster.master.kill()
    restart_master(cluster)

    row = cluster.framework(framework_id)
    assert row["state"] in ("disconnected", "removed")
    assert deadline_us > 0
    assert row["state"] == "removed" or row["deadline_us"] == deadline_us
    until(lambda: cluster.framework(framework_id)["state"] == "removed", "its deadline has passed")
    until(lambda: not cluster.pids_with("sleep 86407"), "its task has been ended")


def test_a_master_ends_at_once_when_asked_and_tasks_run_on(cluster: Cluster, tmp_path: Path) -> None:
    framework_id = cluster.batch("on", shell=gate(tmp_path / "go"))
    cluster.until_task("t.0", "RUNNING")
    cluster.master.signal(signal.SIGTERM)
    ended = cluster.master.ended(10)
    nobody = cluster.cli("status", "--timeout", "0.3")

    assert ended.status == 0, ended
    assert (nobody.status, len(nobody.err.splitlines())) == (1, 1), nobody
    assert "no leading master answered within 0.3 s" in nobody.err
    restart_master(cluster)
    until(lambda: [row["state"] for row in cluster.rows("agents")] == ["active"], "the agent is back")
    (tmp_path / "go").touch()
    until(lambda: cluster.framework(framework_id), "the framework is known")
    assert cluster.cli("wait", framework_id).status == 0


def test_nothing_is_lost_when_the_master_is_killed_in_the_middle_of_a_large_run(
    cluster: Cluster, tmp_path: Path
) -> None:
    instances = 400
    line = f"echo $MESOS_ACTOR_INDEX >> {tmp_path}/ran"
    run = cluster.spawn("run", "--cpus", "0.05", "--mem", "1", "--instances", str(instances), "--shell", "--", line)
    until(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").stat().st_size > 200, "some have run")
    cluster.master.kill()
    restart_master(cluster)
    ended = run.ended(60)

    assert ended.status == 0, ended
    assert sorted(int(n) for n in (tmp_path / "ran").read_text().split()) == list(range(instances))
