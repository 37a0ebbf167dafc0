"""What resources print, read, refuse and choose; the laws of their arithmetic are in test_resources_laws.py."""

from __future__ import annotations

import json
from decimal import Decimal

import msgspec
import pytest

from mesos_actor.actors import resource_text
from mesos_actor.actors.errors import InvalidInput, LocalError
from mesos_actor.actors.resource_entry import MAX_ITEMS, MAX_SCALAR_MILLI
from mesos_actor.actors.resource_ranges import MAX_RANGE_END, MAX_RANGES
from mesos_actor.actors.resource_text import Amount
from mesos_actor.actors.resources import MAX_ENTRIES, MIB, Resource, Resources, total

DOCUMENTED = "cpus:24;mem:24576;disk(ads):409600;ports:[21000-24000,30000-34000];bugs(role):{a,b,c}"


def parse(text: str) -> Resources:
    return Resources.parse(text)


# -- text


def test_the_text_of_the_documentation_is_read_entry_by_entry() -> None:
    expected = Resources(
        (
            Resource("bugs", items=("a", "b", "c"), role="role"),
            Resource("cpus", 24_000),
            Resource("disk", 409_600_000, role="ads"),
            Resource("mem", 24_576_000),
            Resource("ports", ranges=((21_000, 24_000), (30_000, 34_000))),
        )
    )

    assert expected == parse(DOCUMENTED)
    assert str(expected) == "bugs(role):{a,b,c};cpus:24;disk(ads):409600;mem:24576;ports:[21000-24000,30000-34000]"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("", ""),
        (" ; ", ""),
        ("cpus:0", ""),
        ("cpus:4.", "cpus:4"),
        ("cpus:.5", "cpus:0.5"),
        ("cpus: 0.250 ; mem : 1 ", "cpus:0.25;mem:1"),
        ("cpus:1;cpus:0.5", "cpus:1.5"),
        ("cpus(*):1", "cpus:1"),
        ("cpus( ads ):1", "cpus(ads):1"),
        ("mem:24GiB", "mem:24576"),
        ("mem:24gb", "mem:24576"),
        ("mem:512MB", "mem:512"),
        ("mem:512 MiB", "mem:512"),
        ("disk:1.5TiB", "disk:1572864"),
        ("disk:2PB", "disk:2147483648"),
        ("mem:128KB", "mem:0.125"),
        ("ports:[5-9,1-3,4-4]", "ports:[1-9]"),
        ("ports:[ 80 , 90 - 91 ]", "ports:[80-80,90-91]"),
        ("ports:[1-5];ports:[3-9]", "ports:[1-9]"),
        ("names:{c, a,b}", "names:{a,b,c}"),
        ("names:{a:1,b}", "names:{a:1,b}"),
    ],
)
def test_text_is_read_as_mesos_does_and_printed_in_one_way(text: str, canonical: str) -> None:
    assert canonical == str(parse(text))
    assert parse(canonical) == parse(text)


def test_what_names_no_role_is_for_the_default_role() -> None:
    assert str(Resources.parse("cpus:1;mem(*):2", "eng")) == "cpus(eng):1;mem:2"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cpus", "resources: 'cpus' has no value; write NAME:VALUE pairs"),
        ("cpus:", "has no value"),
        (":4", "resources: '' is empty"),
        ("cpus:four", "resources: cpus: 'four' is not a number; write digits"),
        ("cpus:1e3", "is not a number"),
        ("cpus:٤", "is not a number"),
        ("cpus:nan", "is not a number"),
        ("cpus:" + "1" * 5_000, "is not a number"),
        ("cpus:0.1234", "resources: cpus: '0.1234' has more than three decimals; round it to thousandths"),
        ("mem:1KB", "resources: mem: '1KB' has more than three decimals"),
        ("cpus:1GB", "resources: cpus: '1GB' is not a number"),
        ("cpus:-1", "resources: cpus: '-1' is negative; give zero or more"),
        ("cpus:9999999999999", "is above 1000000000000"),
        ("gpus:0.5", "The 'gpus' resource must be an unsigned integer, not 0.5"),
        ("cpus(:1", "'cpus(' has unmatched parentheses"),
        ("cpus(eng):1;mem(a b):2", "resources: mem: 'a b' is not a role"),
        ("cpus(/eng):0", "resources: cpus: '/eng' is not a role"),
        ("cpus():1", "Role name must not be empty"),
        ("ports:8080", "Resource 'ports' must be ranges"),
        ("ports:[1-5", "does not end with ]"),
        ("ports:[]", "'' is not a range; write it as BEGIN-END"),
        ("ports:[a-b]", "'a-b' is not a range"),
        ("ports:[-5-3]", "'-5-3' is not a range"),
        ("ports:[5-1]", "resources: ports: '5-1' ends before it begins; write 1-5"),
        (f"ports:[1-{MAX_RANGE_END + 1}]", f"stay between 0 and {MAX_RANGE_END}"),
        ("cpus:[1-2]", "Resource 'cpus' must be a scalar"),
        ("x:{a", "does not end with }"),
        ("x:{}", "'' is empty"),
        ("x:{a,a}", "resources: x: 'a' is in the set twice; name each item once"),
        ("x:1;x:[1-2]", "Resources with the same name ('x') but different types are not allowed"),
        ("[1]", "resources: 1 is not an object"),
        ("[{", "resources: not JSON"),
    ],
)
def test_bad_text_is_refused_with_field_value_and_fix(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse(text)

    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 400


@pytest.mark.parametrize(
    "text",
    [
        "cpus:0;mem(eng):1",
        '[{"name":"cpus","type":"SCALAR","scalar":{"value":0}},{"name":"mem","type":"SCALAR","scalar":{"value":1}}]',
    ],
)
def test_a_name_declared_with_zero_is_declared(text: str) -> None:
    assert resource_text.declared_names(text) == {"cpus", "mem"}


# -- amounts from programs


@pytest.mark.parametrize(
    ("amount", "milli"),
    [(1, 1_000), (0.1, 100), ("0.1", 100), (Decimal("0.125"), 125), (1e3, 1_000_000), (0.30000, 300), ("2", 2_000)],
)
def test_amounts_of_any_type_are_exact(amount: Amount, milli: int) -> None:
    assert milli == Resources.of(cpus=amount).millicpus()


@pytest.mark.parametrize(
    "amount",
    [0.1 + 0.2, 1 / 3, "x", float("nan"), float("inf"), -1, True, Decimal("1e99"), 10**100, Decimal("1e-99")],
)
def test_amounts_that_are_not_thousandths_are_refused(amount: Amount) -> None:
    with pytest.raises(InvalidInput, match="resources: cpus"):
        Resources.of(cpus=amount)


def test_of_takes_units_roles_and_custom_names() -> None:
    made = Resources.of(cpus=2, mem="1GiB", disk="10GB", role="eng", ports="[31000-31001]", licences=3, names="{b,a}")

    expected = "cpus(eng):2;disk(eng):10240;licences(eng):3;mem(eng):1024;names(eng):{a,b};ports(eng):[31000-31001]"
    assert expected == str(made)
    with pytest.raises(InvalidInput, match="is not a role"):
        Resources.of(cpus=1, role="../x")


# -- JSON


def test_json_has_mesos_shape_and_exact_decimals() -> None:
    made = parse("cpus:0.1;gpus:2;names(eng):{a};ports:[1-5]")

    assert made.to_json() == [
        {"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1}, "role": "*"},
        {"name": "gpus", "type": "SCALAR", "scalar": {"value": 2}, "role": "*"},
        {"name": "names", "type": "SET", "set": {"item": ["a"]}, "role": "eng"},
        {"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1, "end": 5}]}, "role": "*"},
    ]
    assert made == parse(json.dumps(made.to_json()))
    assert made == Resources.from_json(msgspec.json.decode(msgspec.json.encode(made.to_json())))


def test_json_takes_mesos_newer_form_of_a_static_reservation() -> None:
    text = """[{"name": "cpus", "type": "SCALAR", "scalar": {"value": 1.5},
                "reservations": [{"type": "STATIC", "role": "eng"}]}]"""

    assert str(parse(text)) == "cpus(eng):1.5"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({}, "resources: name: None is not a string"),
        ({"name": "a b;"}, "contains one of"),
        ({"name": "cpus"}, "resources: cpus: type: None does not match its value"),
        ({"name": "cpus", "type": "RANGES", "scalar": {"value": 1}}, "'RANGES' does not match its value"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "set": {"item": []}}, "does not match"),
        ({"name": "cpus", "type": "SCALAR", "scalar": 1}, "resources: cpus: scalar: 1 is not such a value"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": "1"}}, "'1' is not a number"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": True}}, "True is not a number"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 0.1234}}, "more than three decimals"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": -1}}, "is negative"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "role": 5}, "resources: cpus: role: 5"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "revocable": {}}, "'revocable' is not a known"),
        ({"name": "cpus", "type": "SCALAR", "scalar": {"value": 1}, "reservations": [1, 2]}, "one static reservation"),
        (
            {"name": "x", "type": "SCALAR", "scalar": {"value": 1}, "role": "a", "reservations": [{"role": "b"}]},
            "contradicts reservations",
        ),
        ({"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1}]}}, "is not a range"),
        ({"name": "ports", "type": "RANGES", "ranges": {"range": 5}}, "is not a range"),
        ({"name": "ports", "type": "RANGES", "ranges": {"range": [{"begin": 1.0, "end": 2}]}}, "is not a range"),
        ({"name": "x", "type": "SET", "set": {"item": "ab"}}, "'ab' is not a list of strings"),
        ({"name": "x", "type": "SET", "set": {"item": ["a", 1]}}, "is not a list of strings"),
        ({"name": "x", "type": "TEXT", "text": {"value": "a"}}, "'text' is not a known field"),
    ],
)
def test_bad_json_is_refused_with_field_value_and_fix(entry: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Resources.from_json([entry])

    assert words in str(refusal.value)


def test_json_that_is_no_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="is not a list"):
        Resources.from_json({"name": "cpus"})


# -- what comes off the wire


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((Resource("cpus"),), "Resource 'cpus' has no value"),
        ((Resource("", 1),), "Resource name '' is empty"),
        ((Resource("a;b", 1),), "contains one of"),
        ((Resource("x" * 300, 1),), "is longer than 255 bytes"),
        ((Resource("a\x00", 1),), "contains a control character"),
        ((Resource("cpus", -1),), "Resource 'cpus' is negative: -0.001"),
        ((Resource("cpus", MAX_SCALAR_MILLI + 1),), "is above"),
        ((Resource("cpus", 1, ranges=((1, 2),)),), "has several kinds of value"),
        ((Resource("gpus", 1_500),), "must be an unsigned integer, not 1.5"),
        ((Resource("cpus", 1, role=""),), "Role name must not be empty"),
        ((Resource("cpus", 1, role="a//b"),), "two adjacent slashes"),
        ((Resource("cpus", 1, role="a:b"),), "role 'a:b' contains one of"),
        ((Resource("x", ranges=((2, 1),)),), "ends before it begins"),
        ((Resource("x", ranges=((5, 6), (1, 2))),), "unsorted, overlapping or adjacent"),
        ((Resource("x", ranges=((1, 5), (5, 6))),), "unsorted, overlapping or adjacent"),
        ((Resource("x", ranges=((1, 4), (5, 6))),), "unsorted, overlapping or adjacent"),
        ((Resource("x", ranges=((-1, 4),)),), "bounds lie between 0 and"),
        ((Resource("x", ranges=((1, MAX_RANGE_END + 1),)),), "bounds lie between 0 and"),
        ((Resource("x", ranges=tuple((2 * i, 2 * i) for i in range(MAX_RANGES + 1))),), "at most 10000"),
        ((Resource("x", items=("a", "a")),), "twice or out of order"),
        ((Resource("x", items=("b", "a")),), "twice or out of order"),
        ((Resource("x", items=("",)),), "which is empty"),
        ((Resource("x", items=tuple(f"{i:05}" for i in range(MAX_ITEMS + 1))),), "at most 10000"),
        ((Resource("ports", items=("a",)),), "Resource 'ports' must be ranges"),
        ((Resource("b", 1), Resource("a", 1)), "is out of order: sort by name and role"),
        ((Resource("a", 1, role="x"), Resource("a", 1)), "is out of order"),
        ((Resource("a", 1), Resource("a", 1)), "is given twice for the role '*'"),
        ((Resource("a", 1), Resource("a", ranges=((1, 2),))), "different types are not allowed"),
        (tuple(Resource(f"{i:05}", 1) for i in range(MAX_ENTRIES + 1)), "Too many resources: 1001; at most 1000"),
    ],
)
def test_error_names_what_is_wrong_with_a_bundle_off_the_wire(entries: tuple[Resource, ...], words: str) -> None:
    decoded = msgspec.convert(msgspec.to_builtins(Resources(entries)), Resources)

    problem = decoded.error()

    assert problem is not None
    assert words in problem


def test_normalized_repairs_what_a_hand_may_have_left_untidy() -> None:
    untidy = Resources(
        (
            Resource("mem", 5),
            Resource("cpus", 1),
            Resource("gpus"),
            Resource("cpus", 2),
            Resource("p", ranges=((3, 4), (1, 2))),
        )
    )

    assert Resources((Resource("cpus", 3), Resource("mem", 5), Resource("p", ranges=((1, 4),)))) == untidy.normalized()
    for hopeless in (Resource("cpus", -1), Resource("x", ranges=((2, 1),)), Resource("", 1)):
        with pytest.raises(InvalidInput):
            Resources((hopeless, Resource("cpus", 5))).normalized()


# -- arithmetic by example; the laws are tested next door


def test_a_hundred_tenths_are_ten() -> None:
    assert Resources.of(cpus=10) == total([Resources.of(cpus=0.1)] * 100)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("cpus:1", "cpus:1.001"),
        ("cpus:1", "mem:1"),
        ("cpus(eng):4", "cpus:1"),
        ("cpus:4", "cpus(eng):1"),
        ("ports:[1-5]", "ports:[5-6]"),
        ("x:{a,b}", "x:{a,c}"),
        ("x:5", "x:[1-5]"),
        ("x:[1-5]", "x:5"),
        ("x:{a}", "x:[1-2]"),
        ("", "cpus:1"),
    ],
)
def test_taking_more_than_there_is_breaks_a_rule(left: str, right: str) -> None:
    assert not parse(left).contains(parse(right))
    with pytest.raises(LocalError, match="not contained"):
        _ = parse(left) - parse(right)


def test_agents_may_disagree_about_the_kind_of_a_name_and_still_be_summed() -> None:
    number, names = parse("x:5;y:1"), parse("x:{a};y:1")
    both = number + names

    assert both == names + number == total([names, number])
    assert (number, names) == (both - names + parse("y:1") - parse("y:1"), both - number)
    assert both.scalar("x") == 5_000


# -- looked at


def test_questions_about_a_bundle() -> None:
    bundle = parse("cpus:1;cpus(eng):0.5;disk:10;mem:0.1;ports(eng):[1-5];ports:[6-9]")

    assert (
        bundle.scalar("cpus"),
        bundle.scalar("cpus", "*"),
        bundle.scalar("cpus", "eng"),
        bundle.scalar("gpus"),
    ) == (1_500, 1_000, 500, 0)
    assert bundle.scalars() == {"cpus": 1_500, "disk": 10_000, "mem": 100}
    assert (bundle.millicpus(), bundle.mem_bytes(), bundle.disk_bytes()) == (1_500, MIB // 10, 10 * MIB)
    assert bundle.ranges("ports") == ((1, 9),)
    assert (frozenset({"cpus", "disk", "mem", "ports"}), frozenset({"*", "eng"})) == (bundle.names(), bundle.roles())
    assert (Resources().is_empty, bundle.is_empty) == (True, False)
    assert (bool(Resources()), bool(bundle)) == (False, True)


def test_division_by_role_follows_the_tree() -> None:
    bundle = parse("cpus:1;cpus(eng):2;cpus(eng/web):3;cpus(engine):4")

    assert "cpus:1" == str(bundle.for_role("*")) == str(bundle.unreserved())
    assert str(bundle.for_role("eng")) == "cpus:1;cpus(eng):2"
    assert str(bundle.for_role("eng/web")) == "cpus:1;cpus(eng):2;cpus(eng/web):3"
    assert str(bundle.reserved("eng")) == "cpus(eng):2"
    assert str(bundle.reserved()) == "cpus(eng):2;cpus(eng/web):3;cpus(engine):4"


# -- fitted


@pytest.mark.parametrize(
    ("available", "wanted", "taken"),
    [
        ("cpus:4;mem:100", "cpus:1;mem:10", "cpus:1;mem:10"),
        ("cpus:4;cpus(eng):2", "cpus:1", "cpus(eng):1"),
        ("cpus:4;cpus(eng):2", "cpus:3", "cpus:1;cpus(eng):2"),
        ("cpus:4;cpus(eng):1;cpus(eng/web):1", "cpus:1.5", "cpus(eng):0.5;cpus(eng/web):1"),
        ("cpus:4;cpus(eng):2", "cpus:6.001", None),
        ("ports:[1-9];ports(eng):[20-29]", "ports:[5-6,20-20]", "ports:[5-6];ports(eng):[20-20]"),
        ("ports:[1-9];ports(eng):[20-29]", "ports:[9-10]", None),
        ("x:{a,b};x(eng):{c}", "x:{b,c}", "x:{b};x(eng):{c}"),
        ("cpus:4;cpus(eng):2", "cpus:1;cpus(eng):1", "cpus:1;cpus(eng):1"),
        ("cpus:4;cpus(eng):2", "cpus(eng):3", None),
        ("cpus:4;cpus(eng):2", "gpus:1", None),
        ("cpus:4", "cpus:5", None),
        ("cpus:4", "", ""),
    ],
)
def test_take_uses_what_is_reserved_first(available: str, wanted: str, taken: str | None) -> None:
    chosen = parse(available).take(parse(wanted))

    assert taken == (None if chosen is None else str(chosen))


@pytest.mark.parametrize(
    ("count", "taken"),
    [
        (0, ""),
        (1, "ports(eng):[7-7]"),
        (3, "ports:[1-1];ports(eng):[7-8]"),
        (7, "ports:[1-3,10-11];ports(eng):[7-8]"),
        (8, None),
    ],
)
def test_take_numbers_gives_any_ports(count: int, taken: str | None) -> None:
    chosen = parse("cpus:1;ports:[1-3,10-11];ports(eng):[7-8]").take_numbers("ports", count)

    assert taken == (None if chosen is None else str(chosen))


def test_a_number_too_long_to_print_is_refused_all_the_same() -> None:
    with pytest.raises(InvalidInput, match="a number of 16610 bits"):
        Resources.of(cpus=10**5_000)
