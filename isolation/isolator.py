"""What an isolator is, and how several of them work on one container.

A containerizer (process.py) makes sandboxes, fetches files, speaks with the launcher and tells the agent how things
end. All else that is special about a container - its cgroup, its namespaces, its image, its devices - is an isolator's:
a small object that contributes to a launch and takes back what it did. They are asked in the order they are given in;
what one of them refuses is undone in reverse, and so is a container that has ended and was forgotten.

The life of a container, as an isolator sees it:

    prepare    before the launch: make what is needed, say what the launcher's child shall do. Raise IsolatorError, and
               the launch fails with its text: whatever was asked for and cannot be had is never left out silently
    started    its main process runs; told again after an agent's restart
    update     its resources or limits are others now
    usage      what it uses; as often as somebody asks
    ended      nobody of it is left: was it ended by a limit, and what did it use in all?
    cleanup    take everything back. Also after a prepare that failed or was in vain, so it must bear to be asked of a
               container it has never heard of, and twice

`start` comes first, `recover` once the containers of an agent's former life are known. Nothing here knows of messages
or the agent; an isolator that must end a container for a reason of its own says so by `Watch.limit`.

Threads: `prepare` is called on a thread when any isolator says that it is `slow` for that launch, else on the loop, as
are started, update, ended and recover; usage and cleanup are always called on a thread, cleanup on one for all. An
isolator locks what it shares between them. What runs on the loop must not wait.

Source: Mesos src/slave/containerizer/mesos/isolator.hpp (prepare, isolate, watch, update, usage, cleanup, recover).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol

import msgspec

from mesos_actor.actors.errors import InvalidInput, MesosActorError
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer, Usage
from mesos_actor.actors.messages.values import NO_LIMITS, Statistics


class IsolatorError(MesosActorError):
    """An isolator cannot do what was asked. `reason` is one of ContainerFailed's; the text names what was refused and
    the fix."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


_EXPECTED = (IsolatorError, InvalidInput, OSError)
"""What an isolator may raise; anything else is a bug in it."""


class Contribution(msgspec.Struct, frozen=True, kw_only=True):
    """What an isolator adds to a launch. The default adds nothing."""

    defaults: Mapping[str, str] = {}
    """Environment that the command's own wins over (an image's)."""
    env: Mapping[str, str] = {}
    """Environment that wins over the command's own."""
    argv: Sequence[str] = ()
    """Instead of the command's arguments; empty: those stay."""
    sandbox: str = ""
    """Where the command sees its sandbox; empty: where it is on the host."""
    fields: Mapping[str, Any] = {}
    """What goes to the launcher with the launch (launcher_wire.py): `cgroup`, `limits`, `confine`. Maps are merged, one
    level deep; two isolators that give the same name another value are a bug, and the launch fails with it."""


class Limitation(msgspec.Struct, frozen=True):
    """A container was ended because it went past a limit. `kind`: `memory`, `disk`, or whatever else was limited."""

    kind: str
    text: str
    """What was limited, how far it was allowed to go, how far it went."""


class Ending(msgspec.Struct, frozen=True):
    """What an isolator knows of a container's end."""

    limitation: Limitation | None = None
    note: str = ""
    """A remark for whoever reads of the end, where no limit ended it."""
    statistics: Statistics | None = None


class Watch(Protocol):
    """What an isolator is given to reach its containerizer. From the loop's thread only."""

    def limit(self, container_id: ContainerId, limitation: Limitation) -> None:
        """It went past a limit: kill it now, and say at its end that this was why."""

    def log(self, event: str, level: str = "info", **fields: Any) -> None:
        """One structured log line."""


class Isolator(Protocol):
    """See the module's text. `BaseIsolator` does nothing at all of it."""

    name: str
    keeps_limits: bool
    """Whether it sees to LaunchContainer.limits. Where none does, a launch with limits fails."""
    makes_containers: bool
    """Whether it sees to Command.container. Where none does, a launch with one fails."""

    def start(self, watch: Watch) -> None:
        """The agent begins, on its running asyncio loop. Raises MesosActorError when this host cannot do it."""

    def slow(self, launch: LaunchContainer) -> bool:
        """Whether preparing this launch may wait for a disk or a network."""
        ...

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        """Make what the container needs. Raises IsolatorError, InvalidInput."""
        ...

    def started(self, container_id: ContainerId, pid: int) -> None:
        """Its main process is this one."""

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        """`launch` has its new resources and limits. Raises IsolatorError, InvalidInput; then they are as before."""

    def usage(self, usage: Usage) -> Usage:
        """The same with what this isolator knows better."""
        ...

    def ended(self, container_id: ContainerId) -> Ending:
        """Nobody of it is left. May be asked again, by a later life of the agent too."""
        ...

    def cleanup(self, container_id: ContainerId) -> None:
        """Take back whatever was made for it. Raises IsolatorError when that must be tried again later."""

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        """These containers exist. Returns those of which there is something here, though they do not: they are cleaned
        up then. Made before, so that what is launched later cannot be among them."""
        ...

    def close(self) -> None:
        """The agent ends; the containers go on."""


class BaseIsolator:
    """An isolator that does nothing: a class to begin with."""

    name = "base"
    keeps_limits = False
    makes_containers = False

    def start(self, watch: Watch) -> None:
        return

    def slow(self, launch: LaunchContainer) -> bool:
        return False

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        return Contribution()

    def started(self, container_id: ContainerId, pid: int) -> None:
        return

    def update(self, container_id: ContainerId, launch: LaunchContainer) -> None:
        return

    def usage(self, usage: Usage) -> Usage:
        return usage

    def ended(self, container_id: ContainerId) -> Ending:
        return Ending()

    def cleanup(self, container_id: ContainerId) -> None:
        return

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        return ()

    def close(self) -> None:
        return


class Isolation:
    """Isolators in their order, as one."""

    def __init__(self, isolators: Sequence[Isolator] = ()) -> None:
        self._isolators = tuple(isolators)

    def __bool__(self) -> bool:
        return bool(self._isolators)

    def start(self, watch: Watch) -> None:
        for isolator in self._isolators:
            isolator.start(watch)

    def close(self) -> None:
        for isolator in reversed(self._isolators):
            isolator.close()

    def slow(self, launch: LaunchContainer) -> bool:
        return any(isolator.slow(launch) for isolator in self._isolators)

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        """All contributions as one. Raises IsolatorError after those before it were undone; what could not be undone
        is said in its text and is found again by `recover`."""
        self._check_limits(launch)
        self._check_container(launch)
        merged = Contribution()
        for number, isolator in enumerate(self._isolators):
            try:
                merged = _merged(merged, isolator.prepare(launch, sandbox), isolator.name)
            except Exception as error:
                stuck = self._undo(launch.container_id, self._isolators[: number + 1])
                if not isinstance(error, _EXPECTED):
                    for line in stuck:
                        error.add_note(line)
                    raise  # a bug: whoever called tells of it
                text = error.text if isinstance(error, IsolatorError) else f"{isolator.name}: {error}"
                reason = error.reason if isinstance(error, IsolatorError) else "spawn"
                raise IsolatorError(reason, text + "".join(f"; {line}" for line in stuck)) from None
        return merged

    def _check_limits(self, launch: LaunchContainer) -> None:
        if launch.limits != NO_LIMITS and not any(isolator.keeps_limits for isolator in self._isolators):
            raise IsolatorError(
                "spawn",
                "limits: this agent cannot keep any (it was started with --isolation process); start it with "
                "--isolation cgroups, or launch the task without limits",
            )

    def _check_container(self, launch: LaunchContainer) -> None:
        if launch.command.container is not None and not any(one.makes_containers for one in self._isolators):
            raise IsolatorError(
                "spawn",
                "container: this agent runs commands on its host only (it was started with --isolation process); start "
                "it with --isolation cgroups, or leave the container out",
            )

    def started(self, container_id: ContainerId, pid: int) -> None:
        for isolator in self._isolators:
            isolator.started(container_id, pid)

    def update(self, before: LaunchContainer, now: LaunchContainer) -> None:
        """All of them or none. Raises IsolatorError."""
        self._check_limits(now)
        done: list[Isolator] = []
        for isolator in self._isolators:
            try:
                isolator.update(now.container_id, now)
            except _EXPECTED as error:
                for changed in reversed(done):
                    changed.update(now.container_id, before)
                raise IsolatorError("spawn", f"{isolator.name}: {error}") from None
            done.append(isolator)

    def usage(self, usage: Usage) -> Usage:
        for isolator in self._isolators:
            usage = isolator.usage(usage)
        return usage

    def ended(self, container_id: ContainerId) -> Ending:
        """The first limitation, all remarks, the first statistics."""
        endings = [isolator.ended(container_id) for isolator in self._isolators]
        return Ending(
            next((one.limitation for one in endings if one.limitation is not None), None),
            "; ".join(one.note for one in endings if one.note),
            next((one.statistics for one in endings if one.statistics is not None), None),
        )

    def cleanup(self, container_id: ContainerId) -> tuple[str, ...]:
        """In reverse. Returns what could not be taken back, a sentence each."""
        return self._undo(container_id, self._isolators)

    def recover(self, kept: Collection[ContainerId]) -> set[ContainerId]:
        """Of whom something is left."""
        return {left for isolator in self._isolators for left in isolator.recover(kept)}

    @staticmethod
    def _undo(container_id: ContainerId, isolators: Sequence[Isolator]) -> tuple[str, ...]:
        """What could not be taken back, a sentence each. A bug in one isolator keeps no other from its part."""
        stuck = []
        for isolator in reversed(isolators):
            try:
                isolator.cleanup(container_id)
            except Exception as error:  # noqa: BLE001 - told by whoever called, and tried again
                words = str(error) if isinstance(error, _EXPECTED) else f"internal error: {error!r}"
                stuck.append(f"{isolator.name}: not taken back: {words}")
        return tuple(stuck)


def _merged(before: Contribution, added: Contribution, name: str) -> Contribution:
    fields: dict[str, Any] = dict(before.fields)
    for key, value in added.fields.items():
        known = fields.get(key)
        if isinstance(known, Mapping) and isinstance(value, Mapping):
            twice = [inner for inner in value if inner in known and known[inner] != value[inner]]
            fields[key] = {**known, **value}
        else:
            twice = [key] if known is not None and known != value else []
            fields[key] = value
        if twice:
            raise IsolatorError("spawn", f"{name}: {key} {twice[0]!r} is given by another isolator already")
    return Contribution(
        defaults={**before.defaults, **added.defaults},
        env={**before.env, **added.env},
        argv=added.argv or before.argv,
        sandbox=added.sandbox or before.sandbox,
        fields=fields,
    )
