"""A directory in memory that can lose what was not synced, be full, be damaged, and die at any step.

For the simulator and for tests; it keeps the promises of `files.Files` and not one more.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Collection, Mapping

from mesos_actor.actors.errors import StorageError
from mesos_actor.raft.file_names import checked_name, explained

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""
REPLACE_STEPS = ("begin", "written", "synced", "renamed", "done")
"""Where `die_in_replace` can be: after this step. Only from `done` on is the new file sure to be found again."""


class Died(Exception):
    """The process was told to die here. Nothing but a test catches it."""


class _File:
    __slots__ = ("data", "found_bytes")

    def __init__(self) -> None:
        self.data = bytearray()
        self.found_bytes: int | None = None
        """How much of `data` is found after a crash; None when not even the name is."""


class MemoryFiles:
    """`on_sync` is called when a `sync` or `replace` begins: the host may die then, or its disk take its time."""

    def __init__(self, on_sync: Callable[[], None] | None = None) -> None:
        self.on_sync = on_sync
        self.full = False
        """Whether the disk has no space left; half of what is appended then still gets there."""
        self.die_in_replace: str | None = None
        """One of REPLACE_STEPS: raise Died there."""
        self.syncs = 0
        #: name -> the file, as a process sees it
        self._files: dict[str, _File] = {}
        #: (name, file) of removals that a crash may undo, in order
        self._removed: list[tuple[str, _File]] = []
        #: name -> the file before a replacement whose rename is not safe yet, None for none
        self._renamed: dict[str, _File | None] = {}
        self._failed = ""

    # -- the contract -------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(self._files)

    def read(self, name: str) -> bytes:
        checked_name(name)
        file = self._files.get(name)
        if file is None:
            raise StorageError(explained(name, "cannot be read", FileNotFoundError(errno.ENOENT, "No such file")))
        return bytes(file.data)

    def append(self, name: str, data: bytes) -> None:
        checked_name(name)
        self._check()
        file = self._files.setdefault(name, _File())
        if self.full:
            file.data += data[: len(data) // 2]
            self._refuse(name)
        file.data += data

    def sync(self) -> None:
        self._check()
        if self.on_sync is not None:
            self.on_sync()
        self.syncs += 1
        for file in self._files.values():
            if file.found_bytes is None:  # so the directory is synced too
                self._removed.clear()
                self._renamed.clear()
            file.found_bytes = len(file.data)

    def replace(self, name: str, data: bytes) -> None:
        checked_name(name)
        self._check()
        if self.on_sync is not None:
            self.on_sync()
        self._maybe_die("begin")
        if self.full:
            self._refuse(name)
        self._maybe_die("written")  # the temporary file is nobody's concern: opening the directory removes it
        self._maybe_die("synced")
        new = _File()
        new.data += data
        new.found_bytes = len(data)
        self._renamed[name] = self._files.get(name)
        self._files[name] = new
        self._maybe_die("renamed")
        self._renamed.clear()
        self._removed.clear()
        self._maybe_die("done")

    def truncate(self, name: str, size_bytes: int) -> None:
        checked_name(name)
        self._check()
        file = self._files[name]
        del file.data[size_bytes:]
        file.found_bytes = len(file.data)

    def remove(self, name: str) -> None:
        checked_name(name)
        self._check()
        file = self._files.pop(name, None)
        if file is not None and file.found_bytes is not None:
            self._removed.append((name, file))

    def close(self) -> None:
        """The end of a process that is not the host's: what it wrote is still there, and the next one may write."""
        self._failed = ""

    # -- what befalls it ----------------------------------------------------------------------------------------------

    def crash(
        self,
        keep_bytes: Mapping[str, int] | None = None,
        torn: Mapping[str, bytes] | None = None,
        undo_removals: int = 0,
        holes: Mapping[str, Collection[int]] | None = None,
    ) -> None:
        """The host loses power: back to what is safe, and of `keep_bytes` so much more of a file's unsynced tail.
        `torn`, by file, is put behind that: blocks that were given to the file and never written. `holes`: sectors of
        SECTOR_BYTES, by number in the file, whose unsynced part was not written either. The last `undo_removals`
        removals come back, if they can."""
        self._failed = ""
        for name, file in self._renamed.items():
            if file is None:
                del self._files[name]
            else:
                self._files[name] = file
        self._renamed.clear()
        for name, file in self._removed[len(self._removed) - undo_removals :] if undo_removals else ():
            self._files.setdefault(name, file)
        self._removed.clear()
        keep_bytes, torn = keep_bytes or {}, torn or {}
        for name, file in list(self._files.items()):
            if file.found_bytes is None and name not in keep_bytes:
                del self._files[name]
                continue
            safe = file.found_bytes or 0
            del file.data[safe + keep_bytes.get(name, 0) :]
            for sector in (holes or {}).get(name, ()):
                begin, end = max(safe, sector * SECTOR_BYTES), min(len(file.data), (sector + 1) * SECTOR_BYTES)
                file.data[begin:end] = bytes(max(0, end - begin))
            file.data += torn.get(name, b"")
            file.found_bytes = len(file.data)

    def tear(self, rng: random.Random) -> None:
        """The host loses power while it writes: of each unsynced tail any prefix is found again, or any sectors."""
        tails = self.unsynced_bytes()
        if rng.random() < 0.5:
            self.crash({name: rng.randint(0, tail) for name, tail in tails.items()})
            return
        holes = {}
        for name in tails:
            file = self._files[name]
            first, last = (file.found_bytes or 0) // SECTOR_BYTES, len(file.data) // SECTOR_BYTES
            holes[name] = [sector for sector in range(first, last + 1) if rng.random() < 0.5]
        self.crash(tails, holes=holes)

    def unsynced_bytes(self) -> dict[str, int]:
        """Name -> bytes of its tail that are not safe, of files that have such a tail or are not safe themselves."""
        tails = {name: len(file.data) - (file.found_bytes or 0) for name, file in sorted(self._files.items())}
        return {name: tail for name, tail in tails.items() if tail or self._files[name].found_bytes is None}

    def corrupt(self, name: str, offset_bytes: int, xor: int) -> None:
        """Change one byte of the file, safely."""
        self._files[name].data[offset_bytes] ^= xor

    # -- shared -------------------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._failed:
            raise StorageError(self._failed)

    def _refuse(self, name: str) -> None:
        self._failed = explained(name, "cannot be written", OSError(errno.ENOSPC, "No space left on device"))
        raise StorageError(self._failed)

    def _maybe_die(self, step: str) -> None:
        if self.die_in_replace == step:
            raise Died(f"replace, {step}")
