"""Files for a task: copied or unpacked into its sandbox before it starts.

An archive is somebody else's work: nothing of it is written through a link, above the sandbox or past the bounds. Links
inside archives are made last and must end inside; devices and pipes are refused. Runs in a thread of its own.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO, cast
from urllib.parse import unquote, urlsplit

from mesos_actor.actors.messages.values import Uri

MAX_BYTES = 16 << 30
"""What the URIs of one container may take in its sandbox, together."""

MAX_MEMBERS = 200_000
"""Files, directories and links in one archive."""

TAR_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ZIP_ENDINGS = (".zip",)
_CHUNK_BYTES = 1 << 20
_RESERVED_NAMES = ("stdout", "stderr")


class FetchError(Exception):
    """A URI cannot be had. The text names it, and why."""

    def __init__(self, text: str, full: bool = False) -> None:
        super().__init__(text)
        self.full = full
        """Whether the disk was full."""


class Reader:
    """Whose rights decide what may be read: a task's user must not get at files through an agent run by root."""

    def __init__(self, user_id: int, groups: Iterable[int]) -> None:
        self.user_id = user_id
        self.groups = frozenset(groups)

    def _may(self, found: os.stat_result, bit: int) -> bool:
        if found.st_uid == self.user_id:
            return bool(found.st_mode & (bit << 6))
        if found.st_gid in self.groups:
            return bool(found.st_mode & (bit << 3))
        return bool(found.st_mode & bit)

    def may_read(self, descriptor: int) -> bool:
        """Whether this user could have opened this open file by itself, by the permission bits. The file itself is
        judged, not a name that may mean another by now."""
        real = Path(f"/proc/self/fd/{descriptor}").readlink()
        try:
            return self._may(os.fstat(descriptor), 4) and all(self._may(parent.stat(), 1) for parent in real.parents)
        except OSError:
            return False  # it was moved away meanwhile


def source_of(uri: Uri) -> Path:
    """The file that `uri` names. Raises FetchError when it names none on this host."""
    text = uri.path
    if text.startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            raise FetchError(f"uri {text!r}: the host of a file:// URL must be empty or 'localhost'")
        text = unquote(parts.path)
    elif "://" in text:
        raise FetchError(f"uri {text!r}: only absolute paths and file:// URLs can be fetched")
    if not text.startswith("/") or "\0" in text:
        raise FetchError(f"uri {uri.path!r}: expected an absolute path or a file:// URL")
    return Path(text)


def _parts(name: str, what: str) -> list[str]:
    """The parts of a relative path that stays where it is. Raises FetchError."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise FetchError(f"{what}: {name!r} must be a relative path without '..'")
    return parts


def _check_name(parts: list[str]) -> None:
    if not parts or parts[0] in _RESERVED_NAMES:
        raise FetchError(f"{'/'.join(parts)!r} is not a name for a file of yours in a sandbox")


class _Target:
    """The sandbox as seen by one fetch: every write goes through here, by descriptors, never through a link."""

    def __init__(self, sandbox: str, cancelled: threading.Event) -> None:
        self._cancelled = cancelled
        self._root = os.open(sandbox, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        self._real = os.path.realpath(sandbox)
        self._left_bytes = MAX_BYTES
        self._links: list[tuple[list[str], str]] = []

    def close(self) -> None:
        os.close(self._root)

    def check(self) -> None:
        if self._cancelled.is_set():
            raise FetchError("cancelled")

    def directory(self, parts: list[str]) -> int:
        """A descriptor of the directory, made if need be; the caller closes it."""
        here = os.dup(self._root)
        for part in parts:
            try:
                with contextlib.suppress(FileExistsError):  # opened next, which refuses links
                    os.mkdir(part, 0o755, dir_fd=here)
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            finally:
                os.close(here)
            here = below
        return here

    def write(self, parts: list[str], source: IO[bytes], mode: int) -> None:
        """Put all of `source` in a new file, replacing what a former URI left there."""
        _check_name(parts)
        folder = self.directory(parts[:-1])
        try:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(parts[-1], dir_fd=folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(parts[-1], flags, 0o600, dir_fd=folder), "wb") as file:
                while chunk := source.read(_CHUNK_BYTES):
                    self.check()
                    self._left_bytes -= len(chunk)
                    if self._left_bytes < 0:
                        raise FetchError(f"more than {MAX_BYTES} bytes, the bound for one container")
                    file.write(chunk)
                os.fchmod(file.fileno(), mode & 0o755)
        finally:
            os.close(folder)

    def link_later(self, parts: list[str], to: str) -> None:
        _check_name(parts)
        self._links.append((parts, to))

    def make_links(self) -> None:
        """Make the links of an archive, then look where they lead. Raises FetchError for one that leads out."""
        for parts, to in self._links:
            folder = self.directory(parts[:-1])
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(parts[-1], dir_fd=folder)
                os.symlink(to, parts[-1], dir_fd=folder)
            finally:
                os.close(folder)
        for parts, to in self._links:
            path = os.path.join(self._real, *parts)  # noqa: PTH118 - realpath below must see it unchanged
            real = os.path.realpath(path)
            if real != self._real and not real.startswith(self._real + "/"):
                os.unlink(path)  # noqa: PTH108
                raise FetchError(f"the link {'/'.join(parts)!r} leads out of the sandbox, to {to!r}")
        self._links.clear()

    def give_to(self, user_id: int, group_id: int) -> None:
        """Make everything in the sandbox the task's user's own."""
        for _, folders, files, descriptor in os.fwalk(".", dir_fd=self._root, follow_symlinks=False):
            os.fchown(descriptor, user_id, group_id)
            for name in (*folders, *files):
                os.chown(name, user_id, group_id, dir_fd=descriptor, follow_symlinks=False)


def fetch(
    uris: Iterable[Uri], sandbox: str, cancelled: threading.Event, owner: tuple[int, int, Reader] | None = None
) -> None:
    """Put all of `uris` into the sandbox, in order. `owner`: user, group and rights of a task that is not run as us.

    Raises FetchError for the first that cannot be had.
    """
    target = _Target(sandbox, cancelled)
    try:
        for uri in uris:
            target.check()
            try:
                _fetch_one(uri, target, owner[2] if owner else None)
            except FetchError as error:
                text = str(error)
                raise FetchError(text if text.startswith("uri ") else f"uri {uri.path!r}: {text}") from None
            except OSError as error:
                full = error.errno in (28, 122)  # ENOSPC, EDQUOT
                raise FetchError(f"uri {uri.path!r}: {error.strerror or error}", full) from None
            except (tarfile.TarError, zipfile.BadZipFile, EOFError, lzma.LZMAError) as error:
                raise FetchError(f"uri {uri.path!r}: the archive is damaged or unsupported: {error}") from None
            except (KeyError, ValueError, RuntimeError) as error:
                raise FetchError(f"uri {uri.path!r}: the archive is damaged or unsupported: {error}") from None
        if owner is not None:
            target.give_to(owner[0], owner[1])
    finally:
        target.close()


def _fetch_one(uri: Uri, target: _Target, reader: Reader | None) -> None:
    path = source_of(uri)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        os.close(descriptor)
        raise FetchError("not a regular file")
    with os.fdopen(descriptor, "rb") as source:
        if reader is not None and not reader.may_read(source.fileno()):
            raise FetchError("the task's user may not read it")
        named = _parts(uri.output_file, "output_file")
        if not uri.extract:
            mode = stat.S_IMODE(found.st_mode) | 0o644 | (0o111 if uri.executable else 0)
            target.write(named or [path.name], source, mode)
        elif path.name.endswith(ZIP_ENDINGS):
            _unzip(source, target, named)
        elif path.name.endswith(TAR_ENDINGS):
            _untar(path.name, source, target, named)
        else:
            known = ", ".join(TAR_ENDINGS + ZIP_ENDINGS)
            raise FetchError(f"extract: the name must end in one of {known}")
    target.make_links()


def _plain(name: str, source: IO[bytes]) -> IO[bytes]:
    if name.endswith("gz"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=source))
    if name.endswith("bz2"):
        return bz2.BZ2File(source)
    return lzma.LZMAFile(source) if name.endswith("xz") else source


def _untar(name: str, source: IO[bytes], target: _Target, below: list[str]) -> None:
    with _plain(name, source) as plain, tarfile.open(fileobj=plain, mode="r:") as archive:
        for number, member in enumerate(archive):
            target.check()
            _check_count(number)
            parts = below + _parts(member.name, "member")
            if member.isdir():
                os.close(target.directory(parts))
            elif member.issym():
                target.link_later(parts, _inside(parts, member.linkname))
            elif member.isreg() or member.islnk():
                content = archive.extractfile(member)
                if content is None:
                    raise FetchError(f"member {member.name!r} links to nothing in the archive")
                target.write(parts, content, member.mode | 0o600)
            else:
                raise FetchError(f"member {member.name!r} is neither a file, a directory nor a link")


def _unzip(source: IO[bytes], target: _Target, below: list[str]) -> None:
    with zipfile.ZipFile(source) as archive:
        for number, member in enumerate(archive.infolist()):
            target.check()
            _check_count(number)
            parts = below + _parts(member.filename, "member")
            mode = member.external_attr >> 16
            if member.is_dir():
                os.close(target.directory(parts))
            elif stat.S_ISLNK(mode):
                if member.file_size > 4096:
                    raise FetchError(f"member {member.filename!r} is a link of {member.file_size} bytes")
                target.link_later(parts, _inside(parts, archive.read(member).decode()))
            else:
                with archive.open(member) as content:
                    target.write(parts, content, (mode or 0o644) | 0o600)


def _check_count(number: int) -> None:
    if number >= MAX_MEMBERS:
        raise FetchError(f"more than {MAX_MEMBERS} members, the bound for one archive")


def _inside(parts: list[str], to: str) -> str:
    """`to`, when a link with that target at `parts` may stay inside; where it really leads is looked at in the end."""
    lexical = os.path.normpath("/".join([*parts[:-1], to]))
    if to.startswith("/") or not to or "\0" in to or lexical == ".." or lexical.startswith("../"):
        raise FetchError(f"the link {'/'.join(parts)!r} leads out of the sandbox, to {to!r}")
    return to
