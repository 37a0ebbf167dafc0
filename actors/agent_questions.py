"""What clients ask an agent directly: pieces of sandbox files, resource use, tasks that ended lately.

Each question is handed to the port that knows, under a name of our own; the answer goes back under the asker's.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from mesos_actor.actors.actor import Context
from mesos_actor.actors.agent_executors import CONTAINERIZER
from mesos_actor.actors.core.settings import AgentSettings
from mesos_actor.actors.core.workload import Run, Workload
from mesos_actor.actors.ids import Address, ContainerId, OperationId, local
from mesos_actor.actors.messages.clients import MAX_PAGE, Query, QueryResult
from mesos_actor.actors.messages.containers import ContainerUsage, FileData, MeasureContainers, ReadFile, Usage
from mesos_actor.actors.messages.scheduler import Refused

SANDBOX = local("sandbox")
MAX_WAITING = 1_000
"""Questions whose answer is awaited; one more is refused as `full`."""
DEADLINE_US = 10_000_000
"""A port that has not answered by then never will: the question makes room for others."""
MAX_READ_BYTES = 256 * 1024
"""One answer holds at most so much of a file."""
EXECUTOR_PRINCIPAL = "executor:"


class UsageRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of `usage`."""

    container_id: str
    framework_id: str
    task_id: str
    executor_id: str
    name: str
    processes: int
    cpu_time_ms: int
    rss_bytes: int
    timestamp_us: int
    memory_peak_bytes: int = 0
    """This and all below: see messages/containers.py, Usage."""
    memory_limit_bytes: int = 0
    cpus_limit_milli: int = 0
    throttled_ms: int = 0
    read_bytes: int = 0
    write_bytes: int = 0
    cpu_stall_ms: int = 0
    memory_stall_ms: int = 0
    io_stall_ms: int = 0
    oom_kills: int = 0
    forks_refused: int = 0
    disk_bytes: int = 0
    disk_limit_bytes: int = 0


_COUNTED = UsageRow.__struct_fields__[UsageRow.__struct_fields__.index("memory_peak_bytes") :]


class CompletedRow(msgspec.Struct, frozen=True, omit_defaults=True):
    """One row of `completed`."""

    container_id: str
    framework_id: str
    task_id: str
    name: str
    state: str


class _Waiting(msgspec.Struct, frozen=True):
    asker: Address
    since_us: int
    question: ReadFile | Query


class Questions:
    """The questions under way, oldest first, and the newest measurement."""

    def __init__(self, settings: AgentSettings, workload: Workload) -> None:
        self._workload = workload
        self._usage_max_age_us = settings.usage_interval_ms * 1_000
        self._waiting: dict[OperationId, _Waiting] = {}
        self._number = 0
        self._usages: dict[ContainerId, Usage] = {}
        self._measured_us: int | None = None

    def _await(self, ctx: Context, asker: Address, question: ReadFile | Query) -> OperationId | None:
        """Our name for the question, or None when there is no room for it: then the asker has been told so."""
        for name, waiting in list(self._waiting.items()):
            if ctx.now_us - waiting.since_us < DEADLINE_US:
                break
            del self._waiting[name]
        if len(self._waiting) >= MAX_WAITING:
            self._refuse(ctx, asker, question, "full", f"the agent answers {MAX_WAITING} questions already")
            return None
        self._number += 1
        name = OperationId(f"q{self._number}")
        self._waiting[name] = _Waiting(asker, ctx.now_us, question)
        return name

    def _refuse(self, ctx: Context, asker: Address, question: ReadFile | Query, reason: str, text: str) -> None:
        about = type(question).__name__
        ctx.send(asker, Refused(reason, text, operation_id=question.operation_id, about=about))

    # -- files ------------------------------------------------------------------------------------------------------

    def on_read(self, ctx: Context, sender: Address, message: ReadFile) -> None:
        """An executor may read its own sandbox only; whoever else may speak to the agent reads any."""
        own = f"{EXECUTOR_PRINCIPAL}{message.container_id}"
        if ctx.principal.startswith(EXECUTOR_PRINCIPAL) and ctx.principal != own:
            text = f"principal '{ctx.principal}' may not read files of container '{message.container_id}'"
            self._refuse(ctx, sender, message, "unauthorized", text)
            return
        name = self._await(ctx, sender, message)
        if name is not None:
            length = max(0, min(message.length_bytes, MAX_READ_BYTES))
            ctx.send(SANDBOX, replace(message, length_bytes=length, operation_id=name))

    def on_file(self, ctx: Context, message: FileData) -> None:
        waiting = self._waiting.pop(message.operation_id, None)
        if waiting is not None:
            ctx.send(waiting.asker, replace(message, operation_id=waiting.question.operation_id))

    # -- rows -------------------------------------------------------------------------------------------------------

    def on_query(self, ctx: Context, sender: Address, message: Query) -> None:
        """`usage`: what each running container uses. `completed`: the tasks that ended lately."""
        if ctx.principal.startswith(EXECUTOR_PRINCIPAL):
            self._refuse(ctx, sender, message, "unauthorized", f"principal '{ctx.principal}' may not ask for this")
        elif message.what == "completed":
            rows = [
                CompletedRow(c.container_id, c.framework_id, c.task_id, c.name, c.state.value)
                for c in self._workload.completed
            ]
            self._answer(ctx, sender, message, rows)
        elif message.what != "usage":
            text = f"what: '{message.what}' is not known to an agent; ask for 'usage' or 'completed'"
            self._refuse(ctx, sender, message, "invalid", text)
        elif self._measured_us is not None and ctx.now_us - self._measured_us <= self._usage_max_age_us:
            self._answer(ctx, sender, message, self._usage_rows())
        else:
            name = self._await(ctx, sender, message)
            if name is not None:
                ctx.send(CONTAINERIZER, MeasureContainers(tuple(self._workload.containers), name))

    def on_usage(self, ctx: Context, message: ContainerUsage) -> None:
        self._usages = {usage.container_id: usage for usage in message.usages}
        self._measured_us = ctx.now_us
        waiting = self._waiting.pop(message.operation_id, None)
        if waiting is not None and isinstance(waiting.question, Query):
            self._answer(ctx, waiting.asker, waiting.question, self._usage_rows())

    def _usage_rows(self) -> list[UsageRow]:
        rows: list[UsageRow] = []
        for container_id, usage in self._usages.items():
            entry = self._workload.containers.get(container_id)
            if entry is None:
                continue
            run = entry if isinstance(entry, Run) else None
            rows.append(
                UsageRow(
                    container_id,
                    entry.framework_id,
                    run.task.task_id if run is not None else "",
                    entry.info.executor_id if not isinstance(entry, Run) else "",
                    run.task.name if run is not None else "",
                    usage.processes,
                    usage.cpu_time_ms,
                    usage.rss_bytes,
                    usage.timestamp_us,
                    **{name: getattr(usage, name) for name in _COUNTED},
                )
            )
        return rows

    def _answer(self, ctx: Context, asker: Address, query: Query, rows: Sequence[UsageRow | CompletedRow]) -> None:
        """One page of the rows that match, in the order of their containers' ids."""
        unknown = [name for name in query.match if rows and not hasattr(rows[0], name)]
        if unknown:
            self._refuse(ctx, asker, query, "invalid", f"match: there is no field '{unknown[0]}' in '{query.what}'")
            return
        limit = max(1, min(query.limit, MAX_PAGE))
        found = [
            row
            for row in sorted(rows, key=lambda row: row.container_id)
            if row.container_id > query.after
            and all(str(getattr(row, name)) == value for name, value in query.match.items())
        ]
        page = found[:limit]
        texts = tuple(msgspec.json.encode(row).decode() for row in page)
        ctx.send(asker, QueryResult(query.operation_id, texts, page[-1].container_id if len(found) > limit else ""))
