"""Faults in the words of a test: `sim.faults.drop("master-0", fw, nth=2)`, `sim.faults.crash("agent-1", at_s=4)`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.framework import Framework
from mesos_actor.transport.sim.agents import SimAgent
from mesos_actor.transport.sim.faults import (
    LAUNCH_FATES,
    AnyFault,
    Break,
    Clock,
    Crash,
    Cut,
    Delay,
    DieAtSync,
    Drop,
    Duplicate,
    FailSync,
    FullDisk,
    Isolate,
    Launch,
    LaunchFate,
    Pause,
    Reorder,
    SlowSync,
    Sometimes,
    Stall,
    Stop,
)
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.masters import SimMaster

if TYPE_CHECKING:
    from mesos_actor.transport.sim.cluster import SimCluster

Who = str | Host | SimMaster | SimAgent | SimFramework | Framework
"""A host's name, `master-0` or `master0`, or what runs on it."""

_TO_COME = re.compile(r"agent\d+|framework\d+|agent\d+-executor\d+")
"""Hosts that may begin later."""
_AGENT = re.compile(r"agent\d+")
SECOND_US = 1_000_000


class Faults:
    """Adds faults to the plan of a running cluster. Times are virtual seconds since its begin, counts begin at 0.

    Every method raises ConfigError, saying what to write instead, for a host that is not there, a time that is over,
    or a place where a fault strikes already. When a replay file decides what goes wrong, nothing is added."""

    def __init__(self, sim: SimCluster) -> None:
        self._sim = sim
        self.fixed = False
        """A replay file decides: what a test adds is in it, or was found not to matter."""
        self._awaited: set[str] = set()

    def add(self, *faults: AnyFault) -> None:
        """Values of `mesos_actor.testing.faults`."""
        for fault in faults if not self.fixed else ():
            self._sim.world.add_fault(fault)

    def unmet(self) -> tuple[AnyFault, ...]:
        """Those that have not come about so far."""
        return self._sim.world.plan.unmet()

    def never_came(self) -> list[str]:
        """Hosts that faults were added for because they might begin later, and that have not begun."""
        return sorted(self._awaited - set(self._sim.world.hosts))

    # -- messages ----------------------------------------------------------------------------------------------------

    def drop(self, source: Who, destination: Who, *, nth: int) -> None:
        """The `nth` message of this link is lost."""
        self.add(Drop(self.host(source), self.host(destination), nth))

    def duplicate(self, source: Who, destination: Who, *, nth: int, after_s: float = 0.0) -> None:
        """It arrives a second time, so much later."""
        self.add(Duplicate(self.host(source), self.host(destination), nth, (0, _us("after_s", after_s))))

    def delay(self, source: Who, destination: Who, *, nth: int, by_s: float) -> None:
        """It is late, and so is what comes behind it."""
        self.add(Delay(self.host(source), self.host(destination), nth, _us("by_s", by_s)))

    def reorder(self, source: Who, destination: Who, *, nth: int, by_s: float) -> None:
        """It is late, and overtaken."""
        self.add(Reorder(self.host(source), self.host(destination), nth, _us("by_s", by_s)))

    def cut(
        self, one: Who, other: Who, *, at_s: float = 0.0, for_s: float | None = None, one_way: bool = False
    ) -> None:
        """The two do not hear each other (`one_way`: `other` does not hear `one`), for a time or until it is calm."""
        self.add(Cut(self.host(one), self.host(other), self._not_past(at_s), _us_or_none("for_s", for_s), one_way))

    def isolate(self, who: Who, *, at_s: float = 0.0, for_s: float | None = None, one_way: bool = False) -> None:
        """Cut off from everybody (`one_way`: it hears nobody)."""
        self.add(Isolate(self.host(who), self._not_past(at_s), _us_or_none("for_s", for_s), one_way))

    def stall(self, source: Who, destination: Who, *, at_s: float = 0.0, for_s: float | None = None) -> None:
        """What `source` sends to `destination` in that time, or until it is calm, arrives after it, in order."""
        lasts_us = _us_or_none("for_s", for_s)
        self.add(Stall(self.host(source), self.host(destination), self._not_past(at_s), lasts_us))

    def break_links(self, one: Who, other: Who, *, at_s: float) -> None:
        """Their connections are reset."""
        self.add(Break(self.host(one), self.host(other), _us("at_s", at_s)))

    # -- processes and machines --------------------------------------------------------------------------------------

    def crash(
        self,
        who: Who,
        *,
        at_s: float,
        restart_after_s: float | None = None,
        machine: bool = False,
        keep_unsynced: int = 0,
    ) -> None:
        """kill -9 (`machine`: a power cut). Without `restart_after_s` it never returns."""
        self._can_end(who)
        restart_us = _us_or_none("restart_after_s", restart_after_s)
        self.add(Crash(self.host(who), _us("at_s", at_s), restart_us, machine, keep_unsynced))

    def stop(self, who: Who, *, at_s: float, restart_after_s: float) -> None:
        """SIGTERM, and a new process later."""
        self._can_end(who)
        self.add(Stop(self.host(who), _us("at_s", at_s), _us("restart_after_s", restart_after_s)))

    def pause(self, who: Who, *, at_s: float, for_s: float | None = None) -> None:
        """It stands still, for a time or until it is calm: a framework that does not answer."""
        self.add(Pause(self.host(who), _us("at_s", at_s), _us_or_none("for_s", for_s)))

    def clock(self, who: Who, *, offset_s: float = 0.0, drift_ppm: int = 0, at_s: float = 0.0) -> None:
        """Its clock is wrong by so much, and gains so many millionths."""
        if not -500_000 <= drift_ppm <= 500_000:
            raise ConfigError(f"drift_ppm {drift_ppm}: must be within 500000 millionths of the true rate")
        self.add(Clock(self.host(who), self._not_past(at_s), round(offset_s * SECOND_US), drift_ppm))

    # -- disks and containers ----------------------------------------------------------------------------------------

    def crash_at_sync(self, who: Who, *, nth: int) -> None:
        """The host dies before its `nth` sync is done, and begins again."""
        self._can_end(who)
        self.add(DieAtSync(self.host(who), nth))

    def slow_sync(self, who: Who, *, nth: int, by_s: float) -> None:
        """The sync takes so much longer."""
        self.add(SlowSync(self.host(who), nth, _us("by_s", by_s)))

    def fail_sync(self, who: Who, *, nth: int) -> None:
        """The disk refuses it: the process ends, and begins again."""
        self._can_end(who)
        self.add(FailSync(self.host(who), nth))

    def fill_disk(self, who: Who, *, at_s: float, for_s: float | None = None) -> None:
        """No space left."""
        self._can_end(who)
        self.add(FullDisk(self.host(who), _us("at_s", at_s), _us_or_none("for_s", for_s)))

    def launch(self, agent: Who, *, nth: int, fate: LaunchFate) -> None:
        """What becomes of the agent's `nth` container: fail, oom, lost_exit, unknown_exit, hang, die."""
        if fate not in LAUNCH_FATES:
            raise ConfigError(f"fate {fate!r} of a launch: must be one of {', '.join(LAUNCH_FATES)}")
        host = self.host(agent)
        if _AGENT.fullmatch(host) is None:
            raise ConfigError(f"agent {host!r} of a launch: containers are launched on agents, as agent-0")
        self.add(Launch(host, nth, fate))

    def sometimes(self, site: str, *, nth: int) -> None:
        """The rare branch `site`, one of `faults.SITES`, is taken when it is asked for the `nth` time."""
        self.add(Sometimes(site, nth))

    # -- names -------------------------------------------------------------------------------------------------------

    def host(self, who: Who) -> str:
        """The name of the host that `who` means."""
        if isinstance(who, Framework):
            for mine in self._sim.frameworks:
                if mine.is_running(who):
                    return mine.name
            raise ConfigError(
                f"{type(who).__name__}: this framework is not in the cluster; add it by `sim.spawn` first"
            )
        if not isinstance(who, str):
            return who.name
        hosts = self._sim.world.hosts
        plain = re.sub(r"-(?=\d)", "", who).replace("-executor-", "-executor")
        if plain == "master0" and "master" in hosts:
            plain = "master"
        for name in (who, plain):
            if name in hosts:
                return name
        if _TO_COME.fullmatch(plain):
            self._awaited.add(plain)
            return plain
        raise ConfigError(f"host {who!r}: there is none; there are {', '.join(sorted(hosts))}")

    def _can_end(self, who: Who) -> None:
        host = self._sim.world.hosts.get(self.host(who))
        if host is not None and not host.restartable:
            raise ConfigError(
                f"{host.name}: its framework is one object, which serves one process; give `sim.spawn` its class, or a "
                "function that makes one, to let that process end and be followed by another"
            )

    def _not_past(self, at_s: float) -> int:
        return max(_us("at_s", at_s), self._sim.world.elapsed_us) if at_s == 0 else _us("at_s", at_s)


def _us(name: str, seconds: float) -> int:
    if not 0 <= seconds < 1e9:
        raise ConfigError(f"{name} {seconds}: must be a number of virtual seconds, not less than 0")
    return round(seconds * SECOND_US)


def _us_or_none(name: str, seconds: float | None) -> int | None:
    return None if seconds is None else _us(name, seconds)
