"""What isolators made is taken back, one container after the other, whatever goes wrong with one of them."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from mesos_actor.actors.ids import ContainerId
from mesos_actor.isolation.cleaner import Cleaner
from mesos_actor.isolation.isolator import BaseIsolator, Isolation

A, B, C = ContainerId("a"), ContainerId("b"), ContainerId("c")


class Forgetful(BaseIsolator):
    """Has a bug with B, the first time."""

    name = "forgetful"

    def __init__(self) -> None:
        self.cleaned: list[ContainerId] = []
        self.again = threading.Event()

    def cleanup(self, container_id: ContainerId) -> None:
        self.cleaned.append(container_id)
        if container_id == B and self.cleaned.count(B) == 1:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
        if container_id == B:
            self.again.set()


class Before(BaseIsolator):
    """Is asked after the forgetful one, for cleaning goes backwards."""

    name = "before"

    def __init__(self) -> None:
        self.cleaned: list[ContainerId] = []

    def cleanup(self, container_id: ContainerId) -> None:
        self.cleaned.append(container_id)


class Told:
    """Stands for the outlet."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.logged: list[tuple[str, Any]] = []

    def call_later(self, delay_us: int, call: Any) -> None:
        self._loop.call_later(delay_us / 1e6, call)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.logged.append((event, fields))


def test_a_bug_with_one_container_leaves_nothing_else_as_it_is() -> None:
    before = Before()

    async def clean() -> tuple[list[ContainerId], list[tuple[str, Any]]]:
        isolator, told = Forgetful(), Told(asyncio.get_running_loop())
        cleaner = Cleaner(Isolation([before, isolator]), told, asyncio.get_running_loop(), 1_000, lambda: False)  # type: ignore[arg-type]
        for container_id in (A, B, C):
            cleaner.add(container_id)
        assert await asyncio.to_thread(isolator.again.wait, 10)
        cleaner.close()
        return isolator.cleaned, told.logged

    cleaned, logged = asyncio.run(clean())

    assert cleaned == [A, B, C, B]
    assert before.cleaned[:3] == [A, B, C]
    assert [(event, fields["container"]) for event, fields in logged] == [("not_cleaned_up", B)]
    assert "UnicodeDecodeError" in logged[0][1]["text"]
