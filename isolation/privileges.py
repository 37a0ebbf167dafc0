"""The last steps of the launcher's child: limits, user, capabilities, no_new_privs and the system call filter.

The order is the kernel's: limits are raised and the user is changed while there is the privilege to, capabilities are
dropped after that, and the filter comes last. Standard library only. Raises SpawnError. Kernel documents:
capabilities(7), prctl(2), seccomp(2). Mesos: src/slave/containerizer/mesos/launch.cpp.
"""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mesos_actor.isolation import linux_calls
from mesos_actor.isolation.spawn import SpawnError

MAX_CAPABILITIES = 64
"""The kernel's sets are of 64 bits; about 41 are in use."""


@contextmanager
def _step(what: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise SpawnError("spawn", f"cannot {what}: {why}") from None


def reduce(fields: dict[str, Any]) -> None:
    """Take on the limits, the user and the privileges of `fields`, and keep no others."""
    for name, (soft, hard) in fields.get("rlimits", {}).items():
        with _step(f"set the resource limit {name} to {soft}:{hard}"):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name.upper()}"), (soft, hard))
    bounding, effective = fields.get("bounding"), fields.get("effective")
    no_new_privs, program = bool(fields.get("no_new_privs")), fields.get("seccomp") or b""
    if program and not no_new_privs:
        _filter(program)  # needs a privilege that is about to go
    if bounding is not None and bounding != effective:
        with _step("make root no exception from capabilities"):
            linux_calls.prctl(linux_calls.PR_SET_SECUREBITS, linux_calls.SECBIT_NOROOT_LOCKED)
    if bounding is not None:
        _bound(bounding)
    _become(fields.get("user"), keep=bool(effective))
    if effective is not None:
        _keep_only(effective)
    if no_new_privs:
        with _step("set no_new_privs"):
            linux_calls.prctl(linux_calls.PR_SET_NO_NEW_PRIVS, 1)
        if program:
            _filter(program)


def reduce_init(fields: dict[str, Any]) -> None:
    """The filter for init too, which has given up everything else."""
    if fields.get("seccomp"):
        _filter(fields["seccomp"])


def _filter(program: bytes) -> None:
    with _step("load the system call filter"):
        linux_calls.set_seccomp_filter(program)


def _bound(bounding: int) -> None:
    with _step("drop capabilities from the bounding set"):
        for number in range(MAX_CAPABILITIES):
            if bounding >> number & 1:
                continue
            try:
                linux_calls.prctl(linux_calls.PR_CAPBSET_DROP, number)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    return  # this kernel has no more
                raise


def _become(user: list[Any] | None, *, keep: bool) -> None:
    if user is None:
        return
    user_id, group_id, groups = user
    if keep and user_id != 0:
        with _step("keep capabilities across the change of user"):
            linux_calls.prctl(linux_calls.PR_SET_KEEPCAPS, 1)
    with _step(f"become user {user_id} and group {group_id}"):
        try:
            os.setgroups(groups)
        except PermissionError:
            # An ordinary user's own user namespace: the kernel refuses, so that no group is got rid of.
            if groups:
                raise
        os.setresgid(group_id, group_id, group_id)
        os.setresuid(user_id, user_id, user_id)


def _keep_only(effective: int) -> None:
    """These capabilities, now and after every exec: ambient ones are for all users and programs. (An exec as root gives
    the whole bounding set, unless SECBIT_NOROOT was set.)"""
    with _step("set the capabilities"):
        linux_calls.set_capabilities(effective, effective, effective)
        linux_calls.prctl(linux_calls.PR_CAP_AMBIENT, linux_calls.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in range(MAX_CAPABILITIES):
            if effective >> number & 1:
                linux_calls.prctl(linux_calls.PR_CAP_AMBIENT, linux_calls.PR_CAP_AMBIENT_RAISE, number)
