"""What hypothesis draws: faults, workloads, and a state machine over the words of a simulated cluster.

Faults are drawn as a list without which all is calm, so a failing run shrinks to the few that matter. Under
`pytest --sim-replay FILE` both strategies give what the file says, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from mesos_actor.transport.sim import recording
from mesos_actor.transport.sim.cluster import SimCluster, cluster
from mesos_actor.transport.sim.faults import (
    COUNTED,
    LAUNCH_FATES,
    AnyFault,
    Break,
    Clock,
    Crash,
    Cut,
    Delay,
    DieAtSync,
    Drop,
    Duplicate,
    FailSync,
    FullDisk,
    Isolate,
    Launch,
    Pause,
    Reorder,
    SlowSync,
    Stall,
    Stop,
    key_of,
)
from mesos_actor.transport.sim.frameworks import SimFramework
from mesos_actor.transport.sim.plan import Plan
from mesos_actor.transport.sim.trial import CALM_BOUND_S
from mesos_actor.transport.sim.workload import AddAgent, AnyStep, DoChores, KillTask, Serve, Submit, Transfer, Weigh

MS = 1_000
SECOND_US = 1_000_000
SIM_SETTINGS = settings(
    deadline=None, report_multiple_bugs=False, phases=[phase for phase in Phase if phase is not Phase.explain]
)
"""For tests that simulate: a run has no deadline, and explaining a failure would cost more runs than finding it."""

KINDS = (
    *("drop", "duplicate", "delay", "reorder", "sync", "launch"),
    *("cut", "isolate", "stall", "break", "crash", "stop", "pause", "full", "clock"),
)


def host_names(masters: int = 3, agents: int = 3, frameworks: int = 1) -> list[str]:
    """What the hosts of such a cluster are called."""
    first = ["master"] if masters == 1 else [f"master{number}" for number in range(masters)]
    return [*first, *(f"agent{n}" for n in range(agents)), *(f"framework{n}" for n in range(frameworks))]


def _lasting(within_s: float) -> st.SearchStrategy[tuple[int, int]]:
    """When, and for how long: small and round ones first."""
    at_us = st.integers(0, round(within_s * 10)).map(lambda tenths: tenths * 100 * MS)
    return st.tuples(at_us, st.sampled_from([300 * MS, 1 * SECOND_US, 4 * SECOND_US, 15 * SECOND_US]))


def faults(
    hosts: Sequence[str], kinds: Sequence[str] = KINDS, within_s: float = 30.0, most: int = 60
) -> st.SearchStrategy[AnyFault]:
    """One fault between these hosts. `most`: the highest count of a message or a sync."""
    host, nth = st.sampled_from(list(hosts)), st.integers(0, most)
    machines = st.sampled_from([name for name in hosts if name.startswith("agent")] or list(hosts))
    late = st.sampled_from([10 * MS, 200 * MS, 2 * SECOND_US])
    when = _lasting(within_s)
    pair = st.tuples(host, host).filter(lambda two: two[0] != two[1])
    how: dict[str, st.SearchStrategy[AnyFault]] = {
        "drop": st.builds(lambda two, n: Drop(two[0], two[1], n), pair, nth),
        "duplicate": st.builds(lambda two, n: Duplicate(two[0], two[1], n), pair, nth),
        "delay": st.builds(lambda two, n, by: Delay(two[0], two[1], n, by), pair, nth, late),
        "reorder": st.builds(lambda two, n, by: Reorder(two[0], two[1], n, by), pair, nth, late),
        "sync": st.one_of(
            st.builds(DieAtSync, host, nth), st.builds(SlowSync, host, nth, late), st.builds(FailSync, host, nth)
        ),
        "launch": st.builds(Launch, machines, st.integers(0, 10), st.sampled_from(LAUNCH_FATES)),
        "cut": st.builds(
            lambda two, at, one_way: Cut(two[0], two[1], at[0], at[1], one_way=one_way), pair, when, st.booleans()
        ),
        "isolate": st.builds(
            lambda who, at, one_way: Isolate(who, at[0], at[1], one_way=one_way), host, when, st.booleans()
        ),
        "stall": st.builds(lambda two, at: Stall(two[0], two[1], at[0], at[1]), pair, when),
        "break": st.builds(lambda two, at: Break(two[0], two[1], at[0]), pair, when),
        "crash": st.builds(
            lambda who, at, machine: Crash(who, at[0], at[1], machine=machine), host, when, st.booleans()
        ),
        "stop": st.builds(lambda who, at: Stop(who, at[0], at[1]), host, when),
        "pause": st.builds(lambda who, at: Pause(who, at[0], at[1]), host, when),
        "full": st.builds(lambda who, at: FullDisk(who, at[0], at[1]), host, when),
        "clock": st.builds(lambda who, at, by: Clock(who, at[0], by), host, when, st.sampled_from([-(10**9), 10**9])),
    }
    return st.one_of([how[kind] for kind in kinds])


def _place(fault: AnyFault) -> object:
    return key_of(fault) if isinstance(fault, COUNTED) else fault


@st.composite
def fault_plans(
    draw: st.DrawFn,
    *,
    masters: int = 3,
    agents: int = 3,
    frameworks: int = 1,
    kinds: Sequence[str] = KINDS,
    max_faults: int = 12,
    within_s: float = 30.0,
) -> Plan:
    """A plan for a cluster of that size; the empty one is the simplest. `kinds` of KINDS; timed faults strike within so
    many seconds."""
    current = recording.current
    if current is not None and (replayed := current.plan()) is not None:
        return replayed
    hosts = host_names(masters, agents, frameworks)
    drawn = draw(st.lists(faults(hosts, kinds, within_s), max_size=max_faults, unique_by=_place))
    return Plan.of(drawn)


@st.composite
def workloads(draw: st.DrawFn, *, max_steps: int = 5, within_s: float = 20.0) -> tuple[AnyStep, ...]:
    """Steps for `SimCluster.play`; at least one batch."""
    current = recording.current
    if current is not None and (replayed := current.replayed_work()) is not None:
        return replayed
    at = st.integers(0, round(within_s)).map(lambda seconds: seconds * SECOND_US)
    batch = st.builds(Submit, at, st.integers(1, 20), st.sampled_from([100, 1_000, 3_000]), staged=st.booleans())
    other = st.one_of(
        batch,
        st.builds(KillTask, at, st.integers(0, 9)),
        st.builds(AddAgent, at),
        st.builds(DoChores, at),
        st.builds(Serve, at, st.integers(1, 3)),
        st.builds(Weigh, at, st.sampled_from([500, 2_000])),
        st.builds(Transfer, at),
    )
    steps = [draw(batch), *draw(st.lists(other, max_size=max_steps - 1))]
    found = tuple(sorted(steps, key=lambda step: step.at_us))
    if current is not None:
        current.work = found
    return found


class ClusterMachine(RuleBasedStateMachine):
    """Drives a simulated cluster by the words that a test has, in any order, under a drawn plan; what must hold is
    watched all the time. At the end all is calm, and everything must come to its end.

    Subclass it and add rules of your own; `self.sim` is the cluster. `make` says which cluster; override it to have
    your frameworks in it. At the end the batches of `submit` must be done, and nothing may run or wait any more; what
    your own frameworks have to show then is for your `teardown` to say, after this one. Run it as
    `TestMine = MyMachine.TestCase` or by `run_state_machine_as_test` (see SIM_SETTINGS).
    """

    MASTERS, AGENTS = 3, 3

    def make(self, plan: Plan) -> SimCluster:
        """The cluster, at its begin."""
        return cluster(self.AGENTS, plan=plan, masters=self.MASTERS, master={"offer_timeout_ms": 5_000})

    @initialize(plan=fault_plans(max_faults=6))
    def begin(self, plan: Plan) -> None:
        """With what goes wrong."""
        if recording.current is not None:
            recording.current.drawn_steps = True
        self.sim = self.make(plan)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0]))
    def let_pass(self, seconds: float) -> None:
        """Time."""
        self.sim.run(seconds)

    @rule(tasks=st.integers(1, 8), milliseconds=st.sampled_from([100, 2_000]))
    def submit(self, tasks: int, milliseconds: int) -> None:
        """A batch."""
        self.sim.play([Submit(0, tasks, milliseconds)])

    @rule(nth=st.integers(0, 9))
    def kill(self, nth: int) -> None:
        """An operator kills a task."""
        self.sim.play([KillTask(0, nth)])

    @rule(number=st.integers(0, 5))
    def crash_agent(self, number: int) -> None:
        """kill -9; it begins again later, or when all is calm."""
        self.sim.agents[number % len(self.sim.agents)].crash()

    @rule(number=st.integers(0, 5))
    def start_agent(self, number: int) -> None:
        """Begin what is down."""
        self.sim.agents[number % len(self.sim.agents)].start()

    @precondition(lambda self: len(self.sim.agents) < 6)
    @rule()
    def add_agent(self) -> None:
        """One more machine."""
        self.sim.add_agent(settings=self.sim.agent_settings)

    @rule(number=st.integers(0, 9))
    def crash_framework(self, number: int) -> None:
        """One of those that can begin again."""
        mine = self._framework(number)
        if mine is not None and mine.host.restartable:
            mine.crash()

    @rule(number=st.integers(0, 9))
    def start_framework(self, number: int) -> None:
        """Begin it again."""
        mine = self._framework(number)
        if mine is not None and not mine.ended and not mine.host.gone:
            mine.start()

    def _framework(self, number: int) -> SimFramework | None:
        found = self.sim.frameworks
        return found[number % len(found)] if found else None

    def teardown(self) -> None:
        """Everything comes to its end; unless something broke already, which is the error to read."""
        sim = getattr(self, "sim", None)
        if sim is None or sim.world.violation is not None:
            return
        sim.settle(CALM_BOUND_S)
