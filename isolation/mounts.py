"""What a container sees of files: its root, its volumes, its /proc, /sys, /dev and /tmp.

All paths inside are resolved by openat2 with the container's root as root, and every mount goes onto a descriptor, so
that no symlink in an image or a volume, planted before or at this moment, leads out. Mounts are made by the calls of
Linux 5.12 (open_tree, move_mount, fsopen, mount_setattr): no path is looked up twice.

Without a root image the host's own files stay, and volumes go where there is something to cover: nothing is created
in the host's directories.

Standard library only. Raises SpawnError. Kernel document: Documentation/filesystems/mount_api.rst.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from mesos_actor.isolation import linux_calls
from mesos_actor.isolation.linux_calls import (
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
)
from mesos_actor.isolation.spawn import SpawnError

_NO_SUID_DEV = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_DATA = _NO_SUID_DEV | MOUNT_ATTR_NOEXEC
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ANYTHING = os.O_PATH | os.O_CLOEXEC
_INSIDE = linux_calls.RESOLVE_IN_ROOT | linux_calls.RESOLVE_NO_MAGICLINKS

NODES = (("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0))
"""The devices every container has, with their numbers (Documentation/admin-guide/devices.txt)."""

LINKS = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
)


class Inside:
    """The container's root while it is being furnished. `may_create`: it is an image, so mount points are made."""

    def __init__(self, root: int, *, may_create: bool) -> None:
        self.root = root
        self.may_create = may_create

    def open(self, path: str) -> int:
        """What `path` leads to, resolved inside. Raises OSError."""
        return linux_calls.open_at(self.root, path, _ANYTHING, _INSIDE)

    def target(self, path: str, source: int | None = None) -> int:
        """Where a mount goes: what is at `path`, made when there is nothing: a file when `source` is open at one, else
        a directory. Raises SpawnError, OSError."""
        is_file = source is not None and not stat.S_ISDIR(os.fstat(source).st_mode)
        try:
            found = self.open(path)
        except FileNotFoundError:
            found = self._made(path, is_file=is_file)
        if stat.S_ISDIR(os.fstat(found).st_mode) == is_file:
            os.close(found)
            kinds = ("a file", "a directory") if is_file else ("a directory", "a file")
            raise SpawnError("spawn", f"cannot mount {kinds[0]} on {path}, which is {kinds[1]} in the container")
        return found

    def _made(self, path: str, *, is_file: bool) -> int:
        if not self.may_create:
            text = f"{path} does not exist on this host; make it, name another one, or give the container an image"
            raise SpawnError("spawn", text)
        parts = [part for part in path.split("/") if part]
        there = os.dup(self.root)
        for number, part in enumerate(parts):
            above, so_far = there, "/".join(parts[: number + 1])
            last = number == len(parts) - 1
            try:
                there = self.open(so_far)
            except FileNotFoundError:
                self._make_one(above, part, is_file=is_file and last, path=path)
                there = linux_calls.open_at(above, part, _ANYTHING | os.O_NOFOLLOW, linux_calls.RESOLVE_BENEATH)
            os.close(above)
        return there

    @staticmethod
    def _make_one(above: int, name: str, *, is_file: bool, path: str) -> None:
        try:
            if is_file:
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
                os.close(os.open(name, flags, 0o644, dir_fd=above))
            else:
                os.mkdir(name, 0o755, dir_fd=above)
        except FileExistsError:
            text = f"cannot make {path} in the container: {name!r} on the way is a symlink that leads nowhere"
            raise SpawnError("spawn", text) from None

    def attach(self, mount: int, path: str, source: int | None = None) -> None:
        """Mount at `path`, made when it is not there."""
        target = self.target(path, source)
        linux_calls.attach_mount(mount, target)
        os.close(target)


@contextmanager
def _step(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        advice = ""
        if error.errno == errno.ENOSYS:
            advice = "; this needs Linux 5.12 or newer"
        raise SpawnError("spawn", f"cannot {what}: {error.strerror}{advice}") from None


class Taken:
    """What comes from the host, as mounts that are nowhere yet: the root and the volumes, in the order of the fields.

    For a user namespace of root's it is taken before that is entered: inside, there may be no way to those paths.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self.root: int | None = None
        if fields.get("overlay"):
            self.root = _overlay(*fields["overlay"])
        elif fields.get("root"):
            self.root = _taken_root(fields["root"])
        self.volumes = [_taken_volume(volume) for volume in fields.get("volumes", ())]


def furnish(fields: dict[str, Any], taken: Taken) -> None:
    """Build what the container sees and make it the root. This process is in a mount namespace of its own.

    `fields` as confinement.enter describes them.
    """
    namespaces = fields.get("namespaces", ())
    mask = os.umask(0)
    with _step("detach the mounts of the container from the host's"):
        linux_calls.set_propagation(linux_calls.MS_SLAVE if taken.root is None else linux_calls.MS_PRIVATE)
    inside = _root(taken, read_only=bool(fields.get("read_only")))
    if fields.get("proc"):
        with _step("mount /proc"):
            inside.attach(linux_calls.new_mount("proc", {}, _DATA), "/proc")
    if fields.get("sys"):
        _sys(inside, namespaces, fields.get("joined", {}))
    if fields.get("dev"):
        _dev(inside, fields, in_user_namespace="user" in namespaces)
    if fields.get("tmp_bytes"):
        with _step("mount a private /tmp"):
            options = {"size": str(fields["tmp_bytes"]), "mode": "1777"}
            inside.attach(linux_calls.new_mount("tmpfs", options, _NO_SUID_DEV), "/tmp")
    for volume, (mount, source) in zip(fields.get("volumes", ()), taken.volumes, strict=True):
        with _step(f"mount the volume {volume['source']!r} on {volume['target']}"):
            inside.attach(mount, volume["target"], source)
    _hide(inside, fields.get("masked", ()), fields.get("read_only_paths", ()))
    if taken.root is not None:
        with _step(f"make {fields['root']} the container's root"):
            if fields.get("read_only"):
                linux_calls.change_mount(taken.root, MOUNT_ATTR_RDONLY, recursive=False)
            linux_calls.pivot_root(taken.root)
    os.umask(mask)


def _root(taken: Taken, *, read_only: bool) -> Inside:
    with _step("open the container's root"):
        top = os.open("/", _DIRECTORY)
        if taken.root is None:
            if read_only:
                linux_calls.change_mount(top, MOUNT_ATTR_RDONLY, recursive=True)
            return Inside(top, may_create=False)
        # On top of the host's root, where a way leads for everybody; whoever is in already still sees what is below.
        linux_calls.attach_mount(taken.root, top)
        os.close(top)
        return Inside(taken.root, may_create=True)


# -- from the host ---------------------------------------------------------------


def _taken_root(path: str) -> int:
    with _step(f"use {path!r} as the container's root"):
        directory = os.open(path, _DIRECTORY | os.O_NOFOLLOW)
        mount = linux_calls.clone_mount(directory)
        linux_calls.change_mount(mount, MOUNT_ATTR_NODEV, recursive=True)
        os.close(directory)
        return mount


def _overlay(store: str, options: dict[str, str]) -> int:
    """The layers as one file system, mounted nowhere yet (Documentation/filesystems/overlayfs.rst)."""
    here = os.open(".", _DIRECTORY)
    with _step(f"put the layers of the image in {store!r} together"):
        os.chdir(store)
        mount = linux_calls.new_mount("overlay", options, MOUNT_ATTR_NODEV)
    os.fchdir(here)
    os.close(here)
    return mount


def _taken_volume(volume: dict[str, Any]) -> tuple[int, int]:
    """The mount, and a descriptor of what it is a mount of."""
    source = _source(volume)
    with _step(f"take the volume {volume['source']!r}"):
        mount = linux_calls.clone_mount(source)
        read_only = MOUNT_ATTR_RDONLY if volume.get("read_only") else 0
        linux_calls.change_mount(mount, _NO_SUID_DEV | read_only, recursive=True)
        return mount, source


def _source(volume: dict[str, Any]) -> int:
    """A descriptor of what the host gives: `within` a directory that its path must not lead out of, if any."""
    path, within = volume["source"], volume.get("within", "")
    if not within:
        with _step(f"open the volume {path!r}"):
            return os.open(path, _ANYTHING)
    with _step(f"open {within!r}, which holds the volume {path!r}"):
        above = os.open(within, _DIRECTORY)
    try:
        beneath = linux_calls.RESOLVE_BENEATH | linux_calls.RESOLVE_NO_MAGICLINKS
        return linux_calls.open_at(above, path, _ANYTHING, beneath)
    except OSError as error:
        why = f"it leads out of {within!r}" if error.errno == errno.EXDEV else error.strerror
        raise SpawnError("spawn", f"cannot open the volume {path!r} in {within!r}: {why}") from None
    finally:
        os.close(above)


# -- the kernel's own file systems ---------------------------------------------------------------


def _sys(inside: Inside, namespaces: Sequence[str], joined: dict[str, str]) -> None:
    """Fresh where we own the network that it shows; the host's, read-only with all below, in a user namespace without
    one, where the kernel allows no other. The container's own cgroup in it when it has a cgroup namespace."""
    with _step("mount /sys"):
        if "user" in namespaces and ("net" not in namespaces or "net" in joined):
            source = os.open("/sys", _DIRECTORY)
            mount = linux_calls.clone_mount(source)
            os.close(source)
            linux_calls.change_mount(mount, _DATA | MOUNT_ATTR_RDONLY, recursive=True)
        else:
            mount = linux_calls.new_mount("sysfs", {}, _DATA | MOUNT_ATTR_RDONLY)
        inside.attach(mount, "/sys")
    if "cgroup" in namespaces:
        with _step("mount /sys/fs/cgroup"):
            inside.attach(linux_calls.new_mount("cgroup2", {}, _DATA | MOUNT_ATTR_RDONLY), "/sys/fs/cgroup")


def _dev(inside: Inside, fields: dict[str, Any], *, in_user_namespace: bool) -> None:
    """A /dev in which no device can be used but those mounted here, each alone: whoever makes another node, with the
    privilege to, cannot open it, even without a device filter."""
    nodes = [("/dev/" + name, "c", major, minor, 0o666) for name, major, minor in NODES]
    nodes += [tuple(device) for device in fields.get("devices", ())]
    found = _host_nodes(nodes) if in_user_namespace else _new_nodes(inside, nodes)
    with _step("mount a private /dev"):
        top = linux_calls.new_mount("tmpfs", {"size": str(1 << 20), "mode": "755"}, _DATA)
        inside.attach(top, "/dev")
        for name, target in LINKS:
            os.symlink(target, name, dir_fd=top)
    dev = Inside(top, may_create=True)
    for path, (mount, node) in found.items():
        with _step(f"mount the device {path}"):
            dev.attach(mount, path.removeprefix("/dev/"), node)
    with _step("mount /dev/pts, /dev/shm and /dev/mqueue"):
        options = {"newinstance": "", "ptmxmode": "0666", "mode": "0620"}
        if not in_user_namespace:
            options["gid"] = "5"  # tty, everywhere; in a user namespace it may be mapped to nobody
        dev.attach(linux_calls.new_mount("devpts", options, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC), "pts")
        options = {"size": str(fields["shm_bytes"]), "mode": "1777"}
        dev.attach(linux_calls.new_mount("tmpfs", options, _DATA), "shm")
        if "ipc" in fields.get("namespaces", ()) or not in_user_namespace:
            dev.attach(linux_calls.new_mount("mqueue", {}, _DATA), "mqueue")


def _host_nodes(nodes: Sequence[tuple[Any, ...]]) -> dict[str, tuple[int, int]]:
    """Path -> mount and descriptor of the host's own nodes: in a user namespace nobody may make any."""
    found = {}
    for path, _, major, minor, _ in nodes:
        with _step(f"use the host's {path}"):
            node = os.open(path, _ANYTHING | os.O_NOFOLLOW)
            number = os.fstat(node).st_rdev
            if number != os.makedev(major, minor):
                text = f"{path} is device {os.major(number)}:{os.minor(number)} on this host, not {major}:{minor}"
                raise SpawnError("spawn", text)
            found[path] = linux_calls.clone_mount(node), node
    return found


def _new_nodes(inside: Inside, nodes: Sequence[tuple[Any, ...]]) -> dict[str, tuple[int, int]]:
    """Path -> mount and descriptor of nodes made for this container, in a file system that /dev then covers."""
    with _step("make the container's devices"):
        top = linux_calls.new_mount(
            "tmpfs", {"size": str(1 << 20), "mode": "700"}, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
        )
        inside.attach(top, "/dev")
    found = {}
    for number, (path, kind, major, minor, mode) in enumerate(nodes):
        with _step(f"make the device {path}"):
            kind_bit = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
            os.mknod(str(number), mode | kind_bit, os.makedev(major, minor), dir_fd=top)
            node = os.open(str(number), _ANYTHING, dir_fd=top)
            found[path] = linux_calls.clone_mount(node), node
    return found


def _hide(inside: Inside, masked: Sequence[str], read_only: Sequence[str]) -> None:
    for path in masked:
        with _step(f"hide {path}"):
            target = _existing(inside, path)
            if target is None:
                continue
            if stat.S_ISDIR(os.fstat(target).st_mode):
                mount = linux_calls.new_mount("tmpfs", {"mode": "555"}, _DATA | MOUNT_ATTR_RDONLY)
            else:
                nothing = os.open("/dev/null", _ANYTHING)
                mount = linux_calls.clone_mount(nothing)
                os.close(nothing)
            linux_calls.attach_mount(mount, target)
            os.close(mount)
            os.close(target)
    for path in read_only:
        with _step(f"make {path} read-only"):
            target = _existing(inside, path)
            if target is None:
                continue
            mount = linux_calls.clone_mount(target)
            linux_calls.change_mount(mount, MOUNT_ATTR_RDONLY, recursive=True)
            linux_calls.attach_mount(mount, target)
            os.close(mount)
            os.close(target)


def _existing(inside: Inside, path: str) -> int | None:
    """What is at `path`; None where this kernel has nothing there, and so nothing to hide."""
    try:
        return inside.open(path)
    except FileNotFoundError:
        return None
