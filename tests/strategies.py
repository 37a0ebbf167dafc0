"""Hypothesis strategies for every message and record, made from their types.

A class that is declared is covered: nobody has to add it here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import strategies as st
from msgspec import inspect

from mesos_actor.actors.messages import MESSAGES, RECORDS
from mesos_actor.actors.messages.base import Message, Record

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_INTEGER = st.integers(-(2**63), 2**63 - 1)
_MAX_ITEMS = 3


def _of_type(kind: inspect.Type) -> st.SearchStrategy[Any]:
    match kind:
        case inspect.IntType():
            return _INTEGER
        case inspect.StrType():
            return _TEXT
        case inspect.BytesType():
            return st.binary(max_size=12)
        case inspect.BoolType():
            return st.booleans()
        case inspect.NoneType():
            return st.none()
        case inspect.EnumType(cls):
            return st.sampled_from(list(cls))
        case inspect.UnionType(types):
            return st.one_of([_of_type(t) for t in types])
        case inspect.VarTupleType(item_type):
            return st.lists(_of_type(item_type), max_size=_MAX_ITEMS).map(tuple)
        case inspect.TupleType(item_types):
            return st.tuples(*[_of_type(t) for t in item_types])
        case inspect.DictType(key_type, value_type):
            return st.dictionaries(_of_type(key_type), _of_type(value_type), max_size=_MAX_ITEMS)
        case inspect.StructType():
            return structs(kind.cls)
    raise TypeError(f"no strategy for {kind}: a message holds something new, teach tests/strategies.py")


_made: dict[type, st.SearchStrategy[Any]] = {}


def structs(cls: type[msgspec.Struct]) -> st.SearchStrategy[Any]:
    """Any value of the struct `cls`; fields with a default are sometimes left out."""
    if cls not in _made:
        kind = inspect.type_info(cls)
        assert isinstance(kind, inspect.StructType)
        required = {f.name: _of_type(f.type) for f in kind.fields if f.required}
        optional = {f.name: _of_type(f.type) for f in kind.fields if not f.required}
        _made[cls] = st.fixed_dictionaries(required, optional=optional).map(lambda fields: cls(**fields))
    return _made[cls]


def messages(*names: str) -> st.SearchStrategy[Message]:
    """Any message, or one of the classes named."""
    return st.one_of([structs(MESSAGES[name]) for name in names or sorted(MESSAGES)])


def records(*names: str) -> st.SearchStrategy[Record]:
    """Any record, or one of the classes named."""
    return st.one_of([structs(RECORDS[name]) for name in names or sorted(RECORDS)])
