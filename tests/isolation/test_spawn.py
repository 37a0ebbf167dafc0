"""A program starts as execvp would start it, or the reason it does not is told; never an exit status of 127."""

from __future__ import annotations

import os
import pwd
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesos_actor.isolation.spawn import Program, SpawnError, resolve, spawn


@pytest.fixture(autouse=True)
def _come_back() -> Any:
    before = Path.cwd()
    yield
    os.chdir(before)


def program(tmp_path: Path, *argv: str, **fields: Any) -> Program:
    return Program(
        {"argv": list(argv), "env": {"PATH": f"{tmp_path}/bin:/usr/bin:/bin"}, "cwd": str(tmp_path), **fields}
    )


def output(started: Program) -> tuple[int, str]:
    _, status = os.waitpid(spawn(started), 0)
    return os.waitstatus_to_exitcode(status), (Path(started.cwd) / "stdout").read_text()


def test_program_is_found_by_the_containers_own_path(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mine").write_text("#!/bin/sh\necho found $0 $1\n")
    (tmp_path / "bin" / "mine").chmod(0o755)

    assert output(program(tmp_path, "mine", "x y")) == (0, f"found {tmp_path}/bin/mine x y\n")


def test_name_with_a_slash_is_relative_to_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("#!/bin/sh\necho ok\n")
    (tmp_path / "here").chmod(0o755)

    assert output(program(tmp_path, "./here")) == (0, "ok\n")


def test_script_without_an_interpreter_line_is_given_to_the_shell(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("echo by the shell: $1\n")
    (tmp_path / "here").chmod(0o755)

    assert output(program(tmp_path, "./here", "a")) == (0, "by the shell: a\n")


def test_relative_and_empty_entries_of_path_mean_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("#!/bin/sh\necho ok\n")
    (tmp_path / "here").chmod(0o755)
    os.chdir(tmp_path)

    assert resolve("here", "/nowhere::/bin") == "./here"


@pytest.mark.parametrize(
    ("argv", "reason", "text"),
    [
        (["nope"], "spawn", "no such program: 'nope' is in no directory of PATH="),
        (["./nope"], "spawn", "no such program: './nope'"),
        ([""], "spawn", "program name is empty"),
        (["./plain"], "spawn", "cannot execute './plain': Permission denied"),
        (["plain"], "spawn", "not an executable file"),
        (["./orphan"], "spawn", "the interpreter that it names does not exist"),
        (["true", "x" * (3 << 20)], "spawn", "too long"),
        (["true", "a\0b"], "spawn", "null"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, argv: list[str], reason: str, text: str) -> None:
    (tmp_path / "bin").mkdir()
    for path in (tmp_path / "plain", tmp_path / "bin" / "plain"):
        path.write_text("data")
    (tmp_path / "orphan").write_text("#!/no/such/interpreter\n")
    (tmp_path / "orphan").chmod(0o755)

    with pytest.raises(SpawnError, match=text) as caught:
        spawn(program(tmp_path, *argv))

    assert caught.value.reason == reason


def test_sandbox_that_is_gone_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match="cannot enter the sandbox") as caught:
        spawn(program(tmp_path, "true", cwd=str(tmp_path / "gone")))

    assert caught.value.reason == "sandbox"


def test_output_is_never_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "stdout").symlink_to(tmp_path / "victim")

    with pytest.raises(SpawnError, match=r"stdout in .* is not a regular file") as caught:
        spawn(program(tmp_path, "true"))

    assert caught.value.reason == "sandbox"
    assert not (tmp_path / "victim").exists()


def test_limits_are_set(tmp_path: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

    started = program(tmp_path, "sh", "-c", "ulimit -n", limits={"nofile": (77, min(hard, 200))})

    assert output(started) == (0, "77\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_few_files_are_enough_for_the_streams_of_another_user(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)

    started = program(tmp_path, "sh", "-c", "ulimit -n; id -u", limits={"nofile": (4, 4)}, user="nobody")

    assert output(started) == (0, f"4\n{pwd.getpwnam('nobody').pw_uid}\n")
    assert (tmp_path / "stdout").owner() == "nobody"


def test_unknown_limit_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'wisdom'"):
        program(tmp_path, "true", limits={"wisdom": (1, 1)})


def test_unknown_user_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match="no user 'nobody-of-that-name'"):
        spawn(program(tmp_path, "true", user="nobody-of-that-name"))


def test_own_user_needs_no_fork(tmp_path: Path) -> None:
    own = pwd.getpwuid(os.geteuid()).pw_name

    assert output(program(tmp_path, "id", "-un", user=own)) == (0, f"{own}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_another_user(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    work = Path("/tmp") / f"spawn-{os.getpid()}"
    work.mkdir()
    os.chown(work, nobody.pw_uid, nobody.pw_gid)
    try:
        assert output(program(work, "id", "-un", user="nobody")) == (0, "nobody\n")
        assert (work / "stdout").stat().st_uid == nobody.pw_uid
        with pytest.raises(SpawnError, match="no such program: 'nope'"):
            spawn(program(work, "nope", user="nobody"))
    finally:
        for path in work.iterdir():
            path.unlink()
        work.rmdir()


@pytest.mark.parametrize(
    "fields",
    [{"argv": []}, {"argv": "true"}, {"argv": [1]}, {"env": {"a": 1}}, {"env": None}, {"cwd": None}, {"out": 3}],
)
def test_fields_of_the_wrong_kind_are_named(tmp_path: Path, fields: dict[str, Any]) -> None:
    whole: dict[str, Any] = {"argv": ["true"], "env": {}, "cwd": str(tmp_path)}

    with pytest.raises(ValueError, match=next(iter(fields))):
        Program({**whole, **fields})


def test_child_writes_itself_into_its_cgroup_before_all_else(tmp_path: Path) -> None:
    procs = tmp_path / "cgroup.procs"
    procs.touch()

    assert output(program(tmp_path, "cat", "cgroup.procs", cgroup=str(procs))) == (0, "0")


def test_cgroup_that_cannot_be_entered_fails_the_launch(tmp_path: Path) -> None:
    with pytest.raises(SpawnError, match=r"cannot enter the cgroup by .*/none/cgroup.procs: No such file or directory"):
        spawn(program(tmp_path, "true", cgroup=f"{tmp_path}/none/cgroup.procs"))


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"cgroup": "x/cgroup.procs"}, "cgroup: expected the absolute path of a cgroup.procs"),
        ({"cgroup": "/etc/passwd"}, "cgroup: expected the absolute path of a cgroup.procs"),
        ({"cgroup": 3}, "cgroup: expected a string"),
        ({"confine": "x"}, "confine: expected a map"),
    ],
)
def test_isolation_that_cannot_be_read_is_refused(tmp_path: Path, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        program(tmp_path, "true", **fields)


def test_confinement_is_asked_for_in_the_child_and_its_refusal_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def enter(fields: dict[str, Any]) -> None:
        if fields.get("refuse"):
            raise SpawnError("sandbox", "confined no more")
        os.environ["ENTERED"] = "1"
        os.chdir(fields["cwd"])

    (tmp_path / "inner").mkdir()
    monkeypatch.setitem(sys.modules, "mesos_actor.isolation.confinement", SimpleNamespace(enter=enter))

    assert output(program(tmp_path, "pwd", confine={"cwd": f"{tmp_path}/inner"})) == (0, f"{tmp_path}/inner\n")
    assert "ENTERED" not in os.environ
    with pytest.raises(SpawnError, match="confined no more"):
        spawn(program(tmp_path, "true", confine={"refuse": True}))


def test_confinement_that_this_launcher_does_not_have_fails_the_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mesos_actor.isolation.confinement", None)

    with pytest.raises(SpawnError, match="confine: this launcher cannot confine a command"):
        spawn(program(tmp_path, "true", confine={"root": "/x"}))
