"""What Docker Engine is asked to keep, and what is refused because it cannot."""

from __future__ import annotations

import pytest

from mesos_actor.actors.messages.values import UNLIMITED, HugePages, RLimit, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.docker_limits import engine_limits, engine_ulimits, engine_update

MIB = 1 << 20


@pytest.mark.parametrize(
    ("resources", "limits", "found"),
    [
        (
            "cpus:0.5;mem:64",
            TaskLimits(),
            {"CpuShares": 512, "Memory": 64 * MIB, "MemorySwap": 64 * MIB, "PidsLimit": 9},
        ),
        ("cpus:0.001;mem:1", TaskLimits(pids=UNLIMITED), {"CpuShares": 2, "Memory": 32 * MIB, "MemorySwap": 32 * MIB}),
        (
            "cpus:1;mem:64",
            TaskLimits(cpus_milli=1_500, mem_bytes=128 * MIB, pids=20),
            {
                "CpuShares": 1_024,
                "CpuPeriod": 100_000,
                "CpuQuota": 150_000,
                "Memory": 128 * MIB,
                "MemorySwap": 128 * MIB,
                "PidsLimit": 20,
            },
        ),
        ("cpus:1;mem:64", TaskLimits(mem_bytes=UNLIMITED, cpus_milli=UNLIMITED), {"CpuShares": 1_024, "PidsLimit": 9}),
    ],
)
def test_requests_and_limits(resources: str, limits: TaskLimits, found: dict[str, int]) -> None:
    assert engine_limits(Resources.parse(resources), limits, 9) == found


def test_update_takes_back_what_is_not_limited_any_more() -> None:
    assert engine_update(Resources.parse("cpus:1;mem:64"), TaskLimits(mem_bytes=UNLIMITED)) == {
        "CpuShares": 1_024,
        "CpuQuota": -1,
        "MemorySwap": -1,
        "PidsLimit": -1,
    }


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (TaskLimits(cpus_milli=1_000, cpus_burst_us=5), "limits: cpus_burst_us is 5, which Docker Engine cannot keep"),
        (TaskLimits(mem_high_bytes=MIB), "limits: mem_high_bytes is 1048576, which"),
        (TaskLimits(hugetlb=(HugePages(2 * MIB, 0),)), "limits: hugetlb is set, which Docker Engine cannot keep"),
        (
            TaskLimits(mem_swap_bytes=5),
            "limits: mem_swap_bytes is 5, which Docker Engine keeps beside a limit on memory",
        ),
        (TaskLimits(io_reads=5), "limits: io_reads is 5, and the sandbox's disk has no device node to name"),
        (TaskLimits(io_weight=10), "leave it out, or use container.type 'linux'"),
    ],
)
def test_what_the_engine_cannot_keep_is_refused(limits: TaskLimits, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        engine_limits(Resources.parse("cpus:1"), limits)


@pytest.mark.parametrize(("swap", "both"), [(None, 64 * MIB), (0, 64 * MIB), (MIB, 65 * MIB), (UNLIMITED, -1)])
def test_swap_is_told_together_with_memory(swap: int | None, both: int) -> None:
    found = engine_limits(Resources.parse("mem:64"), TaskLimits(mem_swap_bytes=swap))

    assert found == {"Memory": 64 * MIB, "MemorySwap": both}


def test_rates_name_the_disk_and_stay_as_they_were_at_the_launch() -> None:
    limits = TaskLimits(io_read_bytes=1, io_write_bytes=2, io_reads=3, io_writes=4)

    assert engine_limits(Resources(), limits, disk="/dev/vda") == {
        "BlkioDeviceReadBps": [{"Path": "/dev/vda", "Rate": 1}],
        "BlkioDeviceWriteBps": [{"Path": "/dev/vda", "Rate": 2}],
        "BlkioDeviceReadIOps": [{"Path": "/dev/vda", "Rate": 3}],
        "BlkioDeviceWriteIOps": [{"Path": "/dev/vda", "Rate": 4}],
    }
    assert not any(name.startswith("Blkio") for name in engine_update(Resources(), limits))


def test_limits_of_processes_are_ulimits() -> None:
    rlimits = (RLimit("nofile", 1, 2), RLimit("core", UNLIMITED, UNLIMITED))

    assert engine_ulimits(rlimits) == [
        {"Name": "nofile", "Soft": 1, "Hard": 2},
        {"Name": "core", "Soft": -1, "Hard": -1},
    ]
    with pytest.raises(CommandError, match="rlimits: 'as' is none that Docker Engine sets; leave it out"):
        engine_ulimits((RLimit("as", 1, 1),))
    with pytest.raises(CommandError, match="rlimits: there is no resource limit 'x'"):
        engine_ulimits((RLimit("x", 1, 1),))
