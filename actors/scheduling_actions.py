"""What a framework's author asks for, turned into messages: one half of the driver (the other: `scheduling.py`).

Each method here runs inside a callback only; `Framework` sees to that. Whatever is remembered is bounded by a name
below; past a bound the author's call raises LocalError, which ends the run unless the author catches it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mesos_actor.actors.actor import SECOND_US, Context
from mesos_actor.actors.callbacks import CallbackActor, Host
from mesos_actor.actors.core.deliveries import Deliveries
from mesos_actor.actors.core.reconcile_run import ReconcileRun
from mesos_actor.actors.core.repeats import Repeats
from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.framework import Framework, KnownTask
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    Node,
    OfferId,
    OperationId,
    Role,
    TaskId,
    address,
)
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import FileData, ReadFile
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.messages.scheduler import (
    Accept,
    Acknowledge,
    Decline,
    Instruction,
    InstructionDone,
    Kill,
    Reconcile,
    RequestDemand,
    Revive,
    Suppress,
    Teardown,
    ToExecutor,
    Unsubscribe,
)
from mesos_actor.actors.messages.values import Demand, Filters, Launch, Offer, Status
from mesos_actor.actors.scheduling_sizes import MAX_ACCEPT_BYTES, check_readable, encoded
from mesos_actor.actors.task import Reason, Source, TaskState

MAX_TASKS = 1_000_000
"""Tasks of one framework that have not ended (the master's own default limit)."""
MAX_OPERATIONS = 10_000
"""Operations and file reads without an answer, each."""
MAX_KEPT = 100_000
"""Records an author may keep."""
MAX_KEPT_BYTES = 1 << 20
"""The longest record an author may keep."""
MAX_KEY_LENGTH = 255
MAX_OUTCOME_LENGTH = 1_000

TEARDOWN_RETRY_US = SECOND_US
TEARDOWN_LIMIT_US = 10 * SECOND_US
"""How long `stop` waits for the master to confirm; then the run ends and the failover timeout decides."""

KILL_REPEAT_US = 10 * SECOND_US
KILL_REPEAT_MAX_US = 300 * SECOND_US
"""A kill is repeated after so long, then ever more slowly, until its task has ended."""
WISH_REPEAT_US = 2 * SECOND_US
WISH_REPEAT_MAX_US = 60 * SECOND_US
"""(The same for what the master confirms: revive, suppress and demands.)"""

DEMAND = Role("")
"""Stands for the demands among the roles whose wishes the master has not confirmed."""

USER_KEY = "user/"


class FrameworkActions(CallbackActor):
    """State of a driver and the actions on it."""

    author: Framework

    def __init__(self, framework: Framework, host: Host | None = None) -> None:
        super().__init__(framework, host)
        self.framework_id = FrameworkId("")
        #: The leading master's mailbox while it answers, else empty.
        self.leader = Address("")
        #: Offers that stand, to their agents.
        self.offers: dict[OfferId, AgentId] = {}
        #: Where agents' processes are, as offers told.
        self.agents: dict[AgentId, Node] = {}
        #: Tasks that have not ended.
        self.tasks: dict[TaskId, KnownTask] = {}
        #: Kills asked for whose tasks have not ended; sent again after every re-registration.
        self.kills: dict[TaskId, Kill] = {}
        self.kill_times: Repeats[TaskId] = Repeats(KILL_REPEAT_US, KILL_REPEAT_MAX_US)
        #: Tasks that were launched and of which nothing was heard, to when that was; the oldest first.
        self.silent: dict[TaskId, int] = {}
        #: Operations without an answer, to when they were asked for.
        self.operations: dict[OperationId, int] = {}
        #: File reads without an answer, to the process asked and when.
        self.reads: dict[OperationId, tuple[Node, int]] = {}
        #: Roles (and DEMAND) whose state the master has not confirmed, to the newest question about it.
        self.wishes: dict[Role, OperationId] = {}
        self.wish_times: Repeats[Role] = Repeats(WISH_REPEAT_US, WISH_REPEAT_MAX_US)
        #: Whether roles were revived or suppressed while no master was there to hear it.
        self.unsaid = False
        #: Whether the timer is set that looks for what is late.
        self.looking = False
        #: Tasks of which only a reconciliation told that they ended, to their container: older news may still come.
        self.over: dict[TaskId, ContainerId] = {}
        self.deliveries = Deliveries()
        self.reconciling = ReconcileRun()
        self.suppressed: dict[Role, None] = {}
        self.demands: tuple[Demand, ...] = ()
        self.kept: dict[str, bytes] = {}
        #: Callbacks owed to the author from within an action, made after the present one has returned.
        self.owed: list[tuple[str, Any]] = []
        self.teardown: Teardown | None = None
        #: when the leader was last heard, and last asked whether it still serves us
        self.heard_us = 0
        self.probed_us = 0
        self._reads_asked = 0
        self._wishes_made = 0

    # -- offers -----------------------------------------------------------------------------------------------------

    def accept(self, offers: Sequence[Offer | OfferId], operations: Sequence[Launch], refuse_ms: int) -> None:
        self._going_on()
        if not any(operation.tasks for operation in operations):
            return self.decline(offers, refuse_ms, "")
        ids = tuple(_offer_id(offer) for offer in offers)
        if not ids:
            raise LocalError("accept: no offers given")
        agents = {self.offers.get(i) or _agent_of(offer) for i, offer in zip(ids, offers, strict=True)}
        agents.discard(AgentId(""))
        if len(agents) > 1:
            raise LocalError(
                f"accept: the offers are of {len(agents)} agents; accept those of each agent by themselves"
            )
        agent = agents.pop() if agents else AgentId("")
        message = Accept(self.framework_id, ids, tuple(operations), Filters(refuse_ms))
        check_readable("accept", encoded("accept", message, MAX_ACCEPT_BYTES), Accept)
        self._remember_launch(agent, operations)
        for offer_id in ids:
            self.offers.pop(offer_id, None)
        if self.leader:
            self._tell(message)
        else:
            self._drop(agent, operations)

    def _remember_launch(self, agent: AgentId, operations: Sequence[Launch]) -> None:
        tasks = [task for operation in operations for task in operation.tasks]
        wanted = {task.task_id for task in tasks}
        if len(wanted) < len(tasks):
            raise LocalError("accept: two of the tasks have the same id; every task needs its own")
        taken = next((task.task_id for task in tasks if task.task_id in self.tasks), None)
        if taken is not None:
            raise LocalError(f"accept: a task {taken!r} has not ended yet; give the new one another id")
        if len(self.tasks) + len(wanted) > MAX_TASKS:
            raise LocalError(f"accept: more than {MAX_TASKS} tasks that have not ended")
        self._expect(*(operation.operation_id for operation in operations))
        for task in tasks:
            self.tasks[task.task_id] = KnownTask(agent, TaskState.STAGING)
            self.silent[task.task_id] = self.ctx.now_us
            if self.over:
                self.over.pop(task.task_id, None)

    def _drop(self, agent: AgentId, operations: Sequence[Launch]) -> None:
        """No master: the offers are void, and nobody else would ever say so."""
        text = "Task launched with invalid offers: no master is connected"
        for operation in operations:
            for task in operation.tasks:
                status = Status(
                    task.task_id,
                    TaskState.DROPPED,
                    Source.MASTER,
                    Reason.INVALID_OFFERS,
                    text,
                    agent,
                    timestamp_us=self.ctx.now_us,
                )
                self._owe("on_update", status)

    def decline(self, offers: Sequence[Offer | OfferId], refuse_ms: int, why: str) -> None:
        self._going_on()
        ids = tuple(i for i in map(_offer_id, offers) if self.offers.pop(i, None) is not None)
        if ids:
            self._tell(Decline(self.framework_id, ids, Filters(refuse_ms), why))

    def revive(self, roles: Sequence[Role]) -> None:
        self._going_on()
        for role in roles or tuple(self.suppressed):
            self.suppressed.pop(role, None)
        self._tell(Revive(self.framework_id, tuple(roles), self._wish(roles or self._own_roles())))

    def suppress(self, roles: Sequence[Role]) -> None:
        self._going_on()
        roles = tuple(roles)
        self.suppressed.update(dict.fromkeys(roles or self._own_roles()))
        self._tell(Suppress(self.framework_id, roles, self._wish(roles or self._own_roles())))

    def request_demand(self, demands: Sequence[Demand]) -> None:
        self._going_on()
        wanted = tuple(demands)
        encoded("request_demand", RequestDemand(self.framework_id, wanted))
        self.demands = wanted
        self._tell(RequestDemand(self.framework_id, self.demands, self._wish((DEMAND,))))

    def _own_roles(self) -> tuple[Role, ...]:
        return tuple(Role(role) for role in self.author.roles)

    def _wish(self, roles: Sequence[Role], again: bool = False) -> OperationId:
        """The id under which the master confirms what it is told next about these roles; it is told until it does.
        Without a master nothing is: that is made up for after the subscription."""
        if not self.leader:
            self.unsaid = self.unsaid or roles != (DEMAND,)
            return OperationId("")
        self._wishes_made += 1
        operation_id = OperationId(f"driver-{self._wishes_made}")
        for role in roles:
            self.wishes[role] = operation_id
            if not again:
                self.wish_times.expect(role, self.ctx.now_us)
        return operation_id

    def _wish_answered(self, operation_id: OperationId) -> bool:
        """Whether this confirms a wish, which then need not be repeated; one that was overtaken by another goes on."""
        if not operation_id.startswith("driver-"):
            return False
        for role in [role for role, asked in self.wishes.items() if asked == operation_id]:
            del self.wishes[role]
            self.wish_times.settle(role)
        return True

    # -- tasks ------------------------------------------------------------------------------------------------------

    def kill(self, task_id: TaskId, agent_id: AgentId, grace_ms: int, operation_id: OperationId) -> None:
        self._going_on()
        if task_id not in self.kills and len(self.kills) >= MAX_TASKS:
            raise LocalError(f"kill: more than {MAX_TASKS} kills of tasks that have not ended")
        known = self.tasks.get(task_id)
        message = Kill(
            self.framework_id, task_id, agent_id or (known.agent_id if known else AgentId("")), grace_ms, operation_id
        )
        encoded("kill", message)
        self._expect(operation_id)
        self.kills[task_id] = message
        self.kill_times.expect(task_id, self.ctx.now_us)
        self._tell(message)

    def acknowledge(self, status: Status) -> None:
        self._going_on()
        self._acknowledge(self.ctx, status)

    def _acknowledge(self, ctx: Context, status: Status) -> None:
        """Without a master the note stays here: the update comes again and is answered then."""
        if status.update_id:
            self.deliveries.acknowledge(status.update_id)
            if self.leader:
                ctx.send(self.leader, Acknowledge(self.framework_id, status.agent_id, status.task_id, status.update_id))

    def reconcile(self, tasks: Mapping[TaskId, AgentId] | None) -> None:
        self._going_on()
        if tasks is None:
            self._tell(Reconcile(self.framework_id))
            return
        if len(self.reconciling.remaining) + len(tasks) > MAX_TASKS:
            raise LocalError(f"reconcile: more than {MAX_TASKS} tasks without an answer")
        self.reconciling.add(tasks)
        self._ask_again(self.ctx)

    def _ask_again(self, ctx: Context) -> None:
        """Send the questions of the reconciliation that is under way, and the next time."""
        if self.leader and self.reconciling.remaining:
            for question in self.reconciling.questions():
                ctx.send(self.leader, Reconcile(self.framework_id, question))
            ctx.set_timer("reconcile", self.reconciling.pause_us())

    def message(self, agent_id: AgentId, executor_id: ExecutorId, data: bytes) -> None:
        self._going_on()
        message = ToExecutor(self.framework_id, agent_id, executor_id, data)
        encoded("message", message)
        self._tell(message)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def read_file(
        self, status: Status, path: str, offset_bytes: int, length_bytes: int, operation_id: OperationId
    ) -> None:
        self._going_on()
        self._reads_asked += 1
        asked = operation_id or OperationId(f"read-{self._reads_asked}")
        if asked not in self.reads and len(self.reads) >= MAX_OPERATIONS:
            raise LocalError(f"read_file: {MAX_OPERATIONS} reads have no answer yet")
        node = self.agents.get(status.agent_id)
        if node is None:
            text = f"no offer told where agent {status.agent_id!r} is"
            self._owe("on_file", FileData(asked, offset_bytes, 0, error=text))
            return
        self.reads[asked] = (node, self.ctx.now_us)
        self.ctx.watch(node)
        self.ctx.send(
            address(node, "agent"),  # whose sandbox answers to nobody else
            ReadFile(status.container_id, self.framework_id, path, offset_bytes, length_bytes, asked),
        )

    def answer(self, instruction: Instruction, ok: bool, reason: str, text: str, data: bytes) -> None:
        self._going_on()
        done = InstructionDone(
            self.framework_id, instruction.reply_to, instruction.operation_id, ok, reason, text, data
        )
        encoded("answer", done)
        self._tell(done)

    def persist(self, key: str, data: bytes | None) -> None:
        self._going_on()
        if not key or len(key) > MAX_KEY_LENGTH:
            raise LocalError(f"persist: the key {key[:40]!r} has {len(key)} characters; use 1 to {MAX_KEY_LENGTH}")
        if data is None:
            self.kept.pop(key, None)
            self.ctx.persist(USER_KEY + key, None)
            return
        if len(data) > MAX_KEPT_BYTES:
            raise LocalError(f"persist: {len(data)} bytes under {key!r}; at most {MAX_KEPT_BYTES}, split them")
        if key not in self.kept and len(self.kept) >= MAX_KEPT:
            raise LocalError(f"persist: {MAX_KEPT} records are kept already; forget some with persist(key, None)")
        self.kept[key] = bytes(data)
        self.ctx.persist(USER_KEY + key, UserRecord(self.kept[key]))

    def stop(self, failover: bool, outcome: str) -> None:
        self._going_on()
        if failover:
            self._depart(self.ctx)
            self._end(self.ctx, "stopped, to be taken up again")
        elif not self.framework_id:
            self._end(self.ctx, "stopped before it was registered")
        else:
            self._tear_down(self.ctx, outcome)

    def _tear_down(self, ctx: Context, outcome: str) -> None:
        """From now on only the end is seen to."""
        operation = OperationId(f"teardown-{ctx.rng.getrandbits(64):016x}")
        self.teardown = Teardown(self.framework_id, operation, outcome[:MAX_OUTCOME_LENGTH])
        if self.leader:
            ctx.send(self.leader, self.teardown)
        ctx.set_timer("teardown", TEARDOWN_RETRY_US)
        ctx.set_timer("teardown-limit", TEARDOWN_LIMIT_US)

    # -- shared -----------------------------------------------------------------------------------------------------

    def _going_on(self) -> None:
        if self.ended or self.teardown is not None:
            raise LocalError("the framework was stopped; nothing can be asked for after stop()")

    def _tell(self, message: Message) -> None:
        """To the leading master if there is one. Without: what matters later is remembered and sent then."""
        if self.leader:
            self.ctx.send(self.leader, message)

    def _expect(self, *operation_ids: OperationId) -> None:
        """Note that `on_operation` is owed for these ids, all or none; an empty one expects nothing."""
        wanted = [operation_id for operation_id in operation_ids if operation_id]
        if wanted and not self.leader:
            raise LocalError(f"operation_id {wanted[0]!r}: no master is connected; wait for on_registered")
        taken = next((i for i in wanted if i in self.operations or wanted.count(i) > 1), None)
        if taken is not None:
            raise LocalError(f"operation_id {taken!r} has no answer yet; give each operation its own")
        if len(self.operations) + len(wanted) > MAX_OPERATIONS:
            raise LocalError(f"more than {MAX_OPERATIONS} operations without an answer")
        self.operations.update(dict.fromkeys(wanted, self.ctx.now_us))

    def _owe(self, callback: str, argument: Any) -> None:
        self.owed.append((callback, argument))
        self.ctx.set_timer("owed", 0)

    def _depart(self, ctx: Context) -> None:
        if self.leader:
            ctx.send(self.leader, Unsubscribe(self.framework_id))

    def _end(self, ctx: Context, reason: str) -> None:
        super()._end(ctx, reason)
        self.leader, self.author.connected = Address(""), False

    def _fail(self, error: Exception) -> None:
        super()._fail(error)
        self.leader, self.author.connected = Address(""), False

    def _stop_asked(self, ctx: Context, failover: bool) -> None:
        if not self.ended and self.teardown is None:
            self.ctx = ctx
            self.stop(failover, "stopped")

    def _silent(self) -> bool:
        return self.teardown is not None


def _offer_id(offer: Offer | OfferId) -> OfferId:
    return offer.offer_id if isinstance(offer, Offer) else offer


def _agent_of(offer: Offer | OfferId) -> AgentId:
    return offer.agent_id if isinstance(offer, Offer) else AgentId("")
