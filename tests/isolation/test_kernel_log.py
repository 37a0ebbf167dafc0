"""The kernel's words about whom it killed, as Linux 6.1 and 6.18 have them."""

from __future__ import annotations

import os
from pathlib import Path

from mesos_actor.isolation.kernel_log import KernelLog, Victim

PLACE = "/own/mesos-actor-0a1b2c3d/a.000000000001"
SUMMARY = (
    "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    f"oom_memcg={PLACE},task_memcg={PLACE},task=tail,pid=71,uid=0"
)
KILLED = (
    "Memory cgroup out of memory: Killed process 71 (tail) total-vm:66252kB, anon-rss:64948kB, file-rss:1408kB, "
    "shmem-rss:0kB, UID:0 pgtables:172kB oom_score_adj:0"
)
GROUP = "Memory cgroup out of memory: Killed process 70 (sh (x) total-vm:) total-vm:2576kB, anon-rss:96kB, file-rss:0kB"
MOUNTED = "/sys/fs/cgroup/own/mesos-actor-0a1b2c3d"


def log_of(path: Path, *lines: str) -> KernelLog:
    path.write_text("")
    log = KernelLog(str(path))
    for line in lines:
        log.take(line)
    return log


def test_the_biggest_process_of_a_container_is_found(tmp_path: Path) -> None:
    log = log_of(tmp_path / "kmsg", "usb 1-1: new device", SUMMARY, KILLED, "Tasks in x are going to be killed", GROUP)

    assert log.victims(f"{MOUNTED}/a.000000000001") == [Victim(71, "tail", (64_948 + 1_408) * 1_024, PLACE)]
    assert log.victims(f"{MOUNTED}/a.000000000002") == []
    assert log.victims("/sys/fs/cgroup/own/mesos-actor-ffffffff/a.000000000001") == []


def test_one_below_a_container_is_the_containers(tmp_path: Path) -> None:
    log = log_of(tmp_path / "kmsg", SUMMARY.replace(f"task_memcg={PLACE}", f"task_memcg={PLACE}/inner/most"), KILLED)

    assert [victim.pid for victim in log.victims(f"{MOUNTED}/a.000000000001")] == [71]


def test_pid_of_another_summary_is_not_taken_for_it(tmp_path: Path) -> None:
    log = log_of(tmp_path / "kmsg", SUMMARY.replace("pid=71", "pid=72"), KILLED)

    assert log.victims(f"{MOUNTED}/a.000000000001") == []


def test_records_are_read_once_as_the_device_gives_them(tmp_path: Path) -> None:
    """A pipe gives what was written to it in one read, as the device does with a record."""
    path = tmp_path / "kmsg"
    os.mkfifo(path)
    log = KernelLog(str(path))
    assert log.victims(f"{MOUNTED}/a.000000000001") == []
    with path.open("w") as device:
        device.write(f"3,1,1,-;{SUMMARY}\n SUBSYSTEM=memory\n")
        device.flush()
        log.victims("")
        device.write(f"3,2,2,-;{KILLED}\n")
        device.flush()
        assert [victim.pid for victim in log.victims(f"{MOUNTED}/a.000000000001")] == [71]
    log.close()


def test_log_that_may_not_be_read_tells_nothing(tmp_path: Path) -> None:
    assert KernelLog(str(tmp_path / "missing")).victims(MOUNTED) == []
