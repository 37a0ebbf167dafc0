"""A container's cgroup from its making to its end, whatever its processes do; and the tree around it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.cgroup import Cgroup, CgroupError, CgroupTree, Unusable, make_tree
from mesos_actor.isolation.cgroup_files import CgroupNode
from mesos_actor.isolation.cgroup_host import SELF, find
from mesos_actor.isolation.events import CgroupEvents, Emptied, Frozen
from mesos_actor.isolation.limits import Limits, writes_of

if TYPE_CHECKING:
    Kit = Any
    Run = Any

pytestmark = pytest.mark.cgroup
TOP = "/sys/fs/cgroup"
MIB = 1 << 20
NOBODY = 65_534
SLEEP = "exec sleep 1000"
HOG = "while :; do :; done"
FAMILY = """
(setsid sleep 1000 & exit 0)
(setsid sh -c 'trap "" TERM INT HUP; (setsid sleep 1000 & exit 0); while :; do sleep 1000; done' & exit 0)
"""
"""Double-forked, in sessions of their own, deaf to signals, orphans all."""


def test_family_that_forked_away_is_killed_to_the_last(
    tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit
) -> None:
    cgroup = tree.create("family")
    events.watch(cgroup)
    main = run(cgroup, FAMILY)
    assert main.wait(kit.patience_s) == 0
    kit.until(lambda: len(cgroup.pids()) == 4, "four left behind")
    pids = cgroup.pids()

    assert cgroup.kill(kit.patience_s)

    assert kit.wait_for(events, Emptied, "family") == Emptied("family")
    assert (cgroup.is_populated(), cgroup.pids()) == (False, ())
    assert [pid for pid in pids if Path(f"/proc/{pid}/exe").exists()] == []


def test_frozen_hog_stands_and_goes_on(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    cgroup = tree.create("frozen")
    events.watch(cgroup)
    run(cgroup, HOG)
    kit.until(lambda: kit.usage(cgroup).cpu_us > 100_000, "it runs")

    assert cgroup.freeze(kit.patience_s)
    assert kit.wait_for(events, Frozen, "frozen") == Frozen("frozen", True)
    assert kit.cpu_share(1, cgroup) == [0.0]
    assert cgroup.thaw(kit.patience_s)
    assert kit.cpu_share(1, cgroup)[0] > 0.1
    assert cgroup.freeze(kit.patience_s)
    assert cgroup.kill(kit.patience_s)  # a frozen one dies too


def test_wait_that_ends_without_what_it_waited_for_says_so(tree: CgroupTree, run: Run, kit: Kit) -> None:
    cgroup = tree.create("busy")
    process = run(cgroup, SLEEP)
    kit.until(lambda: process.pid in cgroup.pids(), "it is in")
    start = time.monotonic()

    assert not cgroup.wait_empty(0.2)
    assert time.monotonic() - start >= 0.2


def test_ending_what_is_gone_is_no_error(tree: CgroupTree) -> None:
    cgroup = tree.create("gone")
    cgroup.destroy()

    cgroup.destroy()
    cgroup.signal_kill()
    assert cgroup.kill()
    assert (cgroup.usage(), cgroup.pids(), cgroup.is_populated(), cgroup.exists()) == (None, (), False, False)
    with pytest.raises(CgroupError, match="No such file"):
        cgroup.enter(os.getpid())


def test_existing_one_is_not_taken_over(tree: CgroupTree) -> None:
    tree.create("twice")

    with pytest.raises(CgroupError, match="exists already: destroy it first"):
        tree.create("twice")


def test_cgroups_that_a_container_made_inside_go_with_it(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """As root it may, and may sit in them."""
    cgroup = tree.create("nest")
    run(cgroup, f'd=$(dirname "$0"); mkdir -p "$d/a/b/c" "$d/a/d" && echo 0 >"$d/a/b/c/cgroup.procs" && {SLEEP}')
    deep = Cgroup("", f"{cgroup.directory}/a/b/c")
    kit.until(deep.pids, "deep down")

    cgroup.destroy(kit.patience_s)

    assert not cgroup.exists()


def test_cgroup_held_busy_by_newcomers_is_removed_in_the_end(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """Somebody from outside moves processes in while it is being removed."""
    cgroup = tree.create("busy")
    stop = threading.Event()

    def disturb() -> None:
        while not stop.is_set():
            subprocess.run(["/bin/sh", "-c", 'echo 0 >"$0" && sleep 0.2', cgroup.procs_path], stderr=-3, check=False)

    disturber = threading.Thread(target=disturb)
    disturber.start()
    kit.until(cgroup.is_populated, "somebody is in")
    for _ in range(50):
        try:
            cgroup.destroy(1)
            break
        except CgroupError as error:
            assert "busy" in str(error)  # told within its time, and may be tried again
    stop.set()
    disturber.join()

    assert not cgroup.exists()


def test_pod_holds_members_and_no_process(tree: CgroupTree, run: Run, kit: Kit) -> None:
    pod = tree.create("pod", writes_of(Limits(mem_request_bytes=128 * MIB)))
    member = tree.create("member", writes_of(Limits(mem_request_bytes=64 * MIB)), pod)
    process = run(member, SLEEP)
    kit.until(lambda: process.pid in member.pids(), "it is in")

    with pytest.raises(CgroupError, match="busy"):
        pod.enter(process.pid)
    assert pod.is_populated()
    pod.destroy(kit.patience_s)
    assert process.wait(kit.patience_s) == -9
    assert not member.exists()


def test_container_with_a_process_cannot_become_a_pod(tree: CgroupTree, run: Run, kit: Kit) -> None:
    cgroup = tree.create("single")
    process = run(cgroup, SLEEP)
    kit.until(lambda: process.pid in cgroup.pids(), "it is in")

    with pytest.raises(CgroupError, match="because processes are directly in"):
        tree.create("member", (), cgroup)


@pytest.mark.parametrize(
    "name", ["cpu.max", "cgroup.procs", "_x", "__", "memory", "x" * 300, "ä" * 242, "a b", "-", "%s"]
)
def test_any_id_names_a_cgroup(tree: CgroupTree, name: str) -> None:
    cgroup = tree.create(name)

    (found,) = tree.names()
    assert found == name or len(name.encode()) > 255
    assert tree.of(found).directory == cgroup.directory
    assert tree.destroy_all_but((name,)) == ()
    assert cgroup.exists()
    assert tree.destroy_all_but(()) == ()
    assert not cgroup.exists()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "a\0b"])
def test_id_that_leads_elsewhere_is_refused(tree: CgroupTree, name: str) -> None:
    with pytest.raises(InvalidInput, match="container_id: "):
        tree.create(name)


def test_leftovers_of_a_dead_agent_are_found_and_ended(tree: CgroupTree, run: Run, kit: Kit) -> None:
    kept, left, empty = tree.create("kept"), tree.create("left"), tree.create("empty")
    processes = [run(kept, SLEEP), run(left, FAMILY + SLEEP), run(left, HOG)]
    kit.until(lambda: kept.is_populated() and len(left.pids()) >= 5, "they run")

    again = make_tree()  # the next agent

    assert again.names() == ("empty", "kept", "left")
    assert again.destroy_all_but(("kept", "unknown"), kit.patience_s) == ()
    assert again.names() == ("kept",)
    assert (left.exists(), empty.exists(), processes[0].poll()) == (False, False, None)
    assert again.of("kept").pids() == (processes[0].pid,)


def test_two_hundred_up_and_down_leave_nothing(tree: CgroupTree) -> None:
    limits = Limits(
        cpus_request_milli=100, cpus_limit_milli=200, mem_request_bytes=32 * MIB, pids_limit=10, cpuset_cpus=(0, 1)
    )
    writes = writes_of(limits)
    before = CgroupNode(TOP).core.stat["nr_descendants"]
    start = time.monotonic()
    cgroups = [tree.create(f"many.{number:03}", writes) for number in range(200)]
    made_s = time.monotonic() - start
    sleepers = [subprocess.Popen(["sleep", "1000"]) for _ in range(20)]
    for number, sleeper in enumerate(sleepers):
        cgroups[number * 10].enter(sleeper.pid)

    start = time.monotonic()
    assert tree.destroy_all_but(()) == ()
    gone_s = time.monotonic() - start

    print(f"200 cgroups made in {made_s:.2f} s, removed in {gone_s:.2f} s")
    assert tree.names() == ()
    assert CgroupNode(TOP).core.stat["nr_descendants"] == before
    assert [sleeper.wait(60) for sleeper in sleepers] == [-9] * 20


# -- delegation -----------------------------------------------------------------------------------------------------


def as_user(directory: str, work: Callable[[], object]) -> dict[str, Any]:
    """What `work` returned, in a process of an ordinary user that is in this cgroup."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            CgroupNode(directory).core.procs = os.getpid()
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            told = {"value": work()}
        except BaseException:  # noqa: BLE001 - told to the test
            told = {"error": traceback.format_exc()}
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        found: dict[str, Any] = json.loads(pipe.read())
    os.waitpid(pid, 0)
    return found


@pytest.fixture
def delegated(tree: CgroupTree) -> Any:
    """A cgroup handed over to an ordinary user, as the kernel's document says."""
    node = CgroupNode(f"{TOP}/user-of-the-test")
    Path(node.directory).mkdir()
    for file in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        os.chown(f"{node.directory}/{file}", NOBODY, NOBODY)
    yield node
    Cgroup("", node.directory).destroy()


def rootless() -> dict[str, Any]:
    """A rootless agent's life: a tree, a container that is limited, seen and ended."""
    tree = make_tree()
    writes = writes_of(Limits(cpus_limit_milli=900, mem_request_bytes=32 * MIB, pids_limit=16))
    cgroup = tree.create("task", writes)
    enter = ["/bin/sh", "-c", 'echo 0 >"$0"; (while :; do :; done) & head -c 200M /dev/zero | tail', cgroup.procs_path]
    status = subprocess.Popen(enter, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()
    empty = cgroup.wait_empty(60)
    usage = cgroup.usage()
    assert usage is not None
    cgroup.destroy()
    return {
        "tree": tree.directory,
        "own": Path("/proc/self/cgroup").read_text().strip(),
        "controllers": tree.controllers,
        "status": status,
        "empty": empty,
        "oom_group_kills": usage.oom_group_kills,
        "throttled": usage.throttled_us > 0,
        "names": tree.names(),
        "again": make_tree().directory,
    }


def test_ordinary_user_with_a_delegated_cgroup_has_limits(delegated: CgroupNode) -> None:
    told = as_user(delegated.directory, rootless)

    assert told == {
        "value": {
            "tree": f"{delegated.directory}/mesos-actor",
            "own": f"0::/user-of-the-test/{SELF}",
            "controllers": ["cpu", "memory", "pids", "cpuset", "io", "hugetlb"],
            "status": -9,
            "empty": True,
            "oom_group_kills": 1,
            "throttled": True,
            "names": [],
            "again": f"{delegated.directory}/mesos-actor",
        }
    }


def test_ordinary_user_without_delegation_is_told_what_to_do(tree: CgroupTree) -> None:
    Path(TOP, "not-handed-over").mkdir()

    def work() -> list[str]:
        try:
            make_tree()
        except Unusable as error:
            return [str(entry) for entry in error.missing]
        return []

    told = as_user(f"{TOP}/not-handed-over", work)
    Cgroup("", f"{TOP}/not-handed-over").destroy()

    (text,) = told["value"]
    assert text.startswith(f"{TOP}/not-handed-over cannot be written by user {NOBODY}: start it as root, or from")
    assert "Delegate=yes" in text


def test_container_of_an_ordinary_user_cannot_leave_its_part(delegated: CgroupNode) -> None:
    def work() -> str:
        try:
            CgroupNode(TOP).core.procs = os.getpid()
        except OSError as error:
            return str(error.strerror)
        return "left"

    assert as_user(delegated.directory, work) == {"value": "Permission denied"}


def test_root_of_the_machine_is_ours() -> None:
    found = find()

    assert (found.own, found.missing) == (TOP, ()), "a test has moved this process away"
    assert {"cpu", "memory", "pids", "io", "cpuset", "hugetlb"} <= set(found.controllers)


def test_given_root_with_processes_is_cleared_for_the_tree(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """A unit with Delegate=yes whose own processes, the agent among them, are directly in it."""
    given = Cgroup("", f"{TOP}/given")
    Path(given.directory).mkdir()
    process = run(given, FAMILY + SLEEP)
    kit.until(lambda: len(given.pids()) >= 5, "they run")

    mine = make_tree(given.directory)
    cgroup = mine.create("task", writes_of(Limits(mem_request_bytes=64 * MIB)))

    assert given.pids() == ()
    assert process.pid in CgroupNode(f"{given.directory}/{SELF}").core.procs
    assert cgroup.node.memory.max == 64 * MIB
    given.destroy(kit.patience_s)
