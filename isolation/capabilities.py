"""Names of Linux capabilities and the sets that containers get. Pure.

Kernel document: capabilities(7), include/uapi/linux/capability.h. Docker's default: moby, oci/caps/defaults.go.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from mesos_actor.actors.errors import InvalidInput

NAMES: Final = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP"),
    *("LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER"),
    *("SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE"),
    *("SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP"),
    *("MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF"),
    "CHECKPOINT_RESTORE",
)
"""In the order of their numbers, from 0."""

DOCKER: Final = (
    *("AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW"),
    *("SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"),
)
"""What root has in a Docker container."""


def mask_of(field: str, names: Iterable[str]) -> int:
    """The set of bits of these names, with `CAP_` in front or not, in any case.

    Raises InvalidInput naming `field` and the name that there is no capability of.
    """
    mask = 0
    for name in names:
        short = name.upper().removeprefix("CAP_")
        if short not in NAMES:
            close = difflib.get_close_matches(short, NAMES, 1)
            fix = f"did you mean {close[0]}?" if close else "see capabilities(7) for the names"
            raise InvalidInput(f"{field}: there is no capability {name!r}: {fix}")
        mask |= 1 << NAMES.index(short)
    return mask
