"""Sandboxes as projects of their file system, where that counts projects (disk_quota.py)."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from mesos_actor.isolation.disk_limit import HEADROOM_BYTES, ProjectIds
from mesos_actor.isolation.disk_quota import ProjectQuotas

MAX_TRIES = 64
"""Ids that are looked at to find one for which nothing counts any more."""
MAX_DEPTH = 100
"""Directories below each other in what was fetched into a sandbox, as in disk_usage.py."""


class DiskProjects:
    """Which project each sandbox is. Used under its isolator's lock."""

    def __init__(self, quotas: ProjectQuotas, used: Iterable[int] = ()) -> None:
        self._quotas = quotas
        self._ids = ProjectIds(used=used)

    def close(self) -> None:
        self._quotas.close()

    def give(self, sandbox: str, limit_bytes: int | None) -> int:
        """Count from now on what is in the sandbox, and will be. Nobody else may use it yet. Returns its project; 0:
        all ids are in use, or what they counted is not gone yet.

        Raises OSError, with EDQUOT when more is in it than the limit allows.
        """
        project = self._empty()
        if project:
            try:
                self.limit(project, limit_bytes)
                self._assign(sandbox, project)
            except BaseException:
                self.take_back(project)
                raise
        return project

    def _empty(self) -> int:
        for _ in range(MAX_TRIES):
            project = self._ids.take()
            if project is None:
                return 0
            if not self._quotas.used_bytes(project):
                return project
            self._ids.release(project)  # a sandbox that is not collected yet still counts for it
        return 0

    def _assign(self, directory: str, project: int, depth: int = 0) -> None:
        """The directory itself, and what was fetched into it before."""
        self._quotas.assign(directory, project)
        if depth > MAX_DEPTH:
            raise OSError(f"what was fetched is more than {MAX_DEPTH} directories deep: {directory}")
        with os.scandir(directory) as entries:
            for entry in entries:
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    self._assign(entry.path, project, depth + 1)
                elif stat.S_ISREG(mode):
                    self._quotas.assign(entry.path, project)

    def limit(self, project: int, limit_bytes: int | None) -> None:
        """Refuse what goes far past the limit; None: nothing. Raises OSError."""
        self._quotas.set_limit(project, 0 if limit_bytes is None else limit_bytes + HEADROOM_BYTES)

    def used_bytes(self, project: int) -> int:
        """Raises OSError."""
        return self._quotas.used_bytes(project)

    def take_back(self, project: int) -> None:
        """What is left in the sandbox has no limit any more."""
        with contextlib.suppress(OSError):
            self._quotas.set_limit(project, 0)
        self._ids.release(project)
