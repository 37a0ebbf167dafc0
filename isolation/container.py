"""What the launcher knows of one container, and how that is written down and read back.

Records of the exit log, each an array that starts with its kind and, but for `boot`, the container's id:
`boot` id · `intent` cwd [cgroup] · `started` pid first_ticks last_ticks · `kill` grace_ms · `main` code ·
`exited` code killed text · `forget`. `intent` goes before the process is made, so that a launcher which dies in between
leaves no process that nobody knows. Standard library only: the launcher imports this.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mesos_actor.isolation import tree


class Container:
    """One container. `main_gone`: the main process ended; `ended`: nobody of its family is left either."""

    __slots__ = (
        "adopted",
        "cgroup",
        "code",
        "cwd",
        "deadline",
        "emptying",
        "ended",
        "id",
        "killed",
        "main_gone",
        "main_noted",
        "pid",
        "pidfd",
        "spared",
        "strays",
        "text",
        "times",
    )

    def __init__(self, container_id: str, cwd: str, cgroup: str = "") -> None:
        self.id = container_id
        self.cwd = cwd
        #: The directory of its cgroup; empty: it has none, and its family is guessed.
        self.cgroup = cgroup
        #: Its open cgroup.events while its main process is gone and somebody else is not; else -1.
        self.emptying = -1
        #: The main process, leader of its session; 0: none was started.
        self.pid = 0
        #: Clock ticks since the boot between which the process was made: with the pid, its identity.
        self.times: tuple[int, int] = (0, 0)
        #: Started by a former launcher, so it is not our child.
        self.adopted = False
        self.pidfd = -1
        #: Whether anybody asked to kill it.
        self.killed = False
        #: When whoever is left gets KILL, on the monotonic clock; None: nobody asked for that.
        self.deadline: float | None = None
        #: Exit status, or a negative signal number; None: not ended, or not knowable.
        self.code: int | None = None
        self.main_gone = False
        self.main_noted = False
        self.ended = False
        self.text = ""
        #: Children of the launcher that belong to this container, beside the main process.
        self.strays: set[int] = set()
        #: Processes that we are not allowed to signal: not waited for.
        self.spared: set[int] = set()

    def is_due(self) -> bool:
        """Whether whoever is left of it should be killed now: its grace is over, or nobody gave it one."""
        return self.deadline is None or self.deadline <= time.monotonic()

    def described(self) -> dict[str, Any]:
        """As `listed` tells it."""
        known = {"id": self.id, "pid": max(0, self.pid), "ended": self.ended, "code": self.code}
        return known | {"killed": self.killed, "text": self.text}

    def exit_event(self) -> dict[str, Any]:
        return {"k": "exited", "id": self.id, "code": self.code, "killed": self.killed, "text": self.text}

    def note(self, text: str) -> bool:
        """Add a remark for whoever reads of the end; whether it is new."""
        if text in self.text:
            return False
        self.text = f"{self.text}; {text}" if self.text else text
        return True

    def intent(self) -> list[Any]:
        """The record that goes before the process is made."""
        return ["intent", self.id, self.cwd, self.cgroup] if self.cgroup else ["intent", self.id, self.cwd]

    def records(self) -> Iterator[list[Any]]:
        """What the log must hold so that `replay` gives this container again."""
        yield self.intent()
        if self.ended:
            yield ["exited", self.id, self.code, self.killed, self.text]
            return
        yield ["started", self.id, self.pid, *self.times]
        if self.killed:
            left_s = max(0.0, (self.deadline or 0.0) - time.monotonic())
            yield ["kill", self.id, int(left_s * 1000)]
        if self.main_gone:
            yield ["main", self.id, self.code]


def replay(records: Iterable[list[Any]]) -> tuple[dict[str, Container], dict[str, str]]:
    """The containers that `records` tell of, and the boot in which each was launched, both by id.

    A kill's grace starts again.
    """
    containers: dict[str, Container] = {}
    boots: dict[str, str] = {}
    boot = ""
    for kind, key, *rest in records:
        if kind == "boot":
            boot = key
        elif kind == "forget":
            containers.pop(key, None)
        elif kind == "intent":
            containers[key] = Container(key, *rest[:2])
            boots[key] = boot
        elif key in containers:
            _apply(containers[key], kind, rest)
    return containers, boots


def _apply(container: Container, kind: str, rest: list[Any]) -> None:
    if kind == "started":
        container.pid = rest[0]
        container.times = (rest[1], rest[2])
    elif kind == "kill":
        container.killed = True
        container.deadline = time.monotonic() + rest[0] / 1000
    elif kind == "main":
        container.main_gone = True
        container.main_noted = True
        container.code = rest[0]
    elif kind == "exited":
        container.code, container.killed, container.text = rest
        container.main_gone = True
        container.ended = True


def signal_one(container: Container, pid: int, stat: tree.Stat, number: int, say: Callable[[str], None]) -> bool:
    """Signal one process of the container. False: it has become somebody else, and is not waited for any more."""
    try:
        tree.signal_if_same(pid, stat, number)
    except PermissionError:
        container.spared.add(pid)
        text = f"process {pid} took another user's identity and cannot be killed"
        if container.note(text):
            say(f"{container.id}: {text}")
        return False
    return True
