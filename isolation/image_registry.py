"""Images from a registry, over HTTPS: manifests and layers, bounded, verified by digest, taken up again when they break
off.

Source: OCI distribution-spec ("Pull"); distribution's docs/spec/auth/token.md for bearer tokens; RFC 7235 for
challenges. urllib3 does the HTTP.
"""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from urllib.parse import urlencode, urljoin, urlsplit

import msgspec
import urllib3

from mesos_actor.actors.core.image_reference import DEFAULT_REGISTRY, ImageReference, is_digest
from mesos_actor.isolation.image_blob import verified
from mesos_actor.isolation.image_error import Cancelled, ImageError
from mesos_actor.isolation.image_manifest import (
    INDEXES,
    MANIFESTS,
    MAX_INDEX_DEPTH,
    MAX_JSON_BYTES,
    Descriptor,
    Manifest,
    Platform,
    choose,
    decoded,
    own_platform,
    parse_document,
)
from mesos_actor.isolation.image_source import LayerBlob, Resolved, resolved
from mesos_actor.isolation.image_tar import Source

DOCKER_HUB = "registry-1.docker.io"
CONNECT_TIMEOUT_S = 10.0
READ_TIMEOUT_S = 60.0
"""Silence of a registry in the middle of an answer."""
PULL_TIMEOUT_S = 7_200.0
"""One image altogether, so that one that drips does not hold the store for ever."""
MAX_TRIES = 4
"""For one request, and for one layer that breaks off without anything new in between."""
PAUSE_S = 1.0
"""Before the second try; doubled for each more."""
MAX_PAUSE_S = 30.0
"""However long a registry asks us to wait (Retry-After)."""
MAX_REDIRECTS = 5
MAX_TOKEN_BYTES = 1 << 20
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
"""Spoken to without TLS, as Docker does."""

_AGAIN = (408, 429, 500, 502, 503, 504)
_REDIRECTS = (301, 302, 303, 307, 308)
_PARAMETER = re.compile(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))').finditer
_ACCEPT = ", ".join((*MANIFESTS, *INDEXES))


class RegistryOptions(msgspec.Struct, frozen=True):
    """How registries are spoken to."""

    insecure: tuple[str, ...] = ()
    """HOST or HOST:PORT of registries without TLS."""
    credentials: dict[str, tuple[str, str]] = {}
    """HOST or HOST:PORT -> user and password."""
    ca_file: str | None = None
    pause_s: float = PAUSE_S
    timeout_s: float = PULL_TIMEOUT_S


class _Auth(msgspec.Struct, frozen=True):
    auth: str = ""


class _DockerConfig(msgspec.Struct, frozen=True):
    auths: dict[str, _Auth] = {}


def credentials_of(config_json: bytes, what: str) -> dict[str, tuple[str, str]]:
    """Those in a `config.json` of Docker's client, by registry. Raises ImageError. (Mesos: --docker_config)"""
    found = {}
    for name, entry in decoded(config_json, _DockerConfig, what).auths.items():
        if not entry.auth:
            continue  # kept by a helper program, which an agent does not run
        try:
            user, colon, password = base64.b64decode(entry.auth, validate=True).decode().partition(":")
        except ValueError:
            raise ImageError(f"{what}: 'auth' of {name!r} is not base64 of USER:PASSWORD") from None
        host = urlsplit(name).netloc if "://" in name else name.partition("/")[0]
        found[DEFAULT_REGISTRY if host == "index.docker.io" else host] = (user, password if colon else "")
    return found


class _Token(msgspec.Struct, frozen=True):
    token: str = ""
    access_token: str = ""


class _Problem(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _Problems(msgspec.Struct, frozen=True):
    errors: list[_Problem] = []


class RegistrySource:
    """One image of a registry. Use it on one thread."""

    def __init__(
        self,
        reference: ImageReference,
        options: RegistryOptions | None = None,
        cancelled: threading.Event | None = None,
        own: Platform | None = None,
    ) -> None:
        self._reference = reference
        self._options = options or RegistryOptions()
        self._cancelled = cancelled or threading.Event()
        self._own = own or own_platform()
        self._what = f"image {str(reference)!r}"
        host = reference.registry
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        self._plain = host in self._options.insecure or name in LOOPBACK
        self._host = DOCKER_HUB if host == DEFAULT_REGISTRY else host
        self._base = f"{'http' if self._plain else 'https'}://{self._host}/v2/{reference.repository}"
        self._authorization = ""
        #: Why nobody answered the last request.
        self._last = ""
        self._deadline_s = time.monotonic() + self._options.timeout_s
        self._pool = _pool(self._base, self._options.ca_file)

    def close(self) -> None:
        self._pool.clear()

    # -- the image --------------------------------------------------------------------------------------------------

    def resolve(self) -> Resolved:
        name = self._reference.digest or self._reference.tag
        for _ in range(MAX_INDEX_DEPTH):
            document = parse_document(self._manifest(name), self._what)
            if isinstance(document, Manifest):
                return resolved(self._config(document.config), document.layers, self._what)
            name = choose(document, self._own, self._what).digest
        raise ImageError(f"{self._what}: more than {MAX_INDEX_DEPTH} indexes inside each other")

    def _manifest(self, name: str) -> bytes:
        with self._get(f"{self._base}/manifests/{name}", {"Accept": _ACCEPT}) as answer:
            data = self._body(answer, MAX_JSON_BYTES)
            digest = name if is_digest(name) else answer.headers.get("Docker-Content-Digest", "")
        return verified(data, digest, self._what) if digest else data

    def _config(self, descriptor: Descriptor) -> bytes:
        with self._get(f"{self._base}/blobs/{descriptor.digest}") as answer:
            data = self._body(answer, descriptor.size)
        return verified(data, descriptor.digest, f"{self._what}: configuration")

    @contextlib.contextmanager
    def open(self, layer: LayerBlob) -> Iterator[Source]:
        stream = _BlobStream(self, f"{self._base}/blobs/{layer.digest}")
        try:
            yield stream
        finally:
            stream.close()

    def _body(self, answer: urllib3.BaseHTTPResponse, max_bytes: int) -> bytes:
        """All of a small answer. Raises ImageError."""
        try:
            data = b""
            while len(data) <= max_bytes and (piece := answer.read(max_bytes + 1 - len(data), decode_content=False)):
                data += piece
        except urllib3.exceptions.HTTPError as error:
            raise ImageError(f"{self._what}: {self._host} broke off: {error}") from None
        if len(data) > max_bytes:
            raise ImageError(f"{self._what}: {self._host} sends more than the {max_bytes} bytes expected")
        return data

    # -- requests ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Iterator[urllib3.BaseHTTPResponse]:
        answer = self.get(url, headers or {})
        try:
            yield answer
        finally:
            answer.close()

    def get(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        """The answer 200 or 206, its body not yet read; with a token if the registry wants one. Raises ImageError."""
        asked_for_token = False
        tries = 0
        while True:
            answer = self._follow(url, headers)
            if answer is not None and answer.status in (200, 206):
                return answer
            status = answer.status if answer is not None else 0
            if answer is not None and status == 401 and not asked_for_token:
                asked_for_token = True
                challenge = answer.headers.get("WWW-Authenticate", "")
                answer.close()
                self._authorization = self._authorize(challenge)
                continue
            tries += 1
            if tries >= MAX_TRIES or (answer is not None and status not in _AGAIN):
                raise self._refusal(answer)
            asked_s = answer.headers.get("Retry-After", "") if answer is not None else ""
            if answer is not None:
                answer.close()
            self.pause(tries, asked_s)

    def pause(self, tries: int, asked_s: str = "") -> None:
        """Raises ImageError when there is no time left, or no wish."""
        pause_s = self._options.pause_s * 2 ** (tries - 1)
        if asked_s.isdecimal():
            pause_s = max(pause_s, min(int(asked_s[:9]), MAX_PAUSE_S))
        if self._cancelled.wait(min(pause_s, MAX_PAUSE_S)):
            raise Cancelled(f"{self._what}: cancelled")
        self.check()

    def check(self) -> None:
        if self._cancelled.is_set():
            raise Cancelled(f"{self._what}: cancelled")
        if time.monotonic() > self._deadline_s:
            raise ImageError(f"{self._what}: {self._host} takes more than {self._options.timeout_s:g} s for it")

    def broken(self, error: object) -> ImageError:
        return ImageError(f"{self._what}: {self._host} cannot be reached or breaks off: {error}")

    def _follow(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse | None:
        """One request, its redirections followed. The token goes to the registry alone. None: nobody answered."""
        sent = dict(headers)
        if self._authorization:
            sent["Authorization"] = self._authorization
        for _ in range(MAX_REDIRECTS + 1):
            self.check()
            self._last = ""
            try:
                answer = self._request(url, sent)
            except urllib3.exceptions.HTTPError as error:
                self._last = str(error)
                return None
            location = answer.headers.get("Location", "")
            if answer.status not in _REDIRECTS or not location:
                return answer
            answer.close()
            url = urljoin(url, location)
            parts = urlsplit(url)
            if parts.scheme != "https" and not (self._plain and parts.scheme == "http"):
                raise ImageError(f"{self._what}: {self._host} sends us on to {url[:200]!r}, which is not https")
            if parts.netloc != urlsplit(self._base).netloc:
                sent.pop("Authorization", None)
        raise ImageError(f"{self._what}: {self._host} sends us on more than {MAX_REDIRECTS} times")

    def _request(self, url: str, headers: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        return self._pool.request(
            "GET",
            url,
            headers=headers,
            redirect=False,
            retries=False,
            preload_content=False,
            decode_content=False,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S),
        )

    def _refusal(self, answer: urllib3.BaseHTTPResponse | None) -> ImageError:
        if answer is None:
            return self.broken(self._last)
        status = answer.status
        text = ""
        with contextlib.suppress(ImageError), contextlib.closing(answer):
            problems = decoded(self._body(answer, 1 << 16), _Problems, "").errors
            text = "; ".join(problem.message or problem.code for problem in problems)[:500]
        if status in (401, 403):
            text = f"{text or 'not allowed'}; does the image exist, and are this registry's credentials known?"
        return ImageError(f"{self._what}: {self._host} answers {status}: {text or answer.reason or 'no reason given'}")

    def _authorize(self, challenge: str) -> str:
        """What to send in Authorization from now on. Raises ImageError."""
        scheme, _, rest = challenge.partition(" ")
        known = self._options.credentials.get(self._reference.registry)
        basic = ""
        if known is not None:
            basic = "Basic " + base64.b64encode(":".join(known).encode()).decode()
        if scheme.lower() == "basic":
            if not basic:
                raise ImageError(f"{self._what}: {self._host} wants a user and a password; none are known for it")
            return basic
        parameters = {match[1].lower(): match[2] or match[3] or "" for match in _PARAMETER(rest[:10_000])}
        realm = urlsplit(parameters.get("realm", ""))
        if scheme.lower() != "bearer" or realm.scheme not in ("https", "http") or not realm.netloc:
            raise ImageError(f"{self._what}: {self._host} wants an unknown kind of login: {challenge[:200]!r}")
        if realm.scheme != "https" and not self._plain:
            raise ImageError(f"{self._what}: {self._host} wants us to log in without TLS, at {realm.netloc[:200]!r}")
        scope = parameters.get("scope") or f"repository:{self._reference.repository}:pull"
        query = urlencode({"service": parameters.get("service", ""), "scope": scope})
        url = realm._replace(query="&".join(filter(None, (realm.query, query)))).geturl()
        try:
            answer = self._request(url, {"Authorization": basic} if basic else {})
        except urllib3.exceptions.HTTPError as error:
            raise self.broken(error) from None
        if answer.status != 200:
            raise self._refusal(answer)
        with contextlib.closing(answer):
            told = decoded(self._body(answer, MAX_TOKEN_BYTES), _Token, f"{self._what}: token of {realm.netloc}")
        token = told.token or told.access_token
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ImageError(f"{self._what}: {realm.netloc[:200]} gives no token that could be used")
        return f"Bearer {token}"


class _BlobStream:
    """A layer's bytes. One that breaks off is asked for again from where it broke; its digest is judged in the end."""

    def __init__(self, registry: RegistrySource, url: str) -> None:
        self._registry = registry
        self._url = url
        self._answer: urllib3.BaseHTTPResponse | None = None
        self._offset = 0
        self._tries = 0

    def close(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None

    def read(self, size: int, /) -> bytes:
        while True:
            self._registry.check()
            if self._answer is None:
                self._answer = self._begin()
            try:
                data = self._answer.read(size, decode_content=False)
            except urllib3.exceptions.HTTPError as error:
                self.close()
                self._tries += 1
                if self._tries >= MAX_TRIES:
                    raise self._registry.broken(error) from None
                self._registry.pause(self._tries)
                continue
            if data:
                self._tries = 0
            self._offset += len(data)
            return data

    def _begin(self) -> urllib3.BaseHTTPResponse:
        headers = {"Range": f"bytes={self._offset}-"} if self._offset else {}
        answer = self._registry.get(self._url, headers)
        if self._offset and answer.status == 200:  # it does not know ranges: read over what we have
            left = self._offset
            try:
                while left and (data := answer.read(min(left, 1 << 20), decode_content=False)):
                    left -= len(data)
            except urllib3.exceptions.HTTPError as error:
                raise self._registry.broken(error) from None
        return answer


def _pool(url: str, ca_file: str | None) -> urllib3.PoolManager:
    """Connections to the registry, by the proxy that the environment names for it."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(parts.netloc):
        return urllib3.ProxyManager(proxy, ca_certs=ca_file)
    return urllib3.PoolManager(ca_certs=ca_file)
