"""The command line without a cluster: what it imports, what it says, and how it ends when the words are wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mesos_actor._version import __version__
from mesos_actor.actors.cli import app
from mesos_actor.actors.messages.values import Command, ContainerSpec, Volume

COMMANDS = (
    *("start", "init", "run", "submit", "wait", "kill", "teardown", "logs", "status", "agents", "frameworks"),
    *("tasks", "offers", "roles", "why", "top", "weight", "gone", "completion", "service", "chaos"),
)


class Ended:
    def __init__(self, status: int | str | None, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    def __repr__(self) -> str:
        return f"status {self.status}\n--- out\n{self.out}\n--- err\n{self.err}"


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run one command line in this process."""

    def run(*arguments: str) -> Ended:
        with pytest.raises(SystemExit) as stopped:
            app.run(list(arguments))
        out, err = capfd.readouterr()
        return Ended(stopped.value.code, out, err)

    return run


def wrong(ended: Ended, words: str) -> None:
    """One line on standard error, nothing on standard output, status 2."""
    assert ended.status == 2, ended
    assert ended.out == "", ended
    assert ended.err.startswith("mesos-actor: "), ended
    assert len(ended.err.splitlines()) == 1, ended
    assert words in ended.err, ended


# -- what it costs


def loaded_by(*arguments: str) -> set[str]:
    """The modules that a process which runs this command line has loaded at its end."""
    program = (
        "import sys, atexit, json; atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr));"
        f"sys.argv = ['mesos-actor', *{list(arguments)!r}];"
        "from mesos_actor.actors.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr.splitlines()[-1]))


def test_the_version_is_told_without_loading_anything_heavy() -> None:
    loaded = loaded_by("--version")

    heavy = {"zmq", "msgspec", "msgpack", "typer", "rich", "psutil", "asyncio", "sqlite3", "pydantic", "subprocess"}
    assert loaded & heavy == set()


def test_help_does_not_load_what_only_a_cluster_needs() -> None:
    assert loaded_by("--help") & {"zmq", "psutil", "sqlite3", "cloudpickle"} == set()


def test_the_installed_command_and_the_module_are_the_same() -> None:
    outputs = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([sys.executable, "-m", "mesos_actor"], [str(Path(sys.executable).parent / "mesos-actor")])
    ]

    assert outputs == [f"mesos-actor {__version__}\n"] * 2


# -- run


def test_run_puts_what_surrounds_a_command_into_its_spec(cli, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    from mesos_actor.actors.cli import attended
    from mesos_actor.actors.frameworks.specs import BatchSpec

    specs: list[BatchSpec] = []

    def run_attended(spec: BatchSpec, *_: object) -> int:
        specs.append(spec)
        return 0

    monkeypatch.setattr(attended, "run_attended", run_attended)
    options = ("--container-type", "linux", "--network", "own", "--pull", "never", "--read-only")
    assert cli("run", "--image", "host/py thon:3", *options, "--", "x").status == 2
    assert cli("run", "--image", "host/python:3", "--volume", "/a:/b:ro", "--volume", "/c:/d", *options).status == 0
    assert cli("run", "--", "x").status == 0

    volumes = (Volume("/a", "/b", True), Volume("/c", "/d"))
    expected = ContainerSpec("host/python:3", "linux", volumes, "own", "never", True)
    assert specs[0].name == "python"
    assert specs[0].task[0].to_command() == Command((), container=expected)
    assert specs[1].task[0].to_command() == Command(("x",))


# -- help


def test_help_names_every_command(cli) -> None:  # type: ignore[no-untyped-def]
    ended = cli("--help")

    assert ended.status == 0
    assert [name for name in COMMANDS if f"\n  {name} " not in ended.out] == []
    assert cli().out == ended.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(cli, command: str) -> None:  # type: ignore[no-untyped-def]
    ended = cli(command, "-h")

    assert ended.status == 0
    assert f"Usage: mesos-actor {command}" in ended.out
    assert "--help" in ended.out


@pytest.mark.parametrize("command", ["start", "run", "submit", "why", "completion"])
def test_help_has_examples(cli, command: str) -> None:  # type: ignore[no-untyped-def]
    assert "Example" in cli(command, "--help").out


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(cli, shell: str) -> None:  # type: ignore[no-untyped-def]
    ended = cli("completion", shell)

    assert ended.status == 0
    assert "_MESOS_ACTOR_COMPLETE" in ended.out


def test_the_completion_script_gets_its_answers(tmp_path: Path) -> None:
    env = os.environ | {"_MESOS_ACTOR_COMPLETE": "complete_bash", "COMP_WORDS": "mesos-actor fram", "COMP_CWORD": "1"}
    done = subprocess.run([sys.executable, "-m", "mesos_actor"], env=env, capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["frameworks"], done


# -- wrong words

WRONG = [
    (["bogus"], "No such command 'bogus'"),
    (["statsu"], "'status'"),
    (["status", "--bogus"], "No such option: --bogus"),
    (["status", "--timeout", "0"], "'0' is not a number of seconds; write one of at least 0.1"),
    (["status", "--timeout", "soon"], "'soon' is not a number of seconds"),
    (["status", "--masters", "a b"], "masters: 'a b' is not a host"),
    (["status", "--masters", "h:99999999"], "masters: "),
    (["run"], "give what to run after --, or an --image"),
    (["run", "--shell", "--image", "app"], "with --shell, give the whole line"),
    (
        ["run", "--network", "x", "--", "true"],
        "run.container: 'network' must be one of 'host', 'bridge', 'own', 'none'",
    ),
    (["run", "--container-type", "docker", "--", "true"], "run.container: 'image' is empty, but 'type' is 'docker'"),
    (["run", "--volume", "/a", "--", "true"], "run.container.volumes: '/a' is no volume; write HOST:CONTAINER"),
    (["run", "--image", "app", "--pull", "x"], "run.container: 'pull' must be one of 'missing', 'always', 'never'"),
    (["run", "--cpus"], "--cpus"),
    (["run", "--cpus", "-1", "--", "true"], "run: resources: cpus: '-1' is negative"),
    (["run", "--cpus", "1.23456", "--", "true"], "run: resources: cpus"),
    (["run", "--mem", "1QB", "--", "true"], "run: resources: mem: '1QB'"),
    (["run", "--instances", "0", "--", "true"], "'0' is not a whole number from 1"),
    (["run", "--instances", "many", "--", "true"], "'--instances': 'many' is not"),
    (["run", "--instances", "200000", "--", "true"], "run.instances: 200000 is not from 1 to 100000"),
    (["run", "--env", "A", "--", "true"], "--env A: write NAME=VALUE"),
    (["run", "--constraint", "rack", "--", "true"], "run.constraints: constraint: 'rack' is not a constraint"),
    (["run", "--role", "a/../b", "--", "true"], "role: "),
    (["run", "--name", "a/b", "--", "true"], "name: 'a/b' contains invalid characters"),
    (["run", "--time-limit", "soon", "--", "true"], "time_limit"),
    (["run", "--shell", "--", "echo", "two words"], "as one word, in quotes"),
    (["run", "--ports", "-1", "--", "true"], "'-1' is not a whole number from 0 to 100"),
    (["run", "--cpus", "1;mem:5", "--", "true"], "run: resources: cpus: '1;mem:5' is not a number"),
    (["run", "--cpus", "9" * 30, "--", "true"], "run: resources: Resource 'cpus' is above"),
    (
        ["run", "--time-limit", "99999999999999999999d", "--", "true"],
        "run.time_limit: '99999999999999999999d' is longer",
    ),
    (["run", "--", "echo", "\udcff"], "run.command: '\\udcff' is not valid Unicode text; write it in UTF-8"),
    (["run", "--env", "A=\udcff", "--", "true"], "run.env.A: '\\udcff' is not valid Unicode text"),
    (["run", "--role", "\udcff", "--", "true"], "role: '\\udcff' is not valid Unicode text"),
    (["run", "--uri", "rel/path", "--", "true"], "run.uris: 'path' must be an absolute path"),
    (["agents", "--state", "bogus"], "'bogus' is not one of active, disconnected, recovering, unreachable, gone"),
    (["frameworks", "--state", "gone"], "'gone' is not one of active, disconnected, removed"),
    (["tasks", "--state", "BOGUS"], "'BOGUS' is not one of STAGING, STARTING, RUNNING"),
    (["kill", "--grace", "1e300", "t"], "'1e300' seconds are longer than 100 years"),
    (["submit", "--resume", "x" * 300], "nothing with this id was submitted from here"),
    (["kill", "--grace", "-3", "t"], "'-3' is not a number of seconds"),
    (["wait", "--for", "long", "x"], "'long' is not a number of seconds"),
    (["run", "--cpus", "0", "--mem", "0", "--", "true"], "a task needs some"),
    (["submit"], "give either a FILE or --resume ID"),
    (["submit", "/no/such/file"], "/no/such/file: No such file or directory"),
    (["service", "scale", "web", "-1"], "-1"),
    (["service", "scale", "web", "many"], "many"),
    (["weight", "a role", "1"], "contains invalid characters"),
    (["weight", "role", "much"], "much is no weight"),
    (["weight", "role", "0"], "0 is no weight"),
    (["weight", "role", "1.2345"], "1.2345 is no weight"),
    (["weight", "..", "1"], "Role"),
    (["submit", "--resume", "no-such-id"], "nothing with this id was submitted from here"),
    (["service", "apply", "/no/such/file"], "/no/such/file: No such file or directory"),
    (["run", "--", ""], "run.command: its first word is empty"),
    (["completion", "tcsh"], "tcsh is not one of bash, zsh, fish"),
    (["logs", "--tail", "-1", "t"], "--tail"),
    (["start", "--port", "99999"], "--port: 99999 is out of range"),
    (["start", "--resources", "cpus:-1"], "cpus: '-1' is negative"),
    (["start", "--resources", "mem"], "'mem' has no value"),
    (["start", "--attributes", ":"], "--attributes"),
    (["start", "--masters", "a:b"], "'a:b' has no port number"),
    (["start", "--as", "leader"], "--as: 'leader' is not a choice"),
    (["start", "--as", "agent"], "'agent' has no master to join"),
    (["start", "--log-level", "loud"], "--log-level: 'loud' is not a choice"),
    (["start", "--config", "/no/such.toml"], "cannot read /no/such.toml"),
    (["start", "--advertise", "a b"], "--advertise"),
]


@pytest.mark.parametrize(("arguments", "words"), WRONG, ids=[ascii(" ".join(words))[1:60] for words, _ in WRONG])
def test_wrong_words_end_in_one_line(cli, arguments: list[str], words: str) -> None:  # type: ignore[no-untyped-def]
    wrong(cli(*arguments), words)


SPECS = {
    "not = [toml": "cannot be read as TOML or JSON",
    '{"name": "x", "task": []}': "task: a batch has from 1 to",
    '{"name": "x", "task": [{"name": "t", "comand": ["true"]}]}': "did you mean 'command'?",
    '{"name": "x", "task": [{"name": "t", "command": ["true"], "cpus": -1}]}': "task[0] (t): ",
    '{"name": "x", "task": [{"name": "t", "command": ["true"], "after": ["t"]}]}': "wait for one another: t",
    '{"name": "x", "task": [{"name": "t", "command": "true"}]}': "Expected `array`, got `str`",
}


@pytest.mark.parametrize("text", SPECS)
def test_submit_names_what_is_wrong_in_a_file(cli, tmp_path: Path, text: str) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.spec").write_text(text)

    wrong(cli("submit", str(tmp_path / "bad.spec")), SPECS[text])


def test_a_service_with_less_than_no_copies(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "bad.toml").write_text('name = "x"\ncommand = ["true"]\ninstances = -1')

    wrong(cli("service", "apply", str(tmp_path / "bad.toml")), "instances: -1 is not from 0")


def test_a_config_file_that_cannot_be_read_is_named(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    broken, unknown, binary = (tmp_path / name for name in ("broken.toml", "unknown.toml", "binary.toml"))
    broken.write_text("port = [")
    unknown.write_text("prot = 1")
    binary.write_bytes(b"\xff\xfe")

    wrong(cli("start", "--config", str(broken)), f"{broken} is not TOML")
    wrong(cli("start", "--config", str(unknown)), "'prot' is not a setting; did you mean 'port'?")
    wrong(cli("start", "--config", str(binary)), "is not UTF-8")
    wrong(cli("start", "--config", str(tmp_path)), "Is a directory")


def test_variables_are_settings_too(cli, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MESOS_ACTOR_PROT", "1")
    wrong(cli("start"), "'MESOS_ACTOR_PROT' is not a setting; did you mean 'MESOS_ACTOR_PORT'?")
    monkeypatch.delenv("MESOS_ACTOR_PROT")
    monkeypatch.setenv("MESOS_ACTOR_PORT", "many")
    wrong(cli("start"), "MESOS_ACTOR_PORT: 'many' is not a whole number")


def test_a_client_option_can_be_a_variable(cli, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("MESOS_ACTOR_MASTERS", "not a host")
    wrong(cli("status"), "masters: 'not a host' is not a host")


# -- without a cluster


def test_nobody_answers(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    assert cli("init", "--key-dir", str(tmp_path / "keys")).status == 0
    ended = cli("status", "--masters", "127.0.0.1:1", "--timeout", "0.1", "--key-dir", str(tmp_path / "keys"))

    assert (ended.status, ended.out) == (1, ""), ended
    assert "no leading master answered within 0.1 s at tcp://127.0.0.1:1/master" in ended.err
    assert len(ended.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (("logs", "\udcff"), "task_id"),
        (("logs", "--framework", "\udcff", "t"), "framework_id"),
        (("wait", "\udcff"), "framework_id"),
        (("kill", "\udcff"), "task_id"),
        (("tasks", "--agent", "\udcff"), "agent_id"),
        (("service", "remove", "\udcff"), "name"),
    ],
)
def test_a_question_that_cannot_be_asked_blames_nobody_else(cli, tmp_path: Path, arguments, field) -> None:  # type: ignore[no-untyped-def]
    assert cli("init", "--key-dir", str(tmp_path / "keys")).status == 0
    options = ("--masters", "127.0.0.1:1", "--timeout", "0.2", "--key-dir", str(tmp_path / "keys"))
    at = 2 if arguments[0] == "service" else 1

    ended = cli(*arguments[:at], *options, *arguments[at:])

    wrong(ended, f"{field}: '\\udcff' is not valid Unicode text; write it in UTF-8")


def test_keys_that_are_not_there(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ended = cli("status", "--key-dir", str(tmp_path / "none"))

    assert (ended.status, ended.out) == (1, ""), ended
    assert f"run `mesos-actor init --key-dir {tmp_path / 'none'}`" in ended.err


def test_init_makes_a_key_once(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    first, again = (cli("init", "--key-dir", str(tmp_path / "keys")) for _ in range(2))
    made = (tmp_path / "keys" / "cluster.key").read_bytes()

    assert first.status == 0
    assert again.status == 1
    assert "exists already" in again.err
    assert (tmp_path / "keys" / "cluster.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys" / "cluster.key").read_bytes() == made


@pytest.mark.parametrize("client", [(), ("--client",)])
def test_init_refuses_a_directory_that_every_other_command_would_refuse(cli, tmp_path: Path, client) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "open").mkdir(mode=0o755)
    ended = cli("init", *client, "--key-dir", str(tmp_path / "open"))

    assert (ended.status, ended.out) == (1, ""), ended
    assert f"is open to others (mode 0755): chmod 0700 {tmp_path / 'open'}" in ended.err
    assert list((tmp_path / "open").iterdir()) == []


def test_init_for_a_client_prints_the_line_for_the_operator(cli, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    ended = cli("init", "--client", "--key-dir", str(tmp_path / "mine"))

    assert ended.status == 0
    assert ended.out.strip() == (tmp_path / "mine" / "client.pub").read_text().strip()
    assert not (tmp_path / "mine" / "cluster.key").exists()


def test_what_is_piped_into_head_is_no_failure() -> None:
    line = f"{sys.executable} -m mesos_actor --help | head -1 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("0\n", "")
