"""Serving: start and init."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer


def register(app: typer.Typer) -> None:
    """Add this module's commands."""
    for command in (start, init):
        app.command()(command)


def start(
    masters: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT[,…]", help="The cluster's masters. Without it: a cluster of this host alone."),
    ] = None,
    role_as: Annotated[
        str | None,
        typer.Option(
            "--as",
            metavar="master|agent|both",
            help="What to be. Without it: a master when our own address is among the masters, else an agent.",
        ),
    ] = None,
    port: Annotated[int | None, typer.Option(help="Where to listen; 0: any free port.")] = None,
    bind: Annotated[str | None, typer.Option(metavar="HOST", help="The local address to listen on.")] = None,
    advertise: Annotated[str | None, typer.Option(metavar="HOST", help="How others reach this host.")] = None,
    hostname: Annotated[str | None, typer.Option(help="The name people know this host by.")] = None,
    work_dir: Annotated[str | None, typer.Option(metavar="DIR", help="Where state and sandboxes are kept.")] = None,
    resources: Annotated[
        str | None, typer.Option(help="What the agent offers: 'cpus:4;mem:8GiB'. The rest is detected.")
    ] = None,
    attributes: Annotated[str | None, typer.Option(help="Facts about the agent: 'rack:r1;os:debian'.")] = None,
    isolation: Annotated[
        str | None,
        typer.Option(
            metavar="cgroups|process",
            help="What keeps tasks apart. cgroups: limits hold; process: nobody keeps them. Without it: cgroups, and "
            "an agent whose host cannot says what is missing.",
        ),
    ] = None,
    cgroup_root: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The cgroup delegated to this agent. Without it: the one it is started in."),
    ] = None,
    volume_roots: Annotated[
        str | None, typer.Option(metavar="DIR[,…]", help="What is in these may be a volume of containers.")
    ] = None,
    confine_all: Annotated[
        bool, typer.Option("--confine-all", help="Confine commands without a container of their own, too.")
    ] = False,
    container_subnet: Annotated[
        str | None,
        typer.Option(
            metavar="NETWORK",
            help="Where containers of network bridge have their addresses; without it 172.30.0.0/16. Each agent of a "
            "host needs its own.",
        ),
    ] = None,
    containerizers: Annotated[
        str | None, typer.Option(metavar="NAME[,…]", help="More kinds of containers, by their entry points' names.")
    ] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE.toml", help="Settings from a file.")] = None,
    key_dir: Annotated[str | None, typer.Option(metavar="DIR", help="The cluster's keys (mesos-actor init).")] = None,
    initialize: Annotated[
        bool,
        typer.Option(
            "--initialize",
            help="The first start of a new cluster's master: makes its registry. Start each master so once.",
        ),
    ] = False,
    replace: Annotated[
        bool,
        typer.Option(
            "--replace",
            help="This master's disk is lost: join again under its name with an empty one, while all others run.",
        ),
    ] = False,
    insecure: Annotated[bool, typer.Option("--insecure", help="No encryption and no authentication at all.")] = False,
    log_json: Annotated[bool, typer.Option("--log-json", help="Logs as one JSON object a line.")] = False,
    log_level: Annotated[str | None, typer.Option(metavar="debug|info|warning|error", help="What to log.")] = None,
    ready_file: Annotated[
        str | None, typer.Option(metavar="FILE", help="Gets a JSON object with our address once we take part.")
    ] = None,
) -> None:
    """Start a master, an agent, or both on this host, in the foreground.

    Every option can also be given as MESOS_ACTOR_… in the environment, or in the file that --config names.

    \b
    Examples:
      mesos-actor start
      mesos-actor start --masters 10.0.0.1,10.0.0.2,10.0.0.3 --initialize
      mesos-actor start --masters 10.0.0.1,10.0.0.2,10.0.0.3 --resources 'cpus:8;mem:16GiB' --attributes rack:r1
    """
    from mesos_actor.actors.config import load_config, own_hosts, own_master, part_of

    options = {
        "masters": masters,
        "as": role_as,
        "port": port,
        "bind": bind,
        "advertise": advertise,
        "hostname": hostname,
        "work_dir": work_dir,
        "resources": resources,
        "attributes": attributes,
        "isolation": isolation,
        "cgroup_root": cgroup_root,
        "containerizers": containerizers,
        "volume_roots": volume_roots,
        "confine_all": confine_all or None,
        "container_subnet": container_subnet,
        "config": config,
        "key_dir": key_dir,
        "initialize": initialize or None,
        "replace": replace or None,
        "insecure": insecure or None,
        "log_json": log_json or None,
        "log_level": log_level,
    }
    given = {name: value for name, value in options.items() if value is not None}
    # Everything that can be judged is judged here, where an error is one line; then the process becomes the host
    # itself, without what a command line needs in memory.
    checked = load_config(dict(given))
    own = own_hosts(checked.masters)
    part = part_of(checked, own)
    if part.role != "agent":
        own_master(checked, part, own)
    if ready_file is not None:
        given["ready_file"] = str(Path(ready_file).absolute())
        Path(ready_file).unlink(missing_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "mesos_actor.actors.host", json.dumps(given)])


def init(
    key_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", envvar="MESOS_ACTOR_KEY_DIR", help="Where to put the key."),
    ] = None,
    client: Annotated[
        bool, typer.Option("--client", help="Make a key for a user who must not hold the cluster's own.")
    ] = False,
) -> None:
    """Make the key of a new cluster; copy the directory to every master and agent.

    With --client, a key for one user instead: put the printed line into authorized/NAME.pub on masters and agents, and
    the cluster's cluster.pub beside client.key.
    """
    from mesos_actor.transport.security import create_client_key, create_cluster_key, user_key_dir

    directory = Path(key_dir).expanduser() if key_dir else user_key_dir()
    if client:
        print(create_client_key(directory))
        return
    create_cluster_key(directory)
    print(f"a new cluster key is in {directory}; copy the directory to every master and agent, readable by you alone")
