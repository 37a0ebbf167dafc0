"""Replay files: a failing run as JSON that a person can read and a program can play again."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from mesos_actor._version import __version__
from mesos_actor.actors.errors import InvalidInput, StorageError
from mesos_actor.transport.sim.faults import AnyFault
from mesos_actor.transport.sim.trial import Broken, Trial

FORMAT = 1
DIRECTORY = ".sim-failures"
"""Where failing runs are written, below the working directory."""
MAX_BYTES = 16 << 20
"""Longer files are refused."""


class Replay(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A run that broke something. Either `trial` says all, or `test` is the test whose faults these are."""

    format: int = FORMAT
    version: str = __version__
    broken: Broken
    trial: Trial | None = None
    test: str = ""
    """The node id of a pytest test, which builds the cluster and drives it."""
    seed: int = 0
    faults: tuple[AnyFault, ...] = ()
    """Of `test`; a trial has its own."""
    work: tuple[object, ...] = ()
    """What `workloads()` drew for `test`."""
    digest: str = ""
    """Of the run, by the code that found it."""
    bug: str = ""
    """The planted bug that must be switched on for this to break (tests/sim/regressions)."""
    note: str = ""
    """For people: what was wrong, and what was done about it."""

    def to_json(self) -> str:
        """As it is written: indented, one fault a line."""
        text = msgspec.json.format(msgspec.json.encode(self), indent=1).decode()
        return _compact(text) + "\n"

    def write(self, directory: Path) -> Path:
        """Write it under a name made from its content; where. Raises StorageError."""
        text = self.to_json()
        path = directory / f"{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}.json"
        try:
            directory.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        except OSError as error:
            raise StorageError(f"{path}: cannot be written: {error.strerror}; choose another directory") from error
        return path


def read_replay(path: Path) -> Replay:
    """The content of a replay file. Raises InvalidInput, naming the file and the field."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InvalidInput(f"{path}: is longer than {MAX_BYTES >> 20} MiB; that is no replay file")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {error.strerror}; name a replay file") from error
    try:
        found = msgspec.json.decode(data, type=Replay)
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{path}: is not a replay file: {error}") from error
    if found.format != FORMAT:
        raise InvalidInput(f"{path}: format {found.format} is of another version; this one reads {FORMAT}")
    if found.trial is None and not found.test:
        raise InvalidInput(f"{path}: names neither a trial nor a test; one of them says what to play")
    return found


def _compact(text: str) -> str:
    """Put innermost objects and arrays on one line each."""
    lines: list[str] = []
    inner: list[str] | None = None
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.endswith(("{", "[")):
            if inner is not None:
                lines += inner
            inner = [line]
        elif inner is not None and stripped.rstrip(",") in ("}", "]"):
            inner.append(line)
            lines.append(inner[0] + " ".join(part.strip() for part in inner[1:-1]) + stripped)
            inner = None
        elif inner is not None:
            inner.append(line)
        else:
            lines.append(line)
    return "\n".join(lines + (inner or []))
