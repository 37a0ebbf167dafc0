"""What docs/resources.md says about resources is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mesos_actor import Attributes, Resources
from mesos_actor.actors.core.constraints import parse_constraint

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "resources.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def test_the_text_and_the_json_say_what_they_show() -> None:
    text = re.findall(r"^    (\S+)$", section("Text"), re.MULTILINE)[0]
    in_json = section("JSON").split("```json")[1].split("```")[0]

    resources = Resources.parse(text)
    assert str(resources.reserved("ads") + resources.reserved("role")) == "bugs(role):{a,b,c};disk(ads):409600"
    assert resources.contains(Resources.parse(in_json))


def test_the_attributes_can_be_read() -> None:
    text = re.findall(r"^    (\S.*)$", section("Attributes"), re.MULTILINE)[0]

    assert {entry.name for entry in Attributes.parse(text)} == {"rack", "os", "zone", "ports"}


def test_the_constraints_can_be_read() -> None:
    shown = [text for line in re.findall(r"^\| (`.*?) \|", section("Constraints"), re.M) for text in line.split(", ")]

    assert [str(parse_constraint(text.strip("`"))) for text in shown] == [text.strip("`") for text in shown]
    assert len(shown) == 6


def test_the_example_prints_what_its_comments_say(capsys: pytest.CaptureFixture[str]) -> None:
    example = section("Roles: what a task may ask for").split("```python")[1].split("```")[0]

    exec(compile(example, "docs/resources.md", "exec"), {})  # noqa: S102

    comments = re.findall(r"#\s(.*)$", example, re.MULTILINE)
    printed = capsys.readouterr().out.splitlines()
    assert [comment.startswith(line) for line, comment in zip(printed, comments, strict=True)] == [True, True, True]
