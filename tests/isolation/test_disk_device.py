"""The disk of a sandbox, found in a pretended sysfs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesos_actor.actors.messages.values import NO_LIMITS, TaskLimits
from mesos_actor.isolation.disk_device import MAX_LAYERS, Disk, NoDisk, disk_for, disk_of, disk_of_device


class Sysfs:
    """A /sys with block devices."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "dev/block").mkdir(parents=True)

    def device(self, name: str, number: str, *below: Path, parent: Path | None = None) -> Path:
        device = (parent or self.root / "devices") / name
        device.mkdir(parents=True)
        (device / "dev").write_text(f"{number}\n")
        (device / "uevent").write_text(f"MAJOR={number.split(':')[0]}\nDEVNAME={name}\nDEVTYPE=disk\n")
        if parent is not None:
            (device / "partition").write_text("1\n")
        else:
            (device / "slaves").mkdir()
            for other in below:
                (device / "slaves" / other.name).symlink_to(other)
        (self.root / "dev/block" / number).symlink_to(device)
        return device

    def find(self, major: int, minor: int) -> Disk:
        return disk_of_device(major, minor, str(self.root))


@pytest.fixture
def sysfs(tmp_path: Path) -> Sysfs:
    return Sysfs(tmp_path)


def test_disk_is_itself_and_a_partition_is_its_disk(sysfs: Sysfs) -> None:
    disk = sysfs.device("vda", "254:0")
    sysfs.device("vda1", "254:1", parent=disk)

    assert sysfs.find(254, 0) == sysfs.find(254, 1) == Disk(254, 0, "/dev/vda")


def test_mapped_device_is_what_is_below(sysfs: Sysfs) -> None:
    """LVM on dm-crypt on a partition."""
    disk = sysfs.device("sda", "8:0")
    part = sysfs.device("sda2", "8:2", parent=disk)
    crypt = sysfs.device("dm-0", "253:0", part)
    sysfs.device("dm-1", "253:1", crypt)

    assert sysfs.find(253, 1) == Disk(8, 0, "/dev/sda")


def test_two_partitions_of_one_disk_are_that_disk(sysfs: Sysfs) -> None:
    disk = sysfs.device("sda", "8:0")
    parts = [sysfs.device(f"sda{n}", f"8:{n}", parent=disk) for n in (1, 2)]
    sysfs.device("dm-0", "253:0", *parts)

    assert sysfs.find(253, 0) == Disk(8, 0, "/dev/sda")


def test_device_over_several_disks_is_limited_itself(sysfs: Sysfs) -> None:
    disks = [sysfs.device(f"sd{letter}", f"8:{16 * n}") for n, letter in enumerate("ab")]
    sysfs.device("md0", "9:0", *disks)

    assert sysfs.find(9, 0) == Disk(9, 0, "/dev/md0")


@pytest.mark.parametrize(
    ("major", "text"),
    [
        (0, r"its file system \(0:38\) is not on one block device, as tmpfs, overlay, btrfs and NFS"),
        (8, "sysfs does not tell of device 8:38: No such file or directory"),
    ],
)
def test_what_is_on_no_disk_is_told(sysfs: Sysfs, major: int, text: str) -> None:
    with pytest.raises(NoDisk, match=text):
        sysfs.find(major, 38)


def test_devices_on_devices_end_somewhere(sysfs: Sysfs) -> None:
    below = sysfs.device("dm-0", "253:0")
    for number in range(1, MAX_LAYERS + 1):
        below = sysfs.device(f"dm-{number}", f"253:{number}", below)

    assert sysfs.find(253, MAX_LAYERS - 1).minor == 0
    with pytest.raises(NoDisk, match="mapped onto others more than 16 times"):
        sysfs.find(253, MAX_LAYERS)


def test_damaged_sysfs_is_told(sysfs: Sysfs) -> None:
    (sysfs.device("vda", "254:0") / "dev").write_text("?")

    with pytest.raises(NoDisk, match="does not tell the number of device 254:0"):
        sysfs.find(254, 0)


def test_disk_is_looked_for_when_its_io_is_limited(tmp_path: Path) -> None:
    disk = Disk(1, 2, "/dev/x")

    assert disk_for(NO_LIMITS, "/gone") is None
    assert disk_for(TaskLimits(io_weight=1), "/gone") is None
    assert disk_for(TaskLimits(io_writes=1), "/gone", lambda _: disk) == disk
    with pytest.raises(NoDisk, match="limits: io_reads, io_writes: cannot find the disk of /gone: No such file"):
        disk_for(TaskLimits(io_reads=1, io_writes=1), "/gone")
    with pytest.raises(
        NoDisk, match=r"^limits: io_reads: /proc is on no disk that I/O can be limited for: its file sys"
    ):
        disk_for(TaskLimits(io_reads=1), "/proc")
    with pytest.raises(NoDisk, match="/proc is on no disk"):
        disk_of("/proc")
