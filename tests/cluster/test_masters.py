"""Three real masters: killed, stopped, wiped, damaged, restarted one by one; nothing is forgotten."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mesos_actor.actors.client import Client, credentials, new_id
from mesos_actor.actors.ids import Role, TaskId
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import KillByOperator, SetRoleWeight
from mesos_actor.actors.messages.scheduler import OperationResult
from tests.cluster.real_cluster import LIMIT_S, Process, gate, is_alive, until
from tests.cluster.real_masters import Masters, flip
from tests.cluster.test_bad_places import fill_up, small_disk

__all__ = ["small_disk"]


@pytest.fixture
def bare_masters(tmp_path: Path, cluster_keys: Path) -> Iterator[Masters]:
    """Three masters, none of them started."""
    made = Masters(tmp_path / "masters", cluster_keys)
    yield made
    made.end()


@pytest.fixture
def masters(bare_masters: Masters) -> Masters:
    """Three masters, one of which leads."""
    bare_masters.form()
    return bare_masters


def pid_in(path: Path) -> int:
    """What a task has written of itself."""
    until(lambda: path.exists() and path.read_text().endswith("\n"), f"{path.name} is written")
    return int(path.read_text())


# -- one of them goes -------------------------------------------------------------------------------------------------


def test_the_leader_is_killed_while_tasks_run(masters: Masters, tmp_path: Path) -> None:
    masters.start_agent("h1")
    masters.start_agent("h2")
    leader = masters.until_leader()
    masters.set_weight("ads", 2_500)
    away_spec = '{"name": "away", "failover_timeout": "1h", "task": [{"name": "a", "shell": "exec sleep 86409"}]}'
    away = masters.ok("submit", masters.file("away.json", away_spec)).strip()
    masters.until_task("a.0", "RUNNING")
    for pid in masters.pids_with("cli.scheduler"):
        os.kill(pid, signal.SIGKILL)
    until(lambda: masters.framework(away)["state"] == "disconnected", "the framework is missed")
    deadline_us = masters.framework(away)["deadline_us"]
    line = f"echo $$ > {tmp_path}/pid; {gate(tmp_path / 'go')}; exit 0"
    long = masters.batch("long", shell=line, group="long")
    meanwhile = masters.batch("meanwhile", shell=f"{gate(tmp_path / 'now')}; touch {tmp_path}/gone; exit 4", group="m")
    pid = pid_in(tmp_path / "pid")
    masters.until_task("m.0", "RUNNING")
    agents = masters.active_agents()
    (before,) = masters.rows("status")

    masters.kill(leader)
    (tmp_path / "now").touch()
    until((tmp_path / "gone").exists, "a task ends meanwhile")
    other = masters.until_leader(leader)

    assert other != leader
    until(lambda: masters.active_agents() == agents, "the agents are with the new leader")
    assert masters.weights()["ads"] == 2_500
    assert masters.framework(away)["deadline_us"] == deadline_us > 0
    (after,) = masters.rows("status")
    assert (after["cluster_id"], after["term"] > before["term"]) == (before["cluster_id"], True)
    until(lambda: masters.framework(meanwhile).get("state") in ("active", "removed"), "its framework is back")
    words = "failed: m[0] FAILED: Command exited with status 4"
    assert masters.cli("wait", meanwhile).out == f"{meanwhile} {words}\n"
    assert is_alive(pid) and masters.pids_with("sleep 86409")
    masters.start_one(leader)
    assert masters.state(leader) == "follower"
    (tmp_path / "go").touch()
    assert masters.cli("wait", long).status == 0
    assert masters.cli("run", "--", "echo", "new work").out == "new work\n"


def test_a_follower_is_killed_and_nobody_notices(masters: Masters) -> None:
    masters.start_agent()
    leader = masters.until_leader()
    follower = masters.followers()[0]
    (before,) = masters.rows("status")
    registrations = masters.registrations("h1")

    masters.kill(follower)
    masters.set_weight("ads", 1_234)
    done = masters.cli("run", "--", "echo", "on")

    assert (done.status, done.out, len(done.err.splitlines())) == (0, "on\n", 1), done  # on which agent it ran
    (after,) = masters.rows("status")
    assert (masters.leader(), after["term"]) == (leader, before["term"])
    assert masters.registrations("h1") == registrations
    masters.start_one(follower)
    assert masters.weights(of=follower) == {"ads": 1_234}


def test_a_leader_that_was_stopped_steps_down_and_its_orders_count_no_more(masters: Masters, tmp_path: Path) -> None:
    masters.start_agent()
    batch = masters.batch("on", shell=f"echo $$ > {tmp_path}/pid; {gate(tmp_path / 'go')}")
    pid = pid_in(tmp_path / "pid")
    masters.until_task("t.0", "RUNNING")
    masters.set_weight("ads", 1_000)
    old = masters.until_leader()
    addresses, keys = credentials(masters.names[old - 1], str(masters.keys), False)

    async def ask_the_stopped_one() -> list[Message | None]:
        """Orders that wait in its sockets until it goes on, when it still believes to lead."""
        async with Client(addresses, keys) as connected:
            await connected.query("status")
            masters.stop(old)
            orders = SetRoleWeight(new_id(), Role("ads"), 6_666), KillByOperator(new_id(), TaskId("t.0"))
            answers = [
                asyncio.create_task(connected.ask(addresses[0], order, order.operation_id, LIMIT_S)) for order in orders
            ]
            await asyncio.to_thread(masters.until_leader, old)
            await asyncio.to_thread(masters.set_weight, "ads", 2_000)
            await asyncio.to_thread(until, masters.active_agents, "the agent has found the new leader")
            masters.go_on(old)
            return list(await asyncio.gather(*answers))

    weight, _ = asyncio.run(ask_the_stopped_one())

    assert not (isinstance(weight, OperationResult) and weight.ok), weight
    until(lambda: masters.state(old) == "follower", "the old leader follows")
    masters.until_caught_up(old)
    assert masters.weights() == masters.weights(of=old) == {"ads": 2_000}
    assert masters.leader() != old
    masters.until_task("t.0", "RUNNING")
    assert is_alive(pid)
    (tmp_path / "go").touch()
    assert masters.cli("wait", batch).status == 0


# -- all of them ------------------------------------------------------------------------------------------------------


def test_all_are_killed_and_everything_is_there_again(masters: Masters, tmp_path: Path) -> None:
    masters.start_agent()
    batch = masters.batch("long", shell=f"{gate(tmp_path / 'go')}; exit 0")
    masters.until_task("t.0", "RUNNING")
    for number in range(20):
        masters.set_weight(f"r{number}", 1_000 + number)
    agents = masters.active_agents()
    (before,) = masters.rows("status")

    for n in masters.numbers:
        masters.kill(n)
    for n in masters.numbers:
        masters.spawn_one(n)
    masters.until_leader()

    assert masters.rows("status")[0]["cluster_id"] == before["cluster_id"]
    assert masters.weights() == {f"r{number}": 1_000 + number for number in range(20)}
    until(lambda: masters.active_agents() == agents, "the agent is back")
    until(lambda: masters.framework(batch).get("state") == "active", "the framework is back")
    masters.until_task("t.0", "RUNNING")
    (tmp_path / "go").touch()
    assert masters.cli("wait", batch).status == 0


def test_a_rolling_restart_while_tasks_are_launched(masters: Masters, tmp_path: Path) -> None:
    masters.start_agent()
    instances = 400
    line = f"echo $MESOS_ACTOR_INDEX >> {tmp_path}/ran; sleep 0.1"
    run = masters.spawn("run", "--cpus", "0.2", "--mem", "1", "--instances", str(instances), "--shell", "--", line)
    until(lambda: (tmp_path / "ran").exists(), "some have run")
    during = []
    for n in masters.numbers:
        masters.processes[n].signal(signal.SIGTERM)
        assert masters.processes[n].ended().status == 0
        masters.start_one(n)
        during.append(run.is_alive())
    ended = run.ended(60)

    assert ended.status == 0, ended
    assert sorted(int(n) for n in (tmp_path / "ran").read_text().split()) == list(range(instances))
    assert during[0], "the tasks were too few to be disturbed"


def test_a_cluster_begins_only_when_all_its_masters_were_initialized(bare_masters: Masters) -> None:
    masters = bare_masters
    for n in (1, 2):
        masters.spawn_one(n, "--initialize")
    until(lambda: masters.state(1) == masters.state(2) == "founding", "two wait")
    shown = masters.cli("masters")

    assert shown.status == 1, shown
    assert f"waits for {masters.names[2]}" in shown.err
    assert "no master leads now" in shown.err
    masters.spawn_one(3, "--initialize")
    assert masters.until_leader()


# -- disks ------------------------------------------------------------------------------------------------------------


def test_a_wiped_master_joins_when_told_so_and_its_old_disk_is_refused(masters: Masters) -> None:
    masters.set_weight("ads", 1_111)
    leader = masters.until_leader()
    wiped, other = masters.followers()
    masters.until_caught_up(wiped)
    masters.kill(wiped)
    lost = masters.directory / "lost"
    shutil.move(masters.work_dirs[wiped], lost)

    status, said = masters.refused(wiped)
    assert status == 2, said
    assert "initialize: there is no registry in this work directory" in said and "--replace" in said
    status, said = masters.refused(wiped, "--initialize")
    assert status == 1, said
    assert "is a master of the existing cluster" in said and "--replace" in said
    shutil.rmtree(masters.work_dirs[wiped])
    masters.start_one(wiped, "--replace")
    assert masters.weights(of=wiped) == {"ads": 1_111}
    # Its vote counts: with one of the others it is a majority.
    masters.kill(leader)
    masters.until_leader(leader)
    masters.set_weight("ads", 2_222)
    masters.start_one(leader)

    masters.kill(wiped)
    masters.work_dirs[wiped] = lost
    status, said = masters.refused(wiped)
    assert status == 1, said
    assert f"speaks for master {masters.names[wiped - 1]} now" in said and "was replaced" in said
    assert masters.weights(of=other) == {"ads": 2_222}


def refused_after(masters: Masters, n: int, damage: Callable[[Path], Path]) -> None:
    """Kill master `n`, damage its disk: it must say which file and end; the others go on. Then all is repaired."""
    masters.kill(n)
    whole = masters.directory / "whole"
    shutil.copytree(masters.registry(n), whole)
    path = damage(masters.registry(n))
    status, said = masters.refused(n)

    assert status == 1, said
    assert path.name in said, said
    masters.set_weight("ads", 3_000)
    shutil.rmtree(masters.registry(n))
    shutil.move(whole, masters.registry(n))
    masters.start_one(n)


def test_a_flipped_byte_is_told_and_the_others_go_on(masters: Masters) -> None:
    for number in range(50):
        masters.set_weight("ads", 1_000 + number)
    follower = masters.followers()[0]
    masters.until_caught_up(follower)

    def in_the_log(registry: Path) -> Path:
        (path,) = registry.glob("log-*")
        flip(path, path.stat().st_size // 2)
        return path

    def in_its_head(registry: Path) -> Path:
        (path,) = registry.glob("log-*")
        flip(path, 20)
        return path

    def in_the_identity(registry: Path) -> Path:
        path = registry / "identity"
        flip(path, path.stat().st_size // 2)
        return path

    for damage in (in_the_log, in_its_head, in_the_identity):
        refused_after(masters, follower, damage)
    assert masters.weights(of=follower) == {"ads": 3_000}


def test_export_import_and_a_flipped_byte_in_the_snapshot(masters: Masters) -> None:
    masters.start_agent()
    masters.set_weight("ads", 1_717)
    (before,) = masters.rows("status")
    agents = masters.active_agents()
    saved = str(masters.directory / "saved.json")
    exported = masters.cli("registry", "export", saved)
    assert exported.status == 0, exported
    for n in masters.numbers:
        masters.kill(n)
    offline = masters.cli("registry", "export", "--work-dir", str(masters.work_dirs[1]))
    assert offline.status == 0 and "warning: this is what one disk has" in offline.err, offline
    for n in masters.numbers:
        masters.work_dirs[n] = masters.directory / f"imported-{n}"
        options = ("--work-dir", str(masters.work_dirs[n]), "--port", masters.names[n - 1].rpartition(":")[2])
        masters.ok("registry", "import", saved, *options)
        masters.spawn_one(n)
    masters.until_leader()

    assert masters.rows("status")[0]["cluster_id"] == before["cluster_id"]
    assert masters.weights() == {"ads": 1_717}
    until(lambda: masters.active_agents() == agents, "the agent is with the restored cluster")
    assert masters.cli("run", "--", "echo", "restored").out == "restored\n"

    def in_the_snapshot(registry: Path) -> Path:
        (path,) = registry.glob("snapshot-*")
        flip(path, path.stat().st_size // 2)
        return path

    follower = masters.followers()[0]
    masters.until_caught_up(follower)
    refused_after(masters, follower, in_the_snapshot)


def test_a_full_disk_under_the_leader(bare_masters: Masters, small_disk: Path) -> None:
    masters = bare_masters
    masters.work_dirs[1] = small_disk
    masters.form()
    masters.start_agent()
    if masters.until_leader() != 1:
        assert masters.ok("masters", "transfer", masters.names[0]) == f"{masters.names[0]} leads\n"
    fill = small_disk / "fill"
    fill_up(fill)
    number = 1_000
    while masters.processes[1].is_alive():
        number += 1
        masters.set_weight("ads", number)
    ended = masters.processes[1].ended()

    assert ended.status == 1, ended
    assert "the disk is full" in ended.err, ended
    assert masters.until_leader(1) != 1
    assert masters.weights() == {"ads": number}
    assert masters.cli("run", "--", "echo", "on").out == "on\n"
    fill.unlink()
    masters.start_one(1)
    assert masters.weights(of=1) == {"ads": number}


# -- started wrongly --------------------------------------------------------------------------------------------------


def test_a_master_with_the_keys_of_another_cluster_takes_no_part(masters: Masters) -> None:
    follower = masters.followers()[0]
    masters.until_caught_up(follower)
    masters.kill(follower)
    other = masters.directory / "other-keys"
    masters.ok("init", "--key-dir", str(other))
    log = masters.directory / f"master-{follower}.err"
    before = len(log.read_text())
    stranger = masters.spawn_one(follower, "--key-dir", str(other))

    until(lambda: not stranger.is_alive(), "it ends")
    assert "start it with the cluster's own --key-dir" in log.read_text()[before:]
    masters.set_weight("ads", 4_000)
    assert masters.leader(follower)
    masters.start_one(follower)
    assert masters.weights(of=follower) == {"ads": 4_000}


def test_lists_and_directories_that_do_not_fit(bare_masters: Masters) -> None:
    """No cluster is needed to see these."""
    masters = bare_masters
    first: Process = masters.spawn_one(1, "--initialize")
    until(lambda: masters.state(1) == "founding", "it waits for the others")
    work_dir = str(masters.work_dirs[1])
    port = masters.names[1].rpartition(":")[2]
    second = masters.cli("start", "--as", "master", "--port", port, "--work-dir", work_dir)
    assert second.status == 1, second
    assert f"in use by process {first.pid}" in second.err
    masters.kill(1)

    status, said = masters.refused(1, "--initialize")
    assert status == 2, said
    assert "is in this work directory already; leave out --initialize" in said
    changed = f"{masters.names[0]},{masters.names[1]},127.0.0.1:9"
    status, said = masters.refused(1, "--masters", changed)
    assert status == 2, said
    assert "start it with the list that it was made with" in said
    even = ",".join(masters.names[:2])
    status, said = masters.refused(1, "--masters", even)
    assert status == 2, said
    assert "are 2: an even number tolerates no more failures than one less" in said


# -- the commands -----------------------------------------------------------------------------------------------------


def test_masters_are_shown_and_the_lead_is_given_away(masters: Masters) -> None:
    leader = masters.until_leader()
    follower = masters.followers()[0]
    rows = masters.json("masters")
    assert [(row["master"], row["leads"]) for row in rows] == [
        (name, n == leader) for n, name in enumerate(masters.names, 1)
    ]
    assert all(row["state"] in ("leader", "follower") and row["log_bytes"] > 0 for row in rows)

    refused = masters.cli("masters", "transfer", "127.0.0.1:9")
    assert refused.status != 0 and len(refused.err.splitlines()) == 1, refused
    wanted = masters.names[follower - 1]
    assert masters.ok("masters", "transfer", wanted) == f"{wanted} leads\n"
    assert masters.leader() == follower
    masters.kill(leader)
    by_master = {row["master"]: row for row in masters.json("masters")}
    assert by_master[masters.names[leader - 1]]["state"] == "no answer"
    assert by_master[wanted]["leads"]
