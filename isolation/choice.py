"""Which isolation an agent has: what was asked for, or what its place in the world demands.

`cgroups` is the default. Where the host cannot, an agent of a cluster refuses to start and says what is missing:
whoever shares it would believe in limits that nobody keeps. The trial on one host goes on with `process`, and its
warning stays visible for as long as it runs so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from mesos_actor.actors.errors import ConfigError
from mesos_actor.isolation.cgroup_host import Missing, find

Isolation = Literal["cgroups", "process"]
NAMES: tuple[Isolation, ...] = ("cgroups", "process")


class Choice(msgspec.Struct, frozen=True):
    """`warning` is empty when nothing is to be said."""

    name: Isolation
    warning: str = ""


def choose(asked: Isolation | None, *, trial: bool, missing: Sequence[Missing]) -> Choice:
    """What an agent is to use. `asked` None: nobody said; `trial`: a cluster of this host alone; `missing`: for
    cgroups, as cgroup_host.find tells.

    Raises ConfigError with all that is missing and how to get it.
    """
    if asked == "process":
        return Choice("process")
    if not missing:
        return Choice("cgroups")
    what = "; ".join(str(entry) for entry in missing)
    if asked is None and trial:
        return Choice("process", f"tasks are not kept apart (isolation: process), because {what}")
    fix = "" if "--isolation process" in what else "; or start it with --isolation process, which keeps no limits"
    raise ConfigError(f"isolation: cgroups cannot be used on this host: {what}{fix}")


def possible_here() -> Choice:
    """For programs that start clusters on this host: `cgroups` where it can, else `process` and why."""
    return choose(None, trial=True, missing=find().missing)
