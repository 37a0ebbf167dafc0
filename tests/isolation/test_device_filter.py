"""The device program decides as its rules say: run here by an interpreter of the few instructions that it uses."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.device_filter import ANY, DEFAULT_RULES, MAX_RULES, DeviceRule, program_of

BITS = {"m": 1, "r": 2, "w": 4}


def decision(program: bytes, kind: str, access: str, major: int, minor: int) -> bool:
    """What the kernel would be told."""
    wanted = sum(BITS[letter] for letter in access)
    context = struct.pack("<III", wanted << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = [0] * 11
    position = 0
    while True:
        code, both, offset, constant = struct.unpack_from("<BBhi", program, position * 8)
        to, source = both & 15, both >> 4
        position += 1
        if code == 0x61:
            assert source == 1
            registers[to] = struct.unpack_from("<I", context, offset)[0]
        elif code == 0xBC:
            registers[to] = registers[source]
        elif code == 0xB4:
            registers[to] = constant
        elif code == 0x54:
            registers[to] &= constant
        elif code == 0x74:
            registers[to] >>= constant
        elif code == 0x55:
            position += offset if registers[to] != constant else 0
        else:
            assert code == 0x95, f"unknown instruction {code:#x}"
            return bool(registers[0])


kinds = st.sampled_from("bc")
numbers = st.integers(0, 3) | st.just((1 << 12) - 1)
letters = st.sets(st.sampled_from("rwm"), min_size=1).map(lambda found: "".join(sorted(found)))
rules = st.lists(st.builds(DeviceRule, kinds, numbers | st.just(ANY), numbers | st.just(ANY), letters), max_size=8)


@given(rules, kinds, letters, numbers, numbers)
def test_decision_is_the_rules(rules: list[DeviceRule], kind: str, access: str, major: int, minor: int) -> None:
    """Allowed exactly when the rules of one device, or one width, cover all that is wanted."""
    merged: dict[tuple[str, int, int], set[str]] = {}
    for rule in rules:
        merged.setdefault((rule.kind, rule.major, rule.minor), set()).update(rule.access)
    expected = any(
        k == kind and a in (ANY, major) and b in (ANY, minor) and set(access) <= allowed
        for (k, a, b), allowed in merged.items()
    )

    assert decision(program_of(rules), kind, access, major, minor) == expected


@pytest.mark.parametrize(
    ("kind", "access", "major", "minor", "expected"),
    [
        ("c", "rw", 1, 3, True),
        ("c", "m", 1, 1, True),
        ("c", "r", 1, 1, False),  # /dev/mem
        ("b", "m", 8, 0, True),
        ("b", "r", 8, 0, False),  # /dev/sda
        ("c", "rw", 136, 77, True),
        ("c", "r", 10, 229, False),  # /dev/fuse
    ],
)
def test_default_is_mesos_whitelist(kind: str, access: str, major: int, minor: int, expected: bool) -> None:
    assert decision(program_of(DEFAULT_RULES), kind, access, major, minor) is expected


def test_no_rule_allows_nothing() -> None:
    assert not decision(program_of(()), "c", "r", 1, 3)


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (DeviceRule("a", 1, 1, "r"), r"devices\[0\].kind: 'a' is no kind of device: use 'c' or 'b'"),
        (DeviceRule("c", 4096, 1, "r"), r"devices\[0\]: 4096:1 is no device number"),
        (DeviceRule("c", 1, -2, "r"), r"devices\[0\]: 1:-2 is no device number"),
        (DeviceRule("c", 1, 1, ""), r"devices\[0\].access: '' is none"),
        (DeviceRule("c", 1, 1, "rx"), r"devices\[0\].access: 'rx' is none"),
    ],
)
def test_rule_without_sense_is_refused(rule: DeviceRule, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        program_of([rule])


def test_rules_are_bounded() -> None:
    with pytest.raises(InvalidInput, match=f"more than {MAX_RULES} rules"):
        program_of([DeviceRule("c", 1, minor, "r") for minor in range(MAX_RULES + 1)])
