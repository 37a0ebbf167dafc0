"""The application is built for one command at a time, and is the same as the whole."""

from __future__ import annotations

import pytest
import typer

from mesos_actor.actors.cli.app import MODULES, application


def names(app: typer.Typer) -> list[str]:
    return list(typer.main.get_command(app).commands)  # type: ignore[attr-defined]


@pytest.mark.parametrize("module", MODULES)
def test_each_module_has_the_commands_that_lead_to_it(module: str) -> None:
    for command in MODULES[module]:
        assert sorted(names(application(command))) == sorted(MODULES[module])


def test_a_word_that_is_no_command_gets_all_of_them() -> None:
    everything = [command for commands in MODULES.values() for command in commands]

    assert sorted(names(application("--help"))) == sorted(names(application("bogus"))) == sorted(everything)
