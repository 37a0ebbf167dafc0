"""What the launcher's child does to itself between fork and exec, so that the command is confined.

`enter` is called in the forked child when it is in its cgroup and has opened the command's standard streams, as the
last thing before the program is looked up and executed: afterwards paths are the container's own. The user and the
limits come with these fields, because the order matters. Import this module before the fork: it loads ctypes, which
takes longer than all that `enter` does.

Fields, all optional, made by confinement_plan.fields_of:

    namespaces       of user, mount, pid, ipc, uts, net, cgroup: new ones
    joined           kind -> path of an existing namespace to join
    uid_map, gid_map [[inside, outside, count]...] of a new user namespace
    hostname         of a new uts namespace
    loopback         true: bring up lo of a new network namespace
    root             directory on the host that becomes /; without one the host's files stay
    overlay          [store, options]: an overlay that becomes / instead, its paths relative to that directory
    read_only        true: / cannot be written
    proc, sys, dev   true: fresh /proc, /sys (read-only), minimal /dev
    devices          [[path, "c" or "b", major, minor, mode]...]: more nodes in a minimal /dev; the host's has its own
    shm_bytes        size of /dev/shm
    tmp_bytes        size of a private /tmp; 0: none
    volumes          [{source, within, target, read_only}...], mounted in this order
    masked           paths to hide; those that do not exist are left out
    read_only_paths  paths that can be read only
    cwd              working directory inside, made never
    rlimits          name -> [soft, hard]; -1: unlimited
    user             [uid, gid, [group...]] inside
    bounding         capabilities that can ever be had, a set of bits
    effective        those that the command has, with no_new_privs or not, whoever it is
    no_new_privs     true
    seccomp          BPF program

Standard library only. A step that fails raises SpawnError; nothing is left out silently, and a field that this version
does not know is such a failure: the launcher may be older than the agent.
"""

from __future__ import annotations

import os
from typing import Any

from mesos_actor.isolation import mounts, namespaces, privileges
from mesos_actor.isolation.spawn import SpawnError

KNOWN = frozenset(
    (
        *("namespaces", "joined", "uid_map", "gid_map", "hostname", "loopback"),
        *("root", "overlay", "read_only", "proc", "sys", "dev", "devices", "shm_bytes", "tmp_bytes", "volumes"),
        *("masked", "read_only_paths", "cwd"),
        *("rlimits", "user", "bounding", "effective", "no_new_privs", "seccomp"),
    )
)


def enter(fields: dict[str, Any]) -> None:
    """Confine this process as `fields` say. With a pid namespace, returns in a grandchild; the caller itself stays, and
    ends as the command ends. Changes the working directory. Raises SpawnError."""
    unknown = sorted(fields.keys() - KNOWN)
    if unknown:
        text = f"this launcher is older than its agent and cannot do {', '.join(unknown)}: restart it when it is idle"
        raise SpawnError("spawn", text)
    kinds = fields.get("namespaces", ())
    from_outside = "mount" in kinds and "user" in kinds and os.geteuid() == 0
    taken = mounts.Taken(fields) if from_outside else None
    maps = {"uid": fields.get("uid_map", []), "gid": fields.get("gid_map", [])}
    namespaces.separate(kinds, fields.get("joined", {}), maps)
    family = namespaces.Family() if "pid" in kinds else None
    if family is not None:
        family.become_init()
    if fields.get("hostname"):
        namespaces.set_hostname(fields["hostname"])
    if fields.get("loopback"):
        namespaces.loopback_up()
    if "mount" in kinds:
        mounts.furnish(fields, taken or mounts.Taken(fields))
    if family is not None:
        family.become_command(lambda: privileges.reduce_init(fields))
    if fields.get("cwd"):
        _change_directory(fields["cwd"])
    privileges.reduce(fields)


def _change_directory(path: str) -> None:
    try:
        os.chdir(path)
    except OSError as error:
        text = f"cannot enter the working directory {path!r} in the container: {error.strerror}"
        raise SpawnError("sandbox", text) from None
