"""Limits: read, judged against requests, summed for an executor."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.task_limits import Total, limit_pairs, limits_error, parse_limits
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import NO_LIMITS, UNLIMITED, TaskLimits
from mesos_actor.actors.resources import Resources

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
        ("cpus:1;cpus_burst:200", "'cpus_burst' of 200000 us is above what 'cpus' gives in 100000 us"),
    ],
)
def test_what_cannot_be_read_is_named(text: str, problem: str) -> None:
    with pytest.raises(InvalidInput, match="--limit") as caught:
        parse_limits(text, "--limit")
    assert problem in str(caught.value)


@pytest.mark.parametrize(
    ("limits", "resources", "problem"),
    [
        (TaskLimits(cpus_milli=500), "cpus:1;mem:64", "'cpus' limit of 500 thousandths is below its request of 1000"),
        (TaskLimits(mem_bytes=MIB), "cpus:1;mem:64", f"'mem' limit of {MIB} bytes is below its request of {64 * MIB}"),
        (TaskLimits(mem_bytes=MIB), "cpus:1", "'mem' has a limit but no request; request some mem too"),
        (TaskLimits(pids=-2), "cpus:1", "'pids' limit of -2 is out of range"),
        (TaskLimits(cpus_milli=1_000, mem_bytes=UNLIMITED, pids=1), "cpus:1;mem:64", None),
        (TaskLimits(mem_bytes=UNLIMITED), "cpus:1", None),
        (NO_LIMITS, "", None),
    ],
)
def test_limits_are_judged_beside_the_request(limits: TaskLimits, resources: str, problem: str | None) -> None:
    found = limits_error(limits, Resources.parse(resources))
    assert (found is None) if problem is None else (found is not None and problem in found)


def test_sum_is_of_limits_where_one_has_any() -> None:
    own = TaskLimits(pids=10, io_weight=50, mem_high_bytes=40 * MIB)
    total = Total(Resources.parse("cpus:0.1;mem:32"), own)
    assert total.now() == (Resources.parse("cpus:0.1;mem:32"), own)

    total.add(Resources.parse("cpus:1;mem:64;ports:[1-2]"), TaskLimits(cpus_milli=2_000, pids=5))
    assert total.now() == (
        Resources.parse("cpus:1.1;mem:96"),
        TaskLimits(cpus_milli=2_100, pids=15, io_weight=50, mem_high_bytes=104 * MIB),
    )
    total.add(Resources.parse("cpus:1;mem:64"), TaskLimits(cpus_milli=UNLIMITED, mem_bytes=128 * MIB))
    assert total.now()[1] == TaskLimits(
        cpus_milli=UNLIMITED, mem_bytes=224 * MIB, pids=15, io_weight=50, mem_high_bytes=168 * MIB
    )


AMOUNTS = st.builds(lambda cpus, mem: Resources.of(cpus=cpus, mem=mem), st.integers(0, 4), st.integers(0, 512))
LIMITS = st.builds(
    TaskLimits,
    cpus_milli=st.none() | st.just(UNLIMITED) | st.integers(1, 9_000),
    mem_bytes=st.none() | st.just(UNLIMITED) | st.integers(1, 1 << 33),
    pids=st.none() | st.just(UNLIMITED) | st.integers(1, 99),
)


@given(st.lists(st.tuples(AMOUNTS, LIMITS), max_size=6), st.lists(st.tuples(AMOUNTS, LIMITS), max_size=6), st.randoms())
def test_whoever_comes_and_goes_leaves_no_trace(
    stay: list[tuple[Resources, TaskLimits]], go: list[tuple[Resources, TaskLimits]], order: random.Random
) -> None:
    plain = Total(Resources(), NO_LIMITS)
    for one in stay:
        plain.add(*one)

    total = Total(Resources(), NO_LIMITS)
    coming = [*stay, *go]
    order.shuffle(coming)
    for one in coming:
        total.add(*one)
    for one in go:
        total.add(*one, -1)

    assert total.now() == plain.now()
