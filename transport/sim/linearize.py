"""Could this have happened on one register? A checker of recorded histories (Wing and Gong 1993, with Lowe's cache).

An operation took effect at one moment between its begin and its end. One whose outcome nobody knows may have taken
effect at any moment after its begin, or never. A history is linearizable when there is such an order in which every
read gives what was written last. Several registers are checked one by one, which is the same (Herlihy and Wing 1990,
theorem 1). Values written are unique, so that a read says which write it saw.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

NEVER_US = 1 << 62
MAX_STEPS = 200_000
"""States looked at before a history is given up as too hard."""


class Call(msgspec.Struct, frozen=True):
    """`ended_us` None: its outcome is not known. Calls that failed for certain are left out."""

    kind: Literal["write", "read"]
    value: int
    began_us: int
    ended_us: int | None
    who: str = ""

    @property
    def known_us(self) -> int:
        """When it had taken effect at the latest."""
        return NEVER_US if self.ended_us is None else self.ended_us


class TooHard(Exception):
    """The search was given up: neither yes nor no."""


def contradiction(history: Iterable[Call], initial: int = 0, max_steps: int = MAX_STEPS) -> str:
    """Empty when the history is one of a register that held `initial`; else what cannot be. Raises TooHard."""
    calls = [call for call in history if call.kind == "write" or call.ended_us is not None]
    written = {call.value for call in calls if call.kind == "write"}
    if len(written) != sum(call.kind == "write" for call in calls) or initial in written:
        raise ValueError("values written must be unique, and not the initial one")
    seen = {call.value for call in calls if call.kind == "read"}
    if strange := seen - written - {initial}:
        return f"{min(strange)} was read, and nobody ever wrote it"
    # A write that perhaps never happened and that nobody saw explains nothing.
    calls = [call for call in calls if call.ended_us is not None or call.value in seen]
    calls.sort(key=lambda call: (call.began_us, call.known_us))
    return _search(calls, initial, max_steps)


def _search(calls: list[Call], initial: int, max_steps: int) -> str:
    everything = (1 << len(calls)) - 1
    optional = sum(1 << at for at, call in enumerate(calls) if call.ended_us is None)
    begun = (_with_reads(calls, 0, initial), initial)
    stack, known, furthest = [begun], {begun}, begun
    while stack:
        done, value = stack.pop()
        if (done | optional) == everything:
            return ""
        if done.bit_count() > furthest[0].bit_count():
            furthest = (done, value)
        if len(known) > max_steps:
            raise TooHard(f"{len(calls)} calls, {len(known)} states")
        for at in reversed(_enabled(calls, done)):
            if calls[at].kind == "write":
                after = (_with_reads(calls, done | 1 << at, calls[at].value), calls[at].value)
                if after not in known:
                    known.add(after)
                    stack.append(after)
    return _explained(calls, *furthest)


def _enabled(calls: list[Call], done: int) -> list[int]:
    """The calls that may be next: no other that is not done had ended before they began."""
    found: list[int] = []
    first_end_us = NEVER_US
    for at in range((~done & (done + 1)).bit_length() - 1, len(calls)):
        call = calls[at]
        if call.began_us > first_end_us:
            break
        if not done >> at & 1:
            found.append(at)
            first_end_us = min(first_end_us, call.known_us)
    return [at for at in found if calls[at].began_us <= first_end_us]


def _with_reads(calls: list[Call], done: int, value: int) -> int:
    """Reads of the present value that may be next are: that takes nothing away from what may follow."""
    while True:
        reads = [at for at in _enabled(calls, done) if calls[at].kind == "read" and calls[at].value == value]
        if not reads:
            return done
        for at in reads:
            done |= 1 << at


def _explained(calls: list[Call], done: int, value: int) -> str:
    waiting = [calls[at] for at in _enabled(calls, done)]
    shown = "; ".join(f"{c.who} {c.kind} {c.value} from {c.began_us} to {c.ended_us}" for c in waiting[:6])
    return f"after {done.bit_count()} of {len(calls)} calls the value is {value}, and none of these can follow: {shown}"
