"""The options that every command which talks to a cluster takes, declared once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

MAX_SECONDS = 100 * 365 * 24 * 3_600
"""Longer times are taken for a mistake, as the master does: they would overflow somebody's clock."""


def seconds(least: float) -> Callable[[str], float]:
    """Reads a number of seconds from the command line; an error names what was written."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not least <= value < float("inf"):
            raise typer.BadParameter(f"{text!r} is not a number of seconds; write one of at least {least:g}")
        if value > MAX_SECONDS:
            raise typer.BadParameter(f"{text!r} seconds are longer than 100 years; write at most {MAX_SECONDS}")
        return value

    return read


def whole(least: int, most: int = 1_000_000_000) -> Callable[[str], int]:
    """Reads a whole number from the command line; an error names what was written."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise typer.BadParameter(f"{text!r} is not a whole number from {least} to {most}")
        return value

    return read


def choice(*words: str) -> Callable[[str], str]:
    """Reads one of `words` from the command line, in whatever case; empty is none of them, and allowed."""

    def read(text: str) -> str:
        if not text:
            return ""
        for word in words:
            if word.lower() == text.strip().lower():
                return word
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(words)}")

    return read


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
    typer.Option(
        "--timeout", metavar="SECONDS", help="Give up when no master answers for so long.", parser=seconds(0.1)
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")]
