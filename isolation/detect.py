"""What this host has, for resources that nobody declared.

By Mesos' rules (docs/attributes-resources.md, src/slave/containerizer/containerizer.cpp `Containerizer::resources`,
src/slave/constants.hpp): all cores; memory less 1 GB, or half of it below 2 GB; disk of the work directory's file
system less 5 GB, or half of it below 10 GB; ports 31000 to 32000. What cannot be measured is 1 cpu, 1 GB of memory,
10 GB of disk, with a warning. A GB is 1024 MB, a MB is 1024 * 1024 bytes. GPUs are never guessed: declare them.

Cores are the host's, as in Mesos, whatever CPU affinity or cgroup this process was given: the agent then shares out
more than it may use, so `detect` warns when it may use fewer. Declare `cpus` to say otherwise.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

from mesos_actor.actors.resources import MIB, MILLI, Resource, Resources

DEFAULT_CPUS = 1
DEFAULT_MEM_MB = 1_024
DEFAULT_DISK_MB = 10_240
DEFAULT_PORTS = ((31_000, 32_000),)
_KEPT_MEM_MB = 1_024
_KEPT_DISK_MB = 5_120


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """What psutil said; None for what it could not say."""

    cpus: int | None
    """Logical cores of the host."""
    usable_cpus: int | None
    """Those of them this process may run on."""
    mem_bytes: int | None
    """Physical memory."""
    disk_bytes: int | None
    """Size of the work directory's file system."""


class Detected(msgspec.Struct, frozen=True):
    """`resources` is everything an agent offers; `warnings` are sentences for the log."""

    resources: Resources
    warnings: tuple[str, ...] = ()


def detect(declared: Resources, measured: Measured, *, without: Sequence[str] = ()) -> Detected:
    """`declared` and, for each of cpus, mem, disk and ports that it does not name for any role, what was measured.

    `without` names those that are declared to be absent: `disk:0` is no entry of a bundle and still a declaration.
    """
    named = declared.names() | frozenset(without)
    found: list[Resource] = []
    warnings: list[str] = []
    if "cpus" not in named:
        found.append(Resource("cpus", _cpus(measured, warnings) * MILLI))
    if "mem" not in named:
        kept = _kept_mb(measured.mem_bytes, _KEPT_MEM_MB, DEFAULT_MEM_MB, "mem", warnings)
        found.append(Resource("mem", kept * MILLI))
    if "disk" not in named:
        kept = _kept_mb(measured.disk_bytes, _KEPT_DISK_MB, DEFAULT_DISK_MB, "disk", warnings)
        found.append(Resource("disk", kept * MILLI))
    if "ports" not in named:
        found.append(Resource("ports", ranges=DEFAULT_PORTS))
    return Detected(declared + Resources(tuple(found)).normalized(), tuple(warnings))


def _cpus(measured: Measured, warnings: list[str]) -> int:
    if not measured.cpus or measured.cpus < 0:
        warnings.append(_not_measured("cpus", str(DEFAULT_CPUS)))
        return DEFAULT_CPUS
    if measured.usable_cpus is not None and 0 < measured.usable_cpus < measured.cpus:
        warnings.append(
            f"cpus: offering all {measured.cpus} cores of the host, but this process may use only "
            f"{measured.usable_cpus}; declare cpus:{measured.usable_cpus} in --resources to offer those"
        )
    return measured.cpus


def _kept_mb(size_bytes: int | None, kept_back_mb: int, default_mb: int, name: str, warnings: list[str]) -> int:
    """What is offered of a size, in whole MB: all but `kept_back_mb` when there is twice that, else half."""
    size_mb = 0 if size_bytes is None else size_bytes // MIB
    if size_mb < 2:
        warnings.append(_not_measured(name, f"{default_mb} MB"))
        return default_mb
    return size_mb - kept_back_mb if size_mb >= 2 * kept_back_mb else size_mb // 2


def _not_measured(name: str, default: str) -> str:
    return f"{name}: could not be measured, offering {default}; declare {name} in --resources"


def measure(work_dir: Path) -> Measured:
    """What psutil says of this host and of the file system that `work_dir` is on or will be on. Never raises."""
    return Measured(
        cpus=psutil.cpu_count(logical=True),
        usable_cpus=_usable_cpus(),
        mem_bytes=_mem_bytes(),
        disk_bytes=_disk_bytes(work_dir),
    )


def _usable_cpus() -> int | None:
    try:
        return len(os.sched_getaffinity(0))
    except OSError:
        return None


def _mem_bytes() -> int | None:
    try:
        return int(psutil.virtual_memory().total)
    except (OSError, psutil.Error):
        return None


def _disk_bytes(work_dir: Path) -> int | None:
    existing = work_dir.absolute()
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    try:
        return int(psutil.disk_usage(str(existing)).total)
    except (OSError, psutil.Error):
        return None
