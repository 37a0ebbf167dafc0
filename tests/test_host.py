"""A process put together: what it refuses before it starts, and who may touch its keys."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from mesos_actor.actors.config import load_config
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.host import STORE_FILE, Host
from mesos_actor.actors.ids import Address, ContainerId, Principal
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.containers import ForgetContainer, RecoverContainers
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.runtime import Runtime
from mesos_actor.isolation.choice import possible_here
from mesos_actor.isolation.ends import Ends
from mesos_actor.transport.security import create_cluster_key

RESOURCES = "cpus:1;mem:64;disk:64;ports:[1-2]"


@pytest.fixture
def opened() -> Iterator[list[Runtime]]:
    runtimes: list[Runtime] = []
    yield runtimes
    for runtime in runtimes:
        assert runtime._store is not None
        runtime._store.close()


def host(tmp_path: Path, **options: object) -> Host:
    return Host(load_config({"work_dir": str(tmp_path / "w"), "resources": RESOURCES, **options}, {}))


def agent(tmp_path: Path) -> Host:
    return host(tmp_path, masters="127.0.0.1:5050", role_as="agent", isolation="process")


class Keys:
    """A transport, as far as executors' keys go."""

    def __init__(self) -> None:
        self.changed: list[str] = []

    def authorize_executor(self, container_id: ContainerId) -> None:
        self.changed.append(f"+{container_id}")

    def revoke_executor(self, container_id: ContainerId) -> None:
        self.changed.append(f"-{container_id}")


class Quiet:
    """An outlet that nobody listens to."""

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """Nothing is printed."""

    def send(self, *_: Any) -> None:
        """Nothing is sent."""


def test_only_the_own_agent_touches_the_keys_of_executors(tmp_path: Path, opened: list[Runtime]) -> None:
    process, keys = agent(tmp_path), Keys()
    runtime = process._runtime()
    opened.append(runtime)
    process.transport = keys  # type: ignore[assignment]
    port: Any = next(cell.port for cell in runtime._ports if cell.name == "containerizer")
    port._inner._ends = Ends(cast(Any, Quiet()), lambda: ())
    executor = ContainerId("e.0123456789ab")
    for message in (ForgetContainer(executor), RecoverContainers((), executors=(executor,))):
        port.on_message(Address("peer:1/x"), "", Principal("bob"), message)
        port.on_message(Address("peer:1/x"), "", Principal("cluster"), message)

    assert keys.changed == []


def test_a_work_directory_is_used_as_what_it_was(tmp_path: Path, opened: list[Runtime]) -> None:
    opened.append(agent(tmp_path)._runtime())

    with pytest.raises(ConfigError, match=r"holds the state of agent, and this would be a one-host cluster"):
        host(tmp_path)._runtime()


def test_what_is_kept_is_for_its_owner_alone(tmp_path: Path, opened: list[Runtime]) -> None:
    opened.append(agent(tmp_path)._runtime())

    assert stat.S_IMODE((tmp_path / "w" / "agent" / STORE_FILE).stat().st_mode) == 0o600


def test_a_key_that_a_master_does_not_share_is_explained_once(tmp_path: Path) -> None:
    create_cluster_key(tmp_path / "mine")
    process = host(tmp_path, masters="127.0.0.1:5050", role_as="agent", key_dir=str(tmp_path / "mine"))
    process.log = log = MemoryLog()
    for event, node, count in (
        ("handshakes_failed", "tcp://127.0.0.1:5050", 1),  # it may just have ended
        ("handshakes_failed", "tcp://10.9.9.9:1", 2),
        ("link_ended", "tcp://127.0.0.1:5050", 1),
    ):
        process._on_report(event, {"node": node, "count": count})
    assert log.events("not_admitted") == []

    for count in (2, 4, 8):
        process._on_report("handshakes_failed", {"node": "tcp://127.0.0.1:5050", "count": count})

    (line,) = log.events("not_admitted")
    assert (line["level"], line["master"]) == ("error", "tcp://127.0.0.1:5050")
    assert f"{tmp_path / 'mine'} does not hold this master's key" in line["text"]
    assert "--key-dir" in line["text"]
    assert len(log.events("handshakes_failed")) == 5


def test_a_master_that_does_not_know_us_is_explained_at_once(tmp_path: Path) -> None:
    process = host(tmp_path, masters="127.0.0.1:5050", role_as="agent", insecure=True)
    process.log = log = MemoryLog()
    process._on_report("refused.by-peer", {"node": "tcp://127.0.0.1:5050", "count": 1})

    (line,) = log.events("not_admitted")
    assert "--insecure" in line["text"]


@pytest.mark.skipif(possible_here().name == "cgroups", reason="this host can do cgroups")
def test_an_agent_of_a_cluster_refuses_a_host_that_cannot_keep_limits(tmp_path: Path) -> None:
    process = host(tmp_path, masters="127.0.0.1:5050", role_as="agent")

    with pytest.raises(ConfigError, match=r"isolation: cgroups cannot be used on this host: .*--isolation process"):
        process._isolation()


@pytest.mark.skipif(possible_here().name == "cgroups", reason="this host can do cgroups")
def test_the_trial_goes_on_without_limits_and_says_so_to_the_master(tmp_path: Path) -> None:
    process = host(tmp_path)
    process.log = log = MemoryLog()

    choice = process._isolation()

    assert (choice.name, "are not kept apart" in choice.warning) == ("process", True)
    assert len(log.events("isolation")) == 1
    settings = process.config.agent_settings(Resources(), (), "1", choice.name, choice.warning)
    assert (settings.isolation, settings.isolation_warning) == ("process", choice.warning)
