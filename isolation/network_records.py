"""Who is at the bridge, kept for the agent's next life: `<work_dir>/networks/<digest of the container's id>`.

Beside it lies the container's resolv.conf, under the same name with `.resolv`. Not synced: after a crash of the host no
container is left that a record would tell of, and none that was made has been lost without its record: that is written
first.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from mesos_actor.actors.ids import ContainerId
from mesos_actor.isolation.network_plan import Endpoint

MAX_RECORD_BYTES = 64 << 10
_DIGEST_CHARACTERS = 32
_RESOLVER = ".resolv"


class NetworkRecords:
    """The files. `start` makes their directory."""

    def __init__(self, work_dir: Path) -> None:
        self._directory = work_dir / "networks"

    def start(self) -> None:
        """Raises OSError."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> Iterator[Endpoint]:
        """All of them. What is no record - its agent died while it wrote, so it made nothing - is removed."""
        for path in sorted(self._directory.iterdir()):
            if path.suffix == _RESOLVER:
                continue
            try:
                with path.open("rb") as file:
                    endpoint = msgspec.json.decode(file.read(MAX_RECORD_BYTES), type=Endpoint)
            except (OSError, msgspec.DecodeError):
                with contextlib.suppress(OSError):
                    path.unlink()
            else:
                yield endpoint

    def write(self, endpoint: Endpoint) -> None:
        """Whole or not at all. Raises OSError."""
        self._write(self._path(endpoint.container_id), msgspec.json.encode(endpoint), 0o600)

    def write_resolver(self, container_id: ContainerId, text: str) -> str:
        """Returns its path. Raises OSError."""
        path = f"{self._path(container_id)}{_RESOLVER}"
        self._write(path, text.encode(), 0o644)
        return path

    @staticmethod
    def _write(path: str, content: bytes, mode: int) -> None:
        descriptor = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            os.write(descriptor, content)
            os.fchmod(descriptor, mode)  # whatever our umask is: the container's users read it
        finally:
            os.close(descriptor)
        Path(f"{path}.new").replace(path)

    def remove(self, container_id: ContainerId) -> None:
        """Raises OSError."""
        path = self._path(container_id)
        for ending in (".new", f"{_RESOLVER}.new", _RESOLVER, ""):
            Path(f"{path}{ending}").unlink(missing_ok=True)

    def _path(self, container_id: ContainerId) -> str:
        digest = hashlib.sha256(container_id.encode(errors="surrogatepass")).hexdigest()
        return f"{self._directory}/{digest[:_DIGEST_CHARACTERS]}"
