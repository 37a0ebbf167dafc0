"""Simulated clusters: sim, replay."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mesos_actor.actors.cli.options import seconds, whole
from mesos_actor.actors.cli.output import fail, note
from mesos_actor.actors.errors import ConfigError

if TYPE_CHECKING:
    from mesos_actor.transport.sim.swarm import Seen
    from mesos_actor.transport.sim.trial import Run, Trial

TOLD_EVERY_S = 2.0
MAX_JOBS = 256


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (sim, replay):
        app.command()(command)


def sim(
    runs: Annotated[int, typer.Option("--runs", metavar="N", help="How many.", parser=whole(1))] = 100,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", help="How many at once.", parser=whole(1, MAX_JOBS))] = 1,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="The first seed.", parser=whole(0))] = 0,
    check: Annotated[
        bool,
        typer.Option(
            "--check", help="Instead: play each seed under four values of PYTHONHASHSEED, and compare what happened."
        ),
    ] = False,
    output: Annotated[
        Path, typer.Option("--output", metavar="DIR", help="Where a failing run is written.", file_okay=False)
    ] = Path(".sim-failures"),
) -> None:
    """Play simulated clusters in which much goes wrong, each decided by its seed, until one breaks what must hold.

    A run that breaks something is made smaller, told as a story, and written to a replay file; the exit status is 1.

    \b
    Example: mesos-actor sim --runs 1000 --jobs 2
    """
    from mesos_actor.transport.sim import swarm

    seeds = range(seed, seed + runs)
    if check:
        if difference := swarm.check(seeds):
            print(difference)
            raise typer.Exit(1)
        print(f"{runs} seeds: each is the same run under four values of PYTHONHASHSEED")
        return
    began_s = time.perf_counter()
    last_s = began_s

    def told(seen: Seen) -> None:
        nonlocal last_s
        if time.perf_counter() - last_s > TOLD_EVERY_S:
            last_s = time.perf_counter()
            note(f"{seen.runs} of {runs} runs, {swarm.rate(seen, began_s)}")

    seen = swarm.search(seeds, jobs, told)
    print(f"{seen.runs} runs, {seen.virtual_us / 1e6:,.0f} virtual s, {swarm.rate(seen, began_s)}")
    _print_coverage(seen)
    if seen.failed is None:
        print("nothing that must hold was broken")
        return
    drawn = swarm.write_down(swarm.as_drawn(seen.failed), output)
    note(f"seed {seen.failed}, {drawn.drawn} faults: {drawn.broken.text}")
    note(f"as it was drawn it is in {drawn.file}; making it smaller, which Ctrl-C ends")
    found = swarm.write_down(
        swarm.shrink(drawn, told=lambda spent, best: note(f"  {len(best.faults)} faults after {spent} runs")), output
    )
    if found.file != drawn.file:
        Path(drawn.file).unlink()
    print(f"\n{found.story}")
    raise typer.Exit(1)


def _print_coverage(seen: Seen) -> None:
    print("faults that came about: " + (", ".join(f"{kind} {n}" for kind, n in sorted(seen.faults.items())) or "none"))
    sites = [f"{site} {taken} of {asked}" for site, (asked, taken, _) in sorted(seen.sites.items())]
    print("rare branches taken: " + (", ".join(sites) or "none"))


def replay(
    file: Annotated[Path, typer.Argument(help="A replay file.")],
    until: Annotated[
        float | None,
        typer.Option("--until", metavar="SECONDS", help="Stop before what happens then.", parser=seconds(0)),
    ] = None,
    pdb: Annotated[bool, typer.Option("--pdb", help="With --until: open Python's debugger there.")] = False,
    diff: Annotated[
        str, typer.Option("--diff", metavar="calm", help="Show where it parts from the run without faults.")
    ] = "",
    trace: Annotated[bool, typer.Option("--trace", help="Print every event.")] = False,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="Print a sequence diagram of the story.")] = False,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE", help="Draw the sequence diagram.", dir_okay=False)
    ] = None,
) -> None:
    """Play a failing run again, and show it: as a story, or as the options say. Exit status 1 when it breaks the same
    as before, 0 when it ends well, 3 when it breaks something else. A test's file is played by pytest, with --trace,
    --mermaid and --svg for the test's story; --diff, --until and --pdb are for the cluster's own runs.

    \b
    Example: mesos-actor replay .sim-failures/3f2a9c01.json --svg failure.svg
    """
    from mesos_actor.transport.sim.replay import read_replay
    from mesos_actor.transport.sim.story import first_difference

    if diff not in ("", "calm"):
        raise typer.BadParameter(f"{diff!r} is not 'calm', the run without faults", param_hint="--diff")
    if pdb and until is None:
        raise typer.BadParameter("says where to stop by --until SECONDS", param_hint="--pdb")
    found = read_replay(file)
    if found.trial is None:
        if diff or until is not None:
            raise ConfigError(
                f"{file}: is of the test {found.test}, which pytest plays: --diff, --until and --pdb are not for it"
            )
        raise typer.Exit(_play_test(found.test, file.absolute(), trace, mermaid, svg))
    run = _play(found.trial, until, pdb)
    lines = run.sim.world.trace() if run.sim is not None else []
    if trace:
        print("\n".join(lines))
    if diff:
        calm = _play(_without_faults(found.trial), until, False)
        difference = first_difference(calm.sim.world.trace() if calm.sim is not None else [], lines)
        print(difference or "it is the same run as without faults")
    _show(run, found.trial, file, mermaid, svg, quiet=trace or bool(diff))
    if run.broken is not None:
        raise typer.Exit(1 if run.broken.what == found.broken.what else 3)
    if until is None:
        note(f"it ends well; {found.broken.what} was broken when it was written" + _planted(found.bug))


def _play_test(test: str, file: Path, trace: bool, mermaid: bool, svg: Path | None) -> int:
    """Have pytest play it, where it was found. Returns pytest's exit status."""
    import subprocess
    import sys

    from mesos_actor.transport.sim.replay import DIRECTORY

    command = [sys.executable, "-m", "pytest", test, "--sim-replay", str(file)]
    command += ["--sim-trace"] * trace + ["--sim-mermaid"] * mermaid
    command += [] if svg is None else ["--sim-svg", str(svg.absolute())]
    root = file.parent.parent if file.parent.name == DIRECTORY else Path.cwd()
    return subprocess.run(command, cwd=root, check=False).returncode


def _planted(bug: str) -> str:
    return f", with the planted bug {bug}" if bug else ""


def _without_faults(trial: Trial) -> Trial:
    import msgspec

    return msgspec.structs.replace(trial, faults=())


def _play(trial: Trial, until_s: float | None, pdb: bool) -> Run:
    from mesos_actor.transport.sim.trial import Run

    run = Run(trial)
    if until_s is None:
        return run.finish()
    run.play_until(round(until_s * 1e6) - 1)
    if pdb:
        world = run.sim.world if run.sim is not None else None
        note("here: run, run.sim, world; world.step() goes on by one event")
        breakpoint()
        del world
    return run


def _show(run: Run, trial: Trial, file: Path, mermaid: bool, svg: Path | None, quiet: bool) -> None:
    from mesos_actor.transport.sim import diagram
    from mesos_actor.transport.sim.story import concerning, tell

    if run.sim is None:
        print(run.error)
        return
    text = run.broken.text if run.broken is not None else ""
    told = concerning(run.sim.world, text)
    if mermaid:
        print(diagram.mermaid(told), end="")
    if svg is not None:
        try:
            svg.write_text(diagram.svg(told))
        except OSError as error:
            fail(f"--svg {svg}: cannot be written: {error.strerror}")
        note(f"{svg}: {len(told)} events")
    if not (mermaid or svg is not None or quiet):
        print(tell(run.sim.world, text or "nothing is broken", trial.faults))
    sys.stdout.flush()
