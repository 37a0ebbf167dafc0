"""While a simulation runs, what would make it another run next time raises, and says what to use instead.

Guarded: the clocks of `time`, `time.sleep`, the functions of `random`, a `random.Random` without a seed, `uuid1` and
`uuid4`, `secrets`, `os.urandom`, threads, sockets and processes. Put in place when `World.run` or `until` begins and
taken away when it ends, so the rest of a test may use all of them. Code that has taken a function into its own
namespace before (`from time import time`) is not seen, nor is `datetime.now`, which is C.
"""

from __future__ import annotations

import contextlib
import os
import random
import secrets
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

FREE = frozenset(
    {
        "_pytest",
        "bdb",
        "cmd",
        "coverage",
        "faulthandler",
        "hypothesis",
        "logging",
        "pdb",
        "pluggy",
        "pytest",
        "warnings",
    }
)
"""Packages that may: what they do there decides nothing. (A log line's time is not part of the run.)"""

CLOCK = "read the time from `self.now_s` in a framework or executor, from `ctx.now_us` in an actor"
WAIT = "set a timer: `self.set_timer` in a framework or executor, `ctx.set_timer` in an actor"
CHANCE = "draw from `self.rng` in a framework or executor, from `ctx.rng` in an actor"
THREADS = "everything runs in one thread there; leave what needs others to code that only runs for real"
NETWORK = (
    "send messages: `self.message` in a framework or executor, `ctx.send` in an actor; leave other connections to code "
    "that only runs for real"
)
CHILDREN = "launch a task; how its command behaves is said by `runs`"

_CLOCKS = ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time")
_CHANCES = (
    *("random", "uniform", "triangular", "randint", "choice", "randrange", "sample", "shuffle", "choices", "seed"),
    *("normalvariate", "lognormvariate", "expovariate", "vonmisesvariate", "gammavariate", "gauss", "betavariate"),
    *("paretovariate", "weibullvariate", "getrandbits", "randbytes"),
)
GUARDED: tuple[tuple[Any, str, str, str], ...] = (
    *((time, name, f"time.{name}", CLOCK) for name in _CLOCKS),
    (time, "sleep", "time.sleep", WAIT),
    *((random, name, f"random.{name}", CHANCE) for name in _CHANCES),
    (uuid, "uuid1", "uuid.uuid1", CHANCE),
    (uuid, "uuid4", "uuid.uuid4", CHANCE),
    *(
        (secrets, name, f"secrets.{name}", CHANCE)
        for name in ("token_bytes", "token_hex", "token_urlsafe", "randbelow")
    ),
    (os, "urandom", "os.urandom", CHANCE),
    (os, "getrandom", "os.getrandom", CHANCE),
    (os, "fork", "os.fork", CHILDREN),
    (os, "system", "os.system", CHILDREN),
    (threading.Thread, "start", "threading.Thread.start", THREADS),
    (socket, "socket", "socket.socket", NETWORK),
    (socket, "socketpair", "socket.socketpair", NETWORK),
    (subprocess, "Popen", "subprocess.Popen", CHILDREN),
)
"""(Where, name, what to call it, what to do instead)."""


class NondeterminismError(AssertionError):
    """Something was used inside a simulation that would make it another run next time."""


_tripped: list[NondeterminismError] = []
"""The first one since the guards stand: told at the end though an actor, or its driver, has caught it."""


def _refuse(text: str) -> NoReturn:
    error = NondeterminismError(text)
    if not _tripped:
        _tripped.append(error)
    raise error


def _guard(real: Callable[..., Any], called: str, instead: str) -> Callable[..., Any]:
    def guarded(*args: Any, **kwargs: Any) -> Any:
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.partition(".")[0] in FREE:
            return real(*args, **kwargs)
        _refuse(
            f"{called} was called by {caller or 'somebody'} inside a simulation, which would be another run next time: "
            f"{instead}"
        )

    return guarded


def _seed(self: random.Random, a: Any = None, version: int = 2) -> None:
    caller = sys._getframe(2).f_globals.get("__name__", "") if a is None else ""
    if a is None and caller.partition(".")[0] not in FREE:
        _refuse(
            f"random.Random() without a seed was made by {caller or 'somebody'} inside a simulation, which would be "
            f"another run next time: {CHANCE}, or give it a seed"
        )
    _real_seed(self, a, version)


_real_seed = random.Random.seed
_GUARDS = [(where, name, _guard(getattr(where, name), called, fix)) for where, name, called, fix in GUARDED]
_REAL = [(where, name, where.__dict__[name]) for where, name, _, _ in GUARDED]
_depth = 0


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """The guards stand during the block; inside another such block nothing changes. Raises NondeterminismError at the
    end when something was refused, whoever has dealt with that error meanwhile."""
    global _depth
    _depth += 1
    if _depth == 1:
        _tripped.clear()
        for where, name, guard in _GUARDS:
            setattr(where, name, guard)
        random.Random.seed = _seed  # type: ignore[method-assign]
    try:
        yield
    finally:
        _depth -= 1
        if _depth == 0:
            for where, name, real in _REAL:
                setattr(where, name, real)
            random.Random.seed = _real_seed  # type: ignore[method-assign]
            if _tripped:
                raise _tripped[0] from None
