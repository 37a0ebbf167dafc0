"""The options that every command which talks to a cluster takes, declared once."""

from __future__ import annotations

from typing import Annotated

import typer

Masters = Annotated[
    str,
    typer.Option(
        "--masters",
        metavar="HOST:PORT[,…]",
        envvar="MESOS_ACTOR_MASTERS",
        help="Where masters may be found. Without it: this user's one-host cluster, 127.0.0.1:5050.",
    ),
]
KeyDir = Annotated[
    str,
    typer.Option(
        "--key-dir",
        metavar="DIR",
        envvar="MESOS_ACTOR_KEY_DIR",
        help="The directory with this cluster's keys. Without it: ~/.config/mesos-actor/keys.",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option("--insecure", envvar="MESOS_ACTOR_INSECURE", help="Talk without encryption to a cluster started so."),
]
Timeout = Annotated[
    float,
    typer.Option("--timeout", metavar="SECONDS", help="Give up when no master answers for so long.", min=0.1),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
