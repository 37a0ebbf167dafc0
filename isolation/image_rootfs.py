"""A root file system of layers: what to mount, or a copy where overlayfs cannot be used.

Source: Documentation/filesystems/overlayfs.rst. Whoever makes the container's mounts carries a plan out:
`chdir(plan.store)`, then `mount("overlay", where, "overlay", 0, plan.overlay_options(upper, work))`, `upper` a
directory that was given `plan.root_attributes()`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.image_error import Cancelled, from_os_error
from mesos_actor.isolation.image_tree import NotADirectory, Parts, Tree, entries_of, is_whiteout, set_xattr
from mesos_actor.isolation.image_unpack import IMPLIED_MODE, OPAQUE_XATTRS, Unpacked

MAX_OPTIONS_BYTES = 4_095
"""Of one mount: a page, less its end."""
MAX_LOWER = 500
"""Layers in one overlay (fs/overlayfs/super.c: OVL_MAX_STACK)."""
EMPTY = "empty"
"""An empty directory of the store."""
_FICLONE = 0x40049409
_CHUNK_BYTES = 16 << 20
_TRUSTED, _USER = OPAQUE_XATTRS


class StoredLayer(msgspec.Struct, frozen=True):
    """A layer in its store: the short name of its files there, and what they do not tell."""

    name: str
    unpacked: Unpacked


class RootfsPlan(msgspec.Struct, frozen=True):
    """The layers of an image in their store, lowest first."""

    store: str
    layers: tuple[StoredLayer, ...]

    def why_copy(self, user_xattr: bool = False) -> str:
        """Why an overlay would not show the image as it is, so that only a copy will do; empty: it would.

        `user_xattr`: the overlay is mounted in a user namespace, where only the signs of ordinary users are read.
        """
        if not self.layers:
            return "the image has no layers"
        if len(self.layers) > MAX_LOWER:
            return f"the image has {len(self.layers)} layers, overlayfs takes {MAX_LOWER}"
        sign = _USER if user_xattr else _TRUSTED
        for number, layer in enumerate(self.layers):
            if layer.unpacked.opaque and sign not in layer.unpacked.opaque_xattrs:
                return f"the store's file system did not keep {sign}"
            for path in layer.unpacked.implied:
                if number and path and self._would_change(number, path):
                    return f"a layer uses the directory {path!r} of another without naming it"
        return ""

    def _would_change(self, number: int, path: str) -> bool:
        """Whether the directory that layer `number` implies would hide the attributes that it has further down."""
        for layer in reversed(self.layers[:number]):
            parts = tuple(path.split("/"))
            with Tree(f"{self.store}/{layer.name}/.") as tree:
                try:
                    found = tree.found(parts)
                except NotADirectory:
                    return False
            if found is not None:
                same = (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (IMPLIED_MODE, *_ours())
                return stat.S_ISDIR(found.st_mode) and not same
            if any("/".join(parts[:depth]) in layer.unpacked.opaque for depth in range(len(parts))):
                return False
        return False

    def root_attributes(self) -> tuple[int, int, int]:
        """Mode, user and group of the root directory: an overlay shows those of its upper directory."""
        for layer in reversed(self.layers):
            if "" not in layer.unpacked.implied:
                found = Path(f"{self.store}/{layer.name}/.").stat()
                return stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid
        return IMPLIED_MODE, *_ours()

    def overlay_options(self, upper: str, work: str, user_xattr: bool = False) -> str:
        """The options of the mount, for a caller whose working directory is `store`. `upper` and `work` empty: a
        read-only overlay. Raises InvalidInput when they cannot be written down."""
        lower = [layer.name for layer in reversed(self.layers)]
        for field, path in (("upper", upper), ("work", work)):
            if any(character in path for character in ",:\\\n") or (path and not path.startswith("/")):
                raise InvalidInput(f"{field}: {path!r} must be absolute, without ',', ':' and '\\', to be mounted")
        if not upper and len(lower) == 1:
            lower.append(EMPTY)  # an overlay has at least two
        options = f"lowerdir={':'.join(lower)}"
        if upper:
            options += f",upperdir={upper},workdir={work}"
        if user_xattr:
            options += ",userxattr"
        if len(os.fsencode(options)) > MAX_OPTIONS_BYTES:
            raise InvalidInput(f"upper: {len(self.layers)} layers and {upper!r} pass {MAX_OPTIONS_BYTES} bytes")
        return options


def found_in(plan: RootfsPlan, path: str) -> tuple[str, os.stat_result] | None:
    """The topmost layer's directory that has something at `path`, and what that is; None: the image has nothing there,
    or only by way of a link."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    for layer in reversed(plan.layers):
        directory = f"{plan.store}/{layer.name}/."
        with Tree(directory) as tree:
            try:
                found = tree.found(parts)
            except NotADirectory:
                return None
        if found is not None:
            return None if is_whiteout(found) else (directory, found)
        if any("/".join(parts[:depth]) in layer.unpacked.opaque for depth in range(len(parts))):
            return None
    return None


def text_of(plan: RootfsPlan, path: str, max_bytes: int) -> str:
    """A regular file of the image, its first `max_bytes`; empty when there is none, or it is a link."""
    found = found_in(plan, path)
    if found is None or not stat.S_ISREG(found[1].st_mode):
        return ""
    parts = tuple(part for part in path.split("/") if part)
    with Tree(found[0]) as tree:
        descriptor = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=tree.directory(parts[:-1]))
        with os.fdopen(descriptor, "rb") as file:
            return file.read(max_bytes).decode(errors="replace")


def _ours() -> tuple[int, int]:
    return (0, 0) if os.geteuid() == 0 else (os.geteuid(), os.getegid())


def copy_rootfs(plan: RootfsPlan, target: str, cancelled: threading.Event | None = None) -> None:
    """Make the new directory `target` the image's root file system, by copies (shared ones where the file system can).

    Raises ImageError and leaves nothing behind.
    """
    try:
        Path(target).mkdir(mode=0o700)
    except OSError as error:
        raise from_os_error(f"root file system {target}", error) from None
    try:
        attributes: dict[Parts, tuple[os.stat_result | None, dict[str, bytes]]] = {(): (None, {})}
        with Tree(target) as tree:
            for layer in plan.layers:
                with Tree(f"{plan.store}/{layer.name}/.") as source:
                    _Copy(source, tree, layer.unpacked, attributes, cancelled or threading.Event()).run()
            for parts in sorted(attributes, key=len, reverse=True):
                _set_directory(tree.directory(parts), *attributes[parts])
    except OSError as error:
        _discard(target)
        raise from_os_error(f"root file system {target}", error) from None
    except BaseException:
        _discard(target)
        raise


def _discard(target: str) -> None:
    with contextlib.suppress(OSError):
        with Tree(target) as tree:
            tree.clear(())
        Path(target).rmdir()


def _set_directory(descriptor: int, found: os.stat_result | None, xattrs: dict[str, bytes]) -> None:
    if found is None:
        os.fchmod(descriptor, IMPLIED_MODE)
        os.utime(descriptor, (0, 0))
        return
    _set(descriptor, found, xattrs)


def _set(descriptor: int, found: os.stat_result, xattrs: dict[str, bytes]) -> None:
    os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    for name, value in xattrs.items():
        set_xattr(descriptor, name, value)
    os.utime(descriptor, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _xattrs(descriptor: int) -> dict[str, bytes]:
    try:
        names = os.listxattr(descriptor)
    except OSError:
        return {}  # the file system has none
    return {name: os.getxattr(descriptor, name) for name in names if name not in OPAQUE_XATTRS}


class _Copy:
    """One layer laid over what is there."""

    def __init__(
        self,
        source: Tree,
        target: Tree,
        unpacked: Unpacked,
        attributes: dict[Parts, tuple[os.stat_result | None, dict[str, bytes]]],
        cancelled: threading.Event,
    ) -> None:
        self._source = source
        self._target = target
        self._implied = set(unpacked.implied)
        self._opaque = set(unpacked.opaque)
        self._attributes = attributes
        self._cancelled = cancelled
        #: Files with several names in this layer: where the first of them was copied to.
        self._names: dict[tuple[int, int], Parts] = {}

    def run(self) -> None:
        waiting: list[Parts] = [()]
        while waiting:
            at = waiting.pop()
            self._directory(at)
            for name, is_directory in sorted(entries_of(self._source.directory(at))):
                if self._cancelled.is_set():
                    raise Cancelled("root file system: cancelled")
                if is_directory:
                    waiting.append((*at, name))
                else:
                    self._entry((*at, name))

    def _gone(self, parts: Parts) -> None:
        self._attributes.pop(parts, None)

    def _directory(self, parts: Parts) -> None:
        found = self._target.found(parts)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            self._target.remove(parts)
            found = None
        if found is not None and "/".join(parts) in self._opaque:
            self._target.clear(parts, self._gone)
        if found is None:
            os.mkdir(parts[-1], 0o700, dir_fd=self._target.directory(parts[:-1]))
        if "/".join(parts) not in self._implied:
            descriptor = self._source.directory(parts)
            self._attributes[parts] = os.fstat(descriptor), _xattrs(descriptor)
        elif found is None:
            self._attributes[parts] = None, {}

    def _entry(self, parts: Parts) -> None:
        here = self._source.directory(parts[:-1])
        name = parts[-1]
        found = os.stat(name, dir_fd=here, follow_symlinks=False)
        if self._target.found(parts) is not None:
            self._target.remove(parts, self._gone)
        if is_whiteout(found):
            return
        there = self._target.directory(parts[:-1])
        key = (found.st_dev, found.st_ino)
        times = (found.st_mtime_ns, found.st_mtime_ns)
        if found.st_nlink > 1 and key in self._names:
            self._link(self._names[key], parts)
            return
        if stat.S_ISREG(found.st_mode):
            self._file(name, here, there)
        elif stat.S_ISLNK(found.st_mode):
            os.symlink(os.readlink(name, dir_fd=here), name, dir_fd=there)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
            os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)
        else:
            os.mknod(name, found.st_mode, found.st_rdev, dir_fd=there)
            os.chown(name, found.st_uid, found.st_gid, dir_fd=there, follow_symlinks=False)
            os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=there)
            os.utime(name, ns=times, dir_fd=there, follow_symlinks=False)
        if found.st_nlink > 1:
            self._names[key] = parts

    def _link(self, first: Parts, parts: Parts) -> None:
        there = os.dup(self._target.directory(first[:-1]))
        try:
            here = self._target.directory(parts[:-1])
            os.link(first[-1], parts[-1], src_dir_fd=there, dst_dir_fd=here, follow_symlinks=False)
        finally:
            os.close(there)

    def _file(self, name: str, here: int, there: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as opened:
            source = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            opened.callback(os.close, source)
            target = os.open(name, flags, 0o600, dir_fd=there)
            opened.callback(os.close, target)
            self._content(source, target)
            _set(target, os.fstat(source), _xattrs(source))

    def _content(self, source: int, target: int) -> None:
        """Share the blocks, else let the kernel copy them, else do it."""
        try:
            fcntl.ioctl(target, _FICLONE, source)
            return
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
        kernel = True
        while True:
            if self._cancelled.is_set():
                raise Cancelled("root file system: cancelled")
            if kernel:
                try:
                    if not os.copy_file_range(source, target, _CHUNK_BYTES):
                        return
                    continue
                except OSError as error:
                    if error.errno not in (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                        raise
                    kernel = False
            data = os.read(source, 1 << 20)
            if not data:
                return
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]
