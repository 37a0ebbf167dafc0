"""Starting a program inside a cgroup at the cost of posix_spawn: clone3 with CLONE_VFORK and CLONE_INTO_CGROUP.

A fork of the launcher copies its page tables and then most of what its child touches: 2 to 3 ms of CPU a launch, five
times what posix_spawn takes, which is a vfork inside. C libraries older than glibc 2.39 cannot put a posix_spawn into a
cgroup, and Python cannot run between vfork and exec: it would write over its parent's memory. So what the child does
there is a list of system calls, made ready beforehand and carried out by the few instructions of `_CODE`. The first one
that fails ends the child, and the parent, which sleeps until then, sees which it was.

The child is born in its cgroup, so no process is moved and nobody waits for the lock that moving takes. Its command has
the exit, the signals and the files that posix_spawn would have given it.

Only for children that keep our user: one with another user's rights must not share our memory, even for a moment. On
x86-64 only; `start` returns None wherever this cannot be had, and the caller forks instead.

Kernel documents: clone(2), "CLONE_INTO_CGROUP", "CLONE_CLEAR_SIGHAND"; vfork(2). Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import mmap
import os
import platform
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence

_CODE = bytes.fromhex(
    "53"  # push rbx
    "55"  # push rbp
    "4889d3"  # mov rbx, rdx              the calls
    "4889cd"  # mov rbp, rcx              the failure
    "b8b3010000"  # mov eax, 435          clone3(rdi, rsi)
    "0f05"  # syscall
    "4885c0"  # test rax, rax
    "7535"  # jnz parent
    # child:                              never touches the stack, which is its parent's
    "488b03"  # mov rax, [rbx]
    "488b7b08"  # mov rdi, [rbx+8]
    "488b7310"  # mov rsi, [rbx+16]
    "488b5318"  # mov rdx, [rbx+24]
    "4c8b5320"  # mov r10, [rbx+32]
    "0f05"  # syscall
    "483d01f0ffff"  # cmp rax, -4095
    "7306"  # jae failed
    "4883c328"  # add rbx, 40
    "ebdd"  # jmp child
    # failed:
    "48894500"  # mov [rbp], rax          minus errno
    "bf7f000000"  # mov edi, 127
    "b83c000000"  # mov eax, 60           exit
    "0f05"  # syscall
    "0f0b"  # ud2
    # parent:
    "5d"  # pop rbp
    "5b"  # pop rbx
    "c3"  # ret
)
"""`long code(clone_args *, size_t, call calls[], long *failure)`; a call is its number and four arguments."""

_CLOSE, _DUP2, _EXECVE, _SETSID = 3, 33, 59, 112
_RT_SIGACTION, _RT_SIGPROCMASK, _OPENAT, _PRLIMIT64 = 13, 14, 257, 302
_AT_FDCWD = -100
_SIGSET_BYTES = 8
_WORD_BYTES = 8
_ZEROS = (ctypes.c_long * 4)()
_ZEROS_AT = ctypes.addressof(_ZEROS)

_CLONE_VM = 0x100
_CLONE_VFORK = 0x4000
_CLONE_CLEAR_SIGHAND = 0x1_0000_0000
_CLONE_INTO_CGROUP = 0x2_0000_0000
_FLAGS = _CLONE_VM | _CLONE_VFORK | _CLONE_CLEAR_SIGHAND | _CLONE_INTO_CGROUP
"""The first word of clone_args; the others: pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid,
set_tid_size, cgroup."""

_UNKNOWN = (errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.E2BIG, errno.EBADF)
"""What a kernel before 5.7, a filter around us, or a directory that is no cgroup answers to clone3."""

Entry = Callable[..., int]


class CgroupRefused(OSError):
    """The child could not be born in that cgroup."""


def start(
    file: str,
    argv: Sequence[str],
    env: Mapping[str, str],
    cgroup: str,
    files: Sequence[tuple[str, int]],
    limits: Mapping[int, tuple[int, int]],
    reset: Iterable[int],
) -> int | None:
    """Execute `file` in a session of its own, born in the cgroup whose directory is named, and return its pid.

    `files` are opened as descriptors 0, 1 and 2, each a path and its flags; `reset` are signals whose action is the
    default one whatever ours is; none is blocked. Returns None where this host cannot do it.

    Raises CgroupRefused, OSError of whatever else failed, ValueError for a null byte.
    """
    entry = _entry()
    if entry is None:
        return None
    strings = _Strings(argv, env, file, [path for path, _ in files])
    words = list(_first_words(tuple(reset)))
    for number, (path, (_, flags)) in enumerate(zip(strings.paths, files, strict=True)):
        # The lowest free number is the one just closed: ours are all open.
        words += (_CLOSE, number, 0, 0, 0, _OPENAT, _AT_FDCWD, path, flags, 0o644)
    pairs = _array([value for pair in limits.values() for value in pair])
    for number, limited in enumerate(limits):
        words += (_PRLIMIT64, 0, limited, ctypes.addressof(pairs) + number * 2 * _WORD_BYTES, 0)
    words += (_EXECVE, strings.file, strings.argv, strings.env, 0)
    try:
        descriptor = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise CgroupRefused(error.errno, error.strerror) from None
    try:
        return _run(entry, words, descriptor)
    finally:
        os.close(descriptor)


def _run(entry: Entry, words: Sequence[int], cgroup: int) -> int | None:
    table, failure = _array(words), _array((0,))
    arguments = _array((_FLAGS, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup))
    pid = entry(arguments, ctypes.sizeof(arguments), table, failure)
    if pid < 0:
        if -pid in _UNKNOWN:
            return None
        raise CgroupRefused(-pid, os.strerror(-pid))
    failed = -failure[0]
    if failed:
        os.waitpid(pid, 0)
        raise OSError(failed, os.strerror(failed))
    return pid


@functools.cache
def _first_words(reset: tuple[int, ...]) -> tuple[int, ...]:
    """What is the same for every launch. Handled signals are reset by the clone, before the child's first instruction;
    ignored ones would stay ignored. A sigaction of zeros is SIG_DFL. The session comes first: what is sent to our own
    process group must not reach a child that does not ignore it any more."""
    words = [_SETSID, 0, 0, 0, 0]
    for number in reset:
        words += (_RT_SIGACTION, number, _ZEROS_AT, 0, _SIGSET_BYTES)
    return (*words, _RT_SIGPROCMASK, signal.SIG_SETMASK, _ZEROS_AT, 0, _SIGSET_BYTES)


def _array(words: Sequence[int]) -> ctypes.Array[ctypes.c_long]:
    return (ctypes.c_long * len(words))(*words)


class _Strings:
    """The texts of one launch and where they are, for as long as this object lives. Raises ValueError."""

    def __init__(self, argv: Sequence[str], env: Mapping[str, str], file: str, paths: Sequence[str]) -> None:
        texts = [file, *paths, *argv, *(f"{name}={value}" for name, value in env.items())]
        encoded = [os.fsencode(text) for text in texts]
        if any(b"\0" in data for data in encoded):
            raise ValueError("embedded null byte")
        first = 1 + len(paths)
        last = first + len(argv)
        pointers = [*encoded[:last], None, *encoded[last:], None]
        self._pointers = (ctypes.c_char_p * len(pointers))(*pointers)
        start = ctypes.addressof(self._pointers)
        self.file, *self.paths = (ctypes.c_long * first).from_address(start)
        self.argv = start + first * _WORD_BYTES
        self.env = start + (last + 1) * _WORD_BYTES


@functools.cache
def _entry() -> Entry | None:
    """The instructions, in memory that can be executed; None where there is no such thing."""
    if platform.machine() != "x86_64" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    try:
        memory = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except OSError:
        return None
    memory.write(_CODE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if protect(address, mmap.PAGESIZE, mmap.PROT_READ | mmap.PROT_EXEC):
        return None  # SELinux's execmem, for one
    prototype = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_void_p)
    entry: Entry = prototype(address)
    _KEPT.append(memory)
    return entry


_KEPT: list[mmap.mmap] = []
"""What `_entry` points into."""
