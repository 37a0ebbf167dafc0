"""The Docker containerizer over a pretended engine: the conformance suite of all, and what is its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    RecoverContainers,
    UpdateContainer,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec, TaskLimits, Uri, Volume
from mesos_actor.actors.resources import Resources
from mesos_actor.isolation import docker_watch
from mesos_actor.isolation.docker import DockerContainerizer
from tests.isolation.pretended_engine import PretendedContainer, PretendedEngine
from tests.isolation.test_conformance import *  # noqa: F403 - the same promises, kept by this one too

A, B = ContainerId("a.000000000001"), ContainerId("b.000000000002")
SPEC = ContainerSpec("app", "docker")
MakeLaunch = Callable[..., LaunchContainer]


@pytest.fixture
def engine() -> PretendedEngine:
    return PretendedEngine()


@pytest.fixture
def make_launch(request: pytest.FixtureRequest) -> MakeLaunch:
    """As the suite's, in a container of Docker."""
    from tests.isolation.benches import launch

    def make(container_id: str, command: Command, **fields: Any) -> LaunchContainer:
        container = command.container or SPEC
        return launch(container_id, msgspec.structs.replace(command, container=container), **fields)

    return make


@pytest.fixture
def bench(real_bench: type[Any], engine: PretendedEngine, tmp_path: Path) -> Iterator[Any]:
    class DockerBench(real_bench):  # type: ignore[misc]
        commands = {
            "ignores TERM": Command(("ignores-term",)),
            "signal 9": Command(("signal-9",)),
            "no such program": Command(("no-such-program",)),
        }

        def drop_agent(self) -> None:
            self.do(self.port.close)

        def wait_for_file(self, path: Path, content: str = "") -> str:
            return "ready" if content == "ready" else str(real_bench.wait_for_file(self, path, content))

        def close(self) -> None:
            engine.away = False
            for container in list(engine.containers.values()):
                container.end(0)
            self.do(self.port.close)
            self.loop.close()

    found = DockerBench(
        tmp_path / "agent",
        lambda path: DockerContainerizer(
            path,
            engine=lambda: engine,
            exit_repeat_us=200_000,
            pause_s=0.01,
            volume_roots=(str(tmp_path / "allowed"),),
        ),
    )
    try:
        yield found
    finally:
        found.close()


def only(engine: PretendedEngine) -> PretendedContainer:
    (container,) = engine.containers.values()
    return container


def test_forgotten_container_is_removed_from_the_engine(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("true",))))
    bench.expect(ContainerExited, A)
    assert only(engine).engine_id == "e1"
    bench.send(ForgetContainer(A))

    bench.until(lambda: not engine.containers, "the removal")


def followed_anew(bench: Any, make_launch: MakeLaunch, engine: PretendedEngine) -> PretendedContainer:
    """A container that has said `ab` of `abcdef`, and whose agent was started again."""
    engine.says = {"stdout": b"abcdef", "stderr": b"xy"}
    bench.send(make_launch(A, Command(("sleep", "1"))))
    bench.expect(ContainerStarted, A)
    container = only(engine)
    for stream, said in (("stdout", "ab"), ("stderr", "xy")):  # it lives on here, and would write them late
        bench.until(lambda said=said, stream=stream: _holds(bench.sandbox(A) / stream, said), f"the first has {stream}")
    bench.restart_agent()
    bench.send(RecoverContainers((A,)))
    bench.expect(ContainersRecovered)
    bench.until(lambda: engine.followed.count("stdout") == 2, "the second agent follows")
    return container


def _holds(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


def test_output_is_in_the_sandbox_and_not_doubled_by_a_restart(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    container = followed_anew(bench, make_launch, engine)
    container.end(3)

    assert bench.expect(ContainerExited, A) == ContainerExited(A, exit_status=3)
    assert (bench.sandbox(A) / "stdout").read_bytes() == b"abcdef"
    assert (bench.sandbox(A) / "stderr").read_bytes() == b"xy"


def test_output_is_whole_before_the_exit_is_told(bench: Any, make_launch: MakeLaunch) -> None:
    bench.send(make_launch(A, Command(("echo", "hello"))))
    bench.expect(ContainerExited, A)

    assert (bench.sandbox(A) / "stdout").read_bytes() == b"hello"
    assert (bench.sandbox(A) / "stderr").read_bytes() == b"err"


@pytest.mark.parametrize(("bound", "expected"), [(16 << 20, b"abcdef"), (1, b"ab")])
def test_what_was_said_last_is_read_once_more_unless_it_was_much(
    bench: Any,
    make_launch: MakeLaunch,
    engine: PretendedEngine,
    monkeypatch: pytest.MonkeyPatch,
    bound: int,
    expected: bytes,
) -> None:
    monkeypatch.setattr(docker_watch, "READ_AGAIN_BYTES", bound)
    engine.hasty = True
    container = followed_anew(bench, make_launch, engine)
    container.end(0)

    bench.expect(ContainerExited, A)
    assert (bench.sandbox(A) / "stdout").read_bytes() == expected


def test_output_is_never_written_through_a_link_that_the_task_made(
    bench: Any, make_launch: MakeLaunch, tmp_path: Path
) -> None:
    (tmp_path / "victim").write_text("kept")
    bench.sandbox(A).mkdir(parents=True)
    (bench.sandbox(A) / "stdout").symlink_to(tmp_path / "victim")
    bench.send(make_launch(A, Command(("echo", "hello"))))
    bench.expect(ContainerExited, A)

    assert (tmp_path / "victim").read_text() == "kept"
    assert (bench.sandbox(A) / "stderr").read_bytes() == b"err"
    assert any(event == "log_not_kept" for event, _ in bench.inbox.logged)


def test_limits_are_the_engines_and_change_live(bench: Any, make_launch: MakeLaunch, engine: PretendedEngine) -> None:
    limits = TaskLimits(cpus_milli=500, mem_bytes=64 << 20, pids=9)
    bench.send(make_launch(A, Command(("sleep", "1")), limits=limits))
    bench.expect(ContainerStarted, A)
    host = only(engine).parameters["HostConfig"]
    assert (host["CpuQuota"], host["Memory"], host["PidsLimit"]) == (50_000, 64 << 20, 9)

    bench.send(UpdateContainer(A, Resources(), TaskLimits(cpus_milli=1_500)))
    bench.until(lambda: host["CpuQuota"] == 150_000, "the update")
    assert (host["MemorySwap"], host["PidsLimit"]) == (-1, -1)
    bench.send(UpdateContainer(A, Resources(), TaskLimits(io_weight=5)))
    assert [fields["text"] for event, fields in bench.inbox.logged if event == "update_refused"] == [
        "limits: io_weight is 5, which Docker Engine cannot keep; leave it out, or use container.type 'linux'"
    ]


def test_limits_that_come_while_it_is_prepared_are_kept(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("sleep", "1"))), UpdateContainer(A, Resources(), TaskLimits(cpus_milli=1_500)))
    bench.expect(ContainerStarted, A)

    bench.until(lambda: only(engine).parameters["HostConfig"].get("CpuQuota") == 150_000, "the update")


def test_limit_that_the_engine_cannot_keep_fails_the_launch(bench: Any, make_launch: MakeLaunch) -> None:
    bench.send(make_launch(A, Command(("true",)), limits=TaskLimits(io_weight=5)))

    failed = bench.expect(ContainerFailed, A)
    assert (failed.reason, "io_weight is 5" in failed.text) == ("spawn", True)


def test_oom_is_told(bench: Any, make_launch: MakeLaunch) -> None:
    bench.send(msgspec.structs.replace(make_launch(A, Command(("oom",))), resources=Resources.parse("mem:64")))

    exited = bench.expect(ContainerExited, A)
    assert (exited.signal, exited.limitation) == (9, "memory")
    assert exited.text == "out of memory: it went past its limit of 67108864 bytes"


@pytest.mark.parametrize(
    ("spec", "reason", "text"),
    [
        (ContainerSpec("nowhere", "docker"), "fetch", "image: manifest for docker.io/library/nowhere:latest not found"),
        (ContainerSpec("remote", "docker", pull="never"), "fetch", "is not on this host, and 'pull' is 'never'"),
        (ContainerSpec("oci:/x"), "spawn", "Docker Engine loads docker-archive: tarballs only"),
        (ContainerSpec(), "spawn", "container.image: is empty"),
        (ContainerSpec("docker-archive:/nothing"), "spawn", "/nothing: cannot open: No such file"),
        (ContainerSpec("app", volumes=(Volume("/etc", "/e"),)), "sandbox", "this agent lets tasks use"),
    ],
)
def test_launch_that_cannot_be(
    bench: Any, make_launch: MakeLaunch, spec: ContainerSpec, reason: str, text: str
) -> None:
    bench.send(make_launch(A, Command(("true",), container=spec)))

    failed = bench.expect(ContainerFailed, A)
    assert failed.reason == reason
    assert text in failed.text


def test_uri_that_is_not_there_fails_the_launch(bench: Any, make_launch: MakeLaunch) -> None:
    bench.send(make_launch(A, Command(("true",), uris=(Uri("/nothing"),))))

    assert bench.expect(ContainerFailed, A).reason == "fetch"


@pytest.mark.parametrize(("pull", "pulled"), [("missing", 1), ("always", 2)])
def test_pull_policy(bench: Any, make_launch: MakeLaunch, engine: PretendedEngine, pull: str, pulled: int) -> None:
    for container_id in (A, B):
        bench.send(make_launch(container_id, Command(("true",), container=ContainerSpec("remote", pull=pull))))
        bench.expect(ContainerExited, container_id)

    assert engine.pulled == ["docker.io/library/remote:latest"] * pulled


def test_tarball_is_loaded(bench: Any, make_launch: MakeLaunch, engine: PretendedEngine, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(b"saved")
    spec = ContainerSpec(f"docker-archive:{tmp_path}/x.tar")
    bench.send(make_launch(A, Command(("true",), container=spec)))
    bench.expect(ContainerExited, A)

    assert engine.loaded == [b"saved"]
    assert only(engine).parameters["Image"] == "loaded:1"


def test_volume_is_given_with_its_links_resolved(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine, tmp_path: Path
) -> None:
    (tmp_path / "allowed" / "real").mkdir(parents=True)
    (tmp_path / "allowed" / "out").symlink_to("/etc")
    (tmp_path / "link").symlink_to(tmp_path / "allowed" / "real")
    good = ContainerSpec("app", volumes=(Volume(str(tmp_path / "link"), "/data", True),))
    bench.send(make_launch(A, Command(("true",), container=good)))
    bench.expect(ContainerExited, A)

    assert only(engine).parameters["HostConfig"]["Mounts"][1] == {
        "Type": "bind",
        "Source": str(tmp_path / "allowed" / "real"),
        "Target": "/data",
        "ReadOnly": True,
    }
    for name, text in (("out", "this agent lets tasks use"), ("missing", "does not exist on this host")):
        bad = ContainerSpec("app", volumes=(Volume(str(tmp_path / "allowed" / name), "/data"),))
        bench.send(make_launch(name, Command(("true",), container=bad)))
        assert text in bench.expect(ContainerFailed, name).text


def test_engine_that_is_away_fails_launches_and_is_asked_again(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("sleep", "1"))))
    bench.expect(ContainerStarted, A)
    engine.away = True
    bench.restart_agent()
    bench.send(RecoverContainers((A,)), make_launch(B, Command(("true",))))

    failed = bench.expect(ContainerFailed, B)
    assert "the engine cannot be reached" in failed.text
    assert "start it" in failed.text
    engine.away = False
    assert [c.container_id for c in bench.expect(ContainersRecovered).containers] == [A]


def test_engine_that_goes_away_while_a_container_runs_is_waited_for(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("sleep", "1"))))
    bench.expect(ContainerStarted, A)
    container = only(engine)
    engine.away = True
    container.end(7)
    bench.send(make_launch(B, Command(("true",))))
    bench.expect(ContainerFailed, B)
    assert bench.inbox.take(ContainerExited, A) is None
    engine.away = False

    assert bench.expect(ContainerExited, A).exit_status == 7


def test_container_that_somebody_else_removed_is_told_as_unknown(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("sleep", "1"))))
    bench.expect(ContainerStarted, A)
    engine.remove(only(engine).engine_id)

    exited = bench.expect(ContainerExited, A)
    assert (exited.exit_status, exited.signal) == (None, None)
    assert "somebody removed it" in exited.text


def test_containers_of_another_agent_are_left_alone(bench: Any, engine: PretendedEngine) -> None:
    labels = {"mesos-actor.container": A, "mesos-actor.agent": "another"}
    engine.create("other", {"Labels": labels, "HostConfig": {}, "Cmd": ["sleep"]})
    bench.restart_agent()
    bench.send(RecoverContainers(()))
    bench.expect(ContainersRecovered)

    assert list(engine.containers) == ["e1"]


def test_container_that_was_made_but_never_started_is_removed(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("sleep", "1"))))
    bench.expect(ContainerStarted, A)
    only(engine).status = "created"
    bench.restart_agent()
    bench.send(RecoverContainers((A,)))

    assert bench.expect(ContainersRecovered).containers == ()
    bench.until(lambda: not engine.containers, "the removal")


def test_image_decides_the_signal_and_kill_follows(
    bench: Any, make_launch: MakeLaunch, engine: PretendedEngine
) -> None:
    bench.send(make_launch(A, Command(("ignores-term",))))
    bench.expect(ContainerStarted, A)
    container = only(engine)
    bench.send(KillContainer(A, 20))
    bench.expect(ContainerExited, A)

    assert container.signals == ["SIGTERM", "SIGKILL"]
