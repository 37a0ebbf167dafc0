"""Which disks may speak for which masters, and whether this one has a vote.

A replica whose disk is lost has forgotten what it promised: whom it voted for and which entries it had acknowledged. If
it came back under its old name as if nothing had happened, acknowledged writes could be lost and two leaders could
be elected. So every disk has a storage id of its own, the registry itself keeps which one speaks for which master, and
a fresh one gets a vote in two ways only:

- *Founding*: all members were initialized, and each has heard from every other that its own disk is the one it was
  heard with. The whole list is then kept on the disk, before the first vote, so that a member which is wiped and
  initialized once more meanwhile is nobody's: it hears so and ends. One that hears of an existing cluster instead has
  lost its disk, and ends with that message.
- *Replacing* (`--replace`): it listens as a learner, marks every term that it hears of as voted in, and asks the
  leader, which sends it the log and then writes ReplaceMember. From when that entry is in a member's log, neither the
  old nor the new disk counts there; from when it is applied, the new one does.

So a change goes by way of a group without that master, whose majority is still one of all masters. Any two majorities
of neighbouring steps share a disk, as in changes of one server at a time (Raft dissertation, section 4.1): the entry is
committed by a majority of the other members, which all have it in their logs, so nobody who lacks it, and would count
the old disk, can be elected any more. (Were the new disk to count from when the entry is in the log, {a, c new} could
commit it while {b, c old} elect a leader that never heard of it.)
"""

from __future__ import annotations

import msgspec

from mesos_actor.actors.errors import StorageError
from mesos_actor.actors.ids import ClusterId, Term
from mesos_actor.actors.messages.raft import Hello, Origin
from mesos_actor.raft.journal import Identity
from mesos_actor.raft.machine import Machine, NamedDisks, disks_named_in

_CHANGING = (b"FoundCluster", b"ReplaceMember")


class Membership:
    """See the module's text. `identity` is replaced when it changes; the owner writes it to the disk."""

    def __init__(self, identity: Identity, machine: Machine) -> None:
        self.identity = identity
        self.machine = machine
        self.others = tuple(name for name in identity.members if name != identity.member)
        #: (index, disks) of entries in the log that are not applied yet, in order
        self._tail: list[tuple[int, NamedDisks]] = []
        #: master -> storage id, as founding members told it; never another one
        self._heard: dict[str, str] = dict(identity.founders)
        if identity.founding:
            self._heard[identity.member] = identity.storage_id
        #: founding members that have heard of this disk
        self._known_to: set[str] = set()
        self._applied = 0
        self._on_record = False
        """Whether a member has applied the entry that names this disk."""
        self.unsaved = False
        """Whether `identity` must be written before anything is said that depends on it."""
        self.changed = False
        """Whether a disk was replaced since the last snapshot; it counts again after a restart once that is kept."""
        #: founders that this learner has met
        self._told: set[str] = set()
        self.complaints: list[str] = []
        """What an operator should know, for the owner to log and clear."""

    # -- the log ------------------------------------------------------------------------------------------------------

    def appended(self, index: int, data: bytes) -> None:
        """An entry came into the log."""
        if any(word in data for word in _CHANGING) and (named := disks_named_in(data)) is not None:
            self._tail.append((index, named))

    def truncated(self, index: int) -> None:
        """The entries from `index` on are gone from the log."""
        self._tail = [item for item in self._tail if item[0] < index]

    def applied(self, index: int) -> None:
        """Everything up to `index` is part of the machine's state now. Raises StorageError when another disk speaks for
        this master."""
        self._applied = index
        if not self._tail or self._tail[0][0] > index:
            return
        self.changed = self.changed or any(at <= index and not named.founding for at, named in self._tail)
        self._tail = [item for item in self._tail if item[0] > index]
        self.check_own_disk()

    def check_own_disk(self) -> None:
        """Raises StorageError when the registry says that another disk speaks for this master."""
        me, own = self.identity.member, self.identity.storage_id
        known = self.machine.disk_of(me)
        if known in ("", own) or self.identity.learner or any(named.disks.get(me) == own for _, named in self._tail):
            return  # (its log is read again from before it took its predecessor's place)
        raise StorageError(self._replaced_by(known))

    def _replaced_by(self, known: str) -> str:
        own = self.identity.storage_id
        return (
            f"registry: another disk ({known[:8]}) speaks for master {self.identity.member} now, this one ({own[:8]}) "
            "was replaced; its directory must not be used again: remove it"
        )

    # -- who may speak ------------------------------------------------------------------------------------------------

    def _confirmed(self, name: str) -> str:
        """The disk that speaks for `name` by what is committed for certain; while founding, by what was heard."""
        if known := self.machine.disk_of(name):
            return known
        if not self.waiting:  # this disk was a member before it was started again: the founding was applied
            for _, named in self._tail:
                if named.founding:
                    return named.disks.get(name, "")
        return self._heard.get(name, "")

    def disk_of(self, name: str) -> str:
        """The storage id that speaks for `name`, by the log, or is about to; empty when that is not known."""
        for _, named in reversed(self._tail):
            if name in named.disks:
                return named.disks[name]
        return self._confirmed(name)

    def knows(self, name: str, storage_id: str) -> bool:
        """Whether that disk may be given a vote: one that it cannot use does no harm."""
        return self.disk_of(name) == storage_id != ""

    def counts(self, name: str, storage_id: str) -> bool:
        """Whether that disk's votes and acknowledgements count: it speaks for `name`, and no entry is under way that
        may change that."""
        if not storage_id or self._confirmed(name) != storage_id:
            return False
        return all(named.disks.get(name, storage_id) == storage_id for _, named in self._tail)

    @property
    def may_give_votes(self) -> bool:
        """Whether this disk votes for others. A learner does, and only those count it who know that it was let in: it
        may be needed before it knows so itself, when the leader that let it in is started again."""
        return self.identity.learner or self.may_stand

    @property
    def may_stand(self) -> bool:
        """Whether this disk may stand for election."""
        identity = self.identity
        if identity.founding and self.missing:
            return False
        return self.counts(identity.member, identity.storage_id)

    @property
    def waiting(self) -> bool:
        """Whether this disk still has to become a member."""
        return self.identity.founding or self.identity.learner

    @property
    def missing(self) -> tuple[str, ...]:
        """While founding: the members that have not said yet that they were initialized and have heard of this one."""
        if not self.identity.founding or self.identity.founders or self._on_record:
            return ()
        return tuple(name for name in self.others if name not in self._known_to)

    @property
    def disks(self) -> tuple[tuple[str, str], ...]:
        """All members of a cluster that is being founded, with their disks."""
        return tuple((name, self._heard.get(name, "")) for name in self.identity.members)

    @property
    def cluster_id(self) -> ClusterId:
        """Empty while it is not known."""
        cluster = self.machine.state.cluster
        founded = cluster is not None and not (self.identity.founding and self.identity.base_digest)
        return cluster.cluster_id if cluster is not None and founded else ClusterId("")

    def settle(self) -> bool:
        """Whether this disk has just become a member; the owner writes its identity down."""
        identity = self.identity
        if not self.waiting or self.machine.disk_of(identity.member) != identity.storage_id:
            return False
        self.identity = msgspec.structs.replace(identity, founding=False, learner=False)
        self.unsaved = True
        return True

    # -- telling each other -------------------------------------------------------------------------------------------

    def origin(self, term: int) -> Origin:
        return Origin(self.cluster_id, self.identity.storage_id, Term(term))

    def hello(self, term: int, to: str = "", disk: str = "", speaker: str = "") -> Hello:
        """Who we are; `to` and `disk`: who has asked; `speaker`: the disk that speaks for it."""
        identity = self.identity
        return Hello(
            self.origin(term),
            identity.members,
            identity.founding,
            identity.learner,
            identity.base_digest,
            answer=bool(to),
            disk=speaker,
            index=self._applied,
            heard=self._heard if identity.founding else {},
            on_record=bool(to) and self.machine.disk_of(to) == disk,
        )

    def on_hello(self, peer: str, message: Hello) -> bool:
        """Take note of who `peer` is; whether it should hear at once that it was heard. Raises StorageError when this
        disk cannot become a member."""
        identity = self.identity
        if message.disk not in ("", identity.storage_id) and not identity.learner and self._is_news(message):
            raise StorageError(self._replaced_by(message.disk))
        if tuple(message.members) != identity.members:
            self._other_list(peer, tuple(message.members))
        elif not identity.founding:
            if identity.learner and message.founding and peer not in self._told:
                self._told.add(peer)
                self.complaints.append(
                    f"{peer} waits to found a new cluster, in which nothing can be replaced: start this master with "
                    "--initialize on an empty directory"
                )
            return False
        elif message.on_record:
            self._on_record = True
            self._hear(peer, message.origin.storage_id)
        elif message.founding and message.base_digest != identity.base_digest:
            self.complaints.append(
                f"{peer} was prepared from another backup ({message.base_digest or 'none'}) than this master "
                f"({identity.base_digest or 'none'}); import the same file on every master"
            )
        elif message.founding:
            return self._on_founder(peer, message)
        elif message.origin.cluster_id and not self.machine.disk_of(identity.member):
            raise StorageError(
                f"registry: {peer} is a master of the existing cluster {message.origin.cluster_id}, so this one is not "
                "to found a new cluster. If the disk of this master is lost, start it with --replace on an empty "
                "directory"
            )
        return False

    def _is_news(self, message: Hello) -> bool:
        """Whether the leader knew more, when it said that another disk speaks for this master, than is known here: what
        it said before it let this one in may come late."""
        if self.machine.disk_of(self.identity.member) != self.identity.storage_id:
            return True
        return message.index > self._applied

    def _other_list(self, peer: str, members: tuple[str, ...]) -> None:
        """Another list has other majorities: a disk that was to be let in there would make two leaders."""
        text = (
            f"{peer} was started with --masters {','.join(members)} and this master with "
            f"{','.join(self.identity.members)}; start all with the same list"
        )
        if self.identity.learner:
            raise StorageError(f"registry: {text}: remove this directory and replace again with the cluster's own list")
        self.complaints.append(text)

    def _hear(self, peer: str, storage_id: str) -> bool:
        return self._heard.setdefault(peer, storage_id) == storage_id

    def _on_founder(self, peer: str, message: Hello) -> bool:
        """Another founder: it must always be the same disk, and know this one. Once all do, the list is for ever."""
        me, own, news = self.identity.member, self.identity.storage_id, peer not in self._heard
        twice = "was initialized twice while the cluster was being founded; empty the directories of all masters and"
        known = message.heard.get(me, own)
        if known != own:
            raise StorageError(
                f"registry: {peer} has heard of another disk ({known[:8]}) of this master, {me}, which {twice} begin "
                "again with --initialize"
            )
        if not self._hear(peer, message.origin.storage_id):
            self.complaints.append(f"{peer} {twice} begin again with --initialize")
            return False
        if me in message.heard:
            self._known_to.add(peer)
        if not self.identity.founders and len(self._known_to) == len(self.others):
            self.identity = msgspec.structs.replace(self.identity, founders=self.disks)
            self.unsaved = True
        return news
