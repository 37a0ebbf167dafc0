"""Images on a real kernel: overlayfs shows what the copy shows, and project quotas count."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesos_actor.isolation.disk_quota import ProjectQuotas, QuotaError
from mesos_actor.isolation.image_rootfs import RootfsPlan, copy_rootfs
from tests.isolation.image_files import tree_of
from tests.isolation.test_image_model import EXAMPLES, Node, unpacked_layers

pytestmark = pytest.mark.cgroup
MIB = 1 << 20


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "memory"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "memory", str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_overlay_shows_what_the_copy_shows(memory: Path) -> None:
    described: list[list[list[Node]]] = [
        *EXAMPLES,
        [
            [("file", "a/b", b"1", 0o644), ("link", "b", "a")],
            [("hide", "b"), ("directory", "a", 0o1777), ("opaque", "a")],
        ],
    ]
    shown = 0
    for number, layers in enumerate(described):
        store = memory / str(number)
        for name in ("root", "upper", "work"):
            (store / name).mkdir(parents=True)
        plan = RootfsPlan(str(store), unpacked_layers(layers, store))
        copy_rootfs(plan, str(store / "copy"))
        if plan.why_copy():
            continue
        mode, _, _ = plan.root_attributes()
        (store / "upper").chmod(mode)
        options = plan.overlay_options(str(store / "upper"), str(store / "work"))
        mount = ["mount", "-t", "overlay", "-o", options, "overlay", str(store / "root")]
        subprocess.run(mount, check=True, cwd=store)
        try:
            expected, found = tree_of(store / "copy"), tree_of(store / "root")
            assert {path: node[:3] for path, node in found.items()} == {p: node[:3] for p, node in expected.items()}
        finally:
            subprocess.run(["umount", str(store / "root")], check=True)
        shown += 1

    assert shown >= len(described) - 2


@pytest.fixture
def ext4(memory: Path) -> Iterator[Path]:
    image, place = memory / "disk", memory / "ext4"
    with image.open("wb") as file:
        file.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota", str(image)], check=True)
    place.mkdir()
    for module in ("loop", "ext4", "quota_v2", "quota_tree"):
        subprocess.run(["modprobe", module], check=False)
    subprocess.run(["mount", "-o", "loop,prjquota", str(image), str(place)], check=True)
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_project_quota_counts_and_refuses(ext4: Path) -> None:
    quotas = ProjectQuotas(str(ext4))
    try:
        for name, project in (("one", 5_000), ("two", 5_001)):
            (ext4 / name).mkdir()
            quotas.assign(str(ext4 / name), project)
            assert quotas.project_of(str(ext4 / name)) == project
        quotas.set_limit(5_000, 4 * MIB)
        assert quotas.limit_bytes(5_000) == 4 * MIB
        (ext4 / "one" / "sub").mkdir()
        (ext4 / "one" / "sub" / "a").write_bytes(b"x" * (2 * MIB))
        os.sync()
        assert 2 * MIB <= quotas.used_bytes(5_000) < 3 * MIB

        refused = subprocess.run(  # without the capability by which root passes every quota
            [
                *("setpriv", "--inh-caps=-sys_resource", "--bounding-set=-sys_resource"),
                *("dd", "if=/dev/zero", f"of={ext4}/one/b", "bs=1M", "count=3"),
            ],
            capture_output=True,
            text=True,
        )
        assert "Disk quota exceeded" in refused.stderr
        (ext4 / "two" / "c").write_bytes(b"z" * (6 * MIB))
        os.sync()
        assert quotas.used_bytes(5_001) >= 6 * MIB
        quotas.set_limit(5_000, 0)
        (ext4 / "one" / "b").write_bytes(b"y" * (3 * MIB))
        held = (ext4 / "one" / "open").open("wb")
        held.write(b"w" * MIB)
        held.flush()
        (ext4 / "one" / "open").unlink()
        os.sync()
        assert quotas.used_bytes(5_000) >= 6 * MIB
        held.close()
    finally:
        quotas.close()


def test_file_system_without_quotas_says_so(memory: Path) -> None:
    with pytest.raises(QuotaError, match="mounted with 'prjquota'"):
        ProjectQuotas(str(memory))
