"""The one module that touches pysyncobj: its terms, elections, vote rule and commit rule, and nothing else of it.

Stock pysyncobj 0.3.17 loses acknowledged writes under ordinary faults and unpickles what strangers send. So of
`SyncObj` only the tick (who campaigns, what is committed, when a leader gives up) and the handling of votes are used;
the followers' log, the sending of entries, snapshots, the state machine, the journal and the network are ours
(replica.py). What is overridden are private names of exactly this version, so version and source are checked at import.

The module is loaded a second time under a name of ours: its clock and poller are replaced there, and a program that
uses pysyncobj itself beside us keeps its own.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import random
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

import msgspec
from pysyncobj.config import SyncObjConf
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from mesos_actor.actors.errors import ConfigError
from mesos_actor.raft.journal import Journal

PINNED_VERSION = "0.3.17"
PINNED_SHA256 = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"
"""Of pysyncobj/syncobj.py."""
_OWN_NAME = "pysyncobj._mesos_actor_engine"
NO_OP = b"\x01"
"""What a new leader writes first (pysyncobj: _COMMAND_TYPE.NO_OP)."""

State = Literal["follower", "candidate", "leader"]
_STATES: tuple[State, ...] = ("follower", "candidate", "leader")


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds. An election is begun after a random time between the two bounds without a leader."""

    election_min_ms: int = 500
    election_max_ms: int = 1_000
    heartbeat_ms: int = 100
    fallback_ms: int = 1_000
    """A leader that no majority has answered for so long steps down."""
    lost_link_ms: int = 100
    """A follower whose link with the leader broke (kill -9 closes it at once) asks for votes within so long."""


class Hooks(Protocol):
    """What the engine asks of its owner."""

    def ask_for_vote(self, peer: str, term: int, last_index: int, last_term: int) -> None: ...
    def give_vote(self, peer: str, term: int) -> None: ...
    def send_entries(self) -> None:
        """Send every follower what it lacks, or a heartbeat."""


def load(source: Path | None = None) -> ModuleType:
    """A private copy of pysyncobj.syncobj. Raises ConfigError unless it is exactly the pinned one."""
    version = importlib.metadata.version("pysyncobj")
    found = importlib.util.find_spec("pysyncobj")
    assert found is not None and found.origin is not None
    path = source or Path(found.origin).with_name("syncobj.py")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    if version != PINNED_VERSION or digest != PINNED_SHA256:
        raise ConfigError(
            f"pysyncobj: version {version} with source {digest[:12]} is installed, but the registry is built on "
            "exactly "
            f"{PINNED_VERSION} with {PINNED_SHA256[:12]}; install pysyncobj=={PINNED_VERSION}"
        )
    spec = importlib.util.spec_from_file_location(_OWN_NAME, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[_OWN_NAME] = module
    spec.loader.exec_module(module)
    module.monotonicTime = lambda: _CLOCK[0]  # type: ignore[attr-defined]
    module.createPoller = lambda *_: _NoPoller()  # type: ignore[attr-defined]
    return module


_CLOCK = [0.0]
"""The time in seconds of the replica that is being called; every call of an Engine sets it first."""


class _NoPoller:
    def poll(self, _timeout_s: float) -> None:
        """There is nothing to wait for: the owner calls when there is."""


_MODULE = load()
_SyncObj: Any = _MODULE.SyncObj


class _Peer(Node):  # type: ignore[misc]
    """Iterating over a set of nodes must not depend on how strings are hashed in this process."""

    def __hash__(self) -> int:
        return zlib.crc32(self.id.encode())


class _Votes(Transport):  # type: ignore[misc]
    """pysyncobj's Transport: of all it may send, only votes get here."""

    @property
    def ready(self) -> Literal[True]:
        return True

    def __init__(self, hooks: Hooks) -> None:
        super().__init__(None, None, None)
        self._hooks = hooks

    def send(self, node: Any, message: dict[str, Any]) -> bool:
        if message["type"] == "request_vote":
            self._hooks.ask_for_vote(node.id, message["term"], message["last_log_index"], message["last_log_term"])
        elif message["type"] == "response_vote":
            self._hooks.give_vote(node.id, message["term"])
        else:
            raise AssertionError(f"pysyncobj sent {message['type']}")
        return True


class _Core(_SyncObj):  # type: ignore[misc]
    """SyncObj with everything but elections and the commit rule taken out."""

    def __init__(self, me: str, others: tuple[str, ...], timing: Timing, hooks: Hooks, rng: random.Random) -> None:
        self._hooks, self._timing, self._rng = hooks, timing, rng
        config = SyncObjConf(
            autoTick=False,
            appendEntriesPeriod=timing.heartbeat_ms / 1_000,
            raftMinTimeout=timing.election_min_ms / 1_000,
            raftMaxTimeout=timing.election_max_ms / 1_000,
            leaderFallbackTimeout=timing.fallback_ms / 1_000,
            connectionTimeout=max(3.5, timing.election_max_ms / 1_000),
        )
        peers = [_Peer(other) for other in others]
        super().__init__(_Peer(me), peers, config, nodeClass=_Peer, transport=_Votes(hooks))
        for peer in peers:
            self.__dict__["_SyncObj__connectedNodes"].add(peer)  # sends are bounded and may be lost anyway

    # Names as Python mangles them in SyncObj.

    def _SyncObj__generateRaftTimeout(self) -> float:
        timing = self._timing
        return (timing.election_min_ms + (timing.election_max_ms - timing.election_min_ms) * self._rng.random()) / 1_000

    def _SyncObj__sendAppendEntries(self) -> None:
        self.__dict__["_SyncObj__newAppendEntriesTime"] = _CLOCK[0] + self._timing.heartbeat_ms / 1_000
        self._hooks.send_entries()

    def _SyncObj__applyLogEntries(self) -> bool:
        return False  # the owner applies, in bounded pieces

    def _checkCommandsToApply(self) -> None:
        """Commands go into the log by `Engine.append`."""

    def _SyncObj__tryLogCompaction(self) -> None:
        """The owner takes snapshots."""


class Engine:
    """A replica's term, vote, role and commit index. Times are seconds of the owner's monotonic clock.

    `tick` must be called only while everything in the journal is synced: it counts this replica's own copy.
    """

    def __init__(
        self,
        me: str,
        others: tuple[str, ...],
        journal: Journal,
        hooks: Hooks,
        timing: Timing,
        rng: random.Random,
        now_s: float,
    ) -> None:
        _CLOCK[0] = now_s
        self.me = me
        self.others = others
        self.journal = journal
        self._core = _Core(me, others, timing, hooks, rng)
        self._peers = {other: _Peer(other) for other in others}
        self._put("raftLog", journal)
        self._put("needLoadDumpFile", False)
        self._put("raftCurrentTerm", max(journal.getCurrentTerm(), journal.last_term))
        self._put(
            "votedForNodeId", journal.getVotedForNodeId() if journal.getCurrentTerm() >= journal.last_term else None
        )
        self.rebase(journal.first_index)

    def _get(self, name: str) -> Any:
        return self._core.__dict__[f"_SyncObj__{name}"]

    def _put(self, name: str, value: Any) -> None:
        self._core.__dict__[f"_SyncObj__{name}"] = value

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        number: int = self._get("raftState")
        return _STATES[number]

    @property
    def leads(self) -> bool:
        return self.state == "leader"

    @property
    def term(self) -> int:
        return int(self._get("raftCurrentTerm"))

    @property
    def voted_for(self) -> str | None:
        found: str | None = self._get("votedForNodeId")
        return found

    @property
    def leader(self) -> str:
        """Whom it takes for the leader; empty for nobody."""
        node = self._get("raftLeader")
        return "" if node is None else str(node.id)

    @property
    def commit_index(self) -> int:
        return int(self._get("raftCommitIndex"))

    @property
    def applied_index(self) -> int:
        return int(self._get("raftLastApplied"))

    @applied_index.setter
    def applied_index(self, index: int) -> None:
        assert self.applied_index <= index <= self.commit_index
        self._put("raftLastApplied", index)

    @property
    def election_deadline_s(self) -> float:
        return float(self._get("raftElectionDeadline"))

    @election_deadline_s.setter
    def election_deadline_s(self, at_s: float) -> None:
        self._put("raftElectionDeadline", at_s)

    @property
    def next_heartbeat_s(self) -> float:
        return float(self._get("newAppendEntriesTime"))

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now_s: float) -> None:
        """Campaign when the deadline has passed, commit what a majority has, step down when it is silent."""
        assert not self.journal.dirty, "the commit rule counts our own copy, which must be safe"
        _CLOCK[0] = now_s
        self._core.doTick(0.0)

    def postpone_election(self, now_s: float) -> None:
        """Somebody leads, or may: wait a whole random timeout from now."""
        _CLOCK[0] = now_s
        self._put("raftElectionDeadline", now_s + self._core._SyncObj__generateRaftTimeout())

    # -- terms and votes ----------------------------------------------------------------------------------------------

    def adopt_term(self, term: int, voted_for: str | None = None) -> None:
        """A newer term exists: follow, with no leader known yet."""
        assert term > self.term
        self._core._SyncObj__setCurrentTerm(term, voted_for)
        self.step_down()

    def step_down(self) -> None:
        """Follow, in the same term."""
        self._core._SyncObj__setState(0)
        self._put("raftLeader", None)

    def follow(self, leader: str, now_s: float) -> None:
        """`leader` leads in our term."""
        self.postpone_election(now_s)
        self._core._SyncObj__setState(0)
        self._put("raftLeader", self._peers[leader])

    def consider(self, candidate: str, term: int, last_index: int, last_term: int, now_s: float) -> None:
        """A request for our vote: pysyncobj decides and, if it grants, writes that down and calls `give_vote`."""
        _CLOCK[0] = now_s
        message = {"type": "request_vote", "term": term, "last_log_index": last_index, "last_log_term": last_term}
        self._core._SyncObj__onMessageReceived(self._peers[candidate], message)

    def count_vote(self, voter: str, term: int, now_s: float) -> None:
        """A vote for us, counted by the caller once a voter and term (pysyncobj counts messages)."""
        _CLOCK[0] = now_s
        self._core._SyncObj__onMessageReceived(self._peers[voter], {"type": "response_vote", "term": term})

    # -- the log ------------------------------------------------------------------------------------------------------

    def append(self, data: bytes) -> int:
        """Write one command as leader; its index."""
        assert self.leads
        index = self.journal.last_index + 1
        self.journal.add(data, index, self.term)
        return index

    def matched(self, peer: str, index: int) -> None:
        """`peer` has our log up to `index`, safely."""
        self._get("raftMatchIndex")[self._peers[peer]] = index

    def heard_from(self, peer: str, now_s: float) -> None:
        """`peer` answered in our term: it counts towards the majority that keeps a leader in office."""
        self._get("lastResponseTime")[self._peers[peer]] = now_s

    def commit(self, index: int) -> None:
        """The leader says that everything up to `index` is committed."""
        assert index <= self.journal.last_index
        self._put("raftCommitIndex", max(self.commit_index, index))

    def rebase(self, index: int) -> None:
        """The state is that of a snapshot up to `index`."""
        self._put("raftCommitIndex", index)
        self._put("raftLastApplied", index)
