"""What a batch or a service asks for, as read from TOML or JSON.

A spec is judged whole before anything is sent: an unknown field, a cycle, a bad size is one InvalidInput that names the
field, the value and the fix. Everything here is data; a scheduler keeps the spec it was started with as JSON.
"""

from __future__ import annotations

import difflib
import re
from typing import Any, TypeVar

import msgspec

from mesos_actor.actors.core.constraints import KEEPS_LIMITS, Constraint, parse_constraint
from mesos_actor.actors.core.limit_text import parse_limits, parse_rlimits
from mesos_actor.actors.core.placement import port_numbers
from mesos_actor.actors.core.task_limits import limits_error
from mesos_actor.actors.core.validation import MAX_DURATION_MS, command_error, uri_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.frameworks.container_table import ContainerTable
from mesos_actor.actors.ids import Role, id_error, role_error
from mesos_actor.actors.messages.values import NO_LIMITS, Command, TaskLimits, Uri
from mesos_actor.actors.resource_text import SIZED_NAMES, milli_of, shown
from mesos_actor.actors.resources import Resources

MAX_INSTANCES = 100_000
"""The most tasks one array or service may have."""
MAX_GROUPS = 1_000
"""The most task groups a batch may have."""

_MAX_YEARS = MAX_DURATION_MS // (365 * 24 * 3_600 * 1_000)
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}

Amount = int | float | str
"""A number as people write it: `2`, `0.5`, `"512MiB"`. Floats are read through their shortest text."""


def duration_ms(value: Amount, field: str) -> int:
    """Milliseconds in `value`: a number of seconds, or a text with a unit such as `10m` or `500ms`."""
    match = re.fullmatch(r"(\d+(?:\.\d{1,3})?)\s*([a-z]*)", str(value).strip())
    unit = _UNITS_MS.get(match[2] or "s") if match else None
    if match is None or unit is None:
        raise InvalidInput(
            f"{field}: cannot read {shown(value)} as a duration; write a number and one of ms, s, m, h, d"
        )
    whole, _, fraction = match[1].partition(".")
    # Counted before it is converted: Python refuses to read very many digits.
    if len(whole) > len(str(MAX_DURATION_MS)):
        milliseconds = MAX_DURATION_MS + 1
    else:
        milliseconds = int(whole) * unit + int(fraction.ljust(3, "0") or 0) * unit // 1_000
    if milliseconds > MAX_DURATION_MS:
        raise InvalidInput(f"{field}: {shown(value)} is longer than {_MAX_YEARS} years; write a shorter time")
    return milliseconds


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one task runs and needs; the fields that a batch's task and a service share."""

    command: tuple[str, ...] = ()
    """The argument vector. Exactly one of `command` and `shell` is given, or neither when an image says what to run."""
    shell: str = ""
    """A line for /bin/sh -c."""
    cpus: Amount = 1
    mem: Amount = 128
    """MB, or a text with a unit."""
    disk: Amount = 0
    ports: int = 0
    """How many ports to take; their numbers are in PORT0, PORT1, … of the task's environment."""
    limits: dict[str, Amount] = {}
    """What it may never get past, apart from what it requests: `{cpus = 2, mem = "1GiB", pids = 100}`. Without: mem as
    requested, cpus whatever is idle. Only agents with cgroups keep limits; others refuse the task."""
    rlimits: dict[str, Amount] = {}
    """Limits of each of its processes, SOFT:HARD or one number for both: `{nofile = "1024:4096", core = 0}`."""
    env: dict[str, str] = {}
    uris: tuple[str, ...] = ()
    """Files on the agents to copy into the sandbox."""
    user: str = ""
    container: ContainerTable | None = None
    """What surrounds it: `{image = "python:3.12", network = "none"}`. Without: the agent's host, as the agent gives it
    to all. Agents that make no containers fail the task."""
    constraints: tuple[str, ...] = ()
    """`rack==r1`, `hostname!=h3`, `os=~debian.*`, all of which an agent must meet."""
    kill_grace: Amount = 3

    def resources(self, where: str) -> Resources:
        """The resources of one task, without its ports."""
        try:
            # Read one by one: within one text, an amount could bring others along, or be a range or a set.
            for name, value in (("cpus", self.cpus), ("mem", self.mem), ("disk", self.disk)):
                milli_of(f"resources: {name}", value, sized=name in SIZED_NAMES)
            return Resources.of(cpus=self.cpus, mem=self.mem, disk=self.disk)
        except InvalidInput as error:
            raise InvalidInput(f"{where}: {error}") from None

    def fixed_ports(self) -> tuple[int, ...]:
        """The host's ports that it publishes by number. Raises InvalidInput."""
        return () if self.container is None else self.container.fixed_ports("container.publish")

    def port_command(self, command: Command, resources: Resources) -> tuple[Command, tuple[int, ...]]:
        """(`command` with what it publishes and with PORT0, PORT1, ..., the numbers of those) for a task that has these
        resources."""
        fixed = self.fixed_ports()
        held = tuple(number for number in port_numbers(resources) if number not in fixed) if self.ports else ()
        env = {**command.env, **{f"PORT{number}": str(port) for number, port in enumerate(held)}}
        command = msgspec.structs.replace(command, env=env)
        return command if self.container is None else self.container.at(command, held), held

    def task_limits(self, where: str) -> TaskLimits:
        """The limits of one task. Raises InvalidInput."""
        limits = parse_limits(self.limits, f"{where}.limits")
        if problem := limits_error(limits, self.resources(where)):
            raise InvalidInput(f"{where}.limits: {problem}")
        return limits

    def to_command(self) -> Command:
        argv = (self.shell,) if self.shell else self.command
        return Command(
            argv=argv,
            shell=bool(self.shell),
            env=self.env,
            uris=tuple(Uri(path=path) for path in self.uris),
            user=self.user,
            container=None if self.container is None else self.container.to_spec("container"),
            rlimits=parse_rlimits(self.rlimits),
        )

    def parsed_constraints(self, where: str) -> tuple[Constraint, ...]:
        """What an agent must be like: what the spec says, and that it keeps limits when there are some."""
        try:
            asked = tuple(parse_constraint(text) for text in self.constraints)
        except InvalidInput as error:
            raise InvalidInput(f"{where}.constraints: {error}") from None
        return asked if self.task_limits(where) == NO_LIMITS else (*asked, KEEPS_LIMITS)

    def check(self, where: str) -> None:
        by_image = self.container is not None and bool(self.container.image)
        if (self.command and self.shell) or not (self.command or self.shell or by_image):
            raise InvalidInput(
                f"{where}: give exactly one of `command` (a list) and `shell` (a text), or a container's `image` that "
                "says what to run"
            )
        if self.command and not self.command[0]:
            raise InvalidInput(f"{where}.command: its first word is empty; name the program to run")
        if self.ports < 0 or self.ports > 100:
            raise InvalidInput(f"{where}.ports: {self.ports} is not a number of ports from 0 to 100")
        if not self.resources(where):
            raise InvalidInput(f"{where}: a task needs some cpus, mem or disk; all are 0")
        self.task_limits(where)
        parse_rlimits(self.rlimits, f"{where}.rlimits")
        if self.container is not None:
            for text in (self.container.image, *self.container.volumes, *self.container.publish):
                _check_text(text, f"{where}.container")
            self.container.to_spec(f"{where}.container")
            if (least := self.container.most_ports(f"{where}.container.publish")) > self.ports:
                raise InvalidInput(
                    f"{where}.container.publish: PORT{least - 1} is published, but `ports` is {self.ports}; set it to "
                    f"{least} or more"
                )
        self._check_texts(where)
        self.parsed_constraints(where)
        duration_ms(self.kill_grace, f"{where}.kill_grace")

    def _check_texts(self, where: str) -> None:
        """Refuse what could not be sent, or what no agent could start."""
        for name, value in self.env.items():
            _check_text(name, f"{where}.env")
            _check_text(value, f"{where}.env.{name}")
            if not name or "=" in name:
                raise InvalidInput(f"{where}.env: {name!r} cannot be the name of a variable")
        for field in ("command", "uris", "constraints"):
            for text in getattr(self, field):
                _check_text(text, f"{where}.{field}")
        for field in ("shell", "user"):
            _check_text(getattr(self, field), f"{where}.{field}")
        for path in self.uris:
            if problem := uri_error(Uri(path=path)):
                raise InvalidInput(f"{where}.uris: {problem}; give files that are on the agents")
        if problem := command_error(self.to_command(), "a task"):
            raise InvalidInput(f"{where}: {problem}")


class TaskSpec(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One group of a batch: `instances` copies, told apart by MESOS_ACTOR_INDEX (0, 1, …) in their environment."""

    name: str
    instances: int = 1
    after: tuple[str, ...] = ()
    """Groups that must have finished first."""
    retries: int = 0
    """How often one instance may fail before the batch does. Losing an agent does not count."""
    time_limit: Amount = 0
    """Longer than this is a failure; 0: no limit."""

    def check(self, where: str) -> None:
        # Named, because msgspec's Structs are built anew: super() without arguments would not find the class.
        Shape.check(self, where)
        _check_name(self.name, where)
        _check_instances(self.instances, where)
        if not 0 <= self.retries <= 1_000:
            raise InvalidInput(f"{where}.retries: {self.retries} is not from 0 to 1000")
        duration_ms(self.time_limit, f"{where}.time_limit")


class BatchSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A batch: groups of tasks with an order among them."""

    name: str
    task: tuple[TaskSpec, ...]
    role: str = "*"
    failover_timeout: Amount = "1h"
    """How long running tasks wait for a scheduler that died."""

    def check(self) -> None:
        """Raise InvalidInput for the first thing that is wrong."""
        _check_name(self.name, "batch")
        _check_role(self.role)
        duration_ms(self.failover_timeout, "failover_timeout")
        if not 1 <= len(self.task) <= MAX_GROUPS:
            raise InvalidInput(f"task: a batch has from 1 to {MAX_GROUPS} groups of tasks, this one {len(self.task)}")
        names = [group.name for group in self.task]
        for number, group in enumerate(self.task):
            where = f"task[{number}] ({group.name})"
            group.check(where)
            if names.count(group.name) > 1:
                raise InvalidInput(f"{where}.name: used twice; give each group its own")
            for other in group.after:
                if other not in names:
                    raise InvalidInput(f"{where}.after: there is no group {other!r}{_nearest(other, names)}")
        self.order()

    def order(self) -> list[str]:
        """The groups' names, each after those it waits for. Raises InvalidInput when they wait for one another."""
        waits = {group.name: set(group.after) for group in self.task}
        ordered: list[str] = []
        while waits:
            free = [name for name, others in waits.items() if not others]
            if not free:
                raise InvalidInput(f"task.after: these groups wait for one another: {', '.join(sorted(waits))}")
            for name in free:
                del waits[name]
            for others in waits.values():
                others.difference_update(free)
            ordered += free
        return ordered


class UpdateSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a changed service replaces its old copies."""

    parallel: int = 1
    """How many copies may be missing at once."""
    healthy_after: Amount = "2s"
    """A new copy counts once it has run this long."""


class ServiceSpec(Shape, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """N copies of one task, kept running."""

    name: str
    instances: int = 1
    role: str = "*"
    backoff: Amount = "1s"
    """The wait before a copy that failed is started again; doubles up to `backoff_max`, falls back after success."""
    backoff_max: Amount = "1m"
    update: UpdateSpec = UpdateSpec()
    failover_timeout: Amount = "7d"

    def check(self, where: str = "service") -> None:
        Shape.check(self, where)
        _check_name(self.name, where)
        _check_instances(self.instances, where, least=0)
        _check_role(self.role)
        if not 1 <= self.update.parallel <= MAX_INSTANCES:
            raise InvalidInput(f"{where}.update.parallel: {self.update.parallel} is not from 1 to {MAX_INSTANCES}")
        for field in ("backoff", "backoff_max", "failover_timeout"):
            duration_ms(getattr(self, field), f"{where}.{field}")
        duration_ms(self.update.healthy_after, f"{where}.update.healthy_after")


def batch_spec(data: Any) -> BatchSpec:
    """The checked spec in parsed TOML or JSON. Raises InvalidInput."""
    spec = _convert(data, BatchSpec)
    spec.check()
    return spec


def service_spec(data: Any) -> ServiceSpec:
    """The checked spec in parsed TOML or JSON. Raises InvalidInput."""
    spec = _convert(data, ServiceSpec)
    spec.check()
    return spec


T = TypeVar("T")


def _convert(data: Any, kind: type[T]) -> T:
    try:
        return msgspec.convert(data, kind)
    except msgspec.ValidationError as error:
        text = str(error)
        unknown = re.search(r"unknown field `([^`]*)`", text)
        kinds = (ContainerTable,) if ".container`" in text else (BatchSpec, ServiceSpec, TaskSpec)
        names = [name for one in kinds for name in one.__struct_fields__]
        hint = _of_the_other_kind(unknown[1], kind) or _nearest(unknown[1], names) if unknown else ""
        raise InvalidInput(f"{text}{hint}") from None


def _check_name(name: str, where: str) -> None:
    problem = id_error(name) or (f"{name!r} is longer than 64 characters" if len(name) > 64 else None)
    if problem:
        raise InvalidInput(f"{where}.name: {problem}")


def _check_instances(instances: int, where: str, least: int = 1) -> None:
    if not least <= instances <= MAX_INSTANCES:
        raise InvalidInput(f"{where}.instances: {instances} is not from {least} to {MAX_INSTANCES}")


def _check_role(role: str) -> None:
    _check_text(role, "role")
    problem = role_error(Role(role))
    if problem:
        raise InvalidInput(f"role: {problem}")


def _of_the_other_kind(word: str, kind: type[Any]) -> str:
    for other, command in ((BatchSpec, "submit"), (ServiceSpec, "service apply")):
        if kind in (BatchSpec, ServiceSpec) and other is not kind and word in other.__struct_fields__:
            return f"; a file with it is for: mesos-actor {command}"
    return ""


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_text(text: str, field: str) -> None:
    """Refuse a text that cannot travel, or that no program can be given."""
    if "\0" in text:
        raise InvalidInput(f"{field}: {shown(text)} has a NUL character in it; leave that out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{field}: {shown(text)} is not valid Unicode text; write it in UTF-8") from None
