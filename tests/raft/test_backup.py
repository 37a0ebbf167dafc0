"""The registry as a file: it comes back as it went, and what is none of ours is refused by name."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesos_actor.actors.core.registry import AnyClusterRecord, RegistryState, key_of
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import (
    Address,
    AgentId,
    ClusterId,
    FrameworkId,
    OperationId,
    Role,
    Term,
    agent_id,
    framework_id,
)
from mesos_actor.actors.messages.registry import (
    AgentRecord,
    ClusterRecord,
    FrameworkRecord,
    MemberRecord,
    WeightRecord,
)
from mesos_actor.actors.messages.values import AgentInfo, FrameworkInfo
from mesos_actor.actors.resources import Resources
from mesos_actor.raft import backup as backup_module
from mesos_actor.raft.backup import Backup, decode_backup, digest, encode_backup
from tests.strategies import structs

Records = tuple[AnyClusterRecord, ...]

AGENT = AgentRecord(AgentId("c-S0"), AgentInfo("h", Address("tcp://h:1/agent"), Resources.parse("cpus:1")), "r0")
FRAMEWORK = FrameworkRecord(FrameworkId("c-0000"), FrameworkInfo("f"), operation_id=OperationId("o"))
CLUSTER = ClusterRecord(ClusterId("c"), 2, 2, "k")
MEMBER = MemberRecord("h1:5050", "d1", 5)
WEIGHT = WeightRecord(Role("ads"), 2_000)
ALL: Records = (CLUSTER, MEMBER, AGENT, FRAMEWORK, WEIGHT)


@st.composite
def registries(draw: st.DrawFn) -> Records:
    """Records of every kind that can have been kept at once."""
    replace = msgspec.structs.replace
    cluster = replace(
        draw(structs(ClusterRecord)), cluster_id=ClusterId(draw(st.text("0123456789abcdef", min_size=1, max_size=16)))
    )
    agents = [
        replace(record, agent_id=agent_id(cluster.cluster_id, number), registration=f"r{number}", state=state)
        for number, (record, state) in enumerate(
            draw(st.lists(st.tuples(structs(AgentRecord), st.sampled_from(backup_module.AGENT_STATES)), max_size=3))
        )
    ]
    frameworks = [
        replace(
            record,
            framework_id=framework_id(cluster.cluster_id, number),
            operation_id=OperationId(record.operation_id and f"o{number}"),
        )
        for number, record in enumerate(draw(st.lists(structs(FrameworkRecord), max_size=3)))
    ]
    cluster = replace(
        cluster,
        next_agent=len(agents) + draw(st.integers(0, 5)),
        next_framework=len(frameworks) + draw(st.integers(0, 5)),
    )
    names = draw(st.sets(st.sampled_from(["h1:5050", "h2:5050", "[::1]:5051", "single"])))
    members = [MemberRecord(name, f"disk of {name}", draw(st.integers(0, 2**62))) for name in sorted(names)]
    roles = draw(st.sets(st.sampled_from(["*", "ads", "web/a", "ж"])))
    weights = [WeightRecord(Role(role), draw(st.integers(1, 1_000_000_000))) for role in sorted(roles)]
    return (cluster, *members, *agents, *frameworks, *weights)


@given(registries(), st.integers(0, 2**62), st.integers(0, 2**62), st.integers(0, 2**62))
def test_a_registry_comes_back_as_it_went(records: Records, index: int, term: int, now_us: int) -> None:
    written = encode_backup(records, index, term, now_us)
    backup = decode_backup(written)

    cluster_id = records[0].cluster_id  # type: ignore[union-attr]
    assert backup == Backup(cluster_id, index, Term(term), now_us, records, digest(backup))
    assert encode_backup(backup.records, backup.index, backup.term, backup.exported_us) == written
    assert RegistryState.load({key_of(record): record for record in backup.records}).records() == records


@given(registries(), st.randoms(use_true_random=False))
def test_the_digest_is_of_what_a_cluster_would_begin_with(records: Records, rng: random.Random) -> None:
    shuffled = list(records)
    rng.shuffle(shuffled)
    one = decode_backup(encode_backup(records, 7, 3, 1))

    assert digest(one) == digest(decode_backup(encode_backup(shuffled, 8, 3, 2)))
    assert digest(one) != digest(decode_backup(encode_backup(records, 7, 4, 1)))
    assert digest(one) != digest(decode_backup(encode_backup((*records, WeightRecord(Role("new"), 1)), 7, 3, 1)))


def test_the_digest_does_not_change_between_releases() -> None:
    assert digest(Backup(CLUSTER.cluster_id, 7, Term(3), 1, ALL)) == "a527f6cfdf6cedfa"


def test_the_file_says_what_it_is_and_has_a_record_a_line() -> None:
    lines = encode_backup(ALL, 7, 3, 9).decode().splitlines()

    assert lines[0] == (
        '{"format":"mesos-actor registry","version":1,"cluster_id":"c","index":7,"term":3,"digest":"a527f6cfdf6cedfa",'
        '"exported_us":9,"records":['
    )
    assert lines[1] == '{"t":"ClusterRecord","cluster_id":"c","next_agent":2,"next_framework":2,"key_fingerprint":"k"},'
    assert (len(lines), lines[-1]) == (len(ALL) + 2, "]}")


GOOD = encode_backup(ALL, 7, 3, 9)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "b'' is no such JSON"),
        (b"\xff\xfe", "is no such JSON"),
        (b"[1]", "is no such JSON"),
        (GOOD[:-10], "is no such JSON (Input data was truncated); give a file that `mesos-actor registry export` has"),
        (b'{"x":' * 100_000, "is no such JSON"),
        (b"{}", "format: '' is not 'mesos-actor registry'"),
        (GOOD.replace(b"mesos-actor registry", b"other"), "format: 'other' is not 'mesos-actor registry'"),
        (
            GOOD.replace(b'"version":1', b'"version":2'),
            "version: 2 is newer than this release, which reads 1; use the release that exported it",
        ),
        (GOOD.replace(b'"version":1', b'"version":0'), "version: 0 is not 1"),
        (
            GOOD.replace(b'"weight_milli":', b'"weight_milli":1'),
            "digest: 'a527f6cfdf6cedfa' is not that of",
        ),
        (GOOD.replace(b'"digest":"a527f6cfdf6cedfa",', b""), "digest: '' is not that of the records"),
        (GOOD.replace(b'"index":7', b'"index":-7'), "index: Expected `int` >= 0"),
        (GOOD.replace(b'"term":3,', b""), "document: Object missing required field `term`"),
        (
            GOOD.replace(b"WeightRecord", b"QuotaRecord"),
            "records[4].t: 'QuotaRecord' is a kind of record that this release does not know; use the release that",
        ),
        (GOOD.replace(b'"weight_milli":2000', b'"weight_milli":"x"'), "records[4].weight_milli: Expected `int`, got"),
    ],
)
def test_what_is_no_backup_is_refused_with_field_and_fix(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_backup(data)

    assert str(refusal.value).startswith("backup: ")
    assert words in str(refusal.value)
    assert len(str(refusal.value)) < 400


def test_a_file_that_is_too_large_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backup_module, "MAX_BACKUP_BYTES", len(GOOD) - 1)

    with pytest.raises(InvalidInput, match=f"size: '{len(GOOD)} bytes' is more than"):
        decode_backup(GOOD)


change = msgspec.structs.replace


@pytest.mark.parametrize(
    ("records", "words"),
    [
        ((), "records: [] hold no cluster"),
        ((WEIGHT,), "records: ['weight/ads'] hold no cluster"),
        ((*ALL, WEIGHT), "records: 'weight/ads' is there 2 times"),
        ((*ALL, change(CLUSTER, next_agent=9)), "records: 'cluster' is there 2 times"),
        ((ClusterRecord(ClusterId("")),), "cluster_id: '' is not that of the records"),
        ((change(CLUSTER, next_agent=-1),), "next_agent, next_framework: (-1, 2) are below 0"),
        ((change(CLUSTER, next_agent=0), AGENT), "agent_id: 'c-S0' was not given yet: next_agent is 0"),
        ((CLUSTER, change(AGENT, agent_id=AgentId("d-S0"))), "agent_id: 'd-S0' is none of cluster c"),
        ((CLUSTER, change(AGENT, agent_id=AgentId("c-S00"))), "agent_id: 'c-S00' is none of cluster c"),
        ((CLUSTER, change(AGENT, agent_id=AgentId("c-S-1"))), "agent_id: 'c-S-1' is none of cluster c"),
        (
            (CLUSTER, change(AGENT, state="lost")),
            "state of agent c-S0: 'lost' is not one of admitted, unreachable, gone",
        ),
        ((CLUSTER, AGENT, change(AGENT, agent_id=AgentId("c-S1"))), "registration: 'r0' is that of both c-S0 and c-S1"),
        ((change(CLUSTER, next_framework=0), FRAMEWORK), "framework_id: 'c-0000' was not given yet"),
        ((CLUSTER, change(FRAMEWORK, framework_id=FrameworkId("c-1"))), "framework_id: 'c-1' is none of cluster c"),
        (
            (CLUSTER, FRAMEWORK, change(FRAMEWORK, framework_id=FrameworkId("c-0001"))),
            "operation_id: 'o' admitted both c-0000 and c-0001",
        ),
        ((CLUSTER, WeightRecord(Role("a//b"), 1)), "role: 'a//b' has no weight: Role 'a//b' cannot contain"),
        ((CLUSTER, change(WEIGHT, weight_milli=0)), "weight_milli of ads: 0 is not from 1 to"),
        ((CLUSTER, MemberRecord("h1:5050", "")), "member: 'h1:5050' with disk '' is none"),
    ],
)
def test_records_that_no_registry_can_hold_are_refused(records: Records, words: str) -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_backup(encode_backup(records, 7, 3, 9))

    assert words in str(refusal.value)


def test_a_header_that_names_another_cluster_is_refused() -> None:
    with pytest.raises(InvalidInput, match="cluster_id: 'd' is not that of the records, 'c'"):
        decode_backup(GOOD.replace(b'"cluster_id":"c","index"', b'"cluster_id":"d","index"'))


def test_a_long_value_is_shown_in_part() -> None:
    with pytest.raises(InvalidInput) as refusal:
        decode_backup(GOOD.replace(b"mesos-actor registry", b"x" * 10_000))

    assert len(str(refusal.value)) < 200


def _cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def _flipped(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


@given(st.sampled_from([_cut, _flipped]), st.randoms(use_true_random=False))
def test_any_damage_is_read_or_refused(damage: Callable[[bytes, random.Random], bytes], rng: random.Random) -> None:
    try:
        decode_backup(damage(GOOD, rng))
    except InvalidInput:
        return


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(InvalidInput):
        decode_backup(data)
