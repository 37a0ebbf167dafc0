"""Benches: a containerizer with a pretended agent, once with real processes, once under virtual time."""

from __future__ import annotations

import asyncio
import heapq
import os
import random
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Node, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import LaunchContainer, RecoverContainers
from mesos_actor.actors.messages.values import Command
from mesos_actor.actors.ports import Port, TimerHandle
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation.fake import FakeContainerizer, FakeSandbox, Run, Survivors, run_of
from mesos_actor.isolation.process import ProcessContainerizer

AGENT = Address("/agent")
FRAMEWORK = FrameworkId("c1-0001")
M = TypeVar("M", bound=Message)
DEADLINE_S = 10.0 if os.environ.get("MESOS_ACTOR_IN_VM") != "1" else 300.0
"""How long what must happen may take; the emulated machine is slow."""


class Inbox:
    """What the pretended agent got, as an Outlet; time is whatever `clock` and `later` make of it."""

    name = "containerizer"
    node = Node("")

    def __init__(self, now_us: Callable[[], int], call_later: Callable[[int, Callable[[], None]], TimerHandle]) -> None:
        self.rng = random.Random(0)
        self.messages: list[Message] = []
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self._now_us = now_us
        self._call_later = call_later

    def now_us(self) -> int:
        return self._now_us()

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        assert to == AGENT
        self.messages.append(message)

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        return self._call_later(delay_us, fn)

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self.logged.append((event, fields))

    def take(self, kind: type[M], container_id: str | None) -> M | None:
        """The first message of that kind, about that container if one is given, taken out."""
        for message in self.messages:
            if isinstance(message, kind) and container_id in (None, getattr(message, "container_id", None)):
                self.messages.remove(message)
                return message
        return None


class Bench(Protocol):
    """What the conformance suite asks of either."""

    inbox: Inbox
    commands: dict[str, Command]

    def send(self, *messages: Message) -> None: ...
    def expect(self, kind: type[M], container_id: str | None = None) -> M: ...
    def restart_agent(self) -> None: ...


def launch(container_id: str, command: Command, **fields: Any) -> LaunchContainer:
    return LaunchContainer(ContainerId(container_id), FRAMEWORK, command, Resources(), **fields)


class RealBench:
    """A ProcessContainerizer in a loop of its own; the launcher is a real process."""

    commands = {
        "ignores TERM": Command(("trap '' TERM; echo ready; while :; do sleep 0.05; done",), shell=True),
        "TERM is late": Command(("sleep", "100")),
        "signal 9": Command(("kill -9 $$",), shell=True),
        "no such program": Command(("no-such-program",)),
    }

    def __init__(self, work_dir: Path, port: Callable[[Path], Port] | None = None) -> None:
        self.work_dir = work_dir
        self.loop = asyncio.new_event_loop()
        self._make = port or (lambda path: ProcessContainerizer(path, launcher_idle_s=5, exit_repeat_us=200_000))
        self.launcher_pids: set[int] = set()
        self.start()

    def start(self) -> None:
        self.inbox = Inbox(lambda: time.time_ns() // 1000, lambda us, fn: self.loop.call_later(us / 1e6, fn))
        self.port = self._make(self.work_dir)
        self.do(lambda: self.port.start(self.inbox))

    def do(self, call: Callable[[], Any]) -> Any:
        async def calling() -> Any:
            return call()

        return self.loop.run_until_complete(calling())

    def send(self, *messages: Message) -> None:
        def hand_over() -> None:
            for message in messages:
                self.port.on_message(AGENT, "", Principal("local"), message)
            self.port.on_flush()

        self.do(hand_over)

    def expect(self, kind: type[M], container_id: str | None = None) -> M:
        found: list[M] = []

        def is_there() -> bool:
            message = self.inbox.take(kind, container_id)
            found.extend([message] if message is not None else [])
            return bool(found)

        self.until(
            is_there, lambda: f"{kind.__name__} of {container_id}; got {self.inbox.messages}, {self.inbox.logged}"
        )
        return found[0]

    def until(self, condition: Callable[[], bool], what: str | Callable[[], str] = "") -> None:
        """Let the loop work until the condition holds, looking after every turn of it; fails at the deadline and says
        what it waited for."""

        async def turning() -> None:
            end = time.monotonic() + DEADLINE_S
            while not condition():
                assert time.monotonic() < end, f"did not come in time: {what() if callable(what) else what}"
                await asyncio.sleep(0.002)
            self._note_launcher()

        self.loop.run_until_complete(turning())

    def _note_launcher(self) -> None:
        pid = getattr(self.port, "launcher_pid", 0)
        if pid:
            self.launcher_pids.add(pid)

    def launcher_pid(self) -> int:
        self.until(lambda: bool(getattr(self.port, "launcher_pid", 0)), "a launcher")
        pid: int = getattr(self.port, "launcher_pid", 0)
        return pid

    def restart_agent(self) -> None:
        """As kill -9 of the agent, and a new start."""
        self.drop_agent()
        self.start()

    def drop_agent(self) -> None:
        """As kill -9 of the agent: its end of the socket closes without a word."""
        client = getattr(self.port, "_client", None)
        if client is not None:
            client._closed = True
            client._hang_up()
            os.close(client._descriptor)
        setattr(self.port, "_closed", True)  # noqa: B010 - what the dead process would have done is not done

    def sandbox(self, container_id: str) -> Path:
        return self.work_dir / "sandboxes" / FRAMEWORK / container_id

    def wait_for_file(self, path: Path, content: str = "") -> str:
        self.until(lambda: path.exists() and content in path.read_text() and bool(path.read_text()), str(path))
        return path.read_text()

    def close(self) -> None:
        """Kill whatever still runs, let the launcher end, and wait for its end."""
        launcher_pid = self.launcher_pid()
        self.send(RecoverContainers(()))
        self.do(self.port.close)
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        wait_for_end(launcher_pid)


def wait_for_end(pid: int) -> None:
    """Wait until the process has ended; killed when it does not."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(DEADLINE_S * 1000):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            raise AssertionError(f"process {pid} did not end")
    finally:
        os.close(handle)


class _Timer:
    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class FakeBench:
    """A FakeContainerizer, with a heap for a clock."""

    commands = {
        "ignores TERM": Command(("ignores-term",)),
        "TERM is late": Command(("sleep", "100")),
        "signal 9": Command(("signal-9",)),
        "no such program": Command(("no-such-program",)),
    }

    def __init__(self, **options: Any) -> None:
        self.survivors = Survivors()
        self._options = options
        self._now_us = 1_000_000
        self._numbers = iter(range(1 << 60))
        self._start()

    def _start(self) -> None:
        self._heap: list[tuple[int, int, Callable[[], None], _Timer]] = []
        self.inbox = Inbox(lambda: self._now_us, self._later)
        self.port = FakeContainerizer(self.survivors, self._runs, **self._options)
        self.port.start(self.inbox)
        self.files = FakeSandbox(self.survivors)
        self.files.start(self.inbox)

    @staticmethod
    def _runs(message: LaunchContainer) -> Run:
        program = message.command.argv[0]
        if program == "ignores-term":
            return Run(duration_us=None, ignores_term=True)
        return Run(signal=9) if program == "signal-9" else run_of(message)

    def _later(self, delay_us: int, fn: Callable[[], None]) -> TimerHandle:
        timer = _Timer()
        heapq.heappush(self._heap, (self._now_us + delay_us, next(self._numbers), fn, timer))
        return timer

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.port.on_message(AGENT, "", Principal("local"), message)
        self.port.on_flush()

    def advance(self, us: int) -> None:
        end_us = self._now_us + us
        while self._heap and self._heap[0][0] <= end_us:
            self._step()
        self._now_us = end_us

    def _step(self) -> None:
        self._now_us, _, fn, timer = heapq.heappop(self._heap)
        if not timer.cancelled:
            fn()

    def expect(self, kind: type[M], container_id: str | None = None) -> M:
        end_us = self._now_us + 200_000_000
        while (message := self.inbox.take(kind, container_id)) is None:
            assert self._heap and self._now_us < end_us, f"no {kind.__name__}; got {self.inbox.messages}"
            self._step()
        return message

    def restart_agent(self) -> None:
        self._start()
