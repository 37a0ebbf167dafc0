"""What is found on a host, and what is said when it cannot be used: hosts made of plain directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesos_actor.isolation.cgroup_host import SELF, Found, find

V1 = "25 20 0:21 / {root}/{name} rw - cgroup cgroup rw,{name}\n"


class FakeHost:
    """A /proc and a cgroup mount under one directory."""

    def __init__(self, directory: Path) -> None:
        self.proc, self.root, self.run = directory / "proc", directory / "cgroup tree", directory / "run"
        (self.proc / "self").mkdir(parents=True)
        self.root.mkdir()
        self.run.mkdir()
        self.mounts = ""
        self.place("/")

    def mount(self, mounted: str = "/") -> None:
        where = str(self.root).replace(" ", "\\040")
        self.mounts += f"30 20 0:26 {mounted} {where} rw,nosuid - cgroup2 cgroup2 rw\n"

    def mount_first(self, *names: str) -> None:
        self.mounts += "".join(V1.format(root=self.root, name=name) for name in names)

    def place(self, path: str) -> None:
        (self.proc / "self/cgroup").write_text(f"3:cpu:/elsewhere\n0::{path}\n")

    def cgroup(self, path: str, controllers: str = "cpu memory pids io", kind: str = "domain", **files: str) -> Path:
        directory = self.root / path.lstrip("/")
        directory.mkdir(parents=True, exist_ok=True)
        found = {"cgroup.controllers": controllers, "cgroup.procs": "", "cgroup.subtree_control": "", "cgroup.kill": ""}
        for name, content in {**found, "cgroup.type": kind, **files}.items():
            (directory / name).write_text(content + "\n")
        return directory

    def find(self, root: str = "") -> Found:
        (self.proc / "self/mountinfo").write_text(self.mounts)
        return find(root, proc=str(self.proc), run=str(self.run))


@pytest.fixture
def host(tmp_path: Path) -> FakeHost:
    return FakeHost(tmp_path)


def texts(found: Found) -> list[str]:
    return [str(entry) for entry in found.missing]


def test_own_cgroup_is_found(host: FakeHost) -> None:
    host.mount()
    own = host.cgroup("/a.slice/b.service")
    host.place("/a.slice/b.service")

    assert host.find() == Found(str(own), ("cpu", "memory", "pids", "io"))


def test_agent_that_stepped_aside_before_finds_the_same_again(host: FakeHost) -> None:
    host.mount()
    own = host.cgroup("/b.service")
    host.place(f"/b.service/{SELF}")

    assert host.find() == Found(str(own), ("cpu", "memory", "pids", "io"))


def test_mount_of_a_part_of_the_tree(host: FakeHost) -> None:
    host.mount("/machine")
    own = host.cgroup("/b")
    host.place("/machine/b")

    assert host.find().own == str(own)
    host.place("/machinery/b")
    assert "outside of its cgroup namespace" in texts(host.find())[0]


def test_given_root_wins(host: FakeHost) -> None:
    host.mount()
    own = host.cgroup("/given")

    assert host.find(f"{own}/") == Found(str(own), ("cpu", "memory", "pids", "io"))
    assert "is not a cgroup of v2" in texts(host.find(str(host.proc)))[0]


def test_host_with_first_version_only(host: FakeHost) -> None:
    host.mount_first("cpu", "memory")

    (text,) = texts(host.find())
    assert text.startswith("this host's controllers cpu, memory are on cgroup v1, and isolation needs v2: ")
    assert "systemd.unified_cgroup_hierarchy=1" in text
    assert "--isolation process" in text


def test_hybrid_host(host: FakeHost) -> None:
    host.mount_first("cpu", "memory", "pids")
    host.mount()
    host.cgroup("/", "hugetlb")

    assert texts(host.find())[0].startswith("this host's controllers cpu, memory, pids are on cgroup v1")


def test_host_without_any(host: FakeHost) -> None:
    assert texts(host.find())[0].startswith("this host has no cgroup v2: ")


def test_controllers_that_were_not_handed_down(host: FakeHost) -> None:
    host.mount()
    host.cgroup("/user", "pids")
    host.place("/user")

    (text,) = texts(host.find())
    assert text.startswith(f"controllers cpu, memory are not available in {host.root}/user: ")
    assert "Delegate=cpu memory pids" in text


def test_outside_of_the_namespace(host: FakeHost) -> None:
    host.mount()
    host.place("/../..")

    assert "--cgroup-root" in texts(host.find())[0]


def test_systemd_that_has_not_delegated_it(host: FakeHost) -> None:
    (host.run / "systemd/system").mkdir(parents=True)
    host.mount()
    host.cgroup("/session-3.scope")
    host.place("/session-3.scope")

    (text,) = texts(host.find())
    assert text.startswith(f"systemd has not delegated {host.root}/session-3.scope: in the unit: Delegate=yes")
    assert "--scope -p Delegate=yes" in text


def test_kernel_and_kind_that_will_not_do(host: FakeHost) -> None:
    host.mount()
    own = host.cgroup("/old", kind="threaded")
    (own / "cgroup.kill").unlink()
    host.place("/old")

    assert [text.partition(":")[0] for text in texts(host.find())] == [
        f"{own} is a 'threaded' cgroup, which cannot hold containers",
        "this kernel has no cgroup.kill",
    ]


def test_host_that_tells_nothing(host: FakeHost) -> None:
    (host.proc / "self/cgroup").unlink()
    host.mount()

    assert "cannot read" in texts(host.find())[0]
