"""Looking: status, agents, frameworks, tasks, offers, roles, why, top."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from mesos_actor.actors.cli.options import AsJson, Insecure, KeyDir, Masters, Timeout, choice, seconds
from mesos_actor.actors.cli.output import Column, Row, age, fail, print_object, print_rows
from mesos_actor.actors.task import TaskState

AGENT_STATES = ("active", "disconnected", "recovering", "unreachable", "gone")
FRAMEWORK_STATES = ("active", "disconnected", "removed")
TASK_STATES = tuple(state.value for state in TaskState if state is not TaskState.UNKNOWN)
"""A master never says UNKNOWN of a task that it can show."""


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (status, agents, frameworks, tasks, offers, roles, why, top):
        app.command()(command)


def ask(masters: str, key_dir: str, insecure: bool, timeout: float, what: str, match: dict[str, str]) -> Sequence[Row]:
    """All rows of one question, page by page."""
    from mesos_actor.actors.client import query

    return query(masters, key_dir, insecure, timeout, what, match)


def _match(**fields: str) -> dict[str, str]:
    return {name: value for name, value in fields.items() if value}


def _empty(match: dict[str, str], what: str, otherwise: str) -> str:
    """What to say when there are no rows: `otherwise`, unless the filters may be why."""
    if not match:
        return otherwise
    filters = " ".join(f"--{name.removesuffix('_id')} {value}" for name, value in match.items())
    return f"no {what} match {filters}"


def amounts(name: str) -> Callable[[Row], str]:
    """Resources in a row, as the text form writes them: `cpus:4;mem:2048`."""
    return lambda row: ";".join(f"{kind}:{value}" for kind, value in (row.get(name) or {}).items())


AGENTS = (
    Column("AGENT", "agent_id"),
    Column("HOST", "hostname"),
    Column("STATE", "state"),
    Column("RESOURCES", amounts("resources")),
    Column("USED", amounts("used")),
    Column("TASKS", "tasks", right=True),
    Column("ISOLATION", lambda row: f"{row.get('isolation', '')}{' (!)' if row.get('warning') else ''}"),
    Column("ATTRIBUTES", amounts("attributes")),
)
FRAMEWORKS = (
    Column("FRAMEWORK", "framework_id"),
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("ROLES", "roles"),
    Column("TASKS", "tasks", right=True),
    Column("OFFERS", "offers", right=True),
    Column("USED", amounts("used")),
    Column("OUTCOME", "outcome"),
)
TASKS = (
    Column("TASK", "task_id"),
    Column("NAME", "name"),
    Column("STATE", "state"),
    Column("HOST", "hostname"),
    Column("FRAMEWORK", "framework_id"),
    Column("RESOURCES", amounts("resources")),
    Column("SINCE", lambda row: age(row.get("updated_us", 0)), right=True),
    Column("REASON", lambda row: row.get("message") or row.get("reason", "")),
)
OFFERS = (
    Column("OFFER", "offer_id"),
    Column("FRAMEWORK", "framework_id"),
    Column("HOST", "hostname"),
    Column("ROLE", "role"),
    Column("RESOURCES", amounts("resources")),
)
ROLES = (
    Column("ROLE", "role"),
    Column("WEIGHT", lambda row: f"{row['weight_milli'] / 1000:g}", right=True),
    Column("SHARE", lambda row: f"{row['share_millionths'] / 10_000:.1f} %", right=True),
    Column("FRAMEWORKS", "frameworks", right=True),
)
COUNTED = (
    ("limit MiB", "memory_limit_bytes", 2**20),
    ("peak MiB", "memory_peak_bytes", 2**20),
    ("throttled s", "throttled_ms", 1_000),
)
"""Columns of `top`: heading, field of a row, how many of it make one of the heading's."""
REFUSALS = (
    Column("HOST", "hostname"),
    Column("AGENT", "agent_id"),
    Column("ROLE", "role"),
    Column("REASON", "reason"),
    Column("TEXT", "text"),
)


def status(
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The cluster on one screen: who leads, how many agents, frameworks and tasks, what is used."""
    (row,) = ask(masters, key_dir, insecure, timeout, "status", {})
    if as_json:
        print_object(row, True)
        return
    total, used = row["resources"], row["used"]
    print_object(
        {
            "leader": f"{row['leader'].removeprefix('tcp://').removesuffix('/master')}, term {row['term']}",
            "cluster": row["cluster_id"],
            "agents": _counts(row["agents"]),
            "frameworks": _counts(row["frameworks"]),
            "tasks": _counts(row["tasks"]),
            "offers": row["offers"],
            **{name: f"{used.get(name, 0)} of {amount} used" for name, amount in total.items() if name != "ports"},
            **({"warning": "; ".join(row["warnings"])} if row.get("warnings") else {}),
        },
        False,
    )


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "none"


def agents(
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE", help=f"Only in this state: {', '.join(AGENT_STATES)}.", parser=choice(*AGENT_STATES)
        ),
    ] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The agents: where, what they have, what is used."""
    match = _match(state=state)
    rows = ask(masters, key_dir, insecure, timeout, "agents", match)
    start = "no agents; start one with: mesos-actor start --masters HOST:PORT --as agent"
    print_rows(rows, AGENTS, as_json, _empty(match, "agents", start))


def frameworks(
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE",
            help=f"Only in this state: {', '.join(FRAMEWORK_STATES)}.",
            parser=choice(*FRAMEWORK_STATES),
        ),
    ] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The frameworks: active, away, and the last that ended."""
    match = _match(state=state)
    rows = ask(masters, key_dir, insecure, timeout, "frameworks", match)
    print_rows(
        rows, FRAMEWORKS, as_json, _empty(match, "frameworks", "no frameworks; try: mesos-actor run -- echo hello")
    )


def tasks(
    framework: Annotated[str, typer.Option(help="Only tasks of this framework's id.")] = "",
    agent: Annotated[str, typer.Option(help="Only tasks on this agent's id.")] = "",
    state: Annotated[
        str,
        typer.Option(
            metavar="STATE", help="Only tasks in this state, for example RUNNING.", parser=choice(*TASK_STATES)
        ),
    ] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The tasks: live ones, and the last that ended."""
    match = _match(framework_id=framework, agent_id=agent, state=state)
    rows = ask(masters, key_dir, insecure, timeout, "tasks", match)
    if not rows:
        _check_known(masters, key_dir, insecure, timeout, match)
    print_rows(rows, TASKS, as_json, _empty(match, "tasks", "no tasks"))


def offers(
    framework: Annotated[str, typer.Option(help="Only offers to this framework's id.")] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The offers that nobody has answered yet."""
    match = _match(framework_id=framework)
    rows = ask(masters, key_dir, insecure, timeout, "offers", match)
    if not rows:
        _check_known(masters, key_dir, insecure, timeout, match)
    print_rows(rows, OFFERS, as_json, _empty(match, "outstanding offers", "no outstanding offers"))


def _check_known(masters: str, key_dir: str, insecure: bool, timeout: float, match: dict[str, str]) -> None:
    """End with an error when a filter names an agent or a framework that does not exist."""
    for noun in ("agent", "framework"):
        wanted = match.get(f"{noun}_id")
        if wanted and not ask(masters, key_dir, insecure, timeout, f"{noun}s", {f"{noun}_id": wanted}):
            fail(f"there is no {noun} {wanted!r}; see: mesos-actor {noun}s")


def roles(
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The roles: their weights and shares of the cluster."""
    print_rows(ask(masters, key_dir, insecure, timeout, "roles", {}), ROLES, as_json, "no roles in use")


def why(
    subject: Annotated[str, typer.Argument(metavar="TASK|FRAMEWORK", help="A task's id or a framework's id.")],
    framework: Annotated[str, typer.Option(help="The task's framework, when two have a task of this id.")] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """Why it is not running: which agents were refused, and for what reason.

    Example: mesos-actor why 6f2c1d0a9b8e7f54-0003
    """
    rows = ask(masters, key_dir, insecure, timeout, "why", _match(task_id=subject, framework_id=framework))
    if not rows:
        rows = ask(masters, key_dir, insecure, timeout, "why", _match(framework_id=subject))
    if not rows:
        fail(f"there is no task and no framework {subject!r}; see: mesos-actor tasks, mesos-actor frameworks")
    if as_json:
        print_rows(rows, REFUSALS, True, "")
        return
    for row in rows:
        _explain(row)
    if rows[0]["kind"] == "framework":
        print_rows([row for row in rows if row["kind"] == "agent"], REFUSALS, False, "no agent refuses it now")


def _explain(row: Row) -> None:
    """What one row of the answer says, in sentences."""
    match row["kind"]:
        case "framework":
            print(f"framework {row['framework_id']} ({row['name']}) is {row['state']}. {row['text']}.")
        case "task":
            print(f"task {row['task_id']} of {row['framework_id']} is {row['state']} on {row['hostname'] or '-'}:")
            for step in row["history"]:
                print("  " + " ".join(word for word in (age(step["time_us"]) + " ago", *_words(step)) if word))
        case "refused-launch":
            print(
                f"launch of {row['task_id']} on {row['agent_id']} was refused {age(row['time_us'])} ago: {row['text']}"
            )
        case _:
            pass


def _words(step: dict[str, Any]) -> tuple[str, str, str]:
    return step["state"], step["reason"], step["message"]


MAX_SILENT = 5
"""Host names of agents that do not answer, below the picture of `top`."""


def top(
    interval: Annotated[
        float, typer.Option(metavar="SECONDS", help="How often to look again.", parser=seconds(0.2))
    ] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Print one picture and end; the default in a pipe.")] = False,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
) -> None:
    """A live view of the running tasks and what they use, busiest first. Ctrl-C ends it."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        console.print(_picture(*_usage(masters, key_dir, insecure, timeout), []))
        return
    before: Sequence[Row] = []
    with Live(console=console, auto_refresh=False, screen=True) as live:
        while True:
            rows, silent = _usage(masters, key_dir, insecure, timeout)
            live.update(_picture(rows, silent, before), refresh=True)
            before = rows
            time.sleep(interval)


def _usage(masters: str, key_dir: str, insecure: bool, timeout: float) -> tuple[Sequence[Row], Sequence[str]]:
    from mesos_actor.actors.client import usage

    return usage(masters, key_dir, insecure, timeout)


def _picture(rows: Sequence[Row], silent: Sequence[str], before: Sequence[Row]) -> Any:
    """A table of running tasks, busiest first; CPU is of one core over the time between two looks."""
    from rich.table import Table

    table = Table(title=f"{len(rows)} running tasks at {time.strftime('%H:%M:%S')}", title_justify="left")
    if silent:
        shown = ", ".join(silent[:MAX_SILENT]) + (", …" if len(silent) > MAX_SILENT else "")
        table.caption = f"without what runs on agents that do not answer: {shown}"
        table.caption_justify = "left"
    # Only agents with cgroups count these.
    counted = [column for column in COUNTED if any(row.get(column[1]) for row in rows)]
    for heading in (
        "task",
        "agent",
        "cpu %",
        "cpu time s",
        "memory MiB",
        "processes",
        *(heading for heading, _, _ in counted),
    ):
        table.add_column(heading, justify="left" if heading in ("task", "agent") else "right")
    earlier = {row["container_id"]: row for row in before}

    def busy(row: Row) -> float:
        past = earlier.get(row["container_id"])
        elapsed_us = row["timestamp_us"] - past["timestamp_us"] if past else 0
        return 100_000 * (row["cpu_time_ms"] - past["cpu_time_ms"]) / elapsed_us if past and elapsed_us > 0 else 0.0

    for row in sorted(rows, key=lambda row: (-busy(row), row["container_id"]))[:40]:
        table.add_row(
            row["task_id"],
            row["agent_id"],
            f"{busy(row):.1f}" if earlier else "-",
            f"{row['cpu_time_ms'] / 1000:.2f}",
            f"{row['rss_bytes'] / 2**20:.1f}",
            str(row["processes"]),
            *(f"{row[name] / unit:.1f}" if row.get(name) else "-" for _, name, unit in counted),
        )
    return table
