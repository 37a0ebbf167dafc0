"""Names, addresses and rules of an agent's bridge."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.values import PortMapping
from mesos_actor.isolation.network_plan import FIRST, Endpoint, Plan, described, free_number, overlap, resolver

PLAN = Plan("0123abcd", "172.30.0.0/16")


def endpoint(number: int, *ports: PortMapping, made_ns: int = 0) -> Endpoint:
    return Endpoint(
        container_id=ContainerId(f"c{number}"), number=number, subnet=PLAN.subnet, ports=ports, made_ns=made_ns
    )


def test_names_fit_the_kernel() -> None:
    assert [PLAN.bridge, PLAN.link(2), PLAN.link(65_534)] == ["ma0123abcd-br", "ma0123abcd-2", "ma0123abcd-fffe"]
    assert len(PLAN.link(65_534)) == 15
    assert [PLAN.address(1), endpoint(300).address] == ["172.30.0.1", "172.30.1.44"]


def test_links_are_made_in_their_order() -> None:
    assert PLAN.bridge_lines() == [
        "link add name ma0123abcd-br address 02:6d:ac:1e:00:01 type bridge",
        "link set dev ma0123abcd-br addrgenmode none",
        "address add 172.30.0.1/16 dev ma0123abcd-br",
        "link set dev ma0123abcd-br up",
    ]
    assert PLAN.cable_lines(2) == [
        "link add name ma0123abcd-2 type veth peer name eth0 address 02:6d:ac:1e:00:02 netns ma0123abcd-2",
        "link set dev ma0123abcd-2 addrgenmode none",
        "link set dev ma0123abcd-2 master ma0123abcd-br up",
    ]
    assert Plan("0123abcd", "172.30.0.0/16", ipv6=False).inside_lines(2) == [
        "link set dev lo up",
        "address add 172.30.0.2/16 dev eth0",
        "link set dev eth0 up",
        "route add default via 172.30.0.1",
    ]


def test_published_ports_are_one_map_and_the_last_owner_has_them() -> None:
    old = endpoint(2, PortMapping(31_000, 80), PortMapping(31_001, 53, "udp"), made_ns=1)
    new = endpoint(3, PortMapping(31_000, 8080), made_ns=2)
    rules = PLAN.rules([new, old])

    assert "elements = { tcp . 31000 : 172.30.0.3 . 8080, udp . 31001 : 172.30.0.2 . 53 }" in rules
    assert rules.startswith("add table ip mesos_actor_0123abcd\ndelete table ip mesos_actor_0123abcd\ntable ip ")
    assert "elements" not in PLAN.rules([endpoint(2)])
    assert PLAN.no_rules() == "add table ip mesos_actor_0123abcd\ndelete table ip mesos_actor_0123abcd\n"


def test_addresses_go_round() -> None:
    assert free_number("10.0.0.0/29", (), FIRST - 1) == 2
    assert free_number("10.0.0.0/29", {3}, 2) == 4
    assert free_number("10.0.0.0/29", {2}, 6) == 3
    assert free_number("10.0.0.0/29", {2, 3, 4, 5}, 5) == 6
    assert free_number("10.0.0.0/29", range(2, 7), 4) is None


@given(st.sets(st.integers(2, 14)), st.integers(1, 14))
def test_every_free_address_is_found_and_no_other(taken: set[int], last: int) -> None:
    found = free_number("10.0.0.0/28", taken, last)
    assert found is None if len(taken) == 13 else found not in taken and 2 <= (found or 0) <= 14


def test_subnet_of_somebody_else_is_seen() -> None:
    routes = [("default", "eth0"), ("0.0.0.0/0", "eth0"), ("172.30.0.0/16", PLAN.bridge), ("172.30.5.0/24", "vpn0")]
    assert overlap(PLAN.subnet, routes, PLAN.bridge) == "172.30.5.0/24 dev vpn0"
    assert overlap(PLAN.subnet, [*routes[:3], ("172.31.0.1", "")], PLAN.bridge) == ""
    assert overlap(PLAN.subnet, [("172.30.9.9", "")], PLAN.bridge) == "172.30.9.9"


@pytest.mark.parametrize(
    ("own", "upstream", "expected"),
    [
        ("search x\nnameserver 10.0.0.1\n", "", "search x\nnameserver 10.0.0.1\n"),
        ("nameserver 127.0.0.1\nnameserver ::1\nnameserver 10.0.0.1\n", "no", "nameserver 10.0.0.1\n"),
        ("nameserver 127.0.0.53\n", "nameserver 10.0.0.2\n", "nameserver 10.0.0.2\n"),
        ("nameserver 127.0.0.53\nnameserver\n", "", ""),
        ("nameserver 10.0.0.1\n" * 5, "", "nameserver 10.0.0.1\n" * 3),
        ("nameserver fe80::1%eth0\nnameserver odd\n", "", "nameserver fe80::1%eth0\nnameserver odd\n"),
    ],
)
def test_resolvers_that_no_container_reaches_are_left_out(own: str, upstream: str, expected: str) -> None:
    assert resolver(own, upstream) == expected


def test_what_is_missing_is_said_with_its_packages() -> None:
    assert described([]) == ""
    assert "needs the program `nft`, not found" in described(["nft"])
    assert "programs `ip` and `nft`" in described(["ip", "nft"])
    assert "(Debian, Fedora: iproute2 nftables)" in described(["ip", "nft"])
