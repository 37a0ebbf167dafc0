"""Who has what for itself, so that the agent's next life knows: a small file a container.

Not synced: after a crash of the host no container is left either.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

_MAX_RECORD_BYTES = 64 << 10


class Assignments:
    """Files of `directory`, each named as its container's directories are (paths.py, directory_name)."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def start(self) -> None:
        """Raises OSError when the directory cannot be made."""
        self._directory.mkdir(parents=True, exist_ok=True)

    def read(self) -> dict[str, list[str]]:
        """Name -> words, of all. What an agent died while writing belongs to no container, and is removed."""
        found: dict[str, list[str]] = {}
        for name in sorted(os.listdir(self._directory)):  # noqa: PTH208
            path = self._directory / name
            if name.endswith(".new"):
                path.unlink()
            else:
                found[name] = path.read_text(errors="replace")[:_MAX_RECORD_BYTES].split()
        return found

    def write(self, name: str, words: Sequence[str]) -> None:
        """Whole or not at all. Raises OSError."""
        new = self._directory / f"{os.getpid()}-{threading.get_ident()}.new"
        new.write_text("\n".join(words))
        new.rename(self._directory / name)

    def remove(self, name: str) -> None:
        """Raises OSError."""
        (self._directory / name).unlink(missing_ok=True)
