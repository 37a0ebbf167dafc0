"""The command `mesos-actor`. Each group of commands is a module, loaded only when one of them is called."""

from __future__ import annotations

import sys


def main() -> None:
    """The entry point. Exit status: 0 done, 1 failed with one line on standard error, 2 the words were wrong."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-V"]):
        from mesos_actor._version import __version__

        print(f"mesos-actor {__version__}")
        return
    from mesos_actor.actors.cli.app import run

    run(arguments)
