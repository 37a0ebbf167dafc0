"""A cluster of real processes with cgroups: from the command line to the kernel and back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesos_actor.isolation.linux import tree_name
from tests.cluster.real_cluster import Cluster, until

pytestmark = pytest.mark.cgroup

TOP = Path("/sys/fs/cgroup")
GROW = "head -c 400M /dev/zero | tail >/dev/null"


@pytest.fixture
def cluster(_only_in_the_machine: None, tmp_path: Path) -> Iterator[Cluster]:
    keys = tmp_path / "keys"
    made = Cluster(tmp_path / "cluster", keys)
    made.ok("init", "--key-dir", str(keys))
    yield made
    made.end()


def test_limits_and_causes_reach_whoever_asked_for_them(cluster: Cluster) -> None:
    """An agent that joins a cluster uses cgroups without being told. It is killed while a task runs, which lives on
    with its limits; another one then runs out of memory, and its owner reads why."""
    cluster.start_master()
    agent = cluster.start_agent()
    (row,) = cluster.rows("agents")
    assert (row["isolation"], row["warning"]) == ("cgroups", "")
    tree = TOP / tree_name(cluster.directory / "h1" / "agent")
    lasting = cluster.spawn(
        *("run", "--cpus", "0.5", "--mem", "64", "--limit", "cpus:1;mem:96MiB;pids:50"),
        *("--name", "lasting", "--", "sleep", "1000"),
    )
    until(lambda: [task["state"] for task in cluster.rows("tasks")] == ["RUNNING"], "it runs")
    (task,) = cluster.rows("tasks")
    cgroup = tree / task["container_id"]
    files = ("cpu.weight", "cpu.max", "memory.max", "pids.max")
    limits = [(cgroup / name).read_text().strip() for name in files]
    assert limits == ["50", "100000 100000", str(96 << 20), "50"]

    agent.kill()
    (tree / "left.000000000009").mkdir()
    cluster.start_agent()
    hog = cluster.cli("run", "--mem", "64", "--name", "hog", "--shell", "--", GROW)

    assert hog.status == 128 + signal.SIGKILL
    assert (cgroup / "cgroup.procs").read_text().split()
    ended = next(row for row in cluster.rows("tasks") if row["name"].startswith("hog"))
    assert (ended["state"], ended["reason"]) == ("FAILED", "CONTAINER_LIMITATION_MEMORY")
    assert "memory limit of 64 MiB exceeded, peak 6" in ended["message"]
    assert "biggest process 'tail'" in ended["message"]
    lasting.signal(signal.SIGINT)
    lasting.ended()
    until(lambda: [path.name for path in tree.iterdir() if path.is_dir()] == [], "no cgroup is left")
