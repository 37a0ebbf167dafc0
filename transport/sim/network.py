"""The simulated network: the promise of `transport/transport.py`, kept on virtual time, with the faults of a plan.

Every message is a frame of its own, made and read by the real codec, numbered and judged by the real link.py. What
happens to links follows what ZeroMQ over TCP does:

- A link to `tcp://...` opens at its first use, from either side. While nobody listens there, messages wait; after
  `connect_timeout_us` they are dropped and the loss is told. A `peer:...` can only be answered while its link stands.
- A process that dies ends its links. What it had sent still arrives, as the kernel sees to it; what is on its way to it
  is lost. Then, one latency later, the other sides are told, and what they send until then is lost too.
- While two hosts are cut off, frames vanish; after `silence_us` the link has ended for both. So it has when one of them
  stands still for so long: it finds out when it has handled what came before.
- While a line stalls, what is sent over it waits, its end too, and goes on its way afterwards; no new link opens. Past
  `silence_us` of it the link has ended.
- In a link, order is kept: a late frame holds up those behind it. With `fifo=False` they overtake it, and it is then
  dropped for being late, as link.py demands.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from functools import partial

import msgspec

from mesos_actor.actors.errors import LocalError, PeerError
from mesos_actor.actors.ids import Address, Node, Principal, address
from mesos_actor.actors.messages.base import Message
from mesos_actor.transport.codec import Batch, read_frame
from mesos_actor.transport.link import Incoming, Outgoing, Verdict
from mesos_actor.transport.sim.faults import Fate
from mesos_actor.transport.sim.plan import NORMAL, Plan
from mesos_actor.transport.sim.schedule import Schedule
from mesos_actor.transport.transport import Deliver, LinkLost

_FOREVER_US = 1 << 62
_DIALABLE = re.compile(r"tcp://[^/\s]+:[0-9]{1,5}")


class NetworkSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Microseconds of virtual time."""

    latency_us: int = 500
    jitter_us: int = 200
    """Up to so much more, drawn for each frame; a link's n-th frame has the same in all runs of a seed."""
    silence_us: int = 6_000_000
    """How long two hosts may be cut off before their link has ended (as TransportSettings.heartbeat_timeout_ms)."""
    connect_timeout_us: int = 5_000_000
    """(As TransportSettings.connect_timeout_ms.)"""
    max_queued_messages: int = 100_000
    """Messages that wait for one link to open; past it the newest is dropped and counted."""
    fifo: bool = True
    """False: a frame that is late is overtaken, while the plan is not calm."""


class Half:
    """One direction of a link."""

    __slots__ = ("incoming", "last_arrival_us", "outgoing")

    def __init__(self, epoch: int) -> None:
        self.outgoing = Outgoing(epoch)
        self.incoming = Incoming()
        self.last_arrival_us = 0


class Stalled:
    """A line on which nothing arrives. `held`: what goes on its way when it is over."""

    __slots__ = ("begin_us", "held", "until_us")

    def __init__(self, begin_us: int) -> None:
        self.begin_us = begin_us
        self.until_us = begin_us
        self.held: list[Callable[[], None]] = []


class Link:
    """One epoch between two nodes, from its first use to its end."""

    __slots__ = ("alive", "ending", "halves", "hosts", "knowing", "open", "waiting")

    def __init__(self, source: SimTransport, destination: Node, epoch: int) -> None:
        self.halves = {source.node: Half(epoch), destination: Half(epoch)}
        self.hosts: frozenset[str] = frozenset()
        """Of both ends, once it is open."""
        self.alive = True
        """False: nothing of it arrives any more."""
        self.open = False
        self.ending = False
        """One end is gone, or the epoch is over; not everybody has been told yet."""
        #: who knows of the link, as its opener or by something that arrived: they are told of its end
        self.knowing = [source]
        #: what waits for the link to open, or, once it has ended, for both sides to be told and the next one to open
        self.waiting: list[tuple[SimTransport, Batch]] = []


class SimTransport:
    """One process's end: a Transport."""

    def __init__(
        self, network: Network, host: str, node: Node, principal: Principal, deliver: Deliver, link_lost: LinkLost
    ) -> None:
        self.node = node
        self.host = host
        """What the plan calls it."""
        self.principal = principal
        self.deliver = deliver
        self.link_lost = link_lost
        self.closed = False
        self.refused = ""
        """Why the last message that could not be encoded was dropped."""
        self._network = network
        self._queue: list[tuple[Node, Batch]] = []
        #: node -> its link as it was used last; it may have ended since
        self.recent: dict[Node, Link] = {}

    def send(self, to: Address, sender: str, cause: str, message: Message) -> None:
        if self.closed:
            return
        batch = Batch()
        node, _, actor = to.rpartition("/")
        try:
            batch.add(actor, sender, cause, message)
        except LocalError as error:
            self._network.counts["refused"] += 1
            self.refused = str(error)
            return
        self._queue.append((Node(node), batch))

    def flush(self) -> None:
        if self._queue:
            queue, self._queue = self._queue, []
            for node, batch in queue:
                self._network.transmit(self, node, batch)

    def watch(self, node: Node) -> None:
        if not self.closed:
            self._network.link(self, node)

    def close(self) -> None:
        """What was sent so far still arrives, and then the end of the link is told."""
        self.flush()
        self._network.detach(self)


class Network:
    """All nodes and links. `world` calls are made through `schedule`; nothing here has a clock of its own."""

    def __init__(self, schedule: Schedule, plan: Plan, seed: int, settings: NetworkSettings) -> None:
        self.settings = settings
        self.counts = {"delivered": 0, "lost": 0, "doubled_or_late": 0, "full": 0, "no_link": 0, "refused": 0}
        """Messages by what became of them."""
        self.counts |= {"unreadable": 0, "spoofed": 0}
        self._schedule = schedule
        self._plan = plan
        self._seed = seed
        #: (source host, destination host) -> draws the jitter of its frames, from 0 to 1. A generator for each: what a
        #: fault changes on one link leaves the others as they were, and a failing run can be made smaller
        self._jitters: dict[tuple[str, str], Callable[[], float]] = {}
        self._ends: dict[Node, SimTransport] = {}
        #: the two nodes, sorted -> their link
        self._links: dict[tuple[Node, Node], Link] = {}
        #: (source host, destination host) that are cut off -> when, by which cut
        self._cuts: dict[tuple[str, str], int] = {}
        self._epoch = 0
        self._cut_number = 0
        #: (source host, destination host) -> what is held up there
        self._stalls: dict[tuple[str, str], Stalled] = {}
        self.on_fault: Callable[[str, str, bytes], None] = lambda source, destination, frame: None
        """Told of every frame that the plan treats in another way than normally."""

    # -- ends -----------------------------------------------------------------------------------------------------

    def attach(
        self, host: str, node: Node, principal: Principal, deliver: Deliver, link_lost: LinkLost
    ) -> SimTransport:
        """The transport of a process called `node` on `host`, known to others as `principal`. Raises LocalError when
        the node is taken."""
        if node in self._ends:
            raise LocalError(f"node {node!r}: already in use; give each host one of its own")
        end = self._ends[node] = SimTransport(self, host, node, principal, deliver, link_lost)
        for pair, link in list(self._links.items()):
            if node in pair:
                self._try_open(pair, link)
        return end

    def detach(self, end: SimTransport) -> None:
        """Its process is gone. What it sent before still arrives."""
        if end.closed:
            return
        end.closed = True
        del self._ends[end.node]
        for pair, link in list(self._links.items()):
            if end.node in pair and link.open:
                link.open, link.ending = False, True
                other = next((host for host in link.hosts if host != end.host), end.host)
                stalled = self._stalls.get((end.host, other))
                if stalled is None:
                    self._end_after_the_last(end.node, pair, link)
                else:
                    stalled.held.append(partial(self._end_after_the_last, end.node, pair, link))

    def _end_after_the_last(self, node: Node, pair: tuple[Node, Node], link: Link) -> None:
        last_us = max(self._schedule.now_us, link.halves[node].last_arrival_us)
        self._schedule.at(last_us, self._end, pair, link)

    # -- links ----------------------------------------------------------------------------------------------------

    def link(self, source: SimTransport, node: Node) -> Link | None:
        """The link with `node`, opened if need be; None when it cannot be."""
        pair = _pair(source.node, node)
        found = self._links.get(pair)
        if found is not None:
            source.recent[node] = found
            return found
        if _DIALABLE.fullmatch(node) is None:
            self._schedule.after(0, self._tell, source, node)
            return None
        self._epoch += 1
        opened = self._links[pair] = Link(source, node, self._epoch)
        self._try_open(pair, opened)
        if not opened.open:
            self._schedule.after(self.settings.connect_timeout_us, self._give_up, pair, opened)
        return opened

    def transmit(self, source: SimTransport, node: Node, batch: Batch) -> None:
        """Put one message on its way."""
        link = source.recent.get(node)
        if link is None or link.ending:
            link = self.link(source, node)
        if link is None:
            self.counts["no_link"] += 1
        elif link.ending and source in link.knowing:
            self.counts["lost"] += 1
        elif link.open:
            half = link.halves[source.node]
            frame = batch.frame(source.node, half.outgoing.epoch, half.outgoing.stamp())
            self.carry(source, self._ends[node], link, frame)
        elif len(link.waiting) >= self.settings.max_queued_messages:
            self.counts["full"] += 1
        else:
            link.waiting.append((source, batch))

    def carry(self, source: SimTransport, destination: SimTransport, link: Link, frame: bytes) -> None:
        """Give a frame to the wire: the plan says what becomes of it."""
        settings = self.settings
        draw = self._jitters.get((source.host, destination.host)) or self._jitter(source.host, destination.host)
        jitter_us = int(draw() * (settings.jitter_us + 1))  # 3 times as fast as randrange
        fate = self._plan.fate(source.host, destination.host)
        fifo = settings.fifo or self._plan.calm
        if fate != NORMAL:
            self.on_fault(source.host, destination.host, frame)
            fifo = fifo and not self._plan.overtaken(source.host, destination.host)
        if not fate:
            self.counts["lost"] += 1
        elif self._stalls and (stalled := self._stalls.get((source.host, destination.host))) is not None:
            # Without jitter, so that nothing which is sent later can be there before.
            stalled.held.append(partial(self._put_on_its_way, source, destination, link, frame, fate, 0, True))
        else:
            self._put_on_its_way(source, destination, link, frame, fate, jitter_us, fifo)

    def _put_on_its_way(
        self,
        source: SimTransport,
        destination: SimTransport,
        link: Link,
        frame: bytes,
        fate: Fate,
        jitter_us: int,
        fifo: bool,
    ) -> None:
        half, schedule = link.halves[source.node], self._schedule
        for copy, extra_us in enumerate(fate):
            arrival_us = schedule.now_us + self.settings.latency_us + jitter_us + extra_us
            if copy == 0:
                if fifo:
                    arrival_us = half.last_arrival_us = max(arrival_us, half.last_arrival_us)
                elif not self.settings.fifo:
                    half.last_arrival_us = max(arrival_us, half.last_arrival_us)
            schedule.at(arrival_us, self._arrive, source, destination, link, frame)

    def _jitter(self, source: str, destination: str) -> Callable[[], float]:
        draw = random.Random(f"{self._seed}/network/{source}/{destination}").random
        return self._jitters.setdefault((source, destination), draw)

    def _arrive(self, source: SimTransport, destination: SimTransport, link: Link, data: bytes) -> None:
        if not link.alive or destination.closed or (source.host, destination.host) in self._cuts:
            self.counts["lost"] += 1
            return
        try:
            frame, unreadable = read_frame(data)
        except PeerError:
            self.counts["unreadable"] += 1
            return
        if frame.node != source.node:
            self.counts["spoofed"] += 1
            return
        if link.halves[source.node].incoming.judge(frame.epoch, frame.sequence) is Verdict.LATE:
            self.counts["doubled_or_late"] += 1
            return
        if destination not in link.knowing:
            link.knowing.append(destination)
        self.counts["delivered"] += 1
        for envelope in frame.envelopes:
            sender = address(Node(frame.node), envelope.sender)
            destination.deliver(envelope.to, sender, source.principal, envelope.cause, envelope.message)
        for item in unreadable:
            answer = item.refusal()
            if answer is not None:
                destination.send(address(source.node, item.sender), item.to, item.cause, answer)
                destination.flush()

    def _try_open(self, pair: tuple[Node, Node], link: Link) -> None:
        ends = [self._ends.get(node) for node in pair]
        one, other = ends
        if link.open or link.ending or one is None or other is None or self._is_cut(one.host, other.host):
            return
        link.open, link.hosts = True, frozenset({one.host, other.host})
        waiting, link.waiting = link.waiting, []
        for source, batch in waiting:
            self.transmit(source, other.node if source is one else one.node, batch)

    def _give_up(self, pair: tuple[Node, Node], link: Link) -> None:
        if not link.open and not link.ending:
            self.counts["lost"] += len(link.waiting)
            link.waiting.clear()
            self._end(pair, link)

    def _end(self, pair: tuple[Node, Node], link: Link) -> None:
        """The epoch is over. Until both sides have been told, what they send is lost."""
        if not link.alive:
            return
        link.alive = False
        link.open, link.ending = False, True
        self._schedule.after(self.settings.latency_us, self._told, pair, link)

    def _told(self, pair: tuple[Node, Node], link: Link) -> None:
        del self._links[pair]
        for end in link.knowing:
            self._tell(end, pair[0] if end.node == pair[1] else pair[1])
        for source, batch in link.waiting:  # of a process that began after the link's end
            if not source.closed:
                self.transmit(source, pair[0] if source.node == pair[1] else pair[1], batch)

    def _tell(self, end: SimTransport, node: Node) -> None:
        if not end.closed:
            end.link_lost(node)

    # -- faults ---------------------------------------------------------------------------------------------------

    def cut(self, one: str, other: str, *, one_way: bool = False) -> None:
        """Frames from host `one` to `other` vanish, and the other way round unless `one_way`."""
        self._cut_number += 1
        for pair in ((one, other),) if one_way else ((one, other), (other, one)):
            self._cuts[pair] = self._cut_number
        self._schedule.after(self.settings.silence_us, self._fall_silent, one, other, self._cut_number)

    def stall(self, source: str, destination: str, lasts_us: int | None = None) -> None:
        """What is sent this way waits for so long, or until all is healed; by then the silence may have ended the link.
        One that begins during another makes it longer."""
        now_us, pair = self._schedule.now_us, (source, destination)
        stalled = self._stalls.setdefault(pair, Stalled(now_us))
        if stalled.begin_us == now_us:
            self._schedule.after(self.settings.silence_us, self._fall_silent_by, pair, stalled)
        stalled.until_us = max(stalled.until_us, _FOREVER_US if lasts_us is None else now_us + lasts_us)
        if lasts_us is not None:
            self._schedule.after(lasts_us, self._go_on, pair, stalled)

    def _fall_silent_by(self, pair: tuple[str, str], stalled: Stalled) -> None:
        if self._stalls.get(pair) is stalled and stalled.until_us > self._schedule.now_us:
            for nodes, link in list(self._links.items()):
                if link.hosts == {*pair} and (link.open or link.ending):
                    self._end(nodes, link)

    def _go_on(self, pair: tuple[str, str], stalled: Stalled) -> None:
        if self._stalls.get(pair) is stalled and stalled.until_us <= self._schedule.now_us:
            self._release(pair)
            self._open_waiting()

    def _release(self, pair: tuple[str, str]) -> None:
        for go in self._stalls.pop(pair).held:
            go()

    def heal(self, one: str | None = None, other: str | None = None) -> None:
        """Undo the cuts between these two; between all, without names, and the stalls."""
        if one is None:
            for pair in list(self._stalls):
                self._release(pair)
        for pair in [pair for pair in self._cuts if one is None or set(pair) == {one, other}]:
            del self._cuts[pair]
        self._open_waiting()

    def _open_waiting(self) -> None:
        for nodes, link in list(self._links.items()):
            self._try_open(nodes, link)

    def break_links(self, one: str, other: str) -> None:
        """End every link between the two hosts, as a reset connection does; the next use opens a new one."""
        for pair, link in list(self._links.items()):
            if link.open and {self._host(node) for node in pair} == {one, other}:
                self._end(pair, link)

    def _fall_silent(self, one: str, other: str, number: int) -> None:
        if self._cuts.get((one, other)) == number:
            self.break_links(one, other)

    def stands_still(self, host: str, still: Callable[[], bool]) -> None:
        """A process of this host answers no heartbeats, as long as `still`."""

        def fall_silent() -> None:
            if still():
                for pair, link in list(self._links.items()):
                    if link.open and host in map(self._host, pair):
                        self._end(pair, link)

        self._schedule.after(self.settings.silence_us, fall_silent)

    def _host(self, node: Node) -> str:
        end = self._ends.get(node)
        return "" if end is None else end.host

    def _is_cut(self, one: str, other: str) -> bool:
        """Whether no link between the two can open."""
        return any(pair in self._cuts or pair in self._stalls for pair in ((one, other), (other, one)))


def _pair(one: Node, other: Node) -> tuple[Node, Node]:
    return (one, other) if one < other else (other, one)
