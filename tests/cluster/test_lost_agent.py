"""An agent that does not answer any more: its tasks run elsewhere, and when it comes back it is put right."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.cluster.real_cluster import Cluster, gate, until

IMPATIENT = {"MESOS_ACTOR_MASTER_PING_INTERVAL": "200ms", "MESOS_ACTOR_MASTER_MAX_MISSED_PINGS": "3"}


@pytest.fixture
def two(bare: Cluster) -> Cluster:
    """A master that gives agents up after 0.8 s, and two agents."""
    bare.master = bare.start_master(env=IMPATIENT)
    bare.agent = bare.start_agent("h1")
    bare.start_agent("h2", resources="cpus:4;mem:1024;disk:1024")
    return bare


def test_a_frozen_agents_tasks_run_elsewhere_and_never_twice_in_the_end(two: Cluster, tmp_path: Path) -> None:
    line = f"echo $$ >> {tmp_path}/ran; {gate(tmp_path / 'go')}"
    framework_id = two.batch("moves", shell=line, group="moves")
    row = two.until_task("moves.0", "RUNNING")
    (process,) = [p for p in two.started if two.ready(row["hostname"])["pid"] == p.pid]
    process.signal(signal.SIGSTOP)

    until(lambda: [a["state"] for a in two.rows("agents", agent_id=row["agent_id"])] == ["unreachable"], "given up")
    again = two.until_task("moves.0.1", "RUNNING")
    assert again["hostname"] != row["hostname"]
    process.signal(signal.SIGCONT)
    until(lambda: two.rows("agents", agent_id=row["agent_id"])[0]["state"] == "active", "the agent is back")
    until(lambda: len(two.pids_with("/ran;")) == 1, "the copy that is not wanted any more has been ended")
    (tmp_path / "go").touch()

    assert two.cli("wait", framework_id).status == 0
    assert len((tmp_path / "ran").read_text().split()) == 2


def test_run_gets_the_output_of_its_second_attempt(two: Cluster, tmp_path: Path) -> None:
    line = f"echo on $MESOS_AGENT_ID; {gate(tmp_path / 'go')}; echo end"
    run = two.spawn("run", "--cpus", "0.1", "--shell", "--", line)
    first = until(run.out, "the first line").split()[1]
    hostname = two.rows("agents", agent_id=first)[0]["hostname"]
    (process,) = [p for p in two.started if two.ready(hostname)["pid"] == p.pid]
    process.signal(signal.SIGSTOP)
    until(lambda: run.out().count("on ") == 2, "the first line of the second attempt")
    (tmp_path / "go").touch()
    ended = run.ended()
    process.signal(signal.SIGCONT)

    assert ended.status == 0, ended
    assert ended.out.split()[-1] == "end"
    assert ended.out.split()[3] != first


def test_a_service_moves_from_an_agent_that_is_dead(two: Cluster) -> None:
    spec = two.file("web.toml", 'name = "web"\ncommand = ["sleep", "86408"]\ncpus = 0.1\nmem = 16\nbackoff = "50ms"\n')
    framework_id = two.ok("service", "apply", spec).strip()
    row = two.until_task("web.0.1", "RUNNING")
    (process,) = [p for p in two.started if two.ready(row["hostname"])["pid"] == p.pid]
    process.kill()
    two.until_task("web.0.2", "RUNNING")
    assert two.task("web.0.2")["hostname"] != row["hostname"]
    assert two.service(framework_id)["running"] == 1
