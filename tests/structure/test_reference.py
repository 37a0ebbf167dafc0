"""The reference pages are what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_reference_pages_are_up_to_date() -> None:
    result = subprocess.run(
        [sys.executable, "scripts/reference", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_every_page_named_in_the_readme_exists() -> None:
    text = (ROOT / "README.md").read_text()
    named = {part.partition(")")[0] for part in text.split("](")[1:]}

    assert [name for name in sorted(named) if not name.startswith("http") and not (ROOT / name).exists()] == []
