"""Keys on disk: private, whole, and refused with a reason when they are not."""

from __future__ import annotations

import multiprocessing
import stat
from pathlib import Path

import pytest
import zmq
from zmq.utils import z85

from mesos_actor.actors.errors import SecurityError
from mesos_actor.actors.ids import ContainerId
from mesos_actor.transport import security


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_cluster_key_is_private_and_its_public_half_beside_it(tmp_path: Path) -> None:
    where = tmp_path / "a" / "keys"
    security.create_cluster_key(where)
    keys = security.load_keys(where)

    assert (mode(where), mode(where / "cluster.key")) == (0o700, 0o600)
    assert keys.secret == keys.cluster_secret
    assert zmq.curve_public(keys.secret) == keys.public == keys.server_public
    assert (where / "cluster.pub").read_bytes().strip() == keys.public
    assert keys.authorized == where / "authorized"


def test_a_cluster_key_is_never_overwritten(tmp_path: Path) -> None:
    security.create_cluster_key(tmp_path / "keys")
    before = (tmp_path / "keys" / "cluster.key").read_bytes()

    with pytest.raises(SecurityError, match="exists already"):
        security.create_cluster_key(tmp_path / "keys")
    assert (tmp_path / "keys" / "cluster.key").read_bytes() == before


def test_a_client_needs_its_own_key_and_the_clusters_public_one(tmp_path: Path) -> None:
    security.create_cluster_key(tmp_path / "master")
    public = security.create_client_key(tmp_path / "client")
    with pytest.raises(SecurityError, match=r"cluster.pub is missing: copy it from a master"):
        security.load_keys(tmp_path / "client")

    (tmp_path / "client" / "cluster.pub").write_bytes((tmp_path / "master" / "cluster.pub").read_bytes())
    keys = security.load_keys(tmp_path / "client")

    assert keys.public.decode() == public
    assert keys.server_public == security.load_keys(tmp_path / "master").public
    assert keys.cluster_secret is None
    with pytest.raises(SecurityError, match="exists already"):
        security.create_client_key(tmp_path / "client")


def test_what_is_open_to_others_is_refused_with_the_fix(tmp_path: Path) -> None:
    where = tmp_path / "keys"
    security.create_cluster_key(where)
    (where / "cluster.key").chmod(0o640)
    with pytest.raises(SecurityError, match=r"cluster.key is open to others \(mode 0640\): chmod 0600"):
        security.load_keys(where)

    (where / "cluster.key").chmod(0o600)
    where.chmod(0o755)
    with pytest.raises(SecurityError, match=r"open to others \(mode 0755\): chmod 0700"):
        security.load_keys(where)


def test_no_key_is_put_into_a_directory_that_is_open_to_others(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    for make in (security.create_cluster_key, security.create_client_key, security.user_key):
        with pytest.raises(SecurityError, match=r"open to others \(mode 0755\): chmod 0700"):
            make(tmp_path / "keys")

    assert list((tmp_path / "keys").iterdir()) == []
    (tmp_path / "keys").chmod(0o700)
    (tmp_path / "keys" / "authorized").mkdir(mode=0o755)
    security.create_cluster_key(tmp_path / "keys")
    assert security.load_keys(tmp_path / "keys").cluster_secret is not None


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecurityError, match=r"does not exist: run `mesos-actor init --key-dir"):
        security.load_keys(tmp_path / "nowhere")

    where = tmp_path / "keys"
    where.mkdir(mode=0o700)
    with pytest.raises(SecurityError, match=r"client.key is missing: run `mesos-actor init"):
        security.load_keys(where)

    for content in (b"", b"short", b"~" * 40, b"%" * 40, b"x" * 41):
        (where / "cluster.key").write_bytes(content)
        (where / "cluster.key").chmod(0o600)
        with pytest.raises(SecurityError, match="does not hold a key"):
            security.load_keys(where)


def test_halves_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    security.create_cluster_key(tmp_path / "a")
    security.create_cluster_key(tmp_path / "b")
    (tmp_path / "a" / "cluster.pub").write_bytes((tmp_path / "b" / "cluster.pub").read_bytes())

    with pytest.raises(SecurityError, match="not the public half"):
        security.load_keys(tmp_path / "a")


def test_the_users_key_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    keys = security.user_key()

    assert security.user_key() == keys == security.load_keys(tmp_path / "mesos-actor" / "keys")
    assert keys.cluster_secret is not None


def _make_user_key(where: str) -> bytes:
    return security.user_key(Path(where)).secret


@pytest.mark.slow
def test_processes_that_make_the_users_key_at_once_agree(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(4) as pool:
        secrets = pool.map(_make_user_key, [str(tmp_path / "keys")] * 16, chunksize=1)

    assert len(set(secrets)) == 1
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["cluster.key", "cluster.pub"]


def test_an_executors_key_is_its_containers_and_the_clusters(tmp_path: Path) -> None:
    for name in ("a", "b"):
        security.create_cluster_key(tmp_path / name)
    a, b = security.load_keys(tmp_path / "a"), security.load_keys(tmp_path / "b")
    one = security.executor_keys(a, ContainerId("t.1"))

    assert one == security.executor_keys(a, ContainerId("t.1"))
    assert one.cluster_secret is None
    assert one.server_public == a.public
    assert zmq.curve_public(one.secret) == one.public
    others = [security.executor_keys(a, ContainerId("t.2")), security.executor_keys(b, ContainerId("t.1"))]
    assert len({one.secret, a.secret, b.secret, *(k.secret for k in others)}) == 5
    scalar = z85.decode(one.secret)
    assert (scalar[0] & 7, scalar[31] >> 6) == (0, 1)
    with pytest.raises(SecurityError, match="only a holder of"):
        security.executor_keys(one, ContainerId("t.3"))


def test_authorized_clients_are_named_by_their_files(tmp_path: Path) -> None:
    assert security.read_authorized(tmp_path / "nowhere") == {}
    public = security.create_client_key(tmp_path / "client")
    authorized = tmp_path / "authorized"
    authorized.mkdir()
    (authorized / "alice.pub").write_text(public)
    (authorized / "notes.txt").write_text("not a key")
    assert security.read_authorized(authorized) == {public.encode(): "alice"}

    (authorized / "cluster.pub").write_text(public)
    with pytest.raises(SecurityError, match="'cluster' is reserved"):
        security.read_authorized(authorized)
