"""The same actors in both worlds: a real process on asyncio, and a host of the simulation."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from mesos_actor.actors.crew import Factory
from mesos_actor.actors.logs import MemoryLog
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.runtime import Runtime, RuntimeSettings
from mesos_actor.actors.store import MemoryStore
from mesos_actor.actors.supervisor import RestartType, Strategy, Supervisor
from mesos_actor.testing import Event, World

PATIENCE_S = 5.0


class Bench(ABC):
    """One process with actors. `journal` is the test's own list: a commit or sync appends "synced" to it."""

    def __init__(self, strategy: Strategy = "one_for_one", intensity: int = 1) -> None:
        self.journal: list[object] = []
        self.strategy: Strategy = strategy
        self.intensity = intensity

    @abstractmethod
    def spawn(
        self, name: str, factory: Factory, *, durable: bool = False, restart: RestartType = "transient"
    ) -> None: ...

    @abstractmethod
    def start(self) -> None: ...

    @abstractmethod
    def post(self, actor: str, message: Message, cause: str = "") -> None: ...

    @abstractmethod
    def until(self, reached: Callable[[], bool]) -> None: ...

    @abstractmethod
    def settle(self) -> None:
        """Let everything happen that happens within some milliseconds."""

    @abstractmethod
    def stop(self) -> None:
        """Gracefully."""

    @abstractmethod
    def logged(self, event: str) -> list[dict[str, Any]]: ...

    @property
    @abstractmethod
    def failure(self) -> Exception | None: ...

    @abstractmethod
    def is_running(self) -> bool: ...

    @abstractmethod
    def close(self) -> None:
        """Give back what is held."""


class _JournalingStore(MemoryStore):
    def __init__(self, journal: list[object]) -> None:
        super().__init__()
        self._journal = journal

    def commit(self) -> None:
        super().commit()
        self._journal.append("synced")


class RealBench(Bench):
    def __init__(self, strategy: Strategy = "one_for_one", intensity: int = 1) -> None:
        super().__init__(strategy, intensity)
        self._loop = asyncio.new_event_loop()
        self._log = MemoryLog()
        supervisor = Supervisor(strategy, intensity)
        settings = RuntimeSettings(turn_messages=1)  # as the simulation: one handler, one commit
        self.runtime: Runtime = self._run(self._make(supervisor, settings))

    async def _make(self, supervisor: Supervisor, settings: RuntimeSettings) -> Runtime:
        return Runtime(store=_JournalingStore(self.journal), log=self._log, supervisor=supervisor, settings=settings)

    def _run(self, what: Any) -> Any:
        return self._loop.run_until_complete(asyncio.wait_for(what, PATIENCE_S))

    def spawn(self, name: str, factory: Factory, *, durable: bool = False, restart: RestartType = "transient") -> None:
        self.runtime.spawn(name, factory, durable=durable, restart=restart)

    def start(self) -> None:
        self._run(self.runtime.start())

    def post(self, actor: str, message: Message, cause: str = "") -> None:
        self.runtime.post(actor, message, cause=cause)

    def until(self, reached: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not reached():
                await asyncio.sleep(0)

        self._run(wait())

    def settle(self) -> None:
        self._run(asyncio.sleep(0.02))

    def stop(self) -> None:
        self._run(self.runtime.stop())

    def logged(self, event: str) -> list[dict[str, Any]]:
        return self._log.events(event)

    @property
    def failure(self) -> Exception | None:
        return self.runtime._failure

    def is_running(self) -> bool:
        return not self.runtime._done.is_set()

    def close(self) -> None:
        self.stop()
        self._loop.close()


class SimBench(Bench):
    def __init__(self, strategy: Strategy = "one_for_one", intensity: int = 1) -> None:
        super().__init__(strategy, intensity)
        self.world = World(invariants=[self._note], tolerate_failures=True)
        self.host = self.world.add_host("host", node="tcp://10.0.0.1:5050")
        self.host.supervision = (strategy, intensity, 5_000_000)

    def _note(self, _world: World, event: Event) -> None:
        if event.kind == "synced":
            self.journal.append("synced")

    def spawn(self, name: str, factory: Factory, *, durable: bool = False, restart: RestartType = "transient") -> None:
        self.host.spawn(name, factory, durable=durable, restart=restart)

    def start(self) -> None:
        self.host.start()

    def post(self, actor: str, message: Message, cause: str = "") -> None:
        self.host.post(actor, message, cause)

    def until(self, reached: Callable[[], bool]) -> None:
        self.world.until(reached, within_us=5_000_000)

    def settle(self) -> None:
        self.world.run(100_000)

    def stop(self) -> None:
        self.host.stop()
        self.world.run(1_000_000)

    def logged(self, event: str) -> list[dict[str, Any]]:
        return self.world.logged(event)

    @property
    def failure(self) -> Exception | None:
        return self.host.failure

    def is_running(self) -> bool:
        return self.host.up

    def close(self) -> None:
        self.host.crash()
