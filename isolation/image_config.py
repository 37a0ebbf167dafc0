"""How a command runs in an image: what the image says, and what the task says instead. Pure.

As `docker run` does: the task's arguments replace the image's Cmd and follow its Entrypoint; the task's environment
wins over the image's. A shell command replaces both (Mesos: isolators/docker/runtime.cpp, "shell=1"), by the image's
/bin/sh.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from mesos_actor.actors.messages.values import Command
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.image_manifest import ImageConfig

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Docker's, for images that set none."""
MAX_ID = (1 << 32) - 2


class ImageRun(msgspec.Struct, frozen=True):
    """What is executed in the image's root."""

    argv: tuple[str, ...]
    env: dict[str, str]
    working_dir: str
    """Absolute, in the image; the root when the image names none. Made when it is missing, as Docker does."""
    user: str
    """As the image or the task says it; `resolve_user` knows who that is."""


class ImageUser(msgspec.Struct, frozen=True):
    """Somebody in an image."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def run_in_image(command: Command, image: ImageConfig) -> ImageRun:
    """Raises CommandError when neither says what to run."""
    if command.shell:
        argv = ("/bin/sh", "-c", *command.argv)
    else:
        argv = image.entrypoint + (command.argv or image.cmd)
    if not argv or not argv[0]:
        raise CommandError("command.argv: is empty, and the image names no program either; name one")
    env = {"PATH": DEFAULT_PATH}
    for item in image.env:
        name, equals, value = item.partition("=")
        if name and equals:
            env[name] = value
    env.update(command.env)
    working_dir = image.working_dir or "/"
    if not working_dir.startswith("/"):
        working_dir = f"/{working_dir}"
    return ImageRun(argv, env, working_dir, command.user or image.user)


def resolve_user(user: str, passwd: str, group: str) -> ImageUser:
    """Who `USER[:GROUP]`, names or numbers, is by the image's own /etc/passwd and /etc/group; empty is root.

    A number needs no entry; then its group is root's and its home `/`, as for Docker. Raises CommandError.
    """
    name, colon, group_name = user.partition(":")
    users = [line for line in _lines(passwd, 7) if line[2].isdigit() and line[3].isdigit()]
    groups = [line for line in _lines(group, 4) if line[2].isdigit()]
    entry = next((line for line in users if name and line[0] == name), None)
    number = _number(name or "0")
    if entry is None and number is not None:
        entry = next((line for line in users if int(line[2]) == number), None)
    if entry is not None:
        found = ImageUser(int(entry[2]), int(entry[3]), (), entry[5] or "/")
    elif number is not None:
        found = ImageUser(number, 0, (), "/")
    else:
        raise CommandError(f"user: the image's /etc/passwd has no user {name!r}; give a number, or a user that it has")
    if colon:
        gid = next((int(line[2]) for line in groups if line[0] == group_name), _number(group_name))
        if gid is None:
            raise CommandError(f"user: the image's /etc/group has no group {group_name!r}; give a number")
        found = msgspec.structs.replace(found, gid=gid)
    elif entry is not None:
        member_of = tuple(sorted({int(line[2]) for line in groups if entry[0] in line[3].split(",")} - {found.gid}))
        found = msgspec.structs.replace(found, groups=member_of)
    if max(found.uid, found.gid, *found.groups, 0) > MAX_ID:
        raise CommandError(f"user: {user!r} has a number above {MAX_ID}")
    return found


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 else None


def _lines(text: str, fields: int) -> Sequence[list[str]]:
    return [line.split(":") for line in text.splitlines() if line.count(":") == fields - 1]
