"""Masters under faults, with operators that write and read the registry and remember what they were told.

`run_seed(seed)` is one whole run: the seed decides the size of the group, the links, the compaction and every fault. It
raises what does not hold: an invariant while it runs, liveness after healing, or the history that operators have seen.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from mesos_actor.actors.ids import OperationId
from mesos_actor.actors.messages.raft import TransferLeadership
from mesos_actor.actors.messages.registry import SetWeight
from mesos_actor.raft.machine import decode_proposal
from mesos_actor.testing import Chances, NetworkSettings, NodeSettings, SeededPlan, SimCluster, WorldSettings, cluster
from mesos_actor.transport.sim.registers import INITIAL, PACE_US, PATIENCE_US, ROLES, History, RegistryUser

OPERATORS = 4
BAD_S = 20.0
HEALED_S = 60.0
"""Within so much virtual time after the last fault all masters must agree, and all operators be served."""
SECOND_US = 1_000_000


class HistoryError(AssertionError):
    """What operators were told cannot be."""


# -- one run ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """All that a seed decides besides the single faults."""

    masters: int
    fifo: bool
    compact_entries: int
    keep_entries: int
    segment_bytes: int
    sync_us: int
    chances: Chances
    faults: int
    early: bool
    """Faults begin while the cluster is being founded."""
    kinds: tuple[str, ...]


KINDS = ("crash", "power", "stop", "pause", "cut", "one-way", "isolate", "deaf", "break", "jump", "transfer", "wipe")


def setting(seed: int) -> Setting:
    """Size, links and compaction go through all combinations; the rest is drawn."""
    rng = random.Random(f"setting {seed}")
    fifo = seed // 2 % 2 == 0
    return Setting(
        masters=(3, 5)[seed % 2],
        fifo=fifo,
        compact_entries=(3, 25, 1 << 30)[seed // 4 % 3],
        keep_entries=rng.choice((0, 2, 20)),
        segment_bytes=rng.choice((600, 3_000, 1 << 20)),
        sync_us=rng.choice((100, 500, 5_000)),
        chances=Chances(
            drop=rng.choice((0, 0.02, 0.1)),
            double=0 if fifo else rng.choice((0.05, 0.2)),
            delay=rng.choice((0, 0.1, 0.3)),
            delay_max_us=rng.choice((20_000, 200_000, 2_000_000)),
            disk_death=rng.choice((0, 0.002, 0.01)),
            slow_disk=rng.choice((0, 0.05)),
        ),
        faults=rng.randrange(4, 16),
        early=rng.random() < 0.3,
        kinds=tuple(kind for kind in KINDS if rng.random() < 0.7) or KINDS,
    )


class Trial:
    """One run, as far as it got."""

    def __init__(self, seed: int, chosen: Setting | None = None) -> None:
        self.setting = chosen or setting(seed)
        self._rng = random.Random(f"faults {seed}")
        how = self.setting
        self.sim: SimCluster = cluster(
            agents=0,
            masters=how.masters,
            seed=seed,
            plan=SeededPlan(seed, how.chances),
            registry=NodeSettings(
                compact_entries=how.compact_entries, keep_entries=how.keep_entries, segment_bytes=how.segment_bytes
            ),
            settings=WorldSettings(network=NetworkSettings(fifo=how.fifo), sync_us=how.sync_us),
        )
        self.history = History()
        addresses = tuple(master.address for master in self.sim.masters)
        self.operators = [
            RegistryUser(self.history, addresses, self._rng.choice(PACE_US), self._rng.choice(PATIENCE_US))
            for _ in range(OPERATORS)
        ]
        for number, operator in enumerate(self.operators):
            host = self.sim.world.add_host(f"operator{number}")
            host.spawn("operator", lambda operator=operator: operator).start()  # type: ignore[misc]
        self._wiped = False

    def run(self) -> None:
        """Faults, healing, judgement."""
        if not self.setting.early:
            self.sim.world.plan.calm = True
            self.sim.until(self._founded, HEALED_S)
            self.sim.world.plan.calm = False
        self._strike()
        self.heal()
        self.judge()

    def _founded(self) -> bool:
        """Whether somebody leads, and all masters are members."""
        masters = self.sim.masters
        return self.sim.leading() is not None and all(m.up and not m.replica.members.waiting for m in masters)

    def _strike(self) -> None:
        """Faults at random times, each undone some time later."""
        rng, begin_s = self._rng, self.sim.now_s
        due: list[tuple[float, int, str, int, int, float]] = []
        for number in range(self.setting.faults):
            at_s, lasts_s = rng.uniform(0, BAD_S), rng.choice((0.05, 0.3, 1.5, 4.0, 10.0))
            who = rng.randrange(self.setting.masters)
            other = (who + rng.randrange(1, self.setting.masters)) % self.setting.masters
            if rng.random() < 0.4:
                who = -1  # whoever leads then
            due.append((at_s, number, rng.choice(self.setting.kinds), who, other, lasts_s))
        undo: list[tuple[float, int, str, int, int]] = []
        while due or undo:
            due.sort()
            undo.sort()
            if not undo or (due and due[0][0] <= undo[0][0]):
                at_s, number, kind, who, other, lasts_s = due.pop(0)
                self._to(begin_s + at_s)
                who = self._leader_or(other) if who < 0 else who
                other = (who + 1) % self.setting.masters if other == who else other
                self._begin(kind, who, other, lasts_s)
                undo.append((at_s + lasts_s, number, kind, who, other))
            else:
                at_s, _, kind, who, other = undo.pop(0)
                if at_s > BAD_S:
                    break
                self._to(begin_s + at_s)
                self._undo(kind, who, other)
        self._to(begin_s + BAD_S)

    def _to(self, at_s: float) -> None:
        self.sim.run(max(0.0, at_s - self.sim.now_s))

    def _leader_or(self, other: int) -> int:
        leading = self.sim.leading_host()
        return other if leading is None else self.sim.masters.index(leading)

    def _begin(self, kind: str, who: int, other: int, lasts_s: float) -> None:
        sim, master, world = self.sim, self.sim.masters[who], self.sim.world
        host, second = master.host, sim.masters[other].name
        match kind:
            case "crash":
                master.crash()
            case "power" if host.up:
                host.files.tear(self._rng)
                host.crash(machine=True)
            case "stop":
                master.stop()
            case "pause" if host.up:
                host.pause(int(lasts_s * SECOND_US))
            case "cut" | "one-way":
                world.cut(master.name, second, one_way=kind == "one-way")
            case "isolate" | "deaf":
                for peer in sim.masters:
                    if peer is not master:
                        world.cut(peer.name, master.name, one_way=kind == "deaf")
            case "break":
                world.break_links(master.name, second)
            case "jump":
                host.skew_us += int(lasts_s * SECOND_US)
            case "transfer" if host.up:
                host.post("registry", TransferLeadership(OperationId(f"transfer {sim.now_s}")))
            case "wipe" if not self._wiped and self._founded() and sim.leading_host() is not None:
                self._wiped = True
                master.wipe()

    def _undo(self, kind: str, who: int, other: int) -> None:
        master, world = self.sim.masters[who], self.sim.world
        if kind in ("isolate", "deaf"):
            for peer in self.sim.masters:
                if peer is not master:
                    world.heal(peer.name, master.name)
        elif kind in ("cut", "one-way"):
            world.heal(master.name, self.sim.masters[other].name)
        elif not master.host.up:
            master.start()

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything gets better: all agree, and every operator is served again, within the bound."""
        self.sim.calm()
        calm_us = self.sim.world.now_us
        served = [operator for operator in self.operators if not operator.resting]

        def is_well() -> bool:
            names = {asked.who for asked in self.history.asked if asked.outcome == "ok" and asked.began_us > calm_us}
            return len(names) == len(served)

        self.sim.until(is_well, HEALED_S)
        for operator in self.operators:
            operator.resting = True
        self.sim.until(self.agreed, HEALED_S)

    def agreed(self) -> bool:
        """Whether all masters are up and have applied the same log to its end."""
        if any(not master.up for master in self.sim.masters) or self.sim.leading() is None:
            return False
        replicas = [master.replica for master in self.sim.masters]
        ends = {(r.engine.applied_index, r.journal.last_index, r.journal.last_term) for r in replicas}
        return len(ends) == 1 and replicas[0].engine.applied_index == replicas[0].journal.last_index

    def judge(self) -> None:
        """Raises HistoryError or InvariantViolation."""
        self.sim.check()
        failed = [line for line in self.sim.world.logged("process_failing") if line["kind"] == "StorageError"]
        if failed:
            raise HistoryError(f"a master gave up: {failed[0]['text']}")
        order = self._order()
        self._judge_acknowledged(order)
        final = dict.fromkeys(ROLES, INITIAL) | {command.role: command.weight_milli for command in order}
        for master in self.sim.masters:
            weights = master.replica.machine.state.weights
            found = {role: weights[role].weight_milli if role in weights else INITIAL for role in ROLES}
            if found != final:
                raise HistoryError(f"{master.name} has {found}, and the log says {final}")
        if problem := self.history.contradiction():
            raise HistoryError(problem)

    def _order(self) -> list[SetWeight]:
        """What was applied, repeats left out, by the log."""
        at: dict[int, tuple[int, bytes]] = {}
        for master in self.sim.masters:
            for index, term, data in master.applied:
                at[index] = (term, data)
        if sorted(at) != list(range(2, len(at) + 2)):
            raise HistoryError("entries are missing")
        known: set[OperationId] = set()
        order = []
        for _, (term, data) in sorted(at.items()):
            proposal = decode_proposal(data)
            if proposal is None or proposal.operation_id in known or proposal.term != term:
                continue
            known.add(proposal.operation_id)
            if isinstance(proposal.command, SetWeight):
                order.append(proposal.command)
        return order

    def _judge_acknowledged(self, order: list[SetWeight]) -> None:
        """Present, once, in the order in which they were acknowledged; and what failed is not there."""
        place = {command.weight_milli: at for at, command in enumerate(order)}
        if len(place) != len(order):
            raise HistoryError("a write was applied twice")
        newest, last_end_us = -1, 0
        writes = [asked for asked in self.history.asked if asked.role is not None]
        for asked in writes:
            if asked.outcome == "failed" and asked.value in place:
                raise HistoryError(f"{asked.value} failed, and was applied")
            if asked.outcome == "ok" and asked.value not in place:
                raise HistoryError(f"{asked.value} was acknowledged and is lost")
        ends = sorted((asked.ended_us, place[asked.value]) for asked in writes if asked.outcome == "ok")
        at = 0
        for asked in sorted(writes, key=lambda asked: asked.began_us):
            while at < len(ends) and ends[at][0] < asked.began_us:
                newest, last_end_us = max(newest, ends[at][1]), ends[at][0]
                at += 1
            if place.get(asked.value, newest + 1) < newest:
                raise HistoryError(f"{asked.value} came before one that was acknowledged at {last_end_us}")


def run_seed(seed: int) -> Trial:
    """One run. Raises AssertionError (InvariantViolation, NotReached, HistoryError) when something does not hold."""
    trial = Trial(seed)
    trial.run()
    return trial
