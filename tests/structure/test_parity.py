"""What docs/parity.md claims can be looked up."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "parity.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|\n").split(" |")]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| Mesos")
]


def test_every_module_and_test_that_it_names_exists() -> None:
    named = set(re.findall(r"`([a-z_/]+\.py)`", PAGE))

    assert [name for name in sorted(named) if not (ROOT / name).is_file()] == []
    assert len(named) > 30


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_row_has_a_mark_and_its_proof(row: list[str]) -> None:
    name, mark, where, what = row

    assert name
    assert mark in ("have", "partly", "not")
    if mark == "not":
        assert where == ""
    else:
        assert re.search(r"`isolation/\w+\.py`", where)
        assert re.search(r"`tests/\w+/test_\w+\.py`", where)
        assert what
