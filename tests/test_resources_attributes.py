"""Attributes of agents: read, printed, refused."""

from __future__ import annotations

import json

import pytest

from mesos_actor.actors.attributes import MAX_ATTRIBUTES
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.resources import Attribute, Attributes


def test_the_kind_of_a_value_is_guessed_as_mesos_does() -> None:
    read = Attributes.parse("rack:2;os:ubuntu 24.04;ports:[5-9,1-3];load:-0.5;kernel:6.1234;url:http://x/y")

    expected = (
        Attribute("kernel", text="6.1234"),
        Attribute("load", scalar=-500),
        Attribute("os", text="ubuntu 24.04"),
        Attribute("ports", ranges=((1, 3), (5, 9))),
        Attribute("rack", scalar=2_000),
        Attribute("url", text="http://x/y"),
    )
    assert expected == read.entries
    assert str(read) == "kernel:6.1234;load:-0.5;os:ubuntu 24.04;ports:[1-3,5-9];rack:2;url:http://x/y"


def test_zero_is_a_value() -> None:
    read = Attributes.parse("rack:0")

    assert Attribute("rack", scalar=0) == read.get("rack")
    assert read == Attributes.from_json(read.to_json())


def test_get_finds_by_name() -> None:
    read = Attributes.parse("os:ubuntu")

    assert (Attribute("os", "ubuntu"), None) == (read.get("os"), read.get("rack"))
    assert (bool(read), bool(Attributes())) == (True, False)


def test_json_has_mesos_shape() -> None:
    read = Attributes.parse("gpu:[0-1];os:ubuntu;rack:2.5")

    assert read.to_json() == [
        {"name": "gpu", "type": "RANGES", "ranges": {"range": [{"begin": 0, "end": 1}]}},
        {"name": "os", "type": "TEXT", "text": {"value": "ubuntu"}},
        {"name": "rack", "type": "SCALAR", "scalar": {"value": 2.5}},
    ]
    assert read == Attributes.parse(json.dumps(read.to_json()))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rack", "attributes: 'rack' has no value; write NAME:VALUE"),
        (":2", "attributes: '' is empty"),
        ("rack:1;rack:2", "Attribute 'rack' is given twice"),
        ("x:{a,b}", "is a set, which an attribute cannot be"),
        ("x:[1", "does not end with ]"),
        ("x:a\x07b", "contains a control character"),
        ("x:99999999999999", "Attribute 'x' is out of range"),
        ('[{"name":"x","type":"SET","set":{"item":["a"]}}]', "'set' is not a known field"),
        ('[{"name":"x","type":"TEXT","text":{"value":5}}]', "attributes: x: 5 is not a string"),
        ('[{"name":"x","type":"TEXT","text":{"value":""}}]', "is empty"),
        ("{}", "has no value"),
    ],
)
def test_bad_attributes_are_refused_with_field_value_and_fix(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        Attributes.parse(text)

    assert words in str(refusal.value)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        (Attributes((Attribute("x"),)), "Attribute 'x' has no value"),
        (Attributes((Attribute("x", "a", 1),)), "several kinds of value"),
        (Attributes((Attribute("", "a"),)), "Attribute name '' is empty"),
        (Attributes((Attribute("x", ranges=((2, 1),)),)), "ends before it begins"),
        (Attributes((Attribute("x", "a;b"),)), "contains one of ;"),
        (Attributes(tuple(Attribute(f"a{i}", "x") for i in range(MAX_ATTRIBUTES + 1))), "Too many attributes"),
    ],
)
def test_error_names_what_is_wrong_off_the_wire(attributes: Attributes, words: str) -> None:
    assert words in (attributes.error() or "")
