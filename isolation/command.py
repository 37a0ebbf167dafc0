"""What exactly is executed for a command: its arguments, its environment, its user."""

from __future__ import annotations

import functools
import os
import pwd
from collections.abc import Mapping

from mesos_actor.actors.core import environment
from mesos_actor.actors.errors import MesosActorError
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import Command
from mesos_actor.isolation.fetch import Reader
from mesos_actor.isolation.spawn import DEFAULT_PATH

INHERITED = ("PATH", "HOME", "LANG")
"""All that a task gets of the agent's own environment; an agent's secrets are in the rest."""


_NONE: Mapping[str, str] = {}


class CommandError(MesosActorError):
    """The command cannot be executed as it is. The text names the field, the value and the fix."""


class Owner:
    """Another user than the agent's own, as whom a task runs."""

    def __init__(self, entry: pwd.struct_passwd) -> None:
        self.name = entry.pw_name
        self.user_id = entry.pw_uid
        self.group_id = entry.pw_gid
        self.home = entry.pw_dir

    def reader(self) -> Reader:
        return Reader(self.user_id, os.getgrouplist(self.name, self.group_id))


@functools.lru_cache(maxsize=1_000)
def owner_of(user: str) -> Owner | None:
    """Who `user` is, or None for the agent's own user. Raises CommandError. Asked once a name and process."""
    if not user:
        return None
    try:
        entry = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except (KeyError, OverflowError, ValueError):
        raise CommandError(f"user: there is no user {user!r} on this host") from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise CommandError(f"user: only an agent run by root can start a command as {user!r}; leave it empty")
    return Owner(entry)


def argv_of(command: Command) -> list[str]:
    """The argument vector. Raises CommandError."""
    if not command.argv:
        raise CommandError("command.argv: is empty; name a program")
    if any("\0" in argument for argument in command.argv):
        raise CommandError("command.argv: no argument may contain a NUL character")
    if not command.shell:
        return list(command.argv)
    if len(command.argv) != 1:
        raise CommandError(f"command.argv: a shell command is one string, got {len(command.argv)}")
    return ["/bin/sh", "-c", command.argv[0]]


@functools.lru_cache(maxsize=1_000)
def _inherited(user: str) -> dict[str, str]:
    kept = {name: os.environ[name] for name in INHERITED if name in os.environ}
    kept.setdefault("PATH", DEFAULT_PATH)
    owner = owner_of(user)
    if owner is not None:
        kept["HOME"] = owner.home
    return kept


def environment_of(
    launch: LaunchContainer, sandbox: str, extra: Mapping[str, str], defaults: Mapping[str, str] = _NONE
) -> dict[str, str]:
    """The whole environment: inherited, `defaults`, the command's, the launch's, `extra`, ours; the later wins.

    What we reserve cannot be set by the command. Raises CommandError naming a variable that cannot be set.
    """
    result = dict(_inherited(launch.command.user))
    result.update(defaults)
    for name, value in launch.command.env.items():
        if name not in environment.RESERVED:
            result[name] = value
    result.update(launch.env)
    result.update(extra)
    result[environment.SANDBOX] = sandbox
    result[environment.CONTAINER_ID] = launch.container_id
    for name, value in result.items():
        if not name or "=" in name or "\0" in name or "\0" in value:
            raise CommandError(f"env: {name!r} cannot be set: names are not empty and have no '=', nothing has a NUL")
    return result
