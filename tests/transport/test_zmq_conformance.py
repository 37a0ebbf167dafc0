"""The promises of a transport, kept by ZeroMQ on loopback, with CURVE and without."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.transport.conformance import Conformance, Pair
from tests.transport.zmq_world import ZmqPair, cluster_keys

pytestmark = pytest.mark.zmq


class TestZmqWithCurve(Conformance):
    @pytest.fixture(autouse=True)
    def _key_dir(self, tmp_path: Path) -> None:
        self.keys = cluster_keys(tmp_path / "keys")

    def make_pair(self) -> Pair:
        return ZmqPair(self.keys)


class TestZmqInsecure(Conformance):
    def make_pair(self) -> Pair:
        return ZmqPair(None)
