"""The built-in batch scheduler: an ordinary framework that runs one `BatchSpec` to its end."""

from __future__ import annotations

from collections.abc import Sequence

from mesos_actor.actors.framework import DEFAULT_REFUSE_S, Framework
from mesos_actor.actors.frameworks.batch_state import BatchState
from mesos_actor.actors.frameworks.specs import BatchSpec, duration_ms
from mesos_actor.actors.ids import AgentId, FrameworkId, Role, TaskId
from mesos_actor.actors.messages.values import Demand, Offer, Status, Task
from mesos_actor.actors.task import must_be_killed

OUTCOME = "outcome"
"""The key under which a batch keeps how it ended, so that a resumed one does not begin again."""


class Batch(Framework):
    """Runs a batch. `state.outcome` is empty until the end, then `finished` or `failed: …`, and the run stops.

    What an instance's launch depends on is kept before the launch leaves, so a batch that is started again with the
    same state directory goes on where it was and runs no finished instance twice.
    """

    def __init__(self, spec: BatchSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.roles = (spec.role,)
        self.failover_timeout_s = duration_ms(spec.failover_timeout, "failover_timeout") / 1000
        self.labels = {"mesos-actor/kind": "batch"}
        self.state = BatchState(spec)
        #: The groups whose demand was declared last, and how many instances had come back to be run again by then.
        self.declared: tuple[tuple[str, ...], int] = ((), 0)
        self.suppressed = False

    # -- what a subclass may watch ----------------------------------------------------------------------------------

    def on_launched(self, tasks: Sequence[Task], offer: Offer) -> None:
        """These tasks were sent to the agent of `offer`."""

    def on_progress(self, status: Status) -> None:
        """The batch has taken note of this update."""

    def on_outcome(self, outcome: str) -> None:
        """The batch is over; the run stops next."""

    # -- the framework ----------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.state = BatchState(self.spec, self.kept)
        if OUTCOME in self.kept:
            self.state.outcome = self.kept[OUTCOME].decode()

    def on_registered(self, framework_id: FrameworkId) -> None:
        if self.state.outcome:
            self._finish()
            return
        launched = dict(self.state.launched())
        if launched:
            self.reconcile(launched)
        self.declared, self.suppressed = ((), 0), False
        self._declare()

    def on_offers(self, offers: Sequence[Offer]) -> None:
        for offer in offers:
            tasks = self.state.place(offer)
            self._keep()
            if tasks:
                self.accept(offer, tasks, refuse_s=0 if self.state.cut_short else DEFAULT_REFUSE_S)
                self.on_launched(tasks, offer)
            else:
                self.decline(offer, why=self.state.refusal(offer))
        self._go_on()

    def on_update(self, status: Status) -> None:
        known = self.state.note(status)
        self._keep()
        if known:
            self.on_progress(status)
        elif status.agent_id and must_be_killed(status.state):
            self.kill(status.task_id, status.agent_id)
        self._go_on()

    def _go_on(self) -> None:
        if self.state.outcome:
            self._finish()
        else:
            self._declare()

    def _declare(self) -> None:
        """Say what is waited for when there is more of it than was said; ask for silence when nothing is. (What was
        launched counts against what was said last: an instance that must be run again is not among it any more.)"""
        waiting = tuple(name for name, group in self.state.groups.items() if group.ready)
        wanted = (waiting, self.state.returned)
        if wanted == self.declared and self.suppressed == (not waiting):
            return
        self.declared = wanted
        if waiting:
            groups = [self.state.groups[name] for name in waiting]
            self.request_demand(Demand(Role(self.spec.role), g.resources, len(g.ready)) for g in groups)
            if self.suppressed:
                self.revive()
        else:
            self.suppress()
        self.suppressed = not waiting

    def _finish(self) -> None:
        self.persist(OUTCOME, self.state.outcome.encode())
        self.on_outcome(self.state.outcome)
        self.stop(outcome=self.state.outcome)

    def _keep(self) -> None:
        for key, data in self.state.take_changes():
            self.persist(key, data)

    # -- questions --------------------------------------------------------------------------------------------------

    def where(self, task_id: str) -> AgentId:
        """The agent of a task that is thought to run; empty when it is not."""
        return dict(self.state.launched()).get(TaskId(task_id), AgentId(""))
