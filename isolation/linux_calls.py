"""System calls that Python's standard library has no name for, called through the C library.

Every function raises OSError with the kernel's errno and nothing else. Standard library only, for the launcher's child
imports this. Numbers are those of x86-64 and of the generic table (arm64); from 424 on all machines have the same.

Kernel documents: mount_setattr(2), open_tree, move_mount and fsopen in Documentation/filesystems/mount_api.rst,
openat2(2), capabilities(7), seccomp(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
from typing import Any

_X86 = platform.machine() == "x86_64"

SYS_PIVOT_ROOT = 155 if _X86 else 41
SYS_CAPSET = 126 if _X86 else 91
SYS_BPF = 321 if _X86 else 280
_SYS_SECCOMP = 317 if _X86 else 277
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_FSOPEN, _SYS_FSCONFIG, _SYS_FSMOUNT = 428, 429, 430, 431, 432
_SYS_OPENAT2, _SYS_MOUNT_SETATTR = 437, 442

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MS_SLAVE = 1 << 19
MS_PRIVATE = 1 << 18
_MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECBIT_NOROOT_LOCKED = 0b11

_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = os.O_CLOEXEC
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG, _FSCONFIG_SET_STRING, _FSCONFIG_CMD_CREATE = 0, 1, 6
_MOVE_MOUNT_F_EMPTY_PATH, _MOVE_MOUNT_T_EMPTY_PATH = 0x04, 0x40
_CAPABILITY_VERSION_3 = 0x20080522
_SECCOMP_SET_MODE_FILTER = 1

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def syscall(number: int, *arguments: object) -> int:
    """One system call: whole numbers as longs, everything else as ctypes passes it. Its result."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_argument, arguments)))
    if result < 0:
        raise _error()
    return result


def _argument(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _checked(result: int) -> int:
    if result < 0:
        raise _error()
    return result


# -- namespaces ---------------------------------------------------------------


def unshare(flags: int) -> None:
    """Leave the namespaces of these kinds for new ones; a new pid namespace is for children only."""
    _checked(_libc.unshare(ctypes.c_int(flags)))


def setns(descriptor: int, kind: int) -> None:
    """Join the namespace that this descriptor stands for."""
    _checked(_libc.setns(ctypes.c_int(descriptor), ctypes.c_int(kind)))


def prctl(option: int, second: int, third: int = 0) -> int:
    """prctl with up to two arguments."""
    return _checked(_libc.prctl(ctypes.c_int(option), *map(_argument, (second, third, 0, 0))))


def set_name(name: str) -> None:
    """What `ps` calls this process, at most 15 bytes of it."""
    _checked(_libc.prctl(ctypes.c_int(PR_SET_NAME), ctypes.c_char_p(name.encode()), *map(_argument, (0, 0, 0))))


# -- files and mounts ---------------------------------------------------------------


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _MountAttributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def open_at(directory: int, path: str, flags: int, resolve: int) -> int:
    """openat2: a descriptor of `path`, resolved from `directory` as the RESOLVE_ flags say."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    return syscall(_SYS_OPENAT2, directory, os.fsencode(path), ctypes.byref(how), ctypes.sizeof(how))


def clone_mount(descriptor: int) -> int:
    """What is seen at this descriptor, with all that is mounted below, as a mount of its own that is nowhere yet."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    return syscall(_SYS_OPEN_TREE, descriptor, b"", flags)


def attach_mount(mount: int, target: int) -> None:
    """Mount what `clone_mount` or `new_mount` gave on the file or directory that `target` is open at."""
    flags = _MOVE_MOUNT_F_EMPTY_PATH | _MOVE_MOUNT_T_EMPTY_PATH
    syscall(_SYS_MOVE_MOUNT, mount, b"", target, b"", flags)


def new_mount(kind: str, options: dict[str, str], attributes: int) -> int:
    """A fresh file system of this kind, mounted nowhere yet; a descriptor of its top."""
    context = syscall(_SYS_FSOPEN, kind.encode(), _FSOPEN_CLOEXEC)
    try:
        for name, value in options.items():
            if value:
                syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_STRING, name.encode(), value.encode(), 0)
            else:
                syscall(_SYS_FSCONFIG, context, _FSCONFIG_SET_FLAG, name.encode(), None, 0)
        syscall(_SYS_FSCONFIG, context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return syscall(_SYS_FSMOUNT, context, _FSMOUNT_CLOEXEC, attributes)
    finally:
        os.close(context)


def change_mount(mount: int, attributes: int, *, recursive: bool) -> None:
    """Add MOUNT_ATTR_ flags to a mount, and to all below it; what happens below stays there (private)."""
    wanted = _MountAttributes(attr_set=attributes, propagation=MS_PRIVATE)
    flags = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    syscall(_SYS_MOUNT_SETATTR, mount, b"", flags, ctypes.byref(wanted), ctypes.sizeof(wanted))


def set_propagation(propagation: int) -> None:
    """MS_PRIVATE or MS_SLAVE for every mount of this namespace."""
    wanted = _MountAttributes(propagation=propagation)
    syscall(_SYS_MOUNT_SETATTR, _AT_FDCWD, b"/", _AT_RECURSIVE, ctypes.byref(wanted), ctypes.sizeof(wanted))


def pivot_root(root: int) -> None:
    """Make the mount that `root` is the top of the root of this namespace and drop the old one."""
    os.fchdir(root)
    syscall(SYS_PIVOT_ROOT, b".", b".")
    _checked(_libc.umount2(b".", ctypes.c_int(_MNT_DETACH)))
    os.chdir("/")


# -- privileges ---------------------------------------------------------------


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _FilterProgram(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def set_capabilities(effective: int, permitted: int, inheritable: int) -> None:
    """capset of this thread; each a set of bits."""
    words = [mask >> shift & 0xFFFFFFFF for shift in (0, 32) for mask in (effective, permitted, inheritable)]
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    syscall(SYS_CAPSET, ctypes.byref(header), (ctypes.c_uint32 * 6)(*words))


def set_seccomp_filter(program: bytes) -> None:
    """Judge every further system call of this thread, and of its children, by this BPF program."""
    wanted = _FilterProgram(len(program) // 8, program)
    syscall(_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, 0, ctypes.byref(wanted))
