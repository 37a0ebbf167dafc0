"""A container's cgroup as the launcher sees it: who is in it, is anybody, kill them all.

Where a container has a cgroup, its family is exactly who is in it: nobody forks, changes session or takes another
user's identity out of it. Standard library only: the launcher imports this, and cgroup.py's classes are too big for it.
A cgroup that is gone is empty.

Kernel document: Documentation/admin-guide/cgroup-v2.rst, "cgroup.events", "cgroup.kill".
"""

# ruff: noqa: PTH120
from __future__ import annotations

import itertools
import os

MAX_DEPTH = 32
"""Levels of cgroups below a container in which processes are looked for, one by one; cgroup.kill has no such bound."""


def pids_in(directory: str, depth: int = MAX_DEPTH) -> list[int]:
    """The processes in it and below it; those that left or came meanwhile may be wrong."""
    try:
        with open(f"{directory}/cgroup.procs", "rb") as opened:
            found = [int(line) for line in opened.read().split()]
        below = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    for path in below if depth else ():
        found += pids_in(path, depth - 1)
    return found


def is_populated(directory: str) -> bool:
    """Whether a living process is in it or below it."""
    try:
        descriptor = os.open(f"{directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return says_populated(descriptor)
    finally:
        os.close(descriptor)


def says_populated(events: int) -> bool:
    """The same, of an open cgroup.events."""
    try:
        return b"populated 1" in os.pread(events, 4096, 0)
    except OSError:
        return False


def kill_all(directory: str) -> str:
    """KILL to everybody in it and below it, those forked at this moment too. Returns what the kernel refused with;
    empty: nothing, or it is gone."""
    try:
        descriptor = os.open(f"{directory}/cgroup.kill", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"1")
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        return "" if not is_populated(directory) else "this kernel has no cgroup.kill"
    except OSError as error:
        return error.strerror or str(error)
    return ""


def place_of(pid: int) -> str:
    """Where in the tree of cgroups v2 the process is, seen from our own cgroup namespace; empty: nowhere, or gone."""
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as opened:
            for line in opened:
                if line.startswith("0::"):
                    return line[3:].rstrip("\n").removesuffix(" (deleted)")
    except OSError:
        pass  # gone meanwhile
    return ""


def key_of(directory: str) -> tuple[str, str]:
    """The last two names of a container's cgroup: its agent's tree and its own. No mount point is needed to compare."""
    return os.path.basename(os.path.dirname(directory)), os.path.basename(directory)  # noqa: PTH119


def keys_in(place: str) -> list[tuple[str, str]]:
    """Whose a place may be, outermost first."""
    names = place.split("/")
    return list(itertools.pairwise(names))
