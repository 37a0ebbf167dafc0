"""The dangers of stock pysyncobj 0.3.17 (docs/registry.md), each against our replica: R1 to R15 lose or corrupt what
was acknowledged, L1 to L7 hold the group up. One test at least for each, with the danger in its first sentence.
"""

from __future__ import annotations

import itertools
import os
import pickle
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from mesos_actor.actors.errors import ConfigError, InternalError, LocalError, PeerError, StorageError
from mesos_actor.actors.ids import Address, OperationId, Role, Term
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.raft import (
    Appended,
    AppendEntries,
    ChunkTaken,
    InstallChunk,
    LogEntry,
    RequestVote,
    Vote,
)
from mesos_actor.actors.messages.registry import Committed, ProposalRefused, Propose, SetWeight
from mesos_actor.raft import engine as engine_module
from mesos_actor.raft import machine as machine_module
from mesos_actor.raft import progress as progress_module
from mesos_actor.raft.engine import NO_OP
from mesos_actor.raft.files import REPLACE_STEPS, Died, MemoryFiles
from mesos_actor.raft.journal import MAX_COMMAND_BYTES
from mesos_actor.raft.machine import Machine, Proposal, encode_proposal
from mesos_actor.raft.replica import Replica
from mesos_actor.raft.snapshot import Snapshot, SnapshotStore, encode_snapshot
from mesos_actor.testing import cluster
from mesos_actor.transport.codec import decode_message
from mesos_actor.transport.sim.host import SimOutlet
from tests.raft.group import CLUSTER, DISKS, Group, Letter, Lone, entry, founded


def deposed_with(group: Group, old: str, new: str, unacknowledged: int) -> list[OperationId]:
    """`old` leads on its side of a cut and has so many entries of its own; `new` leads the others."""
    group.isolate(old)
    mine = [group.submit(old, 7_000 + n) for n in range(unacknowledged)]
    group.flush(old)
    group.settle(old)
    group.elect(new)
    return mine


def elected(lone: Lone, voters: tuple[str, ...]) -> Replica:
    """The lone member leads, by the votes of these."""
    replica = lone.replica
    lone.now_s += 5
    lone.settle()
    term = replica.engine.term + 1
    for name in voters:
        lone.hear(name, Vote(lone.origin(name, term - 1), Term(term), True, pre=True))
    lone.settle()
    for name in voters:
        lone.hear(name, Vote(lone.origin(name, term), Term(term), True))
    lone.settle()
    assert replica.engine.leads
    return replica


# -- R1 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [100, 1 << 18])
def test_r1_a_snapshot_commits_nothing_of_ones_own(monkeypatch: pytest.MonkeyPatch, chunk_bytes: int) -> None:
    """A deposed leader that is sent a snapshot commits its own uncommitted entries and acknowledges them."""
    monkeypatch.setattr(progress_module, "CHUNK_BYTES", chunk_bytes)
    group = founded(3, leader="a")
    mine = deposed_with(group, "a", "b", 3)
    for n in range(10):
        group.write("b", 100 + n)
    group.up["b"].take_snapshot(0)
    assert group.up["b"].journal.first_index > group.up["a"].engine.commit_index
    committed = group.up["a"].engine.commit_index
    chunks: list[Letter] = []

    def lose(letter: Letter) -> bool:
        if isinstance(letter.message, InstallChunk):
            chunks.append(letter)
            assert group.up["a"].engine.commit_index in (committed, letter.message.index), "all of it or nothing"
        return False

    group.heal()
    group.lose = lose
    group.until(lambda: group.weight("a") == 109)

    assert not set(mine) & set(group.answers)
    assert {chunk.destination for chunk in chunks} == {"a"}
    assert len(chunks) == 1 or chunk_bytes == 100
    assert not any(operation.encode() in data for operation in mine for _, _, data in group.applied["a"])
    group.until(group.same)
    group.check()


# -- R2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", REPLACE_STEPS)
def test_r2_a_power_cut_while_all_save_loses_nothing(step: str) -> None:
    """All replicas compact at the same entry, and are killed in the middle of it: snapshot and log do not fit."""
    group = founded(3, segment_bytes=300)
    operations = [group.write("a", 100 + n) for n in range(20)]
    group.until(group.same)
    for name in group.names:
        group.files[name].die_in_replace = step
        with pytest.raises(Died):
            group.up[name].take_snapshot(0)
    for name in group.names:
        group.files[name].die_in_replace = None
        group.restart(name)

    group.until(lambda: any(replica.leadership.ready for replica in group.up.values()))
    group.until(group.same)

    assert [group.weight(name) for name in group.names] == [119] * 3
    assert set(operations) == set(group.answers)
    group.check()


def test_r2_nothing_forks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A forked child finishes its dump after the parent was killed, behind the next process's back."""

    def fork() -> int:
        raise AssertionError("fork")

    for name in ("fork", "forkpty", "posix_spawn"):
        monkeypatch.setattr(os, name, fork)
    group = founded(3, compact_entries=4, segment_bytes=300)
    for n in range(10):
        group.write("a", 100 + n)
    group.until(group.same)
    assert all(replica.snapshot_index > 4 for replica in group.up.values())


# -- R3 ---------------------------------------------------------------------------------------------------------------


def test_r3_an_old_message_cuts_off_nothing() -> None:
    """A follower cuts off everything behind a message's place in the log, also what agrees with the leader."""
    lone = Lone()
    entries = [entry(index, 1, index) for index in range(3, 43)]
    lone.hear("b", lone.append("b", 1, (2, 1), entries, commit=30))
    lone.settle()

    for begin, count in itertools.product(range(0, 40, 3), (0, 1, 5)):
        previous = (2 + begin, 1)
        lone.hear("b", lone.append("b", 1, previous, entries[begin : begin + count], commit=2))
        lone.settle()
        assert lone.replica.journal.last_index == 42
        assert lone.replica.engine.commit_index == 30
    assert len(lone.log()) == 42


def test_r3_acknowledged_writes_survive_resending_and_the_leaders_death(monkeypatch: pytest.MonkeyPatch) -> None:
    """The leader resends what is in flight and dies before the rest: what the majority had acknowledged is gone."""
    monkeypatch.setattr(progress_module, "MAX_BATCH_BYTES", 300)
    group = founded(3, leader="a")
    group.isolate("c")
    operations = [group.submit("a", 100 + n) for n in range(60)]
    sent: list[Letter] = []

    def note(letter: Letter) -> bool:
        sent.append(letter)
        return False

    group.lose = note
    group.until(lambda: set(operations) <= set(group.answers))
    entries = [letter for letter in sent if isinstance(letter.message, AppendEntries) and letter.destination == "b"]
    assert len(entries) > 10
    for letter in (*entries, *reversed(entries)):
        group.receive(letter)
        group.settle("b")
    group.crash("a")
    group.heal()
    group.elect("b")
    group.until(group.same)

    assert group.weight("c") == 159
    group.check()


# -- R4, R5 -----------------------------------------------------------------------------------------------------------


def test_r4_an_answer_that_fails_applies_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """What answers the client raises, and the command is applied a second time."""
    sim = cluster(agents=0, masters=3, seed=4, tolerate_failures=True)
    sim.until(lambda: sim.leading() is not None)
    send = SimOutlet.send
    failures: list[Message] = []

    def send_or_fail(self: SimOutlet, to: Address, message: Message, cause: str = "") -> None:
        if isinstance(message, Committed) and not failures:
            failures.append(message)
            raise ValueError("cannot answer")
        send(self, to, message, cause)

    monkeypatch.setattr(SimOutlet, "send", send_or_fail)
    leader = sim.leading_host()
    assert leader is not None
    leader.host.post("master", SetRoleWeight(OperationId("one"), Role("r"), 2_000))
    sim.until(lambda: bool(failures))
    sim.until(lambda: sim.leading_host() not in (None, leader))
    assert isinstance(leader.host.failure, StorageError), "a replica that has stopped halfway must not go on"
    assert "a bug has stopped this replica halfway" in str(leader.host.failure)
    leader.start()
    other = sim.leading_host()
    assert other is not None
    other.host.post("master", SetRoleWeight(OperationId("two"), Role("r"), 3_000))
    sim.run(3)

    assert len(sim.world.failures) == 1
    for master in sim.masters:
        indexes = [index for index, _, _ in master.applied]
        if master is not leader:
            assert indexes == list(range(2, 2 + len(indexes)))
        assert master.replica.machine.state.weights[Role("r")].weight_milli == 3_000


def test_r5_a_command_that_cannot_be_applied_holds_nothing_up() -> None:
    """A command that raises is tried again for ever, and everything behind it waits."""
    group = founded(3)
    refused = group.propose("a", SetWeight(Role("no/../good"), 1_000), "client-P900")
    stale = encode_proposal(Proposal(OperationId("client-P901"), Term(77), SetWeight(Role("r"), 1)))
    group.up["a"].submit(stale)
    group.write("a", 5_000)
    group.until(group.same)

    assert group.answers[refused][2].outcome != group.answers[OperationId("client-P1")][2].outcome
    assert [group.weight(name) for name in group.names] == [5_000] * 3


def test_a_command_that_is_too_large_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """It never came into the log, so nobody should be told that its outcome is not known."""
    sim = cluster(agents=0, masters=3, seed=5)
    sim.until(lambda: sim.leading() is not None)
    leader = sim.leading_host()
    assert leader is not None
    send = SimOutlet.send
    refused: list[ProposalRefused] = []

    def note(self: SimOutlet, to: Address, message: Message, cause: str = "") -> None:
        refused.extend([message] if isinstance(message, ProposalRefused) else [])
        send(self, to, message, cause)

    monkeypatch.setattr(SimOutlet, "send", note)
    command = SetWeight(Role("x" * (2 << 20)), 1_000)
    leader.host.post("registry", Propose(OperationId("big"), Term(leader.replica.engine.term), command))
    sim.run(2)

    assert [(one.reason, one.text[:17]) for one in refused] == [("invalid", "SetWeight has 209")]
    assert sim.leading_host() is leader


# -- R6, R7, R8 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_r6_the_state_is_there_after_compaction_and_restart(size: int) -> None:
    """Compaction drops the log and keeps the snapshot in memory only: after a restart the state is empty."""
    group = founded(size, compact_entries=10, segment_bytes=300)
    for n in range(50):
        group.write("a", 100 + n)
    group.until(group.same)
    for name in group.names:
        assert group.up[name].journal.first_index > 2
        group.restart(name)
    group.elect("a")
    group.until(group.same)
    assert [group.weight(name) for name in group.names] == [149] * size
    group.write("a", 6_000)
    group.check()


def test_r7_no_commit_index_is_remembered() -> None:
    """A commit index that was kept reaches further than the log: as leader, it commits alone."""
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [entry(3, 1, 5)], commit=3))
    lone.settle()
    assert lone.replica.engine.commit_index == 3
    replica = lone.restart()
    assert replica.engine.commit_index == 1

    replica = elected(lone, ("b",))
    index = replica.submit(encode_proposal(Proposal(OperationId("x-P1"), Term(2), SetWeight(Role("r"), 9))))
    lone.settle()
    lone.settle()

    assert replica.engine.commit_index == 1
    assert replica.leadership.first_index == 4
    lone.hear("b", Appended(lone.origin("b", 2), 0, index + 1, True))
    lone.settle()
    assert replica.engine.commit_index == index


def test_r8_a_newer_command_stops_the_replica_and_is_not_stepped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command of a newer release is passed over in part: what follows is applied twice."""
    lone = Lone()
    command = SetWeight(Role("r"), 9)
    newer = encode_proposal(Proposal(OperationId("x-P1"), Term(1), command, version=machine_module.FORMAT_VERSION + 1))
    entries = [entry(3, 1, 5), LogEntry(4, Term(1), newer), entry(5, 1, 6)]
    lone.hear("b", lone.append("b", 1, (2, 1), entries, commit=5))
    for _ in range(3):
        with pytest.raises(StorageError, match="newer release"):
            lone.settle()
    assert [index for index, _, _ in lone.applied] == [2, 3]
    assert lone.replica.engine.applied_index == 3

    monkeypatch.setattr(machine_module, "FORMAT_VERSION", machine_module.FORMAT_VERSION + 1)
    lone.settle()
    assert [index for index, _, _ in lone.applied] == [2, 3, 4, 5]


# -- R9, R11: what is not there ---------------------------------------------------------------------------------------


def test_r9_entries_of_every_size_travel_whole() -> None:
    """A large entry is sent in chunks whose end is announced twice."""
    group = founded(3)
    sizes = [k * 65_536 + d for k in (1, 2, 3) for d in (-31, -30, -1, 0, 1)] + [MAX_COMMAND_BYTES]
    data = [NO_OP + bytes([n]) * (size - 1) for n, size in enumerate(sizes)]
    for command in data:
        group.up["a"].submit(command)
    group.until(group.same)
    for name in group.names:
        assert [found for _, _, found in group.applied[name]][-len(data) :] == data


def test_r9_no_larger_command_is_taken() -> None:
    """The chunked path would begin where commands are larger than a message may be."""
    lone = Lone()
    replica = elected(lone, ("b",))
    with pytest.raises(LocalError, match="at most"):
        replica.submit(NO_OP * (MAX_COMMAND_BYTES + 1))
    assert replica.journal.last_index == 3


@pytest.mark.parametrize("kind", ["append_entries", "next_node_idx", "apply_command", "timeout_now"])
def test_r9_pysyncobj_sends_votes_only(kind: str) -> None:
    """Stock ways of sending entries are still reachable somewhere."""
    lone = Lone()
    transport = lone.replica.engine._get("transport")
    peer = next(iter(lone.replica.engine._peers.values()))
    with pytest.raises(AssertionError, match=kind):
        transport.send(peer, {"type": kind, "term": 1})


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_r11_nothing_is_unpickled(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever can send a frame, or write a command, runs code in the replica."""

    def loads(*_: object, **__: object) -> object:
        raise AssertionError("unpickled")

    own = engine_module._MODULE
    for name in ("loads", "load", "to_bytes", "dumps"):
        if hasattr(own.pickle, name):
            monkeypatch.setattr(own.pickle, name, loads)
    evil = pickle.dumps(_Evil(tmp_path / "owned"))
    for name in ("loads", "load", "Unpickler"):
        monkeypatch.setattr(pickle, name, loads)

    with pytest.raises(PeerError):
        decode_message(evil)
    with pytest.raises(PeerError):
        decode_message(b"\x80" + evil)
    group = founded(3, compact_entries=5, segment_bytes=300)
    group.isolate("c")
    for first in range(1, 256):  # every type of command that stock pysyncobj knows, and all others
        group.up["a"].submit(bytes([first]) + evil)
    group.write("a", 5)
    group.heal()
    group.until(group.same)
    for name in group.names:
        group.restart(name)
    group.elect("b")
    group.until(group.same)

    assert not (tmp_path / "owned").exists()
    assert group.weight("c") == 5


def test_r11_pysyncobj_opens_no_socket_and_no_file() -> None:
    """The engine's own ways to network and disk are still there."""
    lone = Lone()
    core = lone.replica.engine._core
    assert type(lone.replica.engine._get("transport")).__name__ == "_Votes"
    conf = core.__dict__["_SyncObj__conf"]
    assert (conf.journalFile, conf.fullDumpFile, conf.dynamicMembershipChange) == (None, None, False)
    assert lone.replica.engine._get("raftLog") is lone.replica.journal
    assert not conf.autoTick


@pytest.mark.parametrize("change", [lambda text: text + "\n", lambda text: text.replace("count <= (", "count < (", 1)])
def test_another_source_than_the_pinned_one_is_refused(tmp_path: Path, change: type) -> None:
    """What is overridden are private names of one version; another one would run half stock."""
    import pysyncobj.syncobj as stock

    changed = tmp_path / "syncobj.py"
    assert stock.__file__ is not None
    changed.write_text(change(Path(stock.__file__).read_text("utf-8")), "utf-8")
    with pytest.raises(ConfigError, match=r"exactly .*0\.3\.17"):
        engine_module.load(source=changed)


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its metadata says another version with the same module."""
    monkeypatch.setattr("importlib.metadata.version", lambda _: "0.3.18")
    with pytest.raises(ConfigError, match=r"version 0\.3\.18"):
        engine_module.load()


def test_the_stock_module_is_left_alone() -> None:
    """A program that uses pysyncobj itself gets a clock of ours."""
    code = (
        "import mesos_actor.raft.engine as ours, pysyncobj.syncobj as stock, pysyncobj.monotonic as clock\n"
        "assert ours._MODULE is not stock\n"
        "assert stock.monotonicTime is clock.monotonic\n"
        "assert stock.createPoller.__module__ == 'pysyncobj.poller'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=60)


# -- R10 --------------------------------------------------------------------------------------------------------------


def _snapshot_message(lone: Lone, index: int, term: int, blob: bytes, checksum: int) -> InstallChunk:
    return InstallChunk(lone.origin("b", term), 1, index, checksum, len(blob), 0, blob)


def _newer_state() -> bytes:
    machine = Machine()
    data = entry(90, 1, 77).data
    found = Lone()
    found.hear("b", found.append("b", 1, (2, 1), [], commit=2))
    found.settle()
    machine.restore(found.replica.machine.image())
    machine.apply(1, data)
    return machine.image()


def test_r10_a_damaged_snapshot_changes_nothing() -> None:
    """A snapshot that cannot be read takes the good one's place, and is acknowledged as if it were there."""
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [entry(3, 1, 5)], commit=3))
    lone.settle()
    lone.replica.take_snapshot(0)
    good = lone.snapshots.load()
    blob = encode_snapshot(Snapshot(90, 1, _newer_state()))
    crc = zlib.crc32(blob)
    for at in range(0, len(blob), 7):
        damaged = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        lone.hear("b", _snapshot_message(lone, 90, 1, damaged, crc))
        answer = lone.settle()[-1][1]
        assert answer == ChunkTaken(lone.replica.origin, 1, 90, 0)
    garbage = b"garbage"
    lone.hear("b", _snapshot_message(lone, 90, 1, garbage, zlib.crc32(garbage)))
    assert "cannot be used" in lone.replica.members.complaints[-1]
    assert not any(isinstance(message, Appended) for _, message in lone.settle())

    assert lone.snapshots.load() == good
    assert lone.replica.engine.commit_index == lone.replica.engine.applied_index == 3
    lone.hear("b", _snapshot_message(lone, 90, 1, blob, crc))
    assert lone.settle()[-1][1] == Appended(lone.replica.origin, 1, 91, True)
    assert lone.replica.machine.state.weights[Role("r")].weight_milli == 77


# -- R12, R13: answers that are not to this question ------------------------------------------------------------------


def test_r12_the_entry_of_another_leader_acknowledges_nothing_of_ours() -> None:
    """An answer that was meant for an earlier question completes a later one."""
    group = founded(3, leader="a")
    mine = deposed_with(group, "a", "b", 4)
    theirs = [group.write("b", 100 + n) for n in range(6)]
    group.heal()
    group.until(group.same)
    assert not set(mine) & set(group.answers)
    assert set(theirs) <= set(group.answers)
    group.check()


def test_r12_a_new_process_takes_no_answer_to_the_former_one() -> None:
    """Numbers of questions begin again after a restart, and old answers fit them."""
    group = founded(3, leader="a")
    kept: list[Letter] = []

    def hold_back(letter: Letter) -> bool:
        if isinstance(letter.message, Appended) and letter.destination == "a":
            kept.append(letter)
            return True
        return False

    group.lose = hold_back
    before = [group.submit("a", 100 + n) for n in range(3)]
    group.run(0.2)
    assert kept
    group.isolate("a")
    group.restart("a")
    group.elect("b")
    group.write("b", 4_000)
    group.heal()
    group.until(group.same)
    group.crash("b")
    group.elect("a")
    group.isolate("a")
    after = [group.submit("a", 200 + n) for n in range(3)]
    group.cut.clear()
    group.lose = lambda letter: "a" in (letter.source, letter.destination)
    for letter in kept:
        group.receive(Letter(letter.source, "a", letter.message))
        group.settle("a")
    group.run(0.3)
    assert not set(after) & set(group.answers)
    assert not set(before) & set(group.answers)
    group.check()


def test_r13_acknowledgements_of_an_earlier_term_do_not_count() -> None:
    """Answers carry no term: those of term 1 commit entries of term 3 that nobody else has."""
    lone = Lone(("a", "b", "c", "d", "e"))
    replica = elected(lone, ("b", "c"))
    first = replica.engine.term
    for n in range(5):
        replica.submit(entry(0, first, 100 + n).data)
    lone.settle()
    last = replica.journal.last_index
    late = [Appended(lone.origin(name, first), 1, last + 1, True) for name in "bc"]
    lone.hear("d", lone.append("d", first + 1, (2, 1), [entry(3, first + 1)]))  # d led in between
    lone.settle()
    assert replica.journal.last_index == 3

    elected(lone, ("d", "e"))
    while replica.journal.last_index < last:
        replica.submit(entry(0, replica.engine.term, 200).data)
    lone.settle()
    for name, message in zip("bc", late, strict=True):
        lone.hear(name, message)
    lone.settle()

    assert replica.engine.commit_index < 3
    assert replica.engine.leads


# -- R14, R15: the disk -----------------------------------------------------------------------------------------------


class _Mortal(MemoryFiles):
    """Dies at its so manieth change."""

    left = 1 << 30

    def _step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Died

    def append(self, name: str, data: bytes) -> None:
        self._step()
        super().append(name, data)

    def remove(self, name: str) -> None:
        self._step()
        super().remove(name)
        self._step()

    def truncate(self, name: str, size_bytes: int) -> None:
        self._step()
        super().truncate(name, size_bytes)

    def sync(self) -> None:
        self._step()
        super().sync()


@pytest.mark.parametrize("undone", [0, 1, 2])
def test_r14_dropping_the_logs_beginning_loses_nothing_of_its_end(undone: int) -> None:
    """The log is rewritten in place to drop its beginning: killed inside, its end is gone."""
    for left in range(1, 40):
        group = Group(1, start=False, segment_bytes=300)
        files = group.files["a"] = _Mortal()
        group.start("a", "initialize")
        group.elect("a")
        for n in range(12):
            group.write("a", 100 + n)
        files.left = left
        try:
            group.up["a"].take_snapshot(2)
            group.write("a", 500)
        except Died:
            files.left = 1 << 30
            del group.up["a"]
            files.crash(undo_removals=undone)
            group.start("a")
        else:
            files.left = 1 << 30
            assert left > 3
            break
        group.elect("a")
        group.until(group.same)
        assert group.weight("a") >= 111
        group.check()
    else:
        raise AssertionError("it never lived to its end")


def test_r15_every_torn_write_leaves_a_log_that_opens() -> None:
    """A power cut in the middle of a write leaves a log that no replica can start from."""
    lone = Lone(segment_bytes=1_500)
    lone.hear("b", lone.append("b", 1, (2, 1), [entry(3, 1, 5)], commit=3))
    lone.settle()
    lone.hear("b", lone.append("b", 1, (3, 1), [entry(index, 1, 6) for index in range(4, 7)], commit=3))
    journal = lone.replica.journal
    data = b"".join(journal._runs[0].records)
    name = journal._segments[-1].name
    whole = lone.files.read(name)
    for kept in range(0, len(data) + 1, 2):
        for blank in (0, 40):
            files = MemoryFiles()
            for other in lone.files.names():
                files.append(other, lone.files.read(other))
            files.sync()
            files.append(name, data)
            files.crash({name: kept}, {name: bytes(blank)} if blank and kept < len(data) else None)
            assert files.read(name)[: len(whole)] == whole
            lone.files = files
            found = lone.start().journal
            assert 3 <= found.last_index <= 6
            assert found[2][1:] == (3, 1)


def test_r15_the_group_goes_on_after_torn_writes_everywhere() -> None:
    """The same for a whole group: each member keeps another piece of what it was writing."""
    for seed in range(8):
        group = founded(3, seed=seed, segment_bytes=400)
        for n in range(5):
            group.write("a", 100 + n)
        for n in range(4):
            group.submit("a", 900 + n)
        group.flush("a")
        for letter in list(group.queue):
            group.receive(letter)
        for name in group.names:
            replica = group.up.pop(name)
            files, run = group.files[name], replica.journal._runs[0]
            if run.records and not run.new:
                files.append(replica.journal._segments[-1].name, b"".join(run.records))
            files.tear(group.rng)
        group.queue.clear()
        for name in group.names:
            group.start(name)
        group.until(lambda group=group: any(r.leadership.ready for r in group.up.values()))  # type: ignore[misc]
        group.until(group.same)
        assert group.weight("a") in (104, 900, 901, 902, 903)
        group.check()


# -- L1, L2, L3, L4, L7: what holds the group up ----------------------------------------------------------------------


def test_l1_a_log_that_contradicts_is_passed_over_by_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry a heartbeat is gone back where logs contradict: 250 entries take 20 seconds."""
    group = founded(3, leader="a")
    deposed_with(group, "a", "b", 250)
    group.write("b", 4_000)
    group.heal()
    refusals: list[Letter] = []

    def count(letter: Letter) -> bool:
        if isinstance(letter.message, Appended) and not letter.message.ok and letter.message.next_index:
            refusals.append(letter)
        return False

    group.lose = count
    group.until(group.same, within_s=1)
    assert 0 < len(refusals) <= 4
    group.check()


def test_l1_many_refusals_at_once_have_nothing_sent_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """One message of many in flight is lost: the follower refuses all others, and each refusal has all sent again."""
    monkeypatch.setattr(progress_module, "MAX_BATCH_BYTES", 300)
    group = founded(3, leader="a")
    group.lose = lambda letter: letter.destination == "c" and isinstance(letter.message, AppendEntries)
    group.submit("a", 1)
    group.flush("a")
    sent: list[Letter] = []

    def note(letter: Letter) -> bool:
        sent.append(letter)
        return False

    group.lose = note
    for n in range(200):
        group.submit("a", 100 + n)
        group.flush("a")
    before = len(sent)
    group.until(group.same, within_s=1)
    again = [letter for letter in sent[before:] if letter.destination == "c"]
    assert before >= 400
    assert len(again) < 300
    group.write("a", 5)
    assert not group.up["a"].leadership.progress["c"].probing
    group.check()


def test_l2_a_follower_without_its_snapshot_is_not_flooded() -> None:
    """While a snapshot is missing the leader does nothing but send messages that say so."""
    group = founded(3, leader="a")
    group.isolate("c")
    for n in range(10):
        group.write("a", 100 + n)
    group.up["a"].take_snapshot(0)
    group.heal()
    sent: list[Letter] = []

    def count(letter: Letter) -> bool:
        sent.append(letter)
        return letter.destination == "c" and isinstance(letter.message, InstallChunk)

    group.lose = count
    group.run(2)
    assert 0 < sum(isinstance(letter.message, InstallChunk) for letter in sent) <= 30


def test_l3_a_stale_leader_is_told_at_once() -> None:
    """A stale leader gets no answer and believes in itself for half a minute."""
    group = founded(3, leader="a")
    deposed_with(group, "a", "b", 1)
    group.up["a"].engine.heard_from("b", group.now_s + 100)  # so that it does not step down by itself
    group.up["a"].engine.heard_from("c", group.now_s + 100)
    group.run(1)
    assert group.up["a"].engine.leads and group.up["b"].engine.leads
    group.heal()
    group.lose = lambda letter: letter.destination == "a" and isinstance(letter.message, AppendEntries)
    group.until(lambda: not group.up["a"].engine.leads, within_s=0.2)


def test_l3_one_who_was_cut_off_deposes_nobody() -> None:
    """Without a question before the election, whoever comes back forces an election with its high term."""
    group = founded(3, leader="a")
    term = group.up["a"].engine.term
    group.isolate("c")
    group.run(20)
    group.heal()
    group.run(3)
    assert {replica.engine.term for replica in group.up.values()} == {term}
    assert group.leader.name == "a"


def test_l3_whoever_hears_a_leader_helps_nobody_to_depose_it() -> None:
    """A member that hears the leader gives its vote to one that does not."""
    lone = Lone()
    lone.hear("b", lone.append("b", 3, (2, 1), []))
    lone.settle()
    lone.now_s += 0.1
    for pre in (True, False):
        lone.hear("c", RequestVote(lone.origin("c", 9), 50, Term(8), pre=pre))
    votes = [message for _, message in lone.settle() if isinstance(message, Vote)]
    assert [(vote.pre, vote.granted) for vote in votes] == [(True, False)]
    assert lone.replica.engine.term == 3


def test_l4_a_snapshot_never_reaches_beyond_what_is_applied() -> None:
    """A snapshot's entry is no longer in the log when it is done: the log is emptied, and every message fails."""
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [entry(index, 1, index) for index in range(3, 20)], commit=5))
    lone.settle()
    lone.replica.take_snapshot(0)
    assert (lone.replica.snapshot_index, lone.replica.journal.first_index) == (5, 5)
    lone.hear("c", lone.append("c", 2, (6, 1), [entry(7, 2)], commit=6))
    lone.settle()
    assert lone.replica.journal.last_index == 7
    with pytest.raises(InternalError):
        lone.replica.journal.trim(8, 0)
    lone.replica.take_snapshot(0)
    lone.hear("c", lone.append("c", 2, (7, 2), [entry(8, 2, 3)], commit=8))
    assert lone.settle()[-1][1] == Appended(lone.replica.origin, 1, 9, True)


def test_l7_votes_are_counted_by_voter() -> None:
    """A vote that arrives twice counts twice: two leaders in one term."""
    lone = Lone(("a", "b", "c", "d", "e"))
    replica = lone.replica
    lone.now_s += 5
    lone.settle()
    for _ in range(5):
        lone.hear("b", Vote(lone.origin("b", 1), Term(2), True, pre=True))
        lone.settle()
    assert replica.engine.term == 1, "one answer is no majority"
    lone.hear("c", Vote(lone.origin("c", 1), Term(2), True, pre=True))
    lone.settle()
    assert replica.engine.state == "candidate"
    for _ in range(5):
        lone.hear("b", Vote(lone.origin("b", 2), Term(2), True))
        lone.hear("c", Vote(lone.origin("c", 1), Term(2), True, pre=True))
        lone.settle()
    assert replica.engine.state == "candidate"
    lone.hear("d", Vote(lone.origin("d", 2), Term(2), True))
    lone.settle()
    assert replica.engine.leads


def test_a_vote_is_given_once_a_term_and_kept_over_a_crash() -> None:
    """A vote that is forgotten is given twice: two leaders in one term."""
    lone = Lone()
    lone.hear("b", RequestVote(lone.origin("b", 5), 2, Term(1)))
    assert [message for _, message in lone.settle() if isinstance(message, Vote)] == [
        Vote(lone.replica.origin, Term(5), True)
    ]
    for restart in (False, True):
        if restart:
            lone.restart()
        lone.hear("c", RequestVote(lone.origin("c", 5), 9, Term(4)))
        assert not [message for _, message in lone.settle() if isinstance(message, Vote) and message.granted]
    lone.hear("b", RequestVote(lone.origin("b", 5), 2, Term(1)))
    assert Vote(lone.replica.origin, Term(5), True) in [message for _, message in lone.settle()]


def test_a_new_leader_with_an_older_snapshot_can_still_send_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a snapshot is there when its leader dies: what the next leader sends, of an older entry, is passed over
    for ever."""
    monkeypatch.setattr(progress_module, "CHUNK_BYTES", 100)
    group = founded(3, leader="a")
    group.isolate("c")
    for n in range(5):
        group.write("a", 100 + n, role=f"role{n}")
    group.until(lambda: group.weight("b", "role4") != 0)
    group.up["b"].take_snapshot(0)
    for n in range(5):
        group.write("a", 100 + n, role=f"role{5 + n}")
    group.up["a"].take_snapshot(0)
    group.heal()
    group.until(lambda: group.up["c"]._assembly.received_bytes > 200)
    group.crash("a")
    group.elect("b")
    group.until(group.same)
    assert group.weight("c", "role9") == 104


def test_ids_of_the_harness_are_those_of_the_cluster() -> None:
    """(Of this harness.)"""
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [], commit=2))
    lone.settle()
    assert lone.replica.members.cluster_id == CLUSTER
    assert lone.replica.members.disk_of("b") == DISKS["b"]
    assert isinstance(lone.snapshots, SnapshotStore)
