"""Which process a fault may hit."""

from __future__ import annotations

import asyncio
import random
import signal
from pathlib import Path

import pytest

from mesos_actor.actors.chaos.faults import Fault, Faults
from mesos_actor.actors.chaos.leads import Lead, Leads
from mesos_actor.actors.chaos.processes import Kind, Part, Trouble


class Still(Part):
    """A part that only remembers what was done to it."""

    def __init__(self, kind: Kind, name: str, directory: Path) -> None:
        super().__init__(kind, name, directory, [], {})
        self.away = False
        self.alive = True
        self.signals: list[int] = []

    def is_alive(self) -> bool:
        return self.alive

    def signal(self, number: int) -> None:
        self.signals.append(number)

    def start(self, *arguments: str) -> None:
        self.alive = True

    async def until_ready(self) -> None:
        self.away = False


def faults(directory: Path, chosen: list[tuple[Fault, Kind]], masters: int = 3) -> Faults:
    parts = [Still("master", f"master-{n}", directory) for n in range(masters)]
    parts += [Still("agent", "agent-0", directory), Still("framework", "ledger-0", directory)]
    leads = Leads([])
    leads.all = [Lead(1, 1, "master-0")]
    return Faults(parts, leads, random.Random(0), chosen, {}, {})


@pytest.mark.parametrize(("masters", "minority"), [(1, 1), (3, 1), (5, 2)])
def test_no_more_than_a_minority_of_the_masters_is_stopped_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, masters: int, minority: int
) -> None:
    monkeypatch.setattr("mesos_actor.actors.chaos.faults.BETWEEN_S", (0, 0))
    monkeypatch.setattr("mesos_actor.actors.chaos.faults.TRY_LIMIT_S", 0)
    monkeypatch.setattr("mesos_actor.actors.chaos.faults.STOPPED_S", (0.05, 0.05))
    made = faults(tmp_path, [("pause", "master")], masters)

    async def run() -> int:
        for _ in range(10):
            await made.one()
        away = sum(part.away for part in made.masters)
        await made.repaired()
        return away

    assert asyncio.run(run()) == minority == made.done["pause master"]
    assert not any(part.away for part in made.parts)
    assert sum(part.signals == [signal.SIGSTOP, signal.SIGCONT] for part in made.parts if isinstance(part, Still)) == (
        minority
    )


def test_a_process_that_ends_by_itself_is_trouble_unless_it_may(tmp_path: Path) -> None:
    made = faults(tmp_path, [("kill", "agent")])
    made.look_for_trouble()
    framework = made.parts[-1]
    assert isinstance(framework, Still)
    framework.alive = False
    (tmp_path / "ledger-0.history").touch()
    made.look_for_trouble()
    (tmp_path / "ledger-0.history").unlink()

    with pytest.raises(Trouble, match="ledger-0 ended by itself"):
        made.look_for_trouble()


@pytest.mark.parametrize(("said", "well"), [("StorageError: no space", True), ("Traceback", False)])
def test_a_full_disk_may_end_a_process_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, well: bool
) -> None:
    monkeypatch.setattr("mesos_actor.actors.chaos.faults.BETWEEN_S", (0, 0))
    monkeypatch.setattr("mesos_actor.actors.chaos.faults.STOPPED_S", (0, 0))
    made = faults(tmp_path, [("disk-full", "agent")])
    agent = next(part for part in made.parts if part.kind == "agent")
    assert isinstance(agent, Still)
    made.disk_of["agent-0"] = tmp_path

    def fill(disk: Path) -> int:
        agent.log.write_text(said)
        agent.alive = False
        return 0

    monkeypatch.setattr("mesos_actor.actors.chaos.hosts.fill", fill)

    async def run() -> None:
        await made.one()
        await made.repaired()

    if well:
        asyncio.run(run())
        assert (made.stopped_full, agent.away, agent.alive) == (1, False, True)
    else:
        with pytest.raises(Trouble, match="it ended without saying so"):
            asyncio.run(run())
