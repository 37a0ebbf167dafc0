"""The default system call filter, as the bytes of a classic BPF program. Pure.

It denies what containers have escaped by and what Docker's profile allows to no ordinary container: calls that load
code into the kernel, mount, enter namespaces, set the clock, or reach memory and files by other ways than paths. What a
capability opens in Docker's profile is open here to a container that has that capability. Everything else is allowed,
except for calls newer than this table and those of another machine's convention (32-bit programs, x32), which get
ENOSYS, so that programs fall back to what they did before.

Built here and not by libseccomp: the program is some 150 instructions, needs no library on any host, is the same bytes
everywhere, and the numbers are checked against libseccomp by a test where that is installed.

Sources: moby, profiles/seccomp/default_linux.go; kernel document: Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from typing import Final, NamedTuple

from mesos_actor.actors.errors import InvalidInput

AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW: Final = 0x7FFF0000
EPERM: Final = 0x00050000 | 1
ENOSYS: Final = 0x00050000 | 38

LAST_KNOWN: Final = 462
"""mseal, of Linux 6.10."""
_X32_BIT: Final = 0x40000000
_NEW_NAMESPACES: Final = 0x7E020000
"""All CLONE_NEW flags but that of time namespaces, which clone cannot take."""
_PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
_AF_VSOCK: Final = 40
_TERMINAL_INJECTION: Final = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX: typing into the terminal that one was started from."""


class Call(NamedTuple):
    """A denied system call; -1: that machine has none. With one of the capabilities `unless`, it is allowed."""

    name: str
    x86_64: int
    aarch64: int
    unless: tuple[str, ...] = ()


_ADMIN = ("SYS_ADMIN",)
DENIED: Final = (
    Call("_sysctl", 156, -1),
    Call("acct", 163, 89, ("SYS_PACCT",)),
    Call("add_key", 248, 217),
    Call("bpf", 321, 280, ("SYS_ADMIN", "BPF")),
    Call("chroot", 161, 51, ("SYS_CHROOT",)),
    Call("clock_adjtime", 305, 266, ("SYS_TIME",)),
    Call("clock_settime", 227, 112, ("SYS_TIME",)),
    Call("create_module", 174, -1),
    Call("delete_module", 176, 106, ("SYS_MODULE",)),
    Call("fanotify_init", 300, 262, _ADMIN),
    Call("finit_module", 313, 273, ("SYS_MODULE",)),
    Call("fsconfig", 431, 431, _ADMIN),
    Call("fsmount", 432, 432, _ADMIN),
    Call("fsopen", 430, 430, _ADMIN),
    Call("fspick", 433, 433, _ADMIN),
    Call("get_kernel_syms", 177, -1),
    Call("init_module", 175, 105, ("SYS_MODULE",)),
    Call("io_uring_enter", 426, 426),
    Call("io_uring_register", 427, 427),
    Call("io_uring_setup", 425, 425),
    Call("ioperm", 173, -1, ("SYS_RAWIO",)),
    Call("iopl", 172, -1, ("SYS_RAWIO",)),
    Call("kexec_file_load", 320, 294, ("SYS_BOOT",)),
    Call("kexec_load", 246, 104, ("SYS_BOOT",)),
    Call("keyctl", 250, 219),
    Call("lookup_dcookie", 212, 18, _ADMIN),
    Call("mbind", 237, 235, ("SYS_NICE",)),
    Call("migrate_pages", 256, 238, ("SYS_NICE",)),
    Call("mount", 165, 40, _ADMIN),
    Call("mount_setattr", 442, 442, _ADMIN),
    Call("move_mount", 429, 429, _ADMIN),
    Call("move_pages", 279, 239, ("SYS_NICE",)),
    Call("nfsservctl", 180, 42),
    Call("open_by_handle_at", 304, 265, ("DAC_READ_SEARCH",)),
    Call("open_tree", 428, 428, _ADMIN),
    Call("perf_event_open", 298, 241, ("SYS_ADMIN", "PERFMON")),
    Call("pivot_root", 155, 41),
    Call("query_module", 178, -1),
    Call("quotactl", 179, 60, _ADMIN),
    Call("quotactl_fd", 443, 443, _ADMIN),
    Call("reboot", 169, 142, ("SYS_BOOT",)),
    Call("request_key", 249, 218),
    Call("set_mempolicy", 238, 237, ("SYS_NICE",)),
    Call("set_mempolicy_home_node", 450, 450, ("SYS_NICE",)),
    Call("setns", 308, 268, _ADMIN),
    Call("settimeofday", 164, 170, ("SYS_TIME",)),
    Call("swapoff", 168, 225, _ADMIN),
    Call("swapon", 167, 224, _ADMIN),
    Call("sysfs", 139, -1),
    Call("syslog", 103, 116, ("SYS_ADMIN", "SYSLOG")),
    Call("umount2", 166, 39, _ADMIN),
    Call("unshare", 272, 97, _ADMIN),
    Call("uselib", 134, -1),
    Call("userfaultfd", 323, 282, ("SYS_PTRACE",)),
    Call("ustat", 136, -1),
    Call("vhangup", 153, 58, ("SYS_TTY_CONFIG",)),
)
JUDGED: Final = (
    Call("clone", 56, 220, _ADMIN),
    Call("clone3", 435, 435, _ADMIN),
    Call("ioctl", 16, 29),
    Call("personality", 135, 92),
    Call("socket", 41, 198),
)
"""These depend on their arguments; clone3 hides them behind a pointer, and gets ENOSYS, upon which everybody takes
clone."""

_LOAD, _RETURN = 0x20, 0x06
_IF_EQUAL, _IF_GREATER, _IF_AT_LEAST, _IF_SET = 0x15, 0x25, 0x35, 0x45
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16

_Block = list[tuple[int, int, int, int]]


def default_program(capabilities: Collection[str], machine: str) -> bytes:
    """The filter for a container that has these capabilities (names without `CAP_`), on this kind of machine.

    Raises InvalidInput for a machine that there is no table for.
    """
    if machine not in AUDIT_ARCH:
        known = " and ".join(sorted(AUDIT_ARCH))
        raise InvalidInput(f"seccomp: there is no default profile for {machine!r}, only for {known}: use 'none'")
    program: _Block = [
        (_LOAD, 0, 0, _ARCH),
        (_IF_EQUAL, 1, 0, AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, ENOSYS),
        (_LOAD, 0, 0, _NUMBER),
    ]
    program += [(_IF_AT_LEAST, 0, 1, _X32_BIT), (_RETURN, 0, 0, ENOSYS)]
    program += [(_IF_GREATER, 0, 1, LAST_KNOWN), (_RETURN, 0, 0, ENOSYS)]
    held = frozenset(capabilities)
    for call in (*DENIED, *JUDGED):
        number = call.x86_64 if machine == "x86_64" else call.aarch64
        if number < 0 or held & set(call.unless):
            continue
        block = _judgement(call.name)
        program += [(_IF_EQUAL, 0, len(block), number), *block]
    program.append((_RETURN, 0, 0, ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _judgement(name: str) -> _Block:
    """What is done once the call is known to be `name`. Arguments of interest have 32 bits, little end first."""
    deny, allow = (_RETURN, 0, 0, EPERM), (_RETURN, 0, 0, ALLOW)
    if name == "clone3":
        return [(_RETURN, 0, 0, ENOSYS)]
    if name == "clone":
        return [(_LOAD, 0, 0, _ARGUMENTS), (_IF_SET, 0, 1, _NEW_NAMESPACES), deny, allow]
    if name == "socket":
        return [(_LOAD, 0, 0, _ARGUMENTS), (_IF_EQUAL, 0, 1, _AF_VSOCK), deny, allow]
    if name == "ioctl":
        one, other = _TERMINAL_INJECTION
        return [(_LOAD, 0, 0, _ARGUMENTS + 8), (_IF_EQUAL, 1, 0, one), (_IF_EQUAL, 0, 1, other), deny, allow]
    if name == "personality":
        tests = [(_IF_EQUAL, len(_PERSONALITIES) - i, 0, value) for i, value in enumerate(_PERSONALITIES)]
        return [(_LOAD, 0, 0, _ARGUMENTS), *tests, deny, allow]
    return [deny]
