"""The one rule, enforced: actors are pure, and every layer knows only the ones below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SHELL = {
    "callable_executor",
    "chaos",
    "cli",
    "client",
    "client_registry",
    "cluster_executor",
    "config",
    "config_part",
    "host",
    "logs",
    "ports",
    "run",
    "runtime",
    "runtime_timers",
    "runtime_turn",
    "store",
}
"""Modules of actors/ that touch the world for the others; all else there is pure. `chaos`, `cli` are packages."""

PURE_STANDARD_LIBRARY = {
    "__future__",
    "abc",
    "bisect",
    "collections",
    "contextlib",
    "copy",
    "dataclasses",
    "decimal",
    "difflib",
    "enum",
    "fractions",
    "functools",
    "graphlib",
    "heapq",
    "inspect",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "textwrap",
    "types",
    "typing",
}
"""What a pure module may import of the standard library. `random` is allowed for its type alone, see below."""

CORE_MAY = ("core", "messages", "ids", "resources", "resource_text", "task", "errors")


def _modules() -> list[Path]:
    return sorted(p for p in (ROOT / "actors").rglob("*.py") if "__pycache__" not in p.parts)


def _is_shell(path: Path) -> bool:
    first = path.relative_to(ROOT / "actors").parts[0].removesuffix(".py")
    return first in SHELL


def _imports(path: Path) -> list[tuple[str, int]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found.append((node.module or "", node.lineno))
    return found


@pytest.mark.parametrize("path", [p for p in _modules() if not _is_shell(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_pure_modules_import_nothing_that_touches_the_world(path: Path) -> None:
    bad = []
    for name, line in _imports(path):
        top = name.partition(".")[0]
        if top == "mesos_actor":
            continue
        if top == "random":
            continue  # judged by the next test
        if top not in PURE_STANDARD_LIBRARY and top != "msgspec":
            bad.append(f"{path.name}:{line}: {name}")

    assert bad == []


@pytest.mark.parametrize("path", [p for p in _modules() if not _is_shell(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_pure_modules_use_random_for_its_type_only(path: Path) -> None:
    bad = [
        f"{path.name}:{node.lineno}: random.{node.attr}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "random"
        and node.attr != "Random"
    ]
    calls = [
        f"{path.name}:{node.lineno}: {ast.unparse(node.func)}()"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("open", "input", "eval", "exec", "random.Random")
    ]

    assert bad + calls == []


@pytest.mark.parametrize("path", [p for p in _modules() if not _is_shell(p)], ids=lambda p: str(p.relative_to(ROOT)))
def test_layers_only_look_down(path: Path) -> None:
    inside = path.relative_to(ROOT / "actors")
    bad = []
    for name, line in _imports(path):
        if not name.startswith("mesos_actor."):
            continue
        parts = name.split(".")[1:]
        if parts[0] != "actors":
            bad.append(f"{inside}:{line}: {name} (actors do not know {parts[0]}/)")
        elif len(parts) > 1 and parts[1] in SHELL:
            bad.append(f"{inside}:{line}: {name} (pure code does not know the shell)")
        elif inside.parts[0] == "core" and len(parts) > 1 and parts[1] not in CORE_MAY:
            bad.append(f"{inside}:{line}: {name} (core knows only {', '.join(CORE_MAY)})")

    assert bad == []


def test_only_tests_cli_and_testing_know_the_simulator() -> None:
    bad = []
    for folder in ("actors", "transport", "isolation", "raft"):
        for path in (ROOT / folder).rglob("*.py"):
            inside = path.relative_to(ROOT)
            if inside.parts[:2] == ("transport", "sim") or inside.parts[:2] in (
                ("actors", "cli"),
                ("actors", "cli.py"),
            ):
                continue
            bad += [f"{inside}:{line}: {name}" for name, line in _imports(path) if "transport.sim" in name]

    assert bad == []


RAFT_MAY = ("raft", "actors.core", "actors.errors", "actors.ids", "actors.messages", "actors.ports", "actors.store")
"""What raft/ builds on; of these, `ports` for the shape of an outlet and `store` for the lock of a directory."""


@pytest.mark.parametrize("path", sorted((ROOT / "raft").glob("*.py")), ids=lambda p: p.name)
def test_raft_knows_no_network_and_one_module_of_it_knows_pysyncobj(path: Path) -> None:
    bad = []
    for name, line in _imports(path):
        inside = name.removeprefix("mesos_actor.")
        if name.startswith("mesos_actor.") and not inside.startswith(RAFT_MAY):
            bad.append(f"{path.name}:{line}: {name}")
        if name.partition(".")[0] == "pysyncobj" and path.name != "engine.py":
            bad.append(f"{path.name}:{line}: {name}")
        if name.partition(".")[0] in ("time", "socket", "threading", "asyncio", "pickle"):
            bad.append(f"{path.name}:{line}: {name}")

    assert bad == []


def test_no_module_is_imported_under_two_names() -> None:
    program = (
        "import sys, mesos_actor.actors.master, mesos_actor.actors.agent\n"
        "print([n for n in ('actors', 'transport', 'isolation', 'raft') if n in sys.modules])"
    )

    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)

    assert result.stdout.strip() == "[]"


def test_shell_names_only_modules_that_exist() -> None:
    existing = {p.name.removesuffix(".py") for p in (ROOT / "actors").iterdir()}

    assert SHELL - existing == set()
