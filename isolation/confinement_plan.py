"""What a container is confined to, declared and checked on the agent's side. Pure.

`fields_of` turns a Confinement into the plain map that travels to the launcher and is carried out by
confinement.enter in its child. Everything that can be known to fail is refused here, naming field, value and fix.
"""

from __future__ import annotations

import itertools
import os
import platform
import posixpath
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from mesos_actor.actors.core.rlimits import rlimits_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import RLimit
from mesos_actor.isolation import capabilities, seccomp

MAX_VOLUMES: Final = 256
MAX_DEVICES: Final = 64
MAX_ID_MAPS: Final = 340
"""Lines of a map: the kernel's own bound (user_namespaces(7))."""
MAX_GROUPS: Final = 1_000
MAX_ID: Final = (1 << 32) - 2
"""The last one stands for nobody at all."""
MAX_HOSTNAME: Final = 64
"""The kernel's __NEW_UTS_LEN."""
MAX_PATH_BYTES: Final = 4_095
MAX_TMPFS_BYTES: Final = 1 << 50
MAX_OPTION_BYTES: Final = 255
"""Of one option of a file system (fs/fsopen.c, fsconfig: 256 with its end)."""
SHM_BYTES: Final = 64 << 20
"""As Docker's default."""

MASKED: Final = (
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
)
READ_ONLY_PATHS: Final = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")
"""Both as Docker's defaults (moby, oci/defaults.go)."""


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """`source` of the host is seen at `target` inside. With `within`, `source` is relative to that directory and must
    not lead out of it, by symlink or otherwise, at the moment it is mounted."""

    source: str
    target: str
    read_only: bool = False
    within: str = ""


class Device(msgspec.Struct, frozen=True, kw_only=True):
    """A device node in the container's /dev. It also needs leave by its cgroup's device filter."""

    path: str
    kind: Literal["c", "b"] = "c"
    major: int
    minor: int
    mode: int = 0o666


class IdMap(msgspec.Struct, frozen=True):
    """`count` ids from `inside` on are those from `outside` on, on the host."""

    inside: int
    outside: int
    count: int = 1


class User(msgspec.Struct, frozen=True):
    """Who the command runs as; numbers inside the user namespace, if there is one."""

    user_id: int
    group_id: int
    groups: tuple[int, ...] = ()


class Overlay(msgspec.Struct, frozen=True, kw_only=True):
    """A root put together of layers, in the container's own mount namespace: nothing of it is left on the host.

    All paths are absolute, or relative to `store`. `lower`: the topmost layer first."""

    store: str
    lower: tuple[str, ...]
    upper: str
    work: str
    user_xattr: bool = False
    """For a user namespace: the layers' marks are those of ordinary users."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """The defaults confine nothing but privileges: no new ones by exec, Docker's system call filter."""

    pid: bool = False
    ipc: bool = False
    mount: bool = False
    uts: bool = False
    cgroup: bool = False
    network: Literal["host", "none", "loopback", "join"] = "host"
    """none: no device is up; loopback: 127.0.0.1 of its own; join: the namespace at `network_path`."""
    network_path: str = ""
    user_ids: tuple[IdMap, ...] = ()
    group_ids: tuple[IdMap, ...] = ()
    """A user namespace, when not empty. An agent that is not root can map its own two ids only."""
    hostname: str = ""
    root: str = ""
    """A directory to be /, with /proc, /sys and /dev of its own. It is written to: mount points are made in it."""
    overlay: Overlay | None = None
    """What is mounted as `root`, which then only names it."""
    read_only_root: bool = False
    """Without a root image: all of the host's files, so that only volumes, /tmp and /dev/shm can be written."""
    volumes: tuple[Volume, ...] = ()
    sandbox: str = ""
    sandbox_target: str = ""
    """Where the sandbox is seen; it is the working directory unless `cwd` says otherwise."""
    devices: tuple[Device, ...] = ()
    shm_bytes: int = SHM_BYTES
    tmp_bytes: int = 0
    """A private /tmp of this size in memory; 0: none."""
    cwd: str = ""
    rlimits: dict[str, tuple[int, int]] = {}
    """Name as in prlimit(1), without RLIMIT_ -> (soft, hard); -1: unlimited."""
    user: User | None = None
    effective: tuple[str, ...] | None = None
    """The capabilities that the command has; None: as many as its user would."""
    bounding: tuple[str, ...] | None = None
    """Those that it can ever have; None: as `effective`."""
    no_new_privs: bool = True
    seccomp: Literal["default", "none"] = "default"


def fields_of(confinement: Confinement, machine: str = "") -> dict[str, Any]:
    """The launcher's fields, as confinement.enter describes them. `machine` as platform.machine() gives it.

    Raises InvalidInput naming the field, the value and the fix.
    """
    plan = confinement
    namespaces, joined = _namespaces(plan)
    fields: dict[str, Any] = {"namespaces": namespaces, "joined": joined}
    if plan.user_ids or plan.group_ids:
        fields["uid_map"], fields["gid_map"] = _map("user_ids", plan.user_ids), _map("group_ids", plan.group_ids)
    if plan.hostname:
        fields["hostname"] = _hostname(plan)
    if plan.network == "loopback":
        fields["loopback"] = True
    fields |= _files(plan) if plan.mount else _no_files(plan)
    cwd = plan.cwd or plan.sandbox_target
    if cwd:
        fields["cwd"] = _path("cwd", cwd)
    if problem := rlimits_error([RLimit(kind, soft, hard) for kind, (soft, hard) in plan.rlimits.items()]):
        raise InvalidInput(f"rlimits: {problem}")
    fields["rlimits"] = {kind: list(limit) for kind, limit in plan.rlimits.items()}
    fields |= _privileges(plan, machine or platform.machine())
    return {name: value for name, value in fields.items() if value not in ([], {}, None, "")}


def _namespaces(plan: Confinement) -> tuple[list[str], dict[str, str]]:
    wanted = {
        "user": bool(plan.user_ids or plan.group_ids),
        "mount": plan.mount,
        "pid": plan.pid,
        "ipc": plan.ipc,
        "uts": plan.uts,
        "net": plan.network in ("none", "loopback"),
        "cgroup": plan.cgroup,
    }
    if plan.pid and not plan.mount:
        raise InvalidInput("pid: a pid namespace needs a /proc of its own: set mount too")
    if (plan.network == "join") != bool(plan.network_path):
        text = "network: 'join' needs network_path, the namespace's path" if plan.network == "join" else ""
        raise InvalidInput(text or f"network_path: {plan.network_path!r} is for network 'join' only: leave it empty")
    joined = {"net": _path("network_path", plan.network_path)} if plan.network_path else {}
    return [kind for kind, is_wanted in wanted.items() if is_wanted], joined


def _hostname(plan: Confinement) -> str:
    if not plan.uts:
        raise InvalidInput(f"hostname: {plan.hostname!r} would rename the host: set uts too")
    allowed = plan.hostname.isascii() and plan.hostname.replace("-", "").replace(".", "").isalnum()
    if not allowed or len(plan.hostname) > MAX_HOSTNAME:
        text = f"hostname: {plan.hostname!r} cannot be one: at most {MAX_HOSTNAME} letters, digits, '-' and '.'"
        raise InvalidInput(text)
    return plan.hostname


def _map(field: str, maps: Sequence[IdMap]) -> list[list[int]]:
    if not maps:
        raise InvalidInput(f"{field}: is empty: a user namespace needs both user_ids and group_ids")
    if len(maps) > MAX_ID_MAPS:
        raise InvalidInput(f"{field}: has {len(maps)} ranges, at most {MAX_ID_MAPS}: join some")
    for which in ("inside", "outside"):
        taken = sorted((int(getattr(entry, which)), entry.count) for entry in maps)
        for (first, count), (following, _) in itertools.pairwise(taken):
            if first + count > following:
                raise InvalidInput(f"{field}: id {following} {which} is in two ranges: let each be in one")
    for entry in maps:
        if entry.count < 1 or min(entry.inside, entry.outside) < 0:
            raise InvalidInput(f"{field}: {entry} is no range: ids are at least 0 and count at least 1")
        if max(entry.inside, entry.outside) + entry.count - 1 > MAX_ID:
            raise InvalidInput(f"{field}: {entry} goes past the last id {MAX_ID}: lower its count")
    return [[entry.inside, entry.outside, entry.count] for entry in maps]


# -- files ---------------------------------------------------------------


def _path(field: str, path: str) -> str:
    """`path` without anything that leads nowhere; absolute."""
    if not path.startswith("/") or "\0" in path or ".." in path.split("/") or len(path.encode()) > MAX_PATH_BYTES:
        text = f"{field}: {path!r} cannot be used: give an absolute path without '..' of at most {MAX_PATH_BYTES} bytes"
        raise InvalidInput(text)
    return "/" + posixpath.normpath(path).lstrip("/")


def _no_files(plan: Confinement) -> dict[str, Any]:
    default = Confinement()
    for field in (
        "root",
        "read_only_root",
        "volumes",
        "sandbox",
        "sandbox_target",
        "devices",
        "shm_bytes",
        "tmp_bytes",
    ):
        if getattr(plan, field) != getattr(default, field):
            raise InvalidInput(f"{field}: {getattr(plan, field)!r} needs a mount namespace: set mount too")
    return {}


def _files(plan: Confinement) -> dict[str, Any]:
    own_dev = bool(plan.root or plan.read_only_root)
    own_proc = bool(plan.root or plan.pid)
    if plan.devices and not own_dev:
        raise InvalidInput("devices: the host's /dev is seen as it is without a root: leave them out, or set root")
    if plan.shm_bytes != SHM_BYTES and not own_dev:
        raise InvalidInput(f"shm_bytes: {plan.shm_bytes} needs a /dev of its own: set root or read_only_root")
    return {
        "root": _root(plan.root) if plan.root else "",
        "overlay": _overlay(plan),
        "read_only": plan.read_only_root,
        "proc": own_proc,
        "sys": bool(plan.root),
        "dev": own_dev,
        "devices": _devices(plan.devices),
        "shm_bytes": _size("shm_bytes", plan.shm_bytes, 1),
        "tmp_bytes": _size("tmp_bytes", plan.tmp_bytes, 0),
        "volumes": _volumes(plan, own_dev=own_dev),
        "masked": [path for path in MASKED if own_proc and (plan.root or path.startswith("/proc/"))],
        "read_only_paths": list(READ_ONLY_PATHS) if own_proc else [],
    }


def _root(path: str) -> str:
    root = _path("root", path)
    if root == "/":
        raise InvalidInput("root: '/' is the host's own: name an image's directory, or leave it empty")
    return root


def _overlay(plan: Confinement) -> list[Any] | None:
    overlay = plan.overlay
    if overlay is None:
        return None
    if not plan.root or not overlay.lower:
        raise InvalidInput(f"overlay: of {len(overlay.lower)} layers for root {plan.root!r}: both must be given")
    options = {"lowerdir": ":".join(overlay.lower), "upperdir": overlay.upper, "workdir": overlay.work}
    for name, value in options.items():
        if len(os.fsencode(value)) > MAX_OPTION_BYTES or "," in value or "\\" in value or not value:
            text = f"{len(os.fsencode(value))} bytes: at most {MAX_OPTION_BYTES}, without ',' and '\\'; copy the layers"
            raise InvalidInput(f"overlay: {name} has {text} instead")
    if overlay.user_xattr:
        options["userxattr"] = ""
    return [_path("overlay.store", overlay.store), options]


def _size(field: str, size: int, least: int) -> int:
    if not least <= size <= MAX_TMPFS_BYTES:
        raise InvalidInput(f"{field}: {size} is not between {least} and {MAX_TMPFS_BYTES} bytes: change it")
    return size


def _volumes(plan: Confinement, *, own_dev: bool) -> list[dict[str, Any]]:
    if bool(plan.sandbox) != bool(plan.sandbox_target):
        raise InvalidInput("sandbox_target: sandbox and sandbox_target go together: give both, or none")
    volumes = list(plan.volumes)
    if plan.sandbox:
        volumes.insert(0, Volume(source=plan.sandbox, target=plan.sandbox_target))
    if len(volumes) > MAX_VOLUMES:
        raise InvalidInput(f"volumes: {len(volumes)} are too many, at most {MAX_VOLUMES}: mount a common directory")
    found: dict[str, dict[str, Any]] = {}
    for number, volume in enumerate(volumes):
        field = f"volumes[{number - bool(plan.sandbox)}]" if number or not plan.sandbox else "sandbox"
        target = _path(f"{field}.target", volume.target)
        kernels = ("/proc", "/sys", "/dev") if own_dev else ("/proc", "/sys")
        if target in ("/", *kernels) or target.startswith(("/proc/", "/sys/")):
            raise InvalidInput(f"{field}.target: {target!r} is not a volume's place: name a directory of its own")
        if target == "/tmp" and plan.tmp_bytes:
            raise InvalidInput(f"tmp_bytes: {field} is mounted on /tmp too: leave one of them out")
        if target in found:
            raise InvalidInput(f"{field}.target: {target!r} is another volume's place too: name another one")
        found[target] = {
            "source": _source(field, volume),
            "within": _path(f"{field}.within", volume.within) if volume.within else "",
            "target": target,
            "read_only": volume.read_only,
        }
    # What lies above comes first, or it would cover what was mounted below.
    return sorted(found.values(), key=lambda entry: entry["target"].count("/"))


def _source(field: str, volume: Volume) -> str:
    if not volume.within:
        return _path(f"{field}.source", volume.source)
    relative = volume.source.strip("/")
    if volume.source.startswith("/") or ".." in relative.split("/") or "\0" in relative or not relative:
        text = (
            f"{field}.source: {volume.source!r} is not a path in {volume.within!r}: give it relative and without '..'"
        )
        raise InvalidInput(text)
    return relative


def _devices(devices: Sequence[Device]) -> list[list[Any]]:
    if len(devices) > MAX_DEVICES:
        raise InvalidInput(f"devices: {len(devices)} are too many, at most {MAX_DEVICES}: leave some out")
    for number, device in enumerate(devices):
        path = _path(f"devices[{number}].path", device.path)
        if not path.startswith("/dev/") or path.startswith(("/dev/pts/", "/dev/shm/", "/dev/mqueue/")):
            raise InvalidInput(f"devices[{number}].path: {path!r} is not a device's place: name one in /dev")
        if not 0 <= device.major < 1 << 12 or not 0 <= device.minor < 1 << 20:
            text = (
                f"devices[{number}]: {device.major}:{device.minor} is no device number: major < 4096, minor < 1048576"
            )
            raise InvalidInput(text)
        if not 0 <= device.mode <= 0o777:
            raise InvalidInput(f"devices[{number}].mode: {device.mode:o} is more than permissions: at most 777 octal")
    return [[_path("", d.path), d.kind, d.major, d.minor, d.mode] for d in devices]


# -- privileges ---------------------------------------------------------------


def _privileges(plan: Confinement, machine: str) -> dict[str, Any]:
    fields: dict[str, Any] = {"user": _user(plan), "no_new_privs": plan.no_new_privs or None}
    effective = plan.effective
    if effective is None and plan.bounding is not None:
        raise InvalidInput("bounding: needs effective too: name the capabilities that the command has")
    held: Sequence[str] = capabilities.NAMES
    if effective is not None:
        bounding = effective if plan.bounding is None else plan.bounding
        fields["effective"] = capabilities.mask_of("effective", effective)
        fields["bounding"] = capabilities.mask_of("bounding", bounding)
        beyond = fields["effective"] & ~fields["bounding"]
        if beyond:
            names = ", ".join(name for number, name in enumerate(capabilities.NAMES) if beyond >> number & 1)
            raise InvalidInput(f"effective: {names} is not in bounding: add it there, or leave it out here")
        held = [name for number, name in enumerate(capabilities.NAMES) if fields["bounding"] >> number & 1]
    if plan.seccomp == "default":
        fields["seccomp"] = seccomp.default_program(() if effective is None else held, machine)
    return fields


def _user(plan: Confinement) -> list[Any] | None:
    user = plan.user
    in_namespace = bool(plan.user_ids)
    if user is None:
        return None
    ids = [("user_id", user.user_id, plan.user_ids), ("group_id", user.group_id, plan.group_ids)]
    ids += [("groups", group, plan.group_ids) for group in user.groups]
    for field, number, maps in ids:
        if not 0 <= number <= MAX_ID:
            raise InvalidInput(f"user.{field}: {number} is no id: use 0 to {MAX_ID}")
        if in_namespace and not any(entry.inside <= number < entry.inside + entry.count for entry in maps):
            raise InvalidInput(f"user.{field}: {number} is in none of the user namespace's ranges: map it, or use 0")
    if len(user.groups) > MAX_GROUPS:
        raise InvalidInput(f"user.groups: {len(user.groups)} are too many, at most {MAX_GROUPS}")
    return [user.user_id, user.group_id, list(user.groups)]
