"""The state machine: total, deterministic, the same from a snapshot, and each proposal once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.core.registry import Applied, NotApplied, key_of
from mesos_actor.actors.errors import StorageError
from mesos_actor.actors.ids import ClusterId, OperationId, Role, Term, agent_id, framework_id
from mesos_actor.actors.messages.registry import Command, FoundCluster, SetWeight
from mesos_actor.raft import machine as module
from mesos_actor.raft.machine import (
    FORMAT_VERSION,
    MAX_CLIENTS,
    MAX_OUTCOMES,
    PROPOSAL,
    Image,
    Machine,
    Proposal,
    decode_proposal,
    disks_named_in,
    encode_image,
    encode_proposal,
)
from tests.strategies import messages

CLUSTER = ClusterId("c")
FOUND = FoundCluster(CLUSTER, (("a", "1" * 32),), "", 0)
COMMANDS = (
    "FoundCluster",
    "ReplaceMember",
    "AdmitAgent",
    "UpdateAgent",
    "MarkUnreachable",
    "MarkGone",
    "RemoveAgent",
    "AdmitFramework",
    "UpdateFramework",
    "RemoveFramework",
    "SetWeight",
    "CollectRecords",
)
KNOWN = {
    "agent_id": st.integers(0, 3).map(lambda n: agent_id(CLUSTER, n)),
    "framework_id": st.integers(0, 3).map(lambda n: framework_id(CLUSTER, n)),
    "registration": st.sampled_from(["r0", "r1", "r2"]),
    "operation_id": st.sampled_from([OperationId(""), OperationId("o0"), OperationId("o1")]),
    "role": st.sampled_from([Role("r"), Role("s/t"), Role("/"), Role("")]),
    "now_us": st.integers(0, 50),
    "before_us": st.integers(0, 50),
    "weight_milli": st.integers(-1, 5),
}


@st.composite
def commands(draw: st.DrawFn) -> Command:
    """Any command, most of them about the few things that there are."""
    drawn: Any = draw(messages(*COMMANDS))
    if isinstance(drawn, FoundCluster) or draw(st.integers(0, 4)) == 0:
        return drawn  # type: ignore[no-any-return]
    fields = {name: draw(KNOWN[name]) for name in msgspec.structs.asdict(drawn) if name in KNOWN}
    return msgspec.structs.replace(drawn, **fields)  # type: ignore[no-any-return]


@st.composite
def entries(draw: st.DrawFn, most: int = 25) -> list[tuple[int, bytes]]:
    """(term, data): with repeats of what was proposed before, in other terms too, and no-ops."""
    found: list[tuple[int, bytes]] = [(1, encode_proposal(Proposal(OperationId("found"), Term(1), FOUND)))]
    for _ in range(draw(st.integers(0, most))):
        kind = draw(st.sampled_from(["new", "new", "new", "again", "stale", "no-op"]))
        term = draw(st.integers(1, 3))
        if kind == "again":
            found.append(draw(st.sampled_from(found)))
        elif kind == "no-op":
            found.append((term, draw(st.sampled_from([b"\x01", b"", b"\x02pickle"]))))
        else:
            clients = [f"x-P{draw(st.integers(0, 9))}", "x", "", "-P1", "y-Px", "y-P-1", f"y-P{draw(_NUMBERS)}"]
            proposal = Proposal(OperationId(draw(st.sampled_from(clients))), Term(term), draw(commands()))
            found.append((term + (kind == "stale"), encode_proposal(proposal)))
    return found


_NUMBERS = st.sampled_from(["00", "7", "9" * 19, "9" * 25, "9" * 5_000, "٣"])


def run(machine: Machine, log: list[tuple[int, bytes]]) -> list[object]:
    return [machine.apply(term, data) for term, data in log]


@settings(max_examples=20)
@given(entries(), st.data())
def test_apply_is_total_and_deterministic_and_a_snapshot_is_the_state(
    log: list[tuple[int, bytes]], data: st.DataObject
) -> None:
    _judge(log, data)


@pytest.mark.slow
@settings(max_examples=150)
@given(entries(most=60), st.data())
def test_the_same_for_longer(log: list[tuple[int, bytes]], data: st.DataObject) -> None:
    _judge(log, data)


def _judge(log: list[tuple[int, bytes]], data: st.DataObject) -> None:
    one, other = Machine(2, 2), Machine(2, 2)
    answers = run(one, log)
    cut = data.draw(st.integers(0, len(log)))
    first = run(other, log[:cut])
    restored = Machine(2, 2)
    restored.restore(other.image())
    assert restored.image() == other.image()
    second = run(restored, log[cut:])
    assert first + second == answers
    assert restored.image() == one.image()
    assert restored.state.records() == one.state.records()
    assert {key_of(record) for record in one.state.records()} == {key_of(record) for record in restored.state.records()}


@settings(max_examples=20)
@given(st.lists(st.integers(0, 7), max_size=30), st.data())
def test_each_proposal_once_under_any_retries_and_order(order: list[int], data: st.DataObject) -> None:
    """Whatever is proposed again, before or after others: the first time counts, and every answer is to that."""
    proposals = [
        Proposal(OperationId(f"x-P{number}"), Term(1), data.draw(commands(), label=f"command {number}"))
        for number in range(8)
    ]
    machine, once = Machine(2, 2), Machine(2, 2)
    for each in (machine, once):
        each.apply(1, encode_proposal(Proposal(OperationId("found"), Term(1), FOUND)))
    first: dict[int, Applied | NotApplied] = {}
    for number in order:
        result = machine.apply(1, encode_proposal(proposals[number]))
        assert result is not None
        if number in first:
            before = first[number]
            if isinstance(before, NotApplied):
                assert result.outcome == before
            else:
                assert isinstance(result.outcome, Applied)
                assert result.outcome.removed == before.removed
                assert {key_of(r) for r in result.outcome.records} <= {key_of(r) for r in before.records}
        else:
            fresh = once.apply(1, encode_proposal(proposals[number]))
            assert fresh == result
            first[number] = result.outcome
    assert machine.state.records() == once.state.records()


def weight(operation: str, milli: int, term: int = 1) -> bytes:
    return encode_proposal(Proposal(OperationId(operation), Term(term), SetWeight(Role("r"), milli)))


def founded() -> Machine:
    machine = Machine()
    machine.apply(1, encode_proposal(Proposal(OperationId("found"), Term(1), FOUND)))
    return machine


def value(machine: Machine) -> int:
    return machine.state.weights[Role("r")].weight_milli


def test_a_repeat_gets_the_records_as_they_stand_now() -> None:
    machine = founded()
    machine.apply(1, weight("x-P1", 10))
    machine.apply(1, weight("x-P2", 20))
    again = machine.apply(1, weight("x-P1", 10))
    assert again is not None and isinstance(again.outcome, Applied)
    assert value(machine) == 20
    assert again.outcome.records == (machine.state.weights[Role("r")],)


def test_a_proposal_of_another_term_than_its_entrys_is_refused() -> None:
    machine = founded()
    before = machine.image()
    for entry_term in (1, 3):
        result = machine.apply(entry_term, weight("x-P1", 10, term=2))
        assert result is not None and isinstance(result.outcome, NotApplied)
        assert result.outcome.reason == "stale-term"
    assert machine.image() == before
    machine.apply(2, weight("x-P1", 10, term=2))
    assert value(machine) == 10


def test_outcomes_are_forgotten_after_a_while_and_then_a_repeat_is_refused() -> None:
    machine = founded()
    for number in range(MAX_OUTCOMES + 5):
        machine.apply(1, weight(f"x-P{number}", 1 + number))
    old = machine.apply(1, weight("x-P0", 1))
    assert old is not None and isinstance(old.outcome, NotApplied)
    assert old.outcome.reason == "expired"
    kept = machine.apply(1, weight(f"x-P{MAX_OUTCOMES}", 1))
    assert kept is not None and isinstance(kept.outcome, Applied)
    assert value(machine) == MAX_OUTCOMES + 5
    assert len(msgspec.msgpack.decode(machine.image(), type=Image).clients[0].outcomes) == MAX_OUTCOMES


def test_clients_are_forgotten_the_least_recent_first() -> None:
    machine = founded()
    machine.apply(1, weight("first-P1", 1))
    for number in range(MAX_CLIENTS - 1):
        machine.apply(1, weight(f"c{number}-P1", 2))
    machine.apply(1, weight("first-P2", 3))
    machine.apply(1, weight("new-P1", 4))
    names = [client.name for client in msgspec.msgpack.decode(machine.image(), type=Image).clients]
    assert len(names) == MAX_CLIENTS
    assert "first" in names and "c0" not in names


@pytest.mark.parametrize(
    "data",
    [
        encode_proposal(Proposal(OperationId("x-P1"), Term(1), SetWeight(Role("r"), 1), version=FORMAT_VERSION + 1)),
        PROPOSAL + msgspec.msgpack.encode({"operation_id": "x", "term": 1, "command": {"t": "NewCommand"}}),
        PROPOSAL + b"\xc1",
        PROPOSAL,
        PROPOSAL + b"\x93\x01\x02",
        PROPOSAL + msgspec.msgpack.encode({"operation_id": b"\xff", "term": 1}),
    ],
)
def test_a_command_that_cannot_be_read_stops_the_replica(data: bytes) -> None:
    machine = founded()
    before = machine.image()
    with pytest.raises(StorageError, match="newer release"):
        machine.apply(1, data)
    assert machine.image() == before


@given(st.binary(max_size=60))
def test_any_bytes_are_a_proposal_a_no_op_or_a_clear_refusal(data: bytes) -> None:
    for written in (data, PROPOSAL + data):
        machine = Machine()
        try:
            machine.apply(1, written)
        except StorageError as error:
            assert "newer release" in str(error)
        assert decode_proposal(b"\x01" + data) is None


@pytest.mark.parametrize(
    "image",
    [
        encode_image(Image((), version=FORMAT_VERSION + 1)),
        msgspec.msgpack.encode({"records": [{"t": "NewRecord"}], "clients": [], "version": FORMAT_VERSION}),
        msgspec.msgpack.encode({"version": FORMAT_VERSION + 1, "all": "new"}),
        b"",
        b"\xc1",
    ],
)
def test_a_snapshot_that_cannot_be_read_changes_nothing(image: bytes) -> None:
    machine = founded()
    machine.apply(1, weight("x-P1", 10))
    before = machine.image()
    with pytest.raises(StorageError, match="newer release"):
        machine.restore(image)
    assert machine.image() == before


def test_disks_are_named_by_two_commands_only() -> None:
    assert disks_named_in(encode_proposal(Proposal(OperationId("f"), Term(1), FOUND))) == ({"a": "1" * 32}, True)
    assert disks_named_in(b"\x01") is None
    assert disks_named_in(weight("FoundCluster-P1", 1)) is None


def test_the_commands_tested_are_all_there_are() -> None:
    assert {kind.__name__ for kind in Command.__args__} == set(COMMANDS)
    assert module.FORMAT_VERSION == 1


def test_a_wish_is_carried_out_once_whichever_leader_a_copy_of_it_reaches() -> None:
    machine = Machine()
    machine.apply(1, encode_proposal(Proposal(OperationId("found"), Term(1), FoundCluster(ClusterId("c"), (), "", 0))))
    result = None
    for number, (client, weight, wish) in enumerate((("a", 1000, "w1"), ("a", 2000, "w2"), ("b", 1000, "w1"))):
        command = SetWeight(Role("r"), weight)
        result = machine.apply(1, encode_proposal(Proposal(OperationId(f"{client}-P{number}"), Term(1), command, wish)))

    assert machine.state.weights[Role("r")].weight_milli == 2000
    assert result is not None and isinstance(result.outcome, Applied)
    again = Machine()
    again.restore(machine.image())
    again.apply(2, encode_proposal(Proposal(OperationId("c-P1"), Term(2), SetWeight(Role("r"), 1000), "w1")))
    assert again.state.weights[Role("r")].weight_milli == 2000


def test_a_restored_state_is_as_large_as_it_was() -> None:
    """Else replicas that begin from a snapshot would refuse what the others admit."""
    machine, again = Machine(), Machine()
    machine.apply(1, encode_proposal(Proposal(OperationId("f"), Term(1), FOUND)))
    machine.apply(1, weight("c-P1", 1))
    again.restore(machine.image())
    assert again.state.size_bytes == machine.state.size_bytes > 0
    assert again.image() == machine.image()
