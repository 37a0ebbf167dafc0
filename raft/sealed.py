"""A whole file, or a blob on its way, under a checksum: a magic, a version, a CRC32 and a body.

Magic, version and checksum keep their places in every version to come, so damage is never taken for a newer release.
"""

from __future__ import annotations

import struct
import zlib

_HEAD = struct.Struct("<8sII")
"""Magic, version, checksum of the version's bytes and the body."""
_VERSION = struct.Struct("<I")
HEAD_BYTES = _HEAD.size


class Unusable(Exception):
    """Not a sealed blob of this kind; the text says what is wrong with it. Callers make one of their errors of it."""


class Newer(Unusable):
    """Undamaged, but of a version that this release does not know."""


def seal(magic: bytes, version: int, body: bytes) -> bytes:
    """The blob."""
    return _HEAD.pack(magic, version, zlib.crc32(body, zlib.crc32(_VERSION.pack(version)))) + body


def unseal(magic: bytes, version: int, blob: bytes | memoryview) -> memoryview:
    """The body, not copied. Raises Unusable, Newer when only the version is the matter."""
    if len(blob) < HEAD_BYTES:
        raise Unusable(f"it has {len(blob)} bytes, fewer than its head alone")
    found, its_version, checksum = _HEAD.unpack_from(blob)
    if found != magic:
        raise Unusable(f"it begins with {found!r}, expected {magic!r}")
    body = memoryview(blob)[HEAD_BYTES:]
    if zlib.crc32(body, zlib.crc32(_VERSION.pack(its_version))) != checksum:
        raise Unusable("its checksum is wrong")
    if its_version > version:
        raise Newer(f"it was written by a newer release (format {its_version}, this one knows {version})")
    return body
