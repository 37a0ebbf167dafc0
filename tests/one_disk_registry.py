"""A registry for tests of the master: one disk, no replicas, the same messages. Every start leads in a new term."""

from __future__ import annotations

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.core.registry import Applied, RegistryState, apply, key_of
from mesos_actor.actors.ids import Address, ClusterId, Role, Term, local
from mesos_actor.actors.messages.clients import WhoLeads
from mesos_actor.actors.messages.registry import (
    Committed,
    FoundCluster,
    Leading,
    ProposalRefused,
    Propose,
    WeightRecord,
)

STARTS = "starts"
"""Where the number of starts is kept, as the weight of a role that nobody has."""


class OneDiskRegistry(Actor):
    """Keeps what a command changes before it answers. `term` is the number of its starts."""

    def __init__(self, master: Address = local("master")) -> None:  # noqa: B008 (a constant string)
        self.master = master
        self.state = RegistryState()
        self.term = Term(0)
        self.index = 0

    def on_start(self, ctx: Context) -> None:
        kept = dict(ctx.recovered)
        starts = kept.pop(STARTS, None)
        self.term = Term(1 + (starts.weight_milli if isinstance(starts, WeightRecord) else 0))
        ctx.persist(STARTS, WeightRecord(Role(STARTS), self.term))
        self.state = RegistryState.load(kept)
        if self.state.cluster is None:
            founded = apply(self.state, FoundCluster(ClusterId(f"{ctx.rng.getrandbits(64):016x}"), (), "", ctx.now_us))
            assert isinstance(founded, Applied)
            for record in founded.records:
                ctx.persist(key_of(record), record)
        ctx.send(self.master, self._leading())

    @handles(WhoLeads)
    def on_who_leads(self, ctx: Context, sender: Address, message: WhoLeads) -> None:
        ctx.send(sender, self._leading())

    @handles(Propose)
    def on_propose(self, ctx: Context, sender: Address, message: Propose) -> None:
        if message.term != self.term:
            text = f"Proposed in term {message.term}, but it is term {self.term}"
            ctx.send(sender, ProposalRefused(message.operation_id, "stale-term", text))
            return
        outcome = apply(self.state, message.command)
        if not isinstance(outcome, Applied):
            ctx.send(sender, ProposalRefused(message.operation_id, outcome.reason, outcome.text))
            return
        for record in outcome.records:
            ctx.persist(key_of(record), record)
        for key in outcome.removed:
            ctx.persist(key, None)
        self.index += 1
        ctx.send(sender, Committed(message.operation_id, self.index, outcome.records, outcome.removed))

    def _leading(self) -> Leading:
        assert self.state.cluster is not None
        return Leading(self.term, self.state.cluster.cluster_id, self.state.records())
