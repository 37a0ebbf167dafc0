"""A process full of agents that have no host: they register, answer pings, and finish every task at once.

    python benchmarks/emulated_agents.py MASTER KEY_DIR NAME AGENTS [--separate]

What the master sees of them is what it sees of real ones: the same messages over CURVE connections; all agents of the
process share one, or with `--separate` each has its own. A line `ready` comes when all are registered.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from mesos_actor.actors.actor import SECOND_US, Actor, Context, handles
from mesos_actor.actors.ids import Address, AgentId, UpdateId, address
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.agents import AcknowledgeUpdate, Ping, Pong, RegisterAgent, Registered, RunTasks
from mesos_actor.actors.messages.scheduler import Update
from mesos_actor.actors.messages.values import AgentInfo, Status
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.run import client_keys, master_addresses
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.task import Source, TaskState
from mesos_actor.transport.security import Keys
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

RESOURCES = Resources.parse("cpus:64;mem:65536;disk:100000;ports:[31000-32000]")
RETRY_US = 5 * SECOND_US


class EmulatedAgent(Actor):
    """One of them."""

    registered = 0

    def __init__(self, master: Address, name: str, total: int) -> None:
        self.master = master
        self.name = name
        self.total = total
        self.agent_id = AgentId("")

    def on_start(self, ctx: Context) -> None:
        info = AgentInfo(self.name, address(ctx.node, ctx.name), RESOURCES, version="emulated")
        ctx.send(self.master, RegisterAgent(info, registration=self.name))
        ctx.set_timer("register", RETRY_US + ctx.rng.randrange(RETRY_US))

    def on_timer(self, ctx: Context, name: str) -> None:
        if not self.agent_id:
            self.on_start(ctx)

    @handles(Registered)
    def on_registered(self, ctx: Context, sender: Address, message: Registered) -> None:
        if not self.agent_id:
            self.agent_id = message.agent_id
            EmulatedAgent.registered += 1
            if EmulatedAgent.registered == self.total:
                print("ready", flush=True)

    @handles(Ping)
    def on_ping(self, ctx: Context, sender: Address, message: Ping) -> None:
        ctx.send(sender, Pong(self.agent_id))

    @handles(RunTasks)
    def on_run(self, ctx: Context, sender: Address, message: RunTasks) -> None:
        for task in message.tasks:
            status = Status(
                task_id=task.task_id,
                state=TaskState.FINISHED,
                source=Source.EXECUTOR,
                agent_id=self.agent_id,
                timestamp_us=ctx.now_us,
                update_id=UpdateId(f"{task.task_id}:1"),
            )
            ctx.send(sender, Update(message.framework_id, status, latest_state="FINISHED"))

    @handles(AcknowledgeUpdate)
    def on_acknowledged(self, ctx: Context, sender: Address, message: AcknowledgeUpdate) -> None:
        """Nothing is kept, so nothing is forgotten."""


def _runtime(keys: Keys | None) -> Runtime:
    def transport(deliver: Deliver, lost: LinkLost) -> Transport:
        return ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, listen="tcp://127.0.0.1:0")

    return Runtime(transport=transport, log=Log(level="warning"))


async def emulate(master: Address, keys: Keys | None, name: str, agents: int, separate: bool) -> None:
    runtimes = []
    for group in range(agents if separate else 1):
        runtime = _runtime(keys)
        for number in range(1 if separate else agents):
            one = f"{name}-{group + number}"

            def agent(one: str = one) -> EmulatedAgent:
                return EmulatedAgent(master, one, agents)

            runtime.spawn(one, agent)
        runtimes.append(runtime)
    for runtime in runtimes:
        await runtime.start()
    await asyncio.to_thread(sys.stdin.read)
    for runtime in runtimes:
        await runtime.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("master")
    parser.add_argument("key_dir")
    parser.add_argument("name")
    parser.add_argument("agents", type=int)
    parser.add_argument("--separate", action="store_true")
    options = parser.parse_args()
    (master,) = master_addresses(options.master)
    keys = client_keys((master,), options.key_dir, False, Log())
    asyncio.run(emulate(master, keys, options.name, options.agents, options.separate))


if __name__ == "__main__":
    main()
