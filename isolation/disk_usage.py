"""How much disk a sandbox takes, found by looking at all of it, a slice at a time.

As `du`: blocks, not sizes; a file with several names once; links never followed; other file systems never entered. What
is open but has no name any more is not seen: only project quotas (disk_quota.py) count that.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import msgspec

ENTRIES_A_SLICE = 10_000
"""Some 20 ms of looking."""
MAX_ENTRIES = 5_000_000
"""In one sandbox; past that it cannot be measured in a useful time."""
MAX_DEPTH = 100
"""Directories below each other; two descriptors each while they are looked at."""
MAX_LINKED = 200_000
"""Files with several names remembered; past that each of their names counts."""
BLOCK_BYTES = 512
"""The unit of st_blocks, whatever the file system's own."""
AGENTS_OWN = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What goes wrong for want of something that the agent has too little of."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class DiskUsage(msgspec.Struct, frozen=True):
    """What a walk found."""

    used_bytes: int
    entries: int
    incomplete: str = ""
    """Why it takes more than `used_bytes`, and nobody can say how much; empty: it is exact."""
    biggest: str = ""
    """The directory whose own files take the most, relative to the walk's; empty: that one itself, or no file at
    all."""
    biggest_bytes: int = 0


class _Directory:
    """One that we are inside of."""

    __slots__ = ("descriptor", "entries", "file_bytes", "name")

    def __init__(self, name: str, descriptor: int, entries: Iterator[os.DirEntry[str]]) -> None:
        self.name = name
        self.descriptor = descriptor
        #: What is left to look at.
        self.entries = entries
        #: What its own files take, those of directories in it apart.
        self.file_bytes = 0


class DiskWalk:
    """One look at the directory `path`. `enough_bytes`: stop as soon as it takes more than that. Call `step` on a
    thread until it returns something, or `close`."""

    def __init__(self, path: str, enough_bytes: int | None = None, max_entries: int = MAX_ENTRIES) -> None:
        """Raises OSError when the directory cannot be opened."""
        self._enough_bytes = enough_bytes
        self._max_entries = max_entries
        self._used_bytes = 0
        self._entries = 0
        self._linked: set[tuple[int, int]] = set()
        #: From the top to where we are.
        self._open: list[_Directory] = []
        self._biggest = ""
        self._biggest_bytes = 0
        descriptor = os.open(path, _DIRECTORY)
        found = os.fstat(descriptor)
        self._device = found.st_dev
        self._used_bytes = found.st_blocks * BLOCK_BYTES
        self._enter("", descriptor)

    def close(self) -> None:
        while self._open:
            self._leave()

    def step(self, entries: int = ENTRIES_A_SLICE) -> DiskUsage | None:
        """Look at so many entries more. None: there is more to look at. Raises OSError, one of AGENTS_OWN; `close` it
        then."""
        for _ in range(entries):
            if not self._open:
                return self._found()
            if self._enough_bytes is not None and self._used_bytes > self._enough_bytes:
                return self._found("it was not looked at to its end")
            if self._entries >= self._max_entries:
                return self._found(f"it has more than {self._max_entries} files and directories")
            problem = self._look()
            if problem:
                return self._found(problem)
        return None if self._open else self._found()

    def _found(self, incomplete: str = "") -> DiskUsage:
        self.close()
        return DiskUsage(self._used_bytes, self._entries, incomplete, self._biggest, self._biggest_bytes)

    def _enter(self, name: str, descriptor: int) -> None:
        try:
            self._open.append(_Directory(name, descriptor, os.scandir(descriptor)))
        except BaseException:
            os.close(descriptor)
            raise

    def _leave(self) -> None:
        if self._open[-1].file_bytes > self._biggest_bytes:
            self._biggest_bytes = self._open[-1].file_bytes
            self._biggest = "/".join(directory.name for directory in self._open[1:])
        left = self._open.pop()
        close = getattr(left.entries, "close", None)
        if close is not None:
            close()
        os.close(left.descriptor)

    def _look(self) -> str:
        """At the next entry. Returns why it cannot go on."""
        here = self._open[-1]
        try:
            entry = next(here.entries, None)
            if entry is None:
                self._leave()
                return ""
            found = entry.stat(follow_symlinks=False)
        except OSError as error:
            return _trouble(error)
        self._entries += 1
        if found.st_dev != self._device:
            return ""
        if stat.S_ISDIR(found.st_mode):
            self._used_bytes += found.st_blocks * BLOCK_BYTES
            if len(self._open) >= MAX_DEPTH:
                return f"it is more than {MAX_DEPTH} directories deep"
            return self._descend(entry.name, here.descriptor)
        elif found.st_nlink < 2 or self._is_first(found):
            self._used_bytes += found.st_blocks * BLOCK_BYTES
            here.file_bytes += found.st_blocks * BLOCK_BYTES
        return ""

    def _descend(self, name: str, here: int) -> str:
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=here)
            if os.fstat(descriptor).st_dev != self._device:  # something was mounted there just now
                os.close(descriptor)
            else:
                self._enter(name, descriptor)
        except OSError as error:
            return _trouble(error)
        return ""

    def _is_first(self, found: os.stat_result) -> bool:
        key = (found.st_dev, found.st_ino)
        if key in self._linked:
            return False
        if len(self._linked) < MAX_LINKED:
            self._linked.add(key)
        return True


def _trouble(error: OSError) -> str:
    """Why the rest cannot be measured. Raises what is not the sandbox's doing."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
        return ""  # the task removed or replaced it meanwhile
    if error.errno in AGENTS_OWN:
        raise error
    return f"something in it cannot be read: {error.strerror}"


def measured(path: str, enough_bytes: int | None = None) -> DiskUsage:
    """All of it at once. Raises OSError."""
    walk = DiskWalk(path, enough_bytes)
    try:
        while (found := walk.step()) is None:
            pass
        return found
    finally:
        walk.close()
