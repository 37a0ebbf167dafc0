"""Limits: judged against requests, summed for an executor."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.task_limits import OWN_ONLY, Total, executor_task_error, limits_error
from mesos_actor.actors.messages.values import NO_LIMITS, UNLIMITED, HugePages, TaskLimits
from mesos_actor.actors.resources import Resources

MIB = 1 << 20


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
        (TaskLimits(mem_swap_bytes=0, io_reads=1, io_writes=1 << 31), "cpus:1", None),
        (TaskLimits(mem_swap_bytes=UNLIMITED, hugetlb=(HugePages(2 * MIB, 0), HugePages(1 << 30, 1 << 30))), "", None),
        (TaskLimits(pinned_cpus=2), "cpus:2", None),
        (TaskLimits(pinned_cpus=2), "cpus:1.9;mem:64", "'pinned_cpus' is 2, more than the cpus requested; request as"),
        (TaskLimits(pinned_cpus=-1), "cpus:1", "'pinned_cpus' limit of -1 is out of range; give one from 0 to 8192"),
        (TaskLimits(mem_swap_bytes=-2), "", "'mem_swap' limit of -2 bytes is out of range; give one from 0 to"),
        (TaskLimits(io_read_bytes=0), "", "'io_read' limit of 0 bytes a second is out of range; give one from 1 to"),
        (TaskLimits(io_writes=UNLIMITED), "", "'io_writes' limit of -1 is out of range"),
        (TaskLimits(hugetlb=(HugePages(3 * MIB, 0),)), "", "pages of 3145728 bytes cannot be; give a power of two"),
        (TaskLimits(hugetlb=(HugePages(2 * MIB, 5),)), "", "limit of 5 bytes is no whole number of pages of 2097152"),
        (TaskLimits(hugetlb=(HugePages(2 * MIB, 0),) * 2), "", "names pages of 2097152 bytes twice"),
        (TaskLimits(hugetlb=(HugePages(2 * MIB, 0),) * 9), "", "names 9 sizes of pages; name at most 8"),
    ],
)
def test_limits_are_judged_beside_the_request(limits: TaskLimits, resources: str, problem: str | None) -> None:
    found = limits_error(limits, Resources.parse(resources))
    assert (found is None) if problem is None else (found is not None and problem in found)


@pytest.mark.parametrize("field", sorted({*TaskLimits.__struct_fields__} - {"cpus_milli", "mem_bytes", "pids"}))
def test_what_cannot_be_summed_is_no_limit_of_an_executors_task(field: str) -> None:
    limits = TaskLimits(**{field: (HugePages(2 * MIB, 0),) if field == "hugetlb" else 1})  # type: ignore[arg-type]

    problem = executor_task_error(limits)
    assert problem == f"'{OWN_ONLY[field]}' is of a whole container, and this task's is its executor's; limit the " + (
        "executor instead"
    )
    assert Total(Resources(), limits).now()[1] == limits


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
