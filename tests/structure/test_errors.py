"""The drawing in errors.py and the classes are the same tree."""

from __future__ import annotations

import re

import pytest

from mesos_actor.actors import errors


def _drawn() -> dict[str, str]:
    """Class name -> parent's name, as drawn."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"( *)[*x+] (\w+)", line)
        if match:
            depth = len(match[1])
            path = [entry for entry in path if entry[0] < depth]
            parents[match[2]] = path[-1][1] if path else "Exception"
            path.append((depth, match[2]))
    return parents


def test_drawing_matches_the_classes() -> None:
    actual = {
        name: cls.__bases__[0].__name__
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, Exception)
    }

    assert _drawn() == actual


def test_the_base_that_says_whose_fault_it_is_is_never_raised_itself() -> None:
    with pytest.raises(TypeError, match="directly instantiate"):
        errors.ProtocolError("x")
