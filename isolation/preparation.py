"""What comes before a launch: the sandbox, the files, whatever the isolators contribute; then the launcher's fields.

The usual launch is prepared on the loop, by one mkdir and the isolators' few system calls. One that must fetch files,
or whose isolators say that it is slow, goes through a thread. Whatever becomes of the container meanwhile, the answer
of its preparation comes once, on the loop; whoever does not want it any more then takes everything back.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.isolation.command import CommandError, Owner, argv_of, environment_of, owner_of
from mesos_actor.isolation.fetch import FetchError, fetch
from mesos_actor.isolation.isolator import Contribution, Isolation, IsolatorError
from mesos_actor.isolation.paths import make_sandbox, sandbox_of
from mesos_actor.isolation.process_limits import limits_of

_FULL = (28, 122)  # ENOSPC, EDQUOT


class NotPrepared(Exception):
    """The launch fails. `reason` is one of ContainerFailed's."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Sandbox:
    """Where the command will run, and who owns it; None: the agent's own user."""

    __slots__ = ("owner", "path")

    def __init__(self, path: str, owner: Owner | None) -> None:
        self.path = path
        self.owner = owner


class Preparation:
    """Prepares launches. `executor_environment` gives what a custom executor needs to reach and convince its agent."""

    def __init__(
        self,
        work_dir: Path,
        isolation: Isolation,
        executor_environment: Callable[[ContainerId], dict[str, str]] | None,
    ) -> None:
        self._work_dir = work_dir
        self._isolation = isolation
        self._executor_environment = executor_environment

    def is_slow(self, launch: LaunchContainer) -> bool:
        """Whether it must go through a thread."""
        return bool(launch.command.uris) or self._isolation.slow(launch)

    def make_sandbox(self, launch: LaunchContainer) -> Sandbox:
        """The container's directory, there and owned by whom it will belong to. Raises NotPrepared."""
        try:
            path = sandbox_of(self._work_dir, launch.framework_id, launch.container_id)
            container = launch.command.container
            in_image = container is not None and bool(container.image)  # then only the image knows who that user is
            owner = None if in_image else owner_of(launch.command.user)
            make_sandbox(path)
            if owner is not None:
                os.chown(path, owner.user_id, owner.group_id)
        except InvalidInput as error:
            raise NotPrepared("sandbox", str(error)) from None
        except CommandError as error:
            raise NotPrepared("spawn", str(error)) from None
        except OSError as error:
            reason = "full" if error.errno in _FULL else "sandbox"
            text = f"cannot make the sandbox: {error.strerror}: {error.filename}"
            raise NotPrepared(reason, text) from None
        return Sandbox(path, owner)

    def contribution(self, launch: LaunchContainer, sandbox: Sandbox) -> Contribution:
        """What the isolators made and want done. Raises NotPrepared, after everything was taken back."""
        try:
            return self._isolation.prepare(launch, sandbox.path)
        except IsolatorError as error:
            raise NotPrepared(error.reason, error.text) from None

    def slowly(self, launch: LaunchContainer, sandbox: Sandbox, cancelled: threading.Event) -> Contribution:
        """The files, then the contribution; on a thread. Raises NotPrepared and nothing else."""
        try:
            if launch.command.uris:
                owner = sandbox.owner
                rights = (owner.user_id, owner.group_id, owner.reader()) if owner else None
                fetch(launch.command.uris, sandbox.path, cancelled, rights)
            if cancelled.is_set():
                raise NotPrepared("fetch", "cancelled")
            return self.contribution(launch, sandbox)
        except FetchError as error:
            raise NotPrepared("full" if error.full else "fetch", str(error)) from None
        except NotPrepared:
            raise
        except Exception as error:  # noqa: BLE001 - a bug of ours must not leave the launch without an answer
            raise NotPrepared("fetch", f"internal error while preparing the launch: {error!r}") from None

    def fields(self, launch: LaunchContainer, sandbox: Sandbox, added: Contribution) -> dict[str, Any]:
        """The whole launch, as the launcher takes it (launcher_wire.py). Raises NotPrepared."""
        extra = {}
        if launch.executor and self._executor_environment is not None:
            extra = self._executor_environment(launch.container_id)
        try:
            fields: dict[str, Any] = {
                "argv": list(added.argv) or argv_of(launch.command),
                "env": environment_of(launch, added.sandbox or sandbox.path, {**extra, **added.env}, added.defaults),
                "cwd": sandbox.path,
            }
            if launch.command.user and launch.command.container is None:
                fields["user"] = launch.command.user if owner_of(launch.command.user) else ""
            limits = limits_of(launch.command.rlimits)
        except CommandError as error:
            raise NotPrepared("spawn", str(error)) from None
        fields |= added.fields
        if limits and "confine" in fields:
            # Set after everything else: whoever makes namespaces and mounts must not run into the command's limits.
            fields["confine"] = {**fields["confine"], "rlimits": limits}
        elif limits:
            fields["limits"] = limits
        return fields
