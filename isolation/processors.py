"""Whole processors for one container alone: which this host has, which to give, and who has which.

A processor is what the kernel schedules on, a hardware thread. Those of one container are near each other where that
can be: of one NUMA node, and whole cores before halves. `discover` reads sysfs below a root, so that a directory made
by a test is a host; `choose` and `ProcessorPool` are pure.

Mesos: src/slave/containerizer/mesos/isolators/cgroups/cpuset (which pins nothing by itself). Kernel documents:
Documentation/ABI/stable/sysfs-devices-node, Documentation/admin-guide/cputopology.rst.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from mesos_actor.isolation.limits import MAX_CPU

MAX_NODES: Final = 1_024
_NODE: Final = re.compile(r"node([0-9]{1,5})")
_PART: Final = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")


class Processor(msgspec.Struct, frozen=True, order=True):
    """`core` is the lowest number of those that share its core: its own where nobody does, or nobody says."""

    number: int
    node: int = 0
    core: int = -1


class NotEnoughProcessors(Exception):
    """Fewer can be had than were asked for; the text says how many, and who has the others."""


def discover(allowed: Iterable[int], root: str = "/sys") -> tuple[Processor, ...]:
    """The processors `allowed`, by number, with what sysfs tells of them. Never raises for what it does not tell."""
    devices = Path(root, "devices/system")
    node_of: dict[int, int] = {}
    try:
        nodes = sorted(path for path in (devices / "node").iterdir() if _NODE.fullmatch(path.name))[:MAX_NODES]
    except OSError:
        nodes = []
    for path in nodes:
        node_of.update(dict.fromkeys(numbers_of(_read(path / "cpulist")), int(path.name[4:])))
    found = []
    for number in sorted(set(allowed)):
        siblings = numbers_of(_read(devices / f"cpu/cpu{number}/topology/thread_siblings_list"))
        found.append(Processor(number, node_of.get(number, 0), min(siblings, default=number)))
    return tuple(found)


def numbers_of(text: str) -> tuple[int, ...]:
    """The kernel's list format, `0-3,8`; what is none is nothing. (limits.list_of is the other way round)"""
    found: list[int] = []
    for part in text.strip().split(",")[: MAX_CPU + 1]:
        match = _PART.fullmatch(part)
        if match is None:
            return ()
        found += range(int(match[1]), min(int(match[2] or match[1]), MAX_CPU) + 1)
    return tuple(found)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def choose(free: Iterable[Processor], count: int) -> tuple[int, ...] | None:
    """`count` of these, sorted; None when there are not so many.

    All of one node where one has so many: of the nodes that do, the one with the fewest, so that large wishes can be
    met later. Else of as few nodes as can be. In a node whole cores before halves of some, and of halves those that
    are halves already.
    """
    nodes: dict[int, list[Processor]] = {}
    for processor in free:
        nodes.setdefault(processor.node, []).append(processor)
    if count > sum(map(len, nodes.values())):
        return None
    fitting = [(len(members), node) for node, members in nodes.items() if len(members) >= count]
    if fitting:
        return tuple(sorted(_of_node(nodes[min(fitting)[1]], count)))
    chosen: list[int] = []
    for _, members in sorted(nodes.items(), key=lambda item: (-len(item[1]), item[0])):
        chosen += _of_node(members, min(count - len(chosen), len(members)))
    return tuple(sorted(chosen))


def _of_node(members: Iterable[Processor], count: int) -> list[int]:
    cores: dict[int, list[int]] = {}
    for processor in sorted(members):
        cores.setdefault(processor.core, []).append(processor.number)
    chosen: list[int] = []
    rest: list[list[int]] = []
    for _, numbers in sorted(cores.items(), key=lambda item: (-len(item[1]), item[0])):
        if len(numbers) <= count - len(chosen):
            chosen += numbers
        else:
            rest.append(numbers)
    for numbers in sorted(rest, key=lambda numbers: (len(numbers), numbers)):
        chosen += numbers[: count - len(chosen)]
    return chosen


class ProcessorPool:
    """Who has which of `processors` for itself. Pure: the agent's records remember; `recover` takes them up."""

    def __init__(self, processors: Sequence[Processor]) -> None:
        #: Number -> processor, every one that may be used here.
        self._processors = {processor.number: processor for processor in processors}
        #: Number -> who has it. Never more than `_processors`.
        self._owners: dict[int, str] = {}

    @property
    def shared(self) -> tuple[int, ...]:
        """Those that nobody has for itself."""
        return tuple(number for number in sorted(self._processors) if number not in self._owners)

    @property
    def is_whole(self) -> bool:
        """Whether nobody has any for itself."""
        return not self._owners

    def held(self, owner: str) -> tuple[int, ...]:
        """What this one has, sorted."""
        return tuple(sorted(number for number, other in self._owners.items() if other == owner))

    def assign(self, owner: str, count: int, keep: int = 0) -> tuple[int, ...]:
        """Give it `count` and leave at least `keep` for all others together. Asked again, the same ones.

        Raises NotEnoughProcessors, and then nothing has changed.
        """
        held = self.held(owner)
        if len(held) == count:
            return held
        free = [self._processors[number] for number in sorted({*self.shared, *held})]
        chosen = choose(free, count) if len(free) - count >= keep else None
        if chosen is None:
            raise NotEnoughProcessors(self._told(owner, count, len(free), keep))
        self.release(owner)
        self._owners.update(dict.fromkeys(chosen, owner))
        return chosen

    def _told(self, owner: str, count: int, free: int, keep: int) -> str:
        text = f"{count} processors wanted, {max(0, free - keep)} of {len(self._processors)} can be had"
        if keep and count <= free:
            text += f", for other containers need {keep}"
        owners = sorted({other for other in self._owners.values() if other != owner})
        return f"{text}; {', '.join(owners[:5])} have others for themselves" if owners else text

    def release(self, owner: str) -> bool:
        """It has none any more; whether it had any."""
        held = self.held(owner)
        for number in held:
            del self._owners[number]
        return bool(held)

    def recover(self, assigned: Mapping[str, Iterable[int]]) -> dict[str, tuple[int, ...]]:
        """Take up owner -> processors as they were before a restart. Returns owner -> those that may not be used here
        any more, or that another one was said to have too; these are not assigned."""
        lost: dict[str, tuple[int, ...]] = {}
        for owner, numbers in assigned.items():
            gone = [
                number
                for number in numbers
                if number not in self._processors or self._owners.setdefault(number, owner) != owner
            ]
            if gone:
                lost[owner] = tuple(gone)
        return lost
