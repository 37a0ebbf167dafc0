"""The isolator of network `bridge`, with pretended programs: what it makes, takes back, recovers and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Command, ContainerSpec, PortMapping
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.container_records import ContainerRecords
from mesos_actor.isolation.isolator import BaseIsolator, Isolation, IsolatorError, Limitation
from mesos_actor.isolation.network_host import NetworkError, NetworkHost, Ran, run_program
from mesos_actor.isolation.network_isolator import NetworkIsolator
from mesos_actor.isolation.network_plan import Endpoint, Plan
from mesos_actor.isolation.root_isolator import RootIsolator
from tests.isolation.pretended_network import PretendedNetwork

A, B, C = ContainerId("a"), ContainerId("b"), ContainerId("c")
KEY = "0123abcd"
ALL = ["ma0123abcd-2", "ma0123abcd-2", "ma0123abcd-br", "rules"]


class Log:
    def __init__(self) -> None:
        self.events: list[str] = []

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        raise AssertionError((container_id, limitation))

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.events.append(event)


class MakesContainers(BaseIsolator):
    makes_containers = True


@pytest.fixture
def host(tmp_path: Path) -> PretendedNetwork:
    return PretendedNetwork(tmp_path / "host")


def agent(host: PretendedNetwork, subnet: str = "172.30.0.0/16") -> NetworkIsolator:
    made = NetworkIsolator(host.root.parent / "work", KEY, subnet, host)
    made.start(Log())
    made.recover(())
    return made


def launch(name: ContainerId, *ports: PortMapping, **fields: Any) -> LaunchContainer:
    spec = ContainerSpec(network="bridge", ports=ports, **fields)
    resources = Resources.parse("cpus:1;ports:[31000-31009]")
    return LaunchContainer(name, FrameworkId("f"), Command(("x",), container=spec), resources)


def refused(isolator: NetworkIsolator, wanted: LaunchContainer) -> str:
    """As all isolators together refuse it: what was made is taken back."""
    with pytest.raises(IsolatorError) as caught:
        Isolation([isolator, MakesContainers()]).prepare(wanted, "/sandbox")
    assert caught.value.reason == "spawn"
    return caught.value.text


def test_container_gets_an_address_and_its_ports(host: PretendedNetwork) -> None:
    isolator = agent(host)
    wanted = launch(A, PortMapping(31_000, 80), PortMapping(31_001, 53, "udp"))

    assert isolator.slow(wanted)
    assert isolator.prepare(wanted, "/sandbox").env == {
        "MESOS_CONTAINER_IP": "172.30.0.2",
        "MESOS_ACTOR_PORTS": "31000:80/tcp,31001:53/udp",
    }
    assert host.left() == sorted(ALL)
    assert "tcp . 31000 : 172.30.0.2 . 80" in host.table
    assert host.inside["ma0123abcd-2"][-1] == "route add default via 172.30.0.1"
    assert host.text("proc/sys/net/ipv4/ip_forward") == "1"
    assert host.text("proc/sys/net/ipv4/conf/ma0123abcd-br/route_localnet") == "1"
    joined = isolator.joined(A)
    assert joined is not None
    assert joined.namespace == str(host.spaces / "ma0123abcd-2")
    assert Path(joined.resolver).read_text() == "nameserver 10.0.0.53\n"
    isolator.started(A, 1)
    watch = isolator._watch
    assert isinstance(watch, Log)
    assert watch.events == ["forwarding_allowed"]

    isolator.cleanup(A)
    isolator.cleanup(A)
    assert host.left() == []
    assert list((host.root.parent / "work" / "networks").iterdir()) == []
    assert isolator.joined(A) is None


def test_others_are_left_alone(host: PretendedNetwork) -> None:
    isolator = agent(host)
    for wanted in (launch(A, type="docker"), LaunchContainer(A, FrameworkId("f"), Command(("x",)), Resources())):
        assert not isolator.slow(wanted)
        assert isolator.prepare(wanted, "/sandbox").env == {}
    isolator.cleanup(A)
    assert (host.left(), host.transactions) == ([], 0)


def test_two_share_the_bridge_and_the_last_one_takes_it_along(host: PretendedNetwork) -> None:
    isolator = agent(host)
    isolator.prepare(launch(A, PortMapping(31_000, 80)), "/sandbox")
    # The port is offered again before its last owner is cleaned up.
    isolator.prepare(launch(B, PortMapping(31_000, 81)), "/sandbox")
    assert [line for line in host.lines if "type bridge" in line] == [host.lines[0]]
    assert "{ tcp . 31000 : 172.30.0.3 . 81 }" in host.table
    isolator.cleanup(A)
    assert "{ tcp . 31000 : 172.30.0.3 . 81 }" in host.table
    assert host.left() == ["ma0123abcd-3", "ma0123abcd-3", "ma0123abcd-br", "rules"]
    isolator.prepare(launch(C), "/sandbox")
    isolator.cleanup(B)
    assert host.left() == ["ma0123abcd-4", "ma0123abcd-4", "ma0123abcd-br", "rules"], (
        "no address is given out again soon"
    )
    isolator.cleanup(C)
    assert host.left() == []


def test_next_life_of_the_agent_knows_who_is_there(host: PretendedNetwork) -> None:
    first = agent(host)
    for name, port in ((A, 31_000), (B, 31_001)):
        first.prepare(launch(name, PortMapping(port, 80)), "/sandbox")
    broken = host.root.parent / "work" / "networks" / "broken"
    broken.write_bytes(b"{")

    second = NetworkIsolator(host.root.parent / "work", KEY, host=host)
    second.start(Log())
    assert second.recover((A,)) == [B]
    assert not broken.exists()
    second.cleanup(B)
    assert "{ tcp . 31000 : 172.30.0.2 . 80 }" in host.table
    assert second.prepare(launch(C), "/sandbox").env["MESOS_CONTAINER_IP"] == "172.30.0.4"
    assert second.recover((A, C)) == []
    assert second.recover((C,)) == [A]
    second.cleanup(A)
    second.cleanup(C)
    assert host.left() == []


def test_next_life_of_the_agent_makes_anew_what_the_host_has_lost(host: PretendedNetwork) -> None:
    first = agent(host)
    for name, port in ((A, 31_000), (B, 31_001)):
        first.prepare(launch(name, PortMapping(port, 80)), "/sandbox")
    there, rules = host.left(), host.table
    host.table = ""
    (host.links / "ma0123abcd-br").rmdir()
    host.lines.clear()

    second = NetworkIsolator(host.root.parent / "work", KEY, host=host)
    second.start(Log())
    assert second.recover((A, B)) == []

    assert (host.left(), host.table) == (there, rules)
    joined = [line for line in host.lines if "master" in line]
    assert sorted(joined) == [f"link set dev ma0123abcd-{number} master ma0123abcd-br up" for number in (2, 3)]


def test_bridge_that_somebody_took_away_is_made_again_for_all(host: PretendedNetwork) -> None:
    isolator = agent(host)
    isolator.prepare(launch(A), "/sandbox")
    (host.links / "ma0123abcd-br").rmdir()
    host.lines.clear()
    isolator.prepare(launch(B), "/sandbox")

    assert [line for line in host.lines if line.endswith("-2 master ma0123abcd-br up")]


def test_network_that_cannot_be_restored_is_said(host: PretendedNetwork) -> None:
    agent(host).prepare(launch(A), "/sandbox")
    host.refuse["nft"] = "no such kernel"
    second, log = NetworkIsolator(host.root.parent / "work", KEY, host=host), Log()
    second.start(log)

    assert second.recover((A,)) == []
    assert log.events == ["network_not_restored"]


def test_what_no_record_tells_of_goes_before_the_first_container(host: PretendedNetwork) -> None:
    agent(host).prepare(launch(A), "/sandbox")
    ContainerRecords(host.root.parent / "work" / "networks", Endpoint).remove(A)
    (host.spaces / "somebody-else").touch()

    isolator = agent(host)
    isolator.prepare(launch(B), "/sandbox")
    assert sorted(host.left()) == sorted([*ALL, "somebody-else"])
    assert len(host.inside) == 1


def test_after_a_crash_of_the_host_nothing_is_there_to_take_back(host: PretendedNetwork) -> None:
    records = ContainerRecords(host.root.parent / "work" / "networks", Endpoint)
    records.start()
    records.write(A, Endpoint(container_id=A, number=9, subnet="172.30.0.0/16", made_ns=1))
    isolator = NetworkIsolator(host.root.parent / "work", KEY, host=host)
    isolator.start(Log())
    assert isolator.recover(()) == [A]
    isolator.cleanup(A)
    assert isolator.recover(()) == []


@pytest.mark.parametrize(
    ("piece", "said", "expected"),
    [
        ("netns add", "Operation not permitted", "give the agent CAP_NET_ADMIN"),
        ("type bridge", "Error: Unknown device type.", "modprobe -a bridge veth"),
        ("type veth", "RTNETLINK answers: File exists", "cannot connect the container with the bridge: `ip -batch -`"),
        ("route add default", "Nexthop has invalid gateway.", "cannot give the container its address"),
        ("map published", "Error: Could not process rule: No such file or directory", "modprobe -a nft_chain_nat"),
        ("route show", "", "cannot read this host's routes: `ip -json -4 route show table all` says: exit status 1"),
    ],
)
def test_what_the_kernel_refuses_is_said_and_undone(
    host: PretendedNetwork, piece: str, said: str, expected: str
) -> None:
    isolator = agent(host)
    host.refuse[piece] = said

    text = refused(isolator, launch(A, PortMapping(31_000, 80)))
    assert expected in text
    assert "not taken back" not in text
    assert host.left() == []
    host.refuse.clear()
    isolator.prepare(launch(A, PortMapping(31_000, 80)), "/sandbox")


def test_what_cannot_be_taken_back_is_tried_again(host: PretendedNetwork) -> None:
    isolator = agent(host)
    isolator.prepare(launch(A), "/sandbox")
    host.refuse["netns delete"] = "busy"
    with pytest.raises(IsolatorError, match=r"network: cannot remove a network namespace.*busy"):
        isolator.cleanup(A)
    host.refuse.clear()
    isolator.cleanup(A)
    assert host.left() == []


def test_what_can_be_known_is_refused_before_anything_is_made(host: PretendedNetwork) -> None:
    isolator = agent(host)
    assert "'host_port' 32000 is not among the 'ports' resources" in refused(
        isolator, launch(A, PortMapping(32_000, 1))
    )
    host.routes.append({"dst": "172.16.0.0/12", "dev": "vpn0"})
    assert "overlaps with the route 172.16.0.0/12 dev vpn0" in refused(isolator, launch(A))
    host.routes.clear()
    host.absent = ["nft"]
    assert "needs the program `nft`" in refused(isolator, launch(A))
    watch = Log()
    isolator.start(watch)
    assert watch.events == ["no_bridge_network"]
    assert host.left() == []
    for subnet in ("172.30.0.0", "172.30.0.1/16", "10.0.0.0/8", "8.8.0.0/16", "127.0.0.0/16", "x"):
        with pytest.raises(InvalidInput, match="container_subnet"):
            NetworkIsolator(host.root, KEY, subnet, host)


def test_full_and_changed_subnets_are_said(host: PretendedNetwork) -> None:
    isolator = agent(host, "10.1.0.0/29")
    for number in range(5):
        isolator.prepare(launch(ContainerId(f"c{number}")), "/sandbox")
    assert "all addresses of 10.1.0.0/29 are taken by 5 containers" in refused(isolator, launch(A))
    changed = agent(host, "10.2.0.0/29")
    changed.cleanup(ContainerId("c4"))
    before = host.table
    assert "10.2.0.0/29 is new, and 4 containers" in refused(changed, launch(A, PortMapping(31_000, 80)))
    assert host.table == before
    assert "10.1.0.0/29" in before


def test_namespaces_that_only_look_like_ours_are_left_alone(host: PretendedNetwork) -> None:
    (host.spaces / f"ma{KEY}-mine").touch()
    agent(host).prepare(launch(A), "/sandbox")
    assert f"ma{KEY}-mine" in host.left()


def test_host_without_ipv6_and_without_nameserver(host: PretendedNetwork) -> None:
    (host.root / "proc/sys/net/ipv6").rmdir()
    (host.root / "etc/resolv.conf").unlink()
    isolator = agent(host)
    isolator.prepare(launch(A), "/sandbox")
    assert not any("addrgenmode" in line for line in (*host.lines, *host.inside["ma0123abcd-2"]))
    joined = isolator.joined(A)
    assert joined is not None
    assert joined.resolver == ""


def test_agent_without_bridge_says_why(tmp_path: Path) -> None:
    for user_id, why in ((1000, "is for agents of root"), (0, "has no isolator here")):
        root = RootIsolator(tmp_path, user_id=user_id)
        with pytest.raises(IsolatorError, match=rf"^container: network: 'bridge' {why}.*start the agent as root"):
            root.prepare(launch(A), "/sandbox")


def test_container_joins_its_network_and_sees_its_resolver(host: PretendedNetwork, tmp_path: Path) -> None:
    isolator = agent(host)
    isolator.prepare(launch(A), "/sandbox")
    confine = RootIsolator(tmp_path, user_id=0, joined=isolator.joined).prepare(launch(A), "/s").fields["confine"]
    assert confine["joined"] == {"net": str(host.spaces / "ma0123abcd-2")}
    assert "net" not in confine["namespaces"]
    (mounted,) = confine["volumes"]
    assert (mounted["target"], mounted["read_only"]) == ("/etc/resolv.conf", True)


def test_programs_are_told_by_their_input_and_their_words_are_kept(tmp_path: Path) -> None:
    assert run_program(["cat"], "word") == Ran(0, "word", "")
    assert run_program(["sh", "-c", "echo no >&2; exit 3"], "") == Ran(3, "", "no\n")
    with pytest.raises(NetworkError, match="cannot start `no-such-program`"):
        run_program(["no-such-program"], "")
    bare = NetworkHost(lambda argv, told: Ran(0, "words"), tmp_path, path="/nowhere")
    assert (bare.namespaces("ma"), bare.has_link("lo"), bare.has_link("ma0123abcd-br")) == ([], True, False)
    with pytest.raises(NetworkError, match="install iproute2"):
        bare.make_bridge(Plan(KEY, "172.30.0.0/16"))
    lazy = NetworkHost(lambda argv, told: Ran(0, "[]"), tmp_path)
    with pytest.raises(NetworkError, match="cannot set /proc/sys/net/ipv4"):
        lazy.make_bridge(Plan(KEY, "172.30.0.0/16"))
