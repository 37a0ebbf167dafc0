"""Answers to questions about the cluster: pages of rows, each one JSON object.

Nothing is kept for a page: `next` names the last row's place in an order that does not change while rows come and go,
so a row that existed all the while is shown once. No question looks at more than `MAX_SCAN` candidates in one turn; a
page may therefore be short, or empty, and still have a `next`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import msgspec

from mesos_actor.actors.core.allocation import Allocator
from mesos_actor.actors.core.entries import AgentEntry, FrameworkEntry, TaskEntry
from mesos_actor.actors.core.offers import Offers
from mesos_actor.actors.core.roster import Roster
from mesos_actor.actors.ids import Address, ClusterId, MasterId, Term
from mesos_actor.actors.messages.clients import MAX_PAGE, Query, QueryResult
from mesos_actor.actors.messages.registry import AgentRecord, FrameworkRecord
from mesos_actor.actors.resources import MILLI, Resources, total

MAX_SCAN = 10_000
"""Candidates looked at for one page."""

MAX_WARNINGS = 10
MAX_HOSTS = 3
"""Warnings in `status`, and hosts named with each."""

Row = dict[str, Any]
Candidate = tuple[str, Callable[[], Row]]


class View(msgspec.Struct, frozen=True):
    """What a question may look at, and nothing it could change."""

    roster: Roster
    offers: Offers
    allocator: Allocator
    cluster_id: ClusterId
    master_id: MasterId
    term: Term
    leader: Address
    pending_operations: int
    held_removals: int
    now_us: int


def answer(view: View, query: Query) -> QueryResult | str:
    """A page of the answer, or why the question cannot be answered."""
    known = _SOURCES.get(query.what)
    if known is None:
        return f"Query.what must be one of {', '.join(_SOURCES)}, not {query.what!r}"
    if not query.limit > 0:
        return f"Query.limit must be positive, not {query.limit}"
    source, place_of = known
    try:
        start = place_of(query.after)
    except ValueError:
        return f"Query.after must be the 'next' of a page before, not {query.after!r}"
    candidates = source(view, query.match, start)
    limit = min(query.limit, MAX_PAGE)
    rows: list[str] = []
    last = ""
    for scanned, (place, build) in enumerate(candidates):
        if len(rows) >= limit or scanned >= MAX_SCAN:
            return QueryResult(query.operation_id, tuple(rows), last)
        last = place
        row = build()
        if query.what == "why" or all(_text(row.get(key)) == value for key, value in query.match.items()):
            rows.append(msgspec.json.encode(row).decode())
    return QueryResult(query.operation_id, tuple(rows))


def amounts(resources: Resources) -> dict[str, int | float | str]:
    """Resources for people and programs: scalars as numbers, the rest as text; `name(role)` when reserved."""
    found: dict[str, int | float | str] = {}
    for entry in resources:
        name = entry.name if entry.role == "*" else f"{entry.name}({entry.role})"
        if entry.scalar:
            found[name] = entry.scalar // MILLI if entry.scalar % MILLI == 0 else entry.scalar / MILLI
        else:
            found[name] = str(entry).partition(":")[2]
    return found


def _text(value: object) -> str | None:
    return value if isinstance(value, str) or value is None else msgspec.json.encode(value).decode()


# Where a page begins, from the `next` of the page before; ValueError when it is none of ours.


def _number_place(after: str) -> int:
    return int(after) if after else -1


def _offer_place(after: str) -> int:
    return int(after.rpartition("-O")[2]) if after else -1


def _task_place(after: str) -> tuple[int, ...]:
    place = tuple(map(int, after.split("."))) if after else (0, 0, 0, -1)
    if len(place) != 4:
        raise ValueError(after)
    return place


# -- status ---------------------------------------------------------------------------------------------------------


def _status(view: View, match: Mapping[str, str], after: int) -> Iterable[Candidate]:
    return [("1", lambda: status_row(view))] if after < 1 else []


def status_row(view: View) -> Row:
    """The cluster in one row."""
    roster = view.roster
    agents: Counter[str] = Counter(agent_state(agent) for agent in roster.agents.values())
    agents.update(record.state for record in roster.absent.values())
    frameworks = Counter("active" if f.connected else "disconnected" for f in roster.frameworks.values())
    tasks: Counter[str] = Counter()
    for framework in roster.frameworks.values():
        tasks.update(task.state.value for task in framework.tasks.values())
    # What cannot be reached now is no capacity, whatever still runs there.
    here = [agent for agent in roster.agents.values() if agent.connected]
    return {
        "cluster_id": view.cluster_id,
        "leader": view.leader,
        "master_id": view.master_id,
        "term": view.term,
        "agents": {state: agents[state] for state in ("active", "disconnected", "recovering", "unreachable", "gone")},
        "frameworks": {
            "active": frameworks["active"],
            "disconnected": frameworks["disconnected"],
            "removed": len(roster.removed),
        },
        "tasks": dict(sorted(tasks.items())),
        "offers": len(view.offers),
        "resources": amounts(total(agent.info.resources for agent in here)),
        "used": amounts(total(used for agent in here for used in agent.used.values())),
        "offered": amounts(total(outstanding.offer.resources for outstanding in view.offers.all())),
        "pending_operations": view.pending_operations,
        "held_removals": view.held_removals,
        "warnings": _warnings(here),
        "now_us": view.now_us,
    }


def _warnings(agents: Iterable[AgentEntry]) -> list[str]:
    """What the operators of these agents should know, each text once with the hosts that say it."""
    hosts: dict[str, list[str]] = {}
    for agent in agents:
        if agent.info.warning:
            hosts.setdefault(agent.info.warning, []).append(agent.info.hostname)
    shown = []
    for text, names in list(hosts.items())[:MAX_WARNINGS]:
        more = f" and {len(names) - MAX_HOSTS} more" if len(names) > MAX_HOSTS else ""
        shown.append(f"{', '.join(names[:MAX_HOSTS])}{more}: {text}")
    if len(hosts) > MAX_WARNINGS:
        shown.append(f"and {len(hosts) - MAX_WARNINGS} other warnings: see `agents --json`")
    return shown


# -- agents ---------------------------------------------------------------------------------------------------------


def agent_state(agent: AgentEntry) -> str:
    if agent.connected:
        return "active"
    return "disconnected" if agent.registered else "recovering"


def _agents(view: View, match: Mapping[str, str], after: int) -> Iterator[Candidate]:
    """By the number in their ids, whatever their state."""
    roster = view.roster
    everyone: list[AgentEntry | AgentRecord] = [*roster.agents.values(), *roster.absent.values()]
    known = [(number, agent) for agent in everyone if (number := _number(agent.agent_id, "-S")) > after]
    known.sort(key=lambda pair: pair[0])
    for number, agent in known:
        yield str(number), lambda agent=agent: _agent_row(view, agent)  # type: ignore[misc]


def _number(text: str, mark: str) -> int:
    digits = text.rpartition(mark)[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _agent_row(view: View, agent: AgentEntry | AgentRecord) -> Row:
    info = agent.info
    row: Row = {
        "agent_id": agent.agent_id,
        "hostname": info.hostname,
        "address": info.address,
        "state": agent_state(agent) if isinstance(agent, AgentEntry) else agent.state,
        "resources": amounts(info.resources),
        "attributes": {attribute.name: str(attribute).partition(":")[2] for attribute in info.attributes},
        "version": info.version,
        "isolation": info.isolation,
        "warning": info.warning,
    }
    if isinstance(agent, AgentEntry):
        offered = (view.offers.get(offer_id) for offer_id in view.offers.of_agent(agent.agent_id))
        row["used"] = amounts(total(agent.used.values()))
        row["offered"] = amounts(total(o.offer.resources for o in offered if o is not None))
        row["tasks"] = len(agent.tasks)
        row["executors"] = sum(map(len, agent.executors.values()))
    else:
        row["since_us"] = agent.since_us
    return row


# -- frameworks and roles -------------------------------------------------------------------------------------------


def _frameworks(view: View, match: Mapping[str, str], after: int) -> Iterator[Candidate]:
    roster = view.roster
    everyone: list[FrameworkEntry | FrameworkRecord] = [*roster.frameworks.values(), *roster.removed.values()]
    known = [(number, framework) for framework in everyone if (number := _number(framework.framework_id, "-")) > after]
    known.sort(key=lambda pair: pair[0])
    for number, framework in known:
        yield str(number), lambda framework=framework: framework_row(view, framework)  # type: ignore[misc]


def framework_row(view: View, framework: FrameworkEntry | FrameworkRecord) -> Row:
    info = framework.info
    row: Row = {
        "framework_id": framework.framework_id,
        "name": info.name,
        "user": info.user,
        "principal": info.principal,
        "roles": list(info.roles),
        "state": "removed",
        "hostname": info.hostname,
        "webui_url": info.webui_url,
        "labels": info.labels,
        "failover_timeout_ms": info.failover_timeout_ms,
        "deadline_us": framework.deadline_us,
    }
    if isinstance(framework, FrameworkRecord):
        row["outcome"] = framework.outcome
        row["since_us"] = framework.since_us
        return row
    row["state"] = "active" if framework.connected else "disconnected"
    row["suppressed_roles"] = list(framework.suppressed)
    row["tasks"] = len(framework.tasks)
    row["offers"] = len(view.offers.of_framework(framework.framework_id))
    row["used"] = amounts(total(task.resources for task in framework.tasks.values() if task.held))
    return row


def _roles(view: View, match: Mapping[str, str], after: str) -> Iterator[Candidate]:
    """Every role that somebody has, with its weight and dominant share in millionths."""
    shares = {role: share for role, framework, share in view.allocator.shares() if framework is None}
    members: Counter[str] = Counter(role for f in view.roster.frameworks.values() for role in f.info.roles)
    for role in sorted({*shares, *members, *view.roster.weights}):
        if role > after:
            row = {
                "role": role,
                "weight_milli": view.roster.weights.get(role, MILLI),  # type: ignore[call-overload]
                "share_millionths": shares.get(role, 0),  # type: ignore[call-overload]
                "frameworks": members[role],
            }
            yield role, lambda row=row: row  # type: ignore[misc]


# -- tasks ----------------------------------------------------------------------------------------------------------


def _tasks(view: View, match: Mapping[str, str], start: tuple[int, ...]) -> Iterator[Candidate]:
    """Framework by framework: the live, the unreachable, the ended; each group by age."""
    keys = {key: value for key, value in match.items() if key in TaskEntry.__slots__}
    for section, frameworks in enumerate((view.roster.frameworks.values(), view.roster.completed)):
        for framework in sorted(frameworks, key=lambda f: f.number):
            here = (section, framework.number)
            if here < start[:2] or match.get("framework_id", framework.framework_id) != framework.framework_id:
                continue
            for group, tasks in enumerate(_task_groups(framework, match.get("task_id"))):
                for task in tasks:
                    place = (*here, group, task.number)
                    if place > start and all(str(getattr(task, key)) == value for key, value in keys.items()):
                        yield ".".join(map(str, place)), lambda task=task: task_row(view, task)  # type: ignore[misc]


def _task_groups(framework: FrameworkEntry, task_id: str | None) -> Iterator[Iterable[TaskEntry]]:
    if task_id is not None:
        for group in (framework.tasks, framework.unreachable):
            task = group.get(task_id)  # type: ignore[call-overload]
            yield [] if task is None else [task]
    else:
        yield framework.tasks.values()
        yield sorted(framework.unreachable.values(), key=lambda t: t.number)
    yield sorted(framework.completed, key=lambda t: t.number)


def task_row(view: View, task: TaskEntry) -> Row:
    agent = view.roster.agents.get(task.agent_id) or view.roster.absent.get(task.agent_id)
    updated_us, _, reason, message = task.history[-1]
    return {
        "task_id": task.task_id,
        "framework_id": task.framework_id,
        "agent_id": task.agent_id,
        "hostname": "" if agent is None else agent.info.hostname,
        "agent_address": "" if agent is None else agent.info.address,
        "name": task.name,
        "role": task.role,
        "state": task.state.value,
        "reason": reason,
        "message": message,
        "resources": amounts(task.resources),
        "executor_id": task.executor_id,
        "container_id": task.container_id,
        "labels": task.labels,
        "launched_us": task.history[0][0],
        "updated_us": updated_us,
    }


# -- offers ---------------------------------------------------------------------------------------------------------


def _offers(view: View, match: Mapping[str, str], after: int) -> Iterator[Candidate]:
    for outstanding in view.offers.after(after, MAX_SCAN + 1):
        offer = outstanding.offer
        row = {
            "offer_id": offer.offer_id,
            "framework_id": outstanding.framework_id,
            "agent_id": offer.agent_id,
            "hostname": offer.hostname,
            "role": offer.role,
            "resources": amounts(offer.resources),
            "expires_us": outstanding.expires_us,
        }
        yield offer.offer_id, lambda row=row: row  # type: ignore[misc]


# -- why ------------------------------------------------------------------------------------------------------------


def _why(view: View, match: Mapping[str, str], after: int) -> Iterator[Candidate]:
    """Of a task: its state and history, or why its launch was refused. Of a framework: why it is offered nothing."""
    rows = _why_task(view, match) if match.get("task_id") else _why_framework(view, match)
    for place, row in enumerate(rows):
        if place > after:
            yield str(place), lambda row=row: row  # type: ignore[misc]


def _why_task(view: View, match: Mapping[str, str]) -> Iterator[Row]:
    task_id, framework_id = match["task_id"], match.get("framework_id")
    for framework in (*view.roster.frameworks.values(), *view.roster.completed):
        if framework_id not in (None, "", framework.framework_id):
            continue
        for group in _task_groups(framework, task_id):
            for task in group:
                if task.task_id == task_id:
                    history = [
                        {"time_us": time_us, "state": state, "reason": reason, "message": message}
                        for time_us, state, reason, message in task.history
                    ]
                    yield {"kind": "task", **task_row(view, task), "history": history}
        yield from _refused(framework, task_id)


def _refused(framework: FrameworkEntry, task_id: str = "") -> Iterator[Row]:
    for time_us, agent_id, refused_id, text in framework.refusals:
        if task_id in ("", refused_id):
            yield {
                "kind": "refused-launch",
                "framework_id": framework.framework_id,
                "task_id": refused_id,
                "agent_id": agent_id,
                "time_us": time_us,
                "text": text,
            }


def _why_framework(view: View, match: Mapping[str, str]) -> Iterator[Row]:
    framework_id = match.get("framework_id")
    framework = view.roster.frameworks.get(framework_id) if framework_id else None  # type: ignore[call-overload]
    if framework is None:
        removed = view.roster.removed.get(framework_id) if framework_id else None  # type: ignore[call-overload]
        if removed is not None:
            yield {"kind": "framework", "text": f"It was removed: {removed.outcome or 'no outcome was given'}"} | (
                framework_row(view, removed)
            )
        return
    yield {"kind": "framework", "text": _standing(view, framework), **framework_row(view, framework)}
    for refusal in view.allocator.explain(framework.framework_id, view.now_us):
        agent = view.roster.agents.get(refusal.agent_id)
        why = framework.declines.get(refusal.agent_id) if refusal.reason == "filtered" else None
        yield {
            "kind": "agent",
            "agent_id": refusal.agent_id,
            "hostname": "" if agent is None else agent.info.hostname,
            "role": refusal.role,
            "reason": refusal.reason,
            "text": refusal.text if why is None else f"{refusal.text} ({why})",
        }
    yield from _refused(framework)


def _standing(view: View, framework: FrameworkEntry) -> str:
    """What stands in the way of any offer at all, in one sentence."""
    if not framework.connected:
        return "It is not connected: nothing is offered until it subscribes again"
    if not framework.info.roles:
        return "It has no roles: nothing can be offered to it"
    if set(framework.info.roles) <= set(framework.suppressed):
        return "It has suppressed offers for all its roles: it must revive to get some"
    offers = len(view.offers.of_framework(framework.framework_id))
    if offers:
        return f"It has {offers} offers to answer"
    if not any(agent.connected for agent in view.roster.agents.values()):
        return "No agent is active"
    return "It takes part; see each agent for what stands in the way"


_SOURCES: dict[str, tuple[Callable[[View, Mapping[str, str], Any], Iterable[Candidate]], Callable[[str], Any]]] = {
    "status": (_status, _number_place),
    "agents": (_agents, _number_place),
    "frameworks": (_frameworks, _number_place),
    "tasks": (_tasks, _task_place),
    "offers": (_offers, _offer_place),
    "roles": (_roles, str),
    "why": (_why, _number_place),
}
"""What may be asked: its rows from a place on, and how to read that place."""
