"""What makes several hosts of one: network namespaces that can be cut off, and disks that can be filled.

Both live in namespaces of the run's own, made by unshare(1), which end with the last process in them: nothing of it is
seen outside or left behind, and a cut never touches the network of the host itself. This takes root.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput

NETWORK = "10.213.0."
"""Seen inside the run's own namespace only."""
MAX_HOSTS = 200
"""Addresses of the network that hosts may have."""
DISK_BYTES = 64 * 1024 * 1024
"""Of each master and agent, in memory (tmpfs), when disks may run full."""
FILLER = "filler"
_INSIDE = "MESOS_ACTOR_CHAOS_OUTSIDE"
"""Names the namespaces that `enter` came from; taken out of the environment at once."""

Run = Callable[[Sequence[str]], "subprocess.CompletedProcess[str]"]


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


def missing(
    option: str, which: Callable[[str], str | None] | None = None, user_id: int | None = None, run: Run = _run
) -> str:
    """Why the option (`--cut` or `--disk-full`) cannot be had here, as a sentence; empty when it can."""
    tools = ("ip", "unshare", "nsenter") if option == "--cut" else ("unshare", "mount")
    absent = [tool for tool in tools if (which or shutil.which)(tool) is None]
    what = "each host in a network namespace of its own" if option == "--cut" else "each disk a small tmpfs"
    without = f"; without {option} everything else is tried"
    if absent:
        packages = "iproute2, util-linux" if option == "--cut" else "util-linux, mount"
        return f"{option} needs {what}: the commands {', '.join(absent)} are missing (Debian: {packages}){without}"
    if (os.geteuid() if user_id is None else user_id) != 0:
        return f"{option} needs {what}, and only root may make that; run it as root{without}"
    tried = run(["unshare", *_flags(option), "true"])
    if tried.returncode != 0:
        return f"{option} needs {what}, and namespaces may not be made here: {tried.stderr.strip()}{without}"
    return ""


def _flags(*wanted: str) -> list[str]:
    return ["--mount", *(["--net"] if "--cut" in wanted else [])]


def enter(cut: bool, disk_full: bool) -> None:
    """Go on, as the same command, in namespaces of our own when the options need some. Returns when they do not, or
    when this is inside. Raises InvalidInput, naming what is missing, when they cannot be made."""
    wanted = [name for name, on in (("--cut", cut), ("--disk-full", disk_full)) if on]
    outside = os.environ.pop(_INSIDE, "")
    if not wanted:
        return
    if outside:
        check_inside(outside, _namespaces(), cut)
        return
    for option in wanted:
        if problem := missing(option):
            raise InvalidInput(problem)
    os.environ[_INSIDE] = _namespaces()
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp("unshare", ["unshare", *_flags(*wanted), sys.executable, *sys.orig_argv[1:]])


def check_inside(outside: str, here: str, cut: bool) -> None:
    """Raise InvalidInput when what should be namespaces of our own are those that we came from: bridges and mounts made
    now would be the host's."""
    net_outside, _, mount_outside = outside.partition(" ")
    net, _, mount = here.partition(" ")
    if mount == mount_outside or (cut and net == net_outside):
        raise InvalidInput(f"{_INSIDE}: is set, and these are not the namespaces of a run; unset it")


def _namespaces() -> str:
    return " ".join(str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("net", "mnt"))


def do(line: str) -> None:
    """Run a command. Raises InvalidInput with what it said when it fails."""
    done = _run(line.split())
    if done.returncode != 0:
        raise InvalidInput(
            f"chaos: `{line}` failed: {done.stderr.strip()}; without --cut and --disk-full it is not needed"
        )


# -- the network ------------------------------------------------------------------------------------------------------


def address(number: int) -> str:
    """The address of a host, numbered from 1."""
    return f"{NETWORK}{10 + number}"


def make_network(hosts: int) -> None:
    """A bridge, and a namespace at it for each host."""
    names = Path("/run/netns")
    names.mkdir(exist_ok=True)
    do(f"mount -t tmpfs tmpfs {names}")
    do("ip link set lo up")
    do("ip link add hub type bridge")
    do(f"ip addr add {NETWORK}1/24 dev hub")
    do("ip link set hub up")
    for n in range(1, hosts + 1):
        enter_host = f"nsenter --net={names}/h{n}"
        do(f"ip netns add h{n}")
        do(f"ip link add h{n} type veth peer name eth0 netns h{n}")
        do(f"ip link set h{n} master hub up")
        do(f"{enter_host} ip addr add {address(n)}/24 dev eth0")
        do(f"{enter_host} ip link set eth0 up")
        do(f"{enter_host} ip link set lo up")


def inside_host(number: int) -> list[str]:
    """What goes before a command that is to run on that host."""
    return ["nsenter", f"--net=/run/netns/h{number}"]


def cut(number: int) -> None:
    """Nothing reaches the host, and nothing leaves it, until `heal`."""
    do(f"ip link set h{number} down")


def heal(number: int) -> None:
    do(f"ip link set h{number} up")


# -- the disks --------------------------------------------------------------------------------------------------------


def make_disk(directory: Path) -> None:
    """A small disk of its own for what is below the directory."""
    directory.mkdir(parents=True)
    do(f"mount -t tmpfs -o size={DISK_BYTES},nr_inodes=0,mode=755 tmpfs {directory}")


def fill(directory: Path) -> int:
    """Leave no byte free on the disk of the directory. Returns how many were."""
    descriptor = os.open(directory / FILLER, os.O_WRONLY | os.O_CREAT, 0o600)
    size, step = 0, 1 << 20
    try:
        while step >= 4_096:
            try:
                os.posix_fallocate(descriptor, size, step)
                size += step
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                step //= 2
    finally:
        os.close(descriptor)
    return size


def make_room(directory: Path) -> None:
    (directory / FILLER).unlink(missing_ok=True)
