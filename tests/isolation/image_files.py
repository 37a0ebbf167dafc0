"""Images made by the tests: tiny layers, layouts and archives."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mesos_actor.isolation.image_manifest import OCI_INDEX, OCI_MANIFEST, REF_NAME
from mesos_actor.isolation.image_tar import TarReader
from mesos_actor.isolation.image_unpack import Devices, LayerUnpacker, Unpacked, UnpackLimits

WHAT = "image 'test'"


def member(name: str, content: bytes | None = None, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    """An entry: a file with content, else a directory, unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode = 0o755 if content is None else 0o644
    info.size = len(content or b"")
    info.uid, info.gid, info.mtime = os.geteuid(), os.getegid(), 1_000
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content or b""


def link(name: str, to: str, hard: bool = False, **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=tarfile.LNKTYPE if hard else tarfile.SYMTYPE, linkname=to, **fields)


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def unpack(data: bytes, path: Path, **options: Any) -> Unpacked:
    limits = UnpackLimits(**options)
    path.mkdir(exist_ok=True)
    return LayerUnpacker(str(path), WHAT, limits, Devices.REFUSE, threading.Event()).run(
        TarReader(io.BytesIO(data), WHAT)
    )


def sha(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def config_json(layers: Sequence[bytes], **settings: Any) -> bytes:
    """Of an image with these plain layers."""
    diff_ids = [sha(layer) for layer in layers]
    document = {"os": "linux", "config": settings, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    return json.dumps(document).encode()


def manifest_json(config: bytes, blobs: Sequence[bytes]) -> bytes:
    return json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"digest": sha(config), "size": len(config)},
            "layers": [{"digest": sha(blob), "size": len(blob)} for blob in blobs],
        }
    ).encode()


def blobs_of(layers: Sequence[bytes], packed: bool = True, **settings: Any) -> tuple[bytes, dict[str, bytes]]:
    """A manifest, and all blobs by their digests."""
    blobs = [gzip.compress(layer, mtime=0) if packed else layer for layer in layers]
    config = config_json(layers, **settings)
    manifest = manifest_json(config, blobs)
    return manifest, {sha(blob): blob for blob in (*blobs, config, manifest)}


def index_json(**images: bytes) -> bytes:
    entries = [
        {"mediaType": OCI_MANIFEST, "digest": sha(data), "size": len(data), "annotations": {REF_NAME: name}}
        for name, data in images.items()
    ]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()


def write_layout(path: Path, layers: Sequence[bytes], tag: str = "v1", packed: bool = True, **settings: Any) -> Path:
    manifest, blobs = blobs_of(layers, packed, **settings)
    (path / "blobs" / "sha256").mkdir(parents=True)
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (path / "index.json").write_bytes(index_json(**{tag: manifest}))
    for digest, blob in blobs.items():
        (path / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(blob)
    return path


def tar_of(folder: Path) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        tar.add(folder, arcname=".")
    return out.getvalue()


def docker_archive(layers: Sequence[bytes], *names: str, **settings: Any) -> bytes:
    """As `docker save` up to version 24 writes it: equal layers are links."""
    config = config_json(layers, **settings)
    members = [member("config.json", config)]
    seen: dict[bytes, str] = {}
    paths = []
    for number, layer in enumerate(layers):
        path = f"{number}/layer.tar"
        paths.append(path)
        members.append(link(path, f"../{seen[layer]}") if layer in seen else member(path, layer))
        seen.setdefault(layer, path)
    saved = [{"Config": "config.json", "RepoTags": list(names), "Layers": paths}]
    return archive(*members, member("manifest.json", json.dumps(saved).encode()))


def tree_of(root: Path) -> dict[str, Any]:
    """Everything below: path -> (kind, mode, content or link); hard links of one file have the first path's name."""
    found: dict[str, Any] = {}
    names: dict[tuple[int, int], str] = {}
    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        stats = path.lstat()
        mode = stat.S_IMODE(stats.st_mode)
        if stat.S_ISLNK(stats.st_mode):
            found[name] = ("link", str(path.readlink()))
        elif stat.S_ISDIR(stats.st_mode):
            found[name] = ("directory", mode)
        elif stat.S_ISREG(stats.st_mode):
            first = names.setdefault((stats.st_dev, stats.st_ino), name)
            found[name] = ("file", mode, path.read_bytes(), first)
        else:
            found[name] = ("special", stat.S_IFMT(stats.st_mode), stats.st_rdev)
    return found
