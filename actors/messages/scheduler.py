"""Between a framework and the master. (Mesos: scheduler.proto; docs/scheduler-http-api.md)"""

from __future__ import annotations

from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    ContainerId,
    ExecutorId,
    FrameworkId,
    OfferId,
    OperationId,
    Role,
    TaskId,
    Term,
    UpdateId,
)
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.values import Demand, Filters, FrameworkInfo, Launch, Offer, Status

# -- framework to master --------------------------------------------------------------------------------------------


class Subscribe(Message, frozen=True):
    """Let me take part. Without an id: as a new framework; with one: as the one I was. The newest connection wins."""

    info: FrameworkInfo
    framework_id: FrameworkId = FrameworkId("")
    suppressed_roles: tuple[Role, ...] = ()
    operation_id: OperationId = OperationId("")
    """Chosen once per new framework and repeated on a retry, so that a lost answer does not make two frameworks."""
    incarnation: int = 0
    """Higher in each process of a framework: a late word of a dead one does not drive out its successor."""


class Accept(Message, frozen=True):
    """Use these offers, all of one agent and role, for these operations in order; decline the rest with `filters`."""

    framework_id: FrameworkId
    offer_ids: tuple[OfferId, ...]
    operations: tuple[Launch, ...] = ()
    filters: Filters = Filters()


class Decline(Message, frozen=True):
    """Give these offers back. Ids that are no longer valid are ignored."""

    framework_id: FrameworkId
    offer_ids: tuple[OfferId, ...]
    filters: Filters = Filters()
    text: str = ""
    """Why, for whoever asks `why`; the master keeps the first 200 characters of the newest."""


class Revive(Message, frozen=True):
    """Forget my filters and offer me resources of these roles again; empty: all my roles."""

    framework_id: FrameworkId
    roles: tuple[Role, ...] = ()
    operation_id: OperationId = OperationId("")
    """When set, the master confirms with an OperationResult; without that the framework says it again."""


class Suppress(Message, frozen=True):
    """Send me no offers for these roles until I revive; empty: all my roles."""

    framework_id: FrameworkId
    roles: tuple[Role, ...] = ()
    operation_id: OperationId = OperationId("")


class RequestDemand(Message, frozen=True):
    """What I wait for, replacing what I said before; the allocator then bounds how long I wait. Empty: nothing."""

    framework_id: FrameworkId
    demands: tuple[Demand, ...] = ()
    operation_id: OperationId = OperationId("")


class Kill(Message, frozen=True):
    """End this task. Repeating it may only shorten the grace. `grace_ms` < 0: the task's own."""

    framework_id: FrameworkId
    task_id: TaskId
    agent_id: AgentId = AgentId("")
    grace_ms: int = -1
    operation_id: OperationId = OperationId("")


class Acknowledge(Message, frozen=True):
    """I have safely taken note of this reliable update; send the next."""

    framework_id: FrameworkId
    agent_id: AgentId
    task_id: TaskId
    update_id: UpdateId


class Reconcile(Message, frozen=True):
    """Tell me the state of these tasks, given as (task, agent or empty); an empty list: of all my live tasks."""

    framework_id: FrameworkId
    tasks: tuple[tuple[TaskId, AgentId], ...] = ()


class Heartbeat(Message, frozen=True):
    """Am I still subscribed? Asked by a framework that has heard nothing for long; the leader that serves it sends the
    same back, any other master a refusal. (Mesos has its master send HEARTBEAT events to frameworks, every 15 s.)"""

    framework_id: FrameworkId


class ToExecutor(Message, frozen=True):
    """Opaque bytes for a custom executor, at most once. Also travels from master to agent and agent to executor."""

    framework_id: FrameworkId
    agent_id: AgentId
    executor_id: ExecutorId
    data: bytes


class Teardown(Message, frozen=True):
    """End this framework: kill its tasks, forget it. From the framework itself or an operator."""

    framework_id: FrameworkId
    operation_id: OperationId = OperationId("")
    outcome: str = ""
    """How it ended, for whoever asks later: `finished`, or `failed: <why>`. At most 1 KiB is kept."""


class Unsubscribe(Message, frozen=True):
    """I am going away for now; start my failover timeout at once instead of waiting for the link to end."""

    framework_id: FrameworkId


class InstructionDone(Message, frozen=True):
    """A framework's answer to an Instruction; the master gives `result` on to `reply_to` as an OperationResult."""

    framework_id: FrameworkId
    reply_to: Address
    operation_id: OperationId
    ok: bool
    reason: str = ""
    text: str = ""
    data: bytes = b""


# -- master to framework --------------------------------------------------------------------------------------------


class Subscribed(Message, frozen=True):
    """You take part; offers follow."""

    framework_id: FrameworkId
    cluster_id: ClusterId
    term: Term
    operation_id: OperationId = OperationId("")


class Offers(Message, frozen=True):
    """New offers, each of one agent and one of your roles."""

    offers: tuple[Offer, ...]


class Rescind(Message, frozen=True):
    """These offers are void: `reason` is one of `agent-lost`, `timed-out`, `disconnected`, `quota`, `failover`."""

    offer_ids: tuple[OfferId, ...]
    reason: str = ""


class Update(Message, frozen=True):
    """News of a task. Also travels from agent to master. Acknowledge it when `status.update_id` is set."""

    framework_id: FrameworkId
    status: Status
    latest_state: str = ""
    """Agent to master only: the newest state of the stream, so that resources come free although `status` is older."""
    agent_address: Address = Address("")
    """Master to framework only: where the task's agent is now. It moves when it is started again."""


class FromExecutor(Message, frozen=True):
    """Opaque bytes from a custom executor, at most once. Travels executor to agent to master to framework."""

    framework_id: FrameworkId
    agent_id: AgentId
    executor_id: ExecutorId
    data: bytes


class AgentLost(Message, frozen=True):
    """An agent is unreachable or gone; updates for its tasks follow or went before."""

    agent_id: AgentId


class ExecutorLost(Message, frozen=True):
    """A custom executor of yours has ended."""

    agent_id: AgentId
    executor_id: ExecutorId
    exit_status: int | None = None
    signal: int | None = None
    framework_id: FrameworkId = FrameworkId("")
    container_id: ContainerId = ContainerId("")


class Instruction(Message, frozen=True):
    """An operator asks this framework for something in its own words; answer with InstructionDone."""

    operation_id: OperationId
    reply_to: Address
    data: bytes


class OperationResult(Message, frozen=True):
    """The answer to an operation that carried an id: `ok`, or a machine-readable `reason` with a text for people."""

    operation_id: OperationId
    ok: bool
    reason: str = ""
    text: str = ""
    data: bytes = b""


ASK_ELSEWHERE = frozenset({"not-leading", "deposed"})
"""Reasons of Refused after which another master should be asked."""
OTHER_TERM = "other-term"
"""Reason of Refused of a RegisterAgent that was not meant for this term of the leader."""


class Refused(Message, frozen=True):
    """Your message was not acted on. `fatal`: you no longer take part (removed, failed over, not authorized).

    Reasons: `not-leading` (then `leader` says who does, if known), `not-subscribed`, `removed`, `failed-over`,
    `invalid`, `unauthorized`, `malformed`, `unknown-message`, `full`, `other-term` (of a RegisterAgent).
    After two more it may have been acted on all the same: `unavailable` (no answer in time) and `deposed` (this master
    lost the lead before it knew; `leader` as above). Asking again under the same operation id is always harmless:
    whoever leads does it once.
    """

    reason: str
    text: str
    fatal: bool = False
    leader: Address = Address("")
    operation_id: OperationId = OperationId("")
    about: str = ""
    """The class of the message that was refused."""
    term: Term = Term(0)
    """In which `leader` leads; 0: not known."""


class Posted(Message, frozen=True):
    """Values wait in the `post` queue of a framework or executor. Made and met within one process only."""
