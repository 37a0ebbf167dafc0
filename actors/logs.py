"""Structured logs: one line a decision, for people on a terminal, or JSON for machines.

An event is a constant name with fields (`actor`, `cause`, `task`, `agent`, `offer`, ...), so that lines can be counted
and searched. Writing a line never raises: a full disk or a closed pipe must not stop a cluster; what could not be
written is counted in `lost`.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Literal, TextIO, get_args

import msgspec

from mesos_actor.actors.errors import ConfigError

Level = Literal["debug", "info", "warning", "error"]

BURST = 5
"""Identical events printed within one window; the rest is counted and told when the window is over."""
WINDOW_S = 10.0
MAX_WATCHED = 1_024
"""Different events remembered for the limit; past it the one seen longest ago is forgotten, its count told first."""
MAX_FIELD_CHARS = 4_096
"""A longer value is cut, with a mark. A traceback may be four times as long."""

_RANK = {level: rank for rank, level in enumerate(get_args(Level))}
_COLOURS = {"debug": "\033[2m", "info": "", "warning": "\033[33m", "error": "\033[31m"}


class Log:
    """Writes to `stream` (default: stderr as it is at each write).

    `json=True`: one JSON object a line. Otherwise text, in colour when the stream is a terminal. Events below `level`
    are dropped. Raises ConfigError for a level that does not exist.
    """

    def __init__(
        self,
        stream: TextIO | None = None,
        *,
        json: bool = False,
        level: str = "info",
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        if level not in _RANK:
            raise ConfigError(f"log level {level!r}: must be one of {', '.join(_RANK)}")
        self._stream = stream
        self._json = json
        self._threshold = _RANK[level]
        self._wall_s = wall_s
        #: what makes an event the same -> [end of its window, times seen in it, its line's parts]
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._swept_s = 0.0
        self.lost = 0
        """Lines that could not be written."""

    def event(
        self, level: str, event: str, fields: Mapping[str, Any] | None = None, *, actor: str = "", cause: str = ""
    ) -> None:
        """Write one line. Never raises. The exception in a field `error` is printed with its traceback."""
        if _RANK.get(level, 3) < self._threshold:
            return
        try:
            self._event(level, event, fields or {}, actor, cause)
        except Exception:  # noqa: BLE001 a log line must never stop what it tells about
            self.lost += 1

    def close(self) -> None:
        """Tell the counts still held back. The stream stays open: it is not ours."""
        for seen in self._seen.values():
            self._tell(seen)
        self._seen.clear()

    def _event(self, level: str, event: str, fields: Mapping[str, Any], actor: str, cause: str) -> None:
        now_s = self._wall_s()
        plain = {name: _plain(value) for name, value in fields.items()}
        if now_s - self._swept_s >= WINDOW_S:
            self._sweep(now_s)
        key = f"{level}|{event}|{actor}|{plain}"
        seen = self._seen.get(key)
        if seen is not None and now_s >= seen.until_s:
            self._tell(self._seen.pop(key))
            seen = None
        if seen is None:
            if len(self._seen) >= MAX_WATCHED:
                self._tell(self._seen.popitem(last=False)[1])
            seen = self._seen[key] = _Seen(now_s + WINDOW_S, level, event, actor)
        seen.count += 1
        if seen.count <= BURST:
            self._write(now_s, level, event, actor, cause, plain)

    def _sweep(self, now_s: float) -> None:
        self._swept_s = now_s
        for key in [key for key, seen in self._seen.items() if now_s >= seen.until_s]:
            self._tell(self._seen.pop(key))

    def _tell(self, seen: _Seen) -> None:
        if seen.count > BURST:
            fields = {"event": seen.event, "count": seen.count - BURST, "window_s": int(WINDOW_S)}
            self._write(self._wall_s(), seen.level, "repeated", seen.actor, "", fields)

    def _write(self, now_s: float, level: str, event: str, actor: str, cause: str, fields: Mapping[str, Any]) -> None:
        stream = self._stream or sys.stderr
        try:
            stream.write(
                _json_line(now_s, level, event, actor, cause, fields)
                if self._json
                else _text_line(now_s, level, event, actor, cause, fields, stream.isatty())
            )
            stream.flush()
        except (OSError, ValueError):  # a full disk, a closed pipe, a closed stream
            self.lost += 1


class MemoryLog(Log):
    """Keeps its lines in `lines`, each a dictionary: for tests. Nothing is limited or dropped."""

    def __init__(self) -> None:
        super().__init__(level="debug")
        self.lines: list[dict[str, Any]] = []

    def event(
        self, level: str, event: str, fields: Mapping[str, Any] | None = None, *, actor: str = "", cause: str = ""
    ) -> None:
        self.lines.append({"level": level, "event": event, "actor": actor, "cause": cause, **(fields or {})})

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of this event."""
        return [line for line in self.lines if line["event"] == event]


class _Seen:
    """How often an event was seen in its window."""

    __slots__ = ("actor", "count", "event", "level", "until_s")

    def __init__(self, until_s: float, level: str, event: str, actor: str) -> None:
        self.until_s = until_s
        self.level = level
        self.event = event
        self.actor = actor
        self.count = 0


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float) or value is None:
        return value
    if isinstance(value, BaseException):
        text = "".join(traceback.format_exception(value)).rstrip()
        return text if len(text) <= 4 * MAX_FIELD_CHARS else f"{text[: 4 * MAX_FIELD_CHARS]}... (cut)"
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= MAX_FIELD_CHARS else f"{text[:MAX_FIELD_CHARS]}... (cut)"


def _json_line(now_s: float, level: str, event: str, actor: str, cause: str, fields: Mapping[str, Any]) -> str:
    line = {"time": _stamp(now_s), "level": level, "event": event, "actor": actor, "cause": cause}
    line.update((name if name not in line else f"field_{name}", value) for name, value in fields.items())
    kept = {name: value for name, value in line.items() if value != "" or name == "event"}
    return msgspec.json.encode(_encodable(kept)).decode() + "\n"


def _encodable(line: dict[str, Any]) -> dict[str, Any]:
    """JSON has no lone surrogates, which file names may hold, and msgspec no integers past 64 bits."""
    out = {}
    for name, value in line.items():
        if isinstance(value, str):
            value = value.encode("utf-8", "backslashreplace").decode()
        elif isinstance(value, int) and not -(2**63) <= value < 2**64:
            value = str(value)
        out[name] = value
    return out


def _text_line(
    now_s: float, level: str, event: str, actor: str, cause: str, fields: Mapping[str, Any], colour: bool
) -> str:
    words = [f"{name}={_word(value)}" for name, value in fields.items() if not _long(value)]
    if cause:
        words.append(f"cause={_word(cause)}")
    clock = time.strftime("%H:%M:%S", time.localtime(now_s)) + f".{int(now_s * 1000) % 1000:03d}"
    line = " ".join([clock, f"{level:<7}", f"{actor or '-':<13}", event, *words])
    for name, value in fields.items():
        if _long(value):
            line += f"\n  {name}: " + str(value).replace("\n", "\n  ")
    line = line.encode("utf-8", "backslashreplace").decode()
    return f"{_COLOURS[level]}{line}\033[0m\n" if colour and _COLOURS.get(level) else line + "\n"


def _long(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value


def _word(value: Any) -> str:
    text = str(value)
    quoted = not text or any(c in ' "=' or not c.isprintable() for c in text)
    return msgspec.json.encode(text.encode("utf-8", "backslashreplace").decode()).decode() if quoted else text


def _stamp(now_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s * 1_000_000) % 1_000_000:06d}Z"
