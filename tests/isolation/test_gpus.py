"""GPUs are found in a made-up /sys, and given out whole."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation import gpus
from mesos_actor.isolation.confinement_plan import Device
from mesos_actor.isolation.device_filter import DeviceRule
from mesos_actor.isolation.gpus import Gpu, GpuPool, Node, NotEnoughGpus, discover


class Host:
    """A directory with what the kernel and its drivers would show."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, text: str = "") -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def device(self, address: str, kind: str, vendor: str = "0x1002") -> str:
        where = f"sys/bus/pci/devices/{address}"
        self.write(f"{where}/class", f"{kind}\n")
        self.write(f"{where}/vendor", f"{vendor}\n")
        self.write(f"{where}/device", "0x73bf\n")
        return where

    def gpu(self, address: str, number: int, kind: str = "0x030000") -> None:
        where = self.device(address, kind)
        for name, minor in ((f"card{number}", number), (f"renderD{128 + number}", 128 + number)):
            self.write(f"{where}/drm/{name}/dev", f"226:{minor}\n")
            self.write(f"dev/dri/{name}")


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_gpus_are_found_by_class_and_address(host: Host) -> None:
    host.gpu("0000:0b:00.0", 1)
    host.gpu("0000:03:00.0", 0, "0x030200")
    host.device("0000:00:02.0", "0x020000")  # a network card
    host.device("0000:00:03.0", "0x030000")  # no driver
    host.write("sys/bus/pci/devices/not-an-address/class", "0x030000")

    found = discover(str(host.root))

    assert [gpu.address for gpu in found] == ["0000:03:00.0", "0000:0b:00.0"]
    assert found[0] == Gpu(
        "0000:03:00.0",
        "0x1002",
        "0x73bf",
        (Node("/dev/dri/card0", 226, 0), Node("/dev/dri/renderD128", 226, 128)),
    )
    assert found[1].rules == (DeviceRule("c", 226, 1, "rw"), DeviceRule("c", 226, 129, "rw"))
    assert found[1].devices[0] == Device(path="/dev/dri/card1", major=226, minor=1)


def test_nvidias_node_is_the_one_its_driver_names(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may make no device nodes, so their numbers are told here."""
    numbers = {"/dev/nvidia3": (195, 3), "/dev/nvidiactl": (195, 255), "/dev/nvidia-uvm": (510, 0)}

    def node(_top: Path, path: str, _numbers: Path | None = None) -> Node | None:
        return Node(path, *numbers[path]) if path in numbers else None

    monkeypatch.setattr(gpus, "_node", node)
    for address, minor in (("0000:41:00.0", 3), ("0000:42:00.0", 4)):
        host.device(address, "0x030200", gpus.NVIDIA)
        host.write(f"proc/driver/nvidia/gpus/{address}/information", f"Model: \t H100\nDevice Minor: \t {minor}\n")

    assert discover(str(host.root)) == (
        Gpu(
            "0000:41:00.0",
            gpus.NVIDIA,
            "0x73bf",
            (Node("/dev/nvidia3", 195, 3),),
            (Node("/dev/nvidiactl", 195, 255), Node("/dev/nvidia-uvm", 510, 0)),
        ),
    )


def test_file_that_is_no_device_is_no_gpu(host: Host) -> None:
    host.device("0000:41:00.0", "0x030200", gpus.NVIDIA)
    host.write("proc/driver/nvidia/gpus/0000:41:00.0/information", "Device Minor: 0")
    host.write("dev/nvidia0")

    assert discover(str(host.root)) == ()


def test_host_without_pci_has_none(tmp_path: Path) -> None:
    assert discover(str(tmp_path)) == ()


def pool_of(count: int) -> GpuPool:
    return GpuPool(Gpu(f"0000:{n:02x}:00.0", "v", "d", (Node(f"/dev/dri/card{n}", 226, n),)) for n in range(count))


def addresses(found: tuple[Gpu, ...]) -> list[int]:
    return [gpu.nodes[0].minor for gpu in found]


def test_whole_ones_are_given_and_taken_back() -> None:
    pool = pool_of(4)

    assert addresses(pool.assign("a", 2)) == [0, 1]
    assert addresses(pool.assign("b", 1)) == [2]
    assert addresses(pool.assign("a", 2)) == [0, 1]
    assert addresses(pool.assign("a", 1)) == [0]
    assert addresses(pool.assign("a", 3)) == [0, 1, 3]
    pool.release("a")
    pool.release("a")
    assert (pool.free, pool.held("a"), addresses(pool.held("b"))) == (3, (), [2])


def test_too_many_change_nothing() -> None:
    pool = pool_of(3)
    pool.assign("a", 2)
    pool.assign("b", 1)

    with pytest.raises(NotEnoughGpus, match=re.escape("2 GPUs wanted, 1 of 3 can be had; the others belong to a")):
        pool.assign("b", 2)
    assert addresses(pool.held("b")) == [2]
    with pytest.raises(InvalidInput, match="gpus: -1 is no number"):
        pool.assign("b", -1)


def test_recovery_keeps_what_is_still_there() -> None:
    pool = pool_of(2)
    zero, one, gone = "0000:00:00.0", "0000:01:00.0", "0000:ff:00.0"

    assert pool.recover({"a": [one, gone], "b": [one, zero]}) == {"a": (gone,), "b": (one,)}
    assert (addresses(pool.held("a")), addresses(pool.held("b")), pool.free) == ([1], [0], 0)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=20))
def test_no_gpu_has_two_owners_and_none_is_lost(steps: list[tuple[str, int]]) -> None:
    pool = pool_of(4)
    for name, count in steps:
        before = {other: pool.held(other) for other in "abc" if other != name}
        try:
            assert len(pool.assign(name, count)) == count
        except NotEnoughGpus:
            assert count - len(pool.held(name)) > pool.free
        held = [gpu.address for other in "abc" for gpu in pool.held(other)]
        assert len(held) == len(set(held)) == 4 - pool.free
        assert {other: pool.held(other) for other in before} == before
