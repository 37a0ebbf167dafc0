"""Who may speak for a master: founding, a lost disk, another list, another key, two processes, backups."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mesos_actor.actors.errors import ConfigError, InvalidInput, StorageError
from mesos_actor.actors.ids import Address, ClusterId, FrameworkId, OperationId, Role, Term
from mesos_actor.actors.messages.clients import SetRoleWeight
from mesos_actor.actors.messages.raft import AppendEntries, Hello, LogEntry, Origin, RequestVote, Vote
from mesos_actor.actors.messages.registry import ClusterRecord, FrameworkRecord, WeightRecord
from mesos_actor.actors.messages.values import FrameworkInfo
from mesos_actor.raft.backup import Backup, decode_backup, encode_backup
from mesos_actor.raft.directory import names_of, open_directory
from mesos_actor.raft.files import REPLACE_STEPS, Died, DirectoryFiles, MemoryFiles
from mesos_actor.raft.journal import Identity, Journal, read_identity, write_identity
from mesos_actor.raft.machine import Machine
from mesos_actor.raft.node import RegistryPort
from mesos_actor.raft.offline import export_directory, import_directory
from mesos_actor.raft.snapshot import Snapshot, SnapshotStore
from mesos_actor.testing import NodeSettings, SimCluster, cluster
from tests.raft.group import DISKS, Group, Letter, Lone, NotSoon, entry, founded

SEGMENT = 1 << 20

NOW_US = 1_800_000_000_000_000


# -- founding ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5])
def test_founding_needs_all(size: int) -> None:
    group = Group(size, start=False)
    for name in group.names[:-1]:
        group.start(name, "initialize")
    group.run(10)
    assert {replica.state for replica in group.up.values()} == {"founding"}
    assert {replica.members.missing for replica in group.up.values()} == {(group.names[-1],)}
    assert {replica.engine.term for replica in group.up.values()} == {0}

    group.start(group.names[-1], "initialize")
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))
    assert group.leader
    assert not any(replica.members.identity.founding for replica in group.up.values())


def test_a_founder_that_is_late_is_let_in() -> None:
    """The others have founded the cluster and become members before it hears anything: it has lost nothing."""
    group = Group(3)
    group.until(lambda: all(not replica.members.missing for replica in group.up.values()))
    group.isolate("c")
    group.elect("a")
    group.until(lambda: not group.up["b"].members.waiting and not group.up["a"].members.waiting)
    group.cut.clear()
    group.lose = lambda letter: isinstance(letter.message, AppendEntries) and letter.destination == "c"
    group.run(2)  # only questions who it is arrive
    group.restart("c")
    hellos = 0
    lose = group.lose

    def count(letter: Letter) -> bool:
        nonlocal hellos
        hellos += isinstance(letter.message, Hello)
        return lose(letter)

    group.lose = count
    group.run(2)
    assert group.up["c"].state == "follower", "whoever is on record may vote, also before it has the log"
    assert 0 < hellos < 40, "twice a second and no answer to an answer"
    group.heal()
    group.until(lambda: group.same() and not group.up["c"].members.waiting)
    group.check()


def test_a_founder_that_is_late_makes_a_majority_with_one_that_is_not() -> None:
    """Its vote is needed when the first leader dies at once."""
    group = Group(3)
    group.until(lambda: all(not replica.members.missing for replica in group.up.values()))
    group.isolate("c")
    group.elect("a")
    group.until(lambda: not group.up["b"].members.waiting)
    group.run(0.2)
    group.cut.clear()
    group.lose = lambda letter: isinstance(letter.message, AppendEntries) and letter.destination == "c"
    group.restart("c")
    group.run(1)
    group.crash("a")
    group.heal()
    group.elect("b")
    group.write("b", 5)
    assert group.weight("b") == 5


def test_founding_goes_on_after_crashes_of_all() -> None:
    group = Group(3, seed=3)
    group.until(lambda: any(replica.engine.leads for replica in group.up.values()))
    for name in group.names:
        group.restart(name)
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))
    group.check()


def test_a_wiped_member_that_is_initialized_again_says_what_to_do() -> None:
    group = founded(3)
    group.crash("c")
    group.files["c"] = MemoryFiles()
    group.start("c", "initialize")
    with pytest.raises(StorageError, match=r"existing cluster cluster, .* start it with --replace on an empty"):
        group.run(5)
    assert group.up["c"].engine.term == 0
    assert group.up["c"].state == "founding"


def test_a_wiped_member_never_votes_under_its_old_name() -> None:
    """It asks nobody, and its word counts for nothing, while the messages that would stop it are lost."""
    group = founded(3)
    group.crash("c")
    group.files["c"] = MemoryFiles()
    group.start("c", "initialize")
    group.crash("b")
    group.lose = lambda letter: isinstance(letter.message, Hello)
    group.run(10)
    assert "c" not in {replica.name for replica in group.up.values() if replica.engine.leads}
    with pytest.raises(NotSoon):
        assert group.leader


# -- replacing --------------------------------------------------------------------------------------------------------


def replaced(group: Group, name: str) -> None:
    """Its disk is lost, and it begins with an empty one."""
    if name in group.up:
        group.crash(name)
    group.files[name] = MemoryFiles()
    group.start(name, "replace")


def test_a_learner_is_let_in_and_then_counts() -> None:
    group = founded(3)
    group.write("a", 5)
    old = group.files["c"]
    replaced(group, "c")
    assert group.up["c"].state == "learner"
    assert not group.up["c"].members.may_stand
    group.until(lambda: not group.up["c"].members.waiting)
    group.until(group.same)
    assert group.weight("c") == 5
    group.crash("b")
    group.write("a", 6)  # a and c are a majority
    group.isolate("a")
    group.crash("a")
    group.start("b")
    group.heal()
    group.elect("c")
    group.start("a")
    group.until(group.same)
    group.check()

    group.crash("c")
    group.files["c"] = old
    group.start("c")
    with pytest.raises(StorageError, match="was replaced; its directory must not be used again"):
        group.run(5)
    assert any("master c speaks with another disk" in text for _, text in group.complaints)


def test_an_old_disk_that_hears_of_its_successor_says_so() -> None:
    group = founded(3, keep_entries=100)
    old = group.files["c"]
    replaced(group, "c")
    group.until(lambda: not group.up["c"].members.waiting)
    group.crash("c")
    group.files["c"] = old
    replica = group.start("c")
    leader, journal = group.up["a"], group.up["a"].journal
    entries = tuple(LogEntry(index, Term(term), data) for data, index, term in journal.entries(2, 1 << 20))
    replica.receive("a", AppendEntries(leader.origin, 1, Term(0), leader.engine.commit_index, 1, entries), group.now_s)
    with pytest.raises(StorageError, match="was replaced; its directory must not be used again"):
        group.settle("c")


def test_the_old_disk_has_no_voice() -> None:
    """Started again while the new one is away, its votes and acknowledgements count for nothing."""
    group = founded(3)
    old = group.files["c"]
    replaced(group, "c")
    group.until(lambda: group.same() and not group.up["c"].members.waiting)
    group.crash("c")
    group.files["c"] = old
    group.crash("b")
    group.lose = lambda letter: letter.destination == "c" and isinstance(letter.message, AppendEntries)
    group.start("c")
    operation = group.submit("a", 9)
    group.run(5)
    assert operation not in group.answers
    assert not group.up["a"].engine.leads
    assert group.up["c"].state != "leader"


@pytest.mark.parametrize("compact", [1 << 40, 2])
def test_a_replaced_master_starts_again(compact: int) -> None:
    """It reads its log from before it took its predecessor's place."""
    group = founded(3, compact_entries=compact)
    for _ in range(2):
        replaced(group, "c")
        group.until(lambda: group.same() and not group.up["c"].members.waiting)
        group.write("a", 7)
    for _ in range(2):
        group.restart("c")
        group.until(group.same)
        group.write("a", 8)
    group.until(group.same)
    assert group.up["c"].state == "follower"
    group.check()


def test_the_vote_of_a_learner_that_was_let_in_counts_before_it_knows() -> None:
    """The leader that let it in, and goes on to let in another, is started again before it has told it."""
    group = founded(3)
    replaced(group, "c")
    group.lose = lambda letter: letter.destination == "c" and "ReplaceMember" in repr(letter.message)
    group.until(lambda: group.up["a"].machine.disk_of("c") == group.up["c"].members.identity.storage_id)
    replaced(group, "b")
    group.until(lambda: group.up["a"].members.disk_of("b") == group.up["b"].members.identity.storage_id)
    group.restart("a")
    group.heal()
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))
    group.check()


def test_a_learner_has_no_vote_and_does_not_campaign() -> None:
    group = founded(3)
    group.crash("b")
    replaced(group, "c")
    group.run(10)
    assert group.up["c"].state == "learner"
    assert group.up["c"].members.waiting
    said: list[Letter] = []

    def note(letter: Letter) -> bool:
        said.append(letter)
        return False

    group.lose = note
    group.up["c"].receive("a", RequestVote(group.up["a"].origin, 999, Term(99)), group.now_s)
    group.crash("a")
    group.run(10)
    assert not any(isinstance(letter.message, RequestVote) for letter in said if letter.source == "c")


def test_a_majority_of_the_others_lets_a_learner_in() -> None:
    group = founded(5)
    group.isolate("b")
    replaced(group, "e")
    group.until(lambda: not group.up["e"].members.waiting)
    group.heal()
    group.until(group.same)
    group.check()


def test_two_members_of_five_do_not_let_a_learner_in() -> None:
    """With the leader and the new disk they would be a majority, but without it they are none."""
    group = founded(5)
    group.crash("b")
    group.crash("c")
    replaced(group, "e")
    group.run(10)
    assert group.up["e"].members.waiting
    assert not any(b"ReplaceMember" in data for data, _, _ in group.up["a"].journal[1:])
    group.start("b")
    group.until(lambda: not group.up["e"].members.waiting)


def test_a_new_disk_does_not_commit_that_it_is_let_in() -> None:
    """{a, c new} must not commit it while {b, c old} know nothing of it: both would be majorities."""
    group = founded(3)
    old = group.files["c"]
    replaced(group, "c")

    def has_it() -> bool:
        return any(b"ReplaceMember" in data for data, _, _ in group.up["c"].journal[1:])

    group.lose = lambda letter: letter.destination == "b" and "ReplaceMember" in repr(letter.message)
    group.until(has_it)
    group.run(3)
    assert group.up["c"].members.waiting
    assert not any(b"ReplaceMember" in data for applied in group.applied.values() for _, _, data in applied)

    group.isolate("a")
    group.crash("c")
    group.files["c"] = old
    group.start("c")
    group.elect("b")
    group.write("b", 7)
    group.heal()
    group.until(group.same)
    group.check()


def test_while_it_is_let_in_neither_disk_counts() -> None:
    """Whoever has the entry counts neither; whoever lacks it cannot be elected once it is committed."""
    group = founded(3)
    old = group.files["c"]
    replaced(group, "c")
    group.until(lambda: group.up["a"].members.disk_of("c") == group.up["c"].members.identity.storage_id)
    group.until(lambda: b"ReplaceMember" in b"".join(data for data, _, _ in group.up["b"].journal[1:]))
    members = group.up["b"].members
    assert not members.counts("c", group.up["c"].members.identity.storage_id)
    assert not members.counts("c", members.machine.disk_of("c"))
    group.crash("a")
    group.crash("c")
    group.files["c"] = old
    group.start("c")
    group.run(10)
    assert not any(replica.engine.leads for replica in group.up.values())
    group.start("a")
    group.until(lambda: any(replica.leadership.ready for replica in group.up.values()))


def test_a_replacement_counts_after_a_restart_of_all() -> None:
    """The change is kept in a snapshot: nobody has to be asked to read it from the log again."""
    group = founded(3, keep_entries=100)
    replaced(group, "c")
    group.until(lambda: group.same() and not group.up["c"].members.waiting)
    for name in group.names:
        group.crash(name)
    group.start("a")
    group.start("c")
    group.until(lambda: any(replica.leadership.ready for replica in group.up.values()))
    group.check()


def test_a_replacement_that_was_given_up_is_forgotten() -> None:
    """Another one is let in then, and the former disk goes on when it comes back."""
    group = founded(5)
    old = group.files["d"]
    group.lose = lambda letter: letter.source == "d" and not isinstance(letter.message, Hello)
    replaced(group, "d")
    group.run(1)  # it asks, and does not take the log
    replaced(group, "e")
    group.run(1)
    assert group.up["e"].members.waiting
    assert any("e waits with its new disk until that of d" in text for _, text in group.complaints)
    group.crash("d")
    group.heal()
    group.until(lambda: not group.up["e"].members.waiting)
    assert any("the new disk of d does not ask any more: given up" in text for _, text in group.complaints)
    group.files["d"] = old
    group.start("d")
    group.until(group.same)
    group.check()


def test_a_disk_that_was_thought_lost_ends_its_replacement() -> None:
    group = founded(3)
    old = group.files["c"]
    group.lose = lambda letter: letter.source == "c" and not isinstance(letter.message, Hello)
    replaced(group, "c")
    group.run(1)
    group.crash("c")
    group.files["c"] = old
    group.start("c")
    group.heal()
    group.run(0.5)
    assert group.up["a"].leadership.transfer("c") == ""  # it counts again
    group.until(lambda: group.up["c"].leadership.ready)
    group.write("c", 5)
    group.until(group.same)
    group.check()


def test_the_lead_is_not_given_to_a_disk_that_is_not_let_in() -> None:
    group = founded(3)
    group.lose = lambda letter: letter.source == "c" and not isinstance(letter.message, Hello)
    replaced(group, "c")
    group.run(1)
    assert "c has a new disk that is not let in yet" in group.up["a"].leadership.transfer("c")
    assert group.up["a"].leadership.transfer("") == ""
    group.until(lambda: group.up["b"].leadership.ready)


def test_a_late_word_of_its_predecessor_does_not_end_the_new_disk() -> None:
    """Its operator would be told to remove the disk that speaks for the master."""
    group = founded(3)
    replaced(group, "c")
    kept: list[Letter] = []

    def hold(letter: Letter) -> bool:
        late = letter.destination == "c" and isinstance(letter.message, Hello) and bool(letter.message.disk)
        kept.extend([letter] if late else [])
        return late

    group.lose = hold
    group.turn()
    group.turn()
    group.restart("a")  # a new leader may get the new disk's acknowledgement before its question
    group.until(lambda: not group.up["c"].members.waiting and group.same())
    assert kept
    group.heal()
    for letter in kept:
        group.receive(letter)
    group.run(1)
    assert group.up["c"].state == "follower"


def test_a_disk_that_is_to_replace_nobody_is_told_so() -> None:
    group = Group(3, start=False)
    group.start("a", "initialize")
    group.start("b", "initialize")
    group.start("c", "replace")
    group.run(3)
    told = [text for name, text in group.complaints if name == "c"]
    assert len(told) == 2  # once by each
    assert "waits to found a new cluster, in which nothing can be replaced: start this master with --init" in told[0]


def test_a_learner_with_another_list_ends() -> None:
    """With a list of its own it would count other majorities."""
    group = founded(3)
    group.crash("c")
    names, group.names = group.names, ("a", "c", "x")
    group.files["c"] = MemoryFiles()
    group.start("c", "replace")
    group.names = names
    with pytest.raises(StorageError, match=r"--masters a,b,c and this master with a,c,x; .*replace again with the"):
        group.run(5)
    assert group.up["a"].machine.disk_of("c") != group.up["c"].members.identity.storage_id
    assert group.up["a"].leadership.ready


def test_a_founder_that_was_wiped_is_nobodys() -> None:
    """Its first disk may have voted; with a second one two could lead in the first term."""
    group = Group(3)
    group.until(lambda: all(not replica.members.missing for replica in group.up.values()))
    for name in "ab":
        group.restart(name)  # what they have heard is on their disks
    group.crash("c")
    group.files["c"] = MemoryFiles()
    group.start("c", "initialize")
    with pytest.raises(StorageError, match=r"another disk \(\w{8}\) of this master, c, which was initialized twice"):
        group.run(5)
    assert group.up["c"].engine.term == 0
    assert not group.up["c"].members.may_stand


def test_a_founder_never_takes_another_disk_for_the_same() -> None:
    group = Group(3, start=False)
    for name in "ac":
        group.start(name, "initialize")
    group.run(1)
    first = group.up["a"].members.disk_of("c")
    group.crash("c")
    group.files["c"] = MemoryFiles()
    group.start("c", "initialize")
    with pytest.raises(StorageError, match="empty the directories of all masters and begin again with --initialize"):
        group.run(5)
    assert group.up["a"].members.disk_of("c") == first
    assert any("c was initialized twice" in text for _, text in group.complaints)


def test_nobody_votes_before_all_are_known_to_know_each_other() -> None:
    """a has heard of everybody, and b does not know it yet: b may still be told of another disk of a."""
    group = Group(3)
    group.lose = lambda letter: (letter.source, letter.destination) == ("a", "b")
    group.run(10)
    assert not group.up["a"].members.may_stand
    assert group.up["a"].members.missing == ("b",)
    assert not any(replica.engine.leads for replica in group.up.values())
    group.heal()
    group.until(lambda: any(replica.leadership.ready for replica in group.up.values()))


def test_two_lost_disks_of_three_are_not_replaced_behind_ones_back() -> None:
    """Nobody is left who knows all that was acknowledged for certain."""
    group = founded(3)
    group.write("a", 5)
    replaced(group, "b")
    replaced(group, "c")
    group.run(20)
    assert group.up["b"].members.waiting and group.up["c"].members.waiting
    assert not any(replica.engine.leads for replica in group.up.values())


def test_a_learner_votes_in_no_term_that_it_heard_of_before() -> None:
    """Its predecessor may have voted in it."""
    group = founded(3)
    replaced(group, "c")
    group.until(lambda: not group.up["c"].members.waiting)
    term = group.up["c"].engine.term
    assert group.up["c"].engine.voted_for == "c"
    group.restart("c")
    group.now_s += 5
    group.up["c"].receive("b", RequestVote(group.up["b"].members.origin(term), 999, Term(term)), group.now_s)
    assert not any(isinstance(message, Vote) and message.granted for _, message in group.up["c"].outbox)


def test_what_the_lost_disk_had_acknowledged_does_not_count_again() -> None:
    """Acknowledgements of the old disk, late on their way, commit nothing after it was replaced."""
    group = founded(3)
    kept: list[Letter] = []

    def hold_back(letter: Letter) -> bool:
        if letter.source == "c" and letter.destination == "a" and type(letter.message).__name__ == "Appended":
            kept.append(letter)
            return True
        return False

    group.lose = hold_back
    group.isolate("b", "a")
    operation = group.submit("a", 9)
    group.run(0.3)
    assert kept and operation not in group.answers
    group.lose = lambda _letter: False
    replaced(group, "c")
    group.run(0.3)
    assert group.up["a"].engine.leads
    for letter in kept:
        group.receive(letter)
    group.settle("a")
    assert operation not in group.answers


def test_a_single_master_cannot_be_replaced() -> None:
    with pytest.raises(ConfigError, match="a single master has nobody to learn from"):
        open_directory(MemoryFiles(), "single", ("single",), "replace", SEGMENT, random.Random(1))


# -- what does not fit ------------------------------------------------------------------------------------------------


def begin(files: MemoryFiles, me: str = "a", members: tuple[str, ...] = ("a", "b", "c")) -> None:
    open_directory(files, me, members, "initialize", SEGMENT, random.Random(1))


@pytest.mark.parametrize("members", [("a", "b"), ("a", "b", "c", "d", "e"), ("a", "b", "x")])
def test_a_changed_list_of_masters_is_refused(members: tuple[str, ...]) -> None:
    files = MemoryFiles()
    begin(files)
    with pytest.raises(ConfigError, match=r"belongs to a of a,b,c.*export and import"):
        open_directory(files, "a", members, "open", SEGMENT, random.Random(1))


def test_another_masters_directory_is_refused() -> None:
    files = MemoryFiles()
    begin(files)
    with pytest.raises(ConfigError, match="was started as b"):
        open_directory(files, "b", ("a", "b", "c"), "open", SEGMENT, random.Random(1))


def test_the_order_of_the_list_does_not_matter() -> None:
    assert names_of("b", ("c", "b", "a")) == names_of("b", ("a", "b", "c"))


@pytest.mark.parametrize("count", [2, 4])
def test_an_even_number_of_masters_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="odd"):
        cluster(agents=0, masters=count)


def test_members_with_another_list_are_told() -> None:
    lone = Lone()
    hello = Hello(lone.origin("b", 1), ("a", "b"), True)
    lone.hear("b", hello)
    assert "start all with the same list" in lone.replica.members.complaints[-1]


def test_a_master_of_another_cluster_is_not_heard() -> None:
    lone = Lone()
    lone.hear("b", lone.append("b", 1, (2, 1), [], commit=2))
    lone.settle()
    stranger = Origin(ClusterId("other"), DISKS["b"], Term(9))
    lone.hear("b", AppendEntries(stranger, 2, Term(1), 2, 1))
    lone.hear("b", RequestVote(stranger, 99, Term(9)))
    lone.hear("b", RequestVote(stranger, 99, Term(9), transfer=True))
    assert lone.replica.engine.term == 1
    assert "belongs to cluster other" in lone.replica.members.complaints[-1]
    assert not [message for _, message in lone.settle() if isinstance(message, Vote)]


@pytest.mark.parametrize("how", ["initialize", "replace"])
def test_a_directory_that_is_there_is_not_begun_again(how: str) -> None:
    files = MemoryFiles()
    begin(files)
    with pytest.raises(ConfigError, match=f"leave out --{how}"):
        open_directory(files, "a", ("a", "b", "c"), how, SEGMENT, random.Random(1))  # type: ignore[arg-type]


def test_an_empty_directory_is_not_opened() -> None:
    with pytest.raises(ConfigError, match="there is no registry in this work directory"):
        open_directory(MemoryFiles(), "a", ("a", "b", "c"), "open", SEGMENT, random.Random(1))


def test_two_processes_do_not_share_a_directory(tmp_path: Path) -> None:
    files = DirectoryFiles(tmp_path / "raft")
    try:
        with pytest.raises(StorageError):
            DirectoryFiles(tmp_path / "raft")
    finally:
        files.close()


def test_a_first_start_that_was_cut_short_is_begun_again() -> None:
    """At every step; and nothing of the half that was made has been shown to anybody."""

    def dies() -> None:
        if next(left) == 0:
            raise Died

    for at in range(10):
        files = MemoryFiles()
        left = iter(range(at, -1, -1))
        files.on_sync = dies
        try:
            begin(files)
        except Died:
            files.on_sync = None
            files.tear(random.Random(at))
            begin(files)
        else:
            break
        assert read_identity(files) is not None
    else:
        raise AssertionError("it never lived to its end")
    for step in REPLACE_STEPS[:-1]:
        files = MemoryFiles()
        files.die_in_replace = step
        with pytest.raises(Died):
            begin(files)
        files.die_in_replace = None
        files.crash()
        begin(files)


def test_files_without_an_identity_are_not_guessed_at() -> None:
    group = founded(3)
    group.write("a", 5)
    group.crash("a")
    group.files["a"].remove("identity")
    for how in ("open", "initialize", "replace"):
        with pytest.raises(StorageError, match="not the one that says whose they are"):
            group.start("a", how)


# -- keys -------------------------------------------------------------------------------------------------------------


def keyed(fingerprints: dict[int, str], compact: int = 1 << 30, seed: int = 1) -> SimCluster:
    """Three masters; each process of one is given the key that `fingerprints` says then."""
    sim = cluster(agents=0, masters=3, seed=seed, registry=NodeSettings(compact_entries=compact))
    for number, master in enumerate(sim.masters):
        opened = master._open

        def open_keyed(number: int = number, opened: object = opened) -> RegistryPort:
            port: RegistryPort = opened()  # type: ignore[operator]
            port._key_fingerprint = fingerprints[number]
            return port

        master.crash()
        master.host.files = MemoryFiles()
        master.host._ports["registry"] = (open_keyed, False)
    for master in sim.masters:
        master.start()
    sim.until(lambda: sim.leading() is not None)
    return sim


def test_a_master_with_the_clusters_key_starts_again() -> None:
    keys = dict.fromkeys(range(3), "good")
    sim = keyed(keys)
    sim.masters[0].crash()
    sim.masters[0].start()
    sim.run(5)
    assert sim.masters[0].up
    assert sim.masters[0].replica.machine.state.cluster is not None


@pytest.mark.parametrize("compact", [1, 1 << 30])
def test_a_master_with_another_key_is_refused(compact: int) -> None:
    keys = dict.fromkeys(range(3), "good")
    sim = keyed(keys, compact)
    sim.run(3)
    keys[0] = "bad"
    sim.masters[0].crash()
    sim.masters[0].start()
    sim.run(5)
    failure = sim.masters[0].host.failure
    assert isinstance(failure, StorageError)
    assert "has the key good, and this master was given bad" in str(failure)


def test_a_master_with_another_key_is_refused_before_it_hears_anybody() -> None:
    """The others would not even let it connect, so nothing would ever tell it."""
    keys = dict.fromkeys(range(3), "good")
    sim = keyed(keys)
    sim.run(3)
    for master in sim.masters:
        master.crash()
    keys[0] = "bad"
    sim.masters[0].start()
    failure = sim.masters[0].host.failure
    assert isinstance(failure, StorageError)
    assert "has the key good, and this master was given bad" in str(failure)


def test_a_single_master_with_another_key_does_not_lead() -> None:
    sim = cluster(agents=0)
    sim.until(lambda: sim.leading() is not None)
    sim.masters[0].crash()
    opened = sim.masters[0]._open

    def open_keyed() -> RegistryPort:
        port = opened()
        port._key_fingerprint = "another"
        return port

    sim.masters[0].host._ports["registry"] = (open_keyed, False)
    sim.masters[0].start()
    sim.run(3)
    assert sim.leading() is None
    assert isinstance(sim.masters[0].host.failure, StorageError)


def test_a_restored_cluster_takes_the_key_that_it_is_founded_with(tmp_path: Path) -> None:
    """The key of the backup is that of the cluster before; a restart goes by the new one."""
    sim = cluster(agents=0, invariants=False)  # it is another history
    master = sim.masters[0]
    master.crash()
    records = (ClusterRecord(ClusterId("old"), 3, 4, "former"), WeightRecord(Role("r"), 5_000))
    import_directory(tmp_path / "x", decode_backup(encode_backup(records, 40, 7, 1_000)), "m", ("m",), NOW_US)
    master.host.files = in_memory(tmp_path / "x")
    for _ in range(3):
        master.start()
        sim.run(1)
        assert master.host.failure is None
        assert master.leads
        assert sim.leader.roster.weights[Role("r")] == 5_000
        master.crash()


# -- backups ----------------------------------------------------------------------------------------------------------


def backup(weight_milli: int = 5_000) -> Backup:
    records = (ClusterRecord(ClusterId("old"), 3, 4), WeightRecord(Role("r"), weight_milli))
    return decode_backup(encode_backup(records, 40, 7, 1_000))


def in_memory(path: Path) -> MemoryFiles:
    files, real = MemoryFiles(), DirectoryFiles(path)
    for name in real.names():
        files.append(name, real.read(name))
    files.sync()
    real.close()
    return files


def imported(group: Group, tmp_path: Path, backups: dict[str, Backup]) -> None:
    """Every member's directory is made of its backup, and taken into memory."""
    for name in group.names:
        import_directory(tmp_path / name, backups[name], name, group.names, NOW_US)
        group.files[name] = in_memory(tmp_path / name)


def test_a_backup_that_is_imported_everywhere_is_taken_up(tmp_path: Path) -> None:
    group = Group(3, start=False)
    imported(group, tmp_path, dict.fromkeys(group.names, backup()))
    for name in group.names:
        group.start(name)
    group.until(lambda: any(r.leadership.ready for r in group.up.values()))
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))

    assert [group.weight(name) for name in group.names] == [5_000] * 3
    cluster_record = group.leader.machine.state.cluster
    assert cluster_record is not None
    assert cluster_record.cluster_id == "old"
    assert cluster_record.next_agent > 3 and cluster_record.next_framework > 4
    assert group.leader.engine.term > 7
    assert set(group.leader.machine.state.members) == set(group.names)
    group.write(group.leader.name, 6_000)
    for name in group.names:
        group.restart(name)
    group.until(lambda: any(r.leadership.ready for r in group.up.values()))
    group.until(group.same)
    assert group.weight("a") == 6_000


def test_different_backups_do_not_make_a_cluster(tmp_path: Path) -> None:
    group = Group(3, start=False)
    imported(group, tmp_path, {"a": backup(), "b": backup(), "c": backup(6_000)})
    for name in group.names:
        group.start(name)
    group.run(10)
    assert not any(replica.engine.leads for replica in group.up.values())
    assert any("prepared from another backup" in text for _, text in group.complaints)


def test_disks_of_before_the_restore_are_refused(tmp_path: Path) -> None:
    group = founded(3)
    old = group.files["c"]
    for name in group.names:
        group.crash(name)
    imported(group, tmp_path, dict.fromkeys(group.names, backup()))
    for name in group.names:
        group.start(name)
    group.until(lambda: any(r.leadership.ready for r in group.up.values()))
    group.until(lambda: group.same() and not any(replica.members.waiting for replica in group.up.values()))
    group.crash("c")
    group.files["c"] = old
    group.start("c")
    group.until(lambda: group.leader.name != "c" if any(r.leadership.ready for r in group.up.values()) else False)
    leader, term = group.leader.name, group.leader.engine.term
    with pytest.raises(StorageError, match="was replaced; its directory must not be used again"):
        group.run(5)
    group.crash("c")
    assert (group.leader.name, group.leader.engine.term) == (leader, term)
    assert any("master c speaks with another disk" in text for _, text in group.complaints)
    group.crash("b" if leader == "a" else "a")
    operation = group.submit(leader, 9)
    group.run(5)
    assert operation not in group.answers


def test_a_restored_cluster_has_terms_that_agents_have_not_seen(tmp_path: Path) -> None:
    """They refuse orders of an older term than they have seen, and those of the backup are old."""
    group = Group(3, start=False)
    imported(group, tmp_path, dict.fromkeys("abc", backup()))
    for name in group.names:
        group.start(name)
    group.until(lambda: any(replica.leadership.ready for replica in group.up.values()))
    assert group.leader.engine.term > NOW_US // 1_000_000


def test_frameworks_have_their_failover_time_anew_after_a_restore(tmp_path: Path) -> None:
    """One that was away when the backup was made may have come back since."""
    first, second = FrameworkId("old-0000"), FrameworkId("old-0001")
    records = (
        ClusterRecord(ClusterId("old"), 3, 4, "former"),
        FrameworkRecord(first, FrameworkInfo("away"), deadline_us=5),
        FrameworkRecord(second, FrameworkInfo("gone"), deadline_us=6, removed=True, since_us=6),
    )
    text = decode_backup(encode_backup(records, 40, 7, 1_000))
    import_directory(tmp_path / "x", text, "m", ("m",), NOW_US)
    machine = Machine()
    snapshot, _ = SnapshotStore(in_memory(tmp_path / "x")).load()
    assert snapshot is not None
    machine.restore(snapshot.state)
    assert machine.state.frameworks[first].deadline_us == 0
    assert machine.state.frameworks[second].deadline_us == 6


@pytest.mark.parametrize("entries", [2, 100])
def test_a_log_that_a_snapshot_has_made_void_is_not_exported(tmp_path: Path, entries: int) -> None:
    """The process died between keeping a leader's snapshot and beginning the log anew: at its next start it drops that
    log, of entries that may never have been acknowledged."""
    lone, path = Lone(), tmp_path / "x"
    found = lone.log()[1][0]
    files = DirectoryFiles(path)
    identity = Identity("a", lone.members, DISKS["a"])
    journal, machine = Journal.create(files, identity), Machine()
    journal.add(found, 2, 1)
    for index in range(3, 3 + entries):
        journal.add(entry(index, 2, 666).data, index, 2)
    journal.setCurrentTerm(7, None)
    journal.sync()
    machine.apply(1, found)
    machine.apply(7, entry(50, 7, 42).data)
    SnapshotStore(files).save(Snapshot(50, 7, machine.image()))
    write_identity(files, identity)
    files.close()

    exported = export_directory(path, 0)

    assert (exported.term, exported.index) == (7, 50)
    assert [record.weight_milli for record in exported.records if isinstance(record, WeightRecord)] == [42]


def test_one_surviving_disk_is_enough(tmp_path: Path) -> None:
    group = founded(3)
    group.write("a", 5_500)
    path = tmp_path / "survivor"
    real = DirectoryFiles(path)
    group.crash("c")
    for name in group.files["c"].names():
        real.append(name, group.files["c"].read(name))
    real.sync()
    real.close()
    found = export_directory(path, 1_000)
    assert WeightRecord(Role("r"), 5_500) in found.records
    assert found.cluster_id == "cluster"


def test_a_backup_goes_into_an_empty_directory_only(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        import_directory(tmp_path / "x", backup(), "a", ("a", "b", "c"), NOW_US)
    with pytest.raises(InvalidInput, match="there is no registry here"):
        export_directory(tmp_path / "nowhere", 0)


# -- strangers --------------------------------------------------------------------------------------------------------


def test_a_stranger_is_not_heard_and_an_operators_key_is_needed() -> None:
    """What comes from another address than a member's, or with another key than the cluster's, changes nothing."""
    sim = cluster(agents=0, masters=3, seed=2)
    sim.until(lambda: sim.leading() is not None)
    leading = sim.leading_host()
    assert leading is not None
    term = leading.replica.engine.term
    port = leading.host.port("registry")
    origin = Origin(leading.replica.members.cluster_id, "0" * 32, Term(term + 5))
    for sender, principal in (("tcp://9.9.9.9:1/registry", "cluster"), (f"tcp://{_other(sim)}/registry", "somebody")):
        message = RequestVote(origin, 1 << 40, Term(1 << 40), transfer=True)
        port.on_message(Address(sender), "", principal, message)  # type: ignore[arg-type]
    assert leading.replica.engine.term == term
    leading.host.post("master", SetRoleWeight(OperationId("one"), Role("r"), 2_000))
    sim.run(1)
    assert leading.replica.engine.term == term
    assert leading.replica.machine.state.weights[Role("r")].weight_milli == 2_000


def _other(sim: SimCluster) -> str:
    return next(master.member for master in sim.masters if not master.leads)
