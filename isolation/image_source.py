"""Where an image comes from: what every source offers, and images on the agent's own disk.

Source: OCI image-spec image-layout.md; Docker's "Image Tarball" (manifest.json of `docker save`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import IO, Protocol

import msgspec

from mesos_actor.actors.core.image_reference import DOCKER_ARCHIVE, LAYOUT, ImageReference, is_digest
from mesos_actor.isolation.fetch import Reader
from mesos_actor.isolation.image_blob import Blob, Layer, checked_digest, digest_of, verified
from mesos_actor.isolation.image_error import ImageError, from_os_error
from mesos_actor.isolation.image_manifest import (
    MAX_INDEX_DEPTH,
    MAX_JSON_BYTES,
    MAX_LAYERS,
    REF_NAME,
    Descriptor,
    ImageConfig,
    Manifest,
    Platform,
    choose,
    decoded,
    own_platform,
    parse_config,
    parse_document,
)
from mesos_actor.isolation.image_tar import FILE, HARD_LINK, SYMLINK, Source, TarReader
from mesos_actor.isolation.image_unpack import UnpackLimits

MAX_ARCHIVE_FILES = 10_000
"""In the tarball of an image: a few for each layer."""
MAX_ARCHIVE_BYTES = 64 << 30
MAX_LINKS = 8
"""From one file of a tarball to another; older versions of Docker link equal layers."""


class LayerBlob(msgspec.Struct, frozen=True):
    """One layer as its source knows it."""

    diff_id: str
    name: str
    """The blob's digest, or the file's name in a tarball of Docker."""
    digest: str = ""
    size_bytes: int = -1


class Resolved(msgspec.Struct, frozen=True):
    """An image, found: everything but its layers' content."""

    image_id: str
    """The digest of its configuration, as for Docker."""
    config: ImageConfig
    layers: tuple[LayerBlob, ...]
    """Lowest first."""


class ImageSource(Protocol):
    """One image at its source. Every method may block, and raises ImageError."""

    def resolve(self) -> Resolved:
        """What the image is."""
        ...

    def open(self, layer: LayerBlob) -> AbstractContextManager[Source]:
        """The bytes of one of its layers, not yet verified."""
        ...

    def close(self) -> None:
        """Give back what is held."""


def resolved(config_json: bytes, layers: tuple[Descriptor, ...], what: str) -> Resolved:
    """An image of a manifest. Raises ImageError when its layers and its configuration do not fit together."""
    config = parse_config(config_json, what)
    if len(config.diff_ids) != len(layers):
        raise ImageError(f"{what}: {len(layers)} layers, but its configuration knows {len(config.diff_ids)}")
    for layer in layers:
        if layer.urls:
            raise ImageError(f"{what}: the layer {layer.digest} lies elsewhere ('urls'); such layers are not fetched")
    blobs = tuple(
        LayerBlob(diff_id, layer.digest, layer.digest, layer.size)
        for diff_id, layer in zip(config.diff_ids, layers, strict=True)
    )
    return Resolved(digest_of(config_json), config, blobs)


# -- files of an image on disk --------------------------------------------------------------------------------------


class Files(Protocol):
    """The files of a layout, by name."""

    def open(self, name: str) -> IO[bytes]: ...
    def close(self) -> None: ...


def open_regular(path: str, reader: Reader | None) -> IO[bytes]:
    """A file that `reader` could have opened itself. Raises ImageError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise from_os_error(f"{path}: cannot open", error) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ImageError(f"{path}: it is not a regular file")
    file = os.fdopen(descriptor, "rb")
    if reader is not None and not reader.may_read(descriptor):
        file.close()
        raise ImageError(f"{path}: the task's user may not read it")
    return file


class DirectoryFiles:
    """A directory. What it holds may be links: everything read is verified by digest, or judged as JSON."""

    def __init__(self, path: str, reader: Reader | None) -> None:
        self._path = path
        self._reader = reader

    def open(self, name: str) -> IO[bytes]:
        return open_regular(f"{self._path}/{name}", self._reader)

    def close(self) -> None:
        """Nothing is held."""


class ArchiveFiles:
    """A tarball, indexed once. One that is compressed is first written to a file of its own in `scratch`."""

    def __init__(self, path: str, reader: Reader | None, scratch: str | None = None) -> None:
        self._what = path
        self._file = _seekable(open_regular(path, reader), path, scratch)
        try:
            self._size_bytes = os.fstat(self._file.fileno()).st_size
            self._found = self._index()
        except BaseException:
            self._file.close()
            raise

    def _index(self) -> dict[str, tuple[int, int] | str]:
        """Name -> where its content is and how long, or the name that it is a link to."""
        found: dict[str, tuple[int, int] | str] = {}
        archive = TarReader(self._file, self._what)
        for number, entry in enumerate(archive):
            if number >= MAX_ARCHIVE_FILES:
                raise ImageError(f"{self._what}: more than {MAX_ARCHIVE_FILES} files, the bound for one image")
            name = os.path.normpath(entry.name)
            if entry.kind == FILE:
                found[name] = (archive.offset, entry.size_bytes)
                if archive.offset + entry.size_bytes > self._size_bytes:
                    raise ImageError(f"{self._what}: it is cut off inside {entry.name!r}")
                self._file.seek(archive.skip_content(), os.SEEK_SET)
            elif entry.kind == SYMLINK:
                found[name] = os.path.normpath(f"{os.path.dirname(name)}/{entry.link}".lstrip("/"))  # noqa: PTH120
            elif entry.kind == HARD_LINK:
                found[name] = os.path.normpath(entry.link)
        return found

    def open(self, name: str) -> IO[bytes]:
        at: tuple[int, int] | str | None = os.path.normpath(name)
        for _ in range(MAX_LINKS):
            if not isinstance(at, str):
                break
            at = self._found.get(at)
        if at is None:
            raise ImageError(f"{self._what}: it has no file {name[:200]!r}")
        if isinstance(at, str):
            raise ImageError(f"{self._what}: {name[:200]!r} is more than {MAX_LINKS} links from a file")
        return _Section(self._file.fileno(), *at)  # type: ignore[return-value]

    def close(self) -> None:
        self._file.close()


class _Section:
    """A part of an open file, read without moving that file's own position."""

    def __init__(self, descriptor: int, offset: int, size: int) -> None:
        self._descriptor = descriptor
        self._offset = offset
        self._end = offset + size

    def __enter__(self) -> _Section:
        return self

    def __exit__(self, *_: object) -> None:
        """The file stays open."""

    def read(self, size: int = -1, /) -> bytes:
        left = self._end - self._offset
        data = os.pread(self._descriptor, left if size < 0 else min(size, left), self._offset)
        self._offset += len(data)
        return data


def _seekable(file: IO[bytes], what: str, scratch: str | None) -> IO[bytes]:
    """The file itself if it is a plain tarball, else a nameless one with its unpacked content."""
    try:
        if file.peek(2)[:2] not in (b"\x1f\x8b", b"\x28\xb5"):  # type: ignore[attr-defined]
            file.seek(0)
            return file
        limits = UnpackLimits(max_bytes=MAX_ARCHIVE_BYTES, max_ratio=1_000)
        plain = Layer(Blob(file, what), what, f"sha256:{'0' * 64}", limits)
        copy = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115 - it is given away
        with contextlib.ExitStack() as undo:
            undo.callback(copy.close)
            while data := plain.read(1 << 20):
                copy.write(data)
            copy.seek(0)
            undo.pop_all()
    except OSError as error:
        raise from_os_error(what, error) from None
    file.close()
    return copy


def read_all(files: Files, name: str, what: str, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    """A small file. Raises ImageError."""
    with files.open(name) as file:
        try:
            data = file.read(max_bytes + 1)
        except OSError as error:
            raise from_os_error(f"{what}: {name}", error) from None
    if len(data) > max_bytes:
        raise ImageError(f"{what}: {name} has more than {max_bytes} bytes")
    return data


# -- the two layouts ------------------------------------------------------------------------------------------------


class _Index(msgspec.Struct, frozen=True, rename="camel"):
    schema_version: int
    manifests: list[Descriptor]


class LayoutSource:
    """An OCI layout: `oci-layout`, `index.json` and `blobs/`. `tag`: the name or the digest of one of its images."""

    def __init__(self, files: Files, what: str, tag: str = "", own: Platform | None = None) -> None:
        self._files = files
        self._what = what
        self._tag = tag
        self._own = own or own_platform()

    def resolve(self) -> Resolved:
        entry = self._named()
        for _ in range(MAX_INDEX_DEPTH):
            what = f"{self._what}: {entry.digest[:19]}"
            document = parse_document(self._blob(entry), what)
            if isinstance(document, Manifest):
                return resolved(self._blob(document.config), document.layers, what)
            entry = choose(document, self._own, what)
        raise ImageError(f"{self._what}: more than {MAX_INDEX_DEPTH} indexes inside each other")

    def _named(self) -> Descriptor:
        layout = decoded(read_all(self._files, "oci-layout", self._what), dict[str, str], f"{self._what}: oci-layout")
        version = layout.get("imageLayoutVersion", "")
        if not version.startswith("1."):
            raise ImageError(f"{self._what}: its imageLayoutVersion is {version!r}; 1.0.0 is known")
        index = decoded(read_all(self._files, "index.json", self._what), _Index, f"{self._what}: index.json")
        names = [entry.annotations.get(REF_NAME, "") for entry in index.manifests]
        if is_digest(self._tag):
            fitting = [entry for entry in index.manifests if entry.digest == self._tag]
        elif self._tag:
            fitting = [entry for entry, name in zip(index.manifests, names, strict=True) if name == self._tag]
        else:
            fitting = index.manifests
        if len(fitting) > 1 and self._tag:
            return choose(tuple(fitting), self._own, self._what)
        if len(fitting) != 1:
            has = ", ".join(sorted(filter(None, names))[:20]) or "none that has a name"
            wanted = (
                f"no image is named {self._tag!r}" if self._tag else f"{len(fitting)} images: say which after a ':'"
            )
            raise ImageError(f"{self._what}: {wanted}; it has {has}")
        checked_digest(fitting[0].digest, self._what)
        return fitting[0]

    def _blob(self, descriptor: Descriptor) -> bytes:
        return verified(read_all(self._files, _blob_name(descriptor.digest), self._what), descriptor.digest, self._what)

    @contextlib.contextmanager
    def open(self, layer: LayerBlob) -> Iterator[Source]:
        with self._files.open(_blob_name(layer.digest)) as file:
            yield file

    def close(self) -> None:
        self._files.close()


def _blob_name(digest: str) -> str:
    algorithm, _, number = digest.partition(":")
    return f"blobs/{algorithm}/{number}"


class _Saved(msgspec.Struct, frozen=True, rename="pascal"):
    config: str
    layers: list[str]
    repo_tags: list[str] | None = None


class DockerArchiveSource:
    """What `docker save` writes. `name`: which of its images, as `repository:tag`; empty: its only one."""

    def __init__(self, files: Files, what: str, name: str = "") -> None:
        self._files = files
        self._what = what
        self._name = name

    def resolve(self) -> Resolved:
        saved = decoded(read_all(self._files, "manifest.json", self._what), list[_Saved], self._what)
        wanted = [image for image in saved if not self._name or self._name in (image.repo_tags or ())]
        if len(wanted) != 1:
            has = ", ".join(sorted({tag for image in saved for tag in image.repo_tags or ()})[:20]) or "none named"
            problem = f"no image is named {self._name!r}" if self._name else f"{len(wanted)} images: say which"
            raise ImageError(f"{self._what}: {problem}; it has {has}")
        image = wanted[0]
        if len(image.layers) > MAX_LAYERS:
            raise ImageError(f"{self._what}: {len(image.layers)} layers; at most {MAX_LAYERS} are accepted")
        config_json = read_all(self._files, image.config, self._what)
        config = parse_config(config_json, f"{self._what}: {image.config}")
        if len(config.diff_ids) != len(image.layers):
            raise ImageError(
                f"{self._what}: {len(image.layers)} layers, but its configuration knows {len(config.diff_ids)}"
            )
        blobs = tuple(LayerBlob(*pair) for pair in zip(config.diff_ids, image.layers, strict=True))
        return Resolved(digest_of(config_json), config, blobs)

    @contextlib.contextmanager
    def open(self, layer: LayerBlob) -> Iterator[Source]:
        with self._files.open(layer.name) as file:
            yield file

    def close(self) -> None:
        self._files.close()


def disk_source(reference: ImageReference, reader: Reader | None = None, scratch: str | None = None) -> ImageSource:
    """The image on this host's disk that `reference` names. `reader`: whose rights decide what may be read."""
    what = f"image {str(reference)!r}"
    if reference.transport == LAYOUT:
        return LayoutSource(DirectoryFiles(reference.path, reader), what, reference.tag)
    files = ArchiveFiles(reference.path, reader, scratch)
    if reference.transport == DOCKER_ARCHIVE:
        return DockerArchiveSource(files, what, _saved_name(reference.tag))
    return LayoutSource(files, what, reference.tag)


def _saved_name(name: str) -> str:
    """As Docker writes it: with a tag always."""
    return f"{name}:latest" if name and ":" not in name.rpartition("/")[2] else name
