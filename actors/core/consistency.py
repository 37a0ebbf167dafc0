"""Do the master's tables agree with each other? For tests, simulation and the paranoid; each line found is a bug."""

from __future__ import annotations

from collections.abc import Iterator

from mesos_actor.actors.core.entries import AgentEntry, FrameworkEntry
from mesos_actor.actors.core.offers import Offers
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.ids import FrameworkId, Role, node_of
from mesos_actor.actors.resources import Resources, total
from mesos_actor.actors.task import TERMINAL, TaskState


def contradictions(roster: Roster, offers: Offers) -> list[str]:
    """Every contradiction between tasks, agents, frameworks, offers and what is counted as used."""
    found: list[str] = []
    for agent in roster.agents.values():
        found += _agent(roster, agent)
    for framework in roster.frameworks.values():
        found += _framework(roster, framework)
    found += _addresses(roster)
    found += _offers(roster, offers)
    silent = {agent.agent_id for agent in roster.agents.values() if not agent.registered}
    if silent != set(roster.silent):
        found.append(f"silent agents are {sorted(silent)}, counted {sorted(roster.silent)}")
    out_of_reach = {task for framework in roster.frameworks.values() for task in framework.unreachable.values()}
    listed = [task for tasks in roster.out_of_reach.values() for task in tasks]
    if len(listed) != len(out_of_reach) or set(listed) != out_of_reach:
        found.append(f"{len(out_of_reach)} tasks are out of reach, by agent they are {len(listed)}")
    for agent_id in roster.agents.keys() & roster.absent.keys():
        found.append(f"agent {agent_id} is both present and absent")
    for framework_id in roster.frameworks.keys() & roster.removed.keys():
        found.append(f"framework {framework_id} is both present and removed")
    return found


def _agent(roster: Roster, agent: AgentEntry) -> Iterator[str]:
    where = f"agent {agent.agent_id}"
    if agent.connected and (not agent.registered or roster.agent_at.get(agent.address) is not agent):
        yield f"{where} is connected, but not registered or not found at {agent.address}"
    held: dict[tuple[FrameworkId, Role], list[Resources]] = {}
    for task in agent.tasks:
        framework = roster.frameworks.get(task.framework_id)
        if framework is None or framework.tasks.get(task.task_id) is not task:
            yield f"{where} has task {task.task_id}, which framework {task.framework_id} does not have"
        if task.agent_id != agent.agent_id:
            yield f"{where} has task {task.task_id} of agent {task.agent_id}"
        if task.held == (task.state in TERMINAL or task.state is TaskState.UNREACHABLE):
            yield f"{where}: task {task.task_id} is {task.state} and held={task.held}"
        if task.held:
            held.setdefault((task.framework_id, task.role), []).append(task.resources)
    for framework_id, mine in agent.executors.items():
        for executor in mine.values():
            if executor.held and executor.info.resources:
                held.setdefault((framework_id, executor.role), []).append(executor.info.resources)
    for (framework_id, agent_id, role), bundles in roster.unflushed():
        if agent_id == agent.agent_id:
            held.setdefault((framework_id, role), []).extend(bundles)
    expected = {key: total(bundles) for key, bundles in held.items()}
    if expected != agent.used:
        yield f"{where} counts {_text(agent.used)} as used, its tasks and executors hold {_text(expected)}"


def _text(used: dict[tuple[FrameworkId, Role], Resources]) -> str:
    return ", ".join(f"{framework}/{role}: {resources}" for (framework, role), resources in sorted(used.items()))


def _framework(roster: Roster, framework: FrameworkEntry) -> Iterator[str]:
    where = f"framework {framework.framework_id}"
    if framework.connected != (roster.framework_at.get(framework.address) is framework):
        yield f"{where} is connected={framework.connected}, but that is not what stands at {framework.address!r}"
    for task_id, task in framework.tasks.items():
        agent = roster.agents.get(task.agent_id)
        if agent is None or task not in agent.tasks:
            yield f"{where} has task {task_id}, which agent {task.agent_id} does not have"
        if task_id in framework.unreachable:
            yield f"{where} has task {task_id} both alive and unreachable"
        if len({status.update_id for status in task.waiting}) != len(task.waiting):
            yield f"{where}: task {task_id} waits for one acknowledgement twice"


def _addresses(roster: Roster) -> Iterator[str]:
    for where, agent in roster.agent_at.items():
        if roster.agents.get(agent.agent_id) is not agent or agent.address != where:
            yield f"{where} leads to agent {agent.agent_id}, which is at {agent.address!r}"
        if agent not in roster.agents_on.get(node_of(where), {}):
            yield f"agent {agent.agent_id} at {where} is not listed under its node"
    for where, framework in roster.framework_at.items():
        if roster.frameworks.get(framework.framework_id) is not framework:
            yield f"{where} leads to framework {framework.framework_id}, which is not there"
        if framework not in roster.frameworks_on.get(node_of(where), {}):
            yield f"framework {framework.framework_id} at {where} is not listed under its node"


def _offers(roster: Roster, offers: Offers) -> Iterator[str]:
    for outstanding in offers.all():
        offer = outstanding.offer
        agent = roster.agents.get(offer.agent_id)
        framework = roster.frameworks.get(outstanding.framework_id)
        if agent is None or not agent.connected:
            yield f"offer {offer.offer_id} outlived agent {offer.agent_id}"
        if framework is None or not framework.connected:
            yield f"offer {offer.offer_id} outlived framework {outstanding.framework_id}"
