"""A directory that is filled with somebody else's files: every step by descriptors, no link ever followed.

A path is its parts, none of them empty, `.` or `..`. Whatever the archive says, nothing outside the root directory can
be reached: each directory on the way is opened by itself, below the one before it, and must be a directory.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator

Parts = tuple[str, ...]
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class NotADirectory(Exception):
    """Something on the way is there and is no directory. `parts` is its path, `is_link` whether it is a link."""

    def __init__(self, parts: Parts, is_link: bool) -> None:
        super().__init__("/".join(parts))
        self.parts = parts
        self.is_link = is_link


class Tree:
    """The directory `path`, opened once: it may be renamed meanwhile. Use as a context manager."""

    def __init__(self, path: str) -> None:
        self._root = os.open(path, _DIRECTORY)
        #: The directory used last, for entries come in the order of directories.
        self._last: tuple[Parts, int] | None = None

    def __enter__(self) -> Tree:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()
        os.close(self._root)

    @property
    def root(self) -> int:
        return self._root

    def forget(self) -> None:
        """Open the next directory anew."""
        if self._last is not None:
            os.close(self._last[1])
            self._last = None

    def directory(self, parts: Parts, made: Callable[[Parts], None] | None = None) -> int:
        """A descriptor of that directory, valid until the next call. `made`: make what is missing, and say so.

        Raises NotADirectory, or FileNotFoundError when something is missing and `made` is None.
        """
        if not parts:
            return self._root
        if self._last is not None and self._last[0] == parts:
            return self._last[1]
        here = os.dup(self._root)
        try:
            for number, part in enumerate(parts, 1):
                below = self._enter(here, parts[:number], part, made)
                os.close(here)
                here = below
        except BaseException:
            os.close(here)
            raise
        self.forget()
        self._last = (parts, here)
        return here

    @staticmethod
    def _enter(here: int, parts: Parts, part: str, made: Callable[[Parts], None] | None) -> int:
        try:
            return os.open(part, _DIRECTORY, dir_fd=here)
        except FileNotFoundError:
            if made is None:
                raise
            os.mkdir(part, 0o700, dir_fd=here)
            made(parts)
            return os.open(part, _DIRECTORY, dir_fd=here)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            found = os.stat(part, dir_fd=here, follow_symlinks=False)
            raise NotADirectory(parts, stat.S_ISLNK(found.st_mode)) from None

    def found(self, parts: Parts) -> os.stat_result | None:
        """What is at that path, a link itself; None: nothing. Raises NotADirectory."""
        try:
            if not parts:
                return os.fstat(self._root)
            return os.stat(parts[-1], dir_fd=self.directory(parts[:-1]), follow_symlinks=False)
        except FileNotFoundError:
            return None

    def remove(self, parts: Parts, removed: Callable[[Parts], None] | None = None) -> None:
        """Remove what is at that path, all of it; `removed` hears of every directory that goes."""
        folder = self.directory(parts[:-1])
        found = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(parts[-1], dir_fd=folder)
            return
        self.clear(parts, removed)
        os.rmdir(parts[-1], dir_fd=self.directory(parts[:-1]))
        if removed is not None:
            removed(parts)

    def clear(self, parts: Parts, removed: Callable[[Parts], None] | None = None) -> None:
        """Empty that directory. No recursion: a deep tree would end it."""
        self.forget()
        waiting = [parts]
        folders: list[Parts] = []
        while waiting:
            at = waiting.pop()
            folder = self.directory(at)
            for name, is_directory in list(entries_of(folder)):
                if is_directory:
                    waiting.append((*at, name))
                    folders.append((*at, name))
                else:
                    os.unlink(name, dir_fd=folder)
        for at in reversed(folders):  # each after all that is below it
            os.rmdir(at[-1], dir_fd=self.directory(at[:-1]))
            if removed is not None:
                removed(at)
        self.forget()


def entries_of(folder: int) -> Iterator[tuple[str, bool]]:
    """Name of each entry, and whether it is a directory itself."""
    with os.scandir(folder) as entries:
        for entry in entries:
            yield entry.name, entry.is_dir(follow_symlinks=False)


def is_whiteout(found: os.stat_result) -> bool:
    """Whether it is overlayfs' sign for "the layers below hold nothing here": a character device 0:0."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def make_whiteout(name: str, folder: int) -> None:
    """Anybody may make this one device (Linux 5.8; before, root)."""
    os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=folder)


def set_xattr(descriptor: int, name: str, value: bytes) -> bool:
    """Whether the file system took it."""
    with contextlib.suppress(OSError):
        os.setxattr(descriptor, name, value)
        return True
    return False
