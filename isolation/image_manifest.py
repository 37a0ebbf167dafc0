"""What manifests, indexes and configurations say. Pure: bytes in, checked values out, ImageError for all that is wrong.

Source: OCI image-spec manifest.md, image-index.md, config.md; Docker's "Image Manifest Version 2, Schema 2".
"""

from __future__ import annotations

import platform
from typing import TypeVar

import msgspec

from mesos_actor.isolation.image_blob import checked_digest
from mesos_actor.isolation.image_error import ImageError

MAX_JSON_BYTES = 4 << 20
"""Of a manifest, an index or a configuration (registries accept manifests up to 4 MiB)."""
MAX_LAYERS = 127
"""Of one image, Docker's own bound; overlayfs takes 500."""
MAX_INDEX_DEPTH = 4
MAX_INDEX_ENTRIES = 10_000
MAX_ENV = 10_000

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEXES, MANIFESTS = (OCI_INDEX, DOCKER_LIST), (OCI_MANIFEST, DOCKER_MANIFEST)
REF_NAME = "org.opencontainers.image.ref.name"

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386", "ppc64le": "ppc64le"}
T = TypeVar("T")


class Platform(msgspec.Struct, frozen=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    """Another blob: what it is, its digest, its size in bytes."""

    digest: str
    size: int
    media_type: str = ""
    platform: Platform | None = None
    annotations: dict[str, str] = {}
    urls: list[str] = []


class _Document(msgspec.Struct, frozen=True, rename="camel"):
    """An index or a manifest: whichever of its fields are there."""

    schema_version: int = 0
    media_type: str = ""
    manifests: list[Descriptor] | None = None
    config: Descriptor | None = None
    layers: list[Descriptor] | None = None


class Manifest(msgspec.Struct, frozen=True):
    config: Descriptor
    layers: tuple[Descriptor, ...]


class ImageConfig(msgspec.Struct, frozen=True):
    """How an image wishes to be run. None and empty are the same, as for Docker."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    stop_signal: str = ""
    diff_ids: tuple[str, ...] = ()
    """Digests of the layers' plain archives, lowest first."""
    architecture: str = ""


class _Settings(msgspec.Struct, frozen=True, rename="pascal"):
    entrypoint: list[str] | None = None
    cmd: list[str] | None = None
    env: list[str] | None = None
    working_dir: str | None = None
    user: str | None = None
    stop_signal: str | None = None


class _RootFs(msgspec.Struct, frozen=True):
    type: str = "layers"
    diff_ids: list[str] | None = None


class _Config(msgspec.Struct, frozen=True):
    config: _Settings | None = None
    rootfs: _RootFs = _RootFs()
    architecture: str = ""
    os: str = ""


def decoded(data: bytes, kind: type[T], what: str) -> T:
    """`data`, JSON, as `kind`. Raises ImageError."""
    if len(data) > MAX_JSON_BYTES:
        raise ImageError(f"{what}: more than {MAX_JSON_BYTES} bytes")
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ImageError(f"{what}: it is not what it should be: {error}") from None


def own_platform() -> Platform:
    """This host's, in Go's words."""
    machine = platform.machine()
    return Platform(_MACHINES.get(machine, machine), "linux")


def parse_document(data: bytes, what: str) -> Manifest | tuple[Descriptor, ...]:
    """A manifest, or the entries of an index. Raises ImageError."""
    document = decoded(data, _Document, what)
    if document.schema_version != 2:
        raise ImageError(
            f"{what}: schemaVersion is {document.schema_version}; only 2 is supported: push the image again"
        )
    if document.manifests is not None:
        if document.media_type and document.media_type not in INDEXES:
            raise ImageError(f"{what}: an index of the unknown type {document.media_type!r}")
        if len(document.manifests) > MAX_INDEX_ENTRIES:
            raise ImageError(f"{what}: more than {MAX_INDEX_ENTRIES} entries")
        return tuple(_checked(entry, what) for entry in document.manifests)
    if document.config is None or document.layers is None:
        raise ImageError(f"{what}: it is neither an index nor a manifest: 'config' or 'layers' is missing")
    if document.media_type and document.media_type not in MANIFESTS:
        raise ImageError(f"{what}: a manifest of the unknown type {document.media_type!r}")
    if len(document.layers) > MAX_LAYERS:
        raise ImageError(f"{what}: {len(document.layers)} layers; at most {MAX_LAYERS} are accepted")
    config = _checked(document.config, what)
    if config.size > MAX_JSON_BYTES:
        raise ImageError(f"{what}: its configuration has {config.size} bytes, more than {MAX_JSON_BYTES}")
    return Manifest(config, tuple(_checked(layer, what) for layer in document.layers))


def _checked(descriptor: Descriptor, what: str) -> Descriptor:
    checked_digest(descriptor.digest, what)
    if descriptor.size < 0:
        raise ImageError(f"{what}: the size of {descriptor.digest} is {descriptor.size}")
    return descriptor


def choose(entries: tuple[Descriptor, ...], own: Platform, what: str) -> Descriptor:
    """The first entry for this platform; one that names none fits all. Raises ImageError saying which there are."""
    fitting = [e for e in entries if e.media_type in ("", *INDEXES, *MANIFESTS)]
    for entry in fitting:
        named = entry.platform
        if named is None or (named.architecture, named.os) == (own.architecture, own.os):
            return entry
    known = sorted({f"{e.platform.os}/{e.platform.architecture}" for e in fitting if e.platform is not None})
    raise ImageError(f"{what}: no image for {own.os}/{own.architecture}; it has {', '.join(known[:20]) or 'none'}")


def parse_config(data: bytes, what: str) -> ImageConfig:
    """Raises ImageError for a configuration that does not describe a Linux image."""
    config = decoded(data, _Config, what)
    if config.os not in ("", "linux"):
        raise ImageError(f"{what}: the image is for {config.os!r}, not for linux")
    diff_ids = config.rootfs.diff_ids or []
    if len(diff_ids) > MAX_LAYERS:
        raise ImageError(f"{what}: {len(diff_ids)} layers; at most {MAX_LAYERS} are accepted")
    settings = config.config or _Settings()
    for field, values in (("Entrypoint", settings.entrypoint), ("Cmd", settings.cmd), ("Env", settings.env)):
        if values and (len(values) > MAX_ENV or any("\0" in value for value in values)):
            raise ImageError(f"{what}: {field} has more than {MAX_ENV} items or a NUL character")
    return ImageConfig(
        tuple(settings.entrypoint or ()),
        tuple(settings.cmd or ()),
        tuple(settings.env or ()),
        settings.working_dir or "",
        settings.user or "",
        settings.stop_signal or "",
        tuple(checked_digest(diff_id, what) for diff_id in diff_ids),
        config.architecture,
    )
