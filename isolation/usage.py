"""How much the process trees of containers use, by psutil."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import Usage

MAX_PROCESSES = 20_000
"""Processes whose times and memory are read in one measurement; past that, a tree's figures are too small."""


def measure(pids: Mapping[ContainerId, int], now_us: int) -> tuple[Usage, ...]:
    """What the trees below these main processes use now; a container whose processes are all gone is absent.

    A tree is the main process, its session and everybody's descendants. CPU time includes children that were waited
    for, so that what short-lived ones used is not lost; what an orphan's children used before it was adopted is. One
    pass over all processes of the host, however many containers are asked about: call it off the loop.
    """
    owner_of = {pid: container for container, pid in pids.items() if pid > 0}
    parents: dict[int, int] = {}
    processes: dict[int, psutil.Process] = {}
    for process in psutil.process_iter(["ppid"]):
        processes[process.pid] = process
        parents[process.pid] = process.info["ppid"] or 0
    sums: dict[ContainerId, list[int]] = {}
    known: dict[int, ContainerId | None] = dict(owner_of)
    measured = 0
    for pid, process in processes.items():
        container = _owner(pid, parents, known, owner_of)
        if container is None:
            continue
        measured += 1
        if measured > MAX_PROCESSES:
            break
        try:
            with process.oneshot():
                times, rss = process.cpu_times(), process.memory_info().rss
                ended = process.status() == psutil.STATUS_ZOMBIE
        except psutil.Error:
            continue  # gone, or not ours to look at
        if ended:
            continue
        total = sums.setdefault(container, [0, 0, 0])
        total[0] += 1
        total[1] += int(1000 * (times.user + times.system + times.children_user + times.children_system))
        total[2] += rss
    return tuple(
        Usage(container, figures[0], figures[1], figures[2], now_us)
        for container in pids
        if (figures := sums.get(container)) is not None
    )


def _owner(
    pid: int, parents: Mapping[int, int], known: dict[int, ContainerId | None], leaders: Mapping[int, ContainerId]
) -> ContainerId | None:
    """Whose process this is: the nearest ancestor that is a main process, else whoever leads its session."""
    chain = []
    at = pid
    while at not in known:
        chain.append(at)
        known[at] = None  # ends a circle, should a number have been given away while we looked
        at = parents.get(at, 0)
        if at == 0:
            break
    container = known.get(at)
    for link in reversed(chain):
        if container is None:
            container = leaders.get(_session_of(link))
        known[link] = container
    return container


def _session_of(pid: int) -> int:
    try:
        return os.getsid(pid)
    except OSError:
        return 0
