"""All commands in one Typer application, and the one place where errors become one line and an exit status."""

from __future__ import annotations

import os
import sys

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.exceptions import Abort, TyperException

from mesos_actor.actors.cli import operate, serve, show, work
from mesos_actor.actors.cli.output import fail
from mesos_actor.actors.errors import ConfigError, InvalidInput, MesosActorError

COMPLETE_VARIABLE = "_MESOS_ACTOR_COMPLETE"
"""Set by the script that `mesos-actor completion` prints, when the shell asks what could come next."""

app = typer.Typer(
    name="mesos-actor",
    help="Make many machines look like one computer, and share it among many frameworks.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for module in (serve, work, show, operate):
    module.register(app)


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit.")) -> None:
    if version:
        from mesos_actor._version import __version__

        print(f"mesos-actor {__version__}")
        raise typer.Exit


def run(arguments: list[str]) -> None:
    """Run one command line; ends the process with its status."""
    command = typer.main.get_command(app)
    if COMPLETE_VARIABLE in os.environ:
        completion_init()
    try:
        status = command.main(
            arguments or ["--help"],
            prog_name="mesos-actor",
            standalone_mode=False,
            complete_var=COMPLETE_VARIABLE,
        )
    except TyperException as error:
        # The text names the option; the usage block that goes with it elsewhere would hide it.
        fail(error.format_message(), error.exit_code)
    except (Abort, KeyboardInterrupt):
        raise SystemExit(130) from None
    except (ConfigError, InvalidInput) as error:
        fail(str(error), 2)
    except MesosActorError as error:
        fail(str(error))
    except BrokenPipeError:
        # Whoever read us has gone (`| head`); that is no failure of ours.
        sys.stderr.close()
        raise SystemExit(0) from None
    sys.exit(status if isinstance(status, int) else 0)
