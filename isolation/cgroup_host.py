"""Which part of the host's cgroup v2 tree is ours, and what is missing to use it, with the way to get it.

An agent may make cgroups below its own one when that was *delegated* to it: root in a system without systemd, a systemd
unit or scope with `Delegate=yes`, or a directory that was handed over (chown) and named by `--cgroup-root`. Nothing is
changed here; `cgroup.make_tree` does that.

Kernel document: Documentation/admin-guide/cgroup-v2.rst, "Delegation". systemd: docs/CGROUP_DELEGATION.md.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

SELF = "mesos-actor-self"
"""The cgroup that the agent's own processes move to, beside the tree: one with processes of its own cannot hand
controllers down. Also what `DelegateSubgroup=` should name."""

NEEDED = ("cpu", "memory", "pids")
"""Without these there is no isolation; the others are for tasks that ask for them."""

MAX_MOUNTS = 100_000

_UNIFIED = (
    "boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line (the default since Debian 11, "
    "Ubuntu 21.10, Fedora 31), or use --isolation process"
)
_BY_HAND = (
    "start it as root, or from `systemd-run --user --scope -p Delegate=yes`, or in a unit with Delegate=yes, or hand a "
    "cgroup over with chown and name it by --cgroup-root"
)

_READ_ONLY = "mount it writable; in a container: with a cgroup namespace of its own and a writable /sys/fs/cgroup"


class Missing(msgspec.Struct, frozen=True):
    """What is missing, and how to get it: two halves of a sentence."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fix}"


class Found(msgspec.Struct, frozen=True):
    """`own` is the directory of the subtree that is ours to use, empty when none could be found; `missing` is empty
    when it can be used. `controllers` are those it can hand down."""

    own: str = ""
    controllers: tuple[str, ...] = ()
    missing: tuple[Missing, ...] = ()


def find(root: str = "", needed: Iterable[str] = NEEDED, proc: str = "/proc", run: str = "/run") -> Found:
    """Our subtree: `root` when given, else the cgroup this process is in. Never raises.

    `proc` and `run` are where the host's /proc and /run are read; tests have their own.
    """
    try:
        unified, first = _mounts(Path(proc))
        if not unified:
            return Found(missing=(Missing("this host has no cgroup v2" if not first else _hybrid(first), _UNIFIED),))
        own = root.rstrip("/") or _own(Path(proc), unified)
    except (OSError, ValueError) as error:
        return Found(missing=(Missing(f"cannot read {proc}: {error}", "mount proc there"),))
    if not own:
        what = "this process is in a cgroup outside of its cgroup namespace or mount"
        return Found(missing=(Missing(what, "name a directory of the mounted tree by --cgroup-root"),))
    return _checked(own, tuple(needed), first, run)


def is_top(directory: str) -> bool:
    """Whether this is the root of the whole tree, where processes and enabled controllers may be together."""
    return not Path(directory, "cgroup.type").exists()


def _mounts(proc: Path) -> tuple[list[tuple[str, str]], list[str]]:
    """Mounts of v2 as (what is mounted, where), and the controllers that v1 mounts hold."""
    unified: list[tuple[str, str]] = []
    first: list[str] = []
    for line in (proc / "self/mountinfo").read_text(errors="surrogateescape").splitlines()[:MAX_MOUNTS]:
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.partition(" ")
        parts = fields.split()
        if kind == "cgroup2" and len(parts) > 4:
            unified.append((_unescaped(parts[3]), _unescaped(parts[4])))
        elif kind == "cgroup":
            first += options.split()[-1].split(",")
    return unified, sorted({name for name in first if name in (*NEEDED, "cpuset", "blkio", "devices", "freezer")})


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def _own(proc: Path, unified: list[tuple[str, str]]) -> str:
    for line in (proc / "self/cgroup").read_text(errors="surrogateescape").splitlines():
        if not line.startswith("0::"):
            continue
        path = line[3:].removesuffix(" (deleted)")
        for mounted, where in unified:
            inside = path if mounted == "/" else path.removeprefix(mounted)
            if "/.." in path or (mounted != "/" and path != mounted and not path.startswith(mounted + "/")):
                continue
            own = where.rstrip("/") + inside.rstrip("/")
            return os.path.dirname(own) if os.path.basename(own) == SELF else own  # noqa: PTH119, PTH120
    return ""


def _hybrid(first: list[str]) -> str:
    return f"this host's controllers {', '.join(first)} are on cgroup v1, and isolation needs v2"


def _checked(own: str, needed: tuple[str, ...], first: list[str], run: str) -> Found:
    try:
        available = tuple(Path(own, "cgroup.controllers").read_text().split())
    except OSError as error:
        what = f"{own} is not a cgroup of v2 that can be read ({error.strerror})"
        return Found(own, missing=(Missing(what, "name one below /sys/fs/cgroup by --cgroup-root"),))
    missing: list[Missing] = []
    absent = [name for name in needed if name not in available]
    held = [name for name in absent if name in first]
    if held:
        missing.append(Missing(_hybrid(held), _UNIFIED))
    elif absent:
        missing.append(Missing(f"controllers {', '.join(absent)} are not available in {own}", _enable(absent, needed)))
    undelegated = _undelegated(own, run)
    if undelegated is not None:
        missing.append(undelegated)
    refused = [name for name in ("", "cgroup.procs", "cgroup.subtree_control") if not _may_write(own, name)]
    if refused:
        what = f"{own}/{refused[0]} cannot be written by user {os.geteuid()}".replace("/ ", " ")
        missing.append(Missing(what, _BY_HAND if os.geteuid() else _READ_ONLY))
    if not is_top(own):
        missing += _of_inner(own)
    return Found(own, available, tuple(missing))


def _enable(absent: list[str], needed: tuple[str, ...]) -> str:
    listed = " ".join(needed)
    if os.geteuid() == 0:
        return (
            f"write {' '.join('+' + name for name in absent)} to cgroup.subtree_control of each cgroup above it, or "
            f"start it in a systemd unit with Delegate={listed}"
        )
    return (
        f"as root: `systemctl edit user@.service`, add the lines [Service] and Delegate={listed}, log in again; then "
        "`systemd-run --user --scope -p Delegate=yes`"
    )


def _may_write(own: str, name: str) -> bool:
    path = f"{own}/{name}".rstrip("/")
    return os.access(path, os.W_OK | (0 if name else os.X_OK), effective_ids=True)


def _undelegated(own: str, run: str) -> Missing | None:
    """systemd marks what it has delegated by an extended attribute (since 244 for root, 251 for all), and reorders what
    it has not whenever it likes."""
    unit = os.path.basename(own)  # noqa: PTH119
    if not Path(run, "systemd/system").is_dir() or not unit.endswith((".service", ".scope", ".slice")):
        return None
    for name in ("user.delegate", "trusted.delegate"):
        try:
            if os.getxattr(own, name) == b"1":
                return None
        except OSError:
            continue
    fix = (
        f"in the unit: Delegate=yes (and DelegateSubgroup={SELF} where systemd is 254 or newer); by hand: `systemd-run "
        f"{'' if os.geteuid() == 0 else '--user '}--scope -p Delegate=yes`"
    )
    return Missing(f"systemd has not delegated {own}", fix)


def _of_inner(own: str) -> list[Missing]:
    """What a cgroup below the root must be for us."""
    missing = []
    kind = Path(own, "cgroup.type").read_text().strip()
    if kind not in ("domain", "domain threaded"):
        what = f"{own} is a {kind!r} cgroup, which cannot hold containers"
        missing.append(Missing(what, "name one of type 'domain' by --cgroup-root"))
    if not Path(own, "cgroup.kill").exists():
        what = "this kernel has no cgroup.kill"
        missing.append(Missing(what, "use Linux 5.14 or newer, or --isolation process"))
    return missing
