"""Files reach the sandbox whole, and nothing else is ever written."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mesos_actor.actors.messages.values import Uri
from mesos_actor.isolation import fetch as fetching
from mesos_actor.isolation.fetch import FetchError, Reader, fetch

Archive = Callable[[tarfile.TarFile], None]


@pytest.fixture
def sandbox(tmp_path: Path) -> Path:
    path = tmp_path / "sandbox"
    path.mkdir()
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in put.txt"
    path.write_text("content")
    path.chmod(0o640)
    return path


def get(sandbox: Path, *uris: Uri) -> None:
    fetch(uris, str(sandbox), threading.Event())


def tar(path: Path, *members: tuple[str, bytes | str | None], kind: bytes = tarfile.SYMTYPE) -> Uri:
    """An archive of (name, bytes: file, str: link to that, None: directory)."""
    with tarfile.open(path, "w:gz" if path.name.endswith("gz") else "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
                info.mode = 0o755
                archive.addfile(info, io.BytesIO(content))
            else:
                info.type = tarfile.DIRTYPE if content is None else kind
                info.linkname = content or ""
                archive.addfile(info)
    return Uri(str(path), extract=True)


@pytest.mark.parametrize("form", ["{}", "file://{}", "file://localhost{}"])
def test_file_is_copied(sandbox: Path, source: Path, form: str) -> None:
    path = str(source) if form == "{}" else str(source).replace(" ", "%20")
    get(sandbox, Uri(form.format(path)))

    assert (sandbox / "in put.txt").read_text() == "content"
    assert stat.S_IMODE((sandbox / "in put.txt").stat().st_mode) == 0o644


def test_name_and_mode_can_be_chosen(sandbox: Path, source: Path) -> None:
    get(sandbox, Uri(str(source), output_file="deep/down/tool", executable=True))

    assert stat.S_IMODE((sandbox / "deep/down/tool").stat().st_mode) == 0o755


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        (Uri("relative"), "expected an absolute path"),
        (Uri(""), "expected an absolute path"),
        (Uri("http://x/y"), "only absolute paths and file:// URLs"),
        (Uri("file://elsewhere/y"), "'localhost'"),
        (Uri("/no/such/file"), "No such file"),
        (Uri("/dev/null"), "not a regular file"),
        (Uri("/etc"), "not a regular file"),
        (Uri("/etc/hostname", output_file="../x"), "without '..'"),
        (Uri("/etc/hostname", output_file="/x"), "relative path"),
        (Uri("/etc/hostname", output_file="stdout"), "not a name for a file of yours"),
        (Uri("/etc/hostname", extract=True), "must end in one of .tar"),
    ],
)
def test_what_cannot_be_had_is_told_by_name(sandbox: Path, uri: Uri, text: str) -> None:
    with pytest.raises(FetchError, match=text) as caught:
        get(sandbox, uri)

    assert repr(uri.path) in str(caught.value)
    assert list(sandbox.iterdir()) == []


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
def test_archive_is_unpacked(sandbox: Path, tmp_path: Path, name: str) -> None:
    uri = tar(tmp_path / name, ("d", None), ("d/tool", b"#!"), ("d/link", "tool"), ("./e/f", b"x"))
    get(sandbox, uri)

    assert (sandbox / "d/link").read_bytes() == b"#!"
    assert os.access(sandbox / "d/tool", os.X_OK)
    assert (sandbox / "e/f").read_bytes() == b"x"


def test_hard_link_in_an_archive_is_a_copy(sandbox: Path, tmp_path: Path) -> None:
    get(sandbox, tar(tmp_path / "a.tar", ("f", b"x"), ("g", "f"), kind=tarfile.LNKTYPE))

    assert (sandbox / "g").read_bytes() == b"x"


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        ([("../out", b"x")], tarfile.SYMTYPE),
        ([("/out", b"x")], tarfile.SYMTYPE),
        ([("a/../../out", b"x")], tarfile.SYMTYPE),
        ([("l", "/etc")], tarfile.SYMTYPE),
        ([("l", "../..")], tarfile.SYMTYPE),
        ([("a/b/s", "../.."), ("y", "a/b/s/../..")], tarfile.SYMTYPE),
        ([("l", "/etc/hostname")], tarfile.LNKTYPE),
        ([("l", "d"), ("d", None), ("l/x", b"x"), ("stdout", b"x")], tarfile.SYMTYPE),
        ([("stdout", "x")], tarfile.SYMTYPE),
        ([("pipe", "x")], tarfile.FIFOTYPE),
        ([("disk", "x")], tarfile.BLKTYPE),
    ],
)
def test_hostile_archive_is_refused_and_writes_nothing_outside(
    sandbox: Path, tmp_path: Path, members: list[tuple[str, bytes | str | None]], kind: bytes
) -> None:
    uri = tar(tmp_path / "a.tar", *members, kind=kind)
    before = sorted(tmp_path.iterdir())

    with pytest.raises(FetchError):
        get(sandbox, uri)

    assert sorted(tmp_path.iterdir()) == before
    assert not (tmp_path / "out").exists()


def test_link_left_by_one_archive_is_not_followed_by_the_next(sandbox: Path, tmp_path: Path) -> None:
    (sandbox / "way").symlink_to(tmp_path)

    with pytest.raises(FetchError):
        get(sandbox, tar(tmp_path / "a.tar", ("way/out", b"x")))
    assert not (tmp_path / "out").exists()


def test_zip_is_unpacked_and_its_escapes_refused(sandbox: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("d/f", "x")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("../out", "x")
    get(sandbox, Uri(str(tmp_path / "a.zip"), extract=True, output_file="below"))

    assert (sandbox / "below/d/f").read_text() == "x"
    with pytest.raises(FetchError, match=r"without '\.\.'"):
        get(sandbox, Uri(str(tmp_path / "b.zip"), extract=True))


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tar.bz2", "a.tar.xz", "a.zip"])
@pytest.mark.parametrize("content", [b"", b"rubbish" * 200])
def test_damaged_archive_is_told(sandbox: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FetchError, match="uri"):
        get(sandbox, Uri(str(tmp_path / name), extract=True))


def test_bounds(sandbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 10)
    with pytest.raises(FetchError, match="more than 10 bytes"):
        get(sandbox, tar(tmp_path / "a.tar", ("f", b"x" * 6), ("g", b"x" * 6)))
    monkeypatch.setattr(fetching, "MAX_MEMBERS", 1)
    with pytest.raises(FetchError, match="more than 1 members"):
        get(sandbox, tar(tmp_path / "b.tar", ("f", b"x"), ("g", b"x")))


def test_cancelled_fetch_stops(sandbox: Path, source: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(FetchError, match="cancelled"):
        fetch([Uri(str(source))], str(sandbox), cancelled)


def test_reader_has_the_rights_of_its_user_only(tmp_path: Path, source: Path) -> None:
    nobody = Reader(65_534, [65_534])
    tmp_path.chmod(0o700)
    source.chmod(0o644)

    def may(reader: Reader, path: Path) -> bool:
        with path.open("rb") as opened:
            return reader.may_read(opened.fileno())

    assert not may(nobody, source)
    assert may(Reader(os.getuid(), [os.getgid()]), source)
    assert may(nobody, Path("/etc/passwd"))
    assert not may(nobody, Path("/etc/shadow"))
