"""One registry of messages: everything declared is frozen, documented and has a name of its own."""

from __future__ import annotations

import pytest

from mesos_actor.actors.messages import MESSAGES, RECORDS
from mesos_actor.actors.messages.base import Message, Record

ALL: list[type[Message] | type[Record]] = [*MESSAGES.values(), *RECORDS.values()]


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_declared_class_is_frozen_and_documented(cls: type[Message] | type[Record]) -> None:
    assert cls.__struct_config__.frozen
    assert cls.__struct_config__.tag == cls.__name__
    assert cls.__doc__ and cls.__doc__.strip()


def test_no_name_is_used_twice() -> None:
    assert len(ALL) == len({cls.__name__ for cls in ALL})
