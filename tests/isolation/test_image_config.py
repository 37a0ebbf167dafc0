"""A task's command in an image: docker run's rules."""

from __future__ import annotations

import pytest

from mesos_actor.actors.messages.values import Command
from mesos_actor.isolation.command import CommandError
from mesos_actor.isolation.image_config import DEFAULT_PATH, ImageUser, resolve_user, run_in_image
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_manifest import ImageConfig, parse_config

BOTH = ImageConfig(entrypoint=("/entry", "-x"), cmd=("serve",))


@pytest.mark.parametrize(
    ("image", "command", "argv"),
    [
        (BOTH, Command(()), ("/entry", "-x", "serve")),
        (BOTH, Command(("other", "1")), ("/entry", "-x", "other", "1")),
        (BOTH, Command(("echo $X",), shell=True), ("/bin/sh", "-c", "echo $X")),
        (ImageConfig(cmd=("serve",)), Command(()), ("serve",)),
        (ImageConfig(cmd=("serve",)), Command(("sh",)), ("sh",)),
        (ImageConfig(entrypoint=("/entry",)), Command(()), ("/entry",)),
        (ImageConfig(), Command(("sh",)), ("sh",)),
    ],
)
def test_arguments(image: ImageConfig, command: Command, argv: tuple[str, ...]) -> None:
    assert run_in_image(command, image).argv == argv


def test_nothing_to_run_is_said() -> None:
    with pytest.raises(CommandError, match="is empty, and the image names no program either"):
        run_in_image(Command(()), ImageConfig())


def test_environment_user_and_directory() -> None:
    image = ImageConfig(cmd=("x",), env=("A=image", "B=1=2", "broken", "=x"), working_dir="srv", user="www:web")

    run = run_in_image(Command((), env={"A": "task"}), image)

    assert run.env == {"PATH": DEFAULT_PATH, "A": "task", "B": "1=2"}
    assert (run.working_dir, run.user) == ("/srv", "www:web")
    assert run_in_image(Command((), user="me"), image).user == "me"
    assert run_in_image(Command(("x",)), ImageConfig()).working_dir == "/"


PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/srv:/bin/false\nbroken\nodd:x:z:1:::\n"
GROUP = "root:x:0:\nwww:x:33:\nweb:x:44:www,other\n"


@pytest.mark.parametrize(
    ("user", "found"),
    [
        ("", ImageUser(0, 0, (), "/root")),
        ("www", ImageUser(33, 33, (44,), "/srv")),
        ("33", ImageUser(33, 33, (44,), "/srv")),
        ("www:web", ImageUser(33, 44, (), "/srv")),
        ("1000", ImageUser(1000, 0, (), "/")),
        ("1000:44", ImageUser(1000, 44, (), "/")),
        ("1000:1001", ImageUser(1000, 1001, (), "/")),
    ],
)
def test_user_of_the_image(user: str, found: ImageUser) -> None:
    assert resolve_user(user, PASSWD, GROUP) == found


@pytest.mark.parametrize(
    ("user", "text"),
    [
        ("nobody", "has no user 'nobody'"),
        ("odd", "has no user 'odd'"),
        ("www:none", "has no group 'none'"),
        ("4294967295", "above 4294967294"),
        ("-1", "has no user '-1'"),
        ("99999999999", "has no user"),
    ],
)
def test_user_that_is_none(user: str, text: str) -> None:
    with pytest.raises(CommandError, match=text):
        resolve_user(user, PASSWD, GROUP)


def test_configuration_with_nulls_is_as_good_as_an_empty_one() -> None:
    text = b'{"os": "linux", "config": {"Entrypoint": null, "Cmd": ["x"], "Env": null}, "rootfs": {"diff_ids": null}}'

    assert parse_config(text, "x") == ImageConfig(cmd=("x",))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b'{"os": "windows"}', "for 'windows', not for linux"),
        (b'{"rootfs": {"diff_ids": ["x"]}}', "'x' is not a sha256"),
        (b'{"config": {"Cmd": "sh"}}', "Expected `array"),
        (b'{"config": {"Cmd": ["a\\u0000"]}}', "a NUL character"),
        (b"[" * 100_000, "not what it should be"),
    ],
)
def test_bad_configuration(text: bytes, error: str) -> None:
    with pytest.raises(ImageError, match=error):
        parse_config(text, "x")
