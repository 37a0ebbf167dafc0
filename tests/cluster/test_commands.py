"""The commands that look at a cluster and steer it, each used once for real."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from tests.cluster.real_cluster import RESOURCES, Cluster, gate, is_alive, until


def test_status_of_a_cluster(shared: Cluster) -> None:
    row = shared.json("status")
    words = shared.ok("status")

    assert row["leader"] == f"tcp://{shared.masters}/master"
    assert row["agents"]["active"] == 2
    assert row["resources"]["cpus"] == 8
    assert f"leader      {shared.masters}, term 1" in words
    assert "2 active" in words


def test_agents_as_a_table_and_as_json(shared: Cluster) -> None:
    by_host = {row["hostname"]: row for row in shared.json("agents", "--state", "active")}
    table = shared.ok("agents").splitlines()

    assert sorted(by_host) == ["h1", "h2"]
    assert by_host["h1"]["attributes"] == {"rack": "r1"}
    assert table[0].split()[:3] == ["AGENT", "HOST", "STATE"]
    assert [line for line in table if by_host["h1"]["agent_id"] in line and RESOURCES.split(";")[0] in line] != []
    assert shared.cli("agents", "--state", "unreachable").out == ""


def test_tasks_frameworks_and_logs_of_a_running_batch(shared: Cluster, tmp_path: Path) -> None:
    line = f"echo one; echo wrong >&2; echo kept > note; {gate(tmp_path / 'go')}; echo two"
    framework_id = shared.batch("looked-at", shell=line, group="look")
    shared.until_task("look.0", "RUNNING")
    (task,) = shared.json("tasks", "--framework", framework_id, "--state", "running")
    (framework,) = [row for row in shared.json("frameworks") if row["framework_id"] == framework_id]
    following = shared.spawn("logs", "-f", "look.0")

    assert (task["task_id"], task["resources"]) == ("look.0", {"cpus": 0.1, "mem": 16})
    assert (framework["name"], framework["state"], framework["tasks"]) == ("looked-at", "active", 1)
    assert "look.0" in shared.ok("tasks", "--agent", task["agent_id"])
    until(lambda: following.out() == "one\n", "what is there is shown at once")
    assert following.is_alive()
    assert shared.ok("logs", "--stderr", "look.0") == "wrong\n"
    assert shared.ok("logs", "--file", "note", "look.0") == "kept\n"
    (tmp_path / "go").touch()
    assert following.ended().out == "one\ntwo\n"
    shared.until_task("look.0", "FINISHED")
    assert shared.ok("logs", "--tail", "4", "look.0") == "two\n"
    steps = shared.json("why", "look.0")[0]["history"]
    assert [step["state"] for step in steps] == ["STAGING", "RUNNING", "FINISHED"]
    assert "is FINISHED on h" in shared.ok("why", "look.0")


def test_filters_that_match_nothing_say_why(shared: Cluster) -> None:
    cases = [
        (("agents", "--state", "GONE"), 0, "no agents match --state gone\n"),
        (("tasks", "--agent", "nope"), 1, "mesos-actor: there is no agent 'nope'; see: mesos-actor agents\n"),
        (("tasks", "--framework", "no"), 1, "mesos-actor: there is no framework 'no'; see: mesos-actor frameworks\n"),
        (("offers", "--framework", "no"), 1, "mesos-actor: there is no framework 'no'; see: mesos-actor frameworks\n"),
    ]
    for arguments, status, words in cases:
        ended = shared.cli(*arguments)
        assert (ended.status, ended.out, ended.err) == (status, "", words), ended
    agent = shared.json("agents", "--state", "Active")[0]["agent_id"]
    idle = shared.cli("tasks", "--agent", agent, "--state", "killing")
    assert (idle.status, idle.err) == (0, f"no tasks match --agent {agent} --state KILLING\n"), idle


def test_logs_that_cannot_be_read(shared: Cluster) -> None:
    framework_id = shared.batch("short", shell="true", group="short")
    assert shared.cli("wait", framework_id).status == 0
    cases = [
        (("logs", "no-such-task"), "there is no task 'no-such-task'"),
        (("logs", "--file", "../../../../state.sqlite3", "short.0"), "state.sqlite3"),
    ]
    for arguments, words in cases:
        ended = shared.cli(*arguments)
        assert (ended.status, ended.out) == (2, ""), ended
        assert words in ended.err, ended
        assert len(ended.err.splitlines()) == 1, ended


def test_kill_ends_a_task_and_its_framework_hears_of_it(shared: Cluster) -> None:
    framework_id = shared.batch("killed", shell="echo $$; exec sleep 86403", group="victim")
    shared.until_task("victim.0", "RUNNING")
    pid = int(until(lambda: shared.ok("logs", "victim.0"), "its process id"))
    shared.ok("kill", "--grace", "0.5", "victim.0")
    ended = shared.cli("wait", framework_id)

    assert ended.status == 1, ended
    assert "victim[0] KILLED" in ended.out
    assert not is_alive(pid)
    again = shared.cli("kill", "no-such-task")
    assert (again.status, len(again.err.splitlines())) == (2, 1), again


def test_teardown_ends_a_framework_and_its_tasks(shared: Cluster) -> None:
    framework_id = shared.batch("torn", shell="echo $$; exec sleep 86404", group="torn")
    shared.until_task("torn.0", "RUNNING")
    pid = int(until(lambda: shared.ok("logs", "torn.0"), "its process id"))
    assert shared.ok("teardown", framework_id) == f"{framework_id} is torn down\n"

    until(lambda: not is_alive(pid), "the task has ended")
    until(lambda: not shared.pids_with("cli.scheduler " + str(shared.home)), "its scheduler has ended")
    assert shared.framework(framework_id)["outcome"] == "failed: torn down"
    assert shared.cli("wait", framework_id).status == 1
    again = shared.cli("teardown", "no-such-framework")
    assert (again.status, len(again.err.splitlines())) == (2, 1), again


def test_why_a_framework_does_not_run(shared: Cluster) -> None:
    spec = {
        "name": "nowhere",
        "task": [
            {"name": "big", "command": ["true"], "mem": "64GiB"},
            {"name": "picky", "command": ["true"], "constraints": ["rack==r9"]},
        ],
    }
    framework_id = shared.ok("submit", shared.file("nowhere.json", json.dumps(spec))).strip()

    def told() -> bool:
        rows = shared.rows("why", framework_id=framework_id)
        return [row["reason"] for row in rows if row["kind"] == "agent"] == ["filtered", "filtered"]

    until(told, "both agents are refused")
    words = shared.ok("why", framework_id)
    rows = shared.json("why", framework_id)
    shared.ok("teardown", framework_id)

    assert f"framework {framework_id} (nowhere) is active." in words
    assert {row["hostname"] for row in rows if row["kind"] == "agent"} == {"h1", "h2"}
    nobody = shared.cli("why", "no-such-thing")
    assert (nobody.status, len(nobody.err.splitlines())) == (1, 1), nobody


def test_weights_and_roles(shared: Cluster, tmp_path: Path) -> None:
    spec = {
        "name": "weighty",
        "role": "science",
        "task": [{"name": "w", "shell": gate(tmp_path / "go"), "cpus": 0.8, "mem": 16}],
    }
    assert shared.ok("weight", "science", "2.5") == "science: weight 2.5\n"
    framework_id = shared.ok("submit", shared.file("weighty.json", json.dumps(spec))).strip()
    shared.until_task("w.0", "RUNNING")
    (row,) = [row for row in shared.json("roles") if row["role"] == "science"]
    (tmp_path / "go").touch()

    assert row["weight_milli"] == 2500
    assert row["share_millionths"] == 100_000
    assert row["frameworks"] == 1
    assert "science" in shared.ok("roles")
    assert shared.cli("wait", framework_id).status == 0


def test_offers_show_who_holds_what(shared: Cluster) -> None:
    rows = shared.json("offers")

    assert rows == [] or {"offer_id", "framework_id", "resources"} <= rows[0].keys()
    assert shared.cli("offers", "--framework", "no-such").out == ""


def test_top_shows_the_tasks_that_run(shared: Cluster, tmp_path: Path) -> None:
    framework_id = shared.batch("busy", shell=gate(tmp_path / "go"), group="busy")
    shared.until_task("busy.0", "RUNNING")
    picture = shared.ok("top", "--once")
    (tmp_path / "go").touch()

    assert "busy.0" in picture
    assert "memory MiB" in picture
    assert shared.cli("wait", framework_id).status == 0


def test_an_agent_that_is_gone_may_not_come_back(cluster: Cluster) -> None:
    framework_id = cluster.batch("lost", shell="exec sleep 86405", group="lost")
    row = cluster.until_task("lost.0", "RUNNING")
    assert cluster.ok("gone", row["agent_id"]) == f"{row['agent_id']} is gone\n"
    ended = cluster.agent.ended()

    assert ended.status == 1, ended
    assert "gone" in ended.err
    assert cluster.task("lost.0")["state"] == "GONE_BY_OPERATOR"
    until(lambda: not cluster.pids_with("sleep 86405"), "what it ran has been ended")
    assert [a for a in cluster.rows("agents") if a["state"] == "active"] == []
    again = cluster.spawn_start("h1", "--as", "agent", "--work-dir", str(cluster.directory / "h1"))
    assert again.ended().status == 1
    assert cluster.framework(framework_id)["state"] == "active"


def test_a_one_host_cluster_is_one_command(bare: Cluster) -> None:
    env = {"MESOS_ACTOR_PORT": "0", "MESOS_ACTOR_WORK_DIR": str(bare.directory / "work")}
    both = bare.start("both", "--resources", "cpus:2;mem:512", env=env)
    ready = bare.ready("both")
    bare.masters = ready["address"]
    until(lambda: bare.rows("agents", state="active"), "its own agent takes part")
    ended = bare.cli("run", "--", "echo", "hello")
    both.signal(signal.SIGINT)

    assert ready["as"] == "both"
    assert (ended.status, ended.out) == (0, "hello\n"), ended
    assert both.out() == f"ready: a one-host cluster at {bare.masters}\n"
    assert "name=port from=MESOS_ACTOR_PORT" in both.err()
    assert both.ended().status == 0


def test_a_program_can_read_every_log_line(bare: Cluster) -> None:
    master = bare.start(
        "json", "--as", "master", "--initialize", "--port", "0", "--log-json", "--work-dir", str(bare.directory / "m")
    )
    master.signal(signal.SIGTERM)
    ended = master.ended()

    assert ended.status == 0, ended
    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert {"registry", "master"} <= {line.get("actor") for line in lines}
