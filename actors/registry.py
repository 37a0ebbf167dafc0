"""The registry on one disk: it applies commands one by one and keeps what they change before it answers.

The master next to it knows only the messages (messages/registry.py); a replicated group can stand here instead. Because
an answer is a Send after a Persist, the runtime holds it back until the records are on the disk.
"""

from __future__ import annotations

from mesos_actor.actors.actor import Actor, Context, handles
from mesos_actor.actors.core.registry import (
    MAX_AGENTS,
    MAX_FRAMEWORKS,
    Applied,
    RegistryState,
    apply,
    key_of,
)
from mesos_actor.actors.ids import Address, ClusterId, local
from mesos_actor.actors.messages.clients import WhoLeads
from mesos_actor.actors.messages.registry import Committed, Leading, ProposalRefused, Propose
from mesos_actor.actors.messages.scheduler import Refused


class RegistryActor(Actor):
    """Leads from its start, in a term one higher than ever before, and tells the master so.

    It obeys its own process only: whoever sits behind the network asks the master.
    """

    def __init__(
        self,
        max_agents: int = MAX_AGENTS,
        max_frameworks: int = MAX_FRAMEWORKS,
        master: Address = local("master"),  # noqa: B008 (a constant string)
    ) -> None:
        self.master = master
        self.state = RegistryState(max_agents, max_frameworks)
        self.index = 0

    def on_start(self, ctx: Context) -> None:
        self.state = RegistryState.load(ctx.recovered, self.state.max_agents, self.state.max_frameworks)
        cluster = self.state.lead(ClusterId(f"{ctx.rng.getrandbits(64):016x}"))
        ctx.persist(key_of(cluster), cluster)
        ctx.send(self.master, self._leading())
        ctx.log("registry_leads", cluster=cluster.cluster_id, term=cluster.term, agents=len(self.state.agents))

    @handles(WhoLeads)
    def on_who_leads(self, ctx: Context, sender: Address, message: WhoLeads) -> None:
        """A master that was restarted alone asks for what it missed."""
        if self._is_local(ctx, sender, message.operation_id, "WhoLeads"):
            ctx.send(sender, self._leading())

    @handles(Propose)
    def on_propose(self, ctx: Context, sender: Address, message: Propose) -> None:
        if not self._is_local(ctx, sender, message.operation_id, "Propose"):
            return
        assert self.state.cluster is not None
        term = self.state.cluster.term
        if message.term != term:
            text = f"Proposed in term {message.term}, but it is term {term}"
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
        cluster = self.state.cluster
        assert cluster is not None
        return Leading(cluster.term, cluster.cluster_id, self.state.records())

    def _is_local(self, ctx: Context, sender: Address, operation_id: str, about: str) -> bool:
        if ctx.principal == "local":
            return True
        ctx.warn("unauthorized", sender=sender, principal=ctx.principal, about=about)
        ctx.send(sender, Refused("unauthorized", "The registry obeys its own process only", about=about))
        return False
