"""What can go wrong, one frozen value each: what a test adds, what a seed draws, what a replay file holds.

Two kinds. A *counted* fault befalls the n-th message of a link, the n-th sync of a disk, the n-th launch of a machine,
the n-th time a rare branch is asked for; counts begin at 0. Taking one out leaves the others where they are, which is
why a failing run can be made smaller. A *timed* one strikes at a moment since the begin of the world; `None` for how
long it lasts means until `calm`, and for a crash that the host never returns.

All times are whole microseconds of true (virtual) time. Hosts are called as in the world: `master0`, `agent1`, ….
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

Fate = tuple[int, ...]
Key = tuple[str, str, int]

DISK = "disk"
ISOLATION = "isolation"
SOMETIMES = "sometimes"

OVERTAKEN = "overtaken"
"""The word of a late message that others may pass."""
FAILS = "fail"
"""The word of a sync that the disk refuses."""
TAKEN = "yes"
"""The word of a rare branch that is taken."""

LaunchFate = Literal["fail", "oom", "lost_exit", "unknown_exit", "hang", "die"]
LAUNCH_FATES: tuple[LaunchFate, ...] = ("fail", "oom", "lost_exit", "unknown_exit", "hang", "die")
SITES = {
    "agent-registers-again": "an agent that is registered asks to be once more",
    "allocation-late": "the master allocates a while after it could",
    "executor-update-sent-twice": "an executor sends an update twice",
    "framework-reconciles-soon": "a framework asks about all its tasks after a second, not a quarter of an hour",
    "offers-rescinded-at-once": "the master takes back offers that it has just made",
    "update-sent-twice": "an agent sends an update twice",
}
"""The rare branches of our own code that a plan can have taken (`Context.sometimes`)."""
_LAUNCHES = {
    "fail": "cannot be started",
    "oom": "is killed by the kernel for want of memory, half-way",
    "lost_exit": "ends, and the first notice of it is lost",
    "unknown_exit": "ends, and nobody can tell how",
    "hang": "never ends by itself, and ignores SIGTERM",
    "die": "dies half-way by SIGSEGV",
}


class Fault(msgspec.Struct, frozen=True, tag_field="fault", tag=lambda name: name.lower(), forbid_unknown_fields=True):
    """The base of all."""

    @property
    def kind(self) -> str:
        """`drop`, `crash`, …: the word in replay files and in the coverage."""
        return str(type(self).__struct_config__.tag)


# -- counted: links -------------------------------------------------------------------------------------------------


class Drop(Fault, frozen=True):
    """The `nth` message from one host to another is lost."""

    source: str
    destination: str
    nth: int

    def text(self) -> str:
        return f"{_nth(self.nth)} message from {self.source} to {self.destination} is lost"


class Duplicate(Fault, frozen=True):
    """It arrives as often as `late_us` is long, each copy so much later than it would."""

    source: str
    destination: str
    nth: int
    late_us: Fate = (0, 0)

    def text(self) -> str:
        copies = len(self.late_us)
        return f"{_nth(self.nth)} message from {self.source} to {self.destination} arrives {copies} times"


class Delay(Fault, frozen=True):
    """It is late, and holds up those behind it."""

    source: str
    destination: str
    nth: int
    by_us: int

    def text(self) -> str:
        return f"{_nth(self.nth)} message from {self.source} to {self.destination} is {_span(self.by_us)} late"


class Reorder(Fault, frozen=True):
    """It is late, and those behind it overtake it."""

    source: str
    destination: str
    nth: int
    by_us: int

    def text(self) -> str:
        link = f"message from {self.source} to {self.destination}"
        return f"{_nth(self.nth)} {link} is {_span(self.by_us)} late and overtaken"


# -- counted: disks, launches, rare branches ------------------------------------------------------------------------


class DieAtSync(Fault, frozen=True):
    """The host dies before its `nth` sync is done: what it would have made safe is lost. It begins again at once."""

    host: str
    nth: int

    def text(self) -> str:
        return f"{self.host} dies before its {_nth(self.nth, '')} sync is done"


class SlowSync(Fault, frozen=True):
    """The sync takes so much longer."""

    host: str
    nth: int
    by_us: int

    def text(self) -> str:
        return f"the {_nth(self.nth, '')} sync of {self.host} takes {_span(self.by_us)} longer"


class FailSync(Fault, frozen=True):
    """The disk refuses the sync (EIO): nothing of it is kept, and the process ends, as in production. Somebody begins
    it again."""

    host: str
    nth: int

    def text(self) -> str:
        return f"the {_nth(self.nth, '')} sync of {self.host} fails"


class Launch(Fault, frozen=True):
    """What becomes of the `nth` container of an agent's machine."""

    host: str
    nth: int
    fate: LaunchFate

    def text(self) -> str:
        return f"the {_nth(self.nth, '')} container on {self.host} {_LAUNCHES[self.fate]}"


class Sometimes(Fault, frozen=True):
    """The rare branch `site` of our own code is taken when it is asked for the `nth` time."""

    site: str
    nth: int

    def text(self) -> str:
        return f"the rare branch {self.site!r} is taken the {_nth(self.nth, '')} time it is asked for"


# -- timed ----------------------------------------------------------------------------------------------------------


class Cut(Fault, frozen=True):
    """Two hosts do not hear each other; `one_way`: `other` does not hear `one`."""

    one: str
    other: str
    at_us: int
    lasts_us: int | None = None
    one_way: bool = False

    def text(self) -> str:
        how = f"{self.other} does not hear {self.one}" if self.one_way else f"{self.one} and {self.other} are cut off"
        return f"{how} from {_moment(self.at_us)} {_until(self.lasts_us)}"


class Isolate(Fault, frozen=True):
    """A host is cut off from all others; `one_way`: it only hears nobody."""

    host: str
    at_us: int
    lasts_us: int | None = None
    one_way: bool = False

    def text(self) -> str:
        how = "hears nobody" if self.one_way else "is cut off from everybody"
        return f"{self.host} {how} from {_moment(self.at_us)} {_until(self.lasts_us)}"


class Stall(Fault, frozen=True):
    """What one host sends to another is held up and arrives when the stall is over, all of it and in order, as TCP sees
    to it on a bad line. One that lasts longer than links bear (`silence_us`) ends them, with what is on its way."""

    source: str
    destination: str
    at_us: int
    lasts_us: int | None = None

    def text(self) -> str:
        line = f"the line from {self.source} to {self.destination}"
        return f"{line} stalls from {_moment(self.at_us)} {_until(self.lasts_us)}"


class Break(Fault, frozen=True):
    """The connections between two hosts are reset."""

    one: str
    other: str
    at_us: int

    def text(self) -> str:
        return f"the connections of {self.one} and {self.other} are reset at {_moment(self.at_us)}"


class Crash(Fault, frozen=True):
    """kill -9; `machine`: a power cut, which ends its containers too. Of the batches it had not synced the first
    `keep_unsynced` happen to be on disk. Without `restart_after_us` it never returns, not even when all is calm."""

    host: str
    at_us: int
    restart_after_us: int | None = None
    machine: bool = False
    keep_unsynced: int = 0

    def text(self) -> str:
        how = "loses power" if self.machine else "is killed"
        back = "never returns" if self.restart_after_us is None else f"returns after {_span(self.restart_after_us)}"
        return f"{self.host} {how} at {_moment(self.at_us)} and {back}"


class Stop(Fault, frozen=True):
    """SIGTERM, and a new process later."""

    host: str
    at_us: int
    restart_after_us: int

    def text(self) -> str:
        return f"{self.host} is stopped at {_moment(self.at_us)} and returns after {_span(self.restart_after_us)}"


class Pause(Fault, frozen=True):
    """The process stands still, its connections open: a long garbage collection, a stopped virtual machine, a framework
    that does not answer any more."""

    host: str
    at_us: int
    lasts_us: int | None = None

    def text(self) -> str:
        return f"{self.host} stands still from {_moment(self.at_us)} {_until(self.lasts_us)}"


class FullDisk(Fault, frozen=True):
    """No space left: the process ends at its first write, and cannot begin again before there is some."""

    host: str
    at_us: int
    lasts_us: int | None = None

    def text(self) -> str:
        return f"the disk of {self.host} is full from {_moment(self.at_us)} {_until(self.lasts_us)}"


class Clock(Fault, frozen=True):
    """Its clock is set `offset_us` off the true time and gains `drift_ppm` millionths from then on. A clock is not set
    back under a living process: going back waits for the next one."""

    host: str
    at_us: int
    offset_us: int = 0
    drift_ppm: int = 0

    def text(self) -> str:
        drift = f" and gains {self.drift_ppm} ppm" if self.drift_ppm else ""
        return f"the clock of {self.host} is {_span(self.offset_us)} off{drift} from {_moment(self.at_us)}"


LinkFault = Drop | Duplicate | Delay | Reorder
Counted = LinkFault | DieAtSync | SlowSync | FailSync | Launch | Sometimes
Timed = Cut | Isolate | Stall | Break | Crash | Stop | Pause | FullDisk | Clock
AnyFault = Counted | Timed
COUNTED = (Drop, Duplicate, Delay, Reorder, DieAtSync, SlowSync, FailSync, Launch, Sometimes)
TIMED = (Cut, Isolate, Stall, Break, Crash, Stop, Pause, FullDisk, Clock)


def key_of(fault: Counted) -> Key:
    """Where a counted fault strikes."""
    if isinstance(fault, Drop | Duplicate | Delay | Reorder):
        return (fault.source, fault.destination, fault.nth)
    if isinstance(fault, Launch):
        return (ISOLATION, fault.host, fault.nth)
    if isinstance(fault, Sometimes):
        return (SOMETIMES, fault.site, fault.nth)
    return (DISK, fault.host, fault.nth)


def entry_of(fault: Counted) -> tuple[Fate | None, str]:
    """Its fate, if it has one, and its word."""
    if isinstance(fault, Drop | DieAtSync):
        return (), ""
    if isinstance(fault, Duplicate):
        return fault.late_us, ""
    if isinstance(fault, Delay | SlowSync):
        return (fault.by_us,), ""
    if isinstance(fault, Reorder):
        return (fault.by_us,), OVERTAKEN
    if isinstance(fault, FailSync):
        return None, FAILS
    return None, fault.fate if isinstance(fault, Launch) else TAKEN


def fault_at(key: Key, fates: Mapping[Key, Fate], words: Mapping[Key, str]) -> Counted:
    """The fault that these tables hold at `key`; the inverse of `entry_of`."""
    first, second, nth = key
    fate, word = fates.get(key), words.get(key, "")
    if first == SOMETIMES:
        return Sometimes(second, nth)
    if first == ISOLATION:
        return Launch(second, nth, word)  # type: ignore[arg-type]
    if first == DISK:
        if word == FAILS:
            return FailSync(second, nth)
        return SlowSync(second, nth, max(fate)) if fate else DieAtSync(second, nth)
    if not fate:
        return Drop(first, second, nth)
    if len(fate) > 1:
        return Duplicate(first, second, nth, fate)
    return (Reorder if word == OVERTAKEN else Delay)(first, second, nth, max(fate))


def hosts_of(fault: AnyFault) -> tuple[str, ...]:
    """The hosts that it names."""
    names = ("source", "destination", "host", "one", "other")
    return tuple(getattr(fault, name) for name in names if hasattr(fault, name))


def _nth(number: int, article: str = "the ") -> str:
    count = number + 1
    suffix = "th" if count % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(count % 10, "th")
    return f"{article}{count}{suffix}"


def _span(us: int) -> str:
    return f"{us / 1_000_000:g} s" if abs(us) >= 1_000_000 else f"{us / 1_000:g} ms"


def _moment(us: int) -> str:
    return f"{us / 1_000_000:g} s"


def _until(lasts_us: int | None) -> str:
    return "until it is calm" if lasts_us is None else f"for {_span(lasts_us)}"
