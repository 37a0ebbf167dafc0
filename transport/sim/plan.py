"""What goes wrong in one run: faults as plain data, looked up while the run goes on.

    Plan.of([Drop("master0", "framework0", 2), Crash("agent1", 4_000_000, 30_000_000)])

Counted faults are kept in two tables, from where to what:

| key                        | `fates`                                                          |
|----------------------------|------------------------------------------------------------------|
| `(source, destination, n)` | microseconds late, for each copy: `()` lost, `(0, 500)` doubled  |
| `("disk", host, n)`        | `()` the host dies before the sync, `(200000,)` a slow one       |

| key                        | `words`                                                          |
|----------------------------|------------------------------------------------------------------|
| `(source, destination, n)` | `overtaken`: those behind a late message do not wait for it      |
| `("disk", host, n)`        | `fail`: the disk refuses the sync                                |
| `("isolation", host, n)`   | a word for the fake containerizer                                |
| `("sometimes", site, n)`   | `yes`: the rare branch is taken                                  |

Keys count per link and per disk, from 0, not by time and not over the whole run: taking one fault out leaves the others
where they are, so that a failing plan can be made smaller one fault at a time. `faults()` gives the same as a list.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

import msgspec

from mesos_actor.actors.errors import ConfigError, InvalidInput
from mesos_actor.transport.sim.faults import (
    COUNTED,
    DISK,
    FAILS,
    ISOLATION,
    LAUNCH_FATES,
    OVERTAKEN,
    SITES,
    SOMETIMES,
    TAKEN,
    AnyFault,
    Counted,
    Fate,
    Key,
    Sometimes,
    Timed,
    entry_of,
    fault_at,
    key_of,
)

NORMAL: Fate = (0,)

RESERVED = frozenset({DISK, ISOLATION, SOMETIMES})
"""First words of keys that are not links: no host may be called so."""

MAX_FAULTS_BYTES = 16 << 20
"""Longer replay files are refused."""

_FAULTS = msgspec.json.Decoder(list[AnyFault])


class Plan:
    """Follows its faults; everything else goes normally. Counts as it is asked, so one plan serves one run.

    Raises ConfigError for a fault that cannot be."""

    def __init__(
        self,
        fates: Mapping[Key, Fate] | None = None,
        words: Mapping[Key, str] | None = None,
        timed: Iterable[Timed] = (),
    ) -> None:
        self.fates: dict[Key, Fate] = dict(fates or {})
        self.words: dict[Key, str] = dict(words or {})
        self.timed: list[Timed] = []
        """In the order in which they were added. The world arranges for them."""
        self.calm = False
        """True: from now on nothing goes wrong any more, for the phase in which things must get better."""
        self.met: dict[Key | Timed, None] = {}
        """What has really gone wrong so far: keys of counted faults, and timed ones."""
        self.sites: dict[str, list[int]] = {}
        """Rare branch -> how often it was asked for, and taken."""
        #: (source, destination) -> how many were asked for
        self._asked: dict[tuple[str, str], int] = {}
        for key, fate in self.fates.items():
            _check_fate(key, fate)
        for fault in timed:
            _check_times(fault)
            self.timed.append(fault)

    @classmethod
    def of(cls, faults: Iterable[AnyFault]) -> Plan:
        """A plan of these. Raises ConfigError when one cannot be, or two strike the same place."""
        plan = Plan()
        for fault in faults:
            plan.add(fault)
        return plan

    def add(self, fault: AnyFault) -> None:
        """One more. Raises ConfigError as `of`."""
        if not isinstance(fault, COUNTED):
            _check_times(fault)
            self.timed.append(fault)
            return
        key = key_of(fault)
        if key in self.fates or key in self.words:
            raise ConfigError(f"fault {fault}: {self.fault_at(key)} strikes the same place already; leave one out")
        if isinstance(fault, Sometimes) and fault.site not in SITES:
            raise ConfigError(f"site {fault.site!r}: must be one of {', '.join(SITES)}")
        if key[2] < 0:
            raise ConfigError(f"nth {key[2]} of {fault}: counts begin at 0")
        fate, word = entry_of(fault)
        if fate is not None:
            _check_fate(key, fate)
            self.fates[key] = fate
        if word:
            self.words[key] = word

    # -- as data --------------------------------------------------------------------------------------------------

    def faults(self) -> tuple[AnyFault, ...]:
        """All of them: counted ones by place, then timed ones as they strike."""
        keys = sorted({*self.fates, *self.words}, key=_order)
        timed = sorted(self.timed, key=_moment)
        return (*map(self.fault_at, keys), *timed)

    def unmet(self) -> tuple[AnyFault, ...]:
        """Those that did not come about: the run did not get so far, or their host was not there."""
        return tuple(
            fault for fault in self.faults() if (key_of(fault) if isinstance(fault, COUNTED) else fault) not in self.met
        )

    def coverage(self) -> Counter[str]:
        """How often each kind of fault has come about."""
        return Counter((self.fault_at(what) if isinstance(what, tuple) else what).kind for what in self.met)

    def to_json(self) -> str:
        """A JSON array, one fault a line."""
        lines = [msgspec.json.encode(fault).decode() for fault in self.faults()]
        return "[\n" + ",\n".join(f"  {line}" for line in lines) + "\n]\n" if lines else "[]\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """The inverse of `to_json`. Raises InvalidInput, saying where it is wrong, or ConfigError."""
        try:
            return cls.of(_FAULTS.decode(text))
        except msgspec.MsgspecError as error:
            raise InvalidInput(f"faults: {error}; write them as `Plan.to_json` does") from error

    def copy(self) -> Plan:
        """The same faults, for another run."""
        return Plan(self.fates, self.words, self.timed)

    def __repr__(self) -> str:
        return f"Plan.of({list(self.faults())})"

    def fault_at(self, key: Key) -> Counted:
        """The counted fault at `key`, which the plan has."""
        return fault_at(key, self.fates, self.words)

    # -- asked by the world ---------------------------------------------------------------------------------------

    def fate(self, source: str, destination: str) -> Fate:
        """What happens to the next message of this link; `fate("disk", host)`: to the next sync, FAILED if it fails."""
        link = (source, destination)
        n = self._asked.get(link, 0)
        self._asked[link] = n + 1
        if self.calm:
            return NORMAL
        fate = self._fate((source, destination, n))
        if fate != NORMAL:
            self.met[source, destination, n] = None
        return fate

    def last(self, source: str, destination: str) -> Key:
        """The key of what was asked for last on this link."""
        return (source, destination, self._asked[source, destination] - 1)

    def asked(self, fault: Counted) -> int:
        """How many of what `fault` counts there have been so far."""
        return self._asked.get(key_of(fault)[:2], 0)

    def overtaken(self, source: str, destination: str) -> bool:
        """Whether those behind may pass the message whose fate was asked last."""
        return self.words.get(self.last(source, destination)) == OVERTAKEN

    def word(self, kind: str, who: str) -> str:
        """The word for the next question of this kind, empty when nothing is to happen."""
        n = self._asked.get((kind, who), 0)
        self._asked[kind, who] = n + 1
        if self.calm:
            return ""
        word = self._word((kind, who, n))
        if word:
            self.met[kind, who, n] = None
        return word

    def sometimes(self, site: str) -> bool:
        """Whether the rare branch `site` is taken this time (FoundationDB's BUGGIFY, flow/Buggify.h)."""
        taken = self.word(SOMETIMES, site) == TAKEN
        counts = self.sites.setdefault(site, [0, 0])
        counts[0] += 1
        counts[1] += taken
        return taken

    def _fate(self, key: Key) -> Fate:
        fate = self.fates.get(key, NORMAL)
        if fate == NORMAL and key[0] == DISK and self.words.get(key) == FAILS:
            return FAILED
        return fate

    def _word(self, key: Key) -> str:
        return self.words.get(key, "")


FAILED: Fate = (-1,)
"""What the next sync is told when the disk refuses it."""


def _order(key: Key) -> tuple[bool, Key]:
    return (key[0] in RESERVED, key)


def _moment(fault: Timed) -> int:
    return fault.at_us


def _check_fate(key: Key, fate: Fate) -> None:
    if any(extra_us < 0 for extra_us in fate):
        raise ConfigError(f"fate {fate} of {key}: extra delays are microseconds, not less than 0")


def _check_times(fault: Timed) -> None:
    if not isinstance(fault, msgspec.Struct):
        raise ConfigError(f"fault {fault!r}: must be one of transport/sim/faults.py")
    for name in ("at_us", "lasts_us", "restart_after_us"):
        value = getattr(fault, name, None)
        if value is not None and value < 0:
            raise ConfigError(f"{name} {value} of {fault}: times are microseconds, not less than 0")


class Chances(msgspec.Struct, frozen=True, kw_only=True):
    """How often a SeededPlan lets things go wrong: probabilities from 0 to 1, times in microseconds."""

    drop: float = 0.02
    double: float = 0.02
    delay: float = 0.1
    delay_max_us: int = 200_000
    reorder: float = 0.0
    """That a late message is overtaken."""
    disk_death: float = 0.005
    slow_disk: float = 0.02
    disk_failure: float = 0.0
    """That a sync is refused."""
    launch: float = 0.0
    """That a container has a fate of its own."""
    site_active: float = 0.0
    """That a `sometimes` site is alive in this run at all."""
    site_taken: float = 0.25
    """That an active site's branch is taken at one call."""


class SeededPlan(Plan):
    """Draws fates from a seed and writes the unusual ones into `fates` and `words`: `Plan.of(plan.faults())` then
    repeats the run without the seed."""

    def __init__(self, seed: int, chances: Chances | None = None, timed: Iterable[Timed] = ()) -> None:
        super().__init__(timed=timed)
        self.chances = chances or Chances()
        self._rng = random.Random(seed)
        self._word_rng = random.Random(f"{seed}/words")
        #: site -> whether it is alive in this run
        self._sites: dict[str, bool] = {}

    def _fate(self, key: Key) -> Fate:
        known = super()._fate(key)
        if known != NORMAL:
            return known  # somebody has said what happens here
        if key[0] == DISK:
            return self._disk_fate(key)
        fate = self._link_fate()
        if fate != NORMAL:
            self.fates[key] = fate
            if len(fate) == 1 and self.chances.reorder and self._word_rng.random() < self.chances.reorder:
                self.words[key] = OVERTAKEN
        return fate

    def _link_fate(self) -> Fate:
        chances = self.chances
        roll, extra_us = self._rng.random(), self._rng.randrange(chances.delay_max_us + 1)
        if roll < chances.drop:
            return ()
        if roll < chances.drop + chances.double:
            return (0, extra_us)
        if roll < chances.drop + chances.double + chances.delay:
            return (extra_us,)
        return NORMAL

    def _disk_fate(self, key: Key) -> Fate:
        chances = self.chances
        roll, extra_us = self._rng.random(), self._rng.randrange(chances.delay_max_us + 1)
        if chances.disk_failure and self._word_rng.random() < chances.disk_failure:
            self.words[key] = FAILS
            return FAILED
        if roll < chances.disk_death:
            self.fates[key] = ()
            return ()
        if roll < chances.disk_death + chances.slow_disk:
            self.fates[key] = (extra_us,)
            return (extra_us,)
        return NORMAL

    def _word(self, key: Key) -> str:
        known = super()._word(key)
        if known:
            return known
        kind, site, _ = key
        rng, chances = self._word_rng, self.chances
        word = ""
        if kind == ISOLATION and chances.launch and rng.random() < chances.launch:
            word = rng.choice(LAUNCH_FATES)
        elif kind == SOMETIMES and chances.site_active:
            if site not in self._sites:
                self._sites[site] = rng.random() < chances.site_active
            if self._sites[site] and rng.random() < chances.site_taken:
                word = TAKEN
        if word:
            self.words[key] = word
        return word
