"""Published ports and subnets: what is refused, with which words."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.core.container_network import (
    parse_subnet,
    ports_error,
    ports_text,
    published_error,
)
from mesos_actor.actors.core.validation import executor_error, task_error
from mesos_actor.actors.ids import ExecutorId, TaskId
from mesos_actor.actors.messages.values import Command, ContainerSpec, ExecutorInfo, PortMapping, Task
from mesos_actor.actors.resources import Resources

P = PortMapping


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"network": "host"}, "set 'network' to 'bridge', not 'host'"),
        ({"ports": tuple(P(n, 1) for n in range(1, 102))}, "101 'ports'; at most 100 are accepted"),
        ({"ports": (P(0, 1),)}, "port: 'host_port' must be from 1 to 65535, not 0"),
        ({"ports": (P(1, 65_536),)}, "port: 'container_port' must be from 1 to 65535, not 65536"),
        ({"ports": (P(1, 1, "sctp"),)}, "port: 'protocol' must be one of 'tcp', 'udp', not 'sctp'"),
        ({"ports": (P(7, 1), P(7, 1, "udp"), P(7, 2))}, "port: two ports have 'host_port' 7/tcp"),
    ],
)
def test_ports_are_refused_with_field_value_and_fix(fields: dict[str, Any], expected: str) -> None:
    spec = ContainerSpec(**{"network": "bridge", "ports": (P(1, 1),), **fields})
    assert expected in str(ports_error(spec))


def test_ports_that_can_be_published() -> None:
    assert ports_error(ContainerSpec(network="none")) is None
    ports = (P(7, 1), P(7, 1, "udp"), P(8, 1))
    assert ports_error(ContainerSpec(network="bridge", ports=ports)) is None
    assert ports_text(ports) == "7:1/tcp,7:1/udp,8:1/tcp"


def test_host_ports_are_those_of_the_task() -> None:
    command = Command(("x",), container=ContainerSpec(network="bridge", ports=(P(31_000, 80), P(31_005, 81))))
    for resources, held in (("cpus:1", "none"), ("cpus:1;ports:[31000-31004,31006-31007]", "31000-31004, 31006-31007")):
        text = (
            f"has an invalid container: port: 'host_port' {31_000 if held == 'none' else 31_005} is not among the "
            f"'ports' resources, which are {held}"
        )
        task = Task(TaskId("t"), Resources.parse(resources), command)
        assert f"Task's command {text}" in str(task_error(task, (), ()))
        executor = ExecutorInfo(ExecutorId("e"), command, Resources.parse(resources))
        assert f"Executor's command {text}" in str(executor_error(executor))
    held_by_roles = Resources.parse("cpus:1;ports:[31000-31000];ports(web):[31005-31005]")
    assert task_error(Task(TaskId("t"), held_by_roles, command), (), ()) is None
    assert published_error(None, Resources()) is None


@pytest.mark.parametrize("text", ["10.0.0.0/16", "172.30.0.0/29", "192.168.0.0/24"])
def test_private_subnets_are_taken(text: str) -> None:
    assert str(parse_subnet(text)) == text


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is no IPv4 network"),
        ("10.0.0.1/16", "has host bits set"),
        ("fd00::/64", "is no IPv4 network"),
        ("10.0.0.0/15", "has a prefix of 15 bits"),
        ("10.0.0.0/30", "has a prefix of 30 bits"),
        ("8.8.8.0/24", "is not one for private use"),
        ("127.0.0.0/16", "is not one for private use"),
        ("0.0.0.0/16", "is not one for private use"),
        ("198.18.0.0/16", "is not one for private use"),
        ("240.0.0.0/16", "is not one for private use"),
        ("169.254.0.0/16", "is not one for private use"),
    ],
)
def test_other_subnets_are_refused(text: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem) as caught:
        parse_subnet(text)
    assert "write a private network like 172.30.0.0/16" in str(caught.value)
