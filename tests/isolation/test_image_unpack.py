"""Layers unpacked: what is kept, and what is refused with nothing outside touched."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.isolation.image_error import Cancelled, ImageError
from mesos_actor.isolation.image_tar import TarReader
from mesos_actor.isolation.image_tree import is_whiteout
from mesos_actor.isolation.image_unpack import Devices, LayerUnpacker
from tests.isolation.image_files import WHAT, archive, link, member, tree_of, unpack


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The directory to unpack to, beside one that must stay as it is."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("kept")
    return tmp_path / "root"


def test_files_directories_and_links_are_what_the_archive_says(root: Path) -> None:
    data = archive(
        member("./"),
        member("bin/", mode=0o751),
        member("bin/su", b"program", mode=0o4755),
        link("bin/copy", "bin/su", hard=True),
        link("sh", "/bin/su"),
        member("empty", b""),
        member("pipe", type=tarfile.FIFOTYPE),
    )

    unpacked = unpack(data, root)

    assert tree_of(root) == {
        "bin": ("directory", 0o751),
        "bin/copy": ("file", 0o4755, b"program", "bin/copy"),
        "bin/su": ("file", 0o4755, b"program", "bin/copy"),
        "empty": ("file", 0o644, b"", "empty"),
        "pipe": ("special", stat.S_IFIFO, 0),
        "sh": ("link", "/bin/su"),
    }
    assert (unpacked.entries, unpacked.opaque, unpacked.implied, unpacked.skipped) == (7, (), (), {})
    assert unpacked.size_bytes == 8 * 4096 - 4096 + 4096
    assert (root / "bin").stat().st_mtime == 1_000


def test_whiteouts_hide_what_is_below_wherever_they_stand(root: Path) -> None:
    data = archive(
        member("new/"),
        member("new/.wh..wh..opq", b""),
        member("new/own", b"1"),
        member(".wh.old", b""),
        member("again", b"2"),
        member(".wh.again", b""),
        member("made/x", b"3"),
        member(".wh.made", b""),
        member(".wh..wh.plnk", b""),
    )

    unpacked = unpack(data, root)

    assert is_whiteout((root / "old").lstat())
    assert sorted(path.name for path in root.iterdir()) == ["again", "made", "new", "old"]
    assert (root / "new" / "own").read_bytes() == b"1"
    assert unpacked.opaque == ("made", "new")
    assert unpacked.implied == ("",)
    assert unpacked.skipped == {"AUFS metadata": 1}
    for sign in unpacked.opaque_xattrs:
        assert os.getxattr(root / "new", sign) == b"y"


def test_later_entry_of_a_name_wins(root: Path) -> None:
    data = archive(
        member("a", b"first"),
        member("a", b"second"),
        member("d/"),
        member("d/x/"),
        member("d/x/y", b""),
        member("d", b"file"),
        member("f", b""),
        member("f/", mode=0o700),
        member("e/", mode=0o700),
        member("e/kept", b""),
        member("e/", mode=0o711),
    )

    unpack(data, root)

    assert tree_of(root) == {
        "a": ("file", 0o644, b"second", "a"),
        "d": ("file", 0o644, b"file", "d"),
        "e": ("directory", 0o711),
        "e/kept": ("file", 0o644, b"", "e/kept"),
        "f": ("directory", 0o700),
    }


def test_link_in_the_way_of_a_link_is_replaced_not_followed(root: Path) -> None:
    unpack(archive(link("a", "../outside/secret"), member("a", b"mine")), root)

    assert (root / "a").read_bytes() == b"mine"
    assert (root.parent / "outside" / "secret").read_text() == "kept"


REFUSED: dict[str, tuple[bytes, str]] = {
    "absolute": (archive(member("/etc/passwd", b"x")), "entry '/etc/passwd': '/etc/passwd' is absolute"),
    "dots": (archive(member("a/../../outside/x", b"x")), "has a '..'"),
    "dots inside": (archive(member("a/"), member("a/../b", b"x")), "has a '..'"),
    "through a link": (
        archive(link("out", "../outside"), member("out/secret", b"x")),
        "entry 'out/secret': 'out' on its way is a link",
    ),
    "through an absolute link": (archive(link("etc", "/etc"), member("etc/x", b"x")), "'etc' on its way is a link"),
    "directory through a link": (archive(link("out", "../outside"), member("out/new/")), "on its way is a link"),
    "link through a link": (archive(link("out", ".."), link("out/x", "y")), "'out' on its way is a link"),
    "link in a loop": (archive(link("a", "b"), link("b", "a"), member("a/x", b"")), "'a' on its way is a link"),
    "hard link through a link": (
        archive(link("out", "../outside"), link("x", "out/secret", hard=True)),
        "entry 'x': 'out' on its way is a link",
    ),
    "hard link to outside": (archive(link("x", "../outside/secret", hard=True)), "has a '..'"),
    "absolute hard link": (archive(link("x", "/etc/passwd", hard=True)), "which this layer does not hold"),
    "hard link to nothing": (archive(link("x", "y", hard=True)), "hard link to 'y', which this layer does not hold"),
    "hard link to itself": (archive(member("x", b""), link("x", "x", hard=True)), "which cannot be"),
    "hard link to a directory": (archive(member("d/"), link("x", "d", hard=True)), "which cannot be"),
    "hard link into itself": (archive(member("d/"), member("d/f", b""), link("d", "d/f", hard=True)), "cannot be"),
    "below a file": (archive(member("a", b""), member("a/b", b"")), "'a' on its way is no directory"),
    "below a whiteout": (archive(member(".wh.a/b", b"")), "below a whiteout"),
    "whiteout of nothing": (archive(member(".wh.", b"")), "whiteout of no file"),
    "whiteout of dots": (archive(member("a/.wh...", b"")), "whiteout of no file"),
    "device": (archive(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)), "device node"),
    "disk": (archive(member("sda", type=tarfile.BLKTYPE, devmajor=8)), "device node"),
    "root is a file": (archive(member(".", b"x")), "the root must be a directory"),
    "name too long": (archive(member("x" * 300, b"")), "File name too long"),
    "link to nothing": (archive(link("x", "")), "a link to nothing"),
    "too deep": (archive(member("d/" * 101)), "more than 100 directories deep"),
    "unknown type": (archive(member("x", type=b"Z")), "unknown type b'Z'"),
    "sparse": (archive(member("x", type=tarfile.GNUTYPE_SPARSE)), "sparse file"),
    "sparse of PAX": (archive(member("x", b"", pax_headers={"GNU.sparse.major": "1"})), "sparse file"),
    "owner": (archive(member("x", b"", uid=1 << 40)), "uid 1099511627776"),
    "cut off": (archive(member("x", b"y" * 2000))[:1500], "cut off inside a file"),
    "header cut off": (archive(member("x", b"y"))[:100], "cut off inside a header"),
    "garbage": (b"garbage " * 200, "checksum"),
    "garbage later": (archive(member("x", b""))[:512] + b"garbage " * 200, "checksum is wrong|damaged"),
    "negative size": (archive(member("x", b"", pax_headers={"size": "-1"})), "claims -1 bytes"),
    "huge": (archive(member("x", b"", pax_headers={"size": str(1 << 45)})), "more than 17179869184 bytes"),
    "long PAX header": (archive(member("x", b"", pax_headers={"comment": "y" * (1 << 21)})), "take more than 1048576"),
    "long GNU name": (archive(member("x" * (1 << 21), b""), form=tarfile.GNU_FORMAT), "take more than 1048576"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_malicious_layer_is_refused_and_nothing_outside_is_touched(root: Path, name: str) -> None:
    data, text = REFUSED[name]

    with pytest.raises(ImageError, match=text) as caught:
        unpack(data, root)

    assert str(caught.value).startswith(f"{WHAT}: ")
    outside = root.parent / "outside"
    assert [(path.name, path.read_text(), path.stat().st_nlink) for path in outside.iterdir()] == [
        ("secret", "kept", 1)
    ]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_entries": 3}, "more than 3 entries, the bound for one layer"),
        ({"max_bytes": 10}, "entry 'c': with it, more than 10 bytes"),
    ],
)
def test_bounds(root: Path, options: dict[str, int], text: str) -> None:
    members = [member("d/"), member("a", b"12345"), member("b", b"12345"), member("c", b"1")]

    with pytest.raises(ImageError, match=text):
        unpack(archive(*members), root, **options)


def run(data: bytes, root: Path, devices: Devices, cancelled: threading.Event | None = None) -> Any:
    root.mkdir()
    return LayerUnpacker(str(root), WHAT, devices=devices, cancelled=cancelled).run(TarReader(io.BytesIO(data), WHAT))


def test_device_nodes_may_be_left_out(root: Path) -> None:
    data = archive(member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3), member("x", b""))

    assert run(data, root, Devices.SKIP).skipped == {"device nodes": 1}
    assert [path.name for path in root.iterdir()] == ["x"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device nodes")
def test_device_that_would_be_a_whiteout_is_refused_whoever_asks(root: Path) -> None:
    with pytest.raises(ImageError, match="the device 0:0 would hide"):
        run(archive(member("a", type=tarfile.CHRTYPE)), root, Devices.MAKE)


def test_cancelled_unpacking_stops(root: Path) -> None:
    cancelled = threading.Event()
    cancelled.set()

    with pytest.raises(Cancelled):
        run(archive(member("x", b"")), root, Devices.REFUSE, cancelled)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_owners_and_capabilities_are_kept_by_root(root: Path) -> None:
    capability = b"\x01\x00\x00\x02" + b"\x00\x20\x00\x00" + b"\x00" * 12
    headers = {"SCHILY.xattr.security.capability": capability.decode("latin1"), "SCHILY.xattr.trusted.x": "y"}
    owned = member("ping", b"", uid=1234, gid=70_000, pax_headers=headers)

    unpacked = unpack(archive(owned, link("l", "x", uid=5)), root)

    stats = (root / "ping").stat()
    assert (stats.st_uid, stats.st_gid, (root / "l").lstat().st_uid) == (1234, 70_000, 5)
    assert os.getxattr(root / "ping", "security.capability") == capability
    assert unpacked.skipped == {"extended attribute trusted.x": 1}


def test_tarfile_and_we_read_the_same_names_in_all_formats(root: Path) -> None:
    names = ["short", "a" * 99, "b" * 100, "d" * 150 + "/" + "e" * 90, "ü" * 60, "f/" * 80 + "g"]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        data = archive(*(member(name, name.encode()) for name in names), form=form)

        archived = TarReader(io.BytesIO(data), WHAT)
        assert [(entry.name, archived.read(1 << 20).decode()) for entry in archived] == [(name, name) for name in names]
