"""Asking a cluster from a script: questions to the leading master, orders with an answer, files from agents.

`Client` is for asyncio programs; the functions below it do one thing each and block, for scripts and the CLI.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeVar

from mesos_actor.actors.errors import InvalidInput, LocalError, MesosActorError, Unavailable
from mesos_actor.actors.ids import Address, ContainerId, FrameworkId, Node, OperationId, Principal, node_of
from mesos_actor.actors.logs import Log
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import (
    Instruct,
    KillByOperator,
    Leader,
    MarkAgentGone,
    Query,
    QueryResult,
    SetRoleWeight,
    WhoLeads,
)
from mesos_actor.actors.messages.containers import FileData, ReadFile
from mesos_actor.actors.messages.scheduler import ASK_ELSEWHERE, OperationResult, Refused, Teardown
from mesos_actor.actors.ports import Outlet
from mesos_actor.actors.resource_text import shown
from mesos_actor.actors.run import client_keys, master_addresses
from mesos_actor.actors.runtime import Runtime
from mesos_actor.actors.task import TERMINAL
from mesos_actor.transport.codec import encode_message
from mesos_actor.transport.security import Keys
from mesos_actor.transport.transport import Deliver, LinkLost, Transport
from mesos_actor.transport.zmq import ZmqTransport

Row = dict[str, Any]
Order = Teardown | KillByOperator | MarkAgentGone | SetRoleWeight | Instruct
T = TypeVar("T")

ASK_FIRST_S, ASK_AGAIN_S = 0.3, 1.0
"""A master that has not answered by then is asked again, or the next one is: soon at first, then less so."""
AVOID_S = 0.5
"""For so long nobody is believed who names a master that did not answer: it may just have died."""
MAX_ROWS = 1_000_000
"""The most rows that one question brings home."""
LOG_CHUNK_BYTES = 256 * 1024
FOLLOW_LEAST_S, FOLLOW_MOST_S = 0.05, 1.0
"""Between two looks at a file that does not grow."""


def new_id() -> OperationId:
    """A name for one operation, which its answer repeats."""
    return OperationId(os.urandom(12).hex())


class Client:
    """`async with Client(masters, keys) as client:` then `query`, `order`, `ask`. Any master's address will do."""

    def __init__(self, masters: Sequence[Address], keys: Keys | None, timeout_s: float = 5.0) -> None:
        if not masters:
            raise InvalidInput("masters: none given; name at least one as HOST:PORT")
        self.masters = tuple(masters)
        self.timeout_s = timeout_s
        self._answers = _Answers()
        self._leader = self.masters[0]
        #: The newest thing the transport had to report, for when nobody answers.
        self._reported = ""

        def transport(deliver: Deliver, lost: LinkLost) -> Transport:
            return ZmqTransport(security=keys, on_deliver=deliver, on_link_lost=lost, report=self._on_report)

        self._runtime = Runtime(transport=transport, log=Log(level="error"))
        self._runtime.add_port("client", self._answers)

    async def __aenter__(self) -> Client:
        await self._runtime.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runtime.stop()

    async def query(self, what: str, match: dict[str, str] | None = None) -> list[Row]:
        """All rows of a question (see messages.clients.Query), page by page. Raises Unavailable, InvalidInput."""
        rows: list[Row] = []
        after = ""
        while len(rows) < MAX_ROWS:
            page = Query(operation_id=new_id(), what=what, match=match or {}, after=after)
            answer = await self._ask_leader(page, page.operation_id)
            if not isinstance(answer, QueryResult):
                raise MesosActorError(f"the master answered a question with {type(answer).__name__}")
            rows += (json.loads(row) for row in answer.rows)
            after = answer.next
            if not after:
                break
        return rows

    async def order(self, message: Order) -> OperationResult:
        """Have an operation done; returns its answer. Raises InvalidInput with the reason when it was refused."""
        answer = await self._ask_leader(message, message.operation_id)
        if not isinstance(answer, OperationResult):
            raise MesosActorError(f"the master answered an order with {type(answer).__name__}")
        if not answer.ok:
            raise InvalidInput(answer.text or answer.reason)
        return answer

    async def leader(self) -> Address:
        """The leading master's address, empty when none is known."""
        message = WhoLeads(operation_id=new_id())
        answer = await self._ask_leader(message, message.operation_id)
        return answer.address if isinstance(answer, Leader) else Address("")

    async def read_file(self, agent: Address, message: ReadFile) -> FileData:
        """A piece of a sandbox file, from its agent. Raises Unavailable when the agent does not answer."""
        answer = await self.ask(agent, message, message.operation_id, self.timeout_s)
        if answer is None:
            raise Unavailable(f"the agent at {agent} did not answer within {self.timeout_s:g} s")
        if not isinstance(answer, FileData):
            raise MesosActorError(f"the agent refused: {answer.text if isinstance(answer, Refused) else answer}")
        return answer

    async def ask(self, to: Address, message: Message, operation_id: OperationId, timeout_s: float) -> Message | None:
        """Send `message` and return the answer that repeats `operation_id`, or None when none came in time. Raises
        InvalidInput for what cannot be sent, naming the value."""
        _check_sendable(message)
        try:
            return await asyncio.wait_for(self._answers.ask(to, message, operation_id), timeout_s)
        except TimeoutError:
            return None

    async def _ask_leader(self, message: Message, operation_id: OperationId) -> Message:
        deadline = time.monotonic() + self.timeout_s
        attempt = 0
        silent: dict[Address, float] = {}
        while (left_s := deadline - time.monotonic()) > 0:
            asked = self._leader
            wait_s = ASK_FIRST_S if attempt < len(self.masters) else ASK_AGAIN_S
            answer = await self.ask(asked, message, operation_id, min(wait_s, left_s))
            if isinstance(answer, Refused) and answer.reason in ASK_ELSEWHERE:
                believed = time.monotonic() - silent.get(answer.leader, -AVOID_S) >= AVOID_S
                self._leader = answer.leader if answer.leader and believed else self._next_master(asked)
                await asyncio.sleep(min(0.02, left_s))
            elif isinstance(answer, Refused):
                raise InvalidInput(answer.text or answer.reason)
            elif answer is not None:
                return answer
            else:
                silent[asked] = time.monotonic()
                self._leader = self._next_master(asked)
            attempt += 1
        names = ", ".join(self.masters)
        raise Unavailable(f"no leading master answered within {self.timeout_s:g} s at {names}; {self.hint()}")

    def _on_report(self, event: str, fields: Mapping[str, object]) -> None:
        self._reported = event

    def hint(self) -> str:
        """What may be the matter when nobody answers."""
        if self._reported == "handshakes_failed":
            return "something is there, but the handshake failed: is this its key, and are both --insecure or neither?"
        if self._reported == "refused.by-peer":
            return (
                "it does not know our key: is this the cluster's --key-dir, or is a client's key not authorized there?"
            )
        return "is one running, and is this its key?"

    def _next_master(self, asked: Address) -> Address:
        """The one after `asked` in the list; the first after one that is not in it."""
        at = self.masters.index(asked) if asked in self.masters else -1
        return self.masters[(at + 1) % len(self.masters)]


def _check_sendable(message: Message) -> None:
    """Raise InvalidInput when the transport would have to drop `message`: nobody would answer, and the masters would be
    blamed for it."""
    try:
        encode_message(message)
    except LocalError as error:
        raise InvalidInput(_unsendable(message) or str(error)) from None


def _unsendable(message: Message) -> str:
    """Which text of `message` cannot be sent; empty when it is something else."""
    for field in message.__struct_fields__:
        value = getattr(message, field)
        texts = value.items() if isinstance(value, dict) else [("", value)]
        for key, text in texts:
            try:
                f"{key}{text}".encode()
            except UnicodeEncodeError:
                return f"{key or field}: {shown(text)} is not valid Unicode text; write it in UTF-8"
    return ""


class _Answers:
    """The client's mailbox: gives each answer to whoever waits for it."""

    def __init__(self) -> None:
        #: operation -> (the process that was asked, what it answers; None when the link with it is lost)
        self._waiting: dict[OperationId, tuple[Node, asyncio.Future[Message | None]]] = {}
        self._outlet: Outlet | None = None

    def start(self, outlet: Outlet) -> None:
        self._outlet = outlet

    async def ask(self, to: Address, message: Message, operation_id: OperationId) -> Message | None:
        assert self._outlet is not None, "asked before the client was entered"
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()
        self._waiting[operation_id] = node_of(to), future
        try:
            self._outlet.send(to, message)
            return await future
        finally:
            self._waiting.pop(operation_id, None)

    def on_message(self, sender: Address, cause: str, principal: Principal, message: Message) -> None:
        operation_id = getattr(message, "operation_id", None)
        if isinstance(message, Refused) and not message.operation_id and len(self._waiting) == 1:
            # An old peer, or one that could not read the question, refuses without naming it.
            operation_id = next(iter(self._waiting))
        _, future = self._waiting.get(operation_id, ("", None)) if operation_id else ("", None)
        if future is not None and not future.done():
            future.set_result(message)

    def on_link_lost(self, node: Node) -> None:
        """(See ports.LinkListener.) Whoever was asked there will not answer any more."""
        for there, future in self._waiting.values():
            if there == node and not future.done():
                future.set_result(None)

    def on_flush(self) -> None:
        """Answers are handed over as they come."""

    def close(self) -> None:
        for _, future in self._waiting.values():
            future.cancel()


def credentials(masters: str, key_dir: str, insecure: bool) -> tuple[tuple[Address, ...], Keys | None]:
    """The masters' mailboxes and the keys to speak to them with. Raises ConfigError, SecurityError."""
    addresses = master_addresses(masters)
    return addresses, client_keys(addresses, key_dir, insecure, Log(level="error"))


# -- one thing each, blocking -----------------------------------------------------------------------------------------


def blocking(
    masters: str, key_dir: str, insecure: bool, timeout_s: float, ask: Callable[[Client], Coroutine[Any, Any, T]]
) -> T:
    """The result of `ask(client)`, in an asyncio loop of its own."""
    addresses, keys = credentials(masters, key_dir, insecure)

    async def work() -> T:
        async with Client(addresses, keys, timeout_s) as client:
            return await ask(client)

    return asyncio.run(work())


def query(masters: str, key_dir: str, insecure: bool, timeout_s: float, what: str, match: dict[str, str]) -> list[Row]:
    return blocking(masters, key_dir, insecure, timeout_s, lambda client: client.query(what, match))


def order(masters: str, key_dir: str, insecure: bool, timeout_s: float, message: Order) -> OperationResult:
    return blocking(masters, key_dir, insecure, timeout_s, lambda client: client.order(message))


def usage(masters: str, key_dir: str, insecure: bool, timeout_s: float) -> tuple[list[Row], list[str]]:
    """What every running task uses now, asked of each agent, and the host names of those that do not answer."""

    async def ask(client: Client) -> tuple[list[Row], list[str]]:
        known = [row for row in await client.query("agents") if row["state"] != "gone"]
        agents = [row for row in known if row["state"] == "active"]
        silent = [row["hostname"] for row in known if row["state"] != "active"]

        async def of(agent: Row) -> list[Row]:
            message = Query(operation_id=new_id(), what="usage")
            answer = await client.ask(Address(agent["address"]), message, message.operation_id, timeout_s)
            if not isinstance(answer, QueryResult):
                silent.append(agent["hostname"])
                return []
            rows = [json.loads(row) for row in answer.rows]
            return [{**row, "agent_id": agent["agent_id"]} for row in rows]

        rows = [row for rows in await asyncio.gather(*map(of, agents)) for row in rows]
        return rows, sorted(silent)

    return blocking(masters, key_dir, insecure, timeout_s, ask)


def read_log(
    masters: str,
    key_dir: str,
    insecure: bool,
    timeout_s: float,
    task_id: str,
    framework_id: str,
    path: str,
    follow: bool,
    tail_bytes: int,
) -> Iterator[bytes]:
    """The pieces of a task's file as they come. Raises InvalidInput for an unknown task or file."""
    addresses, keys = credentials(masters, key_dir, insecure)

    async def pieces() -> AsyncIterator[bytes]:
        async with Client(addresses, keys, timeout_s) as client:
            async for piece in _log_pieces(client, task_id, framework_id, path, follow, tail_bytes):
                yield piece

    with asyncio.Runner() as runner:
        stream = pieces()
        while True:
            try:
                yield runner.run(anext(stream))  # type: ignore[arg-type]
            except StopAsyncIteration:
                return


async def find_task(client: Client, task_id: str, framework_id: str) -> Row:
    """The row of one task. Raises InvalidInput when there is none, or more than one and no framework named."""
    match = {"task_id": task_id, **({"framework_id": framework_id} if framework_id else {})}
    rows = await client.query("tasks", match)
    if not rows:
        raise InvalidInput(f"there is no task {task_id!r}; see: mesos-actor tasks")
    if len({row["framework_id"] for row in rows}) > 1:
        names = ", ".join(sorted({row["framework_id"] for row in rows}))
        raise InvalidInput(f"task {task_id!r} exists in several frameworks; choose one with --framework: {names}")
    return max(rows, key=lambda row: row["launched_us"])


async def _log_pieces(
    client: Client, task_id: str, framework_id: str, path: str, follow: bool, tail_bytes: int
) -> AsyncIterator[bytes]:
    task = await find_task(client, task_id, framework_id)
    if not task["agent_address"] or not task["container_id"]:
        raise InvalidInput(f"task {task_id!r} has no sandbox to read from; it is {task['state']}")
    offset = -tail_bytes if tail_bytes else 0
    wait_s = FOLLOW_LEAST_S
    ended = not follow
    while True:
        message = ReadFile(
            container_id=ContainerId(task["container_id"]),
            framework_id=FrameworkId(task["framework_id"]),
            path=path,
            offset_bytes=offset,
            length_bytes=LOG_CHUNK_BYTES,
            operation_id=new_id(),
        )
        try:
            piece = await client.read_file(Address(task["agent_address"]), message)
        except Unavailable:
            there, task = task, await find_task(client, task_id, task["framework_id"])
            if task["agent_address"] == there["agent_address"]:
                raise
            continue  # the agent was started again, elsewhere
        if piece.error:
            raise InvalidInput(f"{path} of {task_id}: {piece.error}")
        if piece.data:
            offset, wait_s = piece.offset_bytes + len(piece.data), FOLLOW_LEAST_S
            yield piece.data
            continue
        offset = max(offset, piece.offset_bytes)
        if ended:
            return
        task = await find_task(client, task_id, task["framework_id"])
        ended = task["state"] in TERMINAL
        await asyncio.sleep(0 if ended else wait_s)
        wait_s = min(FOLLOW_MOST_S, wait_s * 2)
