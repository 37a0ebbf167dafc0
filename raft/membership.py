"""Which disks may speak for which masters, and whether this one has a vote.

A replica whose disk is lost has forgotten what it promised: whom it voted for and which entries it had acknowledged. If
it came back under its old name as if nothing had happened, acknowledged writes could be lost and two leaders could
be elected. So every disk has a storage id of its own, the registry itself keeps which one speaks for which master, and
a fresh one gets a vote in two ways only:

- *Founding*: all members were initialized, and each has heard so from every other. A member that hears of an existing
  cluster instead has lost its disk, and ends with that message.
- *Replacing* (`--replace`): it listens as a learner, marks every term that it hears of as voted in, and asks the
  leader. The leader waits until every other member has answered in its own term, so none of them has given or got a
  vote in a later one before that, and then writes ReplaceMember. The new disk votes once it has that entry, and with it
  all that came before. (The entry counts from when it is in the log, as in the Raft dissertation, section 4.1.)
"""

from __future__ import annotations

import msgspec

from mesos_actor.actors.errors import StorageError
from mesos_actor.actors.ids import ClusterId, Term
from mesos_actor.actors.messages.raft import Hello, Origin
from mesos_actor.raft.journal import Identity
from mesos_actor.raft.machine import Machine, disks_named_in

_CHANGING = (b"FoundCluster", b"ReplaceMember")


class Membership:
    """See the module's text. `identity` is replaced when it changes; the owner writes it to the disk."""

    def __init__(self, identity: Identity, machine: Machine) -> None:
        self.identity = identity
        self.machine = machine
        self.others = tuple(name for name in identity.members if name != identity.member)
        #: (index, master -> storage id) of entries in the log that are not applied yet, in order
        self._tail: list[tuple[int, dict[str, str]]] = []
        #: master -> storage id, as founding members told it
        self._heard: dict[str, str] = {}
        self.complaints: list[str] = []
        """What an operator should know, for the owner to log and clear."""

    # -- the log ------------------------------------------------------------------------------------------------------

    def appended(self, index: int, data: bytes) -> None:
        """An entry came into the log."""
        if any(word in data for word in _CHANGING) and (named := disks_named_in(data)):
            self._tail.append((index, named))

    def truncated(self, index: int) -> None:
        """The entries from `index` on are gone from the log."""
        self._tail = [item for item in self._tail if item[0] < index]

    def applied(self, index: int) -> None:
        """Everything up to `index` is part of the machine's state now. Raises StorageError when another disk speaks for
        this master."""
        if not self._tail or self._tail[0][0] > index:
            return
        self._tail = [item for item in self._tail if item[0] > index]
        self.check_own_disk()

    def check_own_disk(self) -> None:
        """Raises StorageError when the registry says that another disk speaks for this master."""
        me, own = self.identity.member, self.identity.storage_id
        known = self.machine.disk_of(me)
        if known in ("", own) or self.identity.learner or any(named.get(me) == own for _, named in self._tail):
            return  # (its log is read again from before it took its predecessor's place)
        raise StorageError(self._replaced_by(known))

    def _replaced_by(self, known: str) -> str:
        own = self.identity.storage_id
        return (
            f"registry: another disk ({known[:8]}) speaks for master {self.identity.member} now, this one ({own[:8]}) "
            "was replaced; its directory must not be used again: remove it"
        )

    # -- who may speak ------------------------------------------------------------------------------------------------

    def disk_of(self, name: str) -> str:
        """The storage id that speaks for `name`, by the log; empty when that is not known."""
        for _, named in reversed(self._tail):
            if name in named:
                return named[name]
        return self.machine.disk_of(name) or self._heard.get(name, "")

    def speaks_for(self, name: str, storage_id: str) -> bool:
        """Whether that disk's votes and acknowledgements count."""
        return self.disk_of(name) == storage_id != ""

    @property
    def may_vote(self) -> bool:
        """Whether this disk has a vote."""
        identity = self.identity
        if identity.founding:
            return not self.missing
        return not identity.learner or self.disk_of(identity.member) == identity.storage_id

    @property
    def waiting(self) -> bool:
        """Whether this disk still has to become a member."""
        return self.identity.founding or self.identity.learner

    @property
    def missing(self) -> tuple[str, ...]:
        """While founding: the members that have not said yet that they were initialized."""
        return tuple(name for name in self.others if not self.disk_of(name)) if self.identity.founding else ()

    @property
    def disks(self) -> tuple[tuple[str, str], ...]:
        """All members of a cluster that is being founded, with their disks."""
        own = {self.identity.member: self.identity.storage_id}
        return tuple((name, own.get(name) or self.disk_of(name)) for name in self.identity.members)

    @property
    def cluster_id(self) -> ClusterId:
        """Empty while it is not known."""
        cluster = self.machine.state.cluster
        founded = cluster is not None and not (self.identity.founding and self.identity.base_digest)
        return cluster.cluster_id if cluster is not None and founded else ClusterId("")

    def settle(self) -> bool:
        """Whether the identity has changed because this disk is a member now; the owner writes it down."""
        identity = self.identity
        if not self.waiting or self.machine.disk_of(identity.member) != identity.storage_id:
            return False
        self.identity = msgspec.structs.replace(identity, founding=False, learner=False)
        return True

    # -- telling each other -------------------------------------------------------------------------------------------

    def origin(self, term: int) -> Origin:
        return Origin(self.cluster_id, self.identity.storage_id, Term(term))

    def hello(self, term: int, to: str = "", disk: str = "", speaker: str = "") -> Hello:
        """Who we are; `to` and `disk`: who has asked; `speaker`: the disk that speaks for it. To a late founder whose
        disk is on record we speak as a founder still: it has lost nothing, and may take part."""
        identity = self.identity
        origin, founding = self.origin(term), identity.founding
        if to and self.machine.disk_of(to) == disk:
            origin, founding = Origin(ClusterId(""), identity.storage_id, Term(term)), True
        return Hello(origin, identity.members, founding, identity.learner, identity.base_digest, bool(to), speaker)

    def on_hello(self, peer: str, message: Hello) -> None:
        """Take note of who `peer` is. Raises StorageError when this disk cannot become a member."""
        identity, theirs = self.identity, message.origin
        if message.disk not in ("", identity.storage_id) and not self.waiting:
            raise StorageError(self._replaced_by(message.disk))
        if tuple(message.members) != identity.members:
            self.complaints.append(
                f"{peer} was started with --masters {','.join(message.members)} and this master with "
                f"{','.join(identity.members)}; start all with the same list"
            )
        elif not identity.founding:
            return
        elif message.founding and message.base_digest != identity.base_digest:
            self.complaints.append(
                f"{peer} was prepared from another backup ({message.base_digest or 'none'}) than this master "
                f"({identity.base_digest or 'none'}); import the same file on every master"
            )
        elif message.founding:
            self._heard[peer] = theirs.storage_id
        elif theirs.cluster_id and not self.disk_of(identity.member):
            raise StorageError(
                f"registry: {peer} is a master of the existing cluster {theirs.cluster_id}, so this one is not to "
                "found a "
                "new cluster. If the disk of this master is lost, start it with --replace on an empty directory"
            )
