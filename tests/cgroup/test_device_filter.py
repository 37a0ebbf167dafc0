"""A cgroup's device filter on a real kernel: what it forbids fails, for root too."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.isolation.cgroup import CgroupError, CgroupTree
from mesos_actor.isolation.device_filter import ANY, DEFAULT_RULES, DeviceRule, attach

if TYPE_CHECKING:
    Run = Any

pytestmark = pytest.mark.cgroup
TRY = """
cd "$TMPDIR" && rm -f mem null disk
head -c 1 /dev/zero >/dev/null && echo zero
mknod mem c 1 1 && head -c 1 mem >/dev/null && echo mem
mknod null c 1 3 && echo >null && echo null
mknod disk b 8 0 && head -c 1 disk >/dev/null && echo disk
true
"""


def tried(run: Run, cgroup: Any) -> list[str]:
    process = run(cgroup, TRY, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=50)
    return out.decode().split()  # type: ignore[no-any-return]


def test_only_allowed_devices_can_be_used(tree: CgroupTree, run: Run) -> None:
    cgroup = tree.create("devices")
    assert {"zero", "null", "mem"} <= set(tried(run, cgroup))

    attach(cgroup.directory, DEFAULT_RULES)
    assert tried(run, cgroup) == ["zero", "null"]
    attach(cgroup.directory, (*DEFAULT_RULES, DeviceRule("c", 1, 1, "r")))
    assert tried(run, cgroup) == ["zero", "mem", "null"]
    attach(cgroup.directory, (DeviceRule("c", 1, 3, "rw"),))  # no mknod, no zero
    assert tried(run, cgroup) == []


def test_member_of_a_pod_has_no_more_than_the_pod(tree: CgroupTree, run: Run) -> None:
    pod = tree.create("pod")
    member = tree.create("member", (), pod)
    attach(pod.directory, DEFAULT_RULES)
    attach(member.directory, (DeviceRule("c", ANY, ANY, "rwm"),))

    assert tried(run, member) == ["zero", "null"]


def test_what_cannot_be_attached_says_why(tree: CgroupTree) -> None:
    cgroup = tree.create("devices")
    cgroup.destroy()

    with pytest.raises(CgroupError, match="devices: cannot attach a device filter: No such file or directory"):
        attach(cgroup.directory, DEFAULT_RULES)
    pid = os.fork()
    if pid == 0:
        os.setresuid(65_534, 65_534, 65_534)
        try:
            attach("/sys/fs/cgroup", DEFAULT_RULES)
        except CgroupError as error:
            os._exit(7 if "it takes root or CAP_BPF; run the agent as root" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
