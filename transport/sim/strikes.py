"""How timed faults strike a world, and are undone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mesos_actor.transport.sim.faults import (
    Break,
    Clock,
    Crash,
    Cut,
    FullDisk,
    Isolate,
    Pause,
    Stall,
    Stop,
    Timed,
    hosts_of,
)
from mesos_actor.transport.sim.schedule import START_US

if TYPE_CHECKING:
    from mesos_actor.transport.sim.host import Host
    from mesos_actor.transport.sim.world import World


def arrange(world: World, faults: Iterable[Timed]) -> None:
    """Have them strike when they are due; what is due already strikes next."""
    for fault in faults:
        world.schedule.at(max(world.schedule.now_us, START_US + fault.at_us), _begin, world, fault)


def _begin(world: World, fault: Timed) -> None:
    """Strike, unless all is calm or the fault's hosts are not there (yet)."""
    names = hosts_of(fault)
    if world.plan.calm or any(name not in world.hosts for name in names):
        return
    if not _strike(world, fault, world.hosts[names[0]]):
        return
    world.plan.met[fault] = None
    world._happened("fault", names[0], detail=fault.text())
    lasts_us = getattr(fault, "lasts_us", None)
    if lasts_us is None and isinstance(fault, Crash | Stop):
        lasts_us = fault.restart_after_us
    if lasts_us is not None:
        world.schedule.after(lasts_us, _undo, world, fault)


def _strike(world: World, fault: Timed, host: Host) -> bool:
    """Whether it meant anything."""
    match fault:
        case Cut(one, other):
            world.cut(one, other, one_way=fault.one_way)
        case Isolate():
            for other in _others(world, host):
                world.cut(other, host.name, one_way=fault.one_way)
        case Stall(source, destination):
            world.stall(source, destination, fault.lasts_us)
        case Break(one, other):
            world.break_links(one, other)
        case Crash() if host.up and host.restartable:
            host.gone = fault.restart_after_us is None
            host.crash(keep_unsynced=fault.keep_unsynced, machine=fault.machine)
        case Stop() if host.up and host.restartable:
            host.stop()
        case Pause() if host.up:
            host.hang() if fault.lasts_us is None else host.pause(fault.lasts_us)
        case FullDisk() if host.restartable:
            host.fill_disk(True)
        case Clock():
            host.set_clock(fault.offset_us, fault.drift_ppm)
        case _:
            return False
    return True


def _undo(world: World, fault: Timed) -> None:
    host = world.hosts[hosts_of(fault)[0]]
    match fault:
        case Cut(one, other):
            world.heal(one, other)
        case Isolate():
            for other in _others(world, host):
                world.heal(host.name, other)
        case Crash() | Stop():
            if not host.retired:
                host.start()
        case FullDisk():
            host.fill_disk(False)
        case _:
            return


def _others(world: World, host: Host) -> list[str]:
    return [name for name in world.hosts if name != host.name]
