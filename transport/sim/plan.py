"""Faults as plain data: what happens to the n-th message of a link, the n-th sync of a disk.

Keys count per link and per disk, from 0, not by time and not over the whole run: taking one fault out leaves the others
where they are, so that a failing plan can be made smaller one fault at a time.

| key                        | fate                                                             |
|----------------------------|------------------------------------------------------------------|
| `(source, destination, n)` | microseconds late, for each copy: `()` lost, `(0, 500)` doubled  |
| `("disk", host, n)`        | `()` the host dies before the sync, `(200000,)` a slow one       |
| `("isolation", host, n)`   | a word for the fake containerizer, in `words`                    |
| `("sometimes", site, n)`   | `"yes"` in `words`: the rare branch is taken                     |

Hosts are named by their names in the world. What a doubled or overtaken message becomes is up to `transport/link.py`:
dropped.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

import msgspec

from mesos_actor.actors.errors import ConfigError

Key = tuple[str, str, int]
Fate = tuple[int, ...]
NORMAL: Fate = (0,)

DISK = "disk"
ISOLATION = "isolation"
SOMETIMES = "sometimes"
RESERVED = frozenset({DISK, ISOLATION, SOMETIMES})
"""First words of keys that are not links: no host may be called so."""


class Plan:
    """Follows `fates` and `words`; everything else goes normally. Counts as it is asked, so one plan serves one run."""

    def __init__(self, fates: Mapping[Key, Fate] | None = None, words: Mapping[Key, str] | None = None) -> None:
        self.fates: dict[Key, Fate] = dict(fates or {})
        self.words: dict[Key, str] = dict(words or {})
        self.calm = False
        """True: from now on nothing goes wrong any more, for the phase in which things must get better."""
        #: (source, destination) -> how many were asked for
        self._asked: dict[tuple[str, str], int] = {}
        for key, fate in self.fates.items():
            if any(extra_us < 0 for extra_us in fate):
                raise ConfigError(f"fate {fate} of {key}: extra delays are microseconds, not less than 0")

    def fate(self, source: str, destination: str) -> Fate:
        """What happens to the next message of this link; `fate("disk", host)`: to the next sync."""
        link = (source, destination)
        n = self._asked.get(link, 0)
        self._asked[link] = n + 1
        return NORMAL if self.calm else self._fate((source, destination, n))

    def word(self, kind: str, who: str) -> str:
        """The word for the next question of this kind, empty when nothing is to happen."""
        n = self._asked.get((kind, who), 0)
        self._asked[kind, who] = n + 1
        return "" if self.calm else self._word((kind, who, n))

    def sometimes(self, site: str) -> bool:
        """Whether the rare branch `site` is taken this time (FoundationDB's BUGGIFY, flow/Buggify.h)."""
        return self.word(SOMETIMES, site) == "yes"

    def _fate(self, key: Key) -> Fate:
        return self.fates.get(key, NORMAL)

    def _word(self, key: Key) -> str:
        return self.words.get(key, "")


class Chances(msgspec.Struct, frozen=True, kw_only=True):
    """How often a SeededPlan lets things go wrong: probabilities from 0 to 1, times in microseconds."""

    drop: float = 0.02
    double: float = 0.02
    delay: float = 0.1
    delay_max_us: int = 200_000
    disk_death: float = 0.005
    slow_disk: float = 0.02
    site_active: float = 0.25
    """That a `sometimes` site is alive in this run at all."""
    site_taken: float = 0.25
    """That an active site's branch is taken at one call."""


class SeededPlan(Plan):
    """Draws fates from a seed and writes the unusual ones into `fates` and `words`: `Plan(plan.fates, plan.words)`
    then repeats the run without the seed."""

    def __init__(self, seed: int, chances: Chances | None = None) -> None:
        super().__init__()
        self.chances = chances or Chances()
        self._rng = random.Random(seed)
        #: site -> whether it is alive in this run
        self._sites: dict[str, bool] = {}

    def _fate(self, key: Key) -> Fate:
        fate = self._disk_fate() if key[0] == DISK else self._link_fate()
        if fate != NORMAL:
            self.fates[key] = fate
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

    def _disk_fate(self) -> Fate:
        chances = self.chances
        roll, extra_us = self._rng.random(), self._rng.randrange(chances.delay_max_us + 1)
        if roll < chances.disk_death:
            return ()
        return (extra_us,) if roll < chances.disk_death + chances.slow_disk else NORMAL

    def _word(self, key: Key) -> str:
        kind, site, _ = key
        if kind != SOMETIMES:
            return ""
        if site not in self._sites:
            self._sites[site] = self._rng.random() < self.chances.site_active
        if not self._sites[site] or self._rng.random() >= self.chances.site_taken:
            return ""
        self.words[key] = "yes"
        return "yes"
