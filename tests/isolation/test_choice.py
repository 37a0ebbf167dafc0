"""Which isolation an agent gets, and what it is told where it gets none."""

from __future__ import annotations

from typing import Literal

import pytest

from mesos_actor.actors.errors import ConfigError
from mesos_actor.isolation.cgroup_host import Missing
from mesos_actor.isolation.choice import Choice, choose

MISSING = (Missing("this host has no cgroup v2", "boot another kernel"), Missing("x cannot be written", "be root"))
Asked = Literal["cgroups", "process"] | None


@pytest.mark.parametrize("trial", [True, False])
@pytest.mark.parametrize("asked", ["cgroups", None])
def test_cgroups_are_the_default_where_the_host_can(asked: Asked, trial: bool) -> None:
    assert choose(asked, trial=trial, missing=()) == Choice("cgroups")


@pytest.mark.parametrize("trial", [True, False])
@pytest.mark.parametrize("missing", [(), MISSING])
def test_process_is_what_was_asked_for_and_no_warning(trial: bool, missing: tuple[Missing, ...]) -> None:
    assert choose("process", trial=trial, missing=missing) == Choice("process")


@pytest.mark.parametrize(("asked", "trial"), [("cgroups", True), ("cgroups", False), (None, False)])
def test_host_that_cannot_is_refused_with_all_that_is_missing(asked: Asked, trial: bool) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(asked, trial=trial, missing=MISSING)
    assert str(caught.value) == (
        "isolation: cgroups cannot be used on this host: this host has no cgroup v2: boot another kernel; x cannot be "
        "written: be root; or start it with --isolation process, which keeps no limits"
    )


def test_trial_goes_on_with_a_warning() -> None:
    choice = choose(None, trial=True, missing=MISSING)

    assert choice.name == "process"
    assert choice.warning.startswith(
        "tasks are not kept apart (isolation: process), because this host has no cgroup v2"
    )
