"""What a ZeroMQ transport can be told: every bound and every time, by name."""

from __future__ import annotations

import msgspec


class TransportSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Times in milliseconds. Every bound says what happens when it is reached."""

    heartbeat_interval_ms: int = 2_000
    """ZMTP PING after so long without traffic; made and answered by ZeroMQ's own thread, so a busy loop stays alive."""
    heartbeat_timeout_ms: int = 6_000
    """A peer silent for so long is lost. A killed process is noticed at once, by its closed connection: this is for
    pulled cables and stopped machines (Mesos: 75 s of missed pings)."""
    handshake_timeout_ms: int = 10_000
    """A connection that has not shown a valid key by then is closed."""
    connect_timeout_ms: int = 5_000
    """A link that is not up by then is given up: what waits for it is dropped and the loss is told."""
    reconnect_ms: int = 100
    """First pause between attempts to connect, then doubled up to `reconnect_max_ms`."""
    reconnect_max_ms: int = 1_000
    linger_ms: int = 1_000
    """The longest that `close` waits for bytes to leave."""
    idle_ms: int = 600_000
    """A link that we opened, nobody watches and nothing used for so long is closed; both sides are told."""
    sweep_ms: int = 1_000
    """How often the times above are looked at, as long as there is a link they apply to."""
    retry_ms: int = 5
    """How soon a full socket is tried again, when it does not say itself that it has room."""
    high_water_frames: int = 256
    """Frames ZeroMQ holds for one peer, each way; past it they wait with us, or push back on the peer's TCP. At least
    2: with 1, libzmq 4.3.5 keeps the first frame of an encrypted connection for ever."""
    max_queued_messages: int = 100_000
    """Messages that wait with us for one peer; past it the newest is dropped and counted."""
    max_queued_bytes: int = 64 << 20
    """Bytes that wait with us for one peer; past it the newest message is dropped and counted."""
    max_dialled: int = 1_000
    """Links that we open; past it no further one is opened: its messages are dropped and counted, its loss is told."""
    max_connections: int = 50_000
    """Connections from others; a further one is told goodbye."""
    turn_messages: int = 256
    """After so many messages delivered in one go, the rest of the loop gets its turn."""
    max_executor_keys: int = 100_000
    """Executors that may hold a key at the same time; a further one is refused."""
