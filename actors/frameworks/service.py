"""The built-in service scheduler: an ordinary framework that keeps N copies of one task running.

It takes instructions from operators as JSON objects: `{"do": "apply", "spec": {…}}`, `{"do": "scale", "instances": N}`,
`{"do": "remove"}` and `{"do": "show"}`; every one is answered with the service as it then stands.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.framework import Framework
from mesos_actor.actors.frameworks.service_state import ServiceState
from mesos_actor.actors.frameworks.specs import ServiceSpec, duration_ms, service_spec
from mesos_actor.actors.ids import FrameworkId, Role
from mesos_actor.actors.messages.scheduler import Instruction
from mesos_actor.actors.messages.values import Demand, Offer, Status, Task
from mesos_actor.actors.task import must_be_killed

_WAKE = "wake"


class Service(Framework):
    """Keeps a service running until it is removed. Started again with the same state directory, it goes on with what
    was last asked of it, not with the spec it was first made from."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.name = spec.name
        self.roles = (spec.role,)
        self.failover_timeout_s = duration_ms(spec.failover_timeout, "failover_timeout") / 1000
        self.labels = {"mesos-actor/kind": "service"}
        self.state = ServiceState(spec)
        self.suppressed = False
        self.declared = 0

    # -- what a subclass may watch ----------------------------------------------------------------------------------

    def on_launched(self, tasks: Sequence[Task], offer: Offer) -> None:
        """These tasks were sent to the agent of `offer`."""

    def on_progress(self, status: Status) -> None:
        """The service has taken note of this update."""

    # -- the framework ----------------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self.state = ServiceState(self.spec, self.kept)

    def on_registered(self, framework_id: FrameworkId) -> None:
        launched = dict(self.state.launched())
        if launched:
            self.reconcile(launched)
        self.suppressed, self.declared = False, 0
        self._go_on()

    def on_offers(self, offers: Sequence[Offer]) -> None:
        now_us = self._now_us()
        for number, offer in enumerate(offers):
            # Copies spread: each offer gets its part of what is missing, rounded up.
            missing = len(self.state.empty_places(now_us))
            tasks = self.state.place(offer, now_us, -(-missing // (len(offers) - number)))
            self._keep()
            if tasks:
                self.accept(offer, tasks)
                self.on_launched(tasks, offer)
            else:
                self.decline(offer, why=self.state.refusal(offer) or "")
        self._go_on()

    def on_update(self, status: Status) -> None:
        known = self.state.note(status, self._now_us())
        self._keep()
        if known:
            self.on_progress(status)
        elif status.agent_id and must_be_killed(status.state):
            self.kill(status.task_id, status.agent_id)
        self._go_on()

    def on_timer(self, name: str) -> None:
        self._go_on()

    # -- operators --------------------------------------------------------------------------------------------------

    def on_instruction(self, instruction: Instruction) -> None:
        try:
            wanted = json.loads(instruction.data)
            if not isinstance(wanted, dict):
                raise InvalidInput("an instruction is a JSON object")
            self._obey(wanted)
        except (ValueError, InvalidInput) as error:
            self.answer(instruction, ok=False, reason="invalid", text=str(error))
            return
        self._keep()
        self.answer(instruction, ok=True, data=json.dumps(self.show(self._now_us())).encode())
        self._go_on()

    def _obey(self, wanted: dict[str, Any]) -> None:
        match wanted:
            case {"do": "apply", "spec": spec}:
                parsed = service_spec(spec)
                if parsed.name != self.name or parsed.role != self.spec.role:
                    raise InvalidInput(
                        f"name and role of a service stay as they are ({self.name!r}, {self.spec.role!r}); "
                        "remove it and apply the new one"
                    )
                self.state.apply(parsed)
            case {"do": "scale", "instances": int(instances)}:
                self.state.scale(instances)
            case {"do": "remove"}:
                self.state.remove()
            case {"do": "show"}:
                pass
            case _:
                raise InvalidInput(f"do: {wanted.get('do')!r} is not one of apply, scale, remove, show")

    def show(self, now_us: int) -> dict[str, Any]:
        """The service at this moment, as rows for people and programs."""
        return {
            "name": self.name,
            "framework_id": self.framework_id,
            "version": self.state.version,
            "instances": self.state.spec.instances,
            "running": sum(1 for c in self.state.copies.values() if c.running_since_us and not c.ending),
            "removing": self.state.removing,
            "spec": msgspec.to_builtins(self.state.spec),
            "copies": [
                {
                    "index": copy.index,
                    "task_id": copy.task_id,
                    "agent_id": copy.agent_id,
                    "version": copy.version,
                    "running_since_us": copy.running_since_us,
                    "failures": self.state.failures(copy, now_us),
                    "ports": list(copy.ports),
                }
                for copy in sorted(self.state.copies.values(), key=lambda c: c.index)
                if copy.task_id or copy.index < self.state.spec.instances
            ],
        }

    # -- what follows from the state --------------------------------------------------------------------------------

    def _go_on(self) -> None:
        """End what should end, ask for what is missing, wake up when something changes by itself."""
        now_us = self._now_us()
        for task_id, agent_id in self.state.to_kill(now_us):
            self.kill(task_id, agent_id)
        self._keep()
        if self.state.finished:
            self.stop(outcome="removed")
            return
        missing = len(self.state.empty_places(now_us))
        if missing and (self.suppressed or missing != self.declared):
            self.request_demand([Demand(Role(self.spec.role), self.state.resources, missing)])
            self.revive()
        elif not missing and not self.suppressed:
            self.suppress()
        self.suppressed, self.declared = not missing, missing
        wake_us = self.state.next_wake_us(now_us)
        if wake_us:
            self.set_timer(_WAKE, max(0, wake_us - now_us) / 1_000_000)

    def _keep(self) -> None:
        for key, data in self.state.take_changes():
            self.persist(key, data)

    def _now_us(self) -> int:
        return round(self.now_s * 1_000_000)
