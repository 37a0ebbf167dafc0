"""Bytes on the wire and on disk: msgpack, typed by the one registry of messages, every size bounded.

A frame is what one turn has for one peer:

    [version, sender's node, epoch, sequence, notice, [[actor, sender's actor, cause, message], ...]]

A message is a map with its class under `t`. Unknown fields are ignored, further items of a frame or an envelope too. A
message that cannot be read spoils only itself: the rest of the frame is delivered and whoever sent it is answered. A
frame that cannot be read is dropped and counted. Nothing here runs code that the data names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Union

import msgspec

from mesos_actor.actors.errors import LocalError, PeerError, StorageError
from mesos_actor.actors.ids import Node
from mesos_actor.actors.messages import MESSAGES, RECORDS
from mesos_actor.actors.messages.base import Message, Record
from mesos_actor.actors.messages.scheduler import Refused

PROTOCOL_VERSION = 1
"""The layout of a frame. Fields of messages come and go without it (actors/messages/base.py)."""

FRAME_TARGET_BYTES = 1 << 20
"""A batch this long is closed and the next one begun, so that a bulk turn does not hold up what comes after it."""

MAX_MESSAGE_BYTES = 16 << 20
"""A longer message is refused where it is sent (gRPC's default is 4 MiB; Mesos has no bound)."""

MAX_FRAME_BYTES = 64 << 20
"""A longer frame ends the connection it comes from (ZMQ_MAXMSGSIZE)."""

MAX_TEXT_LENGTH = 500
"""How much of a decoder's complaint is told to the peer."""

if TYPE_CHECKING:
    AnyMessage = Message
    AnyRecord = Record
else:
    AnyMessage = Union[tuple(MESSAGES.values())]  # noqa: UP007 - made from the registry
    AnyRecord = Union[tuple(RECORDS.values())]  # noqa: UP007

BAD_DATA = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What decoding a stranger's bytes may raise; msgspec.ValidationError is a DecodeError."""

BAD_VALUE = (msgspec.EncodeError, RecursionError, UnicodeEncodeError, OverflowError, TypeError, ValueError)
"""What encoding a value of our own may raise: a lone surrogate, an integer past 64 bits, a wrong type."""


class Envelope(msgspec.Struct, array_like=True, frozen=True):
    """One message on its way. `to` and `sender` are names of actors without a node: the link knows the nodes."""

    to: str
    sender: str
    cause: str
    message: AnyMessage


class Unreadable(msgspec.Struct, frozen=True):
    """A message that cannot be used. `reason`: `unknown-message` or `malformed`; `about`: its tag, if it has one."""

    to: str
    sender: str
    cause: str
    reason: str
    text: str
    about: str = ""

    def refusal(self) -> Refused | None:
        """What to answer; None when it was a refusal itself, which nobody answers."""
        if self.about == Refused.__name__:
            return None
        return Refused(reason=self.reason, text=self.text, about=self.about)


class Frame(msgspec.Struct, array_like=True, frozen=True):
    """What one turn of `node` had for us. `notice`, when set, says why the sender ends this link."""

    version: int
    node: Node
    epoch: int
    sequence: int
    notice: str
    envelopes: list[Envelope]


class _RawEnvelope(msgspec.Struct, array_like=True, frozen=True):
    to: str
    sender: str
    cause: str
    message: msgspec.Raw


class _RawFrame(msgspec.Struct, array_like=True, frozen=True):
    version: int
    node: Node
    epoch: int
    sequence: int
    notice: str
    envelopes: list[_RawEnvelope]


class _Tag(msgspec.Struct):
    t: str = ""


_encoder = msgspec.msgpack.Encoder()
_frame_decoder = msgspec.msgpack.Decoder(Frame)
_raw_frame_decoder = msgspec.msgpack.Decoder(_RawFrame)
_tag_decoder = msgspec.msgpack.Decoder(_Tag)
_message_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(AnyMessage)
_record_decoder: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(AnyRecord)

# -- frames out -----------------------------------------------------------------------------------------------------


class Batch:
    """Envelopes for one peer, encoded one after the other as they come, made a frame when they leave."""

    __slots__ = ("_envelopes", "count")

    def __init__(self) -> None:
        self._envelopes = bytearray()
        #: How many messages it holds.
        self.count = 0

    def __len__(self) -> int:
        """Its length in bytes, without the header."""
        return len(self._envelopes)

    @property
    def full(self) -> bool:
        """Whether the next message should begin another batch."""
        return len(self._envelopes) >= FRAME_TARGET_BYTES

    def add(self, to: str, sender: str, cause: str, message: Message) -> int:
        """Append a message; returns the bytes it takes.

        Raises LocalError, and appends nothing, when it is too long or holds what msgpack cannot express.
        """
        envelopes = self._envelopes
        before = len(envelopes)
        try:
            _encoder.encode_into((to, sender, cause, message), envelopes, -1)
        except BAD_VALUE as error:
            del envelopes[before:]
            raise LocalError(f"{type(message).__name__} for {to} cannot be encoded: {error}") from error
        size = len(envelopes) - before
        if size > MAX_MESSAGE_BYTES:
            del envelopes[before:]
            raise LocalError(
                f"{type(message).__name__} for {to} is {size} bytes long, the bound is {MAX_MESSAGE_BYTES}: "
                "send less at a time, large data by the sandbox"
            )
        self.count += 1
        return size

    def frame(self, node: Node, epoch: int, sequence: int, notice: str = "") -> bytes:
        """The frame that carries them from `node`."""
        header = _encoder.encode((PROTOCOL_VERSION, node, epoch, sequence, notice))
        return b"".join((b"\x96", header[1:], b"\xdd", self.count.to_bytes(4, "big"), self._envelopes))


# -- frames in ------------------------------------------------------------------------------------------------------


def read_frame(data: bytes) -> tuple[Frame, list[Unreadable]]:
    """The frame in `data`, with its good messages in order, and what could not be read of it.

    Raises PeerError when nothing of it can be trusted: another version, not our layout, not msgpack.
    """
    try:
        frame = _frame_decoder.decode(data)
    except BAD_DATA:
        return _read_frame_by_message(data)
    if frame.version != PROTOCOL_VERSION:
        raise PeerError(_wrong_version(frame.version))
    return frame, []


def _read_frame_by_message(data: bytes) -> tuple[Frame, list[Unreadable]]:
    try:
        raw = _raw_frame_decoder.decode(data)
    except BAD_DATA as error:
        # The layout of another version need not decode; its number stands where it always will.
        if len(data) > 1 and data[0] >> 4 == 9 and data[1] < 128 and data[1] != PROTOCOL_VERSION:
            raise PeerError(_wrong_version(data[1])) from error
        raise PeerError(f"frame cannot be read: {_text(error)}") from error
    if raw.version != PROTOCOL_VERSION:
        raise PeerError(_wrong_version(raw.version))
    good: list[Envelope] = []
    bad: list[Unreadable] = []
    for item in raw.envelopes:
        try:
            good.append(Envelope(item.to, item.sender, item.cause, _message_decoder.decode(item.message)))
        except BAD_DATA as error:
            bad.append(_unreadable(item, error))
    return Frame(raw.version, raw.node, raw.epoch, raw.sequence, raw.notice, good), bad


def _unreadable(item: _RawEnvelope, error: Exception) -> Unreadable:
    tag = _tag_of(item.message)
    if tag and tag not in MESSAGES:
        reason, text = "unknown-message", f"no message '{tag[:MAX_TEXT_LENGTH]}' is known to this version"
    else:
        reason, text = "malformed", f"{tag or 'message'} cannot be read: {_text(error)}"
    return Unreadable(item.to, item.sender, item.cause, reason, text, tag[:MAX_TEXT_LENGTH])


def _tag_of(data: bytes | msgspec.Raw) -> str:
    try:
        return _tag_decoder.decode(data).t
    except BAD_DATA:
        return ""


def _wrong_version(version: int) -> str:
    return f"frame of protocol version {version}, this process speaks {PROTOCOL_VERSION}"


def _text(error: Exception) -> str:
    return str(error)[:MAX_TEXT_LENGTH]


# -- single messages and records ------------------------------------------------------------------------------------


def encode_message(message: Message) -> bytes:
    """`message` alone. Raises LocalError when it is too long or holds what msgpack cannot express."""
    try:
        data = _encoder.encode(message)
    except BAD_VALUE as error:
        raise LocalError(f"{type(message).__name__} cannot be encoded: {error}") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise LocalError(f"{type(message).__name__} is {len(data)} bytes long, the bound is {MAX_MESSAGE_BYTES}")
    return data


def decode_message(data: bytes) -> Message:
    """The message in `data`. Raises PeerError when it is unknown or malformed."""
    try:
        return _message_decoder.decode(data)
    except BAD_DATA as error:
        tag = _tag_of(data)
        if tag and tag not in MESSAGES:
            raise PeerError(f"no message '{tag[:MAX_TEXT_LENGTH]}' is known to this version") from error
        raise PeerError(f"{tag or 'message'} cannot be read: {_text(error)}") from error


def encode_record(record: Record) -> bytes:
    """`record` as it is kept. Raises LocalError when it holds what msgpack cannot express."""
    try:
        return _encoder.encode(record)
    except BAD_VALUE as error:
        raise LocalError(f"{type(record).__name__} cannot be encoded: {error}") from error


def decode_record(data: bytes) -> Record:
    """The record in `data`. Raises StorageError, naming it, when it is damaged or of a newer version than this code:
    state is never guessed."""
    try:
        return _record_decoder.decode(data)
    except BAD_DATA as error:
        tag = _tag_of(data)
        if tag and tag not in RECORDS:
            raise StorageError(
                f"record '{tag[:MAX_TEXT_LENGTH]}' was written by a newer version of mesos-actor: "
                "start that version, or name another work directory"
            ) from error
        raise StorageError(f"{tag or 'record'} is damaged: {_text(error)}") from error
