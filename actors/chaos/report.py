"""What a chaos run did and found, for people and for programs."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator

import msgspec

from mesos_actor.actors.chaos.faults import STOPPED_S, Fault, Faults
from mesos_actor.actors.chaos.judge import Verdict
from mesos_actor.actors.chaos.leads import Leads, doubles
from mesos_actor.actors.chaos.registers import Op

SHOWN = 10
"""Violations of a kind that are printed; a program gets all."""
_GAPS: tuple[tuple[Fault, str, float], ...] = (
    ("kill", "kill of the leader", 1e9),
    ("pause", "SIGSTOP of it", STOPPED_S[1]),
    ("cut", "cut of it", STOPPED_S[1]),
    ("disk-full", "its disk full", STOPPED_S[1]),
    ("kill-all-masters", "kill of all, some seconds away", 1e9),
)
"""After a fault that leaves the leader alive the next one may be the same; past this time that is not its doing."""


class Gap(msgspec.Struct, frozen=True):
    """From what was done to the leader until the next one led."""

    after: str
    count: int
    median_s: float
    longest_s: float


class Report(msgspec.Struct):
    """`violations` has every kind that is looked for, those that were not found with an empty list."""

    passed: bool
    seed: int
    took_s: float
    order_s: float
    """Until everything was in order again, after the last repair."""
    injected: dict[str, int]
    stopped_full: int
    """Masters and agents that stopped, as they should, because their disk was full."""
    tasks: dict[str, int]
    never_ran: dict[str, int]
    writes: dict[str, int]
    reads: int
    leads: int
    last_term: int
    gaps: list[Gap]
    violations: dict[str, list[str]]
    directory: str = ""
    """Where logs and state are; empty when they were removed."""


class Findings(msgspec.Struct):
    """What is found at the end of a run, beside what the verdict has and what the faults counted."""

    verdict: Verdict = msgspec.field(default_factory=Verdict)
    history: list[Op] = []
    """Writes and reads of the registry."""
    register_errors: list[str] = []
    left: list[str] = []
    """Processes of tasks that outlived their frameworks."""
    troubles: list[str] = []
    order_s: float = 0.0


def make_report(seed: int, began_s: float, findings: Findings, faults: Faults, leads: Leads) -> Report:
    """The report of a run that is over."""
    verdict, history = findings.verdict, findings.history
    reads = {(op.start_s, op.end_s) for op in history if op.kind == "read"}
    violations = {
        "tasks lost": verdict.lost,
        "tasks that ran twice": verdict.twice,
        "tasks told otherwise than they went": verdict.untrue,
        "tasks left behind": findings.left,
        "weights lost or out of order": findings.register_errors,
        "terms with two leaders": doubles(leads.all),
        "other": findings.troubles,
    }
    return Report(
        passed=not any(violations.values()),
        seed=seed,
        took_s=round(time.monotonic() - began_s, 1),
        order_s=round(findings.order_s, 1),
        injected=dict(sorted(faults.done.items())),
        stopped_full=faults.stopped_full,
        tasks={name: getattr(verdict, name) for name in ("launched", "ended", "told_lost", "given_up", "batches")},
        never_ran=verdict.reasons,
        writes=dict(Counter(op.outcome for op in history if op.kind == "write")),
        reads=len(reads),
        leads=len(leads.all),
        last_term=max((lead.term for lead in leads.all), default=0),
        gaps=list(_gaps(faults, leads)),
        violations=violations,
    )


def _gaps(faults: Faults, leads: Leads) -> Iterator[Gap]:
    for fault, name, limit_s in _GAPS:
        found = (leads.gap_s(hit.at_s, limit_s) for hit in faults.hits if hit.fault == fault)
        gaps = [gap for gap in found if gap is not None]
        if gaps:
            yield Gap(name, len(gaps), round(statistics.median(gaps), 3), round(max(gaps), 3))


def lines(report: Report) -> Iterator[str]:
    """The report for people."""
    done = ", ".join(f"{what} {count}" for what, count in report.injected.items()) or "nothing"
    yield f"\ndone in {report.took_s:.0f} s: {done}"
    if report.stopped_full:
        yield f"stopped for a full disk, as they should, and started again: {report.stopped_full}"
    tasks = report.tasks
    yield f"tasks launched {tasks['launched']}, ended {tasks['ended']}, in {tasks['batches']} batches and more;"
    yield f"  {tasks['told_lost']} of them never ran, were told so and launched again: {report.never_ran}"
    yield f"  {tasks['given_up']} were unreachable, and others were put in their place"
    yield f"weights written: {report.writes}; registry read {report.reads} times"
    yield f"led: {report.leads} times, terms up to {report.last_term}"
    for gap in report.gaps:
        times = f"{gap.count} times, median {gap.median_s:.2f} s, longest {gap.longest_s:.2f} s"
        yield f"from {gap.after} to the next: {times}"
    yield f"in order again {report.order_s:.1f} s after the last repair"
    for name, errors in report.violations.items():
        yield f"{name}: {len(errors)}"
        yield from (f"    {error}" for error in errors[:SHOWN])
    if report.directory:
        yield f"logs and state are in {report.directory}"
    yield "PASSED" if report.passed else "FAILED"
