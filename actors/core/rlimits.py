"""Limits of each process of a command: which kinds there are, and what can be asked. Pure; the master and the agent
both ask.

Source: Mesos include/mesos/mesos.proto `RLimitInfo`, src/slave/containerizer/mesos/isolators/posix/rlimits.cpp; Linux,
getrlimit(2).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mesos_actor.actors.messages.values import UNLIMITED, RLimit

KINDS: Final = frozenset(
    (
        *("as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio"),
        *("rttime", "sigpending", "stack"),
    )
)
"""As Mesos' RLimitInfo; Linux has nothing left behind `locks`."""

MAX_VALUE: Final = (1 << 63) - 1
"""What setrlimit(2) can be handed by everybody on the way: Python and our own system call take signed numbers."""


def rlimits_error(rlimits: Sequence[RLimit]) -> str | None:
    """Why no command can have these, naming the kind, the value and the fix; None: one may."""
    seen: set[str] = set()
    for limit in rlimits:
        kind, soft, hard = limit.kind, limit.soft, limit.hard
        if kind not in KINDS:
            return f"there is no resource limit {kind!r:.80}; name one of {', '.join(sorted(KINDS))}"
        if kind in seen:
            return f"'{kind}' is given twice; give it once"
        seen.add(kind)
        for which, value in (("soft", soft), ("hard", hard)):
            if value != UNLIMITED and not 0 <= value <= MAX_VALUE:
                return (
                    f"'{kind}' has a {which} limit of {value}; give one from 0 to {MAX_VALUE}, or {UNLIMITED} for none"
                )
        if hard != UNLIMITED and (soft == UNLIMITED or soft > hard):
            above = "none" if soft == UNLIMITED else str(soft)
            return (
                f"'{kind}' has a soft limit of {above} above its hard one of {hard}; lower the one or raise the other"
            )
    return None
