"""Bytes of an image on their way in: counted, bounded, hashed, unpacked, and believed only at their end."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from typing import IO, cast

import zstandard

from mesos_actor.actors.core.image_reference import is_digest
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_tar import Source
from mesos_actor.isolation.image_unpack import UnpackLimits

MAX_WINDOW_BYTES = 1 << 27
"""Memory that a zstd frame may ask for: 128 MiB, its command line's own bound."""

MAX_PADDING_BYTES = 1 << 26
"""Zeros after the end of a layer's archive."""

_CHUNK_BYTES = 1 << 16
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_OTHERS = {b"BZh": "bzip2", b"\xfd7zXZ": "xz"}


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def verified(data: bytes, digest: str, what: str) -> bytes:
    """`data`, when its digest is this one. Raises ImageError."""
    algorithm = checked_digest(digest, what).partition(":")[0]
    found = f"{algorithm}:{hashlib.new(algorithm, data).hexdigest()}"
    if found != digest:
        raise ImageError(f"{what}: its digest is {found}, not {digest} as promised")
    return data


def checked_digest(digest: str, what: str) -> str:
    """`digest`, when it is one that can be verified. It is a safe file name but for its colon. Raises ImageError."""
    if not is_digest(digest):
        raise ImageError(f"{what}: {digest[:80]!r} is not a sha256 or sha512 digest")
    return digest


class Blob:
    """A stream that must have this digest and this size; `digest` empty or `size_bytes` -1: nobody has promised."""

    def __init__(self, source: Source, what: str, digest: str = "", size_bytes: int = -1) -> None:
        self._source = source
        self._what = what
        self._digest = checked_digest(digest, what) if digest else ""
        self._size_bytes = size_bytes
        self._hash = hashlib.new(self._digest.partition(":")[0] or "sha256")
        self._ahead = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        """The next bytes, which the next `read` gives again."""
        while len(self._ahead) < size and (data := self._read(size - len(self._ahead))):
            self._ahead += data
        return self._ahead[:size]

    def read(self, size: int = -1, /) -> bytes:
        wanted = _CHUNK_BYTES if size < 0 else size
        if self._ahead:
            data, self._ahead = self._ahead[:wanted], self._ahead[wanted:]
            return data
        return self._read(wanted)

    def _read(self, size: int) -> bytes:
        data = self._source.read(size)
        self.count += len(data)
        if 0 <= self._size_bytes < self.count:
            raise ImageError(f"{self._what}: it is longer than the {self._size_bytes} bytes promised")
        if self._digest:
            self._hash.update(data)
        return data

    def finish(self) -> None:
        """Read what is left. Raises ImageError unless all was as promised."""
        while self.read(_CHUNK_BYTES):
            pass
        if self.count < self._size_bytes:
            raise ImageError(f"{self._what}: it is cut off: {self.count} bytes, not the {self._size_bytes} promised")
        found = f"{self._digest.partition(':')[0]}:{self._hash.hexdigest()}"
        if self._digest and found != self._digest:
            raise ImageError(f"{self._what}: its digest is {found}, not {self._digest} as promised")


class Layer:
    """A layer's blob unpacked as it is read: gzip, zstd or plain, told apart by its first bytes as Docker does."""

    def __init__(self, blob: Blob, what: str, diff_id: str, limits: UnpackLimits) -> None:
        self._blob = blob
        self._what = what
        self._limits = limits
        self._diff_id = checked_digest(diff_id, what)
        self._hash = hashlib.new(diff_id.partition(":")[0])
        self._plain = _plain(blob, what)
        self.count = 0

    def read(self, size: int, /) -> bytes:
        try:
            data = self._plain.read(size)
        except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
            raise ImageError(f"{self._what}: the compressed data is damaged or cut off: {error}") from None
        self.count += len(data)
        self._hash.update(data)
        # Headers and padding are not content; a layer at its bound has some.
        if self.count > self._limits.max_bytes + self._limits.max_entries * 1024 + MAX_PADDING_BYTES:
            raise ImageError(f"{self._what}: more than {self._limits.max_bytes} bytes, the bound for one layer")
        packed = max(1, self._blob.count)
        if self.count > self._limits.ratio_floor_bytes and self.count > packed * self._limits.max_ratio:
            raise ImageError(
                f"{self._what}: {packed} bytes unpack to more than {self.count}: past {self._limits.max_ratio} to 1 it"
                " is taken for a bomb"
            )
        return data

    def finish(self) -> None:
        """Read what is left, padding. Raises ImageError unless the content is the one promised."""
        left_bytes = MAX_PADDING_BYTES
        while data := self.read(_CHUNK_BYTES):
            left_bytes -= len(data)
            if left_bytes < 0:
                raise ImageError(f"{self._what}: more than {MAX_PADDING_BYTES} bytes follow the end of its archive")
        found = f"{self._diff_id.partition(':')[0]}:{self._hash.hexdigest()}"
        if found != self._diff_id:
            raise ImageError(f"{self._what}: its content's digest is {found}, not {self._diff_id} as promised")
        self._blob.finish()


def _plain(blob: Blob, what: str) -> Source:
    first = blob.peek(6)
    if first.startswith(_GZIP):
        return gzip.GzipFile(fileobj=cast("IO[bytes]", blob))
    if first.startswith(_ZSTD):
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES)
        return unpacker.stream_reader(cast("IO[bytes]", blob), read_across_frames=True, closefd=False)
    for magic, name in _OTHERS.items():
        if first.startswith(magic):
            raise ImageError(f"{what}: it is compressed by {name}; layers are plain, gzip or zstd")
    return blob
