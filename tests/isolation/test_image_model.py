"""Layers unpacked and laid over each other are what a simple model of a union file system says."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_rootfs import RootfsPlan, StoredLayer, copy_rootfs
from tests.isolation.image_files import archive, link, member, tree_of, unpack

Node = tuple[Any, ...]
Tree = dict[str, Node]
NAMES = ("a", "b", "c")
PATHS = [*NAMES, *(f"{x}/{y}" for x in NAMES for y in NAMES), *(f"a/{x}/{y}" for x in NAMES for y in NAMES)]

paths = st.sampled_from(PATHS)
entries = st.one_of(
    st.tuples(st.just("file"), paths, st.sampled_from([b"", b"1", b"22"]), st.sampled_from([0o644, 0o4755])),
    st.tuples(st.just("directory"), paths, st.sampled_from([0o755, 0o1777])),
    st.tuples(st.just("link"), paths, st.sampled_from(["a", "../b", "/etc"])),
    st.tuples(st.just("hard"), paths, paths),
    st.tuples(st.just("hide"), paths),
    st.tuples(st.just("opaque"), paths),
)
layers = st.lists(st.lists(entries, max_size=8), min_size=1, max_size=4)


class Refused(Exception):
    pass


def below(tree: Tree, path: str) -> list[str]:
    return [other for other in tree if other.startswith(f"{path}/")]


def parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


class ModelLayer:
    """One layer: its own tree, and what it hides."""

    def __init__(self) -> None:
        self.tree: Tree = {}
        self.implied: set[str] = set()
        self.hidden: set[str] = set()
        self.opaque: set[str] = set()

    def imply(self, path: str) -> None:
        for parent in parents(path):
            if parent not in self.tree:
                self.tree[parent] = ("directory", 0o755)
                self.implied.add(parent)
            elif self.tree[parent][0] != "directory":
                raise Refused

    def add(self, number: int, entry: Node) -> None:
        kind, path = entry[0], entry[1]
        if kind in ("hide", "opaque"):
            (self.hidden if kind == "hide" else self.opaque).add(path)
            return
        node: Node
        if kind == "hard":
            for parent in parents(entry[2]):
                if parent in self.tree and self.tree[parent][0] != "directory":
                    raise Refused
            node = self.tree.get(entry[2], ("directory",))
            if node[0] == "directory" or entry[2] == path or entry[2].startswith(f"{path}/"):
                raise Refused
        else:
            node = ("directory", entry[2]) if kind == "directory" else ("link", entry[2], number)
            if kind == "file":
                node = ("file", entry[3], entry[2], number)
        self.imply(path)
        if kind != "directory" or self.tree.get(path, ("directory",))[0] != "directory":
            for gone in [path, *below(self.tree, path)]:
                self.tree.pop(gone, None)
                self.implied.discard(gone)
        self.implied.discard(path)
        self.tree[path] = node

    def finish(self) -> None:
        """Whiteouts and opaque marks take effect when all entries are there."""
        for path in sorted(self.hidden, key=lambda path: path.split("/")):
            try:
                self.imply(path)
            except Refused:
                continue
            if path not in self.tree:
                self.tree[path] = ("whiteout",)
            elif self.tree[path][0] == "directory":
                self.opaque.add(path)
                self.implied.discard(path)
        for path in sorted(self.opaque, key=lambda path: path.split("/")):
            try:
                self.imply(f"{path}/x")
            except Refused:
                self.opaque.discard(path)


def union(lower: Tree, layer: ModelLayer) -> Tree:
    result = dict(lower)
    for path in sorted(layer.tree, key=lambda path: path.split("/")):
        node = layer.tree[path]
        before = result.get(path, ("nothing",))
        if path in layer.opaque or node[0] != "directory" or before[0] != "directory":
            for gone in below(result, path):
                del result[gone]
        if node[0] == "whiteout":
            result.pop(path, None)
        elif path not in layer.implied or before[0] != "directory":
            result[path] = node
    return result


def normal(tree: Tree) -> Tree:
    """Hard links named by the first of them, as tree_of does; a link's own names are not compared."""
    first: dict[int, str] = {}
    result: Tree = {}
    for path in sorted(tree, key=lambda path: path.split("/")):
        node = tree[path]
        if node[0] == "file":
            node = (*node[:3], first.setdefault(node[3], path))
        result[path] = node[:2] if node[0] == "link" else node
    return result


@contextmanager
def scratch() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    try:
        yield path
    finally:
        shutil.rmtree(path)


def members_of(layer: list[Node]) -> Iterator[Any]:
    for entry in layer:
        kind, path = entry[0], entry[1]
        head, slash, name = path.rpartition("/")
        if kind == "file":
            yield member(path, entry[2], mode=entry[3])
        elif kind == "directory":
            yield member(path, mode=entry[2])
        elif kind in ("link", "hard"):
            yield link(path, entry[2], hard=kind == "hard")
        elif kind == "hide":
            yield member(f"{head}{slash}.wh.{name}", b"")
        else:
            yield member(f"{path}/.wh..wh..opq", b"")


def unpacked_layers(described: list[list[Node]], store: Path) -> tuple[StoredLayer, ...]:
    found = []
    for number, layer in enumerate(described):
        name = str(number)
        found.append(StoredLayer(name, unpack(archive(*members_of(layer)), store / name)))
    return tuple(found)


def model_of(described: list[list[Node]]) -> Tree:
    merged: Tree = {}
    for number, layer in enumerate(described):
        model = ModelLayer()
        for place, entry in enumerate(layer):
            model.add(number * 1_000 + place, entry)
        model.finish()
        merged = union(merged, model)
    return merged


def check(described: list[list[Node]], store: Path) -> None:
    try:
        expected = normal(model_of(described))
    except Refused:
        with pytest.raises(ImageError):
            unpacked_layers(described, store)
        return
    plan = RootfsPlan(str(store), unpacked_layers(described, store))
    copy_rootfs(plan, str(store / "root"))

    assert expected == tree_of(store / "root")


@settings(max_examples=60, deadline=None)
@given(layers)
def test_copy_of_unpacked_layers_is_their_union(described: list[list[Node]]) -> None:
    with scratch() as store:
        check(described, store)


EXAMPLES: list[list[list[Node]]] = [
    [[("file", "a/b", b"1", 0o644)], [("hide", "a")], [("file", "a/c", b"22", 0o644)]],
    [[("directory", "a", 0o1777)], [("file", "a/b", b"1", 0o644)]],
    [[("directory", "a", 0o1777), ("file", "a/b", b"1", 0o644)], [("opaque", "a"), ("file", "a/c", b"", 0o644)]],
    [[("file", "a", b"1", 0o644)], [("file", "a/b", b"22", 0o644)]],
    [[("file", "a/b", b"1", 0o644), ("hard", "c", "a/b")], [("hide", "a/b")]],
    [[("file", "a/b/c", b"1", 0o644)], [("link", "a", "/etc")], [("directory", "a", 0o755)]],
    [[("file", "a/b", b"1", 0o644)], [("directory", "a", 0o755), ("hide", "a")]],
]


@pytest.mark.parametrize("described", EXAMPLES)
def test_known_unions(described: list[list[Node]], tmp_path: Path) -> None:
    check(described, tmp_path)
