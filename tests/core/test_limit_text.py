"""Limits as people write them: read exactly, and refused with the name, the value and the fix."""

from __future__ import annotations

import pytest

from mesos_actor.actors.core.limit_text import limit_pairs, parse_limits, parse_rlimits
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import NO_LIMITS, UNLIMITED, HugePages, RLimit, TaskLimits

MIB = 1 << 20


def test_text_and_mapping_say_the_same() -> None:
    expected = TaskLimits(
        cpus_milli=1_500,
        mem_bytes=512 * MIB,
        pids=100,
        cpus_burst_us=20_000,
        mem_high_bytes=256 * MIB,
        io_weight=50,
    )
    text = "cpus:1.5; mem:512MiB;pids:100;cpus_burst:20;mem_high:256;io_weight:50;"

    assert parse_limits(text) == expected
    assert parse_limits(limit_pairs(text, "--limit")) == expected
    assert parse_limits({"cpus": 1.5, "mem": 512, "pids": 100, "cpus_burst": 20, "mem_high": 256, "io_weight": 50}) == (
        expected
    )
    assert parse_limits("") == NO_LIMITS


def test_rates_swap_and_pages_are_counted_to_the_byte() -> None:
    text = "io_read:100KiB;io_write:1.5GB;io_reads:100;io_writes:50;mem_swap:256;hugetlb:64KB=1MiB, 2MiB=0B"

    assert parse_limits(text) == TaskLimits(
        io_read_bytes=102_400,
        io_write_bytes=3 << 29,
        io_reads=100,
        io_writes=50,
        mem_swap_bytes=256 * MIB,
        hugetlb=(HugePages(1 << 16, MIB), HugePages(2 * MIB, 0)),
    )
    assert parse_limits({"io_read": 0.5, "io_write": "7B"}) == TaskLimits(io_read_bytes=MIB // 2, io_write_bytes=7)
    assert parse_limits("pinned_cpus:2") == parse_limits({"pinned_cpus": 2}) == TaskLimits(pinned_cpus=2)
    assert parse_limits("mem_swap:none") == TaskLimits(mem_swap_bytes=UNLIMITED)


def test_limits_of_processes_are_soft_and_hard_or_one_for_both() -> None:
    found = (RLimit("nofile", 1_024, 4_096), RLimit("core", 0, 0), RLimit("stack", UNLIMITED, UNLIMITED))

    assert parse_rlimits("nofile:1024:4096; core:0 ;stack:unlimited") == found
    assert parse_rlimits({"nofile": "1024 : 4096", "core": 0, "stack": "none"}) == found
    assert parse_rlimits({"as": "5:none"}) == (RLimit("as", 5, UNLIMITED),)
    assert parse_rlimits("") == ()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("files:1", "--rlimit: there is no resource limit 'files'; name one of as, core, cpu"),
        ("nofile:1k", "--rlimit: 'nofile': '1k' is no limit; write SOFT:HARD or one whole number, or 'none'"),
        ("nofile:-1", "--rlimit: 'nofile': '-1' is no limit"),
        ("nofile:1:", "'1:' is no limit"),
        ("nofile:1:2:3", "'1:2:3' is no limit"),
        ("nofile:2:1", "'nofile' has a soft limit of 2 above its hard one of 1; lower the one or raise the other"),
        ("nofile:none:1", "'nofile' has a soft limit of none above its hard one of 1"),
        ("nofile:9223372036854775808", "'nofile' has a soft limit of 9223372036854775808; give one from 0 to"),
        ("nofile:1;nofile:2", "nofile is given twice"),
    ],
)
def test_limit_of_processes_that_cannot_be_read_is_named(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match="--rlimit") as caught:
        parse_rlimits(text, "--rlimit")
    assert problem in str(caught.value)


@pytest.mark.parametrize("word", ["none", "unlimited", "MAX", "inf"])
def test_no_limit_at_all_can_be_said(word: str) -> None:
    assert parse_limits(f"cpus:{word};mem:{word};pids:{word}") == TaskLimits(UNLIMITED, UNLIMITED, UNLIMITED)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("cpu:1", "--limit: 'cpu' cannot be limited; name one of cpus, mem"),
        ("cpus", "--limit: cannot read 'cpus'; write NAME:VALUE"),
        ("cpus:", "cannot read 'cpus:'"),
        ("cpus:1;cpus:2", "cpus is given twice"),
        ("cpus:x", "--limit: cpus: 'x' is not a number"),
        ("cpus:0", "'cpus' limit of 0 thousandths is out of range; give one from 1 to"),
        ("cpus:-1", "--limit: "),
        ("mem:-1", "--limit: "),
        ("mem:99999999999PB", "--limit: "),
        ("pids:1.5", "pids: '1.5' is not a whole number"),
        ("pids:0", "'pids' limit of 0 is out of range"),
        ("io_weight:none", "--limit: io_weight: 'none' is not a number"),
        ("io_weight:10001", "give one from 1 to 10000"),
        ("mem_high:none", "--limit: mem_high"),
        ("cpus_burst:10", "'cpus_burst' goes past a limit on 'cpus', and there is none"),
        ("pinned_cpus:0.5", "--limit: pinned_cpus: '0.5' is not a whole number; write one"),
        ("pinned_cpus:all", "--limit: pinned_cpus: 'all' is not a number"),
        ("mem_swap:-1", "'mem_swap' limit of -1048576 bytes is out of range"),
        ("io_read:none", "--limit: io_read"),
        ("io_read:0", "'io_read' limit of 0 bytes a second is out of range; give one from 1 to"),
        ("io_write:0.3B", "--limit: io_write: '0.3B' is no whole number of bytes; write one with a unit: 512KiB"),
        ("io_write:5\u212aiB", "--limit: io_write: '5\u212aiB' is not a number"),
        ("io_write:5K", "--limit: io_write: '5K' is no whole number of bytes"),
        ("io_reads:1MiB", "--limit: io_reads: '1MiB' is not a number"),
        ("hugetlb:2MiB", "--limit: hugetlb: '2MiB' is no limit of huge pages; write PAGE=LIMIT"),
        ("hugetlb:2MiB=3MiB", "'hugetlb' limit of 3145728 bytes is no whole number of pages of 2097152"),
        ("cpus:1;cpus_burst:200", "'cpus_burst' of 200000 us is above what 'cpus' gives in 100000 us"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match="--limit") as caught:
        parse_limits(text, "--limit")
    assert problem in str(caught.value)


@pytest.mark.parametrize("huge", [1 << 20_000, -(1 << 20_000)], ids=["above", "below"])
def test_huge_numbers_are_refused_by_their_length(huge: int) -> None:
    with pytest.raises(InvalidInput, match="a number of 20001 bits"):
        parse_limits({"hugetlb": huge})
    with pytest.raises(InvalidInput, match="a number of 20001 bits"):
        parse_rlimits({"nofile": huge})
