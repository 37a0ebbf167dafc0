"""Several containerizers as one: who gets what, who answers, what nobody knows."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import replace

from mesos_actor.actors.errors import ConfigError
from mesos_actor.actors.ids import ContainerId, OperationId, Principal
from mesos_actor.actors.messages.base import Message
from mesos_actor.actors.messages.containers import (
    ContainerExited,
    ContainerFailed,
    ContainersRecovered,
    ContainerStarted,
    ContainerUsage,
    ForgetContainer,
    KillContainer,
    LaunchContainer,
    MeasureContainers,
    RecoverContainers,
)
from mesos_actor.actors.messages.values import Command, ContainerSpec
from mesos_actor.isolation import composing, containerizer, docker_engine
from mesos_actor.isolation.composing import ComposingContainerizer
from mesos_actor.isolation.containerizer import Surroundings
from mesos_actor.isolation.docker import DockerContainerizer
from mesos_actor.isolation.fake import FakeContainerizer, Survivors
from tests.isolation.benches import AGENT, FakeBench, launch
from tests.isolation.pretended_engine import PretendedEngine

A, B, C = ContainerId("a.000000000001"), ContainerId("b.000000000002"), ContainerId("c.000000000003")
SLEEP = Command(("sleep", "100"))


class ComposedBench(FakeBench):
    """Two fakes as one; containers of ids that begin with `b` are of kind `two`, with `c` of an unknown one."""

    def _start(self) -> None:
        super()._start()
        self.second = getattr(self, "second", Survivors())
        both = {"one": FakeContainerizer(self.survivors), "two": FakeContainerizer(self.second)}
        self.both = ComposingContainerizer(both)
        self.both.start(self.inbox)

    def send(self, *messages: Message) -> None:
        for message in messages:
            self.both.on_message(AGENT, "", Principal("local"), message)
        self.both.on_flush()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ComposedBench:
    def kind(message: LaunchContainer) -> str:
        return {"b": "two", "c": "three"}.get(message.container_id[0], "")

    monkeypatch.setattr(composing, "kind_of", kind)
    return ComposedBench()


def test_each_launch_goes_to_the_one_for_its_kind(bench: ComposedBench) -> None:
    bench.send(launch(A, SLEEP), launch(B, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.expect(ContainerStarted, B)

    assert ([*bench.survivors.containers], [*bench.second.containers]) == ([A], [B])
    bench.send(KillContainer(B, 1_000), KillContainer(A, 1_000))
    assert bench.expect(ContainerExited, A).signal == 15
    assert bench.expect(ContainerExited, B).signal == 15
    bench.send(ForgetContainer(A), ForgetContainer(B))
    assert not (bench.survivors.containers or bench.second.containers or bench.both._owner)


def test_unknown_kind_fails_the_launch_and_goes_on_failing_it(bench: ComposedBench) -> None:
    bench.send(launch(C, SLEEP), launch(C, SLEEP), KillContainer(C, 0))

    text = "container.type: this agent has no 'three', only one, two; name one of these"
    for _ in range(3):
        assert bench.expect(ContainerFailed, C) == ContainerFailed(C, "spawn", text)
    bench.send(ForgetContainer(C), KillContainer(C, 0))
    assert bench.expect(ContainerExited, C).text == "no such container is known here"


def test_questions_to_all_are_answered_once(bench: ComposedBench) -> None:
    bench.send(launch(A, SLEEP), launch(B, SLEEP))
    bench.expect(ContainerStarted, A)
    bench.expect(ContainerStarted, B)
    bench.send(MeasureContainers((A, B), OperationId("m")))
    assert [usage.container_id for usage in bench.expect(ContainerUsage).usages] == [A, B]
    bench.restart_agent()
    bench.send(RecoverContainers((A, B)))
    assert {one.container_id for one in bench.expect(ContainersRecovered).containers} == {A, B}
    assert bench.inbox.take(ContainersRecovered, None) is None
    assert bench.inbox.take(ContainerUsage, None) is None

    bench.send(KillContainer(B, 0))
    assert bench.expect(ContainerExited, B).signal == 9
    assert (bench.both.is_live(A), bench.both.is_live(B)) == (True, False)


def test_containers_go_past_the_one_that_makes_none() -> None:
    plain, made = Survivors(), Survivors()
    both = ComposingContainerizer({"process": FakeContainerizer(plain), "docker": FakeContainerizer(made)})
    both.start(FakeBench().inbox)
    for container_id, command in ((A, SLEEP), (B, replace(SLEEP, container=ContainerSpec("app")))):
        both.on_message(AGENT, "", Principal("local"), launch(container_id, command))

    assert ([*plain.containers], [*made.containers]) == ([A], [B])


def test_docker_is_refused_at_start_where_no_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = PretendedEngine()
    engine.away = True
    monkeypatch.setattr(docker_engine, "open_engine", lambda: engine)
    surroundings = Surroundings(work_dir=tmp_path, executor_environment=lambda _: {})

    with pytest.raises(ConfigError) as caught:
        containerizer.find("docker")(surroundings)
    assert str(caught.value) == (
        "containerizers: 'docker' needs Docker Engine or podman's service: the engine cannot be reached: pretended; "
        "start it, say by DOCKER_HOST where it listens, or leave 'docker' out"
    )


def test_docker_is_made_where_an_engine_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "open_engine", PretendedEngine)
    surroundings = Surroundings(
        work_dir=tmp_path, executor_environment=lambda _: {}, pids_limit=7, volume_roots=("/srv",)
    )

    made = containerizer.find("docker")(surroundings)
    assert isinstance(made, DockerContainerizer)
    assert (made._options.pids_limit, made._options.volume_roots) == (7, ("/srv",))


def test_orders_of_strangers_are_refused(bench: ComposedBench) -> None:
    bench.both.on_message(AGENT, "", Principal("executor:x"), launch(A, SLEEP))

    assert not bench.survivors.containers


@pytest.mark.parametrize(("container", "kind"), [(None, ""), (SimpleNamespace(type="docker"), "docker")])
def test_kind_is_what_the_command_says(container: Any, kind: str) -> None:
    message: Any = SimpleNamespace(command=SimpleNamespace(container=container))
    assert composing.kind_of(message) == kind
    assert composing.kind_of(launch(A, SLEEP)) == ""


# -- by name --------------------------------------------------------------------------------------------------------


def test_installed_containerizer_is_found_by_its_entry_point(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = [
        metadata.EntryPoint("mine", "tests.isolation.test_composing:make_mine", containerizer.GROUP),
        metadata.EntryPoint("broken", "no_such_module_at_all:x", containerizer.GROUP),
        metadata.EntryPoint("number", "sys:maxsize", containerizer.GROUP),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points if group == containerizer.GROUP else [])
    surroundings = Surroundings(work_dir=tmp_path, executor_environment=lambda _: {})

    assert isinstance(containerizer.find("mine")(surroundings), FakeContainerizer)
    for name, text in (
        ("other", "containerizers: there is no 'other'; installed are broken, docker, linux, mine, number, process"),
        ("broken", "cannot be loaded: ModuleNotFoundError"),
        ("number", "is no callable"),
    ):
        with pytest.raises(ConfigError) as caught:
            containerizer.find(name)
        assert text in str(caught.value)


def make_mine(surroundings: Surroundings) -> FakeContainerizer:
    return FakeContainerizer(Survivors())
