"""A container's program that tries to get out, by what has worked against others. Run by test_confinement.py.

Its arguments are the pid of a process outside. Says as JSON what each attempt came to: the errno's name, or
what it got.
"""

# ruff: noqa: PTH103, PTH110, PTH116, PTH208, SIM115
from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)


def attempt(call: object) -> object:
    try:
        return call()  # type: ignore[operator]
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def raw(number: int, *arguments: object) -> object:
    ctypes.set_errno(0)
    result = libc.syscall(number, *arguments)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else "done"


def chroot_and_climb() -> str:
    """The classic: chroot below, keep a way out, climb until there is no above."""
    os.makedirs("/tmp/cell", exist_ok=True)
    out = os.open("/", os.O_RDONLY)
    os.chroot("/tmp/cell")
    os.fchdir(out)
    for _ in range(100):
        os.chdir("..")
    os.chroot(".")
    return "the host" if os.path.exists("/run/outside-marker") else "the container"


def opened(path: str, flags: int = os.O_RDONLY) -> str:
    os.close(os.open(path, flags))
    return "opened"


def made(path: str, mode: int, number: int) -> str:
    os.mknod(path, mode, number)
    return opened(path)


def main() -> None:
    outside = int(sys.argv[1])
    tries = {
        "mount": lambda: raw(165, b"none", b"/tmp", b"tmpfs", 0, 0),
        "fsopen": lambda: raw(430, b"tmpfs", 0),
        "unshare": lambda: raw(272, 0x10000000),
        "clone": lambda: raw(56, 0x10000000 | 17, 0, 0, 0, 0),
        "clone3": lambda: raw(435, 0, 0),
        "pivot_root": lambda: raw(155, b"/", b"/tmp"),
        "bpf": lambda: raw(321, 0, 0, 0),
        "keyctl": lambda: raw(250, 0, -3, 0),
        "init_module": lambda: raw(175, 0, 0, 0),
        "open_by_handle_at": lambda: raw(304, 3, 0, 0),
        "x32": lambda: raw(0x40000000 | 39),
        "unknown": lambda: raw(4_000),
        "ptrace outside": lambda: raw(101, 16, outside, 0, 0),
        "ptrace init": lambda: raw(101, 16, 1, 0, 0),
        "init's memory": lambda: opened("/proc/1/mem"),
        "outside's root": lambda: os.listdir(f"/proc/{outside}/root"),
        "init's root": lambda: os.stat("/proc/1/root/run/outside-marker").st_ino,
        "hostname": lambda: socket.sethostname("host-was-renamed"),
        "vsock": lambda: socket.socket(40, socket.SOCK_STREAM),
        "terminal": lambda: fcntl.ioctl(0, 0x5412, b"x"),
        "kernel's memory in /dev": lambda: made("/dev/mem", 0o20600, os.makedev(1, 1)),
        "kernel's memory": lambda: made("/tmp/mem", 0o20600, os.makedev(1, 1)),
        "a disk made in /dev": lambda: made("/dev/ram", 0o60600, os.makedev(1, 0)),
        "the whole of proc's sys": lambda: opened("/proc/sys/kernel/core_pattern", os.O_WRONLY),
        "kcore": lambda: len(open("/proc/kcore", "rb").read(16)),
        "the root": lambda: opened("/new-file", os.O_CREAT | os.O_WRONLY),
        "a read-only volume": lambda: opened("/usr/new-file", os.O_CREAT | os.O_WRONLY),
        "chroot": chroot_and_climb,
    }
    found = {name: attempt(call) for name, call in tries.items()}
    with open("/proc/self/status") as status:
        lines = {name: value.strip() for name, _, value in (line.partition(":") for line in status)}
    found["capabilities"] = lines["CapEff"], lines["CapBnd"]
    print(json.dumps(found))


main()
