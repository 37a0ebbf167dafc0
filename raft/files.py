"""A flat directory of files: all the storage that a replica knows.

The promises are few, so that they can be kept: what was appended is safe after `sync`, a replaced file is the old or
the new one whole, and after the first failed write nothing more is taken. The kernel forgets what it could not write
and reports success next time ("fsyncgate"), so nothing is ever tried again; the process ends, and begins from what is
safe.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from mesos_actor.actors.errors import StorageError
from mesos_actor.actors.store import lock_directory
from mesos_actor.raft.file_names import LOCK_NAME, TEMPORARY, checked_name, explained, is_name
from mesos_actor.raft.memory_files import REPLACE_STEPS, Died, MemoryFiles

__all__ = ["REPLACE_STEPS", "Died", "DirectoryFiles", "Files", "MemoryFiles"]

MAX_OPEN_FILES = 4
"""Of files that are appended to, descriptors kept; a log has one that grows and one that has just been finished."""


class Files(Protocol):
    """A flat directory; names are `[a-z0-9.-]+`. Everything but `names` and `close` raises StorageError when the disk
    refuses, and from then on everything that changes something raises it again."""

    def names(self) -> list[str]:
        """Of all files, sorted."""
        ...

    def read(self, name: str) -> bytes:
        """The whole file. Raises StorageError when there is none too."""
        ...

    def append(self, name: str, data: bytes) -> None:
        """Add to the file's end, making it when missing: seen by `read` at once, safe only after `sync`."""

    def sync(self) -> None:
        """Everything appended so far is safe when this returns. It blocks."""

    def replace(self, name: str, data: bytes) -> None:
        """Make this the whole file, atomically; safe when this returns."""

    def truncate(self, name: str, size_bytes: int) -> None:
        """Cut off a torn tail found on recovery; safe when this returns."""

    def remove(self, name: str) -> None:
        """No error when it is missing. A crash soon after may bring it back, the one removed last first."""

    def close(self) -> None:
        """Give it back. What was not synced is not safe."""


class DirectoryFiles:
    """A real directory, made when missing and held by a lock file. What is found in it is safe: a process that was
    killed leaves data behind which only the page cache knew, so opening syncs it.

    Raises StorageError naming the process that holds it, or when it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: name -> descriptor, the one used last at the end
        self._open: dict[str, int] = {}
        #: name -> its size when it was last safe, of files appended to since
        self._dirty: dict[str, int] = {}
        self._created = False
        self._failed = ""
        self._lock = self._directory = -1
        try:
            _make_directory(path)
            self._lock = lock_directory(path / LOCK_NAME)
            self._directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            os.fchmod(self._directory, 0o700)
            self._take_over()
        except OSError as error:
            self.close()
            raise StorageError(explained(str(path), "cannot be opened", error)) from error
        except BaseException:
            self.close()
            raise

    def _take_over(self) -> None:
        for name in os.listdir(self._directory):  # noqa: PTH208 (by descriptor)
            if name.endswith(TEMPORARY) and is_name(name.removesuffix(TEMPORARY)):
                os.unlink(name, dir_fd=self._directory)
        for name in self.names():
            descriptor = self._opened(name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        os.fsync(self._directory)

    # -- reading ------------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        with os.scandir(self._directory) as found:
            return sorted(entry.name for entry in found if is_name(entry.name) and entry.is_file(follow_symlinks=False))

    def read(self, name: str) -> bytes:
        checked_name(name)
        try:
            descriptor = self._opened(name, os.O_RDONLY)
            with os.fdopen(descriptor, "rb", buffering=0) as file:
                return file.readall()
        except OSError as error:
            raise StorageError(explained(str(self.path / name), "cannot be read", error)) from error

    # -- writing ------------------------------------------------------------------------------------------------------

    def append(self, name: str, data: bytes) -> None:
        checked_name(name)
        self._attempt(name, lambda: self._append(name, data))

    def sync(self) -> None:
        self._attempt("", self._sync)

    def replace(self, name: str, data: bytes) -> None:
        checked_name(name)
        self._attempt(name, lambda: self._replace(name, data))

    def truncate(self, name: str, size_bytes: int) -> None:
        checked_name(name)
        self._attempt(name, lambda: self._truncate(name, size_bytes))

    def remove(self, name: str) -> None:
        checked_name(name)
        self._attempt(name, lambda: self._remove(name))

    def close(self) -> None:
        for descriptor in (*self._open.values(), self._directory, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._open.clear()
        self._lock = self._directory = -1
        self._failed = self._failed or f"{self.path}: is closed"

    def _attempt(self, name: str, change: Callable[[], None]) -> None:
        """The one way to the disk: once it has refused, nothing of what we believe about it may be built upon."""
        if self._failed:
            raise StorageError(self._failed)
        try:
            change()
        except OSError as error:
            self._failed = explained(str(self.path / name), "cannot be written", error)
            self._forget_unsafe()
            raise StorageError(self._failed) from error

    def _forget_unsafe(self) -> None:
        """Cut off what is not safe, as well as can be: after a failed fsync the page cache holds data as clean that the
        disk has never seen, and the next process would read it and build upon it."""
        for name, size_bytes in self._dirty.items():
            try:
                os.ftruncate(self._open[name], size_bytes)
            except OSError:
                continue

    def _append(self, name: str, data: bytes) -> None:
        descriptor = self._descriptor(name)
        if name not in self._dirty:
            self._dirty[name] = os.fstat(descriptor).st_size
        _write_all(descriptor, data)

    def _descriptor(self, name: str) -> int:
        """For appending; the file is made when missing."""
        descriptor = self._open.pop(name, None)
        if descriptor is None:
            try:
                descriptor = self._opened(name, os.O_WRONLY | os.O_APPEND)
            except FileNotFoundError:
                descriptor = self._opened(name, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
                self._created = True
        self._open[name] = descriptor
        return descriptor

    def _sync(self) -> None:
        for name in self._dirty:
            os.fdatasync(self._open[name])
        if self._created:
            os.fsync(self._directory)
        self._dirty.clear()
        self._created = False
        for name in list(self._open)[:-MAX_OPEN_FILES]:
            os.close(self._open.pop(name))

    def _replace(self, name: str, data: bytes) -> None:
        temporary = name + TEMPORARY
        descriptor = self._opened(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            try:
                _write_all(descriptor, data)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self._unlink(temporary)  # it may hold the space that others need
            raise
        self._release(name)
        os.rename(temporary, name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        os.fsync(self._directory)

    def _truncate(self, name: str, size_bytes: int) -> None:
        descriptor = self._opened(name, os.O_WRONLY)
        try:
            os.ftruncate(descriptor, size_bytes)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._dirty.pop(name, None)

    def _remove(self, name: str) -> None:
        self._release(name)
        self._unlink(name)

    def _unlink(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self._directory)
        except FileNotFoundError:
            return

    def _release(self, name: str) -> None:
        self._dirty.pop(name, None)
        descriptor = self._open.pop(name, None)
        if descriptor is not None:
            os.close(descriptor)

    def _opened(self, name: str, flags: int) -> int:
        return os.open(name, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600, dir_fd=self._directory)


def _make_directory(path: Path) -> None:
    """Make it and its parents, safely: a directory that is gone after a power cut takes its files with it."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    for directory in missing:
        descriptor = os.open(directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    """Write all of it; the kernel may take less at a time (always, past 2 GiB)."""
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if written == 0:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]
