"""What is asked for becomes exactly these file contents, and nothing that the kernel would refuse or round away."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import HugePages
from mesos_actor.isolation import limits as limits_module
from mesos_actor.isolation.limits import (
    DEFAULTS,
    MAX_BYTES,
    MAX_CPU,
    MAX_CPUS_MILLI,
    MEM_MIN_BYTES,
    PERIOD_US,
    QUOTA_MIN_US,
    UNLIMITED,
    WEIGHT_MAX,
    WEIGHT_MIN,
    DeviceLimit,
    Limits,
    Write,
    controllers_of,
    list_of,
    page_size_name,
    weight_of,
    writes_of,
)

MIB = 1 << 20
MILLI = st.integers(0, MAX_CPUS_MILLI)
BYTES = st.integers(0, MAX_BYTES)


@st.composite
def asked(draw: st.DrawFn) -> Limits:
    """Anything that makes sense to ask for."""
    cpus, mem = draw(MILLI), draw(BYTES)
    cpus_limit = draw(st.none() | st.just(UNLIMITED) | st.integers(max(cpus, 1), MAX_CPUS_MILLI))
    burst = 0
    if cpus_limit is not None and cpus_limit != UNLIMITED:
        burst = draw(st.integers(0, max(cpus_limit * 100, QUOTA_MIN_US)))
    ids = st.tuples(st.integers(0, 4095), st.integers(0, 1000))
    rate = st.none() | st.integers(1, 1 << 30)
    devices = [
        DeviceLimit(
            major=a, minor=b, read_bytes=draw(rate), write_bytes=draw(rate), reads=draw(rate), writes=draw(rate)
        )
        for a, b in draw(st.lists(ids, max_size=3, unique=True))
    ]
    sizes = draw(st.lists(st.sampled_from([64 << 10, 2 << 20, 1 << 30]), max_size=3, unique=True))
    return Limits(
        cpus_request_milli=cpus,
        cpus_limit_milli=cpus_limit,
        cpus_burst_us=burst,
        mem_request_bytes=mem,
        mem_limit_bytes=draw(st.none() | st.just(UNLIMITED) | st.integers(max(mem, 1), MAX_BYTES)),
        pids_limit=draw(st.none() | st.just(UNLIMITED) | st.integers(1, 4_194_304)),
        io_weight=draw(st.none() | st.integers(1, 10_000)),
        devices=tuple(devices),
        huge_pages=tuple(HugePages(page_bytes=s, limit_bytes=s * draw(st.integers(0, 100))) for s in sizes),
        cpuset_cpus=draw(st.none() | st.lists(st.integers(0, MAX_CPU), max_size=20).map(tuple)),
        cpuset_mems=draw(st.none() | st.lists(st.integers(0, 1023), max_size=5).map(tuple)),
    )


def contents(limits: Limits) -> dict[str, str]:
    """What each file holds in the end."""
    return {write.file: write.content for write in writes_of(limits)}


def expanded(text: str) -> set[int]:
    """The kernel's list format, read back."""
    numbers: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def test_nothing_asked_for_is_the_least_share_and_no_limit() -> None:
    found = writes_of(Limits())

    assert found == (
        Write("cpu", "cpu.weight", "1"),
        Write("cpu", "cpu.max.burst", "0"),
        Write("cpu", "cpu.max", "max 100000"),
        Write("memory", "memory.low", "0"),
        Write("memory", "memory.high", "max"),
        Write("memory", "memory.swap.max", "0"),
        Write("memory", "memory.oom.group", "1"),
        Write("memory", "memory.max", "max"),
    )


def test_requests_and_limits_are_apart() -> None:
    found = contents(
        Limits(
            cpus_request_milli=500,
            cpus_limit_milli=2_000,
            cpus_burst_us=50_000,
            mem_request_bytes=64 * MIB,
            mem_limit_bytes=256 * MIB,
            mem_high_bytes=200 * MIB,
            pids_limit=100,
            io_weight=50,
            devices=(DeviceLimit(major=8, minor=16, read_bytes=MIB, writes=100),),
            huge_pages=(HugePages(page_bytes=2 * MIB, limit_bytes=8 * MIB),),
            cpuset_cpus=(3, 0, 1),
            cpuset_mems=(0,),
        )
    )

    assert found == {
        "cpu.weight": "50",
        "cpu.max": "200000 100000",
        "cpu.max.burst": "50000",
        "memory.low": "67108864",
        "memory.high": "209715200",
        "memory.max": "268435456",
        "memory.swap.max": "0",
        "memory.oom.group": "1",
        "pids.max": "100",
        "io.weight": "default 50",
        "io.max": "8:16 rbps=1048576 wbps=max riops=max wiops=100",
        "hugetlb.2MB.rsvd.max": "8388608",
        "hugetlb.2MB.max": "8388608",
        "cpuset.cpus": "0-1,3",
        "cpuset.mems": "0",
    }


def test_memory_limit_is_the_request_unless_named() -> None:
    assert contents(Limits(mem_request_bytes=64 * MIB))["memory.max"] == str(64 * MIB)
    assert contents(Limits(mem_request_bytes=64 * MIB, mem_limit_bytes=UNLIMITED))["memory.max"] == "max"
    assert contents(Limits(mem_limit_bytes=64 * MIB))["memory.low"] == "0"


def test_small_ones_are_raised_to_the_least_that_works() -> None:
    found = contents(Limits(cpus_request_milli=1, cpus_limit_milli=1, mem_request_bytes=1, mem_limit_bytes=2))

    assert (found["cpu.weight"], found["cpu.max"]) == (str(WEIGHT_MIN), f"{QUOTA_MIN_US} {PERIOD_US}")
    assert (found["memory.low"], found["memory.max"]) == (str(MEM_MIN_BYTES), str(MEM_MIN_BYTES))


def test_pinning_is_taken_back_by_naming_nothing() -> None:
    assert contents(Limits(cpuset_cpus=()))["cpuset.cpus"] == "\n"
    assert "cpuset.cpus" not in contents(Limits())


@given(asked())
def test_no_file_of_a_small_container_gets_what_its_kernel_would_refuse(limits: Limits) -> None:
    quota, burst = None, 0
    for write in writes_of(limits):
        assert write.file.startswith(f"{write.controller}.")
        assert write.content
        if write.file == "cpu.weight":
            assert WEIGHT_MIN <= int(write.content) <= WEIGHT_MAX
        elif write.file == "cpu.max.burst":
            burst = int(write.content)
        elif write.file == "cpu.max":
            text, period = write.content.split()
            quota = None if text == "max" else int(text)
            assert int(period) == PERIOD_US
            assert quota is None or quota >= QUOTA_MIN_US
        # As the kernel checks it at each single write, whatever the quota was before: burst <= quota.
        assert burst == 0 or (quota is not None and burst <= quota)


@given(asked())
def test_exactly_what_was_asked_for_is_in_the_files(limits: Limits) -> None:
    found = contents(limits)

    limit = limits.cpus_limit_milli
    if limit is None or limit == UNLIMITED:
        assert found["cpu.max"].startswith("max ")
    elif limit >= 10:
        assert int(found["cpu.max"].split()[0]) * 1_000 == limit * PERIOD_US
    low, high = int(found["memory.low"]), found["memory.max"]
    assert high == "max" or low <= int(high)
    if limits.mem_request_bytes >= MEM_MIN_BYTES:
        assert low == limits.mem_request_bytes
    if limits.mem_limit_bytes is not None and limits.mem_limit_bytes >= MEM_MIN_BYTES:
        assert high == str(limits.mem_limit_bytes)
    assert ("pids.max" in found) == (limits.pids_limit is not None)
    if limits.cpuset_cpus is not None:
        assert expanded(found["cpuset.cpus"]) == set(limits.cpuset_cpus)
    for pages in limits.huge_pages:
        assert found[f"hugetlb.{page_size_name(pages.page_bytes)}.max"] == str(pages.limit_bytes)


@given(asked(), asked())
def test_what_a_live_container_had_does_not_show_in_what_it_gets(before: Limits, after: Limits) -> None:
    """Every file that one may have changed is written by the other, but for the ones asked for by naming them."""
    optional = {"pids.max", "io.weight", "io.max", "cpuset.cpus", "cpuset.mems"}
    left = set(contents(before)) - set(contents(after))

    assert {file for file in left if not file.startswith("hugetlb.")} <= optional


@given(MILLI, MILLI)
def test_shares_are_as_the_requests(one: int, other: int) -> None:
    """To a hundredth of a cpu, up to 100 cpus."""
    if min(one, other) >= 10 and max(one, other) <= 100_000:
        assert (weight_of(one), weight_of(other)) == (one // 10, other // 10)
    assert (weight_of(one) <= weight_of(other)) or one > other


@given(st.sets(st.integers(0, 300)))
def test_list_format_names_each_number_once(numbers: set[int]) -> None:
    assert expanded(list_of(numbers)) == numbers
    assert list_of(sorted(numbers, reverse=True)) == list_of(numbers)


@given(asked())
def test_controllers_are_those_of_the_files(limits: Limits) -> None:
    assert set(controllers_of(writes_of(limits))) == {file.partition(".")[0] for file in contents(limits)}


def test_defaults_are_what_nothing_asked_for_would_write() -> None:
    found = contents(Limits())

    assert [file for file, content in DEFAULTS.items() if found.get(file, content) != content] == ["cpu.weight"]


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cpus_request_milli": -1}, "cpus_request_milli: -1 is out of range: use a whole number from 0 to 8192000"),
        ({"cpus_limit_milli": 0}, "cpus_limit_milli: 0 is out of range"),
        (
            {"cpus_request_milli": 2_000, "cpus_limit_milli": 1_000},
            "cpus_limit_milli: 1000 is below the request of 2000",
        ),
        ({"cpus_burst_us": 5}, "cpus_burst_us: 5 without a limit to go past: set cpus_limit_milli too"),
        ({"cpus_limit_milli": 100, "cpus_burst_us": 10_001}, "cpus_burst_us: 10001 is out of range"),
        ({"mem_request_bytes": MAX_BYTES + 1}, "mem_request_bytes: "),
        ({"mem_request_bytes": 2, "mem_limit_bytes": 1}, "mem_limit_bytes: 1 is below the request of 2: raise it"),
        ({"mem_request_bytes": 64 * MIB, "mem_high_bytes": MIB}, "mem_high_bytes: 1048576 is out of range"),
        ({"pids_limit": 0}, "pids_limit: 0 is out of range"),
        ({"io_weight": 10_001}, "io_weight: 10001 is out of range"),
        ({"devices": (DeviceLimit(major=8, minor=0),) * 2}, "devices: 8:0 is named twice"),
        ({"devices": (DeviceLimit(major=8, minor=0, reads=0),)}, "devices.reads of 8:0: 0 is out of range"),
        ({"devices": (DeviceLimit(major=1 << 12, minor=0),)}, "devices.major: 4096 is out of range"),
        ({"devices": tuple(DeviceLimit(major=8, minor=n) for n in range(257))}, "devices: 257 entries are too many"),
        ({"huge_pages": (HugePages(page_bytes=3 * MIB, limit_bytes=0),)}, "huge_pages.page_bytes: 3145728 is no power"),
        (
            {"huge_pages": (HugePages(page_bytes=2 * MIB, limit_bytes=1),)},
            "huge_pages.limit_bytes: 1 is no whole number",
        ),
        ({"huge_pages": (HugePages(page_bytes=2 * MIB, limit_bytes=0),) * 2}, "huge_pages: pages of 2097152 bytes"),
        ({"cpuset_cpus": (-1,)}, "cpuset_cpus: -1 is out of range"),
        ({"cpuset_mems": (1024,)}, "cpuset_mems: 1024 is out of range"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name_value_and_fix(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        writes_of(Limits(**fields))

    assert text in str(caught.value)
    assert str(caught.value).count(":") >= 2 or "named twice" in str(caught.value) or "below" in str(caught.value)


def test_every_bound_has_a_name_and_no_float() -> None:
    bounds = {n: v for n, v in vars(limits_module).items() if n.isupper() and not isinstance(v, dict | frozenset)}

    assert {n: v for n, v in bounds.items() if not isinstance(v, int)} == {}
