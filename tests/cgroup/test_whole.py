"""A cluster of real processes with cgroups: from the command line to the kernel and back."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesos_actor.isolation.linux import tree_name
from tests.cluster.real_cluster import Cluster, until

pytestmark = [pytest.mark.cgroup, pytest.mark.slow]

TOP = Path("/sys/fs/cgroup")
GROW = "head -c 400M /dev/zero | tail >/dev/null"


NOBODY = 65_534


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A directory that everybody can reach, which pytest's own are not."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def whole(place: Path) -> Iterator[Cluster]:
    keys = place / "keys"
    made = Cluster(place / "cluster", keys)
    made.ok("init", "--key-dir", str(keys))
    # An agent takes half a minute to be started again there, which is not meant to count as unreachable.
    made.start_master(env={"MESOS_ACTOR_MASTER_MAX_MISSED_PINGS": "100"})
    yield made
    made.end()


@pytest.fixture
def cluster(_only_in_the_machine: None, request: pytest.FixtureRequest) -> Cluster:
    """One with a master."""
    made: Cluster = request.getfixturevalue("whole")
    return made


def test_limits_and_causes_reach_whoever_asked_for_them(cluster: Cluster) -> None:
    """An agent that joins a cluster uses cgroups without being told. It is killed while a task runs, which lives on
    with its limits; another one then runs out of memory, and its owner reads why."""
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
    agent = cluster.start_agent()
    hog = cluster.cli("run", "--mem", "64", "--name", "hog", "--shell", "--", GROW)

    assert hog.status == 128 + signal.SIGKILL
    assert cgroup.exists(), f"{cluster.rows('tasks')}\n{cluster.logs()}"
    assert (cgroup / "cgroup.procs").read_text().split()
    ended = next(row for row in cluster.rows("tasks") if row["name"].startswith("hog"))
    assert (ended["state"], ended["reason"]) == ("FAILED", "CONTAINER_LIMITATION_MEMORY")
    assert "memory limit of 64 MiB exceeded, peak 6" in ended["message"]
    assert "biggest process 'tail'" in ended["message"]
    lasting.signal(signal.SIGINT)
    lasting.ended()
    until(lambda: [path.name for path in tree.iterdir() if path.is_dir()] == [], "no cgroup is left")
    agent.signal(signal.SIGTERM)
    agent.ended()


def test_ordinary_user_runs_an_agent_in_the_cgroup_that_was_delegated_to_it(cluster: Cluster, place: Path) -> None:
    part = TOP / "of-the-user"
    part.mkdir()
    keys, work_dir = place / "keys-of-the-user", cluster.directory / "h2"
    shutil.copytree(cluster.keys, keys)
    work_dir.mkdir()
    handed_over = [part / name for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads")]
    for path in (*handed_over, keys, *keys.iterdir(), work_dir, cluster.directory):
        os.chown(path, NOBODY, NOBODY)
    let_everybody_reach(Path(sys.base_prefix))
    enter = f'echo 0 >{part}/cgroup.procs && exec setpriv --reuid={NOBODY} --regid={NOBODY} --clear-groups "$@"'
    env = {"MESOS_ACTOR_KEY_DIR": str(keys), "HOME": str(work_dir)}

    agent = cluster.start_agent("h2", env=env, through=("/bin/sh", "-c", enter, "sh"))
    show = "id -u; own=$(cut -d: -f3 /proc/self/cgroup); echo $own; cd /sys/fs/cgroup$own; cat cpu.max pids.max"
    hog = cluster.cli(
        *("run", "--cpus", "0.5", "--mem", "64", "--limit", "cpus:0.5;pids:30", "--name", "rootless"),
        *("--shell", "--", f"{show}; {GROW}"),
    )

    assert hog.status == 128 + signal.SIGKILL, f"{hog}\n{cluster.logs()}"
    user, own, quota, pids = hog.out.splitlines()
    assert (user, quota, pids) == (str(NOBODY), "50000 100000", "30")
    assert own.startswith(f"/of-the-user/{tree_name(work_dir / 'agent')}/"), own
    ended = next(row for row in cluster.rows("tasks") if row["name"].startswith("rootless"))
    assert (ended["state"], ended["reason"]) == ("FAILED", "CONTAINER_LIMITATION_MEMORY")
    assert "memory limit of 64 MiB exceeded" in ended["message"]
    agent.signal(signal.SIGTERM)
    agent.ended()


def let_everybody_reach(path: Path) -> None:
    """Where a directory above is somebody's alone, put one in its place that leads to `path` only."""
    for above in reversed(path.parents):
        if not above.stat().st_mode & 0o001:
            instead = Path(tempfile.mkdtemp())
            instead.chmod(0o755)
            child = path.relative_to(above).parts[0]
            (instead / child).mkdir()
            subprocess.run(["mount", "--rbind", above / child, instead / child], check=True)
            subprocess.run(["mount", "--rbind", instead, above], check=True)
