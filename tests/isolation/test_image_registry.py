"""Pulling from a registry: a small one of the tests' own, that can be wrong in many ways."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from mesos_actor.actors.core.image_reference import ImageReference, parse_image_reference
from mesos_actor.actors.messages.values import ContainerSpec
from mesos_actor.isolation.fetch import Reader
from mesos_actor.isolation.image_error import Cancelled, ImageError
from mesos_actor.isolation.image_provide import provide
from mesos_actor.isolation.image_registry import RegistryOptions, RegistrySource, credentials_of
from mesos_actor.isolation.image_store import ImageStore, StoredImage
from tests.isolation.image_files import archive, blobs_of, docker_archive, member, sha

pytestmark = pytest.mark.zmq
"""It opens real sockets on loopback, as that mark says."""

LAYER = archive(member("file", bytes(range(256)) * 400))
USER = ("me", "secret")


class Registry:
    """Serves `blobs` and `tags` of the repository team/app. Faults: set what `fault` returns for a request."""

    def __init__(self) -> None:
        manifest, self.blobs = blobs_of([LAYER], packed=False, Cmd=["run"])
        self.tags = {"v1": manifest}
        self.token = ""
        self.user: tuple[str, str] | None = None
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[Any, str], bool] = lambda handler, path: False
        registry = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: object) -> None:
                """Silent."""

            def do_GET(self) -> None:
                registry.requests.append((self.path, self.headers.get("Authorization", "")))
                if not registry.fault(self, self.path):
                    registry.answer(self)

            def tell(self, status: int, body: bytes = b"", **headers: str) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, handler: Any) -> None:
        parts = urlsplit(handler.path)
        if parts.path == "/token":
            self.give_token(handler, parse_qs(parts.query))
            return
        if self.token and handler.headers.get("Authorization") != f"Bearer {self.token}":
            challenge = f'Bearer realm="http://{self.host}/token",service="reg",scope="repository:team/app:pull"'
            handler.tell(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', WWW_Authenticate=challenge)
            return
        kind, _, name = parts.path.removeprefix("/v2/team/app/").partition("/")
        body = self.blobs.get(name) if kind == "blobs" else self.tags.get(name, self.blobs.get(name))
        if body is None:
            handler.tell(404, b'{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}')
            return
        wanted = handler.headers.get("Range", "").removeprefix("bytes=").removesuffix("-")
        if wanted and kind == "blobs":
            handler.tell(206, body[int(wanted) :])
        else:
            handler.tell(200, body)

    def give_token(self, handler: Any, query: dict[str, list[str]]) -> None:
        assert query == {"service": ["reg"], "scope": ["repository:team/app:pull"]}
        expected = "" if self.user is None else "Basic " + base64.b64encode(":".join(self.user).encode()).decode()
        if handler.headers.get("Authorization", "") != expected:
            handler.tell(401, b"{}")
        else:
            handler.tell(200, b'{"token": "' + self.token.encode() + b'"}')


@pytest.fixture
def registry() -> Iterator[Registry]:
    found = Registry()
    yield found
    found.close()


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    found = ImageStore(tmp_path / "store")
    found.open()
    return found


Pull = Callable[..., StoredImage]


@pytest.fixture
def pull(registry: Registry, store: ImageStore) -> Pull:
    def pulling(tag: str = ":v1", cancelled: threading.Event | None = None, **options: Any) -> StoredImage:
        reference = parse_image_reference(f"{registry.host}/team/app{tag}")
        source = RegistrySource(reference, RegistryOptions(**{"pause_s": 0.001, **options}), cancelled)
        return store.add(source, str(reference), cancelled)

    return pulling


def test_image_is_pulled_by_its_tag_and_by_its_digest(pull: Pull, registry: Registry, store: ImageStore) -> None:
    image = pull()

    assert (image.config.cmd, image.layers) == (("run",), (sha(LAYER),))
    assert pull(f"@{sha(registry.tags['v1'])}") == image
    assert [path for path, _ in registry.requests if sha(LAYER) in path] == [f"/v2/team/app/blobs/{sha(LAYER)}"]


@pytest.mark.parametrize("user", [None, USER])
def test_token_is_fetched_and_used(pull: Pull, registry: Registry, user: tuple[str, str] | None) -> None:
    registry.token, registry.user = "t0ken", user
    known = {registry.host: user} if user else {}

    pull(credentials=known)

    assert sum(path.startswith("/token") for path, _ in registry.requests) == 1
    assert registry.requests[-1][1] == "Bearer t0ken"


def test_wrong_credentials_are_told(pull: Pull, registry: Registry) -> None:
    registry.token, registry.user = "t0ken", USER

    with pytest.raises(ImageError, match=r"answers 401: .* are this registry's credentials known\?"):
        pull()


def test_unknown_image_is_told_in_the_registrys_words(pull: Pull) -> None:
    with pytest.raises(ImageError, match="answers 404: manifest unknown"):
        pull(":v2")


def test_registry_that_is_not_there_is_told() -> None:
    reference = ImageReference("docker", "127.0.0.1:1", "app", "v1")
    source = RegistrySource(reference, RegistryOptions(pause_s=0.001))

    with pytest.raises(ImageError, match=r"127\.0\.0\.1:1 cannot be reached"):
        source.resolve()
    source.close()


def test_layer_that_breaks_off_is_taken_up_where_it_broke(pull: Pull, registry: Registry) -> None:
    broken: list[int] = []

    def fault(handler: Any, path: str) -> bool:
        if sha(LAYER) not in path or len(broken) == 2:
            return False
        begin = int(handler.headers.get("Range", "bytes=0-")[6:-1])
        broken.append(begin)
        handler.send_response(206 if begin else 200)
        handler.send_header("Content-Length", str(len(LAYER) - begin))
        handler.end_headers()
        handler.wfile.write(LAYER[begin : begin + 30_000])
        handler.close_connection = True
        return True

    registry.fault = fault
    assert pull().layers == (sha(LAYER),)
    assert broken == [0, 30_000]


def test_registry_without_ranges_is_read_from_the_start(pull: Pull, registry: Registry) -> None:
    seen: list[str | None] = []

    def fault(handler: Any, path: str) -> bool:
        if sha(LAYER) not in path:
            return False
        seen.append(handler.headers.get("Range"))
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(LAYER)))
        handler.end_headers()
        handler.wfile.write(LAYER if len(seen) > 1 else LAYER[:50_000])
        handler.close_connection = True
        return True

    registry.fault = fault
    assert pull().layers == (sha(LAYER),)
    assert seen == [None, "bytes=50000-"]


def test_layer_that_always_breaks_off_at_the_same_byte_fails(pull: Pull, registry: Registry) -> None:
    def fault(handler: Any, path: str) -> bool:
        if sha(LAYER) not in path:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(LAYER)))
        handler.end_headers()
        handler.close_connection = True
        return True

    registry.fault = fault
    with pytest.raises(ImageError, match="breaks off"):
        pull()


def test_busy_registry_is_asked_again(pull: Pull, registry: Registry) -> None:
    busy = iter([503, 429])

    def fault(handler: Any, path: str) -> bool:
        status = next(busy, None)
        if status:
            handler.tell(status, Retry_After="0")
        return bool(status)

    registry.fault = fault
    assert pull().config.cmd == ("run",)


def test_registry_that_stays_busy_fails(pull: Pull, registry: Registry) -> None:
    registry.fault = lambda handler, path: handler.tell(503) or True

    with pytest.raises(ImageError, match="answers 503"):
        pull()
    assert len(registry.requests) == 4


def test_redirected_layer_is_fetched_without_our_token(pull: Pull, registry: Registry) -> None:
    other = Registry()
    try:
        registry.token = "t0ken"

        def fault(handler: Any, path: str) -> bool:
            if sha(LAYER) in path:
                handler.tell(307, Location=f"http://{other.host}{path}")
            return sha(LAYER) in path

        registry.fault = fault
        assert pull().layers == (sha(LAYER),)
        assert other.requests == [(f"/v2/team/app/blobs/{sha(LAYER)}", "")]
    finally:
        other.close()


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("file:///etc/passwd", "sends us on to 'file:///etc/passwd', which is not https"),
        ("/v2/team/app/manifests/v1", "sends us on more than 5 times"),
    ],
)
def test_bad_redirections(pull: Pull, registry: Registry, location: str, text: str) -> None:
    registry.fault = lambda handler, path: handler.tell(302, Location=location) or True

    with pytest.raises(ImageError, match=text):
        pull()


@pytest.mark.parametrize(
    ("challenge", "text"),
    [
        ("Negotiate", "wants an unknown kind of login"),
        ("Bearer x", "wants an unknown kind of login"),
        ('Bearer realm="file:///etc/passwd"', "wants an unknown kind of login"),
        ('Basic realm="x"', "wants a user and a password; none are known"),
    ],
)
def test_bad_challenges(pull: Pull, registry: Registry, challenge: str, text: str) -> None:
    registry.fault = lambda handler, path: handler.tell(401, WWW_Authenticate=challenge) or True

    with pytest.raises(ImageError, match=text):
        pull()


def test_token_that_would_break_a_header_is_refused(pull: Pull, registry: Registry) -> None:
    registry.token = "a\\r\\nX: y"

    with pytest.raises(ImageError, match="gives no token that could be used"):
        pull()


def test_contents_that_are_not_as_promised(pull: Pull, registry: Registry) -> None:
    good = dict(registry.blobs)
    manifest = registry.tags["v1"]
    registry.blobs[sha(LAYER)] = LAYER[:-1] + b"x"
    with pytest.raises(ImageError, match="digest is sha256:"):
        pull()
    registry.blobs = {digest: blob + b"x" if digest != sha(LAYER) else blob for digest, blob in good.items()}
    with pytest.raises(ImageError, match=r"more than the .* bytes expected|its digest is"):
        pull()
    registry.blobs = good
    registry.tags["v1"] = b" " * (5 << 20)
    with pytest.raises(ImageError, match="more than the 4194304 bytes expected"):
        pull()
    registry.tags["v1"] = manifest
    registry.blobs[sha(manifest)] = manifest + b" "
    with pytest.raises(ImageError, match="its digest is"):
        pull(f"@{sha(manifest)}")


def test_pull_has_an_end(pull: Pull, registry: Registry) -> None:
    with pytest.raises(ImageError, match="takes more than 0 s for it"):
        pull(timeout_s=0.0)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Cancelled):
        pull(cancelled=cancelled)
    assert registry.requests == []


def test_only_loopback_and_what_the_operator_named_goes_without_tls() -> None:
    def base(text: str, *insecure: str) -> str:
        source = RegistrySource(parse_image_reference(text), RegistryOptions(insecure=insecure))
        source.close()
        return source._base

    assert base("app") == "https://registry-1.docker.io/v2/library/app"
    assert base("reg.example:5000/a") == "https://reg.example:5000/v2/a"
    assert base("reg.example:5000/a", "reg.example:5000") == "http://reg.example:5000/v2/a"
    assert base("localhost:5000/a") == "http://localhost:5000/v2/a"
    assert base("localhost.evil.example/a") == "https://localhost.evil.example/v2/a"


def test_credentials_of_dockers_client() -> None:
    auth = base64.b64encode(b"me:se:cret").decode()
    text = (
        '{"auths": {"https://index.docker.io/v1/": {"auth": "%s"}, "reg.example:5": {"auth": "%s"}, "helped": {}},'
        ' "credsStore": "x"}'
    )

    assert credentials_of((text % (auth, auth)).encode(), "c") == {
        "docker.io": ("me", "se:cret"),
        "reg.example:5": ("me", "se:cret"),
    }
    with pytest.raises(ImageError, match="'auth' of 'a' is not base64"):
        credentials_of(b'{"auths": {"a": {"auth": "!"}}}', "c")


@pytest.mark.parametrize(("policy", "requests"), [("missing", 3), ("always", 5)])
def test_pull_policy(registry: Registry, store: ImageStore, policy: str, requests: int) -> None:
    spec = ContainerSpec(f"{registry.host}/team/app:v1", pull=policy)

    assert provide(store, spec) == provide(store, spec)
    assert len(registry.requests) == requests
    never = ContainerSpec(f"{registry.host}/team/app:v1", pull="never")
    assert provide(store, never).config.cmd == ("run",)
    assert len(registry.requests) == requests
    with pytest.raises(ImageError, match="is not on this host, and 'pull' is 'never'"):
        provide(store, ContainerSpec(f"{registry.host}/team/app:v2", pull="never"))


def test_image_by_digest_is_asked_for_once(registry: Registry, store: ImageStore) -> None:
    spec = ContainerSpec(f"{registry.host}/team/app@{sha(registry.tags['v1'])}", pull="always")

    assert provide(store, spec) == provide(store, spec)
    assert len(registry.requests) == 3


def test_image_on_disk_is_looked_at_each_time(store: ImageStore, tmp_path: Path) -> None:
    path = tmp_path / "saved.tar"
    path.write_bytes(docker_archive([LAYER], Cmd=["one"]))
    spec = ContainerSpec(f"docker-archive:{path}")
    assert provide(store, spec).config.cmd == ("one",)
    path.write_bytes(docker_archive([LAYER], Cmd=["two"]))
    assert provide(store, spec).config.cmd == ("two",)
    path.chmod(0o600)

    with pytest.raises(ImageError, match="the task's user may not read it"):
        provide(store, spec, reader=Reader(54_321, ()))
