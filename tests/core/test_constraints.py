"""Constraints: read, printed, met and not met."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.constraints import Constraint, parse_constraint
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import AgentId, OfferId, Role
from mesos_actor.actors.messages.values import Offer
from mesos_actor.actors.resources import Attributes, Resources


def offer(attributes: str = "gpu:[0-1];os:ubuntu 24.04;rack:2") -> Offer:
    return Offer(
        offer_id=OfferId("m-O1"),
        agent_id=AgentId("c-S1"),
        hostname="h1.example",
        role=Role("*"),
        resources=Resources.of(cpus=1),
        attributes=Attributes.parse(attributes),
        isolation="process",
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rack==2", None),
        (" rack == 2.0 ", None),
        ("rack==3", "rack==3: the agent has rack 2"),
        ("zone==a", "zone==a: the agent has no zone"),
        ("rack!=3", None),
        ("rack!=2", "rack!=2: the agent has rack 2"),
        ("zone!=a", None),
        ("os==ubuntu 24.04", None),
        ("os=~ubuntu.*", None),
        ("os=~ubuntu", "os=~ubuntu: the agent has os ubuntu 24.04"),
        ("zone=~.*", "zone=~.*: the agent has no zone"),
        ("os!~debian.*", None),
        ("os!~ubuntu.*", "os!~ubuntu.*: the agent has os ubuntu 24.04"),
        ("zone!~.*", None),
        ("gpu==[0-1]", None),
        ("exists(gpu)", None),
        ("exists( zone )", "exists(zone): the agent has no zone"),
        ("!exists(zone)", None),
        ("!exists(gpu)", "!exists(gpu): the agent has gpu [0-1]"),
        ("hostname==h1.example", None),
        ("hostname=~h[12]\\..*", None),
        ("hostname!=h1.example", "hostname!=h1.example: the agent has hostname h1.example"),
        ("agent==c-S1", None),
        ("exists(hostname)", None),
        ("isolation==process", None),
        ("isolation!=process", "isolation!=process: the agent has isolation process"),
    ],
)
def test_an_offer_meets_a_constraint_or_says_why_not(text: str, reason: str | None) -> None:
    constraint = parse_constraint(text)

    assert constraint.matches(offer()) == reason
    assert parse_constraint(str(constraint)) == constraint


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "constraint: '' is not a constraint; write NAME==VALUE"),
        ("rack", "is not a constraint"),
        ("rack=r1", "is not a constraint"),
        ("==r1", "names an attribute that is empty"),
        ("rack==", "has no value"),
        ("a;b==c", "names an attribute that contains one of"),
        ("exists()", "names an attribute that is empty"),
        ("rack=={a,b}", "has a value that no attribute has"),
        ("rack==a;b:c", "has a value that no attribute has"),
        ("rack=~(", "has a bad regular expression; correct it: missing )"),
        ("rack=~" + "a" * 257, "has a regular expression longer than 256 characters"),
        ("rack==" + "a" * 1_000, "is longer than 1000 characters"),
        ("rack=~a{99999999999}", "has a bad regular expression"),
    ],
)
def test_a_bad_constraint_is_refused_with_value_and_fix(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        parse_constraint(text)

    assert words in str(refusal.value)


@given(st.text(max_size=20) | st.text(alphabet="rack=!~exists()[]{}:;,.*12 ", max_size=20))
def test_any_text_is_a_constraint_or_refused(text: str) -> None:
    try:
        constraint = parse_constraint(text)
    except InvalidInput:
        return

    assert isinstance(constraint, Constraint)
    assert parse_constraint(str(constraint)) == constraint
