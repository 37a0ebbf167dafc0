"""The directory of a detached scheduler: what may go wrong with it, and who may touch it when."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path

import pytest

from mesos_actor.actors.cli import detached
from mesos_actor.actors.errors import InvalidInput, StorageError, Unavailable

WANTED = {"kind": "batch", "spec": {}, "masters": "a:1", "key_dir": "", "insecure": False}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    return tmp_path / "mesos-actor" / "schedulers"


@pytest.fixture
def submitted(home: Path) -> Path:
    """What a scheduler that a master took in as `f-0001` has left behind."""
    directory = home / "20260101-000000-abcd"
    directory.mkdir(parents=True)
    (directory / "spec.json").write_text(json.dumps(WANTED))
    (directory / "ready.json").write_text('{"framework_id": "f-0001"}')
    (home / "f-0001").symlink_to(directory.name)
    return directory


def test_a_state_directory_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))

    with pytest.raises(StorageError, match=rf"{tmp_path}/file.*: Not a directory; .*XDG_STATE_HOME"):
        detached.start("batch", {}, "", "", False, 1.0)
    with pytest.raises(StorageError, match="XDG_STATE_HOME"), detached.service_lock("web", 1.0):
        pass


@pytest.mark.parametrize("name", ["spec.json.partial", "scheduler.log"])
def test_a_file_that_cannot_be_written_is_named(submitted: Path, name: str) -> None:
    (submitted / name).mkdir()

    with pytest.raises(StorageError, match=rf"{submitted / name}: Is a directory; .*XDG_STATE_HOME"):
        detached.resume("f-0001", "", "", False, 1.0)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_description_is_named(submitted: Path, content: str) -> None:
    (submitted / "spec.json").write_text(content)

    with pytest.raises(StorageError, match=r"spec\.json: is damaged"):
        detached.resume("f-0001", "", "", False, 1.0)


def test_what_runs_is_not_resumed_and_not_touched(submitted: Path) -> None:
    before = {path.name: path.read_bytes() for path in submitted.iterdir()}
    with open(submitted / detached.STORE_LOCK, "w+b") as lock:
        lock.write(b"4711\n")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InvalidInput, match="--resume f-0001: its scheduler runs already, as process 4711"):
            detached.resume("f-0001", "b:2", "", False, 1.0)

    assert before.items() <= {path.name: path.read_bytes() for path in submitted.iterdir()}.items()


def test_two_who_resume_it_at_once_wait_for_each_other(submitted: Path) -> None:
    with open(submitted / "resume.lock", "w+b") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match=r"another `submit --resume f-0001` has not ended within 0\.1 s"):
            detached.resume("f-0001", "", "", False, 0.1)

    assert json.loads((submitted / "spec.json").read_text()) == WANTED


def test_one_service_is_applied_by_one_at_a_time(home: Path) -> None:
    with detached.service_lock("web", 1.0):
        told = "another `service apply` of 'web' on this host has not ended within"
        with pytest.raises(Unavailable, match=told), detached.service_lock("web", 0.1):
            pass
        with detached.service_lock("other", 0.1):
            pass
    with detached.service_lock("web", 0.1):
        assert home.stat().st_mode & 0o777 == 0o700
