"""The laws of resource arithmetic, over bundles of every kind, name and role."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mesos_actor.actors import resource_ranges
from mesos_actor.actors.errors import InvalidInput, LocalError
from mesos_actor.actors.resource_entry import MAX_SCALAR_MILLI
from mesos_actor.actors.resources import Attribute, Attributes, Resource, Resources, total

laws = settings(deadline=None, max_examples=40)

roles = st.sampled_from(["*", "eng", "eng/web"])
spans = st.tuples(st.integers(0, 30), st.integers(0, 6)).map(lambda span: (span[0], span[0] + span[1]))
ranges = st.lists(spans, min_size=1, max_size=3).map(resource_ranges.canonical)
items = st.sets(st.sampled_from(["a", "b:1", "c d", "é", "-", "["]), min_size=1).map(lambda found: tuple(sorted(found)))
amounts = st.integers(1, 5_000)

# Each name always has the same kind of value: one bundle may not mix them.
entries = (
    st.builds(Resource, st.sampled_from(["cpus", "disk", "mem", "licences"]), amounts, role=roles)
    | st.builds(Resource, st.just("gpus"), amounts.map(lambda whole: whole * 1_000), role=roles)
    | st.builds(Resource, st.sampled_from(["ports", "cores"]), ranges=ranges, role=roles)
    | st.builds(Resource, st.just("names"), items=items, role=roles)
)
bundles = st.lists(entries, max_size=5).map(lambda found: Resources(tuple(found)).normalized())


def disjoint(left: Resources, right: Resources) -> bool:
    """Whether no range or set of one holds what the other's holds; then adding can be undone."""
    for x in left:
        for y in right:
            if (x.name, x.role) == (y.name, y.role) and (
                resource_ranges.intersect(x.ranges, y.ranges) or {*x.items} & {*y.items}
            ):
                return False
    return True


@laws
@given(bundles, bundles, bundles)
def test_adding_is_commutative_and_associative_and_stays_canonical(a: Resources, b: Resources, c: Resources) -> None:
    assert a + b == b + a
    assert (a + b) + c == a + (b + c) == total([c, a, b])
    assert a + Resources() == a == Resources() + a
    assert (a + b).error() is None


@laws
@given(bundles, bundles)
def test_taking_away_undoes_adding(a: Resources, b: Resources) -> None:
    assume(disjoint(a, b))

    assert a == (a + b) - b
    assert Resources() == a - a


@laws
@given(bundles, bundles, bundles)
def test_containment_is_a_partial_order(a: Resources, b: Resources, c: Resources) -> None:
    assert a.contains(a)
    assert a.contains(Resources())
    assert (a + b).contains(a)
    assert not (a.contains(b) and b.contains(a)) or a == b
    assert not (a.contains(b) and b.contains(c)) or a.contains(c)


@laws
@given(bundles, bundles)
def test_what_is_contained_can_be_taken_away_and_nothing_else(a: Resources, b: Resources) -> None:
    for whole, part in ((a, b), (a + b, b)):
        if whole.contains(part):
            rest = whole - part
            assert rest.error() is None
            assert whole == rest + part
            assert disjoint(rest, part)
        else:
            with pytest.raises(LocalError):
                _ = whole - part


@laws
@given(bundles)
def test_text_json_and_messages_give_back_the_same_bundle(a: Resources) -> None:
    assert a == Resources.parse(str(a))
    assert a == Resources.from_json(a.to_json())
    assert a == Resources.parse(json.dumps(a.to_json()))
    assert a == msgspec.msgpack.decode(msgspec.msgpack.encode(a), type=Resources)
    assert a == a.normalized()
    assert a.error() is None


@laws
@given(st.integers(min_value=1, max_value=MAX_SCALAR_MILLI))
def test_scalars_of_any_size_survive_text_and_json(milli: int) -> None:
    a = Resources((Resource("mem", milli),))

    assert a == Resources.parse(str(a)) == Resources.parse(json.dumps(a.to_json())) == Resources.from_json(a.to_json())


@laws
@given(bundles, bundles)
def test_take_gives_a_part_with_the_wanted_amounts(available: Resources, wanted: Resources) -> None:
    plain = total([Resources((Resource(e.name, e.scalar, e.ranges, e.items),)) for e in wanted])

    taken = available.take(plain)

    pooled = total([Resources((Resource(e.name, e.scalar, e.ranges, e.items),)) for e in available])
    assert (taken is not None) == pooled.contains(plain)
    if taken is not None:
        assert available.contains(taken)
        assert taken.error() is None
        assert plain == total([Resources((Resource(e.name, e.scalar, e.ranges, e.items),)) for e in taken])


@laws
@given(bundles, st.sampled_from(["*", "eng", "eng/web", "other"]))
def test_division_by_role_loses_nothing(a: Resources, role: str) -> None:
    assert a == a.unreserved() + a.reserved()
    assert a.contains(a.for_role(role))
    assert a.for_role(role).contains(a.unreserved() + a.reserved(role))


@laws
@given(st.lists(spans, max_size=6), st.lists(spans, max_size=6))
def test_ranges_are_sets_of_numbers(left: Sequence[tuple[int, int]], right: Sequence[tuple[int, int]]) -> None:
    def numbers_of(ranges: Sequence[tuple[int, int]]) -> set[int]:
        return {number for begin, end in ranges for number in range(begin, end + 1)}

    a, b = resource_ranges.canonical(left), resource_ranges.canonical(right)
    assert numbers_of(left) == numbers_of(a)
    assert resource_ranges.size(a) == len(numbers_of(a))
    for result, expected in (
        (a, numbers_of(a)),
        (resource_ranges.union(a, b), numbers_of(a) | numbers_of(b)),
        (resource_ranges.subtract(a, b), numbers_of(a) - numbers_of(b)),
        (resource_ranges.intersect(a, b), numbers_of(a) & numbers_of(b)),
    ):
        assert expected == numbers_of(result)
        assert resource_ranges.error(result) is None
    assert (numbers_of(b) <= numbers_of(a)) == resource_ranges.contains(a, b)
    picked = resource_ranges.lowest(a, len(right))
    assert picked is None or sorted(numbers_of(a))[: len(right)] == sorted(numbers_of(picked))


# -- from outside

wild_text = st.text(max_size=6) | st.sampled_from(["cpus", "mem", "ports", "*", "eng"])
wild_numbers = st.integers(min_value=-(1 << 63), max_value=(1 << 64) - 1) | st.integers(-3, 3)
wild_ranges = st.lists(st.tuples(wild_numbers, wild_numbers), max_size=3).map(tuple)
wild_resources = st.builds(
    Resource, wild_text, st.just(0) | wild_numbers, wild_ranges, st.lists(wild_text, max_size=3).map(tuple), wild_text
)


@laws
@given(st.lists(wild_resources, max_size=4).map(lambda found: Resources(tuple(found))))
def test_nothing_that_can_be_decoded_makes_error_raise(wild: Resources) -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(wild), type=Resources)

    problem = decoded.error()

    if problem is None:
        assert (
            decoded == decoded.normalized() == Resources.parse(str(decoded)) == Resources.from_json(decoded.to_json())
        )
    else:
        assert len(problem) < 2_000
    try:
        tidy = decoded.normalized()
    except InvalidInput:
        assert problem is not None
    else:
        assert tidy.error() is None


@laws
@given(st.text(max_size=30) | st.text(alphabet="cpus:;()[]{},-.0123456789GB ", max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    for kind in (Resources, Attributes):
        try:
            read = kind.parse(text)
        except InvalidInput:
            continue
        assert read.error() is None
        assert read == kind.parse(str(read))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["name", "type", "scalar", "value", "ranges", "range", "begin", "end", "set", "item", "text"]
            ),
            inner | st.sampled_from(["SCALAR", "RANGES", "SET", "TEXT"]),
            max_size=4,
        )
    ),
    max_leaves=8,
)


@laws
@given(json_values)
def test_any_json_is_read_or_refused(value: object) -> None:
    for kind in (Resources, Attributes):
        try:
            read = kind.from_json(value)
        except InvalidInput:
            continue
        assert read.error() is None


wild_attributes = st.builds(Attribute, wild_text, wild_text | st.just(""), st.none() | wild_numbers, wild_ranges)


@laws
@given(st.lists(wild_attributes, max_size=3).map(lambda found: Attributes(tuple(found))))
def test_nothing_that_can_be_decoded_makes_attributes_error_raise(wild: Attributes) -> None:
    decoded = msgspec.msgpack.decode(msgspec.msgpack.encode(wild), type=Attributes)

    if decoded.error() is None:
        assert {*decoded} == {*Attributes.from_json(decoded.to_json())}
