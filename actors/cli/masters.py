"""The masters: masters, masters transfer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesos_actor.actors.cli.options import AsJson, Insecure, KeyDir, Masters, Timeout
from mesos_actor.actors.cli.output import Column, Row, fail, note, print_rows

if TYPE_CHECKING:
    from mesos_actor.actors.client_registry import Standing

masters_group = typer.Typer()


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    masters_group.callback(invoke_without_command=True)(show_masters)
    masters_group.command()(transfer)
    app.add_typer(masters_group, name="masters")


MASTERS = (
    Column("MASTER", lambda row: row["master"] + (" *" if row["leads"] else "")),
    Column("STATE", "state"),
    Column("TERM", "term", right=True),
    Column("COMMIT", "commit_index", right=True),
    Column("APPLIED", "applied_index", right=True),
    Column("LAG", lambda row: _known(row["lag"]), right=True),
    Column("LOG", lambda row: _size(row["log_bytes"]) if "log_bytes" in row else "", right=True),
    Column("HEARD", lambda row: _heard(row), right=True),
    Column("DISK", lambda row: row.get("storage_id", "")[:8]),
)


def show_masters(
    context: typer.Context,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """The masters: who leads (*), and how far each has come with the registry.

    LAG: entries that the leader has and this one not yet. LOG: size of the log. HEARD: how long ago it heard from the
    leader. DISK: names the disk that speaks for it. Masters that are not among those named are found through them.
    The exit status is 1 when none leads.

    \b
    Examples:
      mesos-actor masters
      mesos-actor masters --masters 10.0.0.1:5050 --json
      mesos-actor masters transfer 10.0.0.2:5050
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    from mesos_actor.actors.client_registry import describe_masters

    standings = describe_masters(masters, key_dir, insecure, timeout)
    rows = master_rows(standings)
    print_rows(rows, MASTERS, as_json, "no masters")
    for row in rows:
        if hint := _waits(row):
            note(hint)
    if not any(row["leads"] for row in rows):
        fail("no master leads now: a majority of all masters must run and reach one another")


def _refuse_options_before(context: typer.Context) -> None:
    """`masters --json transfer` would do without the option, silently."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE":
            word = context.invoked_subcommand
            raise typer.BadParameter(f"write {parameter.opts[0]} after {word}, not before it")


def master_rows(standings: list[Standing]) -> list[dict[str, Any]]:
    """A row for each master; those that did not answer with what the leader knows of them."""
    from mesos_actor.actors.client_registry import leader_of

    leader = leader_of(standings)
    peers = {peer.name: peer for peer in leader.peers} if leader is not None else {}
    rows = []
    for standing in standings:
        one = standing.description
        row: dict[str, Any] = {"master": standing.name, "leads": one is not None and one is leader}
        if one is None:
            state = "no answer" if standing.problem == "no answer" else "refused"
            row |= {"state": state, "problem": standing.problem, "leads": False}
        else:
            row |= {
                "state": "old leader" if one.state == "leader" and one is not leader else one.state,
                "term": one.origin.term,
                "cluster_id": one.origin.cluster_id,
                "storage_id": one.origin.storage_id,
                "leader": one.leader.removeprefix("tcp://").removesuffix("/master"),
                "first_index": one.first_index,
                "last_index": one.last_index,
                "commit_index": one.commit_index,
                "applied_index": one.applied_index,
                "snapshot_index": one.snapshot_index,
                "log_bytes": one.log_bytes,
                "silent_ms": one.silent_ms,
                "missing": list(one.missing),
            }
        peer = peers.get(standing.name)
        known = one.last_index if one is not None else peer.match_index if peer is not None else None
        row["lag"] = max(0, leader.last_index - known) if leader is not None and known is not None else None
        rows.append(row)
    return rows


def _known(value: object) -> object:
    return "" if value is None else value


def _heard(row: Row) -> str:
    if row["leads"] or "silent_ms" not in row:
        return ""
    return "never" if row["silent_ms"] < 0 else f"{row['silent_ms']} ms"


def _size(count: int) -> str:
    amount, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB"):
        if amount < 1024:
            break
        amount, unit = amount / 1024, larger
    return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"


def _waits(row: Row) -> str:
    """What an operator can do for a master that does not take part yet."""
    others = ", ".join(row.get("missing", ()))
    if row["state"] == "founding":
        waits = (
            f"waits for {others}: start those, in a new cluster with --initialize, after an import without it"
            if others
            else "waits for the first leader"
        )
        return f"{row['master']} {waits}"
    if row["state"] == "learner":
        return f"{row['master']} has a new disk and no vote until the others, as a majority, let it in" + (
            f"; missing: {others}" if others else ""
        )
    return f"{row['master']}: {row['problem']}" if row["state"] == "refused" else ""


def transfer(
    to: Annotated[str, typer.Argument(metavar="[HOST:PORT]", help="Who is to lead. Without it: who has most.")] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 10.0,
) -> None:
    """Have another master lead, without a gap that anybody notices; prints who leads then.

    \b
    Example, before the leading master's host is taken down: mesos-actor masters transfer 10.0.0.2:5050
    """
    from mesos_actor.actors.client_registry import transfer_leadership
    from mesos_actor.actors.config_values import host_and_port, join_host_port

    wanted = join_host_port(*host_and_port("transfer", to)) if to else ""
    leader = transfer_leadership(masters, key_dir, insecure, timeout, wanted)
    print(f"{leader} leads")
    if wanted and leader != wanted:
        fail(f"{wanted} did not get the lead, {leader} did; see: mesos-actor masters")
