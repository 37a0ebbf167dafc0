"""Schedulers that go on without their terminal: one process a batch or service, on the host that submitted it.

A directory under the user's state directory holds all of one scheduler:

    spec.json       what to run: kind, spec, masters, key directory
    framework.db    what the framework keeps (framework id, finished instances, desired service)
    ready.json      the framework's id, once a master took it in
    scheduler.log   its log
    outcome         how it ended, once it has
    resume.lock     held while somebody starts it again
    <framework id>  beside the directory: a link to it, so that an id leads back
    service-<name>.lock  beside it too: held while somebody applies a service of this name from this host
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mesos_actor.actors.errors import InvalidInput, MesosActorError, StorageError, Unavailable
from mesos_actor.actors.ids import id_error

MAX_SPEC_BYTES = 16 * 1024 * 1024
LOOK_AGAIN_S = 0.02
END_WITHIN_S = 5.0
"""A scheduler that no master took in is killed when it has not ended by then."""
OUTCOME_FILE = "outcome"
STORE_LOCK = "framework.db.lock"
"""Locked by a scheduler as long as it runs (see store.py); holds its process id."""


def read_spec(file: Path) -> Any:
    """The parsed TOML or JSON in `file`; `-` is standard input, taken as JSON when it begins with a brace."""
    try:
        # Never more than the bound: the file may be a device that has no end.
        with contextlib.nullcontext(sys.stdin.buffer) if str(file) == "-" else file.open("rb") as source:
            raw = source.read(MAX_SPEC_BYTES + 1)
    except OSError as error:
        raise InvalidInput(f"{file}: {error.strerror}; give the path of a TOML or JSON file") from None
    if len(raw) > MAX_SPEC_BYTES:
        raise InvalidInput(f"{file}: larger than {MAX_SPEC_BYTES} bytes")
    try:
        text = raw.decode()
        as_json = file.suffix == ".json" or text.lstrip().startswith("{")
        return json.loads(text) if as_json else tomllib.loads(text)
    except (RecursionError, ValueError) as error:
        raise InvalidInput(f"{file}: cannot be read as TOML or JSON: {error}") from None


def home() -> Path:
    """Where this user's schedulers live."""
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "mesos-actor" / "schedulers"


@contextlib.contextmanager
def service_lock(name: str, timeout_s: float) -> Iterator[None]:
    """Nobody else on this host looks whether there is a service `name`, and starts one, meanwhile. Raises Unavailable
    when somebody does for longer than `timeout_s`."""
    with _told():
        home().mkdir(parents=True, mode=0o700, exist_ok=True)
    with _locked(home() / f"service-{name}.lock", timeout_s, f"another `service apply` of {name!r} on this host"):
        yield


def start(kind: str, spec: Any, masters: str, key_dir: str, insecure: bool, timeout_s: float) -> str:
    """Start a scheduler for `spec` and return the id its framework got. Raises Unavailable when none came in time;
    the scheduler has been ended then."""
    directory = home() / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"
    wanted = {"kind": kind, "spec": spec, "masters": masters, "key_dir": key_dir, "insecure": insecure}
    with _told():
        directory.mkdir(parents=True, mode=0o700)
        _write(directory, wanted)
    return _launch(directory, timeout_s)


def resume(framework_id: str, masters: str, key_dir: str, insecure: bool, timeout_s: float) -> str:
    """Start the scheduler of `framework_id` again from what it kept. Options given now replace those given then."""
    link = home() / framework_id
    with _told():
        if id_error(framework_id) or not (link / "spec.json").is_file():
            raise InvalidInput(f"--resume {framework_id}: nothing with this id was submitted from here ({home()})")
        directory = link.resolve()
    with _locked(directory / "resume.lock", timeout_s, f"another `submit --resume {framework_id}`"), _told():
        if holder := _running(directory):
            raise InvalidInput(
                f"--resume {framework_id}: its scheduler runs already, as process {holder} on this host; "
                "there is nothing to take up again"
            )
        ended = directory / OUTCOME_FILE
        if ended.exists() and (outcome := ended.read_text()):
            raise InvalidInput(f"--resume {framework_id}: it has ended: {outcome}; submit it again as a new one")
        wanted = _read(directory)
        for name, value in (("masters", masters), ("key_dir", key_dir), ("insecure", insecure)):
            wanted[name] = value or wanted[name]
        _write(directory, wanted)
        (directory / "ready.json").unlink(missing_ok=True)
        return _launch(directory, timeout_s)


def _launch(directory: Path, timeout_s: float) -> str:
    with _told(), open(directory / "scheduler.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mesos_actor.actors.cli.scheduler", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        framework_id = _taken_in(directory, process, time.monotonic() + timeout_s)
    except BaseException:
        # Whoever gave up, or pressed Ctrl-C, has no id by which to find it again.
        _end(process)
        raise
    if not framework_id:
        _end(process)
        raise Unavailable(f"no master took the framework in within {timeout_s:g} s: {_last_line(directory)}")
    with _told():
        _link(directory, framework_id)
    return framework_id


def _taken_in(directory: Path, process: subprocess.Popen[bytes], deadline: float) -> str:
    """The id that a master gave to the framework; empty when none did by `deadline`."""
    ready = directory / "ready.json"
    while time.monotonic() < deadline:
        # Asked first: what has ended now told before whether it was taken in.
        ended = process.poll() is not None
        if ready.is_file():
            return str(json.loads(ready.read_text())["framework_id"])
        if ended:
            raise MesosActorError(f"the scheduler ended at once: {_last_line(directory)}")
        time.sleep(LOOK_AGAIN_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(END_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()


def _link(directory: Path, framework_id: str) -> None:
    link = directory.parent / framework_id
    if not link.exists():
        link.symlink_to(directory.name)


def _last_line(directory: Path) -> str:
    lines = (directory / "scheduler.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"see {directory / 'scheduler.log'}"


# -- the directory ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What the disk refuses is a StorageError that names the path and the fix."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"{error.filename or home()}: {error.strerror or error}; schedulers are kept in {home()}: make that usable "
            "for this user, or name another place with XDG_STATE_HOME"
        ) from None


def _write(directory: Path, wanted: dict[str, Any]) -> None:
    """Keep what to run, whole or not at all."""
    partial = directory / "spec.json.partial"
    partial.write_text(json.dumps(wanted))
    partial.replace(directory / "spec.json")


def _read(directory: Path) -> dict[str, Any]:
    path = directory / "spec.json"
    try:
        wanted = json.loads(path.read_text())
    except ValueError:
        wanted = None
    if not isinstance(wanted, dict) or not wanted.keys() >= {"kind", "spec", "masters", "key_dir", "insecure"}:
        raise StorageError(f"{path}: is damaged; submit the batch or service again from its own file")
    return wanted


def _running(directory: Path) -> str:
    """The process id of the scheduler that uses `directory`; empty when none runs."""
    try:
        with open(directory / STORE_LOCK, "rb") as file:
            # Shared, and let go at once: this is a question, not a claim.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return ""
    except BlockingIOError:
        return (directory / STORE_LOCK).read_text(errors="replace").strip() or "unknown"
    return ""


@contextlib.contextmanager
def _locked(path: Path, timeout_s: float, who: str) -> Iterator[None]:
    """Hold the lock file `path`. Raises Unavailable, naming `who` holds it, when it is not free within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    with _told():
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"{who} has not ended within {timeout_s:g} s; try again when it has ({path})"
                    ) from None
            time.sleep(LOOK_AGAIN_S)
        yield
    finally:
        os.close(descriptor)
