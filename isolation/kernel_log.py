"""Which processes the kernel killed for want of memory in a cgroup, as its log tells.

When the killing is done nobody is left to look at, so the log is the only place that knows the biggest process. It may
be read by root, or by anybody where sysctl kernel.dmesg_restrict is 0; whoever may not learns less, which is no error.

    oom-kill:constraint=CONSTRAINT_MEMCG,...,oom_memcg=/tree/x,task_memcg=/tree/x,task=tail,pid=71,uid=0
    Memory cgroup out of memory: Killed process 71 (tail) total-vm:66252kB, anon-rss:64948kB, file-rss:1408kB, ...

Kernel: mm/oom_kill.c (`dump_oom_summary`, `__oom_kill_process`); Documentation/ABI/testing/dev-kmsg.
"""

from __future__ import annotations

import errno
import os
import re
from collections import deque

import msgspec

from mesos_actor.isolation.cgroup_family import key_of, keys_in

RECORD_BYTES = 8_192
"""The most that one read of /dev/kmsg gives."""
MAX_RECORDS = 20_000
"""Records read at one time; older news goes first."""
MAX_VICTIMS = 200
"""Remembered until somebody asks for them; the oldest is dropped."""

_SUMMARY = re.compile(r"oom-kill:.*\btask_memcg=(?P<place>[^,]*),task=(?P<name>.*),pid=(?P<pid>\d+),uid=\d+")
_KILLED = re.compile(r"Killed process (?P<pid>\d+) \((?P<name>.*)\) total-vm:\d+kB(?P<rest>.*)")
_RSS = re.compile(r"(?:anon|file|shmem)-rss:(\d+)kB")


class Victim(msgspec.Struct, frozen=True):
    """A process that was killed. `rss_bytes`: what it had in memory."""

    pid: int
    name: str
    rss_bytes: int
    place: str
    """Its cgroup in the tree; empty: of a group that was killed with another one."""


class KernelLog:
    """The log, read on from where it was read last. Never raises."""

    def __init__(self, path: str = "/dev/kmsg") -> None:
        self._path = path
        self._descriptor = -1
        self._refused = False
        self._place: dict[int, str] = {}
        self._victims: deque[Victim] = deque(maxlen=MAX_VICTIMS)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1

    def victims(self, directory: str) -> list[Victim]:
        """Those that were chosen in this cgroup or below it. `directory`: where it is mounted."""
        self._read()
        key = key_of(directory)
        return [victim for victim in self._victims if key in keys_in(victim.place)]

    def _read(self) -> None:
        if self._descriptor < 0 and not self._refused:
            try:
                self._descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError:
                self._refused = True
        if self._descriptor < 0:
            return
        for _ in range(MAX_RECORDS):
            try:
                record = os.read(self._descriptor, RECORD_BYTES)
            except OSError as error:
                if error.errno == errno.EPIPE:
                    continue  # overwritten before we came to it: the next read goes on at the oldest
                return
            if not record:
                return
            self.take(record.decode(errors="replace").partition(";")[2].partition("\n")[0])

    def take(self, line: str) -> None:
        """Learn from one line of the log."""
        if found := _SUMMARY.search(line):
            self._place = {int(found["pid"]): found["place"]}
        elif found := _KILLED.search(line):
            pid = int(found["pid"])
            rss_bytes = 1024 * sum(map(int, _RSS.findall(found["rest"])))
            self._victims.append(Victim(pid, found["name"], rss_bytes, self._place.pop(pid, "")))
