"""What a failing run says: what was broken, by which faults, and what befell the task, offer or agent concerned."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import Any

import msgspec

from mesos_actor.actors.ids import Address, node_of
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.task import TaskState
from mesos_actor.transport.sim.faults import COUNTED, AnyFault
from mesos_actor.transport.sim.schedule import START_US
from mesos_actor.transport.sim.world import HUMBLE, Event, World

MAX_LINES = 60
"""Of the events that concern the subject, so many: the newest, and before them those that tell more than others."""
MAX_TELLING = 30
"""Of those at most so many: faults, and news of tasks that did not go well; the newest of them."""
MAX_FAULTS = 20
_WORD = re.compile(r"[\w.:\-]+")
_OFTEN = ("Offers", "Decline", "Rescind")
"""Messages that hide the others where nobody in particular is concerned."""
_WELL = (TaskState.STAGING, TaskState.STARTING, TaskState.RUNNING, TaskState.KILLING, TaskState.FINISHED)
_UNTOLD = ("operation_id", "filters", "origin", "timestamp_us", "incarnation")
_LONGEST = 48


class Told(msgspec.Struct, frozen=True):
    """One line of a story: from whom to whom (the same host for what happens on one), and what."""

    time_us: int
    source: str
    target: str
    text: str
    fault: bool = False
    telling: bool = False
    """Whether it may well be why the run ended as it did."""

    def line(self) -> str:
        who = self.source if self.source == self.target else f"{self.source} -> {self.target}"
        mark = "!!" if self.fault else "  "
        elapsed_us = self.time_us - START_US
        return f"{mark} {elapsed_us // 1_000_000:>5}.{elapsed_us % 1_000_000:06d} {who:26} {self.text}"


def subjects(world: World, text: str) -> list[str]:
    """The ids in an error's text that messages speak of, the most telling (longest) first."""
    words = [word.rstrip(".:") for word in _WORD.findall(text)]
    words = sorted({word for word in words if word and word not in world.hosts}, key=lambda word: (-len(word), word))
    quoted = {f"_id='{word}'": word for word in words}
    found: dict[str, None] = {}
    for event in world.history():
        if event.message is not None and quoted:
            shown = repr(event.message)
            for needle in [needle for needle in quoted if needle in shown]:
                found[quoted.pop(needle)] = None
    return sorted(found, key=lambda word: (-len(word), word))


def concerning(world: World, text: str) -> list[Told]:
    """The events that concern what an error's text names, and the faults between them; without any such, those of the
    hosts that it names."""
    text = text.partition("\n")[0]
    about = subjects(world, text)
    named = [host for host in world.hosts if re.search(rf"\b{re.escape(host)}\b", text)]
    if not about and not named:
        named = [host for host in world.hosts if not host.startswith(("master", "agent"))]
    told: list[Told] = []
    for event in world.history():
        if event.kind == "fault":
            told.append(Told(event.time_us, event.host, event.host, event.detail, fault=True, telling=True))
        elif event.message is not None:
            told += _message(world, event, about, named)
        elif event.host in named and event.kind in ("start", "exit", "failed", "crash", "stop"):
            told.append(Told(event.time_us, event.host, event.host, f"{event.kind} {event.detail}".strip()))
    return told


def _message(world: World, event: Event, about: Sequence[str], named: Sequence[str]) -> list[Told]:
    kind = type(event.message).__name__
    source = world.nodes.get(node_of(Address(event.sender)), event.host)
    if about:
        shown = repr(event.message)
        if not any(f"'{word}'" in shown for word in about):
            return []
    elif kind in HUMBLE or kind in _OFTEN or source == event.host or not {source, event.host} & set(named):
        return []
    return [Told(event.time_us, source, event.host, brief(event.message), telling=_is_bad_news(event.message))]


def _is_bad_news(message: Any) -> bool:
    return isinstance(message, Update) and message.status.state not in _WELL


def brief(message: Any) -> str:
    """A message in a few words: its class and its short fields."""
    parts = []
    fields = list(_short_fields(message))
    if any(name in ("task", "container") for name, _ in fields):
        fields = [(name, value) for name, value in fields if name not in ("framework", "agent", "source", "principal")]
    for name, value in fields:
        parts.append(f"{name} {value}")
    return f"{type(message).__name__}({', '.join(parts[:5])})" if parts else type(message).__name__


def _short_fields(struct: Any, depth: int = 0) -> Iterable[tuple[str, str]]:
    for field in msgspec.structs.fields(type(struct)):
        value = getattr(struct, field.name)
        if value == field.default or value in ("", (), b"", None) or field.name in _UNTOLD:
            continue
        name = field.name.removesuffix("_id")
        if isinstance(value, Enum):
            yield name, str(value.value)
        elif isinstance(value, str | int) and not isinstance(value, bool):
            if len(str(value)) <= _LONGEST:
                yield name, str(value)
        elif isinstance(value, msgspec.Struct) and depth < 1:
            yield from _short_fields(value, depth + 1)
        elif isinstance(value, tuple) and depth < 2:
            yield from _listed(name, value, depth)


def _listed(name: str, values: tuple[Any, ...], depth: int) -> Iterable[tuple[str, str]]:
    if all(isinstance(value, str) for value in values):
        text = " ".join(values)
        yield name, text if len(text) <= _LONGEST else f"{len(values)} of them"
        return
    for value in values:
        ids = [
            getattr(value, key) for key in ("task_id", "offer_id", "agent_id", "container_id") if hasattr(value, key)
        ]
        if ids:
            yield name.rstrip("s"), str(ids[0])
        elif isinstance(value, msgspec.Struct):
            yield from _short_fields(value, depth + 1)


def tell(
    world: World, text: str, faults: Sequence[AnyFault], *, drawn: int | None = None, again: Sequence[str] = ()
) -> str:
    """The whole story. `drawn`: how many faults there were before the run was made smaller; `again`: commands that play
    it again."""
    lines = [text.partition("\n")[0], ""]
    if faults:
        of = f" of {drawn}" if drawn is not None and drawn > len(faults) else ""
        noun = "fault" if len(faults) == 1 and not of else "faults"
        lines.append(f"{len(faults)}{of} {noun} {'was' if len(faults) == 1 else 'were'} needed:")
        first = sorted(faults, key=lambda fault: isinstance(fault, COUNTED))  # timed ones do more
        lines += [f"  {fault.text()}" for fault in first[:MAX_FAULTS]]
        if len(faults) > MAX_FAULTS:
            lines.append(f"  and {len(faults) - MAX_FAULTS} more")
    else:
        lines.append("No fault was needed.")
    about = subjects(world, text.partition("\n")[0])
    told = concerning(world, text)
    if told:
        lines += ["", f"What befell {', '.join(about[:4])}:" if about else "The end of what happened there:"]
        lines += _excerpt(told)
    if again:
        lines += ["", *(f"again: {command}" for command in again)]
    return "\n".join(lines)


def _excerpt(told: Sequence[Told]) -> list[str]:
    """At most MAX_LINES of them, and where others are left out."""
    if len(told) <= MAX_LINES:
        return [one.line() for one in told]
    telling = [place for place, one in enumerate(told[:-MAX_LINES]) if one.telling][-MAX_TELLING:]
    shown = [*telling, *range(len(told) - MAX_LINES + len(telling), len(told))]
    lines, after = [], -1
    for place in shown:
        if left_out := place - after - 1:
            lines.append(f"   ({left_out} left out)")
        lines.append(told[place].line())
        after = place
    return lines


def first_difference(one: Sequence[str], other: Sequence[str], around: int = 5) -> str:
    """Where two traces part: the last common lines, then both; empty when one begins like the other to its end."""
    for place, (mine, theirs) in enumerate(zip(one, other, strict=False)):
        if mine != theirs:
            common = [f"  {line}" for line in one[max(0, place - around) : place]]
            return "\n".join([f"event {place + 1} differs:", *common, f"- {mine}", f"+ {theirs}"])
    if len(one) == len(other):
        return ""
    longer, mark = (one, "-") if len(one) > len(other) else (other, "+")
    place = min(len(one), len(other))
    return f"the shorter ends after {place} events; the other goes on:\n{mark} {longer[place]}"
