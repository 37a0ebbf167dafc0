"""Processors for one container alone: found in a pretended sysfs, chosen near each other, given to one at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from mesos_actor.isolation.limits import list_of
from mesos_actor.isolation.processors import (
    NotEnoughProcessors,
    Processor,
    ProcessorPool,
    choose,
    discover,
    numbers_of,
)

TWO_NODES = tuple(Processor(number, number // 4, number // 2 * 2) for number in range(8))
"""Two nodes of two cores of two threads."""


def some(*numbers: int) -> list[Processor]:
    return [TWO_NODES[number] for number in numbers]


@pytest.mark.parametrize(
    ("free", "count", "chosen"),
    [
        (range(8), 2, (0, 1)),
        (range(8), 4, (0, 1, 2, 3)),
        (range(8), 5, (0, 1, 2, 3, 4)),
        ((1, 2, 3, 4, 5, 6, 7), 2, (2, 3)),
        ((1, 2, 3, 4, 5, 6, 7), 1, (1,)),
        ((1, 2, 3, 4, 5, 6, 7), 4, (4, 5, 6, 7)),
        ((0, 1, 2, 4, 5, 6, 7), 3, (0, 1, 2)),
        ((0, 2, 5, 7), 2, (0, 2)),
        ((0, 5, 6, 7), 1, (0,)),
        ((0, 5, 6, 7), 4, (0, 5, 6, 7)),
        ((0,), 2, None),
        ((), 0, ()),
    ],
)
def test_near_ones_are_chosen(free: range | tuple[int, ...], count: int, chosen: tuple[int, ...] | None) -> None:
    """Of the node that is fullest of those with enough; whole cores, then halves of those that are halves already."""
    assert choose(some(*free), count) == chosen


PROCESSORS = st.builds(Processor, st.integers(0, 40), st.integers(0, 3), st.integers(0, 9))
HOSTS = st.lists(PROCESSORS, max_size=24, unique_by=lambda processor: processor.number)


@given(HOSTS, st.integers(0, 26))
def test_choice_is_of_what_is_free_and_of_as_few_nodes_as_can_be(free: list[Processor], count: int) -> None:
    chosen = choose(free, count)

    if count > len(free):
        assert chosen is None
        return
    assert chosen is not None
    assert len(chosen) == count
    assert list(chosen) == sorted({*chosen})
    node_of = {processor.number: processor.node for processor in free}
    sizes = sorted((sum(p.node == node for p in free) for node in {p.node for p in free}), reverse=True)
    fewest = next(number for number in range(len(sizes) + 1) if sum(sizes[:number]) >= count)
    assert len({node_of[number] for number in chosen}) == fewest
    assert choose(list(reversed(free)), count) == chosen


class Pool(RuleBasedStateMachine):
    """Whatever is asked for, in whatever order: no processor has two owners, and a restart changes nothing."""

    owners = Bundle("owners")

    def __init__(self) -> None:
        super().__init__()
        self.pool = ProcessorPool(TWO_NODES)
        self.model: dict[str, tuple[int, ...]] = {}

    @rule(target=owners, name=st.sampled_from("abcdefgh"))
    def name_one(self, name: str) -> str:
        return name

    @rule(owner=owners, count=st.integers(1, 9), keep=st.integers(0, 1))
    def assign(self, owner: str, count: int, keep: int) -> None:
        others = sum(len(held) for name, held in self.model.items() if name != owner)
        again = len(self.model.get(owner, ())) == count
        if count + others + keep <= 8 or again:
            given_now = self.pool.assign(owner, count, keep)
            assert len(given_now) == count
            assert not again or given_now == self.model[owner]
            self.model[owner] = given_now
        else:
            with pytest.raises(NotEnoughProcessors):
                self.pool.assign(owner, count, keep)

    @rule(owner=consumes(owners))
    def release(self, owner: str) -> None:
        assert self.pool.release(owner) == bool(self.model.pop(owner, ()))

    @rule()
    def restart(self) -> None:
        self.pool = ProcessorPool(TWO_NODES)
        assert self.pool.recover(self.model) == {}

    @invariant()
    def everything_is_somebodys_or_shared(self) -> None:
        held = [number for numbers in self.model.values() for number in numbers]
        assert sorted([*held, *self.pool.shared]) == list(range(8))
        assert self.pool.is_whole == (not held)
        assert {name: self.pool.held(name) for name in self.model} == self.model


TestPool = Pool.TestCase


def test_refusal_says_who_has_the_others() -> None:
    pool = ProcessorPool(TWO_NODES[:4])
    pool.assign("a", 2)

    with pytest.raises(
        NotEnoughProcessors, match=r"^3 processors wanted, 2 of 4 can be had; a have others for themselves"
    ):
        pool.assign("b", 3)
    with pytest.raises(
        NotEnoughProcessors, match=r"^2 processors wanted, 1 of 4 can be had, for other containers need 1;"
    ):
        pool.assign("b", 2, keep=1)
    with pytest.raises(NotEnoughProcessors, match=r"^1 processors wanted, 0 of 0 can be had$"):
        ProcessorPool(()).assign("a", 1)
    assert (pool.held("a"), pool.shared) == ((0, 1), (2, 3))


def test_processor_that_is_gone_or_anothers_is_lost() -> None:
    pool = ProcessorPool(TWO_NODES[:2])

    assert pool.recover({"a": (0, 5), "b": (0, 1)}) == {"a": (5,), "b": (0,)}
    assert (pool.held("a"), pool.held("b")) == ((0,), (1,))


@given(st.sets(st.integers(0, 600), min_size=1))
def test_kernels_lists_are_read_as_they_are_written(numbers: set[int]) -> None:
    assert numbers_of(list_of(numbers)) == tuple(sorted(numbers))


@pytest.mark.parametrize("text", ["", "\n", "a", "1-", "0,x", "-1"])
def test_what_is_no_list_is_nothing(text: str) -> None:
    assert numbers_of(text) == ()


def test_nodes_and_cores_are_read_from_sysfs(tmp_path: Path) -> None:
    node, cpu = tmp_path / "devices/system/node", tmp_path / "devices/system/cpu"
    for number, text in ((0, "0-1,4-5\n"), (1, "2-3,6-7\n")):
        (node / f"node{number}").mkdir(parents=True)
        (node / f"node{number}" / "cpulist").write_text(text)
    (node / "possible").write_text("0-1\n")
    for number in (2, 6):
        (cpu / f"cpu{number}/topology").mkdir(parents=True)
        (cpu / f"cpu{number}/topology/thread_siblings_list").write_text("2,6\n")

    assert discover({6, 2, 4}, str(tmp_path)) == (Processor(2, 1, 2), Processor(4, 0, 4), Processor(6, 1, 2))
    assert discover([3], str(tmp_path / "none")) == (Processor(3, 0, 3),)
