"""Ports that are taken, work directories that are in use, disks that are full: told clearly, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import Cluster, until


def test_two_masters_on_one_work_directory(cluster: Cluster) -> None:
    second = cluster.cli("start", "--as", "master", "--port", "0", "--work-dir", str(cluster.directory / "master"))

    assert second.status == 1, second
    assert f"in use by process {cluster.master.pid}" in second.err, second
    assert "ready:" not in second.out
    assert cluster.rows("status")[0]["agents"]["active"] == 1


def test_two_agents_on_one_work_directory(cluster: Cluster) -> None:
    second = cluster.cli("start", "--as", "agent", "--work-dir", str(cluster.directory / "h1"))

    assert second.status == 1, second
    assert f"in use by process {cluster.agent.pid}" in second.err, second
    assert cluster.cli("run", "--", "true").status == 0
    assert len(cluster.rows("agents")) == 1


def test_a_port_that_is_taken(cluster: Cluster) -> None:
    port = cluster.masters.rpartition(":")[2]
    for role in ("master", "both", "agent"):
        work_dir = str(cluster.directory / f"taken-{role}")
        second = cluster.cli("start", "--as", role, "--port", port, "--work-dir", work_dir)

        assert (second.status, second.out) == (2, ""), second
        assert f":{port} is taken" in second.err, second
        assert len(second.err.splitlines()) == 1, second


def test_a_work_directory_that_is_a_file(bare: Cluster) -> None:
    path = bare.file("plain", "no directory\n")
    ended = bare.cli("start", "--as", "master", "--initialize", "--port", "0", "--work-dir", path)

    assert ended.status == 2, ended
    assert len(ended.err.splitlines()) == 1
    assert path in ended.err


def test_state_that_is_damaged_is_not_taken_for_an_empty_one(bare: Cluster) -> None:
    work_dir = bare.directory / "damaged"
    (work_dir / "master" / "registry").mkdir(parents=True)
    (work_dir / "master" / "registry" / "identity").write_bytes(b"not an identity" * 1000)
    ended = bare.cli("start", "--as", "master", "--port", "0", "--work-dir", str(work_dir))

    assert ended.status == 1, ended
    assert "is damaged" in ended.err
    assert "Traceback" not in ended.err


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB. Mounting one needs root; who has not is told that this was not tried."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    try:
        mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a full disk is tried on a small tmpfs, and this user may not mount one")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(path: Path) -> None:
    """Write to `path` until nothing more goes in."""
    with open(path, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_under_the_agent(bare: Cluster, small_disk: Path, tmp_path: Path) -> None:
    bare.start_master()
    place = ("--work-dir", str(small_disk))
    agent = bare.start_agent("h1", *place)
    fill = small_disk / "agent" / "fill"
    line = f"until [ -e {tmp_path}/go ]; do sleep 0.05; done; exit 3"
    framework_id = bare.batch("survivor", shell=line)
    bare.until_task("t.0", "RUNNING")
    fill_up(fill)
    (tmp_path / "go").touch()
    ended = agent.ended()

    assert ended.status == 1, ended
    assert "the disk is full" in ended.err, ended
    assert bare.task("t.0")["state"] == "RUNNING"
    fill.unlink()
    bare.start_agent("h1", *place)
    row = bare.until_task("t.0", "FAILED")
    assert row["message"] == "Command exited with status 3", row
    assert bare.cli("wait", framework_id).status == 1


def test_a_full_disk_under_the_master(bare: Cluster, small_disk: Path) -> None:
    work_dir = ("--as", "master", "--work-dir", str(small_disk))
    master = bare.start("master", "--port", "0", "--initialize", *work_dir)
    bare.masters = bare.ready("master")["address"]
    bare.start_agent()
    (before,) = bare.rows("status")
    fill = small_disk / "fill"
    fill_up(fill)
    run = bare.spawn("run", "--", "echo", "in the end")
    for number in range(100):  # the last block of its log has room for some more
        if not master.is_alive():
            break
        bare.cli("weight", f"team-{number}-{'x' * 100}", "2", "--timeout", "0.5")
    until(lambda: not master.is_alive(), "the master ends rather than forget")
    assert master.ended().status == 1
    assert "the disk is full" in master.err()
    fill.unlink()
    bare.start("master", "--port", bare.masters.rpartition(":")[2], *work_dir)
    ended = run.ended()

    assert (ended.status, ended.out) == (0, "in the end\n"), ended
    assert bare.rows("status")[0]["cluster_id"] == before["cluster_id"]
