"""The store: each layer once, nothing half, nothing removed that is in use."""

from __future__ import annotations

import gzip
import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
import zstandard

from mesos_actor.actors.core.image_reference import parse_image_reference
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation.image_blob import Blob
from mesos_actor.isolation.image_collect import ImageFacts, LayerFacts, to_remove
from mesos_actor.isolation.image_error import Cancelled, ImageError
from mesos_actor.isolation.image_manifest import ImageConfig
from mesos_actor.isolation.image_rootfs import copy_rootfs
from mesos_actor.isolation.image_source import LayerBlob, Resolved, disk_source
from mesos_actor.isolation.image_store import ImageStore, StoredImage
from mesos_actor.isolation.image_unpack import UnpackLimits
from tests.isolation.image_files import archive, docker_archive, member, sha, tree_of, write_layout

BASE, UPPER = archive(member("a", b"1"), member("b", b"2")), archive(member("b", b"3"), member(".wh.a", b""))
OTHER = archive(member("c", b"4"))


class MemorySource:
    """Layers in memory, and how often each was read."""

    def __init__(self, *layers: bytes, blobs: dict[bytes, bytes] | None = None, **changed: Any) -> None:
        self.read: list[str] = []
        self._blobs = {sha(layer): (blobs or {}).get(layer, layer) for layer in layers}
        self._changed = changed
        self.layers = [sha(layer) for layer in layers]
        self.closed = False

    def resolve(self) -> Resolved:
        image_id = sha("".join(self.layers).encode())
        return Resolved(
            image_id,
            ImageConfig(cmd=("x",), diff_ids=tuple(self.layers)),
            tuple(
                LayerBlob(
                    self._changed.get("diff_id", diff_id),
                    diff_id,
                    self._changed.get("digest", sha(self._blobs[diff_id])),
                    self._changed.get("size", len(self._blobs[diff_id])),
                )
                for diff_id in self.layers
            ),
        )

    def open(self, layer: LayerBlob) -> Any:
        self.read.append(layer.name)
        return io.BytesIO(self._blobs[layer.name])

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    found = ImageStore(tmp_path / "store")
    found.open()
    return found


def names(root: Path) -> dict[str, int]:
    return {path.name: sum(1 for _ in path.iterdir()) for path in root.iterdir() if path.is_dir()}


EMPTY = {"layers": 0, "s": 0, "images": 0, "names": 0, "holds": 0, "staging": 0, "empty": 0}


def test_image_is_found_by_its_name_and_its_layers_are_shared(store: ImageStore, tmp_path: Path) -> None:
    image = store.add(MemorySource(BASE, UPPER), "app:1")
    again = MemorySource(BASE, OTHER)
    store.add(again, "app:2")

    assert store.find("app:1") == image
    assert image.layers == (sha(BASE), sha(UPPER))
    assert again.read == [sha(OTHER)]
    assert again.closed
    assert store.find("app:3") is None
    assert names(tmp_path / "store") == {**EMPTY, "layers": 3, "s": 3, "images": 2, "names": 2}


def test_plan_and_copy(store: ImageStore, tmp_path: Path) -> None:
    image = store.add(MemorySource(BASE, UPPER), "app")

    plan = store.hold(image.image_id, "c.1")

    assert plan is not None
    assert plan.overlay_options("/u", "/w") == "lowerdir=s/2:s/1,upperdir=/u,workdir=/w"
    assert plan.overlay_options("", "") == "lowerdir=s/2:s/1"
    assert plan.why_copy() == ""
    copy_rootfs(plan, str(tmp_path / "root"))
    assert tree_of(tmp_path / "root") == {"b": ("file", 0o644, b"3", "b")}


def test_plan_of_one_layer_and_bad_places(store: ImageStore) -> None:
    plan = store.hold(store.add(MemorySource(BASE), "app").image_id, "c.1")

    assert plan is not None
    assert plan.overlay_options("", "") == "lowerdir=s/1:empty"
    for bad in ("/a,b", "/a:b", "relative", "/a\\b"):
        with pytest.raises(InvalidInput, match="upper: "):
            plan.overlay_options(bad, "/w")
    with pytest.raises(InvalidInput, match="pass 4095 bytes"):
        plan.overlay_options("/" + "u" * 4090, "/w")


def test_127_layers_fit_into_one_mount(store: ImageStore) -> None:
    layers = [archive(member(f"f{number}", b"")) for number in range(127)]
    plan = store.hold(store.add(MemorySource(*layers), "deep").image_id, "c.1")

    assert plan is not None
    assert len(plan.overlay_options("/" + "u" * 1_000, "/" + "w" * 1_000)) < 4_095


def test_directory_that_a_layer_only_implies_needs_a_copy(store: ImageStore, tmp_path: Path) -> None:
    layers = archive(member("tmp", mode=0o1777)), archive(member("tmp/x", b""))
    plan = store.hold(store.add(MemorySource(*layers), "app").image_id, "c.1")

    assert plan is not None
    assert plan.why_copy() == "a layer uses the directory 'tmp' of another without naming it"
    copy_rootfs(plan, str(tmp_path / "root"))
    assert tree_of(tmp_path / "root")["tmp"] == ("directory", 0o1777)


def test_root_has_the_attributes_of_the_highest_layer_that_names_it(store: ImageStore) -> None:
    layers = archive(member("./", mode=0o555)), archive(member("x", b""))
    plan = store.hold(store.add(MemorySource(*layers), "app").image_id, "c.1")

    assert plan is not None
    assert plan.root_attributes()[0] == (0o555 if os.geteuid() == 0 else 0o755)


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.ZstdCompressor().compress, lambda data: data])
def test_compressed_layers(store: ImageStore, pack: Any) -> None:
    assert store.add(MemorySource(BASE, blobs={BASE: pack(BASE)}), "app").layers == (sha(BASE),)


ZEROS = archive(member("zeros", b"\0" * (1 << 20)))
BOMB = gzip.compress(ZEROS)
BAD: dict[str, tuple[MemorySource, str]] = {
    "bad digest": (MemorySource(BASE, digest=f"sha256:{'0' * 64}"), "its digest is sha256:.*, not sha256:000"),
    "bad content": (MemorySource(BASE, diff_id=f"sha256:{'1' * 64}"), "its content's digest is .*, not sha256:111"),
    "shorter": (MemorySource(BASE, size=1 << 20), "it is cut off: 10240 bytes, not the 1048576 promised"),
    "longer": (MemorySource(BASE, size=100), "it is longer than the 100 bytes promised"),
    "cut off": (MemorySource(BASE, blobs={BASE: gzip.compress(BASE)[:-20]}), "damaged or cut off"),
    "cut off zstd": (MemorySource(BASE, blobs={BASE: zstandard.compress(BASE)[:-20]}), "cut off|content's digest"),
    "damaged zstd": (MemorySource(BASE, blobs={BASE: b"\x28\xb5\x2f\xfd" + b"x" * 99}), "damaged or cut off"),
    "bzip2": (MemorySource(BASE, blobs={BASE: b"BZh91AY"}), "compressed by bzip2"),
    "bomb": (MemorySource(ZEROS, blobs={ZEROS: BOMB}), "past 200 to 1 it is taken for a bomb"),
    "second layer": (MemorySource(OTHER, archive(member("../x", b""))), "has a '..'"),
    "no digest": (MemorySource(BASE, diff_id="sha256:../../etc"), "not a sha256 or sha512 digest"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_image_leaves_nothing_behind(tmp_path: Path, name: str) -> None:
    source, text = BAD[name]
    store = ImageStore(tmp_path / "store", UnpackLimits(ratio_floor_bytes=1 << 16))
    store.open()

    with pytest.raises(ImageError, match=text):
        store.add(source, "bad")

    assert source.closed
    assert names(tmp_path / "store") == EMPTY
    assert store.find("bad") is None


def test_image_past_its_bound_is_refused(tmp_path: Path) -> None:
    store = ImageStore(tmp_path / "store", max_image_bytes=20_000)
    store.open()

    with pytest.raises(ImageError, match="image 'app': more than 20000 bytes"):
        store.add(MemorySource(BASE, UPPER, OTHER), "app")
    assert names(tmp_path / "store") == EMPTY


def test_padding_without_end_is_refused() -> None:
    class Endless:
        def read(self, size: int, /) -> bytes:
            return b"\0" * size

    with pytest.raises(ImageError, match="longer than the 100 bytes"):
        Blob(Endless(), "x", size_bytes=100).finish()


def test_what_a_crash_left_is_removed_at_the_start(store: ImageStore, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store.add(MemorySource(BASE), "app")
    (root / "staging" / "half" / "fs").mkdir(parents=True)
    (root / "s" / "7").symlink_to("../layers/none/fs")

    ImageStore(root).open()

    assert names(root) == {**EMPTY, "layers": 1, "s": 1, "images": 1, "names": 1}


def test_damaged_layer_is_unpacked_anew(store: ImageStore, tmp_path: Path) -> None:
    store.add(MemorySource(BASE), "app")
    (record,) = (tmp_path / "store" / "layers").glob("*/layer.json")
    record.write_text("{")

    assert store.find("app") is None
    store.add(MemorySource(BASE), "app")

    assert store.find("app") is not None
    assert names(tmp_path / "store") == {**EMPTY, "layers": 1, "s": 1, "images": 1, "names": 1}


def test_collection_removes_the_image_used_longest_ago_and_never_one_in_use(store: ImageStore, tmp_path: Path) -> None:
    images: dict[str, StoredImage] = {}
    for number, name in enumerate(("held", "old", "new")):
        images[name] = store.add(MemorySource(BASE, archive(member(name, b"x" * 5_000))), name)
        store.hold(images[name].image_id, f"c.{number}")
        path = tmp_path / "store" / "images" / f"{images[name].image_id.replace(':', '-')}.json"
        os.utime(path, (number, number))
    store.release("c.1")
    store.release("c.2")

    first = store.collect(max_bytes=45_000)
    assert (first.images, store.find("old")) == ((images["old"].image_id,), None)
    assert store.collect(max_bytes=0).images == (images["new"].image_id,)
    assert store.find("held") == images["held"]
    assert names(tmp_path / "store") == {**EMPTY, "layers": 2, "s": 2, "images": 1, "names": 1, "holds": 1}
    store.release_others(set())
    store.collect(max_bytes=0)
    assert names(tmp_path / "store") == EMPTY


def test_hold_of_an_image_that_is_gone(store: ImageStore) -> None:
    assert store.hold(sha(b"nothing"), "c.1") is None


class SlowSource(MemorySource):
    """Waits in the middle of a layer."""

    def __init__(self, *layers: bytes) -> None:
        super().__init__(*layers)
        self.entered, self.go_on = threading.Event(), threading.Event()

    def open(self, layer: LayerBlob) -> Any:
        self.entered.set()
        assert self.go_on.wait(10)
        return super().open(layer)


def test_one_unpacking_at_a_time(store: ImageStore) -> None:
    slow, second = SlowSource(BASE), MemorySource(BASE)
    found: list[StoredImage] = []
    threads = [threading.Thread(target=lambda: found.append(store.add(slow, "a")))]
    threads[0].start()
    assert slow.entered.wait(10)

    assert store.collect(0).busy
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        store.add(MemorySource(OTHER), "x", cancelled)
    threads.append(threading.Thread(target=lambda: found.append(store.add(second, "b"))))
    threads[1].start()
    slow.go_on.set()
    for thread in threads:
        thread.join(10)

    assert len(found) == 2
    assert second.read == []


def test_images_of_both_kinds_of_files(store: ImageStore, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", [BASE, UPPER], Cmd=["sh"], Env=["A=1"])
    (tmp_path / "saved.tar").write_bytes(docker_archive([BASE, UPPER, BASE], "app:1"))
    for name, layers in ((f"oci:{layout}", 2), (f"docker-archive:{tmp_path}/saved.tar", 3)):
        image = store.add(disk_source(parse_image_reference(name)), name)
        assert len(image.layers) == layers
    assert names(tmp_path / "store")["layers"] == 2


def test_what_goes_first() -> None:
    layers = [LayerFacts("base", 10), LayerFacts("a", 5), LayerFacts("b", 5), LayerFacts("orphan", 100)]
    images = [ImageFacts("A", ("base", "a"), 2, False), ImageFacts("B", ("base", "b"), 1, False)]

    assert to_remove(images, layers, 1_000) == ([], ["orphan"], 100)
    assert to_remove(images, layers, 15) == (["B"], ["orphan", "b"], 105)
    assert to_remove(images, layers, 0) == (["B", "A"], ["orphan", "b", "a", "base"], 120)
