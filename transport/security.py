"""Keys: who belongs to a cluster, and under which name.

A key directory (mode 0700) holds one 40-character Z85 key a file:

    cluster.key          the cluster's secret, on masters and agents: whoever holds it is principal `cluster`
    cluster.pub          its public half: every listening process proves that it holds the secret to it
    client.key           instead of cluster.key, for a user or framework that must not hold the cluster's secret
    client.pub           its public half, for the operator to put under `authorized/` of masters and agents
    authorized/<n>.pub   clients that may connect, as principal <n>

An executor gets a key of its own, derived from the cluster's secret and its container's id, so that an agent needs to
keep nothing to know it again after a restart.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import zmq
from zmq.utils import z85

from mesos_actor.actors.errors import SecurityError
from mesos_actor.actors.ids import ContainerId, Principal

CLUSTER = Principal("cluster")
"""Holders of the cluster's secret."""

ANONYMOUS = Principal("anonymous")
"""Everybody, when security was switched off on purpose."""

RESERVED_PRINCIPALS = frozenset({"cluster", "anonymous", "local"})
"""Names that no authorised client may take; nor may one begin with `executor:`."""

MAX_AUTHORIZED_KEYS = 10_000
"""More files than this under `authorized/` are refused as a mistake."""

_KEY_LENGTH = 40


class Keys(msgspec.Struct, frozen=True):
    """What a process needs to speak to its cluster. All Z85."""

    server_public: bytes
    """The cluster's public key: what a listening process must prove."""
    public: bytes
    secret: bytes
    cluster_secret: bytes | None = None
    """Held by masters and agents; None for clients and executors, which cannot listen."""
    authorized: Path | None = None
    """The directory of the clients' public keys, read again when it changes."""

    @property
    def fingerprint(self) -> str:
        """Names the cluster's key without being it: 16 hex digits."""
        return hashlib.blake2b(self.server_public, digest_size=8).hexdigest()


# -- making keys ----------------------------------------------------------------------------------------------------


def create_cluster_key(key_dir: Path) -> None:
    """Make the key of a new cluster in `key_dir`. Raises SecurityError when one is there already, or when the directory
    is open to others."""
    _make_private_directory(key_dir)
    _public, secret = zmq.curve_keypair()
    if not _create_file(key_dir / "cluster.key", secret, 0o600):
        raise SecurityError(
            f"{key_dir / 'cluster.key'} exists already: name another --key-dir, or remove it if no cluster uses it"
        )
    _publish(key_dir, "cluster.pub", secret)
    _make_directory(key_dir / "authorized")  # public keys only: others may read it


def create_client_key(key_dir: Path) -> str:
    """Make `client.key` and `client.pub` in `key_dir`; returns the public key, to be put under `authorized/`.

    Raises SecurityError when one is there already, or when the directory is open to others.
    """
    _make_private_directory(key_dir)
    public, secret = zmq.curve_keypair()
    if not _create_file(key_dir / "client.key", secret, 0o600):
        raise SecurityError(f"{key_dir / 'client.key'} exists already: use it, or remove it first")
    _publish(key_dir, "client.pub", secret)
    return public.decode()


def user_key_dir() -> Path:
    """Where this user's own key for clusters on this host lies."""
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "mesos-actor" / "keys"


def user_key(key_dir: Path | None = None) -> Keys:
    """This user's own key for clusters on this host, made when it is missing.

    Several processes at once are fine: the first to link its file in wins, the others read it.
    """
    where = key_dir or user_key_dir()
    if not (where / "client.key").exists() and not (where / "cluster.key").exists():
        _make_private_directory(where)
        _create_file(where / "cluster.key", zmq.curve_keypair()[1], 0o600)
    if (where / "cluster.key").exists():
        _check_private(where)
        _publish(where, "cluster.pub", _read_secret(where / "cluster.key"))
    return load_keys(where)


# -- reading keys ---------------------------------------------------------------------------------------------------


def load_keys(key_dir: Path) -> Keys:
    """The keys in `key_dir`. Raises SecurityError, naming the fix, when one is missing, damaged or open to others."""
    if not key_dir.is_dir():
        raise SecurityError(f"key directory {key_dir} does not exist: run `mesos-actor init --key-dir {key_dir}`")
    _check_private(key_dir)
    if (key_dir / "cluster.key").exists():
        secret = _read_secret(key_dir / "cluster.key")
        public = zmq.curve_public(secret)
        published = key_dir / "cluster.pub"
        if published.exists() and _read_key(published) != public:
            raise SecurityError(f"{published} is not the public half of cluster.key: copy both from one master")
        return Keys(public, public, secret, secret, key_dir / "authorized")
    for name, fix in (
        ("client.key", f"run `mesos-actor init --key-dir {key_dir}` for a new cluster, or copy its cluster.key there"),
        ("cluster.pub", "copy it from a master's key directory"),
    ):
        if not (key_dir / name).exists():
            raise SecurityError(f"{key_dir / name} is missing: {fix}")
    secret = _read_secret(key_dir / "client.key")
    return Keys(_read_key(key_dir / "cluster.pub"), zmq.curve_public(secret), secret)


def executor_keys(keys: Keys, container_id: ContainerId) -> Keys:
    """The keys of the executor in `container_id`: the same each time they are asked for.

    Raises SecurityError when `keys` lack the cluster's secret.
    """
    if keys.cluster_secret is None:
        raise SecurityError("only a holder of cluster.key can make a key for an executor")
    digest = hashlib.blake2b(b"executor" + container_id.encode(), key=z85.decode(keys.cluster_secret), digest_size=32)
    scalar = bytearray(digest.digest())
    scalar[0] &= 248  # Curve25519's form of a secret (RFC 7748, section 5)
    scalar[31] = (scalar[31] & 127) | 64
    secret = z85.encode(bytes(scalar))
    return Keys(keys.server_public, zmq.curve_public(secret), secret)


def read_authorized(
    directory: Path, report_bad: Callable[[SecurityError], None] | None = None
) -> dict[bytes, Principal]:
    """The clients' public keys (Z85) in `directory` with their principals; empty when there is no such directory.

    Raises SecurityError for a file that holds no key, a reserved name, or too many files; with `report_bad`, a bad file
    is told there and left out, so that it keeps nobody else in or out.
    """
    if not directory.is_dir():
        return {}
    found: dict[bytes, Principal] = {}
    for path in sorted(directory.glob("*.pub")):
        name = path.stem
        try:
            if name in RESERVED_PRINCIPALS or name.startswith("executor:"):
                raise SecurityError(f"{path}: the name '{name}' is reserved; rename the file")
            found[_read_key(path)] = Principal(name)
        except SecurityError as error:
            if report_bad is None:
                raise
            report_bad(error)
        if len(found) > MAX_AUTHORIZED_KEYS:
            raise SecurityError(f"{directory} holds more than {MAX_AUTHORIZED_KEYS} keys; remove the unused ones")
    return found


def _read_secret(path: Path) -> bytes:
    _check_private(path)
    return _read_key(path)


def _read_key(path: Path) -> bytes:
    try:
        text = path.read_bytes().strip()
    except OSError as error:
        raise SecurityError(f"{path} cannot be read: {error.strerror}") from error
    try:
        if len(text) != _KEY_LENGTH or len(z85.decode(text)) != 32:
            raise ValueError
    except (ValueError, KeyError, struct.error) as error:
        raise SecurityError(f"{path} does not hold a key of {_KEY_LENGTH} Z85 characters: copy it again") from error
    return text


def _check_private(path: Path) -> None:
    try:
        found = path.stat()
    except OSError as error:
        raise SecurityError(f"{path} cannot be read: {error.strerror}") from error
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        fix = "0700" if stat.S_ISDIR(found.st_mode) else "0600"
        raise SecurityError(f"{path} is open to others (mode {mode:04o}): chmod {fix} {path}")
    if found.st_uid not in (os.geteuid(), 0):
        raise SecurityError(f"{path} belongs to user {found.st_uid}: it must be yours (chown {os.geteuid()} {path})")


def _make_private_directory(path: Path) -> None:
    """Make `path`, or be content with it when it is as private as `load_keys` wants it."""
    _make_directory(path)
    _check_private(path)


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SecurityError(f"{path} cannot be made: {error.strerror}; name another --key-dir") from error


def _create_file(path: Path, content: bytes, mode: int) -> bool:
    """Make `path` whole or not at all; False when it exists."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        _write_file(draft, content, mode)
        try:
            os.link(draft, path)
        except FileExistsError:
            return False
        return True
    except OSError as error:
        raise SecurityError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()


def _publish(key_dir: Path, name: str, secret: bytes) -> None:
    """Write the public half of `secret` to `name`, unless it is there."""
    path = key_dir / name
    if not path.exists():
        _create_file(path, zmq.curve_public(secret), 0o644)


def _write_file(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content + b"\n")
        file.flush()
        os.fsync(file.fileno())
