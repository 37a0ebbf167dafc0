"""What one cgroup uses, as the kernel counts it: exact, with everybody who was ever in it, for a few reads."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from mesos_actor.isolation.cgroup_files import CgroupNode, Stall

T = TypeVar("T")


class DeviceUsage(msgspec.Struct, frozen=True):
    """Since the cgroup was made."""

    device: str
    """`major:minor`."""
    read_bytes: int = 0
    write_bytes: int = 0
    reads: int = 0
    writes: int = 0


class CgroupUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Times and counts are since the cgroup was made. Fields whose controller is not enabled are 0, or None where 0
    would be a lie."""

    cpu_us: int
    cpu_user_us: int
    cpu_system_us: int
    periods: int
    """Periods of cpu.max in which it ran."""
    throttled_periods: int
    throttled_us: int
    memory_bytes: int | None
    memory_peak_bytes: int | None
    """None before Linux 5.19 as well."""
    memory_high_events: int
    memory_max_events: int
    oom_events: int
    """How often an allocation failed past memory.max for good; each is followed by a kill."""
    oom_kills: int
    """Processes killed for it."""
    oom_group_kills: int
    pids: int | None
    pids_max_events: int
    """Forks refused."""
    devices: tuple[DeviceUsage, ...]
    cpu_stall: Stall | None
    memory_stall: Stall | None
    io_stall: Stall | None
    """None where the kernel does not measure pressure."""


class CgroupTotals(msgspec.Struct, frozen=True, kw_only=True):
    """What is worth knowing of one that has ended: a few reads, for there is one for every task."""

    cpu_us: int
    throttled_us: int
    memory_peak_bytes: int
    """0 before Linux 5.19."""
    memory_max_events: int
    oom_kills: int
    pids_max_events: int
    read_bytes: int
    write_bytes: int


def totals_of(directory: str) -> CgroupTotals:
    """What it used in all. Raises OSError, with ENOENT or ENODEV when it is gone.

    The files are read as bytes and not by cgroup_files.py's interfaces, for this happens at the end of every task.
    """
    cpu = _content(f"{directory}/cpu.stat")  # there with every controller or none, so it fails when the cgroup is gone
    memory = _content_if_there(f"{directory}/memory.events")
    peak = _content_if_there(f"{directory}/memory.peak")
    io = _content_if_there(f"{directory}/io.stat")
    return CgroupTotals(
        cpu_us=_number(cpu, b"usage_usec "),
        throttled_us=_number(cpu, b"throttled_usec "),
        memory_peak_bytes=int(peak or b"0"),
        memory_max_events=_number(memory, b"max "),
        oom_kills=_number(memory, b"oom_kill "),
        pids_max_events=_number(_content_if_there(f"{directory}/pids.events"), b"max "),
        read_bytes=sum(map(int, _READ.findall(io))),
        write_bytes=sum(map(int, _WRITTEN.findall(io))),
    )


_READ = re.compile(rb" rbytes=(\d+)")
_WRITTEN = re.compile(rb" wbytes=(\d+)")
_READ_BYTES = 65_536


def _content(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _content_if_there(path: str) -> bytes:
    try:
        return _content(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return b""
        raise


def _number(text: bytes, name: bytes) -> int:
    """The number on the line that begins with `name`; 0 without one."""
    at = 0 if text.startswith(name) else text.find(b"\n" + name) + 1
    if not at and not text.startswith(name):
        return 0
    return int(text[at + len(name) :].split(None, 1)[0])


def usage_of(node: CgroupNode) -> CgroupUsage:
    """What it uses now. Raises OSError, with ENOENT or ENODEV when it is gone."""
    cpu = node.cpu.stat  # there with every controller or none, so it fails when the cgroup is gone
    memory = _if_there(lambda: node.memory.events) or {}
    pids = _if_there(lambda: node.pids.events) or {}
    io = _if_there(lambda: node.io.stat) or {}
    return CgroupUsage(
        cpu_us=cpu.get("usage_usec", 0),
        cpu_user_us=cpu.get("user_usec", 0),
        cpu_system_us=cpu.get("system_usec", 0),
        periods=cpu.get("nr_periods", 0),
        throttled_periods=cpu.get("nr_throttled", 0),
        throttled_us=cpu.get("throttled_usec", 0),
        memory_bytes=_if_there(lambda: node.memory.current),
        memory_peak_bytes=_if_there(lambda: node.memory.peak),
        memory_high_events=memory.get("high", 0),
        memory_max_events=memory.get("max", 0),
        oom_events=memory.get("oom", 0),
        oom_kills=memory.get("oom_kill", 0),
        oom_group_kills=memory.get("oom_group_kill", 0),
        pids=_if_there(lambda: node.pids.current),
        pids_max_events=pids.get("max", 0),
        devices=tuple(
            DeviceUsage(
                device,
                figures.get("rbytes") or 0,
                figures.get("wbytes") or 0,
                figures.get("rios") or 0,
                figures.get("wios") or 0,
            )
            for device, figures in sorted(io.items())
        ),
        cpu_stall=_if_there(lambda: node.cpu.pressure),
        memory_stall=_if_there(lambda: node.memory.pressure),
        io_stall=_if_there(lambda: node.io.pressure),
    )


def _if_there(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise
