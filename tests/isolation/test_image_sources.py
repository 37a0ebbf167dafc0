"""Images on disk: layouts and tarballs, whole and damaged."""

from __future__ import annotations

import gzip
import json
from contextlib import closing
from pathlib import Path

import pytest

from mesos_actor.actors.core.image_reference import parse_image_reference
from mesos_actor.isolation.fetch import Reader
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_manifest import Platform
from mesos_actor.isolation.image_source import ArchiveFiles, DirectoryFiles, LayoutSource, disk_source
from tests.isolation.image_files import (
    archive,
    blobs_of,
    docker_archive,
    index_json,
    link,
    member,
    sha,
    tar_of,
    write_layout,
)

LOWER, UPPER = archive(member("a", b"1")), archive(member("b", b"2"))


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", [LOWER, UPPER], Cmd=["sh"])


def diff_ids(name: str) -> tuple[str, ...]:
    source = disk_source(parse_image_reference(name))
    try:
        found = source.resolve()
        for layer in found.layers:
            with source.open(layer) as stream:
                content = stream.read(1 << 20)
            plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
            assert sha(plain) == layer.diff_id
        return tuple(layer.diff_id for layer in found.layers)
    finally:
        source.close()


@pytest.mark.parametrize("tag", ["", ":v1"])
def test_layout(layout: Path, tag: str) -> None:
    assert diff_ids(f"oci:{layout}{tag}") == (sha(LOWER), sha(UPPER))


@pytest.mark.parametrize("packed", [False, True])
def test_layout_in_a_tarball(layout: Path, tmp_path: Path, packed: bool) -> None:
    data = tar_of(layout)
    (tmp_path / "image.tar").write_bytes(gzip.compress(data) if packed else data)

    assert diff_ids(f"oci-archive:{tmp_path}/image.tar:v1") == (sha(LOWER), sha(UPPER))


@pytest.mark.parametrize("name", ["", ":app:1", ":app"])
def test_archive_of_docker_with_equal_layers(tmp_path: Path, name: str) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(docker_archive([LOWER, UPPER, LOWER], "app:1", "app:latest"))

    assert diff_ids(f"docker-archive:{path}{name}") == (sha(LOWER), sha(UPPER), sha(LOWER))


def resolve_error(name: str) -> str:
    with pytest.raises(ImageError) as caught, closing(disk_source(parse_image_reference(name))) as source:
        source.resolve()
    return str(caught.value)


def test_name_that_is_not_there_is_told_with_those_that_are(layout: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.tar"
    saved.write_bytes(docker_archive([LOWER], "app:1"))

    assert resolve_error(f"oci:{layout}:v2").endswith("no image is named 'v2'; it has v1")
    assert resolve_error(f"docker-archive:{saved}:other").endswith("no image is named 'other:latest'; it has app:1")
    assert "cannot open: No such file" in resolve_error(f"oci:{tmp_path}/nothing")
    assert "not a regular file" in resolve_error(f"oci-archive:{tmp_path}")


def test_file_that_the_user_may_not_read_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(docker_archive([LOWER]))
    path.chmod(0o600)

    with pytest.raises(ImageError, match="the task's user may not read it"):
        disk_source(parse_image_reference(f"docker-archive:{path}"), Reader(54_321, ()))


def test_damaged_blob_is_not_believed(layout: Path) -> None:
    manifest = next(p for p in (layout / "blobs" / "sha256").iterdir() if b"schemaVersion" in p.read_bytes())
    manifest.write_bytes(manifest.read_bytes() + b" ")

    assert "its digest is sha256:" in resolve_error(f"oci:{layout}")


def test_index_chooses_this_platform(tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", [LOWER])
    blobs = layout / "blobs" / "sha256"
    entries = []
    for architecture in ("s390x", "arm64"):
        manifest, found = blobs_of([LOWER], Env=[architecture])
        for digest, blob in found.items():
            (blobs / digest[7:]).write_bytes(blob)
        named = {"architecture": architecture, "os": "linux"}
        entries.append({"digest": sha(manifest), "size": len(manifest), "platform": named})
    nested = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    (blobs / sha(nested)[7:]).write_bytes(nested)
    (layout / "index.json").write_bytes(index_json(all=nested))

    def source(architecture: str) -> LayoutSource:
        return LayoutSource(DirectoryFiles(str(layout), None), "x", "all", Platform(architecture, "linux"))

    assert source("arm64").resolve().config.env == ("arm64",)
    with pytest.raises(ImageError, match="no image for linux/amd64; it has linux/arm64, linux/s390x"):
        source("amd64").resolve()


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("oci-layout", b"{}", "imageLayoutVersion is ''"),
        ("oci-layout", b"[1]", "is not what it should be"),
        ("index.json", b"{", "is not what it should be"),
        ("index.json", b'{"schemaVersion": 2, "manifests": []}', "0 images: say which"),
        ("index.json", b'{"schemaVersion": 2, "manifests": [{"digest": "sha256:../..", "size": 1}]}', "not a sha256"),
        ("index.json", b'{"schemaVersion": 2, "manifests": [{"digest": "md5:00", "size": 1}]}', "not a sha256"),
        ("index.json", b" " * (5 << 20), "has more than 4194304 bytes"),
    ],
)
def test_bad_layout(layout: Path, name: str, content: bytes, text: str) -> None:
    (layout / name).write_bytes(content)

    assert text in resolve_error(f"oci:{layout}")


def saved(tmp_path: Path, data: bytes) -> str:
    (tmp_path / "saved.tar").write_bytes(data)
    return f"docker-archive:{tmp_path}/saved.tar"


def test_bad_archives(tmp_path: Path) -> None:
    def named(manifest: str, *more: object) -> bytes:
        return archive(member("manifest.json", manifest.encode()), *more)  # type: ignore[arg-type]

    loop = named('[{"Config": "a", "Layers": []}]', link("a", "b"), link("b", "a"))
    assert "more than 8 links from a file" in resolve_error(saved(tmp_path, loop))
    outside = named('[{"Config": "a", "Layers": []}]', link("a", "/etc/passwd"))
    assert "it has no file 'a'" in resolve_error(saved(tmp_path, outside))
    assert "it has no file 'x'" in resolve_error(saved(tmp_path, named('[{"Config": "x", "Layers": []}]')))
    assert "1 layers, but its configuration knows 0" in resolve_error(
        saved(tmp_path, named('[{"Config": "c", "Layers": ["x"]}]', member("c", b"{}")))
    )
    assert "not what it should be" in resolve_error(saved(tmp_path, named('[{"Config": 1}]')))
    assert "it has no file 'manifest.json'" in resolve_error(saved(tmp_path, archive(member("x", b""))))
    cut = docker_archive([archive(member("a", b"1" * 5000))])[:4000]
    assert "it is cut off inside" in resolve_error(saved(tmp_path, cut))


def test_tarball_with_too_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesos_actor.isolation.image_source.MAX_ARCHIVE_FILES", 3)
    (tmp_path / "x.tar").write_bytes(archive(*(member(str(number), b"") for number in range(4))))

    with pytest.raises(ImageError, match="more than 3 files, the bound for one image"):
        ArchiveFiles(str(tmp_path / "x.tar"), None)


def test_other_schemas_are_refused_with_a_fix(layout: Path) -> None:
    old = b'{"schemaVersion": 1, "fsLayers": []}'
    (layout / "blobs" / "sha256" / sha(old)[7:]).write_bytes(old)
    (layout / "index.json").write_bytes(index_json(v1=old))

    assert "schemaVersion is 1; only 2 is supported: push the image again" in resolve_error(f"oci:{layout}")


def test_layers_that_lie_elsewhere_are_not_fetched(layout: Path) -> None:
    manifest, blobs = blobs_of([LOWER])
    document = json.loads(manifest)
    document["layers"][0]["urls"] = ["http://elsewhere/"]
    changed = json.dumps(document).encode()
    for digest, blob in {**blobs, sha(changed): changed}.items():
        (layout / "blobs" / "sha256" / digest[7:]).write_bytes(blob)
    (layout / "index.json").write_bytes(index_json(v1=changed))

    assert "lies elsewhere ('urls')" in resolve_error(f"oci:{layout}")
