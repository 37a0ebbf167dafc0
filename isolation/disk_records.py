"""What must be known of containers' disk limits after a restart of the agent: a small file each, out of their reach.

`<work_dir>/disk/<digest of the container's id>`. Not synced: after a crash of the host no container is left that it
would tell of.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mesos_actor.actors.ids import ContainerId

MAX_RECORD_BYTES = 64 << 10
_DIGEST_CHARACTERS = 32


class DiskRecord(msgspec.Struct, frozen=True):
    """One container's."""

    container_id: ContainerId
    sandbox: bytes
    """Its path."""
    limit_bytes: int | None
    """What it must not go past now; None: it has no limit."""
    wanted_bytes: int | None
    """What was asked for last: lower than the limit while more than that is in use."""
    project: int = 0
    """Its project id; 0: it is looked at."""
    limitation: str = ""
    """Why it was ended; empty: it was not."""


class DiskRecords:
    """The files. `start` makes their directory."""

    def __init__(self, work_dir: Path) -> None:
        self._directory = str(work_dir / "disk")

    def start(self) -> None:
        """Raises OSError."""
        Path(self._directory).mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> Iterator[DiskRecord]:
        """All of them. What is no record - its agent died while it wrote, so it launched nothing - is removed."""
        for path in Path(self._directory).iterdir():
            try:
                with path.open("rb") as file:
                    record = msgspec.msgpack.decode(file.read(MAX_RECORD_BYTES), type=DiskRecord)
            except (OSError, msgspec.DecodeError):
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                yield record

    def write(self, record: DiskRecord) -> None:
        """Raises OSError."""
        path = self._path(record.container_id)
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, msgspec.msgpack.encode(record))
        finally:
            os.close(descriptor)
        os.replace(f"{path}.new", path)  # noqa: PTH105 - once for every task

    def remove(self, container_id: ContainerId) -> None:
        """Raises OSError."""
        path = self._path(container_id)
        for name in (f"{path}.new", path):
            Path(name).unlink(missing_ok=True)

    def _path(self, container_id: ContainerId) -> str:
        digest = hashlib.sha256(container_id.encode(errors="surrogatepass")).hexdigest()
        return f"{self._directory}/{digest[:_DIGEST_CHARACTERS]}"
