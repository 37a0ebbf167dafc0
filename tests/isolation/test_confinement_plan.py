"""A plan becomes the launcher's fields, or is refused with the field, the value and the fix."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.isolation import capabilities, confinement
from mesos_actor.isolation.confinement_plan import (
    MAX_DEVICES,
    MAX_VOLUMES,
    SHM_BYTES,
    Confinement,
    Device,
    IdMap,
    Overlay,
    User,
    Volume,
    fields_of,
)
from mesos_actor.isolation.seccomp import default_program
from mesos_actor.isolation.spawn import SpawnError

IDS = (IdMap(0, 1000),)
EVERYTHING = Confinement(
    pid=True,
    ipc=True,
    mount=True,
    uts=True,
    cgroup=True,
    network="loopback",
    user_ids=IDS,
    group_ids=IDS,
    hostname="inside",
    root="/images/one",
    read_only_root=True,
    volumes=(Volume(source="data", within="/srv", target="/a/b/", read_only=True), Volume(source="/x", target="/a")),
    sandbox="/srv/box",
    sandbox_target="/mnt/sandbox",
    devices=(Device(path="/dev/gpu", major=195, minor=0),),
    tmp_bytes=1 << 20,
    rlimits={"nofile": (10, -1)},
    user=User(0, 0),
    effective=("kill",),
    bounding=("CAP_KILL", "chown"),
)


def test_fields_are_known_plain_and_in_order() -> None:
    fields = fields_of(EVERYTHING, "x86_64")

    assert fields.keys() <= confinement.KNOWN
    assert msgpack.unpackb(msgpack.packb(fields)) == fields
    assert fields["namespaces"] == ["user", "mount", "pid", "ipc", "uts", "net", "cgroup"]
    assert [entry["target"] for entry in fields["volumes"]] == ["/a", "/mnt/sandbox", "/a/b"]
    assert (fields["cwd"], fields["uid_map"], fields["user"]) == ("/mnt/sandbox", [[0, 1000, 1]], [0, 0, []])
    assert (fields["effective"], fields["bounding"]) == (1 << 5, 1 << 5 | 1)
    assert fields["seccomp"] == default_program(("KILL", "CHOWN"), "x86_64")


def test_every_field_is_carried_out_by_somebody() -> None:
    """None of those that the launcher knows is made by no plan."""
    joined = Confinement(network="join", network_path="/run/netns/x")
    layered = Confinement(mount=True, root="/image", overlay=LAYERS)
    plans = (EVERYTHING, joined, layered)

    assert {name for plan in plans for name in fields_of(plan, "x86_64")} == confinement.KNOWN


LAYERS = Overlay(store="/store", lower=("s/2", "s/1"), upper="/roots/a/upper", work="/roots/a/work")


def test_overlay_is_put_together_in_its_store() -> None:
    fields = fields_of(Confinement(mount=True, root="/image", overlay=LAYERS), "x86_64")

    options = {"lowerdir": "s/2:s/1", "upperdir": "/roots/a/upper", "workdir": "/roots/a/work"}
    assert fields["overlay"] == ["/store", options]


@pytest.mark.parametrize(
    ("overlay", "root", "match"),
    [
        (LAYERS, "", "overlay: of 2 layers for root ''"),
        (Overlay(store="/s", lower=(), upper="/u", work="/w"), "/image", "overlay: of 0 layers"),
        (
            Overlay(store="/s", lower=("l" * 300,), upper="/u", work="/w"),
            "/image",
            "lowerdir has 300 bytes: at most 255",
        ),
        (Overlay(store="/s", lower=("l",), upper="/u,x", work="/w"), "/image", "upperdir has .* without ','"),
    ],
)
def test_overlay_that_cannot_be_mounted_is_refused(overlay: Overlay, root: str, match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        fields_of(Confinement(mount=True, root=root, overlay=overlay), "x86_64")


def test_default_confines_privileges_alone() -> None:
    fields = fields_of(Confinement(), "aarch64")

    assert fields == {"no_new_privs": True, "seccomp": default_program((), "aarch64")}


def test_proc_is_fresh_with_a_pid_namespace_and_masked() -> None:
    fields = fields_of(Confinement(pid=True, mount=True), "x86_64")

    assert (fields["proc"], fields["sys"], fields["dev"]) == (True, False, False)
    assert "/proc/kcore" in fields["masked"]
    assert not any(path.startswith("/sys") for path in fields["masked"])


def changed(**changes: Any) -> Confinement:
    options: dict[str, Any] = {"mount": True, "root": "/image"}
    return Confinement(**(options | changes))


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Confinement(pid=True), "pid: a pid namespace needs a /proc of its own: set mount too"),
        (Confinement(hostname="x"), "hostname: 'x' would rename the host: set uts too"),
        (Confinement(uts=True, hostname="a_b"), "hostname: 'a_b' cannot be one"),
        (Confinement(uts=True, hostname="x" * 65), "at most 64 letters"),
        (Confinement(network="join"), "network: 'join' needs network_path"),
        (Confinement(network_path="/x"), "network_path: '/x' is for network 'join' only"),
        (Confinement(root="/x"), "root: '/x' needs a mount namespace: set mount too"),
        (Confinement(tmp_bytes=1), "tmp_bytes: 1 needs a mount namespace"),
        (Confinement(mount=True, shm_bytes=1), "shm_bytes: 1 needs a /dev of its own"),
        (Confinement(mount=True, devices=(Device(path="/dev/x", major=1, minor=1),)), "devices: the host's /dev is"),
        (changed(root="/"), "root: '/' is the host's own"),
        (changed(root="image"), "root: 'image' cannot be used: give an absolute path"),
        (changed(root="/a/../b"), "root: '/a/../b' cannot be used"),
        (changed(shm_bytes=0), "shm_bytes: 0 is not between 1 and"),
        (changed(tmp_bytes=-1), "tmp_bytes: -1 is not between 0 and"),
        (changed(sandbox="/x"), "sandbox_target: sandbox and sandbox_target go together"),
        (changed(cwd="x"), "cwd: 'x' cannot be used"),
        (changed(user_ids=IDS), "group_ids: is empty: a user namespace needs both"),
        (changed(user_ids=(IdMap(0, 1, 0),), group_ids=IDS), "user_ids: .* is no range"),
        (changed(user_ids=(IdMap(0, (1 << 32) - 2, 2),), group_ids=IDS), "goes past the last id"),
        (changed(user_ids=(IdMap(0, 1, 5), IdMap(4, 9)), group_ids=IDS), "user_ids: id 4 inside is in two ranges"),
        (changed(user_ids=(IdMap(0, 1, 5), IdMap(9, 5)), group_ids=IDS), "user_ids: id 5 outside is in two ranges"),
        (changed(user_ids=IDS, group_ids=IDS, user=User(5, 0)), "user.user_id: 5 is in none of the user namespace's"),
        (changed(user=User(0, -1)), "user.group_id: -1 is no id"),
        (changed(rlimits={"files": (1, 1)}), "rlimits: there is no resource limit 'files'; name one of as, core"),
        (changed(rlimits={"nofile": (2, 1)}), "rlimits: 'nofile' has a soft limit of 2 above its hard one"),
        (changed(rlimits={"nofile": (-1, 1)}), "rlimits: 'nofile' has a soft limit of none above its"),
        (changed(effective=("NET_ADMINN",)), "effective: there is no capability 'NET_ADMINN': did you mean NET_ADMIN?"),
        (changed(effective=("KILL",), bounding=()), "effective: KILL is not in bounding: add it there"),
        (changed(bounding=()), "bounding: needs effective too"),
        (changed(volumes=(Volume(source="/x", target="/"),)), r"volumes\[0\].target: '/' is not a volume's place"),
        (changed(volumes=(Volume(source="/x", target="/proc/self"),)), "'/proc/self' is not a volume's place"),
        (changed(volumes=(Volume(source="/x", target="/dev"),)), "'/dev' is not a volume's place"),
        (changed(volumes=(Volume(source="/x", target="/a"),) * 2), r"volumes\[1\].target: '/a' is another volume's"),
        (changed(tmp_bytes=1, volumes=(Volume(source="/x", target="/tmp"),)), "tmp_bytes: .* mounted on /tmp too"),
        (changed(volumes=(Volume(source="x", target="/a"),)), r"volumes\[0\].source: 'x' cannot be used"),
        (changed(volumes=(Volume(source="/x", within="/y", target="/a"),)), "'/x' is not a path in '/y'"),
        (changed(volumes=(Volume(source="a/../../x", within="/y", target="/a"),)), "give it relative and without"),
        (changed(volumes=(Volume(source="/x", target="/a"),) * (MAX_VOLUMES + 1)), "257 are too many, at most 256"),
        (changed(devices=(Device(path="/dev/x", major=1, minor=1),) * (MAX_DEVICES + 1)), "65 are too many"),
        (changed(devices=(Device(path="/etc/x", major=1, minor=1),)), "'/etc/x' is not a device's place"),
        (changed(devices=(Device(path="/dev/x", major=4096, minor=1),)), "4096:1 is no device number"),
        (changed(devices=(Device(path="/dev/x", major=1, minor=1, mode=0o4755),)), "4755 is more than permissions"),
    ],
)
def test_plan_that_cannot_work_is_refused(plan: Confinement, text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        fields_of(plan, "x86_64")


def test_unknown_field_is_refused_before_anything_is_done() -> None:
    """By a launcher that is older than its agent."""
    with pytest.raises(SpawnError, match="older than its agent and cannot do teleport: restart it"):
        confinement.enter({"teleport": True, "namespaces": ["mount"]})


def test_dockers_default_is_its_mask() -> None:
    assert capabilities.mask_of("effective", capabilities.DOCKER) == 0xA80425FB


def test_defaults_are_documented_sizes() -> None:
    assert fields_of(changed(), "x86_64")["shm_bytes"] == SHM_BYTES == 64 << 20
