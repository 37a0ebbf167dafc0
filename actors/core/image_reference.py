"""Names of container images: where an image is, and which one.

    busybox                                  registry docker.io, repository library/busybox, tag latest
    registry.example:5000/team/app:1.2       another registry
    registry.example/team/app@sha256:<hex>   exactly this manifest, whatever the tag says today
    oci:/images/app[:TAG]                    an OCI layout's directory on the agent
    oci-archive:/images/app.tar[:TAG]        the same as a tarball
    docker-archive:/images/app.tar[:NAME]    what `docker save` writes

Source: distribution's reference/regexp.go for the first three, containers-transports(5) for the others.
"""

from __future__ import annotations

import re

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.base import Value

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_REFERENCE_LENGTH = 4_096
MAX_REPOSITORY_LENGTH = 255
"""Host and repository together (distribution: NameTotalLengthMax)."""

LAYOUT, LAYOUT_ARCHIVE, DOCKER_ARCHIVE, REGISTRY = "oci", "oci-archive", "docker-archive", "docker"
_ON_DISK = (LAYOUT, LAYOUT_ARCHIVE, DOCKER_ARCHIVE)

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::[0-9]{{1,5}})?", re.ASCII).fullmatch
_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", re.ASCII).fullmatch
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII).fullmatch
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}", re.ASCII).fullmatch


class ImageReference(Value, frozen=True):
    """One image's name, taken apart. `str` gives it back in full."""

    transport: str
    """`docker` (a registry), `oci`, `oci-archive` or `docker-archive`."""
    registry: str = ""
    repository: str = ""
    tag: str = ""
    """Empty: none was given to an image on disk, which must then hold one alone; or a digest says which."""
    digest: str = ""
    path: str = ""
    """The absolute path of an image on the agent's own disk."""

    @property
    def is_on_disk(self) -> bool:
        return self.transport in _ON_DISK

    def __str__(self) -> str:
        if self.is_on_disk:
            return f"{self.transport}:{self.path}" + (f":{self.tag}" if self.tag else "")
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.registry}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def is_digest(text: str) -> bool:
    """Whether this is a digest that can be verified: `sha256:` or `sha512:` and its hexadecimal digits."""
    return _DIGEST(text) is not None


def parse_image_reference(text: str) -> ImageReference:
    """What `text` names. Raises InvalidInput naming the part that cannot be used, and the fix."""
    if not text or len(text) > MAX_REFERENCE_LENGTH or "\0" in text or not text.isprintable():
        raise InvalidInput(f"image: {text[:80]!r} is not an image's name; give e.g. 'busybox:1.36' or 'oci:/path:TAG'")
    transport, colon, rest = text.partition(":")
    if colon and transport in _ON_DISK:
        return _on_disk(text, transport, rest)
    return _in_registry(text, text.removeprefix("docker://"))


def _on_disk(text: str, transport: str, rest: str) -> ImageReference:
    path, _, tag = rest.partition(":")
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidInput(
            f"image: {text!r}: '{transport}:' is followed by an absolute path without '..', not {path!r}"
        )
    if transport == DOCKER_ARCHIVE and tag:
        named = _in_registry(text, tag)
        if named.digest:
            raise InvalidInput(f"image: {text!r}: an archive of docker knows names, not digests; give NAME:TAG")
    elif tag and not _TAG(tag) and not is_digest(tag):
        raise InvalidInput(f"image: {text!r}: {tag!r} is not a tag: letters, digits, '_', '.', '-', at most 128")
    return ImageReference(transport, tag=tag, path=path)


def _in_registry(text: str, rest: str) -> ImageReference:
    name, at, digest = rest.partition("@")
    if at and not is_digest(digest):
        raise InvalidInput(f"image: {text!r}: {digest!r} is not a digest: give sha256: and 64 hexadecimal digits")
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and not _TAG(tag):
        raise InvalidInput(f"image: {text!r}: {tag!r} is not a tag: letters, digits, '_', '.', '-', at most 128")
    path = head + slash + last
    first, slash, below = path.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        registry, repository = first, below
    else:
        registry, repository = DEFAULT_REGISTRY, path if slash else f"library/{path}"
    if not _HOST(registry):
        raise InvalidInput(f"image: {text!r}: {registry!r} is not a registry's HOST or HOST:PORT")
    for component in repository.split("/"):
        if not _COMPONENT(component):
            raise InvalidInput(
                f"image: {text!r}: {component!r} cannot be part of a repository's name: lower-case letters and digits,"
                " parted by '.', '_', '__' or '-'"
            )
    if len(registry) + len(repository) >= MAX_REPOSITORY_LENGTH:
        raise InvalidInput(f"image: the name {path[:40]!r}... has more than {MAX_REPOSITORY_LENGTH} characters")
    if not tag and not digest:
        tag = DEFAULT_TAG
    return ImageReference(REGISTRY, registry, repository, tag, digest)
