"""Names of images, and what a ContainerSpec may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mesos_actor.actors.core.container_spec import container_error
from mesos_actor.actors.core.image_reference import ImageReference, parse_image_reference
from mesos_actor.actors.core.validation import command_error
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.messages.values import Command, ContainerSpec, Volume

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("docker://busybox:1.36", "docker.io/library/busybox:1.36"),
        ("team/app", "docker.io/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("registry.example/a/b/c:v1.2-x", "registry.example/a/b/c:v1.2-x"),
        (f"app@sha256:{HEX}", f"docker.io/library/app@sha256:{HEX}"),
        (f"app:1@sha256:{HEX}", f"docker.io/library/app:1@sha256:{HEX}"),
        ("oci:/images/app", "oci:/images/app"),
        ("oci:/images/app:v1", "oci:/images/app:v1"),
        ("oci-archive:/x.tar", "oci-archive:/x.tar"),
        ("docker-archive:/x.tar:team/app:1", "docker-archive:/x.tar:team/app:1"),
    ],
)
def test_reference(text: str, full: str) -> None:
    reference = parse_image_reference(text)

    assert str(reference) == full
    assert parse_image_reference(full) == reference


def test_parts_of_a_reference() -> None:
    found = parse_image_reference(f"reg.example:5/a/b:1@sha256:{HEX}")

    assert found == ImageReference("docker", "reg.example:5", "a/b", "1", f"sha256:{HEX}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "'' is not an image's name"),
        ("a b", "cannot be part of a repository's name"),
        ("Busybox", "'Busybox' cannot be part of a repository's name"),
        ("app:", "'' is not a tag"),
        ("app:-x", "'-x' is not a tag"),
        ("app@sha256:12", "is not a digest"),
        ("app@md5:" + HEX, "is not a digest"),
        ("a//b", "'' cannot be part"),
        ("../etc", "is not a registry's HOST"),
        ("reg.example/../x", "'..' cannot be part"),
        ("reg_.example/x", "not a registry's HOST"),
        ("oci:images", "followed by an absolute path without '..', not 'images'"),
        ("oci:/a/../b", "without '..'"),
        ("oci:/a:b c", "'b c' is not a tag"),
        ("docker-archive:/a:B", "cannot be part of a repository's name"),
        ("x" * 300, "more than 255 characters"),
        ("a\0b", "not an image's name"),
    ],
)
def test_bad_reference(text: str, error: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_image_reference(text)
    assert error in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        reference = parse_image_reference(text)
    except InvalidInput:
        return
    assert parse_image_reference(str(reference)) == reference


def volume(host: str = "/srv", inside: str = "/data") -> tuple[Volume, ...]:
    return (Volume(host, inside),)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": "rkt"}, "'type' must be one of '', 'docker', 'linux', not 'rkt'"),
        ({"network": "overlay"}, "'network' must be one of 'host', 'bridge', 'own', 'none', not 'overlay'"),
        ({"pull": "yes"}, "'pull' must be one of 'missing', 'always', 'never', not 'yes'"),
        ({"image": "A"}, "cannot be part of a repository's name"),
        ({"type": "docker"}, "'image' is empty, but 'type' is 'docker'"),
        ({"type": "docker", "image": "oci:/x"}, "loads docker-archive: tarballs only"),
        ({"volumes": volume("srv")}, "'host_path' must be an absolute path without '..', not 'srv'"),
        ({"volumes": volume("/a/../b")}, "'host_path' must be an absolute path"),
        ({"volumes": volume(inside="data")}, "'container_path' must be an absolute path"),
        ({"volumes": volume(inside="/x" * 3_000)}, "more than 4095 bytes"),
        ({"volumes": volume(inside="/")}, "is the container's own"),
        ({"volumes": volume(inside="//proc/./self")}, "is the container's own"),
        ({"volumes": volume() + volume("/b", "/data/")}, "two volumes have 'container_path' '/data/'"),
        ({"volumes": volume() * 1_001}, "1001 'volumes'; at most 1000 are accepted"),
    ],
)
def test_bad_container(fields: dict[str, Any], error: str) -> None:
    problem = container_error(replace(ContainerSpec(), **fields))

    assert problem is not None
    assert error in problem
    assert command_error(Command(("x",), container=replace(ContainerSpec(), **fields)), "It") == (
        f"It has an invalid container: {problem}"
    )


def test_good_containers() -> None:
    assert container_error(ContainerSpec()) is None
    assert container_error(ContainerSpec("docker-archive:/x", "docker", volume(), "none", "never", True)) is None
    assert container_error(ContainerSpec("oci:/x", "linux", volume(inside="/device"), "own")) is None


def test_command_may_be_left_to_an_image_only() -> None:
    assert command_error(Command((), container=ContainerSpec("app")), "It") is None
    for bad in (Command((), container=ContainerSpec()), Command((), True, container=ContainerSpec("app"))):
        assert command_error(bad, "It") == "It has no program to execute: 'argv' is empty"
