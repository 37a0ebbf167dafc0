"""Fixtures: a cluster for one test, and one that the tests of a worker share when they do it no harm."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.real_cluster import Cluster


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cluster key, made as an operator makes it."""
    directory = tmp_path_factory.mktemp("cluster-keys") / "keys"
    command = [sys.executable, "-m", "mesos_actor", "init", "--key-dir", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return directory


@pytest.fixture
def make_cluster(tmp_path: Path, cluster_keys: Path) -> Iterator[Callable[[], Cluster]]:
    """Makes clusters without any process yet, and ends all of theirs."""
    made: list[Cluster] = []

    def make() -> Cluster:
        made.append(Cluster(tmp_path / f"cluster-{len(made)}", cluster_keys))
        return made[-1]

    yield make
    for cluster in made:
        cluster.end()


@pytest.fixture
def bare(make_cluster: Callable[[], Cluster]) -> Cluster:
    """A cluster without any process yet."""
    return make_cluster()


@pytest.fixture
def cluster(bare: Cluster) -> Cluster:
    """A master, and an agent `h1`; `cluster.master` and `cluster.agent` are their processes."""
    bare.master = bare.start_master()
    bare.agent = bare.start_agent()
    return bare


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, cluster_keys: Path) -> Iterator[Cluster]:
    """A master with two agents, `h1` in rack r1 and `h2` in rack r2, for tests that leave it as they found it."""
    cluster = Cluster(tmp_path_factory.mktemp("shared") / "cluster", cluster_keys)
    try:
        cluster.start_master()
        cluster.start_agent("h1")
        cluster.start_agent("h2", resources="cpus:4;mem:1024;disk:1024;ports:[32000-32019]", attributes="rack:r2")
        yield cluster
    finally:
        cluster.end()
