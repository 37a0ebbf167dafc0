"""`service`: copies that are kept running, scaled, replaced and removed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

from tests.cluster.real_cluster import Cluster, is_alive, until


def spec(cluster: Cluster, name: str, words: str = "v1", **fields: object) -> str:
    whole = {
        "name": name,
        "shell": f"echo {words}; exec sleep 86400",
        "cpus": 0.1,
        "mem": 16,
        "kill_grace": "500ms",
        "backoff": "50ms",
        "update": {"healthy_after": "200ms"},
        **fields,
    }
    return cluster.file(f"{name}.json", json.dumps(whole))


def until_running(cluster: Cluster, framework_id: str, copies: int, version: int = 0) -> dict[str, Any]:
    """Wait until exactly so many copies live, all of one version; the service."""

    def settled() -> dict[str, Any] | None:
        row = cluster.service(framework_id)
        live = [copy for copy in row.get("copies", []) if copy["task_id"]]
        well = row.get("running") == len(live) == copies and all(copy["version"] == version for copy in live)
        return row if well else None

    found = until(settled, f"{copies} copies of {framework_id} run version {version}")
    assert found is not None
    return found


def test_a_service_is_applied_scaled_and_removed(shared: Cluster) -> None:
    framework_id = shared.ok("service", "apply", spec(shared, "web", instances=2, ports=1)).strip()
    row = until_running(shared, framework_id, 2)
    listed = [one for one in shared.json("service", "list") if one["name"] == "web"]
    ports = [copy["ports"] for copy in row["copies"]]

    assert listed == [{**row, "state": "active"}]
    assert len({port for (port,) in ports}) == 2
    assert shared.ok("service", "scale", "web", "1") == "web: 1 wanted\n"
    before = row["copies"][0]["task_id"]
    assert until_running(shared, framework_id, 1)["copies"][0]["task_id"] == before
    assert shared.ok("service", "remove", "web") == "web: being removed\n"
    until(lambda: shared.framework(framework_id)["state"] == "removed", "the service is gone")
    assert shared.framework(framework_id)["outcome"] == "removed"


def test_applied_several_times_at_once_it_is_one_service(shared: Cluster) -> None:
    file = spec(shared, "single", instances=1)
    several = [shared.spawn("service", "apply", file) for _ in range(3)]
    ids = {process.ended().out.strip() for process in several}

    assert len(ids) == 1
    assert [row["framework_id"] for row in shared.rows("frameworks", name="single")] == list(ids)
    shared.ok("service", "remove", "single")


START = """
import sys
from pathlib import Path
from mesos_actor.actors.cli import detached
file, masters, keys = sys.argv[1:]
print(detached.start("service", detached.read_spec(Path(file)), masters, keys, False, 30.0))
"""
"""Starts a service without looking whether there is one of its name."""


def test_two_services_of_one_name_are_told_apart(shared: Cluster) -> None:
    """As two hosts make them that apply the same at the same moment."""
    file = spec(shared, "twice", instances=0)
    start = [sys.executable, "-c", START, file, shared.masters, str(shared.keys)]
    ids = [
        subprocess.run(start, env=shared.environment(), capture_output=True, text=True, check=True).stdout.strip()
        for _ in range(2)
    ]
    for command in (("scale", "twice", "1"), ("remove", "twice"), ("apply", file)):
        ended = shared.cli("service", *command)
        assert (ended.status, ended.out) == (1, ""), ended
        assert f"there are 2 services 'twice': {', '.join(ids)}; " in ended.err
        assert "mesos-actor teardown ID" in ended.err

    shared.ok("teardown", ids[0])
    shared.ok("service", "remove", "twice")


def test_a_killed_copy_is_replaced(shared: Cluster) -> None:
    framework_id = shared.ok("service", "apply", spec(shared, "kept", "$$", instances=1)).strip()
    (copy,) = until_running(shared, framework_id, 1)["copies"]
    pid = int(until(lambda: shared.ok("logs", copy["task_id"]), "its process id"))
    os.kill(pid, signal.SIGKILL)
    until(lambda: shared.service(framework_id)["copies"][0]["task_id"] not in ("", copy["task_id"]), "another copy")
    until_running(shared, framework_id, 1)

    assert not is_alive(pid)
    shared.ok("service", "remove", "kept")


def test_a_changed_service_is_replaced_copy_by_copy(shared: Cluster) -> None:
    framework_id = shared.ok("service", "apply", spec(shared, "rolling", "v1", instances=3)).strip()
    old = [copy["task_id"] for copy in until_running(shared, framework_id, 3)["copies"]]
    again = shared.ok("service", "apply", spec(shared, "rolling", "v2", instances=3)).strip()
    fewest = 3

    def rolled() -> bool:
        nonlocal fewest
        row = shared.service(framework_id)
        fewest = min(fewest, row["running"])
        return row["running"] == 3 and all(copy["version"] == 1 for copy in row["copies"])

    until(rolled, "three copies of the new version")
    new = [copy["task_id"] for copy in shared.service(framework_id)["copies"]]

    assert again == framework_id
    assert fewest >= 2
    assert not set(old) & set(new)
    assert shared.ok("logs", new[0]) == "v2\n"
    shared.ok("service", "remove", "rolling")


def test_a_service_is_taken_up_again_after_its_scheduler_was_killed(shared: Cluster) -> None:
    framework_id = shared.ok("service", "apply", spec(shared, "orphan", instances=1)).strip()
    (copy,) = until_running(shared, framework_id, 1)["copies"]
    directory = str(shared.home / ".local/state/mesos-actor/schedulers" / framework_id)
    (scheduler,) = shared.pids_with(os.path.realpath(directory))
    os.kill(scheduler, signal.SIGKILL)
    until(lambda: shared.framework(framework_id)["state"] == "disconnected", "the master has noticed")
    away = shared.cli("service", "scale", "orphan", "2")

    assert away.status == 1, away
    assert f"mesos-actor submit --resume {framework_id}" in away.err
    assert len(away.err.splitlines()) == 1
    assert shared.ok("submit", "--resume", framework_id).strip() == framework_id
    assert until_running(shared, framework_id, 1)["copies"][0]["task_id"] == copy["task_id"]
    shared.ok("service", "remove", "orphan")


def test_what_is_wrong_about_a_service_is_told_in_one_line(shared: Cluster) -> None:
    cases = [
        (("service", "scale", "no-such", "3"), "there is no service 'no-such'"),
        (("service", "remove", "no-such"), "there is no service 'no-such'"),
    ]
    for arguments, words in cases:
        ended = shared.cli(*arguments)
        assert ended.status != 0, ended
        assert words in ended.err, ended
        assert len(ended.err.splitlines()) == 1, ended
