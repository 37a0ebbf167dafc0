"""A small cluster at work, into whose mailboxes anything may be put; and what must be true of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st

from mesos_actor.actors.framework import executor_task
from mesos_actor.actors.ids import Address
from mesos_actor.actors.messages.base import Message
from mesos_actor.testing import Host, SimCluster, SimFramework, cluster
from tests.sim.workloads import ONE_CPU, Jobs, One, Worker, worker
from tests.strategies import messages

STRANGERS = ("cluster", "anonymous", "mallory", "framework0", "executor:none")
"""Whom a stranger's key may make it: holders of the cluster's key too."""
KNOWN_BY_NAME = {
    "framework_id",
    "agent_id",
    "task_id",
    "executor_id",
    "container_id",
    "update_id",
    "after_update_id",
    "offer_id",
    "cluster_id",
    "registration",
    "operation_id",
    "term",
    "role",
    "reply_to",
    "address",
}
"""Fields that mean something to the cluster when they hold what it knows; by chance they never would."""


@dataclass
class Scene:
    sim: SimCluster
    worker: SimFramework
    jobs: SimFramework
    strangers: dict[str, Host]
    mailboxes: tuple[Address, ...]
    known: dict[str, list[Any]]

    def put(self, sender: Host, actor: str, to: Address, message: Message) -> None:
        """Send it, as whoever `sender` is. Nothing happens when that is down."""
        process = sender.process
        if process is not None:
            process.send_from(actor, Address(f"/{actor}"), "fuzz", to, message)
            process.transport.flush()

    def senders(self) -> list[tuple[Host, str]]:
        """Everybody who may send: the members of the cluster too, gone mad."""
        executors = [(host, "executor") for host in self.sim.executor_hosts.values()]
        members = [(self.sim.master, "master"), (self.sim.agents[0].host, "agent"), (self.worker.host, "framework")]
        return [*((host, "stranger") for host in self.strangers.values()), *members, *executors]

    def judge(self, everybody_lives: bool) -> None:
        """Nobody has failed, the tables agree, and tasks run: on what is there, or on what is added now."""
        sim = self.sim
        for host in list(sim.world.hosts.values()):
            host.start() if not host.retired else None
        sim.run(20)
        sim.check()
        assert sim.world.failures == []
        assert sim.leader.leading
        sim.leader.check()
        if everybody_lives:
            assert sim.agents[0].actor.registration.connected
            assert self.worker.up and self.worker.framework.connected
        sim.add_agent("cpus:4;mem:1024")
        fresh = sim.add_framework(lambda: Jobs(3, 1))
        sim.until(lambda: fresh.ended, 600)
        assert fresh.failure is None
        sim.check()
        sim.leader.check()


def scene(seed: int = 0, invariants: bool = True) -> Scene:
    """A master, an agent with a command and a custom executor at work, two frameworks, some strangers."""
    sim = cluster(1, seed=seed, invariants=invariants)
    sim.add_executor("w", Worker)
    mine = sim.add_framework(lambda: One(executor_task("t", worker("w"), ONE_CPU), 600), name="framework0")
    jobs = sim.add_framework(lambda: Jobs(2, 1_000_000), name="framework1")
    sim.until(lambda: len(sim.agents[0].running()) == 3 and bool(mine.statuses), 20)
    strangers = {who: _stranger(sim, f"stranger{n}", who) for n, who in enumerate(STRANGERS)}
    (executor,) = sim.executor_hosts.values()
    boxes = [sim.master.address("master"), sim.master.address("registry")]
    boxes += [sim.agents[0].host.address(name) for name in ("agent", "containerizer", "sandbox", "nobody")]
    boxes += [mine.host.address("framework"), executor.address("executor")]
    return Scene(sim, mine, jobs, strangers, tuple(boxes), _known(sim, mine))


def _stranger(sim: SimCluster, name: str, principal: str) -> Host:
    return sim.world.add_host(name, node=f"tcp://10.6.6.{len(sim.world.hosts)}:1", principal=principal).start()


def _known(sim: SimCluster, mine: SimFramework) -> dict[str, list[Any]]:
    agent, status = sim.agents[0].actor, mine.statuses[-1]
    frameworks = list(sim.leader.roster.frameworks)
    tasks = [task_id for framework in sim.leader.roster.frameworks.values() for task_id in framework.tasks]
    return {
        "framework_id": frameworks,
        "agent_id": [agent.registration.agent_id],
        "task_id": tasks,
        "executor_id": ["w", ""],
        "container_id": sim.agents[0].running(),
        "update_id": [status.update_id, f"{status.container_id}:1", ""],
        "after_update_id": [status.update_id, ""],
        "offer_id": [o.offer.offer_id for o in sim.leader.offers.all()] or [""],
        "cluster_id": [sim.leader.cluster_id, ""],
        "registration": [agent.registration.identity.registration],
        "operation_id": [f"{sim.leader.master_id}-P1", mine.driver.operation_id, "driver-1", ""],
        "term": [sim.leader.term, sim.leader.term + 1, 0],
        "role": ["*"],
        "reply_to": [sim.master.address("master")],
        "address": [sim.agents[0].host.address("agent"), sim.master.address("master"), ""],
    }


def plausible(known: dict[str, list[Any]]) -> st.SearchStrategy[Message]:
    """Any message, in which ids are mostly such as the cluster knows."""

    @st.composite
    def drawn(draw: st.DrawFn) -> Message:
        message: Message = draw(messages())
        return _known_inside(draw, message, known) if draw(st.integers(0, 4)) else message

    return drawn()


def _known_inside(draw: st.DrawFn, value: Any, known: dict[str, list[Any]]) -> Any:
    if isinstance(value, tuple):
        return tuple(_known_inside(draw, item, known) for item in value)
    if not isinstance(value, msgspec.Struct):
        return value
    changed = {}
    for name in value.__struct_fields__:
        old = getattr(value, name)
        if name in KNOWN_BY_NAME and draw(st.integers(0, 5)):
            changed[name] = draw(st.sampled_from(known[name]))
        elif name == "offer_ids" and draw(st.booleans()):
            changed[name] = (draw(st.sampled_from(known["offer_id"])),)
        elif isinstance(old, tuple | msgspec.Struct):
            changed[name] = _known_inside(draw, old, known)
    return msgspec.structs.replace(value, **changed)
