"""Which disk holds a directory: the block device whose I/O the kernel can limit.

The kernel counts whole disks only (io.max refuses a partition), so a partition's is its disk. Of what is mapped onto
other devices (device-mapper, md) it is the disk below when there is exactly one: there the limit also counts what the
mapping itself does on behalf of a container. Over several disks it is the mapped device, because a limit on each of
those below would allow their sum. systemd does the same (basic/blockdev-util.c, `block_get_originating`,
`block_get_whole_disk`).

Reads sysfs below `root`, so that a directory made by a test is a host. Kernel documents: Documentation/ABI/stable/
sysfs-block, Documentation/admin-guide/cgroup-v2.rst, "IO Interface Files".
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from mesos_actor.actors.messages.values import TaskLimits

IO_FIELDS: Final = ("io_read_bytes", "io_write_bytes", "io_reads", "io_writes")
"""Fields of TaskLimits that are about the disk of the sandbox."""
MAX_LAYERS: Final = 16
"""Mappings on mappings; the kernel's own stack of them is far lower."""
_NUMBERS: Final = re.compile(r"(\d{1,9}):(\d{1,9})")
_NAME: Final = re.compile(r"DEVNAME=([\w./!-]{1,200})")


class Disk(msgspec.Struct, frozen=True):
    """A block device that I/O limits can be set for."""

    major: int
    minor: int
    path: str
    """Its node in /dev, where udev makes it; empty: the kernel tells no name."""


class NoDisk(Exception):
    """There is no such block device; the text says why, for whoever asked for a limit."""


def disk_of(path: str, root: str = "/sys") -> Disk:
    """The disk of the file system that holds `path`. Raises NoDisk, OSError when there is no such path."""
    number = os.stat(path).st_dev  # noqa: PTH116 - once a launch
    try:
        return disk_of_device(os.major(number), os.minor(number), root)
    except NoDisk as error:
        raise NoDisk(f"{path} is on no disk that I/O can be limited for: {error}") from None


def disk_of_device(major: int, minor: int, root: str = "/sys") -> Disk:
    """The disk of a file system's device. Raises NoDisk."""
    name = f"{major}:{minor}"
    if major == 0:
        # tmpfs, overlay, NFS, and btrfs, whose file systems have a number that is no device's.
        raise NoDisk(f"its file system ({name}) is not on one block device, as tmpfs, overlay, btrfs and NFS are not")
    device = Path(root, "dev/block", name).resolve()
    for _ in range(MAX_LAYERS):
        device = _whole(device)
        below = _below(device)
        if len(below) != 1:
            return _disk(device, name)
        (device,) = below
    raise NoDisk(f"device {name} is mapped onto others more than {MAX_LAYERS} times")


def _whole(device: Path) -> Path:
    """A partition is a directory inside its disk's."""
    return device.parent if (device / "partition").exists() else device


def _below(device: Path) -> set[Path]:
    """The whole disks that this one is mapped onto."""
    try:
        return {_whole(link.resolve()) for link in (device / "slaves").iterdir()}
    except OSError:
        return set()


def _disk(device: Path, name: str) -> Disk:
    try:
        numbers = _NUMBERS.fullmatch((device / "dev").read_text().strip())
        node = _NAME.search((device / "uevent").read_text())
    except OSError as error:
        raise NoDisk(f"sysfs does not tell of device {name}: {error.strerror}: {error.filename}") from None
    if numbers is None:
        raise NoDisk(f"sysfs does not tell the number of device {name}")
    return Disk(int(numbers[1]), int(numbers[2]), f"/dev/{node[1]}" if node else "")


def disk_for(limits: TaskLimits, path: str, find: Callable[[str], Disk] = disk_of) -> Disk | None:
    """The disk of `path`, when these limit its I/O; None: they do not. Raises NoDisk naming the limits and the fix."""
    asked = [field for field in IO_FIELDS if getattr(limits, field) is not None]
    if not asked:
        return None
    try:
        return find(path)
    except NoDisk as error:
        raise NoDisk(f"limits: {', '.join(asked)}: {error}; leave it out, or use an agent with a disk") from None
    except OSError as error:
        raise NoDisk(f"limits: {', '.join(asked)}: cannot find the disk of {path}: {error.strerror}") from None
