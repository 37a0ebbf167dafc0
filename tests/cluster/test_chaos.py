"""`mesos-actor chaos` on real processes, for a short time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_a_short_run_loses_nothing(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    command = [sys.executable, "-m", "mesos_actor", "chaos", "--kills", "8", "--kill", "masters,agents,frameworks"]
    command += ["--pause", "--agents", "2", "--seed", "5", "--json", "--keep", str(kept)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)

    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    report = json.loads(done.stdout)
    assert report["passed"] and not any(report["violations"].values())
    assert (
        sum(count for what, count in report["injected"].items() if what.startswith("kill")) >= 3
    )  # of all counts once
    assert report["writes"]["ok"] > 0 and report["reads"] > 0
    assert 0 < report["tasks"]["launched"] == report["tasks"]["ended"] + report["tasks"]["given_up"]
    assert json.loads((kept / "report.json").read_text()) == report
    assert not processes_of(kept)


def processes_of(directory: Path) -> list[str]:
    mark = f"HOME={directory}/home".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found += [entry.name] if mark in (entry / "environ").read_bytes().split(b"\0") else []
            except OSError:
                continue
    return found
