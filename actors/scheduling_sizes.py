"""How long a message of a framework may be. Judged before anything is recorded: what cannot be sent was never asked."""

from __future__ import annotations

import msgspec

from mesos_actor.actors.errors import LocalError
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.values import Task

MAX_ACCEPT_BYTES = 8 << 20
"""The longest `Accept`. Half of what the transport sends at all (MAX_MESSAGE_BYTES of transport/codec.py), for the
master adds to the tasks what their agent needs to know."""

MAX_TASKS_BYTES = MAX_ACCEPT_BYTES - (64 << 10)
"""What the tasks of one `Accept` may take together: room is left for the ids of the offers and the framework."""

MAX_ORDER_BYTES = (16 << 20) - (64 << 10)
"""The longest of all other messages; the rest is for the envelope and what the master adds when it passes them on."""

_encoder = msgspec.msgpack.Encoder()


def encoded(call: str, message: Message, most: int = MAX_ORDER_BYTES) -> bytes:
    """`message` as it will be sent. Raises LocalError that begins with `call` when it is too long or cannot be."""
    try:
        data = _encoder.encode(message)
    except (msgspec.EncodeError, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise LocalError(f"{call}: cannot be sent: {error}; give valid text and numbers of at most 64 bits") from error
    if len(data) > most:
        raise LocalError(
            f"{call}: the message is {len(data)} bytes long, at most {most} can be sent; "
            "send less at a time, large data by files that the agents can read"
        )
    return data


def check_readable(call: str, data: bytes, kind: type[Message]) -> None:
    """Raises LocalError when the master could not read `data` as `kind`: a field has a value of another type."""
    try:
        msgspec.msgpack.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise LocalError(f"{call}: the master could not read it: {error}; correct the type of that field") from error


def task_bytes(task: Task) -> int:
    """What `task` takes of an `Accept`. Raises LocalError when it cannot be sent at all."""
    try:
        return len(_encoder.encode(task))
    except (msgspec.EncodeError, RecursionError, OverflowError, TypeError, ValueError) as error:
        raise LocalError(f"task {task.task_id!r}: cannot be sent: {error}") from error


def too_long(what: str, size: int) -> str:
    """The words for a single task for which no `Accept` has room."""
    return (
        f"{what} takes {size} bytes, at most {MAX_TASKS_BYTES} can be launched; "
        "put large arguments into files that the agents can read"
    )
