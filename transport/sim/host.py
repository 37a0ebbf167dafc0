"""A host of the simulation: its process, and what outlives that: definition, disk, surviving ports."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from mesos_actor.actors.actor import ActorLike
from mesos_actor.actors.crew import Factory
from mesos_actor.actors.errors import ConfigError, MesosActorError, StorageError
from mesos_actor.actors.ids import Address, Node, Principal, address, local
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.ports import Port
from mesos_actor.actors.supervisor import INTENSITY, PERIOD_US, RestartType, Strategy, Supervisor
from mesos_actor.raft.files import Files, MemoryFiles
from mesos_actor.transport.sim.disk import Disk
from mesos_actor.transport.sim.faults import DISK, Fate
from mesos_actor.transport.sim.files import ProcessOver, SimFiles
from mesos_actor.transport.sim.plan import FAILED, NORMAL
from mesos_actor.transport.sim.process import Process

if TYPE_CHECKING:
    from mesos_actor.transport.sim.world import World

NEVER_US = 1 << 62
PortFactory = Callable[[], Port]


class _ActorSpec(msgspec.Struct, frozen=True):
    name: str
    factory: Factory
    durable: bool
    restart: RestartType


class Host:
    """Made by `World.add_host`. Add actors and ports, then `start`."""

    def __init__(self, world: World, name: str, node: str, principal: Principal) -> None:
        self.world = world
        self.name = name
        self.principal = principal
        """What the others' links say of it."""
        self.disk = Disk()
        self.files = MemoryFiles()
        """The directory of its registry's replica, if it has one."""
        self.skew_us = 0
        """Added to what its clock says. Never make it smaller while the process runs: its clock does not go back."""
        self.drift_ppm = 0
        """How many millionths too fast its clock runs."""
        self.paused_until_us = 0
        self.incarnation = 0
        """How many processes it has had."""
        self.process: Process | None = None
        self.failure: MesosActorError | None = None
        """What ended the last process, if an error did."""
        self.told_to_stop = False
        """Its newest process was sent SIGTERM: it ends, or ended, without having done its work."""
        self.retired = False
        """It has done its work: `World.calm` does not begin it again."""
        self.gone = False
        """It never returns: `World.calm` does not begin it again either."""
        self.restartable = True
        """Whether it can have another process: a plan ends only such."""
        self.disk_full = False
        self.when_power_lost: Callable[[], None] | None = None
        """Told when its machine loses power."""
        self.when_down: Callable[[str], None] | None = None
        """Told the kind of end (`exit`, `failed`, `crash`) of each of its processes."""
        self.supervision: tuple[Strategy, int, int] = ("one_for_one", INTENSITY, PERIOD_US)
        """Strategy, intensity and period in microseconds, for its next process."""
        self._fixed_node = Node(node)
        #: a moment that never comes, of its own: until then its process stands still when it hangs
        self._never_us = NEVER_US + len(world.hosts)
        #: since when the clock has drifted
        self._drift_since_us = 0
        #: what its clock is to be off by from its next process on
        self._next_skew_us: int | None = None
        #: name -> spec, in start order
        self._actors: dict[str, _ActorSpec] = {}
        #: name -> (factory, whether it outlives the process)
        self._ports: dict[str, tuple[PortFactory, bool]] = {}
        #: name -> the port that outlives processes, with its outlet
        self._survivors: dict[str, tuple[Port, SimOutlet]] = {}

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def up(self) -> bool:
        return self.process is not None

    @property
    def node(self) -> Node:
        """What its process is called by others. Without a fixed one, each process gets a new `peer:<hex>`, as one that
        only connects out does."""
        if self._fixed_node:
            return self._fixed_node
        number = random.Random(f"{self.name}/{self.incarnation}").getrandbits(64)
        return Node(f"peer:{number:016x}")

    def address(self, actor: str) -> Address:
        """Where others find `actor`."""
        return address(self.node, actor)

    def actor(self, name: str) -> ActorLike:
        """The living object. Raises LookupError when the host is down or the actor has ended."""
        cell = self.process.cells.get(name) if self.process else None
        if cell is None or cell.actor is None:
            raise LookupError(f"{self.name}: actor {name!r} does not run")
        return cell.actor

    def port(self, name: str) -> Port:
        """The port object; that of a surviving one even while the process is down. Raises LookupError."""
        if name in self._survivors:
            return self._survivors[name][0]
        if self.process is None or name not in self.process.ports:
            raise LookupError(f"{self.name}: port {name!r} does not run")
        return self.process.ports[name]

    # -- set-up ---------------------------------------------------------------------------------------------------

    def spawn(self, name: str, factory: Factory, *, durable: bool = False, restart: RestartType = "transient") -> Host:
        """As Runtime.spawn; returns the host, for the next call."""
        if name in self._actors or name in self._ports:
            raise ConfigError(f"actor {name!r}: this name is taken on {self.name}; choose another")
        self._actors[name] = _ActorSpec(name, factory, durable, restart)
        if self.process is not None:
            self.process.spawn(name, factory, durable=durable, restart=restart)
            self.process._finish()
        return self

    def add_port(self, name: str, factory: PortFactory, *, survives: bool = False) -> Host:
        """As Runtime.add_port, with a factory. `survives`: the object is made once and outlives crashes of the process,
        as a launcher does: its `call_later` goes on, what it sends meanwhile is lost, and `start` is called again with
        the same outlet for each new process. Only `crash(machine=True)` ends it."""
        if self.process is not None:
            raise ConfigError(f"port {name!r}: ports are added before the process starts")
        if name in self._actors or name in self._ports:
            raise ConfigError(f"port {name!r}: this name is taken on {self.name}; choose another")
        self._ports[name] = (factory, survives)
        return self

    # -- life -----------------------------------------------------------------------------------------------------

    def start(self) -> Host:
        """Begin a process, if none runs."""
        if self.process is not None:
            return self
        self.incarnation += 1
        self.failure, self.told_to_stop = None, False
        if self._next_skew_us is not None:
            self.skew_us, self._next_skew_us = self._next_skew_us, None
        # pyright reads this file by its own folder too, and then takes this class and the imported one for two.
        process = self.process = Process(self, Supervisor(*self.supervision), self.node)  # pyright: ignore
        self.world.nodes[process._own_node] = self.name
        self.world._happened("start", self.name, detail=f"{self.incarnation} {self.node}")
        for name, (factory, survives) in self._ports.items():
            try:
                process.ports[name] = self._start_port(name, factory, survives)
            except ProcessOver:
                return self
            except (ConfigError, StorageError) as error:
                if self.process is process:
                    self.failure = error
                    self._down("failed")
                return self
        for spec in self._actors.values():
            process.spawn(spec.name, spec.factory, durable=spec.durable, restart=spec.restart)
        process.begin()
        return self

    def crash(self, *, keep_unsynced: int = 0, machine: bool = False) -> None:
        """kill -9, or with `machine` a power cut, which ends surviving ports too. Of what was written and not synced
        only the first `keep_unsynced` batches are found again."""
        if self.process is not None:
            self._down("crash", keep_unsynced)
        if machine:
            for _, outlet in self._survivors.values():
                outlet.over = True
            self._survivors.clear()
            if self.when_power_lost is not None:
                self.when_power_lost()

    def open_files(self) -> Files:
        """Its `files`, as its present process may use them; for the factories of ports."""
        assert self.process is not None
        return SimFiles(self, self.process)  # pyright: ignore

    def stop(self) -> None:
        """SIGTERM: `on_stop` everywhere; the process ends a little later."""
        if self.process is not None:
            self.told_to_stop = True
            self.process.stop()

    def pause(self, duration_us: int) -> None:
        """Nothing reaches the process for so long, as during a garbage collection or on a stopped VM. What comes
        meanwhile is handled afterwards, in order."""
        self.paused_until_us = max(self.paused_until_us, self.world.schedule.now_us + duration_us)
        self.world._happened("pause", self.name, detail=str(duration_us))
        self._stand_still()

    def hang(self) -> None:
        """As `pause`, without an end, until `wake`."""
        self.paused_until_us = self._never_us
        self.world._happened("pause", self.name, detail="hangs")
        self._stand_still()

    def _stand_still(self) -> None:
        life, network = self.process, self.world.network
        silent_us = self.world.schedule.now_us + network.settings.silence_us
        if self.paused_until_us > silent_us:
            network.stands_still(self.name, lambda: self.process is life and self.paused_until_us > silent_us)

    def wake(self) -> None:
        """A process that hangs goes on."""
        if self.paused_until_us == self._never_us:
            self.paused_until_us = 0
            self.world.schedule.hurry(self._never_us)

    def fill_disk(self, full: bool) -> None:
        """Nothing can be written any more, or, with False, again: then a process that ended of it begins again."""
        self.disk_full = self.files.full = full
        if not full:
            self._begin_again()

    def set_clock(self, offset_us: int, drift_ppm: int = 0) -> None:
        """Set its clock so much off the true time, and let it gain `drift_ppm` millionths. A living process sees no
        clock go back: going back waits for the next one."""
        now_us = self.world.schedule.now_us
        off_us = self.clock_us() - now_us
        if self.process is not None and offset_us < off_us:
            self.skew_us, self._next_skew_us = off_us, offset_us
        else:
            self.skew_us, self._next_skew_us = offset_us, None
        self.drift_ppm, self._drift_since_us = drift_ppm, now_us

    def clock_us(self) -> int:
        """What its clock says."""
        now_us = self.world.schedule.now_us
        if not self.drift_ppm:
            return now_us + self.skew_us
        return now_us + self.skew_us + (now_us - self._drift_since_us) * self.drift_ppm // 1_000_000

    def true_us(self, delay_us: int) -> int:
        """How long it takes until its clock has gone on by `delay_us`."""
        return -(-delay_us * 1_000_000 // (1_000_000 + self.drift_ppm)) if self.drift_ppm else delay_us

    def recover(self) -> None:
        """Everything is well: a clock that runs true, space on the disk, and a process, unless it is over for good."""
        self.wake()
        if self.drift_ppm:
            self.skew_us, self.drift_ppm = self.clock_us() - self.world.schedule.now_us, 0
        self.disk_full = self.files.full = False
        self._begin_again()

    def next_sync(self) -> Fate:
        """What becomes of the sync that begins now, as in `Plan.fate`."""
        plan = self.world.plan
        fate = plan.fate(DISK, self.name)
        if self.disk_full:
            return FAILED
        if fate == NORMAL:
            return fate
        if not self.restartable and (not fate or fate == FAILED):
            plan.met.pop(plan.last(DISK, self.name), None)
            return NORMAL
        self.world._happened("fault", self.name, detail=plan.fault_at(plan.last(DISK, self.name)).text())
        return fate

    def post(self, actor: str, message: Message, cause: str = "") -> None:
        """Put a message into a mailbox of this host, as sent by `/post` of its own process."""
        if self.process is None:
            raise ConfigError(f"{self.name}: is down; start it before posting to {actor!r}")
        self.process.send_from("post", local("post"), cause, local(actor), message)

    def _down(self, kind: str, keep_unsynced: int = 0) -> None:
        process = self.process
        if process is not None:
            lost = self.disk.written - self.disk.synced
            self.process = None
            process.end(keep_unsynced)
            self.wake()
            self.paused_until_us = 0
            self.world._happened(kind, self.name, detail=f"lost {max(0, lost - keep_unsynced)}")
            if self.when_down is not None:
                self.when_down(kind)
            if self.world.plan.calm and self.told_to_stop and not self.retired:
                self.world.schedule.after(self.world.settings.restart_us, self.start)

    def _die_at_disk(self, process: Process) -> None:
        if self.process is process:
            self._down("crash")
            self.begin_again_later()

    def _refused_by_disk(self, process: Process) -> None:
        """A sync has failed: as in production, the process ends."""
        if self.process is process:
            what = "[Errno 28] No space left on device" if self.disk_full else "[Errno 5] Input/output error"
            self.failure = StorageError(f"the disk of {self.name}: cannot be written: {what}")
            self._down("failed")
            self.begin_again_later()

    def begin_again_later(self) -> None:
        """Somebody sees to it that a process that ended at its disk is followed by another, when there is space."""
        self.world.schedule.after(self.world.settings.restart_us, self._begin_again)

    def _begin_again(self) -> None:
        if self.incarnation and not (self.retired or self.gone or self.disk_full):
            self.start()

    def _start_port(self, name: str, factory: PortFactory, survives: bool) -> Port:
        if survives and name in self._survivors:
            port, outlet = self._survivors[name]
        else:
            port, outlet = factory(), SimOutlet(self, None if survives else self.process, name)
            if survives:
                self._survivors[name] = (port, outlet)
        port.start(outlet)
        return port


class SimOutlet:
    """What a port is given: see ports.Outlet. Bound to one process, or, for a port that survives, to the host."""

    def __init__(self, host: Host, process: Process | None, name: str) -> None:
        self.name = name
        self.rng = random.Random(f"{host.world.seed}/{host.name}/{name}/{host.incarnation}/port")
        self.over = False
        """The machine it ran on was switched off."""
        self._host = host
        self._process = process

    @property
    def node(self) -> Node:
        return self._host.node

    def now_us(self) -> int:
        return self._host.clock_us()

    def send(self, to: Address, message: Message, cause: str = "") -> None:
        process = self._process or self._host.process
        if process is None or process.over or self.over:
            return
        blocked_until_us = self._host.paused_until_us if self._process is not None else 0
        if self._host.world.schedule.now_us < blocked_until_us:
            # It is in the middle of a call that takes time, such as a sync: what it says next comes after that.
            self._host.world.schedule.at(blocked_until_us, self._send_now, process, to, message, cause)
        else:
            self._send_now(process, to, message, cause)

    def _send_now(self, process: Process, to: Address, message: Message, cause: str) -> None:
        if not process.over:
            process.send_from(self.name, local(self.name), cause, to, message)
            process.transport.flush()

    def call_later(self, delay_us: int, fn: Callable[[], None]) -> SimTimer:
        timer = SimTimer(fn)
        self._host.world.schedule.after(self._host.true_us(max(0, delay_us)), self._due, timer)
        return timer

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        self._host.world._logged(self._host.name, level, event, fields, self.name, "")

    def _due(self, timer: SimTimer) -> None:
        if self.over or timer.fn is None or (self._process is not None and self._process.over):
            return
        paused_until_us = self._host.paused_until_us if self._process is not None else 0
        if self._host.world.schedule.now_us < paused_until_us:
            self._host.world.schedule.at(paused_until_us, self._due, timer)
            return
        fn, timer.fn = timer.fn, None
        self._host.world._happened("port_timer", self._host.name, self.name)
        if self._process is not None:
            self._process.guarded(self.name, fn)
        else:
            fn()


class SimTimer:
    """See ports.TimerHandle."""

    __slots__ = ("fn",)

    def __init__(self, fn: Callable[[], None]) -> None:
        self.fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        self.fn = None
