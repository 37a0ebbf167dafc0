"""Where a sandbox is: `<work_dir>/sandboxes/<framework id>/<container id>/`, and never anywhere else."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId, FrameworkId

_NAME_MAX_BYTES = 255
_DIGEST_CHARACTERS = 16
LONG_NAME = 50
"""Only ids of more characters than this (255 bytes, 4 bytes a character, less the digest) are ever shortened."""


def directory_name(field: str, name: str) -> str:
    """`name` as the name of a directory: itself, or, past what a file system allows, its beginning and a digest.

    Raises InvalidInput when it could lead elsewhere.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise InvalidInput(f"{field}: {name!r} cannot name a directory: it must not be empty, '.', '..' nor hold a '/'")
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: {name!r} is not valid Unicode") from None
    if len(encoded) <= _NAME_MAX_BYTES:
        return name
    digest = hashlib.sha256(encoded).hexdigest()[:_DIGEST_CHARACTERS]
    head = encoded[: _NAME_MAX_BYTES - _DIGEST_CHARACTERS - 1].decode(errors="ignore")
    return f"{head}-{digest}"


def sandboxes_of(work_dir: Path) -> Path:
    return work_dir / "sandboxes"


def sandbox_of(work_dir: Path, framework_id: FrameworkId, container_id: ContainerId) -> str:
    """The absolute path of a container's sandbox. Raises InvalidInput naming the id that cannot be used."""
    framework = directory_name("framework_id", framework_id)
    container = directory_name("container_id", container_id)
    return f"{work_dir}/sandboxes/{framework}/{container}"


def make_sandbox(sandbox: str) -> None:
    """One mkdir, and a second only for a framework's first container. An existing one is used again: its agent died
    before the launch. Raises OSError."""
    try:
        os.mkdir(sandbox, 0o700)  # noqa: PTH102 - once for every task: a Path would cost as much as the call
    except FileExistsError:
        if Path(sandbox).is_symlink() or not Path(sandbox).is_dir():
            raise
    except FileNotFoundError:
        Path(sandbox).parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        Path(sandbox).mkdir(mode=0o700, exist_ok=True)
