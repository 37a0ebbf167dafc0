"""Containers of network `bridge`, by the whole linux containerizer on a real kernel: who reaches whom, what is left."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, PortMapping
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation import linux_calls
from mesos_actor.isolation.container_records import ContainerRecords
from mesos_actor.isolation.linux import LinuxContainerizer, tree_name
from mesos_actor.isolation.network_plan import Endpoint
from tests.isolation.benches import RealBench

pytestmark = pytest.mark.cgroup

HOST, OUTSIDE = "10.99.0.1", "10.99.0.2"
SUBNET = "172.30.0.0/16"
FIRST = "172.30.0.2"
GET = "get() {{ printf 'GET /name HTTP/1.0\\r\\n\\r\\n' | busybox nc -w {0} $1 $2 | grep '^[a-z]*$' || echo nothing; }}"
"""A function of the shell. Not busybox' wget: linked statically, it dies when it looks up what `http` is."""
SERVE = "mkdir www; echo {0} >www/name; busybox httpd -p 8080 -h www; busybox httpd -p 8081 -h www; echo up; sleep 1000"


def do(line: str) -> str:
    return subprocess.run(line.split(), check=True, capture_output=True, text=True).stdout


def inside(namespace: str, script: str) -> str:
    argv = ["ip", "netns", "exec", namespace, "sh", "-c", script]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def datagrams_at(namespace: str, port: int) -> socket.socket:
    """A socket of ours that stands in another network namespace: only the thread that made it was there."""

    def make() -> socket.socket:
        with Path(f"/run/netns/{namespace}").open("rb") as file:
            linux_calls.setns(file.fileno(), linux_calls.CLONE_NEWNET)
        made = socket.socket(type=socket.SOCK_DGRAM)
        made.settimeout(20)
        made.bind(("", port))
        return made

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(make).result()


class NetworkBench(RealBench):
    """With another host at this one, that knows the way to the containers' network."""

    def __init__(self, work_dir: Path) -> None:
        self.serial = 0
        # The kernel loads them by itself, one after the other, which takes 15 s in the emulated machine.
        do("modprobe -a bridge veth nf_tables nft_chain_nat nft_nat nft_masq nft_fib_ipv4 nft_ct")
        do("ip link set lo up")
        do("ip netns add outside")
        do("ip link add wire type veth peer name eth0 netns outside")
        do(f"ip address add {HOST}/24 dev wire")
        do("ip link set wire up")
        do(f"ip -n outside address add {OUTSIDE}/24 dev eth0")
        do("ip -n outside link set eth0 up")
        do(f"ip -n outside route add {SUBNET} via {HOST}")
        www = work_dir.parent / "www"
        www.mkdir(parents=True)
        (www / "name").write_text("outside\n")
        do(f"ip netns exec outside busybox httpd -p 80 -h {www}")

        def make(path: Path) -> LinuxContainerizer:
            return LinuxContainerizer(path, launcher_idle_s=5, exit_repeat_us=400_000, container_subnet=SUBNET)

        super().__init__(work_dir, make)
        self.prefix = f"ma{tree_name(work_dir)[-8:]}-"

    def run(self, script: str, *ports: PortMapping) -> ContainerId:
        self.serial += 1
        name = ContainerId(f"c.{self.serial:012}")
        command = Command((script,), shell=True, container=ContainerSpec(network="bridge", ports=ports))
        resources = Resources.parse("cpus:0.1;mem:64;ports:[31000-31009]")
        self.send(LaunchContainer(name, FrameworkId("c1-0001"), command, resources))
        return name

    def serving(self, name: str, *ports: PortMapping) -> ContainerId:
        container_id = self.run(SERVE.format(name), *ports)
        heard = self.inbox.messages
        self.until(lambda: any(getattr(one, "container_id", "") == container_id for one in heard), "an answer")
        assert self.inbox.take(ContainerStarted, container_id), heard
        self.until(lambda: "up" in self.said(container_id), f"the service: {self.said(container_id, 'stderr')}")
        return container_id

    def said(self, container_id: ContainerId, stream: str = "stdout") -> str:
        path = self.sandbox(container_id) / stream
        return path.read_text() if path.exists() else ""

    def end(self, *containers: ContainerId) -> None:
        for name in containers:
            self.send(KillContainer(name, 0))
            self.expect(ContainerExited, name)
            self.send(ForgetContainer(name))

    def links(self) -> set[str]:
        """Ours, and our network namespaces."""
        places = Path("/run/netns"), Path("/sys/class/net")
        return {str(path) for place in places for path in place.iterdir() if path.name.startswith(self.prefix)}

    def left(self) -> list[str]:
        """All that there is of ours on this host."""
        found = [*self.links(), *map(str, (self.work_dir / "networks").iterdir())]
        return found + [line for line in do("nft list tables").splitlines() if "mesos_actor" in line]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NetworkBench]:
    made = NetworkBench(tmp_path_factory.mktemp("network") / "agent")
    yield made
    made.close()


@pytest.fixture
def bench(_only_in_the_machine: None, request: pytest.FixtureRequest) -> Iterator[NetworkBench]:
    made: NetworkBench = request.getfixturevalue("machine")
    yield made
    print("launcher:", (made.work_dir / "launcher" / "launcher.log").read_text(), do("nft list ruleset"), do("ip addr"))
    shutil.rmtree(made.work_dir / "sandboxes", ignore_errors=True)


def fetched(address: str, port: int) -> str:
    """From the host itself."""
    try:
        with urlopen(f"http://{address}:{port}/name", timeout=20) as answer:
            return str(answer.read().decode().strip())
    except URLError as error:
        return type(error.reason).__name__


def test_containers_reach_each_other_and_are_reached_by_their_ports_alone(bench: NetworkBench) -> None:
    server = bench.serving("one", PortMapping(31_000, 8080), PortMapping(31_001, 9000, "udp"))
    asked = f"{GET.format(20)}; get {FIRST} 8080; get {HOST} 31000; get {OUTSIDE} 80; ip -o link | cut -d: -f2"
    client = bench.run(f"echo $MESOS_CONTAINER_IP $MESOS_ACTOR_PORTS; {asked}", PortMapping(31_002, 1))

    # By its own address, by the host's port though it is a neighbour, and out into the world.
    assert bench.expect(ContainerExited, client).exit_status == 0, bench.said(client, "stderr")
    assert bench.said(client).split() == ["172.30.0.3", "31002:1/tcp", "one", "one", "outside", "lo", "eth0@if5"], (
        bench.said(client, "stderr")
    )
    bench.send(ForgetContainer(client))
    # From the host, by any address of it.
    assert [fetched("127.0.0.1", 31_000), fetched(HOST, 31_000), fetched(FIRST, 8081)] == ["one"] * 3
    assert [fetched(HOST, 31_002), fetched(HOST, 8080)] == ["ConnectionRefusedError"] * 2
    # From outside: what is published, and nothing else, even for one who knows the way.
    asked = f"get {HOST} 31000; get {HOST} 8081; get {FIRST} 8080"
    assert inside("outside", f"{GET.format(1)}; {asked}").split() == ["one", "nothing", "nothing"]
    # A service reaches itself by its own published port.
    name = f"{bench.prefix}2"
    assert inside(name, f"{GET.format(20)}; get {HOST} 31000") == "one\n"
    # Datagrams.
    with datagrams_at(name, 9000) as service, socket.socket(type=socket.SOCK_DGRAM) as client_socket:
        client_socket.settimeout(20)
        client_socket.sendto(b"question", (HOST, 31_001))
        question, sender = service.recvfrom(100)
        service.sendto(b"answer", sender)
        assert (question, client_socket.recvfrom(100)) == (b"question", (b"answer", (HOST, 31_001)))

    bench.end(server)
    bench.until(lambda: bench.left() == [], f"nothing is left: {bench.left()}")
    assert fetched(HOST, 31_000) == "ConnectionRefusedError"


def test_network_survives_its_agent_and_leftovers_go(bench: NetworkBench) -> None:
    kept = bench.serving("kept", PortMapping(31_000, 8080))
    living = bench.links()
    orphan = bench.serving("orphan", PortMapping(31_001, 8080))
    # What a dead agent had only prepared.
    ContainerRecords(bench.work_dir / "networks", Endpoint).write(
        ContainerId("left"), Endpoint(container_id=ContainerId("left"), number=0x77, subnet=SUBNET, made_ns=1)
    )
    do(f"ip netns add {bench.prefix}77")
    # And what somebody took away from those that live.
    do("nft flush ruleset")
    do(f"ip link delete dev {bench.prefix}br")
    bench.restart_agent()
    bench.send(RecoverContainers((kept,)))
    (found,) = bench.expect(ContainersRecovered).containers
    assert found.running
    bench.until(lambda: bench.links() == living, f"only what lives is left, of {orphan}: {bench.links()}")

    assert [fetched(HOST, 31_000), fetched(HOST, 31_001)] == ["kept", "ConnectionRefusedError"]
    another = bench.serving("another", PortMapping(31_001, 8080))
    assert [fetched(HOST, 31_000), fetched(HOST, 31_001)] == ["kept", "another"]
    refused = bench.run("true", PortMapping(32_000, 8080))
    assert "'host_port' 32000 is not among the 'ports' resources" in bench.expect(ContainerFailed, refused).text
    bench.end(kept, another)
    bench.until(lambda: bench.left() == [], f"nothing is left: {bench.left()}")
