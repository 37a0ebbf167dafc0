"""Who is started again when an actor fails, in OTP's words and with OTP's limits. Pure: it decides, others act.

Source: Erlang/OTP, stdlib `supervisor` (sup_princ.md "Tuning the intensity"; supervisor.erl `add_restart`,
`do_restart`). Kept: the three strategies, `intensity` restarts allowed in `period`, the restart types, start order and
reverse stop order. Left out: trees of supervisors, since a process here has a handful of actors, and `significant`
children; a process whose last actor has ended, ends.
"""

from __future__ import annotations

from collections import deque
from typing import Literal, get_args

import msgspec

from mesos_actor.actors.errors import ConfigError

Strategy = Literal["one_for_one", "one_for_all", "rest_for_one"]
"""`one_for_one`: only the failed one. `one_for_all`: every one. `rest_for_one`: it and those started after it."""

RestartType = Literal["permanent", "transient", "temporary"]
"""`permanent`: always started again, after a normal end too. `transient`: after a failure only. `temporary`: never,
and it ends with the others when a sibling's failure ends it."""

INTENSITY = 1
"""Restarts allowed within the period (OTP's default)."""
PERIOD_US = 5_000_000
"""(OTP's default: 5 s.)"""
MAX_INTENSITY = 1_000
"""More than this is no limit: an actor that fails in `on_start` would keep the process busy for nothing."""


class Restart(msgspec.Struct, frozen=True):
    """End the actors `stop` in this order, where they still run, then start the actors `start` in this order."""

    stop: tuple[str, ...]
    start: tuple[str, ...]


class Leave(msgspec.Struct, frozen=True):
    """It stays ended."""


class GiveUp(msgspec.Struct, frozen=True):
    """Too many failures in too short a time: the process ends. `text` says which actor and how often."""

    text: str


Decision = Restart | Leave | GiveUp


class Supervisor:
    """Decides for the actors of one process."""

    def __init__(
        self, strategy: Strategy = "one_for_one", intensity: int = INTENSITY, period_us: int = PERIOD_US
    ) -> None:
        """Raises ConfigError for a strategy that does not exist, an intensity outside 0 to MAX_INTENSITY, or a period
        that is not positive."""
        if strategy not in get_args(Strategy):
            raise ConfigError(f"strategy {strategy!r}: must be one of {', '.join(get_args(Strategy))}")
        if not 0 <= intensity <= MAX_INTENSITY:
            raise ConfigError(f"intensity {intensity}: must be from 0 to {MAX_INTENSITY} restarts")
        if period_us <= 0:
            raise ConfigError(f"period_us {period_us}: must be greater than 0")
        self.strategy = strategy
        self.intensity = intensity
        self.period_us = period_us
        #: child's name -> its restart type, in start order
        self.children: dict[str, RestartType] = {}
        #: when the restarts within the last period took place, in microseconds; never longer than `intensity`
        self._restarts: deque[int] = deque()

    def add(self, name: str, restart: RestartType) -> None:
        """Make `name` the last child in start order. Raises ConfigError when it is one already."""
        if name in self.children:
            raise ConfigError(f"actor {name!r}: this name is taken in this process; choose another")
        if restart not in get_args(RestartType):
            raise ConfigError(
                f"restart {restart!r} of actor {name!r}: must be one of {', '.join(get_args(RestartType))}"
            )
        self.children[name] = restart

    def ended(self, name: str, normally: bool, now_us: int) -> Decision:
        """What to do now that `name` has ended, by Stop (`normally`) or by raising."""
        restart = self.children[name]
        if restart == "temporary" or (restart == "transient" and normally):
            del self.children[name]
            return Leave()
        while self._restarts and self._restarts[0] <= now_us - self.period_us:
            self._restarts.popleft()
        if len(self._restarts) >= self.intensity:
            return GiveUp(
                f"actor {name!r} ended once more after {len(self._restarts)} restarts within "
                f"{self.period_us / 1e6:g} s (intensity {self.intensity}): giving up"
            )
        self._restarts.append(now_us)
        affected = self._affected(name)
        again = tuple(child for child in affected if self.children[child] != "temporary")
        for child in affected:
            if child not in again:
                del self.children[child]
        return Restart(stop=tuple(reversed(affected)), start=again)

    def stop_order(self) -> tuple[str, ...]:
        """The children, last started first."""
        return tuple(reversed(self.children))

    def _affected(self, name: str) -> tuple[str, ...]:
        order = tuple(self.children)
        if self.strategy == "one_for_one":
            return (name,)
        return order if self.strategy == "one_for_all" else order[order.index(name) :]
