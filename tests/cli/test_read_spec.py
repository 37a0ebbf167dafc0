"""Reading a batch or a service from a file."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from mesos_actor.actors.cli import detached
from mesos_actor.actors.errors import InvalidInput


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'name = "x"\n[[task]]\nname = "t"\n'),
        ("a.json", '{"name": "x", "task": [{"name": "t"}]}'),
        ("a.spec", ' {"name": "x", "task": [{"name": "t"}]}'),
        ("a.spec", 'name = "x"\ntask = [{name = "t"}]'),
    ],
)
def test_toml_and_json_mean_the_same(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)

    assert detached.read_spec(tmp_path / name) == {"name": "x", "task": [{"name": "t"}]}


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"name": "x"}')))

    assert detached.read_spec(Path("-")) == {"name": "x"}


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "cannot be read as TOML or JSON"), (b"{", "cannot be read"), (b"a = [", "cannot be read")],
)
def test_what_is_neither_is_named(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "bad").write_bytes(content)

    with pytest.raises(InvalidInput, match=words):
        detached.read_spec(tmp_path / "bad")


def test_a_file_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "MAX_SPEC_BYTES", 10)
    (tmp_path / "large.toml").write_text("a = 123456789")

    with pytest.raises(InvalidInput, match="larger than 10 bytes"):
        detached.read_spec(tmp_path / "large.toml")


def test_a_file_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detached, "MAX_SPEC_BYTES", 10)

    with pytest.raises(InvalidInput, match="/dev/zero: larger than 10 bytes"):
        detached.read_spec(Path("/dev/zero"))


def test_a_file_nested_too_deep_is_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)

    with pytest.raises(InvalidInput, match="cannot be read"):
        detached.read_spec(tmp_path / "deep.json")


@pytest.mark.parametrize("framework_id", ["no-such", "../../etc", "", ".", "a/b"])
def test_only_what_was_submitted_here_is_resumed(framework_id: str) -> None:
    with pytest.raises(InvalidInput, match="nothing with this id was submitted from here"):
        detached.resume(framework_id, "", "", False, 1.0)
