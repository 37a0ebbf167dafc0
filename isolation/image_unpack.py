"""A layer's archive becomes a directory that overlayfs can use as a lower one.

What a layer says to the layers below it is not about its own files, wherever it stands in the archive (OCI image-spec
layer.md, "Whiteouts"): so whiteouts are collected and applied in the end. `.wh.x` becomes a character device 0:0 named
`x`, or makes the layer's own directory `x` opaque; `.wh..wh..opq` makes its directory opaque. AUFS' other `.wh..wh.`
names are skipped, as Docker does.

A directory that the layer uses without an entry for it is *implied*: its attributes are those of the layers below.
"""

from __future__ import annotations

import enum
import os
import stat
import threading

import msgspec

from mesos_actor.isolation.image_error import FULL_ERRNOS, Cancelled, ImageError
from mesos_actor.isolation.image_tar import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
    TarReader,
)
from mesos_actor.isolation.image_tree import NotADirectory, Parts, Tree, make_whiteout, set_xattr

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
_AUFS = ".wh..wh."
OPAQUE_XATTRS = ("trusted.overlay.opaque", "user.overlay.opaque")
"""What marks an opaque directory for overlayfs: the first as root, the second with the mount option `userxattr`."""

IMPLIED_MODE = 0o755
DISK_BLOCK_BYTES = 4_096
_CHUNK_BYTES = 1 << 20
_CAPABILITY = "security.capability"


class Devices(enum.Enum):
    """What becomes of device nodes in a layer. A container gets its /dev from its agent, never from an image."""

    REFUSE = "refuse"
    SKIP = "skip"
    """Leave them out, and count them."""
    MAKE = "make"
    """Only root can."""


class UnpackLimits(msgspec.Struct, frozen=True):
    """How much one layer may be. Past one of these it is refused."""

    max_bytes: int = 16 << 30
    """Unpacked (fetch.py has the same for a sandbox)."""
    max_entries: int = 1_000_000
    max_depth: int = 100
    """Directories below each other."""
    max_ratio: int = 200
    """Unpacked to packed, once it is more than `ratio_floor_bytes`. Real layers reach about 20; gzip can 1,032."""
    ratio_floor_bytes: int = 64 << 20


class Unpacked(msgspec.Struct, frozen=True):
    """What a layer's directory alone does not tell."""

    size_bytes: int
    """On disk, each entry rounded up to a block."""
    entries: int
    opaque: tuple[str, ...] = ()
    """Directories that hide what the layers below have in them; `` is the root."""
    implied: tuple[str, ...] = ()
    """Directories whose attributes are those of the layers below, if they have them."""
    opaque_xattrs: tuple[str, ...] = OPAQUE_XATTRS
    """Which of the signs for opaque directories the file system took."""
    skipped: dict[str, int] = {}
    """What was left out, and how often."""


class _Attributes(msgspec.Struct, frozen=True, gc=False):
    mode: int
    uid: int
    gid: int
    mtime_s: int
    xattrs: tuple[tuple[str, bytes], ...] = ()


class LayerUnpacker:
    """Unpacks one archive into the empty directory `path`. As root, owners are kept; else all is our own, and its owner
    keeps the right to read and to delete it."""

    def __init__(
        self,
        path: str,
        what: str,
        limits: UnpackLimits | None = None,
        devices: Devices = Devices.REFUSE,
        cancelled: threading.Event | None = None,
    ) -> None:
        self._path = path
        self._what = what
        self._limits = limits or UnpackLimits()
        self._devices = devices
        self._cancelled = cancelled or threading.Event()
        self._is_root = os.geteuid() == 0
        self._directories: dict[Parts, _Attributes] = {}
        self._implied: set[Parts] = {()}
        self._hidden: set[Parts] = set()
        self._opaque: set[Parts] = set()
        self._skipped: dict[str, int] = {}
        self._entries = 0
        self._content_bytes = 0
        self._disk_bytes = 0

    def run(self, archive: TarReader) -> Unpacked:
        """Unpack all of it. Raises ImageError; what is in the directory then is worth nothing."""
        with Tree(self._path) as self._tree:
            for entry in archive:
                self._check(entry)
                try:
                    self._apply(entry, archive)
                except NotADirectory as error:
                    kind = "a link" if error.is_link else "no directory"
                    raise self._error(entry, f"{str(error)!r} on its way is {kind}") from None
                except OSError as error:
                    full = error.errno in FULL_ERRNOS
                    raise self._error(entry, error.strerror or str(error), full) from None
            try:
                signs = self._mark()
                self._set_directories()
            except OSError as error:
                full = error.errno in FULL_ERRNOS
                raise ImageError(f"{self._what}: {error.strerror or error}", full) from None
        return Unpacked(
            self._disk_bytes,
            self._entries,
            tuple(sorted("/".join(parts) for parts in self._opaque)),
            tuple(sorted("/".join(parts) for parts in self._implied)),
            signs,
            self._skipped,
        )

    def _error(self, entry: Entry, text: str, full: bool = False) -> ImageError:
        return ImageError(f"{self._what}: entry {entry.name[:200]!r}: {text}", full)

    def _check(self, entry: Entry) -> None:
        if self._cancelled.is_set():
            raise Cancelled(f"{self._what}: cancelled")
        self._entries += 1
        if self._entries > self._limits.max_entries:
            raise ImageError(f"{self._what}: more than {self._limits.max_entries} entries, the bound for one layer")
        self._content_bytes += entry.size_bytes
        if self._content_bytes > self._limits.max_bytes:
            raise self._error(entry, f"with it, more than {self._limits.max_bytes} bytes, the bound for one layer")
        self._disk_bytes += DISK_BLOCK_BYTES + entry.size_bytes + -entry.size_bytes % DISK_BLOCK_BYTES

    # -- one entry --------------------------------------------------------------------------------------------------

    def _apply(self, entry: Entry, archive: TarReader) -> None:
        parts = self._parts(entry, entry.name)
        name = parts[-1] if parts else ""
        if any(part.startswith(WHITEOUT) for part in parts[:-1]):
            raise self._error(entry, "it is below a whiteout, which is no directory")
        if name == OPAQUE:
            self._opaque.add(parts[:-1])
        elif name.startswith(_AUFS):
            self._skip("AUFS metadata")
        elif name.startswith(WHITEOUT):
            hidden = name.removeprefix(WHITEOUT)
            if hidden in ("", ".", ".."):
                raise self._error(entry, "it is a whiteout of no file")
            self._hidden.add((*parts[:-1], hidden))
        elif entry.kind == DIRECTORY:
            self._make_directory(parts, entry)
        elif not parts:
            raise self._error(entry, "the root must be a directory")
        else:
            self._make(parts, entry, archive)

    def _parts(self, entry: Entry, path: str) -> Parts:
        """The parts of a path in the image. Raises ImageError for one that could lead elsewhere."""
        if path.startswith("/"):
            raise self._error(entry, f"{path[:200]!r} is absolute; paths in an image are relative to its root")
        parts = tuple(part for part in path.split("/") if part not in ("", "."))
        if ".." in parts:
            raise self._error(entry, f"{path[:200]!r} has a '..'")
        if not path:
            raise self._error(entry, "it has no name")
        if len(parts) > self._limits.max_depth:
            raise self._error(entry, f"it is more than {self._limits.max_depth} directories deep")
        return parts

    def _attributes(self, entry: Entry) -> _Attributes:
        return _Attributes(entry.mode, entry.uid, entry.gid, entry.mtime_s, entry.xattrs)

    def _make_directory(self, parts: Parts, entry: Entry) -> None:
        self._implied.discard(parts)
        if parts:
            folder = self._tree.directory(parts[:-1], self._implied.add)
            found = self._tree.found(parts)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                os.unlink(parts[-1], dir_fd=folder)
                found = None
            if found is None:
                os.mkdir(parts[-1], 0o700, dir_fd=folder)
        self._directories[parts] = self._attributes(entry)

    def _make(self, parts: Parts, entry: Entry, archive: TarReader) -> None:
        """Anything but a directory; what an earlier entry put there goes."""
        if entry.kind in (CHARACTER, BLOCK) and not self._may_make_device(entry):
            return
        original = self._original(parts, entry) if entry.kind == HARD_LINK else ()
        self._tree.directory(parts[:-1], self._implied.add)
        if self._tree.found(parts) is not None:
            self._tree.remove(parts, self._forget_directory)
        folder = self._tree.directory(parts[:-1])
        name = parts[-1]
        if entry.kind == FILE:
            self._write(folder, name, entry, archive)
            return
        if entry.kind == HARD_LINK:
            self._link(original, parts, entry)
            return
        if entry.kind == SYMLINK:
            if not entry.link:
                raise self._error(entry, "it is a link to nothing")
            os.symlink(entry.link, name, dir_fd=folder)
        elif entry.kind == FIFO:
            os.mkfifo(name, 0o600, dir_fd=folder)
        else:
            kind = stat.S_IFCHR if entry.kind == CHARACTER else stat.S_IFBLK
            os.mknod(name, kind | 0o600, os.makedev(*entry.device), dir_fd=folder)
        if self._is_root:
            os.chown(name, entry.uid, entry.gid, dir_fd=folder, follow_symlinks=False)
        if entry.kind != SYMLINK:
            os.chmod(name, entry.mode, dir_fd=folder)  # not a link: we made it just now, and nobody else is here
        os.utime(name, (entry.mtime_s, entry.mtime_s), dir_fd=folder, follow_symlinks=False)

    def _may_make_device(self, entry: Entry) -> bool:
        if self._devices is Devices.SKIP:
            self._skip("device nodes")
            return False
        if self._devices is Devices.REFUSE:
            raise self._error(entry, "it is a device node; images must not bring their own")
        if not self._is_root:
            raise self._error(entry, "it is a device node, which only an agent run by root can make")
        if entry.device == (0, 0):
            raise self._error(entry, "the device 0:0 would hide what is below it")
        return True

    def _original(self, parts: Parts, entry: Entry) -> Parts:
        """What a hard link is another name of: something of this layer that is no directory."""
        to = self._parts(entry, entry.link.removeprefix("/") if entry.link != "/" else "")
        found = self._tree.found(to) if to else None
        if found is None:
            raise self._error(entry, f"it is a hard link to {entry.link[:200]!r}, which this layer does not hold")
        if stat.S_ISDIR(found.st_mode) or to == parts or to[: len(parts)] == parts:
            raise self._error(entry, f"it is a hard link to {entry.link[:200]!r}, which cannot be")
        return to

    def _link(self, original: Parts, parts: Parts, entry: Entry) -> None:
        there = os.dup(self._tree.directory(original[:-1]))
        try:
            here = self._tree.directory(parts[:-1])
            os.link(original[-1], parts[-1], src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)

    def _write(self, folder: int, name: str, entry: Entry, archive: TarReader) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=folder), "wb", buffering=0) as file:
            while data := archive.read(_CHUNK_BYTES):
                if self._cancelled.is_set():
                    raise Cancelled(f"{self._what}: cancelled")
                view = memoryview(data)
                while view:
                    view = view[file.write(view) :]
            self._set(file.fileno(), self._attributes(entry), 0o600)

    def _set(self, descriptor: int, attributes: _Attributes, kept: int) -> None:
        """Owner first: it takes set-user-id bits and capabilities away."""
        mode = attributes.mode
        if self._is_root:
            os.fchown(descriptor, attributes.uid, attributes.gid)
        else:
            mode |= kept
        os.fchmod(descriptor, mode)
        for name, value in attributes.xattrs:
            wanted = name.startswith("user.") and not name.startswith("user.overlay.")
            if name == _CAPABILITY and self._is_root:
                wanted = True
            if not wanted or not set_xattr(descriptor, name, value):
                self._skip(f"extended attribute {name[:60]}")
        os.utime(descriptor, (attributes.mtime_s, attributes.mtime_s))

    def _skip(self, what: str) -> None:
        if what in self._skipped or len(self._skipped) < 100:
            self._skipped[what] = self._skipped.get(what, 0) + 1

    def _forget_directory(self, parts: Parts) -> None:
        self._directories.pop(parts, None)
        self._implied.discard(parts)

    # -- the end ----------------------------------------------------------------------------------------------------

    def _mark(self) -> tuple[str, ...]:
        """Write down what this layer hides. Returns the signs that all opaque directories could be given."""
        opaque: set[Parts] = set()
        for parts in sorted(self._hidden):
            self._hide(parts, opaque)
        for parts in sorted(self._opaque):
            try:
                self._tree.directory(parts, self._implied.add)
            except NotADirectory:
                continue  # the layer has something else there, which hides all by itself
            opaque.add(parts)
        self._opaque = opaque
        signs = set(OPAQUE_XATTRS)
        for parts in opaque:
            folder = self._tree.directory(parts)
            signs &= {name for name in OPAQUE_XATTRS if set_xattr(folder, name, b"y")}
        return tuple(sorted(signs))

    def _hide(self, parts: Parts, opaque: set[Parts]) -> None:
        try:
            folder = self._tree.directory(parts[:-1], self._implied.add)
        except NotADirectory:
            return  # hidden already by what the layer has there
        found = self._tree.found(parts)
        if found is None:
            make_whiteout(parts[-1], folder)
        elif stat.S_ISDIR(found.st_mode):
            opaque.add(parts)
            if parts in self._implied:  # nothing is below it whose attributes it could have
                self._implied.discard(parts)
                self._directories[parts] = _Attributes(IMPLIED_MODE, 0, 0, 0)

    def _set_directories(self) -> None:
        """Deepest first: a directory may close itself to us, and writing into it would change its time."""
        for parts in self._implied:
            self._directories[parts] = _Attributes(IMPLIED_MODE, 0, 0, 0)
        for parts in sorted(self._directories, key=len, reverse=True):
            self._set(self._tree.directory(parts), self._directories[parts], 0o700)
