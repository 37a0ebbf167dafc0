"""What may be launched, registered and subscribed: each rule with its text, in Mesos' words where Mesos has the rule.

Every function returns why not, or None when all is well, and never raises for anything that may come off the wire. The
rules do not know who asks: a framework may judge its own accept before it sends it. Source: Mesos
src/master/validation.cpp, src/common/validation.cpp, src/common/resources.cpp.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence

import msgspec

from mesos_actor.actors.core.container_network import published_error
from mesos_actor.actors.core.container_spec import container_error
from mesos_actor.actors.core.offers import Offers
from mesos_actor.actors.core.rlimits import rlimits_error
from mesos_actor.actors.core.task_limits import executor_task_error, limits_error
from mesos_actor.actors.ids import ExecutorId, FrameworkId, OfferId, Principal, Role, TaskId, id_error, role_error
from mesos_actor.actors.messages.agents import RegisterAgent
from mesos_actor.actors.messages.values import (
    MAX_REFUSE_MS,
    AgentInfo,
    Command,
    Demand,
    ExecutorInfo,
    Filters,
    FrameworkInfo,
    Task,
    Uri,
)
from mesos_actor.actors.resources import Resources
from mesos_actor.actors.task import TaskState

MAX_ROLES = 1_000
"""Roles of one framework."""
MAX_INFO_BYTES = 64 << 10
"""Of what a framework or an agent says of itself."""
MAX_DEMANDS = 1_000
"""Demands of one framework."""
MAX_DURATION_MS = 100 * 365 * 24 * 3600 * 1000
"""Longer times are taken for a mistake: they would overflow somebody's clock."""
MAX_COMMAND_BYTES = 2 << 20
"""Arguments and environment of one command together: more than Linux executes (ARG_MAX)."""
MAX_NAME_LENGTH = 255
REPORTED_STATES = frozenset(TaskState) - {TaskState.UNREACHABLE, TaskState.UNKNOWN}
"""What an agent can say of its own tasks; the other two are a master's view."""

_ENCODER = msgspec.msgpack.Encoder()
_PLAIN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,254}", re.ASCII).fullmatch
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?", re.ASCII).fullmatch


def refuse_us(filters: Filters) -> int:
    """How long a filter holds, in microseconds, cut to what is allowed; 0: no filter."""
    return min(max(filters.refuse_ms, 0), MAX_REFUSE_MS) * 1_000


# -- offers ---------------------------------------------------------------------------------------------------------


def offers_error(offer_ids: Sequence[OfferId], framework: FrameworkId, offers: Offers) -> str | None:
    """Why these offers cannot be used together by this framework. (Mesos: validation::offer)"""
    if not offer_ids:
        return "No offers specified"
    if len(offer_ids) > 1:
        seen = set()
        for offer_id in offer_ids:
            if offer_id in seen:
                return f"Duplicate offer {offer_id} in offer list"
            seen.add(offer_id)
    found = []
    for offer_id in offer_ids:
        outstanding = offers.get(offer_id)
        if outstanding is None:
            return f"Offer {offer_id} is no longer valid"
        found.append(outstanding)
    for outstanding in found:
        if outstanding.framework_id != framework:
            return (
                f"Offer {outstanding.offer.offer_id} has invalid framework {outstanding.framework_id}"
                f" while framework {framework} is expected"
            )
    first = found[0].offer
    for outstanding in found[1:]:
        offer = outstanding.offer
        if offer.role != first.role:
            return (
                f"Aggregated offers must be allocated to the same role. Offer {offer.offer_id} uses role"
                f" '{offer.role}' but another is using role '{first.role}'"
            )
        if offer.agent_id != first.agent_id:
            return (
                f"Aggregated offers must belong to one single agent. Offer {offer.offer_id} uses agent"
                f" {offer.agent_id} and agent {first.agent_id}"
            )
    return None


# -- tasks ----------------------------------------------------------------------------------------------------------


def task_error(task: Task, live: Container[TaskId], unreachable: Container[TaskId]) -> str | None:
    """Why this task cannot be launched on any agent. `live` and `unreachable` are the framework's tasks."""
    task_id = task.task_id
    if not _PLAIN_ID(task_id) and (problem := id_error(task_id)):
        return f"Task ID is invalid: {problem}"
    if task_id in live:
        return f"Task has duplicate ID: {task_id}"
    if task_id in unreachable:
        return f"Task reuses the ID of an unreachable task: {task_id}"
    if (task.command is None) == (task.executor is None):
        return "Task should have at least one (but not both) of CommandInfo or ExecutorInfo present"
    if not 0 <= task.kill_grace_ms <= MAX_DURATION_MS:
        return _duration_error("Task's 'kill_grace_ms'", task.kill_grace_ms)
    if not 0 <= task.max_completion_ms <= MAX_DURATION_MS:
        return _duration_error("Task's 'max_completion_ms'", task.max_completion_ms)
    if len(task.name) > MAX_NAME_LENGTH:
        return f"Task's 'name' must not be longer than {MAX_NAME_LENGTH} characters"
    if not task.resources.entries:
        return "Task uses no resources"
    if problem := task.resources.error():
        return f"Task uses invalid resources: {problem}"
    if problem := limits_error(task.limits, task.resources):
        return f"Task uses invalid limits: {problem}"
    if task.command is not None:
        return _launched_error(task.command, task.resources, "Task's command")
    if problem := executor_task_error(task.limits):
        return f"Task uses invalid limits: {problem}"
    return None if task.executor is None else executor_error(task.executor)


def executor_error(executor: ExecutorInfo) -> str | None:
    """Why this executor cannot run on any agent."""
    if problem := id_error(executor.executor_id):
        return f"Executor ID is invalid: {problem}"
    if not 0 <= executor.shutdown_grace_ms <= MAX_DURATION_MS:
        return _duration_error("ExecutorInfo's 'shutdown_grace_ms'", executor.shutdown_grace_ms)
    if problem := executor.resources.error():
        return f"Executor uses invalid resources: {problem}"
    if problem := limits_error(executor.limits, executor.resources):
        return f"Executor uses invalid limits: {problem}"
    return _launched_error(executor.command, executor.resources, "Executor's command")


def _launched_error(command: Command, resources: Resources, whose: str) -> str | None:
    """Why this command cannot be executed by whoever has these resources."""
    if problem := command_error(command, whose):
        return problem
    if problem := published_error(command.container, resources):
        return f"{whose} has an invalid container: {problem}"
    return None


def fits(task: Task, executors: Mapping[ExecutorId, ExecutorInfo], offered: Resources) -> tuple[Resources, str | None]:
    """(what is left of `offered` once the task is launched, None), or (`offered`, why it cannot be).

    `executors` are the framework's on that agent; the task's own is counted when it is not among them.
    """
    needed = task.resources
    executor = task.executor
    if executor is not None:
        running = executors.get(executor.executor_id)
        if running is None:
            needed = needed + executor.resources
        elif running != executor:
            return offered, (
                "ExecutorInfo is not compatible with existing ExecutorInfo with same ExecutorID:"
                f" '{executor.executor_id}'"
            )
    if not offered.contains(needed):
        return offered, (f"Total resources {needed} required by task and its executor is more than available {offered}")
    return offered - needed, None


def command_error(command: Command, whose: str) -> str | None:
    """Why this command cannot be executed. (Mesos: validateCommandInfo; the argument rules are execve's.)"""
    argv = command.argv
    container = command.container
    if container is not None and (problem := container_error(container)):
        return f"{whose} has an invalid container: {problem}"
    by_image = not argv and not command.shell and container is not None and container.image
    if not by_image and (not argv or not argv[0]):
        return f"{whose} has no program to execute: 'argv' is empty"
    if command.shell and len(argv) != 1:
        return f"{whose} has 'shell' set, so 'argv' must have exactly one item, not {len(argv)}"
    for argument in argv:
        if "\0" in argument:
            return f"{whose} has a NUL character in 'argv'"
    for name, value in command.env.items():
        if not name or "=" in name or "\0" in name:
            return f"{whose} has an invalid environment variable name {name!r}: it must not be empty or contain '='"
        if "\0" in value:
            return f"{whose} has a NUL character in the environment variable '{name}'"
    if (size := _command_bytes(command)) > MAX_COMMAND_BYTES:
        return (
            f"{whose} has 'argv' and 'env' of {size} bytes together; at most {MAX_COMMAND_BYTES} can be executed,"
            " put large values into files"
        )
    if command.user and not _USER(command.user):
        return f"{whose} has an invalid 'user' {command.user!r}: give the name of a Unix user"
    for uri in command.uris:
        if problem := uri_error(uri):
            return f"{whose} has an invalid URI: {problem}"
    if problem := rlimits_error(command.rlimits):
        return f"{whose} has invalid 'rlimits': {problem}"
    return None


def _command_bytes(command: Command) -> int:
    """The length of `argv` and `env`. Only one that is long is measured exactly: a character takes at most 4 bytes."""
    characters = sum(map(len, command.argv)) + sum(len(name) + len(value) for name, value in command.env.items())
    if characters * 4 <= MAX_COMMAND_BYTES:
        return characters
    parts = (*command.argv, *command.env, *command.env.values())
    return sum(len(part.encode("utf-8", "surrogatepass")) for part in parts)


def uri_error(uri: Uri) -> str | None:
    """Why this cannot be fetched into a sandbox."""
    path = uri.path.removeprefix("file://")
    if not path.startswith("/") or "\0" in path:
        return f"'path' must be an absolute path or a file:// URL, not {uri.path!r}"
    name = uri.output_file
    if name and (name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))):
        return f"'output_file' must be a relative path inside the sandbox, not {name!r}"
    if not name and path.rpartition("/")[2] in ("", ".", ".."):
        return f"'path' {uri.path!r} names no file; set 'output_file'"
    return None


def _duration_error(what: str, value_ms: int) -> str:
    if value_ms < 0:
        return f"{what} must be non-negative, not {value_ms}"
    return f"{what} must be at most {MAX_DURATION_MS}, not {value_ms}"


# -- frameworks and agents ------------------------------------------------------------------------------------------


def framework_error(info: FrameworkInfo, suppressed: Sequence[Role], principal: Principal) -> str | None:
    """Why a framework cannot subscribe like this."""
    if info.principal and info.principal != principal:
        return (
            f"Authenticated principal '{principal}' does not match principal '{info.principal}' set in `FrameworkInfo`"
        )
    if len(info.roles) > MAX_ROLES:
        return f"FrameworkInfo.roles has {len(info.roles)} roles; at most {MAX_ROLES} are accepted"
    for role in info.roles:
        if problem := role_error(role):
            return f"'FrameworkInfo.roles' contains an invalid role: {problem}"
    if len(set(info.roles)) != len(info.roles):
        return "'FrameworkInfo.roles' contains duplicate items"
    for role in suppressed:
        if role not in info.roles:
            return f"Suppressed role '{role}' is not one of the framework's roles"
    if not 0 <= info.failover_timeout_ms <= MAX_DURATION_MS:
        return _duration_error("The framework's 'failover_timeout_ms'", info.failover_timeout_ms)
    if len(info.name) > MAX_NAME_LENGTH:
        return f"FrameworkInfo.name must not be longer than {MAX_NAME_LENGTH} characters"
    if info.user and not _USER(info.user):
        return f"FrameworkInfo.user {info.user!r} is not the name of a Unix user"
    return _size_error("FrameworkInfo", info)


def _size_error(what: str, info: FrameworkInfo | AgentInfo) -> str | None:
    """Every master keeps it, and sends it to whoever lists them."""
    size = len(_ENCODER.encode(info))
    if size <= MAX_INFO_BYTES:
        return None
    return f"{what} has {size} bytes; at most {MAX_INFO_BYTES} are accepted: shorten its labels, roles or attributes"


def roles_error(roles: Sequence[Role], info: FrameworkInfo) -> str | None:
    """Why a framework cannot revive or suppress these."""
    for role in roles:
        if role not in info.roles:
            return f"Role '{role}' is not one of the framework's roles"
    return None


def demands_error(demands: Sequence[Demand], info: FrameworkInfo) -> str | None:
    """Why a framework cannot wait for this."""
    if len(demands) > MAX_DEMANDS:
        return f"{len(demands)} demands; at most {MAX_DEMANDS} are accepted"
    for demand in demands:
        if problem := roles_error((demand.role,), info):
            return problem
        if demand.count < 0 or demand.count > 10**9:
            return f"Demand's 'count' must be from 0 to 1000000000, not {demand.count}"
        if not demand.shape.entries:
            return "Demand's 'shape' has no resources"
        if problem := demand.shape.error():
            return f"Demand's 'shape' is invalid: {problem}"
    return None


def agent_error(info: AgentInfo) -> str | None:
    """Why an agent cannot take part like this."""
    if not info.hostname or len(info.hostname) > MAX_NAME_LENGTH or not info.hostname.isprintable():
        return f"AgentInfo.hostname must be a host's name of 1 to {MAX_NAME_LENGTH} characters, not {info.hostname!r}"
    if problem := info.resources.error():
        return f"AgentInfo.resources: {problem}"
    if problem := info.attributes.error():
        return f"AgentInfo.attributes: {problem}"
    return _size_error("AgentInfo", info)


def registration_error(message: RegisterAgent) -> str | None:
    """Why an agent cannot register with this message. (Mesos: validation::master::message::reregisterSlave)"""
    if problem := agent_error(message.info):
        return problem
    if not message.registration or len(message.registration) > MAX_NAME_LENGTH:
        return f"RegisterAgent.registration must be a name of 1 to {MAX_NAME_LENGTH} characters"
    if not message.agent_id and (message.tasks or message.executors):
        return "RegisterAgent.agent_id is empty, but tasks or executors are reported: a new agent has none"
    executors: set[tuple[str, str]] = set()
    for report in message.executors:
        key = (report.framework_id, report.executor.executor_id)
        if key in executors:
            return f"Executor '{key[1]}' of framework {key[0]} is reported twice"
        executors.add(key)
        if problem := executor_error(report.executor) or role_error(report.role):
            return f"Executor '{key[1]}' of framework {key[0]}: {problem}"
    tasks: set[tuple[str, str]] = set()
    for task in message.tasks:
        if (task.framework_id, task.task_id) in tasks:
            return f"Task '{task.task_id}' of framework {task.framework_id} is reported twice"
        tasks.add((task.framework_id, task.task_id))
        problem = id_error(task.task_id) or role_error(task.role) or task.resources.error()
        if problem:
            return f"Task '{task.task_id}' of framework {task.framework_id}: {problem}"
        if task.state not in REPORTED_STATES:
            return f"Task '{task.task_id}' of framework {task.framework_id} is reported {task.state}"
    return None
