"""Images on this host: layers by the digest of their content, each unpacked once, and who uses which.

    lock  unpack.lock        the first for moments, the second for as long as an unpacking takes; flock, so one work
                             directory's processes and threads exclude each other and a dead one excludes nobody
    layers/ALGORITHM-HEX/    fs/ (the files) and layer.json (what they do not tell, see image_unpack.Unpacked)
    s/NUMBER                 a short link to a layer's fs/: a mount's options have one page for all names
    images/HEX.json          configuration and layers; its time is the image's last use
    names/DIGEST.json        reference -> image
    holds/CONTAINER          the image that a container uses
    empty/                   for read-only overlays of one layer, which have two
    staging/                 whatever is not finished; emptied at each start

All that is there under its own name is whole: it was synced before it was renamed there.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec

from mesos_actor.isolation.image_blob import Blob, Layer, checked_digest
from mesos_actor.isolation.image_collect import ImageFacts, LayerFacts, to_remove
from mesos_actor.isolation.image_error import Cancelled, ImageError, from_os_error
from mesos_actor.isolation.image_manifest import ImageConfig
from mesos_actor.isolation.image_rootfs import EMPTY, RootfsPlan, StoredLayer
from mesos_actor.isolation.image_source import ImageSource, LayerBlob
from mesos_actor.isolation.image_tar import TarReader
from mesos_actor.isolation.image_unpack import Devices, LayerUnpacker, Unpacked, UnpackLimits
from mesos_actor.isolation.paths import directory_name

MAX_IMAGE_BYTES = 64 << 30
"""All layers of one image, unpacked."""
MAX_NAMES = 100_000
LOCK_PAUSE_S = 0.05
"""Between two tries for the lock of another unpacking."""
T = TypeVar("T")


class StoredImage(msgspec.Struct, frozen=True):
    """An image that is here, whole."""

    image_id: str
    config: ImageConfig
    layers: tuple[str, ...]
    """Diff ids, lowest first."""
    size_bytes: int


class _LayerRecord(msgspec.Struct, frozen=True):
    diff_id: str
    number: int
    unpacked: Unpacked


class _Name(msgspec.Struct, frozen=True):
    reference: str
    image_id: str


class Collected(msgspec.Struct, frozen=True):
    """What a collection did."""

    images: tuple[str, ...]
    freed_bytes: int
    left_bytes: int
    busy: bool = False
    """Somebody is unpacking: nothing was done."""


class ImageStore:
    """See the module's text. All methods may block for a disk, `add` for a network. Several threads may use it."""

    def __init__(
        self,
        root: Path,
        limits: UnpackLimits | None = None,
        devices: Devices = Devices.REFUSE,
        max_image_bytes: int = MAX_IMAGE_BYTES,
    ) -> None:
        self._root = root.absolute()
        self._limits = limits or UnpackLimits()
        self._devices = devices
        self._max_image_bytes = max_image_bytes

    def open(self) -> None:
        """Make what is missing and remove what a crash left. Raises ImageError."""
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._root.chmod(0o700)  # set-user-id files are inside: nobody else may come near
            for name in ("layers", "s", "images", "names", "holds", "staging", EMPTY):
                (self._root / name).mkdir(mode=0o700, exist_ok=True)
            with contextlib.suppress(Cancelled), self._unpacking(None), self._locked():
                for left in (self._root / "staging").iterdir():
                    _remove(left)
                for link in (self._root / "s").iterdir():
                    if not link.exists():
                        link.unlink()
        except OSError as error:
            raise from_os_error(f"image store {self._root}: cannot be used", error) from None

    # -- locks ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        descriptor = os.open(self._root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _unpacking(self, cancelled: threading.Event | None) -> Iterator[None]:
        """Alone among those that unpack or collect. `cancelled` None: do not wait. Raises Cancelled."""
        descriptor = os.open(self._root / "unpack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if cancelled is None or cancelled.wait(LOCK_PAUSE_S):
                        raise Cancelled("image store: another unpacking is going on") from None
            yield
        finally:
            os.close(descriptor)

    # -- finding ----------------------------------------------------------------------------------------------------

    def find(self, reference: str) -> StoredImage | None:
        """The image that was last stored under this name, if it is still here."""
        name = self._read(self._name_path(reference), _Name)
        return None if name is None or name.reference != reference else self.get(name.image_id)

    def get(self, image_id: str) -> StoredImage | None:
        """The image itself, if it and all its layers are here."""
        image = self._read(self._image_path(image_id), StoredImage)
        if image is None or any(self._layer(diff_id) is None for diff_id in image.layers):
            return None
        return image

    def _read(self, path: Path, kind: type[T]) -> T | None:
        """A record, or None when there is none that can be read: it is then made anew."""
        try:
            return msgspec.json.decode(path.read_bytes(), type=kind)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def _layer(self, diff_id: str) -> _LayerRecord | None:
        folder = self._layer_path(diff_id)
        record = self._read(folder / "layer.json", _LayerRecord)
        return record if record is not None and record.diff_id == diff_id and (folder / "fs").is_dir() else None

    def _layer_path(self, diff_id: str) -> Path:
        return self._root / "layers" / checked_digest(diff_id, "layer").replace(":", "-")

    def _image_path(self, image_id: str) -> Path:
        return self._root / "images" / f"{checked_digest(image_id, 'image').replace(':', '-')}.json"

    def _name_path(self, reference: str) -> Path:
        return self._root / "names" / f"{hashlib.sha256(reference.encode(errors='replace')).hexdigest()}.json"

    # -- adding -----------------------------------------------------------------------------------------------------

    def add(self, source: ImageSource, reference: str, cancelled: threading.Event | None = None) -> StoredImage:
        """Have the image of `source` here, under the name `reference`. Layers that are here already are not read.

        Raises ImageError; then all is as it was. Another `add` meanwhile is waited for.
        """
        cancelled = cancelled or threading.Event()
        try:
            found = source.resolve()
            with self._unpacking(cancelled), self._staging() as staging:
                new: dict[str, Unpacked] = {}
                size_bytes = 0
                for layer in found.layers:
                    known = self._layer(layer.diff_id)
                    if known is None and layer.diff_id not in new:
                        new[layer.diff_id] = self._unpack(source, layer, staging, reference, cancelled)
                    size_bytes += known.unpacked.size_bytes if known else new[layer.diff_id].size_bytes
                    if size_bytes > self._max_image_bytes:
                        raise ImageError(f"image {reference!r}: more than {self._max_image_bytes} bytes, the bound")
                diff_ids = tuple(layer.diff_id for layer in found.layers)
                image = StoredImage(found.image_id, found.config, diff_ids, size_bytes)
                with self._locked():
                    self._commit(staging, new, image, reference)
                return image
        except OSError as error:
            raise from_os_error(f"image {reference!r}", error) from None
        finally:
            source.close()

    @contextlib.contextmanager
    def _staging(self) -> Iterator[Path]:
        staging = Path(tempfile.mkdtemp(dir=self._root / "staging"))
        try:
            yield staging
        finally:
            _remove(staging)

    def _unpack(
        self, source: ImageSource, layer: LayerBlob, staging: Path, reference: str, cancelled: threading.Event
    ) -> Unpacked:
        what = f"image {reference!r}: layer {layer.diff_id[:19]}"
        files = staging / layer.diff_id.replace(":", "-") / "fs"
        files.mkdir(parents=True, mode=0o700)
        with source.open(layer) as stream:
            plain = Layer(Blob(stream, what, layer.digest, layer.size_bytes), what, layer.diff_id, self._limits)
            unpacked = LayerUnpacker(str(files), what, self._limits, self._devices, cancelled).run(
                TarReader(plain, what)
            )
            plain.finish()
        return unpacked

    def _commit(self, staging: Path, new: dict[str, Unpacked], image: StoredImage, reference: str) -> None:
        """Give everything its own name, in the order in which one needs the other."""
        if not self._name_path(reference).exists() and sum(1 for _ in (self._root / "names").iterdir()) >= MAX_NAMES:
            raise ImageError(f"image store {self._root}: {MAX_NAMES} names, its bound; collect what is not used")
        number = 0
        for link in (self._root / "s").iterdir():
            number = max(number, int(link.name))
            if link.readlink().parent.name.replace("-", ":", 1) in new:
                link.unlink()  # of a layer that was damaged
        for diff_id, unpacked in new.items():
            number += 1
            folder = staging / diff_id.replace(":", "-")
            record = _LayerRecord(diff_id, number, unpacked)
            (folder / "layer.json").write_bytes(msgspec.json.encode(record))
        _sync_file_system(staging)
        for diff_id in new:
            final = self._layer_path(diff_id)
            if final.exists():  # without a record that can be read
                final.rename(staging / f"damaged-{final.name}")
            (staging / final.name).rename(final)
            known = self._layer(diff_id)
            assert known is not None
            (self._root / "s" / str(known.number)).symlink_to(f"../layers/{final.name}/fs")
        _sync_directory(self._root / "layers")
        _sync_directory(self._root / "s")
        self._write(self._image_path(image.image_id), image, staging)
        self._write(self._name_path(reference), _Name(reference, image.image_id), staging)

    def _write(self, path: Path, record: msgspec.Struct, staging: Path) -> None:
        new = staging / path.name
        with new.open("wb") as file:
            file.write(msgspec.json.encode(record))
            file.flush()
            os.fsync(file.fileno())
        new.rename(path)
        _sync_directory(path.parent)

    # -- using ------------------------------------------------------------------------------------------------------

    def hold(self, image_id: str, container_id: str) -> RootfsPlan | None:
        """Keep the image from being collected until `release`, over restarts too. Returns what its root file system is
        made of, or None when it is not here (any more)."""
        with self._locked():
            image = self.get(image_id)
            if image is None:
                return None
            path = self._root / "holds" / directory_name("container_id", container_id)
            path.write_text(image_id)
            os.utime(self._image_path(image_id))
            return self._plan(image)

    def release(self, container_id: str) -> None:
        """The container is gone, and everything mounted from its image."""
        with self._locked():
            (self._root / "holds" / directory_name("container_id", container_id)).unlink(missing_ok=True)

    def release_others(self, container_ids: set[str]) -> None:
        """After a restart: these containers exist, and no others."""
        kept = {directory_name("container_id", container_id) for container_id in container_ids}
        with self._locked():
            for path in (self._root / "holds").iterdir():
                if path.name not in kept:
                    path.unlink()

    def _plan(self, image: StoredImage) -> RootfsPlan:
        layers = []
        for diff_id in image.layers:
            record = self._layer(diff_id)
            if record is None:
                raise ImageError(f"image {image.image_id}: its layer {diff_id} is not here")
            layers.append(StoredLayer(f"s/{record.number}", record.unpacked))
        return RootfsPlan(str(self._root), tuple(layers))

    # -- collecting -------------------------------------------------------------------------------------------------

    def collect(self, max_bytes: int) -> Collected:
        """Remove images, the one used longest ago first, until all take at most `max_bytes`; never one that is held.
        Layers that no image has go always. Does nothing while somebody unpacks."""
        try:
            with self._unpacking(None), self._staging() as staging, self._locked():
                return self._collect(max_bytes, staging)
        except Cancelled:
            with self._locked():
                return Collected((), 0, self._size_bytes(), busy=True)

    def _facts(self) -> tuple[list[ImageFacts], list[LayerFacts]]:
        held = {path.read_text() for path in (self._root / "holds").iterdir()}
        images = []
        for path in (self._root / "images").iterdir():
            image = self._read(path, StoredImage)
            if image is not None:
                used_ns = path.stat().st_mtime_ns
                images.append(ImageFacts(image.image_id, image.layers, used_ns, image.image_id in held))
            else:
                path.unlink()  # of an older version, or damaged: made anew when it is wanted
        layers = []
        for folder in (self._root / "layers").iterdir():
            record = self._read(folder / "layer.json", _LayerRecord)
            size_bytes = record.unpacked.size_bytes if record else 0
            layers.append(LayerFacts(folder.name.replace("-", ":", 1), size_bytes))
        return images, layers

    def _size_bytes(self) -> int:
        return sum(layer.size_bytes for layer in self._facts()[1])

    def _collect(self, max_bytes: int, staging: Path) -> Collected:
        images, layers = self._facts()
        gone, unused, freed_bytes = to_remove(images, layers, max_bytes)
        for image_id in gone:
            self._image_path(image_id).unlink()
        if gone:
            for path in (self._root / "names").iterdir():
                name = self._read(path, _Name)
                if name is None or name.image_id in gone:
                    path.unlink()
            _sync_directory(self._root / "images")
        for diff_id in unused:
            folder = self._layer_path(diff_id)
            record = self._read(folder / "layer.json", _LayerRecord)
            if record is not None:
                (self._root / "s" / str(record.number)).unlink(missing_ok=True)
            folder.rename(staging / folder.name)
        left_bytes = sum(layer.size_bytes for layer in layers) - freed_bytes
        return Collected(tuple(gone), freed_bytes, left_bytes)


def _remove(path: Path) -> None:
    """Remove what is ours, whatever is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file_system(path: Path) -> None:
    """One syncfs(2) for thousands of files, each of which would wait for the disk alone. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(descriptor)
