"""A whole cluster in one thread, on virtual time, with faults as data: the same actors, the same answers each time.

    world = World(Plan({("master-0", "agent-1", 3): ()}), seed=1)
    master = world.add_host("master-0", node="tcp://10.0.0.1:5050", principal="cluster")
    master.spawn("master", lambda: Master(...)).start()
    world.run(30 * SECOND_US)

A run is decided by its set-up, its seed and its plan; `world.digest` says so in one word: equal digests, equal runs. No
dictionary of strings' hashes, no clock and no socket is asked.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from heapq import heappop
from typing import Any

import msgspec

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.transport.codec import read_frame
from mesos_actor.transport.sim.faults import TIMED, AnyFault
from mesos_actor.transport.sim.guards import guarded
from mesos_actor.transport.sim.host import Host
from mesos_actor.transport.sim.network import Network, NetworkSettings
from mesos_actor.transport.sim.plan import RESERVED, Plan
from mesos_actor.transport.sim.schedule import START_US, Schedule
from mesos_actor.transport.sim.strikes import arrange

TRACE_EVENTS = 100_000
"""The newest events that `trace` can show; the digest covers all."""
MAX_LOGS = 100_000
"""The newest log lines kept."""
MAX_STEPS_AT_ONCE = 1_000_000
"""Steps without virtual time moving: a bug of what is simulated, told instead of hanging."""


TAIL = 20
"""The last telling events that stand in the text of NotReached."""
HUMBLE = (
    *("Ping", "Pong", "Heartbeat", "AppendEntries", "Appended", "Hello", "GarbageCollected", "CollectGarbage"),
    *("WhoLeads", "Leader", "Following"),
)
"""Messages that tell nothing about anybody in particular."""
_CLOCKWORK = ("timer", "port_timer", "synced")


class WorldSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of virtual time."""

    network: NetworkSettings = NetworkSettings()
    sync_us: int = 500
    """What a disk takes to make one batch safe."""
    restart_us: int = 100_000
    """How soon a host that died at its disk by the plan begins its next process."""


class Event(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Something that happened. Kinds: `start` (the how manieth process, and its node), `exit` (ended by itself or by
    `stop`), `failed` (its records cannot be read or kept), `crash`, `pause`, `cut`, `heal`, `stall`, `break`, `fault`
    (one of the plan's, in words); and in a process
    `message`, `timer`, `link_lost`, `synced`, `stop` (of one actor), `port_timer`."""

    number: int
    time_us: int
    kind: str
    host: str
    actor: str
    sender: str
    cause: str
    message: Message | None
    detail: str

    @property
    def tells(self) -> bool:
        """Whether it tells a reader more than that time goes on."""
        return self.kind not in _CLOCKWORK and type(self.message).__name__ not in HUMBLE

    def line(self) -> str:
        """One line of the trace, with the time since the begin."""
        elapsed_us = self.time_us - START_US
        words = [f"{elapsed_us // 1_000_000}.{elapsed_us % 1_000_000:06d}", self.kind, self.host]
        words += [word for word in (self.actor, self.sender and f"from {self.sender}", self.detail) if word]
        if self.message is not None:
            words.append(repr(self.message))
        return " ".join(words)


class InvariantViolation(AssertionError):
    """A property that must hold after every event did not."""


class ActorFailed(AssertionError):
    """An actor's handler raised, and the world does not tolerate it."""


class NotReached(AssertionError):
    """`until` waited in vain. The text ends with the last lines of the trace, but for clockwork."""


Invariant = Callable[["World", Event], None]
"""Raises InvariantViolation. Looks only at what the event touched: a full look after every event costs 7 times."""


class World:
    """See the module's text. With `tolerate_failures`, an actor that raises is restarted by its supervisor, as in
    production, and noted in `failures`; without, the run stops with ActorFailed."""

    def __init__(
        self,
        plan: Plan | None = None,
        *,
        seed: int = 0,
        settings: WorldSettings | None = None,
        invariants: Iterable[Invariant] = (),
        tolerate_failures: bool = False,
    ) -> None:
        self.plan = plan or Plan()
        self.seed = seed
        self.settings = settings or WorldSettings()
        self.invariants: list[Invariant] = list(invariants)
        self.tolerate_failures = tolerate_failures
        self.schedule = Schedule()
        self.network = Network(self.schedule, self.plan, seed, self.settings.network)
        self.network.on_fault = self._struck
        self.hosts: dict[str, Host] = {}
        self.nodes: dict[str, str] = {}
        """Node -> its host, of all processes so far."""
        self.events = 0
        """How many have happened."""
        self.violation: Exception | None = None
        """What stopped the run, so that a later phase can tell and keep quiet."""
        self.failures: list[tuple[str, str, Exception]] = []
        """(host, actor, error) of each handler that raised."""
        self.logs: deque[dict[str, Any]] = deque(maxlen=MAX_LOGS)
        """What actors and ports logged, with `time_us`, `host`, `actor`, `level` and `event`."""
        self.listeners: dict[type[Message], list[Callable[[str, Message], None]]] = {}
        """Class of messages -> who is told of each one that leaves a host; see `listen`."""
        self._trace: deque[Event] = deque(maxlen=TRACE_EVENTS)
        self._digest = hashlib.blake2b(digest_size=8)
        self._encoder = msgspec.msgpack.Encoder()
        #: events of the present step, not yet shown to the invariants
        self._fresh: list[Event] = []
        arrange(self, self.plan.timed)  # pyright: ignore[reportArgumentType]

    # -- set-up ---------------------------------------------------------------------------------------------------

    def add_host(self, name: str, *, node: str = "", principal: str = "cluster") -> Host:
        """A host called `name`, down. `node` is `tcp://host:port`, or empty for a process that only connects out;
        `principal` is whom its key makes it: `cluster`, `executor:<container id>`, a user's name."""
        if not name or name in RESERVED or name in self.hosts:
            raise ConfigError(f"host {name!r}: must be a new name, not empty and none of {', '.join(sorted(RESERVED))}")
        if node and not node.startswith("tcp://"):
            raise ConfigError(f"node {node!r} of host {name!r}: must be tcp://host:port, or empty")
        # pyright reads this file by its own folder too, and then takes this class and the imported one for two.
        host = self.hosts[name] = Host(self, name, node, Principal(principal))  # pyright: ignore
        return host

    def listen(self, kind: type[Message], told: Callable[[str, Message], None]) -> None:
        """Call `told(host, message)` for each message of this class that an actor or a port sends, whatever becomes of
        it then."""
        self.listeners.setdefault(kind, []).append(told)

    # -- time -----------------------------------------------------------------------------------------------------

    @property
    def now_us(self) -> int:
        """The true time, in microseconds since 1970."""
        return self.schedule.now_us

    @property
    def elapsed_us(self) -> int:
        """Since the begin."""
        return self.schedule.now_us - START_US

    def step(self) -> bool:
        """Do what is due next; False when nothing is left to do, ever."""
        schedule = self.schedule
        if not schedule.heap:
            return False
        schedule.now_us, _, call, args = heappop(schedule.heap)
        try:
            call(*args)
            if self._fresh:
                self._check()
        except AssertionError as error:
            self.violation = error
            raise
        return True

    def run(self, duration_us: int) -> None:
        """Let so much virtual time pass."""
        end_us = self.schedule.now_us + duration_us
        self._run(end_us, None)
        self.schedule.now_us = end_us

    def until(self, reached: Callable[[], bool], within_us: int) -> None:
        """Run until `reached()` is true after some event. Raises NotReached when it is not within this time."""
        end_us = self.schedule.now_us + within_us
        if not reached() and not self._run(end_us, reached):
            self.schedule.now_us = end_us
            tail = "\n".join([event.line() for event in self.history() if event.tells][-TAIL:])
            raise NotReached(f"not reached within {within_us / 1e6:g} s of virtual time; the last events:\n{tail}")

    def _run(self, end_us: int, reached: Callable[[], bool] | None) -> bool:
        with guarded():
            return self._run_guarded(end_us, reached)

    def _run_guarded(self, end_us: int, reached: Callable[[], bool] | None) -> bool:
        heap = self.schedule.heap
        steps, last_us, before = 0, self.schedule.now_us, self.events
        while heap and heap[0][0] <= end_us:
            self.step()
            if self.events != before:
                before = self.events
                if reached is not None and reached():
                    return True
            if self.schedule.now_us != last_us:
                steps, last_us = 0, self.schedule.now_us
            else:
                steps += 1
                if steps > MAX_STEPS_AT_ONCE:
                    raise InvariantViolation(f"{steps} steps and the clock still says {self.elapsed_us} us")
        return False

    # -- faults ---------------------------------------------------------------------------------------------------

    def add_fault(self, fault: AnyFault) -> None:
        """One more in the plan. Raises ConfigError when it cannot be, or would have had to strike before now."""
        if isinstance(fault, TIMED) and fault.at_us < self.elapsed_us:
            raise ConfigError(
                f"{fault.kind} at {fault.at_us / 1e6:g} s: it is {self.elapsed_us / 1e6:g} s already; choose a later "
                "time"
            )
        if not isinstance(fault, TIMED) and (passed := self.plan.asked(fault)) > fault.nth:
            raise ConfigError(f"nth {fault.nth} of {fault.kind}: {passed} have passed already; choose a later one")
        self.plan.add(fault)
        if isinstance(fault, TIMED):
            arrange(self, [fault])  # pyright: ignore[reportArgumentType]

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Cut `other` off from what host `one` sends, and the other way round unless `one_way`."""
        self._happened("cut", one, detail=f"{'to' if one_way else 'and'} {other}")
        self.network.cut(one, other, one_way=one_way)

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Undo the cuts between two hosts; or all of them, and all stalls."""
        self._happened("heal", one or "", detail=other or "all")
        self.network.heal(one, other)

    def stall(self, source: str, destination: str, lasts_us: int | None = None) -> None:
        """Hold up what one host sends to another for so long, or until all is healed."""
        self._happened("stall", source, detail=f"to {destination}")
        self.network.stall(source, destination, lasts_us)

    def break_links(self, one: str, other: str) -> None:
        """Reset the connections between two hosts; both sides are told, and may open new ones at once."""
        self._happened("break", one, detail=f"and {other}")
        self.network.break_links(one, other)

    def calm(self) -> None:
        """From now on nothing goes wrong: the plan rests, cuts are healed, and hosts that are down, or about to be
        because they were told to stop, begin again unless they are `retired`. What was asked of the system must now
        come about in bounded time. Clocks keep what they are off by; hosts that never return stay away."""
        self.plan.calm = True
        self.heal()
        for host in list(self.hosts.values()):
            host.recover()

    # -- what happened --------------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        """One word for all that happened so far."""
        return self._digest.hexdigest()

    def history(self) -> list[Event]:
        """The newest events, oldest first."""
        return list(self._trace)

    def trace(self) -> list[str]:
        """The newest events, one line each."""
        return [event.line() for event in self._trace]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event."""
        return [line for line in self.logs if line["event"] == event]

    def _happened(
        self,
        kind: str,
        host: str,
        actor: str = "",
        sender: str = "",
        cause: str = "",
        message: Message | None = None,
        detail: str = "",
    ) -> None:
        self.events += 1
        event = Event(self.events, self.schedule.now_us, kind, host, actor, sender, cause, message, detail)
        self._trace.append(event)
        self._digest.update(self._encoder.encode(event))
        if self.invariants:
            self._fresh.append(event)

    def _struck(self, source: str, destination: str, frame: bytes) -> None:
        """The plan has decided over the fate of a frame."""
        fault = self.plan.fault_at(self.plan.last(source, destination))
        kinds = ", ".join(type(envelope.message).__name__ for envelope in read_frame(frame)[0].envelopes)
        self._happened("fault", source, detail=f"{fault.text()} ({kinds})")

    def _check(self) -> None:
        """Show the fresh events to the invariants, after all they led to has been carried out."""
        fresh, self._fresh = self._fresh, []
        for event in fresh:
            for invariant in self.invariants:
                invariant(self, event)

    def _logged(self, host: str, level: str, event: str, fields: Mapping[str, Any], actor: str, cause: str) -> None:
        line = {"time_us": self.schedule.now_us, "host": host, "actor": actor, "level": level, "event": event}
        self.logs.append({**fields, **line, "cause": cause})

    def _actor_failed(self, host: str, actor: str, error: Exception) -> None:
        self.failures.append((host, actor, error))
        if not self.tolerate_failures:
            raise ActorFailed(f"{host}: actor {actor!r} raised {error!r}") from error
