"""The example of docs/testing.md: one suite, simulated, on processes of its own, and on a cluster that runs already."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.cluster.real_cluster import Cluster

ROOT = Path(__file__).resolve().parents[2]
SUITE = ROOT / "examples" / "three_worlds"


def run_suite(cluster: Cluster, *options: str) -> str:
    """What pytest prints; it must end well."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", "--rootdir", "."]
    ended = subprocess.run(
        [*command, str(SUITE), *options],
        cwd=cluster.directory,
        env=cluster.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_simulated(bare: Cluster) -> None:
    assert "4 passed" in run_suite(bare, "-k", "simulated")


def test_on_processes_of_its_own(bare: Cluster) -> None:
    assert "1 passed" in run_suite(bare, "-k", "real")


def test_on_a_cluster_that_runs_already(bare: Cluster) -> None:
    bare.start_master()
    bare.start_agent("h1")

    assert "1 passed" in run_suite(bare, "-k", "real", "--cluster-masters", bare.masters.removeprefix("tcp://"))
    assert bare.rows("frameworks") and bare.pids()
