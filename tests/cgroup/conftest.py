"""Containers' cgroups on a real kernel: `scripts/vm -- python -m pytest tests/cgroup`.

Nothing here runs on a host: these tests fork bombs, fill memory and hand parts of the tree to other users. Programs are
shell scripts, because a Python takes seconds to start in the emulated machine.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest

if TYPE_CHECKING:
    from mesos_actor.isolation.cgroup import Cgroup, CgroupTree
    from mesos_actor.isolation.cgroup_usage import CgroupUsage
    from mesos_actor.isolation.events import CgroupEvents

IN_VM = os.environ.get("MESOS_ACTOR_IN_VM") == "1"
PATIENCE_S = 50.0
"""How long what must happen may take: the machine is emulated, and its host may be busy."""

T = TypeVar("T")


@pytest.fixture(autouse=True)
def _only_in_the_machine() -> None:
    if not IN_VM:
        pytest.skip("needs a cgroup v2 kernel of its own: scripts/vm -- python -m pytest tests/cgroup")


@pytest.fixture
def tree(_only_in_the_machine: None) -> Iterator[CgroupTree]:
    """The agent's tree, empty; whatever a test leaves in it is ended."""
    from mesos_actor.isolation.cgroup import make_tree

    made = make_tree()
    assert made.names() == ()
    yield made
    made.remove()
    assert not Path(made.directory).exists()


Run = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def run() -> Iterator[Run]:
    """Starts a shell script, or a program, in a cgroup: it moves itself in before anything else."""
    started: list[subprocess.Popen[bytes]] = []

    def start(cgroup: Cgroup, script: str, **options: object) -> subprocess.Popen[bytes]:
        enter = 'echo 0 >"$0" || exit 99; ' + script
        process = subprocess.Popen(["/bin/sh", "-c", enter, cgroup.procs_path], stderr=subprocess.DEVNULL, **options)  # type: ignore[call-overload]
        started.append(process)
        return process  # type: ignore[no-any-return]

    yield start
    for process in started:
        process.kill()
        process.wait(PATIENCE_S)
        for stream in (process.stdout, process.stdin):
            if stream is not None:
                stream.close()


@pytest.fixture
def events(_only_in_the_machine: None) -> Iterator[CgroupEvents]:
    from mesos_actor.isolation.events import CgroupEvents

    watcher = CgroupEvents()
    yield watcher
    watcher.close()


def until(condition: Callable[[], T], what: str) -> T:
    """Look until it is so. For what the kernel notifies nobody of."""
    end = time.monotonic() + PATIENCE_S
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"{what}: not within {PATIENCE_S} s"
        time.sleep(0.02)


def wait_for(watcher: CgroupEvents, kind: type[T], container_id: str, seen: list[object] | None = None) -> T:
    """The next event of this kind and container; whatever comes before it goes to `seen`."""
    end = time.monotonic() + PATIENCE_S
    heard: list[object] = [] if seen is None else seen
    while time.monotonic() < end:
        select.select([watcher], [], [], max(0.0, end - time.monotonic()))
        found: T | None = None
        for event in watcher.read():
            if found is None and isinstance(event, kind) and event.container_id == container_id:
                found = event
            heard.append(event)
        if found is not None:
            return found
    raise AssertionError(f"no {kind.__name__} of {container_id} within {PATIENCE_S} s; heard {heard}")


def cpu_share(window_s: float, *cgroups: Cgroup) -> list[float]:
    """How many processors each of these used on average over the same window."""

    def used() -> list[int]:
        return [usage(cgroup).cpu_us for cgroup in cgroups]

    before, start = used(), time.monotonic()
    time.sleep(window_s)  # what is measured is this time
    after, elapsed_s = used(), time.monotonic() - start
    return [(b - a) / 1e6 / elapsed_s for a, b in zip(before, after, strict=True)]


def usage(cgroup: Cgroup) -> CgroupUsage:
    """What an existing one uses."""
    found = cgroup.usage()
    assert found is not None
    return found


class Kit:
    """The functions above, for tests that cannot import a conftest."""

    until = staticmethod(until)
    wait_for = staticmethod(wait_for)
    cpu_share = staticmethod(cpu_share)
    usage = staticmethod(usage)
    patience_s = PATIENCE_S


@pytest.fixture
def kit() -> Kit:
    return Kit()
