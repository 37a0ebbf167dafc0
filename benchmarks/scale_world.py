"""The cluster of scale.py: the real master with its real allocator and registry, on virtual time, paying for its CPU.

What is real: the master, its allocator, its replica of the registry, the frameworks' driver, every message and its
encoding. What is not: the agents, which are light models that speak the real messages (`LightAgent`), many of them in
one process with one connection; the network (0.5 to 0.7 ms a hop, never lost); disks; ZeroMQ and CURVE, for which each
message that the master sends or receives is charged a constant; garbage collection, which is off.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mesos_actor.actors.ids import Address, AgentId, ClusterId, FrameworkId, Principal, TaskId, Term, UpdateId, address
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, Ping, Pong, RegisterAgent, Registered, RunTasks
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.scheduler import Refused, Update
from mesos_actor.actors.messages.values import AgentInfo, Status, Task, TaskReport
from mesos_actor.actors.ports import Outlet
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.sim.process import Process
from mesos_actor.transport.sim.world import World

SECOND_US = 1_000_000
SLOTS = 2
"""Tasks that an agent can run at a time, as in the paper."""
EACH = Resources.of(cpus=1, mem=512)
TOTAL = Resources.of(cpus=SLOTS, mem=512 * SLOTS)
MESSAGE_US = 6
"""Charged for each message that the master sends or receives: what ZeroMQ, CURVE and decoding take of it beside its
handler (benchmarks/messages.py: 208,000 messages/s of one process, 5 us, of 14 bytes)."""
LAUNCH_US = 3_000
"""From RunTasks to RUNNING, and from a task's end to its FINISHED: an agent's two synced checkpoints and an exec (a
whole task takes 5.5 ms on an idle cluster, benchmarks/tasks.py)."""
AGENTS_A_HOST = 500
"""Light agents that share a process and a connection."""
REGISTER_RETRY_US = 30 * SECOND_US
REFUSED_RETRY_US = 2 * SECOND_US
"""After a refusal that is not for good: too many agents wait for the registry."""


class Charged:
    """Makes a simulated process pay for its CPU: while it is busy, what arrives waits, in order, and what it sends
    leaves when the handler that sent it is over. `spent_us` is what it has paid, `messages` how many came and went."""

    def __init__(self, world: World, process: Process, message_us: int = MESSAGE_US) -> None:
        self.world, self.process, self.message_us = world, process, message_us
        self.spent_us = 0
        self.messages = 0
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...], int]] = deque()
        self._busy = False
        self._outgoing = 0
        transport = process.transport
        self._flush, self._send = transport.flush, transport.send
        transport.flush = lambda: None  # type: ignore[method-assign]
        transport.send = self._counted  # type: ignore[method-assign]
        deliver, enter = transport.deliver, process._enter
        transport.deliver = lambda *args: self._put(deliver, args, 1)
        process._enter = lambda call, args: self._put(enter, (call, args), 0)  # type: ignore[method-assign]

    def _counted(self, to: Address, sender: str, cause: str, message: Message) -> None:
        self._outgoing += 1
        self._send(to, sender, cause, message)

    def _put(self, call: Callable[..., None], args: tuple[Any, ...], incoming: int) -> None:
        if self._busy or self._waits_for_its_disk():
            self._queue.append((call, args, incoming))
        else:
            self._do(call, args, incoming)

    def _waits_for_its_disk(self) -> bool:
        """A sync of the registry holds the whole process up; it goes on with what has arrived meanwhile."""
        until_us = self.process.host.paused_until_us
        if until_us <= self.world.schedule.now_us:
            return False
        self._busy = True
        self.world.schedule.at(until_us, self._next)
        return True

    def _do(self, call: Callable[..., None], args: tuple[Any, ...], incoming: int) -> None:
        """The measured CPU of this thread moves the clock by as much for this process alone."""
        self._busy, self._outgoing = True, 0
        schedule = self.world.schedule
        began_ns, began_us = time.thread_time_ns(), schedule.now_us
        call(*args)
        messages = incoming + self._outgoing
        took_us = (time.thread_time_ns() - began_ns) // 1_000 + messages * self.message_us
        self.messages += messages
        self.spent_us += took_us
        schedule.now_us = began_us + took_us
        self._flush()
        schedule.at(schedule.now_us, self._next)
        schedule.now_us = began_us

    def _next(self) -> None:
        self._busy = False
        if self._queue and not self._waits_for_its_disk():
            self._do(*self._queue.popleft())


class LightAgent:
    """A port that registers, answers pings, and runs `sleep` for as long as it says. Updates are told once: nothing is
    lost here."""

    def __init__(self, name: str, master: Address, begin_us: int) -> None:
        self.name, self.master, self.begin_us = name, master, begin_us
        self.agent_id = AgentId("")
        self.cluster_id = ClusterId("")
        self.term = Term(0)
        self.tasks: dict[tuple[FrameworkId, TaskId], TaskReport] = {}
        self._outlet: Outlet

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet
        outlet.call_later(self.begin_us, self._register)

    def _register(self) -> None:
        if not self.agent_id:
            here = address(self._outlet.node, self.name)
            info = AgentInfo(self.name, here, TOTAL, version="light")
            self._outlet.send(self.master, RegisterAgent(info, f"registration-of-{self.name}", term=self.term))
            self._outlet.call_later(REGISTER_RETRY_US, self._register)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        match message:
            case Registered():
                self.agent_id, self.cluster_id = message.agent_id, message.cluster_id
            case Ping():
                self._outlet.send(sender, Pong(self.agent_id, tuple({framework for framework, _ in self.tasks})))
            case RunTasks():
                for task in message.tasks:
                    self._run(message, task)
            case AcknowledgeUpdate():
                pass
            case Refused(reason="other-term"):
                self.term = message.term
                self._register()
            case Refused(fatal=False, about="RegisterAgent"):
                self._outlet.call_later(REFUSED_RETRY_US, self._register)
            case _:
                raise AssertionError(f"{self.name}: a {type(message).__name__} is not in this model: {message}")

    def on_flush(self) -> None:
        """Nothing waits for it."""

    def close(self) -> None:
        """Nothing is held."""

    def _run(self, message: RunTasks, task: Task) -> None:
        framework, role = message.framework_id, message.role
        key = (framework, task.task_id)
        self.tasks[key] = TaskReport(framework, task.task_id, task.resources, role, TaskState.RUNNING)
        self._outlet.call_later(LAUNCH_US, lambda: self._tell(framework, task, 0, TaskState.RUNNING))
        lasts_us = round(float(task.command.argv[1]) * SECOND_US) if task.command is not None else 0

        def end() -> None:
            del self.tasks[key]
            self._tell(framework, task, 1, TaskState.FINISHED)

        self._outlet.call_later(2 * LAUNCH_US + lasts_us, end)

    def _tell(self, framework: FrameworkId, task: Task, number: int, state: TaskState) -> None:
        status = Status(
            task_id=task.task_id,
            state=state,
            source=Source.EXECUTOR,
            agent_id=self.agent_id,
            timestamp_us=self._outlet.now_us(),
            update_id=UpdateId(f"{task.task_id}:{number}"),
            exit_status=0 if state is TaskState.FINISHED else None,
        )
        self._outlet.send(self.master, Update(framework, status, latest_state=state.value))


def add_agents(world: World, master: Address, count: int, over_us: int, rng: random.Random) -> list[LightAgent]:
    """So many light agents, which begin within `over_us` from now."""
    made = []
    for first in range(0, count, AGENTS_A_HOST):
        number = first // AGENTS_A_HOST
        host = world.add_host(f"agents{number}", node=f"tcp://10.1.{number // 250}.{number % 250}:5051")
        for n in range(first, min(count, first + AGENTS_A_HOST)):
            agent = LightAgent(f"agent{n}", master, rng.randrange(over_us))
            host.add_port(agent.name, lambda agent=agent: agent)  # type: ignore[misc]
            made.append(agent)
        # A process without any actor would end at once.
        host.spawn("keeper", Keeper).start()
    return made


class Keeper:
    """An actor that does nothing, and so keeps its process alive."""

    def on_start(self, ctx: Any) -> None: ...

    def on_message(self, ctx: Any, sender: Any, message: Any) -> None: ...

    def on_timer(self, ctx: Any, name: str) -> None: ...

    def on_link_lost(self, ctx: Any, node: Any) -> None: ...

    def on_stop(self, ctx: Any) -> None: ...
