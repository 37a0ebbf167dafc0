"""What an isolator must know of its containers in the agent's next life: a small file each, out of their reach.

`<directory>/<digest of the container's id>`. Not synced: after a crash of the host no container is left that one would
tell of, and while the host lives none is made before its record is written.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from mesos_actor.actors.ids import ContainerId

R = TypeVar("R", bound=msgspec.Struct)

MAX_RECORD_BYTES = 1 << 20
"""A longer one is not written."""
_DIGEST_CHARACTERS = 32
_NEW = ".new"


class Assigned(msgspec.Struct, frozen=True):
    """The record of a container that has some of the host's things for itself, by their names."""

    container_id: ContainerId
    names: tuple[str, ...]


class ContainerRecords(Generic[R]):
    """Records of type `kind` in `directory`, which `start` makes. A record holds its container's id itself. `beside`
    are the endings, with their dot, of files that go with a record."""

    def __init__(self, directory: Path, kind: type[R], beside: tuple[str, ...] = ()) -> None:
        self._directory = str(directory)
        self._endings = (*(ending + new for ending in beside for new in (_NEW, "")), _NEW, "")
        self._decoder = msgspec.msgpack.Decoder(kind)

    def start(self) -> None:
        """Raises OSError."""
        Path(self._directory).mkdir(mode=0o700, parents=True, exist_ok=True)

    def read(self) -> Iterator[R]:
        """All of them. What is no record - its agent or host died while it was written, and nothing was made - is
        removed. Raises OSError for one that cannot be read: what it tells of may still be there."""
        for path in sorted(Path(self._directory).iterdir()):
            if path.suffix == _NEW:
                path.unlink()
            elif not path.suffix:
                try:
                    record = self._decoder.decode(path.read_bytes())
                except msgspec.DecodeError:
                    path.unlink()
                else:
                    yield record

    def write(self, container_id: ContainerId, record: R) -> None:
        """Whole or not at all. Raises OSError."""
        self._write(self._path(container_id), msgspec.msgpack.encode(record), 0o600)

    def write_beside(self, container_id: ContainerId, ending: str, text: str) -> str:
        """A file for the container's users to read, which goes with its record. Returns its path. Raises OSError."""
        path = f"{self._path(container_id)}{ending}"
        self._write(path, text.encode(), 0o644)
        return path

    @staticmethod
    def _write(path: str, content: bytes, mode: int) -> None:
        if len(content) > MAX_RECORD_BYTES:
            raise OSError(errno.EFBIG, f"{len(content)} bytes, {MAX_RECORD_BYTES} at most", path)
        new = path + _NEW
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
            os.fchmod(descriptor, mode)  # whatever our umask is
        os.replace(new, path)  # noqa: PTH105 - once for every task

    def remove(self, container_id: ContainerId) -> None:
        """The record, last, and what lies beside it; none is fine. Raises OSError."""
        path = self._path(container_id)
        for ending in self._endings:
            Path(path + ending).unlink(missing_ok=True)

    def _path(self, container_id: ContainerId) -> str:
        digest = hashlib.sha256(container_id.encode(errors="surrogatepass")).hexdigest()
        return f"{self._directory}/{digest[:_DIGEST_CHARACTERS]}"
