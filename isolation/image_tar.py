"""Reading tar archives that nobody vouches for: a stream in, one entry after the other out, in bounded memory.

The standard library's tarfile reads the headers of long names and of PAX records into memory whatever their size,
keeps every entry that it has seen, and takes a damaged header in the middle for the end. Here each of those is an
error. Sparse files are refused, as the image specification wishes (OCI image-spec layer.md: "Sparse files SHOULD NOT be
used").

Source: POSIX.1-2017 pax, GNU tar's manual ("Basic Tar Format").
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Protocol

import msgspec

from mesos_actor.isolation.image_error import ImageError

BLOCK_BYTES = 512
MAX_HEADER_BYTES = 1 << 20
"""Of a long name or of one entry's PAX records together (Go's archive/tar: 1 MiB)."""
MAX_FILE_BYTES = 1 << 62
MAX_ID = (1 << 32) - 2
"""The largest user or group id; the next means "none" to chown."""

FILE, HARD_LINK, SYMLINK, CHARACTER, BLOCK, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_KNOWN = {b"\0": FILE, b"7": FILE, **{kind.encode(): kind for kind in "0123456"}}
_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL, _SPARSE = b"L", b"K", b"x", b"g", b"S"
_XATTR = "SCHILY.xattr."


class Source(Protocol):
    """What can be read from front to back."""

    def read(self, size: int, /) -> bytes: ...


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One entry. Names are decoded as the file system's, so bytes that are no UTF-8 survive."""

    name: str
    kind: str
    size_bytes: int
    """Of the content that follows; 0 for all but files."""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_s: int = 0
    link: str = ""
    device: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[str, bytes], ...] = ()


class TarReader:
    """Iterate over the entries; between two of them, `read` gives the content of the last. Raises ImageError."""

    def __init__(self, source: Source, what: str) -> None:
        self._source = source
        self._what = what
        self._left_bytes = 0
        self._padding = 0
        #: Where the next byte is, from the beginning of the archive.
        self.offset = 0
        self._globals: dict[str, bytes] = {}

    def __iter__(self) -> Iterator[Entry]:
        while (entry := self.next()) is not None:
            yield entry

    def read(self, size: int) -> bytes:
        """At most `size` bytes of the content; empty at its end."""
        wanted = min(size, self._left_bytes)
        data = self._exactly(wanted, "a file")
        self._left_bytes -= wanted
        return data

    def skip_content(self) -> int:
        """Take the rest of the content for read: returns the offset to which the caller must move the source."""
        self.offset += self._left_bytes + self._padding
        self._left_bytes = self._padding = 0
        return self.offset

    def next(self) -> Entry | None:
        """The next entry, or None at the end-of-archive mark or where the stream ends between two entries."""
        self._skip()
        long: dict[str, bytes] = {}
        pax: dict[str, bytes] = {}
        spent = 0
        while True:
            header = self._header()
            if header is None:
                if long or pax:
                    raise self._error("it ends after a header for an entry that does not come")
                return None
            kind = header[156:157]
            if kind not in (_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL):
                return self._entry(header, kind, long, {**self._globals, **pax})
            size = self._number(header[124:136], "size")
            spent += size + BLOCK_BYTES
            if spent > MAX_HEADER_BYTES:
                raise self._error(f"the headers of one entry take more than {MAX_HEADER_BYTES} bytes")
            content = self._exactly(size, "a header")
            self._exactly(-size % BLOCK_BYTES, "a header")
            if kind in (_LONG_NAME, _LONG_LINK):
                long["path" if kind == _LONG_NAME else "linkpath"] = content.rstrip(b"\0")
            elif kind == _PAX:
                pax.update(self._records(content))
            else:
                self._globals.update(self._records(content))
                if sum(len(key) + len(value) for key, value in self._globals.items()) > MAX_HEADER_BYTES:
                    raise self._error(f"its global headers take more than {MAX_HEADER_BYTES} bytes")

    def _skip(self) -> None:
        """Read on past what is left of the content."""
        while self._left_bytes:
            self.read(1 << 20)
        self._exactly(self._padding, "a file")
        self._padding = 0

    def _exactly(self, size: int, where: str) -> bytes:
        parts = []
        missing = size
        while missing:
            data = self._source.read(missing)
            if not data:
                raise self._error(f"it is cut off inside {where}, at byte {self.offset}")
            self.offset += len(data)
            missing -= len(data)
            parts.append(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _header(self) -> bytes | None:
        first = self._source.read(BLOCK_BYTES)
        if not first:
            return None
        self.offset += len(first)
        header = first + self._exactly(BLOCK_BYTES - len(first), "a header")
        if not header.strip(b"\0"):
            return None
        told = self._number(header[148:156], "checksum")
        blank = header[:148] + b" " * 8 + header[156:]
        if told != sum(blank) and told != sum(blank) - 256 * sum(byte > 127 for byte in blank):
            raise self._error(f"the header before byte {self.offset} is damaged: its checksum is wrong")
        return header

    def _entry(self, header: bytes, kind: bytes, long: Mapping[str, bytes], pax: Mapping[str, bytes]) -> Entry:
        name = self._text(long.get("path") or pax.get("path") or _name_of(header))
        known = _KNOWN.get(kind)
        if kind == _SPARSE or any(key.startswith("GNU.sparse.") for key in pax):
            raise self._error(f"{name!r} is stored as a sparse file, which images must not hold")
        if known is None:
            raise self._error(f"{name!r} is of the unknown type {kind!r}")
        if known == FILE and kind != b"7" and name.endswith("/"):
            known = DIRECTORY  # before POSIX, a directory was a file with such a name
        size = self._decimal(pax["size"], "size") if "size" in pax else self._number(header[124:136], "size")
        if not 0 <= size <= MAX_FILE_BYTES:
            raise self._error(f"{name!r} claims {size} bytes")
        # A hard link's size is its file's in some archives, and no content follows (POSIX: ustar, "size").
        size = size if known == FILE else 0
        self._left_bytes = size
        self._padding = -size % BLOCK_BYTES
        mtime = self._decimal(pax["mtime"], "mtime") if "mtime" in pax else self._number(header[136:148], "mtime")
        device = (0, 0)
        if known in (CHARACTER, BLOCK):
            device = self._number(header[329:337], "devmajor"), self._number(header[337:345], "devminor")
        return Entry(
            name,
            known,
            size,
            self._number(header[100:108], "mode") & 0o7777,
            self._id(name, "uid", header[108:116], pax),
            self._id(name, "gid", header[116:124], pax),
            mtime,
            self._text(long.get("linkpath") or pax.get("linkpath") or header[157:257].partition(b"\0")[0]),
            device,
            tuple((key.removeprefix(_XATTR), value) for key, value in pax.items() if key.startswith(_XATTR)),
        )

    def _id(self, name: str, key: str, field: bytes, pax: Mapping[str, bytes]) -> int:
        number = self._decimal(pax[key], key) if key in pax else self._number(field, key)
        if not 0 <= number <= MAX_ID:
            raise self._error(f"{name!r} has {key} {number}, which is none")
        return number

    def _records(self, content: bytes) -> dict[str, bytes]:
        """PAX records: `LENGTH KEY=VALUE\\n`, the length counting itself."""
        found: dict[str, bytes] = {}
        position = 0
        while position < len(content):
            blank = content.find(b" ", position, position + 10)
            digits = content[position:blank]
            end = position + int(digits) if blank > 0 and digits.isdigit() else 0
            key, equals, value = content[blank + 1 : end - 1].partition(b"=")
            if not blank < end <= len(content) or content[end - 1 : end] != b"\n" or not equals or not key:
                raise self._error(f"a PAX header before byte {self.offset} is damaged")
            found[self._text(key)] = value
            position = end
        return found

    def _number(self, field: bytes, what: str) -> int:
        """An octal number, or a binary one marked by its first bit (GNU)."""
        if field[0] & 0x80:
            number = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
            if field[0] & 0x40:
                number -= 1 << (8 * len(field) - 1)
            return number
        digits = field.strip(b" \0").partition(b"\0")[0].strip()
        if any(digit not in b"01234567" for digit in digits):
            raise self._error(f"the header before byte {self.offset} is damaged: {what} is {field!r}")
        return int(digits or b"0", 8)

    def _decimal(self, value: bytes, what: str) -> int:
        """A decimal number, what is behind its point dropped."""
        whole = value.partition(b".")[0]
        if not 0 < len(whole.removeprefix(b"-")) < 20 or not whole.removeprefix(b"-").isdigit():
            raise self._error(f"a PAX header before byte {self.offset} is damaged: {what} is {value[:40]!r}")
        return int(whole)

    def _text(self, raw: bytes) -> str:
        if b"\0" in raw:
            raise self._error(f"a name before byte {self.offset} has a NUL character")
        return os.fsdecode(raw)

    def _error(self, text: str) -> ImageError:
        return ImageError(f"{self._what}: {text}")


def _name_of(header: bytes) -> bytes:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0]
    # Only POSIX' format has a prefix there; GNU's has times.
    return prefix + b"/" + name if prefix and header[257:263] == b"ustar\0" else name
