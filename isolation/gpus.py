"""Whole GPUs: which this host has, and who has which.

A GPU is a PCI function of class VGA or 3D controller with a driver that gives it device nodes. A container gets whole
ones: nodes in its /dev and rules for its device filter, no share of one and no driver's libraries (an image brings
those). `discover` reads sysfs and /dev below a root, so that a directory made by a test is a host; `GpuPool` is pure.

Mesos: src/slave/containerizer/mesos/isolators/gpu/{allocator,isolator}.cpp. Kernel documents:
Documentation/ABI/testing/sysfs-bus-pci, Documentation/gpu/drm-uapi.rst.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.confinement_plan import Device
from mesos_actor.isolation.device_filter import DeviceRule

MAX_GPUS: Final = 64
"""More than this in one host are not looked at; a host of 2026 has 16 at most."""

CLASSES: Final = ("0x0300", "0x0302")
"""VGA-compatible and 3D controllers; the last two digits of sysfs' `class` are the programming interface."""

NVIDIA: Final = "0x10de"
_NVIDIA_SHARED: Final = ("nvidiactl", "nvidia-uvm", "nvidia-uvm-tools")
"""Nodes that every user of an Nvidia GPU needs, whichever it is."""

_ADDRESS: Final = re.compile(r"[0-9a-f]{4,}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_RENDER_OR_CARD: Final = re.compile(r"(card|renderD)\d+")


class Node(msgspec.Struct, frozen=True, order=True):
    """A character device of the host."""

    path: str
    major: int
    minor: int


class Gpu(msgspec.Struct, frozen=True):
    """`address` is the PCI one, the GPU's name; `nodes` are its own, `shared` those it has in common with others."""

    address: str
    vendor: str
    device: str
    nodes: tuple[Node, ...]
    shared: tuple[Node, ...] = ()

    @property
    def devices(self) -> tuple[Device, ...]:
        """For the container's /dev."""
        return tuple(Device(path=n.path, major=n.major, minor=n.minor) for n in (*self.nodes, *self.shared))

    @property
    def rules(self) -> tuple[DeviceRule, ...]:
        """For the container's device filter."""
        return tuple(DeviceRule("c", n.major, n.minor, "rw") for n in (*self.nodes, *self.shared))


def discover(root: str = "/") -> tuple[Gpu, ...]:
    """The usable GPUs of the host whose /sys, /proc and /dev are below `root`, by address. A GPU without a device node
    of its own has no driver that a container could use, and is left out. Never raises for what a host lacks."""
    top = Path(root)
    try:
        names = sorted(name for name in os.listdir(top / "sys/bus/pci/devices") if _ADDRESS.fullmatch(name))  # noqa: PTH208
    except OSError:
        return ()
    found: list[Gpu] = []
    for address in names:
        device = top / "sys/bus/pci/devices" / address
        if _read(device / "class")[:6] not in CLASSES or len(found) >= MAX_GPUS:
            continue
        vendor = _read(device / "vendor")
        nodes = _drm_nodes(top, device)
        shared: list[Node] = []
        if vendor == NVIDIA:
            nvidia = _nvidia_node(top, address)
            if nvidia is not None:
                nodes.append(nvidia)
                shared = [node for name in _NVIDIA_SHARED if (node := _node(top, f"/dev/{name}")) is not None]
        if nodes:
            found.append(Gpu(address, vendor, _read(device / "device"), tuple(sorted(nodes)), tuple(shared)))
    return tuple(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _drm_nodes(top: Path, device: Path) -> list[Node]:
    """/dev/dri/card* and renderD* of this device."""
    try:
        names = sorted(name for name in os.listdir(device / "drm") if _RENDER_OR_CARD.fullmatch(name))  # noqa: PTH208
    except OSError:
        return []
    return [
        node for name in names if (node := _node(top, f"/dev/dri/{name}", device / "drm" / name / "dev")) is not None
    ]


def _nvidia_node(top: Path, address: str) -> Node | None:
    """Nvidia's driver says in /proc which minor number a device has; its major number is 195."""
    for line in _read(top / "proc/driver/nvidia/gpus" / address / "information").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "Device Minor" and value.strip().isdigit():
            return _node(top, f"/dev/nvidia{value.strip()}")
    return None


def _node(top: Path, path: str, numbers: Path | None = None) -> Node | None:
    """The node at `path`, with the numbers that the file `numbers` tells, or its own; None when there is none."""
    try:
        status = (top / path.lstrip("/")).lstat()
    except OSError:
        return None
    told = re.fullmatch(r"(\d+):(\d+)", _read(numbers)) if numbers is not None else None
    if told is not None:
        return Node(path, int(told[1]), int(told[2]))
    if not stat.S_ISCHR(status.st_mode):
        return None
    return Node(path, os.major(status.st_rdev), os.minor(status.st_rdev))


class NotEnoughGpus(Exception):
    """Fewer are free than asked for; the text says how many, and who has the others."""


class GpuPool:
    """Who has which of `gpus`. Pure: the agent's checkpoint is what remembers; `recover` takes it up."""

    def __init__(self, gpus: Iterable[Gpu]) -> None:
        #: Address -> GPU, every one of this host.
        self._gpus = {gpu.address: gpu for gpu in gpus}
        #: Address -> container that has it. Never more than `_gpus`.
        self._owners: dict[str, str] = {}

    @property
    def free(self) -> int:
        return len(self._gpus) - len(self._owners)

    def held(self, container_id: str) -> tuple[Gpu, ...]:
        """What this container has, by address."""
        return tuple(self._gpus[a] for a in sorted(a for a, owner in self._owners.items() if owner == container_id))

    def assign(self, container_id: str, count: int) -> tuple[Gpu, ...]:
        """Give `count` whole GPUs in all to the container, those with the lowest addresses; asked again, the same ones,
        and one that is to have another number keeps what it can.

        Raises InvalidInput for a count that is none; NotEnoughGpus, and then nothing has changed.
        """
        if count < 0:
            raise InvalidInput(f"gpus: {count} is no number of GPUs: use 0 or more")
        held = [gpu.address for gpu in self.held(container_id)]
        free = [address for address in sorted(self._gpus) if address not in self._owners]
        if count - len(held) > len(free):
            owners = ", ".join(sorted({owner for owner in self._owners.values() if owner != container_id})[:5])
            text = f"{count} GPUs wanted, {len(held) + len(free)} of {len(self._gpus)} can be had"
            raise NotEnoughGpus(f"{text}; the others belong to {owners}" if owners else text)
        for address in held[count:]:
            del self._owners[address]
        for address in free[: max(0, count - len(held))]:
            self._owners[address] = container_id
        return self.held(container_id)

    def release(self, container_id: str) -> None:
        """The container has none any more; no error if it had none."""
        self._owners = {address: owner for address, owner in self._owners.items() if owner != container_id}

    def recover(self, assigned: Mapping[str, Iterable[str]]) -> dict[str, tuple[str, ...]]:
        """Take up container -> addresses as they were before a restart. Returns container -> addresses that this host
        does not have any more, or that another one was said to have too; those are not assigned."""
        lost: dict[str, tuple[str, ...]] = {}
        for container_id, addresses in assigned.items():
            gone = []
            for address in addresses:
                if address not in self._gpus or self._owners.setdefault(address, container_id) != container_id:
                    gone.append(address)
            if gone:
                lost[container_id] = tuple(gone)
        return lost
