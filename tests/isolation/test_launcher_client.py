"""What the agent says again to a launcher that it has found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgpack
import pytest

from mesos_actor.isolation.launcher_client import MAX_LAUNCH_BYTES, LauncherClient
from mesos_actor.isolation.launcher_wire import LISTING_CHUNK, MAX_FRAME_BYTES, pack


@pytest.fixture
def client(tmp_path: Path) -> LauncherClient:
    """One that is not connected: what it says waits."""
    return LauncherClient(tmp_path, lambda _event: None, lambda _listing: None)


def said(client: LauncherClient) -> list[dict[str, Any]]:
    unpacker = msgpack.Unpacker(raw=False)
    unpacker.feed(client._unsent)
    return list(unpacker)


def test_launch_of_a_killed_container_is_not_said_again(client: LauncherClient) -> None:
    client.launch("a", {"argv": ["true"]})
    client.launch("b", {"argv": ["true"]})
    client.kill("a", 0)

    client._on_all_listed()

    assert [(message["k"], message["id"]) for message in said(client)] == [("launch", "b"), ("kill", "a")]


def test_launch_that_is_too_long_is_never_said(client: LauncherClient) -> None:
    assert MAX_LAUNCH_BYTES < MAX_FRAME_BYTES
    with pytest.raises(ValueError, match="arguments and environment are too long"):
        client.launch("a", {"argv": ["x" * MAX_LAUNCH_BYTES]})

    client._on_all_listed()

    assert said(client) == []


def test_many_are_forgotten_in_pieces(client: LauncherClient, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[bytes] = []
    monkeypatch.setattr(client, "_say", told.append)
    ids = [f"c{number}" for number in range(LISTING_CHUNK + 1)]

    client.forget(ids)

    assert told == [pack({"k": "forget", "ids": ids[:-1]}), pack({"k": "forget", "ids": ids[-1:]})]
