"""What files may be called, and what is said when the disk refuses one."""

from __future__ import annotations

import errno
import re

from mesos_actor.actors.errors import LocalError

MAX_NAME_CHARS = 100
LOCK_NAME = "lock"
"""Of the file in the directory that holds it for one process."""
TEMPORARY = ".tmp"
"""Ends the names of files that are not finished; nobody sees them."""
_NAME = re.compile(r"[a-z0-9-][a-z0-9.-]*")


def is_name(name: str) -> bool:
    """Whether a file may be called so."""
    fits = len(name) <= MAX_NAME_CHARS and _NAME.fullmatch(name) is not None
    return fits and name != LOCK_NAME and not name.endswith(TEMPORARY)


def checked_name(name: str) -> None:
    """Raises LocalError unless a file may be called so."""
    if not is_name(name):
        raise LocalError(f"file name {name!r}: must be of a-z, 0-9, '.' and '-', and neither a lock nor temporary")


_FIXES = {
    errno.ENOSPC: "the disk is full; free some space, then start this process again",
    errno.EDQUOT: "the quota is used up; free some space, then start this process again",
    errno.EROFS: "the file system is read-only; mount it for writing, then start this process again",
    errno.EACCES: "make it and its directory readable and writable for this user, then start this process again",
    errno.EPERM: "make it and its directory readable and writable for this user, then start this process again",
    errno.EIO: "the disk reports an error; check its health, then start this process again",
    errno.ENOENT: "restore it, or begin with an empty directory",
    errno.ELOOP: "it is a link; put the file itself there",
}


def explained(where: str, what: str, error: OSError) -> str:
    """`where` (a path), what went wrong, why, and what to do about it."""
    fix = _FIXES.get(error.errno or 0, "check the disk, then start this process again")
    return f"{where}: {what}: {error.strerror or error}; {fix}"
