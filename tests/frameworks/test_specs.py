"""Specs are judged whole, and every refusal names the field, the value and the fix."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.frameworks.specs import batch_spec, duration_ms, service_spec
from mesos_actor.actors.messages.values import UNLIMITED, Command, ContainerSpec, RLimit, TaskLimits, Volume
from mesos_actor.actors.resources import Resources


def _batch(**task: Any) -> dict[str, Any]:
    return {"name": "b", "task": [{"name": "t", "command": ["true"], **task}]}


def test_a_whole_batch_is_read() -> None:
    spec = batch_spec(
        {
            "name": "count",
            "task": [
                {
                    "name": "map",
                    "command": ["map"],
                    "instances": 3,
                    "cpus": 0.5,
                    "mem": "64MiB",
                    "retries": 2,
                    "limits": {"cpus": 2, "mem": "128MiB", "pids": "none", "io_read": "10MiB"},
                    "rlimits": {"nofile": "64:128", "core": 0},
                },
                {"name": "reduce", "shell": "cat *", "after": ["map"], "time_limit": "10m"},
            ],
        }
    )

    assert spec.order() == ["map", "reduce"]
    assert spec.task[0].resources("x") == Resources.parse("cpus:0.5;mem:64")
    assert spec.task[1].to_command().shell
    assert spec.task[1].to_command().argv == ("cat *",)
    assert spec.task[0].task_limits("x") == TaskLimits(
        cpus_milli=2_000, mem_bytes=128 << 20, pids=UNLIMITED, io_read_bytes=10 << 20
    )
    assert spec.task[0].to_command().rlimits == (RLimit("nofile", 64, 128), RLimit("core", 0, 0))
    assert spec.task[1].task_limits("x") == TaskLimits()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"name": "b"}, "task"),
        ({"name": "b", "task": []}, "from 1 to 1000 groups"),
        (_batch(comand=["x"]), "unknown field `comand`.*did you mean 'command'"),
        (_batch(shell="x"), "exactly one of `command`"),
        ({"name": "b", "task": [{"name": "t"}]}, "exactly one of `command`"),
        (_batch(instances=0), r"instances: 0 is not from 1"),
        (_batch(instances=-4), r"instances: -4"),
        (_batch(cpus=-1), "cpus"),
        (_batch(cpus=0.0001), "cpus"),
        (_batch(cpus=0, mem=0), "needs some cpus"),
        (_batch(mem="12 parsecs"), "mem"),
        (_batch(after=["t"]), "wait for one another: t"),
        (_batch(after=["u"]), "there is no group 'u'"),
        (_batch(time_limit="soon"), "cannot read 'soon' as a duration"),
        (_batch(retries=-1), "retries: -1"),
        (_batch(name="a/b"), "invalid characters"),
        (_batch(env={"A=B": "x"}), "'A=B' cannot be the name"),
        (_batch(constraints=["rack"]), "constraints"),
        (_batch(ports=-1), "ports: -1"),
        (_batch(rlimits={"nofile": "2:1"}), r"\(t\)\.rlimits: 'nofile' has a soft limit of 2 above its hard one of 1"),
        (_batch(rlimits={"files": 1}), r"\.rlimits: there is no resource limit 'files'; name one of as"),
        (
            _batch(ports=1, container={"network": "bridge", "publish": ["PORT1:80"]}),
            r"container\.publish: PORT1 is published, but `ports` is 1; set it to 2 or more",
        ),
        (_batch(container={"network": "bridge", "publish": ["80"]}), r"container\.publish: '80' is no published port"),
        (
            _batch(ports=1, container={"network": "bridge", "publish": ["PORT0:80", "PORT0:81"]}),
            r"container\.publish: 'PORT0' is there twice for tcp",
        ),
        (
            _batch(ports=1, container={"network": "bridge", "publish": ["PORT99999:80"]}),
            r"'PORT99999:80': a task has at most 100 ports, PORT0 to PORT99",
        ),
        (_batch(container={"publish": ["1:80"]}), r"\.container: 'ports' lead into .* set 'network' to 'bridge'"),
        (_batch(container={"network": "bridge", "publish": ["0:1"]}), r"'host_port' must be from 1 to 65535, not 0"),
        (_batch(time_limit="99999999999999999999d"), r"\(t\)\.time_limit: '9{20}d' is longer than 100 years; write a"),
        (_batch(time_limit=10**400), r"time_limit: a number of \d+ bits is longer than 100 years"),
        (_batch(kill_grace="101000000h"), r"kill_grace: '101000000h' is longer than 100 years"),
        ({**_batch(), "failover_timeout": "36501d"}, "failover_timeout: '36501d' is longer than 100 years"),
        (_batch(cpus="1;mem:5"), "cpus: '1;mem:5' is not a number"),
        (_batch(mem="[1-5]"), r"mem: '\[1-5\]' is not a number"),
        (_batch(disk="{a}"), "disk: '{a}' is not a number"),
        (_batch(cpus=10**30), "'cpus' is above"),
        (_batch(command=["echo", "\ud800"]), r"\.command: '\\ud800' is not valid Unicode text; write it in UTF-8"),
        (_batch(command=["echo", "a\0b"]), r"\.command: 'a\\x00b' has a NUL character"),
        (_batch(command=[], shell="\udcff"), r"\.shell: .* is not valid Unicode"),
        (_batch(command=[], shell="\0"), r"\.shell: .* has a NUL"),
        (_batch(env={"A": "\udcff"}), r"\.env\.A: .* is not valid Unicode"),
        (_batch(env={"\udcff": "x"}), r"\.env: .* is not valid Unicode"),
        (_batch(env={"A": "\0"}), r"\.env\.A: .* has a NUL"),
        (_batch(uris=["/\udcff"]), r"\.uris: .* is not valid Unicode"),
        (
            _batch(uris=["rel/path"]),
            r"\.uris: 'path' must be an absolute path .* not 'rel/path'; give files that are on",
        ),
        (_batch(uris=["http://x/y"]), r"\.uris: .*'http://x/y'"),
        (_batch(limits={"cpu": 1}), r"\.limits: 'cpu' cannot be limited; name one of cpus, mem"),
        (_batch(limits={"cpus": 0.5}), r"\.limits: 'cpus' limit of 500 thousandths is below its request of 1000"),
        (_batch(limits={"mem": "1 foot"}), r"\.limits: mem: '1 foot' is not a number"),
        (_batch(user="\udcff"), r"\.user: .* is not valid Unicode"),
        (_batch(user="a b"), "invalid 'user' 'a b'"),
        (_batch(constraints=["rack==\udcff"]), r"\.constraints: .* is not valid Unicode"),
        ({**_batch(), "role": "\udcff"}, "role: .* is not valid Unicode"),
        ({"name": "b", "task": [{"name": "t", "command": ["x"]}] * 2}, "used twice"),
        ({"name": "b", "role": "a//b", "task": [{"name": "t", "command": ["x"]}]}, "two adjacent slashes"),
        ({"name": "", "task": [{"name": "t", "command": ["x"]}]}, "must not be empty"),
        ([], "Expected `object`"),
        (_batch(container={"image": "a:b:c"}), r"task\[0\] \(t\)\.container: "),
        (
            _batch(container={"network": "x"}),
            r"\.container: 'network' must be one of 'host', 'bridge', 'own', 'none'",
        ),
        (_batch(container={"type": "rkt"}), r"\.container: 'type' must be one of '', 'docker', 'linux', not 'rkt'"),
        (_batch(container={"pull": "now"}), r"\.container: 'pull' must be one of 'missing', 'always', 'never'"),
        (_batch(container={"type": "docker"}), r"\.container: 'image' is empty, but 'type' is 'docker'"),
        (_batch(container={"volumes": ["/a"]}), r"\.container\.volumes: '/a' is no volume; write HOST:CONTAINER or"),
        (_batch(container={"volumes": ["a:/b"]}), r"\.container\.volumes: 'a:/b' is no volume"),
        (_batch(container={"volumes": ["/a:/b:no"]}), r"\.container\.volumes: '/a:/b:no' is no volume"),
        (_batch(container={"volumes": ["/a:/b:ro:x"]}), r"\.container\.volumes: '/a:/b:ro:x' is no volume"),
        (
            _batch(container={"volumes": ["/a:/proc"]}),
            r"\.container: volume: 'container_path' '/proc' is the container",
        ),
        (_batch(container={"volumes": ["/a\0:/b"]}), r"\.container: .* has a NUL"),
        (_batch(container={"image": "\udcff"}), r"\.container: .* is not valid Unicode"),
        (_batch(container={"imge": "x"}), r"unknown field `imge`.*did you mean 'image'"),
        (_batch(container={"image": "app"}, shell="x"), "exactly one of `command`"),
        (_batch(container={"network": "none"}, command=[]), "or a container's `image` that says what to run"),
    ],
)
def test_a_bad_batch_is_refused_with_its_field(data: Any, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        batch_spec(data)


def test_a_container_is_read() -> None:
    table = {
        "image": "app:1",
        "type": "linux",
        "volumes": ["/srv:/data:ro", "/scratch:/tmp/x", "/a:/b:rw"],
        "network": "none",
        "pull": "never",
        "read_only_root": True,
    }
    volumes = (Volume("/srv", "/data", True), Volume("/scratch", "/tmp/x"), Volume("/a", "/b"))
    expected = ContainerSpec("app:1", "linux", volumes, "none", "never", True)

    assert batch_spec(_batch(container=table)).task[0].to_command().container == expected
    assert service_spec({"name": "web", "container": table}).to_command() == Command((), container=expected)
    assert batch_spec(_batch()).task[0].to_command().container is None


EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.toml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_specs(path: Path) -> None:
    data = tomllib.loads(path.read_text())
    tasks = batch_spec(data).task if "task" in data else (service_spec(data),)

    assert all(task.to_command().container is not None for task in tasks)


def test_there_are_examples() -> None:
    assert [path.stem for path in EXAMPLES] == ["containers", "web_container"]


def test_a_service_is_read_and_a_bad_one_refused() -> None:
    assert service_spec({"name": "web", "command": ["x"], "instances": 0}).instances == 0
    with pytest.raises(InvalidInput, match=r"update\.parallel: 0"):
        service_spec({"name": "web", "command": ["x"], "update": {"parallel": 0}})
    with pytest.raises(InvalidInput, match=r"unknown field `instance`.*did you mean 'instances'"):
        service_spec({"name": "web", "command": ["x"], "instance": 3})
    with pytest.raises(InvalidInput, match=r"unknown field `task`; a file with it is for: mesos-actor submit"):
        service_spec({"name": "b", "task": []})
    with pytest.raises(InvalidInput, match=r"unknown field `instances`; a file with it is for: .* service apply"):
        batch_spec({"name": "web", "instances": 3, "task": []})


@pytest.mark.parametrize("field", ["backoff", "backoff_max", "failover_timeout", "kill_grace"])
def test_a_time_of_a_service_that_nobody_could_count_is_refused(field: str) -> None:
    with pytest.raises(InvalidInput, match=rf"service\.{field}: '9{{20}}d' is longer than 100 years"):
        service_spec({"name": "web", "command": ["x"], field: "9" * 20 + "d"})
    with pytest.raises(InvalidInput, match=r"update\.healthy_after: .* is longer than 100 years"):
        service_spec({"name": "web", "command": ["x"], "update": {"healthy_after": "1" * 20}})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 600_000),
        ("500ms", 500),
        (2, 2_000),
        ("1.5s", 1_500),
        (0.25, 250),
        ("1h", 3_600_000),
        ("7d", 604_800_000),
        ("36500d", 3_153_600_000_000),
    ],
)
def test_durations_are_exact(text: str | float, expected: int) -> None:
    assert duration_ms(text, "x") == expected
