"""What goes wrong in a chaos run, when, and how it is put right: drawn from a seed.

Never more than a minority of the masters is away at once, except that now and then all of them are killed together. Of
agents and frameworks any number may be away. A master or agent whose disk is full may stop with a StorageError, as
docs/operations.md promises; it is started again when there is room. Nothing else may end by itself.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesos_actor.actors.chaos import hosts
from mesos_actor.actors.chaos.leads import Leads
from mesos_actor.actors.chaos.processes import LOOK_S, Kind, Part, Trouble

AWAY_S = (0.2, 3.0)
"""Between kill -9 and the next start."""
STOPPED_S = (0.5, 4.0)
"""How long a process is stopped, cut off, or without room."""
BETWEEN_S = (0.1, 1.2)
TRY_LIMIT_S = 0.5
"""A fault that could not be done for so long is given up for another: too much is away already."""

Fault = Literal["kill", "kill-all-masters", "pause", "cut", "disk-full"]
WEIGHTS: dict[tuple[Fault, Kind], int] = {
    ("kill", "master"): 35,
    ("kill", "agent"): 20,
    ("kill", "framework"): 15,
    ("kill-all-masters", "master"): 2,
    ("pause", "master"): 15,
    ("pause", "agent"): 8,
    ("pause", "framework"): 5,
    ("cut", "master"): 20,
    ("cut", "agent"): 12,
    ("cut", "framework"): 6,
    ("disk-full", "master"): 6,
    ("disk-full", "agent"): 6,
}
"""How often what is done to what, of those that are asked for."""


@dataclass
class Hit:
    """What was done to the leading master, and when."""

    fault: Fault
    at_s: float


def has_history(framework: Part) -> bool:
    """Whether a framework has come to its end."""
    return (framework.directory / f"{framework.name}.history").exists()


class Faults:
    """Does them until told to end. `done` counts what was done to what."""

    def __init__(
        self,
        parts: Sequence[Part],
        leads: Leads,
        rng: random.Random,
        chosen: Sequence[tuple[Fault, Kind]],
        host_of: dict[str, int],
        disk_of: dict[str, Path],
    ) -> None:
        self.parts, self.leads, self.rng = parts, leads, rng
        self.chosen = list(chosen)
        #: name of a part -> the number of its host, of those that can be cut off; the directory of its disk.
        self.host_of, self.disk_of = host_of, disk_of
        self.masters = [part for part in parts if part.kind == "master"]
        self.done: Counter[str] = Counter()
        self.killed = 0
        #: Processes that stopped, as they may, because their disk was full.
        self.stopped_full = 0
        self.hits: list[Hit] = []
        self.repairs: set[asyncio.Task[None]] = set()
        self.troubles: list[str] = []

    async def one(self) -> None:
        """Do one fault, drawn. Raises Trouble when a process has ended that should not have."""
        fault, kind = self.rng.choices(self.chosen, [WEIGHTS[one] for one in self.chosen])[0]
        deadline = time.monotonic() + TRY_LIMIT_S
        while not self._do(fault, kind) and time.monotonic() < deadline:
            await asyncio.sleep(LOOK_S)
            self.look_for_trouble()
        await asyncio.sleep(self.rng.uniform(*BETWEEN_S))
        self.look_for_trouble()

    async def repaired(self) -> None:
        """Wait until everything is back."""
        while self.repairs:
            await asyncio.wait(self.repairs)
        self.look_for_trouble()

    def look_for_trouble(self) -> None:
        """Raise Trouble when a process has ended by itself, but for a framework that has left its history."""
        dead = [p for p in self.parts if not p.away and not p.is_alive() and not has_history(p)]
        self.troubles += [f"{part.name} ended by itself:\n{part.tail()}" for part in dead]
        if self.troubles:
            raise Trouble("\n".join(self.troubles))

    # -- one fault ----------------------------------------------------------------------------------------------------

    def _do(self, fault: Fault, kind: Kind) -> bool:
        """Do it, if it can be done now."""
        if fault == "kill-all-masters":
            return self._kill_all_masters()
        part = self._pick(kind)
        if part is None or (fault == "disk-full" and any(self._is_full(one) for one in self.parts)):
            return False
        if part.kind == "master" and part.name == self.leads.leader():
            self.hits.append(Hit(fault, time.time()))
        self.done[f"{fault} {kind}"] += 1
        part.away = True
        if fault == "kill":
            self._kill(part)
        elif fault == "pause":
            self._repair(self._pause(part))
        elif fault == "cut":
            self._repair(self._cut(part))
        else:
            self._repair(self._fill_disk(part))
        return True

    def _pick(self, kind: Kind) -> Part | None:
        """One that is here; of masters half of the time the leader, and none when too many are away."""
        here = [part for part in self.parts if part.kind == kind and not part.away]
        if not here:
            return None
        if kind != "master":
            return self.rng.choice(here)
        if len(self.masters) - len(here) >= max(1, (len(self.masters) - 1) // 2):  # a single one goes down, too
            return None
        leader = self.leads.leader()
        leading = [part for part in here if part.name == leader]
        return leading[0] if leading and self.rng.random() < 0.5 else self.rng.choice(here)

    def _kill_all_masters(self) -> bool:
        if any(master.away for master in self.masters):
            return False
        self.hits.append(Hit("kill-all-masters", time.time()))
        self.done["kill-all-masters"] += 1
        for master in self.masters:
            master.away = True
            self._kill(master)
        return True

    def _kill(self, part: Part) -> None:
        self.killed += 1
        part.kill()
        self._repair(self._start_again(part))

    def _is_full(self, part: Part) -> bool:
        return part.name in self.disk_of and (self.disk_of[part.name] / hosts.FILLER).exists()

    # -- and its repair -----------------------------------------------------------------------------------------------

    def _repair(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.ensure_future(work)
        self.repairs.add(task)
        task.add_done_callback(self._repaired)

    def _repaired(self, task: asyncio.Task[None]) -> None:
        self.repairs.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.troubles.append(str(error) or repr(error))

    async def _start_again(self, part: Part) -> None:
        await asyncio.sleep(self.rng.uniform(*AWAY_S))
        part.start()
        await part.until_ready()

    async def _pause(self, part: Part) -> None:
        part.signal(signal.SIGSTOP)
        await asyncio.sleep(self.rng.uniform(*STOPPED_S))
        part.signal(signal.SIGCONT)
        part.away = False

    async def _cut(self, part: Part) -> None:
        hosts.cut(self.host_of[part.name])
        await asyncio.sleep(self.rng.uniform(*STOPPED_S))
        hosts.heal(self.host_of[part.name])
        part.away = False

    async def _fill_disk(self, part: Part) -> None:
        disk, from_bytes = self.disk_of[part.name], part.log_bytes()
        hosts.fill(disk)
        await asyncio.sleep(self.rng.uniform(*STOPPED_S))
        hosts.make_room(disk)
        if part.is_alive():
            part.away = False
            return
        if "StorageError" not in part.tail(from_bytes):
            raise Trouble(f"{part.name}: its disk was full, and it ended without saying so:\n{part.tail(from_bytes)}")
        self.stopped_full += 1
        part.start()
        await part.until_ready()
