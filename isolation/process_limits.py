"""The limits of each process of a command (Command.rlimits) as the launcher's child sets them.

Whoever lacks CAP_SYS_RESOURCE cannot raise a hard limit: such a launch is refused here, where the reason can be said.
The launcher has the limits of the agent that started it, so the agent asks about its own. Kernel document:
getrlimit(2). Mesos: src/slave/containerizer/mesos/isolators/posix/rlimits.cpp.
"""

from __future__ import annotations

import functools
import resource
from collections.abc import Callable, Sequence
from pathlib import Path

from mesos_actor.actors.core.rlimits import rlimits_error
from mesos_actor.actors.messages.values import UNLIMITED, RLimit
from mesos_actor.isolation.command import CommandError

CAP_SYS_RESOURCE = 24
"""linux/capability.h"""

Own = Callable[[int], tuple[int, int]]


@functools.cache
def may_raise(status: str = "/proc/self/status") -> bool:
    """Whether this process may raise hard limits; it does not change its own privileges."""
    try:
        for line in Path(status).read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)
    except (OSError, ValueError, IndexError):
        return False  # then the kernel is asked to, and its refusal is told
    return False


def limits_of(
    rlimits: Sequence[RLimit], own: Own = resource.getrlimit, *, privileged: bool | None = None
) -> dict[str, tuple[int, int]]:
    """Kind -> (soft, hard), as Program.limits and Confinement.rlimits take them. `privileged` None: as this process is.

    Raises CommandError naming the kind, the value and the fix.
    """
    if problem := rlimits_error(rlimits):
        raise CommandError(f"rlimits: {problem}")
    if not rlimits:
        return {}
    if not (may_raise() if privileged is None else privileged):
        for limit in rlimits:
            _check_not_raised(limit, own)
    return {limit.kind: (limit.soft, limit.hard) for limit in rlimits}


def _check_not_raised(limit: RLimit, own: Own) -> None:
    most = own(getattr(resource, f"RLIMIT_{limit.kind.upper()}"))[1]
    if most != resource.RLIM_INFINITY and (limit.hard == UNLIMITED or limit.hard > most):
        asked = "unlimited" if limit.hard == UNLIMITED else str(limit.hard)
        raise CommandError(
            f"rlimits: '{limit.kind}' has a hard limit of {asked}, above this agent's own of {most}, and it is not "
            "privileged to raise that; ask for less, or start the agent with the higher limit"
        )
