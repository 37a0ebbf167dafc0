"""Chaos: real faults for a cluster of real processes that the command starts for itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from mesos_actor.actors.cli.options import AsJson, whole
from mesos_actor.actors.cli.output import note

Kind = Literal["master", "agent", "framework"]
KINDS: dict[str, Kind] = {"masters": "master", "agents": "agent", "frameworks": "framework"}
MAX_DURATION_S = 7 * 24 * 3_600


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    app.command()(chaos)


def _kinds(text: str) -> frozenset[Kind]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in KINDS:
            raise typer.BadParameter(f"--kill: {word!r} is not one of {', '.join(KINDS)}; write some, commas between")
    if not words:
        raise typer.BadParameter(f"--kill: nothing is named; write some of {', '.join(KINDS)}, commas between")
    return frozenset(KINDS[word] for word in words)


def _duration_s(text: str) -> float:
    from mesos_actor.actors.frameworks.specs import duration_ms

    seconds = duration_ms(text, "--duration") / 1_000
    if not 1 <= seconds <= MAX_DURATION_S:
        raise typer.BadParameter(f"--duration: {text!r} is not from 1s to 7d")
    return seconds


def chaos(
    duration: Annotated[str, typer.Option(metavar="TIME", help="How long to do harm: 60s, 10m.")] = "60s",
    kill: Annotated[
        str | None,
        typer.Option(
            metavar="KIND[,…]", help="Kill these with kill -9 and start them again: masters, agents, frameworks."
        ),
    ] = None,
    kills: Annotated[
        int | None,
        typer.Option(metavar="N", help="Do harm until so many were killed, instead of for a time.", parser=whole(1)),
    ] = None,
    pause: Annotated[bool, typer.Option("--pause", help="Stop processes for 0.5 to 4 s (SIGSTOP).")] = False,
    cut: Annotated[
        bool, typer.Option("--cut", help="Cut hosts off, each in a network namespace of its own. Needs root.")
    ] = False,
    disk_full: Annotated[
        bool, typer.Option("--disk-full", help="Fill the disks of masters and agents, small ones. Needs root.")
    ] = False,
    masters: Annotated[int, typer.Option(metavar="N", help="How many masters, an odd number.", parser=whole(1))] = 3,
    agents: Annotated[int, typer.Option(metavar="N", help="How many agents.", parser=whole(1))] = 3,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of what is done when; without it another each time.", parser=whole(0)),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Leave logs, state and report.json in this empty or new directory."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start a cluster of real processes, do it harm under load, let it heal, and judge what was lost.

    Touches no cluster but its own, in a temporary directory, and no process that it did not start. Built-in batches, a
    service, and frameworks that remember everything keep it busy meanwhile. Afterwards what they were told is compared
    with what their tasks did: no task may be lost, run twice or be told wrongly, no acknowledged write may be lost, no
    term may have two leaders. The exit status is 0 when all is well, 1 when something is not. Logs and state are kept
    then, or with --keep. Without any of --kill, --pause, --cut, --disk-full everything is killed.

    \b
    Examples:
      mesos-actor chaos --duration 60s --kill agents,masters,frameworks
      mesos-actor chaos --duration 10m --kill masters --pause --cut --disk-full --seed 7
      mesos-actor chaos --kills 100 --kill agents,masters,frameworks --pause
    """
    from mesos_actor.actors.chaos.hosts import enter
    from mesos_actor.actors.chaos.report import lines
    from mesos_actor.actors.chaos.run import Options
    from mesos_actor.actors.chaos.run import chaos as run

    if kill is None:
        killed = frozenset() if pause or cut or disk_full else frozenset(KINDS.values())
    else:
        killed = _kinds(kill)
    options = Options(_duration_s(duration), kills or 0, killed, pause, cut, disk_full, masters, agents, keep=keep)
    if seed is not None:
        options.seed = seed
    options.check()
    enter(cut, disk_full)
    report = run(options, note)
    if as_json:
        from msgspec import to_builtins

        print(json.dumps(to_builtins(report), indent=2))
    else:
        print("\n".join(lines(report)))
    raise SystemExit(0 if report.passed else 1)
