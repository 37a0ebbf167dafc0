"""All commands in one Typer application, and the one place where errors become one line and an exit status."""

from __future__ import annotations

import importlib
import os
import sys

import typer
from typer.completion import completion_init  # type: ignore[attr-defined]
from typer.exceptions import Abort, TyperException

from mesos_actor.actors.cli.output import fail
from mesos_actor.actors.errors import ConfigError, InvalidInput, MesosActorError

COMPLETE_VARIABLE = "_MESOS_ACTOR_COMPLETE"
"""Set by the script that `mesos-actor completion` prints, when the shell asks what could come next."""

CLIENT_VARIABLES = {"MESOS_ACTOR_MASTERS", "MESOS_ACTOR_KEY_DIR", "MESOS_ACTOR_INSECURE"}
"""What options.py reads."""
MODULES = {
    "serve": ("start", "init"),
    "work": ("run", "submit", "wait", "kill", "teardown", "logs"),
    "show": ("status", "agents", "frameworks", "tasks", "offers", "roles", "why", "top"),
    "masters": ("masters",),
    "registry": ("registry",),
    "simulate": ("sim", "replay"),
    "operate": ("service", "weight", "gone", "completion"),
    "chaos": ("chaos",),
}
"""Module -> its commands, in the order of the help."""


def application(command: str = "") -> typer.Typer:
    """The Typer application, with the commands of one module when `command` is among them, else with all: each command
    costs two milliseconds to build, whether it is the one that is called or not."""
    app = typer.Typer(
        name="mesos-actor",
        help="Make many machines look like one computer, and share it among many frameworks.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback(invoke_without_command=True)(_root)
    wanted = [module for module, commands in MODULES.items() if command in commands] or list(MODULES)
    for name in wanted:
        importlib.import_module(f"mesos_actor.actors.cli.{name}").register(app)
    return app


def _root(version: bool = typer.Option(False, "--version", "-V", help="Print the version and exit.")) -> None:
    if version:
        from mesos_actor._version import __version__

        print(f"mesos-actor {__version__}")
        raise typer.Exit


def _check_environment() -> None:
    """A misspelt variable must not send a command to another cluster. The usual ones cost no import."""
    if any(name.startswith("MESOS_ACTOR_") and name not in CLIENT_VARIABLES for name in os.environ):
        from mesos_actor.actors.config import known_variables

        known_variables(os.environ)


def run(arguments: list[str]) -> None:
    """Run one command line; ends the process with its status."""
    completing = COMPLETE_VARIABLE in os.environ
    if not completing:
        try:
            _check_environment()
        except ConfigError as error:
            fail(str(error), 2)
    command = typer.main.get_command(application("" if completing else next(iter(arguments), "")))
    if completing:
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
