"""What Docker Engine is asked to keep, and what is refused because it cannot."""

from __future__ import annotations

import pytest

from mesos_actor.actors.messages.values import UNLIMITED, TaskLimits
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.docker_limits import engine_limits, engine_update

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
        (TaskLimits(io_weight=10), "leave it out, or use container.type 'linux'"),
    ],
)
def test_what_the_engine_cannot_keep_is_refused(limits: TaskLimits, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        engine_limits(Resources.parse("cpus:1"), limits)
