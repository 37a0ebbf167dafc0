"""How each kind of setting is written: durations, switches, ports, hosts, counts. Pure; `config.py` knows where from.

Every reader takes `where` (which setting, from where) and a value as a TOML file, an environment variable or an option
gives it, and raises ConfigError with field, value and fix.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal

from mesos_actor.actors.core.container_network import parse_subnet
from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import Address, Node, address
from mesos_actor.actors.resource_text import shown

DEFAULT_MASTER_PORT = 5_050
"""(Mesos: --port of the master.)"""
MAX_MASTERS = 64
"""In any list; what a client may try."""
MAX_REPLICAS = 7
"""Masters of one cluster: each keeps the registry, and every write waits for most of them."""
MAX_DURATION_MS = 10 * 365 * 24 * 3_600 * 1_000
MAX_COUNT = 1_000_000_000
MAX_SIZE_BYTES = 1 << 60

_UNIT_MS = {"ms": 1, "s": 1_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_UNIT_WORDS = {"sec": "s", "secs": "s", "mins": "min", "hrs": "h", "days": "d", "weeks": "w"}
"""Mesos' spellings (3rdparty/stout/include/stout/duration.hpp) are read as well."""
_DURATION = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([a-z]+)")
_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,253})")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*(?:%[A-Za-z0-9._-]+)?")
_DURATION_FIX = "write a duration like 500ms, 30s, 10min, 1h or 2d"
_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt])i?b", re.IGNORECASE)
_SIZE_SHIFT = {"k": 10, "m": 20, "g": 30, "t": 40}
_SIZE_FIX = "write a size like 500MiB or 20GiB"
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}

_MAY_BE_ZERO = ("max_completed_", "gc_delay_ms", "container_pids_limit")


def refused(where: str, value: object, problem: str, fix: str) -> ConfigError:
    return ConfigError(f"{where}: {shown(value)} {problem}; {fix}")


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint at the valid name that `name` was meant to be."""
    known = sorted(valid)
    close = difflib.get_close_matches(name, known, 1, 0.6)
    return f"did you mean {close[0]!r}?" if close else f"use one of: {', '.join(known)}"


def text(where: str, value: object) -> str:
    if not isinstance(value, str):
        raise refused(where, value, "is not a text", "put it in quotes")
    return value.strip()


def switch(where: str, value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in _SWITCH:
        return _SWITCH[value.strip().lower()]
    raise refused(where, value, "is neither true nor false", "write true or false")


def whole(where: str, value: object, lowest: int, highest: int) -> int:
    number = value
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9_]{1,20}\s*", value) and value.strip("-_ \t"):
        number = int(value.replace("_", ""))
    if isinstance(number, bool) or not isinstance(number, int):
        raise refused(where, value, "is not a whole number", f"write one from {lowest} to {highest}")
    if not lowest <= number <= highest:
        raise refused(where, value, "is out of range", f"write a number from {lowest} to {highest}")
    return number


def duration_ms(where: str, value: object, *, bare: bool) -> int:
    """Milliseconds of `30s` and the like; with `bare`, a number without a unit counts milliseconds."""
    if bare and (isinstance(value, int) or (isinstance(value, str) and value.strip().isdecimal())):
        return whole(where, value, 0, MAX_DURATION_MS)
    match = _DURATION.fullmatch(value.strip().lower()) if isinstance(value, str) else None
    unit = _UNIT_MS.get(_UNIT_WORDS.get(match[2], match[2])) if match else None
    if match is None or unit is None:
        raise refused(where, value, "is not a duration", _DURATION_FIX)
    exact = Decimal(match[1]) * unit
    if exact != exact.to_integral_value():
        raise refused(where, value, "is not a whole number of milliseconds", _DURATION_FIX)
    if exact > MAX_DURATION_MS:
        raise refused(where, value, "is longer than ten years", _DURATION_FIX)
    return int(exact)


def size_bytes(where: str, value: object, lowest: int) -> int:
    """Bytes of `20GiB` and the like; a number without a unit counts bytes."""
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        if isinstance(value, str) and not value.strip().isdecimal():
            raise refused(where, value, "is not a size", _SIZE_FIX)
        return whole(where, value, lowest, MAX_SIZE_BYTES)
    exact = Decimal(match[1]) * (1 << _SIZE_SHIFT[match[2].lower()])
    if exact != exact.to_integral_value() or not lowest <= exact <= MAX_SIZE_BYTES:
        raise refused(where, value, f"is not a whole number of bytes from {lowest} to {MAX_SIZE_BYTES}", _SIZE_FIX)
    return int(exact)


def measure(where: str, name: str, value: object, *, bare: bool) -> int:
    """The value of a field of MasterSettings or AgentSettings, by the unit at the end of its `name`.

    `bare`: the name was written with its unit, so that a number needs none.
    """
    lowest = 0 if name.startswith(_MAY_BE_ZERO) else 1
    if name.endswith("_ms"):
        found = duration_ms(where, value, bare=bare)
        if found < lowest:
            raise refused(where, value, "is no time at all", _DURATION_FIX)
        return found
    if name.endswith("_bytes"):
        return size_bytes(where, value, lowest)
    return whole(where, value, lowest, 1_000 if name.endswith("_permille") else MAX_COUNT)


# -- places


def port(where: str, value: object, *, lowest: int = 0) -> int:
    return whole(where, value, lowest, 65_535)


def host(where: str, value: object) -> str:
    """A host name, an IPv4 address or an IPv6 address (with or without brackets; returned without)."""
    found = text(where, value)
    if found.startswith("[") and found.endswith("]"):
        found = found[1:-1]
        if not _IPV6.fullmatch(found):
            raise refused(where, value, "is not an IPv6 address", "write it like [fd00::1]")
    elif not _NAME.fullmatch(found) and not _IPV6.fullmatch(found):
        raise refused(where, value, "is not a host", "write a host name or an IP address")
    return found


def parse_masters(masters: str | Iterable[str], where: str = "masters") -> tuple[str, ...]:
    """`h1:5050,h2,[fd00::1]:5051` as `host:port` each, in order; the port is 5050 where none is given.

    Raises ConfigError for a bad host or port, a repetition, none at all, or more than MAX_MASTERS.
    """
    parts = masters.split(",") if isinstance(masters, str) else list(masters)
    found: list[str] = []
    for part in parts:
        one = host_and_port(where, part)
        written = join_host_port(*one)
        if written in found:
            raise refused(where, part, "is named twice", "name each master once")
        found.append(written)
    if not found or len(found) > MAX_MASTERS:
        raise refused(where, masters, f"names {len(found)} masters", f"name 1 to {MAX_MASTERS} as HOST:PORT")
    return tuple(found)


def check_replicas(masters: Sequence[str]) -> None:
    """Raise ConfigError when so many masters cannot be one cluster: their number is odd, at most MAX_REPLICAS."""
    counted = f"masters: {','.join(masters)} are {len(masters)}"
    if len(masters) > MAX_REPLICAS:
        raise ConfigError(
            f"{counted}: each write waits for a majority of them, so that more than {MAX_REPLICAS} are slower and "
            "hardly safer; name 3 or 5 masters"
        )
    if len(masters) % 2 == 0:
        raise ConfigError(f"{counted}: an even number tolerates no more failures than one less; name 1, 3 or 5 masters")


def host_and_port(where: str, value: object) -> tuple[str, int]:
    """The host, in small letters and without brackets, and the port of one master."""
    one = text(where, value)
    if "/" in one:
        raise refused(where, value, "is not HOST:PORT", "leave out tcp:// and any path")
    head, colon, tail = one.rpartition(":")
    if not colon or one.endswith("]"):
        head, tail = one, str(DEFAULT_MASTER_PORT)
    elif ":" in head and not head.startswith("["):
        raise refused(where, value, "is ambiguous", "put an IPv6 address in brackets, like [fd00::1]:5050")
    if not tail.isascii() or not tail.isdecimal():
        raise refused(where, value, "has no port number", "write HOST:PORT, like 10.0.0.1:5050")
    if not head:
        raise refused(where, value, "has no host", "write HOST:PORT, like 10.0.0.1:5050")
    return host(where, head).lower(), port(where, tail, lowest=1)


def join_host_port(name: str, number: int) -> str:
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"


def master_addresses(masters: Iterable[str]) -> tuple[Address, ...]:
    """The mailboxes of masters given as `host:port`."""
    return tuple(address(Node(f"tcp://{one}"), "master") for one in masters)


def masters(where: str, value: object) -> tuple[str, ...]:
    """A list of masters, `host:port` each, from text or a list. Raises ConfigError."""
    if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
        return parse_masters([str(one) for one in value], where)
    return parse_masters(text(where, value), where)


def one_of(*choices: str) -> Callable[[str, object], str]:
    """Reads one of `choices`, in whatever case. What it returns raises ConfigError."""

    def read(where: str, value: object) -> str:
        chosen = text(where, value).lower()
        if chosen not in choices:
            raise refused(where, value, "is not a choice", nearest(chosen, choices))
        return chosen

    return read


def cgroup_root(where: str, value: object) -> str:
    """The absolute path of a cgroup. Raises ConfigError."""
    written = text(where, value).strip()
    if not written.startswith("/") or "\0" in written or "/../" in f"{written}/":
        raise refused(where, value, "is not an absolute path", "name a directory below /sys/fs/cgroup")
    return written.rstrip("/") or "/"


def subnet(where: str, value: object) -> str:
    """A private IPv4 network with a length. Raises ConfigError."""
    written = text(where, value)
    try:
        return str(parse_subnet(written))
    except ValueError as problem:
        said, _, fix = str(problem).partition("; ")
        raise refused(where, value, said, fix) from None


def directories(where: str, value: object) -> tuple[str, ...]:
    """Absolute paths, from text with commas or a list. Raises ConfigError."""
    written = value if isinstance(value, list | tuple) else text(where, value).split(",")
    paths = tuple(str(one).strip() for one in written)
    for path in paths:
        if not path.startswith("/") or "\0" in path or ".." in path.split("/"):
            raise refused(where, value, "is no list of absolute paths", "write /srv/data, or /srv/data,/scratch")
    return paths


def names(where: str, value: object) -> tuple[str, ...]:
    """Names, each once, from text with commas or a list. Raises ConfigError."""
    written = value if isinstance(value, list | tuple) else text(where, value).split(",")
    names = tuple(str(one).strip() for one in written)
    for name in names:
        if not name or not name.isprintable() or names.count(name) > 1:
            raise refused(where, value, "is no list of names, each once", "write docker, or docker,mine")
    return names
