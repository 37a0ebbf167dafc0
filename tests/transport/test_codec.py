"""The codec: what goes in comes out, and nothing that comes in breaks it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.actors.errors import LocalError, PeerError, StorageError
from mesos_actor.actors.ids import AgentId, Node, Term
from mesos_actor.actors.messages import MESSAGES, RECORDS
from mesos_actor.actors.messages.agents import Ping, Pong
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.executors import ShutdownYourself
from mesos_actor.actors.messages.records import UserRecord
from mesos_actor.actors.messages.scheduler import FromExecutor, Refused
from mesos_actor.transport import codec
from tests.strategies import messages, records, structs

NODE = Node("peer:ab")
_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def frame_of(*bodies: object, version: int = codec.PROTOCOL_VERSION) -> bytes:
    """A frame by hand, with any bodies."""
    return msgspec.msgpack.encode((version, NODE, 7, 1, "", [("master", "agent", "c1", body) for body in bodies]))


@pytest.mark.parametrize("name", sorted(MESSAGES))
def test_every_message_comes_out_as_it_went_in(name: str) -> None:
    @settings(max_examples=10, deadline=None)
    @given(structs(MESSAGES[name]))
    def round_trip(message: Message) -> None:
        assert message == codec.decode_message(codec.encode_message(message))

    round_trip()


@pytest.mark.parametrize("name", sorted(RECORDS))
def test_every_record_comes_out_as_it_went_in(name: str) -> None:
    @settings(max_examples=10, deadline=None)
    @given(structs(RECORDS[name]))
    def round_trip(record: Record) -> None:
        assert record == codec.decode_record(codec.encode_record(record))

    round_trip()


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(_TEXT, _TEXT, _TEXT, messages()), max_size=4),
    st.integers(0, 2**63),
    st.integers(1, 2**63),
    _TEXT,
)
def test_a_batch_comes_out_as_one_frame(
    sent: list[tuple[str, str, str, Message]], epoch: int, sequence: int, notice: str
) -> None:
    batch = codec.Batch()
    size = sum(batch.add(*item) for item in sent)

    frame, bad = codec.read_frame(batch.frame(NODE, epoch, sequence, notice))

    assert bad == []
    assert sent == [(e.to, e.sender, e.cause, e.message) for e in frame.envelopes]
    assert (NODE, epoch, sequence, notice) == (frame.node, frame.epoch, frame.sequence, frame.notice)
    assert (len(sent), size) == (batch.count, len(batch))


def test_an_unknown_message_spoils_only_itself() -> None:
    data = frame_of({"t": "Ping", "term": 1}, {"t": "FromTheFuture", "x": [1]}, {"t": "Pong", "agent_id": "a"})

    frame, bad = codec.read_frame(data)

    assert [Ping(Term(1)), Pong(AgentId("a"))] == [e.message for e in frame.envelopes]
    assert [(b.reason, b.about, b.to, b.sender, b.cause) for b in bad] == [
        ("unknown-message", "FromTheFuture", "master", "agent", "c1")
    ]
    refusal = bad[0].refusal()
    assert refusal is not None
    assert (refusal.reason, refusal.about) == ("unknown-message", "FromTheFuture")
    assert "FromTheFuture" in refusal.text


@pytest.mark.parametrize(
    ("body", "about"),
    [
        ({"t": "Ping", "term": "one"}, "Ping"),
        ({"t": "Ping"}, "Ping"),
        ({"t": 5, "term": 1}, ""),
        ({"term": 1}, ""),
        ([1, 2], ""),
        (None, ""),
        (b"\xff", ""),
    ],
)
def test_a_malformed_message_spoils_only_itself(body: object, about: str) -> None:
    frame, bad = codec.read_frame(frame_of(body, {"t": "Ping", "term": 1}))

    assert [Ping(Term(1))] == [e.message for e in frame.envelopes]
    assert [("malformed", about)] == [(b.reason, b.about) for b in bad]
    assert len(bad[0].text) < 2 * codec.MAX_TEXT_LENGTH


def test_nobody_answers_a_refusal() -> None:
    _frame, bad = codec.read_frame(frame_of({"t": "Refused", "reason": 3}))

    assert bad[0].about == Refused.__name__
    assert bad[0].refusal() is None


def test_unknown_fields_are_ignored() -> None:
    envelope = ["master", "agent", "c1", {"t": "Ping", "term": 1, "mood": {"deep": [1, None]}}, "further"]
    data = msgspec.msgpack.encode((1, NODE, 7, 1, "", [envelope], {"further": 1}))

    frame, bad = codec.read_frame(data)

    assert bad == []
    assert [Ping(Term(1))] == [e.message for e in frame.envelopes]


@pytest.mark.parametrize("data", [frame_of(version=2), frame_of({"t": 1}, version=9), b"\x92\x05\xc0"])
def test_another_version_is_named(data: bytes) -> None:
    with pytest.raises(PeerError, match=r"protocol version \d, this process speaks 1"):
        codec.read_frame(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 1_000_000 + b"\xc0",
        b"\x96\x01\xa1n\x01\x01\xa0\x91\x94\xa1a\xa1b\xa1c" + b"\x91" * 1_000_000 + b"\xc0",
        b"\x96\x01\xa1n\x01\x01\xa0\x91\x94\xa1a\xa1b\xa1c\x82\xa1t\xa4Ping\xa1x" + b"\x81\xa1a" * 500_000 + b"\xc0",
        b"\x96\x01\xa1n\x01\x01\xa0\xdd\xff\xff\xff\xff",
        b"\x96\x01\xa2\xff\xfe\x01\x01\xa0\x90",
    ],
    ids=["deep arrays", "deep body", "deep unknown field", "endless array", "not UTF-8"],
)
def test_bombs_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        codec.read_frame(data)


def test_text_that_is_not_utf8_spoils_only_its_message() -> None:
    good = msgspec.msgpack.encode(("master", "agent", "c", Ping(Term(1))))
    bad_text = b"\x94\xa6master\xa5agent\xa1c\x82\xa1t\xa4Pong\xa8agent_id\xa2\xff\xfe"
    data = b"\x96\x01\xa1n\x01\x01\xa0\x92" + bad_text + good

    frame, bad = codec.read_frame(data)

    assert [Ping(Term(1))] == [e.message for e in frame.envelopes]
    assert [b.reason for b in bad] == ["malformed"]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_escape(data: bytes) -> None:
    for read, error in (
        (codec.read_frame, PeerError),
        (codec.decode_message, PeerError),
        (codec.decode_record, StorageError),
    ):
        try:
            read(data)
        except error:
            continue


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_mutated_frames_never_escape(data: st.DataObject) -> None:
    batch = codec.Batch()
    for message in data.draw(st.lists(messages("Ping", "RunTasks", "Refused", "Propose"), min_size=1, max_size=3)):
        batch.add("master", "agent", "c", message)
    frame = bytearray(batch.frame(NODE, 5, 6))
    for _ in range(data.draw(st.integers(1, 4))):
        where = data.draw(st.integers(0, len(frame) - 1))
        match data.draw(st.sampled_from(["set", "cut", "insert"])):
            case "set":
                frame[where] = data.draw(st.integers(0, 255))
            case "cut":
                del frame[where : where + data.draw(st.integers(1, 8))]
                frame = frame or bytearray(b"\x00")
            case _:
                frame[where:where] = data.draw(st.binary(min_size=1, max_size=8))
    try:
        codec.read_frame(bytes(frame))
    except PeerError:
        return


@pytest.mark.parametrize(
    "message",
    [
        ShutdownYourself(1 << 70),
        Pong(AgentId("\ud800")),
        FromExecutor("f", "a", "e", b"x" * codec.MAX_MESSAGE_BYTES),  # type: ignore[arg-type]
    ],
    ids=["integer", "surrogate", "too long"],
)
def test_what_cannot_travel_is_refused_and_leaves_no_trace(message: Message) -> None:
    batch = codec.Batch()
    batch.add("a", "b", "", Ping(Term(1)))

    with pytest.raises(LocalError, match=type(message).__name__):
        batch.add("a", "b", "", message)
    batch.add("a", "b", "", Ping(Term(2)))

    frame, bad = codec.read_frame(batch.frame(NODE, 1, 1))
    assert ([Ping(Term(1)), Ping(Term(2))], []) == ([e.message for e in frame.envelopes], bad)
    with pytest.raises(LocalError):
        codec.encode_message(message)


def test_a_batch_says_when_it_is_full() -> None:
    batch = codec.Batch()
    batch.add("a", "b", "", FromExecutor("f", "a", "e", b"x" * (codec.FRAME_TARGET_BYTES - 200)))  # type: ignore[arg-type]
    assert not batch.full
    batch.add("a", "b", "", FromExecutor("f", "a", "e", b"x" * 200))  # type: ignore[arg-type]
    assert batch.full


def test_a_newer_record_is_named() -> None:
    with pytest.raises(StorageError, match="'QuotaRecord' was written by a newer version"):
        codec.decode_record(msgspec.msgpack.encode({"t": "QuotaRecord", "x": 1}))


def test_a_damaged_record_is_named() -> None:
    with pytest.raises(StorageError, match="UserRecord is damaged"):
        codec.decode_record(msgspec.msgpack.encode({"t": "UserRecord", "data": 5}))
    with pytest.raises(StorageError, match="damaged"):
        codec.decode_record(codec.encode_record(UserRecord(b"abc"))[:-2])


@settings(max_examples=20, deadline=None)
@given(records())
def test_a_record_is_no_message(record: Record) -> None:
    with pytest.raises(PeerError):
        codec.decode_message(codec.encode_record(record))
