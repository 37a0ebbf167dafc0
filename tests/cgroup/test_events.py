"""The kernel's notifications, as an event loop gets them."""

from __future__ import annotations

import asyncio
import select
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.isolation.cgroup import CgroupError, CgroupTree
from mesos_actor.isolation.events import CgroupEvents, Counts, Emptied, Event, OomKilled
from mesos_actor.isolation.limits import Limits, writes_of

if TYPE_CHECKING:
    Kit = Any
    Run = Any

pytestmark = pytest.mark.cgroup
GROW = "head -c 400M /dev/zero | tail >/dev/null"


def test_nothing_happens_nothing_is_told(tree: CgroupTree, events: CgroupEvents) -> None:
    assert events.watch(tree.create("quiet")) == Counts()
    assert select.select([events], [], [], 0.3) == ([], [], [])
    assert events.read() == []


def test_what_came_and_went_is_told(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    """Faster than the kernel notifies: populated and empty again in one notification."""
    for number in range(5):
        cgroup = tree.create(f"short.{number}")
        events.watch(cgroup)
        run(cgroup, "exit 0")

        assert kit.wait_for(events, Emptied, cgroup.name) == Emptied(cgroup.name)


def test_what_happened_before_is_in_the_first_counts(
    tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit
) -> None:
    """An agent that comes back learns of the kill that it missed."""
    cgroup = tree.create("missed", writes_of(Limits(mem_request_bytes=32 << 20, pids_limit=3)))
    run(cgroup, GROW + "; sleep 1000").wait(kit.patience_s)
    assert cgroup.wait_empty(kit.patience_s)

    counts = events.watch(cgroup)
    assert (counts.populated, counts.oom_group_kills) == (False, 1)
    assert counts.oom_kills >= 2
    assert events.watch(cgroup) == counts
    assert events.read() == []


def test_many_are_told_apart(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    cgroups = [tree.create(f"one.{number}") for number in range(30)]
    for cgroup in cgroups:
        events.watch(cgroup)
    processes = [run(cgroup, "read line", stdin=-1) for cgroup in cgroups]
    kit.until(lambda: all(cgroup.is_populated() for cgroup in cgroups), "all are in")
    events.read()
    for process in processes[::2]:
        assert process.stdin is not None
        process.stdin.close()

    told: list[object] = []
    for cgroup in cgroups[::2]:
        if Emptied(cgroup.name) not in told:
            kit.wait_for(events, Emptied, cgroup.name, told)
    emptied = {event.container_id for event in told if isinstance(event, Emptied)}
    assert emptied == {cgroup.name for cgroup in cgroups[::2]}


def test_forgotten_one_is_silent(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    cgroup = tree.create("forgotten")
    events.watch(cgroup)
    process = run(cgroup, "exec sleep 1000")
    kit.until(cgroup.is_populated, "it is in")
    events.unwatch("forgotten")
    events.unwatch("forgotten")
    events.read()
    process.kill()
    assert cgroup.wait_empty(kit.patience_s)
    cgroup.destroy()

    assert select.select([events], [], [], 0.2)[0] == [] or events.read() == []


def test_one_that_was_removed_by_others_is_empty(tree: CgroupTree, run: Run, events: CgroupEvents, kit: Kit) -> None:
    cgroup = tree.create("taken")
    events.watch(cgroup)
    process = run(cgroup, "exec sleep 1000")
    kit.until(cgroup.is_populated, "it is in")
    events.read()
    process.kill()
    process.wait(kit.patience_s)
    cgroup.destroy()

    assert kit.wait_for(events, Emptied, "taken") == Emptied("taken")
    events.unwatch("taken")


def test_one_that_is_not_there_cannot_be_watched(tree: CgroupTree, events: CgroupEvents) -> None:
    with pytest.raises(CgroupError, match=r"cgroup\.events: cannot be watched: No such file"):
        events.watch(tree.of("never"))


def test_loop_is_woken(tree: CgroupTree, run: Run, kit: Kit) -> None:
    """One descriptor in an asyncio loop; nothing is polled."""
    cgroup = tree.create("oom", writes_of(Limits(mem_request_bytes=32 << 20)))

    async def watch() -> list[Event]:
        watcher = CgroupEvents()
        told: list[Event] = []
        over = asyncio.Event()

        def on_readable() -> None:
            told.extend(watcher.read())
            if any(isinstance(event, Emptied) for event in told):
                over.set()

        asyncio.get_running_loop().add_reader(watcher.fileno(), on_readable)
        watcher.watch(cgroup)
        run(cgroup, GROW)
        try:
            await asyncio.wait_for(over.wait(), kit.patience_s)
        finally:
            asyncio.get_running_loop().remove_reader(watcher.fileno())
            watcher.close()
        return told

    told = asyncio.run(watch())
    assert [type(event) for event in told].index(OomKilled) < len(told) - 1
    assert told[-1] == Emptied("oom")
