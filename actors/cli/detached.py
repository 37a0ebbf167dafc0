"""Schedulers that go on without their terminal: one process a batch or service, on the host that submitted it.

A directory under the user's state directory holds all of one scheduler:

    spec.json       what to run: kind, spec, masters, key directory
    framework.db    what the framework keeps (framework id, finished instances, desired service)
    ready.json      the framework's id, once a master took it in
    scheduler.log   its log
    outcome         how it ended, once it has
    <framework id>  beside the directory: a link to it, so that an id leads back
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

from mesos_actor.actors.errors import InvalidInput, MesosActorError, Unavailable

MAX_SPEC_BYTES = 16 * 1024 * 1024
LOOK_AGAIN_S = 0.02
OUTCOME_FILE = "outcome"


def read_spec(file: Path) -> Any:
    """The parsed TOML or JSON in `file`; `-` is standard input, taken as JSON when it begins with a brace."""
    try:
        raw = sys.stdin.buffer.read(MAX_SPEC_BYTES + 1) if str(file) == "-" else file.read_bytes()
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


def start(kind: str, spec: Any, masters: str, key_dir: str, insecure: bool, timeout_s: float) -> str:
    """Start a scheduler for `spec` and return the id its framework got. Raises Unavailable when none came in time;
    the scheduler has been ended then."""
    directory = home() / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(4).hex()}"
    directory.mkdir(parents=True, mode=0o700)
    wanted = {"kind": kind, "spec": spec, "masters": masters, "key_dir": key_dir, "insecure": insecure}
    (directory / "spec.json").write_text(json.dumps(wanted))
    return _launch(directory, timeout_s)


def resume(framework_id: str, masters: str, key_dir: str, insecure: bool, timeout_s: float) -> str:
    """Start the scheduler of `framework_id` again from what it kept. Options given now replace those given then."""
    link = home() / framework_id
    if "/" in framework_id or not (link / "spec.json").is_file():
        raise InvalidInput(f"--resume {framework_id}: nothing with this id was submitted from here ({home()})")
    directory = link.resolve()
    ended = directory / OUTCOME_FILE
    if ended.exists() and ended.read_text():
        raise InvalidInput(f"--resume {framework_id}: it has ended: {ended.read_text()}; submit it again as a new one")
    wanted = json.loads((directory / "spec.json").read_text())
    for name, value in (("masters", masters), ("key_dir", key_dir), ("insecure", insecure)):
        wanted[name] = value or wanted[name]
    (directory / "spec.json").write_text(json.dumps(wanted))
    (directory / "ready.json").unlink(missing_ok=True)
    return _launch(directory, timeout_s)


def _launch(directory: Path, timeout_s: float) -> str:
    with open(directory / "scheduler.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mesos_actor.actors.cli.scheduler", str(directory)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout_s
    ready = directory / "ready.json"
    while time.monotonic() < deadline:
        if ready.is_file():
            framework_id = str(json.loads(ready.read_text())["framework_id"])
            _link(directory, framework_id)
            return framework_id
        if process.poll() is not None:
            raise MesosActorError(f"the scheduler ended at once: {_last_line(directory)}")
        time.sleep(LOOK_AGAIN_S)
    process.terminate()
    raise Unavailable(f"no master took the framework in within {timeout_s:g} s: {_last_line(directory)}")


def _link(directory: Path, framework_id: str) -> None:
    link = directory.parent / framework_id
    if not link.exists():
        link.symlink_to(directory.name)


def _last_line(directory: Path) -> str:
    lines = (directory / "scheduler.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else f"see {directory / 'scheduler.log'}"
