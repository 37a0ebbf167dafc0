"""A process full of agents that have no host: they register, answer pings, and finish every task at once.

    python benchmarks/emulated_agents.py MASTERS KEY_DIR NAME AGENTS [--separate] [--hold]

What the master sees of them is what it sees of real ones: the same messages over CURVE connections, and the real
agent's way to find a leader (agent_registration.py); all agents of the process share one connection, or with
`--separate` each has its own. With `--hold` tasks go on for ever. A line `ready TERM SECONDS` comes whenever all are
registered with the leader of a term that is new, with the monotonic clock's time.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.agent_registration import PING_TIMER, REGISTER_TIMER, Registration
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.updates import UpdateStreams
from mesos_actor.actors.ids import Address, FrameworkId, Node, TaskId, UpdateId, address
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, Ping, RegisterAgent, Registered, RunTasks
from mesos_actor.actors.messages.records import AgentIdentityRecord
from mesos_actor.actors.messages.scheduler import Refused, Update
from mesos_actor.actors.messages.values import AgentInfo, FrameworkInfo, Status, TaskReport
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import client_keys, master_addresses
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.store import MemoryStore
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.security import Keys
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

RESOURCES = Resources.parse("cpus:64;mem:65536;disk:100000;ports:[31000-32000]")


class EmulatedAgent(Actor):
    """One of them."""

    #: term -> how many have registered with its leader
    registered: Counter[int] = Counter()

    def __init__(self, masters: tuple[Address, ...], name: str, total: int, hold: bool) -> None:
        self.name = name
        self.total = total
        self.state = TaskState.RUNNING if hold else TaskState.FINISHED
        settings = AgentSettings(hostname=name, masters=masters, resources=RESOURCES, version="emulated")
        self.registration = Registration(settings, UpdateStreams(1, 1), self._introduction)
        self.held: dict[TaskId, TaskReport] = {}
        #: The term in which it registered last.
        self.newest = -1
        self.frameworks: dict[FrameworkId, FrameworkInfo] = {}

    def on_start(self, ctx: Context) -> None:
        self.registration.load(ctx, AgentIdentityRecord(self.name))
        self.registration.seek(ctx, at_once=True)

    def _introduction(self, ctx: Context, registration: Registration) -> RegisterAgent:
        identity = registration.identity
        return RegisterAgent(
            AgentInfo(self.name, address(ctx.node, ctx.name), RESOURCES, version="emulated"),
            identity.registration,
            identity.agent_id,
            identity.cluster_id,
            tuple(self.held.values()),
            (),
            tuple(self.frameworks.items()),
        )

    def on_timer(self, ctx: Context, name: str) -> None:
        if name == REGISTER_TIMER:
            self.registration.on_register_timer(ctx)
        elif name == PING_TIMER:
            self.registration.on_ping_timer(ctx)

    def on_link_lost(self, ctx: Context, node: Node) -> None:
        self.registration.on_link_lost(ctx, node)

    @handles(Registered)
    def on_registered(self, ctx: Context, sender: Address, message: Registered) -> None:
        if self.registration.on_registered(ctx, sender, message) and message.term > self.newest:
            self.newest = message.term
            EmulatedAgent.registered[message.term] += 1
            if EmulatedAgent.registered[message.term] == self.total:
                print(f"ready {message.term} {time.monotonic()}", flush=True)

    @handles(Refused)
    def on_refused(self, ctx: Context, sender: Address, message: Refused) -> None:
        self.registration.on_refused(ctx, sender, message)

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        self.registration.on_ping(ctx, sender, message)

    @handles(RunTasks)
    def on_run(self, ctx: Context, sender: Address, message: RunTasks) -> None:
        for task in message.tasks:
            status = Status(
                task_id=task.task_id,
                state=self.state,
                source=Source.EXECUTOR,
                agent_id=self.registration.agent_id,
                timestamp_us=ctx.now_us,
                update_id=UpdateId(f"{task.task_id}:1"),
            )
            ctx.send(sender, Update(message.framework_id, status, latest_state=self.state.value))
            if self.state is TaskState.RUNNING:
                self.frameworks[message.framework_id] = message.framework
                self.held[task.task_id] = TaskReport(
                    message.framework_id, task.task_id, task.resources, message.role, self.state
                )

    @handles(AcknowledgeUpdate)
    def on_acknowledged(self, ctx: Context, sender: Address, message: AcknowledgeUpdate) -> None:
        """Nothing is kept, so nothing is forgotten."""


def _runtime(keys: Keys | None) -> Runtime:
    def transport(deliver: Deliver, lost: LinkLost) -> Transport:
        return ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, listen="tcp://127.0.0.1:0")

    return Runtime(transport=transport, store=MemoryStore(), log=Log(level="error"))


async def emulate(
    masters: tuple[Address, ...], keys: Keys | None, name: str, agents: int, separate: bool, hold: bool
) -> None:
    runtimes = []
    for group in range(agents if separate else 1):
        runtime = _runtime(keys)
        for number in range(1 if separate else agents):
            one = f"{name}-{group + number}"

            def agent(one: str = one) -> EmulatedAgent:
                return EmulatedAgent(masters, one, agents, hold)

            runtime.spawn(one, agent, durable=True)
        runtimes.append(runtime)
    for runtime in runtimes:
        await runtime.start()
    await asyncio.to_thread(sys.stdin.read)
    for runtime in runtimes:
        await runtime.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("masters")
    parser.add_argument("key_dir")
    parser.add_argument("name")
    parser.add_argument("agents", type=int)
    parser.add_argument("--separate", action="store_true")
    parser.add_argument("--hold", action="store_true")
    options = parser.parse_args()
    masters = master_addresses(options.masters)
    keys = client_keys(masters, options.key_dir, False, Log())
    asyncio.run(emulate(masters, keys, options.name, options.agents, options.separate, options.hold))


if __name__ == "__main__":
    main()
