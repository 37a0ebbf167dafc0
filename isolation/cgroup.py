"""cgroups v2, directly: the agent's tree, a container's cgroup, its limits, its end.

    <own>/                         the subtree found or given (cgroup_host.py); its controllers are handed down
    <own>/mesos-actor-self         the agent's own processes, where <own> is not the root of the whole tree
    <own>/mesos-actor/             the tree: nobody is in it, every cgroup below it is a container
    <own>/mesos-actor/<container>  limits and processes; a pod's holds only its members' cgroups

Two agents on a host use two subtrees or two names. The kernel's rule that a cgroup with processes of its own hands no
controllers down (but for the root of the whole tree) shapes all this. Files are declared in cgroup_files.py.

Everything here is a few system calls, but for `kill`, `freeze` and `destroy`, which wait, woken by the kernel and not
longer than they are told: call those off the loop. A container that is gone is no error where it is to be ended.
Raises CgroupError, whose text says which file refused what; InvalidInput for names that cannot be used. Any other
exception is a bug of ours.

Kernel document: Documentation/admin-guide/cgroup-v2.rst. Mesos: src/linux/cgroups2.cpp.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.cgroup_files import CgroupNode
from mesos_actor.isolation.cgroup_host import NEEDED, SELF, Missing, find, is_top
from mesos_actor.isolation.cgroup_usage import CgroupTotals, CgroupUsage, totals_of, usage_of
from mesos_actor.isolation.limits import DEFAULTS, NOT_EVERYWHERE, Write
from mesos_actor.isolation.paths import directory_name

TREE = "mesos-actor"

WAIT_S = 10.0
"""How long a kill or a freeze may take before it is called failed: a process in uninterruptible sleep ends when it
wakes up."""

BUSY_TRIES = 5_000
BUSY_PAUSE_S = 0.001
"""A cgroup whose last process has just died is busy for a moment. (Mesos: 5000 times 1 ms too)"""

MAX_ROUNDS = 100
"""How often our own processes are looked for and moved out of the way of the tree: they may fork meanwhile."""

MAX_DEPTH = 32
"""Levels of cgroups below a container that are removed with it."""

_CONTROLLERS = frozenset(
    ("cgroup", "cpu", "cpuset", "memory", "io", "pids", "hugetlb", "rdma", "misc", "dmem", "irq", "debug")
)
_GONE = (errno.ENOENT, errno.ENODEV)


class CgroupError(Exception):
    """A cgroup could not be made, written or ended; the text names the file and says why."""


class Unusable(CgroupError):
    """The host cannot do this as it is. `missing` says what and how to get it, a sentence each."""

    def __init__(self, missing: Collection[Missing]) -> None:
        super().__init__("; ".join(str(entry) for entry in missing))
        self.missing = tuple(missing)


class Cgroup:
    """One container's cgroup. Made by CgroupTree; a handle costs nothing and may outlive what it names."""

    def __init__(self, name: str, directory: str) -> None:
        self.name = name
        self.directory = directory

    @functools.cached_property
    def node(self) -> CgroupNode:
        """Its files, typed. Made when first asked for: most handles of a task's short life never are."""
        return CgroupNode(self.directory)

    def __repr__(self) -> str:
        return f"Cgroup({self.directory!r})"

    @property
    def procs_path(self) -> str:
        """Whoever writes its own pid (or 0) here is in; what the launcher's child does between fork and exec."""
        return f"{self.directory}/cgroup.procs"

    def exists(self) -> bool:
        return Path(self.directory).is_dir()

    def enter(self, pid: int) -> None:
        """Move one process in."""
        with _explained(self.procs_path, str(pid)):
            self.node.core.procs = pid

    def pids(self) -> tuple[int, ...]:
        """The processes in this cgroup itself, none of those below it. Empty when it is gone."""
        try:
            return tuple(self.node.core.procs)
        except OSError as error:
            if error.errno in _GONE:
                return ()
            raise _failed(self.procs_path, "", error) from None

    def apply(self, writes: Iterable[Write]) -> None:
        """Write these limits, all or none: when one is refused, those before it get back what they were."""
        done: list[tuple[Write, str]] = []
        for write in writes:
            try:
                before = self.node.read(write.file)
                self._write(write)
            except OSError as error:
                if not self._is_moot(write, error):
                    raise CgroupError(self._refusal(write, error) + self._undone(done)) from None
            else:
                done.append((write, before))

    def apply_fresh(self, writes: Iterable[Write]) -> None:
        """Write these limits to a cgroup that was just made: what it holds anyhow is left out, nothing is undone."""
        for write in writes:
            if DEFAULTS.get(write.file) == write.content:
                continue
            try:
                # As CgroupNode.write, without what that costs: this is once a file for every task.
                descriptor = os.open(f"{self.directory}/{write.file}", os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
                try:
                    os.write(descriptor, write.content.encode())
                finally:
                    os.close(descriptor)
            except OSError as error:
                if not self._is_moot(write, error):
                    raise CgroupError(self._refusal(write, error)) from None

    def _write(self, write: Write) -> None:
        try:
            self.node.write(write.file, write.content)
        except OSError as error:
            if error.errno != errno.ENOSPC or write.controller != "cpuset" or write.content != "\n":
                raise
            # A list cannot be emptied while somebody is inside; all that the cgroup above has is the same for now.
            above = CgroupNode(os.path.dirname(self.directory))  # noqa: PTH120
            self.node.write(write.file, above.read(f"{write.file}.effective"))

    def _is_moot(self, write: Write, error: OSError) -> bool:
        return error.errno == errno.ENOENT and write.file in NOT_EVERYWHERE and self.exists()

    def _refusal(self, write: Write, error: OSError) -> str:
        path = f"{self.directory}/{write.file}"
        if error.errno == errno.ENOENT and self.exists():
            return f"{path}: this kernel has no such file, or controller {write.controller} is not enabled"
        return str(_failed(path, write.content, error))

    def _undone(self, done: list[tuple[Write, str]]) -> str:
        """Take back what was done, last first. What could not be taken back, for the error's text."""
        stuck = []
        for write, before in reversed(done):
            try:
                self._write(write._replace(content=_as_it_was(write, before)))
            except OSError as error:
                stuck.append(f"{write.file} ({error.strerror})")
        return f"; and these stay changed: {', '.join(stuck)}" if stuck else ""

    def usage(self) -> CgroupUsage | None:
        """What it uses now; None when it is gone."""
        try:
            return usage_of(self.node)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise _failed(self.directory, "", error) from None

    def totals(self) -> CgroupTotals | None:
        """What it used in all, once it has ended; None when it is gone."""
        try:
            return totals_of(self.directory)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise _failed(self.directory, "", error) from None

    def is_populated(self) -> bool:
        """Whether a process lives in it or below it."""
        return self._event("populated") == 1

    def _event(self, name: str) -> int | None:
        try:
            return self.node.core.events.get(name)
        except OSError as error:
            if error.errno in _GONE:
                return None
            raise _failed(f"{self.directory}/cgroup.events", "", error) from None

    def signal_kill(self) -> None:
        """KILL to every process in it and below it, those forked at this moment too. Does not wait; frozen ones die
        as well."""
        path = f"{self.directory}/cgroup.kill"
        try:
            self.node.core.kill = True
        except OSError as error:
            if self.exists():
                raise _failed(path, "1", error) from None

    def kill(self, timeout_s: float = WAIT_S) -> bool:
        """Kill everybody and wait until nobody is left. False: somebody is, after that time."""
        self.signal_kill()
        return self._await("populated", 0, timeout_s)

    def freeze(self, timeout_s: float = WAIT_S) -> bool:
        """Stop everybody and wait until they stand. False: somebody does not, after that time; it goes on trying."""
        with _explained(f"{self.directory}/cgroup.freeze", "1"):
            self.node.core.freeze = True
        return self._await("frozen", 1, timeout_s)

    def thaw(self, timeout_s: float = WAIT_S) -> bool:
        """Let everybody go on."""
        with _explained(f"{self.directory}/cgroup.freeze", "0"):
            self.node.core.freeze = False
        return self._await("frozen", 0, timeout_s)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nobody is in it or below it."""
        return self._await("populated", 0, timeout_s)

    def _await(self, name: str, wanted: int, timeout_s: float) -> bool:
        """Wait for a value in cgroup.events; a cgroup that is gone is empty and thawed. The kernel wakes us."""
        until = time.monotonic() + timeout_s
        try:
            descriptor = os.open(f"{self.directory}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if error.errno in _GONE:
                return wanted == 0
            raise _failed(f"{self.directory}/cgroup.events", "", error) from None
        poll = select.poll()
        poll.register(descriptor, select.POLLPRI)
        try:
            while True:
                text = os.pread(descriptor, 4096, 0).decode()
                if f"{name} {wanted}" in text.splitlines():
                    return True
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                poll.poll(left_s * 1000)
        except OSError as error:
            if error.errno in _GONE:
                return wanted == 0
            raise _failed(f"{self.directory}/cgroup.events", "", error) from None
        finally:
            os.close(descriptor)

    def destroy(self, timeout_s: float = WAIT_S) -> None:
        """Kill whoever is left and remove it with everything below it. Gone already is fine."""
        until = time.monotonic() + timeout_s
        try:
            os.rmdir(self.directory)  # noqa: PTH106 - the usual case: nobody is left and nothing is below
        except FileNotFoundError:
            return
        except OSError:
            pass  # then by force
        else:
            return
        if not self.kill(timeout_s):
            raise CgroupError(f"{self.directory}: processes {self.pids()[:10]} did not die within {timeout_s:g} s")
        for directory in _bottom_up(self.directory):
            _remove(directory, until)


class CgroupTree:
    """The agent's tree. Made by `make_tree`, which has also enabled `controllers` in it."""

    def __init__(self, directory: str, controllers: tuple[str, ...]) -> None:
        self.directory = directory
        self.controllers = controllers

    def of(self, container_id: str, parent: Cgroup | None = None) -> Cgroup:
        """The handle of a container's cgroup, whether it exists or not."""
        return Cgroup(container_id, f"{parent.directory if parent else self.directory}/{_directory_of(container_id)}")

    def create(self, container_id: str, writes: Iterable[Write] = (), parent: Cgroup | None = None) -> Cgroup:
        """Make a container's cgroup with these limits; nothing of it stays when that fails. `parent`: the pod it is in,
        in which no process may be then. One left from a dead agent must be destroyed first."""
        cgroup = self.of(container_id, parent)
        if parent is not None:
            _hand_down(parent.directory, self.controllers)
        try:
            os.mkdir(cgroup.directory, 0o755)  # noqa: PTH102 - once for every task
        except FileExistsError:
            raise CgroupError(f"{cgroup.directory} exists already: destroy it first") from None
        except OSError as error:
            raise _failed(cgroup.directory, "", error) from None
        try:
            cgroup.apply_fresh(writes)
        except CgroupError:
            with contextlib.suppress(CgroupError):
                cgroup.destroy()
            raise
        return cgroup

    def names(self) -> tuple[str, ...]:
        """The containers that have a cgroup, sorted: after an agent's start, what the last one left. A very long id
        appears in its shortened form, which `of` takes as well."""
        try:
            with os.scandir(self.directory) as entries:
                found = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise _failed(self.directory, "", error) from None
        return tuple(sorted(name.removeprefix("_") for name in found))

    def destroy_all_but(self, kept: Collection[str], timeout_s: float = WAIT_S) -> tuple[str, ...]:
        """End the leftovers, each within that time, and return what of them could not be ended, with the reason."""
        kept_directories = {_directory_of(container_id).removeprefix("_") for container_id in kept}
        stuck = []
        for name in self.names():
            if name not in kept_directories:
                try:
                    self.of(name).destroy(timeout_s)
                except CgroupError as error:
                    stuck.append(f"{name}: {error}")
        return tuple(stuck)

    def remove(self) -> None:
        """End every container and remove the tree."""
        Cgroup("", self.directory).destroy()


def make_tree(root: str = "", name: str = TREE, wanted: Iterable[str] = ("cpuset", "io", "hugetlb")) -> CgroupTree:
    """The agent's tree in our own subtree, or in `root`; made when it is not there yet, with the controllers of NEEDED
    and those of `wanted` that are available.

    Raises Unusable with everything that is missing.
    """
    found = find(root)
    if found.missing:
        raise Unusable(found.missing)
    directory = f"{found.own}/{directory_name('name', name)}"
    # Whoever may move into the tree must be able to write to <own>/cgroup.procs: that is what delegation gave us.
    with _explained(directory):
        Path(directory).mkdir(exist_ok=True)
    if not Path(directory, "cgroup.kill").exists():
        raise Unusable([Missing("this kernel has no cgroup.kill", "use Linux 5.14 or newer, or --isolation process")])
    if not is_top(found.own):
        _step_aside(found.own)
    controllers = (*NEEDED, *(extra for extra in wanted if extra in found.controllers and extra not in NEEDED))
    _hand_down(found.own, controllers)
    _hand_down(directory, controllers)
    return CgroupTree(directory, controllers)


def _step_aside(own: str) -> None:
    """Move every process that is directly in our subtree to its own cgroup; bounded, for they may fork meanwhile."""
    aside = CgroupNode(f"{own}/{SELF}")
    for _ in range(MAX_ROUNDS):
        with _explained(f"{own}/cgroup.procs"):
            pids = CgroupNode(own).core.procs
        if not pids:
            return
        with _explained(aside.directory):
            Path(aside.directory).mkdir(exist_ok=True)
        for pid in pids:
            if pid == 0:
                what = f"{own} holds a process of another pid namespace, so its controllers cannot be handed down"
                raise Unusable([Missing(what, "start the agent in a cgroup of its own")])
            try:
                aside.core.procs = pid
            except ProcessLookupError:
                continue  # it has ended
            except OSError as error:
                raise _failed(f"{aside.directory}/cgroup.procs", str(pid), error) from None
    raise CgroupError(f"{own}: its processes fork faster than they can be moved to {aside.directory}")


def _hand_down(directory: str, controllers: Iterable[str]) -> None:
    """Enable controllers for the cgroups below this one: in one write, so all or none. One at a time, cpu and pids
    could be had in a cgroup with processes, at the price of making its children threaded ones, which is no use."""
    node = CgroupNode(directory)
    path = f"{directory}/cgroup.subtree_control"
    with _explained(path):
        enabled = node.core.subtree_controllers
    change = " ".join(f"+{name}" for name in controllers if name not in enabled)
    if not change:
        return
    try:
        node.core.subtree_control = change
    except OSError as error:
        if error.errno in (errno.EBUSY, errno.EOPNOTSUPP) and not is_top(directory):
            raise CgroupError(f"{path}: refused {change!r}, because processes are directly in {directory}") from None
        raise _failed(path, change, error) from None


def _directory_of(container_id: str) -> str:
    """A container's directory: its id, with `_` before what could be one of the kernel's own file names (systemd does
    the same). Raises InvalidInput."""
    name = directory_name("container_id", container_id)
    if "\n" in name:
        raise InvalidInput(f"container_id: {container_id!r} cannot name a cgroup: it must not hold a line break")
    if name.startswith("_") or name.partition(".")[0] in _CONTROLLERS:
        return directory_name("container_id", f"_{name}")
    return name


def _as_it_was(write: Write, before: str) -> str:
    """What to write to get back what a file said. A new io.max line is taken back by its own `max`es."""
    if write.file == "io.max":
        device = write.content.partition(" ")[0]
        for line in before.splitlines():
            if line.partition(" ")[0] == device:
                return line
        return f"{device} rbps=max wbps=max riops=max wiops=max"
    if write.file == "io.weight":
        return before.partition("\n")[0]
    return before or "\n"


def _bottom_up(directory: str) -> Iterator[str]:
    """Cgroups to remove, those below first."""
    depth = directory.count("/")
    for path, _, _ in os.walk(directory, topdown=False, followlinks=False):
        if path.count("/") - depth > MAX_DEPTH:
            raise CgroupError(f"{path}: deeper than the {MAX_DEPTH} levels a container may have")
        yield path


def _remove(directory: str, until: float) -> None:
    """rmdir, tried again while the kernel still counts somebody who is dead."""
    for attempt in range(BUSY_TRIES):
        try:
            os.rmdir(directory)  # noqa: PTH106
        except OSError as error:
            if error.errno in _GONE:
                return
            if error.errno != errno.EBUSY or attempt == BUSY_TRIES - 1 or time.monotonic() > until:
                raise _failed(directory, "", error) from None
        else:
            return
        time.sleep(BUSY_PAUSE_S)


def _failed(path: str, content: str, error: OSError) -> CgroupError:
    said = f" refused {content!r}" if content else ""
    return CgroupError(f"{path}:{said} {error.strerror or error}".replace(":  ", ": "))


@contextlib.contextmanager
def _explained(path: str, content: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(path, content, error) from None
