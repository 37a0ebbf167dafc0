"""The process containerizer beyond what every containerizer promises: files, limits of names, keys, bad commands."""

from __future__ import annotations

import os
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mesos_actor.actors.ids import ContainerId, FrameworkId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command, Uri
from mesos_actor.isolation import fetch as fetching
from mesos_actor.isolation import preparation, process

if TYPE_CHECKING:
    RealBench = Any

pytestmark = pytest.mark.cluster

A = ContainerId("a.000000000001")
Launch = Callable[..., LaunchContainer]


def cat(*names: str, **fields: Any) -> Command:
    return Command(("cat", *names), **fields)


def test_uris_are_there_before_the_command_starts(real: RealBench, make_launch: Launch, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("input")
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as archive:
        archive.add(tmp_path / "in", arcname="deep/in2")
    uris = (Uri(str(tmp_path / "in")), Uri(f"file://{tmp_path}/a.tgz", extract=True))
    real.send(make_launch(A, cat("in", "deep/in2", uris=uris)))

    assert real.expect(ContainerExited, A).exit_status == 0
    assert (real.sandbox(A) / "stdout").read_text() == "inputinput"


def test_uri_that_cannot_be_had_fails_the_launch(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, cat("x", uris=(Uri("/no/such/file"),))))

    failed = real.expect(ContainerFailed, A)
    assert (failed.reason, failed.text) == ("fetch", "uri '/no/such/file': No such file or directory")


def test_kill_while_files_are_fetched_means_that_it_never_runs(
    real: RealBench, make_launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, on = threading.Event(), threading.Event()

    def slow(_uris: object, _sandbox: str, cancelled: threading.Event, _owner: object) -> None:
        here.set()
        assert on.wait(10)
        assert cancelled.is_set()

    monkeypatch.setattr(preparation, "fetch", slow)
    real.send(make_launch(A, Command(("touch", "ran"), uris=(Uri("/x"),))))
    assert here.wait(10)
    real.send(KillContainer(A, grace_ms=1_000))
    exited = real.expect(ContainerExited, A)
    on.set()
    real.send(ForgetContainer(A))

    assert exited == ContainerExited(A, killed=True, text="killed before its command ran")
    assert real.inbox.take(ContainerStarted, A) is None


def test_sandbox_belongs_to_its_task_alone(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, Command(("true",))))
    real.expect(ContainerExited, A)

    assert stat.S_IMODE(real.sandbox(A).stat().st_mode) == 0o700
    assert sorted(p.name for p in real.sandbox(A).iterdir()) == ["stderr", "stdout"]


@pytest.mark.parametrize(
    ("container_id", "framework_id", "field"),
    [
        ("../x", "f", "container_id"),
        ("..", "f", "container_id"),
        ("a", "../f", "framework_id"),
        ("a", "", "framework_id"),
    ],
)
def test_id_that_leads_elsewhere_is_refused(
    real: RealBench, container_id: str, framework_id: str, field: str, make_launch: Launch
) -> None:
    message = make_launch(container_id, Command(("true",)))
    real.send(LaunchContainer(ContainerId(container_id), FrameworkId(framework_id), message.command, message.resources))

    failed = real.expect(ContainerFailed, container_id)
    assert failed.reason == "sandbox"
    assert failed.text.startswith(f"{field}: ")


def test_longest_legal_id_runs(real: RealBench, make_launch: Launch) -> None:
    long = ContainerId("é" * 127 + "x.000000000001")
    real.send(make_launch(long, Command(("sleep", "100"))))

    real.expect(ContainerStarted, long)
    (directory,) = [path.name for path in (real.work_dir / "sandboxes" / "c1-0001").iterdir()]
    assert len(directory.encode()) <= 255
    assert real.port.is_live(directory)
    real.send(KillContainer(long, grace_ms=0))
    assert real.expect(ContainerExited, long).signal == 9
    assert not real.port.is_live(directory)


@pytest.mark.parametrize(
    ("command", "text"),
    [
        (Command(()), "command.argv: is empty"),
        (Command(("a\0b",)), "NUL"),
        (Command(("a", "b"), shell=True), "one string, got 2"),
        (Command(("true",), env={"A=B": "x"}), "env: 'A=B'"),
        (Command(("true",), env={"": "x"}), "env: ''"),
        (Command(("true",), env={"A": "\0"}), "env: 'A'"),
        (Command(("true",), user="nobody-of-that-name"), "user: there is no user"),
        (Command(("true", "x" * (3 << 20))), "too long"),
    ],
)
def test_command_that_cannot_be_executed_is_named(
    real: RealBench, make_launch: Launch, command: Command, text: str
) -> None:
    real.send(make_launch(A, command))

    failed = real.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert text in failed.text


def test_failed_launch_can_be_forgotten_and_tried_again(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, Command(("no-such-program",))))
    real.expect(ContainerFailed, A)
    real.send(ForgetContainer(A), make_launch(A, Command(("true",))))

    assert real.expect(ContainerExited, A).exit_status == 0


def test_full_disk_is_told_as_full(real: RealBench, make_launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(sandbox: str) -> None:
        raise OSError(28, "No space left on device", sandbox)

    monkeypatch.setattr(preparation, "make_sandbox", full)
    real.send(make_launch(A, Command(("true",))))

    assert real.expect(ContainerFailed, A).reason == "full"


def test_launch_past_the_bound_fails(real: RealBench, make_launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_CONTAINERS", 1)
    real.send(make_launch(A, Command(("sleep", "100"))), make_launch("b.0", Command(("true",))))

    assert "its bound" in real.expect(ContainerFailed, "b.0").text


class Keys:
    """Counts who asks for an executor's environment."""

    def __init__(self) -> None:
        self.asked: list[ContainerId] = []

    def __call__(self, container_id: ContainerId) -> dict[str, str]:
        self.asked.append(container_id)
        return {"MESOS_ACTOR_EXECUTOR_KEY": "k" * 40}


@pytest.fixture
def keyed(work_dir: Path, real_bench: Callable[..., Any]) -> Iterator[tuple[Any, Keys]]:
    keys = Keys()
    bench = real_bench(work_dir, lambda path: process.ProcessContainerizer(path, keys, launcher_idle_s=5))
    yield bench, keys
    bench.close()


def test_only_an_executor_gets_a_key(keyed: tuple[Any, Keys], make_launch: Launch) -> None:
    bench, keys = keyed
    show = Command(("echo key $MESOS_ACTOR_EXECUTOR_KEY",), shell=True)
    bench.send(make_launch(A, show, executor=True), make_launch("b.0", show))
    bench.expect(ContainerExited, A)
    bench.expect(ContainerExited, "b.0")

    assert keys.asked == [A]
    assert (bench.sandbox(A) / "stdout").read_text() == f"key {'k' * 40}\n"
    assert (bench.sandbox("b.0") / "stdout").read_text() == "key\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")
def test_task_of_another_user_owns_its_sandbox_and_reads_only_what_it_may(
    make_launch: Launch, real_bench: Callable[..., Any]
) -> None:
    import shutil
    import tempfile

    top = Path(tempfile.mkdtemp(prefix="mesos-actor-user-"))
    top.chmod(0o711)
    bench = real_bench(top / "w")
    try:
        (top / "open").write_text("open")
        (top / "closed").write_text("closed")
        (top / "closed").chmod(0o600)
        show = Command(
            ("id -un; cat open; touch mine; echo $HOME",), shell=True, user="nobody", uris=(Uri(f"{top}/open"),)
        )
        bench.send(make_launch(A, show))
        bench.send(make_launch("b.0", Command(("true",), user="nobody", uris=(Uri(f"{top}/closed"),))))

        assert bench.expect(ContainerExited, A).exit_status == 0, (bench.sandbox(A) / "stderr").read_text()
        assert (bench.sandbox(A) / "stdout").read_text().startswith("nobody\nopen/")
        assert "may not read it" in bench.expect(ContainerFailed, "b.0").text
    finally:
        bench.close()
        shutil.rmtree(top)


def test_internal_error_while_fetching_is_an_answer(
    real: RealBench, make_launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "_fetch_one", lambda *_: 1 / 0)
    real.send(make_launch(A, cat("x", uris=(Uri("/x"),))))

    assert "ZeroDivisionError" in real.expect(ContainerFailed, A).text


def test_recovery_before_the_launcher_is_there_does_not_judge_later_launches(
    real: RealBench, make_launch: Launch
) -> None:
    real.send(RecoverContainers(()), make_launch(A, Command(("false",))))

    assert real.expect(ContainerExited, A) == ContainerExited(A, exit_status=1)


@pytest.mark.slow
def test_launch_longer_than_the_launcher_reads_fails_and_the_others_go_on(real: RealBench, make_launch: Launch) -> None:
    real.send(make_launch(A, Command(("echo", "x" * (16 << 20)))), make_launch("b.0", Command(("true",))))

    failed = real.expect(ContainerFailed, A)
    assert failed.reason == "spawn"
    assert "arguments and environment are too long: 167" in failed.text
    assert real.expect(ContainerExited, "b.0").exit_status == 0
