"""Project quotas of ext4 and XFS: the file system itself counts what is in a directory, and refuses what is too much.

Everything that is made below the directory inherits its project. A write past the limit fails with EDQUOT. Needs a file
system mounted with `prjquota` (ext4: made with `-O project,quota`), root, and Linux 5.14 for quotactl_fd(2).

Source: include/uapi/linux/{fs,quota,dqblk_xfs}.h, Documentation/filesystems/quota.rst, quotactl_fd(2).
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
import struct

from mesos_actor.actors.errors import InvalidInput

_QUOTACTL_FD = 443
"""The system call's number, the same on every architecture."""
_Q_GETQUOTA, _Q_SETQUOTA, _PROJECT = 0x800007, 0x800008, 2
_BLOCK_LIMITS = 1
_DQBLK = struct.Struct("=8QI4x")
"""struct if_dqblk: hard and soft limit in units, bytes in use, the same of inodes, two times, what is valid."""
UNIT_BYTES = 1_024
"""Of a limit, whatever the file system's block is; limits are rounded up to it."""
_GET_XATTR, _SET_XATTR = 0x801C581F, 0x401C5820
_FSXATTR = struct.Struct("=5I8x")
"""struct fsxattr: flags, two sizes, project, one size more."""
_INHERIT = 0x200


class QuotaError(InvalidInput):
    """The file system does not count projects here. The text says what is missing and how to get it."""


class ProjectQuotas:
    """The quotas of the file system that `path`, a directory, is on."""

    def __init__(self, path: str) -> None:
        """Raises QuotaError when there are none, OSError when the directory cannot be opened."""
        self._path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._read(0)
        except OSError as error:
            os.close(self._descriptor)
            raise QuotaError(f"{path}: {_why(error)}") from None

    def close(self) -> None:
        os.close(self._descriptor)

    def assign(self, path: str, project: int) -> None:
        """From now on this file, or what is made in this directory, counts for this project; what is in a directory
        already does not. Raises OSError."""
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags, extent, extents, _, cow = _attributes(descriptor)
            if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                flags = flags | _INHERIT if project else flags & ~_INHERIT
            fcntl.ioctl(descriptor, _SET_XATTR, _FSXATTR.pack(flags, extent, extents, project, cow))
        finally:
            os.close(descriptor)

    def project_of(self, directory: str) -> int:
        """The project that a directory counts for; 0: none. Raises OSError."""
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _attributes(descriptor)[3]
        finally:
            os.close(descriptor)

    def set_limit(self, project: int, limit_bytes: int) -> None:
        """Refuse what goes past it; 0: nothing. Raises OSError."""
        units = -(-limit_bytes // UNIT_BYTES)
        block = ctypes.create_string_buffer(_DQBLK.pack(units, 0, 0, 0, 0, 0, 0, 0, _BLOCK_LIMITS), _DQBLK.size)
        self._quotactl(_Q_SETQUOTA, project, block)

    def used_bytes(self, project: int) -> int:
        """What the project takes now. Raises OSError."""
        return self._read(project)[2]

    def limit_bytes(self, project: int) -> int:
        """0: it has none. Raises OSError."""
        return self._read(project)[0] * UNIT_BYTES

    def _read(self, project: int) -> tuple[int, ...]:
        block = ctypes.create_string_buffer(_DQBLK.size)
        self._quotactl(_Q_GETQUOTA, project, block)
        return _DQBLK.unpack(block.raw)

    def _quotactl(self, command: int, project: int, block: ctypes.Array[ctypes.c_char]) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        number = ctypes.c_uint(command << 8 | _PROJECT)
        if libc.syscall(ctypes.c_long(_QUOTACTL_FD), self._descriptor, number, ctypes.c_uint(project), block):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self._path)


def _attributes(descriptor: int) -> tuple[int, ...]:
    return _FSXATTR.unpack(fcntl.ioctl(descriptor, _GET_XATTR, bytes(_FSXATTR.size)))


def _kernel_has_quotas() -> bool:
    """A file system that counts nothing answers ENOSYS as well (fs/quota/quota.c `do_quotactl`)."""
    libc = ctypes.CDLL(None, use_errno=True)
    nowhere = ctypes.c_int(-1)
    libc.syscall(
        ctypes.c_long(_QUOTACTL_FD), nowhere, ctypes.c_uint(_Q_GETQUOTA << 8 | _PROJECT), ctypes.c_uint(0), None
    )
    return ctypes.get_errno() != errno.ENOSYS


def _why(error: OSError) -> str:
    if error.errno == errno.ENOSYS and not _kernel_has_quotas():
        return "this kernel has no quotactl_fd(2) or no quotas: Linux 5.14 with CONFIG_QUOTA is needed"
    if error.errno in (errno.ENOSYS, errno.ESRCH, errno.ENOTTY, errno.EOPNOTSUPP, errno.ENODEV, errno.EINVAL):
        return (
            "its file system does not count projects: use ext4 (mkfs -O project,quota) or XFS, mounted with 'prjquota'"
        )
    if error.errno in (errno.EPERM, errno.EACCES):
        return "only root may read and set project quotas"
    return error.strerror or str(error)
