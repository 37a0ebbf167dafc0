"""What a launch is for Docker Engine, and what an end is for us."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import ContainerExited, LaunchContainer
from mesos_actor.actors.messages.values import Command, ContainerSpec, PortMapping, RLimit, Volume
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.docker_spec import (
    EngineState,
    agent_key,
    create_parameters,
    engine_name,
    exited_of,
    volume_error,
)

A = ContainerId("a.1")


def parameters(command: Command, resources: str = "", **options: Any) -> dict[str, Any]:
    launch = LaunchContainer(A, FrameworkId("f"), command, Resources.parse(resources) if resources else Resources())
    return create_parameters(launch, "app:1", "/w/sandbox", "key", {"X": "extra"}, **options)


def test_everything_at_once() -> None:
    spec = ContainerSpec("app:1", volumes=(Volume("/srv", "/data", True),), network="none", read_only_root=True)
    env = {"A": "1", "MESOS_SANDBOX": "no"}
    command = Command(("serve", "-x"), env=env, user="1000:5", container=spec, rlimits=(RLimit("core", 0, -1),))

    assert parameters(command, "cpus:0.5;mem:64;pids:20", init=True) == {
        "Image": "app:1",
        "Cmd": ["serve", "-x"],
        "User": "1000:5",
        "Env": ["A=1", "X=extra", "MESOS_SANDBOX=/mnt/mesos/sandbox", "MESOS_CONTAINER_ID=a.1"],
        "Labels": {"mesos-actor.container": "a.1", "mesos-actor.framework": "f", "mesos-actor.agent": "key"},
        "OpenStdin": False,
        "Tty": False,
        "HostConfig": {
            "NetworkMode": "none",
            "Mounts": [
                {"Type": "bind", "Source": "/w/sandbox", "Target": "/mnt/mesos/sandbox", "ReadOnly": False},
                {"Type": "bind", "Source": "/srv", "Target": "/data", "ReadOnly": True},
            ],
            "ReadonlyRootfs": True,
            "RestartPolicy": {"Name": "no"},
            "Init": True,
            "CpuShares": 512,
            "Memory": 64 << 20,
            "MemorySwap": 64 << 20,
            "PidsLimit": 20,
            "Ulimits": [{"Name": "core", "Soft": 0, "Hard": -1}],
        },
    }


def test_ports_are_published_on_the_engines_bridge() -> None:
    ports = (PortMapping(31_000, 80), PortMapping(31_001, 80), PortMapping(31_000, 53, "udp"))
    command = Command(("x",), container=ContainerSpec("app:1", network="bridge", ports=ports))
    body = parameters(command, "cpus:1;ports:[31000-31001]")

    assert body["HostConfig"]["NetworkMode"] == "bridge"
    assert body["ExposedPorts"] == {"80/tcp": {}, "53/udp": {}}
    assert body["HostConfig"]["PortBindings"] == {
        "80/tcp": [{"HostIp": "", "HostPort": "31000"}, {"HostIp": "", "HostPort": "31001"}],
        "53/udp": [{"HostIp": "", "HostPort": "31000"}],
    }
    assert "MESOS_ACTOR_PORTS=31000:80/tcp,31001:80/tcp,31000:53/udp" in body["Env"]
    with pytest.raises(CommandError, match="'host_port' 31001 is not among the 'ports' resources"):
        parameters(command, "cpus:1;ports:[31000-31000]")


@pytest.mark.parametrize(
    ("command", "found"),
    [
        (Command((), container=ContainerSpec("app")), {}),
        (Command(("x",), container=ContainerSpec("app")), {"Cmd": ["x"]}),
        (
            Command(("a b",), True, container=ContainerSpec("app")),
            {"Entrypoint": ["/bin/sh", "-c"], "Cmd": ["a b"]},
        ),
    ],
)
def test_what_is_run(command: Command, found: dict[str, Any]) -> None:
    body = parameters(command)

    assert {key: body[key] for key in ("Entrypoint", "Cmd") if key in body} == found
    assert "Memory" not in body["HostConfig"]


def test_small_requests_are_raised_to_what_works() -> None:
    host = parameters(Command(("x",), container=ContainerSpec("app")), "cpus:0.001;mem:1")["HostConfig"]

    assert (host["CpuShares"], host["Memory"]) == (2, 32 << 20)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command(("x",)), "container.image: is empty"),
        (Command(("x",), container=ContainerSpec("app", network="x")), "container: 'network' must be one of"),
        (Command(("x",), container=ContainerSpec("app"), env={"a=b": "c"}), "env: 'a=b' cannot be set"),
    ],
)
def test_what_cannot_be(command: Command, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        parameters(command)


def test_volumes_are_the_operators_decision() -> None:
    for path, allowed in (("/srv", True), ("/srv/x", True), ("/srvx", False), ("/", False)):
        assert (volume_error(Volume(path, "/d"), ["/srv"]) is None) == allowed
    assert volume_error(Volume("/x", "/d"), ["/"]) is None
    assert volume_error(Volume("/x", "/d"), []) == "volume: this agent lets tasks use no directory at all, not '/x'"


@pytest.mark.parametrize(
    ("state", "exited"),
    [
        (EngineState("e", "exited"), ContainerExited(A, exit_status=0)),
        (EngineState("e", "exited", exit_code=3), ContainerExited(A, exit_status=3)),
        (EngineState("e", "exited", exit_code=128), ContainerExited(A, exit_status=128)),
        (EngineState("e", "exited", exit_code=143), ContainerExited(A, signal=15)),
        (EngineState("e", "exited", exit_code=255), ContainerExited(A, exit_status=255)),
        (EngineState("e", "exited", exit_code=-1), ContainerExited(A, text="the engine tells the exit status -1")),
        (
            EngineState("e", "exited", exit_code=137, oom=True),
            ContainerExited(A, signal=9, text="out of memory: it went past its limit", limitation="memory"),
        ),
    ],
)
def test_ends(state: EngineState, exited: ContainerExited) -> None:
    assert exited_of(A, state, False) == exited


def test_names_in_the_engine_are_of_one_agent_and_one_container() -> None:
    key = agent_key("/var/lib/agent")
    names = {engine_name(k, ContainerId(c)) for k in (key, agent_key("/other")) for c in ("a/b", "a-b", "x" * 500)}

    assert len(names) == 6
    assert engine_name(key, ContainerId("a/b")).startswith("mesos-actor-a-b-")
    assert max(map(len, names)) < 100
