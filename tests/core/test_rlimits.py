"""Limits of processes: what can be asked for, and what is refused with its name."""

from __future__ import annotations

import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.rlimits import KINDS, MAX_VALUE, rlimits_error
from mesos_actor.actors.messages.values import UNLIMITED, RLimit

VALUES = st.just(UNLIMITED) | st.integers(0, MAX_VALUE)


def test_every_kind_is_one_of_linux() -> None:
    assert len(KINDS) == 15
    # The kernel has more than Python names: these four have no name before 3.12, or none on some C libraries.
    named = {name.removeprefix("RLIMIT_").lower() for name in dir(resource) if name.startswith("RLIMIT_")}
    assert named >= KINDS
    assert named - KINDS <= {"ofile"}


@given(st.sets(st.sampled_from(sorted(KINDS))), VALUES, VALUES)
def test_pair_in_order_is_no_error_and_one_out_of_order_is(kinds: set[str], first: int, second: int) -> None:
    def rank(value: int) -> int:
        return MAX_VALUE + 1 if value == UNLIMITED else value

    soft, hard = sorted((first, second), key=rank)
    assert rlimits_error([RLimit(kind, soft, hard) for kind in kinds]) is None
    if soft != hard:
        for kind in kinds:
            assert "lower the one or raise the other" in str(rlimits_error([RLimit(kind, hard, soft)]))


@pytest.mark.parametrize(
    ("rlimits", "problem"),
    [
        ([RLimit("locks", 1, 1)], "there is no resource limit 'locks'; name one of as, core"),
        ([RLimit("core", 0, 0), RLimit("core", 1, 1)], "'core' is given twice"),
        ([RLimit("core", -2, 1)], "'core' has a soft limit of -2; give one from 0 to"),
        ([RLimit("core", 0, MAX_VALUE + 1)], "'core' has a hard limit of 9223372036854775808"),
    ],
)
def test_what_cannot_be_is_named(rlimits: list[RLimit], problem: str) -> None:
    assert problem in str(rlimits_error(rlimits))
