"""The sixth part of the master: what operators and their tools ask for, tasks apart."""

from __future__ import annotations

from mesos_actor.actors.actor import Context, handles
from mesos_actor.actors.core import queries
from mesos_actor.actors.core.pending import Operation
from mesos_actor.actors.ids import Address
from mesos_actor.actors.master_frameworks import may_act_for
from mesos_actor.actors.master_leading import after_commit, request_of
from mesos_actor.actors.master_offers import MasterOffers
from mesos_actor.actors.messages.clients import Instruct, Query, SetRoleWeight
from mesos_actor.actors.messages.registry import Committed, SetWeight, WeightRecord
from mesos_actor.actors.messages.scheduler import Instruction, InstructionDone, OperationResult

MAX_INSTRUCTIONS = 10_000
"""Instructions to frameworks that may wait for an answer; more are refused."""


class MasterOperators(MasterOffers):
    """Weights, instructions and questions."""

    @handles(SetRoleWeight)
    def on_set_role_weight(self, ctx: Context, sender: Address, message: SetRoleWeight) -> None:
        if self.is_operator(ctx, sender, message):
            # Of the orders of operators this alone could undo a later one, should a copy of it come late.
            request_id = f"{ctx.principal} {message.operation_id}" if message.operation_id else ""
            subject = ("weight", message.role, message.weight_milli, request_id)
            command = SetWeight(message.role, message.weight_milli)
            self.propose(ctx, subject, command, request_of(ctx, sender, message), request_id)

    @after_commit(SetWeight)
    def weight_set(self, ctx: Context, operation: Operation, committed: Committed) -> None:
        """Offers of the role were made by the old weight; they are taken back and made again."""
        record = next(r for r in committed.records if isinstance(r, WeightRecord))
        self.set_weight(record)
        below = record.role + "/"
        stale = [
            o.offer.offer_id for o in self.offers.all() if o.offer.role == record.role or o.offer.role.startswith(below)
        ]
        self.rescind(ctx, stale, "quota")
        self.want_allocation(ctx)
        self.answer_done(ctx, operation)

    def set_weight(self, record: WeightRecord) -> None:
        self.roster.weights[record.role] = record.weight_milli
        self.allocator.set_weight(record.role, record.weight_milli)

    @handles(Instruct)
    def on_instruct(self, ctx: Context, sender: Address, message: Instruct) -> None:
        framework = self.roster.frameworks.get(message.framework_id)
        key = (message.framework_id, message.operation_id)
        text = ""
        if framework is None or not framework.connected:
            reason, text = "unavailable", f"Framework {message.framework_id} is not connected"
        elif not may_act_for(framework.info.principal, ctx.principal):
            reason, text = "unauthorized", f"Framework {message.framework_id} belongs to another principal"
        elif len(self.instructions) >= MAX_INSTRUCTIONS and key not in self.instructions:
            reason, text = "full", f"{MAX_INSTRUCTIONS} instructions wait for their frameworks; ask again later"
        else:
            self.instructions[key] = sender
            ctx.send(framework.address, Instruction(message.operation_id, sender, message.data))
            return
        ctx.send(sender, OperationResult(message.operation_id, False, reason, text))

    @handles(InstructionDone)
    def on_instruction_done(self, ctx: Context, sender: Address, message: InstructionDone) -> None:
        """The answer goes to whoever asked, and to nobody else the framework may name."""
        if self.subscribed(ctx, sender, message) is None:
            return
        asker = self.instructions.pop((message.framework_id, message.operation_id), None)
        if asker is not None:
            result = OperationResult(message.operation_id, message.ok, message.reason, message.text, message.data)
            ctx.send(asker, result)

    @handles(Query)
    def on_query(self, ctx: Context, sender: Address, message: Query) -> None:
        view = queries.View(
            self.roster,
            self.offers,
            self.allocator,
            self.cluster_id,
            self.master_id,
            self.term,
            self.leader,
            len(self.pending),
            self.held_removals,
            ctx.now_us,
        )
        result = queries.answer(view, message)
        if isinstance(result, str):
            self.refuse(ctx, sender, message, "invalid", result)
        else:
            ctx.send(sender, result)
