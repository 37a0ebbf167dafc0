"""What the masters keep: registry show|export|import."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesos_actor.actors.cli.options import AsJson, Insecure, KeyDir, Masters, Timeout
from mesos_actor.actors.cli.output import Column, Row, age, fail, note, print_object, print_rows

if TYPE_CHECKING:
    from mesos_actor.actors.client_registry import RegistryText
    from mesos_actor.raft.backup import Backup

registry = typer.Typer(help="What the masters keep: show, export, import.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    registry.command()(show)
    registry.command(name="export")(export)
    registry.command(name="import")(import_)
    app.add_typer(registry, name="registry")


STORE_FILE, REGISTRY = "state.sqlite3", "registry"
"""Names in a work directory, as in host.py; importing that would load all of a server."""
WORK_DIR_MODE = 0o711
BACKUP_MODE = 0o600
"""Labels of frameworks are in it."""

Stale = Annotated[
    bool, typer.Option("--stale", help="Take what any one master has, even if none leads; it may be behind.")
]
MEMBERS = (
    Column("MASTER", lambda row: "(this host alone)" if row["name"] == "single" else row["name"]),
    Column("DISK", lambda row: row["storage_id"][:8]),
    Column("SINCE", lambda row: age(row.get("since_us", 0)), right=True),
)
AGENTS = (
    Column("AGENT", "agent_id"),
    Column("HOST", lambda row: row["info"]["hostname"]),
    Column("ADDRESS", lambda row: row["info"]["address"].removeprefix("tcp://").removesuffix("/agent")),
    Column("STATE", lambda row: row.get("state", "admitted")),
    Column("SINCE", lambda row: age(row.get("since_us", 0)), right=True),
)
FRAMEWORKS = (
    Column("FRAMEWORK", "framework_id"),
    Column("NAME", lambda row: row["info"]["name"]),
    Column("STATE", lambda row: _framework_state(row)),
    Column("LEFT", lambda row: _left(row), right=True),
    Column("OUTCOME", "outcome"),
)
WEIGHTS = (Column("ROLE", "role"), Column("WEIGHT", lambda row: f"{row['weight_milli'] / 1000:g}", right=True))
TABLES = (
    ("MemberRecord", "masters", MEMBERS),
    ("AgentRecord", "agents", AGENTS),
    ("FrameworkRecord", "frameworks", FRAMEWORKS),
    ("WeightRecord", "weights", WEIGHTS),
)


def _framework_state(row: Row) -> str:
    if row.get("removed"):
        return "removed"
    return "disconnected" if row.get("deadline_us") else "connected"


def _left(row: Row) -> str:
    """Of the time in which a disconnected framework may come back."""
    if not row.get("deadline_us"):
        return ""
    return f"{max(0, row['deadline_us'] / 1_000_000 - time.time()):.0f} s"


def show(
    stale: Stale = False,
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 5.0,
    as_json: AsJson = False,
) -> None:
    """What is replicated: the cluster, its masters' disks, agents, frameworks, weights.

    \b
    Examples:
      mesos-actor registry show
      mesos-actor registry show --stale --masters 10.0.0.3:5050
    """
    from mesos_actor.raft.backup import decode_backup, digest

    text = _ask_for_registry(masters, key_dir, insecure, timeout, stale)
    backup = decode_backup(text.data)
    kinds: dict[str, list[Row]] = {kind: [] for kind in ("ClusterRecord", *(kind for kind, _, _ in TABLES))}
    for row in _plain(backup):
        kinds[row["t"]].append(row)
    head = {
        "cluster_id": backup.cluster_id,
        "as_of": f"index {backup.index}, term {backup.term}" + (f", {_freshness(text)}" if stale else ""),
        "digest": digest(backup),
        **{name: len(kinds[kind]) for kind, name, _ in TABLES},
    }
    if as_json:
        rows = {name: kinds[kind] for kind, name, _ in TABLES}
        facts = {"index": backup.index, "term": backup.term, "source": text.source, "leader": text.leader}
        head = {**head, **facts, "silent_ms": text.silent_ms, "cluster": kinds["ClusterRecord"][0], **rows}
        del head["as_of"]
        print_object(head, True)
        return
    print_object(head, False)
    for kind, _, columns in TABLES:
        if kinds[kind]:
            print()
            print_rows(kinds[kind], columns, False, "")


def _plain(backup: Backup) -> list[dict[str, Any]]:
    import msgspec

    return [msgspec.to_builtins(record) for record in backup.records]


def _ask_for_registry(masters: str, key_dir: str, insecure: bool, timeout: float, stale: bool) -> RegistryText:
    from mesos_actor.actors.client_registry import registry_text

    return registry_text(masters, key_dir, insecure, timeout, stale)


def _freshness(text: RegistryText) -> str:
    """How old the answer of any one replica may be."""
    if text.leader == text.source:
        return f"from {text.source}, which leads or believes so"
    heard = "leader never heard" if text.silent_ms < 0 else f"leader heard {text.silent_ms} ms ago"
    return f"from {text.source}, {heard}"


def export(
    file: Annotated[
        str, typer.Argument(metavar="[FILE|-]", help="Where to write; - or nothing: standard output.")
    ] = "-",
    stale: Stale = False,
    work_dir: Annotated[
        str, typer.Option(metavar="DIR", help="Read the work directory of a stopped master instead of a cluster.")
    ] = "",
    masters: Masters = "",
    key_dir: KeyDir = "",
    insecure: Insecure = False,
    timeout: Timeout = 10.0,
) -> None:
    """Write the whole registry as one JSON file: a backup.

    From a running cluster it is everything that was acknowledged. With --work-dir it is what one disk has: for when a
    majority of the masters is lost for ever. It may lack what the lost masters had acknowledged without this one, and
    may hold what never was acknowledged.

    \b
    Examples:
      mesos-actor registry export /var/backups/registry-$(date +%F).json
      mesos-actor registry export saved.json --work-dir /var/lib/mesos-actor
    """
    from mesos_actor.raft.backup import decode_backup, encode_backup

    if work_dir and stale:
        raise typer.BadParameter("--stale asks a running master, --work-dir reads a stopped one; give one of them")
    if work_dir:
        backup = _from_directory(Path(work_dir).expanduser().absolute())
        data = encode_backup(backup.records, backup.index, backup.term, backup.exported_us)
    else:
        text = _ask_for_registry(masters, key_dir, insecure, timeout, stale)
        data, backup = text.data, decode_backup(text.data)
        if stale:
            note(f"warning: {_freshness(text)}: this may lack what was acknowledged since")
    _write(file, data)
    note(f"exported {_summary(backup)}")


def _from_directory(work_dir: Path) -> Backup:
    from mesos_actor.raft.offline import export_directory

    places = [work_dir / "master" / REGISTRY, work_dir / REGISTRY]
    there = [place for place in places if place.is_dir()]
    if len(there) != 1:
        number = "no" if not there else "more than one"
        raise typer.BadParameter(
            f"--work-dir: {work_dir} holds {number} registry ({places[0]} or {places[1]}); name the --work-dir that "
            "the master was started with"
        )
    backup = export_directory(there[0], int(time.time() * 1_000_000))
    note(
        "warning: this is what one disk has: it may lack what a majority acknowledged without it, and may hold what "
        "never was acknowledged. While a majority of the masters can still be started, start them and export from them."
    )
    note(
        f"of several surviving disks, use the one with the highest term, and of those the highest index; this one: "
        f"term {backup.term}, index {backup.index}"
    )
    return backup


def _summary(backup: Backup) -> str:
    from mesos_actor.raft.backup import digest

    counts = {name: sum(type(r).__name__ == kind for r in backup.records) for kind, name, _ in TABLES}
    listed = ", ".join(f"{count} {name}" for name, count in counts.items())
    return f"cluster {backup.cluster_id} as of index {backup.index}: {listed}; digest {digest(backup)}"


def _write(file: str, data: bytes) -> None:
    """All of it under its name, or nothing."""
    if file == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    path = Path(file).expanduser().absolute()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)  # a pipe or a device: it cannot be replaced, and need not be
            return
        descriptor, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(descriptor, "wb") as opened:
                opened.write(data)
                opened.flush()
                os.fsync(opened.fileno())
            Path(partial).chmod(BACKUP_MODE)
            Path(partial).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(partial).unlink()
            raise
    except OSError as error:
        fail(f"{path}: {error.strerror or error}")


def import_(
    file: Annotated[Path, typer.Argument(help="What `registry export` wrote; - reads standard input.")],
    work_dir: Annotated[str, typer.Option(metavar="DIR", help="The new, empty work directory of a stopped master.")],
    masters: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT[,…]", help="All masters, as in start. Without it: a cluster of this host."),
    ] = None,
    role_as: Annotated[str | None, typer.Option("--as", metavar="master|both", help="As in start.")] = None,
    port: Annotated[int | None, typer.Option(help="As in start: says which of the masters this is.")] = None,
    advertise: Annotated[str | None, typer.Option(metavar="HOST", help="As in start.")] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE.toml", help="As in start.")] = None,
) -> None:
    """Prepare the work directory of a master that begins with an exported registry.

    Do this on every master, with the same file and an empty work directory each, while all of them are stopped; then
    start them as always. What came after the export is forgotten. The old disks must never be started again.

    \b
    Example, on each of three hosts:
      mesos-actor registry import saved.json --work-dir /srv/mesos-actor --masters 10.0.0.1,10.0.0.2,10.0.0.3
    """
    from mesos_actor.actors.config import load_config, own_hosts, own_master, part_of
    from mesos_actor.actors.config_values import refused
    from mesos_actor.raft.backup import decode_backup
    from mesos_actor.raft.offline import import_directory

    options = {"masters": masters, "as": role_as, "port": port, "advertise": advertise, "config": config}
    settings = load_config({**options, "work_dir": work_dir})
    own = own_hosts(settings.masters)
    part = part_of(settings, own)
    if part.role == "agent":
        listed = ", ".join(settings.masters)
        raise refused("masters", listed, "does not name this host", "run this on a master, with its --port or --as")
    member = own_master(settings, part, own)
    path = _new_place(settings.work_dir, alone=part.role == "both")
    backup = decode_backup(_read(file))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=WORK_DIR_MODE)
    except OSError as error:
        fail(f"work_dir: {path.parent} cannot be made: {error.strerror}; name a directory this user may write to")
    import_directory(path, backup, member, settings.masters or (member,), time.time_ns() // 1_000)
    print(f"{path}: {_summary(backup)}")
    others = [one for one in settings.masters if one != member]
    if others:
        note(f"next: import the same file on {', '.join(others)}; each must print the same digest")
    note(f"then: start {'them all' if others else 'it'} as always, without --initialize or --replace")
    note(
        "warning: never start a former disk of these masters again: it knows another past of the same cluster. The new "
        "disks have ids of their own, so that the others refuse the former ones; remove those."
    )


def _new_place(work_dir: Path, alone: bool) -> Path:
    """Where the registry of a master goes. Raises ConfigError when something is in its way."""
    from mesos_actor.actors.config_values import refused

    path = work_dir / REGISTRY if alone else work_dir / "master" / REGISTRY
    ours = path if alone else path.parent
    used_otherwise = work_dir / "master" / REGISTRY if alone else work_dir / STORE_FILE
    try:
        if (ours.is_dir() and any(ours.iterdir())) or (ours.exists() and not ours.is_dir()):
            raise refused("work_dir", str(ours), "is not empty", "import into a new directory; keep the old one apart")
        if used_otherwise.exists() or (not alone and (work_dir / REGISTRY).exists()):
            was = "a master of several" if alone else "a cluster of one host"
            raise refused("work_dir", str(work_dir), f"was used by {was}", "import into a new directory")
    except OSError as error:
        fail(f"work_dir: {ours} cannot be read: {error.strerror}; name a directory this user may read")
    return path


def _read(file: Path) -> bytes:
    from mesos_actor.raft.backup import MAX_BACKUP_BYTES

    try:
        if str(file) == "-":
            return sys.stdin.buffer.read(MAX_BACKUP_BYTES + 1)
        with file.expanduser().open("rb") as opened:
            return opened.read(MAX_BACKUP_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        fail(f"{file}: {reason}; name a file that `mesos-actor registry export` has written", 2)
