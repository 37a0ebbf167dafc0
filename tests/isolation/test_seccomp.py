"""The default system call filter, judged by an interpreter of classic BPF, its numbers by libseccomp."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.seccomp import (
    ALLOW,
    AUDIT_ARCH,
    DENIED,
    ENOSYS,
    EPERM,
    JUDGED,
    LAST_KNOWN,
    Call,
    default_program,
)

MACHINES = sorted(AUDIT_ARCH)
I386 = 0x40000003


def number_of(call: Call, machine: str) -> int:
    return call.x86_64 if machine == "x86_64" else call.aarch64


def verdict(program: bytes, machine: str, number: int, arguments: tuple[int, ...] = (), arch: int = 0) -> int:
    padded = (*arguments, *[0] * 6)[:6]
    data = struct.pack("<iIQ6Q", number - (1 << 32 if number >> 31 else 0), arch or AUDIT_ARCH[machine], 0, *padded)
    accumulator, position = 0, 0
    while True:
        code, if_true, if_false, constant = struct.unpack_from("<HBBI", program, position * 8)
        position += 1
        if code == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif code == 0x06:
            return int(constant)
        else:
            tests = {0x15: accumulator == constant, 0x25: accumulator > constant, 0x35: accumulator >= constant}
            taken = bool(accumulator & constant) if code == 0x45 else tests[code]
            position += if_true if taken else if_false


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_libseccomps(machine: str) -> None:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp is not installed")
    resolve = ctypes.CDLL(name).seccomp_syscall_resolve_name_arch
    resolve.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    theirs = {call.name: max(-1, resolve(AUDIT_ARCH[machine], call.name.encode())) for call in (*DENIED, *JUDGED)}

    assert {call.name: number_of(call, machine) for call in (*DENIED, *JUDGED)} == theirs


@pytest.mark.parametrize("machine", MACHINES)
@given(number=st.integers(0, LAST_KNOWN))
def test_only_what_is_named_is_denied(machine: str, number: int) -> None:
    denied = {number_of(call, machine) for call in DENIED}
    judged = {number_of(call, machine) for call in JUDGED}
    program = default_program((), machine)

    if number not in judged:
        assert verdict(program, machine, number) == (EPERM if number in denied else ALLOW)


@pytest.mark.parametrize("machine", MACHINES)
def test_capability_opens_what_is_its_own(machine: str) -> None:
    mount = next(call for call in DENIED if call.name == "mount")
    reboot = next(call for call in DENIED if call.name == "reboot")
    program = default_program(("SYS_ADMIN",), machine)

    assert verdict(program, machine, number_of(mount, machine)) == ALLOW
    assert verdict(program, machine, number_of(reboot, machine)) == EPERM


@pytest.mark.parametrize("number", [LAST_KNOWN + 1, 1 << 29, 0x40000000, 0x40000000 | 39, 0xFFFFFFFF])
def test_unknown_calls_seem_not_to_exist(number: int) -> None:
    assert verdict(default_program((), "x86_64"), "x86_64", number) == ENOSYS


def test_other_machines_calls_seem_not_to_exist() -> None:
    """Number 165 is mount here and getresuid there."""
    assert verdict(default_program((), "x86_64"), "x86_64", 1, arch=I386) == ENOSYS


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("clone", (0x1200011,), ALLOW),  # fork
        ("clone", (0x3D0F00,), ALLOW),  # a thread
        ("clone", (0x10000011,), EPERM),
        ("clone", (0x00020011,), EPERM),
        ("clone", (0x40000011,), EPERM),
        ("clone3", (1,), ENOSYS),
        ("socket", (1, 1), ALLOW),
        ("socket", (40, 1), EPERM),
        ("socket", (1 << 32 | 40, 1), EPERM),  # the kernel looks at 32 bits
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),
        ("ioctl", (0, 1 << 32 | 0x5412), EPERM),
        ("ioctl", (0, 0x541C), EPERM),
        ("personality", (0,), ALLOW),
        ("personality", (0x20008,), ALLOW),
        ("personality", (0xFFFFFFFF,), ALLOW),
        ("personality", (0x0040000,), EPERM),  # ADDR_NO_RANDOMIZE
    ],
)
@pytest.mark.parametrize("machine", MACHINES)
def test_arguments_are_judged(machine: str, name: str, arguments: tuple[int, ...], expected: int) -> None:
    call = next(call for call in JUDGED if call.name == name)

    assert verdict(default_program((), machine), machine, number_of(call, machine), arguments) == expected


def test_machine_without_a_table_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"seccomp: there is no default profile for 'riscv64'.*use 'none'"):
        default_program((), "riscv64")
