"""kill -9 of an agent, of its launcher, of both: tasks run on, and how they ended is told as it was, or as unknown."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.cluster.real_cluster import Cluster, gate, is_alive, until


def pid_of(cluster: Cluster, task_id: str) -> int:
    """The process id that a task wrote as its first line."""
    return int(until(lambda: cluster.ok("logs", task_id), f"{task_id} tells its process id").split()[0])


def test_an_agent_that_was_killed_comes_back_with_the_truth(cluster: Cluster, tmp_path: Path) -> None:
    ends = cluster.batch("ends", shell=f"echo $$; {gate(tmp_path / 'end')}; echo last words; exit 3", group="ends")
    goes = cluster.batch("goes", shell=f"echo $$; {gate(tmp_path / 'go')}; echo done", group="goes")
    for task_id in ("ends.0", "goes.0"):
        cluster.until_task(task_id, "RUNNING")
    ending, going = pid_of(cluster, "ends.0"), pid_of(cluster, "goes.0")
    (agent_id,) = [row["agent_id"] for row in cluster.rows("agents")]

    cluster.agent.kill()
    until(lambda: cluster.rows("agents")[0]["state"] == "disconnected", "the master has noticed")
    (tmp_path / "end").touch()
    until(lambda: not is_alive(ending), "the task ends while no agent is there")
    cluster.start_agent()

    ended = cluster.until_task("ends.0", "FAILED")
    assert ended["message"] == "Command exited with status 3"
    assert cluster.cli("wait", ends).out == f"{ends} failed: ends[0] FAILED: Command exited with status 3\n"
    assert [row["agent_id"] for row in cluster.rows("agents")] == [agent_id]
    assert is_alive(going)
    assert cluster.task("goes.0")["state"] == "RUNNING"
    assert cluster.ok("logs", "ends.0") == f"{ending}\nlast words\n"
    (tmp_path / "go").touch()
    assert cluster.cli("wait", goes).status == 0
    assert cluster.ok("logs", "goes.0") == f"{going}\ndone\n"
    assert sorted(row["task_id"] for row in cluster.rows("tasks")) == ["ends.0", "goes.0"]


def test_run_gets_its_output_and_status_although_the_agent_was_killed(cluster: Cluster, tmp_path: Path) -> None:
    line = f"echo before; {gate(tmp_path / 'go')}; echo after; {gate(tmp_path / 'end')}; echo last; exit 9"
    run = cluster.spawn("run", "--shell", "--", line)
    until(lambda: run.out() == "before\n", "the first line")
    cluster.agent.kill()
    cluster.start_agent()
    (tmp_path / "go").touch()
    until(lambda: run.out() == "before\nafter\n", "the output goes on while the task runs, from where the agent is now")
    (tmp_path / "end").touch()
    ended = run.ended()

    assert (ended.status, ended.out) == (9, "before\nafter\nlast\n"), ended


def test_a_launcher_that_was_killed_is_replaced_and_its_task_adopted(cluster: Cluster, tmp_path: Path) -> None:
    framework_id = cluster.batch("kept", shell=f"echo $$; {gate(tmp_path / 'go')}; exit 5", group="kept")
    cluster.until_task("kept.0", "RUNNING")
    pid, before = pid_of(cluster, "kept.0"), cluster.launcher_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: cluster.launcher_pid() not in (0, before), "another launcher")

    ended = cluster.cli("run", "--cpus", "0.1", "--", "echo", "the agent launches again")
    assert (ended.status, ended.out) == (0, "the agent launches again\n"), ended
    assert is_alive(pid)
    assert cluster.task("kept.0")["state"] == "RUNNING"
    (tmp_path / "go").touch()
    row = cluster.until_task("kept.0", "FAILED")
    assert row["reason"] == "EXIT_STATUS_UNKNOWN", row
    assert "unknown" in row["message"]
    assert "unknown" in cluster.cli("wait", framework_id).out


def test_agent_and_launcher_killed_at_once(cluster: Cluster, tmp_path: Path) -> None:
    ends = cluster.batch("ends", shell=f"echo $$; {gate(tmp_path / 'end')}; exit 3", group="ends")
    goes = cluster.batch("goes", shell="echo $$; exec sleep 86406", group="goes")
    for task_id in ("ends.0", "goes.0"):
        cluster.until_task(task_id, "RUNNING")
    ending, going = pid_of(cluster, "ends.0"), pid_of(cluster, "goes.0")
    os.kill(cluster.launcher_pid(), signal.SIGKILL)
    cluster.agent.kill()
    (tmp_path / "end").touch()
    until(lambda: not is_alive(ending), "the task ends while nobody watches")
    cluster.start_agent()

    row = cluster.until_task("ends.0", "FAILED")
    assert row["reason"] == "EXIT_STATUS_UNKNOWN", row
    assert is_alive(going)
    assert cluster.task("goes.0")["state"] == "RUNNING"
    cluster.ok("kill", "--grace", "0.2", "goes.0")
    cluster.until_task("goes.0", "KILLED")
    until(lambda: not is_alive(going), "an adopted task can be killed")
    assert [cluster.cli("wait", one).status for one in (ends, goes)] == [1, 1]


def test_tasks_outlive_an_agent_that_is_stopped_in_order(cluster: Cluster, tmp_path: Path) -> None:
    framework_id = cluster.batch("stays", shell=f"echo $$; {gate(tmp_path / 'go')}", group="stays")
    cluster.until_task("stays.0", "RUNNING")
    pid = pid_of(cluster, "stays.0")
    cluster.agent.signal(signal.SIGTERM)
    ended = cluster.agent.ended(10)

    assert ended.status == 0, ended
    assert is_alive(pid)
    cluster.start_agent()
    assert cluster.task("stays.0")["state"] == "RUNNING"
    (tmp_path / "go").touch()
    assert cluster.cli("wait", framework_id).status == 0


def test_a_kill_that_was_under_way_is_carried_out_by_the_next_agent(cluster: Cluster) -> None:
    line = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    framework_id = cluster.batch("stubborn", shell=line, group="stubborn", kill_grace="1s")
    cluster.until_task("stubborn.0", "RUNNING")
    pid = pid_of(cluster, "stubborn.0")
    cluster.ok("kill", "--grace", "600", "stubborn.0")
    cluster.until_task("stubborn.0", "KILLING")
    cluster.agent.kill()
    cluster.start_agent()

    cluster.until_task("stubborn.0", "KILLED")
    assert not is_alive(pid)
    assert cluster.cli("wait", framework_id).status == 1


def test_a_finished_agents_launcher_ends_by_itself(cluster: Cluster) -> None:
    assert cluster.cli("run", "--", "true").status == 0
    launcher = cluster.launcher_pid()
    cluster.agent.signal(signal.SIGTERM)
    assert cluster.agent.ended(10).status == 0

    until(lambda: not is_alive(launcher), "nothing runs, so the launcher ends", 5)


def test_nothing_runs_twice_when_the_agent_is_killed_in_the_middle_of_a_large_run(
    cluster: Cluster, tmp_path: Path
) -> None:
    instances = 400
    line = f"echo $MESOS_ACTOR_INDEX >> {tmp_path}/ran"
    run = cluster.spawn("run", "--cpus", "0.05", "--mem", "1", "--instances", str(instances), "--shell", "--", line)
    until(lambda: (tmp_path / "ran").exists() and (tmp_path / "ran").stat().st_size > 200, "some have run")
    cluster.agent.kill()
    cluster.start_agent()
    ended = run.ended(60)

    assert ended.status == 0, ended
    assert sorted(int(n) for n in (tmp_path / "ran").read_text().split()) == list(range(instances))
