"""What an agent and its launcher say to each other: msgpack maps one after another on a unix socket.

Every message has its kind under `k`. The launcher outlives the agent's program and may be older than it, so kinds and
fields are only ever added; `VERSION` changes when that is not enough, and then the two say so and do not guess.

To the launcher: `hello` version · `launch` id argv env cwd out err [user] [limits] [cgroup] [confine] ·
`kill` id grace_ms · `forget` ids · `ping` · `shutdown` (once nothing runs).

From it: `welcome` version pid · `refused` text · `listed` containers [more] · `started` id pid · `failed` id reason
text · `exited` id code killed text · `pong` · `bad` text. `code` is the exit status, a negative signal number, or nil
when nobody can know it.
"""

from __future__ import annotations

from typing import Any

import msgpack

VERSION = 1
SOCKET_NAME = "launcher.sock"
LOCK_NAME = "launcher.lock"
OUTPUT_NAME = "launcher.log"
LOG_NAME = "exits.log"

MAX_FRAME_BYTES = 16 << 20
"""One message, and what may wait undecoded. The kernel takes at most 2 MiB of arguments anyway (ARG_MAX)."""

READ_BYTES = 256 << 10
MAX_CONTAINERS = 100_000
"""Running and not yet forgotten, together; a launch past that fails. (AgentSettings.max_tasks is the same.)"""

LISTING_CHUNK = 1_000
MARKER = "MESOS_CONTAINER_ID"
"""The environment variable by which a process is known to belong to a container."""

TEXT_LAUNCHER_DIED = "the launcher that watched it died; exit status cannot be known"
TEXT_DIED_STARTING = "the launcher died while it started it; whether it ran cannot be known"
TEXT_HOST_RESTARTED = "the host was restarted while it ran; exit status cannot be known"

_packer = msgpack.Packer(use_bin_type=True, unicode_errors="surrogateescape")


def pack(message: dict[str, Any] | list[Any]) -> bytes:
    """`message` as msgpack. Raises: ValueError, TypeError, OverflowError when it holds something else than plain
    values."""
    packed: bytes = _packer.pack(message)
    return packed


def unpacker() -> msgpack.Unpacker:
    """A streaming reader; `feed` raises msgpack.BufferFull past the bound."""
    return msgpack.Unpacker(
        raw=False, strict_map_key=False, max_buffer_size=MAX_FRAME_BYTES, unicode_errors="surrogateescape"
    )
