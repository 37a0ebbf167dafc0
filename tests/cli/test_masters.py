"""`mesos-actor masters` and `registry`, against replicas that are only their answers."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest

from mesos_actor.actors import client_registry
from mesos_actor.actors.cli import app
from mesos_actor.actors.client import Client
from mesos_actor.actors.core.registry import AnyClusterRecord
from mesos_actor.actors.ids import Address, AgentId, ClusterId, FrameworkId, OperationId, Role, Term, actor_of, node_of
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.raft import (
    DescribeMember,
    MemberDescription,
    Origin,
    Peer,
    ReadRegistry,
    RegistryPiece,
    TransferLeadership,
)
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    ClusterRecord,
    FrameworkRecord,
    MemberRecord,
    WeightRecord,
)
from mesos_actor.actors.messages.scheduler import OperationResult, Refused
from mesos_actor.actors.messages.values import AgentInfo, FrameworkInfo
from mesos_actor.actors.resources import Resources
from mesos_actor.raft import offline
from mesos_actor.raft.backup import Backup, decode_backup, digest, encode_backup

NAMES = ("h1:5050", "h2:5050", "h3:5050")
RECORDS: tuple[AnyClusterRecord, ...] = (
    ClusterRecord(ClusterId("c"), 1, 2, "k"),
    MemberRecord("h1:5050", "d1" * 16, 5),
    AgentRecord(AgentId("c-S0"), AgentInfo("web", Address("tcp://h9:1/agent"), Resources.parse("cpus:1")), "r0"),
    FrameworkRecord(FrameworkId("c-0000"), FrameworkInfo("etl"), deadline_us=1),
    FrameworkRecord(FrameworkId("c-0001"), FrameworkInfo("old"), removed=True, outcome="done"),
    WeightRecord(Role("ads"), 2_500),
)
TEXT = encode_backup(RECORDS, 40, 3, 9)
BACKUP = decode_backup(TEXT)


def address_of(name: str) -> Address:
    return Address(f"tcp://{name}/master" if name else "")


class Replicas:
    """What each master's registry answers. Those not in `state` are down."""

    def __init__(self) -> None:
        self.state = {"h1:5050": "leader", "h2:5050": "follower", "h3:5050": "follower"}
        self.term: dict[str, int] = dict.fromkeys(NAMES, 3)
        self.last_index = {"h1:5050": 40, "h2:5050": 38, "h3:5050": 40}
        self.missing: dict[str, tuple[str, ...]] = {}
        self.text = {40: TEXT}
        self.piece_bytes = 100
        self.refusal: Message | None = None
        self.takes_over = True
        self.asked: list[tuple[str, Message]] = []
        self.on_read: Callable[[ReadRegistry], None] = lambda message: None

    @property
    def leader(self) -> str:
        leaders = [name for name, state in self.state.items() if state == "leader"]
        return max(leaders, key=lambda name: self.term[name], default="")

    def answer(self, name: str, message: Message) -> Message | None:
        self.asked.append((name, message))
        if name not in self.state:
            return None
        if self.refusal is not None:
            return self.refusal
        match message:
            case DescribeMember():
                return self.describe(name, message)
            case TransferLeadership():
                return self.transfer(name, message)
            case ReadRegistry():
                self.on_read(message)
                return self.read(name, message)
            case _:
                raise AssertionError(message)

    def describe(self, name: str, message: DescribeMember) -> MemberDescription:
        last = self.last_index[name]
        peers = tuple(Peer(one, self.last_index[one], 20) for one in NAMES if one != name)
        return MemberDescription(
            operation_id=message.operation_id,
            name=name,
            state=self.state[name],
            origin=Origin(ClusterId("c"), f"{name[:2]}disk-and-more", Term(self.term[name])),
            leader=address_of(self.leader),
            first_index=1,
            last_index=last,
            commit_index=last,
            applied_index=last,
            snapshot_index=0,
            log_bytes=1_536,
            silent_ms=0 if name == self.leader else 31,
            missing=self.missing.get(name, ()),
            peers=peers if self.state[name] == "leader" else (),
        )

    def transfer(self, name: str, message: TransferLeadership) -> Message:
        to = message.to or "h3:5050"
        if name != self.leader or to not in self.state:
            return OperationResult(message.operation_id, False, "invalid", f"{to} is not a master of this cluster")
        if self.takes_over:
            self.state[name], self.state[to] = "follower", "leader"
            self.term = dict.fromkeys(NAMES, self.term[name] + 1)
            return OperationResult(message.operation_id, True)
        return OperationResult(message.operation_id, False, "unavailable", "did not take over in time")

    def read(self, name: str, message: ReadRegistry) -> Message:
        if not message.index and not message.stale and name != self.leader:
            return Refused("not-leading", "does not lead", leader=address_of(self.leader))
        index = message.index or max(self.text)
        if index not in self.text:
            return Refused("gone", "no longer kept", operation_id=message.operation_id)
        text, offset = self.text[index], message.offset_bytes
        return RegistryPiece(
            operation_id=message.operation_id,
            index=index,
            total_bytes=len(text),
            offset_bytes=offset,
            data=text[offset : offset + self.piece_bytes],
            leader=address_of(self.leader),
            silent_ms=0 if name == self.leader else 31,
        )


class FakeClient:
    """As much of a Client as is used, with an answer at once or none at all."""

    def __init__(self, replicas: Replicas, masters: str, timeout_s: float) -> None:
        self.replicas = replicas
        self.masters = tuple(address_of(name) for name in (masters or NAMES[0]).split(","))
        self.timeout_s = min(timeout_s, 0.2)

    async def ask(self, to: Address, message: Message, operation_id: OperationId, timeout_s: float) -> Message | None:
        assert actor_of(to) == "registry"
        answer = self.replicas.answer(node_of(to).removeprefix("tcp://"), message)
        if answer is None:
            await asyncio.sleep(min(timeout_s, 0.01))
        return answer

    def hint(self) -> str:
        return "is one running?"


@pytest.fixture
def replicas(monkeypatch: pytest.MonkeyPatch) -> Replicas:
    world = Replicas()

    def blocking(
        masters: str, key_dir: str, insecure: bool, timeout_s: float, ask: Callable[[Client], Coroutine[Any, Any, Any]]
    ) -> Any:
        return asyncio.run(ask(cast(Client, FakeClient(world, masters, timeout_s))))

    monkeypatch.setattr(client_registry, "blocking", blocking)
    return world


class Ended:
    def __init__(self, status: int | str | None, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err
        self.lines = out.splitlines()

    def __repr__(self) -> str:
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


Cli = Callable[..., Ended]


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run one command line in this process."""
    monkeypatch.delenv("MESOS_ACTOR_MASTERS", raising=False)

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as stopped:
            app.run(list(arguments))
        out, err = capfd.readouterr()
        return Ended(stopped.value.code, out, err)

    return run


def failed(ended: Ended, status: int, words: str) -> None:
    assert (ended.status, ended.out) == (status, ""), ended
    assert ended.err.startswith("mesos-actor: "), ended
    assert len(ended.err.splitlines()) == 1, ended
    assert words in ended.err, ended


# -- masters


def test_masters_shows_who_leads_and_how_far_each_is(cli: Cli, replicas: Replicas) -> None:
    ended = cli("masters")

    assert ended.status == 0, ended
    assert [line.split() for line in ended.lines] == [
        ["MASTER", "STATE", "TERM", "COMMIT", "APPLIED", "LAG", "LOG", "HEARD", "DISK"],
        ["h1:5050", "*", "leader", "3", "40", "40", "0", "1.5", "KiB", "-", "h1disk-a"],
        ["h2:5050", "follower", "3", "38", "38", "2", "1.5", "KiB", "31", "ms", "h2disk-a"],
        ["h3:5050", "follower", "3", "40", "40", "0", "1.5", "KiB", "31", "ms", "h3disk-a"],
    ]


@pytest.mark.parametrize("given", ["h1:5050", "h2:5050", "h2:5050,h3:5050", "h1:5050,h2:5050,h3:5050"])
def test_any_master_leads_to_the_others(cli: Cli, replicas: Replicas, given: str) -> None:
    rows = json.loads(cli("masters", "--masters", given, "--json").out)

    assert [row["master"] for row in rows] == list(NAMES)
    assert sorted(name for name, _ in replicas.asked) == list(NAMES)


def test_one_that_is_down_is_shown_with_what_the_leader_knows(cli: Cli, replicas: Replicas) -> None:
    del replicas.state["h2:5050"]
    ended = cli("masters")

    assert ended.status == 0, ended
    assert ended.lines[2].split() == ["h2:5050", "no", "answer", "-", "-", "-", "2", "-", "-", "-"]
    assert json.loads(cli("masters", "--json").out)[1] == {
        "master": "h2:5050",
        "state": "no answer",
        "problem": "no answer",
        "leads": False,
        "lag": 2,
    }


def test_no_leader_is_a_failure_that_shows_what_there_is(cli: Cli, replicas: Replicas) -> None:
    replicas.state = {"h2:5050": "candidate"}
    ended = cli("masters", "--masters", ",".join(NAMES))

    assert ended.status == 1, ended
    assert [line.split()[1] for line in ended.lines[1:]] == ["no", "candidate", "no"]
    assert "no master leads now: a majority" in ended.err


def test_a_deposed_leader_is_not_taken_for_the_leader(cli: Cli, replicas: Replicas) -> None:
    replicas.state["h2:5050"] = "leader"
    replicas.term["h1:5050"] = 2
    rows = json.loads(cli("masters", "--masters", ",".join(NAMES), "--json").out)

    assert [(row["state"], row["leads"]) for row in rows] == [
        ("old leader", False),
        ("leader", True),
        ("follower", False),
    ]


def test_masters_that_wait_say_for_whom(cli: Cli, replicas: Replicas) -> None:
    replicas.state = {"h1:5050": "founding", "h2:5050": "learner"}
    replicas.missing = {"h1:5050": ("h3:5050",), "h2:5050": ("h3:5050",)}
    ended = cli("masters", "--masters", "h1:5050,h2:5050")

    assert ended.status == 1
    assert ended.err.splitlines()[:2] == [
        "h1:5050 waits for h3:5050: start those, in a new cluster with --initialize, after an import without it",
        "h2:5050 has a new disk and no vote until the others, as a majority, let it in; missing: h3:5050",
    ]
    assert ended.lines[3].split()[:3] == ["h3:5050", "no", "answer"]


def test_nobody_answers(cli: Cli, replicas: Replicas) -> None:
    replicas.state = {}

    failed(cli("masters"), 1, "no master answered within 0.2 s at h1:5050; is one running?")


def test_a_client_without_the_clusters_key_is_told_so(cli: Cli, replicas: Replicas) -> None:
    replicas.refusal = Refused("unauthorized", "The registry obeys holders of the cluster's key only")

    failed(cli("masters"), 1, "the masters refuse to say how they stand: The registry obeys holders of")
    failed(cli("registry", "show"), 2, "h1:5050: The registry obeys holders of")


def test_options_before_the_subcommand_are_refused_not_ignored(cli: Cli, replicas: Replicas) -> None:
    failed(cli("masters", "--masters", "h2:5050", "transfer"), 2, "write --masters after transfer, not before it")


# -- transfer


def test_transfer_gives_the_lead_to_whoever_has_most(cli: Cli, replicas: Replicas) -> None:
    ended = cli("masters", "transfer", "--masters", "h2:5050")

    assert (ended.status, ended.out) == (0, "h3:5050 leads\n"), ended


def test_transfer_to_a_master_asks_the_leader_once(cli: Cli, replicas: Replicas) -> None:
    ended = cli("masters", "transfer", "H2", "--masters", "h3:5050")

    assert (ended.status, ended.out) == (0, "h2:5050 leads\n"), ended
    assert [(to, m.to) for to, m in replicas.asked if isinstance(m, TransferLeadership)] == [("h1:5050", "h2:5050")]


def test_a_transfer_that_fails_says_why(cli: Cli, replicas: Replicas) -> None:
    failed(cli("masters", "transfer", "h7:5050"), 2, "h1:5050: h7:5050 is not a master of this cluster")
    failed(cli("masters", "transfer", "a:b"), 2, "transfer: 'a:b' has no port number")
    replicas.takes_over = False
    failed(cli("masters", "transfer"), 1, "h1:5050: did not take over in time")
    replicas.state["h1:5050"] = "follower"
    failed(cli("masters", "transfer"), 1, "no master leads now")


# -- registry show


def test_show_counts_and_lists_what_is_replicated(cli: Cli, replicas: Replicas) -> None:
    ended = cli("registry", "show", "--masters", "h2:5050")

    assert ended.status == 0, ended
    assert [line.split() for line in ended.lines[:8]] == [
        ["cluster", "id", "c"],
        ["as", "of", "index", "40,", "term", "3"],
        ["digest", digest(BACKUP)],
        ["masters", "1"],
        ["agents", "1"],
        ["frameworks", "2"],
        ["weights", "1"],
        [],
    ]
    words = [line.split() for line in ended.lines[8:]]
    assert ["c-S0", "web", "h9:1", "admitted", "-"] in words
    assert ["c-0000", "etl", "disconnected", "0", "s", "-"] in words
    assert ["c-0001", "old", "removed", "-", "done"] in words
    assert ["ads", "2.5"] in words


def test_show_for_programs(cli: Cli, replicas: Replicas) -> None:
    data = json.loads(cli("registry", "show", "--json").out)

    assert (data["index"], data["term"], data["source"], data["leader"]) == (40, 3, "h1:5050", "h1:5050")
    assert data["cluster"]["key_fingerprint"] == "k"
    assert [row["framework_id"] for row in data["frameworks"]] == ["c-0000", "c-0001"]


def test_stale_asks_any_and_says_how_old_it_is(cli: Cli, replicas: Replicas) -> None:
    ended = cli("registry", "show", "--stale", "--masters", "h7:5050,h2:5050")

    assert ended.status == 0, ended
    assert "index 40, term 3, from h2:5050, leader heard 31 ms ago" in ended.lines[1]
    assert "which leads or believes so" in cli("registry", "show", "--stale").lines[1]


def test_without_a_leader_only_stale_answers_come(cli: Cli, replicas: Replicas) -> None:
    replicas.state = {"h2:5050": "follower"}

    failed(cli("registry", "show", "--masters", "h2:5050"), 1, "or with --stale what any of them has")
    assert cli("registry", "show", "--stale", "--masters", "h2:5050").status == 0


def test_a_registry_that_was_never_founded_is_no_registry(cli: Cli, replicas: Replicas) -> None:
    replicas.text = {1: encode_backup((), 1, 0, 9)}

    failed(cli("registry", "show"), 2, "records: [] hold no cluster")


# -- reading in pieces


def test_a_reading_begins_anew_when_its_state_is_gone(cli: Cli, replicas: Replicas) -> None:
    newer = encode_backup(RECORDS[:3], 41, 3, 10)

    def change(message: ReadRegistry) -> None:
        if message.offset_bytes:
            replicas.text = {41: newer}

    replicas.on_read = change

    assert cli("registry", "export").out == newer.decode()


def test_a_reading_that_never_ends_is_given_up(cli: Cli, replicas: Replicas) -> None:
    def change(message: ReadRegistry) -> None:
        index = max(replicas.text)
        replicas.text = {index + 1 if message.index else index: TEXT}

    replicas.on_read = change

    failed(cli("registry", "export"), 1, "the registry changes faster than it can be read; it was begun 10 times")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"offset_bytes": 5}, "pieces that do not fit together"),
        ({"index": 39}, "pieces that do not fit together"),
        ({"total_bytes": 10**6}, "pieces that do not fit together"),
        ({"data": b""}, "stopped after 100 of"),
        ({"data": TEXT * 2}, "pieces that do not fit together"),
    ],
)
def test_pieces_that_do_not_fit_are_refused(
    cli: Cli, replicas: Replicas, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], words: str
) -> None:
    original = replicas.read

    def read(name: str, message: ReadRegistry) -> Message:
        answer = original(name, message)
        return msgspec.structs.replace(answer, **changes) if message.offset_bytes else answer

    monkeypatch.setattr(replicas, "read", read)

    failed(cli("registry", "export"), 1, words)


def test_a_registry_that_is_too_large_is_not_fetched(
    cli: Cli, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_registry, "MAX_BACKUP_BYTES", 100)

    failed(cli("registry", "export"), 1, f"h1:5050 has {len(TEXT)} bytes, more than 100")


def test_a_master_that_dies_meanwhile_is_named(cli: Cli, replicas: Replicas) -> None:
    def die(message: ReadRegistry) -> None:
        if message.offset_bytes:
            del replicas.state["h1:5050"]

    replicas.on_read = die

    failed(cli("registry", "export"), 1, "h1:5050 did not go on within 0.2 s")


# -- registry export


def test_export_writes_a_file_that_only_its_owner_reads(cli: Cli, replicas: Replicas, tmp_path: Path) -> None:
    file = tmp_path / "saved.json"
    file.write_text("older")
    ended = cli("registry", "export", str(file))

    assert (ended.status, ended.out) == (0, ""), ended
    assert ended.err == (
        f"exported cluster c as of index 40: 1 masters, 1 agents, 2 frameworks, 1 weights; digest {digest(BACKUP)}\n"
    )
    assert file.read_bytes() == TEXT
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_export_to_standard_output_is_the_file_alone(cli: Cli, replicas: Replicas) -> None:
    assert cli("registry", "export", "-").out == cli("registry", "export").out == TEXT.decode()


def test_a_stale_export_warns(cli: Cli, replicas: Replicas) -> None:
    ended = cli("registry", "export", "--stale", "--masters", "h2:5050")

    assert (ended.status, ended.out) == (0, TEXT.decode())
    assert "warning: from h2:5050, leader heard 31 ms ago: this may lack" in ended.err


def test_export_refuses_what_it_cannot_do(cli: Cli, replicas: Replicas, tmp_path: Path) -> None:
    failed(cli("registry", "export", str(tmp_path / "none" / "x")), 1, "No such file or directory")
    failed(cli("registry", "export", str(tmp_path)), 1, "Is a directory")
    failed(cli("registry", "export", "--stale", "--work-dir", str(tmp_path)), 2, "give one of them")
    failed(cli("registry", "export", "--work-dir", str(tmp_path)), 2, "holds no registry")
    (tmp_path / "registry").mkdir()
    (tmp_path / "master" / "registry").mkdir(parents=True)
    failed(cli("registry", "export", "--work-dir", str(tmp_path)), 2, "holds more than one registry")
    assert replicas.asked == [] or all(isinstance(message, ReadRegistry) for _, message in replicas.asked)


@pytest.mark.parametrize("place", ["registry", "master/registry"])
def test_export_from_a_disk_warns(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    read: list[Path] = []

    def export_directory(path: Path, now_us: int) -> Backup:
        read.append(path)
        return BACKUP

    monkeypatch.setattr(offline, "export_directory", export_directory)
    (tmp_path / place).mkdir(parents=True)
    ended = cli("registry", "export", "--work-dir", str(tmp_path))

    assert (ended.status, ended.out, read) == (0, TEXT.decode(), [tmp_path / place])
    assert "it may lack what a majority acknowledged without it, and may hold what never was acknowledged" in ended.err
    assert "this one: term 3, index 40" in ended.err


# -- registry import


class Imports:
    def __init__(self) -> None:
        self.calls: list[tuple[Path, Backup, str, tuple[str, ...]]] = []

    def __call__(self, path: Path, backup: Backup, member: str, members: tuple[str, ...], now_us: int) -> None:
        assert now_us > 1_700_000_000_000_000
        self.calls.append((path, backup, member, members))


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Imports:
    made = Imports()
    monkeypatch.setattr(offline, "import_directory", made)
    return made


@pytest.fixture
def saved(tmp_path: Path) -> str:
    (tmp_path / "saved.json").write_bytes(TEXT)
    return str(tmp_path / "saved.json")


THREE = "127.0.0.1:5050,127.0.0.1:5051,127.0.0.1:5052"


def test_import_prepares_one_of_several_masters(cli: Cli, imports: Imports, saved: str, tmp_path: Path) -> None:
    work = tmp_path / "deep" / "w"
    ended = cli("registry", "import", saved, "--work-dir", str(work), "--masters", THREE, "--port", "5051")

    path = work / "master" / "registry"
    assert ended.status == 0, ended
    assert imports.calls == [(path, BACKUP, "127.0.0.1:5051", tuple(THREE.split(",")))]
    assert path.parent.is_dir()
    assert ended.out.startswith(f"{path}: cluster c as of index 40")
    assert digest(BACKUP) in ended.out
    assert "next: import the same file on 127.0.0.1:5050, 127.0.0.1:5052" in ended.err
    assert "without --initialize" in ended.err
    assert "never start a former disk" in ended.err


def test_import_prepares_a_cluster_of_one_host(
    cli: Cli, imports: Imports, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT)))
    ended = cli("registry", "import", "-", "--work-dir", str(tmp_path / "w"))

    assert ended.status == 0, ended
    assert imports.calls == [(tmp_path / "w" / "registry", BACKUP, "127.0.0.1:5050", ("127.0.0.1:5050",))]
    assert "then: start it as always" in ended.err


@pytest.mark.parametrize(
    ("made", "arguments", "words"),
    [
        ("master/registry/log-1", ("--masters", THREE, "--port", "5050"), "is not empty; import into a new directory"),
        ("master/x", ("--masters", "127.0.0.1"), "is not empty"),
        ("registry/log-1", ("--masters", "127.0.0.1"), "was used by a cluster of one host"),
        ("state.sqlite3", ("--masters", "127.0.0.1"), "was used by a cluster of one host"),
        ("registry/log-1", (), "is not empty"),
        ("master/registry/log-1", (), "was used by a master of several"),
        ("", ("--masters", "198.51.100.1,198.51.100.2,198.51.100.3"), "does not name this host"),
        ("", ("--masters", "127.0.0.1,198.51.100.2"), "are 2: an even number"),
        ("", ("--masters", THREE), "names this host 3 times; say which one this is with --port"),
        ("", ("--masters", "127.0.0.1", "--as", "leader"), "--as: 'leader' is not a choice"),
    ],
)
def test_import_refuses_a_place_that_is_not_a_new_masters(
    cli: Cli, imports: Imports, saved: str, tmp_path: Path, made: str, arguments: tuple[str, ...], words: str
) -> None:
    work = tmp_path / "w"
    if made:
        (work / made).parent.mkdir(parents=True)
        (work / made).touch()

    failed(cli("registry", "import", saved, "--work-dir", str(work), *arguments), 2, words)
    assert imports.calls == []


def test_import_refuses_a_file_that_is_no_backup(cli: Cli, imports: Imports, tmp_path: Path) -> None:
    work = str(tmp_path / "w")
    (tmp_path / "bad.json").write_text('{"format": "x"}')

    failed(cli("registry", "import", str(tmp_path / "bad.json"), "--work-dir", work), 2, "format: 'x' is not")
    failed(cli("registry", "import", str(tmp_path / "none"), "--work-dir", work), 2, "No such file or directory")
    failed(cli("registry", "import", str(tmp_path), "--work-dir", work), 2, "Is a directory")
    failed(cli("registry", "import", str(tmp_path / "bad.json")), 2, "--work-dir")
    assert imports.calls == []
    assert not (tmp_path / "w").exists()


# -- help, and the words of start


@pytest.mark.parametrize(
    "command",
    [("masters",), ("masters", "transfer"), ("registry", "show"), ("registry", "export"), ("registry", "import")],
)
def test_every_command_explains_itself_with_an_example(cli: Cli, command: tuple[str, ...]) -> None:
    ended = cli(*command, "--help")

    assert ended.status == 0
    assert f"Usage: mesos-actor {' '.join(command)}" in ended.out
    assert "Example" in ended.out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("masters", "bogus"), "No such command 'bogus'"),
        (("registry", "bogus"), "No such command 'bogus'"),
        (
            ("start", "--masters", "198.51.100.1", "--initialize"),
            "initialize: True is for masters, and this process is",
        ),
        (("start", "--initialize", "--replace"), "give one of them"),
        (("start", "--replace"), "needs other masters to learn from"),
        (("start", "--masters", "127.0.0.1,198.51.100.1"), "are 2: an even number tolerates no more failures"),
        (
            ("start", "--masters", "198.51.100.1,198.51.100.2,198.51.100.3", "--as", "master"),
            "has no entry for this host",
        ),
    ],
)
def test_wrong_words_end_in_one_line(cli: Cli, arguments: tuple[str, ...], words: str) -> None:
    failed(cli(*arguments), 2, words)
