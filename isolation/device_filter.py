"""Which devices a cgroup may use: an eBPF program, built here in bytes, attached to the cgroup's directory.

cgroup v2 has no files for devices; the kernel asks a program of type CGROUP_DEVICE about every mknod and open, with the
kind of device, its numbers and what is wanted, and 0 forbids. A program of ours allows what one of its rules covers,
and nothing else. It is built by hand because it is loads, compares and jumps only: a library to do so would be larger
than all of this. Loading one needs CAP_BPF or root; an ordinary user's containers are kept from devices by the files'
permissions and by their user namespace, in which no device can be made.

Mesos: src/linux/cgroups2.cpp (devices), src/slave/containerizer/mesos/isolators/cgroups/subsystems/devices.cpp.
Kernel document: Documentation/admin-guide/cgroup-v2.rst, "Device controller"; struct
bpf_cgroup_dev_ctx in include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation import linux_calls
from mesos_actor.isolation.cgroup import CgroupError

ANY: Final = -1
"""As a major or minor number: all of them."""

MAX_RULES: Final = 512
"""Far below the 4,096 instructions that every kernel takes."""
MAX_MAJOR: Final = (1 << 12) - 1
MAX_MINOR: Final = (1 << 20) - 1

MKNOD: Final = 1
READ: Final = 2
WRITE: Final = 4
_ACCESS: Final = {"m": MKNOD, "r": READ, "w": WRITE}
_KIND: Final = {"b": 1, "c": 2}


class DeviceRule(msgspec.Struct, frozen=True):
    """`access` to devices of this kind and numbers is allowed: of the letters r, w and m (mknod)."""

    kind: str
    major: int
    minor: int
    access: str


DEFAULT_RULES: Final = (
    DeviceRule("c", ANY, ANY, "m"),
    DeviceRule("b", ANY, ANY, "m"),
    DeviceRule("c", 5, 1, "rwm"),  # /dev/console
    DeviceRule("c", 4, 0, "rwm"),  # /dev/tty0
    DeviceRule("c", 4, 1, "rwm"),  # /dev/tty1
    DeviceRule("c", 136, ANY, "rwm"),  # /dev/pts/*
    DeviceRule("c", 5, 2, "rwm"),  # /dev/ptmx
    DeviceRule("c", 10, 200, "rwm"),  # /dev/net/tun
    DeviceRule("c", 1, 3, "rwm"),  # /dev/null
    DeviceRule("c", 1, 5, "rwm"),  # /dev/zero
    DeviceRule("c", 1, 7, "rwm"),  # /dev/full
    DeviceRule("c", 5, 0, "rwm"),  # /dev/tty
    DeviceRule("c", 1, 9, "rwm"),  # /dev/urandom
    DeviceRule("c", 1, 8, "rwm"),  # /dev/random
)
"""Mesos' whitelist (devices.cpp, DEFAULT_WHITELIST_ENTRIES): any node may be made, these may be used."""


def program_of(rules: Iterable[DeviceRule]) -> bytes:
    """The program that allows what these rules allow. Rules of the same device count as one, so that `r` and `w` make
    `rw`; that an access is covered by several rules of different width is not looked for.

    Raises InvalidInput naming the rule that makes no sense.
    """
    merged = _merged(rules)
    program = [
        _load(2, 0),
        _move(3, 2),
        _shift_right(3, 16),  # what is wanted
        _and(2, 0xFFFF),  # the kind of device
        _load(4, 4),  # major
        _load(5, 8),  # minor
    ]
    for (kind, major, minor), access in merged.items():
        allow = [_set(0, 1), _exit()]
        tests = [] if minor == ANY else [(5, minor)]
        tests += [] if major == ANY else [(4, major)]
        block = allow
        for register, number in tests:
            block = [_skip_unless_equal(register, number, len(block)), *block]
        if access != MKNOD | READ | WRITE:
            block = [_move(1, 3), _and(1, ~access & 7), _skip_unless_equal(1, 0, len(block)), *block]
        program += [_skip_unless_equal(2, kind, len(block)), *block]
    program += [_set(0, 0), _exit()]
    return b"".join(program)


def _merged(rules: Iterable[DeviceRule]) -> dict[tuple[int, int, int], int]:
    merged: dict[tuple[int, int, int], int] = {}
    for number, rule in enumerate(rules):
        if number >= MAX_RULES:
            raise InvalidInput(f"devices: more than {MAX_RULES} rules: join some by {ANY} (any) as minor number")
        if rule.kind not in _KIND:
            raise InvalidInput(f"devices[{number}].kind: {rule.kind!r} is no kind of device: use 'c' or 'b'")
        if not ANY <= rule.major <= MAX_MAJOR or not ANY <= rule.minor <= MAX_MINOR:
            text = f"devices[{number}]: {rule.major}:{rule.minor} is no device number: at most {MAX_MAJOR}:{MAX_MINOR}"
            raise InvalidInput(f"{text}, {ANY} for any")
        if not rule.access or set(rule.access) - set(_ACCESS):
            raise InvalidInput(f"devices[{number}].access: {rule.access!r} is none: use letters of 'rwm'")
        key = (_KIND[rule.kind], rule.major, rule.minor)
        for letter in rule.access:
            merged[key] = merged.get(key, 0) | _ACCESS[letter]
    return merged


# -- instructions: 8-bit code, 4-bit source and destination register, 16-bit offset, 32-bit constant ------


def _instruction(code: int, to: int = 0, source: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | to, offset, constant)


def _load(register: int, offset: int) -> bytes:
    return _instruction(0x61, register, 1, offset)  # 32 bits of the context, which r1 points to


def _move(to: int, source: int) -> bytes:
    return _instruction(0xBC, to, source)


def _set(to: int, constant: int) -> bytes:
    return _instruction(0xB4, to, constant=constant)


def _and(to: int, constant: int) -> bytes:
    return _instruction(0x54, to, constant=constant)


def _shift_right(to: int, bits: int) -> bytes:
    return _instruction(0x74, to, constant=bits)


def _skip_unless_equal(register: int, constant: int, count: int) -> bytes:
    return _instruction(0x55, register, offset=count, constant=constant)


def _exit() -> bytes:
    return _instruction(0x95)


# -- the kernel ------------------------------------------------------------

_PROG_LOAD, _PROG_ATTACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 13, 16
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE = 15, 6
_ALLOW_MULTI, _REPLACE = 1 << 1, 1 << 2
_LOG_BYTES = 4_096
_MAX_ATTACHED = 64
"""The kernel's own bound, BPF_CGROUP_MAX_PROGS."""


def attach(directory: str, rules: Sequence[DeviceRule]) -> None:
    """Let the processes of this cgroup, and of those below it, use only these devices from now on; what they have open
    stays open. Replaces what was attached by an earlier call.

    Raises InvalidInput for rules that make no sense, CgroupError when the kernel refuses, with the reason.
    """
    program = _loaded(program_of(rules))
    cgroup = -1
    try:
        cgroup = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        old = _attached(cgroup)
        if len(old) > 1:
            raise CgroupError(
                f"{directory}: somebody else attached a device filter too: remove it, or use another tree"
            )
        replaced = _bpf(_PROG_GET_FD_BY_ID, struct.pack("<III", old[0], 0, 0)) if old else 0
        flags = _ALLOW_MULTI | (_REPLACE if old else 0)
        _bpf(_PROG_ATTACH, struct.pack("<IIIII", cgroup, program, _ATTACH_CGROUP_DEVICE, flags, replaced))
        if replaced:
            os.close(replaced)
    except OSError as error:
        raise CgroupError(f"{directory}: cannot attach a device filter: {_explained(error)}") from None
    finally:
        os.close(program)
        if cgroup >= 0:
            os.close(cgroup)


def _loaded(program: bytes) -> int:
    """A descriptor of the program, judged by the kernel's verifier."""
    instructions = ctypes.create_string_buffer(program, len(program))
    license_name = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(_LOG_BYTES)
    attributes = struct.pack(
        "<IIQQIIQ",
        _TYPE_CGROUP_DEVICE,
        len(program) // 8,
        ctypes.addressof(instructions),
        ctypes.addressof(license_name),
        0,
        0,
        0,
    )
    try:
        return _bpf(_PROG_LOAD, attributes)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            raise CgroupError(f"cannot load a device filter: {_explained(error)}") from None
        told = struct.pack("<IIQ", 1, _LOG_BYTES, ctypes.addressof(log))
        with contextlib.suppress(OSError):  # again, for the verifier's words
            os.close(_bpf(_PROG_LOAD, attributes[:24] + told))
        words = log.value.decode(errors="replace").strip().splitlines()[-1:]
        raise CgroupError(f"cannot load a device filter: {_explained(error)} {' '.join(words)}".rstrip()) from None


def _attached(cgroup: int) -> tuple[int, ...]:
    """Ids of the device programs attached to this cgroup itself."""
    ids = (ctypes.c_uint32 * _MAX_ATTACHED)()
    attributes = struct.pack("<IIIIQII", cgroup, _ATTACH_CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids), 0)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    linux_calls.syscall(linux_calls.SYS_BPF, _PROG_QUERY, ctypes.byref(buffer), len(attributes))
    count = struct.unpack_from("<I", buffer.raw, 24)[0]
    return tuple(ids[:count])


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return linux_calls.syscall(linux_calls.SYS_BPF, command, ctypes.byref(buffer), len(attributes))


def _explained(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return "not permitted: it takes root or CAP_BPF; run the agent as root, or leave devices unfiltered"
    if error.errno == errno.ENOSYS:
        return "this kernel has no bpf: it needs CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF"
    return error.strerror or str(error)
