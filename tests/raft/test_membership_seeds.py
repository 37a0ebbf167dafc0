"""Disks that are lost, replaced, given up and found again, at random: never two leaders in a term, nothing is lost.

A disk is lost for good only while all others are there with everything; a disk that was thought lost may come back at
any moment in place of its successor, with all that it knew.
"""

from __future__ import annotations

import os
import random

import pytest

from mesos_actor.actors.errors import StorageError
from mesos_actor.raft.files import MemoryFiles
from mesos_actor.raft.leadership import Leadership
from mesos_actor.raft.membership import Membership
from tests.raft.group import Group, NotSoon, founded

SEEDS = int(os.environ.get("MESOS_ACTOR_TEST_SEEDS", "60"))
STEPS = 40


class Story:
    """One run: `play` does a random thing and lets time pass."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        size = self.rng.choice((3, 3, 5))
        self.group = founded(size, seed, keep_entries=self.rng.choice((0, 3, 100)))
        self.led: dict[int, str] = {}
        self.former: dict[str, MemoryFiles] = {}
        """The disk that was thought lost, of a master that has another one now."""
        self.record: dict[str, str] = {}
        """The disk that speaks for each master, by whoever has ever applied most."""
        self.record_index = 0

    def play(self) -> None:
        name = self.rng.choice(self.group.names)
        deeds = (self.write, self.cut, self.heal, self.crash, self.replace, self.bring_back, self.hide, self.haunt)
        self.rng.choice(deeds)(name)
        for _ in range(self.rng.randint(1, 60)):
            self.turn()

    def turn(self) -> None:
        try:
            self.group.turn()
        except StorageError as error:  # a disk that was replaced ends; whose, is told by nobody
            assert "was replaced" in str(error)
            self.end_replaced()
        for name, replica in self.group.up.items():
            if replica.engine.applied_index > self.record_index:
                self.record_index = replica.engine.applied_index
                self.record = {other: replica.machine.disk_of(other) for other in self.group.names}
            if replica.engine.leads:
                assert self.led.setdefault(replica.engine.term, name) == name, "two leaders in one term"

    def end_replaced(self) -> None:
        """Every process whose disk is not that on record ends, as does its directory."""
        for name, replica in list(self.group.up.items()):
            if not replica.members.waiting and not self.on_record(name):
                self.group.kill(name)
                self.group.files[name] = self.former.pop(name)
                self.group.start(name)

    def write(self, name: str) -> None:
        replica = self.group.up.get(name)
        if replica is not None and replica.leadership.ready:
            self.group.submit(name, self.rng.randint(1, 9_000))

    def cut(self, name: str) -> None:
        other = self.rng.choice(self.group.names)
        self.group.cut |= {(name, other)} if self.rng.random() < 0.3 else {(name, other), (other, name)}

    def heal(self, _name: str) -> None:
        self.group.heal()

    def crash(self, name: str) -> None:
        self.group.restart(name)

    def replace(self, name: str) -> None:
        """`name` begins with an empty disk; the former one is lost, or put aside."""
        if name in self.former:
            return
        ups = self.group.up
        settled = self.group.same() and all(self.on_record(other) for other in ups)
        keep = not settled or self.rng.random() < 0.5  # what it has may be needed
        self.group.crash(name)
        if keep:
            self.former[name] = self.group.files[name]
        self.group.files[name] = MemoryFiles()
        self.group.start(name, "replace")

    def hide(self, name: str) -> None:
        """`name` is not told that anybody has a new disk."""
        self.group.lose = lambda letter: letter.destination == name and "ReplaceMember" in repr(letter.message)

    def haunt(self, _name: str) -> None:
        """The leader is cut off just when it lets a new disk in, and the former one is found again."""
        for name in list(self.former):
            leader = next((other for other, one in self.group.up.items() if one.engine.leads and other != name), None)
            log = self.group.up[name].journal[1:]
            if leader is not None and any(b"ReplaceMember" in data for data, _, _ in log):
                self.group.isolate(leader)
                self.bring_back(name)

    def bring_back(self, name: str) -> None:
        """Its former disk is found again, and put in place of the new one, which is put aside."""
        if name in self.former:
            self.group.crash(name)
            self.former[name], self.group.files[name] = self.group.files[name], self.former[name]
            self.group.start(name)

    def on_record(self, name: str) -> bool:
        """Whether the disk that is in place speaks for `name`."""
        return self.record.get(name) == self.group.up[name].members.identity.storage_id

    def end(self) -> None:
        """Everybody can talk again, and who has the wrong disk gets the other one back: all come to rest."""
        self.group.heal()
        for turn in range(4_000):
            self.turn()
            if self.group.same() and all(self.on_record(name) for name in self.group.names):
                return
            if turn == 1_000:
                for name in [name for name in self.group.names if not self.on_record(name)]:
                    self.bring_back(name)
        raise NotSoon(f"no rest: {[(name, one.state, one.engine.term) for name, one in self.group.up.items()]}")


def run(seed: int) -> Group:
    story = Story(seed)
    for _ in range(STEPS):
        story.play()
        story.group.check()
    story.end()
    return story.group


@pytest.mark.parametrize("seed", range(SEEDS))
def test_replacing_loses_nothing(seed: int) -> None:
    run(seed).check()


def test_counting_a_new_disk_from_the_log_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """(A planted bug: the new disk commits its own admission.)"""
    begin_anew = Leadership._begin_anew
    monkeypatch.setattr(Membership, "counts", lambda self, name, disk: self.disk_of(name) == disk != "")
    monkeypatch.setattr(Leadership, "_begin_anew", lambda self, name, counts: begin_anew(self, name, True))
    for seed in range(400):
        try:
            run(seed)
        except (AssertionError, StorageError) as error:
            print(seed, repr(error)[:200])
            return
    pytest.fail("not found")
