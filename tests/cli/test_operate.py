"""What commands for operators print."""

from __future__ import annotations

from typing import Any

import pytest

from mesos_actor.actors.cli.operate import SERVICES
from mesos_actor.actors.cli.output import print_rows


def row(**given: Any) -> dict[str, Any]:
    return {"name": "web", "framework_id": "c-0000", "state": "active", "copies": [], **given}


def test_services_show_how_often_their_copies_have_failed(capsys: pytest.CaptureFixture[str]) -> None:
    copies = [{"task_id": "web.0.7", "failures": 3}, {"task_id": "web.1.2", "failures": 2}]
    running = row(running=1, instances=2, version=1, copies=copies)
    away = row(name="db", state="disconnected")

    print_rows([running, away], SERVICES, as_json=False, empty="none")

    heading, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    shown = dict(zip(heading, first, strict=True))
    assert (shown["RUNNING"], shown["FAILURES"], shown["COPIES"]) == ("1/2", "5", "web.0.7,web.1.2")
    assert dict(zip(heading[:5], second, strict=False))["FAILURES"] == "0"
