"""The third part of the driver: what was asked for and may have been lost is asked for again, or called unknown.

A link may lose a message without ending. What is told reliably to the driver, agents repeat; this is the other half,
what the driver told. Tasks of which nothing was heard are reconciled, kills and wishes are repeated, and whatever
should have an answer and gets none is answered `unknown` here.
"""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.actor import SECOND_US, Context, handles
from mesos_actor.actors.ids import Address, Role
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import FileData
from mesos_actor.actors.messages.scheduler import Heartbeat, OperationResult, RequestDemand, Revive, Suppress
from mesos_actor.actors.scheduling_actions import DEMAND, FrameworkActions
from mesos_actor.actors.task import TaskState

LOOK_EVERY_US = 2 * SECOND_US
"""How often the driver looks for what is late, while it waits for anything at all."""
SILENCE_US = 15 * SECOND_US
"""A task that was launched this long ago and of which nothing was heard is reconciled."""
HEARTBEAT_US = 15 * SECOND_US
"""A master that was silent for so long is asked whether it still serves this framework, and given up when it says
nothing for as long again (Mesos: DEFAULT_HEARTBEAT_INTERVAL, src/master/constants.hpp)."""
ANSWER_LIMIT_US = 60 * SECOND_US
"""An operation or a file read without an answer for so long will have none."""


class FrameworkDoubts(FrameworkActions):
    """A driver that looks after what it asked for."""

    def on_message(self, ctx: Context, sender: Address, message: Message) -> None:
        if sender == self.leader:
            self.heard_us = ctx.now_us
        super().on_message(ctx, sender, message)
        self._look_out(ctx)

    def on_timer(self, ctx: Context, name: str) -> None:
        super().on_timer(ctx, name)
        self._look_out(ctx)

    def _begin_to_listen(self, ctx: Context) -> None:
        """A leader was found."""
        self.heard_us, self.probed_us = ctx.now_us, 0
        ctx.set_timer("heartbeat", HEARTBEAT_US)

    def _is_heard(self, ctx: Context) -> bool:
        """Ask the leader when it has been silent. False when it did not answer: it may have stopped leading, and its
        word of that be lost, while the link stands."""
        if self.probed_us and self.heard_us < self.probed_us:
            ctx.warn("master_silent", master=self.leader)
            return False
        self.probed_us = 0
        left_us = self.heard_us + HEARTBEAT_US - ctx.now_us
        if left_us <= 0:
            left_us, self.probed_us = HEARTBEAT_US, ctx.now_us
            ctx.send(self.leader, Heartbeat(self.framework_id))
        ctx.set_timer("heartbeat", left_us)
        return True

    @handles(Heartbeat)
    def on_heartbeat(self, ctx: Context, sender: Address, message: Heartbeat) -> None:
        """The master serves us still. That it was heard is noted with every message."""

    def _look_out(self, ctx: Context) -> None:
        """Have `_look` called soon, if there is anything to wait for."""
        if self.looking or self.ended:
            return
        if self.silent or self.operations or self.reads or self.kill_times or self.wish_times:
            self.looking = True
            ctx.set_timer("look", LOOK_EVERY_US)

    def _look(self, ctx: Context) -> None:
        self.looking = False
        if self.leader and self.teardown is None:
            self._ask_about_silent_tasks(ctx)
            for task_id in self.kill_times.due(ctx.now_us):
                ctx.send(self.leader, self.kills[task_id])
            self._repeat_wishes(ctx)
        self._give_up_on_operations(ctx)
        self._give_up_on_reads(ctx)

    def _ask_about_silent_tasks(self, ctx: Context) -> None:
        late = []
        for task_id, launched_us in self.silent.items():
            if launched_us + SILENCE_US > ctx.now_us:
                break
            late.append(task_id)
        for task_id in late:
            del self.silent[task_id]
        asked = {
            t: self.tasks[t].agent_id for t in late if t in self.tasks and self.tasks[t].state is TaskState.STAGING
        }
        if asked:
            self.reconciling.add(asked)
            self._ask_again(ctx)

    def _repeat_wishes(self, ctx: Context) -> None:
        """Say again how things should be now, for what the master has not confirmed."""
        due = self.wish_times.due(ctx.now_us)
        if DEMAND in due:
            ctx.send(self.leader, RequestDemand(self.framework_id, self.demands, self._wish((DEMAND,), again=True)))
        self._say_roles(ctx, [role for role in due if role != DEMAND], again=True)

    def _say_roles(self, ctx: Context, roles: Sequence[Role], again: bool) -> None:
        """Which of these are suppressed, and which are not."""
        quiet = tuple(role for role in roles if role in self.suppressed)
        loud = tuple(role for role in roles if role not in self.suppressed)
        if quiet:
            ctx.send(self.leader, Suppress(self.framework_id, quiet, self._wish(quiet, again)))
        if loud:
            ctx.send(self.leader, Revive(self.framework_id, loud, self._wish(loud, again)))

    def _make_up(self, ctx: Context) -> None:
        """A master is here (again): say what was wished while none was. The subscription that it answers may be older
        than that."""
        self.ctx = ctx
        if self.demands:
            ctx.send(self.leader, RequestDemand(self.framework_id, self.demands, self._wish((DEMAND,))))
        if self.unsaid:
            self.unsaid = False
            self._say_roles(ctx, self._own_roles(), again=False)

    def _give_up_on_operations(self, ctx: Context) -> None:
        late = [i for i, asked_us in self.operations.items() if asked_us + ANSWER_LIMIT_US <= ctx.now_us]
        for operation_id in late:
            del self.operations[operation_id]
        text = f"the master did not answer within {ANSWER_LIMIT_US // SECOND_US} s"
        for operation_id in late:
            if not self._call(ctx, "on_operation", OperationResult(operation_id, False, "unknown", text)):
                return

    def _give_up_on_reads(self, ctx: Context) -> None:
        late = [i for i, (_, asked_us) in self.reads.items() if asked_us + ANSWER_LIMIT_US <= ctx.now_us]
        for operation_id in late:
            del self.reads[operation_id]
        text = f"the agent did not answer within {ANSWER_LIMIT_US // SECOND_US} s; read again"
        for operation_id in late:
            if not self._call(ctx, "on_file", FileData(operation_id, 0, 0, error=text)):
                return
