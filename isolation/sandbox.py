"""The `sandbox` port: reading files of sandboxes, and deleting old sandboxes.

Reading follows links only as far as they stay in the sandbox: what was opened is asked where it is before a byte of it
is given away. Deleting goes on in a thread, slowly: thousands of deletions at once halve the speed of launches on ext4.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import Address, ContainerId, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import CollectGarbage, FileData, GarbageCollected, ReadFile
from mesos_actor.actors.ports import Outlet
from mesos_actor.isolation.answers import OWN_PROCESS
from mesos_actor.isolation.paths import directory_name, sandbox_of, sandboxes_of

MAX_READ_BYTES = 256 << 10
"""The most of a file in one answer."""

HEADROOM_PERMILLE = 100
"""Free space below which sandboxes go at once when they have ended (Mesos: --gc_disk_headroom, 0.1)."""

DELETIONS_PER_S = 100
MAX_DELETIONS = 10_000
"""Sandboxes deleted for one CollectGarbage; the next one goes on."""

MAX_PATH_BYTES = 4_096


class ReadError(Exception):
    """The file cannot be given. The text is for whoever asked."""


def read_piece(sandbox: str, path: str, offset_bytes: int, length_bytes: int) -> tuple[int, int, bytes]:
    """Where the piece begins, how long the file is now, and the piece: at most MAX_READ_BYTES, empty past the end.

    `offset_bytes` < 0 counts from the end. Raises ReadError for what is not a regular file inside the sandbox.
    """
    if not path or "\0" in path or len(path.encode(errors="replace")) > MAX_PATH_BYTES:
        raise ReadError(f"path: {path!r:.80} is not the name of a file in a sandbox")
    if length_bytes < 0:
        raise ReadError(f"length_bytes: {length_bytes} is negative; ask for 0 or more")
    if path.startswith("/") or ".." in path.split("/"):
        raise ReadError(f"path: {path!r} must be relative to the sandbox, without '..'")
    real = os.path.realpath(sandbox)
    inside = f"{real}/"
    try:
        if not os.path.realpath(f"{sandbox}/{path}").startswith(inside):  # before opening, for opening may do things
            raise ReadError(f"path: {path!r} leads out of the sandbox")
        descriptor = os.open(f"{sandbox}/{path}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise ReadError(f"path: cannot read {path!r}: {error.strerror}") from None
    try:
        # After opening, for the task may have exchanged a directory for a link meanwhile.
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(inside):  # noqa: PTH115
            raise ReadError(f"path: {path!r} leads out of the sandbox")
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise ReadError(f"path: {path!r} is not a regular file")
        begin = max(0, found.st_size + offset_bytes) if offset_bytes < 0 else offset_bytes
        data = b""
        if begin < found.st_size:
            data = os.pread(descriptor, min(length_bytes, MAX_READ_BYTES), begin)
        return begin, found.st_size, data
    except OSError as error:
        raise ReadError(f"path: cannot read {path!r}: {error.strerror}") from None
    finally:
        os.close(descriptor)


def allowed_age_ms(max_age_ms: int, free_permille: int, headroom_permille: int = HEADROOM_PERMILLE) -> int:
    """How old a sandbox may become with so much free space: `max_age_ms` on an empty disk, 0 within the headroom.

    After Mesos, docs/agent-recovery and --gc_delay: the age shrinks in proportion to the space that is left.
    """
    return max_age_ms * max(0, free_permille - headroom_permille) // (1_000 - headroom_permille)


def free_permille_of(path: Path) -> int:
    """The share of the file system that is free for us, in thousandths."""
    space = os.statvfs(path)
    return 1_000 * space.f_bavail // max(1, space.f_blocks)


def remove_tree(path: Path) -> bool:
    """Delete a sandbox, whatever permissions its task left behind; whether it is gone."""

    def open_up(_call: object, name: str, _error: object) -> None:
        """Let us into a directory that the task closed, and try what failed once more."""
        parent = Path(name).parent
        for folder in (parent, Path(name)):
            if folder != path.parent and folder.is_dir() and not folder.is_symlink():
                folder.chmod(0o700)
        if Path(name).is_symlink() or not Path(name).is_dir():
            Path(name).unlink(missing_ok=True)

    for _ in range(3):  # a closed directory shows what is in it only after it was opened up
        try:
            shutil.rmtree(path, onerror=open_up)
        except OSError:
            continue
        if not os.path.lexists(path):
            return True
    return not os.path.lexists(path)


class FileSandbox:
    """Sandboxes below `<work_dir>/sandboxes`. `is_live` says whether a container is in use; it must be safe to ask
    from any thread."""

    def __init__(
        self,
        work_dir: Path,
        is_live: Callable[[ContainerId], bool],
        deletions_per_s: int = DELETIONS_PER_S,
        free_permille: Callable[[Path], int] = free_permille_of,
    ) -> None:
        self._work_dir = work_dir.absolute()
        self._is_live = is_live
        self._pause_s = 1 / deletions_per_s
        self._free_permille = free_permille
        self._pool: ThreadPoolExecutor | None = None
        #: Who waits for the collection that is going on; another request meanwhile joins it.
        self._askers: list[Address] = []
        self._stop = threading.Event()

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet
        self._loop = asyncio.get_running_loop()
        self._stop.clear()

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        # Who may read what is the agent's decision: nobody else may ask here.
        if isinstance(message, ReadFile) and principal == OWN_PROCESS:
            self._outlet.send(sender, self._read(message))
        elif isinstance(message, CollectGarbage) and principal == OWN_PROCESS:
            self._collect_for(sender, message)
        else:
            self._outlet.log("unexpected_message", level="warning", kind=type(message).__name__, sender=sender)

    def on_flush(self) -> None:
        """Nothing is kept back."""

    def close(self) -> None:
        """Stop deleting after the sandbox at hand."""
        self._stop.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None

    def _read(self, message: ReadFile) -> FileData:
        try:
            sandbox = sandbox_of(self._work_dir, message.framework_id, message.container_id)
            begin, size, data = read_piece(sandbox, message.path, message.offset_bytes, message.length_bytes)
        except (InvalidInput, ReadError) as error:
            return FileData(message.operation_id, message.offset_bytes, 0, error=str(error))
        return FileData(message.operation_id, begin, size, data)

    def _collect_for(self, sender: Address, message: CollectGarbage) -> None:
        if sender not in self._askers:
            self._askers.append(sender)
        if len(self._askers) > 1:
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(1, thread_name_prefix="garbage")

        def work() -> None:
            removed: list[ContainerId] = []
            kept: list[str] = []
            try:
                self._collect(message, removed, kept)
            except OSError as error:
                kept.append(f"{error.filename}: {error.strerror}")
            if not self._stop.is_set():
                self._loop.call_soon_threadsafe(self._collected, removed, kept)

        self._pool.submit(work)

    def _collected(self, removed: list[ContainerId], kept: list[str]) -> None:
        askers, self._askers = self._askers, []
        if self._stop.is_set():
            return
        for path in kept:
            self._outlet.log("sandbox_not_removed", level="warning", path=path)
        answer = GarbageCollected(tuple(removed), self._free())
        for asker in askers:
            self._outlet.send(asker, answer)

    def _free(self) -> int:
        try:
            return self._free_permille(self._work_dir)
        except OSError:
            return 0

    def _collect(self, message: CollectGarbage, removed: list[ContainerId], kept: list[str]) -> None:
        """Delete what is old enough, oldest first. Adds to what is gone and to what would not go."""
        age_ms = allowed_age_ms(max(0, message.max_age_ms), self._free())
        newest_s = time.time() - age_ms / 1000
        keep = _names_of(message.keep)
        for _, path in sorted(self._older_than(newest_s, keep))[:MAX_DELETIONS]:
            if self._stop.is_set():
                break
            container = ContainerId(path.name)
            if self._is_live(container):
                continue
            if remove_tree(path):
                removed.append(container)
            else:
                kept.append(str(path))
            self._stop.wait(self._pause_s)

    def _older_than(self, newest_s: float, keep: set[str]) -> list[tuple[float, Path]]:
        found = []
        for framework in _folders(sandboxes_of(self._work_dir)):
            sandboxes = _folders(framework)
            if not sandboxes:
                _remove_if_empty(framework, newest_s)
            for sandbox in sandboxes:
                changed_s = _last_change_s(sandbox)
                if changed_s < newest_s and sandbox.name not in keep and not self._is_live(ContainerId(sandbox.name)):
                    found.append((changed_s, sandbox))
        return found


def _names_of(containers: Iterable[ContainerId]) -> set[str]:
    names = set()
    for container in containers:
        with contextlib.suppress(InvalidInput):  # then it has no sandbox
            names.add(directory_name("keep", container))
    return names


def _folders(path: Path) -> list[Path]:
    try:
        with os.scandir(path) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []  # gone, or never there


def _remove_if_empty(framework: Path, newest_s: float) -> None:
    try:
        if framework.stat().st_mtime < newest_s:
            framework.rmdir()
    except OSError:
        return  # in use again


def _last_change_s(sandbox: Path) -> float:
    """When something was last made in the sandbox or written by the task, as far as its top level tells."""
    newest = 0.0
    for path in (sandbox, sandbox / "stdout", sandbox / "stderr"):
        try:
            newest = max(newest, path.lstat().st_mtime)
        except OSError:
            continue
    return newest
